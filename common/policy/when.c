#include "common/policy/when.h"

#include <string.h>

#include "common/date.h"

static const int64_t day_ms = INT64_C(86400000);
static const int64_t minute_us = INT64_C(60000000);

static struct sv text_of(const json_t *string)
{
    return sv_of(json_string_value(string), json_string_length(string));
}

/* Walks {after:, before:} and whatever else known names allow; read fills one end. */
typedef enum err (*end_fn)(struct policy_scan *scan, struct sv text, int64_t *end_out);

static enum err read_ends(struct policy_scan *scan, const json_t *data, bool zoned, end_fn read,
                          struct policy_when *when)
{
    const char *name = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    json_object_foreach(policy_scan_tree(data), name, value)
    {
        bool after = strcmp(name, "after") == 0;

        policy_scan_member(scan, data, name);
        if (zoned && strcmp(name, "timezone") == 0) {
            continue;
        }
        if (!after && strcmp(name, "before") != 0) {
            return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                    "unknown operator \"%.40s\"; this criterion knows %safter, "
                                    "before",
                                    name, zoned ? "timezone, " : "");
        }
        if (!json_is_string(value)) {
            return policy_scan_fail(scan, POLICY_FAULT_DATA, "\"%s\" takes text; quote it", name);
        }
        err = read(scan, text_of(value), after ? &when->after : &when->before);
        if (err != ERR_OK) {
            return err;
        }
        when->has_after = when->has_after || after;
        when->has_before = when->has_before || !after;
    }
    if (!when->has_after && !when->has_before) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA, "give \"after\", \"before\" or both");
    }
    return ERR_OK;
}

static enum err want_object(struct policy_scan *scan, const json_t *data, const char *example)
{
    if (json_is_object(data)) {
        return ERR_OK;
    }
    return policy_scan_fail(scan, POLICY_FAULT_DATA, "this criterion takes an object: %s", example);
}

/* --- date ---------------------------------------------------------------------------------------- */

static enum err read_date(struct policy_scan *scan, struct sv text, int64_t *end_out)
{
    struct date date = { 0 };

    if (date_parse(text, &date) != ERR_OK) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "not a date: write 2030-01-02 or 2030-01-02T16:20:00Z");
    }
    *end_out = date_wall_ms(&date);
    return ERR_OK;
}

enum err policy_when_date_compile(struct policy_scan *scan, const json_t *data,
                                  struct policy_when *when_out)
{
    enum err err = want_object(scan, data, "{after: 2030-01-02T16:20:00Z}");

    *when_out = (struct policy_when){ 0 };
    return err != ERR_OK ? err : read_ends(scan, data, false, read_date, when_out);
}

bool policy_when_date(const struct policy_when *when, int64_t wall_ms)
{
    return (!when->has_after || wall_ms > when->after) &&
           (!when->has_before || wall_ms < when->before);
}

/* --- day_of_week --------------------------------------------------------------------------------- */

/* 0 = Sunday; -1: no day. */
static int read_day(struct sv name)
{
    static const char *const days[] = { "sunday",   "monday", "tuesday", "wednesday",
                                        "thursday", "friday", "saturday" };
    int i = 0;

    for (i = 0; i < 7; i++) {
        struct sv day = sv_from(days[i]);

        if (sv_ieq(name, day) || sv_ieq(name, sv_head(day, 3))) {
            return i;
        }
    }
    return -1;
}

static bool read_days(struct sv text, uint8_t *days_out)
{
    struct sv rest = text;

    *days_out = 0;
    if (sv_eq(sv_trim(text), SV("*"))) {
        *days_out = 0x7f;
        return true;
    }
    while (rest.p != NULL) {
        struct sv last = sv_cut(&rest, ',');
        struct sv first = sv_cut(&last, '-');
        int from = read_day(sv_trim(first));
        int to = last.p == NULL ? from : read_day(sv_trim(last));

        if (from < 0 || to < 0) {
            return false;
        }
        while (from != to) { /* fri-mon goes over the end of the week */
            *days_out |= (uint8_t)BIT(from);
            from = (from + 1) % 7;
        }
        *days_out |= (uint8_t)BIT(to);
    }
    return true;
}

enum err policy_when_days_compile(struct policy_scan *scan, const json_t *data,
                                  struct policy_when *when_out)
{
    const json_t *text = data;

    *when_out = (struct policy_when){ 0 };
    if (json_is_object(data)) {
        const char *name = json_object_iter_key(json_object_iter(policy_scan_tree(data)));

        text = json_object_get(data, "is");
        if (text == NULL || json_object_size(data) != 1) {
            return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                    "unknown operator \"%.40s\"; this criterion knows is",
                                    name == NULL ? "" : name);
        }
        policy_scan_member(scan, data, "is");
    }
    if (!json_is_string(text) || !read_days(text_of(text), &when_out->days)) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "not days of the week: write mon-fri, \"sat,sun\" or \"*\"");
    }
    return ERR_OK;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return (a >= 0 ? a : a - (b - 1)) / b;
}

bool policy_when_days(const struct policy_when *when, int64_t wall_ms)
{
    return (when->days & BIT(date_weekday(floor_div(wall_ms, day_ms)))) != 0;
}

/* --- time_of_day --------------------------------------------------------------------------------- */

static bool take_part(struct sv *s, size_t min, int max, int *out)
{
    size_t n = 0;
    int v = 0;

    while (n < s->n && n < 2 && s->p[n] >= '0' && s->p[n] <= '9') {
        v = v * 10 + (s->p[n] - '0');
        n++;
    }
    *s = sv_from_at(*s, n);
    *out = v;
    return n >= min && v <= max;
}

static bool take_colon(struct sv *s)
{
    if (s->n == 0 || s->p[0] != ':') {
        return false;
    }
    *s = sv_from_at(*s, 1);
    return true;
}

/* Behind the seconds: nothing, or a point and up to nine digits. */
static bool read_fraction(struct sv s, int64_t *us_out)
{
    int64_t scale = 100000;
    size_t i = 1;

    *us_out = 0;
    if (s.n == 0) {
        return true;
    }
    if (s.p[0] != '.' || s.n < 2 || s.n > 10) {
        return false;
    }
    for (; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
        *us_out += (s.p[i] - '0') * scale;
        scale /= 10;
    }
    return true;
}

/* 3 PM, 3:04PM: cuts the half of the day off; *half_out 0 or 12, -1 where none stands there. */
static void take_half(struct sv *s, int *half_out)
{
    struct sv tail = s->n < 2 ? (struct sv){ 0 } : sv_from_at(*s, s->n - 2);

    *half_out = sv_ieq(tail, SV("AM")) ? 0 : sv_ieq(tail, SV("PM")) ? 12 : -1;
    if (*half_out >= 0) {
        *s = sv_head(*s, s->n - 2);
        if (s->n != 0 && s->p[s->n - 1] == ' ') {
            *s = sv_head(*s, s->n - 1);
        }
    }
}

static bool read_clock(struct sv text, int64_t *us_out)
{
    struct sv s = text;
    int64_t fraction = 0;
    int half = 0;
    int hour = 0;
    int minute = 0;
    int second = 0;

    take_half(&s, &half);
    if (!take_part(&s, 1, half >= 0 ? 12 : 23, &hour) || (half >= 0 && hour == 0)) {
        return false;
    }
    if (half >= 0) {
        hour = hour % 12 + half;
        if (s.n != 0 && (!take_colon(&s) || !take_part(&s, 2, 59, &minute) || s.n != 0)) {
            return false;
        }
    } else {
        if (!take_colon(&s) || !take_part(&s, 2, 59, &minute)) {
            return false;
        }
        if (s.n != 0 &&
            (!take_colon(&s) || !take_part(&s, 2, 59, &second) || !read_fraction(s, &fraction))) {
            return false;
        }
    }
    *us_out = (hour * INT64_C(60) + minute) * minute_us + second * INT64_C(1000000) + fraction;
    return true;
}

static enum err read_time(struct policy_scan *scan, struct sv text, int64_t *end_out)
{
    if (!read_clock(text, end_out)) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "not a time of day: write 17:00, 17:00:30 or 5 PM");
    }
    return ERR_OK;
}

enum err policy_when_time_compile(struct policy_scan *scan, const json_t *data,
                                  struct policy_when *when_out)
{
    const json_t *zone = json_object_get(data, "timezone");
    enum err err = want_object(scan, data, "{timezone: Europe/Oslo, after: \"17:00\"}");

    *when_out = (struct policy_when){ 0 };
    if (err == ERR_OK) {
        err = read_ends(scan, data, true, read_time, when_out);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (zone != NULL) {
        policy_scan_member(scan, data, "timezone");
    }
    if (!json_is_string(zone)) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "\"timezone\" is missing: write UTC or a name as Europe/Oslo");
    }
    if (policy_zone_load(text_of(zone), scan->arena, &when_out->zone) != ERR_OK) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA, "this system knows no time zone \"%.60s\"",
                                json_string_value(zone));
    }
    return ERR_OK;
}

bool policy_when_time(const struct policy_when *when, int64_t wall_ms)
{
    int64_t local_ms = wall_ms + policy_zone_offset(when->zone, floor_div(wall_ms, 1000)) * 1000;
    int64_t us = (local_ms - floor_div(local_ms, day_ms) * day_ms) * 1000;
    bool after = !when->has_after || us > when->after;
    bool before = !when->has_before || us < when->before;
    bool over_midnight = when->has_after && when->has_before && when->after > when->before;

    return over_midnight ? after || before : after && before;
}
