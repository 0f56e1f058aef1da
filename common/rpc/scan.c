#include "common/rpc/scan.h"

#include <string.h>

struct cursor {
    const unsigned char *p;
    const unsigned char *end;
};

enum { VARINT_MAX = 10, WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static enum err varint(struct cursor *c, uint64_t *v_out)
{
    uint64_t v = 0;
    unsigned i = 0;

    for (i = 0; i < VARINT_MAX && c->p < c->end; i++) {
        unsigned char b = *c->p++;

        if (i == VARINT_MAX - 1 && b > 1) {
            break; /* more than 64 bits */
        }
        v |= (uint64_t)(b & 0x7fU) << 7U * i;
        if ((b & 0x80U) == 0) {
            *v_out = v;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

static enum err take(struct cursor *c, uint64_t n, struct sv *bytes_out)
{
    if (n > (uint64_t)(c->end - c->p)) {
        return ERR_INVALID;
    }
    *bytes_out = sv_of(c->p, (size_t)n);
    c->p += n;
    return ERR_OK;
}

static enum err scan(const ProtobufCMessageDescriptor *type, struct sv bytes, unsigned depth,
                     size_t *fields);

static enum err scan_bytes(const ProtobufCFieldDescriptor *field, struct sv value, unsigned depth,
                           size_t *fields)
{
    if (field == NULL) {
        return ERR_OK;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        bool clean = sv_is_utf8(value) && sv_find(value, '\0') == SIZE_MAX;

        return clean ? ERR_OK : ERR_INVALID;
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return scan(field->descriptor, value, depth + 1, fields);
    }
    if (field->type != PROTOBUF_C_TYPE_BYTES && field->label != PROTOBUF_C_LABEL_REPEATED) {
        return ERR_INVALID; /* only repeated scalars may be packed */
    }
    return ERR_OK;
}

static enum err scan_field(const ProtobufCMessageDescriptor *type, struct cursor *c, unsigned depth,
                           size_t *fields)
{
    const ProtobufCFieldDescriptor *field = NULL;
    struct sv value = { 0 };
    uint64_t key = 0;
    uint64_t n = 0;
    enum err err = varint(c, &key);

    if (err != ERR_OK || key >> 3U == 0 || key >> 3U > 0x1fffffff) {
        return ERR_INVALID;
    }
    field =
        type == NULL ? NULL : protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3U));
    switch (key & 7U) {
    case WIRE_VARINT:
        return varint(c, &n);
    case WIRE_64:
        return take(c, 8, &value);
    case WIRE_32:
        return take(c, 4, &value);
    case WIRE_BYTES:
        err = varint(c, &n);
        if (err == ERR_OK) {
            err = take(c, n, &value);
        }
        return err == ERR_OK ? scan_bytes(field, value, depth, fields) : err;
    default:
        return ERR_INVALID; /* groups are gone from proto3 */
    }
}

static enum err scan(const ProtobufCMessageDescriptor *type, struct sv bytes, unsigned depth,
                     size_t *fields)
{
    struct cursor c = { .p = (const unsigned char *)bytes.p,
                        .end = (const unsigned char *)bytes.p + bytes.n };

    if (depth > RPC_DEPTH_MAX) {
        return ERR_LIMIT;
    }
    while (c.p < c.end) {
        enum err err = ERR_OK;

        if (++*fields > RPC_FIELDS_MAX) {
            return ERR_LIMIT;
        }
        err = scan_field(type, &c, depth, fields);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

enum err rpc_scan(const ProtobufCMessageDescriptor *type, struct sv bytes)
{
    size_t fields = 0;

    return bytes.n == 0 ? ERR_OK : scan(type, bytes, 1, &fields);
}

static void *arena_take(void *arena, size_t n)
{
    return arena_alloc(arena, n);
}

static void arena_keep(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

enum err rpc_unpack(const ProtobufCMessageDescriptor *type, struct sv bytes, struct arena *arena,
                    ProtobufCMessage **message_out)
{
    ProtobufCAllocator allocator = { .alloc = arena_take,
                                     .free = arena_keep,
                                     .allocator_data = arena };
    ProtobufCMessage *message = NULL;
    enum err err = rpc_scan(type, bytes);

    if (err != ERR_OK) {
        return err;
    }
    message = protobuf_c_message_unpack(type, arena == NULL ? NULL : &allocator, bytes.n,
                                        (const uint8_t *)bytes.p);
    if (message == NULL) {
        return ERR_INVALID;
    }
    *message_out = message;
    return ERR_OK;
}
