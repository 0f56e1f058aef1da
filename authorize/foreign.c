#include "authorize/foreign.h"

#include <stdio.h>
#include <string.h>

#include "common/cidr.h"
#include "common/clock.h"
#include "common/crypto/handle.h"
#include "common/crypto/token.h"
#include "common/http/credential.h"
#include "common/http/reported.h"
#include "common/mem.h"
#include "common/route/settle.h"

enum { HANDLES_MAX = 4, REQUEST_ID_MAX = 128 };

static const char contradiction[] = "request-contradicts-itself";
static const char differ[] = "credentials-differ";

void authz_foreign_refuse(struct authz_foreign *f, unsigned status, const char *code)
{
    f->status = status;
    f->code = code;
}

static struct sv text_of(struct authz_foreign *f, const ProtobufCBinaryData *bytes)
{
    return arena_sv(&f->arena, sv_of(bytes->data, bytes->len));
}

static ProtobufCBinaryData bytes_of(struct sv s)
{
    return (ProtobufCBinaryData){ .len = s.n, .data = base_unconst(s.p) };
}

/* ---- fields ----------------------------------------------------------------------------------- */

/* What the asking proxy says of the request itself, and what means one connection. */
static bool is_about_the_hop(struct sv name)
{
    enum http_name id = http_name_id(name);

    return sv_starts(name, SV(":")) || id == HTTP_H_HOST || id == HTTP_H_CONTENT_LENGTH ||
           id == HTTP_H_EXPECT || (http_name_class(id) & HTTP_C_HOP) != 0;
}

/* A field that tells the request once more must tell the same. */
static bool contradicts(struct sv name, struct sv value, const struct http_reported *r)
{
    return (sv_eq(name, SV(":path")) && !sv_eq(value, r->target)) ||
           (sv_eq(name, SV(":method")) && !sv_eq(value, r->method)) ||
           ((sv_eq(name, SV(":authority")) || sv_ieq(name, SV("host"))) &&
            !sv_ieq(value, r->authority));
}

/* False: refused. */
static bool add_field(struct authz_foreign *f, struct sv name, struct sv value,
                      const struct http_reported *r)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    f->upgrades = f->upgrades || http_name_id(name) == HTTP_H_UPGRADE;
    if (contradicts(name, value, r)) {
        authz_foreign_refuse(f, 400, contradiction);
        return false;
    }
    if (is_about_the_hop(name)) {
        return true;
    }
    fault = http_head_add(&f->head, arena_sv(&f->arena, name), arena_sv(&f->arena, value));
    if (fault != HTTP_FAULT_NONE) {
        authz_foreign_refuse(f, http_fault_status(fault), http_fault_name(fault));
    }
    return fault == HTTP_FAULT_NONE;
}

static bool add_raw(struct authz_foreign *f, const Envoy__Service__Auth__V3__HeaderValue *h,
                    const struct http_reported *r)
{
    const ProtobufCBinaryData *value = h->raw_value.len != 0 ? &h->raw_value : &h->value;

    if (h->raw_value.len != 0 && h->value.len != 0) {
        authz_foreign_refuse(f, 400, contradiction);
        return false;
    }
    return add_field(f, sv_from(h->key), sv_of(value->data, value->len), r);
}

/* False: refused. */
static bool add_fields(struct authz_foreign *f,
                       const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *http,
                       const struct http_reported *r)
{
    const Envoy__Service__Auth__V3__HeaderMap *raw = http->header_map;
    bool ok = raw == NULL || http->n_headers == 0;

    if (!ok || http->query.len != 0 || http->fragment.len != 0) {
        authz_foreign_refuse(f, 400, contradiction);
        return false;
    }
    for (size_t i = 0; i < http->n_headers && ok; i++) {
        ok = add_field(f, sv_from(http->headers[i]->key),
                       sv_of(http->headers[i]->value.data, http->headers[i]->value.len), r);
    }
    for (size_t i = 0; raw != NULL && i < raw->n_headers && ok; i++) {
        ok = add_raw(f, raw->headers[i], r);
    }
    return ok;
}

static size_t bytes_in(const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *http)
{
    size_t n = http->path.len + http->host.len + http->method.len;

    for (size_t i = 0; i < http->n_headers; i++) {
        n += strlen(http->headers[i]->key) + http->headers[i]->value.len;
    }
    for (size_t i = 0; http->header_map != NULL && i < http->header_map->n_headers; i++) {
        const Envoy__Service__Auth__V3__HeaderValue *h = http->header_map->headers[i];

        n += strlen(h->key) + h->value.len + h->raw_value.len;
    }
    return n;
}

/* ---- the request ------------------------------------------------------------------------------ */

/* Fills head and req. False: refused. */
static bool read_request(struct authz_foreign *f,
                         const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *http)
{
    const struct http_reported r = { .method = text_of(f, &http->method),
                                     .authority = text_of(f, &http->host),
                                     .target = text_of(f, &http->path) };
    enum http_fault fault = HTTP_FAULT_NONE;

    http_head_init(&f->head, HTTP_REQUEST, &f->front->head, f->fields, AUTHZ_FOREIGN_FIELDS_MAX);
    f->head.http2 = true;
    if (!add_fields(f, http, &r)) {
        return false;
    }
    fault = http_reported_head(&f->head, &r);
    if (fault == HTTP_FAULT_NONE) {
        fault = http_reported_canon(&f->head, &f->front->canon, &f->arena, &f->req);
    }
    if (fault != HTTP_FAULT_NONE) {
        authz_foreign_refuse(f, http_fault_status(fault), http_fault_name(fault));
        return false;
    }
    return true;
}

/* NULL: refused. */
static const struct config_route *find_route(struct authz_foreign *f)
{
    const struct authz_front *front = f->front;
    const struct config_route *route = NULL;
    struct sv path = f->req.path;
    bool unclear = false;

    if (route_own_path(f->req.decoded)) {
        authz_foreign_refuse(f, 403, "own-path"); /* the proxy's: it is not to be asked about */
        return NULL;
    }
    route = route_table_find(front->table, f->req.host, f->req.port, f->req.decoded, &unclear);
    if (route == NULL) {
        authz_foreign_refuse(f, unclear ? 400 : 404,
                             unclear ? "path-parameter" : "route-not-found");
        return NULL;
    }
    if (route_settle_needed(&f->req) && (route_settle_path(front->table, route, &front->canon,
                                                           &f->arena, &f->req) != HTTP_FAULT_NONE ||
                                         !sv_eq(path, f->req.path))) {
        authz_foreign_refuse(f, 400, http_fault_name(HTTP_FAULT_PATH_SLASH));
        return NULL;
    }
    return route;
}

/* ---- the visitor ------------------------------------------------------------------------------ */

static bool open_cookie(struct authz_foreign *f, struct handle *handle_out)
{
    struct sv values[HANDLES_MAX];
    size_t n = http_cookie_find(&f->head, sv_from(f->front->cookies.session), values, HANDLES_MAX);

    for (size_t i = 0; i < MIN(n, (size_t)HANDLES_MAX); i++) {
        if (handle_open(f->front->handles, values[i], f->req.authority, handle_out) == ERR_OK) {
            return true;
        }
    }
    return false;
}

static enum err open_token(struct authz_foreign *f, struct sv text, struct handle *handle_out)
{
    struct token token = { .role = TOKEN_ROLE_NONE };
    enum err err = ERR_OK;

    if (!sv_starts(text, SV("postern_"))) {
        return handle_open(f->front->handles, text, f->req.authority, handle_out);
    }
    err = token_verify(f->front->config->keys, text, &token);
    if (err != ERR_OK || token.role != TOKEN_ROLE_SERVICE_ACCOUNT) {
        return err == ERR_OK ? ERR_CRYPTO : err;
    }
    *handle_out = (struct handle){ .issued_at_s = clock_wall_s() };
    (void)snprintf(handle_out->session, sizeof(handle_out->session), TOKEN_ACCOUNT "%s", token.id);
    return ERR_OK;
}

static void set_session(struct authz_foreign *f, const struct handle *handle)
{
    f->check.session = arena_str(&f->arena, sv_from(handle->session));
    f->check.record_version = handle->record_version;
    f->check.idp_id = arena_str(&f->arena, sv_from(handle->idp_id));
}

/* As the proxy does: a token that is shown must hold, and not say another than the cookie. */
static void take_token(struct authz_foreign *f, const struct handle *handle)
{
    if (f->check.session[0] != '\0' && strcmp(f->check.session, handle->session) != 0) {
        authz_foreign_refuse(f, 400, differ);
        return;
    }
    set_session(f, handle);
}

void authz_foreign_identified(struct authz_foreign *f, const struct token_answer *answer)
{
    if (answer->status == RPC_OK) {
        take_token(f, &answer->handle);
    } else if (answer->status == RPC_UNAUTHENTICATED) {
        authz_foreign_refuse(f, 401, answer->code);
    } else {
        authz_foreign_refuse(f, 503, "token-not-verified");
    }
}

static void identify(struct authz_foreign *f, const struct config_route *route)
{
    bool takes_others = route->bearer != CONFIG_BEARER_DEFAULT;
    const struct http_credential shown = http_credential_find(&f->head, takes_others, &f->arena);
    struct handle handle;
    enum err err = ERR_OK;

    if (open_cookie(f, &handle)) {
        set_session(f, &handle);
    }
    f->by_token = shown.shown;
    if (!shown.shown) {
        return;
    }
    if (shown.differs) {
        authz_foreign_refuse(f, 400, differ);
        return;
    }
    err = open_token(f, shown.token, &handle);
    if (err == ERR_OK) {
        take_token(f, &handle);
    } else if (takes_others && shown.token.n != 0 && !sv_starts(shown.token, SV("postern_"))) {
        f->token = arena_sv(&f->arena, shown.token);
    } else {
        authz_foreign_refuse(f, 401, err == ERR_EXPIRED ? "token-expired" : "token-invalid");
    }
}

/* ---- what must not go on ---------------------------------------------------------------------- */

static void add_removed(struct authz_foreign *f, struct sv name)
{
    f->remove[f->n_remove++] = arena_str(&f->arena, name);
}

/* What is left of a visitor's cookies without ours, of all fields together. */
static void strip_cookies(struct authz_foreign *f)
{
    CLEANUP(buf_deinit) struct buf all = { 0 };
    enum http_cookie_strip left = HTTP_COOKIE_EMPTY;

    buf_init(&all, AUTHZ_FOREIGN_BYTES_MAX);
    left = http_cookie_strip_all(&f->head, &f->front->cookies.names, &all);
    CHECK(all.err == ERR_OK); /* no longer than all fields */
    f->has_cookie = left != HTTP_COOKIE_SAME && http_head_get(&f->head, HTTP_H_COOKIE) != NULL;
    f->cookie = arena_sv(&f->arena, buf_sv(&all));
}

static void find_removed(struct authz_foreign *f, const struct config_route *route)
{
    bool bearer = route->bearer != CONFIG_BEARER_DEFAULT;

    strip_cookies(f);
    f->remove = arena_alloc(&f->arena, (f->head.n + 1) * sizeof(*f->remove));
    for (uint32_t i = 0; i < f->head.n; i++) {
        const struct http_field *field = &f->head.fields[i];

        if (http_name_set_has(f->front->ours, field->name) ||
            (field->id == HTTP_H_AUTHORIZATION &&
             http_credential_read(field->value, bearer, &f->arena, NULL))) {
            add_removed(f, field->name);
        }
    }
    if (f->has_cookie && f->cookie.n == 0) {
        add_removed(f, SV("cookie"));
    }
}

/* ---- the question ----------------------------------------------------------------------------- */

/* One that was given is kept: both sides log it. */
static void take_request_id(struct authz_foreign *f)
{
    struct sv shown = http_head_value(&f->head, HTTP_H_X_REQUEST_ID);

    if (shown.n != 0 && shown.n <= REQUEST_ID_MAX && sv_is_plain(shown) && sv_is_utf8(shown)) {
        f->check.request_id = bytes_of(shown);
    }
}

static void set_client(struct authz_foreign *f,
                       const Envoy__Service__Auth__V3__AttributeContext__Peer *source)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff }; /* IPv4 */
    const Envoy__Service__Auth__V3__Address *address = source == NULL ? NULL : source->address;
    uint8_t *ip = arena_alloc(&f->arena, 16);

    /* Not known is less than any rule about addresses wants. */
    if (address == NULL || address->socket_address == NULL ||
        cidr_ip_parse(sv_from(address->socket_address->address), ip) != ERR_OK) {
        return;
    }
    f->check.client_ip = (ProtobufCBinaryData){ .len = 16, .data = ip };
    if (memcmp(ip, mapped, sizeof(mapped)) == 0) {
        f->check.client_ip = (ProtobufCBinaryData){ .len = 4, .data = ip + sizeof(mapped) };
    }
}

/* For the audit line, whatever becomes of it. */
static void set_as_told(struct authz_foreign *f,
                        const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *http)
{
    struct sv path = text_of(f, &http->path);

    f->check.method = bytes_of(text_of(f, &http->method));
    f->check.host = bytes_of(text_of(f, &http->host));
    f->check.path = bytes_of(sv_cut(&path, '?'));
}

static void read_all(struct authz_foreign *f,
                     const Envoy__Service__Auth__V3__AttributeContext__HttpRequest *http)
{
    const struct config_route *route = NULL;

    if (bytes_in(http) > AUTHZ_FOREIGN_BYTES_MAX) {
        authz_foreign_refuse(f, 431, "head-too-large");
        return;
    }
    set_as_told(f, http);
    if (!read_request(f, http)) {
        return;
    }
    take_request_id(f);
    f->check.method = bytes_of(f->req.method_text);
    f->check.host = bytes_of(f->req.host);
    f->check.path = bytes_of(f->req.decoded);
    f->check.query = bytes_of(f->req.query);
    f->check.cors_preflight =
        f->req.method == HTTP_OPTIONS && http_head_value(&f->head, HTTP_H_ORIGIN).n != 0 &&
        http_head_value(&f->head, HTTP_H_ACCESS_CONTROL_REQUEST_METHOD).n != 0;
    route = find_route(f);
    if (route == NULL) {
        return;
    }
    f->check.route = route->id;
    authz_headers_add(&f->head, route, &f->headers, &f->check);
    find_removed(f, route);
    identify(f, route);
}

enum err authz_foreign_new(const struct authz_front *front,
                           const Envoy__Service__Auth__V3__CheckRequest *request,
                           struct authz_foreign **foreign_out)
{
    const Envoy__Service__Auth__V3__AttributeContext *a = request->attributes;
    struct authz_foreign *f = NULL;

    if (a == NULL || a->request == NULL || a->request->http == NULL) {
        return ERR_INVALID;
    }
    f = MEM_NEW(struct authz_foreign);
    f->refs = 1;
    arena_init(&f->arena);
    f->front = front;
    f->has_login = front->config->authenticate_service_url.scheme != CONFIG_SCHEME_NONE;
    f->check = (Postern__CheckRequest)POSTERN__CHECK_REQUEST__INIT;
    rand_uuid(f->request_id);
    f->check.request_id = bytes_of(sv_from(f->request_id));
    set_client(f, a->source);
    read_all(f, a->request->http);
    f->front = NULL;
    *foreign_out = f;
    return ERR_OK;
}

struct authz_foreign *authz_foreign_ref(struct authz_foreign *foreign)
{
    if (foreign != NULL) {
        foreign->refs++;
    }
    return foreign;
}

void authz_foreign_unref(struct authz_foreign **foreign)
{
    struct authz_foreign *f = TAKE(*foreign);

    if (f == NULL || --f->refs != 0) {
        return;
    }
    arena_deinit(&f->arena);
    mem_free(&f);
}
