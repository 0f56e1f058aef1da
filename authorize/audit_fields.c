/* The line with authorize_log_fields: which of its fields it has is the configuration's choice, but for
 * the verdict. */
#include <string.h>

#include "authorize/audit.h"
#include "authorize/audit_int.h"
#include "common/http/query.h"
#include "common/log.h"

static struct sv bytes(const ProtobufCBinaryData *b)
{
    return sv_of(b->data, b->len);
}

static void add_query(struct buf *out, const Postern__CheckRequest *req)
{
    CLEANUP(buf_deinit) struct buf text = { 0 };

    buf_init(&text, AUTHZ_PATH_MAX);
    if (!req->internal) { /* our own links hold codes */
        http_query_tame(bytes(&req->query), &text);
    }
    log_add_sv(out, LOG_KEY("query"), buf_sv(&text));
}

static void add_header(struct buf *out, const Postern__CheckRequest *req, struct sv name)
{
    for (size_t i = 0; i < req->n_headers; i++) {
        const Postern__RequestHeader *h = req->headers[i];

        if (h->state == POSTERN__REQUEST_HEADER__STATE__TOLD && sv_ieq(bytes(&h->name), name)) {
            buf_add_str(out, ",\"headers.");
            buf_add_sv(out, name); /* a token: nothing to be escaped */
            log_add_sv(out, SV("\":"), bytes(&h->value));
            return;
        }
    }
}

static void add_who(struct buf *out, const Postern__CheckRequest *req,
                    const struct authz_outcome *o, uint64_t set)
{
    const struct authz_person *person = o->effective == NULL ? NULL : o->effective->person;
    struct sv id = person == NULL ? SV("") : authz_person_id(person);
    struct sv email = person == NULL ? SV("") : authz_person_email(person);

    if (set & CONFIG_LOG_BIT(CONFIG_LOG_SESSION_ID)) {
        log_add_str(out, LOG_KEY("session-id"), req->session);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_USER)) {
        log_add_sv(out, LOG_KEY("user"), id);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_EMAIL)) {
        log_add_sv(out, LOG_KEY("email"), email);
    }
    if (o->effective == NULL || o->effective == o->session) {
        return;
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_IMPERSONATE_SESSION_ID)) {
        log_add_sv(out, LOG_KEY("impersonate-session-id"), authz_session_id(o->effective));
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_IMPERSONATE_USER_ID)) {
        log_add_sv(out, LOG_KEY("impersonate-user-id"), id);
    }
    if (set & CONFIG_LOG_BIT(CONFIG_LOG_IMPERSONATE_EMAIL)) {
        log_add_sv(out, LOG_KEY("impersonate-email"), email);
    }
}

void authz_audit_add_fields(struct buf *out, const Postern__CheckRequest *req,
                            const struct authz_outcome *o, const struct config_log_fields *fields)
{
    const struct {
        enum config_log_field field;
        struct sv key;
        struct sv value;
    } texts[] = {
        { CONFIG_LOG_REQUEST_ID, LOG_KEY("request-id"), bytes(&req->request_id) },
        { CONFIG_LOG_METHOD, LOG_KEY("method"), bytes(&req->method) },
        { CONFIG_LOG_HOST, LOG_KEY("host"), bytes(&req->host) },
        { CONFIG_LOG_PATH, LOG_KEY("path"), bytes(&req->path) },
        { CONFIG_LOG_ROUTE_ID, LOG_KEY("route-id"), o->route != NULL ? o->route->id_text : SV("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (fields->set & CONFIG_LOG_BIT(texts[i].field)) {
            log_add_sv(out, texts[i].key, texts[i].value);
        }
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_QUERY)) {
        add_query(out, req);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_IP)) {
        authz_audit_add_ip(out, &req->client_ip);
    }
    if (fields->set & CONFIG_LOG_BIT(CONFIG_LOG_CLIENT_CERTIFICATE)) {
        authz_audit_add_certificate(out, req->client_certificate);
    }
    add_who(out, req, o, fields->set);
    for (size_t i = 0; i < fields->headers.n; i++) {
        add_header(out, req, fields->headers.v[i]);
    }
}
