"""A visitor who leaves before the answer is there: what was under way for him ends at once, wherever it stood."""

import signal
import socket
import ssl
import struct
import time

import pytest
from h2client import H2Client
from h2upstream import RawH2
from stand import Stand, Upstream, receive
from trial import freeze, wait_for

EVENT = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


class Patient(Upstream):
    """Takes a request, answers at most with the beginning of a stream, and notes when the proxy goes."""

    def __init__(self):
        self.began, self.left = [], []
        super().__init__(raw=self.wait)

    def wait(self, s):
        head = b""
        while b"\r\n\r\n" not in head:
            head += receive(s)
        path = head.split(b" ")[1].decode()
        self.began.append(path)
        try:
            if path.startswith("/events"):
                s.sendall(EVENT)
            s.recv(1)
        except ConnectionError:
            pass
        self.left.append(path)


@pytest.fixture(scope="module")
def patient():
    u = Patient()
    yield u
    u.close()


@pytest.fixture(scope="module")
def stand(patient):
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{patient.port}
    allow_public_unauthenticated_access: true
    timeout: 0s
    idle_timeout: 0s
""").start()
    yield s
    s.stop()


def ask(stand, path, more=b"", method="GET"):
    s = ssl.create_default_context(cafile=stand.ca).wrap_socket(
        socket.create_connection(("127.0.0.1", stand.port), 20), server_hostname="public.localhost")
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\n".encode() + more + b"\r\n")
    return s


def settled(s):
    """Takes the tickets, which unread would make a reset of the close."""
    s.settimeout(0.3)
    with pytest.raises(TimeoutError):
        s.recv(1)
    return s


def fin(s):
    s.close()


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def notify(s):
    """close_notify, and the socket stays open."""
    s.settimeout(0.2)
    try:
        s.unwrap()
    except (TimeoutError, ssl.SSLError, OSError):
        pass


def line_of(stand, path):
    return wait_for(f"the access line of {path}", lambda: [line for line in stand.logs("proxy") if line.get("path") == path])[0]


@pytest.mark.parametrize("how", [fin, reset, notify])
@pytest.mark.parametrize("kind", ["poll", "events"])
def test_a_client_of_http_1_leaves_while_the_upstream_is_silent(stand, patient, how, kind):
    path = f"/{kind}/1/{how.__name__}"
    s = ask(stand, path)
    if kind == "events":
        assert receive(s).startswith(b"HTTP/1.1 200")
    wait_for("the request to arrive", lambda: path in patient.began)
    how(s)
    wait_for("the upstream to be left", lambda: path in patient.left)
    assert line_of(stand, path)["response-code-details"] == "client-left"
    s.close()


def test_a_client_leaves_that_had_sent_a_body_and_a_next_request(stand, patient):
    s = ask(stand, "/poll/next", b"Content-Length: 3\r\n", "POST")
    s.sendall(b"abcGET /poll/never HTTP/1.1\r\nHost: public.localhost\r\n\r\n")
    wait_for("the request to arrive", lambda: "/poll/next" in patient.began)
    time.sleep(0.2)  # the second one waits behind it
    s.close()
    wait_for("the upstream to be left", lambda: "/poll/next" in patient.left)
    assert "/poll/never" not in patient.began


@pytest.mark.parametrize("whole", [False, True])
def test_a_client_of_http_2_leaves_while_the_upstream_is_silent(stand, patient, whole):
    path, stays = f"/poll/2/{whole}", f"/poll/2/stays/{whole}"
    c = H2Client(stand.port)
    sid = c.request(path=path)
    c.request(path=stays)
    wait_for("both to arrive", lambda: {path, stays} <= set(patient.began))
    if whole:
        c.socket.close()
    else:
        c.h2.reset_stream(sid, 8)
        c.flush()
    wait_for("the upstream to be left", lambda: path in patient.left)
    assert line_of(stand, path)["response-code-details"] == "client-left"
    if whole:
        wait_for("the other one, too", lambda: stays in patient.left)
    else:
        assert stays not in patient.left
        c.socket.close()


def test_a_client_leaves_during_the_check(stand, patient):
    before = len(patient.began)
    freeze(stand.processes["authorize"])
    try:
        fin(settled(ask(stand, "/check/1")))
        notify(settled(ask(stand, "/check/2")))
        c = H2Client(stand.port)
        c.h2.reset_stream(c.request(path="/check/3"), 8)
        c.flush()
        for path in ("/check/1", "/check/2", "/check/3"):
            line = line_of(stand, path)
            assert line["response-code-details"] == "client-left" and line["decision"] == "none"
    finally:
        stand.processes["authorize"].send_signal(signal.SIGCONT)
    after = ask(stand, "/poll/after")
    wait_for("what came after", lambda: "/poll/after" in patient.began)
    after.close()
    assert len(patient.began) == before + 1


def test_an_upstream_of_http_2_is_told_to_stop():
    began = []
    upstream = RawH2(lambda _, stream: began.append(stream))
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: h2c://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
    timeout: 0s
""").start()
    try:
        one = ask(s, "/poll")
        wait_for("the request to arrive", lambda: began)
        one.close()
        wait_for("the stream to be reset", lambda: upstream.resets == began)
    finally:
        s.stop()
        upstream.close()


def test_the_stream_of_a_client_that_leaves_is_the_next_ones():
    began = []
    u = RawH2(lambda s, sid: began.append(sid), settings={3: 2})  # two streams at once, and no answers
    s = Stand(f"""
  - from: http://public.localhost:PORT
    to: h2c://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
    circuit_breaker_thresholds: {{max_connections: 1}}
""", tls=False).start()
    c = H2Client(s.port, tls=False)  # all by one worker
    try:
        first = c.request("GET", "/first")
        wait_for("a connection that says how many streams it takes", lambda: began and u.acknowledged)
        rest = [c.request("GET", f"/{i}") for i in range(3)]
        wait_for("two streams", lambda: len(began) == 2)
        for left in (first, rest[0]):
            before = len(began)
            time.sleep(0.2)
            assert len(began) == before
            c.h2.reset_stream(left, 8)
            c.flush()
            wait_for("the next stream", lambda n=before: len(began) == n + 1, 5)
    finally:
        c.close()
        s.stop()
        u.close()


def test_who_waits_for_a_place_and_leaves_gives_it_up():
    upstream = Patient()
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
    timeout: 0s
    circuit_breaker_thresholds: {{max_connections: 1}}
""", tls=False).start()

    def plain(path):
        c = socket.create_connection(("127.0.0.1", s.port), 20)
        c.sendall(f"GET {path} HTTP/1.1\r\nHost: public.localhost:{s.port}\r\n\r\n".encode())
        return c

    try:
        # Each worker may always have one connection: some get it, the others wait.
        many = {f"/poll/{i}": plain(f"/poll/{i}") for i in range(16)}
        wait_for("a connection", lambda: upstream.began)
        time.sleep(0.5)
        waiting = set(many) - set(upstream.began)
        assert waiting
        for path in waiting:
            many[path].close()
        for path in waiting:
            line = line_of(s, path)
            assert line["response-code-details"] == "client-left" and line["duration-us"] < 8_000_000, line
        assert waiting.isdisjoint(upstream.began)
    finally:
        s.stop()
        upstream.close()
