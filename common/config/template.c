/* Values of set_request_headers that hold tokens, and the token of a Kubernetes API server. */
#include <string.h>

#include "common/config/reader.h"
#include "common/http/name.h"

static const struct {
    struct sv name;
    enum config_token token;
    unsigned tell;
} tokens[] = {
    { { "pomerium.access_token", 21 }, CONFIG_TOKEN_ACCESS_TOKEN, CONFIG_TELL_ACCESS_TOKEN },
    { { "pomerium.id_token", 17 }, CONFIG_TOKEN_ID_TOKEN, CONFIG_TELL_ID_TOKEN },
    { { "pomerium.jwt", 12 }, CONFIG_TOKEN_JWT, CONFIG_TELL_JWT },
    { { "pomerium.client_cert_fingerprint", 32 }, CONFIG_TOKEN_CERT_FINGERPRINT, 0 },
    { { "pomerium.client_cert_san_dns", 28 }, CONFIG_TOKEN_CERT_SAN_DNS, 0 },
    { { "pomerium.client_cert_san_email", 30 }, CONFIG_TOKEN_CERT_SAN_EMAIL, 0 },
};

/* One value while it is read. */
struct work {
    struct config_route *route;
    struct config_piece *pieces;
    size_t n;
    size_t n_tokens;
    char *text; /* what stands between tokens, one after the other */
    size_t n_text;
    size_t piece_at; /* where the text of the piece under way begins */
};

static void end_text(struct work *w)
{
    if (w->n_text > w->piece_at) {
        w->pieces[w->n++] =
            (struct config_piece){ .text = sv_of(w->text + w->piece_at, w->n_text - w->piece_at) };
    }
    w->piece_at = w->n_text;
}

static void add_token(struct work *w, enum config_token token, struct sv text)
{
    end_text(w);
    w->pieces[w->n++] = (struct config_piece){ .token = token, .text = text };
    w->n_tokens++;
}

/* What stands in ${…}. False: it is none of the tokens. */
static bool read_token(struct config_reader *r, struct work *w, struct sv name)
{
    static const struct sv header = { "pomerium.request.headers[\"", 26 };
    struct sv field = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        if (sv_eq(name, tokens[i].name)) {
            w->route->tell |= tokens[i].tell;
            add_token(w, tokens[i].token, SV(""));
            return true;
        }
    }
    if (!sv_starts(name, header) || !sv_ends(name, SV("\"]")) || name.n < header.n + 2) {
        return false;
    }
    field = sv_of(name.p + header.n, name.n - header.n - 2);
    if (!config_is_header_name(field)) {
        return false;
    }
    add_token(w, CONFIG_TOKEN_HEADER, config_keep(r, field));
    return true;
}

/* False: reported. */
static bool read_value(struct config_reader *r, struct work *w, struct sv value,
                       struct config_place place)
{
    for (size_t i = 0; i < value.n; i++) {
        struct sv rest = sv_from_at(value, i);
        size_t end = 0;

        if (sv_starts(rest, SV("$$"))) {
            i++;
        } else if (sv_starts(rest, SV("${"))) {
            end = sv_find(rest, '}');
            if (end == SIZE_MAX || !read_token(r, w, sv_of(rest.p + 2, end - 2))) {
                config_error(r, place,
                             "set_request_headers: expected ${pomerium.access_token}, .id_token, "
                             ".jwt, .client_cert_fingerprint, .client_cert_san_dns, "
                             ".client_cert_san_email or .request.headers[\"NAME\"]; write $$ for a "
                             "dollar sign");
                return false;
            }
            i += end;
            continue;
        } else if (sv_starts(rest, SV("$pomerium"))) {
            config_error(r, place,
                         "set_request_headers: write tokens as ${pomerium.…}, and $$ for "
                         "a dollar sign");
            return false;
        }
        w->text[w->n_text++] = value.p[i];
    }
    end_text(w);
    w->text[w->n_text] = '\0';
    return true;
}

void config_read_templates(struct config_reader *r, const struct config_value *v,
                           struct config_route *route)
{
    const struct config_pairs *set = &route->set_request_headers;
    struct config_template *all = arena_zalloc(r->arena, (set->n + 1) * sizeof(*route->templates));

    for (size_t i = 0; i < set->n; i++) {
        struct config_pair *p = &set->v[i];
        struct work w = { .route = route };

        if (sv_ieq(p->name, SV("host")) || sv_starts(p->name, SV(":"))) {
            config_error(r, v->place,
                         "set_request_headers: Host is chosen by preserve_host_header or "
                         "host_rewrite");
        }
        if (sv_find(p->value, '$') == SIZE_MAX) {
            continue;
        }
        w.text = arena_alloc(r->arena, p->value.n + 1);
        w.pieces = arena_zalloc(r->arena, (p->value.n + 1) * sizeof(*w.pieces));
        if (!read_value(r, &w, p->value, v->place)) {
            return;
        }
        p->value = sv_of(w.text, w.n_text);
        if (w.n_tokens != 0) {
            all[i] = (struct config_template){ .v = w.pieces, .n = w.n };
            route->templates = all;
        }
    }
}

/* ---- kubernetes_service_account_token ---------------------------------------------------------- */

void config_check_kubernetes(struct config_reader *r, const struct config_value *v,
                             const struct config_route *route)
{
    struct sv token =
        route->kubernetes_token == NULL ? SV("") : secret_bytes(route->kubernetes_token);

    if (!route->kubernetes) {
        return;
    }
    if (route->action != CONFIG_ACTION_UPSTREAM) {
        config_error(r, v->place,
                     "kubernetes_service_account_token belongs to a route with \"to\"");
    }
    if (route->allow_public_unauthenticated_access) {
        config_error(r, v->place,
                     "kubernetes_service_account_token: requests act in the name of a person, so "
                     "allow_public_unauthenticated_access makes no sense here");
    }
    for (size_t i = 0; i < route->set_request_headers.n; i++) {
        struct sv name = route->set_request_headers.v[i].name;

        if (http_name_eq_loose(sv_head(name, MIN(name.n, (size_t)12)), SV("impersonate-")) ||
            http_name_eq_loose(name, SV("authorization"))) {
            config_error(r, v->place,
                         "set_request_headers: Authorization and Impersonate-… are set by "
                         "kubernetes_service_account_token");
        }
    }
    for (size_t i = 0; i < token.n; i++) {
        if (token.p[i] <= 0x20 || token.p[i] >= 0x7f) {
            config_error(r, v->place,
                         "kubernetes_service_account_token: a token is one word of ASCII");
            break;
        }
    }
}
