/* The chunked decoder: pieces of any size give the same bytes and the same end; what it took,
 * encoded again, decodes to the same. */
#include "common/buf.h"
#include "common/http/chunked.h"
#include "common/mem.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    enum http_step step;
    enum http_fault fault;
    size_t consumed;
    uint32_t trailers;
};

static struct result decode(struct sv text, size_t piece, struct buf *body)
{
    struct http_field trailers[8];
    struct http_chunked_opts opts = {
        .trailers = trailers, .cap = ARRAY_LEN(trailers), .trailer_bytes = 200, .max_bytes = 1 << 20
    };
    struct http_chunked c;
    struct result r = { .step = HTTP_MORE };
    size_t start = 0;
    size_t end = 0;

    http_chunked_init(&c, &opts);
    do {
        struct sv in = { 0 };
        struct sv part = { 0 };
        char *copy = NULL;

        end = MIN(end + piece, text.n);
        copy = mem_dup(text.p + start, end - start);
        in = sv_of(copy, end - start);
        do {
            r.step = http_chunked_next(&c, &in, &part);
            if (r.step == HTTP_DATA) {
                must(part.n > 0);
                buf_add_sv(body, part);
            }
        } while (r.step == HTTP_DATA);
        start = end - in.n;
        mem_free(&copy);
    } while (r.step == HTTP_MORE && end < text.n);
    must(c.total == body->n && (r.step == HTTP_ERROR) == (c.fault != HTTP_FAULT_NONE));
    r.fault = c.fault;
    r.consumed = start;
    r.trailers = c.trailer.n;
    return r;
}

static void check_encoded_again(const struct buf *body)
{
    char line[HTTP_CHUNK_HEAD_SIZE];
    struct result r = { 0 };
    struct buf text;
    struct buf out;

    buf_init(&text, 1 << 22);
    buf_init(&out, 1 << 21);
    if (body->n > 0) {
        buf_add_sv(&text, http_chunk_head(line, body->n));
        buf_add_sv(&text, buf_sv(body));
        buf_add_str(&text, "\r\n");
    }
    buf_add_sv(&text, HTTP_CHUNK_LAST);
    r = decode(buf_sv(&text), text.n, &out);
    must(r.step == HTTP_DONE && r.consumed == text.n);
    must(sv_eq(buf_sv(&out), buf_sv(body)));
    buf_deinit(&text);
    buf_deinit(&out);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole_body;
    struct buf body;
    struct result whole = { 0 };
    size_t piece = 0;

    if (size < 1) {
        return 0;
    }
    buf_init(&whole_body, 1 << 21);
    buf_init(&body, 1 << 21);
    whole = decode(sv_of(data, size), size, &whole_body);
    for (piece = 1; piece < size; piece = piece * 2 + 1) {
        struct result r = { 0 };

        buf_reset(&body);
        r = decode(sv_of(data, size), piece, &body);
        must(r.step == whole.step && r.fault == whole.fault);
        must(sv_eq(buf_sv(&body), buf_sv(&whole_body)));
        if (r.step == HTTP_DONE) {
            must(r.consumed == whole.consumed && r.trailers == whole.trailers);
        }
    }
    if (whole.step == HTTP_DONE) {
        check_encoded_again(&whole_body);
    }
    buf_deinit(&whole_body);
    buf_deinit(&body);
    return 0;
}
