/* emit: no value ends its line, wherever the byte stands that would. */
#include "proxy/emit.h"

#include <string.h>

#include "test/support/cmocka.h"

enum { LONGEST = 67 };

static bool passes(struct sv value)
{
    struct proxy_emit e;
    struct buf text;
    bool whole = false;

    buf_init(&text, 4096);
    proxy_emit_h1(&e, &text);
    proxy_emit_field(&e, SV("X-Any"), value);
    whole = proxy_emit_end(&e);
    buf_deinit(&text);
    return whole;
}

/* Every byte at one place of a value of n bytes. */
static void try_every_byte(size_t n, size_t at)
{
    char value[LONGEST];

    memset(value, n % 2 == 0 ? 'a' : '\t', n);
    for (unsigned c = 0; c < 256; c++) {
        bool want = c != '\r' && c != '\n' && c != '\0';

        value[at] = (char)c;
        if (passes(sv_of(value, n)) != want) {
            fail_msg("byte %u at %zu of %zu", c, at, n);
        }
    }
}

static void a_byte_that_ends_a_line_is_found_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t n = 1; n <= LONGEST; n++) {
        for (size_t at = 0; at < n; at++) {
            try_every_byte(n, at);
        }
    }
    assert_true(passes(SV("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_that_ends_a_line_is_found_wherever_it_stands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
