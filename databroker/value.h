/* broker_value: what stands at a path in the data of a record. Data is looked at as its message says
 * (schema.h): a name is a field, a key of a map or of a Struct; a list stands for each of its elements.
 * Pure functions; any thread. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

enum broker_value_kind {
    BROKER_VALUE_PART = 0, /* a message, a map, bytes: it is there, and compares with nothing */
    BROKER_VALUE_TEXT,
    BROKER_VALUE_NUMBER,
    BROKER_VALUE_NAME, /* of an enum: a text and a number */
    BROKER_VALUE_TRUTH,
    BROKER_VALUE_TIME
};

struct broker_value {
    enum broker_value_kind kind;
    struct sv text;
    double number;
    int64_t whole; /* the number, where is_whole */
    bool is_whole;
    bool truth;
    int64_t us; /* since 1970 */
};

struct broker_value_look {
    const struct sv *path;
    size_t n;
    /* Sees each value; true: enough. Borrows it. */
    bool (*take)(const struct broker_value *value, void *arg);
    void *arg;
    struct diag *d;
    enum err err; /* ERR_UNSUPPORTED: the path names no field of its message */
};

/* Shows what is there; what is absent, null, or an empty map or list is not shown. err is the answer. */
void broker_value_visit(struct broker_value_look *look, const ProtobufCMessage *message);
/* RFC 3339, or a day, to microseconds since 1970; what date_parse takes. */
MUST_CHECK enum err broker_value_time(struct sv text, int64_t *us_out);
/* Whole numbers in decimal, with a sign or without. */
bool broker_value_whole(struct sv text, int64_t *whole_out);
