/* Cookies and forms: after the strip none of ours is left and every foreign pair is there byte for
 * byte and in order, with no blank at either end; stripping again changes nothing. Forms: what is
 * written is read back. */
#include "common/arena.h"
#include "common/buf.h"
#include "common/http/cookie.h"
#include "common/http/date.h"
#include "common/http/form.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_cookie_names ours = { .exact = { { "o", 1 } },
                                               .prefix = { { "__Host-", 7 } },
                                               .n_exact = 1,
                                               .n_prefix = 1 };

/* The next foreign pair of *header; false at the end. */
static bool next_foreign(struct sv *header, struct sv *name_out, struct sv *value_out)
{
    while (http_cookie_next(header, name_out, value_out, NULL)) {
        if (!http_cookie_is_ours(&ours, *name_out)) {
            return true;
        }
    }
    return false;
}

static void check_strip(struct sv header)
{
    struct buf out;
    struct buf again;
    struct sv rest = header;
    struct sv left = { 0 };
    struct sv name = { 0 };
    struct sv value = { 0 };
    struct sv name2 = { 0 };
    struct sv value2 = { 0 };
    enum http_cookie_strip what = HTTP_COOKIE_EMPTY;

    buf_init(&out, 1 << 20);
    buf_init(&again, 1 << 20);
    what = http_cookie_strip(header, &ours, &out);
    left = what == HTTP_COOKIE_SAME ? header : buf_sv(&out);
    must(what != HTTP_COOKIE_EMPTY || out.n == 0);
    must(left.n <= header.n);
    must(what != HTTP_COOKIE_STRIPPED || sv_trim(left).n == left.n);
    if (left.n > 0) {
        must(http_cookie_strip(left, &ours, &again) != HTTP_COOKIE_STRIPPED);
    }
    while (next_foreign(&rest, &name, &value)) {
        must(http_cookie_next(&left, &name2, &value2, NULL));
        must(sv_eq(name, name2) && sv_eq(value, value2));
    }
    must(left.p == NULL || !http_cookie_next(&left, &name2, &value2, NULL));
    buf_deinit(&out);
    buf_deinit(&again);
}

static void check_form(struct sv text)
{
    struct arena arena;
    struct buf b;
    struct sv value = { 0 };
    struct sv decoded = { 0 };

    arena_init(&arena);
    buf_init(&b, 1 << 20);
    if (http_form_get(text, SV("code"), &arena, &value) == ERR_OK) {
        must(sv_is_utf8(value) && sv_find(value, '\0') == SIZE_MAX);
        http_form_add(&b, SV("code"), value);
        if (b.n <= HTTP_FORM_BYTES_MAX) {
            must(http_form_get(buf_sv(&b), SV("code"), &arena, &decoded) == ERR_OK);
            must(sv_eq(value, decoded));
        }
    }
    buf_deinit(&b);
    arena_deinit(&arena);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv text = sv_of(data, size);
    struct http_set_cookie cookie = { .name = SV("n"), .value = text };
    int64_t at = 0;
    struct buf b;

    if (size == 0) {
        return 0;
    }
    check_strip(text);
    check_form(text);
    buf_init(&b, 1 << 16);
    if (http_set_cookie_add(&b, &cookie) == ERR_OK) {
        must(sv_find(buf_sv(&b), '\n') == SIZE_MAX);
    }
    buf_deinit(&b);
    if (http_date_parse(text, &at) == ERR_OK) {
        char again[HTTP_DATE_LEN + 1];

        http_date_format(at, again);
        must(sv_eq(text, sv_from(again)));
    }
    return 0;
}
