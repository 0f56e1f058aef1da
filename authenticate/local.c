#include "authenticate/local.h"

#include <string.h>

#include "authenticate/login.h"
#include "authenticate/page.h"
#include "authenticate/program.h"
#include "authenticate/redirect.h"
#include "common/clock.h"
#include "common/http/form.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"

/* One password to check, on a thread of the pool. It sees its own members only. */
struct check {
    struct authn_request *req;
    char *file;
    struct authn_users *users; /* a reference; not counted on the other thread */
    struct authn_users *fresh; /* what the file holds now, where it changed */
    const struct authn_user *found;
    char email[AUTHN_EMAIL_MAX + 1];
    char *password;
    struct diag diag;
    enum err load_err;
};

static void form_show(struct authn_request *req, int status, const char *note, struct sv email)
{
    CLEANUP(buf_deinit) struct buf token;
    CLEANUP(buf_deinit) struct buf page;
    CLEANUP(buf_deinit) struct buf origin;
    struct http_url url;

    buf_init(&token, 65536);
    buf_init(&page, (size_t)HTTP_PAGE_MAX * 2);
    buf_init(&origin, 512);
    if (authn_redirect_flow_check(req->config, &req->flow, &url) == ERR_OK) {
        http_url_add_origin(&origin, &url);
    }
    if (authn_flow_seal(req->app->forms, AUTHN_FLOW_FORM, &req->flow, &token) != ERR_OK) {
        authn_login_again(req, "redirect-too-long");
        return;
    }
    authn_page_login(&page, &(struct authn_page_login){ .token = buf_sv(&token),
                                                        .email = email,
                                                        .note = sv_from(note),
                                                        .app = req->flow.program.n != 0
                                                                   ? authn_program_name(req)
                                                                   : url.host,
                                                        .request_id = req->request_id });
    authn_reply_page(req, status, &page, buf_sv(&origin));
}

void authn_local_ask(struct authn_request *req)
{
    form_show(req, 200, "", (struct sv){ .p = NULL });
}

enum err authn_local_load(struct authn *app, struct diag *d)
{
    struct authn_users *fresh = NULL;
    enum err err = authn_users_load(app->config->idp_local_users_file.p, app->users, &fresh, d);

    if (err == ERR_OK) {
        authn_users_unref(&app->users);
        app->users = fresh;
        log_info("users.loaded", KV_U64("count", authn_users_count(fresh)));
    }
    service_part_set(app->part_users, app->users != NULL, "users file");
    return err == ERR_EXISTS ? ERR_OK : err;
}

/* --- the check ------------------------------------------------------------------------------------ */

static void check_run(void *arg)
{
    struct check *c = arg;

    c->load_err = authn_users_load(c->file, c->users, &c->fresh, &c->diag);
    c->found = authn_users_verify(c->fresh != NULL ? c->fresh : c->users, sv_from(c->email),
                                  sv_from(c->password));
}

static void check_free(struct check *c)
{
    secret_wipe(c->password, strlen(c->password));
    mem_free(&c->password);
    mem_free(&c->file);
    authn_users_unref(&c->users);
    mem_free(&c);
}

static void identity_of(struct authn_request *req, const struct authn_user *user,
                        struct authn_identity *who, json_t **flat_out)
{
    CLEANUP(buf_deinit) struct buf id;
    json_t *groups = json_array();
    json_t *flat = json_object();

    buf_init(&id, 512);
    buf_add_str(&id, "local/");
    buf_add_sv(&id, user->email);
    for (size_t i = 0; i < user->n_groups; i++) {
        CHECK(json_array_append_new(groups, json_stringn(user->groups[i].p, user->groups[i].n)) ==
              0);
    }
    CHECK(json_object_set_new(flat, "groups", groups) == 0);
    CHECK(json_object_set_new(flat, "email", json_pack("[s%]", user->email.p, user->email.n)) == 0);
    if (user->name.n > 0) {
        CHECK(json_object_set_new(flat, "name", json_pack("[s%]", user->name.p, user->name.n)) ==
              0);
    }
    *flat_out = flat;
    *who = (struct authn_identity){ .user_id = arena_sv(&req->arena, buf_sv(&id)),
                                    .email = arena_sv(&req->arena, user->email),
                                    .name = arena_sv(&req->arena, user->name),
                                    .idp_id = sv_from(req->app->idp_id),
                                    .issuer = SV("local"),
                                    .authenticated_at_s = clock_wall_s(),
                                    .claims = flat,
                                    .groups = groups };
}

static void check_answer(struct check *c)
{
    struct authn_request *req = c->req;
    struct authn_identity who;
    json_t *flat = NULL;

    authn_throttle_end(req->app->throttle, sv_from(c->email), req->address,
                       c->found == NULL ? AUTHN_ATTEMPT_FAILED : AUTHN_ATTEMPT_SUCCEEDED,
                       clock_mono_ms());
    if (c->found == NULL) {
        log_info("login.failed", KV_STR("cause", "password"), KV_STR("account", c->email),
                 KV_SV("address", req->address), KV_SV("request_id", req->request_id));
        form_show(req, 401, "That e-mail address and password do not go together.",
                  sv_from(c->email));
        return;
    }
    identity_of(req, c->found, &who, &flat);
    authn_login_done(req, &who);
    json_decref(flat);
}

static void check_done(void *arg)
{
    struct check *c = arg;
    struct authn *app = c->req->app;

    c->req->jobs--;
    if (c->load_err != ERR_OK && c->load_err != ERR_EXISTS) {
        char line[DIAG_LINE];

        log_error("users.not_loaded", KV_STR("why", diag_format(&c->diag, line)));
    }
    check_answer(c);
    if (c->fresh != NULL) {
        authn_users_unref(&app->users);
        app->users = TAKE(c->fresh);
        log_info("users.loaded", KV_U64("count", authn_users_count(app->users)));
    }
    check_free(c);
}

/* --- the form ------------------------------------------------------------------------------------- */

static void busy(struct authn_request *req, int64_t wait_ms)
{
    authn_reply_problem(
        req, &(struct authn_problem){ .status = 429,
                                      .code = "too-many-attempts",
                                      .title = "Too many attempts",
                                      .what = "There were too many failed attempts to sign in.",
                                      .todo = "Wait a little, then open the application again.",
                                      .retry_after_s = (int)(wait_ms / 1000 + 1),
                                      .link = req->flow.redirect_uri,
                                      .link_text = "Back to the application" });
}

static void users_try(struct authn *app)
{
    struct diag why = { .line = 0 };
    char line[DIAG_LINE];

    if (authn_local_load(app, &why) != ERR_OK) {
        log_error("users.not_loaded", KV_STR("why", diag_format(&why, line)));
    }
}

static void check_start(struct authn_request *req, const char *email, struct sv password)
{
    struct authn *app = req->app;
    struct check *c = NULL;
    int64_t wait = 0;

    if (app->users == NULL) {
        users_try(app); /* blocks for one small file, and only while there is none */
    }
    if (app->users == NULL) {
        authn_reply_problem(
            req, &(struct authn_problem){ .status = 503,
                                          .code = "users-unavailable",
                                          .title = "Nobody can sign in right now",
                                          .what = "The list of users cannot be read.",
                                          .todo = "An administrator finds the reason in the log.",
                                          .retry_after_s = 10 });
        return;
    }
    wait = authn_throttle_begin(app->throttle, sv_from(email), req->address, clock_mono_ms());
    if (wait > 0) {
        log_warn("login.throttled", KV_STR("account", email), KV_SV("address", req->address),
                 KV_I64("wait_ms", wait));
        busy(req, wait);
        return;
    }
    c = MEM_NEW(struct check);
    c->req = req;
    c->file = mem_svdup(req->config->idp_local_users_file);
    c->users = authn_users_ref(app->users);
    memcpy(c->email, email, strlen(email) + 1);
    c->password = mem_svdup(password);
    req->jobs++;
    if (job_submit(app->pool, check_run, check_done, c) != ERR_OK) {
        req->jobs--;
        authn_throttle_end(app->throttle, sv_from(email), req->address, AUTHN_ATTEMPT_NOT_MADE,
                           clock_mono_ms());
        check_free(c);
        busy(req, 1000);
    }
}

/* What a browser itself says of where the form stood; a foreign page cannot make it say otherwise. */
static bool same_origin(const struct authn_request *req)
{
    struct sv site = authn_request_header(req, "Sec-Fetch-Site");
    struct sv origin = authn_request_header(req, "Origin");

    if (site.n > 0 && !sv_eq(site, SV("same-origin"))) {
        return false;
    }
    return origin.n == 0 || sv_eq(origin, req->app->origin);
}

/* A token of another cookie of this same browser: many tabs opened at once, the last cookie won.
 * The browser's own word stands in for the cookie there; without it the form is shown again. */
static bool token_fits(struct authn_request *req)
{
    struct sv browser = authn_browser(req, false);

    return (browser.n > 0 && secret_same(browser, req->flow.browser)) ||
           sv_eq(authn_request_header(req, "Sec-Fetch-Site"), SV("same-origin"));
}

static void form_refused(struct authn_request *req, const char *why)
{
    authn_reply_problem(req,
                        &(struct authn_problem){ .status = 400,
                                                 .code = why,
                                                 .title = "This form does not work",
                                                 .what = "It did not come from our sign-in page.",
                                                 .todo = "Open the application again." });
}

void authn_login_form(struct authn_request *req)
{
    struct http_form_value v[] = { { .key = SV("token") },
                                   { .key = SV("email") },
                                   { .key = SV("password") } };
    char email[AUTHN_EMAIL_MAX + 1];
    struct http_url url;

    if (req->config->idp_provider != CONFIG_IDP_LOCAL || !same_origin(req)) {
        form_refused(req, "form-foreign");
        return;
    }
    if (http_form_read(req->body, v, ARRAY_LEN(v), &req->arena) != ERR_OK || !v[0].present ||
        authn_flow_open(req->app->forms, AUTHN_FLOW_FORM, v[0].value, &req->arena, &req->flow) !=
            ERR_OK ||
        authn_redirect_flow_check(req->config, &req->flow, &url) != ERR_OK) {
        form_refused(req, "form-invalid");
        return;
    }
    if (!token_fits(req) || clock_wall_s() - req->flow.issued_at_s > AUTHN_FORM_LIFE_S) {
        req->flow.browser = authn_browser(req, true);
        req->flow.issued_at_s = clock_wall_s();
        form_show(req, 400, "That page was out of date. Please sign in once more.",
                  (struct sv){ .p = NULL });
        return;
    }
    if (authn_email_canonical(sv_trim(v[1].value), email) != ERR_OK || v[2].value.n == 0) {
        form_show(req, 401, "That e-mail address and password do not go together.",
                  (struct sv){ .p = NULL });
        return;
    }
    check_start(req, email, v[2].value);
}
