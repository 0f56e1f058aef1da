"""TCP tunnels: CONNECT opens what a tcp+https:// route names, for whom its policy lets in, and nothing else."""

import hashlib
import os
import socket
import struct
import threading
import time

import h2.errors
import pytest
from h2client import H2Client
from stand import Stand, TlsClient, Upstream, read_all
from trial import free_port, wait_for
from tunnels import BULK, PUBLIC, access_lines, connect_head, echo, echoed, read_head, refused, route, tunnel

@pytest.fixture(scope="module")
def echoes():
    u = Upstream(raw=echo)
    yield u
    u.close()


@pytest.fixture(scope="module")
def stand(echoes):
    web = Upstream()
    sink = os.path.join("/tmp", f"postern-tcp-{os.getpid()}.sock")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(sink)
    unix.listen()
    threading.Thread(target=lambda: [echo(unix.accept()[0]) for _ in range(1)], daemon=True).start()
    routes = (route(echoes.port) + route(echoes.port, "db.localhost:6000") + route(echoes.port, "bastion.localhost/inner:22") +
              route(0, "refused.localhost:1", to=f"tcp://127.0.0.1:{free_port()}") +
              route(0, "unix.localhost:1", to=f"unix:{sink}") +
              f"  - from: https://public.localhost:PORT\n    to: http://127.0.0.1:{web.port}\n{PUBLIC}")
    s = Stand(routes, names=("db.localhost", "bastion.localhost", "refused.localhost", "unix.localhost")).start()
    s.echoes = echoes
    yield s
    s.stop()
    web.close()
    unix.close()
    os.unlink(sink)


def test_sixty_four_megabytes_pass_both_ways_unchanged(stand):
    c, rest = tunnel(stand)
    plain = c.s  # one thread reads while another writes: an echo blocks who does one after the other

    def write():
        view = memoryview(BULK)
        for at in range(0, len(BULK), 1 << 16):
            with lock:
                c.tls.write(view[at:at + (1 << 16)])
                data = c.out.read()
            plain.sendall(data)
        with lock:
            try:
                c.tls.unwrap()
            except OSError:
                pass
            data = c.out.read()
        plain.sendall(data)
    lock = threading.Lock()
    writer = threading.Thread(target=write)
    writer.start()
    digest, n = hashlib.sha256(rest), len(rest)
    while n < len(BULK):
        data = plain.recv(1 << 18)
        assert data, "cut off"
        with lock:
            c.got.write(data)
            try:
                while True:
                    part = c.tls.read(1 << 18)
                    digest.update(part)
                    n += len(part)
                    if not part:
                        break
            except OSError:
                pass
    writer.join()
    c.close()
    assert n == len(BULK) and digest.digest() == hashlib.sha256(BULK).digest()
    wait_for("the access line", lambda: access_lines(stand, method="CONNECT", size=len(BULK), received=len(BULK)))
    line = access_lines(stand, method="CONNECT", size=len(BULK))[0]
    assert line["authority"] == "db.localhost:5432" and line["response-code"] == 200 and line["decision"] == "allow"
    assert [a for a in stand.logs("authorize") if a.get("request-id") == line["request-id"]], "no audit line"


def test_the_same_over_a_stream_of_http2(stand):
    part = BULK[:1 << 20]
    c = H2Client(stand.port, "db.localhost")
    sid = c.connect("db.localhost:5432")
    c.until(lambda: c.answers[sid].status)
    assert c.answers[sid].status == 200
    for _ in range(8):
        c.send(sid, part)
    c.send(sid, b"", end=True)
    answer = c.answer(sid)
    assert answer.reset is None and hashlib.sha256(answer.body).digest() == hashlib.sha256(part * 8).digest()
    # Other requests share the connection.
    sid = c.connect("db.localhost:5432")
    c.send(sid, b"again", end=True)
    assert c.answer(sid).body == b"again"
    c.close()


def test_bytes_behind_the_head_are_the_first_of_the_tunnel(stand):
    c, rest = tunnel(stand, behind=b"GET / HTTP/1.1\r\n\r\n early")
    echoed(c, rest, b"GET / HTTP/1.1\r\n\r\n early")


def test_a_client_may_say_all_it_has_before_the_tunnel_is_open():
    """As on HTTP/2: its direction ends, the other one goes on."""
    got = []

    def talk(s):
        got.append(read_all(s))
        s.sendall(b"heard")
    s, u = lonely(route, talk)
    try:
        c = TlsClient(s, "db.localhost")
        c.sendall(connect_head("db.localhost:5432") + b"all of it")
        c.half_close()
        answer = read_all(c)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nheard") and got == [b"all of it"]
        c.close()
        h = H2Client(s.port, "db.localhost")
        sid = h.connect("db.localhost:5432")
        h.send(sid, b"all of it", end=True)
        assert h.answer(sid).body == b"heard" and got[1:] == [b"all of it"]
        h.close()
    finally:
        s.stop()
        u.close()


def test_what_stands_behind_a_refused_connect_is_no_request(stand):
    hidden = b"GET /hidden HTTP/1.1\r\nHost: public.localhost\r\n\r\n"
    status, rest = refused(stand, "db.localhost:1", behind=hidden)
    assert status == 404 and rest.count("HTTP/1.1") == 0
    assert not access_lines(stand, path="/hidden")


@pytest.mark.parametrize("authority", [
    "db.localhost:5433", "other.localhost:5432", "127.0.0.1:5432", "bastion.localhost:22", "inner:23", "xdb.localhost:5432",
    "db.localhost.evil:5432", "[::1]:5432", "169.254.169.254:80", "public.localhost:PORT", "public.localhost:443",
    "authenticate.localhost:PORT"])
def test_only_what_is_configured_opens(stand, authority):
    authority = authority.replace("PORT", str(stand.port))
    status, rest = refused(stand, authority)
    assert status == 404 and "route-not-found" in rest
    c = H2Client(stand.port, "db.localhost")
    sid = c.connect(authority)
    assert c.answer(sid).status == 404
    c.close()


@pytest.mark.parametrize("authority", ["db.localhost", "db.localhost:0", "db.localhost:05432", "db.localhost:99999", "u@db.localhost:5432",
                                       "https://db.localhost:5432", "/", "db.localhost:5432/"])
def test_an_unclear_authority_is_refused(stand, authority):
    c = TlsClient(stand, "db.localhost")
    c.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: db.localhost:5432\r\n\r\n".encode())
    assert read_head(c)[0].startswith("HTTP/1.1 400 ")
    c.close()


def test_an_authority_has_one_spelling(stand):
    for authority in ("DB.localhost:5432", "db.localhost.:5432"):
        c, rest = tunnel(stand, authority, behind=b"x")
        echoed(c, rest, b"x")
    c = TlsClient(stand, "db.localhost")
    c.sendall(b"CONNECT db.localhost:5432 HTTP/1.1\r\nHost: db.localhost:6000\r\n\r\n")
    assert read_head(c)[0].startswith("HTTP/1.1 400 ")
    c.close()


def test_requests_have_no_business_on_a_tcp_route(stand):
    b = stand.browser()
    assert b.fetch(stand.url("db")).status_code == 404
    assert b.fetch(f"https://db.localhost:{stand.port}/x", method="POST").status_code == 404
    c = H2Client(stand.port, "db.localhost")
    assert c.get("/", authority="db.localhost:5432").status == 404
    c.close()


def test_http2_without_a_port_or_with_a_path_is_no_connect(stand):
    c = H2Client(stand.port, "db.localhost")
    answer = c.answer(c.connect("db.localhost"))
    assert answer.status == 400
    answer = c.answer(c.request(method="CONNECT", authority="db.localhost:5432"))
    assert answer.reset is not None or answer.status == 400
    c.close()


def test_a_bastion_names_the_tunnel_in_its_path(stand):
    c, rest = tunnel(stand, "inner:22", name="bastion.localhost", behind=b"hello")
    echoed(c, rest, b"hello")


def test_a_unix_socket_may_be_the_other_end(stand):
    c, rest = tunnel(stand, "unix.localhost:1", name="unix.localhost", behind=b"hello")
    echoed(c, rest, b"hello")


def test_an_upstream_that_refuses_is_a_502_with_its_cause(stand):
    status, rest = refused(stand, "refused.localhost:1", name="refused.localhost")
    assert status == 502 and "the upstream refused the connection" in rest
    c = H2Client(stand.port, "refused.localhost")
    assert c.answer(c.connect("refused.localhost:1")).status == 502
    c.close()


# ---- ends -----------------------------------------------------------------------------------------------------------


def lonely(routes_of, talk, settings="", tls=True):
    u = Upstream(raw=talk)
    s = Stand(routes_of(u.port), settings=settings, names=("db.localhost",), tls=tls).start()
    return s, u


def test_each_side_may_end_first():
    got = []

    def talk(s):
        s.sendall(b"that is all")
        s.shutdown(socket.SHUT_WR)
        got.append(read_all(s))
    s, u = lonely(route, talk)
    try:
        c, rest = tunnel(s)
        assert rest + read_all(c) == b"that is all"
        c.sendall(BULK[:1 << 20])
        c.half_close()
        wait_for("the upstream to have all", lambda: got == [BULK[:1 << 20]])
        c.close()
        h = H2Client(s.port, "db.localhost")
        sid = h.connect("db.localhost:5432")
        assert h.answer(sid).body == b"that is all"
        h.send(sid, b"late", end=True)
        wait_for("the upstream to have all", lambda: got[1:] == [b"late"])
        h.close()
    finally:
        s.stop()
        u.close()


def test_a_cut_is_told_from_an_end():
    """A reset on one side must not look like the end of the data on the other."""
    ends = []

    def talk(s):
        if s.recv(16) == b"reset me":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        try:
            ends.append(read_all(s))
        except OSError as e:
            ends.append(type(e))
    s, u = lonely(route, talk)
    try:
        h = H2Client(s.port, "db.localhost")
        sid = h.connect("db.localhost:5432")
        h.send(sid, b"reset me")
        assert h.answer(sid).reset == h2.errors.ErrorCodes.CONNECT_ERROR
        c, _ = tunnel(s)
        c.sendall(b"reset me")
        with pytest.raises(OSError):  # no close_notify: TLS says that the end is missing
            if read_all(c) == b"":
                raise AssertionError("a clean end")
        c.close()

        c, _ = tunnel(s)
        c.sendall(b"something")
        time.sleep(0.2)
        c.close()  # without a word
        wait_for("the upstream to hear of it", lambda: ends == [ConnectionResetError])
        sid = h.connect("db.localhost:5432")
        h.send(sid, b"something")
        h.until(lambda: h.answers[sid].status)
        h.h2.reset_stream(sid, h2.errors.ErrorCodes.CANCEL)
        h.flush()
        wait_for("the upstream to hear of it", lambda: ends[1:] == [ConnectionResetError])
        h.close()
    finally:
        s.stop()
        u.close()


@pytest.mark.parametrize("setting", ["idle_timeout: 1s", "timeout: 1s"])
def test_silence_and_life_have_limits_where_they_are_set(setting):
    def talk(s):
        for _ in range(200):
            if setting.startswith("timeout"):
                s.sendall(b".")
            time.sleep(0.1)
    s, u = lonely(lambda port: route(port, more=PUBLIC + f"    {setting}\n"), talk)
    try:
        c, _ = tunnel(s)
        with pytest.raises(OSError):
            if read_all(c) == b"":
                raise AssertionError("a clean end")
        c.close()
    finally:
        s.stop()
        u.close()


def test_a_reload_that_removes_the_route_closes_its_tunnels_alone(echoes):
    both = route(echoes.port) + route(echoes.port, "kept.localhost:1")
    s = Stand(both, names=("db.localhost", "kept.localhost")).start()
    try:
        gone, _ = tunnel(s)
        kept, _ = tunnel(s, "kept.localhost:1", name="kept.localhost")
        s.write_config(route(echoes.port, "kept.localhost:1"))
        with pytest.raises(OSError):
            gone.recv(1)
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"
        assert refused(s, "db.localhost:5432")[0] == 404
        wait_for("the access line", lambda: access_lines(s, authority="db.localhost:5432", response_code_details="route-removed"))
        gone.close()
        kept.close()
    finally:
        s.stop()


def test_a_peer_that_is_switched_off_will_be_noticed(stand):
    c, rest = tunnel(stand, behind=b"x")

    def asked(column, port):
        """Whether TCP will ask, on a connection with that local (1) or remote (2) port: timer 2 of /proc/net/tcp."""
        with open("/proc/net/tcp") as f:
            lines = [line.split() for line in f.readlines()[1:]]
        return any(x[column].endswith(f":{port:04X}") and x[3] == "01" and x[5].startswith("02:") for x in lines)
    wait_for("both sides to be asked", lambda: asked(1, stand.port) and asked(2, stand.echoes.port))
    echoed(c, rest, b"x")


def test_a_slow_reader_slows_its_sender():
    sent = []

    def talk(s):
        s.settimeout(3)
        try:
            for _ in range(1024):
                s.sendall(BULK[:1 << 16])
                sent.append(1 << 16)
        except OSError:
            pass
    s, u = lonely(route, talk, tls=False)
    try:
        c = socket.create_connection(("127.0.0.1", s.port))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.sendall(connect_head("db.localhost:5432"))
        assert read_head(c)[0].startswith("HTTP/1.1 200 ")
        time.sleep(5)
        assert sum(sent) < 32 << 20  # what sockets hold, not all of it
        c.close()
    finally:
        s.stop()
        u.close()


def test_several_upstreams_share_the_tunnels():
    a, b = Upstream(raw=echo), Upstream(raw=echo)
    s = Stand(f"  - from: tcp+https://db.localhost:5432\n    to: ['tcp://127.0.0.1:{a.port}', 'tcp://127.0.0.1:{b.port}']\n{PUBLIC}",
              names=("db.localhost",)).start()
    try:
        for _ in range(4):
            c, rest = tunnel(s, behind=b"x")
            echoed(c, rest, b"x")
        assert a.connections and b.connections
        a.close()  # the other one takes over
        for _ in range(4):
            c, rest = tunnel(s, behind=b"x")
            echoed(c, rest, b"x")
    finally:
        s.stop()
        b.close()
