#include "databroker/mask.h"

#include "common/rpc/scan.h"
#include "databroker/schema.h"

/* ---- reading a mask -------------------------------------------------------------------------- */

static unsigned short child_of(const struct broker_mask *mask, unsigned short parent,
                               const ProtobufCFieldDescriptor *field)
{
    unsigned short i = mask->nodes[parent].child;

    while (i != 0 && mask->nodes[i].field != field) {
        i = mask->nodes[i].next;
    }
    return i;
}

static enum err child_add(struct broker_mask *mask, unsigned short parent,
                          const ProtobufCFieldDescriptor *field, unsigned short *child_out,
                          struct diag *d)
{
    if (mask->count == BROKER_MASK_NODES) {
        diag_set(d, "field_mask: more than %d parts", BROKER_MASK_NODES);
        return ERR_LIMIT;
    }
    *child_out = (unsigned short)mask->count;
    mask->nodes[mask->count] =
        (struct broker_mask_node){ .field = field, .next = mask->nodes[parent].child };
    mask->nodes[parent].child = *child_out;
    mask->count++;
    return ERR_OK;
}

static bool has_parts(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_MESSAGE && field->label != PROTOBUF_C_LABEL_REPEATED;
}

/* A field that is taken whole needs none of its parts named. */
static enum err path_add(struct broker_mask *mask, struct sv path, struct diag *d)
{
    const ProtobufCMessageDescriptor *type = mask->type;
    unsigned short at = 0;

    for (unsigned depth = 0; path.p != NULL; depth++) {
        const ProtobufCFieldDescriptor *field = broker_schema_field(type, sv_cut(&path, '.'));
        unsigned short child = field == NULL ? 0 : child_of(mask, at, field);
        bool last = path.p == NULL;
        enum err err = ERR_OK;

        if (field == NULL) {
            diag_set(d, "field_mask: %s has no such field", type->name);
            return ERR_INVALID;
        }
        if (!last && !has_parts(field)) {
            diag_set(d, "field_mask: %s is taken whole: it has no parts with names", field->name);
            return ERR_INVALID;
        }
        if (depth == BROKER_MASK_DEPTH) {
            diag_set(d, "field_mask: a path of more than %d names", BROKER_MASK_DEPTH);
            return ERR_LIMIT;
        }
        if (child != 0 && (last || mask->nodes[child].child == 0)) {
            mask->nodes[child].child = 0;
            return ERR_OK;
        }
        if (child == 0) {
            err = child_add(mask, at, field, &child, d);
        }
        if (err != ERR_OK) {
            return err;
        }
        at = child;
        type = last ? NULL : field->descriptor;
    }
    return ERR_OK;
}

enum err broker_mask_init(struct broker_mask *mask, struct sv type_url, char *const *paths,
                          size_t n, struct diag *d)
{
    enum err err = ERR_OK;

    *mask = (struct broker_mask){ .type = broker_schema_of(type_url), .count = 1 };
    if (mask->type == NULL) {
        diag_set(d, "Patch knows no fields of this type: use Put");
        return ERR_UNSUPPORTED;
    }
    if (n == 0 || n > BROKER_MASK_PATHS) {
        diag_set(d, "field_mask: 1 to %d paths", BROKER_MASK_PATHS);
        return ERR_INVALID;
    }
    for (size_t i = 0; i < n && err == ERR_OK; i++) {
        err = path_add(mask, sv_from(paths[i]), d);
    }
    return err;
}

/* ---- the wire -------------------------------------------------------------------------------- */

static bool read_varint(struct sv *s, uint64_t *v_out)
{
    uint64_t v = 0;
    unsigned shift = 0;

    for (shift = 0; shift < 64 && s->n > 0; shift += 7) {
        unsigned char byte = (unsigned char)s->p[0];

        *s = sv_from_at(*s, 1);
        v |= (uint64_t)(byte & 0x7fU) << shift;
        if ((byte & 0x80U) == 0) {
            *v_out = v;
            return true;
        }
    }
    return false;
}

/* Cuts the next field, tag and all, off *rest. Groups (wire types 3 and 4) are refused. */
static bool next_field(struct sv *rest, struct sv *field_out, uint64_t *number_out)
{
    struct sv s = *rest;
    uint64_t tag = 0;
    uint64_t length = 0;
    bool fine = read_varint(&s, &tag);

    if (!fine || tag >> 3U == 0 || tag >> 3U > 0x1fffffff) {
        return false;
    }
    switch (tag & 7U) {
    case 0:
        fine = read_varint(&s, &length);
        length = 0;
        break;
    case 1:
        length = 8;
        break;
    case 2:
        fine = read_varint(&s, &length);
        break;
    case 5:
        length = 4;
        break;
    default:
        return false;
    }
    if (!fine || length > s.n) {
        return false;
    }
    s = sv_from_at(s, (size_t)length);
    *field_out = sv_head(*rest, rest->n - s.n);
    *number_out = tag >> 3U;
    *rest = s;
    return true;
}

/* What stands behind tag and length; false: it is no message. */
static bool payload_of(struct sv field, struct sv *payload_out)
{
    uint64_t tag = 0;
    uint64_t length = 0;
    bool fine = read_varint(&field, &tag) && (tag & 7U) == 2 && read_varint(&field, &length);

    *payload_out = field;
    return fine;
}

static void add_varint(struct buf *out, uint64_t v)
{
    while (v >= 0x80) {
        buf_add_char(out, (char)(0x80U | (v & 0x7fU)));
        v >>= 7U;
    }
    buf_add_char(out, (char)v);
}

/* ---- merging --------------------------------------------------------------------------------- */

/* One level of the messages that are merged. */
struct level {
    const struct broker_mask *mask;
    unsigned short at;
    const ProtobufCMessageDescriptor *type;
    struct sv stored;
    struct sv given;
    unsigned chosen[BROKER_MASK_NODES]; /* oneofs that given decides, by their quantifiers */
    size_t n_chosen;
};

static unsigned short named(const struct level *l, uint64_t number)
{
    unsigned short i = l->mask->nodes[l->at].child;

    while (i != 0 && l->mask->nodes[i].field->id != number) {
        i = l->mask->nodes[i].next;
    }
    return i;
}

static bool is_chosen(const struct level *l, const ProtobufCFieldDescriptor *field)
{
    for (size_t i = 0; i < l->n_chosen; i++) {
        if (l->chosen[i] == field->quantifier_offset) {
            return true;
        }
    }
    return false;
}

/* Which oneofs of the stored message give way: given has another of their members, and it is named. */
static enum err choose(struct level *l)
{
    struct sv rest = l->given;
    struct sv bytes = SV("");
    uint64_t number = 0;

    while (rest.n > 0) {
        unsigned short i = 0;

        if (!next_field(&rest, &bytes, &number)) {
            return ERR_INVALID;
        }
        i = named(l, number);
        if (i != 0 && (l->mask->nodes[i].field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
            !is_chosen(l, l->mask->nodes[i].field)) {
            l->chosen[l->n_chosen] = l->mask->nodes[i].field->quantifier_offset;
            l->n_chosen++;
        }
    }
    return ERR_OK;
}

static bool gives_way(const struct level *l, uint64_t number)
{
    const ProtobufCFieldDescriptor *field =
        l->n_chosen == 0 ? NULL
                         : protobuf_c_message_descriptor_get_field(l->type, (unsigned)number);

    return field != NULL && (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
           is_chosen(l, field);
}

/* What the mask does not name stays as it is. */
static enum err copy_stored(const struct level *l, struct buf *out)
{
    struct sv rest = l->stored;
    struct sv bytes = SV("");
    uint64_t number = 0;

    while (rest.n > 0) {
        if (!next_field(&rest, &bytes, &number)) {
            return ERR_INVALID;
        }
        if (named(l, number) == 0 && !gives_way(l, number)) {
            buf_add_sv(out, bytes);
        }
    }
    return out->err;
}

static enum err copy_given(const struct level *l, struct buf *out)
{
    struct sv rest = l->given;
    struct sv bytes = SV("");
    uint64_t number = 0;

    while (rest.n > 0 && next_field(&rest, &bytes, &number)) {
        unsigned short i = named(l, number);

        if (i != 0 && l->mask->nodes[i].child == 0) {
            buf_add_sv(out, bytes);
        }
    }
    return out->err;
}

/* The parts of a message may stand at several places: one behind the other they are the message. */
static enum err gather(struct sv rest, uint32_t id, struct buf *out, bool *there_out)
{
    struct sv bytes = SV("");
    struct sv payload = SV("");
    uint64_t number = 0;

    while (rest.n > 0) {
        if (!next_field(&rest, &bytes, &number)) {
            return ERR_INVALID;
        }
        if (number != id) {
            continue;
        }
        if (!payload_of(bytes, &payload)) {
            return ERR_INVALID;
        }
        *there_out = true;
        buf_add_sv(out, payload);
    }
    return out->err;
}

static enum err merge(struct level *l, struct buf *out);

static enum err merge_part(const struct level *l, unsigned short i, struct buf *out)
{
    CLEANUP(buf_deinit) struct buf stored = { 0 };
    CLEANUP(buf_deinit) struct buf given = { 0 };
    CLEANUP(buf_deinit) struct buf merged = { 0 };
    const ProtobufCFieldDescriptor *field = l->mask->nodes[i].field;
    struct level part = { .mask = l->mask, .at = i, .type = field->descriptor };
    bool there = false;
    enum err err = ERR_OK;

    buf_init(&stored, l->stored.n);
    buf_init(&given, l->given.n);
    buf_init(&merged, l->stored.n + l->given.n);
    err = gather(l->stored, field->id, &stored, &there);
    if (err == ERR_OK) {
        err = gather(l->given, field->id, &given, &there);
    }
    if (err != ERR_OK || !there) {
        return err;
    }
    part.stored = buf_sv(&stored);
    part.given = buf_sv(&given);
    err = merge(&part, &merged);
    if (err == ERR_OK) {
        add_varint(out, ((uint64_t)field->id << 3U) | 2U);
        add_varint(out, merged.n);
        buf_add_sv(out, buf_sv(&merged));
        err = out->err;
    }
    return err;
}

/* Depth is that of the mask. */
static enum err merge(struct level *l, struct buf *out)
{
    enum err err = choose(l);

    if (err == ERR_OK) {
        err = copy_stored(l, out);
    }
    if (err == ERR_OK) {
        err = copy_given(l, out);
    }
    for (unsigned short i = l->mask->nodes[l->at].child; i != 0 && err == ERR_OK;
         i = l->mask->nodes[i].next) {
        if (l->mask->nodes[i].child != 0) {
            err = merge_part(l, i, out);
        }
    }
    return err;
}

/* Whether others can read it: what is merged from two such messages they can read, too. */
static enum err check(const ProtobufCMessageDescriptor *type, struct sv bytes)
{
    CLEANUP(arena_deinit) struct arena arena = { 0 };
    ProtobufCMessage *m = NULL;

    arena_init(&arena);
    return rpc_unpack(type, bytes, &arena, &m);
}

enum err broker_mask_apply(const struct broker_mask *mask, struct sv stored, struct sv given,
                           struct buf *out)
{
    struct level top = { .mask = mask, .type = mask->type, .stored = stored, .given = given };
    enum err err = check(mask->type, stored);

    if (err == ERR_OK) {
        err = check(mask->type, given);
    }
    return err == ERR_OK ? merge(&top, out) : err;
}
