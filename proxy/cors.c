#include "proxy/cors.h"

/* The pattern of every name below example.com fits "https://a.b.example.com", never the bare domain. */
static bool below(struct sv pattern, struct sv origin)
{
    size_t star = sv_find(pattern, '*');
    struct sv before = { 0 };
    struct sv behind = { 0 };
    struct sv name = { 0 };

    if (star == SIZE_MAX) {
        return false;
    }
    before = sv_head(pattern, star);
    behind = sv_from_at(pattern, star + 1); /* ".example.com:8443" */
    if (origin.n <= before.n + behind.n || !sv_starts(origin, before) || !sv_ends(origin, behind)) {
        return false;
    }
    name = sv_of(origin.p + before.n, origin.n - before.n - behind.n);
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_') {
            return false;
        }
    }
    return true;
}

/* Without credentials: anybody, also the "null" of a sandbox. */
static bool is_open(const struct config_cors *cors)
{
    for (size_t i = 0; i < cors->allow_origins.n && !cors->allow_credentials; i++) {
        if (sv_eq(cors->allow_origins.v[i], SV("*"))) {
            return true;
        }
    }
    return false;
}

bool proxy_cors_allows(const struct config_cors *cors, struct sv origin)
{
    if (origin.n == 0 || is_open(cors)) {
        return origin.n != 0;
    }
    for (size_t i = 0; i < cors->allow_origins.n; i++) {
        if (sv_eq(cors->allow_origins.v[i], origin) || below(cors->allow_origins.v[i], origin)) {
            return true;
        }
    }
    return false;
}

void proxy_cors_answer(const struct config_cors *cors, struct sv origin,
                       struct proxy_fields *fields)
{
    bool open = is_open(cors);

    if (!open) {
        proxy_fields_add(fields, SV("Vary"), SV("Origin"));
    }
    if (!proxy_cors_allows(cors, origin)) {
        return;
    }
    proxy_fields_add(fields, SV("Access-Control-Allow-Origin"), open ? SV("*") : origin);
    if (cors->allow_credentials) {
        proxy_fields_add(fields, SV("Access-Control-Allow-Credentials"), SV("true"));
    }
    if (cors->expose_text.n != 0) {
        proxy_fields_add(fields, SV("Access-Control-Expose-Headers"), cors->expose_text);
    }
}

void proxy_cors_preflight(const struct config_cors *cors, struct proxy_fields *fields)
{
    proxy_fields_add(fields, SV("Access-Control-Allow-Methods"), cors->methods_text);
    proxy_fields_add(fields, SV("Access-Control-Allow-Headers"), cors->headers_text);
    proxy_fields_add(fields, SV("Access-Control-Max-Age"), cors->max_age_text);
}

bool proxy_cors_speaks_for(struct sv name)
{
    return sv_istarts(name, SV("access-control-"));
}
