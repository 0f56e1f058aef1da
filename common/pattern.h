/* pattern: regular expressions of the configuration, with bounds on what they cost (PCRE2; RE2's
 * syntax is nearly a part of it). Equal ones are compiled once in a process: a reload that changes
 * nothing about a pattern finds it ready. A pattern that hits its bounds gives neither yes nor no;
 * callers refuse then. Immutable; any thread may match, each keeps its own room until
 * pattern_thread_end. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/diag.h"
#include "common/sv.h"

struct pattern;

enum pattern_extent {
    PATTERN_WHOLE = 0, /* the whole text must match, whatever alternatives there are */
    PATTERN_PART       /* anywhere in the text */
};

enum pattern_answer { PATTERN_GAVE_UP = 0, PATTERN_NO, PATTERN_YES };

enum { PATTERN_TEXT_MAX = 4096, PATTERN_REPLACED_MAX = 256 };

/* One reference for the caller. ERR_INVALID with place and reason in d. */
MUST_CHECK enum err pattern_new(struct sv text, enum pattern_extent extent,
                                struct pattern **pattern_out, struct diag *d);
/* NULL is none. */
void pattern_ref(struct pattern *pattern);
void pattern_unref(struct pattern **pattern);
/* Makes machine code of it, once, where the machine allows: for those who match often. */
void pattern_prepare(struct pattern *pattern);

/* subject is UTF-8; other bytes: GAVE_UP. */
enum pattern_answer pattern_fits(const struct pattern *pattern, struct sv subject);
/* Whether a substitution names only groups that there are: \0 to \9, and \\ for a backslash. */
MUST_CHECK enum err pattern_check_substitution(const struct pattern *pattern, struct sv text,
                                               struct diag *d);
/* Appends subject to out with every match replaced, as RE2's GlobalReplace does. NO: nothing matched,
 * out holds subject. More than PATTERN_REPLACED_MAX matches, or out is full: GAVE_UP. The substitution
 * was checked. */
enum pattern_answer pattern_replace(const struct pattern *pattern, struct sv subject,
                                    struct sv substitution, struct buf *out);
/* A thread that matched ends. */
void pattern_thread_end(void);
