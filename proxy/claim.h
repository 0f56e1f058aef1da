/* proxy_claim: one exchange's use of a cluster, from its first attempt to the end of its answer: counted
 * against the cluster's bounds and at the endpoint, whatever connection or stream carries it. Part of
 * an exchange, which holds its snapshot; owned by its worker. */
#pragma once

#include "common/base.h"
#include "proxy/cluster.h"

struct proxy_claim {
    struct proxy_cluster *cluster;   /* the snapshot's; NULL: nothing is claimed */
    struct proxy_endpoint *endpoint; /* the one chosen, with a reference; NULL: none yet */
    uint64_t key;                    /* what RING_HASH and MAGLEV keep together */
    bool retrying;                   /* counted as a retry */
    bool judged;                     /* the outcome of this attempt is noted */
};

/* NULL: claimed. Else the code of the bound that was reached; nothing is claimed then. */
const char *proxy_claim_begin(struct proxy_claim *claim, struct proxy_cluster *cluster,
                              uint64_t key);
/* Chooses an endpoint, another than the one before where there is one. False: there is none. */
bool proxy_claim_choose(struct proxy_claim *claim, struct proxy_view *view);
/* Goes over to an endpoint that was found otherwise. */
void proxy_claim_use(struct proxy_claim *claim, struct proxy_endpoint *endpoint);
/* What came of the attempt: a status, or 503 for no connection or answer, 504 for none in time. Once an
 * attempt; later calls say nothing. */
void proxy_claim_note(struct proxy_claim *claim, unsigned status);
/* The request is to be asked a second time. False: max_retries are under way. */
bool proxy_claim_retry(struct proxy_claim *claim);
/* May be called twice. */
void proxy_claim_end(struct proxy_claim *claim);
