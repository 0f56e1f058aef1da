/* cli_policy_case: one case of a policy: compile, ask, compare. One thread.
 * The format: docs/policy.md. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/yaml.h"

/* What stands around the cases of a file and counts where a case says nothing itself. */
struct cli_policy_suite {
    const struct yaml_doc *doc; /* that native policies are part of; NULL */
    const char *file;
    const json_t *policy;   /* NULL: every case has its own */
    const json_t *route;    /* likewise */
    const json_t *policies; /* central ones, by name; likewise */
};

/* True: the case holds. Else says in difference what was expected and what came, as whole lines. */
bool cli_policy_case_run(const struct cli_policy_suite *suite, const json_t *item,
                         struct buf *difference);
/* "?" where it has none. */
const char *cli_policy_case_name(const json_t *item);
