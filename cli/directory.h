/* directory: who there is and who is in which group, out of files of a directory, as rows for
 * common/data/set (DATA_DIRECTORY_TYPE). Files may be several, of any format, and name each other's
 * groups and people; all of them are the directory.
 *
 *   JSON  {"users": [{"id", "email", "name", "groups": [id]}], "groups": [{"id", "name", "email"}]}; or the
 *         list of users alone. Where groups are listed, a group that is not is a mistake.
 *   CSV   one row a user: columns id, email, name and groups, the groups separated by ";".
 *   LDIF  RFC 2849, entries and no changes. People and groups by their object class, memberships by the
 *         group (member, uniqueMember, memberUid) or by the person (memberOf). A group that is a member
 *         brings its members along.
 *
 * One thread. */
#pragma once

#include "common/base.h"
#include "common/data/rows.h"
#include "common/diag.h"
#include "common/sv.h"

enum {
    DIRECTORY_BYTES_MAX = 256 * 1024 * 1024, /* of a file */
    DIRECTORY_GROUPS_MAX = 100000,
    DIRECTORY_LINKS_MAX = 5000000, /* memberships that files name, of people and of groups */
    DIRECTORY_OF_ONE_MAX = 5000,   /* groups of one person */
    DIRECTORY_ROW_MAX = 512 * 1024
};

enum directory_format { DIRECTORY_JSON = 0, DIRECTORY_CSV, DIRECTORY_LDIF };

/* What policies may call a group. */
enum directory_by {
    DIRECTORY_BY_ID = 0,
    DIRECTORY_BY_NAME,
    DIRECTORY_BY_EMAIL,
    DIRECTORY_BY_DN,
    DIRECTORY_BY_COUNT
};

const char *directory_by_name(enum directory_by by);
/* "id,name,email" as a set of bits. False: empty, or it has another name. */
bool directory_by_parse(struct sv text, unsigned *by_out);

struct directory_opts {
    enum data_key key;    /* USER or EMAIL: whom a person's row belongs to */
    const char *id_field; /* where the user id stands; NULL: "id", of LDIF "uid" */
    unsigned by;          /* a bit for each; a group has one of them at least */
};

struct directory;

/* What was read, for people. */
struct directory_counts {
    size_t people;
    size_t groups;
    size_t memberships;
    size_t keyless;   /* LDIF: people without what the key needs */
    size_t others;    /* LDIF: entries that are neither people nor groups */
    size_t strangers; /* members that no file has */
};

/* opts is borrowed. */
struct directory *directory_new(const struct directory_opts *opts);
void directory_free(struct directory **directory);

/* Takes a file in. name is borrowed. ERR_INVALID, ERR_LIMIT: d has file and line, and what is wrong. */
MUST_CHECK enum err directory_read(struct directory *directory, const char *name,
                                   enum directory_format format, struct sv text, struct diag *d);
/* Once, after the last file. ERR_INVALID, ERR_LIMIT as above: two groups that policies would call the same,
 * two people with one key, a group that is not there. */
MUST_CHECK enum err directory_rows(struct directory *directory, struct data_rows **rows_out,
                                   struct directory_counts *counts_out, struct diag *d);
