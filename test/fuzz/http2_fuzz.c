/* HTTP/2 frames through nghttp2 into our handlers, as server and as client. The first byte chooses the
 * side and how owners behave, the second how the rest is cut; what a head or a body becomes keeps the
 * rules of HTTP/1, which it may be written into. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/http/canon.h"
#include "common/mem.h"
#include "proxy/h2.h"
#include "proxy/worker.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OWNERS_MAX = 256, FIELDS = 64 };

enum { AS_CLIENT = 1, ANSWER = 2, DROP = 4, RESET = 8, TRAILER = 16 };

struct owner {
    struct proxy_h2_stream *stream;
    struct arena arena;
    struct http_head head;
    struct http_field fields[FIELDS];
};

static struct {
    struct proxy_worker *worker;
    struct proxy_io io;
    struct proxy_h2 *h2;
    struct owner owners[OWNERS_MAX];
    size_t n;
    unsigned mode;
    int other; /* the peer's end of the socket */
} fuzz;

static struct owner *owner_new(enum http_kind kind)
{
    struct owner *o = &fuzz.owners[fuzz.n++ % OWNERS_MAX];

    proxy_h2_release(&o->stream, NGHTTP2_CANCEL);
    arena_deinit(&o->arena);
    arena_init(&o->arena);
    http_head_init(&o->head, kind, NULL, o->fields, FIELDS);
    o->head.request_method = HTTP_GET;
    return o;
}

static void on_open(void *h2_owner, struct proxy_h2_stream *stream)
{
    struct owner *o = owner_new(HTTP_REQUEST);

    (void)h2_owner;
    o->stream = stream;
    stream->owner = o;
    stream->head = &o->head;
    stream->arena = &o->arena;
}

static void check_text(struct sv text)
{
    must(sv_find(text, '\r') == SIZE_MAX && sv_find(text, '\n') == SIZE_MAX &&
         sv_find(text, '\0') == SIZE_MAX);
}

/* What passed must be fit for the lines of HTTP/1. */
static void check_head(struct owner *o)
{
    struct http_request req;
    uint32_t i = 0;

    for (i = 0; i < o->head.n; i++) {
        check_text(o->head.fields[i].name);
        check_text(o->head.fields[i].value);
        must(http_is_token(o->head.fields[i].name));
    }
    must(http_head_count(&o->head, HTTP_H_COOKIE) <= 1 || o->head.kind == HTTP_RESPONSE);
    must(http_head_get(&o->head, HTTP_H_TRANSFER_ENCODING) == NULL);
    if (o->head.kind == HTTP_REQUEST &&
        http_canon_request(&o->head, &(struct http_canon_rules){ 0 }, &o->arena, &req) ==
            HTTP_FAULT_NONE) {
        check_text(req.forward);
        check_text(req.authority);
        must(sv_find(req.forward, ' ') == SIZE_MAX);
    }
}

static void answer(struct owner *o)
{
    static const char text[] = "an answer of some bytes";
    struct proxy_emit e;

    proxy_emit_h2(&e, &o->arena);
    proxy_emit_status(&e, 200, SV("OK"));
    proxy_emit_field(&e, SV("X-Some"), SV("value"));
    if (proxy_emit_end(&e) && proxy_h2_answer(o->stream, &e, true)) {
        proxy_h2_offer(o->stream, sv_from(text));
        proxy_h2_offer_end(o->stream, (fuzz.mode & TRAILER) != 0 ? &o->stream->trailer : NULL);
    }
}

static void on_head(void *owner)
{
    struct owner *o = owner;

    if (o->stream->fault == HTTP_FAULT_NONE) {
        check_head(o);
    }
    if ((fuzz.mode & RESET) != 0) {
        proxy_h2_release(&o->stream, NGHTTP2_INTERNAL_ERROR);
    } else if ((fuzz.mode & ANSWER) != 0 && o->head.kind == HTTP_REQUEST) {
        answer(o);
    }
}

static void on_interim(void *owner)
{
    struct owner *o = owner;

    http_head_init(&o->head, HTTP_RESPONSE, NULL, o->fields, FIELDS);
}

static void on_readable(void *owner)
{
    struct owner *o = owner;
    struct sv have = proxy_window_sv(&o->stream->in);

    must(have.n <= PROXY_H2_WINDOW);
    if ((fuzz.mode & DROP) != 0) {
        proxy_h2_drop(o->stream, have.n);
    }
}

static void on_writable(void *owner)
{
    struct owner *o = owner;

    if (o->stream->end_sent && o->stream->in_ended) {
        proxy_h2_release(&o->stream, NGHTTP2_NO_ERROR);
    }
}

static void on_lost(void *owner)
{
    struct owner *o = owner;

    proxy_h2_release(&o->stream, NGHTTP2_CANCEL);
}

static void on_want(void *h2_owner, bool write)
{
    (void)h2_owner;
    (void)write;
}

static void nothing(void *h2_owner)
{
    (void)h2_owner;
}

static const struct proxy_h2_hooks hooks = {
    .open = on_open,
    .head = on_head,
    .interim = on_interim,
    .readable = on_readable,
    .writable = on_writable,
    .lost = on_lost,
    .want = on_want,
    .quiet = nothing,
    .broken = nothing,
};

static void set_up(void)
{
    int pair[2];

    if (fuzz.worker != NULL) {
        return;
    }
    fuzz.worker = MEM_NEW(struct proxy_worker);
    list_init(&fuzz.worker->h2_dirty);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    proxy_io_init(&fuzz.io, pair[0]);
    fuzz.other = pair[1];
}

static void ask(void)
{
    struct owner *o = owner_new(HTTP_RESPONSE);
    struct proxy_emit e;

    proxy_emit_h2(&e, &o->arena);
    proxy_emit_request(&e, SV("POST"), SV("/"), SV("example.com"), true);
    o->stream = proxy_emit_end(&e) ? proxy_h2_request(fuzz.h2, &e, true, o) : NULL;
    if (o->stream != NULL) {
        o->stream->head = &o->head;
        o->stream->arena = &o->arena;
        proxy_h2_offer_end(o->stream, NULL);
    }
}

/* Feeds text in pieces; false: the connection ended. */
static bool feed(struct sv text, size_t piece)
{
    char room[65536];

    while (text.n != 0) {
        struct sv part = sv_head(text, MIN(piece, text.n));
        size_t n = part.n;

        while (part.n != 0) {
            if (!proxy_h2_feed(fuzz.h2, &part) || !proxy_h2_flush(fuzz.h2)) {
                return false;
            }
        }
        while (recv(fuzz.other, room, sizeof(room), 0) > 0) {
        }
        text = sv_from_at(text, n);
    }
    return true;
}

static void tear_down(void)
{
    char room[65536];
    size_t i = 0;

    proxy_h2_free(&fuzz.h2);
    for (i = 0; i < OWNERS_MAX; i++) {
        proxy_h2_release(&fuzz.owners[i].stream, NGHTTP2_CANCEL);
        arena_deinit(&fuzz.owners[i].arena);
    }
    loop_free(&fuzz.worker->loop); /* runs what was deferred */
    while (recv(fuzz.other, room, sizeof(room), 0) > 0) {
    }
    fuzz.n = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sv magic = { NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN };
    static const struct sv settings = { "\0\0\0\4\0\0\0\0\0", 9 };
    bool server = false;
    int i = 0;

    if (size < 2) {
        return 0;
    }
    set_up();
    fuzz.worker->loop = loop_new_private();
    fuzz.mode = data[0];
    server = (fuzz.mode & AS_CLIENT) == 0;
    fuzz.h2 = server ? proxy_h2_server_new(fuzz.worker, &fuzz.io, &hooks, NULL)
                     : proxy_h2_client_new(fuzz.worker, &fuzz.io, &hooks, NULL);
    for (i = 0; !server && i < 4; i++) {
        ask();
    }
    if ((!server || feed(magic, magic.n)) && feed(settings, settings.n)) {
        (void)feed(sv_of(data + 2, size - 2), (size_t)data[1] + 1);
    }
    tear_down();
    return 0;
}
