/* postern import directory: people and their groups from files, all of them or none. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/broker.h"
#include "cli/command.h"
#include "cli/directory.h"
#include "cli/file.h"
#include "cli/import_store.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

static const char help_text[] =
    "usage: postern import directory FILE… [options]\n"
    "       postern import directory --end\n\n"
    "Makes the people and groups of all FILEs together the directory that the criterion `groups` of\n"
    "policies reads. While one is in force it alone says who is in a group: whom it does not name is in\n"
    "none, whatever a login brought. All of it comes into force at once, or none and what was there\n"
    "stays.\n\n"
    "  --format FORMAT   json, csv or ldif (what the end of FILE's name says)\n"
    "  --key KEY         what a person is found by: email (the default) or user_id\n"
    "  --id FIELD        the field or attribute that holds the user id (id; of LDIF uid)\n"
    "  --group-by NAME   what policies call a group: id (the default; of LDIF the first part of its dn,\n"
    "                    such as its cn), name, email or dn; or several, as in id,name,email\n"
    "  --dry-run         only say what would change\n"
    "  --force           although there is nobody in it, or more than a fifth of the people or of the\n"
    "                    memberships in force would be gone (five at least)\n"
    "  --end             no directory any more: groups are what logins bring\n"
    "  --token-file FILE or $POSTERN_TOKEN   a token of role directory-writer, with\n"
    "  --databroker TARGET and --ca-file FILE (postern ca); without one\n"
    "  --config FILE     configuration with the shared secret (run/config.yaml)\n\n"
    "Exit code: 0 done, 1 refused or failed, 2 used wrongly.\n";

enum { OPTION_DRY = 256, OPTION_FORCE, OPTION_END, OPTION_GROUP_BY };

static const char type[] = DATA_DIRECTORY_TYPE;

struct order {
    char **files;
    size_t n_files;
    const char *format;
    const char *key;
    const char *group_by;
    bool is_dry;
    bool may_lose;
    bool is_end;
    struct directory_opts opts;
};

/* What is to be put in force. */
struct work {
    const struct order *order;
    const struct data_rows *rows; /* NULL: the files cannot be taken, as the diag says */
    struct directory_counts read;
    struct diag d;
};

/* ---- when it was last brought ---------------------------------------------------------------- */

/* The time of the last import that held; 0: none. */
static int64_t last_checked_s(const struct cli_broker *b)
{
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got = cli_broker_get(b, type, DATA_SOURCE_ID, &status);
    const Google__Protobuf__Any *any =
        got == NULL || got->record == NULL ? NULL : got->record->data;
    ProtobufCMessage *m = NULL;
    int64_t checked_s = 0;

    if (any != NULL && rpc_unpack(&google__protobuf__struct__descriptor,
                                  sv_of(any->value.data, any->value.len), NULL, &m) == ERR_OK) {
        checked_s = data_set_number((const Google__Protobuf__Struct *)(const void *)m, "checked");
        protobuf_c_message_free_unpacked(m, NULL);
    }
    if (got != NULL) {
        protobuf_c_message_free_unpacked(&got->base, NULL);
    }
    return checked_s;
}

/* For who explains decisions: as of when the directory is, and why it is not newer. */
static void note(const struct cli_broker *b, const char *lease, const char *error)
{
    struct import_store store = { .broker = b, .lease = lease };
    const struct data_store to = import_store_of(&store);
    struct diag d = { .line = 0 };
    char tame[DATA_ERROR_MAX + 1];
    int64_t checked_s = error[0] == '\0' ? clock_wall_s() : last_checked_s(b);

    (void)snprintf(tame, sizeof(tame), "%s", error);
    for (char *c = tame; *c != '\0'; c++) { /* it may quote the file, and be cut */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    }
    const struct data_member members[] = { { .name = "checked", .number = checked_s },
                                           { .name = "error", .text = tame } };
    size_t n = 0;
    CLEANUP(mem_free) uint8_t *bytes = data_set_pack(members, ARRAY_LEN(members), &n);
    const struct data_record record = { .id = SV(DATA_SOURCE_ID), .data = sv_of(bytes, n) };

    (void)to.put(to.arg, type, &record, 1, &d); /* it says itself what fails */
}

/* ---- putting it in force ---------------------------------------------------------------------- */

static void tell(const struct work *w, const struct data_counts *c)
{
    const struct directory_counts *read = &w->read;

    (void)printf(
        "%sdirectory: %zu added, %zu changed, %zu removed, %zu unchanged; %zu memberships of "
        "%zu groups\n",
        w->order->is_dry ? "dry run: " : "", c->added, c->changed, c->removed, c->same,
        read->memberships, read->groups);
    if (read->keyless + read->others + read->strangers != 0) {
        (void)printf(
            "left out: %zu people without %s, %zu entries that are neither people nor groups, "
            "%zu memberships of who is not in the files\n",
            read->keyless, data_key_name(w->order->opts.key), read->others, read->strangers);
    }
    if (c->is_littered) {
        (void)fprintf(stderr,
                      "postern: the new directory is in force; old rows could not be cleared away, "
                      "the next import does that\n");
    }
}

static void say_loss(struct work *w, const struct data_counts *c)
{
    size_t weight = w->rows->weight;

    if (w->rows->count == 0) {
        diag_set(&w->d, "there is nobody in it, and %zu people are in force: --force", c->removed);
        return;
    }
    diag_set(&w->d,
             "%zu people and %zu of %zu memberships would be gone, which looks like a part of the "
             "directory: --force",
             c->removed, c->weight_before > weight ? c->weight_before - weight : 0,
             c->weight_before);
}

static int put_in_force(const struct cli_broker *b, const char *lease, void *arg)
{
    struct work *w = arg;
    struct import_store broker = { .broker = b, .lease = lease };
    const struct data_store store = import_store_of(&broker);
    const struct data_change change = { .type = type,
                                        .key = w->order->opts.key,
                                        .rows = w->rows,
                                        .may_be_empty = w->order->may_lose,
                                        .may_shrink = w->order->may_lose,
                                        .is_dry = lease == NULL };
    struct data_counts counts = { .added = 0 };
    char line[DIAG_LINE];
    enum err err = w->rows == NULL ? ERR_INVALID : data_set_apply(&store, &change, &counts, &w->d);

    if (err == ERR_OK) {
        tell(w, &counts);
        if (lease != NULL) {
            note(b, lease, "");
        }
        return 0;
    }
    if (err == ERR_DENIED && w->d.text[0] == '\0') {
        say_loss(w, &counts);
    }
    if (w->d.text[0] == '\0') {
        return cli_fail(1,
                        "the directory that was in force before stays; if only the last answer was "
                        "lost, the new one is, whole: import again to be sure");
    }
    (void)cli_fail(1, "%s", cli_tame(base_unconst(diag_format(&w->d, line))));
    if (lease != NULL) {
        note(b, lease, line);
    }
    return 1;
}

/* ---- none any more ---------------------------------------------------------------------------- */

/* Ids of records that are to go; "set" first of all, so that no half of it is ever in force. */
struct ending {
    struct arena arena;
    struct sv *ids;
    size_t n;
    size_t room;
};

static void take_id(struct sv id, struct sv data, void *arg)
{
    struct ending *e = arg;

    (void)data;
    if (e->n == e->room) {
        e->room = MAX(e->room * 2, (size_t)64);
        e->ids = mem_realloc(e->ids, e->room, sizeof(*e->ids));
    }
    e->ids[e->n] = arena_sv(&e->arena, id);
    if (sv_eq(id, SV(DATA_SET_ID))) {
        struct sv first = e->ids[0];

        e->ids[0] = e->ids[e->n];
        e->ids[e->n] = first;
    }
    e->n++;
}

static enum err end_all(const struct data_store *store, const struct ending *e, struct diag *d)
{
    struct data_record records[DATA_SET_BATCH];
    enum err err = ERR_OK;

    for (size_t i = 0; i < e->n && err == ERR_OK;) {
        size_t n = 0;

        for (; n < DATA_SET_BATCH && i < e->n; n++, i++) {
            records[n] = (struct data_record){ .id = e->ids[i] };
        }
        err = store->put(store->arg, type, records, n, d);
    }
    return err;
}

static int end(const struct cli_broker *b, const char *lease, void *arg)
{
    struct import_store broker = { .broker = b, .lease = lease };
    const struct data_store store = import_store_of(&broker);
    struct ending e = { .n = 0 };
    struct diag d = { .line = 0 };

    (void)arg;
    arena_init(&e.arena);
    enum err err = store.read(store.arg, type, take_id, &e, &d);

    err = err == ERR_OK && lease != NULL ? end_all(&store, &e, &d) : err;
    if (err == ERR_OK) {
        (void)printf("%sdirectory: %zu records removed\n", lease == NULL ? "dry run: " : "", e.n);
    } else if (d.text[0] != '\0') {
        (void)cli_fail(1, "%s", d.text);
    }
    mem_free(&e.ids);
    arena_deinit(&e.arena);
    return err == ERR_OK ? 0 : 1;
}

/* ---- the files -------------------------------------------------------------------------------- */

static bool format_of(const struct order *o, const char *file, enum directory_format *format_out)
{
    static const char *const names[] = {
        [DIRECTORY_JSON] = "json", [DIRECTORY_CSV] = "csv", [DIRECTORY_LDIF] = "ldif"
    };
    const char *end = strrchr(file, '.');
    const char *name = o->format != NULL ? o->format : end != NULL ? end + 1 : "";

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *format_out = (enum directory_format)i;
            return true;
        }
    }
    return false;
}

static int order_check(struct order *o)
{
    enum directory_format format = DIRECTORY_JSON;

    if (o->is_end != (o->n_files == 0)) {
        (void)fputs(help_text, stderr);
        return 2;
    }
    o->opts.key = o->key == NULL ? DATA_KEY_EMAIL : data_key_parse(sv_from(o->key));
    if (o->opts.key != DATA_KEY_EMAIL && o->opts.key != DATA_KEY_USER) {
        return cli_fail(2, "--key must be email or user_id");
    }
    if (!directory_by_parse(o->group_by == NULL ? SV("id") : sv_from(o->group_by), &o->opts.by)) {
        return cli_fail(2, "--group-by must be id, name, email or dn, or several: id,name");
    }
    for (size_t i = 0; i < o->n_files; i++) {
        if (!format_of(o, o->files[i], &format)) {
            return cli_fail(2, "--format must be json, csv or ldif");
        }
    }
    return 0;
}

static enum err read_files(const struct order *o, struct directory *directory, struct diag *d)
{
    enum err err = ERR_OK;

    for (size_t i = 0; i < o->n_files && err == ERR_OK; i++) {
        enum directory_format format = DIRECTORY_JSON;
        CLEANUP(buf_deinit) struct buf text = { 0 };

        (void)format_of(o, o->files[i], &format);
        buf_init(&text, DIRECTORY_BYTES_MAX);
        err = cli_file_take(o->files[i], &text, d);
        if (err == ERR_OK) {
            err = directory_read(directory, o->files[i], format, buf_sv(&text), d);
        }
    }
    return err;
}

static int run(struct cli_broker *b, const struct order *o)
{
    CLEANUP(directory_free) struct directory *directory = directory_new(&o->opts);
    CLEANUP(data_rows_free) struct data_rows *rows = NULL;
    struct work w = { .order = o };

    if (!o->is_end && read_files(o, directory, &w.d) == ERR_OK &&
        directory_rows(directory, &rows, &w.read, &w.d) == ERR_OK) {
        w.rows = rows;
    }
    if (!cli_broker_open(b)) {
        return 1;
    }
    return import_with_lease(b, type, o->is_dry, o->is_end ? end : put_in_force, &w);
}

/* False: the option is none of ours. */
static bool take_option(struct order *o, int option, const char *value)
{
    switch (option) {
    case 'f':
        o->format = value;
        return true;
    case 'k':
        o->key = value;
        return true;
    case 'i':
        o->opts.id_field = value;
        return true;
    case OPTION_GROUP_BY:
        o->group_by = value;
        return true;
    case OPTION_DRY:
        o->is_dry = true;
        return true;
    case OPTION_FORCE:
        o->may_lose = true;
        return true;
    case OPTION_END:
        o->is_end = true;
        return true;
    default:
        return false;
    }
}

int cli_import_directory_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "format", required_argument, NULL, 'f' },
                                             { "key", required_argument, NULL, 'k' },
                                             { "id", required_argument, NULL, 'i' },
                                             { "group-by", required_argument, NULL,
                                               OPTION_GROUP_BY },
                                             { "dry-run", no_argument, NULL, OPTION_DRY },
                                             { "force", no_argument, NULL, OPTION_FORCE },
                                             { "end", no_argument, NULL, OPTION_END },
                                             { 0 } };
    struct cli_broker b = { .config = NULL };
    struct order o = { .files = NULL };
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take_option(&o, option, optarg) && !cli_broker_option(&b, option, optarg)) {
            (void)fputs(help_text, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    o.files = argv + optind;
    o.n_files = (size_t)(argc - optind);
    code = order_check(&o);
    code = code != 0 ? code : run(&b, &o);
    cli_broker_close(&b);
    return code;
}
