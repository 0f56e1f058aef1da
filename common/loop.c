#include "common/loop.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <event2/thread.h>

#include "common/mem.h"

struct task {
    struct task *next;
    loop_fn fn;
    void *arg;
};

struct queue {
    struct task *first;
    struct task **tail;
};

struct loop {
    struct event_base *base;
    struct event *wake;
    int wake_fd; /* private loops: an eventfd, because event_active needs the lock; else -1 */
    pthread_mutex_t mutex;
    struct queue posted;   /* under mutex */
    struct queue deferred; /* loop thread only */
    struct task *spare;    /* for the next deferred ones; loop thread only */
    unsigned n_spare;
    bool stopping; /* atomic */
    bool running;
    pthread_t thread;
    loop_fn flush;
    void *flush_arg;
    loop_fn late;
    void *late_arg;
    bool late_due;
    bool gathered;  /* flush is due */
    bool hurry;     /* it waits for nothing more */
    unsigned turns; /* since then */
};

enum { GATHER_TURNS = 8, SPARE_MAX = 1024 };

static pthread_once_t evthread_once = PTHREAD_ONCE_INIT;

static void evthread_on(void)
{
    CHECK(evthread_use_pthreads() == 0);
}

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->tail = &q->first;
}

static void queue_add(struct queue *q, struct task *t, loop_fn fn, void *arg)
{
    *t = (struct task){ .fn = fn, .arg = arg };
    *q->tail = t;
    q->tail = &t->next;
}

static void queue_run(struct task *first)
{
    while (first != NULL) {
        struct task *t = first;

        first = t->next;
        t->fn(t->arg);
        mem_free(&t);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct loop *loop = arg;
    struct task *first = NULL;

    (void)what;
    if (fd >= 0) {
        uint64_t count = 0;

        (void)!read(fd, &count, sizeof(count)); /* empty already: nothing is lost */
    }
    (void)pthread_mutex_lock(&loop->mutex);
    first = loop->posted.first;
    queue_init(&loop->posted);
    (void)pthread_mutex_unlock(&loop->mutex);
    queue_run(first);
}

static void wake_up(struct loop *loop)
{
    const uint64_t one = 1;

    if (loop->wake_fd < 0) {
        event_active(loop->wake, 0, 0);
        return;
    }
    (void)!write(loop->wake_fd, &one, sizeof(one)); /* full: it is awake */
}

static struct event_base *new_base(int flags)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    CHECK(config != NULL && event_config_set_flag(config, flags) == 0);
    base = event_base_new_with_config(config);
    event_config_free(config);
    CHECK(base != NULL);
    return base;
}

static struct loop *new_loop(int flags)
{
    struct loop *loop = MEM_NEW(struct loop);

    (void)pthread_once(&evthread_once, evthread_on);
    loop->base = new_base(flags);
    loop->wake_fd = -1;
    if ((flags & EVENT_BASE_FLAG_NOLOCK) != 0) {
        loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        CHECK(loop->wake_fd >= 0);
    }
    loop->wake = event_new(loop->base, loop->wake_fd,
                           (short)(EV_PERSIST | (loop->wake_fd >= 0 ? EV_READ : 0)), on_wake, loop);
    CHECK(loop->wake != NULL);
    if (loop->wake_fd >= 0) {
        CHECK(event_add(loop->wake, NULL) == 0);
    }
    (void)pthread_mutex_init(&loop->mutex, NULL);
    queue_init(&loop->posted);
    queue_init(&loop->deferred);
    return loop;
}

struct loop *loop_new(void)
{
    return new_loop(0);
}

struct loop *loop_new_private(void)
{
    return new_loop(EVENT_BASE_FLAG_NOLOCK);
}

void loop_free(struct loop **loop)
{
    struct loop *l = TAKE(*loop);

    if (l == NULL) {
        return;
    }
    queue_run(l->posted.first);
    queue_run(l->deferred.first);
    while (l->spare != NULL) {
        struct task *t = l->spare;

        l->spare = t->next;
        mem_free(&t);
    }
    event_free(l->wake);
    event_base_free(l->base);
    if (l->wake_fd >= 0) {
        (void)close(l->wake_fd);
    }
    (void)pthread_mutex_destroy(&l->mutex);
    mem_free(&l);
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

void loop_on_flush(struct loop *loop, loop_fn flush, void *arg)
{
    loop->flush = flush;
    loop->flush_arg = arg;
}

void loop_gather(struct loop *loop)
{
    loop->gathered = loop->flush != NULL;
}

void loop_hurry(struct loop *loop)
{
    loop->hurry = true;
}

void loop_on_late(struct loop *loop, loop_fn late, void *arg)
{
    loop->late = late;
    loop->late_arg = arg;
}

void loop_late(struct loop *loop)
{
    loop->late_due = loop->late != NULL;
}

struct loop_tick {
    int fd;
    struct event *event;
    loop_fn fn;
    void *arg;
};

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct loop_tick *tick = arg;
    uint64_t times = 0;

    (void)what;
    if (read(fd, &times, sizeof(times)) == sizeof(times)) {
        tick->fn(tick->arg);
    }
}

struct loop_tick *loop_tick_new(struct loop *loop, unsigned ms, loop_fn fn, void *arg)
{
    struct loop_tick *tick = MEM_NEW(struct loop_tick);
    const struct timespec every = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    const struct itimerspec when = { .it_interval = every, .it_value = every };

    tick->fn = fn;
    tick->arg = arg;
    tick->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK(tick->fd >= 0 && timerfd_settime(tick->fd, 0, &when, NULL) == 0);
    tick->event = event_new(loop->base, tick->fd, EV_READ | EV_PERSIST, on_tick, tick);
    CHECK(tick->event != NULL && event_add(tick->event, NULL) == 0);
    return tick;
}

void loop_tick_free(struct loop_tick **tick)
{
    struct loop_tick *t = TAKE(*tick);

    if (t != NULL) {
        event_free(t->event);
        (void)close(t->fd);
        mem_free(&t);
    }
}

void loop_raise(struct loop *loop, struct event *event)
{
    /* libevent runs what is raised in a callback in the same turn, for as long as there is any. */
    event_active(event, EV_READ, 0);
    CHECK(event_base_loopbreak(loop->base) == 0);
}

static bool run_deferred(struct loop *loop)
{
    struct task *t = loop->deferred.first;
    bool any = t != NULL;

    queue_init(&loop->deferred);
    while (t != NULL) {
        struct task *next = t->next;

        t->fn(t->arg);
        if (loop->n_spare < SPARE_MAX) {
            t->next = loop->spare;
            loop->spare = t;
            loop->n_spare++;
        } else {
            mem_free(&t);
        }
        t = next;
    }
    return any;
}

/* Work that is ready comes before the flush: it may have more for it. */
static void flush_if_due(struct loop *loop)
{
    bool idle = event_base_get_max_events(loop->base, EVENT_BASE_COUNT_ACTIVE, 1) == 0;

    if (!loop->gathered || (!idle && !loop->hurry && ++loop->turns < GATHER_TURNS)) {
        return;
    }
    loop->gathered = false;
    loop->hurry = false;
    loop->turns = 0;
    loop->flush(loop->flush_arg);
}

static void run_late(struct loop *loop)
{
    if (loop->late_due) {
        loop->late_due = false;
        loop->late(loop->late_arg);
    }
}

void loop_run(struct loop *loop)
{
    loop->thread = pthread_self();
    __atomic_store_n(&loop->running, true, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&loop->stopping, __ATOMIC_ACQUIRE)) {
        bool waits = !loop->gathered && !loop->late_due;

        (void)event_base_loop(loop->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY |
                                              (waits ? 0 : EVLOOP_NONBLOCK));
        while (run_deferred(loop)) {
        }
        flush_if_due(loop);
        run_late(loop);
        while (run_deferred(loop)) { /* their own: not behind the next wait */
        }
    }
    __atomic_store_n(&loop->running, false, __ATOMIC_RELEASE);
}

void loop_stop(struct loop *loop)
{
    __atomic_store_n(&loop->stopping, true, __ATOMIC_RELEASE);
    wake_up(loop);
}

void loop_post(struct loop *loop, loop_fn fn, void *arg)
{
    bool first = false;

    (void)pthread_mutex_lock(&loop->mutex);
    first = loop->posted.first == NULL;
    queue_add(&loop->posted, MEM_NEW(struct task), fn, arg);
    (void)pthread_mutex_unlock(&loop->mutex);
    if (first) {
        wake_up(loop);
    }
}

void loop_defer(struct loop *loop, loop_fn fn, void *arg)
{
    struct task *t = loop->spare;

    if (t == NULL) {
        t = MEM_NEW(struct task);
    } else {
        loop->spare = t->next;
        loop->n_spare--;
    }
    queue_add(&loop->deferred, t, fn, arg);
}

bool loop_is_mine(const struct loop *loop)
{
    return !__atomic_load_n(&loop->running, __ATOMIC_ACQUIRE) ||
           pthread_equal(loop->thread, pthread_self());
}
