/* Looking up names in the tables of rows. */
#include <string.h>

#include "common/config/rows.h"

const struct config_row *config_rows_find(const struct config_rows *rows, struct sv name,
                                          bool *is_file_out)
{
    *is_file_out = false;
    for (size_t i = 0; i < rows->n; i++) {
        const struct config_row *row = &rows->v[i];
        struct sv known;
        struct sv rest = { 0 };

        if (name.n == 0 || row->name[0] != name.p[0]) {
            continue; /* 10,000 routes ask for ten names each */
        }
        known = sv_from(row->name);
        if (sv_eq(known, name)) {
            return row;
        }
        if ((row->flags & (CFG_HAS_FILE | CFG_PLURAL)) == 0 || !sv_starts(name, known)) {
            continue;
        }
        rest = sv_from_at(name, known.n);
        if ((row->flags & CFG_HAS_FILE) != 0 && sv_eq(rest, SV("_file"))) {
            *is_file_out = true;
            return row;
        }
        if ((row->flags & CFG_PLURAL) != 0 && sv_eq(rest, SV("s"))) {
            return row;
        }
    }
    return NULL;
}

size_t config_rows_index(const struct config_rows *rows, const char *name)
{
    for (size_t i = 0; i < rows->n; i++) {
        const char *known = rows->v[i].name;

        if (known[0] == name[0] && strcmp(known, name) == 0) {
            return i;
        }
    }
    CHECK(false);
    return 0;
}

bool config_rows_given(const struct config_rows *rows, const bool *given, const char *name)
{
    return given[config_rows_index(rows, name)];
}

enum { NAME_MAX_LEN = 64 };

static bool swapped(struct sv a, struct sv b, size_t i, size_t j)
{
    return i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1];
}

/* Optimal string alignment distance: insert, delete, change, swap of neighbours. */
static unsigned distance(struct sv a, struct sv b)
{
    unsigned rows[3][NAME_MAX_LEN + 1] = { { 0 } };
    unsigned *before = rows[0];
    unsigned *last = rows[1];
    unsigned *now = rows[2];

    for (size_t j = 0; j <= b.n; j++) {
        last[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a.n; i++) {
        unsigned *spare = before;

        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b.n; j++) {
            unsigned cost = a.p[i - 1] == b.p[j - 1] ? 0 : 1;

            now[j] = MIN(MIN(last[j] + 1, now[j - 1] + 1), last[j - 1] + cost);
            if (swapped(a, b, i, j)) {
                now[j] = MIN(now[j], before[j - 2] + 1);
            }
        }
        before = last;
        last = now;
        now = spare;
    }
    return last[b.n];
}

const char *config_rows_nearest(const struct config_rows *rows, struct sv name)
{
    const char *best = NULL;
    unsigned best_distance = name.n < 4 ? 2 : (unsigned)(name.n / 3 + 2);

    if (name.n == 0 || name.n > NAME_MAX_LEN) {
        return NULL;
    }
    for (size_t i = 0; i < rows->n; i++) {
        struct sv known = sv_from(rows->v[i].name);

        if (known.n <= NAME_MAX_LEN && rows->v[i].type > CFG_IGNORED) {
            unsigned d = distance(name, known);

            if (d < best_distance) {
                best_distance = d;
                best = rows->v[i].name;
            }
        }
    }
    return best;
}
