#include "common/policy/zone.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/date.h"

enum { FILE_MAX_BYTES = 256 * 1024, HEADER_BYTES = 44, NAME_MAX_BYTES = 64, DAY_S = 86400 };

static const char zone_dir[] = "/usr/share/zoneinfo/";

/* When daylight saving begins or ends in a year. */
struct turn {
    char kind; /* 'M' month.week.day, 'J' day 1-365 without leap day, '0' day 0-365 */
    int month;
    int week;
    int day;
    int time_s; /* local, may be negative or beyond a day */
};

struct rule {
    bool set;
    bool daylight;
    int standard_s; /* east of UTC */
    int daylight_s;
    struct turn start;
    struct turn end;
};

struct policy_zone {
    const int64_t *at; /* moments of change, ascending */
    const uint8_t *type;
    size_t count;
    const int32_t *offsets; /* by type */
    struct rule rule;       /* after the last change */
};

/* --- the rule behind the table: a POSIX TZ text -------------------------------------------------- */

static bool take_int(struct sv *s, int max, int *out)
{
    size_t n = 0;
    int v = 0;

    while (n < s->n && n < 3 && s->p[n] >= '0' && s->p[n] <= '9') {
        v = v * 10 + (s->p[n] - '0');
        n++;
    }
    *s = sv_from_at(*s, n);
    *out = v;
    return n != 0 && v <= max;
}

static bool take_char(struct sv *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = sv_from_at(*s, 1);
    return true;
}

/* [+-]h[:mm[:ss]] */
static bool take_hms(struct sv *s, int *seconds_out)
{
    int sign = 1;
    int part = 0;

    if (take_char(s, '-')) {
        sign = -1;
    } else {
        (void)take_char(s, '+');
    }
    if (!take_int(s, 167, &part)) {
        return false;
    }
    *seconds_out = part * 3600;
    if (take_char(s, ':')) {
        if (!take_int(s, 59, &part)) {
            return false;
        }
        *seconds_out += part * 60;
        if (take_char(s, ':')) {
            if (!take_int(s, 59, &part)) {
                return false;
            }
            *seconds_out += part;
        }
    }
    *seconds_out *= sign;
    return true;
}

static bool skip_name(struct sv *s)
{
    size_t n = 0;

    if (take_char(s, '<')) {
        n = sv_find(*s, '>');
        if (n == SIZE_MAX) {
            return false;
        }
        *s = sv_from_at(*s, n + 1);
        return true;
    }
    while (n < s->n && (((unsigned)s->p[n] | 0x20U) - 'a') < 26U) {
        n++;
    }
    *s = sv_from_at(*s, n);
    return n >= 3;
}

static bool take_turn(struct sv *s, struct turn *turn)
{
    bool ok = false;

    *turn = (struct turn){ .kind = '0', .time_s = 7200 };
    if (!take_char(s, ',')) {
        return false;
    }
    if (take_char(s, 'M')) {
        turn->kind = 'M';
        ok = take_int(s, 12, &turn->month) && turn->month >= 1 && take_char(s, '.') &&
             take_int(s, 5, &turn->week) && turn->week >= 1 && take_char(s, '.') &&
             take_int(s, 6, &turn->day);
    } else {
        turn->kind = take_char(s, 'J') ? 'J' : '0';
        ok = take_int(s, 365, &turn->day) && (turn->kind != 'J' || turn->day >= 1);
    }
    if (ok && take_char(s, '/')) {
        ok = take_hms(s, &turn->time_s);
    }
    return ok;
}

static bool parse_rule(struct sv s, struct rule *rule)
{
    int west = 0;

    *rule = (struct rule){ 0 };
    if (s.n == 0) {
        return true; /* the last change holds for ever */
    }
    if (!skip_name(&s) || !take_hms(&s, &west)) {
        return false;
    }
    rule->set = true;
    rule->standard_s = -west;
    if (s.n == 0) {
        return true;
    }
    rule->daylight = true;
    rule->daylight_s = rule->standard_s + 3600;
    if (!skip_name(&s)) {
        return false;
    }
    if (s.n != 0 && s.p[0] != ',') {
        if (!take_hms(&s, &west)) {
            return false;
        }
        rule->daylight_s = -west;
    }
    return take_turn(&s, &rule->start) && take_turn(&s, &rule->end) && s.n == 0;
}

/* Local seconds since the epoch of the turn in a year. */
static int64_t turn_at(const struct turn *turn, int64_t year)
{
    int64_t days = date_days(year, 1, 1);

    if (turn->kind == 'M') {
        int64_t first = date_days(year, turn->month, 1);
        int64_t day = (turn->day - date_weekday(first) + 7) % 7 + (turn->week - 1) * INT64_C(7);

        days = first + (day >= date_month_days(year, turn->month) ? day - 7 : day);
    } else if (turn->kind == 'J') {
        bool after_leap = date_month_days(year, 2) == 29 && turn->day >= 60;

        days += turn->day - 1 + (after_leap ? 1 : 0);
    } else {
        days += turn->day;
    }
    return days * DAY_S + turn->time_s;
}

static int64_t floor_days(int64_t s)
{
    return (s >= 0 ? s : s - (DAY_S - 1)) / DAY_S;
}

static int64_t rule_offset(const struct rule *rule, int64_t wall_s)
{
    int64_t year = 0;
    int64_t start = 0;
    int64_t end = 0;
    int month = 0;
    int day = 0;
    bool daylight = false;

    if (!rule->daylight) {
        return rule->standard_s;
    }
    date_of_days(floor_days(wall_s + rule->standard_s), &year, &month, &day);
    start = turn_at(&rule->start, year) - rule->standard_s;
    end = turn_at(&rule->end, year) - rule->daylight_s;
    daylight = start < end ? wall_s >= start && wall_s < end : wall_s >= start || wall_s < end;
    return daylight ? rule->daylight_s : rule->standard_s;
}

/* --- the table ----------------------------------------------------------------------------------- */

static uint64_t big_endian(const char *p, size_t n)
{
    uint64_t v = 0;
    size_t i = 0;

    for (i = 0; i < n; i++) {
        v = v << 8 | (unsigned char)p[i];
    }
    return v;
}

struct counts {
    size_t isut;
    size_t isstd;
    size_t leap;
    size_t time;
    size_t type;
    size_t chars;
};

static bool read_header(struct sv s, struct counts *c)
{
    if (s.n < HEADER_BYTES || !sv_starts(s, SV("TZif")) || s.p[4] < '2') {
        return false; /* version 1 ends in 2037: no system we know still writes only that */
    }
    c->isut = big_endian(s.p + 20, 4);
    c->isstd = big_endian(s.p + 24, 4);
    c->leap = big_endian(s.p + 28, 4);
    c->time = big_endian(s.p + 32, 4);
    c->type = big_endian(s.p + 36, 4);
    c->chars = big_endian(s.p + 40, 4);
    return c->type >= 1 && c->type <= 256 && c->isut <= FILE_MAX_BYTES &&
           c->isstd <= FILE_MAX_BYTES && c->leap <= FILE_MAX_BYTES && c->time <= FILE_MAX_BYTES &&
           c->chars <= FILE_MAX_BYTES;
}

static size_t body_bytes(const struct counts *c, size_t time_bytes)
{
    return c->time * (time_bytes + 1) + c->type * 6 + c->chars + c->leap * (time_bytes + 4) +
           c->isstd + c->isut;
}

static bool read_table(const char *p, const struct counts *c, struct arena *arena,
                       struct policy_zone *zone)
{
    int64_t *at = arena_alloc(arena, MAX(c->time, (size_t)1) * sizeof(*at));
    uint8_t *type = arena_alloc(arena, MAX(c->time, (size_t)1));
    int32_t *offsets = arena_alloc(arena, c->type * sizeof(*offsets));
    size_t i = 0;

    for (i = 0; i < c->time; i++) {
        at[i] = (int64_t)big_endian(p + i * 8, 8);
        type[i] = (uint8_t)p[c->time * 8 + i];
        if (type[i] >= c->type || (i > 0 && at[i] <= at[i - 1])) {
            return false;
        }
    }
    for (i = 0; i < c->type; i++) {
        offsets[i] = (int32_t)(uint32_t)big_endian(p + c->time * 9 + i * 6, 4);
        if (offsets[i] < -DAY_S * 2 || offsets[i] > DAY_S * 2) {
            return false;
        }
    }
    zone->at = at;
    zone->type = type;
    zone->count = c->time;
    zone->offsets = offsets;
    return true;
}

enum err policy_zone_parse(struct sv tzif, struct arena *arena, const struct policy_zone **zone_out)
{
    struct policy_zone *zone = arena_zalloc(arena, sizeof(*zone));
    struct counts c = { 0 };
    struct sv s = tzif;
    size_t n = 0;

    if (s.n > FILE_MAX_BYTES || !read_header(s, &c) || s.n - HEADER_BYTES < body_bytes(&c, 4)) {
        return ERR_INVALID;
    }
    s = sv_from_at(s, HEADER_BYTES + body_bytes(&c, 4));
    if (!read_header(s, &c) || s.n - HEADER_BYTES < body_bytes(&c, 8) ||
        !read_table(s.p + HEADER_BYTES, &c, arena, zone)) {
        return ERR_INVALID;
    }
    s = sv_from_at(s, HEADER_BYTES + body_bytes(&c, 8));
    n = s.n == 0 || s.p[0] != '\n' ? SIZE_MAX : sv_find(sv_from_at(s, 1), '\n');
    if (n == SIZE_MAX || !parse_rule(sv_head(sv_from_at(s, 1), n), &zone->rule)) {
        return ERR_INVALID;
    }
    *zone_out = zone;
    return ERR_OK;
}

int64_t policy_zone_offset(const struct policy_zone *zone, int64_t wall_s)
{
    size_t low = 0;
    size_t high = zone->count;

    if (zone->rule.set && (high == 0 || wall_s >= zone->at[high - 1])) {
        return rule_offset(&zone->rule, wall_s);
    }
    while (low < high) { /* first change after wall_s */
        size_t middle = low + (high - low) / 2;

        if (zone->at[middle] <= wall_s) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return zone->offsets[low == 0 ? 0 : zone->type[low - 1]];
}

/* --- the file ------------------------------------------------------------------------------------ */

/* Letters, digits, _ + - and single slashes inside: no way out of the directory. */
static bool is_zone_name(struct sv name)
{
    size_t i = 0;

    if (name.n == 0 || name.n > NAME_MAX_BYTES || name.p[0] == '/' || name.p[name.n - 1] == '/') {
        return false;
    }
    for (i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        bool word = (c | 0x20U) - 'a' < 26U || (unsigned)c - '0' < 10U || strchr("_+-", c) != NULL;

        if (c == '\0' || (!word && !(c == '/' && name.p[i - 1] != '/'))) {
            return false;
        }
    }
    return true;
}

static enum err read_file(const char *path, struct buf *bytes)
{
    enum err err = ERR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return ERR_NOT_FOUND;
    }
    while (err == ERR_OK) {
        char *room = buf_room(bytes, 4096);
        ssize_t n = room == NULL ? -1 : read(fd, room, 4096);

        if (n <= 0) {
            err = n == 0 ? ERR_OK : ERR_INVALID;
            break;
        }
        buf_grew(bytes, (size_t)n);
    }
    (void)close(fd);
    return err;
}

enum err policy_zone_load(struct sv name, struct arena *arena, const struct policy_zone **zone_out)
{
    CLEANUP(buf_deinit) struct buf bytes;
    char path[sizeof(zone_dir) + NAME_MAX_BYTES];
    enum err err = ERR_OK;

    buf_init(&bytes, FILE_MAX_BYTES + 4096);
    if (!is_zone_name(name)) {
        return ERR_NOT_FOUND;
    }
    if (sv_eq(name, SV("UTC"))) {
        struct policy_zone *utc = arena_zalloc(arena, sizeof(*utc));

        utc->rule.set = true;
        *zone_out = utc;
        return ERR_OK;
    }
    memcpy(path, zone_dir, sizeof(zone_dir) - 1);
    memcpy(path + sizeof(zone_dir) - 1, name.p, name.n);
    path[sizeof(zone_dir) - 1 + name.n] = '\0';
    err = read_file(path, &bytes);
    return err != ERR_OK ? err : policy_zone_parse(buf_sv(&bytes), arena, zone_out);
}
