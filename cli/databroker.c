/* postern databroker backup|restore|rotate-keys: what an operator does to the store. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "maintenance.pb-c.h"

#include "cli/backup.h"
#include "cli/broker.h"
#include "cli/command.h"

enum { ROTATE_MS = 30000 };

static const char help[] =
    "usage: postern databroker backup FILE\n"
    "       postern databroker restore [--keep-sessions] FILE\n"
    "       postern databroker rotate-keys\n\n"
    "backup       copies the databroker's file as it is at one moment, while everything runs (a store in\n"
    "             PostgreSQL: pg_dump and pg_restore, see docs/postgresql.md)\n"
    "restore      checks a backup and puts it in the place of the store, which is kept beside it as\n"
    "             STORE.before-restore; the databroker must not run. Sessions are not restored: some may\n"
    "             have been revoked since the backup; --keep-sessions restores them all\n"
    "rotate-keys  makes a new key for data at rest; what is there is sealed with it by and by, while\n"
    "             everything runs, and the keys before are dropped when nothing needs them\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n"
    "  --databroker TARGET unix:/path or host:port, for rotate-keys\n";

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

/* The file of the store; NULL: it was said why there is none. */
static const char *store_file(struct cli_broker *b)
{
    b->config = cli_config(b->config_file);
    if (b->config == NULL) {
        return NULL;
    }
    if (b->config->databroker_storage_type != CONFIG_STORAGE_SQLITE) {
        (void)cli_fail(1,
                       "databroker_storage_type is not sqlite: the store is no file; PostgreSQL is "
                       "backed up with pg_dump and pg_restore, see docs/postgresql.md");
        return NULL;
    }
    return b->config->databroker_storage_file.p;
}

static int backup(struct cli_broker *b, const char *file)
{
    const char *store = store_file(b);
    struct diag d = { .text = "" };
    int64_t records = 0;

    if (store == NULL) {
        return 1;
    }
    if (cli_backup(store, file, &records, &d) != ERR_OK) {
        return cli_fail(1, "no backup was made: %s", d.text);
    }
    (void)printf("%s holds %" PRId64 " records\n", file, records);
    return 0;
}

static int restore(struct cli_broker *b, const char *file, bool keep_sessions)
{
    const char *store = store_file(b);
    struct diag d = { .text = "" };
    int64_t records = 0;

    if (store == NULL) {
        return 1;
    }
    if (cli_restore(store, file, !keep_sessions, &records, &d) != ERR_OK) {
        return cli_fail(1, "nothing was restored: %s", d.text);
    }
    (void)printf("%s holds %" PRId64 " records%s; what was there is %s.before-restore\n", store,
                 records, keep_sessions ? "" : " and no sessions", store);
    (void)printf(
        "service accounts and tokens that were revoked since the backup are back: see postern token "
        "list; tokens end by themselves, or are revoked again\n");
    return 0;
}

struct order {
    bool keep_sessions;
    const char *what;
    const char *file; /* NULL: none was given */
};

static int run(struct cli_broker *b, const struct order *o)
{
    if (o->file == NULL && strcmp(o->what, "rotate-keys") == 0) {
        return rotate_keys(b);
    }
    if (o->file != NULL && strcmp(o->what, "backup") == 0) {
        return backup(b, o->file);
    }
    if (o->file != NULL && strcmp(o->what, "restore") == 0) {
        return restore(b, o->file, o->keep_sessions);
    }
    (void)fputs(help, stderr);
    return 2;
}

int cli_databroker_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "keep-sessions", no_argument, NULL, 'k' },
                                             { 0 } };
    struct cli_broker b = { .config = NULL };
    struct order o = { .what = "" };
    int option = 0;
    int code = 2;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'k') {
            o.keep_sessions = true;
        } else if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind == 1 || argc - optind == 2) {
        o.what = argv[optind];
        o.file = argc - optind == 2 ? argv[optind + 1] : NULL;
    }
    code = run(&b, &o);
    cli_broker_close(&b);
    return code;
}
