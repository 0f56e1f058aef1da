#include "common/crypto/handle.h"

#include <string.h>

/* Plain form:  record version (8, big-endian) | issued at (8) | n | session id | idp id */
enum { FIXED = 17, PLAIN_MAX = FIXED + HANDLE_SESSION_MAX + HANDLE_IDP_MAX };

static void put_u64(char *p, uint64_t v)
{
    int i = 0;

    for (i = 7; i >= 0; i--) {
        p[i] = (char)(v & 0xffU);
        v >>= 8U;
    }
}

static uint64_t get_u64(const char *p)
{
    uint64_t v = 0;
    size_t i = 0;

    for (i = 0; i < 8; i++) {
        v = v << 8U | (unsigned char)p[i];
    }
    return v;
}

enum err handle_make(struct sealer *sealer, const struct handle *handle, struct sv host,
                     struct buf *out)
{
    char plain[PLAIN_MAX];
    struct sv session = sv_from(handle->session);
    struct sv idp = sv_from(handle->idp_id);

    if (session.n == 0) {
        return ERR_INVALID;
    }
    if (session.n > HANDLE_SESSION_MAX || idp.n > HANDLE_IDP_MAX) {
        return ERR_LIMIT;
    }
    put_u64(plain, handle->record_version);
    put_u64(plain + 8, (uint64_t)handle->issued_at_s);
    plain[16] = (char)session.n;
    memcpy(plain + FIXED, session.p, session.n);
    memcpy(plain + FIXED + session.n, idp.p, idp.n);
    return seal_make(sealer, sv_of(plain, FIXED + session.n + idp.n), host, out);
}

static enum err parse(struct sv plain, struct handle *h)
{
    size_t session_n = 0;
    struct sv ids = { 0 };

    if (plain.n < FIXED) {
        return ERR_CRYPTO;
    }
    session_n = (unsigned char)plain.p[16];
    ids = sv_from_at(plain, FIXED);
    if (session_n == 0 || session_n > HANDLE_SESSION_MAX || ids.n < session_n ||
        ids.n - session_n > HANDLE_IDP_MAX || sv_find(ids, '\0') != SIZE_MAX) {
        return ERR_CRYPTO;
    }
    *h = (struct handle){ .record_version = get_u64(plain.p),
                          .issued_at_s = (int64_t)get_u64(plain.p + 8) };
    memcpy(h->session, ids.p, session_n);
    memcpy(h->idp_id, ids.p + session_n, ids.n - session_n);
    return ERR_OK;
}

enum err handle_open(struct sealer *sealer, struct sv text, struct sv host,
                     struct handle *handle_out)
{
    char room[PLAIN_MAX + 1];
    /* Fixed memory: the way of a request allocates nothing here. */
    struct buf plain = { .p = room, .cap = sizeof(room), .max = PLAIN_MAX };
    enum err err = ERR_OK;

    if (text.n > HANDLE_TEXT_MAX) {
        return ERR_CRYPTO;
    }
    err = seal_open(sealer, text, host, &plain);
    return err == ERR_OK ? parse(buf_sv(&plain), handle_out) : ERR_CRYPTO;
}
