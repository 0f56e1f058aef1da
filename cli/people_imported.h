/* people_imported: the groups of the imported directory, for who asks policies about everybody. All of it is
 * held. One thread. */
#pragma once

#include "cli/people.h"

struct people_imported;

/* *imported_out: NULL: none is in force. ERR_UNAVAILABLE: it failed and was said. */
MUST_CHECK enum err people_imported_load(const struct cli_broker *broker,
                                         struct people_imported **imported_out);
void people_imported_free(struct people_imported **imported);
/* Gives person the groups that the directory says, or none; from then on the directory has told of that
 * person. */
void people_imported_apply(struct people_imported *imported, json_t *person);
/* Those of whom it has not told, as people. */
void people_imported_rest(const struct people_imported *imported, cli_person_fn fn, void *arg);
