#include "authorize/answer.h"

#include "common/audit/audit.h"
#include "common/clock.h"
#include "common/mem.h"

enum { TICK_MS = 100 };

struct authz_answers {
    struct authz_answers_opts opts;
    struct audit *audit;
    struct config *config; /* what is required, and which fields lines have */
    struct authz_hold hold;
    struct authz_replies scratch; /* of one answer that waits: without identities */
    bool urgent;                  /* somebody waits for a line that is not handed over */
    bool ticking;
    bool over;
    int news; /* atomic: word from the writer is on its way */
};

/* --- the unary answer ------------------------------------------------------------------------- */

struct unary {
    Postern__CheckAnswer answer;
    Postern__Reply reply;
    struct authz_reply_room room;
    char *names[AUTHZ_REASONS_MAX];
    Postern__IdentityBlock__Header header[AUTHZ_BLOCK_HEADERS_MAX];
    Postern__IdentityBlock__Header *headers[AUTHZ_BLOCK_HEADERS_MAX];
};

static void unary_fill(struct unary *u, uint64_t id, const struct authz_outcome *outcome)
{
    u->answer = (Postern__CheckAnswer)POSTERN__CHECK_ANSWER__INIT;
    authz_reply_fill(&u->reply, &u->room, id, outcome);
    for (size_t i = 0; i < u->reply.n_reasons; i++) {
        u->names[i] = base_unconst(policy_reason_name((enum policy_reason)u->reply.reasons[i]));
    }
    for (size_t i = 0; outcome->identity != NULL && i < outcome->identity->n_headers; i++) {
        authz_reply_header(&u->header[i], &outcome->identity->headers[i]);
        u->headers[i] = &u->header[i];
        u->answer.n_headers++;
    }
    u->answer.reply = &u->reply;
    u->answer.headers = u->headers;
    u->answer.n_reason_names = u->reply.n_reasons;
    u->answer.reason_names = u->names;
}

/* The packed answer of a call. */
static void pack(struct authz_to to, uint64_t id, const struct authz_outcome *outcome,
                 struct buf *out)
{
    struct unary u;
    char *room = NULL;

    if (to.foreign != NULL) {
        authz_foreign_answer(to.foreign, outcome, out);
        return;
    }
    unary_fill(&u, id, outcome);
    room = buf_room(out, protobuf_c_message_get_packed_size(&u.answer.base));
    CHECK(room != NULL);
    buf_grew(out, protobuf_c_message_pack(&u.answer.base, (uint8_t *)room));
}

static void answer_now(struct authz_answers *a, struct authz_to to, uint64_t id,
                       const struct authz_outcome *outcome)
{
    if (to.replies != NULL) {
        authz_replies_add(to.replies, id, outcome);
        return;
    }
    buf_reset(&a->scratch.out);
    pack(to, id, outcome, &a->scratch.out);
    rpc_call_reply_bytes(to.call, buf_sv(&a->scratch.out));
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void keep(struct authz_answers *a, struct authz_to to, uint64_t id, struct sv bytes,
                 uint64_t line)
{
    struct authz_held *h = authz_hold_add(&a->hold, bytes);

    h->stream = to.replies;
    h->call = to.call;
    h->foreign = authz_foreign_ref(to.foreign);
    h->id = id;
    h->line = line;
    h->since_ms = clock_coarse_ms();
    a->urgent = true;
}

/* The answer as it is now: what it borrows may be gone when it leaves. */
static void wait_for_line(struct authz_answers *a, struct authz_to to, uint64_t id,
                          const struct authz_outcome *outcome, uint64_t line)
{
    buf_reset(&a->scratch.out);
    if (to.replies != NULL) {
        authz_replies_add(&a->scratch, id, outcome);
    } else {
        pack(to, id, outcome, &a->scratch.out);
    }
    keep(a, to, id, buf_sv(&a->scratch.out), line);
}

static void let_out(struct authz_held *h)
{
    struct authz_replies *replies = h->stream;

    if (replies != NULL) {
        buf_add(&replies->out, h->bytes, h->n);
        return;
    }
    rpc_call_reply_bytes(h->call, sv_of(h->bytes, h->n));
}

static void release(struct authz_answers *a, struct authz_held *h, bool is_written)
{
    struct authz_to to = { .replies = h->stream, .call = h->call, .foreign = h->foreign };
    struct authz_outcome none = { .decision = AUTHZ_DENY };

    if (is_written) {
        let_out(h);
    } else {
        authz_check_unaudited(&none);
        answer_now(a, to, h->id, &none);
    }
    authz_foreign_unref(&h->foreign);
    authz_held_free(&a->hold, &h);
    if (to.replies != NULL) {
        a->opts.on_more(a->opts.arg, to.replies);
    }
}

static void release_due(struct authz_answers *a, bool all)
{
    uint64_t written = audit_written(a->audit);
    bool failing = all || !audit_works(a->audit);
    int64_t now_ms = clock_coarse_ms();
    struct authz_held *h = authz_hold_due(&a->hold, written, failing, now_ms);

    for (; h != NULL; h = authz_hold_due(&a->hold, written, failing, now_ms)) {
        release(a, h, h->line <= written);
    }
}

static void on_tick(void *arg)
{
    struct authz_answers *a = arg;

    a->ticking = false;
    if (a->over) {
        return;
    }
    release_due(a, false);
    if (a->hold.n != 0) {
        a->ticking = true;
        rpc_run(a->opts.rpc, TICK_MS, on_tick, a);
    }
}

static void take_news(void *arg)
{
    struct authz_answers *a = arg;

    __atomic_store_n(&a->news, 0, __ATOMIC_RELEASE);
    if (!a->over) {
        release_due(a, false);
    }
}

/* On the writer's thread. */
static void on_news(void *arg)
{
    struct authz_answers *a = arg;

    if (__atomic_exchange_n(&a->news, 1, __ATOMIC_ACQ_REL) == 0) {
        rpc_run(a->opts.rpc, 0, take_news, a);
    }
}

/* --- giving ----------------------------------------------------------------------------------- */

/* Whether it may not be answered without its line. */
static bool needs_line(const struct authz_answers *a, const Postern__CheckRequest *req,
                       enum authz_decision decision)
{
    switch (a->config->audit.required) {
    case CONFIG_AUDIT_DENIALS:
        return decision != AUTHZ_ALLOW && !req->recheck;
    case CONFIG_AUDIT_ALL:
        return !req->recheck;
    case CONFIG_AUDIT_NONE:
        break;
    }
    return false;
}

void authz_answers_give(struct authz_answers *a, struct authz_to to,
                        const Postern__CheckRequest *req, struct authz_outcome *outcome,
                        int64_t wall_ms)
{
    bool needed = needs_line(a, req, outcome->decision);
    uint64_t line = 0;

    if (needed && (a->over || !audit_works(a->audit) || a->hold.n >= AUTHZ_HOLD_MAX)) {
        authz_check_unaudited(outcome);
    }
    authz_audit_line(audit_line(a->audit), req, outcome, wall_ms, &a->config->authorize_log_fields);
    line = audit_added(a->audit);
    if (needed && (outcome->decision == AUTHZ_DENY || outcome->decision == AUTHZ_LOGIN) &&
        audit_confirms(a->audit)) {
        wait_for_line(a, to, req->id, outcome, line);
        return;
    }
    answer_now(a, to, req->id, outcome);
}

void authz_answers_refused(struct authz_answers *a, const struct rpc_refusal *refusal)
{
    if (a->audit != NULL) {
        rpc_refusal_line(refusal, clock_wall_ms(), audit_line(a->audit));
        (void)audit_added(a->audit);
        (void)audit_flush(a->audit, false);
    }
}

void authz_answers_flush(struct authz_answers *a)
{
    bool urgent = a->urgent;

    if (a->audit == NULL) {
        return; /* stopped */
    }
    a->urgent = false;
    (void)audit_flush(a->audit, urgent); /* what somebody waits for found room before */
    if (urgent && !a->ticking && !a->over) {
        a->ticking = true;
        rpc_run(a->opts.rpc, TICK_MS, on_tick, a);
    }
}

void authz_answers_forget(struct authz_answers *a, const struct authz_replies *replies)
{
    authz_hold_forget(&a->hold, replies);
}

void authz_answers_give_up(struct authz_answers *a)
{
    release_due(a, true);
    a->over = true;
}

void authz_answers_follow(struct authz_answers *a, const struct config *config)
{
    config_unref(&a->config);
    a->config = config_ref(config);
}

enum err authz_answers_set(struct authz_answers *a, const struct config *config, struct diag *d)
{
    return audit_set(a->audit, config, d);
}

enum err authz_answers_new(const struct authz_answers_opts *opts,
                           struct authz_answers **answers_out, struct diag *d)
{
    struct authz_answers *a = MEM_NEW(struct authz_answers);
    const struct audit_opts audit = { .config = opts->config,
                                      .on_news = on_news,
                                      .arg = a,
                                      .on_works = opts->ready == NULL ? NULL : audit_ready_works,
                                      .works_arg = opts->ready };
    enum err err = ERR_OK;

    a->opts = *opts;
    a->config = config_ref(opts->config);
    authz_hold_init(&a->hold);
    authz_replies_init(&a->scratch);
    err = audit_new(&audit, &a->audit, d);
    if (err != ERR_OK) {
        authz_answers_free(&a);
        return err;
    }
    *answers_out = a;
    return ERR_OK;
}

void authz_answers_stop(struct authz_answers *a)
{
    audit_free(&a->audit);
}

void authz_answers_free(struct authz_answers **answers)
{
    struct authz_answers *a = TAKE(*answers);

    if (a == NULL) {
        return;
    }
    audit_free(&a->audit);
    authz_replies_deinit(&a->scratch);
    config_unref(&a->config);
    mem_free(&a);
}
