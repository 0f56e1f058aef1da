#include "common/audit/verify.h"

#include <string.h>

#include "common/mem.h"
#include "common/secret.h"

/* The last line of a chain that was seen. */
struct seen {
    char id[AUDIT_ID_TEXT + 1];
    uint64_t first;
    uint64_t seq;
    uint64_t lines;
    uint8_t sum[AUDIT_SUM_BYTES];
    bool ended;
    bool is_sound; /* sum is what was computed, too */
};

struct head {
    char id[AUDIT_ID_TEXT + 1];
    uint64_t seq;
    uint8_t sum[AUDIT_SUM_BYTES];
    bool found;
};

struct audit_verify {
    struct audit_verify_opts opts;
    enum config_audit_chain kind;
    struct audit_summer *summers[KEYS_SLOTS_MAX];
    size_t n_summers;
    struct seen *seen;
    size_t n_seen;
    struct head heads[AUDIT_HEADS_MAX];
    size_t n_heads;
    uint64_t findings;
    uint64_t others; /* lines of no chain that were passed over */
    /* A line of no chain, which only a crash explains: then an opening line comes next. */
    struct buf torn_file;
    uint64_t torn_number;
    bool cut; /* the last line lacks its line break */
};

struct place {
    const char *file;
    uint64_t number;
};

struct audit_verify *audit_verify_new(const struct audit_verify_opts *opts)
{
    struct audit_verify *v = MEM_NEW(struct audit_verify);

    v->opts = *opts;
    v->kind = opts->keys == NULL ? CONFIG_AUDIT_CHAIN_SHA256 : CONFIG_AUDIT_CHAIN_HMAC;
    v->n_summers = opts->keys == NULL ? 1 : keys_slots(opts->keys);
    for (size_t i = 0; i < v->n_summers; i++) {
        v->summers[i] = audit_summer_new(v->kind, opts->keys, i);
    }
    v->seen = mem_array(AUDIT_CHAINS_MAX, sizeof(*v->seen));
    buf_init(&v->torn_file, 4096);
    return v;
}

void audit_verify_free(struct audit_verify **verify)
{
    struct audit_verify *v = TAKE(*verify);

    if (v == NULL) {
        return;
    }
    for (size_t i = 0; i < v->n_summers; i++) {
        audit_summer_free(&v->summers[i]);
    }
    mem_free(&v->seen);
    buf_deinit(&v->torn_file);
    mem_free(&v);
}

/* --- findings --------------------------------------------------------------------------------- */

static void PRINTF_LIKE(3, 4) find(struct audit_verify *v, struct place at, const char *fmt, ...)
{
    va_list ap;
    struct buf text;

    if (++v->findings > AUDIT_FINDINGS_MAX) {
        return;
    }
    buf_init(&text, 8192);
    if (at.file != NULL) {
        buf_printf(&text, "%s:%llu: ", at.file, (unsigned long long)at.number);
    }
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    v->opts.say(v->opts.arg, buf_cstr(&text));
    buf_deinit(&text);
}

static void torn_found(struct audit_verify *v)
{
    const struct place at = { .file = buf_cstr(&v->torn_file), .number = v->torn_number };

    if (v->torn_number != 0) {
        find(v, at, "the line is of no chain");
        v->torn_number = 0;
    }
}

/* --- one line --------------------------------------------------------------------------------- */

static struct seen *find_chain(struct audit_verify *v, const char *id)
{
    for (size_t i = v->n_seen; i > 0; i--) { /* mostly the newest */
        if (strcmp(v->seen[i - 1].id, id) == 0) {
            return &v->seen[i - 1];
        }
    }
    return NULL;
}

static bool sum_fits(struct audit_verify *v, const struct audit_link *link, const uint8_t *prev)
{
    for (size_t i = 0; i < v->n_summers; i++) {
        uint8_t sum[AUDIT_SUM_BYTES];

        audit_summer_sum(v->summers[i], prev, link->covered, sum);
        if (secret_same(sv_of(sum, sizeof(sum)), sv_of(link->sum, sizeof(link->sum)))) {
            return true;
        }
    }
    return false;
}

static void note_head(struct audit_verify *v, const struct audit_link *link)
{
    for (size_t i = 0; i < v->n_heads; i++) {
        struct head *h = &v->heads[i];

        h->found = h->found || (h->seq == link->seq && strcmp(h->id, link->id) == 0 &&
                                memcmp(h->sum, link->sum, sizeof(h->sum)) == 0);
    }
}

static void take(struct audit_verify *v, struct seen *s, const struct audit_link *link, bool sound)
{
    s->seq = link->seq;
    s->lines++;
    s->ended = link->ends;
    s->is_sound = sound;
    memcpy(s->sum, link->sum, sizeof(s->sum));
    if (sound) {
        note_head(v, link);
    }
}

static void begin_chain(struct audit_verify *v, struct place at, const struct audit_link *link)
{
    struct seen *s = &v->seen[v->n_seen];
    bool sound = link->opens && sum_fits(v, link, link->prev);

    torn_found(v);
    if (v->n_seen == AUDIT_CHAINS_MAX) {
        find(v, at, "more than %d chains: give fewer files at once", AUDIT_CHAINS_MAX);
        return;
    }
    if (!link->opens) {
        find(v, at,
             "chain %s begins in its middle, with line %llu: what stood before is missing; if "
             "there is an older file, give it first",
             link->id, (unsigned long long)link->seq);
    } else if (!sound) {
        find(v, at, "the opening line of chain %s was changed, or made with another secret",
             link->id);
    }
    v->n_seen++;
    memcpy(s->id, link->id, sizeof(s->id));
    s->first = link->seq;
    take(v, s, link, sound);
}

static void check_seq(struct audit_verify *v, struct place at, const struct seen *s,
                      const struct audit_link *link)
{
    unsigned long long seq = link->seq;
    unsigned long long before = s->seq;

    if (link->seq <= s->seq) {
        find(v, at,
             "line %llu of chain %s comes after line %llu: put in, moved, or the files are not in "
             "order (the oldest first)",
             seq, s->id, before);
    } else {
        find(v, at, "lines %llu to %llu of chain %s are missing", before + 1, seq - 1, s->id);
    }
}

static void go_on(struct audit_verify *v, struct place at, struct seen *s,
                  const struct audit_link *link)
{
    bool next = link->seq == s->seq + 1;
    bool sound = sum_fits(v, link, next || !link->opens ? s->sum : link->prev);

    if (link->opens && next && memcmp(link->prev, s->sum, sizeof(s->sum)) == 0) {
        v->torn_number = 0; /* a crash, and then it was taken up again */
    }
    torn_found(v);
    if (!next) {
        check_seq(v, at, s, link);
    } else if (!sound) {
        find(v, at, "line %llu of chain %s was changed, or made with another secret",
             (unsigned long long)link->seq, s->id);
    }
    take(v, s, link, sound);
}

static void no_link(struct audit_verify *v, struct place at, bool ends)
{
    if (v->opts.mixed || !ends) {
        v->others += ends ? 1 : 0;
        v->cut = v->cut || !ends;
        return;
    }
    torn_found(v);
    if (v->n_seen == 0) {
        find(v, at, "the line is of no chain");
        return;
    }
    buf_reset(&v->torn_file);
    buf_add_str(&v->torn_file, at.file);
    v->torn_number = at.number;
}

void audit_verify_line(struct audit_verify *v, const char *file, uint64_t number, struct sv line,
                       bool ends)
{
    const struct place at = { .file = file, .number = number };
    struct audit_link link;
    struct seen *s = NULL;

    v->cut = false; /* cut short by a crash, but not the last one: its file is not the last */
    if (!audit_link_read(line, &link)) {
        no_link(v, at, ends);
        return;
    }
    if (link.kind != v->kind) {
        find(v, at,
             v->kind == CONFIG_AUDIT_CHAIN_HMAC
                 ? "a plain chain, which anybody can make; --plain checks those"
                 : "a chain with a key, which --plain cannot check");
        return;
    }
    s = find_chain(v, link.id);
    if (s == NULL) {
        begin_chain(v, at, &link);
    } else {
        go_on(v, at, s, &link);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static bool hex_to(struct sv text, uint8_t *out, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 2 * n; i++) {
        const char *at = text.p[i] == '\0' ? NULL : strchr(digits, text.p[i]);

        if (at == NULL) {
            return false;
        }
        out[i / 2] = (uint8_t)((unsigned)out[i / 2] << 4U | (unsigned)(at - digits));
    }
    return true;
}

enum err audit_verify_expect(struct audit_verify *v, struct sv text)
{
    struct head *h = &v->heads[v->n_heads];
    struct sv id = sv_cut(&text, ':');
    struct sv seq = text.p == NULL ? text : sv_cut(&text, ':');

    if (v->n_heads == AUDIT_HEADS_MAX) {
        return ERR_LIMIT;
    }
    if (id.p == NULL || id.n != AUDIT_ID_TEXT || text.p == NULL || text.n != AUDIT_SUM_TEXT ||
        sv_u64(seq, UINT64_MAX, &h->seq) != ERR_OK || !hex_to(text, h->sum, sizeof(h->sum))) {
        return ERR_INVALID;
    }
    memcpy(h->id, id.p, AUDIT_ID_TEXT);
    v->n_heads++;
    return ERR_OK;
}

static void tell_chain(const struct seen *s, struct buf *out)
{
    buf_printf(out, "chain %s: lines %llu to %llu, %llu here", s->id, (unsigned long long)s->first,
               (unsigned long long)s->seq, (unsigned long long)s->lines);
    if (s->first != 1) {
        buf_printf(out, "; lines 1 to %llu are in older files", (unsigned long long)s->first - 1);
    }
    buf_add_str(out, s->ended ? "; ended in order\n"
                              : "; no orderly end: its part still runs, was killed, or the end was "
                                "cut off\n");
    buf_printf(out, "  head %s:%llu:", s->id, (unsigned long long)s->seq);
    for (size_t i = 0; i < sizeof(s->sum); i++) {
        buf_printf(out, "%02x", s->sum[i]);
    }
    buf_add_char(out, '\n');
}

bool audit_verify_end(struct audit_verify *v, struct buf *out)
{
    const struct place nowhere = { .file = NULL };

    torn_found(v);
    for (size_t i = 0; i < v->n_heads; i++) {
        if (!v->heads[i].found) {
            find(v, nowhere,
                 "line %llu of chain %s, which was there once, is missing or another: the end was "
                 "cut off, or the chain made anew",
                 (unsigned long long)v->heads[i].seq, v->heads[i].id);
        }
    }
    if (v->n_seen == 0) {
        find(v, nowhere, "there is no line of a chain");
    }
    for (size_t i = 0; i < v->n_seen; i++) {
        tell_chain(&v->seen[i], out);
    }
    if (v->cut) {
        buf_add_str(out, "the last line has no end: it is being written, or a crash cut it\n");
    }
    if (v->others != 0) {
        buf_printf(out, "%llu lines of no chain were passed over\n", (unsigned long long)v->others);
    }
    if (v->findings > AUDIT_FINDINGS_MAX) {
        buf_printf(out, "%llu more things do not fit\n",
                   (unsigned long long)(v->findings - AUDIT_FINDINGS_MAX));
    }
    return v->findings == 0;
}
