#include "databroker/value.h"

#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#include "common/date.h"
#include "databroker/schema.h"

enum { NAME_SHOWN = 64 };

static const int64_t us_per_s = 1000000;
static const int64_t time_max_s = INT64_C(1) << 42; /* far beyond the year 9999 */

enum err broker_value_time(struct sv text, int64_t *us_out)
{
    struct date date = { .year = 0 };
    enum err err = date_parse(text, &date);

    if (err == ERR_OK) {
        int64_t ms = date_wall_ms(&date) - date.nanos / 1000000;

        *us_out = ms * 1000 + date.nanos / 1000;
    }
    return err;
}

bool broker_value_whole(struct sv text, int64_t *whole_out)
{
    bool minus = text.n > 0 && text.p[0] == '-';
    uint64_t v = 0;

    if (sv_u64(sv_from_at(text, minus ? 1 : 0), INT64_MAX, &v) != ERR_OK) {
        return false;
    }
    *whole_out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool show(const struct broker_value_look *look, const struct broker_value *value)
{
    return look->take(value, look->arg);
}

static bool show_whole(const struct broker_value_look *look, int64_t whole)
{
    const struct broker_value value = {
        .kind = BROKER_VALUE_NUMBER, .number = (double)whole, .whole = whole, .is_whole = true
    };

    return show(look, &value);
}

static bool show_double(const struct broker_value_look *look, double number)
{
    const struct broker_value value = { .kind = BROKER_VALUE_NUMBER, .number = number };

    return show(look, &value);
}

static bool show_text(const struct broker_value_look *look, const char *text)
{
    const struct broker_value value = { .kind = BROKER_VALUE_TEXT, .text = sv_from(text) };

    return show(look, &value);
}

static bool show_truth(const struct broker_value_look *look, bool truth)
{
    const struct broker_value value = { .kind = BROKER_VALUE_TRUTH, .truth = truth };

    return show(look, &value);
}

static bool show_part(const struct broker_value_look *look)
{
    const struct broker_value value = { .kind = BROKER_VALUE_PART };

    return show(look, &value);
}

static bool show_time(const struct broker_value_look *look,
                      const Google__Protobuf__Timestamp *stamp)
{
    struct broker_value value = { .kind = BROKER_VALUE_TIME };

    if (stamp->seconds < -time_max_s || stamp->seconds > time_max_s) {
        return show_part(look);
    }
    value.us = stamp->seconds * us_per_s + stamp->nanos / 1000;
    return show(look, &value);
}

static bool show_name(const struct broker_value_look *look, const ProtobufCFieldDescriptor *field,
                      int number)
{
    const ProtobufCEnumValue *known =
        protobuf_c_enum_descriptor_get_value(field->descriptor, number);
    const struct broker_value value = { .kind = BROKER_VALUE_NAME,
                                        .text = sv_from(known == NULL ? NULL : known->name),
                                        .number = number,
                                        .whole = number,
                                        .is_whole = true };

    return show(look, &value);
}

/* ---- Struct, Value, ListValue: whatever a client made of them -------------------------------- */

static bool visit_json(struct broker_value_look *look, const Google__Protobuf__Value *value,
                       size_t at);

static bool visit_struct(struct broker_value_look *look, const Google__Protobuf__Struct *s,
                         size_t at)
{
    if (at == look->n) {
        return s->n_fields > 0 && show_part(look);
    }
    for (size_t i = 0; i < s->n_fields; i++) {
        if (s->fields[i]->value != NULL && sv_eq(sv_from(s->fields[i]->key), look->path[at]) &&
            visit_json(look, s->fields[i]->value, at + 1)) {
            return true;
        }
    }
    return false;
}

static bool visit_list(struct broker_value_look *look, const Google__Protobuf__ListValue *list,
                       size_t at)
{
    for (size_t i = 0; i < list->n_values; i++) {
        if (visit_json(look, list->values[i], at)) {
            return true;
        }
    }
    return false;
}

static bool visit_json(struct broker_value_look *look, const Google__Protobuf__Value *value,
                       size_t at)
{
    bool here = at == look->n;

    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        return here && show_double(look, value->number_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        return here && show_text(look, value->string_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        return here && show_truth(look, value->bool_value != 0);
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return visit_struct(look, value->struct_value, at);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        return visit_list(look, value->list_value, at);
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    default:
        return false;
    }
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool visit_message(struct broker_value_look *look, const ProtobufCMessage *m, size_t at);

static const void *member(const ProtobufCMessage *m, size_t offset)
{
    return (const uint8_t *)(const void *)m + offset;
}

static bool no_such_field(struct broker_value_look *look, const char *whole, size_t at)
{
    struct sv name = look->path[at];
    bool shown = name.n <= NAME_SHOWN && sv_is_plain(name);

    for (size_t i = 0; i < name.n && shown; i++) {
        shown = (unsigned char)name.p[i] < 0x80;
    }
    diag_set(look->d, "filter: %s has no field '%.*s'", whole, SV_ARG(shown ? name : SV("…")));
    look->err = ERR_UNSUPPORTED;
    return true;
}

static size_t size_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(int64_t);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        break;
    }
    return sizeof(int32_t);
}

static bool show_number(const struct broker_value_look *look, ProtobufCType type, const void *p)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FLOAT:
        return show_double(look, (double)*(const float *)p);
    case PROTOBUF_C_TYPE_DOUBLE:
        return show_double(look, *(const double *)p);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return show_whole(look, *(const uint32_t *)p);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return *(const uint64_t *)p > INT64_MAX ? show_double(look, (double)*(const uint64_t *)p)
                                                : show_whole(look, (int64_t) * (const uint64_t *)p);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return show_whole(look, *(const int64_t *)p);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
    return show_whole(look, *(const int32_t *)p);
}

/* One value of a field, at p. */
static bool visit_one(struct broker_value_look *look, const ProtobufCFieldDescriptor *field,
                      const void *p, size_t at)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *m = *(ProtobufCMessage *const *)p;

        return m != NULL && visit_message(look, m, at);
    }
    if (at != look->n) {
        return no_such_field(look, field->name, at);
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        return show_text(look, *(char *const *)p);
    }
    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        return ((const ProtobufCBinaryData *)p)->len > 0 && show_part(look);
    }
    if (field->type == PROTOBUF_C_TYPE_BOOL) {
        return show_truth(look, *(const protobuf_c_boolean *)p != 0);
    }
    if (field->type == PROTOBUF_C_TYPE_ENUM) {
        return show_name(look, field, *(const int *)p);
    }
    return show_number(look, field->type, p);
}

static bool visit_map(struct broker_value_look *look, ProtobufCMessage *const *entries, size_t n,
                      size_t at)
{
    if (at == look->n) {
        return n > 0 && show_part(look);
    }
    for (size_t i = 0; i < n; i++) {
        const ProtobufCFieldDescriptor *fields = entries[i]->descriptor->fields;
        const char *key = NULL;

        if (fields[0].type != PROTOBUF_C_TYPE_STRING) {
            continue;
        }
        key = *(char *const *)member(entries[i], fields[0].offset);
        if (sv_eq(sv_from(key), look->path[at]) &&
            visit_one(look, &fields[1], member(entries[i], fields[1].offset), at + 1)) {
            return true;
        }
    }
    return false;
}

static bool visit_field(struct broker_value_look *look, const ProtobufCMessage *m,
                        const ProtobufCFieldDescriptor *field, size_t at)
{
    const void *p = member(m, field->offset);
    const void *q = member(m, field->quantifier_offset);
    size_t n = 0;

    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        bool chosen =
            (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 || *(const uint32_t *)q == field->id;

        return chosen && visit_one(look, field, p, at);
    }
    n = *(const size_t *)q;
    if (broker_schema_is_map(field)) {
        return visit_map(look, *(ProtobufCMessage * *const *)p, n, at);
    }
    for (size_t i = 0; i < n; i++) {
        if (visit_one(look, field, *(const uint8_t *const *)p + i * size_of(field->type), at)) {
            return true;
        }
    }
    return false;
}

static bool visit_message(struct broker_value_look *look, const ProtobufCMessage *m, size_t at)
{
    const ProtobufCMessageDescriptor *type = m->descriptor;
    const ProtobufCFieldDescriptor *field = NULL;

    if (type == &google__protobuf__struct__descriptor) {
        return visit_struct(look, (const Google__Protobuf__Struct *)(const void *)m, at);
    }
    if (type == &google__protobuf__value__descriptor) {
        return visit_json(look, (const Google__Protobuf__Value *)(const void *)m, at);
    }
    if (type == &google__protobuf__list_value__descriptor) {
        return visit_list(look, (const Google__Protobuf__ListValue *)(const void *)m, at);
    }
    if (at == look->n) {
        return type == &google__protobuf__timestamp__descriptor
                   ? show_time(look, (const Google__Protobuf__Timestamp *)(const void *)m)
                   : show_part(look);
    }
    field = broker_schema_field(type, look->path[at]);
    return field == NULL ? no_such_field(look, type->name, at)
                         : visit_field(look, m, field, at + 1);
}

void broker_value_visit(struct broker_value_look *look, const ProtobufCMessage *message)
{
    look->err = ERR_OK;
    (void)visit_message(look, message, 0);
}
