/* rpc_wire: protobuf's wire form, field by field, for the messages of every request (CheckBatch,
 * ReplyBatch): to build and to free a message costs more there than the check. All others go through
 * rpc_unpack. Nothing is recursive, nothing is allocated, and what rpc_scan refuses is refused here:
 * truncated or mistyped fields, NUL or bad UTF-8 in a string. Pure; any thread. */
#pragma once

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

struct rpc_wire rpc_wire_of(struct sv bytes);
/* False at the end and at the first fault: ask w->err then. */
bool rpc_wire_next(struct rpc_wire *w, struct rpc_wire_field *f);
/* One number of a packed field; the same. */
bool rpc_wire_packed(struct rpc_wire *w, uint64_t *v_out);

/* What the field holds, in the type the receiver expects; another type is a fault of w. */
uint64_t rpc_wire_number(struct rpc_wire *w, const struct rpc_wire_field *f);
uint64_t rpc_wire_fixed(struct rpc_wire *w, const struct rpc_wire_field *f);
struct sv rpc_wire_bytes(struct rpc_wire *w, const struct rpc_wire_field *f);
struct sv rpc_wire_text(struct rpc_wire *w, const struct rpc_wire_field *f);
/* For a reader that finds what a field holds to be wrong: a fault like any other. */
void rpc_wire_refuse(struct rpc_wire *w);

/* ---- writing: zero and empty are left out, as proto3 wants it ---------------------------------- */

/* Tag and length of n bytes, which the caller appends. */
void rpc_wire_add_head(struct buf *out, uint32_t number, size_t n);
size_t rpc_wire_head_size(uint32_t number, size_t n);
void rpc_wire_add_bytes(struct buf *out, uint32_t number, struct sv bytes);
void rpc_wire_add_number(struct buf *out, uint32_t number, uint64_t v);
void rpc_wire_add_fixed(struct buf *out, uint32_t number, uint64_t v);
