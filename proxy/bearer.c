#include "proxy/bearer.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/http/credential.h"
#include "common/mem.h"
#include "common/secret.h"
#include "proxy/app.h"
#include "proxy/login.h"
#include "proxy/reply.h"

enum {
    ASKINGS_MAX = 64,
    WAITING_MAX = 1024, /* requests, for all of them */
    ASK_WAIT_MS = 6000
};

struct proxy_bearers {
    const struct keys *keys;
    struct token_memory *memory;
    struct list askings; /* proxy_asking.in_bearers */
    size_t n_askings;
    size_t n_waiting;
};

struct proxy_bearers *proxy_bearers_new(const struct keys *keys)
{
    struct proxy_bearers *b = MEM_NEW(struct proxy_bearers);

    b->keys = keys;
    b->memory = token_memory_new();
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
        token_memory_free(&b->memory);
    }
    mem_free(bearers);
}

/* ---- tokens ----------------------------------------------------------------------------------- */

static enum err open_account(struct proxy_bearers *b, struct sv text, struct handle *handle_out)
{
    const struct token_key key = token_memory_key(b->memory, text, NULL);
    const struct token_known *known = token_memory_recall(b->memory, &key);
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
    token_memory_keep(b->memory, &key, handle_out, token.expires_at_s);
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

/* ---- asking authenticate ----------------------------------------------------------------------- */

static struct proxy_asking *asking_of(struct proxy_bearers *b, const struct token_key *key)
{
    struct list *it;

    LIST_FOREACH(it, &b->askings) {
        struct proxy_asking *a = LIST_ENTRY(it, struct proxy_asking, in_bearers);

        if (memcmp(&a->key, key, sizeof(a->key)) == 0) {
            return a;
        }
    }
    return NULL;
}

static struct proxy_asking *ask(struct proxy_worker *worker, const struct token_key *key,
                                struct sv text, uint64_t route)
{
    struct proxy_asking *a = MEM_NEW(struct proxy_asking);

    list_init(&a->waiting);
    list_push_back(&worker->bearers->askings, &a->in_bearers);
    worker->bearers->n_askings++;
    a->worker = worker;
    a->key = *key;
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
    const struct token_key key = token_memory_key(b->memory, text, route);
    const struct token_known *known = token_memory_recall(b->memory, &key);
    struct proxy_asking *a = NULL;

    if (known != NULL && known->code == NULL) {
        return take(x, &known->handle);
    }
    if (known != NULL) {
        proxy_reply_fault(x, 401, known->code);
        return false;
    }
    if (token_memory_misses_too_often(b->memory, proxy_address_bytes(&x->visitor.address))) {
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

static void tell(struct proxy_exchange *x, const struct token_answer *answer)
{
    if (answer->status == RPC_OK) {
        if (take(x, &answer->handle)) {
            proxy_request_identified(x);
        }
    } else if (answer->status == RPC_UNAUTHENTICATED) {
        token_memory_note_miss(x->worker->bearers->memory,
                               proxy_address_bytes(&x->visitor.address));
        proxy_reply_fault(x, 401, answer->code);
    } else {
        proxy_reply_fault(x, 503, "token-not-verified");
    }
}

void proxy_bearer_answered(struct proxy_asking *asking)
{
    struct proxy_bearers *b = asking->worker->bearers;
    const struct token_answer *answer = &asking->answer;

    if (answer->status == RPC_OK) {
        token_memory_keep(b->memory, &asking->key, &answer->handle, answer->expires_at_s);
    } else if (answer->status == RPC_UNAUTHENTICATED) {
        token_memory_keep_bad(b->memory, &asking->key, answer->code);
    }
    list_remove(&asking->in_bearers); /* who comes now finds the answer, or asks anew */
    while (!list_empty(&asking->waiting)) {
        struct proxy_exchange *x =
            LIST_ENTRY(asking->waiting.next, struct proxy_exchange, in_asking);

        proxy_bearer_leave(x);
        tell(x, answer);
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
