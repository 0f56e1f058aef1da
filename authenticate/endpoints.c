#include "authenticate/endpoints.h"

#include "authenticate/login.h"
#include "authenticate/oidc.h"
#include "authenticate/program.h"
#include "authenticate/sign_out.h"
#include "authenticate/user.h"

enum { ON_OWN = 1, ON_ROUTE = 2 };

static void root(struct authn_request *req)
{
    authn_reply_redirect(req, SV("/.pomerium/"));
}

static void robots(struct authn_request *req)
{
    authn_reply_text(req, 200, "text/plain; charset=utf-8", SV("User-agent: *\nDisallow: /\n"));
}

static void healthy(struct authn_request *req)
{
    authn_reply_text(req, 200, "text/plain; charset=utf-8", SV("OK\n"));
}

struct endpoint {
    const char *path;
    unsigned hosts;
    void (*get)(struct authn_request *req);
    void (*post)(struct authn_request *req);
};

static const struct endpoint endpoints[] = {
    { "/", ON_OWN, root, NULL },
    { "/robots.txt", ON_OWN, robots, NULL },
    { "/healthz", ON_OWN, healthy, NULL },
    { "/ping", ON_OWN, healthy, NULL },
    { "/oauth2/callback", ON_OWN, authn_oidc_callback, NULL },
    { "/.pomerium/sign_in", ON_OWN, authn_login_start, authn_login_form },
    { "/.pomerium/program", ON_OWN, NULL, authn_program_form },
    { "/.pomerium/sign_out", ON_OWN, authn_sign_out, authn_sign_out_form },
    { "/.pomerium/signed_out", ON_OWN, authn_signed_out, NULL },
    { "/.pomerium", ON_OWN | ON_ROUTE, authn_user_page, NULL },
    { "/.pomerium/", ON_OWN | ON_ROUTE, authn_user_page, NULL },
    { "/.pomerium/user", ON_OWN | ON_ROUTE, authn_user_json, NULL },
};

void authn_endpoints_handle(struct authn_request *req)
{
    const struct endpoint *found = NULL;
    unsigned here = req->own_host ? ON_OWN : ON_ROUTE;
    void (*handler)(struct authn_request *) = NULL;

    for (size_t i = 0; i < ARRAY_LEN(endpoints) && found == NULL; i++) {
        if ((endpoints[i].hosts & here) != 0 && sv_eq(req->path, sv_from(endpoints[i].path))) {
            found = &endpoints[i];
        }
    }
    if (found == NULL) {
        authn_reply_problem(req, &(struct authn_problem){ .status = 404,
                                                          .code = "not-found",
                                                          .title = "There is nothing here",
                                                          .what = "This page does not exist." });
        return;
    }
    handler = req->method == AUTHN_GET ? found->get : found->post;
    if (handler == NULL || req->method == AUTHN_METHOD_OTHER) {
        authn_reply_header(req, "Allow",
                           found->get == NULL    ? "POST"
                           : found->post != NULL ? "GET, HEAD, POST"
                                                 : "GET, HEAD");
        authn_reply_problem(
            req, &(struct authn_problem){ .status = 405,
                                          .code = "method-not-allowed",
                                          .title = "This does not work here",
                                          .what = "The page cannot be asked this way." });
        return;
    }
    handler(req);
}
