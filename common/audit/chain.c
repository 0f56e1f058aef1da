#include "common/audit/chain.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/rand.h"
#include "common/secret.h"

static const char digits[] = "0123456789abcdef";
static const struct sv opened = { "audit opened", 12 };
static const struct sv closed = { "audit closed", 12 };

/* --- sums ------------------------------------------------------------------------------------- */

struct audit_summer {
    EVP_MAC_CTX *mac; /* HMAC */
    EVP_MD_CTX *md;   /* SHA-256 */
};

struct audit_summer *audit_summer_new(enum config_audit_chain kind, const struct keys *keys,
                                      size_t slot)
{
    struct audit_summer *s = MEM_NEW(struct audit_summer);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    uint8_t key[AUDIT_SUM_BYTES];
    EVP_MAC *mac = NULL;

    if (kind != CONFIG_AUDIT_CHAIN_HMAC) {
        s->md = EVP_MD_CTX_new();
        CHECK(s->md != NULL);
        return s;
    }
    mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    s->mac = EVP_MAC_CTX_new(mac);
    EVP_MAC_free(mac);
    keys_derive(keys, slot, KEYS_AUDIT, key, sizeof(key));
    CHECK(s->mac != NULL && EVP_MAC_init(s->mac, key, sizeof(key), params) == 1);
    secret_wipe(key, sizeof(key));
    return s;
}

void audit_summer_free(struct audit_summer **summer)
{
    struct audit_summer *s = TAKE(*summer);

    if (s != NULL) {
        EVP_MAC_CTX_free(s->mac);
        EVP_MD_CTX_free(s->md);
        mem_free(&s);
    }
}

void audit_summer_sum(struct audit_summer *s, const uint8_t prev[AUDIT_SUM_BYTES],
                      struct sv covered, uint8_t sum_out[AUDIT_SUM_BYTES])
{
    const uint8_t *text = (const uint8_t *)covered.p;
    size_t n = 0;

    if (s->mac == NULL) {
        CHECK(EVP_DigestInit_ex(s->md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(s->md, prev, AUDIT_SUM_BYTES) == 1 &&
              EVP_DigestUpdate(s->md, text, covered.n) == 1 &&
              EVP_DigestFinal_ex(s->md, sum_out, NULL) == 1);
        return;
    }
    CHECK(EVP_MAC_init(s->mac, NULL, 0, NULL) == 1 && /* the key stays */
          EVP_MAC_update(s->mac, prev, AUDIT_SUM_BYTES) == 1 &&
          EVP_MAC_update(s->mac, text, covered.n) == 1 &&
          EVP_MAC_final(s->mac, sum_out, &n, AUDIT_SUM_BYTES) == 1 && n == AUDIT_SUM_BYTES);
}

static void add_hex(struct buf *out, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_add_char(out, digits[p[i] >> 4U]);
        buf_add_char(out, digits[p[i] & 15U]);
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

void audit_chain_init(struct audit_chain *c, enum config_audit_chain kind, const struct keys *keys)
{
    uint8_t id[AUDIT_ID_TEXT / 2];

    *c = (struct audit_chain){ .kind = kind };
    if (kind == CONFIG_AUDIT_CHAIN_OFF) {
        return;
    }
    rand_bytes(id, sizeof(id));
    for (size_t i = 0; i < sizeof(id); i++) {
        c->id[2 * i] = digits[id[i] >> 4U];
        c->id[2 * i + 1] = digits[id[i] & 15U];
    }
    c->summer = audit_summer_new(kind, keys, 0);
}

void audit_chain_deinit(struct audit_chain *c)
{
    audit_summer_free(&c->summer);
}

bool audit_chain_resume(struct audit_chain *c, struct sv line)
{
    struct audit_link link;

    if (!audit_link_read(line, &link) || link.kind != c->kind) {
        return false;
    }
    memcpy(c->id, link.id, sizeof(c->id));
    memcpy(c->sum, link.sum, sizeof(c->sum));
    c->seq = link.seq;
    return true;
}

/* The line's text up to its last brace stands at out's end, from `from` on. */
static void seal(struct audit_chain *c, size_t from, struct buf *out)
{
    c->seq++;
    log_add_str(out, LOG_KEY("chain"), c->id);
    log_add_u64(out, LOG_KEY("seq"), c->seq);
    if (out->err == ERR_OK) {
        audit_summer_sum(c->summer, c->sum, sv_of(out->p + from, out->n - from), c->sum);
    }
    buf_add_str(out, c->kind == CONFIG_AUDIT_CHAIN_HMAC ? ",\"mac\":\"" : ",\"hash\":\"");
    add_hex(out, c->sum, sizeof(c->sum));
    buf_add_str(out, "\"}\n");
}

void audit_chain_add(struct audit_chain *c, struct sv line, struct buf *out)
{
    size_t from = out->n;

    if (c->kind == CONFIG_AUDIT_CHAIN_OFF) {
        buf_add_sv(out, line);
        return;
    }
    while (line.n != 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '}')) {
        line.n--; /* one of ours: a single object */
        if (line.p[line.n] == '}') {
            break;
        }
    }
    buf_add_sv(out, line);
    seal(c, from, out);
}

void audit_chain_open(struct audit_chain *c, int64_t wall_ms, struct buf *out)
{
    size_t from = out->n;

    log_open(out, wall_ms, opened);
    buf_add_str(out, ",\"prev\":\"");
    add_hex(out, c->sum, sizeof(c->sum));
    buf_add_char(out, '"');
    seal(c, from, out);
}

void audit_chain_end(struct audit_chain *c, int64_t wall_ms, struct buf *out)
{
    size_t from = out->n;

    log_open(out, wall_ms, closed);
    seal(c, from, out);
}

/* --- reading ---------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    const char *at = c == '\0' ? NULL : strchr(digits, c);

    return at == NULL ? -1 : (int)(at - digits);
}

static bool read_hex(struct sv text, uint8_t *out, size_t n)
{
    if (text.n != 2 * n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        int high = hex_value(text.p[2 * i]);
        int low = hex_value(text.p[2 * i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

/* Takes text that ends with `end` off the line's end. */
static bool take_end(struct sv *line, struct sv end)
{
    if (!sv_ends(*line, end)) {
        return false;
    }
    line->n -= end.n;
    return true;
}

static struct sv take_tail(struct sv *line, size_t n)
{
    struct sv tail = { 0 };

    if (line->n >= n) {
        tail = sv_from_at(*line, line->n - n);
        line->n -= n;
    }
    return tail;
}

static bool take_seq(struct sv *line, uint64_t *seq_out)
{
    size_t n = 0;

    while (n < line->n && n < 20 && line->p[line->n - 1 - n] >= '0' &&
           line->p[line->n - 1 - n] <= '9') {
        n++;
    }
    return n != 0 && sv_u64(take_tail(line, n), UINT64_MAX, seq_out) == ERR_OK && *seq_out != 0;
}

/* What stands at the beginning is ours alone as far as the event; a value of a request comes later. */
static bool is_event(struct sv line, struct sv event)
{
    size_t at = sv_search(line, SV("\"event\":\""));

    return at != SIZE_MAX && sv_starts(sv_from_at(line, at + 9), event) &&
           sv_starts(sv_from_at(line, at + 9 + event.n), SV("\""));
}

bool audit_link_read(struct sv line, struct audit_link *link_out)
{
    struct audit_link *link = link_out;
    struct sv id = { 0 };
    struct sv sum = { 0 };

    *link = (struct audit_link){ .kind = CONFIG_AUDIT_CHAIN_OFF };
    if (!sv_starts(line, SV("{")) || !take_end(&line, SV("\"}"))) {
        return false;
    }
    sum = take_tail(&line, AUDIT_SUM_TEXT);
    if (take_end(&line, SV(",\"mac\":\""))) {
        link->kind = CONFIG_AUDIT_CHAIN_HMAC;
    } else if (take_end(&line, SV(",\"hash\":\""))) {
        link->kind = CONFIG_AUDIT_CHAIN_SHA256;
    }
    link->covered = line;
    if (link->kind == CONFIG_AUDIT_CHAIN_OFF || !read_hex(sum, link->sum, sizeof(link->sum)) ||
        !take_seq(&line, &link->seq) || !take_end(&line, SV("\",\"seq\":"))) {
        return false;
    }
    id = take_tail(&line, AUDIT_ID_TEXT);
    if (id.p == NULL || id.n != AUDIT_ID_TEXT || !take_end(&line, SV(",\"chain\":\""))) {
        return false;
    }
    memcpy(link->id, id.p, AUDIT_ID_TEXT);
    link->ends = is_event(line, closed);
    if (is_event(line, opened)) {
        link->opens = take_end(&line, SV("\"")) &&
                      read_hex(take_tail(&line, AUDIT_SUM_TEXT), link->prev, sizeof(link->prev)) &&
                      take_end(&line, SV(",\"prev\":\""));
        return link->opens;
    }
    return true;
}
