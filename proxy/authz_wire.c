#include "proxy/authz_wire.h"

static struct sv bytes_of(const ProtobufCBinaryData *bytes)
{
    return sv_of(bytes->data, bytes->len);
}

/* Also where it is empty: that it is there says something. */
static void add_message(struct buf *out, uint32_t number, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    char *room = NULL;

    rpc_wire_add_head(out, number, n);
    room = buf_room(out, n);
    if (room != NULL) {
        buf_grew(out, protobuf_c_message_pack(message, (uint8_t *)room));
    }
}

/* The numbers are those of proto/authorize.proto, here and below. */
static char *put_fields(char *at, const Postern__CheckRequest *check, struct sv session,
                        struct sv idp_id)
{
    at = rpc_wire_put_number(at, 1, check->id);
    at = rpc_wire_put_fixed(at, 2, check->route);
    at = rpc_wire_put_bytes(at, 3, bytes_of(&check->request_id));
    at = rpc_wire_put_bytes(at, 4, session);
    at = rpc_wire_put_number(at, 5, check->record_version);
    at = rpc_wire_put_bytes(at, 6, idp_id);
    at = rpc_wire_put_bytes(at, 7, bytes_of(&check->method));
    at = rpc_wire_put_bytes(at, 8, bytes_of(&check->host));
    at = rpc_wire_put_bytes(at, 9, bytes_of(&check->path));
    at = rpc_wire_put_bytes(at, 10, bytes_of(&check->client_ip));
    at = rpc_wire_put_number(at, 11, check->cors_preflight != 0);
    at = rpc_wire_put_number(at, 12, check->recheck != 0);
    at = rpc_wire_put_number(at, 13, check->internal != 0);
    return rpc_wire_put_bytes(at, 14, bytes_of(&check->query));
}

void proxy_authz_wire_check(struct buf *out, const Postern__CheckRequest *check)
{
    enum { FIELDS = 14 };
    struct sv session = sv_from(check->session);
    struct sv idp_id = sv_from(check->idp_id);
    char *room = buf_room(out, (size_t)FIELDS * RPC_WIRE_FIELD_MAX + check->request_id.len +
                                   session.n + idp_id.n + check->method.len + check->host.len +
                                   check->path.len + check->client_ip.len + check->query.len);

    if (room == NULL) {
        return;
    }
    buf_grew(out, (size_t)(put_fields(room, check, session, idp_id) - room));
    if (check->client_certificate != NULL) {
        add_message(out, 15, &check->client_certificate->base);
    }
    for (size_t i = 0; i < check->n_headers; i++) {
        add_message(out, 16, &check->headers[i]->base);
    }
}

static void add_reason(struct rpc_wire *w, struct proxy_authz_reply *r, uint64_t v)
{
    if (r->n_reasons == PROXY_AUTHZ_REASONS_MAX) {
        rpc_wire_refuse(w);
        return;
    }
    r->reasons[r->n_reasons++] = (uint32_t)v;
}

/* Packed, as we write them, or one by one, as any protobuf may. */
static void take_reasons(struct rpc_wire *w, const struct rpc_wire_field *f,
                         struct proxy_authz_reply *r)
{
    struct rpc_wire list = rpc_wire_of(f->bytes);
    uint64_t v = 0;

    if (f->type == RPC_WIRE_VARINT) {
        add_reason(w, r, f->v);
        return;
    }
    (void)rpc_wire_bytes(w, f);
    while (w->err == ERR_OK && rpc_wire_packed(&list, &v)) {
        add_reason(w, r, v);
    }
    if (list.err != ERR_OK) {
        rpc_wire_refuse(w);
    }
}

static void take_field(struct rpc_wire *w, const struct rpc_wire_field *f,
                       struct proxy_authz_reply *r)
{
    switch (f->number) {
    case 1:
        r->id = rpc_wire_number(w, f);
        break;
    case 2:
        r->decision = rpc_wire_number(w, f);
        break;
    case 3:
        r->status = rpc_wire_number(w, f);
        break;
    case 4:
        take_reasons(w, f, r);
        break;
    case 5:
        r->block = rpc_wire_number(w, f);
        break;
    case 6:
        r->valid_until_s = (int64_t)rpc_wire_number(w, f);
        break;
    case 7:
        r->user = rpc_wire_text(w, f);
        break;
    case 8:
        r->email = rpc_wire_text(w, f);
        break;
    default: /* a newer authorize's */
        break;
    }
}

enum err proxy_authz_wire_reply(struct sv bytes, struct proxy_authz_reply *reply_out)
{
    struct rpc_wire w = rpc_wire_of(bytes);
    struct rpc_wire_field f;

    reply_out->n_reasons = 0;
    reply_out->id = 0;
    reply_out->decision = 0;
    reply_out->status = 0;
    reply_out->block = 0;
    reply_out->valid_until_s = 0;
    reply_out->user = (struct sv){ 0 };
    reply_out->email = (struct sv){ 0 };
    while (rpc_wire_next(&w, &f)) {
        take_field(&w, &f, reply_out);
    }
    return w.err;
}
