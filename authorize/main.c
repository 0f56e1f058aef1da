/* postern-authorize: answers who may do what. README.md tells the files in reading order. */
#include "authorize/rules.h"
#include "authorize/service.h"
#include "common/mem.h"
#include "common/rpc/rpc.h"
#include "common/service.h"

struct authorize {
    struct service *service;
    struct authz_service *checks;
    const struct authz_rules *rules; /* the newest; they end after those that follow have come */
    struct service_part *replica;
    struct audit_ready audit;
};

static void on_ready(void *arg, bool ready)
{
    struct authorize *a = arg;

    service_part_set(a->replica, ready,
                     ready ? NULL : "the databroker has not been reached lately");
}

static enum err start(struct service *service, const struct config *config, void **state_out,
                      struct diag *d)
{
    struct authorize *a = MEM_NEW(struct authorize);
    struct authz_rules *rules = NULL;
    enum err err = authz_rules_new(config, NULL, &rules, d);

    a->service = service;
    if (err == ERR_OK) {
        const struct authz_service_opts opts = { .rules = rules,
                                                 .listen = config->grpc_address.p,
                                                 .databroker = config->databroker.v[0].text.p,
                                                 .loop = service_loop(service),
                                                 .on_ready = on_ready,
                                                 .arg = a,
                                                 .audit = &a->audit };

        a->replica = service_part_new(service, "replica");
        audit_ready_init(&a->audit, service, config);
        err = authz_service_new(&opts, &a->checks, d);
    }
    if (err != ERR_OK) {
        authz_rules_free(&rules);
        mem_free(&a);
        return err;
    }
    a->rules = rules;
    *state_out = a;
    return ERR_OK;
}

static enum err reload(void *state, const struct config *config, struct diag *d)
{
    struct authorize *a = state;
    struct authz_rules *rules = NULL;
    enum err err = authz_rules_new(config, a->rules, &rules, d);

    if (err != ERR_OK) {
        return err;
    }
    err = authz_service_set_rules(a->checks, rules, d);
    if (err != ERR_OK) {
        authz_rules_free(&rules);
        return err;
    }
    a->rules = rules;
    audit_ready_follow(&a->audit, config);
    return ERR_OK;
}

static void stop(void *state)
{
    struct authorize *a = state;

    service_stopped(a->service);
}

static void free_state(void *state)
{
    struct authorize *a = state;

    authz_service_free(&a->checks);
    mem_free(&a);
}

static const struct service_app app = {
    .name = "authorize",
    .part = CONFIG_PART_AUTHORIZE,
    .summary = "answers, for each request, whether this visitor may make it",
    .start = start,
    .reload = reload,
    .stop = stop,
    .free = free_state,
};

int main(int argc, char **argv)
{
    rpc_expect_few_peers(); /* the workers of the proxies */
    return service_main(argc, argv, &app);
}
