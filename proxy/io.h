/* proxy_io: one non-blocking socket, plain or TLS. Reads and writes until the socket would block;
 * never waits. TLS: SSL_set_fd with read-ahead; bytes that OpenSSL holds raise no event, so whoever
 * stops reading before AGAIN asks proxy_io_pending. Owned by one worker. */
#pragma once

#include <sys/uio.h>

#include <openssl/ssl.h>

#include "common/base.h"

enum proxy_io_result {
    PROXY_IO_FAILED = 0,
    PROXY_IO_DONE,  /* some bytes moved */
    PROXY_IO_AGAIN, /* none now; wait for the socket */
    PROXY_IO_END    /* the peer closed its side in order */
};

struct proxy_io {
    int fd;          /* -1: none */
    SSL *ssl;        /* NULL: plain */
    bool want_write; /* a TLS read or handshake waits for room to write */
    bool dry;        /* the last read or handshake found less than a record */
};

void proxy_io_init(struct proxy_io *io, int fd);
void proxy_io_close(struct proxy_io *io);
/* The close to come is no end in order: a reset, without close_notify, so that the peer does not take
 * what it has for all there was. What it was not sent yet is lost. */
void proxy_io_cut(struct proxy_io *io);
/* The kernel asks a silent peer whether it is still there: about two minutes, then reads fail. */
void proxy_io_keep_alive(struct proxy_io *io);
/* From now on a peer that goes without close_notify has failed, not ended. */
void proxy_io_expect_end(struct proxy_io *io);
enum proxy_io_result proxy_io_read(struct proxy_io *io, void *p, size_t room, size_t *n_out);
/* Whether a read may find something that the socket no longer has. The beginning of a record does
 * not count: asking for its rest would be a busy wait. */
bool proxy_io_pending(const struct proxy_io *io);

/* Writes the pieces in order; scratch joins them for TLS, at least PROXY_IO_SCRATCH bytes. */
enum { PROXY_IO_SCRATCH = 16384 };
enum proxy_io_result proxy_io_write(struct proxy_io *io, const struct iovec *v, int n,
                                    char *scratch, size_t *n_out);
/* Ends our direction in order; what the peer still says can be read. AGAIN: call again when there is
 * room to write. */
enum proxy_io_result proxy_io_end(struct proxy_io *io);
/* Goes on with the handshake: DONE when it is over. */
enum proxy_io_result proxy_io_handshake(struct proxy_io *io);
/* Whether ALPN chose HTTP/2. */
bool proxy_io_speaks_h2(const struct proxy_io *io);
