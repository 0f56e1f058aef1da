#include "authenticate/graph.h"

#include <stdio.h>
#include <string.h>

#include "authenticate/claims.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/crypto/jose.h"
#include "common/mem.h"
#include "common/secret.h"

#define API   "/v1.0/"
#define FIRST API "me/transitiveMemberOf?$select=id&$top=999"

enum { URL_MAX = 8192, TOKEN_MAX = 65536, ID_MAX = 128, WHY_MAX = 160 };

struct authn_graph {
    struct authn_graph_ask ask;
    struct fetch *fetch;
    char *base;     /* of every page */
    struct buf url; /* of this one */
    struct buf authorization;
    json_t *seen; /* ids as keys, in their order */
    unsigned pages;
    int64_t until_ms;
};

/* Where Graph is, "https://…" without a slash at the end: idp_graph_url, else what belongs to the issuer;
 * "": nowhere. */
static struct sv graph_url(const struct config *config)
{
    static const struct {
        const char *issuers;
        const char *graph;
    } clouds[] = {
        { "https://login.microsoftonline.com/", "https://graph.microsoft.com" },
        { "https://login.microsoftonline.us/", "https://graph.microsoft.us" },
        { "https://login.partner.microsoftonline.cn/", "https://microsoftgraph.chinacloudapi.cn" },
    };

    for (size_t i = 0; i < ARRAY_LEN(clouds) && config->idp_graph_url.text.n == 0; i++) {
        if (sv_starts(config->idp_provider_url, sv_from(clouds[i].issuers))) {
            return sv_from(clouds[i].graph);
        }
    }
    return config->idp_graph_url.text;
}

/* --- a page --------------------------------------------------------------------------------------- */

static struct sv text_of(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return sv_of(json_string_value(v), json_string_length(v));
}

static enum err take_one(const json_t *one, json_t *seen)
{
    struct sv id = text_of(one, "id");

    if (text_of(one, "@odata.type").n == 0 || id.n == 0 || id.n > ID_MAX || !sv_is_plain(id)) {
        return ERR_INVALID;
    }
    if (!sv_eq(text_of(one, "@odata.type"), SV("#microsoft.graph.group"))) {
        return ERR_OK; /* a role, an administrative unit */
    }
    if (json_object_size(seen) >= AUTHN_CLAIM_VALUES_MAX) {
        return ERR_LIMIT;
    }
    return json_object_set_new(seen, json_string_value(json_object_get(one, "id")), json_true()) ==
                   0
               ? ERR_OK
               : ERR_INVALID;
}

/* At Graph itself, and its API: behind the slash no name of a host can go on. */
static bool is_at(struct sv link, struct sv url)
{
    return link.n <= URL_MAX && sv_starts(link, url) &&
           sv_starts(sv_from_at(link, url.n), SV(API)) && sv_is_plain(link) &&
           sv_find(link, ' ') == SIZE_MAX;
}

enum err authn_graph_page(const json_t *page, struct sv url, json_t *seen, struct sv *next_out)
{
    const json_t *list = json_object_get(page, "value");
    const json_t *next = json_object_get(page, "@odata.nextLink");
    enum err err = json_is_array(list) ? ERR_OK : ERR_INVALID;

    *next_out = text_of(page, "@odata.nextLink");
    if (next != NULL && !is_at(*next_out, url)) {
        err = ERR_INVALID;
    }
    for (size_t i = 0; i < json_array_size(list) && err == ERR_OK; i++) {
        err = take_one(json_array_get(list, i), seen);
    }
    return err;
}

/* --- all of them ---------------------------------------------------------------------------------- */

void authn_graph_cancel(struct authn_graph **graph)
{
    struct authn_graph *g = TAKE(*graph);

    if (g != NULL) {
        fetch_cancel(&g->fetch);
        secret_wipe(g->authorization.p, g->authorization.n);
        buf_deinit(&g->authorization);
        buf_deinit(&g->url);
        mem_free(&g->base);
        json_decref(g->seen);
        mem_free(&g);
    }
}

static void end(struct authn_graph *g, const char *why)
{
    const struct authn_graph_ask ask = g->ask;

    authn_graph_cancel(&g);
    ask.done(ask.arg, why);
}

static void fail(struct authn_graph *g, const char *what, const char *why)
{
    char text[WHY_MAX];

    (void)snprintf(text, sizeof(text), "Microsoft Graph, page %u: %s%s%s", g->pages, what,
                   why[0] == '\0' ? "" : ": ", why);
    end(g, text);
}

static void fail_status(struct authn_graph *g, long status)
{
    char text[WHY_MAX];

    (void)snprintf(text, sizeof(text), "status %ld%s", status,
                   status == 401 || status == 403
                       ? " (the access token may not read groups: idp_scopes needs User.Read)"
                   : status == 429 ? " (too many requests)"
                                   : "");
    fail(g, text, "");
}

static void ask(struct authn_graph *g);

static void finish(struct authn_graph *g)
{
    json_t *list = json_array();
    const char *id = NULL;
    json_t *value = NULL;

    json_object_foreach(g->seen, id, value)
    {
        (void)json_array_append_new(list, json_string(id));
    }
    authn_claims_set_groups(g->ask.claims, list);
    json_decref(list);
    end(g, "");
}

static void take_page(struct authn_graph *g, const json_t *page)
{
    struct sv next;
    enum err err = authn_graph_page(page, sv_from(g->base), g->seen, &next);

    if (err != ERR_OK) {
        fail(g,
             err == ERR_LIMIT ? "more groups than one person may have"
                              : "not an answer that Microsoft Graph would give",
             "");
    } else if (next.n == 0) {
        finish(g);
    } else if (g->pages == AUTHN_GRAPH_PAGES_MAX) {
        fail(g, "there is no end of pages", "");
    } else {
        buf_reset(&g->url);
        buf_add_sv(&g->url, next);
        ask(g);
    }
}

static void on_page(void *arg, const struct fetch_answer *answer)
{
    struct authn_graph *g = arg;
    json_t *page = NULL;

    g->fetch = NULL;
    if (answer->err != ERR_OK) {
        fail(g, "no answer", answer->text);
    } else if (answer->status != 200) {
        fail_status(g, answer->status);
    } else if (jose_object_parse(answer->body, FETCH_BODY_MAX, &page) != ERR_OK) {
        fail(g, "no JSON object", "");
    } else {
        take_page(g, page);
        json_decref(page);
    }
}

/* The page at g->url; with no time left it is over at once, which the first page never is. */
static void ask(struct authn_graph *g)
{
    int64_t left_ms = g->until_ms - clock_mono_ms();
    const struct fetch_request request = { .url = buf_cstr(&g->url),
                                           .authorization = buf_cstr(&g->authorization),
                                           .timeout_ms = left_ms };

    if (left_ms <= 0) {
        fail(g, "it takes too long", "");
        return;
    }
    g->pages++;
    g->fetch = fetch_start(g->ask.fetcher, &request, on_page, g);
}

static bool is_token(struct sv token)
{
    for (size_t i = 0; i < token.n; i++) {
        if (token.p[i] <= ' ' || token.p[i] >= 0x7f) {
            return false;
        }
    }
    return token.n > 0 && token.n < TOKEN_MAX / 2;
}

const char *authn_graph_start(const struct authn_graph_ask *ask_for, struct authn_graph **graph_out)
{
    struct sv url = graph_url(ask_for->config);

    if (!authn_claims_groups_elsewhere(ask_for->claims)) {
        return "";
    }
    if (url.n == 0) {
        return "the provider sent a reference to them, and idp_graph_url is not set";
    }
    if (!is_token(ask_for->access_token)) {
        return "there is no access token to ask for them with";
    }
    struct authn_graph *g = MEM_NEW(struct authn_graph);

    g->ask = *ask_for;
    g->base = mem_svdup(url);
    g->seen = json_object();
    g->until_ms = clock_mono_ms() + AUTHN_GRAPH_MS;
    buf_init(&g->url, URL_MAX + 1);
    buf_init(&g->authorization, TOKEN_MAX);
    buf_add_sv(&g->url, url);
    buf_add_str(&g->url, FIRST);
    buf_add_str(&g->authorization, "Bearer ");
    buf_add_sv(&g->authorization, ask_for->access_token);
    ask(g);
    *graph_out = g;
    return NULL;
}
