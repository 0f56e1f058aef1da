#include "proxy/access.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/policy/reason.h"

enum { LINES_MAX = 1 << 20, LINES_SOON = 1 << 16 };

static const char *verdict_name(enum proxy_verdict verdict)
{
    switch (verdict) {
    case PROXY_VERDICT_ALLOW:
        return "allow";
    case PROXY_VERDICT_DENY:
        return "deny";
    case PROXY_VERDICT_LOGIN:
        return "login";
    case PROXY_VERDICT_UNAVAILABLE:
        return "unavailable";
    case PROXY_VERDICT_NONE:
        break;
    }
    return "none";
}

static void add_reasons(struct buf *line, const struct proxy_conn *conn)
{
    size_t i = 0;

    buf_add_str(line, ",\"reasons\":[");
    for (i = 0; i < conn->n_reasons; i++) {
        if (i != 0) {
            buf_add_char(line, ',');
        }
        buf_add_json(line, sv_from(policy_reason_name((enum policy_reason)conn->reasons[i])));
    }
    buf_add_char(line, ']');
}

void proxy_access_line(struct proxy_conn *conn)
{
    struct buf *line = &conn->worker->access;
    int64_t now = clock_mono_us();

    if (line->n > LINES_SOON) {
        proxy_access_flush(conn->worker);
    }
    log_open(line, clock_wall_ms(), "http-request");
    log_add_str(line, "request-id", conn->request_id);
    log_add_u64(line, "response-code", conn->status);
    if (conn->service != PROXY_FOR_NONE) {
        log_add_sv(line, "method", conn->req.method_text);
        log_add_sv(line, "authority", conn->req.authority);
        log_add_sv(line, "path", conn->req.path);
        log_add_sv(line, "user-agent", http_head_value(&conn->head, HTTP_H_USER_AGENT));
        log_add_str(line, "decision", verdict_name(conn->verdict));
        add_reasons(line, conn);
    }
    if (conn->route != NULL && conn->route->config != NULL) {
        log_add_sv(line, "route-id", conn->route->config->id_text);
    }
    if (conn->user.n != 0) {
        log_add_sv(line, "user", conn->user);
        log_add_sv(line, "email", conn->email);
    }
    if (conn->fault != NULL) {
        log_add_str(line, "response-code-details", conn->fault);
    }
    log_add_str(line, "ip", conn->peer);
    log_add_u64(line, "size", conn->down_pipe.bytes);
    log_add_u64(line, "received", conn->up_pipe.bytes);
    log_add_i64(line, "duration-us", now - conn->began_us);
    if (conn->upstream_us != 0) {
        log_add_i64(line, "upstream-us", conn->upstream_us);
    }
    log_close(line);
}

void proxy_access_flush(struct proxy_worker *worker)
{
    static _Thread_local struct log_limit limit;

    if (worker->access.n == 0) {
        return;
    }
    if ((worker->access.err != ERR_OK || log_write_lines(buf_sv(&worker->access)) != ERR_OK) &&
        log_limit_pass(&limit, 1)) {
        log_error("access-log.lost", KV_U64("bytes", worker->access.n));
    }
    buf_reset(&worker->access);
}
