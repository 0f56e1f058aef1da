#include "authorize/check.h"

#include <string.h>

#include "authorize/access.h"
#include "common/authz_block.h"
#include "common/crypto/token.h"

static struct sv sv_bytes(const ProtobufCBinaryData *b)
{
    return sv_of(b->data, b->len);
}

static bool is_sum(const ProtobufCBinaryData *b)
{
    return b->len == 0 || b->len == sizeof(((struct policy_cert *)NULL)->fingerprint);
}

static bool certificate_is_sound(const Postern__ClientCertificate *c)
{
    return c == NULL ||
           (is_sum(&c->fingerprint) && is_sum(&c->spki) && c->n_san_email <= AUTHZ_CERT_NAMES_MAX &&
            c->n_san_dns <= AUTHZ_CERT_NAMES_MAX - c->n_san_email &&
            c->n_san_uri <= AUTHZ_CERT_NAMES_MAX - c->n_san_email - c->n_san_dns);
}

static bool headers_are_sound(const Postern__CheckRequest *req)
{
    for (size_t i = 0; i < req->n_headers && i < AUTHZ_HEADERS_MAX; i++) {
        if (req->headers[i]->name.len > POLICY_HEADER_NAME_MAX ||
            req->headers[i]->value.len > POLICY_HEADER_VALUE_MAX) {
            return false;
        }
    }
    return req->n_headers <= AUTHZ_HEADERS_MAX;
}

/* Whether the question keeps its own rules; the proxy made it, but proxies run elsewhere. */
static bool request_is_sound(const Postern__CheckRequest *req)
{
    if (req->client_ip.len != 0 && req->client_ip.len != 4 && req->client_ip.len != 16) {
        return false;
    }
    return req->method.len > 0 && req->method.len <= AUTHZ_METHOD_MAX && req->host.len > 0 &&
           req->host.len <= AUTHZ_HOST_MAX &&
           (req->path.len > 0 || sv_eq(sv_bytes(&req->method), SV("CONNECT"))) &&
           req->path.len <= AUTHZ_PATH_MAX && req->request_id.len <= AUTHZ_ID_MAX &&
           strlen(req->session) <= AUTHZ_ID_MAX && certificate_is_sound(req->client_certificate) &&
           headers_are_sound(req);
}

/* --- the client's certificate ----------------------------------------------------------------- */

struct cert_room {
    struct policy_cert cert;
    struct sv names[AUTHZ_CERT_NAMES_MAX];
    size_t n;
};

static const struct sv *names_of(const ProtobufCBinaryData *names, size_t n, struct cert_room *room)
{
    struct sv *at = room->names + room->n;

    for (size_t i = 0; i < n; i++) {
        at[i] = sv_bytes(&names[i]);
    }
    room->n += n;
    return at;
}

static void certificate_input(const Postern__ClientCertificate *c, struct cert_room *room,
                              struct policy_input *in)
{
    if (c == NULL) {
        return;
    }
    in->cert_presented = true;
    if (c->fingerprint.len == 0 || c->spki.len == 0) {
        return; /* it could not be read: shown, never trusted, equal to nothing */
    }
    in->cert_trusted = c->trusted != 0;
    in->cert = &room->cert;
    room->n = 0;
    memcpy(room->cert.fingerprint, c->fingerprint.data, sizeof(room->cert.fingerprint));
    memcpy(room->cert.spki, c->spki.data, sizeof(room->cert.spki));
    room->cert.san_email = names_of(c->san_email, c->n_san_email, room);
    room->cert.san_email_count = c->n_san_email;
    room->cert.san_dns = names_of(c->san_dns, c->n_san_dns, room);
    room->cert.san_dns_count = c->n_san_dns;
    room->cert.san_uri = names_of(c->san_uri, c->n_san_uri, room);
    room->cert.san_uri_count = c->n_san_uri;
    room->cert.issuer = sv_bytes(&c->issuer);
    room->cert.subject = sv_bytes(&c->subject);
}

/* --- headers ---------------------------------------------------------------------------------- */

static enum policy_header_state state_of(Postern__RequestHeader__State state)
{
    static const enum policy_header_state states[] = {
        [POSTERN__REQUEST_HEADER__STATE__TOLD] = POLICY_HEADER_TOLD,
        [POSTERN__REQUEST_HEADER__STATE__REPEATED] = POLICY_HEADER_REPEATED,
        [POSTERN__REQUEST_HEADER__STATE__TOO_LARGE] = POLICY_HEADER_TOO_LARGE,
        [POSTERN__REQUEST_HEADER__STATE__WITHHELD] = POLICY_HEADER_WITHHELD,
    };

    return (unsigned)state < ARRAY_LEN(states) ? states[state] : POLICY_HEADER_UNKNOWN;
}

static void headers_input(const Postern__CheckRequest *req,
                          struct policy_header room[AUTHZ_HEADERS_MAX], struct policy_input *in)
{
    in->headers = room;
    in->header_count = req->n_headers;
    for (size_t i = 0; i < req->n_headers; i++) {
        room[i] = (struct policy_header){ .name = sv_bytes(&req->headers[i]->name),
                                          .state = state_of(req->headers[i]->state),
                                          .value = sv_bytes(&req->headers[i]->value) };
    }
}

static void request_input(const Postern__CheckRequest *req, int64_t wall_ms,
                          struct policy_input *in)
{
    in->method = sv_bytes(&req->method);
    in->host = sv_bytes(&req->host);
    in->path = sv_bytes(&req->path);
    in->cors_preflight = req->cors_preflight != 0;
    in->wall_ms = wall_ms;
    in->client_ip_known = req->client_ip.len != 0;
    if (req->client_ip.len == 4) {
        memset(in->client_ip + 10, 0xff, 2);
        memcpy(in->client_ip + 12, req->client_ip.data, 4);
    } else if (req->client_ip.len == 16) {
        memcpy(in->client_ip, req->client_ip.data, 16);
    }
}

/* --- the decision ----------------------------------------------------------------------------- */

/* The one place where an ALLOW comes from. Whatever it does not know stays DENY. */
static enum authz_decision authz_check_decide(enum policy_outcome outcome)
{
    switch (outcome) {
    case POLICY_ALLOW:
        return AUTHZ_ALLOW;
    case POLICY_LOGIN:
        return AUTHZ_LOGIN;
    case POLICY_UNAVAILABLE:
        return AUTHZ_UNAVAILABLE;
    case POLICY_DENY:
    case POLICY_DEVICE: /* we have no page to register a device at */
        break;
    }
    return AUTHZ_DENY;
}

enum { STATUS_DEVICE = 450 };

static void outcome_set(struct authz_outcome *out, const struct policy_verdict *verdict)
{
    out->verdict = *verdict;
    out->decision = authz_check_decide(verdict->outcome);
    out->reasons = policy_reasons(verdict);
    out->status = 0;
    if (out->decision == AUTHZ_DENY || out->decision == AUTHZ_UNAVAILABLE) {
        out->status = verdict->outcome == POLICY_DEVICE ? STATUS_DEVICE : verdict->status;
    }
}

/* Who logged in an hour ago, where an hour is asked for, is looked at again then. */
static void end_with_login(const struct authz_facts *facts, const struct policy_input *in,
                           struct authz_outcome *out)
{
    const struct policy *policy =
        out->route == NULL ? NULL : authz_rules_policy(facts->rules, out->route);
    int64_t age_ms = policy == NULL ? 0 : policy_auth_age_ms(policy);
    int64_t until_s = (in->authenticated_ms + age_ms) / 1000;

    if (out->decision == AUTHZ_ALLOW && age_ms != 0 && until_s > in->wall_ms / 1000 &&
        (out->valid_until_s == 0 || until_s < out->valid_until_s)) {
        out->valid_until_s = until_s;
    }
}

static void outcome_unavailable(struct authz_outcome *out, enum policy_reason reason)
{
    struct policy_verdict verdict = policy_verdict_unavailable(reason);

    outcome_set(out, &verdict);
    out->has_shadow = false; /* no policy decided: there is nothing to compare with */
}

/* What a policy that does not count would say. */
static void ask_shadow(const struct policy *shadow, const struct policy_input *in,
                       struct authz_outcome *out)
{
    struct policy_verdict verdict = { .outcome = POLICY_DENY };

    policy_eval(shadow, in, &verdict);
    out->has_shadow = true;
    out->shadow = authz_check_decide(verdict.outcome);
    out->shadow_reasons = policy_reasons(&verdict);
}

static void evaluate(const struct authz_facts *facts, const Postern__CheckRequest *req,
                     const struct policy_input *in, struct authz_outcome *out)
{
    struct policy_verdict verdict = { .outcome = POLICY_DENY };

    if (req->internal) {
        policy_eval_internal(in, true, &verdict);
    } else {
        const struct policy *shadow = authz_rules_shadow(facts->rules, out->route);

        policy_eval(authz_rules_policy(facts->rules, out->route), in, &verdict);
        if (shadow != NULL) {
            ask_shadow(shadow, in, out);
        }
    }
    outcome_set(out, &verdict);
}

/* --- the session ------------------------------------------------------------------------------ */

enum lookup {
    LOOKUP_NONE = 0,
    LOOKUP_LIVE,
    LOOKUP_EXPIRED,
    LOOKUP_GONE,
    LOOKUP_IDLE,   /* it lives, but not for this route: a new login leads in */
    LOOKUP_TOO_OLD /* likewise */
};

/* How long session may go without a use, and how old it may be, where req leads; from then on it counts
 * as none. What is open already is in use. */
static enum lookup session_lasts(const struct authz_facts *facts, const Postern__CheckRequest *req,
                                 const struct authz_session *session, struct authz_outcome *out)
{
    const struct config *config = authz_rules_config(facts->rules);
    int64_t idle_ms =
        out->route != NULL ? out->route->session_idle_timeout_ms : config->session_idle_timeout_ms;
    int64_t age_ms =
        out->route != NULL ? out->route->session_max_age_ms : config->session_max_age_ms;
    int64_t until_s = session->issued_at_s + age_ms / 1000;

    if (sv_starts(authz_session_id(session), SV(TOKEN_ACCOUNT)) ||
        sv_starts(authz_session_id(session), SV(TOKEN_SESSION))) {
        return LOOKUP_LIVE; /* it has no login that could be repeated, and its token its own end */
    }
    if (age_ms != 0 && until_s <= facts->wall_ms / 1000) {
        return LOOKUP_TOO_OLD;
    }
    if (idle_ms != 0 && !req->recheck &&
        authz_session_unused_ms(session, facts->mono_ms) > idle_ms + AUTHZ_ACCESS_LAG_MS) {
        return LOOKUP_IDLE;
    }
    if (age_ms != 0 && (out->valid_until_s == 0 || until_s < out->valid_until_s)) {
        out->valid_until_s = until_s;
    }
    return LOOKUP_LIVE;
}

static enum lookup session_find(const struct authz_facts *facts, const Postern__CheckRequest *req,
                                struct authz_outcome *out)
{
    const struct authz_replica *replica = authz_sync_replica(facts->sync);
    const struct authz_session *session = authz_replica_session(replica, sv_from(req->session));
    enum lookup lasts = LOOKUP_NONE;
    int64_t now_s = facts->wall_ms / 1000;

    if (session == NULL) {
        return LOOKUP_GONE;
    }
    if (!authz_session_live(session, now_s)) {
        return LOOKUP_EXPIRED;
    }
    lasts = session_lasts(facts, req, session, out);
    if (lasts != LOOKUP_LIVE) {
        return lasts;
    }
    const struct authz_session *effective = authz_replica_effective(replica, session, now_s);

    if (effective == NULL) {
        return LOOKUP_GONE;
    }
    out->replica = replica;
    out->session = session;
    out->effective = effective;
    if (session->expires_at_s != 0 &&
        (out->valid_until_s == 0 || session->expires_at_s < out->valid_until_s)) {
        out->valid_until_s = session->expires_at_s;
    }
    if (effective->expires_at_s != 0 &&
        (out->valid_until_s == 0 || effective->expires_at_s < out->valid_until_s)) {
        out->valid_until_s = effective->expires_at_s;
    }
    return LOOKUP_LIVE;
}

static void identity_add(const struct authz_facts *facts, const Postern__CheckRequest *req,
                         struct authz_outcome *out)
{
    if (out->decision != AUTHZ_ALLOW || out->effective == NULL || req->recheck ||
        (!req->internal && out->route->tell == 0)) {
        return;
    }
    const struct authz_identity_ask ask = {
        .rules = facts->rules,
        .replica = out->replica,
        .session = out->session,
        .effective = out->effective,
        .host = sv_bytes(&req->host),
        .profile = authz_rules_profile(facts->rules, out->route),
        .now_s = facts->wall_ms / 1000,
    };
    const struct authz_identity *identity = authz_identity_get(facts->identities, &ask);

    if (identity->reason != POLICY_REASON_NONE) {
        outcome_unavailable(out, identity->reason);
        return;
    }
    out->identity = identity;
}

/* Why no word about sessions can be had. */
static enum policy_reason store_reason(const struct authz_facts *facts)
{
    bool never = authz_sync_age_ms(facts->sync, facts->mono_ms) == INT64_MAX;

    return never || authz_sync_fresh(facts->sync, facts->mono_ms) ? POLICY_REASON_STORE_BEHIND
                                                                  : POLICY_REASON_STORE_UNAVAILABLE;
}

/* No word about sessions can be had. What is open to anybody stays open, and nothing else. */
static void evaluate_without_store(const struct authz_facts *facts,
                                   const Postern__CheckRequest *req, const struct policy_input *in,
                                   struct authz_outcome *out)
{
    evaluate(facts, req, in, out);
    out->has_shadow = false;
    if (out->decision != AUTHZ_ALLOW &&
        !(out->reasons & POLICY_REASON_BIT(POLICY_REASON_POLICY_INVALID))) {
        outcome_unavailable(out, store_reason(facts));
    }
}

/* What a policy is asked with. */
struct asked {
    struct policy_input in;
    struct cert_room room;                           /* filled where there is a certificate */
    struct policy_header headers[AUTHZ_HEADERS_MAX]; /* likewise */
    struct authz_data_ask records;                   /* where there is a session */
    struct authz_who who;                            /* likewise */
};

void authz_check_records(const struct authz_facts *facts, const struct authz_person *person,
                         const struct authz_session *session, struct authz_data_ask *room,
                         struct policy_input *in)
{
    *room = (struct authz_data_ask){
        .data = base_unconst(authz_replica_data(authz_sync_replica(facts->sync))),
        .user_id = authz_person_id(person),
        .email = authz_person_email(person),
        .session_id = session != NULL ? authz_session_id(session) : (struct sv){ 0 },
    };
    in->record = authz_data_field;
    in->record_arg = room;
}

/* Why somebody with a handle of ours has to log in: there was a session. */
static policy_reason_set reasons_of(enum lookup found)
{
    switch (found) {
    case LOOKUP_EXPIRED:
        return POLICY_REASON_BIT(POLICY_REASON_SESSION_EXPIRED);
    case LOOKUP_GONE: /* the replica is as new as the handle */
        return POLICY_REASON_BIT(POLICY_REASON_SESSION_REVOKED);
    case LOOKUP_IDLE:
        return POLICY_REASON_BIT(POLICY_REASON_SESSION_IDLE);
    case LOOKUP_TOO_OLD:
        return POLICY_REASON_BIT(POLICY_REASON_SESSION_TOO_OLD);
    case LOOKUP_LIVE:
    case LOOKUP_NONE:
        break;
    }
    return 0;
}

static void evaluate_with_session(const struct authz_facts *facts, const Postern__CheckRequest *req,
                                  struct asked *asked, struct authz_outcome *out)
{
    struct policy_input *in = &asked->in;
    enum lookup found = session_find(facts, req, out);

    out->data_epoch = authz_data_epoch(authz_replica_data(authz_sync_replica(facts->sync)));
    if (found == LOOKUP_LIVE) {
        asked->who = (struct authz_who){ .replica = out->replica,
                                         .person = out->effective->person,
                                         .session = out->effective };
        authz_who_input(&asked->who, in);
        authz_check_records(facts, out->effective->person, out->effective, &asked->records, in);
        /* Of the person at the keyboard, whoever they stand for. */
        in->authenticated_ms = (int64_t)out->session->authenticated_at_s * 1000;
    }
    evaluate(facts, req, in, out);
    end_with_login(facts, in, out);
    if (out->decision == AUTHZ_LOGIN) {
        out->reasons |= reasons_of(found);
    }
    identity_add(facts, req, out);
}

static bool run(const struct authz_facts *facts, const Postern__CheckRequest *req,
                enum authz_patience patience, struct asked *asked, struct authz_outcome *out)
{
    struct policy_input *in = &asked->in;

    *in = (struct policy_input){ .session = false };
    *out = (struct authz_outcome){ .decision = AUTHZ_DENY };
    if (!request_is_sound(req)) {
        outcome_unavailable(out, POLICY_REASON_REQUEST_INVALID);
        return true;
    }
    out->route = config_route_by_id(authz_rules_config(facts->rules), req->route);
    if (out->route == NULL && !req->internal) {
        outcome_unavailable(out, POLICY_REASON_ROUTE_UNKNOWN);
        return true;
    }
    request_input(req, facts->wall_ms, in);
    in->client_ca =
        out->route != NULL &&
        (out->route->has_client_ca || authz_rules_config(facts->rules)->downstream_mtls.has_ca);
    certificate_input(req->client_certificate, &asked->room, in);
    headers_input(req, asked->headers, in);
    if (req->session[0] == '\0') {
        evaluate(facts, req, in, out);
        return true;
    }
    if (patience == AUTHZ_GIVEN_UP || !authz_sync_fresh(facts->sync, facts->mono_ms)) {
        evaluate_without_store(facts, req, in, out);
        return true;
    }
    if (patience == AUTHZ_MAY_WAIT &&
        authz_replica_version(authz_sync_replica(facts->sync)) < req->record_version) {
        return false;
    }
    evaluate_with_session(facts, req, asked, out);
    return true;
}

bool authz_check_run(const struct authz_facts *facts, const Postern__CheckRequest *req,
                     enum authz_patience patience, struct authz_outcome *outcome_out)
{
    struct asked asked;

    return run(facts, req, patience, &asked, outcome_out);
}

void authz_check_show(const struct authz_facts *facts, const Postern__CheckRequest *req,
                      authz_shown_fn shown, void *arg)
{
    struct asked asked;
    struct authz_outcome outcome;

    (void)run(facts, req, AUTHZ_SETTLED, &asked, &outcome);
    shown(arg, &asked.in, &outcome);
}

void authz_check_refused(struct authz_outcome *outcome, unsigned status)
{
    *outcome = (struct authz_outcome){ .decision = AUTHZ_DENY };
    outcome_unavailable(outcome, status == 404   ? POLICY_REASON_ROUTE_NOT_FOUND
                                 : status == 401 ? POLICY_REASON_USER_UNAUTHENTICATED
                                                 : POLICY_REASON_REQUEST_INVALID);
    outcome->decision = AUTHZ_DENY;
    outcome->status = (uint16_t)status;
}

void authz_check_unaudited(struct authz_outcome *out)
{
    outcome_unavailable(out, POLICY_REASON_AUDIT_UNAVAILABLE);
    out->identity = NULL;
}
