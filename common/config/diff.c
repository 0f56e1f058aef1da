/* Which settings differ that a running part cannot take over. */
#include "common/buf.h"
#include "common/config/reader.h"

#define SLOT(type, config, row) \
    ((const type *)(const void *)((const char *)(config) + (row)->offset))

#define SECRET(config, row) \
    ((struct secret *const *)(const void *)((const char *)(config) + (row)->offset))

bool config_same_secret(const struct secret *a, const struct secret *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    return secret_eq(a, secret_bytes(b));
}

static bool same_targets(const struct config_targets *a, const struct config_targets *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (!sv_eq(a->v[i].text, b->v[i].text)) {
            return false;
        }
    }
    return true;
}

static bool same(const struct config_row *row, const struct config *a, const struct config *b)
{
    switch ((int)row->type) {
    case CFG_BOOL:
        return *SLOT(bool, a, row) == *SLOT(bool, b, row);
    case CFG_ENUM:
        return *SLOT(int, a, row) == *SLOT(int, b, row);
    case CFG_DURATION:
        return *SLOT(int64_t, a, row) == *SLOT(int64_t, b, row);
    case CFG_TEXT:
    case CFG_LISTEN:
        return sv_eq(*SLOT(struct sv, a, row), *SLOT(struct sv, b, row));
    case CFG_SECRET_KEY:
    case CFG_SECRET_TEXT:
        return config_same_secret(*SECRET(a, row), *SECRET(b, row));
    case CFG_ORIGIN:
        return sv_eq(SLOT(struct config_url, a, row)->text, SLOT(struct config_url, b, row)->text);
    case CFG_TARGET:
        return sv_eq(SLOT(struct config_target, a, row)->text,
                     SLOT(struct config_target, b, row)->text);
    case CFG_TARGETS:
        return same_targets(SLOT(struct config_targets, a, row),
                            SLOT(struct config_targets, b, row));
    default:
        return true;
    }
}

void config_restart_needed(const struct config *old, const struct config *fresh, struct buf *out)
{
    for (size_t i = 0; i < config_rows_global.n; i++) {
        const struct config_row *row = &config_rows_global.v[i];

        if ((row->flags & CFG_RELOAD) == 0 && row->type > CFG_IGNORED && row->offset != SIZE_MAX &&
            !same(row, old, fresh)) {
            buf_printf(out, "%s%s", out->n == 0 ? "" : ", ", row->name);
        }
    }
}
