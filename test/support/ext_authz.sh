#!/bin/sh
# Builds a client of envoy.service.auth.v3 from the published messages, into build/tools (a test tool only), and
# prints its file.
set -eu
cd "$(dirname "$0")/../.."
tool=$PWD/build/tools/ext_authz
if [ ! "$tool" -nt test/support/ext_authz/main.go ]; then
    mkdir -p build/tools
    go=$(test/support/go.sh)
    (cd test/support/ext_authz && GOFLAGS=-mod=mod "$go" build -o "$tool" .) >&2
fi
echo "$tool"
