/* postern policy diff: which verdicts change between two configurations, over real users. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/people.h"
#include "cli/policy_cmd.h"
#include "cli/policy_input.h"
#include "common/mem.h"
#include "common/policy/central.h"
#include "common/policy/trace.h"

enum {
    EXAMPLES = 3,
    EXAMPLE_MAX = 80,
    CONDITIONS_MAX = 1 << 20,
    NO_ROUTE = POLICY_DEVICE + 1,
    OUTCOMES = NO_ROUTE + 1,
    STATES = OUTCOMES * 2 /* an outcome, and whether the request could change it */
};

static const char help[] =
    "usage: postern policy diff [options] OLD NEW\n\n"
    "OLD and NEW are configuration files. Asks the policies of both about every user of the\n"
    "databroker and its directory, and about a visitor who is not logged in, on every route, and\n"
    "tells which verdicts change. Nothing is changed by it.\n\n"
    "  --users FILE   ask about these users instead: a users file of the local provider, or a list\n"
    "                 of what `input` of `postern policy test` holds\n"
    "  --json         for programs (docs/explain.md)\n"
    "  --config FILE  how the databroker is reached (OLD); or a token:\n"
    "  --token-file FILE, --ca-file FILE, --databroker TARGET  as with `postern sessions`\n\n"
    "Assumed: GET, the path and host of the route, now, a user who has logged in, and where client\n"
    "certificates are asked for, one that is trusted. A verdict that the request could change says\n"
    "what it depends on.\n"
    "Exit code: 0 no verdict changes, 1 some do, 2 the files or the users cannot be used.\n";

/* --- one side ------------------------------------------------------------------------------------ */

/* A route's policy in one of the two configurations. */
struct version {
    const struct config_route *route; /* NULL: there is none */
    bool has_ca;                      /* for client certificates, of the whole configuration */
    struct policy *policy;            /* NULL: it does not compile */
    struct policy *best;              /* NULL: nothing hangs on the request */
    struct policy *worst;
    uint64_t open;    /* criteria that hang on the request */
    char *conditions; /* the rules that hold them; NULL: none */
};

static void version_deinit(struct version *v)
{
    policy_unref(&v->policy);
    policy_unref(&v->best);
    policy_unref(&v->worst);
    mem_free(&v->conditions);
}

struct verdict {
    int outcome; /* enum policy_outcome, or NO_ROUTE */
    bool open;   /* the request could change it */
};

static int outcome_of(const struct policy *policy, const struct policy_input *in)
{
    struct policy_verdict v = { .outcome = POLICY_DENY };

    policy_eval(policy, in, &v);
    return (int)v.outcome;
}

static struct verdict ask(const struct version *v, struct cli_policy_facts *facts)
{
    const struct config_route *route = v->route;
    struct verdict verdict = { .outcome = NO_ROUTE };

    if (route == NULL) {
        return verdict;
    }
    facts->in.host = route->host;
    facts->in.path = route->match == CONFIG_MATCH_REGEX ? SV("/") : route->match_value;
    facts->in.client_ca = route->has_client_ca || v->has_ca;
    if (v->policy != NULL) {
        cli_policy_facts_ask(facts, v->policy);
    }
    verdict.outcome = outcome_of(v->policy, &facts->in);
    verdict.open =
        v->best != NULL && outcome_of(v->best, &facts->in) != outcome_of(v->worst, &facts->in);
    return verdict;
}

/* --- the comparison ------------------------------------------------------------------------------ */

/* How many verdicts of a route went one way, and whose. */
struct change {
    size_t n;
    char examples[EXAMPLES][EXAMPLE_MAX];
};

struct pair {
    struct version from;
    struct version to;
    bool same;               /* nothing that decides has changed */
    struct change **changes; /* by state before and after; NULL: none */
};

struct diff {
    struct config *config[2];
    struct policy_central *central[2];
    struct pair *pairs;
    size_t n_pairs;
    size_t people;
    size_t verdicts;
    size_t changed;
    size_t routes_changed;
    struct diag d; /* a user that cannot be used */
};

static struct version version_new(const struct config *config, struct policy_central *central,
                                  const struct config_route *route)
{
    const struct policy_source base = { .central = central,
                                        .mtls_default_deny = config_mtls_default_deny(config) };
    struct version v = { .route = route, .has_ca = config->downstream_mtls.has_ca };
    struct diag d = { .line = 0 };

    if (policy_compile_route(route->json, route->doc, &base, &v.policy, NULL, &d) != ERR_OK) {
        return v; /* 503, as authorize answers */
    }
    v.open = policy_asks_of_request(v.policy);
    if (v.open != 0) {
        CLEANUP(buf_deinit) struct buf text;

        buf_init(&text, CONDITIONS_MAX);
        policy_asks_text(v.policy, &text);
        v.conditions = buf_take(&text);
        v.best = policy_suppose(v.policy, v.open, true);
        v.worst = policy_suppose(v.policy, v.open, false);
    }
    return v;
}

static bool same_rules(const struct diff *diff, const struct config_route *from,
                       const struct config_route *to)
{
    return json_equal(from->json, to->json) != 0 &&
           (diff->config[0]->policies == diff->config[1]->policies ||
            json_equal(diff->config[0]->policies, diff->config[1]->policies) != 0) &&
           config_mtls_default_deny(diff->config[0]) == config_mtls_default_deny(diff->config[1]);
}

static void add_pair(struct diff *diff, const struct config_route *from,
                     const struct config_route *to)
{
    struct pair *pair = &diff->pairs[diff->n_pairs++];

    pair->from.route = from;
    pair->to.route = to;
    if (from != NULL && to != NULL && same_rules(diff, from, to)) {
        pair->same = true;
        return;
    }
    if (from != NULL) {
        pair->from = version_new(diff->config[0], diff->central[0], from);
    }
    if (to != NULL) {
        pair->to = version_new(diff->config[1], diff->central[1], to);
    }
}

static void pair_routes(struct diff *diff)
{
    const struct config *from = diff->config[0];
    const struct config *to = diff->config[1];

    for (int i = 0; i < 2; i++) {
        diff->central[i] =
            policy_central_new(diff->config[i]->policies, diff->config[i]->policies_doc);
    }
    diff->pairs = mem_array(from->n_routes + to->n_routes + 1, sizeof(*diff->pairs));
    for (size_t i = 0; i < from->n_routes; i++) {
        add_pair(diff, &from->routes[i], config_route_by_id(to, from->routes[i].id));
    }
    for (size_t i = 0; i < to->n_routes; i++) {
        if (config_route_by_id(from, to->routes[i].id) == NULL) {
            add_pair(diff, NULL, &to->routes[i]);
        }
    }
}

static bool is_change(const struct pair *pair, struct verdict a, struct verdict b)
{
    if (a.outcome == NO_ROUTE || b.outcome == NO_ROUTE) { /* no route lets nobody in */
        struct verdict there = a.outcome == NO_ROUTE ? b : a;

        return there.outcome == POLICY_ALLOW || there.open;
    }
    return a.outcome != b.outcome || a.open != b.open ||
           (a.open && strcmp(pair->from.conditions, pair->to.conditions) != 0);
}

static int state_of(struct verdict v)
{
    return v.outcome * 2 + (v.open ? 1 : 0);
}

static void note(struct diff *diff, struct pair *pair, struct cli_policy_facts *facts,
                 const char *who)
{
    struct verdict a = ask(&pair->from, facts);
    struct verdict b = ask(&pair->to, facts);
    struct change **slot = NULL;

    if (!is_change(pair, a, b)) {
        return;
    }
    if (pair->changes == NULL) {
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        pair->changes = mem_array((size_t)STATES * STATES, sizeof(*pair->changes));
    }
    slot = &pair->changes[state_of(a) * STATES + state_of(b)];
    if (*slot == NULL) {
        *slot = MEM_NEW(struct change);
    }
    if ((*slot)->n < EXAMPLES) {
        (void)snprintf((*slot)->examples[(*slot)->n], EXAMPLE_MAX, "%s", who);
    }
    (*slot)->n++;
    diff->changed++;
}

static bool on_person(const json_t *person, void *arg)
{
    struct diff *diff = arg;
    CLEANUP(cli_policy_facts_deinit) struct cli_policy_facts facts = { 0 };
    const char *email = json_string_value(json_object_get(person, "email"));
    const char *who = json_string_value(json_object_get(person, "user"));

    if (cli_policy_facts_init(&facts, person, &diff->d) != ERR_OK) {
        return false;
    }
    if (email == NULL || email[0] == '\0') {
        email = json_string_value(json_object_get(person, "directory_email"));
    }
    who = email != NULL && email[0] != '\0' ? email : who;
    who = facts.in.session ? who : "(not logged in)";
    facts.in.cert_presented = true;
    facts.in.cert_trusted = true;
    diff->people++;
    for (size_t i = 0; i < diff->n_pairs; i++) {
        diff->verdicts++;
        if (!diff->pairs[i].same) {
            note(diff, &diff->pairs[i], &facts, who == NULL ? "?" : who);
        }
    }
    return true;
}

/* --- telling ------------------------------------------------------------------------------------- */

static const char *name_of(int outcome)
{
    return outcome == NO_ROUTE ? "no route" : policy_outcome_name((enum policy_outcome)outcome);
}

/* "source_ip, http_path" */
static void add_open(struct buf *out, const struct version *v)
{
    const char *between = "";

    for (unsigned bit = 0; bit < 64; bit++) {
        if ((v->open >> bit & 1U) != 0) {
            buf_printf(out, "%s%s", between, policy_criterion_name(bit));
            between = ", ";
        }
    }
}

static void add_state(struct buf *out, int state, const struct version *v)
{
    buf_add_str(out, name_of(state / 2));
    if (state % 2 != 0) {
        buf_add_str(out, " (depends on ");
        add_open(out, v);
        buf_add_char(out, ')');
    }
}

/* from and to: states. */
typedef void (*change_fn)(struct buf *out, const struct pair *pair, int from, int to,
                          const struct change *change);

/* Calls fn for each way that verdicts of pair went; whether there is one. */
static bool each_change(struct buf *out, const struct pair *pair, change_fn fn)
{
    bool any = false;

    for (int i = 0; pair->changes != NULL && i < STATES * STATES; i++) {
        if (pair->changes[i] != NULL) {
            fn(out, pair, i / STATES, i % STATES, pair->changes[i]);
            any = true;
        }
    }
    return any;
}

static void add_change(struct buf *out, const struct pair *pair, int from, int to,
                       const struct change *change)
{
    buf_printf(out, "  %6zu  ", change->n);
    add_state(out, from, &pair->from);
    buf_add_str(out, " -> ");
    add_state(out, to, &pair->to);
    buf_add_str(out, from == to ? ", on other conditions: " : ": ");
    for (size_t i = 0; i < MIN(change->n, (size_t)EXAMPLES); i++) {
        char tame[EXAMPLE_MAX];

        (void)snprintf(tame, sizeof(tame), "%s", change->examples[i]);
        buf_printf(out, "%s%s", i == 0 ? "" : ", ", cli_tame(tame));
    }
    buf_add_str(out, change->n > EXAMPLES ? ", …\n" : "\n");
}

static void add_change_json(struct buf *out, const struct pair *pair, int from, int to,
                            const struct change *change)
{
    buf_add_str(out, out->p[out->n - 1] == '[' ? "{" : ",{");
    buf_printf(out,
               "\"from\":\"%s\",\"from_open\":%s,\"to\":\"%s\",\"to_open\":%s,\"count\":%zu,"
               "\"depends\":\"",
               name_of(from / 2), from % 2 != 0 ? "true" : "false", name_of(to / 2),
               to % 2 != 0 ? "true" : "false", change->n);
    if (from % 2 + to % 2 != 0) {
        add_open(out, to % 2 != 0 ? &pair->to : &pair->from);
    }
    buf_add_str(out, "\",\"examples\":[");
    for (size_t i = 0; i < MIN(change->n, (size_t)EXAMPLES); i++) {
        buf_add_str(out, i == 0 ? "" : ",");
        buf_add_json(out, sv_from(change->examples[i]));
    }
    buf_add_str(out, "]}");
}

static void add_route(struct buf *out, const struct pair *pair, bool json)
{
    const struct config_route *a = pair->from.route;
    const struct config_route *b = pair->to.route;
    const struct config_route *route = b != NULL ? b : a;

    if (json) {
        buf_add_str(out, "{\"route\":");
        buf_add_json(out, route->id_text);
        buf_add_str(out, ",\"from\":");
        buf_add_json(out, route->from);
        buf_add_str(out, ",\"path\":");
        buf_add_json(out, route->match_value);
        buf_printf(out, ",\"old_line\":%d,\"new_line\":%d,\"changes\":[", a == NULL ? 0 : a->line,
                   b == NULL ? 0 : b->line);
        return;
    }
    buf_printf(out, "%s%s", route->from.p, route->match_value.n > 1 ? route->match_value.p : "");
    if (a != NULL && b != NULL) {
        buf_printf(out, "  (%s:%d, was %s:%d)\n", b->file, b->line, a->file, a->line);
    } else {
        buf_printf(out, "  (%s %s:%d)\n", a == NULL ? "new," : "gone, was", route->file,
                   route->line);
    }
}

static void tell(struct diff *diff, bool json)
{
    CLEANUP(buf_deinit) struct buf all;
    CLEANUP(buf_deinit) struct buf one;
    const char *between = "";

    buf_init(&all, 64 << 20);
    buf_init(&one, 1 << 20);
    for (size_t i = 0; i < diff->n_pairs; i++) {
        const struct pair *pair = &diff->pairs[i];

        buf_reset(&one);
        add_route(&one, pair, json);
        if (each_change(&one, pair, json ? add_change_json : add_change)) {
            diff->routes_changed++;
            buf_add_str(&all, json ? between : "");
            buf_add_sv(&all, buf_sv(&one));
            buf_add_str(&all, json ? "]}" : "");
            between = ",";
        }
    }
    if (json) {
        (void)printf(
            "{\"people\":%zu,\"routes\":%zu,\"verdicts\":%zu,\"changed\":%zu,\"routes_changed\":"
            "%zu,\"differences\":[%s]}\n",
            diff->people, diff->n_pairs, diff->verdicts, diff->changed, diff->routes_changed,
            buf_cstr(&all));
        return;
    }
    (void)printf("%s%zu of %zu verdicts change: %zu visitors, one of them not logged in, on %zu "
                 "routes, %zu of which change\n",
                 buf_cstr(&all), diff->changed, diff->verdicts, diff->people, diff->n_pairs,
                 diff->routes_changed);
}

/* --- the command --------------------------------------------------------------------------------- */

static void diff_deinit(struct diff *diff)
{
    for (size_t i = 0; i < diff->n_pairs; i++) {
        struct change **changes = diff->pairs[i].changes;

        for (int k = 0; changes != NULL && k < STATES * STATES; k++) {
            mem_free(&changes[k]);
        }
        mem_free(&diff->pairs[i].changes);
        version_deinit(&diff->pairs[i].from);
        version_deinit(&diff->pairs[i].to);
    }
    mem_free(&diff->pairs);
    for (int i = 0; i < 2; i++) {
        policy_central_unref(&diff->central[i]);
        config_unref(&diff->config[i]);
    }
}

/* False: it was said why not. */
static bool ask_about_all(struct diff *diff, struct cli_broker *broker, const char *users)
{
    json_t *nobody = json_object();
    struct diag d = { .line = 0 };
    char line[DIAG_LINE];
    enum err err = ERR_OK;

    (void)on_person(nobody, diff);
    json_decref(nobody);
    if (users != NULL) {
        err = cli_people_of_file(users, on_person, diff, &d);
    } else {
        err = cli_broker_open(broker) ? cli_people_of_broker(broker, on_person, diff)
                                      : ERR_UNAVAILABLE;
    }
    if (diff->d.text[0] != '\0') {
        d = diff->d;
        diag_at(&d, users, 0, 0);
    }
    if (d.text[0] != '\0') {
        (void)cli_fail(2, "%s", diag_format(&d, line));
    }
    return err == ERR_OK && d.text[0] == '\0';
}

static int compare(const char *const files[2], struct cli_broker *broker, const char *users,
                   bool json)
{
    CLEANUP(diff_deinit) struct diff diff = { .people = 0 };

    for (int i = 0; i < 2; i++) {
        diff.config[i] = cli_config(files[i]);
        if (diff.config[i] == NULL) {
            return 2;
        }
    }
    pair_routes(&diff);
    broker->config_file = broker->config_file != NULL ? broker->config_file : files[0];
    if (!ask_about_all(&diff, broker, users)) {
        return 2;
    }
    tell(&diff, json);
    return diff.changed == 0 ? 0 : 1;
}

int cli_policy_diff_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_BROKER_OPTIONS,
                                             { "users", required_argument, NULL, 'u' },
                                             { "json", no_argument, NULL, 'j' },
                                             { 0 } };
    struct cli_broker broker = { .config = NULL };
    const char *users = NULL;
    bool json = false;
    int option = 0;
    int code = 0;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread yet */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'u') {
            users = optarg;
        } else if (option == 'j') {
            json = true;
        } else if (!cli_broker_option(&broker, option, optarg)) {
            (void)fputs(help, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (argc - optind != 2) {
        (void)fputs(help, stderr);
        return 2;
    }
    const char *const files[2] = { argv[optind], argv[optind + 1] };

    code = compare(files, &broker, users, json);
    cli_broker_close(&broker);
    return code;
}
