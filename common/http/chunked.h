/* http/chunked: the chunked transfer coding (RFC 9112 §7.1), strict: sizes are 1 to 15 hexadecimal
 * digits without leading zeros, lines end in CRLF, nothing stands between size and CRLF but an
 * extension, which is checked, bounded and dropped. The forwarder writes chunks of its own, so a
 * peer's way of writing them never reaches the other side. One thread; no allocation.
 *
 *     struct http_field trailers[HTTP_TRAILERS_MAX];
 *     struct http_chunked c;
 *
 *     http_chunked_init(&c, &opts);
 *     loop: step = http_chunked_next(&c, &in, &data);
 *         HTTP_DATA   data is payload, a part of in; in has moved on: call again
 *         HTTP_MORE   needs more bytes. What is left in in (part of the trailer section) must be
 *                     offered again, with more behind it
 *         HTTP_DONE   the body ended; in begins at the next message; c.trailer.fields[0..n)
 *         HTTP_ERROR  c.fault says why; the connection is lost  */
#pragma once

#include "common/base.h"
#include "common/http/head.h"
#include "common/sv.h"

enum { HTTP_TRAILERS_MAX = 32, HTTP_CHUNK_EXTENSION_MAX = 256, HTTP_CHUNK_HEAD_SIZE = 20 };

enum http_chunk_state {
    HTTP_CHUNK_FAILED = 0,
    HTTP_CHUNK_SIZE,      /* at the first digit of a size */
    HTTP_CHUNK_DIGITS,    /* within it */
    HTTP_CHUNK_EXTENSION, /* behind ';' */
    HTTP_CHUNK_QUOTED,    /* in a quoted string of an extension */
    HTTP_CHUNK_ESCAPED,   /* behind its backslash */
    HTTP_CHUNK_SIZE_LF,   /* CR seen */
    HTTP_CHUNK_BYTES,     /* payload */
    HTTP_CHUNK_CR,        /* behind the payload */
    HTTP_CHUNK_LF,
    HTTP_CHUNK_TRAILER,
    HTTP_CHUNK_ENDED
};

struct http_chunked_opts {
    struct http_field *trailers; /* array for trailer fields */
    size_t cap;
    uint32_t trailer_bytes;             /* 0: 8 KiB */
    uint64_t max_bytes;                 /* payload in all; 0: no bound */
    const struct http_name_set *refuse; /* names no trailer may have, beside HTTP_C_NO_TRAILER */
    enum http_underscores underscores;
};

struct http_chunked {
    enum http_chunk_state state;
    enum http_fault fault;
    uint64_t left;  /* of this chunk */
    uint64_t total; /* payload so far */
    uint64_t max_bytes;
    uint32_t digits;
    uint32_t extension_bytes; /* of all chunks: bounded by 16 * HTTP_CHUNK_EXTENSION_MAX */
    uint32_t line_bytes;      /* extension bytes of this chunk */
    char last;                /* byte before, in an extension */
    const struct http_name_set *refuse;
    struct http_rules rules;
    struct http_head trailer;
};

void http_chunked_init(struct http_chunked *c, const struct http_chunked_opts *opts);
MUST_CHECK enum http_step http_chunked_next(struct http_chunked *c, struct sv *in,
                                            struct sv *data_out);
/* Writes the line in front of a chunk of n > 0 bytes ("1f4\r\n") and returns it; behind the bytes
 * comes "\r\n", at the end of the body HTTP_CHUNK_LAST. */
struct sv http_chunk_head(char out[HTTP_CHUNK_HEAD_SIZE], uint64_t n);

#define HTTP_CHUNK_LAST SV("0\r\n\r\n")
