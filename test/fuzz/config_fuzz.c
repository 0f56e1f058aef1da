/* A configuration from a stranger: it is refused with reasons, or every route in it can be looked up. */
#include <stdint.h>
#include <string.h>

#include "common/config/config.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const env[] = { "SHARED_SECRET=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
                                   "INSECURE_SERVER=true",
                                   "AUTHENTICATE_SERVICE_URL=https://login.localhost", NULL };

static void check_refused(const struct config_errors *errors)
{
    CHECK(config_errors_count(errors) != 0);
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        CHECK(config_errors_text(errors, i)[0] != '\0');
    }
}

static void check_route(const struct config *config, const struct config_route *route)
{
    CHECK(route->id != 0 && config_route_by_id(config, route->id) == route);
    CHECK(route->host.n != 0 && route->action != CONFIG_ACTION_NONE);
    CHECK(route->match_value.n != 0 && config_route_has_host(route, route->host));
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_opts opts = { .file = "/x/c.yaml", .part = CONFIG_PART_DATABROKER, .env = env };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (size > 65536 || memmem(data, size, "_file", 5) != NULL) {
        return 0; /* no opening of files that the fuzzer names */
    }
    if (config_parse(sv_of(data, size), &opts, &config, &errors) != ERR_OK) {
        check_refused(errors);
        config_errors_free(&errors);
        return 0;
    }
    for (size_t i = 0; i < config->n_routes; i++) {
        check_route(config, &config->routes[i]);
    }
    config_unref(&config);
    return 0;
}
