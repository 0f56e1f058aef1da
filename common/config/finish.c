/* What a route takes over from the global settings, and its id. */
#include <string.h>

#include <openssl/evp.h>

#include "common/config/reader.h"
#include "common/crypto/keys.h"
#include "common/mem.h"

static const int64_t idle_default_ms = 300000; /* Envoy's, which Pomerium leaves as it is */
static const int64_t session_least_ms = 120000;

/* --- headers ------------------------------------------------------------------------------------- */

static void put(struct config_pairs *list, struct config_pair pair)
{
    for (size_t i = 0; i < list->n; i++) {
        if (sv_ieq(list->v[i].name, pair.name)) {
            list->v[i] = pair;
            return;
        }
    }
    list->v[list->n++] = pair;
}

static struct config_pairs overlay(struct config_reader *r, struct config_pairs under,
                                   struct config_pairs over)
{
    struct config_pairs list = { 0 };

    if (over.n == 0) {
        return under;
    }
    list.v = arena_zalloc(r->arena, (under.n + over.n) * sizeof(struct config_pair));
    for (size_t i = 0; i < under.n; i++) {
        put(&list, under.v[i]);
    }
    for (size_t i = 0; i < over.n; i++) {
        put(&list, over.v[i]);
    }
    return list;
}

/* The name "disable" turns off what is below. */
static struct config_pairs overlay_headers(struct config_reader *r, struct config_pairs under,
                                           struct config_pairs over)
{
    struct config_pairs rest = { 0 };

    rest.v = arena_zalloc(r->arena, (over.n + 1) * sizeof(struct config_pair));
    for (size_t i = 0; i < over.n; i++) {
        if (sv_eq(over.v[i].name, SV("disable"))) {
            under = (struct config_pairs){ 0 };
        } else {
            rest.v[rest.n++] = over.v[i];
        }
    }
    return overlay(r, under, rest);
}

/* A route with a cors block speaks about CORS alone, whatever all answers say. */
static struct config_pairs without_cors(struct config_reader *r, struct config_pairs all)
{
    struct config_pairs rest = { 0 };

    rest.v = arena_zalloc(r->arena, (all.n + 1) * sizeof(struct config_pair));
    for (size_t i = 0; i < all.n; i++) {
        if (!sv_istarts(all.v[i].name, SV("access-control-"))) {
            rest.v[rest.n++] = all.v[i];
        }
    }
    return rest.n == all.n ? all : rest;
}

static void finish_response_headers(struct config_reader *r)
{
    static struct config_pair defaults[] = {
        { { "X-Frame-Options", 15 }, { "SAMEORIGIN", 10 } },
        { { "X-XSS-Protection", 16 }, { "1; mode=block", 13 } },
        { { "Strict-Transport-Security", 25 },
          { "max-age=31536000; includeSubDomains; preload", 44 } },
    };
    struct config_pairs under = { defaults,
                                  r->c->insecure_server || r->c->autocert_use_staging ? 2 : 3 };

    r->c->set_response_headers = overlay_headers(r, under, r->c->set_response_headers);
}

/* --- ids ----------------------------------------------------------------------------------------- */

/* The first 64 bits of SHA-256 over what makes the route, each part with its NUL. */
static void sum_add(EVP_MD_CTX *md, struct sv text)
{
    CHECK(EVP_DigestUpdate(md, text.p, text.n) == 1 && EVP_DigestUpdate(md, "", 1) == 1);
}

static uint64_t route_id(const struct config_route *route)
{
    static const char *const kinds[] = { "prefix", "path", "regex" };
    uint8_t sum[EVP_MAX_MD_SIZE];
    uint64_t id = 0;
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    CHECK(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    if (route->id_text.n != 0) {
        sum_add(md, SV("id"));
        sum_add(md, route->id_text);
    } else {
        sum_add(md, SV("from"));
        sum_add(md, route->from);
        sum_add(md, sv_from(kinds[route->match]));
        sum_add(md, route->match_value);
    }
    CHECK(EVP_DigestFinal_ex(md, sum, NULL) == 1);
    EVP_MD_CTX_free(md);
    for (size_t i = 0; i < 8; i++) {
        id = id << 8 | sum[i];
    }
    return id == 0 ? 1 : id;
}

static void set_id(struct config_reader *r, struct config_route *route)
{
    char text[17];
    int n = 0;

    route->has_own_id = route->id_text.n != 0;
    route->id = route_id(route);
    if (!route->has_own_id) {
        n = snprintf(text, sizeof(text), "%016llx", (unsigned long long)route->id);
        route->id_text = config_keep(r, sv_of(text, (size_t)n));
    }
}

static void enter(struct config_reader *r, struct config_route *route)
{
    struct config_place place = { route->file, route->line, route->column };
    struct config_route *other = NULL;

    other = map_set(r->box->by_id, sv_of(&route->id, sizeof(route->id)), route);
    if (other != NULL) {
        config_error(r, place,
                     route->has_own_id
                         ? "this id is the one of the route at line %d already"
                         : "from and path are those of the route at line %d, so this route would "
                           "never be used; an \"id\" of its own makes it another route",
                     other->line);
    }
}

/* --- all ----------------------------------------------------------------------------------------- */

static void finish_upgrades(struct config_reader *r, struct config_route *route)
{
    struct config_strings *list = &route->allow_upgrades;
    size_t n = 0;

    for (size_t i = 0; i < list->n; i++) {
        if (sv_ieq(list->v[i], SV("websocket"))) {
            route->allow_websockets = true;
        } else if (sv_ieq(list->v[i], SV("spdy/3.1"))) {
            route->allow_spdy = true;
        } else if (sv_ieq(list->v[i], SV("h2c"))) { /* RFC 9113 3.1 has given it up */
            config_error(
                r, (struct config_place){ route->file, route->line, route->column },
                "allow_upgrades: nobody upgrades to h2c: clients begin with HTTP/2, and an "
                "upstream gets it by h2c:// in \"to\"");
        } else {
            list->v[n++] = list->v[i];
        }
    }
    list->n = n;
}

static void lower_all(struct config_reader *r, struct config_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        char *p = arena_str(r->arena, list->v[i]);

        for (size_t k = 0; k < list->v[i].n; k++) {
            p[k] = (char)(p[k] >= 'A' && p[k] <= 'Z' ? p[k] | 0x20 : p[k]);
        }
        list->v[i] = sv_of(p, list->v[i].n);
    }
}

static struct config_strings join(struct config_reader *r, struct config_strings a,
                                  struct config_strings b)
{
    struct config_strings list = { 0 };

    if (a.n == 0 || b.n == 0) {
        return a.n == 0 ? b : a;
    }
    list.v = arena_zalloc(r->arena, (a.n + b.n) * sizeof(struct sv));
    list.n = a.n + b.n;
    memcpy(list.v, a.v, a.n * sizeof(struct sv));
    memcpy(list.v + a.n, b.v, b.n * sizeof(struct sv));
    return list;
}

static struct config_strings copy(struct config_reader *r, struct config_strings a)
{
    struct config_strings list = { NULL, a.n };

    if (a.n != 0) {
        list.v = arena_alloc(r->arena, a.n * sizeof(struct sv));
        memcpy(list.v, a.v, a.n * sizeof(struct sv));
    }
    return list;
}

static bool too_short(int64_t ms)
{
    return ms != 0 && ms < session_least_ms;
}

void config_finish_session(struct config_reader *r, struct config_place place, int64_t idle_ms,
                           int64_t age_ms)
{
    if (too_short(idle_ms)) {
        config_error(r, place,
                     "session_idle_timeout: 2m at least, or 0 for none: the uses of a session are "
                     "gathered for a minute before all of authorize knows of them");
    }
    if (too_short(age_ms)) {
        config_error(r, place,
                     "session_max_age: 2m at least, or 0 for none: a shorter one is over "
                     "before the application has answered");
    }
}

static void finish_session(struct config_reader *r, size_t i)
{
    struct config_route *route = &r->c->routes[i];
    bool own_idle = config_route_given(r, i, "session_idle_timeout");
    bool own_age = config_route_given(r, i, "session_max_age");

    config_finish_session(r, (struct config_place){ route->file, route->line, route->column },
                          own_idle ? route->session_idle_timeout_ms : 0,
                          own_age ? route->session_max_age_ms : 0);
    if (!own_idle) {
        route->session_idle_timeout_ms = r->c->session_idle_timeout_ms;
    }
    if (!own_age) {
        route->session_max_age_ms = r->c->session_max_age_ms;
    }
}

static void finish_route(struct config_reader *r, size_t i)
{
    const struct config *c = r->c;
    struct config_route *route = &c->routes[i];
    bool upgrades = false;

    if (!config_route_given(r, i, "pass_identity_headers")) {
        route->pass_identity_headers = c->pass_identity_headers;
    }
    if (!config_route_given(r, i, "jwt_issuer_format")) {
        route->jwt_issuer_format = c->jwt_issuer_format;
    }
    if (!config_route_given(r, i, "allow_upgrades")) {
        route->allow_upgrades = copy(r, c->allow_upgrades);
    }
    if (!config_route_given(r, i, "path_with_escaped_slashes_action")) {
        route->path_with_escaped_slashes_action = c->path_with_escaped_slashes_action;
    }
    if (!config_route_given(r, i, "headers_with_underscores_action")) {
        route->headers_with_underscores_action = c->headers_with_underscores_action;
    }
    if (route->kind == CONFIG_ROUTE_TCP) {
        route->pass_identity_headers = false; /* there is no head to write them into */
    }
    route->tell |= route->pass_identity_headers ? CONFIG_TELL_HEADERS : 0;
    route->tell |= route->kubernetes ? CONFIG_TELL_PERSON : 0;
    lower_all(r, &route->allow_upgrades);
    finish_upgrades(r, route);
    upgrades = route->kind == CONFIG_ROUTE_TCP || route->kubernetes || route->allow_websockets ||
               route->allow_spdy || route->allow_upgrades.n != 0;
    if (!config_route_given(r, i, "timeout")) {
        route->begin_timeout_ms = upgrades ? 0 : c->default_upstream_timeout_ms;
    }
    /* A tunnel may be silent for days, and a watch of the Kubernetes API for long. */
    route->tunnel_idle_ms = route->idle_timeout_ms;
    if (!config_route_given(r, i, "idle_timeout")) {
        route->tunnel_idle_ms = 0;
        route->idle_timeout_ms = route->kubernetes ? 0 : idle_default_ms;
    }
    config_finish_limits(r, route);
    config_finish_policy_headers(r, route);
    config_finish_bearer(r, i);
    finish_session(r, i);
    route->jwt_groups_filter = join(r, c->jwt_groups_filter, route->jwt_groups_filter);
    route->set_response_headers =
        overlay_headers(r, c->set_response_headers, route->set_response_headers);
    if (route->cors.on) {
        route->set_response_headers = without_cors(r, route->set_response_headers);
    }
    if (route->prefix_rewrite.n == 0 && route->rewrite == NULL &&
        route->match != CONFIG_MATCH_REGEX && route->n_upstreams != 0 &&
        route->upstreams[0].url.path.n != 0) {
        route->prefix_rewrite = route->upstreams[0].url.path;
    }
    if (route->from.n != 0) {
        set_id(r, route);
    }
}

void config_finish_routes(struct config_reader *r)
{
    finish_response_headers(r);
    for (size_t i = 0; i < r->c->n_routes; i++) {
        struct config_route *route = &r->c->routes[i];

        if (!r->taken[i]) {
            finish_route(r, i);
        } else if (route->set_response_headers.v ==
                   r->splice->before->config.set_response_headers.v) {
            route->set_response_headers = r->c->set_response_headers;
        }
        if (route->from.n != 0) {
            enter(r, route);
        }
    }
    config_check_tunnels(r);
}
