#!/bin/sh
# make bench: Postern beside nginx and HAProxy; the table on standard output, build/bench.json for machines.
cd "$(dirname "$0")/.." || exit 2
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m bench "$@"
