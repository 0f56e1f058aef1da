/* postern validate: what is wrong with a configuration, and what should be seen to. */
#include <getopt.h>
#include <stdio.h>

#include "cli/advice.h"
#include "cli/command.h"
#include "common/clock.h"

static const char help[] =
    "usage: postern validate [--strict] [--users FILE | --directory] [FILE]\n\n"
    "Checks a configuration and its policies; prints each mistake with file, line and column.\n"
    "Also says what is no mistake but should be seen to: routes that no request reaches, rules\n"
    "that can never hold or change nothing, routes that nobody may enter, groups that nobody is\n"
    "in, certificates that end soon, hosts without one, upstreams that nobody verifies.\n\n"
    "  --strict       exit code 1 also where there is only something to be seen to\n"
    "  --users FILE   who is in which group: a users file (that of idp_local_users_file)\n"
    "  --directory    ask the running databroker for that\n\n"
    "Exit code: 0 fine, 1 mistakes, 2 used wrongly.\n";

struct choice {
    bool strict;
    bool directory;
    const char *users;
    const char *file;
};

static void print_advice(const char *sentence, void *arg)
{
    size_t *n = arg;

    (*n)++;
    (void)printf("%s\n", sentence);
}

/* False: who is in which group cannot be had. */
static bool advise_groups(const struct config *config, const struct choice *choice, size_t *advice)
{
    struct cli_broker broker = { .config_file = choice->file };
    const char *users = choice->users;
    bool fine = true;

    if (choice->directory) {
        fine = cli_broker_open(&broker) &&
               cli_advise_groups(config, NULL, &broker, print_advice, advice);
        cli_broker_close(&broker);
        return fine;
    }
    if (users == NULL && config->idp_provider == CONFIG_IDP_LOCAL) {
        users = config->idp_local_users_file.p;
    }
    if (users != NULL) {
        fine = cli_advise_groups(config, users, NULL, print_advice, advice);
    }
    return fine || choice->users == NULL; /* the accounts may be for others' eyes only */
}

static int validate(const struct config *config, const struct choice *choice)
{
    size_t advice = 0;
    struct cli_mistakes mistakes;
    bool fine = true;

    config_advise(config, clock_wall_s(), print_advice, &advice);
    cli_advise_routes(config, print_advice, &advice);
    cli_advise_policies(config, print_advice, &advice);
    fine = advise_groups(config, choice, &advice);
    mistakes = cli_policies_tell(config);
    if (mistakes.closing > 0) {
        (void)fprintf(stderr, "%s: routes answer 503 for the %zu mistake%s above\n", config->file.p,
                      mistakes.closing, mistakes.closing == 1 ? "" : "s");
    }
    if (mistakes.shadow > 0) {
        (void)fprintf(stderr, "%s: %zu shadow polic%s not asked, for the mistakes above\n",
                      config->file.p, mistakes.shadow, mistakes.shadow == 1 ? "y is" : "ies are");
    }
    if (mistakes.closing + mistakes.shadow > 0 || !fine) {
        return 1;
    }
    (void)printf("%s: fine, %zu route%s", config->file.p, config->n_routes,
                 config->n_routes == 1 ? "" : "s");
    if (advice > 0) {
        (void)printf(", %zu thing%s to see to", advice, advice == 1 ? "" : "s");
    }
    (void)putchar('\n');
    return choice->strict && advice > 0 ? 1 : 0;
}

int cli_validate_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "strict", no_argument, NULL, 's' },    { "users", required_argument, NULL, 'u' },
        { "directory", no_argument, NULL, 'd' }, { "config", required_argument, NULL, 'c' },
        { "help", no_argument, NULL, 'h' },      { 0 }
    };
    struct choice choice = { .strict = false };
    struct config *config = NULL;
    int option = 0;
    int code = 1;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's') {
            choice.strict = true;
        } else if (option == 'd') {
            choice.directory = true;
        } else if (option == 'u') {
            choice.users = optarg;
        } else if (option == 'c') {
            choice.file = optarg;
        } else {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind > (choice.file == NULL ? 1 : 0) ||
        (choice.directory && choice.users != NULL)) {
        (void)fputs(help, stderr);
        return 2;
    }
    choice.file = optind < argc ? argv[optind] : choice.file;
    config = cli_config(choice.file);
    if (config != NULL) {
        code = validate(config, &choice);
    }
    config_unref(&config);
    return code;
}
