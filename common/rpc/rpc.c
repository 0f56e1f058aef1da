#include "common/rpc/rpc.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/core.h"

#ifndef __has_feature /* clang only */
#    define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#    include <sanitizer/tsan_interface.h>
#    define TAG_GIVE(op) __tsan_release(op) /* gRPC is not instrumented: show the hand-over */
#    define TAG_BACK(op) __tsan_acquire(op)
/* Another queue's thread may have read the bytes off the socket; that hand-over is inside gRPC, so
 * here gRPC copies them first. */
#    define SLICE_IS_SEEN false
#else
#    define TAG_GIVE(op)  ((void)(op))
#    define TAG_BACK(op)  ((void)(op))
#    define SLICE_IS_SEEN true
#endif

enum { LAME_STATUS = 14 };

/* Something to run later; kept in the order of its time. */
struct task {
    struct rpc_op op;
    struct task *next;
    int64_t due_ms; /* monotonic */
    rpc_fn fn;
    void *arg;
};

struct rpc {
    grpc_completion_queue *cq;
    struct loop *loop; /* NULL: callbacks on the queue's thread */
    struct event *wake;
    pthread_t thread;
    pthread_mutex_t mutex;
    struct rpc_op *done; /* under mutex */
    struct rpc_op **done_tail;
    struct task *tasks; /* under mutex, soonest first */
    int64_t due_ms;     /* of the first task; INT64_MAX without one; atomic */
    bool stopping;      /* under mutex */
    /* An empty batch on a call that goes nowhere is how another thread wakes the queue's: the C
     * core has no alarm of its own. */
    grpc_channel *lame;
    grpc_call *kick_call;
    struct rpc_op kick_op;
    bool kicked; /* under mutex: one is on its way */
};

static void on_grpc_log(gpr_log_func_args *args)
{
    static struct log_limit limit;

    if (args->severity == GPR_LOG_SEVERITY_ERROR && log_limit_pass(&limit, 5)) {
        log_warn("rpc.core", KV_STR("text", args->message));
    }
}

static pthread_once_t log_once = PTHREAD_ONCE_INIT;

static void log_hook(void)
{
    gpr_set_log_function(on_grpc_log);
}

void rpc_expect_few_peers(void)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread yet */
    (void)setenv("GRPC_POLL_STRATEGY", "poll", 0);
}

void rpc_core_up(void)
{
    (void)pthread_once(&log_once, log_hook);
    grpc_init();
}

void rpc_core_down(void)
{
    grpc_shutdown();
}

grpc_completion_queue *rpc_cq(struct rpc *rpc)
{
    return rpc->cq;
}

struct loop *rpc_loop(struct rpc *rpc)
{
    return rpc->loop;
}

void rpc_give(struct rpc_op *op)
{
    TAG_GIVE(op);
}

void rpc_start(grpc_call *call, const grpc_op *ops, size_t n, struct rpc_op *op)
{
    rpc_give(op);
    CHECK(grpc_call_start_batch(call, ops, n, op, NULL) == GRPC_CALL_OK);
}

static void hand_over(struct rpc *rpc, struct rpc_op *op)
{
    bool first = false;

    op->next = NULL;
    (void)pthread_mutex_lock(&rpc->mutex);
    first = rpc->done == NULL;
    *rpc->done_tail = op;
    rpc->done_tail = &op->next;
    (void)pthread_mutex_unlock(&rpc->mutex);
    if (first) {
        event_active(rpc->wake, 0, 0);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct rpc *rpc = arg;
    struct rpc_op *op = NULL;

    (void)fd;
    (void)what;
    (void)pthread_mutex_lock(&rpc->mutex);
    op = rpc->done;
    rpc->done = NULL;
    rpc->done_tail = &rpc->done;
    (void)pthread_mutex_unlock(&rpc->mutex);
    while (op != NULL) {
        struct rpc_op *next = op->next;

        op->done(op);
        op = next;
    }
}

static void dispatch(struct rpc *rpc, struct rpc_op *op)
{
    if (rpc->loop == NULL) {
        op->done(op);
    } else {
        hand_over(rpc, op);
    }
}

static void on_task(struct rpc_op *op)
{
    struct task *t = CONTAINER_OF(op, struct task, op);

    t->fn(t->arg);
    mem_free(&t);
}

/* Takes the tasks whose time has come, or all of them. */
static struct task *take_due(struct rpc *rpc, bool all)
{
    int64_t now = clock_mono_ms();
    struct task *first = NULL;
    struct task **end = &first;

    (void)pthread_mutex_lock(&rpc->mutex);
    first = rpc->tasks;
    while (*end != NULL && (all || (*end)->due_ms <= now)) {
        end = &(*end)->next;
    }
    rpc->tasks = *end;
    *end = NULL;
    __atomic_store_n(&rpc->due_ms, rpc->tasks == NULL ? INT64_MAX : rpc->tasks->due_ms,
                     __ATOMIC_RELAXED);
    (void)pthread_mutex_unlock(&rpc->mutex);
    return first;
}

static void run_tasks(struct rpc *rpc, bool all)
{
    struct task *t = take_due(rpc, all);

    while (t != NULL) {
        struct task *next = t->next;

        t->op.ok = true;
        dispatch(rpc, &t->op);
        t = next;
    }
}

static gpr_timespec wait_until(const struct rpc *rpc)
{
    int64_t due = __atomic_load_n(&rpc->due_ms, __ATOMIC_RELAXED);

    if (due == INT64_MAX) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(MAX(due - clock_mono_ms(), 0) + 1, GPR_TIMESPAN));
}

static void on_kick(struct rpc *rpc)
{
    (void)pthread_mutex_lock(&rpc->mutex);
    rpc->kicked = false;
    (void)pthread_mutex_unlock(&rpc->mutex);
}

static void *cq_main(void *arg)
{
    struct rpc *rpc = arg;

    for (;;) {
        grpc_event ev = grpc_completion_queue_next(rpc->cq, wait_until(rpc), NULL);
        struct rpc_op *op = ev.tag;

        if (ev.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        if (ev.type == GRPC_OP_COMPLETE) {
            TAG_BACK(op);
            op->ok = ev.success != 0;
            if (op == &rpc->kick_op) {
                on_kick(rpc);
            } else {
                dispatch(rpc, op);
            }
        }
        if (clock_mono_ms() >= __atomic_load_n(&rpc->due_ms, __ATOMIC_RELAXED)) {
            run_tasks(rpc, false);
        }
    }
}

struct rpc *rpc_new(struct loop *loop)
{
    struct rpc *rpc = MEM_NEW(struct rpc);
    sigset_t all;
    sigset_t before;

    rpc_core_up();
    rpc->cq = grpc_completion_queue_create_for_next(NULL);
    rpc->lame = grpc_lame_client_channel_create("kick", (grpc_status_code)LAME_STATUS, "kick");
    rpc->kick_call = grpc_channel_create_call(rpc->lame, NULL, 0, rpc->cq,
                                              grpc_slice_from_static_string("/kick"), NULL,
                                              gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    rpc->due_ms = INT64_MAX;
    rpc->loop = loop;
    rpc->done_tail = &rpc->done;
    (void)pthread_mutex_init(&rpc->mutex, NULL);
    if (loop != NULL) {
        rpc->wake = event_new(loop_base(loop), -1, EV_PERSIST, on_wake, rpc);
        CHECK(rpc->wake != NULL);
    }
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    CHECK(pthread_create(&rpc->thread, NULL, cq_main, rpc) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rpc;
}

void rpc_free(struct rpc **rpc)
{
    struct rpc *r = TAKE(*rpc);

    if (r == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&r->mutex);
    r->stopping = true;
    (void)pthread_mutex_unlock(&r->mutex);
    grpc_call_unref(r->kick_call);
    grpc_channel_destroy(r->lame);
    grpc_completion_queue_shutdown(r->cq);
    (void)pthread_join(r->thread, NULL);
    run_tasks(r, true);
    if (r->wake != NULL) {
        on_wake(-1, 0, r); /* what came back during the shutdown */
        event_free(r->wake);
    }
    grpc_completion_queue_destroy(r->cq);
    (void)pthread_mutex_destroy(&r->mutex);
    mem_free(&r);
    rpc_core_down();
}

void rpc_run(struct rpc *rpc, int64_t delay_ms, rpc_fn fn, void *arg)
{
    struct task *t = MEM_NEW(struct task);
    struct task **at = NULL;

    *t = (struct task){
        .op = { .done = on_task }, .due_ms = clock_mono_ms() + delay_ms, .fn = fn, .arg = arg
    };
    (void)pthread_mutex_lock(&rpc->mutex);
    CHECK(!rpc->stopping);
    at = &rpc->tasks;
    while (*at != NULL && (*at)->due_ms <= t->due_ms) {
        at = &(*at)->next;
    }
    t->next = *at;
    *at = t;
    __atomic_store_n(&rpc->due_ms, rpc->tasks->due_ms, __ATOMIC_RELAXED);
    if (rpc->tasks == t && !rpc->kicked && !pthread_equal(rpc->thread, pthread_self())) {
        rpc->kicked = true;
        rpc_start(rpc->kick_call, NULL, 0, &rpc->kick_op);
    }
    (void)pthread_mutex_unlock(&rpc->mutex);
}

struct sv rpc_message_bytes(grpc_byte_buffer *message, char **room)
{
    grpc_byte_buffer_reader reader;
    grpc_slice slice;
    struct sv bytes = { 0 };

    *room = NULL;
    if (SLICE_IS_SEEN && message->type == GRPC_BB_RAW &&
        message->data.raw.compression == GRPC_COMPRESS_NONE &&
        message->data.raw.slice_buffer.count == 1) {
        const grpc_slice *only = &message->data.raw.slice_buffer.slices[0];

        return sv_of(GRPC_SLICE_START_PTR(*only), GRPC_SLICE_LENGTH(*only));
    }
    CHECK(grpc_byte_buffer_reader_init(&reader, message) == 1);
    slice = grpc_byte_buffer_reader_readall(&reader);
    *room = mem_dup(GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
    bytes = sv_of(*room, GRPC_SLICE_LENGTH(slice));
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    return bytes;
}

grpc_byte_buffer *rpc_message_of(struct sv bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes.p == NULL ? "" : bytes.p, bytes.n);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return message;
}

enum rpc_status rpc_status_of(enum err err)
{
    switch (err) {
    case ERR_OK:
        return RPC_OK;
    case ERR_INVALID:
        return RPC_INVALID_ARGUMENT;
    case ERR_LIMIT:
        return RPC_RESOURCE_EXHAUSTED;
    case ERR_NOT_FOUND:
        return RPC_NOT_FOUND;
    case ERR_EXISTS:
        return RPC_ALREADY_EXISTS;
    case ERR_DENIED:
        return RPC_PERMISSION_DENIED;
    case ERR_EXPIRED:
    case ERR_CRYPTO:
        return RPC_UNAUTHENTICATED;
    case ERR_TIMEOUT:
        return RPC_DEADLINE_EXCEEDED;
    case ERR_UNAVAILABLE:
    case ERR_IO:
    case ERR_AGAIN:
        return RPC_UNAVAILABLE;
    case ERR_UNSUPPORTED:
        return RPC_UNIMPLEMENTED;
    case ERR_CANCELLED:
        return RPC_CANCELLED;
    case ERR_ABORTED:
        return RPC_ABORTED;
    case ERR_INTERNAL:
        return RPC_INTERNAL;
    }
    return RPC_UNKNOWN;
}
