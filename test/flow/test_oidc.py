"""Login at a real OpenID provider that we did not write ."""

import pytest
import requests
from broker import age_sessions
from idp import MAIL, PASSWORD, Provider, both_trust, login, provider_modules
from stand import Stand, header
from trial import wait_for


@pytest.fixture(scope="module")
def modules():
    return provider_modules()


def make_world(modules, upstream, alg="RS256"):
    routes = f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    policy:
      - allow:
          or: [{{email: {{is: {MAIL}}}}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          or: [{{groups: {{has: staff}}}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          or: [{{groups: {{has: admins}}}}]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          and: [{{groups: staff}}, {{auth_age: {{less_than: 1h}}}}]
  - from: https://keys.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    set_request_headers: {{X-Id: "${{pomerium.id_token}}", X-Access: "${{pomerium.access_token}}"}}
    policy: [{{allow: {{or: [{{email: {{is: {MAIL}}}}}]}}}}]
  - from: https://api.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    bearer_token_format: idp_identity_token
    policy: [{{allow: {{or: [{{email: {{is: {MAIL}}}}}]}}}}]
  - from: https://access.localhost:PORT
    prefix: /else
    to: http://127.0.0.1:{upstream.port}
    bearer_token_format: idp_access_token
    idp_access_token_allowed_audiences: [https://else.example]
    policy: [{{allow: {{or: [{{email: {{is: {MAIL}}}}}]}}}}]
  - from: https://access.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    bearer_token_format: idp_access_token
    idp_access_token_allowed_audiences: [postern]
    policy: [{{allow: {{or: [{{email: {{is: {MAIL}}}}}]}}}}]
"""
    stand = Stand(routes, settings="idp_provider: oidc\n", names=("keys.localhost", "api.localhost", "access.localhost"))
    provider = Provider(modules, f"https://authenticate.localhost:{stand.port}", alg)
    stand.settings = provider.our_settings()
    stand.write_config()
    return stand, provider


@pytest.fixture()
def world(modules, upstream):
    stand, provider = make_world(modules, upstream)
    yield stand, provider
    stand.stop()
    provider.stop()


def test_login_with_a_deep_link_and_sign_out(world, upstream):
    stand, provider = world
    provider.start()
    stand.start()
    deep = stand.url("app", "/deep?x=1&y=a%26b")
    b, page = login(stand, provider, deep)
    assert page.status_code == 200 and page.url == deep, (page.status_code, page.url, page.text[:1000])
    assert header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion")
    assert upstream.heads[-1].startswith(b"GET /deep?x=1&y=a%26b HTTP/1.1")
    assert b.fetch(stand.url("app", "/.pomerium/user")).json()["email"] == MAIL
    assert b.get(stand.url("other")).status_code == 200  # the provider's groups claim
    assert b.get(stand.url("admin")).status_code == 403
    out = b.get(stand.url("app", "/.pomerium/sign_out"))
    if "<form" in out.text:
        out = b.submit(out)
    assert out.status_code == 200
    assert b.fetch(stand.url("app")).status_code == 401
    for daemon in ("proxy", "authenticate", "authorize", "databroker"):
        with open(stand.log_file(daemon), errors="replace") as f:
            text = f.read()
        assert "client-secret-canary" not in text and PASSWORD not in text and "eyJ" not in text, daemon


def test_an_old_login_is_asked_for_again(world):
    """The provider has a session of its own, and still shows its form."""
    stand, provider = world
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("app"))
    assert page.status_code == 200 and b.get(stand.url("public")).status_code == 200
    assert not any(url.startswith(provider.issuer) for _, url in b.trail)  # one login for all
    age_sessions(stand, 7200)
    assert b.get(stand.url("app")).status_code == 200
    page = b.get(stand.url("public", "/x?y"))
    assert f"idp.localhost:{provider.port}" in page.url and "password" in page.text, (page.url, page.text[:1000])
    page = b.submit(page, login="dana", password=PASSWORD)
    if f"idp.localhost:{provider.port}" in page.url:  # consent
        page = b.submit(page)
    assert page.status_code == 200 and page.url == stand.url("public", "/x?y"), (page.url, page.text[:1000])


def test_everything_starts_with_the_provider_down(world):
    stand, provider = world
    stand.start()
    page = both_trust(stand.browser(), stand, provider).get(stand.url("app"))
    assert page.status_code == 503 and f"idp.localhost:{provider.port}" in page.text
    provider.start()

    def works():
        _, page = login(stand, provider, stand.url("app"))
        return page.status_code == 200
    wait_for("a login after the provider came", works, 30, 0.5)


def test_a_provider_that_restarts_with_new_keys(world):
    stand, provider = world
    provider.start()
    stand.start()
    assert login(stand, provider, stand.url("app"))[1].status_code == 200
    provider.stop()
    provider.start()  # all in memory: new signing keys
    wait_for("a login with the new keys", lambda: login(stand, provider, stand.url("app"))[1].status_code == 200, 90, 1)


@pytest.mark.parametrize("alg", ["PS384", "ES256", "ES512"])
def test_other_signature_algorithms(modules, upstream, alg):
    stand, provider = make_world(modules, upstream, alg)
    try:
        provider.start()
        stand.start()
        assert login(stand, provider, stand.url("app"))[1].status_code == 200
    finally:
        stand.stop()
        provider.stop()


def test_an_id_token_of_the_provider_opens_a_route_that_takes_them(world, upstream):
    stand, provider = world
    provider.start()
    stand.start()
    _, page = login(stand, provider, stand.url("keys"))
    assert page.status_code == 200
    id_token, access_token = (header(upstream.heads[-1], name)[0] for name in ("X-Id", "X-Access"))

    def ask(token, host="api"):
        return stand.browser().fetch(stand.url(host), headers={"Authorization": "Bearer " + token}).status_code

    assert ask(id_token) == 200
    assert header(upstream.heads[-1], "Authorization") == []
    assert ask(access_token) == 401 and ask(id_token[:-5]) == 401
    assert ask(id_token, "app") == 401  # where it is the application's own, nobody is logged in


def test_an_opaque_access_token_is_what_the_provider_says_of_it(world, upstream):
    stand, provider = world
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("keys"))
    assert page.status_code == 200
    token, = header(upstream.heads[-1], "X-Access")
    assert "." not in token

    def get(token, path="/"):
        return requests.get(stand.url("access", path), headers={"Authorization": f"Bearer {token}"}, verify=stand.ca,
                            allow_redirects=False, timeout=30)
    answer = get(token)
    assert answer.status_code == 200, answer.text
    assert header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion") and token.encode() not in upstream.heads[-1]
    assert get(token, "/else").status_code == 401  # made for another audience: nothing remembered opens it
    assert get(token[:-1] + "~").status_code == 401 == get(token + "=").status_code

    told = requests.post(provider.issuer + "/token/revocation", data={"token": token}, auth=("postern", "client-secret-canary"),
                         verify=provider.ca, timeout=10)
    assert told.status_code == 200
    stand.kill("authenticate")  # what it remembers for four minutes goes with it, and the proxy's minute
    stand.kill("proxy")
    for daemon in ("authenticate", "proxy"):
        stand.start_one(daemon)
    stand.wait_ready()
    answer = get(token)
    assert answer.status_code == 401 and answer.json()["code"] == "token-invalid", answer.text
    assert any(x["event"] == "token.session_ended" for x in stand.logs("authenticate"))
    for daemon in ("proxy", "authenticate", "authorize", "databroker"):
        with open(stand.log_file(daemon), errors="replace") as f:
            assert token not in f.read(), daemon
