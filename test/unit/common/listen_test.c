/* listen: who gets an address when several want it, and sockets that a service manager passes. */
#include "common/listen.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/listen_passed.h"
#include "test/support/cmocka.h"

enum { ROUNDS = 50, RIVALS = 8 };

static unsigned port_of(int fd)
{
    struct sockaddr_in name = { 0 };
    socklen_t n = sizeof(name);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &n), 0);
    return ntohs(name.sin_port);
}

static int open_at(const char *address)
{
    struct diag d = { 0 };
    int fd = -1;

    if (listen_open(sv_from(address), &fd, &d) != ERR_OK) {
        assert_non_null(strstr(d.text, "in use"));
        return -1;
    }
    return fd;
}

/* Listens, with a second socket as a proxy of two workers does, until end is closed. */
static void rival(const char *address, int go, int told, int end)
{
    struct diag d = { 0 };
    char byte = 0;
    int more = -1;
    int fd = -1;

    (void)!read(go, &byte, 1);
    byte = listen_open(sv_from(address), &fd, &d) == ERR_OK &&
                   (address[0] == 'u' || listen_join(fd, &more, &d) == ERR_OK)
               ? 'y'
               : 'n';
    (void)!write(told, &byte, 1);
    (void)!read(end, &byte, 1);
    _exit(0);
}

/* Returns how many of many succeeded; while they live, one of them is to be reached there. */
static int winners_at(const char *address)
{
    char answers[RIVALS];
    struct diag d = { 0 };
    int client = -1;
    int go[2];
    int told[2];
    int end[2];
    int winners = 0;
    int i = 0;

    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(told), 0);
    assert_int_equal(pipe(end), 0);
    for (i = 0; i < RIVALS; i++) {
        if (fork() == 0) {
            (void)close(end[1]);
            rival(address, go[0], told[1], end[0]);
        }
    }
    assert_int_equal(write(go[1], "goooooooo", RIVALS), RIVALS);
    for (i = 0; i < RIVALS; i++) {
        assert_int_equal(read(told[0], &answers[i], 1), 1);
        winners += answers[i] == 'y' ? 1 : 0;
    }
    assert_int_equal(listen_connect(sv_from(address), &client, &d), ERR_OK);
    (void)close(client);
    (void)close(end[1]);
    (void)close(end[0]);
    (void)close(go[0]);
    (void)close(go[1]);
    (void)close(told[0]);
    (void)close(told[1]);
    while (wait(NULL) > 0) {
    }
    return winners;
}

static void of_many_that_listen_at_the_same_instant_one_succeeds(void **state)
{
    int round = 0;

    (void)state;
    for (round = 0; round < ROUNDS; round++) {
        char address[32];
        int probe = open_at("127.0.0.1:0");

        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(probe));
        (void)close(probe);
        assert_int_equal(winners_at(address), 1);
    }
}

/* Each round leaves a dead socket, which all of the next one want to replace. */
static void of_many_that_replace_a_dead_socket_one_succeeds_and_is_reached(void **state)
{
    char folder[] = "/tmp/listen-test-XXXXXX";
    char address[64];
    int round = 0;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(address, sizeof(address), "unix:%s/socket", folder);
    for (round = 0; round < ROUNDS; round++) {
        assert_int_equal(winners_at(address), 1);
    }
    assert_int_equal(unlink(address + 5), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing else is left behind */
}

static void who_holds_the_folder_for_ever_is_not_waited_for(void **state)
{
    char folder[] = "/tmp/listen-test-XXXXXX";
    char address[64];
    struct diag d = { 0 };
    int held = -1;
    int fd = -1;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(address, sizeof(address), "unix:%s/socket", folder);
    held = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(held, LOCK_EX), 0);
    assert_int_equal(listen_open(sv_from(address), &fd, &d), ERR_IO);
    assert_non_null(strstr(d.text, "locked"));
    (void)close(held);
    assert_int_equal(listen_open(sv_from(address), &fd, &d), ERR_OK);
    (void)close(fd);
    assert_int_equal(unlink(address + 5), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void a_joined_address_is_closed_to_everybody_else(void **state)
{
    struct diag d = { 0 };
    char address[32];
    int first = open_at("127.0.0.1:0");
    int more[3] = { -1, -1, -1 };
    size_t i = 0;

    (void)state;
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port_of(first));
    for (i = 0; i < ARRAY_LEN(more); i++) {
        assert_int_equal(listen_join(first, &more[i], &d), ERR_OK);
        assert_int_equal(port_of(more[i]), port_of(first));
        assert_int_equal(open_at(address), -1);
    }
    (void)close(first);
    assert_int_equal(open_at(address), -1); /* as long as one of them is left */
    for (i = 0; i < ARRAY_LEN(more); i++) {
        (void)close(more[i]);
    }
    first = open_at(address);
    assert_int_not_equal(first, -1);
    (void)close(first);
}

/* NOLINTBEGIN(concurrency-mt-unsafe): there is one thread */
/* In a process of its own: descriptors from 3 on are sockets, or not. */
static int passed_in_child(const char *names, const char *fds, bool listening, bool own_pid)
{
    static const char *const known[] = { "http", "health", NULL };
    char pid[16];
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct diag d = { 0 };
        int got[LISTEN_MAX];
        size_t http = 0;
        size_t health = 0;
        int fd = 0;

        for (fd = 3; fd < 6; fd++) {
            int s = socket(AF_INET, SOCK_STREAM, 0);

            if ((listening && listen(s, 1) != 0) || dup2(s, fd) != fd) {
                _exit(99);
            }
        }
        (void)snprintf(pid, sizeof(pid), "%d", own_pid ? (int)getpid() : 1);
        (void)setenv("LISTEN_PID", pid, 1);
        (void)setenv("LISTEN_FDS", fds, 1);
        (void)(names == NULL ? unsetenv("LISTEN_FDNAMES") : setenv("LISTEN_FDNAMES", names, 1));
        if (listen_passed_init(known, &d) != ERR_OK) {
            _exit(d.text[0] == '\0' ? 98 : 90);
        }
        http = listen_passed("http", got);
        if (http != 0 && ((fcntl(got[0], F_GETFD) & FD_CLOEXEC) == 0 ||
                          (fcntl(got[0], F_GETFL) & O_NONBLOCK) == 0)) {
            _exit(97);
        }
        health = listen_passed("health", got);
        if (listen_passed("http", got) != 0 || getenv("LISTEN_FDS") != NULL) {
            http = 0;
        }
        _exit((int)(http * 10 + health));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* NOLINTEND(concurrency-mt-unsafe) */

static void passed_sockets_go_to_the_listener_of_their_name(void **state)
{
    (void)state;
    assert_int_equal(passed_in_child("http:health", "2", true, true), 11);
    assert_int_equal(passed_in_child("http:health:http", "3", true, true), 21);
    assert_int_equal(passed_in_child(NULL, "1", true, true), 10);
    assert_int_equal(passed_in_child("postern-proxy.socket:postern-proxy.socket", "2", true, true),
                     20);
    assert_int_equal(passed_in_child("health", "1", true, true), 1);
    assert_int_equal(passed_in_child("grpc", "1", true, true), 90);
    assert_int_equal(passed_in_child("http:htp", "2", true, true), 90);
    assert_int_equal(passed_in_child("http", "1", false, true), 90); /* it does not listen */
    assert_int_equal(passed_in_child("http", "9", true, true), 90);  /* there are not so many */
    assert_int_equal(passed_in_child("http", "9999", true, true), 90);
}

static void sockets_of_another_process_are_not_ours(void **state)
{
    int fd = open_at("127.0.0.1:0");

    (void)state;
    assert_int_not_equal(passed_in_child("http", "1", true, false), 10);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_many_that_listen_at_the_same_instant_one_succeeds),
        cmocka_unit_test(of_many_that_replace_a_dead_socket_one_succeeds_and_is_reached),
        cmocka_unit_test(who_holds_the_folder_for_ever_is_not_waited_for),
        cmocka_unit_test(a_joined_address_is_closed_to_everybody_else),
        cmocka_unit_test(passed_sockets_go_to_the_listener_of_their_name),
        cmocka_unit_test(sockets_of_another_process_are_not_ours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
