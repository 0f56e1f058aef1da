#include "proxy/access.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/policy/reason.h"
#include "proxy/access_int.h"

/* One write a block of the file's cache: many small ones cost three times as much. */
enum { LINES_SOON = 1 << 16 };

static struct sv decision_field(enum proxy_verdict verdict)
{
    switch (verdict) {
    case PROXY_VERDICT_ALLOW:
        return SV(",\"decision\":\"allow\"");
    case PROXY_VERDICT_DENY:
        return SV(",\"decision\":\"deny\"");
    case PROXY_VERDICT_LOGIN:
        return SV(",\"decision\":\"login\"");
    case PROXY_VERDICT_UNAVAILABLE:
        return SV(",\"decision\":\"unavailable\"");
    case PROXY_VERDICT_NONE:
        break;
    }
    return SV(",\"decision\":\"none\"");
}

void proxy_access_add_decision(struct buf *line, const struct proxy_exchange *x)
{
    buf_add_sv(line, decision_field(x->verdict));
}

void proxy_access_add_reasons(struct buf *line, const struct proxy_exchange *x)
{
    size_t i = 0;

    buf_add_str(line, ",\"reasons\":[");
    for (i = 0; i < x->n_reasons; i++) {
        if (i != 0) {
            buf_add_char(line, ',');
        }
        buf_add_json(line, sv_from(policy_reason_name((enum policy_reason)x->reasons[i])));
    }
    buf_add_char(line, ']');
}

void proxy_access_add_ip(struct buf *line, const struct proxy_exchange *x)
{
    log_add_sv(line, LOG_KEY("ip"),
               x->visitor.text.n != 0 ? x->visitor.text : sv_from(x->conn->peer.text));
}

static void add_usual(struct buf *line, const struct proxy_exchange *x, int64_t now)
{
    log_add_str(line, LOG_KEY("request-id"), x->request_id);
    log_add_u64(line, LOG_KEY("response-code"), x->status);
    if (x->service != PROXY_FOR_NONE) {
        log_add_sv(line, LOG_KEY("method"), x->req.method_text);
        log_add_sv(line, LOG_KEY("authority"), x->req.authority);
        log_add_sv(line, LOG_KEY("path"), x->req.path);
        log_add_sv(line, LOG_KEY("user-agent"), http_head_value(&x->head, HTTP_H_USER_AGENT));
        proxy_access_add_decision(line, x);
        proxy_access_add_reasons(line, x);
    }
    if (x->route != NULL && x->route->config != NULL) {
        log_add_sv(line, LOG_KEY("route-id"), x->route->config->id_text);
    }
    if (x->user.n != 0) {
        log_add_sv(line, LOG_KEY("user"), x->user);
        log_add_sv(line, LOG_KEY("email"), x->email);
    }
    if (x->fault != NULL) {
        log_add_str(line, LOG_KEY("response-code-details"), x->fault);
    }
    proxy_access_add_ip(line, x);
    log_add_u64(line, LOG_KEY("size"), x->down_pipe.bytes);
    log_add_u64(line, LOG_KEY("received"), x->up_pipe.bytes);
    log_add_i64(line, LOG_KEY("duration-us"), now - x->began_us);
    if (x->upstream_us != 0) {
        log_add_i64(line, LOG_KEY("upstream-us"), x->upstream_us);
    }
}

void proxy_access_line(struct proxy_exchange *x)
{
    const struct config_log_fields *fields = &x->snapshot->config->access_log_fields;
    struct buf *line = &x->worker->access;
    int64_t now = clock_mono_us();

    if (line->n > LINES_SOON) {
        proxy_access_flush(x->worker);
    }
    log_open(line, clock_wall_ms(), SV("http-request"));
    if (fields->given) {
        proxy_access_add_fields(line, x, now, fields);
    } else {
        add_usual(line, x, now);
    }
    log_close(line);
    loop_gather(x->worker->loop);
    if (proxy_worker_is_alone(x->worker)) {
        loop_hurry(x->worker->loop);
    }
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
