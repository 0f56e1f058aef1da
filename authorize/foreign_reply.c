/* The outcome as the answer that Envoy and its kin know. */
#include <string.h>

#include "authorize/foreign.h"
#include "common/http/accept.h"
#include "common/http/form.h"
#include "common/http/page.h"
#include "common/http/problem.h"
#include "common/http/sign_in.h"
#include "common/mem.h"
#include "common/policy/reason.h"
#include "common/rpc/rpc.h"

enum { HEADERS_MAX = AUTHZ_BLOCK_HEADERS_MAX + 2, BODY_MAX = 65536, URL_MAX_N = 49152 };

/* Headers to set, in the wire's structs; texts are borrowed. */
struct options {
    struct arena *arena;
    Envoy__Service__Auth__V3__HeaderValueOption **v;
    size_t n;
};

static char *text(struct arena *arena, struct sv s)
{
    return arena_str(arena, s);
}

static void options_init(struct options *o, struct arena *arena)
{
    o->arena = arena;
    o->n = 0;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    o->v = arena_alloc(arena, HEADERS_MAX * sizeof(*o->v));
}

/* Takes the place of whatever the visitor sent, for old readers and new ones. */
static void set_header(struct options *o, struct sv name, struct sv value)
{
    Envoy__Service__Auth__V3__HeaderValueOption *option = arena_alloc(o->arena, sizeof(*option));
    Envoy__Service__Auth__V3__HeaderValue *header = arena_alloc(o->arena, sizeof(*header));
    Google__Protobuf__BoolValue *append = arena_alloc(o->arena, sizeof(*append));

    CHECK(o->n < HEADERS_MAX);
    *header = (Envoy__Service__Auth__V3__HeaderValue)ENVOY__SERVICE__AUTH__V3__HEADER_VALUE__INIT;
    header->key = text(o->arena, name);
    header->value.data = base_unconst(value.p);
    header->value.len = value.n;
    *append = (Google__Protobuf__BoolValue)GOOGLE__PROTOBUF__BOOL_VALUE__INIT;
    *option = (Envoy__Service__Auth__V3__HeaderValueOption)
        ENVOY__SERVICE__AUTH__V3__HEADER_VALUE_OPTION__INIT;
    option->header = header;
    option->append = append;
    option->append_action =
        ENVOY__SERVICE__AUTH__V3__HEADER_VALUE_OPTION__ACTION__OVERWRITE_IF_EXISTS_OR_ADD;
    option->keep_empty_value = true;
    o->v[o->n++] = option;
}

/* ---- who it is, for the asking proxy's log ---------------------------------------------------- */

static Google__Protobuf__Value *value_of(struct arena *arena)
{
    Google__Protobuf__Value *value = arena_alloc(arena, sizeof(*value));

    *value = (Google__Protobuf__Value)GOOGLE__PROTOBUF__VALUE__INIT;
    return value;
}

static Google__Protobuf__Value *text_value(struct arena *arena, struct sv s)
{
    Google__Protobuf__Value *value = value_of(arena);

    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value->string_value = text(arena, s);
    return value;
}

static Google__Protobuf__Value *reasons_value(struct arena *arena,
                                              const struct authz_outcome *outcome)
{
    policy_reason_set set = outcome->reasons;
    Google__Protobuf__Value *value = value_of(arena);
    Google__Protobuf__ListValue *list = arena_alloc(arena, sizeof(*list));

    *list = (Google__Protobuf__ListValue)GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    list->values = arena_alloc(arena, POLICY_REASON_COUNT * sizeof(*list->values));
    for (enum policy_reason reason = policy_reason_next(&set); reason != POLICY_REASON_NONE;
         reason = policy_reason_next(&set)) {
        list->values[list->n_values++] = text_value(arena, sv_from(policy_reason_name(reason)));
    }
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    value->list_value = list;
    return value;
}

static void add_entry(struct arena *arena, Google__Protobuf__Struct *s, const char *key,
                      Google__Protobuf__Value *value)
{
    Google__Protobuf__Struct__FieldsEntry *entry = arena_alloc(arena, sizeof(*entry));

    *entry = (Google__Protobuf__Struct__FieldsEntry)GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    entry->key = text(arena, sv_from(key));
    entry->value = value;
    s->fields[s->n_fields++] = entry;
}

static Google__Protobuf__Struct *metadata(struct authz_foreign *f,
                                          const struct authz_outcome *outcome)
{
    enum { KEYS = 6 };

    struct arena *a = &f->arena;
    Google__Protobuf__Struct *s = arena_alloc(a, sizeof(*s));
    const ProtobufCBinaryData *id = &f->check.request_id;

    *s = (Google__Protobuf__Struct)GOOGLE__PROTOBUF__STRUCT__INIT;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    s->fields = arena_alloc(a, KEYS * sizeof(*s->fields));
    add_entry(a, s, "reasons", reasons_value(a, outcome));
    add_entry(a, s, "request_id", text_value(a, sv_of(id->data, id->len)));
    if (outcome->route != NULL) {
        add_entry(a, s, "route", text_value(a, outcome->route->id_text));
    }
    if (outcome->effective != NULL) {
        add_entry(a, s, "user", text_value(a, authz_person_id(outcome->effective->person)));
        add_entry(a, s, "email", text_value(a, authz_person_email(outcome->effective->person)));
        add_entry(a, s, "session", text_value(a, sv_from(f->check.session)));
    }
    return s;
}

/* ---- ALLOW ------------------------------------------------------------------------------------ */

static bool is_set(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++) {
        if (sv_ieq(sv_from(o->v[i]->header->key), sv_from(name))) {
            return true;
        }
    }
    return false;
}

static void fill_ok(struct authz_foreign *f, const struct authz_outcome *outcome,
                    Envoy__Service__Auth__V3__OkHttpResponse *ok)
{
    const struct authz_identity *identity = outcome->identity;
    struct options o;

    options_init(&o, &f->arena);
    for (size_t i = 0; identity != NULL && i < identity->n_headers; i++) {
        set_header(&o, identity->headers[i].name, identity->headers[i].value);
    }
    if (f->has_cookie && f->cookie.n != 0) {
        set_header(&o, SV("cookie"), f->cookie);
    }
    ok->headers = o.v;
    ok->n_headers = o.n;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    ok->headers_to_remove = arena_alloc(&f->arena, (f->n_remove + 1) * sizeof(char *));
    for (size_t i = 0; i < f->n_remove; i++) { /* removing comes last: not what was set */
        if (!is_set(&o, f->remove[i])) {
            ok->headers_to_remove[ok->n_headers_to_remove++] = base_unconst(f->remove[i]);
        }
    }
}

/* ---- anything else ---------------------------------------------------------------------------- */

static bool wants_page(const struct authz_foreign *f)
{
    return http_accept_client(&f->head) == HTTP_CLIENT_NAVIGATION && !f->upgrades && !f->by_token;
}

static bool wants_fresh(const struct authz_outcome *outcome)
{
    return (outcome->reasons & POLICY_REASONS_FRESH) != 0;
}

/* Where a person is sent to log in. False: 401 is the answer. */
static bool add_login(struct authz_foreign *f, const struct authz_outcome *outcome,
                      struct options *o)
{
    CLEANUP(buf_deinit) struct buf url = { 0 };

    if (!f->has_login || !wants_page(f) ||
        (f->req.method != HTTP_GET && f->req.method != HTTP_HEAD)) {
        return false;
    }
    buf_init(&url, URL_MAX_N);
    http_sign_in_add(&url, &f->req);
    if (wants_fresh(outcome)) {
        http_form_add(&url, SV(HTTP_SIGN_IN_FRESH), SV("true"));
    }
    if (url.err != ERR_OK) {
        return false;
    }
    set_header(o, SV("location"), arena_sv(&f->arena, buf_sv(&url)));
    return true;
}

static void add_page(struct authz_foreign *f, unsigned status, struct sv code, struct options *o,
                     struct buf *body)
{
    CLEANUP(buf_deinit) struct buf csp = { 0 };
    struct http_problem_words w = http_problem_words(status, code, false);
    const struct http_page_header *fixed = NULL;
    size_t n = 0;

    http_page_problem(body,
                      &(struct http_page_problem){
                          .title = sv_from(w.title),
                          .what = sv_from(w.what),
                          .todo = sv_from(w.todo),
                          .code = code,
                          .request_id = sv_of(f->check.request_id.data, f->check.request_id.len) });
    buf_init(&csp, BODY_MAX);
    http_page_csp(&csp, NULL, 0);
    set_header(o, SV("content-type"), HTTP_PAGE_TYPE);
    set_header(o, SV("content-security-policy"), arena_sv(&f->arena, buf_sv(&csp)));
    fixed = http_page_headers(&n);
    for (size_t i = 0; i < n; i++) {
        set_header(o, sv_from(fixed[i].name), sv_from(fixed[i].value));
    }
}

/* In the form of the client's protocol. To one of gRPC Envoy hands the body on as the message of the
 * status. */
static void add_object(struct authz_foreign *f, unsigned status, struct sv code, struct options *o,
                       struct buf *body)
{
    const struct http_problem problem = { .status = status,
                                          .code = code,
                                          .request_id = sv_of(f->check.request_id.data,
                                                              f->check.request_id.len) };
    struct sv type = SV("application/json");

    switch (http_accept_media(&f->head)) {
    case HTTP_MEDIA_KUBERNETES:
        http_problem_kubernetes(&problem, body);
        break;
    case HTTP_MEDIA_MCP:
        http_problem_mcp(&problem, body);
        break;
    case HTTP_MEDIA_TEXT:
    case HTTP_MEDIA_GRPC:
    case HTTP_MEDIA_GRPC_WEB:
    case HTTP_MEDIA_GRPC_WEB_TEXT:
        http_problem_sentence(&problem, body);
        type = SV("text/plain; charset=utf-8");
        break;
    case HTTP_MEDIA_JSON:
    case HTTP_MEDIA_HTML:
    case HTTP_MEDIA_CONNECT:
    case HTTP_MEDIA_CONNECT_STREAM:
    case HTTP_MEDIA_CONNECT_STREAM_JSON:
        http_problem_json(&problem, body);
        break;
    }
    set_header(o, SV("content-type"), type);
    set_header(o, SV("cache-control"), SV("no-store"));
}

static struct sv code_of(const struct authz_foreign *f, const struct authz_outcome *outcome)
{
    policy_reason_set set = outcome->reasons;
    struct sv first = SV("denied");
    bool any = false;

    if (f->code != NULL) {
        return sv_from(f->code);
    }
    if (outcome->decision == AUTHZ_LOGIN) {
        return SV("login-needed");
    }
    for (enum policy_reason reason = policy_reason_next(&set); reason != POLICY_REASON_NONE;
         reason = policy_reason_next(&set)) {
        struct sv name = sv_from(policy_reason_name(reason));

        if (!sv_ends(name, SV("-ok"))) {
            return name;
        }
        first = any ? first : name;
        any = true;
    }
    return first;
}

/* A number that the published enum has: others are not read the same everywhere. */
static unsigned status_of(const struct authz_outcome *outcome)
{
    unsigned status = outcome->status;
    bool is_known = (status >= 400 && status <= 417) || status == 421 || status == 429 ||
                    status == 431 || (status >= 500 && status <= 505);

    switch (outcome->decision) {
    case AUTHZ_LOGIN:
        return 401;
    case AUTHZ_UNAVAILABLE:
        return is_known ? status : 503;
    case AUTHZ_ALLOW:
    case AUTHZ_DENY:
        break;
    }
    return is_known ? status : 403;
}

static void fill_denied(struct authz_foreign *f, const struct authz_outcome *outcome,
                        Envoy__Service__Auth__V3__DeniedHttpResponse *denied)
{
    CLEANUP(buf_deinit) struct buf body = { 0 };
    unsigned status = status_of(outcome);
    struct sv code = code_of(f, outcome);
    struct options o;

    options_init(&o, &f->arena);
    buf_init(&body, BODY_MAX);
    if (outcome->decision == AUTHZ_LOGIN && add_login(f, outcome, &o)) {
        status = 302;
        set_header(&o, SV("cache-control"), SV("no-store"));
    } else if (wants_page(f)) {
        add_page(f, status, code, &o, &body);
    } else {
        add_object(f, status, code, &o, &body);
    }
    if (status == 401) {
        set_header(&o, SV("www-authenticate"), SV("Bearer realm=\"postern\""));
    }
    denied->status->code = (int32_t)status;
    denied->headers = o.v;
    denied->n_headers = o.n;
    if (body.err == ERR_OK) {
        struct sv kept = arena_sv(&f->arena, buf_sv(&body));

        denied->body = (ProtobufCBinaryData){ .len = kept.n, .data = base_unconst(kept.p) };
    }
}

/* ---- the whole -------------------------------------------------------------------------------- */

void authz_foreign_answer(struct authz_foreign *f, const struct authz_outcome *outcome,
                          struct buf *out)
{
    Envoy__Service__Auth__V3__CheckResponse response =
        ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__INIT;
    Envoy__Service__Auth__V3__Status status = ENVOY__SERVICE__AUTH__V3__STATUS__INIT;
    Envoy__Service__Auth__V3__OkHttpResponse ok = ENVOY__SERVICE__AUTH__V3__OK_HTTP_RESPONSE__INIT;
    Envoy__Service__Auth__V3__DeniedHttpResponse denied =
        ENVOY__SERVICE__AUTH__V3__DENIED_HTTP_RESPONSE__INIT;
    Envoy__Service__Auth__V3__HttpStatus http = ENVOY__SERVICE__AUTH__V3__HTTP_STATUS__INIT;
    char *room = NULL;

    status.code = RPC_PERMISSION_DENIED; /* until it is an ALLOW */
    response.status = &status;
    response.dynamic_metadata = metadata(f, outcome);
    if (outcome->decision == AUTHZ_ALLOW) {
        status.code = RPC_OK;
        fill_ok(f, outcome, &ok);
        response.http_response_case =
            ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_OK_RESPONSE;
        response.ok_response = &ok;
    } else {
        denied.status = &http;
        fill_denied(f, outcome, &denied);
        response.http_response_case =
            ENVOY__SERVICE__AUTH__V3__CHECK_RESPONSE__HTTP_RESPONSE_DENIED_RESPONSE;
        response.denied_response = &denied;
    }
    room = buf_room(out, protobuf_c_message_get_packed_size(&response.base));
    CHECK(room != NULL);
    buf_grew(out, protobuf_c_message_pack(&response.base, (uint8_t *)room));
}
