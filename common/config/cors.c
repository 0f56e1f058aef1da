/* The cors block of a route. */
#include <stdio.h>

#include "common/config/reader.h"
#include "common/http/url.h"

static struct sv default_methods[] = { { "GET", 3 }, { "HEAD", 4 },  { "POST", 4 },
                                       { "PUT", 3 }, { "PATCH", 5 }, { "DELETE", 6 } };
static struct sv default_headers[] = { { "Authorization", 13 }, { "Cache-Control", 13 },
                                       { "Content-Type", 12 },  { "If-Modified-Since", 17 },
                                       { "Range", 5 },          { "X-Requested-With", 16 } };

/* In the one spelling that browsers send, so that comparing is enough; "*." of a host stays. */
static bool read_origin(struct config_reader *r, struct sv *text)
{
    struct http_url url = { 0 };
    size_t at = sv_search(*text, SV("://*."));
    char *plain = arena_str(r->arena, *text);
    struct buf b;
    bool fine = false;

    if (at != SIZE_MAX) {
        plain[at + 3] = 'w';
    }
    if (http_url_parse(sv_of(plain, text->n), &url, NULL) != ERR_OK || url.path.n != 0 ||
        url.has_query || url.has_fragment || url.scheme == HTTP_SCHEME_NONE ||
        (at != SIZE_MAX && url.host_kind != HTTP_HOST_NAME)) {
        return false;
    }
    buf_init(&b, HTTP_URL_MAX);
    http_url_add_origin(&b, &url);
    fine = b.err == ERR_OK;
    *text = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    if (fine && at != SIZE_MAX) {
        char *kept = arena_str(r->arena, *text);

        kept[sv_search(*text, SV("://")) + 3] = '*';
        *text = sv_of(kept, text->n);
    }
    return fine;
}

static bool has_star(struct config_strings list)
{
    for (size_t i = 0; i < list.n; i++) {
        if (sv_eq(list.v[i], SV("*"))) {
            return true;
        }
    }
    return false;
}

static struct sv joined(struct config_reader *r, struct config_strings list)
{
    struct sv kept = { 0 };
    struct buf b;

    buf_init(&b, (size_t)1 << 20);
    for (size_t i = 0; i < list.n; i++) {
        buf_add_str(&b, i == 0 ? "" : ", ");
        buf_add_sv(&b, list.v[i]);
    }
    kept = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    return kept;
}

void config_read_cors(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_cors *cors = &((struct config_route *)base)->cors;
    bool given[16] = { false };
    char seconds[24];

    CHECK(config_rows_cors.n <= ARRAY_LEN(given));
    config_read_defaults(r, &config_rows_cors, cors);
    config_read_object(r, &config_rows_cors, v, cors, given, NULL);
    cors->on = true;
    for (size_t i = 0; i < cors->allow_origins.n; i++) {
        if (!sv_eq(cors->allow_origins.v[i], SV("*")) &&
            !read_origin(r, &cors->allow_origins.v[i])) {
            config_error(r, v->place,
                         "cors: allow_origins: expected https://host[:port], https://*.host[:port] "
                         "or *");
        }
    }
    if (json_is_object(v->json) && cors->allow_origins.n == 0) {
        config_error(r, v->place, "cors: allow_origins: it names none");
    }
    if (cors->allow_credentials &&
        (has_star(cors->allow_origins) || has_star(cors->allow_headers) ||
         has_star(cors->allow_methods) || has_star(cors->expose_headers))) {
        config_error(r, v->place,
                     "cors: allow_credentials with * would let every web page act as whoever "
                     "looks at it; name what is allowed");
    }
    if (cors->allow_methods.n == 0) {
        cors->allow_methods =
            (struct config_strings){ default_methods, ARRAY_LEN(default_methods) };
    }
    if (cors->allow_headers.n == 0) {
        cors->allow_headers =
            (struct config_strings){ default_headers, ARRAY_LEN(default_headers) };
    }
    cors->methods_text = joined(r, cors->allow_methods);
    cors->headers_text = joined(r, cors->allow_headers);
    cors->expose_text = joined(r, cors->expose_headers);
    (void)snprintf(seconds, sizeof(seconds), "%lld", (long long)cors->max_age_ms / 1000);
    cors->max_age_text = config_keep(r, sv_from(seconds));
}
