#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/pattern.h"

#include <pthread.h>

#include <pcre2.h>

#include "common/map.h"
#include "common/mem.h"

enum {
    GROUPS = 10,
    /* Steps for one start of a match. Where every byte may be a start, they share a budget. */
    STEPS_WHOLE = 100000,
    STEPS_PART = 10000000,
    STEPS_MIN = 500
};

struct pattern {
    char *key; /* extent and text */
    size_t key_n;
    pcre2_code *code;
    enum pattern_extent extent;
    uint32_t groups;
    bool prepared;
    unsigned refs; /* under lock, as all: patterns */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map *patterns; /* key to pattern, none without a reference */

static _Thread_local pcre2_match_data *match_data;
static _Thread_local pcre2_match_context *limits;

/* ---- life ------------------------------------------------------------------------------------ */

static enum err compile(struct pattern *p, struct sv text, struct diag *d)
{
    uint32_t extent = p->extent == PATTERN_WHOLE ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0;
    PCRE2_UCHAR8 why[128] = { 0 };
    PCRE2_SIZE at = 0;
    int code = 0;

    p->code = pcre2_compile((PCRE2_SPTR)text.p, text.n,
                            PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY |
                                PCRE2_DOTALL | extent,
                            &code, &at, NULL);
    if (p->code == NULL) {
        (void)pcre2_get_error_message(code, why, sizeof(why));
        diag_set(d, "at character %zu: %s", (size_t)at + 1, (const char *)why);
        return ERR_INVALID;
    }
    (void)pcre2_pattern_info(p->code, PCRE2_INFO_CAPTURECOUNT, &p->groups);
    return ERR_OK;
}

static void pattern_free(struct pattern *p)
{
    pcre2_code_free(p->code);
    mem_free(&p->key);
    mem_free(&p);
}

static struct sv key_of(const struct pattern *p)
{
    return sv_of(p->key, p->key_n);
}

enum err pattern_new(struct sv text, enum pattern_extent extent, struct pattern **pattern_out,
                     struct diag *d)
{
    char key[PATTERN_TEXT_MAX + 1] = { (char)('0' + (int)extent) };
    struct pattern *p = NULL;
    enum err err = ERR_OK;

    if (text.n > PATTERN_TEXT_MAX) {
        diag_set(d, "longer than %d characters", PATTERN_TEXT_MAX);
        return ERR_INVALID;
    }
    for (size_t i = 0; i < text.n; i++) {
        key[i + 1] = text.p[i];
    }
    (void)pthread_mutex_lock(&lock);
    patterns = patterns == NULL ? map_new() : patterns;
    p = map_get(patterns, sv_of(key, text.n + 1));
    if (p == NULL) {
        p = MEM_NEW(struct pattern);
        p->extent = extent;
        err = compile(p, text, d);
        if (err == ERR_OK) {
            p->key = mem_dup(key, text.n + 1);
            p->key_n = text.n + 1;
            (void)map_set(patterns, key_of(p), p);
        } else {
            pattern_free(p);
        }
    }
    if (err == ERR_OK) {
        p->refs++;
        *pattern_out = p;
    }
    (void)pthread_mutex_unlock(&lock);
    return err;
}

void pattern_ref(struct pattern *pattern)
{
    if (pattern != NULL) {
        (void)pthread_mutex_lock(&lock);
        pattern->refs++;
        (void)pthread_mutex_unlock(&lock);
    }
}

void pattern_unref(struct pattern **pattern)
{
    struct pattern *p = TAKE(*pattern);

    if (p == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    if (--p->refs == 0) {
        (void)map_take(patterns, key_of(p));
        pattern_free(p);
        if (map_count(patterns) == 0) {
            map_free(&patterns);
        }
    }
    (void)pthread_mutex_unlock(&lock);
}

void pattern_prepare(struct pattern *pattern)
{
    (void)pthread_mutex_lock(&lock);
    if (!pattern->prepared) {
        (void)pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* without it, it is slower */
        pattern->prepared = true;
    }
    (void)pthread_mutex_unlock(&lock);
}

void pattern_thread_end(void)
{
    pcre2_match_data_free(match_data);
    pcre2_match_context_free(limits);
    match_data = NULL;
    limits = NULL;
}

/* ---- matching -------------------------------------------------------------------------------- */

static void set_limits(const struct pattern *p, size_t n)
{
    size_t steps =
        p->extent == PATTERN_WHOLE
            ? (size_t)STEPS_WHOLE
            : MIN(MAX((size_t)STEPS_PART / (n + 1), (size_t)STEPS_MIN), (size_t)STEPS_WHOLE);

    if (match_data == NULL) {
        match_data = pcre2_match_data_create(GROUPS, NULL);
        limits = pcre2_match_context_create(NULL);
        CHECK(match_data != NULL && limits != NULL);
        (void)pcre2_set_depth_limit(limits, STEPS_WHOLE);
    }
    (void)pcre2_set_match_limit(limits, (uint32_t)steps);
}

static enum pattern_answer match_at(const struct pattern *p, struct sv subject, size_t at,
                                    uint32_t options)
{
    int got = pcre2_match(p->code, (PCRE2_SPTR)(subject.n == 0 ? "" : subject.p), subject.n, at,
                          options, match_data, limits);

    if (got == PCRE2_ERROR_NOMATCH) {
        return PATTERN_NO;
    }
    return got < 0 ? PATTERN_GAVE_UP : PATTERN_YES;
}

enum pattern_answer pattern_fits(const struct pattern *pattern, struct sv subject)
{
    set_limits(pattern, subject.n);
    return match_at(pattern, subject, 0, 0);
}

/* ---- replacing ------------------------------------------------------------------------------- */

enum err pattern_check_substitution(const struct pattern *pattern, struct sv text, struct diag *d)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = '\0';

        if (text.p[i] != '\\') {
            continue;
        }
        i++;
        c = i < text.n ? text.p[i] : '\0';
        if (c != '\\' && (c < '0' || c > '9')) {
            diag_set(d, "behind a backslash stands a digit or a backslash");
            return ERR_INVALID;
        }
        if (c != '\\' && (uint32_t)(c - '0') > pattern->groups) {
            diag_set(d, "\\%c names a group that the pattern does not have", c);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static void add_substitution(const struct pattern *p, struct sv subject, struct sv text,
                             struct buf *out)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(match_data);

    for (size_t i = 0; i < text.n; i++) {
        size_t group = 0;

        if (text.p[i] != '\\') {
            buf_add_char(out, text.p[i]);
            continue;
        }
        i++;
        if (i == text.n || text.p[i] == '\\') {
            buf_add_char(out, '\\');
            continue;
        }
        group = (size_t)(text.p[i] - '0');
        if (group <= p->groups && group < GROUPS && at[2 * group] != PCRE2_UNSET &&
            at[2 * group] <= at[2 * group + 1]) {
            buf_add_sv(out, sv_of(subject.p + at[2 * group], at[2 * group + 1] - at[2 * group]));
        }
    }
}

/* One character further, which is copied. */
static size_t step(struct sv subject, size_t at, struct buf *out)
{
    size_t end = at + 1;

    while (end < subject.n && ((unsigned char)subject.p[end] & 0xC0U) == 0x80) {
        end++;
    }
    buf_add_sv(out, sv_of(subject.p + at, end - at));
    return end;
}

enum pattern_answer pattern_replace(const struct pattern *pattern, struct sv subject,
                                    struct sv substitution, struct buf *out)
{
    const PCRE2_SIZE *at = NULL;
    enum pattern_answer answer = PATTERN_NO;
    size_t pos = 0;
    size_t last_end = SIZE_MAX;
    unsigned count = 0;

    set_limits(pattern, subject.n);
    at = pcre2_get_ovector_pointer(match_data);
    while (pos <= subject.n) {
        answer = match_at(pattern, subject, pos, pos == 0 ? 0 : PCRE2_NO_UTF_CHECK);
        /* \K in a lookaround could end a match before it begins. */
        if (answer != PATTERN_YES || at[0] < pos || at[1] < at[0]) {
            break;
        }
        buf_add_sv(out, sv_of(subject.p + pos, at[0] - pos));
        pos = at[0];
        if (at[0] == last_end && at[1] == at[0]) { /* nothing, where a match just ended */
            if (pos == subject.n) {
                answer = PATTERN_NO;
                break;
            }
            pos = step(subject, pos, out);
            continue;
        }
        if (++count > PATTERN_REPLACED_MAX) {
            return PATTERN_GAVE_UP;
        }
        add_substitution(pattern, subject, substitution, out);
        pos = at[1];
        last_end = pos;
    }
    if (answer != PATTERN_NO) {
        return PATTERN_GAVE_UP;
    }
    buf_add_sv(out, sv_from_at(subject, MIN(pos, subject.n)));
    if (out->err != ERR_OK) {
        return PATTERN_GAVE_UP;
    }
    return count == 0 ? PATTERN_NO : PATTERN_YES;
}
