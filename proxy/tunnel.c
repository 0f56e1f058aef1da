#include "proxy/tunnel.h"

#include "common/clock.h"
#include "proxy/client.h"

bool proxy_tunnel_is_clear(const struct proxy_exchange *x)
{
    const struct http_head *answer = &x->answer;
    struct sv asked =
        x->stream != NULL ? SV("websocket") : http_head_value(&x->head, HTTP_H_UPGRADE);

    if (answer->status != 101) {
        return !x->upgrade || x->stream == NULL || answer->status >= 300;
    }
    return x->upgrade && x->request_done && answer->upgrade &&
           sv_ieq(http_head_value(answer, HTTP_H_UPGRADE), asked);
}

void proxy_tunnel_enter(struct proxy_exchange *x)
{
    const struct config_route *c = x->route->config;
    int64_t life_ms = c->kind == CONFIG_ROUTE_TCP ? c->timeout_ms : 0;

    x->phase = PROXY_TUNNEL;
    x->total_ms = life_ms == 0 ? INT64_MAX : clock_mono_ms() + life_ms;
    x->idle_ms = c->tunnel_idle_ms;
    proxy_exchange_progress(x);
    x->close_after = true;
    x->request_done = false;
    proxy_body_init_raw(&x->body);
    x->body.ended = x->stream != NULL && x->stream->in_ended;
    proxy_body_init_raw(&x->answer_body);
    x->up_pipe.chunk = false;
    x->up_pipe.ended = false;
    /* Where nothing else ends it, a machine that was switched off must. */
    proxy_io_keep_alive(&x->conn->io);
    if (x->up != NULL) {
        proxy_io_keep_alive(&x->up->io);
    }
    proxy_client_read(x, true);
}

/* There is a connection, and nothing else to say (RFC 9110 §9.3.6, RFC 9113 §8.5). Bytes that came
 * behind the head wait in the window and are the first to pass. */
bool proxy_tunnel_open(struct proxy_exchange *x)
{
    struct proxy_emit e;

    x->up_pipe.to = &x->up->out;
    x->up_pipe.io = &x->up->io;
    x->status = 200;
    proxy_claim_note(&x->claim, x->status);
    x->upstream_us = clock_mono_us() - x->began_us;
    proxy_client_emit(x, &e);
    proxy_emit_status(&e, x->status, SV("Connection Established"));
    proxy_emit_unique(&e, SV("x-request-id"), sv_from(x->request_id));
    x->answer_begun = true;
    x->down_pipe = (struct proxy_pipe){ .from = &x->up->in, .body = &x->answer_body };
    proxy_client_sink(x, &x->down_pipe);
    if (!proxy_client_head(x, &e, true)) {
        return false;
    }
    proxy_tunnel_enter(x);
    return true;
}
