/* keypair: which texts make a pair, whatever was read before. */
#include "common/crypto/keypair.h"

#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "test/support/cmocka.h"
#include "test/support/pki.h"

/* The sentence of the refusal; "" when it was none. */
static const char *refusal(const char *cert, const char *key)
{
    static struct diag d;
    struct keypair *pair = NULL;

    d = (struct diag){ .line = 0 };
    if (keypair_of_pem(sv_from(cert), sv_from(key), &pair, &d) == ERR_OK) {
        assert_non_null(keypair_key(pair));
        keypair_unref(&pair);
        return "";
    }
    assert_null(pair);
    return d.text;
}

static void test_keys_of_all_kinds_are_read_in_any_order(void **state)
{
    struct pki_pair pairs[] = { pki_pair_new(PKI_P256, "a"), pki_pair_new(PKI_RSA2048, "b"),
                                pki_pair_new(PKI_ED25519, "c"), pki_pair_new(PKI_P384, "d") };
    char *sealed = pki_sealed_key(pairs[0].key, "secret");
    size_t i = 0;
    size_t k = 0;

    (void)state;
    for (i = 0; i < 3 * ARRAY_LEN(pairs); i++) {
        const struct pki_pair *p = &pairs[i % ARRAY_LEN(pairs)];

        assert_string_equal(refusal(p->cert, p->key), "");
        /* What failed must leave nothing behind for the next. */
        assert_non_null(strstr(refusal(p->cert, sealed), "passphrase"));
        assert_non_null(strstr(refusal(p->cert, "no key"), "cannot be read"));
        assert_non_null(strstr(refusal(p->cert, p->cert), "cannot be read"));
        assert_non_null(strstr(refusal(p->cert, ""), "cannot be read"));
        for (k = 0; k < ARRAY_LEN(pairs); k++) {
            const char *said = refusal(p->cert, pairs[k].key);

            assert_true(k == i % ARRAY_LEN(pairs) ? said[0] == '\0'
                                                  : strstr(said, "do not belong") != NULL);
        }
    }
    mem_free(&sealed);
    for (i = 0; i < ARRAY_LEN(pairs); i++) {
        pki_pair_deinit(&pairs[i]);
    }
}

static void test_a_chain_is_read_whole_or_not_at_all(void **state)
{
    struct pki_pair leaf = pki_pair_new(PKI_P256, "leaf");
    struct pki_pair other = pki_pair_new(PKI_P256, "other");
    struct buf text;
    size_t i = 0;

    (void)state;
    buf_init(&text, 1 << 20);
    buf_add_str(&text, leaf.cert);
    buf_add_str(&text, "comments may stand between them\n");
    buf_add_str(&text, other.cert);
    assert_string_equal(refusal(buf_cstr(&text), leaf.key), "");
    assert_non_null(strstr(refusal(buf_cstr(&text), other.key), "do not belong"));
    buf_add_sv(&text, sv_head(sv_from(other.cert), strlen(other.cert) / 2));
    assert_non_null(strstr(refusal(buf_cstr(&text), leaf.key), "damaged"));
    buf_reset(&text);
    for (i = 0; i <= KEYPAIR_CHAIN_MAX + 1; i++) {
        buf_add_str(&text, leaf.cert);
    }
    assert_non_null(strstr(refusal(buf_cstr(&text), leaf.key), "more than"));
    assert_non_null(strstr(refusal("", leaf.key), "no certificate"));
    buf_deinit(&text);
    pki_pair_deinit(&leaf);
    pki_pair_deinit(&other);
}

static void test_a_pair_knows_its_end_and_who_it_is(void **state)
{
    struct pki_pair a = pki_pair_new(PKI_P256, "a");
    struct pki_pair b = pki_pair_new(PKI_P256, "a");
    struct keypair *first = NULL;
    struct keypair *again = NULL;
    struct keypair *other = NULL;
    int64_t days = 0;

    (void)state;
    assert_int_equal(keypair_of_pem(sv_from(a.cert), sv_from(a.key), &first, NULL), ERR_OK);
    assert_int_equal(keypair_of_pem(sv_from(a.cert), sv_from(a.key), &again, NULL), ERR_OK);
    assert_int_equal(keypair_of_pem(sv_from(b.cert), sv_from(b.key), &other, NULL), ERR_OK);
    assert_true(sv_eq(keypair_id(first), keypair_id(again)));
    assert_false(sv_eq(keypair_id(first), keypair_id(other)));
    days = (keypair_ends_s(first) - clock_wall_s() + 43200) / 86400;
    assert_int_equal(days, 90);
    keypair_unref(&first);
    keypair_unref(&again);
    keypair_unref(&other);
    pki_pair_deinit(&a);
    pki_pair_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_of_all_kinds_are_read_in_any_order),
        cmocka_unit_test(test_a_chain_is_read_whole_or_not_at_all),
        cmocka_unit_test(test_a_pair_knows_its_end_and_who_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
