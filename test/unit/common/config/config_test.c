#include "common/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config/reader.h"
#include "common/mem.h"
#include "test/support/cmocka.h"

#define KEY   "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY2  "//////////////////////////////////////////8="
#define HEAD  "shared_secret: " KEY "\ninsecure_server: true\n"
#define HEAD2 HEAD "authenticate_service_url: https://login.localhost\nidp_provider: local\n"

#define CLUSTER(text) HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n" text

#define CHECK_LIST(text) \
    CLUSTER("    health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, " text "}]\n")

static struct config_opts opts = { .file = "/etc/postern/c.yaml", .part = CONFIG_PART_AUTHORIZE };

static struct config *good(const char *text)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    if (config_parse(sv_from(text), &opts, &config, &errors) != ERR_OK) {
        fail_msg("refused: %s", config_errors_text(errors, 0));
    }
    assert_null(errors);
    return config;
}

/* --- what is refused ------------------------------------------------------------------------------ */

static const struct {
    const char *yaml;
    const char *error; /* how one of the errors begins */
} refused[] = {
    { "insecure_server: true\n", "/etc/postern/c.yaml: \"shared_secret\" is missing" },
    { "shared_secret: abc\n", "/etc/postern/c.yaml:1:1: shared_secret: expected 32 bytes" },
    { "shared_secret: AAAA\n", "/etc/postern/c.yaml:1:1: shared_secret: expected 32 bytes" },
    { HEAD "shared_secret_previous: " KEY "\n",
      "/etc/postern/c.yaml: shared_secret_previous is the same" },
    { HEAD "adress: :1\n",
      "/etc/postern/c.yaml:3:1: unknown setting \"adress\"; did you mean \"address\"?" },
    { HEAD "zzzzzzzzzzzzz: 1\n", "/etc/postern/c.yaml:3:1: unknown setting \"zzzzzzzzzzzzz\"" },
    { HEAD "prefix: /\n",
      "/etc/postern/c.yaml:3:1: \"prefix\" is a setting of a route, not a setting" },
    { HEAD "address: 8443\n", "/etc/postern/c.yaml:3:1: address: expected host:port" },
    { HEAD "address: :0\n", "/etc/postern/c.yaml:3:1: address: expected host:port" },
    { HEAD "address: :65536\n", "/etc/postern/c.yaml:3:1: address: expected host:port" },
    { HEAD "address: [1]\n", "/etc/postern/c.yaml:3:1: address: expected a text" },
    { HEAD "address: 'unix:'\n", "/etc/postern/c.yaml:3:1: address: unix: without a file name" },
    { HEAD "metrics_address: :9090\n",
      "/etc/postern/c.yaml:3:1: \"metrics_address\" is a setting of Pomerium that Postern does not "
      "have yet" },
    { HEAD "cookie_domain: x\n", "/etc/postern/c.yaml:3:1: \"cookie_domain\" does not exist here" },
    { HEAD "normalize_path: yes\n", "/etc/postern/c.yaml:3:1: normalize_path: expected true or" },
    { HEAD "timeout_read: 30\n", "/etc/postern/c.yaml:3:1: timeout_read: expected a time" },
    { HEAD "timeout_read: 30 s\n", "/etc/postern/c.yaml:3:1: timeout_read: expected a time" },
    { HEAD "timeout_read: -1s\n", "/etc/postern/c.yaml:3:1: timeout_read: expected a time" },
    { HEAD "authorize_timeout: 1ms\n",
      "/etc/postern/c.yaml:3:1: authorize_timeout: expected a time from 10ms to 1m" },
    { HEAD "log_level: loud\n",
      "/etc/postern/c.yaml:3:1: log_level: expected info, error, warn, debug or trace" },
    { HEAD "grpc_insecure: true\n", "/etc/postern/c.yaml: grpc_insecure: gRPC between the parts" },
    { HEAD "timeout_write: 5s\n", "/etc/postern/c.yaml: timeout_write: Postern does not have" },
    { CLUSTER("    load_balancing_policy: fastest\n"),
      "/etc/postern/c.yaml:8:5: load_balancing_policy: expected round_robin, least_request, random, "
      "ring_hash or maglev" },
    { CLUSTER("    least_request_lb_config: {choice_count: 1}\n"),
      "/etc/postern/c.yaml:8:31: choice_count: expected a number from 2 to 16" },
    { CLUSTER("    ring_hash_lb_config: {minimum_ring_size: 2, maximum_ring_size: 1}\n"),
      "/etc/postern/c.yaml:8:5: ring_hash_lb_config: minimum_ring_size is above" },
    { CLUSTER("    maglev_lb_config: {table_size: 65536}\n"),
      "/etc/postern/c.yaml:8:5: maglev_lb_config: table_size 65536 is no prime number" },
    { CLUSTER("    healthy_panic_threshold: 101\n"),
      "/etc/postern/c.yaml:8:5: healthy_panic_threshold: expected a number from 0 to 100" },
    { CLUSTER("    health_checks: {}\n"),
      "/etc/postern/c.yaml:8:5: health_checks: expected a list" },
    { CLUSTER("    health_checks: [{interval: 1s}]\n"),
      "/etc/postern/c.yaml:8:21: \"timeout\" is missing" },
    { CHECK_LIST("healthy_threshold: 1"),
      "/etc/postern/c.yaml:8:21: health_checks: each has exactly one of" },
    { CHECK_LIST("healthy_threshold: 1, http_health_check: {host: a}"),
      "/etc/postern/c.yaml:8:95: \"path\" is missing" },
    { CHECK_LIST("healthy_threshold: 1, http_health_check: {path: a}"),
      "/etc/postern/c.yaml:8:95: http_health_check: expected a path that begins with /" },
    { CHECK_LIST("healthy_threshold: 1, http_health_check: {paht: /}"),
      "/etc/postern/c.yaml:8:115: unknown setting of an http_health_check \"paht\"; did you mean "
      "\"path\"?" },
    { CHECK_LIST("healthy_threshold: 1, http_health_check: {path: /, expected_statuses: [{start: "
                 "200, end: 200}]}"),
      "/etc/postern/c.yaml:8:144: expected_statuses: expected start and end" },
    { CHECK_LIST("healthy_threshold: 1, http_health_check: {path: /, retriable_statuses: []}"),
      "/etc/postern/c.yaml:8:124: \"retriable_statuses\" is a setting of Pomerium that Postern does "
      "not have yet" },
    { CHECK_LIST("healthy_threshold: 1, tcp_health_check: {send: {text: xy}}"),
      "/etc/postern/c.yaml:8:114: send: expected {text: HEXADECIMAL}" },
    { CHECK_LIST("healthy_threshold: 1, alt_port: 5"),
      "/etc/postern/c.yaml:8:95: \"alt_port\" is a setting of Pomerium" },
    { CLUSTER("    outlier_detection: {consecutive_5xx: -1}\n"),
      "/etc/postern/c.yaml:8:25: consecutive_5xx: expected a number from 0" },
    { CLUSTER("    outlier_detection: {interval: 10}\n"),
      "/etc/postern/c.yaml:8:25: interval: expected a time with its unit" },
    { CLUSTER("    circuit_breaker_thresholds: {max_conections: 1}\n"),
      "/etc/postern/c.yaml:8:34: unknown setting of circuit_breaker_thresholds \"max_conections\"; "
      "did you mean \"max_connections\"?" },
    { CLUSTER("    circuit_breaker_thresholds: {max_connections: 0}\n"),
      "/etc/postern/c.yaml:8:34: max_connections: expected a number from 1" },
    { HEAD "circuit_breaker_thresholds: 5\n",
      "/etc/postern/c.yaml:3:1: expected a mapping of settings" },
    { HEAD "dns_lookup_family: V5\n",
      "/etc/postern/c.yaml:3:1: dns_lookup_family: expected V4_PREFERRED, AUTO, V4_ONLY, V6_ONLY or "
      "ALL" },
    { HEAD "dns_resolvers: [ns.example.com]\n",
      "/etc/postern/c.yaml:3:17: dns_resolvers: expected the address of a name server" },
    { HEAD "dns_resolvers: []\n", "/etc/postern/c.yaml:3:1: dns_resolvers: expected a list of" },
    { HEAD "dns_query_tries: 0\n", "/etc/postern/c.yaml:3:1: dns_query_tries: expected a number" },
    { HEAD "routes: {}\n", "/etc/postern/c.yaml:3:1: routes: expected a list of routes" },
    { HEAD "routes: []\npolicy: []\n", "/etc/postern/c.yaml:4:1: \"policy\" is the older name" },
    { HEAD "databroker_service_url: x:1\ndatabroker_service_urls: [y:1]\n",
      "/etc/postern/c.yaml:4:1: \"databroker_service_url\" is given twice" },
    { HEAD "authenticate_service_url: https://a/x\n",
      "/etc/postern/c.yaml:3:1: authenticate_service_url: a path has no meaning" },
    { HEAD "authenticate_service_url: ftp://a\n",
      "/etc/postern/c.yaml:3:1: authenticate_service_url: expected http://, https:// or unix:" },
    { HEAD "set_response_headers: {'a b': c}\n",
      "/etc/postern/c.yaml:3:24: set_response_headers: this is no header name" },
    { HEAD "set_response_headers: {a: \"b\\nc\"}\n",
      "/etc/postern/c.yaml:3:24: set_response_headers: a header's value is one line" },
    { HEAD "set_response_headers: {content-length: '5'}\n",
      "/etc/postern/c.yaml:3:24: set_response_headers: content-length says where a message ends" },
    { HEAD "jwt_claims_headers: {Connection: email}\n",
      "/etc/postern/c.yaml:3:22: jwt_claims_headers: Connection says where a message ends" },
    { HEAD "certificate_key: nonsense\n",
      "/etc/postern/c.yaml:3:1: certificate_key: expected a key as PEM" },
    { HEAD "a: 1\na: 2\n", "/etc/postern/c.yaml:4:1: " },
    { HEAD "- x\n", "/etc/postern/c.yaml:3:" },
    { "[]\n", "/etc/postern/c.yaml:1:1: expected a mapping" },
    { HEAD "routes: [{from: https://a.b, to: http://c}]\n",
      "/etc/postern/c.yaml: \"authenticate_service_url\" is missing" },
    /* routes */
    { HEAD2 "routes:\n  - form: https://a.b\n    to: http://c\n",
      "/etc/postern/c.yaml:6:5: unknown setting of a route \"form\"; did you mean \"from\"?" },
    { HEAD2 "routes:\n  - to: http://c\n", "/etc/postern/c.yaml:6:5: \"from\" is missing" },
    { HEAD2 "routes:\n  - x\n", "/etc/postern/c.yaml:6:5: expected a mapping" },
    { HEAD2 "routes:\n  - from: a.b\n    to: http://c\n",
      "/etc/postern/c.yaml:6:5: from: expected https://host" },
    { HEAD2 "routes:\n  - from: https://a.b/c\n    to: http://c\n",
      "/etc/postern/c.yaml:6:5: from: only a host and a port" },
    { HEAD2 "routes:\n  - from: https://u:p@a.b\n    to: http://c\n",
      "/etc/postern/c.yaml:6:5: from:" },
    { HEAD2 "routes:\n  - from: udp+https://a.b:22\n    to: udp://c:22\n",
      "/etc/postern/c.yaml:6:5: from: Postern does not have udp routes yet" },
    { HEAD2 "routes:\n  - from: https://a.b\n",
      "/etc/postern/c.yaml:6:5: a route has exactly one of" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to:\n",
      "/etc/postern/c.yaml:6:5: a route has exactly one of" },
    { HEAD2 "routes:\n  - from: https://a.b\n    redirect: ~\n",
      "/etc/postern/c.yaml:6:5: a route has exactly one of" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    response: {status: 200}\n",
      "/etc/postern/c.yaml:6:5: a route has exactly one of" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: udp://c\n",
      "/etc/postern/c.yaml:7:5: to: Postern does not have upstreams of this kind yet" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: [http://c, \"http://d,0\"]\n",
      "/etc/postern/c.yaml:7:20: to: expected URL,WEIGHT" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: [http://c, \"http://d,2\"]\n",
      "/etc/postern/c.yaml:7:5: to: give all upstreams a weight or none" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix: a\n",
      "/etc/postern/c.yaml:8:5: prefix: expected a path that begins with /" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix: /a%20b\n",
      "/etc/postern/c.yaml:8:5: prefix: paths are compared decoded, so this fits none" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    path: /a%2fb\n",
      "/etc/postern/c.yaml:8:5: path: paths are compared decoded, so this fits none" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: [http://c/one, http://d/two]\n",
      "/etc/postern/c.yaml:6:5: to: all upstreams of a route have the same path" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix: /a\n    path: /b\n",
      "/etc/postern/c.yaml:9:5: prefix, path and regex exclude each other" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    regex: '(a'\n",
      "/etc/postern/c.yaml:8:5: regex: at character 3: " },
    { HEAD2 "routes:\n  - from: https://a.b\n    redirect: {response_code: 305}\n",
      "/etc/postern/c.yaml:7:5: redirect: response_code is" },
    { HEAD2 "routes:\n  - from: https://a.b\n    redirect: {host_redirec: x}\n",
      "/etc/postern/c.yaml:7:16: unknown setting of a redirect \"host_redirec\"" },
    { HEAD2 "routes:\n  - from: https://a.b\n    response: {body: x}\n",
      "/etc/postern/c.yaml:7:5: \"status\" is missing" },
    { HEAD2 "routes:\n  - from: https://a.b\n    response: {status: 99}\n",
      "/etc/postern/c.yaml:7:16: status: expected a number from 200 to 599" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    allowed_groups: [x]\n",
      "/etc/postern/c.yaml:8:5: \"allowed_groups\" does not exist here: write `policy:" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    allowed_users: {a: b}\n",
      "/etc/postern/c.yaml:8:5: allowed_users: expected a list" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    allowed_idp_claims: {a: b}\n",
      "/etc/postern/c.yaml:8:26: allowed_idp_claims: expected a list of values" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n"
            "    allow_public_unauthenticated_access: true\n    allowed_users: [a]\n",
      "/etc/postern/c.yaml:6:5: allow_public_unauthenticated_access lets everybody in" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n"
            "    allow_public_unauthenticated_access: true\n"
            "    allow_any_authenticated_user: true\n",
      "/etc/postern/c.yaml:6:5: allow_public_unauthenticated_access lets everybody in" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n"
            "    allow_any_authenticated_user: true\n    allowed_domains: [a]\n",
      "/etc/postern/c.yaml:6:5: allow_any_authenticated_user lets everybody in" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n  - from: https://A.b/\n    to: http://d\n",
      "/etc/postern/c.yaml:8:5: from and path are those of the route at line 6" },
    { HEAD2 "routes:\n  - {from: https://a.b, to: http://c, id: x}\n"
            "  - {from: https://d.b, to: http://c, id: x}\n",
      "/etc/postern/c.yaml:7:5: this id is the one of the route at line 6" },
    { HEAD2 "routes:\n  - from: https://login.localhost\n    to: http://c\n",
      "/etc/postern/c.yaml:6:5: this host is the one of authenticate_service_url" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    set_request_headers: {a: '${pomerium.secret}'}\n",
      "/etc/postern/c.yaml:6:5: set_request_headers: expected ${pomerium.access_token}" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    set_request_headers: {a: '${pomerium.jwt'}\n",
      "/etc/postern/c.yaml:6:5: set_request_headers: expected ${pomerium.access_token}" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    set_request_headers: {a: '$pomerium.jwt'}\n",
      "/etc/postern/c.yaml:6:5: set_request_headers: write tokens as ${pomerium" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: a\n",
      "/etc/postern/c.yaml:8:5: prefix_rewrite: expected a path that begins with /" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: /a/../b\n",
      "/etc/postern/c.yaml:8:5: prefix_rewrite: expected a plain path" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: '/a b'\n",
      "/etc/postern/c.yaml:8:5: prefix_rewrite: expected a plain path" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: '/a?b'\n",
      "/etc/postern/c.yaml:8:5: prefix_rewrite: expected a plain path" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: '/a\\r\\nX: y'\n",
      "/etc/postern/c.yaml:8:5: prefix_rewrite: expected a plain path" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    regex_rewrite_pattern: a\n",
      "/etc/postern/c.yaml:8:5: \"regex_rewrite_pattern\" and \"regex_rewrite_substitution\" belong" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    regex_rewrite_substitution: a\n",
      "/etc/postern/c.yaml:8:5: \"regex_rewrite_pattern\" and \"regex_rewrite_substitution\" belong" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    regex_rewrite_pattern: (a\n    regex_rewrite_substitution: b\n",
      "/etc/postern/c.yaml:8:5: regex_rewrite_pattern: at character" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    regex_rewrite_pattern: a\n    regex_rewrite_substitution: '\\1'\n",
      "/etc/postern/c.yaml:9:5: regex_rewrite_substitution: \\1 names a group" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    prefix_rewrite: /b\n    regex_rewrite_pattern: a\n    regex_rewrite_substitution: b\n",
      "/etc/postern/c.yaml:6:5: prefix_rewrite and regex_rewrite_pattern exclude" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    host_rewrite: a b\n",
      "/etc/postern/c.yaml:8:5: host_rewrite: expected a host" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    host_rewrite: x\n    preserve_host_header: true\n",
      "/etc/postern/c.yaml:6:5: preserve_host_header, host_rewrite, host_rewrite_header and" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    host_rewrite_header: 'a b'\n",
      "/etc/postern/c.yaml:8:5: host_rewrite_header: this is no header name" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    host_path_regex_rewrite_pattern: a\n",
      "/etc/postern/c.yaml:8:5: \"host_path_regex_rewrite_pattern\" and" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    rewrite_response_headers: {a: b}\n",
      "/etc/postern/c.yaml:8:5: rewrite_response_headers: expected a list" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    rewrite_response_headers: [{prefix: a}]\n",
      "/etc/postern/c.yaml:8:32: \"header\" is missing" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    rewrite_response_headers: [{header: Content-Length}]\n",
      "/etc/postern/c.yaml:8:32: rewrite_response_headers: Content-Length says where" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    rewrite_response_headers: [{header: a, value: \"b\\nc\"}]\n",
      "/etc/postern/c.yaml:8:32: rewrite_response_headers: a header's value is one line" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {}\n",
      "/etc/postern/c.yaml:8:5: \"allow_origins\" is missing" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: []}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_origins: it names none" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: [a.b]}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_origins: expected https://host" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: ['https://a.b/']}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_origins: expected https://host" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: ['https://a.*.b']}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_origins: expected https://host" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: ['*'], allow_credentials: true}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_credentials with *" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: ['https://a.b'], allow_headers: ['*'], allow_credentials: true}\n",
      "/etc/postern/c.yaml:8:5: cors: allow_credentials with *" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    cors: {allow_origins: ['https://a.b']}\n    set_response_headers: {Access-Control-Allow-Origin: x}\n",
      "/etc/postern/c.yaml:6:5: set_response_headers: Access-Control" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    kubernetes_service_account_token: 'a b'\n",
      "/etc/postern/c.yaml:6:5: kubernetes_service_account_token: a token is one word" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    kubernetes_service_account_token: a\n    allow_public_unauthenticated_access: true\n",
      "/etc/postern/c.yaml:6:5: kubernetes_service_account_token: requests act" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    kubernetes_service_account_token: a\n    set_request_headers: {impersonate_user: x}\n",
      "/etc/postern/c.yaml:6:5: set_request_headers: Authorization and Impersonate" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    regex_priority_order: -1\n",
      "/etc/postern/c.yaml:8:5: regex_priority_order: expected a number" },
    { HEAD2 "routes:\n  - from: https://a.b\n    response: {status: 200}\n    host_rewrite: x\n",
      "/etc/postern/c.yaml:6:5: rewrites of path and host belong" },
    { HEAD2 "routes:\n  - from: https://a.b\n    redirect: {path_redirect: x}\n",
      "/etc/postern/c.yaml:7:16: path_redirect: expected a path that begins" },
    { HEAD2 "routes:\n  - from: https://a.b\n    redirect: {host_redirect: 'x/y'}\n",
      "/etc/postern/c.yaml:7:16: host_redirect: expected a host" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c/d\n    regex: /x\n",
      "/etc/postern/c.yaml:6:5: to: a path has no meaning with regex" },
    { HEAD2
      "routes:\n  - from: https://a.b\n    to: http://c\n    set_request_headers: {Host: a}\n",
      "/etc/postern/c.yaml:6:5: set_request_headers: Host is chosen by" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: https://c\n    tls_custom_ca: AAAA\n",
      "/etc/postern/c.yaml:8:5: tls_custom_ca: expected certificates as PEM" },
    { HEAD2 "routes:\n  - from: https://a.b\n    to: http://c\n    log_level: info\n",
      "/etc/postern/c.yaml:8:5: \"log_level\" is a setting, not a setting of a route" },
};

static void every_mistake_is_named_with_its_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct config *config = NULL;
        struct config_errors *errors = NULL;
        bool found = false;

        if (config_parse(sv_from(refused[i].yaml), &opts, &config, &errors) == ERR_OK) {
            fail_msg("accepted: %s", refused[i].yaml);
        }
        for (size_t k = 0; k < config_errors_count(errors); k++) {
            const char *text = config_errors_text(errors, k);

            found = found || strncmp(text, refused[i].error, strlen(refused[i].error)) == 0;
        }
        if (!found) {
            fail_msg("wanted: %s\n   got: %s", refused[i].error, config_errors_text(errors, 0));
        }
        config_errors_free(&errors);
    }
}

static void all_mistakes_are_told_at_once_and_in_order(void **state)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    const char *text = "adress: x\nshared_secret: y\ntimeout_read: z\n";

    (void)state;
    assert_int_equal(config_parse(sv_from(text), &opts, &config, &errors), ERR_INVALID);
    assert_int_equal(config_errors_count(errors), 3);
    assert_non_null(strstr(config_errors_text(errors, 0), ":1:1:"));
    assert_non_null(strstr(config_errors_text(errors, 1), ":2:1:"));
    assert_non_null(strstr(config_errors_text(errors, 2), ":3:1:"));
    config_errors_free(&errors);
}

static void a_secret_is_never_part_of_a_message(void **state)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    const char *text = "shared_secret: canary-one\nsigning_key: canary-two\n"
                       "certificate_key: canary-three\nidp_client_secret: [canary-four]\n";

    (void)state;
    assert_int_equal(config_parse(sv_from(text), &opts, &config, &errors), ERR_INVALID);
    assert_true(config_errors_count(errors) >= 4);
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        assert_null(strstr(config_errors_text(errors, i), "canary"));
    }
    config_errors_free(&errors);
}

static void mistakes_beyond_a_hundred_are_left_out(void **state)
{
    struct buf b;
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    (void)state;
    buf_init(&b, 100000);
    for (int i = 0; i < 300; i++) {
        buf_printf(&b, "wrong%d: 1\n", i);
    }
    assert_int_equal(config_parse(buf_sv(&b), &opts, &config, &errors), ERR_INVALID);
    assert_int_equal(config_errors_count(errors), CONFIG_ERRORS_MAX);
    config_errors_free(&errors);
    buf_deinit(&b);
}

/* --- what is understood --------------------------------------------------------------------------- */

static void defaults_are_those_of_the_manual(void **state)
{
    struct config *c = good(HEAD);

    (void)state;
    assert_string_equal(c->address.p, ":443");
    assert_string_equal(c->cookie_name.p, "_pomerium");
    assert_int_equal(c->cookie_expire_ms, 14 * 3600 * 1000);
    assert_true(c->cookie_http_only);
    assert_true(c->normalize_path);
    assert_int_equal(c->path_with_escaped_slashes_action, CONFIG_SLASHES_REJECT);
    assert_int_equal(c->headers_with_underscores_action, CONFIG_UNDERSCORES_REJECT);
    assert_int_equal(c->log_level, LOG_INFO);
    assert_true(c->access_log);
    assert_int_equal(c->databroker_storage_type, CONFIG_STORAGE_SQLITE);
    assert_string_equal(c->databroker_storage_file.p, "/etc/postern/databroker.sqlite");
    assert_string_equal(c->grpc_address.p, "unix:/etc/postern/sock/authorize.sock");
    assert_string_equal(c->health_check_addr.p, "127.0.0.1:28082");
    assert_string_equal(c->databroker.v[0].text.p, "unix:/etc/postern/sock/databroker.sock");
    assert_string_equal(c->authorize.v[0].socket.p, "/etc/postern/sock/authorize.sock");
    assert_int_equal(c->authorize_timeout_ms, 2000);
    assert_int_equal(c->databroker_max_staleness_ms, 30000);
    assert_int_equal(c->set_response_headers.n, 2);
    assert_non_null(c->keys);
    assert_int_equal(keys_slots(c->keys), 1);
    assert_int_equal(c->n_routes, 0);
    config_unref(&c);
}

static void globals_are_read(void **state)
{
    struct config *c = good(
        HEAD "shared_secret_previous: " KEY2 "\n"
             "address: '[::1]:8443'\nhealth_check_addr: off\ntimeout_idle: 1h30m\ntimeout_read: 0\n"
             "timeout_write: 0\nlog_level: DEBUG\nservices: all\nidp_client_id: 12345\n"
             "access_log: false\n"
             "databroker_service_urls: [\"https://db1:5443\", db2:5443, \"unix:/x\"]\n"
             "authorize_service_url: https://Authorize.example.com/\n"
             "authenticate_internal_service_url: http://127.0.0.1:9000/\n"
             "jwt_claims_headers: [email, family_name]\nidp_scopes: openid\n"
             "signout_redirect_url: https://example.com/bye?x=1\n");

    (void)state;
    assert_int_equal(keys_slots(c->keys), 2);
    assert_string_equal(c->address.p, "[::1]:8443");
    assert_null(c->health_check_addr.p);
    assert_int_equal(c->timeout_idle_ms, 90 * 60 * 1000);
    assert_int_equal(c->timeout_read_ms, 0);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_false(c->access_log);
    assert_string_equal(c->idp_client_id.p, "12345");
    assert_int_equal(c->databroker.n, 3);
    assert_string_equal(c->databroker.v[0].text.p, "db1:5443");
    assert_true(c->databroker.v[2].is_unix);
    assert_string_equal(c->authorize.v[0].host.p, "authorize.example.com");
    assert_int_equal(c->authorize.v[0].port, 443);
    assert_string_equal(c->authenticate_internal_url.text.p, "http://127.0.0.1:9000");
    assert_int_equal(c->jwt_claims_headers.n, 2);
    assert_string_equal(c->jwt_claims_headers.v[1].name.p, "X-Pomerium-Claim-Family-Name");
    assert_string_equal(c->jwt_claims_headers.v[1].value.p, "family_name");
    assert_string_equal(c->idp_scopes.v[0].p, "openid");
    assert_string_equal(c->signout_redirect_url.p, "https://example.com/bye?x=1");
    config_unref(&c);
}

static const char routes_text[] =
    HEAD2 "pass_identity_headers: true\nallow_upgrades: [Foo]\n"
          "set_response_headers: {X-Frame-Options: DENY, X-A: one}\njwt_groups_filter: [g]\n"
          "routes:\n"
          "  - from: https://*.Example.com:8443\n"
          "    to: [\"http://10.0.0.1:80/base/,3\", \"https://[::1]:99/base,3\"]\n"
          "    prefix: /app\n"
          "    set_request_headers: {a: 'cost: 5$$'}\n"
          "    set_response_headers: {x-a: two}\n"
          "    jwt_groups_filter: [h]\n"
          "    pass_identity_headers: false\n"
          "    allow_upgrades: [websocket]\n"
          "    policy: [{allow: {and: [{nonsense: 1}]}}]\n"
          "  - from: https://b.example.com\n"
          "    to: unix:sock/b.sock\n"
          "    path: /x\n"
          "    timeout: 5s\n"
          "  - from: http://c.example.com\n"
          "    redirect: {https_redirect: true}\n"
          "    id: my-route\n"
          "  - from: https://d.example.com\n"
          "    response: {status: 204}\n"
          "    regex: ^/(a|b)$\n"
          "    allow_upgrades: []\n";

static void a_route_has_the_last_word_about_headers_of_answers(void **state)
{
    struct config *c = good(
        HEAD2
        "set_response_headers: {access-control-allow-origin: '*'}\n"
        "routes:\n"
        "  - {from: https://a.b, to: http://c, set_response_headers: {disable: true}}\n"
        "  - {from: https://b.b, to: http://c, set_response_headers: {disable: true, X: '1'}}\n"
        "  - {from: https://c.b, to: http://c, cors: {allow_origins: ['https://a.b']}}\n"
        "  - {from: https://d.b, to: http://c}\n");

    (void)state;
    assert_int_equal(c->routes[0].set_response_headers.n, 0);
    assert_ptr_not_equal(c->routes[0].set_response_headers.v, c->set_response_headers.v);
    assert_int_equal(c->routes[1].set_response_headers.n, 1);
    assert_int_equal(c->routes[2].set_response_headers.n, 2);
    assert_int_equal(c->routes[3].set_response_headers.n, 3);
    config_unref(&c);
}

static void routes_are_read(void **state)
{
    struct config *c = good(routes_text);
    const struct config_route *a = &c->routes[0];
    const struct config_route *b = &c->routes[1];

    (void)state;
    assert_int_equal(c->n_routes, 4);
    assert_string_equal(a->from.p, "https://*.example.com:8443");
    assert_true(a->wildcard);
    assert_int_equal(a->port, 8443);
    assert_int_equal(a->line, 10);
    assert_int_equal(a->n_upstreams, 2);
    assert_int_equal(a->upstreams[1].weight, 3);
    assert_true(a->upstreams[1].url.tls);
    assert_string_equal(a->upstreams[1].url.host.p, "[::1]");
    assert_string_equal(a->prefix_rewrite.p, "/base");
    assert_string_equal(a->set_request_headers.v[0].value.p, "cost: 5$");
    assert_false(a->pass_identity_headers);
    assert_int_equal(a->jwt_groups_filter.n, 2);
    assert_true(a->allow_websockets);
    assert_int_equal(a->allow_upgrades.n, 0);
    assert_int_equal(a->timeout_ms, 0);
    assert_int_equal(a->begin_timeout_ms, 0); /* upgrades */
    assert_int_equal(a->set_response_headers.n, 3);
    assert_string_equal(a->set_response_headers.v[0].value.p, "DENY");
    assert_string_equal(a->set_response_headers.v[2].value.p, "two");
    assert_non_null(json_object_get(a->json, "policy"));
    assert_int_equal(yaml_member_pos(a->doc, a->json, "policy").line, 18);

    assert_true(b->pass_identity_headers);
    assert_int_equal(b->upstreams[0].url.scheme, CONFIG_SCHEME_UNIX);
    assert_string_equal(b->upstreams[0].url.socket.p, "/etc/postern/sock/b.sock");
    assert_int_equal(b->match, CONFIG_MATCH_PATH);
    assert_int_equal(b->timeout_ms, 5000);
    assert_int_equal(b->begin_timeout_ms, 0);
    assert_string_equal(b->allow_upgrades.v[0].p, "foo");
    assert_int_equal(b->port, 0);

    assert_int_equal(c->routes[2].action, CONFIG_ACTION_REDIRECT);
    assert_int_equal(c->routes[2].redirect.response_code, 301);
    assert_false(c->routes[2].from_https);
    assert_string_equal(c->routes[2].id_text.p, "my-route");
    assert_int_equal(c->routes[3].response_status, 204);
    assert_int_equal(c->routes[3].match, CONFIG_MATCH_REGEX);
    assert_int_equal(c->routes[3].timeout_ms, 0);
    assert_int_equal(c->routes[3].begin_timeout_ms, 30000);
    for (size_t i = 0; i < c->n_routes; i++) {
        assert_ptr_equal(config_route_by_id(c, c->routes[i].id), &c->routes[i]);
    }
    assert_null(config_route_by_id(c, 1));
    assert_true(config_has_host(c, SV("x.example.com"), 8443));
    assert_false(config_has_host(c, SV("x.example.com"), 8444));
    assert_true(config_has_host(c, SV("b.example.com"), 1));
    assert_true(config_has_host(c, SV("login.localhost"), 443));
    assert_false(config_has_host(c, SV("evil.com"), 443));
    config_unref(&c);
}

static void route_ids_follow_from_and_path_alone(void **state)
{
    struct config *a = good(HEAD2 "routes: [{from: https://a.b, to: http://c, prefix: /x}]\n");
    struct config *b = good(HEAD2 "# moved\n\nroutes:\n  - {from: https://z.b, to: http://c}\n"
                                  "  - {prefix: /x, to: http://other, from: https://A.B/}\n");

    (void)state;
    assert_true(a->routes[0].id == b->routes[1].id);
    assert_string_equal(a->routes[0].id_text.p, b->routes[1].id_text.p);
    assert_true(a->routes[0].id != b->routes[0].id);
    config_unref(&a);
    config_unref(&b);
}

static void wildcards_fit_any_text_in_the_host(void **state)
{
    struct config *c = good(HEAD2 "routes:\n  - {from: 'https://*.a.com', to: http://c}\n"
                                  "  - {from: 'https://x-*-y.*', to: http://c}\n");

    (void)state;
    assert_true(config_route_has_host(&c->routes[0], SV("b.a.com")));
    assert_true(config_route_has_host(&c->routes[0], SV("b.c.a.com")));
    assert_false(config_route_has_host(&c->routes[0], SV("a.com")));
    assert_false(config_route_has_host(&c->routes[0], SV("b.a.com.evil")));
    assert_true(config_route_has_host(&c->routes[1], SV("x--y.z")));
    assert_true(config_route_has_host(&c->routes[1], SV("x-1-y-y.org")));
    assert_false(config_route_has_host(&c->routes[1], SV("x-1.org")));
    config_unref(&c);
}

/* --- environment ---------------------------------------------------------------------------------- */

static struct config *with_env(const char *text, const char *const *env)
{
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct config_opts o = opts;

    o.env = env;
    if (config_parse(sv_from(text), &o, &config, &errors) != ERR_OK) {
        fail_msg("refused: %s", config_errors_text(errors, 0));
    }
    return config;
}

static void the_environment_wins(void **state)
{
    const char *const env[] = { "ADDRESS=:99",
                                "POSTERN_LOG_LEVEL=error",
                                "LOG_LEVEL=",
                                "IDP_SCOPES=openid, email",
                                "DATABROKER_SERVICE_URLS=[\"a:1\",\"b:2\"]",
                                "SET_RESPONSE_HEADERS={\"disable\": true, \"X-B\": \"1\"}",
                                "JWT_CLAIMS_HEADERS=email,groups",
                                "ROUTES=LSBmcm9tOiBodHRwczovL2UuZgogIHRvOiBodHRwOi8vZwo=",
                                "UNKNOWN=1",
                                "METRICS_ADDRESS=:9090",
                                NULL };
    struct config *c = with_env(HEAD2 "address: not an address\nroutes: 7\n", env);

    (void)state;
    assert_string_equal(c->address.p, ":99");
    assert_int_equal(c->log_level, LOG_ERROR);
    assert_int_equal(c->idp_scopes.n, 2);
    assert_string_equal(c->idp_scopes.v[1].p, "email");
    assert_int_equal(c->databroker.n, 2);
    assert_int_equal(c->set_response_headers.n, 1);
    assert_int_equal(c->jwt_claims_headers.n, 2);
    assert_int_equal(c->n_routes, 1);
    assert_string_equal(c->routes[0].from.p, "https://e.f");
    config_unref(&c);
}

static void mistakes_in_the_environment_name_the_variable(void **state)
{
    const char *const env[] = { "ADDRESS=x", "ROUTES=[{form: x}]", NULL };
    struct config *config = NULL;
    struct config_errors *errors = NULL;
    struct config_opts o = opts;
    bool route = false;
    bool address = false;

    (void)state;
    o.env = env;
    assert_int_equal(config_parse(SV(HEAD), &o, &config, &errors), ERR_INVALID);
    for (size_t i = 0; i < config_errors_count(errors); i++) {
        const char *t = config_errors_text(errors, i);

        address = address || strncmp(t, "environment variable ADDRESS: ", 30) == 0;
        route = route || strncmp(t, "environment variable ROUTES:1:3: unknown", 40) == 0;
    }
    assert_true(route && address);
    config_errors_free(&errors);
}

static void the_environment_alone_is_enough(void **state)
{
    const char *const env[] = { "SHARED_SECRET=" KEY, "INSECURE_SERVER=true", NULL };
    struct config_opts o = { .env = env, .part = CONFIG_PART_DATABROKER };
    struct config *config = NULL;
    struct config_errors *errors = NULL;

    (void)state;
    assert_int_equal(config_load(&o, &config, &errors), ERR_OK);
    assert_true(config->insecure_server);
    config_unref(&config);
}

/* --- files ---------------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void values_may_stand_in_files_beside_the_configuration(void **state)
{
    char folder[] = "/tmp/postern-config-XXXXXX";
    char path[64];
    struct config_opts o = { .file = path, .part = CONFIG_PART_DATABROKER };
    struct config *c = NULL;
    struct config_errors *errors = NULL;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/secret", folder);
    write_text(path, KEY "\n");
    (void)snprintf(path, sizeof(path), "%s/c.yaml", folder);
    write_text(path, "shared_secret_file: secret\ninsecure_server: true\n");
    assert_int_equal(config_load(&o, &c, &errors), ERR_OK);
    assert_int_equal(secret_bytes(c->shared_secret).n, 32);
    assert_int_equal(c->files.n, 2);
    config_unref(&c);
    write_text(path, "shared_secret_file: missing\n");
    assert_int_equal(config_load(&o, &c, &errors), ERR_INVALID);
    assert_non_null(strstr(config_errors_text(errors, 0), "cannot read"));
    config_errors_free(&errors);
    o.file = "/nonexistent/c.yaml";
    assert_int_equal(config_load(&o, &c, &errors), ERR_IO);
    assert_string_equal(config_errors_text(errors, 0),
                        "/nonexistent/c.yaml: cannot read it: No such file or directory");
    config_errors_free(&errors);
    (void)remove(path);
    (void)snprintf(path, sizeof(path), "%s/secret", folder);
    (void)remove(path);
    (void)remove(folder);
}

/* --- small things --------------------------------------------------------------------------------- */

static void what_needs_a_restart_is_named(void **state)
{
    struct config *a = good(HEAD "address: :1\nlog_level: info\n");
    struct config *b = good("shared_secret: " KEY2 "\ninsecure_server: true\naddress: :2\n"
                            "log_level: debug\ndatabroker_service_urls: [a:1]\n");
    struct buf names;

    (void)state;
    buf_init(&names, 4096);
    config_restart_needed(a, a, &names);
    assert_string_equal(buf_cstr(&names), "");
    config_restart_needed(a, b, &names);
    assert_string_equal(buf_cstr(&names), "address, shared_secret, databroker_service_url");
    buf_deinit(&names);
    config_unref(&a);
    config_unref(&b);
}

static void near_names_are_found(void **state)
{
    (void)state;
    assert_string_equal(config_rows_nearest(&config_rows_global, SV("shraed_secret")),
                        "shared_secret");
    assert_string_equal(config_rows_nearest(&config_rows_route, SV("allow_websocket")),
                        "allow_websockets");
    assert_null(config_rows_nearest(&config_rows_route, SV("qqqqqqqqqqqq")));
    assert_null(config_rows_nearest(&config_rows_route, SV("")));
}

static void the_manual_is_the_one_of_the_rows(void **state)
{
    struct buf made;
    char *text = mem_alloc(200000);
    FILE *f = fopen("docs/configuration.md", "r");
    size_t n = 0;

    (void)state;
    assert_non_null(f);
    n = fread(text, 1, 200000, f);
    (void)fclose(f);
    buf_init(&made, 200000);
    config_docs(&made);
    if (!sv_eq(buf_sv(&made), sv_of(text, n))) {
        fail_msg(
            "docs/configuration.md is old: build/bin/postern docs config > docs/configuration.md");
    }
    buf_deinit(&made);
    mem_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mistake_is_named_with_its_place),
        cmocka_unit_test(all_mistakes_are_told_at_once_and_in_order),
        cmocka_unit_test(a_secret_is_never_part_of_a_message),
        cmocka_unit_test(mistakes_beyond_a_hundred_are_left_out),
        cmocka_unit_test(defaults_are_those_of_the_manual),
        cmocka_unit_test(globals_are_read),
        cmocka_unit_test(routes_are_read),
        cmocka_unit_test(a_route_has_the_last_word_about_headers_of_answers),
        cmocka_unit_test(route_ids_follow_from_and_path_alone),
        cmocka_unit_test(wildcards_fit_any_text_in_the_host),
        cmocka_unit_test(the_environment_wins),
        cmocka_unit_test(mistakes_in_the_environment_name_the_variable),
        cmocka_unit_test(the_environment_alone_is_enough),
        cmocka_unit_test(values_may_stand_in_files_beside_the_configuration),
        cmocka_unit_test(what_needs_a_restart_is_named),
        cmocka_unit_test(near_names_are_found),
        cmocka_unit_test(the_manual_is_the_one_of_the_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
