#include "authenticate/user.h"

#include <string.h>

#include "google/protobuf/struct.pb-c.h"

#include "authenticate/login.h"
#include "authenticate/page.h"
#include "common/log.h"
#include "common/mem.h"

static void not_signed_in(struct authn_request *req)
{
    authn_reply_problem(req, &(struct authn_problem){ .status = 401,
                                                      .code = "user-unauthenticated",
                                                      .title = "You are not signed in",
                                                      .what = "There is no session here.",
                                                      .todo = "Open an application to sign in." });
}

static struct sv text_of(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

/* --- route hosts: by assertion -------------------------------------------------------------------- */

static json_t *assertion_claims(struct authn_request *req)
{
    struct sv token = authn_request_header(req, ASSERTION_HEADER);
    json_t *claims = NULL;

    if (token.n == 0 ||
        assertion_verify(req->app->assertion, token, req->host, &claims) != ERR_OK) {
        return NULL;
    }
    return claims;
}

static void page_of_claims(struct authn_request *req, const json_t *claims, int64_t expires_at_s)
{
    CLEANUP(buf_deinit) struct buf page;

    buf_init(&page, HTTP_PAGE_MAX);
    authn_page_user(&page, &(struct authn_page_user){ .name = text_of(claims, "name"),
                                                      .email = text_of(claims, "email"),
                                                      .user_id = text_of(claims, "sub"),
                                                      .groups = json_object_get(claims, "groups"),
                                                      .expires_at_s = expires_at_s,
                                                      .sign_out = SV("/.pomerium/sign_out"),
                                                      .request_id = req->request_id });
    authn_reply_page(req, 200, &page, (struct sv){ .p = NULL });
}

/* --- the authenticate host: by our own session ---------------------------------------------------- */

static json_t *claims_of_session(const Session__Session *session)
{
    json_t *claims = json_object();

    CHECK(claims != NULL);
    for (size_t i = 0; i < session->n_claims; i++) {
        const Session__Session__ClaimsEntry *entry = session->claims[i];
        json_t *list = json_array();

        for (size_t k = 0; entry->value != NULL && k < entry->value->n_values; k++) {
            const Google__Protobuf__Value *v = entry->value->values[k];

            if (v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
                (void)json_array_append_new(list, json_string(v->string_value));
            }
        }
        if (strcmp(entry->key, "groups") == 0) {
            (void)json_object_set(claims, "groups", list);
        } else if ((strcmp(entry->key, "email") == 0 || strcmp(entry->key, "name") == 0) &&
                   json_array_size(list) > 0) {
            (void)json_object_set(claims, entry->key, json_array_get(list, 0));
        }
        json_decref(list);
    }
    (void)json_object_set_new(claims, "sub", json_string(session->user_id));
    (void)json_object_set_new(claims, "user", json_string(session->user_id));
    (void)json_object_set_new(claims, "sid", json_string(session->id));
    return claims;
}

enum form { FORM_PAGE, FORM_JSON };

static void json_reply(struct authn_request *req, json_t *claims)
{
    static const char *const left_out[] = { "iss", "aud", "exp", "iat", "nbf", "jti" };
    char *text = NULL;
    struct sv copy;

    for (size_t i = 0; i < ARRAY_LEN(left_out); i++) {
        (void)json_object_del(claims, left_out[i]);
    }
    text = json_dumps(claims, JSON_COMPACT | JSON_SORT_KEYS);
    CHECK(text != NULL);
    copy = arena_sv(&req->arena, sv_from(text));
    mem_release(text); /* jansson's */
    authn_reply_text(req, 200, "application/json", copy);
}

/* Of the session that was looked for at our own host. */
static void own(struct authn_request *req, enum err err, enum form form)
{
    json_t *claims = NULL;

    if (err == ERR_UNAVAILABLE) {
        authn_reply_store_down(req);
        return;
    }
    if (err != ERR_OK) {
        not_signed_in(req);
        return;
    }
    claims = claims_of_session(req->session);
    if (form == FORM_PAGE) {
        page_of_claims(req, claims, req->session->expires_at->seconds);
    } else {
        json_reply(req, claims);
    }
    json_decref(claims);
}

static void own_page(struct authn_request *req, enum err err)
{
    own(req, err, FORM_PAGE);
}

static void own_json(struct authn_request *req, enum err err)
{
    own(req, err, FORM_JSON);
}

/* The session's end is the record's: the assertion tells which one. */
static void on_expiry(void *arg, enum rpc_status status, const char *text,
                      const ProtobufCMessage *response)
{
    struct authn_request *req = arg;
    json_t *claims = NULL;
    Session__Session *session = NULL;
    uint64_t version = 0;

    (void)text;
    authn_request_resumed(req);
    if (authn_store_session(status, response, 0, &req->arena, &session, &version) != ERR_OK) {
        session = NULL;
    }
    claims = assertion_claims(req);
    if (claims == NULL) {
        not_signed_in(req);
        return;
    }
    page_of_claims(req, claims, session == NULL ? 0 : session->expires_at->seconds);
    json_decref(claims);
}

void authn_user_page(struct authn_request *req)
{
    json_t *claims = NULL;
    struct sv sid;

    if (req->own_host) {
        authn_session_find(req, own_page);
        return;
    }
    claims = assertion_claims(req);
    if (claims == NULL) {
        not_signed_in(req);
        return;
    }
    sid = arena_sv(&req->arena, text_of(claims, "sid"));
    json_decref(claims);
    req->call = authn_store_get(req->app->store, AUTHN_TYPE_SESSION, sid, on_expiry, req);
}

void authn_user_json(struct authn_request *req)
{
    json_t *claims = NULL;

    if (req->own_host) {
        authn_session_find(req, own_json);
        return;
    }
    claims = assertion_claims(req);
    if (claims == NULL) {
        not_signed_in(req);
        return;
    }
    json_reply(req, claims);
    json_decref(claims);
}
