"""Request smuggling in its known shapes, each through the real way of a request: HTTP/1 and HTTP/2 clients, HTTP/1 and
HTTP/2 upstreams. The oracle is what the upstream received (support/witness.py): nothing that two servers could read
differently, nothing that was not a request of its own, and the next visitor gets the answer to his own request."""

import base64
import itertools
import json
import os
import re
import socket

import pytest
from h2client import H2Client
from hyperframe.frame import DataFrame
from sanitize import PATIENCE
from stand import Stand
from trial import ROOT
from witness import H2Witness, Witness

CORPORA = os.path.join(ROOT, "../shared/corpora")
INNER = b"GET /smuggled HTTP/1.1\r\nHost: public.localhost\r\nX-Inner: 1\r\n\r\n"
REFUSED = (b"400", b"405", b"411", b"413", b"414", b"417", b"431", b"501", b"505")


@pytest.fixture(scope="module", params=[Witness, H2Witness], ids=["to-h1", "to-h2"])
def witness(request):
    w = request.param()
    yield w
    w.close()


@pytest.fixture(scope="module")
def stand(witness):
    to = f"http{'' if isinstance(witness, Witness) else '2'}://127.0.0.1:{witness.port}".replace("http2", "h2c")
    s = Stand(f"""
  - from: http://public.localhost:PORT
    path: /fixed
    response: {{status: 418, body: "short"}}
    allow_public_unauthenticated_access: true
  - from: http://public.localhost:PORT
    to: {to}
    allow_any_authenticated_user: true
    prefix: /closed
  - from: http://public.localhost:PORT
    to: {to}
    prefix: /switch
    allow_public_unauthenticated_access: true
    allow_websockets: true
    allow_spdy: true
    allow_upgrades: [tcp, websocket]
  - from: http://public.localhost:PORT
    to: {to}
    allow_public_unauthenticated_access: true
    allow_websockets: {str(isinstance(witness, Witness)).lower()}
""", tls=False).start()
    yield s
    s.stop()


numbers = itertools.count()


def canary(stand, witness):
    """The next visitor: he gets his own answer, and what reached the upstream before him is beyond doubt."""
    target = b"/canary/%d" % next(numbers)
    got = exchange(stand, b"GET %b HTTP/1.1\r\nHost: H\r\nConnection: close\r\n\r\n" % target, b"")
    assert got.startswith(b"HTTP/1.1 200 ") and b"X-Target: " + target in got.replace(b"x-target", b"X-Target"), got
    assert not witness.doubts, witness.doubts.pop()
    assert witness.requests[-1].target == target
    return witness.requests[-1]


LAST = b"GET /last HTTP/1.1\r\nHost: H\r\nConnection: close\r\n\r\n"


def exchange(stand, data, last=LAST):
    """Sends data and a last request, and reads to the end; what is not whole then has no answer, and is left."""
    data = (data + last).replace(b"Host: H\r\n", b"Host: public.localhost:%d\r\n" % stand.port)
    got = b""
    with socket.create_connection(("127.0.0.1", stand.port)) as s:
        try:
            s.sendall(data)
            s.settimeout((2 if last else 20) * PATIENCE)
            while more := s.recv(65536):
                got += more
        except (ConnectionError, TimeoutError):
            pass
    return got


def statuses(got):
    """Of all answers but the one to the last request."""
    last = got.lower().find(b"x-target: /last")
    got = got[:got.rfind(b"HTTP/1.1 ", 0, last)] if last >= 0 else got
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", got)


def reached(witness, before):
    return [r for r in witness.requests[before:] if not r.target.startswith((b"/canary/", b"/last"))]


# ---- two readings of where a request ends -------------------------------------------------------------

CODINGS = [
    b"Transfer-Encoding: chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:\x0cchunked", b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding\x00: chunked", b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: identity", b"Transfer-Encoding:", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,", b"Transfer-Encoding: chunked;q=1", b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'", b"Transfer-Encoding: CHUNKED", b"tRANSFER-eNCODING: chunked",
    b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: x\r\n\tchunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\rTransfer-Encoding: chunked", b"X: y\r\n\rTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\nX: y", b"Transfer-Encoding: chunked\r", b"\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\x85", b"Transfer-Encoding:\xa0chunked", b"Transfer-Encoding: chun\xffked",
    b"Transfer\xadEncoding: chunked", b"Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    b"\x00Transfer-Encoding: chunked", b"Transfer-Encoding; chunked", b"Transfer-Encoding chunked",
    b"Transfer Encoding: chunked", b"Transfer-Encoding: %63hunked", b"TE: chunked", b"Content-Encoding: chunked",
]

LENGTHS = [
    b"Content-Length: N\r\nContent-Length: N", b"Content-Length: N\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: N", b"Content-Length: N, N", b"Content-Length: N,0",
    b"Content-Length: 0,N", b"Content-Length: +N", b"Content-Length: -N", b"Content-Length: -0",
    b"Content-Length: 0xN", b"Content-Length: N 0", b"Content-Length: N\x0b", b"Content-Length: \x0cN",
    b"Content-Length : N", b"Content-Length\t: N", b"Content-Length:\r\n N", b"Content-Length: 0\r\n N",
    b"Content-Length: N\x00", b"Content-Length: Ne0", b"Content-Length: N.0", b"Content-Length: 'N'",
    b'Content-Length: "N"', b"Content-Length: N;", b"Content-Length:", b"Content-Length: ", b"Content-Length: a",
    b"Content-Length: 18446744073709551616", b"Content-Length: 18446744073709551617",
    b"Content-Length: 9223372036854775808",
    b"Content-Length: 99999999999999999999999999999999", b"Content-Length: 000000000000000000000000000000N",
    b"Content_Length: N", b"Content-Length\x00: N", b"Content-Length: N\nX: y", b"X: y\nContent-Length: N",
    b"X: y\rContent-Length: N", b"Content-Length: N\r\nConnection: Content-Length", b"Content-Length: \xb2",
    b"Content-Length: N\r\nTransfer-Encoding: ", b"Content Length: N", b"Content-Length; N", b"Content-Length: 1_0",
]

CHUNKS = [
    b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\r\nhello\r\n0\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\n0\n\n", b"5\r\nhello\r\n0\r\n\n",
    b"5\r\nhello\r\n0\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5;ext\nhello\r\n0\r\n\r\n",
    b"5;a=b\rc\r\nhello\r\n0\r\n\r\n", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", b"5;\x00\r\nhello\r\n0\r\n\r\n",
    b"5 ;a\r\nhello\r\n0\r\n\r\n", b"5,\r\nhello\r\n0\r\n\r\n", b"0_5\r\nhello\r\n0\r\n\r\n",
    b"5h\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n", b"\x005\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffb\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n", b"000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nHost: other\r\n\r\n", b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\n\r\n", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX\r\n\r\n", b"5\r\nhello\r\n0\r\n: y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-Pomerium-Claim-Email: root\r\n\r\n", b"2;" + b"e" * 70000 + b"\r\nhi\r\n0\r\n\r\n",
]


def judge(stand, witness, data, most):
    """Sends data, then a stranger's request; what reached the upstream and what came back for data."""
    before = len(witness.requests)
    got = exchange(stand, data)
    canary(stand, witness)
    seen = reached(witness, before)
    for r in seen:
        assert b"6.6.6.6" not in b"".join(v for _, v in r.fields), r.fields
        assert r.target != b"/smuggled" or r.all(b"x-inner") == [b"1"]
    assert len(seen) <= most, [r.target for r in seen]
    codes = [c for c in statuses(got) if c[:1] != b"1"]
    assert codes.count(b"200") <= len(seen), (codes, [r.target for r in seen])
    return seen, codes


@pytest.mark.parametrize("path", [b"/outer", b"/fixed", b"/closed"])
def test_a_request_with_an_odd_transfer_coding_ends_in_one_place(stand, witness, path):
    """CL.TE, TE.CL, TE.TE and TE.0: the length covers all of the body, or what an inner request follows."""
    for coding in CODINGS:
        for body, length in ((b"0\r\n\r\n" + INNER, 5 + len(INNER)), (b"%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n", 4), (b"", 0)):
            head = b"POST %b HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n%b\r\n\r\n" % (path, length, coding)
            seen, codes = judge(stand, witness, head + body, 2)
            inner = [r for r in seen if r.target == b"/smuggled"]
            if codes[0] in REFUSED:
                assert not seen and len(codes) == 1, (coding, codes)
            else:  # a coding that is nobody's: the length alone counts, and what follows is a request of its own
                assert coding in (b"TE: chunked", b"Content-Encoding: chunked") and len(inner) <= 1, coding
                assert all(r.body == body[:length] for r in seen if r.target == path), (coding, seen)


def test_a_chunked_request_without_a_length_is_as_strict(stand, witness):
    for coding in CODINGS:
        head = b"POST /outer HTTP/1.1\r\nHost: H\r\n%b\r\n\r\n" % coding
        seen, codes = judge(stand, witness, head + b"%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n", 1)
        if codes[0] == b"200":
            name, value = coding.split(b"\r\n")[0].lower().split(b":")
            fine = name == b"transfer-encoding" and value.strip(b" \t") == b"chunked"
            assert seen[0].body == (INNER if fine else b""), coding
        assert not any(r.target == b"/smuggled" for r in seen), coding


@pytest.mark.parametrize("path", [b"/outer", b"/fixed", b"/closed"])
def test_a_request_with_an_odd_length_ends_in_one_place(stand, witness, path):
    for template in LENGTHS:
        for method in (b"POST", b"GET"):
            head = b"%b %b HTTP/1.1\r\nHost: H\r\n%b\r\n\r\n" % (method, path, template.replace(b"N", b"%d" % len(INNER)))
            seen, codes = judge(stand, witness, head + INNER, 1)
            assert not codes or codes[0] in REFUSED or not any(r.target == b"/smuggled" for r in seen), (template, codes)
            assert all(r.body == INNER for r in seen if r.target == path), template


def test_odd_chunks_are_refused_or_reach_the_upstream_as_plain_ones(stand, witness):
    for body in CHUNKS:
        seen, codes = judge(stand, witness, b"POST /outer HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n" + body + INNER, 2)
        assert codes and codes[0] in REFUSED + (b"200",), (body[:60], codes)
        if codes[0] == b"200":
            assert seen[0].body == b"hello", body[:60]
        else:
            assert not seen and len(codes) == 1, body[:60]


# ---- heads that could be another request ----------------------------------------------------------------

HEADS = [
    b"GET  /x HTTP/1.1\r\nHost: H\r\n\r\n", b"GET\t/x HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET /x  HTTP/1.1\r\nHost: H\r\n\r\n", b"GET /x HTTP/1.1 \r\nHost: H\r\n\r\n",
    b"GET /x HTTP/1.1\x0b\r\nHost: H\r\n\r\n", b"GET /x HTTP/1.1\nHost: H\r\n\r\n",
    b"GET /x HTTP/1.1\r\r\nHost: H\r\n\r\n", b" GET /x HTTP/1.1\r\nHost: H\r\n\r\n", b"GET /x\r\nHost: H\r\n\r\n",
    b"GET /x HTTP/0.9\r\nHost: H\r\n\r\n", b"GET /x HTTP/1.2\r\nHost: H\r\n\r\n",
    b"GET /x HTTP/2.0\r\nHost: H\r\n\r\n", b"GET /x HTTP/1.10\r\nHost: H\r\n\r\n",
    b"GET /x http/1.1\r\nHost: H\r\n\r\n", b"GET /x HTTP/ 1.1\r\nHost: H\r\n\r\n",
    b"get /x HTTP/1.1\r\nHost: H\r\n\r\n", b"GET x HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET //other/x HTTP/1.1\r\nHost: H\r\n\r\n", b"GET http://other/x HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET http://a@public.localhost/x HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET ftp://public.localhost/x HTTP/1.1\r\nHost: H\r\n\r\n", b"GET /x#y HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET /x\x00y HTTP/1.1\r\nHost: H\r\n\r\n", b"GET /x\x7fy HTTP/1.1\r\nHost: H\r\n\r\n",
    b"GET /x\xa0y HTTP/1.1\r\nHost: H\r\n\r\n", b"GET * HTTP/1.1\r\nHost: H\r\n\r\n",
    b"CONNECT public.localhost:80 HTTP/1.1\r\nHost: H\r\n\r\n", b"TRACE /x HTTP/1.1\r\nHost: H\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: H\r\nHost: H\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nhost: other\r\n\r\n", b"GET /x HTTP/1.1\r\nHost : H\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: public.localhost, other\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: public.localhost other\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a@public.localhost\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: public.localhost/x\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: public.localhost:80:80\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: public.localhost\x00\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n",
    b"GET /x HTTP/1.1\r\n Host: H\r\nHost: other\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: H\r\nX\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\n: y\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: H\r\nX: a\r\n b\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nX: a\r\nY(: b\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: H\r\nX: a\x00\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nX: a\x08\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: H\r\nX: a\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\n\n", b"GET /x HTTP/1.1\r\nHost: H\r\nX-Forwarded-For : 6.6.6.6\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
]

PASSING = [
    b"GET /x HTTP/1.1\r\nHost: H\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-Ip: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nConnection: X-Forwarded-For, Host, X-Request-Id, close\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nConnection: keep-alive\r\nKeep-Alive: 99\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: H\r\nX-HTTP-Method-Override: DELETE\r\nX-Original-URL: /smuggled\r\nX-Rewrite-URL: /smuggled\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: H\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"GET /x HTTP/1.0\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"HEAD /x HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"OPTIONS /x HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"POST /fixed HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"POST /closed HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"POST /fixed HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n",
    b"POST /.pomerium/x HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"PUT /healthz HTTP/1.1\r\nHost: H\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
    b"GET /x HTTP/1.1\r\nHost: H\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n" b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + INNER,
]


def test_heads_with_two_readings_reach_nobody(stand, witness):
    for head in HEADS:
        seen, codes = judge(stand, witness, head + INNER, 0 if b"//other" not in head else 2)
        assert codes and (codes[0] in REFUSED or b"//other/x" in head), (head, codes)
        assert len(codes) == 1 or b"//other/x" in head, (head, codes)


def test_what_passes_is_what_was_asked_and_nothing_in_it_becomes_a_request(stand, witness):
    for data in PASSING:
        seen, codes = judge(stand, witness, data, 2)
        for r in seen:
            assert r.target == b"/x" or b"upgrade" in data.lower(), (data, r.target)
            assert not [n for n, _ in r.fields if n.lower() in (b"http2-settings", b"keep-alive", b"proxy-connection", b"forwarded")]


def test_the_body_of_an_upgrade_stays_its_body(stand, witness):
    framed = ((b"Content-Length: %d" % len(INNER), INNER),
              (b"Transfer-Encoding: chunked", b"%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n"))
    for token, method, (framing, body) in itertools.product((b"spdy/3.1", b"tcp", b"websocket", b"h2c"),
                                                            (b"POST", b"PUT", b"GET"), framed):
        before = len(witness.requests)
        exchange(stand, b"%b /switch HTTP/1.1\r\nHost: H\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n\r\n"
                 % (method, token, framing) + body)
        canary(stand, witness)
        if isinstance(witness, Witness):
            refused = token == b"websocket"  # it is a GET, without a body
            assert [r.body for r in reached(witness, before)] == ([] if refused else [INNER]), (token, method, framing)


# ---- from HTTP/2 down (and across) --------------------------------------------------------------------------

FIELDS = [
    [("transfer-encoding", "chunked")], [("connection", "close")], [("connection", "x-forwarded-for")],
    [("upgrade", "h2c")], [("upgrade", "websocket")], [("keep-alive", "1")], [("proxy-connection", "x")],
    [("te", "gzip")], [("te", "trailers, deflate")], [("content-length", "0"), ("content-length", "5")],
    [("content-length", "+1")], [("content-length", "-1")], [("content-length", "1,1")], [("content-length", "0x1")],
    [("content-length", "99999999999999999999")], [("host", "admin.localhost")],
    [("x", "a\r\nx-forwarded-for: 6.6.6.6")], [("x", "a\nb")], [("x", "a\rb")],
    [("x", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")], [("x\r\ny", "1")], [("x: 1\r\ny", "1")],
    [("transfer-encoding: chunked\r\nx", "1")], [("x y", "1")], [("x:", "1")], [(" x", "1")], [("", "1")],
    [("x\x00", "1")], [("x", "a\x00b")], [("X-Upper", "1")], [("Transfer-Encoding", "chunked")],
    [(":path", "/other")], [(":method", "PUT")], [(":authority", "admin.localhost")], [(":unknown", "x")],
    [(":status", "200")], [(":protocol", "websocket")], [("x_pomerium_claim_email", "root")],
    [("transfer_encoding", "chunked")], [("content_length", "0")], [("cookie", "a=1\r\nx: y")], [("cookie", "a\x00")],
]

PSEUDO = [
    [(":method", "GET"), (":scheme", "http"), (":path", "*")],
    [(":method", "GET"), (":scheme", "http"), (":path", "http://x/")],
    [(":method", "GET"), (":scheme", "http"), (":path", "x")],
    [(":method", "GET"), (":scheme", "http"), (":path", "")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/a b")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/a#b")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/a HTTP/1.1\r\nX: y")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/\xff")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/a\x00")],
    [(":method", "G ET"), (":scheme", "http"), (":path", "/")],
    [(":method", ""), (":scheme", "http"), (":path", "/")],
    [(":method", "TRACE"), (":scheme", "http"), (":path", "/")],
    [(":method", "get"), (":scheme", "http"), (":path", "/")],
    [(":method", "GET / HTTP/1.1\r\nx: y"), (":scheme", "http"), (":path", "/")],
    [(":method", "GET /smuggled?"), (":scheme", "http"), (":path", "/")],
    [(":method", "CONNECT"), (":scheme", "http"), (":path", "/")], [(":method", "CONNECT")],
    [(":method", "GET"), (":path", "/")], [(":scheme", "http"), (":path", "/")],
    [(":method", "GET"), (":scheme", "http")], [("x", "1"), (":method", "GET"), (":scheme", "http"), (":path", "/")],
]

AUTHORITIES = [
    "", "admin.localhost", "public.localhost\r\nx: y", "public.localhost x", "a@public.localhost",
    "public.localhost/x", "public.localhost:80:80", "public.localhost, other", "public.localhost\x00", "[::1",
    "public.localhost#x",
]

BODIES = [
    ([("content-length", "0")], INNER), ([("content-length", "4")], INNER),
    ([("content-length", str(len(INNER) + 1))], INNER), ([("content-length", "7")], b""),
    ([("transfer-encoding", "chunked")], b"0\r\n\r\n" + INNER),
    ([("transfer-encoding", "chunked"), ("content-length", "5")], b"0\r\n\r\n" + INNER),
]


def over_h2(stand, fields, body=None, trailers=None):
    """One raw request on a connection of its own; the frames that come back."""
    c = H2Client(stand.port, tls=False)
    fields = [(n, v.replace("public.localhost", c.authority) if n == ":authority" else v) for n, v in fields]
    data = c.raw_head(1, fields, end=body is None and trailers is None)
    if body is not None:
        data += DataFrame(1, body, flags=[] if trailers else ["END_STREAM"]).serialize()
    if trailers:
        data += c.raw_head(1, trailers)
    try:
        c.socket.sendall(data)
        return c.raw_answer(1)
    except ConnectionError:
        return b""
    finally:
        c.close()


def pseudo(method="GET", path="/h2", authority="public.localhost"):
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]


H2_SHAPES = [pseudo() + f for f in FIELDS] + [p + pseudo()[3:] for p in PSEUDO] + [pseudo(authority=a) for a in AUTHORITIES]


def test_heads_of_http_2_that_http_1_could_misread_reach_nobody(stand, witness):
    for fields in H2_SHAPES:
        before = len(witness.requests)
        over_h2(stand, fields)
        canary(stand, witness)
        assert not reached(witness, before), (fields, witness.requests[before].fields)


def test_bodies_of_http_2_end_where_their_frames_end(stand, witness):
    for fields, body in BODIES:
        before = len(witness.requests)
        over_h2(stand, pseudo("POST") + fields, body)
        canary(stand, witness)
        assert not reached(witness, before), fields
    before = len(witness.requests)
    for fields in ([], [("content-length", str(len(INNER)))], [("expect", "100-continue")], [("te", "trailers")]):
        over_h2(stand, pseudo("POST") + fields, INNER)
    over_h2(stand, pseudo("POST"), INNER, [("x-late", "1")])
    canary(stand, witness)
    assert [r.body for r in reached(witness, before)] == [INNER] * 5


def test_trailers_of_http_2_smuggle_nothing(stand, witness):
    for trailers in ([(":path", "/smuggled")], [("content-length", "5")], [("transfer-encoding", "chunked")], [("host", "x")],
                     [("x-forwarded-for", "6.6.6.6")], [("x", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")], [("x y", "1")],
                     [("x-pomerium-claim-email", "root")], [("X-Upper", "1")], [("connection", "close")]):
        before = len(witness.requests)
        over_h2(stand, pseudo("POST"), INNER, trailers)
        canary(stand, witness)
        assert not reached(witness, before), trailers


# ---- the corpora, through the same way ---------------------------------------------------------------------


def corpus():
    with open(os.path.join(CORPORA, "http/llhttp_cases.json"), encoding="utf-8") as f:
        for c in json.load(f)["cases"]:
            yield base64.b64decode(c["input_b64"])
    with open(os.path.join(CORPORA, "http/lighttpd_request_cases.json"), encoding="utf-8") as f:
        told = json.load(f)
    for c in told["cases"]:
        yield base64.b64decode(c["input_b64"])
    for c in told["request_t"]:
        lines = c["request_lines"].replace("\n", "\r\n").replace("\\r", "\r").replace("\\n", "\n").replace("\\x80", "\x80")
        yield lines.encode("latin-1", "replace") + b"\r\n\r\n"


def paths():
    with open(os.path.join(CORPORA, "uri/envoy_path_normalize.json"), encoding="utf-8") as f:
        told = json.load(f)
        yield from (c["i"] for c in told["normalize"] + told["merge_slashes"])
    with open(os.path.join(CORPORA, "uri/lighttpd_url_normalize.json"), encoding="utf-8") as f:
        yield from (c["input_latin1"] for c in json.load(f)["cases"])


def for_us(data):
    """With a Host that is ours, so that it gets as far as it can."""
    head, blank, body = data.partition(b"\r\n\r\n")
    head = re.sub(rb"(?im)^host:[^\r\n]*", b"Host: H", head)
    if b"\r\nHost: H" not in head:
        head = head.replace(b"\r\n", b"\r\nHost: H\r\n", 1) if b"\r\n" in head else head + b"\r\nHost: H"
    return (head + blank + body).replace(b"Host: H\r\r\n", b"Host: H\r\n").replace(b"Host: H", b"Host: public.localhost")


def test_every_case_of_the_http_corpora_leaves_no_doubt_at_the_upstream(stand, witness):
    n, passed = 0, 0
    for data in corpus():
        n += 1
        before = len(witness.requests)
        got = exchange(stand, for_us(data).replace(b"Host: public.localhost", b"Host: public.localhost:%d" % stand.port))
        canary(stand, witness)
        codes = [c for c in statuses(got) if c[:1] != b"1"]
        seen = reached(witness, before)
        assert codes.count(b"200") <= len(seen), (data, codes, [r.target for r in seen])
        passed += len(seen)
    assert n == 272 + 75 + 163 and passed > 150


def test_every_head_of_the_http_corpora_as_fields_of_http_2(stand, witness):
    passed = 0
    for data in corpus():
        start, *lines = data.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, _, path = start.rpartition(" HTTP/")[0].partition(" ")
        fields = [(n.lower(), v.strip(" \t")) for n, _, v in (line.partition(":") for line in lines) if n.lower() != "host"]
        before = len(witness.requests)
        over_h2(stand, pseudo(method or "GET", path or "/") + fields, data.partition(b"\r\n\r\n")[2] or None)
        canary(stand, witness)
        assert len(reached(witness, before)) <= 1
        passed += len(reached(witness, before))
    assert passed > 150


def test_every_path_of_the_uri_corpora_reaches_the_upstream_in_one_spelling(stand, witness):
    for path in paths():
        raw = path.encode("latin-1", "replace")
        seen, codes = judge(stand, witness, b"GET " + raw + b" HTTP/1.1\r\nHost: H\r\n\r\n", 1)
        for r in seen:
            plain = r.target.split(b"?")[0]
            assert not re.search(rb"/\.\.?(/|$)|%2e|%2f|%00|\\|#|[^!-~]", plain, re.I), (path, r.target)
