"""Policies with a name, what they ask of a request and of a login, as visitors meet them."""

import pytest
from broker import age_sessions
from h2client import H2Client
from stand import PASSWORD, Stand
from test_provider import Provider

USER, ADMIN = "user@example.com", "admin@example.com"
POLICIES = """policies:
  staff:
    policy: [{allow: {or: [{groups: staff}]}}]
  usual:
    default: true
    policy: [{allow: {and: [{groups: admins}, {idp: local}]}}]
  central:
    enforced: true
    policy:
      - deny: {or: [{header/X-Bad: "1"}, {email: ADMIN}], and: [{host: public.localhost}, {http_path: /closed}]}
"""
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    policies: staff
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UP
    allow_public_unauthenticated_access: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {and: [{groups: staff}, {auth_age: {less_than: 1h}}]}}]
"""
ACCOUNTS = {USER: ["staff", "admins"], ADMIN: ["staff", "admins"], "guest@example.com": []}


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(ROUTES.replace("UP", str(upstream.port)), settings=POLICIES.replace("ADMIN", ADMIN), users=ACCOUNTS).start()
    yield s
    s.stop()


def test_named_default_and_enforced_policies(stand):
    user, guest, admin = stand.browser(), stand.browser(), stand.browser()
    assert user.login(stand.url("app"), USER, PASSWORD).status_code == 200
    assert user.get(stand.url("other")).status_code == 200  # says nothing: the default
    assert guest.login(stand.url("app"), "guest@example.com", PASSWORD).status_code == 403
    assert guest.get(stand.url("other")).status_code == 403
    page = admin.login(stand.url("app"), ADMIN, PASSWORD)
    assert page.status_code == 403 and "email-ok" in page.text  # staff, and enforced away
    assert admin.get(stand.url("public")).status_code == 200  # nobody is logged in there: nothing is asked


def test_an_enforced_deny_holds_on_a_public_route(stand):
    b = stand.browser()
    assert b.fetch(stand.url("public")).status_code == 200
    assert b.fetch(stand.url("public", "/closed")).status_code == 403
    assert b.fetch(stand.url("public"), headers={"X-Bad": "0"}).status_code == 200
    refused = b.fetch(stand.url("public"), headers={"x-bAD": "1"})
    assert refused.status_code == 403 and "header-ok" in refused.text


@pytest.mark.parametrize("fields, status, reason", [
    ([], 200, None), ([("x-bad", "0")], 200, None), ([("x-bad", "1")], 403, "header-ok"),
    ([("x-bad", "0"), ("x-bad", "0")], 403, "header-repeated"), ([("x-bad", "a" * 4097)], 403, "header-too-large")])
def test_headers_over_http2(stand, fields, status, reason):
    client = H2Client(stand.port)
    answer = client.get("/", headers=[("accept", "application/json"), *fields])
    client.close()
    assert int(answer.status) == status and (reason is None or reason.encode() in bytes(answer.body))


def test_an_old_login_is_asked_for_again_and_leads_back(stand):
    b = stand.browser()
    assert b.login(stand.url("admin", "/x?y=1"), USER, PASSWORD).status_code == 200
    age_sessions(stand, 3500)
    assert b.get(stand.url("admin")).status_code == 200
    age_sessions(stand, 200)
    refused = b.fetch(stand.url("admin"))
    assert refused.status_code == 401 and refused.json()["code"] == "auth-age-exceeded"
    assert "<form" in b.get(refused.json()["login_url"]).text
    assert b.get(stand.url("app")).status_code == 200  # good enough for others
    form = b.get(stand.url("admin", "/x?y=1"))
    assert form.status_code == 200 and "<form" in form.text and "authenticate.localhost" in form.url
    page = b.login_on(form, USER, PASSWORD)
    assert page.status_code == 200 and page.url == stand.url("admin", "/x?y=1")
    assert b.fetch(stand.url("admin")).status_code == 200


def test_whom_a_login_would_not_let_in_is_refused(stand):
    b = stand.browser()
    b.login(stand.url("app"), "guest@example.com", PASSWORD)
    age_sessions(stand, 7200)
    page = b.get(stand.url("admin"))
    assert page.status_code == 403 and not any("fresh" in url for _, url in b.trail)


# --- a provider -----------------------------------------------------------------------------------------------------

@pytest.fixture()
def world(upstream):
    provider = Provider()
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy: [{{allow: {{and: [{{domain: example.com}}, {{auth_age: 1h}}, {{idp: "{provider.issuer}"}}]}}}}]
""", settings=(f"idp_provider: oidc\nidp_provider_url: {provider.issuer}\nidp_client_id: postern\n"
               "idp_client_secret: s\nidp_request_params: {prompt: none, acr_values: high}\n"))
    yield stand, provider
    stand.stop()
    provider.close()


def asked(browser, provider):
    return [url for _, url in browser.trail if url.startswith(provider.issuer + "/authorize")]


def test_a_provider_with_an_old_session_is_asked_to_log_in_again(world):
    stand, provider = world
    stand.start()
    times = [7200, 0]
    provider.claims["auth_time"] = lambda now: now - times.pop(0)
    b = stand.browser()
    page = b.get(stand.url("app", "/x"))
    assert page.status_code == 200 and page.url == stand.url("app", "/x"), page.text
    first, second = asked(b, provider)
    assert "prompt=none" in first and "max_age" not in first
    assert "prompt=login" in second and "max_age=0" in second and "prompt=none" not in second and "acr_values=high" in second


@pytest.mark.parametrize("auth_time", [lambda now: now - 7200, "yesterday", 0, -5])
def test_a_provider_that_does_not_log_in_again_ends_in_a_page_not_in_a_loop(world, auth_time):
    stand, provider = world
    stand.start()
    provider.claims["auth_time"] = auth_time
    b = stand.browser()
    page = b.get(stand.url("app"))
    assert page.status_code == 403 and "login-not-fresh" in page.text
    assert len(asked(b, provider)) == 2
    assert b.fetch(stand.url("app")).status_code == 401


def test_without_auth_time_the_moment_of_the_login_counts(world):
    stand, provider = world
    stand.start()
    b = stand.browser()
    assert b.get(stand.url("app")).status_code == 200 and len(asked(b, provider)) == 1
    b = stand.browser()
    provider.claims["auth_time"] = lambda now: now + 7200  # a clock that is ahead
    assert b.get(stand.url("app")).status_code == 200 and len(asked(b, provider)) == 1
