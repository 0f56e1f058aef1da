/* health: the small listener for whoever watches a daemon: /healthz, /readyz, /startupz, /status. It is
 * apart from the public one, tells no secrets and looks at nothing a request says but its path. It
 * lives on the daemon's loop, so an answer is the proof that the loop turns. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/loop.h"
#include "common/sv.h"

enum health_question { HEALTH_STATUS = 0, HEALTH_LIVE, HEALTH_STARTED, HEALTH_READY };

/* Appends the JSON that /status tells to body; true: 200, else 503. */
typedef bool (*health_fn)(enum health_question question, struct buf *body, void *arg);

struct health;

/* address: "host:port" or "unix:/path"; sockets passed under the name health come first. ERR_IO: cannot listen; d says why. */
MUST_CHECK enum err health_new(struct loop *loop, struct sv address, health_fn answer, void *arg,
                               struct health **health_out, struct diag *d);
void health_free(struct health **health);
