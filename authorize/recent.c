#include "authorize/recent.h"

#include <string.h>

#include "common/authz_block.h"
#include "common/mem.h"

struct ring {
    struct authz_past *items;
    size_t next;
    uint8_t *bytes;
    uint64_t end; /* how many were ever written, the unused at its turns counted */
};

struct authz_recent {
    struct ring allowed; /* logins among them: strangers make as many as they like */
    struct ring refused;
};

struct authz_recent *authz_recent_new(void)
{
    struct authz_recent *r = MEM_NEW(struct authz_recent);

    r->allowed.items = mem_array(AUTHZ_RECENT_MAX, sizeof(*r->allowed.items));
    r->refused.items = mem_array(AUTHZ_RECENT_MAX, sizeof(*r->refused.items));
    r->allowed.bytes = mem_array(AUTHZ_RECENT_BYTES, 1);
    r->refused.bytes = mem_array(AUTHZ_RECENT_BYTES, 1);
    return r;
}

void authz_recent_free(struct authz_recent **recent)
{
    struct authz_recent *r = TAKE(*recent);

    if (r != NULL) {
        mem_free(&r->allowed.items);
        mem_free(&r->refused.items);
        mem_free(&r->allowed.bytes);
        mem_free(&r->refused.bytes);
        mem_free(&r);
    }
}

/* Copies what there is room for. */
static uint8_t put(struct authz_past *past, char *room, size_t max, const void *p, size_t n)
{
    if (n > max) {
        past->flags |= AUTHZ_PAST_CUT;
        n = max;
    }
    if (n != 0) {
        memcpy(room, p, n);
    }
    return (uint8_t)n;
}

static uint8_t flags_of(const Postern__CheckRequest *req, const struct authz_outcome *o)
{
    const Postern__ClientCertificate *cert = req->client_certificate;
    unsigned flags =
        (req->internal ? AUTHZ_PAST_INTERNAL : 0U) | (req->recheck ? AUTHZ_PAST_RECHECK : 0U) |
        (req->cors_preflight ? AUTHZ_PAST_CORS : 0U) | (o->verdict.allow ? AUTHZ_PAST_ALLOW : 0U) |
        (o->verdict.deny ? AUTHZ_PAST_DENY : 0U);

    if (cert != NULL) {
        flags |= AUTHZ_PAST_CERT | (cert->trusted ? AUTHZ_PAST_CERT_TRUSTED : 0U);
    }
    return (uint8_t)flags;
}

/* --- what policies asked ------------------------------------------------------------------------- */

struct kept_headers {
    Postern__RequestHeader v[AUTHZ_HEADERS_MAX];
    Postern__RequestHeader *p[AUTHZ_HEADERS_MAX];
};

static void keep_headers(const Postern__CheckRequest *req, struct kept_headers *kept)
{
    for (size_t i = 0; i < req->n_headers; i++) {
        kept->v[i] = *req->headers[i];
        kept->p[i] = &kept->v[i];
        if (kept->v[i].value.len > AUTHZ_RECENT_VALUE_MAX ||
            config_header_is_secret(sv_of(kept->v[i].name.data, kept->v[i].name.len))) {
            kept->v[i].state = POSTERN__REQUEST_HEADER__STATE__WITHHELD;
            kept->v[i].value = (ProtobufCBinaryData){ .len = 0 };
        }
    }
}

static void put_asked(struct ring *ring, struct authz_past *past, const Postern__CheckRequest *req)
{
    Postern__CheckRequest asked = POSTERN__CHECK_REQUEST__INIT;
    struct kept_headers kept;

    past->n_asked = 0;
    if ((req->n_headers == 0 && req->client_certificate == NULL) ||
        req->n_headers > AUTHZ_HEADERS_MAX) {
        return;
    }
    keep_headers(req, &kept);
    asked.headers = kept.p;
    asked.n_headers = req->n_headers;
    asked.client_certificate = req->client_certificate;
    size_t n = postern__check_request__get_packed_size(&asked);
    size_t left = AUTHZ_RECENT_BYTES - ring->end % AUTHZ_RECENT_BYTES;

    if (n > AUTHZ_RECENT_ASKED_MAX) {
        return;
    }
    ring->end += n > left ? left : 0;
    past->asked_at = ring->end;
    past->n_asked = (uint16_t)postern__check_request__pack(
        &asked, ring->bytes + ring->end % AUTHZ_RECENT_BYTES);
    ring->end += n;
}

static bool is_of(const struct ring *ring, const struct authz_past *past)
{
    return past >= ring->items && past < ring->items + AUTHZ_RECENT_MAX;
}

struct sv authz_recent_asked(const struct authz_recent *recent, const struct authz_past *past)
{
    const struct ring *ring = is_of(&recent->refused, past) ? &recent->refused : &recent->allowed;

    if (past->n_asked == 0 || ring->end - past->asked_at > AUTHZ_RECENT_BYTES) {
        return SV("");
    }
    return sv_of(ring->bytes + past->asked_at % AUTHZ_RECENT_BYTES, past->n_asked);
}

/* --- decisions ------------------------------------------------------------------------------------ */

void authz_recent_add(struct authz_recent *recent, const struct authz_facts *facts,
                      const Postern__CheckRequest *req, const struct authz_outcome *o)
{
    bool refused = o->decision == AUTHZ_DENY || o->decision == AUTHZ_UNAVAILABLE;
    struct ring *ring = refused ? &recent->refused : &recent->allowed;
    struct authz_past *past = &ring->items[ring->next++ % AUTHZ_RECENT_MAX];

    past->wall_ms = facts->wall_ms;
    past->route = req->route;
    past->edition = o->route != NULL ? o->route->edition : 0;
    past->facts = o->effective != NULL ? authz_session_facts(o->session, o->effective) : 0;
    past->data_epoch = o->data_epoch;
    past->reasons = o->reasons;
    past->allow_reasons = o->verdict.allow_reasons;
    past->deny_reasons = o->verdict.deny_reasons;
    memcpy(past->checksum, authz_rules_config(facts->rules)->checksum, sizeof(past->checksum));
    past->status = o->status;
    past->decision = (uint8_t)o->decision;
    past->flags = flags_of(req, o);
    past->n_request_id = put(past, past->request_id, sizeof(past->request_id), req->request_id.data,
                             req->request_id.len);
    past->n_session =
        put(past, past->session, sizeof(past->session), req->session, strlen(req->session));
    past->n_method =
        put(past, past->method, sizeof(past->method), req->method.data, req->method.len);
    past->n_host = put(past, past->host, sizeof(past->host), req->host.data, req->host.len);
    past->n_path = put(past, past->path, sizeof(past->path), req->path.data, req->path.len);
    past->n_ip =
        put(past, (char *)past->ip, sizeof(past->ip), req->client_ip.data, req->client_ip.len);
    put_asked(ring, past, req);
}

static const struct authz_past *find(const struct ring *ring, struct sv id)
{
    for (size_t i = 1; i <= MIN(ring->next, (size_t)AUTHZ_RECENT_MAX); i++) {
        const struct authz_past *past = &ring->items[(ring->next - i) % AUTHZ_RECENT_MAX];

        if (sv_eq(id, sv_of(past->request_id, past->n_request_id))) {
            return past;
        }
    }
    return NULL;
}

const struct authz_past *authz_recent_find(const struct authz_recent *recent, struct sv request_id)
{
    struct sv id = sv_head(request_id, MIN(request_id.n, (size_t)AUTHZ_RECENT_ID_MAX));
    const struct authz_past *refused = find(&recent->refused, id);
    const struct authz_past *allowed = find(&recent->allowed, id);

    if (id.n == 0 || refused == NULL || allowed == NULL) {
        return id.n == 0 ? NULL : refused == NULL ? allowed : refused;
    }
    return allowed->wall_ms > refused->wall_ms ? allowed : refused;
}
