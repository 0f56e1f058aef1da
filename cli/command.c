#include "cli/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/diag.h"
#include "common/policy/central.h"
#include "common/policy/policy.h"

int cli_fail(int code, const char *fmt, ...)
{
    va_list ap;

    (void)fputs("postern: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    return code;
}

char *cli_tame(char *text)
{
    for (char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        if (c < ' ' || c == 0x7f) {
            *p = '?';
        } else if (c == 0xc2 && (unsigned char)p[1] >= 0x80 && (unsigned char)p[1] < 0xa0) {
            p[0] = '?';
            p[1] = '?';
        }
    }
    return text;
}

struct config *cli_config(const char *file)
{
    struct config_opts opts = { .part = CONFIG_PART_NONE, .env = (const char *const *)environ };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (file == NULL) {
        file = getenv("POSTERN_CONFIG"); /* NOLINT(concurrency-mt-unsafe): before any thread */
    }
    opts.file = file == NULL ? "run/config.yaml" : file;
    if (config_load(&opts, &config, &errors) == ERR_OK) {
        return config;
    }
    cli_errors_tell(errors);
    config_errors_free(&errors);
    return NULL;
}

void cli_errors_tell(const struct config_errors *errors)
{
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        (void)fprintf(stderr, "%s\n", config_errors_text(errors, i));
    }
}

/* Prints the mistake; 1 if there is one. */
static size_t tell_mistake(enum err err, const struct diag *d)
{
    char line[DIAG_LINE];

    if (err != ERR_OK) {
        (void)fprintf(stderr, "%s\n", diag_format(d, line));
    }
    return err == ERR_OK ? 0 : 1;
}

struct cli_mistakes cli_policies_tell(const struct config *config)
{
    struct policy_central *central = policy_central_new(config->policies, config->policies_doc);
    const struct policy_source base = { .central = central,
                                        .mtls_default_deny = config_mtls_default_deny(config) };
    struct cli_mistakes n = { .closing = 0 };

    for (size_t i = 0; i < policy_central_count(central); i++) {
        const struct policy_central_item *item = policy_central_at(central, i);

        n.closing += tell_mistake(item->rules.fault != POLICY_FAULT_NONE ? ERR_INVALID : ERR_OK,
                                  &item->rules.why);
        n.shadow += tell_mistake(item->shadow.fault != POLICY_FAULT_NONE ? ERR_INVALID : ERR_OK,
                                 &item->shadow.why);
    }
    for (size_t i = 0; i < config->n_routes; i++) {
        const struct config_route *route = &config->routes[i];
        struct policy *policy = NULL;
        struct diag d = { .line = 0 };
        enum err err = policy_compile_route(route->json, route->doc, &base, &policy, NULL, &d);

        n.closing += tell_mistake(err, &d);
        policy_unref(&policy);
        d = (struct diag){ .line = 0 };
        err = policy_compile_shadow(route->json, route->doc, &base, &policy, NULL, &d);
        n.shadow += tell_mistake(err, &d);
        policy_unref(&policy);
    }
    policy_central_unref(&central);
    return n;
}

enum err cli_duration(const char *text, int64_t *seconds_out)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    struct sv s = sv_from(text);
    uint64_t n = 0;
    size_t i = 0;

    for (i = 0; s.n > 1 && i < ARRAY_LEN(units); i++) {
        if (s.p[s.n - 1] == units[i].unit && sv_u64(sv_head(s, s.n - 1), 1000000, &n) == ERR_OK &&
            n > 0) {
            *seconds_out = (int64_t)(n * units[i].seconds);
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}
