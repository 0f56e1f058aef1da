#include "authorize/explain.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/data/form.h"
#include "common/policy/trace.h"
#include "common/rpc/scan.h"

static const int64_t time_max_ms = INT64_C(253402300799999); /* the end of the year 9999 */

/* One explanation while it is made. */
struct explain {
    const struct authz_facts *facts;
    const Postern__CheckRequest *check;
    const struct authz_past *past;       /* NULL: a question */
    const struct authz_person *person;   /* a user was named */
    const struct authz_session *session; /* theirs; NULL: none is live */
    size_t sessions;                     /* how many of theirs are live */
    int64_t time_ms;                     /* 0: now */
    bool cert_known;                     /* of the past: which certificate was shown */
    struct buf *out;
};

/* --- members ---------------------------------------------------------------------------------- */

static void add_member(struct buf *out, const char *key, struct sv text)
{
    if (text.n != 0) {
        buf_printf(out, ",\"%s\":", key);
        buf_add_json(out, text);
    }
}

static void add_flag(struct buf *out, const char *key, bool flag)
{
    buf_printf(out, ",\"%s\":%s", key, flag ? "true" : "false");
}

static void add_time(struct buf *out, const char *key, int64_t wall_ms)
{
    char text[CLOCK_TEXT_SIZE];

    if (wall_ms != 0) {
        add_member(out, key, sv_from(clock_format(wall_ms, text)));
    }
}

static void add_ip(struct buf *out, const uint8_t *ip, size_t n)
{
    char text[INET6_ADDRSTRLEN] = "";

    if ((n == 4 || n == 16) && inet_ntop(n == 4 ? AF_INET : AF_INET6, ip, text, sizeof(text))) {
        add_member(out, "ip", sv_from(text));
    }
}

static const char *decision_name(enum authz_decision decision)
{
    static const char *const names[] = { [AUTHZ_DENY] = "deny",
                                         [AUTHZ_ALLOW] = "allow",
                                         [AUTHZ_LOGIN] = "login",
                                         [AUTHZ_UNAVAILABLE] = "unavailable" };

    return (unsigned)decision < ARRAY_LEN(names) ? names[decision] : "deny";
}

/* --- parts of the document -------------------------------------------------------------------- */

static void add_route(struct explain *e, const struct config_route *route)
{
    char line[DIAG_LINE];

    if (route == NULL) {
        return;
    }
    buf_add_str(e->out, ",\"route\":{\"id\":");
    buf_add_json(e->out, route->id_text);
    add_member(e->out, "name", route->name);
    add_member(e->out, "from", route->from);
    if (route->match_value.n > 1) {
        add_member(e->out, "path", route->match_value);
    }
    add_member(e->out, "file", sv_from(route->file));
    buf_printf(e->out, ",\"line\":%d", route->line);
    add_member(e->out, "mistake", sv_from(authz_rules_mistake(e->facts->rules, route, line)));
    buf_add_char(e->out, '}');
}

static void add_request(struct explain *e)
{
    const Postern__CheckRequest *c = e->check;

    buf_add_str(e->out, ",\"request\":{\"method\":");
    buf_add_json(e->out, sv_of(c->method.data, c->method.len));
    add_member(e->out, "host", sv_of(c->host.data, c->host.len));
    add_member(e->out, "path", sv_of(c->path.data, c->path.len));
    add_ip(e->out, c->client_ip.data, c->client_ip.len);
    add_time(e->out, "time", e->time_ms != 0 ? e->time_ms : e->facts->wall_ms);
    buf_add_char(e->out, '}');
}

static void add_replica(struct explain *e)
{
    int64_t age_ms = authz_sync_age_ms(e->facts->sync, e->facts->mono_ms);
    uint64_t version = authz_replica_version(authz_sync_replica(e->facts->sync));

    buf_printf(e->out, ",\"replica\":{\"version\":%llu", (unsigned long long)version);
    add_flag(e->out, "fresh", authz_sync_fresh(e->facts->sync, e->facts->mono_ms));
    if (age_ms != INT64_MAX) {
        buf_printf(e->out, ",\"age_ms\":%lld", (long long)age_ms);
    }
    buf_add_char(e->out, '}');
}

/* Which groups are known, what said so, and as of when; an error: why nothing newer is known. */
static void add_groups(struct explain *e, const struct authz_person *p)
{
    static const char *const names[] = { [AUTHZ_GROUPS_UNKNOWN] = "none",
                                         [AUTHZ_GROUPS_UNLISTED] = "import",
                                         [AUTHZ_GROUPS_IMPORTED] = "import",
                                         [AUTHZ_GROUPS_RECORD] = "record" };
    const struct authz_replica *replica = authz_sync_replica(e->facts->sync);
    enum authz_groups_from from = authz_person_groups_from(replica, p);
    struct authz_data_source source = { .checked_s = p->directory_at_s, .error = "" };
    size_t n = 0;

    (void)authz_person_groups(replica, p, &n);
    if (from == AUTHZ_GROUPS_UNLISTED || from == AUTHZ_GROUPS_IMPORTED) {
        source.checked_s = 0;
        (void)authz_data_source(authz_replica_data(replica), SV(DATA_DIRECTORY_TYPE), &source);
    } else {
        source.error = authz_person_text(p, AUTHZ_PERSON_GROUPS_ERROR).p;
    }
    add_member(e->out, "groups_from", sv_from(names[from]));
    if (from == AUTHZ_GROUPS_IMPORTED || from == AUTHZ_GROUPS_RECORD) {
        buf_printf(e->out, ",\"groups\":%zu", n);
    }
    if (from == AUTHZ_GROUPS_UNLISTED || from == AUTHZ_GROUPS_IMPORTED) {
        add_flag(e->out, "groups_listed", from == AUTHZ_GROUPS_IMPORTED);
    }
    add_time(e->out, "groups_as_of", source.checked_s * 1000);
    add_flag(e->out, "groups_whole", from != AUTHZ_GROUPS_UNKNOWN && source.error[0] == '\0');
    add_member(e->out, "groups_error", sv_from(source.error));
}

static void add_person(struct explain *e, const struct authz_person *p)
{
    add_member(e->out, "user", authz_person_id(p));
    add_member(e->out, "email", authz_person_email(p));
    add_flag(e->out, "user_record", p->user_version != 0);
    add_time(e->out, "user_written", (int64_t)p->user_at_s * 1000);
    add_flag(e->out, "directory_record", p->directory_version != 0);
    add_time(e->out, "directory_written", (int64_t)p->directory_at_s * 1000);
    add_groups(e, p);
}

/* Of the session that the check names, as far as the route lets it count. */
static const char *state_of(const struct explain *e, const struct authz_session *s,
                            policy_reason_set reasons)
{
    if (s == NULL) {
        return e->check->session[0] != '\0' ? "gone" : "none";
    }
    if (!authz_session_live(s, e->facts->wall_ms / 1000)) {
        return "expired";
    }
    if ((reasons & POLICY_REASON_BIT(POLICY_REASON_SESSION_IDLE)) != 0) {
        return "idle";
    }
    return (reasons & POLICY_REASON_BIT(POLICY_REASON_SESSION_TOO_OLD)) != 0 ? "too-old" : "live";
}

/* The session that the check names, live or not, and whose it is. */
static void add_who(struct explain *e, policy_reason_set reasons)
{
    const struct authz_replica *replica = authz_sync_replica(e->facts->sync);
    struct sv id = sv_from(e->check->session);
    const struct authz_session *s = id.n == 0 ? NULL : authz_replica_session(replica, id);

    buf_printf(e->out, ",\"who\":{\"session_state\":\"%s\"", state_of(e, s, reasons));
    add_member(e->out, "session", id);
    if (s != NULL) {
        add_time(e->out, "session_written", (int64_t)s->at_s * 1000);
        add_time(e->out, "session_ends", (int64_t)s->expires_at_s * 1000);
        add_member(e->out, "impersonates", authz_session_impersonates(s));
    }
    if (e->person != NULL) {
        buf_printf(e->out, ",\"sessions\":%zu", e->sessions);
    }
    if (e->person != NULL || s != NULL) {
        add_person(e, e->person != NULL ? e->person : s->person);
    }
    buf_add_char(e->out, '}');
}

static void add_past(struct explain *e, const struct authz_outcome *now)
{
    const struct authz_past *p = e->past;
    uint64_t facts = now->effective != NULL ? authz_session_facts(now->session, now->effective) : 0;

    buf_add_str(e->out, ",\"past\":{\"request_id\":");
    buf_add_json(e->out, sv_of(p->request_id, p->n_request_id));
    add_time(e->out, "time", p->wall_ms);
    add_member(e->out, "verdict", sv_from(decision_name((enum authz_decision)p->decision)));
    buf_printf(e->out, ",\"status\":%u,\"reasons\":", p->status);
    policy_trace_reasons(e->out, p->reasons);
    add_flag(e->out, "allow", (p->flags & AUTHZ_PAST_ALLOW) != 0);
    buf_add_str(e->out, ",\"allow_reasons\":");
    policy_trace_reasons(e->out, p->allow_reasons);
    add_flag(e->out, "deny", (p->flags & AUTHZ_PAST_DENY) != 0);
    buf_add_str(e->out, ",\"deny_reasons\":");
    policy_trace_reasons(e->out, p->deny_reasons);
    add_member(e->out, "checksum", sv_of(p->checksum, sizeof(p->checksum)));
    add_flag(e->out, "internal", (p->flags & AUTHZ_PAST_INTERNAL) != 0);
    add_flag(e->out, "recheck", (p->flags & AUTHZ_PAST_RECHECK) != 0);
    add_flag(e->out, "certificate", (p->flags & AUTHZ_PAST_CERT) != 0);
    add_flag(e->out, "certificate_known", e->cert_known);
    add_flag(e->out, "cut", (p->flags & AUTHZ_PAST_CUT) != 0);
    add_flag(e->out, "rules_changed", (now->route != NULL ? now->route->edition : 0) != p->edition);
    add_flag(e->out, "facts_changed", facts != p->facts || now->data_epoch != p->data_epoch);
    buf_add_char(e->out, '}');
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Whether a policy was asked at all. */
static bool has_trace(const struct explain *e, const struct authz_outcome *o)
{
    return !e->check->internal && o->route != NULL &&
           (o->decision != AUTHZ_UNAVAILABLE || o->verdict.outcome != POLICY_UNAVAILABLE);
}

static void add_verdict(struct explain *e, const char *name, unsigned status,
                        policy_reason_set reasons)
{
    buf_printf(e->out, "{\"verdict\":\"%s\",\"status\":%u,\"reasons\":", name, status);
    policy_trace_reasons(e->out, reasons);
}

/* --- external data that the policy asked for ------------------------------------------------------ */

enum { DATA_TYPES_MAX = 8 };

struct asked_data {
    policy_record_fn record; /* whom the questions are for */
    void *record_arg;
    struct sv types[DATA_TYPES_MAX]; /* of the policy */
    size_t n;
};

static void on_data_asked(void *arg, struct sv type, struct sv field,
                          struct policy_field *field_out)
{
    struct asked_data *asked = arg;
    size_t i = 0;

    while (i < asked->n && !sv_eq(asked->types[i], type)) {
        i++;
    }
    if (i == asked->n && i < DATA_TYPES_MAX) {
        asked->types[asked->n++] = type;
    }
    asked->record(asked->record_arg, type, field, field_out);
}

static void watch_data(struct asked_data *asked, struct policy_input *in)
{
    if (in->record != NULL) {
        asked->record = in->record;
        asked->record_arg = in->record_arg;
        in->record = on_data_asked;
        in->record_arg = asked;
    }
}

static void add_data(struct explain *e, const struct asked_data *asked)
{
    const struct authz_data *data = authz_replica_data(authz_sync_replica(e->facts->sync));
    const char *between = "";

    buf_add_str(e->out, ",\"external_data\":[");
    for (size_t i = 0; i < asked->n; i++) {
        struct authz_data_source source;

        if (authz_data_source(data, asked->types[i], &source)) {
            buf_printf(e->out, "%s{\"type\":", between);
            buf_add_json(e->out, asked->types[i]);
            add_time(e->out, "checked", source.checked_s * 1000);
            add_member(e->out, "error", sv_from(source.error));
            buf_add_char(e->out, '}');
            between = ",";
        }
    }
    buf_add_char(e->out, ']');
}

static bool is_supposed(const struct explain *e)
{
    return e->time_ms != 0 || (e->person != NULL && e->session == NULL);
}

static void on_shown(void *arg, const struct policy_input *decided_by,
                     const struct authz_outcome *o)
{
    struct explain *e = arg;
    struct policy_input in = *decided_by;
    const struct policy *policy =
        o->route == NULL ? NULL : authz_rules_policy(e->facts->rules, o->route);
    const struct policy *shadow =
        o->route == NULL ? NULL : authz_rules_shadow(e->facts->rules, o->route);
    struct policy_verdict v = { .outcome = POLICY_DENY };
    struct authz_data_ask records;
    struct authz_who who = { .replica = authz_sync_replica(e->facts->sync), .person = e->person };
    struct asked_data asked = { .n = 0 };
    CLEANUP(buf_deinit) struct buf trace;

    buf_init(&trace, AUTHZ_EXPLAIN_MAX);
    if (e->person != NULL && e->session == NULL) {
        authz_who_input(&who, &in);
        authz_check_records(e->facts, e->person, NULL, &records, &in);
    }
    in.wall_ms = e->time_ms != 0 ? e->time_ms : in.wall_ms;
    if (e->past != NULL && !e->cert_known && (e->past->flags & AUTHZ_PAST_CERT_TRUSTED) != 0) {
        in.cert_trusted = true; /* which one it was is not remembered, but that */
    }
    watch_data(&asked, &in);
    if (has_trace(e, o)) {
        policy_trace(policy, &in, authz_rules_line_shift(e->facts->rules, o->route), &trace, &v);
    }
    if (is_supposed(e) && has_trace(e, o)) {
        add_verdict(e, policy_outcome_name(v.outcome), v.status, v.reasons);
    } else {
        add_verdict(e, decision_name(o->decision), o->status, o->reasons);
    }
    add_flag(e->out, "supposed_login", e->person != NULL && e->session == NULL);
    add_flag(e->out, "supposed_time", e->time_ms != 0);
    add_route(e, o->route);
    add_request(e);
    add_who(e, o->reasons);
    add_replica(e);
    add_member(e->out, "checksum", sv_from(authz_rules_config(e->facts->rules)->checksum));
    if (e->past != NULL) {
        add_past(e, o);
    }
    if (has_trace(e, o)) {
        buf_add_str(e->out, ",\"trace\":");
        buf_add_sv(e->out, buf_sv(&trace));
        e->out->err = e->out->err != ERR_OK ? e->out->err : trace.err;
    }
    if (has_trace(e, o) && shadow != NULL) {
        buf_add_str(e->out, ",\"shadow\":");
        policy_trace(shadow, &in, authz_rules_line_shift(e->facts->rules, o->route), e->out, &v);
    }
    add_data(e, &asked);
    buf_add_char(e->out, '}');
}

static enum err finish(struct explain *e, struct diag *d)
{
    authz_check_show(e->facts, e->check, on_shown, e);
    if (e->out->err != ERR_OK) {
        diag_set(d, "the explanation is larger than %d bytes", AUTHZ_EXPLAIN_MAX);
    }
    return e->out->err;
}

static ProtobufCBinaryData bytes(const void *p, size_t n)
{
    return (ProtobufCBinaryData){ .len = n, .data = base_unconst(p) };
}

/* Puts the session of the named user into check. */
static enum err find_user(struct explain *e, struct sv who, Postern__CheckRequest *check,
                          struct diag *d)
{
    size_t n = 0;

    e->person = authz_replica_person(authz_sync_replica(e->facts->sync), who, &n);
    if (e->person == NULL) {
        diag_set(d,
                 "nobody with the user id or e-mail address \"%.*s\" has logged in or is in the "
                 "directory",
                 (int)MIN(who.n, (size_t)100), who.p);
        return ERR_NOT_FOUND;
    }
    if (n > 1) {
        diag_set(d, "%zu users have the address \"%.*s\": give a user id", n,
                 (int)MIN(who.n, (size_t)100), who.p);
        return ERR_INVALID;
    }
    e->session = authz_person_session(e->person, e->facts->wall_ms / 1000, &e->sessions);
    check->session = e->session == NULL ? base_unconst("") : base_unconst(e->session->id);
    return ERR_OK;
}

/* The headers that a policy of the route asks for, of those that the question names, if any. */
struct told_headers {
    Postern__RequestHeader headers[AUTHZ_HEADERS_MAX];
    Postern__RequestHeader *list[AUTHZ_HEADERS_MAX];
};

static void tell_headers(const struct config_route *route, Postern__RequestHeader__State state,
                         struct told_headers *told, Postern__CheckRequest *check)
{
    const struct config_strings *names = &route->policy_headers;
    size_t given = check->n_headers;

    for (size_t i = 0; i < MIN(names->n, (size_t)AUTHZ_HEADERS_MAX); i++) {
        Postern__RequestHeader *header = &told->headers[i];

        *header = (Postern__RequestHeader)POSTERN__REQUEST_HEADER__INIT;
        header->state = state;
        header->name = bytes(names->v[i].p, names->v[i].n);
        for (size_t k = 0; k < given; k++) {
            const ProtobufCBinaryData *name = &check->headers[k]->name;

            if (sv_ieq(names->v[i], sv_of(name->data, name->len))) {
                header->value = check->headers[k]->value;
            }
        }
        told->list[i] = header;
    }
    check->headers = told->list;
    check->n_headers = MIN(names->n, (size_t)AUTHZ_HEADERS_MAX);
}

/* What policies asked of the request, as far as it is remembered: else what of it is not. */
static enum err recall(struct explain *e, struct sv asked, struct told_headers *told,
                       Postern__CheckRequest *check, ProtobufCMessage **kept_out)
{
    const struct config_route *route =
        config_route_by_id(authz_rules_config(e->facts->rules), e->past->route);
    enum err err = ERR_NOT_FOUND;

    if (asked.n != 0) {
        err = rpc_unpack(&postern__check_request__descriptor, asked, NULL, kept_out);
    }
    if (err == ERR_OK) {
        const Postern__CheckRequest *kept = (const Postern__CheckRequest *)(void *)*kept_out;

        check->headers = kept->headers;
        check->n_headers = kept->n_headers;
        check->client_certificate = kept->client_certificate;
        e->cert_known = kept->client_certificate != NULL;
    } else if (route != NULL) {
        tell_headers(route, POSTERN__REQUEST_HEADER__STATE__WITHHELD, told, check);
    }
    return err;
}

static enum err explain_past(const struct authz_facts *facts, const struct authz_past *past,
                             struct sv asked, struct buf *out, struct diag *d)
{
    Postern__CheckRequest check = POSTERN__CHECK_REQUEST__INIT;
    Postern__ClientCertificate cert = POSTERN__CLIENT_CERTIFICATE__INIT;
    struct explain e = { .facts = facts, .check = &check, .past = past, .out = out };
    char session[AUTHZ_RECENT_ID_MAX + 1] = "";
    struct told_headers told;
    ProtobufCMessage *kept = NULL;

    memcpy(session, past->session, past->n_session);
    check.route = past->route;
    check.session = session;
    check.request_id = bytes(past->request_id, past->n_request_id);
    check.method = bytes(past->method, past->n_method);
    check.host = bytes(past->host, past->n_host);
    check.path = bytes(past->path, past->n_path);
    check.client_ip = bytes(past->ip, past->n_ip);
    check.internal = (past->flags & AUTHZ_PAST_INTERNAL) != 0;
    check.recheck = (past->flags & AUTHZ_PAST_RECHECK) != 0;
    check.cors_preflight = (past->flags & AUTHZ_PAST_CORS) != 0;
    check.client_certificate = (past->flags & AUTHZ_PAST_CERT) != 0 ? &cert : NULL;
    enum err recalled = recall(&e, asked, &told, &check, &kept);
    enum err err = finish(&e, d);

    if (recalled == ERR_OK) {
        protobuf_c_message_free_unpacked(kept, NULL);
    }
    return err;
}

static enum err explain_question(const struct authz_facts *facts,
                                 const Postern__ExplainRequest *question, struct buf *out,
                                 struct diag *d)
{
    Postern__CheckRequest check = *question->check;
    struct explain e = {
        .facts = facts, .check = &check, .time_ms = question->time_ms, .out = out
    };
    const struct config_route *route = NULL;
    struct told_headers told;
    enum err err = ERR_OK;

    if (question->route[0] != '\0') {
        err = config_route_named(authz_rules_config(facts->rules), sv_from(question->route), &route,
                                 d);
        if (err != ERR_OK) {
            return err;
        }
        check.route = route->id;
        tell_headers(route, POSTERN__REQUEST_HEADER__STATE__TOLD, &told, &check);
        if (check.host.len == 0) {
            check.host = bytes(route->host.p, route->host.n);
        }
    }
    if (question->user[0] != '\0') {
        err = find_user(&e, sv_from(question->user), &check, d);
    }
    return err != ERR_OK ? err : finish(&e, d);
}

enum err authz_explain(const struct authz_facts *facts, const struct authz_recent *recent,
                       const Postern__ExplainRequest *question, struct buf *out, struct diag *d)
{
    struct sv id = sv_of(question->request_id.data, question->request_id.len);
    const struct authz_past *past = id.n == 0 ? NULL : authz_recent_find(recent, id);

    if (question->time_ms < 0 || question->time_ms > time_max_ms) {
        diag_set(d, "the time is none that a clock could show");
        return ERR_INVALID;
    }
    if (id.n == 0 && question->check == NULL) {
        diag_set(d, "neither a request id nor a question was given");
        return ERR_INVALID;
    }
    if (id.n == 0) {
        return explain_question(facts, question, out, d);
    }
    if (past == NULL) {
        diag_set(d,
                 "no request of that id is remembered here: the last %d that were refused are, and "
                 "the last %d others",
                 AUTHZ_RECENT_MAX, AUTHZ_RECENT_MAX);
        return ERR_NOT_FOUND;
    }
    return explain_past(facts, past, authz_recent_asked(recent, past), out, d);
}
