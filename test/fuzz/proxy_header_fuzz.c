/* The PROXY header of a connection. Splitting it anywhere must give the same result, and a header
 * must end where it says. */
#include <string.h>

#include "common/http/proxy_header.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_proxy_header whole = { 0 };
    struct http_proxy_header part = { 0 };
    enum http_step step = http_proxy_header_parse(sv_of(data, size), &whole);
    size_t n = 0;

    for (n = 0; n <= MIN(size, (size_t)256); n++) {
        enum http_step early = http_proxy_header_parse(sv_of(data, n), &part);

        must(early == HTTP_MORE || early == HTTP_DONE || early == HTTP_ERROR);
        if (early != HTTP_MORE) { /* more bytes change nothing any more */
            must(early == step);
            break;
        }
    }
    if (step == HTTP_DONE) {
        must(whole.size != 0 && whole.size <= size && whole.size <= HTTP_PROXY_HEADER_MAX);
        must(whole.version == 1 || whole.version == 2);
        must(http_proxy_header_parse(sv_of(data, whole.size - 1), &part) == HTTP_MORE);
        must(http_proxy_header_parse(sv_of(data, whole.size), &part) == HTTP_DONE);
        must(whole.size == part.size && whole.source == part.source && whole.port == part.port);
        must(memcmp(whole.address, part.address, sizeof(whole.address)) == 0);
    }
    return 0;
}
