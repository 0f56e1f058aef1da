"""A stand: the four daemons with a configuration of the test's own, and upstreams that tell what they got."""

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from sanitize import PATIENCE, assert_clean
from trial import BIN, POSTERN, ROOT, Browser, free_port, wait_for

PASSWORD = "flow-password"
DAEMONS = ("databroker", "authorize", "authenticate", "proxy")
_hash = []


def password_hash():
    """crypt(3) text of PASSWORD, made once by the product itself."""
    if not _hash:
        _hash.append(subprocess.run([POSTERN, "hash-password"], input=PASSWORD + "\n", capture_output=True,
                                    text=True, check=True).stdout.strip())
    return _hash[0]


def make_certificate(folder, *names):
    key, cert = os.path.join(folder, names[0] + ".key"), os.path.join(folder, names[0] + ".crt")
    sans = ",".join(("IP:" if n[0].isdigit() else "DNS:") + n for n in names)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    key, "-out", cert, "-days", "2", "-subj", "/CN=" + names[0], "-addext", "subjectAltName=" + sans],
                   check=True, capture_output=True)
    return key, cert


def make_secret():
    return base64.b64encode(os.urandom(32)).decode()


USERS = {"admin@example.com": ["admins", "staff"], "user@example.com": ["staff"]}


class Stand:
    """Daemons run in a folder with unix sockets between them. routes: YAML list, `PORT` is replaced.
    Of several authorizes the others are daemons `authorize-2` and so on."""

    def __init__(self, routes, settings="", tls=True, users=None, names=(), more_certificates=(), listener=None,
                 authorizes=1):
        self.folder = tempfile.mkdtemp(prefix="postern-stand-")
        self.port = free_port()
        self.tls = tls
        self.listener = listener  # YAML in place of `certificates`
        self.processes = {}
        self.env = {}  # daemon → more of its environment
        self.authorizes = ["authorize"] + [f"authorize-{i + 2}" for i in range(authorizes - 1)]
        self.routes, self.settings = routes, settings
        self.more = [make_certificate(self.folder, name) for name in more_certificates]
        self.key, self.ca = make_certificate(
            self.folder, "app.localhost", "other.localhost", "admin.localhost", "public.localhost",
            "authenticate.localhost", "127.0.0.1", *names)
        self.secret, self.previous = make_secret(), None
        with open(os.path.join(self.folder, "users.yaml"), "w") as f:
            for email, groups in (users or USERS).items():
                f.write(f'- email: {email}\n  name: {email.split("@")[0].title()}\n  password: "{password_hash()}"\n'
                        f'  groups: {json.dumps(groups)}\n')
        self.write_config()

    def write_config(self, routes=None):
        if routes is not None:
            self.routes = routes
        self.config = self.config_with(self.secret, self.previous, "config.yaml")

    def config_with(self, secret, previous, name="other.yaml"):
        """Writes a configuration with these secrets, at once; its path."""
        d = self.folder
        pairs = "".join(f"  - cert: {cert}\n    key: {key}\n" for key, cert in [(self.key, self.ca), *self.more])
        listener = self.listener or (f"certificates:\n{pairs}" if self.tls else "insecure_server: true\n")
        authorize = "".join(f"\n  - unix:{d}/{name}.sock" for name in self.authorizes)
        provider = "" if "idp_provider" in self.settings else f"idp_provider: local\nidp_local_users_file: {d}/users.yaml\n"
        older = f"shared_secret_previous: {previous}\n" if previous else ""
        text = f"""address: 127.0.0.1:{self.port}
{listener}shared_secret: {secret}
{older}authenticate_service_url: https://authenticate.localhost:{self.port}
authenticate_internal_service_url: unix:{d}/authenticate-http.sock
authenticate_grpc_url: unix:{d}/authenticate.sock
authorize_service_url: {authorize}
databroker_service_url: unix:{d}/databroker.sock
databroker_storage_type: sqlite
databroker_storage_connection_string: {d}/databroker.sqlite
{provider}{self.settings}
routes:
{self.routes}
""".replace("PORT", str(self.port))
        path = os.path.join(d, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)
        return path

    def config_line(self, text):
        """The number of the line of the configuration that holds text."""
        with open(self.config) as f:
            return next(n for n, line in enumerate(f, 1) if text in line)

    def start(self, order=DAEMONS):
        try:
            for daemon in (*order, *self.authorizes[1:]):
                self.start_one(daemon)
            self.wait_ready()
        except BaseException:  # nobody will stop what never was ready
            for p in self.processes.values():
                p.kill()
                p.wait()
            raise
        return self

    def start_one(self, daemon):
        env = {**os.environ, "HEALTH_CHECK_ADDR": f"unix:{self.folder}/health-{daemon}.sock"}
        if daemon != "proxy":
            env["GRPC_ADDRESS"] = f"unix:{self.folder}/{daemon}.sock"
        env.update(self.env.get(daemon, {}))
        with open(self.log_file(daemon), "ab") as log:
            self.processes[daemon] = subprocess.Popen(
                [os.path.join(BIN, "postern-" + daemon.split("-")[0]), "--config", self.config], env=env, stdout=log, stderr=log, cwd=ROOT)
        return self.processes[daemon]

    def log_file(self, daemon):
        return os.path.join(self.folder, daemon + ".log")

    def logs(self, daemon):
        lines = []
        with open(self.log_file(daemon), errors="replace") as f:
            for line in f:
                if line.startswith("{"):
                    lines.append(json.loads(line))
        return lines

    def wait_ready(self, seconds=30):
        wait_for("the daemons to be ready", lambda: all(self.is_ready(d) for d in self.processes), seconds)

    def is_ready(self, daemon):
        if self.processes[daemon].poll() is not None:
            with open(self.log_file(daemon), errors="replace") as f:
                raise RuntimeError(f"{daemon} ended with {self.processes[daemon].returncode}:\n{f.read()[-3000:]}")
        return self.health(daemon, "/readyz").startswith(b"HTTP/1.1 200")

    def health(self, daemon, path):
        """The whole answer of its health listener."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5 * PATIENCE)
            s.connect(f"{self.folder}/health-{daemon}.sock")
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return read_all(s)

    def status(self, daemon="proxy"):
        return json.loads(self.health(daemon, "/status").split(b"\r\n\r\n", 1)[1])

    def kill(self, daemon, how=signal.SIGKILL):
        self.processes[daemon].send_signal(how)
        return self.processes[daemon].wait(30 * PATIENCE)

    def rss_kib(self, daemon="proxy"):
        with open(f"/proc/{self.processes[daemon].pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

    def fds(self, daemon="proxy"):
        return len(os.listdir(f"/proc/{self.processes[daemon].pid}/fd"))

    def stop(self):
        for p in self.processes.values():
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        codes = {}
        for daemon, p in self.processes.items():
            try:
                codes[daemon] = p.wait(20 * PATIENCE)
            except subprocess.TimeoutExpired:
                p.kill()
                codes[daemon] = "hung"
        bad = {d: c for d, c in codes.items() if c not in (0, -signal.SIGKILL)}
        last_words = "".join(f"\n--- {d}\n{self.last_words(d)}" for d in bad)
        try:
            assert_clean(self.log_file(daemon) for daemon in {*DAEMONS, *self.processes})
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not bad, f"daemons that did not end cleanly: {bad}{last_words}"

    def last_words(self, daemon):
        with open(self.log_file(daemon), errors="replace") as f:
            return f.read()[-1500:]

    def browser(self):
        return Browser(self)

    def accounts(self):
        return {email: PASSWORD for email in USERS}

    def url(self, name, path="/"):
        return f"http{'s' if self.tls else ''}://{name}.localhost:{self.port}{path}"

    def cli(self, *args, check=True, env=None, seconds=60):
        done = subprocess.run([POSTERN, *args], cwd=ROOT, capture_output=True, text=True, timeout=seconds * PATIENCE,
                              env={**os.environ, "POSTERN_CONFIG": self.config, **(env or {})})
        if check and done.returncode != 0:
            raise AssertionError(f"postern {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done


def simple_stand(upstream):
    """Started: one route, app, for whoever is logged in."""
    return Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""").start()


def receive(s):
    """The next bytes; the end is an error: a loop that waits for more must not turn round for ever."""
    data = s.recv(65536)
    if not data:
        raise ConnectionError("the peer said no more")
    return data


def read_all(s):
    """Until the end."""
    parts = []
    while True:
        part = s.recv(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


class Upstream:
    """An HTTP/1.1 server that keeps the exact head of each request, and answers as it is told.

    answer(head: bytes, body: bytes) → bytes of the whole response; the default tells the head back."""

    def __init__(self, answer=None, raw=None, host="127.0.0.1", port=0):
        self.heads, self.connections = [], 0
        self.answer = answer or self.tell
        self.raw = raw  # raw(socket): takes over the connection
        self.listener = socket.create_server((host, port), backlog=128,
                                             family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self.listener.getsockname()[1]
        self.open = set()
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.add(s)
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            if self.raw:
                self.raw(s)
                return
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = s.recv(65536)
                    if not more:
                        return
                    data += more
                head, data = data.split(b"\r\n\r\n", 1)
                body, data = self.read_body(s, head, data)
                self.heads.append(head)
                s.sendall(self.answer(head, body))
        except OSError:
            pass
        finally:
            self.open.discard(s)
            s.close()

    @staticmethod
    def read_body(s, head, data):
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            while not (data.endswith(b"\r\n\r\n") and (data.startswith(b"0\r\n") or b"\r\n0\r\n" in data)):
                data += receive(s)
            return data, b""
        length = 0
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(data) < length:
            data += receive(s)
        return data[:length], data[length:]

    @staticmethod
    def tell(head, body):
        text = json.dumps({"head": head.decode("latin-1"), "body": len(body)}).encode()
        return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + str(len(text)).encode() +
                b"\r\n\r\n" + text)

    def close(self):
        # Wake the threads before their descriptors are free: a number used again would be theirs, too.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join(5)
        self.listener.close()
        for s in list(self.open):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class TlsClient:
    """A client that can end its own direction of a TLS connection and read on, which ssl.SSLSocket cannot."""

    def __init__(self, stand, name, seconds=20):
        self.s = socket.create_connection(("127.0.0.1", stand.port), seconds * PATIENCE)
        self.got, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=stand.ca)
        self.tls = context.wrap_bio(self.got, self.out, server_hostname=name)
        self.step(self.tls.do_handshake)

    def step(self, what, *args):
        while True:
            try:
                done = what(*args)
                self.s.sendall(self.out.read())
                return done
            except ssl.SSLWantReadError:
                self.s.sendall(self.out.read())
                data = self.s.recv(65536)
                if not data:
                    self.got.write_eof()
                self.got.write(data)

    def sendall(self, data):
        self.step(self.tls.write, data)

    def recv(self, n):
        try:
            return self.step(self.tls.read, n)
        except ssl.SSLZeroReturnError:
            return b""

    def half_close(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:  # it would wait for the other direction's end
            pass
        self.s.sendall(self.out.read())

    def close(self):
        self.s.close()


def header(head, name):
    """All values of a header in a request head as the upstream got it."""
    if isinstance(head, bytes):
        head = head.decode("latin-1")
    found = []
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            found.append(value.strip())
    return found


def raw_request(port, data, tls_context=None, name="app.localhost", seconds=10, half_close=False):
    """Sends bytes, reads until the peer closes or seconds pass; returns what came."""
    s = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    if tls_context:
        s = tls_context.wrap_socket(s, server_hostname=name)
    try:
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        got = b""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                more = s.recv(65536)
            except (TimeoutError, ConnectionResetError):
                break
            if not more:
                break
            got += more
        return got
    finally:
        s.close()
