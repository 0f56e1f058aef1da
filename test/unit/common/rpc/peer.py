"""A foreign client: Debian's grpcio against our server. peer.py DIR PORT TOKEN; exits 0 when all is well.

DIR holds ca.pem, cert.pem and key.pem."""
import sys
import threading

import grpc

folder, port, token = sys.argv[1], sys.argv[2], sys.argv[3]


def read(name):
    with open(f"{folder}/{name}", "rb") as f:
        return f.read()


SAME = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)
NAME = [("grpc.ssl_target_name_override", "authorize.postern.internal"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1)]


def channel(with_certificate):
    pair = dict(private_key=read("key.pem"), certificate_chain=read("cert.pem")) if with_certificate else {}
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(read("ca.pem"), **pair), NAME)


last = [""]  # words of the last status, for the one who looks for a fault


def status_of(call):
    try:
        call()
    except grpc.RpcError as e:
        last[0] = e.details()
        return e.code()
    return grpc.StatusCode.OK


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r}, not {wanted!r} ({last[0]})")


proxy, stranger = channel(True), channel(False)
CHECK, HEALTH = "/postern.Authorize/Check", "/grpc.health.v1.Health/Check"
check = proxy.unary_unary(CHECK, **SAME)
bearer = [("authorization", f"Bearer {token}")]

expect("unary", check(b"\x08\x29", timeout=60), b"\x0a\x02\x08\x2a")
expect("health", proxy.unary_unary(HEALTH, **SAME)(b"", timeout=60), b"\x08\x01")

# Who may: nobody may not, a good token may, a broken one not, two tokens not even if both are good.
asked = stranger.unary_unary(CHECK, **SAME)
expect("nobody", status_of(lambda: asked(b"", timeout=60)), grpc.StatusCode.UNAUTHENTICATED)
expect("token", status_of(lambda: asked(b"", timeout=60, metadata=bearer)), grpc.StatusCode.OK)
expect("changed token", status_of(lambda: asked(b"", timeout=60, metadata=[("authorization", f"Bearer {token}x")])),
       grpc.StatusCode.UNAUTHENTICATED)
expect("two tokens", status_of(lambda: asked(b"", timeout=60, metadata=bearer * 2)), grpc.StatusCode.UNAUTHENTICATED)
expect("token for a proxy's method",
       status_of(lambda: list(stranger.unary_stream("/test/Follow", **SAME)(b"", timeout=60, metadata=bearer))),
       grpc.StatusCode.PERMISSION_DENIED)

# What they may send.
deep = b""
for _ in range(6000):
    body = deep
    size, length = len(body), b""
    while size >= 128:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    deep = b"\x0a" + length + bytes([size]) + body
for what, message, wanted in (
        ("a cut message", b"\x22\x05ab", grpc.StatusCode.INVALID_ARGUMENT),
        ("NUL in text", b"\x22\x03a\0b", grpc.StatusCode.INVALID_ARGUMENT),
        ("bad UTF-8", b"\x22\x02\xc3\x28", grpc.StatusCode.INVALID_ARGUMENT),
        ("no message of that type", deep, grpc.StatusCode.INVALID_ARGUMENT),
        ("an oversize message", b"\x1a\x80\x80\xc0\x02" + bytes(5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED)):
    expect(what, status_of(lambda m=message: check(m, timeout=60)), wanted)
expect("compressed", status_of(lambda: check(b"\x1a\x80\x80\x20" + bytes(1 << 19), timeout=60,
                                             compression=grpc.Compression.Gzip)), grpc.StatusCode.UNIMPLEMENTED)
# gRPC core may close the whole connection for this: it has one of its own.
spender = channel(True)
expect("much metadata",
       status_of(lambda: spender.unary_unary(CHECK, **SAME)(b"", timeout=60, metadata=[("x", "y" * 12000)])),
       grpc.StatusCode.RESOURCE_EXHAUSTED)
spender.close()
expect("unknown method", status_of(lambda: proxy.unary_unary("/postern.Authorize/No", **SAME)(b"", timeout=60)),
       grpc.StatusCode.UNIMPLEMENTED)
expect("a large health request", status_of(lambda: stranger.unary_unary(HEALTH, **SAME)(bytes(5000), timeout=60)),
       grpc.StatusCode.RESOURCE_EXHAUSTED)
expect("a deadline", status_of(lambda: check(b"\x08\x0e", timeout=0.2)), grpc.StatusCode.DEADLINE_EXCEEDED)

# A bidirectional stream: what goes in comes out, in order, and half a close ends it.
turn = threading.Semaphore(1)


def questions():
    for i in range(500):
        turn.acquire()
        yield b"%d" % i


answers = []
for a in proxy.stream_stream("/postern.Authorize/CheckStream", **SAME)(questions(), timeout=60):
    answers.append(a)
    turn.release()
expect("the echo", answers, [b"%d" % i for i in range(500)])

# Strangers can fill their own share of the calls, not the others'.
watchers = [stranger.unary_stream("/grpc.health.v1.Health/Watch", **SAME)(b"") for _ in range(160)]
told = [w for w in watchers if status_of(lambda w=w: next(w)) == grpc.StatusCode.OK]
expect("watchers", len(told), 128)
expect("a proxy beside them", check(b"\x08\x01", timeout=60), b"\x0a\x02\x08\x02")
for w in watchers:
    w.cancel()
proxy.close()
stranger.close()
