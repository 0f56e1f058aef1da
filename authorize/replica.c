#include "authorize/replica.h"

#include <string.h>

#include "session.pb-c.h"
#include "user.pb-c.h"

#include "common/crypto/token.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

struct authz_replica {
    struct authz_texts *texts;
    struct map *sessions; /* id: authz_session */
    struct map *persons;  /* user id: authz_person; "" is one, too */
    struct authz_data *data;
    struct list impersonating;
    uint64_t version;
    uint64_t epoch;
    uint64_t unreadable;
    bool keep_tokens;
    authz_changed_fn changed;
    void *changed_arg;
};

/* --- change ----------------------------------------------------------------------------------- */

static void tell(struct authz_replica *r, const struct authz_session *s)
{
    if (r->changed != NULL) {
        r->changed(r->changed_arg, s->id.s);
    }
}

/* What was made from s is stale from now on. */
static void session_renew(struct authz_replica *r, struct authz_session *s)
{
    s->epoch = ++r->epoch;
    mem_free(&s->kept);
    s->n_kept = 0;
}

/* s ended or changed, and with it every session that acts in its name. */
static void session_touch(struct authz_replica *r, struct authz_session *s)
{
    struct list *it;

    bool new = s->epoch == 0;

    session_renew(r, s);
    if (!new) { /* nothing is open yet for one that just came */
        tell(r, s);
    }
    LIST_FOREACH(it, &r->impersonating) {
        struct authz_session *other = LIST_ENTRY(it, struct authz_session, impersonating);

        if (other != s && sv_eq(other->impersonates.s, s->id.s)) {
            session_renew(r, other);
            tell(r, other);
        }
    }
}

static void person_touch(struct authz_replica *r, struct authz_person *p)
{
    struct list *it;

    LIST_FOREACH(it, &p->sessions) {
        session_touch(r, LIST_ENTRY(it, struct authz_session, of_person));
    }
}

/* --- persons ---------------------------------------------------------------------------------- */

static struct authz_person *person_take(struct authz_replica *r, struct sv id)
{
    struct authz_person *p = map_get(r->persons, id);

    if (p == NULL) {
        p = MEM_NEW(struct authz_person);
        p->id = authz_text_take(r->texts, id);
        list_init(&p->sessions);
        (void)map_set(r->persons, id, p);
    }
    return p;
}

static void person_clear_user(struct authz_replica *r, struct authz_person *p)
{
    p->user_version = 0;
    p->user_digest = 0;
    authz_text_drop(r->texts, &p->name);
    authz_text_drop(r->texts, &p->email);
    authz_claims_free(r->texts, &p->claims);
}

static void person_clear_directory(struct authz_replica *r, struct authz_person *p)
{
    p->directory_version = 0;
    p->directory_digest = 0;
    authz_text_drop(r->texts, &p->directory_email);
    authz_text_drop(r->texts, &p->directory_name);
    for (size_t i = 0; i < p->n_groups; i++) {
        authz_text_drop(r->texts, &p->groups[i]);
    }
    p->n_groups = 0;
    mem_free(&p->groups);
}

static void person_free(struct authz_replica *r, struct authz_person *p)
{
    person_clear_user(r, p);
    person_clear_directory(r, p);
    authz_text_drop(r->texts, &p->id);
    mem_free(&p);
}

static void person_drop_if_unused(struct authz_replica *r, struct authz_person *p)
{
    if (p->user_version == 0 && p->directory_version == 0 && list_empty(&p->sessions)) {
        (void)map_take(r->persons, p->id.s);
        person_free(r, p);
    }
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Frees what s was made of; s keeps its id. */
static void session_clear(struct authz_replica *r, struct authz_session *s)
{
    struct authz_person *p = s->person;

    list_remove(&s->of_person);
    list_remove(&s->impersonating);
    authz_text_drop(r->texts, &s->impersonates);
    authz_text_drop(r->texts, &s->idp);
    authz_claims_free(r->texts, &s->claims);
    mem_free(&s->access_token);
    mem_free(&s->id_token);
    s->person = NULL;
    if (p != NULL) {
        person_drop_if_unused(r, p);
    }
}

static void session_free(struct authz_replica *r, struct authz_session *s)
{
    session_clear(r, s);
    authz_text_drop(r->texts, &s->id);
    mem_free(&s->kept);
    mem_free(&s);
}

static void session_remove(struct authz_replica *r, struct sv id)
{
    struct authz_session *s = map_take(r->sessions, id);

    if (s != NULL) {
        session_touch(r, s);
        session_free(r, s);
    }
}

static int64_t seconds_of(const Google__Protobuf__Timestamp *t)
{
    return t != NULL ? t->seconds : 0;
}

static uint64_t digest_of(const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes = mem_alloc(n + 1);

    (void)protobuf_c_message_pack(m, bytes);
    uint64_t digest = map_hash(sv_of(bytes, n));
    mem_free(&bytes);
    return digest;
}

/* Over what policies, headers and open connections depend on: not the provider's tokens and not the
 * time of last use, which change all the time. */
static uint64_t session_digest(const Session__Session *m)
{
    Session__Session part = *m;
    Session__IDToken id = SESSION__IDTOKEN__INIT;

    if (m->id_token != NULL) {
        id.issuer = m->id_token->issuer; /* a policy may ask for it */
        part.id_token = &id;
    }
    part.oauth_token = NULL;
    part.accessed_at = NULL;
    part.base.n_unknown_fields = 0;
    return digest_of(&part.base);
}

static enum err session_claims(struct authz_replica *r, const Session__Session *m,
                               struct authz_claims **claims_out)
{
    struct authz_claim_entry *entries = mem_array(m->n_claims + 1, sizeof(*entries));

    for (size_t i = 0; i < m->n_claims; i++) {
        entries[i].name = m->claims[i]->key;
        entries[i].values = m->claims[i]->value;
    }
    enum err err = authz_claims_new(r->texts, entries, m->n_claims, claims_out);
    mem_free(&entries);
    return err;
}

static void session_fill(struct authz_replica *r, struct authz_session *s,
                         const Session__Session *m, struct authz_claims *claims)
{
    struct authz_person *p = person_take(r, sv_from(m->user_id));

    /* Into the new person's list first: the old one may be the same and must not vanish. */
    struct list *hold = &s->of_person;
    struct authz_person *old = s->person;

    list_remove(hold);
    list_push_back(&p->sessions, hold);
    s->person = p;
    if (old != NULL && old != p) {
        person_drop_if_unused(r, old);
    }
    authz_claims_free(r->texts, &s->claims);
    s->claims = claims;
    authz_text_drop(r->texts, &s->idp);
    s->idp = authz_text_take(r->texts, sv_from(m->id_token == NULL ? "" : m->id_token->issuer));
    s->authenticated_at_s =
        seconds_of(m->authenticated_at != NULL ? m->authenticated_at : m->issued_at);
    authz_text_drop(r->texts, &s->impersonates);
    list_remove(&s->impersonating);
    if (m->has_impersonate_session_id_case ==
            SESSION__SESSION__HAS_IMPERSONATE_SESSION_ID_IMPERSONATE_SESSION_ID &&
        m->impersonate_session_id[0] != '\0') {
        s->impersonates = authz_text_take(r->texts, sv_from(m->impersonate_session_id));
        list_push_back(&r->impersonating, &s->impersonating);
    }
    s->expires_at_s = seconds_of(m->expires_at);
    if (m->expires_at != NULL && s->expires_at_s <= 0) {
        s->expires_at_s = 1; /* an end at or before 1970 is an end */
    }
}

/* Sealed ones are one word of base64url. */
static void token_set(char **slot, const char *sealed)
{
    mem_free(slot);
    if (sealed != NULL && sealed[0] != '\0') {
        *slot = mem_strdup(sealed);
    }
}

/* Tokens change on their own: they are not part of the digest. */
static void session_tokens(const struct authz_replica *r, struct authz_session *s,
                           const Session__Session *m)
{
    if (r->keep_tokens) {
        token_set(&s->access_token, m->oauth_token == NULL ? NULL : m->oauth_token->access_token);
        token_set(&s->id_token, m->id_token == NULL ? NULL : m->id_token->raw);
    }
}

static bool session_put(struct authz_replica *r, struct sv id, const Databroker__Record *record,
                        const Session__Session *m)
{
    struct authz_session *s = map_get(r->sessions, id);
    uint64_t digest = session_digest(m);
    struct authz_claims *claims = NULL;

    if (s != NULL && s->digest == digest) {
        s->version = record->version;
        s->at_s = seconds_of(record->modified_at);
        session_tokens(r, s, m);
        return true;
    }
    if (session_claims(r, m, &claims) != ERR_OK) {
        return false;
    }
    if (s == NULL) {
        s = MEM_NEW(struct authz_session);
        list_init(&s->of_person);
        list_init(&s->impersonating);
        s->id = authz_text_take(r->texts, id);
        (void)map_set(r->sessions, id, s);
    }
    session_fill(r, s, m, claims);
    session_tokens(r, s, m);
    s->version = record->version;
    s->at_s = seconds_of(record->modified_at);
    s->digest = digest;
    session_touch(r, s);
    return true;
}

/* Somebody without a login: the claims and groups are the user's alone. */
static bool account_put(struct authz_replica *r, struct sv id, const Databroker__Record *record,
                        const User__ServiceAccount *m)
{
    Session__Session s = SESSION__SESSION__INIT;

    s.id = m->id;
    s.user_id = m->user_id;
    s.expires_at = m->expires_at;
    s.issued_at = m->issued_at;
    return m->user_id[0] != '\0' && session_put(r, id, record, &s);
}

/* --- users and directory users ---------------------------------------------------------------- */

static bool user_put(struct authz_replica *r, const Databroker__Record *record, const User__User *m)
{
    struct authz_claims *claims = NULL;
    uint64_t digest = digest_of(&m->base);
    struct authz_claim_entry *entries = mem_array(m->n_claims + 1, sizeof(*entries));

    for (size_t i = 0; i < m->n_claims; i++) {
        entries[i].name = m->claims[i]->key;
        entries[i].values = m->claims[i]->value;
    }
    enum err err = authz_claims_new(r->texts, entries, m->n_claims, &claims);
    mem_free(&entries);
    if (err != ERR_OK) {
        return false;
    }
    struct authz_person *p = person_take(r, sv_from(record->id));
    bool same = p->user_version != 0 && p->user_digest == digest;

    person_clear_user(r, p);
    p->user_version = record->version;
    p->user_digest = digest;
    p->user_at_s = seconds_of(record->modified_at);
    p->name = authz_text_take(r->texts, sv_from(m->name));
    p->email = authz_text_take(r->texts, sv_from(m->email));
    p->claims = claims;
    if (!same) {
        person_touch(r, p);
    }
    return true;
}

static const Google__Protobuf__Value *field_of(const Google__Protobuf__Struct *m, const char *name)
{
    const Google__Protobuf__Value *found = NULL;

    for (size_t i = 0; i < m->n_fields; i++) {
        if (strcmp(m->fields[i]->key, name) == 0) {
            found = m->fields[i]->value; /* the last one counts */
        }
    }
    return found;
}

static struct sv text_field(const Google__Protobuf__Struct *m, const char *name)
{
    const Google__Protobuf__Value *v = field_of(m, name);

    return v != NULL && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE
               ? sv_from(v->string_value)
               : sv_from(NULL);
}

static bool groups_put(struct authz_replica *r, struct authz_person *p,
                       const Google__Protobuf__Value *v)
{
    const Google__Protobuf__ListValue *list =
        v != NULL && v->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE ? v->list_value
                                                                              : NULL;
    size_t n = list != NULL ? list->n_values : 0;

    if (n > AUTHZ_GROUPS_MAX) {
        return false;
    }
    p->groups = mem_array(n + 1, sizeof(*p->groups));
    for (size_t i = 0; i < n; i++) {
        const Google__Protobuf__Value *one = list->values[i];

        if (one->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
            p->groups[p->n_groups++] = authz_text_take(r->texts, sv_from(one->string_value));
        }
    }
    return true;
}

static bool directory_put(struct authz_replica *r, const Databroker__Record *record,
                          const Google__Protobuf__Struct *m)
{
    uint64_t digest = digest_of(&m->base);
    struct authz_person *p = person_take(r, sv_from(record->id));
    bool same = p->directory_version != 0 && p->directory_digest == digest;

    person_clear_directory(r, p);
    if (!groups_put(r, p, field_of(m, "group_ids"))) {
        person_touch(r, p);
        person_drop_if_unused(r, p);
        return false;
    }
    p->directory_version = record->version;
    p->directory_digest = digest;
    p->directory_at_s = seconds_of(record->modified_at);
    p->directory_email = authz_text_take(r->texts, text_field(m, "email"));
    p->directory_name = authz_text_take(r->texts, text_field(m, "display_name"));
    if (!same) {
        person_touch(r, p);
    }
    return true;
}

/* --- records ---------------------------------------------------------------------------------- */

enum record_type { TYPE_OTHER = 0, TYPE_SESSION, TYPE_USER, TYPE_DIRECTORY, TYPE_ACCOUNT };

static enum record_type type_of(const Databroker__Record *record)
{
    struct sv type = sv_from(record->type);

    if (sv_eq(type, SV(AUTHZ_TYPE_SESSION))) {
        return TYPE_SESSION;
    }
    if (sv_eq(type, SV(AUTHZ_TYPE_USER))) {
        return TYPE_USER;
    }
    if (sv_eq(type, SV(AUTHZ_TYPE_ACCOUNT))) {
        return TYPE_ACCOUNT;
    }
    return sv_eq(type, SV(AUTHZ_TYPE_DIRECTORY)) ? TYPE_DIRECTORY : TYPE_OTHER;
}

static bool is_session(enum record_type type)
{
    return type == TYPE_SESSION || type == TYPE_ACCOUNT;
}

enum { ACCOUNT_KEY_MAX = 1024 };

/* Under which the record is held. {NULL, 0}: it is none that could be. */
static struct sv key_of(const Databroker__Record *record, enum record_type type,
                        char room[ACCOUNT_KEY_MAX])
{
    struct sv prefix = SV(TOKEN_ACCOUNT);
    struct sv id = sv_from(record->id);

    if (id.n == 0 || type == TYPE_OTHER || (type == TYPE_SESSION && sv_starts(id, prefix))) {
        return (struct sv){ 0 };
    }
    if (type != TYPE_ACCOUNT) {
        return id;
    }
    if (id.n > ACCOUNT_KEY_MAX - prefix.n) {
        return (struct sv){ 0 };
    }
    memcpy(room, prefix.p, prefix.n);
    memcpy(room + prefix.n, id.p, id.n);
    return sv_of(room, prefix.n + id.n);
}

static uint64_t version_held(const struct authz_replica *r, enum record_type type, struct sv id)
{
    const struct authz_session *s = NULL;
    const struct authz_person *p = NULL;

    if (is_session(type)) {
        s = map_get(r->sessions, id);
        return s != NULL ? s->version : 0;
    }
    p = map_get(r->persons, id);
    if (p == NULL) {
        return 0;
    }
    return type == TYPE_USER ? p->user_version : p->directory_version;
}

static void record_remove(struct authz_replica *r, enum record_type type, struct sv id)
{
    if (is_session(type)) {
        session_remove(r, id);
        return;
    }
    struct authz_person *p = map_get(r->persons, id);

    if (p == NULL || (type == TYPE_USER ? p->user_version : p->directory_version) == 0) {
        return;
    }
    if (type == TYPE_USER) {
        person_clear_user(r, p);
    } else {
        person_clear_directory(r, p);
    }
    person_touch(r, p);
    person_drop_if_unused(r, p);
}

static bool record_put(struct authz_replica *r, enum record_type type, struct sv key,
                       const Databroker__Record *record)
{
    static const ProtobufCMessageDescriptor *const as[] = {
        [TYPE_SESSION] = &session__session__descriptor,
        [TYPE_USER] = &user__user__descriptor,
        [TYPE_DIRECTORY] = &google__protobuf__struct__descriptor,
        [TYPE_ACCOUNT] = &user__service_account__descriptor,
    };
    ProtobufCMessage *m = NULL;
    bool ok = false;

    if (record->data == NULL ||
        rpc_unpack(as[type], sv_of(record->data->value.data, record->data->value.len), NULL, &m) !=
            ERR_OK) {
        return false;
    }
    switch (type) {
    case TYPE_SESSION:
        ok = session_put(r, key, record, (const Session__Session *)(const void *)m);
        break;
    case TYPE_ACCOUNT:
        ok = account_put(r, key, record, (const User__ServiceAccount *)(const void *)m);
        break;
    case TYPE_USER:
        ok = user_put(r, record, (const User__User *)(const void *)m);
        break;
    case TYPE_DIRECTORY:
        ok = directory_put(r, record, (const Google__Protobuf__Struct *)(const void *)m);
        break;
    case TYPE_OTHER:
        break;
    }
    protobuf_c_message_free_unpacked(m, NULL);
    return ok;
}

static void tell_unreadable(struct authz_replica *r, const Databroker__Record *record)
{
    static struct log_limit limit;

    r->unreadable++;
    if (log_limit_pass(&limit, 5)) {
        log_warn("replica.unreadable", KV_STR("type", record->type), KV_STR("id", record->id),
                 KV_U64("version", record->version));
    }
}

static void record_take(struct authz_replica *r, const Databroker__Record *record)
{
    enum record_type type = type_of(record);
    char room[ACCOUNT_KEY_MAX];
    struct sv key = key_of(record, type, room);

    if (type == TYPE_OTHER) {
        if (!authz_data_apply(r->data, record)) {
            tell_unreadable(r, record);
        }
        return;
    }
    if (key.n == 0 || record->version <= version_held(r, type, key)) {
        return;
    }
    if (record->deleted_at != NULL) {
        record_remove(r, type, key);
        return;
    }
    if (!record_put(r, type, key, record)) {
        record_remove(r, type, key);
        tell_unreadable(r, record);
    }
}

void authz_replica_apply(struct authz_replica *r, const Databroker__Record *record)
{
    record_take(r, record);
    authz_replica_set_version(r, record->version);
}

void authz_replica_apply_ahead(struct authz_replica *r, const Databroker__Record *record)
{
    /* Up to its version the stream knows better: it may have seen the end of this record. */
    if (record->version > r->version) {
        record_take(r, record);
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

struct authz_replica *authz_replica_new(void)
{
    struct authz_replica *r = MEM_NEW(struct authz_replica);

    r->texts = authz_texts_new();
    r->sessions = map_new();
    r->persons = map_new();
    r->data = authz_data_new(r->texts);
    list_init(&r->impersonating);
    return r;
}

static void free_session(struct sv key, void *value, void *arg)
{
    struct authz_session *s = value;

    (void)key;
    list_remove(&s->of_person);
    s->person = NULL; /* persons go after all sessions */
    session_free(arg, s);
}

static void free_person(struct sv key, void *value, void *arg)
{
    (void)key;
    person_free(arg, value);
}

void authz_replica_free(struct authz_replica **replica)
{
    struct authz_replica *r = TAKE(*replica);

    if (r == NULL) {
        return;
    }
    map_each(r->sessions, free_session, r);
    map_each(r->persons, free_person, r);
    map_free(&r->sessions);
    map_free(&r->persons);
    authz_data_free(&r->data);
    authz_texts_free(&r->texts);
    mem_free(&r);
}

void authz_replica_keep_tokens(struct authz_replica *r, bool keep)
{
    r->keep_tokens = keep;
}

void authz_replica_on_change(struct authz_replica *r, authz_changed_fn changed, void *arg)
{
    r->changed = changed;
    r->changed_arg = arg;
}

uint64_t authz_replica_version(const struct authz_replica *r)
{
    return r->version;
}

void authz_replica_set_version(struct authz_replica *r, uint64_t version)
{
    r->version = MAX(r->version, version);
}

const struct authz_session *authz_replica_session(const struct authz_replica *r, struct sv id)
{
    return map_get(r->sessions, id);
}

bool authz_session_live(const struct authz_session *s, int64_t now_s)
{
    return s->expires_at_s == 0 || now_s < s->expires_at_s;
}

const struct authz_session *authz_replica_effective(const struct authz_replica *r,
                                                    const struct authz_session *s, int64_t now_s)
{
    if (s->impersonates.s.n == 0) {
        return s;
    }
    const struct authz_session *other = map_get(r->sessions, s->impersonates.s);

    return other != NULL && authz_session_live(other, now_s) ? other : NULL;
}

static uint64_t mix(uint64_t sum, uint64_t digest)
{
    return (sum << 7U | sum >> 57U) ^ digest;
}

uint64_t authz_session_facts(const struct authz_session *s, const struct authz_session *effective)
{
    const struct authz_person *p = effective->person;
    uint64_t sum = mix(s->digest, effective->digest);

    sum = mix(sum, p->user_version != 0 ? p->user_digest : 0);
    return mix(sum, p->directory_version != 0 ? p->directory_digest : 0);
}

const struct authz_data *authz_replica_data(const struct authz_replica *r)
{
    return r->data;
}

struct person_search {
    struct sv email;
    const struct authz_person *found;
    size_t n;
};

static void look_at_person(struct sv key, void *value, void *arg)
{
    struct person_search *search = arg;
    const struct authz_person *p = value;

    (void)key;
    if (sv_ieq(authz_person_email(p), search->email)) {
        search->found = p;
        search->n++;
    }
}

const struct authz_person *authz_replica_person(const struct authz_replica *r, struct sv who,
                                                size_t *n_out)
{
    struct person_search search = { .email = who };

    search.found = who.n == 0 ? NULL : map_get(r->persons, who);
    search.n = search.found != NULL ? 1 : 0;
    if (search.found == NULL && who.n != 0) {
        map_each(r->persons, look_at_person, &search);
    }
    *n_out = search.n;
    return search.found;
}

const struct authz_session *authz_person_session(const struct authz_person *p, int64_t now_s,
                                                 size_t *n_out)
{
    const struct authz_session *newest = NULL;
    struct list *it;

    *n_out = 0;
    LIST_FOREACH(it, &p->sessions) {
        const struct authz_session *s = LIST_ENTRY(it, struct authz_session, of_person);

        if (!authz_session_live(s, now_s)) {
            continue;
        }
        (*n_out)++;
        newest = newest == NULL || s->version > newest->version ? s : newest;
    }
    return newest;
}

void authz_session_input(const struct authz_session *s, struct policy_input *in)
{
    authz_person_input(s->person, in);
    in->session_id = s->id.s;
    in->session_claims = authz_claims_view(s->claims);
    in->idp = s->idp;
}

void authz_person_input(const struct authz_person *p, struct policy_input *in)
{
    in->session = true;
    in->user_id = p->id;
    in->email = p->email;
    in->user_claims = authz_claims_view(p->claims);
    in->directory = p->directory_version != 0;
    in->directory_email = p->directory_email;
    in->groups = p->groups;
    in->group_count = p->n_groups;
}

struct sv authz_person_email(const struct authz_person *p)
{
    return p->directory_email.s.n > 0 ? p->directory_email.s : p->email.s;
}

struct sv authz_person_name(const struct authz_person *p)
{
    return p->name.s.n > 0 ? p->name.s : p->directory_name.s;
}

struct sv authz_session_kept(const struct authz_session *s)
{
    return sv_of(s->kept, s->n_kept);
}

void authz_session_keep(const struct authz_session *s, struct sv text)
{
    struct authz_session *mine = base_unconst(s); /* a memory, no part of what s says */

    if (text.n <= AUTHZ_KEPT_MAX) {
        mem_free(&mine->kept);
        mine->kept = mem_dup(text.p, text.n);
        mine->n_kept = text.n;
    }
}

void authz_replica_count(const struct authz_replica *r, struct authz_replica_counts *counts_out)
{
    counts_out->sessions = map_count(r->sessions);
    counts_out->persons = map_count(r->persons);
    counts_out->rows = authz_data_rows(r->data);
    counts_out->texts = authz_texts_count(r->texts);
    counts_out->unreadable = r->unreadable;
}
