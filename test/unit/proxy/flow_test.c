/* pipe, io, beside pipe_test.c: bytes arrive whole whatever way they come, nothing is held but one
 * window, and broken framing is told. Sockets are socketpairs. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/mem.h"
#include "proxy/pipe.h"
#include "test/support/cmocka.h"

/* left: the source's peer and our end; right: our end and the destination's peer. */
struct world {
    int source;
    int sink;
    struct proxy_io from;
    struct proxy_io to;
    struct proxy_window window;
    struct proxy_body body;
    struct arena arena;
    struct proxy_out out;
    struct proxy_pipe pipe;
    char scratch[PROXY_IO_SCRATCH];
    struct buf got;
};

static void world_init(struct world *w, enum http_framing framing, uint64_t length, bool chunk)
{
    const struct http_head head = { .framing = framing, .content_length = length };
    int a[2];
    int b[2];

    memset(w, 0, sizeof(*w));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
    w->source = a[0];
    proxy_io_init(&w->from, a[1]);
    proxy_io_init(&w->to, b[0]);
    w->sink = b[1];
    proxy_window_init(&w->window);
    arena_init(&w->arena);
    proxy_body_init(&w->body, &head, NULL, &w->arena);
    proxy_out_init(&w->out);
    w->pipe = (struct proxy_pipe){
        .from = &w->window, .body = &w->body, .to = &w->out, .io = &w->to, .chunk = chunk
    };
    buf_init(&w->got, 64 << 20);
}

static void world_deinit(struct world *w)
{
    if (w->source >= 0) {
        (void)close(w->source);
    }
    if (w->sink >= 0) {
        (void)close(w->sink);
    }
    proxy_io_close(&w->from);
    proxy_io_close(&w->to);
    proxy_window_deinit(&w->window);
    proxy_out_deinit(&w->out);
    arena_deinit(&w->arena);
    buf_deinit(&w->got);
}

static void feed(struct world *w, const char *text)
{
    size_t n = strlen(text);

    assert_int_equal(send(w->source, text, n, 0), (ssize_t)n);
}

/* One read where there is room, one pump: what an event does. */
static enum proxy_pipe_result turn(struct world *w)
{
    bool drained = false;

    if (proxy_window_room(&w->window, PROXY_WINDOW, w->pipe.taken != 0)) {
        (void)proxy_window_fill(&w->window, &w->from, &drained);
    }
    return proxy_pipe_pump(&w->pipe, w->scratch);
}

static size_t drain(struct world *w)
{
    char room[4096];
    size_t all = 0;
    ssize_t n = 0;

    for (n = recv(w->sink, room, sizeof(room), 0); n > 0;
         n = recv(w->sink, room, sizeof(room), 0)) {
        buf_add(&w->got, room, (size_t)n);
        all += (size_t)n;
    }
    return all;
}

static void expect(struct world *w, const char *text)
{
    (void)drain(w);
    if (!sv_eq(buf_sv(&w->got), sv_from(text))) {
        fail_msg("got '%s'", buf_cstr(&w->got));
    }
}

static void test_a_length_ends_where_it_says(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, HTTP_BODY_LENGTH, 5, false);
    feed(&w, "hel");
    assert_int_equal(turn(&w), PROXY_PIPE_HUNGRY);
    feed(&w, "loGET /next");
    assert_int_equal(turn(&w), PROXY_PIPE_DONE);
    expect(&w, "hello");
    assert_int_equal(w.pipe.bytes, 5);
    assert_true(sv_eq(proxy_window_sv(&w.window), SV("GET /next"))); /* left for the next head */
    world_deinit(&w);
}

static void test_chunks_are_written_anew(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, HTTP_BODY_CHUNKED, 0, true);
    feed(&w, "3;a=b\r\nabc\r\n0");
    assert_int_equal(turn(&w), PROXY_PIPE_HUNGRY);
    feed(&w, "\r\nX-Sum: 1\r\n\r\nrest");
    assert_int_equal(turn(&w), PROXY_PIPE_DONE);
    expect(&w, "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_true(sv_eq(proxy_window_sv(&w.window), SV("rest")));
    world_deinit(&w);
}

static void test_chunks_become_plain_bytes_for_an_old_client(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, HTTP_BODY_CHUNKED, 0, false);
    feed(&w, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_int_equal(turn(&w), PROXY_PIPE_DONE);
    expect(&w, "abcde");
    world_deinit(&w);
}

static void test_broken_chunks_are_told(void **state)
{
    static const char *const bad[] = { "x\r\n",
                                       "3 \r\nabc\r\n",
                                       "-1\r\n",
                                       "3\nabc\n",
                                       "3\r\nabcd\r\n",
                                       "ffffffffffffffffff\r\n",
                                       "0\r\nContent-Length: 5\r\n\r\n" };
    size_t i = 0;

    (void)state;
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        struct world w;
        enum proxy_pipe_result result = PROXY_PIPE_HUNGRY;

        world_init(&w, HTTP_BODY_CHUNKED, 0, true);
        feed(&w, bad[i]);
        result = turn(&w);
        if (result != PROXY_PIPE_BAD) {
            fail_msg("'%s' gives %d", bad[i], result);
        }
        (void)drain(&w);
        /* Whatever was passed on, it has no end: nobody takes it for a whole message. */
        assert_int_equal(sv_search(buf_sv(&w.got), SV("0\r\n\r\n")), SIZE_MAX);
        world_deinit(&w);
    }
}

static void test_a_head_leaves_with_the_first_bytes_of_its_body(void **state)
{
    struct world w;
    char room[256];
    ssize_t n = 0;

    (void)state;
    world_init(&w, HTTP_BODY_LENGTH, 4, false);
    buf_add_str(&w.out.head, "HEAD\r\n\r\n");
    feed(&w, "body");
    assert_int_equal(turn(&w), PROXY_PIPE_DONE);
    n = recv(w.sink, room, sizeof(room), 0);
    assert_int_equal(n, 12); /* one write */
    assert_memory_equal(room, "HEAD\r\n\r\nbody", 12);
    world_deinit(&w);
}

static void test_a_head_does_not_wait_for_a_body_that_is_late(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, HTTP_BODY_LENGTH, 4, false);
    buf_add_str(&w.out.head, "HEAD");
    assert_int_equal(turn(&w), PROXY_PIPE_HUNGRY);
    expect(&w, "HEAD");
    world_deinit(&w);
}

/* A sink that does not read: the pipe is full, holds one window and takes no more from the source. */
static void test_a_slow_sink_stops_the_source(void **state)
{
    enum { SIZE = 8 << 20 };
    struct world w;
    char *block = mem_alloc(SIZE);
    size_t sent = 0;
    size_t i = 0;
    enum proxy_pipe_result result = PROXY_PIPE_HUNGRY;
    unsigned idle = 0;

    (void)state;
    for (i = 0; i < SIZE; i++) {
        block[i] = (char)(i * 7 + i / 251);
    }
    world_init(&w, HTTP_BODY_LENGTH, SIZE, false);
    for (idle = 0; idle < 100; idle++) {
        ssize_t n = send(w.source, block + sent, SIZE - sent, 0);

        sent += n > 0 ? (size_t)n : 0;
        result = turn(&w);
    }
    assert_int_equal(result, PROXY_PIPE_FULL);
    assert_true(sent < SIZE / 2); /* the kernel's buffers and one window, not the whole body */
    assert_true(w.window.cap <= PROXY_WINDOW_BULK);
    while (result != PROXY_PIPE_DONE) {
        ssize_t n = 0;

        if (sent < SIZE) {
            n = send(w.source, block + sent, SIZE - sent, 0);
            sent += n > 0 ? (size_t)n : 0;
        }
        (void)drain(&w);
        result = turn(&w);
        assert_int_not_equal(result, PROXY_PIPE_BAD);
        assert_int_not_equal(result, PROXY_PIPE_LOST);
    }
    (void)drain(&w);
    assert_int_equal(w.got.n, SIZE);
    assert_memory_equal(w.got.p, block, SIZE);
    assert_true(w.window.cap <= PROXY_WINDOW_BULK);
    mem_free(&block);
    world_deinit(&w);
}

/* The same message cut at every place. */
static void test_the_way_bytes_arrive_changes_nothing(void **state)
{
    static const char text[] = "5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX-T: v\r\n\r\n";
    size_t cut = 0;

    (void)state;
    for (cut = 1; cut < sizeof(text) - 1; cut++) {
        struct world w;
        enum proxy_pipe_result result = PROXY_PIPE_HUNGRY;

        world_init(&w, HTTP_BODY_CHUNKED, 0, false);
        assert_int_equal(send(w.source, text, cut, 0), (ssize_t)cut);
        result = turn(&w);
        assert_int_equal(result, PROXY_PIPE_HUNGRY);
        feed(&w, text + cut);
        assert_int_equal(turn(&w), PROXY_PIPE_DONE);
        expect(&w, "hello world");
        world_deinit(&w);
    }
}

static void test_a_sink_that_left_is_told(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, HTTP_BODY_LENGTH, 5, false);
    (void)close(w.sink);
    w.sink = -1;
    feed(&w, "hello");
    assert_int_equal(turn(&w), PROXY_PIPE_LOST);
    world_deinit(&w);
}

static void test_io_tells_an_end_from_a_pause(void **state)
{
    struct world w;
    char room[8];
    size_t n = 9;

    (void)state;
    world_init(&w, HTTP_BODY_NONE, 0, false);
    assert_int_equal(proxy_io_read(&w.from, room, sizeof(room), &n), PROXY_IO_AGAIN);
    assert_int_equal(n, 0);
    feed(&w, "abc");
    assert_int_equal(proxy_io_read(&w.from, room, sizeof(room), &n), PROXY_IO_DONE);
    assert_int_equal(n, 3);
    (void)close(w.source);
    w.source = -1;
    assert_int_equal(proxy_io_read(&w.from, room, sizeof(room), &n), PROXY_IO_END);
    world_deinit(&w);
}

static void test_a_window_keeps_its_bytes_when_it_makes_room(void **state)
{
    struct proxy_window w;
    size_t i = 0;

    (void)state;
    proxy_window_init(&w);
    assert_true(proxy_window_room(&w, PROXY_WINDOW, false));
    for (i = 0; w.end < w.cap; i++) {
        w.bytes[w.end++] = (char)('a' + i % 26);
    }
    proxy_window_drop(&w, 26);
    assert_false(proxy_window_room(&w, PROXY_WINDOW, true)); /* something points into it */
    assert_true(proxy_window_room(&w, PROXY_WINDOW, false));
    assert_int_equal(w.bytes[w.start], 'a');
    while (proxy_window_room(&w, PROXY_WINDOW, false)) {
        w.end = w.cap;
    }
    assert_int_equal(w.cap, PROXY_WINDOW);
    proxy_window_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_length_ends_where_it_says),
        cmocka_unit_test(test_chunks_are_written_anew),
        cmocka_unit_test(test_chunks_become_plain_bytes_for_an_old_client),
        cmocka_unit_test(test_broken_chunks_are_told),
        cmocka_unit_test(test_a_head_leaves_with_the_first_bytes_of_its_body),
        cmocka_unit_test(test_a_head_does_not_wait_for_a_body_that_is_late),
        cmocka_unit_test(test_a_slow_sink_stops_the_source),
        cmocka_unit_test(test_the_way_bytes_arrive_changes_nothing),
        cmocka_unit_test(test_a_sink_that_left_is_told),
        cmocka_unit_test(test_io_tells_an_end_from_a_pause),
        cmocka_unit_test(test_a_window_keeps_its_bytes_when_it_makes_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
