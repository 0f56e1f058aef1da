#include "proxy/authz_client.h"

#include <string.h>

#include "authorize.pb-c.h"
#include "common/clock.h"
#include "common/http/name.h"
#include "common/mem.h"
#include "common/policy/reason.h"
#include "common/rpc/identity.h"
#include "common/rpc/scan.h"
#include "proxy/authz_link.h"

enum {
    OPEN_MAX = 8192,    /* checks of a worker; more are answered 503 at once */
    GRACE_MS = 500,     /* without any stream a check waits this long for one */
    TRIES_MAX = 3,      /* streams a check may lose */
    PACKED_MAX = 131072 /* one check: head limits keep it below */
};

struct slot {
    struct proxy_check *check;
    uint32_t generation;
};

struct proxy_authz {
    struct proxy_authz_opts opts;
    struct config *config;
    struct proxy_link **links;
    size_t n_links;
    size_t next; /* round robin */
    size_t n_up;
    struct list waiting; /* for a stream */
    struct slot *slots;
    size_t n_slots;
    uint32_t *free_slots;
    size_t n_free;
    struct arena arena; /* of the message that is being read */
    uint8_t *packed;
};

struct proxy_block *proxy_block_ref(struct proxy_block *block)
{
    block->refs++;
    return block;
}

void proxy_block_unref(struct proxy_block **block)
{
    struct proxy_block *b = TAKE(*block);

    if (b != NULL && --b->refs == 0) {
        mem_free(&b);
    }
}

/* --- the table of blocks -------------------------------------------------------------------------- */

enum err proxy_blocktable_put(struct proxy_blocktable *table, struct proxy_block *block)
{
    struct proxy_block **slot = NULL;

    if (block->number != table->last + 1) {
        return ERR_INVALID;
    }
    if (table->slots == NULL) {
        table->slots = mem_array(AUTHZ_BLOCK_SLOTS, sizeof(struct proxy_block *));
    }
    slot = &table->slots[authz_block_slot(block->number)];
    proxy_block_unref(slot);
    *slot = block;
    table->last = block->number;
    return ERR_OK;
}

struct proxy_block *proxy_blocktable_get(const struct proxy_blocktable *table, uint64_t number)
{
    struct proxy_block *b = NULL;

    if (table->slots == NULL || number == 0) {
        return NULL;
    }
    b = table->slots[authz_block_slot(number)];
    return b != NULL && b->number == number ? b : NULL;
}

void proxy_blocktable_clear(struct proxy_blocktable *table)
{
    size_t i = 0;

    for (i = 0; table->slots != NULL && i < AUTHZ_BLOCK_SLOTS; i++) {
        proxy_block_unref(&table->slots[i]);
    }
    table->last = 0;
}

/* --- open checks ---------------------------------------------------------------------------------- */

static void slots_grow(struct proxy_authz *a)
{
    size_t n = a->n_slots == 0 ? 64 : a->n_slots * 2;
    size_t i = 0;

    a->slots = mem_realloc(a->slots, n, sizeof(*a->slots));
    a->free_slots = mem_realloc(a->free_slots, n, sizeof(*a->free_slots));
    for (i = n; i-- > a->n_slots;) {
        a->slots[i] = (struct slot){ 0 };
        a->free_slots[a->n_free++] = (uint32_t)i;
    }
    a->n_slots = n;
}

static void check_open(struct proxy_authz *a, struct proxy_check *check)
{
    uint32_t i = 0;

    if (a->n_free == 0) {
        slots_grow(a);
    }
    i = a->free_slots[--a->n_free];
    a->slots[i].check = check;
    a->slots[i].generation++;
    check->id = ((uint64_t)a->slots[i].generation << 32U) | (i + 1U);
}

static struct proxy_check *check_by_id(const struct proxy_authz *a, uint64_t id)
{
    uint32_t i = (uint32_t)id;

    if (i == 0 || i > a->n_slots || a->slots[i - 1].check == NULL ||
        a->slots[i - 1].check->id != id) {
        return NULL;
    }
    return a->slots[i - 1].check;
}

static void check_close(struct proxy_check *check)
{
    struct proxy_authz *a = check->authz;
    uint32_t i = (uint32_t)check->id - 1U;

    a->slots[i].check = NULL;
    a->free_slots[a->n_free++] = i;
    check->id = 0;
    list_remove(&check->node);
    proxy_timer_clear(&check->timer);
}

static void check_fail(struct proxy_check *check, enum policy_reason reason)
{
    const struct proxy_verdict v = { .decision = PROXY_UNAVAILABLE,
                                     .status = 503,
                                     .reasons = 1ULL << (unsigned)reason };

    check_close(check);
    check->done(check, &v);
}

static void on_check_timer(struct proxy_timer *timer)
{
    struct proxy_check *check = CONTAINER_OF(timer, struct proxy_check, timer);

    check_fail(check, check->authz->n_up == 0 ? POLICY_REASON_AUTHORIZE_UNAVAILABLE
                                              : POLICY_REASON_AUTHORIZE_TIMEOUT);
}

/* --- sending -------------------------------------------------------------------------------------- */

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = (uint8_t *)(uintptr_t)s.p };
}

static struct sv check_pack(struct proxy_authz *a, const struct proxy_check *check)
{
    Postern__CheckRequest m = POSTERN__CHECK_REQUEST__INIT;
    size_t n = 0;

    m.id = check->id;
    m.route = check->route;
    m.request_id = bytes_of(check->request_id);
    m.session = (char *)(uintptr_t)check->session;
    m.record_version = check->record_version;
    m.idp_id = (char *)(uintptr_t)check->idp_id;
    m.method = bytes_of(check->method);
    m.host = bytes_of(check->host);
    m.path = bytes_of(check->path);
    m.client_ip = bytes_of(check->client_ip);
    m.cors_preflight = check->cors_preflight;
    m.recheck = check->recheck;
    m.internal = check->internal;
    m.query = bytes_of(check->query);
    n = postern__check_request__get_packed_size(&m);
    if (n > PACKED_MAX) {
        return sv_of(NULL, 0);
    }
    return sv_of(a->packed, postern__check_request__pack(&m, a->packed));
}

static struct proxy_link *pick(struct proxy_authz *a)
{
    size_t i = 0;

    for (i = 0; i < a->n_links; i++) {
        struct proxy_link *link = a->links[(a->next + i) % a->n_links];

        if (proxy_link_is_up(link)) {
            a->next = (a->next + i + 1) % a->n_links;
            return link;
        }
    }
    return NULL;
}

static bool check_send(struct proxy_authz *a, struct proxy_check *check)
{
    struct proxy_link *link = pick(a);
    struct sv packed = { 0 };

    if (link == NULL) {
        return false;
    }
    packed = check_pack(a, check);
    if (packed.n == 0 || proxy_link_add(link, packed) != ERR_OK) {
        return false;
    }
    list_remove(&check->node);
    list_push_back(proxy_link_sent(link), &check->node);
    check->tries++;
    return true;
}

void proxy_authz_submit(struct proxy_authz *authz, struct proxy_check *check)
{
    int64_t now = clock_mono_ms();
    int64_t wait = authz->config->authorize_timeout_ms;

    CHECK(check->id == 0);
    check->authz = authz;
    check->tries = 0;
    list_init(&check->node);
    proxy_timer_init(&check->timer, on_check_timer);
    check_open(authz, check);
    if (authz->n_slots - authz->n_free > OPEN_MAX) {
        wait = 0; /* over the bound: the next tick refuses it, never from here */
    } else if (!check_send(authz, check)) {
        wait = MIN(wait, (int64_t)GRACE_MS);
    }
    if (list_empty(&check->node)) {
        list_push_back(&authz->waiting, &check->node);
    }
    proxy_timer_set(authz->opts.wheel, &check->timer, now + wait);
}

void proxy_authz_cancel(struct proxy_check *check)
{
    if (check->id != 0) {
        check_close(check);
    }
    buf_add_char(&a->pending, (char)n);
    buf_add_sv(&a->pending, buf_sv(&s->packed));
    s->sent = true;
}

uint64_t proxy_authz_check(struct proxy_authz *authz, Postern__CheckRequest *check,
                           proxy_answer_fn fn, void *arg)
{
    uint32_t i = slot_take(authz);
    struct slot *s = NULL;
    size_t n = 0;
    char *room = NULL;

    if (i == NONE) {
        return 0;
    }
    s = &authz->slots[i];
    check->id = slot_id(authz, i);
    s->fn = fn;
    s->arg = arg;
    s->deadline_ms = clock_mono_ms() + authz->opts.timeout_ms;
    n = protobuf_c_message_get_packed_size(&check->base);
    buf_reset(&s->packed);
    room = buf_room(&s->packed, n);
    if (room == NULL || authz->pending.n + n + 16 > PENDING_MAX) {
        slot_release(authz, i);
        return 0;
    }
    buf_grew(&s->packed, protobuf_c_message_pack(&check->base, (uint8_t *)room));
    if (authz->state == LINK_UP) {
        queue_check(authz, s);
    }
    return check->id;
}

void proxy_authz_cancel(struct proxy_authz *authz, uint64_t handle)
{
    struct slot *s = slot_of(authz, handle);

    if (s != NULL) {
        slot_release(authz, (uint32_t)(s - authz->slots));
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void take_reply(struct proxy_authz *a, const Postern__Reply *reply)
{
    static const enum proxy_verdict verdicts[] = {
        [POSTERN__DECISION__DENY] = PROXY_VERDICT_DENY,
        [POSTERN__DECISION__ALLOW] = PROXY_VERDICT_ALLOW,
        [POSTERN__DECISION__LOGIN] = PROXY_VERDICT_LOGIN,
        [POSTERN__DECISION__UNAVAILABLE] = PROXY_VERDICT_UNAVAILABLE,
    };
    struct slot *s = slot_of(a, reply->id);
    struct proxy_answer answer = { .verdict = PROXY_VERDICT_NONE };

    if (s == NULL) {
        return; /* cancelled or too late */
    }
    if ((unsigned)reply->decision < ARRAY_LEN(verdicts)) {
        answer.verdict = verdicts[reply->decision];
    }
    answer.status = reply->status >= 400 && reply->status <= 599 ? reply->status : 0;
    answer.reasons = reply->reasons;
    answer.n_reasons = reply->n_reasons;
    answer.valid_until_s = reply->valid_until_s;
    answer.user = sv_from(reply->user);
    answer.email = sv_from(reply->email);
    if (answer.verdict == PROXY_VERDICT_ALLOW && reply->block != 0) {
        size_t slot = authz_block_slot(reply->block);

        if (a->blocks[slot].number != reply->block) {
            a->broken = true; /* an identity that is not there must not become another one */
            answer.verdict = PROXY_VERDICT_NONE;
        } else {
            answer.identity = a->blocks[slot].identity;
            answer.identity->refs++;
        }
    }
    slot_answer(a, s, &answer);
}

static void take_changed(struct proxy_authz *a, const Postern__Changed *changed)
{
    struct sv *sessions = arena_alloc(&a->arena, (changed->n_sessions + 1) * sizeof(*sessions));
    size_t i = 0;

    for (i = 0; i < changed->n_sessions; i++) {
        sessions[i] = sv_from(changed->sessions[i]);
    }
    a->opts.on_changed(a->opts.arg, sessions, changed->n_sessions, changed->all != 0);
}

static void take_message(struct proxy_authz *a, struct sv bytes)
{
    ProtobufCMessage *message = NULL;
    const Postern__ReplyBatch *batch = NULL;
    size_t i = 0;

    arena_reset(&a->arena);
    if (rpc_unpack(&postern__reply_batch__descriptor, bytes, &a->arena, &message) != ERR_OK) {
        a->broken = true;
        return;
    }
    batch = (const Postern__ReplyBatch *)(const void *)message;
    for (i = 0; i < batch->n_items && !a->broken; i++) {
        const Postern__ReplyItem *item = batch->items[i];

        if (item->item_case == POSTERN__REPLY_ITEM__ITEM_REPLY) {
            take_reply(a, item->reply);
        } else if (item->item_case == POSTERN__REPLY_ITEM__ITEM_BLOCK) {
            take_block(a, item->block);
        } else if (item->item_case == POSTERN__REPLY_ITEM__ITEM_CHANGED) {
            take_changed(a, item->changed);
        }
    }
}

static void take_frames(struct proxy_authz *a)
{
    size_t at = 0;

    while (!a->broken && a->in.n - at >= FRAME_HEAD) {
        const unsigned char *p = (const unsigned char *)a->in.p + at;
        size_t n = (size_t)p[1] << 24U | (size_t)p[2] << 16U | (size_t)p[3] << 8U | p[4];

        if (p[0] != 0 || n > AUTHZ_MESSAGE_MAX) { /* compressed: we never asked for it */
            a->broken = true;
            return;
        }
        if (a->in.n - at - FRAME_HEAD < n) {
            break;
        }
        take_message(a, sv_of(p + FRAME_HEAD, n));
        at += FRAME_HEAD + n;
    }
    buf_drop_front(&a->in, at);
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *p, size_t n,
                   void *arg)
{
    struct proxy_authz *a = arg;

    (void)h2;
    (void)flags;
    if (stream == a->stream) {
        buf_add(&a->in, p, n);
        a->broken = a->broken || a->in.err != ERR_OK;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream, uint32_t code, void *arg)
{
    struct proxy_authz *a = arg;

    (void)h2;
    (void)code;
    if (stream == a->stream) {
        a->broken = true;
    }
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct proxy_authz *a = arg;

    (void)h2;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        a->broken = true;
    }
    return 0;
}

static ssize_t read_sending(nghttp2_session *h2, int32_t stream, uint8_t *p, size_t room,
                            uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct proxy_authz *a = arg;
    size_t n = MIN(room, a->sending.n - a->sending_at);

    (void)h2;
    (void)stream;
    (void)flags;
    (void)source;
    if (n == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    memcpy(p, a->sending.p + a->sending_at, n);
    a->sending_at += n;
    return (ssize_t)n;
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name,
                         .value = (uint8_t *)(uintptr_t)value,
                         .namelen = strlen(name),
                         .valuelen = strlen(value) };
}

static void open_stream(struct proxy_authz *a)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
    };
    nghttp2_nv head[] = { field(":method", "POST"),
                          field(":scheme", "https"),
                          field(":path", "/postern.Authorize/CheckStream"),
                          field(":authority", "authorize.postern.internal"),
                          field("te", "trailers"),
                          field("content-type", "application/grpc"),
                          field("user-agent", "postern-proxy") };
    nghttp2_data_provider body = { .read_callback = read_sending };

    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    CHECK(nghttp2_session_client_new(&a->h2, callbacks, a) == 0);
    nghttp2_session_callbacks_del(callbacks);
    CHECK(nghttp2_submit_settings(a->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0);
    CHECK(nghttp2_session_set_local_window_size(a->h2, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0);
    a->stream = nghttp2_submit_request(a->h2, NULL, head, ARRAY_LEN(head), &body, NULL);
    CHECK(a->stream > 0);
}

/* ---- the link -------------------------------------------------------------------------------- */

static void link_drop(struct proxy_authz *a, const char *why)
{
    if (a->state == LINK_UP) {
        a->opts.on_link(a->opts.arg, false);
    }
    if (a->state == LINK_UP || !a->warned) {
        log_warn("authorize.lost", KV_STR("target", a->target), KV_STR("why", why));
        a->warned = true;
    }
    if (a->readable != NULL) {
        event_free(a->readable);
        event_free(a->writable);
        a->readable = NULL;
        a->writable = NULL;
    }
    proxy_io_close(&a->io);
    nghttp2_session_del(a->h2);
    a->h2 = NULL;
    buf_reset(&a->pending);
    buf_reset(&a->sending);
    a->sending_at = 0;
    buf_reset(&a->wire);
    a->wire_at = 0;
    buf_reset(&a->in);
    drop_blocks(a);
    a->broken = false;
    a->state = LINK_DOWN;
    a->retry_ms = a->retry_ms == 0 ? RETRY_FIRST_MS : MIN(a->retry_ms * 2, (int64_t)RETRY_MAX_MS);
    a->retry_at_ms = clock_mono_ms() + a->retry_ms / 2 + (int64_t)rand_below((uint64_t)a->retry_ms);
}

static void want_write(struct proxy_authz *a, bool wanted)
{
    if (wanted) {
        (void)event_add(a->writable, NULL);
    } else {
        (void)event_del(a->writable);
    }
}

/* Gives the socket what nghttp2 has, until one of them has enough. False: the link is lost. */
static bool push_wire(struct proxy_authz *a)
{
    char scratch[16]; /* one piece only: never joined */

    for (;;) {
        const uint8_t *p = NULL;
        ssize_t got = 0;
        size_t n = 0;
        struct iovec v;
        enum proxy_io_result result = PROXY_IO_FAILED;

        while (a->wire.n - a->wire_at < PROXY_IO_SCRATCH) {
            got = nghttp2_session_mem_send(a->h2, &p);
            if (got <= 0) {
                break;
            }
            buf_add(&a->wire, p, (size_t)got);
        }
        if (got < 0 || a->wire.err != ERR_OK) {
            return false;
        }
        if (a->wire.n == a->wire_at) {
            buf_reset(&a->wire);
            a->wire_at = 0;
            want_write(a, false);
            return true;
        }
        v = (struct iovec){ .iov_base = a->wire.p + a->wire_at, .iov_len = a->wire.n - a->wire_at };
        result = proxy_io_write(&a->io, &v, 1, scratch, &n);
        if (result == PROXY_IO_AGAIN) {
            want_write(a, true);
            return true;
        }
        if (result != PROXY_IO_DONE) {
            return false;
        }
        a->wire_at += n;
    }
}

/* Everything that waits becomes one message, unless one is still on its way. */
static void send_pending(struct proxy_authz *a)
{
    size_t n = a->pending.n;

    if (n == 0 || a->sending_at < a->sending.n || a->wire_at < a->wire.n) {
        return;
    }
    buf_reset(&a->sending);
    a->sending_at = 0;
    buf_add_char(&a->sending, 0);
    buf_add_char(&a->sending, (char)(n >> 24U));
    buf_add_char(&a->sending, (char)(n >> 16U));
    buf_add_char(&a->sending, (char)(n >> 8U));
    buf_add_char(&a->sending, (char)n);
    buf_add_sv(&a->sending, buf_sv(&a->pending));
    buf_reset(&a->pending);
    (void)nghttp2_session_resume_data(a->h2, a->stream);
}

void proxy_authz_flush(struct proxy_authz *authz)
{
    size_t i = 0;

    for (i = 0; i < authz->n_links; i++) {
        proxy_link_flush(authz->links[i]);
    }
}

bool proxy_authz_is_up(const struct proxy_authz *authz)
{
    return authz->n_up > 0;
}

/* --- replies -------------------------------------------------------------------------------------- */

static uint64_t reasons_of(const Postern__Reply *m)
{
    uint64_t set = 0;
    size_t i = 0;

    for (i = 0; i < m->n_reasons; i++) {
        if (m->reasons[i] > 0 && m->reasons[i] < 64) {
            set |= 1ULL << m->reasons[i];
        }
    }
    return set;
}

/* ALLOW comes from nowhere but here. */
static enum proxy_decision decision_of(const Postern__Reply *m)
{
    switch (m->decision) {
    case POSTERN__DECISION__ALLOW:
        return PROXY_ALLOW;
    case POSTERN__DECISION__LOGIN:
        return PROXY_LOGIN;
    case POSTERN__DECISION__DENY:
        return PROXY_DENY;
    case POSTERN__DECISION__UNAVAILABLE:
    case _POSTERN__DECISION_IS_INT_SIZE:
    default:
        return PROXY_UNAVAILABLE;
    }
    send_pending(a);
    if (!push_wire(a)) {
        link_drop(a, "write failed");
        return;
    }
    a->opts.on_link(a->opts.arg, true);
    a->opts.on_changed(a->opts.arg, NULL, 0, true); /* what was told meanwhile was missed */
}

static enum err take_reply(struct proxy_authz *a, struct proxy_link *link, const Postern__Reply *m)
{
    struct proxy_check *check = check_by_id(a, m->id);
    struct proxy_verdict v = { .decision = decision_of(m),
                               .status = m->status,
                               .reasons = reasons_of(m),
                               .valid_until_s = m->valid_until_s,
                               .user = sv_from(m->user),
                               .email = sv_from(m->email) };

    if (m->block != 0) {
        v.block = proxy_blocktable_get(proxy_link_blocks(link), m->block);
        if (v.block == NULL) {
            return ERR_INVALID;
        }
    }
    if (check == NULL) {
        return ERR_OK; /* it timed out, or its client left */
    }
    check_close(check);
    check->done(check, &v);
    return ERR_OK;
}

static size_t block_size(const Postern__IdentityBlock *m)
{
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < m->n_headers; i++) {
        struct sv name = sv_from(m->headers[i]->name);
        struct sv value = sv_of(m->headers[i]->value.data, m->headers[i]->value.len);

        if (!http_is_token(name) || (value.n != 0 && !http_is_value(value))) {
            return SIZE_MAX;
        }
        n += name.n + value.n + 4;
    }
    return n;
}

static enum err take_block(struct proxy_link *link, const Postern__IdentityBlock *m)
{
    size_t n = block_size(m);
    struct proxy_block *b = NULL;
    size_t i = 0;
    char *p = NULL;
    enum err err = ERR_OK;

    if (n > (size_t)AUTHZ_BLOCK_MAX * 2 || m->n_headers > AUTHZ_BLOCK_HEADERS_MAX) {
        return ERR_INVALID;
    }
    b = mem_alloc(sizeof(*b) + n);
    *b = (struct proxy_block){ .number = m->number, .refs = 1, .n = (uint32_t)n };
    p = b->text;
    for (i = 0; i < m->n_headers; i++) {
        size_t name_n = strlen(m->headers[i]->name);

        memcpy(p, m->headers[i]->name, name_n);
        memcpy(p + name_n, ": ", 2);
        p += name_n + 2;
        if (m->headers[i]->value.len != 0) {
            memcpy(p, m->headers[i]->value.data, m->headers[i]->value.len);
        }
        p += m->headers[i]->value.len;
        memcpy(p, "\r\n", 2);
        p += 2;
    }
    err = proxy_blocktable_put(proxy_link_blocks(link), b);
    if (err != ERR_OK) {
        proxy_block_unref(&b);
    }
    return err;
}

static enum err take_item(struct proxy_authz *a, struct proxy_link *link,
                          const Postern__ReplyItem *item)
{
    switch (item->item_case) {
    case POSTERN__REPLY_ITEM__ITEM_BLOCK:
        return take_block(link, item->block);
    case POSTERN__REPLY_ITEM__ITEM_REPLY:
        return take_reply(a, link, item->reply);
    case POSTERN__REPLY_ITEM__ITEM_CHANGED:
        if (item->changed->all || item->changed->n_sessions > 0) {
            a->opts.changed(a->opts.arg, item->changed->sessions,
                            item->changed->all ? 0 : item->changed->n_sessions);
        }
        return ERR_OK;
    case POSTERN__REPLY_ITEM__ITEM__NOT_SET:
    case _POSTERN__REPLY_ITEM__ITEM__CASE_IS_INT_SIZE:
    default:
        return ERR_OK; /* something newer than this proxy */
    }
}

static enum err on_message(void *arg, struct proxy_link *link, struct sv bytes)
{
    struct proxy_authz *a = arg;
    ProtobufCMessage *message = NULL;
    const Postern__ReplyBatch *batch = NULL;
    size_t i = 0;
    enum err err = rpc_unpack(&postern__reply_batch__descriptor, bytes, &a->arena, &message);

    batch = (const Postern__ReplyBatch *)message;
    for (i = 0; err == ERR_OK && i < batch->n_items; i++) {
        err = take_item(a, link, batch->items[i]);
    }
    arena_reset(&a->arena);
    return err;
}

/* --- streams come and go -------------------------------------------------------------------------- */

static void resend(struct proxy_authz *a, struct list *from)
{
    struct list moving;

    list_init(&moving);
    while (!list_empty(from)) {
        struct list *node = from->next;

        list_remove(node);
        list_push_back(&moving, node);
    }
    while (!list_empty(&moving)) {
        struct proxy_check *check = LIST_ENTRY(moving.next, struct proxy_check, node);

        list_remove(&check->node);
        if (check->tries < TRIES_MAX && check_send(a, check)) {
            continue;
        }
        list_push_back(&a->waiting, &check->node);
        proxy_timer_set(a->opts.wheel, &check->timer,
                        MIN(check->timer.due_ms, clock_mono_ms() + GRACE_MS));
    }
}

static void on_state(void *arg, struct proxy_link *link, bool up)
{
    struct proxy_authz *a = arg;
    size_t was = a->n_up;
    size_t i = 0;

    a->n_up = 0;
    for (i = 0; i < a->n_links; i++) {
        a->n_up += proxy_link_is_up(a->links[i]) ? 1 : 0;
    }
    if (up) {
        resend(a, &a->waiting);
        /* What changed while there was no stream was told to nobody. */
        a->opts.changed(a->opts.arg, NULL, 0);
    } else {
        resend(a, proxy_link_sent(link));
    }
    if ((was == 0) != (a->n_up == 0)) {
        a->opts.up(a->opts.arg, a->n_up != 0);
    }
}

struct proxy_authz *proxy_authz_new(const struct proxy_authz_opts *opts)
{
    struct proxy_authz *a = MEM_NEW(struct proxy_authz);
    size_t i = 0;

    a->opts = *opts;
    a->config = config_ref(opts->config);
    a->packed = mem_alloc(PACKED_MAX);
    arena_init(&a->arena);
    list_init(&a->waiting);
    a->links = mem_array(a->config->authorize.n, sizeof(struct proxy_link *));
    for (i = 0; i < a->config->authorize.n; i++) {
        const struct proxy_link_opts link = { .loop = opts->loop,
                                              .wheel = opts->wheel,
                                              .target = &a->config->authorize.v[i],
                                              .insecure = a->config->grpc_insecure,
                                              .identity = opts->identity,
                                              .on_state = on_state,
                                              .on_message = on_message,
                                              .arg = a };

        a->links[i] = proxy_link_new(&link);
        a->n_links++;
    }
    return a;
}

void proxy_authz_free(struct proxy_authz **authz)
{
    struct proxy_authz *a = TAKE(*authz);
    size_t i = 0;

    if (a == NULL) {
        return;
    }
    for (i = 0; i < a->n_slots; i++) {
        if (a->slots[i].check != NULL) {
            check_close(a->slots[i].check);
        }
    }
    for (i = 0; i < a->n_links; i++) {
        proxy_link_free(&a->links[i]);
    }
    mem_free(&a->links);
    mem_free(&a->slots);
    mem_free(&a->free_slots);
    mem_free(&a->packed);
    arena_deinit(&a->arena);
    config_unref(&a->config);
    mem_free(&a);
}
