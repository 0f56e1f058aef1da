/* postern explain: why a request is, or was, decided as it is. */
#include "cli/explain.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "authorize.pb-c.h"

#include "cli/command.h"
#include "cli/file.h"
#include "cli/policy_input.h"
#include "common/clock.h"
#include "common/date.h"
#include "common/http/canon.h"
#include "common/http/name.h"
#include "common/http/url.h"
#include "common/mem.h"
#include "common/policy/central.h"
#include "common/policy/trace.h"
#include "common/route/table.h"

enum { HEADERS_MAX = 64, TIMEOUT_MS = 10000, TEXT_MAX = 8 << 20, FACTS_MAX = 1 << 20 };

static const char help[] =
    "usage: postern explain REQUEST-ID\n"
    "       postern explain URL [--user USER] [options]\n"
    "       postern explain --route ROUTE [--user USER] [options]\n"
    "       postern explain --route ROUTE --facts FILE\n\n"
    "Says why: the verdict, the rules and the facts that made it, what would change it.\n"
    "The first form explains what was decided for a request, by the id of its error page or of\n"
    "the log, and what would be decided now. The next two ask a running authorize what it would\n"
    "decide, for the route that a URL belongs to or one that is named. The last needs no server: FILE holds the facts, as `input` of `postern policy\n"
    "test` does.\n\n"
    "  --route ROUTE       id, name or `from` of the route\n"
    "  --user USER         e-mail address or user id; without: a visitor who is not logged in\n"
    "  --session SESSION   this session instead of the user's newest\n"
    "  --path PATH         of the request, decoded, without query (/)\n"
    "  --method METHOD     (GET)\n"
    "  --ip ADDRESS        of the client; without: not known\n"
    "  --host HOST         (the route's)\n"
    "  --header 'N: V'     of the request; what no criterion reads makes no difference\n"
    "  --time TIME         suppose that it is then: 2026-05-01T12:00:00Z\n"
    "  --json              the document, for programs (docs/explain.md)\n"
    "  --authorize TARGET  unix:/path or host:port (authorize_service_url)\n"
    "  --config FILE       configuration with the shared secret (run/config.yaml)\n\n"
    "Exit code: 0 explained, whatever the verdict; 1 not; 2 used wrongly.\n";

struct ask {
    const char *config_file;
    const char *target;
    const char *request_id;
    const char *route;
    const char *user;
    const char *session;
    const char *path;
    const char *method;
    const char *ip;
    const char *host;
    const char *time;
    const char *facts;
    const char *headers[HEADERS_MAX]; /* "Name: value" */
    size_t n_headers;
    const char *no_header; /* what was given as one and is none */
    bool origin;           /* the header fields that a preflight has */
    bool requested_method;
    bool json;
};

/* --- the route of a URL -------------------------------------------------------------------------- */

/* Puts the route, the host and the path of a URL into ask; texts lie in arena. False: it has none,
 * which was said. */
static bool take_url(struct ask *ask, const char *text, const struct config *config,
                     struct arena *arena)
{
    static const struct http_canon_rules strict;
    struct route_table *table = route_table_new(config->routes, config->n_routes);
    const struct config_route *route = NULL;
    struct http_request request = { .redirect = false };
    struct http_url url;
    struct diag d = { .line = 0 };
    struct sv path = { 0 };
    bool unclear = false;
    char line[DIAG_LINE];

    if (http_url_parse(sv_from(text), &url, &d) != ERR_OK) {
        (void)cli_fail(2, "%s: %s", text, diag_format(&d, line));
    } else if (http_canon_path(url.path.n == 0 ? SV("/") : url.path, &strict, arena, &path, NULL) !=
               HTTP_FAULT_NONE) {
        (void)cli_fail(1, "%s: the path is refused before any policy is asked (400)", text);
    } else {
        http_canon_set_path(&request, path, arena);
        route = route_table_find(table, url.host, url.port, request.decoded, &unclear);
        if (route == NULL) {
            (void)cli_fail(1,
                           unclear ? "%s: the path has two readings, of two routes (400)"
                                   : "%s: no route fits, the answer is 404",
                           text);
        }
    }
    if (route != NULL) {
        ask->route = route->id_text.p;
        ask->path = arena_str(arena, request.decoded);
        ask->host = arena_str(arena, url.host);
    }
    route_table_free(&table);
    return route != NULL;
}

/* --- asking authorize ---------------------------------------------------------------------------- */

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){ .len = text == NULL ? 0 : strlen(text),
                                  .data = base_unconst(text) };
}

static size_t fill_headers(const struct ask *ask, Postern__RequestHeader *headers,
                           Postern__RequestHeader **list)
{
    for (size_t i = 0; i < ask->n_headers; i++) {
        struct sv value = sv_from(ask->headers[i]);
        struct sv name = sv_trim(sv_cut(&value, ':'));

        value = sv_trim(value);
        headers[i] = (Postern__RequestHeader)POSTERN__REQUEST_HEADER__INIT;
        headers[i].name.data = base_unconst(name.p);
        headers[i].name.len = name.n;
        headers[i].value.data = base_unconst(value.p);
        headers[i].value.len = value.n;
        list[i] = &headers[i];
    }
    return ask->n_headers;
}

/* Whether a request could be like that; if not, it was said. host_out: the one spelling of it. */
static bool is_possible(const struct ask *ask, char room[HTTP_HOST_MAX + 1], struct sv *host_out)
{
    if (ask->no_header != NULL) {
        (void)cli_fail(2, "--header '%s' is no 'Name: value', or one of more than %d",
                       ask->no_header, HEADERS_MAX);
        return false;
    }
    if (!http_is_token(sv_from(ask->method))) {
        (void)cli_fail(2, "--method '%s' is no method", ask->method);
        return false;
    }
    if (ask->path[0] != '/') {
        (void)cli_fail(2, "--path '%s' does not begin with a slash", ask->path);
        return false;
    }
    if (ask->host != NULL && http_host_canonical(sv_from(ask->host), room, host_out) != ERR_OK) {
        (void)cli_fail(2, "--host '%s' is no name of a host; leave out the port", ask->host);
        return false;
    }
    return true;
}

/* False: something cannot be read, which was said. */
static bool fill(const struct ask *ask, uint8_t ip[16], Postern__CheckRequest *check,
                 Postern__ExplainRequest *question)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff }; /* IPv4 inside IPv6 */
    struct date date = { 0 };

    check->session = base_unconst(ask->session == NULL ? "" : ask->session);
    check->path = bytes_of(ask->path);
    check->method = bytes_of(ask->method);
    check->cors_preflight =
        ask->origin && ask->requested_method && strcmp(ask->method, "OPTIONS") == 0;
    question->route = base_unconst(ask->route);
    question->user = base_unconst(ask->user == NULL ? "" : ask->user);
    question->check = check;
    if (ask->ip != NULL && cidr_ip_parse(sv_from(ask->ip), ip) != ERR_OK) {
        (void)cli_fail(2, "--ip %s is no address", ask->ip);
        return false;
    }
    if (ask->ip != NULL && memcmp(ip, mapped, sizeof(mapped)) == 0) {
        check->client_ip = (ProtobufCBinaryData){ .len = 4, .data = ip + sizeof(mapped) };
    } else if (ask->ip != NULL) {
        check->client_ip = (ProtobufCBinaryData){ .len = 16, .data = ip };
    }
    if (ask->time != NULL && date_parse(sv_from(ask->time), &date) != ERR_OK) {
        (void)cli_fail(2, "--time %s is no time such as 2026-05-01T12:00:00Z", ask->time);
        return false;
    }
    question->time_ms = ask->time == NULL ? 0 : date_wall_ms(&date);
    return true;
}

static void tell_failure(const char *target, enum rpc_status status, char *text)
{
    if (status == RPC_DEADLINE_EXCEEDED || status == RPC_UNAVAILABLE) {
        (void)cli_fail(1,
                       "authorize at %s does not answer; is it running, and is the shared secret "
                       "the same?",
                       target);
    } else {
        (void)cli_fail(1, "%s",
                       text[0] == '\0' ? "authorize refused the question" : cli_tame(text));
    }
}

/* An answer that is being looked for at one place after the other. */
struct search {
    const struct rpc_identity *identity;
    const Postern__ExplainRequest *question;
    ProtobufCMessage *answer; /* NULL: not found yet */
    char not_found[RPC_TEXT_MAX];
};

static void ask_one(struct search *search, const char *target)
{
    const struct rpc_client_opts opts = { .target = target,
                                          .server = RPC_AUTHORIZE,
                                          .identity = search->identity };
    char text[RPC_TEXT_MAX] = "";
    enum rpc_status status =
        rpc_call_wait(&opts, "/postern.Authorize/Explain", &search->question->base,
                      &postern__explanation__descriptor, TIMEOUT_MS, &search->answer, text);

    if (status == RPC_NOT_FOUND) {
        (void)snprintf(search->not_found, sizeof(search->not_found), "%s", text);
    } else if (status != RPC_OK) {
        tell_failure(target, status, text);
    }
}

/* Behind one name stand as many as it has addresses. */
static void ask_each_address(struct search *search, const struct config_target *target)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *found = NULL;
    char port[8];

    (void)snprintf(port, sizeof(port), "%u", target->port);
    if (target->is_unix || getaddrinfo(target->host.p, port, &hints, &found) != 0) {
        ask_one(search, target->text.p);
        return;
    }
    for (const struct addrinfo *at = found; at != NULL && search->answer == NULL;
         at = at->ai_next) {
        char host[INET6_ADDRSTRLEN];
        char address[INET6_ADDRSTRLEN + 16];

        if (getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) ==
            0) {
            (void)snprintf(address, sizeof(address),
                           at->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
            ask_one(search, address);
        }
    }
    freeaddrinfo(found);
}

/* Asks one authorize after the other until one can answer: for a past request only the one that
 * decided it can. NULL: none can, which was said. */
static Postern__Explanation *ask_authorize(const struct ask *ask, const struct config *config,
                                           const Postern__ExplainRequest *question)
{
    struct rpc_identity *identity = rpc_identity_new(config->keys, RPC_CLI);
    struct search search = { .identity = identity, .question = question };

    if (ask->target != NULL) {
        ask_one(&search, ask->target);
    }
    for (size_t i = 0; ask->target == NULL && i < config->authorize.n && search.answer == NULL;
         i++) {
        ask_each_address(&search, &config->authorize.v[i]);
    }
    if (search.answer == NULL && search.not_found[0] != '\0') {
        (void)cli_fail(1, "%s", cli_tame(search.not_found));
    }
    rpc_identity_free(&identity);
    return (Postern__Explanation *)(void *)search.answer;
}

/* --- without a server ---------------------------------------------------------------------------- */

static enum err trace_facts(const struct config *config, const struct config_route *route,
                            const json_t *input, struct buf *out, struct diag *d)
{
    CLEANUP(cli_policy_facts_deinit) struct cli_policy_facts facts = { 0 };
    CLEANUP(policy_unref) struct policy *policy = NULL;
    CLEANUP(policy_central_unref)
    struct policy_central *central = policy_central_new(config->policies, config->policies_doc);
    const struct policy_source base = { .central = central,
                                        .mtls_default_deny = config_mtls_default_deny(config) };
    struct policy_verdict v = { .outcome = POLICY_DENY };
    CLEANUP(buf_deinit) struct buf trace;
    enum err err = cli_policy_facts_init(&facts, input, d);

    buf_init(&trace, TEXT_MAX);
    if (err == ERR_OK) {
        err = policy_compile_route(route->json, route->doc, &base, &policy, NULL, d);
    }
    if (err != ERR_OK) {
        return err;
    }
    cli_policy_facts_ask(&facts, policy);
    policy_trace(policy, &facts.in, 0, &trace, &v);
    buf_printf(out,
               "{\"verdict\":\"%s\",\"status\":%d,\"reasons\":", policy_outcome_name(v.outcome),
               v.status);
    policy_trace_reasons(out, v.reasons);
    buf_add_str(out, ",\"route\":{\"id\":");
    buf_add_json(out, route->id_text);
    buf_add_str(out, ",\"from\":");
    buf_add_json(out, route->from);
    buf_add_str(out, ",\"file\":");
    buf_add_json(out, sv_from(route->file));
    buf_printf(out, ",\"line\":%d},\"trace\":", route->line);
    buf_add_sv(out, buf_sv(&trace));
    buf_add_char(out, '}');
    return trace.err != ERR_OK ? trace.err : out->err;
}

static int explain_facts(const struct ask *ask, const struct config *config, struct buf *out)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    const struct config_route *route = NULL;
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    char *text = NULL;
    enum err err = config_route_named(config, sv_from(ask->route), &route, &d);

    if (err == ERR_OK) {
        err = cli_file_read(ask->facts, FACTS_MAX, &text, &d);
    }
    if (err == ERR_OK) {
        err = yaml_parse(sv_from(text), ask->facts, &doc, &d);
    }
    if (err == ERR_OK) {
        err = trace_facts(config, route, yaml_root(doc), out, &d);
    }
    mem_free(&text);
    return err == ERR_OK ? 0 : cli_fail(1, "%s", diag_format(&d, line));
}

/* --- the command --------------------------------------------------------------------------------- */

static int show(const struct ask *ask, struct sv document)
{
    CLEANUP(buf_deinit) struct buf text;
    json_t *tree = json_loadb(document.p, document.n, JSON_REJECT_DUPLICATES, NULL);

    buf_init(&text, TEXT_MAX);
    if (tree == NULL) {
        return cli_fail(1, "the explanation that came is not JSON");
    }
    if (ask->json) {
        char *dump = json_dumps(tree, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);

        buf_add_str(&text, dump == NULL ? "" : dump);
        buf_add_char(&text, '\n');
        mem_release(dump);
    } else {
        cli_explain_text(tree, clock_wall_ms(), &text);
    }
    json_decref(tree);
    (void)fputs(buf_cstr(&text), stdout);
    return text.err == ERR_OK ? 0 : cli_fail(1, "the explanation is too long");
}

static int explain(const struct ask *ask, const struct config *config)
{
    CLEANUP(buf_deinit) struct buf document;
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    Postern__ExplainRequest question = POSTERN__EXPLAIN_REQUEST__INIT;
    Postern__Explanation *answer = NULL;
    Postern__RequestHeader headers[HEADERS_MAX];
    Postern__RequestHeader *list[HEADERS_MAX];
    char room[HTTP_HOST_MAX + 1];
    struct sv host = { 0 };
    uint8_t ip[16];
    int code = 1;

    buf_init(&document, TEXT_MAX);
    if (ask->facts != NULL) {
        code = explain_facts(ask, config, &document);
        return code != 0 ? code : show(ask, buf_sv(&document));
    }
    if (ask->request_id != NULL) {
        question.request_id = bytes_of(ask->request_id);
    } else if (!is_possible(ask, room, &host) || !fill(ask, ip, &check, &question)) {
        return 2;
    }
    check.host = (ProtobufCBinaryData){ .len = host.n, .data = base_unconst(host.p) };
    check.headers = list;
    check.n_headers = fill_headers(ask, headers, list);
    answer = ask_authorize(ask, config, &question);
    if (answer == NULL) {
        return 1;
    }
    code = show(ask, sv_of(answer->document.data, answer->document.len));
    postern__explanation__free_unpacked(answer, NULL);
    return code;
}

static void take_header(struct ask *ask, const char *line)
{
    struct sv rest = sv_from(line);
    struct sv name = sv_trim(sv_cut(&rest, ':'));
    bool filled = rest.p != NULL && sv_trim(rest).n != 0;

    if (http_is_token(name) && rest.p != NULL && ask->n_headers < HEADERS_MAX) {
        ask->headers[ask->n_headers++] = line;
    } else {
        ask->no_header = line;
    }
    ask->origin = ask->origin || (filled && sv_ieq(name, SV("origin")));
    ask->requested_method =
        ask->requested_method || (filled && sv_ieq(name, SV("access-control-request-method")));
}

static bool take_option(struct ask *ask, int option, const char *value)
{
    const struct {
        int option;
        const char **place;
    } texts[] = { { 'c', &ask->config_file }, { 'a', &ask->target },  { 'r', &ask->route },
                  { 'u', &ask->user },        { 's', &ask->session }, { 'p', &ask->path },
                  { 'm', &ask->method },      { 'i', &ask->ip },      { 'o', &ask->host },
                  { 't', &ask->time },        { 'f', &ask->facts } };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].option == option) {
            *texts[i].place = value;
            return true;
        }
    }
    if (option == 'e') {
        take_header(ask, value);
    }
    ask->json = ask->json || option == 'j';
    return option == 'e' || option == 'j';
}

int cli_explain_main(int argc, char **argv)
{
    static const struct option options[] = { { "config", required_argument, NULL, 'c' },
                                             { "authorize", required_argument, NULL, 'a' },
                                             { "route", required_argument, NULL, 'r' },
                                             { "user", required_argument, NULL, 'u' },
                                             { "session", required_argument, NULL, 's' },
                                             { "path", required_argument, NULL, 'p' },
                                             { "method", required_argument, NULL, 'm' },
                                             { "ip", required_argument, NULL, 'i' },
                                             { "host", required_argument, NULL, 'o' },
                                             { "time", required_argument, NULL, 't' },
                                             { "facts", required_argument, NULL, 'f' },
                                             { "header", required_argument, NULL, 'e' },
                                             { "json", no_argument, NULL, 'j' },
                                             { "help", no_argument, NULL, 'h' },
                                             { 0 } };
    struct ask ask = { .path = "/", .method = "GET" };
    CLEANUP(arena_deinit) struct arena arena;
    struct config *config = NULL;
    const char *what = NULL;
    int option = 0;
    int code = 1;

    arena_init(&arena);

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take_option(&ask, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    what = optind < argc ? argv[optind] : NULL;
    if (argc - optind > 1 || (what == NULL) == (ask.route == NULL)) {
        (void)fputs(help, stderr);
        return 2;
    }
    config = cli_config(ask.config_file);
    if (config == NULL) {
        return 1;
    }
    if (what != NULL && strstr(what, "://") == NULL) {
        ask.request_id = what;
    }
    if (what == NULL || ask.request_id != NULL || take_url(&ask, what, config, &arena)) {
        code = explain(&ask, config);
    }
    config_unref(&config);
    return code;
}
