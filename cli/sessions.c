/* postern sessions list|show|revoke, postern users revoke: by way of SessionService. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "session_service.pb-c.h"

#include "cli/broker.h"
#include "cli/command.h"
#include "common/clock.h"
#include "common/mem.h"

enum { PAGE = 500, CALL_MS = 15000, REVOKE_MS = 120000 };

#define PATH(name) "/postern.SessionService/" name

static const char sessions_help[] =
    "usage: postern sessions list [--user USER] [--provider ID] [--address IP|RANGE]\n"
    "       postern sessions show SESSION\n"
    "       postern sessions revoke SESSION…\n"
    "       postern sessions revoke [--user USER] [--provider ID] [--address IP|RANGE]\n"
    "                               [--older-than 12h]\n\n"
    "USER is an e-mail address or a user id. Revoked sessions are refused from the next request on; their\n"
    "open connections close. Of several options all must fit.\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n"
    "  --token-file FILE   use a token instead ($POSTERN_TOKEN), with\n"
    "  --ca-file FILE      what `postern ca` prints, and\n"
    "  --databroker TARGET unix:/path or host:port\n";

static const char users_help[] = "usage: postern users revoke EMAIL\n\n"
                                 "Ends every session of the user.\n"
                                 "Options are those of `postern sessions`.\n";

static const char *time_text(const Google__Protobuf__Timestamp *t, char room[CLOCK_TEXT_SIZE])
{
    if (t == NULL || t->seconds == 0) {
        return "-";
    }
    (void)clock_format(t->seconds * 1000, room);
    room[19] = '\0'; /* to the second */
    return room;
}

/* The text tamed, in place; a dash where there is none. */
static const char *shown(char *text)
{
    return text[0] == '\0' ? "-" : cli_tame(text);
}

static void print_row(Postern__SessionInfo *s)
{
    char issued[CLOCK_TEXT_SIZE];
    char used[CLOCK_TEXT_SIZE];
    char expires[CLOCK_TEXT_SIZE];

    (void)printf("%-36s  %-32s  %-16s  %-19s  %-19s  %-19s  %s\n", cli_tame(s->id),
                 s->email[0] != '\0' ? cli_tame(s->email) : cli_tame(s->user_id), shown(s->idp_id),
                 time_text(s->issued_at, issued), time_text(s->accessed_at, used),
                 time_text(s->expires_at, expires), shown(s->address));
}

static int list(const struct cli_broker *b, Postern__SessionFilter *filter)
{
    CLEANUP(mem_free) char *token = mem_strdup("");
    bool more = true;

    (void)printf("%-36s  %-32s  %-16s  %-19s  %-19s  %-19s  %s\n", "SESSION", "USER", "PROVIDER",
                 "SINCE (UTC)", "LAST USE (UTC)", "UNTIL (UTC)", "FROM");
    while (more) {
        Postern__ListSessionsRequest request = POSTERN__LIST_SESSIONS_REQUEST__INIT;
        ProtobufCMessage *answer = NULL;
        Postern__ListSessionsResponse *page = NULL;

        request.filter = filter;
        request.page_size = PAGE;
        request.page_token = token;
        answer = cli_broker_call(b, PATH("List"), &request.base,
                                 &postern__list_sessions_response__descriptor, CALL_MS);
        if (answer == NULL) {
            return 1;
        }
        page = (Postern__ListSessionsResponse *)(void *)answer;
        for (size_t i = 0; i < page->n_sessions; i++) {
            print_row(page->sessions[i]);
        }
        mem_free(&token);
        token = mem_strdup(page->next_page_token);
        more = token[0] != '\0';
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    return 0;
}

static int show(const struct cli_broker *b, const char *id)
{
    Postern__GetSessionRequest request = POSTERN__GET_SESSION_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;
    Postern__SessionInfo *s = NULL;
    char issued[CLOCK_TEXT_SIZE];
    char used[CLOCK_TEXT_SIZE];
    char expires[CLOCK_TEXT_SIZE];

    request.session_id = base_unconst(id);
    answer = cli_broker_call(b, PATH("Get"), &request.base,
                             &postern__get_session_response__descriptor, CALL_MS);
    if (answer == NULL) {
        return 1;
    }
    s = ((Postern__GetSessionResponse *)(void *)answer)->session;
    if (s != NULL) {
        (void)printf(
            "session   %s\nuser      %s\ne-mail    %s\nname      %s\nprovider  %s\n"
            "from      %s\nsince     %s UTC\nlast use  %s UTC\nuntil     %s UTC\nversion   %" PRIu64
            "\n",
            cli_tame(s->id), shown(s->user_id), shown(s->email), shown(s->name), shown(s->idp_id),
            shown(s->address), time_text(s->issued_at, issued), time_text(s->accessed_at, used),
            time_text(s->expires_at, expires), s->record_version);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return 0;
}

/* False: it failed and was said. */
static bool revoke(const struct cli_broker *b, Postern__SessionFilter *filter,
                   uint64_t *revoked_out, bool *known_out)
{
    Postern__RevokeSessionsRequest request = POSTERN__REVOKE_SESSIONS_REQUEST__INIT;
    ProtobufCMessage *answer = NULL;

    request.filter = filter;
    answer = cli_broker_call(b, PATH("Revoke"), &request.base,
                             &postern__revoke_sessions_response__descriptor, REVOKE_MS);
    if (answer == NULL) {
        return false;
    }
    *revoked_out = ((const Postern__RevokeSessionsResponse *)(const void *)answer)->revoked;
    *known_out = ((const Postern__RevokeSessionsResponse *)(const void *)answer)->user_known;
    if (!((const Postern__RevokeSessionsResponse *)(const void *)answer)->confirmed) {
        (void)fprintf(stderr,
                      "warning: an authorize has not confirmed it within a second and may let "
                      "them in for a moment; the databroker's log says where "
                      "(databroker.unconfirmed)\n");
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return true;
}

static int revoke_one(const struct cli_broker *b, const char *id)
{
    Postern__SessionFilter filter = POSTERN__SESSION_FILTER__INIT;
    uint64_t revoked = 0;
    bool known = false;

    filter.session_id = base_unconst(id);
    if (!revoke(b, &filter, &revoked, &known)) {
        return 1;
    }
    if (revoked == 0) {
        return cli_fail(1, "there is no session %s", id);
    }
    (void)printf("revoked %s\n", id);
    return 0;
}

static int revoke_fitting(const struct cli_broker *b, Postern__SessionFilter *filter)
{
    const char *user = filter->user;
    uint64_t revoked = 0;
    bool known = false;

    if (!revoke(b, filter, &revoked, &known)) {
        return 1;
    }
    if (revoked == 0 && user[0] != '\0' && !known) {
        return cli_fail(1, "nobody by the name %s has ever logged in: nothing was revoked", user);
    }
    (void)printf("revoked %" PRIu64 " session%s%s%s\n", revoked, revoked == 1 ? "" : "s",
                 user[0] != '\0' ? " of " : "", user);
    return 0;
}

struct order {
    struct cli_broker broker;
    Postern__SessionFilter filter;
    Google__Protobuf__Timestamp before;
    bool narrowed; /* an option of the filter was given */
};

/* False: it is no option of ours, or its value is none and that was said. */
static bool take_option(struct order *o, int option, char *value)
{
    int64_t age_s = 0;

    if (cli_broker_option(&o->broker, option, value)) {
        return true;
    }
    o->narrowed = true;
    switch (option) {
    case 'u':
        o->filter.user = value;
        return true;
    case 'p':
        o->filter.idp_id = value;
        return true;
    case 'A':
        o->filter.address = value;
        return true;
    case 'o':
        if (cli_duration(value, &age_s) != ERR_OK) {
            (void)cli_fail(2, "--older-than '%s' is no duration such as 90m, 24h or 30d", value);
            return false;
        }
        o->before.seconds = clock_wall_s() - age_s;
        o->filter.issued_before = &o->before;
        return true;
    default:
        return false;
    }
}

static int run_sessions(struct order *o, int argc, char **argv)
{
    int code = 0;

    if (strcmp(argv[0], "list") == 0 && argc == 1) {
        return list(&o->broker, &o->filter);
    }
    if (strcmp(argv[0], "show") == 0 && argc == 2) {
        return show(&o->broker, argv[1]);
    }
    if (strcmp(argv[0], "revoke") != 0 || (argc == 1) != o->narrowed) {
        (void)fputs(sessions_help, stderr);
        return 2;
    }
    if (argc == 1) {
        return revoke_fitting(&o->broker, &o->filter);
    }
    for (int i = 1; i < argc; i++) {
        int one = revoke_one(&o->broker, argv[i]);

        code = one > code ? one : code;
    }
    return code;
}

static int run_users(struct order *o, int argc, char **argv)
{
    if (argc != 2 || strcmp(argv[0], "revoke") != 0 || o->narrowed) {
        (void)fputs(users_help, stderr);
        return 2;
    }
    o->filter.user = argv[1];
    return revoke_fitting(&o->broker, &o->filter);
}

static int run(int argc, char **argv, const char *help,
               int (*run_words)(struct order *o, int argc, char **argv))
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "user", required_argument, NULL, 'u' },
                                             { "provider", required_argument, NULL, 'p' },
                                             { "address", required_argument, NULL, 'A' },
                                             { "older-than", required_argument, NULL, 'o' },
                                             { 0 } };
    struct order o = { .narrowed = false };
    int option = 0;
    int code = 0;

    postern__session_filter__init(&o.filter);
    google__protobuf__timestamp__init(&o.before);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take_option(&o, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind >= argc) {
        (void)fputs(help, stderr);
        return 2;
    }
    code = cli_broker_open(&o.broker) ? run_words(&o, argc - optind, argv + optind) : 1;
    cli_broker_close(&o.broker);
    return code;
}

int cli_sessions_main(int argc, char **argv)
{
    return run(argc, argv, sessions_help, run_sessions);
}

int cli_users_main(int argc, char **argv)
{
    return run(argc, argv, users_help, run_users);
}
