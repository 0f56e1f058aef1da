/* The checks on a head as a whole: Host, framing, connection options (RFC 9112 §3.2, §6, §9). */
#include "common/http/chars.h"
#include "common/http/head.h"
#include "common/http/url.h"

enum { CONNECTION_OPTIONS_MAX = 32, LENGTH_DIGITS_MAX = 18, PORT_HTTP = 80, PORT_HTTPS = 443 };

/* ---- Host ------------------------------------------------------------------------------------- */

static bool same_host(struct sv a, struct sv b)
{
    char a_text[HTTP_HOST_MAX + 1];
    char b_text[HTTP_HOST_MAX + 1];
    struct sv a_host = { 0 };
    struct sv b_host = { 0 };

    return http_host_canonical(a, a_text, &a_host) == ERR_OK &&
           http_host_canonical(b, b_text, &b_host) == ERR_OK && sv_eq(a_host, b_host);
}

static uint16_t port_or(uint16_t port, uint16_t def)
{
    return port == 0 ? def : port;
}

/* The Host field must say what the target says (RFC 9112 §3.2.2 would let it be ignored; two
 * servers in a row then route by different names). */
static enum http_fault check_target_host(const struct http_head *head,
                                         const struct http_authority *host)
{
    bool tls = sv_istarts(head->target, SV("https"));
    uint16_t def = tls ? PORT_HTTPS : PORT_HTTP;
    struct sv text = head->target;
    struct http_authority auth;

    if (head->form == HTTP_FORM_ABSOLUTE) {
        size_t i = 0;

        text = sv_from_at(text, tls ? 8 : 7);
        while (i < text.n && text.p[i] != '/' && text.p[i] != '?' && text.p[i] != '#') {
            i++;
        }
        text = sv_head(text, i);
    }
    if (http_authority_parse(text, &auth) != ERR_OK) {
        return HTTP_FAULT_TARGET;
    }
    if (!same_host(auth.host, host->host)) {
        return HTTP_FAULT_HOST_MISMATCH;
    }
    if (head->form == HTTP_FORM_AUTHORITY) {
        /* Clients leave the port out of Host here as often as not. */
        return host->port == 0 || host->port == auth.port ? HTTP_FAULT_NONE
                                                          : HTTP_FAULT_HOST_MISMATCH;
    }
    return port_or(host->port, def) == port_or(auth.port, def) ? HTTP_FAULT_NONE
                                                               : HTTP_FAULT_HOST_MISMATCH;
}

static enum http_fault check_host(struct http_head *head)
{
    const struct http_field *field = http_head_get(head, HTTP_H_HOST);
    struct http_authority auth;

    if (field != NULL && head->http2 && head->host.n > 0) {
        struct http_authority other;

        if (http_authority_parse(field->value, &other) != ERR_OK ||
            http_authority_parse(head->host, &auth) != ERR_OK ||
            !same_host(other.host, auth.host) || other.port != auth.port) {
            return HTTP_FAULT_HOST_MISMATCH;
        }
    } else if (field != NULL) {
        head->host = field->value;
    }
    if (head->host.p == NULL) {
        return HTTP_FAULT_HOST_MISSING;
    }
    if (http_authority_parse(head->host, &auth) != ERR_OK) {
        return HTTP_FAULT_HOST;
    }
    head->host_n = auth.host.n;
    head->port = auth.port;
    head->host_kind = auth.kind;
    if (head->form == HTTP_FORM_ABSOLUTE || head->form == HTTP_FORM_AUTHORITY) {
        return check_target_host(head, &auth);
    }
    return HTTP_FAULT_NONE;
}

/* ---- Connection ------------------------------------------------------------------------------- */

struct options {
    bool close;
    bool keep_alive;
    bool upgrade;
    bool te;
};

/* A sender may declare any field its own hop's business, but not those that say where a message
 * goes and where it ends. */
static enum http_fault nominate(struct http_head *head, struct sv option)
{
    enum http_name id = http_name_id(option);
    uint32_t i = 0;

    if (id == HTTP_H_HOST || id == HTTP_H_CONTENT_LENGTH || id == HTTP_H_CONNECTION) {
        return HTTP_FAULT_CONNECTION;
    }
    for (i = 0; i < head->n; i++) {
        if (head->fields[i].id == id && sv_ieq(head->fields[i].name, option)) {
            head->fields[i].flags |= HTTP_F_HOP;
        }
    }
    return HTTP_FAULT_NONE;
}

static enum http_fault read_option(struct http_head *head, struct sv option, struct options *o)
{
    if (sv_ieq(option, SV("close"))) {
        o->close = true;
    } else if (sv_ieq(option, SV("keep-alive"))) {
        o->keep_alive = true;
    } else if (sv_ieq(option, SV("upgrade"))) {
        o->upgrade = true;
    } else if (sv_ieq(option, SV("te"))) {
        o->te = true;
    } else if (!http_is_token(option)) {
        return HTTP_FAULT_CONNECTION;
    } else {
        return nominate(head, option);
    }
    return HTTP_FAULT_NONE;
}

static enum http_fault read_connection(struct http_head *head, struct options *o)
{
    unsigned count = 0;
    uint32_t i = 0;

    for (i = head->at[HTTP_H_CONNECTION]; i > 0 && i <= head->n; i++) {
        struct sv list = head->fields[i - 1].value;
        struct sv option = { 0 };

        if (head->fields[i - 1].id != HTTP_H_CONNECTION) {
            continue;
        }
        while (http_list_next(&list, &option)) {
            enum http_fault fault = read_option(head, option, o);

            if (fault != HTTP_FAULT_NONE || ++count > CONNECTION_OPTIONS_MAX) {
                return HTTP_FAULT_CONNECTION;
            }
        }
    }
    return HTTP_FAULT_NONE;
}

/* ---- framing ---------------------------------------------------------------------------------- */

/* 1*DIGIT that every reader reads alike: no sign, no list, no leading zero, below 10^18. */
static enum http_fault read_length(const struct http_head *head, uint64_t *length_out)
{
    struct sv v = http_head_value(head, HTTP_H_CONTENT_LENGTH);

    if (v.n == 0 || v.n > LENGTH_DIGITS_MAX || (v.n > 1 && v.p[0] == '0') ||
        sv_u64(v, INT64_MAX, length_out) != ERR_OK) {
        return HTTP_FAULT_LENGTH;
    }
    return HTTP_FAULT_NONE;
}

/* Length and coding as written, before method and status have their say. */
static enum http_fault read_framing(struct http_head *head)
{
    bool has_length = head->at[HTTP_H_CONTENT_LENGTH] != 0;
    bool has_coding = head->at[HTTP_H_TRANSFER_ENCODING] != 0;

    if (has_length && has_coding) {
        return HTTP_FAULT_LENGTH_AND_CODING;
    }
    if (has_coding) {
        if (head->minor == 0) {
            return HTTP_FAULT_CODING_VERSION;
        }
        if (!sv_ieq(http_head_value(head, HTTP_H_TRANSFER_ENCODING), SV("chunked"))) {
            return HTTP_FAULT_CODING;
        }
        head->framing = HTTP_BODY_CHUNKED;
    }
    if (has_length) {
        head->framing = HTTP_BODY_LENGTH;
        return read_length(head, &head->content_length);
    }
    return HTTP_FAULT_NONE;
}

static bool has_body(const struct http_head *head)
{
    return head->framing == HTTP_BODY_CHUNKED || head->content_length > 0;
}

/* ---- requests --------------------------------------------------------------------------------- */

static bool single_is(const struct http_head *head, enum http_name id, struct sv text)
{
    return http_head_count(head, id) == 1 && sv_ieq(http_head_value(head, id), text);
}

/* :path, or :authority for CONNECT without :protocol. nghttp2 lets more bytes through than the
 * request line of HTTP/1 may hold. */
static enum http_fault seal_http2_target(struct http_head *head)
{
    struct sv t = head->target;
    size_t i = 0;

    for (i = 0; i < t.n; i++) {
        if (!http_char_is(t.p[i], HTTP_CH_QUERY)) {
            return HTTP_FAULT_TARGET;
        }
    }
    if (t.n > 0 && t.p[0] == '/') {
        head->form = HTTP_FORM_ORIGIN;
    } else if (sv_eq(t, SV("*")) && head->method == HTTP_OPTIONS) {
        head->form = HTTP_FORM_ASTERISK;
    } else if (head->method == HTTP_CONNECT && sv_eq(t, head->host)) {
        head->form = HTTP_FORM_AUTHORITY;
    } else {
        return HTTP_FAULT_TARGET_FORM;
    }
    if (head->method == HTTP_UNKNOWN || head->method == HTTP_TRACE) {
        return head->method == HTTP_TRACE ? HTTP_FAULT_METHOD_REFUSED : HTTP_FAULT_METHOD_UNKNOWN;
    }
    return HTTP_FAULT_NONE;
}

/* Fields that mean one connection of HTTP/1 (RFC 9113 §8.2.2). */
static bool has_bound_field(const struct http_head *head)
{
    static const enum http_name bound[] = { HTTP_H_CONNECTION, HTTP_H_KEEP_ALIVE,
                                            HTTP_H_PROXY_CONNECTION, HTTP_H_TRANSFER_ENCODING,
                                            HTTP_H_UPGRADE };

    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(bound); i++) {
        if (head->at[bound[i]] != 0) {
            return true;
        }
    }
    return false;
}

static enum http_fault seal_http2(struct http_head *head)
{
    enum http_fault fault = seal_http2_target(head);

    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (has_bound_field(head)) {
        return HTTP_FAULT_CONNECTION;
    }
    if (head->at[HTTP_H_TE] != 0) {
        if (!single_is(head, HTTP_H_TE, SV("trailers"))) {
            return HTTP_FAULT_CONNECTION;
        }
        head->te_trailers = true;
    }
    head->keep_alive = true;
    return HTTP_FAULT_NONE;
}

static enum http_fault seal_expect(struct http_head *head)
{
    if (head->at[HTTP_H_EXPECT] == 0 || head->minor == 0) {
        return HTTP_FAULT_NONE;
    }
    if (!sv_ieq(http_head_value(head, HTTP_H_EXPECT), SV("100-continue"))) {
        return HTTP_FAULT_EXPECT;
    }
    head->expect_continue = true;
    return HTTP_FAULT_NONE;
}

/* HTTP/1.0 senders of these may mean "until I close": ask for a length instead of guessing none. */
static bool needs_length(const struct http_head *head)
{
    return head->minor == 0 && !head->http2 && head->framing == HTTP_BODY_NONE &&
           (head->method == HTTP_POST || head->method == HTTP_PUT || head->method == HTTP_PATCH);
}

static enum http_fault seal_body(struct http_head *head)
{
    enum http_fault fault = read_framing(head);

    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (needs_length(head)) {
        return HTTP_FAULT_LENGTH_REQUIRED;
    }
    if ((head->websocket || head->method == HTTP_CONNECT) && has_body(head)) {
        return HTTP_FAULT_UPGRADE_BODY;
    }
    return HTTP_FAULT_NONE;
}

static enum http_fault seal_request(struct http_head *head)
{
    struct options o = { 0 };
    enum http_fault fault = check_host(head);

    if (fault == HTTP_FAULT_NONE) {
        fault = head->http2 ? seal_http2(head) : read_connection(head, &o);
    }
    if (fault == HTTP_FAULT_NONE) {
        fault = seal_expect(head);
    }
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (!head->http2) {
        head->keep_alive = !o.close && (head->minor == 1 || o.keep_alive);
        head->upgrade = head->minor == 1 && o.upgrade && head->at[HTTP_H_UPGRADE] != 0;
        head->websocket = head->upgrade && head->method == HTTP_GET &&
                          single_is(head, HTTP_H_UPGRADE, SV("websocket"));
        head->te_trailers = http_list_has(http_head_value(head, HTTP_H_TE), SV("trailers"));
    }
    return seal_body(head);
}

/* ---- responses (RFC 9112 §6.3) ----------------------------------------------------------------- */

static bool never_has_body(const struct http_head *head)
{
    return head->status < 200 || head->status == 204 || head->status == 304 ||
           head->request_method == HTTP_HEAD ||
           (head->request_method == HTTP_CONNECT && head->status < 300);
}

static enum http_fault seal_response(struct http_head *head)
{
    struct options o = { 0 };
    enum http_fault fault = HTTP_FAULT_CONNECTION;

    if (!head->http2 || !has_bound_field(head)) {
        fault = read_connection(head, &o);
    }
    if (fault == HTTP_FAULT_NONE) {
        fault = read_framing(head);
    }
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    head->keep_alive = !o.close && (head->minor == 1 || o.keep_alive);
    head->upgrade =
        head->status == 101 && head->minor == 1 && o.upgrade && head->at[HTTP_H_UPGRADE] != 0;
    if (never_has_body(head)) {
        /* Some servers send the body they announce here; what follows is not to be trusted. */
        if ((head->status < 200 || head->status == 204) && has_body(head)) {
            head->keep_alive = false;
        }
        head->framing = HTTP_BODY_NONE;
    } else if (head->framing == HTTP_BODY_NONE) {
        head->framing = HTTP_BODY_UNTIL_CLOSE;
        head->keep_alive = false;
    }
    return HTTP_FAULT_NONE;
}

enum http_fault http_head_seal(struct http_head *head)
{
    return head->kind == HTTP_RESPONSE ? seal_response(head) : seal_request(head);
}
