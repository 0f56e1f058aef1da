/* postern token create|list|revoke: tokens of service accounts, for routes, and of clients of the
 * databroker. */
#include "common/crypto/token.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "access.pb-c.h"
#include "token.pb-c.h"

#include "cli/broker.h"
#include "cli/command.h"
#include "common/clock.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

#define TYPE_REVOKED "postern.io/TokenRevoked"
#define TYPE_USED    "postern.io/TokenUsed"

enum { NAME_MAX_BYTES = 255, DESCRIPTION_MAX = 1024 };

static const char help[] =
    "usage: postern token create --service-account USER [--description TEXT] [--ttl 30d]\n"
    "       postern token list\n"
    "       postern token revoke [--unseen] ID…\n"
    "       postern token create --role ROLE [--ttl 24h]\n\n"
    "A service account is a program that policies see as the user USER, such as robot/backup; its token\n"
    "goes to a route as `Authorization: Bearer Pomerium-TOKEN`. A revoked one is refused from the next\n"
    "request on, and its open connections close.\n"
    "A token with a role is for a client over gRPC, as `authorization: Bearer TOKEN`; a revoked one is refused\n"
    "by the databroker from the next call on, and its streams end; --unseen: also one that was not used yet:\n"
    "  --role   session-admin: list and revoke sessions; reader: read records;\n"
    "           record-writer: postern import; directory-writer: write directory users and groups;\n"
    "           config-writer: write Pomerium's records of configuration;\n"
    "           checker: ask authorize about requests, as Envoy does (it ends by its --ttl only)\n"
    "  --ttl    how long it is good: 90m, 24h, 30d (24h)\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n";

struct order {
    const char *role;
    const char *account; /* user id */
    const char *description;
    const char *ttl;
    bool unseen;
};

/* ---- create ----------------------------------------------------------------------------------- */

/* What logs, headers and terminals can take. */
static bool is_name(const char *text, size_t max)
{
    return text[0] != '\0' && strlen(text) <= max && sv_is_plain(sv_from(text)) &&
           sv_is_utf8(sv_from(text));
}

static bool put_account(const struct cli_broker *b, const struct order *o,
                        const struct token *token)
{
    User__ServiceAccount account = USER__SERVICE_ACCOUNT__INIT;
    Google__Protobuf__Timestamp issued = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Databroker__Record *list[] = { &record };
    char type[] = BROKER_TYPE_ACCOUNT;
    bool fine = false;

    issued.seconds = clock_wall_s();
    expires.seconds = token->expires_at_s;
    account.id = base_unconst(token->id);
    account.user_id = base_unconst(o->account);
    account.description = base_unconst(o->description);
    account.issued_at = &issued;
    account.expires_at = &expires;
    any.type_url = type;
    any.value.data = mem_alloc(user__service_account__get_packed_size(&account) + 1);
    any.value.len = user__service_account__pack(&account, any.value.data);
    record.type = type;
    record.id = account.id;
    record.data = &any;
    fine = cli_broker_put(b, list, 1);
    mem_free(&any.value.data);
    return fine;
}

static int create(const struct cli_broker *b, const struct order *o, enum token_role role)
{
    CLEANUP(buf_deinit) struct buf text;
    struct token token;
    int64_t ttl_s = 0;

    buf_init(&text, TOKEN_TEXT_MAX);
    if (cli_duration(o->ttl, &ttl_s) != ERR_OK) {
        return cli_fail(2, "--ttl '%s' is no duration such as 90m, 24h or 30d", o->ttl);
    }
    if (token_make(b->config->keys, role, ttl_s, &token, &text) != ERR_OK) {
        return cli_fail(2, "--ttl %s is too long", o->ttl);
    }
    if (role == TOKEN_ROLE_SERVICE_ACCOUNT && !put_account(b, o, &token)) {
        return 1;
    }
    (void)printf("%s\n", buf_cstr(&text));
    if (role == TOKEN_ROLE_SERVICE_ACCOUNT) {
        (void)fprintf(stderr, "service account %s, user %s; the token is not shown again\n",
                      token.id, o->account);
    } else {
        (void)fprintf(stderr, "token %s, %s; it is not shown again\n", token.id, o->role);
    }
    return 0;
}

/* Only who has the secret can make a token. */
static int create_main(struct cli_broker *b, const struct order *o)
{
    enum token_role role = TOKEN_ROLE_SERVICE_ACCOUNT;

    if ((o->role == NULL) == (o->account == NULL)) {
        return cli_fail(2, "one of --service-account and --role is needed");
    }
    if (o->role != NULL && token_role_parse(sv_from(o->role), &role) != ERR_OK) {
        return cli_fail(
            2,
            "--role must be session-admin, reader, record-writer, directory-writer, config-writer or "
            "checker");
    }
    if (o->account != NULL && !is_name(o->account, NAME_MAX_BYTES)) {
        return cli_fail(2, "--service-account needs a user id of 1 to %d bytes of plain text",
                        NAME_MAX_BYTES);
    }
    if (o->description[0] != '\0' && !is_name(o->description, DESCRIPTION_MAX)) {
        return cli_fail(2, "--description takes up to %d bytes of plain text", DESCRIPTION_MAX);
    }
    if (o->role != NULL) { /* nothing is written: the databroker need not run */
        b->config = cli_config(b->config_file);
        return b->config == NULL ? 1 : create(b, o, role);
    }
    if (!cli_broker_open(b)) {
        return 1;
    }
    return b->config == NULL ? cli_fail(1, "the configuration with the shared secret is needed")
                             : create(b, o, role);
}

/* ---- list, revoke ----------------------------------------------------------------------------- */

/* "never"; False: it cannot be known, and was said. */
static bool last_use_of(const struct cli_broker *b, const char *account, char used[CLOCK_TEXT_SIZE])
{
    char id[sizeof(TOKEN_ACCOUNT) + NAME_MAX_BYTES];
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got = NULL;
    ProtobufCMessage *m = NULL;

    (void)snprintf(used, CLOCK_TEXT_SIZE, "never");
    (void)snprintf(id, sizeof(id), "%s%s", TOKEN_ACCOUNT, account);
    got = cli_broker_get(b, BROKER_TYPE_ACCESS, id, &status);
    if (got == NULL) {
        return status == RPC_NOT_FOUND;
    }
    if (got->record != NULL && got->record->data != NULL &&
        rpc_unpack(&postern__session_access__descriptor,
                   sv_of(got->record->data->value.data, got->record->data->value.len), NULL,
                   &m) == ERR_OK) {
        const Google__Protobuf__Timestamp *at =
            ((const Postern__SessionAccess *)(const void *)m)->accessed_at;

        if (at != NULL) {
            (void)clock_format(at->seconds * 1000, used);
            used[19] = '\0'; /* to the second */
        }
        protobuf_c_message_free_unpacked(m, NULL);
    }
    protobuf_c_message_free_unpacked(&got->base, NULL);
    return true;
}

struct accounts {
    const struct cli_broker *b;
    bool failed;
};

static void print_account(const Databroker__Record *record, void *arg)
{
    struct accounts *all = arg;
    ProtobufCMessage *m = NULL;
    User__ServiceAccount *a = NULL;
    char expires[CLOCK_TEXT_SIZE];
    char used[CLOCK_TEXT_SIZE];

    if (record->data == NULL || all->failed ||
        rpc_unpack(&user__service_account__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return;
    }
    a = (User__ServiceAccount *)(void *)m;
    if (a->expires_at != NULL && a->expires_at->seconds >= clock_wall_s()) {
        all->failed = !last_use_of(all->b, record->id, used);
        (void)clock_format(a->expires_at->seconds * 1000, expires);
        expires[19] = '\0'; /* to the second */
        (void)printf("%-36s  %-32s  %-19s  %-19s  %s\n", cli_tame(record->id), cli_tame(a->user_id),
                     expires, used, cli_tame(a->description));
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

/* Every record of type, one after the other. False: it failed and was said. */
static bool each_record(const struct cli_broker *b, const char *type,
                        void (*fn)(const Databroker__Record *record, void *arg), void *arg)
{
    int64_t offset = 0;
    int64_t total = 0;

    do {
        Databroker__QueryResponse *page = cli_broker_query(b, type, offset);

        if (page == NULL) {
            return false;
        }
        for (size_t i = 0; i < page->n_records; i++) {
            fn(page->records[i], arg);
        }
        total = page->n_records == 0 ? 0 : page->total_count;
        offset += (int64_t)page->n_records;
        protobuf_c_message_free_unpacked(&page->base, NULL);
    } while (offset < total);
    return true;
}

/* A revoked one, too, has been used, or nobody misses it. */
static void print_token(const Databroker__Record *record, void *arg)
{
    ProtobufCMessage *m = NULL;
    const Postern__TokenState *t = NULL;
    char last[CLOCK_TEXT_SIZE];
    char expires[CLOCK_TEXT_SIZE];

    if (record->data == NULL ||
        rpc_unpack(&postern__token_state__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), NULL, &m) != ERR_OK) {
        return;
    }
    t = (const Postern__TokenState *)(const void *)m;
    if (t->expires_at != NULL && t->last_used_at != NULL) {
        (void)clock_format(t->expires_at->seconds * 1000, expires);
        (void)clock_format(t->last_used_at->seconds * 1000, last);
        expires[19] = '\0'; /* to the second */
        last[19] = '\0';
        (void)printf("%-36s  %-16s  %-19s  %-19s  %s\n", cli_tame(record->id), cli_tame(t->role),
                     expires, last, map_get(arg, sv_from(record->id)) == NULL ? "" : "revoked");
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

static void note_revoked(const Databroker__Record *record, void *arg)
{
    (void)map_set(arg, sv_from(record->id), arg);
}

static int list_all(const struct cli_broker *b)
{
    struct map *revoked = map_new();
    struct accounts accounts = { .b = b };
    bool fine = false;

    (void)printf("%-36s  %-32s  %-19s  %-19s  %s\n", "ACCOUNT", "USER", "UNTIL (UTC)",
                 "LAST USED (UTC)", "DESCRIPTION");
    fine = each_record(b, BROKER_TYPE_ACCOUNT, print_account, &accounts) && !accounts.failed &&
           each_record(b, TYPE_REVOKED, note_revoked, revoked);
    if (fine) {
        (void)printf("%-36s  %-16s  %-19s  %-19s\n", "TOKEN", "ROLE", "UNTIL (UTC)",
                     "LAST USED (UTC)");
        fine = each_record(b, TYPE_USED, print_token, revoked);
    }
    map_free(&revoked);
    return fine ? 0 : 1;
}

/* A token with a role is known by its id alone; the record goes when no such token can live any more. */
static int revoke_token(const struct cli_broker *b, const char *id, bool unseen)
{
    Postern__TokenState state = POSTERN__TOKEN_STATE__INIT;
    Google__Protobuf__Timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp expires = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Databroker__Record record = DATABROKER__RECORD__INIT;
    Databroker__Record *list[] = { &record };
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *used = cli_broker_get(b, TYPE_USED, id, &status);
    uint8_t bytes[256];

    if (used != NULL) {
        protobuf_c_message_free_unpacked(&used->base, NULL);
    } else if (status != RPC_NOT_FOUND) {
        return 1;
    } else if (!unseen || strlen(id) != TOKEN_ID_SIZE - 1) {
        return cli_fail(1,
                        "there is no service account %s, and no token of that id was used yet; "
                        "--unseen revokes it all the same",
                        id);
    }
    now.seconds = clock_wall_s();
    expires.seconds = now.seconds + TOKEN_TTL_MAX_S;
    state.revoked_at = &now;
    state.expires_at = &expires;
    any.type_url = base_unconst("type.googleapis.com/postern.TokenState");
    any.value.data = bytes;
    any.value.len = postern__token_state__pack(&state, bytes);
    record.type = base_unconst(TYPE_REVOKED);
    record.id = base_unconst(id);
    record.data = &any;
    if (!cli_broker_put(b, list, 1)) {
        return 1;
    }
    (void)printf("revoked token %s\n", id);
    return 0;
}

static int revoke(const struct cli_broker *b, const char *id, bool unseen)
{
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got = cli_broker_get(b, BROKER_TYPE_ACCOUNT, id, &status);
    bool fine = false;

    if (got == NULL || got->record == NULL) {
        return status == RPC_NOT_FOUND ? revoke_token(b, id, unseen) : 1;
    }
    fine = cli_broker_delete(b, &got->record, 1);
    protobuf_c_message_free_unpacked(&got->base, NULL);
    if (fine) {
        (void)printf("revoked %s\n", id);
    }
    return fine ? 0 : 1;
}

/* ---- all -------------------------------------------------------------------------------------- */

static int run(struct cli_broker *b, const struct order *o, int argc, char **argv)
{
    int code = 0;

    if (argc == 1 && strcmp(argv[0], "create") == 0) {
        return create_main(b, o);
    }
    if (argc == 1 && strcmp(argv[0], "list") == 0) {
        return cli_broker_open(b) ? list_all(b) : 1;
    }
    if (argc < 2 || strcmp(argv[0], "revoke") != 0) {
        (void)fputs(help, stderr);
        return 2;
    }
    if (!cli_broker_open(b)) {
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        int one = revoke(b, argv[i], o->unseen);

        code = one > code ? one : code;
    }
    return code;
}

int cli_token_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "role", required_argument, NULL, 'r' },
                                             { "service-account", required_argument, NULL, 's' },
                                             { "description", required_argument, NULL, 'D' },
                                             { "ttl", required_argument, NULL, 'l' },
                                             { "unseen", no_argument, NULL, 'U' },
                                             { 0 } };
    struct cli_broker b = { .config = NULL };
    struct order o = { .description = "", .ttl = "24h" };
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            o.role = optarg;
        } else if (option == 's') {
            o.account = optarg;
        } else if (option == 'D') {
            o.description = optarg;
        } else if (option == 'l') {
            o.ttl = optarg;
        } else if (option == 'U') {
            o.unseen = true;
        } else if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    code = run(&b, &o, argc - optind, argv + optind);
    cli_broker_close(&b);
    return code;
}
