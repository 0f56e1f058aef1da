/* postern validate: what is wrong with a configuration, and what should be seen to. */
#include <getopt.h>
#include <stdio.h>

#include "cli/command.h"
#include "common/clock.h"

static const char help[] =
    "usage: postern validate [--strict] [FILE]\n\n"
    "Checks a configuration and its policies; prints each mistake with file, line and column.\n"
    "Also says what is no mistake but should be seen to: certificates that end soon, upstreams\n"
    "that nobody verifies, hosts without a certificate.\n\n"
    "  --strict   exit code 1 also where there is only something to be seen to\n\n"
    "Exit code: 0 fine, 1 mistakes, 2 used wrongly.\n";

static void print_advice(const char *sentence, void *arg)
{
    size_t *n = arg;

    (*n)++;
    (void)printf("%s\n", sentence);
}

static int validate(const struct config *config, bool strict)
{
    size_t advice = 0;
    struct cli_mistakes mistakes;

    config_advise(config, clock_wall_s(), print_advice, &advice);
    mistakes = cli_policies_tell(config);
    if (mistakes.closing > 0) {
        (void)fprintf(stderr, "%s: routes answer 503 for the %zu mistake%s above\n", config->file.p,
                      mistakes.closing, mistakes.closing == 1 ? "" : "s");
    }
    if (mistakes.shadow > 0) {
        (void)fprintf(stderr, "%s: %zu shadow polic%s not asked, for the mistakes above\n",
                      config->file.p, mistakes.shadow, mistakes.shadow == 1 ? "y is" : "ies are");
    }
    if (mistakes.closing + mistakes.shadow > 0) {
        return 1;
    }
    (void)printf("%s: fine, %zu route%s", config->file.p, config->n_routes,
                 config->n_routes == 1 ? "" : "s");
    if (advice > 0) {
        (void)printf(", %zu thing%s to see to", advice, advice == 1 ? "" : "s");
    }
    (void)putchar('\n');
    return strict && advice > 0 ? 1 : 0;
}

int cli_validate_main(int argc, char **argv)
{
    static const struct option options[] = { { "strict", no_argument, NULL, 's' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    struct config *config = NULL;
    bool strict = false;
    int option = 0;
    int code = 1;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 's') {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
        strict = true;
    }
    if (argc - optind > 1) {
        (void)fputs(help, stderr);
        return 2;
    }
    config = cli_config(optind < argc ? argv[optind] : NULL);
    if (config != NULL) {
        code = validate(config, strict);
    }
    config_unref(&config);
    return code;
}
