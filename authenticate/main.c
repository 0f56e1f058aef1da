#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "authenticate/app.h"
#include "authenticate/http.h"
#include "authenticate/issuers.h"
#include "authenticate/local.h"
#include "authenticate/oidc.h"
#include "authenticate/proof.h"
#include "authenticate/redeem.h"
#include "authenticate/renew.h"
#include "common/b64.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    JOB_THREADS = 2,
    JOBS_WAITING = 64,
    PROBE_FIRST_S = 1,
    PROBE_LATER_S = 5,
    HTTP_GRACE_S = 5,
    STOP_GRACE_MS =
        18000 /* an answer of the provider to a refresh may take as long, and its writing */
};

/* --- what follows from the configuration ---------------------------------------------------------- */

/* One name for the provider and client that a session came from. */
static void idp_id_make(const struct config *config, char out[AUTHN_IDP_ID_SIZE])
{
    unsigned char digest[32];
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, 16384);
    if (config->idp_provider == CONFIG_IDP_LOCAL) {
        buf_add_str(&text, "local");
    } else {
        buf_add_str(&text, "oidc\n");
        buf_add_sv(&text, config->idp_provider_url);
        buf_add_char(&text, '\n');
        buf_add_sv(&text, config->idp_client_id);
    }
    CHECK(EVP_Digest(text.p, text.n, digest, NULL, EVP_sha256(), NULL) == 1);
    buf_reset(&text);
    hex_add(&text, sv_of(digest, (AUTHN_IDP_ID_SIZE - 1) / 2));
    memcpy(out, buf_cstr(&text), AUTHN_IDP_ID_SIZE);
}

static enum err assertion_make(const struct config *config, struct assertion_keys **out,
                               struct diag *d)
{
    return config->signing_key != NULL
               ? assertion_keys_of_pem(secret_bytes(config->signing_key), out, d)
               : assertion_keys_of_shared(config->keys, out);
}

static void sealers_free(struct authn *app)
{
    sealer_free(&app->handles);
    sealer_free(&app->states);
    sealer_free(&app->codes);
    sealer_free(&app->forms);
    sealer_free(&app->rest);
}

static void sealers_make(struct authn *app)
{
    sealers_free(app);
    app->handles = sealer_new(app->config->keys, KEYS_HANDLE);
    app->states = sealer_new(app->config->keys, KEYS_LOGIN_STATE);
    app->codes = sealer_new(app->config->keys, KEYS_LOGIN_CODE);
    app->forms = sealer_new(app->config->keys, KEYS_FORM);
    app->rest = sealer_new(app->config->keys, KEYS_TOKEN_AT_REST);
}

static void names_make(struct authn *app)
{
    const struct config *config = app->config;
    size_t scheme = sv_search(config->authenticate_service_url.text, SV("://"));

    app->origin = config->authenticate_service_url.text;
    app->host = scheme == SIZE_MAX ? app->origin : sv_from_at(app->origin, scheme + 3);
    (void)snprintf(app->cookie_session, sizeof app->cookie_session, "__Host-%.*s_authenticate",
                   (int)MIN(config->cookie_name.n, 64), config->cookie_name.p);
    (void)snprintf(app->cookie_browser, sizeof app->cookie_browser, "__Host-%.*s_browser",
                   (int)MIN(config->cookie_name.n, 64), config->cookie_name.p);
}

static bool same_provider(const struct config *a, const struct config *b)
{
    return a->idp_provider == b->idp_provider && sv_eq(a->idp_provider_url, b->idp_provider_url) &&
           sv_eq(a->idp_client_id, b->idp_client_id) && sv_eq(a->idp_ca_file, b->idp_ca_file);
}

/* Takes over everything that may change while running. On an error nothing has changed. */
static enum err adopt(struct authn *app, const struct config *config, struct diag *d)
{
    struct assertion_keys *assertion = NULL;
    enum err err = assertion_make(config, &assertion, d);
    bool same_idp = false;

    if (err == ERR_OK) {
        err = authn_issuers_adopt(app, config,
                                  d); /* its texts live as long as config, which is ours below */
    }
    if (err != ERR_OK) {
        assertion_keys_free(&assertion);
        return err;
    }
    same_idp = app->config != NULL && same_provider(app->config, config);
    if (!same_idp) {
        authn_oidc_free(&app->oidc); /* who waits for it is told that it is not there */
        fetcher_free(&app->fetcher);
    }
    assertion_keys_free(&app->assertion);
    config_unref(&app->config);
    app->assertion = assertion;
    app->config = config_ref(config);
    names_make(app);
    idp_id_make(config, app->idp_id);
    sealers_make(app);
    if (same_idp) {
        return ERR_OK;
    }
    app->fetcher = fetcher_new(app->loop, config->idp_ca_file.p);
    if (config->idp_provider == CONFIG_IDP_OIDC) {
        app->oidc = authn_oidc_new(app);
    }
    if (app->renewer != NULL) {
        authn_renewer_look_again(
            app->renewer); /* sessions of the one before are not ours to refresh */
    }
    return ERR_OK;
}

/* --- the databroker's presence -------------------------------------------------------------------- */

static void probe_again(struct authn *app, int seconds)
{
    struct timeval tv = { .tv_sec = seconds };

    (void)event_add(app->probe_timer, &tv);
}

static void on_probe(void *arg, enum rpc_status status, const char *text,
                     const ProtobufCMessage *response)
{
    struct authn *app = arg;
    bool there = status == RPC_OK;

    (void)response;
    app->probe = NULL;
    log_debug("store.probed", KV_I64("status", status), KV_STR("text", text));
    service_part_set(app->part_store, there, there ? NULL : "the databroker does not answer");
    if (there && app->oidc != NULL) {
        authn_oidc_store_ready(app->oidc);
    }
    if (there && !app->store_there) {
        authn_renewer_look_again(app->renewer); /* its stream may hang in the connection before */
    }
    app->store_there = there;
    probe_again(app, there ? PROBE_LATER_S : PROBE_FIRST_S);
}

static void on_probe_due(evutil_socket_t fd, short what, void *arg)
{
    struct authn *app = arg;

    (void)fd;
    (void)what;
    app->probe = authn_store_probe(app->store, on_probe, app);
}

/* --- the service's callbacks ---------------------------------------------------------------------- */

static void app_free(void *state)
{
    struct authn *app = state;

    authn_redeem_cancel(app);
    authn_proof_cancel(app);
    rpc_server_free(&app->server);
    rpc_pending_cancel(&app->probe);
    if (app->probe_timer != NULL) {
        event_free(app->probe_timer);
    }
    if (app->stop_timer != NULL) {
        event_free(app->stop_timer);
    }
    job_pool_free(&app->pool);
    authn_renewer_free(&app->renewer);
    authn_oidc_free(&app->oidc);
    authn_issuers_free(app);
    authn_http_free(&app->http);
    fetcher_free(&app->fetcher);
    authn_store_free(&app->store);
    rpc_free(&app->rpc);
    rpc_identity_free(&app->identity);
    authn_users_unref(&app->users);
    authn_throttle_free(&app->throttle);
    assertion_keys_free(&app->assertion);
    sealers_free(app);
    config_unref(&app->config);
    config_unref(&app->boot);
    mem_free(&app);
}

static enum err listen_all(struct authn *app, struct diag *d)
{
    struct rpc_server_opts opts = { .address = app->config->grpc_address.p,
                                    .identity = app->identity,
                                    .methods = authn_redeem_methods,
                                    .n_methods = authn_redeem_n_methods,
                                    .arg = app };
    enum err err = rpc_server_new(app->rpc, &opts, &app->server, d);

    if (err == ERR_OK) {
        err = authn_http_new(app, &app->http, d);
    }
    if (err == ERR_OK) {
        rpc_server_set_serving(app->server, true);
        service_part_set(app->part_http, true, NULL);
    }
    return err;
}

/* Without the file the daemon runs on: nobody can sign in until it is there. */
static void local_load(struct authn *app)
{
    struct diag why = { .line = 0 };
    char line[DIAG_LINE];

    if (app->config->idp_provider == CONFIG_IDP_LOCAL && authn_local_load(app, &why) != ERR_OK) {
        log_error("users.not_loaded", KV_STR("why", diag_format(&why, line)));
    }
}

static enum err app_start(struct service *service, const struct config *config, void **state_out,
                          struct diag *d)
{
    struct authn *app = MEM_NEW(struct authn);
    enum err err = ERR_OK;

    app->service = service;
    app->loop = service_loop(service);
    app->boot = config_ref(config);
    app->throttle = authn_throttle_new();
    list_init(&app->redemptions);
    list_init(&app->proofs);
    app->pool = job_pool_new(app->loop, JOB_THREADS, JOBS_WAITING);
    app->part_http = service_part_new(service, "http");
    app->part_store = service_part_new(service, "databroker");
    app->identity = rpc_identity_new(app->boot->keys, RPC_AUTHENTICATE);
    app->rpc = rpc_new(app->loop);
    app->store = authn_store_new(app->rpc, app->identity, config->databroker.v[0].text.p,
                                 config->grpc_client_timeout_ms);
    app->probe_timer = event_new(loop_base(app->loop), -1, 0, on_probe_due, app);
    CHECK(app->probe_timer != NULL);
    if (config->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        diag_set(d, "authenticate_service_url is needed");
        err = ERR_INVALID;
    }
    if (err == ERR_OK) {
        err = adopt(app, config, d);
    }
    if (err == ERR_OK) {
        app->part_users = service_part_new(service, "users");
        service_part_set(app->part_users, true, NULL);
        local_load(app);
        err = listen_all(app, d);
    }
    if (err != ERR_OK) {
        app_free(app);
        return err;
    }
    app->store_there = true; /* until a probe says otherwise */
    app->renewer = authn_renewer_new(app);
    probe_again(app, 0);
    *state_out = app;
    return ERR_OK;
}

/* What listeners, certificates and channels were made of at the start. */
static bool needs_restart(const struct config *a, const struct config *b)
{
    return !secret_eq(a->shared_secret, secret_bytes(b->shared_secret)) ||
           !sv_eq(a->authenticate_internal_url.text, b->authenticate_internal_url.text) ||
           !sv_eq(a->grpc_address, b->grpc_address) ||
           !sv_eq(a->databroker.v[0].text, b->databroker.v[0].text);
}

static enum err app_reload(void *state, const struct config *config, struct diag *d)
{
    struct authn *app = state;
    enum err err = adopt(app, config, d);

    if (err != ERR_OK) {
        return err;
    }
    if (needs_restart(app->boot, config)) {
        log_warn("config.needs_restart",
                 KV_STR("why", "the shared secret or an address between daemons changed"));
    }
    local_load(app);
    return ERR_OK;
}

static void on_idle(void *arg)
{
    struct authn *app = arg;

    if (--app->busy == 0) {
        service_stopped(app->service);
    }
}

static void on_http_idle(void *arg)
{
    struct authn *app = arg;

    if (event_del(app->stop_timer) == 0 && app->http_open) {
        app->http_open = false;
        on_idle(app);
    }
}

/* Whoever still waits for a page does so in vain; a refresh token on its way back is worth waiting for. */
static void on_http_late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    on_http_idle(arg);
}

static void app_stop(void *state)
{
    const struct timeval tv = { .tv_sec = HTTP_GRACE_S };
    struct authn *app = state;

    rpc_server_set_serving(app->server, false);
    app->busy = 2;
    app->http_open = true;
    app->stop_timer = event_new(loop_base(app->loop), -1, 0, on_http_late, app);
    CHECK(app->stop_timer != NULL && event_add(app->stop_timer, &tv) == 0);
    authn_renewer_stop(app->renewer, on_idle, app);
    authn_http_stop(app->http, on_http_idle, app);
}

int main(int argc, char **argv)
{
    static const struct service_app app = { .name = "authenticate",
                                            .part = CONFIG_PART_AUTHENTICATE,
                                            .summary = "signs people in and shows them the pages",
                                            .start = app_start,
                                            .reload = app_reload,
                                            .stop = app_stop,
                                            .stop_grace_ms = STOP_GRACE_MS,
                                            .free = app_free };

    return service_main(argc, argv, &app);
}
