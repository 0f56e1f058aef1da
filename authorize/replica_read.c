/* What others read of the replica: claims and groups are unpacked on the way. */
#include <stddef.h>
#include <string.h>

#include "authorize/replica_int.h"
#include "common/map.h"
#include "common/mem.h"

struct sv authz_session_id(const struct authz_session *s)
{
    return sv_of(s->id, s->n_id);
}

struct sv authz_session_impersonates(const struct authz_session *s)
{
    return s->more != NULL ? s->more->impersonates : SV("");
}

struct sv authz_session_access_token(const struct authz_session *s)
{
    return s->more != NULL ? s->more->access_token : SV("");
}

struct sv authz_session_id_token(const struct authz_session *s)
{
    return s->more != NULL ? s->more->id_token : SV("");
}

const struct policy_claim *authz_session_claim(const struct authz_replica *r,
                                               const struct authz_session *s, struct sv name)
{
    return authz_claims_get(r->texts, s->claims, name, &r->unpacked->session);
}

const struct policy_claim *authz_person_claim(const struct authz_replica *r,
                                              const struct authz_person *p, struct sv name)
{
    return authz_claims_get(r->texts, p->claims, name, &r->unpacked->user);
}

static struct authz_data_ask ask_of(const struct authz_replica *r, const struct authz_person *p)
{
    return (struct authz_data_ask){ .data = r->data,
                                    .user_id = authz_person_id(p),
                                    .email = authz_person_email(p) };
}

enum authz_groups_from authz_person_groups_from(const struct authz_replica *r,
                                                const struct authz_person *p)
{
    if (authz_data_has_directory(r->data)) {
        const struct authz_data_ask ask = ask_of(r, p);

        return authz_data_is_listed(&ask) ? AUTHZ_GROUPS_IMPORTED : AUTHZ_GROUPS_UNLISTED;
    }
    return p->directory_version != 0 ? AUTHZ_GROUPS_RECORD : AUTHZ_GROUPS_UNKNOWN;
}

uint64_t authz_session_epoch(const struct authz_replica *r, const struct authz_session *s)
{
    enum { SESSIONS_BITS = 40 };

    return s->epoch ^ authz_data_directory_epoch(r->data) << (unsigned)SESSIONS_BITS;
}

static void groups_room(struct unpacked *u, size_t n)
{
    if (u->groups == NULL || n > u->cap) {
        u->cap = MAX(n, (size_t)32);
        u->groups = mem_realloc(u->groups, u->cap, sizeof(*u->groups));
    }
    u->n_groups = n;
}

static void unpack_imported(const struct authz_replica *r, const struct authz_person *p)
{
    const struct authz_data_ask ask = ask_of(r, p);
    const struct policy_claim *claim = authz_data_groups(&ask);

    groups_room(r->unpacked, claim == NULL ? 0 : claim->count);
    for (size_t i = 0; i < r->unpacked->n_groups; i++) {
        r->unpacked->groups[i] = claim->values[i].text; /* another kind has none */
    }
}

static void unpack_record(const struct authz_replica *r, const struct authz_person *p)
{
    struct sv left = authz_person_facts(p).packed;

    groups_room(r->unpacked, p->n_groups);
    for (size_t i = 0; left.n > 0; i++) {
        r->unpacked->groups[i] = authz_text_get(r->texts, authz_groups_next(&left));
    }
}

const struct policy_text *authz_person_groups(const struct authz_replica *r,
                                              const struct authz_person *p, size_t *n_out)
{
    struct unpacked *u = r->unpacked;
    uint64_t epoch = authz_data_directory_epoch(r->data);

    if (u->groups_of != p || u->groups_epoch != epoch) {
        if (authz_data_has_directory(r->data)) {
            unpack_imported(r, p);
        } else {
            unpack_record(r, p);
        }
        u->groups_of = p;
        u->groups_epoch = epoch;
    }
    *n_out = u->n_groups;
    return u->groups;
}

static const struct policy_claim *find_session_claim(void *arg, struct sv name)
{
    const struct authz_who *who = arg;

    return authz_session_claim(who->replica, who->session, name);
}

static const struct policy_claim *find_user_claim(void *arg, struct sv name)
{
    const struct authz_who *who = arg;

    return authz_person_claim(who->replica, who->person, name);
}

static const struct policy_text *find_groups(void *arg, size_t *n_out)
{
    const struct authz_who *who = arg;

    return authz_person_groups(who->replica, who->person, n_out);
}

void authz_who_input(struct authz_who *who, struct policy_input *in)
{
    const struct authz_person *p = who->person;
    const struct authz_session *s = who->session;
    enum authz_groups_from from = authz_person_groups_from(who->replica, p);

    in->session = true;
    in->user_id = POLICY_TEXT(authz_person_id(p));
    in->email = POLICY_TEXT(authz_person_text(p, AUTHZ_PERSON_EMAIL));
    in->user_claims = (struct policy_claims){ .find = find_user_claim, .arg = who };
    in->directory = from >= AUTHZ_GROUPS_IMPORTED;
    in->groups_missed =
        from == AUTHZ_GROUPS_UNKNOWN && authz_person_text(p, AUTHZ_PERSON_GROUPS_ERROR).n != 0;
    in->directory_email = POLICY_TEXT(authz_person_text(p, AUTHZ_PERSON_DIRECTORY_EMAIL));
    in->find_groups = find_groups;
    in->groups_arg = who;
    if (s != NULL) {
        in->session_id = authz_session_id(s);
        in->session_claims = (struct policy_claims){ .find = find_session_claim, .arg = who };
        in->idp = authz_text_get(who->replica->texts, s->idp);
    }
}

void authz_replica_expect(const struct authz_replica *r, const struct sv *ids, size_t n)
{
    enum { FEW = 1024, ID = 36, GROUPS = 40 }; /* bytes, but for FEW */

    uint64_t hashes[AUTHZ_EXPECT_MAX];
    const struct authz_session *sessions[AUTHZ_EXPECT_MAX];

    CHECK(n <= AUTHZ_EXPECT_MAX);
    if (keyed_count(r->sessions) < FEW) {
        return; /* they are near */
    }
    /* Each loop is short: the processor comes by no more than some hundred steps while it waits for the first
     * memory of a loop, and asks only for what it meets among them. */
    for (size_t i = 0; i < n; i++) {
        hashes[i] = map_hash(ids[i]);
    }
    for (size_t i = 0; i < n; i++) {
        keyed_expect(r->sessions, hashes[i]);
    }
    for (size_t i = 0; i < n; i++) {
        sessions[i] = keyed_guess(r->sessions, hashes[i]);
        mem_bring(sessions[i], offsetof(struct authz_session, id) + ID);
    }
    for (size_t i = 0; i < n; i++) {
        if (sessions[i] != NULL) {
            mem_bring(sessions[i]->person, offsetof(struct authz_person, bytes) + GROUPS);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (sessions[i] != NULL) {
            authz_person_expect(sessions[i]->person);
        }
    }
}
