#include "databroker/external.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/fetch.h"
#include "common/list.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"
#include "databroker/external_work.h"
#include "databroker/service_int.h"

enum {
    LEASE_MS = 15000, /* of fetching: how long nobody does after a databroker was killed */
    LEASE_TICK_MS = 5000,
    BEGIN_MS = 1000, /* the first looks are spread over so long */
    AGAIN_MS = 1000,
    DOUBLE_MAX = 20,
    JOBS_MAX = 128
};

#define LEASE_NAME "external-data-fetching"

enum phase { WAITING = 0, FETCHING, WORKING };

struct source {
    struct list node;
    struct broker_external *all;
    struct config *config;
    const struct config_source *c; /* of config */
    enum phase phase;
    bool is_gone; /* from the configuration: freed when its work is over */
    struct event *timer;
    struct fetch *fetch;
    unsigned failures; /* in a row */
    char etag[FETCH_VALIDATOR_MAX + 1];
    char last_modified[FETCH_VALIDATOR_MAX + 1];
    bool was_asked_for_news; /* the request had one of the two */
    struct broker_work work;
};

struct broker_external {
    struct broker_service *service;
    struct fetcher *fetcher;
    struct job_pool *pool; /* one thread */
    struct list sources;
    bool is_stopping;

    struct event *lease_timer;
    struct broker_write lease;
    char lease_id[RAND_UUID_SIZE];
    bool lease_out;
    bool is_owner;
    int64_t lease_ends_ms;
};

/* --- one source ------------------------------------------------------------------------------------- */

static void wait_ms(struct source *s, int64_t ms)
{
    const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    s->phase = WAITING;
    if (s->all->is_owner && !s->all->is_stopping) {
        CHECK(event_add(s->timer, &tv) == 0);
    }
}

static void source_free(struct source *s)
{
    fetch_cancel(&s->fetch);
    event_free(s->timer);
    list_remove(&s->node);
    buf_deinit(&s->work.body);
    config_unref(&s->config);
    mem_free(&s);
}

static int64_t next_ms(const struct source *s)
{
    int64_t ms = s->c->min_delay_ms;

    for (unsigned i = 0; i < MIN(s->failures, (unsigned)DOUBLE_MAX) && ms < s->c->max_delay_ms;
         i++) {
        ms *= 2;
    }
    ms = MIN(ms, s->c->max_delay_ms);
    return ms - ms / 10 + (int64_t)rand_below((uint64_t)(ms / 5) + 1);
}

/* The address without what may be secret in it. */
static struct sv shown(const struct config_source *c)
{
    size_t query = sv_find(c->url, '?');

    return c->file.n != 0 ? c->file : sv_head(c->url, MIN(query, c->url.n));
}

static void log_outcome(const struct source *s, unsigned failures_before, int64_t next)
{
    const struct broker_work *w = &s->work;
    char line[DIAG_LINE];

    if (w->err != ERR_OK) {
        log_warn("external-data.failed", KV_SV("type", s->c->type), KV_SV("source", shown(s->c)),
                 KV_STR("why", diag_format(&w->d, line)), KV_U64("failures", s->failures),
                 KV_I64("next_ms", next),
                 KV_I64("as_of_s", w->checked_s)); /* what is in force was so then */
        return;
    }
    if (failures_before != 0) {
        log_info("external-data.recovered", KV_SV("type", s->c->type),
                 KV_U64("failures", failures_before));
    }
    if (w->counts.added + w->counts.changed + w->counts.removed != 0) {
        log_info("external-data.changed", KV_SV("type", s->c->type), KV_SV("source", shown(s->c)),
                 KV_U64("added", w->counts.added), KV_U64("changed", w->counts.changed),
                 KV_U64("removed", w->counts.removed), KV_U64("unchanged", w->counts.same));
    }
}

static void forget_validators(struct source *s)
{
    s->etag[0] = '\0';
    s->last_modified[0] = '\0';
}

/* The answer's validators count once its rows are in force. */
static void work_done(void *arg)
{
    struct source *s = arg;
    struct broker_external *x = s->all;
    struct broker_work *w = &s->work;
    int64_t next = AGAIN_MS;

    buf_deinit(&w->body);
    if (w->err != ERR_OK) {
        forget_validators(s);
    }
    if (w->err != ERR_AGAIN) {
        unsigned before = s->failures;

        s->failures = w->err == ERR_OK ? 0 : s->failures + 1;
        next = next_ms(s);
        log_outcome(s, before, next);
    }
    if (s->is_gone) {
        source_free(s);
    } else {
        wait_ms(s, next);
    }
    broker_service_call_over(x->service);
}

static void run_work(void *arg)
{
    struct source *s = arg;

    broker_work_run(&s->work);
}

static void work(struct source *s)
{
    struct broker_external *x = s->all;

    s->phase = WORKING;
    s->work.source = s->c;
    if (job_submit(x->pool, run_work, work_done, s) == ERR_OK) {
        x->service->open_calls++;
        return;
    }
    buf_deinit(&s->work.body); /* too many of earlier configurations are still at work */
    forget_validators(s);
    s->failures++;
    wait_ms(s, next_ms(s));
}

static void work_begin(struct source *s)
{
    s->work.err = ERR_OK;
    s->work.d = (struct diag){ .line = 0 };
    s->work.is_same = false;
    buf_init(&s->work.body, DATA_BYTES_MAX);
}

/* --- its answer --------------------------------------------------------------------------------------- */

static bool media_is(struct sv type, struct sv name)
{
    struct sv media = sv_trim(sv_cut(&type, ';'));

    return sv_ieq(media, name);
}

static enum err format_of(struct source *s, struct sv type)
{
    struct sv media = type;

    media = sv_trim(sv_cut(&media, ';'));
    if (s->c->format != CONFIG_DATA_AUTO) {
        s->work.format = s->c->format == CONFIG_DATA_CSV ? DATA_CSV : DATA_JSON;
        return ERR_OK;
    }
    if (media_is(type, SV("text/csv"))) {
        s->work.format = DATA_CSV;
        return ERR_OK;
    }
    if (media_is(type, SV("application/json")) || sv_ends(media, SV("+json"))) {
        s->work.format = DATA_JSON;
        return ERR_OK;
    }
    diag_set(&s->work.d,
             "the answer's Content-Type is neither application/json nor text/csv; \"format\" says "
             "what it is all the same");
    return ERR_INVALID;
}

static enum err answer_check(struct source *s, const struct fetch_answer *answer)
{
    struct diag *d = &s->work.d;

    if (answer->err != ERR_OK) {
        diag_set(d, "%s",
                 answer->err == ERR_LIMIT ? "the answer is larger than 32 MiB" : answer->text);
        return answer->err;
    }
    if (answer->status == 304 && s->was_asked_for_news) {
        s->work.is_same = true;
        return ERR_OK;
    }
    if (answer->status >= 300 && answer->status < 400 && answer->status != 304) {
        diag_set(d, "a redirect (status %ld) is not followed: name the address it leads to",
                 answer->status);
        return ERR_INVALID;
    }
    if (answer->status != 200) {
        diag_set(d, "status %ld", answer->status);
        return ERR_UNAVAILABLE;
    }
    if (!answer->is_framed) {
        diag_set(d, "the answer does not tell where it ends: a cut off one would look the same");
        return ERR_INVALID;
    }
    return format_of(s, answer->type);
}

static void keep(char *out, size_t size, struct sv text)
{
    (void)snprintf(out, size, "%.*s", (int)text.n, text.n == 0 ? "" : text.p);
}

static void on_answer(void *arg, const struct fetch_answer *answer)
{
    struct source *s = arg;

    s->fetch = NULL;
    work_begin(s);
    s->work.err = answer_check(s, answer);
    if (s->work.err == ERR_OK && !s->work.is_same) {
        keep(s->etag, sizeof(s->etag), answer->etag);
        keep(s->last_modified, sizeof(s->last_modified), answer->last_modified);
        buf_add_sv(&s->work.body, answer->body);
    }
    work(s);
}

/* Adds "Name: value" behind the list's last. */
static void add_header(const char **list, size_t *n, struct buf *line, const char *name,
                       const char *value)
{
    buf_printf(line, "%s: %s", name, value);
    list[*n] = buf_cstr(line);
    *n += 1;
    list[*n] = NULL;
}

static void ask(struct source *s)
{
    const struct config_source *c = s->c;
    const char *headers[FETCH_HEADERS_MAX + 3] = { NULL };
    const struct fetch_tls tls = { .ca_file = c->ca_file.p,
                                   .cert_file = c->client_cert_file.p,
                                   .key_file = c->client_key_file.p,
                                   .skip_verify = c->allow_insecure_tls };
    const struct fetch_request request = { .url = c->url.p,
                                           .headers = headers,
                                           .accept = c->format == CONFIG_DATA_CSV ? "text/csv"
                                                     : c->format == CONFIG_DATA_JSON
                                                         ? "application/json"
                                                         : "application/json, text/csv;q=0.9",
                                           .timeout_ms = c->timeout_ms,
                                           .max_bytes = DATA_BYTES_MAX,
                                           .tls = &tls };
    CLEANUP(buf_deinit) struct buf etag = { 0 };
    CLEANUP(buf_deinit) struct buf since = { 0 };
    struct buf room;
    size_t n = 0;

    buf_init(&room, (size_t)2 * CONFIG_FETCH_HEADERS_BYTES);
    buf_init(&etag, (size_t)2 * FETCH_VALIDATOR_MAX);
    buf_init(&since, (size_t)2 * FETCH_VALIDATOR_MAX);
    if (c->headers != NULL) {
        fetch_headers(secret_bytes(c->headers), &room, headers);
    }
    while (headers[n] != NULL) {
        n++;
    }
    s->was_asked_for_news =
        s->work.version != 0 && (s->etag[0] != '\0' || s->last_modified[0] != '\0');
    if (s->was_asked_for_news && s->etag[0] != '\0') {
        add_header(headers, &n, &etag, "If-None-Match", s->etag);
    }
    if (s->was_asked_for_news && s->last_modified[0] != '\0') {
        add_header(headers, &n, &since, "If-Modified-Since", s->last_modified);
    }
    s->phase = FETCHING;
    s->fetch = fetch_start(s->all->fetcher, &request, on_answer, s);
    if (room.p != NULL) {
        secret_wipe(room.p, room.n);
    }
    buf_deinit(&room);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct source *s = arg;

    (void)fd;
    (void)what;
    if (s->c->url.n != 0) {
        ask(s);
        return;
    }
    work_begin(s);
    s->work.format = s->c->format == CONFIG_DATA_CSV ||
                             (s->c->format == CONFIG_DATA_AUTO && sv_ends(s->c->file, SV(".csv")))
                         ? DATA_CSV
                         : DATA_JSON;
    work(s);
}

/* --- who fetches ---------------------------------------------------------------------------------------- */

static void source_pause(struct source *s)
{
    (void)event_del(s->timer);
    fetch_cancel(&s->fetch);
    s->phase = s->phase == WORKING ? WORKING : WAITING;
}

static void set_owner(struct broker_external *x, bool is_owner)
{
    if (x->is_owner == is_owner) {
        return;
    }
    x->is_owner = is_owner;
    log_info(is_owner ? "external-data.fetching" : "external-data.resting");
    for (struct list *it = x->sources.next; it != &x->sources; it = it->next) {
        struct source *s = LIST_ENTRY(it, struct source, node);

        if (!is_owner) {
            source_pause(s);
        } else if (s->phase == WAITING) {
            wait_ms(s, (int64_t)rand_below(BEGIN_MS));
        }
    }
}

static void lease_tick(struct broker_external *x);

static void lease_done(void *arg)
{
    struct broker_external *x = arg;
    enum err err = x->lease.err;

    x->lease_out = false;
    if (x->lease.kind == BROKER_WRITE_LEASE_ACQUIRE && err == ERR_OK) {
        (void)snprintf(x->lease_id, sizeof(x->lease_id), "%s", x->lease.lease_id_out);
    }
    if (x->lease.kind != BROKER_WRITE_LEASE_RELEASE && err == ERR_OK) {
        x->lease_ends_ms = x->lease.deadline_ms - BROKER_WRITE_MS + LEASE_MS;
        set_owner(x, true);
    } else if (err == ERR_EXISTS) {
        set_owner(x, false);
    }
    if (x->is_stopping) {
        lease_tick(x);
    }
    broker_service_call_over(x->service);
}

/* On the writer's thread. */
static void on_lease(struct broker_write *w)
{
    struct broker_external *x = w->arg;

    loop_post(x->service->loop, lease_done, x);
}

static void lease_submit(struct broker_external *x, enum broker_write_kind kind)
{
    x->lease = (struct broker_write){ .kind = kind,
                                      .deadline_ms = clock_mono_ms() + BROKER_WRITE_MS,
                                      .lease_name = SV(LEASE_NAME),
                                      .lease_id = sv_from(x->lease_id),
                                      .lease_ms = LEASE_MS,
                                      .done = on_lease,
                                      .arg = x };
    if (x->service->ops->submit(x->service->store, &x->lease) == ERR_OK) {
        x->lease_out = true;
        x->service->open_calls++;
    }
}

/* Takes or keeps the lease where there is something to fetch, else gives it back. */
static void lease_tick(struct broker_external *x)
{
    bool is_wanted = !list_empty(&x->sources) && !x->is_stopping;

    if (x->is_owner && clock_mono_ms() >= x->lease_ends_ms) {
        set_owner(x, false);
    }
    if (x->lease_out) {
        return;
    }
    if (is_wanted) {
        lease_submit(x, x->is_owner ? BROKER_WRITE_LEASE_RENEW : BROKER_WRITE_LEASE_ACQUIRE);
    } else if (x->is_owner) {
        lease_submit(x, BROKER_WRITE_LEASE_RELEASE);
        set_owner(x, false);
    }
}

static void on_lease_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    lease_tick(arg);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

static const struct config_source *find(const struct config *config, struct sv type)
{
    for (size_t i = 0; i < config->n_sources; i++) {
        if (sv_eq(config->sources[i].type, type)) {
            return &config->sources[i];
        }
    }
    return NULL;
}

/* A source that is the same goes on, with the configuration it came with. */
static void source_drop(struct source *s)
{
    source_pause(s);
    if (s->phase == WORKING) {
        s->is_gone = true;
    } else {
        source_free(s);
    }
}

static void source_new(struct broker_external *x, const struct config *config,
                       const struct config_source *c)
{
    struct source *s = MEM_NEW(struct source);

    s->all = x;
    s->config = config_ref(config);
    s->c = c;
    s->work.service = x->service;
    s->work.mark.size = -1;
    s->timer = event_new(loop_base(x->service->loop), -1, 0, on_timer, s);
    CHECK(s->timer != NULL);
    list_push_back(&x->sources, &s->node);
    wait_ms(s, (int64_t)rand_below(BEGIN_MS));
}

static bool is_there(struct broker_external *x, struct sv type)
{
    for (struct list *it = x->sources.next; it != &x->sources; it = it->next) {
        const struct source *s = LIST_ENTRY(it, struct source, node);

        if (!s->is_gone && sv_eq(s->c->type, type)) {
            return true;
        }
    }
    return false;
}

void broker_external_set(struct broker_external *x, const struct config *config)
{
    struct list *it = NULL;
    struct list *tmp = NULL;

    LIST_FOREACH_SAFE(it, tmp, &x->sources) {
        struct source *s = LIST_ENTRY(it, struct source, node);
        const struct config_source *c = find(config, s->c->type);

        if (!s->is_gone && (c == NULL || !config_source_same(s->c, c))) {
            source_drop(s);
        }
    }
    for (size_t i = 0; i < config->n_sources; i++) {
        if (!is_there(x, config->sources[i].type)) {
            source_new(x, config, &config->sources[i]);
        }
    }
    lease_tick(x);
}

struct broker_external *broker_external_new(struct broker_service *service)
{
    const struct timeval every = { .tv_sec = LEASE_TICK_MS / 1000 };
    struct broker_external *x = MEM_NEW(struct broker_external);

    x->service = service;
    x->fetcher = fetcher_new(service->loop, NULL);
    x->pool = job_pool_new(service->loop, 1, JOBS_MAX);
    list_init(&x->sources);
    x->lease_timer = event_new(loop_base(service->loop), -1, EV_PERSIST, on_lease_timer, x);
    CHECK(x->lease_timer != NULL && event_add(x->lease_timer, &every) == 0);
    return x;
}

void broker_external_stop(struct broker_external *x)
{
    x->is_stopping = true;
    (void)event_del(x->lease_timer);
    lease_tick(x);
    for (struct list *it = x->sources.next; it != &x->sources; it = it->next) {
        source_pause(LIST_ENTRY(it, struct source, node));
    }
}

void broker_external_free(struct broker_external **x)
{
    struct broker_external *e = TAKE(*x);
    struct list *it = NULL;
    struct list *tmp = NULL;

    if (e == NULL) {
        return;
    }
    LIST_FOREACH_SAFE(it, tmp, &e->sources) {
        source_free(LIST_ENTRY(it, struct source, node));
    }
    event_free(e->lease_timer);
    job_pool_free(&e->pool);
    fetcher_free(&e->fetcher);
    mem_free(&e);
}
