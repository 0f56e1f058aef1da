"""Tunnels and long answers: what is half-closed drains, what streams is not cut by a clock that was meant for silence."""

import hashlib
import os
import socket
import ssl
import threading
import time

import pytest
from sanitize import PATIENCE
from stand import Stand, TlsClient, Upstream, read_all, receive
from trial import wait_for

UPGRADE = ("GET /tunnel HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
BULK = os.urandom(1 << 20) * 3


def route(port, more=""):
    return f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{port}
    allow_public_unauthenticated_access: true
    allow_websockets: true
{more}
"""


def agree(s):
    """The upstream's part of the upgrade."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += receive(s)
    s.sendall(AGREED)


class Plain:
    """A client without TLS, where half-closing is one system call."""

    def __init__(self, stand, name):
        self.s = socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE)
        self.sendall, self.recv, self.close = self.s.sendall, self.s.recv, self.s.close

    def half_close(self):
        self.s.shutdown(socket.SHUT_WR)


def tunnel(stand, client):
    c = client(stand, "public.localhost")
    c.sendall(UPGRADE.format(host=f"public.localhost:{stand.port}").encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(c)
    head, rest = data.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return c, rest


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def client(request):
    return TlsClient if request.param else Plain


def test_the_answer_to_a_half_closed_client_is_drained(client):
    got = []

    def talk(s):
        agree(s)
        got.append(read_all(s))
        s.sendall(BULK)  # begun only after the client's end
        s.close()
    u = Upstream(raw=talk)
    stand = Stand(route(u.port), tls=client is TlsClient).start()
    try:
        c, rest = tunnel(stand, client)
        c.sendall(BULK)
        c.half_close()
        assert hashlib.sha256(rest + read_all(c)).digest() == hashlib.sha256(BULK).digest()
        assert got == [BULK]
        c.close()
    finally:
        stand.stop()
        u.close()


def test_a_half_closed_upstream_still_hears_its_client(client):
    got = []

    def talk(s):
        agree(s)
        s.sendall(b"that is all")
        s.shutdown(socket.SHUT_WR)
        got.append(read_all(s))
    u = Upstream(raw=talk)
    stand = Stand(route(u.port), tls=client is TlsClient).start()
    try:
        c, rest = tunnel(stand, client)
        assert rest + read_all(c) == b"that is all"
        c.sendall(BULK)
        c.half_close()
        wait_for("the upstream to have all", lambda: got == [BULK])
        c.close()
    finally:
        stand.stop()
        u.close()


def test_a_half_closed_tunnel_where_nothing_moves_ends():
    ended = threading.Event()

    def talk(s):
        agree(s)
        s.settimeout(20 * PATIENCE)
        assert read_all(s) == b""
        while not ended.is_set():  # says nothing, closes nothing, notices when it is closed
            try:
                s.sendall(b"")
                time.sleep(0.05)
            except OSError:
                return
    u = Upstream(raw=talk)
    stand = Stand(route(u.port), settings="timeout_idle: 1s\n", tls=False).start()
    try:
        c, _ = tunnel(stand, Plain)
        c.half_close()
        assert c.recv(1) == b""  # the proxy's end, long before the client's own patience is over
        c.close()
    finally:
        ended.set()
        stand.stop()
        u.close()


def streams(head_after, pieces, every):
    def talk(s):
        while b"\r\n\r\n" not in receive(s):
            pass
        time.sleep(head_after)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(pieces):
            s.sendall(b"9\r\ndata: %d\n\n\r\n" % (i % 10))
            time.sleep(every)
        s.sendall(b"0\r\n\r\n")
    return talk


def test_the_default_timeout_is_for_the_beginning_of_an_answer():
    """As a person sees it: an event stream lives on, an upstream that never answers is a 504."""
    stream, silent = Upstream(raw=streams(0, 30, 0.1)), Upstream(raw=lambda s: time.sleep(30))
    quiet = Upstream(raw=streams(0, 2, 2))
    ordinary = "    allow_websockets: false\n"
    routes = "".join(route(port, f"    prefix: {prefix}\n{more}").replace("    allow_websockets: true\n", ordinary)
                     for port, prefix, more in ((stream.port, "/stream", ""), (silent.port, "/silent", ""),
                                                (stream.port, "/whole", "    timeout: 1s\n"),
                                                (stream.port, "/idle", "    idle_timeout: 50ms\n"),
                                                (quiet.port, "/quiet", ""),
                                                (quiet.port, "/endless", "    idle_timeout: 0s\n")))
    stand = Stand(routes, settings="default_upstream_timeout: 1s\ntimeout_idle: 1s\n").start()
    try:
        b = stand.browser()
        answer = b.fetch(stand.url("public", "/stream"))
        assert answer.status_code == 200 and answer.text.count("data: ") == 30
        for unhurried in ("/quiet", "/endless"):  # timeout_idle is for connections between two requests
            answer = b.fetch(stand.url("public", unhurried))
            assert answer.status_code == 200 and answer.text.count("data: ") == 2
        assert b.fetch(stand.url("public", "/silent")).status_code == 504
        for cut in ("/whole", "/idle"):
            with pytest.raises(OSError):  # the answer had begun: a cut is all that can be told
                b.fetch(stand.url("public", cut))
    finally:
        stand.stop()
        for u in (stream, silent, quiet):
            u.close()


def test_a_request_under_way_whose_session_ends_hears_so():
    """As long as the answer has not begun; what has begun is cut (test_load, test_trial)."""
    asked = threading.Event()

    def talk(s):
        s.recv(65536)
        asked.set()
        s.settimeout(60)
        assert s.recv(1) == b""  # the proxy lets go
    u = Upstream(raw=talk)
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_any_authenticated_user: true
""").start()
    try:
        b = stand.browser()
        b.login(stand.url("app", "/.pomerium/"), "user@example.com")
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(b.fetch(stand.url("app"))))
        waiting.start()
        assert asked.wait(20 * PATIENCE)
        stand.cli("users", "revoke", "user@example.com")
        waiting.join(20 * PATIENCE)
        assert answers and answers[0].status_code == 401
        assert answers[0].json()["request_id"] == answers[0].headers["x-request-id"]
    finally:
        stand.stop()
        u.close()
