#include "proxy/authz_wire.h"

static void add_binary(struct buf *out, uint32_t number, const ProtobufCBinaryData *bytes)
{
    rpc_wire_add_bytes(out, number, sv_of(bytes->data, bytes->len));
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
void proxy_authz_wire_check(struct buf *out, const Postern__CheckRequest *check)
{
    rpc_wire_add_number(out, 1, check->id);
    rpc_wire_add_fixed(out, 2, check->route);
    add_binary(out, 3, &check->request_id);
    rpc_wire_add_bytes(out, 4, sv_from(check->session));
    rpc_wire_add_number(out, 5, check->record_version);
    rpc_wire_add_bytes(out, 6, sv_from(check->idp_id));
    add_binary(out, 7, &check->method);
    add_binary(out, 8, &check->host);
    add_binary(out, 9, &check->path);
    add_binary(out, 10, &check->client_ip);
    rpc_wire_add_number(out, 11, check->cors_preflight != 0);
    rpc_wire_add_number(out, 12, check->recheck != 0);
    rpc_wire_add_number(out, 13, check->internal != 0);
    add_binary(out, 14, &check->query);
    if (check->client_certificate != NULL) {
        add_message(out, 15, &check->client_certificate->base);
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
