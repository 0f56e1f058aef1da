#include "authorize/person.h"

#include <stddef.h>
#include <string.h>

#include "common/mem.h"
#include "common/rpc/wire.h"

/* What n_text holds: the length of a text that stands behind; or, with the highest bit set, where the
 * text stands in the claims and how long it is; or that it is the same as the user's. */
#define IN_CLAIMS   (1U << 31U)
#define AS_THE_USER UINT32_MAX

enum {
    LENGTH_BITS = 11,
    LENGTH_MAX = (1 << LENGTH_BITS) - 1,
    PLACE_MAX = (1 << 20) - 2,
    VARINT_MAX = 10
};

static size_t room_of(uint32_t n)
{
    return (n & IN_CLAIMS) != 0 ? 0 : (size_t)n + 1;
}

static size_t size_of(const struct authz_person *p)
{
    size_t n = offsetof(struct authz_person, bytes) + p->n_packed;

    for (size_t i = 0; i < AUTHZ_PERSON_TEXTS; i++) {
        n += room_of(p->n_text[i]);
    }
    return n;
}

/* The text of the user that a directory's one may be equal to. */
static enum authz_person_text twin_of(enum authz_person_text which)
{
    return which == AUTHZ_PERSON_DIRECTORY_NAME    ? AUTHZ_PERSON_NAME
           : which == AUTHZ_PERSON_DIRECTORY_EMAIL ? AUTHZ_PERSON_EMAIL
                                                   : which;
}

struct sv authz_person_text(const struct authz_person *p, enum authz_person_text which)
{
    const char *at = p->bytes;
    size_t wanted = p->n_text[which] == AS_THE_USER ? twin_of(which) : which;
    uint32_t n = p->n_text[wanted];

    if ((n & IN_CLAIMS) != 0) {
        return sv_of(authz_claims_at(p->claims, (n & ~IN_CLAIMS) >> LENGTH_BITS), n & LENGTH_MAX);
    }
    for (size_t i = 0; i < wanted; i++) {
        at += room_of(p->n_text[i]);
    }
    return sv_of(at, n);
}

void authz_person_expect(const struct authz_person *p)
{
    static const enum authz_person_text read[] = { AUTHZ_PERSON_ID, AUTHZ_PERSON_EMAIL };

    for (size_t i = 0; i < ARRAY_LEN(read); i++) {
        if ((p->n_text[read[i]] & IN_CLAIMS) != 0) {
            struct sv text = authz_person_text(p, read[i]);

            mem_bring(text.p, text.n);
        }
    }
}

struct authz_person_facts authz_person_facts(const struct authz_person *p)
{
    struct authz_person_facts facts = { .claims = p->claims, .n_groups = p->n_groups };
    const char *end = (const char *)p + size_of(p);

    for (size_t i = 0; i < AUTHZ_PERSON_TEXTS; i++) {
        facts.text[i] = authz_person_text(p, (enum authz_person_text)i);
    }
    facts.packed = sv_of(end - p->n_packed, p->n_packed);
    return facts;
}

static char *put(char *at, struct sv s)
{
    memcpy(at, s.n == 0 ? "" : s.p, s.n);
    return at + s.n;
}

/* How the text is kept. */
static uint32_t form_of(const struct authz_person_facts *facts, enum authz_person_text which)
{
    struct sv text = facts->text[which];
    enum authz_person_text twin = twin_of(which);
    size_t place = SIZE_MAX;

    CHECK(text.n < IN_CLAIMS);
    if (twin != which && sv_eq(text, facts->text[twin])) {
        return AS_THE_USER;
    }
    if (text.n <= LENGTH_MAX) {
        place = authz_claims_place(facts->claims, text);
    }
    return place <= PLACE_MAX
               ? (uint32_t)(IN_CLAIMS | place << (unsigned)LENGTH_BITS | (uint32_t)text.n)
               : (uint32_t)text.n;
}

struct authz_person *authz_person_new(struct slab *slab, const struct authz_person_facts *facts,
                                      const struct authz_person *old)
{
    struct authz_person head = { .sessions = NULL };

    if (old != NULL) {
        memcpy(&head, old, offsetof(struct authz_person, bytes));
    }
    head.claims = facts->claims;
    head.n_groups = (uint32_t)facts->n_groups;
    head.n_packed = (uint32_t)facts->packed.n;
    for (size_t i = 0; i < AUTHZ_PERSON_TEXTS; i++) {
        head.n_text[i] = form_of(facts, (enum authz_person_text)i);
    }
    struct authz_person *p = slab_take(slab, size_of(&head));
    char *at = p->bytes;

    memcpy(p, &head, offsetof(struct authz_person, bytes));
    for (size_t i = 0; i < AUTHZ_PERSON_TEXTS; i++) {
        if (room_of(p->n_text[i]) != 0) {
            at = put(put(at, facts->text[i]), SV("\0"));
        }
    }
    (void)put(at, facts->packed);
    return p;
}

void authz_person_free(struct slab *slab, struct authz_person **person)
{
    struct authz_person *p = TAKE(*person);

    if (p != NULL) {
        slab_give(slab, p, size_of(p));
    }
}

struct sv authz_person_id(const struct authz_person *p)
{
    return authz_person_text(p, AUTHZ_PERSON_ID);
}

static struct sv first_of(const struct authz_person *p, enum authz_person_text a,
                          enum authz_person_text b)
{
    struct sv text = authz_person_text(p, a);

    return text.n > 0 ? text : authz_person_text(p, b);
}

struct sv authz_person_email(const struct authz_person *p)
{
    return first_of(p, AUTHZ_PERSON_DIRECTORY_EMAIL, AUTHZ_PERSON_EMAIL);
}

struct sv authz_person_name(const struct authz_person *p)
{
    return first_of(p, AUTHZ_PERSON_NAME, AUTHZ_PERSON_DIRECTORY_NAME);
}

void authz_groups_pack(struct buf *packed, uint32_t text)
{
    char *at = buf_room(packed, VARINT_MAX);

    if (at != NULL) {
        buf_grew(packed, (size_t)(rpc_wire_put_varint(at, text) - at));
    }
}

uint32_t authz_groups_next(struct sv *left)
{
    uint32_t v = 0;

    for (unsigned shift = 0;; shift += 7) {
        CHECK(left->n > 0 && shift < 32);
        unsigned char b = (unsigned char)*left->p;

        *left = sv_of(left->p + 1, left->n - 1);
        v |= (uint32_t)(b & 0x7fU) << shift;
        if (b < 0x80) {
            return v;
        }
    }
}
