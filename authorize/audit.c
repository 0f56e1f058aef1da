#include "authorize/audit.h"

#include <arpa/inet.h>
#include <string.h>

#include "authorize/audit_int.h"
#include "common/log.h"

enum { SUM_BYTES = 32 };

/* --- the line --------------------------------------------------------------------------------- */

/* A constant run of the line: no length to be counted each time. */
#define ADD(out, lit) buf_add((out), (lit), sizeof(lit) - 1)

static void add_reasons(struct buf *out, policy_reason_set set)
{
    buf_add_char(out, '[');
    for (enum policy_reason r = policy_reason_next(&set); r != POLICY_REASON_NONE;
         r = policy_reason_next(&set)) {
        buf_add_char(out, '"');
        buf_add_str(out, policy_reason_name(r));
        buf_add_char(out, '"');
        if (set != 0) {
            buf_add_char(out, ',');
        }
    }
    buf_add_char(out, ']');
}

static char *put_octet(char *at, unsigned v)
{
    if (v >= 100) {
        *at++ = (char)('0' + v / 100);
    }
    if (v >= 10) {
        *at++ = (char)('0' + v / 10 % 10);
    }
    *at++ = (char)('0' + v % 10);
    return at;
}

void authz_audit_add_ip(struct buf *out, const ProtobufCBinaryData *ip)
{
    char text[INET6_ADDRSTRLEN] = "";
    char *end = text;

    if (ip->len == 4 && ip->data != NULL) { /* inet_ntop would print it by way of printf */
        end = put_octet(end, ip->data[0]);
        for (size_t i = 1; i < 4; i++) {
            *end++ = '.';
            end = put_octet(end, ip->data[i]);
        }
    } else if (ip->len == 16 && inet_ntop(AF_INET6, ip->data, text, sizeof(text)) != NULL) {
        end = text + strlen(text);
    }
    ADD(out, ",\"ip\":\"");
    buf_add(out, text, (size_t)(end - text));
    buf_add_char(out, '"');
}

static void add_person(struct buf *out, struct sv session_id, const struct authz_person *person)
{
    log_add_sv(out, LOG_KEY("session-id"), session_id);
    log_add_sv(out, LOG_KEY("user"), person != NULL ? authz_person_id(person) : SV(""));
    log_add_sv(out, LOG_KEY("email"), person != NULL ? authz_person_email(person) : SV(""));
}

static void add_who(struct buf *out, const Postern__CheckRequest *req,
                    const struct authz_outcome *o)
{
    add_person(out, sv_from(req->session), o->effective != NULL ? o->effective->person : NULL);
    if (o->effective != o->session) {
        log_add_sv(out, LOG_KEY("impersonate-session-id"), authz_session_id(o->effective));
    }
}

/* Which certificate was shown, trusted or not; one that could not be read has no fingerprint. */
void authz_audit_add_certificate(struct buf *out, const Postern__ClientCertificate *c)
{
    static const char digits[] = "0123456789abcdef";
    size_t i = 0;

    if (c == NULL) {
        return;
    }
    ADD(out, ",\"client-certificate\":\"");
    for (i = 0; i < MIN(c->fingerprint.len, (size_t)SUM_BYTES); i++) {
        buf_add_char(out, digits[c->fingerprint.data[i] >> 4U]);
        buf_add_char(out, digits[c->fingerprint.data[i] & 15U]);
    }
    buf_add_char(out, '"');
    if (c->trusted) {
        ADD(out, ",\"client-certificate-trusted\":true");
    } else {
        ADD(out, ",\"client-certificate-trusted\":false");
    }
}

static const struct sv decisions[] = { [AUTHZ_DENY] = { "deny", 4 },
                                       [AUTHZ_ALLOW] = { "allow", 5 },
                                       [AUTHZ_LOGIN] = { "login", 5 },
                                       [AUTHZ_UNAVAILABLE] = { "unavailable", 11 } };

static void write_verdict(struct buf *out, const struct authz_outcome *o)
{
    ADD(out, ",\"decision\":\"");
    buf_add_sv(out, decisions[o->decision]);
    ADD(out, "\",\"reasons\":");
    add_reasons(out, o->reasons);
    if (o->verdict.allow) {
        ADD(out, ",\"allow\":true,\"allow-why-true\":");
    } else {
        ADD(out, ",\"allow\":false,\"allow-why-false\":");
    }
    add_reasons(out, o->verdict.allow_reasons);
    if (o->verdict.deny) {
        ADD(out, ",\"deny\":true,\"deny-why-true\":");
    } else {
        ADD(out, ",\"deny\":false,\"deny-why-false\":");
    }
    add_reasons(out, o->verdict.deny_reasons);
}

/* The text of the last verdict of its kind: most are like the one before. */
struct verdict_text {
    policy_reason_set reasons;
    policy_reason_set allow_reasons;
    policy_reason_set deny_reasons;
    size_t n; /* 0: nothing is kept */
    enum authz_decision decision;
    bool allow;
    bool deny;
    char text[512];
};

static bool is_text_of(const struct verdict_text *t, const struct authz_outcome *o)
{
    return t->n != 0 && t->decision == o->decision && t->reasons == o->reasons &&
           t->allow == o->verdict.allow && t->deny == o->verdict.deny &&
           t->allow_reasons == o->verdict.allow_reasons &&
           t->deny_reasons == o->verdict.deny_reasons;
}

static void verdict_keep(struct verdict_text *t, const struct authz_outcome *o, struct sv text)
{
    if (text.n > sizeof(t->text)) {
        t->n = 0;
        return;
    }
    t->decision = o->decision;
    t->reasons = o->reasons;
    t->allow = o->verdict.allow;
    t->deny = o->verdict.deny;
    t->allow_reasons = o->verdict.allow_reasons;
    t->deny_reasons = o->verdict.deny_reasons;
    t->n = text.n;
    memcpy(t->text, text.p, text.n);
}

static void add_verdict(struct buf *out, const struct authz_outcome *o)
{
    static _Thread_local struct verdict_text last[AUTHZ_UNAVAILABLE + 1]; /* one a decision */
    struct verdict_text *t = &last[o->decision];
    size_t from = out->n;

    if (is_text_of(t, o)) {
        buf_add(out, t->text, t->n);
        return;
    }
    write_verdict(out, o);
    if (out->err == ERR_OK) {
        verdict_keep(t, o, sv_of(out->p + from, out->n - from));
    }
}

/* A shadow policy that would decide otherwise. */
static void add_shadow(struct buf *out, const struct authz_outcome *o)
{
    ADD(out, ",\"shadow-decision\":\"");
    buf_add_sv(out, decisions[o->shadow]);
    ADD(out, "\",\"shadow-reasons\":");
    add_reasons(out, o->shadow_reasons);
}

static void add_usual(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *o)
{
    log_add_sv(out, LOG_KEY("request-id"), sv_of(req->request_id.data, req->request_id.len));
    log_add_sv(out, LOG_KEY("method"), sv_of(req->method.data, req->method.len));
    log_add_sv(out, LOG_KEY("host"), sv_of(req->host.data, req->host.len));
    log_add_sv(out, LOG_KEY("path"), sv_of(req->path.data, req->path.len));
    authz_audit_add_ip(out, &req->client_ip);
    authz_audit_add_certificate(out, req->client_certificate);
    add_who(out, req, o);
    log_add_sv(out, LOG_KEY("route-id"), o->route != NULL ? o->route->id_text : SV(""));
}

void authz_audit_line(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *o, int64_t wall_ms,
                      const struct config_log_fields *fields)
{
    log_open(out, wall_ms, SV("authorize check"));
    add_verdict(out, o);
    if (fields->given) {
        authz_audit_add_fields(out, req, o, fields);
    } else {
        add_usual(out, req, o);
    }
    if (o->has_shadow && o->shadow != o->decision) {
        add_shadow(out, o);
    }
    if (req->internal) {
        ADD(out, ",\"internal\":true");
    }
    if (req->recheck) {
        ADD(out, ",\"recheck\":true");
    }
    log_close(out);
}
