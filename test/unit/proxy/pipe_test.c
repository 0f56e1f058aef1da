/* Bytes come out as they went in, whatever the framing, however small the sockets. */
#include "proxy/pipe.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/mem.h"
#include "test/support/cmocka.h"

static char scratch[PROXY_IO_SCRATCH];

struct rig {
    struct proxy_window window;
    struct proxy_body body;
    struct arena arena;
    struct proxy_out out;
    struct proxy_io io;
    struct proxy_pipe pipe;
    int reader;
    struct buf got;
};

static void rig_up(struct rig *r, struct sv head, enum http_kind kind, bool chunk, int room)
{
    static struct http_field fields[32];
    int pair[2];
    struct http_head parsed;

    memset(r, 0, sizeof(*r));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    if (room != 0) {
        assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
    }
    r->reader = pair[1];
    proxy_io_init(&r->io, pair[0]);
    proxy_window_init(&r->window);
    proxy_out_init(&r->out);
    buf_init(&r->got, 1 << 24);
    if (kind == HTTP_RESPONSE) {
        http_head_init_response(&parsed, NULL, HTTP_GET, fields, ARRAY_LEN(fields));
    } else {
        http_head_init(&parsed, kind, NULL, fields, ARRAY_LEN(fields));
    }
    assert_int_equal(http_head_parse(&parsed, head), HTTP_DONE);
    arena_init(&r->arena);
    proxy_body_init(&r->body, &parsed, NULL, &r->arena);
    r->pipe = (struct proxy_pipe){
        .from = &r->window, .body = &r->body, .to = &r->out, .io = &r->io, .chunk = chunk
    };
}

static void rig_down(struct rig *r)
{
    proxy_io_close(&r->io);
    (void)close(r->reader);
    proxy_window_deinit(&r->window);
    proxy_out_deinit(&r->out);
    arena_deinit(&r->arena);
    buf_deinit(&r->got);
}

static void drain(struct rig *r)
{
    char room[4096];
    ssize_t n = 0;

    while ((n = read(r->reader, room, sizeof(room))) > 0) {
        buf_add(&r->got, room, (size_t)n);
    }
}

/* Feeds text step bytes at a time and pumps until the pipe says it is done, bad or waits. */
static enum proxy_pipe_result run(struct rig *r, struct sv text, size_t step)
{
    enum proxy_pipe_result result = PROXY_PIPE_HUNGRY;
    int turns = 0;

    while (turns++ < 2000000) {
        if (result == PROXY_PIPE_HUNGRY) {
            size_t n = MIN(step, text.n);

            if (n == 0) {
                break;
            }
            assert_true(proxy_window_room(&r->window, PROXY_WINDOW, r->pipe.taken != 0));
            n = MIN(n, r->window.cap - r->window.end);
            memcpy(r->window.bytes + r->window.end, text.p, n);
            r->window.end += n;
            text = sv_from_at(text, n);
        }
        result = proxy_pipe_pump(&r->pipe, scratch);
        drain(r);
        if (result != PROXY_PIPE_HUNGRY && result != PROXY_PIPE_FULL) {
            break;
        }
    }
    return result;
}

static const struct sv chunked_head = {
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 56
};

static void chunks_are_written_anew_and_trailers_pass(void **state)
{
    size_t step = 0;

    (void)state;
    for (step = 1; step < 60; step++) {
        struct rig r;

        rig_up(&r, chunked_head, HTTP_REQUEST, true, 0);
        assert_int_equal(run(&r, SV("5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"), step),
                         PROXY_PIPE_DONE);
        assert_int_equal(r.pipe.bytes, 6);
        assert_non_null(memmem(r.got.p, r.got.n, "0\r\nX-Sum: 1\r\n\r\n", 15));
        assert_null(memmem(r.got.p, r.got.n, "x=y", 3));
        rig_down(&r);
    }
}

static void a_length_ends_where_it_says_and_leaves_the_rest(void **state)
{
    struct rig r;

    (void)state;
    rig_up(&r, SV("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"), HTTP_REQUEST, false,
           0);
    assert_int_equal(run(&r, SV("helloGET / HTTP/1.1\r\n"), 100), PROXY_PIPE_DONE);
    assert_true(sv_eq(buf_sv(&r.got), SV("hello")));
    assert_true(sv_eq(proxy_window_sv(&r.window), SV("GET / HTTP/1.1\r\n")));
    rig_down(&r);
}

static void bad_chunks_are_told(void **state)
{
    static const char *const bad[] = { "0x5\r\nhello\r\n", "5\r\nhelloX\r\n", "-1\r\n",
                                       "5\nhello" };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        struct rig r;

        rig_up(&r, chunked_head, HTTP_REQUEST, true, 0);
        assert_int_equal(run(&r, sv_from(bad[i]), 100), PROXY_PIPE_BAD);
        rig_down(&r);
    }
}

static void megabytes_pass_a_small_socket_unchanged(void **state)
{
    struct rig r;
    size_t n = 3 << 20;
    char *big = mem_alloc(n);
    size_t i = 0;

    (void)state;
    for (i = 0; i < n; i++) {
        big[i] = (char)(i * 7 + i / 251);
    }
    rig_up(&r, SV("HTTP/1.1 200 OK\r\nContent-Length: 3145728\r\n\r\n"), HTTP_RESPONSE, false,
           4096);
    assert_int_equal(run(&r, sv_of(big, n), 50000), PROXY_PIPE_DONE);
    assert_int_equal(r.got.n, n);
    assert_memory_equal(r.got.p, big, n);
    assert_true(r.window.cap <= PROXY_WINDOW);
    rig_down(&r);
    mem_free(&big);
}

static void a_head_leaves_with_the_first_bytes(void **state)
{
    struct rig r;

    (void)state;
    rig_up(&r, SV("HTTP/1.1 200 OK\r\n\r\n"), HTTP_RESPONSE, true, 0);
    buf_add_str(&r.out.head, "HTTP/1.1 200 OK\r\n\r\n");
    assert_int_equal(run(&r, SV("abc"), 3), PROXY_PIPE_HUNGRY);
    assert_true(sv_eq(buf_sv(&r.got), SV("HTTP/1.1 200 OK\r\n\r\n3\r\nabc\r\n")));
    r.body.done = true; /* the upstream closed */
    assert_int_equal(proxy_pipe_pump(&r.pipe, scratch), PROXY_PIPE_DONE);
    drain(&r);
    assert_true(sv_ends(buf_sv(&r.got), SV("0\r\n\r\n")));
    rig_down(&r);
}

static void a_gone_reader_is_told(void **state)
{
    struct rig r;

    (void)state;
    rig_up(&r, SV("HTTP/1.1 200 OK\r\n\r\n"), HTTP_RESPONSE, false, 0);
    (void)close(r.reader);
    r.reader = open("/dev/null", O_RDONLY);
    assert_int_equal(run(&r, SV("abc"), 3), PROXY_PIPE_LOST);
    rig_down(&r);
}

static void an_idle_connection_lends_its_memory(void **state)
{
    struct proxy_spares spares = { .n = 0 };
    struct proxy_window w;
    struct proxy_out out;
    char *bytes = NULL;

    (void)state;
    proxy_window_init(&w);
    proxy_out_init(&out);
    proxy_spares_take(&spares, &w, &out); /* nothing to lend */
    assert_null(w.bytes);
    assert_true(proxy_window_room(&w, PROXY_WINDOW, false));
    bytes = w.bytes;
    w.end = 1;
    proxy_spares_give(&spares, &w, &out); /* it holds a byte of the next request */
    assert_ptr_equal(w.bytes, bytes);
    proxy_window_drop(&w, 1);
    buf_add_str(&out.head, "HTTP/1.1 200 OK\r\n");
    proxy_spares_give(&spares, &w, &out); /* it has something to write */
    assert_ptr_equal(w.bytes, bytes);
    buf_reset(&out.head);
    proxy_spares_give(&spares, &w, &out);
    assert_null(w.bytes);
    assert_null(out.head.p);
    assert_int_equal(spares.n, 1);
    proxy_spares_take(&spares, &w, &out);
    assert_ptr_equal(w.bytes, bytes);
    assert_int_equal(w.start, w.end);
    assert_true(proxy_out_empty(&out));
    while (proxy_window_room(&w, PROXY_WINDOW, false)) {
        w.end = w.cap;
    }
    proxy_window_drop(&w, w.end);
    proxy_spares_give(&spares, &w, &out); /* grown: freed */
    assert_null(w.bytes);
    assert_int_equal(spares.n, 0);
    assert_true(proxy_window_room(&w, PROXY_WINDOW, false));
    proxy_spares_give(&spares, &w, &out);
    proxy_spares_deinit(&spares);
}

/* One read of n bytes, written to the other end before. */
static void read_of(struct proxy_window *w, const int ends[2], size_t n)
{
    static char text[PROXY_WINDOW_BULK];
    struct proxy_io io;
    bool drained = false;

    proxy_io_init(&io, ends[0]);
    assert_int_equal(send(ends[1], text, n, 0), n);
    assert_true(proxy_window_room(w, PROXY_WINDOW, false));
    assert_int_equal(proxy_window_fill(w, &io, &drained), PROXY_IO_DONE);
}

static void a_window_is_large_where_all_that_fills_it_is_passed_on(void **state)
{
    struct proxy_window w;
    struct proxy_spares spares = { .n = 0 };
    struct proxy_out out;
    int ends[2];
    size_t first = 0;

    (void)state;
    proxy_window_init(&w);
    proxy_out_init(&out);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    read_of(&w, ends, 100);
    first = w.cap;
    proxy_window_drop(&w, 100);
    read_of(&w, ends, first);
    proxy_window_drop(&w, first - 1); /* something is left: its reader is slow */
    read_of(&w, ends, 1);
    assert_int_equal(w.cap, first);
    proxy_window_drop(&w, w.end - w.start);
    read_of(&w, ends, first);
    proxy_window_drop(&w, first);
    read_of(&w, ends, first);
    assert_int_equal(w.cap, PROXY_WINDOW_BULK);
    proxy_window_drop(&w, first);
    read_of(&w, ends, PROXY_WINDOW_BULK);
    proxy_window_drop(&w, PROXY_WINDOW_BULK);
    read_of(&w, ends, 1);
    assert_int_equal(w.cap, PROXY_WINDOW_BULK);
    proxy_window_drop(&w, 1);
    proxy_spares_give(&spares, &w, &out);
    assert_null(w.bytes); /* idle: as small as ever */
    proxy_spares_deinit(&spares);
    assert_int_equal(close(ends[0]), 0);
    assert_int_equal(close(ends[1]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_written_anew_and_trailers_pass),
        cmocka_unit_test(a_length_ends_where_it_says_and_leaves_the_rest),
        cmocka_unit_test(bad_chunks_are_told),
        cmocka_unit_test(megabytes_pass_a_small_socket_unchanged),
        cmocka_unit_test(a_head_leaves_with_the_first_bytes),
        cmocka_unit_test(a_gone_reader_is_told),
        cmocka_unit_test(an_idle_connection_lends_its_memory),
        cmocka_unit_test(a_window_is_large_where_all_that_fills_it_is_passed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
