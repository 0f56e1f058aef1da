/* proxy_emit: writes one head, as HTTP/1 text or as the fields of HTTP/2, so that whoever decides what
 * a head says need not know the version. Values may point anywhere until _h1's text is whole, or the
 * h2 head is submitted. A value with CR, LF or NUL, too many fields or too much text mark the head as
 * failed, and it is never sent. Owned by one worker. Sources: RFC 9112 §3-5, RFC 9113 §8. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/buf.h"
#include "common/config/config.h"
#include "common/http/head.h"
#include "common/sv.h"

enum { PROXY_EMIT_FIELDS_MAX = 1024, PROXY_FIELDS_MAX = 32 };

struct proxy_emit {
    struct buf *text;    /* HTTP/1; NULL: HTTP/2 */
    struct arena *arena; /* HTTP/2: holds nv, and texts made on the way */
    nghttp2_nv *nv;
    size_t n;
    size_t cap;
    bool failed;
};

void proxy_emit_h1(struct proxy_emit *e, struct buf *text);
void proxy_emit_h2(struct proxy_emit *e, struct arena *arena);
/* The start line, or its pseudo fields; target: path[?query]. */
void proxy_emit_request(struct proxy_emit *e, struct sv method, struct sv target,
                        struct sv authority, bool tls);
void proxy_emit_status(struct proxy_emit *e, unsigned status, struct sv reason);
void proxy_emit_field(struct proxy_emit *e, struct sv name, struct sv value);
/* value is known to hold no CR, LF or NUL: whoever took it in from outside has looked. */
void proxy_emit_clean(struct proxy_emit *e, struct sv name, struct sv value);
/* The same for a value that no other head will have, such as an id: HTTP/2 gives it no place in the table of
 * fields to come, where it would drive out those that do come again (RFC 7541 §6.2.3). */
void proxy_emit_unique(struct proxy_emit *e, struct sv name, struct sv value);
/* lines: pairs as an emitter of HTTP/1 wrote them. */
void proxy_emit_pairs(struct proxy_emit *e, const struct config_pairs *pairs, struct sv lines);
/* n neighbours of a parsed head, unchanged. */
void proxy_emit_fields(struct proxy_emit *e, const struct http_field *fields, size_t n);
void proxy_emit_u64(struct proxy_emit *e, struct sv name, uint64_t value);
/* The end of the head; false: it failed. */
MUST_CHECK bool proxy_emit_end(struct proxy_emit *e);

/* A few fields on their way to a head; texts belong to the caller. */
struct proxy_fields {
    struct config_pair v[PROXY_FIELDS_MAX];
    size_t n;
};

void proxy_fields_add(struct proxy_fields *fields, struct sv name, struct sv value);
/* What every page of ours says (common/http/page.h) beside its type. */
void proxy_fields_add_page(struct proxy_fields *fields, struct arena *arena);
