#!/bin/sh
# Runs the suites and ends with "N passed, N failed".   test/run.sh [unit|policy|flow|browser|proof …]
# A unit program counts as one test for each cmocka test in it. Environment: BIN, UNIT, SAN; FLOW names
# files of test/flow ("trial tls"), none: all.
set -u
cd "$(dirname "$0")/.." || exit 2
: "${BIN:=build/bin}" "${UNIT:=build/cc-plain/test/unit}" "${SAN:=}"
suites=${*:-unit policy flow browser}
passed=0
failed=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export BIN SAN
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0:exitcode=99}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$PWD/test/support/lsan.supp:print_suppressions=0}"
# history_size: with less, the writer of a race in gRPC may be unknown, and the suppression does not fit.
export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=$PWD/test/support/tsan.supp:halt_on_error=1:exitcode=99:history_size=7}"
case $SAN in
*tsan*) wrap="setarch -R" ;; # TSan wants its address space unshuffled
*) wrap="" ;;
esac

add() { # passed, failed, name
    passed=$((passed + $1))
    failed=$((failed + $2))
    [ "$2" = 0 ] || echo "FAILED  $3"
}

# TSan cannot see into gRPC. Only programs that speak it are excused for that (see the file).
tsan_options() { # name of a unit program
    case $1 in
    authorize/service_test | authorize/service_store_test | authorize/explain_test | databroker/registry_test | proxy/authz_client_test | common/rpc/*) echo "$TSAN_OPTIONS" ;;
    *) echo "$TSAN_OPTIONS" | sed 's/suppressions=[^:]*://' ;;
    esac
}

run_unit() {
    for program in $(find "$UNIT" -name '*_test' -type f -perm -u+x | sort); do
        name=${program#"$UNIT"/}
        out=$logs/unit
        TSAN_OPTIONS=$(tsan_options "$name") $wrap timeout 300 "$program" >"$out" 2>&1
        code=$?
        ok=$(grep -c '^\[       OK \]' "$out")
        bad=$(grep -c '^\[  FAILED  \] [a-z]' "$out")
        if [ $code != 0 ]; then
            [ "$bad" != 0 ] || bad=1
            echo "--- $name: exit $code"
            grep -vE '^\[( RUN|       OK)' "$out" | tail -n 60
        elif [ "$ok" = 0 ]; then
            bad=1
            echo "--- $name: ran no test"
        fi
        add "$ok" "$bad" "$name"
    done
}

run_policy() {
    out=$logs/policy
    for cases in ../shared/cases/policy/cases.jsonl test/policy/*.jsonl; do
        [ -f "$cases" ] || continue
        $wrap "$BIN/postern" policy test "$cases" >"$out" 2>&1
        line=$(tail -n 1 "$out")
        ok=$(echo "$line" | sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p')
        bad=$(echo "$line" | sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p')
        if [ -z "$ok" ] || [ -z "$bad" ]; then
            ok=0
            bad=1
        fi
        [ "$bad" = 0 ] || cat "$out"
        add "$ok" "$bad" "$(basename "$cases")"
    done
}

# Debian's Python: the modules of the tests are its packages. Ten minutes on two quick cores: the bound is for what
# hangs. An interrupt: what failed until then is told.
call_pytest() { # where to, arguments…
    to=$1
    shift
    timeout --signal=INT --kill-after=60 "${bound:-3600}" /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider --tb=short "$@" >"$to" 2>&1
}

count_pytest() { # its output, exit code, name
    last=$(tail -n 1 "$1")
    ok=$(echo "$last" | sed -n 's/.*\b\([0-9][0-9]*\) passed.*/\1/p')
    bad=$(echo "$last" | sed -n 's/.*\b\([0-9][0-9]*\) failed.*/\1/p')
    broken=$(echo "$last" | sed -n 's/.*\b\([0-9][0-9]*\) error.*/\1/p')
    bad=$((${bad:-0} + ${broken:-0}))
    if [ "$2" != 0 ]; then
        [ "$bad" != 0 ] || bad=1
        tail -n 150 "$1"
    fi
    grep -E '^SKIPPED' "$1"
    add "${ok:-0}" "$bad" "$3"
}

# Files whose tests wait for a token's end, a poller's next look or a sign of life run beside the others: ten minutes of next
# to no work.
patient_files="refresh external_sources partition"

run_flow() {
    if [ -n "${FLOW:-}" ]; then
        # shellcheck disable=SC2046 # a word for each file
        call_pytest "$logs/flow" $(for name in $FLOW; do echo "test/flow/test_$name.py"; done)
        count_pytest "$logs/flow" $? flow
        return
    fi
    # shellcheck disable=SC2046 # a word for each file
    call_pytest "$logs/patient" $(for name in $patient_files; do echo "test/flow/test_$name.py"; done) &
    patient=$!
    # shellcheck disable=SC2046
    call_pytest "$logs/flow" test/flow $(for name in $patient_files; do echo "--ignore=test/flow/test_$name.py"; done)
    count_pytest "$logs/flow" $? flow
    wait "$patient"
    count_pytest "$logs/patient" $? "flow, the patient ones"
}

# Flow tests that have a long form, a file at a time, each with what it counted. An hour is too short for the thousand
# kills and all the power losses on a busy machine.
run_proof() {
    export POSTERN_PROOF=full
    bound=14400
    for name in ${FLOW:-history store_faults directory graph}; do
        call_pytest "$logs/proof" -s "test/flow/test_$name.py"
        code=$?
        [ "$code" != 0 ] || cat "$logs/proof"
        count_pytest "$logs/proof" "$code" "proof, $name"
    done
}

run_browser() {
    call_pytest "$logs/browser" test/browser
    count_pytest "$logs/browser" $? browser
}

for suite in $suites; do
    echo "== $suite"
    case $suite in
    unit) run_unit ;;
    policy) run_policy ;;
    flow) run_flow ;;
    browser) run_browser ;;
    proof) run_proof ;;
    *) add 0 1 "$suite: no such suite" ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
