#include "authorize/reply.h"

#include "common/mem.h"
#include "common/rpc/wire.h"

enum { FIELD_ITEMS = 1, FIELD_REPLY = 2 };

void authz_replies_init(struct authz_replies *r)
{
    buf_init(&r->out, AUTHZ_REPLY_MAX);
    buf_init(&r->one, AUTHZ_MESSAGE_MAX);
    r->blocks = NULL;
}

void authz_replies_deinit(struct authz_replies *r)
{
    buf_deinit(&r->out);
    buf_deinit(&r->one);
    authz_blocks_free(&r->blocks);
}

/* Texts of the replica and names of headers end with a NUL; protobuf-c wants char *, but reads. */
static char *wire_text(struct sv s)
{
    return base_unconst(s.n > 0 ? s.p : protobuf_c_empty_string);
}

/* --- packing ---------------------------------------------------------------------------------- */

/* A repeated field is its entries one after the other: no batch has to be built first. */
static void add_item(struct authz_replies *r, const Postern__ReplyItem *item)
{
    size_t n = protobuf_c_message_get_packed_size(&item->base);
    char *room = NULL;

    rpc_wire_add_head(&r->out, FIELD_ITEMS, n);
    room = buf_room(&r->out, n);
    if (room == NULL) {
        return; /* sticky: the stream is ended */
    }
    (void)protobuf_c_message_pack(&item->base, (uint8_t *)room);
    buf_grew(&r->out, n);
}

static void add_block(struct authz_replies *r, uint64_t number,
                      const struct authz_identity *identity)
{
    Postern__ReplyItem item = POSTERN__REPLY_ITEM__INIT;
    Postern__IdentityBlock block = POSTERN__IDENTITY_BLOCK__INIT;
    size_t n = identity->n_headers + identity->n_facts;
    Postern__IdentityBlock__Header *header = mem_array(n + 1, sizeof(*header));
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    Postern__IdentityBlock__Header **headers = mem_array(n + 1, sizeof(*headers));

    CHECK(identity->n_headers <= AUTHZ_BLOCK_HEADERS_MAX &&
          identity->n_facts <= AUTHZ_BLOCK_FACTS_MAX);
    for (size_t i = 0; i < n; i++) { /* facts stand behind the headers */
        authz_reply_header(&header[i], &identity->headers[i]);
        headers[i] = &header[i];
    }
    block.number = number;
    block.n_headers = identity->n_headers;
    block.headers = headers;
    block.n_facts = identity->n_facts;
    block.facts = headers + identity->n_headers;
    block.user = wire_text(identity->user);
    block.email = wire_text(identity->email);
    item.item_case = POSTERN__REPLY_ITEM__ITEM_BLOCK;
    item.block = &block;
    add_item(r, &item);
    mem_free(&header);
    mem_free(&headers);
}

void authz_reply_header(Postern__IdentityBlock__Header *out,
                        const struct authz_identity_header *header)
{
    *out = (Postern__IdentityBlock__Header)POSTERN__IDENTITY_BLOCK__HEADER__INIT;
    out->name = wire_text(header->name);
    out->value.data = base_unconst(header->value.p);
    out->value.len = header->value.n;
}

/* --- items ------------------------------------------------------------------------------------ */

static Postern__Decision wire_decision(enum authz_decision decision)
{
    switch (decision) {
    case AUTHZ_ALLOW:
        return POSTERN__DECISION__ALLOW;
    case AUTHZ_LOGIN:
        return POSTERN__DECISION__LOGIN;
    case AUTHZ_UNAVAILABLE:
        return POSTERN__DECISION__UNAVAILABLE;
    case AUTHZ_DENY:
        break;
    }
    return POSTERN__DECISION__DENY;
}

void authz_reply_fill(Postern__Reply *reply, struct authz_reply_room *room, uint64_t id,
                      const struct authz_outcome *o)
{
    policy_reason_set set = o->reasons;

    *reply = (Postern__Reply)POSTERN__REPLY__INIT;
    reply->id = id;
    reply->decision = wire_decision(o->decision);
    reply->status = o->status;
    for (enum policy_reason reason = policy_reason_next(&set); reason != POLICY_REASON_NONE;
         reason = policy_reason_next(&set)) {
        room->reasons[reply->n_reasons++] = reason;
    }
    reply->reasons = room->reasons;
    reply->valid_until_s = o->valid_until_s;
    if (o->effective != NULL) {
        reply->user = wire_text(authz_person_id(o->effective->person));
        reply->email = wire_text(authz_person_email(o->effective->person));
    }
}

/* The answer of every request: written at once. The numbers are those of proto/authorize.proto. */
static void add_reply(struct authz_replies *r, uint64_t id, const struct authz_outcome *o,
                      uint64_t block)
{
    enum { FIELDS = 8 };

    _Static_assert(POLICY_REASON_COUNT <= 0x80, "a reason is one byte of varint");
    policy_reason_set set = o->reasons;
    char reasons[AUTHZ_REASONS_MAX];
    size_t n_reasons = 0;
    struct sv user = { 0 };
    struct sv email = { 0 };
    char *room = NULL;
    char *at = NULL;

    for (enum policy_reason reason = policy_reason_next(&set); reason != POLICY_REASON_NONE;
         reason = policy_reason_next(&set)) {
        reasons[n_reasons++] = (char)reason;
    }
    if (o->effective != NULL && block == 0) { /* else they stand in the block */
        user = authz_person_id(o->effective->person);
        email = authz_person_email(o->effective->person);
    }
    buf_reset(&r->one);
    room = buf_room(&r->one, (size_t)FIELDS * RPC_WIRE_FIELD_MAX + n_reasons + user.n + email.n);
    if (room == NULL) {
        r->out.err = r->one.err;
        return;
    }
    at = rpc_wire_put_number(room, 1, id);
    at = rpc_wire_put_number(at, 2, wire_decision(o->decision));
    at = rpc_wire_put_number(at, 3, o->status);
    at = rpc_wire_put_bytes(at, 4, sv_of(reasons, n_reasons));
    at = rpc_wire_put_number(at, 5, block);
    at = rpc_wire_put_number(at, 6, (uint64_t)o->valid_until_s);
    at = rpc_wire_put_bytes(at, 7, user);
    at = rpc_wire_put_bytes(at, 8, email);
    buf_grew(&r->one, (size_t)(at - room));
    rpc_wire_add_head(&r->out, FIELD_ITEMS, rpc_wire_head_size(FIELD_REPLY, r->one.n) + r->one.n);
    rpc_wire_add_head(&r->out, FIELD_REPLY, r->one.n);
    buf_add_sv(&r->out, buf_sv(&r->one));
}

void authz_replies_add(struct authz_replies *r, uint64_t id, const struct authz_outcome *outcome)
{
    uint64_t block = 0;

    if (outcome->identity != NULL) {
        if (r->blocks == NULL) {
            r->blocks = authz_blocks_new();
        }
        block = authz_blocks_find(r->blocks, outcome->identity->serial);
        if (block == 0) {
            block = authz_blocks_add(r->blocks, outcome->identity->serial);
            add_block(r, block, outcome->identity);
        }
    }
    add_reply(r, id, outcome, block);
}

void authz_replies_changed(struct authz_replies *r, struct sv session_id)
{
    Postern__ReplyItem item = POSTERN__REPLY_ITEM__INIT;
    Postern__Changed changed = POSTERN__CHANGED__INIT;
    char *session = wire_text(session_id);

    if (session_id.n == 0) {
        changed.all = true;
    } else {
        changed.n_sessions = 1;
        changed.sessions = &session;
    }
    item.item_case = POSTERN__REPLY_ITEM__ITEM_CHANGED;
    item.changed = &changed;
    add_item(r, &item);
}

/* --- messages --------------------------------------------------------------------------------- */

/* Length of the item at p, its head included; it is one of ours, so it is whole. */
static size_t item_size(const char *p)
{
    uint64_t n = 0;
    size_t at = 1;
    unsigned shift = 0;

    for (;; at++, shift += 7) {
        n |= (uint64_t)((uint8_t)p[at] & 0x7fU) << shift;
        if (((uint8_t)p[at] & 0x80U) == 0) {
            return at + 1 + (size_t)n;
        }
    }
}

struct sv authz_replies_next(const struct authz_replies *r)
{
    size_t n = 0;

    if (r->out.n <= AUTHZ_MESSAGE_MAX) {
        return buf_sv(&r->out);
    }
    for (;;) {
        size_t more = item_size(r->out.p + n);

        if (n + more > AUTHZ_MESSAGE_MAX) {
            return sv_of(r->out.p, n);
        }
        n += more;
    }
}

void authz_replies_sent(struct authz_replies *r, size_t n)
{
    if (n == r->out.n) {
        buf_reset(&r->out);
    } else {
        buf_drop_front(&r->out, n);
    }
}
