"""What reaches the upstream, byte for byte, and what never does."""

import hashlib
import os
import socket
import ssl
import threading
import time

import pytest
from sanitize import PATIENCE, SAN
from stand import Stand, Upstream, header, raw_request, receive
from trial import program_of, wait_for

USER = "user@example.com"
CLAIMED = ["X-Pomerium-Claim-Email", "X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Groups", "X-Forwarded-For",
           "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", "X-Request-Id"]


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    allow_any_authenticated_user: true
    set_request_headers: {{X-Set: "yes"}}
    remove_request_headers: [X-Removed]
    set_response_headers: {{X-Answer: "set"}}
  - from: https://public.localhost:PORT
    prefix: /rewrite/
    prefix_rewrite: /new/
    to: http://127.0.0.1:{upstream.port}
    preserve_host_header: true
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    path: /moved
    redirect: {{host_redirect: public.localhost, path_redirect: /there, response_code: 308}}
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    path: /fixed
    response: {{status: 418, body: "short and stout"}}
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    regex: ^/item/[0-9]+$
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
    set_request_headers: {{X-Route: regex}}
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", settings="jwt_claims_headers: {X-Pomerium-Claim-Email: email}\n").start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def person(stand):
    b = stand.browser()
    assert b.login(stand.url("app"), USER).status_code == 200
    return b


def spellings(name):
    return {name, name.lower(), name.upper(), name.replace("-", "_"), name.lower().replace("-", "_"),
            name.swapcase(), name.replace("-", "_", 1)}


@pytest.mark.parametrize("host", ["app", "public"])
def test_headers_we_speak_for_cannot_be_smuggled(stand, upstream, person, host):
    context = ssl.create_default_context(cafile=stand.ca)
    for name in CLAIMED:
        for spelling in spellings(name):
            for connection in ("close", f"close, {spelling}"):
                head = (f"GET / HTTP/1.1\r\nHost: {host}.localhost:{stand.port}\r\nCookie: {person.cookie('app')}\r\n"
                        f"{spelling}: evil-value\r\nConnection: {connection}\r\n\r\n")
                seen = len(upstream.heads)
                answer = raw_request(stand.port, head.encode(), context, f"{host}.localhost")
                assert answer[:9] == b"HTTP/1.1 "
                for got in upstream.heads[seen:]:
                    assert b"evil-value" not in got, (spelling, connection)
                if b" 200 " in answer[:13] and host == "app":
                    assert header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion"), (spelling, connection)
                    assert header(upstream.heads[-1], "X-Pomerium-Claim-Email") == [USER]


def test_our_credentials_stay_and_foreign_ones_pass(stand, upstream, person):
    cookie = person.cookie("app")
    for given, expected in ((f"a=1; {cookie}; b=2", "a=1; b=2"), (f"{cookie}", None), (f"x=\"y z\"; {cookie}", "x=\"y z\"")):
        person.fetch(stand.url("app"), headers={"Cookie": given})
        got = header(upstream.heads[-1], "Cookie")
        assert got == ([expected] if expected else [])
        assert b"_pomerium" not in upstream.heads[-1]
    for value in ("Basic dXNlcjpwYXNz", "Bearer abc.def", "AWS4-HMAC-SHA256 Credential=x", "Negotiate abc=="):
        person.fetch(stand.url("app"), headers={"Authorization": value})
        assert header(upstream.heads[-1], "Authorization") == [value]
    for name, value in (("Authorization", "Pomerium secret-canary"), ("Authorization", "Bearer Pomerium-secret-canary"),
                        ("X-Pomerium-Authorization", "secret-canary")):
        seen = len(upstream.heads)
        person.fetch(stand.url("app"), headers={name: value})
        for got in upstream.heads[seen:]:
            assert b"secret-canary" not in got


def test_route_options(stand, upstream, person):
    answer = person.fetch(stand.url("app"), headers={"X-Removed": "x", "X-Set": "no"})
    assert header(upstream.heads[-1], "X-Set") == ["yes"] and not header(upstream.heads[-1], "X-Removed")
    assert answer.headers["X-Answer"] == "set"
    assert header(upstream.heads[-1], "Host") == [f"127.0.0.1:{upstream.port}"]
    assert header(upstream.heads[-1], "X-Forwarded-For") == ["127.0.0.1"]
    assert header(upstream.heads[-1], "X-Forwarded-Proto") == ["https"]
    person.fetch(stand.url("public", "/rewrite/a/b?c=d"))
    assert upstream.heads[-1].startswith(b"GET /new/a/b?c=d HTTP/1.1\r\n")
    assert header(upstream.heads[-1], "Host") == [f"public.localhost:{stand.port}"]
    moved = person.fetch(stand.url("public", "/moved"))
    assert moved.status_code == 308 and moved.headers["Location"].endswith("/there")
    fixed = person.fetch(stand.url("public", "/fixed"))
    assert fixed.status_code == 418 and fixed.text == "short and stout"
    person.fetch(stand.url("public", "/item/17"))
    assert header(upstream.heads[-1], "X-Route") == ["regex"]
    person.fetch(stand.url("public", "/item/x"))
    assert not header(upstream.heads[-1], "X-Route")


BAD = {
    "two lengths": b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked hidden by a tab": b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost: H\r\nX-A : b\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: H\r\nX-A: b\r\n c\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: H\n\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: H\r\nX-A: b\rc\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: H\r\nX-A: b\0c\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: H\r\nHost: other.localhost\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "authority against host": b"GET http://other.localhost/ HTTP/1.1\r\nHost: H\r\n\r\n",
    "odd chunk size": b"POST / HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: -1\r\n\r\n",
    "plus length": b"POST / HTTP/1.1\r\nHost: H\r\nContent-Length: +1\r\n\r\na",
    "encoded slash": b"GET /a%2fb HTTP/1.1\r\nHost: H\r\n\r\n",
    "encoded NUL": b"GET /a%00b HTTP/1.1\r\nHost: H\r\n\r\n",
    "backslash": b"GET /a\\b HTTP/1.1\r\nHost: H\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: H\r\n\r\n",
    "bad percent": b"GET /a%zz HTTP/1.1\r\nHost: H\r\n\r\n",
    "old version": b"GET / HTTP/0.9\r\nHost: H\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_ambiguous_requests_are_refused_and_the_connection_closed(stand, upstream, name):
    context = ssl.create_default_context(cafile=stand.ca)
    seen = len(upstream.heads)
    data = BAD[name].replace(b"Host: H", f"Host: public.localhost:{stand.port}".encode())
    follow = f"GET /smuggled HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\n\r\n".encode()
    answer = raw_request(stand.port, data + follow, context, "public.localhost", seconds=5)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 505"), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not any(b"smuggled" in head for head in upstream.heads[seen:])


def test_a_broken_head_after_a_good_request_tells_nothing_of_that(stand, person):
    """The person of the last request is not the person of the next: same connection, memory of the first given back."""
    context = ssl.create_default_context(cafile=stand.ca)
    host = f"Host: app.localhost:{stand.port}\r\n"
    seen = len(stand.logs("proxy"))
    data = f"GET / HTTP/1.1\r\n{host}Cookie: {person.cookie('app')}\r\n\r\nGET / HTTP/1.1\r\n{host}X-A : b\r\n\r\n"
    answer = raw_request(stand.port, data.encode(), context, seconds=5)
    assert answer.count(b"HTTP/1.1 200") == 1 and answer.count(b"HTTP/1.1 400") == 1
    line = wait_for("the access line", lambda: [x for x in stand.logs("proxy")[seen:] if x.get("response-code") == 400][-1:])[0]
    assert not {"user", "email", "route-id", "path"} & set(line), line


def test_limits_answer_with_their_own_status(stand):
    context = ssl.create_default_context(cafile=stand.ca)
    host = f"Host: public.localhost:{stand.port}\r\n".encode()
    long_line = b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + host + b"\r\n"
    assert raw_request(stand.port, long_line, context, "public.localhost", 5)[:12] == b"HTTP/1.1 414"
    big_head = b"GET / HTTP/1.1\r\n" + host + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 1000) for n in range(300)) + b"\r\n"
    assert raw_request(stand.port, big_head, context, "public.localhost", 5)[:12] == b"HTTP/1.1 431"


POST = b"POST / HTTP/1.1\r\nHost: HOST\r\n"
LIMITS = {
    "a head that does not come to its end": (b"GET / HTTP/1.1\r\nHost: HOST\r\nX", 408),
    "a body that does not come to its end": (POST + b"Content-Length: 10\r\n\r\nabc", 408),
    "more than 256 fields": (b"GET / HTTP/1.1\r\nHost: HOST\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "a chunk without a size": (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "an unknown expectation": (POST + b"Expect: tea\r\nContent-Length: 0\r\n\r\n", 417),
    "another version": (b"GET / HTTP/3.0\r\nHost: HOST\r\n\r\n", 505),
    "CONNECT": (b"CONNECT public.localhost:443 HTTP/1.1\r\nHost: public.localhost:443\r\n\r\n", 404),
}


def test_what_is_late_or_too_much_is_told_so_and_the_connection_ends():
    u = Upstream()
    stand = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
    idle_timeout: 1s
""", settings="timeout_read: 1s\n").start()
    try:
        context = ssl.create_default_context(cafile=stand.ca)
        for what, (data, status) in LIMITS.items():
            data = data.replace(b"HOST", b"public.localhost:%d" % stand.port)
            got = raw_request(stand.port, data, context, "public.localhost", 20 * PATIENCE)  # until the proxy closes
            assert got[:12] == b"HTTP/1.1 %d" % status, (what, got[:200])
            assert b"connection: close" in got.lower(), what
    finally:
        stand.stop()
        u.close()


def test_an_upstream_that_takes_no_body_is_504():
    def talk(s):
        s.recv(1024)
        time.sleep(20)
    u = Upstream(raw=talk)
    stand = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
    idle_timeout: 1s
""").start()
    try:
        context = ssl.create_default_context(cafile=stand.ca)
        s = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE), server_hostname="public.localhost")
        s.sendall(b"POST / HTTP/1.1\r\nHost: public.localhost:%d\r\nContent-Length: 100000000\r\n\r\n" % stand.port)
        got = b""

        def listen():
            nonlocal got
            got = s.recv(65536)
        listener = threading.Thread(target=listen)
        listener.start()
        try:
            while listener.is_alive():
                s.sendall(bytes(65536))
        except OSError:
            pass  # it hangs up
        listener.join(20 * PATIENCE)
        assert got[:12] == b"HTTP/1.1 504", got[:200]
        s.close()
    finally:
        stand.stop()
        u.close()


def test_a_path_cannot_slip_under_a_more_open_route():
    u = Upstream()
    s = Stand(f"""
  - from: https://public.localhost:PORT
    prefix: /admin
    to: http://127.0.0.1:{u.port}
    allow_any_authenticated_user: true
  - from: https://public.localhost:PORT
    regex: ^/(a+)+x$
    to: http://127.0.0.1:{u.port}
    allow_any_authenticated_user: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""").start()
    try:
        b = s.browser()
        assert b.fetch(s.url("public", "/other;x=1")).status_code == 200
        for path in ("/admin", "/admin/x", "/admin;x=1", "/admin;x=1/y", "/%61dmin", "/admin%3Bx", "/" + "a" * 60 + "!x"):
            seen = len(u.heads)
            assert b.fetch(s.url("public", path)).status_code in (400, 401), path
            assert len(u.heads) == seen, path
    finally:
        s.stop()
        u.close()


class Big:
    """An upstream that swallows an upload and gives a download of the same size, hashed."""

    def __init__(self, size):
        self.size, self.digest = size, None
        self.server = Upstream(raw=self.talk)
        self.block = os.urandom(1 << 20)

    def talk(self, s):
        data = b""
        while b"\r\n\r\n" not in data:
            data += receive(s)
        head, data = data.split(b"\r\n\r\n", 1)
        if head.startswith(b"PUT"):
            h, got = hashlib.sha256(data), len(data)
            while got < self.size:
                more = s.recv(1 << 18)
                if not more:
                    return
                h.update(more)
                got += len(more)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + h.hexdigest().encode())
        else:
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
            for _ in range(self.size // len(self.block)):
                s.sendall(self.block)


def test_two_gib_up_and_down_with_flat_memory():
    size = (256 << 20) if SAN else 2 << 30  # a sanitizer looks at every byte of it
    big = Big(size)
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{big.server.port}
    allow_public_unauthenticated_access: true
    timeout: 0s
""", tls=False).start()
    try:
        b = s.browser()
        b.fetch(s.url("public", "/ping"))
        idle, peak, done = s.rss_kib(), [0], threading.Event()

        def watch():
            while not done.wait(0.1):
                peak[0] = max(peak[0], s.rss_kib())
        threading.Thread(target=watch, daemon=True).start()
        h = hashlib.sha256()

        class Body:
            def __init__(self):
                self.left = size

            def __len__(self):
                return size

            def read(self, n):
                block = big.block[:min(n, self.left, len(big.block))]
                self.left -= len(block)
                h.update(block)
                return block
        answer = b.fetch(s.url("public"), "PUT", data=Body())
        assert answer.status_code == 200 and answer.text == h.hexdigest()
        got = 0
        with b.session.get(s.url("public"), stream=True, timeout=60) as down:
            for block in down.iter_content(1 << 20):
                got += len(block)
        assert got == size
        done.set()
        # ASan keeps what is freed for a while, TSan shadows what is touched: more, but far from the size
        assert peak[0] < idle + (96 if SAN else 16) * 1024, (idle, peak[0])
    finally:
        s.stop()
        big.server.close()


def test_expect_continue_trailers_and_1xx(stand, upstream):
    context = ssl.create_default_context(cafile=stand.ca)
    s = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 10), server_hostname="public.localhost")
    s.sendall(f"POST / HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
    assert s.recv(64).startswith(b"HTTP/1.1 100")
    s.sendall(b"hello")
    got = b""
    while b"\"body\": 5" not in got:
        more = s.recv(65536)
        assert more
        got += more
    assert b"HTTP/1.1 200" in got
    s.close()


def test_head_has_no_body_and_the_connection_lives_on(stand):
    context = ssl.create_default_context(cafile=stand.ca)
    host = f"Host: public.localhost:{stand.port}\r\n"
    data = f"HEAD /fixed HTTP/1.1\r\n{host}\r\nGET /fixed HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    answer = raw_request(stand.port, data.encode(), context, "public.localhost", 5)
    assert answer.count(b"HTTP/1.1 418") == 2 and answer.count(b"short and stout") == 1


@pytest.mark.parametrize("garbage", [b"not http at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                                     b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", b"", b"HTTP/1.1 200"])
def test_an_upstream_that_talks_nonsense_is_502(garbage):
    def talk(s):
        s.recv(65536)
        s.sendall(garbage)
    u = Upstream(raw=talk)
    s = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
""").start()
    try:
        assert s.browser().fetch(s.url("public")).status_code == 502
    finally:
        s.stop()
        u.close()


def test_slow_clients_hold_only_themselves(stand, person):
    context = ssl.create_default_context(cafile=stand.ca)
    slow = []
    for _ in range(200):
        s = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 10), server_hostname="public.localhost")
        s.sendall(b"GET / HTTP/1.1\r\nHost: pub")
        slow.append(s)
    for _ in range(20):
        assert person.fetch(stand.url("app")).status_code == 200
    for s in slow:
        s.close()
