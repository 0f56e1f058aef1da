"""Hostile clients of HTTP/2: floods, bombs, stalls, what never ends. What counts is what others feel and how much memory
it takes."""

import glob
import itertools
import os
import re
import signal
import socket
import ssl
import threading
import time

import pytest
from floods import FLOODS, PROVOCATIONS, Script, provoked, resets
from h2client import H2Client, has_answer
from hyperframe.frame import PingFrame, SettingsFrame
from sanitize import SAN
from stand import Stand, Upstream, header, receive
from trial import PATIENCE, freeze, wait_for


@pytest.fixture(scope="module")
def upstream():
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    u = Upstream(answer=lambda head, body: big if b" /big" in head.split(b"\r\n")[0] else Upstream.tell(head, body))
    yield u
    u.close()


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
  - from: https://public.localhost:PORT
    path: /ours
    response: {{status: 200, body: "no upstream of ours is in the way of this answer"}}
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


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_or_is_cheap_and_others_are_served(stand, name):
    calm = H2Client(stand.port)
    assert calm.get("/x").status == 200
    before = stand.rss_kib()
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
        assert stand.rss_kib() < 2 * before


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


@pytest.mark.parametrize("kind", PROVOCATIONS)
def test_a_flood_of_provoked_resets_ends_the_connection(stand, kind):
    c = H2Client(stand.port)
    assert flood(c, provoked(c, kind), 400) < 400
    c.close()
    calm = H2Client(stand.port)
    assert calm.get("/calm").status == 200
    calm.close()


def test_crumbs_of_a_cookie_are_one_field_again_or_too_many(stand, upstream):
    for n, status in ((2, 200), (200, 200), (300, 431)):
        c = H2Client(stand.port)
        assert c.get(headers=[("cookie", f"c{i}=1") for i in range(n)]).status == status, n
        if status == 200:
            assert header(upstream.heads[-1], "Cookie") == ["; ".join(f"c{i}=1" for i in range(n))]
        c.close()


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
    assert has_answer(client.raw_answer(sid), sid)


def kernels_word(stand, s, ours):
    """The line of /proc/net/tcp about our end of a connection to the proxy, or about its end."""
    here, there = f"{s.getsockname()[1]:04X}", f"{stand.port:04X}"
    local, remote = (here, there) if ours else (there, here)
    with open(f"/proc/{stand.processes['proxy'].pid}/net/tcp") as f:
        found = [line.split() for line in f if re.search(rf":{local} \w+:{remote} ", line)]
    assert found, "there is no such connection yet"
    return found[0]


def has_arrived(stand, s):
    return kernels_word(stand, s, True)[4].startswith("00000000:")  # nothing waits for an acknowledgement


def worker_of(stand, s):
    """Which of the proxy's loops watches the other end of a client's socket: the number of its epoll descriptor."""
    proc = f"/proc/{stand.processes['proxy'].pid}"
    inode = kernels_word(stand, s, False)[9]
    fds = [os.path.basename(p) for p in glob.glob(proc + "/fd/*") if os.readlink(p) == f"socket:[{inode}]"]
    assert fds, "nobody has accepted it yet"
    for path in glob.glob(proc + "/fdinfo/*"):
        with open(path) as f:
            if re.search(rf"^tfd:\s+{fds[0]} ", f.read(), re.M):
                return os.path.basename(path)
    raise AssertionError(f"descriptor {fds[0]} is watched by nobody")


def beside(stand, s):
    """A client, after its first answer, that shares its worker with the one of socket s."""
    mine = wait_for("somebody to accept the connection", lambda: worker_of(stand, s))
    for _ in range(64):
        other = H2Client(stand.port, tls=stand.tls)
        assert other.get("/ping").status == 200
        if worker_of(stand, other.socket) == mine:
            return other
        other.close()
    raise AssertionError("64 connections, and all of them at other workers")


def at_once(stand, *writes):
    """Writes of (socket, function): the proxy finds all of it in one turn of its loop."""
    proxy = stand.processes["proxy"]
    freeze(proxy)
    try:
        for s, write in writes:
            write()
            wait_for("the kernel to deliver it", lambda s=s: has_arrived(stand, s))
    finally:
        proxy.send_signal(signal.SIGCONT)


def must_be_answered_already(calm, sid):
    calm.socket.settimeout(0)
    try:
        while True:
            for event in calm.h2.receive_data(calm.socket.recv(65536)):
                calm.take(event)
    except (ssl.SSLWantReadError, BlockingIOError):  # that is all there is
        pass
    assert calm.answers[sid].status == 200, "it waited until the other's burst was over"


def burst_beside(stand, loud, frames, calm):
    """In order, not in time: the answer to the burst's last frame comes behind that to somebody else's request."""
    sids = []
    at_once(stand, (loud, lambda: loud.sendall(frames + PingFrame(0, b"last one").serialize())),
            (calm.socket, lambda: sids.append(calm.request(path="/ping"))))
    heard = b""
    while b"last one" not in heard:
        heard += receive(loud)  # all of it is within the bounds
    must_be_answered_already(calm, sids[0])
    loud.close()
    calm.close()


def five_hundred_resets(client):
    return b"".join(itertools.islice(resets(client), 10))


def test_others_are_answered_before_a_burst_of_frames_is_worked_off(stand):
    loud = H2Client(stand.port)
    burst_beside(stand, loud.socket, five_hundred_resets(loud), beside(stand, loud.socket))


def test_others_are_answered_before_a_burst_behind_the_preface_is_worked_off(upstream):
    plain = Stand(f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", tls=False).start()
    try:
        loud = socket.create_connection(("127.0.0.1", plain.port), 20 * PATIENCE)
        calm = beside(plain, loud)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
        burst_beside(plain, loud, preface + five_hundred_resets(Script(calm.authority)), calm)
    finally:
        plain.stop()


def test_many_pipelined_requests_are_all_answered_and_others_do_not_wait_for_them(stand):
    context = ssl.create_default_context(cafile=stand.ca)
    loud = context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port), 20 * PATIENCE),
                               server_hostname="public.localhost")
    calm = beside(stand, loud)
    n, sids = 200, []
    request = f"GET /ping HTTP/1.1\r\nHost: public.localhost:{stand.port}\r\n\r\n".encode()
    at_once(stand, (loud, lambda: loud.sendall(request * n)), (calm.socket, lambda: sids.append(calm.request(path="/ping"))))
    heard = b""
    while heard.count(b"HTTP/1.1 200") < n:
        more = loud.recv(65536)
        assert more, "each of them has an answer"
        heard += more
    must_be_answered_already(calm, sids[0])
    loud.close()
    calm.close()


@pytest.mark.parametrize("kind", ["SETTINGS", "PING", "empty DATA"])
def test_who_talks_without_a_purpose_is_told_to_calm_down(stand, kind):
    c = H2Client(stand.port)
    calm_down = re.compile(rb"\0\0\x08\x07\0{5}.{4}\0{3}\x0b", re.S)  # GOAWAY, ENHANCE_YOUR_CALM
    frames, heard = FLOODS[kind](c), b""
    for i in range(20):
        mark = b"mark%04d" % i
        c.socket.sendall(next(frames) + PingFrame(0, mark).serialize())  # one record: nothing is left unread
        while mark not in heard and not calm_down.search(heard):
            heard += receive(c.socket)
        if calm_down.search(heard):
            break
    assert calm_down.search(heard)
    c.close()


def test_who_measures_the_path_beside_its_requests_is_not(stand, client):
    for i in range(600):
        client.socket.sendall(PingFrame(0, b"how long").serialize() * 3)
        assert client.get("/ping").status == 200, i
    assert client.goaway is None
