/* proxy_io: one non-blocking stream socket, with or without TLS. One thread. */
#pragma once

#include <sys/types.h>

#include <openssl/ssl.h>

#include "common/base.h"

/* What read and write give beside a count: 0 from read is the peer's end. */
enum { PROXY_IO_AGAIN = -1, PROXY_IO_ERROR = -2 };

struct proxy_io {
    int fd;                /* -1: closed */
    SSL *ssl;              /* NULL: plain */
    bool read_wants_write; /* TLS must write before it can read on */
    bool eof;
};

ssize_t proxy_io_read(struct proxy_io *io, void *p, size_t n);
ssize_t proxy_io_write(struct proxy_io *io, const void *p, size_t n);
/* Bytes that read gives without asking the socket. */
bool proxy_io_pending(const struct proxy_io *io);
/* Says good-bye where TLS wants it and the socket takes it at once, and closes. */
void proxy_io_close(struct proxy_io *io);
