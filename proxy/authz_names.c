#include "proxy/authz_names.h"

#include <string.h>

#include "common/mem.h"

struct target {
    struct proxy_authz_names *names;
    const struct config_target *config;
    struct proxy_name *name; /* NULL: it is an address itself */
    struct proxy_sockaddr *v;
    size_t n;
};

struct proxy_authz_names {
    proxy_authz_names_fn changed;
    void *arg;
    struct target *targets;
    size_t n_targets;
};

static void add_each(const struct target *t, struct proxy_sockaddr *all, size_t *n)
{
    for (size_t i = 0; i < t->n && *n < PROXY_AUTHORIZES_MAX; i++) {
        size_t k = 0;

        while (k < *n && !proxy_sockaddr_same(&all[k], &t->v[i])) {
            k++;
        }
        if (k == *n) {
            all[(*n)++] = t->v[i];
        }
    }
}

static void tell(const struct proxy_authz_names *names)
{
    struct proxy_sockaddr *all = mem_array(PROXY_AUTHORIZES_MAX, sizeof(*all));
    size_t n = 0;

    for (size_t i = 0; i < names->n_targets; i++) {
        add_each(&names->targets[i], all, &n);
    }
    names->changed(names->arg, all, n);
    mem_free(&all);
}

static void on_addresses(void *arg, const struct proxy_addresses *addresses)
{
    struct target *t = arg;

    mem_free(&t->v);
    t->v = mem_array(addresses->n, sizeof(*t->v));
    t->n = addresses->n;
    for (size_t i = 0; i < t->n; i++) {
        t->v[i] = addresses->v[i];
        proxy_sockaddr_set_port(&t->v[i], t->config->port);
    }
    tell(t->names);
}

static void find(struct target *t, struct proxy_resolver *resolver)
{
    struct proxy_sockaddr literal;

    if (t->config->is_unix) {
        literal = proxy_sockaddr_unix(t->config->socket.p);
    } else if (!proxy_sockaddr_literal(t->config->host, t->config->port, &literal)) {
        t->name = proxy_name_watch(resolver, t->config->host.p, on_addresses, t);
        return;
    }
    t->v = mem_dup(&literal, sizeof(literal));
    t->n = 1;
}

struct proxy_authz_names *proxy_authz_names_new(struct proxy_resolver *resolver,
                                                const struct config_targets *targets,
                                                proxy_authz_names_fn changed, void *arg)
{
    struct proxy_authz_names *names = MEM_NEW(struct proxy_authz_names);

    names->changed = changed;
    names->arg = arg;
    names->n_targets = targets->n;
    names->targets = mem_array(targets->n, sizeof(*names->targets));
    for (size_t i = 0; i < targets->n; i++) {
        names->targets[i] = (struct target){ .names = names, .config = &targets->v[i] };
        find(&names->targets[i], resolver);
    }
    tell(names);
    return names;
}

void proxy_authz_names_free(struct proxy_authz_names **names)
{
    struct proxy_authz_names *n = TAKE(*names);

    if (n == NULL) {
        return;
    }
    for (size_t i = 0; i < n->n_targets; i++) {
        proxy_name_unwatch(&n->targets[i].name);
        mem_free(&n->targets[i].v);
    }
    mem_free(&n->targets);
    mem_free(&n);
}
