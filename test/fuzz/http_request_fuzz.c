/* Request heads and paths. Properties: every way of cutting the input gives the same result, from
 * buffers that move; a head that is written out again parses to the same; the canonical form of a
 * canonical form is itself; what is forwarded parses to the request the policy judged. */
#include <string.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/http/accept.h"
#include "common/http/canon.h"
#include "common/mem.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS = 40 };

static void check_same(const struct http_head *a, const struct http_head *b)
{
    uint32_t i = 0;

    must(a->fault == b->fault && a->n == b->n);
    must(sv_eq(a->method_text, b->method_text) && sv_eq(a->target, b->target));
    must(sv_eq(a->host, b->host) && a->form == b->form && a->minor == b->minor);
    must(a->framing == b->framing && a->content_length == b->content_length);
    must(a->keep_alive == b->keep_alive && a->websocket == b->websocket);
    for (i = 0; i < a->n; i++) {
        must_be_same_field(&a->fields[i], &b->fields[i]);
    }
}

static void check_cut(struct sv bytes, size_t cut, const struct http_rules *rules,
                      const struct http_head *whole, enum http_step want)
{
    struct http_field fields[FIELDS];
    struct http_head head;
    enum http_step step = HTTP_MORE;
    char *front = cut == 0 ? NULL : mem_dup(bytes.p, cut);
    char *all = mem_dup(bytes.p, bytes.n);

    http_head_init(&head, HTTP_REQUEST, rules, fields, ARRAY_LEN(fields));
    step = http_head_parse(&head, sv_of(front, cut));
    if (step == HTTP_MORE) {
        mem_free(&front);
        step = http_head_parse(&head, sv_of(all, bytes.n));
    }
    must(step == want);
    must(head.fault == whole->fault);
    if (step == HTTP_DONE) {
        must(head.size == whole->size);
        check_same(&head, whole);
    }
    mem_free(&front);
    mem_free(&all);
}

static void check_bytewise(struct sv bytes, const struct http_rules *rules,
                           const struct http_head *whole, enum http_step want)
{
    struct http_field fields[FIELDS];
    struct http_head head;
    enum http_step step = HTTP_MORE;
    size_t i = 0;

    http_head_init(&head, HTTP_REQUEST, rules, fields, ARRAY_LEN(fields));
    for (i = 0; i <= bytes.n && step == HTTP_MORE; i++) {
        step = http_head_parse(&head, sv_head(bytes, i));
    }
    must(step == want && head.fault == whole->fault);
}

static void check_written_again(const struct http_head *head, const struct http_rules *rules)
{
    struct http_field fields[FIELDS];
    struct http_head again;
    struct buf text;
    uint32_t i = 0;

    buf_init(&text, 1 << 20);
    buf_add_sv(&text, head->method_text);
    buf_add_char(&text, ' ');
    buf_add_sv(&text, head->target);
    buf_add_str(&text, head->minor == 0 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n");
    for (i = 0; i < head->n; i++) {
        buf_add_sv(&text, head->fields[i].name);
        buf_add_str(&text, ": ");
        buf_add_sv(&text, head->fields[i].value);
        buf_add_str(&text, "\r\n");
    }
    buf_add_str(&text, "\r\n");
    http_head_init(&again, HTTP_REQUEST, rules, fields, ARRAY_LEN(fields));
    must(http_head_parse(&again, buf_sv(&text)) == HTTP_DONE);
    must(again.size == text.n);
    for (i = 0; i < again.n; i++) {
        must((again.fields[i].flags & HTTP_F_LINE) != 0);
    }
    check_same(&again, head);
    buf_deinit(&text);
}

static void check_path(struct sv raw, const struct http_canon_rules *rules)
{
    struct arena arena;
    struct sv path = { 0 };
    struct sv again = { 0 };
    bool unescaped = true;

    arena_init(&arena);
    if (http_canon_path(raw, rules, &arena, &path, NULL) == HTTP_FAULT_NONE) {
        struct sv decoded = http_canon_decode(path, &arena);

        must(path.n > 0 && path.p[0] == '/');
        must(http_canon_path(path, rules, &arena, &again, &unescaped) == HTTP_FAULT_NONE);
        must(sv_eq(path, again) && !unescaped);
        must(http_canon_encoded_len(path, decoded.n) == path.n);
        must(sv_search(path, SV("/../")) == SIZE_MAX && sv_search(path, SV("/./")) == SIZE_MAX);
        must(rules->keep_double_slashes || sv_search(path, SV("//")) == SIZE_MAX);
        must(sv_find(decoded, '\0') == SIZE_MAX && sv_find(decoded, '\n') == SIZE_MAX);
        must(rules->keep_invalid_utf8 || sv_is_utf8(decoded));
    }
    arena_deinit(&arena);
}

static void check_forwarded(const struct http_head *head, const struct http_canon_rules *rules)
{
    struct http_field fields[2];
    struct http_head head2;
    struct http_request req;
    struct http_request req2;
    struct arena arena;
    struct buf text;

    arena_init(&arena);
    buf_init(&text, 1 << 20);
    if (http_canon_request(head, rules, &arena, &req) == HTTP_FAULT_NONE) {
        buf_add_sv(&text, req.method_text);
        buf_add_char(&text, ' ');
        buf_add_sv(&text, req.forward);
        buf_add_str(&text, " HTTP/1.1\r\nHost:");
        buf_add_sv(&text, req.authority);
        buf_add_str(&text, "\r\n\r\n");
        http_head_init(&head2, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
        must(http_head_parse(&head2, buf_sv(&text)) == HTTP_DONE);
        must(http_canon_request(&head2, rules, &arena, &req2) == HTTP_FAULT_NONE);
        must(!req2.changed && !req2.redirect);
        must(sv_eq(req.forward, req2.forward) && sv_eq(req.path, req2.path));
        must(sv_eq(req.query, req2.query) && req.has_query == req2.has_query);
        must(sv_eq(req.decoded, req2.decoded) && sv_eq(req.host, req2.host));
        must(sv_eq(req.authority, req2.authority) && req.port == req2.port);
    }
    buf_deinit(&text);
    arena_deinit(&arena);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_field fields[FIELDS];
    struct http_rules rules = { 0 };
    struct http_canon_rules canon = { 0 };
    struct http_head head;
    enum http_step step = HTTP_MORE;
    struct sv bytes = { 0 };

    if (size < 3) {
        return 0;
    }
    rules.underscores = (enum http_underscores)(data[0] % 3);
    rules.head_bytes = (data[0] & 0x80U) != 0 ? 128 : 0;
    rules.line_bytes = (data[0] & 0x40U) != 0 ? 40 : 0;
    rules.fields = (data[0] & 0x20U) != 0 ? 4 : 0;
    canon.escaped_slashes = (enum http_escaped_slashes)(data[1] & 3U);
    canon.keep_dot_segments = (data[1] & 4U) != 0;
    canon.keep_double_slashes = (data[1] & 8U) != 0;
    canon.keep_double_encoding = (data[1] & 16U) != 0;
    canon.keep_invalid_utf8 = (data[1] & 32U) != 0;
    bytes = sv_of(data + 2, size - 2);
    check_path(bytes, &canon);
    http_head_init(&head, HTTP_REQUEST, &rules, fields, ARRAY_LEN(fields));
    step = http_head_parse(&head, bytes);
    check_cut(bytes, ((size_t)data[0] * 257 + data[1]) % (bytes.n + 1), &rules, &head, step);
    if (bytes.n < 300) {
        check_bytewise(bytes, &rules, &head, step);
    }
    if (step == HTTP_DONE) {
        (void)http_accept_client(&head);
        (void)http_accept_media(&head);
        if (rules.head_bytes == 0) {
            check_written_again(&head, &rules);
        }
        check_forwarded(&head, &canon);
    }
    return 0;
}
