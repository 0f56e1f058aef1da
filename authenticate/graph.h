/* authn_graph: the groups of somebody of whom Microsoft Entra says only that they are elsewhere (more than 200:
 * `_claim_names`, `hasgroups`). They are asked of Microsoft Graph with the person's own access token, page
 * by page to the end; all of them or none. What the token says about where they are is not followed: the
 * token would go wherever that points. Loop thread. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/config/config.h"
#include "common/fetch.h"
#include "common/sv.h"

enum {
    AUTHN_GRAPH_MS = 8000, /* for all pages */
    AUTHN_GRAPH_PAGES_MAX = 50
};

struct authn_graph;

/* why: "": the groups are in the claims now, as if the token had had them; else what is in the way. Called
 * once, later. */
typedef void (*authn_graph_fn)(void *arg, const char *why);

struct authn_graph_ask {
    struct fetcher *fetcher;
    const struct config *config;
    json_t *claims; /* stay until done */
    struct sv access_token;
    authn_graph_fn done;
    void *arg;
};

/* NULL: *graph_out is under way. Else there is nothing to be asked, and done is not called: "": the claims have
 * all groups; or why it cannot be. */
const char *authn_graph_start(const struct authn_graph_ask *ask, struct authn_graph **graph_out);
/* *graph becomes NULL; NULL is fine. Not from within done. */
void authn_graph_cancel(struct authn_graph **graph);

/* Adds the groups of a page to seen, whose keys they are. *next_out: where the next page is, in page; "": it
 * was the last. ERR_INVALID: no such page, or the next one is elsewhere than at url; ERR_LIMIT: too many
 * groups. */
MUST_CHECK enum err authn_graph_page(const json_t *page, struct sv url, json_t *seen,
                                     struct sv *next_out);
