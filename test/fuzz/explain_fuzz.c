/* An explanation as it comes from a server, written for a terminal. */
#include <stddef.h>
#include <stdint.h>

#include "cli/explain.h"
#include "common/buf.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(buf_deinit) struct buf text;
    json_t *tree =
        json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

    buf_init(&text, 1 << 24);
    cli_explain_text(tree, INT64_C(1777636800000), &text);
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        CHECK(c == '\n' || (c >= ' ' && c != 0x7f));
    }
    json_decref(tree);
    return 0;
}
