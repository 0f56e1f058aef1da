#include "proxy/io.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

void proxy_io_init(struct proxy_io *io, int fd)
{
    *io = (struct proxy_io){ .fd = fd };
}

void proxy_io_close(struct proxy_io *io)
{
    if (io->ssl != NULL) {
        if (SSL_is_init_finished(io->ssl)) {
            (void)SSL_shutdown(io->ssl); /* close_notify, without waiting for theirs */
        }
        SSL_free(io->ssl);
        ERR_clear_error();
    }
    if (io->fd >= 0) {
        (void)close(io->fd);
    }
    *io = (struct proxy_io){ .fd = -1 };
}

void proxy_io_cut(struct proxy_io *io)
{
    const struct linger at_once = { .l_onoff = 1 };

    if (io->ssl != NULL) {
        SSL_set_quiet_shutdown(io->ssl, 1);
    }
    if (io->fd >= 0) {
        (void)setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
}

void proxy_io_keep_alive(struct proxy_io *io)
{
    const int on = 1;
    const int idle_s = 60;
    const int every_s = 15;
    const int times = 4;

    /* A unix socket has none of it and needs none. */
    (void)setsockopt(io->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(io->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(io->fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
    (void)setsockopt(io->fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
}

void proxy_io_expect_end(struct proxy_io *io)
{
    if (io->ssl != NULL) {
        (void)SSL_clear_options(io->ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
    }
}

static enum proxy_io_result tls_result(struct proxy_io *io, int code)
{
    switch (SSL_get_error(io->ssl, code)) {
    case SSL_ERROR_WANT_READ:
        io->want_write = false;
        return PROXY_IO_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        io->want_write = true;
        return PROXY_IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return PROXY_IO_END;
    default:
        return PROXY_IO_FAILED;
    }
}

static enum proxy_io_result plain_result(ssize_t n)
{
    if (n > 0) {
        return PROXY_IO_DONE;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return PROXY_IO_AGAIN;
    }
    return n == 0 ? PROXY_IO_END : PROXY_IO_FAILED;
}

enum proxy_io_result proxy_io_read(struct proxy_io *io, void *p, size_t room, size_t *n_out)
{
    ssize_t n = 0;

    *n_out = 0;
    if (io->ssl != NULL) {
        ERR_clear_error();
        if (SSL_read_ex(io->ssl, p, room, n_out) == 1) {
            io->want_write = false;
            io->dry = false;
            return PROXY_IO_DONE;
        }
        io->dry = true;
        return tls_result(io, 0);
    }
    n = recv(io->fd, p, room, 0);
    if (n > 0) {
        *n_out = (size_t)n;
    }
    return plain_result(n);
}

bool proxy_io_pending(const struct proxy_io *io)
{
    return io->ssl != NULL && !io->dry && SSL_has_pending(io->ssl) == 1;
}

static enum proxy_io_result tls_write(struct proxy_io *io, const struct iovec *v, int n,
                                      char *scratch, size_t *n_out)
{
    const char *p = v[0].iov_base;
    size_t size = v[0].iov_len;
    int i = 0;

    if (n > 1) { /* one record for head and body */
        size = 0;
        for (i = 0; i < n && size < PROXY_IO_SCRATCH; i++) {
            size_t take = MIN(v[i].iov_len, PROXY_IO_SCRATCH - size);

            memcpy(scratch + size, v[i].iov_base, take);
            size += take;
        }
        p = scratch;
    }
    ERR_clear_error();
    if (SSL_write_ex(io->ssl, p, size, n_out) == 1) {
        return PROXY_IO_DONE;
    }
    return tls_result(io, 0);
}

enum proxy_io_result proxy_io_write(struct proxy_io *io, const struct iovec *v, int n,
                                    char *scratch, size_t *n_out)
{
    struct msghdr message = { .msg_iov = base_unconst(v), .msg_iovlen = (size_t)n };
    ssize_t sent = 0;

    *n_out = 0;
    if (io->ssl != NULL) {
        return tls_write(io, v, n, scratch, n_out);
    }
    /* The kernel copies no list of pieces in where there is one piece only. */
    sent = n == 1 ? send(io->fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL)
                  : sendmsg(io->fd, &message, MSG_NOSIGNAL);
    if (sent > 0) {
        *n_out = (size_t)sent;
    }
    return sent == 0 ? PROXY_IO_AGAIN : plain_result(sent);
}

enum proxy_io_result proxy_io_end(struct proxy_io *io)
{
    int code = 0;

    if (io->ssl == NULL) {
        return shutdown(io->fd, SHUT_WR) == 0 ? PROXY_IO_DONE : PROXY_IO_FAILED;
    }
    ERR_clear_error();
    code = SSL_shutdown(io->ssl); /* 0: theirs has not come yet */
    return code >= 0 ? PROXY_IO_DONE : tls_result(io, code);
}

enum proxy_io_result proxy_io_handshake(struct proxy_io *io)
{
    int code = 0;

    ERR_clear_error();
    code = SSL_do_handshake(io->ssl);
    io->dry = code != 1;
    return code == 1 ? PROXY_IO_DONE : tls_result(io, code);
}

bool proxy_io_speaks_h2(const struct proxy_io *io)
{
    const unsigned char *alpn = NULL;
    unsigned n = 0;

    if (io->ssl != NULL) {
        SSL_get0_alpn_selected(io->ssl, &alpn, &n);
    }
    return n == 2 && memcmp(alpn, "h2", 2) == 0;
}
