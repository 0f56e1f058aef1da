#include "common/config/watch.h"

#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/config/reader.h"
#include "common/log.h"
#include "common/mem.h"

enum { LOOK_MS = 500, FRESH_MS = 2000, FILES_A_MS = 4 };

/* What a look at a file tells without reading it. All zero: it is not there. */
struct look {
    uint64_t dev;
    uint64_t ino;
    int64_t size;
    struct timespec mtime;
    struct timespec ctime;
};

struct looks {
    struct look *v;
    size_t n;
};

struct config_watch {
    struct loop *loop;
    struct config_opts opts;
    struct config *current;
    config_apply_fn apply;
    void *arg;
    struct event *timer;
    struct config_files files; /* of the last attempt, good or bad */
    struct looks seen;         /* what the last attempt read */
    struct looks last;         /* the look before this one */
    char sum[17];              /* of the last attempt */
    int64_t again_ms;          /* a file was fresh when it was read: read once more then; 0: no */
    struct config_watch_state state;
};

/* --- looking -------------------------------------------------------------------------------------- */

static void looks_take(struct looks *looks, const struct config_files *files)
{
    mem_free(&looks->v);
    looks->n = files->n;
    looks->v = mem_array(files->n + 1, sizeof(struct look));
    for (size_t i = 0; i < files->n; i++) {
        struct stat st = { 0 };
        struct look *l = &looks->v[i];

        if (stat(files->v[i], &st) == 0) {
            l->dev = st.st_dev;
            l->ino = st.st_ino;
            l->size = st.st_size;
            l->mtime = st.st_mtim;
            l->ctime = st.st_ctim;
        }
    }
}

static bool look_same(const struct look *a, const struct look *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec &&
           a->ctime.tv_sec == b->ctime.tv_sec && a->ctime.tv_nsec == b->ctime.tv_nsec;
}

static bool looks_same(const struct looks *a, const struct looks *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (!look_same(&a->v[i], &b->v[i])) {
            return false;
        }
    }
    return true;
}

/* Somebody has emptied the configuration and will write it in a moment. */
static bool is_half_written(const struct looks *looks)
{
    return looks->n != 0 && looks->v[0].size == 0;
}

/* A second change within the same tick of the file system's clock leaves no trace but the bytes. */
static bool is_fresh(const struct looks *looks)
{
    int64_t now = clock_wall_ms();

    for (size_t i = 0; i < looks->n; i++) {
        int64_t ms = looks->v[i].mtime.tv_sec * 1000;

        if (ms > now - FRESH_MS) {
            return true;
        }
    }
    return false;
}

/* --- reading -------------------------------------------------------------------------------------- */

static void report(const struct config_errors *errors)
{
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        log_error("config.rejected", KV_STR("reason", config_errors_text(errors, i)));
    }
}

static void take(struct config_watch *w, struct config *fresh)
{
    struct diag d = { 0 };
    enum err err = w->apply(fresh, &d, w->arg);

    if (err != ERR_OK) {
        log_error("config.rejected", KV_STR("reason", d.text), KV_ERR(err));
        w->state.rejected++;
        w->state.last_was_rejected = true;
        config_unref(&fresh);
        return;
    }
    config_unref(&w->current);
    w->current = fresh;
    w->state.generation++;
    w->state.last_was_rejected = false;
    w->state.applied_at_ms = clock_wall_ms();
    log_info("config.applied", KV_U64("generation", w->state.generation),
             KV_STR("checksum", fresh->checksum), KV_U64("routes", fresh->n_routes));
}

/* Twice a second, less often where there are thousands of files: a look costs about a microsecond
 * each. */
static void set_pace(struct config_watch *w)
{
    int64_t ms = MAX((int64_t)LOOK_MS, (int64_t)(w->files.n / FILES_A_MS));
    struct timeval every = { (time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000) };

    CHECK(event_add(w->timer, &every) == 0);
}

static void read_again(struct config_watch *w)
{
    struct config *fresh = NULL;
    struct config_errors *errors = NULL;
    struct config_files files = { 0 };
    char sum[17];
    enum err err = ERR_OK;

    w->opts.previous = w->current;

    /* The look comes first: what changes while we read is seen as changed next time. */
    looks_take(&w->seen, &w->files);
    err = config_load_tracked(&w->opts, &fresh, &errors, &files, sum);
    config_files_deinit(&w->files);
    w->files = files;
    if (w->seen.n != w->files.n) {
        looks_take(&w->seen, &w->files);
    }
    looks_take(&w->last, &w->files);
    set_pace(w);
    w->again_ms = is_fresh(&w->seen) ? clock_mono_ms() + FRESH_MS : 0;
    if (strcmp(sum, w->sum) == 0) { /* the same bytes: nothing new to say */
        config_errors_free(&errors);
        config_unref(&fresh);
        return;
    }
    memcpy(w->sum, sum, sizeof(w->sum));
    if (err == ERR_OK) {
        take(w, fresh);
        return;
    }
    report(errors);
    config_errors_free(&errors);
    w->state.rejected++;
    w->state.last_was_rejected = true;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct config_watch *w = arg;
    struct looks now = { 0 };
    bool still = false;

    (void)fd;
    (void)what;
    looks_take(&now, &w->files);
    still = looks_same(&now, &w->last);
    mem_free(&w->last.v);
    w->last = now;
    if (looks_same(&now, &w->seen)) {
        if (w->again_ms != 0 && clock_mono_ms() >= w->again_ms) {
            read_again(w);
        }
    } else if (still && !is_half_written(&now)) {
        read_again(w);
    }
}

/* --- life ----------------------------------------------------------------------------------------- */

struct config_watch *config_watch_new(struct loop *loop, const struct config_opts *opts,
                                      const struct config *current, config_apply_fn apply,
                                      void *arg)
{
    struct config_watch *w = MEM_NEW(struct config_watch);
    w->loop = loop;
    w->opts = *opts;
    w->current = config_ref(current);
    w->apply = apply;
    w->arg = arg;
    memcpy(w->sum, current->checksum, sizeof(w->sum));
    w->state.generation = 1;
    w->state.applied_at_ms = clock_wall_ms();
    if (opts->file != NULL) {
        config_files_add(&w->files, opts->file);
    }
    for (size_t i = 0; i < current->files.n; i++) {
        config_files_add(&w->files, current->files.v[i].p);
    }
    /* What was written between the first reading and now is found by its bytes. */
    looks_take(&w->seen, &w->files);
    looks_take(&w->last, &w->files);
    w->again_ms = clock_mono_ms() + LOOK_MS;
    w->timer = event_new(loop_base(loop), -1, EV_PERSIST, on_timer, w);
    CHECK(w->timer != NULL);
    set_pace(w);
    return w;
}

void config_watch_free(struct config_watch **watch)
{
    struct config_watch *w = TAKE(*watch);

    if (w == NULL) {
        return;
    }
    event_free(w->timer);
    config_files_deinit(&w->files);
    mem_free(&w->seen.v);
    mem_free(&w->last.v);
    config_unref(&w->current);
    mem_free(&w);
}

void config_watch_now(struct config_watch *watch)
{
    LOOP_CHECK_THREAD(watch->loop);
    read_again(watch);
}

const struct config *config_watch_current(const struct config_watch *watch)
{
    return watch->current;
}

void config_watch_state(const struct config_watch *watch, struct config_watch_state *state_out)
{
    *state_out = watch->state;
}
