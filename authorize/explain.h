/* authz_explain: why: what would be decided for a question now, and what was decided for a request
 * that is remembered, with the trace of the policy and the state of the facts. For people and on the
 * check thread; costs what a check costs and the writing of a document. */
#pragma once

#include "authorize.pb-c.h"

#include "authorize/check.h"
#include "authorize/recent.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"

enum { AUTHZ_EXPLAIN_MAX = 3 << 20 }; /* bytes of a document; below RPC_MESSAGE_MAX */

/* Appends the document, JSON: docs/explain.md. ERR_NOT_FOUND: no such request, route or user is
 * known here; ERR_INVALID: the question is none or names several; ERR_LIMIT: the document is too
 * large. d has the sentence. */
MUST_CHECK enum err authz_explain(const struct authz_facts *facts,
                                  const struct authz_recent *recent,
                                  const Postern__ExplainRequest *question, struct buf *out,
                                  struct diag *d);
