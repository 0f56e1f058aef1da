#include "cli/demo_ws.h"

#include <openssl/evp.h>

#include "common/b64.h"

enum { OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10, FIN = 0x80, MASKED = 0x80 };

enum err cli_demo_ws_accept(struct buf *out, const struct http_head *head)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */
    const struct http_field *key = http_head_find(head, SV("sec-websocket-key"));
    const struct http_field *version = http_head_find(head, SV("sec-websocket-version"));
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    struct buf text;
    enum err err = ERR_INVALID;

    buf_init(&text, 256);
    if (head->websocket && key != NULL && version != NULL && sv_eq(version->value, SV("13"))) {
        buf_add_sv(&text, key->value);
        buf_add_str(&text, guid);
        err = text.err == ERR_OK && EVP_Digest(text.p, text.n, sum, &n, EVP_sha1(), NULL) == 1
                  ? ERR_OK
                  : ERR_INVALID;
    }
    buf_deinit(&text);
    if (err != ERR_OK) {
        return err;
    }
    buf_add_str(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    b64_std_add(out, sv_of(sum, n));
    buf_add_str(out, "\r\n\r\n");
    return ERR_OK;
}

/* Size of the payload and of all that stands before it. */
static enum err frame_size(const unsigned char *p, size_t n, size_t *header_out, size_t *size_out)
{
    size_t short_size = n < 2 ? 0 : p[1] & 0x7fU;
    size_t extra = short_size == 126 ? 2 : (short_size == 127 ? 8 : 0);
    uint64_t size = short_size;

    if (n < 2 + extra + 4) {
        return ERR_AGAIN;
    }
    if (extra != 0) {
        size = 0;
        for (size_t i = 0; i < extra; i++) {
            size = size << 8 | p[2 + i];
        }
    }
    if (size > CLI_DEMO_FRAME_MAX) {
        return ERR_LIMIT;
    }
    *header_out = 2 + extra + 4;
    *size_out = (size_t)size;
    return ERR_OK;
}

static void frame_head(struct buf *out, unsigned char first, size_t size)
{
    buf_add_char(out, (char)first);
    if (size < 126) {
        buf_add_char(out, (char)size);
    } else if (size < 65536) {
        buf_add_char(out, 126);
        buf_add_char(out, (char)(size >> 8));
        buf_add_char(out, (char)(size & 0xff));
    } else {
        buf_add_char(out, 127);
        for (int shift = 56; shift >= 0; shift -= 8) {
            buf_add_char(out, (char)((uint64_t)size >> shift & 0xff));
        }
    }
}

enum err cli_demo_ws_frame(struct sv in, struct buf *out, size_t *used_out)
{
    const unsigned char *p = (const unsigned char *)in.p;
    size_t header = 0;
    size_t size = 0;
    unsigned op = in.n == 0 ? 0 : p[0] & 0x0fU;
    enum err err = ERR_OK;

    if (in.n < 2) {
        return ERR_AGAIN;
    }
    if ((p[1] & MASKED) == 0 || (p[0] & 0x70) != 0) {
        return ERR_INVALID; /* RFC 6455 §5.1: clients mask; no extension was agreed on */
    }
    err = frame_size(p, in.n, &header, &size);
    if (err != ERR_OK) {
        return err;
    }
    if (in.n < header + size) {
        return ERR_AGAIN;
    }
    *used_out = header + size;
    if (op == OP_PONG) {
        return ERR_OK;
    }
    frame_head(out, (unsigned char)(op == OP_PING ? FIN | OP_PONG : p[0]), size);
    for (size_t i = 0; i < size; i++) {
        buf_add_char(out, (char)(p[header + i] ^ p[header - 4 + i % 4]));
    }
    return op == OP_CLOSE ? ERR_CANCELLED : ERR_OK;
}
