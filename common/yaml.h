/* yaml: one YAML (or JSON) document as a json_t tree with the place of every member, so that errors
 * can name file:line:column. libyaml reads the events; the scalar rules are those of YAML 1.2 as
 * Pomerium's loader applies them: only true/True/TRUE and false/… are booleans, 17:00 is a string,
 * an unquoted full date becomes RFC 3339 text. Refused: duplicate and non-string keys, more than
 * one document, aliases that expand past YAML_NODES_MAX nodes, depth over YAML_DEPTH_MAX.
 * The result is immutable; any thread. */
#pragma once

#include <jansson.h>

#include "common/base.h"
#include "common/diag.h"
#include "common/sv.h"

enum { YAML_DEPTH_MAX = 64, YAML_NODES_MAX = 4 * 1024 * 1024, YAML_BYTES_MAX = 64 * 1024 * 1024 };

struct yaml_doc;

struct yaml_pos {
    int line;   /* from 1; 0: unknown */
    int column; /* from 1 */
};

/* file names the text in errors. ERR_INVALID, ERR_LIMIT; ERR_UNSUPPORTED: a second document. A text
 * without any document is the JSON null; yaml_is_empty tells it from a written one. NUL in texts,
 * .inf, .nan and unknown tags are refused too; << merges mappings. */
MUST_CHECK enum err yaml_parse(struct sv text, const char *file, struct yaml_doc **doc_out,
                               struct diag *d);

/* Of a text that was left out: from its line `line` on (from 1), `lines` lines in all were. Growing. */
struct yaml_gap {
    int line;
    int lines;
};

/* The same for a text out of which lines were left: places are those in the whole text. */
MUST_CHECK enum err yaml_parse_gaps(struct sv text, const char *file, const struct yaml_gap *gaps,
                                    size_t n_gaps, struct yaml_doc **doc_out, struct diag *d);
/* Not yaml_free: libyaml exports a function of that name. */
void yaml_doc_free(struct yaml_doc **doc);
json_t *yaml_root(const struct yaml_doc *doc); /* borrowed; do not change it */
bool yaml_is_empty(const struct yaml_doc *doc);
/* Whether there are anchors: then what a part of it means may stand elsewhere. */
bool yaml_is_linked(const struct yaml_doc *doc);
size_t yaml_nodes(const struct yaml_doc *doc); /* what counts for YAML_NODES_MAX */
const char *yaml_file(const struct yaml_doc *doc);
/* Where the key of a member, or an item, stands. (0,0) where parent is not of doc. */
struct yaml_pos yaml_member_pos(const struct yaml_doc *doc, const json_t *object, const char *key);
/* index: of an item, or of a member in the order in which jansson iterates. */
struct yaml_pos yaml_item_pos(const struct yaml_doc *doc, const json_t *parent, size_t index);
