#!/bin/sh
# Builds grpcurl, a gRPC client that knows only what a server's reflection tells it, into build/tools (a test
# tool only) and prints its file.
set -eu
cd "$(dirname "$0")/../.."
tool=$PWD/build/tools/grpcurl
if [ ! -x "$tool" ]; then
    mkdir -p build/tools
    go=$(test/support/go.sh)
    GOBIN=$PWD/build/tools GOFLAGS=-mod=mod "$go" install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 >&2
fi
echo "$tool"
