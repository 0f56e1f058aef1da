#include "authenticate/program.h"

#include <string.h>

#include "authenticate/login.h"
#include "authenticate/page.h"
#include "authenticate/redirect.h"
#include "common/clock.h"
#include "common/crypto/handle.h"
#include "common/http/form.h"
#include "common/http/url.h"
#include "common/log.h"
#include "common/secret.h"

struct sv authn_program_name(const struct authn_request *req)
{
    struct sv holder = req->flow.program;
    const struct sv mark = SV(HANDLE_TCP);

    return sv_starts(holder, mark) ? sv_from_at(holder, mark.n) : holder;
}

void authn_program_ask(struct authn_request *req)
{
    CLEANUP(buf_deinit) struct buf token;
    CLEANUP(buf_deinit) struct buf page;
    CLEANUP(buf_deinit) struct buf origin;
    struct http_url url;

    buf_init(&token, 65536);
    buf_init(&page, (size_t)HTTP_PAGE_MAX * 2);
    buf_init(&origin, 512);
    if (authn_redirect_flow_check(req->config, &req->flow, &url) != ERR_OK) {
        authn_login_redirect_refused(req);
        return;
    }
    req->flow.browser = authn_browser(req, true);
    req->flow.issued_at_s = clock_wall_s();
    if (authn_flow_seal(req->app->forms, AUTHN_FLOW_PROGRAM, &req->flow, &token) != ERR_OK) {
        authn_login_again(req, "redirect-too-long");
        return;
    }
    http_url_add_origin(&origin, &url);
    authn_page_program(&page, &(struct authn_page_program){
                                  .token = buf_sv(&token),
                                  .what = authn_program_name(req),
                                  .who = sv_from(req->session->user_id),
                                  .request_id = req->request_id,
                              });
    authn_reply_page(req, 200, &page, buf_sv(&origin));
}

/* A code for who has a verifier, the token itself for who has none: programs written for Pomerium. */
static enum err add_what_it_gets(struct authn_request *req, struct buf *url)
{
    CLEANUP(buf_deinit) struct buf text;
    enum err err = ERR_OK;

    buf_init(&text, 65536);
    if (req->flow.binding.n != 0) {
        CLEANUP(buf_deinit) struct buf host;

        buf_init(&host, 1024);
        buf_add_str(&host, HANDLE_PROGRAM);
        buf_add_sv(&host, req->flow.program);
        err = authn_login_seal_code(req, buf_sv(&host), &text);
        buf_add_str(url, "pomerium_code=");
    } else {
        struct handle handle = { .record_version = req->session_version,
                                 .issued_at_s = clock_wall_s() };

        if (strlen(req->session->id) > HANDLE_SESSION_MAX) {
            return ERR_LIMIT;
        }
        memcpy(handle.session, req->session->id, strlen(req->session->id));
        memcpy(handle.idp_id, req->app->idp_id, sizeof req->app->idp_id);
        err = handle_make(req->app->handles, &handle, req->flow.program, &text);
        buf_add_str(url, "pomerium_jwt=");
    }
    buf_add_sv(url, buf_sv(&text));
    return err != ERR_OK ? err : url->err;
}

static void form_found(struct authn_request *req, enum err err)
{
    CLEANUP(buf_deinit) struct buf location;
    struct http_url url;

    buf_init(&location, 65536);
    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
        return;
    }
    if (err != ERR_OK) {
        authn_login_ask(req); /* signed out meanwhile */
        return;
    }
    if (authn_redirect_flow_check(req->config, &req->flow, &url) != ERR_OK) {
        authn_login_redirect_refused(req);
        return;
    }
    http_url_add(&location, &url);
    buf_add_char(&location, url.has_query ? '&' : '?');
    if (add_what_it_gets(req, &location) != ERR_OK) {
        authn_login_redirect_refused(req);
        return;
    }
    log_info("program.allowed", KV_STR("user", req->session->user_id),
             KV_STR("session", req->session->id), KV_SV("for", req->flow.program),
             KV_SV("address", req->address), KV_SV("request_id", req->request_id));
    authn_reply_redirect(req, buf_sv(&location));
}

void authn_program_form(struct authn_request *req)
{
    struct sv token = { .p = NULL };
    struct sv origin = authn_request_header(req, "Origin");
    struct sv browser = authn_browser(req, false);

    if ((origin.n > 0 && !sv_eq(origin, req->app->origin)) ||
        http_form_get(req->body, SV("token"), &req->arena, &token) != ERR_OK ||
        authn_flow_open(req->app->forms, AUTHN_FLOW_PROGRAM, token, &req->arena, &req->flow) !=
            ERR_OK ||
        req->flow.program.n == 0 || browser.n == 0 || !secret_same(browser, req->flow.browser) ||
        clock_wall_s() - req->flow.issued_at_s > AUTHN_FLOW_LIFE_S) {
        authn_reply_problem(
            req, &(struct authn_problem){ .status = 400,
                                          .code = "program-state-invalid",
                                          .title = "This did not work",
                                          .what = "The question is too old, or was another "
                                                  "browser's.",
                                          .todo = "Start the program again." });
        return;
    }
    authn_session_find(req, form_found);
}
