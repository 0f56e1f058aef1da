#include "test/support/config_same.h"

#include <string.h>

static void text(struct buf *out, const char *name, struct sv value)
{
    buf_printf(out, "%s=%s%.*s\n", name, value.p == NULL ? "(none)" : "", SV_ARG(value));
}

static void number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "%s=%lld\n", name, (long long)value);
}

static void texts(struct buf *out, const char *name, const struct config_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        text(out, name, list->v[i]);
    }
}

static void pairs(struct buf *out, const char *name, const struct config_pairs *list)
{
    for (size_t i = 0; i < list->n; i++) {
        text(out, name, list->v[i].name);
        text(out, name, list->v[i].value);
    }
}

static void dump_place(const struct config_route *r, struct buf *out)
{
    number(out, "id", (int64_t)r->id);
    text(out, "id_text", r->id_text);
    number(out, "index", (int64_t)r->index);
    text(out, "file", sv_from(r->file));
    number(out, "line", r->line);
    number(out, "column", r->column);
    text(out, "name", r->name);
    text(out, "from", r->from);
    text(out, "host", r->host);
    number(out, "wildcard", r->wildcard);
    number(out, "port", r->port);
    number(out, "kind", r->kind);
    text(out, "tunnel", r->tunnel);
    number(out, "match", r->match);
    text(out, "match_value", r->match_value);
    number(out, "patterns",
           (r->regex != NULL) + 2 * (r->rewrite != NULL) + 4 * (r->host_rewrite_path != NULL));
}

static void dump_action(const struct config_route *r, struct buf *out)
{
    number(out, "action", r->action);
    for (size_t i = 0; i < r->n_upstreams; i++) {
        text(out, "to", r->upstreams[i].url.text);
        number(out, "weight", r->upstreams[i].weight);
    }
    number(out, "policy", r->cluster.policy);
    number(out, "checks", (int64_t)r->cluster.n_checks);
    number(out, "max_requests", r->cluster.limits.max_requests);
    text(out, "host_redirect", r->redirect.host_redirect);
    number(out, "response_status", r->response_status);
    text(out, "response_body", r->response_body);
    text(out, "prefix_rewrite", r->prefix_rewrite);
    text(out, "host_rewrite", r->host_rewrite);
}

/* All that a route says and where it stands, one fact a line. */
static void dump_route(const struct config_route *r, struct buf *out)
{
    dump_place(r, out);
    dump_action(r, out);
    number(out, "slashes", r->path_with_escaped_slashes_action);
    number(out, "underscores", r->headers_with_underscores_action);
    pairs(out, "set_request_headers", &r->set_request_headers);
    texts(out, "remove_request_headers", &r->remove_request_headers);
    pairs(out, "set_response_headers", &r->set_response_headers);
    number(out, "templates", r->templates != NULL);
    number(out, "cors", r->cors.on);
    texts(out, "policy_headers", &r->policy_headers);
    text(out, "token", r->kubernetes_token == NULL ? SV("") : secret_bytes(r->kubernetes_token));
    number(out, "tell", r->tell);
    number(out, "jwt_issuer_format", r->jwt_issuer_format);
    texts(out, "jwt_groups_filter", &r->jwt_groups_filter);
    number(out, "websockets", r->allow_websockets);
    texts(out, "allow_upgrades", &r->allow_upgrades);
    number(out, "timeout", r->timeout_ms);
    number(out, "begin_timeout", r->begin_timeout_ms);
    number(out, "idle_timeout", r->idle_timeout_ms);
    number(out, "session_idle_timeout", r->session_idle_timeout_ms);
    number(out, "session_max_age", r->session_max_age_ms);
    number(out, "tunnel_idle", r->tunnel_idle_ms);
    number(out, "client_pair", r->client_pair != NULL);
    text(out, "tls_custom_ca", r->tls_custom_ca);
    number(out, "has_client_ca", r->has_client_ca);
    number(out, "public", r->allow_public_unauthenticated_access);
    number(out, "any_user", r->allow_any_authenticated_user);
}

/* Of a configuration: its sum, files, a few global settings and all routes. */
static void dump(const struct config *c, struct buf *out)
{
    text(out, "checksum", sv_from(c->checksum));
    texts(out, "file", &c->files);
    text(out, "address", c->address);
    number(out, "log_level", c->log_level);
    number(out, "asks_client_cert", c->asks_client_cert);
    pairs(out, "set_response_headers", &c->set_response_headers);
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *found = config_route_by_id(c, c->routes[i].id);

        number(out, "found", found == &c->routes[i]);
        dump_route(&c->routes[i], out);
    }
}

static bool errors_same(const struct config_errors *a, const struct config_errors *b)
{
    bool same = config_errors_count(a) == config_errors_count(b);

    for (size_t i = 0; same && i < config_errors_count(a); i++) {
        same = strcmp(config_errors_text(a, i), config_errors_text(b, i)) == 0;
    }
    return same;
}

bool config_outcome_same(const struct config *a, const struct config_errors *a_errors,
                         const struct config *b, const struct config_errors *b_errors)
{
    CLEANUP(buf_deinit) struct buf x = { 0 };
    CLEANUP(buf_deinit) struct buf y = { 0 };

    if (a == NULL || b == NULL) {
        return a == b && errors_same(a_errors, b_errors);
    }
    buf_init(&x, SIZE_MAX / 2);
    buf_init(&y, SIZE_MAX / 2);
    dump(a, &x);
    dump(b, &y);
    return sv_eq(buf_sv(&x), buf_sv(&y));
}
