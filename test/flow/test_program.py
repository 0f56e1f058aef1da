"""Programs log in through the person's browser: what comes back is theirs alone, and for one place."""

import urllib.parse

import pytest
from stand import Stand, Upstream
from trial import Form, wait_for
from tunnels import (BACK, DB, DB2, INNER, STAFF, ADMINS, address, api, echo, opens, question, refused, say_yes, token, tunnel,
                     verifier, with_token)

@pytest.fixture(scope="module")
def stand():
    u, web = Upstream(raw=echo), Upstream()
    routes = "".join(f"  - from: tcp+https://{a}\n    to: tcp://127.0.0.1:{u.port}\n{policy}" for a, policy in (
        (DB, STAFF), (DB2, STAFF), ("bastion.localhost/" + INNER, STAFF), ("only.localhost:1", STAFF), ("vault.localhost:1", ADMINS)))
    routes += f"  - from: https://app.localhost:PORT\n    to: http://127.0.0.1:{web.port}\n{STAFF}"
    s = Stand(routes, names=("db.localhost", "bastion.localhost", "only.localhost", "vault.localhost")).start()
    s.web = web
    yield s
    s.stop()
    u.close()
    web.close()


def test_a_token_opens_the_tunnel_it_is_for_and_no_other(stand):
    assert refused(stand, DB)[0] == 401
    mine = token(stand, "db", DB)
    for headers in (with_token(mine), f"Authorization: Bearer Pomerium-{mine}\r\n", f"X-Pomerium-Authorization: {mine}\r\n"):
        opens(stand, DB, "db", headers)
    for authority, host in ((DB2, "db"), (INNER, "bastion"), ("only.localhost:1", "only")):
        assert refused(stand, authority, with_token(mine), host + ".localhost")[0] == 401
    assert stand.browser().fetch(stand.url("app"), headers={"Authorization": "Pomerium " + mine}).status_code == 401
    assert stand.browser().fetch(stand.url("db"), headers={"Cookie": f"__Host-_pomerium={mine}"}).status_code == 404
    for wrong in (mine[:-1] + ("A" if mine[-1] != "A" else "B"), "x", ""):
        assert refused(stand, DB, with_token(wrong))[0] == 401
    assert refused(stand, DB, with_token(mine) + with_token(mine))[0] in (400, 401)


def test_a_bastion_s_token_is_for_one_tunnel_of_it(stand):
    opens(stand, INNER, "bastion", with_token(token(stand, "bastion", INNER)))
    # Others do not answer for it.
    assert api(stand, "db", "login", redirect_uri=BACK, tunnel=INNER).status_code == 404
    assert api(stand, "app", "login", redirect_uri=BACK, tunnel=DB).status_code == 404
    assert api(stand, "bastion", "login", redirect_uri=BACK, tunnel="inner:23").status_code == 404


def test_a_web_token_works_on_its_host_alone(stand):
    mine = token(stand, "app")
    b = stand.browser()
    answer = b.fetch(stand.url("app"), headers={"Authorization": "Pomerium " + mine})
    assert answer.status_code == 200 and mine not in answer.text and "uthorization" not in answer.text
    assert refused(stand, DB, with_token(mine))[0] == 401


def test_a_browser_s_cookie_opens_no_tunnel(stand):
    b = stand.browser()
    b.login(stand.url("app", "/.pomerium/"), "user@example.com")
    cookie = b.cookie("app")
    assert refused(stand, DB, f"Cookie: {cookie}\r\n")[0] == 401
    assert refused(stand, DB, with_token(cookie.split("=", 1)[1]))[0] == 401


def test_programs_written_for_pomerium_get_the_token_itself(stand):
    b = stand.browser()
    got = say_yes(b, question(b, address(stand, "only")))
    opens(stand, "only.localhost:1", "only", with_token(got["pomerium_jwt"]))
    got = say_yes(b, question(b, address(stand, "app")))
    assert b.fetch(stand.url("app"), headers={"Authorization": "Pomerium " + got["pomerium_jwt"]}).status_code == 200
    # Two tunnels at one host: which one?
    answer = api(stand, "db", "login", redirect_uri=BACK)
    assert answer.status_code == 400 and answer.json()["code"] == "tunnel-not-named"


@pytest.mark.parametrize("back", ["https://127.0.0.1:1/", "http://127.0.0.1/", "http://evil.example.com:1/", "http://127.0.0.1.evil.com:1/",
                                  "http://localhost.evil.com:1/", "http://localhost@evil.com:1/", "http://127.0.0.1:1/#a", "//127.0.0.1:1/",
                                  "http://127.1:1/", "http://10.0.0.1:1/", "javascript:alert(1)", "http://127.0.0.1:1\\@evil.com/", "",
                                  "http://app.localhost:1/"])
def test_only_loopback_is_told(stand, back):
    answer = api(stand, "db", "login", redirect_uri=back, tunnel=DB)
    assert answer.status_code == 400 and answer.json()["code"] == "redirect-not-loopback"


def test_loopback_has_three_names(stand):
    for back in ("http://127.0.0.1:9/", "http://localhost:9/x", "http://[::1]:9/"):
        address(stand, "db", DB, back=back)


def test_a_code_is_for_one_use_of_one_program_at_one_place(stand):
    secret, binding = verifier()
    b = stand.browser()
    code = say_yes(b, question(b, address(stand, "db", DB, binding)))["pomerium_code"]
    for wrong in ({"verifier": verifier()[0]}, {"verifier": "short"}, {"tunnel": DB2}, {"tunnel": None}, {"code": code[:-2] + "AA"}):
        answer = api(stand, "db", "token", **{"code": code, "verifier": secret, "tunnel": DB, **wrong})
        assert answer.status_code == 400, (wrong, answer.text)
    # Nor is it a browser's.
    other = stand.browser()
    page = other.get(f"https://db.localhost:{stand.port}/.pomerium/callback/?pomerium_code={urllib.parse.quote(code)}")
    assert "password" in Form(page.text).fields
    assert api(stand, "db", "token", code=code, verifier=secret, tunnel=DB).status_code == 200
    assert api(stand, "db", "token", code=code, verifier=secret, tunnel=DB).status_code == 400


def test_nothing_leaves_before_the_person_said_yes(stand):
    """Who is logged in already must not lose a token to a link that somebody else made."""
    b = stand.browser()
    b.login(stand.url("app", "/.pomerium/"), "user@example.com")
    page = question(b, address(stand, "db", DB))
    assert all(not url.startswith("http://") for _, url in b.trail)
    assert DB in page.text and "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    form = Form(page.text)
    url = urllib.parse.urljoin(page.url, form.action)
    other = stand.browser()  # the answer is the browser's that was asked
    other.login(stand.url("app", "/.pomerium/"), "user@example.com")
    assert other.one(url, "POST", data=form.fields).status_code == 400
    assert b.one(url, "POST", data=form.fields, headers={"Origin": "https://evil.example.com"}).status_code == 400
    assert b.one(url, "POST", data={"token": "x"}).status_code == 400
    assert b.one(url).status_code == 405


def test_the_address_cannot_be_changed(stand):
    url = address(stand, "db", DB)
    b = stand.browser()
    for old, new in (("41234", "41235"), ("5432", "6000"), ("pomerium_program=", "pomerium_programs="),
                     ("127.0.0.1", "evil.example.com")):
        assert old in url
        assert b.get(url.replace(old, new)).status_code == 400


def test_who_is_not_allowed_hears_so(stand):
    mine = token(stand, "vault", "vault.localhost:1")
    status, text = refused(stand, "vault.localhost:1", with_token(mine), "vault.localhost")
    assert status == 403 and "groups-unauthorized" in text
    opens(stand, "vault.localhost:1", "vault", with_token(token(stand, "vault", "vault.localhost:1", email="admin@example.com")))


def test_revocation_cuts_an_open_tunnel_and_the_token(stand):
    mine = token(stand, "db", DB, email="admin@example.com")
    other = token(stand, "db", DB)
    c, _ = tunnel(stand, DB, with_token(mine))
    kept, _ = tunnel(stand, DB, with_token(other))
    c.sendall(b"ping")
    assert c.recv(10) == b"ping"
    stand.cli("users", "revoke", "admin@example.com")
    with pytest.raises(OSError):
        if c.recv(1) == b"":
            raise AssertionError("a clean end")
    c.close()
    assert refused(stand, DB, with_token(mine))[0] == 401
    kept.sendall(b"pong")
    assert kept.recv(10) == b"pong"
    kept.close()
    wait_for("the access line", lambda: [x for x in stand.logs("proxy") if x.get("response-code-details") == "no-longer-allowed" and
                                         x.get("authority") == DB and x.get("email") == "admin@example.com"])


def test_a_changed_policy_cuts_who_may_no_longer(stand):
    mine = token(stand, "only", email="user@example.com")
    c, _ = tunnel(stand, "only.localhost:1", with_token(mine), "only.localhost")
    before = stand.routes
    head, rest = before.split("only.localhost:1\n")
    try:
        stand.write_config(head + "only.localhost:1\n" + rest.replace("staff", "admins", 1))
        with pytest.raises(OSError):
            if c.recv(1) == b"":
                raise AssertionError("a clean end")
        c.close()
    finally:
        stand.write_config(before)

    def back():
        opens(stand, "only.localhost:1", "only", with_token(mine))
        return True
    wait_for("the policy of before", back)


def test_secrets_reach_no_log(stand):
    mine = token(stand, "db", DB)
    opens(stand, DB, "db", with_token(mine))
    for daemon in stand.processes:
        with open(stand.log_file(daemon), errors="replace") as f:
            assert mine not in f.read()
