#include "common/http/form.h"

#include "common/http/chars.h"

enum err http_form_decode(struct sv text, bool plus_is_space, struct arena *arena, struct sv *out)
{
    char *p = NULL;
    size_t n = 0;
    size_t i = 0;

    if (sv_find(text, '\0') != SIZE_MAX) {
        return ERR_INVALID;
    }
    if (sv_find(text, '%') == SIZE_MAX && (!plus_is_space || sv_find(text, '+') == SIZE_MAX)) {
        *out = text;
        return ERR_OK;
    }
    p = arena_alloc(arena, text.n + 1);
    for (i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (c == '%') {
            if (text.n - i < 3 || !http_char_is(text.p[i + 1], HTTP_CH_HEX) ||
                !http_char_is(text.p[i + 2], HTTP_CH_HEX)) {
                return ERR_INVALID;
            }
            c = (char)(http_char_hex(text.p[i + 1]) * 16 + http_char_hex(text.p[i + 2]));
            i += 2;
            if (c == '\0') {
                return ERR_INVALID;
            }
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        p[n++] = c;
    }
    *out = sv_of(p, n);
    return ERR_OK;
}

static enum err take_pair(struct sv pair, struct http_form_value *wanted, size_t n,
                          struct arena *arena)
{
    struct sv raw_key = sv_cut(&pair, '=');
    struct sv key = { 0 };
    enum err err = http_form_decode(raw_key, true, arena, &key);
    size_t i = 0;

    if (err != ERR_OK) {
        return err;
    }
    for (i = 0; i < n; i++) {
        if (!sv_eq(wanted[i].key, key)) {
            continue;
        }
        if (wanted[i].present) {
            return ERR_EXISTS;
        }
        err = http_form_decode(pair, true, arena, &wanted[i].value);
        if (err != ERR_OK) {
            return err;
        }
        wanted[i].present = true;
        return sv_is_utf8(wanted[i].value) ? ERR_OK : ERR_INVALID;
    }
    return ERR_OK;
}

static void forget(struct http_form_value *wanted, size_t n)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        wanted[i].value = (struct sv){ 0 };
        wanted[i].present = false;
    }
}

enum err http_form_read(struct sv text, struct http_form_value *wanted, size_t n,
                        struct arena *arena)
{
    enum err err = text.n > HTTP_FORM_BYTES_MAX ? ERR_LIMIT : ERR_OK;
    size_t pairs = 0;

    forget(wanted, n);
    while (err == ERR_OK && text.p != NULL) {
        struct sv pair = sv_cut(&text, '&');

        if (pair.n == 0) {
            continue;
        }
        err = ++pairs > HTTP_FORM_PAIRS_MAX ? ERR_LIMIT : take_pair(pair, wanted, n, arena);
    }
    if (err != ERR_OK) {
        forget(wanted, n);
    }
    return err;
}

enum err http_form_get(struct sv text, struct sv key, struct arena *arena, struct sv *value_out)
{
    struct http_form_value wanted = { .key = key };
    enum err err = http_form_read(text, &wanted, 1, arena);

    if (err != ERR_OK) {
        return err;
    }
    if (!wanted.present) {
        return ERR_NOT_FOUND;
    }
    *value_out = wanted.value;
    return ERR_OK;
}

void http_form_add(struct buf *b, struct sv key, struct sv value)
{
    if (b->n > 0 && b->p[b->n - 1] != '?') {
        buf_add_char(b, '&');
    }
    buf_add_urlenc(b, key);
    buf_add_char(b, '=');
    buf_add_urlenc(b, value);
}
