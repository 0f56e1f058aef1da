/* authz_shadow: how often the shadow policies of routes would have decided otherwise, summed up in the
 * log: one line a route and minute, where there is a difference. The check thread's. */
#pragma once

#include "authorize/check.h"
#include "authorize/rules.h"
#include "common/base.h"

enum { AUTHZ_SHADOW_TELL_MS = 60 * 1000 };

struct authz_shadow;

/* For these rules; NULL where no route has a shadow policy. */
struct authz_shadow *authz_shadow_new(const struct authz_rules *rules);
/* Tells what was not told yet. */
void authz_shadow_free(struct authz_shadow **shadow, const struct authz_rules *rules);
/* Notes a decision whose has_shadow is set; tells when it is time. */
void authz_shadow_note(struct authz_shadow *shadow, const struct authz_facts *facts,
                       const struct authz_outcome *outcome);
