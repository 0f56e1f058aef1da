/* The section `identity_providers`: who else may vouch for programs, and which routes take their tokens. */
#include <string.h>

#include "common/config/reader.h"

enum { ISSUERS_MAX = 64, JWKS_MAX = 262144, NAME_MAX_LEN = 32, ROWS_MAX = 16 };

#define I(member)  offsetof(struct config_issuer, member)
#define POD        "/var/run/secrets/kubernetes.io/serviceaccount/"
#define API_SERVER "https://kubernetes.default.svc"

/* Those that are spoken of below, in this order. */
enum { ISSUER, AUDIENCES, JWKS_URL, JWKS, ALGS, CA_FILE, API_URL, API_TOKEN };

static const struct config_row issuer_rows[] = {
    [ISSUER] = { "issuer", CFG_TEXT, CFG_REQUIRED, I(issuer), 1, 2048,
                 .doc =
                     "The `iss` of its tokens, letter by letter. `kubernetes:///`: the service accounts of the "
                     "cluster; its API server tells who that is, and the keys." },
    [AUDIENCES] = { "audiences", CFG_STRINGS, CFG_REQUIRED, I(audiences),
                    .doc = "A token must be for one of these (`aud`)." },
    [JWKS_URL] = { "jwks_url", CFG_LINK, 0, I(jwks_url), .doc = "Where its keys are (https)." },
    [JWKS] = { "jwks", CFG_TEXT, CFG_OURS | CFG_HAS_FILE | CFG_ONLY_AUTHN, I(jwks), 2, JWKS_MAX,
               .doc = "Its keys themselves (JSON), instead of `jwks_url`." },
    [ALGS] = { "supported_algs", CFG_STRINGS, 0, I(algs), .def_shown = "`RS256`, `ES256`",
               .doc =
                   "What it may sign with: `RS`, `PS` or `ES` and `256`, `384` or `512`; `EdDSA` (Ed25519)." },
    [CA_FILE] = { "ca_file", CFG_FILE, CFG_OURS | CFG_ONLY_AUTHN, I(ca_file),
                  .def_shown = "the system's; the pod's",
                  .doc = "Certificates to verify the server of `jwks_url`, or `api_url`, with." },
    [API_URL] = { "api_url", CFG_LINK, CFG_OURS, I(api_url), .def_shown = "`" API_SERVER "`",
                  .doc = "`kubernetes:///`: the API server (https)." },
    [API_TOKEN] = { "api_token", CFG_SECRET_TEXT, CFG_OURS | CFG_HAS_FILE | CFG_ONLY_AUTHN,
                    I(api_token), .def_shown = "the pod's",
                    .doc = "`kubernetes:///`: what authenticate shows the API server." },
    { "email_claim", CFG_TEXT, CFG_OURS, I(email_claim), 1, 255, .def_shown = "none",
      .doc =
          "The claim whose value is an e-mail address that policies and applications may "
          "believe. Whoever the issuer gives one acts as that person wherever `email` decides." },
    { "groups_claim", CFG_TEXT, CFG_OURS, I(groups_claim), 1, 255, .def_shown = "none",
      .doc = "The claim that names the groups it is in." },
};

const struct config_rows config_rows_issuer =
    CONFIG_ROWS(issuer_rows, "setting of an identity provider");

static struct sv default_algs[] = { { "RS256", 5 }, { "ES256", 5 } };

/* It is part of user ids. local is the name of accounts from the users file. */
static bool is_name(struct sv name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
              c == '.')) {
            return false;
        }
    }
    return name.n != 0 && name.n <= NAME_MAX_LEN && !sv_eq(name, SV("local")) &&
           !sv_eq(name, SV("service-account"));
}

static bool is_alg(struct sv alg)
{
    return sv_eq(alg, SV("EdDSA")) ||
           (alg.n == 5 &&
            (sv_starts(alg, SV("RS")) || sv_starts(alg, SV("PS")) || sv_starts(alg, SV("ES"))) &&
            (sv_ends(alg, SV("256")) || sv_ends(alg, SV("384")) || sv_ends(alg, SV("512"))));
}

static void check_algs(struct config_reader *r, const struct config_value *v,
                       struct config_issuer *issuer)
{
    if (issuer->algs.n == 0) {
        issuer->algs = (struct config_strings){ default_algs, ARRAY_LEN(default_algs) };
    }
    for (size_t i = 0; i < issuer->algs.n; i++) {
        if (!is_alg(issuer->algs.v[i])) {
            config_error(
                r, v->place,
                "identity_providers: supported_algs: \"%.40s\" is none of EdDSA and RS, PS, ES "
                "with 256, 384, 512",
                issuer->algs.v[i].p);
        }
    }
}

/* A pod finds token and certificates where Kubernetes puts them. */
static void read_pods(struct config_reader *r, const struct config_value *v, const bool *given,
                      struct config_issuer *issuer)
{
    const struct {
        size_t row;
        const char *key;
        const char *path;
    } files[] = { { CA_FILE, "ca_file", POD "ca.crt" },
                  { API_TOKEN, "api_token_file", POD "token" } };

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const struct config_row *row = &issuer_rows[files[i].row];
        struct config_value file = *v;

        if (given[files[i].row]) {
            continue;
        }
        file.key = files[i].key;
        file.json = json_string(files[i].path);
        CHECK(file.json != NULL);
        if ((row->flags & CFG_HAS_FILE) != 0) {
            config_read_file_value(r, row, &file, issuer);
        } else {
            (void)config_read_value(r, row, &file, issuer);
        }
        json_decref(file.json);
    }
}

static void read_cluster(struct config_reader *r, const struct config_value *v, const bool *given,
                         struct config_issuer *issuer)
{
    if (given[JWKS_URL] || given[JWKS]) {
        config_error(r, v->place,
                     "identity_providers: kubernetes:/// brings its keys: leave jwks_url and jwks "
                     "out, or write the cluster's own issuer");
    }
    if (issuer->api_url.n == 0) {
        issuer->api_url = SV(API_SERVER);
    }
    if (!sv_starts(issuer->api_url, SV("https://"))) {
        config_error(r, v->place, "identity_providers: api_url: an API server is asked by https");
    }
    read_pods(r, v, given, issuer);
}

static void check_keys(struct config_reader *r, const struct config_value *v, const bool *given,
                       const struct config_issuer *issuer)
{
    if (given[API_URL] || given[API_TOKEN]) {
        config_error(r, v->place,
                     "identity_providers: api_url and api_token belong to kubernetes:///");
    }
    if (given[JWKS_URL] == given[JWKS]) {
        config_error(r, v->place,
                     "identity_providers: one of \"jwks_url\" and \"jwks\" (\"jwks_file\") is "
                     "needed");
    }
    if (issuer->jwks_url.n != 0 && !sv_starts(issuer->jwks_url, SV("https://")) &&
        !sv_starts(issuer->jwks_url, SV("http://127.0.0.1:")) &&
        !sv_starts(issuer->jwks_url, SV("http://localhost:"))) {
        config_error(r, v->place,
                     "identity_providers: jwks_url: keys come by https, or from this machine");
    }
}

static void read_issuer(struct config_reader *r, const struct config_value *v,
                        struct config_issuer *issuer)
{
    bool given[ROWS_MAX] = { false };

    CHECK(config_rows_issuer.n <= ARRAY_LEN(given));
    issuer->name = config_keep(r, sv_from(v->key));
    if (!is_name(issuer->name)) {
        config_error(r, v->place,
                     "identity_providers: a name has up to %d lower-case letters, digits, dots, "
                     "dashes and underscores; local and service-account are taken",
                     NAME_MAX_LEN);
    }
    config_read_object(r, &config_rows_issuer, v, issuer, given, NULL);
    check_algs(r, v, issuer);
    issuer->kubernetes = sv_eq(issuer->issuer, SV("kubernetes:///"));
    if (issuer->kubernetes) {
        read_cluster(r, v, given, issuer);
    } else if (json_is_object(v->json)) {
        const struct config_value member =
            config_member(v, "issuer", json_object_get(v->json, "issuer"));

        (void)(issuer->issuer.n == 0 || config_check_link(r, &member, issuer->issuer));
        check_keys(r, v, given, issuer);
    }
}

static void check_issuers(struct config_reader *r, const struct config_value *v)
{
    const struct config *c = r->c;

    for (size_t i = 0; i < c->n_issuers; i++) {
        for (size_t k = i + 1; k < c->n_issuers; k++) {
            if (c->issuers[i].issuer.n != 0 && sv_eq(c->issuers[i].issuer, c->issuers[k].issuer)) {
                config_error(r, v->place,
                             "identity_providers: %s and %s have the same issuer; a token could "
                             "be of either",
                             c->issuers[i].name.p, c->issuers[k].name.p);
            }
        }
    }
}

void config_read_issuers(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config *c = base;
    size_t n = json_object_size(v->json);

    if (!json_is_object(v->json) || n > ISSUERS_MAX) {
        config_error(r, v->place,
                     "identity_providers: expected up to %d names with settings each, as github: "
                     "{issuer: …, jwks_url: …, audiences: […]}",
                     ISSUERS_MAX);
        return;
    }
    c->issuers = arena_zalloc(r->arena, (n + 1) * sizeof(*c->issuers));
    for (void *it = json_object_iter(v->json); it != NULL;
         it = json_object_iter_next(v->json, it)) {
        struct config_value item =
            config_member(v, json_object_iter_key(it), json_object_iter_value(it));

        read_issuer(r, &item, &c->issuers[c->n_issuers++]);
    }
    check_issuers(r, v);
}

bool config_route_takes_issuer(const struct config_route *route, const struct config_issuer *issuer)
{
    for (size_t i = 0; i < route->identity_providers.n; i++) {
        if (sv_eq(route->identity_providers.v[i], issuer->name)) {
            return true;
        }
    }
    return route->identity_providers.n == 0;
}

bool config_takes_any_audience(struct config_strings audiences)
{
    return audiences.n == 1 && sv_eq(audiences.v[0], SV("*"));
}

static void check_audiences(struct config_reader *r, struct config_place place,
                            struct config_strings audiences)
{
    for (size_t i = 0; i < audiences.n; i++) {
        if (sv_eq(audiences.v[i], SV("*")) && audiences.n != 1) {
            config_error(r, place,
                         "idp_access_token_allowed_audiences: \"*\" takes all tokens, whomever "
                         "they are for: it stands alone, or not there");
        }
    }
}

static bool has_issuer(const struct config *c, struct sv name)
{
    for (size_t i = 0; i < c->n_issuers; i++) {
        if (sv_eq(c->issuers[i].name, name)) {
            return true;
        }
    }
    return false;
}

void config_finish_bearer(struct config_reader *r, size_t i)
{
    const struct config *c = r->c;
    struct config_route *route = &r->c->routes[i];
    const struct config_place place = { route->file, route->line, route->column };
    bool idp = false;

    if (!config_route_given(r, i, "bearer_token_format")) {
        route->bearer = route->kind == CONFIG_ROUTE_TCP ? CONFIG_BEARER_DEFAULT : c->bearer;
    }
    if (!config_route_given(r, i, "idp_access_token_allowed_audiences")) {
        route->access_audiences = c->access_audiences;
    }
    for (size_t k = 0; k < route->identity_providers.n; k++) {
        if (!has_issuer(c, route->identity_providers.v[k])) {
            config_error(r, place, "identity_providers: \"%.64s\" is none of the global section",
                         route->identity_providers.v[k].p);
        }
    }
    if (route->bearer == CONFIG_BEARER_JWT && c->n_issuers == 0) {
        config_error(r, place, "bearer_token_format: jwt needs the section \"identity_providers\"");
    }
    if (route->identity_providers.n != 0 && route->bearer != CONFIG_BEARER_JWT) {
        config_error(r, place,
                     "identity_providers has a meaning only with bearer_token_format: jwt");
    }
    idp = route->bearer == CONFIG_BEARER_IDP_ACCESS || route->bearer == CONFIG_BEARER_IDP_IDENTITY;
    if (idp && c->idp_provider != CONFIG_IDP_OIDC) {
        config_error(r, place,
                     "bearer_token_format: tokens of the provider need idp_provider oidc");
    }
    check_audiences(r, place, route->access_audiences);
    if (route->bearer == CONFIG_BEARER_IDP_ACCESS && route->access_audiences.n == 0) {
        config_error(r, place,
                     "bearer_token_format: idp_access_token needs "
                     "\"idp_access_token_allowed_audiences\": else a token that somebody gave "
                     "another application would do");
    }
    if (route->bearer != CONFIG_BEARER_DEFAULT &&
        c->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        config_error(r, place,
                     "bearer_token_format: authenticate verifies tokens: set "
                     "\"authenticate_service_url\"");
    }
}
