/* date: calendar days and RFC 3339 text, proleptic Gregorian, without the C library's time zones.
 * Pure functions; any thread. */
#pragma once

#include "common/base.h"
#include "common/sv.h"

struct date {
    int year; /* 0 to 9999 */
    int month;
    int day;
    int hour;
    int minute;
    int second;
    int nanos;
    int offset_s;    /* east of UTC */
    char separator;  /* 'T', 't' or ' '; NUL: a day without a time */
    bool has_offset; /* Z or ±hh:mm stood there */
};

/* 2024-5-1, 2024-05-01T10:00:00Z, 2024-05-01 10:00:00.5+02:00, … : one or two digits but for the
 * year. ERR_INVALID: another form, or no such day or time. */
MUST_CHECK enum err date_parse(struct sv text, struct date *date_out);
/* Milliseconds since 1970-01-01T00:00:00Z; a date without offset is UTC. */
int64_t date_wall_ms(const struct date *date);

enum { DATE_TEXT_SIZE = 32 };

/* RFC 3339 in UTC, the fraction only as long as needed: 2024-05-01T00:00:00Z, with its NUL. */
const char *date_format_utc(const struct date *date, char text[DATE_TEXT_SIZE]);

/* Days since 1970-01-01, and back. */
int64_t date_days(int64_t year, int month, int day);
void date_of_days(int64_t days, int64_t *year_out, int *month_out, int *day_out);
/* 0 = Sunday. */
int date_weekday(int64_t days);
int date_month_days(int64_t year, int month);
