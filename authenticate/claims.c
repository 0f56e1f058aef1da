#include "authenticate/claims.h"

#include <stdio.h>
#include <string.h>

#include "authenticate/users.h"
#include "common/buf.h"

struct flattening {
    json_t *flat;
    size_t values;
    bool cut;
};

static bool is_scalar(const json_t *v)
{
    return json_is_string(v) || json_is_number(v) || json_is_boolean(v);
}

static void add_value(struct flattening *f, const char *name, json_t *value)
{
    json_t *list = json_object_get(f->flat, name);

    if (!is_scalar(value)) {
        f->cut = f->cut || !json_is_null(value);
        return;
    }
    if (list == NULL && json_object_size(f->flat) < AUTHN_CLAIMS_MAX) {
        CHECK(json_object_set_new(f->flat, name, json_array()) == 0);
        list = json_object_get(f->flat, name);
    }
    if (list == NULL || f->values >= AUTHN_CLAIM_VALUES_MAX) {
        f->cut = true;
        return;
    }
    f->values++;
    CHECK(json_array_append(list, value) == 0);
}

static void flatten(struct flattening *f, const char *name, json_t *value,
                    int depth) // NOLINT(misc-no-recursion)
{
    const char *key = NULL;
    json_t *item = NULL;

    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            add_value(f, name, json_array_get(value, i));
        }
        return;
    }
    if (!json_is_object(value)) {
        add_value(f, name, value);
        return;
    }
    if (depth >= AUTHN_CLAIMS_DEPTH) {
        f->cut = true;
        return;
    }
    json_object_foreach(value, key, item)
    {
        CLEANUP(buf_deinit) struct buf full;

        buf_init(&full, 1024);
        buf_add_str(&full, name);
        buf_add_char(&full, '.');
        buf_add_str(&full, key);
        if (full.err == ERR_OK) {
            flatten(f, buf_cstr(&full), item, depth + 1);
        }
    }
}

json_t *authn_claims_flatten(json_t *claims, bool *cut_out)
{
    struct flattening f = { .flat = json_object() };
    const char *key = NULL;
    json_t *item = NULL;

    CHECK(f.flat != NULL);
    json_object_foreach(claims, key, item)
    {
        if (strcmp(key, "nonce") != 0 && strcmp(key, "at_hash") != 0 &&
            strcmp(key, "c_hash") != 0 && strlen(key) < 256) {
            flatten(&f, key, item, 0);
        }
    }
    *cut_out = f.cut;
    return f.flat;
}

static Google__Protobuf__Value *value_of(const json_t *v, struct arena *arena)
{
    Google__Protobuf__Value *value = arena_alloc(arena, sizeof *value);

    google__protobuf__value__init(value);
    if (json_is_string(v)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        value->string_value = arena_str(arena, sv_of(json_string_value(v), json_string_length(v)));
    } else if (json_is_number(v)) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        value->number_value = json_number_value(v);
    } else {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        value->bool_value = json_is_true(v);
    }
    return value;
}

static Google__Protobuf__ListValue *list_of(const json_t *list, struct arena *arena)
{
    Google__Protobuf__ListValue *out = arena_alloc(arena, sizeof *out);

    google__protobuf__list_value__init(out);
    out->n_values = json_array_size(list);
    out->values = arena_alloc(arena, (out->n_values + 1) * sizeof(void *));
    for (size_t i = 0; i < out->n_values; i++) {
        out->values[i] = value_of(json_array_get(list, i), arena);
    }
    return out;
}

void authn_claims_to_session(json_t *flat, struct arena *arena, Session__Session *session)
{
    const char *key = NULL;
    json_t *list = NULL;

    session->claims = arena_alloc(arena, (json_object_size(flat) + 1) * sizeof(void *));
    json_object_foreach(flat, key, list)
    {
        Session__Session__ClaimsEntry *entry = arena_alloc(arena, sizeof *entry);

        session__session__claims_entry__init(entry);
        entry->key = arena_str(arena, sv_from(key));
        entry->value = list_of(list, arena);
        session->claims[session->n_claims++] = entry;
    }
}

void authn_claims_to_user(json_t *flat, struct arena *arena, User__User *user)
{
    const char *key = NULL;
    json_t *list = NULL;

    user->claims = arena_alloc(arena, (json_object_size(flat) + 1) * sizeof(void *));
    json_object_foreach(flat, key, list)
    {
        User__User__ClaimsEntry *entry = arena_alloc(arena, sizeof *entry);

        user__user__claims_entry__init(entry);
        entry->key = arena_str(arena, sv_from(key));
        entry->value = list_of(list, arena);
        user->claims[user->n_claims++] = entry;
    }
}

static struct sv text_of(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

struct sv authn_claims_email(json_t *claims, const char *name, struct arena *arena,
                             const char **why_not_out)
{
    bool denied = json_is_false(json_object_get(claims, "email_verified")) ||
                  sv_ieq(text_of(claims, "email_verified"), SV("false"));
    char email[AUTHN_EMAIL_MAX + 1];

    *why_not_out = NULL;
    if (json_object_get(claims, name) == NULL) {
        return SV("");
    }
    if (denied || authn_email_canonical(text_of(claims, name), email) != ERR_OK) {
        *why_not_out = denied ? "not verified" : "not an address";
        (void)json_object_del(claims, name);
        return SV("");
    }
    CHECK(json_object_set_new(claims, name, json_string(email)) == 0);
    return arena_sv(arena, sv_from(email));
}

static void add_group(json_t *groups, const json_t *given)
{
    if (json_is_string(given) && json_array_size(groups) < AUTHN_CLAIM_VALUES_MAX) {
        (void)json_array_append_new(
            groups, json_stringn(json_string_value(given), json_string_length(given)));
    }
}

json_t *authn_claims_groups(const json_t *claims, const char *name)
{
    const json_t *given = json_object_get(claims, name);
    json_t *groups = json_array();

    add_group(groups, given);
    for (size_t i = 0; i < json_array_size(given); i++) {
        add_group(groups, json_array_get(given, i));
    }
    return groups;
}

bool authn_claims_groups_elsewhere(const json_t *claims)
{
    return json_object_get(json_object_get(claims, "_claim_names"), "groups") != NULL ||
           json_is_true(json_object_get(claims, "hasgroups"));
}

void authn_claims_set_groups(json_t *claims, json_t *groups)
{
    (void)json_object_del(json_object_get(claims, "_claim_names"), "groups");
    (void)json_object_del(claims, "_claim_sources");
    (void)json_object_del(claims, "hasgroups");
    (void)json_object_set(claims, "groups", groups);
}

void authn_claims_keep_groups(json_t *claims, const Session__Session *session)
{
    json_t *groups = json_array();

    for (size_t i = 0; i < session->n_claims; i++) {
        const Google__Protobuf__ListValue *list = session->claims[i]->value;
        bool is_it = strcmp(session->claims[i]->key, "groups") == 0 && list != NULL;

        for (size_t k = 0; is_it && k < list->n_values; k++) {
            if (list->values[k]->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
                (void)json_array_append_new(groups, json_string(list->values[k]->string_value));
            }
        }
    }
    if (json_array_size(groups) != 0) {
        (void)json_object_set(claims, "groups", groups);
    }
    json_decref(groups);
}

void authn_claims_identity(json_t *claims, struct arena *arena, struct authn_identity *who_out,
                           struct authn_claims_notes *notes_out)
{
    struct sv subject = arena_sv(arena, text_of(claims, "sub"));

    *notes_out = (struct authn_claims_notes){ .cut = false };
    *who_out = (struct authn_identity){
        .user_id = subject,
        .subject = subject,
        .email = authn_claims_email(claims, "email", arena, &notes_out->email_why_not),
        .name = arena_sv(arena, text_of(claims, "name")),
        .groups = authn_claims_groups(claims, "groups"),
        .issuer = arena_sv(arena, text_of(claims, "iss")),
        .id_issued_at_s = json_integer_value(json_object_get(claims, "iat")),
        .id_expires_at_s = json_integer_value(json_object_get(claims, "exp")),
    };
    who_out->claims = authn_claims_flatten(claims, &notes_out->cut);
}

static bool is_of_token(const char *name)
{
    static const char *const names[] = { "iss", "aud", "azp", "exp", "iat", "nbf",
                                         "jti", "typ", "sid", "acr", "amr", "auth_time" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool authn_claims_cover(json_t *claims, const Session__Session *session)
{
    bool cut = false;
    json_t *flat = authn_claims_flatten(claims, &cut);
    bool all = true;

    for (size_t i = 0; i < session->n_claims && all; i++) {
        const char *name = session->claims[i]->key;

        all = is_of_token(name) || json_object_get(flat, name) != NULL;
    }
    json_decref(flat);
    return all;
}

void authn_identity_deinit(struct authn_identity *who)
{
    json_decref(who->claims);
    json_decref(who->groups);
    *who = (struct authn_identity){ .claims = NULL };
}
