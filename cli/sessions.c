/* postern sessions list|show|revoke, postern users revoke. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/broker.h"
#include "cli/command.h"
#include "common/clock.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

enum { DELETE_BATCH = 500 };

static const char sessions_help[] =
    "usage: postern sessions list [--user EMAIL]\n"
    "       postern sessions show SESSION\n"
    "       postern sessions revoke SESSION…\n\n"
    "Revoked sessions are refused from the next request on; their open connections close.\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n"
    "  --token-file FILE   use a token instead ($POSTERN_TOKEN), with\n"
    "  --ca-file FILE      what `postern ca` prints, and\n"
    "  --databroker TARGET unix:/path or host:port\n";

static const char users_help[] = "usage: postern users revoke EMAIL\n\n"
                                 "Ends every session of the user.\n"
                                 "Options are those of `postern sessions`.\n";

/* A session and whose it is, while a listing runs. */
struct row {
    Databroker__Record *record; /* borrowed from the page */
    Session__Session *session;
    const char *email; /* "" unknown; borrowed from emails */
};

typedef bool (*row_fn)(const struct row *row, void *arg);

static ProtobufCMessage *unpack(const Databroker__Record *record,
                                const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *m = NULL;

    if (record->data == NULL ||
        rpc_unpack(type, sv_of(record->data->value.data, record->data->value.len), NULL, &m) !=
            ERR_OK) {
        return NULL;
    }
    return m;
}

static void free_value(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    mem_free(&value);
}

/* user id → e-mail */
static struct map *load_emails(const struct cli_broker *b)
{
    struct map *emails = map_new();
    int64_t offset = 0;
    int64_t total = 0;

    do {
        Databroker__QueryResponse *page = cli_broker_query(b, BROKER_TYPE_USER, offset);
        size_t i = 0;

        if (page == NULL) {
            map_each(emails, free_value, NULL);
            map_free(&emails);
            return NULL;
        }
        for (i = 0; i < page->n_records; i++) {
            User__User *user =
                (User__User *)(void *)unpack(page->records[i], &user__user__descriptor);

            if (user != NULL) {
                void *before = map_set(emails, sv_from(user->id), mem_strdup(user->email));

                mem_free(&before);
                protobuf_c_message_free_unpacked(&user->base, NULL);
            }
        }
        total = page->n_records == 0 ? 0 : page->total_count;
        offset += (int64_t)page->n_records;
        protobuf_c_message_free_unpacked(&page->base, NULL);
    } while (offset < total);
    return emails;
}

static bool each_session(const struct cli_broker *b, const struct map *emails, row_fn fn, void *arg)
{
    int64_t offset = 0;
    int64_t total = 0;
    bool fine = true;

    do {
        Databroker__QueryResponse *page = cli_broker_query(b, BROKER_TYPE_SESSION, offset);
        size_t i = 0;

        if (page == NULL) {
            return false;
        }
        for (i = 0; i < page->n_records && fine; i++) {
            struct row row = { .record = page->records[i] };

            row.session =
                (Session__Session *)(void *)unpack(row.record, &session__session__descriptor);
            if (row.session != NULL) {
                const char *email = map_get(emails, sv_from(row.session->user_id));

                row.email = email == NULL ? "" : email;
                fine = fn(&row, arg);
                protobuf_c_message_free_unpacked(&row.session->base, NULL);
            }
        }
        total = page->n_records == 0 ? 0 : page->total_count;
        offset += (int64_t)page->n_records;
        protobuf_c_message_free_unpacked(&page->base, NULL);
    } while (fine && offset < total);
    return fine;
}

static int64_t seconds_of(const Google__Protobuf__Timestamp *t)
{
    return t == NULL ? 0 : t->seconds;
}

static const char *time_text(int64_t seconds, char room[CLOCK_TEXT_SIZE])
{
    (void)clock_format(seconds * 1000, room);
    room[19] = '\0'; /* to the second */
    return seconds == 0 ? "-" : room;
}

static bool print_row(const struct row *row, void *arg)
{
    const char *user = arg;
    CLEANUP(mem_free) char *who = NULL;
    char issued[CLOCK_TEXT_SIZE];
    char expires[CLOCK_TEXT_SIZE];

    if ((user != NULL && strcmp(user, row->email) != 0) ||
        seconds_of(row->session->expires_at) < clock_wall_s()) {
        return true;
    }
    who = mem_strdup(row->email[0] == '\0' ? row->session->user_id : row->email);
    (void)printf("%-36s  %-32s  %-16s  %-19s  %s\n", cli_tame(row->record->id), cli_tame(who),
                 row->session->idp_id[0] == '\0' ? "-" : cli_tame(row->session->idp_id),
                 time_text(seconds_of(row->session->issued_at), issued),
                 time_text(seconds_of(row->session->expires_at), expires));
    return true;
}

static int list(const struct cli_broker *b, const char *user)
{
    struct map *emails = load_emails(b);
    bool fine = false;
    char filter[321];

    if (emails == NULL) {
        return 1;
    }
    (void)snprintf(filter, sizeof(filter), "%s", user == NULL ? "" : user);
    (void)printf("%-36s  %-32s  %-16s  %-19s  %s\n", "SESSION", "USER", "PROVIDER", "SINCE (UTC)",
                 "UNTIL (UTC)");
    fine = each_session(b, emails, print_row, user == NULL ? NULL : filter);
    map_each(emails, free_value, NULL);
    map_free(&emails);
    return fine ? 0 : 1;
}

static int show(const struct cli_broker *b, const char *id)
{
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got = cli_broker_get(b, BROKER_TYPE_SESSION, id, &status);
    Databroker__GetResponse *user_got = NULL;
    Session__Session *session = NULL;
    User__User *user = NULL;
    char issued[CLOCK_TEXT_SIZE];
    char expires[CLOCK_TEXT_SIZE];

    if (got == NULL || got->record == NULL) {
        return status == RPC_NOT_FOUND ? cli_fail(1, "there is no session %s", id) : 1;
    }
    session = (Session__Session *)(void *)unpack(got->record, &session__session__descriptor);
    if (session != NULL) {
        user_got = cli_broker_get(b, BROKER_TYPE_USER, session->user_id, &status);
        if (user_got != NULL && user_got->record != NULL) {
            user = (User__User *)(void *)unpack(user_got->record, &user__user__descriptor);
        }
        (void)printf(
            "session   %s\nuser      %s\ne-mail    %s\nname      %s\nprovider  %s\nsince     %s UTC\n"
            "until     %s UTC\nversion   %" PRIu64 "\n",
            cli_tame(session->id), cli_tame(session->user_id),
            user == NULL ? "-" : cli_tame(user->email), user == NULL ? "-" : cli_tame(user->name),
            cli_tame(session->idp_id), time_text(seconds_of(session->issued_at), issued),
            time_text(seconds_of(session->expires_at), expires), got->record->version);
        protobuf_c_message_free_unpacked(&session->base, NULL);
    }
    if (user != NULL) {
        protobuf_c_message_free_unpacked(&user->base, NULL);
    }
    if (user_got != NULL) {
        protobuf_c_message_free_unpacked(&user_got->base, NULL);
    }
    protobuf_c_message_free_unpacked(&got->base, NULL);
    return 0;
}

static int revoke(const struct cli_broker *b, const char *id)
{
    enum rpc_status status = RPC_OK;
    Databroker__GetResponse *got = cli_broker_get(b, BROKER_TYPE_SESSION, id, &status);
    bool fine = false;

    if (got == NULL || got->record == NULL) {
        return status == RPC_NOT_FOUND ? cli_fail(1, "there is no session %s", id) : 1;
    }
    fine = cli_broker_delete(b, &got->record, 1);
    protobuf_c_message_free_unpacked(&got->base, NULL);
    if (fine) {
        (void)printf("revoked %s\n", id);
    }
    return fine ? 0 : 1;
}

/* The sessions of one user, a batch at a time. */
struct victims {
    const struct cli_broker *b;
    const char *email;
    size_t n;
    char *ids[DELETE_BATCH];
};

static bool note_victim(const struct row *row, void *arg)
{
    struct victims *v = arg;

    if (strcasecmp(row->email, v->email) == 0 || strcmp(row->session->user_id, v->email) == 0) {
        v->ids[v->n++] = mem_strdup(row->record->id);
    }
    return v->n < DELETE_BATCH;
}

static bool delete_victims(struct victims *v)
{
    Databroker__Record records[DELETE_BATCH];
    Databroker__Record *list[DELETE_BATCH];
    char type[] = BROKER_TYPE_SESSION;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    bool fine = false;
    size_t i = 0;

    any.type_url = type;
    for (i = 0; i < v->n; i++) {
        databroker__record__init(&records[i]);
        records[i].type = type;
        records[i].id = v->ids[i];
        records[i].data = &any;
        list[i] = &records[i];
    }
    fine = cli_broker_delete(v->b, list, v->n);
    for (i = 0; i < v->n; i++) {
        mem_free(&v->ids[i]);
    }
    return fine;
}

struct search {
    const char *email;
    bool found;
};

static void note_known(struct sv user_id, void *email, void *arg)
{
    struct search *s = arg;

    s->found = s->found || sv_eq(user_id, sv_from(s->email)) || strcasecmp(email, s->email) == 0;
}

static bool is_known(const struct map *emails, const char *email)
{
    struct search s = { .email = email };

    map_each(emails, note_known, &s);
    return s.found;
}

static int revoke_user(const struct cli_broker *b, const char *email)
{
    struct map *emails = load_emails(b);
    struct victims v = { .b = b, .email = email };
    size_t total = 0;
    bool fine = emails != NULL;
    bool known = fine && is_known(emails, email);

    while (fine) {
        v.n = 0;
        (void)each_session(b, emails, note_victim, &v);
        if (v.n == 0) {
            break;
        }
        total += v.n;
        fine = delete_victims(&v);
    }
    if (emails != NULL) {
        map_each(emails, free_value, NULL);
        map_free(&emails);
    }
    if (!fine) {
        return 1;
    }
    if (total == 0 && !known) {
        return cli_fail(1, "nobody by the name %s has ever logged in: nothing was revoked", email);
    }
    (void)printf("revoked %zu session%s of %s\n", total, total == 1 ? "" : "s", email);
    return 0;
}

static int run_sessions(const struct cli_broker *b, int argc, char **argv, const char *user)
{
    int code = 0;
    int i = 0;

    if (strcmp(argv[0], "list") == 0 && argc == 1) {
        return list(b, user);
    }
    if (strcmp(argv[0], "show") == 0 && argc == 2) {
        return show(b, argv[1]);
    }
    if (strcmp(argv[0], "revoke") == 0 && argc >= 2) {
        for (i = 1; i < argc; i++) {
            int one = revoke(b, argv[i]);

            code = one > code ? one : code;
        }
        return code;
    }
    (void)fputs(sessions_help, stderr);
    return 2;
}

int cli_sessions_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "user", required_argument, NULL, 'u' },
                                             { 0 } };
    struct cli_broker b = { .config = NULL };
    const char *user = NULL;
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'u') {
            user = optarg;
        } else if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(sessions_help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind >= argc) {
        (void)fputs(sessions_help, stderr);
        return 2;
    }
    code = cli_broker_open(&b) ? run_sessions(&b, argc - optind, argv + optind, user) : 1;
    cli_broker_close(&b);
    return code;
}

int cli_users_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS, { 0 } };
    struct cli_broker b = { .config = NULL };
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!cli_broker_option(&b, option, optarg)) {
            (void)fputs(users_help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind != 2 || strcmp(argv[optind], "revoke") != 0) {
        (void)fputs(users_help, stderr);
        return 2;
    }
    code = cli_broker_open(&b) ? revoke_user(&b, argv[optind + 1]) : 1;
    cli_broker_close(&b);
    return code;
}
