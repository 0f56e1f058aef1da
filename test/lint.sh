#!/bin/sh
# The rules of the house that grep can check. Prints what breaks one; exit 1 if anything does.
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
own() { git ls-files --cached --others --exclude-standard -- "$@"; }

rule() { # title, findings
    if [ -n "$2" ]; then
        printf '%s\n%s\n\n' "$1" "$2"
        bad=1
    fi
}

rule "Banned functions:" "$(own '*.c' '*.h' | xargs grep -nE \
    '(^|[^_a-zA-Z0-9.>])(strcpy|strcat|sprintf|vsprintf|strncpy|strncat|strtok|gets|atoi|atol|strtol|sscanf|system|popen|alloca)\(' 2>/dev/null)"
rule "malloc and free outside common/mem.c:" "$(own '*.c' '*.h' | grep -v '^common/mem.c$' | xargs grep -nE \
    '(^|[^_a-zA-Z0-9.>])(malloc|calloc|realloc|aligned_alloc|free)\(' 2>/dev/null)"
rule "common/ must not know a daemon:" "$(own 'common/*.c' 'common/*.h' | xargs grep -nE \
    '#include "(proxy|authenticate|authorize|databroker|acme|ingress|cli)/' 2>/dev/null)"
for daemon in proxy authenticate authorize databroker acme; do
    others=$(echo proxy authenticate authorize databroker acme cli | tr ' ' '\n' | grep -v "^$daemon$" | paste -sd '|')
    rule "$daemon must not include another daemon:" "$(own "$daemon/*.c" "$daemon/*.h" | xargs grep -nE \
        "#include \"($others)/" 2>/dev/null)"
done
# check_client.c stands in for a foreign client, which owes nothing to common/rpc.
rule "gRPC core outside common/rpc:" "$(own '*.c' '*.h' | grep -vE '^(common/rpc/|test/support/check_client\.c$)' | xargs grep -nE '#include <grpc/' 2>/dev/null)"
rule "Files over 800 lines:" "$(own '*.c' '*.h' '*.py' '*.sh' | xargs wc -l | awk '$2 != "total" && $1 > 800')"
rule "Unfinished words:" "$(own '*.c' '*.h' '*.py' '*.sh' Makefile | grep -v '^test/lint.sh$' | xargs grep -nE '\b(FIXME|XXX|HACK)\b|TODO[^(]' 2>/dev/null)"
# The tree below test/unit is the sources'; a corpus is data.
for folder in $(own | grep / | xargs -n 1 dirname | sort -u | grep -vE '^(\.ci|test/unit/.*|test/fuzz/corpus.*)$'); do
    [ -f "$folder/README.md" ] || rule "A folder without README.md:" "$folder"
done
[ $bad = 0 ] && echo "house rules: clean"
exit $bad
