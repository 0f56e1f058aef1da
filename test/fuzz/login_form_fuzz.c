/* What is posted to the login form, and what of it is shown again. */
#include <string.h>

#include "authenticate/page.h"
#include "authenticate/users.h"
#include "common/http/form.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void email_has_one_at(struct sv text)
{
    char email[AUTHN_EMAIL_MAX + 1];

    if (authn_email_canonical(text, email) == ERR_OK) {
        CHECK(strlen(email) == text.n && strchr(email, '@') == strrchr(email, '@'));
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_form_value v[] = { { .key = SV("token") },
                                   { .key = SV("email") },
                                   { .key = SV("password") } };
    struct arena arena;
    struct buf page;

    arena_init(&arena);
    buf_init(&page, 1 << 20);
    if (http_form_read(sv_of(data, size), v, ARRAY_LEN(v), &arena) == ERR_OK) {
        authn_page_login(&page, &(struct authn_page_login){
                                    .token = v[0].value, .email = v[1].value, .note = v[2].value });
        CHECK(sv_search(buf_sv(&page), SV("<script")) == SIZE_MAX);
        email_has_one_at(v[1].value);
    }
    buf_deinit(&page);
    arena_deinit(&arena);
    return 0;
}
