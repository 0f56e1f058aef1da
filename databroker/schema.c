#include "databroker/schema.h"

#include "access.pb-c.h"
#include "device.pb-c.h"
#include "events.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "session.pb-c.h"
#include "token.pb-c.h"
#include "user.pb-c.h"

static const ProtobufCMessageDescriptor *const known[] = {
    &session__session__descriptor,
    &session__session_binding__descriptor,
    &session__session_binding_request__descriptor,
    &session__identity_binding__descriptor,
    &user__user__descriptor,
    &user__service_account__descriptor,
    &google__protobuf__struct__descriptor,
    &google__protobuf__value__descriptor,
    &pomerium__device__type__descriptor,
    &pomerium__device__enrollment__descriptor,
    &pomerium__device__credential__descriptor,
    &pomerium__events__last_error__descriptor,
    &postern__session_access__descriptor,
    &postern__token_state__descriptor,
};

const ProtobufCMessageDescriptor *broker_schema_of(struct sv type_url)
{
    size_t slash = sv_rfind(type_url, '/');
    struct sv name = slash == SIZE_MAX ? type_url : sv_from_at(type_url, slash + 1);

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (sv_eq(name, sv_from(known[i]->name))) {
            return known[i];
        }
    }
    return NULL;
}

const ProtobufCFieldDescriptor *broker_schema_field(const ProtobufCMessageDescriptor *type,
                                                    struct sv name)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (sv_eq(name, sv_from(type->fields[i].name))) {
            return &type->fields[i];
        }
    }
    return NULL;
}

bool broker_schema_is_map(const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *entry = NULL;

    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return false;
    }
    entry = field->descriptor;
    return entry->n_fields == 2 && entry->fields[0].id == 1 && entry->fields[1].id == 2 &&
           sv_eq(sv_from(entry->fields[0].name), SV("key")) &&
           sv_eq(sv_from(entry->fields[1].name), SV("value")) &&
           sv_ends(sv_from(entry->short_name), SV("Entry"));
}
