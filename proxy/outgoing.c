#include "proxy/outgoing.h"

#include <string.h>

#include "proxy/bearer.h"
#include "proxy/client_cert.h"
#include "proxy/exchange.h"
#include "proxy/forward.h"
#include "proxy/reply.h"
#include "proxy/rewrite.h"
#include "proxy/template.h"

/* ---- templates ------------------------------------------------------------------------------- */

/* What never goes upstream is no value either: our credentials, and what others claim in our name. */
static bool is_hidden(struct proxy_exchange *x, const struct http_field *f)
{
    return (f->flags & HTTP_F_NOT_FORWARDED) != 0 || f->id == HTTP_H_COOKIE ||
           proxy_bearer_is_ours(x, f) || http_name_set_has(x->snapshot->ours, f->name);
}

/* Several lines are one list (RFC 9110 §5.3). */
static struct sv request_header(void *arg, struct sv name)
{
    struct proxy_exchange *x = arg;
    struct sv value = { 0 };

    for (uint32_t i = 0; i < x->head.n; i++) {
        const struct http_field *f = &x->head.fields[i];

        if (!sv_ieq(f->name, name) || is_hidden(x, f)) {
            continue;
        }
        if (value.p == NULL) {
            value = f->value;
        } else {
            char *p = arena_alloc(&x->arena, value.n + f->value.n + 2);

            memcpy(p, value.p, value.n);
            memcpy(p + value.n, ", ", 2); /* NOLINT(bugprone-not-null-terminated-result): bytes */
            memcpy(p + value.n + 2, f->value.p, f->value.n);
            value = sv_of(p, value.n + f->value.n + 2);
        }
    }
    return value;
}

static struct proxy_client_cert_texts cert_texts(struct proxy_exchange *x)
{
    struct proxy_client_cert_texts texts = { .fingerprint = { 0 } };

    if (x->route->config->templates != NULL && x->conn->client_cert != NULL) {
        proxy_client_cert_texts(x->conn->client_cert, x->route->trust, x->conn->peer.text,
                                &x->arena, &texts);
    }
    return texts;
}

static void add_set(struct proxy_exchange *x, struct config_pair *out)
{
    const struct config_route *c = x->route->config;
    const struct proxy_client_cert_texts cert = cert_texts(x);
    const struct proxy_template_facts facts = {
        .access_token = proxy_identity_fact(x->identity, SV("access_token"), 0),
        .id_token = proxy_identity_fact(x->identity, SV("id_token"), 0),
        .jwt = proxy_identity_fact(x->identity, SV("jwt"), 0),
        .cert_fingerprint = cert.fingerprint,
        .cert_san_dns = cert.san_dns,
        .cert_san_email = cert.san_email,
        .header = request_header,
        .arg = x,
    };

    for (size_t i = 0; i < c->set_request_headers.n; i++) {
        out[i] = c->set_request_headers.v[i];
        if (c->templates != NULL && c->templates[i].n != 0) {
            out[i].value = proxy_template_value(&c->templates[i], &facts, &x->arena);
        }
    }
}

/* ---- Kubernetes ------------------------------------------------------------------------------ */

/* Names that Kubernetes keeps for itself: whoever the provider calls "system:masters" is not. */
static bool is_reserved(struct sv name)
{
    return sv_istarts(name, SV("system:"));
}

/* The token opens everything that the service account may; only with a name beside it does the API
 * server ask what that person may. */
static bool add_person(struct proxy_exchange *x, struct config_pair *out, size_t *n)
{
    struct sv token = secret_bytes(x->route->config->kubernetes_token);
    struct sv user = proxy_identity_fact(x->identity, SV("user"), 0);
    char *bearer = NULL;

    if (user.n == 0 || is_reserved(user)) {
        proxy_reply_fault(x, 403, user.n == 0 ? "kubernetes-without-user" : "kubernetes-reserved");
        return false;
    }
    bearer = arena_alloc(&x->arena, token.n + 7);
    memcpy(bearer, "Bearer ", 7); /* NOLINT(bugprone-not-null-terminated-result): bytes */
    memcpy(bearer + 7, token.p, token.n);
    out[(*n)++] = (struct config_pair){ SV("Authorization"), sv_of(bearer, token.n + 7) };
    out[(*n)++] = (struct config_pair){ SV("Impersonate-User"), user };
    for (size_t i = 0;; i++) {
        struct sv group = proxy_identity_fact(x->identity, SV("group"), i);

        if (group.p == NULL) {
            return true;
        }
        if (group.n != 0 && !is_reserved(group)) {
            out[(*n)++] = (struct config_pair){ SV("Impersonate-Group"), group };
        }
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* False: refused. */
static bool make_fields(struct proxy_exchange *x)
{
    const struct config_route *c = x->route->config;
    size_t n = c->set_request_headers.n;
    size_t facts = x->identity == NULL ? 0 : x->identity->n_facts;
    struct config_pair *out = NULL;

    if (c->templates == NULL && !c->kubernetes) {
        x->out.set = c->set_request_headers.v;
        x->out.n_set = n;
        return true;
    }
    out = arena_alloc(&x->arena, (n + facts + 2) * sizeof(*out));
    add_set(x, out);
    if (c->kubernetes && !add_person(x, out, &n)) {
        return false;
    }
    x->out.set = out;
    x->out.n_set = n;
    return true;
}

/* The value that host_rewrite_header names, as the upstream will see it. */
static struct sv host_header(struct proxy_exchange *x)
{
    struct sv name = x->route->config->host_rewrite_header;

    if (name.n == 0) {
        return (struct sv){ 0 };
    }
    for (size_t i = 0; i < x->out.n_set; i++) {
        if (sv_ieq(x->out.set[i].name, name)) {
            return x->out.set[i].value;
        }
    }
    return request_header(x, name);
}

bool proxy_outgoing_make(struct proxy_exchange *x)
{
    const struct config_route *c = NULL;
    enum err err = ERR_OK;

    x->out = (struct proxy_outgoing){ .path = x->req.path, .host = x->req.authority };
    if (x->service != PROXY_FOR_ROUTE) {
        return true;
    }
    c = x->route->config;
    if (!make_fields(x)) {
        return false;
    }
    err = proxy_rewrite_path(c, &x->snapshot->canon, x->req.path, &x->arena, &x->out.path);
    if (err != ERR_OK) {
        proxy_reply_fault(x, 400, err == ERR_LIMIT ? "rewrite-too-costly" : "rewrite-unsafe");
        return false;
    }
    err = proxy_rewrite_host(c, &x->req, host_header(x), &x->arena, &x->out.host);
    if (err != ERR_OK) {
        proxy_reply_fault(x, 400, err == ERR_LIMIT ? "rewrite-too-costly" : "rewrite-bad-host");
        return false;
    }
    return true;
}
