"""An authorize that does not hear from the databroker, or a proxy from it: what may stay open, and for how long."""

import json
import os
import signal
import socket
import ssl
import time

import pytest
from relay import Relay
from sanitize import PATIENCE
from stand import Stand, Upstream, receive
from trial import freeze, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"
TRUTH_S = 5  # readiness may lag behind the truth for so long
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    allow_websockets: true
    allow_any_authenticated_user: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UP
    allow_public_unauthenticated_access: true
"""


def raw(s):
    """Agrees to a WebSocket and then is silent; begins a stream and then is, too; answers anything else."""
    while head := s.recv(65536):
        if b"Upgrade: websocket" in head:
            s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
        elif head.startswith(b"GET /stream "):
            s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        else:
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture()
def world(request):
    """A stand whose last authorize hears of the databroker by a relay only."""
    upstream = Upstream(raw=raw)
    authorizes, bound = request.param
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), authorizes=authorizes, settings=f"databroker_max_staleness: {bound}\n")
    path = os.path.join(stand.folder, "relay.sock")
    relay = Relay(path, os.path.join(stand.folder, "databroker.sock"))
    stand.env[stand.authorizes[-1]] = {"DATABROKER_SERVICE_URL": "unix:" + path}
    try:
        yield stand.start(), relay
    finally:
        relay.held = False
        stand.stop()
        relay.close()
        upstream.close()


def enter(stand, email):
    browser = stand.browser()
    browser.login(stand.url("app"), email)
    assert browser.fetch(stand.url("app")).status_code == 200
    return browser


def connect(stand):
    context = ssl.create_default_context(cafile=stand.ca)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE), server_hostname="app.localhost")


def websocket(stand, browser):
    s = connect(stand)
    s.sendall(f"GET /ws HTTP/1.1\r\nHost: app.localhost:{stand.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
              f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie: {browser.cookie('app')}\r\n\r\n".encode())
    assert s.recv(65536).startswith(b"HTTP/1.1 101")
    return s


def ends(s):
    """Waits until it does."""
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def is_open(s):
    s.settimeout(0.05)
    try:
        return s.recv(1) != b""
    except TimeoutError:
        return True


def is_stale(stand):
    return [line for line in stand.logs(stand.authorizes[-1]) if line["event"] == "replica.stale"]


@pytest.mark.parametrize("world", [(1, "2s")], indirect=True)
def test_what_is_open_ends_when_nobody_can_vouch_for_it(world):
    stand, relay = world
    browser = enter(stand, USER)
    open_one = websocket(stand, browser)
    relay.held = True
    stand.cli("users", "revoke", USER)  # acknowledged without the one that hears nothing
    wait_for("the bound", lambda: browser.fetch(stand.url("app")).status_code == 503, 20 * PATIENCE)
    assert ends(open_one)
    relay.held = False
    wait_for("the news", lambda: browser.fetch(stand.url("app")).status_code != 503, 60 * PATIENCE)
    assert browser.fetch(stand.url("app")).status_code == 401


@pytest.mark.parametrize("world", [(2, "2s")], indirect=True)
def test_another_authorize_answers_in_place_of_one_that_is_cut_off(world):
    stand, relay = world
    stays, goes = enter(stand, ADMIN), enter(stand, USER)
    open_stays, open_goes = websocket(stand, stays), websocket(stand, goes)
    relay.held = True
    stand.cli("users", "revoke", USER)
    wait_for("the bound", lambda: is_stale(stand), 20 * PATIENCE)
    assert ends(open_goes)
    assert {goes.fetch(stand.url("app")).status_code for _ in range(20)} == {401}
    assert {stays.fetch(stand.url("app")).status_code for _ in range(20)} == {200}
    assert is_open(open_stays)


@pytest.mark.parametrize("world", [(1, "2s")], indirect=True)
@pytest.mark.parametrize("end", ["dies", "hangs"])
def test_what_is_open_ends_when_nobody_can_be_asked(world, end):
    stand, _ = world
    authorize = stand.processes["authorize"]
    open_one = websocket(stand, enter(stand, USER))
    if end == "dies":
        stand.kill("authorize")
    else:
        freeze(authorize)
    try:
        assert ends(open_one)
    finally:
        authorize.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("world", [(1, "60s")], indirect=True)
def test_what_is_open_outlives_an_authorize_that_comes_back(world):
    stand, _ = world
    browser = enter(stand, USER)
    open_one = websocket(stand, browser)
    stand.kill("authorize")
    wait_for("the loss", lambda: browser.fetch(stand.url("app")).status_code == 503, 20 * PATIENCE)
    stand.start_one("authorize")
    wait_for("the return", lambda: browser.fetch(stand.url("app")).status_code == 200, 60 * PATIENCE)
    assert is_open(open_one)
    stand.cli("users", "revoke", USER)
    open_one.settimeout(20 * PATIENCE)
    assert ends(open_one)


def open_stream(stand, browser):
    """A download that has begun and waits for more."""
    s = connect(stand)
    s.sendall(f"GET /stream HTTP/1.1\r\nHost: app.localhost:{stand.port}\r\nCookie: {browser.cookie('app')}\r\n\r\n".encode())
    got = b""
    while not got.endswith(b"5\r\nfirst\r\n"):
        got += receive(s)
    assert got.startswith(b"HTTP/1.1 200")
    return s


def why_not_ready(stand, daemon):
    """The reasons in its answer; empty: ready."""
    head, body = stand.health(daemon, "/readyz").split(b"\r\n\r\n", 1)
    reasons = [part["reason"] for part in json.loads(body)["parts"].values() if "reason" in part]
    assert head.startswith(b"HTTP/1.1 200" if not reasons else b"HTTP/1.1 503")
    return reasons


def served_until_refused(stand, browser):
    """What app answers, from 200 to the first refusal."""
    seen = []
    while not seen or seen[-1].status_code == 200:
        seen.append(browser.fetch(stand.url("app")))
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize("world", [(2, f"{4 * PATIENCE}s")], indirect=True)
def test_a_databroker_that_stands_still_is_served_without_for_so_long_and_no_longer(world):
    """It neither answers nor ends a connection: nothing but our own deadlines tell that nobody vouches for a session."""
    stand, _ = world
    browser, databroker = enter(stand, USER), stand.processes["databroker"]
    open_ones = [websocket(stand, browser), open_stream(stand, browser)]
    freeze(databroker)
    try:
        seen = served_until_refused(stand, browser)
        assert len(seen) > 1  # the last word is a second old: of the four, three are left
        wait_for("both to say so", lambda: all(why_not_ready(stand, a) for a in stand.authorizes), TRUTH_S)
        refused = [browser.fetch(stand.url("app")) for _ in range(20)]
        assert {r.status_code for r in refused} == {503}
        assert {r.json()["code"] for r in refused} == {"store-unavailable"}
        assert all(ends(s) for s in open_ones)
        assert browser.fetch(stand.url("public")).status_code == 200
        assert stand.browser().fetch(stand.url("app")).status_code == 401
        wait_for("authenticate to say so", lambda: why_not_ready(stand, "authenticate"), TRUTH_S)
        assert not why_not_ready(stand, "proxy")  # it answers, and what is public it serves
        with pytest.raises(TimeoutError):
            stand.health("databroker", "/readyz")
        nobody = stand.browser().login(stand.url("app"), ADMIN)
        assert nobody.status_code == 503 and "store-unavailable" in nobody.text, nobody.text
    finally:
        databroker.send_signal(signal.SIGCONT)
    wait_for("every part to be ready", lambda: not any(why_not_ready(stand, d) for d in stand.processes), TRUTH_S)
    assert browser.fetch(stand.url("app")).status_code == 200
    again = [websocket(stand, browser), open_stream(stand, browser)]
    enter(stand, ADMIN)
    stand.cli("users", "revoke", USER)
    assert all(ends(s) for s in again)
    assert browser.fetch(stand.url("app")).status_code == 401
