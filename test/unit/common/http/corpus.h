/* What the tests over ../shared/corpora/http have in common: reading a case, putting a line in. */
#pragma once

#include <jansson.h>

#include "common/b64.h"
#include "common/buf.h"
#include "test/support/cmocka.h"

/* "" where the case has no such text. */
static inline const char *corpus_text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s == NULL ? "" : s;
}

/* The bytes of input_b64; *out is made here. */
static inline void corpus_decode(const json_t *c, struct buf *out)
{
    struct sv b64 = sv_from(corpus_text(c, "input_b64"));
    size_t n = 0;
    char *room = NULL;

    buf_init(out, 1 << 20);
    room = buf_room(out, b64_decoded_max(b64.n) + 1);
    assert_int_equal(b64_decode(b64, room, b64_decoded_max(b64.n), &n), ERR_OK);
    out->n = n;
}

/* Puts "Host: host" in at an offset. */
static inline void corpus_add_host(struct buf *bytes, size_t at, struct sv host)
{
    struct buf more;

    buf_init(&more, 1 << 20);
    buf_add_sv(&more, sv_head(buf_sv(bytes), at));
    buf_add_str(&more, "Host: ");
    buf_add_sv(&more, host);
    buf_add_str(&more, "\r\n");
    buf_add_sv(&more, sv_from_at(buf_sv(bytes), at));
    buf_deinit(bytes);
    *bytes = more;
}

/* How many of the named list are judged wrong; n is how many there must be. */
static inline size_t corpus_judge(const char *file, const char *list, size_t n,
                                  bool (*judge)(const json_t *c))
{
    json_t *root = json_load_file(file, 0, NULL);
    json_t *cases = json_object_get(root, list);
    size_t wrong = 0;

    assert_int_equal(json_array_size(cases), n);
    for (size_t i = 0; i < n; i++) {
        wrong += judge(json_array_get(cases, i)) ? 0 : 1;
    }
    json_decref(root);
    return wrong;
}
