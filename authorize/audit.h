/* authz_audit: one JSON line for each decision, allow and deny alike, to standard output. Lines are
 * gathered on the check thread and written by a thread of its own, so that a reader of our output
 * who stands still delays no verdict. At most AUTHZ_AUDIT_MAX bytes wait; beyond that, and when
 * writing fails, lines are lost: they are counted, and audit.lost says so on standard error.
 * Verdicts go on: a full disk must not lock everybody out of what they need to repair it. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/check.h"
#include "common/base.h"

enum { AUTHZ_AUDIT_MAX = 16 * 1024 * 1024, AUTHZ_AUDIT_GATHER_MS = 5 };

struct authz_audit;

struct authz_audit *authz_audit_new(void);
/* Writes what waits, then ends the thread. */
void authz_audit_free(struct authz_audit **audit);
/* Adds the line of one decision; authz_audit_flush hands lines over, once a batch. */
void authz_audit_add(struct authz_audit *audit, const Postern__CheckRequest *req,
                     const struct authz_outcome *outcome, int64_t wall_ms);
void authz_audit_flush(struct authz_audit *audit);
/* Lines lost since the start; any thread. */
uint64_t authz_audit_lost(struct authz_audit *audit);

/* The line itself, for tests: appends it with its line break. */
void authz_audit_line(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *outcome, int64_t wall_ms);
