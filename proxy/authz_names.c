#include "proxy/authz_names.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/job.h"
#include "common/log.h"
#include "common/mem.h"

enum { AGAIN_MS = 30000, AGAIN_FAILED_MS = 5000, HOST_MAX = 256 };

struct target {
    char *text;
    bool fixed; /* a path or a number: never looked up again */
    int64_t due_ms;
    struct lookup *lookup; /* under way */
    struct proxy_sockaddr v[PROXY_AUTHZ_ADDRESSES_MAX];
    size_t n;
};

struct proxy_authz_names {
    struct proxy_authz_names_opts opts;
    struct target *targets;
    struct job_pool *jobs; /* NULL: all targets are fixed */
    bool told;
};

/* run sees nothing else of ours. */
struct lookup {
    struct proxy_authz_names *names; /* NULL: nobody waits any more */
    struct target *target;
    char host[HOST_MAX];
    char port[8];
    struct proxy_sockaddr v[PROXY_AUTHZ_ADDRESSES_MAX];
    size_t n;
};

/* ---- addresses ------------------------------------------------------------------------------- */

static size_t find_addresses(const char *host, const char *port, int flags,
                             struct proxy_sockaddr *v)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags };
    struct addrinfo *found = NULL;
    const struct addrinfo *it = NULL;
    size_t n = 0;

    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return 0;
    }
    for (it = found; it != NULL && n < PROXY_AUTHZ_ADDRESSES_MAX; it = it->ai_next) {
        if (it->ai_addrlen <= sizeof(v[n].at)) {
            v[n] = (struct proxy_sockaddr){ .size = it->ai_addrlen };
            memcpy(&v[n].at, it->ai_addr, it->ai_addrlen);
            n++;
        }
    }
    freeaddrinfo(found);
    return n;
}

/* False: no host:port, or longer than a name can be. */
static bool split(const char *text, char host[HOST_MAX], char port[8])
{
    struct sv s = sv_from(text);
    size_t colon = sv_rfind(s, ':');
    struct sv name = { 0 };

    if (colon == SIZE_MAX || colon >= HOST_MAX || s.n - colon - 1 >= 8) {
        return false;
    }
    name = sv_head(s, colon);
    if (name.n > 2 && name.p[0] == '[' && name.p[name.n - 1] == ']') {
        name = sv_of(name.p + 1, name.n - 2);
    }
    (void)snprintf(host, HOST_MAX, "%.*s", SV_ARG(name));
    (void)snprintf(port, 8, "%s", text + colon + 1);
    return true;
}

static void fix(struct target *t)
{
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    struct sv text = sv_from(t->text);
    char host[HOST_MAX];
    char port[8];

    if (sv_starts(text, SV("unix:"))) {
        (void)snprintf(path.sun_path, sizeof(path.sun_path), "%s", t->text + 5);
        t->v[0].size = sizeof(path);
        memcpy(&t->v[0].at, &path, sizeof(path));
        t->n = 1;
        t->fixed = true;
    } else if (split(t->text, host, port)) {
        t->n = find_addresses(host, port, AI_NUMERICHOST, t->v);
        t->fixed = t->n > 0;
    } else {
        t->fixed = true; /* the configuration let nothing like it in */
    }
}

static void tell(struct proxy_authz_names *names)
{
    struct proxy_sockaddr all[PROXY_AUTHZ_ADDRESSES_MAX];
    size_t n = 0;

    for (size_t t = 0; t < names->opts.n_targets; t++) {
        for (size_t i = 0; i < names->targets[t].n && n < PROXY_AUTHZ_ADDRESSES_MAX; i++) {
            size_t k = 0;

            while (k < n && !proxy_dial_same(&all[k], &names->targets[t].v[i])) {
                k++;
            }
            if (k == n) {
                all[n++] = names->targets[t].v[i];
            }
        }
    }
    names->opts.on_addresses(names->opts.arg, all, n);
}

/* ---- look-ups -------------------------------------------------------------------------------- */

static void lookup_run(void *arg)
{
    struct lookup *l = arg;

    l->n = find_addresses(l->host, l->port, AI_ADDRCONFIG, l->v);
}

/* Nothing found changes nothing. */
static void take_found(struct proxy_authz_names *names, struct target *t, const struct lookup *l)
{
    static _Thread_local struct log_limit limit;

    t->lookup = NULL;
    t->due_ms = clock_mono_ms() + (l->n == 0 ? AGAIN_FAILED_MS : AGAIN_MS);
    if (l->n > 0) {
        memcpy(t->v, l->v, sizeof(t->v));
        t->n = l->n;
        tell(names);
    } else if (log_limit_pass(&limit, 1)) {
        log_warn("authorize.no-address", KV_STR("target", t->text));
    }
}

static void lookup_done(void *arg)
{
    struct lookup *l = arg;

    if (l->names != NULL) {
        take_found(l->names, l->target, l);
    }
    mem_free(&l);
}

static void begin(struct proxy_authz_names *names, struct target *t, int64_t now_ms)
{
    struct lookup *l = MEM_NEW(struct lookup);

    l->names = names;
    l->target = t;
    if (!split(t->text, l->host, l->port) ||
        job_submit(names->jobs, lookup_run, lookup_done, l) != ERR_OK) {
        t->due_ms = now_ms + AGAIN_FAILED_MS;
        mem_free(&l);
        return;
    }
    t->lookup = l;
}

void proxy_authz_names_tick(struct proxy_authz_names *names, int64_t now_ms)
{
    if (!names->told) {
        names->told = true;
        tell(names);
    }
    for (size_t i = 0; i < names->opts.n_targets; i++) {
        struct target *t = &names->targets[i];

        if (!t->fixed && t->lookup == NULL && now_ms >= t->due_ms) {
            begin(names, t, now_ms);
        }
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

struct proxy_authz_names *proxy_authz_names_new(const struct proxy_authz_names_opts *opts)
{
    struct proxy_authz_names *names = MEM_NEW(struct proxy_authz_names);

    names->opts = *opts;
    names->opts.targets = NULL;
    names->targets = mem_zalloc(opts->n_targets * sizeof(*names->targets));
    for (size_t i = 0; i < opts->n_targets; i++) {
        names->targets[i].text = mem_strdup(opts->targets[i]);
        fix(&names->targets[i]);
        if (!names->targets[i].fixed && names->jobs == NULL) {
            names->jobs = job_pool_new(opts->loop, 1, opts->n_targets);
        }
    }
    return names;
}

void proxy_authz_names_free(struct proxy_authz_names **names)
{
    struct proxy_authz_names *n = TAKE(*names);

    if (n == NULL) {
        return;
    }
    for (size_t i = 0; i < n->opts.n_targets; i++) {
        if (n->targets[i].lookup != NULL) {
            n->targets[i].lookup->names = NULL;
        }
        mem_free(&n->targets[i].text);
    }
    job_pool_free(&n->jobs); /* what it found is freed with the loop */
    mem_free(&n->targets);
    mem_free(&n);
}
