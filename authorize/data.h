/* authz_data: rows of external data as the record criterion reads them (common/data/form.h), and those of
 * the imported directory; part of the replica. Lookups allocate nothing. The check thread's. */
#pragma once

#include "databroker.pb-c.h"

#include "authorize/text.h"
#include "common/base.h"
#include "common/policy/input.h"
#include "common/sv.h"

struct authz_data;

struct authz_data *authz_data_new(struct authz_texts *texts);
void authz_data_free(struct authz_data **data);

/* Takes a record in; one that is no external data changes nothing. One that is not newer than what
 * is held neither. False: it could not be read; what was there of that id is gone. */
MUST_CHECK bool authz_data_apply(struct authz_data *data, const Databroker__Record *record);
/* Grows whenever something that a policy may read has changed. */
uint64_t authz_data_epoch(const struct authz_data *data);
size_t authz_data_rows(const struct authz_data *data);

/* Whose rows are asked for. All borrowed. */
struct authz_data_ask {
    struct authz_data *data; /* where fields are unpacked to is its own */
    struct sv user_id;
    struct sv email;
    struct sv session_id;
};

/* A policy_record_fn whose arg is a struct authz_data_ask. */
void authz_data_field(void *arg, struct sv type, struct sv field, struct policy_field *field_out);

/* The directory that `postern import directory` brought. Without one the others are not to be asked. */
bool authz_data_has_directory(const struct authz_data *data);
/* Grows whenever somebody's groups by it may be others. */
uint64_t authz_data_directory_epoch(const struct authz_data *data);
/* Whether it has ask's person. */
bool authz_data_is_listed(const struct authz_data_ask *ask);
/* The groups of ask's person; NULL: none, or it has not that person. They stay until the next question of
 * this kind or the next change. */
const struct policy_claim *authz_data_groups(const struct authz_data_ask *ask);

/* A source that is polled, or a file that was imported. */
struct authz_data_source {
    int64_t checked_s; /* when it last said what is in force; 0: never */
    const char *error; /* why it could not be asked since; "": it could. Borrowed */
};

/* False: rows of the type are not polled. */
bool authz_data_source(const struct authz_data *data, struct sv type,
                       struct authz_data_source *source_out);
