#!/bin/sh
# Builds h2spec, a conformance suite for HTTP/2 that we did not write, into build/tools (a test tool only)
# and prints its file.
set -eu
cd "$(dirname "$0")/../.."
tool=$PWD/build/tools/h2spec
if [ ! -x "$tool" ]; then
    mkdir -p build/tools
    go=$(test/support/go.sh)
    GOBIN=$PWD/build/tools GOFLAGS=-mod=mod "$go" install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible >&2
fi
echo "$tool"
