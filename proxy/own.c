#include "proxy/own.h"

#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/http/accept.h"
#include "common/http/page.h"
#include "common/http/sign_in.h"
#include "proxy/acme.h"
#include "proxy/cors.h"
#include "proxy/login.h"
#include "proxy/program.h"
#include "proxy/reply.h"
#include "proxy/rewrite.h"
#include "proxy/whoami.h"

enum { JSON_MAX = 4096, TAG_BYTES = 8 };

/* A text of ours. Everyone may read keys and addresses, also scripts of other sites. */
static void text(struct proxy_exchange *x, struct sv type, struct sv body, bool open)
{
    struct proxy_fields fields = { .n = 0 };

    if (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD) {
        proxy_reply_fault(x, 405, "method-not-allowed");
        return;
    }
    if (open) {
        proxy_fields_add(&fields, SV("Access-Control-Allow-Origin"), SV("*"));
    }
    proxy_fields_add(&fields, SV("Cache-Control"), open ? SV("max-age=60") : SV("no-store"));
    proxy_reply(
        x, &(struct proxy_reply){ .status = 200, .type = type, .body = body, .fields = &fields });
}

static void well_known(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    struct sv host = x->req.authority;

    buf_init(&body, JSON_MAX);
    buf_add_str(&body, "{\"issuer\":\"https://");
    buf_add_sv(&body, host);
    buf_add_str(&body, "/\",\"authentication_callback_endpoint\":\"");
    buf_add_sv(&body, x->snapshot->config->authenticate_service_url.text);
    buf_add_str(&body, "/oauth2/callback\",\"jwks_uri\":\"https://");
    buf_add_sv(&body, host);
    buf_add_str(&body, "/.well-known/pomerium/jwks.json\",\"frontchannel_logout_uri\":\"https://");
    buf_add_sv(&body, host);
    buf_add_str(&body, "/.pomerium/sign_out\"}\n");
    text(x, SV("application/json"), buf_sv(&body), true);
}

/* The keys, which verifiers ask for again and again. */
static void jwks(struct proxy_exchange *x)
{
    struct sv keys = assertion_jwks(x->snapshot->assertion);
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct proxy_fields fields = { .n = 0 };
    char tag[2 * TAG_BYTES + 3] = "\"";
    bool same = false;

    (void)SHA256((const unsigned char *)keys.p, keys.n, sum);
    for (size_t i = 0; i < TAG_BYTES; i++) {
        (void)snprintf(tag + 1 + 2 * i, 3, "%02x", sum[i]);
    }
    tag[2 * TAG_BYTES + 1] = '"';
    same = sv_eq(http_head_value(&x->head, HTTP_H_IF_NONE_MATCH), sv_from(tag));
    if (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD) {
        proxy_reply_fault(x, 405, "method-not-allowed");
        return;
    }
    proxy_fields_add(&fields, SV("Access-Control-Allow-Origin"), SV("*"));
    proxy_fields_add(&fields, SV("Cache-Control"), SV("max-age=60"));
    proxy_fields_add(&fields, SV("ETag"), sv_from(tag));
    proxy_reply(x, &(struct proxy_reply){ .status = same ? 304 : 200,
                                          .type = same ? SV("") : SV("application/json"),
                                          .body = same ? SV("") : keys,
                                          .fields = &fields });
}

bool proxy_own_serve(struct proxy_exchange *x)
{
    struct sv path = x->req.decoded;

    if (sv_eq(path, SV("/ping")) || sv_eq(path, SV("/healthz"))) {
        text(x, SV("text/plain"), SV("OK\n"), false);
    } else if (sv_eq(path, SV("/.well-known/pomerium")) ||
               sv_eq(path, SV("/.well-known/pomerium/"))) {
        well_known(x);
    } else if (sv_eq(path, SV("/.well-known/pomerium/jwks.json"))) {
        jwks(x);
    } else if (sv_eq(path, SV("/.pomerium/api/v1/login"))) {
        proxy_program_login(x);
    } else if (sv_eq(path, SV("/.pomerium/api/v1/token"))) {
        proxy_program_token(x);
    } else if (sv_eq(path, SV("/.pomerium/callback")) || sv_eq(path, SV("/.pomerium/callback/"))) {
        proxy_login_callback(x);
    } else if (sv_eq(path, SV(HTTP_SIGN_IN_PATH))) {
        proxy_login_sign_in(x);
    } else if (sv_eq(path, SV("/.pomerium/sign_out")) || sv_eq(path, SV("/.pomerium/sign_out/"))) {
        proxy_login_sign_out(x);
    } else if (sv_eq(path, SV("/.pomerium")) || sv_eq(path, SV("/.pomerium/")) ||
               sv_eq(path, SV("/.pomerium/user")) || proxy_whoami_path(path)) {
        return false;
    } else {
        proxy_reply_fault(x, 404, "no-such-endpoint");
    }
    return true;
}

bool proxy_own_page(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    struct proxy_fields fields = { .n = 0 };
    bool page = http_accept_media(&x->head) == HTTP_MEDIA_HTML;
    const struct proxy_whoami who = { .peer = &x->conn->peer,
                                      .config = x->snapshot->config,
                                      .head = &x->head,
                                      .visitor = &x->visitor,
                                      .user = x->user,
                                      .email = x->email,
                                      .request_id = sv_from(x->request_id) };

    if (!proxy_whoami_path(x->req.decoded)) {
        return false;
    }
    buf_init(&body, PROXY_WHOAMI_MAX);
    if (!page) {
        proxy_whoami_json(&who, &body);
        text(x, SV("application/json"), buf_sv(&body), false);
    } else if (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD) {
        proxy_reply_fault(x, 405, "method-not-allowed");
    } else {
        proxy_whoami_page(&who, &body);
        proxy_fields_add_page(&fields, &x->arena);
        proxy_reply(x, &(struct proxy_reply){ .status = 200,
                                              .type = HTTP_PAGE_TYPE,
                                              .body = buf_sv(&body),
                                              .fields = &fields });
    }
    return true;
}

/* The port of https is the routes': the one this request came to is the plain listener's. */
void proxy_own_to_https(struct proxy_exchange *x)
{
    const struct proxy_snapshot *s = x->snapshot;
    CLEANUP(buf_deinit) struct buf url = { 0 };
    bool read_only = x->head.method == HTTP_GET || x->head.method == HTTP_HEAD;
    uint16_t port = 0;

    x->close_after = true;
    /* "OPTIONS *" has no address */
    if (!proxy_snapshot_https_port(s, x->req.host, &port) || !sv_starts(x->req.path, SV("/"))) {
        proxy_reply_fault(x, 404, "route-not-found");
        return;
    }
    buf_init(&url, (size_t)HTTP_URL_MAX * 2);
    buf_add_str(&url, "https://");
    buf_add_sv(&url, x->req.host);
    if (port != 0) {
        buf_printf(&url, ":%u", port);
    }
    buf_add_sv(&url, x->req.path);
    if (x->req.has_query) {
        buf_add_char(&url, '?');
        buf_add_sv(&url, x->req.query);
    }
    if (url.err != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
        return;
    }
    /* 308 keeps the method; for GET the older 301 says the same to more programs. */
    proxy_reply_redirect(x, read_only ? 301 : 308, buf_sv(&url), NULL);
}

bool proxy_own_challenge(struct proxy_exchange *x)
{
    struct sv answer = proxy_acme_answer(x->conn->worker->acme, x->req.decoded);

    if (answer.n == 0) {
        return false;
    }
    text(x, SV("application/octet-stream"), answer, false);
    return true;
}

void proxy_own_redirect(struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };

    buf_init(&url, (size_t)HTTP_URL_MAX * 2);
    proxy_rewrite_location(x->route->config, &x->req, x->visitor.https, &url);
    if (url.err != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
        return;
    }
    proxy_reply_redirect(x, x->route->config->redirect.response_code, buf_sv(&url), NULL);
}

void proxy_own_preflight(struct proxy_exchange *x)
{
    const struct config_cors *cors = &x->route->config->cors;
    struct proxy_fields fields = { .n = 0 };

    if (!proxy_cors_allows(cors, http_head_value(&x->head, HTTP_H_ORIGIN))) {
        proxy_reply_fault(x, 403, "cors-origin-not-allowed");
        return;
    }
    proxy_cors_preflight(cors, &fields);
    proxy_reply(x, &(struct proxy_reply){ .status = 204, .fields = &fields });
}

bool proxy_own_robots(struct proxy_exchange *x)
{
    if (!sv_eq(x->req.decoded, SV("/robots.txt")) ||
        (x->head.method != HTTP_GET && x->head.method != HTTP_HEAD) ||
        http_accept_media(&x->head) == HTTP_MEDIA_KUBERNETES) { /* it asks an API for an object */
        return false;
    }
    text(x, SV("text/plain"), SV("User-agent: *\nDisallow: /\n"), false);
    return true;
}
