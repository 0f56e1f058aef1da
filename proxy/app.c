#include "proxy/app.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "authenticate.pb-c.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/secret.h"
#include "common/token_ask.h"
#include "proxy/bearer.h"
#include "proxy/login.h"
#include "proxy/program.h"

enum { REDEEM_MS = 5000 };

/* ---- codes ----------------------------------------------------------------------------------- */

static void redeem_free(struct proxy_redeem **redeem)
{
    struct proxy_redeem *r = TAKE(*redeem);

    if (r != NULL) {
        secret_wipe(r->code, strlen(r->code));
        mem_free(&r->code);
        mem_free(&r->host);
        mem_free(&r->session);
        mem_free(&r->idp_id);
        mem_free(&r->redirect_uri);
        mem_free(&r);
    }
}

/* Worker's thread. */
static void redeem_back(void *arg)
{
    struct proxy_redeem *r = arg;

    if (r->exchange != NULL && r->program) {
        proxy_program_redeemed(r->exchange, r);
    } else if (r->exchange != NULL) {
        proxy_login_redeemed(r->exchange, r);
    }
    redeem_free(&r);
}

static void on_redeemed(void *arg, enum rpc_status status, const char *text,
                        const ProtobufCMessage *response)
{
    struct proxy_redeem *r = arg;
    const Postern__RedeemResponse *answer = (const Postern__RedeemResponse *)(const void *)response;

    r->status = status;
    r->session = mem_strdup(answer == NULL ? "" : answer->session);
    r->idp_id = mem_strdup(answer == NULL ? "" : answer->idp_id);
    r->redirect_uri = mem_strdup(answer == NULL ? "" : answer->redirect_uri);
    r->record_version = answer == NULL ? 0 : answer->record_version;
    if (status != RPC_OK) {
        log_info("login.code-refused", KV_STR("host", r->host), KV_U64("status", status),
                 KV_STR("text", text));
    }
    loop_post(r->worker->loop, redeem_back, r);
}

/* Main thread. */
static void redeem_call(void *arg)
{
    struct proxy_redeem *r = arg;
    struct proxy_app *app = r->worker->app;
    Postern__RedeemRequest request = POSTERN__REDEEM_REQUEST__INIT;

    request.code = r->code;
    request.host = r->host;
    request.binding.data = r->binding;
    request.binding.len = sizeof(r->binding);
    if (app->authenticate == NULL) {
        on_redeemed(r, RPC_UNAVAILABLE, "no login is configured", NULL);
        return;
    }
    (void)rpc_client_call(app->authenticate, "/postern.Login/Redeem", &request.base,
                          &postern__redeem_response__descriptor, REDEEM_MS, on_redeemed, r);
}

void proxy_app_redeem(struct proxy_app *app, struct proxy_redeem *redeem)
{
    loop_post(service_loop(app->service), redeem_call, redeem);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* Worker's thread. */
static void ask_back(void *arg)
{
    proxy_bearer_answered(arg);
}

static void on_asked(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct proxy_asking *a = arg;

    a->answer = token_answer_read(status, text, response);
    loop_post(a->worker->loop, ask_back, a);
}

/* Main thread. */
static void ask_call(void *arg)
{
    struct proxy_asking *a = arg;
    struct proxy_app *app = a->worker->app;

    if (app->authenticate == NULL) {
        on_asked(a, RPC_UNAVAILABLE, "no login is configured", NULL);
        return;
    }
    (void)token_ask(app->authenticate, sv_of(a->token, a->n_token), a->route, REDEEM_MS, on_asked,
                    a);
}

void proxy_app_ask(struct proxy_app *app, struct proxy_asking *asking)
{
    loop_post(service_loop(app->service), ask_call, asking);
}

/* ---- the service ----------------------------------------------------------------------------- */

static void free_workers(struct proxy_app *app)
{
    unsigned i = 0;

    for (i = 0; i < app->n_workers; i++) {
        proxy_worker_free(&app->workers[i]);
    }
}

static void app_free(void *state)
{
    struct proxy_app *app = state;
    unsigned i = 0;

    for (i = 0; i < app->n_workers; i++) {
        loop_stop(app->workers[i]->loop);
        (void)pthread_join(app->workers[i]->thread, NULL);
    }
    proxy_authz_names_free(&app->authorizes);
    proxy_acme_watch_free(&app->acme);
    proxy_advice_free(&app->advice);
    rpc_server_free(&app->server);
    rpc_client_free(&app->authenticate);
    rpc_free(&app->rpc); /* its last answers go to the workers' loops */
    proxy_clusters_free(&app->clusters);
    free_workers(app);
    proxy_crowd_free(&app->crowd);
    rpc_identity_free(&app->identity);
    config_unref(&app->boot);
    mem_free(&app);
}

static unsigned workers_wanted(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n < 1 ? 1 : (unsigned)MIN(n, (long)PROXY_WORKERS_MAX);
}

static enum err start_workers(struct proxy_app *app, struct proxy_snapshot *snapshot,
                              struct diag *d)
{
    unsigned wanted = workers_wanted();
    struct proxy_sockets sockets = { .http.n = 0 };
    enum err err = proxy_listeners_open(snapshot->config, wanted, &sockets, d);

    while (err == ERR_OK && app->n_workers < wanted) {
        app->workers[app->n_workers] = proxy_worker_new(app, app->n_workers, snapshot);
        err = proxy_worker_listen(app->workers[app->n_workers], &sockets, wanted, d);
        app->n_workers++;
    }
    listen_set_close(&sockets.http); /* the workers have descriptors of their own */
    listen_set_close(&sockets.redirect);
    return err;
}

/* Main thread: other challenges are open than before. */
static void on_challenges(struct proxy_acme *acme, void *arg)
{
    struct proxy_app *app = arg;
    unsigned i = 0;

    for (i = 0; i < app->n_workers; i++) {
        proxy_worker_set_acme(app->workers[i], acme);
    }
}

static void on_authorizes(void *arg, const struct proxy_sockaddr *v, size_t n)
{
    struct proxy_app *app = arg;
    unsigned i = 0;

    for (i = 0; i < app->n_workers; i++) {
        proxy_worker_set_authorizes(app->workers[i], v, n);
    }
}

static void follow_challenges(struct proxy_app *app, const struct config *config)
{
    proxy_acme_watch_set(app->acme, config->autocert ? config->autocert_dir : (struct sv){ 0 });
}

/* Main thread: fit is who can ask for verdicts. */
static void tell_health(void *arg)
{
    struct proxy_app *app = arg;

    if (app->server != NULL) {
        rpc_server_set_serving(
            app->server, !app->stopping && __atomic_load_n(&app->authz_up, __ATOMIC_RELAXED) != 0);
    }
}

/* Nothing but the standard services: what the proxy is asked otherwise comes by HTTP. */
static enum err serve_health(struct proxy_app *app, const struct config *config, struct diag *d)
{
    const struct rpc_server_opts opts = { .address = config->grpc_address.p,
                                          .identity = app->identity,
                                          .arg = app };

    return config->grpc_address.n == 0 ? ERR_OK : rpc_server_new(app->rpc, &opts, &app->server, d);
}

/* What a start that failed had. */
static void start_undo(struct proxy_app **app)
{
    rpc_server_free(&(*app)->server);
    rpc_free(&(*app)->rpc);
    proxy_clusters_free(&(*app)->clusters);
    free_workers(*app);
    proxy_crowd_free(&(*app)->crowd);
    rpc_identity_free(&(*app)->identity);
    config_unref(&(*app)->boot);
    mem_free(app);
}

static enum err app_start(struct service *service, const struct config *config, void **state_out,
                          struct diag *d)
{
    struct proxy_app *app = MEM_NEW(struct proxy_app);
    struct proxy_snapshot *snapshot = NULL;
    enum err err = ERR_OK;
    unsigned i = 0;

    app->clusters = proxy_clusters_new(service_loop(service), workers_wanted(), &config->dns);
    err = proxy_snapshot_new(config, app->clusters, &snapshot, d);
    app->service = service;
    app->crowd = proxy_crowd_new();
    app->boot = config_ref(config);
    app->identity = rpc_identity_new(app->boot->keys, RPC_PROXY);
    app->rpc = rpc_new(service_loop(service));
    if (err == ERR_OK) {
        err = serve_health(app, config, d);
    }
    if (err == ERR_OK) {
        snapshot->home = service_loop(service);
        err = start_workers(app, snapshot, d);
    }
    if (err == ERR_OK) {
        proxy_clusters_attach(app->clusters, app->workers);
        proxy_snapshot_commit(snapshot, app->clusters);
    }
    proxy_snapshot_unref(&snapshot);
    if (err != ERR_OK) {
        start_undo(&app);
        return err;
    }
    if (config->authenticate_service_url.scheme != CONFIG_SCHEME_NONE) {
        app->authenticate = rpc_client_new(
            app->rpc, &(struct rpc_client_opts){ .target = config->authenticate_grpc.text.p,
                                                 .server = RPC_AUTHENTICATE,
                                                 .identity = app->identity });
    }
    app->authorizes = proxy_authz_names_new(proxy_clusters_resolver(app->clusters),
                                            &app->boot->authorize, on_authorizes, app);
    app->acme = proxy_acme_watch_new(service_loop(service), on_challenges, app);
    follow_challenges(app, config);
    app->authorize_part = service_part_new(service, "authorize");
    app->advice = proxy_advice_new(service_loop(service));
    proxy_advice_set(app->advice, config);
    for (i = 0; i < app->n_workers; i++) {
        proxy_worker_start(app->workers[i]);
    }
    *state_out = app;
    return ERR_OK;
}

static enum err app_reload(void *state, const struct config *config, struct diag *d)
{
    struct proxy_app *app = state;
    struct proxy_snapshot *snapshot = NULL;
    enum err err = proxy_snapshot_new(config, app->clusters, &snapshot, d);
    unsigned i = 0;

    if (err == ERR_OK) {
        snapshot->home = service_loop(app->service);
    }
    for (i = 0; err == ERR_OK && i < app->n_workers; i++) {
        proxy_worker_set(app->workers[i], snapshot);
    }
    if (err == ERR_OK) {
        follow_challenges(app, config);
        proxy_snapshot_commit(snapshot, app->clusters);
        proxy_advice_set(app->advice, config);
    }
    proxy_snapshot_unref(&snapshot);
    return err;
}

void proxy_app_authz(struct proxy_app *app, bool up)
{
    unsigned n = up ? __atomic_add_fetch(&app->authz_up, 1, __ATOMIC_RELAXED)
                    : __atomic_sub_fetch(&app->authz_up, 1, __ATOMIC_RELAXED);

    if (app->authorize_part != NULL) {
        service_part_set(app->authorize_part, n != 0, n != 0 ? NULL : "authorize is not reached");
    }
    loop_post(service_loop(app->service), tell_health, app);
}

static void all_stopped(void *arg)
{
    struct proxy_app *app = arg;

    app->n_stopped++;
    if (app->n_stopped == app->n_workers) {
        service_stopped(app->service);
    }
}

void proxy_app_worker_stopped(struct proxy_app *app)
{
    loop_post(service_loop(app->service), all_stopped, app);
}

static void app_stop(void *state)
{
    struct proxy_app *app = state;
    unsigned i = 0;

    app->stopping = true;
    tell_health(app);
    for (i = 0; i < app->n_workers; i++) {
        proxy_worker_stop(app->workers[i]);
    }
}

static const char *const listeners[] = { "http", "redirect", "health", NULL };

const struct service_app proxy_service = {
    .name = "proxy",
    .part = CONFIG_PART_PROXY,
    .summary = "the HTTP side of Postern: listeners, routes, upstreams",
    .start = app_start,
    .reload = app_reload,
    .stop = app_stop,
    .free = app_free,
    .listeners = listeners,
    .has_visitors = true,
};
