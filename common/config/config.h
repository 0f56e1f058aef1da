/* config: everything config.yaml and the environment say, checked and frozen. One struct, immutable
 * and refcounted: a reload makes a new one, whoever works with the old one keeps a reference. Any
 * thread.
 *
 *   - Texts are struct sv that point into the configuration; behind each stands a NUL that n does
 *     not count, so .p serves as a C string. A text that is not set is { NULL, 0 }.
 *   - Lists are pointer and count; an empty one is { NULL, 0 }.
 *   - Times are milliseconds; 0 means none, where the comment says so.
 *   - File names are absolute: relative ones count from the folder of the configuration file.
 *   - Secrets are struct secret and appear in no message.
 *
 * A policy is kept as it was written: common/policy compiles it, and a mistake in it closes its own
 * route, not the configuration. How to change a key, its limits and its default: docs/configuration.md,
 * which is generated from the rows in common/config/rows.c. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/cidr.h"
#include "common/config/external_data.h"
#include "common/config/log_fields.h"
#include "common/crypto/keypair.h"
#include "common/crypto/keys.h"
#include "common/crypto/token.h"
#include "common/diag.h"
#include "common/log.h"
#include "common/pattern.h"
#include "common/secret.h"
#include "common/sv.h"
#include "common/yaml.h"

/* Which program reads: decides defaults (grpc_address, health_check_addr) and which private files
 * are opened (certificate keys: proxy; client secret of the provider: authenticate; key of the
 * external account: acme). */
enum config_part {
    CONFIG_PART_NONE = 0, /* the command line: only checks */
    CONFIG_PART_PROXY,
    CONFIG_PART_AUTHENTICATE,
    CONFIG_PART_AUTHORIZE,
    CONFIG_PART_DATABROKER,
    CONFIG_PART_ACME
};

enum { CONFIG_ROUTES_MAX = 100000, CONFIG_LIST_MAX = 4096, CONFIG_FILE_MAX = 64 * 1024 * 1024 };

/* A name and its value: headers, claim headers (name: the header, value: the claim), parameters. */
struct config_pair {
    struct sv name;
    struct sv value;
};

struct config_pairs {
    struct config_pair *v;
    size_t n;
};

/* Addresses, and whether unix sockets' peers belong to them, too. */
struct config_cidrs {
    struct cidr *v;
    size_t n;
    bool unix_peers;
};

enum config_scheme {
    CONFIG_SCHEME_NONE = 0,
    CONFIG_SCHEME_HTTP,
    CONFIG_SCHEME_HTTPS,
    CONFIG_SCHEME_UNIX, /* plain HTTP, or on a tcp route bytes, over a unix socket */
    CONFIG_SCHEME_TCP   /* bytes */
};

/* A server: an upstream, authenticate inside and outside. */
struct config_url {
    struct sv text; /* in its one spelling, without final slash; for logs and for building links */
    enum config_scheme scheme;
    bool tls;
    bool h2c;         /* HTTP/2 without TLS and without asking (h2c://) */
    struct sv host;   /* lower case, IPv6 in brackets; not set for UNIX */
    uint16_t port;    /* never 0, but for UNIX */
    bool port_given;  /* false: it is the scheme's */
    struct sv path;   /* begins with '/', without final slash; not set where there is none */
    struct sv socket; /* UNIX: absolute file name */
};

/* Where a gRPC server listens or is found. */
struct config_target {
    struct sv text; /* "unix:/absolute/path" or "host:port" */
    bool is_unix;
    struct sv host; /* name or address, IPv6 without brackets; may be empty when listening */
    uint16_t port;
    struct sv socket; /* unix: absolute file name */
};

struct config_targets {
    struct config_target *v;
    size_t n;
};

/* An upstream of a route. */
struct config_upstream {
    struct config_url url;
    uint32_t weight; /* 1 where none is given */
};

/* Whole numbers that no setting limits. */
enum { CONFIG_COUNT_MAX = 10000000 };

enum config_balance {
    CONFIG_BALANCE_ROUND_ROBIN = 0,
    CONFIG_BALANCE_LEAST_REQUEST,
    CONFIG_BALANCE_RANDOM,
    CONFIG_BALANCE_RING_HASH,
    CONFIG_BALANCE_MAGLEV
};

enum config_check_kind { CONFIG_CHECK_HTTP = 0, CONFIG_CHECK_TCP, CONFIG_CHECK_GRPC };

struct config_statuses {
    uint16_t first;
    uint16_t last; /* included */
};

enum config_codec { CONFIG_CODEC_HTTP1 = 0, CONFIG_CODEC_HTTP2 };

/* One of health_checks: asked of every endpoint again and again. */
struct config_health_check {
    enum config_check_kind kind;
    int64_t timeout_ms;
    int64_t interval_ms;
    int64_t initial_jitter_ms;
    int64_t interval_jitter_ms;
    uint16_t interval_jitter_percent;
    uint16_t unhealthy_threshold; /* failures in a row */
    uint16_t healthy_threshold;   /* successes in a row; the first check needs one */
    struct sv host;               /* HTTP: Host; GRPC: :authority; not set: the upstream's */
    struct sv path;               /* HTTP */
    enum config_codec codec;      /* HTTP */
    struct config_statuses *statuses;
    size_t n_statuses;             /* HTTP; 0: only 200 */
    struct sv service;             /* GRPC; not set: the server as a whole */
    struct sv send;                /* TCP: bytes */
    struct config_strings receive; /* TCP: bytes that must come, in this order */
};

/* outlier_detection: an endpoint that keeps answering wrongly is left out for a while. */
struct config_outlier {
    bool on;
    uint32_t consecutive_5xx; /* 0: never */
    uint32_t consecutive_gateway_failure;
    uint16_t enforcing_consecutive_5xx; /* percent */
    uint16_t enforcing_consecutive_gateway_failure;
    int64_t interval_ms;
    int64_t base_ejection_ms;
    int64_t max_ejection_ms;
    int64_t max_ejection_jitter_ms;
    uint16_t max_ejection_percent;
};

/* circuit_breaker_thresholds: at once, over all workers of one proxy. */
struct config_limits {
    uint32_t max_connections;
    uint32_t max_pending_requests; /* that wait for a connection */
    uint32_t max_requests;
    uint32_t max_retries;
};

/* How a route spreads over its upstreams. */
struct config_cluster {
    enum config_balance policy;
    uint32_t choice_count; /* LEAST_REQUEST */
    uint32_t minimum_ring_size;
    uint32_t maximum_ring_size;
    uint32_t table_size; /* MAGLEV; a prime */
    uint16_t healthy_panic_threshold;
    struct config_health_check *checks;
    size_t n_checks;
    struct config_outlier outlier;
    struct config_limits limits;
};

/* Which HTTP clients of the public listener may speak. */
enum config_versions {
    CONFIG_VERSIONS_AUTO = 0, /* as ALPN or the first bytes say */
    CONFIG_VERSIONS_HTTP1,
    CONFIG_VERSIONS_HTTP2
};

enum config_family {
    CONFIG_FAMILY_V4_PREFERRED = 0,
    CONFIG_FAMILY_AUTO, /* V6_PREFERRED, as Envoy means it */
    CONFIG_FAMILY_V4_ONLY,
    CONFIG_FAMILY_V6_ONLY,
    CONFIG_FAMILY_ALL
};

/* How names of upstreams are looked up. */
struct config_dns {
    enum config_family family;
    int64_t query_timeout_ms;
    uint32_t query_tries;
    int64_t refresh_ms; /* where an answer tells no time to live */
    int64_t failure_refresh_ms;
    bool use_tcp;
    struct config_strings resolvers; /* "address:port" or "[address]:port"; none: the system's */
};

enum config_match_kind {
    CONFIG_MATCH_PREFIX =
        0,             /* textual, as Pomerium's file format says; value "/" where none is given */
    CONFIG_MATCH_PATH, /* the whole path */
    CONFIG_MATCH_REGEX /* over the whole path */
};

enum config_jwt_issuer { CONFIG_JWT_ISSUER_HOST = 0 /* IssuerHostOnly */, CONFIG_JWT_ISSUER_URI };

struct config_redirect {
    bool https_redirect;
    struct sv scheme_redirect; /* "http" or "https" */
    struct sv host_redirect;
    uint16_t port_redirect; /* 0: not set */
    struct sv path_redirect;
    struct sv prefix_rewrite;
    uint16_t response_code; /* 301, 302, 303, 307, 308 */
    bool strip_query;
};

/* rewrite_response_headers: prefix becomes value where a header's value begins with it. */
struct config_header_rewrite {
    struct sv header;
    struct sv prefix;
    struct sv value;
};

/* A piece of a header's value in set_request_headers. */
enum config_token {
    CONFIG_TOKEN_TEXT = 0,
    CONFIG_TOKEN_ACCESS_TOKEN,
    CONFIG_TOKEN_ID_TOKEN,
    CONFIG_TOKEN_JWT,
    CONFIG_TOKEN_CERT_FINGERPRINT,
    CONFIG_TOKEN_CERT_SAN_DNS,
    CONFIG_TOKEN_CERT_SAN_EMAIL,
    CONFIG_TOKEN_HEADER /* of the request; text: its name */
};

struct config_piece {
    enum config_token token;
    struct sv text;
};

struct config_template {
    struct config_piece *v;
    size_t n; /* 0: the value holds no token */
};

/* What authorize tells the proxy about the visitor of a route, with its verdict. */
enum {
    CONFIG_TELL_HEADERS = 1, /* pass_identity_headers */
    CONFIG_TELL_JWT = 2,
    CONFIG_TELL_ACCESS_TOKEN = 4,
    CONFIG_TELL_ID_TOKEN = 8,
    CONFIG_TELL_PERSON = 16 /* user and groups, to act in their name */
};

/* Cross-origin requests (WHATWG Fetch, section 3.2). */
struct config_cors {
    bool on;
    struct config_strings allow_origins; /* a star, or origins, also with "*." before the host */
    struct config_strings allow_methods;
    struct config_strings allow_headers;
    struct config_strings expose_headers;
    bool allow_credentials;
    bool answer_preflight; /* by the proxy; false: they go to the upstream */
    int64_t max_age_ms;
    /* as headers say it */
    struct sv methods_text;
    struct sv headers_text;
    struct sv expose_text;
    struct sv max_age_text;
};

/* What `Authorization: Bearer` is on a route. */
enum config_bearer {
    CONFIG_BEARER_DEFAULT = 0,  /* the application's, but for our own forms */
    CONFIG_BEARER_IDP_ACCESS,   /* an access token of the identity provider */
    CONFIG_BEARER_IDP_IDENTITY, /* an ID token of it */
    CONFIG_BEARER_JWT           /* a token of one of identity_providers */
};

/* One of identity_providers: vouches for programs (Kubernetes, CI systems). */
struct config_issuer {
    struct sv name; /* in front of its user ids */
    struct sv issuer;
    bool
        kubernetes; /* issuer is "kubernetes:///": the cluster's API server tells it, and its keys */
    struct sv api_url;
    struct secret *api_token; /* authenticate only */
    struct config_strings audiences;
    struct config_strings algs;
    struct sv jwks_url; /* not set: jwks has them */
    struct sv jwks;     /* authenticate only */
    struct sv ca_file;
    struct sv email_claim;
    struct sv groups_claim;
};

/* Headers of requests that Postern makes: "Name=value,…" */
enum { CONFIG_FETCH_HEADERS_BYTES = 8192, CONFIG_FETCH_HEADERS_COUNT = 16 };

/* What a route carries. */
enum config_route_kind {
    CONFIG_ROUTE_HTTP = 0,
    CONFIG_ROUTE_TCP /* a tunnel by CONNECT */
};

enum { CONFIG_POLICY_HEADERS_MAX = 64 };

/* host:port of a tunnel, the host at its longest. */
enum { CONFIG_TUNNEL_MAX = 264 };

enum config_action {
    CONFIG_ACTION_NONE = 0,
    CONFIG_ACTION_UPSTREAM, /* to */
    CONFIG_ACTION_REDIRECT,
    CONFIG_ACTION_RESPONSE
};

enum config_slashes {
    CONFIG_SLASHES_REJECT = 0,
    CONFIG_SLASHES_KEEP,
    CONFIG_SLASHES_UNESCAPE_REDIRECT,
    CONFIG_SLASHES_UNESCAPE_FORWARD
};

enum config_underscores {
    CONFIG_UNDERSCORES_REJECT = 0,
    CONFIG_UNDERSCORES_ALLOW,
    CONFIG_UNDERSCORES_DROP
};

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): ordered for the reader */
struct config_route {
    uint64_t id;       /* equal in every program that reads the same route; never 0 */
    struct sv id_text; /* the explicit id, or id as 16 hexadecimal digits */
    bool has_own_id;
    uint64_t edition; /* of this process: equal in two configurations where nothing about the route,
                         itself or by what it takes from the global settings, has changed */
    struct sv name;
    struct sv description;
    size_t index;     /* place in the list: file order decides between routes of one host */
    const char *file; /* where it stands */
    int line;
    int column;

    /* from */
    struct sv from;  /* in its one spelling: scheme://host[:port] */
    bool from_https; /* false: http */
    struct sv host;  /* lower case, IPv6 in brackets; with wildcard: the pattern */
    bool wildcard;   /* host holds one or more '*', each for any run of bytes, also none */
    uint16_t port;   /* 0: any port */
    enum config_route_kind kind;
    struct sv tunnel; /* TCP: host:port that CONNECT names; host and port above are where clients
                         open TLS to */

    enum config_match_kind match;
    struct sv match_value;
    struct pattern *regex;   /* REGEX: match_value, compiled */
    uint16_t regex_priority; /* regex_priority_order; 0: none */

    enum config_action action;
    struct config_upstream *upstreams; /* UPSTREAM */
    size_t n_upstreams;
    struct config_cluster cluster;   /* UPSTREAM */
    struct config_redirect redirect; /* REDIRECT */
    uint16_t response_status;        /* RESPONSE: 200..599 */
    struct sv response_body;

    struct sv prefix_rewrite; /* set: replaces the matched prefix, or the path where match is not a
                                 prefix. `to` with a path gives it where nothing else does */
    struct pattern *rewrite;  /* regex_rewrite_pattern; NULL: none */
    struct sv rewrite_substitution;
    bool preserve_host_header; /* of this and the next three at most one is set */
    struct sv host_rewrite;    /* host[:port], canonical */
    struct sv host_rewrite_header;
    struct pattern *host_rewrite_path; /* host_path_regex_rewrite_pattern */
    struct sv host_rewrite_path_substitution;
    enum config_slashes path_with_escaped_slashes_action;    /* the route's, else the global */
    enum config_underscores headers_with_underscores_action; /* likewise */
    struct config_pairs set_request_headers;                 /* "$$" already is "$" */
    struct config_template *templates; /* one for each of them; NULL: none holds a token */
    struct config_strings remove_request_headers;
    struct config_pairs
        set_response_headers; /* all that apply: defaults, the global, the route's */
    struct config_header_rewrite *rewrite_response_headers;
    size_t n_rewrite_response_headers;
    struct config_cors cors;
    struct secret *kubernetes_token;          /* outside the proxy NULL where it stands in a file */
    bool kubernetes;                          /* it is set: requests act in the visitor's name */
    unsigned tell;                            /* CONFIG_TELL_* bits */
    bool pass_identity_headers;               /* the route's, else the global */
    enum config_jwt_issuer jwt_issuer_format; /* the route's, else the global */
    struct config_strings jwt_groups_filter;  /* the route's and the global together */
    bool allow_websockets;
    bool allow_spdy;
    struct config_strings allow_upgrades; /* lower case; the route's, else the global; without
                                                    websocket and spdy/3.1 of the two above */
    int64_t timeout_ms;                   /* whole answer; 0: none */
    int64_t begin_timeout_ms; /* until the answer's head; 0: none. default_upstream_timeout where
                                 neither a timeout is given nor upgrades are allowed */
    int64_t idle_timeout_ms;  /* of requests and their answers; 0: none */
    int64_t session_idle_timeout_ms; /* the route's, else the global; 0: none */
    int64_t session_max_age_ms;      /* likewise */
    int64_t tunnel_idle_ms;          /* of what CONNECT or an upgrade opened; 0: none */

    bool tls_skip_verify;
    struct sv tls_upstream_server_name; /* not set: the upstream's host */
    struct sv tls_custom_ca;            /* PEM; not set: the system's */
    struct sv tls_client_cert;          /* private to the reader, as the next */
    struct secret *tls_client_key;      /* both become client_pair */
    struct keypair *client_pair;        /* shown to the upstream; NULL: none. Proxy only */
    struct sv client_ca; /* tls_downstream_client_ca: instead of downstream_mtls.ca; PEM, proxy */
    bool has_client_ca;  /* in every part */

    struct config_strings policy_headers; /* that its policies, central ones included, may ask for;
                                             lower case, at most CONFIG_POLICY_HEADERS_MAX */
    enum config_bearer bearer;            /* the route's, else the global */
    struct config_strings identity_providers; /* JWT: names; none: all */
    struct config_strings access_audiences;   /* IDP_ACCESS; the route's, else the global */

    bool cors_allow_preflight;
    bool allow_public_unauthenticated_access;
    bool allow_any_authenticated_user;
    /* The whole route as written and the document it is part of: policy_source_of_route() reads the
     * policy and the allow lists out of it. They live as long as the configuration, in authorize and
     * the command line; elsewhere, and where the configuration before has the same edition, NULL. */
    const json_t *json;
    const struct yaml_doc *doc;
};

/* A certificate of the public listener. In other programs than the proxy and the command line pair
 * is NULL. */
struct config_certificate {
    const char *file; /* where it is written */
    int line;
    int column;
    struct sv cert_file; /* not set where it was given in place */
    struct keypair *pair;
    struct sv ocsp; /* a response to staple, DER; not set: none, or one that does not say good */
    int64_t ocsp_from_s;
    int64_t ocsp_ends_s;
    bool automatic;     /* it lies in autocert_dir, or stands in for those that will */
    struct sv cert_pem; /* in acme alone, which reads no keys: for the names in it */
};

enum { CONFIG_CERTIFICATES_MAX = 20000 };

/* --- client certificates --- */

enum config_mtls_enforcement {
    CONFIG_MTLS_DEFAULT_DENY = 0, /* every route refuses who has none that is trusted */
    CONFIG_MTLS_POLICY,           /* only what a policy says counts */
    CONFIG_MTLS_REJECT            /* no connection without; routes refuse too */
};

enum config_san_kind {
    CONFIG_SAN_DNS = 0,
    CONFIG_SAN_EMAIL,
    CONFIG_SAN_IP,
    CONFIG_SAN_URI,
    CONFIG_SAN_UPN /* Microsoft's user principal name */
};

struct config_san {
    enum config_san_kind kind;
    struct sv pattern; /* over the whole name; compiled once here, so it is valid */
};

struct config_mtls {
    struct sv ca;  /* PEM; proxy only */
    struct sv crl; /* PEM; proxy only. Set: every CA of a chain needs its list */
    enum config_mtls_enforcement enforcement;
    struct config_san *names; /* one must fit a name of the certificate; none: any will do */
    size_t n_names;
    uint16_t max_verify_depth; /* certificates above the client's; 0: no limit but ours */
    bool has_ca;               /* in every part */
};

/* --- the audit --- */

enum config_audit_sink {
    CONFIG_AUDIT_STDOUT = 0,
    CONFIG_AUDIT_FILE,
    CONFIG_AUDIT_SYSLOG,
    CONFIG_AUDIT_JOURNALD,
    CONFIG_AUDIT_OTLP
};

/* What is refused when its line cannot be written. */
enum config_audit_required {
    CONFIG_AUDIT_DENIALS = 0, /* denials get 503, admin actions fail; allows go on */
    CONFIG_AUDIT_ALL,         /* everything */
    CONFIG_AUDIT_NONE         /* nothing: lines are lost and counted */
};

enum config_audit_chain {
    CONFIG_AUDIT_CHAIN_OFF = 0,
    CONFIG_AUDIT_CHAIN_HMAC,
    CONFIG_AUDIT_CHAIN_SHA256
};

struct config_audit {
    enum config_audit_sink sink;
    enum config_audit_required required;
    enum config_audit_chain chain;
    struct sv folder; /* FILE: absolute */
    bool group_readable;
    bool fsync;
    uint32_t rotate_mib; /* 0: not by size */
    int64_t rotate_ms;   /* 0: not by age */
    uint32_t keep;       /* files besides the one that is written */
    struct sv socket;    /* SYSLOG, JOURNALD: absolute; not set: the usual one */
    struct sv otlp_endpoint;
    struct secret *otlp_headers; /* "Name=value,…"; NULL: none, or another part */
    struct sv otlp_ca_file;      /* not set: the system's */
    int64_t otlp_timeout_ms;
};

enum config_tls_version { CONFIG_TLS_1_2 = 0, CONFIG_TLS_1_3 };

enum config_idp { CONFIG_IDP_NONE = 0, CONFIG_IDP_LOCAL, CONFIG_IDP_OIDC };

enum config_storage { CONFIG_STORAGE_SQLITE = 0, CONFIG_STORAGE_MEMORY, CONFIG_STORAGE_POSTGRES };

enum config_same_site { CONFIG_SAME_SITE_LAX = 0, CONFIG_SAME_SITE_STRICT, CONFIG_SAME_SITE_NONE };

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): ordered for the reader */
struct config {
    /* --- about this configuration --- */
    struct config *self; /* the reader's: the way back from a const pointer */
    enum config_part part;
    struct sv file;    /* "" where there is only the environment */
    struct sv folder;  /* of the file; absolute */
    char checksum[17]; /* 64 bits of the contents of all files and the environment, hexadecimal:
                             for /status and logs */
    struct config_strings files; /* every file that was read, for the watcher */

    /* --- listening --- */
    struct sv address;    /* "host:port", ":port" or "unix:/path" */
    bool insecure_server; /* plain HTTP on address */
    struct config_certificate *certificates;
    size_t n_certificates;
    struct sv certificate_pem;          /* private to the reader, as the next */
    struct secret *certificate_key_pem; /* both become one of certificates */
    enum config_tls_version tls_min_version;
    enum config_versions http_versions; /* codec_type */
    struct sv http_redirect_addr;       /* "host:port" or ":port"; not set: none */
    struct config_mtls downstream_mtls;
    bool asks_client_cert;                 /* a CA for them is set, here or on a route */
    struct config_cidrs trusted_proxies;   /* none: { NULL, 0, false } */
    struct config_cidrs forward_auth_from; /* within trusted_proxies; none: nobody may ask */
    uint16_t xff_num_trusted_hops;         /* 0: by trusted_proxies */
    bool skip_xff_append;
    bool use_proxy_protocol; /* only with trusted_proxies */
    uint32_t max_connections;
    uint32_t max_connections_per_address;
    int64_t shutdown_delay_ms;
    int64_t shutdown_grace_ms;
    int64_t timeout_read_ms;             /* whole request; 0: none */
    int64_t timeout_write_ms;            /* whole stream; 0: none */
    int64_t timeout_idle_ms;             /* between requests; 0: none */
    int64_t default_upstream_timeout_ms; /* 0: none */
    bool normalize_path;
    bool merge_slashes;
    enum config_slashes path_with_escaped_slashes_action;
    enum config_underscores headers_with_underscores_action;
    struct config_pairs
        set_response_headers; /* defaults and the global ones: for our own replies */
    struct config_strings allow_upgrades;

    /* --- certificates from an ACME server (RFC 8555) --- */
    bool autocert;
    bool autocert_use_staging;
    bool autocert_must_staple; /* refused */
    struct sv autocert_ca;     /* the directory's URL, https; set where autocert is on */
    struct sv autocert_email;
    struct sv autocert_dir;    /* absolute; where autocert is on */
    struct sv autocert_server; /* autocert_ca as a name for folders */
    struct sv autocert_eab_key_id;
    struct secret *autocert_eab_mac_key; /* base64url text; NULL outside acme, or no such account */
    struct sv autocert_trusted_ca;       /* PEM; not set: the system's; acme alone */
    /* Names of https routes and of the login host that no configured certificate covers: those a
     * certificate is asked for, and those that no server could be asked for (wildcards, addresses,
     * names without a dot). */
    struct config_strings autocert_hosts;
    struct config_strings autocert_skipped;

    /* --- upstreams --- */
    struct config_limits limits; /* of routes that set none */
    struct config_dns dns;

    /* --- secrets --- */
    struct secret *shared_secret;          /* 32 bytes; never NULL */
    struct secret *shared_secret_previous; /* NULL: no rotation under way */
    struct keys *keys;                     /* derived from the two */
    struct secret *signing_key;            /* PEM, one or more keys; NULL: derived from keys */

    /* --- the parts and how they find each other --- */
    struct sv grpc_address; /* where this part serves gRPC: "unix:/path", "host:port" or ":port" */
    bool grpc_insecure;     /* plaintext gRPC: only for tests on one machine */
    int64_t grpc_client_timeout_ms;
    struct config_targets authorize;             /* authorize_service_url(s); at least one */
    struct config_targets databroker;            /* databroker_service_url(s); at least one */
    struct config_target authenticate_grpc;      /* authenticate_grpc_url: Login.Redeem */
    struct config_url authenticate_service_url;  /* what browsers see; scheme NONE: no login */
    struct config_url authenticate_internal_url; /* what the proxy forwards to, and where
                                                       authenticate listens for HTTP */
    int64_t authorize_timeout_ms;
    int64_t databroker_max_staleness_ms;
    struct sv health_check_addr; /* "host:port", "unix:/path"; not set: off */
    enum log_level log_level;
    bool access_log;
    struct config_audit audit;
    struct config_log_fields access_log_fields;
    struct config_log_fields authorize_log_fields;

    /* --- sessions --- */
    struct sv cookie_name; /* without the __Host- that is put before it */
    int64_t cookie_expire_ms;
    int64_t session_idle_timeout_ms; /* 0: none */
    int64_t session_max_age_ms;      /* 0: none */
    bool cookie_http_only;
    enum config_same_site cookie_same_site;
    struct sv signout_redirect_url; /* absolute URL or not set */

    /* --- identity provider --- */
    enum config_idp idp_provider;
    struct sv idp_provider_url; /* OIDC: the issuer */
    struct sv idp_client_id;
    struct secret *idp_client_secret; /* NULL outside authenticate, or a public client */
    struct config_strings idp_scopes;
    struct config_pairs idp_request_params;
    struct config_url idp_graph_url; /* Microsoft Graph; scheme NONE: by the issuer */
    struct sv idp_ca_file;           /* PEM bundle to verify the provider with; not set: system's */
    struct sv idp_local_users_file;  /* LOCAL */

    /* --- tokens of others --- */
    enum config_bearer bearer; /* of routes that say nothing */
    struct config_strings access_audiences;
    struct config_issuer *issuers;
    size_t n_issuers;

    /* --- what people read when they are refused --- */
    struct sv error_message_first_paragraph;
    struct sv support_url; /* https, http or mailto */

    /* --- identity headers --- */
    bool pass_identity_headers;
    struct config_pairs jwt_claims_headers; /* name: header, value: claim */
    enum config_jwt_issuer jwt_issuer_format;
    struct config_strings jwt_groups_filter;

    /* --- store --- */
    enum config_storage databroker_storage_type;
    enum token_role
        databroker_pomerium_jwt; /* whose role a caller with one has; NONE: it has none */
    struct secret *databroker_storage_connection_string; /* POSTGRES: the databroker's alone */
    struct sv databroker_storage_file;                   /* SQLITE: absolute */
    struct secret *databroker_encryption_key;            /* NULL: shared_secret */
    struct secret *databroker_encryption_key_previous;

    /* --- external data that is fetched --- */
    struct config_source *sources;
    size_t n_sources;

    /* --- policies with a name: as written, for policy_central_new(), where routes have json --- */
    const json_t *policies; /* NULL: none */
    const struct yaml_doc *policies_doc;
    uint64_t policies_edition; /* of this process: equal where they are the same; 0: none */

    /* --- routes, in file order --- */
    struct config_route *routes;
    size_t n_routes;
};

/* --- reading ------------------------------------------------------------------------------------- */

struct config_opts {
    const char *file; /* NULL: the environment alone */
    enum config_part part;
    const char *const *env;        /* NAME=value, NULL-terminated; NULL: none. Usually environ */
    const struct config *previous; /* its certificates and routes are taken over where they are the
                                      same; env is the one it was read with, its texts unchanged */
};

/* One mistake, with its place, in the order of the files. Values of secrets are never part of it. */
struct config_errors;

size_t config_errors_count(const struct config_errors *errors);
/* "config.yaml:12:5: …"; i < count. Lives as long as errors. */
const char *config_errors_text(const struct config_errors *errors, size_t i);
void config_errors_free(struct config_errors **errors);

/* Reads, checks all, freezes. On success one reference for the caller and *errors_out NULL; else every
 * mistake that was found (at most CONFIG_ERRORS_MAX). ERR_INVALID: mistakes; ERR_IO: the file cannot
 * be read. Blocks on files: at start, or in a job. */
enum { CONFIG_ERRORS_MAX = 100 };
MUST_CHECK enum err config_load(const struct config_opts *opts, struct config **config_out,
                                struct config_errors **errors_out);
/* The same from a text, for tests and tools; opts->file names it and is not opened. */
MUST_CHECK enum err config_parse(struct sv text, const struct config_opts *opts,
                                 struct config **config_out, struct config_errors **errors_out);
struct config *config_ref(const struct config *config);
void config_unref(struct config **config);

/* --- looking up ---------------------------------------------------------------------------------- */

/* NULL: no such route. Constant time. */
const struct config_route *config_route_by_id(const struct config *config, uint64_t id);
/* By what people call a route: its id, else its name, else its `from`. ERR_NOT_FOUND; ERR_INVALID:
 * several go by it; d says which, and what to do. Looks through all. */
MUST_CHECK enum err config_route_named(const struct config *config, struct sv name,
                                       const struct config_route **route_out, struct diag *d);
/* Whether tokens of that one of identity_providers count on the route. */
bool config_route_takes_issuer(const struct config_route *route,
                               const struct config_issuer *issuer);
/* Whether access tokens that were made for anybody count: ["*"]. */
bool config_takes_any_audience(struct config_strings audiences);
/* Whether a route's host, exact or pattern, fits host (canonical, lower case, no port). */
bool config_route_has_host(const struct config_route *route, struct sv host);
/* Appends host:port as config_route.tunnel spells it. */
void config_tunnel_text(struct buf *out, struct sv host, uint16_t port);
/* Whether any route, or the authenticate host, goes by this host and port: where a login may lead
 * back to. */
bool config_has_host(const struct config *config, struct sv host, uint16_t port);

/* Whether no policy admits somebody whose certificate is not trusted. */
static inline bool config_mtls_default_deny(const struct config *config)
{
    return config->asks_client_cert && config->downstream_mtls.enforcement != CONFIG_MTLS_POLICY;
}

/* Whether the same lines go the same way. */
bool config_audit_same(const struct config_audit *a, const struct config_audit *b);

const char *config_part_name(enum config_part part); /* "proxy" …; "postern" */

/* Appends the names of settings that differ but take effect at a restart only. */
void config_restart_needed(const struct config *old, const struct config *fresh, struct buf *out);

/* --- advice -------------------------------------------------------------------------------------- */

enum { CONFIG_ENDS_SOON_DAYS = 14 };

/* What is no mistake, but somebody should see to: certificates, lists and responses that have ended
 * or soon will, upstreams that nobody verifies, hosts that no certificate covers. One sentence each,
 * with its place; at most CONFIG_ADVICE_MAX. Proxy and command line: others have no certificates. */
enum { CONFIG_ADVICE_MAX = 50 };

typedef void (*config_advice_fn)(const char *sentence, void *arg);
void config_advise(const struct config *config, int64_t now_s, config_advice_fn fn, void *arg);

/* --- documentation ------------------------------------------------------------------------------- */

/* docs/configuration.md, generated from the rows. */
void config_docs(struct buf *out);
