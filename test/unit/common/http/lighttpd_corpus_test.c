/* Every case of shared/corpora/http/lighttpd_request_cases.json is judged. What lighttpd answers with
 * 4xx or 5xx for its grammar we refuse with the same status or the one in stricter; what it accepts
 * we accept, or the case stands in stricter. Statuses that come from its document root, its access
 * rules or its configuration (3xx, 401, 403, 404, 413, 416, 502) say nothing about grammar: such a
 * request must parse. */
#include <string.h>

#include "common/arena.h"
#include "common/http/canon.h"
#include "common/http/chunked.h"
#include "common/http/head.h"
#include "test/unit/common/http/corpus.h"

#define CASES "../shared/corpora/http/lighttpd_request_cases.json"

struct judged {
    const char *desc; /* beginning of the case's description */
    enum http_fault fault;
    const char *why;
};

static const struct judged stricter[] = {
    { "#1232 - duplicate headers with line-wrapping", HTTP_FAULT_FOLD, "folded lines" },
    { "line-folding", HTTP_FAULT_FOLD, "folded lines" },
    { "absolute-uri in request-line (without Host)", HTTP_FAULT_HOST_MISSING,
      "HTTP/1.1 demands Host in every form (RFC 9112 3.2)" },
    { "Duplicate If-Modified-Since headers", HTTP_FAULT_NONE,
      "ours to forward, not to read: no decision hangs on it" },
    { "reject duplicated If-Modified-Since if not matching", HTTP_FAULT_NONE,
      "ours to forward, not to read: no decision hangs on it" },
    { "GET with Content-Length", HTTP_FAULT_NONE, "search engines take bodies with GET" },
    { "HEAD with Content-Length", HTTP_FAULT_NONE, "framed clearly, so no danger" },
    { "invalid request-line: method slash space proto", HTTP_FAULT_START_LINE,
      "a grammar fault counts before an unknown method: 400" },
};

static bool met[ARRAY_LEN(stricter)];

struct outcome {
    enum http_fault fault;
    bool complete;
};

static enum http_fault check_body(const struct http_head *head, struct sv in)
{
    struct http_field trailers[HTTP_TRAILERS_MAX];
    struct http_chunked_opts opts = { .trailers = trailers, .cap = ARRAY_LEN(trailers) };
    struct http_chunked chunked;
    struct sv data = { 0 };
    enum http_step step = HTTP_DATA;

    if (head->framing != HTTP_BODY_CHUNKED) {
        return HTTP_FAULT_NONE;
    }
    http_chunked_init(&chunked, &opts);
    while (step == HTTP_DATA) {
        step = http_chunked_next(&chunked, &in, &data);
    }
    return chunked.fault;
}

static struct outcome run(struct sv bytes)
{
    struct http_field fields[64];
    struct outcome o = { 0 };
    struct http_head head;
    struct http_request req;
    struct arena arena;
    enum http_step step = HTTP_MORE;

    arena_init(&arena);
    http_head_init(&head, HTTP_REQUEST, NULL, fields, ARRAY_LEN(fields));
    step = http_head_parse(&head, bytes);
    o.complete = step == HTTP_DONE;
    o.fault = head.fault;
    if (step == HTTP_DONE) {
        o.fault = http_canon_request(&head, NULL, &arena, &req);
        if (o.fault == HTTP_FAULT_NONE) {
            o.fault = check_body(&head, sv_from_at(bytes, head.size));
        }
    }
    arena_deinit(&arena);
    return o;
}

/* We route by host, so HTTP/1.0 without Host is refused too; with one put in, the rest is judged.
 * A case that is about the missing Host has it said in its description. */
static struct outcome run_with_host(struct buf *bytes)
{
    struct outcome o = run(buf_sv(bytes));
    struct sv all = buf_sv(bytes);
    size_t line = sv_search(all, SV("\r\n"));
    struct sv scheme = { 0 };
    struct sv host = SV("h");

    if (o.fault != HTTP_FAULT_HOST_MISSING || line == SIZE_MAX) {
        return o;
    }
    scheme = sv_head(all, line);
    if (sv_search(scheme, SV("://")) != SIZE_MAX) {
        host = sv_from_at(scheme, sv_search(scheme, SV("://")) + 3);
        host = sv_cut(&host, '/');
    }
    corpus_add_host(bytes, line + 2, host);
    return run(buf_sv(bytes));
}

static const struct judged *find_judged(const char *desc)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(stricter); i++) {
        if (strncmp(stricter[i].desc, desc, strlen(stricter[i].desc)) == 0) {
            met[i] = true;
            return &stricter[i];
        }
    }
    return NULL;
}

static bool judge_case(const json_t *c)
{
    const char *desc = corpus_text(c, "desc");
    const json_t *status = json_object_get(c, "lighttpd_status");
    const struct judged *j = find_judged(desc);
    bool about_host = strcmp(desc, "Host missing") == 0 || strstr(desc, "without Host") != NULL;
    struct buf bytes;
    struct outcome o;
    bool fine = false;

    corpus_decode(c, &bytes);
    o = about_host ? run(buf_sv(&bytes)) : run_with_host(&bytes);
    if (j != NULL) {
        fine = o.fault == j->fault;
    } else if (json_is_integer(status)) {
        fine = o.fault != HTTP_FAULT_NONE &&
               http_fault_status(o.fault) == (unsigned)json_integer_value(status);
    } else {
        fine = o.fault == HTTP_FAULT_NONE && o.complete;
    }
    if (!fine) {
        print_error("%s: lighttpd %lld, we %s\n%s\n", desc, (long long)json_integer_value(status),
                    http_fault_name(o.fault), buf_cstr(&bytes));
    }
    buf_deinit(&bytes);
    return fine;
}

static void every_parser_case_is_judged(void **state)
{
    (void)state;
    assert_int_equal(corpus_judge(CASES, "cases", 75, judge_case), 0);
    for (size_t i = 0; i < ARRAY_LEN(stricter); i++) {
        if (!met[i]) {
            print_error("no case begins with: %s\n", stricter[i].desc);
        }
        assert_true(met[i]);
    }
}

/* Server cases: LF stands for CRLF, \r \n \xHH are written out. */
static void to_wire(const char *lines, struct buf *out)
{
    size_t i = 0;

    buf_init(out, 1 << 20);
    for (i = 0; lines[i] != '\0'; i++) {
        if (lines[i] == '\n') {
            buf_add_str(out, "\r\n");
        } else if (lines[i] == '\\' && (lines[i + 1] == 'r' || lines[i + 1] == 'n')) {
            buf_add_char(out, lines[++i] == 'r' ? '\r' : '\n');
        } else if (strncmp(lines + i, "\\x80", 4) == 0) {
            buf_add_char(out, (char)0x80);
            i += 3;
        } else {
            buf_add_char(out, lines[i]);
        }
    }
    buf_add_str(out, "\r\n\r\n");
}

/* Server cases where our answer is another one: found by a part of the request. */
struct server_judged {
    const char *part;
    enum http_fault fault;
    const char *why;
};

static const struct server_judged server_rows[] = {
    { "Authorization: Basic \\x80", HTTP_FAULT_NONE,
      "obs-text is a value; who reads it judges it" },
    { "Basic =", HTTP_FAULT_NONE, "credentials are for who reads them" },
    { ",\n\tnonce", HTTP_FAULT_FOLD, "folded lines" },
    { "Trailer: not-matching", HTTP_FAULT_NONE, "Trailer is a hint (RFC 9110 6.6.2)" },
    { "/~test%20\xc3\x83", HTTP_FAULT_TARGET, "raw bytes beyond ASCII in the target" },
    { "ea5f7d9a30b8b762f9610ccb87dea74f", HTTP_FAULT_FOLD, "folded lines" },
    { "0; comment", HTTP_FAULT_CHUNK, "a blank in front of an extension's name" },
    { "a; com", HTTP_FAULT_CHUNK, "a blank in front of an extension's name" },
    { "2147483648", HTTP_FAULT_NONE, "413 is the body limit's, not the grammar's" },
    { "\n\n\n\nGET", HTTP_FAULT_NONE, "the first request of two is fine" },
    { "nph=", HTTP_FAULT_NONE, "502 and 304 are the script's" },
};

static bool grammar_status(json_int_t status)
{
    return status == 400 || status == 411 || status == 414 || status == 431 || status == 501 ||
           status == 505;
}

static bool judge_server(const json_t *c)
{
    const char *lines = corpus_text(c, "request_lines");
    json_int_t status = json_integer_value(json_array_get(json_object_get(c, "statuses"), 0));
    enum http_fault want = HTTP_FAULT_NONE;
    bool special = false;
    bool fine = false;
    struct outcome o;
    struct buf bytes;
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(server_rows); i++) {
        if (strstr(lines, server_rows[i].part) != NULL) {
            special = true;
            want = server_rows[i].fault;
            break;
        }
    }
    to_wire(lines, &bytes);
    o = run_with_host(&bytes);
    if (special) {
        fine = o.fault == want;
    } else if (grammar_status(status)) {
        fine = o.fault != HTTP_FAULT_NONE;
    } else {
        fine = o.fault == HTTP_FAULT_NONE && o.complete;
    }
    if (!fine) {
        print_error("%s: lighttpd %lld, we %s\n%s\n", corpus_text(c, "desc"), (long long)status,
                    http_fault_name(o.fault), lines);
    }
    buf_deinit(&bytes);
    return fine;
}

static void every_server_case_is_judged(void **state)
{
    (void)state;
    assert_int_equal(corpus_judge(CASES, "request_t", 163, judge_server), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_parser_case_is_judged),
        cmocka_unit_test(every_server_case_is_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
