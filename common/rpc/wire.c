#include "common/rpc/wire.h"

#include <endian.h>

enum { VARINT_MAX = 10, VARINT_32_MAX = 5, NUMBER_MAX = 0x1fffffff };

void rpc_wire_refuse(struct rpc_wire *w)
{
    w->err = ERR_INVALID;
    w->p = w->end;
}

static uint64_t varint_long(struct rpc_wire *w, unsigned max)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < max && w->p < w->end; i++) {
        unsigned char b = *w->p++;

        if (i == VARINT_MAX - 1 && b > 1) {
            break; /* more than 64 bits: others would read another number */
        }
        v |= (uint64_t)(b & 0x7fU) << 7U * i;
        if ((b & 0x80U) == 0) {
            return v;
        }
    }
    rpc_wire_refuse(w);
    return 0;
}

static inline uint64_t varint(struct rpc_wire *w, unsigned max)
{
    if (w->p < w->end && *w->p < 0x80) {
        return *w->p++;
    }
    return varint_long(w, max);
}

static struct sv take(struct rpc_wire *w, uint64_t n)
{
    struct sv bytes = { 0 };

    if (n > (uint64_t)(w->end - w->p)) {
        rpc_wire_refuse(w);
        return bytes;
    }
    bytes = sv_of(w->p, (size_t)n);
    w->p += n;
    return bytes;
}

static uint64_t little_endian(struct sv bytes)
{
    uint64_t v = 0;

    memcpy(&v, bytes.p, bytes.n);
    return le64toh(v);
}

bool rpc_wire_next_any(struct rpc_wire *w, struct rpc_wire_field *f)
{
    uint64_t key = 0;

    if (w->p == w->end) {
        return false;
    }
    key = varint(w, VARINT_32_MAX);
    *f = (struct rpc_wire_field){ .number = (uint32_t)(key >> 3U),
                                  .type = (enum rpc_wire_type)(key & 7U) };
    if (key >> 3U == 0 || key >> 3U > NUMBER_MAX) {
        rpc_wire_refuse(w);
        return false;
    }
    switch (f->type) {
    case RPC_WIRE_VARINT:
        f->v = varint(w, VARINT_MAX);
        break;
    case RPC_WIRE_64:
    case RPC_WIRE_32:
        f->bytes = take(w, f->type == RPC_WIRE_64 ? 8 : 4);
        f->v = w->err == ERR_OK ? little_endian(f->bytes) : 0;
        break;
    case RPC_WIRE_BYTES:
        f->bytes = take(w, varint(w, VARINT_32_MAX));
        break;
    default: /* groups are gone from proto3 */
        rpc_wire_refuse(w);
        break;
    }
    return w->err == ERR_OK;
}

bool rpc_wire_packed(struct rpc_wire *w, uint64_t *v_out)
{
    if (w->p == w->end) {
        return false;
    }
    *v_out = varint(w, VARINT_MAX);
    return w->err == ERR_OK;
}

uint64_t rpc_wire_fixed(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    if (f->type != RPC_WIRE_64) {
        rpc_wire_refuse(w);
        return 0;
    }
    return f->v;
}

/* Eight bytes of ASCII without a NUL. */
static bool is_ascii_word(const char *p)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t x = 0;

    memcpy(&x, p, sizeof(x));
    return (((x - ones) | x) & (ones * 0x80)) == 0;
}

static bool is_text(struct sv s)
{
    size_t i = 0;

    if (s.n >= 8) { /* ids and addresses: no byte is looked at alone */
        for (i = 0; i + 8 <= s.n && is_ascii_word(s.p + i); i += 8) {
        }
        if (i + 8 > s.n && is_ascii_word(s.p + s.n - 8)) {
            return true;
        }
    }
    return sv_find(s, '\0') == SIZE_MAX && sv_is_utf8(s);
}

struct sv rpc_wire_text(struct rpc_wire *w, const struct rpc_wire_field *f)
{
    struct sv text = rpc_wire_bytes(w, f);

    if (!is_text(text)) {
        rpc_wire_refuse(w);
        return (struct sv){ 0 };
    }
    return text;
}

/* ---- writing --------------------------------------------------------------------------------- */

static size_t varint_size(uint64_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7U) {
        n++;
    }
    return n;
}

size_t rpc_wire_head_size(uint32_t number, size_t n)
{
    return varint_size((uint64_t)number << 3U) + varint_size(n);
}

void rpc_wire_add_head(struct buf *out, uint32_t number, size_t n)
{
    char *room = buf_room(out, RPC_WIRE_FIELD_MAX);

    if (room != NULL) {
        char *end = rpc_wire_put_varint(rpc_wire_put_key(room, number, RPC_WIRE_BYTES), n);

        buf_grew(out, (size_t)(end - room));
    }
}

char *rpc_wire_put_fixed(char *at, uint32_t number, uint64_t v)
{
    uint64_t bytes = htole64(v);

    if (v == 0) {
        return at;
    }
    at = rpc_wire_put_key(at, number, RPC_WIRE_64);
    memcpy(at, &bytes, sizeof(bytes));
    return at + sizeof(bytes);
}
