#include "proxy/emit.h"

#include <stdio.h>
#include <string.h>

#include "common/http/method.h"
#include "common/http/page.h"

enum { FIRST_CAP = 32, DIGITS = 24, CSP_MAX = 1024 };

void proxy_emit_h1(struct proxy_emit *e, struct buf *text)
{
    *e = (struct proxy_emit){ .text = text };
}

void proxy_emit_h2(struct proxy_emit *e, struct arena *arena)
{
    *e = (struct proxy_emit){ .arena = arena };
}

static bool grow(struct proxy_emit *e)
{
    size_t cap = e->cap == 0 ? (size_t)FIRST_CAP : e->cap * 2;
    nghttp2_nv *nv = NULL;

    if (cap > PROXY_EMIT_FIELDS_MAX) {
        e->failed = true;
        return false;
    }
    nv = arena_alloc(e->arena, cap * sizeof(*nv));
    if (e->n != 0) {
        memcpy(nv, e->nv, e->n * sizeof(*nv));
    }
    e->nv = nv;
    e->cap = cap;
    return true;
}

static void add_nv(struct proxy_emit *e, struct sv name, struct sv value)
{
    if (e->n == e->cap && !grow(e)) {
        return;
    }
    /* nghttp2 takes copies and lowers the letters of the name. */
    e->nv[e->n++] = (nghttp2_nv){ .name = base_unconst(name.p),
                                  .namelen = name.n,
                                  .value = base_unconst(value.n == 0 ? "" : value.p),
                                  .valuelen = value.n };
}

/* One reservation and four copies: this runs a dozen times for each head. */
static void add_line(struct buf *out, struct sv name, struct sv value)
{
    size_t n = name.n + value.n + 4;
    char *at = buf_room(out, n);

    if (at == NULL) {
        return;
    }
    memcpy(at, name.p, name.n);
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes, not a C string */
    memcpy(at + name.n, ": ", 2);
    if (value.n != 0) {
        memcpy(at + name.n + 2, value.p, value.n);
    }
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): likewise */
    memcpy(at + n - 2, "\r\n", 2);
    buf_grew(out, n);
}

static bool is_clean(struct sv value)
{
    return sv_is_plain(value) ||
           (sv_find(value, '\r') == SIZE_MAX && sv_find(value, '\n') == SIZE_MAX &&
            sv_find(value, '\0') == SIZE_MAX);
}

void proxy_emit_clean(struct proxy_emit *e, struct sv name, struct sv value)
{
    if (e->text != NULL) {
        add_line(e->text, name, value);
    } else {
        add_nv(e, name, value);
    }
}

void proxy_emit_unique(struct proxy_emit *e, struct sv name, struct sv value)
{
    size_t before = e->n;

    proxy_emit_clean(e, name, value);
    if (e->n != before) { /* HTTP/2, and there was room */
        e->nv[before].flags = NGHTTP2_NV_FLAG_NO_INDEX;
    }
}

void proxy_emit_field(struct proxy_emit *e, struct sv name, struct sv value)
{
    if (is_clean(value)) {
        proxy_emit_clean(e, name, value);
    } else { /* it would end its line and begin another one */
        e->failed = true;
    }
}

void proxy_emit_pairs(struct proxy_emit *e, const struct config_pairs *pairs, struct sv lines)
{
    if (e->text != NULL) {
        buf_add_sv(e->text, lines);
        return;
    }
    for (size_t i = 0; i < pairs->n; i++) {
        proxy_emit_field(e, pairs->v[i].name, pairs->v[i].value);
    }
}

/* Lines that lie one behind the other in their head travel as one piece. The number of fields in
 * it. */
static size_t add_lines(struct buf *out, const struct http_field *fields, size_t n)
{
    struct sv piece = http_field_line(&fields[0]);
    size_t i = 1;

    while (i < n && (fields[i].flags & HTTP_F_LINE) != 0 && fields[i].name.p == piece.p + piece.n) {
        piece.n += http_field_line(&fields[i]).n;
        i++;
    }
    buf_add_sv(out, piece);
    return i;
}

void proxy_emit_fields(struct proxy_emit *e, const struct http_field *fields, size_t n)
{
    size_t i = 0;

    while (i < n) {
        if (e->text != NULL && (fields[i].flags & HTTP_F_LINE) != 0) {
            i += add_lines(e->text, &fields[i], n - i);
        } else if ((fields[i].flags & HTTP_F_LINE) != 0) { /* it came in one line of its own */
            proxy_emit_clean(e, fields[i].name, fields[i].value);
            i++;
        } else {
            proxy_emit_field(e, fields[i].name, fields[i].value);
            i++;
        }
    }
}

void proxy_emit_u64(struct proxy_emit *e, struct sv name, uint64_t value)
{
    char text[DIGITS];
    int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    struct sv digits = sv_of(text, (size_t)n);

    proxy_emit_field(e, name, e->text != NULL ? digits : arena_sv(e->arena, digits));
}

void proxy_emit_request(struct proxy_emit *e, struct sv method, struct sv target,
                        struct sv authority, bool tls)
{
    if (e->text == NULL) {
        add_nv(e, SV(":method"), method);
        add_nv(e, SV(":scheme"), tls ? SV("https") : SV("http"));
        add_nv(e, SV(":authority"), authority);
        add_nv(e, SV(":path"), target);
        return;
    }
    buf_add_sv(e->text, method);
    buf_add_char(e->text, ' ');
    buf_add_sv(e->text, target);
    buf_add_sv(e->text, SV(" HTTP/1.1\r\n"));
    add_line(e->text, SV("Host"), authority);
}

void proxy_emit_status(struct proxy_emit *e, unsigned status, struct sv reason)
{
    char line[] = "HTTP/1.1 000 ";
    char *digits = e->text == NULL ? arena_alloc(e->arena, 3) : line + 9;

    CHECK(status <= 999);
    digits[0] = (char)('0' + status / 100);
    digits[1] = (char)('0' + status / 10 % 10);
    digits[2] = (char)('0' + status % 10);
    if (e->text == NULL) {
        add_nv(e, SV(":status"), sv_of(digits, 3));
        return;
    }
    buf_add(e->text, line, sizeof(line) - 1);
    buf_add_sv(e->text, reason);
    buf_add(e->text, "\r\n", 2);
}

bool proxy_emit_end(struct proxy_emit *e)
{
    if (e->text != NULL) {
        buf_add(e->text, "\r\n", 2);
        e->failed = e->failed || e->text->err != ERR_OK;
    }
    return !e->failed;
}

void proxy_fields_add(struct proxy_fields *fields, struct sv name, struct sv value)
{
    CHECK(fields->n < PROXY_FIELDS_MAX); /* our own code adds them, a handful */
    fields->v[fields->n++] = (struct config_pair){ .name = name, .value = value };
}

void proxy_fields_add_page(struct proxy_fields *fields, struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf csp = { 0 };
    size_t n = 0;
    const struct http_page_header *fixed = http_page_headers(&n);

    buf_init(&csp, CSP_MAX);
    http_page_csp(&csp, NULL, 0);
    proxy_fields_add(fields, SV("Content-Security-Policy"), arena_sv(arena, buf_sv(&csp)));
    for (size_t i = 0; i < n; i++) {
        proxy_fields_add(fields, sv_from(fixed[i].name), sv_from(fixed[i].value));
    }
}
