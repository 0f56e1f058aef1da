#include "authenticate/redirect.h"

enum err authn_redirect_check(const struct config *config, struct sv text, struct http_url *url)
{
    const struct config_url *own = &config->authenticate_service_url;
    enum err err = http_url_parse(text, url, NULL);

    if (err != ERR_OK) {
        return ERR_INVALID;
    }
    if (url->has_fragment) {
        return ERR_INVALID;
    }
    if (url->scheme != HTTP_SCHEME_HTTPS &&
        !(url->scheme == HTTP_SCHEME_HTTP && config->insecure_server)) {
        return ERR_DENIED;
    }
    if (sv_eq(url->host, own->host) && url->port == own->port) {
        return ERR_DENIED;
    }
    return config_has_host(config, url->host, url->port) ? ERR_OK : ERR_DENIED;
}

enum err authn_redirect_flow_check(const struct config *config, const struct authn_flow *flow,
                                   struct http_url *url)
{
    if (flow->program.n == 0) {
        return authn_redirect_check(config, flow->redirect_uri, url);
    }
    if (http_url_parse(flow->redirect_uri, url, NULL) != ERR_OK) {
        return ERR_INVALID;
    }
    return http_url_is_loopback(url) ? ERR_OK : ERR_DENIED;
}

void authn_redirect_host(struct buf *b, const struct http_url *url)
{
    buf_add_sv(b, url->host);
    if (url->port_given) {
        buf_add_char(b, ':');
        buf_add_u64(b, url->port);
    }
}

void authn_redirect_callback(struct buf *b, const struct http_url *url)
{
    buf_add_str(b, url->scheme == HTTP_SCHEME_HTTP ? "http://" : "https://");
    authn_redirect_host(b, url);
    buf_add_str(b, "/.pomerium/callback/");
}
