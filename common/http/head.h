/* http/head: one strict, incremental, zero-copy parser for request heads, response heads and
 * trailer sections (RFC 9112; refuses where the RFC lets a recipient repair). No allocation: the
 * caller supplies the field array and owns the bytes. One thread at a time.
 *
 *     struct http_field fields[HTTP_FIELDS_DEFAULT];
 *     struct http_head head;
 *
 *     http_head_init(&head, HTTP_REQUEST, &rules, fields, ARRAY_LEN(fields));
 *     for each read:  step = http_head_parse(&head, all_bytes_since_the_head_began);
 *         HTTP_MORE   read on; the bytes may move between calls, none may change or vanish
 *         HTTP_DONE   head.size bytes belong to the head, the body begins behind them; every sv
 *                     points into the bytes of this last call
 *         HTTP_ERROR  head.fault says why; answer http_fault_status() and close the connection
 *
 * A slow sender costs no more than a fast one: every byte is looked at a constant number of times. */
#pragma once

#include "common/base.h"
#include "common/http/method.h"
#include "common/http/name.h"
#include "common/http/status.h"
#include "common/http/url.h"
#include "common/sv.h"

enum http_step { HTTP_ERROR = 0, HTTP_MORE, HTTP_DATA, HTTP_DONE };

enum http_kind { HTTP_REQUEST = 0, HTTP_RESPONSE, HTTP_TRAILER };

enum http_underscores {
    HTTP_UNDERSCORE_REJECT = 0, /* headers_with_underscores_action: reject_request */
    HTTP_UNDERSCORE_DROP,       /* drop_header: such fields get HTTP_F_DROP */
    HTTP_UNDERSCORE_ALLOW
};

enum { HTTP_FIELDS_DEFAULT = 256, HTTP_FIELDS_MAX = 1000 };

/* Zero in a number means the default. Shared by many heads; immutable. */
struct http_rules {
    uint32_t head_bytes;               /* whole head, 64 KiB */
    uint32_t line_bytes;               /* start line, 16 KiB */
    uint32_t fields;                   /* 256, and never more than the array holds */
    enum http_underscores underscores; /* for requests; responses may hold underscores */
};

enum {
    HTTP_F_HOP = 1,        /* hop-by-hop by definition or named in Connection: do not forward */
    HTTP_F_DROP = 2,       /* refused by a drop rule: do not forward */
    HTTP_F_UNDERSCORE = 4, /* the name holds '_' */
    HTTP_F_LINE = 8        /* it stands in its head as we would write it: http_field_line */
};

/* flags & HTTP_F_NOT_FORWARDED: leave the field out when forwarding. */
enum { HTTP_F_NOT_FORWARDED = HTTP_F_HOP | HTTP_F_DROP };

struct http_field {
    struct sv name;  /* letter case as received */
    struct sv value; /* without blanks around it; may hold bytes >= 0x80 */
    uint16_t id;     /* enum http_name */
    uint16_t flags;  /* HTTP_F_* */
};

enum http_framing {
    HTTP_BODY_NONE = 0,
    HTTP_BODY_LENGTH,     /* content_length bytes */
    HTTP_BODY_CHUNKED,    /* common/http/chunked.h */
    HTTP_BODY_UNTIL_CLOSE /* responses only */
};

enum http_form {
    HTTP_FORM_NONE = 0,
    HTTP_FORM_ORIGIN,    /* /path?query */
    HTTP_FORM_ABSOLUTE,  /* http://host/path?query */
    HTTP_FORM_AUTHORITY, /* host:port, CONNECT only */
    HTTP_FORM_ASTERISK   /* *, OPTIONS only */
};

struct http_head {
    /* the message, valid after HTTP_DONE */
    struct http_field *fields;
    uint32_t n;
    size_t size; /* bytes of the head with its final empty line */
    enum http_method method;
    struct sv method_text;
    struct sv target; /* as received */
    enum http_form form;
    enum http_host_kind host_kind;
    struct sv host;   /* the Host field, as received; host grammar checked */
    size_t host_n;    /* bytes of host in front of its port: http_head_authority */
    unsigned minor;   /* HTTP/1.minor: 0 or 1 */
    unsigned status;  /* responses */
    struct sv reason; /* responses; may be empty */
    enum http_framing framing;
    uint64_t content_length; /* with HTTP_BODY_LENGTH; in a response to HEAD what the server told */
    uint16_t port;           /* of host; 0: none */
    bool keep_alive;         /* this side may send another message behind this one */
    bool expect_continue;    /* Expect: 100-continue of HTTP/1.1 */
    bool upgrade;            /* HTTP/1.1, Connection: upgrade and an Upgrade field */
    bool websocket;          /* upgrade, GET, and Upgrade is exactly "websocket" */
    bool te_trailers;        /* TE: trailers and Connection: te (or gRPC's TE alone) */
    enum http_fault fault;   /* after HTTP_ERROR */

    bool http2; /* set by the caller before http_head_add: the body's end is told by frames */

    /* responses: the request's method decides on the body; set by http_head_init_response */
    enum http_method request_method;

    /* the parser's own */
    enum http_kind kind;
    const struct http_rules *rules;
    uintptr_t base; /* where the bytes stood in the last call */
    uint32_t cap;
    size_t pos;                /* start of the line that is not complete */
    size_t scan;               /* no LF before here */
    bool begun;                /* the start line is parsed */
    bool ended;                /* DONE or ERROR was told; later calls tell the same */
    uint16_t at[HTTP_H_COUNT]; /* 1 + index of the first field with that id, 0: none */
};

/* fields: cap entries, not cleared. rules NULL: all defaults. Both must outlive head. */
void http_head_init(struct http_head *head, enum http_kind kind, const struct http_rules *rules,
                    struct http_field *fields, size_t cap);
/* For the response to a request of that method. 1xx heads come one by one: after a status below
 * 200 (101 apart) call init again for the next one. */
void http_head_init_response(struct http_head *head, const struct http_rules *rules,
                             enum http_method request_method, struct http_field *fields,
                             size_t cap);
MUST_CHECK enum http_step http_head_parse(struct http_head *head, struct sv bytes);

/* host taken apart. */
static inline struct http_authority http_head_authority(const struct http_head *head)
{
    return (struct http_authority){ .kind = head->host_kind,
                                    .host = sv_head(head->host, head->host_n),
                                    .port = head->port };
}

/* "name: value CR LF" as it stands in the head, for a field with HTTP_F_LINE. */
static inline struct sv http_field_line(const struct http_field *f)
{
    return sv_of(f->name.p, f->name.n + f->value.n + 4);
}

/* First field of that id, NULL where there is none. */
const struct http_field *http_head_get(const struct http_head *head, enum http_name id);
/* Its value; the empty text where there is none. */
struct sv http_head_value(const struct http_head *head, enum http_name id);
/* First field of that name, letter case apart; the way for names without a number. */
const struct http_field *http_head_find(const struct http_head *head, struct sv name);
/* Number of fields with that id. */
size_t http_head_count(const struct http_head *head, enum http_name id);

/* For heads that come from HTTP/2 (nghttp2 has checked lower case and pseudo fields): after init set
 * http2, method, method_text, target (:path; :authority for a plain CONNECT) and host (:authority),
 * append each regular field with
 * http_head_add, then http_head_seal checks the whole. Connection-bound fields are refused there
 * (RFC 9113 §8.2.2). HTTP_FAULT_NONE, or why not. */
MUST_CHECK enum http_fault http_head_add(struct http_head *head, struct sv name, struct sv value);
MUST_CHECK enum http_fault http_head_seal(struct http_head *head);

/* True when the comma list value holds token, letter case apart. */
bool http_list_has(struct sv value, struct sv token);
/* Takes the next element of a comma list (blanks trimmed, empty ones skipped) off *list; false at
 * the end. */
bool http_list_next(struct sv *list, struct sv *element_out);
