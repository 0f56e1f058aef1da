#include "proxy/bearer.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/http/credential.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/secret.h"
#include "proxy/app.h"
#include "proxy/login.h"
#include "proxy/reply.h"

enum {
    SLOTS = 1024,
    KEEP_MS = 60000,    /* how long an issuer's word counts after it took a key back */
    KEEP_BAD_MS = 2000, /* a hammering client costs authenticate one question in that time */
    ASKINGS_MAX = 64,
    WAITING_MAX = 1024, /* requests, for all of them */
    ASK_WAIT_MS = 6000,
    MISSERS = 256,
    MISSES_MAX = 100,  /* bad tokens of one address … */
    MISSES_MS = 10000, /* … in so long */
    V6_NETWORK = 8
};

/* The hash of a token and of what it is good for: nobody finds another text for it, so that comparing
 * it tells nothing. */
struct key {
    unsigned char sum[SHA256_DIGEST_LENGTH];
};

struct slot {
    struct key key;
    int64_t until_ms; /* 0: empty */
    const char *code; /* why it does not hold; NULL: it does */
    struct handle handle;
};

/* An address that showed bad tokens: whoever makes them up must not keep authenticate busy with them.
 * Several share a place, and the last one has it. */
struct misser {
    uint64_t who;
    int64_t since_ms;
    unsigned n;
};

struct proxy_bearers {
    const struct keys *keys;
    EVP_MD_CTX *md;      /* kept: the way of a request allocates nothing */
    struct list askings; /* proxy_asking.in_bearers */
    size_t n_askings;
    size_t n_waiting;
    struct slot slots[SLOTS];
    struct misser missers[MISSERS];
};

struct proxy_bearers *proxy_bearers_new(const struct keys *keys)
{
    struct proxy_bearers *b = MEM_NEW(struct proxy_bearers);

    b->keys = keys;
    b->md = EVP_MD_CTX_new();
    CHECK(b->md != NULL);
    list_init(&b->askings);
    return b;
}

static void asking_free(struct proxy_bearers *b, struct proxy_asking *a)
{
    list_remove(&a->in_bearers);
    b->n_askings--;
    secret_wipe(a->token, a->n_token);
    mem_free(&a->token);
    mem_free(&a);
}

void proxy_bearers_free(struct proxy_bearers **bearers)
{
    struct proxy_bearers *b = *bearers;

    while (b != NULL && !list_empty(&b->askings)) { /* their answers found no loop any more */
        asking_free(b, LIST_ENTRY(b->askings.next, struct proxy_asking, in_bearers));
    }
    if (b != NULL) {
        EVP_MD_CTX_free(b->md);
    }
    mem_free(bearers);
}

/* ---- what was opened before ------------------------------------------------------------------- */

/* route NULL: the token is worth the same on each. Whatever a route's configuration says about tokens is
 * in its edition. */
static struct key key_of(struct proxy_bearers *b, struct sv token, const struct config_route *route)
{
    const uint64_t about[] = { route == NULL ? 0 : route->id, route == NULL ? 0 : route->edition };
    struct key key;
    unsigned n = 0;

    CHECK(EVP_DigestInit_ex(b->md, EVP_sha256(), NULL) == 1 &&
          EVP_DigestUpdate(b->md, about, sizeof(about)) == 1 &&
          EVP_DigestUpdate(b->md, token.p, token.n) == 1 &&
          EVP_DigestFinal_ex(b->md, key.sum, &n) == 1 && n == sizeof(key.sum));
    return key;
}

static struct slot *slot_of(struct proxy_bearers *b, const struct key *key)
{
    uint32_t n = 0;

    memcpy(&n, key->sum, sizeof(n));
    return &b->slots[n % SLOTS];
}

/* NULL: nothing is known of it. */
static const struct slot *recall(struct proxy_bearers *b, const struct key *key)
{
    const struct slot *slot = slot_of(b, key);

    return slot->until_ms > clock_coarse_ms() && memcmp(&slot->key, key, sizeof(*key)) == 0 ? slot
                                                                                            : NULL;
}

static void remember(struct proxy_bearers *b, const struct key *key, const struct handle *handle,
                     int64_t expires_at_s)
{
    int64_t left_ms = (expires_at_s - clock_wall_s()) * 1000;

    *slot_of(b, key) = (struct slot){ .key = *key,
                                      .until_ms = clock_coarse_ms() + MIN(left_ms, KEEP_MS),
                                      .handle = *handle };
}

static void remember_bad(struct proxy_bearers *b, const struct key *key, const char *code)
{
    struct slot *slot = slot_of(b, key);
    int64_t now_ms = clock_coarse_ms();

    if (slot->code != NULL ||
        slot->until_ms <= now_ms) { /* made up, it drives out none that holds */
        *slot = (struct slot){ .key = *key, .until_ms = now_ms + KEEP_BAD_MS, .code = code };
    }
}

/* ---- tokens ----------------------------------------------------------------------------------- */

static enum err open_account(struct proxy_bearers *b, struct sv text, struct handle *handle_out)
{
    const struct key key = key_of(b, text, NULL);
    const struct slot *known = recall(b, &key);
    struct token token = { .role = TOKEN_ROLE_NONE };
    enum err err = ERR_OK;

    if (known != NULL) {
        *handle_out = known->handle;
        return ERR_OK;
    }
    err = token_verify(b->keys, text, &token);
    if (err != ERR_OK || token.role != TOKEN_ROLE_SERVICE_ACCOUNT) {
        return err == ERR_OK ? ERR_CRYPTO : err;
    }
    *handle_out = (struct handle){ .issued_at_s = clock_wall_s() };
    (void)snprintf(handle_out->session, sizeof(handle_out->session), TOKEN_ACCOUNT "%s", token.id);
    remember(b, &key, handle_out, token.expires_at_s);
    return ERR_OK;
}

static enum err open_ours(struct proxy_exchange *x, struct sv text, struct handle *handle_out)
{
    if (sv_starts(text, SV("postern_"))) {
        return open_account(x->worker->bearers, text, handle_out);
    }
    return proxy_handles_open(x->worker->handles, text, proxy_login_holder(x), handle_out);
}

/* The route whose tokens of others count here; NULL: none do. */
static const struct config_route *taker(const struct proxy_exchange *x)
{
    const struct config_route *c =
        (x->service == PROXY_FOR_ROUTE || x->service == PROXY_FOR_VERDICT) && x->route != NULL
            ? x->route->config
            : NULL;

    return c == NULL || c->bearer == CONFIG_BEARER_DEFAULT ? NULL : c;
}

bool proxy_bearer_is_ours(struct proxy_exchange *x, const struct http_field *field)
{
    return field->id == HTTP_H_AUTHORIZATION &&
           http_credential_read(field->value, taker(x) != NULL, &x->arena, NULL);
}

/* The token says who it is; a cookie must not say that somebody else is there. False: x was answered. */
static bool take(struct proxy_exchange *x, const struct handle *handle)
{
    if (x->handle_valid && strcmp(x->handle.session, handle->session) != 0) {
        proxy_reply_fault(x, 400, "credentials-differ");
        return false;
    }
    x->handle = *handle;
    x->handle_valid = true;
    return true;
}

/* ---- who makes tokens up ----------------------------------------------------------------------- */

static uint64_t who_of(const struct proxy_exchange *x)
{
    struct sv ip = proxy_address_bytes(&x->visitor.address);

    return map_hash(sv_head(ip, MIN(ip.n, (size_t)V6_NETWORK)));
}

static bool misses_too_often(struct proxy_bearers *b, const struct proxy_exchange *x)
{
    uint64_t who = who_of(x);
    const struct misser *m = &b->missers[who % MISSERS];

    return m->who == who && m->n >= MISSES_MAX && clock_coarse_ms() - m->since_ms < MISSES_MS;
}

static void note_miss(struct proxy_bearers *b, const struct proxy_exchange *x)
{
    uint64_t who = who_of(x);
    struct misser *m = &b->missers[who % MISSERS];

    if (m->who != who || clock_coarse_ms() - m->since_ms >= MISSES_MS) {
        *m = (struct misser){ .who = who, .since_ms = clock_coarse_ms() };
    }
    m->n++;
}

/* ---- asking authenticate ----------------------------------------------------------------------- */

static struct proxy_asking *asking_of(struct proxy_bearers *b, const struct key *key)
{
    struct list *it;

    LIST_FOREACH(it, &b->askings) {
        struct proxy_asking *a = LIST_ENTRY(it, struct proxy_asking, in_bearers);

        if (memcmp(a->key, key->sum, sizeof(a->key)) == 0) {
            return a;
        }
    }
    return NULL;
}

static struct proxy_asking *ask(struct proxy_worker *worker, const struct key *key, struct sv text,
                                uint64_t route)
{
    struct proxy_asking *a = MEM_NEW(struct proxy_asking);

    list_init(&a->waiting);
    list_push_back(&worker->bearers->askings, &a->in_bearers);
    worker->bearers->n_askings++;
    a->worker = worker;
    memcpy(a->key, key->sum, sizeof(a->key));
    a->token = mem_dup(text.p, text.n);
    a->n_token = text.n;
    a->route = route;
    proxy_app_ask(worker->app, a);
    return a;
}

/* True: x->handle is set. False: x was answered, or waits. */
static bool open_foreign(struct proxy_exchange *x, struct sv text)
{
    struct proxy_bearers *b = x->worker->bearers;
    const struct config_route *route = taker(x);
    const struct key key = key_of(b, text, route);
    const struct slot *known = recall(b, &key);
    struct proxy_asking *a = NULL;

    if (known != NULL && known->code == NULL) {
        return take(x, &known->handle);
    }
    if (known != NULL) {
        proxy_reply_fault(x, 401, known->code);
        return false;
    }
    if (misses_too_often(b, x)) {
        proxy_reply_fault(x, 429, "too-many-bad-tokens");
        return false;
    }
    a = asking_of(b, &key);
    if (b->n_waiting >= WAITING_MAX || (a == NULL && b->n_askings >= ASKINGS_MAX)) {
        proxy_reply_fault(x, 503, "too-many-tokens");
        return false;
    }
    if (a == NULL) {
        a = ask(x->worker, &key, text, route->id);
    }
    x->asking = a;
    list_push_back(&a->waiting, &x->in_asking);
    b->n_waiting++;
    x->phase = PROXY_CHECK;
    x->deadline_ms = clock_mono_ms() + ASK_WAIT_MS;
    return false;
}

void proxy_bearer_leave(struct proxy_exchange *x)
{
    if (x->asking != NULL) {
        list_remove(&x->in_asking);
        x->asking = NULL;
        x->worker->bearers->n_waiting--;
    }
}

static void tell(struct proxy_exchange *x, const struct proxy_asking *a)
{
    if (a->status == RPC_OK) {
        if (take(x, &a->handle)) {
            proxy_request_identified(x);
        }
    } else if (a->status == RPC_UNAUTHENTICATED) {
        note_miss(x->worker->bearers, x);
        proxy_reply_fault(x, 401, a->code);
    } else {
        proxy_reply_fault(x, 503, "token-not-verified");
    }
}

void proxy_bearer_answered(struct proxy_asking *asking)
{
    struct proxy_bearers *b = asking->worker->bearers;
    struct key key;

    memcpy(key.sum, asking->key, sizeof(key.sum));
    if (asking->status == RPC_OK) {
        remember(b, &key, &asking->handle, asking->expires_at_s);
    } else if (asking->status == RPC_UNAUTHENTICATED) {
        remember_bad(b, &key, asking->code);
    }
    list_remove(&asking->in_bearers); /* who comes now finds the answer, or asks anew */
    while (!list_empty(&asking->waiting)) {
        struct proxy_exchange *x =
            LIST_ENTRY(asking->waiting.next, struct proxy_exchange, in_asking);

        proxy_bearer_leave(x);
        tell(x, asking);
    }
    asking_free(b, asking);
}

/* ---- all --------------------------------------------------------------------------------------- */

bool proxy_bearer_identify(struct proxy_exchange *x)
{
    const struct http_credential shown =
        http_credential_find(&x->head, taker(x) != NULL, &x->arena);
    struct handle handle;
    enum err err = ERR_OK;

    proxy_login_identify(x);
    x->by_token = shown.shown;
    if (!shown.shown) {
        return true;
    }
    if (shown.differs) {
        proxy_reply_fault(x, 400, "credentials-differ");
        return false;
    }
    err = open_ours(x, shown.token, &handle);
    if (err == ERR_OK) {
        return take(x, &handle);
    }
    if (taker(x) != NULL && shown.token.n != 0 && !sv_starts(shown.token, SV("postern_"))) {
        return open_foreign(x, shown.token);
    }
    proxy_reply_fault(x, 401, err == ERR_EXPIRED ? "token-expired" : "token-invalid");
    return false;
}
