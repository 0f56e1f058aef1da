#!/bin/sh
# Builds Caddy into build/tools (a test tool only) and prints the program.
set -eu
cd "$(dirname "$0")/../.."
version=v2.11.9
folder=$PWD/build/tools/caddy-$version
if [ ! -x "$folder/caddy" ]; then
    go=$(test/support/go.sh)
    GOBIN=$folder "$go" install "github.com/caddyserver/caddy/v2/cmd/caddy@$version" >&2
fi
echo "$folder/caddy"
