/* Response heads: cut anywhere, same result; written again, same message; a body's end is told. */
#include "common/buf.h"
#include "common/http/head.h"
#include "common/mem.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS = 40 };

static const enum http_method methods[] = { HTTP_GET, HTTP_HEAD, HTTP_CONNECT, HTTP_POST };

static void check_same(const struct http_head *a, const struct http_head *b)
{
    uint32_t i = 0;

    must(a->fault == b->fault && a->n == b->n && a->status == b->status);
    must(sv_eq(a->reason, b->reason) && a->minor == b->minor);
    must(a->framing == b->framing && a->content_length == b->content_length);
    must(a->keep_alive == b->keep_alive && a->upgrade == b->upgrade);
    for (i = 0; i < a->n; i++) {
        must_be_same_field(&a->fields[i], &b->fields[i]);
    }
}

static void check_cut(struct sv bytes, size_t cut, const struct http_head *whole,
                      enum http_step want)
{
    struct http_field fields[FIELDS];
    struct http_head head;
    char *front = cut == 0 ? NULL : mem_dup(bytes.p, cut);
    enum http_step step = HTTP_MORE;

    http_head_init_response(&head, NULL, whole->request_method, fields, ARRAY_LEN(fields));
    step = http_head_parse(&head, sv_of(front, cut));
    if (step == HTTP_MORE) {
        mem_free(&front);
        step = http_head_parse(&head, bytes);
    }
    must(step == want && head.fault == whole->fault);
    if (step == HTTP_DONE) {
        must(head.size == whole->size);
        check_same(&head, whole);
    }
    mem_free(&front);
}

static void check_message(const struct http_head *head)
{
    bool bodyless = head->status < 200 || head->status == 204 || head->status == 304 ||
                    head->request_method == HTTP_HEAD;

    must(head->status >= 100 && head->status <= 599);
    must(!bodyless || head->framing == HTTP_BODY_NONE);
    must(head->framing != HTTP_BODY_UNTIL_CLOSE || !head->keep_alive);
    must(head->framing != HTTP_BODY_CHUNKED || head->minor == 1);
}

static void check_written_again(const struct http_head *head)
{
    struct http_field fields[FIELDS];
    struct http_head again;
    struct buf text;
    uint32_t i = 0;

    buf_init(&text, 1 << 20);
    buf_printf(&text, "HTTP/1.%u %u ", head->minor, head->status);
    buf_add_sv(&text, head->reason);
    buf_add_str(&text, "\r\n");
    for (i = 0; i < head->n; i++) {
        buf_add_sv(&text, head->fields[i].name);
        buf_add_str(&text, ": ");
        buf_add_sv(&text, head->fields[i].value);
        buf_add_str(&text, "\r\n");
    }
    buf_add_str(&text, "\r\n");
    http_head_init_response(&again, NULL, head->request_method, fields, ARRAY_LEN(fields));
    must(http_head_parse(&again, buf_sv(&text)) == HTTP_DONE);
    check_same(&again, head);
    buf_deinit(&text);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_field fields[FIELDS];
    struct http_head head;
    enum http_step step = HTTP_MORE;
    struct sv bytes = { 0 };
    size_t cut = 0;

    if (size < 2) {
        return 0;
    }
    bytes = sv_of(data + 1, size - 1);
    http_head_init_response(&head, NULL, methods[data[0] % ARRAY_LEN(methods)], fields,
                            ARRAY_LEN(fields));
    step = http_head_parse(&head, bytes);
    for (cut = bytes.n < 200 ? 0 : data[0]; cut <= bytes.n; cut += bytes.n < 200 ? 1 : 97) {
        check_cut(bytes, cut, &head, step);
    }
    if (step == HTTP_DONE) {
        check_message(&head);
        check_written_again(&head);
    }
    return 0;
}
