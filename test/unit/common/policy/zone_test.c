#include "common/policy/zone.h"

#include "common/date.h"
#include "test/support/cmocka.h"

struct row {
    const char *zone;
    const char *utc;
    int64_t minutes; /* east */
};

static void offsets_follow_the_law_of_the_place(void **state)
{
    static const struct row rows[] = {
        { "UTC", "2026-07-01T00:00:00Z", 0 },
        { "Europe/Oslo", "2026-03-29T00:59:59Z", 60 },
        { "Europe/Oslo", "2026-03-29T01:00:00Z", 120 },
        { "Europe/Oslo", "2026-10-25T00:59:59Z", 120 },
        { "Europe/Oslo", "2026-10-25T01:00:00Z", 60 },
        { "Europe/Oslo", "2099-03-29T00:59:59Z", 60 }, /* by the rule behind the table */
        { "Europe/Oslo", "2099-03-29T01:00:00Z", 120 },
        { "America/New_York", "2026-03-08T06:59:59Z", -300 },
        { "America/New_York", "2026-03-08T07:00:00Z", -240 },
        { "America/New_York", "1974-01-15T12:00:00Z", -240 }, /* the year-round summer of 1974 */
        { "America/New_York", "2080-12-31T23:59:59Z", -300 },
        { "Australia/Sydney", "2026-01-01T00:00:00Z", 660 },
        { "Australia/Sydney", "2090-07-01T00:00:00Z", 600 },
        { "Australia/Sydney", "2090-12-31T23:00:00Z", 660 },
        { "Asia/Kathmandu", "2026-01-01T00:00:00Z", 345 },
        { "Asia/Tehran", "2060-06-01T00:00:00Z", 210 },
    };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        const struct policy_zone *zone = NULL;
        struct arena arena;
        struct date date = { 0 };

        arena_init(&arena);
        assert_int_equal(policy_zone_load(sv_from(rows[i].zone), &arena, &zone), ERR_OK);
        assert_int_equal(date_parse(sv_from(rows[i].utc), &date), ERR_OK);
        if (policy_zone_offset(zone, date_wall_ms(&date) / 1000) != rows[i].minutes * 60) {
            fail_msg("%s at %s: %d", rows[i].zone, rows[i].utc,
                     (int)policy_zone_offset(zone, date_wall_ms(&date) / 1000));
        }
        arena_deinit(&arena);
    }
}

static void names_lead_nowhere_else(void **state)
{
    static const char *const names[] = { "",        "/etc/passwd", "../zoneinfo/UTC",
                                         "Europe/", "Europe",      "Europe//Oslo",
                                         "No/Such", "a b",         "Europe/Oslo\n" };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(names); i++) {
        const struct policy_zone *zone = NULL;
        struct arena arena;

        arena_init(&arena);
        assert_int_not_equal(policy_zone_load(sv_from(names[i]), &arena, &zone), ERR_OK);
        assert_null(zone);
        arena_deinit(&arena);
    }
}

static void a_broken_table_is_refused(void **state)
{
    static const char header[] = "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                 "\xff\xff\xff\xff\0\0\0\1\0\0\0\1";
    const struct policy_zone *zone = NULL;
    struct arena arena;
    size_t n = 0;

    (void)state;
    arena_init(&arena);
    for (n = 0; n <= sizeof(header); n++) {
        assert_int_equal(policy_zone_parse(sv_of(header, n), &arena, &zone), ERR_INVALID);
    }
    arena_deinit(&arena);
}

static void days_and_dates_agree(void **state)
{
    int64_t day = 0;

    (void)state;
    for (day = -800000; day < 3000000; day += 37) {
        int64_t year = 0;
        int month = 0;
        int dom = 0;

        date_of_days(day, &year, &month, &dom);
        assert_int_equal(date_days(year, month, dom), day);
        assert_true(dom >= 1 && dom <= date_month_days(year, month));
    }
    assert_int_equal(date_days(1970, 1, 1), 0);
    assert_int_equal(date_weekday(date_days(2026, 11, 23)), 1);
    assert_int_equal(date_weekday(-1), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_follow_the_law_of_the_place),
        cmocka_unit_test(names_lead_nowhere_else),
        cmocka_unit_test(a_broken_table_is_refused),
        cmocka_unit_test(days_and_dates_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
