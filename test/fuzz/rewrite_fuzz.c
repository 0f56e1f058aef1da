/* What a route makes of a request: whatever path, header and substitution come in, what goes out is a
 * plain path, a host, one line of text. Input: substitution, path and header, separated by NUL. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/pattern.h"
#include "proxy/rewrite.h"
#include "proxy/template.h"
#include "test/fuzz/http_must.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char text[] =
    "insecure_server: true\n"
    "shared_secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    "routes:\n"
    "  - {from: https://a.b, to: http://c, allow_public_unauthenticated_access: true, prefix: /a, "
    "prefix_rewrite: /base/, host_rewrite_header: X-Host, "
    "rewrite_response_headers: [{header: X-Any, prefix: a, value: b}], "
    "set_request_headers: {X-A: 'pre ${pomerium.request.headers[\"X\"]} ${pomerium.jwt}'}}\n"
    "  - {from: https://b.b, to: http://c, allow_public_unauthenticated_access: true, "
    "regex_rewrite_pattern: '([a-z]+)/(x*)|%[0-9]', regex_rewrite_substitution: '\\1', "
    "host_path_regex_rewrite_pattern: '^/([^/]*)/(.*)$', "
    "host_path_regex_rewrite_substitution: '\\1'}\n"
    "  - {from: https://c.b, redirect: {prefix_rewrite: /n/, host_redirect: d.b}, prefix: /a, "
    "allow_public_unauthenticated_access: true}\n";

static struct config *config(void)
{
    static struct config *kept;
    const struct config_opts opts = { .file = "fuzz.yaml", .part = CONFIG_PART_PROXY };
    struct config_errors *errors = NULL;

    if (kept == NULL) {
        must(config_parse(sv_from(text), &opts, &kept, &errors) == ERR_OK);
    }
    return kept;
}

static void check_path(const struct config_route *route, struct sv path, struct arena *arena)
{
    const struct http_canon_rules rules = { .keep_dot_segments = true };
    struct sv out = { 0 };
    struct sv again = { 0 };

    if (proxy_rewrite_path(route, &rules, path, arena, &out) != ERR_OK) {
        return;
    }
    must(out.n != 0 && out.p[0] == '/' && out.n <= (size_t)3 * PROXY_REWRITE_MAX);
    must(http_canon_path(out, &rules, arena, &again, NULL) == HTTP_FAULT_NONE);
    must(sv_eq(out, again));
    must(route->prefix_rewrite.n == 0 || sv_starts(out, route->prefix_rewrite));
}

static void check_host(const struct config_route *route, struct sv path, struct sv header,
                       struct arena *arena)
{
    const struct http_request req = { .path = path, .authority = SV("a.b") };
    struct sv out = { 0 };
    struct http_authority auth;

    if (proxy_rewrite_host(route, &req, header, arena, &out) == ERR_OK && out.p != NULL) {
        must(http_authority_parse(out, &auth) == ERR_OK);
    }
}

static void check_location(const struct config_route *route, struct sv path)
{
    const struct http_request req = { .path = path, .host = SV("c.b"), .port = 8443 };
    struct buf out;

    buf_init(&out, (size_t)4 * PROXY_REWRITE_MAX);
    proxy_rewrite_location(route, &req, true, &out);
    must(out.err != ERR_OK || sv_starts(buf_sv(&out), SV("https://d.b/n/")));
    buf_deinit(&out);
}

static void check_substitution(struct sv substitution, struct sv subject)
{
    struct pattern *p = config()->routes[1].rewrite;
    struct buf out;

    buf_init(&out, PROXY_REWRITE_MAX);
    if (pattern_check_substitution(p, substitution, NULL) == ERR_OK) {
        (void)pattern_replace(p, subject, substitution, &out);
    }
    buf_deinit(&out);
}

static struct sv header_value(void *arg, struct sv name)
{
    (void)name;
    return *(const struct sv *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sv rest = sv_of(data, MIN(size, (size_t)PROXY_REWRITE_MAX));
    struct sv substitution = sv_cut(&rest, '\0');
    struct sv raw = sv_cut(&rest, '\0');
    struct sv header = rest;
    const struct config_route *routes = config()->routes;
    const struct http_canon_rules rules = { 0 };
    const struct proxy_template_facts facts = { .jwt = SV("jwt"),
                                                .header = header_value,
                                                .arg = &header };
    struct sv path = { 0 };
    struct sv value = { 0 };
    struct arena arena;

    arena_init(&arena);
    check_substitution(substitution, raw);
    if (http_canon_path(raw, &rules, &arena, &path, NULL) == HTTP_FAULT_NONE) {
        if (sv_starts(http_canon_decode(path, &arena), SV("/a"))) {
            check_path(&routes[0], path, &arena);
            check_location(&routes[2], path);
        }
        check_path(&routes[1], path, &arena);
        check_host(&routes[0], path, header, &arena);
        check_host(&routes[1], path, header, &arena);
    }
    value = proxy_template_value(&routes[0].templates[0], &facts, &arena);
    must(value.p == NULL || (http_is_value(value) && value.n != 0));
    (void)proxy_rewrite_header(&routes[0], SV("x-any"), header, &arena);
    arena_deinit(&arena);
    return 0;
}
