#include "authenticate/users.h"

#include <crypt.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/secret.h"
#include "common/yaml.h"

enum { DIGEST_SIZE = 32 };

struct authn_users {
    struct arena arena;
    struct map *by_email;
    struct authn_user *v;
    size_t n;
    size_t refs;
    unsigned char digest[DIGEST_SIZE]; /* of the file */
};

/* Hashed against where there is no account at all; nobody knows a password for it. */
static const char nobody[] =
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";

enum err authn_email_canonical(struct sv text, char out[AUTHN_EMAIL_MAX + 1])
{
    size_t at = sv_find(text, '@');

    if (text.n > AUTHN_EMAIL_MAX || at == SIZE_MAX || at == 0 || at + 1 == text.n ||
        at != sv_rfind(text, '@') || !sv_is_utf8(text)) {
        return ERR_INVALID;
    }
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (c <= ' ' || c == 0x7f || c == ',' || c == ';' || c == '<' || c == '>' || c == '"') {
            return ERR_INVALID;
        }
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    out[text.n] = '\0';
    return ERR_OK;
}

static bool hash_allowed(struct sv hash)
{
    static const char *const kinds[] = { "$y$", "$7$", "$gy$", "$2b$", "$2y$", "$2a$" };

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (sv_starts(hash, sv_from(kinds[i]))) {
            return crypt_checksalt(hash.p) == CRYPT_SALT_OK ||
                   crypt_checksalt(hash.p) == CRYPT_SALT_METHOD_LEGACY; /* $2a$ */
        }
    }
    return false;
}

static struct sv text_member(const json_t *object, const char *name)
{
    const json_t *member = json_object_get(object, name);

    return sv_of(json_string_value(member), json_string_length(member));
}

static enum err groups_parse(struct authn_users *users, const json_t *list, struct authn_user *user)
{
    size_t n = json_array_size(list);

    if (list != NULL && !json_is_array(list)) {
        return ERR_INVALID;
    }
    user->groups = arena_zalloc(&users->arena, (n + 1) * sizeof user->groups[0]);
    for (size_t i = 0; i < n; i++) {
        const json_t *group = json_array_get(list, i);

        if (!json_is_string(group) || json_string_length(group) == 0) {
            return ERR_INVALID;
        }
        user->groups[i] =
            arena_sv(&users->arena, sv_of(json_string_value(group), json_string_length(group)));
    }
    user->n_groups = n;
    return ERR_OK;
}

static enum err user_parse(struct authn_users *users, const json_t *item, struct diag *d)
{
    struct authn_user *user = &users->v[users->n];
    char email[AUTHN_EMAIL_MAX + 1];

    if (!json_is_object(item) ||
        authn_email_canonical(text_member(item, "email"), email) != ERR_OK) {
        diag_set(d, "a user needs an email, such as dana@example.com");
        return ERR_INVALID;
    }
    user->email = arena_sv(&users->arena, sv_from(email));
    user->name = arena_sv(&users->arena, text_member(item, "name"));
    user->password = sv_from(arena_str(&users->arena, text_member(item, "password")));
    if (!hash_allowed(user->password)) {
        diag_set(d, "the password of %s is not a yescrypt or bcrypt hash (make one with mkpasswd)",
                 email);
        return ERR_INVALID;
    }
    if (groups_parse(users, json_object_get(item, "groups"), user) != ERR_OK) {
        diag_set(d, "the groups of %s are not a list of names", email);
        return ERR_INVALID;
    }
    if (map_set(users->by_email, user->email, user) != NULL) {
        diag_set(d, "%s is there twice", email);
        return ERR_INVALID;
    }
    users->n++;
    return ERR_OK;
}

static enum err list_parse(struct authn_users *users, const struct yaml_doc *doc, struct diag *d)
{
    const json_t *list = yaml_root(doc);

    if (json_is_object(list)) {
        list = json_object_get(list, "users");
    }
    if (!json_is_array(list) || json_array_size(list) > AUTHN_USERS_MAX) {
        diag_set(d, "not a list of users");
        return ERR_INVALID;
    }
    users->v = arena_zalloc(&users->arena, (json_array_size(list) + 1) * sizeof users->v[0]);
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct yaml_pos pos = yaml_item_pos(doc, list, i);

        if (user_parse(users, json_array_get(list, i), d) != ERR_OK) {
            diag_at(d, yaml_file(doc), pos.line, pos.column);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static void digest_of(struct sv text, unsigned char digest[DIGEST_SIZE])
{
    CHECK(EVP_Digest(text.p, text.n, digest, NULL, EVP_sha256(), NULL) == 1);
}

enum err authn_users_parse(struct sv text, const char *file, struct authn_users **users_out,
                           struct diag *d)
{
    CLEANUP(authn_users_unref) struct authn_users *users = MEM_NEW(struct authn_users);
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = NULL;
    enum err err = ERR_OK;

    arena_init(&users->arena);
    users->by_email = map_new();
    users->refs = 1;
    digest_of(text, users->digest);
    err = yaml_parse(text, file, &doc, d);
    if (err == ERR_OK) {
        err = list_parse(users, doc, d);
    }
    if (err == ERR_OK) {
        *users_out = TAKE(users);
    }
    return err;
}

enum err authn_users_load(const char *file, const struct authn_users *current,
                          struct authn_users **users_out, struct diag *d)
{
    FILE *in = fopen(file, "re");
    unsigned char digest[DIGEST_SIZE];
    CLEANUP(buf_deinit) struct buf text;
    enum err err = ERR_OK;

    buf_init(&text, AUTHN_USERS_BYTES_MAX);
    if (in == NULL) {
        diag_set(d, "the users file cannot be opened");
        diag_at(d, file, 0, 0);
        return ERR_IO;
    }
    while (text.err == ERR_OK && feof(in) == 0 && ferror(in) == 0) {
        char *room = buf_room(&text, 16384);

        if (room != NULL) {
            buf_grew(&text, fread(room, 1, 16384, in));
        }
    }
    err = ferror(in) != 0 ? ERR_IO : text.err;
    if (fclose(in) != 0 || err != ERR_OK) {
        diag_set(d, "the users file cannot be read, or is too large");
        diag_at(d, file, 0, 0);
        return err == ERR_OK ? ERR_IO : err;
    }
    digest_of(buf_sv(&text), digest);
    if (current != NULL && memcmp(digest, current->digest, sizeof digest) == 0) {
        err = ERR_EXISTS;
    } else {
        err = authn_users_parse(buf_sv(&text), file, users_out, d);
    }
    secret_wipe(text.p, text.n);
    return err;
}

struct authn_users *authn_users_ref(struct authn_users *users)
{
    users->refs++;
    return users;
}

void authn_users_unref(struct authn_users **users)
{
    if (*users != NULL && --(*users)->refs == 0) {
        map_free(&(*users)->by_email);
        arena_deinit(&(*users)->arena);
        mem_free(users);
    }
    *users = NULL;
}

size_t authn_users_count(const struct authn_users *users)
{
    return users->n;
}

/* The setting for an account that is not there: always the same one for a name, of the kind and
 * cost that others in the file have. */
static const char *stand_in(const struct authn_users *users, struct sv email)
{
    return users->n == 0 ? nobody : users->v[map_hash(email) % users->n].password.p;
}

const struct authn_user *authn_users_verify(const struct authn_users *users, struct sv email,
                                            struct sv password)
{
    const struct authn_user *user = map_get(users->by_email, email);
    const char *setting = user != NULL ? user->password.p : stand_in(users, email);
    struct crypt_data *data = mem_zalloc(sizeof *data);
    char phrase[CRYPT_MAX_PASSPHRASE_SIZE] = { 0 };
    bool fits = password.n > 0 && password.n < sizeof phrase;
    const char *hash = NULL;

    memcpy(phrase, fits ? password.p : "-", fits ? password.n : 1);
    hash = crypt_rn(phrase, setting, data, (int)sizeof *data);
    fits = hash != NULL && secret_same(sv_from(hash), sv_from(setting)) && fits;
    secret_wipe(phrase, sizeof phrase);
    secret_wipe(data, sizeof *data);
    mem_free(&data);
    return fits ? user : NULL; /* without an account user is NULL, whatever the hash said */
}
