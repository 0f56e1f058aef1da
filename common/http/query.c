#include "common/http/query.h"

static bool is_secret(struct sv name)
{
    static const struct sv parts[] = {
        { "pomerium", 8 }, { "token", 5 }, { "secret", 6 },      { "passw", 5 },
        { "key", 3 },      { "sig", 3 },   { "assertion", 9 },   { "session", 7 },
        { "code", 4 },     { "state", 5 }, { "credential", 10 }, { "auth", 4 },
        { "%", 1 },        { "nonce", 5 }, { "otp", 3 },         { "saml", 4 },
    };
    char lower[64];
    size_t n = MIN(name.n, sizeof(lower));

    for (size_t i = 0; i < n; i++) {
        lower[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] + 32 : name.p[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (sv_search(sv_of(lower, n), parts[i]) != SIZE_MAX) {
            return true;
        }
    }
    return name.n > sizeof(lower);
}

void http_query_tame(struct sv query, struct buf *out)
{
    while (query.p != NULL && query.n != 0) {
        struct sv one = sv_cut(&query, '&');
        size_t at = sv_find(one, '=');
        struct sv name = at == SIZE_MAX ? one : sv_head(one, at);

        if (is_secret(name)) { /* without "=" the name may be the value */
            buf_add_sv(out, at == SIZE_MAX ? SV("") : name);
            buf_add_str(out, at == SIZE_MAX ? "…" : "=…");
        } else {
            buf_add_sv(out, one);
        }
        if (query.p != NULL) {
            buf_add_char(out, '&');
        }
    }
}
