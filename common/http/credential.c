#include "common/http/credential.h"

#include "common/b64.h"
#include "common/http/name.h"

static const struct sv mark = { "Pomerium-", 9 };

/* "Basic": user and password (RFC 7617 §2). The user's name says nothing: some programs insist on one. */
static bool read_basic(struct sv text, struct arena *arena, struct sv *token_out)
{
    char *room = NULL;
    size_t n = 0;
    struct sv rest = { 0 };

    if (text.n == 0 || text.n > HTTP_CREDENTIAL_BASIC_MAX) {
        return false;
    }
    room = arena_alloc(arena, b64_decoded_max(text.n));
    if (b64_decode(text, room, b64_decoded_max(text.n), &n) != ERR_OK) {
        return false;
    }
    rest = sv_of(room, n);
    (void)sv_cut(&rest, ':');
    if (!sv_istarts(rest, mark)) {
        return false;
    }
    *token_out = sv_from_at(rest, mark.n);
    return true;
}

bool http_credential_read(struct sv value, bool bearer, struct arena *arena, struct sv *token_out)
{
    size_t n = 0;
    struct sv scheme = { 0 };
    struct sv token = { 0 };
    bool ours = false;

    while (n < value.n && value.p[n] != ' ' && value.p[n] != '\t') {
        n++;
    }
    scheme = sv_head(value, n);
    token = sv_trim(sv_from_at(value, n));
    if (sv_ieq(scheme, SV("Bearer"))) {
        bool marked = sv_istarts(token, mark);

        ours = marked || bearer;
        token = marked ? sv_from_at(token, mark.n) : token;
    } else if (sv_ieq(scheme, SV("Basic"))) {
        ours = read_basic(token, arena, &token);
    } else {
        ours = sv_ieq(scheme, SV("Pomerium"));
    }
    if (ours && token_out != NULL) {
        *token_out = token;
    }
    return ours;
}

struct http_credential http_credential_find(const struct http_head *head, bool bearer,
                                            struct arena *arena)
{
    struct http_credential found = { .shown = false };
    const struct http_field *own = http_head_get(head, HTTP_H_X_POMERIUM_AUTHORIZATION);
    const struct http_field *authorization = http_head_get(head, HTTP_H_AUTHORIZATION);
    struct sv token = { 0 };

    if (own != NULL) {
        found.shown = true;
        found.token = sv_trim(own->value);
    }
    if (authorization != NULL &&
        http_credential_read(authorization->value, bearer, arena, &token)) {
        found.differs = found.shown && !sv_eq(found.token, token);
        found.shown = true;
        found.token = token;
    }
    if (found.token.n > HTTP_CREDENTIAL_MAX) {
        found.token = SV("");
    }
    return found;
}
