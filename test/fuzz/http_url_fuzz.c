/* URLs and authorities: what was taken, written again, is taken as the same; a redirect that is
 * allowed goes to a host of the set. */
#include <string.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/http/url.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_authority(struct sv text)
{
    struct http_authority auth;
    char out[HTTP_HOST_MAX + 1];
    char out2[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    struct sv again = { 0 };

    if (http_authority_parse(text, &auth) != ERR_OK) {
        return;
    }
    must(http_host_canonical(auth.host, out, &host) == ERR_OK);
    must(host.n > 0 && host.n <= HTTP_HOST_MAX);
    must(http_host_canonical(host, out2, &again) == ERR_OK);
    must(sv_eq(host, again));
}

static void check_url(struct sv text)
{
    struct http_url url;
    struct http_url again;
    struct http_url copy;
    struct arena arena;
    struct buf b;
    struct buf b2;

    if (http_url_parse(text, &url, NULL) != ERR_OK) {
        return;
    }
    arena_init(&arena);
    buf_init(&b, 1 << 16);
    buf_init(&b2, 1 << 16);
    http_url_add(&b, &url);
    /* The canonical text may be one byte longer than the bound (a path of "/"). */
    if (b.n <= HTTP_URL_MAX) {
        must(http_url_parse(buf_sv(&b), &again, NULL) == ERR_OK);
        must(http_url_same_origin(&url, &again));
        must(sv_eq(url.query, again.query) && sv_eq(url.fragment, again.fragment));
        must(url.path.n == 0 || sv_eq(url.path, again.path));
        http_url_add(&b2, &again);
        must(sv_eq(buf_sv(&b), buf_sv(&b2)));
    }
    http_url_copy(&url, &arena, &copy);
    must(http_url_same_origin(&url, &copy));
    buf_deinit(&b);
    buf_deinit(&b2);
    arena_deinit(&arena);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_url_set *set = http_url_set_new();
    struct sv text = sv_of(data, size);
    struct http_url url;

    must(http_url_set_add(set, SV("app.example")) == ERR_OK);
    must(http_url_set_add(set, SV("b.example:8443")) == ERR_OK);
    if (size > 0) {
        check_authority(text);
        check_url(text);
        if (http_url_redirect_check(set, text, true, &url) == ERR_OK) {
            must(url.scheme == HTTP_SCHEME_HTTPS);
            must((sv_eq(url.host, SV("app.example")) && url.port == 443) ||
                 (sv_eq(url.host, SV("b.example")) && url.port == 8443));
        }
        if (http_url_is_local_path(text)) {
            must(text.p[0] == '/' && (text.n == 1 || (text.p[1] != '/' && text.p[1] != '\\')));
        }
    }
    http_url_set_free(&set);
    return 0;
}
