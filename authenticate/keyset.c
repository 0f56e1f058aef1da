#include "authenticate/keyset.h"

#include "common/clock.h"
#include "common/fetch.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    BACKOFF_FIRST_MS = 500,
    BACKOFF_LAST_MS = 30000,
    FRESH_MS = 3600000,   /* then the next token has them fetched, without waiting */
    OLD_MS = 24 * 3600000 /* then they verify nothing: a key that was taken back must not live on */
};

struct authn_keyset {
    const struct config_issuer *issuer;
    struct jose_keys *keys;
    bool fixed;
    int64_t fetched_at_ms;
    struct fetcher *fetcher; /* of its own: its CAs */
    struct fetch *fetch;
    struct list waiting; /* authn_waiter.node */
    struct authn_kids kids;
    int64_t backoff_ms;
    int64_t not_before_ms; /* of the next fetch after a failure */
};

enum err authn_keyset_new(struct loop *loop, const struct config_issuer *issuer,
                          struct authn_keyset **keyset_out, struct diag *d)
{
    CLEANUP(authn_keyset_free) struct authn_keyset *k = MEM_NEW(struct authn_keyset);

    k->issuer = issuer;
    list_init(&k->waiting);
    if (issuer->jwks.n != 0) {
        enum err err = jose_keys_parse(issuer->jwks, &k->keys, d);

        if (err != ERR_OK) {
            return err;
        }
        k->fixed = true;
    } else {
        k->fetcher = fetcher_new(loop, issuer->ca_file.p);
    }
    *keyset_out = TAKE(k);
    return ERR_OK;
}

void authn_keyset_free(struct authn_keyset **keyset)
{
    struct authn_keyset *k = TAKE(*keyset);

    if (k == NULL) {
        return;
    }
    fetch_cancel(&k->fetch);
    fetcher_free(&k->fetcher);
    jose_keys_free(&k->keys);
    authn_waiters_wake(&k->waiting, ERR_UNAVAILABLE);
    mem_free(&k);
}

void authn_keyset_move(struct authn_keyset *keyset, const struct config_issuer *issuer)
{
    keyset->issuer = issuer;
}

const struct config_issuer *authn_keyset_issuer(const struct authn_keyset *keyset)
{
    return keyset->issuer;
}

static void failed(struct authn_keyset *k, const char *why)
{
    k->backoff_ms = k->backoff_ms == 0 ? BACKOFF_FIRST_MS : MIN(k->backoff_ms * 2, BACKOFF_LAST_MS);
    k->not_before_ms = clock_mono_ms() + k->backoff_ms;
    log_warn("issuer.unavailable", KV_SV("issuer", k->issuer->name), KV_STR("why", why),
             KV_I64("retry_ms", k->backoff_ms));
    authn_waiters_wake(&k->waiting, ERR_UNAVAILABLE);
}

static void on_jwks(void *arg, const struct fetch_answer *answer)
{
    struct authn_keyset *k = arg;
    struct jose_keys *keys = NULL;
    struct diag d = { .line = 0 };

    k->fetch = NULL;
    if (answer->err != ERR_OK || answer->status != 200) {
        failed(k, answer->err != ERR_OK ? answer->text : "no answer of status 200");
        return;
    }
    if (jose_keys_parse(answer->body, &keys, &d) != ERR_OK) {
        failed(k, d.text);
        return;
    }
    jose_keys_free(&k->keys);
    k->keys = keys;
    k->fetched_at_ms = clock_mono_ms();
    k->backoff_ms = 0;
    k->not_before_ms = 0;
    log_info("issuer.known", KV_SV("issuer", k->issuer->name),
             KV_U64("keys", jose_keys_count(keys)));
    authn_waiters_wake(&k->waiting, ERR_OK);
}

static void start(struct authn_keyset *k)
{
    const struct fetch_request request = { .url = k->issuer->jwks_url.p };

    k->fetch = fetch_start(k->fetcher, &request, on_jwks, k);
}

const struct jose_keys *authn_keyset_keys(struct authn_keyset *k)
{
    int64_t now_ms = clock_mono_ms();

    if (k->fixed || k->keys == NULL) {
        return k->keys;
    }
    if (now_ms - k->fetched_at_ms > FRESH_MS && k->fetch == NULL && now_ms >= k->not_before_ms) {
        start(k);
    }
    return now_ms - k->fetched_at_ms > OLD_MS ? NULL : k->keys;
}

void authn_keyset_refresh(struct authn_keyset *k, struct authn_waiter *waiter, struct sv kid)
{
    int64_t now_ms = clock_mono_ms();

    if (k->fixed ||
        (k->fetch == NULL && (now_ms < k->not_before_ms ||
                              (k->keys != NULL && !authn_kids_may_ask(&k->kids, kid, now_ms))))) {
        waiter->next(waiter, ERR_UNAVAILABLE);
        return;
    }
    list_push_back(&k->waiting, &waiter->node);
    if (k->fetch == NULL) {
        start(k);
    }
}
