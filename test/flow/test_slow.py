"""Clients that are slow with everything: each is given its time and no more, holds only itself, and costs little.
slowhttptest is the tool that they come with; what it does not know, we do."""

import socket
import ssl
import subprocess
import threading
import time

import pytest
from h2client import H2Client
from hyperframe.frame import DataFrame, SettingsFrame
from sanitize import PATIENCE, SAN
from stand import Stand, Upstream, receive
from trial import wait_for

BIG = b"x" * 20_000_000


@pytest.fixture(scope="module")
def stand():
    def answer(head, body):
        if b" /big" in head.split(b"\r\n")[0]:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG
        return Upstream.tell(head, body)
    u = Upstream(answer=answer)
    s = Stand(f"""
  - from: https://127.0.0.1:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
    idle_timeout: 2s
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{u.port}
    allow_public_unauthenticated_access: true
    idle_timeout: 2s
""", settings="timeout_read: 2s\ntimeout_idle: 3s\n").start()
    yield s
    s.stop()
    u.close()


# ---- one of each kind -----------------------------------------------------------------------------------------


def plain(stand, data=b""):
    s = socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE)
    s.sendall(data)
    return s


def tls(stand, data=b"", window=None):
    s = socket.socket()
    s.settimeout(20 * PATIENCE)
    if window:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    s.connect(("127.0.0.1", stand.port))
    s = ssl.create_default_context(cafile=stand.ca).wrap_socket(s, server_hostname="public.localhost")
    s.sendall(data.replace(b"PORT", b"%d" % stand.port))
    return s


def h2(stand, make):
    """Frames past hyper-h2; make(client) → bytes."""
    c = H2Client(stand.port)
    c.socket.sendall(make(c))
    return c.socket


HOST = b"Host: public.localhost:PORT\r\n"

SLOW = {  # name: (how, what the end must have said, bytes that trickle behind it)
    "no handshake": (plain, None, b""),
    "half a handshake": (lambda s: plain(s, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), None, b""),
    "a handshake byte by byte": (lambda s: plain(s, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), None, b"\0"),
    "no request": (tls, b"", b""),
    "half a head": (lambda s: tls(s, b"GET / HTTP/1.1\r\nHost"), b" 408 ", b""),
    "a head byte by byte": (lambda s: tls(s, b"GET / HTTP/1.1\r\n" + HOST + b"X: "), b" 408 ", b"y"),
    "empty lines before a head": (tls, b" 400 ", b"\r\n"),
    "a second head byte by byte": (lambda s: tls(s, b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET / HTTP/1.1\r\nX: "), b" 408 ", b"y"),
    "half a body": (lambda s: tls(s, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\nhalf"), b" 408 ", b""),
    "half a chunk": (lambda s: tls(s, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"), b" 408 ", b""),
    "an answer that is not read": (lambda s: tls(s, b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n", 65536), b" 200 ", b""),
    "HTTP/2 without a request": (lambda s: h2(s, lambda c: b""), b"", b""),
    "HTTP/2 with PINGs alone": (lambda s: h2(s, lambda c: b""), b"", b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"),
    "HTTP/2 with half a head": (lambda s: h2(s, lambda c: c.raw_head(1, c.pseudo(), pieces=[5, 999])[:14]), b"", b""),
    "HTTP/2 with half a frame": (lambda s: h2(s, lambda c: c.raw_head(1, c.pseudo())[:12]), b"", b""),
    "HTTP/2 with half a body": (lambda s: h2(s, lambda c: c.raw_head(1, c.pseudo("POST"), end=False) + DataFrame(1, b"x").serialize()),
                                b"", b""),
    "HTTP/2 with a window of nothing": (lambda s: h2(s, lambda c: SettingsFrame(0, {4: 0}).serialize() + c.raw_head(1, c.pseudo())),
                                        b"", b""),
    "HTTP/2 with a window of nothing and PINGs": (
        lambda s: h2(s, lambda c: SettingsFrame(0, {4: 0}).serialize() + c.raw_head(1, c.pseudo(path="/big"))),
        b"", b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"),
}


def hear_out(name, s, trickle, heard):
    """Reads to the end, and lets bytes trickle meanwhile."""
    got = b""
    end = time.monotonic() + 30 * PATIENCE
    if "not read" in name:
        time.sleep(6 * PATIENCE)
    s.settimeout(0.2)
    while time.monotonic() < end:
        try:
            more = s.recv(65536)
            if not more:
                heard[name] = got
                return
            got += more
        except TimeoutError:
            pass
        except OSError:
            heard[name] = got
            return
        try:
            s.sendall(trickle)
        except OSError:
            trickle = b""


def test_whoever_is_slow_is_given_his_time_and_no_more(stand):
    assert stand.browser().fetch(stand.url("public")).status_code == 200
    before, heard = stand.fds(), {}
    threads = [threading.Thread(target=hear_out, args=(name, how(stand), trickle, heard)) for name, (how, _, trickle) in SLOW.items()]
    for t in threads:
        t.start()
    b = stand.browser()
    while any(t.is_alive() for t in threads):
        assert b.fetch(stand.url("public")).status_code == 200
        time.sleep(0.05)
    assert set(heard) == set(SLOW), f"not ended: {set(SLOW) - set(heard)}"
    for name, (_, said, _) in SLOW.items():
        assert said is None or said in heard[name], (name, heard[name][:300])
    assert len(heard["an answer that is not read"]) < len(BIG)
    wait_for("the descriptors of before", lambda: stand.fds() <= before + 2)


def half_a_record(stand, protocol):
    """A connection on which half of an encrypted record has come."""
    s = plain(stand)
    context = ssl.create_default_context(cafile=stand.ca)
    context.set_alpn_protocols([protocol])
    got, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    t = context.wrap_bio(got, out, server_hostname="public.localhost")
    while True:
        try:
            t.do_handshake()
            break
        except ssl.SSLWantReadError:
            s.sendall(out.read())
            got.write(receive(s))
    s.sendall(out.read())
    t.write(b"GET / HTTP/1.1\r\n" if protocol != "h2" else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
    s.sendall(out.read()[:-5])
    return s


def test_half_a_tls_record_stalls_nobody(stand):
    """OpenSSL holds it, which is no reason to read on and on: enough of them for every worker."""
    held = []
    for make in (lambda: plain(stand, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), lambda: plain(stand, b"\x16\x03"),
                 lambda: half_a_record(stand, "http/1.1"), lambda: half_a_record(stand, "h2")):
        held += [make() for _ in range(8)]
        before = cpu_ticks(stand)
        for _ in range(5):
            assert stand.browser().fetch(stand.url("public")).status_code == 200
        time.sleep(0.5)
        assert cpu_ticks(stand) - before < 50 * PATIENCE  # 100 a second are one core's
    for s in held:
        s.close()


def cpu_ticks(stand):
    with open(f"/proc/{stand.processes['proxy'].pid}/stat") as f:
        return sum(int(x) for x in f.read().rpartition(")")[2].split()[11:13])


# ---- many, by the tool ------------------------------------------------------------------------------------------

TOOL = {
    "slow heads": ["-H", "-i", "1", "-x", "24"],
    "slow bodies": ["-B", "-i", "1", "-s", "8192", "-x", "10", "-t", "POST"],
    "slow reads": ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"],
    "ranges": ["-R", "-a", "10", "-b", "3000", "-t", "HEAD"],
}
CONNECTIONS = 75


def test_slowhttptest_slows_nobody_else_down(stand, tmp_path):
    b = stand.browser()
    assert b.fetch(stand.url("public")).status_code == 200
    memory, peak, before = stand.rss_kib(), 0, stand.fds()
    tools = [subprocess.Popen(["slowhttptest", *args, "-c", str(CONNECTIONS), "-r", "100", "-l", "6", "-p", "3", "-u",
                               f"https://127.0.0.1:{stand.port}{'/big' if name == 'slow reads' else '/'}"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path) for name, args in TOOL.items()]
    served, most = 0, 0
    while any(t.poll() is None for t in tools):
        assert b.fetch(stand.url("public")).status_code == 200
        served += 1
        peak, most = max(peak, stand.rss_kib()), max(most, stand.fds())
    said = {name: t.communicate()[0].decode(errors="replace") for name, t in zip(TOOL, tools)}
    assert most > before + CONNECTIONS, said  # they were there
    assert served > 30
    wait_for("their connections to be gone", lambda: stand.fds() <= before + 2)
    assert b.fetch(stand.url("public")).status_code == 200
    print(f"served {served}, descriptors {before} to {most}, memory {memory} to {peak} KiB")
    if not SAN:
        assert peak < 2 * memory, (memory, peak)
