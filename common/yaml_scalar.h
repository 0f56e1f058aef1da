/* yaml_scalar: what a scalar of YAML means as JSON. Source: YAML 1.2 core schema as Go's yaml.v3
 * reads it. Pure functions; any thread. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

/* tag: the explicit one, NULL where there is none; plain: not quoted, no block.
 * ERR_INVALID: no JSON value (NUL in a text, .inf, .nan), a tag that does not fit or is unknown. */
MUST_CHECK enum err yaml_scalar_parse(struct sv text, bool plain, const char *tag,
                                      json_t **value_out, struct diag *d);
