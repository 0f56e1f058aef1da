#include "proxy/exchange.h"

#include "common/clock.h"
#include "common/mem.h"
#include "proxy/access.h"
#include "proxy/app.h"
#include "proxy/bearer.h"
#include "proxy/client.h"
#include "proxy/forward.h"
#include "proxy/reply.h"

enum { REPLY_MS = 30000, SPARE_MAX = 256 };

/* ---- the pool -------------------------------------------------------------------------------- */

static struct proxy_exchange *take(struct proxy_worker *w)
{
    struct proxy_exchange *x = NULL;

    if (list_empty(&w->spare)) {
        x = MEM_NEW(struct proxy_exchange);
        arena_init(&x->arena);
        x->fields = mem_array(HTTP_FIELDS_DEFAULT, sizeof(*x->fields));
        return x;
    }
    x = LIST_ENTRY(w->spare.next, struct proxy_exchange, in_worker);
    list_remove(&x->in_worker);
    w->n_spare--;
    *x = (struct proxy_exchange){ .arena = x->arena,
                                  .fields = x->fields,
                                  .answer_fields = x->answer_fields };
    return x;
}

static void discard(struct proxy_exchange *x)
{
    arena_deinit(&x->arena);
    mem_free(&x->fields);
    mem_free(&x->answer_fields);
    mem_free(&x);
}

void proxy_exchange_pool_turn(struct proxy_worker *worker)
{
    while (!list_empty(&worker->spent)) {
        struct proxy_exchange *x = LIST_ENTRY(worker->spent.next, struct proxy_exchange, in_worker);

        list_remove(&x->in_worker);
        worker->n_spent--;
        if (worker->n_spare < SPARE_MAX) {
            arena_reset(&x->arena);
            list_push_front(&worker->spare, &x->in_worker);
            worker->n_spare++;
        } else {
            discard(x);
        }
    }
}

static void pool_turn(void *worker)
{
    proxy_exchange_pool_turn(worker);
}

void proxy_exchange_pool_free(struct proxy_worker *worker)
{
    proxy_exchange_pool_turn(worker);
    while (!list_empty(&worker->spare)) {
        struct proxy_exchange *x = LIST_ENTRY(worker->spare.next, struct proxy_exchange, in_worker);

        list_remove(&x->in_worker);
        discard(x);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

struct proxy_exchange *proxy_exchange_new(struct proxy_conn *conn)
{
    struct proxy_worker *w = conn->worker;
    struct proxy_exchange *x = take(w);
    const struct config *c = NULL;

    x->worker = w;
    x->conn = conn;
    x->phase = PROXY_HEAD;
    x->snapshot = proxy_snapshot_ref(w->snapshot);
    c = x->snapshot->config;
    http_head_init(&x->head, HTTP_REQUEST, &x->snapshot->head, x->fields, HTTP_FIELDS_DEFAULT);
    x->began_us = clock_mono_us();
    x->deadline_ms = c->timeout_read_ms == 0 ? INT64_MAX : x->began_us / 1000 + c->timeout_read_ms;
    x->total_ms = INT64_MAX;
    x->recheck_at_ms = INT64_MAX;
    list_push_back(&w->exchanges, &x->in_worker);
    return x;
}

bool proxy_exchange_is_raw(const struct proxy_exchange *x)
{
    return x->phase == PROXY_TUNNEL && x->head.method == HTTP_CONNECT;
}

void proxy_exchange_end(struct proxy_exchange *x)
{
    if (x->phase == PROXY_ENDED) {
        return;
    }
    if (x->up != NULL && proxy_exchange_is_raw(x) && !x->request_done) {
        proxy_io_cut(&x->up->io); /* RFC 9113 §8.5 */
    }
    if (x->request_id[0] != '\0' && x->snapshot->config->access_log) {
        proxy_access_line(x);
    }
    x->phase = PROXY_ENDED;
    proxy_authz_cancel(x->worker->authz, x->check);
    proxy_authz_cancel(x->worker->authz, x->recheck);
    if (x->redeem != NULL) {
        x->redeem->exchange = NULL;
        x->redeem = NULL;
    }
    proxy_bearer_leave(x);
    proxy_upstream_close(&x->up);
    proxy_h2_release(&x->server, NGHTTP2_CANCEL);
    proxy_h2_release(&x->stream, NGHTTP2_CANCEL);
    proxy_claim_end(&x->claim);
    proxy_identity_unref(&x->identity);
    proxy_snapshot_unref(&x->snapshot);
    list_remove(&x->in_worker);
    list_push_back(&x->worker->spent, &x->in_worker);
    /* They go back to the pool with the next flush, or when they are many. */
    if (++x->worker->n_spent == PROXY_SPENT_MAX) {
        loop_defer(x->worker->loop, pool_turn, x->worker);
    }
}

void proxy_exchange_abort(struct proxy_exchange *x)
{
    if (x->phase != PROXY_ENDED) {
        proxy_client_abort(x);
    }
}

void proxy_exchange_finish(struct proxy_exchange *x)
{
    proxy_client_finish(x);
}

void proxy_exchange_progress(struct proxy_exchange *x)
{
    x->deadline_ms = x->idle_ms == 0 ? INT64_MAX : clock_coarse_ms() + x->idle_ms;
}

void proxy_exchange_send(struct proxy_exchange *x)
{
    if (x->phase != PROXY_REPLY) {
        x->phase = PROXY_REPLY;
        x->idle_ms = REPLY_MS;
        x->total_ms = INT64_MAX;
        proxy_exchange_progress(x);
    }
    proxy_client_send(x);
}

bool proxy_exchange_stands_on_verdict(const struct proxy_exchange *x)
{
    return x->phase == PROXY_FORWARD || x->phase == PROXY_TUNNEL || x->phase == PROXY_CONNECT ||
           x->phase == PROXY_CHECK;
}

void proxy_exchange_tick(struct proxy_exchange *x, int64_t now_ms)
{
    if (x->recheck_at_ms <= now_ms && x->recheck == 0 &&
        (x->phase == PROXY_FORWARD || x->phase == PROXY_TUNNEL)) {
        x->recheck_at_ms = INT64_MAX;
        proxy_request_recheck(x);
    }
    if (now_ms < x->deadline_ms && now_ms < x->total_ms) {
        return;
    }
    if (x->phase == PROXY_HEAD) {
        rand_uuid(x->request_id);
        x->close_after = true;
        proxy_reply_fault(x, 408, "request-timeout");
    } else if (x->phase == PROXY_FORWARD) {
        proxy_forward_timeout(x);
    } else {
        proxy_exchange_abort(x);
    }
}
