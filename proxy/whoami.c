#include "proxy/whoami.h"

#include <stdio.h>

#include "common/http/page.h"

enum { SOURCE_MAX = 48, VALUE_MAX = PROXY_ADDRESS_TEXT };

/* One that had a say, from the nearest to us outwards. */
struct step {
    const char *source; /* for programs */
    char title[SOURCE_MAX];
    char address[VALUE_MAX];
    bool trusted;
    const char *meaning;
};

struct steps {
    struct step v[PROXY_WHOAMI_STEPS_MAX];
    size_t n;
};

static struct step *add(struct steps *steps, const char *source,
                        const struct proxy_address *address)
{
    struct step *step = &steps->v[steps->n++];

    *step = (struct step){ .source = source };
    proxy_address_text(address, step->address);
    return step;
}

/* Returns whether anybody beyond may have a say. */
static bool add_connection(struct steps *steps, const struct proxy_whoami *who)
{
    const struct proxy_peer *peer = who->peer;
    bool believed = proxy_peer_is_trusted(peer, who->config);
    struct step *step = add(steps, "connection", &peer->socket);

    (void)snprintf(step->title, sizeof(step->title), "Connection");
    if (peer->unix_socket) {
        (void)snprintf(step->address, sizeof(step->address), "unix socket");
    }
    if (peer->header_version == 0) {
        step->trusted = believed;
        step->meaning = believed ? "a trusted proxy" : "no trusted proxy: this is the client";
        return believed;
    }
    step->trusted = true; /* or its header would not have been read */
    step->meaning = "a trusted proxy, which sends a PROXY header";
    step = add(steps, "proxy-header", &peer->connection);
    (void)snprintf(step->title, sizeof(step->title), "PROXY header, version %u",
                   (unsigned)peer->header_version);
    step->trusted = believed;
    if (peer->header_source == HTTP_PROXY_UNKNOWN) {
        step->meaning = "it does not say who the client is";
    } else if (peer->header_source == HTTP_PROXY_SENDER) {
        step->meaning = "from that proxy itself, not for a client";
    } else {
        step->meaning = believed ? "a trusted proxy" : "no trusted proxy: this is the client";
    }
    return believed;
}

static void add_hops(struct steps *steps, const struct proxy_whoami *who)
{
    bool counted = who->config->xff_num_trusted_hops != 0;
    struct proxy_walk walk;
    size_t i = 0;

    proxy_peer_walk(who->peer, who->config, who->head, &walk);
    for (i = 0; i < walk.n; i++) {
        const struct proxy_hop *hop = &walk.hops[i];
        struct step *step = add(steps, "x-forwarded-for", &hop->address);

        (void)snprintf(step->title, sizeof(step->title), "X-Forwarded-For, %zu from its end",
                       i + 1);
        step->trusted = hop->trusted;
        if (hop->trusted) {
            step->meaning = counted ? "a trusted proxy by its place" : "a trusted proxy";
        } else {
            step->meaning =
                counted ? "the place of the client" : "no trusted proxy: this is the client";
        }
    }
}

static void collect(const struct proxy_whoami *who, struct steps *steps)
{
    steps->n = 0;
    if (add_connection(steps, who)) {
        add_hops(steps, who);
    }
}

/* What the last step leaves open, or what somebody may have expected to count; NULL: nothing. */
static const char *remark(const struct proxy_whoami *who, const struct steps *steps)
{
    const struct step *last = &steps->v[steps->n - 1];
    bool has_chain = http_head_count(who->head, HTTP_H_X_FORWARDED_FOR) != 0;

    if (last->trusted) {
        return "A trusted proxy names nobody before it, so it is the client itself.";
    }
    if (has_chain && !proxy_peer_is_trusted(who->peer, who->config)) {
        return "X-Forwarded-For came with the request and was not read: who connects is no trusted "
               "proxy.";
    }
    return NULL;
}

bool proxy_whoami_path(struct sv path)
{
    return sv_eq(path, SV("/.pomerium/whoami")) || sv_eq(path, SV("/.pomerium/whoami/"));
}

void proxy_whoami_page(const struct proxy_whoami *who, struct buf *out)
{
    struct steps steps;
    const char *more = NULL;
    size_t i = 0;

    collect(who, &steps);
    more = remark(who, &steps);
    http_page_begin(out, SV("Who you are here"));
    http_page_facts_begin(out);
    http_page_fact(out, SV("User"), who->user);
    if (who->email.n != 0) {
        http_page_fact(out, SV("E-mail"), who->email);
    }
    http_page_fact(out, SV("Address"), who->visitor->text);
    http_page_fact(out, SV("Came by"), who->visitor->https ? SV("https") : SV("http"));
    http_page_facts_end(out);
    buf_add_str(out, "<p>How the address was found:</p>\n");
    http_page_facts_begin(out);
    for (i = 0; i < steps.n; i++) {
        char text[VALUE_MAX + 64];

        (void)snprintf(text, sizeof(text), "%s: %s", steps.v[i].address, steps.v[i].meaning);
        http_page_fact(out, sv_from(steps.v[i].title), sv_from(text));
    }
    http_page_facts_end(out);
    if (more != NULL) {
        buf_add_str(out, "<p class=\"soft\">");
        buf_add_html(out, sv_from(more));
        buf_add_str(out, "</p>\n");
    }
    http_page_end(out, who->request_id);
}

static void member(struct buf *out, const char *name, struct sv value)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_json(out, value);
}

void proxy_whoami_json(const struct proxy_whoami *who, struct buf *out)
{
    struct steps steps;
    const char *more = NULL;
    size_t i = 0;

    collect(who, &steps);
    more = remark(who, &steps);
    buf_add_str(out, "{\"user\":");
    buf_add_json(out, who->user);
    member(out, "email", who->email);
    member(out, "address", who->visitor->text);
    member(out, "scheme", who->visitor->https ? SV("https") : SV("http"));
    buf_add_str(out, ",\"steps\":[");
    for (i = 0; i < steps.n; i++) {
        const struct step *step = &steps.v[i];

        buf_add_str(out, i == 0 ? "{\"source\":" : ",{\"source\":");
        buf_add_json(out, sv_from(step->source));
        member(out, "title", sv_from(step->title));
        member(out, "address", sv_from(step->address));
        buf_printf(out, ",\"trusted\":%s", step->trusted ? "true" : "false");
        member(out, "meaning", sv_from(step->meaning));
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
    member(out, "remark", more == NULL ? SV("") : sv_from(more));
    member(out, "request_id", who->request_id);
    buf_add_str(out, "}\n");
}
