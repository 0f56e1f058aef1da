#include "authorize/audit.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/mem.h"

enum { SUM_BYTES = 32 };

struct authz_audit {
    /* the check thread's */
    struct buf gathered;
    uint64_t gathered_lines;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct buf waiting;
    uint64_t waiting_lines;
    bool stopping;
    bool idle; /* the writer sleeps until it is woken */
    uint64_t lost;
    pthread_t thread;
};

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

static void add_ip(struct buf *out, const ProtobufCBinaryData *ip)
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
    log_add_sv(out, LOG_KEY("user"), person != NULL ? person->id.s : SV(""));
    log_add_sv(out, LOG_KEY("email"), person != NULL ? authz_person_email(person) : SV(""));
}

/* The same for each line of a session until it changes: made once. */
static void add_own(struct buf *out, const struct authz_session *session)
{
    struct sv kept = authz_session_kept(session);

    if (kept.n == 0) {
        size_t from = out->n;

        add_person(out, session->id.s, session->person);
        if (out->err == ERR_OK) {
            authz_session_keep(session, sv_of(out->p + from, out->n - from));
        }
        return;
    }
    buf_add_sv(out, kept);
}

static void add_who(struct buf *out, const Postern__CheckRequest *req,
                    const struct authz_outcome *o)
{
    if (o->effective != NULL && o->session == o->effective) {
        add_own(out, o->session);
        return;
    }
    add_person(out, sv_from(req->session), o->effective != NULL ? o->effective->person : NULL);
    if (o->effective != NULL) {
        log_add_sv(out, LOG_KEY("impersonate-session-id"), o->effective->id.s);
    }
}

/* Which certificate was shown, trusted or not; one that could not be read has no fingerprint. */
static void add_certificate(struct buf *out, const Postern__ClientCertificate *c)
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

void authz_audit_line(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *o, int64_t wall_ms)
{
    log_open(out, wall_ms, SV("authorize check"));
    add_verdict(out, o);
    log_add_sv(out, LOG_KEY("request-id"), sv_of(req->request_id.data, req->request_id.len));
    log_add_sv(out, LOG_KEY("method"), sv_of(req->method.data, req->method.len));
    log_add_sv(out, LOG_KEY("host"), sv_of(req->host.data, req->host.len));
    log_add_sv(out, LOG_KEY("path"), sv_of(req->path.data, req->path.len));
    add_ip(out, &req->client_ip);
    add_certificate(out, req->client_certificate);
    add_who(out, req, o);
    log_add_sv(out, LOG_KEY("route-id"), o->route != NULL ? o->route->id_text : SV(""));
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

/* --- gathering -------------------------------------------------------------------------------- */

void authz_audit_add(struct authz_audit *a, const Postern__CheckRequest *req,
                     const struct authz_outcome *outcome, int64_t wall_ms)
{
    authz_audit_line(&a->gathered, req, outcome, wall_ms);
    a->gathered_lines++;
}

void authz_audit_flush(struct authz_audit *a)
{
    bool wake = false;

    if (a->gathered_lines == 0) {
        return;
    }
    (void)pthread_mutex_lock(&a->mutex);
    if (a->gathered.err == ERR_OK && a->waiting.n + a->gathered.n <= AUTHZ_AUDIT_MAX) {
        buf_add_sv(&a->waiting, buf_sv(&a->gathered));
        a->waiting_lines += a->gathered_lines;
        wake = a->idle;
        a->idle = false;
    } else {
        a->lost += a->gathered_lines;
    }
    (void)pthread_mutex_unlock(&a->mutex);
    if (wake) {
        (void)pthread_cond_signal(&a->wake);
    }
    buf_reset(&a->gathered);
    a->gathered_lines = 0;
}

uint64_t authz_audit_lost(struct authz_audit *a)
{
    (void)pthread_mutex_lock(&a->mutex);
    uint64_t lost = a->lost;
    (void)pthread_mutex_unlock(&a->mutex);
    return lost;
}

/* --- the writer ------------------------------------------------------------------------------- */

/* Takes what waits into lines; false: there will be no more. */
static bool take_waiting(struct authz_audit *a, struct buf *lines, uint64_t *count_out)
{
    (void)pthread_mutex_lock(&a->mutex);
    while (a->waiting.n == 0 && !a->stopping) {
        a->idle = true;
        (void)pthread_cond_wait(&a->wake, &a->mutex);
    }
    a->idle = false;
    struct buf full = a->waiting;

    a->waiting = *lines;
    *lines = full;
    *count_out = a->waiting_lines;
    a->waiting_lines = 0;
    bool more = lines->n > 0 || !a->stopping;

    (void)pthread_mutex_unlock(&a->mutex);
    return more;
}

static void write_out(struct authz_audit *a, struct sv lines, uint64_t count)
{
    if (log_write_lines(lines) != ERR_OK) {
        (void)pthread_mutex_lock(&a->mutex);
        a->lost += count;
        (void)pthread_mutex_unlock(&a->mutex);
    }
}

/* Says how many were lost so far, if that grew, at most once a second. */
static void tell_lost(struct authz_audit *a, uint64_t *told)
{
    static struct log_limit limit;
    uint64_t lost = authz_audit_lost(a);

    if (lost > *told && log_limit_pass(&limit, 1)) {
        log_error("audit.lost", KV_U64("lines-since-start", lost));
        *told = lost;
    }
}

static void *writer_main(void *arg)
{
    struct authz_audit *a = arg;
    const struct timespec gather = { .tv_nsec = AUTHZ_AUDIT_GATHER_MS * 1000000L };
    struct buf lines;
    uint64_t count = 0;
    uint64_t told = 0;

    buf_init(&lines, AUTHZ_AUDIT_MAX);
    while (take_waiting(a, &lines, &count)) {
        write_out(a, buf_sv(&lines), count);
        buf_reset(&lines);
        tell_lost(a, &told);
        /* While it is busy, many batches share one write and nobody needs to be woken. */
        (void)nanosleep(&gather, NULL);
    }
    buf_deinit(&lines);
    return NULL;
}

struct authz_audit *authz_audit_new(void)
{
    struct authz_audit *a = MEM_NEW(struct authz_audit);
    sigset_t all;
    sigset_t before;

    buf_init(&a->gathered, AUTHZ_AUDIT_MAX);
    buf_init(&a->waiting, AUTHZ_AUDIT_MAX);
    CHECK(pthread_mutex_init(&a->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&a->wake, NULL) == 0);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&a->thread, NULL, writer_main, a) == 0);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return a;
}

void authz_audit_free(struct authz_audit **audit)
{
    struct authz_audit *a = TAKE(*audit);

    if (a == NULL) {
        return;
    }
    authz_audit_flush(a);
    (void)pthread_mutex_lock(&a->mutex);
    a->stopping = true;
    (void)pthread_cond_signal(&a->wake);
    (void)pthread_mutex_unlock(&a->mutex);
    (void)pthread_join(a->thread, NULL);
    (void)pthread_mutex_destroy(&a->mutex);
    (void)pthread_cond_destroy(&a->wake);
    buf_deinit(&a->gathered);
    buf_deinit(&a->waiting);
    mem_free(&a);
}
