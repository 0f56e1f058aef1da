#!/bin/sh
# Installs node-oidc-provider, a certified OpenID provider that we did not write, into build/tools (a test tool
# only) and prints its folder.
set -eu
cd "$(dirname "$0")/../.."
version=8.8.1
folder=$PWD/build/tools/oidc-provider-$version
mkdir -p build/tools
exec 9>build/tools/.provider.lock
flock 9 # tests run side by side
if [ ! -d "$folder" ]; then
    part=$folder.$$ # an installation that is cut off is none
    mkdir -p "$part"
    npm install --prefix "$part" --no-audit --no-fund --ignore-scripts --loglevel=error "oidc-provider@$version" >&2
    mv -T "$part" "$folder"
fi
echo "$folder"
