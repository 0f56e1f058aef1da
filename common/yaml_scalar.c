#include "common/yaml_scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/date.h"

enum { NUMBER_TEXT_MAX = 128 };

static bool one_of(struct sv text, const char *const *words, size_t n)
{
    size_t i = 0;

    for (i = 0; i < n; i++) {
        if (sv_eq(text, sv_from(words[i]))) {
            return true;
        }
    }
    return false;
}

static json_t *word_value(struct sv text)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
    static const char *const trues[] = { "true", "True", "TRUE" };
    static const char *const falses[] = { "false", "False", "FALSE" };

    if (one_of(text, nulls, ARRAY_LEN(nulls))) {
        return json_null();
    }
    if (one_of(text, trues, ARRAY_LEN(trues))) {
        return json_true();
    }
    return one_of(text, falses, ARRAY_LEN(falses)) ? json_false() : NULL;
}

static bool is_not_finite(struct sv text)
{
    static const char *const words[] = { ".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf", "+.INF",
                                         "-.inf", "-.Inf", "-.INF", ".nan",  ".NaN",  ".NAN" };

    return one_of(text, words, ARRAY_LEN(words));
}

static json_t *date_value(struct sv text)
{
    struct date date = { 0 };
    char out[DATE_TEXT_SIZE];
    bool whole = false;

    if (date_parse(text, &date) != ERR_OK) {
        return NULL;
    }
    whole = date.separator == '\0' || (date.separator == ' ') != date.has_offset;
    return whole ? json_string(date_format_utc(&date, out)) : NULL;
}

static size_t skip_digits(const char *p, size_t i)
{
    while (p[i] >= '0' && p[i] <= '9') {
        i++;
    }
    return i;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_float(const char *p)
{
    size_t start = p[0] == '-' || p[0] == '+' ? 1 : 0;
    size_t i = skip_digits(p, start);
    bool whole = i > start;
    size_t from = 0;

    if (p[i] == '.') {
        from = i + 1;
        i = skip_digits(p, from);
        whole = whole || i > from;
    }
    if (!whole) {
        return false;
    }
    if (p[i] == 'e' || p[i] == 'E') {
        i++;
        i += p[i] == '-' || p[i] == '+' ? 1 : 0;
        from = i;
        i = skip_digits(p, from);
        whole = i > from;
    }
    return whole && p[i] == '\0';
}

/* Decimal, 0x, 0o, 0b, and octal behind a lone 0. False: not an integer of 63 bits. */
static bool read_int(const char *p, json_int_t *v_out)
{
    bool negative = p[0] == '-';
    const char *digits = p + (negative || p[0] == '+' ? 1 : 0);
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t v = 0;
    unsigned base = 10;

    if (digits[0] == '0' && digits[1] != '\0') {
        char kind = (char)(digits[1] | 0x20);

        base = kind == 'x' ? 16 : kind == 'b' ? 2 : 8;
        digits += kind == 'x' || kind == 'b' || kind == 'o' ? 2 : 1;
    }
    if (*digits == '\0') {
        return false;
    }
    for (; *digits != '\0'; digits++) {
        char c = (char)(*digits | 0x20);
        unsigned digit = 99;

        if (*digits >= '0' && *digits <= '9') {
            digit = (unsigned)(*digits - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a') + 10;
        }
        if (digit >= base || v > (limit - digit) / base) {
            return false;
        }
        v = v * base + digit;
    }
    *v_out = negative ? (json_int_t)(-(int64_t)(v - (v != 0)) - (v != 0)) : (json_int_t)v;
    return true;
}

/* ERR_OK with *value_out NULL: not a number. */
static enum err number_value(struct sv text, json_t **value_out, struct diag *d)
{
    char digits[NUMBER_TEXT_MAX + 1];
    json_int_t whole = 0;
    double real = 0;
    size_t n = 0;
    size_t i = 0;

    *value_out = NULL;
    if (text.n == 0 || strchr("0123456789+-.", text.p[0]) == NULL || text.n > NUMBER_TEXT_MAX) {
        return ERR_OK;
    }
    for (i = 0; i < text.n; i++) {
        if (text.p[i] != '_') {
            digits[n++] = text.p[i];
        }
    }
    digits[n] = '\0';
    if (read_int(digits, &whole)) {
        *value_out = json_integer(whole);
        return ERR_OK;
    }
    if (!is_float(digits)) {
        return ERR_OK;
    }
    real = strtod(digits, NULL);
    if (!isfinite(real)) {
        diag_set(d, "the number is too big");
        return ERR_INVALID;
    }
    *value_out = json_real(real);
    return ERR_OK;
}

static enum err text_value(struct sv text, json_t **value_out, struct diag *d)
{
    if (sv_find(text, '\0') != SIZE_MAX) {
        diag_set(d, "a text holds a NUL character");
        return ERR_INVALID;
    }
    *value_out = json_stringn(text.p == NULL ? "" : text.p, text.n);
    if (*value_out == NULL) {
        diag_set(d, "a text is not UTF-8");
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* What every plain scalar that is no text begins with. Most are text, and need no closer look. */
static bool may_be_special(struct sv text)
{
    return text.n == 0 || sv_find(SV("~nNtTfF.+-0123456789"), text.p[0]) != SIZE_MAX;
}

static enum err plain_value(struct sv text, json_t **value_out, struct diag *d)
{
    enum err err = ERR_OK;

    if (!may_be_special(text)) {
        return text_value(text, value_out, d);
    }
    *value_out = word_value(text);
    if (*value_out != NULL) {
        return ERR_OK;
    }
    if (is_not_finite(text)) {
        diag_set(d, "%.*s is not a number here; quote it if it is text", SV_ARG(text));
        return ERR_INVALID;
    }
    *value_out = date_value(text);
    if (*value_out != NULL) {
        return ERR_OK;
    }
    err = number_value(text, value_out, d);
    if (err != ERR_OK || *value_out != NULL) {
        return err;
    }
    return text_value(text, value_out, d);
}

static bool tag_fits(const char *tag, const json_t *value)
{
    if (strcmp(tag, "null") == 0) {
        return json_is_null(value);
    }
    if (strcmp(tag, "bool") == 0) {
        return json_is_boolean(value);
    }
    if (strcmp(tag, "int") == 0) {
        return json_is_integer(value);
    }
    if (strcmp(tag, "float") == 0) {
        return json_is_number(value);
    }
    return strcmp(tag, "timestamp") == 0 && json_is_string(value);
}

enum err yaml_scalar_parse(struct sv text, bool plain, const char *tag, json_t **value_out,
                           struct diag *d)
{
    static const char core[] = "tag:yaml.org,2002:";
    json_t *value = NULL;
    enum err err = ERR_OK;

    if (tag == NULL) {
        return plain ? plain_value(text, value_out, d) : text_value(text, value_out, d);
    }
    if (strcmp(tag, "!") == 0 || strcmp(tag, "tag:yaml.org,2002:str") == 0) {
        return text_value(text, value_out, d);
    }
    if (strncmp(tag, core, sizeof(core) - 1) == 0) {
        err = plain_value(text, &value, d);
        if (err == ERR_OK && tag_fits(tag + sizeof(core) - 1, value)) {
            *value_out = value;
            return ERR_OK;
        }
        json_decref(value);
    }
    diag_set(d, "the tag %.60s is unknown or does not fit the value", tag);
    return ERR_INVALID;
}
