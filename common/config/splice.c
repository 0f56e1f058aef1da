#include "common/config/splice.h"

#include <string.h>

#include "common/config/reader.h"
#include "common/mem.h"

enum { DASH_BYTES = 2 /* the dash and a blank: then it is one */ };

/* ---- the text --------------------------------------------------------------------------------- */

/* libyaml's lines end here at '\n' alone: no '\r', and none of NEL, LS and PS (YAML 1.1, section 4.2). */
static bool has_plain_lines(struct sv text)
{
    return sv_find(text, '\r') == SIZE_MAX && sv_search(text, SV("\xc2\x85")) == SIZE_MAX &&
           sv_search(text, SV("\xe2\x80\xa8")) == SIZE_MAX &&
           sv_search(text, SV("\xe2\x80\xa9")) == SIZE_MAX;
}

static int count_lines(struct sv text)
{
    int n = 0;

    for (size_t at = sv_find(text, '\n'); at != SIZE_MAX; at = sv_find(text, '\n')) {
        text = sv_from_at(text, at + 1);
        n++;
    }
    return n;
}

static size_t same_from_front(struct sv a, struct sv b)
{
    enum { STEP = 4096 };

    size_t max = MIN(a.n, b.n);
    size_t n = 0;

    while (max - n >= STEP && memcmp(a.p + n, b.p + n, STEP) == 0) {
        n += STEP;
    }
    while (n < max && a.p[n] == b.p[n]) {
        n++;
    }
    return n;
}

/* May overlap what is the same from the front, as where one of two equal routes is taken out. */
static size_t same_from_back(struct sv a, struct sv b)
{
    enum { STEP = 4096 };

    size_t max = MIN(a.n, b.n);
    size_t n = 0;

    while (max - n >= STEP && memcmp(a.p + a.n - n - STEP, b.p + b.n - n - STEP, STEP) == 0) {
        n += STEP;
    }
    while (n < max && a.p[a.n - n - 1] == b.p[b.n - n - 1]) {
        n++;
    }
    return n;
}

/* ---- where routes stand ----------------------------------------------------------------------- */

/* A walk over the lines of a text. */
struct walk {
    struct sv text;
    size_t at; /* where line begins */
    int line;
};

static bool walk_to(struct walk *w, int line)
{
    while (w->line < line) {
        size_t end = sv_find(sv_from_at(w->text, w->at), '\n');

        if (end == SIZE_MAX) {
            return false;
        }
        w->at += end + 1;
        w->line++;
    }
    return w->line == line;
}

/* In front of the value on its line stand a dash and blanks, nothing else: so it is an item of a block
 * sequence, and a tab or another dash would have been more. */
static bool has_dash(struct sv text, const struct config_item *item, size_t *dash_out)
{
    struct sv line = sv_from_at(text, item->at);
    size_t n = (size_t)item->column - 1;
    size_t dash = 0;
    size_t i = 0;

    while (dash < line.n && line.p[dash] == ' ') {
        dash++;
    }
    for (i = dash + 1; i < n && i < line.n && line.p[i] == ' '; i++) {
    }
    *dash_out = dash;
    return dash + DASH_BYTES <= n && i == n && n < line.n && line.p[dash] == '-';
}

static bool find_item(struct walk *w, struct yaml_pos pos, struct config_item *item,
                      size_t *dash_out)
{
    *item = (struct config_item){ .line = pos.line, .column = pos.column };
    if (pos.line <= 0 || !walk_to(w, pos.line)) {
        return false;
    }
    item->at = w->at;
    return has_dash(w->text, item, dash_out);
}

/* The routes in doc, and where the key behind them stands; {0, 0}: there is none. */
static json_t *routes_in(const struct yaml_doc *doc, struct yaml_pos *next_out)
{
    json_t *root = yaml_root(doc);
    json_t *routes = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    size_t i = 0;

    *next_out = (struct yaml_pos){ 0 };
    json_object_foreach(root, key, value)
    {
        i++;
        if (strcmp(key, "routes") == 0 || strcmp(key, "policy") == 0) {
            routes = value;
            *next_out = yaml_item_pos(doc, root, i);
        }
    }
    return json_is_array(routes) ? routes : NULL;
}

/* ---- planning --------------------------------------------------------------------------------- */

static bool is_read(const struct config_splice *s, size_t i)
{
    return i == 0 || i + 1 == s->old->n || i + 1 == s->first || i == s->last ||
           s->old->items[i].again;
}

static size_t new_at(const struct config_splice *s, size_t i)
{
    size_t old_end = s->last < s->old->n ? s->old->items[s->last].at : s->old->end;
    size_t at = s->old->items[i].at;

    return i < s->first ? at : s->new_end + (at - old_end);
}

int config_splice_line(const struct config_splice *s, size_t old)
{
    return s->old->items[old].line + (old < s->first ? 0 : s->more_lines);
}

static size_t dash_of(const struct config_layout *l)
{
    size_t dash = 0;

    (void)has_dash(sv_of(l->text, l->n_text), &l->items[0], &dash);
    return dash;
}

/* Sets first and last: the change lies between the dashes of old routes first and last, or the end. */
static bool find_change(struct config_splice *s, struct sv text)
{
    const struct config_layout *l = s->old;
    struct sv was = sv_of(l->text, l->n_text);
    size_t head = same_from_front(was, text);
    size_t tail = same_from_back(was, text);
    size_t dash = dash_of(l);
    size_t old_end = 0;

    if (l->items[0].at + dash + DASH_BYTES > head || (l->end < was.n && l->end <= was.n - tail)) {
        return false; /* it reaches into the settings around the routes */
    }
    while (s->first + 1 < l->n && l->items[s->first + 1].at + dash + DASH_BYTES <= head) {
        s->first++;
    }
    s->last = l->n;
    while (s->last > s->first + 1 && l->items[s->last - 1].at > was.n - tail) {
        s->last--;
    }
    old_end = s->last < l->n ? l->items[s->last].at : l->end;
    s->new_end = text.n - (was.n - old_end);
    return s->new_end >= l->items[s->first].at;
}

static struct sv between(struct sv text, size_t from, size_t to)
{
    return sv_of(text.p + from, to - from);
}

static void leave_out(struct config_splice *s, struct sv text)
{
    size_t from = 0;
    int lines = 0;

    buf_init(&s->rest, text.n + 1);
    s->gaps = mem_array(s->old->n + 1, sizeof(*s->gaps));
    for (size_t i = 0; i < s->old->n; i++) {
        if ((i >= s->first && i < s->last) || is_read(s, i)) {
            continue;
        }
        if (from < new_at(s, i)) {
            buf_add_sv(&s->rest, between(text, from, new_at(s, i)));
            s->n_gaps++;
        }
        from = new_at(s, i + 1);
        lines += s->old->items[i + 1].line - s->old->items[i].line;
        s->gaps[s->n_gaps - 1] =
            (struct yaml_gap){ .line = config_splice_line(s, i + 1) - lines, .lines = lines };
    }
    buf_add_sv(&s->rest, sv_from_at(text, from));
}

bool config_splice_plan(const struct config_box *before, struct sv text, struct config_splice *s)
{
    struct sv change = { 0 };
    const struct config_layout *l = before->layout;
    size_t old_end = 0;

    *s = (struct config_splice){ .before = before, .old = l };
    if (l == NULL || !find_change(s, text)) {
        return false;
    }
    change = between(text, l->items[s->first].at, s->new_end);
    if (!has_plain_lines(change)) {
        return false;
    }
    old_end = s->last < l->n ? l->items[s->last].at : l->end;
    s->more_lines = count_lines(change) - count_lines(sv_of(l->text + l->items[s->first].at,
                                                            old_end - l->items[s->first].at));
    leave_out(s, text);
    return s->rest.err == ERR_OK;
}

void config_splice_deinit(struct config_splice *s)
{
    config_forget(&s->rest);
    mem_free(&s->gaps);
}

/* ---- what came out ---------------------------------------------------------------------------- */

static bool stands_there(const struct config_splice *s, size_t old, struct yaml_pos pos)
{
    return pos.line == config_splice_line(s, old) && pos.column == s->old->items[old].column;
}

static bool items_fit(struct config_splice *s, const struct yaml_doc *doc, const json_t *routes)
{
    size_t n = json_array_size(routes);
    size_t k = 0;
    size_t kept = 0;

    for (size_t i = 0; i < s->old->n; i++) {
        kept += (i < s->first || i >= s->last) && is_read(s, i) ? 1 : 0;
    }
    if (n < kept) {
        return false;
    }
    s->n_changed = n - kept;
    for (size_t i = 0; i < s->old->n; i++) {
        if (i == s->first) {
            k += s->n_changed;
        }
        if ((i < s->first || i >= s->last) && is_read(s, i) &&
            !stands_there(s, i, yaml_item_pos(doc, routes, k++))) {
            return false;
        }
    }
    return true;
}

bool config_splice_fits(struct config_splice *s, const struct yaml_doc *doc)
{
    const struct config_layout *l = s->old;
    struct yaml_pos next = { 0 };
    const json_t *routes = routes_in(doc, &next);
    bool tail = l->end < l->n_text;

    /* Behind the routes the same key follows, or none: each global setting is what it was. */
    if (routes == NULL || yaml_is_linked(doc) || (next.line != 0) != tail ||
        (tail && (next.column != 1 || next.line != l->end_line + s->more_lines)) ||
        l->nodes + yaml_nodes(doc) > YAML_NODES_MAX) {
        return false;
    }
    return items_fit(s, doc, routes);
}

size_t config_splice_count(const struct config_splice *s)
{
    return s->first + s->n_changed + (s->old->n - s->last);
}

size_t config_splice_old(const struct config_splice *s, size_t i)
{
    if (i < s->first) {
        return i;
    }
    return i < s->first + s->n_changed ? SIZE_MAX : i - s->first - s->n_changed + s->last;
}

bool config_splice_is_read(const struct config_splice *s, size_t i)
{
    size_t old = config_splice_old(s, i);

    return old == SIZE_MAX || is_read(s, old);
}

/* ---- the layout for the next time ------------------------------------------------------------- */

/* Places of routes that were taken over are known; those of the others tells doc. */
static bool fill(struct config_layout *l, const struct config_reader *r, const struct yaml_doc *doc,
                 const json_t *routes)
{
    const struct config_splice *s = r->splice;
    struct walk w = { .text = sv_of(l->text, l->n_text), .line = 1 };
    size_t first_dash = 0;
    size_t dash = 0;
    size_t k = 0;

    for (size_t i = 0; i < l->n; i++) {
        size_t old = s == NULL ? SIZE_MAX : config_splice_old(s, i);
        struct config_item *item = &l->items[i];

        if (old != SIZE_MAX) {
            *item = s->old->items[old];
            item->at = new_at(s, old);
            item->line = config_splice_line(s, old);
            w.at = item->at;
            w.line = item->line;
            k += is_read(s, old) ? 1 : 0;
        } else if (!find_item(&w, yaml_item_pos(doc, routes, k++), item, &dash)) {
            return false;
        } else {
            item->again = r->again[i];
        }
        if (i == 0) {
            (void)has_dash(w.text, item, &first_dash);
        } else if (old == SIZE_MAX && dash != first_dash) {
            return false;
        }
    }
    return true;
}

/* The end of the routes, behind the last of which w stands. */
static bool find_end(struct config_layout *l, struct yaml_pos next)
{
    struct walk w = { .text = sv_of(l->text, l->n_text),
                      .at = l->items[l->n - 1].at,
                      .line = l->items[l->n - 1].line };

    l->end = l->n_text;
    l->end_line = next.line;
    if (next.line != 0) {
        if (next.column != 1 || !walk_to(&w, next.line)) {
            return false;
        }
        l->end = w.at;
    }
    return true;
}

struct config_layout *config_layout_new(const struct config_reader *r, struct sv text,
                                        const struct yaml_doc *doc)
{
    CLEANUP(config_layout_free) struct config_layout *l = NULL;
    struct yaml_pos next = { 0 };
    const json_t *routes = doc == NULL ? NULL : routes_in(doc, &next);

    if (routes == NULL || r->c->n_routes == 0 || r->routes_doc != doc || yaml_is_linked(doc) ||
        (r->splice == NULL && !has_plain_lines(text))) {
        return NULL;
    }
    l = MEM_NEW(struct config_layout);
    l->text = mem_dup(text.p, text.n);
    l->n_text = text.n;
    l->n = r->c->n_routes;
    l->items = mem_array(l->n, sizeof(*l->items));
    l->nodes = yaml_nodes(doc) + (r->splice == NULL ? 0 : r->splice->old->nodes);
    return fill(l, r, doc, routes) && find_end(l, next) ? TAKE(l) : NULL;
}

void config_layout_free(struct config_layout **layout)
{
    struct config_layout *l = TAKE(*layout);

    if (l == NULL) {
        return;
    }
    secret_wipe(l->text, l->n_text);
    mem_free(&l->text);
    mem_free(&l->items);
    mem_free(&l);
}
