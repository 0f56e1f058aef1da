/* What a provider answers: the first byte chooses discovery, tokens, claims, userinfo or introspection. */
#include <string.h>

#include "authenticate/claims.h"
#include "authenticate/provider.h"
#include "common/crypto/jose.h"
#include "common/http/url.h"

static void claims(struct sv text, struct arena *arena)
{
    const struct authn_id_expected expected = {
        .issuer = SV("https://idp"), .client_id = SV("me"), .nonce = SV("n"), .now_s = 1700000000
    };
    const struct authn_id_expected refreshed = {
        .issuer = SV("https://idp"), .client_id = SV("me"), .subject = SV("u"), .now_s = 1700000000
    };
    Session__Session session;
    json_t *object = NULL;
    json_t *flat = NULL;
    bool cut = false;

    if (jose_object_parse(text, AUTHN_PROVIDER_BYTES_MAX, &object) != ERR_OK) {
        return;
    }
    if (authn_id_check(object, &expected, NULL) == ERR_OK) {
        CHECK(json_string_length(json_object_get(object, "sub")) > 0);
    }
    if (authn_id_check(object, &refreshed, NULL) == ERR_OK) {
        CHECK(strcmp(json_string_value(json_object_get(object, "sub")), "u") == 0);
    }
    flat = authn_claims_flatten(object, &cut);
    CHECK(json_object_size(flat) <= AUTHN_CLAIMS_MAX);
    session__session__init(&session);
    authn_claims_to_session(flat, arena, &session);
    CHECK(session.n_claims == json_object_size(flat));
    json_decref(flat);
    json_decref(object);
}

static void is_web_address(struct sv text)
{
    struct http_url url;

    CHECK(http_url_parse(text, &url, NULL) == ERR_OK);
    CHECK(url.scheme == HTTP_SCHEME_HTTPS || url.scheme == HTTP_SCHEME_HTTP);
}

static void discovery(struct sv text, struct arena *arena)
{
    struct authn_provider provider;

    if (authn_provider_parse(text, SV("https://idp"), arena, &provider, NULL) == ERR_OK) {
        is_web_address(provider.authorization_endpoint);
        is_web_address(provider.token_endpoint);
        is_web_address(provider.jwks_uri);
    }
}

static void token_response(struct sv text, struct arena *arena)
{
    struct authn_tokens tokens;

    CHECK(authn_tokens_parse(text, arena, &tokens, NULL) != ERR_OK || tokens.id_token.n > 0);
    CHECK(authn_tokens_parse_refreshed(text, arena, &tokens, NULL) != ERR_OK ||
          tokens.access_token.n > 0);
    CHECK(authn_grant_fault(503, text) == AUTHN_GRANT_LATER);
    (void)authn_grant_fault(400, text);
}

static void introspection(struct sv text)
{
    json_t *claims = NULL;

    if (authn_introspection_read(text, SV("https://idp"), &claims, NULL) == ERR_OK) {
        CHECK(json_object_get(claims, "iss") != NULL && json_object_get(claims, "active") == NULL);
    }
    json_decref(claims);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv text = size == 0 ? SV("") : sv_of(data + 1, size - 1);
    struct arena arena;
    json_t *known = NULL;

    arena_init(&arena);
    switch (size == 0 ? 0 : (uint8_t)(data[0] - '0') % 5) {
    case 0:
        discovery(text, &arena);
        break;
    case 1:
        token_response(text, &arena);
        break;
    case 2:
        claims(text, &arena);
        break;
    case 3:
        introspection(text);
        break;
    default:
        known = json_pack("{s:s}", "sub", "u");
        (void)!authn_userinfo_merge(known, text, NULL);
        json_decref(known);
        break;
    }
    arena_deinit(&arena);
    return 0;
}
