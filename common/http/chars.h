/* http/chars: which byte may stand where; one table for every parser of this folder. Private to
 * common/http/. The unit test derives each row from the RFC's grammar again. */
#pragma once

#include "common/base.h"

enum {
    HTTP_CH_TOKEN = 1,       /* tchar, RFC 9110 §5.6.2 */
    HTTP_CH_VALUE = 2,       /* field-vchar, SP, HTAB, obs-text, RFC 9110 §5.5 */
    HTTP_CH_PATH = 4,        /* pchar without '%', and '/', RFC 3986 §3.3 */
    HTTP_CH_PATH_ENCODE = 8, /* browsers send these raw in paths; we send them encoded */
    HTTP_CH_QUERY = 16,      /* visible ASCII without '#': queries are opaque to us */
    HTTP_CH_UNRESERVED = 32, /* RFC 3986 §2.3 */
    HTTP_CH_HEX = 64,
    HTTP_CH_HOST = 128 /* letter, digit, '-', '.', '_' */
};

extern const uint8_t http_chars[256];

static inline bool http_char_is(char c, unsigned mask)
{
    return (http_chars[(unsigned char)c] & mask) != 0;
}

static inline char http_char_lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c | 0x20) : c;
}

static inline bool http_char_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Value of a hexadecimal digit; c must be one. */
static inline unsigned http_char_hex(char c)
{
    return http_char_is_digit(c) ? (unsigned)(c - '0') : (unsigned)(http_char_lower(c) - 'a' + 10);
}
