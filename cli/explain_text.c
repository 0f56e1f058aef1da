#include <string.h>

#include "cli/command.h"
#include "cli/explain.h"
#include "common/date.h"
#include "common/mem.h"

enum { LIST_MAX = 8, CHANGES_MAX = 6 };

/* --- pieces -------------------------------------------------------------------------------------- */

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));

    return value == NULL ? "" : value;
}

static bool has(const json_t *object, const char *key)
{
    return text(object, key)[0] != '\0';
}

static bool flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void add(struct buf *out, const char *value)
{
    char *tame = cli_tame(mem_strdup(value));

    buf_add_str(out, tame);
    mem_free(&tame);
}

static void add_member(struct buf *out, const json_t *object, const char *key)
{
    add(out, text(object, key));
}

static void add_value(struct buf *out, const json_t *value)
{
    if (json_is_string(value)) {
        add(out, json_string_value(value));
    } else if (json_is_array(value)) {
        size_t n = json_array_size(value);

        buf_add_char(out, '[');
        for (size_t i = 0; i < MIN(n, (size_t)LIST_MAX); i++) {
            const json_t *one = json_array_get(value, i);
            char *dump = json_is_string(one) ? mem_strdup(json_string_value(one))
                                             : json_dumps(one, JSON_COMPACT | JSON_ENCODE_ANY);

            buf_add_str(out, i == 0 ? "" : ", ");
            add(out, dump == NULL ? "?" : dump);
            mem_release(dump);
        }
        buf_add_str(out, n > LIST_MAX ? ", …]" : "]");
    } else if (value != NULL) {
        char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

        add(out, dump == NULL ? "?" : dump);
        mem_release(dump);
    }
}

static void add_reasons(struct buf *out, const json_t *object, const char *key)
{
    const json_t *names = json_object_get(object, key);

    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));

        buf_add_str(out, i == 0 ? "" : ", ");
        add(out, name == NULL ? "?" : name);
    }
}

/* "3 min ago"; the moment itself where it is no date. */
static void add_age(struct buf *out, const json_t *object, const char *key, int64_t now_ms)
{
    struct date date = { 0 };
    int64_t s = 0;

    if (date_parse(sv_from(text(object, key)), &date) != ERR_OK) {
        add_member(out, object, key);
        return;
    }
    s = (now_ms - date_wall_ms(&date)) / 1000;
    buf_add_str(out, s < 0 ? "in " : "");
    s = s < 0 ? -s : s;
    if (s < 120) {
        buf_printf(out, "%lld s", (long long)s);
    } else if (s < INT64_C(2) * 3600) {
        buf_printf(out, "%lld min", (long long)(s / 60));
    } else if (s < INT64_C(48) * 3600) {
        buf_printf(out, "%lld h", (long long)(s / 3600));
    } else {
        buf_printf(out, "%lld days", (long long)(s / 86400));
    }
    buf_add_str(out, now_ms >= date_wall_ms(&date) ? " ago" : "");
}

/* --- the head ------------------------------------------------------------------------------------ */

static const char *in_capitals(const char *verdict)
{
    return strcmp(verdict, "allow") == 0         ? "ALLOWED"
           : strcmp(verdict, "login") == 0       ? "LOGIN NEEDED"
           : strcmp(verdict, "unavailable") == 0 ? "NO VERDICT"
           : strcmp(verdict, "device") == 0      ? "DEVICE NEEDED"
                                                 : "DENIED";
}

static void add_verdict(struct buf *out, const json_t *object)
{
    long long status = number(object, "status");

    buf_add_str(out, in_capitals(text(object, "verdict")));
    if (status != 0 && status != 200) {
        buf_printf(out, " (%lld)", status);
    }
    buf_add_str(out, ": ");
    add_reasons(out, object, "reasons");
    if (json_array_size(json_object_get(object, "reasons")) == 0) {
        buf_add_str(out, "no rule said anything");
    }
    buf_add_char(out, '\n');
}

static void add_past(struct buf *out, const json_t *doc, int64_t now_ms)
{
    const json_t *past = json_object_get(doc, "past");

    buf_add_str(out, "Then: ");
    add_verdict(out, past);
    buf_add_str(out, "      ");
    add_age(out, past, "time", now_ms);
    buf_add_str(out, ", at ");
    add_member(out, past, "time");
    buf_add_str(out, flag(past, "recheck") ? ", an open connection was looked at again\n" : "\n");
    buf_add_str(out, "Now:  ");
    add_verdict(out, doc);
    buf_add_str(out, flag(past, "rules_changed")
                         ? "      The rules of the route have changed since."
                         : "      The rules of the route are the same.");
    buf_add_str(out, flag(past, "facts_changed")
                         ? " The facts about the visitor have changed since.\n"
                         : " The facts about the visitor are the same.\n");
    if (flag(past, "cut")) {
        buf_add_str(out, "      The request was longer than is remembered: what hangs on its path "
                         "may differ.\n");
    }
    if (flag(past, "certificate") && !flag(past, "certificate_known")) {
        buf_add_str(out, "      A client certificate was shown; which one is not remembered.\n");
    }
}

static void add_route(struct buf *out, const json_t *doc)
{
    const json_t *route = json_object_get(doc, "route");
    const json_t *request = json_object_get(doc, "request");

    if (route != NULL) {
        buf_add_str(out, "  route    ");
        add_member(out, route, has(route, "name") ? "name" : "id");
        buf_add_str(out, "  ");
        add_member(out, route, "from");
        add_member(out, route, "path");
        buf_add_str(out, "  (");
        add_member(out, route, "file");
        buf_printf(out, ":%lld)\n", number(route, "line"));
    }
    if (route != NULL && has(route, "mistake")) {
        buf_add_str(out, "  mistake  ");
        add_member(out, route, "mistake");
        buf_add_char(out, '\n');
    }
    if (request != NULL) {
        buf_add_str(out, "  request  ");
        add_member(out, request, "method");
        buf_add_char(out, ' ');
        add_member(out, request, "host");
        add_member(out, request, "path");
        buf_add_str(out, has(request, "ip") ? " from " : "");
        add_member(out, request, "ip");
        buf_add_str(out, flag(doc, "supposed_time") ? ", supposed at " : ", at ");
        add_member(out, request, "time");
        buf_add_char(out, '\n');
    }
}

static const char *state_text(const char *state)
{
    static const char *const texts[][2] = {
        { "live", "live" },
        { "expired", "over" },
        { "idle", "there, but was not used for too long for this route" },
        { "too-old", "there, but its login is too long ago for this route" },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (strcmp(state, texts[i][0]) == 0) {
            return texts[i][1];
        }
    }
    return "not there: revoked, or signed out";
}

static void add_who(struct buf *out, const json_t *doc, int64_t now_ms)
{
    const json_t *who = json_object_get(doc, "who");
    const char *state = text(who, "session_state");

    if (who == NULL) {
        return;
    }
    buf_add_str(out, "  visitor  ");
    if (has(who, "user")) {
        add_member(out, who, has(who, "email") ? "email" : "user");
        buf_add_str(out, " (user ");
        add_member(out, who, "user");
        buf_add_str(out, ")");
    } else {
        buf_add_str(out, strcmp(state, "none") == 0 ? "nobody is logged in" : "unknown");
    }
    if (has(who, "session")) {
        buf_add_str(out, ", session ");
        add_member(out, who, "session");
        buf_printf(out, " is %s", state_text(state));
    }
    if (has(who, "session_ends")) {
        buf_add_str(out, ", ends ");
        add_age(out, who, "session_ends", now_ms);
    }
    buf_add_char(out, '\n');
    if (flag(doc, "supposed_login")) {
        buf_add_str(out, "           They have no live session. This is the verdict after a login, "
                         "without what only a session knows.\n");
    }
}

/* --- why ----------------------------------------------------------------------------------------- */

static const char *says(const json_t *rule)
{
    static const char *const ops[][2] = { { "and", "all must hold" },
                                          { "or", "one must hold" },
                                          { "not", "none may hold" },
                                          { "nor", "one must not hold" } };
    const char *op = text(rule, "operator");

    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (strcmp(ops[i][0], op) == 0) {
            return ops[i][1];
        }
    }
    return op;
}

static void add_saying(struct buf *out, const json_t *criterion)
{
    long long others = number(criterion, "others");

    add_member(out, criterion, "name");
    buf_add_str(out, ": ");
    add_member(out, criterion, "policy");
    buf_add_str(out, flag(criterion, "cut") ? "…" : "");
    if (others != 0) {
        buf_printf(out, ", or one of %lld more", others);
    }
}

static void add_fact(struct buf *out, const json_t *criterion)
{
    long long more = number(criterion, "more");

    if (has(criterion, "missing")) {
        add_member(out, criterion, "missing");
        return;
    }
    buf_add_str(out, "it is ");
    add_value(out, json_object_get(criterion, "fact"));
    if (more != 0) {
        buf_printf(out, " and %lld more", more);
    }
}

static void add_criterion(struct buf *out, const json_t *criterion)
{
    buf_add_str(out, flag(criterion, "held") ? "      yes  " : "      no   ");
    add_saying(out, criterion);
    buf_add_str(out, "\n             ");
    add_fact(out, criterion);
    buf_add_str(out, has(criterion, "reason") ? "  [" : "");
    add_member(out, criterion, "reason");
    buf_add_str(out, has(criterion, "reason") ? "]" : "");
    if (number(criterion, "line") != 0) {
        buf_printf(out, "  line %lld:%lld", number(criterion, "line"), number(criterion, "column"));
    }
    buf_add_char(out, '\n');
}

static void add_rule(struct buf *out, const char *action, const json_t *rule)
{
    const json_t *criteria = json_object_get(rule, "criteria");

    buf_printf(out, "    %s %s ", flag(rule, "held") ? "holds:        " : "does not hold:", action);
    add_member(out, rule, "operator");
    buf_add_str(out, " (");
    add(out, says(rule));
    buf_add_char(out, ')');
    if (has(rule, "from")) {
        buf_add_str(out, flag(rule, "enforced") ? ", enforced by policy \"" : ", of policy \"");
        add_member(out, rule, "from");
        buf_add_char(out, '"');
    }
    buf_add_char(out, '\n');
    for (size_t i = 0; i < json_array_size(criteria); i++) {
        add_criterion(out, json_array_get(criteria, i));
    }
    if (number(rule, "more") != 0) {
        buf_printf(out, "      and %lld criteria more\n", number(rule, "more"));
    }
}

static void add_side(struct buf *out, const json_t *trace, const char *action)
{
    const json_t *side = json_object_get(trace, action);
    const json_t *rules = json_object_get(side, "rules");
    size_t n = json_array_size(rules);

    if (n == 0 && strcmp(action, "allow") == 0) {
        buf_add_str(out, "    no rule allows anybody\n");
    }
    for (int held = 1; held >= 0; held--) {
        for (size_t i = 0; i < n; i++) {
            if (flag(json_array_get(rules, i), "held") == (held == 1)) {
                add_rule(out, action, json_array_get(rules, i));
            }
        }
    }
    if (number(side, "more") != 0) {
        buf_printf(out, "    and %lld %s rules more\n", number(side, "more"), action);
    }
}

/* --- what would change it ------------------------------------------------------------------------ */

/* The criteria of a rule that stand in the way of its value `wanted`. */
static void add_change(struct buf *out, const json_t *rule, bool wanted)
{
    const json_t *criteria = json_object_get(rule, "criteria");
    const char *op = text(rule, "operator");
    bool inverted = strcmp(op, "not") == 0 || strcmp(op, "nor") == 0;
    bool all = (strcmp(op, "and") == 0 || strcmp(op, "not") == 0) == wanted;
    bool hold = wanted != inverted;
    size_t n = 0;

    buf_add_str(out, wanted ? "  - " : "  - no longer: ");
    for (size_t i = 0; i < json_array_size(criteria); i++) {
        const json_t *one = json_array_get(criteria, i);

        if (flag(one, "held") == hold) {
            continue;
        }
        if (n++ == LIST_MAX) {
            buf_add_str(out, all ? " and more" : " or more");
            break;
        }
        buf_add_str(out, n == 1 ? "" : all ? " and " : " or ");
        buf_add_str(out, wanted && !hold ? "not " : "");
        add_saying(out, one);
    }
    buf_add_char(out, '\n');
}

static void add_changes(struct buf *out, const json_t *trace)
{
    bool denied = flag(json_object_get(trace, "deny"), "held");
    const json_t *side = json_object_get(trace, denied ? "deny" : "allow");
    const json_t *rules = json_object_get(side, "rules");
    size_t n = 0;

    buf_add_str(out, denied ? "What would change it: none of these deny rules may hold\n"
                            : "What would change it: one of these\n");
    for (size_t i = 0; i < json_array_size(rules) && n < CHANGES_MAX; i++) {
        const json_t *rule = json_array_get(rules, i);

        if (flag(rule, "held") == denied) {
            add_change(out, rule, !denied);
            n++;
        }
    }
    if (n == 0) {
        buf_add_str(out, "  - a rule that allows somebody: the route has none\n");
    }
}

/* Where no policy decides, or something stands before it. */
static bool add_advice(struct buf *out, const json_t *doc)
{
    static const char *const advice[][2] = {
        { "user-unauthenticated", "logging in" },
        { "policy-invalid", "correcting the mistake in the policy" },
        { "store-unavailable", "a databroker that authorize can reach" },
        { "store-behind", "a moment: authorize has yet to hear of the session" },
        { "route-unknown", "the same configuration for authorize and the proxy" },
        { "client-certificate-required", "a client certificate" },
        { "invalid-client-certificate", "a client certificate that is trusted" },
        { "device-unauthenticated", "registering a device" },
        { "identity-too-large", "jwt_groups_filter: the identity headers are too large" },
    };
    const json_t *names = json_object_get(doc, "reasons");

    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));

        for (size_t k = 0; name != NULL && k < ARRAY_LEN(advice); k++) {
            if (strcmp(advice[k][0], name) == 0) {
                buf_printf(out, "What would change it: %s\n", advice[k][1]);
                return true;
            }
        }
    }
    return false;
}

/* --- the facts ----------------------------------------------------------------------------------- */

static void add_sources(struct buf *out, const json_t *doc, int64_t now_ms)
{
    const json_t *source = NULL;
    size_t i = 0;

    json_array_foreach(json_object_get(doc, "external_data"), i, source)
    {
        buf_add_str(out, "  external data ");
        add_member(out, source, "type");
        if (has(source, "checked")) {
            buf_add_str(out, ": as its source said ");
            add_age(out, source, "checked", now_ms);
        } else {
            buf_add_str(out, ": its source has not been read yet");
        }
        if (has(source, "error")) {
            buf_add_str(out, "; since then it fails: ");
            add_member(out, source, "error");
        }
        buf_add_char(out, '\n');
    }
}

/* What is known of the groups, by whom, as of when, and whether that is all. */
static void add_groups(struct buf *out, const json_t *who, int64_t now_ms)
{
    bool imported = strcmp(text(who, "groups_from"), "import") == 0;
    bool unlisted = imported && !flag(who, "groups_listed");

    if (!has(who, "groups_from")) {
        return;
    }
    if (json_object_get(who, "groups") != NULL) {
        buf_printf(out, "  groups: %lld, from %s", number(who, "groups"),
                   imported ? "the imported directory" : "the directory record");
    } else {
        buf_add_str(out, unlisted ? "  groups: none, the imported directory does not name this user"
                                  : "  groups: not known from a directory");
    }
    if (has(who, "groups_as_of")) {
        buf_add_str(out, flag(who, "groups_whole") ? ", complete as of " : ", as of ");
        add_age(out, who, "groups_as_of", now_ms);
    }
    if (has(who, "groups_error")) {
        buf_add_str(out, has(who, "groups_as_of") ? "; incomplete since then: " : "; incomplete: ");
        add_member(out, who, "groups_error");
    }
    buf_add_char(out, '\n');
}

static void add_facts(struct buf *out, const json_t *doc, int64_t now_ms)
{
    const json_t *who = json_object_get(doc, "who");
    const json_t *replica = json_object_get(doc, "replica");
    static const char *const records[][3] = {
        { "session_written", "session", NULL },
        { "user_written", "user record", "user_record" },
        { "directory_written", "directory record", "directory_record" },
    };

    if (replica == NULL) {
        return;
    }
    buf_add_str(out, "The facts\n  replica  ");
    buf_add_str(out, flag(replica, "fresh") ? "fresh" : "too old to decide by");
    if (json_object_get(replica, "age_ms") != NULL) {
        buf_printf(out, ", at most %.1f s old", (double)number(replica, "age_ms") / 1000);
    }
    buf_printf(out, ", version %lld; configuration ", number(replica, "version"));
    add_member(out, doc, "checksum");
    buf_add_char(out, '\n');
    for (size_t i = 0; i < ARRAY_LEN(records) && has(who, "user"); i++) {
        if (has(who, records[i][0])) {
            buf_printf(out, "  %s: written ", records[i][1]);
            add_age(out, who, records[i][0], now_ms);
            buf_add_char(out, '\n');
        } else if (records[i][2] != NULL && !flag(who, records[i][2])) {
            buf_printf(out, "  %s: there is none\n", records[i][1]);
        }
    }
    add_groups(out, who, now_ms);
    add_sources(out, doc, now_ms);
}

void cli_explain_text(const json_t *doc, int64_t now_ms, struct buf *out)
{
    const json_t *trace = json_object_get(doc, "trace");
    bool denied = flag(json_object_get(trace, "deny"), "held");

    if (json_object_get(doc, "past") != NULL) {
        add_past(out, doc, now_ms);
    } else {
        add_verdict(out, doc);
    }
    add_route(out, doc);
    add_who(out, doc, now_ms);
    if (trace != NULL) {
        buf_add_str(out, "Why\n");
        add_side(out, trace, denied ? "deny" : "allow"); /* what decided stands first */
        add_side(out, trace, denied ? "allow" : "deny");
    }
    if (strcmp(text(doc, "verdict"), "allow") != 0 && !add_advice(out, doc) && trace != NULL) {
        add_changes(out, trace);
    }
    if (json_object_get(doc, "shadow") != NULL) {
        const json_t *shadow = json_object_get(doc, "shadow");

        buf_add_str(out, "The shadow policy would say: ");
        add_verdict(out, shadow);
        add_side(out, shadow, "deny");
        add_side(out, shadow, "allow");
    }
    add_facts(out, doc, now_ms);
}
