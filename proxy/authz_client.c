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
