#include "common/audit/audit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum { RETRY_MS = 100 };

/* The writer's thread alone. */
struct writer {
    struct config *config;
    struct audit_sink *sink;
    struct audit_chain chain;
    struct buf lines;  /* as they came, taken off the queue */
    struct buf linked; /* the same in the chain, where there is one */
    size_t done;       /* bytes of what is to be written that are */
    size_t n_opening;  /* lines of linked that are not of lines */
    bool prepared;     /* linked holds what lines holds */
    int64_t retry_ms;
};

struct audit {
    struct audit_opts opts;
    /* the maker's */
    struct buf gathered;
    uint64_t added;  /* lines, ever */
    uint64_t handed; /* of them, handed over or lost */
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct buf waiting;
    uint64_t waiting_to;  /* the number of the newest line that waits */
    struct config *fresh; /* settings to go on with; NULL: the same */
    bool urgent;
    bool stopping;
    bool idle; /* the writer sleeps until it is woken */
    /* atomic */
    uint64_t written;
    uint64_t lost;
    size_t waiting_n;
    bool failing;
    bool confirms;
    struct writer writer;
    pthread_t thread;
};

/* --- the maker's side --------------------------------------------------------------------------- */

struct buf *audit_line(struct audit *a)
{
    return &a->gathered;
}

uint64_t audit_added(struct audit *a)
{
    return ++a->added;
}

uint64_t audit_made(const struct audit *a)
{
    return a->added;
}

bool audit_flush(struct audit *a, bool urgent)
{
    uint64_t n = a->added - a->handed;
    bool wake = false;
    bool taken = false;

    if (n == 0) {
        return true;
    }
    (void)pthread_mutex_lock(&a->mutex);
    taken = a->gathered.err == ERR_OK && a->waiting.n + a->gathered.n <= AUDIT_MAX;
    if (taken) {
        buf_add_sv(&a->waiting, buf_sv(&a->gathered));
        a->waiting_to = a->added;
        __atomic_store_n(&a->waiting_n, a->waiting.n, __ATOMIC_RELAXED);
        wake = a->idle || (urgent && !a->urgent);
        a->urgent = a->urgent || urgent;
        a->idle = false;
    }
    (void)pthread_mutex_unlock(&a->mutex);
    if (wake) {
        (void)pthread_cond_signal(&a->wake);
    }
    if (!taken) {
        (void)__atomic_fetch_add(&a->lost, n, __ATOMIC_RELAXED);
    }
    a->handed = a->added;
    buf_reset(&a->gathered);
    return taken;
}

/* What waits only shrinks while we look: the maker is the one who adds. */
bool audit_works(const struct audit *a)
{
    return !__atomic_load_n(&a->failing, __ATOMIC_RELAXED) &&
           a->gathered.n + __atomic_load_n(&a->waiting_n, __ATOMIC_RELAXED) + AUDIT_LINE_MAX <=
               AUDIT_MAX;
}

bool audit_confirms(const struct audit *a)
{
    return __atomic_load_n(&a->confirms, __ATOMIC_RELAXED);
}

uint64_t audit_written(const struct audit *a)
{
    return __atomic_load_n(&a->written, __ATOMIC_ACQUIRE);
}

uint64_t audit_lost(const struct audit *a)
{
    return __atomic_load_n(&a->lost, __ATOMIC_RELAXED);
}

enum err audit_set(struct audit *a, const struct config *config, struct diag *d)
{
    struct config *unused = NULL;
    enum err err = audit_sink_check(config, d);

    if (err != ERR_OK) {
        return err;
    }
    (void)pthread_mutex_lock(&a->mutex);
    unused = a->fresh;
    a->fresh = config_ref(config);
    (void)pthread_cond_signal(&a->wake);
    (void)pthread_mutex_unlock(&a->mutex);
    config_unref(&unused);
    return ERR_OK;
}

/* --- the writer: a batch ------------------------------------------------------------------------ */

static void tell_news(struct audit *a)
{
    if (a->opts.on_news != NULL) {
        a->opts.on_news(a->opts.arg);
    }
}

static struct sv text_of(const struct writer *w)
{
    return w->chain.kind == CONFIG_AUDIT_CHAIN_OFF ? buf_sv(&w->lines) : buf_sv(&w->linked);
}

/* Puts the lines into the chain, once a batch. */
static void link_lines(struct writer *w, bool opening)
{
    struct sv rest = buf_sv(&w->lines);

    w->prepared = true;
    w->n_opening = 0;
    buf_reset(&w->linked);
    if (w->chain.kind == CONFIG_AUDIT_CHAIN_OFF) {
        return;
    }
    if (opening) {
        audit_chain_open(&w->chain, clock_wall_ms(), &w->linked);
        w->n_opening = 1;
    }
    while (rest.n != 0) {
        size_t end = sv_find(rest, '\n');

        CHECK(end != SIZE_MAX);
        audit_chain_add(&w->chain, sv_head(rest, end), &w->linked);
        rest = sv_from_at(rest, end + 1);
    }
    CHECK(w->linked.err == ERR_OK);
}

static enum err write_once(struct writer *w, struct diag *d)
{
    struct audit_place place = { .is_new = false };
    size_t done = 0;
    enum err err = ERR_OK;

    if (!w->prepared) { /* or half a line goes where its other half is */
        err = w->sink->ops->open(w->sink, &place, d);
        if (err != ERR_OK) {
            return err;
        }
        if (place.last.n != 0) {
            (void)audit_chain_resume(&w->chain, place.last);
        }
        link_lines(w, place.is_new);
    }
    err = w->sink->ops->write(w->sink, sv_from_at(text_of(w), w->done), &done, d);
    w->done += done;
    return err;
}

/* What of the batch is not written yet, as it came: for a new sink, perhaps another chain. */
static void keep_rest(struct writer *w)
{
    struct sv written = sv_head(text_of(w), w->prepared ? w->done : 0);
    size_t n = 0;
    size_t at = 0;

    for (size_t end = sv_find(written, '\n'); end != SIZE_MAX; end = sv_find(written, '\n')) {
        written = sv_from_at(written, end + 1);
        n++;
    }
    for (n -= MIN(n, w->n_opening); n > 0; n--) {
        at += sv_find(sv_from_at(buf_sv(&w->lines), at), '\n') + 1;
    }
    buf_drop_front(&w->lines, at);
    w->prepared = false;
    w->done = 0;
}

static void writer_begin(struct audit *a, struct config *config)
{
    struct writer *w = &a->writer;

    w->config = config;
    w->sink = audit_sink_new(config);
    audit_chain_init(&w->chain, config->audit.chain, config->keys);
    __atomic_store_n(&a->confirms, w->sink->ops->confirms, __ATOMIC_RELAXED);
}

static void writer_end(struct writer *w)
{
    audit_sink_close(&w->sink);
    audit_chain_deinit(&w->chain);
    config_unref(&w->config);
}

/* Goes on with other settings. The file, if it is the same, is taken up where it was left. */
static void take_settings(struct audit *a)
{
    struct config *fresh = NULL;

    (void)pthread_mutex_lock(&a->mutex);
    fresh = TAKE(a->fresh);
    (void)pthread_mutex_unlock(&a->mutex);
    if (fresh == NULL) {
        return;
    }
    if (config_audit_same(&fresh->audit, &a->writer.config->audit)) {
        config_unref(&fresh);
        return;
    }
    keep_rest(&a->writer);
    writer_end(&a->writer);
    writer_begin(a, fresh);
    log_info("audit.settings-taken");
}

/* --- the writer: its life ----------------------------------------------------------------------- */

static struct timespec after_ms(int64_t ms)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_nsec -= 1000000000L;
        t.tv_sec++;
    }
    return t;
}

/* While it is busy, many batches share one write and nobody needs to be woken: but for somebody who
 * waits. */
static void gather(struct audit *a)
{
    const struct timespec until = after_ms(AUDIT_GATHER_MS);
    int code = 0;

    (void)pthread_mutex_lock(&a->mutex);
    while (!a->urgent && !a->stopping && code == 0) {
        code = pthread_cond_timedwait(&a->wake, &a->mutex, &until);
    }
    (void)pthread_mutex_unlock(&a->mutex);
}

/* False: the process ends, there is no other try. */
static bool wait_to_retry(struct audit *a)
{
    struct writer *w = &a->writer;
    const struct timespec until = after_ms(w->retry_ms);
    bool stopping = false;
    int code = 0;

    w->retry_ms = MIN(w->retry_ms * 2, w->sink->ops->retry_max_ms);
    (void)pthread_mutex_lock(&a->mutex);
    while (!a->stopping && a->fresh == NULL && code == 0) {
        code = pthread_cond_timedwait(&a->wake, &a->mutex, &until);
    }
    stopping = a->stopping;
    (void)pthread_mutex_unlock(&a->mutex);
    return !stopping;
}

/* Says how many were lost so far, if that grew, at most once a second. */
static void tell_lost(struct audit *a, uint64_t *told)
{
    static struct log_limit limit;
    uint64_t lost = audit_lost(a);

    if (lost > *told && log_limit_pass(&limit, 1)) {
        log_error("audit.lost", KV_U64("lines-since-start", lost));
        *told = lost;
    }
}

static void set_failing(struct audit *a, const struct diag *d)
{
    static struct log_limit limit;
    bool failing = d != NULL;
    bool before = __atomic_exchange_n(&a->failing, failing, __ATOMIC_RELAXED);

    if (failing && log_limit_pass(&limit, 1)) {
        log_error("audit.failing", KV_STR("reason", d->text));
    }
    if (before && !failing) {
        log_info("audit.works-again");
    }
    if (before != failing) {
        tell_news(a);
    }
    if (before != failing && a->opts.on_works != NULL) {
        a->opts.on_works(a->opts.works_arg, !failing);
    }
}

/* Writes the batch, however long it takes. False: it is lost, as the process ends. */
static bool write_batch(struct audit *a, uint64_t *told)
{
    struct writer *w = &a->writer;

    w->prepared = false;
    w->done = 0;
    w->retry_ms = RETRY_MS;
    for (;;) {
        struct diag d = { .line = 0 };

        take_settings(a);
        if (write_once(w, &d) == ERR_OK) {
            set_failing(a, NULL);
            return true;
        }
        set_failing(a, &d);
        tell_lost(a, told);
        if (!wait_to_retry(a)) {
            return false;
        }
    }
}

struct batch {
    uint64_t to; /* the newest line's number */
    bool urgent;
};

/* Takes what waits; false: there will be no more. */
static bool take_waiting(struct audit *a, struct batch *batch_out)
{
    struct buf *lines = &a->writer.lines;

    buf_reset(lines);
    (void)pthread_mutex_lock(&a->mutex);
    while (a->waiting.n == 0 && !a->stopping) {
        a->idle = true;
        (void)pthread_cond_wait(&a->wake, &a->mutex);
    }
    a->idle = false;
    struct buf full = a->waiting;

    a->waiting = *lines;
    *lines = full;
    __atomic_store_n(&a->waiting_n, 0, __ATOMIC_RELAXED);
    *batch_out = (struct batch){ .to = a->waiting_to, .urgent = a->urgent };
    a->urgent = false;
    (void)pthread_mutex_unlock(&a->mutex);
    return lines->n > 0;
}

static void count_lost(struct audit *a)
{
    uint64_t n = 0;

    keep_rest(&a->writer);
    for (struct sv rest = buf_sv(&a->writer.lines); rest.n != 0; n++) {
        rest = sv_from_at(rest, sv_find(rest, '\n') + 1);
    }
    (void)__atomic_fetch_add(&a->lost, n, __ATOMIC_RELAXED);
}

/* The orderly end of a chain: what is missing behind it was taken away. */
static void write_end(struct writer *w)
{
    size_t done = 0;

    if (w->chain.kind == CONFIG_AUDIT_CHAIN_OFF || w->chain.seq == 0) {
        return;
    }
    buf_reset(&w->linked);
    audit_chain_end(&w->chain, clock_wall_ms(), &w->linked);
    if (w->sink->ops->write(w->sink, buf_sv(&w->linked), &done, NULL) != ERR_OK) {
        log_warn("audit.no-end");
    }
}

static void *writer_main(void *arg)
{
    struct audit *a = arg;
    struct batch batch;
    uint64_t told = 0;
    bool whole = true;

    while (take_waiting(a, &batch)) {
        whole = write_batch(a, &told);
        if (!whole) {
            count_lost(a);
        } else {
            __atomic_store_n(&a->written, batch.to, __ATOMIC_RELEASE);
            if (batch.urgent) {
                tell_news(a);
            }
        }
        tell_lost(a, &told);
        gather(a);
    }
    if (whole) {
        write_end(&a->writer);
    }
    return NULL;
}

static void start_thread(struct audit *a)
{
    pthread_condattr_t attr;
    sigset_t all;
    sigset_t before;

    CHECK(pthread_mutex_init(&a->mutex, NULL) == 0 && pthread_condattr_init(&attr) == 0);
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
          pthread_cond_init(&a->wake, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&a->thread, NULL, writer_main, a) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void audit_deinit(struct audit *a)
{
    struct writer *w = &a->writer;

    writer_end(w);
    config_unref(&a->fresh);
    buf_deinit(&w->lines);
    buf_deinit(&w->linked);
    buf_deinit(&a->gathered);
    buf_deinit(&a->waiting);
    mem_free(&a);
}

enum err audit_new(const struct audit_opts *opts, struct audit **audit_out, struct diag *d)
{
    struct audit *a = MEM_NEW(struct audit);
    struct writer *w = &a->writer;
    enum err err = audit_sink_check(opts->config, d);

    a->opts = *opts;
    buf_init(&a->gathered, AUDIT_MAX);
    buf_init(&a->waiting, AUDIT_MAX);
    buf_init(&w->lines, AUDIT_MAX);
    buf_init(&w->linked, 3 * (size_t)AUDIT_MAX); /* no link is twice as long as its line */
    writer_begin(a, config_ref(opts->config));
    if (err == ERR_OK && !w->sink->ops->is_remote) {
        err = write_once(w, d); /* of nothing: opens it, and says what stands in the way */
    }
    if (err != ERR_OK) {
        audit_deinit(a);
        return err;
    }
    start_thread(a);
    *audit_out = a;
    return ERR_OK;
}

void audit_free(struct audit **audit)
{
    struct audit *a = TAKE(*audit);

    if (a == NULL) {
        return;
    }
    (void)audit_flush(a, true);
    (void)pthread_mutex_lock(&a->mutex);
    a->stopping = true;
    (void)pthread_cond_signal(&a->wake);
    (void)pthread_mutex_unlock(&a->mutex);
    (void)pthread_join(a->thread, NULL);
    (void)pthread_mutex_destroy(&a->mutex);
    (void)pthread_cond_destroy(&a->wake);
    audit_deinit(a);
}
