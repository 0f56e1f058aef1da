/* Audit lines as `postern audit verify` reads them: any bytes under a fixed secret. What is found whole holds
 * no line of a chain but those that the secret has made. */
#include <string.h>

#include "common/audit/verify.h"
#include "common/mem.h"
#include "common/secret.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char id[] = "00112233445566778899aabbccddeeff";

static struct keys *fixed_keys(void)
{
    struct secret *secret = secret_new(SV("0123456789abcdef0123456789abcdef"));
    const struct secret *secrets[] = { secret };
    struct keys *keys = NULL;

    CHECK(keys_new(secrets, 1, &keys) == ERR_OK);
    secret_free(&secret);
    return keys;
}

/* What corpus/audit/genuine holds. */
static void make_genuine(const struct keys *keys, struct buf *out)
{
    struct audit_chain chain;

    buf_init(out, 65536);
    audit_chain_init(&chain, CONFIG_AUDIT_CHAIN_HMAC, keys);
    memcpy(chain.id, id, AUDIT_ID_TEXT);
    audit_chain_open(&chain, 0, out);
    audit_chain_add(&chain, SV("{\"a\":1}\n"), out);
    audit_chain_add(&chain, SV("{\"b\":\"x\"}\n"), out);
    audit_chain_open(&chain, 0, out);
    audit_chain_end(&chain, 0, out);
    audit_chain_deinit(&chain);
}

static void say(void *arg, const char *sentence)
{
    (void)arg;
    CHECK(sentence[0] != '\0');
}

static void give(struct audit_verify *verify, struct sv text)
{
    uint64_t number = 0;

    while (text.p != NULL && text.n != 0) {
        size_t end = sv_find(text, '\n');
        size_t n = end == SIZE_MAX ? text.n : end;

        audit_verify_line(verify, "f", ++number, sv_head(text, n), end != SIZE_MAX);
        text = sv_from_at(text, end == SIZE_MAX ? n : n + 1);
    }
}

static void must_be_genuine(struct sv text, struct sv genuine)
{
    while (text.p != NULL && text.n != 0) {
        size_t end = sv_find(text, '\n');
        struct sv line = sv_head(text, end == SIZE_MAX ? text.n : end);
        struct audit_link link;

        CHECK(!audit_link_read(line, &link) || sv_search(genuine, line) != SIZE_MAX);
        text = sv_from_at(text, end == SIZE_MAX ? text.n : end + 1);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys *keys;
    static struct buf genuine;
    struct sv text = sv_of(data, size);
    struct buf summary;
    struct audit_verify *verify = NULL;

    if (keys == NULL) {
        keys = fixed_keys();
        make_genuine(keys, &genuine);
    }
    const struct audit_verify_opts opts = { .keys = keys, .say = say };

    verify = audit_verify_new(&opts);
    (void)audit_verify_expect(verify, sv_head(text, MIN(size, (size_t)128)));
    give(verify, text);
    buf_init(&summary, 1U << 20U);
    if (audit_verify_end(verify, &summary)) {
        must_be_genuine(text, buf_sv(&genuine));
    }
    buf_deinit(&summary);
    audit_verify_free(&verify);
    return 0;
}
