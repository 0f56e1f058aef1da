#include "common/date.h"

#include <stdio.h>

enum { DAY_S = 86400 };

int64_t date_days(int64_t year, int month, int day)
{
    /* Years begin in March, so that the leap day is the last; 400 years are 146097 days. */
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

void date_of_days(int64_t days, int64_t *year_out, int *month_out, int *day_out)
{
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t day_of_era = shifted - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;

    *day_out = (int)(day_of_year - (153 * march_month + 2) / 5 + 1);
    *month_out = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
    *year_out = year_of_era + era * 400 + (*month_out <= 2 ? 1 : 0);
}

int date_weekday(int64_t days)
{
    int64_t w = (days + 4) % 7; /* 1970-01-01 was a Thursday */

    return (int)(w < 0 ? w + 7 : w);
}

int date_month_days(int64_t year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return month == 2 && leap ? 29 : days[month - 1];
}

/* Takes min to max digits off the front. */
static bool take_number(struct sv *s, size_t min, size_t max, int *out)
{
    size_t n = 0;
    int v = 0;

    while (n < s->n && n < max && s->p[n] >= '0' && s->p[n] <= '9') {
        v = v * 10 + (s->p[n] - '0');
        n++;
    }
    *s = sv_from_at(*s, n);
    *out = v;
    return n >= min;
}

static bool take_char(struct sv *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = sv_from_at(*s, 1);
    return true;
}

static bool take_fraction(struct sv *s, int *nanos_out)
{
    int scale = 100000000;
    size_t n = 0;

    *nanos_out = 0;
    if (!take_char(s, '.')) {
        return true;
    }
    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9') {
        *nanos_out += (s->p[n] - '0') * scale;
        scale /= 10;
        n++;
    }
    *s = sv_from_at(*s, n);
    return n >= 1;
}

static bool take_offset(struct sv *s, struct date *date)
{
    int hours = 0;
    int minutes = 0;
    int sign = 1;

    if (s->n == 0) {
        return true;
    }
    date->has_offset = true;
    if (take_char(s, 'Z')) {
        return s->n == 0;
    }
    if (take_char(s, '-')) {
        sign = -1;
    } else if (!take_char(s, '+')) {
        return false;
    }
    if (!take_number(s, 2, 2, &hours) || !take_char(s, ':') || !take_number(s, 2, 2, &minutes)) {
        return false;
    }
    date->offset_s = sign * (hours * 3600 + minutes * 60);
    return s->n == 0 && hours <= 23 && minutes <= 59;
}

static bool take_time(struct sv *s, struct date *date)
{
    if (s->n == 0) {
        return true;
    }
    date->separator = s->p[0];
    if (date->separator != 'T' && date->separator != 't' && date->separator != ' ') {
        return false;
    }
    *s = sv_from_at(*s, 1);
    return take_number(s, 1, 2, &date->hour) && take_char(s, ':') &&
           take_number(s, 1, 2, &date->minute) && take_char(s, ':') &&
           take_number(s, 1, 2, &date->second) && take_fraction(s, &date->nanos) &&
           take_offset(s, date) && date->hour <= 23 && date->minute <= 59 && date->second <= 59;
}

enum err date_parse(struct sv text, struct date *date_out)
{
    struct date date = { 0 };
    struct sv s = text;

    if (!take_number(&s, 4, 4, &date.year) || !take_char(&s, '-') ||
        !take_number(&s, 1, 2, &date.month) || !take_char(&s, '-') ||
        !take_number(&s, 1, 2, &date.day)) {
        return ERR_INVALID;
    }
    if (date.month < 1 || date.month > 12 || date.day < 1 ||
        date.day > date_month_days(date.year, date.month) || !take_time(&s, &date)) {
        return ERR_INVALID;
    }
    *date_out = date;
    return ERR_OK;
}

static int64_t wall_s(const struct date *date)
{
    int second_of_day = date->hour * 3600 + date->minute * 60 + date->second;

    return date_days(date->year, date->month, date->day) * DAY_S + second_of_day - date->offset_s;
}

int64_t date_wall_ms(const struct date *date)
{
    return wall_s(date) * 1000 + date->nanos / 1000000;
}

const char *date_format_utc(const struct date *date, char text[DATE_TEXT_SIZE])
{
    int64_t s = wall_s(date);
    int64_t days = (s >= 0 ? s : s - (DAY_S - 1)) / DAY_S;
    int second = (int)(s - days * DAY_S);
    int64_t year = 0;
    int month = 0;
    int day = 0;
    int n = 0;

    date_of_days(days, &year, &month, &day);
    /* An offset can carry year 0 to -1, which four digits cannot show. */
    n = snprintf(text, DATE_TEXT_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d", (int)MAX(year, 0), month,
                 day, second / 3600, second / 60 % 60, second % 60);
    if (date->nanos != 0 && n > 0) {
        n += snprintf(text + n, DATE_TEXT_SIZE - (size_t)n, ".%09d", date->nanos);
        while (text[n - 1] == '0') {
            n--;
        }
    }
    (void)snprintf(text + n, DATE_TEXT_SIZE - (size_t)n, "Z");
    return text;
}
