#!/bin/sh
# Builds dex, an OpenID provider that we did not write, into build/tools (test tool only) and prints its path.
set -eu
cd "$(dirname "$0")/../.."
version=v2.41.1
tool=$PWD/build/tools/dex-$version
if [ ! -x "$tool" ]; then
    mkdir -p build/tools
    GOBIN="$PWD/build/tools" GOFLAGS=-trimpath GOTOOLCHAIN=local nice go install "github.com/dexidp/dex/cmd/dex@$version" >&2
    mv build/tools/dex "$tool"
fi
echo "$tool"
