#include "authenticate/issuers.h"

#include "common/mem.h"

static bool same_source(const struct config_issuer *a, const struct config_issuer *b)
{
    return sv_eq(a->name, b->name) && sv_eq(a->jwks_url, b->jwks_url) && sv_eq(a->jwks, b->jwks) &&
           sv_eq(a->ca_file, b->ca_file) && a->kubernetes == b->kubernetes &&
           sv_eq(a->api_url, b->api_url);
}

static struct authn_keyset *take_same(struct authn *app, const struct config_issuer *issuer)
{
    for (size_t i = 0; i < app->n_keysets; i++) {
        if (app->keysets[i] != NULL && same_source(authn_keyset_issuer(app->keysets[i]), issuer)) {
            return TAKE(app->keysets[i]);
        }
    }
    return NULL;
}

static void free_all(struct authn_keyset **sets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        authn_keyset_free(&sets[i]);
    }
    mem_free(&sets);
}

enum err authn_issuers_adopt(struct authn *app, const struct config *config, struct diag *d)
{
    struct authn_keyset **fresh = mem_array(config->n_issuers + 1, sizeof(struct authn_keyset *));
    struct authn_keyset **old = app->keysets;
    size_t n_old = app->n_keysets;

    for (size_t i = 0; i < config->n_issuers; i++) {
        const struct config_issuer *issuer = &config->issuers[i];

        if (authn_keyset_new(app->loop, issuer, &fresh[i], d) != ERR_OK) {
            free_all(fresh, i);
            return ERR_INVALID;
        }
    }
    for (size_t i = 0; i < config->n_issuers; i++) {
        struct authn_keyset *same = take_same(app, &config->issuers[i]);

        if (same != NULL) {
            authn_keyset_free(&fresh[i]);
            fresh[i] = same;
            authn_keyset_move(same, &config->issuers[i]);
        }
    }
    app->keysets = fresh;
    app->n_keysets = config->n_issuers;
    free_all(old, n_old);
    return ERR_OK;
}

void authn_issuers_free(struct authn *app)
{
    free_all(app->keysets, app->n_keysets);
    app->keysets = NULL;
    app->n_keysets = 0;
}

struct authn_keyset *authn_issuers_keyset(const struct authn *app,
                                          const struct config_issuer *issuer)
{
    for (size_t i = 0; i < app->n_keysets; i++) {
        if (sv_eq(authn_keyset_issuer(app->keysets[i])->name, issuer->name)) {
            return app->keysets[i];
        }
    }
    return NULL;
}

const struct config_issuer *authn_issuers_find(const struct authn *app, const struct config *config,
                                               const struct config_route *route, struct sv iss,
                                               struct authn_keyset **unknown_out)
{
    *unknown_out = NULL;
    for (size_t i = 0; i < config->n_issuers; i++) {
        const struct config_issuer *issuer = &config->issuers[i];
        struct authn_keyset *set = authn_issuers_keyset(app, issuer);

        if (set == NULL || !config_route_takes_issuer(route, issuer)) {
            continue;
        }
        if (authn_keyset_iss(set).n == 0) {
            *unknown_out = set;
        } else if (sv_eq(authn_keyset_iss(set), iss)) {
            return issuer;
        }
    }
    return NULL;
}
