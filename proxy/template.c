#include "proxy/template.h"

#include <string.h>

#include "common/http/name.h"

static struct sv value_of(const struct config_piece *piece,
                          const struct proxy_template_facts *facts)
{
    switch (piece->token) {
    case CONFIG_TOKEN_TEXT:
        return piece->text;
    case CONFIG_TOKEN_ACCESS_TOKEN:
        return facts->access_token;
    case CONFIG_TOKEN_ID_TOKEN:
        return facts->id_token;
    case CONFIG_TOKEN_JWT:
        return facts->jwt;
    case CONFIG_TOKEN_CERT_FINGERPRINT:
        return facts->cert_fingerprint;
    case CONFIG_TOKEN_CERT_SAN_DNS:
        return facts->cert_san_dns;
    case CONFIG_TOKEN_CERT_SAN_EMAIL:
        return facts->cert_san_email;
    case CONFIG_TOKEN_HEADER:
        return facts->header == NULL ? (struct sv){ 0 } : facts->header(facts->arg, piece->text);
    }
    return (struct sv){ 0 };
}

struct sv proxy_template_value(const struct config_template *t,
                               const struct proxy_template_facts *facts, struct arena *arena)
{
    size_t n = 0;
    char *p = NULL;
    struct sv value = { 0 };

    for (size_t i = 0; i < t->n; i++) {
        struct sv piece = value_of(&t->v[i], facts);

        if (piece.n == 0 || piece.n > PROXY_TEMPLATE_MAX - n) {
            return (struct sv){ 0 };
        }
        n += piece.n;
    }
    p = arena_alloc(arena, n + 1);
    n = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct sv piece = value_of(&t->v[i], facts);

        memcpy(p + n, piece.p, piece.n);
        n += piece.n;
    }
    value = sv_trim(sv_of(p, n));
    return value.n != 0 && http_is_value(value) ? value : (struct sv){ 0 };
}
