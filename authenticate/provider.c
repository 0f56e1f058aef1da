#include "authenticate/provider.h"

#include <string.h>

#include "common/crypto/jose.h"
#include "common/http/url.h"

static struct sv text_of(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

static struct sv without_slash(struct sv s)
{
    return s.n > 0 && s.p[s.n - 1] == '/' ? sv_head(s, s.n - 1) : s;
}

static bool host_is_loopback(struct sv host)
{
    return sv_eq(host, SV("localhost")) || sv_ends(host, SV(".localhost")) ||
           sv_starts(host, SV("127.")) || sv_eq(host, SV("[::1]"));
}

/* An endpoint; a missing one is "" and fine where it is optional. */
static enum err endpoint(const json_t *doc, const char *name, bool needed, struct arena *arena,
                         struct sv *out)
{
    struct sv text = text_of(doc, name);
    struct http_url url;

    if (text.n == 0) {
        return needed ? ERR_INVALID : ERR_OK;
    }
    if (http_url_parse(text, &url, NULL) != ERR_OK || url.has_fragment ||
        !(url.scheme == HTTP_SCHEME_HTTPS ||
          (url.scheme == HTTP_SCHEME_HTTP && host_is_loopback(url.host)))) {
        return ERR_INVALID;
    }
    *out = sv_from(arena_str(arena, text));
    return ERR_OK;
}

static bool list_has(const json_t *list, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *item = json_string_value(json_array_get(list, i));

        if (item != NULL && strcmp(item, text) == 0) {
            return true;
        }
    }
    return false;
}

static enum err endpoints(const json_t *doc, struct arena *arena, struct authn_provider *p,
                          struct diag *d)
{
    const struct {
        const char *name;
        bool needed;
        struct sv *out;
    } rows[] = {
        { "authorization_endpoint", true, &p->authorization_endpoint },
        { "token_endpoint", true, &p->token_endpoint },
        { "jwks_uri", true, &p->jwks_uri },
        { "userinfo_endpoint", false, &p->userinfo_endpoint },
        { "introspection_endpoint", false, &p->introspection_endpoint },
        { "end_session_endpoint", false, &p->end_session_endpoint },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (endpoint(doc, rows[i].name, rows[i].needed, arena, rows[i].out) != ERR_OK) {
            diag_set(d, "the provider's %s is missing or not an https URL", rows[i].name);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

/* client_secret_basic is what counts where nothing is said (OpenID Connect Discovery 1.0 §3, RFC 8414 §2). */
static bool in_body_only(const json_t *doc, const char *name)
{
    const json_t *methods = json_object_get(doc, name);

    return !list_has(methods, "client_secret_basic") && list_has(methods, "client_secret_post");
}

enum err authn_provider_parse(struct sv json, struct sv issuer, struct arena *arena,
                              struct authn_provider *provider_out, struct diag *d)
{
    struct authn_provider p = { .tells_issuer = false };
    json_t *doc = NULL;
    enum err err = jose_object_parse(json, AUTHN_PROVIDER_BYTES_MAX, &doc);

    if (err != ERR_OK) {
        diag_set(d, "the provider's discovery document is not a JSON object");
        return err;
    }
    p.issuer = sv_from(arena_str(arena, text_of(doc, "issuer")));
    p.secret_in_body = in_body_only(doc, "token_endpoint_auth_methods_supported");
    p.introspection_secret_in_body =
        in_body_only(doc, "introspection_endpoint_auth_methods_supported");
    p.tells_issuer =
        json_is_true(json_object_get(doc, "authorization_response_iss_parameter_supported"));
    err = endpoints(doc, arena, &p, d);
    if (p.issuer.n == 0 || !sv_eq(without_slash(p.issuer), without_slash(issuer))) {
        diag_set(d, "the discovery document is of another issuer than idp_provider_url says");
        err = ERR_INVALID;
    }
    json_decref(doc);
    if (err == ERR_OK) {
        *provider_out = p;
    }
    return err;
}

static enum err tokens_read(struct sv json, struct arena *arena, struct authn_tokens *tokens_out,
                            struct diag *d)
{
    json_t *doc = NULL;
    const json_t *expires = NULL;
    struct authn_tokens t = { .expires_in_s = 0 };
    enum err err = jose_object_parse(json, AUTHN_PROVIDER_BYTES_MAX, &doc);

    if (err != ERR_OK) {
        diag_set(d, "the provider's token response is not a JSON object");
        return err;
    }
    t.id_token = arena_sv(arena, text_of(doc, "id_token"));
    t.access_token = arena_sv(arena, text_of(doc, "access_token"));
    t.refresh_token = arena_sv(arena, text_of(doc, "refresh_token"));
    expires = json_object_get(doc, "expires_in");
    if (json_is_number(expires) && json_number_value(expires) > 0 &&
        json_number_value(expires) < 1e9) {
        t.expires_in_s = (int64_t)json_number_value(expires);
    }
    json_decref(doc);
    *tokens_out = t;
    return ERR_OK;
}

enum err authn_tokens_parse(struct sv json, struct arena *arena, struct authn_tokens *tokens_out,
                            struct diag *d)
{
    struct authn_tokens t;
    enum err err = tokens_read(json, arena, &t, d);

    if (err == ERR_OK && t.id_token.n == 0) {
        diag_set(d, "the provider's token response has no id_token (is the scope openid set?)");
        err = ERR_INVALID;
    }
    if (err == ERR_OK) {
        *tokens_out = t;
    }
    return err;
}

enum err authn_tokens_parse_refreshed(struct sv json, struct arena *arena,
                                      struct authn_tokens *tokens_out, struct diag *d)
{
    struct authn_tokens t;
    enum err err = tokens_read(json, arena, &t, d);

    if (err == ERR_OK && t.access_token.n == 0) {
        diag_set(d, "the provider's token response has no access_token");
        err = ERR_INVALID;
    }
    if (err == ERR_OK) {
        *tokens_out = t;
    }
    return err;
}

enum authn_grant_fault authn_grant_fault(long status, struct sv body)
{
    json_t *doc = NULL;
    bool over = false;

    if (status < 400 || status >= 500 || status == 408 || status == 429) {
        return AUTHN_GRANT_LATER;
    }
    if (jose_object_parse(body, AUTHN_PROVIDER_BYTES_MAX, &doc) == ERR_OK) {
        over = sv_eq(text_of(doc, "error"), SV("invalid_grant"));
        json_decref(doc);
    }
    return over ? AUTHN_GRANT_OVER : AUTHN_GRANT_CLIENT;
}

/* --- ID token ------------------------------------------------------------------------------------- */

static bool id_header_ok(const json_t *header)
{
    return json_object_get(header, "typ") == NULL || sv_ieq(text_of(header, "typ"), SV("JWT"));
}

enum err authn_id_open(const struct jose_keys *keys, struct sv token, json_t **claims_out,
                       bool *new_keys_may_help_out, struct diag *d)
{
    char kid[JOSE_KID_MAX + 1] = "";
    json_t *header = NULL;
    CLEANUP(buf_deinit) struct buf payload;
    enum err err = ERR_OK;

    buf_init(&payload, JOSE_TOKEN_MAX);
    err = jose_verify(keys, token, &payload, &header, d);
    *new_keys_may_help_out = jose_token_kid(token, kid) == ERR_OK &&
                             (err == ERR_NOT_FOUND || (err == ERR_CRYPTO && kid[0] == '\0'));
    if (err == ERR_OK && !id_header_ok(header)) {
        err = ERR_INVALID;
        diag_set(d, "the token is not an ID token (typ)");
    }
    json_decref(header);
    return err == ERR_OK ? jose_object_parse(buf_sv(&payload), JOSE_TOKEN_MAX, claims_out) : err;
}

/* --- claims --------------------------------------------------------------------------------------- */

static bool seconds_of(const json_t *claims, const char *name, int64_t *out)
{
    const json_t *v = json_object_get(claims, name);
    double number = json_number_value(v);

    if (!json_is_number(v) || !(number >= 0 && number < 1e12)) {
        return false;
    }
    *out = (int64_t)number;
    return true;
}

static bool subject_ok(struct sv sub)
{
    if (sub.n == 0 || sub.n > AUTHN_SUBJECT_MAX) {
        return false;
    }
    for (size_t i = 0; i < sub.n; i++) {
        if ((unsigned char)sub.p[i] < ' ' || sub.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool audience_ok(const json_t *claims, struct sv client_id)
{
    const json_t *aud = json_object_get(claims, "aud");
    const json_t *azp = json_object_get(claims, "azp");
    bool found = json_is_string(aud) && sv_eq(text_of(claims, "aud"), client_id);

    for (size_t i = 0; i < json_array_size(aud); i++) {
        const json_t *item = json_array_get(aud, i);

        found = found || sv_eq(sv_of(json_string_value(item), json_string_length(item)), client_id);
    }
    if (azp != NULL && !sv_eq(text_of(claims, "azp"), client_id)) {
        return false;
    }
    return found && (json_array_size(aud) <= 1 || azp != NULL);
}

/* A time that is there must be one. */
static bool seconds_if_told(const json_t *claims, const char *name, int64_t *out)
{
    return json_object_get(claims, name) == NULL || seconds_of(claims, name, out);
}

static enum err times_check(const json_t *claims, bool must_tell, int64_t now_s, struct diag *d)
{
    bool told = json_object_get(claims, "exp") != NULL;
    int64_t exp = 0;
    int64_t iat = 0;
    int64_t nbf = 0;

    if (!seconds_if_told(claims, "exp", &exp) || !seconds_if_told(claims, "iat", &iat) ||
        !seconds_if_told(claims, "nbf", &nbf) ||
        (must_tell && (!told || json_object_get(claims, "iat") == NULL))) {
        diag_set(d, "the token lacks exp or iat");
        return ERR_INVALID;
    }
    if (told && exp + AUTHN_LEEWAY_S <= now_s) {
        diag_set(d, "the token ended %lld s ago: do the clocks differ?", (long long)(now_s - exp));
        return ERR_EXPIRED;
    }
    if (iat - AUTHN_LEEWAY_S > now_s || nbf - AUTHN_LEEWAY_S > now_s) {
        diag_set(d, "the token begins %lld s from now: the issuer's clock is ahead of ours",
                 (long long)(MAX(iat, nbf) - now_s));
        return ERR_EXPIRED;
    }
    return ERR_OK;
}

enum err authn_id_check(const json_t *claims, const struct authn_id_expected *expected,
                        struct diag *d)
{
    if (!sv_eq(text_of(claims, "iss"), expected->issuer)) {
        diag_set(d, "the ID token is of another issuer");
        return ERR_DENIED;
    }
    if (!audience_ok(claims, expected->client_id)) {
        diag_set(d, "the ID token is for another client (aud, azp)");
        return ERR_DENIED;
    }
    if (expected->subject.n == 0 &&
        (expected->nonce.n == 0 || !sv_eq(text_of(claims, "nonce"), expected->nonce))) {
        diag_set(d, "the ID token is of another login (nonce)");
        return ERR_DENIED;
    }
    if (expected->subject.n != 0 && !sv_eq(text_of(claims, "sub"), expected->subject)) {
        diag_set(d, "the refreshed ID token is about somebody else (sub)");
        return ERR_ABORTED;
    }
    if (!subject_ok(text_of(claims, "sub"))) {
        diag_set(d, "the ID token has no usable sub");
        return ERR_INVALID;
    }
    return times_check(claims, true, expected->now_s, d);
}

static bool audience_among(const json_t *claims, struct config_strings audiences)
{
    const json_t *aud = json_object_get(claims, "aud");

    for (size_t i = 0; i < audiences.n; i++) {
        bool found = json_is_string(aud) && sv_eq(text_of(claims, "aud"), audiences.v[i]);

        for (size_t k = 0; k < json_array_size(aud) && !found; k++) {
            const json_t *item = json_array_get(aud, k);

            found = json_is_string(item) &&
                    sv_eq(sv_of(json_string_value(item), json_string_length(item)), audiences.v[i]);
        }
        if (found && audiences.v[i].n != 0) {
            return true;
        }
    }
    return false;
}

static bool is_for_us(const json_t *claims, const struct authn_bearer_expected *expected)
{
    if (expected->client_id.n != 0) {
        return audience_ok(claims, expected->client_id);
    }
    return expected->any_audience || audience_among(claims, expected->audiences);
}

enum err authn_bearer_check(const json_t *claims, const struct authn_bearer_expected *expected,
                            struct diag *d)
{
    int64_t exp = 0;

    if (expected->issuer.n == 0 || !sv_eq(text_of(claims, "iss"), expected->issuer)) {
        diag_set(d, "the token is of another issuer");
        return ERR_DENIED;
    }
    if (!is_for_us(claims, expected)) {
        diag_set(d, json_object_get(claims, "aud") == NULL
                        ? "nobody says whom the token is for (aud)"
                        : "the token is for somebody else (aud, azp)");
        return ERR_DENIED;
    }
    if (json_object_get(claims, "cnf") != NULL) {
        diag_set(d, "the token is bound to a key (cnf): showing it alone is not enough");
        return ERR_DENIED;
    }
    if (!subject_ok(text_of(claims, "sub"))) {
        diag_set(d, "the token has no usable sub");
        return ERR_INVALID;
    }
    if (seconds_of(claims, "exp", &exp) && exp - expected->now_s > AUTHN_BEARER_LIFE_MAX_S) {
        diag_set(d, "the token lives longer than %d days", AUTHN_BEARER_LIFE_MAX_S / 86400);
        return ERR_INVALID;
    }
    return times_check(claims, !expected->opaque, expected->now_s, d);
}

/* --- tokens that only the provider can read --------------------------------------------------------- */

static void set_text(json_t *claims, const char *name, struct sv text)
{
    (void)json_object_set_new(claims, name, json_stringn(text.p, text.n));
}

/* A refresh token is active, too, at some providers: they tell no token_type for it. */
static enum err introspection_check(json_t *answer, struct sv issuer, struct diag *d)
{
    const json_t *type = json_object_get(answer, "token_type");
    bool bearer = json_is_string(type) && sv_ieq(text_of(answer, "token_type"), SV("Bearer"));

    if (!json_is_true(json_object_get(answer, "active"))) {
        diag_set(d, "the provider says that it does not hold (any more)");
        return ERR_DENIED;
    }
    if (type != NULL && !bearer) {
        diag_set(d, "it is a token of another kind (token_type)");
        return ERR_DENIED;
    }
    if (json_object_get(answer, "iss") == NULL) {
        set_text(answer, "iss", issuer);
    }
    if (json_object_get(answer, "aud") == NULL && bearer &&
        json_is_string(json_object_get(answer, "client_id"))) {
        (void)json_object_set(answer, "aud", json_object_get(answer, "client_id"));
    }
    (void)json_object_del(answer, "active");
    return ERR_OK;
}

enum err authn_introspection_read(struct sv json, struct sv issuer, json_t **claims_out,
                                  struct diag *d)
{
    json_t *answer = NULL;
    enum err err = jose_object_parse(json, AUTHN_PROVIDER_BYTES_MAX, &answer);

    if (err != ERR_OK) {
        diag_set(d, "the provider's introspection is not a JSON object");
        return err;
    }
    err = introspection_check(answer, issuer, d);
    if (err == ERR_OK) {
        *claims_out = json_incref(answer);
    }
    json_decref(answer);
    return err;
}

enum err authn_userinfo_read(struct sv json, struct sv issuer, json_t **claims_out, struct diag *d)
{
    /* Of a token, not of a person: here they would be somebody's attributes. */
    static const char *const of_tokens[] = { "aud", "azp", "client_id", "exp", "iat",
                                             "nbf", "jti", "auth_time", "cnf" };
    json_t *answer = NULL;
    enum err err = jose_object_parse(json, AUTHN_PROVIDER_BYTES_MAX, &answer);

    if (err != ERR_OK) {
        diag_set(d, "the provider's userinfo is not a JSON object");
        return err;
    }
    for (size_t i = 0; i < ARRAY_LEN(of_tokens); i++) {
        (void)json_object_del(answer, of_tokens[i]);
    }
    set_text(answer, "iss", issuer);
    *claims_out = answer;
    return ERR_OK;
}

enum err authn_userinfo_merge(json_t *claims, struct sv json, struct diag *d)
{
    json_t *more = NULL;
    enum err err = jose_object_parse(json, AUTHN_PROVIDER_BYTES_MAX, &more);

    if (err != ERR_OK) {
        diag_set(d, "the provider's userinfo is not a JSON object");
        return err;
    }
    if (!sv_eq(text_of(more, "sub"), text_of(claims, "sub"))) {
        diag_set(d, "the provider's userinfo is about somebody else");
        err = ERR_DENIED;
    } else if (json_object_update_missing(claims, more) != 0) {
        err = ERR_INVALID;
    }
    json_decref(more);
    return err;
}
