/* From a complete head to a decision: canonical form, route, identity, check, verdict. */
#include <string.h>

#include "common/clock.h"
#include "common/http/accept.h"
#include "common/mem.h"
#include "proxy/conn.h"
#include "proxy/forward.h"
#include "proxy/login.h"
#include "proxy/own.h"
#include "proxy/reply.h"

enum { RECHECK_RETRY_MS = 1000 };

static void on_answer(void *arg, const struct proxy_answer *answer);

static bool is_cors_preflight(const struct proxy_conn *conn)
{
    return conn->head.method == HTTP_OPTIONS &&
           http_head_value(&conn->head, HTTP_H_ORIGIN).n != 0 &&
           http_head_value(&conn->head, HTTP_H_ACCESS_CONTROL_REQUEST_METHOD).n != 0;
}

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

static uint64_t send_check(struct proxy_conn *conn, bool recheck, proxy_answer_fn fn)
{
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;

    check.route = conn->route != NULL && conn->route->config != NULL ? conn->route->config->id : 0;
    check.request_id = bytes_of(sv_from(conn->request_id));
    if (conn->handle_valid) {
        check.session = conn->handle.session;
        check.record_version = conn->handle.record_version;
        check.idp_id = conn->handle.idp_id;
    }
    check.method = bytes_of(conn->req.method_text);
    check.host = bytes_of(conn->req.host);
    check.path = bytes_of(conn->req.decoded);
    check.query = bytes_of(conn->req.query);
    check.client_ip = bytes_of(sv_of(conn->peer_address, conn->peer_address_n));
    check.cors_preflight = is_cors_preflight(conn);
    check.recheck = recheck;
    check.internal = conn->service == PROXY_FOR_PAGES;
    return proxy_authz_check(conn->worker->authz, &check, fn, conn);
}

/* ---- what the route says about upgrades ------------------------------------------------------- */

/* False: the request was refused. */
static bool settle_upgrade(struct proxy_conn *conn)
{
    struct sv token = http_head_value(&conn->head, HTTP_H_UPGRADE);
    const struct config_route *c = conn->route == NULL ? NULL : conn->route->config;
    size_t i = 0;

    conn->upgrade = false;
    if (!conn->head.upgrade || sv_ieq(token, SV("h2c"))) {
        return true; /* an offer that nobody has to take */
    }
    if (c != NULL) {
        conn->upgrade = (c->allow_websockets && conn->head.websocket) ||
                        (c->allow_spdy && sv_ieq(token, SV("spdy/3.1")));
        for (i = 0; i < c->allow_upgrades.n && !conn->upgrade; i++) {
            conn->upgrade = sv_ieq(token, c->allow_upgrades.v[i]);
        }
    }
    if (!conn->upgrade) {
        proxy_reply_fault(conn, 403, "upgrade-not-allowed");
    }
    return conn->upgrade;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void act(struct proxy_conn *conn)
{
    const struct config_route *c = conn->route == NULL ? NULL : conn->route->config;

    if (c == NULL) { /* a page of ours */
        proxy_forward_start(conn, conn->snapshot->authenticate.targets);
        return;
    }
    if (!settle_upgrade(conn)) {
        return;
    }
    switch (c->action) {
    case CONFIG_ACTION_UPSTREAM:
        proxy_forward_start(conn, proxy_route_target(conn->route));
        break;
    case CONFIG_ACTION_REDIRECT:
        proxy_own_redirect(conn);
        break;
    case CONFIG_ACTION_RESPONSE:
        proxy_reply(conn, &(struct proxy_reply){ .status = c->response_status,
                                                 .type = SV("text/plain; charset=utf-8"),
                                                 .body = c->response_body });
        break;
    case CONFIG_ACTION_NONE:
        proxy_reply_fault(conn, 503, "route-without-action");
        break;
    }
}

static void note_answer(struct proxy_conn *conn, const struct proxy_answer *answer)
{
    conn->verdict = answer->verdict;
    conn->n_reasons = MIN(answer->n_reasons, (size_t)PROXY_REASONS_MAX);
    if (conn->n_reasons != 0) {
        memcpy(conn->reasons, answer->reasons, conn->n_reasons * sizeof(*conn->reasons));
    }
    conn->user = arena_sv(&conn->arena, answer->user);
    conn->email = arena_sv(&conn->arena, answer->email);
}

static void set_end(struct proxy_conn *conn, int64_t valid_until_s)
{
    int64_t left_ms = valid_until_s * 1000 - clock_wall_ms();

    conn->recheck_at_ms = valid_until_s == 0 ? INT64_MAX : clock_mono_ms() + MAX(left_ms, 0);
}

static void on_answer(void *arg, const struct proxy_answer *answer)
{
    struct proxy_conn *conn = arg;

    conn->check = 0;
    note_answer(conn, answer);
    switch (answer->verdict) {
    case PROXY_VERDICT_ALLOW:
        conn->identity = answer->identity;
        set_end(conn, answer->valid_until_s);
        act(conn);
        if (conn->again && (conn->phase == PROXY_CONNECT || conn->phase == PROXY_FORWARD)) {
            proxy_request_recheck(conn);
        }
        break;
    case PROXY_VERDICT_LOGIN:
        proxy_login_needed(conn);
        break;
    case PROXY_VERDICT_DENY:
        proxy_reply_denied(conn, answer->status == 0 ? 403 : answer->status);
        break;
    case PROXY_VERDICT_UNAVAILABLE:
        proxy_reply_denied(conn, answer->status == 0 ? 503 : answer->status);
        break;
    case PROXY_VERDICT_NONE:
        proxy_reply_fault(conn, 503, "authorize-timeout");
        break;
    }
}

/* No verdict is no reason to cut what was allowed, for as long as a replica may be stale. */
static bool stays_for_now(struct proxy_conn *conn, enum proxy_verdict verdict)
{
    int64_t now = clock_mono_ms();

    if (verdict != PROXY_VERDICT_UNAVAILABLE && verdict != PROXY_VERDICT_NONE) {
        return false;
    }
    if (conn->undecided_since_ms == 0) {
        conn->undecided_since_ms = now;
    }
    conn->recheck_at_ms = now + RECHECK_RETRY_MS;
    return now - conn->undecided_since_ms < conn->snapshot->config->databroker_max_staleness_ms;
}

/* An open exchange was looked at again. */
static void on_recheck(void *arg, const struct proxy_answer *answer)
{
    struct proxy_conn *conn = arg;
    struct proxy_identity *identity = answer->identity;

    proxy_identity_unref(&identity);
    conn->recheck = 0;
    if (conn->again) {
        proxy_request_recheck(conn);
        return;
    }
    if (answer->verdict == PROXY_VERDICT_ALLOW) {
        conn->undecided_since_ms = 0;
        set_end(conn, answer->valid_until_s);
        return;
    }
    if (stays_for_now(conn, answer->verdict)) {
        return;
    }
    note_answer(conn, answer);
    conn->fault = "no-longer-allowed";
    proxy_conn_close(conn);
}

void proxy_request_recheck(struct proxy_conn *conn)
{
    if (conn->service == PROXY_FOR_AUTHENTICATE) {
        return;
    }
    if (conn->recheck != 0 || conn->phase == PROXY_CHECK) {
        conn->again = true; /* the one under way may have been judged before the change */
        return;
    }
    conn->again = false;
    conn->recheck = send_check(conn, true, on_recheck);
    if (conn->recheck == 0) {
        proxy_conn_close(conn); /* it cannot be asked: it cannot stay */
    }
}

/* ---- the way in ------------------------------------------------------------------------------ */

static void begin_check(struct proxy_conn *conn)
{
    proxy_login_identify(conn);
    conn->phase = PROXY_CHECK;
    conn->deadline_ms = INT64_MAX; /* the check has its own */
    conn->check = send_check(conn, false, on_answer);
    if (conn->check == 0) {
        proxy_reply_fault(conn, 503, "too-many-checks");
    }
}

static bool is_our_path(struct sv path)
{
    return sv_eq(path, SV("/ping")) || sv_eq(path, SV("/healthz")) ||
           sv_eq(path, SV("/.pomerium")) || sv_starts(path, SV("/.pomerium/")) ||
           sv_eq(path, SV("/.well-known/pomerium")) ||
           sv_starts(path, SV("/.well-known/pomerium/"));
}

static void dispatch(struct proxy_conn *conn)
{
    struct proxy_snapshot *s = conn->snapshot;
    bool unclear = false;

    if (s->authenticate.n_targets != 0 && sv_eq(conn->req.host, sv_from(s->authenticate_host))) {
        conn->service = PROXY_FOR_AUTHENTICATE;
        conn->recheck_at_ms = INT64_MAX;
        proxy_forward_start(conn, s->authenticate.targets);
        return;
    }
    if (is_our_path(conn->req.decoded) && proxy_snapshot_has_host(s, conn->req.host)) {
        if (!proxy_own_serve(conn)) {
            conn->service = PROXY_FOR_PAGES;
            begin_check(conn);
        }
        return;
    }
    conn->route =
        proxy_snapshot_route(s, conn->req.host, conn->req.port, conn->req.decoded, &unclear);
    if (unclear) {
        conn->close_after = true;
        proxy_reply_fault(conn, 400, "path-parameter");
        return;
    }
    if (conn->route == NULL) {
        proxy_reply_fault(conn, 404, "route-not-found");
        return;
    }
    begin_check(conn);
}

void proxy_request_start(struct proxy_conn *conn)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    rand_uuid(conn->request_id);
    conn->service = PROXY_FOR_ROUTE;
    conn->req = (struct http_request){ .method = conn->head.method };
    conn->close_after = conn->close_after || !conn->head.keep_alive;
    proxy_body_init(&conn->body, &conn->head, conn->snapshot->ours);
    fault = http_canon_request(&conn->head, &conn->snapshot->canon, &conn->arena, &conn->req);
    if (fault != HTTP_FAULT_NONE) {
        conn->close_after = true;
        proxy_reply_fault(conn, http_fault_status(fault), http_fault_name(fault));
        return;
    }
    if (conn->head.method == HTTP_CONNECT) {
        conn->close_after = true;
        proxy_reply_fault(conn, 501, "connect-not-supported");
        return;
    }
    if (conn->io.ssl != NULL && !proxy_own_covers(conn)) {
        proxy_reply_fault(conn, 421, "misdirected-request");
        return;
    }
    if (conn->req.redirect) {
        proxy_reply_redirect(conn, 308, conn->req.forward, (struct sv){ 0 });
        return;
    }
    dispatch(conn);
}
