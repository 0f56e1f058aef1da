#include "common/policy/match.h"

#include <string.h>

#include "common/http/canon.h"

struct op_row {
    const char *name;
    enum policy_op op;
    bool text; /* known to the string matcher */
    bool list; /* known to the list matcher */
};

static const struct op_row ops[] = {
    { "is", POLICY_OP_IS, true, true },
    { "not", POLICY_OP_NOT, true, false },
    { "contains", POLICY_OP_CONTAINS, true, false },
    { "starts_with", POLICY_OP_STARTS_WITH, true, false },
    { "ends_with", POLICY_OP_ENDS_WITH, true, false },
    { "in", POLICY_OP_IN, true, false },
    { "not_in", POLICY_OP_NOT_IN, true, false },
    { "has", POLICY_OP_HAS, false, true },
    { "exclude", POLICY_OP_EXCLUDE, false, true },
};

static const char text_ops[] = "is, not, contains, starts_with, ends_with, in, not_in";
static const char list_ops[] = "has, is, exclude";

enum policy_op policy_match_op(const char *name)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(ops); i++) {
        if (strcmp(ops[i].name, name) == 0) {
            return ops[i].op;
        }
    }
    return POLICY_OP_NONE;
}

static bool knows(enum policy_op op, bool list)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(ops); i++) {
        if (ops[i].op == op) {
            return list ? ops[i].list : ops[i].text;
        }
    }
    return false;
}

enum err policy_match_number(struct policy_scan *scan, const json_t *operand, double *number_out)
{
    static const double exact_end = 9007199254740992.0; /* 2^53 */

    double number = json_number_value(operand);

    if (number >= exact_end || number <= -exact_end) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "a number of this size cannot be told from its neighbours; ids "
                                "belong in quotes, here and in the claim or record");
    }
    *number_out = number;
    return ERR_OK;
}

enum err policy_match_scalar(struct policy_scan *scan, const json_t *operand,
                             struct policy_scalar *value_out)
{
    struct policy_scalar value = { .kind = POLICY_KIND_NULL };
    enum err err = ERR_OK;

    if (json_is_string(operand)) {
        value.kind = POLICY_KIND_STRING;
        value.text = policy_text_of(policy_scan_text(scan, operand));
    } else if (json_is_number(operand)) {
        value.kind = POLICY_KIND_NUMBER;
        err = policy_match_number(scan, operand, &value.number);
    } else if (json_is_boolean(operand)) {
        value.kind = POLICY_KIND_BOOL;
        value.flag = json_is_true(operand);
    } else if (!json_is_null(operand)) {
        return policy_scan_fail(scan, POLICY_FAULT_COMPILE,
                                "%s can never equal a single value; write one value",
                                json_is_array(operand) ? "a list" : "an object");
    }
    *value_out = value;
    return err;
}

static enum err want_string(struct policy_scan *scan, const json_t *operand)
{
    if (json_is_string(operand)) {
        return ERR_OK;
    }
    return policy_scan_fail(
        scan, POLICY_FAULT_COMPILE,
        "only text can match here; quote the value, and write a list with `in`");
}

static enum err read_names(struct policy_scan *scan, const char *op, const json_t *operand,
                           struct policy_names *names)
{
    enum err err = ERR_OK;
    size_t i = 0;

    if (!json_is_array(operand)) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA, "`%s` takes a list", op);
    }
    err = policy_scan_count(scan, json_array_size(operand));
    for (i = 0; i < json_array_size(operand) && err == ERR_OK; i++) {
        policy_scan_item(scan, operand, i);
        err = want_string(scan, json_array_get(operand, i));
        if (err == ERR_OK) {
            policy_names_add(names, policy_scan_text(scan, json_array_get(operand, i)));
        }
    }
    return err;
}

enum err policy_match_test_compile(struct policy_scan *scan, const char *name,
                                   const json_t *operand, struct policy_test *test_out)
{
    CLEANUP(policy_names_deinit) struct policy_names names = { 0 };
    struct policy_test test = { .op = policy_match_op(name) };
    enum err err = ERR_OK;

    if (test.op == POLICY_OP_IN || test.op == POLICY_OP_NOT_IN) {
        err = read_names(scan, name, operand, &names);
        test.set = policy_set_build(scan->arena, &names);
    } else {
        if (test.op == POLICY_OP_CONTAINS || test.op == POLICY_OP_STARTS_WITH ||
            test.op == POLICY_OP_ENDS_WITH) {
            err = want_string(scan, operand);
        }
        if (err == ERR_OK) {
            err = policy_match_scalar(scan, operand, &test.value);
        }
    }
    *test_out = test;
    return err;
}

/* One operator of an object: is, in and has that stand alone become names, the rest tests. */
static enum err read_op(struct policy_scan *scan, const char *name, const json_t *operand,
                        bool alone, struct policy_match *match)
{
    enum policy_op op = policy_match_op(name);
    bool any = alone && json_is_string(operand) && (op == POLICY_OP_IS || op == POLICY_OP_HAS);

    if (alone && op == POLICY_OP_IN) {
        match->any = true;
        return read_names(scan, name, operand, &match->names);
    }
    if (any) {
        match->any = true;
        policy_names_add(&match->names, policy_scan_text(scan, operand));
        return ERR_OK;
    }
    /* tests has room for every key */
    return policy_match_test_compile(scan, name, operand, &match->tests[match->test_count++]);
}

static enum err unknown_op(struct policy_scan *scan, const char *name, bool list)
{
    const char *known[ARRAY_LEN(ops)];
    const char *near = NULL;
    size_t n = 0;
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(ops); i++) {
        if (list ? ops[i].list : ops[i].text) {
            known[n++] = ops[i].name;
        }
    }
    near = policy_scan_nearest(sv_from(name), known, n);
    return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                            "unknown operator \"%.40s\"%s%s%s; this criterion knows %s", name,
                            near == NULL ? "" : ", did you mean \"", near == NULL ? "" : near,
                            near == NULL ? "" : "\"?", list ? list_ops : text_ops);
}

static enum err read_object(struct policy_scan *scan, const json_t *operand, bool list,
                            bool strings, struct policy_match *match)
{
    const char *name = NULL;
    json_t *value = NULL;
    size_t n = json_object_size(operand);
    enum err err = ERR_OK;

    match->tests = arena_zalloc(scan->arena, MAX(n, (size_t)1) * sizeof(*match->tests));
    json_object_foreach(policy_scan_tree(operand), name, value)
    {
        enum policy_op op = policy_match_op(name);

        policy_scan_member(scan, operand, name);
        if (!knows(op, list)) {
            return unknown_op(scan, name, list);
        }
        if (strings && op != POLICY_OP_IN && op != POLICY_OP_NOT_IN) {
            err = want_string(scan, value);
        }
        if (err == ERR_OK) {
            /* For a list `is` means "it alone", which is no membership. */
            err = read_op(scan, name, value, n == 1 && !(list && op == POLICY_OP_IS), match);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

enum err policy_match_text_compile(struct policy_scan *scan, const json_t *operand,
                                   struct policy_match *match_out)
{
    enum err err = ERR_OK;

    *match_out = (struct policy_match){ 0 };
    if (json_is_object(operand)) {
        return read_object(scan, operand, false, true, match_out);
    }
    err = want_string(scan, operand);
    return err != ERR_OK ? err : read_op(scan, "is", operand, true, match_out);
}

enum err policy_match_list_compile(struct policy_scan *scan, const json_t *operand, bool strings,
                                   struct policy_match *match_out)
{
    enum err err = ERR_OK;

    *match_out = (struct policy_match){ 0 };
    if (json_is_object(operand)) {
        return read_object(scan, operand, true, strings, match_out);
    }
    if (strings) {
        err = want_string(scan, operand);
    }
    match_out->tests = arena_zalloc(scan->arena, sizeof(*match_out->tests));
    return err != ERR_OK ? err : read_op(scan, "has", operand, true, match_out);
}

void policy_match_finish(struct policy_match *match, struct arena *arena)
{
    if (match->any) {
        match->set = policy_set_build(arena, &match->names);
    }
    policy_names_deinit(&match->names);
}

bool policy_match_scalar_eq(const struct policy_scalar *a, const struct policy_scalar *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case POLICY_KIND_STRING:
        return policy_text_eq(&a->text, &b->text);
    case POLICY_KIND_NUMBER:
        return a->number == b->number;
    case POLICY_KIND_BOOL:
        return a->flag == b->flag;
    case POLICY_KIND_NULL:
        return true;
    case POLICY_KIND_OTHER:
    default:
        return false;
    }
}

bool policy_match_test_text(const struct policy_test *test, const struct policy_text *text)
{
    const struct policy_text *operand = &test->value.text;
    bool equal = test->value.kind == POLICY_KIND_STRING && policy_text_eq(operand, text);

    switch (test->op) {
    case POLICY_OP_IS:
        return equal;
    case POLICY_OP_NOT:
        return !equal;
    case POLICY_OP_CONTAINS:
        return operand->s.n == 0 || sv_search(text->s, operand->s) != SIZE_MAX;
    case POLICY_OP_STARTS_WITH:
        return sv_starts(text->s, operand->s);
    case POLICY_OP_ENDS_WITH:
        return sv_ends(text->s, operand->s);
    case POLICY_OP_IN:
        return policy_set_has(&test->set, text);
    case POLICY_OP_NOT_IN:
        return !policy_set_has(&test->set, text);
    case POLICY_OP_NONE:
    case POLICY_OP_HAS:
    case POLICY_OP_EXCLUDE:
    default:
        return false;
    }
}

bool policy_match_text(const struct policy_match *match, const struct policy_text *text)
{
    size_t i = 0;

    if (match->any) {
        return policy_set_has(&match->set, text);
    }
    for (i = 0; i < match->test_count; i++) {
        if (!policy_match_test_text(&match->tests[i], text)) {
            return false;
        }
    }
    return true;
}

static bool list_has(const struct policy_scalar *operand, const struct policy_scalar *values,
                     size_t count)
{
    size_t i = 0;

    for (i = 0; i < count; i++) {
        if (policy_match_scalar_eq(operand, &values[i])) {
            return true;
        }
    }
    return false;
}

bool policy_match_test_list(const struct policy_test *test, const struct policy_scalar *values,
                            size_t count)
{
    if (test->op == POLICY_OP_IS && count != 1) {
        return false;
    }
    if (test->op != POLICY_OP_HAS && test->op != POLICY_OP_IS && test->op != POLICY_OP_EXCLUDE) {
        return false;
    }
    return list_has(&test->value, values, count) != (test->op == POLICY_OP_EXCLUDE);
}

bool policy_match_list(const struct policy_match *match, const struct policy_scalar *values,
                       size_t count)
{
    size_t i = 0;

    if (match->any) {
        for (i = 0; i < count; i++) {
            if (values[i].kind == POLICY_KIND_STRING &&
                policy_set_has(&match->set, &values[i].text)) {
                return true;
            }
        }
        return false;
    }
    for (i = 0; i < match->test_count; i++) {
        if (!policy_match_test_list(&match->tests[i], values, count)) {
            return false;
        }
    }
    return true;
}

static bool test_texts(const struct policy_test *test, const struct policy_text *texts,
                       size_t count)
{
    bool found = false;
    size_t i = 0;

    if (test->op == POLICY_OP_IS && count != 1) {
        return false;
    }
    for (i = 0; i < count && !found; i++) {
        found =
            test->value.kind == POLICY_KIND_STRING && policy_text_eq(&test->value.text, &texts[i]);
    }
    return found != (test->op == POLICY_OP_EXCLUDE);
}

bool policy_match_texts(const struct policy_match *match, const struct policy_text *texts,
                        size_t count)
{
    size_t i = 0;

    if (match->any) {
        for (i = 0; i < count; i++) {
            if (policy_set_has(&match->set, &texts[i])) {
                return true;
            }
        }
        return false;
    }
    for (i = 0; i < match->test_count; i++) {
        if (!test_texts(&match->tests[i], texts, count)) {
            return false;
        }
    }
    return true;
}

bool policy_match_path(const struct policy_match *match, struct sv path, bool against)
{
    enum { READ_MAX = 8192 };

    bool holds = policy_match_text(match, &POLICY_TEXT(path));
    char room[READ_MAX];

    if (sv_find(path, ';') == SIZE_MAX) {
        return holds;
    }
    if (path.n > sizeof(room)) {
        return against;
    }
    path = http_canon_without_params(path, room);
    return policy_match_text(match, &POLICY_TEXT(path)) == holds ? holds : against;
}
