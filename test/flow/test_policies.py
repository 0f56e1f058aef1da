"""Policies with a name, what they ask of a request and of a login, as visitors meet them."""

import json

import jwt
import pytest
import urllib3
from broker import age_sessions
from h2client import H2Client
from stand import PASSWORD, Stand, Upstream, header
from test_provider import Provider
from trial import wait_for

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
    wait_for("authorize to know the time", lambda: b.fetch(stand.url("admin")).status_code != 200)
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


def test_what_is_open_is_cut_when_the_login_is_too_old():
    upstream = Upstream(answer=lambda head, body: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun" if b"/stream" in head
                        else Upstream.tell(head, body))
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy: [{{allow: {{and: [{{groups: staff}}, {{auth_age: 1h}}]}}}}]
""", users=ACCOUNTS).start()
    try:
        b = stand.browser()
        assert b.login(stand.url("app"), USER, PASSWORD).status_code == 200
        open_one = b.session.get(stand.url("app", "/stream"), headers={"Accept": "application/json"}, stream=True, timeout=60)
        assert open_one.status_code == 200 and open_one.raw.read(5) == b"begun"
        age_sessions(stand, 3590)  # nothing changes after this but the time
        assert b.fetch(stand.url("app")).status_code == 200
        try:
            rest = open_one.raw.read(95)
        except (urllib3.exceptions.HTTPError, OSError):
            rest = b""
        assert rest == b""
        cut = wait_for("its line", lambda: [x for x in stand.logs("proxy") if x.get("path") == "/stream"])[-1]
        assert "no-longer-allowed" in json.dumps(cut), cut
        assert b.fetch(stand.url("app")).json()["code"] == "auth-age-exceeded"
    finally:
        stand.stop()
        upstream.close()


# --- what upstreams are told ----------------------------------------------------------------------------------------

def told(stand, browser, name):
    head = browser.fetch(stand.url(name)).json()["head"]
    return jwt.decode(header(head, "X-Pomerium-Jwt-Assertion")[0], options={"verify_signature": False}), head


def test_identity_follows_global_settings_and_the_route_s(upstream):
    stand = Stand("".join(f"""
  - from: https://{name}.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
{more}""" for name, more in (("app", ""), ("other", "    jwt_issuer_format: IssuerHostOnly\n    jwt_groups_filter: [admins]\n"),
                             ("admin", "    pass_identity_headers: false\n"))),
                  settings="pass_identity_headers: true\njwt_claims_headers: email, groups, nothing\njwt_issuer_format: IssuerURI\n"
                           "jwt_groups_filter: [staff]\n", users=ACCOUNTS).start()
    try:
        b = stand.browser()
        b.login(stand.url("app"), USER, PASSWORD)
        b.get(stand.url("other"))
        b.get(stand.url("admin"))
        claims, head = told(stand, b, "app")
        assert claims["iss"] == "https://app.localhost/" and claims["aud"] == "app.localhost" and claims["groups"] == ["staff"]
        assert [header(head, "X-Pomerium-Claim-" + name) for name in ("Email", "Groups", "Nothing")] == [[USER], ["staff"], [""]]
        claims, head = told(stand, b, "other")
        assert claims["iss"] == "other.localhost" and sorted(claims["groups"]) == ["admins", "staff"]  # the route's and the global one
        assert "x-pomerium-" not in b.fetch(stand.url("admin")).json()["head"].lower()
    finally:
        stand.stop()


def test_an_identity_that_does_not_fit_is_an_error_not_a_shorter_identity(upstream):
    groups = [f"group-{i:04}-with-a-long-name" for i in range(1000)]
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    allow_any_authenticated_user: true
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    jwt_groups_filter: [{groups[7]}]
    allow_any_authenticated_user: true
""", users={USER: groups}).start()
    try:
        b, before = stand.browser(), len(upstream.heads)
        page = b.login(stand.url("app"), USER, PASSWORD)
        assert page.status_code == 503 and "identity-too-large" in page.text and len(upstream.heads) == before
        assert b.get(stand.url("other")).status_code == 200
        assert told(stand, b, "other")[0]["groups"] == [groups[7]]
    finally:
        stand.stop()


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
