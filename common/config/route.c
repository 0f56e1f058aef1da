#include <stdatomic.h>
#include <string.h>

#include "common/config/reader.h"
#include "common/http/canon.h"
#include "common/http/url.h"
#include "common/mem.h"

static const char prefix_key[] = "prefix";
static const char path_key[] = "path";
static const char regex_key[] = "regex";

bool config_route_given(const struct config_reader *r, size_t route, const char *name)
{
    return r
        ->route_given[route * config_rows_route.n + config_rows_index(&config_rows_route, name)];
}

/* --- from -------------------------------------------------------------------------------------- */

/* The host between "//" and the next '/', ':' (outside brackets), '?' or '#'. */
static struct sv host_part(struct sv text)
{
    size_t at = sv_search(text, SV("://"));
    struct sv rest = sv_from_at(text, at + 3);
    size_t n = 0;

    while (n < rest.n && strchr("/:?#", rest.p[n]) == NULL) {
        n++;
    }
    return sv_head(rest, n);
}

/* A host with '*' is parsed with a letter in its place, which leaves everything else to the one parser
 * of URLs. */
static bool read_wildcard_host(struct config_reader *r, struct sv written,
                               struct config_route *route)
{
    char *lower = arena_alloc(r->arena, written.n + 1);
    size_t n = written.n;

    for (size_t i = 0; i < n; i++) {
        char c = written.p[i];

        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    if (n > 1 && lower[n - 1] == '.') {
        n--;
    }
    lower[n] = '\0';
    route->host = sv_of(lower, n);
    route->wildcard = true;
    return true;
}

static void set_from_text(struct config_reader *r, struct config_route *route, bool port_given)
{
    struct buf b;

    buf_init(&b, HTTP_URL_MAX);
    buf_printf(&b, "http%s://", route->from_https ? "s" : "");
    buf_add_sv(&b, route->host);
    if (port_given) {
        buf_printf(&b, ":%u", route->port);
    }
    route->from = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
}

/* True: a route of another kind, read or reported. */
static bool is_no_http(struct config_reader *r, const struct config_value *v, struct sv text,
                       struct config_route *route)
{
    if (sv_istarts(text, SV("tcp+https://"))) {
        config_read_tunnel_from(r, v, text, route);
        return true;
    }
    if (sv_istarts(text, SV("tcp:")) || sv_istarts(text, SV("tcp+"))) {
        config_error(r, v->place, "from: a tcp route begins with tcp+https://");
        return true;
    }
    if (sv_istarts(text, SV("udp+")) || sv_istarts(text, SV("ssh:"))) {
        config_error(r, v->place, "from: Postern does not have %.*s routes yet", 3, text.p);
        return true;
    }
    return false;
}

void config_read_from(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_route *route = base;
    struct sv text = { 0 };
    struct sv plain = { 0 };
    struct http_url url = { 0 };
    struct diag d = { 0 };

    if (!config_want_text(r, v, &text)) {
        return;
    }
    if (is_no_http(r, v, text, route)) {
        return;
    }
    plain = config_keep(r, text);
    if (sv_search(text, SV("://")) != SIZE_MAX && sv_find(host_part(text), '*') != SIZE_MAX) {
        char *p = arena_str(r->arena, text);

        for (size_t i = 0; i < text.n; i++) {
            p[i] = (char)(p[i] == '*' ? 'w' : p[i]);
        }
        plain = sv_of(p, text.n);
    }
    if (http_url_parse(plain, &url, &d) != ERR_OK ||
        (url.scheme != HTTP_SCHEME_HTTPS && url.scheme != HTTP_SCHEME_HTTP)) {
        config_error(r, v->place, "from: expected https://host or https://host:port%s%s",
                     d.text[0] != '\0' ? ": " : "", d.text);
        return;
    }
    if (url.has_query || url.has_fragment || (url.path.n != 0 && !sv_eq(url.path, SV("/")))) {
        config_error(r, v->place,
                     "from: only a host and a port; write a path as \"prefix\" or \"path\"");
        return;
    }
    route->from_https = url.scheme == HTTP_SCHEME_HTTPS;
    /* The scheme's own port is as good as none: browsers leave it out of what they ask for. */
    route->port = url.port_given && url.port != (route->from_https ? 443 : 80) ? url.port : 0;
    if (plain.p != NULL && sv_find(host_part(text), '*') != SIZE_MAX) {
        (void)read_wildcard_host(r, host_part(text), route);
    } else {
        route->host = config_keep(r, url.host);
    }
    set_from_text(r, route, url.port_given);
}

/* --- to, redirect, response ---------------------------------------------------------------------- */

static bool read_upstream(struct config_reader *r, const struct config_value *v,
                          struct config_upstream *out)
{
    struct sv text = { 0 };
    size_t comma = 0;
    uint64_t weight = 1;
    bool h2c = false;
    bool fine = false;

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    if (sv_istarts(text, SV("udp:")) || sv_istarts(text, SV("ssh:")) ||
        sv_istarts(text, SV("https+unix:"))) {
        config_error(r, v->place,
                     "to: Postern does not have upstreams of this kind yet; there are "
                     "http://, https://, h2c://, tcp:// and unix:");
        return false;
    }
    comma = sv_rfind(text, ',');
    if (comma != SIZE_MAX) {
        if (sv_u64(sv_from_at(text, comma + 1), 1000000, &weight) != ERR_OK || weight == 0) {
            config_error(r, v->place, "to: expected URL,WEIGHT with a weight from 1 to 1000000");
            return false;
        }
        text = sv_head(text, comma);
    }
    out->weight = (uint32_t)weight;
    if (sv_istarts(text, SV("tcp://"))) {
        return config_read_tunnel_to(r, v, text, &out->url);
    }
    if (sv_istarts(text, SV("h2c://"))) {
        CLEANUP(buf_deinit) struct buf as_http = { 0 };

        buf_init(&as_http, text.n + 2);
        buf_add_str(&as_http, "http");
        buf_add_sv(&as_http, sv_from_at(text, 3));
        text = arena_sv(r->arena, buf_sv(&as_http));
        h2c = true;
    }
    fine = config_read_upstream_url(r, v, text, &out->url);
    out->url.h2c = h2c;
    return fine;
}

void config_read_to(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_route *route = base;
    bool single = json_is_string(v->json);
    size_t n = single ? 1 : json_array_size(v->json);
    size_t weighted = 0;

    if (n == 0 || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "to: expected an address or a list of addresses");
        return;
    }
    route->action = CONFIG_ACTION_UPSTREAM;
    route->upstreams = arena_zalloc(r->arena, n * sizeof(struct config_upstream));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = single ? *v : config_item(v, i);

        if (read_upstream(r, &item, &route->upstreams[i])) {
            route->n_upstreams++;
            weighted += json_string_value(item.json) != NULL &&
                                strchr(json_string_value(item.json), ',') != NULL
                            ? 1
                            : 0;
        }
    }
    if (weighted != 0 && weighted != route->n_upstreams) {
        config_error(r, v->place, "to: give all upstreams a weight or none");
    }
}

void config_read_redirect(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_route *route = base;
    bool given[16] = { false };
    struct config_redirect *redirect = &route->redirect;

    CHECK(config_rows_redirect.n <= ARRAY_LEN(given));
    route->action = CONFIG_ACTION_REDIRECT;
    config_read_defaults(r, &config_rows_redirect, redirect);
    config_read_object(r, &config_rows_redirect, v, redirect, given, NULL);
    if (redirect->response_code > 303 && redirect->response_code < 307) {
        config_error(r, v->place, "redirect: response_code is 301, 302, 303, 307 or 308");
    }
    if (redirect->scheme_redirect.n != 0 && !sv_eq(redirect->scheme_redirect, SV("http")) &&
        !sv_eq(redirect->scheme_redirect, SV("https"))) {
        config_error(r, v->place, "redirect: scheme_redirect is http or https");
    }
    if (redirect->https_redirect && redirect->scheme_redirect.n != 0) {
        config_error(r, v->place,
                     "redirect: https_redirect and scheme_redirect exclude each other");
    }
    if (redirect->path_redirect.n != 0 && redirect->prefix_rewrite.n != 0) {
        config_error(r, v->place, "redirect: path_redirect and prefix_rewrite exclude each other");
    }
    if (json_object_size(v->json) == 0) {
        config_error(r, v->place, "redirect: it says nothing");
    }
}

void config_read_response(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_route *route = base;
    bool given[4] = { false };

    route->action = CONFIG_ACTION_RESPONSE;
    config_read_object(r, &config_rows_response, v, route, given, NULL);
}

void config_read_claims(struct config_reader *r, const struct config_value *v, void *base)
{
    void *it = NULL;

    (void)base;
    if (!json_is_object(v->json)) {
        config_error(r, v->place, "allowed_idp_claims: expected a mapping of claims to lists");
        return;
    }
    for (it = json_object_iter(v->json); it != NULL; it = json_object_iter_next(v->json, it)) {
        if (!json_is_array(json_object_iter_value(it))) {
            struct config_value item =
                config_member(v, json_object_iter_key(it), json_object_iter_value(it));

            config_error(r, item.place, "allowed_idp_claims: expected a list of values");
        }
    }
}

void config_read_renegotiation(struct config_reader *r, const struct config_value *v, void *base)
{
    (void)base;
    if (!json_is_false(v->json)) {
        config_error(r, v->place,
                     "%s: renegotiation stays off: whoever sits at the upstream could change whose "
                     "connection it is in the middle; TLS 1.3 does not have it. Let the upstream "
                     "ask for a certificate at the start, or speak TLS 1.3",
                     v->key);
    }
}

/* --- path ---------------------------------------------------------------------------------------- */

static void read_match(struct config_reader *r, const struct config_value *v,
                       struct config_route *route)
{
    static const struct {
        const char *key;
        enum config_match_kind kind;
    } kinds[] = { { prefix_key, CONFIG_MATCH_PREFIX },
                  { path_key, CONFIG_MATCH_PATH },
                  { regex_key, CONFIG_MATCH_REGEX } };

    size_t found = 0;

    route->match_value = SV("/");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        json_t *json = json_object_get(v->json, kinds[i].key);
        struct config_value item = { 0 };

        if (!json_is_string(json)) {
            continue;
        }
        item = config_member(v, kinds[i].key, json);
        found++;
        route->match = kinds[i].kind;
        route->match_value =
            config_keep(r, sv_of(json_string_value(json), json_string_length(json)));
        if (kinds[i].kind == CONFIG_MATCH_REGEX) {
            (void)config_read_pattern(r, &item, PATTERN_WHOLE, &route->regex);
        } else if (!sv_starts(route->match_value, SV("/"))) {
            config_error(r, item.place, "%s: expected a path that begins with /", kinds[i].key);
        } else if (!http_canon_is_decoded(route->match_value)) {
            config_error(
                r, item.place,
                "%s: paths are compared decoded, so this fits none: write the characters "
                "themselves, a blank for %%20; only slashes stay escaped, as %%2F and %%5C",
                kinds[i].key);
        }
        if (found > 1) {
            config_error(r, item.place, "prefix, path and regex exclude each other");
        }
    }
}

/* --- a route ------------------------------------------------------------------------------------- */

/* A setting without a value is one that is not there, as config_read_object has it. */
static size_t is_given(const struct config_value *v, const char *key)
{
    const json_t *json = json_object_get(v->json, key);

    return json != NULL && !json_is_null(json) ? 1 : 0;
}

static void check_combinations(struct config_reader *r, const struct config_value *v,
                               const struct config_route *route)
{
    bool users = json_array_size(json_object_get(v->json, "allowed_users")) != 0;
    bool domains = json_array_size(json_object_get(v->json, "allowed_domains")) != 0;

    if (is_given(v, "to") + is_given(v, "redirect") + is_given(v, "response") != 1) {
        config_error(r, v->place,
                     "a route has exactly one of \"to\", \"redirect\" and \"response\"");
    }
    if (route->allow_public_unauthenticated_access &&
        (route->allow_any_authenticated_user || domains || users)) {
        config_error(r, v->place,
                     "allow_public_unauthenticated_access lets everybody in: it excludes "
                     "allow_any_authenticated_user, allowed_domains and allowed_users");
    }
    for (size_t i = 0; i < route->set_response_headers.n && route->cors.on; i++) {
        if (sv_istarts(route->set_response_headers.v[i].name, SV("access-control-"))) {
            config_error(r, v->place, "set_response_headers: Access-Control-… is said by \"cors\"");
        }
    }
    if (route->allow_any_authenticated_user && (domains || users)) {
        config_error(r, v->place,
                     "allow_any_authenticated_user lets everybody in who is logged in: it excludes "
                     "allowed_domains and allowed_users");
    }
    if (json_object_get(v->json, "to") == NULL && route->tls_client_cert.n != 0) {
        config_error(r, v->place, "tls_client_cert has a meaning only with \"to\"");
    }
}

/* Certificate and key for an upstream become a pair. */
static void read_client_pair(struct config_reader *r, const struct config_value *v, size_t i)
{
    struct config_route *route = &r->c->routes[i];
    struct config_value at = *v;
    bool cert = config_route_given(r, i, "tls_client_cert");

    at.key = "tls_client_cert";
    if (cert != config_route_given(r, i, "tls_client_key")) {
        config_error(r, v->place, "\"tls_client_cert\" and \"tls_client_key\" belong together");
    } else if (route->tls_client_cert.n != 0 && route->tls_client_key != NULL) {
        route->client_pair =
            config_pem_pair(r, &at, route->tls_client_cert, secret_bytes(route->tls_client_key));
    }
    secret_free(&route->tls_client_key);
}

uint64_t config_next_edition(void)
{
    static atomic_uint_least64_t last;

    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

static void read_members(struct config_reader *r, const struct config_value *v, size_t i)
{
    struct config_route *route = &r->c->routes[i];
    bool *given = &r->route_given[i * config_rows_route.n];

    route->index = i;
    route->edition = config_next_edition();
    route->file = v->place.file;
    route->line = v->place.line;
    route->column = v->place.column;
    route->json = v->json;
    route->doc = v->doc;
    config_read_defaults(r, &config_rows_route, route);
    config_cluster_defaults(r, &route->cluster);
    config_read_object(r, &config_rows_route, v, route, given, NULL);
    if (!json_is_object(v->json)) {
        return;
    }
    read_match(r, v, route);
    read_client_pair(r, v, i);
    route->has_client_ca = config_route_given(r, i, "tls_downstream_client_ca");
    route->kubernetes =
        config_rows_given(&config_rows_route, given, "kubernetes_service_account_token");
    config_read_templates(r, v, route);
    config_check_rewrites(r, v, route);
    config_check_kubernetes(r, v, route);
    check_combinations(r, v, route);
    config_check_tunnel(r, v, route, given);
}

static void read_route(struct config_reader *r, const struct config_value *v, size_t i)
{
    size_t asked = r->files->n_asked;

    read_members(r, v, i);
    r->again[i] = r->files->n_asked != asked || r->c->routes[i].kubernetes_token != NULL;
}

void config_route_deinit(struct config_route *route)
{
    secret_free(&route->tls_client_key);
    secret_free(&route->kubernetes_token);
    keypair_unref(&route->client_pair);
    pattern_unref(&route->regex);
    pattern_unref(&route->rewrite);
    pattern_unref(&route->host_rewrite_path);
}

/* A route of the configuration before, in whose stock its texts stay. */
static void take_route(struct config_reader *r, size_t old, size_t i)
{
    const struct config *before = &r->splice->before->config;
    struct config_route *route = &r->c->routes[i];
    int lines = config_splice_line(r->splice, old) - before->routes[old].line;

    *route = before->routes[old];
    route->index = i;
    route->line += lines;
    route->json = NULL;
    route->doc = NULL;
    CHECK(route->tls_client_key == NULL && route->kubernetes_token == NULL); /* read each time */
    route->client_pair = route->client_pair == NULL ? NULL : keypair_ref(route->client_pair);
    pattern_ref(route->regex);
    pattern_ref(route->rewrite);
    pattern_ref(route->host_rewrite_path);
    r->taken[i] = true;
}

void config_read_routes(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    bool spliced = r->splice != NULL;
    size_t n = spliced ? config_splice_count(r->splice) : json_array_size(v->json);
    size_t k = 0;

    if (!json_is_array(v->json)) {
        config_error(r, v->place, "%s: expected a list of routes", v->key);
        return;
    }
    if (c->routes != NULL) {
        config_error(r, v->place, "\"policy\" is the older name of \"routes\": use one of them");
        return;
    }
    if (n > CONFIG_ROUTES_MAX) {
        config_error(r, v->place, "%s: more than %d routes", v->key, CONFIG_ROUTES_MAX);
        return;
    }
    c->routes = mem_array(n + 1, sizeof(struct config_route));
    c->n_routes = n;
    r->routes_doc = v->doc;
    r->route_given = mem_array((n + 1) * config_rows_route.n, sizeof(bool));
    r->again = mem_array(n + 1, sizeof(bool));
    r->taken = mem_array(n + 1, sizeof(bool));
    for (size_t i = 0; i < n; i++) {
        if (spliced && !config_splice_is_read(r->splice, i)) {
            take_route(r, config_splice_old(r->splice, i), i);
        } else {
            struct config_value item = config_item(v, k++);

            read_route(r, &item, i);
        }
    }
}

bool config_route_has_host(const struct config_route *route, struct sv host)
{
    struct sv pattern = route->host;
    size_t p = 0;
    size_t h = 0;
    size_t star = SIZE_MAX;
    size_t mark = 0;

    if (!route->wildcard) {
        return sv_eq(pattern, host);
    }
    while (h < host.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = h;
        } else if (p < pattern.n && pattern.p[p] == host.p[h]) {
            p++;
            h++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            h = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') {
        p++;
    }
    return p == pattern.n;
}
