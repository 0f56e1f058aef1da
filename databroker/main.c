#include <string.h>

#include "common/buf.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/identity.h"
#include "common/rpc/rpc.h"
#include "common/rpc/server.h"
#include "common/secret.h"
#include "common/service.h"
#include "databroker/service.h"

struct databroker {
    struct service *service;
    struct service_part *writer;
    struct audit_ready audit;
    struct rpc_identity *identity;
    struct rpc *rpc;
    struct rpc_server *server;
    struct broker_service *broker;
    struct config *config;
};

static void on_health(void *arg, const struct broker_health *health)
{
    struct databroker *db = arg;

    service_part_set(db->writer, health->ready, health->why);
    if (health->stuck) {
        service_fail(db->service, "the store's writer does not come back");
    }
}

static void databroker_free(void *state)
{
    struct databroker *db = state;

    rpc_server_free(&db->server);
    broker_service_free(&db->broker);
    rpc_free(&db->rpc);
    rpc_identity_free(&db->identity);
    config_unref(&db->config);
    mem_free(&db);
}

/* gRPC wants a host before the port. */
static void listen_address(const struct config *config, struct buf *out)
{
    if (sv_starts(config->grpc_address, SV(":"))) {
        buf_add_str(out, "[::]");
    }
    buf_add_sv(out, config->grpc_address);
}

static enum err open_server(struct databroker *db, struct diag *d)
{
    CLEANUP(buf_deinit) struct buf address = { 0 };
    struct rpc_server_opts opts = { .identity = db->identity,
                                    .arg = db->broker,
                                    .on_refused = broker_service_refused };

    buf_init(&address, 4096);
    listen_address(db->config, &address);
    opts.address = buf_cstr(&address);
    opts.methods = broker_service_methods(&opts.n_methods);
    opts.token_fits = broker_token_fits;
    opts.jwt_role = db->config->databroker_pomerium_jwt;
    opts.jwt_off = "a jwt counts only where databroker_pomerium_jwt names its role; show a token "
                   "(postern token create)";
    return rpc_server_new(db->rpc, &opts, &db->server, d);
}

/* The first one wraps the store's keys, each of them opens them: a store that was sealed under the shared
 * secret goes on when an encryption key is set. */
static void add_secrets(const struct config *config, struct broker_store_opts *store)
{
    const struct secret *const secrets[BROKER_SECRETS_MAX] = {
        config->databroker_encryption_key,
        config->databroker_encryption_key_previous,
        config->shared_secret,
        config->shared_secret_previous,
    };

    for (size_t i = 0; i < BROKER_SECRETS_MAX; i++) {
        if (secrets[i] != NULL) {
            store->secrets[store->n_secrets] = secrets[i];
            store->n_secrets++;
        }
    }
}

static void wipe_text(char **text)
{
    if (*text != NULL) {
        secret_wipe(*text, strlen(*text));
    }
    mem_free(text);
}

static enum err open_store(struct databroker *db, const struct config *config, struct diag *d)
{
    CLEANUP(wipe_text) char *conninfo = NULL;
    struct broker_store_opts opts = { .beneath = &broker_store_sqlite };

    add_secrets(config, &opts);
    switch (config->databroker_storage_type) {
    case CONFIG_STORAGE_SQLITE:
        opts.target = config->databroker_storage_file.p;
        log_info("store.opens", KV_STR("type", "sqlite"), KV_STR("at", opts.target));
        break;
    case CONFIG_STORAGE_MEMORY:
        log_info("store.opens", KV_STR("type", "memory"));
        break;
    case CONFIG_STORAGE_POSTGRES:
        conninfo = mem_svdup(secret_bytes(config->databroker_storage_connection_string));
        opts.target = conninfo;
        opts.beneath = &broker_store_pg;
        break;
    }
    return broker_service_new(service_loop(db->service), &broker_store_sealed, &opts, &db->broker,
                              d);
}

static enum err databroker_start(struct service *service, const struct config *config,
                                 void **state_out, struct diag *d)
{
    struct databroker *db = MEM_NEW(struct databroker);
    enum err err = ERR_OK;

    db->service = service;
    db->config = config_ref(config);
    db->writer = service_part_new(service, "store");
    audit_ready_init(&db->audit, service, config);
    err = open_store(db, config, d);
    if (err == ERR_OK) {
        err = broker_service_audit(db->broker, config, &db->audit, d);
    }
    if (err == ERR_OK) {
        db->identity = rpc_identity_new(config->keys, RPC_DATABROKER);
        db->rpc = rpc_new(service_loop(service));
        err = open_server(db, d);
    }
    if (err != ERR_OK) {
        databroker_free(db);
        return err;
    }
    broker_service_on_health(db->broker, on_health, db);
    broker_service_fetch(db->broker, config);
    rpc_server_set_serving(db->server, true);
    log_info("databroker.listens", KV_SV("address", config->grpc_address));
    *state_out = db;
    return ERR_OK;
}

/* Of the databroker's settings the audit's and the external data's change while it runs. */
static enum err databroker_reload(void *state, const struct config *config, struct diag *d)
{
    struct databroker *db = state;

    enum err err = broker_service_audit(db->broker, config, &db->audit, d);

    if (err == ERR_OK) {
        audit_ready_follow(&db->audit, config);
        broker_service_fetch(db->broker, config);
    }
    return err;
}

static void on_stopped(void *arg)
{
    struct databroker *db = arg;

    service_stopped(db->service);
}

static void databroker_stop(void *state)
{
    struct databroker *db = state;

    rpc_server_set_serving(db->server, false);
    broker_service_stop(db->broker, on_stopped, db);
}

static const struct service_app app = {
    .name = "databroker",
    .part = CONFIG_PART_DATABROKER,
    .summary = "Keeps sessions, users and everything else that lasts; tells others what changed.",
    .start = databroker_start,
    .reload = databroker_reload,
    .stop = databroker_stop,
    .free = databroker_free,
};

int main(int argc, char **argv)
{
    return service_main(argc, argv, &app);
}
