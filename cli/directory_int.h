/* The inside of a directory: for directory*.c only. */
#pragma once

#include <jansson.h>

#include "cli/directory.h"
#include "common/arena.h"
#include "common/data/row_int.h"
#include "common/map.h"

/* Where something was read. */
struct directory_place {
    const char *file;
    struct data_place at;
};

/* Texts are in the arena; NULL: there is none. */
struct directory_person {
    const char *id;
    const char *email;
    const char *name;
    struct directory_place place;
};

struct directory_group {
    const char *id;
    const char *name;
    const char *email;
    const char *dn; /* as it is compared */
    struct directory_place place;
};

/* Someone is in a group: a person by number, or whoever has a name (a person's, or another group's). */
struct directory_link {
    uint32_t person;    /* DIRECTORY_NOBODY: whoever member names */
    const char *member; /* of the map of people, or of groups */
    const char *group;  /* of the map of groups */
    const char *id; /* of the group, where no file tells more of it; NULL: none may be like that */
    struct directory_place place;
};

#define DIRECTORY_NOBODY UINT32_MAX

struct directory {
    const struct directory_opts *opts;
    struct arena arena;
    struct directory_person *people;
    size_t n_people;
    size_t people_room;
    struct directory_group *groups;
    size_t n_groups;
    size_t groups_room;
    struct directory_link *links;
    size_t n_links;
    size_t links_room;
    struct map *person_of; /* name of LDIF, "d" and a DN or "u" and a uid: its number */
    struct map *group_of;  /* the name by which files speak of it: its number */
    struct directory_counts counts;
    struct diag *d; /* of the call that is under way */
};

/* Says it; returns ERR_INVALID. */
enum err directory_wrong(struct directory *dir, const struct directory_place *place,
                         const char *fmt, ...) PRINTF_LIKE(3, 4);
/* A text as one of the directory: in the arena. ERR_INVALID: too long, no UTF-8, or with control bytes;
 * what says what it is. */
MUST_CHECK enum err directory_text(struct directory *dir, const struct directory_place *place,
                                   const char *what, struct sv text, const char **text_out);

/* Number of the new one. ERR_LIMIT. */
MUST_CHECK enum err directory_add_person(struct directory *dir,
                                         const struct directory_person *person, uint32_t *n_out);
/* name: by which links speak of it. ERR_INVALID: another group has it. */
MUST_CHECK enum err directory_add_group(struct directory *dir, const struct directory_group *group,
                                        const char *name);
/* What people of LDIF are called in memberships. ERR_INVALID: somebody is called so already. */
MUST_CHECK enum err directory_name_person(struct directory *dir, const char *name, uint32_t person,
                                          const struct directory_place *place);
/* SIZE_MAX: nothing has that name. */
size_t directory_number(const struct map *names, const char *name);
MUST_CHECK enum err directory_add_link(struct directory *dir, const struct directory_link *link);

MUST_CHECK enum err directory_json_read(struct directory *dir, const char *name, struct sv text);
MUST_CHECK enum err directory_csv_read(struct directory *dir, const char *name, struct sv text);
MUST_CHECK enum err directory_ldif_read(struct directory *dir, const char *name, struct sv text);

/* From a JSON object of texts, as JSON and CSV have them; member: NULL in out where it is not there. */
MUST_CHECK enum err directory_member(struct directory *dir, const struct directory_place *place,
                                     const json_t *object, const char *member,
                                     const char **text_out);
/* Adds the user of such an object; *n_out. */
MUST_CHECK enum err directory_user(struct directory *dir, const struct directory_place *place,
                                   const json_t *object, uint32_t *n_out);
