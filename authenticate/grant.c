#include "authenticate/grant.h"

#include "authenticate/oidc.h"
#include "authenticate/provider.h"
#include "common/secret.h"

struct fetch *authn_grant_start(struct fetcher *fetcher, const struct authn_grant *grant,
                                fetch_done_fn done, void *arg)
{
    CLEANUP(buf_deinit) struct buf authorization;
    struct fetch_request request = { .url = grant->provider->token_endpoint.p,
                                     .timeout_ms = grant->timeout_ms };
    struct fetch *fetch = NULL;

    buf_init(&authorization, 32768);
    authn_oidc_prove(grant->config, grant->provider->secret_in_body, grant->form, &authorization);
    request.authorization = authorization.n == 0 ? NULL : buf_cstr(&authorization);
    request.body = buf_sv(grant->form);
    fetch = fetch_start(fetcher, &request, done, arg);
    secret_wipe(grant->form->p, grant->form->n);
    if (authorization.p != NULL) {
        secret_wipe(authorization.p, authorization.n);
    }
    return fetch;
}

static bool is_header_text(struct sv s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f) {
            return false;
        }
    }
    return s.n > 0;
}

struct fetch *authn_userinfo_start(struct fetcher *fetcher, const struct authn_provider *provider,
                                   struct sv access_token, fetch_done_fn done, void *arg)
{
    CLEANUP(buf_deinit) struct buf authorization;
    struct fetch_request request;
    struct fetch *fetch = NULL;

    if (provider->userinfo_endpoint.n == 0 || !is_header_text(access_token)) {
        return NULL;
    }
    buf_init(&authorization, 65536);
    buf_add_str(&authorization, "Bearer ");
    buf_add_sv(&authorization, access_token);
    request = (struct fetch_request){ .url = provider->userinfo_endpoint.p,
                                      .authorization = buf_cstr(&authorization) };
    fetch = fetch_start(fetcher, &request, done, arg);
    secret_wipe(authorization.p, authorization.n);
    return fetch;
}
