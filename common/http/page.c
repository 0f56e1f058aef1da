#include "common/http/page.h"

#include <pthread.h>

#include <openssl/evp.h>

#include "common/b64.h"

/* One column, system fonts, 16 px and up, contrast of at least 4.5:1 in both colour schemes. */
static const char style_text[] =
    ":root{color-scheme:light dark;--back:#f4f5f2;--card:#fff;--ink:#1c2326;--soft:#566167;"
    "--line:#d9ddda;--accent:#1c5f59;--on:#fff;--field:#fff}"
    "@media(prefers-color-scheme:dark){:root{--back:#121618;--card:#1b2123;--ink:#e7ebec;"
    "--soft:#a3adb2;--line:#343d40;--accent:#83cbc2;--on:#0d1a18;--field:#14191b}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:flex;flex-direction:column;align-items:center;"
    "justify-content:center;padding:1.5rem 1rem;background:var(--back);color:var(--ink);"
    "font:1rem/1.55 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",sans-serif}"
    "main{width:100%;max-width:26rem;padding:2rem;background:var(--card);"
    "border:1px solid var(--line);border-radius:14px}"
    "header{width:100%;max-width:26rem;padding:0 .25rem .75rem;color:var(--soft);"
    "font-size:.875rem;letter-spacing:.04em}"
    "footer{max-width:26rem;padding:.9rem .25rem 0;color:var(--soft);font-size:.8rem;"
    "overflow-wrap:anywhere;text-align:center}"
    "h1{margin:0 0 1rem;font-size:1.4rem;line-height:1.25;font-weight:600;text-wrap:balance}"
    "h2{margin:1.5rem 0 .75rem;font-size:1.1rem;line-height:1.3;font-weight:600}"
    "p{margin:0 0 1rem;overflow-wrap:anywhere}p:last-child,form:last-child{margin-bottom:0}"
    ".soft{color:var(--soft);font-size:.9rem}"
    ".note{padding:.65rem .85rem;border-left:3px solid var(--accent);background:var(--back);"
    "border-radius:0 8px 8px 0}"
    "a{color:var(--accent);text-underline-offset:.15em}"
    "label{display:block;margin:0 0 .3rem;font-size:.9rem;font-weight:500}"
    "input{display:block;width:100%;margin:0 0 1.1rem;padding:.65rem .75rem;font:inherit;"
    "color:inherit;background:var(--field);border:1px solid var(--soft);border-radius:8px}"
    "button,.button{display:block;width:100%;padding:.7rem 1rem;font:inherit;font-weight:600;"
    "text-align:center;text-decoration:none;color:var(--on);background:var(--accent);"
    "border:1px solid var(--accent);border-radius:8px;cursor:pointer}"
    ".quiet{color:var(--accent);background:none;border-color:var(--line)}"
    "button:hover,.button:hover{filter:brightness(1.08)}"
    ":focus-visible{outline:3px solid var(--accent);outline-offset:2px}"
    "dl{margin:0 0 1.25rem;display:grid;grid-template-columns:minmax(5.5rem,auto) minmax(50%,1fr);"
    "gap:.45rem 1rem}"
    "dt{color:var(--soft);font-size:.9rem}dd{margin:0;overflow-wrap:anywhere}"
    "code{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.9em}"
    "@media(max-width:30rem){main{padding:1.4rem}dl{grid-template-columns:1fr;gap:0}"
    "dd{margin-bottom:.6rem}}"
    "@media(prefers-reduced-motion:no-preference){button,.button{transition:filter .12s}}";

static char style_hash[64];
static pthread_once_t style_once = PTHREAD_ONCE_INIT;

static void style_hash_make(void)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    CLEANUP(buf_deinit) struct buf text;

    CHECK(EVP_Digest(style_text, sizeof style_text - 1, digest, &n, EVP_sha256(), NULL) == 1);
    buf_init(&text, sizeof style_hash);
    b64_std_add(&text, sv_of(digest, n));
    CHECK(text.err == ERR_OK && text.n < sizeof style_hash);
    __builtin_memcpy(style_hash, text.p, text.n);
}

void http_page_begin(struct buf *b, struct sv title)
{
    buf_add_str(b, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"robots\" content=\"noindex\">\n<title>");
    buf_add_html(b, title);
    buf_add_str(b, "</title>\n<style>");
    buf_add_str(b, style_text);
    buf_add_str(b, "</style>\n</head>\n<body>\n<header>Postern</header>\n<main>\n<h1>");
    buf_add_html(b, title);
    buf_add_str(b, "</h1>\n");
}

void http_page_end(struct buf *b, struct sv request_id)
{
    buf_add_str(b, "</main>\n");
    if (request_id.n > 0) {
        buf_add_str(b, "<footer>Request <code>");
        buf_add_html(b, request_id);
        buf_add_str(b, "</code></footer>\n");
    }
    buf_add_str(b, "</body>\n</html>\n");
}

static void paragraph(struct buf *b, const char *open, struct sv text)
{
    if (text.n == 0) {
        return;
    }
    buf_add_str(b, open);
    buf_add_html(b, text);
    buf_add_str(b, "</p>\n");
}

static void add_link(struct buf *b, const struct http_page_link *link)
{
    buf_add_str(b, "<p><a href=\"");
    buf_add_html(b, link->href);
    buf_add_str(b, "\">");
    buf_add_html(b, link->text);
    buf_add_str(b, "</a></p>\n");
}

void http_page_problem(struct buf *b, const struct http_page_problem *problem)
{
    http_page_begin(b, problem->title);
    paragraph(b, "<p class=\"note\">", problem->note);
    paragraph(b, "<p>", problem->what);
    paragraph(b, "<p>", problem->todo);
    if (problem->code.n > 0) {
        buf_add_str(b, "<p class=\"soft\">Cause: <code>");
        buf_add_html(b, problem->code);
        buf_add_str(b, "</code></p>\n");
    }
    if (problem->link.n > 0) {
        buf_add_str(b, "<p><a class=\"button quiet\" href=\"");
        buf_add_html(b, problem->link);
        buf_add_str(b, "\">");
        buf_add_html(b, problem->link_text);
        buf_add_str(b, "</a></p>\n");
    }
    for (size_t i = 0; i < HTTP_PAGE_LINKS; i++) {
        if (problem->more[i].href.n > 0) {
            add_link(b, &problem->more[i]);
        }
    }
    http_page_end(b, problem->request_id);
}

void http_page_facts_begin(struct buf *b)
{
    buf_add_str(b, "<dl>\n");
}

void http_page_fact(struct buf *b, struct sv name, struct sv value)
{
    buf_add_str(b, "<dt>");
    buf_add_html(b, name);
    buf_add_str(b, "</dt><dd>");
    buf_add_html(b, value);
    buf_add_str(b, "</dd>\n");
}

void http_page_facts_end(struct buf *b)
{
    buf_add_str(b, "</dl>\n");
}

static bool is_origin(struct sv origin)
{
    for (size_t i = 0; i < origin.n; i++) {
        unsigned char c = (unsigned char)origin.p[i];

        if (c <= ' ' || c >= 0x7f || c == ';' || c == ',' || c == '\'' || c == '"' || c == '*') {
            return false;
        }
    }
    return sv_starts(origin, SV("https://")) || sv_starts(origin, SV("http://"));
}

void http_page_csp(struct buf *b, const struct sv *origins, size_t n)
{
    CHECK(pthread_once(&style_once, style_hash_make) == 0);
    buf_add_str(b, "default-src 'none'; style-src 'sha256-");
    buf_add_str(b, style_hash);
    buf_add_str(b, "'; form-action 'self'");
    for (size_t i = 0; i < n; i++) {
        if (is_origin(origins[i])) {
            buf_add_char(b, ' ');
            buf_add_sv(b, origins[i]);
        }
    }
    buf_add_str(b, "; frame-ancestors 'none'; base-uri 'none'");
}

/* same-origin and not no-referrer: with the latter, browsers send "Origin: null" with our own forms. */
static const struct http_page_header fixed_headers[] = {
    { "Cache-Control", "no-store" },
    { "X-Content-Type-Options", "nosniff" },
    { "X-Frame-Options", "DENY" },
    { "Referrer-Policy", "same-origin" },
};

const struct http_page_header *http_page_headers(size_t *n_out)
{
    *n_out = ARRAY_LEN(fixed_headers);
    return fixed_headers;
}
