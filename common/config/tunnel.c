/* Routes that carry bytes instead of requests: `from: tcp+https://…`, `to: tcp://…`. */
#include <string.h>

#include "common/config/reader.h"
#include "common/http/url.h"
#include "common/map.h"

static const char from_form[] =
    "expected tcp+https://host:port, or tcp+https://proxy[:port]/host:port";

/* host:port in its one spelling, which is what CONNECT must name. */
static bool read_authority(struct config_reader *r, const struct config_value *v, struct sv text,
                           struct sv *tunnel_out)
{
    struct http_authority auth = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    struct buf b;

    if (sv_find(text, '*') != SIZE_MAX) {
        config_error(r, v->place, "from: a tcp route is for one host and port, without '*'");
        return false;
    }
    if (sv_find(text, '/') != SIZE_MAX) {
        config_error(r, v->place,
                     "from: one host:port behind the proxy's name; write a route for "
                     "each");
        return false;
    }
    if (http_authority_parse(text, &auth) != ERR_OK || auth.port == 0 ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        config_error(r, v->place, "from: %s", from_form);
        return false;
    }
    buf_init(&b, CONFIG_TUNNEL_MAX);
    config_tunnel_text(&b, host, auth.port);
    *tunnel_out = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    return true;
}

void config_tunnel_text(struct buf *out, struct sv host, uint16_t port)
{
    buf_add_sv(out, host);
    buf_add_char(out, ':');
    buf_add_u64(out, port);
}

/* The address clients open TLS to. */
static bool read_front(struct config_reader *r, const struct config_value *v, struct sv text,
                       struct config_route *route)
{
    struct http_authority auth = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };

    if (http_authority_parse(text, &auth) != ERR_OK ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        config_error(r, v->place, "from: %s", from_form);
        return false;
    }
    route->host = config_keep(r, host);
    route->port = auth.port == 443 ? 0 : auth.port;
    return true;
}

void config_read_tunnel_from(struct config_reader *r, const struct config_value *v, struct sv text,
                             struct config_route *route)
{
    struct sv rest = sv_from_at(text, sizeof("tcp+https://") - 1);
    struct sv front = sv_cut(&rest, '/');
    bool bastion = rest.n != 0;
    struct sv tunnel = { 0 };
    struct buf b;

    if (!read_authority(r, v, bastion ? rest : front, &tunnel) || !read_front(r, v, front, route)) {
        return;
    }
    route->kind = CONFIG_ROUTE_TCP;
    route->tunnel = tunnel;
    route->from_https = true;
    /* Without a proxy of its own the port is the tunnel's, and clients may come at any. */
    route->port = bastion ? route->port : 0;
    buf_init(&b, HTTP_URL_MAX);
    buf_add_str(&b, "tcp+https://");
    if (bastion) {
        buf_add_sv(&b, route->host);
        if (route->port != 0) {
            buf_printf(&b, ":%u", route->port);
        }
        buf_add_char(&b, '/');
    }
    buf_add_sv(&b, tunnel);
    route->from = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
}

bool config_read_tunnel_to(struct config_reader *r, const struct config_value *v, struct sv text,
                           struct config_url *url_out)
{
    struct http_authority auth = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    struct buf b;

    text = sv_from_at(text, sizeof("tcp://") - 1);
    if (sv_ends(text, SV("/"))) {
        text = sv_head(text, text.n - 1);
    }
    if (http_authority_parse(text, &auth) != ERR_OK || auth.port == 0 ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        config_error(r, v->place, "to: expected tcp://host:port");
        return false;
    }
    buf_init(&b, HTTP_URL_MAX);
    buf_add_str(&b, "tcp://");
    config_tunnel_text(&b, host, auth.port);
    *url_out = (struct config_url){ .text = config_keep(r, buf_sv(&b)),
                                    .scheme = CONFIG_SCHEME_TCP,
                                    .host = config_keep(r, host),
                                    .port = auth.port,
                                    .port_given = true };
    buf_deinit(&b);
    return true;
}

static void check_upstreams(struct config_reader *r, const struct config_value *v,
                            const struct config_route *route)
{
    bool tcp = route->kind == CONFIG_ROUTE_TCP;

    for (size_t i = 0; i < route->n_upstreams; i++) {
        enum config_scheme scheme = route->upstreams[i].url.scheme;

        if (tcp && scheme != CONFIG_SCHEME_TCP && scheme != CONFIG_SCHEME_UNIX) {
            config_error(r, v->place, "to: a tcp route leads to tcp://host:port or unix:/path");
            return;
        }
        if (!tcp && scheme == CONFIG_SCHEME_TCP) {
            config_error(r, v->place,
                         "to: tcp:// belongs to a route whose \"from\" begins with tcp+https://");
            return;
        }
    }
}

void config_check_tunnel(struct config_reader *r, const struct config_value *v,
                         const struct config_route *route, const bool *given)
{
    check_upstreams(r, v, route);
    if (route->kind != CONFIG_ROUTE_TCP) {
        return;
    }
    for (size_t i = 0; i < config_rows_route.n; i++) {
        const struct config_row *row = &config_rows_route.v[i];

        if (given[i] && row->type > CFG_IGNORED && (row->flags & CFG_TUNNEL) == 0) {
            json_t *json = json_object_get(v->json, row->name);
            struct config_value at = json == NULL ? *v : config_member(v, row->name, json);

            config_error(r, at.place,
                         "\"%s\" has no meaning on a tcp route, which passes bytes on as they are; "
                         "leave it out",
                         row->name);
        }
    }
    for (size_t i = 0; i < route->cluster.n_checks; i++) {
        if (route->cluster.checks[i].kind != CONFIG_CHECK_TCP) {
            config_error(r, v->place, "health_checks: a tcp route has a tcp_health_check");
        }
    }
}

/* CONNECT names the tunnel and nothing else, so two routes for one would be told apart by nothing. */
void config_check_tunnels(struct config_reader *r)
{
    struct map *known = map_new();

    for (size_t i = 0; i < r->c->n_routes; i++) {
        struct config_route *route = &r->c->routes[i];
        const struct config_route *other = NULL;

        if (route->tunnel.n == 0) {
            continue;
        }
        other = map_set(known, route->tunnel, route);
        if (other != NULL && other->id != route->id) { /* equal ids are reported as such */
            config_error(r, (struct config_place){ route->file, route->line, route->column },
                         "the tunnel to %s is the one of the route at line %d already",
                         route->tunnel.p, other->line);
        }
    }
    map_free(&known);
}
