#include "common/http/name.h"

#include <string.h>

#include "common/http/chars.h"
#include "common/mem.h"

/* clang-format off */
static const struct sv names[HTTP_H_COUNT] = {
    [HTTP_H_OTHER] = { "", 0 },
#define NAME_TEXT(id, text, class) [HTTP_H_##id] = { (text), sizeof(text) - 1 },
    HTTP_NAMES(NAME_TEXT)
#undef NAME_TEXT
};

const uint8_t http_name_classes[HTTP_H_COUNT] = {
#define NAME_CLASS(id, text, class) [HTTP_H_##id] = (class),
    HTTP_NAMES(NAME_CLASS)
#undef NAME_CLASS
};

/* clang-format on */

/* Found by trying multipliers: no two names share a slot. The unit test looks every name up, so a name
 * added without a slot fails it. */
enum { SLOTS = 512, MUL_LEN = 228, MUL_FIRST = 495, MUL_LAST_BUT_ONE = 446, MUL_MIDDLE = 124 };

_Static_assert(HTTP_H_COUNT < 255, "slots are bytes");

/* clang-format off */
static const uint8_t slots[SLOTS] = {
    [1] = HTTP_H_IF_NONE_MATCH,
    [9] = HTTP_H_EXPECT,
    [27] = HTTP_H_ACCESS_CONTROL_REQUEST_HEADERS,
    [34] = HTTP_H_LAST_MODIFIED,
    [48] = HTTP_H_FORWARDED,
    [61] = HTTP_H_CONTENT_ENCODING,
    [67] = HTTP_H_SEC_WEBSOCKET_PROTOCOL,
    [71] = HTTP_H_SEC_WEBSOCKET_VERSION,
    [87] = HTTP_H_CACHE_CONTROL,
    [89] = HTTP_H_EXPIRES,
    [93] = HTTP_H_KEEP_ALIVE,
    [110] = HTTP_H_X_POMERIUM_JWT_ASSERTION,
    [139] = HTTP_H_UPGRADE_INSECURE_REQUESTS,
    [144] = HTTP_H_X_REQUESTED_WITH,
    [145] = HTTP_H_ACCESS_CONTROL_REQUEST_METHOD,
    [146] = HTTP_H_X_REQUEST_ID,
    [149] = HTTP_H_IF_RANGE,
    [151] = HTTP_H_CONTENT_DISPOSITION,
    [160] = HTTP_H_VIA,
    [163] = HTTP_H_CONTENT_RANGE,
    [173] = HTTP_H_ACCEPT_LANGUAGE,
    [182] = HTTP_H_HOST,
    [191] = HTTP_H_SEC_FETCH_USER,
    [203] = HTTP_H_ORIGIN,
    [211] = HTTP_H_SERVER,
    [212] = HTTP_H_X_FRAME_OPTIONS,
    [213] = HTTP_H_ETAG,
    [224] = HTTP_H_TRANSFER_ENCODING,
    [225] = HTTP_H_SEC_FETCH_SITE,
    [227] = HTTP_H_MAX_FORWARDS,
    [229] = HTTP_H_ACCEPT_RANGES,
    [243] = HTTP_H_ACCEPT,
    [249] = HTTP_H_STRICT_TRANSPORT_SECURITY,
    [250] = HTTP_H_X_ENVOY_EXTERNAL_ADDRESS,
    [256] = HTTP_H_PRIORITY,
    [257] = HTTP_H_SEC_FETCH_MODE,
    [271] = HTTP_H_CONTENT_SECURITY_POLICY,
    [272] = HTTP_H_PROXY_AUTHENTICATE,
    [274] = HTTP_H_X_FORWARDED_HOST,
    [280] = HTTP_H_TE,
    [289] = HTTP_H_SEC_WEBSOCKET_ACCEPT,
    [291] = HTTP_H_SEC_FETCH_DEST,
    [299] = HTTP_H_ALT_SVC,
    [303] = HTTP_H_SEC_PURPOSE,
    [308] = HTTP_H_DATE,
    [315] = HTTP_H_SEC_WEBSOCKET_KEY,
    [318] = HTTP_H_PROXY_AUTHORIZATION,
    [336] = HTTP_H_LINK,
    [337] = HTTP_H_ALT_USED,
    [340] = HTTP_H_X_FORWARDED_PORT,
    [346] = HTTP_H_TRAILER,
    [349] = HTTP_H_WWW_AUTHENTICATE,
    [353] = HTTP_H_AUTHORIZATION,
    [358] = HTTP_H_PURPOSE,
    [365] = HTTP_H_CONTENT_TYPE,
    [366] = HTTP_H_X_XSS_PROTECTION,
    [374] = HTTP_H_X_POMERIUM_AUTHORIZATION,
    [378] = HTTP_H_PROXY_CONNECTION,
    [379] = HTTP_H_ACCEPT_ENCODING,
    [385] = HTTP_H_IF_MODIFIED_SINCE,
    [390] = HTTP_H_LOCATION,
    [391] = HTTP_H_COOKIE,
    [396] = HTTP_H_REFERER,
    [398] = HTTP_H_VARY,
    [401] = HTTP_H_AGE,
    [412] = HTTP_H_RANGE,
    [413] = HTTP_H_IF_MATCH,
    [427] = HTTP_H_CONNECTION,
    [434] = HTTP_H_PRAGMA,
    [436] = HTTP_H_X_FORWARDED_PROTO,
    [451] = HTTP_H_USER_AGENT,
    [457] = HTTP_H_CONTENT_LENGTH,
    [487] = HTTP_H_UPGRADE,
    [494] = HTTP_H_HTTP2_SETTINGS,
    [496] = HTTP_H_FROM,
    [497] = HTTP_H_ACCEPT_CHARSET,
    [502] = HTTP_H_X_REAL_IP,
    [503] = HTTP_H_SET_COOKIE,
    [508] = HTTP_H_RETRY_AFTER,
    [510] = HTTP_H_X_FORWARDED_FOR,
};

/* clang-format on */

/* Only a hint: capital letters meet their small ones here, and a few odd bytes meet others. */
static unsigned near_lower(char c)
{
    return (unsigned char)c | 0x20U;
}

/* Of two bytes and more. */
static unsigned name_slot(struct sv s)
{
    return ((unsigned)s.n * MUL_LEN + near_lower(s.p[0]) * MUL_FIRST +
            near_lower(s.p[s.n - 2]) * MUL_LAST_BUT_ONE + near_lower(s.p[s.n / 2]) * MUL_MIDDLE) %
           SLOTS;
}

static uint64_t word(const char *p)
{
    uint64_t x = 0;

    memcpy(&x, p, sizeof(x));
    return x;
}

/* From four to seven bytes, some of them twice. */
static uint64_t short_word(struct sv s)
{
    uint32_t x = 0;
    uint32_t y = 0;

    memcpy(&x, s.p, sizeof(x));
    memcpy(&y, s.p + s.n - 4, sizeof(y));
    return (uint64_t)x << 32U | y;
}

/* b holds small letters, digits and '-' only. A letter may differ in the bit that makes it a capital;
 * of those three only letters have bit 0x40. */
static bool same_word(uint64_t a, uint64_t b)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);

    return ((a ^ b) & ~((b & (ones * 0x40)) >> 1U)) == 0;
}

/* b is a name of the table. */
static bool same_folded(struct sv a, struct sv b)
{
    size_t i = 0;

    if (a.n != b.n) {
        return false;
    }
    if (a.n >= 8) {
        for (i = 0; i + 8 <= a.n; i += 8) {
            if (!same_word(word(a.p + i), word(b.p + i))) {
                return false;
            }
        }
        /* the rest again with some of what was compared */
        return same_word(word(a.p + a.n - 8), word(b.p + b.n - 8));
    }
    if (a.n >= 4) {
        return same_word(short_word(a), short_word(b));
    }
    for (i = 0; i < a.n; i++) {
        if (http_char_lower(a.p[i]) != b.p[i]) {
            return false;
        }
    }
    return true;
}

enum http_name http_name_id(struct sv name)
{
    unsigned id = name.n < 2 ? HTTP_H_OTHER : slots[name_slot(name)];

    return id != HTTP_H_OTHER && same_folded(name, names[id]) ? (enum http_name)id : HTTP_H_OTHER;
}

struct sv http_name_text(enum http_name id)
{
    return (unsigned)id < HTTP_H_COUNT ? names[id] : SV("");
}

bool http_is_token(struct sv s)
{
    size_t i = 0;

    for (i = 0; i < s.n; i++) {
        if (!http_char_is(s.p[i], HTTP_CH_TOKEN)) {
            return false;
        }
    }
    return s.n > 0;
}

bool http_is_value(struct sv s)
{
    size_t i = 0;

    for (i = 0; i < s.n; i++) {
        if (!http_char_is(s.p[i], HTTP_CH_VALUE)) {
            return false;
        }
    }
    return sv_trim(s).n == s.n;
}

static char loose(char c)
{
    bool alnum =
        http_char_is(c, HTTP_CH_UNRESERVED) && c != '-' && c != '.' && c != '_' && c != '~';

    return alnum ? http_char_lower(c) : '-';
}

bool http_name_eq_loose(struct sv a, struct sv b)
{
    size_t i = 0;

    if (a.n != b.n) {
        return false;
    }
    for (i = 0; i < a.n; i++) {
        if (loose(a.p[i]) != loose(b.p[i])) {
            return false;
        }
    }
    return true;
}

/* Members lie in chains by a hash of their folded text. Nearly every name of a request is no
 * member and is told apart by its length and first byte, before anything is hashed. */
enum { CHAINS = 64, LENGTHS = 64 };

struct member {
    struct member *next;
    struct sv name; /* folded; memory behind the struct */
};

struct http_name_set {
    struct member *chain[CHAINS];
    struct member *prefixes;
    uint64_t first_of_len[LENGTHS]; /* by length: bit first byte % 64 of the names that long */
    struct http_name_bits numbers;
    size_t count;
};

static unsigned fold_hash(struct sv s)
{
    uint32_t h = 2166136261U;
    size_t i = 0;

    for (i = 0; i < s.n; i++) {
        h = (h ^ (unsigned char)loose(s.p[i])) * 16777619U;
    }
    return (h ^ (h >> 16U)) % CHAINS;
}

static uint64_t first_bit(char c)
{
    return UINT64_C(1) << ((unsigned char)loose(c) % 64U);
}

struct http_name_set *http_name_set_new(void)
{
    return MEM_NEW(struct http_name_set);
}

static void members_free(struct member *m)
{
    while (m != NULL) {
        struct member *next = m->next;

        mem_free(&m);
        m = next;
    }
}

void http_name_set_free(struct http_name_set **set)
{
    size_t i = 0;

    if (*set == NULL) {
        return;
    }
    for (i = 0; i < CHAINS; i++) {
        members_free((*set)->chain[i]);
    }
    members_free((*set)->prefixes);
    mem_free(set);
}

static void note_numbers(struct http_name_set *set, struct sv name, bool prefix)
{
    for (unsigned id = HTTP_H_OTHER + 1; id < HTTP_H_COUNT; id++) {
        struct sv text = names[id];

        if (prefix && text.n > name.n) {
            text.n = name.n;
        }
        if (http_name_eq_loose(text, name)) {
            http_name_bits_add(&set->numbers, id);
        }
    }
}

static enum err member_add(struct http_name_set *set, struct member **head, struct sv name)
{
    struct member *m = NULL;
    char *text = NULL;
    size_t i = 0;

    if (!http_is_token(name)) {
        return ERR_INVALID;
    }
    if (set->count >= HTTP_NAME_SET_MAX) {
        return ERR_LIMIT;
    }
    m = mem_alloc(sizeof(*m) + name.n);
    text = (char *)(m + 1);
    for (i = 0; i < name.n; i++) {
        text[i] = loose(name.p[i]);
    }
    m->name = sv_of(text, name.n);
    m->next = *head;
    *head = m;
    set->count++;
    note_numbers(set, name, head == &set->prefixes);
    return ERR_OK;
}

enum err http_name_set_add(struct http_name_set *set, struct sv name)
{
    enum err err = member_add(set, &set->chain[fold_hash(name)], name);

    if (err == ERR_OK) {
        set->first_of_len[name.n % LENGTHS] |= first_bit(name.p[0]);
    }
    return err;
}

enum err http_name_set_add_prefix(struct http_name_set *set, struct sv prefix)
{
    return member_add(set, &set->prefixes, prefix);
}

bool http_name_set_has(const struct http_name_set *set, struct sv name)
{
    const struct member *m = NULL;
    char first = 0;

    if (set == NULL || name.n == 0) {
        return false;
    }
    first = loose(name.p[0]);
    for (m = set->prefixes; m != NULL; m = m->next) {
        if (first == m->name.p[0] && name.n >= m->name.n &&
            http_name_eq_loose(sv_head(name, m->name.n), m->name)) {
            return true;
        }
    }
    if ((set->first_of_len[name.n % LENGTHS] & first_bit(name.p[0])) == 0) {
        return false;
    }
    for (m = set->chain[fold_hash(name)]; m != NULL; m = m->next) {
        if (http_name_eq_loose(name, m->name)) {
            return true;
        }
    }
    return false;
}

const struct http_name_bits *http_name_set_numbers(const struct http_name_set *set)
{
    static const struct http_name_bits none = { .words = { 0 } };

    return set == NULL ? &none : &set->numbers;
}
