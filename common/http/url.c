#include "common/http/url.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/http/chars.h"
#include "common/map.h"
#include "common/mem.h"

enum { LABEL_MAX = 63, PORT_HTTP = 80, PORT_HTTPS = 443 };

/* Four decimal numbers below 256 without leading zeros: 010.0.0.1 is 8.0.0.1 to some. */
static bool is_ipv4(struct sv s)
{
    unsigned parts = 0;

    do {
        struct sv part = sv_cut(&s, '.');
        uint64_t v = 0;

        parts++;
        if (parts > 4 || part.n > 3 || (part.n > 1 && part.p[0] == '0') ||
            sv_u64(part, 255, &v) != ERR_OK) {
            return false;
        }
    } while (s.p != NULL);
    return parts == 4;
}

/* WHATWG URL, "ends in a number": browsers take such a host for an IPv4 address in any of its odd
 * spellings, so it must be a plain one. */
static bool is_number(struct sv last)
{
    bool hex = last.n >= 2 && last.p[0] == '0' && http_char_lower(last.p[1]) == 'x';
    size_t i = hex ? 2 : 0;

    for (; i < last.n; i++) {
        if (hex ? !http_char_is(last.p[i], HTTP_CH_HEX) : !http_char_is_digit(last.p[i])) {
            return false;
        }
    }
    return last.n > 0;
}

static bool is_label(struct sv label)
{
    size_t i = 0;

    while (i < label.n && http_char_is(label.p[i], HTTP_CH_HOST)) {
        i++;
    }
    return i == label.n && i != 0 && i <= LABEL_MAX && label.p[0] != '-';
}

/* Labels between dots. */
static bool is_reg_name(struct sv host, struct sv *last_out)
{
    while (host.p != NULL) {
        *last_out = sv_cut(&host, '.');
        if (!is_label(*last_out)) {
            return false;
        }
    }
    return true;
}

/* Text between the brackets. Zone ids mean nothing on the wire and are refused. */
static bool parse_ipv6(struct sv s, struct in6_addr *addr)
{
    char text[INET6_ADDRSTRLEN];

    if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, '\0', s.n) != NULL) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, addr) == 1;
}

static enum http_host_kind host_kind(struct sv host)
{
    struct in6_addr addr;
    struct sv name = host;
    struct sv last = { 0 };

    if (host.n == 0 || host.n > HTTP_HOST_MAX) {
        return HTTP_HOST_NONE;
    }
    if (host.p[0] == '[') {
        bool closed = host.n > 2 && host.p[host.n - 1] == ']';

        return closed && parse_ipv6(sv_of(host.p + 1, host.n - 2), &addr) ? HTTP_HOST_IPV6
                                                                          : HTTP_HOST_NONE;
    }
    if (host.n > 1 && host.p[host.n - 1] == '.') {
        name.n--;
    }
    if (!is_reg_name(name, &last)) {
        return HTTP_HOST_NONE;
    }
    if (!http_char_is_digit(last.p[0])) {
        return HTTP_HOST_NAME;
    }
    if (is_ipv4(host)) {
        return HTTP_HOST_IPV4;
    }
    return is_number(last) ? HTTP_HOST_NONE : HTTP_HOST_NAME;
}

static enum err parse_port(struct sv s, uint16_t *port_out)
{
    uint64_t v = 0;

    if (s.n == 0 || s.n > 5 || s.p[0] == '0' || sv_u64(s, UINT16_MAX, &v) != ERR_OK) {
        return ERR_INVALID;
    }
    *port_out = (uint16_t)v;
    return ERR_OK;
}

enum err http_authority_parse(struct sv text, struct http_authority *auth_out)
{
    struct http_authority auth = { .host = text };
    size_t end = 0;

    if (text.n > 0 && text.p[0] == '[') {
        end = sv_find(text, ']');
        end = end == SIZE_MAX ? SIZE_MAX : end + 1;
    } else {
        end = MIN(sv_find(text, ':'), text.n);
    }
    if (end == SIZE_MAX) {
        return ERR_INVALID;
    }
    if (end < text.n) {
        if (text.p[end] != ':' || parse_port(sv_from_at(text, end + 1), &auth.port) != ERR_OK) {
            return ERR_INVALID;
        }
        auth.host = sv_head(text, end);
    }
    auth.kind = host_kind(auth.host);
    if (auth.kind == HTTP_HOST_NONE) {
        return ERR_INVALID;
    }
    *auth_out = auth;
    return ERR_OK;
}

static struct sv canonical_ipv6(struct sv host, char out[HTTP_HOST_MAX + 1])
{
    struct in6_addr addr;
    size_t n = 0;

    if (!parse_ipv6(sv_of(host.p + 1, host.n - 2), &addr) ||
        inet_ntop(AF_INET6, &addr, out + 1, HTTP_HOST_MAX - 1) == NULL) {
        return (struct sv){ 0 };
    }
    out[0] = '[';
    n = strlen(out);
    out[n] = ']';
    out[n + 1] = '\0';
    return sv_of(out, n + 1);
}

enum err http_authority_host(const struct http_authority *auth, char out[HTTP_HOST_MAX + 1],
                             struct sv *host_out)
{
    struct sv plain = auth->host;
    bool same = true;
    size_t i = 0;

    if (auth->kind == HTTP_HOST_NONE) {
        return ERR_INVALID;
    }
    if (auth->kind == HTTP_HOST_IPV6) {
        struct sv v6 = canonical_ipv6(plain, out);

        *host_out = sv_eq(v6, plain) ? plain : v6;
        return v6.n == 0 ? ERR_INVALID : ERR_OK;
    }
    if (plain.p[plain.n - 1] == '.') {
        plain.n--;
    }
    for (i = 0; i < plain.n; i++) {
        out[i] = http_char_lower(plain.p[i]);
        same &= out[i] == plain.p[i];
    }
    out[plain.n] = '\0';
    *host_out = same ? plain : sv_of(out, plain.n);
    return ERR_OK;
}

enum err http_host_canonical(struct sv host, char out[HTTP_HOST_MAX + 1], struct sv *host_out)
{
    const struct http_authority auth = { .host = host, .kind = host_kind(host) };

    return http_authority_host(&auth, out, host_out);
}

/* ---- absolute URLs ---------------------------------------------------------------------------- */

static enum err parse_scheme(struct sv *rest, struct http_url *url)
{
    size_t at = sv_search(*rest, SV("://"));
    size_t i = 0;

    if (at == SIZE_MAX || at == 0) {
        return ERR_INVALID;
    }
    url->scheme_text = sv_head(*rest, at);
    for (i = 0; i < at; i++) {
        char c = http_char_lower(rest->p[i]);
        bool letter = c >= 'a' && c <= 'z';

        if (!letter && (i == 0 || !(http_char_is_digit(c) || c == '+' || c == '-' || c == '.'))) {
            return ERR_INVALID;
        }
    }
    url->scheme = HTTP_SCHEME_OTHER;
    if (sv_ieq(url->scheme_text, SV("https"))) {
        url->scheme = HTTP_SCHEME_HTTPS;
        url->port = PORT_HTTPS;
    } else if (sv_ieq(url->scheme_text, SV("http"))) {
        url->scheme = HTTP_SCHEME_HTTP;
        url->port = PORT_HTTP;
    }
    *rest = sv_from_at(*rest, at + 3);
    return ERR_OK;
}

static enum err parse_host(struct sv text, struct http_url *url)
{
    struct http_authority auth;
    enum err err = http_authority_parse(text, &auth);

    if (err != ERR_OK) {
        return err;
    }
    url->host_kind = auth.kind;
    if (auth.port != 0) {
        url->port = auth.port;
        url->port_given = true;
    }
    return http_host_canonical(auth.host, url->host_text, &url->host);
}

static bool path_is_clean(struct sv path)
{
    size_t i = 0;

    for (i = 0; i < path.n; i++) {
        if (path.p[i] == '%') {
            if (path.n - i < 3 || !http_char_is(path.p[i + 1], HTTP_CH_HEX) ||
                !http_char_is(path.p[i + 2], HTTP_CH_HEX)) {
                return false;
            }
        } else if (!http_char_is(path.p[i], HTTP_CH_PATH | HTTP_CH_PATH_ENCODE)) {
            return false;
        }
    }
    return true;
}

static bool query_is_clean(struct sv query)
{
    size_t i = 0;

    for (i = 0; i < query.n; i++) {
        if (!http_char_is(query.p[i], HTTP_CH_QUERY)) {
            return false;
        }
    }
    return true;
}

/* Index of the first of path, query or fragment: where the authority ends. */
static size_t authority_end(struct sv s)
{
    size_t i = 0;

    while (i < s.n && s.p[i] != '/' && s.p[i] != '?' && s.p[i] != '#') {
        i++;
    }
    return i;
}

static void split_tail(struct sv rest, struct http_url *url)
{
    size_t at = sv_find(rest, '#');

    if (at != SIZE_MAX) {
        url->has_fragment = true;
        url->fragment = sv_from_at(rest, at + 1);
        rest = sv_head(rest, at);
    }
    at = sv_find(rest, '?');
    if (at != SIZE_MAX) {
        url->has_query = true;
        url->query = sv_from_at(rest, at + 1);
        rest = sv_head(rest, at);
    }
    url->path = rest;
}

enum err http_url_parse(struct sv text, struct http_url *url, struct diag *d)
{
    struct sv rest = text;
    size_t end = 0;

    *url = (struct http_url){ 0 };
    if (text.n > HTTP_URL_MAX) {
        diag_set(d, "the URL is longer than %d bytes", HTTP_URL_MAX);
        return ERR_LIMIT;
    }
    if (parse_scheme(&rest, url) != ERR_OK) {
        diag_set(d, "the URL must begin with a scheme and \"://\"");
        return ERR_INVALID;
    }
    end = authority_end(rest);
    if (parse_host(sv_head(rest, end), url) != ERR_OK) {
        diag_set(
            d, "the URL must name a host and optionally a port, and nothing else, before the path");
        return ERR_INVALID;
    }
    split_tail(sv_from_at(rest, end), url);
    if (!path_is_clean(url->path) || !query_is_clean(url->query) ||
        !query_is_clean(url->fragment)) {
        diag_set(d, "the URL holds a character that must be percent-encoded");
        return ERR_INVALID;
    }
    return ERR_OK;
}

void http_url_copy(const struct http_url *from, struct arena *arena, struct http_url *to)
{
    *to = *from;
    to->scheme_text = arena_sv(arena, from->scheme_text);
    to->host = arena_sv(arena, from->host);
    to->path = arena_sv(arena, from->path);
    to->query = arena_sv(arena, from->query);
    to->fragment = arena_sv(arena, from->fragment);
}

static bool port_is_default(const struct http_url *url)
{
    return (url->scheme == HTTP_SCHEME_HTTP && url->port == PORT_HTTP) ||
           (url->scheme == HTTP_SCHEME_HTTPS && url->port == PORT_HTTPS) || url->port == 0;
}

void http_url_add_origin(struct buf *b, const struct http_url *url)
{
    size_t i = 0;

    for (i = 0; i < url->scheme_text.n; i++) {
        buf_add_char(b, http_char_lower(url->scheme_text.p[i]));
    }
    buf_add_str(b, "://");
    buf_add_sv(b, url->host);
    if (!port_is_default(url)) {
        buf_add_char(b, ':');
        buf_add_u64(b, url->port);
    }
}

void http_url_add(struct buf *b, const struct http_url *url)
{
    http_url_add_origin(b, url);
    buf_add_sv(b, url->path.n == 0 ? SV("/") : url->path);
    if (url->has_query) {
        buf_add_char(b, '?');
        buf_add_sv(b, url->query);
    }
    if (url->has_fragment) {
        buf_add_char(b, '#');
        buf_add_sv(b, url->fragment);
    }
}

bool http_url_is_loopback(const struct http_url *url)
{
    return url->scheme == HTTP_SCHEME_HTTP && url->port_given && !url->has_fragment &&
           (sv_eq(url->host, SV("127.0.0.1")) || sv_eq(url->host, SV("[::1]")) ||
            sv_eq(url->host, SV("localhost")));
}

bool http_url_same_origin(const struct http_url *a, const struct http_url *b)
{
    return sv_ieq(a->scheme_text, b->scheme_text) && a->port == b->port && sv_eq(a->host, b->host);
}

/* ---- where a browser may be sent -------------------------------------------------------------- */

struct http_url_set {
    struct map *hosts; /* "host" or "host:port" → itself */
};

enum { KEY_MAX = HTTP_HOST_MAX + 8 };

struct http_url_set *http_url_set_new(void)
{
    struct http_url_set *set = MEM_NEW(struct http_url_set);

    set->hosts = map_new();
    return set;
}

void http_url_set_free(struct http_url_set **set)
{
    if (*set == NULL) {
        return;
    }
    map_free(&(*set)->hosts);
    mem_free(set);
}

/* port 0: the key without a port. */
static struct sv set_key(struct sv host, uint16_t port, char out[KEY_MAX])
{
    size_t n = host.n;
    char digits[5];
    size_t i = sizeof(digits);

    memcpy(out, host.p, n);
    if (port == 0) {
        return sv_of(out, n);
    }
    for (; port != 0; port /= 10) {
        digits[--i] = (char)('0' + port % 10);
    }
    out[n++] = ':';
    memcpy(out + n, digits + i, sizeof(digits) - i);
    return sv_of(out, n + sizeof(digits) - i);
}

enum err http_url_set_add(struct http_url_set *set, struct sv authority)
{
    char host_text[HTTP_HOST_MAX + 1];
    char key_text[KEY_MAX];
    struct http_authority auth;
    struct sv host = { 0 };

    if (http_authority_parse(authority, &auth) != ERR_OK ||
        http_host_canonical(auth.host, host_text, &host) != ERR_OK) {
        return ERR_INVALID;
    }
    (void)map_set(set->hosts, set_key(host, auth.port, key_text), set);
    return ERR_OK;
}

static bool set_has(const struct http_url_set *set, const struct http_url *url)
{
    char key_text[KEY_MAX];

    if (url->scheme != HTTP_SCHEME_HTTP && url->scheme != HTTP_SCHEME_HTTPS) {
        return false;
    }
    if (port_is_default(url) && map_get(set->hosts, set_key(url->host, 0, key_text)) != NULL) {
        return true;
    }
    return map_get(set->hosts, set_key(url->host, url->port, key_text)) != NULL;
}

enum err http_url_redirect_check(const struct http_url_set *set, struct sv text, bool https_only,
                                 struct http_url *url)
{
    struct http_url local;
    struct http_url *u = url == NULL ? &local : url;

    if (http_url_parse(text, u, NULL) != ERR_OK) {
        return ERR_INVALID;
    }
    if (https_only && u->scheme != HTTP_SCHEME_HTTPS) {
        return ERR_DENIED;
    }
    return set_has(set, u) ? ERR_OK : ERR_DENIED;
}

bool http_url_is_local_path(struct sv text)
{
    size_t end = MIN(MIN(sv_find(text, '?'), sv_find(text, '#')), text.n);
    struct sv path = sv_head(text, end);

    if (path.n == 0 || path.p[0] != '/' || sv_search(path, SV("//")) != SIZE_MAX ||
        !path_is_clean(path)) {
        return false;
    }
    for (; end < text.n; end++) {
        if (text.p[end] != '#' && !http_char_is(text.p[end], HTTP_CH_QUERY)) {
            return false;
        }
    }
    return true;
}
