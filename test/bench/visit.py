"""One request of a small client of our own, where every byte of the answer is looked at."""

import socket
import ssl


class BadAnswer(OSError):
    """An answer that cannot be understood; an OSError, so that those who wait for a server wait on."""


def client_context(alpn=()):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def connect(scheme, port, name="localhost", context=None):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    if scheme == "https":
        s = (context or client_context()).wrap_socket(s, server_hostname=name)
    return s


def request_bytes(authority, path="/", headers=None, method="GET"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_answer(s):
    """(status, body, fields) of an answer that tells its length, as all here do."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(65536)
        if not more:
            raise BadAnswer(f"the connection ended after {data[:80]!r}")
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    fields = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
    length = int(fields.get("content-length", "-1"))
    if length < 0:
        raise BadAnswer(f"an answer without a length: {lines[0]}")
    while len(body) < length:
        more = s.recv(65536)
        if not more:
            raise BadAnswer("the body ended early")
        body += more
    return int(lines[0].split(" ")[1]), body, fields


def visit(scheme, port, authority, path="/", headers=None):
    """(status, body) of one request on a connection of its own."""
    with connect(scheme, port, authority.split(":")[0]) as s:
        s.sendall(request_bytes(authority, path, headers))
        return read_answer(s)[:2]


def ask(system, path="/"):
    return visit(system.scheme, system.port, system.authority, path, system.headers)


def speaks_h2(system):
    """By ALPN, as a browser would find out."""
    with connect(system.scheme, system.port, system.host, client_context(["h2", "http/1.1"])) as s:
        return s.selected_alpn_protocol() == "h2"
