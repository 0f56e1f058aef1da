#include "proxy/io.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

static ssize_t tls_result(struct proxy_io *io, int r)
{
    int e = SSL_get_error(io->ssl, r);

    if (e == SSL_ERROR_WANT_READ) {
        return PROXY_IO_AGAIN;
    }
    if (e == SSL_ERROR_WANT_WRITE) {
        io->read_wants_write = true;
        return PROXY_IO_AGAIN;
    }
    if (e == SSL_ERROR_ZERO_RETURN) {
        io->eof = true;
        return 0;
    }
    /* Any other error ends the TLS state: no close_notify may follow (SSL_get_error(3)). */
    ERR_clear_error();
    SSL_set_shutdown(io->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    return PROXY_IO_ERROR;
}

ssize_t proxy_io_read(struct proxy_io *io, void *p, size_t n)
{
    ssize_t r = 0;

    if (io->ssl != NULL) {
        int got = 0;

        ERR_clear_error();
        io->read_wants_write = false;
        got = SSL_read(io->ssl, p, (int)MIN(n, (size_t)INT32_MAX));
        return got > 0 ? got : tls_result(io, got);
    }
    do {
        r = recv(io->fd, p, n, 0);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return errno == EAGAIN ? PROXY_IO_AGAIN : PROXY_IO_ERROR;
    }
    io->eof = r == 0;
    return r;
}

ssize_t proxy_io_write(struct proxy_io *io, const void *p, size_t n)
{
    ssize_t r = 0;

    if (io->ssl != NULL) {
        int put = 0;

        ERR_clear_error();
        put = SSL_write(io->ssl, p, (int)MIN(n, (size_t)INT32_MAX));
        if (put > 0) {
            return put;
        }
        r = tls_result(io, put);
        return r == 0 ? PROXY_IO_ERROR : r;
    }
    do {
        r = send(io->fd, p, n, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return errno == EAGAIN ? PROXY_IO_AGAIN : PROXY_IO_ERROR;
    }
    return r;
}

bool proxy_io_pending(const struct proxy_io *io)
{
    return io->ssl != NULL && SSL_has_pending(io->ssl) != 0;
}

void proxy_io_close(struct proxy_io *io)
{
    if (io->ssl != NULL) {
        if (SSL_is_init_finished(io->ssl)) {
            ERR_clear_error();
            (void)SSL_shutdown(io->ssl);
        }
        ERR_clear_error();
        SSL_free(io->ssl);
        io->ssl = NULL;
    }
    if (io->fd >= 0) {
        (void)close(io->fd);
        io->fd = -1;
    }
}
