/* What Microsoft Graph answers: groups are ids without control bytes, and a next page is Graph's own. */
#include <string.h>

#include "authenticate/graph.h"
#include "common/crypto/jose.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_ids(json_t *seen)
{
    for (void *it = json_object_iter(seen); it != NULL; it = json_object_iter_next(seen, it)) {
        const char *id = json_object_iter_key(it);

        CHECK(id[0] != '\0' && sv_is_plain(sv_from(id)));
    }
}

static void check(const json_t *page)
{
    struct sv url = SV("https://graph.test");
    struct sv next = SV("");
    json_t *seen = json_object();

    if (authn_graph_page(page, url, seen, &next) == ERR_OK) {
        CHECK(next.n == 0 || sv_starts(next, SV("https://graph.test/v1.0/")));
        check_ids(seen);
    }
    json_decref(seen);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *page = NULL;

    if (jose_object_parse(sv_of(data, size), FETCH_BODY_MAX, &page) == ERR_OK) {
        check(page);
        json_decref(page);
    }
    return 0;
}
