#include "common/route/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/http/canon.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/pattern.h"

enum { LINEAR_MAX = 16 /* up to here looking at each is faster than an index */ };

struct entry {
    const struct config_route *config;
    size_t rank; /* its place among all */
};

/* Routes by rank. */
struct row {
    struct entry **v;
    size_t n;
    size_t cap;
};

/* The routes of one host, or of the wildcard hosts with one ending. */
struct site {
    struct row routes;
    struct row tunnels;   /* of clients that come to this host; serve no requests */
    bool any_port;        /* of any route */
    struct map *paths;    /* path → struct row; NULL: there are few routes, no index */
    struct map *prefixes; /* prefix → struct row */
    size_t *lengths;      /* of prefixes, each once, growing */
    size_t n_lengths;
    struct row patterns;
};

struct route_table {
    struct entry *entries; /* by config_route.index */
    struct map *tunnels;   /* host:port → struct entry */
    struct map *hosts;     /* host → struct site */
    struct map *endings;   /* what stands behind the last '*', from its first dot → struct site */
    struct site rest;      /* wildcard hosts that end otherwise */
};

/* What is asked for. */
struct question {
    struct sv host;
    uint16_t port;
    struct sv path;
    bool gave_up; /* a pattern did: neither yes nor no */
};

/* ---- finding --------------------------------------------------------------------------------- */

static bool host_fits(const struct entry *route, const struct question *q)
{
    return (route->config->port == 0 || route->config->port == q->port) &&
           (!route->config->wildcard || config_route_has_host(route->config, q->host));
}

/* A pattern at its bounds counts as a match that ends the search: a later, more open route must not
 * take the request. */
static bool pattern_takes(const struct entry *route, struct question *q)
{
    switch (pattern_fits(route->config->regex, q->path)) {
    case PATTERN_NO:
        return false;
    case PATTERN_YES:
        return true;
    case PATTERN_GAVE_UP:
        break;
    }
    q->gave_up = true;
    return true;
}

static bool path_fits(const struct entry *route, struct question *q)
{
    const struct config_route *c = route->config;

    switch (c->match) {
    case CONFIG_MATCH_PREFIX:
        return sv_starts(q->path, c->match_value);
    case CONFIG_MATCH_PATH:
        return sv_eq(q->path, c->match_value);
    case CONFIG_MATCH_REGEX:
        return pattern_takes(route, q);
    }
    return false;
}

/* The first of a row whose paths fit already, if it stands before best. */
static struct entry *earlier(const struct row *row, const struct question *q, struct entry *best)
{
    for (size_t i = 0; row != NULL && i < row->n; i++) {
        if (best != NULL && row->v[i]->rank > best->rank) {
            break;
        }
        if (host_fits(row->v[i], q)) {
            return row->v[i];
        }
    }
    return best;
}

static struct entry *find_indexed(const struct site *site, struct question *q)
{
    struct entry *best = earlier(map_get(site->paths, q->path), q, NULL);

    for (size_t i = 0; i < site->n_lengths && site->lengths[i] <= q->path.n; i++) {
        best = earlier(map_get(site->prefixes, sv_head(q->path, site->lengths[i])), q, best);
    }
    for (size_t i = 0; i < site->patterns.n; i++) {
        struct entry *route = site->patterns.v[i];

        if (best != NULL && route->rank > best->rank) {
            break;
        }
        if (host_fits(route, q) && pattern_takes(route, q)) {
            return route;
        }
    }
    return best;
}

static struct entry *find_in(const struct site *site, struct question *q)
{
    if (site->paths != NULL) {
        return find_indexed(site, q);
    }
    for (size_t i = 0; i < site->routes.n; i++) {
        struct entry *route = site->routes.v[i];

        if (host_fits(route, q) && path_fits(route, q)) {
            return route;
        }
    }
    return NULL;
}

static bool serves_port(const struct site *site, uint16_t port)
{
    for (size_t i = 0; !site->any_port && i < site->routes.n; i++) {
        if (site->routes.v[i]->config->port == port) {
            return true;
        }
    }
    return site->any_port;
}

/* Calls fn for the wildcard sites that may hold host, until it says false. */
static void each_wild(const struct route_table *r, struct sv host,
                      bool (*fn)(const struct site *site, void *arg), void *arg)
{
    if (!fn(&r->rest, arg)) {
        return;
    }
    for (size_t i = 0; map_count(r->endings) != 0 && i < host.n; i++) {
        const struct site *site = NULL;

        if (host.p[i] != '.') {
            continue;
        }
        site = map_get(r->endings, sv_from_at(host, i));
        if (site != NULL && !fn(site, arg)) {
            return;
        }
    }
}

struct search {
    struct question *q;
    struct entry *best;
};

static bool search_site(const struct site *site, void *arg)
{
    struct search *s = arg;
    struct question q = *s->q;
    struct entry *route = find_in(site, &q);

    if (route != NULL && (s->best == NULL || route->rank < s->best->rank)) {
        s->best = route;
        s->q->gave_up = q.gave_up;
    }
    return true;
}

/* A host with routes of its own is served by those alone, as in Pomerium: what they leave out must
 * not become reachable because somebody wrote a route for every host. */
static struct entry *find(const struct route_table *r, struct question *q)
{
    const struct site *own = map_get(r->hosts, q->host);
    struct search s = { .q = q };

    if (own != NULL && serves_port(own, q->port)) {
        return find_in(own, q);
    }
    each_wild(r, q->host, search_site, &s);
    return s.best;
}

static const struct config_route *config_of(const struct entry *entry)
{
    return entry == NULL ? NULL : entry->config;
}

const struct config_route *route_table_find(const struct route_table *table, struct sv host,
                                            uint16_t port, struct sv path, bool *unclear_out)
{
    struct question q = { .host = host, .port = port, .path = path };
    struct entry *route = find(table, &q);

    *unclear_out = q.gave_up;
    if (!q.gave_up && route != NULL && sv_find(path, ';') != SIZE_MAX) {
        char *room = mem_alloc(path.n);

        q.path = http_canon_without_params(path, room);
        *unclear_out = find(table, &q) != route || q.gave_up;
        mem_free(&room);
    }
    return *unclear_out ? NULL : config_of(route);
}

const struct config_route *route_table_tunnel(const struct route_table *table, struct sv host,
                                              uint16_t port)
{
    char room[CONFIG_TUNNEL_MAX];
    int n = snprintf(room, sizeof(room), "%.*s:%u", SV_ARG(host), port);

    return n < 0 || (size_t)n >= sizeof(room)
               ? NULL
               : config_of(map_get(table->tunnels, sv_of(room, (size_t)n)));
}

static bool site_has_host(const struct site *site, void *arg)
{
    struct search *s = arg;

    for (size_t i = 0; i < site->routes.n && s->best == NULL; i++) {
        if (config_route_has_host(site->routes.v[i]->config, s->q->host)) {
            s->best = site->routes.v[i];
        }
    }
    return s->best == NULL;
}

bool route_table_has_host(const struct route_table *table, struct sv host)
{
    struct question q = { .host = host };
    struct search s = { .q = &q };

    if (map_get(table->hosts, host) != NULL) {
        return true;
    }
    each_wild(table, host, site_has_host, &s);
    return s.best != NULL;
}

struct each {
    struct sv host;
    route_table_each_fn fn;
    void *arg;
};

static bool site_each(const struct site *site, void *arg)
{
    const struct each *e = arg;

    for (size_t i = 0; i < site->routes.n; i++) {
        if (config_route_has_host(site->routes.v[i]->config, e->host)) {
            e->fn(site->routes.v[i]->config, e->arg);
        }
    }
    for (size_t i = 0; i < site->tunnels.n; i++) { /* exact hosts */
        e->fn(site->tunnels.v[i]->config, e->arg);
    }
    return true;
}

size_t route_table_rank(const struct route_table *table, const struct config_route *route)
{
    return table->entries[route->index].rank;
}

void route_table_each(const struct route_table *table, struct sv host, route_table_each_fn fn,
                      void *arg)
{
    struct each e = { .host = host, .fn = fn, .arg = arg };
    const struct site *own = map_get(table->hosts, host);

    if (own != NULL) {
        (void)site_each(own, &e);
    }
    each_wild(table, host, site_each, &e);
}

/* ---- building -------------------------------------------------------------------------------- */

static void row_add(struct row *row, struct entry *route)
{
    if (row->n == row->cap) {
        row->cap = row->cap == 0 ? 1 : row->cap * 2;
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        row->v = mem_realloc(row->v, row->cap, sizeof(*row->v));
    }
    row->v[row->n++] = route;
}

static void row_map_add(struct map *map, struct sv key, struct entry *route)
{
    struct row *row = map_get(map, key);

    if (row == NULL) {
        row = MEM_NEW(struct row);
        (void)map_set(map, key, row);
    }
    row_add(row, route);
}

static int by_size(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a;
    const size_t y = *(const size_t *)b;

    return x < y ? -1 : (x > y ? 1 : 0);
}

static void index_lengths(struct site *site)
{
    size_t n = 0;

    qsort(site->lengths, site->n_lengths, sizeof(*site->lengths), by_size);
    for (size_t i = 0; i < site->n_lengths; i++) {
        if (n == 0 || site->lengths[n - 1] != site->lengths[i]) {
            site->lengths[n++] = site->lengths[i];
        }
    }
    site->n_lengths = n;
}

static void index_site(struct site *site)
{
    if (site->routes.n <= LINEAR_MAX) {
        return;
    }
    site->paths = map_new();
    site->prefixes = map_new();
    site->lengths = mem_array(site->routes.n, sizeof(*site->lengths));
    for (size_t i = 0; i < site->routes.n; i++) {
        struct entry *route = site->routes.v[i];

        switch (route->config->match) {
        case CONFIG_MATCH_PREFIX:
            row_map_add(site->prefixes, route->config->match_value, route);
            site->lengths[site->n_lengths++] = route->config->match_value.n;
            break;
        case CONFIG_MATCH_PATH:
            row_map_add(site->paths, route->config->match_value, route);
            break;
        case CONFIG_MATCH_REGEX:
            row_add(&site->patterns, route);
            break;
        }
    }
    index_lengths(site);
}

static struct site *site_of(struct route_table *r, const struct config_route *c)
{
    struct map *map = c->wildcard ? r->endings : r->hosts;
    struct sv key = c->wildcard ? sv_from_at(c->host, sv_rfind(c->host, '*') + 1) : c->host;
    struct site *site = NULL;

    if (c->wildcard && !sv_starts(key, SV("."))) {
        return &r->rest;
    }
    site = map_get(map, key);
    if (site == NULL) {
        site = MEM_NEW(struct site);
        (void)map_set(map, key, site);
    }
    return site;
}

static bool has_priority(const struct entry *route)
{
    return route->config->match == CONFIG_MATCH_REGEX && route->config->regex_priority != 0;
}

/* Highest first; equal ones as in the file. */
static int by_priority(const void *a, const void *b)
{
    const struct config_route *x = (*(struct entry *const *)a)->config;
    const struct config_route *y = (*(struct entry *const *)b)->config;

    if (x->regex_priority != y->regex_priority) {
        return x->regex_priority > y->regex_priority ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

static int by_from(const void *a, const void *b)
{
    const struct config_route *x = (*(struct entry *const *)a)->config;
    const struct config_route *y = (*(struct entry *const *)b)->config;
    int order = sv_cmp(x->from, y->from);

    return order != 0 ? order : by_priority(a, b);
}

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a;
    const struct entry *y = *(struct entry *const *)b;

    return x->rank < y->rank ? -1 : 1;
}

/* The n routes of one `from` that have a priority swap places among themselves. */
static void rank_group(struct entry **group, size_t n)
{
    size_t *ranks = mem_array(n, sizeof(*ranks));

    for (size_t i = 0; i < n; i++) {
        ranks[i] = group[i]->rank;
    }
    qsort(ranks, n, sizeof(*ranks), by_size);
    for (size_t i = 0; i < n; i++) {
        group[i]->rank = ranks[i];
    }
    mem_free(&ranks);
}

static void rank_all(struct entry *routes, size_t n)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    struct entry **with = mem_array(n + 1, sizeof(*with));
    size_t count = 0;
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        routes[i].rank = i;
        if (has_priority(&routes[i])) {
            with[count++] = &routes[i];
        }
    }
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): likewise */
    qsort(with, count, sizeof(*with), by_from);
    for (size_t i = 1; i <= count; i++) {
        if (i == count || !sv_eq(with[i]->config->from, with[from]->config->from)) {
            rank_group(with + from, i - from);
            from = i;
        }
    }
    mem_free(&with);
}

static void finish_site(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    index_site(value);
}

struct route_table *route_table_new(const struct config_route *routes, size_t n)
{
    struct route_table *r = MEM_NEW(struct route_table);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    struct entry **order = mem_array(n + 1, sizeof(*order));

    r->tunnels = map_new();
    r->hosts = map_new();
    r->endings = map_new();
    r->entries = mem_array(n + 1, sizeof(*r->entries));
    for (size_t i = 0; i < n; i++) {
        CHECK(routes[i].index == i);
        r->entries[i].config = &routes[i];
        order[i] = &r->entries[i];
    }
    rank_all(r->entries, n);
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): likewise */
    qsort(order, n, sizeof(*order), by_rank);
    for (size_t i = 0; i < n; i++) {
        struct site *site = site_of(r, order[i]->config);

        if (order[i]->config->kind == CONFIG_ROUTE_TCP) {
            (void)map_set(r->tunnels, order[i]->config->tunnel, order[i]);
            row_add(&site->tunnels, order[i]);
            continue;
        }
        row_add(&site->routes, order[i]);
        site->any_port |= order[i]->config->port == 0;
    }
    mem_free(&order);
    map_each(r->hosts, finish_site, NULL);
    map_each(r->endings, finish_site, NULL);
    index_site(&r->rest);
    return r;
}

static void free_row(struct sv key, void *value, void *arg)
{
    struct row *row = value;

    (void)key;
    (void)arg;
    mem_free(&row->v);
    mem_free(&row);
}

static void site_deinit(struct site *site)
{
    if (site->paths != NULL) {
        map_each(site->paths, free_row, NULL);
        map_each(site->prefixes, free_row, NULL);
        map_free(&site->paths);
        map_free(&site->prefixes);
    }
    mem_free(&site->lengths);
    mem_free(&site->patterns.v);
    mem_free(&site->routes.v);
    mem_free(&site->tunnels.v);
}

static void free_site(struct sv key, void *value, void *arg)
{
    struct site *site = value;

    (void)key;
    (void)arg;
    site_deinit(site);
    mem_free(&site);
}

void route_table_free(struct route_table **table)
{
    struct route_table *r = TAKE(*table);

    if (r == NULL) {
        return;
    }
    map_each(r->hosts, free_site, NULL);
    map_each(r->endings, free_site, NULL);
    map_free(&r->tunnels);
    map_free(&r->hosts);
    map_free(&r->endings);
    site_deinit(&r->rest);
    mem_free(&r->entries);
    mem_free(&r);
}
