#include "authorize/front.h"

#include "common/mem.h"
#include "common/route/settle.h"

struct authz_front *authz_front_new(const struct config *config)
{
    struct authz_front *f = MEM_NEW(struct authz_front);
    enum err err = ERR_OK;

    f->config = config;
    f->table = route_table_new(config->routes, config->n_routes);
    route_settle_rules(config, &f->canon, &f->head);
    http_session_cookies_init(&f->cookies, config->cookie_name);
    f->ours = http_name_set_new();
    f->handles = sealer_new(config->keys, KEYS_HANDLE);
    err = http_name_set_add_prefix(f->ours, SV("x-pomerium-"));
    for (size_t i = 0; i < config->jwt_claims_headers.n && err == ERR_OK; i++) {
        err = http_name_set_add(f->ours, config->jwt_claims_headers.v[i].name);
    }
    CHECK(err == ERR_OK); /* the configuration has looked at them */
    return f;
}

void authz_front_free(struct authz_front **front)
{
    struct authz_front *f = TAKE(*front);

    if (f == NULL) {
        return;
    }
    route_table_free(&f->table);
    http_name_set_free(&f->ours);
    sealer_free(&f->handles);
    mem_free(&f);
}
