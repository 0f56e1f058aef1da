#include "authorize/replica.h"

#include <stddef.h>
#include <string.h>

#include "user.pb-c.h"

#include "authorize/replica_int.h"
#include "authorize/use.h"
#include "common/crypto/token.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/rpc/scan.h"

static struct sv session_key(const void *item)
{
    return authz_session_id(item);
}

static struct sv person_key(const void *item)
{
    return authz_person_id(item);
}

/* A text of the slab. */
static void word_set(struct authz_replica *r, struct sv *word, struct sv s)
{
    char *copy = s.n == 0 ? NULL : slab_take(r->slab, s.n + 1);

    if (copy != NULL) {
        memcpy(copy, s.p, s.n);
        copy[s.n] = '\0';
    }
    slab_give(r->slab, base_unconst(word->p), word->n + 1);
    *word = sv_of(copy, s.n);
}

/* --- change ----------------------------------------------------------------------------------- */

static void tell(struct authz_replica *r, const struct authz_session *s)
{
    if (r->changed != NULL) {
        r->changed(r->changed_arg, authz_session_id(s));
    }
}

/* s ended or changed, and with it every session that acts in its name. What was made from them is
 * stale from now on. */
static void session_touch(struct authz_replica *r, struct authz_session *s)
{
    struct list *it;
    bool new = s->epoch == 0;

    s->epoch = ++r->epoch;
    if (!new) { /* nothing is open yet for one that just came */
        tell(r, s);
    }
    LIST_FOREACH(it, &r->impersonating) {
        const struct authz_session_more *more =
            LIST_ENTRY(it, struct authz_session_more, impersonating);

        if (more->session != s && sv_eq(more->impersonates, authz_session_id(s))) {
            more->session->epoch = ++r->epoch;
            tell(r, more->session);
        }
    }
}

static void person_touch(struct authz_replica *r, struct authz_person *p)
{
    for (struct authz_session *s = p->sessions; s != NULL; s = s->next) {
        session_touch(r, s);
    }
}

/* --- persons ---------------------------------------------------------------------------------- */

static struct authz_person *person_take(struct authz_replica *r, struct sv id)
{
    struct authz_person *p = keyed_get(r->persons, id);

    if (p == NULL) {
        const struct authz_person_facts facts = { .text = { [AUTHZ_PERSON_ID] = id } };

        p = authz_person_new(r->slab, &facts, NULL);
        (void)keyed_set(r->persons, p);
    }
    return p;
}

static void groups_drop(struct authz_replica *r, struct sv packed)
{
    while (packed.n > 0) {
        authz_text_drop(r->texts, authz_groups_next(&packed));
    }
}

/* Another person of those facts takes p's place everywhere. Claims that are not among them go: only now,
 * since texts of the facts may stand in them. */
static struct authz_person *person_remake(struct authz_replica *r, struct authz_person *p,
                                          const struct authz_person_facts *facts)
{
    struct authz_person *new = authz_person_new(r->slab, facts, p);
    struct authz_claims *gone = p->claims != new->claims ? p->claims : NULL;

    r->unpacked->groups_of = NULL;
    (void)keyed_set(r->persons, new);
    for (struct authz_session *s = new->sessions; s != NULL; s = s->next) {
        s->person = new;
    }
    authz_person_free(r->slab, &p);
    authz_claims_free(r->texts, &gone);
    return new;
}

static struct authz_person *person_clear_user(struct authz_replica *r, struct authz_person *p)
{
    struct authz_person_facts facts = authz_person_facts(p);

    facts.text[AUTHZ_PERSON_NAME] = SV("");
    facts.text[AUTHZ_PERSON_EMAIL] = SV("");
    facts.text[AUTHZ_PERSON_GROUPS_ERROR] = SV("");
    facts.claims = NULL;
    p->user_version = 0;
    p->user_digest = 0;
    return person_remake(r, p, &facts);
}

static struct authz_person *person_clear_directory(struct authz_replica *r, struct authz_person *p)
{
    struct authz_person_facts facts = authz_person_facts(p);

    groups_drop(r, facts.packed);
    facts.packed = SV("");
    facts.n_groups = 0;
    facts.text[AUTHZ_PERSON_DIRECTORY_NAME] = SV("");
    facts.text[AUTHZ_PERSON_DIRECTORY_EMAIL] = SV("");
    p->directory_version = 0;
    p->directory_digest = 0;
    return person_remake(r, p, &facts);
}

static void person_drop_if_unused(struct authz_replica *r, struct authz_person *p)
{
    if (p->user_version == 0 && p->directory_version == 0 && p->sessions == NULL) {
        (void)keyed_take(r->persons, authz_person_id(p));
        r->unpacked->groups_of = NULL;
        authz_person_free(r->slab, &p); /* without records it has neither claims nor groups */
    }
}

/* --- sessions --------------------------------------------------------------------------------- */

static size_t session_size(size_t n_id)
{
    return offsetof(struct authz_session, id) + n_id + 1;
}

static void session_link(struct authz_session *s, struct authz_person *p)
{
    s->person = p;
    s->prev = NULL;
    s->next = p->sessions;
    if (s->next != NULL) {
        s->next->prev = s;
    }
    p->sessions = s;
}

static void session_unlink(struct authz_session *s)
{
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        s->person->sessions = s->next;
    }
}

static void more_free(struct authz_replica *r, struct authz_session_more **more)
{
    struct authz_session_more *m = TAKE(*more);

    if (m != NULL) {
        list_remove(&m->impersonating);
        word_set(r, &m->impersonates, SV(""));
        word_set(r, &m->access_token, SV(""));
        word_set(r, &m->id_token, SV(""));
        slab_give(r->slab, m, sizeof(*m));
    }
}

/* Takes note of what few sessions have. */
static void session_more(struct authz_replica *r, struct authz_session *s, struct sv impersonates,
                         struct sv access_token, struct sv id_token)
{
    struct authz_session_more *m = s->more;

    if (impersonates.n + access_token.n + id_token.n == 0) {
        more_free(r, &s->more);
        return;
    }
    if (m == NULL) {
        m = slab_take(r->slab, sizeof(*m));
        *m = (struct authz_session_more){ .session = s };
        list_init(&m->impersonating);
        s->more = m;
    }
    list_remove(&m->impersonating);
    word_set(r, &m->impersonates, impersonates);
    if (impersonates.n != 0) {
        list_push_back(&r->impersonating, &m->impersonating);
    }
    word_set(r, &m->access_token, access_token);
    word_set(r, &m->id_token, id_token);
}

_Static_assert(offsetof(struct authz_session, id) + RAND_UUID_SIZE == 128,
               "two lines, as replica.h says");

static struct authz_session *session_new(struct authz_replica *r, struct sv id)
{
    struct authz_session *s = slab_take(r->slab, session_size(id.n));

    memset(s, 0, session_size(id.n));
    CHECK(id.n <= AUTHZ_SESSION_ID_MAX);
    s->n_id = (uint16_t)id.n;
    memcpy(s->id, id.p, id.n);
    (void)keyed_set(r->sessions, s);
    return s;
}

static void session_remove(struct authz_replica *r, struct sv id)
{
    struct authz_session *s = keyed_take(r->sessions, id);

    if (s == NULL) {
        return;
    }
    session_touch(r, s);
    session_unlink(s);
    person_drop_if_unused(r, s->person);
    authz_claims_free(r->texts, &s->claims);
    authz_text_drop(r->texts, s->idp);
    more_free(r, &s->more);
    slab_give(r->slab, s, session_size(s->n_id));
}

static int64_t seconds_of(const Google__Protobuf__Timestamp *t)
{
    return t != NULL ? t->seconds : 0;
}

/* As the replica keeps times: of our days. */
static uint32_t kept_time(int64_t seconds)
{
    return (uint32_t)MIN(MAX(seconds, (int64_t)0), (int64_t)UINT32_MAX);
}

static uint32_t written_at(const Databroker__Record *record)
{
    return kept_time(seconds_of(record->modified_at));
}

static void session_fill(struct authz_replica *r, struct authz_session *s,
                         const struct authz_session_record *m, struct authz_claims *claims)
{
    struct authz_person *p = person_take(r, m->user_id);
    struct authz_person *old = s->person;
    uint32_t idp = authz_text_take(r->texts, m->issuer);

    if (old != p) {
        if (old != NULL) {
            session_unlink(s);
            person_drop_if_unused(r, old);
        }
        session_link(s, p);
    }
    authz_claims_free(r->texts, &s->claims);
    s->claims = claims;
    (void)authz_claims_share(r->texts, &s->claims, p->claims); /* as a login writes them */
    authz_text_drop(r->texts, s->idp);
    s->idp = idp;
    s->issued_at_s = kept_time(m->issued_at_s);
    s->authenticated_at_s =
        kept_time(m->has_authenticated_at ? m->authenticated_at_s : m->issued_at_s);
    s->expires_at_s = kept_time(m->expires_at_s);
    if (m->ends && s->expires_at_s == 0) {
        s->expires_at_s = 1; /* an end at or before 1970 is an end */
    }
}

/* Tokens change on their own: they are not part of the digest. */
static void session_extras(struct authz_replica *r, struct authz_session *s,
                           const struct authz_session_record *m)
{
    struct sv access_token = r->keep_tokens ? m->access_token : authz_session_access_token(s);
    struct sv id_token = r->keep_tokens ? m->id_token : authz_session_id_token(s);

    session_more(r, s, m->impersonates, access_token, id_token);
}

static bool session_put(struct authz_replica *r, struct sv id, const Databroker__Record *record,
                        const struct authz_session_record *m)
{
    struct authz_session *s = keyed_get(r->sessions, id);
    bool same = s != NULL && s->digest == m->digest;

    if (!same) {
        struct authz_claims *claims = NULL;

        if (authz_claims_new(r->texts, m->claims, m->n_claims, &claims) != ERR_OK) {
            return false;
        }
        if (s == NULL) {
            s = session_new(r, id);
            authz_uses_begin(r->uses, s, m->issued_at_s);
        }
        session_fill(r, s, m, claims);
    }
    session_extras(r, s, m);
    s->version = record->version;
    s->at_s = written_at(record);
    s->digest = m->digest;
    if (!same) {
        session_touch(r, s);
    }
    return true;
}

/* Somebody without a login: the claims and groups are the user's alone. */
static bool account_put(struct authz_replica *r, struct sv id, const Databroker__Record *record,
                        struct sv bytes)
{
    struct authz_session_record *s = &r->room->session;
    ProtobufCMessage *message = NULL;

    if (rpc_unpack(&user__service_account__descriptor, bytes, &r->arena, &message) != ERR_OK) {
        return false;
    }
    const User__ServiceAccount *m = (const User__ServiceAccount *)(const void *)message;

    memset(s, 0, offsetof(struct authz_session_record, claims));
    s->user_id = sv_from(m->user_id);
    s->ends = m->expires_at != NULL;
    s->expires_at_s = seconds_of(m->expires_at);
    s->issued_at_s = seconds_of(m->issued_at);
    s->digest = map_hash(bytes);
    return s->user_id.n != 0 && session_put(r, id, record, s);
}

/* --- users and directory users ---------------------------------------------------------------- */

enum { SHARERS_MAX = 8 }; /* sessions of a person that are looked at */

/* A login writes the same claims to the user and to the session. */
static void claims_share(struct authz_replica *r, const struct authz_person *p,
                         struct authz_claims **claims)
{
    size_t left = SHARERS_MAX;

    for (const struct authz_session *s = p->sessions; s != NULL && left > 0; s = s->next) {
        left = authz_claims_share(r->texts, claims, s->claims) ? 0 : left - 1;
    }
}

static bool user_put(struct authz_replica *r, const Databroker__Record *record, struct sv bytes)
{
    struct authz_user_record *m = &r->room->user;
    struct authz_claims *claims = NULL;
    uint64_t digest = map_hash(bytes);
    struct authz_person *p = keyed_get(r->persons, sv_from(record->id));

    if (p != NULL && p->user_version != 0 && p->user_digest == digest) {
        p->user_version = record->version;
        p->user_at_s = written_at(record);
        return true;
    }
    if (authz_user_read(bytes, m) != ERR_OK ||
        authz_claims_new(r->texts, m->claims, m->n_claims, &claims) != ERR_OK) {
        return false;
    }
    p = person_take(r, sv_from(record->id));
    claims_share(r, p, &claims);
    struct authz_claims *twice = claims != NULL && claims == p->claims ? claims : NULL;

    authz_claims_free(r->texts, &twice); /* the person has its reference already */
    p->user_version = record->version;
    p->user_digest = digest;
    p->user_at_s = written_at(record);
    struct authz_person_facts facts = authz_person_facts(p);

    facts.claims = claims;
    facts.text[AUTHZ_PERSON_NAME] = m->name;
    facts.text[AUTHZ_PERSON_EMAIL] = m->email;
    facts.text[AUTHZ_PERSON_GROUPS_ERROR] = m->groups_error;
    person_touch(r, person_remake(r, p, &facts));
    return true;
}

/* Returns how many. */
static size_t groups_pack(struct authz_replica *r, struct sv list, struct buf *packed)
{
    struct authz_value one;
    size_t n = 0;
    enum err err = ERR_OK;

    while (authz_value_next(&list, &one, &err)) {
        if (one.kind == AUTHZ_VALUE_TEXT) {
            authz_groups_pack(packed, authz_text_take(r->texts, one.text));
            n++;
        }
    }
    CHECK(err == ERR_OK &&
          packed->err == ERR_OK); /* it was read before, and it is not longer now */
    return n;
}

static bool directory_put(struct authz_replica *r, const Databroker__Record *record,
                          struct sv bytes)
{
    struct authz_directory_record m;
    uint64_t digest = map_hash(bytes);
    struct authz_person *p = keyed_get(r->persons, sv_from(record->id));
    struct buf *packed = authz_texts_room(r->texts);

    if (p != NULL && p->directory_version != 0 && p->directory_digest == digest) {
        p->directory_version = record->version;
        p->directory_at_s = written_at(record);
        return true;
    }
    if (authz_directory_read(bytes, &m) != ERR_OK || m.n_groups > AUTHZ_GROUPS_MAX) {
        return false;
    }
    buf_reset(packed);
    p = person_take(r, sv_from(record->id));
    struct authz_person_facts facts = authz_person_facts(p);

    facts.n_groups = groups_pack(r, m.groups, packed);
    groups_drop(r, facts.packed);
    facts.packed = buf_sv(packed);
    facts.text[AUTHZ_PERSON_DIRECTORY_EMAIL] = m.email;
    facts.text[AUTHZ_PERSON_DIRECTORY_NAME] = m.name;
    p->directory_version = record->version;
    p->directory_digest = digest;
    p->directory_at_s = written_at(record);
    person_touch(r, person_remake(r, p, &facts));
    return true;
}

/* --- records ---------------------------------------------------------------------------------- */

enum record_type {
    TYPE_OTHER = 0,
    TYPE_SESSION,
    TYPE_USER,
    TYPE_DIRECTORY,
    TYPE_ACCOUNT,
    TYPE_ACCESS
};

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
    if (sv_eq(type, SV(AUTHZ_TYPE_ACCESS))) {
        return TYPE_ACCESS;
    }
    return sv_eq(type, SV(AUTHZ_TYPE_DIRECTORY)) ? TYPE_DIRECTORY : TYPE_OTHER;
}

static bool is_session(enum record_type type)
{
    return type == TYPE_SESSION || type == TYPE_ACCOUNT;
}

/* Under which the record is held. {NULL, 0}: it is none that could be. */
static struct sv key_of(const Databroker__Record *record, enum record_type type,
                        char room[AUTHZ_SESSION_ID_MAX])
{
    struct sv prefix = SV(TOKEN_ACCOUNT);
    struct sv id = sv_from(record->id);

    if (id.n == 0 || type == TYPE_OTHER || (type == TYPE_SESSION && sv_starts(id, prefix))) {
        return (struct sv){ 0 };
    }
    if (type == TYPE_USER || type == TYPE_DIRECTORY) {
        return id;
    }
    if (type == TYPE_SESSION || type == TYPE_ACCESS) {
        return id.n <= AUTHZ_SESSION_ID_MAX ? id : (struct sv){ 0 };
    }
    if (id.n > AUTHZ_SESSION_ID_MAX - prefix.n) {
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

    if (type == TYPE_ACCESS) {
        return 0; /* the latest use counts, in whatever order they are told */
    }
    if (is_session(type)) {
        s = keyed_get(r->sessions, id);
        return s != NULL ? s->version : 0;
    }
    p = keyed_get(r->persons, id);
    if (p == NULL) {
        return 0;
    }
    return type == TYPE_USER ? p->user_version : p->directory_version;
}

static void record_remove(struct authz_replica *r, enum record_type type, struct sv id)
{
    if (type == TYPE_ACCESS) {
        authz_uses_drop(r->uses, id);
        return;
    }
    if (is_session(type)) {
        session_remove(r, id);
        return;
    }
    struct authz_person *p = keyed_get(r->persons, id);

    if (p == NULL || (type == TYPE_USER ? p->user_version : p->directory_version) == 0) {
        return;
    }
    p = type == TYPE_USER ? person_clear_user(r, p) : person_clear_directory(r, p);
    person_touch(r, p);
    person_drop_if_unused(r, p);
}

static bool record_put(struct authz_replica *r, enum record_type type, struct sv key,
                       const Databroker__Record *record)
{
    if (record->data == NULL) {
        return false;
    }
    struct authz_session_record *session = &r->room->session;
    struct sv bytes = sv_of(record->data->value.data, record->data->value.len);

    switch (type) {
    case TYPE_SESSION:
        return authz_session_read(bytes, session) == ERR_OK && session_put(r, key, record, session);
    case TYPE_ACCOUNT:
        return account_put(r, key, record, bytes);
    case TYPE_USER:
        return user_put(r, record, bytes);
    case TYPE_DIRECTORY:
        return directory_put(r, record, bytes);
    case TYPE_ACCESS:
        return authz_uses_put(r->uses, key, keyed_get(r->sessions, key), bytes, &r->arena);
    case TYPE_OTHER:
        break;
    }
    return false;
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
    char room[AUTHZ_SESSION_ID_MAX];
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
    arena_reset(&r->arena);
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
    r->slab = authz_texts_slab(r->texts);
    r->sessions = keyed_new(session_key, r->slab);
    r->persons = keyed_new(person_key, r->slab);
    r->uses = authz_uses_new();
    r->data = authz_data_new(r->texts);
    r->unpacked = MEM_NEW(struct unpacked);
    r->room = MEM_NEW(struct record_room);
    arena_init(&r->arena);
    list_init(&r->impersonating);
    return r;
}

static void unpacked_free(struct unpacked **unpacked)
{
    struct unpacked *u = *unpacked;

    authz_claim_room_deinit(&u->session);
    authz_claim_room_deinit(&u->user);
    mem_free(&u->groups);
    mem_free(unpacked);
}

/* Nearly everything is in the slab: nobody has to go through a million sessions. */
void authz_replica_free(struct authz_replica **replica)
{
    struct authz_replica *r = TAKE(*replica);

    if (r == NULL) {
        return;
    }
    keyed_free(&r->sessions);
    keyed_free(&r->persons);
    authz_uses_free(&r->uses);
    authz_data_free(&r->data);
    unpacked_free(&r->unpacked);
    mem_free(&r->room);
    authz_texts_free(&r->texts);
    arena_deinit(&r->arena);
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
    return keyed_get(r->sessions, id);
}

bool authz_session_live(const struct authz_session *s, int64_t now_s)
{
    return s->expires_at_s == 0 || now_s < s->expires_at_s;
}

const struct authz_session *authz_replica_effective(const struct authz_replica *r,
                                                    const struct authz_session *s, int64_t now_s)
{
    struct sv id = authz_session_impersonates(s);

    if (id.n == 0) {
        return s;
    }
    const struct authz_session *other = keyed_get(r->sessions, id);

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

static void look_at_person(void *item, void *arg)
{
    struct person_search *search = arg;
    const struct authz_person *p = item;

    if (sv_ieq(authz_person_email(p), search->email)) {
        search->found = p;
        search->n++;
    }
}

const struct authz_person *authz_replica_person(const struct authz_replica *r, struct sv who,
                                                size_t *n_out)
{
    struct person_search search = { .email = who };

    search.found = who.n == 0 ? NULL : keyed_get(r->persons, who);
    search.n = search.found != NULL ? 1 : 0;
    if (search.found == NULL && who.n != 0) {
        keyed_each(r->persons, look_at_person, &search);
    }
    *n_out = search.n;
    return search.found;
}

const struct authz_session *authz_person_session(const struct authz_person *p, int64_t now_s,
                                                 size_t *n_out)
{
    const struct authz_session *newest = NULL;

    *n_out = 0;
    for (const struct authz_session *s = p->sessions; s != NULL; s = s->next) {
        if (!authz_session_live(s, now_s)) {
            continue;
        }
        (*n_out)++;
        newest = newest == NULL || s->version > newest->version ? s : newest;
    }
    return newest;
}

void authz_replica_count(const struct authz_replica *r, struct authz_replica_counts *counts_out)
{
    counts_out->sessions = keyed_count(r->sessions);
    counts_out->persons = keyed_count(r->persons);
    counts_out->rows = authz_data_rows(r->data);
    counts_out->texts = authz_texts_count(r->texts);
    counts_out->bytes = slab_bytes(r->slab);
    counts_out->unreadable = r->unreadable;
}
