#include "common/route/settle.h"

static const enum http_underscores underscores[] = {
    [CONFIG_UNDERSCORES_REJECT] = HTTP_UNDERSCORE_REJECT,
    [CONFIG_UNDERSCORES_ALLOW] = HTTP_UNDERSCORE_ALLOW,
    [CONFIG_UNDERSCORES_DROP] = HTTP_UNDERSCORE_DROP,
};

static const enum http_escaped_slashes slashes[] = {
    [CONFIG_SLASHES_REJECT] = HTTP_SLASH_REJECT,
    [CONFIG_SLASHES_KEEP] = HTTP_SLASH_KEEP,
    [CONFIG_SLASHES_UNESCAPE_REDIRECT] = HTTP_SLASH_UNESCAPE_REDIRECT,
    [CONFIG_SLASHES_UNESCAPE_FORWARD] = HTTP_SLASH_UNESCAPE_FORWARD,
};

bool route_own_path(struct sv path)
{
    return sv_eq(path, SV("/ping")) || sv_eq(path, SV("/healthz")) ||
           sv_eq(path, SV("/.pomerium")) || sv_starts(path, SV("/.pomerium/")) ||
           sv_eq(path, SV("/.well-known/pomerium")) ||
           sv_starts(path, SV("/.well-known/pomerium/"));
}

void route_settle_rules(const struct config *config, struct http_canon_rules *canon_out,
                        struct http_rules *head_out)
{
    const struct config *c = config;
    bool same_slashes = true;
    bool same_names = true;

    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];

        same_slashes &=
            route->path_with_escaped_slashes_action == c->path_with_escaped_slashes_action;
        same_names &= route->headers_with_underscores_action == c->headers_with_underscores_action;
    }
    *canon_out = (struct http_canon_rules){
        .keep_dot_segments = !c->normalize_path,
        .keep_double_slashes = !c->merge_slashes,
        .escaped_slashes =
            same_slashes ? slashes[c->path_with_escaped_slashes_action] : HTTP_SLASH_KEEP,
    };
    *head_out = (struct http_rules){
        .underscores =
            same_names ? underscores[c->headers_with_underscores_action] : HTTP_UNDERSCORE_ALLOW,
    };
}

enum http_fault route_settle_names(struct http_head *head, enum config_underscores action)
{
    for (uint32_t i = 0; i < head->n && action != CONFIG_UNDERSCORES_ALLOW; i++) {
        if ((head->fields[i].flags & HTTP_F_UNDERSCORE) == 0) {
            continue;
        }
        if (action == CONFIG_UNDERSCORES_REJECT) {
            return HTTP_FAULT_UNDERSCORE;
        }
        head->fields[i].flags |= HTTP_F_DROP;
    }
    return HTTP_FAULT_NONE;
}

bool route_settle_needed(const struct http_request *req)
{
    return req->decoded.p != req->path.p && (sv_search(req->path, SV("%2F")) != SIZE_MAX ||
                                             sv_search(req->path, SV("%5C")) != SIZE_MAX);
}

enum http_fault route_settle_path(const struct route_table *table, const struct config_route *route,
                                  const struct http_canon_rules *rules, struct arena *arena,
                                  struct http_request *req)
{
    struct http_canon_rules other = *rules;
    struct sv path = { 0 };
    struct sv decoded = { 0 };
    bool unclear = false;

    other.escaped_slashes = HTTP_SLASH_UNESCAPE_FORWARD;
    if (route == NULL ||
        http_canon_path(req->path, &other, arena, &path, NULL) != HTTP_FAULT_NONE) {
        return HTTP_FAULT_PATH_SLASH;
    }
    decoded = http_canon_decode(path, arena);
    if (route_own_path(decoded) ||
        route_table_find(table, req->host, req->port, decoded, &unclear) != route) {
        return HTTP_FAULT_PATH_SLASH;
    }
    switch (route->path_with_escaped_slashes_action) {
    case CONFIG_SLASHES_REJECT:
        return HTTP_FAULT_PATH_SLASH;
    case CONFIG_SLASHES_KEEP:
        break;
    case CONFIG_SLASHES_UNESCAPE_REDIRECT:
        http_canon_set_path(req, path, arena);
        req->redirect = true;
        break;
    case CONFIG_SLASHES_UNESCAPE_FORWARD:
        http_canon_set_path(req, path, arena);
        break;
    }
    return HTTP_FAULT_NONE;
}
