#include "test/support/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base.h"

void test_address_unix(char out[TEST_ADDRESS])
{
    char folder[] = "/tmp/postern-XXXXXX";

    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(out, TEST_ADDRESS, "unix:%s/s", folder);
}

void test_address_remove(const char *unix_address)
{
    char path[TEST_ADDRESS + 8];
    const char *socket_path = unix_address + strlen("unix:");

    (void)snprintf(path, sizeof(path), "%s.lock", socket_path);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s", socket_path);
    (void)unlink(path);
    *strrchr(path, '/') = '\0';
    (void)rmdir(path);
}

void test_address_tcp(char out[TEST_ADDRESS])
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)(void *)&at, sizeof(at)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)(void *)&at, &size) == 0);
    (void)close(fd);
    (void)snprintf(out, TEST_ADDRESS, "127.0.0.1:%d", ntohs(at.sin_port));
}
