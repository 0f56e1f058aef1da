/* Sealed state and codes out of a browser: nothing opens that we did not seal, and what we seal comes
 * back as it was. */
#include <string.h>

#include "authenticate/flow.h"
#include "common/secret.h"

static struct sealer *sealer(void)
{
    static struct sealer *made;

    if (made == NULL) {
        struct secret *secret = secret_new(SV("0123456789abcdef0123456789abcdef"));
        const struct secret *list[] = { secret };
        struct keys *keys = NULL;

        CHECK(keys_new(list, 1, &keys) == ERR_OK);
        made = sealer_new(keys, KEYS_LOGIN_STATE);
    }
    return made;
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv text = sv_of(data, size);
    struct authn_flow flow = { .redirect_uri = text, .attempt = size, .issued_at_s = 1 };
    struct authn_flow back;
    struct authn_code code;
    struct arena arena;
    struct buf sealed;

    arena_init(&arena);
    buf_init(&sealed, (size_t)SEAL_MAX * 2);
    CHECK(authn_flow_open(sealer(), AUTHN_FLOW_PROVIDER, text, &arena, &back) != ERR_OK);
    CHECK(authn_code_open(sealer(), text, 0, &arena, &code) != ERR_OK);
    if (authn_flow_seal(sealer(), AUTHN_FLOW_PROVIDER, &flow, &sealed) == ERR_OK) {
        CHECK(authn_flow_open(sealer(), AUTHN_FLOW_PROVIDER, buf_sv(&sealed), &arena, &back) ==
              ERR_OK);
        CHECK(sv_eq(back.redirect_uri, text) && back.attempt == size);
    }
    buf_deinit(&sealed);
    arena_deinit(&arena);
    return 0;
}
