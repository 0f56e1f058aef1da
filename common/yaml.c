#include "common/yaml.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "common/map.h"
#include "common/mem.h"
#include "common/yaml_scalar.h"

/* The places of one container's children, in the order in which jansson keeps them. */
struct place {
    const json_t *node;
    struct yaml_pos *children;
    size_t count;
};

struct yaml_doc {
    char *file;
    json_t *root;
    json_t *merged; /* values of <<: not in the tree, but places names them */
    bool empty;
    bool linked; /* it has anchors or aliases */
    size_t nodes;
    struct place *places; /* sorted by node */
    size_t place_count;
    size_t place_cap;
};

/* A node that an alias may name: the tree is shared, its size is counted again for every use. */
struct anchor {
    char *name;
    json_t *node;
    size_t nodes;
    unsigned height;
};

/* A container that is open. */
struct frame {
    json_t *node;
    json_t *merge; /* the value of <<, or NULL */
    char *anchor;
    char *key; /* the member that waits for its value, or NULL */
    struct yaml_pos key_pos;
    struct yaml_pos merge_pos;
    struct yaml_pos *children;
    size_t count;
    size_t cap;
    size_t nodes_before; /* what had been counted when it opened */
    unsigned height;     /* of the deepest child */
    bool merging;        /* the value that follows belongs to << */
};

struct parse {
    struct yaml_doc *doc;
    struct diag *d;
    struct frame stack[YAML_DEPTH_MAX];
    unsigned depth;
    size_t nodes;
    struct map *anchors;
    const struct yaml_gap *gaps;
    size_t n_gaps;
};

static struct yaml_pos pos_of(yaml_mark_t mark)
{
    return (struct yaml_pos){ .line = (int)mark.line + 1, .column = (int)mark.column + 1 };
}

static enum err fail(struct parse *ps, enum err err, struct yaml_pos pos, const char *what)
{
    diag_set(ps->d, "%s", what);
    diag_at(ps->d, ps->doc->file, pos.line, pos.column);
    return err;
}

static void anchor_free(struct anchor *a)
{
    if (a != NULL) {
        mem_free(&a->name);
        json_decref(a->node);
        mem_free(&a);
    }
}

static void on_anchor_free(struct sv key, void *value, void *arg)
{
    (void)key;
    (void)arg;
    anchor_free(value);
}

static void frame_deinit(struct frame *f)
{
    json_decref(f->node);
    json_decref(f->merge);
    mem_free(&f->anchor);
    mem_free(&f->key);
    mem_free(&f->children);
}

static void parse_deinit(struct parse *ps)
{
    while (ps->depth > 0) {
        ps->depth--;
        frame_deinit(&ps->stack[ps->depth]);
    }
    map_each(ps->anchors, on_anchor_free, NULL);
    map_free(&ps->anchors);
}

static void anchor_set(struct parse *ps, const char *name, json_t *node, size_t nodes,
                       unsigned height)
{
    struct anchor *a = NULL;

    if (name == NULL) {
        return;
    }
    ps->doc->linked = true;
    a = MEM_NEW(struct anchor);
    a->name = mem_strdup(name);
    a->node = json_incref(node);
    a->nodes = nodes;
    a->height = height;
    anchor_free(map_set(ps->anchors, sv_from(a->name), a));
}

static enum err count_nodes(struct parse *ps, size_t n, struct yaml_pos pos)
{
    if (n > YAML_NODES_MAX - ps->nodes) {
        return fail(ps, ERR_LIMIT, pos, "too many nodes, aliases counted");
    }
    ps->nodes += n;
    return ERR_OK;
}

static void child_pos_add(struct frame *f, struct yaml_pos pos)
{
    if (f->count == f->cap) {
        f->cap = f->cap == 0 ? 4 : f->cap * 2;
        f->children = mem_realloc(f->children, f->cap, sizeof(*f->children));
    }
    f->children[f->count++] = pos;
}

/* Puts a finished value where it belongs; takes the reference. */
static enum err place_value(struct parse *ps, json_t *value, unsigned height, struct yaml_pos pos)
{
    struct frame *f = ps->depth == 0 ? NULL : &ps->stack[ps->depth - 1];

    if (f == NULL) {
        ps->doc->root = value;
        return ERR_OK;
    }
    f->height = MAX(f->height, height);
    if (f->merging) {
        f->merging = false;
        f->merge = value;
        return ERR_OK;
    }
    if (json_is_array(f->node)) {
        child_pos_add(f, pos);
        return json_array_append_new(f->node, value) == 0 ? ERR_OK : ERR_INTERNAL;
    }
    if (f->key == NULL) {
        json_decref(value);
        return fail(ps, ERR_INVALID, pos, "a key must be text");
    }
    child_pos_add(f, f->key_pos);
    if (json_object_set_new(f->node, f->key, value) != 0) {
        return fail(ps, ERR_INVALID, pos, "this key or value cannot be kept");
    }
    mem_free(&f->key);
    return ERR_OK;
}

static bool wants_key(const struct parse *ps)
{
    const struct frame *f = ps->depth == 0 ? NULL : &ps->stack[ps->depth - 1];

    return f != NULL && json_is_object(f->node) && f->key == NULL && !f->merging;
}

static enum err take_key(struct parse *ps, const yaml_event_t *ev)
{
    struct frame *f = &ps->stack[ps->depth - 1];
    struct yaml_pos pos = pos_of(ev->start_mark);
    struct sv text = sv_of(ev->data.scalar.value, ev->data.scalar.length);
    bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    json_t *key = NULL;
    enum err err = ERR_OK;

    if (plain && ev->data.scalar.tag == NULL && sv_eq(text, SV("<<"))) {
        if (f->merge != NULL) {
            return fail(ps, ERR_INVALID, pos, "the key << stands here twice");
        }
        f->merging = true;
        f->merge_pos = pos;
        return ERR_OK;
    }
    err = yaml_scalar_parse(text, plain, (const char *)ev->data.scalar.tag, &key, ps->d);
    if (err != ERR_OK) {
        diag_at(ps->d, ps->doc->file, pos.line, pos.column);
        return err;
    }
    /* A date is no text either: its value is spelled otherwise. */
    if (!json_is_string(key) || !sv_eq(sv_from(json_string_value(key)), text)) {
        json_decref(key);
        return fail(ps, ERR_INVALID, pos, "a key must be text; quote it");
    }
    if (json_object_get(f->node, json_string_value(key)) != NULL) {
        diag_set(ps->d, "the key \"%.80s\" stands here twice", json_string_value(key));
        json_decref(key);
        return fail(ps, ERR_INVALID, pos, "");
    }
    f->key = mem_strdup(json_string_value(key));
    f->key_pos = pos;
    json_decref(key);
    return ERR_OK;
}

static enum err take_scalar(struct parse *ps, const yaml_event_t *ev)
{
    struct yaml_pos pos = pos_of(ev->start_mark);
    json_t *value = NULL;
    enum err err = count_nodes(ps, 1, pos);

    if (err != ERR_OK) {
        return err;
    }
    if (wants_key(ps)) {
        if (ev->data.scalar.anchor != NULL) {
            return fail(ps, ERR_INVALID, pos, "a key cannot have an anchor");
        }
        return take_key(ps, ev);
    }
    err = yaml_scalar_parse(sv_of(ev->data.scalar.value, ev->data.scalar.length),
                            ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                            (const char *)ev->data.scalar.tag, &value, ps->d);
    if (err != ERR_OK) {
        diag_at(ps->d, ps->doc->file, pos.line, pos.column);
        return err;
    }
    anchor_set(ps, (const char *)ev->data.scalar.anchor, value, 1, 0);
    return place_value(ps, value, 0, pos);
}

static enum err take_alias(struct parse *ps, const yaml_event_t *ev)
{
    struct yaml_pos pos = pos_of(ev->start_mark);
    const struct anchor *a = map_get(ps->anchors, sv_from((const char *)ev->data.alias.anchor));
    enum err err = ERR_OK;

    if (wants_key(ps)) {
        return fail(ps, ERR_INVALID, pos, "a key must be text, not an alias");
    }
    if (a == NULL) {
        return fail(ps, ERR_INVALID, pos, "an alias names no finished anchor");
    }
    if (ps->depth + a->height > YAML_DEPTH_MAX) {
        return fail(ps, ERR_LIMIT, pos, "nested too deeply");
    }
    err = count_nodes(ps, a->nodes, pos);
    return err != ERR_OK ? err : place_value(ps, json_incref(a->node), a->height, pos);
}

static enum err open_container(struct parse *ps, json_t *node, const yaml_char_t *anchor,
                               const yaml_char_t *tag, struct yaml_pos pos)
{
    const char *expected = json_is_object(node) ? "tag:yaml.org,2002:map" : "tag:yaml.org,2002:seq";
    struct frame *f = NULL;
    enum err err = ERR_OK;

    if (wants_key(ps)) {
        err = fail(ps, ERR_INVALID, pos, "a key must be text");
    } else if (tag != NULL && strcmp((const char *)tag, expected) != 0) {
        err = fail(ps, ERR_INVALID, pos, "the tag is unknown or does not fit the value");
    } else if (ps->depth == YAML_DEPTH_MAX) {
        err = fail(ps, ERR_LIMIT, pos, "nested too deeply");
    } else {
        err = count_nodes(ps, 1, pos);
    }
    if (err != ERR_OK) {
        json_decref(node);
        return err;
    }
    f = &ps->stack[ps->depth++];
    *f = (struct frame){ .node = node, .nodes_before = ps->nodes - 1 };
    f->anchor = anchor == NULL ? NULL : mem_strdup((const char *)anchor);
    return ERR_OK;
}

/* Members of from that f has not got itself. */
static enum err merge_object(struct parse *ps, struct frame *f, json_t *from)
{
    const char *key = NULL;
    json_t *value = NULL;

    if (!json_is_object(from)) {
        return fail(ps, ERR_INVALID, f->merge_pos, "<< takes a mapping or a list of mappings");
    }
    json_object_foreach(from, key, value)
    {
        if (json_object_get(f->node, key) == NULL) {
            child_pos_add(f, f->merge_pos);
            if (json_object_set(f->node, key, value) != 0) {
                return ERR_INTERNAL;
            }
        }
    }
    return ERR_OK;
}

static enum err merge(struct parse *ps, struct frame *f)
{
    enum err err = ERR_OK;
    size_t i = 0;

    if (f->merge == NULL) {
        return ERR_OK;
    }
    if (!json_is_array(f->merge)) {
        return merge_object(ps, f, f->merge);
    }
    for (i = 0; i < json_array_size(f->merge) && err == ERR_OK; i++) {
        err = merge_object(ps, f, json_array_get(f->merge, i));
    }
    return err;
}

static void keep_places(struct yaml_doc *doc, struct frame *f)
{
    if (f->count == 0) {
        return;
    }
    if (doc->place_count == doc->place_cap) {
        doc->place_cap = doc->place_cap == 0 ? 64 : doc->place_cap * 2;
        doc->places = mem_realloc(doc->places, doc->place_cap, sizeof(*doc->places));
    }
    doc->places[doc->place_count++] =
        (struct place){ .node = f->node, .children = TAKE(f->children), .count = f->count };
}

static enum err close_container(struct parse *ps, struct yaml_pos start)
{
    struct frame *f = &ps->stack[ps->depth - 1];
    json_t *node = NULL;
    unsigned height = 0;
    enum err err = merge(ps, f);

    if (err != ERR_OK) {
        return err;
    }
    if (f->merge != NULL && json_array_append(ps->doc->merged, f->merge) != 0) {
        return ERR_INTERNAL;
    }
    node = json_incref(f->node);
    height = f->height + 1;
    keep_places(ps->doc, f);
    anchor_set(ps, f->anchor, node, ps->nodes - f->nodes_before, height);
    frame_deinit(f);
    ps->depth--;
    return place_value(ps, node, height, start);
}

static enum err take_event(struct parse *ps, const yaml_event_t *ev, struct yaml_pos *starts)
{
    struct yaml_pos pos = pos_of(ev->start_mark);

    switch (ev->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (!ps->doc->empty) {
            return fail(ps, ERR_UNSUPPORTED, pos, "a second document starts here; one is allowed");
        }
        ps->doc->empty = false;
        return ERR_OK;
    case YAML_SCALAR_EVENT:
        return take_scalar(ps, ev);
    case YAML_ALIAS_EVENT:
        return take_alias(ps, ev);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        if (ps->depth < YAML_DEPTH_MAX) {
            starts[ps->depth] = pos;
        }
        return ev->type == YAML_SEQUENCE_START_EVENT
                   ? open_container(ps, json_array(), ev->data.sequence_start.anchor,
                                    ev->data.sequence_start.tag, pos)
                   : open_container(ps, json_object(), ev->data.mapping_start.anchor,
                                    ev->data.mapping_start.tag, pos);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_container(ps, starts[ps->depth - 1]);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    default:
        return ERR_OK;
    }
}

/* The place in the text as it was before lines were left out. */
static void move_mark(const struct parse *ps, yaml_mark_t *mark)
{
    size_t from = 0;
    size_t to = ps->n_gaps; /* gaps[from - 1] is the last in front of the mark */

    while (from < to) {
        size_t mid = from + (to - from) / 2;

        if ((size_t)ps->gaps[mid].line <= mark->line + 1) {
            from = mid + 1;
        } else {
            to = mid;
        }
    }
    mark->line += from == 0 ? 0 : (size_t)ps->gaps[from - 1].lines;
}

static enum err syntax_error(struct parse *ps, yaml_parser_t *parser)
{
    move_mark(ps, &parser->problem_mark);
    diag_set(ps->d, "not YAML: %s%s%s", parser->problem == NULL ? "unreadable" : parser->problem,
             parser->context == NULL ? "" : " ", parser->context == NULL ? "" : parser->context);
    diag_at(ps->d, ps->doc->file, (int)parser->problem_mark.line + 1,
            (int)parser->problem_mark.column + 1);
    return ERR_INVALID;
}

static enum err parse_events(struct parse *ps, yaml_parser_t *parser)
{
    struct yaml_pos starts[YAML_DEPTH_MAX];
    enum err err = ERR_OK;
    bool done = false;

    while (err == ERR_OK && !done) {
        yaml_event_t ev;

        if (yaml_parser_parse(parser, &ev) == 0) {
            return syntax_error(ps, parser);
        }
        move_mark(ps, &ev.start_mark);
        done = ev.type == YAML_STREAM_END_EVENT;
        err = take_event(ps, &ev, starts);
        yaml_event_delete(&ev);
    }
    return err;
}

static int place_cmp(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct place *)a)->node;
    uintptr_t y = (uintptr_t)((const struct place *)b)->node;

    return x < y ? -1 : x > y;
}

enum err yaml_parse_gaps(struct sv text, const char *file, const struct yaml_gap *gaps,
                         size_t n_gaps, struct yaml_doc **doc_out, struct diag *d)
{
    CLEANUP(yaml_doc_free) struct yaml_doc *doc = MEM_NEW(struct yaml_doc);
    struct parse ps = { .doc = doc, .d = d, .gaps = gaps, .n_gaps = n_gaps };
    yaml_parser_t parser;
    enum err err = ERR_OK;

    doc->file = mem_strdup(file == NULL ? "" : file);
    doc->merged = json_array();
    doc->empty = true;
    if (text.n > YAML_BYTES_MAX) {
        return fail(&ps, ERR_LIMIT, (struct yaml_pos){ 0 }, "the text is too long");
    }
    if (yaml_parser_initialize(&parser) == 0) {
        return fail(&ps, ERR_INTERNAL, (struct yaml_pos){ 0 }, "no memory for the YAML parser");
    }
    /* UTF-8 only: guessing UTF-16 would let one file mean two things. */
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(text.p == NULL ? "" : text.p),
                                 text.n);
    ps.anchors = map_new();
    err = parse_events(&ps, &parser);
    parse_deinit(&ps);
    yaml_parser_delete(&parser);
    if (err != ERR_OK) {
        return err;
    }
    if (doc->root == NULL) {
        doc->root = json_null();
    }
    if (doc->place_count != 0) {
        qsort(doc->places, doc->place_count, sizeof(*doc->places), place_cmp);
    }
    doc->nodes = ps.nodes;
    *doc_out = TAKE(doc);
    return ERR_OK;
}

enum err yaml_parse(struct sv text, const char *file, struct yaml_doc **doc_out, struct diag *d)
{
    return yaml_parse_gaps(text, file, NULL, 0, doc_out, d);
}

void yaml_doc_free(struct yaml_doc **doc)
{
    size_t i = 0;

    if (*doc == NULL) {
        return;
    }
    for (i = 0; i < (*doc)->place_count; i++) {
        mem_free(&(*doc)->places[i].children);
    }
    mem_free(&(*doc)->places);
    json_decref((*doc)->root);
    json_decref((*doc)->merged);
    mem_free(&(*doc)->file);
    mem_free(doc);
}

json_t *yaml_root(const struct yaml_doc *doc)
{
    return doc->root;
}

const char *yaml_file(const struct yaml_doc *doc)
{
    return doc->file;
}

bool yaml_is_empty(const struct yaml_doc *doc)
{
    return doc->empty;
}

bool yaml_is_linked(const struct yaml_doc *doc)
{
    return doc->linked;
}

size_t yaml_nodes(const struct yaml_doc *doc)
{
    return doc->nodes;
}

struct yaml_pos yaml_item_pos(const struct yaml_doc *doc, const json_t *parent, size_t index)
{
    struct place key = { .node = parent };
    const struct place *p = NULL;

    if (doc->place_count != 0) {
        p = bsearch(&key, doc->places, doc->place_count, sizeof(*doc->places), place_cmp);
    }
    return p == NULL || index >= p->count ? (struct yaml_pos){ 0 } : p->children[index];
}

struct yaml_pos yaml_member_pos(const struct yaml_doc *doc, const json_t *object, const char *key)
{
    /* the iterator wants it writable, and does not write */
    const union {
        const json_t *in;
        json_t *out;
    } same = { .in = object };

    const char *k = NULL;
    const json_t *v = NULL;
    size_t index = 0;

    /* jansson iterates in the order of insertion, which is that of the places. */
    json_object_foreach(same.out, k, v)
    {
        if (strcmp(k, key) == 0) {
            return yaml_item_pos(doc, object, index);
        }
        index++;
    }
    return (struct yaml_pos){ 0 };
}
