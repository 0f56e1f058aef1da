"""Upstreams of all kinds: several, slow, over TLS, with upgrades, early hints and trailers."""

import base64
import socket
import ssl
import threading
import time

import pytest
import websocket
from h2client import H2Client
from sanitize import ANSWER_S
from stand import Stand, Upstream, header, make_certificate, raw_request, receive
from trial import wait_for


def public(port_or_url, more=""):
    url = port_or_url if isinstance(port_or_url, str) else f"http://127.0.0.1:{port_or_url}"
    return f"""
  - from: https://public.localhost:PORT
    to: {url}
    allow_public_unauthenticated_access: true
{more}
"""


class Running:
    """A stand with its upstreams, for one test."""

    def __init__(self, routes, upstreams=(), **kwargs):
        self.stand, self.upstreams = Stand(routes, **kwargs), upstreams

    def __enter__(self):
        return self.stand.start()

    def __exit__(self, *error):
        self.stand.stop()
        for u in self.upstreams:
            u.close()


def test_several_upstreams_take_turns():
    ups = [Upstream(), Upstream()]
    with Running(public(f"[{', '.join(f'http://127.0.0.1:{u.port}' for u in ups)}]"), ups) as stand:
        b = stand.browser()
        for _ in range(20):
            assert b.fetch(stand.url("public")).status_code == 200
        counts = [len(u.heads) for u in ups]
        assert min(counts) >= 5, counts


def test_connections_are_kept_and_used_again():
    u = Upstream()
    with Running(public(u.port), [u]) as stand:
        b = stand.browser()
        for _ in range(30):
            assert b.fetch(stand.url("public")).status_code == 200
        assert u.connections <= 4


def test_a_closed_pooled_connection_is_no_error():
    u = Upstream(raw=lambda s: (s.recv(65536), s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
    with Running(public(u.port), [u]) as stand:
        b = stand.browser()
        for _ in range(20):
            assert b.fetch(stand.url("public")).text == "ok"


def test_a_slow_upstream_is_504_and_holds_only_its_own():
    slow = Upstream(raw=lambda s: time.sleep(8))
    fast = Upstream()
    routes = public(slow.port, "    prefix: /slow\n    timeout: 1s\n") + public(fast.port)
    with Running(routes, [slow, fast]) as stand:
        answers = []
        waiting = [threading.Thread(target=lambda: answers.append(stand.browser().fetch(stand.url("public", "/slow")).status_code))
                   for _ in range(20)]
        for t in waiting:
            t.start()
        b = stand.browser()
        for _ in range(50):
            assert b.fetch(stand.url("public")).status_code == 200
        for t in waiting:
            t.join()
        assert answers == [504] * 20


def test_nobody_listens_is_502():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with Running(public(port)) as stand:
        assert stand.browser().fetch(stand.url("public")).status_code == 502


class TlsUpstream(Upstream):
    def __init__(self, folder_stand=None, name="backend.localhost"):
        import tempfile
        self.key, self.cert = make_certificate(tempfile.mkdtemp(prefix="postern-up-"), name)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.cert, self.key)
        super().__init__(raw=self.talk)

    def talk(self, plain):
        try:
            s = self.context.wrap_socket(plain, server_side=True)
        except (ssl.SSLError, OSError):
            return
        data = s.recv(65536)
        while data:
            self.heads.append(data.split(b"\r\n\r\n")[0])
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntls")
            data = s.recv(65536)


def test_tls_upstreams_are_verified():
    u = TlsUpstream()
    url = f"https://127.0.0.1:{u.port}"
    cases = {
        "untrusted": ("", 502),
        "trusted": (f"    tls_custom_ca_file: {u.cert}\n    tls_upstream_server_name: backend.localhost\n", 200),
        "inline": (f"    tls_custom_ca: {base64.b64encode(open(u.cert, 'rb').read()).decode()}\n"
                   "    tls_upstream_server_name: backend.localhost\n", 200),
        "wrong-name": (f"    tls_custom_ca_file: {u.cert}\n    tls_upstream_server_name: other.localhost\n", 502),
        "skip": ("    tls_skip_verify: true\n", 200),
    }
    routes = "".join(public(url, f"    prefix: /{name}\n{more}") for name, (more, _) in cases.items())
    with Running(routes, [u]) as stand:
        for name, (_, status) in cases.items():
            assert stand.browser().fetch(stand.url("public", f"/{name}")).status_code == status, name


def certificate_for(stand, name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port)), server_hostname=name) as s:
        return ssl.DER_cert_to_PEM_cert(s.getpeercert(True))


def test_each_name_gets_its_own_certificate():
    u = Upstream()
    with Running(public(u.port), [u], more_certificates=("second.localhost", "third.localhost")) as stand:
        shown = {name: certificate_for(stand, name) for name in
                 ("public.localhost", "second.localhost", "THIRD.localhost", "unknown.localhost")}
        assert len({shown[n] for n in ("public.localhost", "second.localhost", "THIRD.localhost")}) == 3
        assert shown["unknown.localhost"] == shown["public.localhost"]
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=stand.ca)
            context.minimum_version = context.maximum_version = version
            head = f"GET / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\nConnection: close\r\n\r\n"
            assert b" 200 " in raw_request(stand.port, head.encode(), context, "public.localhost")[:13]
        old = ssl.create_default_context(cafile=stand.ca)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            raw_request(stand.port, b"x", old, "public.localhost")


def test_head_is_asked_as_head_and_its_length_promises_no_body():
    u = Upstream(lambda head, body: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + (b"" if head.startswith(b"HEAD") else b"hello"))
    with Running(public(u.port), [u]) as stand:
        context = ssl.create_default_context(cafile=stand.ca)
        host = f"Host: public.localhost:{stand.port}\r\n"
        data = f"HEAD / HTTP/1.1\r\n{host}\r\nGET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        got = raw_request(stand.port, data.encode(), context, "public.localhost", 20)
        first, _, rest = got.partition(b"\r\n\r\n")
        assert b"content-length: 5" in first.lower() and rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"hello")
        assert [head.split(b" ")[0] for head in u.heads] == [b"HEAD", b"GET"] and u.connections == 1


def test_early_hints_and_trailers_pass():
    def talk(s):
        s.recv(65536)
        s.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
        s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
        time.sleep(1)
    u = Upstream(raw=talk)
    with Running(public(u.port), [u]) as stand:
        context = ssl.create_default_context(cafile=stand.ca)
        head = f"GET / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\nConnection: close\r\n\r\n"
        got = raw_request(stand.port, head.encode(), context, "public.localhost", 5)
    hints, _, rest = got.partition(b"\r\n\r\n")
    assert hints.startswith(b"HTTP/1.1 103") and b"link: </a>" in hints.lower()
    assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"0\r\nX-Sum: 7\r\n\r\n")


def taker_of_chunks(seen, answer):
    """An upstream that keeps a chunked request whole, says 200 with this behind it, and closes."""
    def talk(s):
        data = b""
        while b"0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
            data += receive(s)
        seen.append(data)
        s.sendall(b"HTTP/1.1 200 OK\r\n" + answer)
        s.close()
    return Upstream(raw=talk)


def test_request_trailers_reach_the_upstream():
    seen = []
    u = taker_of_chunks(seen, b"Content-Length: 0\r\n\r\n")
    with Running(public(u.port), [u]) as stand:
        context = ssl.create_default_context(cafile=stand.ca)
        data = (f"POST / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Check: yes\r\n\r\n")
        assert b" 200 " in raw_request(stand.port, data.encode(), context, "public.localhost", 5)[:13]
    assert seen[0].endswith(b"0\r\nX-Check: yes\r\n\r\n")


def test_rules_about_headers_hold_for_trailers():
    seen = []
    u = taker_of_chunks(seen, b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Shown: theirs\r\nX-Sum: 7\r\n\r\n")
    more = ("    set_request_headers: {X-Tenant: ours}\n    remove_request_headers: [X-Gone]\n"
            "    set_response_headers: {X-Shown: ours}\n")
    with Running(public(u.port, more), [u]) as stand:
        context = ssl.create_default_context(cafile=stand.ca)
        data = (f"POST / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n0\r\nx-tenant: theirs\r\nX.Gone: 1\r\nX-Kept: 1\r\n\r\n")
        got = raw_request(stand.port, data.encode(), context, "public.localhost", 5)
        c = H2Client(stand.port)
        answer = c.answer(c.request("POST", "/", trailers=[("x-tenant", "theirs"), ("x-gone", "1"), ("x-kept", "1")]))
        c.close()
    assert got.endswith(b"0\r\nX-Sum: 7\r\n\r\n") and answer.trailers == {"x-sum": "7"}
    for data in seen:
        assert data.count(b"X-Tenant: ours\r\n") == 1 and b"theirs" not in data and b"gone" not in data.lower()
        assert data.lower().endswith(b"0\r\nx-kept: 1\r\n\r\n")
    assert len(seen) == 2


def test_upgrades_only_where_the_route_allows_them():
    u = Upstream()
    with Running(public(u.port), [u]) as stand:
        seen = len(u.heads)
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(f"wss://127.0.0.1:{stand.port}/", host=f"public.localhost:{stand.port}", timeout=ANSWER_S,
                                        sslopt={"ca_certs": stand.ca, "server_hostname": "public.localhost", "check_hostname": False})
        assert refused.value.status_code == 403 and len(u.heads) == seen


def test_an_upgrade_may_have_a_body_and_switches_behind_it():
    """Docker's exec: a POST of JSON that becomes a terminal."""
    def talk(s):
        data = receive(s)
        if b"/early" not in data:
            while b"{}" not in data or (b"chunked" in data and not data.endswith(b"0\r\n\r\n")):
                data += receive(s)  # all of it: who switches earlier is refused
        s.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst")
        while data := receive(s):
            s.sendall(data.upper())
    u = Upstream(raw=talk)
    with Running(public(u.port, "    allow_upgrades: [tcp]\n"), [u], tls=False) as stand:
        head = "POST {} HTTP/1.1\r\nHost: public.localhost:%d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{}\r\n\r\n" % stand.port
        for framing, body in (("Content-Length: 2", b"{}"), ("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n")):
            with socket.create_connection(("127.0.0.1", stand.port), ANSWER_S) as s:
                s.sendall(head.format("/", framing).encode())
                s.sendall(body + b"hello")  # who is sure of the answer says more at once
                got = b""
                while not got.endswith(b"firstHELLO"):
                    got += receive(s)
                assert got.startswith(b"HTTP/1.1 101 "), got
            early = raw_request(stand.port, head.format("/early", framing).encode() + body[:1], seconds=ANSWER_S)
            assert early.startswith(b"HTTP/1.1 502 ") and b"upgrade-without-request" in early


def test_a_101_that_nobody_asked_for_is_502():
    u = Upstream(raw=lambda s: (s.recv(65536), s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")))
    with Running(public(u.port), [u]) as stand:
        assert stand.browser().fetch(stand.url("public")).status_code == 502


def test_wrong_passwords_are_slowed_down_for_account_and_address():
    u = Upstream()
    routes = f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_any_authenticated_user: true
"""
    with Running(routes, [u]) as stand:
        statuses = []
        for _ in range(40):
            page = stand.browser().login(stand.url("app"), "user@example.com", "wrong")
            statuses.append(page.status_code)
            if page.status_code == 429:
                break
        assert statuses[-1] == 429 and statuses[0] == 401, statuses
        # Also the right password must wait now: guessing gains nothing.
        assert stand.browser().login(stand.url("app"), "user@example.com").status_code == 429
        # Nor does trying a new account each time: the address must wait as well, sooner or later.
        others = [stand.browser().login(stand.url("app"), f"stranger-{n}@example.com", "wrong").status_code for n in range(20)]
        assert others[0] == 401 and others[-1] == 429 and set(others) == {401, 429}, others


def test_environment_overrides_the_file(monkeypatch):
    u = Upstream()
    monkeypatch.setenv("SET_RESPONSE_HEADERS", '{"X-From-Environment": "yes"}')
    with Running(public(u.port), [u]) as stand:
        assert stand.browser().fetch(stand.url("public")).headers["X-From-Environment"] == "yes"
