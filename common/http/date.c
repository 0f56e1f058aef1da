#include "common/http/date.h"

#include <string.h>
#include <time.h>

static const char day_names[] = "SunMonTueWedThuFriSat";
static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

enum { LAST_YEAR = 9999 };

#define LAST_SECOND INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

static void put2(char *p, int v)
{
    p[0] = (char)('0' + v / 10 % 10);
    p[1] = (char)('0' + v % 10);
}

void http_date_format(int64_t wall_s, char out[HTTP_DATE_LEN + 1])
{
    time_t t = (time_t)MIN(MAX(wall_s, (int64_t)0), LAST_SECOND);
    struct tm tm = { 0 };

    (void)gmtime_r(&t, &tm);
    memcpy(out, "Day, 00 Mon 0000 00:00:00 GMT", HTTP_DATE_LEN + 1);
    memcpy(out, day_names + (size_t)tm.tm_wday * 3, 3);
    put2(out + 5, tm.tm_mday);
    memcpy(out + 8, month_names + (size_t)tm.tm_mon * 3, 3);
    put2(out + 12, (tm.tm_year + 1900) / 100);
    put2(out + 14, (tm.tm_year + 1900) % 100);
    put2(out + 17, tm.tm_hour);
    put2(out + 20, tm.tm_min);
    put2(out + 23, tm.tm_sec);
}

struct sv http_date_at(struct http_date *cache, int64_t wall_s)
{
    if (cache->second != wall_s || cache->text[0] == '\0') {
        http_date_format(wall_s, cache->text);
        cache->second = wall_s;
    }
    return sv_of(cache->text, HTTP_DATE_LEN);
}

static bool get_number(struct sv s, uint64_t max, int *v_out)
{
    uint64_t v = 0;

    if (sv_u64(s, max, &v) != ERR_OK) {
        return false;
    }
    *v_out = (int)v;
    return true;
}

enum err http_date_parse(struct sv text, int64_t *wall_s_out)
{
    char again[HTTP_DATE_LEN + 1];
    struct tm tm = { 0 };
    size_t month = 0;
    int64_t t = 0;

    if (text.n != HTTP_DATE_LEN) {
        return ERR_INVALID;
    }
    month = sv_search(sv_of(month_names, sizeof(month_names) - 1), sv_of(text.p + 8, 3));
    if (month == SIZE_MAX || !get_number(sv_of(text.p + 5, 2), 31, &tm.tm_mday) ||
        !get_number(sv_of(text.p + 12, 4), LAST_YEAR, &tm.tm_year) ||
        !get_number(sv_of(text.p + 17, 2), 23, &tm.tm_hour) ||
        !get_number(sv_of(text.p + 20, 2), 59, &tm.tm_min) ||
        !get_number(sv_of(text.p + 23, 2), 59, &tm.tm_sec)) {
        return ERR_INVALID;
    }
    tm.tm_mon = (int)(month / 3);
    tm.tm_year -= 1900;
    t = (int64_t)timegm(&tm);
    if (t < 0) {
        return ERR_INVALID;
    }
    /* Weekday, separators, days per month: the text must be what we would have written. */
    http_date_format(t, again);
    if (memcmp(again, text.p, HTTP_DATE_LEN) != 0) {
        return ERR_INVALID;
    }
    *wall_s_out = t;
    return ERR_OK;
}
