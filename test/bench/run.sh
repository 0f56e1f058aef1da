#!/bin/sh
# make bench: Postern beside nginx; the table on standard output, build/bench.json for machines.
cd "$(dirname "$0")/../.." || exit 2
exec /usr/bin/python3 test/bench/bench.py "$@"
