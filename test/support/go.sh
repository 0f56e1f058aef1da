#!/bin/sh
# Prints a Go that can build today's test tools: the one that is there, or, where that is Debian's and older
# than 1.21, which is the first to fetch newer ones by itself, one that it fetches as a module (checked against
# Go's checksum database).
set -eu
version=go1.26.1
minor=$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
if [ "${minor:-21}" -ge 21 ]; then
    command -v go
    exit
fi
module=golang.org/toolchain@v0.0.1-$version.linux-$(go env GOARCH)
folder=$(cd / && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
if [ ! -x "$folder/bin/go" ]; then # modules keep no permission to run
    find "$folder/bin" "$folder/pkg/tool" -type f -exec chmod +x {} +
fi
echo "$folder/bin/go"
