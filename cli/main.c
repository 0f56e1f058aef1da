/* postern: the command line. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "common/service.h"

static const struct cli_command commands[] = {
    { "up", "run all parts and a demo app on this machine", cli_up_main },
    { "validate", "check a configuration file", cli_validate_main },
    { "policy", "test policies on cases of your own", cli_policy_main },
    { "sessions", "list, show and revoke sessions", cli_sessions_main },
    { "users", "revoke all sessions of a user", cli_users_main },
    { "token", "make a token for a client of the databroker", cli_token_main },
    { "ca", "print the certificate authority between the parts", cli_ca_main },
    { "hash-password", "hash a password for the users file", cli_hash_main },
    { "healthcheck", "ask a part whether it is ready", cli_healthcheck_main },
    { "demo-app", "run the demo app alone", cli_demo_main },
    { "docs", NULL, cli_docs_main }, /* for those who build it */
};

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

struct config *cli_config(const char *file)
{
    struct config_opts opts = { .part = CONFIG_PART_NONE, .env = (const char *const *)environ };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    size_t i = 0;

    if (file == NULL) {
        file = getenv("POSTERN_CONFIG"); /* NOLINT(concurrency-mt-unsafe): before any thread */
    }
    opts.file = file == NULL ? "run/config.yaml" : file;
    if (config_load(&opts, &config, &errors) == ERR_OK) {
        return config;
    }
    for (i = 0; i < config_errors_count(errors); i++) {
        (void)fprintf(stderr, "%s\n", config_errors_text(errors, i));
    }
    config_errors_free(&errors);
    return NULL;
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

static void help(FILE *out)
{
    size_t i = 0;

    (void)fprintf(out, "usage: postern COMMAND [options]\n\n");
    for (i = 0; i < ARRAY_LEN(commands); i++) {
        if (commands[i].summary != NULL) {
            (void)fprintf(out, "  %-14s %s\n", commands[i].name, commands[i].summary);
        }
    }
    (void)fprintf(
        out, "\npostern COMMAND --help tells more. The configuration is run/config.yaml, or the "
             "file that\nPOSTERN_CONFIG or --config names.\n");
}

int main(int argc, char **argv)
{
    size_t i = 0;

    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("postern %s\n", service_version);
        return 0;
    }
    for (i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].main(argc - 1, argv + 1);
        }
    }
    (void)cli_fail(2, "there is no command '%s'", argv[1]);
    help(stderr);
    return 2;
}
