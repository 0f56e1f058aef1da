/* The inside of broker_filter: a tree of tests. filter_read.c makes it, filter.c asks it. */
#pragma once

#include "common/cidr.h"
#include "databroker/filter.h"

enum node_kind {
    NODE_OR = 0, /* of nothing: never */
    NODE_AND,
    NODE_NOT, /* of its one child */
    NODE_TEST
};

enum test_kind {
    TEST_ORDER = 0, /* compares, and the outcome is among those that are allowed */
    TEST_CONTAINS,
    TEST_STARTS,
    TEST_ENDS,
    TEST_EMPTY
};

enum order { ORDER_NONE = 0, ORDER_LESS = 1, ORDER_EQUAL = 2, ORDER_GREATER = 4 };

/* What a value is compared with, in every form it has. */
struct operand {
    struct sv text;
    double number;
    int64_t whole;
    int64_t us;
    bool has_number;
    bool is_whole;
    bool has_truth;
    bool truth;
    bool has_time;
    bool has_cidr;
    struct cidr cidr;
};

/* True of a record where it is true of any value at path and any operand. */
struct test {
    enum test_kind kind;
    unsigned allowed; /* ORDER: of enum order */
    bool times;       /* ORDER: compares as times, or not at all */
    const struct sv *path;
    size_t path_n;
    struct operand *operands;
    size_t n;
};

struct broker_filter {
    enum node_kind kind;
    struct broker_filter *first;
    struct broker_filter *next;
    struct test test;
};

/* {"id": …} and {"$index": …}: of the record itself, not of its data. */
bool broker_filter_is_id(const struct test *test);
bool broker_filter_is_type(const struct test *test);
bool broker_filter_is_index(const struct test *test);
