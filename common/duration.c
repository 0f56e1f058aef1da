#include "common/duration.h"

/* Reads digits[.digits] and a unit; microseconds are enough. */
static enum err part(struct sv *text, double *ms)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = { { "ms", 1 },   { "us", 1e-3 }, { "\xc2\xb5s", 1e-3 }, { "ns", 1e-6 },
                  { "s", 1000 }, { "m", 60e3 },  { "h", 3600e3 } };

    double value = 0;
    double scale = 1;
    size_t i = 0;
    bool dot = false;
    bool digit = false;

    for (; i < text->n; i++) {
        char c = text->p[i];

        if (c == '.' && !dot) {
            dot = true;
            continue;
        }
        if (c < '0' || c > '9' || i > 20) {
            break;
        }
        digit = true;
        scale = dot ? scale / 10 : scale;
        value = dot ? value + scale * (c - '0') : value * 10 + (c - '0');
    }
    if (!digit) {
        return ERR_INVALID;
    }
    *text = sv_from_at(*text, i);
    for (size_t u = 0; u < ARRAY_LEN(units); u++) {
        struct sv unit = sv_from(units[u].name);

        if (sv_starts(*text, unit)) {
            *text = sv_from_at(*text, unit.n);
            *ms += value * units[u].ms;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

enum err duration_parse(struct sv text, int64_t *ms_out)
{
    double ms = 0;

    if (sv_eq(text, SV("0"))) {
        *ms_out = 0;
        return ERR_OK;
    }
    if (text.n == 0) {
        return ERR_INVALID;
    }
    while (text.n != 0) {
        enum err err = part(&text, &ms);

        if (err != ERR_OK) {
            return err;
        }
    }
    if (ms > 1e15) {
        return ERR_LIMIT;
    }
    *ms_out = (int64_t)(ms + 0.5);
    return ERR_OK;
}
