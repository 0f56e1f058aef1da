#include "common/http/head.h"

#include <string.h>

#include "common/http/chars.h"
#include "common/http/url.h"

enum { HEAD_BYTES = 65536, LINE_BYTES = 16384, VERSION_LEN = 8 };

static const struct http_rules default_rules = { 0 };

static uint32_t or_default(uint32_t v, uint32_t def)
{
    return v == 0 ? def : v;
}

void http_head_init(struct http_head *head, enum http_kind kind, const struct http_rules *rules,
                    struct http_field *fields, size_t cap)
{
    uint32_t most = 0;

    *head = (struct http_head){ .fields = fields, .kind = kind };
    head->rules = rules == NULL ? &default_rules : rules;
    most = or_default(head->rules->fields, HTTP_FIELDS_DEFAULT);
    head->cap = (uint32_t)MIN(cap, (size_t)MIN(most, (uint32_t)HTTP_FIELDS_MAX));
    head->begun = kind == HTTP_TRAILER;
}

void http_head_init_response(struct http_head *head, const struct http_rules *rules,
                             enum http_method request_method, struct http_field *fields, size_t cap)
{
    http_head_init(head, HTTP_RESPONSE, rules, fields, cap);
    head->request_method = request_method;
}

static enum http_step fail(struct http_head *head, enum http_fault fault)
{
    head->fault = fault;
    head->ended = true;
    return HTTP_ERROR;
}

/* ---- moving bytes ----------------------------------------------------------------------------- */

static void rebase_sv(struct sv *s, const char *to, uintptr_t from)
{
    if (s->p != NULL) {
        s->p = to + ((uintptr_t)s->p - from);
    }
}

/* The caller's buffer has moved: what was found so far moves along. */
static void rebase(struct http_head *head, const char *to)
{
    uint32_t i = 0;

    rebase_sv(&head->method_text, to, head->base);
    rebase_sv(&head->target, to, head->base);
    rebase_sv(&head->reason, to, head->base);
    rebase_sv(&head->host, to, head->base);
    for (i = 0; i < head->n; i++) {
        rebase_sv(&head->fields[i].name, to, head->base);
        rebase_sv(&head->fields[i].value, to, head->base);
    }
    head->base = (uintptr_t)to;
}

/* ---- start lines ------------------------------------------------------------------------------ */

static enum http_fault parse_version(struct sv text, unsigned *minor_out)
{
    if (text.n != VERSION_LEN || memcmp(text.p, "HTTP/", 5) != 0 ||
        !http_char_is_digit(text.p[5]) || text.p[6] != '.' || !http_char_is_digit(text.p[7])) {
        return HTTP_FAULT_START_LINE;
    }
    if (text.p[5] != '1' || text.p[7] > '1') {
        return HTTP_FAULT_VERSION;
    }
    *minor_out = (unsigned)(text.p[7] - '0');
    return HTTP_FAULT_NONE;
}

static bool is_connect_target(struct sv target)
{
    struct http_authority auth;

    return http_authority_parse(target, &auth) == ERR_OK && auth.port != 0;
}

/* RFC 9112 §3.2: each form belongs to its methods. */
static enum http_fault find_form(struct http_head *head)
{
    struct sv t = head->target;

    if (head->method == HTTP_CONNECT) {
        head->form = HTTP_FORM_AUTHORITY;
        return is_connect_target(t) ? HTTP_FAULT_NONE : HTTP_FAULT_TARGET_FORM;
    }
    if (t.p[0] == '/') {
        head->form = HTTP_FORM_ORIGIN;
        return HTTP_FAULT_NONE;
    }
    if (t.n == 1 && t.p[0] == '*' && head->method == HTTP_OPTIONS) {
        head->form = HTTP_FORM_ASTERISK;
        return HTTP_FAULT_NONE;
    }
    if (sv_istarts(t, SV("http://")) || sv_istarts(t, SV("https://"))) {
        head->form = HTTP_FORM_ABSOLUTE;
        return HTTP_FAULT_NONE;
    }
    return HTTP_FAULT_TARGET_FORM;
}

static enum http_fault parse_request_line(struct http_head *head, struct sv line)
{
    enum http_fault fault = HTTP_FAULT_NONE;
    size_t i = 0;
    size_t start = 0;

    while (i < line.n && http_char_is(line.p[i], HTTP_CH_TOKEN)) {
        i++;
    }
    if (i == 0 || i == line.n || line.p[i] != ' ') {
        return HTTP_FAULT_START_LINE;
    }
    head->method_text = sv_head(line, i);
    start = ++i;
    while (i < line.n && http_char_is(line.p[i], HTTP_CH_QUERY)) {
        i++;
    }
    if (i < line.n && line.p[i] != ' ') {
        return line.p[i] == '\r' ? HTTP_FAULT_LINE_END : HTTP_FAULT_TARGET;
    }
    if (i == start || i == line.n) {
        return HTTP_FAULT_START_LINE;
    }
    head->target = sv_of(line.p + start, i - start);
    fault = parse_version(sv_from_at(line, i + 1), &head->minor);
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    head->method = http_method_id(head->method_text);
    if (head->method == HTTP_UNKNOWN) {
        return HTTP_FAULT_METHOD_UNKNOWN;
    }
    if (head->method == HTTP_TRACE) {
        return HTTP_FAULT_METHOD_REFUSED; /* it would echo identity headers to scripts */
    }
    return find_form(head);
}

/* RFC 9112 §4. The blank before an empty reason is often left out, and nobody reads that twice. */
static enum http_fault parse_status_line(struct http_head *head, struct sv line)
{
    enum http_fault fault = HTTP_FAULT_NONE;
    const char *p = line.p + VERSION_LEN;
    size_t i = 0;

    if (line.n < VERSION_LEN + 4 || p[0] != ' ') {
        return HTTP_FAULT_START_LINE;
    }
    fault = parse_version(sv_head(line, VERSION_LEN), &head->minor);
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    for (i = 1; i <= 3; i++) {
        if (!http_char_is_digit(p[i])) {
            return HTTP_FAULT_STATUS;
        }
        head->status = head->status * 10 + (unsigned)(p[i] - '0');
    }
    if (head->status < 100 || head->status > 599) {
        return HTTP_FAULT_STATUS;
    }
    head->reason = sv_from_at(line, VERSION_LEN + 4);
    if (head->reason.n == 0) {
        return HTTP_FAULT_NONE;
    }
    if (head->reason.p[0] != ' ') {
        return HTTP_FAULT_STATUS;
    }
    head->reason = sv_trim(head->reason);
    for (i = 0; i < head->reason.n; i++) {
        if (!http_char_is(head->reason.p[i], HTTP_CH_VALUE)) {
            return head->reason.p[i] == '\r' ? HTTP_FAULT_LINE_END : HTTP_FAULT_CONTROL;
        }
    }
    return HTTP_FAULT_NONE;
}

/* ---- fields ----------------------------------------------------------------------------------- */

/* Nearly all are plain; HTAB, too, is a control byte, but no fault. */
static enum http_fault check_value(struct sv v)
{
    size_t i = 0;

    for (i = 0; i < v.n; i++) {
        if (!http_char_is(v.p[i], HTTP_CH_VALUE)) {
            return v.p[i] == '\r' || v.p[i] == '\n' ? HTTP_FAULT_LINE_END : HTTP_FAULT_CONTROL;
        }
    }
    return HTTP_FAULT_NONE;
}

static enum http_fault flag_field(const struct http_head *head, struct http_field *f,
                                  bool underscore)
{
    unsigned class = http_name_class((enum http_name)f->id);

    f->flags |= (class & HTTP_C_HOP) != 0 ? HTTP_F_HOP : 0;
    if (head->kind == HTTP_TRAILER && (class & HTTP_C_NO_TRAILER) != 0) {
        return HTTP_FAULT_TRAILER;
    }
    if ((class & HTTP_C_SINGLE) != 0 && head->at[f->id] != 0 &&
        (head->kind != HTTP_RESPONSE || f->id == HTTP_H_CONTENT_LENGTH ||
         f->id == HTTP_H_TRANSFER_ENCODING)) {
        return HTTP_FAULT_DUPLICATE;
    }
    if (underscore) {
        f->flags |= HTTP_F_UNDERSCORE;
        if (head->kind != HTTP_RESPONSE && head->rules->underscores == HTTP_UNDERSCORE_REJECT) {
            return HTTP_FAULT_UNDERSCORE;
        }
        if (head->kind != HTTP_RESPONSE && head->rules->underscores == HTTP_UNDERSCORE_DROP) {
            f->flags |= HTTP_F_DROP;
        }
    }
    return HTTP_FAULT_NONE;
}

/* Where the next field is made: its place in the array, or spare where there is none. */
static struct http_field *next_place(const struct http_head *head, struct http_field *spare)
{
    return head->n < head->cap ? &head->fields[head->n] : spare;
}

/* f has name, id, value and HTTP_F_LINE, stands in its place, and its name is a token. */
static enum http_fault admit(struct http_head *head, struct http_field *f, bool underscore)
{
    enum http_fault fault = sv_is_plain(f->value) ? HTTP_FAULT_NONE : check_value(f->value);

    if (fault == HTTP_FAULT_NONE && head->n >= head->cap) {
        fault = HTTP_FAULT_FIELDS_MANY;
    }
    if (fault == HTTP_FAULT_NONE && (underscore || http_name_class((enum http_name)f->id) != 0)) {
        fault = flag_field(head, f, underscore);
    }
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    head->n++;
    if (head->at[f->id] == 0) {
        head->at[f->id] = (uint16_t)head->n;
    }
    return HTTP_FAULT_NONE;
}

/* What stands before the first ':' of line, which may have none. */
static enum http_fault check_name(struct sv line, size_t colon, bool *underscore_out)
{
    size_t i = 0;

    while (i < line.n && http_char_is(line.p[i], HTTP_CH_TOKEN)) {
        i++;
    }
    if (i == 0 && (line.p[0] == ' ' || line.p[0] == '\t')) {
        return HTTP_FAULT_FOLD;
    }
    if (i == 0 || i != colon) {
        return i < line.n && line.p[i] == '\r' ? HTTP_FAULT_LINE_END : HTTP_FAULT_NAME;
    }
    *underscore_out = sv_find(sv_head(line, i), '_') != SIZE_MAX;
    return HTTP_FAULT_NONE;
}

static enum http_fault parse_field(struct http_head *head, struct sv line)
{
    enum http_fault fault = HTTP_FAULT_NONE;
    struct http_field spare;
    struct http_field *f = next_place(head, &spare);
    size_t colon = sv_find(line, ':');
    bool underscore = false;

    f->name = sv_head(line, MIN(colon, line.n));
    f->id = (uint16_t)http_name_id(f->name);
    if (f->id == HTTP_H_OTHER ||
        colon == SIZE_MAX) { /* names of the table are tokens without '_' */
        fault = check_name(line, colon, &underscore);
        if (fault != HTTP_FAULT_NONE) {
            return fault;
        }
    }
    f->value = sv_trim(sv_from_at(line, colon + 1));
    f->flags = 0;
    if (f->value.p == line.p + colon + 2 && f->value.p[-1] == ' ' &&
        f->value.n == line.n - (colon + 2)) {
        f->flags = HTTP_F_LINE;
    }
    return admit(head, f, underscore);
}

enum http_fault http_head_add(struct http_head *head, struct sv name, struct sv value)
{
    struct http_field spare;
    struct http_field *f = next_place(head, &spare);
    enum http_name id = http_name_id(name);
    bool underscore = false;

    if (id == HTTP_H_OTHER) { /* as in parse_field */
        if (!http_is_token(name)) {
            return HTTP_FAULT_NAME;
        }
        underscore = sv_find(name, '_') != SIZE_MAX;
    }
    *f = (struct http_field){ .name = name, .value = sv_trim(value), .id = (uint16_t)id };
    return admit(head, f, underscore);
}

/* ---- the parser ------------------------------------------------------------------------------- */

/* One empty line before a request is passed over (RFC 9112 §2.2); then the first byte must begin
 * a token, so that TLS and other foreign bytes are told at once. */
static enum http_step begin(struct http_head *head, struct sv bytes)
{
    if (head->kind != HTTP_REQUEST || head->begun) {
        return HTTP_DONE;
    }
    if (head->pos == 0 && bytes.n > 0 && bytes.p[0] == '\r') {
        if (bytes.n == 1) {
            return HTTP_MORE;
        }
        if (bytes.p[1] != '\n') {
            return fail(head, HTTP_FAULT_LINE_END);
        }
        head->pos = 2;
        head->scan = 2;
    }
    if (head->pos < bytes.n && !http_char_is(bytes.p[head->pos], HTTP_CH_TOKEN)) {
        char c = bytes.p[head->pos];

        return fail(head, c == '\n' ? HTTP_FAULT_LINE_END : HTTP_FAULT_START_LINE);
    }
    return HTTP_DONE;
}

static enum http_fault line_too_long(const struct http_head *head, size_t n)
{
    if (!head->begun && n > or_default(head->rules->line_bytes, LINE_BYTES)) {
        return head->kind == HTTP_REQUEST ? HTTP_FAULT_TARGET_LONG : HTTP_FAULT_HEAD_LARGE;
    }
    return HTTP_FAULT_NONE;
}

/* line ends where the LF was; what must stand there is its CR. The length is looked at first, as it
 * is for a line whose end has not come yet. */
static enum http_fault take_line(struct http_head *head, struct sv line)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    if (line.n == 0) {
        return HTTP_FAULT_LINE_END;
    }
    fault = line_too_long(head, line.n - 1);
    if (fault != HTTP_FAULT_NONE) {
        return fault;
    }
    if (line.p[--line.n] != '\r') {
        return HTTP_FAULT_LINE_END;
    }
    if (head->begun) {
        return parse_field(head, line);
    }
    head->begun = true;
    if (line.n == 0) {
        return HTTP_FAULT_START_LINE;
    }
    return head->kind == HTTP_RESPONSE ? parse_status_line(head, line)
                                       : parse_request_line(head, line);
}

/* No line end up to the end of what may be looked at. */
static enum http_step line_pending(struct http_head *head, size_t seen, size_t max)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    head->scan = seen;
    if (seen - head->pos > 1) {
        fault = line_too_long(head, seen - head->pos - 1); /* the last byte may be its CR */
    }
    if (fault == HTTP_FAULT_NONE && seen >= max) {
        fault = HTTP_FAULT_HEAD_LARGE;
    }
    return fault == HTTP_FAULT_NONE ? HTTP_MORE : fail(head, fault);
}

static enum http_step finish(struct http_head *head)
{
    enum http_fault fault = HTTP_FAULT_NONE;

    head->size = head->pos;
    if (head->kind != HTTP_TRAILER) {
        fault = http_head_seal(head);
    }
    if (fault != HTTP_FAULT_NONE) {
        return fail(head, fault);
    }
    head->ended = true;
    return HTTP_DONE;
}

enum http_step http_head_parse(struct http_head *head, struct sv bytes)
{
    size_t max = or_default(head->rules->head_bytes, HEAD_BYTES);
    size_t seen = MIN(bytes.n, max);
    enum http_step step = HTTP_MORE;

    if ((uintptr_t)bytes.p != head->base) {
        rebase(head, bytes.p);
    }
    if (head->ended) {
        return head->fault == HTTP_FAULT_NONE ? HTTP_DONE : HTTP_ERROR;
    }
    step = begin(head, bytes);
    if (step != HTTP_DONE) {
        return step;
    }
    for (;;) {
        const char *lf = NULL;
        struct sv line = { 0 };
        enum http_fault fault = HTTP_FAULT_NONE;

        if (head->scan < seen) {
            lf = memchr(bytes.p + head->scan, '\n', seen - head->scan);
        }
        if (lf == NULL) {
            return line_pending(head, seen, max);
        }
        line = sv_of(bytes.p + head->pos, (size_t)(lf - bytes.p) - head->pos);
        head->pos += line.n + 1;
        head->scan = head->pos;
        if (line.n == 1 && line.p[0] == '\r' && head->begun) {
            return finish(head);
        }
        fault = take_line(head, line);
        if (fault != HTTP_FAULT_NONE) {
            return fail(head, fault);
        }
    }
}

/* ---- asking ----------------------------------------------------------------------------------- */

const struct http_field *http_head_get(const struct http_head *head, enum http_name id)
{
    return head->at[id] == 0 ? NULL : &head->fields[head->at[id] - 1];
}

struct sv http_head_value(const struct http_head *head, enum http_name id)
{
    const struct http_field *f = http_head_get(head, id);

    return f == NULL ? (struct sv){ 0 } : f->value;
}

const struct http_field *http_head_find(const struct http_head *head, struct sv name)
{
    enum http_name id = http_name_id(name);
    uint32_t i = 0;

    if (id != HTTP_H_OTHER) {
        return http_head_get(head, id);
    }
    for (i = 0; i < head->n; i++) {
        if (head->fields[i].id == HTTP_H_OTHER && sv_ieq(head->fields[i].name, name)) {
            return &head->fields[i];
        }
    }
    return NULL;
}

size_t http_head_count(const struct http_head *head, enum http_name id)
{
    size_t count = 0;
    uint32_t i = 0;

    for (i = head->at[id] == 0 ? head->n : head->at[id] - 1U; i < head->n; i++) {
        count += head->fields[i].id == id ? 1 : 0;
    }
    return count;
}

bool http_list_next(struct sv *list, struct sv *element_out)
{
    while (list->p != NULL) {
        struct sv element = sv_trim(sv_cut(list, ','));

        if (element.n > 0) {
            *element_out = element;
            return true;
        }
    }
    return false;
}

bool http_list_has(struct sv value, struct sv token)
{
    struct sv element = { 0 };

    while (http_list_next(&value, &element)) {
        if (sv_ieq(element, token)) {
            return true;
        }
    }
    return false;
}
