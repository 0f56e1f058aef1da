#!/bin/sh
# test/fuzz/run.sh DIR replay|run: every fuzz target over its corpus once, or for FUZZ_SECONDS.
# Ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 2
programs=$1
mode=$2
passed=0
failed=0
grown=build/fuzz/corpus
artifacts=build/fuzz/artifacts
mkdir -p "$grown" "$artifacts"
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for program in "$programs"/*; do
    [ -x "$program" ] || continue
    name=$(basename "$program")
    seeds=test/fuzz/corpus/$name
    mkdir -p "$grown/$name"
    set -- -artifact_prefix="$artifacts/$name-" -timeout=10 -rss_limit_mb=2048 -verbosity=0
    if [ "$mode" = run ]; then
        timeout $((FUZZ_SECONDS + 120)) "$program" "$@" -max_total_time="$FUZZ_SECONDS" "$grown/$name" \
            $([ -d "$seeds" ] && echo "$seeds") >"$out" 2>&1
    else
        # shellcheck disable=SC2046
        timeout 300 "$program" "$@" -runs=2000 "$grown/$name" $([ -d "$seeds" ] && echo "$seeds") >"$out" 2>&1
    fi
    if [ $? = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "--- $name"
        tail -n 40 "$out"
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
