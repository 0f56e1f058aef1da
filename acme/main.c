/* postern-acme: see README.md. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/service.h"

#include "acme/folder.h"
#include "acme/order.h"
#include "acme/plan.h"

enum { TICK_MS = 1000, LOCK_EVERY_S = 10, READ_EVERY_S = 600 };

struct acme {
    struct service *service;
    struct config *config; /* in use */
    struct config *fresh;  /* to be taken when no order runs; NULL: none */
    struct event *tick;
    struct service_part *folder;
    int lock; /* -1: not ours */
    int64_t lock_again_s;
    struct acme_plan *plan; /* without names while the lock is not ours */
    int64_t read_again_s;
    struct acme_order *order; /* NULL: none runs */
    struct acme_name *name;   /* that it is for, of plan */
    bool stopping;
    char program[PATH_MAX + 32];
};

/* ---- the folder ------------------------------------------------------------------------------ */

static void let_go(struct acme *a)
{
    acme_plan_set(a->plan, NULL);
    if (a->lock >= 0) {
        (void)close(a->lock);
        a->lock = -1;
    }
}

static void take_folder(struct acme *a, int64_t now_s)
{
    struct diag d = { .line = 0 };
    enum err err = acme_folder_open(a->config, &a->lock, &d);

    a->lock_again_s = now_s + LOCK_EVERY_S;
    if (err == ERR_EXISTS) { /* another one orders; should it end, we go on */
        service_part_set(a->folder, true, NULL);
        return;
    }
    if (err != ERR_OK) {
        log_error("acme.folder-unusable", KV_STR("reason", d.text));
        service_part_set(a->folder, false, "autocert_dir cannot be used");
        return;
    }
    service_part_set(a->folder, true, NULL);
    acme_plan_set(a->plan, a->config);
    a->read_again_s = now_s + READ_EVERY_S;
    log_info("acme.started", KV_SV("server", a->config->autocert_ca),
             KV_U64("names", acme_plan_count(a->plan)),
             KV_U64("missing", acme_plan_missing(a->plan, now_s)));
}

/* ---- orders ---------------------------------------------------------------------------------- */

static void take_config(struct acme *a);

static void log_outcome(const struct acme *a, const struct acme_outcome *outcome)
{
    char when[CLOCK_TEXT_SIZE];
    char until[CLOCK_TEXT_SIZE];

    (void)clock_format(acme_plan_due_at(a->name) * 1000, when);
    if (outcome->result == ACME_ISSUED) {
        log_info("acme.issued", KV_STR("host", a->name->host),
                 KV_STR("until", clock_format(a->name->not_after_s * 1000, until)),
                 KV_STR("renewal", when));
        return;
    }
    log_warn("acme.failed", KV_STR("host", a->name->host), KV_STR("reason", outcome->text),
             KV_U64("failures", a->name->failures), KV_STR("again", when));
}

static void on_order_done(const struct acme_outcome *outcome, void *arg)
{
    struct acme *a = arg;

    if (a->stopping) { /* it was told to end; that counts for nothing */
        acme_order_free(&a->order);
        service_stopped(a->service);
        return;
    }
    acme_plan_done(a->plan, a->name, outcome->result, clock_wall_s());
    log_outcome(a, outcome);
    acme_order_free(&a->order);
    a->name = NULL;
    if (a->fresh != NULL) {
        take_config(a);
    }
}

/* HTTP-01 where there is a plain listener, TLS-ALPN-01 always; the other one after a failure. */
static const char *challenge_for(const struct acme *a, const struct acme_name *name)
{
    bool http = a->config->http_redirect_addr.n != 0 && name->failures % 2 == 0;

    return http ? "http-01" : "tls-alpn-01";
}

static void begin_order(struct acme *a, int64_t now_s)
{
    struct diag d = { .line = 0 };
    struct acme_name *name = acme_plan_next(a->plan, now_s);
    struct acme_order_opts opts = { .loop = service_loop(a->service),
                                    .program = a->program,
                                    .config = a->config,
                                    .lock = a->lock,
                                    .done = on_order_done,
                                    .arg = a };

    if (name == NULL) {
        return;
    }
    opts.host = name->host;
    opts.challenge = challenge_for(a, name);
    a->name = name;
    log_info("acme.order", KV_STR("host", name->host), KV_STR("challenge", opts.challenge));
    if (acme_order_new(&opts, &a->order, &d) != ERR_OK) {
        acme_plan_done(a->plan, name, ACME_BUSY, now_s);
        log_error("acme.client-not-started", KV_STR("reason", d.text));
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct acme *a = arg;
    int64_t now_s = clock_wall_s();

    (void)fd;
    (void)what;
    if (a->stopping || a->order != NULL || !a->config->autocert) {
        return;
    }
    if (a->lock < 0) {
        if (now_s >= a->lock_again_s) {
            take_folder(a, now_s);
        }
        return;
    }
    if (now_s >= a->read_again_s) {
        acme_plan_read(a->plan);
        a->read_again_s = now_s + READ_EVERY_S;
    }
    begin_order(a, now_s);
}

/* ---- configuration --------------------------------------------------------------------------- */

static void tell_skipped(const struct config *config)
{
    for (size_t i = 0; i < config->autocert_skipped.n; i++) {
        log_warn("acme.host-skipped", KV_SV("host", config->autocert_skipped.v[i]),
                 KV_STR("reason",
                        "no ACME server can be asked for a wildcard, an address or a name "
                        "without a dot in this way; give it a certificate"));
    }
}

static void take_config(struct acme *a)
{
    let_go(a);
    config_unref(&a->config);
    a->config = TAKE(a->fresh);
    a->lock_again_s = 0;
    service_part_set(a->folder, !a->config->autocert, "autocert_dir is not open yet");
    tell_skipped(a->config);
}

static enum err reload(void *state, const struct config *config, struct diag *d)
{
    struct acme *a = state;

    (void)d;
    config_unref(&a->fresh);
    a->fresh = config_ref(config);
    if (a->order == NULL) {
        take_config(a);
    }
    return ERR_OK;
}

/* ---- the service ----------------------------------------------------------------------------- */

/* The client lies beside us. */
static enum err find_client(struct acme *a, struct diag *d)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n <= 0) {
        diag_set(d, "cannot find where the programs are (/proc is not there)");
        return ERR_IO;
    }
    self[n] = '\0';
    (void)snprintf(a->program, sizeof(a->program), "%s-client", self);
    if (access(a->program, X_OK) != 0) {
        diag_set(d, "%s is not there or not a program; is the installation complete?", a->program);
        return ERR_IO;
    }
    return ERR_OK;
}

static enum err start(struct service *service, const struct config *config, void **state_out,
                      struct diag *d)
{
    struct acme *a = MEM_NEW(struct acme);
    struct timeval every = { TICK_MS / 1000, 0 };
    enum err err = find_client(a, d);

    if (err != ERR_OK) {
        mem_free(&a);
        return err;
    }
    a->service = service;
    a->lock = -1;
    a->plan = acme_plan_new();
    a->folder = service_part_new(service, "folder");
    a->fresh = config_ref(config);
    take_config(a);
    a->tick = event_new(loop_base(service_loop(service)), -1, EV_PERSIST, on_tick, a);
    CHECK(a->tick != NULL && event_add(a->tick, &every) == 0);
    if (!config->autocert) {
        log_info("acme.off");
    }
    *state_out = a;
    return ERR_OK;
}

static void stop(void *state)
{
    struct acme *a = state;

    a->stopping = true;
    if (a->order != NULL) {
        acme_order_stop(a->order);
    } else {
        service_stopped(a->service);
    }
}

static void free_state(void *state)
{
    struct acme *a = state;

    acme_order_free(&a->order);
    let_go(a);
    acme_plan_free(&a->plan);
    event_free(a->tick);
    config_unref(&a->config);
    config_unref(&a->fresh);
    mem_free(&a);
}

static const struct service_app app = {
    .name = "acme",
    .part = CONFIG_PART_ACME,
    .summary = "gets and renews certificates from an ACME server (RFC 8555)",
    .start = start,
    .reload = reload,
    .stop = stop,
    .free = free_state,
};

int main(int argc, char **argv)
{
    return service_main(argc, argv, &app);
}
