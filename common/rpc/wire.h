/* rpc_wire: protobuf's wire form, field by field, for the messages of every request (CheckBatch,
 * ReplyBatch): to build and to free a message costs more there than the check. All others go through
 * rpc_unpack. Nothing is recursive, nothing is allocated, and what rpc_scan refuses is refused here:
 * truncated or mistyped fields, NUL or bad UTF-8 in a string. Pure; any thread. */
#pragma once

#include <string.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"

/* ---- reading: fields in their order, unknown ones are passed over ----------------------------- */

enum rpc_wire_type { RPC_WIRE_VARINT = 0, RPC_WIRE_64 = 1, RPC_WIRE_BYTES = 2, RPC_WIRE_32 = 5 };

struct rpc_wire {
    const unsigned char *p;
    const unsigned char *end;
    enum err err; /* sticky: ERR_INVALID */
};

struct rpc_wire_field {
    uint32_t number;
    enum rpc_wire_type type;
    uint64_t v;      /* of all types but bytes */
    struct sv bytes; /* borrowed from the message */
};

static inline struct rpc_wire rpc_wire_of(struct sv bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.p;

    return (struct rpc_wire){ .p = p, .end = bytes.n == 0 ? p : p + bytes.n };
}

/* For a reader that finds what a field holds to be wrong: a fault like any other. */
void rpc_wire_refuse(struct rpc_wire *w);

bool rpc_wire_next_any(struct rpc_wire *w, struct rpc_wire_field *f);

/* False at the end and at the first fault: ask w->err then. */
static inline bool rpc_wire_next(struct rpc_wire *w, struct rpc_wire_field *f)
{
    const unsigned char *p = w->p;

    /* Nearly every field: one byte of key, one of length or value. */
    if (w->end - p >= 2 && p[0] >= 8 && p[0] < 0x80 && p[1] < 0x80) {
        *f = (struct rpc_wire_field){ .number = p[0] >> 3U,
                                      .type = (enum rpc_wire_type)(p[0] & 7U),
                                      .v = p[1] };
        if (f->type == RPC_WIRE_VARINT) {
            w->p = p + 2;
            return true;
        }
        if (f->type == RPC_WIRE_BYTES && p[1] <= w->end - p - 2) {
            f->bytes = sv_of(p + 2, p[1]);
            w->p = p + 2 + p[1];
            return true;
        }
    }
    return rpc_wire_next_any(w, f);
}

/* One number of a packed field; the same. */
bool rpc_wire_packed(struct rpc_wire *w, uint64_t *v_out);

/* What the field holds, in the type the receiver expects; another type is a fault of w. */
static inline uint64_t rpc_wire_number(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    if (f->type != RPC_WIRE_VARINT) {
        rpc_wire_refuse(w);
        return 0;
    }
    return f->v;
}

static inline struct sv rpc_wire_bytes(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    if (f->type != RPC_WIRE_BYTES) {
        rpc_wire_refuse(w);
        return (struct sv){ 0 };
    }
    return f->bytes;
}

uint64_t rpc_wire_fixed(struct rpc_wire *w, const struct rpc_wire_field *f);
struct sv rpc_wire_text(struct rpc_wire *w, const struct rpc_wire_field *f);

/* ---- writing: zero and empty are left out, as proto3 wants it ---------------------------------- */

/* Into room that the caller has made: RPC_WIRE_FIELD_MAX for each field, and its bytes. What is
 * given back is the place behind the field. */
enum { RPC_WIRE_FIELD_MAX = 15 }; /* a key of 5, a number of 10 */

static inline char *rpc_wire_put_varint(char *at, uint64_t v)
{
    for (; v >= 0x80; v >>= 7U) {
        *at++ = (char)(0x80U | (v & 0x7fU));
    }
    *at++ = (char)v;
    return at;
}

static inline char *rpc_wire_put_key(char *at, uint32_t number, enum rpc_wire_type type)
{
    return rpc_wire_put_varint(at, (uint64_t)number << 3U | type);
}

static inline char *rpc_wire_put_bytes(char *at, uint32_t number, struct sv bytes)
{
    if (bytes.n == 0) {
        return at;
    }
    at = rpc_wire_put_varint(rpc_wire_put_key(at, number, RPC_WIRE_BYTES), bytes.n);
    memcpy(at, bytes.p, bytes.n);
    return at + bytes.n;
}

static inline char *rpc_wire_put_number(char *at, uint32_t number, uint64_t v)
{
    return v == 0 ? at : rpc_wire_put_varint(rpc_wire_put_key(at, number, RPC_WIRE_VARINT), v);
}

char *rpc_wire_put_fixed(char *at, uint32_t number, uint64_t v);

/* Tag and length of n bytes, which the caller appends. */
void rpc_wire_add_head(struct buf *out, uint32_t number, size_t n);
size_t rpc_wire_head_size(uint32_t number, size_t n);
