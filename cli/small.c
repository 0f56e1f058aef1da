/* The commands of a few lines: ca, healthcheck, hash-password. */
#include <crypt.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "cli/command.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/secret.h"

enum { PASSWORD_MAX = 512, ANSWER_MAX = 64 };

/* ---- ca -------------------------------------------------------------------------------------- */

int cli_ca_main(int argc, char **argv)
{
    struct config *config = NULL;
    struct rpc_identity *identity = NULL;

    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        (void)puts(
            "usage: postern ca\n\nPrints the certificates that a client of the parts' gRPC must "
            "trust. The server's name is ROLE.postern.internal.");
        return 0;
    }
    config = cli_config(NULL);
    if (config == NULL) {
        return 1;
    }
    identity = rpc_identity_new(config->keys, RPC_CLI);
    (void)fputs(rpc_identity_ca_pem(identity), stdout);
    rpc_identity_free(&identity);
    config_unref(&config);
    return 0;
}

/* ---- healthcheck ----------------------------------------------------------------------------- */

static int connect_unix(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&at, sizeof(at)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int connect_tcp(const char *address)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    struct sv host = sv_from(address);
    char host_room[256];
    size_t colon = sv_rfind(host, ':');
    int fd = -1;

    if (colon == SIZE_MAX || colon >= sizeof(host_room)) {
        return -1;
    }
    memcpy(host_room, address, colon);
    host_room[colon] = '\0';
    if (getaddrinfo(colon == 0 ? NULL : host_room, address + colon + 1, &hints, &found) != 0) {
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

bool cli_is_ready(const char *address)
{
    static const char request[] =
        "GET /readyz HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n";
    static const char yes[] = "HTTP/1.1 200";
    struct timeval patience = { .tv_sec = 3 };
    char answer[ANSWER_MAX] = { 0 };
    size_t n = 0;
    int fd = strncmp(address, "unix:", 5) == 0 ? connect_unix(address + 5) : connect_tcp(address);

    if (fd < 0) {
        return false;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(request) - 1) {
        while (n < sizeof(yes) - 1) {
            ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);

            if (got <= 0) {
                break;
            }
            n += (size_t)got;
        }
    }
    (void)close(fd);
    return memcmp(answer, yes, sizeof(yes) - 1) == 0;
}

static bool is_address(const char *text)
{
    struct sv host = sv_from(text);
    size_t colon = sv_rfind(host, ':');
    uint64_t port = 0;

    return (sv_starts(host, SV("unix:")) && host.n > strlen("unix:")) ||
           (colon != SIZE_MAX && sv_u64(sv_from(text + colon + 1), UINT16_MAX, &port) == ERR_OK &&
            port != 0);
}

int cli_healthcheck_main(int argc, char **argv)
{
    if (argc != 2 || argv[1][0] == '-') {
        (void)puts("usage: postern healthcheck ADDRESS\n\nExit code 0 when the part whose "
                   "health_check_addr is ADDRESS (host:port or unix:/path) is ready, else 1.");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    if (!is_address(argv[1])) {
        return cli_fail(2, "%s is no address: host:port or unix:/path", argv[1]);
    }
    return cli_is_ready(argv[1]) ? 0 : cli_fail(1, "%s is not ready", argv[1]);
}

/* ---- hash-password --------------------------------------------------------------------------- */

enum err cli_hash_password(const char *password, struct buf *out)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    void *data = NULL;
    int size = 0;
    char *hash = NULL;

    if (crypt_gensalt_rn("$y$", 0, NULL, 0, setting, (int)sizeof(setting)) == NULL) {
        return ERR_UNSUPPORTED;
    }
    hash = crypt_ra(password, setting, &data, &size);
    if (hash != NULL && hash[0] != '*') {
        buf_add_str(out, hash);
    } else {
        out->err = ERR_INTERNAL;
    }
    secret_wipe(data, (size_t)size);
    mem_release(data);
    return out->err;
}

static bool read_password(char room[PASSWORD_MAX])
{
    struct termios before;
    struct termios quiet;
    bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;
    char *got = NULL;

    if (terminal) {
        quiet = before;
        quiet.c_lflag &= (tcflag_t) ~(unsigned)ECHO;
        (void)fputs("Password: ", stderr);
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    got = fgets(room, PASSWORD_MAX, stdin);
    if (terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        (void)fputc('\n', stderr);
    }
    if (got != NULL) {
        room[strcspn(room, "\r\n")] = '\0';
    }
    return got != NULL && room[0] != '\0';
}

int cli_hash_main(int argc, char **argv)
{
    char password[PASSWORD_MAX] = { 0 };
    struct buf hash;
    int code = 1;

    if (argc > 1) {
        (void)puts(
            "usage: postern hash-password\n\nReads a password from standard input and prints its "
            "yescrypt hash for the users file.");
        return strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    if (!read_password(password)) {
        return cli_fail(1, "no password was given on standard input");
    }
    buf_init(&hash, CRYPT_OUTPUT_SIZE);
    if (cli_hash_password(password, &hash) == ERR_OK) {
        (void)printf("%s\n", buf_cstr(&hash));
        code = 0;
    } else {
        (void)cli_fail(1, "this system's libcrypt knows no yescrypt");
    }
    secret_wipe(password, sizeof(password));
    buf_deinit(&hash);
    return code;
}
