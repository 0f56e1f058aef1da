/* Two configurations from a stranger, one after the other: the second is what it is without the first. The
 * texts are divided by a NUL. */
#include <stdint.h>
#include <string.h>

#include "common/config/config.h"
#include "test/support/config_same.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const env[] = { "SHARED_SECRET=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
                                   "INSECURE_SERVER=true",
                                   "AUTHENTICATE_SERVICE_URL=https://login.localhost", NULL };

static void compare(struct sv text, const struct config *before)
{
    struct config_opts opts = { .file = "/x/c.yaml", .part = CONFIG_PART_AUTHORIZE, .env = env };
    struct config *whole = NULL;
    struct config *next = NULL;
    struct config_errors *whole_errors = NULL;
    struct config_errors *next_errors = NULL;
    enum err err = config_parse(text, &opts, &whole, &whole_errors);

    opts.previous = before;
    CHECK(config_parse(text, &opts, &next, &next_errors) == err);
    CHECK(config_outcome_same(next, next_errors, whole, whole_errors));
    config_errors_free(&whole_errors);
    config_errors_free(&next_errors);
    config_unref(&whole);
    config_unref(&next);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_opts opts = { .file = "/x/c.yaml", .part = CONFIG_PART_AUTHORIZE, .env = env };
    struct sv second = sv_of(data, size);
    struct sv first = sv_cut(&second, '\0');
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (size > 65536 || memmem(data, size, "_file", 5) != NULL) {
        return 0; /* no opening of files that the fuzzer names */
    }
    if (config_parse(first, &opts, &config, &errors) == ERR_OK) {
        compare(second, config);
    }
    config_errors_free(&errors);
    config_unref(&config);
    return 0;
}
