/* Proofs of who calls on a unix socket: made for one server, for an hour, by who holds the secret. */
#include "common/rpc/proof.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secret.h"
#include "test/support/address.h"
#include "test/support/cmocka.h"

enum { MORE_MS = 120000 };

static struct keys *make_keys(const char *makes, const char *verifies)
{
    struct secret *s[2] = { secret_new(sv_from(makes)), NULL };
    const struct secret *view[2] = { s[0], NULL };
    struct keys *k = NULL;

    if (verifies != NULL) {
        s[1] = secret_new(sv_from(verifies));
        view[1] = s[1];
    }
    assert_int_equal(keys_new(view, verifies == NULL ? 1 : 2, &k), ERR_OK);
    secret_free(&s[0]);
    secret_free(&s[1]);
    return k;
}

static const char first[] = "0123456789abcdef0123456789abcdef";
static const char second[] = "fedcba9876543210fedcba9876543210";

/* The role that a caller's proof for server shows to a server of role at. */
static enum rpc_role shown(const struct keys *caller, enum rpc_role role, enum rpc_role server,
                           const struct keys *keys, enum rpc_role at)
{
    struct rpc_identity *from = rpc_identity_new(caller, role);
    struct rpc_identity *to = rpc_identity_new(keys, at);
    char proof[RPC_PROOF_SIZE];
    enum rpc_role got = RPC_NOBODY;

    rpc_proof_make(from, server, proof);
    got = rpc_proof_check(to, sv_from(proof));
    rpc_identity_free(&from);
    rpc_identity_free(&to);
    return got;
}

static void a_proof_shows_its_makers_role_to_one_server(void **state)
{
    struct keys *keys = make_keys(first, NULL);

    (void)state;
    for (int role = RPC_PROXY; role <= RPC_CLI; role++) {
        assert_int_equal(shown(keys, (enum rpc_role)role, RPC_AUTHORIZE, keys, RPC_AUTHORIZE),
                         role);
        assert_int_equal(shown(keys, (enum rpc_role)role, RPC_AUTHORIZE, keys, RPC_DATABROKER),
                         RPC_NOBODY);
    }
    keys_free(&keys);
}

static void it_follows_the_secrets_rotation(void **state)
{
    struct keys *old = make_keys(first, NULL);
    struct keys *both = make_keys(second, first);
    struct keys *new = make_keys(second, NULL);

    (void)state;
    assert_int_equal(shown(old, RPC_PROXY, RPC_AUTHORIZE, both, RPC_AUTHORIZE), RPC_PROXY);
    assert_int_equal(shown(both, RPC_PROXY, RPC_AUTHORIZE, new, RPC_AUTHORIZE), RPC_PROXY);
    assert_int_equal(shown(old, RPC_PROXY, RPC_AUTHORIZE, new, RPC_AUTHORIZE), RPC_NOBODY);
    keys_free(&old);
    keys_free(&both);
    keys_free(&new);
}

static void it_ends_after_an_hour_and_comes_from_no_future(void **state)
{
    struct keys *keys = make_keys(first, NULL);
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    int64_t life_ms = (int64_t)RPC_PROOF_LIFE_S * 1000;
    char proof[RPC_PROOF_SIZE];

    (void)state;
    rpc_proof_make(id, RPC_PROXY, proof);
    clock_test_shift(life_ms);
    assert_int_equal(rpc_proof_check(id, sv_from(proof)), RPC_PROXY);
    clock_test_shift(MORE_MS);
    assert_int_equal(rpc_proof_check(id, sv_from(proof)), RPC_NOBODY);
    rpc_proof_make(id, RPC_PROXY, proof);
    clock_test_shift(-life_ms - MORE_MS);
    assert_int_equal(rpc_proof_check(id, sv_from(proof)), RPC_NOBODY);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void no_other_text_shows_a_role(void **state)
{
    struct keys *keys = make_keys(first, NULL);
    struct rpc_identity *id = rpc_identity_new(keys, RPC_PROXY);
    char proof[RPC_PROOF_SIZE];
    size_t n = 0;

    (void)state;
    rpc_proof_make(id, RPC_PROXY, proof);
    n = strlen(proof);
    for (size_t i = 0; i < n; i++) {
        char was = proof[i];

        assert_int_equal(rpc_proof_check(id, sv_of(proof, i)), RPC_NOBODY);
        proof[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(rpc_proof_check(id, sv_of(proof, n)), RPC_NOBODY);
        proof[i] = was;
    }
    assert_int_equal(rpc_proof_check(id, sv_from(proof + strlen(RPC_PROOF_SCHEME))), RPC_NOBODY);
    assert_int_equal(rpc_proof_check(id, sv_of(proof, n)), RPC_PROXY);
    rpc_identity_free(&id);
    keys_free(&keys);
}

static void folder_of(const char *address, char path[TEST_ADDRESS])
{
    (void)snprintf(path, TEST_ADDRESS, "%s", address + strlen("unix:"));
    *strrchr(path, '/') = '\0';
}

static enum err check(const char *address)
{
    struct diag d = { .line = 0 };
    enum err err = rpc_unix_check(rpc_unix_path(sv_from(address)), &d);

    assert_true((err == ERR_OK) == (d.text[0] == '\0'));
    return err;
}

static void a_socket_is_ours_where_nobody_else_can_put_one(void **state)
{
    static const struct {
        mode_t mode;
        enum err err;
    } rows[] = { { 0700, ERR_OK },     { 0755, ERR_OK },      { 0770, ERR_DENIED },
                 { 0702, ERR_DENIED }, { 01777, ERR_DENIED }, { 0700, ERR_OK } };

    char address[TEST_ADDRESS];
    char folder[TEST_ADDRESS];

    (void)state;
    test_address_unix(address);
    folder_of(address, folder);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(chmod(folder, rows[i].mode), 0);
        assert_int_equal(check(address), rows[i].err);
    }
    assert_int_equal(symlink("/etc/passwd", address + strlen("unix:")), 0);
    assert_int_equal(check(address), ERR_DENIED);
    assert_int_equal(check("unix:/nowhere/at/all"), ERR_IO);
    assert_int_equal(check("unix:/tmp/s"), ERR_DENIED);
    test_address_remove(address);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proof_shows_its_makers_role_to_one_server),
        cmocka_unit_test(it_follows_the_secrets_rotation),
        cmocka_unit_test(it_ends_after_an_hour_and_comes_from_no_future),
        cmocka_unit_test(no_other_text_shows_a_role),
        cmocka_unit_test(a_socket_is_ours_where_nobody_else_can_put_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
