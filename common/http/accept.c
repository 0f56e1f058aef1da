#include "common/http/accept.h"

#include "common/http/chars.h"

enum { QUALITY_MAX = 1000, RANGES_MAX = 64 };

/* "0", "0.5", "1.000" (RFC 9110 §12.4.2) in thousandths; anything else counts as 0. */
static unsigned parse_q(struct sv v)
{
    unsigned q = 0;
    unsigned scale = 100;
    size_t i = 0;

    if (v.n == 0 || v.n > 5 || (v.p[0] != '0' && v.p[0] != '1') || (v.n > 1 && v.p[1] != '.')) {
        return 0;
    }
    q = v.p[0] == '1' ? QUALITY_MAX : 0;
    for (i = 2; i < v.n; i++) {
        if (!http_char_is_digit(v.p[i])) {
            return 0;
        }
        q += (unsigned)(v.p[i] - '0') * scale;
        scale /= 10;
    }
    return MIN(q, (unsigned)QUALITY_MAX);
}

static unsigned range_quality(struct sv parameters)
{
    while (parameters.p != NULL) {
        struct sv parameter = sv_trim(sv_cut(&parameters, ';'));
        struct sv name = sv_trim(sv_cut(&parameter, '='));

        if (sv_ieq(name, SV("q"))) {
            return parse_q(sv_trim(parameter));
        }
    }
    return QUALITY_MAX;
}

/* 3: the very type, 2: "type/" + "*", 1: the wildcard for all, 0: another. */
static unsigned range_match(struct sv range, struct sv type)
{
    size_t slash = sv_find(type, '/');

    if (sv_ieq(range, type)) {
        return 3;
    }
    if (slash != SIZE_MAX && range.n == slash + 2 && range.p[slash + 1] == '*' &&
        sv_ieq(sv_head(range, slash + 1), sv_head(type, slash + 1))) {
        return 2;
    }
    return sv_eq(range, SV("*/*")) ? 1 : 0;
}

unsigned http_accept_quality(struct sv accept, struct sv type, bool *named_out)
{
    unsigned best = 0;
    unsigned quality = 0;
    unsigned count = 0;
    struct sv element = { 0 };

    if (named_out != NULL) {
        *named_out = false;
    }
    if (sv_trim(accept).n == 0) {
        return QUALITY_MAX;
    }
    while (count++ < RANGES_MAX && http_list_next(&accept, &element)) {
        struct sv parameters = element;
        struct sv range = sv_trim(sv_cut(&parameters, ';'));
        unsigned match = range_match(range, type);

        if (match > best) {
            best = match;
            quality = range_quality(parameters);
        }
    }
    if (named_out != NULL) {
        *named_out = best == 3;
    }
    return quality;
}

/* Type of a media type without its parameters. */
static struct sv media_type(struct sv value)
{
    return sv_trim(sv_cut(&value, ';'));
}

static bool type_is(struct sv type, struct sv base)
{
    return sv_istarts(type, base) && (type.n == base.n || type.p[base.n] == '+');
}

static bool has_field(const struct http_head *head, struct sv name)
{
    uint32_t i = 0;

    for (i = 0; i < head->n; i++) {
        if (sv_ieq(head->fields[i].name, name)) {
            return true;
        }
    }
    return false;
}

/* Streamable HTTP of the Model Context Protocol (2025-06-18): a POST of JSON that takes both forms of an
 * answer, and tells the version once it was agreed upon. */
static bool is_mcp(const struct http_head *head, struct sv type)
{
    struct sv accept = http_head_value(head, HTTP_H_ACCEPT);
    bool events = false;
    bool json = false;

    if (head->method != HTTP_POST || !sv_ieq(type, SV("application/json"))) {
        return false;
    }
    (void)http_accept_quality(accept, SV("text/event-stream"), &events);
    (void)http_accept_quality(accept, SV("application/json"), &json);
    return (events && json) || has_field(head, SV("mcp-protocol-version"));
}

/* JSON: none of them. */
static enum http_media rpc_media(const struct http_head *head)
{
    struct sv type = media_type(http_head_value(head, HTTP_H_CONTENT_TYPE));

    if (type_is(type, SV("application/grpc"))) {
        return HTTP_MEDIA_GRPC;
    }
    if (type_is(type, SV("application/grpc-web"))) {
        return HTTP_MEDIA_GRPC_WEB;
    }
    if (type_is(type, SV("application/grpc-web-text"))) {
        return HTTP_MEDIA_GRPC_WEB_TEXT;
    }
    if (sv_ieq(type, SV("application/connect+json"))) {
        return HTTP_MEDIA_CONNECT_STREAM_JSON;
    }
    if (type_is(type, SV("application/connect"))) {
        return HTTP_MEDIA_CONNECT_STREAM;
    }
    if (type.n != 0 && has_field(head, SV("connect-protocol-version"))) {
        return HTTP_MEDIA_CONNECT;
    }
    return is_mcp(head, type) ? HTTP_MEDIA_MCP : HTTP_MEDIA_JSON;
}

static bool is_grpc(const struct http_head *head)
{
    return rpc_media(head) == HTTP_MEDIA_GRPC;
}

/* Accept may be spread over several fields; the first one that names HTML speaks for all. */
static bool names_html(const struct http_head *head)
{
    uint32_t i = 0;

    for (i = head->at[HTTP_H_ACCEPT]; i > 0 && i <= head->n; i++) {
        struct sv accept = head->fields[i - 1].value;
        unsigned json = 0;
        unsigned html = 0;
        unsigned xhtml = 0;
        bool has_html = false;
        bool has_xhtml = false;

        if (head->fields[i - 1].id != HTTP_H_ACCEPT || accept.n == 0) {
            continue;
        }
        json = http_accept_quality(accept, SV("application/json"), NULL);
        html = http_accept_quality(accept, SV("text/html"), &has_html);
        xhtml = http_accept_quality(accept, SV("application/xhtml+xml"), &has_xhtml);
        if ((has_html && html > 0 && html >= json) || (has_xhtml && xhtml > 0 && xhtml >= json)) {
            return true;
        }
    }
    return false;
}

/* text/plain by name, and JSON not, or less. */
static bool names_text(const struct http_head *head)
{
    struct sv accept = http_head_value(head, HTTP_H_ACCEPT);
    bool has_text = false;
    bool has_json = false;
    unsigned text = http_accept_quality(accept, SV("text/plain"), &has_text);
    unsigned json = http_accept_quality(accept, SV("application/json"), &has_json);

    return has_text && text > 0 && (!has_json || json < text);
}

static bool is_prefetch(const struct http_head *head)
{
    struct sv purpose = http_head_value(head, HTTP_H_SEC_PURPOSE);

    return sv_istarts(purpose, SV("prefetch")) ||
           sv_ieq(http_head_value(head, HTTP_H_PURPOSE), SV("prefetch"));
}

/* Where the answer is shown as a page a person can act on. No value: an old browser. */
static bool is_document(struct sv dest)
{
    static const char *const documents[] = { "document", "iframe", "frame", "fencedframe" };
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(documents); i++) {
        if (sv_ieq(dest, sv_from(documents[i]))) {
            return true;
        }
    }
    return dest.n == 0;
}

enum http_client http_accept_client(const struct http_head *head)
{
    struct sv mode = http_head_value(head, HTTP_H_SEC_FETCH_MODE);

    if (is_grpc(head)) {
        return HTTP_CLIENT_GRPC;
    }
    if (rpc_media(head) != HTTP_MEDIA_JSON) {
        return HTTP_CLIENT_API;
    }
    if (head->at[HTTP_H_UPGRADE] != 0 || head->at[HTTP_H_X_REQUESTED_WITH] != 0 ||
        head->method == HTTP_OPTIONS || is_prefetch(head)) {
        return HTTP_CLIENT_API;
    }
    if (head->method != HTTP_GET && head->method != HTTP_HEAD && head->method != HTTP_POST) {
        return HTTP_CLIENT_API; /* neither links nor forms send anything else */
    }
    if (mode.n > 0) {
        return sv_ieq(mode, SV("navigate")) &&
                       is_document(http_head_value(head, HTTP_H_SEC_FETCH_DEST))
                   ? HTTP_CLIENT_NAVIGATION
                   : HTTP_CLIENT_API;
    }
    return names_html(head) ? HTTP_CLIENT_NAVIGATION : HTTP_CLIENT_API;
}

enum http_media http_accept_media(const struct http_head *head)
{
    enum http_media rpc = rpc_media(head);

    if (sv_search(http_head_value(head, HTTP_H_USER_AGENT), SV("kubernetes/")) != SIZE_MAX) {
        return HTTP_MEDIA_KUBERNETES;
    }
    if (rpc != HTTP_MEDIA_JSON) {
        return rpc;
    }
    if (names_html(head)) {
        return HTTP_MEDIA_HTML;
    }
    return names_text(head) ? HTTP_MEDIA_TEXT : HTTP_MEDIA_JSON;
}
