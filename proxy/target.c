#include "proxy/target.h"

#include <stdio.h>
#include <string.h>

#include "common/map.h"
#include "common/mem.h"
#include "proxy/upstream_tls.h"

static char *host_header_of(const struct config_url *url)
{
    char room[PROXY_HOST_MAX];

    if (url->scheme == CONFIG_SCHEME_UNIX) {
        return mem_strdup("localhost");
    }
    if (url->port_given) {
        (void)snprintf(room, sizeof(room), "%s:%u", url->host.p, url->port);
    } else {
        (void)snprintf(room, sizeof(room), "%s", url->host.p);
    }
    return mem_strdup(room);
}

static void keep(struct arena *arena, struct sv *text)
{
    if (text->p != NULL) {
        *text = sv_of(arena_str(arena, *text), text->n);
    }
}

static struct sv server_name_of(const struct config_url *url, const struct config_route *route)
{
    if (!url->tls) {
        return SV("");
    }
    return route != NULL && route->tls_upstream_server_name.n != 0 ? route->tls_upstream_server_name
                                                                   : url->host;
}

void proxy_target_key(const struct config_url *url, const struct config_route *route,
                      char key[PROXY_TARGET_KEY_MAX])
{
    char tls_id[PROXY_UPSTREAM_TLS_ID] = "";

    if (url->tls) {
        proxy_upstream_tls_id(route, tls_id);
    }
    /* A long URL is cut off at the end, but its hash is not. */
    (void)snprintf(key, PROXY_TARGET_KEY_MAX, "%s|%d|%016llx|%.*s|%.*s", tls_id, url->h2c,
                   (unsigned long long)map_hash(url->text), SV_ARG(server_name_of(url, route)),
                   SV_ARG(url->text));
}

enum err proxy_target_new(const struct config_url *url, const struct config_route *route,
                          struct proxy_target **target_out, struct diag *d)
{
    CLEANUP(proxy_target_unref) struct proxy_target *t = MEM_NEW(struct proxy_target);
    char key[PROXY_TARGET_KEY_MAX];

    t->refs = 1;
    arena_init(&t->texts);
    t->url = *url;
    keep(&t->texts, &t->url.text);
    keep(&t->texts, &t->url.host);
    keep(&t->texts, &t->url.path);
    keep(&t->texts, &t->url.socket);
    t->host_header = host_header_of(url);
    t->verify = route == NULL || !route->tls_skip_verify;
    if (url->tls) {
        enum err err = proxy_upstream_tls_get(route, &t->tls_settings, d);

        if (err != ERR_OK) {
            return err;
        }
        t->tls = proxy_upstream_tls_ctx(t->tls_settings);
        t->server_name = mem_svdup(server_name_of(url, route));
    }
    proxy_target_key(url, route, key);
    t->key = mem_strdup(key);
    *target_out = TAKE(t);
    return ERR_OK;
}

struct proxy_target *proxy_target_ref(struct proxy_target *target)
{
    (void)__atomic_add_fetch(&target->refs, 1, __ATOMIC_RELAXED);
    return target;
}

void proxy_target_unref(struct proxy_target **target)
{
    struct proxy_target *t = TAKE(*target);

    if (t == NULL || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    proxy_upstream_tls_unref(&t->tls_settings);
    mem_free(&t->key);
    mem_free(&t->server_name);
    mem_free(&t->host_header);
    arena_deinit(&t->texts);
    mem_free(&t);
}

void proxy_target_host(const struct proxy_target *target, char host[PROXY_HOST_MAX])
{
    struct sv name = target->url.host;

    if (name.n > 2 && name.p[0] == '[') {
        name = sv_head(sv_from_at(name, 1), name.n - 2);
    }
    (void)snprintf(host, PROXY_HOST_MAX, "%.*s", SV_ARG(name));
}

bool proxy_target_literal(const struct proxy_target *target, struct proxy_sockaddr *address_out)
{
    char host[PROXY_HOST_MAX];

    if (target->url.scheme == CONFIG_SCHEME_UNIX) {
        *address_out = proxy_sockaddr_unix(target->url.socket.p);
        return true;
    }
    proxy_target_host(target, host);
    return proxy_sockaddr_literal(sv_from(host), target->url.port, address_out);
}
