/* What comes in on a connection of HTTP/2: heads into the owners' heads, bodies into the windows. The
 * callbacks only take notes. */
#include <string.h>

#include "common/clock.h"
#include "proxy/conn.h"
#include "proxy/h2_session.h"

enum { HEAD_BOMB = 8 /* a head that many times over its limit ends the connection */ };

/* ---- heads ----------------------------------------------------------------------------------- */

/* A stream below the newest that was never opened is closed for good (RFC 9113 §5.1.1). nghttp2 would
 * pass over such a head, as it may be the trailer of a stream that we reset; those it remembers. */
static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct proxy_h2 *h2 = arg;

    proxy_ration_spend(&h2->ration, PROXY_COST_FRAME + hd->length / (hd->type == NGHTTP2_DATA
                                                                         ? PROXY_BODY_BYTES
                                                                         : PROXY_HEAD_BYTES));
    if (h2->server && hd->type == NGHTTP2_HEADERS && hd->stream_id < h2->newest &&
        nghttp2_session_find_stream(ng, hd->stream_id) == NULL) {
        (void)nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2 *h2 = arg;
    struct proxy_h2_stream *s = NULL;

    if (!h2->server || frame->hd.type != NGHTTP2_HEADERS ||
        frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    proxy_ration_spend(&h2->ration, PROXY_COST_REQUEST);
    s = proxy_h2_stream_new(h2, frame->hd.stream_id);
    h2->newest = s->id;
    h2->hooks->open(h2->owner, s);
    (void)nghttp2_session_set_stream_user_data(ng, s->id, s);
    return 0;
}

static struct sv keep(struct proxy_h2_stream *s, nghttp2_rcbuf *text)
{
    nghttp2_vec v = nghttp2_rcbuf_get_buf(text);

    return arena_sv(s->arena, sv_of(v.base, v.len));
}

/* nghttp2 has checked that they stand first, once each, and that the needed ones are there. */
static void take_pseudo(struct proxy_h2_stream *s, struct sv name, struct sv value)
{
    struct http_head *head = s->head;

    if (sv_eq(name, SV(":method"))) {
        head->method_text = value;
        head->method = http_method_id(value);
    } else if (sv_eq(name, SV(":path"))) {
        head->target = value;
    } else if (sv_eq(name, SV(":authority"))) {
        head->host = value;
    } else if (sv_eq(name, SV(":protocol"))) {
        s->protocol = value;
    } else if (sv_eq(name, SV(":status"))) {
        uint64_t status = 0;

        if (value.n != 3 || sv_u64(value, 599, &status) != ERR_OK || status < 100) {
            s->fault = HTTP_FAULT_STATUS;
        }
        head->status = (unsigned)status;
    }
}

static void take_trailer(struct proxy_h2_stream *s, struct sv name, struct sv value)
{
    if (s->fault == HTTP_FAULT_NONE && http_name_set_has(s->refuse, name)) {
        s->fault = HTTP_FAULT_TRAILER;
    }
    if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_add(&s->trailer, name, value);
    }
}

/* A head is a dozen fields of one stream. */
static struct proxy_h2_stream *stream_of_head(struct proxy_h2 *h2, int32_t id)
{
    if (h2->reading == NULL || h2->reading->id != id) {
        h2->reading = nghttp2_session_get_stream_user_data(h2->ng, id);
    }
    return h2->reading;
}

/* The type is nghttp2's. NOLINTNEXTLINE(readability-function-size) */
static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, nghttp2_rcbuf *name_buf,
                     nghttp2_rcbuf *value_buf, uint8_t flags, void *arg)
{
    struct proxy_h2 *h2 = arg;
    struct proxy_h2_stream *s = stream_of_head(h2, frame->hd.stream_id);
    nghttp2_vec n = nghttp2_rcbuf_get_buf(name_buf);
    nghttp2_vec v = nghttp2_rcbuf_get_buf(value_buf);

    (void)ng;
    (void)flags;
    proxy_ration_spend(&h2->ration, PROXY_COST_FIELD);
    if (s == NULL || s->owner == NULL) {
        return 0;
    }
    s->head_bytes += n.len + v.len + 32; /* RFC 9113 §6.5.2 */
    if (s->head_bytes > PROXY_REQUEST_HEAD_MAX) {
        s->fault = HTTP_FAULT_HEAD_LARGE;
        /* It must be decoded whole, or the connection is lost: but not without end. */
        return s->head_bytes > (size_t)PROXY_REQUEST_HEAD_MAX * HEAD_BOMB
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    }
    if (s->head_done) {
        take_trailer(s, keep(s, name_buf), keep(s, value_buf));
    } else if (n.len != 0 && n.base[0] == ':') {
        take_pseudo(s, sv_of(n.base, n.len), keep(s, value_buf));
    } else if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_add(s->head, keep(s, name_buf), keep(s, value_buf));
    }
    return 0;
}

/* A WebSocket by extended CONNECT (RFC 8441) is the request that HTTP/1 would make of it. */
static void take_protocol(struct proxy_h2_stream *s)
{
    struct http_head *head = s->head;

    if (s->protocol.p == NULL) {
        return;
    }
    if (!sv_eq(s->protocol, SV("websocket")) || head->method != HTTP_CONNECT) {
        s->fault = HTTP_FAULT_METHOD_REFUSED;
        return;
    }
    head->method = HTTP_GET;
    head->method_text = SV("GET");
}

static void join_cookies(struct proxy_h2_stream *s);

static void seal(struct proxy_h2_stream *s, bool ended)
{
    struct http_head *head = s->head;

    head->http2 = true;
    head->minor = 1;
    if (head->kind == HTTP_REQUEST) {
        take_protocol(s);
        head->upgrade = s->protocol.p != NULL;
        head->websocket = head->upgrade;
        join_cookies(s);
        if (head->method == HTTP_CONNECT) {
            head->target = head->host;
        }
    }
    if (s->fault == HTTP_FAULT_NONE) {
        s->fault = http_head_seal(head);
    }
    /* What follows the head of a WebSocket is for the tunnel, and nothing is before that is open. */
    if (ended || head->websocket) {
        head->framing = HTTP_BODY_NONE;
    } else if (head->kind == HTTP_REQUEST && head->framing == HTTP_BODY_NONE) {
        head->framing = HTTP_BODY_CHUNKED; /* of unknown length; frames tell its end */
    }
}

/* RFC 9113 §8.2.3: crumbs become one field again before anything else reads them. */
static void join_cookies(struct proxy_h2_stream *s)
{
    struct http_head *head = s->head;
    size_t n = 0;
    char *at = NULL;
    char *text = NULL;
    struct http_field *first = NULL;
    uint32_t i = 0;
    uint32_t kept = 0;

    if (http_head_count(head, HTTP_H_COOKIE) < 2) {
        return;
    }
    for (i = 0; i < head->n; i++) {
        n += head->fields[i].id == HTTP_H_COOKIE ? head->fields[i].value.n + 2 : 0;
    }
    text = arena_alloc(s->arena, n);
    at = text;
    for (i = 0; i < head->n; i++) {
        struct http_field *f = &head->fields[i];

        if (f->id != HTTP_H_COOKIE) {
            head->fields[kept++] = *f;
            continue;
        }
        if (first != NULL) {
            *at++ = ';';
            *at++ = ' ';
        } else {
            first = &head->fields[kept++];
            *first = *f;
        }
        if (f->value.n != 0) {
            memcpy(at, f->value.p, f->value.n);
            at += f->value.n;
        }
    }
    CHECK(first != NULL); /* two were counted */
    first->value = sv_of(text, (size_t)(at - text));
    head->n = kept;
    memset(head->at, 0, sizeof(head->at));
    for (i = 0; i < head->n; i++) {
        if (head->at[head->fields[i].id] == 0) {
            head->at[head->fields[i].id] = (uint16_t)(i + 1);
        }
    }
}

static void end_of_head(struct proxy_h2 *h2, struct proxy_h2_stream *s, bool ended)
{
    if (s->head_done) { /* trailers */
        proxy_h2_note(s, PROXY_H2_READABLE);
        return;
    }
    if (s->head->kind == HTTP_RESPONSE && s->head->status < 200 && s->fault == HTTP_FAULT_NONE) {
        if (s->owner != NULL) {
            h2->hooks->interim(s->owner);
        }
        return;
    }
    s->head_done = true;
    seal(s, ended);
    proxy_h2_note(s, PROXY_H2_HEAD);
}

/* Frames for which nobody has an honest use by the thousand, but beside requests and answers. Resets
 * are counted by nghttp2; a window is opened as often as somebody reads. */
static bool is_chatter(const nghttp2_frame_hd *hd)
{
    switch (hd->type) {
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
        return (hd->flags & NGHTTP2_FLAG_ACK) == 0;
    case NGHTTP2_PRIORITY:
        return true;
    case NGHTTP2_DATA:
        return hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0;
    default:
        return false;
    }
}

static void weigh(struct proxy_h2 *h2, const nghttp2_frame_hd *hd)
{
    if (is_chatter(hd)) {
        if (!proxy_ration_chatter(&h2->ration, clock_coarse_ms()) && h2->server) {
            (void)nghttp2_session_terminate_session(h2->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        }
    } else if (hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_DATA) {
        proxy_ration_purpose(&h2->ration);
    }
}

static int on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct proxy_h2 *h2 = arg;
    bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    struct proxy_h2_stream *s = NULL;

    weigh(h2, &frame->hd);

    if (frame->hd.type == NGHTTP2_GOAWAY) {
        h2->shut = true;
        return 0;
    }
    if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        h2->settled = true;
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) {
        return 0;
    }
    s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (s == NULL || s->owner == NULL) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS) {
        end_of_head(h2, s, ended);
    }
    if (ended) {
        s->in_ended = true;
        proxy_h2_note(s, PROXY_H2_READABLE);
    }
    return 0;
}

/* ---- bodies -------------------------------------------------------------------------------------- */

/* The type is nghttp2's. NOLINTNEXTLINE(readability-function-size) */
static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *arg)
{
    struct proxy_h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);

    (void)flags;
    (void)arg;
    /* One slow stream must not stop the others: only its own window closes. */
    (void)nghttp2_session_consume_connection(ng, n);
    if (s == NULL || s->owner == NULL) {
        (void)nghttp2_session_consume_stream(ng, id, n);
        return 0;
    }
    if (!proxy_window_append(&s->in, sv_of(p, n), PROXY_H2_WINDOW)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE; /* nghttp2 keeps the peer to our window */
    }
    proxy_h2_note(s, PROXY_H2_READABLE);
    return 0;
}

void proxy_h2_receive_with(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
}
