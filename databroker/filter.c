#include "databroker/filter.h"

#include <math.h>

#include "common/clock.h"
#include "common/rpc/scan.h"
#include "databroker/filter_int.h"
#include "databroker/schema.h"
#include "databroker/value.h"

enum { STEPS = 1 << 16, STEP_BYTES = 64 };

void broker_filter_run_init(struct broker_filter_run *run, int64_t deadline_ms, struct diag *d)
{
    *run = (struct broker_filter_run){ .deadline_ms = deadline_ms, .d = d };
    arena_init(&run->arena);
}

void broker_filter_run_deinit(struct broker_filter_run *run)
{
    arena_deinit(&run->arena);
}

static bool is_at(const struct test *test, struct sv name)
{
    return test->path_n == 1 && sv_eq(test->path[0], name);
}

bool broker_filter_is_id(const struct test *test)
{
    return is_at(test, SV("id"));
}

bool broker_filter_is_type(const struct test *test)
{
    return is_at(test, SV("type"));
}

bool broker_filter_is_index(const struct test *test)
{
    return is_at(test, SV("$index")) && test->kind == TEST_ORDER && test->allowed == ORDER_EQUAL;
}

/* ---- one value and one operand --------------------------------------------------------------- */

static enum order order_of(int c)
{
    return c < 0 ? ORDER_LESS : c == 0 ? ORDER_EQUAL : ORDER_GREATER;
}

static enum order compare_whole(int64_t a, int64_t b)
{
    return order_of((a > b) - (a < b));
}

static enum order compare_numbers(const struct broker_value *value, const struct operand *operand)
{
    double a = value->number;
    double b = operand->number;

    if (!operand->has_number || isnan(a) || isnan(b)) {
        return ORDER_NONE;
    }
    return value->is_whole && operand->is_whole ? compare_whole(value->whole, operand->whole)
                                                : order_of((a > b) - (a < b));
}

static enum order compare_times(const struct broker_value *value, const struct operand *operand)
{
    int64_t us = value->us;

    if (value->kind == BROKER_VALUE_TEXT) {
        if (broker_value_time(value->text, &us) != ERR_OK) {
            return ORDER_NONE;
        }
    } else if (value->kind != BROKER_VALUE_TIME) {
        return ORDER_NONE;
    }
    return operand->has_time ? compare_whole(us, operand->us) : ORDER_NONE;
}

static enum order compare(const struct broker_value *value, const struct operand *operand)
{
    switch (value->kind) {
    case BROKER_VALUE_TEXT:
        return order_of(sv_cmp(value->text, operand->text));
    case BROKER_VALUE_NAME:
        return operand->has_number                 ? compare_numbers(value, operand)
               : sv_eq(value->text, operand->text) ? ORDER_EQUAL
                                                   : ORDER_NONE;
    case BROKER_VALUE_NUMBER:
        return compare_numbers(value, operand);
    case BROKER_VALUE_TRUTH:
        return operand->has_truth && operand->truth == value->truth ? ORDER_EQUAL : ORDER_NONE;
    case BROKER_VALUE_TIME:
        return compare_times(value, operand);
    case BROKER_VALUE_PART:
        break;
    }
    return ORDER_NONE;
}

static bool holds_one(const struct test *test, const struct broker_value *value,
                      const struct operand *operand)
{
    bool is_text = value->kind == BROKER_VALUE_TEXT || value->kind == BROKER_VALUE_NAME;

    switch (test->kind) {
    case TEST_ORDER:
        return (test->allowed &
                (test->times ? compare_times(value, operand) : compare(value, operand))) != 0;
    case TEST_CONTAINS:
        return is_text && sv_search(value->text, operand->text) != SIZE_MAX;
    case TEST_STARTS:
        return is_text && sv_starts(value->text, operand->text);
    case TEST_ENDS:
        return is_text && sv_ends(value->text, operand->text);
    case TEST_EMPTY:
        break;
    }
    return false;
}

/* ---- a test and a record --------------------------------------------------------------------- */

struct look {
    const struct test *test;
    struct broker_filter_run *run;
    bool hit; /* TEST_EMPTY: something is there */
    enum err err;
};

static enum err step(struct broker_filter_run *run, uint64_t steps)
{
    run->steps += steps;
    if (run->steps < STEPS) {
        return ERR_OK;
    }
    run->steps = 0;
    return clock_mono_ms() > run->deadline_ms ? ERR_TIMEOUT : ERR_OK;
}

static bool take(const struct broker_value *value, void *arg)
{
    struct look *look = arg;
    const struct test *test = look->test;

    look->err = step(look->run, 1 + (test->n * (1 + value->text.n / STEP_BYTES)));
    if (look->err != ERR_OK) {
        return true;
    }
    if (test->kind == TEST_EMPTY) {
        look->hit = value->kind != BROKER_VALUE_TEXT || value->text.n > 0;
        return look->hit;
    }
    for (size_t i = 0; i < test->n && !look->hit; i++) {
        look->hit = holds_one(test, value, &test->operands[i]);
    }
    return look->hit;
}

struct subject {
    const struct broker_record *record;
    struct broker_filter_run *run;
    ProtobufCMessage *data; /* unpacked when first needed */
    bool damaged;
};

/* What is about to be looked through costs as much as it is long. */
static enum err unpack(struct subject *s)
{
    const ProtobufCMessageDescriptor *type = broker_schema_of(s->record->data_type);
    enum err err = step(s->run, 1 + s->record->data.n / STEP_BYTES);

    if (err != ERR_OK || s->data != NULL || s->damaged) {
        return err;
    }
    if (type == NULL) {
        diag_set(s->run->d, "filter: the fields of what is stored under this type are not known "
                            "here; id, type and $index are");
        return ERR_UNSUPPORTED;
    }
    s->damaged = rpc_unpack(type, s->record->data, &s->run->arena, &s->data) != ERR_OK;
    return ERR_OK;
}

struct index {
    struct cidr cidr;
    bool found;
};

static bool take_cidr(const struct broker_value *value, void *arg)
{
    struct index *index = arg;

    index->found =
        value->kind == BROKER_VALUE_TEXT && cidr_parse(value->text, &index->cidr) == ERR_OK;
    return index->found;
}

/* $index: the range at $index.cidr holds the operand, an address or a range. What is no Struct has none. */
static enum err test_index(const struct test *test, struct subject *s, bool *hit_out)
{
    static const struct sv path[] = { { "$index", 6 }, { "cidr", 4 } };
    struct index index = { .found = false };
    struct broker_value_look look = {
        .path = path, .n = ARRAY_LEN(path), .take = take_cidr, .arg = &index
    };
    const ProtobufCMessageDescriptor *type = broker_schema_of(s->record->data_type);
    enum err err = ERR_OK;

    if (type != &google__protobuf__struct__descriptor &&
        type != &google__protobuf__value__descriptor) {
        return ERR_OK;
    }
    err = unpack(s);
    if (err != ERR_OK || s->damaged) {
        return err;
    }
    broker_value_visit(&look, s->data);
    for (size_t i = 0; i < test->n && index.found && !*hit_out; i++) {
        *hit_out = test->operands[i].has_cidr && cidr_within(&test->operands[i].cidr, &index.cidr);
    }
    return ERR_OK;
}

static enum err test_data(const struct test *test, struct subject *s, struct look *look)
{
    struct broker_value_look values = {
        .path = test->path, .n = test->path_n, .take = take, .arg = look, .d = s->run->d
    };
    enum err err = unpack(s);

    if (err != ERR_OK || s->damaged) {
        return err;
    }
    broker_value_visit(&values, s->data);
    return values.err != ERR_OK ? values.err : look->err;
}

static enum err test_holds(const struct test *test, struct subject *s, bool *hit_out)
{
    struct look look = { .test = test, .run = s->run };
    enum err err = ERR_OK;

    *hit_out = false;
    if (broker_filter_is_index(test)) {
        return test_index(test, s, hit_out);
    }
    if (broker_filter_is_id(test) || broker_filter_is_type(test)) {
        const struct broker_value value = {
            .kind = BROKER_VALUE_TEXT,
            .text = broker_filter_is_id(test) ? s->record->id : s->record->type,
        };

        (void)take(&value, &look);
        err = look.err;
    } else {
        err = test_data(test, s, &look);
    }
    *hit_out = test->kind == TEST_EMPTY ? !look.hit : look.hit;
    return err;
}

/* ---- the tree -------------------------------------------------------------------------------- */

static enum err node_holds(const struct broker_filter *node, struct subject *s, bool *hit_out)
{
    bool all = node->kind == NODE_AND;
    bool hit = all;
    enum err err = ERR_OK;

    if (node->kind == NODE_TEST) {
        return test_holds(&node->test, s, hit_out);
    }
    if (node->kind == NODE_NOT) {
        err = node_holds(node->first, s, &hit);
        *hit_out = !hit;
        return err;
    }
    for (const struct broker_filter *child = node->first;
         child != NULL && err == ERR_OK && hit == all; child = child->next) {
        err = node_holds(child, s, &hit);
    }
    *hit_out = hit;
    return err;
}

enum err broker_filter_match(const struct broker_filter *filter, const struct broker_record *record,
                             struct broker_filter_run *run, bool *match_out)
{
    struct subject s = { .record = record, .run = run };
    bool hit = false;
    enum err err = step(run, 1);

    if (err == ERR_OK) {
        err = node_holds(filter, &s, &hit);
    }
    arena_reset(&run->arena);
    *match_out = err == ERR_OK && hit && !s.damaged;
    return err;
}
