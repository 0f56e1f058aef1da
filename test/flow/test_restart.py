"""Stopping, restarting and reloading: who notices, and who must not."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from activated import Activated
from sanitize import PATIENCE, SAN
from stand import Stand, Upstream
from trial import BIN, ROOT, wait_for

OPEN = "    allow_public_unauthenticated_access: true\n    allow_websockets: true\n    timeout: 0s\n"


def route(name, port):
    return f"  - from: https://{name}.localhost:PORT\n    to: http://127.0.0.1:{port}\n{OPEN}"


def slow_upstream():
    """/slow answers when go is set; /echo is an upgrade that echoes; the rest answers at once."""
    go = threading.Event()

    def raw(s):
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = s.recv(65536)
                if not more:
                    return
                data += more
            head, data = data.split(b"\r\n\r\n", 1)
            if head.startswith(b"GET /echo"):
                s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                while True:
                    more = s.recv(65536)
                    if not more:
                        return
                    s.sendall(more)
            if head.startswith(b"GET /slow"):
                go.wait(60)
            if head.startswith(b"GET /drip"):
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)
                for _ in range(99):
                    go.wait(0.1)
                    s.sendall(b"x" * 10)
                continue
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    u = Upstream(raw=raw)
    u.go = go
    return u


@pytest.fixture
def upstream():
    u = slow_upstream()
    yield u
    u.go.set()
    u.close()


class Client:
    """One keep-alive connection."""

    def __init__(self, stand):
        self.stand = stand
        s = socket.create_connection(("127.0.0.1", stand.port), timeout=30 * PATIENCE)
        self.s = ssl.create_default_context(cafile=stand.ca).wrap_socket(s, server_hostname="app.localhost") if stand.tls else s

    def send(self, path="/", more=""):
        self.s.sendall(f"GET {path} HTTP/1.1\r\nHost: app.localhost:{self.stand.port}\r\n{more}\r\n".encode())

    def answer(self):
        got = b""
        while b"\r\n\r\n" not in got:
            more = self.s.recv(65536)
            if not more:
                return got
            got += more
        head, body = got.split(b"\r\n\r\n", 1)
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            more = self.s.recv(65536)
            if not more:
                return head + b"\r\n\r\n" + body + b"<cut>"
            body += more
        return head + b"\r\n\r\n" + body

    def ask(self, path="/", more=""):
        self.send(path, more)
        return self.answer()

    def websocket(self):
        head = self.ask("/echo", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
        assert b" 101 " in head, head
        return self

    def echo(self, data=b"\x81\x02hi"):
        self.s.sendall(data)
        return self.s.recv(100) == data

    def is_closed(self):
        try:
            return self.s.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    def close(self):
        self.s.close()


def stand_of(upstream, settings="", tls=True):
    return Stand(route("app", upstream.port), settings=settings, tls=tls).start()


def ready(stand):
    try:
        return stand.is_ready("proxy")
    except (OSError, RuntimeError):
        return None


def test_sigterm_drains(upstream):
    stand = stand_of(upstream, "shutdown_delay: 2s\nshutdown_grace_period: 4s\n")
    try:
        idle, busy, dripping, ws = Client(stand), Client(stand), Client(stand), Client(stand).websocket()
        assert b" 200 " in idle.ask()
        busy.send("/slow")
        dripping.send("/drip")
        assert ws.echo()
        time.sleep(0.3)
        began = time.monotonic()
        stand.processes["proxy"].send_signal(signal.SIGTERM)
        # Readiness goes first; for a while all is as before, and new visitors come in.
        wait_for("readiness to go", lambda: ready(stand) is False, every=0.01)
        answer = Client(stand).ask()
        assert b" 200 " in answer and b"onnection: close" not in answer
        answer = idle.ask()
        assert b" 200 " in answer and b"onnection: close" not in answer

        def refused():
            try:
                Client(stand).close()
                return False
            except ConnectionRefusedError:
                return True
        wait_for("the listener to close", refused)
        # Then the last answer says that it is the last.
        answer = idle.ask()
        assert b" 200 " in answer and b"onnection: close" in answer and idle.is_closed()
        assert ws.echo()
        upstream.go.set()
        answer = busy.answer()
        assert b" 200 " in answer and b"onnection: close" in answer and answer.endswith(b"ok")
        answer = dripping.answer()
        assert len(answer.split(b"\r\n\r\n", 1)[1]) == 1000
        # The WebSocket has the grace period and no more.
        assert ws.is_closed()
        assert stand.processes["proxy"].wait(20 * PATIENCE) == 0
        assert time.monotonic() - began >= 5.5
    finally:
        stand.stop()


def test_without_open_requests_the_end_is_quick(upstream):
    stand = stand_of(upstream, "shutdown_grace_period: 600s\n")
    try:
        idle = Client(stand)
        assert b" 200 " in idle.ask()
        stand.processes["proxy"].send_signal(signal.SIGTERM)
        assert stand.processes["proxy"].wait(30 * PATIENCE) == 0
        assert idle.is_closed()
    finally:
        stand.stop()


class Load:
    """Clients that ask without a pause; every failure is kept."""

    def __init__(self, stand, clients=4, keep=True):
        self.stand, self.keep = stand, keep
        self.done, self.failed, self.over = 0, [], threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for t in self.threads:
            t.start()

    def run(self):
        c = None
        while not self.over.is_set():
            try:
                c = c or Client(self.stand)
                answer = c.ask()
                if b"HTTP/1.1 200" not in answer or not answer.endswith(b"ok"):
                    raise AssertionError(answer[:200])
                self.done += 1
                if not self.keep or b"onnection: close" in answer:
                    c.close()
                    c = None
            except (OSError, AssertionError) as e:
                self.failed.append(repr(e))
                c = None

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(30 * PATIENCE)


@pytest.mark.parametrize("sockets", [1, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_a_restart_with_passed_sockets_loses_nobody(upstream, sockets, keep):
    stand = Activated(route("app", upstream.port), settings="shutdown_grace_period: 2s\n", sockets=sockets).start()
    load = Load(stand, keep=keep)
    try:
        for _ in range(3):
            before = load.done
            wait_for("some answers", lambda b=before: load.done > b + 20)
            assert stand.kill("proxy", signal.SIGTERM) == 0
            time.sleep(0.3)  # nobody is there: visitors wait in the socket
            stand.start_one("proxy")
        before = load.done
        wait_for("answers after the restart", lambda: load.done > before + 20)
    finally:
        load.stop()
        stand.stop()
    assert load.failed == []


def test_two_proxies_that_start_at_once_do_not_share_a_port(upstream):
    stand, both = Stand(route("app", upstream.port)), []
    try:
        for _ in range(5):
            env = {**os.environ, "HEALTH_CHECK_ADDR": "off"}
            both = [subprocess.Popen([os.path.join(BIN, "postern-proxy"), "--config", stand.config], env=env, cwd=ROOT,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
            wait_for("two to give up", lambda p=both: sum(x.poll() is not None for x in p) == 2)
            if "tsan" in SAN:
                time.sleep(2)  # TSan loses a signal that comes while threads are being made
            for p in both:
                if p.poll() is None:
                    p.terminate()
                    assert p.wait(20 * PATIENCE) == 0
                    p.stderr.close()
                else:
                    assert p.returncode == 1 and b"in use" in p.stderr.read()
    finally:
        for p in both:
            if p.poll() is None:
                p.kill()
                p.wait()
        stand.stop()


def test_a_unix_socket_is_an_address_too(upstream):
    stand = Stand(route("app", upstream.port), settings="trusted_proxies: ['unix:']\n", tls=False)
    path = os.path.join(stand.folder, "http.sock")
    try:
        with open(stand.config) as f:
            text = f.read().replace(f"address: 127.0.0.1:{stand.port}", f"address: unix:{path}")
        with open(stand.config, "w") as f:
            f.write(text)
        stand.start()
        for _ in range(8):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(10 * PATIENCE)
                s.connect(path)
                s.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost:%d\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"
                          % stand.port)
                assert s.recv(100).startswith(b"HTTP/1.1 200")
        wait_for("access lines", lambda: {line["ip"] for line in stand.logs("proxy") if line["event"] == "http-request"} == {
            "192.0.2.7"})
    finally:
        stand.stop()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_units(tmp_path):
    folder = os.path.join(ROOT, "deploy", "systemd")
    for name in (n for n in os.listdir(folder) if n.endswith((".service", ".socket"))):
        with open(os.path.join(folder, name)) as f:
            (tmp_path / name).write_text(f.read().replace("/usr/local/bin", BIN))
    done = subprocess.run(["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))], capture_output=True, text=True,
                          timeout=60 * PATIENCE)
    assert not [line for line in (done.stdout + done.stderr).splitlines() if "postern" in line], done.stderr


def generation(stand):
    config = stand.status()["config"]
    return config["generation"], config["rejected"]


def test_reloads_disturb_nobody_but_whose_route_is_gone(upstream):
    other = "  - from: https://other.localhost:PORT\n    to: http://127.0.0.1:{}\n" + OPEN
    stand = Stand(route("app", upstream.port) + other.format(upstream.port)).start()
    load = Load(stand)
    try:
        ws, dripping, kept = Client(stand).websocket(), Client(stand), Client(stand)
        doomed = Client(stand)
        doomed.s.sendall(f"GET /echo HTTP/1.1\r\nHost: other.localhost:{stand.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
        assert b" 101 " in doomed.answer()
        dripping.send("/drip")
        assert b" 200 " in kept.ask()
        first, _ = generation(stand)
        for i in range(200):
            stand.write_config(route("app", upstream.port) + other.format(upstream.port) +
                               f"  - from: https://new{i}.localhost:PORT\n    to: http://127.0.0.1:1\n{OPEN}")
            stand.processes["proxy"].send_signal(signal.SIGHUP)
            stand.processes["authorize"].send_signal(signal.SIGHUP)
            wait_for("the reload", lambda n=first + i + 1: generation(stand)[0] >= n, every=0.005)
        assert ws.echo() and doomed.echo()
        assert b" 200 " in kept.ask()
        # A broken file changes nothing.
        good, rejected = generation(stand)
        stand.write_config("  - from: https://app.localhost:PORT\n    to: nonsense\n")
        stand.processes["proxy"].send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: generation(stand)[1] > rejected)
        assert generation(stand)[0] == good and ws.echo() and b" 200 " in Client(stand).ask()
        # A route that is gone takes its connections along.
        stand.write_config(route("app", upstream.port))
        stand.processes["proxy"].send_signal(signal.SIGHUP)
        stand.processes["authorize"].send_signal(signal.SIGHUP)
        assert doomed.is_closed()
        assert ws.echo() and b" 200 " in kept.ask()
        upstream.go.set()
        assert len(dripping.answer().split(b"\r\n\r\n", 1)[1]) == 1000
        load.stop()
        assert load.failed == [] and load.done > 200
    finally:
        load.stop()
        stand.stop()


def test_more_connections_than_may_be_are_closed_at_once(upstream):
    stand = stand_of(upstream, "max_connections: 3\n", tls=False)
    try:
        few = [Client(stand) for _ in range(3)]
        assert all(b" 200 " in c.ask() for c in few)
        beyond = Client(stand)
        assert beyond.is_closed()
        few.pop().close()

        def again():
            c = Client(stand)
            try:
                return b" 200 " in c.ask()
            finally:
                c.close()
        wait_for("a place to be free", again)
        assert all(b" 200 " in c.ask() for c in few)
    finally:
        stand.stop()
