"""The trial's whole story, as its first user meets it."""

import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest
import websocket
from sanitize import ANSWER_S, PATIENCE
from trial import POSTERN, ROOT, Browser, Trial, free_port, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"


def test_start_says_where_to_go_and_as_whom(trial):
    text = trial.printed()
    assert f"Postern is ready: https://demo.localhost:{trial.port}/" in text
    assert set(trial.accounts()) == {USER, ADMIN}
    assert "ca.pem" in text


def test_healthcheck_tells_ready_from_not_and_an_address_from_a_slip(trial):
    health = f"unix:{trial.folder}/sock/health-proxy.sock"
    assert trial.cli("healthcheck", health).stdout == ""
    for address, code, words in ((health + "x", 1, "not ready"), (f"127.0.0.1:{free_port()}", 1, "not ready"),
                                 ("8080", 2, "no address"), ("a:b", 2, "no address"), ("unix:", 2, "no address")):
        asked = trial.cli("healthcheck", address, check=False)
        assert (asked.returncode, words in asked.stderr) == (code, True), asked.stderr


def test_a_stranger_is_sent_to_log_in_and_arrives_with_the_query_kept(trial):
    b = trial.browser()
    page = b.login(trial.url("demo", "/deep/link?a=1&b=%C3%A4%20x"), USER)
    assert page.status_code == 200
    assert page.url == trial.url("demo", "/deep/link?a=1&b=%C3%A4%20x")
    assert USER in page.text


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(trial):
    pages = []
    for email, password in ((USER, "wrong"), ("nobody@example.com", "wrong")):
        b = trial.browser()
        page = b.login(trial.url("demo"), email, password)
        pages.append((page.status_code, page.text.replace(email, "EMAIL")))
        assert f"https://authenticate.localhost:{trial.port}/" in page.url
    hidden = re.compile(r'value="[^"]*"|[0-9a-f]{8}-[0-9a-f-]{27}')
    assert pages[0][0] == pages[1][0]
    assert hidden.sub("", pages[0][1]) == hidden.sub("", pages[1][1])


def test_groups_decide_and_the_denial_says_why(trial):
    b = trial.browser()
    page = b.login(trial.url("admin"), USER)
    assert page.status_code == 403
    assert page.headers["x-request-id"] in page.text
    assert "admins" not in page.text
    denied = b.fetch(trial.url("admin"))
    assert denied.status_code == 403
    body = denied.json()
    assert body["request_id"] == denied.headers["x-request-id"]
    assert "groups-unauthorized" in json.dumps(body)
    assert trial.browser().login(trial.url("admin"), ADMIN).status_code == 200


def test_one_login_serves_every_host(trial):
    b = trial.browser()
    assert b.login(trial.url("demo"), ADMIN).status_code == 200
    page = b.get(trial.url("admin", "/x?y=z"))
    assert page.status_code == 200 and page.url == trial.url("admin", "/x?y=z")
    assert len(b.trail) <= 4


def test_the_public_route_asks_nobody(trial):
    b = trial.browser()
    assert b.get(trial.url("public")).status_code == 200
    assert len(b.trail) == 1


def test_scripts_get_401_without_cookies(trial):
    for path in ("/", "/api/x"):
        answer = trial.browser().fetch(trial.url("demo", path))
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers and "Location" not in answer.headers
        assert "WWW-Authenticate" in answer.headers
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        person = trial.browser()  # whom the page sends there
        page = person.login(answer.json()["login_url"], USER)
        assert page.status_code == 200 and page.url == trial.url("demo", "/.pomerium/")
        assert person.fetch(trial.url("demo", path)).status_code == 200
    assert trial.browser().fetch(trial.url("demo"), "POST", data="x").status_code == 401


def test_the_upstream_learns_who_and_never_our_cookies(trial):
    b = trial.browser()
    b.login(trial.url("demo"), USER)
    b.session.cookies.set("mine", "kept", domain="demo.localhost")
    assert b.fetch(trial.url("demo"), headers={"x_pomerium_jwt_assertion": "evil"}).status_code == 400
    page = b.fetch(trial.url("demo"), headers={"X-Pomerium-Claim-Email": "evil@example.com"})
    assert page.status_code == 200
    assert "evil" not in page.text
    assert USER in page.text and "mine=kept" in page.text
    assert "_pomerium=" not in page.text


def test_own_endpoints(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    me = b.get(trial.url("demo", "/.pomerium/"))
    assert me.status_code == 200 and ADMIN in me.text and "admins" in me.text
    facts = b.fetch(trial.url("demo", "/.pomerium/user")).json()
    assert facts["email"] == ADMIN and set(facts["groups"]) == {"admins", "staff"}
    assert not {"iss", "aud", "exp", "iat", "jti"} & set(facts)
    about = b.fetch(trial.url("demo", "/.well-known/pomerium")).json()
    assert about["jwks_uri"] == trial.url("demo", "/.well-known/pomerium/jwks.json")
    keys = b.fetch(about["jwks_uri"]).json()["keys"]
    assert keys[0]["kty"] == "EC" and "d" not in keys[0]
    for path in ("/ping", "/healthz"):
        assert b.fetch(trial.url("demo", path)).text.strip() == "OK"
    assert trial.browser().fetch(trial.url("demo", "/.pomerium/user")).status_code == 401


def test_sign_out_ends_the_session_everywhere(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    assert b.get(trial.url("admin")).status_code == 200
    old = b.cookie("demo")
    foreign = trial.browser()
    foreign.session.cookies.update(b.session.cookies)
    asked = foreign.get(trial.url("demo", "/.pomerium/sign_out"), headers={"Sec-Fetch-Site": "cross-site"})
    assert asked.status_code == 200 and "<form" in asked.text  # a foreign page cannot sign people out
    assert b.fetch(trial.url("admin")).status_code == 200
    page = b.get(trial.url("demo", "/.pomerium/sign_out"))
    assert page.status_code == 200 and "<form" not in page.text and "signed out" in page.text.lower()
    assert b.fetch(trial.url("admin")).status_code == 401
    replay = trial.browser()
    assert replay.fetch(trial.url("demo"), headers={"Cookie": old}).status_code == 401


def ws(trial, browser, path="/ws"):
    return websocket.create_connection(
        f"wss://127.0.0.1:{trial.port}{path}", host=f"demo.localhost:{trial.port}",
        cookie=browser.cookie("demo"), origin=trial.url("demo", ""), timeout=ANSWER_S,
        sslopt={"ca_certs": trial.ca, "server_hostname": "demo.localhost", "check_hostname": False})


def test_websocket_echo_and_its_end_within_a_second_of_the_revoke(trial):
    b = trial.browser()
    b.login(trial.url("demo"), USER)
    s = ws(trial, b)
    s.send("hello")
    assert s.recv() == "hello"
    sessions = trial.cli("sessions", "list").stdout
    assert USER in sessions
    trial.cli("users", "revoke", USER)
    acknowledged = time.monotonic()
    s.settimeout(5)
    try:
        while s.recv():
            pass
    except (websocket.WebSocketConnectionClosedException, ConnectionResetError, ssl.SSLError):
        pass
    closed = time.monotonic()
    assert closed - acknowledged < 1.0
    assert b.fetch(trial.url("demo")).status_code == 401
    again = b.get(trial.url("demo"))
    assert "authenticate.localhost" in again.url  # thrown out: asked to log in


def test_websocket_needs_a_login_and_a_route_that_allows_it(trial):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        ws(trial, trial.browser())
    assert refused.value.status_code == 401


def test_server_sent_events_arrive_as_they_are_made(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    with b.session.get(trial.url("demo", "/events"), stream=True, timeout=ANSWER_S,
                       headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith(b"data:"))
        second = next(line for line in lines if line.startswith(b"data:"))
    assert first != second


def test_twenty_tabs_at_once_all_arrive(trial):
    """Opened together, as a browser does that starts; then each logs in, in any order, and at once."""
    for together in (False, True):
        b, tabs, ends = trial.browser(), {}, {}

        def each(what):
            order = random.sample(range(20), 20)
            threads = [threading.Thread(target=what, args=(n,)) for n in order]
            for t in threads:
                t.start()
                if not together:
                    t.join()
            for t in threads:
                t.join()

        def log_in(n):
            page = tabs[n]
            ends[n] = b.login_on(page, USER, trial.accounts()[USER]) if "<form" in page.text else page
        each(lambda n: tabs.update({n: b.get(trial.url("demo", f"/tab/{n}"))}))
        each(log_in)
        for n in range(20):
            assert n in ends and (ends[n].status_code, ends[n].url) == (200, trial.url("demo", f"/tab/{n}")), (n, ends.get(n), together)
        assert len([c for c in b.session.cookies if c.domain == "demo.localhost"]) == 2
        assert sum(len(c.name) + len(c.value) for c in b.session.cookies if c.domain == "demo.localhost") < 300


class ForgetfulBrowser(Browser):
    """Keeps no cookie of the app's host."""

    def one(self, url, *args, **kwargs):
        answer = super().one(url, *args, **kwargs)
        for c in list(self.session.cookies):
            if c.domain.startswith("demo"):
                self.session.cookies.clear(c.domain, c.path, c.name)
        return answer


def test_a_browser_that_drops_cookies_learns_so_instead_of_looping(trial):
    b = ForgetfulBrowser(trial)
    page = b.login(trial.url("demo"), USER)
    assert page.status_code in (400, 401, 403) and "cookie-not-returned" in page.text
    assert sum(1 for _, u in b.trail if "/.pomerium/sign_in" in u) <= 4


def test_a_session_that_is_never_there_ends_after_three_rounds(trial):
    b = trial.browser()
    page = b.login(trial.url("demo"), USER)
    for _ in range(3):  # as where a store loses what was just written
        assert page.status_code == 200
        trial.cli("users", "revoke", USER)
        page = b.login(trial.url("demo"), USER)
    trial.cli("users", "revoke", USER)
    page = b.get(trial.url("demo"))
    assert page.status_code == 403 and "store-miss" in page.text and "<form" not in page.text


def test_a_handle_of_another_host_is_worthless(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    stolen = b.cookie("demo")
    assert trial.browser().fetch(trial.url("demo"), headers={"Cookie": stolen}).status_code == 200
    assert trial.browser().fetch(trial.url("admin"), headers={"Cookie": stolen}).status_code == 401


def test_audit_and_access_lines_share_the_request_id_and_hold_no_secret(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    answer = b.fetch(trial.url("demo", "/logged?token=canary-query"))
    rid = answer.headers["x-request-id"]

    def both():
        audit = [x for x in trial.logs("authorize") if x.get("request-id") == rid]
        access = [x for x in trial.logs("proxy") if x.get("request-id") == rid]
        return audit and access and (audit[0], access[0])
    audit, access = wait_for("both lines", both)
    assert audit["allow"] is True and audit["email"] == ADMIN and audit["path"] == "/logged"
    assert access["response-code"] == 200
    assert access["email"] == ADMIN and access["user"] == audit["user"] != ""
    cookie = b.cookie("demo").split("=", 1)[1]
    for name in ("proxy", "authorize", "authenticate", "databroker"):
        text = json.dumps(trial.logs(name))
        assert cookie not in text and trial.accounts()[ADMIN] not in text and "canary-query" not in text


def test_a_second_start_finds_its_sessions(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    assert trial.stop() == 0
    trial.start()
    assert b.fetch(trial.url("demo")).status_code == 200


def test_a_mistake_in_the_saved_configuration_is_told_on_the_terminal(trial):
    path = os.path.join(trial.folder, "config.yaml")
    with open(path) as f:
        good = f.read()
    for bad, place, hint in ((good.replace("allow_websockets:", "allow_websocket:"), "allow_websocket:", "allow_websockets"),
                             (good.replace("authenticated_user: true", "emial: {is: a@b}"), "emial", "email")):
        with open(path, "w") as f:
            f.write(bad)
        line = next(n for n, text in enumerate(bad.splitlines(), 1) if place in text)
        wait_for("the mistake to be told", lambda: any(
            f"{path}:{line}:" in x and hint in x for x in trial.printed().splitlines()))
    with open(path, "w") as f:
        f.write(good)
    b = trial.browser()
    wait_for("the good one to be in force", lambda: b.login(trial.url("demo"), ADMIN).status_code == 200)


def test_a_port_in_use_is_one_clear_sentence():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        t = Trial(port=port)
        done = subprocess.run([POSTERN, "up", "--dir", t.folder, "--port", str(port)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) <= 2 and str(port) in lines[-1] and "in use" in lines[-1]


def up_of(folder, *argv):
    """What `postern up` says where it cannot begin; it must not go on."""
    done = subprocess.run([*(argv or [POSTERN]), "up", "--dir", folder, "--port", str(free_port())], cwd=ROOT,
                          capture_output=True, text=True, timeout=120 * PATIENCE)
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


@pytest.fixture(scope="module")
def stopped():
    """The folder of a trial that ran once."""
    t = Trial().start()
    t.stop()
    return t.folder


@pytest.mark.parametrize("file", ["config.yaml", "users.yaml", "databroker.sqlite", "shared-secret", "server-key.pem", "ca.pem"])
def test_a_broken_file_is_one_clear_sentence(stopped, file):
    path = os.path.join(stopped, file)
    shutil.copy2(path, path + ".kept")
    try:
        with open(path, "wb") as f:
            f.write(b"[broken\n" * 1000)
        lines = up_of(stopped)
        place = "config.yaml" if file == "server-key.pem" else file.replace("shared-secret", "shared_secret_file")
        assert len(lines) == 1 and place in lines[0], lines
    finally:
        os.rename(path + ".kept", path)


def test_a_missing_right_is_one_clear_sentence(stopped):
    nobody = []
    folders = ["/proc/trial"]  # where nobody can write
    if os.geteuid() == 0:  # a stranger, who need not be able to see where the build is
        place = tempfile.mkdtemp(prefix="postern-bin-")
        os.chmod(place, 0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", shutil.copy(POSTERN, place)]
        folders.append(stopped)
    for folder in folders:
        lines = up_of(folder, *nobody)
        assert len(lines) == 1 and folder in lines[0], lines
    if nobody:
        shutil.rmtree(place)


def test_children_that_die_are_started_again(trial):
    b = trial.browser()
    b.login(trial.url("demo"), ADMIN)
    for program in ("postern-databroker", "postern-authorize", "postern-authenticate", "postern-proxy"):
        trial.kill(program)
        wait_for(f"an answer after {program} died", lambda: b.fetch(trial.url("demo")).status_code == 200, 20)
