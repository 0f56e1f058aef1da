/* The way back from the provider: oidc.h has the picture. */
#include <string.h>

#include "authenticate/grant.h"
#include "authenticate/graph.h"
#include "authenticate/login.h"
#include "authenticate/oidc.h"
#include "authenticate/provider.h"
#include "authenticate/redirect.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"

/* What one callback carries while it asks the provider. Texts are in the request's arena. */
struct authn_exchange {
    struct http_form_value param[4]; /* P_* */
    struct authn_tokens tokens;
    json_t *claims; /* of the verified ID token, later with userinfo */
    int64_t access_expires_at_s;
    int64_t authenticated_at_s;
    bool looked_again; /* for an unknown key */
    struct authn_graph *graph;
    struct sv groups_error; /* "": the claims have all groups */
};

enum { P_CODE = 0, P_ERROR, P_ISS, P_STATE };

void authn_exchange_free(struct authn_exchange **exchange)
{
    if (*exchange != NULL) {
        authn_graph_cancel(&(*exchange)->graph);
        json_decref((*exchange)->claims);
    }
    mem_free(exchange);
}

/* NULL: not known, or a reload took it away while this request waited. */
static const struct authn_provider *provider_of(const struct authn_request *req)
{
    return req->app->oidc == NULL ? NULL : authn_oidc_provider(req->app->oidc);
}

static void refused(struct authn_request *req, int status, const char *code, const char *what)
{
    authn_reply_problem(req, &(struct authn_problem){ .status = status,
                                                      .code = code,
                                                      .title = "Signing in did not work",
                                                      .what = what,
                                                      .todo = "Open the application again. If it "
                                                              "stays so, show this page to whoever "
                                                              "runs this service.",
                                                      .link = req->flow.redirect_uri,
                                                      .link_text = "Try again" });
}

/* What the provider did wrong goes to the log in full, and to the person as a code. */
static void provider_fault(struct authn_request *req, const char *code, const char *why)
{
    log_warn("provider.fault", KV_STR("code", code), KV_STR("why", why),
             KV_SV("provider", req->config->idp_provider_url),
             KV_SV("request_id", req->request_id));
    refused(req, 502, code, "The identity provider's answer could not be accepted.");
}

/* --- identity ------------------------------------------------------------------------------------- */

static void tell_notes(const struct authn_request *req, const struct authn_claims_notes *notes)
{
    if (notes->email_why_not != NULL) {
        log_info("login.email_not_used", KV_STR("why", notes->email_why_not),
                 KV_SV("request_id", req->request_id));
    }
    if (notes->cut) {
        log_info("login.claims_cut", KV_SV("request_id", req->request_id));
    }
}

static void finish(struct authn_request *req)
{
    struct authn_exchange *x = req->exchange;
    struct authn_claims_notes notes;
    struct authn_identity who;

    authn_claims_identity(x->claims, &req->arena, &who, &notes);
    tell_notes(req, &notes);
    who.idp_id = sv_from(req->app->idp_id);
    who.id_token = x->tokens.id_token;
    who.access_token = x->tokens.access_token;
    who.refresh_token = x->tokens.refresh_token;
    who.authenticated_at_s = x->authenticated_at_s;
    who.access_expires_at_s = x->access_expires_at_s;
    who.groups_error = x->groups_error;
    authn_login_done(req, &who);
    authn_identity_deinit(&who);
}

/* --- groups that are elsewhere -------------------------------------------------------------------- */

/* Where they cannot be had the login goes on: what is known of the person's groups stays, which may be
 * nothing. */
static void on_groups(void *arg, const char *why)
{
    struct authn_request *req = arg;

    req->exchange->graph = NULL;
    if (why[0] != '\0') {
        log_warn("login.groups_incomplete", KV_STR("why", why),
                 KV_SV("request_id", req->request_id));
        req->exchange->groups_error = arena_sv(&req->arena, sv_from(why));
    }
    finish(req);
}

static void groups(struct authn_request *req)
{
    struct authn_exchange *x = req->exchange;
    const struct authn_graph_ask ask = { .fetcher = req->app->fetcher,
                                         .config = req->config,
                                         .claims = x->claims,
                                         .access_token = x->tokens.access_token,
                                         .done = on_groups,
                                         .arg = req };
    const char *why = authn_graph_start(&ask, &x->graph);

    if (why != NULL) {
        on_groups(req, why);
    }
}

/* --- userinfo ------------------------------------------------------------------------------------- */

static void on_userinfo(void *arg, const struct fetch_answer *answer)
{
    struct authn_request *req = arg;
    struct diag d = { .line = 0 };

    authn_request_resumed(req);
    if (answer->err != ERR_OK || answer->status >= 500) {
        /* Half of the claims could admit whom all of them would not. */
        log_warn("provider.unavailable", KV_STR("what", "userinfo"), KV_STR("why", answer->text),
                 KV_I64("status", answer->status));
        authn_oidc_down(req);
        return;
    }
    if (answer->status != 200) {
        log_warn("provider.userinfo_refused", KV_I64("status", answer->status),
                 KV_SV("request_id", req->request_id));
        groups(req); /* this access token is not for it: the ID token is complete by itself */
        return;
    }
    if (authn_userinfo_merge(req->exchange->claims, answer->body, &d) != ERR_OK) {
        provider_fault(req, "userinfo-invalid", d.text);
        return;
    }
    groups(req);
}

static void userinfo(struct authn_request *req)
{
    const struct authn_provider *p = provider_of(req);

    if (p == NULL) {
        authn_oidc_down(req);
        return;
    }
    req->fetch = authn_userinfo_start(req->app->fetcher, p, req->exchange->tokens.access_token,
                                      on_userinfo, req);
    if (req->fetch == NULL) {
        groups(req);
    }
}

/* --- ID token ------------------------------------------------------------------------------------- */

static void verify(struct authn_request *req);

/* With or without the refresh the keys at hand decide. */
static void verify_again(struct authn_waiter *waiter, enum err err)
{
    (void)err;
    verify(CONTAINER_OF(waiter, struct authn_request, waiter));
}

/* When the person logged in, as the ID token says, else now. False: a fresh login was asked for and
 * this is none; who went on would come back here at once, again and again. */
static bool note_login_time(struct authn_request *req)
{
    struct authn_exchange *x = req->exchange;
    const json_t *told = json_object_get(x->claims, "auth_time");

    x->authenticated_at_s = clock_wall_s();
    if (told != NULL) { /* what is no number tells nothing: then nobody knows */
        x->authenticated_at_s = (int64_t)json_number_value(told);
    }
    if (!req->flow.fresh) {
        return true;
    }
    if (x->authenticated_at_s < req->flow.issued_at_s - AUTHN_LEEWAY_S) {
        return false;
    }
    x->authenticated_at_s = MAX(x->authenticated_at_s, req->flow.issued_at_s);
    return true;
}

static void claims_check(struct authn_request *req)
{
    struct authn_exchange *x = req->exchange;
    const struct authn_provider *p = provider_of(req);
    struct diag d = { .line = 0 };
    struct authn_id_expected expected = { .issuer = p == NULL ? SV("") : p->issuer,
                                          .client_id = req->config->idp_client_id,
                                          .nonce = req->flow.nonce,
                                          .now_s = clock_wall_s() };
    enum err err = authn_id_check(x->claims, &expected, &d);

    if (err == ERR_OK && !note_login_time(req)) {
        log_warn("provider.not_asked_again", KV_SV("provider", req->config->idp_provider_url),
                 KV_SV("request_id", req->request_id));
        refused(req, 403, "login-not-fresh",
                "This page wants a fresh sign-in, and the identity provider did not ask for one.");
    } else if (err == ERR_OK) {
        userinfo(req);
    } else {
        provider_fault(req, err == ERR_EXPIRED ? "clock" : "token-invalid", d.text);
    }
}

static void verify(struct authn_request *req)
{
    struct authn_exchange *x = req->exchange;
    const struct jose_keys *keys = req->app->oidc == NULL ? NULL : authn_oidc_keys(req->app->oidc);
    char kid[JOSE_KID_MAX + 1] = "";
    bool new_keys_may_help = false;
    struct diag d = { .line = 0 };
    enum err err = ERR_OK;

    if (keys == NULL || provider_of(req) == NULL) {
        authn_oidc_down(req);
        return;
    }
    err = authn_id_open(keys, x->tokens.id_token, &x->claims, &new_keys_may_help, &d);
    if (new_keys_may_help && !x->looked_again &&
        jose_token_kid(x->tokens.id_token, kid) == ERR_OK) {
        x->looked_again = true;
        req->waiter.next = verify_again;
        authn_oidc_refresh(req->app->oidc, &req->waiter, sv_from(kid));
        return;
    }
    if (err == ERR_OK) {
        claims_check(req);
    } else {
        provider_fault(req, err == ERR_NOT_FOUND ? "key-unknown" : "token-invalid", d.text);
    }
}

/* --- token endpoint ------------------------------------------------------------------------------- */

static void on_tokens(void *arg, const struct fetch_answer *answer)
{
    struct authn_request *req = arg;
    struct diag d = { .line = 0 };

    authn_request_resumed(req);
    if (answer->err != ERR_OK || answer->status >= 500) {
        log_warn("provider.unavailable", KV_STR("what", "token endpoint"),
                 KV_STR("why", answer->text), KV_I64("status", answer->status));
        authn_oidc_down(req);
        return;
    }
    if (answer->status != 200 &&
        authn_grant_fault(answer->status, answer->body) == AUTHN_GRANT_OVER) {
        authn_login_again(req, "code-refused"); /* used before: back button, reload */
        return;
    }
    if (answer->status != 200) {
        log_error("provider.refused_client", KV_I64("status", answer->status),
                  KV_SV("provider", req->config->idp_provider_url));
        provider_fault(req, "client-refused",
                       "the token endpoint refused: check idp_client_id "
                       "and idp_client_secret");
        return;
    }
    if (authn_tokens_parse(answer->body, &req->arena, &req->exchange->tokens, &d) != ERR_OK) {
        provider_fault(req, "token-invalid", d.text);
        return;
    }
    if (req->exchange->tokens.expires_in_s > 0) {
        req->exchange->access_expires_at_s = clock_wall_s() + req->exchange->tokens.expires_in_s;
    }
    verify(req);
}

static void exchange_code(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf form;
    CLEANUP(buf_deinit) struct buf back;

    buf_init(&form, 65536);
    buf_init(&back, 1024);
    buf_add_sv(&back, req->app->origin);
    buf_add_str(&back, "/oauth2/callback");
    http_form_add(&form, SV("grant_type"), SV("authorization_code"));
    http_form_add(&form, SV("code"), req->exchange->param[P_CODE].value);
    http_form_add(&form, SV("redirect_uri"), buf_sv(&back));
    http_form_add(&form, SV("code_verifier"), req->flow.verifier);
    req->fetch = authn_grant_start(
        req->app->fetcher,
        &(struct authn_grant){ .provider = provider_of(req), .config = req->config, .form = &form },
        on_tokens, req);
}

/* --- callback ------------------------------------------------------------------------------------- */

static void provider_error(struct authn_request *req, struct sv error)
{
    log_info("login.refused", KV_SV("error", error), KV_SV("request_id", req->request_id));
    if (sv_eq(error, SV("access_denied")) || sv_eq(error, SV("unauthorized_client"))) {
        refused(req, 401, "denied", "The identity provider did not let you sign in.");
    } else if (sv_eq(error, SV("temporarily_unavailable")) || sv_eq(error, SV("server_error"))) {
        authn_oidc_down(req);
    } else if (sv_eq(error, SV("login_required")) || sv_eq(error, SV("interaction_required"))) {
        authn_login_again(req, "denied");
    } else {
        refused(req, 400, "provider-error", "The identity provider reported an error.");
    }
}

/* RFC 9207: an answer of another provider, mixed into ours, names itself. */
static bool issuer_ok(const struct authn_request *req)
{
    const struct authn_provider *p = provider_of(req);
    const struct http_form_value *iss = &req->exchange->param[P_ISS];

    return iss->present ? sv_eq(iss->value, p->issuer) : !p->tells_issuer;
}

/* What the provider answered, now that it is known who that is. */
static void judge(struct authn_request *req, enum err err)
{
    struct authn_exchange *x = req->exchange;

    if (err != ERR_OK || provider_of(req) == NULL) {
        authn_oidc_down(req);
    } else if (!issuer_ok(req)) {
        provider_fault(req, "issuer-mismatch", "the callback's iss is not the provider's");
    } else if (x->param[P_ERROR].present) {
        provider_error(req, x->param[P_ERROR].value);
    } else if (!x->param[P_CODE].present || x->param[P_CODE].value.n == 0) {
        refused(req, 400, "callback-invalid", "The identity provider sent no code.");
    } else {
        exchange_code(req);
    }
}

static void judge_refreshed(struct authn_waiter *waiter, enum err err)
{
    judge(CONTAINER_OF(waiter, struct authn_request, waiter), err);
}

static void callback_found(struct authn_request *req, enum err err)
{
    struct sv browser;

    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
        return;
    }
    if (err == ERR_OK && !req->flow.fresh) {
        authn_login_code(req); /* another tab was quicker: its session counts */
        return;
    }
    if (req->app->oidc == NULL) {
        authn_oidc_down(req);
        return;
    }
    browser = authn_browser(req, false);
    if (clock_wall_s() - req->flow.issued_at_s > AUTHN_FLOW_LIFE_S) {
        authn_login_again(req, "state-expired");
    } else if (browser.n == 0 || !secret_same(browser, req->flow.browser)) {
        authn_login_again(req, "cookie-not-returned");
    } else if (provider_of(req) == NULL) {
        req->waiter.next = judge_refreshed;
        authn_oidc_refresh(req->app->oidc, &req->waiter, (struct sv){ .p = NULL });
    } else {
        judge(req, ERR_OK);
    }
}

/* Nothing says where to: with a session the person's own page, else an explanation. */
static void stateless_found(struct authn_request *req, enum err err)
{
    if (err == ERR_OK) {
        authn_reply_redirect(req, SV("/.pomerium/"));
    } else {
        refused(req, 400, "state-invalid",
                "This address belongs to a sign-in that is not known here.");
    }
}

void authn_oidc_callback(struct authn_request *req)
{
    struct authn_exchange *x = MEM_NEW(struct authn_exchange);
    struct http_url url;

    req->exchange = x;
    x->param[P_CODE].key = SV("code");
    x->param[P_ERROR].key = SV("error");
    x->param[P_ISS].key = SV("iss");
    x->param[P_STATE].key = SV("state");
    if (http_form_read(req->query, x->param, ARRAY_LEN(x->param), &req->arena) != ERR_OK) {
        refused(req, 400, "callback-invalid", "A parameter is there twice, or broken.");
        return;
    }
    if (req->app->oidc == NULL ||
        authn_flow_open(req->app->states, AUTHN_FLOW_PROVIDER, x->param[P_STATE].value, &req->arena,
                        &req->flow) != ERR_OK ||
        authn_redirect_flow_check(req->config, &req->flow, &url) != ERR_OK) {
        req->flow = (struct authn_flow){ .attempt = 0 };
        authn_session_find(req, stateless_found);
        return;
    }
    authn_session_find(req, callback_found);
}
