/* people: the visitors that policies are asked about, one after the other, as `input` of a policy case
 * holds them: from the databroker's users and directory, or from a file. One thread; holds one page of
 * each kind of record at a time. */
#pragma once

#include <jansson.h>

#include "cli/broker.h"
#include "common/base.h"
#include "common/diag.h"

/* person: user, email, user_claims, groups, directory_email; borrowed. False: enough. */
typedef bool (*cli_person_fn)(const json_t *person, void *arg);

/* Every user and directory user of the databroker, with the groups that count, and who only the imported
 * directory has. ERR_UNAVAILABLE: it failed and was said. */
MUST_CHECK enum err cli_people_of_broker(const struct cli_broker *broker, cli_person_fn fn,
                                         void *arg);
/* Of a YAML list: entries of a users file (docs/login.md), or `input` of cases. ERR_INVALID, ERR_IO,
 * ERR_LIMIT: d says why. */
MUST_CHECK enum err cli_people_of_file(const char *path, cli_person_fn fn, void *arg,
                                       struct diag *d);
