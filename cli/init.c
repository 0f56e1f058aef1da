/* postern init: the folder of the trial, made and left alone: for containers, where each part starts by
 * itself. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/file.h"
#include "cli/trial.h"
#include "common/mem.h"

static const char help[] =
    "usage: postern init [--dir run] [--upstream URL]\n\n"
    "Makes keys, certificates, accounts and a configuration where they are missing, and prints the\n"
    "accounts.\n"
    "  --dir        the folder\n"
    "  --upstream   the application behind the trial's routes (a socket in the folder)\n";

enum { ACCOUNTS_MAX = 4096 };

static int init(const char *folder, const char *upstream)
{
    struct cli_trial t = { .upstream = { 0 } };
    struct diag d = { .line = 0 };
    char path[TRIAL_PATH];
    char *accounts = NULL;

    (void)snprintf(t.upstream, sizeof(t.upstream), "%s", upstream);
    if (cli_trial_prepare(&t, folder, &d) != ERR_OK) {
        return cli_fail(1, "%s", d.text);
    }
    if (cli_file_read(cli_trial_path(&t, "accounts.txt", path), ACCOUNTS_MAX, &accounts, NULL) ==
        ERR_OK) {
        (void)printf("Accounts (e-mail, password):\n%s\n", accounts);
        mem_free(&accounts);
    }
    (void)printf("Configuration: %s/config.yaml\nCertificate authority: %s/ca.pem\n", t.folder,
                 t.folder);
    return 0;
}

int cli_init_main(int argc, char **argv)
{
    static const struct option options[] = { { "dir", required_argument, NULL, 'd' },
                                             { "upstream", required_argument, NULL, 'u' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    const char *folder = "run";
    const char *upstream = "";
    int option = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            folder = optarg;
            break;
        case 'u':
            upstream = optarg;
            break;
        default:
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || strlen(upstream) >= TRIAL_PATH || strpbrk(upstream, " \n#'\"") != NULL) {
        (void)fputs(help, stderr);
        return 2;
    }
    return init(folder, upstream);
}
