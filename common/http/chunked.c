#include "common/http/chunked.h"

#include "common/http/chars.h"

enum { DIGITS_MAX = 15, TRAILER_BYTES = 8192, EXTENSIONS_MAX = 16 * HTTP_CHUNK_EXTENSION_MAX };

void http_chunked_init(struct http_chunked *c, const struct http_chunked_opts *opts)
{
    *c = (struct http_chunked){ .state = HTTP_CHUNK_SIZE,
                                .max_bytes = opts->max_bytes,
                                .refuse = opts->refuse };
    c->rules.head_bytes = opts->trailer_bytes == 0 ? TRAILER_BYTES : opts->trailer_bytes;
    c->rules.underscores = opts->underscores;
    c->rules.fields = HTTP_TRAILERS_MAX;
    http_head_init(&c->trailer, HTTP_TRAILER, NULL, opts->trailers, opts->cap);
}

static enum http_chunk_state bad(struct http_chunked *c, enum http_fault fault)
{
    c->fault = fault;
    return HTTP_CHUNK_FAILED;
}

static enum http_chunk_state on_digit(struct http_chunked *c, char ch)
{
    if (!http_char_is(ch, HTTP_CH_HEX) || (c->digits > 0 && c->left == 0)) {
        return bad(c, HTTP_FAULT_CHUNK); /* "00" and "0f" are read in more than one way */
    }
    if (++c->digits > DIGITS_MAX) {
        return bad(c, HTTP_FAULT_CHUNK_LARGE);
    }
    c->left = c->left * 16 + http_char_hex(ch);
    return HTTP_CHUNK_DIGITS;
}

/* Inside "…". */
static enum http_chunk_state on_quoted(struct http_chunked *c, char ch)
{
    if (!http_char_is(ch, HTTP_CH_VALUE)) {
        return bad(c, HTTP_FAULT_CHUNK);
    }
    if (c->state == HTTP_CHUNK_ESCAPED) {
        return HTTP_CHUNK_QUOTED;
    }
    if (ch == '"') {
        return HTTP_CHUNK_EXTENSION;
    }
    return ch == '\\' ? HTTP_CHUNK_ESCAPED : HTTP_CHUNK_QUOTED;
}

/* ";" name [ "=" ( token / quoted-string ) ]. Blanks around "=" and ";" (BWS) are a sender's error
 * that a recipient may refuse. */
static enum http_chunk_state on_extension(struct http_chunked *c, char ch)
{
    bool behind_separator = c->last == ';' || c->last == '=';
    char last = c->last;

    c->last = ch;
    if (++c->line_bytes > HTTP_CHUNK_EXTENSION_MAX || ++c->extension_bytes > EXTENSIONS_MAX) {
        return bad(c, HTTP_FAULT_CHUNK_LARGE);
    }
    if (c->state != HTTP_CHUNK_EXTENSION) {
        return on_quoted(c, ch);
    }
    if (ch == '"' && last == '=') {
        return HTTP_CHUNK_QUOTED;
    }
    if (http_char_is(ch, HTTP_CH_TOKEN) && last != '"') {
        return HTTP_CHUNK_EXTENSION;
    }
    if (behind_separator || (ch == '=' && last == '"')) {
        return bad(c, HTTP_FAULT_CHUNK); /* an empty name or value */
    }
    if (ch == '\r') {
        return HTTP_CHUNK_SIZE_LF;
    }
    return ch == '=' || ch == ';' ? HTTP_CHUNK_EXTENSION : bad(c, HTTP_FAULT_CHUNK);
}

static enum http_chunk_state on_size_end(struct http_chunked *c)
{
    if (c->left == 0) {
        c->trailer.rules = &c->rules; /* here, because *c may have been copied since init */
        return HTTP_CHUNK_TRAILER;
    }
    if (c->max_bytes != 0 && c->left > c->max_bytes - c->total) {
        return bad(c, HTTP_FAULT_CHUNK_LARGE);
    }
    return HTTP_CHUNK_BYTES;
}

/* Every state that eats one byte. */
static enum http_chunk_state step(struct http_chunked *c, char ch)
{
    switch (c->state) {
    case HTTP_CHUNK_SIZE:
        c->left = 0;
        c->digits = 0;
        c->line_bytes = 0;
        return on_digit(c, ch);
    case HTTP_CHUNK_DIGITS:
        if (ch == '\r') {
            return HTTP_CHUNK_SIZE_LF;
        }
        c->last = ch;
        return ch == ';' ? HTTP_CHUNK_EXTENSION : on_digit(c, ch);
    case HTTP_CHUNK_EXTENSION:
    case HTTP_CHUNK_QUOTED:
    case HTTP_CHUNK_ESCAPED:
        return on_extension(c, ch);
    case HTTP_CHUNK_SIZE_LF:
        return ch == '\n' ? on_size_end(c) : bad(c, HTTP_FAULT_LINE_END);
    case HTTP_CHUNK_CR:
        return ch == '\r' ? HTTP_CHUNK_LF : bad(c, HTTP_FAULT_CHUNK);
    case HTTP_CHUNK_LF:
        return ch == '\n' ? HTTP_CHUNK_SIZE : bad(c, HTTP_FAULT_CHUNK);
    case HTTP_CHUNK_FAILED:
    case HTTP_CHUNK_BYTES:
    case HTTP_CHUNK_TRAILER:
    case HTTP_CHUNK_ENDED:
        break;
    }
    return bad(c, HTTP_FAULT_CHUNK);
}

static enum http_step take_bytes(struct http_chunked *c, struct sv *in, struct sv *data_out)
{
    size_t n = (size_t)MIN((uint64_t)in->n, c->left);

    if (n == 0) {
        return HTTP_MORE;
    }
    *data_out = sv_head(*in, n);
    *in = sv_from_at(*in, n);
    c->left -= n;
    c->total += n;
    if (c->left == 0) {
        c->state = HTTP_CHUNK_CR;
    }
    return HTTP_DATA;
}

static enum http_step take_trailer(struct http_chunked *c, struct sv *in)
{
    enum http_step told = in->n == 0 ? HTTP_MORE : http_head_parse(&c->trailer, *in);
    uint32_t i = 0;

    if (told == HTTP_ERROR) {
        c->state = bad(c, c->trailer.fault);
    }
    if (told != HTTP_DONE) {
        return told;
    }
    for (i = 0; i < c->trailer.n; i++) {
        if (http_name_set_has(c->refuse, c->trailer.fields[i].name)) {
            c->state = bad(c, HTTP_FAULT_TRAILER);
            return HTTP_ERROR;
        }
    }
    *in = sv_from_at(*in, c->trailer.size);
    c->state = HTTP_CHUNK_ENDED;
    return HTTP_DONE;
}

enum http_step http_chunked_next(struct http_chunked *c, struct sv *in, struct sv *data_out)
{
    for (;;) {
        switch (c->state) {
        case HTTP_CHUNK_FAILED:
            return HTTP_ERROR;
        case HTTP_CHUNK_ENDED:
            return HTTP_DONE;
        case HTTP_CHUNK_BYTES:
            return take_bytes(c, in, data_out);
        case HTTP_CHUNK_TRAILER:
            return take_trailer(c, in);
        case HTTP_CHUNK_SIZE:
        case HTTP_CHUNK_DIGITS:
        case HTTP_CHUNK_EXTENSION:
        case HTTP_CHUNK_QUOTED:
        case HTTP_CHUNK_ESCAPED:
        case HTTP_CHUNK_SIZE_LF:
        case HTTP_CHUNK_CR:
        case HTTP_CHUNK_LF:
            break;
        }
        if (in->n == 0) {
            return HTTP_MORE;
        }
        c->state = step(c, in->p[0]);
        *in = sv_from_at(*in, 1);
    }
}

struct sv http_chunk_head(char out[HTTP_CHUNK_HEAD_SIZE], uint64_t n)
{
    static const char hex[] = "0123456789abcdef";
    size_t i = HTTP_CHUNK_HEAD_SIZE;

    out[--i] = '\n';
    out[--i] = '\r';
    do {
        out[--i] = hex[n % 16];
        n /= 16;
    } while (n != 0);
    return sv_of(out + i, HTTP_CHUNK_HEAD_SIZE - i);
}
