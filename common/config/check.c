/* Rules between settings. */
#include <string.h>

#include "common/config/reader.h"
#include "common/mem.h"

static struct config_place whole(const struct config_reader *r)
{
    return (struct config_place){ r->c->file.n != 0 ? r->c->file.p : "environment", 0, 0 };
}

static bool serves_pages(const struct config_reader *r)
{
    return r->opts->part == CONFIG_PART_PROXY || r->opts->part == CONFIG_PART_NONE;
}

static bool has_trusted(const struct config *c)
{
    return c->trusted_proxies.n != 0 || c->trusted_proxies.unix_peers;
}

/* Whose word about the client's address is not believed cannot say who asks: a rule about addresses would
 * judge the asking proxy's own. */
static void check_forward_auth(struct config_reader *r)
{
    const struct config *c = r->c;
    bool trusted = !c->forward_auth_from.unix_peers || c->trusted_proxies.unix_peers;

    for (size_t i = 0; i < c->forward_auth_from.n && trusted; i++) {
        trusted = false;
        for (size_t k = 0; k < c->trusted_proxies.n && !trusted; k++) {
            trusted = cidr_within(&c->forward_auth_from.v[i], &c->trusted_proxies.v[k]);
        }
    }
    if (!trusted) {
        config_error(
            r, whole(r),
            "forward_auth_from: who asks for a verdict must be believed about the client's "
            "address: list the same addresses in \"trusted_proxies\", too");
    }
}

static void check_listener(struct config_reader *r, const bool *given)
{
    struct config *c = r->c;

    if (config_rows_given(&config_rows_global, given, "certificate") !=
        config_rows_given(&config_rows_global, given, "certificate_key")) {
        config_error(r, whole(r), "\"certificate\" and \"certificate_key\" belong together");
    } else if (c->certificate_pem.n != 0 && c->certificate_key_pem != NULL) {
        struct config_value v = { .key = "certificate", .place = whole(r) };
        struct config_certificate *all =
            arena_zalloc(r->arena, (c->n_certificates + 1) * sizeof(*all));

        if (c->n_certificates != 0) {
            memcpy(all, c->certificates, c->n_certificates * sizeof(*all));
        }
        c->certificates = all;
        all[c->n_certificates].file = v.place.file;
        all[c->n_certificates].pair =
            config_pem_pair(r, &v, c->certificate_pem, secret_bytes(c->certificate_key_pem));
        if (all[c->n_certificates].pair == NULL) {
            return;
        }
        secret_free(&c->certificate_key_pem);
        c->n_certificates++;
    }
    if (serves_pages(r) && !c->insecure_server && !c->autocert && c->n_certificates == 0 &&
        !config_rows_given(&config_rows_global, given, "certificates") &&
        !config_rows_given(&config_rows_global, given, "certificate")) {
        config_error(r, whole(r),
                     "no certificate to serve with: set \"certificates\", \"autocert: true\", or "
                     "\"insecure_server: true\" behind something that ends TLS");
    }
    if (sv_starts(c->http_redirect_addr, SV("unix:"))) {
        config_error(r, whole(r), "http_redirect_addr: expected host:port, such as :80");
    }
    if (c->http_redirect_addr.n != 0 && c->insecure_server) {
        config_error(r, whole(r),
                     "http_redirect_addr: there is no https to go to with insecure_server");
    }
    if (c->timeout_write_ms != 0) {
        config_error(r, whole(r), "timeout_write: Postern does not have it yet; leave it out");
    }
    if (c->use_proxy_protocol && !has_trusted(c)) {
        config_error(r, whole(r),
                     "use_proxy_protocol: whose header is believed? List the load balancers in "
                     "\"trusted_proxies\"; Pomerium's \"everybody\" is [0.0.0.0/0, \"::/0\"]");
    }
    check_forward_auth(r);
    if (c->xff_num_trusted_hops != 0 && !has_trusted(c)) {
        config_error(r, whole(r),
                     "xff_num_trusted_hops: whose X-Forwarded-For is believed? List the proxies "
                     "that connect to this one in \"trusted_proxies\"");
    }
    if (c->grpc_insecure) {
        config_error(r, whole(r),
                     "grpc_insecure: gRPC between the parts always is TLS here; leave it "
                     "out");
    }
}

static void check_session(struct config_reader *r)
{
    config_finish_session(r, whole(r), r->c->session_idle_timeout_ms, r->c->session_max_age_ms);
}

static bool needs_login(const struct config *c)
{
    for (size_t i = 0; i < c->n_routes; i++) {
        if (!c->routes[i].allow_public_unauthenticated_access) {
            return true;
        }
    }
    return false;
}

static void check_login(struct config_reader *r, const bool *given)
{
    struct config *c = r->c;
    bool authn = r->opts->part == CONFIG_PART_AUTHENTICATE || r->opts->part == CONFIG_PART_NONE;

    if (c->authenticate_service_url.scheme == CONFIG_SCHEME_NONE) {
        if (!config_rows_given(&config_rows_global, given, "authenticate_service_url") &&
            needs_login(c)) {
            config_error(r, whole(r),
                         "\"authenticate_service_url\" is missing: people need a place to log in, "
                         "unless all routes are public");
        }
        return;
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        const struct config_route *route = &c->routes[i];
        const struct config_url *url = &c->authenticate_service_url;

        if (!route->wildcard && sv_eq(route->host, url->host) &&
            (route->port == 0 || route->port == url->port)) {
            config_error(r, (struct config_place){ route->file, route->line, route->column },
                         "this host is the one of authenticate_service_url");
        }
    }
    if (!authn) {
        return;
    }
    if (c->idp_provider == CONFIG_IDP_NONE &&
        !config_rows_given(&config_rows_global, given, "idp_provider")) {
        config_error(r, whole(r), "\"idp_provider\" is missing: oidc or local");
    }
    if (c->idp_provider == CONFIG_IDP_OIDC && c->idp_provider_url.n == 0 &&
        !config_rows_given(&config_rows_global, given, "idp_provider_url")) {
        config_error(r, whole(r), "idp_provider oidc needs \"idp_provider_url\"");
    }
    if (c->idp_provider == CONFIG_IDP_OIDC && c->idp_client_id.n == 0 &&
        !config_rows_given(&config_rows_global, given, "idp_client_id")) {
        config_error(r, whole(r), "idp_provider oidc needs \"idp_client_id\"");
    }
    if (c->idp_provider == CONFIG_IDP_LOCAL && c->idp_local_users_file.n == 0) {
        config_error(r, whole(r), "idp_provider local needs \"idp_local_users_file\"");
    }
}

static void storage_defaults(struct config_reader *r)
{
    struct config *c = r->c;
    const struct secret *given = c->databroker_storage_connection_string;
    struct sv name = given == NULL ? SV("databroker.sqlite") : secret_bytes(given);

    if (c->databroker_storage_type == CONFIG_STORAGE_POSTGRES && given == NULL &&
        r->opts->part == CONFIG_PART_DATABROKER) {
        config_error(
            r, whole(r),
            "databroker_storage_type: postgres wants databroker_storage_connection_string, "
            "such as postgres://postern@db.internal/postern?sslmode=verify-full");
    }
    if (c->databroker_storage_type != CONFIG_STORAGE_SQLITE) {
        return;
    }
    if (sv_starts(name, SV("postgres://")) || sv_starts(name, SV("postgresql://"))) {
        config_error(r, whole(r),
                     "databroker_storage_connection_string leads to PostgreSQL: set "
                     "databroker_storage_type: postgres");
        return;
    }
    if (sv_starts(name, SV("file://"))) {
        name = sv_from_at(name, 7);
    }
    c->databroker_storage_file = config_path(r, name);
}

static void set_part_defaults(struct config_reader *r)
{
    static const char *const health[] = { [CONFIG_PART_PROXY] = "127.0.0.1:28080",
                                          [CONFIG_PART_AUTHENTICATE] = "127.0.0.1:28081",
                                          [CONFIG_PART_AUTHORIZE] = "127.0.0.1:28082",
                                          [CONFIG_PART_DATABROKER] = "127.0.0.1:28083",
                                          [CONFIG_PART_ACME] = "127.0.0.1:28084" };
    struct config *c = r->c;
    struct config_value v = { .key = "grpc_address", .place = whole(r) };
    struct buf b;

    if (c->grpc_address.n == 0 && r->opts->part > CONFIG_PART_PROXY) {
        buf_init(&b, 256);
        buf_printf(&b, "unix:sock/%s.sock", config_part_name(r->opts->part));
        (void)config_read_listen(r, &v, buf_sv(&b), &c->grpc_address);
        buf_deinit(&b);
    }
    if (sv_eq(c->health_check_addr, SV("off"))) {
        c->health_check_addr = (struct sv){ 0 };
    } else if (c->health_check_addr.n == 0 && r->opts->part != CONFIG_PART_NONE) {
        c->health_check_addr = sv_from(health[r->opts->part]);
    }
    storage_defaults(r);
}

static void make_keys(struct config_reader *r)
{
    const struct secret *secrets[KEYS_SLOTS_MAX] = { r->c->shared_secret,
                                                     r->c->shared_secret_previous };
    size_t n = r->c->shared_secret_previous == NULL ? 1 : 2;

    if (r->c->shared_secret == NULL) {
        return; /* reported */
    }
    if (n == 2 && secret_eq(secrets[0], secret_bytes(secrets[1]))) {
        config_error(r, whole(r),
                     "shared_secret_previous is the same as shared_secret; leave it out");
        return;
    }
    CHECK(keys_new(secrets, n, &r->c->keys) == ERR_OK);
}

static bool is_support_url(struct sv url)
{
    for (size_t i = 0; i < url.n; i++) {
        if ((unsigned char)url.p[i] <= ' ' || url.p[i] == 0x7f) {
            return false;
        }
    }
    return sv_starts(url, SV("https://")) || sv_starts(url, SV("http://")) ||
           (sv_starts(url, SV("mailto:")) && sv_find(url, '@') != SIZE_MAX);
}

void config_check(struct config_reader *r, const bool *given)
{
    for (size_t i = 0; i < config_rows_global.n; i++) {
        const struct config_row *row = &config_rows_global.v[i];

        if ((row->flags & CFG_REQUIRED) != 0 && !given[i]) {
            config_error(
                r, whole(r), "\"%s\" is missing: %s", row->name,
                row->type == CFG_SECRET_KEY
                    ? "all parts need the same one; make it with: head -c32 /dev/urandom | "
                      "base64"
                    : "it has no default");
        }
    }
    set_part_defaults(r);
    make_keys(r);
    check_listener(r, given);
    check_login(r, given);
    check_session(r);
    config_check_mtls(r);
    if (r->c->support_url.n != 0 && !is_support_url(r->c->support_url)) {
        config_error(r, whole(r), "support_url: expected https://… or mailto:somebody@example.com");
    }
    config_check_audit(r);
    if (config_rows_given(&config_rows_global, given, "autocert_eab_key_id") !=
        config_rows_given(&config_rows_global, given, "autocert_eab_mac_key")) {
        config_error(r, whole(r),
                     "\"autocert_eab_key_id\" and \"autocert_eab_mac_key\" belong together");
    }
    config_check_autocert(r);
}
