"""Upstreams and clients that break off at every point, lie and babble: what was cut never looks whole, no connection is
used again after doubt, nothing is left over, and whoever comes next is served."""

import base64
import collections
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time

import hpack
import pytest
from h2client import H2Client
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame
from sanitize import PATIENCE
from stand import Stand, Upstream, receive
from trial import ROOT, freeze, wait_for


def connect(stand, data=b""):
    s = socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE)
    s.sendall(data)
    return s


def reset(s):
    """Closes with a RST: the peer's next read fails."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def get(path, more=b"Connection: close\r\n"):
    return b"GET %b HTTP/1.1\r\nHost: public.localhost:PORT\r\n%b\r\n" % (path, more)


def ask(stand, data):
    """One exchange of HTTP/1; all bytes that came."""
    got = b""
    with connect(stand, data.replace(b"PORT", b"%d" % stand.port)) as s:
        try:
            while more := s.recv(65536):
                got += more
        except ConnectionError:
            pass
    return got


def whole(got):
    """(status, body) of the first final answer if it is complete, else None; and what stands behind it."""
    while got.startswith(b"HTTP/1.1 1"):
        got = got.partition(b"\r\n\r\n")[2]
    head, blank, rest = got.partition(b"\r\n\r\n")
    if not blank:
        return None, got
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    status = int(head[9:12])
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while True:
            size, blank, rest = rest.partition(b"\r\n")
            n = int(size, 16) if blank else -1
            if n == 0:  # what stands in the trailers is not of interest
                last, blank, rest = (b"\r\n" + rest).partition(b"\r\n\r\n")
                return ((status, body), rest) if blank else (None, last)
            if n < 0 or len(rest) < n + 2:
                return None, rest
            body, rest = body + rest[:n], rest[n + 2:]
    n = int(fields.get(b"content-length", b"0"))
    return ((status, rest[:n]), rest[n:]) if len(rest) >= n else (None, rest)


class Script(Upstream):
    """An upstream that does what play(socket, path) says to each connection's first request; of /fine it is no part."""

    def __init__(self, play):
        self.play, self.second = play, 0
        super().__init__(raw=self.talk)

    def talk(self, s):
        data = b""
        while b"\r\n\r\n" not in data:
            data += receive(s)
        path = data.split(b" ", 2)[1]
        if path == b"/fine":
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
            return
        self.play(s, path)
        try:
            s.settimeout(0.2)
            self.second += s.recv(1) != b""  # a second request, where none must come
        except OSError:
            pass


class Scene:
    """A stand in front of scripts: {prefix: (upstream, scheme)}."""

    def __init__(self, upstreams, settings="", more="", tls=False):
        self.upstreams = upstreams
        self.stand = Stand("".join(f"""
  - from: http{'s' if tls else ''}://public.localhost:PORT
    prefix: {prefix}
    to: {scheme}://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
{more}
""" for prefix, (u, scheme) in upstreams.items()), settings, tls=tls)

    def __enter__(self):
        return self.stand.start()

    def __exit__(self, *error):
        self.stand.stop()
        for u, _ in self.upstreams.values():
            u.close()


# ---- upstreams that break off ------------------------------------------------------------------------------

ANSWERS = {
    b"length": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world",
    b"chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello, \r\n5\r\nworld\r\n0\r\nX-End: 1\r\n\r\n",
    b"hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world",
}


def cut_script():
    def play(s, path):
        _, name, at, how = path[1:].split(b"/")
        s.sendall(ANSWERS[name][:int(at)])
        if how == b"reset":
            reset(s)
        else:
            s.shutdown(socket.SHUT_WR)
    return Script(play)


def h2_frames(sid):
    encoder = hpack.Encoder()
    head = encoder.encode([(":status", "200"), ("content-type", "text/plain")])
    return (HeadersFrame(sid, head, flags=["END_HEADERS"]).serialize() + DataFrame(sid, b"hello, ").serialize() +
            DataFrame(sid, b"world").serialize() + HeadersFrame(sid, encoder.encode([("x-end", "1")]),
                                                                flags=["END_HEADERS", "END_STREAM"]).serialize())


class CutH2(Upstream):
    """Speaks HTTP/2 by hand, and breaks off its answer to each stream where the path says so."""

    def __init__(self):
        super().__init__(raw=self.talk)

    def talk(self, s):
        decoder, buffer = hpack.Decoder(), b""
        s.sendall(SettingsFrame(0).serialize())
        while len(buffer) < 24:
            buffer += receive(s)
        buffer = buffer[24:]
        while True:
            while len(buffer) < 9 or len(buffer) < 9 + int.from_bytes(buffer[:3], "big"):
                buffer += receive(s)
            size, kind, sid = int.from_bytes(buffer[:3], "big"), buffer[3], int.from_bytes(buffer[5:9], "big")
            block, buffer = buffer[9:9 + size], buffer[9 + size:]
            if kind == 1:
                path = dict(decoder.decode(block))[":path"]
                at, how = path.split("/")[3:5]
                s.sendall(h2_frames(sid)[:int(at)])
                if int(at) < len(h2_frames(sid)):
                    if how == "reset":
                        reset(s)
                    return


@pytest.fixture(scope="module")
def breaking():
    scene = Scene({"/h2": (CutH2(), "h2c"), "/": (cut_script(), "http")})
    with scene as stand:
        stand.scripts = scene.upstreams
        yield stand


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_http_1_cut_anywhere_never_looks_whole(breaking, name, how):
    before = breaking.fds()
    c = H2Client(breaking.port, tls=False)
    n = len(ANSWERS[name])
    for at in range(n + 1):
        path = "/cut/%s/%d/%s" % (name.decode(), at, how)
        got, _ = whole(ask(breaking, get(path.encode())))
        answer = c.get(path)
        if at == n and how == "end":
            assert got == (200, b"hello, world") and (answer.status, answer.body, answer.reset) == (200, b"hello, world", None)
        elif at < n:
            assert got is None or got[0] == 502, (at, got)
            assert answer.status == 502 or answer.reset is not None, (at, answer.status, answer.body)
            assert b"hello, world".startswith(answer.body) or answer.status == 502
    c.close()
    assert breaking.scripts["/"][0].second == 0
    wait_for("the connections to be gone", lambda: breaking.fds() <= before + 2)


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_answer_of_http_2_cut_anywhere_never_looks_whole(breaking, how):
    before = breaking.fds()
    c = H2Client(breaking.port, tls=False)
    n = len(h2_frames(1))
    for at in range(n):
        path = "/h2/x/%d/%s" % (at, how)
        got, _ = whole(ask(breaking, get(path.encode())))
        answer = c.get(path)
        assert got is None or got[0] == 502, (at, got)
        assert answer.status == 502 or answer.reset is not None, (at, answer.status, answer.body)
    answer = c.get("/h2/x/10000/end")
    assert (answer.body, answer.trailers) == (b"hello, world", {"x-end": "1"})
    c.close()
    wait_for("the connections to be gone", lambda: breaking.fds() <= before + 3)  # one is kept: its last answer was good


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_upstream_that_leaves_during_the_request_body(how):
    """With an answer before that or without: what it said comes through, and the rest of the body goes nowhere."""
    body = os.urandom(200_000)

    def play(s, path):
        answers, at = path[1:].split(b"/")
        got = 0
        while got < int(at):
            got += len(receive(s))
        if answers == b"answers":
            s.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        if answers == b"answers":  # a reset, also for what is not read, may overtake the answer
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        elif how == "reset":
            reset(s)
        else:
            s.shutdown(socket.SHUT_WR)
    script = Script(play)
    with Scene({"/": (script, "http")}) as stand:
        before = stand.fds()
        c = H2Client(stand.port, tls=False)
        for framing in ("length", "chunked"):
            for at in (0, 1, 1000, 65536, 100_000):
                for said, expected in (("answers", 413), ("silent", 502)):
                    head = b"POST /%b/%d HTTP/1.1\r\nHost: public.localhost:PORT\r\n" % (said.encode(), at)
                    data = (head + b"Content-Length: %d\r\n\r\n" % len(body) + body if framing == "length" else
                            head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
                    got = upload(stand, data)
                    assert got.startswith(b"HTTP/1.1 %d " % expected), (framing, at, said, got[:200])
                    more = [("content-length", str(len(body)))] if framing == "length" else []
                    assert upload_h2(c, f"/{said}/{at}", more, body) == expected, (framing, at, said)
                    assert whole(ask(stand, get(b"/fine")))[0] == (200, b"fine")
        c.close()
        wait_for("the connections to be gone", lambda: stand.fds() <= before + 2)


def upload(stand, data):
    """Sends from a thread, because the answer comes before the end."""
    s = connect(stand)
    data = data.replace(b"PORT", b"%d" % stand.port, 1)

    def send():
        try:
            s.sendall(data)
        except OSError:
            pass
    t = threading.Thread(target=send)
    t.start()
    got = b""
    try:
        while b"\r\n\r\n" not in got:
            got += receive(s)
    finally:
        t.join(20 * PATIENCE)
        s.close()
    return got


def upload_h2(c, path, headers, body):
    """The status, whether the body was wanted to its end or not."""
    sid = c.request("POST", path, headers, end=False)
    answer = c.answers[sid]
    at = 0
    while not answer.ended and at < len(body):
        n = min(c.h2.local_flow_control_window(sid), c.h2.max_outbound_frame_size, len(body) - at)
        if n == 0:
            c.read_once()
            continue
        c.h2.send_data(sid, body[at:at + n], end_stream=at + n == len(body))
        at += n
        c.flush()
        c.socket.settimeout(0.001)
        try:
            c.read_once()
        except TimeoutError:
            pass
        c.socket.settimeout(20 * PATIENCE)
    c.until(lambda: answer.ended)
    return answer.status


# ---- upstreams that lie and babble ----------------------------------------------------------------------------

PLANTED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nSet-Cookie: planted=1\r\n\r\nplante"

LIES = {
    "more than its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + PLANTED, (200, b"ok")),
    "a second answer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + PLANTED, (200, b"ok")),
    "a body with 204": (b"HTTP/1.1 204 No Content\r\n\r\n" + PLANTED, (204, b"")),
    "a body with 304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok" + PLANTED, None),
    "less than its length": (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", None),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok" + PLANTED, (502,)),
    "length and chunks": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + PLANTED, (502,)),
    "a coding it does not have": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok" + PLANTED, (502,)),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok" + PLANTED, (502,)),
    "an odd chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n" + PLANTED, None),
    "a line that is split": (b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: planted=1\r\nContent-Length: 2\r\n\r\nok", (502,)),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", (502,)),
    "no status": (b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok", (502,)),
    "a strange status": (b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nok", (502,)),
    "HTTP/2 unasked": (SettingsFrame(0).serialize() + b"\r\n\r\n", (502,)),
    "TLS unasked": (b"\x15\x03\x01\x00\x02\x02\x50\r\n\r\n", (502,)),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, (502,)),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, (502,)),
    "too many fields": (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"\r\n", (502,)),
    "a storm of 1xx": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000, (502,)),
    "a storm of 100": (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, (502,)),
    "a switch that nobody asked for": (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + PLANTED, (502,)),
    "garbage": (os.urandom(4096).replace(b"\n", b"") + b"\r\n\r\n", (502,)),
}


@pytest.fixture(scope="module")
def lying():
    scene = Scene({"/": (Script(lambda s, path: s.sendall(list(LIES.values())[int(path[1:])][0])), "http")})
    with scene as stand:
        stand.script = scene.upstreams["/"][0]
        yield stand


@pytest.mark.parametrize("name", LIES)
def test_a_lying_upstream_harms_only_its_own_answer(lying, name):
    path, expected = "/%d" % list(LIES).index(name), LIES[name][1]
    got = ask(lying, get(path.encode(), b"") + get(b"/fine"))
    first, rest = whole(got)
    c = H2Client(lying.port, tls=False)
    answer = c.get(path)
    c.close()
    assert b"plante" not in got and b"plante" not in answer.body
    if expected is None:  # begun, then cut; or without a body that anybody could take for one
        assert first is None or first[0] == 304 or first[0] == 502, first
        assert answer.reset is not None or answer.status in (304, 502)
    else:
        assert first is not None and first[:len(expected)] == expected, (first, expected)
        assert (answer.status, answer.body)[:len(expected)] == expected
        assert whole(rest)[0] == (200, b"fine"), rest
    assert got.count(b"HTTP/1.1 103") <= 16
    assert lying.script.second == 0


def test_what_goes_before_an_answer_can_neither_frame_it_nor_log_anybody_in():
    hints = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
             b"Connection: close\r\nSet-Cookie: __Host-_pomerium=planted\r\n\r\n")
    u = Script(lambda s, path: s.sendall((hints if path == b"/odd" else hints.replace(b"Transfer-Encoding: chunked\r\n", b"")) +
                                         b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    with Scene({"/": (u, "http")}) as stand:
        for path in (b"/odd", b"/x"):
            got = ask(stand, get(path))
            if b" 103 " in got:
                early = got.split(b"\r\n\r\n")[0].lower()
                assert b"link: </a>" in early
                for name in (b"content-length", b"transfer-encoding", b"connection", b"set-cookie"):
                    assert name not in early, early
                assert whole(got)[0] == (200, b"ok")
            else:
                assert whole(got)[0][0] == 502
        c = H2Client(stand.port, tls=False)
        answer = c.get("/x")
        assert answer.status == 200 and set(answer.interim[0]) == {":status", "link"}
        c.close()


def responses():
    with open(os.path.join(ROOT, "../shared/corpora/http/llhttp_cases.json"), encoding="utf-8") as f:
        return [base64.b64decode(c["input_b64"]) for c in json.load(f)["cases"] if c["meta"].get("type", "").startswith("response")]


def test_every_response_of_the_corpora_is_one_answer_or_an_error():
    told = responses()
    u = Script(lambda s, path: (s.sendall(told[int(path[1:])]), s.shutdown(socket.SHUT_WR)))
    statuses = collections.Counter()
    with Scene({"/": (u, "http")}) as stand:
        c = H2Client(stand.port, tls=False)
        for i in range(len(told)):
            first, rest = whole(ask(stand, get(b"/%d" % i)))
            assert rest == b"" or first is None, (told[i], rest)
            statuses[first and first[0]] += 1
            answer = c.get(f"/{i}")
            assert first is None or answer.reset is not None or answer.status == first[0], told[i]
            assert whole(ask(stand, get(b"/fine")))[0] == (200, b"fine")
        c.close()
    assert len(told) == 85 and statuses[502] > 20 and statuses[200] > 5, statuses


def test_an_answer_before_the_request_ends_is_the_last_on_its_connection():
    """CL.0 at the upstream: the rest of the body would be read as a request there."""
    u = Script(lambda s, path: s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    with Scene({"/": (u, "http")}) as stand:
        for length in (b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"):
            s = connect(stand, (b"POST /x HTTP/1.1\r\nHost: public.localhost:%d\r\n" % stand.port) + length + b"\r\n")
            got = b""
            while b"ok" not in got:
                got += receive(s)
            try:
                s.sendall(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100)
                while s.recv(65536):
                    pass
            except ConnectionError:
                pass
            s.close()
            assert whole(ask(stand, get(b"/fine")))[0] == (200, b"fine")
        time.sleep(0.3)  # what the script waits for a second request
        assert u.second == 0


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nno", b"+OK\r\n", b""])
def test_what_a_kept_connection_says_unasked_harms_one_answer_at_most(unasked):
    """It speaks, or ends, just as the verdict comes in and the connection is taken for the next request. A turn later
    the bytes are an answer to that one, by all that HTTP/1 can tell."""
    kept = []

    def talk(s):
        kept.append(s)
        while receive(s):
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
    u = Upstream(raw=talk)
    with Scene({"/": (u, "http")}) as stand, connect(stand) as s:
        proxy, authorize = stand.processes["proxy"], stand.processes["authorize"]
        request = get(b"/", b"").replace(b"PORT", b"%d" % stand.port)
        s.sendall(request)
        assert whole(receive(s))[0] == (200, b"fine")
        try:
            freeze(authorize)
            s.sendall(request)
            time.sleep(0.3)  # the check is out
            freeze(proxy)
            authorize.send_signal(signal.SIGCONT)
            time.sleep(0.3)  # the verdict is in
            kept[0].sendall(unasked) if unasked else kept[0].shutdown(socket.SHUT_WR)
        finally:
            authorize.send_signal(signal.SIGCONT)
            proxy.send_signal(signal.SIGCONT)
        assert whole(receive(s))[0][0] in (200, 408, 502)
        assert whole(ask(stand, get(b"/")))[0] == (200, b"fine")


# ---- clients that leave -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def left():
    """An upstream that answers in four parts with a moment between them."""
    def talk(s):
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                data += receive(s)
            head, data = data.split(b"\r\n\r\n", 1)
            if b"hunked" in head:
                while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
                    data += receive(s)
                data = b""
            for part in (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 12\r\n\r\nhel", b"lo, wo", b"rld"):
                s.sendall(part)
                time.sleep(0.001)
    u = Upstream(raw=talk)
    scene = Scene({"/": (u, "http")}, more="    timeout: 5s")
    with scene as stand:
        assert whole(ask(stand, get(b"/")))[0] == (200, b"hello, world")
        yield stand


def idle_again(stand, before, memory):
    assert whole(ask(stand, get(b"/fine")))[0] == (200, b"hello, world")
    # Upstreams that were left in the middle end; those that were not are kept.
    wait_for("the descriptors of before", lambda: stand.fds() <= before + 8)
    assert stand.rss_kib() < 2 * memory


POST = (b"POST /p HTTP/1.1\r\nHost: public.localhost:%d\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-End: 1\r\n\r\n")


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["end", "reset"])
def test_a_client_of_http_1_leaves_at_every_byte(left, leave):
    before, memory, data = left.fds(), left.rss_kib(), POST % left.port
    for at in range(len(data) + 1):
        leave(connect(left, data[:at]))
    answer = len(ask(left, data.replace(b"Expect", b"Connection: close\r\nExpect")))
    for at in range(1, answer - len("Connection: close\r\n")):  # and at every point of the answer
        s = connect(left, data)
        while at > 0:
            at -= len(s.recv(at))
        leave(s)
    idle_again(left, before, memory)


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["end", "reset"])
def test_a_client_of_http_2_leaves_at_every_byte(left, leave):
    class Sink:
        def __init__(self):
            self.sent = b""

        def sendall(self, data):
            self.sent += data
    c = H2Client(left.port, tls=False)
    real, c.socket = c.socket, Sink()
    data = c.h2.data_to_send() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, {4: 1000}).serialize()
    data += c.raw_head(1, c.pseudo("POST", "/p"), end=False, pieces=[10, 10, 1000])
    data += DataFrame(1, b"hello").serialize() + DataFrame(1, b" world", flags=["END_STREAM"]).serialize()
    data += c.raw_head(3, c.pseudo()) + RstStreamFrame(3, error_code=8).serialize() + c.raw_head(5, c.pseudo())
    real.close()
    before, memory = left.fds(), left.rss_kib()
    for at in range(len(data) + 1):
        leave(connect(left, data[:at]))
    for n in range(1, 30):  # and after so many reads
        s = connect(left, data)
        for _ in range(n):
            s.recv(7)
        leave(s)
    idle_again(left, before, memory)


def test_a_client_leaves_at_every_byte_of_a_tls_handshake():
    u = Upstream()
    with Scene({"/": (u, "http")}, tls=True) as stand:
        context = ssl.create_default_context(cafile=stand.ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="public.localhost").do_handshake()
        hello, before, memory = hello.read(), stand.fds(), stand.rss_kib()
        for at in range(len(hello) + 1):
            (reset if at % 2 else socket.socket.close)(connect(stand, hello[:at]))
        assert stand.browser().fetch(stand.url("public")).status_code == 200
        wait_for("the descriptors of before", lambda: stand.fds() <= before + 2)
        assert stand.rss_kib() < 2 * memory
