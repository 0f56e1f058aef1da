#!/bin/sh
# Builds Pebble, an ACME server for tests that we did not write, and its name server into build/tools (test
# tools only) and prints their folder.
set -eu
cd "$(dirname "$0")/../.."
version=v2.10.3
folder=$PWD/build/tools/pebble-$version
if [ ! -x "$folder/pebble" ] || [ ! -x "$folder/pebble-challtestsrv" ]; then
    go=$(test/support/go.sh)
    GOBIN=$folder "$go" install "github.com/letsencrypt/pebble/v2/cmd/pebble@$version" \
        "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@$version" >&2
fi
echo "$folder"
