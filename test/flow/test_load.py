"""Parts die and come back while people work: no wrong allow, recovery in seconds without help."""

import signal
import threading
import time

import pytest
import websocket
from nameserver import NameServer, Zone
from stand import PASSWORD, Stand, Upstream
from trial import Form, free_port, freeze, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"


ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    allow_any_authenticated_user: true
    allow_websockets: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {and: [{groups: {has: admins}}]}}]
"""


class Load:
    """A person who may, one who may not, and a stranger, each asking on and on while it is entered."""

    def __init__(self, stand):
        self.stand, self.seen, self.stop = stand, {"user": [], "denied": [], "stranger": []}, threading.Event()
        self.threads = []

    def __enter__(self):
        stand = self.stand
        self.user = stand.browser()
        page = self.user.login(stand.url("app"), USER)
        assert page.status_code == 200, page.text
        self.denied = stand.browser()
        page = self.denied.login(stand.url("admin"), USER)
        assert page.status_code == 403, (page.url, page.text)
        self.threads = [threading.Thread(target=self.run, args=(name, browser, host), daemon=True) for name, browser, host in (
            ("user", self.user, "app"), ("denied", self.denied, "admin"), ("stranger", None, "app"))]
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.end()

    def run(self, name, browser, host):
        while not self.stop.is_set():
            try:
                answer = (browser or self.stand.browser()).fetch(self.stand.url(host))
                self.seen[name].append((time.monotonic(), answer.status_code))
            except OSError:
                self.seen[name].append((time.monotonic(), 0))
            time.sleep(0.01)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(40)


@pytest.mark.parametrize("daemon", ["databroker", "authorize", "authenticate", "proxy"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_part_dies_and_comes_back_under_load(upstream, daemon, how):
    stand = Stand(ROUTES.replace("UP", str(upstream.port))).start()
    try:
        with Load(stand) as load:
            time.sleep(0.5)
            stand.kill(daemon, how)
            time.sleep(1)
            stand.start_one(daemon)
            back = time.monotonic()
            wait_for("the user to be served again", lambda: any(
                t > back and s == 200 for t, s in load.seen["user"]), 15)
            time.sleep(0.5)
            load.end()
            denied = {s for _, s in load.seen["denied"]}
            stranger = {s for _, s in load.seen["stranger"]}
            assert denied <= {403, 503, 0} and 403 in denied, denied
            assert stranger <= {401, 503, 0} and 401 in stranger, stranger
            user = {s for _, s in load.seen["user"]}
            assert user <= {200, 503, 0}, user  # never logged out, never redirected
            if daemon in ("databroker", "authenticate"):
                assert user == {200}  # known sessions go on
    finally:
        stand.stop()


def checks_of(stand, authorize):
    return sum(line["event"] == "authorize check" for line in stand.logs(authorize))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_one_of_two_authorizes_dies_under_load_and_nobody_notices(upstream, how):
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), authorizes=2).start()
    try:
        with Load(stand) as load:
            wait_for("many checks", lambda: all(len(seen) > 100 for seen in load.seen.values()), 60)
            shares = [checks_of(stand, name) for name in stand.authorizes]
            assert min(shares) > 0.4 * sum(shares), shares  # in turn
            stand.kill("authorize-2", how)
            alone = {name: len(seen) for name, seen in load.seen.items()}
            wait_for("checks without it", lambda: all(len(s) > alone[n] + 50 for n, s in load.seen.items()), 60)
            stand.start_one("authorize-2")
            dead = checks_of(stand, "authorize-2")
            wait_for("checks at the one that is back", lambda: checks_of(stand, "authorize-2") > dead + 20, 60)
            load.end()
            assert {s for _, s in load.seen["user"]} == {200}
            assert {s for _, s in load.seen["denied"]} == {403}
            assert {s for _, s in load.seen["stranger"]} == {401}
    finally:
        stand.stop()


def test_the_name_of_the_authorizes_is_followed(upstream):
    names = NameServer()
    names.names["authorize.test"] = Zone(["127.0.0.2"], ttl=1)
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), authorizes=2, settings=(
        f"dns_resolvers: ['127.0.0.1:{names.port}']\ndns_query_timeout: 500ms\ndns_query_tries: 1\ndns_failure_refresh_rate: 300ms\n"))
    port = free_port()
    stand.env = {"authorize": {"GRPC_ADDRESS": f"127.0.0.2:{port}"}, "authorize-2": {"GRPC_ADDRESS": f"127.0.0.3:{port}"},
                 "proxy": {"AUTHORIZE_SERVICE_URL": f"https://authorize.test:{port}"}}
    try:
        stand.start()
        browser = stand.browser()

        def asked():
            """Who was asked about a request."""
            answer = browser.fetch(stand.url("app"))
            assert answer.status_code == 200
            return wait_for("the audit line", lambda: [
                name for name in stand.authorizes if any(line.get("request-id") == answer.headers["x-request-id"]
                                                         for line in stand.logs(name))])[0]

        browser.login(stand.url("app"), USER, PASSWORD)
        assert asked() == "authorize"
        names.names["authorize.test"] = Zone(["127.0.0.2", "127.0.0.3"], ttl=1)
        wait_for("the second one to be asked", lambda: asked() == "authorize-2")
        names.names["authorize.test"] = Zone(["127.0.0.3"], ttl=1)
        wait_for("the first one to be left alone", lambda: {asked() for _ in range(6)} == {"authorize-2"})
        stand.kill("authorize")
        names.names["authorize.test"] = "servfail"  # the last good answer stays
        wait_for("the failure", lambda: [line for line in stand.logs("proxy") if line["event"] == "name.not-found"])
        assert asked() == "authorize-2"
    finally:
        stand.stop()
        names.close()


def talkative(s):
    """An upstream that agrees to any WebSocket and then is silent."""
    s.recv(65536)
    s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Accept: x\r\n\r\n")
    s.recv(65536)


def raw_websocket(stand, cookie):
    import socket
    import ssl
    context = ssl.create_default_context(cafile=stand.ca)
    s = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 10), server_hostname="app.localhost")
    s.sendall(f"GET /ws HTTP/1.1\r\nHost: app.localhost:{stand.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
              f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie: {cookie}\r\n\r\n".encode())
    assert s.recv(65536).startswith(b"HTTP/1.1 101")
    return s


def test_open_connections_survive_a_reload_and_end_when_a_rule_ends_them():
    u = Upstream(raw=talkative)
    stand = Stand(ROUTES.replace("UP", str(u.port))).start()
    try:
        user = stand.browser()
        user.login(stand.url("app", "/.pomerium/"), USER)  # the upstream itself speaks no HTTP
        sockets = [raw_websocket(stand, user.cookie("app")) for _ in range(5)]
        stand.write_config(stand.routes + """
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:1
    allow_public_unauthenticated_access: true
""")
        wait_for("the new route", lambda: stand.browser().fetch(stand.url("other")).status_code == 502, 10)
        for s in sockets:
            s.settimeout(0.2)
            with pytest.raises(TimeoutError):
                s.recv(1)
        stand.write_config(stand.routes.replace("allow_any_authenticated_user: true",
                                                "policy: [{allow: {and: [{email: {is: admin@example.com}}]}}]"))
        for s in sockets:
            s.settimeout(5)
            try:
                assert s.recv(1) == b""
            except ConnectionResetError:
                pass
    finally:
        stand.stop()
        u.close()


def test_a_reload_in_the_last_step_of_a_login_is_survived(upstream):
    """The code is on its way to authenticate while the routes change: there is no route yet that this request is on."""
    stand = Stand(ROUTES.replace("UP", str(upstream.port))).start()
    try:
        user = stand.browser()
        page = user.get(stand.url("app"))
        form = Form(page.text)
        answer = user.one(page.url, "POST", data={**form.fields, "email": USER, "password": PASSWORD}, headers={
            "Origin": stand.url("authenticate", ""), "Sec-Fetch-Site": "same-origin"})
        assert "/.pomerium/callback/" in answer.headers["Location"], answer.headers
        freeze(stand.processes["authenticate"])
        came = []
        last = threading.Thread(target=lambda: came.append(user.one(answer.headers["Location"]).status_code))
        last.start()
        time.sleep(0.3)  # it is at authenticate by then; if not, this run shows nothing
        stand.write_config(stand.routes + """
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:1
    allow_public_unauthenticated_access: true
""")
        wait_for("the new route", lambda: stand.browser().fetch(stand.url("other")).status_code == 502, 10)
        stand.processes["authenticate"].send_signal(signal.SIGCONT)
        last.join(40)
        assert came and came[0] in (302, 503)
        wait_for("a login", lambda: stand.browser().login(stand.url("app"), USER).status_code == 200)
    finally:
        stand.processes["authenticate"].send_signal(signal.SIGCONT)
        stand.stop()
