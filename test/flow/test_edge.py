"""The edge: who a client is said to be and who may say so."""

import socket
import ssl
import struct
import time

import pytest
from stand import Stand, header
from trial import wait_for

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def route(name, port, more="    allow_public_unauthenticated_access: true"):
    return f"  - from: https://{name}.localhost:PORT\n    to: http://127.0.0.1:{port}\n{more}\n"


def inside(address):
    """Only for visitors from there."""
    return f"    policy: [{{allow: {{or: [{{source_ip: {address}}}]}}}}]"


def make(upstream, settings="", **more):
    return Stand(route("app", upstream.port) + route("admin", upstream.port, inside("192.0.2.0/24")), settings=settings, **more)


def v1(client, family="TCP4"):
    return f"PROXY {family} {client} 127.0.0.1 4711 443\r\n".encode()


def v2(client, tlvs=b""):
    body = socket.inet_aton(client) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 4711, 443) + tlvs
    return V2 + b"\x21\x11" + struct.pack("!H", len(body)) + body


def talk(stand, first, head, source="127.0.0.1", pieces=None, host="app"):
    """Sends first in the clear, then a TLS handshake and a request; the answer, or b"" where it was closed."""
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10, source_address=(source, 0)) as s:
        for piece in pieces or [first]:
            s.sendall(piece)
            if pieces:
                time.sleep(0.02)
        try:
            if stand.tls:
                context = ssl.create_default_context(cafile=stand.ca)
                s = context.wrap_socket(s, server_hostname=f"{host}.localhost")
            s.sendall(f"GET /who HTTP/1.1\r\nHost: {host}.localhost:{stand.port}\r\nConnection: close\r\n{head}\r\n".encode())
            got = b""
            while True:
                more = s.recv(65536)
                if not more:
                    return got
                got += more
        except (ssl.SSLError, ConnectionError):
            return b""


def forwarded(upstream):
    return header(upstream.heads[-1], "X-Forwarded-For")


def last_ip(stand, upstream):
    """As the access line of the request tells that came to the upstream last; lines are gathered for a moment."""
    request = header(upstream.heads[-1], "X-Request-Id")[0]
    return wait_for("its access line", lambda: [line for line in stand.logs("proxy") if line["event"] == "http-request"
                                                and line["request-id"] == request])[0]["ip"]


NAMES = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "X-Envoy-External-Address",
         "X-Cluster-Client-IP", "Client-IP")


def spellings(name):
    return sorted({name, name.lower(), name.upper(), name.swapcase(), name.replace("-", "_"), name.lower().replace("-", "_")})


def test_nobody_is_believed_unless_listed(upstream):
    stand = make(upstream, "headers_with_underscores_action: allow\n").start()
    try:
        for name in NAMES:
            value = "for=192.0.2.66" if name == "Forwarded" else "192.0.2.66"
            for spelling in spellings(name):
                for lines in (f"{spelling}: {value}\r\n", f"{spelling}: {value}\r\n" * 3,
                              f"{spelling}: {value}, {value}\r\nConnection: {spelling}\r\n"):
                    seen = len(upstream.heads)
                    assert talk(stand, b"", lines, host="admin").startswith(b"HTTP/1.1 403"), spelling
                    assert len(upstream.heads) == seen
                    assert talk(stand, b"", lines).startswith(b"HTTP/1.1 200"), spelling
                    assert b"192.0.2.66" not in upstream.heads[-1], spelling
                    assert forwarded(upstream) == ["127.0.0.1"]
                    assert header(upstream.heads[-1], "X-Envoy-External-Address") == ["127.0.0.1"]
        assert {line["ip"] for line in stand.logs("proxy") if line["event"] == "http-request"} == {"127.0.0.1"}
        assert talk(stand, v1("192.0.2.66"), "") == b""
        assert talk(stand, v2("192.0.2.66"), "") == b""
    finally:
        stand.stop()


def test_a_trusted_proxy_says_who_the_client_is(upstream):
    stand = make(upstream, "trusted_proxies: [127.0.0.2, 10.0.0.0/8]\nheaders_with_underscores_action: allow\n").start()
    try:
        near = "127.0.0.2"
        for lines, client, chain in (
                ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 127.0.0.2"),
                ("X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 127.0.0.2"),
                ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7, 10.1.1.1\r\n", "192.0.2.7",
                 "192.0.2.7, 10.1.1.1, 127.0.0.2"),
                ("Connection: X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 127.0.0.2"),
                ("X-Forwarded-For: 192.0.2.7\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n",
                 "192.0.2.7", "192.0.2.7, 127.0.0.2")):
            assert talk(stand, b"", lines, near, host="admin").startswith(b"HTTP/1.1 200"), lines
            assert forwarded(upstream) == [chain], lines
            assert header(upstream.heads[-1], "X-Envoy-External-Address") == [client]
            assert b"6.6.6.6" not in upstream.heads[-1], lines
            assert last_ip(stand, upstream) == client
        # A visitor behind the proxy whose address is not the one that the rule wants, whatever he claims.
        assert talk(stand, b"", "X-Forwarded-For: 192.0.2.7, 203.0.113.9\r\n", near, host="admin").startswith(b"HTTP/1.1 403")
        # The proxy itself has no rights of a visitor.
        assert talk(stand, b"", "", near, host="admin").startswith(b"HTTP/1.1 403")
        seen = len(upstream.heads)
        for lie in ("unknown", "192.0.2.7 x", "192.0.2.300", "_secret", "fe80::1%eth0"):
            answer = talk(stand, b"", f"X-Forwarded-For: {lie}\r\n", near)
            assert answer.startswith(b"HTTP/1.1 400") and b"client-address-unclear" in answer, lie
        assert len(upstream.heads) == seen
        # Others are still nobody.
        assert talk(stand, b"", "X-Forwarded-For: 192.0.2.7\r\n", "127.0.0.3", host="admin").startswith(b"HTTP/1.1 403")
    finally:
        stand.stop()


@pytest.mark.parametrize("tls", [True, False])
def test_the_proxy_header_of_a_listed_balancer(upstream, tls):
    stand = make(upstream, "trusted_proxies: [127.0.0.2]\nuse_proxy_protocol: true\n", tls=tls).start()
    try:
        near = "127.0.0.2"
        for first in (v1("192.0.2.7"), v2("192.0.2.7"), v2("192.0.2.7", b"\x04\x00\x03abc" + b"\x05\x01\x00" + b"i" * 256)):
            assert talk(stand, first, "X-Forwarded-For: 6.6.6.6\r\n", near, host="admin").startswith(b"HTTP/1.1 200")
            assert forwarded(upstream) == ["192.0.2.7"] and last_ip(stand, upstream) == "192.0.2.7"
        for first in (v1("203.0.113.9"), v2("203.0.113.9"), b"PROXY UNKNOWN\r\n", V2 + b"\x20\x00\x00\x00", V2 + b"\x21\x00\x00\x00"):
            assert talk(stand, first, "X-Forwarded-For: 192.0.2.7\r\n" if first[:1] == b"P" else "", near,
                        host="admin").startswith(b"HTTP/1.1 403"), first
        assert talk(stand, b"PROXY UNKNOWN\r\n", "X-Forwarded-For: 192.0.2.7\r\n", near).startswith(b"HTTP/1.1 200")
        assert forwarded(upstream) == ["unknown"] and last_ip(stand, upstream) == "unknown"
        assert not header(upstream.heads[-1], "X-Envoy-External-Address")
        assert talk(stand, V2 + b"\x20\x00\x00\x00", "", near).startswith(b"HTTP/1.1 200")
        assert forwarded(upstream) == ["127.0.0.2"]
        # Byte by byte is as good as in one piece.
        for first in (v1("192.0.2.7"), v2("192.0.2.7")):
            pieces = [first[i:i + 1] for i in range(len(first))]
            assert talk(stand, None, "", near, pieces, host="admin").startswith(b"HTTP/1.1 200")
        # Without a header, with a wrong one, or with one too much: closed without a word.
        seen = len(upstream.heads)
        for first in (b"", v1("192.0.2.300"), b"PROXY TCP4 192.0.2.7 127.0.0.1 1\r\n", V2 + b"\x21\x11\xff\xff",
                      V2 + b"\x31\x11\x00\x0c" + b"x" * 12, b"PROXY TCP4 " + b"1" * 200):
            assert talk(stand, first, "", near) == b"", first
        assert not talk(stand, v1("192.0.2.7") * 2, "", near).startswith(b"HTTP/1.1 200")
        # From others it is garbage; without one they are welcome.
        for first in (v1("192.0.2.7"), v2("192.0.2.7")):
            assert not talk(stand, first, "", "127.0.0.3").startswith(b"HTTP/1.1 200")
        assert len(upstream.heads) == seen
        assert talk(stand, b"", "", "127.0.0.3").startswith(b"HTTP/1.1 200")
        assert forwarded(upstream) == ["127.0.0.3"]
        refused = [line for line in stand.logs("proxy") if line["event"] == "proxy-header.refused"]
        assert refused and all(line["peer"] == near for line in refused)
    finally:
        stand.stop()


def test_a_proxy_header_that_does_not_come_is_not_waited_for(upstream):
    stand = make(upstream, "trusted_proxies: [127.0.0.2]\nuse_proxy_protocol: true\n").start()
    try:
        with socket.create_connection(("127.0.0.1", stand.port), timeout=60, source_address=("127.0.0.2", 0)) as s:
            s.sendall(b"PROXY TCP4 192")
            assert s.recv(1) == b""
        assert any("in time" in line.get("reason", "") for line in stand.logs("proxy"))
    finally:
        stand.stop()


def test_trust_changes_with_the_configuration(upstream):
    stand = make(upstream).start()
    try:
        lines = "X-Forwarded-For: 192.0.2.7\r\n"
        assert talk(stand, b"", lines, "127.0.0.2", host="admin").startswith(b"HTTP/1.1 403")
        stand.settings = "trusted_proxies: [127.0.0.2]\n"
        stand.write_config()
        wait_for("the proxy to be listed",
                 lambda: talk(stand, b"", lines, "127.0.0.2", host="admin").startswith(b"HTTP/1.1 200"))
        assert talk(stand, b"", lines, "127.0.0.3", host="admin").startswith(b"HTTP/1.1 403")
    finally:
        stand.stop()


def is_open(stand, first=b"", source="127.0.0.1"):
    """A connection that stays open; None where it was closed."""
    s = socket.create_connection(("127.0.0.1", stand.port), timeout=10, source_address=(source, 0))
    try:
        s.sendall(first + f"GET /who HTTP/1.1\r\nHost: app.localhost:{stand.port}\r\n\r\n".encode())
        if s.recv(65536).startswith(b"HTTP/1.1 200"):
            return s
    except ConnectionError:
        pass
    s.close()
    return None


def test_an_address_has_so_many_connections_and_no_more(upstream):
    stand = make(upstream, "max_connections_per_address: 3\ntrusted_proxies: [127.0.0.2]\nuse_proxy_protocol: true\n", tls=False).start()
    try:
        open_ones = [is_open(stand) for _ in range(3)]
        assert all(open_ones) and is_open(stand) is None
        other = is_open(stand, source="127.0.0.3")
        assert other
        # A trusted proxy brings others: each of them has places of his own, the same as without it.
        balancer = [is_open(stand, v2(f"192.0.2.{i}"), "127.0.0.2") for i in range(1, 6)]
        assert all(balancer)
        open_ones += [is_open(stand, v1("192.0.2.9"), "127.0.0.2") for _ in range(3)]
        assert all(open_ones) and is_open(stand, v1("192.0.2.9"), "127.0.0.2") is None
        assert is_open(stand, v1("127.0.0.1"), "127.0.0.2") is None  # who is full himself
        local = [is_open(stand, V2 + b"\x20\x00\x00\x00", "127.0.0.2") for _ in range(5)]
        assert all(local)  # its own connections
        open_ones.pop(0).close()
        open_ones.append(wait_for("a place to be free", lambda: is_open(stand)))
        assert is_open(stand) is None
        full = [line for line in stand.logs("proxy") if line["event"] == "connections.full-for-address"]
        assert full and full[0]["peer"] == "127.0.0.1" and full[0]["max"] == 3
        stand.settings = "max_connections_per_address: 4\ntrusted_proxies: [127.0.0.2]\nuse_proxy_protocol: true\n"
        stand.write_config()
        open_ones.append(wait_for("another place", lambda: is_open(stand)))
        for s in (*open_ones, other, *balancer, *local):
            s.close()
    finally:
        stand.stop()


def lines_of(stand, daemon, event):
    return [line for line in stand.logs(daemon) if line["event"] == event]


def test_without_access_lines_every_decision_is_still_in_the_audit_lines(upstream):
    stand = make(upstream, "access_log: false\n").start()
    try:
        assert talk(stand, b"", "").startswith(b"HTTP/1.1 200")
        assert talk(stand, b"", "", host="admin").startswith(b"HTTP/1.1 403")
        # By request: one that is still open when authorize has news is checked once more.
        wait_for("both audit lines", lambda: list({line["request-id"]: line["decision"] for line in lines_of(
            stand, "authorize", "authorize check")}.values()) == ["allow", "deny"])
        stand.settings = "access_log: true\n"
        stand.write_config()
        wait_for("an access line", lambda: talk(stand, b"", "") and lines_of(stand, "proxy", "http-request"))
        assert {line["response-code"] for line in lines_of(stand, "proxy", "http-request")} == {200}
    finally:
        stand.stop()
