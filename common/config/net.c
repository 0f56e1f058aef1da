#include <string.h>
#include <sys/un.h>

#include "common/config/reader.h"
#include "common/http/url.h"

enum { SOCKET_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - 1, TEXT_MAX = 512 };

/* unix:/path, unix:///path, unix:relative. True: it is one, and either good or reported. */
static bool read_unix(struct config_reader *r, const struct config_value *v, struct sv text,
                      struct sv *socket_out, bool *ok_out)
{
    *ok_out = false;
    if (sv_istarts(text, SV("http+unix:"))) {
        text = sv_from_at(text, 5);
    }
    if (!sv_istarts(text, SV("unix:"))) {
        return false;
    }
    text = sv_from_at(text, 5);
    if (sv_starts(text, SV("//"))) {
        text = sv_from_at(text, 2);
    }
    if (text.n == 0) {
        config_error(r, v->place, "%s: unix: without a file name", v->key);
        return true;
    }
    *socket_out = config_path(r, text);
    if (socket_out->n > SOCKET_MAX) {
        config_error(r, v->place,
                     "%s: the name of a unix socket may have %d bytes, this one has %zu: %s",
                     v->key, (int)SOCKET_MAX, socket_out->n, socket_out->p);
        return true;
    }
    *ok_out = true;
    return true;
}

static struct sv unix_text(struct config_reader *r, struct sv socket)
{
    char text[SOCKET_MAX + 8];
    int n = snprintf(text, sizeof(text), "unix:%s", socket.p);

    return config_keep(r, sv_of(text, (size_t)n));
}

/* --- HTTP ------------------------------------------------------------------------------------ */

static struct sv url_text(struct config_reader *r, const struct config_url *url)
{
    struct buf b;
    struct sv kept = { 0 };

    buf_init(&b, HTTP_URL_MAX + 1);
    buf_printf(&b, "http%s://", url->tls ? "s" : "");
    buf_add_sv(&b, url->host);
    if (url->port != (url->tls ? 443 : 80)) {
        buf_printf(&b, ":%u", url->port);
    }
    buf_add_sv(&b, url->path);
    kept = config_keep(r, buf_sv(&b));
    buf_deinit(&b);
    return kept;
}

static bool read_http(struct config_reader *r, const struct config_value *v, struct sv text,
                      struct config_url *url_out)
{
    struct http_url url = { 0 };
    struct diag d = { 0 };
    struct sv path = { 0 };

    if (http_url_parse(text, &url, &d) != ERR_OK) {
        config_error(r, v->place, "%s: not a URL: %s", v->key,
                     d.text[0] != '\0' ? d.text : "it does not parse");
        return false;
    }
    if (url.scheme != HTTP_SCHEME_HTTP && url.scheme != HTTP_SCHEME_HTTPS) {
        config_error(r, v->place, "%s: expected http://, https:// or unix:", v->key);
        return false;
    }
    if (url.has_query || url.has_fragment) {
        config_error(r, v->place, "%s: a query or fragment has no meaning here", v->key);
        return false;
    }
    path = url.path;
    while (path.n != 0 && path.p[path.n - 1] == '/') {
        path.n--;
    }
    *url_out = (struct config_url){
        .scheme = url.scheme == HTTP_SCHEME_HTTPS ? CONFIG_SCHEME_HTTPS : CONFIG_SCHEME_HTTP,
        .tls = url.scheme == HTTP_SCHEME_HTTPS,
        .host = config_keep(r, url.host),
        .port = url.port,
        .port_given = url.port_given,
    };
    if (path.n != 0) {
        url_out->path = config_keep(r, path);
    }
    url_out->text = url_text(r, url_out);
    return true;
}

bool config_read_upstream_url(struct config_reader *r, const struct config_value *v, struct sv text,
                              struct config_url *url_out)
{
    bool ok = false;
    struct sv socket = { 0 };

    if (!read_unix(r, v, text, &socket, &ok)) {
        return read_http(r, v, text, url_out);
    }
    if (ok) {
        *url_out = (struct config_url){ .scheme = CONFIG_SCHEME_UNIX,
                                        .socket = socket,
                                        .text = unix_text(r, socket) };
    }
    return ok;
}

bool config_check_link(struct config_reader *r, const struct config_value *v, struct sv text)
{
    struct http_url url = { 0 };
    struct diag d = { 0 };

    if (http_url_parse(text, &url, &d) != ERR_OK ||
        (url.scheme != HTTP_SCHEME_HTTP && url.scheme != HTTP_SCHEME_HTTPS) || url.has_fragment) {
        config_error(r, v->place, "%s: expected an absolute http:// or https:// URL%s%s", v->key,
                     d.text[0] != '\0' ? ": " : "", d.text);
        return false;
    }
    return true;
}

bool config_read_origin(struct config_reader *r, const struct config_value *v, struct sv text,
                        bool unix_too, struct config_url *url_out)
{
    struct config_url url = { 0 };

    if (!config_read_upstream_url(r, v, text, &url)) {
        return false;
    }
    if (url.scheme == CONFIG_SCHEME_UNIX && !unix_too) {
        config_error(r, v->place, "%s: expected https://host or https://host:port", v->key);
        return false;
    }
    if (url.path.n != 0) {
        config_error(r, v->place, "%s: a path has no meaning here", v->key);
        return false;
    }
    *url_out = url;
    return true;
}

/* --- sockets ----------------------------------------------------------------------------------- */

/* host:port; the host may be empty where one listens. */
static bool read_host_port(struct config_reader *r, const struct config_value *v, struct sv text,
                           uint16_t default_port, struct config_target *out)
{
    size_t colon = sv_rfind(text, ':');
    struct sv host = text;
    struct sv port = { 0 };
    uint64_t number = default_port;
    char canonical[HTTP_HOST_MAX + 1];
    struct sv checked = { 0 };

    if (colon != SIZE_MAX && sv_find(sv_from_at(text, colon), ']') == SIZE_MAX) {
        host = sv_head(text, colon);
        port = sv_from_at(text, colon + 1);
        if (sv_u64(port, 65535, &number) != ERR_OK) {
            number = 0;
        }
    }
    if (number == 0) {
        config_error(r, v->place, "%s: expected host:port with a port from 1 to 65535", v->key);
        return false;
    }
    if (host.n != 0 && http_host_canonical(host, canonical, &checked) != ERR_OK) {
        config_error(r, v->place, "%s: \"%.*s\" is no host name and no address", v->key,
                     (int)MIN(host.n, 100), host.p);
        return false;
    }
    out->port = (uint16_t)number;
    if (checked.n > 2 && checked.p[0] == '[') {
        checked = sv_of(checked.p + 1, checked.n - 2);
    }
    out->host = host.n == 0 ? SV("") : config_keep(r, checked);
    return true;
}

static struct sv target_text(struct config_reader *r, const struct config_target *t)
{
    char text[TEXT_MAX];
    bool v6 = sv_find(t->host, ':') != SIZE_MAX;
    int n =
        snprintf(text, sizeof(text), "%s%s%s:%u", v6 ? "[" : "", t->host.p, v6 ? "]" : "", t->port);

    return config_keep(r, sv_of(text, (size_t)n));
}

bool config_read_listen(struct config_reader *r, const struct config_value *v, struct sv text,
                        struct sv *listen_out)
{
    struct config_target t = { 0 };
    bool ok = false;

    if (read_unix(r, v, text, &t.socket, &ok)) {
        if (ok) {
            *listen_out = unix_text(r, t.socket);
        }
        return ok;
    }
    if (!read_host_port(r, v, text, 0, &t)) {
        return false;
    }
    *listen_out = target_text(r, &t);
    return true;
}

bool config_read_target(struct config_reader *r, const struct config_value *v, struct sv text,
                        struct config_target *target_out)
{
    struct config_target t = { 0 };
    bool ok = false;
    uint16_t port = 0;

    if (read_unix(r, v, text, &t.socket, &ok)) {
        if (ok) {
            t.is_unix = true;
            t.text = unix_text(r, t.socket);
            *target_out = t;
        }
        return ok;
    }
    if (sv_istarts(text, SV("https://"))) {
        text = sv_from_at(text, 8);
        port = 443;
    } else if (sv_istarts(text, SV("http://"))) {
        text = sv_from_at(text, 7);
        port = 80;
    }
    if (sv_ends(text, SV("/"))) {
        text = sv_head(text, text.n - 1);
    }
    if (!read_host_port(r, v, text, port, &t)) {
        return false;
    }
    if (t.host.n == 0) {
        config_error(r, v->place, "%s: the host is missing", v->key);
        return false;
    }
    t.text = target_text(r, &t);
    *target_out = t;
    return true;
}

/* --- what Postern fetches ------------------------------------------------------------------------ */

bool config_is_of_this_machine(struct sv url)
{
    static const struct sv hosts[] = { { "http://localhost", 16 },
                                       { "http://127.", 11 },
                                       { "http://[::1]", 12 } };

    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        if (sv_istarts(url, hosts[i])) {
            return true;
        }
    }
    return false;
}

void config_check_headers(struct config_reader *r, struct config_place place, const char *name,
                          const struct secret *headers)
{
    struct sv text = headers == NULL ? SV("") : secret_bytes(headers);
    size_t n = 0;
    bool ok = text.n <= CONFIG_FETCH_HEADERS_BYTES;

    while (text.p != NULL && text.n != 0) {
        struct sv value = sv_cut(&text, ',');
        struct sv header = sv_trim(sv_cut(&value, '='));

        n++;
        ok = ok && header.n != 0 && config_is_header_name(header) && value.p != NULL &&
             config_is_header_value(value);
    }
    if (!ok || n > CONFIG_FETCH_HEADERS_COUNT) {
        config_error(r, place, "%s: expected Name=value,Name=value, up to %d headers and %d bytes",
                     name, CONFIG_FETCH_HEADERS_COUNT, CONFIG_FETCH_HEADERS_BYTES);
    }
}
