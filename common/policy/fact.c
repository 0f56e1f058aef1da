#include "common/policy/fact.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/clock.h"
#include "common/policy/ask.h"

enum { ITEMS_MAX = 20, TEXT_MAX = 256 };

/* --- values -------------------------------------------------------------------------------------- */

static void missing(struct buf *out, const char *why)
{
    buf_add_str(out, "\"missing\":");
    buf_add_json(out, sv_from(why));
}

/* What came from outside may be long: its beginning tells enough. */
static void add_text(struct buf *out, struct sv text)
{
    CLEANUP(buf_deinit) struct buf cut;

    buf_init(&cut, TEXT_MAX + 4);
    if (text.n <= TEXT_MAX) {
        buf_add_json(out, text);
        return;
    }
    buf_add(&cut, text.p, TEXT_MAX);
    buf_add_str(&cut, "…");
    buf_add_json(out, buf_sv(&cut));
}

static void fact_text(struct buf *out, struct sv text, const char *none)
{
    if (text.n == 0) {
        missing(out, none);
        return;
    }
    buf_add_str(out, "\"fact\":");
    add_text(out, text);
}

static void fact_flag(struct buf *out, bool flag)
{
    buf_add_str(out, flag ? "\"fact\":true" : "\"fact\":false");
}

static void add_scalar(struct buf *out, const struct policy_scalar *v)
{
    switch (v->kind) {
    case POLICY_KIND_STRING:
        add_text(out, v->text.s);
        break;
    case POLICY_KIND_NUMBER:
        buf_printf(out, "%.17g", v->number);
        break;
    case POLICY_KIND_BOOL:
        buf_add_str(out, v->flag ? "true" : "false");
        break;
    case POLICY_KIND_NULL:
        buf_add_str(out, "null");
        break;
    case POLICY_KIND_OTHER:
    default:
        buf_add_json(out, SV("(an object or a list)"));
        break;
    }
}

/* "fact":[…], with what was left out counted beside. */
static void list_end(struct buf *out, size_t count)
{
    buf_add_char(out, ']');
    if (count > ITEMS_MAX) {
        buf_printf(out, ",\"more\":%zu", count - ITEMS_MAX);
    }
}

static void fact_scalars(struct buf *out, const struct policy_scalar *values, size_t count)
{
    buf_add_str(out, "\"fact\":[");
    for (size_t i = 0; i < MIN(count, (size_t)ITEMS_MAX); i++) {
        buf_add_str(out, i == 0 ? "" : ",");
        add_scalar(out, &values[i]);
    }
    list_end(out, count);
}

static void fact_texts(struct buf *out, const struct policy_text *texts, size_t count)
{
    buf_add_str(out, "\"fact\":[");
    for (size_t i = 0; i < MIN(count, (size_t)ITEMS_MAX); i++) {
        buf_add_str(out, i == 0 ? "" : ",");
        add_text(out, texts[i].s);
    }
    list_end(out, count);
}

/* --- who ----------------------------------------------------------------------------------------- */

static void fact_claim(struct buf *out, const struct policy_pred *p, const struct policy_input *in)
{
    const struct policy_claim *claim = policy_fact_claim(in, &p->claim);

    if (claim->name.s.n == 0) {
        missing(out, "the visitor has no such claim");
        return;
    }
    fact_scalars(out, claim->values, claim->count);
}

static void fact_device(struct buf *out, const struct policy_input *in)
{
    buf_add_str(out, "\"fact\":[");
    for (size_t i = 0; i < MIN(in->device_count, (size_t)ITEMS_MAX); i++) {
        const struct policy_device *device = &in->devices[i];

        buf_add_str(out, i == 0 ? "{\"type\":" : ",{\"type\":");
        add_text(out, device->type);
        buf_add_str(out, ",\"id\":");
        add_text(out, device->id);
        buf_printf(out, ",\"enrolled\":%s,\"approved\":%s}", device->enrolled ? "true" : "false",
                   device->approved ? "true" : "false");
    }
    list_end(out, in->device_count);
}

static void fact_login(struct buf *out, const struct policy_input *in)
{
    char text[CLOCK_TEXT_SIZE];

    if (in->authenticated_ms <= 0) {
        missing(out, "nobody knows when this person logged in");
        return;
    }
    fact_text(out, sv_from(clock_format(in->authenticated_ms, text)), "");
}

static void fact_identity(struct buf *out, const struct policy_pred *p,
                          const struct policy_input *in)
{
    struct policy_text domain = { 0 };
    const struct policy_text *groups = NULL;
    size_t n = 0;

    if (!in->session) {
        missing(out, "nobody is logged in");
        return;
    }
    switch ((int)p->kind) {
    case POLICY_CRITERION_AUTHENTICATED_USER:
    case POLICY_CRITERION_USER:
        fact_text(out, in->user_id.s, "the session names no user");
        break;
    case POLICY_CRITERION_EMAIL:
    case POLICY_CRITERION_SSH_USERNAME_MATCHES_EMAIL:
        fact_text(out, policy_fact_email(in)->s, "the user has no e-mail address");
        break;
    case POLICY_CRITERION_DOMAIN:
        (void)policy_fact_domain(in, &domain);
        fact_text(out, domain.s, "the user's e-mail address has no domain");
        break;
    case POLICY_CRITERION_GROUPS:
        if (in->directory) {
            groups = policy_fact_groups(in, &n);
            fact_texts(out, groups, n);
        } else {
            missing(out, in->groups_missed
                             ? "their groups could not be had, which counts against them"
                             : "there is no directory record of the user");
        }
        break;
    case POLICY_CRITERION_CLAIM:
    case POLICY_CRITERION_SSH_USERNAME_MATCHES_CLAIM:
        fact_claim(out, p, in);
        break;
    case POLICY_CRITERION_DEVICE:
        fact_device(out, in);
        break;
    case POLICY_CRITERION_IDP:
        fact_text(out, in->idp.s, "the session names no identity provider");
        break;
    case POLICY_CRITERION_AUTH_AGE:
        fact_login(out, in);
        break;
    default:
        missing(out, "it is not told");
        break;
    }
}

/* --- what and where from ------------------------------------------------------------------------- */

static void fact_ip(struct buf *out, const struct policy_input *in)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    bool v4 = memcmp(in->client_ip, mapped, sizeof(mapped)) == 0;
    char text[INET6_ADDRSTRLEN] = "";

    if (!in->client_ip_known) {
        missing(out, "the client's address is not known");
        return;
    }
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, in->client_ip + (v4 ? sizeof(mapped) : 0), text,
                    sizeof(text));
    fact_text(out, sv_from(text), "");
}

static void add_names(struct buf *out, const char *key, const struct sv *names, size_t count)
{
    buf_printf(out, ",\"%s\":[", key);
    for (size_t i = 0; i < MIN(count, (size_t)ITEMS_MAX); i++) {
        buf_add_str(out, i == 0 ? "" : ",");
        add_text(out, names[i]);
    }
    buf_add_char(out, ']');
}

static void fact_certificate(struct buf *out, const struct policy_input *in)
{
    const struct policy_cert *cert = in->cert;

    if (!in->cert_presented || cert == NULL) {
        missing(out, in->cert_presented ? "the client's certificate could not be read"
                                        : "the client showed no certificate");
        return;
    }
    buf_add_str(out, "\"fact\":{\"fingerprint\":\"");
    for (size_t i = 0; i < sizeof(cert->fingerprint); i++) {
        buf_printf(out, "%02x", cert->fingerprint[i]);
    }
    buf_add_char(out, '"');
    add_names(out, "san_email", cert->san_email, cert->san_email_count);
    add_names(out, "san_dns", cert->san_dns, cert->san_dns_count);
    add_names(out, "san_uri", cert->san_uri, cert->san_uri_count);
    buf_add_str(out, ",\"issuer\":");
    add_text(out, cert->issuer);
    buf_add_str(out, ",\"subject\":");
    add_text(out, cert->subject);
    buf_add_char(out, '}');
}

static void fact_trust(struct buf *out, const struct policy_input *in)
{
    if (!in->client_ca) {
        missing(out, "no CA for client certificates is configured");
    } else if (!in->cert_presented) {
        missing(out, "the client showed no certificate");
    } else {
        fact_text(out, in->cert_trusted ? SV("trusted") : SV("not trusted"), "");
    }
}

static void fact_record(struct buf *out, const struct policy_pred *p, const struct policy_input *in)
{
    struct policy_field field = { 0 };

    if (in->record != NULL) {
        in->record(in->record_arg, p->record->type, p->record->field, &field);
    }
    if (!field.record || !field.present) {
        missing(out, field.record ? "the record has no such field" : "there is no such record");
        return;
    }
    fact_scalars(out, field.values, field.count);
}

static void fact_mcp(struct buf *out, const struct policy_input *in)
{
    fact_text(out, in->mcp == NULL ? SV("") : in->mcp->tool, "the request calls no tool");
}

static void fact_time(struct buf *out, const struct policy_input *in)
{
    char text[CLOCK_TEXT_SIZE];

    fact_text(out, sv_from(clock_format(in->wall_ms, text)), "");
}

static void fact_header(struct buf *out, const struct policy_pred *p, const struct policy_input *in)
{
    static const char *const whys[] = {
        [POLICY_HEADER_UNKNOWN] = "the proxy did not tell this header",
        [POLICY_HEADER_TOLD] = "the request has no such header",
        [POLICY_HEADER_REPEATED] = "the request has this header more than once",
        [POLICY_HEADER_TOO_LARGE] = "the header's value is too long",
        [POLICY_HEADER_WITHHELD] =
            "not remembered: it may hold a secret, or it is too long or long ago",
    };
    struct policy_header header = policy_fact_header(in, p->claim.s);

    fact_text(out, header.value, whys[header.state]);
}

static void fact_request(struct buf *out, const struct policy_pred *p,
                         const struct policy_input *in)
{
    switch ((int)p->kind) {
    case POLICY_CRITERION_ACCEPT:
    case POLICY_CRITERION_REJECT:
        fact_flag(out, true);
        break;
    case POLICY_CRITERION_HTTP_METHOD:
        fact_text(out, in->method, "the request has no method");
        break;
    case POLICY_CRITERION_HOST:
        fact_text(out, in->host, "the request has no host");
        break;
    case POLICY_CRITERION_HEADER:
        fact_header(out, p, in);
        break;
    case POLICY_CRITERION_HTTP_PATH:
        fact_text(out, in->path, "the request has no path");
        break;
    case POLICY_CRITERION_CORS_PREFLIGHT:
        fact_flag(out, in->cors_preflight);
        break;
    case POLICY_CRITERION_SOURCE_IP:
        fact_ip(out, in);
        break;
    case POLICY_CRITERION_CLIENT_CERTIFICATE:
        fact_certificate(out, in);
        break;
    case POLICY_CRITERION_INVALID_CLIENT_CERTIFICATE:
        fact_trust(out, in);
        break;
    case POLICY_CRITERION_MCP_TOOL:
        fact_mcp(out, in);
        break;
    case POLICY_CRITERION_SSH_USERNAME:
        fact_text(out, in->ssh == NULL ? SV("") : in->ssh->username, "it is no SSH login");
        break;
    case POLICY_CRITERION_DATE:
    case POLICY_CRITERION_DAY_OF_WEEK:
    case POLICY_CRITERION_TIME_OF_DAY:
        fact_time(out, in);
        break;
    case POLICY_CRITERION_RECORD:
        fact_record(out, p, in);
        break;
    default: /* SSH keys: bytes that tell nobody anything */
        missing(out, in->ssh == NULL ? "it is no SSH login" : "it is not told");
        break;
    }
}

void policy_fact(const struct policy_pred *p, const struct policy_input *in, struct buf *out)
{
    if (p->identity) {
        fact_identity(out, p, in);
    } else {
        fact_request(out, p, in);
    }
}
