#include "common/config/rows.h"

#include <string.h>

#include "common/config/reader.h"

#define G(member)  offsetof(struct config, member)
#define R(member)  offsetof(struct config_route, member)
#define RD(member) offsetof(struct config_redirect, member)

static const struct config_choice choices_bearer[] = {
    { "default", CONFIG_BEARER_DEFAULT },
    { "idp_access_token", CONFIG_BEARER_IDP_ACCESS },
    { "idp_identity_token", CONFIG_BEARER_IDP_IDENTITY },
    { "jwt", CONFIG_BEARER_JWT },
    { NULL, 0 }
};

static const struct config_choice choices_idp[] = { { "local", CONFIG_IDP_LOCAL },
                                                    { "oidc", CONFIG_IDP_OIDC },
                                                    { NULL, 0 } };
static const struct config_choice choices_storage[] = { { "sqlite", CONFIG_STORAGE_SQLITE },
                                                        { "memory", CONFIG_STORAGE_MEMORY },
                                                        { "postgres", CONFIG_STORAGE_POSTGRES },
                                                        { NULL, 0 } };
static const struct config_choice choices_jwt_role[] = {
    { "off", TOKEN_ROLE_NONE },
    { "reader", TOKEN_ROLE_READER },
    { "session-admin", TOKEN_ROLE_SESSION_ADMIN },
    { "directory-writer", TOKEN_ROLE_DIRECTORY_WRITER },
    { "record-writer", TOKEN_ROLE_RECORD_WRITER },
    { "config-writer", TOKEN_ROLE_CONFIG_WRITER },
    { NULL, 0 }
};
static const struct config_choice choices_slashes[] = {
    { "reject_request", CONFIG_SLASHES_REJECT },
    { "keep_unchanged", CONFIG_SLASHES_KEEP },
    { "unescape_and_redirect", CONFIG_SLASHES_UNESCAPE_REDIRECT },
    { "unescape_and_forward", CONFIG_SLASHES_UNESCAPE_FORWARD },
    { NULL, 0 }
};
static const struct config_choice choices_underscores[] = {
    { "reject_request", CONFIG_UNDERSCORES_REJECT },
    { "allow", CONFIG_UNDERSCORES_ALLOW },
    { "drop_header", CONFIG_UNDERSCORES_DROP },
    { NULL, 0 }
};
static const struct config_choice choices_same_site[] = { { "lax", CONFIG_SAME_SITE_LAX },
                                                          { "strict", CONFIG_SAME_SITE_STRICT },
                                                          { "none", CONFIG_SAME_SITE_NONE },
                                                          { NULL, 0 } };
static const struct config_choice choices_issuer[] = { { "IssuerHostOnly", CONFIG_JWT_ISSUER_HOST },
                                                       { "IssuerURI", CONFIG_JWT_ISSUER_URI },
                                                       { NULL, 0 } };
static const struct config_choice choices_balance[] = {
    { "round_robin", CONFIG_BALANCE_ROUND_ROBIN },
    { "least_request", CONFIG_BALANCE_LEAST_REQUEST },
    { "random", CONFIG_BALANCE_RANDOM },
    { "ring_hash", CONFIG_BALANCE_RING_HASH },
    { "maglev", CONFIG_BALANCE_MAGLEV },
    { NULL, 0 }
};
static const struct config_choice choices_versions[] = { { "auto", CONFIG_VERSIONS_AUTO },
                                                         { "http1", CONFIG_VERSIONS_HTTP1 },
                                                         { "http2", CONFIG_VERSIONS_HTTP2 },
                                                         { NULL, 0 } };
static const struct config_choice choices_family[] = { { "V4_PREFERRED",
                                                         CONFIG_FAMILY_V4_PREFERRED },
                                                       { "AUTO", CONFIG_FAMILY_AUTO },
                                                       { "V4_ONLY", CONFIG_FAMILY_V4_ONLY },
                                                       { "V6_ONLY", CONFIG_FAMILY_V6_ONLY },
                                                       { "ALL", CONFIG_FAMILY_ALL },
                                                       { NULL, 0 } };
static const struct config_choice choices_tls[] = { { "tls1.2", CONFIG_TLS_1_2 },
                                                    { "tls1.3", CONFIG_TLS_1_3 },
                                                    { NULL, 0 } };
static const struct config_choice choices_level[] = {
    { "info", LOG_INFO },   { "error", LOG_ERROR }, { "warn", LOG_WARN },
    { "debug", LOG_DEBUG }, { "trace", LOG_TRACE }, { NULL, 0 }
};

static const struct config_row global_rows[] = {
    /* --- listening --- */
    { "address", CFG_LISTEN, 0, G(address), .def_text = ":443",
      .doc = "Where the proxy listens: `host:port`, `:port` or `unix:/path`." },
    { "insecure_server", CFG_BOOL, 0, G(insecure_server),
      .doc = "Plain HTTP on `address`, for use behind something that ends TLS." },
    { "certificates", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_certificates,
      .doc =
          "List of `cert:` and `key:` files (PEM) for the public listener. The one whose names fit "
          "is used, exact before wildcard; the first for visitors that name no host or an unknown "
          "one. `ocsp:` ¹ is a file with a response (DER) to staple, see [tls.md](tls.md)." },
    { "certificate", CFG_PEM, CFG_RELOAD | CFG_HAS_FILE | CFG_ONLY_PROXY | CFG_ONLY_ACME,
      G(certificate_pem),
      .doc = "One certificate in place (PEM, or base64 of it), with `certificate_key`." },
    { "certificate_key", CFG_SECRET_PEM, CFG_RELOAD | CFG_HAS_FILE | CFG_ONLY_PROXY,
      G(certificate_key_pem), .doc = "The key of `certificate`." },
    { "tls_min_version", CFG_ENUM, CFG_RELOAD | CFG_OURS, G(tls_min_version),
      .choices = choices_tls, .doc = "The oldest TLS that the public listener speaks." },
    { "codec_type", CFG_ENUM, CFG_RELOAD, G(http_versions), .choices = choices_versions,
      .doc = "The HTTP of visitors: `auto` is both, as ALPN or the first bytes say; `http1` and "
             "`http2` are that one alone. `http3` is not served." },
    { "downstream_mtls", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_mtls,
      .doc = "Certificates of visitors, see [below](#downstream_mtls)." },
    { "http_redirect_addr", CFG_LISTEN, 0, G(http_redirect_addr),
      .doc = "A second listener, plain HTTP, that sends visitors of our hosts to https: "
             "`host:port` or `:80`." },
    { "trusted_proxies", CFG_CIDRS, CFG_RELOAD | CFG_OURS, G(trusted_proxies),
      .doc =
          "Addresses and ranges of the proxies and load balancers before this one: only what they "
          "say about a client's address is believed. `unix:` stands for whoever may connect to a "
          "unix socket. Default: nobody. See [proxy.md](proxy.md#client-addresses)." },
    { "forward_auth_from", CFG_CIDRS, CFG_RELOAD | CFG_OURS, G(forward_auth_from),
      .doc = "Which of `trusted_proxies` may ask `/.pomerium/auth/…` for a verdict about a request "
             "that they forward themselves. Default: nobody. See "
             "[migrate-forward-auth.md](migrate-forward-auth.md)." },
    { "xff_num_trusted_hops", CFG_NUMBER, CFG_RELOAD, G(xff_num_trusted_hops), 0, 32,
      .doc = "The client is the address at this place of `X-Forwarded-For`, counted from its end; "
             "with 0 it is the last one that is not itself in `trusted_proxies`." },
    { "skip_xff_append", CFG_BOOL, CFG_RELOAD, G(skip_xff_append),
      .doc = "Do not add the address that connects to `X-Forwarded-For`." },
    { "use_proxy_protocol", CFG_BOOL, CFG_RELOAD, G(use_proxy_protocol),
      .doc =
          "Connections from `trusted_proxies` begin with a PROXY protocol header, version 1 or 2; "
          "one without it is closed." },
    { "max_connections", CFG_COUNT, CFG_RELOAD | CFG_OURS, G(max_connections), 1, 10000000, 100000,
      .doc = "Client connections of a proxy; what comes beyond is closed at once." },
    { "max_connections_per_address", CFG_COUNT, CFG_RELOAD | CFG_OURS,
      G(max_connections_per_address), 1, 10000000, 10000,
      .doc =
          "How many of them one address may have, IPv6 by /64; `trusted_proxies` as many as they "
          "like." },
    { "shutdown_delay", CFG_DURATION, CFG_RELOAD | CFG_OURS, G(shutdown_delay_ms), 0, HOUR, 0,
      .doc =
          "After SIGTERM, how long a part goes on as before while `/readyz` already says 503, so "
          "that a load balancer can see it." },
    { "shutdown_grace_period", CFG_DURATION, CFG_RELOAD | CFG_OURS, G(shutdown_grace_ms), 0, DAY,
      10 * SECOND,
      .doc =
          "How long requests under way and WebSockets may then go on; what is still open is cut." },
    { "timeout_read", CFG_DURATION, CFG_RELOAD, G(timeout_read_ms), 0, DAY, 30 * SECOND,
      .doc = "For reading the head of a request; 0 is no limit. A body may take as long as it "
             "moves (`idle_timeout`)." },
    { "timeout_write", CFG_DURATION, CFG_RELOAD, G(timeout_write_ms), 0, DAY, 0,
      .doc = "Only 0: no limit for a whole stream." },
    { "timeout_idle", CFG_DURATION, CFG_RELOAD, G(timeout_idle_ms), 0, DAY, 5 * MINUTE,
      .doc = "How long a connection may wait for its next request; 0 is no limit." },
    { "default_upstream_timeout", CFG_DURATION, CFG_RELOAD, G(default_upstream_timeout_ms), 0, DAY,
      30 * SECOND,
      .doc = "For routes without a `timeout`: how long an upstream may take to begin its answer; 0 "
             "is no limit. Downloads and event streams then go on as long as they move." },
    { "normalize_path", CFG_BOOL, CFG_RELOAD, G(normalize_path), .def = 1,
      .doc = "Resolve `.` and `..` in paths before anything looks at them." },
    { "merge_slashes", CFG_BOOL, CFG_RELOAD, G(merge_slashes), .def = 1,
      .doc = "Make one slash of several in paths." },
    { "path_with_escaped_slashes_action", CFG_ENUM, CFG_RELOAD, G(path_with_escaped_slashes_action),
      .choices = choices_slashes, .doc = "What to do with `%2F` and `%5C` in paths." },
    { "headers_with_underscores_action", CFG_ENUM, CFG_RELOAD, G(headers_with_underscores_action),
      .choices = choices_underscores,
      .doc = "What to do with header names that hold `_`. Names that would look like an identity "
             "header of ours are dropped in any case." },
    { "set_response_headers", CFG_HEADERS, CFG_RELOAD, G(set_response_headers),
      .doc =
          "Headers of every response, over the defaults `X-Frame-Options`, `X-XSS-Protection` and "
          "(with TLS) `Strict-Transport-Security`. The name `disable` turns the defaults off." },
    { "allow_upgrades", CFG_TOKENS, CFG_RELOAD, G(allow_upgrades),
      .doc = "`Upgrade` names allowed on every route." },

    /* --- certificates from an ACME server --- */
    { "autocert", CFG_BOOL, CFG_RELOAD, G(autocert),
      .doc = "Get and renew certificates for the hosts of all https routes and of the login pages: "
             "see [certificates.md](certificates.md). `postern-acme` must run. Agrees to the "
             "server's terms." },
    { "autocert_ca", CFG_LINK, CFG_RELOAD, G(autocert_ca), .def_shown = "Let's Encrypt",
      .doc = "The directory of the ACME server, https." },
    { "autocert_use_staging", CFG_BOOL, CFG_RELOAD, G(autocert_use_staging),
      .doc = "Let's Encrypt's staging server instead: browsers do not trust what it issues, so "
             "`Strict-Transport-Security` is not sent." },
    { "autocert_email", CFG_TEXT, CFG_RELOAD, G(autocert_email), 3, 254,
      .doc = "Contact address of the account." },
    { "autocert_dir", CFG_TEXT, CFG_RELOAD, G(autocert_dir), 1, 3000, .def_text = "autocert",
      .doc = "Folder for account, certificates and open challenges; the same for every proxy and "
             "`postern-acme`." },
    { "autocert_eab_key_id", CFG_TEXT, CFG_RELOAD, G(autocert_eab_key_id), 1, 1024,
      .doc = "Binds the account to one that the server's owner knows already: its key id." },
    { "autocert_eab_mac_key", CFG_SECRET_TEXT, CFG_RELOAD | CFG_HAS_FILE | CFG_ONLY_ACME,
      G(autocert_eab_mac_key), .doc = "The key of `autocert_eab_key_id`, base64url." },
    { "autocert_must_staple", CFG_BOOL, CFG_RELOAD, G(autocert_must_staple),
      .doc = "Only `false`: see [certificates.md](certificates.md#when)." },
    { "autocert_trusted_ca", CFG_PEM, CFG_RELOAD | CFG_HAS_FILE | CFG_ONLY_ACME,
      G(autocert_trusted_ca),
      .doc = "Certificates (PEM, or base64 of it) to verify the ACME server with, instead of the "
             "system's." },

    /* --- upstreams --- */
    { "circuit_breaker_thresholds", CFG_OBJECT, CFG_RELOAD, SIZE_MAX,
      .read = config_read_global_limits,
      .doc = "Bounds on what a route's upstreams get at once, for routes that set none: see "
             "[proxy.md](proxy.md#several-upstreams)." },
    { "dns_lookup_family", CFG_ENUM, CFG_RELOAD, G(dns.family), .choices = choices_family,
      .doc = "Addresses to ask for: `V4_PREFERRED` takes IPv6 where there is no IPv4, `AUTO` the "
             "other way round, `ALL` both." },
    { "dns_query_timeout", CFG_DURATION, CFG_RELOAD, G(dns.query_timeout_ms), 100, MINUTE,
      5 * SECOND, .doc = "For one try at a name server." },
    { "dns_query_tries", CFG_COUNT, CFG_RELOAD, G(dns.query_tries), 1, 10, 4,
      .doc = "Tries at each name server." },
    { "dns_refresh_rate", CFG_DURATION, CFG_RELOAD, G(dns.refresh_ms), 100, DAY, 5 * SECOND,
      .doc = "When to look names up again where an answer has no time to live (`/etc/hosts`)." },
    { "dns_failure_refresh_rate", CFG_DURATION, CFG_RELOAD, G(dns.failure_refresh_ms), 100, DAY,
      5 * SECOND, .doc = "When to look up again after a failure; the last good answer stays." },
    { "dns_use_tcp", CFG_BOOL, CFG_RELOAD, G(dns.use_tcp), .doc = "Ask over TCP." },
    { "dns_resolvers", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_resolvers,
      .def_shown = "those of `/etc/resolv.conf`",
      .doc = "Name servers: `address`, `address:port`, with or without `udp://`." },
    { "dns_udp_max_queries", CFG_IGNORED, 0, SIZE_MAX,
      .doc = "A socket is closed when its queries are answered, so none lives long." },

    /* --- secrets --- */
    { "shared_secret", CFG_SECRET_KEY, CFG_HAS_FILE | CFG_REQUIRED, G(shared_secret),
      .doc =
          "32 bytes as base64, the same for all parts; all other keys are derived from it. Make one "
          "with `head -c32 /dev/urandom \\| base64`." },
    { "shared_secret_previous", CFG_SECRET_KEY, CFG_HAS_FILE | CFG_OURS, G(shared_secret_previous),
      .doc =
          "The secret before the current one, while it is being replaced: still trusted, no longer "
          "used to make anything." },
    { "cookie_secret", CFG_SECRET_KEY, CFG_HAS_FILE, SIZE_MAX,
      .doc =
          "Checked for its form and otherwise unused: keys for cookies come from `shared_secret`." },
    { "signing_key", CFG_SECRET_PEM, CFG_RELOAD | CFG_HAS_FILE, G(signing_key),
      .doc =
          "PEM (or base64 of it) of the keys that sign the identity assertion, P-256 or RSA; the first "
          "signs, all are published. Without it a key is derived from `shared_secret`." },

    /* --- the parts --- */
    { "services", CFG_IGNORED, 0, SIZE_MAX, .doc = "Each part is a program of its own here." },
    { "grpc_address", CFG_LISTEN, 0, G(grpc_address),
      .doc =
          "Where this part serves gRPC: `host:port`, `:port` or `unix:/path`. Usually set by "
          "`GRPC_ADDRESS` for each part. Default: `unix:sock/<part>.sock`; the proxy's: none, and "
          "what it serves there is health and reflection alone." },
    { "grpc_insecure", CFG_BOOL, 0, G(grpc_insecure),
      .doc = "Only `false`: gRPC between the parts is mutual TLS over TCP; see security.md." },
    { "grpc_client_timeout", CFG_DURATION, CFG_RELOAD, G(grpc_client_timeout_ms), 100, 5 * MINUTE,
      10 * SECOND, .doc = "For calls between the parts, but the check of a request." },
    { "authorize_service_url", CFG_TARGETS, CFG_PLURAL, G(authorize),
      .def_text = "unix:sock/authorize.sock",
      .doc =
          "Where authorize is: one or a list of `unix:/path` or `https://host:port`. All of them are "
          "asked in turn, a name at all its addresses." },
    { "databroker_service_url", CFG_TARGETS, CFG_PLURAL, G(databroker),
      .def_text = "unix:sock/databroker.sock", .doc = "Where the databroker is." },
    { "authenticate_grpc_url", CFG_TARGET, CFG_OURS, G(authenticate_grpc),
      .def_text = "unix:sock/authenticate.sock",
      .doc =
          "Where authenticate serves gRPC; the proxy redeems one-time codes there; it and authorize show tokens of others." },
    { "authenticate_service_url", CFG_ORIGIN, 0, G(authenticate_service_url),
      .doc =
          "The address of the login pages as browsers see it: `https://host[:port]`. Needed unless "
          "every route is public." },
    { "authenticate_internal_service_url", CFG_ORIGIN, CFG_UNIX, G(authenticate_internal_url),
      .def_text = "unix:sock/authenticate-http.sock",
      .doc =
          "Where authenticate serves its pages to the proxy: `http://host:port` or `unix:/path`." },
    { "authorize_timeout", CFG_DURATION, CFG_RELOAD | CFG_OURS, G(authorize_timeout_ms), 10, MINUTE,
      2 * SECOND, .doc = "A check without an answer for so long is 503." },
    { "databroker_max_staleness", CFG_DURATION, CFG_RELOAD | CFG_OURS,
      G(databroker_max_staleness_ms), SECOND, HOUR, 30 * SECOND,
      .doc =
          "Authorize without a live stream from the databroker for longer than this answers 503 to "
          "whoever has a session, and what they have open is closed; another authorize that hears it "
          "is asked first. Where no authorize can be asked at all, what is open stays for so long, "
          "too." },
    { "health_check_addr", CFG_LISTEN, CFG_MAY_BE_OFF, G(health_check_addr),
      .doc =
          "Where `/healthz`, `/readyz`, `/startupz` and `/status` are served; `off` for nowhere. "
          "Default: `127.0.0.1:28080` proxy, `28081` authenticate, `28082` authorize, `28083` "
          "databroker, `28084` acme." },
    { "log_level", CFG_ENUM, CFG_RELOAD, G(log_level), .def = LOG_INFO, .choices = choices_level,
      .doc = "How much is logged." },
    { "access_log", CFG_BOOL, CFG_RELOAD | CFG_OURS, G(access_log), .def = 1,
      .doc = "The proxy's line for each request. Authorize's line for each decision is always "
             "written." },
    { "access_log_fields", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_access_fields,
      .doc = "List of what the access line has, in place of the usual fields: see "
             "[proxy.md](proxy.md#the-access-line)." },
    { "authorize_log_fields", CFG_OBJECT, CFG_RELOAD, SIZE_MAX,
      .read = config_read_authorize_fields,
      .doc = "List of what authorize's line has besides the verdict, in place of the usual fields: "
             "see [audit.md](audit.md#fields)." },
    { "audit", CFG_OBJECT, CFG_RELOAD | CFG_OURS, SIZE_MAX, .read = config_read_audit,
      .doc =
          "Where the lines of decisions and administration go, and what happens when they cannot "
          "be written, see [below](#audit) and [audit.md](audit.md)." },

    /* --- sessions --- */
    { "cookie_name", CFG_TEXT, 0, G(cookie_name), 1, 64, .def_text = "_pomerium",
      .doc = "Name of the session cookie; browsers see it as `__Host-<name>`." },
    { "cookie_expire", CFG_DURATION, CFG_RELOAD, G(cookie_expire_ms), MINUTE, 400LL * DAY,
      14 * HOUR, .doc = "How long a login lasts." },
    { "session_idle_timeout", CFG_DURATION, CFG_RELOAD | CFG_OURS, G(session_idle_timeout_ms), 0,
      400LL * DAY, 0,
      .doc =
          "After so long without a request a session counts no more and the person is asked to "
          "log in again, give or take a minute; 0 is never. At least 2m. What is open already is in use." },
    { "session_max_age", CFG_DURATION, CFG_RELOAD | CFG_OURS, G(session_max_age_ms), 0, 400LL * DAY,
      0,
      .doc = "How old a session may be, also one that began before this was set; 0 is no bound but "
             "`cookie_expire`. At least 2m. What is open is closed then." },
    { "cookie_http_only", CFG_BOOL, CFG_RELOAD, G(cookie_http_only), .def = 1,
      .doc = "`HttpOnly` on the session cookie." },
    { "cookie_same_site", CFG_ENUM, CFG_RELOAD, G(cookie_same_site), .choices = choices_same_site,
      .doc = "`SameSite` of the session cookie." },
    { "signout_redirect_url", CFG_LINK, CFG_RELOAD, G(signout_redirect_url),
      .doc = "Where people go after they signed out; without it they see a page." },

    /* --- identity provider --- */
    { "idp_provider", CFG_ENUM, CFG_RELOAD, G(idp_provider), .choices = choices_idp,
      .def_shown = "none",
      .doc =
          "Who says who people are: `oidc` for any OpenID Connect provider, `local` for a file." },
    { "idp_provider_url", CFG_LINK, CFG_RELOAD, G(idp_provider_url),
      .doc = "`oidc`: the issuer, exactly as the provider writes it." },
    { "idp_client_id", CFG_TEXT, CFG_RELOAD, G(idp_client_id), 1, 1024,
      .doc = "`oidc`: the client id." },
    { "idp_client_secret", CFG_SECRET_TEXT, CFG_RELOAD | CFG_HAS_FILE | CFG_ONLY_AUTHN,
      G(idp_client_secret), .doc = "`oidc`: the client's secret." },
    { "idp_scopes", CFG_STRINGS, CFG_RELOAD, G(idp_scopes),
      .doc =
          "`oidc`: what to ask for, instead of `openid`, `email`, `profile` and what the provider "
          "needs for groups." },
    { "idp_request_params", CFG_PAIRS, CFG_RELOAD, G(idp_request_params),
      .doc = "`oidc`: more parameters of the authorization request." },
    { "bearer_token_format", CFG_ENUM, CFG_RELOAD, G(bearer), .choices = choices_bearer,
      .doc =
          "What `Authorization: Bearer` is, see [tokens.md](tokens.md): the application's own, or "
          "a token of the identity provider, or of one of `identity_providers`." },
    { "identity_providers", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_issuers,
      .doc = "Who else may vouch for programs, by name, see below." },
    { "external_data", CFG_OBJECT, CFG_RELOAD | CFG_OURS, SIZE_MAX, .read = config_read_sources,
      .doc = "Facts about people that the databroker fetches for policies, by their type, see "
             "[below](#one-of-external_data) and [external-data.md](external-data.md)." },
    { "idp_access_token_allowed_audiences", CFG_STRINGS, CFG_RELOAD, G(access_audiences),
      .doc =
          "`idp_access_token`: a token must be for one of these (`aud`). `[\"*\"]`: for anybody, "
          "see [tokens.md](tokens.md#tokens-of-the-identity-provider) before you write that." },
    { "idp_graph_url", CFG_ORIGIN, CFG_RELOAD | CFG_OURS, G(idp_graph_url),
      .def_shown = "that of the issuer's cloud",
      .doc = "`oidc` with Microsoft Entra: where groups are asked for that its tokens have no room "
             "for, such as `https://graph.microsoft.com`; no path. See "
             "[login.md](login.md#microsoft-entra-more-than-200-groups)." },
    { "idp_ca_file", CFG_FILE, CFG_RELOAD | CFG_OURS | CFG_ONLY_AUTHN, G(idp_ca_file),
      .doc = "`oidc`: certificates (PEM) to verify the provider with, instead of the system's." },
    { "idp_local_users_file", CFG_FILE, CFG_RELOAD | CFG_OURS | CFG_ONLY_AUTHN,
      G(idp_local_users_file), .doc = "`local`: the users, see [login.md](login.md)." },

    /* --- identity headers --- */
    { "error_message_first_paragraph", CFG_TEXT, CFG_RELOAD, G(error_message_first_paragraph), 1,
      1000, .doc = "What a page for somebody who is refused says first; plain text." },
    { "support_url", CFG_TEXT, CFG_RELOAD | CFG_OURS, G(support_url), 8, 1024,
      .doc =
          "Whom such a page leads to for help: `https://…`, or `mailto:…`, to which the request id is "
          "added." },
    { "pass_identity_headers", CFG_BOOL, CFG_RELOAD, G(pass_identity_headers),
      .doc = "Send `X-Pomerium-Jwt-Assertion` and the claim headers to upstreams." },
    { "jwt_claims_headers", CFG_CLAIM_HEADERS, CFG_RELOAD, G(jwt_claims_headers),
      .doc = "Claims to send as headers too: a list of claims (`email` becomes "
             "`X-Pomerium-Claim-Email`), or a map of header to claim." },
    { "jwt_issuer_format", CFG_ENUM, CFG_RELOAD, G(jwt_issuer_format), .choices = choices_issuer,
      .doc = "`iss` of the assertion: the host alone or `https://host/`." },
    { "jwt_groups_filter", CFG_STRINGS, CFG_RELOAD, G(jwt_groups_filter),
      .doc = "Only these groups appear in the assertion; empty means all." },

    /* --- store --- */
    { "databroker_storage_type", CFG_ENUM, 0, G(databroker_storage_type),
      .choices = choices_storage, .doc = "Where sessions are kept." },
    { "databroker_storage_connection_string", CFG_SECRET_TEXT, CFG_HAS_FILE | CFG_ONLY_BROKER,
      G(databroker_storage_connection_string), .def_shown = "databroker.sqlite",
      .doc = "`sqlite`: the file. `postgres`: a connection string of libpq's, see "
             "[postgresql.md](postgresql.md)." },
    { "databroker_encryption_key", CFG_SECRET_KEY, CFG_HAS_FILE | CFG_OURS,
      G(databroker_encryption_key),
      .doc = "32 bytes as base64: wraps the keys that records are sealed with at rest, in place of "
             "`shared_secret`. Only the databroker needs it; see "
             "[databroker.md](databroker.md#sealed-at-rest)." },
    { "databroker_encryption_key_previous", CFG_SECRET_KEY, CFG_HAS_FILE | CFG_OURS,
      G(databroker_encryption_key_previous),
      .doc = "The one before, until the databroker was started once with both." },
    { "databroker_pomerium_jwt", CFG_ENUM, CFG_OURS, G(databroker_pomerium_jwt),
      .choices = choices_jwt_role,
      .doc = "The role of clients that show Pomerium's JWT (metadata `jwt`, signed with "
             "`shared_secret`) in place of a token: see "
             "[security.md](security.md#clients-written-for-pomerium)." },

    /* --- routes --- */
    { "policies", CFG_OBJECT, CFG_RELOAD | CFG_OURS, SIZE_MAX, .read = config_read_policies,
      .doc =
          "Policies with a name, for routes to use: see [policy.md](policy.md#central-policies)." },
    { "routes", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_routes,
      .doc = "The routes, see below." },
    { "policy", CFG_OBJECT, CFG_RELOAD, SIZE_MAX, .read = config_read_routes,
      .doc = "Older name of `routes`." },

    /* --- Pomerium's, not here --- */
    { "cookie_domain", CFG_REMOVED,
      .doc = "the session cookie is bound to its host; every host gets its own" },
    { "cookie_secure", CFG_REMOVED, .doc = "the session cookie always is Secure" },
    { "policy_file", CFG_REMOVED, .doc = "write routes in this file" },
    { "client_ca", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "client_ca_file", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "idp_service_account", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "idp_refresh_directory_timeout", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "idp_refresh_directory_interval", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "idp_qps", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "forward_auth_url", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "authenticate_callback_path", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "programmatic_redirect_domain_whitelist", CFG_REMOVED,
      .doc = "a program's login always leads back to the machine that it runs on" },
    { "tracing_provider", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "tracing_sample_rate", CFG_REMOVED, .doc = "Pomerium removed it" },
    UNSUPPORTED("installation_id"),
    UNSUPPORTED("proxy_log_level"),
    UNSUPPORTED("certificate_authority"),
    UNSUPPORTED("certificate_authority_file"),
    UNSUPPORTED("override_certificate_name"),
    UNSUPPORTED("tls_derive"),
    UNSUPPORTED("http3_advertise_port"),
    UNSUPPORTED("authorize_internal_service_url"),
    UNSUPPORTED("databroker_internal_service_url"),
    UNSUPPORTED("databroker_cluster_node_id"),
    UNSUPPORTED("databroker_cluster_leader_id"),
    UNSUPPORTED("databroker_cluster_nodes"),
    UNSUPPORTED("databroker_raft_bind_address"),
    UNSUPPORTED("google_cloud_serverless_authentication_service_account"),
    UNSUPPORTED("metrics_address"),
    UNSUPPORTED("metrics_basic_auth"),
    UNSUPPORTED("metrics_certificate"),
    UNSUPPORTED("metrics_certificate_file"),
    UNSUPPORTED("metrics_certificate_key"),
    UNSUPPORTED("metrics_certificate_key_file"),
    UNSUPPORTED("metrics_client_ca"),
    UNSUPPORTED("metrics_client_ca_file"),
    UNSUPPORTED("debug_address"),
    UNSUPPORTED("health_check_systemd_disabled"),
    UNSUPPORTED("otel_traces_exporter"),
    UNSUPPORTED("otel_traces_sampler_arg"),
    UNSUPPORTED("otel_resource_attributes"),
    UNSUPPORTED("otel_log_level"),
    UNSUPPORTED("otel_attribute_value_length_limit"),
    UNSUPPORTED("otel_exporter_otlp_endpoint"),
    UNSUPPORTED("otel_exporter_otlp_traces_endpoint"),
    UNSUPPORTED("otel_exporter_otlp_protocol"),
    UNSUPPORTED("otel_exporter_otlp_traces_protocol"),
    UNSUPPORTED("otel_exporter_otlp_headers"),
    UNSUPPORTED("otel_exporter_otlp_traces_headers"),
    UNSUPPORTED("otel_exporter_otlp_timeout"),
    UNSUPPORTED("otel_exporter_otlp_traces_timeout"),
    UNSUPPORTED("otel_bsp_schedule_delay"),
    UNSUPPORTED("otel_bsp_max_export_batch_size"),
    UNSUPPORTED("envoy_admin_address"),
    UNSUPPORTED("envoy_admin_access_log_path"),
    UNSUPPORTED("envoy_admin_profile_path"),
    UNSUPPORTED("envoy_bind_config_source_address"),
    UNSUPPORTED("envoy_bind_config_freebind"),
    UNSUPPORTED("envoy_dynamic_extensions"),
    UNSUPPORTED("runtime_flags"),
    UNSUPPORTED("ssh_address"),
    UNSUPPORTED("ssh_host_keys"),
    UNSUPPORTED("ssh_host_key_files"),
    UNSUPPORTED("ssh_user_ca_key"),
    UNSUPPORTED("ssh_user_ca_key_file"),
    UNSUPPORTED("ssh_rls_enabled"),
    UNSUPPORTED("ssh_rls_additional_entries"),
    UNSUPPORTED("mcp_allowed_client_id_domains"),
    UNSUPPORTED("mcp_allowed_as_metadata_domains"),
    UNSUPPORTED("blob_storage"),
    UNSUPPORTED("session_recording_concurrency"),
    UNSUPPORTED("auto_apply_changesets"),
    UNSUPPORTED("primary_color"),
    UNSUPPORTED("secondary_color"),
    UNSUPPORTED("darkmode_primary_color"),
    UNSUPPORTED("darkmode_secondary_color"),
    UNSUPPORTED("logo_url"),
    UNSUPPORTED("favicon_url"),
    UNSUPPORTED("directory_provider"),
    UNSUPPORTED("directory_provider_options"),
    UNSUPPORTED("directory_provider_refresh_interval"),
    UNSUPPORTED("directory_provider_refresh_timeout"),
};

static const struct config_row route_rows[] = {
    { "from", CFG_OBJECT, CFG_REQUIRED | CFG_TUNNEL, SIZE_MAX, .read = config_read_from,
      .doc =
          "The address people use: `https://host[:port]`. A `*` in the host stands for any text; "
          "exact hosts win. Without a port, or with the scheme's own, any port fits. "
          "`tcp+https://host:port` or `tcp+https://proxy[:port]/host:port`: a tunnel, see "
          "[tunnels.md](tunnels.md)." },
    { "to", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .read = config_read_to,
      .doc =
          "The application: one address or a list: `http://host:port`, `https://host:port`, `h2c://host:port`, "
          "`unix:///path`, for tunnels `tcp://host:port`, each with `,WEIGHT` or none. A path in it "
          "replaces the matched prefix." },
    { "redirect", CFG_OBJECT, 0, SIZE_MAX, .read = config_read_redirect,
      .doc = "Answer with a redirect instead of `to`: `https_redirect`, `scheme_redirect`, "
             "`host_redirect`, `port_redirect`, `path_redirect`, `prefix_rewrite`, `response_code` "
             "(301), `strip_query`." },
    { "response", CFG_OBJECT, 0, SIZE_MAX, .read = config_read_response,
      .doc = "Answer with `status` and `body` instead of `to`." },
    { "id", CFG_TEXT, CFG_TUNNEL, R(id_text), 1, 128,
      .doc = "A stable name for the logs; without it one is derived from `from` and the path." },
    { "name", CFG_TEXT, CFG_TUNNEL, R(name), 1, 256, .doc = "A name for people." },
    { "description", CFG_TEXT, CFG_TUNNEL, R(description), 0, 4096,
      .doc = "A sentence for people." },
    { "prefix", CFG_TEXT, 0, SIZE_MAX, 1, 4096,
      .doc =
          "Only paths that begin so, as text: `/a` fits `/ab` too. Routes are tried in the order of "
          "the file." },
    { "path", CFG_TEXT, 0, SIZE_MAX, 1, 4096, .doc = "Only this path." },
    { "regex", CFG_TEXT, 0, SIZE_MAX, 1, 4096,
      .doc = "Only paths that this fits as a whole (PCRE2)." },
    { "regex_priority_order", CFG_NUMBER, 0, R(regex_priority), 0, 65535,
      .def_shown = "the order of the file",
      .doc = "Regex routes of one `from` that have one are tried highest first." },
    { "prefix_rewrite", CFG_TEXT, 0, R(prefix_rewrite), 1, 4096,
      .doc = "Put this in place of the matched prefix." },
    { "regex_rewrite_pattern", CFG_PATTERN, 0, R(rewrite), 1, PATTERN_TEXT_MAX,
      .doc = "What to replace in the path, wherever it stands (PCRE2)." },
    { "regex_rewrite_substitution", CFG_TEXT, 0, R(rewrite_substitution), 0, 4096,
      .doc = "By this; `\\1` to `\\9` are the pattern's groups, `\\0` all that it matched." },
    { "preserve_host_header", CFG_BOOL, 0, R(preserve_host_header),
      .doc = "Send the visitor's `Host`, not the upstream's." },
    { "host_rewrite", CFG_TEXT, 0, R(host_rewrite), 1, 255,
      .doc = "Send this `Host`: `host` or `host:port`." },
    { "host_rewrite_header", CFG_TEXT, 0, R(host_rewrite_header), 1, 128,
      .doc = "Send the value of this request header as `Host`; without one the upstream's own." },
    { "host_path_regex_rewrite_pattern", CFG_PATTERN, 0, R(host_rewrite_path), 1, PATTERN_TEXT_MAX,
      .doc = "Make `Host` of the path: what to replace in it (PCRE2). Where it fits nowhere the "
             "upstream's own is sent." },
    { "host_path_regex_rewrite_substitution", CFG_TEXT, 0, R(host_rewrite_path_substitution), 0,
      4096, .doc = "By this, as in `regex_rewrite_substitution`." },
    { "path_with_escaped_slashes_action", CFG_ENUM, CFG_OURS, R(path_with_escaped_slashes_action),
      .choices = choices_slashes, .def_shown = "the global one",
      .doc = "As the global setting, for this route: see [http.md](http.md)." },
    { "headers_with_underscores_action", CFG_ENUM, CFG_OURS, R(headers_with_underscores_action),
      .choices = choices_underscores, .def_shown = "the global one",
      .doc = "As the global setting, for this route." },
    { "set_request_headers", CFG_HEADERS, 0, R(set_request_headers),
      .doc = "Headers to set on the way to the upstream. Tokens such as `${pomerium.jwt}`: see "
             "[proxy.md](proxy.md). `$$` is `$`." },
    { "remove_request_headers", CFG_TOKENS, 0, R(remove_request_headers),
      .doc = "Headers to remove on the way to the upstream." },
    { "set_response_headers", CFG_HEADERS, 0, R(set_response_headers),
      .doc = "Headers of this route's responses, over the global ones, which the name `disable` "
             "turns off." },
    { "rewrite_response_headers", CFG_OBJECT, 0, SIZE_MAX, .read = config_read_header_rewrites,
      .doc = "List of `header`, `prefix`, `value`: where the upstream's header begins with the "
             "prefix, the value stands in its place." },
    { "pass_identity_headers", CFG_BOOL, 0, R(pass_identity_headers), .def_shown = "the global one",
      .doc = "Send identity headers to this upstream." },
    { "jwt_issuer_format", CFG_ENUM, 0, R(jwt_issuer_format), .choices = choices_issuer,
      .def_shown = "the global one", .doc = "As the global setting." },
    { "jwt_groups_filter", CFG_STRINGS, 0, R(jwt_groups_filter),
      .doc = "More groups for the assertion of this route." },
    { "allow_websockets", CFG_BOOL, 0, R(allow_websockets), .doc = "Allow WebSockets." },
    { "allow_spdy", CFG_BOOL, 0, R(allow_spdy), .doc = "Allow `spdy/3.1` (kubectl exec)." },
    { "allow_upgrades", CFG_TOKENS, 0, R(allow_upgrades), .def_shown = "the global ones",
      .doc = "Other `Upgrade` names to allow." },
    { "timeout", CFG_DURATION, CFG_TUNNEL, R(timeout_ms), 0, DAY,
      .def_shown = "none; see `default_upstream_timeout`",
      .doc =
          "For a whole answer, from the last byte of the request to the last of the answer; 0 is "
          "no limit, not even for its beginning. For a tunnel: how long it may live." },
    { "idle_timeout", CFG_DURATION, CFG_TUNNEL, R(idle_timeout_ms), 0, DAY,
      .def_shown = "5m; none for tunnels, upgrades and Kubernetes API routes",
      .doc = "How long nothing may move in either direction; 0 is no limit." },
    { "session_idle_timeout", CFG_DURATION, CFG_TUNNEL | CFG_OURS, R(session_idle_timeout_ms), 0,
      400LL * DAY, .def_shown = "the global one", .doc = "As the global setting, for this route." },
    { "session_max_age", CFG_DURATION, CFG_TUNNEL | CFG_OURS, R(session_max_age_ms), 0, 400LL * DAY,
      .def_shown = "the global one", .doc = "As the global setting, for this route." },
    { "tls_skip_verify", CFG_BOOL, 0, R(tls_skip_verify),
      .doc = "Do not verify the upstream's certificate." },
    { "tls_upstream_server_name", CFG_TEXT, 0, R(tls_upstream_server_name), 1, 255,
      .doc = "The name to ask for and to verify at the upstream." },
    { "tls_custom_ca", CFG_PEM, CFG_HAS_FILE | CFG_ONLY_PROXY, R(tls_custom_ca),
      .doc = "Certificates (PEM, or base64 of it) to verify the upstream with." },
    { "load_balancing_policy", CFG_ENUM, CFG_TUNNEL, R(cluster.policy), .choices = choices_balance,
      .doc = "Which upstream is next; `ring_hash` and `maglev` keep a session, or else a client's "
             "address, at one of them." },
    { "least_request_lb_config", CFG_OBJECT, CFG_OURS | CFG_TUNNEL, SIZE_MAX,
      .read = config_read_least_request,
      .doc = "`choice_count` (2): so many are drawn, the one with the fewest open requests is "
             "taken." },
    { "ring_hash_lb_config", CFG_OBJECT, CFG_OURS | CFG_TUNNEL, SIZE_MAX,
      .read = config_read_ring_hash,
      .doc = "`minimum_ring_size` (1024), `maximum_ring_size` (8388608)." },
    { "maglev_lb_config", CFG_OBJECT, CFG_OURS | CFG_TUNNEL, SIZE_MAX, .read = config_read_maglev,
      .doc = "`table_size` (65537): a prime." },
    { "healthy_panic_threshold", CFG_NUMBER, CFG_TUNNEL, R(cluster.healthy_panic_threshold), 0, 100,
      50,
      .doc = "When less than this percentage of the endpoints is fit, all are used; 0: never." },
    { "health_checks", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .read = config_read_health_checks,
      .doc = "What every endpoint is asked regularly: see [proxy.md](proxy.md#health-checks)." },
    { "outlier_detection", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .read = config_read_outlier,
      .doc = "Leave out endpoints that keep answering wrongly: see "
             "[proxy.md](proxy.md#outlier-detection)." },
    { "circuit_breaker_thresholds", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .read = config_read_limits,
      .def_shown = "the global one", .doc = "As the global setting, key by key." },
    { "tls_client_cert", CFG_PEM, CFG_HAS_FILE | CFG_ONLY_PROXY, R(tls_client_cert),
      .doc = "Our certificate (PEM, or base64 of it, with its chain) for an upstream that asks for "
             "one, with `tls_client_key`." },
    { "tls_client_key", CFG_SECRET_PEM, CFG_HAS_FILE | CFG_ONLY_PROXY, R(tls_client_key),
      .doc = "The key of `tls_client_cert`." },
    { "tls_downstream_client_ca", CFG_PEM, CFG_HAS_FILE | CFG_ONLY_PROXY | CFG_TUNNEL, R(client_ca),
      .doc = "On this route certificates of visitors count only if these issued them, instead of "
             "`downstream_mtls.ca`." },
    { "tls_upstream_allow_renegotiation", CFG_OBJECT, 0, SIZE_MAX,
      .read = config_read_renegotiation,
      .doc = "Only `false`: an upstream must not change a connection's keys in the middle." },
    { "policy", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .doc = "Who may: see [policy.md](policy.md)." },
    { "shadow_policy", CFG_OBJECT, CFG_TUNNEL | CFG_OURS, SIZE_MAX,
      .doc =
          "A policy to come: it is asked beside the one that counts, differences are logged: see "
          "[explain.md](explain.md#shadow-policies)." },
    { "policies", CFG_STRINGS, CFG_TUNNEL | CFG_OURS, SIZE_MAX,
      .doc = "Who may, too: names from the global `policies`." },
    { "allow_public_unauthenticated_access", CFG_BOOL, CFG_TUNNEL,
      R(allow_public_unauthenticated_access), .doc = "Everybody may, without a login." },
    { "allow_any_authenticated_user", CFG_BOOL, CFG_TUNNEL, R(allow_any_authenticated_user),
      .doc = "Everybody who is logged in may." },
    { "allowed_users", CFG_STRINGS, CFG_TUNNEL, SIZE_MAX,
      .doc = "These may: e-mail addresses or user ids." },
    { "allowed_domains", CFG_STRINGS, CFG_TUNNEL, SIZE_MAX,
      .doc = "People with an e-mail address there may." },
    { "allowed_idp_claims", CFG_OBJECT, CFG_TUNNEL, SIZE_MAX, .read = config_read_claims,
      .doc = "People with one of these values in these claims may: `claim: [value, …]`." },
    { "bearer_token_format", CFG_ENUM, 0, R(bearer), .choices = choices_bearer,
      .def_shown = "the global one", .doc = "As the global setting." },
    { "identity_providers", CFG_STRINGS, 0, R(identity_providers), .def_shown = "all of them",
      .doc = "`jwt`: which of the global `identity_providers` count here, by name." },
    { "idp_access_token_allowed_audiences", CFG_STRINGS, 0, R(access_audiences),
      .def_shown = "the global ones", .doc = "As the global setting." },
    { "cors_allow_preflight", CFG_BOOL, 0, R(cors_allow_preflight),
      .doc = "CORS preflight requests need no login." },
    { "cors", CFG_OBJECT, CFG_OURS, SIZE_MAX, .read = config_read_cors,
      .doc = "Which other origins may use this route, see below." },
    { "kubernetes_service_account_token", CFG_SECRET_TEXT, CFG_HAS_FILE | CFG_ONLY_PROXY,
      R(kubernetes_token),
      .doc =
          "The upstream is a Kubernetes API server: requests go there with this token and act in "
          "the visitor's name (`Impersonate-User`, `Impersonate-Group`)." },

    { "allowed_groups", CFG_REMOVED,
      .doc = "write `policy: [{allow: {and: [{groups: {has: NAME}}]}}]`" },
    { "set_authorization_header", CFG_REMOVED, .doc = "Pomerium removed it" },
    { "tls_server_name", CFG_REMOVED, .doc = "use tls_upstream_server_name" },
    { "tls_downstream_server_name", CFG_REMOVED,
      .doc = "a route is served on connections for every name of its host's certificate: put that "
             "name into it" },
    UNSUPPORTED("logo_url"),
    UNSUPPORTED("sub_policies"),
    UNSUPPORTED("show_error_details"),
    UNSUPPORTED("depends_on"),
    UNSUPPORTED("idp_client_id"),
    UNSUPPORTED("idp_client_secret"),
    UNSUPPORTED("enable_google_cloud_serverless_authentication"),
    UNSUPPORTED("upstream_tunnel"),
    UNSUPPORTED("mcp"),
    UNSUPPORTED("session_recording"),
};

static const struct config_choice choices_scheme[] = { { "http", 1 }, { "https", 2 }, { NULL, 0 } };

static const struct config_row redirect_rows[] = {
    { "https_redirect", CFG_BOOL, 0, RD(https_redirect), .doc = "To https." },
    { "scheme_redirect", CFG_TEXT, 0, RD(scheme_redirect), 4, 5, .choices = choices_scheme,
      .doc = "To this scheme." },
    { "host_redirect", CFG_TEXT, 0, RD(host_redirect), 1, 255, .doc = "To this host." },
    { "port_redirect", CFG_NUMBER, 0, RD(port_redirect), 1, 65535, .doc = "To this port." },
    { "path_redirect", CFG_TEXT, 0, RD(path_redirect), 1, 4096, .doc = "To this path." },
    { "prefix_rewrite", CFG_TEXT, 0, RD(prefix_rewrite), 1, 4096,
      .doc = "In place of the prefix." },
    { "response_code", CFG_NUMBER, 0, RD(response_code), 301, 308, 301, .doc = "The status." },
    { "strip_query", CFG_BOOL, 0, RD(strip_query), .doc = "Without the query." },
};

static const struct config_row response_rows[] = {
    { "status", CFG_NUMBER, CFG_REQUIRED, R(response_status), 200, 599, .doc = "The status." },
    { "body", CFG_TEXT, 0, R(response_body), 0, 1048576, .doc = "The body." },
};

#define RC(member) offsetof(struct config_cors, member)

static const struct config_row cors_rows[] = {
    { "allow_origins", CFG_STRINGS, CFG_REQUIRED, RC(allow_origins),
      .doc = "`https://app.example.com`, `https://*.example.com` for every name below, or `*` for "
             "all, which excludes `allow_credentials`." },
    { "allow_methods", CFG_TOKENS, 0, RC(allow_methods),
      .def_shown = "`GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`",
      .doc = "What a preflight allows." },
    { "allow_headers", CFG_TOKENS, 0, RC(allow_headers),
      .def_shown =
          "`Authorization`, `Cache-Control`, `Content-Type`, `If-Modified-Since`, `Range`, "
          "`X-Requested-With`",
      .doc = "What a preflight allows; `*` is any (but `Authorization`), without credentials." },
    { "expose_headers", CFG_TOKENS, 0, RC(expose_headers), .def_shown = "none",
      .doc = "Response headers that scripts may read." },
    { "allow_credentials", CFG_BOOL, 0, RC(allow_credentials),
      .doc = "Scripts may send cookies, that is: act as the person who is logged in." },
    { "answer_preflight", CFG_BOOL, 0, RC(answer_preflight), .def = 1,
      .doc = "The proxy answers preflights itself, without a login; `false` leaves them to the "
             "policy, `cors_allow_preflight` and the application." },
    { "max_age", CFG_DURATION, 0, RC(max_age_ms), 0, DAY, 2 * HOUR,
      .doc = "How long a browser may keep the answer to a preflight." },
};

#define RH(member) offsetof(struct config_header_rewrite, member)

static const struct config_row header_rewrite_rows[] = {
    { "header", CFG_TEXT, CFG_REQUIRED, RH(header), 1, 128, .doc = "The header." },
    { "prefix", CFG_TEXT, 0, RH(prefix), 0, 4096, .doc = "What its value must begin with." },
    { "value", CFG_TEXT, 0, RH(value), 0, 4096, .doc = "What stands in place of that." },
};

const struct config_rows config_rows_global = CONFIG_ROWS(global_rows, "setting");
const struct config_rows config_rows_route = CONFIG_ROWS(route_rows, "setting of a route");
const struct config_rows config_rows_redirect = CONFIG_ROWS(redirect_rows, "setting of a redirect");
const struct config_rows config_rows_response = CONFIG_ROWS(response_rows, "setting of a response");
const struct config_rows config_rows_cors = CONFIG_ROWS(cors_rows, "setting of cors");
const struct config_rows config_rows_header_rewrite =
    CONFIG_ROWS(header_rewrite_rows, "setting of rewrite_response_headers");
