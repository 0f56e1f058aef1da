/* What a route changes about paths, hosts and answers: rules that need more than a row. */
#include "common/config/reader.h"
#include "common/http/canon.h"
#include "common/http/name.h"
#include "common/http/url.h"

/* The place of a member; of the whole where it is not there. */
static struct config_value member_of(const struct config_value *v, const char *key)
{
    json_t *json = json_object_get(v->json, key);

    return json == NULL ? *v : config_member(v, key, json);
}

/* A path that goes out as part of every request: already in the one spelling that requests have, so
 * that it never is the reason for another one. */
static void check_path(struct config_reader *r, const struct config_value *v, const char *key,
                       struct sv path)
{
    const struct http_canon_rules rules = { .keep_dot_segments = true,
                                            .escaped_slashes = HTTP_SLASH_KEEP };
    struct config_value at = member_of(v, key);
    struct sv canonical = { 0 };

    if (path.n == 0) {
        return;
    }
    if (!sv_starts(path, SV("/"))) {
        config_error(r, at.place, "%s: expected a path that begins with /", key);
    } else if (http_canon_path(path, &rules, r->arena, &canonical, NULL) != HTTP_FAULT_NONE ||
               !sv_eq(canonical, path)) {
        config_error(r, at.place,
                     "%s: expected a plain path: no dots or doubled slashes to resolve, nothing "
                     "that must be percent-encoded, no query",
                     key);
    }
}

static void check_pair(struct config_reader *r, const struct config_value *v,
                       const char *pattern_key, const struct pattern *pattern,
                       struct sv substitution)
{
    const char *wanted = "regex_rewrite_substitution";
    struct config_value at;
    struct diag d = { 0 };
    bool given = false;

    if (sv_starts(sv_from(pattern_key), SV("host_"))) {
        wanted = "host_path_regex_rewrite_substitution";
    }
    given = json_object_get(v->json, wanted) != NULL;
    at = member_of(v, given ? wanted : pattern_key);
    if (given != (json_object_get(v->json, pattern_key) != NULL)) {
        config_error(r, at.place, "\"%s\" and \"%s\" belong together", pattern_key, wanted);
    } else if (pattern != NULL && pattern_check_substitution(pattern, substitution, &d) != ERR_OK) {
        config_error(r, at.place, "%s: %s", wanted, d.text);
    }
}

static void check_host(struct config_reader *r, const struct config_value *v, const char *key,
                       struct sv *text)
{
    struct http_authority auth = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    struct buf b;

    if (text->n == 0) {
        return;
    }
    if (http_authority_parse(*text, &auth) != ERR_OK ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        config_error(r, member_of(v, key).place, "%s: expected a host, or host:port", key);
        return;
    }
    buf_init(&b, HTTP_HOST_MAX + 16);
    buf_add_sv(&b, host);
    if (auth.port != 0) {
        buf_printf(&b, ":%u", auth.port);
    }
    *text = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
}

static void check_exclusive(struct config_reader *r, const struct config_value *v,
                            const struct config_route *route)
{
    size_t paths = (route->prefix_rewrite.n != 0 ? 1U : 0U) + (route->rewrite != NULL ? 1U : 0U);
    size_t hosts = (route->preserve_host_header ? 1U : 0U) +
                   (route->host_rewrite.n != 0 ? 1U : 0U) +
                   (route->host_rewrite_header.n != 0 ? 1U : 0U) +
                   (route->host_rewrite_path != NULL ? 1U : 0U);

    if (paths > 1) {
        config_error(r, v->place, "prefix_rewrite and regex_rewrite_pattern exclude each other");
    }
    if (hosts > 1) {
        config_error(r, v->place,
                     "preserve_host_header, host_rewrite, host_rewrite_header and "
                     "host_path_regex_rewrite_pattern exclude each other");
    }
    if (paths + hosts > 0 && route->action != CONFIG_ACTION_UPSTREAM) {
        config_error(r, v->place, "rewrites of path and host belong to a route with \"to\"");
    }
    if (route->prefix_rewrite.n != 0 && route->match == CONFIG_MATCH_REGEX) {
        config_error(r, v->place,
                     "prefix_rewrite has no meaning with regex; use regex_rewrite_pattern");
    }
}

/* What stands behind the host in "to" is a rewrite of paths, and a request has one path. */
static void check_upstream_paths(struct config_reader *r, const struct config_value *v,
                                 const struct config_route *route)
{
    bool rewritten = route->prefix_rewrite.n != 0 || route->rewrite != NULL;

    for (size_t i = 0; i < route->n_upstreams; i++) {
        struct sv path = route->upstreams[i].url.path;

        if (path.n != 0 && route->match == CONFIG_MATCH_REGEX) {
            config_error(r, v->place,
                         "to: a path has no meaning with regex; use regex_rewrite_pattern");
            return;
        }
        if (!rewritten && !sv_eq(path, route->upstreams[0].url.path)) {
            config_error(r, v->place,
                         "to: all upstreams of a route have the same path, which takes the place "
                         "of the route's prefix");
            return;
        }
    }
}

/* A redirect's path may bring a query of its own. */
static void check_redirect(struct config_reader *r, const struct config_value *v,
                           struct config_redirect *redirect)
{
    json_t *json = json_object_get(v->json, "redirect");
    struct config_value object = member_of(v, "redirect");
    struct sv rest = redirect->path_redirect;
    struct sv path = sv_cut(&rest, '?');

    if (!json_is_object(json)) {
        return;
    }
    check_path(r, &object, "path_redirect", path);
    check_path(r, &object, "prefix_rewrite", redirect->prefix_rewrite);
    check_host(r, &object, "host_redirect", &redirect->host_redirect);
    for (size_t i = 0; i < rest.n; i++) {
        if (rest.p[i] <= 0x20 || rest.p[i] >= 0x7f || rest.p[i] == '#') {
            config_error(r, member_of(&object, "path_redirect").place,
                         "path_redirect: a character that must be percent-encoded");
            break;
        }
    }
    if (redirect->port_redirect != 0 && sv_rfind(redirect->host_redirect, ':') != SIZE_MAX &&
        !sv_ends(redirect->host_redirect, SV("]"))) {
        config_error(r, object.place, "redirect: the port is given twice");
    }
}

void config_check_rewrites(struct config_reader *r, const struct config_value *v,
                           struct config_route *route)
{
    check_path(r, v, "prefix_rewrite", route->prefix_rewrite);
    check_pair(r, v, "regex_rewrite_pattern", route->rewrite, route->rewrite_substitution);
    check_pair(r, v, "host_path_regex_rewrite_pattern", route->host_rewrite_path,
               route->host_rewrite_path_substitution);
    check_host(r, v, "host_rewrite", &route->host_rewrite);
    if (route->host_rewrite_header.n != 0 && !config_is_header_name(route->host_rewrite_header)) {
        config_error(r, member_of(v, "host_rewrite_header").place,
                     "host_rewrite_header: this is no header name");
    }
    check_exclusive(r, v, route);
    check_upstream_paths(r, v, route);
    check_redirect(r, v, &route->redirect);
}

/* ---- rewrite_response_headers ------------------------------------------------------------------ */

static void check_header(struct config_reader *r, const struct config_value *v,
                         const struct config_header_rewrite *h)
{
    struct config_value at = *v;

    at.key = "rewrite_response_headers";
    if (!config_is_header_name(h->header)) {
        config_error(r, v->place, "rewrite_response_headers: this is no header name");
    } else {
        (void)config_is_free_header(r, &at, h->header);
    }
    if (!config_is_header_value(h->prefix) || !config_is_header_value(h->value)) {
        config_error(r, v->place, "rewrite_response_headers: a header's value is one line of text");
    }
}

void config_read_header_rewrites(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_route *route = base;
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json) || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "rewrite_response_headers: expected a list");
        return;
    }
    route->rewrite_response_headers =
        arena_zalloc(r->arena, (n + 1) * sizeof(*route->rewrite_response_headers));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);
        struct config_header_rewrite *h = &route->rewrite_response_headers[i];
        bool given[8] = { false };

        CHECK(config_rows_header_rewrite.n <= ARRAY_LEN(given));
        config_read_object(r, &config_rows_header_rewrite, &item, h, given, NULL);
        check_header(r, &item, h);
    }
    route->n_rewrite_response_headers = n;
}
