#!/bin/sh
# Builds the judge of histories into build/tools (a test tool only), and prints its file.
set -eu
cd "$(dirname "$0")/../.."
tool=$PWD/build/tools/history
if [ ! -x "$tool" ] || [ -n "$(find test/support/history -newer "$tool" ! -name README.md)" ]; then
    mkdir -p build/tools
    go=$(test/support/go.sh)
    (cd test/support/history && GOFLAGS=-mod=mod "$go" build -o "$tool" .) >&2
fi
echo "$tool"
