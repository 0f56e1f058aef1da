/* Every case of shared/corpora/http/llhttp_cases.json is judged: what llhttp's strict mode refuses
 * we refuse; what it accepts we accept with the same number of messages, or the case stands in
 * stricter with the fault we find and the reason. Its lenient modes must never be ours. */
#include <stdio.h>
#include <string.h>

#include "common/http/chunked.h"
#include "common/http/head.h"
#include "common/mem.h"
#include "test/unit/common/http/corpus.h"

enum verdict { REFUSED = 0, ACCEPTED, DATA_AFTER_CLOSE };

struct outcome {
    enum verdict verdict;
    enum http_fault fault;
    unsigned messages;
    uint64_t body;
    size_t at; /* start of the message that failed */
};

/* Reads past one body; false on a fault. *in moves on, *ended says whether the end came. */
static bool skip_body(const struct http_head *head, struct sv *in, struct outcome *o, bool *ended)
{
    struct http_field trailers[HTTP_TRAILERS_MAX];
    struct http_chunked_opts opts = { .trailers = trailers, .cap = ARRAY_LEN(trailers) };
    struct http_chunked chunked;
    struct sv data = { 0 };
    enum http_step step = HTTP_DATA;
    uint64_t n = 0;

    *ended = true;
    if (head->framing == HTTP_BODY_LENGTH) {
        n = MIN((uint64_t)in->n, head->content_length);
        *in = sv_from_at(*in, (size_t)n);
        o->body += n;
        *ended = n == head->content_length;
    } else if (head->framing == HTTP_BODY_UNTIL_CLOSE) {
        o->body += in->n;
        *in = sv_from_at(*in, in->n);
        *ended = false;
    } else if (head->framing == HTTP_BODY_CHUNKED) {
        http_chunked_init(&chunked, &opts);
        while (step == HTTP_DATA) {
            step = http_chunked_next(&chunked, in, &data);
            o->body += step == HTTP_DATA ? data.n : 0;
        }
        o->fault = chunked.fault;
        *ended = step == HTTP_DONE;
        return step != HTTP_ERROR;
    }
    return true;
}

static struct outcome run(enum http_kind kind, struct sv bytes)
{
    struct http_field fields[HTTP_FIELDS_DEFAULT];
    static const struct http_rules rules = { .underscores = HTTP_UNDERSCORE_ALLOW };
    struct outcome o = { .verdict = ACCEPTED };
    struct sv in = bytes;
    bool open = true;

    while (in.n > 0) {
        struct http_head head;
        enum http_step step = HTTP_MORE;
        bool ended = false;

        if (!open) {
            o.verdict = DATA_AFTER_CLOSE;
            return o;
        }
        o.at = bytes.n - in.n;
        http_head_init(&head, kind, &rules, fields, ARRAY_LEN(fields));
        step = http_head_parse(&head, in);
        if (step == HTTP_MORE) {
            return o;
        }
        if (step == HTTP_ERROR) {
            o.verdict = REFUSED;
            o.fault = head.fault;
            return o;
        }
        in = sv_from_at(in, head.size);
        if (!skip_body(&head, &in, &o, &ended)) {
            o.verdict = REFUSED;
            return o;
        }
        if (!ended) {
            return o;
        }
        o.messages++;
        if (head.upgrade || head.method == HTTP_CONNECT || head.status == 101) {
            return o; /* the rest is another protocol's */
        }
        open = head.keep_alive;
    }
    return o;
}

/* Most cases lack the Host field that HTTP/1.1 demands: put one in, so that the rest is judged. */
static struct outcome run_with_hosts(enum http_kind kind, struct buf *bytes, unsigned *added_out)
{
    struct outcome o = run(kind, buf_sv(bytes));

    *added_out = 0;
    while (o.verdict == REFUSED && o.fault == HTTP_FAULT_HOST_MISSING && *added_out < 16) {
        struct sv all = buf_sv(bytes);
        struct sv rest = sv_from_at(all, o.at);
        size_t start = sv_starts(rest, SV("\r\n")) ? 2 : 0;
        size_t line = o.at + start + sv_search(sv_from_at(rest, start), SV("\r\n")) + 2;
        struct sv target = sv_from_at(rest, sv_find(rest, ' ') + 1);
        struct sv host = SV("h");

        target = sv_head(target, sv_find(target, ' '));
        if (!sv_starts(target, SV("/")) && sv_search(target, SV("://")) != SIZE_MAX) {
            host = sv_from_at(target, sv_search(target, SV("://")) + 3);
            host = sv_head(host, MIN(MIN(sv_find(host, '/'), sv_find(host, '?')), host.n));
        } else if (sv_starts(rest, SV("CONNECT"))) {
            host = target;
        }
        corpus_add_host(bytes, line, host);
        ++*added_out;
        o = run(kind, buf_sv(bytes));
    }
    return o;
}

struct judged {
    const char *file;
    int line;
    enum http_fault fault;
    const char *why;
};

#include "test/unit/common/http/llhttp_stricter.h"

/* Every row of stricter must be met, or the list would rot. */
static bool met[ARRAY_LEN(stricter)];

static const struct judged *find_judged(const char *file, int line)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(stricter); i++) {
        if (stricter[i].line == line && strcmp(stricter[i].file, file) == 0) {
            met[i] = true;
            return &stricter[i];
        }
    }
    return NULL;
}

/* Codes 21 and 22 are no refusals: the parser paused, for its user or for an upgrade. */
static bool accepts(const json_t *error)
{
    json_int_t code = json_integer_value(json_object_get(json_array_get(error, 0), "code"));

    return json_is_null(error) || code == 21 || code == 22;
}

/* Turns a URL case into a request for it. */
static void wrap_url(struct buf *bytes)
{
    struct buf whole;

    buf_init(&whole, 1 << 20);
    buf_add_str(&whole, "GET ");
    buf_add_sv(&whole, buf_sv(bytes));
    buf_add_str(&whole, " HTTP/1.1\r\n\r\n");
    buf_deinit(bytes);
    *bytes = whole;
}

/* The corpus lost the last line end of most inputs. A message that is one short gets it back; an
 * input that should be refused gets an end too, so that its last line is looked at. */
static struct outcome run_complete(enum http_kind kind, struct buf *bytes, bool want_refused,
                                   unsigned want_messages)
{
    unsigned added = 0;
    struct outcome o = run_with_hosts(kind, bytes, &added);

    if (o.verdict == ACCEPTED && (want_refused || o.messages < want_messages)) {
        buf_add_str(bytes, want_refused ? "\r\n\r\n" : "\r\n");
        o = run_with_hosts(kind, bytes, &added);
    }
    return o;
}

static bool judge(const json_t *c)
{
    const char *file = corpus_text(c, "file");
    int line = (int)json_integer_value(json_object_get(c, "line"));
    const char *type = corpus_text(json_object_get(c, "meta"), "type");
    bool lenient = json_is_true(json_object_get(c, "lenient"));
    bool llhttp_accepts = accepts(json_object_get(c, "llhttp_error"));
    unsigned messages = (unsigned)json_integer_value(json_object_get(c, "messages_completed"));
    uint64_t body = (uint64_t)json_integer_value(json_object_get(c, "body_bytes"));
    const struct judged *j = find_judged(file, line);
    bool url = strcmp(corpus_text(c, "kind"), "url") == 0;
    struct buf bytes;
    struct outcome o;
    bool fine = false;

    corpus_decode(c, &bytes);
    if (url) {
        wrap_url(&bytes);
    }
    o = run_complete(strncmp(type, "response", 8) == 0 ? HTTP_RESPONSE : HTTP_REQUEST, &bytes,
                     lenient || !llhttp_accepts, messages);
    if (j != NULL) {
        fine =
            o.verdict == (j->fault == HTTP_FAULT_NONE ? ACCEPTED : REFUSED) && o.fault == j->fault;
    } else if (llhttp_accepts && !lenient) {
        fine = o.verdict == ACCEPTED && (url || (o.messages == messages && o.body == body));
    } else {
        fine = o.verdict != ACCEPTED;
    }
    if (!fine) {
        print_error("%s:%d %s %s: llhttp %s (%u messages, %llu body), we %d %s (%u, %llu)\n%.*s\n",
                    file, line, type, corpus_text(c, "section"),
                    llhttp_accepts ? "accepts" : "refuses", messages, (unsigned long long)body,
                    (int)o.verdict, http_fault_name(o.fault), o.messages,
                    (unsigned long long)o.body, (int)bytes.n, buf_cstr(&bytes));
    }
    buf_deinit(&bytes);
    return fine;
}

static void every_llhttp_case_is_judged(void **state)
{
    (void)state;
    assert_int_equal(corpus_judge("../shared/corpora/http/llhttp_cases.json", "cases", 272, judge),
                     0);
    for (size_t i = 0; i < ARRAY_LEN(stricter); i++) {
        assert_true(met[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_llhttp_case_is_judged) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
