#include "common/service.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config/watch.h"
#include "common/health.h"
#include "common/listen_passed.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/notify.h"

const char service_version[] = "0.1.0";

enum { EXIT_BAD_CONFIG = 1, EXIT_USAGE = 2, GRACE_MS = 5000, SPARE_MS = 1000, PARTS_MAX = 16 };

enum phase { PHASE_STARTING = 0, PHASE_RUNNING, PHASE_STOPPING, PHASE_STOPPED };

struct service_part {
    struct service *service;
    const char *name;
    atomic_bool ready;
    atomic_bool was_ready;
    _Atomic(const char *) why;
};

struct service {
    const struct service_app *app;
    struct loop *loop;
    struct config *config;
    struct config_watch *watch;
    struct config_opts opts;
    struct health *health;
    void *state;
    enum phase phase;
    struct event *signals[3];
    struct event *delay;
    struct event *grace;
    struct service_part parts[PARTS_MAX];
    size_t n_parts;
    bool told_ready;
    atomic_int exit_code;
    _Atomic(const char *) failed; /* why, until the loop has heard */
};

struct options {
    const char *config;
    bool check;
};

/* --- for the app ---------------------------------------------------------------------------------- */

struct loop *service_loop(struct service *service)
{
    return service->loop;
}

struct service_part *service_part_new(struct service *service, const char *name)
{
    struct service_part *part = &service->parts[service->n_parts];

    CHECK(service->n_parts < PARTS_MAX);
    service->n_parts++;
    part->service = service;
    part->name = name;
    atomic_store(&part->why, "starting");
    return part;
}

static bool all_ready(const struct service *s)
{
    if (s->phase != PHASE_RUNNING) {
        return false;
    }
    for (size_t i = 0; i < s->n_parts; i++) {
        if (!atomic_load(&s->parts[i].ready)) {
            return false;
        }
    }
    return true;
}

static void on_part_changed(void *arg)
{
    struct service *s = arg;

    if (!s->told_ready && all_ready(s)) {
        s->told_ready = true;
        notify_systemd("READY=1");
        log_info("service.ready");
    }
}

void service_part_set(struct service_part *part, bool ready, const char *why)
{
    bool was = atomic_exchange(&part->ready, ready);
    const char *before = atomic_exchange(&part->why, ready ? NULL : why);

    if (ready) {
        atomic_store(&part->was_ready, true);
    }
    if (was == ready && (ready || before == why)) {
        return;
    }
    if (ready) {
        log_info("part.ready", KV_STR("part", part->name));
    } else if (was) {
        log_warn("part.not-ready", KV_STR("part", part->name), KV_STR("reason", why));
    }
    loop_post(part->service->loop, on_part_changed, part->service);
}

/* --- stopping ------------------------------------------------------------------------------------- */

static void leave_loop(struct service *s)
{
    s->phase = PHASE_STOPPED;
    loop_stop(s->loop);
}

static void on_grace(evutil_socket_t fd, short what, void *arg)
{
    struct service *s = arg;

    (void)fd;
    (void)what;
    log_warn("service.stop-forced");
    leave_loop(s);
}

static int64_t grace_ms(const struct service *s)
{
    if (s->app->has_visitors) {
        return s->config->shutdown_grace_ms + SPARE_MS;
    }
    return s->app->stop_grace_ms == 0 ? GRACE_MS : s->app->stop_grace_ms;
}

static struct event *timer(struct service *s, int64_t ms, event_callback_fn fn)
{
    struct timeval after = { ms / 1000, (ms % 1000) * 1000 };
    struct event *event = evtimer_new(loop_base(s->loop), fn, s);

    CHECK(event != NULL && event_add(event, &after) == 0);
    return event;
}

static void stop_app(struct service *s)
{
    s->grace = timer(s, grace_ms(s), on_grace);
    if (s->app->stop != NULL) {
        s->app->stop(s->state);
    } else {
        leave_loop(s);
    }
}

static void on_delay(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    stop_app(arg);
}

/* systemd waits for us as long as the settings say, whatever TimeoutStopSec= is. */
static void tell_stopping(const struct service *s)
{
    char text[96];
    int64_t ms = s->config->shutdown_delay_ms + grace_ms(s) + SPARE_MS;

    (void)snprintf(text, sizeof(text), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld",
                   (long long)ms * 1000);
    notify_systemd(text);
    log_info("service.stopping", KV_I64("delay_ms", s->config->shutdown_delay_ms));
}

static void begin_stop(struct service *s)
{
    if (s->phase >= PHASE_STOPPING) {
        return;
    }
    s->phase = PHASE_STOPPING; /* from here on not ready */
    tell_stopping(s);
    if (s->config->shutdown_delay_ms == 0) {
        stop_app(s);
    } else {
        s->delay = timer(s, s->config->shutdown_delay_ms, on_delay);
    }
}

void service_stopped(struct service *service)
{
    if (service->phase == PHASE_STOPPING) {
        leave_loop(service);
    }
}

static void on_failed(void *arg)
{
    struct service *s = arg;

    log_error("service.failed", KV_STR("reason", atomic_load(&s->failed)));
    begin_stop(s);
}

void service_fail(struct service *service, const char *why)
{
    atomic_store(&service->exit_code, EXIT_BAD_CONFIG);
    atomic_store(&service->failed, why);
    loop_post(service->loop, on_failed, service);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct service *s = arg;

    (void)what;
    if (number == SIGHUP) {
        config_watch_now(s->watch);
    } else {
        begin_stop(s);
    }
}

/* --- configuration -------------------------------------------------------------------------------- */

static void complain(const struct config_errors *errors)
{
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        (void)fprintf(stderr, "%s\n", config_errors_text(errors, i));
    }
}

static void tell_restart(const struct config *old, const struct config *fresh)
{
    struct buf names;

    buf_init(&names, 4096);
    config_restart_needed(old, fresh, &names);
    if (names.n != 0) {
        log_warn("config.restart-needed", KV_STR("settings", buf_cstr(&names)));
    }
    buf_deinit(&names);
}

static enum err on_config(const struct config *config, struct diag *d, void *arg)
{
    struct service *s = arg;
    enum err err = s->app->reload == NULL ? ERR_OK : s->app->reload(s->state, config, d);

    if (err != ERR_OK) {
        return err;
    }
    tell_restart(s->config, config);
    config_unref(&s->config);
    s->config = config_ref(config);
    log_set_level(config->log_level);
    return ERR_OK;
}

/* --- health --------------------------------------------------------------------------------------- */

static void add_status(struct buf *out, const struct service *s)
{
    struct config_watch_state state = { 0 };
    char when[CLOCK_TEXT_SIZE];

    config_watch_state(s->watch, &state);
    buf_printf(out, "{\"service\":\"%s\",\"version\":\"%s\",\"config\":{\"generation\":%llu,",
               s->app->name, service_version, (unsigned long long)state.generation);
    buf_printf(out, "\"checksum\":\"%s\",\"applied_at\":\"%s\",\"rejected\":%llu,",
               s->config->checksum, clock_format(state.applied_at_ms, when),
               (unsigned long long)state.rejected);
    buf_printf(out, "\"last_was_rejected\":%s,\"routes\":%zu},\"parts\":{",
               state.last_was_rejected ? "true" : "false", s->config->n_routes);
    for (size_t i = 0; i < s->n_parts; i++) {
        const struct service_part *part = &s->parts[i];
        const char *why = atomic_load(&part->why);

        buf_printf(out, "%s\"%s\":{\"ready\":%s", i == 0 ? "" : ",", part->name,
                   atomic_load(&part->ready) ? "true" : "false");
        if (why != NULL) {
            buf_add_str(out, ",\"reason\":");
            buf_add_json(out, sv_from(why));
        }
        buf_add_char(out, '}');
    }
    buf_add_str(out, "}}\n");
}

static bool on_health(enum health_question question, struct buf *body, void *arg)
{
    const struct service *s = arg;
    bool once = s->phase != PHASE_STARTING;

    add_status(body, s);
    switch (question) {
    case HEALTH_LIVE:
    case HEALTH_STATUS:
        return true; /* the loop turns, or nobody would answer */
    case HEALTH_STARTED:
        for (size_t i = 0; i < s->n_parts; i++) {
            once = once && atomic_load(&s->parts[i].was_ready);
        }
        return once;
    case HEALTH_READY:
        return all_ready(s);
    }
    return false;
}

/* --- life ----------------------------------------------------------------------------------------- */

/* Memory holds keys and tokens: no core file, no debugger of the same user. */
static void harden(void)
{
    struct rlimit none = { 0, 0 };
    struct rlimit files = { 0 };

    (void)setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* its leak check attaches to its own process */
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)signal(SIGPIPE, SIG_IGN);
}

/* A request goes through several of our processes. By default each that is woken may push away the
 * one that woke it: on busy cores that is a switch for every message, and what could have been
 * gathered goes one by one. So who is woken waits until the other has nothing left to do. Whoever
 * set another policy keeps it. */
static void run_in_batches(void)
{
    const struct sched_param none = { 0 };

    if (sched_getscheduler(0) == SCHED_OTHER) {
        (void)sched_setscheduler(0, SCHED_BATCH, &none); /* forbidden: it costs speed alone */
    }
}

static void take_signals(struct service *s)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        s->signals[i] = evsignal_new(loop_base(s->loop), numbers[i], on_signal, s);
        CHECK(s->signals[i] != NULL && event_add(s->signals[i], NULL) == 0);
    }
}

static void service_end(struct service *s)
{
    if (s->state != NULL && s->app->free != NULL) {
        s->app->free(s->state);
    }
    health_free(&s->health);
    config_watch_free(&s->watch);
    for (size_t i = 0; i < ARRAY_LEN(s->signals); i++) {
        if (s->signals[i] != NULL) {
            event_free(s->signals[i]);
        }
    }
    if (s->delay != NULL) {
        event_free(s->delay);
    }
    if (s->grace != NULL) {
        event_free(s->grace);
    }
    loop_free(&s->loop);
    config_unref(&s->config);
}

static int fail(const struct service *s, const struct diag *d)
{
    (void)fprintf(stderr, "postern-%s: %s\n", s->app->name,
                  d->text[0] != '\0' ? d->text : "could not start");
    return EXIT_BAD_CONFIG;
}

static int run(struct service *s)
{
    static const char *const health_alone[] = { "health", NULL };
    struct diag d = { 0 };

    if (listen_passed_init(s->app->listeners == NULL ? health_alone : s->app->listeners, &d) !=
        ERR_OK) {
        return fail(s, &d);
    }
    s->loop = loop_new();
    take_signals(s);
    s->watch = config_watch_new(s->loop, &s->opts, s->config, on_config, s);
    if (s->config->health_check_addr.n != 0 &&
        health_new(s->loop, s->config->health_check_addr, on_health, s, &s->health, &d) != ERR_OK) {
        return fail(s, &d);
    }
    if (s->app->start(s, s->config, &s->state, &d) != ERR_OK) {
        return fail(s, &d);
    }
    s->phase = PHASE_RUNNING;
    log_info("service.started", KV_STR("version", service_version),
             KV_STR("checksum", s->config->checksum), KV_U64("routes", s->config->n_routes));
    loop_post(s->loop, on_part_changed, s);
    loop_run(s->loop);
    log_info("service.stopped");
    return atomic_load(&s->exit_code);
}

/* --- options -------------------------------------------------------------------------------------- */

static void help(const struct service_app *app)
{
    (void)printf(
        "postern-%s: %s\n\n"
        "usage: postern-%s [--config FILE] [--check]\n\n"
        "  --config FILE   the configuration (default: $POSTERN_CONFIG; without a file only the\n"
        "                  environment counts)\n"
        "  -n, --check     check the configuration and exit\n"
        "  --version       print the version and exit\n"
        "  --help          this text\n\n"
        "SIGHUP reads the configuration again (changes of the file are seen anyway), SIGTERM ends.\n",
        app->name, app->summary, app->name);
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, const struct service_app *app, struct options *out)
{
    const char *env = getenv("POSTERN_CONFIG"); /* NOLINT(concurrency-mt-unsafe): no thread yet */

    out->config = env != NULL && env[0] != '\0' ? env : NULL;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];

        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            help(app);
            return 0;
        }
        if (strcmp(a, "--version") == 0) {
            (void)printf("postern-%s %s\n", app->name, service_version);
            return 0;
        }
        if (strcmp(a, "-n") == 0 || strcmp(a, "--check") == 0) {
            out->check = true;
        } else if (strcmp(a, "--config") == 0 && i + 1 < argc) {
            out->config = argv[++i];
        } else if (strncmp(a, "--config=", 9) == 0) {
            out->config = a + 9;
        } else {
            (void)fprintf(stderr, "postern-%s: unknown option %s; --help shows what there is\n",
                          app->name, a);
            return EXIT_USAGE;
        }
    }
    return -1;
}

int service_main(int argc, char **argv, const struct service_app *app)
{
    struct options options = { 0 };
    struct service s = { .app = app };
    struct config_errors *errors = NULL;
    int code = parse_options(argc, argv, app, &options);

    if (code >= 0) {
        return code;
    }
    harden();
    run_in_batches();
    s.opts = (struct config_opts){ .file = options.config,
                                   .part = app->part,
                                   .env = (const char *const *)environ };
    if (config_load(&s.opts, &s.config, &errors) != ERR_OK || s.config == NULL) {
        complain(errors);
        config_errors_free(&errors);
        return EXIT_BAD_CONFIG;
    }
    if (options.check) {
        config_unref(&s.config);
        return 0;
    }
    log_init(app->name, s.config->log_level);
    code = run(&s);
    service_end(&s);
    return code;
}
