/* config_splice: reading a file again in which one place has changed. Of 10,000 routes the parser then
 * sees the few around that place, and the configuration takes the others over from the one before.
 *
 * Why that is safe. The parser is an automaton, and at the dash of each item of one block sequence it is
 * in the same state. So whole items can be left out of the text without changing what the rest means,
 * where it is sure that the parser stands at such a dash on both sides:
 *
 *   in front of the change   the bytes from the beginning are those that led it there before;
 *   behind it                the bytes are the same, and the first item behind the change, which is
 *                            never left out, was found where its dash stands.
 *
 * What else a route depends on must be as it was: the bytes in front of and behind all routes and the
 * environment, which hold every global setting; and there are no anchors, by which one part of a text
 * speaks of another. Routes that are more than their text (files, secrets) are never left out.
 * Splicing only ever succeeds: a mistake, or any doubt, and the file is read whole, which is also where
 * every refusal comes from. Private to common/config/. One thread. */
#pragma once

#include "common/base.h"
#include "common/buf.h"
#include "common/sv.h"
#include "common/yaml.h"

struct config_box;
struct config_reader;

/* A route in the text. */
struct config_item {
    size_t at;  /* where the line of its dash begins */
    int line;   /* of the dash and the value behind it, from 1 */
    int column; /* of the value, from 1 */
    bool again; /* it says more than stands here */
};

/* Where the routes stand. */
struct config_layout {
    char *text; /* wiped when it goes */
    size_t n_text;
    struct config_item *items;
    size_t n;
    size_t end;   /* behind the last one: the next key of the file, or n_text */
    int end_line; /* of that key; 0: none */
    size_t nodes; /* of the whole document, or more */
};

/* What is left out, and what remains. Old routes [0, first) stand in front of the change, [last, n) behind
 * it. */
struct config_splice {
    const struct config_box *before;
    const struct config_layout *old;
    size_t first;
    size_t last;
    size_t new_end;  /* of the change in the new text */
    int more_lines;  /* that it has, or fewer */
    struct buf rest; /* the text without what is left out */
    struct yaml_gap *gaps;
    size_t n_gaps;
    size_t n_changed; /* routes in place of [first, last); set by config_splice_fits */
};

/* False: the file is to be read whole. s borrows before, whose text is compared. */
bool config_splice_plan(const struct config_box *before, struct sv text, struct config_splice *s);
void config_splice_deinit(struct config_splice *s);
/* Whether doc, of s->rest, came out as expected. */
bool config_splice_fits(struct config_splice *s, const struct yaml_doc *doc);
/* How many routes there are now; which was old (SIZE_MAX: a new one), and whether it has to be read. */
size_t config_splice_count(const struct config_splice *s);
size_t config_splice_old(const struct config_splice *s, size_t i);
bool config_splice_is_read(const struct config_splice *s, size_t i);

/* Where an old route's line is now. */
int config_splice_line(const struct config_splice *s, size_t old);

/* The layout of what was read, for the next time; NULL: it does not suit. s: NULL where text was read
 * whole. */
struct config_layout *config_layout_new(const struct config_reader *r, struct sv text,
                                        const struct yaml_doc *doc);
void config_layout_free(struct config_layout **layout);
