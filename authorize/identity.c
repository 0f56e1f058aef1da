#include "authorize/identity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/crypto/seal.h"
#include "common/log.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    WAYS = 4,
    SETS = AUTHZ_IDENTITIES_MAX / WAYS,
    TEXT_MAX = 64 * 1024,
    DRAFT_MAX = AUTHZ_BLOCK_HEADERS_MAX + AUTHZ_BLOCK_FACTS_MAX
};

/* One place of the cache. */
struct entry {
    struct authz_identity identity; /* serial 0: free */
    uint64_t epoch;
    uint64_t host_hash;
    struct sv host; /* points into text */
    size_t profile;
    int64_t made_s;
    uint64_t used; /* tick of the last use */
    char *text;    /* host, names and values */
    size_t n_text;
    size_t bytes;
};

struct authz_identities {
    struct entry *entries; /* SETS * WAYS */
    size_t bytes;
    size_t hand; /* where the next sweep begins */
    uint64_t tick;
    uint64_t serial;
};

/* --- claims ----------------------------------------------------------------------------------- */

static void add_scalar(struct buf *out, const struct policy_scalar *v)
{
    switch (v->kind) {
    case POLICY_KIND_STRING:
        buf_add_sv(out, v->text.s);
        break;
    case POLICY_KIND_NUMBER:
        if (fabs(v->number) < 9007199254740992.0 && v->number == floor(v->number)) {
            buf_printf(out, "%.0f", v->number);
        } else {
            buf_printf(out, "%.17g", v->number);
        }
        break;
    case POLICY_KIND_BOOL:
        buf_add_str(out, v->flag ? "true" : "false");
        break;
    case POLICY_KIND_NULL:
    case POLICY_KIND_OTHER:
        break;
    }
}

static void add_claim(struct buf *out, const struct policy_claim *claim)
{
    for (size_t i = 0; claim != NULL && i < claim->count; i++) {
        if (i > 0) {
            buf_add_char(out, ',');
        }
        add_scalar(out, &claim->values[i]);
    }
}

static bool passes(const struct authz_profile *profile, struct sv group)
{
    for (size_t i = 0; i < profile->groups_filter.n; i++) {
        if (sv_eq(profile->groups_filter.v[i], group)) {
            return true;
        }
    }
    return profile->groups_filter.n == 0;
}

static json_t *json_text(struct sv s)
{
    json_t *text = json_stringn(s.n > 0 ? s.p : "", s.n);

    return text != NULL ? text : json_string(""); /* only bytes that are not UTF-8 come here */
}

static void add_group(json_t *list, const struct authz_profile *profile, struct sv group)
{
    if (passes(profile, group)) {
        (void)json_array_append_new(list, json_text(group));
    }
}

static const struct policy_claim *claim_of(const struct authz_identity_ask *ask, struct sv name)
{
    const struct policy_claim *claim = authz_session_claim(ask->replica, ask->effective, name);

    return claim != NULL ? claim : authz_person_claim(ask->replica, ask->effective->person, name);
}

/* The directory's group ids, else the provider's groups claim. */
static json_t *groups_of(const struct authz_identity_ask *ask, const struct authz_profile *profile)
{
    const struct authz_person *p = ask->effective->person;
    json_t *list = json_array();

    if (authz_person_groups_from(ask->replica, p) != AUTHZ_GROUPS_UNKNOWN) {
        size_t n = 0;
        const struct policy_text *groups = authz_person_groups(ask->replica, p, &n);

        for (size_t i = 0; i < n; i++) {
            add_group(list, profile, groups[i].s);
        }
        return list;
    }
    const struct policy_claim *claim = claim_of(ask, SV("groups"));

    for (size_t i = 0; claim != NULL && i < claim->count; i++) {
        if (claim->values[i].kind == POLICY_KIND_STRING) {
            add_group(list, profile, claim->values[i].text.s);
        }
    }
    return list;
}

static json_t *base_claims(const struct authz_identity_ask *ask,
                           const struct authz_profile *profile)
{
    const struct authz_session *s = ask->effective;
    struct buf issuer;
    char jti[RAND_UUID_SIZE];
    json_t *c = json_object();

    buf_init(&issuer, 1024);
    buf_add_str(&issuer, profile->issuer == CONFIG_JWT_ISSUER_URI ? "https://" : "");
    buf_add_sv(&issuer, ask->host);
    buf_add_str(&issuer, profile->issuer == CONFIG_JWT_ISSUER_URI ? "/" : "");
    rand_uuid(jti);
    (void)json_object_set_new(c, "iss", json_text(buf_sv(&issuer)));
    (void)json_object_set_new(c, "aud", json_text(ask->host));
    (void)json_object_set_new(c, "jti", json_string(jti));
    (void)json_object_set_new(c, "iat", json_integer(ask->now_s));
    (void)json_object_set_new(c, "exp", json_integer(ask->now_s + ASSERTION_LIFE_S));
    (void)json_object_set_new(c, "sub", json_text(authz_person_id(s->person)));
    (void)json_object_set_new(c, "user", json_text(authz_person_id(s->person)));
    (void)json_object_set_new(c, "email", json_text(authz_person_email(s->person)));
    (void)json_object_set_new(c, "groups", groups_of(ask, profile));
    (void)json_object_set_new(c, "sid", json_text(authz_session_id(s)));
    (void)json_object_set_new(c, "name", json_text(authz_person_name(s->person)));
    buf_deinit(&issuer);
    return c;
}

/* The text of a claim for a header: of the assertion where it has it, else the visitor's own. */
static void claim_text(const json_t *claims, const struct authz_identity_ask *ask, struct sv name,
                       struct buf *out)
{
    const json_t *base = json_object_getn(claims, name.p, name.n);

    if (json_is_string(base)) {
        buf_add(out, json_string_value(base), json_string_length(base));
    } else if (json_is_integer(base)) {
        buf_printf(out, "%lld", (long long)json_integer_value(base));
    } else if (json_is_array(base)) {
        for (size_t i = 0; i < json_array_size(base); i++) {
            const json_t *one = json_array_get(base, i);

            buf_add_str(out, i > 0 ? "," : "");
            buf_add(out, json_string_value(one), json_string_length(one));
        }
    } else {
        add_claim(out, claim_of(ask, name));
    }
}

/* --- one identity ----------------------------------------------------------------------------- */

/* What is being written: offsets into text, since text may move. */
struct draft {
    struct buf text;
    size_t name_at[DRAFT_MAX];
    size_t value_at[DRAFT_MAX];
    size_t end_at[DRAFT_MAX];
    size_t user_at;
    size_t n_user;
    size_t email_at;
    size_t n_email;
    size_t n_headers; /* they stand before the facts */
    size_t n;
    size_t bytes; /* names and values, user and e-mail */
    enum policy_reason reason;
};

static void draft_add(struct draft *draft, struct sv name, struct sv value)
{
    if (draft->n == DRAFT_MAX || draft->bytes + name.n + value.n > AUTHZ_BLOCK_MAX) {
        draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
        return;
    }
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];

        if (c < 0x20 || c == 0x7f) { /* RFC 9110 §5.5; a line break would be another header */
            draft->reason = POLICY_REASON_IDENTITY_INVALID;
            return;
        }
    }
    draft->name_at[draft->n] = draft->text.n;
    buf_add_sv(&draft->text, name);
    buf_add_char(&draft->text, '\0'); /* names go out as C strings */
    draft->value_at[draft->n] = draft->text.n;
    buf_add_sv(&draft->text, value);
    draft->end_at[draft->n] = draft->text.n;
    draft->n++;
    draft->bytes += name.n + value.n;
}

/* The claims of jwt_claims_headers: into the assertion, and as headers where the route sends them. */
static void draft_claims(struct draft *draft, const struct authz_identity_ask *ask,
                         const struct config_pairs *wanted, bool send, json_t *claims)
{
    struct buf value;

    buf_init(&value, AUTHZ_BLOCK_MAX);
    for (size_t i = 0; i < wanted->n && draft->reason == POLICY_REASON_NONE; i++) {
        buf_reset(&value);
        claim_text(claims, ask, wanted->v[i].value, &value);
        if (value.err != ERR_OK) {
            draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
            break;
        }
        if (send) {
            draft_add(draft, wanted->v[i].name, buf_sv(&value));
        }
        if (json_object_getn(claims, wanted->v[i].value.p, wanted->v[i].value.n) == NULL) {
            (void)json_object_setn_new(claims, wanted->v[i].value.p, wanted->v[i].value.n,
                                       json_text(buf_sv(&value)));
        }
    }
    buf_deinit(&value);
}

/* A token of the provider as the session's record holds it: sealed, for this session alone. */
static void draft_token(struct draft *draft, const struct authz_identity_ask *ask, struct sv name,
                        struct sv sealed)
{
    enum err err = ERR_OK;
    struct buf token;

    if (sealed.n == 0 || ask->session != ask->effective) {
        return; /* who acts for somebody else does not get their tokens */
    }
    buf_init(&token, AUTHZ_BLOCK_MAX);
    err =
        seal_open(authz_rules_at_rest(ask->rules), sealed, authz_session_id(ask->session), &token);
    if (err == ERR_OK) {
        draft_add(draft, name, buf_sv(&token));
    } else if (err == ERR_LIMIT) {
        draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
    } /* else sealed with a secret that is gone: as if there was none */
    if (token.p != NULL) {
        secret_wipe(token.p, token.n);
    }
    buf_deinit(&token);
}

static void draft_person(struct draft *draft, const json_t *claims)
{
    const json_t *groups = json_object_get(claims, "groups");
    struct sv user = sv_from(json_string_value(json_object_get(claims, "email")));

    if (user.n == 0) {
        user = sv_from(json_string_value(json_object_get(claims, "user")));
    }
    draft_add(draft, SV("user"), user);
    for (size_t i = 0; i < json_array_size(groups); i++) {
        draft_add(draft, SV("group"), sv_from(json_string_value(json_array_get(groups, i))));
    }
}

static void draft_facts(struct draft *draft, const struct authz_identity_ask *ask, unsigned tell,
                        struct sv jwt, const json_t *claims)
{
    if ((tell & CONFIG_TELL_JWT) != 0 && jwt.n != 0) {
        draft_add(draft, SV("jwt"), jwt);
    }
    if ((tell & CONFIG_TELL_ACCESS_TOKEN) != 0) {
        draft_token(draft, ask, SV("access_token"), authz_session_access_token(ask->session));
    }
    if ((tell & CONFIG_TELL_ID_TOKEN) != 0) {
        draft_token(draft, ask, SV("id_token"), authz_session_id_token(ask->session));
    }
    if ((tell & CONFIG_TELL_PERSON) != 0) {
        draft_person(draft, claims);
    }
}

/* User and e-mail, which travel with the block: of its bytes like the rest. */
static void draft_who(struct draft *draft, const struct authz_person *person)
{
    struct sv user = authz_person_id(person);
    struct sv email = authz_person_email(person);

    if (user.n > AUTHZ_BLOCK_MAX || email.n > AUTHZ_BLOCK_MAX - user.n) {
        draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
        return;
    }
    draft->user_at = draft->text.n;
    buf_add_sv(&draft->text, user);
    buf_add_char(&draft->text, '\0');
    draft->email_at = draft->text.n;
    buf_add_sv(&draft->text, email);
    buf_add_char(&draft->text, '\0');
    draft->n_user = user.n;
    draft->n_email = email.n;
    draft->bytes = user.n + email.n;
}

static void draft_make(struct draft *draft, const struct authz_identity_ask *ask)
{
    const struct authz_profile *profile = authz_rules_profile_at(ask->rules, ask->profile);
    const struct config *config = authz_rules_config(ask->rules);
    bool send = (profile->tell & CONFIG_TELL_HEADERS) != 0;
    json_t *claims = base_claims(ask, profile);
    struct buf token;

    draft_claims(draft, ask, &config->jwt_claims_headers, send, claims);
    buf_init(&token, AUTHZ_BLOCK_MAX);
    if (draft->reason == POLICY_REASON_NONE &&
        (profile->tell & (CONFIG_TELL_HEADERS | CONFIG_TELL_JWT)) != 0) {
        enum err err = assertion_sign(authz_rules_keys(ask->rules), claims, &token);

        if (err != ERR_OK) {
            draft->reason =
                err == ERR_LIMIT ? POLICY_REASON_IDENTITY_TOO_LARGE : POLICY_REASON_INTERNAL_ERROR;
        } else if (send) {
            draft_add(draft, SV(ASSERTION_HEADER), buf_sv(&token));
        }
    }
    draft->n_headers = draft->n;
    if (draft->n_headers > AUTHZ_BLOCK_HEADERS_MAX) {
        draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
    }
    draft_facts(draft, ask, profile->tell, buf_sv(&token), claims);
    if (draft->n - draft->n_headers > AUTHZ_BLOCK_FACTS_MAX) {
        draft->reason = POLICY_REASON_IDENTITY_TOO_LARGE;
    }
    buf_deinit(&token);
    json_decref(claims);
}

/* --- the cache -------------------------------------------------------------------------------- */

static void entry_clear(struct authz_identities *ids, struct entry *e)
{
    ids->bytes -= e->bytes;
    mem_free(&e->identity.headers);
    if (e->text != NULL) {
        secret_wipe(e->text, e->n_text);
    }
    mem_free(&e->text);
    *e = (struct entry){ .epoch = 0 };
}

static void entry_fill(struct authz_identities *ids, struct entry *e,
                       const struct authz_identity_ask *ask)
{
    struct draft *draft = MEM_NEW(struct draft);

    buf_init(&draft->text, TEXT_MAX);
    buf_add_sv(&draft->text, ask->host);
    draft_who(draft, ask->effective->person);
    draft_make(draft, ask);
    if (draft->reason != POLICY_REASON_NONE) {
        draft->n = 0;
        draft->n_headers = 0;
        log_warn("identity.refused", KV_SV("session", authz_session_id(ask->session)),
                 KV_SV("user", authz_person_id(ask->effective->person)), KV_SV("host", ask->host),
                 KV_STR("reason", policy_reason_name(draft->reason)));
    }
    CHECK(draft->text.err == ERR_OK);
    e->bytes = sizeof(*e) + draft->text.n + draft->n * sizeof(struct authz_identity_header);
    e->text = mem_dup(buf_cstr(&draft->text), draft->text.n + 1);
    e->n_text = draft->text.n;
    e->host = sv_of(e->text, ask->host.n);
    e->identity = (struct authz_identity){
        .serial = ++ids->serial,
        .reason = draft->reason,
        .headers = mem_array(draft->n + 1, sizeof(struct authz_identity_header)),
        .n_headers = draft->n_headers,
        .n_facts = draft->n - draft->n_headers,
        .user = sv_of(e->text + draft->user_at, draft->n_user),
        .email = sv_of(e->text + draft->email_at, draft->n_email),
    };
    e->identity.facts = e->identity.headers + draft->n_headers;
    for (size_t i = 0; i < draft->n; i++) {
        e->identity.headers[i] = (struct authz_identity_header){
            .name = sv_of(e->text + draft->name_at[i], draft->value_at[i] - draft->name_at[i] - 1),
            .value = sv_of(e->text + draft->value_at[i], draft->end_at[i] - draft->value_at[i]),
        };
    }
    ids->bytes += e->bytes;
    if (draft->text.p != NULL) {
        secret_wipe(draft->text.p, draft->text.n); /* it may hold tokens */
    }
    buf_deinit(&draft->text);
    mem_free(&draft);
}

/* Makes room in bytes, but never touches spare. */
static void sweep(struct authz_identities *ids, const struct entry *spare)
{
    size_t steps = 0;

    while (ids->bytes > AUTHZ_IDENTITIES_BYTES && steps++ < (size_t)SETS * WAYS) {
        struct entry *e = &ids->entries[ids->hand];

        ids->hand = (ids->hand + 1) % ((size_t)SETS * WAYS);
        if (e != spare && e->identity.serial != 0) {
            entry_clear(ids, e);
        }
    }
}

const struct authz_identity *authz_identity_get(struct authz_identities *ids,
                                                const struct authz_identity_ask *ask)
{
    uint64_t epoch = authz_session_epoch(ask->replica, ask->session);
    uint64_t hash = map_hash(ask->host);
    size_t set = (size_t)((hash ^ (epoch * UINT64_C(0x9E3779B97F4A7C15))) >> 20U) % SETS;
    struct entry *first = &ids->entries[set * WAYS];
    struct entry *oldest = first;

    ids->tick++;
    for (struct entry *e = first; e < first + WAYS; e++) {
        if (e->identity.serial != 0 && e->epoch == epoch && e->host_hash == hash &&
            e->profile == ask->profile && sv_eq(e->host, ask->host)) {
            int64_t age_s = ask->now_s - e->made_s;

            oldest = e;
            if (age_s >= 0 && age_s < AUTHZ_IDENTITY_SLICE_S) {
                e->used = ids->tick;
                return &e->identity;
            }
            break; /* its time is over: made anew in its place */
        }
        oldest = e->used < oldest->used ? e : oldest;
    }
    entry_clear(ids, oldest);
    oldest->epoch = epoch;
    oldest->host_hash = hash;
    oldest->profile = ask->profile;
    oldest->made_s = ask->now_s;
    oldest->used = ids->tick;
    entry_fill(ids, oldest, ask);
    sweep(ids, oldest);
    return &oldest->identity;
}

struct authz_identities *authz_identities_new(void)
{
    struct authz_identities *ids = MEM_NEW(struct authz_identities);

    ids->entries = mem_array((size_t)SETS * WAYS, sizeof(*ids->entries));
    return ids;
}

void authz_identities_clear(struct authz_identities *ids)
{
    for (size_t i = 0; i < (size_t)SETS * WAYS; i++) {
        if (ids->entries[i].identity.serial != 0) {
            entry_clear(ids, &ids->entries[i]);
        }
    }
}

void authz_identities_free(struct authz_identities **identities)
{
    struct authz_identities *ids = TAKE(*identities);

    if (ids == NULL) {
        return;
    }
    authz_identities_clear(ids);
    mem_free(&ids->entries);
    mem_free(&ids);
}
