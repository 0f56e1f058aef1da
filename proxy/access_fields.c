/* The access line with access_log_fields: which of its fields it has is the configuration's choice. */
#include "common/http/query.h"
#include "common/log.h"
#include "proxy/access.h"
#include "proxy/access_int.h"
#include "proxy/client_cert.h"

enum { QUERY_MAX = 65536 };

static void add_duration(struct buf *line, struct sv key, int64_t us)
{
    buf_add_sv(line, key);
    buf_printf(line, "%lld.%03d", (long long)(us / 1000), (int)(us % 1000));
}

static void add_query(struct buf *line, const struct proxy_exchange *x)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, QUERY_MAX);
    if (x->service != PROXY_FOR_PAGES) { /* our own links hold codes */
        http_query_tame(x->req.query, &text);
    }
    log_add_sv(line, LOG_KEY("query"), buf_sv(&text));
}

static void add_certificate(struct buf *line, struct proxy_exchange *x)
{
    struct proxy_client_cert_texts texts = { 0 };

    if (x->conn->client_cert != NULL) {
        proxy_client_cert_texts(x->conn->client_cert, x->route == NULL ? NULL : x->route->trust,
                                x->conn->peer.text, &x->arena, &texts);
    }
    log_add_sv(line, LOG_KEY("client-certificate"), texts.fingerprint);
}

static void add_texts(struct buf *line, const struct proxy_exchange *x, uint64_t set)
{
    const struct {
        enum config_log_field field;
        struct sv key;
        struct sv value;
    } texts[] = {
        { CONFIG_LOG_METHOD, LOG_KEY("method"), x->req.method_text },
        { CONFIG_LOG_AUTHORITY, LOG_KEY("authority"), x->req.authority },
        { CONFIG_LOG_PATH, LOG_KEY("path"), x->req.path },
        { CONFIG_LOG_USER_AGENT, LOG_KEY("user-agent"),
          http_head_value(&x->head, HTTP_H_USER_AGENT) },
        { CONFIG_LOG_USER, LOG_KEY("user"), x->user },
        { CONFIG_LOG_EMAIL, LOG_KEY("email"), x->email },
        { CONFIG_LOG_FORWARDED_FOR, LOG_KEY("forwarded-for"),
          http_head_value(&x->head, HTTP_H_X_FORWARDED_FOR) },
        { CONFIG_LOG_ROUTE_ID, LOG_KEY("route-id"),
          x->route != NULL && x->route->config != NULL ? x->route->config->id_text : SV("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (set & CONFIG_LOG_BIT(texts[i].field)) {
            log_add_sv(line, texts[i].key, texts[i].value);
        }
    }
}

/* Without its query, which may hold what the page's address held. */
static void add_referer(struct buf *line, const struct proxy_exchange *x)
{
    struct sv referer = http_head_value(&x->head, HTTP_H_REFERER);
    size_t n = 0;

    while (n < referer.n && referer.p[n] != '?' && referer.p[n] != '#') {
        n++;
    }
    log_add_sv(line, LOG_KEY("referer"), sv_head(referer, n));
}

static void add_request(struct buf *line, struct proxy_exchange *x,
                        const struct config_log_fields *fields)
{
    add_texts(line, x, fields->set);
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_REFERER)) {
        add_referer(line, x);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_QUERY)) {
        add_query(line, x);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_CLIENT_CERTIFICATE)) {
        add_certificate(line, x);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_DECISION)) {
        proxy_access_add_decision(line, x);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_REASONS)) {
        proxy_access_add_reasons(line, x);
    }
    for (size_t i = 0; i < fields->headers.n; i++) {
        const struct http_field *f = http_head_find(&x->head, fields->headers.v[i]);

        if (f != NULL) {
            buf_add_str(line, ",\"headers.");
            buf_add_sv(line, fields->headers.v[i]); /* a token: nothing to be escaped */
            log_add_sv(line, SV("\":"), f->value);
        }
    }
}

void proxy_access_add_fields(struct buf *line, struct proxy_exchange *x, int64_t now_us,
                             const struct config_log_fields *fields)
{
    uint64_t set = fields->set;

    if (set & CONFIG_LOG_BIT(CONFIG_LOG_REQUEST_ID)) {
        log_add_str(line, LOG_KEY("request-id"), x->request_id);
    }
    if (x->service != PROXY_FOR_NONE) { /* else there is no request that could be read */
        add_request(line, x, fields);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_IP)) {
        proxy_access_add_ip(line, x);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_RESPONSE_CODE)) {
        log_add_u64(line, LOG_KEY("response-code"), x->status);
    }
    if ((set & CONFIG_LOG_BIT(CONFIG_LOG_RESPONSE_CODE_DETAILS)) && x->fault != NULL) {
        log_add_str(line, LOG_KEY("response-code-details"), x->fault);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_SIZE)) {
        log_add_u64(line, LOG_KEY("size"), x->down_pipe.bytes);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_RECEIVED)) {
        log_add_u64(line, LOG_KEY("received"), x->up_pipe.bytes);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_DURATION)) {
        add_duration(line, LOG_KEY("duration"), now_us - x->began_us);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_UPSTREAM_DURATION)) {
        add_duration(line, LOG_KEY("upstream-duration"), x->upstream_us);
    }
}
