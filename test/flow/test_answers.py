"""Every answer of the check, and that no failure of a part becomes an allow."""

import itertools
import json
import signal
import time

import pytest
from stand import Stand, header
from trial import NAVIGATION, freeze, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"


@pytest.fixture()
def stand(upstream):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    allow_any_authenticated_user: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          and:
            - groups: {{has: admins}}
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          or:
            - no_such_criterion: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""").start()
    yield s
    s.stop()


def test_a_broken_policy_closes_its_own_route_only(stand, upstream):
    b = stand.browser()
    assert b.login(stand.url("app"), USER).status_code == 200
    before = len(upstream.heads)
    broken = b.fetch(stand.url("other"))
    assert broken.status_code == 503 and "policy-invalid" in broken.text
    assert b.one(stand.url("other")).status_code == 503
    assert len(upstream.heads) == before
    assert b.fetch(stand.url("app")).status_code == 200
    done = stand.cli("validate", check=False)
    line = stand.config_line("no_such_criterion")
    assert done.returncode == 1 and f"config.yaml:{line}:" in done.stderr and '"no_such_criterion"' in done.stderr
    assert "fine" not in done.stdout


def test_denied_requests_never_reach_the_upstream(stand, upstream):
    b = stand.browser()
    assert b.login(stand.url("admin"), USER).status_code == 403
    before = len(upstream.heads)
    assert b.fetch(stand.url("admin")).status_code == 403
    assert b.one(stand.url("admin")).status_code == 403
    assert stand.browser().fetch(stand.url("app")).status_code == 401
    assert stand.browser().one(stand.url("app")).status_code == 302
    assert len(upstream.heads) == before


def test_unknown_host_is_404(stand):
    answer = stand.browser().fetch(stand.url("app"), headers={"Host": f"nowhere.localhost:{stand.port}"})
    assert answer.status_code in (404, 421)


def test_no_authorize_is_503_and_comes_back(stand, upstream):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    stand.kill("authorize")
    before = len(upstream.heads)
    for answer in (b.fetch(stand.url("app")), b.one(stand.url("app")), stand.browser().one(stand.url("public"))):
        assert answer.status_code == 503 and "Location" not in answer.headers
    assert len(upstream.heads) == before
    stand.start_one("authorize")
    wait_for("an answer again", lambda: b.fetch(stand.url("app")).status_code == 200, 20)


def test_authorize_that_hangs_is_503(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    freeze(stand.processes["authorize"])
    try:
        assert b.fetch(stand.url("app")).status_code == 503
    finally:
        stand.processes["authorize"].send_signal(signal.SIGCONT)
    wait_for("an answer again", lambda: b.fetch(stand.url("app")).status_code == 200, 20)


def test_no_databroker_keeps_known_sessions_for_a_while_and_logs_nobody_in(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    stand.kill("databroker")
    assert b.fetch(stand.url("app")).status_code == 200
    assert stand.browser().fetch(stand.url("public")).status_code == 200
    stranger = stand.browser()
    page = stranger.get(stand.url("app"))
    if "<form" in page.text:
        page = stranger.login_on(page, USER, stand.accounts()[USER])
    assert page.status_code == 503
    stand.start_one("databroker")
    wait_for("a login again", lambda: stand.browser().login(stand.url("app"), USER).status_code == 200, 20)
    assert b.fetch(stand.url("app")).status_code == 200


@pytest.mark.parametrize("order", list(itertools.permutations(("proxy", "authenticate", "authorize", "databroker"))))
def test_the_order_of_starts_does_not_matter(upstream, order):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""")
    try:
        for daemon in order:
            s.start_one(daemon)
            time.sleep(0.15)
        s.wait_ready()
        assert s.browser().login(s.url("app"), USER).status_code == 200
    finally:
        s.stop()


def test_policy_reload_bites_at_once_and_drops_no_connection(stand, upstream):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    assert b.fetch(stand.url("app")).status_code == 200
    connections = b.session.get_adapter("https://").poolmanager.connection_from_url(stand.url("app")).num_connections
    stand.write_config(stand.routes.replace("allow_any_authenticated_user: true",
                                            "policy: [{allow: {and: [{email: {is: admin@example.com}}]}}]"))
    wait_for("the new policy", lambda: b.fetch(stand.url("app")).status_code == 403, 10)
    pool = b.session.get_adapter("https://").poolmanager.connection_from_url(stand.url("app"))
    assert pool.num_connections == connections  # the same keep-alive connection all along


def test_a_bad_configuration_keeps_the_last_good_one(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER)
    stand.write_config(stand.routes + "\n  - form: https://typo.localhost:PORT\n    to: http://127.0.0.1:1\n")

    def rejected():
        return any("form" in json.dumps(line) and "from" in json.dumps(line) and "config" in line["event"]
                   for line in stand.logs("proxy"))
    wait_for("the refusal in the log, with the nearest name", rejected, 10)
    assert b.fetch(stand.url("app")).status_code == 200
    done = stand.cli("validate", check=False)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "config.yaml:" in text and "form" in text and "from" in text


def test_assertion_is_verified_by_a_foreign_library(stand, upstream):
    import jwt
    b = stand.browser()
    b.login(stand.url("app"), ADMIN)
    answer = b.fetch(stand.url("app"))
    token = header(answer.json()["head"], "X-Pomerium-Jwt-Assertion")[0]
    keys = b.fetch(stand.url("app", "/.well-known/pomerium/jwks.json")).json()
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(k for k in keys["keys"] if k["kid"] == kid)
    claims = jwt.decode(token, jwt.algorithms.ECAlgorithm.from_jwk(json.dumps(key)), algorithms=["ES256"],
                        audience="app.localhost", issuer="app.localhost")
    assert claims["email"] == ADMIN and set(claims["groups"]) == {"admins", "staff"}
    assert 200 <= claims["exp"] - time.time() <= 300
    assert header(b.fetch(stand.url("app")).json()["head"], "X-Pomerium-Jwt-Assertion")[0] == token


NAVIGATIONS = [
    {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": None, "Sec-Fetch-Dest": None, "Sec-Fetch-Site": None},
]
NOT_NAVIGATIONS = [
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "X-Requested-With": "XMLHttpRequest"},
    {"Sec-Fetch-Mode": None, "Sec-Fetch-Dest": None, "Accept": "application/json"},
    {"Sec-Fetch-Mode": None, "Sec-Fetch-Dest": None, "Accept": "*/*"},
    {"Content-Type": "application/grpc"},
    {"Upgrade": "websocket", "Connection": "Upgrade"},
]


def no_session(stand, kind):
    """Cookies that let nobody in, all for the same answer."""
    if kind in ("none", "garbage"):
        return {"none": "", "garbage": "__Host-_pomerium=garbage"}[kind]
    b = stand.browser()
    if kind == "of another host":
        assert b.login(stand.url("admin"), ADMIN).status_code == 200
        return b.cookie("admin")
    assert b.login(stand.url("app"), USER).status_code == 200
    cookie = b.cookie("app")
    if kind == "revoked":
        stand.cli("users", "revoke", USER)
    return cookie


@pytest.mark.parametrize("kind", ["none", "garbage", "of another host", "revoked"])
def test_only_navigations_are_redirected(stand, kind):
    cookie = no_session(stand, kind)
    extra = {"Cookie": cookie} if cookie else {}
    for headers in NAVIGATIONS:
        answer = stand.browser().one(stand.url("app"), headers={**headers, **extra})
        assert answer.status_code == 302, headers
        assert answer.headers["Location"].startswith(stand.url("authenticate", "/.pomerium/sign_in?"))
    for headers in NOT_NAVIGATIONS:
        answer = stand.browser().one(stand.url("app"), headers={**headers, **extra})
        if "grpc" in headers.get("Content-Type", ""):  # it tells its status in a header
            assert answer.status_code == 200 and answer.headers["grpc-status"] == "16"
        else:
            assert answer.status_code == 401 and answer.json()["code"] == "login-needed", headers
        assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers, headers
    assert stand.browser().one(stand.url("app"), method="POST", data="x", headers=extra).status_code == 401


def test_one_bad_login_link_parameter_and_it_is_refused(stand):
    answer = stand.browser().one(stand.url("app"))
    link = answer.headers["Location"]
    for broken in (link.replace("app.localhost", "evil.example"), link[:-1] + ("A" if link[-1] != "A" else "B"),
                   link.split("&pomerium_signature")[0]):
        page = stand.browser().one(broken)
        assert page.status_code in (400, 401, 403) and "Location" not in page.headers
        assert "type=\"password\"" not in page.text
