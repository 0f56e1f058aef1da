#include "authorize/use.h"

#include "access.pb-c.h"

#include "common/clock.h"
#include "common/crypto/token.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rpc/scan.h"

struct authz_uses {
    struct map *early; /* by session id: int32_t, as used_s */
};

/* Of a time on the wall clock: as long ago on our own. */
static int32_t mono_of(int64_t wall_s)
{
    int64_t ago_s = MAX(clock_wall_s() - wall_s, (int64_t)0);

    return (int32_t)(clock_mono_ms() / 1000 - MIN(ago_s, (int64_t)INT32_MAX));
}

/* The last use of which the databroker knows. */
static int64_t told_of(const struct authz_session *s)
{
    return (int64_t)s->used_s - s->untold_s;
}

static void set_used(struct authz_session *s, int32_t used_s, int64_t told)
{
    s->used_s = used_s;
    s->untold_s = (uint8_t)MIN(used_s - told, (int64_t)UINT8_MAX);
}

static void used_at(struct authz_session *s, int32_t mono_s)
{
    set_used(s, MAX(s->used_s, mono_s), MAX(told_of(s), (int64_t)mono_s));
}

void authz_uses_begin(struct authz_uses *uses, struct authz_session *s, int64_t issued_at_s)
{
    int32_t *before = map_take(uses->early, authz_session_id(s));

    s->used_s = mono_of(issued_at_s);
    /* a login is a use; a token that was made may lie in a drawer */
    s->untold_s = sv_starts(authz_session_id(s), SV(TOKEN_ACCOUNT)) ? UINT8_MAX : 0;
    if (before != NULL) {
        used_at(s, *before);
    }
    mem_free(&before);
}

bool authz_uses_put(struct authz_uses *uses, struct sv id, struct authz_session *s, struct sv bytes,
                    struct arena *scratch)
{
    const Postern__SessionAccess *m = NULL;
    ProtobufCMessage *message = NULL;
    int32_t *before = NULL;
    int32_t *use = NULL;

    if (rpc_unpack(&postern__session_access__descriptor, bytes, scratch, &message) != ERR_OK) {
        return false;
    }
    m = (const Postern__SessionAccess *)(const void *)message;
    if (m->accessed_at == NULL || m->accessed_at->seconds < 0) {
        return false;
    }
    if (s != NULL) {
        used_at(s, mono_of(m->accessed_at->seconds));
        return true;
    }
    use = MEM_NEW(int32_t);
    *use = mono_of(m->accessed_at->seconds);
    before = map_set(uses->early, id, use);
    mem_free(&before);
    return true;
}

void authz_uses_drop(struct authz_uses *uses, struct sv id)
{
    int32_t *use = map_take(uses->early, id);

    mem_free(&use);
}

struct authz_uses *authz_uses_new(void)
{
    struct authz_uses *uses = MEM_NEW(struct authz_uses);

    uses->early = map_new();
    return uses;
}

static void free_use(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    mem_free(&value);
}

void authz_uses_free(struct authz_uses **uses)
{
    if (*uses != NULL) {
        map_each((*uses)->early, free_use, NULL);
        map_free(&(*uses)->early);
    }
    mem_free(uses);
}

_Static_assert(AUTHZ_ACCESS_EVERY_MS / 1000 < UINT8_MAX, "untold_s says when it is time to tell");

bool authz_session_used(const struct authz_session *s, int64_t mono_ms)
{
    struct authz_session *mine = base_unconst(s); /* when it is used is no part of what it says */
    int32_t used_s = MAX(s->used_s, (int32_t)(mono_ms / 1000));
    bool due = mono_ms / 1000 - told_of(s) >= AUTHZ_ACCESS_EVERY_MS / 1000;

    set_used(mine, used_s, due ? used_s : told_of(s));
    return due;
}

int64_t authz_session_unused_ms(const struct authz_session *s, int64_t mono_ms)
{
    return (mono_ms / 1000 - s->used_s) * 1000;
}
