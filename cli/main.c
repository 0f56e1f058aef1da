/* postern: the command line. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "common/service.h"

static const struct cli_command commands[] = {
    { "up", "run all parts and a demo app on this machine", cli_up_main },
    { "init", "make the folder of the trial and stop, for containers", cli_init_main },
    { "validate", "check a configuration file", cli_validate_main },
    { "policy", "test policies on cases of your own, compare two configurations", cli_policy_main },
    { "explain", "say why a request was allowed or denied", cli_explain_main },
    { "sessions", "list, show and revoke sessions", cli_sessions_main },
    { "users", "revoke all sessions of a user", cli_users_main },
    { "import", "bring in external data that policies may ask for", cli_import_main },
    { "whoami", "ask a proxy who you are to it, and how it found your address", cli_whoami_main },
    { "tcp", "reach a TCP service through a tunnel", cli_tcp_main },
    { "audit", "verify the chain of audit lines", cli_audit_main },
    { "token", "make, list, revoke tokens: service accounts, clients of the databroker",
      cli_token_main },
    { "databroker", "look after the store: back up, restore, rotate keys", cli_databroker_main },
    { "ca", "print the certificate authority between the parts", cli_ca_main },
    { "hash-password", "hash a password for the users file", cli_hash_main },
    { "healthcheck", "ask a part whether it is ready", cli_healthcheck_main },
    { "demo-app", "run the demo app alone", cli_demo_main },
    { "docs", NULL, cli_docs_main }, /* for those who build it */
};

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
