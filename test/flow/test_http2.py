"""HTTP/2 with clients and upstreams: the same answers, the same rules, and nothing to hide behind."""

import json
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent import futures

import grpc
import hpack
import pytest
from h2client import H2Client
from h2upstream import RawH2, head_frame
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame
from sanitize import ANSWER_S
from stand import Stand, Upstream, header, make_certificate, receive
from trial import ROOT, wait_for

USER = "user@example.com"


class Grpc:
    """A gRPC server of raw bytes: all four shapes of a call."""

    def __init__(self):
        self.metadata = None
        handlers = grpc.method_handlers_generic_handler("test.Echo", {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(lambda r, c: iter([r] * 50)),
            "Up": grpc.stream_unary_rpc_method_handler(lambda it, c: b"".join(it)),
            "Both": grpc.stream_stream_rpc_method_handler(lambda it, c: it),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails)})
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((handlers,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def unary(self, request, context):
        self.metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-trailer", "told"),))
        return request

    def fails(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


@pytest.fixture(scope="module")
def server():
    s = Grpc()
    yield s
    s.server.stop(None)


@pytest.fixture(scope="module")
def nghttpd(tmp_path_factory):
    """A server of HTTP/2 that we did not write, with TLS and ALPN, echoing uploads."""
    folder = tmp_path_factory.mktemp("nghttpd")
    key, cert = make_certificate(str(folder), "backend.localhost")
    (folder / "h2").mkdir()
    (folder / "h2" / "file").write_bytes(os.urandom(3_000_000))
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    p = subprocess.Popen(["nghttpd", str(port), key, cert, "-d", str(folder), "--echo-upload", "--trailer", "x-end: yes"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("nghttpd", lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
    p.port, p.file = port, folder / "h2" / "file"
    yield p
    p.kill()
    p.wait()


@pytest.fixture(scope="module")
def stand(upstream, server, nghttpd):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    allow_websockets: true
    allow_any_authenticated_user: true
  - from: https://admin.localhost:PORT
    to: h2c://127.0.0.1:{server.port}
    policy: [{{allow: {{or: [{{groups: {{has: admins}}}}]}}}}]
  - from: https://public.localhost:PORT
    prefix: /test.Echo/
    to: h2c://127.0.0.1:{server.port}
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    prefix: /h2
    to: https://127.0.0.1:{nghttpd.port}
    tls_skip_verify: true
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""")
    s.start()
    yield s
    s.stop()


@pytest.fixture
def client(stand):
    c = H2Client(stand.port)
    yield c
    c.close()


def cookie_of(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER, stand.accounts()[USER])
    return "; ".join(f"{c.name}={c.value}" for c in b.session.cookies
                     if c.domain.startswith("app") and not c.name.endswith("_login"))


def head_of(answer):
    return json.loads(answer.body)["head"].encode()


# ---- the same answers ------------------------------------------------------------------------------


def test_a_request_is_told_to_the_upstream_as_over_http_1(client, upstream):
    answer = client.get("/a?b=c", headers=[("x-one", "1"), ("accept", "*/*")])
    head = head_of(answer)
    assert answer.status == 200 and head.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert header(head, "X-One") == ["1"] and len(header(head, "X-Forwarded-For")) == 1
    assert header(head, "X-Forwarded-Proto") == ["https"] and header(head, "Transfer-Encoding") == []


def test_an_identity_travels_and_our_cookie_does_not(stand):
    c = H2Client(stand.port, "app.localhost")
    crumbs = [("cookie", "a=1")] + [("cookie", x) for x in cookie_of(stand).split("; ")] + [("cookie", "b=2")]
    head = head_of(c.get(headers=crumbs))
    assert len(header(head, "X-Pomerium-Jwt-Assertion")) == 1
    assert header(head, "Cookie") == ["a=1; b=2"]
    c.close()


def test_refusals_have_their_forms(stand):
    c = H2Client(stand.port, "app.localhost")
    page = c.get(headers=[("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")])
    assert page.status == 302 and "/.pomerium/sign_in?" in page.headers["location"]
    assert c.get(headers=[("accept", "application/json")]).status == 401
    assert c.get("/x", headers=[], authority=f"nobody.localhost:{stand.port}").status in (404, 421)
    c.close()


@pytest.mark.parametrize("size", [0, 1, 16384, 65535, 65536, 1_000_000])
def test_bodies_of_all_sizes_pass(client, upstream, size):
    body = os.urandom(size)
    for headers in ([], [("content-length", str(size))]):
        answer = client.answer(client.request("POST", "/up", headers, body))
        told = json.loads(answer.body)
        length = header(told["head"].encode(), "Content-Length")
        assert answer.status == 200
        if length:
            assert told["body"] == size


def test_bodies_pass_both_ways_over_http_2_upstreams(client, nghttpd):
    assert client.get("/h2/file").body == nghttpd.file.read_bytes()
    body = os.urandom(300_000)
    assert client.answer(client.request("POST", "/h2/echo", body=body)).body == body


def test_http_1_clients_reach_http_2_upstreams(stand, nghttpd):
    answer = stand.browser().fetch(stand.url("public", "/h2/file"))
    assert answer.content == nghttpd.file.read_bytes()


def test_trailers_pass_both_ways(client):
    seen = []
    u = Upstream(raw=lambda s: (seen.append(read_until(s, b"x-late: yes\r\n\r\n")), s.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")))
    with stand_for(f"http://127.0.0.1:{u.port}") as s:
        c = H2Client(s.port)
        answer = c.answer(c.request("POST", "/t", body=b"abc", trailers=[("x-late", "yes")]))
        assert (answer.status, answer.body, answer.trailers) == (200, b"ok", {"x-sum": "7"})
        assert seen[0].endswith(b"\r\n3\r\nabc\r\n0\r\nx-late: yes\r\n\r\n")
        lie = c.answer(c.request("POST", "/t", body=b"abc", trailers=[("x-pomerium-claim-email", "root")]))
        assert lie.status == 400 and len(seen) == 1
        c.close()
    u.close()
    assert client.get("/h2/file").trailers == {"x-end": "yes"}


def read_until(s, end):
    data = b""
    while end not in data:
        data += receive(s)
    return data


def test_many_streams_share_a_connection_and_a_slow_one_holds_only_itself(stand):
    gate = threading.Event()

    def answer(head, body):
        if b"GET /slow" in head:
            gate.wait(20)
        return Upstream.tell(head, body)
    u = Upstream(answer=answer)
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""")
    s.start()
    c = H2Client(s.port)
    slow = [c.request(path="/slow") for _ in range(5)]
    fast = [c.request(path=f"/{i}") for i in range(60)]
    for i, sid in enumerate(fast):
        assert json.loads(c.answer(sid).body)["head"].startswith(f"GET /{i} ")
    assert not any(c.answers[sid].ended for sid in slow)
    gate.set()
    assert all(c.answer(sid).status == 200 for sid in slow)
    c.close()
    s.stop()
    u.close()


def test_a_client_that_does_not_read_holds_only_its_stream(client):
    client.manual = True  # no window updates: the first stream stops at 64 KiB, of the connection too
    sid = client.request(path="/h2/file")
    client.until(lambda: len(client.answers[sid].body) >= 65535)
    client.h2.increment_flow_control_window(1_000_000)
    client.flush()
    other = client.get("/other")
    assert other.status == 200 and not client.answers[sid].ended


# ---- gRPC --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def channel(stand):
    with open(stand.ca, "rb") as f:
        credentials = grpc.ssl_channel_credentials(f.read())
    options = (("grpc.ssl_target_name_override", "public.localhost"),
               ("grpc.default_authority", f"public.localhost:{stand.port}"))
    with grpc.secure_channel(f"127.0.0.1:{stand.port}", credentials, options) as c:
        yield c


def test_grpc_passes_in_all_four_shapes(channel, server):
    call = channel.unary_unary("/test.Echo/Unary")
    answer, details = call.with_call(b"x" * 200_000, metadata=(("x-meta", "m"), ("x-bin-bin", b"\x00\xff")), timeout=ANSWER_S)
    assert answer == b"x" * 200_000 and ("x-trailer", "told") in details.trailing_metadata()
    assert server.metadata["x-meta"] == "m" and server.metadata["x-bin-bin"] == b"\x00\xff"
    assert list(channel.unary_stream("/test.Echo/Down")(b"d", timeout=ANSWER_S)) == [b"d"] * 50
    assert channel.stream_unary("/test.Echo/Up")(iter([b"a", b"b", b"c"]), timeout=ANSWER_S) == b"abc"
    gate = threading.Semaphore(1)
    got = []

    def turns():
        for i in range(20):  # the next message waits for the echo of the one before
            gate.acquire()
            yield str(i).encode()
    for message in channel.stream_stream("/test.Echo/Both")(turns(), timeout=ANSWER_S):
        got.append(message)
        gate.release()
    assert got == [str(i).encode() for i in range(20)]


def test_grpc_errors_and_refusals_are_grpcs_own(channel, stand):
    with pytest.raises(grpc.RpcError) as e:
        channel.unary_unary("/test.Echo/Fails")(b"", timeout=ANSWER_S)
    assert (e.value.code(), e.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")
    with open(stand.ca, "rb") as f:
        credentials = grpc.ssl_channel_credentials(f.read())
    with grpc.secure_channel(f"127.0.0.1:{stand.port}", credentials, (
            ("grpc.ssl_target_name_override", "admin.localhost"),
            ("grpc.default_authority", f"admin.localhost:{stand.port}"))) as admin:
        with pytest.raises(grpc.RpcError) as e:
            admin.unary_unary("/test.Echo/Unary")(b"", timeout=ANSWER_S)
    assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED


# ---- WebSockets (RFC 8441) -----------------------------------------------------------------------------


def test_a_websocket_opens_over_a_stream(stand):
    seen = {}

    def echo(s):
        seen["head"] = read_until(s, b"\r\n\r\n")
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
        data = s.recv(65536)
        while data:
            s.sendall(data)
            data = s.recv(65536)
        s.sendall(b"bye")
    u = Upstream(raw=echo)
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_websockets: true
    prefix: /ws
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""")
    s.start()
    c = H2Client(s.port)
    c.until(lambda: c.settings.get(8) == 1)  # SETTINGS_ENABLE_CONNECT_PROTOCOL
    more = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "https://public.localhost")]
    sid = c.request("CONNECT", "/ws?x", more, end=False, protocol="websocket")
    answer = c.answers[sid]
    c.until(lambda: answer.headers)
    assert answer.status == 200 and answer.headers["sec-websocket-protocol"] == "chat"
    assert "sec-websocket-accept" not in answer.headers and "upgrade" not in answer.headers
    assert seen["head"].startswith(b"GET /ws?x HTTP/1.1\r\n") and len(header(seen["head"], "Sec-WebSocket-Key")[0]) == 24
    for i in range(5):
        c.send(sid, b"frame%d" % i)
        c.until(lambda: answer.body.endswith(b"frame%d" % i))
    c.send(sid, b"", end=True)  # half-closed: what the upstream still says comes through
    assert c.answer(sid).body.endswith(b"frame4bye") and answer.reset is None
    refused = c.request("CONNECT", "/no", more, end=False, protocol="websocket")
    assert c.answer(refused).status == 403
    other = c.request("CONNECT", "/ws", [], end=False, protocol="connect-udp")
    assert c.answer(other).status >= 400
    c.close()
    s.stop()
    u.close()


def test_a_websocket_over_a_stream_is_open_when_its_upstream_has_switched_and_not_before():
    early = []

    def talk(s):
        path = read_until(s, b"\r\n\r\n").split(b" ")[1]
        if path != b"/early":
            s.sendall(b"HTTP/1.1 " + answers[path] + b"\r\n\r\n")
            return
        s.settimeout(0.3)
        with pytest.raises(TimeoutError):
            early.append(s.recv(65536))
        s.settimeout(None)
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
        s.sendall(receive(s).upper())
    answers = {b"/200": b"200 OK\r\nContent-Length: 0", b"/204": b"204 No Content", b"/206": b"206 Partial\r\nContent-Length: 0",
               b"/426": b"426 Upgrade Required\r\nContent-Length: 0", b"/302": b"302 Found\r\nContent-Length: 0",
               b"/other": b"101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp",
               b"/bare": b"101 Switching Protocols\r\nConnection: Upgrade"}
    u = Upstream(raw=talk)
    s = Stand(f"""
  - from: http://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_websockets: true
    allow_public_unauthenticated_access: true
""", tls=False).start()
    c = H2Client(s.port, tls=False)
    more = [("sec-websocket-version", "13")]
    told = {path: c.answer(c.request("CONNECT", path.decode(), more, end=False, protocol="websocket")).status for path in answers}
    assert told == {b"/200": 502, b"/204": 502, b"/206": 502, b"/426": 426, b"/302": 302, b"/other": 502, b"/bare": 502}
    sid = c.request("CONNECT", "/early", more, end=False, protocol="websocket")
    c.send(sid, b"hello")
    c.until(lambda: c.answers[sid].body)
    assert c.answers[sid].status == 200 and c.answers[sid].body == b"HELLO" and early == []
    # A length would promise a body, of which a WebSocket has none.
    assert c.answer(c.request("CONNECT", "/early", more + [("content-length", "5")], end=False, protocol="websocket")).status == 400
    c.close()
    s.stop()
    u.close()


def test_an_answer_without_a_body_is_whole_also_when_its_upstream_leaves_at_once():
    answers = {b"/304": b"304 Not Modified", b"/204": b"204 No Content", b"/302": b"302 Found\r\nContent-Length: 0",
               b"/200": b"200 OK\r\nConnection: close\r\nContent-Length: 0"}
    u = Upstream(raw=lambda s: s.sendall(b"HTTP/1.1 " + answers[read_until(s, b"\r\n\r\n").split(b" ")[1]] + b"\r\n\r\n"))
    s = Stand(f"""
  - from: http://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""", tls=False).start()
    c = H2Client(s.port, tls=False)
    for path in answers:
        for method, end in (("GET", True), ("HEAD", True), ("POST", False)):
            answer = c.answer(c.request(method, path.decode(), end=end))
            assert answer.status == int(path[1:]) and answer.reset in (None, 0), (path, method, answer.reset)
    c.close()
    s.stop()
    u.close()


def test_a_revoked_session_loses_its_streams(stand):
    c = H2Client(stand.port, "app.localhost")
    sid = c.request("POST", "/long", [("cookie", cookie_of(stand))], body=b"begin", end=False)
    other = H2Client(stand.port)
    pending = other.request("POST", "/public", body=b"begin", end=False)
    time.sleep(0.5)
    stand.cli("users", "revoke", USER)
    answer = c.answer(sid)
    assert answer.reset is not None or answer.status in (401, 403)
    other.send(pending, b"", end=True)
    assert other.answer(pending).status == 200
    c.close()
    other.close()


def test_a_host_of_another_certificate_is_misdirected():
    u = Upstream()
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
  - from: https://far.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""", more_certificates=["far.localhost"])
    s.start()
    c = H2Client(s.port, "public.localhost")
    assert c.get().status == 200
    assert c.get(authority=f"far.localhost:{s.port}").status == 421
    c.close()
    s.stop()
    u.close()


def test_a_stopping_proxy_says_goaway_and_ends_what_runs(upstream):
    gate = threading.Event()
    u = Upstream(answer=lambda head, body: (gate.wait(10), Upstream.tell(head, body))[1])
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""")
    s.start()
    c = H2Client(s.port)
    sid = c.request(path="/x")
    wait_for("the request at the upstream", lambda: u.heads)
    s.processes["proxy"].terminate()
    c.until(lambda: c.goaway is not None)
    gate.set()
    assert c.goaway == 0 and c.answer(sid).status == 200
    c.until(lambda: c.closed)
    s.stop()
    u.close()


# ---- upstreams that misbehave ----------------------------------------------------------------------------


@pytest.mark.parametrize("name,frames,status", [
    ("reset", lambda sid: RstStreamFrame(sid, error_code=2).serialize(), 502),
    ("garbage", lambda sid: b"HTTP/1.1 200 OK\r\n\r\n", 502),
    ("goaway", lambda sid: b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", 0, 2), 502),
    ("no-status", lambda sid: b"\x00\x00\x01\x01\x05" + struct.pack(">I", sid) + b"\x90", 502),
    ("connection-field", lambda sid: head_frame(sid, [(":status", "200"), ("connection", "close")]), 502),
    ("two-lengths", lambda sid: head_frame(sid, [(":status", "200"), ("content-length", "1"), ("content-length", "2")]), 502),
    ("newline", lambda sid: head_frame(sid, [(":status", "200"), ("x", "a\r\nset-cookie: b")]), 502),
    ("101", lambda sid: head_frame(sid, [(":status", "101")]), 502),
])
def test_a_broken_answer_of_an_http_2_upstream_is_502(name, frames, status):
    u = RawH2(lambda s, sid: s.sendall(frames(sid)))
    with stand_for(f"h2c://127.0.0.1:{u.port}") as s:
        assert s.browser().fetch(s.url("public")).status_code == status
        c = H2Client(s.port)
        assert c.get().status == status
        c.close()
    u.close()


def test_a_refused_stream_is_asked_again_and_a_cut_answer_is_cut():
    turns = []

    def answer(s, sid):
        turns.append(sid)
        if len(turns) == 1:
            s.sendall(RstStreamFrame(sid, error_code=7).serialize())
        elif len(turns) == 2:
            s.sendall(head_frame(sid, [(":status", "200")]))
        else:
            s.sendall(HeadersFrame(sid, hpack.Encoder().encode([(":status", "200"), ("content-length", "10")]),
                                   flags=["END_HEADERS"]).serialize() + DataFrame(sid, b"12345").serialize() +
                      RstStreamFrame(sid, error_code=2).serialize())
    u = RawH2(answer)
    with stand_for(f"h2c://127.0.0.1:{u.port}") as s:
        c = H2Client(s.port)
        assert c.answer(c.request("POST", "/once", end=True)).status == 200 and len(turns) == 2
        cut = c.get("/cut")
        assert cut.reset is not None and b"12345".startswith(cut.body)
        c.close()
    u.close()


class stand_for:
    def __init__(self, to):
        self.stand = Stand(f"""
  - from: https://public.localhost:PORT
    to: {to}
    allow_public_unauthenticated_access: true
""")

    def __enter__(self):
        return self.stand.start()

    def __exit__(self, *error):
        self.stand.stop()


class Cold(RawH2):
    """Answers when told to, and counts how many requests are open on each connection. alpn: behind TLS."""

    def __init__(self, settings=None, alpn=None, tmp=None, quick=False):
        self.open_on, self.most, self.waiting, self.quick = {}, 0, [], quick
        self.lock, self.context = threading.Lock(), None
        if alpn:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            key, cert = make_certificate(str(tmp), "backend.localhost")
            self.context.load_cert_chain(cert, key)
            self.context.set_alpn_protocols([alpn])
        super().__init__(self.take_request, settings)

    def talk(self, s):
        if self.context:
            s = self.context.wrap_socket(s, server_side=True)
        if self.context and s.selected_alpn_protocol() == "http/1.1":
            head = b""
            while b"\r\n\r\n" not in head:
                head += receive(s)
            self.take_request(s, 1)
            s.recv(1)
        else:
            super().talk(s)

    def take_request(self, s, sid):
        with self.lock:
            self.open_on[s] = self.open_on.get(s, 0) + 1
            self.most = max(self.most, self.open_on[s])
            self.waiting.append((s, sid))
        if self.quick:
            self.let_go()

    def let_go(self):
        with self.lock:
            waiting, self.waiting = self.waiting, []
            for s, sid in waiting:
                self.open_on[s] -= 1
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if self.context and s.selected_alpn_protocol() == "http/1.1"
                          else head_frame(sid, [(":status", "200")]))


def at_once(stand, n):
    """n requests in one piece, which all come to one worker; the client and its streams."""
    c = H2Client(stand.port)
    return c, [c.request(path=f"/{i}") for i in range(n)]


@pytest.mark.parametrize("alpn", [None, "h2"])
@pytest.mark.parametrize("most, connections", [(100, 1), (16, 4)])
def test_many_requests_at_once_share_the_first_connection_to_a_cold_upstream(tmp_path, alpn, most, connections):
    u = Cold({3: most}, alpn, tmp_path)
    to = f"https://127.0.0.1:{u.port}\n    tls_skip_verify: true" if alpn else f"h2c://127.0.0.1:{u.port}"
    with stand_for(to) as s:
        c, sids = at_once(s, 64)
        for _ in range(2):  # cold, then warm
            wait_for("all of them", lambda: len(u.waiting) == 64)
            u.let_go()
            assert all(c.answer(sid).status == 200 for sid in sids[-64:])
            sids += [c.request(path="/again") for _ in range(64)]
        assert u.connections == connections and u.most <= most and not u.resets
        c.close()
    u.close()


def test_requests_at_once_to_an_upstream_of_http_1_do_not_wait_for_each_other(tmp_path):
    u = Cold(None, "http/1.1", tmp_path)
    with stand_for(f"https://127.0.0.1:{u.port}\n    tls_skip_verify: true") as s:
        c, sids = at_once(s, 16)
        wait_for("all of them", lambda: len(u.waiting) == 16)
        u.let_go()
        assert all(c.answer(sid).status == 200 for sid in sids)
        c.close()
        assert u.connections == 16
    u.close()


def test_the_first_connection_breaks_or_its_visitor_leaves_and_the_others_go_on():
    class Late(Cold):
        """The first connection is closed before a word; the second says its SETTINGS when told to."""

        def greet(self, s):
            if self.connections == 1:
                raise OSError
            self.gate.wait(20)
            super().greet(s)

    Late.gate = threading.Event()
    u = Late(quick=True)
    with stand_for(f"h2c://127.0.0.1:{u.port}") as s:
        c, sids = at_once(s, 8)
        wait_for("another connection", lambda: u.connections > 1)
        u.gate.set()
        assert sum(c.answer(sid).status == 200 for sid in sids) >= 7  # the first one's may be lost
        c.close()
        leaver = H2Client(s.port)
        leaver.h2.reset_stream(leaver.request(path="/left"), 8)
        leaver.flush()
        assert leaver.get("/stays").status == 200
        leaver.close()
    u.close()


def test_who_waits_for_a_first_connection_that_hangs_is_told_so():
    class Mute(Cold):
        def talk(self, s):
            while s.recv(65536):
                pass

    u = Mute()
    with stand_for(f"h2c://127.0.0.1:{u.port}") as s:
        c, sids = at_once(s, 4)
        assert {c.answer(sid).status for sid in sids[1:]} == {502}
        lines = wait_for("the access lines", lambda: [line for line in s.logs("proxy") if line.get("response-code") == 502])
        assert {line["response-code-details"] for line in lines} == {"connecting to the upstream took too long"}
        c.close()
    u.close()


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("codec", ["http1", "http2", "auto"])
def test_a_listener_speaks_what_codec_type_says(upstream, codec, tls):
    stand = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", settings=f"codec_type: {codec}\n", tls=tls).start()

    def curl(*version):
        """(status, version) of the answer."""
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", *version, "--cacert", stand.ca,
                               "--resolve", f"public.localhost:{stand.port}:127.0.0.1", stand.url("public")],
                              capture_output=True, text=True, timeout=30)
        return done.stdout
    try:
        two = "--http2" if tls else "--http2-prior-knowledge"
        old, new = "200 1.1", "200 2"
        refused = "000 0" if tls else "505 1.1"  # no protocol in common
        assert {"http1": [old], "http2": [refused], "auto": [old]}[codec] == [curl("--http1.1")]
        if codec == "http1" and not tls:
            assert not curl(two).startswith("200")
        else:
            assert curl(two) == {"http1": old, "http2": new, "auto": new}[codec]
        # Without ALPN a client of TLS means HTTP/1.1.
        assert curl("--http1.1", "--no-alpn") == ("505 1.1" if codec == "http2" else old)
    finally:
        stand.stop()


def test_h2spec_passes():
    done = subprocess.run([os.path.join(ROOT, "test/support/h2spec.sh")], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("h2spec cannot be built here: " + done.stderr.strip().splitlines()[-1])
    u = Upstream()
    s = Stand(f"""
  - from: https://127.0.0.1:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""")
    s.start()
    out = subprocess.run([done.stdout.strip(), "-h", "127.0.0.1", "-p", str(s.port), "-t", "-k", "-o", "5",
                          "generic", "http2", "hpack"], capture_output=True, text=True)
    s.stop()
    u.close()
    last = re.search(r"(\d+) tests, (\d+) passed, \d+ skipped, (\d+) failed", out.stdout)
    assert last and last.group(3) == "0" and int(last.group(2)) >= 140, out.stdout[out.stdout.find("Failures"):]
