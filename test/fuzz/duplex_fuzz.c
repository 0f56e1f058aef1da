/* The bytes of a connection with one gRPC stream, into either end of it. The first byte chooses the end
 * and what it does, the second how the rest is cut. */
#include <string.h>

#include "common/mem.h"
#include "common/rpc/duplex.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { AS_CLIENT = 1, REFUSE = 2, ECHO = 4, END = 8, SLOW = 16, MESSAGE_MAX = 4096 };

static void take_all(struct rpc_duplex *d, unsigned mode)
{
    struct sv message;

    while (rpc_duplex_next(d, &message) == ERR_OK) {
        must(message.n <= MESSAGE_MAX);
        if ((mode & ECHO) != 0 && rpc_duplex_can_send(d)) {
            rpc_duplex_send(d, message);
        }
        if ((mode & (END | AS_CLIENT)) == END) {
            rpc_duplex_end(d, RPC_ABORTED, "enough");
        }
    }
}

/* False: the connection would be closed. */
static bool write_all(struct rpc_duplex *d, unsigned mode)
{
    struct sv out = { 0 };

    do {
        if (rpc_duplex_out(d, &out) != ERR_OK) {
            return false;
        }
        rpc_duplex_wrote(d, (mode & SLOW) != 0 ? MIN(out.n, (size_t)100) : out.n);
    } while (out.n != 0 && (mode & SLOW) == 0);
    return true;
}

static bool step(struct rpc_duplex *d, unsigned mode, struct sv bytes, bool *accepted)
{
    struct sv path;
    struct sv shown;

    if (rpc_duplex_feed(d, bytes) != ERR_OK) {
        (void)write_all(d, mode);
        return false;
    }
    if (!*accepted && !rpc_duplex_is_over(d) && rpc_duplex_asked(d, &path, &shown)) {
        must(path.n <= RPC_DUPLEX_HEAD_MAX && shown.n <= RPC_DUPLEX_HEAD_MAX);
        *accepted = true;
        if ((mode & REFUSE) != 0) {
            rpc_duplex_end(d, RPC_UNAUTHENTICATED, "who is that?");
        } else {
            rpc_duplex_accept(d);
        }
    }
    take_all(d, mode);
    return write_all(d, mode) && !rpc_duplex_is_over(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_duplex *d = NULL;
    unsigned mode = size < 2 ? 0 : data[0];
    size_t cut = size < 2 ? 1 : (size_t)data[1] + 1;
    bool accepted = (mode & AS_CLIENT) != 0;

    d = accepted ? rpc_duplex_client_new(MESSAGE_MAX, "/a.B/C", "localhost", SV("Postern x"))
                 : rpc_duplex_server_new(MESSAGE_MAX);
    for (size_t at = 2; at < size; at += cut) {
        if (!step(d, mode, sv_of(data + at, MIN(cut, size - at)), &accepted)) {
            break;
        }
    }
    rpc_duplex_free(&d);
    return 0;
}
