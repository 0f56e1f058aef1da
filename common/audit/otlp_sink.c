/* Lines as log records for a collector: OTLP over HTTP in JSON (opentelemetry.io/docs/specs/otlp,
 * "OTLP/HTTP"). The body of a record is the line as it is, so that its chain can be verified there;
 * its fields are attributes, too. A batch that is not answered with 2xx is sent again, with the same
 * bytes: who collects may see it twice, the number in the chain tells. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "common/audit/audit.h"
#include "common/clock.h"
#include "common/date.h"
#include "common/fetch.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

enum {
    RECORDS_MAX = 512,
    BATCH_BYTES = 256 * 1024, /* of lines; the request is about three times as much */
    INFO = 9,
    WARN = 13 /* severity numbers */
};

struct otlp_sink {
    struct audit_sink base;
    struct config *config;
    struct loop *loop; /* of the writer's thread, turned while it waits for an answer */
    struct fetcher *fetcher;
    char *url;
    char instance[RAND_UUID_SIZE];
    char host[HOST_NAME_MAX + 1];
    bool opened;
    /* of the request under way */
    bool answered;
    bool accepted;
    struct diag *d;
};

/* --- the request ------------------------------------------------------------------------------ */

static json_t *text_value(struct sv text)
{
    return json_pack("{s:s%}", "stringValue", text.p, text.n);
}

static void add_attribute(json_t *list, const char *key, json_t *value)
{
    (void)json_array_append_new(list, json_pack("{s:s, s:o}", "key", key, "value", value));
}

/* An AnyValue. Integers of 64 bits are strings in this encoding. */
static json_t *any_value(const json_t *v)
{
    char number[24];
    json_t *values = NULL;
    json_t *item = NULL;
    size_t i = 0;

    switch (json_typeof(v)) {
    case JSON_TRUE:
    case JSON_FALSE:
        return json_pack("{s:b}", "boolValue", json_is_true(v));
    case JSON_INTEGER:
        (void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
        return json_pack("{s:s}", "intValue", number);
    case JSON_ARRAY:
        values = json_array();
        json_array_foreach(v, i, item)
        {
            (void)json_array_append_new(
                values, text_value(sv_of(json_string_value(item), json_string_length(item))));
        }
        return json_pack("{s:{s:o}}", "arrayValue", "values", values);
    case JSON_OBJECT: /* none of our lines has these */
    case JSON_NULL:
    case JSON_REAL:
    case JSON_STRING:
        break;
    }
    return text_value(sv_of(json_string_value(v), json_string_length(v)));
}

static json_t *nanos(int64_t ms)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%lld000000", (long long)ms);
    return json_string(text);
}

static int64_t time_of(json_t *fields, int64_t now_ms)
{
    struct date date;
    const char *text = json_string_value(json_object_get(fields, "time"));

    return text != NULL && date_parse(sv_from(text), &date) == ERR_OK ? date_wall_ms(&date)
                                                                      : now_ms;
}

static bool is_allowed(json_t *fields)
{
    const char *decision = json_string_value(json_object_get(fields, "decision"));

    return decision == NULL || strcmp(decision, "allow") == 0;
}

static void add_record(json_t *records, struct sv line, int64_t now_ms)
{
    json_t *fields = json_loadb(line.p, line.n, 0, NULL);
    json_t *attributes = json_array();
    const char *key = NULL;
    json_t *value = NULL;
    bool is_info = is_allowed(fields);

    json_object_foreach(fields, key, value)
    {
        if (strcmp(key, "time") != 0 && strcmp(key, "service") != 0) {
            add_attribute(attributes, strcmp(key, "event") == 0 ? "event.name" : key,
                          any_value(value));
        }
    }
    (void)json_array_append_new(records,
                                json_pack("{s:o, s:o, s:i, s:s, s:o, s:o}", "timeUnixNano",
                                          nanos(time_of(fields, now_ms)), "observedTimeUnixNano",
                                          nanos(now_ms), "severityNumber", is_info ? INFO : WARN,
                                          "severityText", is_info ? "INFO" : "WARN", "body",
                                          text_value(line), "attributes", attributes));
    json_decref(fields);
}

static json_t *resource_of(const struct otlp_sink *o)
{
    json_t *attributes = json_array();
    char name[64];

    (void)snprintf(name, sizeof(name), "postern-%s", config_part_name(o->config->part));
    add_attribute(attributes, "service.name", text_value(sv_from(name)));
    add_attribute(attributes, "service.instance.id", text_value(sv_from(o->instance)));
    add_attribute(attributes, "host.name", text_value(sv_from(o->host)));
    return json_pack("{s:o}", "attributes", attributes);
}

/* Takes whole lines from the front of lines, as many as make a batch; how many bytes. */
static size_t take_records(struct sv lines, json_t *records)
{
    int64_t now_ms = clock_wall_ms();
    size_t n = 0;

    while (n < lines.n && n < BATCH_BYTES && json_array_size(records) < RECORDS_MAX) {
        struct sv rest = sv_from_at(lines, n);
        size_t end = sv_find(rest, '\n');

        add_record(records, sv_head(rest, end), now_ms);
        n += end + 1;
    }
    return n;
}

/* --- sending ---------------------------------------------------------------------------------- */

/* What it did not take it never will: sending it again is forbidden. */
static void tell_rejected(struct sv body)
{
    json_t *answer = json_loadb(body.p == NULL ? "" : body.p, body.n, 0, NULL);
    json_t *partial = json_object_get(answer, "partialSuccess");
    json_t *rejected = json_object_get(partial, "rejectedLogRecords");
    const char *n = json_string_value(rejected);
    const char *why = json_string_value(json_object_get(partial, "errorMessage"));

    if ((n != NULL && strcmp(n, "0") != 0) || json_integer_value(rejected) != 0) {
        log_error("audit.rejected", KV_STR("lines", n == NULL ? "some" : n),
                  KV_STR("reason", why == NULL ? "" : why));
    }
    json_decref(answer);
}

static void on_answer(void *arg, const struct fetch_answer *answer)
{
    struct otlp_sink *o = arg;

    o->accepted = answer->err == ERR_OK && answer->status >= 200 && answer->status < 300;
    if (o->accepted) {
        tell_rejected(answer->body);
    } else if (answer->err != ERR_OK) {
        diag_set(o->d, "audit: %.200s does not answer: %.200s", o->url, answer->text);
    } else {
        diag_set(o->d, "audit: %.200s answers with status %ld", o->url, answer->status);
    }
    o->answered = true;
}

static enum err post(struct otlp_sink *o, const char *body, struct diag *d)
{
    const struct config_audit *audit = &o->config->audit;
    const char *headers[FETCH_HEADERS_MAX + 1] = { NULL };
    struct fetch_request request = { .url = o->url,
                                     .body = sv_from(body),
                                     .type = "application/json",
                                     .headers = headers,
                                     .timeout_ms = audit->otlp_timeout_ms };
    struct buf room;

    buf_init(&room, (size_t)2 * CONFIG_FETCH_HEADERS_BYTES);
    if (audit->otlp_headers != NULL) {
        fetch_headers(secret_bytes(audit->otlp_headers), &room, headers);
    }
    o->d = d;
    o->answered = false;
    o->accepted = false;
    (void)fetch_start(o->fetcher, &request, on_answer, o);
    if (room.p != NULL) {
        secret_wipe(room.p, room.n);
    }
    buf_deinit(&room);
    while (!o->answered) { /* within otlp_timeout */
        (void)event_base_loop(loop_base(o->loop), EVLOOP_ONCE);
    }
    return o->accepted ? ERR_OK : ERR_UNAVAILABLE;
}

/* The loop belongs to the thread that turns it: the writer's. */
static void set_up(struct otlp_sink *o)
{
    CLEANUP(buf_deinit) struct buf ca = { 0 };
    struct sv file = o->config->audit.otlp_ca_file;

    buf_init(&ca, 4096);
    buf_add_sv(&ca, file);
    o->loop = loop_new();
    o->fetcher = fetcher_new(o->loop, file.n == 0 ? NULL : buf_cstr(&ca));
}

static enum err otlp_open(struct audit_sink *sink, struct audit_place *place_out, struct diag *d)
{
    struct otlp_sink *o = (struct otlp_sink *)(void *)sink;

    (void)d;
    *place_out = (struct audit_place){ .is_new = !o->opened };
    o->opened = true;
    return ERR_OK;
}

static enum err otlp_write(struct audit_sink *sink, struct sv lines, size_t *done_out,
                           struct diag *d)
{
    struct otlp_sink *o = (struct otlp_sink *)(void *)sink;
    enum err err = ERR_OK;

    if (o->loop == NULL) {
        set_up(o);
    }
    *done_out = 0;
    while (*done_out < lines.n && err == ERR_OK) {
        json_t *records = json_array();
        size_t n = take_records(sv_from_at(lines, *done_out), records);
        json_t *root =
            json_pack("{s:[{s:o, s:[{s:{s:s}, s:o}]}]}", "resourceLogs", "resource", resource_of(o),
                      "scopeLogs", "scope", "name", "postern.audit", "logRecords", records);
        char *body = json_dumps(root, JSON_COMPACT);

        json_decref(root);
        CHECK(body != NULL);
        err = post(o, body, d);
        mem_release(body);
        *done_out += err == ERR_OK ? n : 0;
    }
    return err;
}

static void otlp_close(struct audit_sink *sink)
{
    struct otlp_sink *o = (struct otlp_sink *)(void *)sink;

    fetcher_free(&o->fetcher);
    if (o->loop != NULL) {
        loop_free(&o->loop);
    }
    config_unref(&o->config);
    mem_free(&o->url);
    mem_free(&o);
}

struct audit_sink *audit_otlp_new(const struct config *config)
{
    static const struct audit_sink_ops ops = { .open = otlp_open,
                                               .write = otlp_write,
                                               .close = otlp_close,
                                               .confirms = false,
                                               .is_remote = true,
                                               .retry_max_ms = 30000 };
    struct otlp_sink *o = MEM_NEW(struct otlp_sink);
    struct buf url;

    o->base.ops = &ops;
    o->config = config_ref(config);
    buf_init(&url, 8192);
    buf_add_sv(&url, config->audit.otlp_endpoint);
    while (url.n != 0 && url.p[url.n - 1] == '/') {
        url.n--;
    }
    buf_add_str(&url, "/v1/logs");
    o->url = buf_take(&url);
    buf_deinit(&url);
    rand_uuid(o->instance);
    if (gethostname(o->host, sizeof(o->host) - 1) != 0) {
        o->host[0] = '\0';
    }
    return &o->base;
}
