#include "authenticate/keyset.h"

#include "common/clock.h"
#include "common/fetch.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"

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
    struct buf iss;      /* kubernetes: the cluster's; empty: not known yet */
    struct buf next_iss; /* what the refresh under way has found */
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
    buf_init(&k->iss, AUTHN_ISSUER_MAX);
    buf_init(&k->next_iss, AUTHN_ISSUER_MAX);
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
    buf_deinit(&k->iss);
    buf_deinit(&k->next_iss);
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

struct sv authn_keyset_iss(const struct authn_keyset *k)
{
    return k->issuer->kubernetes ? buf_sv(&k->iss) : k->issuer->issuer;
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
    buf_reset(&k->iss);
    buf_add_sv(&k->iss, buf_sv(&k->next_iss));
    k->fetched_at_ms = clock_mono_ms();
    k->backoff_ms = 0;
    k->not_before_ms = 0;
    log_info("issuer.known", KV_SV("issuer", k->issuer->name),
             KV_U64("keys", jose_keys_count(keys)));
    authn_waiters_wake(&k->waiting, ERR_OK);
}

/* The API server is asked as the pod's service account, by its group one of those that may. */
static void ask_cluster(struct authn_keyset *k, const char *path, fetch_done_fn done)
{
    struct sv base = k->issuer->api_url;
    CLEANUP(buf_deinit) struct buf url;
    CLEANUP(buf_deinit) struct buf authorization;
    struct fetch_request request = { .url = NULL };

    buf_init(&url, 4096);
    buf_init(&authorization, 32768);
    buf_add_sv(&url, sv_ends(base, SV("/")) ? sv_head(base, base.n - 1) : base);
    buf_add_str(&url, path);
    request.url = buf_cstr(&url);
    if (k->issuer->api_token != NULL) {
        buf_add_str(&authorization, "Bearer ");
        buf_add_sv(&authorization, secret_bytes(k->issuer->api_token));
        request.authorization = buf_cstr(&authorization);
    }
    k->fetch = fetch_start(k->fetcher, &request, done, k);
    if (authorization.p != NULL) {
        secret_wipe(authorization.p, authorization.n);
    }
}

/* Of the document only who signs: its jwks_uri may be for others, who come from outside of the cluster. */
static void on_cluster(void *arg, const struct fetch_answer *answer)
{
    struct authn_keyset *k = arg;
    json_t *doc = NULL;
    const json_t *issuer = NULL;

    k->fetch = NULL;
    buf_reset(&k->next_iss);
    if (answer->err != ERR_OK || answer->status != 200) {
        failed(k, answer->err != ERR_OK ? answer->text
                                        : "the API server's discovery has no status 200");
        return;
    }
    if (jose_object_parse(answer->body, JOSE_SET_MAX, &doc) == ERR_OK) {
        issuer = json_object_get(doc, "issuer");
        buf_add_sv(&k->next_iss, sv_of(json_string_value(issuer), json_string_length(issuer)));
    }
    json_decref(doc);
    if (k->next_iss.err != ERR_OK || k->next_iss.n == 0) {
        failed(k, "the API server's discovery names no issuer");
        return;
    }
    ask_cluster(k, "/openid/v1/jwks", on_jwks);
}

static void start(struct authn_keyset *k)
{
    const struct fetch_request request = { .url = k->issuer->jwks_url.p };

    if (k->issuer->kubernetes) {
        ask_cluster(k, "/.well-known/openid-configuration", on_cluster);
    } else {
        k->fetch = fetch_start(k->fetcher, &request, on_jwks, k);
    }
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
