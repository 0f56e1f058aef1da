/* acme_plan: which names need a certificate, and when to ask for one next. What is known about a name
 * lies on disk, in the certificate itself and in a note about failures, so a restart neither forgets a
 * back-off nor asks twice.
 *
 *   - A certificate is due when it is missing or damaged, or when less than a third of its life is left,
 *     a little earlier for some names than for others.
 *   - After a refusal the name waits for 5 minutes, twice as long each time, up to 6 hours; an hour at
 *     least where the server asks for less. Where it could not be asked all wait, 10 seconds up to 5
 *     minutes.
 *   - At most ACME_BURST orders in a row, then one in ACME_EVERY_S seconds.
 *
 * One thread; reading a folder blocks. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"

enum { ACME_BURST = 20, ACME_EVERY_S = 36 };

enum acme_result {
    ACME_REFUSED = 0,
    ACME_LIMITED, /* the server asks for less */
    ACME_BUSY,    /* it could not be asked */
    ACME_ISSUED
};

struct acme_name {
    const char *host;
    int64_t not_before_s; /* of the certificate that is there; 0: none that can be used */
    int64_t not_after_s;
    unsigned failures; /* since the last certificate */
    int64_t again_at_s;
};

struct acme_plan;

struct acme_plan *acme_plan_new(void);
/* The names are config->autocert_hosts from now on, none where it is NULL; reads what is there for each.
 * The rate goes on counting. Where a setting of the account or the way to the server is another than
 * before, no name waits for its failures any longer. */
void acme_plan_set(struct acme_plan *plan, const struct config *config);
/* Reads again what lies there. */
void acme_plan_read(struct acme_plan *plan);
void acme_plan_free(struct acme_plan **plan);
/* The name that has waited longest for its order, and counts the order; NULL: none is due, or too many
 * have been made lately. Lives as long as the plan. */
struct acme_name *acme_plan_next(struct acme_plan *plan, int64_t now_s);
/* How the order of name ended. After ACME_ISSUED the new certificate is read. */
void acme_plan_done(struct acme_plan *plan, struct acme_name *name, enum acme_result result,
                    int64_t now_s);
/* When name will be asked for again. */
int64_t acme_plan_due_at(const struct acme_name *name);
/* How many names there are, and how many without a certificate that is still valid. */
size_t acme_plan_count(const struct acme_plan *plan);
size_t acme_plan_missing(const struct acme_plan *plan, int64_t now_s);
