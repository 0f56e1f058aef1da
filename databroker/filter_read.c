/* From a Struct to a tree of tests. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "databroker/filter_int.h"
#include "databroker/value.h"

enum { TEXT_ROOM = 32 };

struct reader {
    struct arena *arena;
    struct diag *d;
    struct sv path[BROKER_FILTER_DEPTH];
    size_t path_n;
    size_t nodes;
    size_t bytes;
};

static const struct op {
    struct sv name;
    enum test_kind kind;
    unsigned allowed;
    bool times;
    bool negated;
    bool many; /* takes a list */
} ops[] = {
    { { "=", 1 }, .allowed = ORDER_EQUAL },
    { { "==", 2 }, .allowed = ORDER_EQUAL },
    { { "$eq", 3 }, .allowed = ORDER_EQUAL },
    { { "$is", 3 }, .allowed = ORDER_EQUAL },
    { { "$equals", 7 }, .allowed = ORDER_EQUAL },
    { { "!=", 2 }, .allowed = ORDER_EQUAL, .negated = true },
    { { "$doesNotEqual", 13 }, .allowed = ORDER_EQUAL, .negated = true },
    { { "<", 1 }, .allowed = ORDER_LESS },
    { { "<=", 2 }, .allowed = ORDER_LESS | ORDER_EQUAL },
    { { ">", 1 }, .allowed = ORDER_GREATER },
    { { ">=", 2 }, .allowed = ORDER_GREATER | ORDER_EQUAL },
    { { "$before", 7 }, .allowed = ORDER_LESS, .times = true },
    { { "$onOrBefore", 11 }, .allowed = ORDER_LESS | ORDER_EQUAL, .times = true },
    { { "$after", 6 }, .allowed = ORDER_GREATER, .times = true },
    { { "$onOrAfter", 10 }, .allowed = ORDER_GREATER | ORDER_EQUAL, .times = true },
    { { "$isAnyOf", 8 }, .allowed = ORDER_EQUAL, .many = true },
    { { "$contains", 9 }, .kind = TEST_CONTAINS },
    { { "$doesNotContain", 15 }, .kind = TEST_CONTAINS, .negated = true },
    { { "$startsWith", 11 }, .kind = TEST_STARTS },
    { { "$endsWith", 9 }, .kind = TEST_ENDS },
    { { "$isEmpty", 8 }, .kind = TEST_EMPTY },
    { { "$isNotEmpty", 11 }, .kind = TEST_EMPTY, .negated = true },
};

static const struct op *op_of(struct sv name)
{
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (sv_eq(name, ops[i].name)) {
            return &ops[i];
        }
    }
    return NULL;
}

static enum err count(struct reader *r, size_t bytes)
{
    r->nodes++;
    r->bytes += bytes;
    if (r->nodes > BROKER_FILTER_NODES || r->bytes > BROKER_FILTER_BYTES) {
        diag_set(r->d, "filter: more than %d parts or %d bytes", BROKER_FILTER_NODES,
                 BROKER_FILTER_BYTES);
        return ERR_LIMIT;
    }
    return ERR_OK;
}

static enum err bad(struct reader *r, const char *what)
{
    diag_set(r->d, "filter: %s", what);
    return ERR_INVALID;
}

static enum err node_new(struct reader *r, enum node_kind kind, struct broker_filter **node_out)
{
    enum err err = count(r, 0);

    if (err == ERR_OK) {
        *node_out = arena_zalloc(r->arena, sizeof(**node_out));
        (*node_out)->kind = kind;
    }
    return err;
}

/* ---- operands -------------------------------------------------------------------------------- */

static void operand_number(struct reader *r, double number, struct operand *o)
{
    static const double whole_max = 9007199254740992.0; /* 2^53: exact until there */
    static const double time_max = 253402300800.0;      /* seconds: the year 10000 */
    char text[TEXT_ROOM];

    o->has_number = true;
    o->number = number;
    o->is_whole = number >= -whole_max && number <= whole_max && number == trunc(number);
    if (o->is_whole) {
        o->whole = (int64_t)number;
        (void)snprintf(text, sizeof(text), "%lld", (long long)o->whole);
        o->text = arena_sv(r->arena, sv_from(text));
    }
    o->has_time = number > -time_max && number < time_max;
    if (o->has_time) {
        o->us = (int64_t)(number * 1000000);
    }
}

static void operand_text(struct reader *r, struct sv text, struct operand *o)
{
    o->text = arena_sv(r->arena, text);
    o->is_whole = broker_value_whole(o->text, &o->whole);
    o->has_number = o->is_whole;
    o->number = (double)o->whole;
    o->truth = sv_eq(o->text, SV("true"));
    o->has_truth = o->truth || sv_eq(o->text, SV("false"));
    o->has_time = broker_value_time(o->text, &o->us) == ERR_OK;
    o->has_cidr = cidr_parse(o->text, &o->cidr) == ERR_OK;
}

static bool is_scalar(const Google__Protobuf__Value *value)
{
    return value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE ||
           value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE ||
           value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
}

static enum err operand_read(struct reader *r, const Google__Protobuf__Value *value,
                             struct operand *o)
{
    enum err err = ERR_OK;

    *o = (struct operand){ .text = SV("") };
    if (value == NULL || !is_scalar(value)) {
        return bad(r, "an operator compares with a text, a number, true or false");
    }
    if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        struct sv text = sv_from(value->string_value);

        err = count(r, text.n);
        if (err == ERR_OK) {
            operand_text(r, text, o);
        }
        return err;
    }
    err = count(r, 0);
    if (err == ERR_OK && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE) {
        operand_number(r, value->number_value, o);
    } else if (err == ERR_OK) {
        o->has_truth = true;
        o->truth = value->bool_value != 0;
        o->text = o->truth ? SV("true") : SV("false");
    }
    return err;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static enum err operands_read(struct reader *r, const struct op *op,
                              const Google__Protobuf__Value *value, struct test *test)
{
    Google__Protobuf__Value *const *values = NULL;
    size_t n = 1;
    enum err err = ERR_OK;

    if (op->many && value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        values = value->list_value->values;
        n = value->list_value->n_values;
    }
    if (n > BROKER_FILTER_NODES) {
        return count(r, BROKER_FILTER_BYTES + 1);
    }
    test->operands = arena_alloc(r->arena, n * sizeof(*test->operands));
    for (size_t i = 0; i < n && err == ERR_OK; i++) {
        err = operand_read(r, values == NULL ? value : values[i], &test->operands[i]);
        if (err == ERR_OK && op->times && !test->operands[i].has_time) {
            err = bad(r, "$before, $after and their kin compare with a time in RFC 3339");
        }
    }
    test->n = n;
    return err;
}

static bool is_null(const Google__Protobuf__Value *value)
{
    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
}

static bool is_false(const Google__Protobuf__Value *value)
{
    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE &&
           value->bool_value == 0;
}

/* A test of what stands at the present path. */
static enum err test_read(struct reader *r, const struct op *op,
                          const Google__Protobuf__Value *value, struct broker_filter **node_out)
{
    struct broker_filter *node = NULL;
    struct broker_filter *outer = NULL;
    struct sv *path = NULL;
    bool empty = op->kind == TEST_EMPTY || (op->allowed == ORDER_EQUAL && is_null(value));
    enum err err = r->path_n == 0 ? bad(r, "an operator stands at no field") : ERR_OK;

    if (err == ERR_OK && op->kind == TEST_EMPTY && is_false(value)) {
        err = bad(r, "$isEmpty and $isNotEmpty take true; one is the other's opposite");
    }
    if (err == ERR_OK) {
        err = node_new(r, NODE_TEST, &node);
    }
    if (err != ERR_OK) {
        return err;
    }
    path = arena_alloc(r->arena, r->path_n * sizeof(*path));
    for (size_t i = 0; i < r->path_n; i++) {
        path[i] = r->path[i];
    }
    node->test = (struct test){ .kind = empty ? TEST_EMPTY : op->kind,
                                .allowed = op->allowed,
                                .times = op->times,
                                .path = path,
                                .path_n = r->path_n };
    err = empty ? ERR_OK : operands_read(r, op, value, &node->test);
    if (err == ERR_OK && op->negated) {
        err = node_new(r, NODE_NOT, &outer);
    }
    if (outer != NULL) {
        outer->first = node;
        node = outer;
    }
    *node_out = node;
    return err;
}

/* ---- the tree -------------------------------------------------------------------------------- */

static enum err object_read(struct reader *r, const Google__Protobuf__Struct *object,
                            unsigned depth, struct broker_filter **node_out);

/* What a field, or each element of a list, is to be; a list: one of its elements. */
static enum err value_read(struct reader *r, const Google__Protobuf__Value *value, unsigned depth,
                           struct broker_filter **node_out)
{
    const Google__Protobuf__ListValue *list = NULL;
    struct broker_filter **tail = NULL;
    enum err err = ERR_OK;

    if (depth > BROKER_FILTER_DEPTH) {
        diag_set(r->d, "filter: nested deeper than %d", BROKER_FILTER_DEPTH);
        return ERR_LIMIT;
    }
    if (value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        return object_read(r, value->struct_value, depth, node_out);
    }
    if (value == NULL || value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return test_read(r, &ops[0], value, node_out);
    }
    list = value->list_value;
    err = node_new(r, NODE_OR, node_out);
    tail = err == ERR_OK ? &(*node_out)->first : NULL;
    for (size_t i = 0; err == ERR_OK && i < list->n_values; i++) {
        err = value_read(r, list->values[i], depth + 1, tail);
        if (err == ERR_OK) {
            tail = &(*tail)->next;
        }
    }
    return err;
}

static enum err list_of(struct reader *r, const Google__Protobuf__Value *value, unsigned depth,
                        enum node_kind kind, struct broker_filter **node_out)
{
    enum err err = ERR_OK;

    if (value == NULL || value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return bad(r, "$and and $or take a list");
    }
    if (kind == NODE_AND && value->list_value->n_values == 0) {
        return bad(r, "$and takes a list that is not empty");
    }
    err = value_read(r, value, depth, node_out);
    if (err == ERR_OK) {
        (*node_out)->kind = kind;
    }
    return err;
}

static enum err not_read(struct reader *r, const Google__Protobuf__Value *value, unsigned depth,
                         struct broker_filter **node_out)
{
    enum err err = node_new(r, NODE_NOT, node_out);

    return err == ERR_OK ? value_read(r, value, depth, &(*node_out)->first) : err;
}

static enum err field_read(struct reader *r, struct sv name, const Google__Protobuf__Value *value,
                           unsigned depth, struct broker_filter **node_out)
{
    enum err err = count(r, name.n);

    if (err != ERR_OK) {
        return err;
    }
    if (name.n == 0) {
        return bad(r, "a field without a name");
    }
    if (r->path_n == BROKER_FILTER_DEPTH) {
        diag_set(r->d, "filter: a path of more than %d names", BROKER_FILTER_DEPTH);
        return ERR_LIMIT;
    }
    r->path[r->path_n] = arena_sv(r->arena, name);
    r->path_n++;
    err = value_read(r, value, depth, node_out);
    r->path_n--;
    return err;
}

static enum err member_read(struct reader *r, const Google__Protobuf__Struct__FieldsEntry *member,
                            unsigned depth, struct broker_filter **node_out)
{
    struct sv name = sv_from(member->key);
    const struct op *op = op_of(name);

    if (op != NULL) {
        return test_read(r, op, member->value, node_out);
    }
    if (sv_eq(name, SV("$and"))) {
        return list_of(r, member->value, depth, NODE_AND, node_out);
    }
    if (sv_eq(name, SV("$or"))) {
        return list_of(r, member->value, depth, NODE_OR, node_out);
    }
    if (sv_eq(name, SV("$not"))) {
        return not_read(r, member->value, depth, node_out);
    }
    if (sv_starts(name, SV("$")) && !sv_eq(name, SV("$index"))) {
        diag_set(r->d, "filter: an operator that is not known; docs: $and, $or, $not, $eq, …");
        return ERR_UNSUPPORTED;
    }
    return field_read(r, name, member->value, depth, node_out);
}

static enum err object_read(struct reader *r, const Google__Protobuf__Struct *object,
                            unsigned depth, struct broker_filter **node_out)
{
    struct broker_filter **tail = NULL;
    enum err err = object->n_fields == 0 ? bad(r, "an object that says nothing")
                                         : node_new(r, NODE_AND, node_out);

    tail = err == ERR_OK ? &(*node_out)->first : NULL;
    for (size_t i = 0; err == ERR_OK && i < object->n_fields; i++) {
        err = member_read(r, object->fields[i], depth + 1, tail);
        if (err == ERR_OK) {
            tail = &(*tail)->next;
        }
    }
    return err;
}

enum err broker_filter_read(const Google__Protobuf__Struct *message, struct arena *arena,
                            const struct broker_filter **filter_out, struct diag *d)
{
    struct reader r = { .arena = arena, .d = d };
    struct broker_filter *root = NULL;
    enum err err = object_read(&r, message, 0, &root);

    if (err == ERR_OK) {
        *filter_out = root;
    }
    return err;
}

/* ---- which ids it is about ------------------------------------------------------------------- */

struct ids {
    struct sv *items;
    size_t n;
};

static bool ids_of(const struct broker_filter *node, struct ids *ids);

static bool ids_of_all(const struct broker_filter *node, struct ids *ids)
{
    for (const struct broker_filter *child = node->first; child != NULL; child = child->next) {
        if (!ids_of(child, ids)) {
            return false;
        }
    }
    return true;
}

/* One of its parts is enough: what that does not admit, the whole does not. */
static bool ids_of_any(const struct broker_filter *node, struct ids *ids)
{
    size_t before = ids->n;

    for (const struct broker_filter *child = node->first; child != NULL; child = child->next) {
        if (ids_of(child, ids)) {
            return true;
        }
        ids->n = before;
    }
    return false;
}

static bool ids_of_test(const struct test *test, struct ids *ids)
{
    if (test->kind != TEST_ORDER || test->allowed != ORDER_EQUAL) {
        return false;
    }
    if (broker_filter_is_index(test)) { /* an operand that is no address matches nothing */
        for (size_t i = 0; i < test->n; i++) {
            if (test->operands[i].has_cidr) {
                return false;
            }
        }
        return true;
    }
    if (!broker_filter_is_id(test)) {
        return false;
    }
    for (size_t i = 0; i < test->n; i++) {
        ids->items[ids->n] = test->operands[i].text;
        ids->n++;
    }
    return true;
}

/* True: whatever matches node has one of the ids that were added. There is room: each is a node. */
static bool ids_of(const struct broker_filter *node, struct ids *ids)
{
    switch (node->kind) {
    case NODE_OR:
        return ids_of_all(node, ids);
    case NODE_AND:
        return ids_of_any(node, ids);
    case NODE_TEST:
        return ids_of_test(&node->test, ids);
    case NODE_NOT:
        break;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return sv_cmp(*(const struct sv *)a, *(const struct sv *)b);
}

bool broker_filter_ids(const struct broker_filter *filter, struct arena *arena,
                       const struct sv **ids_out, size_t *n_out)
{
    struct ids ids = { .items = arena_alloc(arena, BROKER_FILTER_NODES * sizeof(struct sv)) };
    size_t kept = 0;

    if (!ids_of(filter, &ids)) {
        return false;
    }
    qsort(ids.items, ids.n, sizeof(*ids.items), by_text);
    for (size_t i = 0; i < ids.n; i++) {
        if (kept == 0 || !sv_eq(ids.items[i], ids.items[kept - 1])) {
            ids.items[kept] = ids.items[i];
            kept++;
        }
    }
    *ids_out = ids.items;
    *n_out = kept;
    return true;
}
