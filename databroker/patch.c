#include "databroker/patch.h"

#include "google/protobuf/struct.pb-c.h"
#include "session.pb-c.h"
#include "user.pb-c.h"

static const struct {
    struct sv name;
    const ProtobufCMessageDescriptor *type;
} known_types[] = {
    { { "session.Session", 15 }, &session__session__descriptor },
    { { "user.User", 9 }, &user__user__descriptor },
    { { "user.ServiceAccount", 19 }, &user__service_account__descriptor },
    { { "google.protobuf.Struct", 22 }, &google__protobuf__struct__descriptor },
};

static const ProtobufCMessageDescriptor *type_of(struct sv type_url)
{
    size_t slash = sv_rfind(type_url, '/');
    struct sv name = slash == SIZE_MAX ? type_url : sv_from_at(type_url, slash + 1);
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(known_types); i++) {
        if (sv_eq(name, known_types[i].name)) {
            return known_types[i].type;
        }
    }
    return NULL;
}

enum err broker_patch_init(struct broker_patch *patch, struct sv type_url, char *const *paths,
                           size_t n, struct diag *d)
{
    const ProtobufCMessageDescriptor *type = type_of(type_url);
    size_t i = 0;

    patch->count = 0;
    if (type == NULL) {
        diag_set(d, "Patch knows no fields of this type: use Put");
        return ERR_UNSUPPORTED;
    }
    if (n == 0 || n > BROKER_PATCH_PATHS) {
        diag_set(d, "field_mask: 1 to %d paths", BROKER_PATCH_PATHS);
        return ERR_INVALID;
    }
    for (i = 0; i < n; i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(type, paths[i]);

        if (field == NULL && sv_find(sv_from(paths[i]), '.') != SIZE_MAX) {
            diag_set(d, "field_mask: only whole fields can be patched, no parts of them");
            return ERR_UNSUPPORTED;
        }
        if (field == NULL) {
            diag_set(d, "field_mask: the type has no such field");
            return ERR_INVALID;
        }
        patch->numbers[patch->count] = field->id;
        patch->count++;
    }
    return ERR_OK;
}

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

static bool in_mask(const struct broker_patch *patch, uint64_t number)
{
    size_t i = 0;

    for (i = 0; i < patch->count; i++) {
        if (patch->numbers[i] == number) {
            return true;
        }
    }
    return false;
}

/* Appends the fields of message that are in the mask, or those that are not. */
static enum err copy_fields(const struct broker_patch *patch, struct sv message, bool masked,
                            struct buf *out)
{
    struct sv field = SV("");
    uint64_t number = 0;

    while (message.n > 0) {
        if (!next_field(&message, &field, &number)) {
            return ERR_INVALID;
        }
        if (in_mask(patch, number) == masked) {
            buf_add_sv(out, field);
        }
    }
    return out->err;
}

enum err broker_patch_apply(const struct broker_patch *patch, struct sv stored, struct sv given,
                            struct buf *out)
{
    enum err err = copy_fields(patch, stored, false, out);

    return err == ERR_OK ? copy_fields(patch, given, true, out) : err;
}
