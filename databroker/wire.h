/* broker_wire: records as the messages of proto/databroker.proto and back. What is made points into
 * the arena or into the record itself: it is packed and forgotten, never freed. Any thread. */
#pragma once

#include "databroker.pb-c.h"

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "databroker/record.h"
#include "databroker/store.h"

/* The record as a message. Texts of record end in NUL, as those of a list do. */
void broker_wire_record(struct arena *arena, const struct broker_record *record,
                        Databroker__Record *message_out);
/* All of a list: list->count of them. */
Databroker__Record **broker_wire_records(struct arena *arena, const struct broker_records *list);
/* Checks and copies n messages to list. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err broker_wire_read_all(Databroker__Record *const *messages, size_t n,
                                         struct broker_records *list, struct diag *d);
/* Positive and at most max_s seconds. ERR_INVALID, ERR_LIMIT. */
MUST_CHECK enum err broker_wire_duration(const Google__Protobuf__Duration *message, int64_t max_s,
                                         int64_t *ms_out, struct diag *d);
/* Unpacks options (they were scanned when they came) into arena; NULL: they are damaged. */
Databroker__Options *broker_wire_options(struct arena *arena, struct sv bytes);
/* Copies text with its NUL. */
char *broker_wire_text(struct arena *arena, struct sv text);
