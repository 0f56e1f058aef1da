/* access_log_fields and authorize_log_fields: Pomerium's names. */
#include "common/config/reader.h"

enum { ACCESS = 1, AUTHORIZE = 2 };

static const struct {
    struct sv name;
    unsigned logs;
    enum config_log_field field; /* NONE: it says nothing here, and is left out */
} fields[] = {
    { { "request-id", 10 }, ACCESS | AUTHORIZE, CONFIG_LOG_REQUEST_ID },
    { { "method", 6 }, ACCESS | AUTHORIZE, CONFIG_LOG_METHOD },
    { { "path", 4 }, ACCESS | AUTHORIZE, CONFIG_LOG_PATH },
    { { "ip", 2 }, ACCESS | AUTHORIZE, CONFIG_LOG_IP },
    { { "query", 5 }, ACCESS | AUTHORIZE, CONFIG_LOG_QUERY },
    { { "user", 4 }, ACCESS | AUTHORIZE, CONFIG_LOG_USER },
    { { "email", 5 }, ACCESS | AUTHORIZE, CONFIG_LOG_EMAIL },
    { { "route-id", 8 }, ACCESS | AUTHORIZE, CONFIG_LOG_ROUTE_ID },
    { { "client-certificate", 18 }, ACCESS | AUTHORIZE, CONFIG_LOG_CLIENT_CERTIFICATE },
    { { "host", 4 }, AUTHORIZE, CONFIG_LOG_HOST },
    { { "session-id", 10 }, AUTHORIZE, CONFIG_LOG_SESSION_ID },
    { { "impersonate-session-id", 22 }, AUTHORIZE, CONFIG_LOG_IMPERSONATE_SESSION_ID },
    { { "impersonate-user-id", 19 }, AUTHORIZE, CONFIG_LOG_IMPERSONATE_USER_ID },
    { { "impersonate-email", 17 }, AUTHORIZE, CONFIG_LOG_IMPERSONATE_EMAIL },
    { { "authority", 9 }, ACCESS, CONFIG_LOG_AUTHORITY },
    { { "user-agent", 10 }, ACCESS, CONFIG_LOG_USER_AGENT },
    { { "referer", 7 }, ACCESS, CONFIG_LOG_REFERER },
    { { "forwarded-for", 13 }, ACCESS, CONFIG_LOG_FORWARDED_FOR },
    { { "duration", 8 }, ACCESS, CONFIG_LOG_DURATION },
    { { "size", 4 }, ACCESS, CONFIG_LOG_SIZE },
    { { "response-code", 13 }, ACCESS, CONFIG_LOG_RESPONSE_CODE },
    { { "response-code-details", 21 }, ACCESS, CONFIG_LOG_RESPONSE_CODE_DETAILS },
    { { "decision", 8 }, ACCESS, CONFIG_LOG_DECISION },
    { { "reasons", 7 }, ACCESS, CONFIG_LOG_REASONS },
    { { "received", 8 }, ACCESS, CONFIG_LOG_RECEIVED },
    { { "upstream-duration", 17 }, ACCESS, CONFIG_LOG_UPSTREAM_DURATION },
    { { "upstream-cluster", 16 }, ACCESS, CONFIG_LOG_NONE },
    { { "cluster-stat-name", 17 }, ACCESS | AUTHORIZE, CONFIG_LOG_NONE },
    { { "check-request-id", 16 }, AUTHORIZE, CONFIG_LOG_NONE },
    { { "removed-groups-count", 20 }, AUTHORIZE, CONFIG_LOG_NONE },
    { { "service-account-id", 18 }, AUTHORIZE, CONFIG_LOG_NONE },
    { { "envoy-route-checksum", 20 }, AUTHORIZE, CONFIG_LOG_NONE },
    { { "envoy-route-id", 14 }, AUTHORIZE, CONFIG_LOG_NONE },
    { { "route-checksum", 14 }, AUTHORIZE, CONFIG_LOG_NONE },
};

/* Names of Pomerium that are refused, and why. */
static const struct {
    struct sv name;
    const char *why;
} refused[] = {
    { { "headers", 7 },
      "all headers would hold cookies and tokens; name those you want: headers.User-Agent" },
    { { "id-token", 8 }, "a token is a secret; user, email and session-id say who it was" },
    { { "id-token-claims", 15 }, "claims are not written yet; user and email are" },
    { { "body", 4 }, "bodies are never written" },
    { { "mcp-method", 10 }, "MCP is not here yet" },
    { { "mcp-tool", 8 }, "MCP is not here yet" },
    { { "mcp-tool-parameters", 19 }, "MCP is not here yet" },
};

bool config_header_is_secret(struct sv header)
{
    static const struct sv parts[] = {
        { "cookie", 6 },  { "authorization", 13 }, { "token", 5 },     { "secret", 6 },
        { "passw", 5 },   { "api-key", 7 },        { "apikey", 6 },    { "assertion", 9 },
        { "session", 7 }, { "credential", 10 },    { "signature", 9 },
    };
    char lower[CONFIG_LOG_HEADER_MAX];
    size_t n = MIN(header.n, sizeof(lower));

    for (size_t i = 0; i < n; i++) {
        char c = header.p[i];

        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        lower[i] = (char)(lower[i] == '_' ? '-' : lower[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (sv_search(sv_of(lower, n), parts[i]) != SIZE_MAX) {
            return true;
        }
    }
    return false;
}

static void read_header(struct config_reader *r, const struct config_value *v, struct sv name,
                        struct config_log_fields *out)
{
    if (name.n == 0 || name.n > CONFIG_LOG_HEADER_MAX || !config_is_header_name(name)) {
        config_error(r, v->place, "%s: headers. is followed by the name of one header", v->key);
    } else if (config_header_is_secret(name)) {
        config_error(r, v->place,
                     "%s: the header %.*s holds what lets people in, which no log may have; leave "
                     "it out",
                     v->key, SV_ARG(name));
    } else if (out->headers.n == CONFIG_LOG_HEADERS_MAX) {
        config_error(r, v->place, "%s: more than %d headers", v->key, CONFIG_LOG_HEADERS_MAX);
    } else {
        out->headers.v[out->headers.n++] = config_keep(r, name);
    }
}

static void read_field(struct config_reader *r, const struct config_value *v, struct sv name,
                       unsigned log, struct config_log_fields *out)
{
    if (sv_starts(name, SV("headers."))) {
        read_header(r, v, sv_from_at(name, 8), out);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if ((fields[i].logs & log) != 0 && sv_eq(name, fields[i].name)) {
            out->set |= CONFIG_LOG_BIT(fields[i].field);
            return;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        if (sv_eq(name, refused[i].name)) {
            config_error(r, v->place, "%s: %.*s: %s", v->key, SV_ARG(name), refused[i].why);
            return;
        }
    }
    config_error(r, v->place,
                 "%s: there is no field \"%.64s\"; docs/audit.md and docs/proxy.md name them all",
                 v->key, config_keep(r, name).p);
}

static void read_fields(struct config_reader *r, const struct config_value *v, unsigned log,
                        struct config_log_fields *out)
{
    size_t n = json_array_size(v->json);

    if (!json_is_array(v->json) || n > CONFIG_LIST_MAX) {
        config_error(r, v->place, "%s: expected a list of fields", v->key);
        return;
    }
    *out = (struct config_log_fields){ .given = true };
    out->headers.v = arena_zalloc(r->arena, CONFIG_LOG_HEADERS_MAX * sizeof(struct sv));
    for (size_t i = 0; i < n; i++) {
        struct config_value item = config_item(v, i);
        struct sv name = { 0 };

        if (config_want_text(r, &item, &name)) {
            read_field(r, &item, name, log, out);
        }
    }
}

void config_read_access_fields(struct config_reader *r, const struct config_value *v, void *base)
{
    read_fields(r, v, ACCESS, &((struct config *)base)->access_log_fields);
}

void config_read_authorize_fields(struct config_reader *r, const struct config_value *v, void *base)
{
    read_fields(r, v, AUTHORIZE, &((struct config *)base)->authorize_log_fields);
}
