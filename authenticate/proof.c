#include "authenticate/proof.h"

#include <string.h>

#include <event2/event.h>
#include <jansson.h>
#include <openssl/evp.h>

#include "authenticate.pb-c.h"

#include "authenticate/inspector.h"
#include "authenticate/issuers.h"
#include "authenticate/oidc.h"
#include "authenticate/provider.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/crypto/token.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    PROOFS_MAX = 1024,
    LOOKS_MAX = 10, /* for a session that another call is about to write … */
    LOOK_EVERY_US = 100000,
    LEASE_MORE_S = 2 * AUTHN_LEEWAY_S,
    UNTOLD_LIFE_S =
        3600 /* of a session whose token ends nobody knows when: then it is asked about */
};

struct proof {
    struct list node; /* authn.proofs */
    struct authn *app;
    struct rpc_call *call;
    struct config *config; /* this call's; referenced */
    struct arena arena;
    struct sv token; /* in arena */
    const struct config_route *route;
    const struct config_issuer *issuer; /* NULL: the identity provider */
    struct authn_waiter waiter;
    struct authn_asker asker;
    bool looked_again; /* for keys, or for the provider */
    bool opaque;       /* the provider alone can read it */
    json_t *claims;
    struct sv user_id;
    struct sv session_id;
    int64_t expires_at_s;
    bool session_only; /* the person has records of a login */
    unsigned looks;
    struct event *timer;
    struct rpc_pending *pending;
};

/* --- end ------------------------------------------------------------------------------------------ */

static void proof_free(struct proof *p)
{
    list_remove(&p->node);
    list_remove(&p->waiter.node);
    list_remove(&p->asker.node);
    p->app->n_proofs--;
    if (p->timer != NULL) {
        event_free(p->timer);
    }
    json_decref(p->claims);
    config_unref(&p->config);
    arena_deinit(&p->arena);
    mem_free(&p);
}

static void refuse(struct proof *p, const char *code, const char *why)
{
    static struct log_limit limit;

    if (log_limit_pass(&limit, 10)) {
        log_info("token.refused", KV_STR("code", code), KV_STR("why", why),
                 KV_SV("issuer", p->issuer == NULL ? SV("") : p->issuer->name),
                 KV_SV("route", p->route == NULL ? SV("") : p->route->id_text));
    }
    rpc_call_fail(p->call, RPC_UNAUTHENTICATED, code);
    proof_free(p);
}

static void unavailable(struct proof *p, const char *why)
{
    rpc_call_fail(p->call, RPC_UNAVAILABLE, why);
    proof_free(p);
}

static void answer(struct proof *p, uint64_t version)
{
    Postern__TokenResponse response = POSTERN__TOKEN_RESPONSE__INIT;

    response.session = arena_str(&p->arena, p->session_id);
    response.record_version = version;
    response.idp_id =
        arena_str(&p->arena, p->issuer == NULL ? sv_from(p->app->idp_id) : p->issuer->name);
    response.expires_at_s = p->expires_at_s;
    rpc_call_reply(p->call, &response.base);
    proof_free(p);
}

/* --- the session ---------------------------------------------------------------------------------- */

static struct sv text_of(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

/* What applications and policies believe of a person must come by a way that the operator chose. */
static struct sv take_email(struct proof *p)
{
    const char *why_not = NULL;
    struct sv claim = p->issuer == NULL ? SV("email") : p->issuer->email_claim;
    struct sv email =
        claim.n == 0 ? SV("") : authn_claims_email(p->claims, claim.p, &p->arena, &why_not);

    if (!sv_eq(claim, SV("email"))) {
        (void)json_object_del(p->claims, "email");
    }
    return email;
}

static json_t *take_groups(struct proof *p)
{
    struct sv claim = p->issuer == NULL ? SV("groups") : p->issuer->groups_claim;
    json_t *groups = claim.n == 0 ? json_array() : authn_claims_groups(p->claims, claim.p);

    if (!sv_eq(claim, SV("groups"))) {
        (void)json_object_del(p->claims, "groups");
    }
    return groups;
}

static void on_stored(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct proof *p = arg;

    p->pending = NULL;
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        unavailable(p, "store unavailable");
        return;
    }
    log_info("token.session", KV_SV("user", p->user_id), KV_SV("session", p->session_id));
    answer(p, authn_store_version(response));
}

static void store(struct proof *p)
{
    struct authn_identity who = { .user_id = p->user_id, .email = take_email(p) };
    struct authn_store_login login = { .identity = &who,
                                       .session_id = p->session_id,
                                       .now_s = clock_wall_s(),
                                       .expires_at_s = p->expires_at_s,
                                       .rest = p->app->rest,
                                       .session_only = p->session_only };
    json_t *groups = take_groups(p);
    bool cut = false;
    json_t *flat = NULL;

    /* Two people must not be one because two issuers count alike. */
    CHECK(json_object_set_new(p->claims, "sub", json_stringn(p->user_id.p, p->user_id.n)) == 0);
    flat = authn_claims_flatten(p->claims, &cut);
    who.name = arena_sv(&p->arena, text_of(p->claims, "name"));
    who.idp_id = p->issuer == NULL ? sv_from(p->app->idp_id) : p->issuer->name;
    who.issuer = text_of(p->claims, "iss");
    /* When the person logged in, if the token tells: the token itself is no login. */
    who.authenticated_at_s = (int64_t)json_number_value(json_object_get(p->claims, "auth_time"));
    who.claims = flat;
    who.groups = groups;
    if (authn_claims_groups_elsewhere(p->claims)) {
        who.groups_error = SV("the token has a reference to them");
    }
    p->pending = authn_store_login(p->app->store, &login, &p->arena, on_stored, p);
    json_decref(flat);
    json_decref(groups);
}

/* A person's records say what their last login told, which may be more than this token. */
static void on_user(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    struct proof *p = arg;

    (void)text;
    (void)response;
    p->pending = NULL;
    if (status != RPC_OK && status != RPC_NOT_FOUND) {
        unavailable(p, "store unavailable");
        return;
    }
    p->session_only = status == RPC_OK;
    store(p);
}

static void store_soon(struct proof *p)
{
    if (p->issuer != NULL) {
        store(p);
        return;
    }
    p->pending = authn_store_get(p->app->store, AUTHN_TYPE_USER, p->user_id, on_user, p);
}

static void look(struct proof *p);

static void on_look_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

/* Somebody made a session of this token before. If they are just about to write it, it comes soon. */
static void look_again(struct proof *p)
{
    const struct timeval soon = { .tv_usec = LOOK_EVERY_US };

    if (++p->looks > LOOKS_MAX) {
        refuse(p, "token-revoked", "its session was ended");
        return;
    }
    if (p->timer == NULL) {
        p->timer = event_new(loop_base(p->app->loop), -1, 0, on_look_due, p);
        CHECK(p->timer != NULL);
    }
    (void)event_add(p->timer, &soon);
}

/* When the token ends; in so long, if nobody tells. */
static int64_t ends_at_s(const struct proof *p, int64_t untold_s)
{
    const json_t *exp = json_object_get(p->claims, "exp");

    return exp == NULL ? clock_wall_s() + untold_s : (int64_t)json_number_value(exp);
}

static void on_lease(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct proof *p = arg;

    (void)response;
    p->pending = NULL;
    if (status == RPC_ALREADY_EXISTS) {
        look_again(p);
        return;
    }
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        unavailable(p, "store unavailable");
        return;
    }
    store_soon(p);
}

static void lease(struct proof *p)
{
    CLEANUP(buf_deinit) struct buf name;
    int64_t left_s = ends_at_s(p, AUTHN_BEARER_LIFE_MAX_S) - clock_wall_s();

    buf_init(&name, 256);
    buf_add_str(&name, "bearer/");
    buf_add_sv(&name, p->session_id);
    p->pending = authn_store_lease(p->app->store, buf_cstr(&name), MAX(left_s, 0) + LEASE_MORE_S,
                                   on_lease, p);
}

static void on_session(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct proof *p = arg;
    Session__Session *session = NULL;
    uint64_t version = 0;
    enum err err =
        authn_store_session(status, response, clock_wall_s(), &p->arena, &session, &version);

    p->pending = NULL;
    if (err == ERR_OK && sv_eq(sv_from(session->user_id), p->user_id)) {
        p->expires_at_s = session->expires_at->seconds;
        answer(p, version);
    } else if (err == ERR_NOT_FOUND && authn_store_has(status, response)) {
        store_soon(p); /* cookie_expire is over, the token is not; nobody ended it */
    } else if (err == ERR_NOT_FOUND && p->looks == 0) {
        lease(p);
    } else if (err == ERR_NOT_FOUND) {
        look_again(p);
    } else {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        unavailable(p, "store unavailable");
    }
}

static void look(struct proof *p)
{
    p->pending = authn_store_get(p->app->store, AUTHN_TYPE_SESSION, p->session_id, on_session, p);
}

static void sum_add(EVP_MD_CTX *md, struct sv text)
{
    uint64_t n = text.n; /* in front: no two lists of texts join to the same bytes */

    CHECK(EVP_DigestUpdate(md, &n, sizeof n) == 1 && EVP_DigestUpdate(md, text.p, text.n) == 1);
}

/* Of the token, and of all that decides what the session says. */
static struct sv session_id(struct proof *p)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char digest[32];
    CLEANUP(buf_deinit) struct buf text;

    CHECK(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    sum_add(md, p->token);
    sum_add(md, p->opaque ? sv_from(p->app->idp_id) : p->user_id);
    if (p->issuer != NULL) {
        sum_add(md, p->issuer->email_claim);
        sum_add(md, p->issuer->groups_claim);
    }
    CHECK(EVP_DigestFinal_ex(md, digest, NULL) == 1);
    EVP_MD_CTX_free(md);
    buf_init(&text, 128);
    buf_add_str(&text, TOKEN_SESSION);
    b64_url_add(&text, sv_of(digest, sizeof digest));
    return arena_sv(&p->arena, buf_sv(&text));
}

static void holds(struct proof *p)
{
    CLEANUP(buf_deinit) struct buf user;

    buf_init(&user, 512);
    if (p->issuer != NULL) {
        buf_add_sv(&user, p->issuer->name);
        buf_add_char(&user, '/');
    }
    buf_add_sv(&user, text_of(p->claims, "sub"));
    p->user_id = arena_sv(&p->arena, buf_sv(&user));
    p->session_id = session_id(p);
    p->expires_at_s =
        MIN(ends_at_s(p, UNTOLD_LIFE_S), clock_wall_s() + p->config->cookie_expire_ms / 1000);
    if (p->expires_at_s <= clock_wall_s()) {
        refuse(p, "token-expired", "it is over");
        return;
    }
    look(p);
}

/* --- the token that is signed ---------------------------------------------------------------------- */

static const struct jose_keys *keys_of(const struct proof *p)
{
    struct authn_keyset *set = NULL;

    if (p->issuer == NULL) {
        return p->app->oidc == NULL ? NULL : authn_oidc_keys(p->app->oidc);
    }
    set = authn_issuers_keyset(p->app, p->issuer);
    return set == NULL ? NULL : authn_keyset_keys(set);
}

static void verify(struct proof *p);

/* With or without new keys, those at hand decide. */
static void on_refreshed(struct authn_waiter *waiter, enum err err)
{
    (void)err;
    verify(CONTAINER_OF(waiter, struct proof, waiter));
}

static void refresh(struct proof *p, struct sv kid)
{
    struct authn_keyset *set = p->issuer == NULL ? NULL : authn_issuers_keyset(p->app, p->issuer);

    p->looked_again = true;
    p->waiter.next = on_refreshed;
    if (set != NULL) {
        authn_keyset_refresh(set, &p->waiter, kid);
    } else if (p->issuer == NULL && p->app->oidc != NULL) {
        authn_oidc_refresh(p->app->oidc, &p->waiter, kid);
    } else {
        unavailable(p, "the configuration changed");
    }
}

static bool list_has(struct config_strings list, struct sv text)
{
    for (size_t i = 0; i < list.n; i++) {
        if (sv_eq(list.v[i], text)) {
            return true;
        }
    }
    return false;
}

/* RFC 8725 §3.1, §3.11: the algorithm is the issuer's choice, not the token's, and a token of one kind is
 * none of another. */
static enum err header_check(const struct proof *p, const json_t *header, struct diag *d)
{
    struct sv typ = text_of(header, "typ");
    bool access = sv_ieq(typ, SV("at+jwt")) || sv_ieq(typ, SV("application/at+jwt"));

    if (p->issuer != NULL && !list_has(p->issuer->algs, text_of(header, "alg"))) {
        diag_set(d, "its algorithm is none of supported_algs");
        return ERR_DENIED;
    }
    if (json_object_get(header, "typ") != NULL && !sv_ieq(typ, SV("JWT")) &&
        !(access && p->route->bearer == CONFIG_BEARER_IDP_ACCESS)) {
        diag_set(d, "it is a token of another kind (typ)");
        return ERR_DENIED;
    }
    return ERR_OK;
}

static enum err claims_check(struct proof *p, struct diag *d)
{
    const struct authn_provider *provider =
        p->app->oidc == NULL ? NULL : authn_oidc_provider(p->app->oidc);
    const struct authn_keyset *set =
        p->issuer == NULL ? NULL : authn_issuers_keyset(p->app, p->issuer);
    struct authn_bearer_expected expected = { .now_s = clock_wall_s() };

    if (p->issuer != NULL) {
        expected.issuer = set == NULL ? SV("") : authn_keyset_iss(set);
        expected.audiences = p->issuer->audiences;
    } else if (provider == NULL) {
        return ERR_UNAVAILABLE;
    } else {
        expected.issuer = provider->issuer;
        expected.audiences = p->route->access_audiences;
        expected.opaque = p->opaque;
        if (p->route->bearer == CONFIG_BEARER_IDP_IDENTITY) {
            expected.client_id = p->config->idp_client_id;
        } else {
            expected.any_audience = config_takes_any_audience(expected.audiences);
        }
    }
    return authn_bearer_check(p->claims, &expected, d);
}

/* Of claims that somebody stands for. */
static void judge(struct proof *p)
{
    struct diag d = { .line = 0 };
    enum err err = claims_check(p, &d);

    if (err == ERR_OK) {
        holds(p);
    } else if (err == ERR_UNAVAILABLE) {
        unavailable(p, "the provider is not known yet");
    } else {
        refuse(p, err == ERR_EXPIRED ? "token-expired" : "token-invalid", d.text);
    }
}

static void verify(struct proof *p)
{
    const struct jose_keys *keys = keys_of(p);
    CLEANUP(buf_deinit) struct buf payload;
    char kid[JOSE_KID_MAX + 1] = "";
    json_t *header = NULL;
    struct diag d = { .line = 0 };
    enum err err = ERR_OK;

    buf_init(&payload, JOSE_TOKEN_MAX);
    if (keys == NULL) {
        if (p->looked_again) {
            unavailable(p, "the issuer's keys cannot be had");
        } else {
            refresh(p, SV(""));
        }
        return;
    }
    err = jose_verify(keys, p->token, &payload, &header, &d);
    if (!p->looked_again && jose_token_kid(p->token, kid) == ERR_OK &&
        (err == ERR_NOT_FOUND || (err == ERR_CRYPTO && kid[0] == '\0'))) {
        refresh(p, sv_from(kid));
        return;
    }
    err = err == ERR_OK ? header_check(p, header, &d) : err;
    json_decref(header);
    if (err == ERR_OK) {
        err = jose_object_parse(buf_sv(&payload), JOSE_TOKEN_MAX, &p->claims);
    }
    if (err == ERR_OK) {
        judge(p);
    } else {
        refuse(p, "token-invalid", d.text);
    }
}

/* --- the token that only the provider can read ------------------------------------------------------ */

static void refuse_ended(struct proof *p)
{
    refuse(p, "token-invalid", "the provider says that it does not hold");
}

static void on_ended(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct proof *p = arg;

    (void)response;
    p->pending = NULL;
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        unavailable(p, "store unavailable");
        return;
    }
    log_info("token.session_ended", KV_SV("session", p->session_id));
    refuse_ended(p);
}

static void on_session_to_end(void *arg, enum rpc_status status, const char *text,
                              const ProtobufCMessage *response)
{
    struct proof *p = arg;
    Session__Session *session = NULL;
    uint64_t version = 0;
    int64_t now_s = clock_wall_s();
    enum err err = authn_store_session(status, response, now_s, &p->arena, &session, &version);

    (void)text;
    p->pending = NULL;
    if (err == ERR_OK) {
        p->pending = authn_store_end(p->app->store, session, now_s, on_ended, p);
    } else if (err == ERR_NOT_FOUND) {
        refuse_ended(p);
    } else {
        unavailable(p, "store unavailable");
    }
}

/* What was opened with it, when it held, is closed. */
static void end_session(struct proof *p)
{
    p->session_id = session_id(p);
    p->pending =
        authn_store_get(p->app->store, AUTHN_TYPE_SESSION, p->session_id, on_session_to_end, p);
}

static void on_told(struct authn_asker *asker, enum err err, const json_t *claims, const char *why)
{
    struct proof *p = CONTAINER_OF(asker, struct proof, asker);

    if (err == ERR_OK) {
        p->claims = json_deep_copy(claims);
        judge(p);
    } else if (err == ERR_DENIED) {
        end_session(p);
    } else {
        unavailable(p, why);
    }
}

static void inspect(struct proof *p);

static void on_provider(struct authn_waiter *waiter, enum err err)
{
    (void)err;
    inspect(CONTAINER_OF(waiter, struct proof, waiter));
}

static void inspect(struct proof *p)
{
    struct authn_oidc *oidc = p->app->oidc;

    p->opaque = true;
    if (oidc != NULL && authn_oidc_provider(oidc) != NULL) {
        p->asker.told = on_told;
        authn_inspector_ask(authn_oidc_inspector(oidc), p->token, &p->asker);
    } else if (oidc != NULL && !p->looked_again) {
        p->looked_again = true;
        p->waiter.next = on_provider;
        authn_oidc_refresh(oidc, &p->waiter, SV(""));
    } else {
        unavailable(p, "the provider is not known yet");
    }
}

/* Whatever looks like a signed token is one: the provider is not asked to overrule a signature. */
static bool is_opaque(const struct proof *p)
{
    char kid[JOSE_KID_MAX + 1] = "";

    return p->route->bearer == CONFIG_BEARER_IDP_ACCESS && jose_token_kid(p->token, kid) != ERR_OK;
}

/* --- begin ---------------------------------------------------------------------------------------- */

static void find_issuer(struct proof *p);

static void on_issuer(struct authn_waiter *waiter, enum err err)
{
    (void)err;
    find_issuer(CONTAINER_OF(waiter, struct proof, waiter));
}

/* Whose token it claims to be, where the route takes theirs. */
static void find_issuer(struct proof *p)
{
    CLEANUP(buf_deinit) struct buf iss;
    struct authn_keyset *unknown = NULL;

    buf_init(&iss, AUTHN_ISSUER_MAX);
    if (jose_token_issuer(p->token, &iss) != ERR_OK) {
        refuse(p, "token-invalid", "it names no issuer");
        return;
    }
    p->issuer = authn_issuers_find(p->app, p->config, p->route, buf_sv(&iss), &unknown);
    if (p->issuer != NULL) {
        verify(p);
    } else if (unknown == NULL) {
        refuse(p, "token-invalid", "the route takes no tokens of its issuer");
    } else if (p->looked_again) {
        unavailable(p, "what an issuer is called cannot be found out");
    } else {
        p->looked_again = true;
        p->waiter.next = on_issuer;
        authn_keyset_refresh(unknown, &p->waiter, SV(""));
    }
}

static void begin(struct proof *p)
{
    switch (p->route->bearer) {
    case CONFIG_BEARER_JWT:
        find_issuer(p);
        return;
    case CONFIG_BEARER_IDP_ACCESS:
    case CONFIG_BEARER_IDP_IDENTITY:
        if (is_opaque(p)) {
            inspect(p);
        } else {
            verify(p);
        }
        return;
    case CONFIG_BEARER_DEFAULT:
        break;
    }
    refuse(p, "token-invalid", "it is no token that the route takes");
}

void authn_proof_on_token(struct rpc_call *call, const ProtobufCMessage *request, void *arg)
{
    const Postern__TokenRequest *ask = (const Postern__TokenRequest *)(const void *)request;
    struct authn *app = arg;
    struct proof *p = NULL;

    if (app->n_proofs >= PROOFS_MAX) {
        rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "too many tokens at once");
        return;
    }
    p = MEM_NEW(struct proof);
    p->app = app;
    p->call = call;
    p->config = config_ref(app->config);
    arena_init(&p->arena);
    list_init(&p->waiter.node);
    list_init(&p->asker.node);
    list_push_back(&app->proofs, &p->node);
    app->n_proofs++;
    p->token = arena_sv(&p->arena, sv_of(ask->token.data, ask->token.len));
    p->route = config_route_by_id(p->config, ask->route);
    if (p->route == NULL) { /* a proxy that has another configuration yet */
        unavailable(p, "no such route");
    } else {
        begin(p);
    }
}

void authn_proof_cancel(struct authn *app)
{
    while (!list_empty(&app->proofs)) {
        struct proof *p = LIST_ENTRY(app->proofs.next, struct proof, node);

        rpc_pending_cancel(&p->pending);
        unavailable(p, "stopping");
    }
}
