/* postern import records: rows of a file become external data that policies may ask for. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/broker.h"
#include "cli/command.h"
#include "cli/file.h"
#include "cli/import_store.h"
#include "common/data/rows.h"

static const char help_text[] =
    "usage: postern import records FILE --type TYPE --key user_id|email|session_id [options]\n\n"
    "Makes the rows of FILE the external data of TYPE, such as acme.example/posture, for the criterion\n"
    "`record` of policies. All rows come into force at once, or none and what was there stays. Rows\n"
    "that FILE does not have any more end; nothing is written where nothing changed.\n\n"
    "  --key KEY       whom a row belongs to: a user id, an e-mail address or a session id\n"
    "  --id FIELD      the field that holds it (the name of the key)\n"
    "  --format FORMAT json: an array of objects; csv: a first line of names, `name:number` and\n"
    "                  `name:bool` for what is no text (what the end of FILE's name says)\n"
    "  --dry-run       only say what would change\n"
    "  --allow-empty   a FILE without rows ends all rows that are in force\n"
    "  --token-file FILE or $POSTERN_TOKEN   a token of role record-writer, with\n"
    "  --databroker TARGET and --ca-file FILE (postern ca); without one\n"
    "  --config FILE   configuration with the shared secret (run/config.yaml)\n\n"
    "Exit code: 0 done, 1 refused or failed, 2 used wrongly.\n";

enum { OPTION_DRY = 256, OPTION_EMPTY };

struct order {
    const char *file;
    const char *type;
    const char *key;
    const char *field;
    const char *format;
    bool is_dry;
    bool may_be_empty;
};

static void tell(const struct order *o, const struct data_counts *c)
{
    (void)printf("%s%s: %zu added, %zu changed, %zu removed, %zu unchanged\n",
                 o->is_dry ? "dry run: " : "", o->type, c->added, c->changed, c->removed, c->same);
    if (c->is_littered) {
        (void)fprintf(stderr,
                      "postern: the new rows are in force; old ones could not be cleared away, "
                      "the next import does that\n");
    }
}

struct work {
    const struct order *order;
    const struct data_rows *rows;
};

static int import_rows(const struct cli_broker *b, const char *lease, void *arg)
{
    const struct work *work = arg;
    const struct order *o = work->order;
    const struct data_rows *rows = work->rows;
    struct import_store broker = { .broker = b, .lease = lease };
    const struct data_store store = import_store_of(&broker);
    const struct data_change change = { .type = o->type,
                                        .key = data_key_parse(sv_from(o->key)),
                                        .rows = rows,
                                        .may_be_empty = o->may_be_empty,
                                        .is_dry = lease == NULL };
    struct data_counts counts = { .added = 0 };
    struct diag d = { .line = 0 };
    enum err err = data_set_apply(&store, &change, &counts, &d);

    if (err == ERR_DENIED) {
        return cli_fail(1, "%s has no rows, and %zu are in force: --allow-empty ends them", o->file,
                        counts.removed);
    }
    if (d.text[0] != '\0') {
        return cli_fail(1, "%s", d.text);
    }
    if (err != ERR_OK) {
        return lease == NULL
                   ? 1
                   : cli_fail(1,
                              "%s: what was in force before stays; if only the last answer was "
                              "lost, the new rows are, whole: import again to be sure",
                              o->type);
    }
    tell(o, &counts);
    return 0;
}

/* ---- the file --------------------------------------------------------------------------------- */

static bool format_of(const struct order *o, enum data_format *format_out)
{
    struct sv name = sv_from(o->format != NULL ? o->format : o->file);
    bool is_csv = o->format != NULL ? sv_eq(name, SV("csv")) : sv_ends(name, SV(".csv"));
    bool is_json = o->format != NULL ? sv_eq(name, SV("json")) : sv_ends(name, SV(".json"));

    *format_out = is_csv ? DATA_CSV : DATA_JSON;
    return is_csv || is_json;
}

static int order_check(const struct order *o)
{
    enum data_format format = DATA_JSON;

    if (o->type == NULL || !data_type_is_external(sv_from(o->type))) {
        return cli_fail(2,
                        "--type needs a name such as acme.example/posture: a domain of your own, a "
                        "slash, letters, digits and ._-/, up to %d bytes",
                        DATA_TYPE_MAX);
    }
    if (o->key == NULL || data_key_parse(sv_from(o->key)) == DATA_KEY_NONE) {
        return cli_fail(2, "--key must be user_id, email or session_id");
    }
    if (!format_of(o, &format)) {
        return cli_fail(2, "--format must be json or csv");
    }
    return 0;
}

static int run(struct cli_broker *b, const struct order *o)
{
    struct data_source source = { .name = o->file,
                                  .key = data_key_parse(sv_from(o->key)),
                                  .key_field = o->field };
    CLEANUP(data_rows_free) struct data_rows *rows = NULL;
    CLEANUP(buf_deinit) struct buf text = { 0 };
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];

    (void)format_of(o, &source.format);
    buf_init(&text, DATA_BYTES_MAX);
    if (cli_file_take(o->file, &text, &d) != ERR_OK ||
        data_rows_read(buf_sv(&text), &source, &rows, &d) != ERR_OK) {
        return cli_fail(1, "%s", cli_tame(base_unconst(diag_format(&d, line))));
    }
    if (!cli_broker_open(b)) {
        return 1;
    }

    struct work work = { .order = o, .rows = rows };

    return import_with_lease(b, o->type, o->is_dry, import_rows, &work);
}

static int import_records(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "type", required_argument, NULL, 'T' },
                                             { "key", required_argument, NULL, 'k' },
                                             { "id", required_argument, NULL, 'i' },
                                             { "format", required_argument, NULL, 'f' },
                                             { "dry-run", no_argument, NULL, OPTION_DRY },
                                             { "allow-empty", no_argument, NULL, OPTION_EMPTY },
                                             { 0 } };
    struct cli_broker b = { .config = NULL };
    struct order o = { .type = NULL };
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'T') {
            o.type = optarg;
        } else if (option == 'k') {
            o.key = optarg;
        } else if (option == 'i') {
            o.field = optarg;
        } else if (option == 'f') {
            o.format = optarg;
        } else if (option == OPTION_DRY) {
            o.is_dry = true;
        } else if (option == OPTION_EMPTY) {
            o.may_be_empty = true;
        } else if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(help_text, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind != 1) {
        (void)fputs(help_text, stderr);
        return 2;
    }
    o.file = argv[optind];
    code = order_check(&o);
    code = code != 0 ? code : run(&b, &o);
    cli_broker_close(&b);
    return code;
}

int cli_import_main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "records") == 0) {
        return import_records(argc - 1, argv + 1);
    }
    if (strcmp(what, "directory") == 0) {
        return cli_import_directory_main(argc - 1, argv + 1);
    }
    bool is_asked = strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0;

    (void)fputs(
        "usage: postern import records FILE …    data of your own for the criterion record\n"
        "       postern import directory FILE …  people and their groups\n"
        "--help with either says more.\n",
        is_asked ? stdout : stderr);
    return is_asked ? 0 : 2;
}
