#include "proxy/own.h"

#include <stdio.h>
#include <string.h>

#include "proxy/login.h"
#include "proxy/reply.h"
#include "proxy/tls.h"

enum { JSON_MAX = 4096 };

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

bool proxy_own_serve(struct proxy_exchange *x)
{
    struct sv path = x->req.decoded;

    if (sv_eq(path, SV("/ping")) || sv_eq(path, SV("/healthz"))) {
        text(x, SV("text/plain"), SV("OK\n"), false);
    } else if (sv_eq(path, SV("/.well-known/pomerium")) ||
               sv_eq(path, SV("/.well-known/pomerium/"))) {
        well_known(x);
    } else if (sv_eq(path, SV("/.well-known/pomerium/jwks.json"))) {
        text(x, SV("application/json"), assertion_jwks(x->snapshot->assertion), true);
    } else if (sv_eq(path, SV("/.pomerium/callback")) || sv_eq(path, SV("/.pomerium/callback/"))) {
        proxy_login_callback(x);
    } else if (sv_eq(path, SV("/.pomerium/sign_out")) || sv_eq(path, SV("/.pomerium/sign_out/"))) {
        proxy_login_sign_out(x);
    } else if (sv_eq(path, SV("/.pomerium")) || sv_eq(path, SV("/.pomerium/")) ||
               sv_eq(path, SV("/.pomerium/user"))) {
        return false;
    } else {
        proxy_reply_fault(x, 404, "no-such-endpoint");
    }
    return true;
}

static void add_host_and_port(struct proxy_exchange *x, const struct config_redirect *r,
                              struct buf *url)
{
    const char *scheme = x->visitor.https || r->https_redirect ? "https" : "http";
    struct sv host = r->host_redirect.n != 0 ? r->host_redirect : x->req.host;

    if (r->scheme_redirect.n != 0) {
        scheme = r->scheme_redirect.p;
    }
    buf_printf(url, "%s://", scheme);
    buf_add_sv(url, host);
    if (r->port_redirect != 0) {
        buf_printf(url, ":%u", r->port_redirect);
    } else if (r->host_redirect.n == 0 && x->req.port != 0) {
        buf_printf(url, ":%u", x->req.port);
    }
}

void proxy_own_redirect(struct proxy_exchange *x)
{
    const struct config_route *c = x->route->config;
    const struct config_redirect *r = &c->redirect;
    CLEANUP(buf_deinit) struct buf url = { 0 };

    buf_init(&url, (size_t)HTTP_URL_MAX * 2);
    add_host_and_port(x, r, &url);
    if (r->path_redirect.n != 0) {
        buf_add_sv(&url, r->path_redirect);
    } else if (r->prefix_rewrite.n != 0 && c->match == CONFIG_MATCH_PREFIX) {
        buf_add_sv(&url, r->prefix_rewrite);
        buf_add_sv(&url,
                   sv_from_at(x->req.path, http_canon_encoded_len(x->req.path, c->match_value.n)));
    } else {
        buf_add_sv(&url, x->req.path);
    }
    if (x->req.has_query && !r->strip_query) {
        buf_add_char(&url, '?');
        buf_add_sv(&url, x->req.query);
    }
    if (url.err != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
        return;
    }
    proxy_reply_redirect(x, r->response_code, buf_sv(&url), NULL);
}

bool proxy_own_covers(const struct proxy_exchange *x)
{
    const char *sni = SSL_get_servername(x->conn->io.ssl, TLSEXT_NAMETYPE_host_name);
    char host[PROXY_HOST_MAX];

    /* Same name, or no name at all (an address, a tool): nothing to confuse. */
    if (sni == NULL || sv_ieq(sv_from(sni), x->req.host) || x->req.host.n >= sizeof(host)) {
        return true;
    }
    memcpy(host, x->req.host.p, x->req.host.n);
    host[x->req.host.n] = '\0';
    return proxy_tls_covers(x->conn->io.ssl, host);
}
