"""Programs get in without a browser: where a token may stand, what it may be, and how it ends."""

import base64
import time

import pytest
import requests
from stand import Stand, TlsClient, Upstream, header
from trial import wait_for

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    pass_identity_headers: true
    policy: [{allow: {or: [{user: {is: robot/backup}}, {email: {is: user@example.com}}]}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {or: [{groups: {has: admins}}]}}]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UP
    allow_public_unauthenticated_access: true
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:SLOW
    policy: [{allow: {or: [{user: {is: robot/backup}}]}}]
"""

# What a browser sends when a person opens a page.
PERSON = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "User-Agent": "Mozilla/5.0"}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def forms(token):
    """Every place for a token."""
    return [{"X-Pomerium-Authorization": token}, {"Authorization": "Pomerium " + token},
            {"Authorization": "Bearer Pomerium-" + token}, {"Authorization": basic("git", "Pomerium-" + token)},
            {"Authorization": basic("", "pomerium-" + token)}]


def stream(s):
    """An answer that goes on until somebody cuts it."""
    s.recv(65536)
    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nopen\r\n")
    s.recv(1)


@pytest.fixture(scope="module")
def stand(upstream):
    slow = Upstream(raw=stream)
    routes = ROUTES.replace("UP", str(upstream.port)).replace("SLOW", str(slow.port))
    s = Stand(routes, settings="jwt_claims_headers: {X-Email: email}\n").start()
    yield s
    s.stop()
    slow.close()


def get(stand, host="app", path="/", **headers):
    return requests.get(stand.url(host, path), headers=headers, verify=stand.ca, allow_redirects=False, timeout=30)


def account(stand, user="robot/backup", *more):
    """The token of a new service account, and its id."""
    done = stand.cli("token", "create", "--service-account", user, *more)
    token, id = done.stdout.strip(), done.stderr.split("service account ")[1].split(",")[0]
    # A replica is behind for a moment; what it says of a session it does not know is 401.
    wait_for("authorize to know the account", lambda: get(stand, "admin", Authorization="Pomerium " + token).status_code == 403)
    return token, id


def test_a_token_may_stand_in_five_places_and_never_goes_further(stand, upstream):
    token, _ = account(stand)
    for form in forms(token):
        before = len(upstream.heads)
        assert get(stand, **form).status_code == 200, form
        head = upstream.heads[before]
        assert token.encode() not in head and b"uthorization:" not in head, head
        assert base64.b64encode(token.encode())[:40] not in head


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Basic  dXNlcjpwYXNz", "basic !!", "Bearer abc.def.ghi", "Bearer postern_abc",
                                   "Negotiate YII=", "AWS4-HMAC-SHA256 Credential=a/b, Signature=c", "Digest username=\"a\"",
                                   basic("Pomerium-x", "secret"), "Pomeriums x", "BearerPomerium-x"])
def test_the_applications_own_passes_byte_for_byte(stand, upstream, value):
    token, _ = account(stand)
    for more in ({}, {"X-Pomerium-Authorization": token}):
        assert get(stand, "app" if more else "public", Authorization=value, **more).status_code == 200
        assert upstream.heads[-1].count(b"uthorization: ") == 1
        assert b"\r\nAuthorization: " + value.encode() + b"\r\n" in upstream.heads[-1] + b"\r\n"


def test_policies_see_the_user_and_nobody_else(stand, upstream):
    token, _ = account(stand)
    other, _ = account(stand, "robot/other", "--description", "does something else")
    assert get(stand, Authorization="Pomerium " + token).status_code == 200
    assert header(upstream.heads[-1], "X-Email") == [""]
    assert get(stand, Authorization="Pomerium " + other).status_code == 403
    line = wait_for("the audit line", lambda: [x for x in stand.logs("authorize") if x.get("user") == "robot/other"])[-1]
    assert line["session-id"].startswith("service-account/")


def test_a_token_is_never_answered_with_a_page_to_log_in_on(stand):
    token, id = account(stand)
    stand.cli("token", "revoke", id)
    for bad in (token, token[:-2], "x", "", "postern_" + "A" * 106):
        for form in forms(bad):
            answer = get(stand, **{**PERSON, **form})
            assert answer.status_code == 401 and "Location" not in answer.headers, (bad, form)
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert get(stand, **PERSON).status_code == 302


def test_a_bad_token_is_refused_where_nobody_needs_one(stand, upstream):
    """Whoever shows one wants it to count: silence would hide that it does not."""
    before = len(upstream.heads)
    answer = get(stand, "public", Authorization="Pomerium nonsense")
    assert answer.status_code == 401 and answer.json()["code"] == "token-invalid"
    assert len(upstream.heads) == before


def test_whoever_shows_two_of_them_shows_the_same(stand, upstream):
    (one, _), (two, _) = account(stand), account(stand)
    before = len(upstream.heads)
    answer = get(stand, **{"X-Pomerium-Authorization": one, "Authorization": "Pomerium " + two})
    assert answer.status_code == 400 and answer.json()["code"] == "credentials-differ"
    assert get(stand, **{"X-Pomerium-Authorization": one, "Authorization": "Pomerium x"}).status_code == 400
    b = stand.browser()
    b.login(stand.url("app"), "user@example.com")
    before = len(upstream.heads)
    answer = b.fetch(stand.url("app"), headers={"Authorization": "Pomerium " + one})
    assert answer.status_code == 400 and answer.json()["code"] == "credentials-differ"
    # Nor does a cookie stand in for a token that does not hold.
    assert b.fetch(stand.url("app"), headers={"Authorization": "Pomerium x"}).status_code == 401
    assert len(upstream.heads) == before
    # The same twice is one.
    handle = b.cookie("app").split("__Host-_pomerium=")[1].split(";")[0]
    assert b.fetch(stand.url("app"), headers={"X-Pomerium-Authorization": handle, "Authorization": "Pomerium " + handle}).status_code == 200
    # A cookie that is nobody's says nothing.
    assert get(stand, Cookie="__Host-_pomerium=stale", Authorization="Pomerium " + one).status_code == 200


def test_revoking_ends_the_token_and_what_is_open(stand):
    token, id = account(stand)
    assert token not in stand.cli("token", "list").stdout and id in stand.cli("token", "list").stdout
    client = TlsClient(stand, "other.localhost")
    client.sendall(f"GET / HTTP/1.1\r\nHost: other.localhost:{stand.port}\r\nAuthorization: Pomerium {token}\r\n\r\n".encode())
    got = b""
    while b"open" not in got:
        got += client.step(client.tls.read, 65536)
    stand.cli("token", "revoke", id)
    assert get(stand, Authorization="Pomerium " + token).status_code == 401
    with pytest.raises((OSError, EOFError)):  # cut, not ended
        while client.step(client.tls.read, 65536):
            pass
        raise EOFError
    assert stand.cli("token", "revoke", id, check=False).returncode == 1
    assert id not in stand.cli("token", "list").stdout


def test_the_last_use_of_an_account_is_told(stand):
    """A use soon after it was made counts, too: a job may have but one."""
    token, id = account(stand)

    def last_use():
        line = next(x for x in stand.cli("token", "list").stdout.splitlines() if x.startswith(id))
        return line[36 + 2 + 32 + 2 + 19 + 2:].split("  ")[0].strip()
    assert last_use() == "never"
    before = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    assert get(stand, Authorization="Pomerium " + token).status_code == 200
    wait_for("its use to be written", lambda: last_use() != "never", 30)
    assert before <= last_use() <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def test_an_account_ends_by_itself(stand):
    token, _ = account(stand, "robot/backup", "--ttl", "6s")
    wait_for("its end", lambda: get(stand, Authorization="Pomerium " + token).status_code == 401, 30)


def test_a_token_for_one_thing_is_none_for_another(stand):
    for role in ("session-admin", "reader"):
        token = stand.cli("token", "create", "--role", role).stdout.strip()
        for form in forms(token):
            assert get(stand, **form).status_code == 401
    token, _ = account(stand)
    ca = stand.cli("ca").stdout
    with open(stand.folder + "/ca.pem", "w") as f:
        f.write(ca)
    done = stand.cli("sessions", "list", "--ca-file", stand.folder + "/ca.pem", "--databroker", f"unix:{stand.folder}/databroker.sock",
                     check=False, env={"POSTERN_TOKEN": token, "POSTERN_CONFIG": "/nonexistent"})
    assert done.returncode == 1 and "does not accept the token" in done.stderr, done.stderr


@pytest.mark.parametrize("args", [("--service-account", ""), ("--service-account", "a\nb"), ("--service-account", "x" * 256),
                                  ("--service-account", "a", "--role", "reader"), (), ("--service-account", "a", "--ttl", "soon"),
                                  ("--service-account", "a", "--ttl", "99999d"), ("--role", "service-account")])
def test_mistakes_make_no_account(stand, args):
    before = {line.split()[0] for line in stand.cli("token", "list").stdout.splitlines()}
    assert stand.cli("token", "create", *args, check=False).returncode == 2
    assert {line.split()[0] for line in stand.cli("token", "list").stdout.splitlines()} <= before


def test_git_and_its_kin_are_asked_for_a_password_and_browsers_are_not(stand):
    assert "Basic realm" in get(stand).headers["WWW-Authenticate"]
    for browser in ({"User-Agent": "Mozilla/5.0"}, {"Sec-Fetch-Mode": "cors"}, {"Origin": "https://app.localhost"}):
        answer = get(stand, **browser)
        assert answer.status_code == 401 and "Basic" not in answer.headers["WWW-Authenticate"]
