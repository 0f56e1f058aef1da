#include "proxy/claim.h"

/* Exact: whoever goes over the bound steps back.
 * NOLINTNEXTLINE(readability-non-const-parameter): an atomic write */
static bool enter(uint32_t *count, uint32_t max)
{
    if (__atomic_add_fetch(count, 1, __ATOMIC_RELAXED) <= max) {
        return true;
    }
    (void)__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
    return false;
}

const char *proxy_claim_begin(struct proxy_claim *claim, struct proxy_cluster *cluster,
                              uint64_t key)
{
    if (!enter(&cluster->n_requests, cluster->conf.limits.max_requests)) {
        return "upstream-max-requests";
    }
    *claim = (struct proxy_claim){ .cluster = cluster, .key = key };
    return NULL;
}

static void let_go(struct proxy_claim *claim)
{
    if (claim->endpoint != NULL) {
        (void)__atomic_sub_fetch(&claim->endpoint->active, 1, __ATOMIC_RELAXED);
        proxy_endpoint_unref(&claim->endpoint);
    }
}

void proxy_claim_use(struct proxy_claim *claim, struct proxy_endpoint *endpoint)
{
    struct proxy_endpoint *fresh = proxy_endpoint_ref(endpoint);

    (void)__atomic_add_fetch(&fresh->active, 1, __ATOMIC_RELAXED);
    let_go(claim);
    claim->endpoint = fresh;
    claim->judged = false;
}

bool proxy_claim_choose(struct proxy_claim *claim, struct proxy_view *view)
{
    struct proxy_endpoint *found =
        proxy_table_pick(view->table, &view->cursor, claim->key, claim->endpoint);

    if (found == NULL) {
        return false;
    }
    proxy_claim_use(claim, found);
    return true;
}

void proxy_claim_note(struct proxy_claim *claim, unsigned status)
{
    if (claim->endpoint == NULL || claim->judged) {
        return;
    }
    claim->judged = true;
    proxy_cluster_report(claim->cluster, claim->endpoint,
                         proxy_outlier_note(&claim->cluster->conf.outlier, claim->endpoint,
                                            proxy_outcome_of(status)));
}

bool proxy_claim_retry(struct proxy_claim *claim)
{
    claim->retrying = claim->retrying ||
                      enter(&claim->cluster->n_retries, claim->cluster->conf.limits.max_retries);
    return claim->retrying;
}

void proxy_claim_end(struct proxy_claim *claim)
{
    if (claim->cluster == NULL) {
        return;
    }
    let_go(claim);
    (void)__atomic_sub_fetch(&claim->cluster->n_requests, 1, __ATOMIC_RELAXED);
    if (claim->retrying) {
        (void)__atomic_sub_fetch(&claim->cluster->n_retries, 1, __ATOMIC_RELAXED);
    }
    claim->cluster = NULL;
    claim->retrying = false;
}
