#include "authenticate/page.h"

#include "common/clock.h"
#include "common/http/page.h"

static void hidden(struct buf *b, const char *name, struct sv value)
{
    buf_add_str(b, "<input type=\"hidden\" name=\"");
    buf_add_str(b, name);
    buf_add_str(b, "\" value=\"");
    buf_add_html(b, value);
    buf_add_str(b, "\">\n");
}

void authn_page_login(struct buf *b, const struct authn_page_login *page)
{
    http_page_begin(b, SV("Sign in"));
    if (page->note.n > 0) {
        buf_add_str(b, "<p class=\"note\" role=\"alert\">");
        buf_add_html(b, page->note);
        buf_add_str(b, "</p>\n");
    }
    if (page->app.n > 0) {
        buf_add_str(b, "<p class=\"soft\">to continue to ");
        buf_add_html(b, page->app);
        buf_add_str(b, "</p>\n");
    }
    buf_add_str(b, "<form method=\"post\" action=\"/.pomerium/sign_in\">\n");
    hidden(b, "token", page->token);
    buf_add_str(b, "<label for=\"email\">E-mail address</label>\n"
                   "<input id=\"email\" name=\"email\" type=\"email\" required maxlength=\"254\" "
                   "autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\"");
    buf_add_str(b, page->email.n == 0 ? " autofocus value=\"" : " value=\"");
    buf_add_html(b, page->email);
    buf_add_str(b, "\">\n<label for=\"password\">Password</label>\n"
                   "<input id=\"password\" name=\"password\" type=\"password\" required "
                   "autocomplete=\"current-password\"");
    buf_add_str(b, page->email.n == 0 ? "" : " autofocus");
    buf_add_str(b, ">\n<button type=\"submit\">Sign in</button>\n</form>\n");
    http_page_end(b, page->request_id);
}

static void groups_fact(struct buf *b, const json_t *groups)
{
    CLEANUP(buf_deinit) struct buf text;

    buf_init(&text, HTTP_PAGE_MAX / 2);
    for (size_t i = 0; i < json_array_size(groups); i++) {
        const json_t *g = json_array_get(groups, i);

        buf_add_str(&text, text.n > 0 ? ", " : "");
        buf_add_sv(&text, sv_of(json_string_value(g), json_string_length(g)));
    }
    http_page_fact(b, SV("Groups"), text.n > 0 ? buf_sv(&text) : SV("none"));
}

static void expiry_fact(struct buf *b, int64_t expires_at_s)
{
    char text[CLOCK_TEXT_SIZE];
    CLEANUP(buf_deinit) struct buf line;

    if (expires_at_s <= 0) {
        return;
    }
    buf_init(&line, 64);
    (void)clock_format(expires_at_s * 1000, text);
    text[10] = '\0';
    text[16] = '\0'; /* 2026-11-23 10:00 UTC */
    buf_add_str(&line, text);
    buf_add_char(&line, ' ');
    buf_add_str(&line, text + 11);
    buf_add_str(&line, " UTC");
    http_page_fact(b, SV("Signed in until"), buf_sv(&line));
}

void authn_page_user(struct buf *b, const struct authn_page_user *page)
{
    http_page_begin(b, SV("You are signed in"));
    http_page_facts_begin(b);
    if (page->name.n > 0) {
        http_page_fact(b, SV("Name"), page->name);
    }
    if (page->email.n > 0) {
        http_page_fact(b, SV("E-mail"), page->email);
    }
    http_page_fact(b, SV("User"), page->user_id);
    groups_fact(b, page->groups);
    expiry_fact(b, page->expires_at_s);
    http_page_facts_end(b);
    buf_add_str(b, "<p><a class=\"button quiet\" href=\"");
    buf_add_html(b, page->sign_out);
    buf_add_str(b, "\">Sign out</a></p>\n");
    http_page_end(b, page->request_id);
}

void authn_page_sign_out(struct buf *b, struct sv token, struct sv who, struct sv request_id)
{
    http_page_begin(b, SV("Sign out?"));
    buf_add_str(b, "<p>This ends your session in every application");
    if (who.n > 0) {
        buf_add_str(b, ", for ");
        buf_add_html(b, who);
    }
    buf_add_str(b, ".</p>\n<form method=\"post\" action=\"/.pomerium/sign_out\">\n");
    hidden(b, "token", token);
    buf_add_str(b, "<button type=\"submit\">Sign out</button>\n</form>\n");
    http_page_end(b, request_id);
}

void authn_page_program(struct buf *b, const struct authn_page_program *page)
{
    http_page_begin(b, SV("Let a program in?"));
    buf_add_str(b, "<p>A program on this computer asks to go to <strong>");
    buf_add_html(b, page->what);
    buf_add_str(b, "</strong> in your name, ");
    buf_add_html(b, page->who);
    buf_add_str(b, ".</p>\n<p class=\"soft\">Go on only if you have just started it. If not, close "
                   "this page.</p>\n<form method=\"post\" action=\"/.pomerium/program\">\n");
    hidden(b, "token", page->token);
    buf_add_str(b, "<button type=\"submit\">Let it in</button>\n</form>\n");
    http_page_end(b, page->request_id);
}

void authn_page_signed_out(struct buf *b, struct sv request_id)
{
    http_page_begin(b, SV("You are signed out"));
    buf_add_str(b,
                "<p>Your session has ended in every application. You may close this page.</p>\n");
    http_page_end(b, request_id);
}
