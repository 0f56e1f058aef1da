/* data_form: how rows of external data stand in the databroker, for who writes them and who reads
 * them. A set of rows is the records of one type:
 *   id "set"              {"key": KIND, "generation": G, "rows": N, "weight": N}: what is in force
 *   id "G/<key's value>"  one row, a Struct of its fields
 *   id "source"           {"checked": SECONDS, "error": TEXT}: when a source that is polled was last found
 *                         to say what is in force, and why it was not since; "": it was
 * Rows of another generation than the set's are not in force: a large set is written beside the one
 * that serves and comes into force, whole, with the one record that names it. Pure functions; any
 * thread. */
#pragma once

#include "google/protobuf/struct.pb-c.h"

#include "common/base.h"
#include "common/sv.h"

#define DATA_SET_ID    "set"
#define DATA_SOURCE_ID "source"
#define DATA_LEASE     "external-data/" /* and the type: held by who writes its records */
/* The imported directory: of each person a row whose "group_ids" is the list of their groups. No external
 * data: policies read it by `groups`, and while it is in force nothing else says who is in a group. */
#define DATA_DIRECTORY_TYPE "postern.io/Directory"
#define DATA_STRUCT_TYPE    "type.googleapis.com/google.protobuf.Struct"

enum {
    DATA_TYPE_MAX = 120,
    DATA_KEY_MAX = 400, /* bytes of a user id, an address, a session id */
    DATA_GENERATION_MAX = 16,
    DATA_ERROR_MAX = 300, /* of "error" */
    DATA_ID_MAX = DATA_GENERATION_MAX + 1 + DATA_KEY_MAX
};

/* What a row belongs to. */
enum data_key { DATA_KEY_NONE = 0, DATA_KEY_USER, DATA_KEY_EMAIL, DATA_KEY_SESSION };

/* "user_id", "email", "session_id"; NONE: "". And back; NONE: no such. */
const char *data_key_name(enum data_key key);
enum data_key data_key_parse(struct sv name);

/* Whether records of the type are external data: a name of letters, digits and ._-/ with a domain of
 * somebody's own before the first slash, so that no type with a meaning of its own can be one. */
bool data_type_is_external(struct sv type);
/* Whether they are a set of rows at all: external data, or the directory. */
bool data_type_is_set(struct sv type);

/* The id of the row of a person or session. Addresses are the same in letters of either case.
 * {NULL, 0}: no row can have that key. */
struct sv data_row_id(struct sv generation, enum data_key kind, struct sv key,
                      char room[DATA_ID_MAX]);

/* A member of those records. */
struct data_member {
    const char *name;
    const char *text; /* NULL: a number */
    int64_t number;
};

enum { DATA_MEMBERS_MAX = 4 };

/* Members as a Struct's bytes, for mem_free; n <= DATA_MEMBERS_MAX. */
uint8_t *data_set_pack(const struct data_member *members, size_t n, size_t *size_out);
/* A text of the record "set" or "source"; "": it is not there, or no text. Borrowed. */
const char *data_set_text(const Google__Protobuf__Struct *set, const char *name);
/* A whole number of it; 0: it is not there, or none. */
int64_t data_set_number(const Google__Protobuf__Struct *set, const char *name);
