"""Which connections a reload closes: those that are now denied or have no route any more, and nothing else."""

import socket
import ssl

import pytest
from h2client import H2Client
from stand import PASSWORD, Stand, Upstream, receive
from trial import PATIENCE, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"
WORD = b"hello"
BEGINNING = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"


class Speaker(Upstream):
    """Streams that say a word when told to, and tunnels that do the same."""

    def __init__(self):
        self.listeners = []
        super().__init__(raw=self.listen)

    def listen(self, s):
        head = b""
        while b"\r\n\r\n" not in head:
            head += receive(s)
        tunnel = b"\r\nupgrade: websocket" in head.lower()
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
                  if tunnel else BEGINNING)
        if b"GET /whole" in head:
            s.sendall(b"0\r\n\r\n")
            return
        self.listeners.append((s, WORD if tunnel else CHUNK))
        s.recv(1)

    def say(self):
        for s, word in self.listeners:
            try:
                s.sendall(word)
            except OSError:
                pass  # its visitor is gone


class Listener:
    """An open stream or tunnel over HTTP/1.1."""

    def __init__(self, stand, host, cookie, tunnel=False):
        self.s = ssl.create_default_context(cafile=stand.ca).wrap_socket(
            socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE), server_hostname=f"{host}.localhost")
        more = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                if tunnel else "")
        self.s.sendall(f"GET /stream HTTP/1.1\r\nHost: {host}.localhost:{stand.port}\r\nCookie: {cookie}\r\n{more}\r\n".encode())
        self.got = b""
        while b"\r\n\r\n" not in self.got:
            self.got += receive(self.s)
        assert self.got[9:12] in (b"101", b"200"), self.got
        self.got = self.got.split(b"\r\n\r\n", 1)[1]

    def hears(self):
        while WORD not in self.got:
            self.got += receive(self.s)
        self.got = b""
        return True

    def is_cut(self):
        try:
            while self.s.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True


class Streams:
    """Open streams of several hosts over one connection of HTTP/2."""

    def __init__(self, stand, cookies, hosts):
        self.c = H2Client(stand.port)
        self.stand, self.cookies = stand, cookies
        self.ids = {host: self.c.request(path="/stream", headers=[("cookie", cookies[host])],
                                         authority=f"{host}.localhost:{stand.port}") for host in hosts}
        for sid in self.ids.values():
            self.c.until(lambda sid=sid: self.c.answers[sid].status == 200)

    def hears(self, host):
        answer = self.c.answers[self.ids[host]]
        self.c.until(lambda: WORD in answer.body)
        answer.body = b""
        return True

    def is_cut(self, host):
        answer = self.c.answers[self.ids[host]]
        self.c.until(lambda: answer.reset is not None)
        return not self.c.closed

    def asks(self, host, status=200):
        """A next request on the same connection."""
        return self.c.get("/whole", headers=[("cookie", self.cookies[host])],
                          authority=f"{host}.localhost:{self.stand.port}").status == status


class World:
    """A user and an admin with all kinds of connections to two hosts that everybody with a login may enter."""

    def __init__(self):
        self.upstream = Speaker()
        self.stand = Stand(self.routes(), names=("lone.localhost",)).start()
        self.cookies = {}
        for email in (USER, ADMIN):
            browser = self.stand.browser()
            browser.login(self.stand.url("app", "/.pomerium/"), email, PASSWORD)
            browser.get(self.stand.url("other", "/.pomerium/"))
            self.cookies[email] = {host: browser.cookie(host) for host in ("app", "other")}

    def routes(self, app="allow_any_authenticated_user: true", without=()):
        """app: the rule of app.localhost."""
        return "".join(f"  - from: https://{host}.localhost:PORT\n    to: http://127.0.0.1:{self.upstream.port}\n"
                       f"    allow_websockets: true\n    timeout: 0s\n    {app if host == 'app' else 'allow_any_authenticated_user: true'}\n"
                       for host in ("app", "other") if host not in without)

    def open(self, email, host):
        return [Listener(self.stand, host, self.cookies[email][host], tunnel) for tunnel in (False, True)]

    def close(self):
        self.stand.stop()
        self.upstream.close()


@pytest.fixture
def world():
    w = World()
    yield w
    w.close()


def reload(world, routes):
    before = [len(applied(world, part)) for part in ("proxy", "authorize")]
    world.stand.write_config(routes)
    wait_for("the reload", lambda: all(len(applied(world, part)) > n for part, n in zip(("proxy", "authorize"), before)))


def applied(world, part):
    return [line for line in world.stand.logs(part) if line["event"] == "config.applied"]


def ends(world, n):
    """How the n streams and tunnels that are over ended."""
    lines = wait_for("the access lines", lambda: [found for found in [[
        line for line in world.stand.logs("proxy") if line.get("path") == "/stream"]] if len(found) >= n])[0]
    assert len(lines) == n
    return {line["response-code-details"] for line in lines}


def test_what_a_rule_now_denies_is_closed_and_nothing_else(world):
    denied = world.open(USER, "app")
    stays = world.open(ADMIN, "app") + world.open(USER, "other")
    both = Streams(world.stand, world.cookies[USER], ("app", "other"))
    admin = Streams(world.stand, world.cookies[ADMIN], ("app",))
    reload(world, world.routes(app="policy: [{allow: {and: [{email: {is: admin@example.com}}]}}]"))
    assert all(listener.is_cut() for listener in denied)
    assert both.is_cut("app")  # the stream, not its connection
    world.upstream.say()
    assert all(listener.hears() for listener in stays) and both.hears("other") and admin.hears("app")
    assert both.asks("other") and both.asks("app", 403) and admin.asks("app")
    assert ends(world, 3) == {"no-longer-allowed"}


def test_what_has_no_route_any_more_is_closed_and_nothing_else(world):
    gone = world.open(USER, "app") + world.open(ADMIN, "app")
    stays = world.open(USER, "other")
    both = Streams(world.stand, world.cookies[USER], ("app", "other"))
    reload(world, world.routes(without=("app",)))
    assert all(listener.is_cut() for listener in gone)
    assert both.is_cut("app")
    world.upstream.say()
    assert all(listener.hears() for listener in stays) and both.hears("other")
    assert both.asks("other") and both.asks("app", 404)
    assert ends(world, 5) == {"route-removed"}


def test_a_reload_that_changes_nothing_for_them_closes_nothing(world):
    stays = world.open(USER, "app") + world.open(ADMIN, "app")
    both = Streams(world.stand, world.cookies[USER], ("app", "other"))
    reload(world, world.routes() + "  - from: https://lone.localhost:PORT\n    to: http://127.0.0.1:1\n")
    reload(world, world.routes(app="policy: [{allow: {or: [{groups: {has: staff}}]}}]"))  # another rule, the same answer
    world.upstream.say()
    assert all(listener.hears() for listener in stays) and both.hears("app") and both.hears("other")
    assert both.asks("app") and both.asks("other")
