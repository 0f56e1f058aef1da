/* A request that another proxy tells of: "method\nhost\ntarget". What is taken has one reading: nothing in its
 * path is left to resolve or to merge, and it says the same before and after. */
#include <string.h>

#include "common/http/reported.h"
#include "common/mem.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct http_reported *r, const struct http_canon_rules *rules,
                  struct arena *arena)
{
    struct http_request req = { .method = HTTP_UNKNOWN };
    struct http_field none[1];
    struct http_head head;
    struct sv raw = r->target;

    http_head_init(&head, HTTP_REQUEST, NULL, none, 0);
    if (http_reported_head(&head, r) != HTTP_FAULT_NONE ||
        http_reported_canon(&head, rules, arena, &req) != HTTP_FAULT_NONE) {
        must(req.method == HTTP_UNKNOWN);
        return;
    }
    raw = sv_cut(&raw, '?');
    must(!req.redirect && req.path.n != 0 && req.path.p[0] == '/');
    must(sv_search(req.path, SV("//")) == SIZE_MAX && sv_search(req.path, SV("/../")) == SIZE_MAX &&
         sv_search(req.path, SV("/./")) == SIZE_MAX && sv_search(req.path, SV("/..;")) == SIZE_MAX);
    must(sv_find(raw, '/') == 0 && req.path.n <= raw.n * 3);
    for (size_t i = 0, k = 0; i < raw.n || k < req.path.n; i++, k++) { /* slash for slash */
        while (i < raw.n && raw.p[i] != '/') {
            i++;
        }
        while (k < req.path.n && req.path.p[k] != '/') {
            k++;
        }
        must((i < raw.n) == (k < req.path.n));
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_canon_rules keep = { .keep_double_slashes = true,
                                                  .escaped_slashes = HTTP_SLASH_KEEP };
    static const struct http_canon_rules unescape = { .escaped_slashes =
                                                          HTTP_SLASH_UNESCAPE_FORWARD };
    struct sv rest = sv_of(data, size);
    struct http_reported r = { .method = { 0 } };
    struct arena arena;

    r.method = sv_cut(&rest, '\n');
    r.authority = sv_cut(&rest, '\n');
    r.target = rest;
    arena_init(&arena);
    check(&r, NULL, &arena);
    check(&r, &keep, &arena);
    check(&r, &unescape, &arena);
    arena_deinit(&arena);
    return 0;
}
