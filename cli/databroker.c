/* postern databroker rotate-keys: what an operator does to the store. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "maintenance.pb-c.h"

#include "cli/broker.h"
#include "cli/command.h"

enum { ROTATE_MS = 30000 };

static const char help[] =
    "usage: postern databroker rotate-keys\n\n"
    "rotate-keys  makes a new key for data at rest; what is there is sealed with it by and by, while\n"
    "             everything runs, and the keys before are dropped when nothing needs them\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n"
    "  --databroker TARGET unix:/path or host:port\n";

static int rotate_keys(struct cli_broker *b)
{
    Postern__RotateKeysRequest request = POSTERN__ROTATE_KEYS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;

    if (!cli_broker_open(b)) {
        return 1;
    }
    answer = cli_broker_call(b, "/postern.Maintenance/RotateKeys", &request.base,
                             &postern__rotate_keys_response__descriptor, ROTATE_MS);
    if (answer == NULL) {
        return 1;
    }
    (void)printf("new records are sealed with key %s; what is there will be, by and by\n",
                 cli_tame(((Postern__RotateKeysResponse *)(void *)answer)->key_id));
    protobuf_c_message_free_unpacked(answer, NULL);
    return 0;
}

int cli_databroker_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS, { 0 } };
    struct cli_broker b = { .config = NULL };
    int option = 0;
    int code = 2;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind == 1 && strcmp(argv[optind], "rotate-keys") == 0) {
        code = rotate_keys(&b);
    } else {
        (void)fputs(help, stderr);
    }
    cli_broker_close(&b);
    return code;
}
