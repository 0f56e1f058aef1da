#include "authenticate/store.h"

#include "databroker.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

#define SERVICE     "/databroker.DataBrokerService/"
#define TYPE_STRUCT "type.googleapis.com/google.protobuf.Struct"
#define TYPE_STRING "type.googleapis.com/google.protobuf.StringValue"

enum { TOKEN_TEXT_MAX = 128 * 1024, STORE_WAIT_MS = 3000 /* a person is waiting */ };

struct authn_store {
    struct rpc_client *client;
    int64_t timeout_ms;
};

struct authn_store *authn_store_new(struct rpc *rpc, const struct rpc_identity *identity,
                                    const char *target, int64_t timeout_ms)
{
    struct authn_store *store = MEM_NEW(struct authn_store);
    struct rpc_client_opts opts = { .target = target,
                                    .server = RPC_DATABROKER,
                                    .identity = identity };

    store->client = rpc_client_new(rpc, &opts);
    store->timeout_ms = timeout_ms > 0 && timeout_ms < STORE_WAIT_MS ? timeout_ms : STORE_WAIT_MS;
    return store;
}

void authn_store_free(struct authn_store **store)
{
    if (*store != NULL) {
        rpc_client_free(&(*store)->client);
    }
    mem_free(store);
}

static struct rpc_pending *call(struct authn_store *store, const char *path,
                                const ProtobufCMessage *request,
                                const ProtobufCMessageDescriptor *response, rpc_done_fn done,
                                void *arg)
{
    return rpc_client_call(store->client, path, request, response, store->timeout_ms, done, arg);
}

struct rpc_pending *authn_store_get(struct authn_store *store, const char *type, struct sv id,
                                    rpc_done_fn done, void *arg)
{
    Databroker__GetRequest get;
    CLEANUP(mem_free) char *type_text = mem_strdup(type);
    CLEANUP(mem_free) char *id_text = mem_svdup(id);

    databroker__get_request__init(&get);
    get.type = type_text;
    get.id = id_text;
    return call(store, SERVICE "Get", &get.base, &databroker__get_response__descriptor, done, arg);
}

static const Databroker__Record *record_of(enum rpc_status status, const ProtobufCMessage *response)
{
    const Databroker__GetResponse *get = (const Databroker__GetResponse *)(const void *)response;

    return status != RPC_OK || get == NULL || get->record == NULL ||
                   get->record->deleted_at != NULL || get->record->data == NULL
               ? NULL
               : get->record;
}

bool authn_store_has(enum rpc_status status, const ProtobufCMessage *response)
{
    return record_of(status, response) != NULL;
}

enum err authn_store_session(enum rpc_status status, const ProtobufCMessage *response,
                             int64_t now_s, struct arena *arena, Session__Session **session_out,
                             uint64_t *version_out)
{
    const Databroker__Record *record = record_of(status, response);
    ProtobufCMessage *message = NULL;
    Session__Session *session = NULL;

    if (status != RPC_OK && status != RPC_NOT_FOUND) {
        return ERR_UNAVAILABLE;
    }
    if (record == NULL) {
        return ERR_NOT_FOUND;
    }
    if (rpc_unpack(&session__session__descriptor,
                   sv_of(record->data->value.data, record->data->value.len), arena,
                   &message) != ERR_OK) {
        return ERR_INVALID;
    }
    session = (Session__Session *)(void *)message;
    if (session->id[0] == '\0' || session->user_id[0] == '\0' || session->expires_at == NULL ||
        session->expires_at->seconds <= now_s) {
        return ERR_NOT_FOUND;
    }
    *session_out = session;
    *version_out = record->version;
    return ERR_OK;
}

int64_t authn_store_written_ms(enum rpc_status status, const ProtobufCMessage *response)
{
    const Databroker__Record *record = record_of(status, response);

    return record == NULL || record->modified_at == NULL
               ? 0
               : record->modified_at->seconds * 1000 + record->modified_at->nanos / 1000000;
}

static Google__Protobuf__Timestamp *timestamp(int64_t seconds, struct arena *arena)
{
    Google__Protobuf__Timestamp *t = arena_alloc(arena, sizeof *t);

    google__protobuf__timestamp__init(t);
    t->seconds = seconds;
    return t;
}

static Google__Protobuf__Any *any(const char *type_url, const ProtobufCMessage *message,
                                  struct arena *arena)
{
    Google__Protobuf__Any *a = arena_alloc(arena, sizeof *a);
    size_t n = protobuf_c_message_get_packed_size(message);

    google__protobuf__any__init(a);
    a->type_url = arena_str(arena, sv_from(type_url));
    a->value.data = arena_alloc(arena, n + 1);
    a->value.len = protobuf_c_message_pack(message, a->value.data);
    return a;
}

static Databroker__Record *record_new(const char *type, struct sv id, Google__Protobuf__Any *data,
                                      struct arena *arena)
{
    Databroker__Record *r = arena_alloc(arena, sizeof *r);

    databroker__record__init(r);
    r->type = arena_str(arena, sv_from(type));
    r->id = arena_str(arena, id);
    r->data = data;
    return r;
}

static struct rpc_pending *put(struct authn_store *store, Databroker__Record **records, size_t n,
                               rpc_done_fn done, void *arg)
{
    Databroker__PutRequest request = DATABROKER__PUT_REQUEST__INIT;

    request.records = records;
    request.n_records = n;
    return call(store, SERVICE "Put", &request.base, &databroker__put_response__descriptor, done,
                arg);
}

uint64_t authn_store_version(const ProtobufCMessage *response)
{
    const Databroker__PutResponse *put_response =
        (const Databroker__PutResponse *)(const void *)response;

    return put_response == NULL || put_response->n_records == 0
               ? 0
               : put_response->records[put_response->n_records - 1]->version;
}

static Google__Protobuf__Value *text_value(struct sv text, struct arena *arena)
{
    Google__Protobuf__Value *v = arena_alloc(arena, sizeof *v);

    google__protobuf__value__init(v);
    v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    v->string_value = arena_str(arena, text);
    return v;
}

static Google__Protobuf__Struct__FieldsEntry *field(const char *name, Google__Protobuf__Value *v,
                                                    struct arena *arena)
{
    Google__Protobuf__Struct__FieldsEntry *entry = arena_alloc(arena, sizeof *entry);

    google__protobuf__struct__fields_entry__init(entry);
    entry->key = arena_str(arena, sv_from(name));
    entry->value = v;
    return entry;
}

static Databroker__Record *directory_record(const struct authn_identity *who, struct arena *arena)
{
    Google__Protobuf__Struct s = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct__FieldsEntry *fields[4];
    Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    Google__Protobuf__Value groups = GOOGLE__PROTOBUF__VALUE__INIT;
    size_t n = json_array_size(who->groups);

    list.values = arena_alloc(arena, (n + 1) * sizeof(void *));
    for (size_t i = 0; i < n; i++) {
        const json_t *g = json_array_get(who->groups, i);

        if (json_is_string(g)) {
            list.values[list.n_values++] =
                text_value(sv_of(json_string_value(g), json_string_length(g)), arena);
        }
    }
    groups.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    groups.list_value = &list;
    fields[0] = field("id", text_value(who->user_id, arena), arena);
    fields[1] = field("email", text_value(who->email, arena), arena);
    fields[2] = field("display_name", text_value(who->name, arena), arena);
    fields[3] = field("group_ids", &groups, arena);
    s.fields = fields;
    s.n_fields = ARRAY_LEN(fields);
    return record_new(AUTHN_TYPE_DIRECTORY, who->user_id, any(TYPE_STRUCT, &s.base, arena), arena);
}

static Databroker__Record *user_record(const struct authn_identity *who, struct arena *arena)
{
    User__User user;

    user__user__init(&user);
    user.id = arena_str(arena, who->user_id);
    user.name = arena_str(arena, who->name);
    user.email = arena_str(arena, who->email);
    user.groups_error = arena_str(arena, who->groups_error);
    authn_claims_to_user(who->claims, arena, &user);
    return record_new(AUTHN_TYPE_USER, who->user_id, any(AUTHN_TYPE_USER, &user.base, arena),
                      arena);
}

/* A token bound to its session: copied into another record it opens no more. */
static char *sealed(const struct authn_store_login *login, struct sv token, struct arena *arena)
{
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, TOKEN_TEXT_MAX);
    if (token.n > 0 && seal_make(login->rest, token, login->session_id, &text) != ERR_OK) {
        log_warn("token.not_kept", KV_STR("why", "too large"));
        return arena_str(arena, SV(""));
    }
    return arena_str(arena, buf_sv(&text));
}

static void session_tokens(const struct authn_store_login *login, Session__Session *session,
                           struct arena *arena)
{
    const struct authn_identity *who = login->identity;
    Session__IDToken *id = arena_alloc(arena, sizeof *id);
    Session__OAuthToken *oauth = arena_alloc(arena, sizeof *oauth);

    session__idtoken__init(id);
    session__oauth_token__init(oauth);
    if (who->issuer.n > 0) {
        id->issuer = arena_str(arena, who->issuer);
        session->id_token = id;
    }
    if (who->id_token.n > 0) {
        id->subject = arena_str(arena, who->subject);
        id->issued_at = timestamp(who->id_issued_at_s, arena);
        id->expires_at = timestamp(who->id_expires_at_s, arena);
        id->raw = sealed(login, who->id_token, arena);
    }
    if (who->access_token.n > 0) {
        oauth->access_token = sealed(login, who->access_token, arena);
        oauth->refresh_token = sealed(login, who->refresh_token, arena);
        oauth->token_type = arena_str(arena, SV("Bearer"));
        if (who->access_expires_at_s > 0) {
            oauth->expires_at = timestamp(who->access_expires_at_s, arena);
        }
        session->oauth_token = oauth;
    }
}

struct rpc_pending *authn_store_login(struct authn_store *store,
                                      const struct authn_store_login *login, struct arena *arena,
                                      rpc_done_fn done, void *arg)
{
    Session__Session session;
    Databroker__Record *records[3];
    size_t n = 0;

    session__session__init(&session);
    session.id = arena_str(arena, login->session_id);
    session.user_id = arena_str(arena, login->identity->user_id);
    session.idp_id = arena_str(arena, login->identity->idp_id);
    session.issued_at = timestamp(login->now_s, arena);
    session.accessed_at = session.issued_at;
    session.authenticated_at =
        timestamp(MIN(login->identity->authenticated_at_s, login->now_s), arena);
    session.expires_at = timestamp(login->expires_at_s, arena);
    session.login_address = arena_str(arena, login->address);
    session_tokens(login, &session, arena);
    authn_claims_to_session(login->identity->claims, arena, &session);
    if (!login->session_only) {
        records[n++] = user_record(login->identity, arena);
    }
    if (!login->session_only && login->identity->groups_error.n == 0) {
        records[n++] = directory_record(login->identity, arena);
    }
    records[n++] = record_new(AUTHN_TYPE_SESSION, login->session_id,
                              any(AUTHN_TYPE_SESSION, &session.base, arena), arena);
    return put(store, records, n, done, arg);
}

struct rpc_pending *authn_store_end(struct authn_store *store, const Session__Session *session,
                                    int64_t now_s, rpc_done_fn done, void *arg)
{
    struct arena arena;
    struct rpc_pending *pending = NULL;
    Databroker__Record *record = NULL;

    arena_init(&arena);
    record = record_new(AUTHN_TYPE_SESSION, sv_from(session->id),
                        any(AUTHN_TYPE_SESSION, &session->base, &arena), &arena);
    record->deleted_at = timestamp(now_s, &arena);
    pending = put(store, &record, 1, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct rpc_pending *authn_store_lease(struct authn_store *store, const char *name,
                                      int64_t duration_s, rpc_done_fn done, void *arg)
{
    Databroker__AcquireLeaseRequest lease;
    Google__Protobuf__Duration duration = GOOGLE__PROTOBUF__DURATION__INIT;
    CLEANUP(mem_free) char *name_text = mem_strdup(name);

    databroker__acquire_lease_request__init(&lease);
    duration.seconds = duration_s;
    lease.name = name_text;
    lease.duration = &duration;
    return call(store, SERVICE "AcquireLease", &lease.base,
                &databroker__acquire_lease_response__descriptor, done, arg);
}

struct sv authn_store_lease_id(const ProtobufCMessage *response, struct arena *arena)
{
    const Databroker__AcquireLeaseResponse *lease =
        (const Databroker__AcquireLeaseResponse *)(const void *)response;

    return arena_sv(arena, sv_from(lease == NULL ? "" : lease->id));
}

struct rpc_pending *authn_store_release(struct authn_store *store, const char *name, struct sv id,
                                        rpc_done_fn done, void *arg)
{
    Databroker__ReleaseLeaseRequest release;
    CLEANUP(mem_free) char *name_text = mem_strdup(name);
    CLEANUP(mem_free) char *id_text = mem_svdup(id);

    databroker__release_lease_request__init(&release);
    release.name = name_text;
    release.id = id_text;
    return call(store, SERVICE "ReleaseLease", &release.base, &google__protobuf__empty__descriptor,
                done, arg);
}

/* --- renewals ------------------------------------------------------------------------------------- */

enum { PATCH_FIELDS_MAX = 4 };

/* The databroker merges these fields (to a NULL) into the record as it is then, again until nobody else
 * wrote between its reading and its writing; a record that is gone stays gone. */
static struct rpc_pending *patch(struct authn_store *store, Databroker__Record *record,
                                 const char *const *fields, rpc_done_fn done, void *arg)
{
    Databroker__PatchRequest request = DATABROKER__PATCH_REQUEST__INIT;
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    char *paths[PATCH_FIELDS_MAX];
    struct arena arena;
    struct rpc_pending *pending = NULL;

    arena_init(&arena);
    for (; fields[mask.n_paths] != NULL; mask.n_paths++) {
        CHECK(mask.n_paths < ARRAY_LEN(paths));
        paths[mask.n_paths] = arena_str(&arena, sv_from(fields[mask.n_paths]));
    }
    mask.paths = paths;
    request.field_mask = &mask;
    request.records = &record;
    request.n_records = 1;
    pending = call(store, SERVICE "Patch", &request.base, &databroker__patch_response__descriptor,
                   done, arg);
    arena_deinit(&arena);
    return pending;
}

bool authn_store_renew_missed(const ProtobufCMessage *response)
{
    const Databroker__PatchResponse *patched =
        (const Databroker__PatchResponse *)(const void *)response;

    return patched == NULL || patched->n_records == 0;
}

static struct authn_store_login renewal_login(const struct authn_store_renewal *renewal)
{
    return (struct authn_store_login){ .identity = renewal->who,
                                       .session_id = sv_from(renewal->session->id),
                                       .rest = renewal->rest };
}

static struct rpc_pending *patch_session(struct authn_store *store, const Session__Session *session,
                                         const char *const *fields, rpc_done_fn done, void *arg)
{
    struct arena arena;
    struct rpc_pending *pending = NULL;

    arena_init(&arena);
    pending = patch(store,
                    record_new(AUTHN_TYPE_SESSION, sv_from(session->id),
                               any(AUTHN_TYPE_SESSION, &session->base, &arena), &arena),
                    fields, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct rpc_pending *authn_store_renew_refresh_token(struct authn_store *store,
                                                    const struct authn_store_renewal *renewal,
                                                    rpc_done_fn done, void *arg)
{
    static const char *const fields[] = { "oauth_token", NULL };
    const struct authn_store_login login = renewal_login(renewal);
    Session__Session session = *renewal->session;
    Session__OAuthToken oauth = *renewal->session->oauth_token;
    struct arena arena;
    struct rpc_pending *pending = NULL;

    arena_init(&arena);
    oauth.refresh_token = sealed(&login, renewal->who->refresh_token, &arena);
    session.oauth_token = &oauth;
    pending = patch_session(store, &session, fields, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct rpc_pending *authn_store_renew_groups(struct authn_store *store,
                                             const struct authn_store_renewal *renewal,
                                             rpc_done_fn done, void *arg)
{
    struct arena arena;
    struct rpc_pending *pending = NULL;
    Databroker__Record *record = NULL;

    arena_init(&arena);
    record = directory_record(renewal->who, &arena);
    pending = put(store, &record, 1, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct rpc_pending *authn_store_renew_user(struct authn_store *store,
                                           const struct authn_store_renewal *renewal,
                                           rpc_done_fn done, void *arg)
{
    static const char *const fields[] = { "name", "email", "claims", "groups_error", NULL };
    struct arena arena;
    struct rpc_pending *pending = NULL;

    arena_init(&arena);
    pending = patch(store, user_record(renewal->who, &arena), fields, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct rpc_pending *authn_store_renew_session(struct authn_store *store,
                                              const struct authn_store_renewal *renewal,
                                              rpc_done_fn done, void *arg)
{
    static const char *const all[] = { "oauth_token", "id_token", "claims", NULL };
    static const char *const tokens[] = { "oauth_token", "id_token", NULL };
    const struct authn_store_login login = renewal_login(renewal);
    Session__Session session = SESSION__SESSION__INIT;
    Session__IDToken kept = SESSION__IDTOKEN__INIT;
    struct arena arena;
    struct rpc_pending *pending = NULL;

    arena_init(&arena);
    session.id = renewal->session->id;
    session.user_id = renewal->session->user_id;
    session_tokens(&login, &session, &arena);
    if (renewal->who->id_token.n == 0 && renewal->session->id_token != NULL) {
        /* The old one can still say goodbye to the provider, but nothing will be in time for it. */
        kept = *renewal->session->id_token;
        kept.expires_at = NULL;
        session.id_token = &kept;
    }
    if (renewal->who->claims != NULL) {
        authn_claims_to_session(renewal->who->claims, &arena, &session);
    }
    pending =
        patch_session(store, &session, renewal->who->claims != NULL ? all : tokens, done, arg);
    arena_deinit(&arena);
    return pending;
}

/* --- following ------------------------------------------------------------------------------------ */

struct rpc_pending *authn_store_snapshot(struct authn_store *store,
                                         const struct rpc_follow_ops *ops, void *arg)
{
    Databroker__SyncLatestRequest request = DATABROKER__SYNC_LATEST_REQUEST__INIT;
    CLEANUP(mem_free) char *type = mem_strdup(AUTHN_TYPE_SESSION);

    request.type = type;
    return rpc_client_follow(store->client, SERVICE "SyncLatest", &request.base, ops, arg);
}

struct rpc_pending *authn_store_follow(struct authn_store *store, uint64_t server_version,
                                       uint64_t record_version, const struct rpc_follow_ops *ops,
                                       void *arg)
{
    Databroker__SyncRequest request = DATABROKER__SYNC_REQUEST__INIT;
    CLEANUP(mem_free) char *type = mem_strdup(AUTHN_TYPE_SESSION);

    request.type = type;
    request.server_version = server_version;
    request.record_version = record_version;
    return rpc_client_follow(store->client, SERVICE "Sync", &request.base, ops, arg);
}

struct rpc_pending *authn_store_keep(struct authn_store *store, struct sv id, struct sv text,
                                     rpc_done_fn done, void *arg)
{
    Google__Protobuf__StringValue value;
    struct arena arena;
    struct rpc_pending *pending = NULL;
    Databroker__Record *record = NULL;

    google__protobuf__string_value__init(&value);
    arena_init(&arena);
    value.value = arena_str(&arena, text);
    record = record_new(AUTHN_TYPE_PROVIDER, id, any(TYPE_STRING, &value.base, &arena), &arena);
    pending = put(store, &record, 1, done, arg);
    arena_deinit(&arena);
    return pending;
}

struct sv authn_store_kept(enum rpc_status status, const ProtobufCMessage *response,
                           struct arena *arena)
{
    const Databroker__Record *record = record_of(status, response);
    ProtobufCMessage *message = NULL;

    if (record == NULL || rpc_unpack(&google__protobuf__string_value__descriptor,
                                     sv_of(record->data->value.data, record->data->value.len),
                                     arena, &message) != ERR_OK) {
        return (struct sv){ .p = NULL };
    }
    return sv_from(((Google__Protobuf__StringValue *)(void *)message)->value);
}

struct rpc_pending *authn_store_probe(struct authn_store *store, rpc_done_fn done, void *arg)
{
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    return call(store, SERVICE "ServerInfo", &empty.base,
                &databroker__server_info_response__descriptor, done, arg);
}
