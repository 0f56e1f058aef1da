#include "databroker/writer.h"

#include <signal.h>
#include <time.h>

#include "common/clock.h"

enum { QUEUE_MAX = 4096, SWEEP_MS = 60000 };

enum err broker_writer_submit(struct broker_writer *writer, struct broker_write *w)
{
    enum err err = ERR_OK;

    w->next = NULL;
    (void)pthread_mutex_lock(&writer->mutex);
    if (writer->stopping) {
        err = ERR_UNAVAILABLE;
    } else if (writer->waiting >= writer->queue_max) {
        err = ERR_LIMIT;
    } else {
        *writer->tail = w;
        writer->tail = &w->next;
        writer->waiting++;
        (void)pthread_cond_signal(&writer->wake);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
    return err;
}

/* Takes up to a group of writes; waits for one until it is time to sweep. *n_out 0: sweep or stop. */
static bool take_group(struct broker_writer *writer, struct broker_write **group, size_t *n_out)
{
    struct timespec until = { .tv_sec = writer->sweep_at_ms / 1000,
                              .tv_nsec = writer->sweep_at_ms % 1000 * 1000000 };
    size_t bytes = 0;
    size_t n = 0;
    int rc = 0;
    bool go_on = true;

    (void)pthread_mutex_lock(&writer->mutex);
    while (writer->first == NULL && !writer->stopping && !writer->sweeping && rc == 0) {
        rc = pthread_cond_timedwait(&writer->wake, &writer->mutex, &until);
    }
    while (writer->first != NULL && n < BROKER_GROUP_MAX && bytes < BROKER_GROUP_BYTES) {
        struct broker_write *w = writer->first;

        group[n] = w;
        n++;
        bytes += w->records != NULL ? w->records->bytes : 0;
        writer->first = w->next;
        writer->waiting--;
    }
    if (writer->first == NULL) {
        writer->tail = &writer->first;
    }
    go_on = n > 0 || !writer->stopping;
    (void)pthread_mutex_unlock(&writer->mutex);
    *n_out = n;
    return go_on;
}

static bool is_news(const struct broker_write *w)
{
    return w->err == ERR_OK &&
           (w->kind == BROKER_WRITE_PUT || w->kind == BROKER_WRITE_OPTIONS ||
            w->kind == BROKER_WRITE_CLEAR || (w->kind == BROKER_WRITE_SWEEP && w->swept_out > 0));
}

/* Commits the first writes of the group together; if that fails each gets a transaction of its own, so
 * that a small one (a sign-out) may succeed where a large one found the disk full. Returns how many. */
static size_t commit_some(struct broker_writer *writer, struct broker_write *const *group, size_t n)
{
    bool news = false;
    size_t i = 0;
    enum err err = writer->transact(writer->store, group, &n);

    for (i = 0; i < n; i++) {
        if (err != ERR_OK) {
            size_t one = 1;
            enum err alone = n > 1 ? writer->transact(writer->store, &group[i], &one) : err;

            group[i]->err = alone != ERR_OK ? alone : group[i]->err;
        }
        news = news || is_news(group[i]);
    }
    if (news && writer->on_commit != NULL) {
        writer->on_commit(writer->arg);
    }
    for (i = 0; i < n; i++) {
        if (group[i]->done != NULL) {
            group[i]->done(group[i]); /* group[i] is gone */
        }
    }
    return n;
}

/* Drops the writes whose callers no longer wait. */
static size_t drop_late(struct broker_write **group, size_t n)
{
    int64_t now = clock_mono_ms();
    size_t kept = 0;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        if (group[i]->deadline_ms != 0 && now > group[i]->deadline_ms) {
            group[i]->err = ERR_TIMEOUT;
            group[i]->done(group[i]);
        } else {
            group[kept] = group[i];
            kept++;
        }
    }
    return kept;
}

static void commit_group(struct broker_writer *writer, struct broker_write **group, size_t n)
{
    size_t i = 0;

    while (i < n) {
        n = i + drop_late(group + i, n - i);
        if (i < n) {
            i += commit_some(writer, group + i, n - i);
        }
    }
}

static void sweep(struct broker_writer *writer)
{
    struct broker_write w = { .kind = BROKER_WRITE_SWEEP };
    struct broker_write *group[] = { &w };

    (void)commit_some(writer, group, 1);
    writer->sweeping = w.err == ERR_OK && w.swept_out > 0;
    if (!writer->sweeping) {
        writer->sweep_at_ms = clock_mono_ms() + writer->sweep_ms;
    }
}

static void *writer_main(void *arg)
{
    struct broker_writer *writer = arg;
    struct broker_write *group[BROKER_GROUP_MAX];
    size_t n = 0;

    while (take_group(writer, group, &n)) {
        commit_group(writer, group, n);
        if (writer->sweeping || clock_mono_ms() >= writer->sweep_at_ms) {
            sweep(writer);
        }
    }
    return NULL;
}

void broker_writer_init(struct broker_writer *writer, const struct broker_store_opts *opts,
                        struct broker_store *store, broker_transact_fn transact)
{
    pthread_condattr_t attr;

    *writer = (struct broker_writer){
        .store = store,
        .transact = transact,
        .on_commit = opts->on_commit,
        .arg = opts->arg,
        .queue_max = opts->queue_max == 0 ? QUEUE_MAX : opts->queue_max,
        .sweep_ms = opts->sweep_ms == 0 ? SWEEP_MS : opts->sweep_ms,
    };
    writer->tail = &writer->first;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&writer->mutex, NULL);
    (void)pthread_cond_init(&writer->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
}

void broker_writer_start(struct broker_writer *writer)
{
    sigset_t all;
    sigset_t before;

    writer->sweep_at_ms = clock_mono_ms() + writer->sweep_ms;
    (void)sigfillset(&all); /* signals are the loop thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    CHECK(pthread_create(&writer->thread, NULL, writer_main, writer) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    writer->running = true;
}

void broker_writer_stop(struct broker_writer *writer)
{
    if (!writer->running) {
        return;
    }
    (void)pthread_mutex_lock(&writer->mutex);
    writer->stopping = true;
    (void)pthread_cond_signal(&writer->wake);
    (void)pthread_mutex_unlock(&writer->mutex);
    (void)pthread_join(writer->thread, NULL);
    writer->running = false;
}

void broker_writer_deinit(struct broker_writer *writer)
{
    (void)pthread_cond_destroy(&writer->wake);
    (void)pthread_mutex_destroy(&writer->mutex);
}
