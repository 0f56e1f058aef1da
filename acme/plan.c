#include "acme/plan.h"

#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

#include "acme/folder.h"

enum {
    REFUSED_FIRST_S = 300,
    REFUSED_MOST_S = 6 * 3600,
    BUSY_FIRST_S = 10,
    BUSY_MOST_S = 300,
    LIMITED_LEAST_S = 3600
};

struct acme_plan {
    struct config *last; /* whose names they are, or were */
    struct acme_name *names;
    size_t n;
    int64_t full_at_s;    /* when the orders made so far no longer count */
    int64_t busy_until_s; /* the server could not be asked: nobody asks before */
};

static void read_name(const struct acme_plan *p, struct acme_name *name)
{
    struct acme_dates dates = { 0 };
    struct acme_note note = acme_folder_note(p->last, name->host);

    if (acme_folder_dates(p->last, name->host, &dates) == ERR_INVALID) {
        log_warn("acme.certificate-unusable", KV_STR("host", name->host));
    }
    name->not_before_s = dates.not_before_s;
    name->not_after_s = dates.not_after_s;
    name->failures = note.failures;
    name->again_at_s = note.again_at_s;
}

struct acme_plan *acme_plan_new(void)
{
    return MEM_NEW(struct acme_plan);
}

static bool same_secret(const struct secret *a, const struct secret *b)
{
    return a == NULL || b == NULL ? a == b : secret_eq(a, secret_bytes(b));
}

/* What a refusal may have been about is as it was. */
static bool same_way(const struct config *a, const struct config *b)
{
    return sv_eq(a->autocert_ca, b->autocert_ca) && sv_eq(a->autocert_email, b->autocert_email) &&
           sv_eq(a->autocert_eab_key_id, b->autocert_eab_key_id) &&
           same_secret(a->autocert_eab_mac_key, b->autocert_eab_mac_key) &&
           sv_eq(a->autocert_trusted_ca, b->autocert_trusted_ca) &&
           sv_eq(a->http_redirect_addr, b->http_redirect_addr) && sv_eq(a->address, b->address);
}

void acme_plan_set(struct acme_plan *plan, const struct config *config)
{
    bool changed = plan->last != NULL && config != NULL && !same_way(plan->last, config);

    mem_free(&plan->names);
    plan->n = config == NULL ? 0 : config->autocert_hosts.n;
    plan->names = mem_array(plan->n + 1, sizeof(struct acme_name));
    plan->busy_until_s = 0;
    if (config == NULL) {
        return;
    }
    config_unref(&plan->last);
    plan->last = config_ref(config);
    for (size_t i = 0; i < plan->n; i++) {
        plan->names[i].host = config->autocert_hosts.v[i].p;
    }
    acme_plan_read(plan);
    for (size_t i = 0; changed && i < plan->n; i++) {
        plan->names[i].again_at_s = 0;
    }
}

void acme_plan_read(struct acme_plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        read_name(plan, &plan->names[i]);
    }
}

void acme_plan_free(struct acme_plan **plan)
{
    struct acme_plan *p = TAKE(*plan);

    if (p != NULL) {
        mem_free(&p->names);
        config_unref(&p->last);
        mem_free(&p);
    }
}

/* Certificates that were issued together are not renewed together. */
static int64_t renew_at(const struct acme_name *name)
{
    int64_t life = name->not_after_s - name->not_before_s;
    int64_t spread = (int64_t)(map_hash(sv_from(name->host)) % (uint64_t)(life / 30 + 1));

    return name->not_after_s - life / 3 - spread;
}

int64_t acme_plan_due_at(const struct acme_name *name)
{
    int64_t due = name->not_after_s == 0 ? 0 : renew_at(name);

    return MAX(due, name->again_at_s);
}

struct acme_name *acme_plan_next(struct acme_plan *plan, int64_t now_s)
{
    struct acme_name *next = NULL;

    if (plan->full_at_s > now_s + (int64_t)ACME_EVERY_S * (ACME_BURST - 1) ||
        now_s < plan->busy_until_s) {
        return NULL;
    }
    for (size_t i = 0; i < plan->n; i++) {
        struct acme_name *name = &plan->names[i];

        if (acme_plan_due_at(name) <= now_s &&
            (next == NULL || acme_plan_due_at(name) < acme_plan_due_at(next))) {
            next = name;
        }
    }
    if (next != NULL) {
        plan->full_at_s = MAX(plan->full_at_s, now_s) + ACME_EVERY_S;
    }
    return next;
}

static int64_t doubled(int64_t first_s, unsigned failures, int64_t most_s)
{
    int64_t s = first_s;

    for (unsigned i = 1; i < failures && s < most_s; i++) {
        s *= 2;
    }
    return MIN(s, most_s);
}

static int64_t pause_s(enum acme_result result, unsigned failures)
{
    int64_t s = result == ACME_BUSY ? doubled(BUSY_FIRST_S, failures, BUSY_MOST_S)
                                    : doubled(REFUSED_FIRST_S, failures, REFUSED_MOST_S);

    s = result == ACME_LIMITED ? MAX(s, (int64_t)LIMITED_LEAST_S) : s;
    return s + (int64_t)rand_below((uint64_t)s / 5 + 1);
}

void acme_plan_done(struct acme_plan *plan, struct acme_name *name, enum acme_result result,
                    int64_t now_s)
{
    struct acme_note note = { 0 };

    if (result != ACME_ISSUED) {
        note.failures = name->failures + 1;
        note.again_at_s = now_s + pause_s(result, note.failures);
    }
    if (acme_folder_set_note(plan->last, name->host, note) != ERR_OK) {
        log_error("acme.note-not-written", KV_STR("host", name->host));
    }
    if (result == ACME_ISSUED) {
        read_name(plan, name);
    }
    if (result == ACME_BUSY) {
        plan->busy_until_s = note.again_at_s;
        plan->full_at_s -= ACME_EVERY_S; /* it was none */
    }
    name->failures = note.failures;
    name->again_at_s = note.again_at_s;
}

size_t acme_plan_count(const struct acme_plan *plan)
{
    return plan->n;
}

size_t acme_plan_missing(const struct acme_plan *plan, int64_t now_s)
{
    size_t n = 0;

    for (size_t i = 0; i < plan->n; i++) {
        n += plan->names[i].not_after_s <= now_s ? 1 : 0;
    }
    return n;
}
