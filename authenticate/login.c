#include "authenticate/login.h"

#include <string.h>

#include <openssl/evp.h>

#include "authenticate/local.h"
#include "authenticate/oidc.h"
#include "authenticate/program.h"
#include "authenticate/redirect.h"
#include "common/b64.h"
#include "common/clock.h"
#include "common/crypto/handle.h"
#include "common/crypto/link.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/rand.h"

enum { BROWSER_BYTES = 16, BROWSER_TEXT = 22, BROWSER_LIFE_S = 86400 };

struct sv authn_browser(struct authn_request *req, bool make)
{
    struct sv cookie = authn_request_cookie(req, sv_from(req->app->cookie_browser));
    unsigned char bytes[32];
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 64);
    if (cookie.n != BROWSER_TEXT) {
        if (!make) {
            return (struct sv){ .p = NULL };
        }
        rand_bytes(bytes, BROWSER_BYTES);
        b64_url_add(&text, sv_of(bytes, BROWSER_BYTES));
        cookie = arena_sv(&req->arena, buf_sv(&text));
        authn_reply_cookie(req, req->app->cookie_browser, cookie, BROWSER_LIFE_S);
        buf_reset(&text);
    }
    CHECK(EVP_Digest(cookie.p, cookie.n, bytes, NULL, EVP_sha256(), NULL) == 1);
    b64_url_add(&text, sv_of(bytes, sizeof bytes));
    return arena_sv(&req->arena, buf_sv(&text));
}

/* --- our own session ------------------------------------------------------------------------------ */

static void on_session(void *arg, enum rpc_status status, const char *text,
                       const ProtobufCMessage *response)
{
    struct authn_request *req = arg;
    enum err err = authn_store_session(status, response, clock_wall_s(), &req->arena, &req->session,
                                       &req->session_version);

    authn_request_resumed(req);
    if (err == ERR_UNAVAILABLE) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
    }
    if (err == ERR_OK && !sv_eq(sv_from(req->session->idp_id), sv_from(req->app->idp_id))) {
        req->session = NULL; /* of a provider that is configured no more */
        err = ERR_NOT_FOUND;
    }
    req->next(req, err == ERR_OK || err == ERR_UNAVAILABLE ? err : ERR_NOT_FOUND);
}

void authn_session_find(struct authn_request *req,
                        void (*next)(struct authn_request *req, enum err err))
{
    struct authn *app = req->app;
    struct sv cookie = authn_request_cookie(req, sv_from(app->cookie_session));
    struct handle handle;

    if (cookie.n == 0 || handle_open(app->handles, cookie, app->host, &handle) != ERR_OK) {
        next(req, ERR_NOT_FOUND);
        return;
    }
    req->next = next;
    req->call =
        authn_store_get(app->store, AUTHN_TYPE_SESSION, sv_from(handle.session), on_session, req);
}

/* --- beginning ------------------------------------------------------------------------------------ */

static void link_refused(struct authn_request *req, enum err err, struct sv redirect_uri)
{
    struct http_url url;
    bool known =
        err == ERR_EXPIRED && authn_redirect_check(req->config, redirect_uri, &url) == ERR_OK;

    authn_reply_problem(
        req, &(struct authn_problem){
                 .status = 400,
                 .code = err == ERR_EXPIRED ? "link-expired" : "link-invalid",
                 .title = "This sign-in link does not work",
                 .what = err == ERR_EXPIRED
                             ? "The link is too old, or the clocks of two machines differ."
                             : "The link is incomplete, or was not made by this service.",
                 .todo = "Open the application again from its own address.",
                 .link = known ? redirect_uri : (struct sv){ .p = NULL },
                 .link_text = "Back to the application" });
}

void authn_login_redirect_refused(struct authn_request *req)
{
    authn_reply_problem(
        req, &(struct authn_problem){ .status = 400,
                                      .code = "host-mismatch",
                                      .title = "This sign-in link does not work",
                                      .what = "It leads to an address that is not one of ours.",
                                      .todo = "Open the application again from its own address." });
}

static bool is_binding(struct sv text)
{
    unsigned char bytes[64];
    size_t n = 0;

    return b64_decoded_max(text.n) <= sizeof bytes &&
           b64_decode(text, bytes, sizeof bytes, &n) == ERR_OK && n == 32;
}

static bool flow_read(struct authn_request *req)
{
    struct http_form_value v[] = { { .key = SV("pomerium_redirect_uri") },
                                   { .key = SV("pomerium_binding") },
                                   { .key = SV("pomerium_attempt") },
                                   { .key = SV("pomerium_program") },
                                   { .key = SV("pomerium_fresh") } };
    bool bound = false;

    if (http_form_read(req->query, v, ARRAY_LEN(v), &req->arena) != ERR_OK) {
        return false;
    }
    req->flow.redirect_uri = v[0].value;
    req->flow.binding = v[1].value;
    req->flow.program = v[3].value;
    req->flow.fresh = v[4].present;
    req->flow.attempt = 1;
    req->flow.issued_at_s = clock_wall_s();
    bound = is_binding(v[1].value) || (v[3].value.n != 0 && !v[1].present);
    return v[0].present && bound &&
           (!v[2].present || sv_u64(v[2].value, 1000, &req->flow.attempt) == ERR_OK);
}

static void start_found(struct authn_request *req, enum err err)
{
    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
    } else if (err == ERR_OK) {
        authn_login_code(req);
    } else {
        authn_login_ask(req);
    }
}

void authn_login_start(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf url;
    struct http_url redirect;
    enum err err = ERR_OK;
    bool complete = flow_read(req);

    buf_init(&url, LINK_MAX);
    buf_add_sv(&url, req->app->origin);
    buf_add_sv(&url, req->target);
    err = url.err == ERR_OK ? link_verify(req->config->keys, buf_sv(&url)) : ERR_CRYPTO;
    if (err != ERR_OK || !complete) {
        link_refused(req, err, req->flow.redirect_uri);
        return;
    }
    if (authn_redirect_flow_check(req->config, &req->flow, &redirect) != ERR_OK) {
        authn_login_redirect_refused(req);
        return;
    }
    if (req->flow.fresh) {
        authn_login_ask(req); /* whatever session there is, it is not enough */
        return;
    }
    authn_session_find(req, start_found);
}

void authn_login_ask(struct authn_request *req)
{
    if (req->flow.attempt > AUTHN_ATTEMPTS_MAX) {
        authn_login_again(req, "cookie-not-returned");
        return;
    }
    req->flow.issued_at_s = clock_wall_s();
    req->flow.browser = authn_browser(req, true);
    if (req->config->idp_provider == CONFIG_IDP_LOCAL) {
        authn_local_ask(req);
    } else if (req->app->oidc != NULL) {
        authn_oidc_ask(req);
    } else {
        authn_reply_problem(
            req, &(struct authn_problem){
                     .status = 503,
                     .code = "provider-not-configured",
                     .title = "Nobody can sign in here yet",
                     .what = "No identity provider is configured.",
                     .todo = "An administrator needs to set idp_provider in the configuration." });
    }
}

void authn_login_again(struct authn_request *req, const char *cause)
{
    bool cookies = strcmp(cause, "cookie-not-returned") == 0;

    if (req->flow.attempt < AUTHN_ATTEMPTS_MAX) {
        req->flow.attempt++;
        log_info("login.again", KV_STR("cause", cause), KV_U64("attempt", req->flow.attempt),
                 KV_SV("request_id", req->request_id));
        authn_login_ask(req);
        return;
    }
    authn_reply_problem(
        req, &(struct authn_problem){
                 .status = 400,
                 .code = cause,
                 .title = "Signing in did not work",
                 .what = cookies ? "Your browser does not send back the cookie that we set."
                                 : "The sign-in took too long, several times.",
                 .todo = cookies ? "Allow cookies for this site, close the other sign-in tabs, "
                                   "then open the application again."
                                 : "Open the application again. If this stays so, check the clock "
                                   "of this computer.",
                 .link = req->flow.redirect_uri,
                 .link_text = "Try again" });
}

/* --- ending ---------------------------------------------------------------------------------------- */

static void cookie_set(struct authn_request *req, struct sv session, uint64_t version,
                       int64_t lifetime_s)
{
    struct handle handle = { .record_version = version, .issued_at_s = clock_wall_s() };
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, (size_t)HANDLE_TEXT_MAX * 2);
    CHECK(session.n <= HANDLE_SESSION_MAX);
    if (session.n != 0) {
        memcpy(handle.session, session.p, session.n);
    }
    memcpy(handle.idp_id, req->app->idp_id, sizeof req->app->idp_id);
    if (handle_make(req->app->handles, &handle, req->app->host, &text) == ERR_OK) {
        authn_reply_cookie(req, req->app->cookie_session, buf_sv(&text), lifetime_s);
    }
}

static void on_stored(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct authn_request *req = arg;

    authn_request_resumed(req);
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        authn_reply_store_down(req);
        return;
    }
    req->session_version = authn_store_version(response);
    log_info("login.done", KV_STR("user", req->session->user_id),
             KV_STR("session", req->session->id), KV_SV("address", req->address),
             KV_SV("request_id", req->request_id));
    cookie_set(req, sv_from(req->session->id), req->session_version,
               req->session->expires_at->seconds - clock_wall_s());
    authn_login_code(req);
}

void authn_login_done(struct authn_request *req, const struct authn_identity *identity)
{
    char id[RAND_UUID_SIZE];
    int64_t now_s = clock_wall_s();
    Session__Session *session = arena_alloc(&req->arena, sizeof *session);
    Google__Protobuf__Timestamp *expires = arena_alloc(&req->arena, sizeof *expires);
    struct authn_store_login login = { .identity = identity,
                                       .address = req->address,
                                       .now_s = now_s,
                                       .expires_at_s = now_s + req->config->cookie_expire_ms / 1000,
                                       .rest = req->app->rest };

    rand_uuid(id);
    session__session__init(session);
    google__protobuf__timestamp__init(expires);
    expires->seconds = login.expires_at_s;
    session->id = arena_str(&req->arena, sv_from(id));
    session->user_id = arena_str(&req->arena, identity->user_id);
    session->expires_at = expires;
    req->session = session;
    login.session_id = sv_from(session->id);
    req->call = authn_store_login(req->app->store, &login, &req->arena, on_stored, req);
}

enum err authn_login_seal_code(struct authn_request *req, struct sv host, struct buf *out)
{
    unsigned char random[16];
    CLEANUP(buf_deinit) struct buf id;
    struct authn_code code = { .session = sv_from(req->session->id),
                               .record_version = req->session_version,
                               .idp_id = sv_from(req->app->idp_id),
                               .redirect_uri = req->flow.redirect_uri,
                               .host = host,
                               .binding = req->flow.binding,
                               .expires_at_s = clock_wall_s() + AUTHN_CODE_LIFE_S,
                               .session_expires_at_s = req->session->expires_at->seconds };

    buf_init(&id, 64);
    rand_bytes(random, sizeof random);
    b64_url_add(&id, sv_of(random, sizeof random));
    code.id = buf_sv(&id);
    return authn_code_seal(req->app->codes, &code, out);
}

void authn_login_code(struct authn_request *req)
{
    struct http_url url;
    CLEANUP(buf_deinit) struct buf host;
    CLEANUP(buf_deinit) struct buf sealed;
    CLEANUP(buf_deinit) struct buf location;

    buf_init(&host, 512);
    buf_init(&sealed, 65536);
    buf_init(&location, 65536);
    if (req->flow.program.n != 0) {
        authn_program_ask(req);
        return;
    }
    if (authn_redirect_flow_check(req->config, &req->flow, &url) != ERR_OK) {
        authn_login_redirect_refused(req); /* the configuration changed meanwhile */
        return;
    }
    authn_redirect_host(&host, &url);
    authn_redirect_callback(&location, &url);
    if (authn_login_seal_code(req, buf_sv(&host), &sealed) != ERR_OK) {
        authn_login_redirect_refused(req);
        return;
    }
    buf_add_str(&location, "?pomerium_code=");
    buf_add_sv(&location, buf_sv(&sealed));
    buf_add_str(&location, "&pomerium_attempt=");
    buf_add_u64(&location, req->flow.attempt);
    authn_reply_redirect(req, buf_sv(&location));
}
