#include "common/http/canon.h"

#include <string.h>

#include "common/http/chars.h"

static const struct http_canon_rules strict_rules = { 0 };

/* What one look at the raw path found. */
struct findings {
    bool escapes;
    bool encode;  /* bytes that we percent-encode */
    bool slashes; /* "//" */
    bool dots;    /* a segment that begins with '.' */
    bool high;    /* an escape of a byte >= 0x80 */
};

static bool is_escape(struct sv s, size_t i)
{
    return s.n - i >= 3 && http_char_is(s.p[i + 1], HTTP_CH_HEX) &&
           http_char_is(s.p[i + 2], HTTP_CH_HEX);
}

static unsigned char escape_value(struct sv s, size_t i)
{
    return (unsigned char)(http_char_hex(s.p[i + 1]) * 16 + http_char_hex(s.p[i + 2]));
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* %25 in front of two digits that spell something with a meaning of its own: a server that
 * decodes twice walks another path than one that decodes once. */
static bool is_double(struct sv s, size_t i)
{
    struct sv inner = { 0 };
    unsigned char c = 0;

    if (escape_value(s, i) != '%' || s.n - i < 5) {
        return false;
    }
    inner = sv_from_at(s, i + 2); /* its first byte stands for the '%' */
    if (!is_escape(inner, 0)) {
        return false;
    }
    c = escape_value(inner, 0);
    return is_control(c) || http_char_is((char)c, HTTP_CH_UNRESERVED) || c == '/' || c == '\\' ||
           c == '%' || c == ';' || c >= 0x80;
}

static enum http_fault check_escape(struct sv raw, size_t i, const struct http_canon_rules *rules)
{
    unsigned char c = 0;

    if (!is_escape(raw, i)) {
        return HTTP_FAULT_PATH_ESCAPE;
    }
    c = escape_value(raw, i);
    if (is_control(c)) {
        return HTTP_FAULT_PATH_BYTE;
    }
    if ((c == '/' || c == '\\') && rules->escaped_slashes == HTTP_SLASH_REJECT) {
        return HTTP_FAULT_PATH_SLASH;
    }
    return HTTP_FAULT_NONE;
}

static enum http_fault look(struct sv raw, const struct http_canon_rules *rules, struct findings *f)
{
    size_t i = 0;

    for (i = 0; i < raw.n; i++) {
        char c = raw.p[i];

        if (c == '%') {
            enum http_fault fault = check_escape(raw, i, rules);

            if (fault != HTTP_FAULT_NONE) {
                return fault;
            }
            f->escapes = true;
            f->high |= escape_value(raw, i) >= 0x80;
        } else if (c == '/') {
            f->slashes |= i > 0 && raw.p[i - 1] == '/';
        } else if (c == '.') {
            f->dots |= i > 0 && raw.p[i - 1] == '/';
        } else if (http_char_is(c, HTTP_CH_PATH_ENCODE)) {
            f->encode = true;
        } else if (!http_char_is(c, HTTP_CH_PATH)) {
            return HTTP_FAULT_PATH_BYTE; /* also '\', '#', blanks, raw non-ASCII */
        }
    }
    return HTTP_FAULT_NONE;
}

static size_t put_escape(char *out, unsigned char c)
{
    static const char hex[] = "0123456789ABCDEF";

    out[0] = '%';
    out[1] = hex[c >> 4U];
    out[2] = hex[c & 15U];
    return 3;
}

/* First step: one spelling for every byte. out has room for 3 * raw.n. */
static size_t spell(struct sv raw, const struct http_canon_rules *rules, char *out,
                    bool *unescaped_out)
{
    bool unescape = rules->escaped_slashes == HTTP_SLASH_UNESCAPE_FORWARD ||
                    rules->escaped_slashes == HTTP_SLASH_UNESCAPE_REDIRECT;
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < raw.n; i++) {
        unsigned char c = (unsigned char)raw.p[i];

        if (c != '%') {
            if (http_char_is((char)c, HTTP_CH_PATH_ENCODE)) {
                n += put_escape(out + n, c);
            } else {
                out[n++] = (char)c;
            }
            continue;
        }
        c = escape_value(raw, i);
        i += 2;
        if (unescape && (c == '/' || c == '\\')) {
            out[n++] = '/';
            *unescaped_out = true;
        } else if (http_char_is((char)c, HTTP_CH_UNRESERVED)) {
            out[n++] = (char)c;
        } else {
            n += put_escape(out + n, c);
        }
    }
    return n;
}

/* 0: an ordinary segment; 1: "."; 2: "..". Java servers cut parameters off before they resolve
 * dots, so "..;x" counts, and gets no benefit of the doubt. */
static unsigned dot_segment(struct sv segment, bool *param_out)
{
    unsigned dots = 0;
    struct sv rest = { 0 };

    while (dots < segment.n && segment.p[dots] == '.') {
        dots++;
    }
    if (dots == 0 || dots > 2) {
        return 0;
    }
    rest = sv_from_at(segment, dots);
    *param_out = rest.n > 0 && (rest.p[0] == ';' || sv_istarts(rest, SV("%3b")));
    return rest.n == 0 || *param_out ? dots : 0;
}

struct path_out {
    char *p;
    size_t n;
};

/* Writes "/segment", or steps for dots. last: no '/' follows. */
static void put_segment(struct path_out *out, struct sv segment, unsigned dots, bool last)
{
    if (dots == 2) {
        while (out->n > 0 && out->p[--out->n] != '/') {
        }
    }
    if (dots != 0) {
        if (last) {
            out->p[out->n++] = '/'; /* "/a/." names the directory: "/a/" */
        }
        return;
    }
    out->p[out->n++] = '/';
    memmove(out->p + out->n, segment.p, segment.n); /* never ahead of what is still to be read */
    out->n += segment.n;
}

/* Second step, in place: slashes merged first, as in Envoy's order of effects, then dots resolved
 * on the result, so that "/a//../b" is "/b". */
static enum http_fault resolve(struct sv *path, const struct http_canon_rules *rules, char *p)
{
    struct path_out out = { .p = p };
    struct sv rest = sv_of(p + 1, path->n - 1);

    while (rest.p != NULL) {
        struct sv segment = sv_cut(&rest, '/');
        bool last = rest.p == NULL;
        bool param = false;
        unsigned dots = dot_segment(segment, &param);

        if (dots != 0 && (param || rules->keep_dot_segments)) {
            return HTTP_FAULT_PATH_DOTS;
        }
        if (segment.n == 0 && !last && !rules->keep_double_slashes) {
            continue;
        }
        put_segment(&out, segment, dots, last);
    }
    *path = sv_of(p, out.n);
    return HTTP_FAULT_NONE;
}

/* Checks that need every byte in its one spelling: "%25%32%65" is "%252e" by now. */
static enum http_fault check_spelled(struct sv path, const struct http_canon_rules *rules)
{
    bool keep = rules->escaped_slashes == HTTP_SLASH_KEEP;
    size_t start = 1;
    size_t i = 0;

    for (i = 1; i <= path.n; i++) {
        bool escaped = i < path.n && path.p[i] == '%';
        bool slash = escaped && (escape_value(path, i) == '/' || escape_value(path, i) == '\\');
        bool param = false;

        if (escaped && !rules->keep_double_encoding && is_double(path, i)) {
            return HTTP_FAULT_PATH_DOUBLE;
        }
        if (!slash && i < path.n && path.p[i] != '/') {
            continue;
        }
        /* "..%2Fb" climbs on a server that decodes before it splits. */
        if (keep && (slash || start > 1) &&
            dot_segment(sv_of(path.p + start, i - start), &param) != 0 &&
            (slash || path.p[start - 1] != '/')) {
            return HTTP_FAULT_PATH_DOTS;
        }
        start = slash ? i + 3 : i + 1;
        i += slash ? 2 : 0;
    }
    return HTTP_FAULT_NONE;
}

enum http_fault http_canon_path(struct sv raw, const struct http_canon_rules *rules,
                                struct arena *arena, struct sv *path_out, bool *unescaped_out)
{
    struct findings f = { 0 };
    enum http_fault fault = HTTP_FAULT_NONE;
    bool unescaped = false;
    struct sv path = { 0 };
    char *p = NULL;

    rules = rules == NULL ? &strict_rules : rules;
    if (unescaped_out != NULL) {
        *unescaped_out = false;
    }
    if (raw.n == 0 || raw.p[0] != '/') {
        return HTTP_FAULT_TARGET_FORM;
    }
    fault = look(raw, rules, &f);
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (!f.escapes && !f.encode && !f.slashes && !f.dots) {
        *path_out = raw;
        return HTTP_FAULT_NONE;
    }
    p = arena_alloc(arena, raw.n * (f.encode ? 3 : 1) + 1);
    path = sv_of(p, spell(raw, rules, p, &unescaped));
    if (f.high && !rules->keep_invalid_utf8 && !sv_is_utf8(http_canon_decode(path, arena))) {
        return HTTP_FAULT_PATH_UTF8;
    }
    fault = check_spelled(path, rules);
    if (fault == HTTP_FAULT_NONE) {
        fault = resolve(&path, rules, p);
    }
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    *path_out = sv_eq(path, raw) ? raw : path;
    if (unescaped_out != NULL) {
        *unescaped_out = unescaped;
    }
    return HTTP_FAULT_NONE;
}

bool http_canon_is_decoded(struct sv text)
{
    for (size_t i = 0; i < text.n; i++) {
        struct sv rest = sv_from_at(text, i);

        if (text.p[i] == '%' && is_escape(text, i) && !sv_starts(rest, SV("%2F")) &&
            !sv_starts(rest, SV("%5C"))) {
            return false;
        }
    }
    return true;
}

struct sv http_canon_decode(struct sv path, struct arena *arena)
{
    char *p = NULL;
    size_t n = 0;
    size_t i = 0;

    if (sv_find(path, '%') == SIZE_MAX) {
        return path;
    }
    p = arena_alloc(arena, path.n + 1);
    for (i = 0; i < path.n; i++) {
        if (path.p[i] == '%' && is_escape(path, i)) {
            unsigned char c = escape_value(path, i);

            if (c != '/' && c != '\\') {
                p[n++] = (char)c;
                i += 2;
                continue;
            }
        }
        p[n++] = path.p[i];
    }
    return sv_of(p, n);
}

size_t http_canon_encoded_len(struct sv path, size_t decoded_n)
{
    size_t i = 0;

    while (i < path.n && decoded_n > 0) {
        bool whole = path.p[i] == '%' && is_escape(path, i) && escape_value(path, i) != '/' &&
                     escape_value(path, i) != '\\';

        i += whole ? 3 : 1;
        decoded_n--;
    }
    return i;
}

struct sv http_canon_without_params(struct sv path, char *out)
{
    size_t n = 0;
    bool skip = false;

    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] == ';' || path.p[i] == '/') {
            skip = path.p[i] == ';';
        }
        if (!skip && (path.p[i] != '/' || n == 0 || out[n - 1] != '/')) {
            out[n++] = path.p[i];
        }
    }
    return sv_of(out, n);
}

/* ---- requests --------------------------------------------------------------------------------- */

static enum http_fault canon_authority(const struct http_head *head, struct arena *arena,
                                       struct http_request *req)
{
    char text[HTTP_HOST_MAX + 1];
    struct http_authority auth = http_head_authority(head);
    struct sv source = head->host;
    struct sv host = { 0 };
    enum err err = ERR_OK;

    if (head->form == HTTP_FORM_AUTHORITY) {
        source = head->target;
        err = http_authority_parse(source, &auth);
    }
    if (err != ERR_OK || http_authority_host(&auth, text, &host) != ERR_OK) {
        return HTTP_FAULT_HOST;
    }
    req->port = auth.port;
    if (host.p != text) {
        /* Part of source: spelled canonically, at most a final dot was left off. */
        req->host = host;
        req->authority = host.n == auth.host.n ? source : host;
        if (host.n == auth.host.n || auth.port == 0) {
            return HTTP_FAULT_NONE;
        }
    }
    {
        struct sv port = sv_from_at(source, auth.host.n); /* "" or ":port" */
        char *p = arena_alloc(arena, host.n + port.n + 1);

        memcpy(p, host.p, host.n);
        if (port.n != 0) {
            memcpy(p + host.n, port.p, port.n);
        }
        req->host = sv_of(p, host.n);
        req->authority = sv_of(p, host.n + port.n);
    }
    return HTTP_FAULT_NONE;
}

/* Path and query of origin and absolute form; '#' never got past the head parser. */
static struct sv split_target(const struct http_head *head, struct http_request *req)
{
    struct sv rest = head->target;
    size_t at = 0;

    if (head->form == HTTP_FORM_ABSOLUTE) {
        rest = sv_from_at(rest, sv_istarts(rest, SV("https")) ? 8 : 7);
        while (at < rest.n && rest.p[at] != '/' && rest.p[at] != '?') {
            at++;
        }
        rest = sv_from_at(rest, at);
    }
    at = sv_find(rest, '?');
    if (at != SIZE_MAX) {
        req->has_query = true;
        req->query = sv_from_at(rest, at + 1);
        rest = sv_head(rest, at);
    }
    return rest;
}

/* in_place: the canonical path is the target's own bytes, and the query stands right behind it. */
static void make_forward(struct http_request *req, struct arena *arena, bool in_place)
{
    size_t n = req->path.n + (req->has_query ? req->query.n + 1 : 0);
    char *p = NULL;

    if (in_place) {
        req->forward = sv_of(req->path.p, n);
    } else {
        p = arena_alloc(arena, n + 1);
        memcpy(p, req->path.p, req->path.n);
        if (req->has_query) {
            p[req->path.n] = '?';
        }
        if (req->query.n != 0) {
            memcpy(p + req->path.n + 1, req->query.p, req->query.n);
        }
        req->forward = sv_of(p, n);
    }
    req->changed = !sv_eq(req->forward, req->target);
}

void http_canon_set_path(struct http_request *req, struct sv path, struct arena *arena)
{
    req->path = path;
    req->decoded = http_canon_decode(path, arena);
    make_forward(req, arena, false);
}

static enum http_fault canon_target(const struct http_head *head,
                                    const struct http_canon_rules *rules, struct arena *arena,
                                    struct http_request *req)
{
    struct sv raw = split_target(head, req);
    enum http_fault fault = HTTP_FAULT_NONE;
    bool empty = raw.n == 0; /* http://host and http://host?query */
    bool unescaped = false;

    raw = empty ? SV("/") : raw;
    fault = http_canon_path(raw, rules, arena, &req->path, &unescaped);
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    req->redirect = unescaped && rules->escaped_slashes == HTTP_SLASH_UNESCAPE_REDIRECT;
    req->decoded = http_canon_decode(req->path, arena);
    make_forward(req, arena, !empty && req->path.p == raw.p);
    return HTTP_FAULT_NONE;
}

enum http_fault http_canon_request(const struct http_head *head,
                                   const struct http_canon_rules *rules, struct arena *arena,
                                   struct http_request *req_out)
{
    struct http_request req = { .method = head->method,
                                .method_text = head->method_text,
                                .form = head->form,
                                .target = head->target };
    enum http_fault fault = canon_authority(head, arena, &req);

    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    switch (head->form) {
    case HTTP_FORM_ORIGIN:
    case HTTP_FORM_ABSOLUTE:
        fault = canon_target(head, rules == NULL ? &strict_rules : rules, arena, &req);
        break;
    case HTTP_FORM_ASTERISK:
        req.path = SV("*");
        req.decoded = req.path;
        req.forward = head->target;
        break;
    case HTTP_FORM_AUTHORITY:
        req.path = SV("");
        req.decoded = req.path;
        req.forward = req.authority;
        req.changed = !sv_eq(req.forward, req.target);
        break;
    case HTTP_FORM_NONE:
        fault = HTTP_FAULT_TARGET_FORM;
        break;
    }
    if (fault == HTTP_FAULT_NONE) {
        *req_out = req;
    }
    return fault;
}
