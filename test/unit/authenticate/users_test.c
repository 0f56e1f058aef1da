/* Local accounts: who is let in, and that strangers cost the same work. */
#include "authenticate/users.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "test/support/cmocka.h"

/* bcrypt of "right", cost 4: fast enough for a test. */
#define HASH "$2b$04$abcdefghijklmnopqrstuuVTDsUgUfO0nEEu9M9hT5zYGhEpZrvTO"

static char hash[128];

static int make_hash(void **state)
{
    static struct crypt_data data;
    char setting[64];

    (void)state;
    assert_non_null(crypt_gensalt_rn("$2b$", 4, "0123456789abcdef", 16, setting, sizeof setting));
    (void)snprintf(hash, sizeof hash, "%s", crypt_r("right", setting, &data));
    return 0;
}

static struct authn_users *users_of(const char *yaml)
{
    struct authn_users *users = NULL;
    struct diag d = { .line = 0 };

    return authn_users_parse(sv_from(yaml), "users.yaml", &users, &d) == ERR_OK ? users : NULL;
}

static void the_right_password_opens_and_nothing_else(void **state)
{
    char yaml[512];
    char long_one[600];
    struct authn_users *users = NULL;
    const struct authn_user *user = NULL;

    (void)state;
    (void)snprintf(yaml, sizeof yaml,
                   "- email: Dana@Example.com\n  name: Dana\n  groups: [staff, admins]\n"
                   "  password: \"%s\"\n",
                   hash);
    users = users_of(yaml);
    assert_non_null(users);
    user = authn_users_verify(users, SV("dana@example.com"), SV("right"));
    assert_non_null(user);
    assert_true(sv_eq(user->email, SV("dana@example.com")));
    assert_int_equal(user->n_groups, 2);
    memset(long_one, 'x', sizeof long_one);
    assert_null(authn_users_verify(users, SV("dana@example.com"), SV("wrong")));
    assert_null(authn_users_verify(users, SV("dana@example.com"), SV("")));
    assert_null(authn_users_verify(users, SV("dana@example.com"), SV("-")));
    assert_null(
        authn_users_verify(users, SV("dana@example.com"), sv_of(long_one, sizeof long_one)));
    assert_null(authn_users_verify(users, SV("dana@example.com"), sv_from(hash)));
    authn_users_unref(&users);
}

/* The stand-in for a stranger is an account's own setting: even that account's password, which makes
 * the hashes equal, does not let the stranger in. So the same work was done, and it did not count. */
static void a_stranger_costs_one_hash_of_the_same_kind(void **state)
{
    char yaml[512];
    struct authn_users *users = NULL;

    (void)state;
    (void)snprintf(yaml, sizeof yaml, "- {email: a@b, password: \"%s\"}\n", hash);
    users = users_of(yaml);
    assert_non_null(users);
    assert_null(authn_users_verify(users, SV("nobody@b"), SV("right")));
    authn_users_unref(&users);
    users = users_of("[]");
    assert_non_null(users);
    assert_null(authn_users_verify(users, SV("nobody@b"), SV("right")));
    authn_users_unref(&users);
}

static void odd_files_are_refused(void **state)
{
    static const char *const bad[] = {
        "- {email: a@b, password: plain}\n",
        "- {email: a@b, password: \"\"}\n",
        "- {email: a@b}\n",
        "- {email: a@b, password: \"$1$abcdefgh$0123456789012345678901\"}\n",
        "- {email: a, password: \"" HASH "\"}\n",
        "- {email: a@b@c, password: \"" HASH "\"}\n",
        "- {email: \"a b@c\", password: \"" HASH "\"}\n",
        "- {email: a@b, password: \"" HASH "\", groups: x}\n",
        "- {email: a@b, password: \"" HASH "\", groups: [1]}\n",
        "- {email: a@b, password: \"" HASH "\"}\n- {email: A@B, password: \"" HASH "\"}\n",
        "email: a@b\n",
        "- x\n",
    };

    struct authn_users *good = users_of("- {email: a@b, password: \"" HASH "\"}\n");

    assert_non_null(good); /* what is wrong with the others is not the hash */
    authn_users_unref(&good);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct authn_users *users = users_of(bad[i]);

        if (users != NULL) {
            fail_msg("accepted: %s", bad[i]);
        }
        authn_users_unref(&users);
    }
}

static void a_file_counts_by_its_contents(void **state)
{
    char path[] = "/tmp/postern-users-XXXXXX";
    int fd = mkstemp(path);
    struct authn_users *first = NULL;
    struct authn_users *second = NULL;
    FILE *f = NULL;

    (void)state;
    assert_true(fd >= 0);
    f = fdopen(fd, "w");
    assert_non_null(f);
    (void)fprintf(f, "- {email: a@b, password: \"%s\"}\n", hash);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(authn_users_load(path, NULL, &first, NULL), ERR_OK);
    assert_int_equal(authn_users_load(path, first, &second, NULL), ERR_EXISTS);
    assert_null(second);
    (void)fprintf(f, "- {email: c@d, password: \"%s\"}\n", hash);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(authn_users_load(path, first, &second, NULL), ERR_OK);
    assert_int_equal(authn_users_count(second), 2);
    assert_int_equal(unlink(path), 0);
    authn_users_unref(&first);
    authn_users_unref(&second);
    assert_int_equal(authn_users_load(path, NULL, &first, NULL), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_right_password_opens_and_nothing_else),
        cmocka_unit_test(a_stranger_costs_one_hash_of_the_same_kind),
        cmocka_unit_test(odd_files_are_refused),
        cmocka_unit_test(a_file_counts_by_its_contents),
    };

    return cmocka_run_group_tests(tests, make_hash, NULL);
}
