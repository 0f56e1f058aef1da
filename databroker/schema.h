/* broker_schema: the fields of the data of records, for those who name a field: filters of a Query, masks
 * of a Patch. Pure functions; any thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/sv.h"

/* The message behind an Any's type_url; NULL: a type whose fields are not known here. */
const ProtobufCMessageDescriptor *broker_schema_of(struct sv type_url);
/* The field called name; NULL: the message has none. */
const ProtobufCFieldDescriptor *broker_schema_field(const ProtobufCMessageDescriptor *type,
                                                    struct sv name);
/* Whether a repeated field is a map: its entries are messages {key = 1, value = 2}. */
bool broker_schema_is_map(const ProtobufCFieldDescriptor *field);
