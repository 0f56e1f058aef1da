#!/bin/sh
# Builds the Go client of docs/examples/sessions as docs/sessions.md says, into build/tools (a test tool only), and
# prints its file.
set -eu
cd "$(dirname "$0")/../.."
tool=$PWD/build/tools/sessions
src=docs/examples/sessions
if [ ! "$tool" -nt $src/main.go ] || [ ! "$tool" -nt proto/session_service.proto ]; then
    mkdir -p build/tools/sessions.src/pb
    go=$(test/support/go.sh)
    GOBIN=$PWD/build/tools GOFLAGS=-mod=mod "$go" install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.5 >&2
    GOBIN=$PWD/build/tools GOFLAGS=-mod=mod "$go" install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1 >&2
    cp $src/main.go $src/go.mod build/tools/sessions.src/
    PATH=$PWD/build/tools:$PATH protoc -Iproto -I/usr/include \
        --go_out=build/tools/sessions.src --go_opt=module=example.com/sessions \
        --go_opt=Msession_service.proto=example.com/sessions/pb \
        --go-grpc_out=build/tools/sessions.src --go-grpc_opt=module=example.com/sessions \
        --go-grpc_opt=Msession_service.proto=example.com/sessions/pb proto/session_service.proto
    (cd build/tools/sessions.src && GOFLAGS=-mod=mod "$go" build -o "$tool" .) >&2
fi
echo "$tool"
