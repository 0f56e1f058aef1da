/* How a route spreads over its upstreams: load_balancing_policy's own settings, health_checks,
 * outlier_detection, circuit_breaker_thresholds, and the name servers. The names are Envoy's, which
 * Pomerium passes through. */
#include <arpa/inet.h>
#include <string.h>

#include "common/b64.h"
#include "common/config/reader.h"
#include "common/mem.h"

#define H(member) offsetof(struct config_health_check, member)
#define O(member) offsetof(struct config_outlier, member)
#define L(member) offsetof(struct config_limits, member)
#define C(member) offsetof(struct config_cluster, member)

enum {
    CHECKS_MAX = 8,
    STATUSES_MAX = 64,
    PAYLOAD_MAX = 4096,
    GIVEN_MAX = 32,
    RING_MAX = 8388608,
    TABLE_MAX = 5000011,
    THRESHOLD_DEFAULT = 1024
};

static const uint32_t not_given = UINT32_MAX;

static void read_http_check(struct config_reader *r, const struct config_value *v, void *base);
static void read_tcp_check(struct config_reader *r, const struct config_value *v, void *base);
static void read_grpc_check(struct config_reader *r, const struct config_value *v, void *base);
static void read_statuses(struct config_reader *r, const struct config_value *v, void *base);
static void read_send(struct config_reader *r, const struct config_value *v, void *base);
static void read_receive(struct config_reader *r, const struct config_value *v, void *base);

static const struct config_choice choices_codec[] = { { "HTTP1", CONFIG_CODEC_HTTP1 },
                                                      { "HTTP2", CONFIG_CODEC_HTTP2 },
                                                      { NULL, 0 } };

static const struct config_row health_check_rows[] = {
    { "timeout", CFG_DURATION, CFG_REQUIRED, H(timeout_ms), 1, HOUR,
      .doc = "For one check; then it has failed." },
    { "interval", CFG_DURATION, CFG_REQUIRED, H(interval_ms), 10, DAY,
      .doc = "From the end of a check to the next." },
    { "initial_jitter", CFG_DURATION, 0, H(initial_jitter_ms), 0, DAY,
      .doc = "The first check waits up to this long." },
    { "interval_jitter", CFG_DURATION, 0, H(interval_jitter_ms), 0, DAY,
      .doc = "Up to this is added to every interval." },
    { "interval_jitter_percent", CFG_NUMBER, 0, H(interval_jitter_percent), 0, 100,
      .doc = "Up to this percentage of the interval is added." },
    { "unhealthy_threshold", CFG_NUMBER, CFG_REQUIRED, H(unhealthy_threshold), 1, 1000,
      .doc = "Failures in a row that make an endpoint unfit. An answer with an unexpected status "
             "does at once." },
    { "healthy_threshold", CFG_NUMBER, CFG_REQUIRED, H(healthy_threshold), 1, 1000,
      .doc = "Successes in a row that make it fit again; the very first makes it fit at once." },
    { "http_health_check", CFG_OBJECT, 0, SIZE_MAX, .read = read_http_check,
      .doc = "A GET: see below." },
    { "tcp_health_check", CFG_OBJECT, 0, SIZE_MAX, .read = read_tcp_check,
      .doc = "A connection, and what is said over it: see below." },
    { "grpc_health_check", CFG_OBJECT, 0, SIZE_MAX, .read = read_grpc_check,
      .doc = "`grpc.health.v1.Health/Check`: see below." },
    UNSUPPORTED("reuse_connection"),
    UNSUPPORTED("no_traffic_interval"),
    UNSUPPORTED("no_traffic_healthy_interval"),
    UNSUPPORTED("unhealthy_interval"),
    UNSUPPORTED("unhealthy_edge_interval"),
    UNSUPPORTED("healthy_edge_interval"),
    UNSUPPORTED("alt_port"),
    UNSUPPORTED("custom_health_check"),
    UNSUPPORTED("event_log_path"),
    UNSUPPORTED("event_logger"),
    UNSUPPORTED("always_log_health_check_failures"),
    UNSUPPORTED("always_log_health_check_success"),
    UNSUPPORTED("tls_options"),
    UNSUPPORTED("transport_socket_match_criteria"),
};

static const struct config_row http_check_rows[] = {
    { "host", CFG_TEXT, 0, H(host), 1, 255, .def_shown = "the upstream's", .doc = "`Host`." },
    { "path", CFG_TEXT, CFG_REQUIRED, H(path), 1, 4096, .doc = "Begins with `/`." },
    { "expected_statuses", CFG_OBJECT, 0, SIZE_MAX, .read = read_statuses, .def_shown = "200",
      .doc = "List of `start` and `end`; `end` itself is not expected." },
    { "codec_client_type", CFG_ENUM, 0, H(codec), .choices = choices_codec,
      .doc = "The version of HTTP to ask with." },
    UNSUPPORTED("send"),
    UNSUPPORTED("receive"),
    UNSUPPORTED("response_buffer_size"),
    UNSUPPORTED("request_headers_to_add"),
    UNSUPPORTED("request_headers_to_remove"),
    UNSUPPORTED("retriable_statuses"),
    UNSUPPORTED("service_name_matcher"),
    UNSUPPORTED("method"),
};

static const struct config_row tcp_check_rows[] = {
    { "send", CFG_OBJECT, 0, SIZE_MAX, .read = read_send,
      .doc = "What to say: `text` in hexadecimal or `binary` in base64. Nothing: connecting is "
             "enough." },
    { "receive", CFG_OBJECT, 0, SIZE_MAX, .read = read_receive,
      .doc = "List of such texts that must come back, in this order, with anything between." },
};

static const struct config_row grpc_check_rows[] = {
    { "service_name", CFG_TEXT, 0, H(service), 1, 255,
      .doc = "The service to ask about; without it the server as a whole." },
    { "authority", CFG_TEXT, 0, H(host), 1, 255, .def_shown = "the upstream's",
      .doc = "`:authority`." },
    UNSUPPORTED("initial_metadata"),
};

static const struct config_row outlier_rows[] = {
    { "consecutive_5xx", CFG_COUNT, 0, O(consecutive_5xx), 0, CONFIG_COUNT_MAX, 5,
      .doc = "So many in a row of: an answer of 500 to 599, no connection, no answer." },
    { "enforcing_consecutive_5xx", CFG_NUMBER, 0, O(enforcing_consecutive_5xx), 0, 100, 100,
      .doc = "How often that leads to ejection, in percent." },
    { "consecutive_gateway_failure", CFG_COUNT, 0, O(consecutive_gateway_failure), 0,
      CONFIG_COUNT_MAX, 5, .doc = "So many in a row of: 502, 503, 504, no connection, no answer." },
    { "enforcing_consecutive_gateway_failure", CFG_NUMBER, 0,
      O(enforcing_consecutive_gateway_failure), 0, 100, 0,
      .doc = "How often that leads to ejection, in percent; unless set, never." },
    { "interval", CFG_DURATION, 0, O(interval_ms), 10, HOUR, 10 * SECOND,
      .doc = "How often it is looked whether an ejection is over." },
    { "base_ejection_time", CFG_DURATION, 0, O(base_ejection_ms), 1, DAY, 30 * SECOND,
      .doc = "Times the number of ejections one after the other: how long one lasts." },
    { "max_ejection_time", CFG_DURATION, 0, O(max_ejection_ms), 1, DAY, 5 * MINUTE,
      .doc = "The longest; at least `base_ejection_time`." },
    { "max_ejection_time_jitter", CFG_DURATION, 0, O(max_ejection_jitter_ms), 0, HOUR,
      .doc = "Up to this is added." },
    { "max_ejection_percent", CFG_NUMBER, 0, O(max_ejection_percent), 0, 100, 10,
      .doc = "No more are ejected once this percentage is; one always may be, unless 0." },
    UNSUPPORTED("success_rate_minimum_hosts"),
    UNSUPPORTED("success_rate_request_volume"),
    UNSUPPORTED("success_rate_stdev_factor"),
    UNSUPPORTED("enforcing_success_rate"),
    UNSUPPORTED("failure_percentage_threshold"),
    UNSUPPORTED("failure_percentage_minimum_hosts"),
    UNSUPPORTED("failure_percentage_request_volume"),
    UNSUPPORTED("enforcing_failure_percentage"),
    UNSUPPORTED("enforcing_failure_percentage_local_origin"),
    UNSUPPORTED("split_external_local_origin_errors"),
    UNSUPPORTED("consecutive_local_origin_failure"),
    UNSUPPORTED("enforcing_consecutive_local_origin_failure"),
    UNSUPPORTED("enforcing_local_origin_success_rate"),
    UNSUPPORTED("successful_active_health_check_uneject_host"),
    UNSUPPORTED("always_eject_one_host"),
    UNSUPPORTED("monitors"),
};

static const struct config_row limits_rows[] = {
    { "max_connections", CFG_COUNT, 0, L(max_connections), 1, CONFIG_COUNT_MAX, UINT32_MAX,
      .def_shown = "1024",
      .doc = "Connections to all endpoints of a route together; a request for one more waits." },
    { "max_pending_requests", CFG_COUNT, 0, L(max_pending_requests), 0, CONFIG_COUNT_MAX,
      UINT32_MAX, .def_shown = "1024",
      .doc = "Requests that wait for a connection, also while it is being made." },
    { "max_requests", CFG_COUNT, 0, L(max_requests), 0, CONFIG_COUNT_MAX, UINT32_MAX,
      .def_shown = "1024", .doc = "Open requests." },
    { "max_retries", CFG_COUNT, 0, L(max_retries), 0, CONFIG_COUNT_MAX, UINT32_MAX,
      .def_shown = "1024", .doc = "Requests that are asked a second time." },
    UNSUPPORTED("max_connection_pools"),
};

static const struct config_row least_request_rows[] = {
    { "choice_count", CFG_COUNT, 0, C(choice_count), 2, 16, 2, .doc = "How many are drawn." },
    UNSUPPORTED("active_request_bias"),
    UNSUPPORTED("slow_start_config"),
    UNSUPPORTED("locality_lb_config"),
    UNSUPPORTED("selection_method"),
};

static const struct config_row ring_hash_rows[] = {
    { "minimum_ring_size", CFG_COUNT, 0, C(minimum_ring_size), 1, RING_MAX, 1024,
      .doc = "Points on the ring, at least." },
    { "maximum_ring_size", CFG_COUNT, 0, C(maximum_ring_size), 1, RING_MAX, RING_MAX,
      .doc = "Points on the ring, at most." },
    UNSUPPORTED("hash_function"),
    UNSUPPORTED("consistent_hashing_lb_config"),
    UNSUPPORTED("locality_weighted_lb_config"),
};

static const struct config_row maglev_rows[] = {
    { "table_size", CFG_COUNT, 0, C(table_size), 2, TABLE_MAX, 65537, .doc = "A prime." },
    UNSUPPORTED("consistent_hashing_lb_config"),
    UNSUPPORTED("locality_weighted_lb_config"),
};

const struct config_rows config_rows_health_check =
    CONFIG_ROWS(health_check_rows, "setting of a health check");
const struct config_rows config_rows_http_check =
    CONFIG_ROWS(http_check_rows, "setting of an http_health_check");
const struct config_rows config_rows_tcp_check =
    CONFIG_ROWS(tcp_check_rows, "setting of a tcp_health_check");
const struct config_rows config_rows_grpc_check =
    CONFIG_ROWS(grpc_check_rows, "setting of a grpc_health_check");
const struct config_rows config_rows_outlier =
    CONFIG_ROWS(outlier_rows, "setting of outlier_detection");
const struct config_rows config_rows_limits =
    CONFIG_ROWS(limits_rows, "setting of circuit_breaker_thresholds");
const struct config_rows config_rows_least_request =
    CONFIG_ROWS(least_request_rows, "setting of least_request_lb_config");
const struct config_rows config_rows_ring_hash =
    CONFIG_ROWS(ring_hash_rows, "setting of ring_hash_lb_config");
const struct config_rows config_rows_maglev =
    CONFIG_ROWS(maglev_rows, "setting of maglev_lb_config");

/* False: v is no mapping, which is reported. */
static bool read_rows(struct config_reader *r, const struct config_rows *rows,
                      const struct config_value *v, void *base)
{
    bool given[GIVEN_MAX] = { false };

    CHECK(rows->n <= GIVEN_MAX);
    config_read_object(r, rows, v, base, given, NULL);
    return json_is_object(v->json);
}

/* ---- the policies' own settings -------------------------------------------------------------- */

void config_read_least_request(struct config_reader *r, const struct config_value *v, void *base)
{
    (void)read_rows(r, &config_rows_least_request, v, &((struct config_route *)base)->cluster);
}

void config_read_ring_hash(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_cluster *c = &((struct config_route *)base)->cluster;

    if (read_rows(r, &config_rows_ring_hash, v, c) && c->minimum_ring_size > c->maximum_ring_size) {
        config_error(r, v->place,
                     "ring_hash_lb_config: minimum_ring_size is above "
                     "maximum_ring_size");
    }
}

static bool is_prime(uint32_t n)
{
    for (uint32_t d = 2; d <= n / d; d++) {
        if (n % d == 0) {
            return false;
        }
    }
    return n > 1;
}

void config_read_maglev(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_cluster *c = &((struct config_route *)base)->cluster;

    if (read_rows(r, &config_rows_maglev, v, c) && !is_prime(c->table_size)) {
        config_error(r, v->place,
                     "maglev_lb_config: table_size %u is no prime number, such as 65537",
                     c->table_size);
    }
}

/* ---- health checks --------------------------------------------------------------------------- */

static void read_statuses(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_health_check *check = base;
    size_t n = json_array_size(v->json);

    if (n == 0 || n > STATUSES_MAX) {
        config_error(r, v->place, "expected_statuses: expected a list of {start: 200, end: 300}");
        return;
    }
    check->statuses = arena_zalloc(r->arena, n * sizeof(*check->statuses));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);
        json_int_t start = json_integer_value(json_object_get(item.json, "start"));
        json_int_t end = json_integer_value(json_object_get(item.json, "end"));

        if (json_object_size(item.json) != 2 || start < 100 || end <= start || end > 600) {
            config_error(r, item.place,
                         "expected_statuses: expected start and end, 100 <= start < end <= 600; "
                         "end itself is not expected: {start: 200, end: 201} is 200 alone");
            return;
        }
        check->statuses[i] = (struct config_statuses){ (uint16_t)start, (uint16_t)(end - 1) };
    }
    check->n_statuses = n;
}

static bool from_text(struct config_reader *r, struct sv text, bool is_hex, struct sv *out)
{
    char bytes[PAYLOAD_MAX];
    size_t n = 0;
    enum err err = is_hex ? hex_decode(text, bytes, sizeof(bytes), &n)
                          : b64_decode(text, bytes, sizeof(bytes), &n);

    if (err != ERR_OK || n == 0) {
        return false;
    }
    *out = config_keep(r, sv_of(bytes, n));
    return true;
}

static bool read_payload(struct config_reader *r, const struct config_value *v, struct sv *out)
{
    json_t *text = json_object_get(v->json, "text");
    json_t *binary = json_object_get(v->json, "binary");
    struct sv hex = sv_of(json_string_value(text), json_string_length(text));
    struct sv b64 = sv_of(json_string_value(binary), json_string_length(binary));

    if (json_object_size(v->json) == 1 && hex.n <= (size_t)PAYLOAD_MAX &&
        b64.n <= (size_t)PAYLOAD_MAX &&
        ((text != NULL && from_text(r, hex, true, out)) ||
         (binary != NULL && from_text(r, b64, false, out)))) {
        return true;
    }
    config_error(r, v->place,
                 "%s: expected {text: HEXADECIMAL} or {binary: BASE64}, at most %d characters; "
                 "\"PING\" is {text: \"50494e47\"}",
                 v->key, PAYLOAD_MAX);
    return false;
}

static void read_send(struct config_reader *r, const struct config_value *v, void *base)
{
    (void)read_payload(r, v, &((struct config_health_check *)base)->send);
}

static void read_receive(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_health_check *check = base;
    size_t n = json_array_size(v->json);

    if (n == 0 || n > STATUSES_MAX) {
        config_error(r, v->place, "receive: expected a list of texts");
        return;
    }
    check->receive.v = arena_zalloc(r->arena, n * sizeof(struct sv));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);

        if (!read_payload(r, &item, &check->receive.v[i])) {
            return;
        }
    }
    check->receive.n = n;
}

static void read_http_check(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_health_check *check = base;

    check->kind = CONFIG_CHECK_HTTP;
    if (read_rows(r, &config_rows_http_check, v, check) && check->path.n != 0 &&
        !sv_starts(check->path, SV("/"))) {
        config_error(r, v->place, "http_health_check: expected a path that begins with /");
    }
}

static void read_tcp_check(struct config_reader *r, const struct config_value *v, void *base)
{
    ((struct config_health_check *)base)->kind = CONFIG_CHECK_TCP;
    (void)read_rows(r, &config_rows_tcp_check, v, base);
}

static void read_grpc_check(struct config_reader *r, const struct config_value *v, void *base)
{
    ((struct config_health_check *)base)->kind = CONFIG_CHECK_GRPC;
    (void)read_rows(r, &config_rows_grpc_check, v, base);
}

static void read_check(struct config_reader *r, const struct config_value *v,
                       struct config_health_check *check)
{
    size_t kinds = (json_object_get(v->json, "http_health_check") != NULL ? 1U : 0U) +
                   (json_object_get(v->json, "tcp_health_check") != NULL ? 1U : 0U) +
                   (json_object_get(v->json, "grpc_health_check") != NULL ? 1U : 0U);

    config_read_defaults(r, &config_rows_health_check, check);
    if (read_rows(r, &config_rows_health_check, v, check) && kinds != 1) {
        config_error(r, v->place,
                     "health_checks: each has exactly one of \"http_health_check\", "
                     "\"tcp_health_check\" and \"grpc_health_check\"");
    }
}

void config_read_health_checks(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_cluster *c = &((struct config_route *)base)->cluster;
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json) || n > CHECKS_MAX) {
        config_error(r, v->place, "health_checks: expected a list of at most %d", CHECKS_MAX);
        return;
    }
    c->checks = arena_zalloc(r->arena, (n + 1) * sizeof(*c->checks));
    c->n_checks = n;
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);

        read_check(r, &item, &c->checks[i]);
    }
}

/* ---- outliers, bounds ------------------------------------------------------------------------ */

void config_read_outlier(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_outlier *outlier = &((struct config_route *)base)->cluster.outlier;

    config_read_defaults(r, &config_rows_outlier, outlier);
    outlier->on = read_rows(r, &config_rows_outlier, v, outlier);
}

void config_read_limits(struct config_reader *r, const struct config_value *v, void *base)
{
    (void)read_rows(r, &config_rows_limits, v, &((struct config_route *)base)->cluster.limits);
}

void config_read_global_limits(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_limits *limits = &((struct config *)base)->limits;

    config_read_defaults(r, &config_rows_limits, limits);
    (void)read_rows(r, &config_rows_limits, v, limits);
}

void config_finish_limits(struct config_reader *r, struct config_route *route)
{
    for (size_t i = 0; i < config_rows_limits.n; i++) {
        const struct config_row *row = &limits_rows[i];
        uint32_t *slot = NULL;
        uint32_t global = 0;

        if (row->type != CFG_COUNT) {
            continue;
        }
        slot = (uint32_t *)(void *)((char *)&route->cluster.limits + row->offset);
        global = *(uint32_t *)(void *)((char *)&r->c->limits + row->offset);
        if (*slot == not_given) {
            *slot = global != not_given ? global : THRESHOLD_DEFAULT;
        }
    }
}

void config_cluster_defaults(struct config_reader *r, struct config_cluster *c)
{
    config_read_defaults(r, &config_rows_least_request, c);
    config_read_defaults(r, &config_rows_ring_hash, c);
    config_read_defaults(r, &config_rows_maglev, c);
    config_read_defaults(r, &config_rows_limits, &c->limits);
}

/* ---- name servers ---------------------------------------------------------------------------- */

/* The one spelling that goes on to c-ares: address:port or [address]:port. */
static bool read_resolver(struct config_reader *r, const struct config_value *v, struct sv *out)
{
    struct config_target t = { 0 };
    struct sv text = { 0 };
    unsigned char address[16];
    char spelled[INET6_ADDRSTRLEN * 2];
    bool v6 = false;

    if (!config_want_text(r, v, &text)) {
        return false;
    }
    text = sv_istarts(text, SV("udp://")) ? sv_from_at(text, 6) : text;
    text = sv_head(text, MIN(text.n, (size_t)INET6_ADDRSTRLEN + 8)); /* longer is no address */
    v6 = sv_find(text, ':') != sv_rfind(text, ':');
    if (v6 ? sv_find(text, ']') == SIZE_MAX : sv_find(text, ':') == SIZE_MAX) {
        (void)snprintf(spelled, sizeof(spelled), v6 ? "[%.*s]:53" : "%.*s:53", SV_ARG(text));
        text = config_keep(r, sv_from(spelled));
    }
    if (!config_read_target(r, v, text, &t)) {
        return false;
    }
    if (t.is_unix || (inet_pton(AF_INET6, t.host.p, address) != 1 &&
                      inet_pton(AF_INET, t.host.p, address) != 1)) {
        config_error(r, v->place, "%s: expected the address of a name server, such as 10.0.0.2:53",
                     v->key);
        return false;
    }
    *out = t.text;
    return true;
}

void config_read_resolvers(struct config_reader *r, const struct config_value *v, void *base)
{
    struct config_strings *list = &((struct config *)base)->dns.resolvers;
    bool single = json_is_string(v->json);
    size_t n = single ? 1 : json_array_size(v->json);

    if (n == 0 || n > CHECKS_MAX) {
        config_error(r, v->place, "%s: expected a list of 1 to %d addresses", v->key, CHECKS_MAX);
        return;
    }
    list->v = arena_zalloc(r->arena, n * sizeof(struct sv));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = single ? *v : config_item(v, i);

        if (read_resolver(r, &item, &list->v[list->n])) {
            list->n++;
        }
    }
}
