#include "common/rpc/listen.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <grpc/grpc_security.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/listen.h"
#include "common/mem.h"
#include "common/rpc/proof.h"
#include "common/rpc/server.h"
#include "common/secret.h"

enum { LOCK_PATH_SIZE = RPC_UNIX_PATH_SIZE + 8, STREAMS_MAX = 1024, HANDSHAKE_MS = 5000 };

void rpc_listen_init(struct rpc_listen *listen, const struct rpc_identity *identity, bool direct)
{
    *listen = (struct rpc_listen){
        .identity = identity, .lock_fd = -1, .wants_direct = direct, .direct_fd = -1
    };
    (void)pthread_mutex_init(&listen->mutex, NULL);
}

void rpc_listen_deinit(struct rpc_listen *listen)
{
    if (listen->direct_fd >= 0) {
        (void)close(listen->direct_fd);
    }
    if (listen->lock_fd >= 0) {
        (void)unlink(listen->unix_path);
        if (listen->direct_path[0] != '\0') {
            (void)unlink(listen->direct_path);
        }
        (void)close(listen->lock_fd); /* the lock file stays: removing it would race */
    }
    (void)pthread_mutex_destroy(&listen->mutex);
}

grpc_server *rpc_listen_server(void)
{
    char reuse[] = GRPC_ARG_ALLOW_REUSEPORT;
    char in_max[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH;
    char ping_min[] = GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS;
    char idle_pings[] = GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS;
    char ping[] = GRPC_ARG_KEEPALIVE_TIME_MS;
    char ping_wait[] = GRPC_ARG_KEEPALIVE_TIMEOUT_MS;
    char streams[] = GRPC_ARG_MAX_CONCURRENT_STREAMS;
    char handshake[] = GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS;
    char codings[] = GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET;
    grpc_arg args[] = {
        { .type = GRPC_ARG_INTEGER, .key = reuse, .value.integer = 0 },
        { .type = GRPC_ARG_INTEGER, .key = in_max, .value.integer = RPC_MESSAGE_MAX },
        { .type = GRPC_ARG_INTEGER, .key = ping_min, .value.integer = 5000 },
        { .type = GRPC_ARG_INTEGER, .key = idle_pings, .value.integer = 1 },
        { .type = GRPC_ARG_INTEGER, .key = ping, .value.integer = 30000 },
        { .type = GRPC_ARG_INTEGER, .key = ping_wait, .value.integer = 10000 },
        { .type = GRPC_ARG_INTEGER, .key = streams, .value.integer = STREAMS_MAX },
        { .type = GRPC_ARG_INTEGER, .key = handshake, .value.integer = HANDSHAKE_MS },
        /* Identity only: a few compressed kilobytes must not become gigabytes here. */
        { .type = GRPC_ARG_INTEGER, .key = codings, .value.integer = BIT(GRPC_COMPRESS_NONE) },
    };
    grpc_channel_args list = { .num_args = ARRAY_LEN(args), .args = args };

    return grpc_server_create(&list, NULL);
}

/* gRPC asks before every handshake: a certificate is renewed long before it ends. */
static grpc_ssl_certificate_config_reload_status on_certificate(
    void *arg, grpc_ssl_server_certificate_config **config)
{
    struct rpc_listen *listen = arg;
    grpc_ssl_pem_key_cert_pair pair = { 0 };
    char *cert = NULL;
    char *key = NULL;
    bool due = false;

    (void)pthread_mutex_lock(&listen->mutex);
    due = rpc_identity_due(listen->issued_s);
    if (due) {
        listen->issued_s = clock_wall_s();
    }
    (void)pthread_mutex_unlock(&listen->mutex);
    if (!due) {
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    rpc_identity_issue(listen->identity, RPC_CERT_LIFE_S, &cert, &key);
    pair = (grpc_ssl_pem_key_cert_pair){ .private_key = key, .cert_chain = cert };
    *config =
        grpc_ssl_server_certificate_config_create(rpc_identity_ca_pem(listen->identity), &pair, 1);
    secret_wipe(key, strlen(key));
    mem_free(&key);
    mem_free(&cert);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

static grpc_server_credentials *credentials(struct rpc_listen *listen)
{
    if (listen->unix_path[0] != '\0') {
        return grpc_insecure_server_credentials_create(); /* the kernel keeps it private */
    }
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY, on_certificate, listen));
}

/* gRPC would unlink and replace the socket of a process that still lives. */
static enum err take_socket(struct rpc_listen *listen, struct sv path, struct diag *d)
{
    char lock_path[LOCK_PATH_SIZE];
    enum err err = ERR_OK;

    if (path.n == 0 || path.n >= sizeof(listen->unix_path)) {
        diag_set(d, "the socket path '%.*s' is empty or longer than 107 bytes", SV_ARG(path));
        return ERR_INVALID;
    }
    err = rpc_unix_check(path, d);
    if (err != ERR_OK) {
        return err;
    }
    (void)snprintf(lock_path, sizeof(lock_path), "%.*s.lock", SV_ARG(path));
    listen->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (listen->lock_fd < 0) {
        diag_set(d, "cannot create %s: is its directory there and ours?", lock_path);
        return ERR_IO;
    }
    if (flock(listen->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        (void)close(listen->lock_fd);
        listen->lock_fd = -1;
        diag_set(d, "another process serves %.*s", SV_ARG(path));
        return ERR_EXISTS;
    }
    memcpy(listen->unix_path, path.p, path.n);
    return ERR_OK;
}

/* Before gRPC's is there: whoever finds that one alone has an older server before him. */
static enum err open_direct(struct rpc_listen *listen, struct sv path, struct diag *d)
{
    char address[RPC_UNIX_PATH_SIZE + 8];
    char direct[RPC_UNIX_PATH_SIZE];
    enum err err = ERR_OK;

    if (!listen->wants_direct || !rpc_direct_path(path, direct)) {
        return ERR_OK;
    }
    err = rpc_unix_check(sv_from(direct), d);
    if (err == ERR_OK) {
        (void)snprintf(address, sizeof(address), "unix:%s", direct);
        err = listen_open(sv_from(address), &listen->direct_fd, d);
    }
    if (err == ERR_OK) {
        memcpy(listen->direct_path, direct, sizeof(direct));
    }
    return err;
}

enum err rpc_listen_bind(struct rpc_listen *listen, grpc_server *server, const char *address,
                         struct diag *d)
{
    struct sv text = sv_from(address);
    struct sv path = rpc_unix_path(text);
    grpc_server_credentials *creds = NULL;
    mode_t before = 0;
    struct buf name;

    if (sv_starts(text, SV("unix:"))) {
        enum err err = take_socket(listen, path, d);

        err = err != ERR_OK ? err : open_direct(listen, path, d);
        if (err != ERR_OK) {
            return err;
        }
    }
    creds = credentials(listen);
    buf_init(&name, RPC_UNIX_PATH_SIZE + 64);
    buf_add_str(&name, sv_starts(text, SV(":")) ? "[::]" : ""); /* gRPC wants a host */
    buf_add_str(&name, address);
    before = umask(0077); /* the socket is for its owner alone */
    listen->port = grpc_server_add_http2_port(server, buf_cstr(&name), creds);
    (void)umask(before);
    buf_deinit(&name);
    grpc_server_credentials_release(creds);
    if (listen->port == 0) {
        diag_set(d, "cannot listen on %s: the address is in use or not ours", address);
        return ERR_IO;
    }
    return ERR_OK;
}
