#include "common/b64.h"

#include <string.h>

#include <openssl/evp.h>

#include "common/mem.h"
#include "common/secret.h"

enum { B64_MAX = 64 * 1024 * 1024 };

size_t b64_decoded_max(size_t n)
{
    return n / 4 * 3 + 3;
}

/* Copies text into the standard alphabet with padding. False where a character is foreign. */
static bool to_standard(struct sv text, char *std, size_t *n_out)
{
    size_t n = 0;
    size_t i = 0;

    while (text.n > 0 && text.p[text.n - 1] == '=' && n < 2) {
        text.n--;
        n++;
    }
    if (n != 0 && (text.n + n) % 4 != 0) {
        return false;
    }
    for (i = 0; i < text.n; i++) {
        char c = text.p[i];

        c = c == '-' ? '+' : (c == '_' ? '/' : c);
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/')) {
            return false;
        }
        std[i] = c;
    }
    if (text.n % 4 == 1) {
        return false;
    }
    for (n = text.n; n % 4 != 0; n++) {
        std[n] = '=';
    }
    *n_out = n;
    return true;
}

enum err b64_decode(struct sv text, void *out, size_t room, size_t *n_out)
{
    char *std = NULL;
    char *again = NULL;
    size_t n = 0;
    size_t pad = 0;
    enum err err = ERR_INVALID;

    if (text.n > B64_MAX || room < b64_decoded_max(text.n)) {
        return ERR_LIMIT;
    }
    if (text.n == 0) {
        *n_out = 0;
        return ERR_OK;
    }
    std = mem_alloc(text.n + 4);
    if (to_standard(text, std, &n)) {
        int got = EVP_DecodeBlock(out, (const unsigned char *)std, (int)n);

        pad = std[n - 1] == '=' ? (std[n - 2] == '=' ? 2 : 1) : 0;
        if (got >= 0 && (size_t)got >= pad) {
            *n_out = (size_t)got - pad;
            /* One text for one value: bits beyond the last byte must be zero. */
            again = mem_alloc(n + 1);
            (void)EVP_EncodeBlock((unsigned char *)again, out, (int)*n_out);
            err = memcmp(again, std, n) == 0 ? ERR_OK : ERR_INVALID;
            secret_wipe(again, n);
            mem_free(&again);
        }
    }
    secret_wipe(std, text.n + 4);
    mem_free(&std);
    return err;
}

void b64_std_add(struct buf *b, struct sv bytes)
{
    char *at = NULL;

    if (bytes.n > B64_MAX) {
        b->err = ERR_LIMIT;
        return;
    }
    at = buf_room(b, (bytes.n + 2) / 3 * 4 + 1);
    if (at != NULL && bytes.n != 0) {
        int n = EVP_EncodeBlock((unsigned char *)at, (const unsigned char *)bytes.p, (int)bytes.n);

        buf_grew(b, (size_t)n);
    }
}

void b64_url_add(struct buf *b, struct sv bytes)
{
    size_t start = b->n;
    size_t i = 0;

    b64_std_add(b, bytes);
    if (b->err != ERR_OK) {
        return;
    }
    while (b->n > start && b->p[b->n - 1] == '=') {
        b->n--;
    }
    for (i = start; i < b->n; i++) {
        b->p[i] = b->p[i] == '+' ? '-' : (b->p[i] == '/' ? '_' : b->p[i]);
    }
}

void hex_add(struct buf *b, struct sv bytes)
{
    static const char digits[] = "0123456789abcdef";
    size_t i = 0;

    for (i = 0; i < bytes.n; i++) {
        unsigned char c = (unsigned char)bytes.p[i];

        buf_add_char(b, digits[c >> 4U]);
        buf_add_char(b, digits[c & 15U]);
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

enum err hex_decode(struct sv text, void *out, size_t room, size_t *n_out)
{
    unsigned char *bytes = out;
    size_t i = 0;

    if (text.n % 2 != 0) {
        return ERR_INVALID;
    }
    if (room < text.n / 2) {
        return ERR_LIMIT;
    }
    for (i = 0; i < text.n; i += 2) {
        int high = hex_digit(text.p[i]);
        int low = hex_digit(text.p[i + 1]);

        if (high < 0 || low < 0) {
            return ERR_INVALID;
        }
        bytes[i / 2] = (unsigned char)((unsigned)high << 4U | (unsigned)low);
    }
    *n_out = text.n / 2;
    return ERR_OK;
}
