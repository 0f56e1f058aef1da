#include "cli/policy_input.h"

#include <string.h>

#include "common/cidr.h"
#include "common/clock.h"
#include "common/date.h"
#include "common/duration.h"
#include "common/policy/scan.h"
#include "common/policy/sshkey.h"

/* --- reading JSON -------------------------------------------------------------------------------- */

static struct sv text_of(const json_t *string)
{
    return sv_of(json_string_value(string), json_string_length(string));
}

static struct sv member(const json_t *object, const char *key, struct sv otherwise)
{
    const json_t *v = json_object_get(object, key);

    return json_is_string(v) ? text_of(v) : otherwise;
}

static bool flag(const json_t *object, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(object, key);

    return v == NULL ? otherwise : json_is_true(v);
}

/* A case with a misspelt key would test something else than it says. */
static enum err check_keys(const json_t *object, const char *where, const char *known,
                           struct diag *d)
{
    const char *key = NULL;
    json_t *value = NULL;

    if (object != NULL && !json_is_object(object)) {
        diag_set(d, "%s must be an object", where);
        return ERR_INVALID;
    }
    json_object_foreach(policy_scan_tree(object), key, value)
    {
        struct sv rest = sv_from(known);
        bool found = false;

        while (rest.p != NULL && !found) {
            found = sv_eq(sv_cut(&rest, ' '), sv_from(key));
        }
        if (!found) {
            diag_set(d, "%s: unknown key \"%.40s\"; known are: %s", where, key, known);
            return ERR_INVALID;
        }
    }
    return ERR_OK;
}

static struct policy_scalar scalar_of(const json_t *v)
{
    if (json_is_string(v)) {
        return (struct policy_scalar){ .kind = POLICY_KIND_STRING,
                                       .text = policy_text_of(text_of(v)) };
    }
    if (json_is_number(v)) {
        return (struct policy_scalar){ .kind = POLICY_KIND_NUMBER, .number = json_number_value(v) };
    }
    if (json_is_boolean(v)) {
        return (struct policy_scalar){ .kind = POLICY_KIND_BOOL, .flag = json_is_true(v) };
    }
    return (struct policy_scalar){ .kind = json_is_null(v) ? POLICY_KIND_NULL : POLICY_KIND_OTHER };
}

static const struct policy_scalar *scalars_of(struct arena *arena, const json_t *v,
                                              size_t *count_out)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    struct policy_scalar *values = arena_zalloc(arena, MAX(n, (size_t)1) * sizeof(*values));
    size_t i = 0;

    for (i = 0; i < n; i++) {
        values[i] = scalar_of(json_is_array(v) ? json_array_get(v, i) : v);
    }
    *count_out = n;
    return values;
}

static struct policy_claims claims_of(struct arena *arena, const json_t *object)
{
    size_t n = json_object_size(object);
    struct policy_claim *items = arena_zalloc(arena, MAX(n, (size_t)1) * sizeof(*items));
    struct policy_claims claims = { .items = items };
    const char *key = NULL;
    json_t *value = NULL;

    json_object_foreach(policy_scan_tree(object), key, value)
    {
        struct policy_claim *claim = &items[claims.count++];

        claim->name = policy_text_of(sv_from(key));
        claim->values = scalars_of(arena, value, &claim->count);
    }
    return claims;
}

/* --- who ----------------------------------------------------------------------------------------- */

static void take_groups(struct cli_policy_facts *facts, const json_t *groups)
{
    size_t n = json_array_size(groups);
    struct policy_text *texts = arena_zalloc(&facts->arena, MAX(n, (size_t)1) * sizeof(*texts));
    size_t i = 0;

    for (i = 0; i < n; i++) {
        texts[i] = policy_text_of(text_of(json_array_get(groups, i)));
    }
    facts->in.groups = texts;
    facts->in.group_count = n;
}

static enum err take_device(struct cli_policy_facts *facts, const json_t *device, struct diag *d)
{
    struct policy_device *item = arena_zalloc(&facts->arena, sizeof(*item));

    if (device == NULL) {
        return ERR_OK;
    }
    item->type = member(device, "type", SV("any"));
    item->id = member(device, "id", SV(""));
    item->credential = flag(device, "credential", true);
    item->enrolled = flag(device, "enrolled", true);
    item->approved = flag(device, "approved", false);
    facts->in.devices = item;
    facts->in.device_count = 1;
    return check_keys(device, "device", "type id credential enrolled approved", d);
}

static enum err take_person(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    static const char *const signs[] = { "user",   "email",       "claims",         "groups",
                                         "device", "impersonate", "service_account" };
    const json_t *other = json_object_get(input, "impersonate");
    const json_t *person = other == NULL ? input : other;
    const json_t *account = json_object_get(input, "service_account");
    struct policy_input *in = &facts->in;
    bool known = false;
    size_t i = 0;

    for (i = 0; i < ARRAY_LEN(signs); i++) {
        known = known || json_object_get(input, signs[i]) != NULL;
    }
    in->session = flag(input, "session", known) && !flag(input, "expired", false);
    in->session_id = SV("case-session");
    in->user_id = policy_text_of(
        member(person, "user", json_is_string(account) ? text_of(account) : SV("case-user")));
    if (flag(input, "no_user_id", false)) {
        in->user_id = policy_text_of(SV(""));
    }
    in->email = policy_text_of(member(person, "email", SV("")));
    in->idp = policy_text_of(member(input, "idp", SV("")));
    in->directory_email = policy_text_of(member(person, "directory_email", SV("")));
    in->directory = json_object_get(person, "groups") != NULL ||
                    json_object_get(person, "directory_email") != NULL;
    in->session_claims = claims_of(&facts->arena, json_object_get(person, "claims"));
    in->user_claims = claims_of(&facts->arena, json_object_get(person, "user_claims"));
    take_groups(facts, json_object_get(person, "groups"));
    if (check_keys(other, "impersonate", "user email claims user_claims groups directory_email",
                   d) != ERR_OK) {
        return ERR_INVALID;
    }
    return take_device(facts, json_object_get(input, "device"), d);
}

/* --- what ---------------------------------------------------------------------------------------- */

static struct sv header(const json_t *input, struct sv name)
{
    const char *key = NULL;
    json_t *value = NULL;

    json_object_foreach(policy_scan_tree(json_object_get(input, "headers")), key, value)
    {
        if (sv_ieq(sv_from(key), name) && json_is_string(value)) {
            return text_of(value);
        }
    }
    return (struct sv){ 0 };
}

/* The weight of one clause of Accept in thousandths; *type_out without parameters. */
static unsigned clause_weight(struct sv clause, struct sv *type_out)
{
    struct sv rest = clause;
    unsigned weight = 1000;

    *type_out = sv_trim(sv_cut(&rest, ';'));
    while (rest.p != NULL) {
        struct sv parameter = sv_trim(sv_cut(&rest, ';'));
        unsigned scale = 1000;
        size_t i = 2;

        if (!sv_istarts(parameter, SV("q="))) {
            continue;
        }
        weight = 0;
        for (; i < parameter.n; i++) {
            if (parameter.p[i] >= '0' && parameter.p[i] <= '9') {
                weight += (unsigned)(parameter.p[i] - '0') * scale;
                scale /= 10;
            }
        }
    }
    return weight;
}

/* Whether the best of Accept among what we could send is HTML; without Accept it is. */
static bool wants_html(struct sv accept)
{
    static const char *const offers[] = { "text/html", "application/json", "text/plain",
                                          "application/grpc", "application/grpc-web" };
    struct sv rest = accept;
    unsigned best = 0;
    bool html = true;

    while (rest.p != NULL) {
        struct sv type = { 0 };
        unsigned weight = clause_weight(sv_cut(&rest, ','), &type);
        size_t i = 0;

        for (i = 0; i < ARRAY_LEN(offers); i++) {
            bool range = sv_eq(type, SV("*/*")) ||
                         (sv_ends(type, SV("/*")) &&
                          sv_istarts(sv_from(offers[i]), sv_head(type, type.n - 1)));

            if (weight > best && (range || sv_ieq(type, sv_from(offers[i])))) {
                best = weight;
                html = i == 0;
            }
        }
    }
    return html;
}

/* Every header of the case, so that each is known that a policy may ask for: those that the case does
 * not have are taken from the policy's own list (cli_policy_facts_ask). A list is a repeated one. */
static struct policy_header header_of(const char *key, const json_t *value, struct arena *arena)
{
    char *name = arena_str(arena, sv_from(key));
    struct policy_header h = { .name = sv_from(name), .state = POLICY_HEADER_TOLD };
    size_t i = 0;

    for (i = 0; i < h.name.n; i++) {
        name[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    h.value = json_is_string(value) ? text_of(value) : SV("");
    if (json_is_array(value)) {
        h.state = POLICY_HEADER_REPEATED;
    } else if (h.value.n > POLICY_HEADER_VALUE_MAX) {
        h.state = POLICY_HEADER_TOO_LARGE;
    }
    return h;
}

void cli_policy_facts_ask(struct cli_policy_facts *facts, const struct policy *policy)
{
    size_t n = 0;
    const struct sv *names = policy_headers(policy, &n);
    size_t given = json_object_size(facts->headers);
    struct policy_header *all = arena_zalloc(&facts->arena, (given + n + 1) * sizeof(*all));
    const char *key = NULL;
    json_t *value = NULL;
    size_t i = 0;

    facts->in.headers = all;
    facts->in.header_count = 0;
    json_object_foreach(policy_scan_tree(facts->headers), key, value)
    {
        all[facts->in.header_count++] = header_of(key, value, &facts->arena);
    }
    for (i = 0; i < n; i++) { /* behind the given ones, of which the first counts */
        all[facts->in.header_count++] =
            (struct policy_header){ .name = names[i], .state = POLICY_HEADER_TOLD };
    }
}

static enum err take_auth_age(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    struct sv age = member(input, "auth_age", (struct sv){ 0 });
    int64_t ms = 0;

    if (json_object_get(input, "auth_age") == NULL) {
        return ERR_OK;
    }
    if (duration_parse(age, &ms) != ERR_OK) {
        diag_set(d, "auth_age: how long ago the login was, as 20m");
        return ERR_INVALID;
    }
    facts->in.authenticated_ms = facts->in.wall_ms - ms;
    return ERR_OK;
}

static enum err take_request(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    struct policy_input *in = &facts->in;
    struct sv ip = member(input, "ip", (struct sv){ 0 });
    struct sv time = member(input, "time", (struct sv){ 0 });
    struct date date = { 0 };

    in->method = member(input, "method", SV("GET"));
    in->host = member(input, "host", SV("app.example.com"));
    in->path = member(input, "path", SV("/"));
    in->cors_preflight = sv_eq(in->method, SV("OPTIONS")) && header(input, SV("origin")).n != 0 &&
                         header(input, SV("access-control-request-method")).n != 0;
    in->device_page = sv_eq(in->path, SV("/.pomerium/webauthn")) ||
                      sv_eq(in->path, SV("/.pomerium/device-enrolled"));
    in->client_ip_known = cidr_ip_parse(ip, in->client_ip) == ERR_OK;
    in->wall_ms = clock_wall_ms();
    if (time.p != NULL && date_parse(time, &date) != ERR_OK) {
        diag_set(d, "time: not a date as 2026-05-01T12:00:00Z");
        return ERR_INVALID;
    }
    if (time.p != NULL) {
        in->wall_ms = date_wall_ms(&date);
    }
    facts->navigates = !flag(input, "bearer_session", false) &&
                       !sv_istarts(header(input, SV("content-type")), SV("application/grpc")) &&
                       wants_html(member(input, "accept", header(input, SV("accept"))));
    facts->internal = flag(input, "internal", false);
    facts->route_found = flag(input, "route_found", true);
    facts->headers = json_object_get(input, "headers");
    return take_auth_age(facts, input, d);
}

static enum err take_cert(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    const json_t *cert = json_object_get(input, "client_cert");
    const json_t *mtls = json_object_get(input, "mtls");
    struct sv pem = member(cert, "pem", (struct sv){ 0 });
    struct policy_input *in = &facts->in;

    if (check_keys(cert, "client_cert", "presented trusted pem", d) != ERR_OK ||
        check_keys(mtls, "mtls", "ca enforcement", d) != ERR_OK) {
        return ERR_INVALID;
    }
    in->client_ca = flag(mtls, "ca", false);
    facts->mtls_default_deny =
        in->client_ca && !sv_eq(member(mtls, "enforcement", SV("")), SV("policy"));
    in->cert_presented = flag(cert, "presented", cert != NULL);
    in->cert_trusted = in->cert_presented && flag(cert, "trusted", true);
    if (pem.p == NULL) {
        return ERR_OK;
    }
    if (policy_cert_of_pem(pem, &facts->cert) != ERR_OK) {
        diag_set(d, "client_cert.pem is no certificate");
        return ERR_INVALID;
    }
    in->cert = policy_cert_get(facts->cert);
    return ERR_OK;
}

static enum err take_protocols(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    const json_t *ssh = json_object_get(input, "ssh");
    const json_t *mcp = json_object_get(input, "mcp");
    struct sv key = member(ssh, "publickey", (struct sv){ 0 });

    if (check_keys(ssh, "ssh", "username publickey", d) != ERR_OK ||
        check_keys(mcp, "mcp", "method tool", d) != ERR_OK) {
        return ERR_INVALID;
    }
    if (mcp != NULL) {
        facts->mcp = (struct policy_mcp){ .method = member(mcp, "method", SV("")),
                                          .tool = member(mcp, "tool", SV("")) };
        facts->in.mcp = &facts->mcp;
    }
    if (ssh == NULL && !sv_eq(member(input, "protocol", SV("")), SV("ssh"))) {
        return ERR_OK;
    }
    facts->ssh.username = member(ssh, "username", SV(""));
    facts->in.ssh = &facts->ssh;
    if (key.p != NULL && policy_sshkey_parse(key, &facts->arena, &facts->ssh.publickey) != ERR_OK) {
        diag_set(d, "ssh.publickey is no public key");
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void on_record(void *arg, struct sv type, struct sv field, struct policy_field *field_out)
{
    struct cli_policy_facts *facts = arg;
    const json_t *record = json_object_getn(facts->records, type.p == NULL ? "" : type.p, type.n);
    const json_t *value = NULL;

    field_out->record = record != NULL;
    if (record == NULL || field.n == 0) {
        field_out->present = record != NULL;
        return;
    }
    value = json_object_getn(record, field.p, field.n);
    field_out->present = value != NULL;
    if (value != NULL) {
        field_out->values = scalars_of(&facts->arena, value, &field_out->count);
    }
}

enum err cli_policy_facts_init(struct cli_policy_facts *facts, const json_t *input, struct diag *d)
{
    enum err err = ERR_OK;

    *facts = (struct cli_policy_facts){ 0 };
    arena_init(&facts->arena);
    err = check_keys(
        input, "input",
        "session user email claims user_claims groups directory_email impersonate "
        "service_account expired no_user_id idp auth_age host method path headers accept bearer_session "
        "ip time client_cert device mcp protocol ssh records route mtls internal "
        "route_found extensions",
        d);
    facts->records = json_object_get(input, "records");
    if (err == ERR_OK) {
        err = take_person(facts, input, d);
    }
    /* Nobody has records, as authorize sees it, unless the case says so. */
    facts->in.record = facts->in.session || facts->records != NULL ? on_record : NULL;
    facts->in.record_arg = facts;
    if (err == ERR_OK) {
        err = take_request(facts, input, d);
    }
    if (err == ERR_OK) {
        err = take_cert(facts, input, d);
    }
    return err != ERR_OK ? err : take_protocols(facts, input, d);
}

void cli_policy_facts_deinit(struct cli_policy_facts *facts)
{
    policy_cert_free(&facts->cert);
    arena_deinit(&facts->arena);
}
