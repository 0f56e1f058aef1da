#include "authorize/audit.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "common/log.h"
#include "common/mem.h"

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

static void add_reasons(struct buf *out, const char *key, uint64_t set)
{
    const char *between = "";

    buf_add_str(out, ",\"");
    buf_add_str(out, key);
    buf_add_str(out, "\":[");
    for (enum policy_reason r = policy_reason_next(&set); r != POLICY_REASON_NONE;
         r = policy_reason_next(&set)) {
        buf_add_str(out, between);
        buf_add_char(out, '"');
        buf_add_str(out, policy_reason_name(r));
        buf_add_char(out, '"');
        between = ",";
    }
    buf_add_char(out, ']');
}

static void add_ip(struct buf *out, const ProtobufCBinaryData *ip)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (ip->len == 4 || ip->len == 16) {
        (void)inet_ntop(ip->len == 4 ? AF_INET : AF_INET6, ip->data, text, sizeof(text));
    }
    log_add_str(out, "ip", text);
}

static void add_who(struct buf *out, const Postern__CheckRequest *req,
                    const struct authz_outcome *o)
{
    log_add_str(out, "session-id", req->session);
    log_add_sv(out, "user", o->effective != NULL ? o->effective->person->id.s : SV(""));
    log_add_sv(out, "email",
               o->effective != NULL ? authz_person_email(o->effective->person) : SV(""));
    if (o->session != o->effective) {
        log_add_sv(out, "impersonate-session-id", o->effective->id.s);
    }
}

void authz_audit_line(struct buf *out, const Postern__CheckRequest *req,
                      const struct authz_outcome *o, int64_t wall_ms)
{
    static const char *const decisions[] = { [AUTHZ_DENY] = "deny",
                                             [AUTHZ_ALLOW] = "allow",
                                             [AUTHZ_LOGIN] = "login",
                                             [AUTHZ_UNAVAILABLE] = "unavailable" };

    log_open(out, wall_ms, "authorize check");
    log_add_str(out, "decision", decisions[o->decision]);
    add_reasons(out, "reasons", o->reasons);
    log_add_bool(out, "allow", o->verdict.allow);
    add_reasons(out, o->verdict.allow ? "allow-why-true" : "allow-why-false",
                o->verdict.allow_reasons);
    log_add_bool(out, "deny", o->verdict.deny);
    add_reasons(out, o->verdict.deny ? "deny-why-true" : "deny-why-false", o->verdict.deny_reasons);
    log_add_sv(out, "request-id", sv_of(req->request_id.data, req->request_id.len));
    log_add_sv(out, "method", sv_of(req->method.data, req->method.len));
    log_add_sv(out, "host", sv_of(req->host.data, req->host.len));
    log_add_sv(out, "path", sv_of(req->path.data, req->path.len));
    add_ip(out, &req->client_ip);
    add_who(out, req, o);
    log_add_sv(out, "route-id", o->route != NULL ? o->route->id_text : SV(""));
    if (req->internal) {
        log_add_bool(out, "internal", true);
    }
    if (req->recheck) {
        log_add_bool(out, "recheck", true);
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

static void *writer_main(void *arg)
{
    static struct log_limit limit;
    struct authz_audit *a = arg;
    const struct timespec gather = { .tv_nsec = AUTHZ_AUDIT_GATHER_MS * 1000000L };
    struct buf lines;
    uint64_t count = 0;
    uint64_t told = 0;

    buf_init(&lines, AUTHZ_AUDIT_MAX);
    while (take_waiting(a, &lines, &count)) {
        if (log_write_lines(buf_sv(&lines)) != ERR_OK) {
            (void)pthread_mutex_lock(&a->mutex);
            a->lost += count;
            (void)pthread_mutex_unlock(&a->mutex);
        }
        buf_reset(&lines);
        uint64_t lost = authz_audit_lost(a);

        if (lost > told && log_limit_pass(&limit, 1)) {
            log_error("audit.lost", KV_U64("lines-since-start", lost));
            told = lost;
        }
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
