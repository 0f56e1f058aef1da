#!/bin/sh
# make soak: a day's life in ten minutes. --seconds N, --seed N, --rate N.
cd "$(dirname "$0")/.." || exit 2
PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m soak "$@"
