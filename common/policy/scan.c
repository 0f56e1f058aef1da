#include "common/policy/scan.h"

#include <string.h>

enum { NAME_MAX_BYTES = 48 };

enum err policy_scan_fail(struct policy_scan *scan, enum policy_fault fault, const char *fmt, ...)
{
    va_list ap;

    if (scan->fault == POLICY_FAULT_NONE) {
        scan->fault = fault;
    }
    va_start(ap, fmt);
    diag_vset(scan->d, fmt, ap);
    va_end(ap);
    diag_at(scan->d, scan->doc == NULL ? NULL : yaml_file(scan->doc), scan->at.line,
            scan->at.column);
    return ERR_INVALID;
}

enum err policy_scan_count(struct policy_scan *scan, size_t n)
{
    if (n > POLICY_ITEMS_MAX - scan->items) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "the policy is too big: more than %d criteria and list members",
                                POLICY_ITEMS_MAX);
    }
    scan->items += n;
    return ERR_OK;
}

void policy_scan_member(struct policy_scan *scan, const json_t *object, const char *key)
{
    struct yaml_pos pos = { 0 };

    if (scan->doc != NULL) {
        pos = yaml_member_pos(scan->doc, object, key);
    }
    if (pos.line != 0) {
        scan->at = pos;
    }
}

void policy_scan_item(struct policy_scan *scan, const json_t *array, size_t index)
{
    struct yaml_pos pos = { 0 };

    if (scan->doc != NULL) {
        pos = yaml_item_pos(scan->doc, array, index);
    }
    if (pos.line != 0) {
        scan->at = pos;
    }
}

json_t *policy_scan_tree(const json_t *tree)
{
    const union {
        const json_t *in;
        json_t *out;
    } same = { .in = tree };

    return same.out;
}

struct sv policy_scan_text(struct policy_scan *scan, const json_t *string)
{
    return arena_sv(scan->arena, sv_of(json_string_value(string), json_string_length(string)));
}

/* Levenshtein's distance; both are at most NAME_MAX_BYTES long. */
static size_t distance(struct sv a, struct sv b)
{
    size_t row[NAME_MAX_BYTES + 1];
    size_t i = 0;
    size_t j = 0;

    for (j = 0; j <= b.n; j++) {
        row[j] = j;
    }
    for (i = 1; i <= a.n; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (j = 1; j <= b.n; j++) {
            size_t above = row[j];
            size_t best = corner + (a.p[i - 1] == b.p[j - 1] ? 0 : 1);

            best = MIN(best, above + 1);
            row[j] = MIN(best, row[j - 1] + 1);
            corner = above;
        }
    }
    return row[b.n];
}

const char *policy_scan_nearest(struct sv name, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t best = MIN(name.n / 3 + 1, (size_t)3) + 1;
    size_t i = 0;

    if (name.n == 0 || name.n > NAME_MAX_BYTES) {
        return NULL;
    }
    for (i = 0; i < n; i++) {
        struct sv known = sv_from(names[i]);
        size_t d = known.n > NAME_MAX_BYTES ? best : distance(name, known);

        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
