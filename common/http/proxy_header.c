#include "common/http/proxy_header.h"

#include <string.h>

#include "common/cidr.h"

enum { V1_MAX = 107, V2_FIXED = 16, V2_TCP4 = 12, V2_TCP6 = 36, V2_UNIX = 216 };

static const struct sv v1_begin = { "PROXY ", 6 };
static const struct sv v2_begin = { "\r\n\r\n\0\r\nQUIT\n", 12 };

/* ---- version 1: a line of text ---------------------------------------------------------------- */

static bool take_ip(struct sv *rest, bool v6, uint8_t ip_out[16])
{
    struct sv text = sv_cut(rest, ' ');

    return rest->p != NULL && (sv_find(text, ':') != SIZE_MAX) == v6 &&
           cidr_ip_parse(text, ip_out) == ERR_OK;
}

static bool read_port(struct sv text, uint16_t *port_out)
{
    uint64_t port = 0;

    if ((text.n > 1 && text.p[0] == '0') || sv_u64(text, UINT16_MAX, &port) != ERR_OK) {
        return false;
    }
    *port_out = (uint16_t)port;
    return true;
}

/* rest: what follows "PROXY TCP4 " or "PROXY TCP6 ": two addresses, two ports. */
static bool v1_addresses(struct sv rest, bool v6, struct http_proxy_header *out)
{
    uint8_t to[16];
    uint16_t to_port = 0;
    struct sv port = { 0 };

    if (!take_ip(&rest, v6, out->address) || !take_ip(&rest, v6, to)) {
        return false;
    }
    port = sv_cut(&rest, ' ');
    out->source = HTTP_PROXY_CLIENT;
    return rest.p != NULL && read_port(port, &out->port) && read_port(rest, &to_port);
}

static enum http_step v1(struct sv in, struct http_proxy_header *out)
{
    size_t end = sv_find(sv_head(in, MIN(in.n, (size_t)V1_MAX)), '\n');
    struct sv line = { 0 };
    bool good = false;

    if (end == SIZE_MAX) {
        return in.n >= V1_MAX ? HTTP_ERROR : HTTP_MORE;
    }
    out->size = end + 1;
    out->version = 1;
    line = sv_head(in, end);
    if (!sv_ends(line, SV("\r"))) {
        return HTTP_ERROR;
    }
    line = sv_from_at(sv_head(line, line.n - 1), v1_begin.n);
    if (sv_starts(line, SV("TCP4 "))) {
        good = v1_addresses(sv_from_at(line, 5), false, out);
    } else if (sv_starts(line, SV("TCP6 "))) {
        good = v1_addresses(sv_from_at(line, 5), true, out);
    } else if (sv_eq(line, SV("UNKNOWN")) || sv_starts(line, SV("UNKNOWN "))) {
        good = true; /* what follows is to be ignored (2.1) */
    }
    return good ? HTTP_DONE : HTTP_ERROR;
}

/* ---- version 2: binary ------------------------------------------------------------------------ */

static uint16_t be16(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* body: addresses, then extensions (TLVs), which nobody here asks for. */
static bool v2_addresses(unsigned char family, struct sv body, struct http_proxy_header *out)
{
    switch (family) {
    case 0x11:
        if (body.n < V2_TCP4) {
            return false;
        }
        memset(out->address, 0, 10);
        memset(out->address + 10, 0xff, 2);
        memcpy(out->address + 12, body.p, 4);
        out->port = be16(body.p + 8);
        out->source = HTTP_PROXY_CLIENT;
        return true;
    case 0x21:
        if (body.n < V2_TCP6) {
            return false;
        }
        memcpy(out->address, body.p, 16);
        out->port = be16(body.p + 32);
        out->source = HTTP_PROXY_CLIENT;
        return true;
    case 0x31:
        return body.n >= V2_UNIX;
    case 0x00:
        return true;
    default: /* datagrams, and what is not assigned */
        return false;
    }
}

static enum http_step v2(struct sv in, struct http_proxy_header *out)
{
    unsigned char command = 0;
    size_t size = 0;

    if (in.n < V2_FIXED) {
        return HTTP_MORE;
    }
    command = (unsigned char)in.p[12];
    size = V2_FIXED + (size_t)be16(in.p + 14);
    if ((command != 0x20 && command != 0x21) || size > HTTP_PROXY_HEADER_MAX) {
        return HTTP_ERROR;
    }
    if (in.n < size) {
        return HTTP_MORE;
    }
    out->size = size;
    out->version = 2;
    if (command == 0x20) { /* LOCAL: family and addresses are to be ignored (2.2) */
        out->source = HTTP_PROXY_SENDER;
        return HTTP_DONE;
    }
    return v2_addresses((unsigned char)in.p[13], sv_of(in.p + V2_FIXED, size - V2_FIXED), out)
               ? HTTP_DONE
               : HTTP_ERROR;
}

/* ---- both ------------------------------------------------------------------------------------- */

static bool begins(struct sv in, struct sv with)
{
    size_t n = MIN(in.n, with.n);

    return n == 0 || memcmp(in.p, with.p, n) == 0;
}

enum http_step http_proxy_header_parse(struct sv in, struct http_proxy_header *header_out)
{
    struct http_proxy_header header = { 0 };
    enum http_step step = HTTP_ERROR;

    if (in.n == 0) {
        return HTTP_MORE;
    }
    if (begins(in, v1_begin)) {
        step = in.n < v1_begin.n ? HTTP_MORE : v1(in, &header);
    } else if (begins(in, v2_begin)) {
        step = v2(in, &header);
    }
    if (step == HTTP_DONE) {
        *header_out = header;
    }
    return step;
}
