#include "common/cidr.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool is_v4(const uint8_t ip[16])
{
    return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

/* *dotted_out: the text was a.b.c.d, so that a length behind it counts from 32. */
static enum err read_ip(struct sv text, uint8_t ip_out[16], bool *dotted_out)
{
    char s[INET6_ADDRSTRLEN];

    if (text.n == 0 || text.n >= sizeof(s) || sv_find(text, '\0') != SIZE_MAX) {
        return ERR_INVALID;
    }
    memcpy(s, text.p, text.n);
    s[text.n] = '\0';
    *dotted_out = sv_find(text, ':') == SIZE_MAX;
    if (!*dotted_out) {
        return inet_pton(AF_INET6, s, ip_out) == 1 ? ERR_OK : ERR_INVALID;
    }
    memcpy(ip_out, mapped, sizeof(mapped));
    return inet_pton(AF_INET, s, ip_out + sizeof(mapped)) == 1 ? ERR_OK : ERR_INVALID;
}

enum err cidr_ip_parse(struct sv text, uint8_t ip_out[16])
{
    bool dotted = false;

    return read_ip(text, ip_out, &dotted);
}

static void clear_host_bits(struct cidr *cidr)
{
    size_t i = 0;

    for (i = 0; i < sizeof(cidr->net); i++) {
        unsigned first = (unsigned)i * 8;

        if (first >= cidr->bits) {
            cidr->net[i] = 0;
        } else if (first + 8 > cidr->bits) {
            cidr->net[i] &= (uint8_t)(0xff00U >> (cidr->bits - first));
        }
    }
}

enum err cidr_parse(struct sv text, struct cidr *cidr_out)
{
    struct cidr cidr = { .bits = 128 };
    struct sv rest = text;
    struct sv ip = sv_cut(&rest, '/');
    bool dotted = false;
    uint64_t bits = 0;

    if (read_ip(ip, cidr.net, &dotted) != ERR_OK) {
        return ERR_INVALID;
    }
    if (rest.p != NULL) {
        bool padded = rest.n > 1 && rest.p[0] == '0';

        if (padded || sv_u64(rest, dotted ? 32 : 128, &bits) != ERR_OK) {
            return ERR_INVALID;
        }
        cidr.bits = (uint8_t)(dotted ? bits + 96 : bits);
    }
    cidr.v4 = is_v4(cidr.net) && cidr.bits >= 96;
    clear_host_bits(&cidr);
    *cidr_out = cidr;
    return ERR_OK;
}

bool cidr_holds(const struct cidr *cidr, const uint8_t ip[16])
{
    size_t whole = cidr->bits / 8;
    unsigned rest = cidr->bits % 8;

    if (cidr->v4 != is_v4(ip) || memcmp(cidr->net, ip, whole) != 0) {
        return false;
    }
    return rest == 0 || ((cidr->net[whole] ^ ip[whole]) & (0xff00U >> rest) & 0xffU) == 0;
}

bool cidr_within(const struct cidr *inner, const struct cidr *outer)
{
    return inner->bits >= outer->bits && cidr_holds(outer, inner->net);
}
