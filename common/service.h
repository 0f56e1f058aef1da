/* service: what every daemon's main() does: options, environment, configuration and its reload,
 * logs, signals, health listener, word to systemd, an orderly end. A daemon is a struct
 * service_app; its main.c is one call:
 *
 *     int main(int argc, char **argv)
 *     {
 *         return service_main(argc, argv, &app);
 *     }
 *
 * Options: --config FILE ($POSTERN_CONFIG), -n or --check, --version, --help. What is wrong is said
 * in one sentence on standard error, exit code 1; a wrong option is 2. SIGTERM and SIGINT end,
 * SIGHUP reloads, SIGPIPE is ignored. An end is: /readyz says 503, shutdown_delay passes, stop(). No core files; other processes of the user may not attach. */
#pragma once

#include "common/base.h"
#include "common/config/config.h"
#include "common/diag.h"
#include "common/job.h"
#include "common/loop.h"

struct service;
struct service_part;

struct service_app {
    const char *name; /* "proxy": the program is postern-<name>, the log's service <name> */
    enum config_part part;
    const char *summary; /* one line for --help */

    /* Makes everything and begins to listen; runs on the loop's thread before the loop does. Peers
     * that are not there yet are no error: they make a part not ready. On an error d has one clear
     * sentence, what was made is freed, stop is not called. *state_out is given to the others. */
    enum err (*start)(struct service *service, const struct config *config, void **state_out,
                      struct diag *d);
    /* A new configuration; keep a reference (config_ref). On an error nothing has changed. */
    enum err (*reload)(void *state, const struct config *config, struct diag *d);
    /* Stop taking new work, finish or close the open one, then call service_stopped() — at once or
     * later. After stop_grace_ms the service goes on without it. */
    void (*stop)(void *state);
    /* The loop has ended: free everything. */
    void (*free)(void *state);
    int64_t stop_grace_ms;        /* 0: 5000 */
    bool has_visitors;            /* shutdown_grace_period and a second more instead */
    const char *const *listeners; /* names of sockets that may be passed to it; NULL: "health" */
};

int service_main(int argc, char **argv, const struct service_app *app);

/* For app's callbacks, on the loop's thread. */
struct loop *service_loop(struct service *service);
void service_stopped(struct service *service);
/* Ends the process as SIGTERM would, with exit code 1 and why in the log; any thread. */
void service_fail(struct service *service, const char *why);

/* What readiness is made of: "listener", "databroker", … Every part begins as not ready; /readyz is
 * 200 when all are ready, /startupz when all have been once, /healthz while the loop turns (live).
 * name: a constant. The part lives as long as the service. */
struct service_part *service_part_new(struct service *service, const char *name);
/* why: shown in /status and logged when it changes; a constant or NULL. Any thread. */
void service_part_set(struct service_part *part, bool ready, const char *why);

/* Version of the whole product. */
extern const char service_version[];
