/* From a complete head to a decision: canonical form, route, identity, check, verdict. */
#include <string.h>

#include "common/authz_headers.h"
#include "common/clock.h"
#include "common/http/accept.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/policy/input.h"
#include "common/policy/reason.h"
#include "common/route/settle.h"
#include "proxy/bearer.h"
#include "proxy/client_cert.h"
#include "proxy/exchange.h"
#include "proxy/forward.h"
#include "proxy/forward_auth.h"
#include "proxy/h2.h"
#include "proxy/login.h"
#include "proxy/own.h"
#include "proxy/reply.h"
#include "proxy/tls.h"

enum { RECHECK_RETRY_MS = 1000 };

static void on_answer(void *arg, const struct proxy_answer *answer);

bool proxy_request_is_preflight(const struct proxy_exchange *x)
{
    return x->req.method == HTTP_OPTIONS && http_head_value(&x->head, HTTP_H_ORIGIN).n != 0 &&
           http_head_value(&x->head, HTTP_H_ACCESS_CONTROL_REQUEST_METHOD).n != 0;
}

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

/* The route as it is now, by which also an exchange is judged that began under an older one: its CAs
 * and lists, and what its policies ask for. NULL: a page of ours, or it is gone. */
static const struct proxy_route *route_now(const struct proxy_exchange *x)
{
    const struct proxy_snapshot *now = x->worker->snapshot;

    if (x->route == NULL || x->route->config == NULL) {
        return NULL;
    }
    return x->snapshot == now ? x->route : proxy_snapshot_same_route(now, x->route);
}

/* The certificate of a proxy that asks for a verdict is not its visitor's. */
static Postern__ClientCertificate *client_certificate(const struct proxy_exchange *x,
                                                      const struct proxy_route *route)
{
    if (x->service == PROXY_FOR_VERDICT || x->conn->client_cert == NULL || x->route == NULL ||
        x->route->config == NULL) {
        return NULL;
    }
    return proxy_client_cert_for(x->conn->client_cert, route == NULL ? NULL : route->trust,
                                 x->conn->peer.text);
}

static uint64_t send_check(struct proxy_exchange *x, bool recheck, proxy_answer_fn fn)
{
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    const struct proxy_route *route = route_now(x);
    struct authz_headers room; /* not set but where it is asked for */

    check.route = x->route != NULL && x->route->config != NULL ? x->route->config->id : 0;
    check.request_id = bytes_of(sv_from(x->request_id));
    if (x->handle_valid) {
        check.session = x->handle.session;
        check.record_version = x->handle.record_version;
        check.idp_id = x->handle.idp_id;
    }
    check.method = bytes_of(x->req.method_text);
    check.host = bytes_of(x->req.host);
    check.path = bytes_of(x->req.decoded);
    check.query = bytes_of(x->req.query);
    check.client_ip = bytes_of(proxy_address_bytes(&x->visitor.address));
    check.cors_preflight = proxy_request_is_preflight(x);
    check.recheck = recheck;
    check.internal = x->service == PROXY_FOR_PAGES;
    check.client_certificate = client_certificate(x, route);
    authz_headers_add(&x->head, route == NULL ? NULL : route->config, &room, &check);
    authz_headers_add_named(&x->head, &x->worker->snapshot->config->authorize_log_fields.headers,
                            &room, &check);
    return proxy_authz_check(x->worker->authz, &check, fn, x);
}

/* ---- what the route says about upgrades ------------------------------------------------------- */

/* False: the request was refused. */
static bool settle_upgrade(struct proxy_exchange *x)
{
    struct sv token = http_head_value(&x->head, HTTP_H_UPGRADE);
    const struct config_route *c = x->route == NULL ? NULL : x->route->config;
    size_t i = 0;

    x->upgrade = false;
    if (!x->head.upgrade || sv_ieq(token, SV("h2c"))) {
        return true; /* an offer that nobody has to take */
    }
    if (c != NULL) {
        x->upgrade = (c->allow_websockets && x->head.websocket) ||
                     (c->allow_spdy && sv_ieq(token, SV("spdy/3.1")));
        for (i = 0; i < c->allow_upgrades.n && !x->upgrade; i++) {
            x->upgrade = sv_ieq(token, c->allow_upgrades.v[i]);
        }
    }
    if (!x->upgrade) {
        proxy_reply_fault(x, 403, "upgrade-not-allowed");
    }
    return x->upgrade;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void act(struct proxy_exchange *x)
{
    const struct config_route *c = x->route == NULL ? NULL : x->route->config;

    if (x->service == PROXY_FOR_VERDICT) {
        proxy_forward_auth_allow(x);
        return;
    }
    if (c == NULL) { /* a page of ours */
        if (!proxy_own_page(x) && proxy_outgoing_make(x)) {
            proxy_forward_start(x, x->snapshot->authenticate.cluster);
        }
        return;
    }
    if (!settle_upgrade(x)) {
        return;
    }
    switch (c->action) {
    case CONFIG_ACTION_UPSTREAM:
        if (c->kind == CONFIG_ROUTE_TCP || proxy_outgoing_make(x)) {
            proxy_forward_start(x, x->route->cluster);
        }
        break;
    case CONFIG_ACTION_REDIRECT:
        proxy_own_redirect(x);
        break;
    case CONFIG_ACTION_RESPONSE:
        proxy_reply(x, &(struct proxy_reply){ .status = c->response_status,
                                              .type = SV("text/plain; charset=utf-8"),
                                              .body = c->response_body });
        break;
    case CONFIG_ACTION_NONE:
        proxy_reply_fault(x, 503, "route-without-action");
        break;
    }
}

static void note_answer(struct proxy_exchange *x, const struct proxy_answer *answer)
{
    x->verdict = answer->verdict;
    x->wants_fresh = false;
    for (size_t i = 0; i < answer->n_reasons; i++) {
        x->wants_fresh |= answer->verdict == PROXY_VERDICT_LOGIN &&
                          (POLICY_REASON_BIT(answer->reasons[i]) & POLICY_REASONS_FRESH) != 0;
    }
    x->n_reasons = MIN(answer->n_reasons, (size_t)PROXY_REASONS_MAX);
    if (x->n_reasons != 0) {
        memcpy(x->reasons, answer->reasons, x->n_reasons * sizeof(*x->reasons));
    }
    if (answer->user.n != 0) { /* who it was stays known when the session is gone */
        x->user = arena_sv(&x->arena, answer->user);
        x->email = arena_sv(&x->arena, answer->email);
    } else if (answer->identity != NULL) { /* which x holds to its end */
        x->user = answer->identity->user;
        x->email = answer->identity->email;
    }
}

static void set_end(struct proxy_exchange *x, int64_t valid_until_s)
{
    int64_t left_ms = valid_until_s * 1000 - clock_wall_ms();

    x->recheck_at_ms = valid_until_s == 0 ? INT64_MAX : clock_mono_ms() + MAX(left_ms, 0);
}

static void refuse(struct proxy_exchange *x, const struct proxy_answer *answer)
{
    bool for_verdict = x->service == PROXY_FOR_VERDICT;
    unsigned denied = answer->status == 0 ? 403 : answer->status;

    /* Crawlers read a login page or a refusal here as "no rules, come in". */
    if (!for_verdict &&
        (answer->verdict == PROXY_VERDICT_LOGIN || answer->verdict == PROXY_VERDICT_DENY) &&
        proxy_own_robots(x)) {
        return;
    }
    switch (answer->verdict) {
    case PROXY_VERDICT_LOGIN:
        if (for_verdict) {
            proxy_forward_auth_login(x);
        } else {
            proxy_login_needed(x);
        }
        break;
    case PROXY_VERDICT_DENY:
        proxy_reply_denied(x, for_verdict ? proxy_forward_auth_denied(x, denied) : denied);
        break;
    case PROXY_VERDICT_UNAVAILABLE:
        proxy_reply_denied(x, answer->status == 0 ? 503 : answer->status);
        break;
    case PROXY_VERDICT_ALLOW: /* is not refused */
    case PROXY_VERDICT_NONE:
        proxy_reply_fault(x, 503, "authorize-timeout");
        break;
    }
}

static void on_answer(void *arg, const struct proxy_answer *answer)
{
    struct proxy_exchange *x = arg;

    x->check = 0;
    note_answer(x, answer);
    if (answer->verdict != PROXY_VERDICT_ALLOW) {
        refuse(x, answer);
        return;
    }
    x->identity = answer->identity;
    set_end(x, answer->valid_until_s);
    act(x);
    if (x->again && (x->phase == PROXY_CONNECT || x->phase == PROXY_FORWARD)) {
        proxy_request_recheck(x);
    }
}

static int64_t undecided_until_ms(const struct proxy_exchange *x)
{
    return x->undecided_since_ms + x->snapshot->config->databroker_max_staleness_ms;
}

static bool stays_undecided(struct proxy_exchange *x)
{
    int64_t now = clock_mono_ms();

    if (x->undecided_since_ms == 0) {
        x->undecided_since_ms = now;
    }
    x->recheck_at_ms = now + RECHECK_RETRY_MS;
    return now < undecided_until_ms(x);
}

/* No verdict is no reason to cut what was allowed, for as long as a replica may be stale. Where
 * authorize says that its replica is, that time is over. */
static bool stays_for_now(struct proxy_exchange *x, const struct proxy_answer *answer)
{
    if (answer->verdict != PROXY_VERDICT_UNAVAILABLE && answer->verdict != PROXY_VERDICT_NONE) {
        return false;
    }
    for (size_t i = 0; i < answer->n_reasons; i++) {
        if (answer->reasons[i] == POLICY_REASON_STORE_UNAVAILABLE) {
            return false;
        }
    }
    return stays_undecided(x);
}

/* An open exchange was looked at again. */
static void on_recheck(void *arg, const struct proxy_answer *answer)
{
    struct proxy_exchange *x = arg;
    struct proxy_identity *identity = answer->identity;

    proxy_identity_unref(&identity);
    x->recheck = 0;
    if (x->again) {
        proxy_request_recheck(x);
        return;
    }
    if (answer->verdict == PROXY_VERDICT_ALLOW) {
        x->undecided_since_ms = 0;
        set_end(x, answer->valid_until_s);
        return;
    }
    if (stays_for_now(x, answer)) {
        return;
    }
    note_answer(x, answer);
    if (proxy_forward_stop(x)) {
        refuse(x, answer); /* nothing was answered yet: it is as if it came now */
        return;
    }
    x->fault = "no-longer-allowed";
    proxy_exchange_abort(x);
}

void proxy_request_recheck(struct proxy_exchange *x)
{
    if (x->service == PROXY_FOR_AUTHENTICATE) {
        return;
    }
    if (x->recheck != 0 || x->phase == PROXY_CHECK) {
        x->again = true; /* the one under way may have been judged before the change */
        return;
    }
    x->again = false;
    x->recheck = send_check(x, true, on_recheck);
    if (x->recheck == 0 && !stays_undecided(x)) { /* too many are asked about at once */
        x->fault = "no-longer-allowed";
        proxy_exchange_abort(x);
    }
}

void proxy_request_unvouched(struct proxy_exchange *x, int64_t since_ms)
{
    if (x->service == PROXY_FOR_AUTHENTICATE || x->phase == PROXY_CHECK) {
        return;
    }
    if (x->undecided_since_ms == 0) {
        x->undecided_since_ms = since_ms;
    }
    x->recheck_at_ms = MIN(x->recheck_at_ms, undecided_until_ms(x));
}

/* ---- the way in ------------------------------------------------------------------------------ */

/* x and those before it that are not over began within a moment: streams that only stay open, and
 * waits for slow upstreams, are no crowd. */
static bool is_in_crowd(const struct proxy_exchange *x)
{
    enum { CROWD = 4, MOMENT_US = 5000 };
    struct list *it = x->in_worker.prev;
    size_t i = 0;

    for (i = 2; i < CROWD && it != &x->worker->exchanges; i++) {
        it = it->prev;
    }
    return it != &x->worker->exchanges &&
           x->began_us - LIST_ENTRY(it, struct proxy_exchange, in_worker)->began_us < MOMENT_US;
}

void proxy_request_identified(struct proxy_exchange *x)
{
    x->phase = PROXY_CHECK;
    x->deadline_ms = INT64_MAX; /* the check has its own */
    x->check = send_check(x, false, on_answer);
    if (proxy_worker_is_alone(x->worker)) {
        loop_hurry(x->worker->loop);
    }
    if (x->check == 0) {
        proxy_reply_fault(x, 503, "too-many-checks");
    }
}

static void begin_check(struct proxy_exchange *x)
{
    proxy_worker_pace(x->worker, is_in_crowd(x), x->conn->io.fd);
    if (proxy_bearer_identify(x)) {
        proxy_request_identified(x);
    }
}

static void refuse_fault(struct proxy_exchange *x, enum http_fault fault)
{
    x->close_after = true;
    proxy_reply_fault(x, http_fault_status(fault), http_fault_name(fault));
}

/* What could not be decided before the route was known; NULL: none of the configuration's. False: the
 * request was refused. */
static bool settle(struct proxy_exchange *x, const struct proxy_route *route)
{
    const struct proxy_snapshot *s = x->snapshot;
    enum http_fault fault = route_settle_names(
        &x->head, route == NULL ? s->config->headers_with_underscores_action
                                : route->config->headers_with_underscores_action);

    if (fault == HTTP_FAULT_NONE && route_settle_needed(&x->req)) {
        struct sv path = x->req.path;

        fault = route_settle_path(s->table, route == NULL ? NULL : route->config, &s->canon,
                                  &x->arena, &x->req);
        if (x->service == PROXY_FOR_VERDICT && !sv_eq(path, x->req.path)) {
            fault = HTTP_FAULT_PATH_SLASH; /* who asks forwards the other reading */
        }
    }
    if (fault != HTTP_FAULT_NONE) {
        refuse_fault(x, fault);
        return false;
    }
    return true;
}

/* What the route answers before anybody is asked who is there. True: it did. */
static bool answer_at_once(struct proxy_exchange *x)
{
    const struct config_cors *cors = &x->route->config->cors;

    if (x->req.redirect) {
        proxy_reply_canonical(x);
        return true;
    }
    if (cors->on && cors->answer_preflight && proxy_request_is_preflight(x)) {
        proxy_own_preflight(x);
        return true;
    }
    return false;
}

static void dispatch_route(struct proxy_exchange *x);

static void dispatch(struct proxy_exchange *x)
{
    struct proxy_snapshot *s = x->snapshot;

    if (x->service == PROXY_FOR_VERDICT) {
        if (proxy_forward_auth_take(x)) {
            dispatch_route(x);
        }
        return;
    }
    if (s->authenticate.cluster != NULL && sv_eq(x->req.host, sv_from(s->authenticate_host))) {
        x->service = PROXY_FOR_AUTHENTICATE;
        x->recheck_at_ms = INT64_MAX;
        if (settle(x, NULL) && proxy_outgoing_make(x)) {
            proxy_forward_start(x, s->authenticate.cluster);
        }
        return;
    }
    if (route_own_path(x->req.decoded) && route_table_has_host(s->table, x->req.host)) {
        if (settle(x, NULL) && !proxy_own_serve(x)) {
            x->service = PROXY_FOR_PAGES;
            begin_check(x);
        }
        return;
    }
    dispatch_route(x);
}

static void dispatch_route(struct proxy_exchange *x)
{
    bool unclear = false;

    x->route =
        proxy_snapshot_route(x->snapshot, route_table_find(x->snapshot->table, x->req.host,
                                                           x->req.port, x->req.decoded, &unclear));
    if (unclear) {
        x->close_after = true;
        proxy_reply_fault(x, 400, "path-parameter");
        return;
    }
    if (x->route == NULL) {
        proxy_reply_fault(x, 404, "route-not-found");
        return;
    }
    if (settle(x, x->route) && (x->service == PROXY_FOR_VERDICT || !answer_at_once(x))) {
        begin_check(x);
    }
}

static void begin_body(struct proxy_exchange *x)
{
    if (x->stream == NULL) {
        proxy_body_init(&x->body, &x->head, x->snapshot->ours, &x->arena);
        return;
    }
    proxy_body_init_frames(&x->body, &x->stream->trailer);
    x->body.ended = x->stream->in_ended;
    x->body.done = x->head.framing == HTTP_BODY_NONE;
}

/* False: answered with 421, so that the client opens another connection. */
static bool belongs_here(struct proxy_exchange *x, struct sv host)
{
    const SSL *ssl = x->conn->io.ssl;
    bool stale = ssl != NULL && proxy_tls_is_stale(x->snapshot, ssl);

    if (ssl == NULL || (!stale && proxy_tls_serves(x->snapshot, ssl, host))) {
        return true;
    }
    x->close_after = x->close_after || stale;
    proxy_reply_fault(x, 421, "misdirected-request");
    return false;
}

static void refuse_unclear(struct proxy_exchange *x)
{
    static _Thread_local struct log_limit limit;

    if (log_limit_pass(&limit, 1)) {
        log_warn("client-address.unclear", KV_STR("peer", x->conn->peer.text),
                 KV_SV("no-address", x->visitor.unclear));
    }
    proxy_reply_fault(x, 400, "client-address-unclear");
}

/* A tunnel of the configuration, or nothing: whatever else CONNECT names is not ours to open. */
static void dispatch_connect(struct proxy_exchange *x)
{
    if (x->req.port == 0) { /* RFC 9110 §7.1: CONNECT names a port */
        refuse_fault(x, HTTP_FAULT_TARGET_FORM);
        return;
    }
    x->route = proxy_snapshot_route(
        x->snapshot, route_table_tunnel(x->snapshot->table, x->req.host, x->req.port));
    if (x->route == NULL) {
        proxy_reply_fault(x, 404, "route-not-found");
        return;
    }
    if (x->stream == NULL) {
        proxy_io_expect_end(&x->conn->io); /* nothing else tells whether all the bytes came */
    }
    if (belongs_here(x, x->route->config->host) && settle(x, x->route)) {
        begin_check(x);
    }
}

void proxy_request_start(struct proxy_exchange *x)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    rand_uuid(x->request_id);
    /* From the first word on: also what is refused before the path is understood must be no 2xx. */
    x->service = proxy_forward_auth_path(x->head.target) ? PROXY_FOR_VERDICT : PROXY_FOR_ROUTE;
    x->req = (struct http_request){ .method = x->head.method };
    /* What stands behind the head of a CONNECT is no request, whatever becomes of it. */
    x->close_after = x->close_after || !x->head.keep_alive || x->head.method == HTTP_CONNECT;
    begin_body(x);
    if (!proxy_peer_visitor(&x->conn->peer, x->snapshot->config, &x->head, x->conn->io.ssl != NULL,
                            &x->arena, &x->visitor)) {
        refuse_unclear(x);
        return;
    }
    fault = http_canon_request(&x->head, &x->snapshot->canon, &x->arena, &x->req);
    if (fault != HTTP_FAULT_NONE) {
        refuse_fault(x, fault);
        return;
    }
    if (x->conn->io.ssl == NULL && proxy_own_challenge(x)) {
        return;
    }
    if (x->conn->to_https) {
        proxy_own_to_https(x);
        return;
    }
    if (x->head.method == HTTP_CONNECT) {
        dispatch_connect(x);
        return;
    }
    if (!belongs_here(x, x->req.host)) {
        return;
    }
    if (x->req.redirect) {
        proxy_reply_canonical(x);
        return;
    }
    dispatch(x);
}
