#include "common/policy/pred.h"

#include <string.h>

#include "common/b64.h"
#include "common/duration.h"
#include "common/http/canon.h"
#include "common/mem.h"
#include "common/policy/sshkey.h"

typedef enum err (*compile_fn)(struct policy_scan *scan, const json_t *data,
                               struct policy_pred *pred);

struct row {
    const char *name;
    enum policy_criterion kind;
    bool identity;
    enum policy_reason yes;
    enum policy_reason no;
    compile_fn compile; /* NULL: the data is ignored */
};

static enum err fail_data(struct policy_scan *scan, const char *what)
{
    return policy_scan_fail(scan, POLICY_FAULT_DATA, "%s", what);
}

static enum err compile_text(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    return policy_match_text_compile(scan, data, &pred->match);
}

/* An operand: a text or a list of them; what else it may be is the matcher's to say. */
static bool is_decoded(const json_t *operand)
{
    bool list = json_is_array(operand);
    size_t n = list ? json_array_size(operand) : 1;

    for (size_t i = 0; i < n; i++) {
        const json_t *text = list ? json_array_get(operand, i) : operand;

        if (json_is_string(text) &&
            !http_canon_is_decoded(sv_of(json_string_value(text), json_string_length(text)))) {
            return false;
        }
    }
    return true;
}

static enum err compile_path(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    bool decoded = is_decoded(data);
    const char *key = NULL;
    json_t *operand = NULL;

    json_object_foreach(policy_scan_tree(data), key, operand)
    {
        decoded = decoded && is_decoded(operand);
    }
    if (!decoded) {
        return fail_data(scan, "paths are compared decoded, so this fits none: write the "
                               "characters themselves, a blank for %20; only slashes stay "
                               "escaped, as %2F and %5C");
    }
    return compile_text(scan, data, pred);
}

/* Of a header's name: RFC 9110 5.6.2. */
static bool is_tchar(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* Headers with credentials in them, ours among them, and those that the proxy writes. */
static bool is_private(struct sv name)
{
    static const char *const names[] = { "cookie", "authorization", "proxy-authorization" };
    size_t i = 0;

    while (i < ARRAY_LEN(names) && !sv_eq(name, sv_from(names[i]))) {
        i++;
    }
    return i < ARRAY_LEN(names) || sv_starts(name, SV("x-pomerium-"));
}

static enum err compile_header(struct policy_scan *scan, const json_t *data,
                               struct policy_pred *pred)
{
    struct sv given = pred->claim.s;
    char *name = arena_str(scan->arena, given);
    size_t i = 0;

    for (i = 0; i < given.n; i++) {
        name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
        if (!is_tchar(name[i])) {
            return fail_data(scan, "that is no name of a header; write header/X-Name");
        }
    }
    if (given.n == 0 || given.n > POLICY_HEADER_NAME_MAX) {
        return fail_data(scan, "write the header's name behind the criterion: header/X-Name");
    }
    pred->claim = policy_text_of(sv_of(name, given.n));
    if (sv_eq(pred->claim.s, SV("host"))) {
        return fail_data(scan, "the criterion for the host is `host`");
    }
    if (is_private(pred->claim.s)) {
        return fail_data(scan, "no policy sees this header: it carries credentials, or is ours");
    }
    return policy_match_text_compile(scan, data, &pred->match);
}

/* A shorter one would be over before the page is there, and the person would log in for ever. */
enum { AGE_MIN_MS = 60 * 1000 };

static enum err compile_age(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    const json_t *text = data;

    if (json_is_object(data)) {
        const char *name = json_object_iter_key(json_object_iter(policy_scan_tree(data)));

        text = json_object_get(data, "less_than");
        if (text == NULL || json_object_size(data) != 1) {
            return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                    "unknown operator \"%.40s\"; auth_age knows less_than",
                                    name == NULL ? "" : name);
        }
        policy_scan_member(scan, data, "less_than");
    }
    if (!json_is_string(text) ||
        duration_parse(sv_of(json_string_value(text), json_string_length(text)), &pred->age_ms) !=
            ERR_OK) {
        return fail_data(scan, "not a time: write 15m or 8h");
    }
    if (pred->age_ms < AGE_MIN_MS) {
        return fail_data(scan, "auth_age takes a minute at least: a shorter one is over before the "
                               "page is there");
    }
    return ERR_OK;
}

static bool has_upper(const json_t *data)
{
    const char *text = json_string_value(data);
    const char *key = NULL;
    json_t *value = NULL;
    bool upper = false;
    size_t i = 0;

    for (i = 0; text != NULL && i < json_string_length(data); i++) {
        upper = upper || (text[i] >= 'A' && text[i] <= 'Z');
    }
    for (i = 0; i < json_array_size(data); i++) {
        upper = upper || has_upper(json_array_get(data, i));
    }
    json_object_foreach(policy_scan_tree(data), key, value)
    {
        upper = upper || has_upper(value);
    }
    return upper;
}

static enum err compile_host(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    if (has_upper(data)) {
        return fail_data(scan, "hosts are compared in lower case: write it so");
    }
    return policy_match_text_compile(scan, data, &pred->match);
}

static enum err compile_groups(struct policy_scan *scan, const json_t *data,
                               struct policy_pred *pred)
{
    return policy_match_list_compile(scan, data, true, &pred->match);
}

static enum err compile_claim(struct policy_scan *scan, const json_t *data,
                              struct policy_pred *pred)
{
    return policy_match_list_compile(scan, data, false, &pred->match);
}

/* Calls read for a text or for every text of a list. */
static enum err each_text(struct policy_scan *scan, const json_t *data, const char *mistake,
                          compile_fn read, struct policy_pred *pred)
{
    enum err err = ERR_OK;
    size_t i = 0;

    if (json_is_string(data)) {
        return read(scan, data, pred);
    }
    if (!json_is_array(data)) {
        return fail_data(scan, mistake);
    }
    err = policy_scan_count(scan, json_array_size(data));
    for (i = 0; i < json_array_size(data) && err == ERR_OK; i++) {
        const json_t *item = json_array_get(data, i);

        policy_scan_item(scan, data, i);
        err = json_is_string(item) ? read(scan, item, pred) : fail_data(scan, mistake);
    }
    return err;
}

static void add_cidr(struct policy_pred *pred, const struct cidr *cidr)
{
    size_t n = pred->cidr_count;

    if ((n & (n - 1)) == 0) { /* full at every power of two */
        pred->cidrs = mem_realloc(pred->cidrs, MAX(n * 2, (size_t)1), sizeof(*pred->cidrs));
    }
    pred->cidrs[pred->cidr_count++] = *cidr;
}

static enum err read_cidr(struct policy_scan *scan, const json_t *text, struct policy_pred *pred)
{
    struct cidr cidr = { 0 };

    if (cidr_parse(sv_of(json_string_value(text), json_string_length(text)), &cidr) != ERR_OK) {
        return policy_scan_fail(scan, POLICY_FAULT_DATA,
                                "\"%.60s\" is no address or range, as 10.0.0.0/8 or 2001:db8::1",
                                json_string_value(text));
    }
    add_cidr(pred, &cidr);
    return ERR_OK;
}

static enum err compile_ip(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    return each_text(scan, data, "source_ip takes an address, a range, or a list of them",
                     read_cidr, pred);
}

static enum err read_ssh_key(struct policy_scan *scan, const json_t *text, struct policy_pred *pred)
{
    struct sv wire = { 0 };

    if (policy_sshkey_parse(sv_of(json_string_value(text), json_string_length(text)), scan->arena,
                            &wire) != ERR_OK) {
        return fail_data(scan, "not a public key as in authorized_keys: ssh-ed25519 AAAA… name");
    }
    pred->match.any = true;
    policy_names_add(&pred->match.names, wire);
    return ERR_OK;
}

static enum err compile_ssh_keys(struct policy_scan *scan, const json_t *data,
                                 struct policy_pred *pred)
{
    pred->match.any = true;
    return each_text(scan, data, "this criterion takes a public key or a list of them",
                     read_ssh_key, pred);
}

static enum err compile_ssh_claim(struct policy_scan *scan, const json_t *data,
                                  struct policy_pred *pred)
{
    if (!json_is_string(data) || json_string_length(data) == 0) {
        return fail_data(scan, "this criterion takes the name of a claim");
    }
    pred->claim = policy_text_of(policy_scan_text(scan, data));
    return ERR_OK;
}

typedef enum err (*when_fn)(struct policy_scan *scan, const json_t *data, struct policy_when *out);

static enum err compile_when(struct policy_scan *scan, const json_t *data, when_fn compile,
                             struct policy_pred *pred)
{
    struct policy_when *when = arena_zalloc(scan->arena, sizeof(*when));

    pred->when = when;
    return compile(scan, data, when);
}

static enum err compile_date(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    return compile_when(scan, data, policy_when_date_compile, pred);
}

static enum err compile_days(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    return compile_when(scan, data, policy_when_days_compile, pred);
}

static enum err compile_time(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    return compile_when(scan, data, policy_when_time_compile, pred);
}

/* --- client_certificate -------------------------------------------------------------------------- */

/* 64 lower-case hex digits, or 32 upper-case pairs joined by colons. */
static bool read_fingerprint(struct sv text, uint8_t out[32])
{
    bool pairs = text.n == 95;
    char digits[64];
    size_t n = 0;
    size_t i = 0;

    if (!pairs && text.n != 64) {
        return false;
    }
    for (i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool letter = pairs ? c >= 'A' && c <= 'F' : c >= 'a' && c <= 'f';

        if (pairs && i % 3 == 2) {
            if (c != ':') {
                return false;
            }
            continue;
        }
        if (!letter && (c < '0' || c > '9')) {
            return false;
        }
        digits[n++] = c;
    }
    return hex_decode(sv_of(digits, n), out, 32, &n) == ERR_OK && n == 32;
}

/* Standard base64 of 32 bytes, padded. */
static bool read_spki(struct sv text, uint8_t out[32])
{
    uint8_t bytes[48];
    size_t n = 0;

    if (text.n != 44 || text.p[43] != '=' || sv_find(text, '-') != SIZE_MAX ||
        sv_find(text, '_') != SIZE_MAX || b64_decode(text, bytes, sizeof(bytes), &n) != ERR_OK ||
        n != 32) {
        return false;
    }
    memcpy(out, bytes, 32);
    return true;
}

static enum err compile_digests(struct policy_scan *scan, const json_t *data, bool spki,
                                struct policy_digests *digests)
{
    size_t n = json_is_array(data) ? json_array_size(data) : 1;
    size_t i = 0;
    enum err err = policy_scan_count(scan, n);

    if (err != ERR_OK) {
        return err;
    }
    digests->asked = true;
    digests->items = arena_zalloc(scan->arena, MAX(n, (size_t)1) * sizeof(*digests->items));
    for (i = 0; i < n; i++) {
        const json_t *item = json_is_array(data) ? json_array_get(data, i) : data;
        struct sv text = sv_of(json_string_value(item), json_string_length(item));

        if (!json_is_string(item) || !(spki ? read_spki(text, digests->items[i])
                                            : read_fingerprint(text, digests->items[i]))) {
            return fail_data(scan, spki ? "spki_hash takes standard base64 of a SHA-256, or a list"
                                        : "fingerprint takes a SHA-256 as 64 lower-case hex digits "
                                          "or 32 upper-case pairs with colons, or a list");
        }
        digests->count++;
    }
    return ERR_OK;
}

static enum err compile_san(struct policy_scan *scan, const json_t *data, int kind,
                            struct policy_cert_match *cert)
{
    struct policy_match *match = &cert->san[kind];
    enum err err = policy_match_text_compile(scan, data, match);
    size_t i = 0;

    cert->san_asked[kind] = true;
    policy_match_finish(match, scan->arena);
    for (i = 0; err == ERR_OK && i < match->test_count; i++) {
        if (match->tests[i].op == POLICY_OP_NOT_IN) {
            err = policy_scan_fail(scan, POLICY_FAULT_COMPILE,
                                   "not_in cannot be asked of a list of names; use `in` under "
                                   "`not`");
        }
    }
    return err;
}

/* Of a whole name only: a part of its text proves nothing, since whoever chooses one attribute can make
 * it look like several. */
static enum err compile_name(struct policy_scan *scan, const json_t *data, int kind,
                             struct policy_cert_match *cert)
{
    struct policy_match *match = &cert->name[kind];
    enum err err = policy_match_text_compile(scan, data, match);
    size_t i = 0;

    cert->name_asked[kind] = true;
    policy_match_finish(match, scan->arena);
    for (i = 0; err == ERR_OK && i < match->test_count; i++) {
        enum policy_op op = match->tests[i].op;

        if (op == POLICY_OP_CONTAINS || op == POLICY_OP_STARTS_WITH || op == POLICY_OP_ENDS_WITH) {
            err = policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                   "names of certificates are compared whole, by is, not, in, "
                                   "not_in: an attribute may hold text that looks like another");
        }
    }
    return err;
}

static int index_of(const char *name, const char *const *names, int n)
{
    int i = 0;

    while (i < n && strcmp(name, names[i]) != 0) {
        i++;
    }
    return i;
}

static enum err compile_cert(struct policy_scan *scan, const json_t *data, struct policy_pred *pred)
{
    static const char *const sans[] = { "san_email", "san_dns", "san_uri" };
    static const char *const names[] = { "issuer", "subject" };
    struct policy_cert_match *cert = arena_zalloc(scan->arena, sizeof(*cert));
    const char *name = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    if (!json_is_object(data)) {
        return fail_data(scan, "client_certificate takes an object, as {fingerprint: …}");
    }
    pred->cert = cert;
    json_object_foreach(policy_scan_tree(data), name, value)
    {
        int san = index_of(name, sans, ARRAY_LEN(sans));
        int whole = index_of(name, names, ARRAY_LEN(names));

        policy_scan_member(scan, data, name);
        if (san < (int)ARRAY_LEN(sans)) {
            err = compile_san(scan, value, san, cert);
        } else if (whole < (int)ARRAY_LEN(names)) {
            err = compile_name(scan, value, whole, cert);
        } else if (strcmp(name, "fingerprint") == 0) {
            err = compile_digests(scan, value, false, &cert->fingerprint);
        } else if (strcmp(name, "spki_hash") == 0) {
            err = compile_digests(scan, value, true, &cert->spki);
        } else {
            err = policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                   "unknown key \"%.40s\"; client_certificate knows fingerprint, "
                                   "spki_hash, san_email, san_dns, san_uri, issuer, subject",
                                   name);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

/* --- device -------------------------------------------------------------------------------------- */

/* As JavaScript sees it. */
static bool truthy(const json_t *v)
{
    if (json_is_string(v)) {
        return json_string_length(v) != 0;
    }
    if (json_is_number(v)) {
        return json_number_value(v) != 0;
    }
    return !json_is_false(v) && !json_is_null(v);
}

static enum err device_key(struct policy_scan *scan, const char *name, const json_t *value,
                           struct policy_device_match *device)
{
    bool id = strcmp(name, "is") == 0;

    if (strcmp(name, "approved") == 0) {
        device->approved_asked = true;
        device->approved = truthy(value);
        return ERR_OK;
    }
    if (!id && strcmp(name, "type") != 0) {
        return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                "unknown key \"%.40s\"; device knows is, approved, type", name);
    }
    if (!json_is_string(value)) {
        return fail_data(scan, "\"is\" and \"type\" take text");
    }
    if (id) {
        device->id_asked = true;
        device->id = policy_scan_text(scan, value);
    } else {
        device->type = policy_scan_text(scan, value);
    }
    return ERR_OK;
}

static enum err compile_device(struct policy_scan *scan, const json_t *data,
                               struct policy_pred *pred)
{
    struct policy_device_match *device = arena_zalloc(scan->arena, sizeof(*device));
    const char *name = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    if (!json_is_object(data)) {
        return fail_data(scan, "device takes an object, as {type: any}");
    }
    device->type = SV("any");
    pred->device = device;
    json_object_foreach(policy_scan_tree(data), name, value)
    {
        policy_scan_member(scan, data, name);
        err = device_key(scan, name, value, device);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

/* --- record -------------------------------------------------------------------------------------- */

static bool read_compare(const char *name, enum policy_compare *compare_out)
{
    static const char *const names[] = { "<", "<=", "=", ">=", ">" };
    unsigned i = 0;

    for (i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *compare_out = (enum policy_compare)i;
            return true;
        }
    }
    return false;
}

static enum err record_text(struct policy_scan *scan, const json_t *value, struct sv *out)
{
    if (!json_is_string(value) || json_string_length(value) == 0) {
        return fail_data(scan, "\"type\" and \"field\" take text");
    }
    *out = policy_scan_text(scan, value);
    return ERR_OK;
}

static enum err record_key(struct policy_scan *scan, const char *name, const json_t *value,
                           struct policy_record_match *record)
{
    enum policy_compare compare = POLICY_LT;

    if (strcmp(name, "type") == 0) {
        return record_text(scan, value, &record->type);
    }
    if (strcmp(name, "field") == 0) {
        return record_text(scan, value, &record->field);
    }
    if (strcmp(name, "exists") == 0) {
        record->exists_asked = true;
        record->exists = json_is_true(value);
        return json_is_boolean(value) ? ERR_OK : fail_data(scan, "\"exists\" is true or false");
    }
    if (read_compare(name, &compare)) {
        if (!json_is_number(value)) {
            return fail_data(scan, "a comparison takes a number");
        }
        record->numbers[record->number_count].compare = compare;
        return policy_match_number(scan, value, &record->numbers[record->number_count++].number);
    }
    if (policy_match_op(name) == POLICY_OP_NONE) {
        return policy_scan_fail(scan, POLICY_FAULT_OPERATOR,
                                "unknown key \"%.40s\"; record knows type, field, exists, <, <=, "
                                "=, >=, >, and the operators of texts and lists",
                                name);
    }
    return policy_match_test_compile(scan, name, value, &record->tests[record->test_count++]);
}

static enum err compile_record(struct policy_scan *scan, const json_t *data,
                               struct policy_pred *pred)
{
    struct policy_record_match *record = arena_zalloc(scan->arena, sizeof(*record));
    size_t n = MAX(json_object_size(data), (size_t)1);
    const char *name = NULL;
    json_t *value = NULL;
    enum err err = ERR_OK;

    if (!json_is_object(data)) {
        return fail_data(scan,
                         "record takes an object, as {type: acme.test/posture, exists: true}");
    }
    pred->record = record;
    record->numbers = arena_zalloc(scan->arena, n * sizeof(*record->numbers));
    record->tests = arena_zalloc(scan->arena, n * sizeof(*record->tests));
    json_object_foreach(policy_scan_tree(data), name, value)
    {
        policy_scan_member(scan, data, name);
        err = record_key(scan, name, value, record);
        if (err != ERR_OK) {
            return err;
        }
    }
    if (record->type.n == 0) {
        return fail_data(scan, "\"type\" is missing");
    }
    if (record->number_count + record->test_count == 0 && !record->exists_asked) {
        return fail_data(scan, "nothing is asked of the record; write exists: true");
    }
    if (record->number_count + record->test_count != 0 && record->field.n == 0) {
        return fail_data(scan, "\"field\" is missing");
    }
    return ERR_OK;
}

/* --- the criteria -------------------------------------------------------------------------------- */

#define PAIR(name) POLICY_REASON_##name##_OK, POLICY_REASON_##name##_UNAUTHORIZED

static const struct row rows[] = {
    { "accept", POLICY_CRITERION_ACCEPT, false, POLICY_REASON_ACCEPT, POLICY_REASON_NONE, NULL },
    { "reject", POLICY_CRITERION_REJECT, false, POLICY_REASON_NONE, POLICY_REASON_REJECT, NULL },
    { "authenticated_user", POLICY_CRITERION_AUTHENTICATED_USER, true, PAIR(USER), NULL },
    { "user", POLICY_CRITERION_USER, true, PAIR(USER), compile_text },
    { "email", POLICY_CRITERION_EMAIL, true, PAIR(EMAIL), compile_text },
    { "domain", POLICY_CRITERION_DOMAIN, true, PAIR(DOMAIN), compile_text },
    { "groups", POLICY_CRITERION_GROUPS, true, PAIR(GROUPS), compile_groups },
    { "claim", POLICY_CRITERION_CLAIM, true, PAIR(CLAIM), compile_claim },
    { "http_method", POLICY_CRITERION_HTTP_METHOD, false, PAIR(HTTP_METHOD), compile_text },
    { "http_path", POLICY_CRITERION_HTTP_PATH, false, PAIR(HTTP_PATH), compile_path },
    { "cors_preflight", POLICY_CRITERION_CORS_PREFLIGHT, false, POLICY_REASON_CORS_REQUEST,
      POLICY_REASON_NON_CORS_REQUEST, NULL },
    { "source_ip", POLICY_CRITERION_SOURCE_IP, false, PAIR(SOURCE_IP), compile_ip },
    { "client_certificate", POLICY_CRITERION_CLIENT_CERTIFICATE, false, PAIR(CLIENT_CERTIFICATE),
      compile_cert },
    { "invalid_client_certificate", POLICY_CRITERION_INVALID_CLIENT_CERTIFICATE, false,
      POLICY_REASON_INVALID_CLIENT_CERTIFICATE, POLICY_REASON_VALID_CLIENT_CERTIFICATE, NULL },
    { "device", POLICY_CRITERION_DEVICE, true, PAIR(DEVICE), compile_device },
    { "mcp_tool", POLICY_CRITERION_MCP_TOOL, false, POLICY_REASON_MCP_TOOL_MATCH,
      POLICY_REASON_MCP_TOOL_NO_MATCH, compile_text },
    { "ssh_publickey", POLICY_CRITERION_SSH_PUBLICKEY, false, PAIR(SSH_PUBLICKEY),
      compile_ssh_keys },
    { "ssh_ca", POLICY_CRITERION_SSH_CA, false, PAIR(SSH_PUBLICKEY), compile_ssh_keys },
    { "ssh_username", POLICY_CRITERION_SSH_USERNAME, false, PAIR(SSH_USERNAME), compile_text },
    { "ssh_username_matches_email", POLICY_CRITERION_SSH_USERNAME_MATCHES_EMAIL, true,
      PAIR(SSH_USERNAME), NULL },
    { "ssh_username_matches_claim", POLICY_CRITERION_SSH_USERNAME_MATCHES_CLAIM, true,
      PAIR(SSH_USERNAME), compile_ssh_claim },
    { "date", POLICY_CRITERION_DATE, false, PAIR(DATE), compile_date },
    { "day_of_week", POLICY_CRITERION_DAY_OF_WEEK, false, PAIR(DAY_OF_WEEK), compile_days },
    { "time_of_day", POLICY_CRITERION_TIME_OF_DAY, false, PAIR(TIME_OF_DAY), compile_time },
    { "record", POLICY_CRITERION_RECORD, false, PAIR(RECORD), compile_record },
    { "idp", POLICY_CRITERION_IDP, true, PAIR(IDP), compile_text },
    { "host", POLICY_CRITERION_HOST, false, PAIR(HOST), compile_host },
    { "header", POLICY_CRITERION_HEADER, false, PAIR(HEADER), compile_header },
    { "auth_age", POLICY_CRITERION_AUTH_AGE, true, POLICY_REASON_AUTH_AGE_OK,
      POLICY_REASON_AUTH_AGE_EXCEEDED, compile_age },
};

const char *policy_criterion_name(unsigned bit)
{
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        if ((unsigned)rows[i].kind == bit) {
            return rows[i].name;
        }
    }
    return "?";
}

static enum err unknown_criterion(struct policy_scan *scan, struct sv name)
{
    const char *known[ARRAY_LEN(rows)];
    const char *near = NULL;
    size_t i = 0;

    if (sv_eq(name, SV("pomerium_routes"))) {
        return policy_scan_fail(scan, POLICY_FAULT_UNKNOWN_CRITERION,
                                "pomerium_routes was removed because a query could satisfy it; "
                                "our own paths need no rule");
    }
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        known[i] = rows[i].name;
    }
    near = policy_scan_nearest(name, known, ARRAY_LEN(rows));
    return policy_scan_fail(scan, POLICY_FAULT_UNKNOWN_CRITERION,
                            "unknown criterion \"%.*s\"%s%s%s", (int)MIN(name.n, (size_t)40),
                            name.p, near == NULL ? "" : ", did you mean \"",
                            near == NULL ? "" : near, near == NULL ? "" : "\"?");
}

enum err policy_pred_compile(struct policy_scan *scan, const struct policy_tree_item *item,
                             struct policy_pred *pred_out)
{
    struct sv path = sv_from(item->name);
    struct sv name = sv_cut(&path, '/');
    const struct row *row = NULL;
    size_t i = 0;

    *pred_out = (struct policy_pred){ 0 };
    scan->at = item->at;
    for (i = 0; i < ARRAY_LEN(rows) && row == NULL; i++) {
        row = sv_eq(name, sv_from(rows[i].name)) ? &rows[i] : NULL;
    }
    if (row == NULL) {
        return unknown_criterion(scan, name);
    }
    if (path.p != NULL && row->kind != POLICY_CRITERION_CLAIM &&
        row->kind != POLICY_CRITERION_HEADER) {
        return policy_scan_fail(scan, POLICY_FAULT_UNKNOWN_CRITERION,
                                "\"%s\" takes no sub-path; only claim/… and header/… do",
                                row->name);
    }
    pred_out->kind = row->kind;
    pred_out->identity = row->identity;
    pred_out->yes = row->yes;
    pred_out->no = row->no;
    pred_out->claim = policy_text_of(arena_sv(scan->arena, path));
    if (item->object != NULL) {
        policy_scan_member(scan, item->object, item->name);
    }
    return row->compile == NULL ? ERR_OK : row->compile(scan, item->data, pred_out);
}

bool policy_pred_merges(const struct policy_pred *a)
{
    return a->kind == POLICY_CRITERION_SOURCE_IP ||
           (a->match.any && a->kind != POLICY_CRITERION_SSH_CA);
}

void policy_pred_merge(struct policy_pred *into, const struct policy_pred *from)
{
    size_t i = 0;

    policy_names_append(&into->match.names, &from->match.names);
    for (i = 0; i < from->cidr_count; i++) {
        add_cidr(into, &from->cidrs[i]);
    }
}

void policy_pred_finish(struct policy_pred *pred, struct arena *arena)
{
    struct cidr *gathered = pred->cidrs;

    policy_match_finish(&pred->match, arena);
    if (gathered != NULL) {
        pred->cidrs = arena_alloc(arena, pred->cidr_count * sizeof(*gathered));
        memcpy(pred->cidrs, gathered, pred->cidr_count * sizeof(*gathered));
        mem_free(&gathered);
    }
}
