/* What foreign bytes become where people and programs read them: a log line stays one line of valid
 * JSON, a page gains no tag, a Set-Cookie line and a header of the CSP no end. */
#include <jansson.h>

#include "common/http/page.h"
#include "common/log.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_log(struct sv text)
{
    struct buf line;
    json_t *object = NULL;

    buf_init(&line, 1 << 16);
    log_open(&line, 1700000000000, SV("fuzz"));
    log_add_sv(&line, LOG_KEY("value"), text);
    log_close(&line);
    must(line.err == ERR_OK && sv_find(buf_sv(&line), '\n') == line.n - 1);
    object = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    must(json_is_string(json_object_get(object, "value")));
    json_decref(object);
    buf_deinit(&line);
}

static size_t count(struct sv text, char c)
{
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < text.n; i++) {
        n += text.p[i] == c ? 1 : 0;
    }
    return n;
}

static void add_page(struct buf *page, struct sv text)
{
    buf_init(page, 1 << 20);
    http_page_problem(page, &(struct http_page_problem){ .title = text,
                                                         .what = text,
                                                         .todo = text,
                                                         .code = text,
                                                         .request_id = text,
                                                         .link = SV("/"),
                                                         .link_text = text });
    http_page_facts_begin(page);
    http_page_fact(page, text, text);
    http_page_facts_end(page);
}

static void check_page(struct sv text)
{
    struct buf page;
    struct buf plain;

    add_page(&page, text);
    add_page(&plain, SV("x"));
    must(count(buf_sv(&page), '<') == count(buf_sv(&plain), '<'));
    must(count(buf_sv(&page), '"') == count(buf_sv(&plain), '"'));
    buf_deinit(&page);
    buf_deinit(&plain);
}

static void check_csp(struct sv text)
{
    struct buf csp;
    struct buf plain;

    buf_init(&csp, 1 << 20);
    buf_init(&plain, 1 << 20);
    http_page_csp(&csp, &text, 1);
    http_page_csp(&plain, NULL, 0);
    must(count(buf_sv(&csp), ';') == count(buf_sv(&plain), ';'));
    must(sv_find(buf_sv(&csp), '\n') == SIZE_MAX && sv_find(buf_sv(&csp), ',') == SIZE_MAX);
    buf_deinit(&csp);
    buf_deinit(&plain);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv text = sv_of(data, MIN(size, (size_t)4096));

    if (text.n != 0) {
        check_log(text);
        check_page(text);
        check_csp(text);
    }
    return 0;
}
