#include "authorize/claims.h"

#include <math.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/rpc/wire.h"

/* Packed: for each claim the number of its name, the number of its values, and each value: a varint
 * that says its kind in the lowest bits and a number above them, then the bytes that the kind has. */
enum tag {
    TAG_OTHER = 0,
    TAG_NULL,
    TAG_BOOL,  /* 0, 1 */
    TAG_WHOLE, /* a whole number that is not negative */
    TAG_FLOAT, /* eight bytes follow */
    TAG_TEXT,  /* a text's number; 0: "" */
    TAG_BYTES  /* a text of so many bytes, which follow, and a NUL */
};

enum { TAG_BITS = 3, TAG_MASK = 7, VARINT_MAX = 10, WHOLE_BITS = 53 /* exact in a double */ };

struct authz_claims {
    uint32_t refs;
    uint32_t n;
    unsigned char bytes[];
};

/* --- packing ---------------------------------------------------------------------------------- */

static void put(struct buf *out, uint64_t v)
{
    char *at = buf_room(out, VARINT_MAX);

    if (at != NULL) {
        buf_grew(out, (size_t)(rpc_wire_put_varint(at, v) - at));
    }
}

static void put_value(struct buf *out, enum tag tag, uint64_t v)
{
    put(out, v << TAG_BITS | (uint64_t)tag);
}

static void put_number(struct buf *out, double v)
{
    if (v >= 0 && v < (double)(1ULL << WHOLE_BITS) && v == floor(v) && !signbit(v)) {
        put_value(out, TAG_WHOLE, (uint64_t)v);
        return;
    }
    put_value(out, TAG_FLOAT, 0);
    buf_add(out, &v, sizeof(v));
}

/* A list's texts are groups and roles, which many have. Of a lone one it is seen with time. */
static void put_text(struct authz_texts *texts, struct buf *out, uint32_t name, bool listed,
                     struct sv s)
{
    if (s.n == 0 || listed || authz_text_find(texts, s) != 0 ||
        authz_text_repeats(texts, name, s)) {
        put_value(out, TAG_TEXT, authz_text_take(texts, s));
        return;
    }
    put_value(out, TAG_BYTES, s.n);
    buf_add_sv(out, s);
    buf_add_char(out, '\0');
}

static void put_scalar(struct authz_texts *texts, struct buf *out, uint32_t name, bool listed,
                       const struct authz_value *v)
{
    switch (v->kind) {
    case AUTHZ_VALUE_TEXT:
        put_text(texts, out, name, listed, v->text);
        break;
    case AUTHZ_VALUE_NUMBER:
        put_number(out, v->number);
        break;
    case AUTHZ_VALUE_BOOL:
        put_value(out, TAG_BOOL, v->flag);
        break;
    case AUTHZ_VALUE_NULL:
        put_value(out, TAG_NULL, 0);
        break;
    case AUTHZ_VALUE_OTHER:
        put_value(out, TAG_OTHER, 0);
        break;
    }
}

/* Puts the number before what stands from at on. */
static void put_before(struct buf *out, size_t at, uint64_t v)
{
    char number[VARINT_MAX];
    size_t n = (size_t)(rpc_wire_put_varint(number, v) - number);
    char *room = buf_room(out, n);

    if (room != NULL) {
        memmove(out->p + at + n, out->p + at, out->n - at);
        memcpy(out->p + at, number, n);
        buf_grew(out, n);
    }
}

/* Whole even where it fails: what it took can be given back. */
static enum err put_claim(struct authz_texts *texts, struct buf *out,
                          const struct authz_claim_entry *entry, size_t *total)
{
    uint32_t name = authz_text_take(texts, entry->name);
    struct sv left = entry->values;
    struct authz_value v;
    size_t count = 0;
    enum err err = ERR_OK;

    put(out, name);
    size_t at = out->n;

    while (*total <= AUTHZ_CLAIM_VALUES_MAX && authz_value_next(&left, &v, &err)) {
        put_scalar(texts, out, name, count > 0 || left.n > 0, &v);
        count++;
        ++*total;
    }
    put_before(out, at, count);
    return *total > AUTHZ_CLAIM_VALUES_MAX ? ERR_LIMIT : err;
}

enum err authz_claims_new(struct authz_texts *texts, const struct authz_claim_entry *entries,
                          size_t n, struct authz_claims **claims_out)
{
    struct authz_claims *claims = NULL;
    struct buf *out = authz_texts_room(texts);
    size_t total = 0;
    enum err err = ERR_OK;

    if (n > AUTHZ_CLAIMS_MAX) {
        return ERR_LIMIT;
    }
    *claims_out = NULL;
    if (n == 0) {
        return ERR_OK;
    }
    buf_reset(out);
    /* Backwards: readers take the first of a name, and on the wire the last one counts. */
    for (size_t i = n; i > 0 && err == ERR_OK; i--) {
        err = put_claim(texts, out, &entries[i - 1], &total);
    }
    CHECK(out->err == ERR_OK); /* a message has 4 MiB at most, and packing makes no more of it */
    claims = slab_take(authz_texts_slab(texts), sizeof(*claims) + out->n);
    *claims = (struct authz_claims){ .refs = 1, .n = (uint32_t)out->n };
    memcpy(claims->bytes, out->p, out->n);
    if (err != ERR_OK) {
        authz_claims_free(texts, &claims);
    }
    *claims_out = claims;
    return err;
}

/* --- unpacking -------------------------------------------------------------------------------- */

/* Reads what we wrote ourselves. */
struct cursor {
    const unsigned char *p;
    const unsigned char *end;
};

static struct cursor cursor_of(const struct authz_claims *claims)
{
    return (struct cursor){ .p = claims->bytes, .end = claims->bytes + claims->n };
}

static uint64_t get(struct cursor *c)
{
    uint64_t v = 0;

    for (unsigned shift = 0;; shift += 7) {
        CHECK(c->p < c->end && shift < 64);
        unsigned char b = *c->p++;

        v |= (uint64_t)(b & 0x7fU) << shift;
        if (b < 0x80) {
            return v;
        }
    }
}

static const unsigned char *get_bytes(struct cursor *c, size_t n)
{
    const unsigned char *p = c->p;

    CHECK(n <= (size_t)(c->end - p));
    c->p += n;
    return p;
}

/* The text's number where the value is one, else 0. */
static uint32_t skip_value(struct cursor *c)
{
    uint64_t v = get(c);

    switch (v & TAG_MASK) {
    case TAG_TEXT:
        return (uint32_t)(v >> TAG_BITS);
    case TAG_BYTES:
        (void)get_bytes(c, (size_t)(v >> TAG_BITS) + 1);
        break;
    case TAG_FLOAT:
        (void)get_bytes(c, sizeof(double));
        break;
    default:
        break;
    }
    return 0;
}

static void get_value(const struct authz_texts *texts, struct cursor *c, struct policy_scalar *out)
{
    uint64_t tagged = get(c);
    uint64_t v = tagged >> TAG_BITS;

    *out = (struct policy_scalar){ .kind = POLICY_KIND_OTHER };
    switch (tagged & TAG_MASK) {
    case TAG_NULL:
        out->kind = POLICY_KIND_NULL;
        break;
    case TAG_BOOL:
        out->kind = POLICY_KIND_BOOL;
        out->flag = v != 0;
        break;
    case TAG_WHOLE:
        out->kind = POLICY_KIND_NUMBER;
        out->number = (double)v;
        break;
    case TAG_FLOAT:
        out->kind = POLICY_KIND_NUMBER;
        memcpy(&out->number, get_bytes(c, sizeof(double)), sizeof(double));
        break;
    case TAG_TEXT:
        out->kind = POLICY_KIND_STRING;
        out->text = authz_text_get(texts, (uint32_t)v);
        break;
    case TAG_BYTES:
        out->kind = POLICY_KIND_STRING;
        out->text = POLICY_TEXT(sv_of(get_bytes(c, (size_t)v + 1), (size_t)v));
        break;
    default:
        break;
    }
}

void authz_claim_room_deinit(struct authz_claim_room *room)
{
    mem_free(&room->values);
    *room = (struct authz_claim_room){ .cap = 0 };
}

static const struct policy_claim *unpack(const struct authz_texts *texts, struct cursor *c,
                                         uint32_t name, struct authz_claim_room *room)
{
    size_t count = (size_t)get(c);

    if (room->values == NULL || count > room->cap) {
        room->cap = MAX(count, (size_t)8);
        room->values = mem_realloc(room->values, room->cap, sizeof(*room->values));
    }
    for (size_t i = 0; i < count; i++) {
        get_value(texts, c, &room->values[i]);
    }
    room->claim = (struct policy_claim){ .name = authz_text_get(texts, name),
                                         .values = room->values,
                                         .count = count };
    return &room->claim;
}

const struct policy_claim *authz_claims_get(const struct authz_texts *texts,
                                            const struct authz_claims *claims, struct sv name,
                                            struct authz_claim_room *room)
{
    uint32_t wanted = authz_text_find(texts, name);

    if (claims == NULL || (wanted == 0 && name.n != 0)) {
        return NULL;
    }
    for (struct cursor c = cursor_of(claims); c.p < c.end;) {
        if ((uint32_t)get(&c) == wanted) {
            return unpack(texts, &c, wanted, room);
        }
        for (size_t left = (size_t)get(&c); left > 0; left--) {
            (void)skip_value(&c);
        }
    }
    return NULL;
}

size_t authz_claims_place(const struct authz_claims *claims, struct sv text)
{
    const char *from = claims == NULL ? NULL : (const char *)claims->bytes;
    const char *end = claims == NULL ? NULL : from + claims->n;

    while (from != NULL && text.n > 0 && (size_t)(end - from) > text.n) {
        const char *found = memmem(from, (size_t)(end - from) - 1, text.p, text.n);

        if (found == NULL || found[text.n] == '\0') {
            return found == NULL ? SIZE_MAX : (size_t)(found - (const char *)claims->bytes);
        }
        from = found + 1;
    }
    return SIZE_MAX;
}

const char *authz_claims_at(const struct authz_claims *claims, size_t place)
{
    return (const char *)claims->bytes + place;
}

/* --- references ------------------------------------------------------------------------------- */

void authz_claims_free(struct authz_texts *texts, struct authz_claims **claims)
{
    struct authz_claims *cl = TAKE(*claims);

    if (cl == NULL) {
        return;
    }
    cl->refs--;
    if (cl->refs != 0) {
        return;
    }
    for (struct cursor c = cursor_of(cl); c.p < c.end;) {
        authz_text_drop(texts, (uint32_t)get(&c));
        for (size_t left = (size_t)get(&c); left > 0; left--) {
            authz_text_drop(texts, skip_value(&c));
        }
    }
    slab_give(authz_texts_slab(texts), cl, sizeof(*cl) + cl->n);
}

bool authz_claims_share(struct authz_texts *texts, struct authz_claims **claims,
                        struct authz_claims *other)
{
    struct authz_claims *mine = *claims;

    if (mine == NULL || other == NULL || mine == other || mine->n != other->n ||
        other->refs == UINT32_MAX || memcmp(mine->bytes, other->bytes, mine->n) != 0) {
        return mine == other;
    }
    other->refs++;
    authz_claims_free(texts, claims);
    *claims = other;
    return true;
}
