#include "proxy/program.h"

#include <string.h>

#include <openssl/sha.h>

#include "common/clock.h"
#include "common/crypto/link.h"
#include "common/http/form.h"
#include "common/http/url.h"
#include "common/mem.h"
#include "proxy/login.h"
#include "proxy/reply.h"

/* RFC 7636 §4.1. */
enum { VERIFIER_MIN = 43, VERIFIER_MAX = 128, REDEEM_WAIT_MS = 6000 };

static void text(struct proxy_exchange *x, struct sv body)
{
    struct proxy_fields fields = { .n = 0 };

    proxy_fields_add(&fields, SV("Cache-Control"), SV("no-store"));
    proxy_reply(x, &(struct proxy_reply){
                       .status = 200, .type = SV("text/plain"), .body = body, .fields = &fields });
}

/* ---- what the token will be for --------------------------------------------------------------- */

/* What a host serves. */
struct served {
    bool requests;
    size_t n_tunnels;
    const struct config_route *tunnel;
};

static void count(const struct config_route *route, void *arg)
{
    struct served *s = arg;

    if (route->kind == CONFIG_ROUTE_TCP) {
        s->n_tunnels++;
        s->tunnel = route;
    } else {
        s->requests = true;
    }
}

/* The tunnel that was asked for, if clients come to it by this host. */
static const struct config_route *named_tunnel(const struct proxy_exchange *x, struct sv name)
{
    struct http_authority auth = { 0 };
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    const struct config_route *route = NULL;

    if (http_authority_parse(name, &auth) != ERR_OK ||
        http_host_canonical(auth.host, room, &host) != ERR_OK) {
        return NULL;
    }
    route = route_table_tunnel(x->snapshot->table, host, auth.port);
    return route != NULL && sv_eq(route->host, x->req.host) ? route : NULL;
}

/* Programs that know nothing of tunnels name none: then it is the host's requests, or its one
 * tunnel. False: refused. */
static bool find_holder(struct proxy_exchange *x, const struct http_form_value *name,
                        struct sv *holder_out)
{
    struct served served = { .requests = false };

    if (name->present) {
        served.tunnel = named_tunnel(x, name->value);
        if (served.tunnel == NULL) {
            proxy_reply_fault(x, 404, "route-not-found");
            return false;
        }
        *holder_out = proxy_login_tunnel_holder(x, served.tunnel->tunnel);
        return true;
    }
    route_table_each(x->snapshot->table, x->req.host, count, &served);
    if (!served.requests && served.n_tunnels > 1) {
        proxy_reply_fault(x, 400, "tunnel-not-named");
        return false;
    }
    *holder_out = served.requests || served.tunnel == NULL
                      ? x->req.authority
                      : proxy_login_tunnel_holder(x, served.tunnel->tunnel);
    return true;
}

/* ---- the address for the browser -------------------------------------------------------------- */

static bool may_ask(struct proxy_exchange *x)
{
    if (x->head.method != HTTP_GET) {
        proxy_reply_fault(x, 405, "method-not-allowed");
        return false;
    }
    if (x->snapshot->authenticate.cluster == NULL) {
        proxy_reply_fault(x, 404, "no-login-configured");
        return false;
    }
    return true;
}

void proxy_program_login(struct proxy_exchange *x)
{
    struct http_form_value v[] = { { .key = SV("pomerium_redirect_uri") },
                                   { .key = SV("pomerium_binding") },
                                   { .key = SV("pomerium_tunnel") } };
    CLEANUP(buf_deinit) struct buf url = { 0 };
    struct http_url back;
    struct sv holder = { 0 };

    if (!may_ask(x)) {
        return;
    }
    if (http_form_read(x->req.query, v, ARRAY_LEN(v), &x->arena) != ERR_OK ||
        http_url_parse(v[0].value, &back, NULL) != ERR_OK || !http_url_is_loopback(&back)) {
        proxy_reply_fault(x, 400, "redirect-not-loopback");
        return;
    }
    if (!find_holder(x, &v[2], &holder)) {
        return;
    }
    buf_init(&url, LINK_MAX);
    buf_add_sv(&url, x->snapshot->config->authenticate_service_url.text);
    buf_add_str(&url, "/.pomerium/sign_in?");
    http_form_add(&url, v[0].key, v[0].value);
    http_form_add(&url, SV("pomerium_program"), holder);
    if (v[1].present) {
        http_form_add(&url, v[1].key, v[1].value);
    }
    if (link_sign(x->snapshot->config->keys, &url) != ERR_OK) {
        proxy_reply_fault(x, 414, "address-too-long");
        return;
    }
    text(x, buf_sv(&url)); /* and nothing behind it: Go's parser of URLs takes no end of line */
}

/* ---- the token for the code ------------------------------------------------------------------- */

void proxy_program_token(struct proxy_exchange *x)
{
    struct http_form_value v[] = { { .key = SV("pomerium_code") },
                                   { .key = SV("pomerium_verifier") },
                                   { .key = SV("pomerium_tunnel") } };
    const struct sv mark = SV(HANDLE_PROGRAM);
    struct proxy_redeem *redeem = NULL;
    struct sv holder = { 0 };

    if (!may_ask(x)) {
        return;
    }
    if (http_form_read(x->req.query, v, ARRAY_LEN(v), &x->arena) != ERR_OK || v[0].value.n == 0 ||
        v[1].value.n < VERIFIER_MIN || v[1].value.n > VERIFIER_MAX) {
        proxy_reply_fault(x, 400, "code-or-verifier-missing");
        return;
    }
    if (!find_holder(x, &v[2], &holder)) {
        return;
    }
    redeem = MEM_NEW(struct proxy_redeem);
    redeem->worker = x->worker;
    redeem->exchange = x;
    redeem->code = mem_svdup(v[0].value);
    redeem->program = true;
    redeem->host = mem_alloc(mark.n + holder.n + 1);
    memcpy(redeem->host, mark.p, mark.n);
    memcpy(redeem->host + mark.n, holder.p, holder.n);
    redeem->host[mark.n + holder.n] = '\0';
    (void)SHA256((const unsigned char *)v[1].value.p, v[1].value.n, redeem->binding);
    x->redeem = redeem;
    x->phase = PROXY_CHECK;
    x->deadline_ms = clock_mono_ms() + REDEEM_WAIT_MS;
    proxy_app_redeem(x->worker->app, redeem);
}

void proxy_program_redeemed(struct proxy_exchange *x, const struct proxy_redeem *redeem)
{
    CLEANUP(buf_deinit) struct buf token = { 0 };
    struct sv holder = sv_from(redeem->host + strlen(HANDLE_PROGRAM));

    x->redeem = NULL;
    if (redeem->status != RPC_OK && redeem->status != RPC_UNAUTHENTICATED &&
        redeem->status != RPC_INVALID_ARGUMENT) {
        proxy_reply_fault(x, 503, "authenticate-unavailable");
        return;
    }
    if (redeem->status != RPC_OK || redeem->session[0] == '\0') {
        proxy_reply_fault(x, 400, "code-refused"); /* used, too old, or another program's */
        return;
    }
    buf_init(&token, HANDLE_TEXT_MAX);
    if (!proxy_login_make_handle(x, redeem, holder, &token)) {
        proxy_reply_fault(x, 500, "internal-error");
        return;
    }
    text(x, buf_sv(&token));
}
