// ext_authz ADDRESS CA TOKEN: a client, with TLS but on unix sockets, made of the published messages of envoy.service.auth.v3. Each line of
// standard input is a CheckRequest in JSON; each line of standard output a CheckResponse, or {"error": code}.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

func main() {
	ca, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	creds := credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "authorize.postern.internal"})
	if strings.HasPrefix(os.Args[1], "unix:") {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.Dial(os.Args[1], grpc.WithTransportCredentials(creds))
	if err != nil {
		panic(err)
	}
	client := auth.NewAuthorizationClient(conn)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var request auth.CheckRequest
		if err := protojson.Unmarshal(lines.Bytes(), &request); err != nil {
			panic(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if os.Args[3] != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Args[3])
		}
		response, err := client.Check(ctx, &request)
		cancel()
		if err != nil {
			fmt.Printf("{\"error\": %d}\n", status.Code(err))
			continue
		}
		fmt.Println(protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true, UseEnumNumbers: true}.Format(response))
	}
}
