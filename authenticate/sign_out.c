#include "authenticate/sign_out.h"

#include <string.h>

#include "authenticate/login.h"
#include "authenticate/oidc.h"
#include "authenticate/page.h"
#include "common/clock.h"
#include "common/crypto/handle.h"
#include "common/crypto/link.h"
#include "common/http/form.h"
#include "common/http/url.h"
#include "common/log.h"
#include "common/secret.h"

/* Where the browser goes once the session is over; "" shows our page. */
static void destination(struct authn_request *req, struct buf *url)
{
    CLEANUP(buf_deinit) struct buf hint;

    buf_init(&hint, 65536);
    if (req->session != NULL && req->session->id_token != NULL &&
        req->session->id_token->raw[0] != '\0' &&
        seal_open(req->app->rest, sv_from(req->session->id_token->raw), sv_from(req->session->id),
                  &hint) != ERR_OK) {
        buf_reset(&hint);
    }
    if (req->app->oidc == NULL ||
        !authn_oidc_logout_url(req->app->oidc, req->config, buf_sv(&hint), url)) {
        buf_add_sv(url, req->config->signout_redirect_url);
    }
    if (hint.p != NULL) {
        secret_wipe(hint.p, hint.n);
    }
}

static void finish(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf url;

    buf_init(&url, 65536);
    authn_reply_cookie(req, req->app->cookie_session, (struct sv){ .p = NULL }, -1);
    destination(req, &url);
    authn_reply_redirect(req, url.n > 0 && url.err == ERR_OK ? buf_sv(&url)
                                                             : SV("/.pomerium/signed_out"));
}

/* False: answered already. Not signed out, so the cookie stays and it can be tried again. */
static bool ended(struct authn_request *req, enum rpc_status status, const char *text)
{
    authn_request_resumed(req);
    if (status != RPC_OK) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        authn_reply_store_down(req);
        return false;
    }
    log_info("logout.done", KV_STR("user", req->session->user_id),
             KV_STR("session", req->session->id), KV_SV("request_id", req->request_id));
    return true;
}

static void on_ended(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    (void)response;
    if (ended(arg, status, text)) {
        finish(arg);
    }
}

static void end_found(struct authn_request *req, enum err err)
{
    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
    } else if (err != ERR_OK) {
        finish(req); /* nothing left to end */
    } else {
        req->call = authn_store_end(req->app->store, req->session, clock_wall_s(), on_ended, req);
    }
}

/* The provider's logout may lead on; browsers hold the form against the first hop at least. */
static void confirm_found(struct authn_request *req, enum err err)
{
    CLEANUP(buf_deinit) struct buf token;
    CLEANUP(buf_deinit) struct buf page;
    CLEANUP(buf_deinit) struct buf url;
    CLEANUP(buf_deinit) struct buf origin;
    struct http_url parsed;

    buf_init(&token, 4096);
    buf_init(&page, HTTP_PAGE_MAX);
    buf_init(&url, 65536);
    buf_init(&origin, 512);
    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
        return;
    }
    req->flow =
        (struct authn_flow){ .browser = authn_browser(req, true), .issued_at_s = clock_wall_s() };
    if (authn_flow_seal(req->app->forms, AUTHN_FLOW_SIGN_OUT, &req->flow, &token) != ERR_OK) {
        authn_reply_store_down(req);
        return;
    }
    destination(req, &url);
    if (http_url_parse(buf_sv(&url), &parsed, NULL) == ERR_OK) {
        http_url_add_origin(&origin, &parsed);
    }
    authn_page_sign_out(&page, buf_sv(&token),
                        req->session == NULL ? (struct sv){ .p = NULL }
                                             : sv_from(req->session->user_id),
                        req->request_id);
    authn_reply_page(req, 200, &page, buf_sv(&origin));
}

/* --- the application's own session, where it is not the one of our cookie -------------------------- */

static void on_other_ended(void *arg, enum rpc_status status, const char *text,
                           const ProtobufCMessage *response)
{
    (void)response;
    if (ended(arg, status, text)) {
        authn_session_find(arg, end_found);
    }
}

static void on_other_found(void *arg, enum rpc_status status, const char *text,
                           const ProtobufCMessage *response)
{
    struct authn_request *req = arg;
    uint64_t version = 0;
    enum err err =
        authn_store_session(status, response, clock_wall_s(), &req->arena, &req->session, &version);

    authn_request_resumed(req);
    if (err == ERR_UNAVAILABLE) {
        log_warn("store.unavailable", KV_I64("status", status), KV_STR("text", text));
        authn_reply_store_down(req);
    } else if (err == ERR_OK) {
        req->call =
            authn_store_end(req->app->store, req->session, clock_wall_s(), on_other_ended, req);
    } else {
        authn_session_find(req, end_found);
    }
}

void authn_sign_out(struct authn_request *req)
{
    struct sv other = { .p = NULL };
    CLEANUP(buf_deinit) struct buf url;

    buf_init(&url, LINK_MAX);
    buf_add_sv(&url, req->app->origin);
    buf_add_sv(&url, req->target);
    if (url.err == ERR_OK && link_verify(req->config->keys, buf_sv(&url)) == ERR_OK) {
        if (http_form_get(req->query, SV("pomerium_session"), &req->arena, &other) == ERR_OK &&
            other.n > 0 && other.n <= HANDLE_SESSION_MAX) {
            req->call =
                authn_store_get(req->app->store, AUTHN_TYPE_SESSION, other, on_other_found, req);
            return;
        }
        authn_session_find(req, end_found);
        return;
    }
    authn_session_find(req, confirm_found);
}

void authn_sign_out_form(struct authn_request *req)
{
    struct sv token = { .p = NULL };
    struct sv origin = authn_request_header(req, "Origin");
    struct sv browser = authn_browser(req, false);

    if ((origin.n > 0 && !sv_eq(origin, req->app->origin)) ||
        http_form_get(req->body, SV("token"), &req->arena, &token) != ERR_OK ||
        authn_flow_open(req->app->forms, AUTHN_FLOW_SIGN_OUT, token, &req->arena, &req->flow) !=
            ERR_OK ||
        browser.n == 0 || !secret_same(browser, req->flow.browser) ||
        clock_wall_s() - req->flow.issued_at_s > AUTHN_FORM_LIFE_S) {
        authn_session_find(req, confirm_found); /* ask again with a fresh form */
        return;
    }
    authn_session_find(req, end_found);
}

void authn_signed_out(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf page;

    buf_init(&page, HTTP_PAGE_MAX);
    authn_page_signed_out(&page, req->request_id);
    authn_reply_page(req, 200, &page, (struct sv){ .p = NULL });
}
