/* authn_due: the sessions whose tokens can be refreshed, and when each is to be: a heap with an index by
 * id, about 150 bytes a session and nothing secret. Times are on the wall clock, which is what providers
 * write their ends by. Whoever refreshes one takes it out; until it is put back or dropped it comes up no
 * more: that is what makes a refresh single in this process. Loop thread. */
#pragma once

#include "session.pb-c.h"

#include "common/base.h"
#include "common/sv.h"

struct authn_due;

struct authn_due *authn_due_new(void);
void authn_due_free(struct authn_due **due);
size_t authn_due_count(const struct authn_due *due);

/* Notes a session, or its new time. What is taken stays so. An older version than the one that is known
 * changes nothing. ERR_LIMIT: AUTHN_DUE_MAX are there. */
enum { AUTHN_DUE_MAX = 4 * 1000 * 1000 };
MUST_CHECK enum err authn_due_set(struct authn_due *due, struct sv id, uint64_t version,
                                  int64_t at_ms);
/* The session is over, or holds nothing to refresh with; also while it is taken. */
void authn_due_drop(struct authn_due *due, struct sv id);
/* When the first is due; INT64_MAX: none. */
int64_t authn_due_next_ms(const struct authn_due *due);
/* Takes the first one if it is due. *id_out is valid until it is put back or dropped. */
bool authn_due_take(struct authn_due *due, int64_t now_ms, struct sv *id_out);
/* Comes up again at its time, not before not_before_ms. Nothing if it was dropped meanwhile. */
void authn_due_put_back(struct authn_due *due, struct sv id, int64_t not_before_ms);
/* How often in a row it did not work; counts this one. 0 if it was dropped. */
unsigned authn_due_failed(struct authn_due *due, struct sv id);
void authn_due_worked(struct authn_due *due, struct sv id);

/* When a session's tokens are to be refreshed: some time from *from_ms_out on, for *span_ms_out: before the
 * earlier end of its two tokens, by a fifth of their life and 5 minutes at most; and not within
 * AUTHN_DUE_REST_MS of written_ms, however short they live. False: it has nothing to refresh with. */
enum { AUTHN_DUE_AHEAD_MS = 300000, AUTHN_DUE_REST_MS = 5000 };

bool authn_due_window(const Session__Session *session, int64_t written_ms, int64_t *from_ms_out,
                      int64_t *span_ms_out);
