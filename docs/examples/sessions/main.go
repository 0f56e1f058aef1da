// Who is logged in, and the end of it.
//
//	sessions list [USER]     sessions revoke USER     sessions watch
//
// $SOCKET: the databroker's socket.  $TOKEN: from `postern token create --role session-admin`.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"example.com/sessions/pb"
)

func list(ctx context.Context, api pb.SessionServiceClient, filter *pb.SessionFilter) error {
	request := &pb.ListSessionsRequest{Filter: filter}
	for {
		page, err := api.List(ctx, request)
		if err != nil {
			return err
		}
		for _, s := range page.Sessions {
			fmt.Println(s.Id, s.Email, s.Address, s.IssuedAt.AsTime().Format(time.RFC3339))
		}
		if page.NextPageToken == "" {
			return nil
		}
		request.PageToken = page.NextPageToken
	}
}

func revoke(ctx context.Context, api pb.SessionServiceClient, filter *pb.SessionFilter) error {
	done, err := api.Revoke(ctx, &pb.RevokeSessionsRequest{Filter: filter})
	if err == nil {
		fmt.Println("revoked", done.Revoked)
	}
	return err
}

func watch(ctx context.Context, api pb.SessionServiceClient, filter *pb.SessionFilter) error {
	stream, err := api.Watch(ctx, &pb.WatchSessionsRequest{Filter: filter})
	for err == nil {
		var event *pb.WatchSessionsResponse
		if event, err = stream.Recv(); err == nil {
			fmt.Println(event)
		}
	}
	return err
}

func main() {
	verbs := map[string]func(context.Context, pb.SessionServiceClient, *pb.SessionFilter) error{
		"list": list, "revoke": revoke, "watch": watch}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		log.Fatal("usage: sessions list|revoke|watch [USER]")
	}
	filter := &pb.SessionFilter{}
	if len(os.Args) > 2 {
		filter.User = os.Args[2]
	}
	channel, err := grpc.NewClient("unix:"+os.Getenv("SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("TOKEN"))
	if err := verbs[os.Args[1]](ctx, pb.NewSessionServiceClient(channel), filter); err != nil {
		log.Fatal(err)
	}
}
