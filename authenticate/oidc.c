#include "authenticate/oidc.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "authenticate/inspector.h"
#include "authenticate/login.h"
#include "authenticate/provider.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    BACKOFF_FIRST_MS = 500,
    BACKOFF_LAST_MS = 4000,
    FRESH_MS = 3600000, /* then the next login refreshes, without waiting for it */
    NONCE_BYTES = 32
};

struct authn_oidc {
    struct authn *app;
    struct arena arena; /* texts of provider */
    struct authn_provider provider;
    bool known;
    struct jose_keys *keys;
    int64_t fetched_at_ms; /* 0: from the kept copy */

    struct fetch *fetch; /* the one refresh under way */
    struct buf metadata; /* what it has so far */
    struct arena next_arena;
    struct authn_provider next_provider;
    struct list waiting; /* authn_waiter.node */

    int64_t backoff_ms;
    int64_t not_before_ms; /* of the next refresh after a failure */
    struct authn_kids kids;
    struct authn_inspector *inspector;
    struct rpc_pending *keep; /* reading or writing the copy */
};

const struct authn_provider *authn_oidc_provider(const struct authn_oidc *oidc)
{
    return oidc->known ? &oidc->provider : NULL;
}

const struct jose_keys *authn_oidc_keys(const struct authn_oidc *oidc)
{
    return oidc->keys;
}

struct authn_inspector *authn_oidc_inspector(struct authn_oidc *oidc)
{
    return oidc->inspector;
}

/* --- refresh -------------------------------------------------------------------------------------- */

static void failed(struct authn_oidc *o, const char *what, const char *why)
{
    o->backoff_ms = o->backoff_ms == 0 ? BACKOFF_FIRST_MS : MIN(o->backoff_ms * 2, BACKOFF_LAST_MS);
    o->not_before_ms = clock_mono_ms() + o->backoff_ms;
    log_warn("provider.unavailable", KV_SV("provider", o->app->config->idp_provider_url),
             KV_STR("what", what), KV_STR("why", why), KV_I64("retry_ms", o->backoff_ms));
    authn_waiters_wake(&o->waiting, ERR_UNAVAILABLE);
}

static void on_kept(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    struct authn_oidc *o = arg;

    (void)response;
    o->keep = NULL;
    if (status != RPC_OK) {
        log_info("provider.copy_not_kept", KV_I64("status", status), KV_STR("text", text));
    }
}

static void keep_copy(struct authn_oidc *o, struct sv jwks)
{
    CLEANUP(buf_deinit) struct buf copy;

    buf_init(&copy, AUTHN_PROVIDER_BYTES_MAX + JOSE_SET_MAX + 64);
    buf_add_str(&copy, "{\"metadata\":");
    buf_add_sv(&copy, buf_sv(&o->metadata));
    buf_add_str(&copy, ",\"jwks\":");
    buf_add_sv(&copy, jwks);
    buf_add_char(&copy, '}');
    if (copy.err == ERR_OK && sv_is_utf8(buf_sv(&copy))) {
        rpc_pending_cancel(&o->keep);
        o->keep =
            authn_store_keep(o->app->store, sv_from(o->app->idp_id), buf_sv(&copy), on_kept, o);
    }
}

static void adopt(struct authn_oidc *o, struct jose_keys *keys)
{
    jose_keys_free(&o->keys);
    arena_deinit(&o->arena);
    o->keys = keys;
    o->arena = o->next_arena;
    o->provider = o->next_provider;
    o->known = true;
    arena_init(&o->next_arena);
}

static void on_jwks(void *arg, const struct fetch_answer *answer)
{
    struct authn_oidc *o = arg;
    struct jose_keys *keys = NULL;
    struct diag d = { .line = 0 };

    o->fetch = NULL;
    if (answer->err != ERR_OK || answer->status != 200 ||
        jose_keys_parse(answer->body, &keys, &d) != ERR_OK) {
        failed(o, "keys",
               answer->err != ERR_OK ? answer->text
               : d.text[0] != '\0'   ? d.text
                                     : "its key set cannot be had");
        return;
    }
    adopt(o, keys);
    o->fetched_at_ms = clock_mono_ms();
    o->backoff_ms = 0;
    o->not_before_ms = 0;
    keep_copy(o, answer->body);
    log_info("provider.known", KV_SV("provider", o->provider.issuer),
             KV_U64("keys", jose_keys_count(o->keys)));
    authn_waiters_wake(&o->waiting, ERR_OK);
}

static void on_metadata(void *arg, const struct fetch_answer *answer)
{
    struct authn_oidc *o = arg;
    struct diag d = { .line = 0 };
    struct fetch_request request;

    o->fetch = NULL;
    arena_reset(&o->next_arena);
    if (answer->err != ERR_OK || answer->status != 200 ||
        authn_provider_parse(answer->body, o->app->config->idp_provider_url, &o->next_arena,
                             &o->next_provider, &d) != ERR_OK) {
        failed(o, "discovery",
               answer->err != ERR_OK ? answer->text
               : d.text[0] != '\0'   ? d.text
                                     : "no answer of status 200");
        return;
    }
    buf_reset(&o->metadata);
    buf_add_sv(&o->metadata, answer->body);
    request = (struct fetch_request){ .url = o->next_provider.jwks_uri.p };
    o->fetch = fetch_start(o->app->fetcher, &request, on_jwks, o);
}

static void refresh_start(struct authn_oidc *o)
{
    struct sv issuer = o->app->config->idp_provider_url;
    CLEANUP(buf_deinit) struct buf url;
    struct fetch_request request;

    buf_init(&url, 4096);
    buf_add_sv(&url, issuer.n > 0 && issuer.p[issuer.n - 1] == '/' ? sv_head(issuer, issuer.n - 1)
                                                                   : issuer);
    buf_add_str(&url, "/.well-known/openid-configuration");
    request = (struct fetch_request){ .url = buf_cstr(&url) };
    o->fetch = fetch_start(o->app->fetcher, &request, on_metadata, o);
}

void authn_oidc_refresh(struct authn_oidc *oidc, struct authn_waiter *waiter, struct sv kid)
{
    int64_t now_ms = clock_mono_ms();

    /* A provider that just answered with a token is there: no back-off for its keys. */
    if (oidc->fetch == NULL && (oidc->known ? !authn_kids_may_ask(&oidc->kids, kid, now_ms)
                                            : now_ms < oidc->not_before_ms)) {
        waiter->next(waiter, ERR_UNAVAILABLE);
        return;
    }
    list_push_back(&oidc->waiting, &waiter->node);
    if (oidc->fetch == NULL) {
        refresh_start(oidc);
    }
}

/* --- the kept copy -------------------------------------------------------------------------------- */

static void copy_read(struct authn_oidc *o, struct sv text)
{
    json_t *doc = json_loadb(text.p == NULL ? "" : text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    char *metadata = json_dumps(json_object_get(doc, "metadata"), JSON_COMPACT);
    char *jwks = json_dumps(json_object_get(doc, "jwks"), JSON_COMPACT);
    struct jose_keys *keys = NULL;

    arena_reset(&o->next_arena);
    if (metadata != NULL && jwks != NULL &&
        authn_provider_parse(sv_from(metadata), o->app->config->idp_provider_url, &o->next_arena,
                             &o->next_provider, NULL) == ERR_OK &&
        jose_keys_parse(sv_from(jwks), &keys, NULL) == ERR_OK) {
        adopt(o, keys);
        log_info("provider.from_copy", KV_SV("provider", o->provider.issuer));
    }
    mem_release(metadata); /* jansson's */
    mem_release(jwks);
    json_decref(doc);
}

static void on_copy(void *arg, enum rpc_status status, const char *text,
                    const ProtobufCMessage *response)
{
    struct authn_oidc *o = arg;
    struct arena arena;

    (void)text;
    o->keep = NULL;
    arena_init(&arena);
    if (!o->known && o->fetch == NULL) {
        copy_read(o, authn_store_kept(status, response, &arena));
    }
    arena_deinit(&arena);
}

void authn_oidc_store_ready(struct authn_oidc *oidc)
{
    if (!oidc->known && oidc->keep == NULL) {
        oidc->keep = authn_store_get(oidc->app->store, AUTHN_TYPE_PROVIDER,
                                     sv_from(oidc->app->idp_id), on_copy, oidc);
    }
}

struct authn_oidc *authn_oidc_new(struct authn *app)
{
    struct authn_oidc *o = MEM_NEW(struct authn_oidc);

    o->app = app;
    list_init(&o->waiting);
    arena_init(&o->arena);
    arena_init(&o->next_arena);
    buf_init(&o->metadata, AUTHN_PROVIDER_BYTES_MAX);
    o->inspector = authn_inspector_new(app);
    refresh_start(o);
    return o;
}

void authn_oidc_free(struct authn_oidc **oidc)
{
    if (*oidc == NULL) {
        return;
    }
    authn_inspector_free(&(*oidc)->inspector);
    fetch_cancel(&(*oidc)->fetch);
    rpc_pending_cancel(&(*oidc)->keep);
    authn_waiters_wake(&(*oidc)->waiting, ERR_UNAVAILABLE);
    jose_keys_free(&(*oidc)->keys);
    arena_deinit(&(*oidc)->arena);
    arena_deinit(&(*oidc)->next_arena);
    buf_deinit(&(*oidc)->metadata);
    mem_free(oidc);
}

/* --- who we are ----------------------------------------------------------------------------------- */

/* Id and secret are form-encoded before they become user and password. */
static void add_basic(struct buf *out, struct sv id, struct sv secret)
{
    CLEANUP(buf_deinit) struct buf pair;

    buf_init(&pair, 16384);
    buf_add_urlenc(&pair, id);
    buf_add_char(&pair, ':');
    buf_add_urlenc(&pair, secret);
    buf_add_str(out, "Basic ");
    b64_std_add(out, buf_sv(&pair));
    secret_wipe(pair.p, pair.n);
}

void authn_oidc_prove(const struct config *config, bool in_body, struct buf *form,
                      struct buf *authorization)
{
    struct sv secret = config->idp_client_secret == NULL ? (struct sv){ .p = NULL }
                                                         : secret_bytes(config->idp_client_secret);

    if (secret.n == 0 || in_body) {
        http_form_add(form, SV("client_id"), config->idp_client_id);
    }
    if (secret.n > 0 && in_body) {
        http_form_add(form, SV("client_secret"), secret);
    } else if (secret.n > 0) {
        add_basic(authorization, config->idp_client_id, secret);
    }
}

/* --- leaving for the provider --------------------------------------------------------------------- */

void authn_oidc_down(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf what;

    buf_init(&what, 1024);
    buf_add_str(&what, "The identity provider ");
    buf_add_sv(&what, req->config->idp_provider_url);
    buf_add_str(&what, " does not answer.");
    authn_reply_problem(
        req, &(struct authn_problem){ .status = 503,
                                      .code = "provider-unavailable",
                                      .title = "Signing in is not possible right now",
                                      .what = buf_cstr(&what),
                                      .todo = "Who is signed in already can go on working. Please "
                                              "try again in a moment.",
                                      .retry_after_s = 5,
                                      .link = req->flow.redirect_uri,
                                      .link_text = "Try again" });
}

static struct sv random_text(struct arena *arena)
{
    unsigned char bytes[NONCE_BYTES];
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 64);
    rand_bytes(bytes, sizeof bytes);
    b64_url_add(&text, sv_of(bytes, sizeof bytes));
    return arena_sv(arena, buf_sv(&text));
}

static void add_challenge(struct buf *url, struct sv verifier)
{
    unsigned char digest[32];
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 64);
    CHECK(EVP_Digest(verifier.p, verifier.n, digest, NULL, EVP_sha256(), NULL) == 1);
    b64_url_add(&text, sv_of(digest, sizeof digest));
    http_form_add(url, SV("code_challenge"), buf_sv(&text));
    http_form_add(url, SV("code_challenge_method"), SV("S256"));
}

static void add_scopes(struct buf *url, const struct config *config)
{
    CLEANUP(buf_deinit) struct buf scopes;

    buf_init(&scopes, 4096);
    for (size_t i = 0; i < config->idp_scopes.n; i++) {
        buf_add_str(&scopes, i > 0 ? " " : "");
        buf_add_sv(&scopes, config->idp_scopes.v[i]);
    }
    http_form_add(url, SV("scope"),
                  scopes.n > 0 ? buf_sv(&scopes) : SV("openid profile email offline_access"));
}

static bool is_reserved(struct sv name)
{
    static const char *const reserved[] = {
        "response_type", "client_id",      "redirect_uri",         "scope", "state", "nonce",
        "response_mode", "code_challenge", "code_challenge_method"
    };

    for (size_t i = 0; i < ARRAY_LEN(reserved); i++) {
        if (sv_eq(name, sv_from(reserved[i]))) {
            return true;
        }
    }
    return false;
}

/* Whoever comes for a fresh login is to prove again who they are (OpenID Connect Core 3.1.2.1). */
static void add_fresh(struct buf *url)
{
    http_form_add(url, SV("prompt"), SV("login"));
    http_form_add(url, SV("max_age"), SV("0"));
}

static bool is_fresh_param(struct sv name)
{
    return sv_eq(name, SV("prompt")) || sv_eq(name, SV("max_age"));
}

static void leave(struct authn_request *req)
{
    const struct authn_provider *p = &req->app->oidc->provider;
    CLEANUP(buf_deinit) struct buf state;
    CLEANUP(buf_deinit) struct buf url;
    CLEANUP(buf_deinit) struct buf back;

    buf_init(&state, 65536);
    buf_init(&url, 98304);
    buf_init(&back, 1024);
    req->flow.nonce = random_text(&req->arena);
    req->flow.verifier = random_text(&req->arena);
    if (authn_flow_seal(req->app->states, AUTHN_FLOW_PROVIDER, &req->flow, &state) != ERR_OK) {
        authn_oidc_down(req);
        return;
    }
    buf_add_sv(&back, req->app->origin);
    buf_add_str(&back, "/oauth2/callback");
    buf_add_sv(&url, p->authorization_endpoint);
    if (sv_find(p->authorization_endpoint, '?') == SIZE_MAX) {
        buf_add_char(&url, '?');
    }
    http_form_add(&url, SV("response_type"), SV("code"));
    http_form_add(&url, SV("client_id"), req->config->idp_client_id);
    http_form_add(&url, SV("redirect_uri"), buf_sv(&back));
    add_scopes(&url, req->config);
    http_form_add(&url, SV("state"), buf_sv(&state));
    http_form_add(&url, SV("nonce"), req->flow.nonce);
    add_challenge(&url, req->flow.verifier);
    if (req->flow.fresh) {
        add_fresh(&url);
    }
    for (size_t i = 0; i < req->config->idp_request_params.n; i++) {
        const struct config_pair *pair = &req->config->idp_request_params.v[i];

        if (!is_reserved(pair->name) && !(req->flow.fresh && is_fresh_param(pair->name))) {
            http_form_add(&url, pair->name, pair->value);
        }
    }
    authn_reply_redirect(req, buf_sv(&url));
}

static void ask_refreshed(struct authn_waiter *waiter, enum err err)
{
    struct authn_request *req = CONTAINER_OF(waiter, struct authn_request, waiter);

    if (err != ERR_OK || req->app->oidc == NULL || !req->app->oidc->known) {
        authn_oidc_down(req);
        return;
    }
    leave(req);
}

void authn_oidc_ask(struct authn_request *req)
{
    struct authn_oidc *o = req->app->oidc;
    int64_t now_ms = clock_mono_ms();

    if (!o->known) {
        req->waiter.next = ask_refreshed;
        authn_oidc_refresh(o, &req->waiter, (struct sv){ .p = NULL });
        return;
    }
    if (o->fetch == NULL && now_ms >= o->not_before_ms &&
        (o->fetched_at_ms == 0 || now_ms - o->fetched_at_ms > FRESH_MS)) {
        refresh_start(o);
    }
    leave(req);
}

bool authn_oidc_logout_url(const struct authn_oidc *oidc, const struct config *config,
                           struct sv id_token, struct buf *url)
{
    CLEANUP(buf_deinit) struct buf back;

    if (!oidc->known || oidc->provider.end_session_endpoint.n == 0) {
        return false;
    }
    buf_init(&back, 8192);
    if (config->signout_redirect_url.n > 0) {
        buf_add_sv(&back, config->signout_redirect_url);
    } else {
        buf_add_sv(&back, oidc->app->origin);
        buf_add_str(&back, "/.pomerium/signed_out");
    }
    buf_add_sv(url, oidc->provider.end_session_endpoint);
    if (sv_find(oidc->provider.end_session_endpoint, '?') == SIZE_MAX) {
        buf_add_char(url, '?');
    }
    if (id_token.n > 0) {
        http_form_add(url, SV("id_token_hint"), id_token);
    }
    http_form_add(url, SV("client_id"), config->idp_client_id);
    http_form_add(url, SV("post_logout_redirect_uri"), buf_sv(&back));
    return true;
}
