/* policy_match: the string matcher and the list matcher of the policy language. Compiled into the
 * policy's arena; evaluation is pure. Internal to common/policy; any thread.
 * What they take: docs/policy.md, Values. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/policy/input.h"
#include "common/policy/scan.h"
#include "common/policy/set.h"

enum policy_op {
    POLICY_OP_NONE = 0,
    POLICY_OP_IS,
    POLICY_OP_NOT,
    POLICY_OP_CONTAINS,
    POLICY_OP_STARTS_WITH,
    POLICY_OP_ENDS_WITH,
    POLICY_OP_IN,
    POLICY_OP_NOT_IN,
    POLICY_OP_HAS,
    POLICY_OP_EXCLUDE
};

/* One operator with its operand; all of a matcher must hold. */
struct policy_test {
    enum policy_op op;
    struct policy_scalar value; /* all but IN, NOT_IN */
    struct policy_set set;      /* IN, NOT_IN */
};

/* A matcher that only asks "is it one of these" (is, in; has for lists) keeps its names apart, so
 * that members of one `or` on the same criterion become one set. */
struct policy_match {
    bool any; /* true: names (then set) say it all */
    struct policy_set set;
    struct policy_names names; /* while reading; policy_match_finish makes the set of it */
    struct policy_test *tests;
    size_t test_count;
};

MUST_CHECK enum err policy_match_text_compile(struct policy_scan *scan, const json_t *operand,
                                              struct policy_match *match_out);
/* strings: the list holds texts only, so that another operand can never match. */
MUST_CHECK enum err policy_match_list_compile(struct policy_scan *scan, const json_t *operand,
                                              bool strings, struct policy_match *match_out);
/* One operator of either matcher for a single operand; used where operators stand among other keys.
 * POLICY_OP_NONE where the name is no operator. */
enum policy_op policy_match_op(const char *name);
MUST_CHECK enum err policy_match_test_compile(struct policy_scan *scan, const char *name,
                                              const json_t *operand, struct policy_test *test_out);
/* Moves the names into the set; call once for every matcher, also after an error. */
void policy_match_finish(struct policy_match *match, struct arena *arena);

bool policy_match_text(const struct policy_match *match, const struct policy_text *text);
/* A path with parameters is another one to servers that cut them off: where that makes a difference, the
 * answer is the one against the visitor. */
bool policy_match_path(const struct policy_match *match, struct sv path, bool against);
bool policy_match_list(const struct policy_match *match, const struct policy_scalar *values,
                       size_t count);
/* The same over texts alone (group ids). */
bool policy_match_texts(const struct policy_match *match, const struct policy_text *texts,
                        size_t count);
bool policy_match_test_text(const struct policy_test *test, const struct policy_text *text);
bool policy_match_test_list(const struct policy_test *test, const struct policy_scalar *values,
                            size_t count);
bool policy_match_scalar_eq(const struct policy_scalar *a, const struct policy_scalar *b);
/* ERR_INVALID (fault data): it is so large that a double rounds it. */
MUST_CHECK enum err policy_match_number(struct policy_scan *scan, const json_t *operand,
                                        double *number_out);
/* ERR_INVALID: a list or an object (fault compile), or a number as above. */
MUST_CHECK enum err policy_match_scalar(struct policy_scan *scan, const json_t *operand,
                                        struct policy_scalar *value_out);
