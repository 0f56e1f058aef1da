/* policy_zone: an IANA time zone read from the system's TZif files once, when a policy is compiled;
 * asking it is pure, unlike the C library's one zone a process. Lives in an arena; any thread.
 * Source: RFC 8536. Internal to common/policy. */
#pragma once

#include "common/arena.h"
#include "common/base.h"
#include "common/sv.h"

struct policy_zone;

/* "UTC" needs no file. ERR_NOT_FOUND: no zone of that name here. ERR_INVALID: its file is broken. */
MUST_CHECK enum err policy_zone_load(struct sv name, struct arena *arena,
                                     const struct policy_zone **zone_out);
/* The same from bytes; for tests and fuzzing. */
MUST_CHECK enum err policy_zone_parse(struct sv tzif, struct arena *arena,
                                      const struct policy_zone **zone_out);
/* Seconds east of UTC at a moment. */
int64_t policy_zone_offset(const struct policy_zone *zone, int64_t wall_s);
