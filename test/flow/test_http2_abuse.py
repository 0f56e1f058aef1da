"""Hostile clients of HTTP/2: smuggling into HTTP/1, floods, what never ends. The oracle is what the upstream
received, what others feel, and how much memory it takes."""

import re
import socket
import ssl
import struct
import threading
import time

import pytest
from h2client import H2Client
from hyperframe.frame import (ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)
from sanitize import SAN
from stand import Stand, receive
from trial import PATIENCE


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
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


SMUGGLED = [
    [("transfer-encoding", "chunked")], [("connection", "close")], [("upgrade", "h2c")], [("keep-alive", "1")],
    [("proxy-connection", "x")], [("te", "gzip")], [("content-length", "0"), ("content-length", "5")],
    [("content-length", "+1")], [("host", "admin.localhost")], [("x", "a\r\nx-pomerium-claim-email: root")],
    [("x\r\ny", "1")], [("x y", "1")], [("x:", "1")], [("", "1")], [("x", "a\x00b")], [("X-Upper", "1")],
    [(":path", "/other")], [(":authority", "admin.localhost")], [(":unknown", "x")], [("x_pomerium_claim_email", "root")],
]


@pytest.mark.parametrize("fields", SMUGGLED, ids=lambda f: repr(f[0]))
def test_what_http_1_could_misread_never_reaches_it(client, upstream, fields):
    before = len(upstream.heads)
    sid = client.h2.get_next_available_stream_id()
    client.socket.sendall(client.raw_head(sid, client.pseudo(path="/smuggle") + fields))
    read_answer(client, sid)
    assert len(upstream.heads) == before, upstream.heads[-1]


def read_answer(client, sid):
    """The frames until the stream is answered, reset, or the connection ends: hyper-h2 does not know it."""
    data = b""
    client.socket.settimeout(5 * PATIENCE)
    while not has_answer(data, sid):
        more = client.socket.recv(65536)
        if not more:
            break
        data += more
    time.sleep(0.1)  # what goes the wrong way would be at the upstream by now
    return data


def has_answer(data, sid):
    """Whether a RST_STREAM, a GOAWAY or the end of the stream is in these frames."""
    at = 0
    while len(data) - at >= 9:
        size, kind, flags = int.from_bytes(data[at:at + 3], "big"), data[at + 3], data[at + 4]
        stream = int.from_bytes(data[at + 5:at + 9], "big")
        if kind == 7 or (stream == sid and (kind == 3 or (kind in (0, 1) and flags & 1))):
            return True
        at += 9 + size
    return False


@pytest.mark.parametrize("pseudo", [
    [(":method", "GET"), (":scheme", "https"), (":path", "*")],
    [(":method", "GET"), (":scheme", "https"), (":path", "http://x/")],
    [(":method", "GET"), (":scheme", "https"), (":path", "/a b")],
    [(":method", "GET"), (":scheme", "https"), (":path", "/a HTTP/1.1\r\nX: y")],
    [(":method", "G ET"), (":scheme", "https"), (":path", "/")],
    [(":method", "TRACE"), (":scheme", "https"), (":path", "/")],
    [(":method", "GET / HTTP/1.1\r\nx: y"), (":scheme", "https"), (":path", "/")],
    [(":method", "CONNECT"), (":scheme", "https"), (":path", "/")],
], ids=repr)
def test_odd_pseudo_fields_never_reach_http_1(client, upstream, pseudo):
    before = len(upstream.heads)
    sid = client.h2.get_next_available_stream_id()
    client.socket.sendall(client.raw_head(sid, pseudo + [(":authority", client.authority)]))
    read_answer(client, sid)
    assert len(upstream.heads) == before, upstream.heads[-1]


def rss_kib(stand):
    with open(f"/proc/{stand.processes['proxy'].pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def flood(client, frames, bound=200_000):
    """Writes until the proxy ends the connection; how many frames it took."""
    n = 0
    client.socket.settimeout(10)
    try:
        for chunk in frames:
            client.socket.sendall(chunk)
            n += 1
            if n >= bound:
                break
            if n % 64 == 0:  # its words must not fill our side
                client.socket.settimeout(0.0001)
                try:
                    if not client.socket.recv(1 << 20):
                        break
                except (TimeoutError, OSError) as e:
                    if isinstance(e, ConnectionError):
                        break
                client.socket.settimeout(10)
    except (ConnectionError, OSError):
        pass
    return n


def resets(c):
    sid = 1
    while True:
        block = b""
        for _ in range(50):
            block += c.raw_head(sid, c.pseudo(path="/reset")) + RstStreamFrame(sid, error_code=8).serialize()
            sid += 2
        yield block


def provoked(c):
    """MadeYouReset: each stream is well begun, then broken so that the server resets it."""
    sid = 1
    while True:
        block = b""
        for _ in range(50):
            block += c.raw_head(sid, c.pseudo(path="/made")) + WindowUpdateFrame(sid, window_increment=1).serialize()
            block += b"\x00\x00\x04\x08\x00" + struct.pack(">I", sid) + b"\x00\x00\x00\x00"
            sid += 2
        yield block


def continuations(c):
    yield HeadersFrame(1, c.encoder.encode(c.pseudo())).serialize()
    while True:
        yield ContinuationFrame(1, b"\x00\x01x" + b"\x7f\x80\x7f" + b"v" * 255).serialize() * 20


def bomb(c):
    """One long value in the table, then named thousands of times."""
    sid = 1
    while True:
        block = c.encoder.encode([("x-long", "v" * 3000)], huffman=False)
        index = b"\xbe"
        head = c.encoder.encode(c.pseudo(), huffman=False) + block + index * 12000
        yield HeadersFrame(sid, head, flags=["END_HEADERS", "END_STREAM"]).serialize()
        sid += 2


FLOODS = {
    "rapid reset": resets,
    "MadeYouReset": provoked,
    "CONTINUATION": continuations,
    "HPACK bomb": bomb,
    "SETTINGS": lambda c: iter(lambda: SettingsFrame(0, {4: 65535}).serialize() * 100, None),
    "PING": lambda c: iter(lambda: PingFrame(0, b"12345678").serialize() * 100, None),
    "empty DATA": lambda c: data_flood(c),
}


def data_flood(c):
    yield c.raw_head(1, c.pseudo("POST", "/data"), end=False)
    while True:
        yield DataFrame(1, b"").serialize() * 100


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_or_is_cheap_and_others_are_served(stand, name):
    calm = H2Client(stand.port)
    assert calm.get("/x").status == 200
    before = rss_kib(stand)
    attackers = [H2Client(stand.port) for _ in range(4)]
    threads = [threading.Thread(target=flood, args=(a, FLOODS[name](a), 400)) for a in attackers]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        assert calm.get("/calm").status == 200
    for a in attackers:
        a.close()
    assert calm.get("/after").status == 200
    calm.close()
    if not SAN:
        assert rss_kib(stand) < 2 * before


def cpu_ticks(stand):
    with open(f"/proc/{stand.processes['proxy'].pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_half_a_record_of_tls_is_waited_for_and_not_asked_for(stand):
    got, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=stand.ca)
    context.set_alpn_protocols(["h2"])
    s = socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE)
    tls = context.wrap_bio(got, out, server_hostname="public.localhost")
    while tls.selected_alpn_protocol() is None:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            s.sendall(out.read())
            got.write(receive(s))
    tls.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
    s.sendall(out.read())
    tls.write(PingFrame(0, b"12345678").serialize())
    record = out.read()
    s.sendall(record[:10])
    time.sleep(0.5)
    before = cpu_ticks(stand)
    time.sleep(1)
    assert cpu_ticks(stand) - before < 20  # a busy wait takes most of a second's 100
    s.sendall(record[10:])
    pong = b""
    while b"12345678" not in pong:
        try:
            pong += tls.read()
        except ssl.SSLWantReadError:
            got.write(receive(s))
    s.close()


def test_a_flood_of_resets_ends_the_connection(stand):
    c = H2Client(stand.port)
    assert flood(c, resets(c), 2000) < 2000
    c.close()


def test_streams_that_never_end_their_request_are_bounded_in_time_and_number(stand, client):
    sids = [client.request("POST", "/open", end=False) for _ in range(100)]
    assert len(sids) == 100
    client.until(lambda: client.settings.get(3) == 100)
    sid = client.h2.highest_outbound_stream_id + 2
    client.socket.sendall(client.raw_head(sid, client.pseudo()))
    assert has_answer(read_answer(client, sid), sid)
