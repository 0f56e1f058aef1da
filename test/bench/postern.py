"""Postern: the four daemons, a real login, and the session's cookie for the load generator."""

import os
import signal
import subprocess
import tempfile
import time

from trial import BIN, Browser, free_port, wait_for

from bench.process import BenchError, System, run
from bench.visit import ask, connect, read_answer, request_bytes

EMAIL, PASSWORD = "bench@example.com", "bench-password"
DAEMONS = ("databroker", "authorize", "authenticate", "proxy")

# The session fits the last of five alternatives: a policy as people write them.
POLICY = """    policy:
      - allow:
          or:
            - email: {is: a@example.com}
            - email: {is: b@example.com}
            - email: {is: c@example.com}
            - groups: {has: admins}
            - groups: {has: staff}
"""
CLOSED = POLICY.replace("staff", "nobody")


def route(host, port, upstream_port, more="", policy=POLICY):
    return f"  - from: https://{host}:{port}\n    to: http://127.0.0.1:{upstream_port}\n{more}{policy}"


class Postern(System):
    def __init__(self, lab, tls, routes=None, log=False):
        """routes(port) → YAML list; without it the routes of the throughput cases. log: the proxy's access lines."""
        super().__init__("postern", "https" if tls else "http", free_port(), "bench.localhost")
        self.lab, self.log = lab, log
        self.home = tempfile.mkdtemp(prefix="postern-", dir=lab.folder)
        self.config = os.path.join(self.home, "config.yaml")
        self.secret = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True,
                                     check=True).stdout.strip()
        self.write_users()
        self.write_config((routes or self.usual_routes)(self.port))

    def usual_routes(self, port):
        open_to_all = "    allow_public_unauthenticated_access: true\n"
        identity = "    pass_identity_headers: true\n"
        return (route("bench.localhost", port, self.lab.sink_port, "    prefix: /sink\n")
                + route("bench.localhost", port, self.lab.upstream_port, identity)
                + route("public.localhost", port, self.lab.upstream_port, open_to_all, ""))

    def write_users(self):
        hashed = subprocess.run([os.path.join(BIN, "postern"), "hash-password"], input=PASSWORD + "\n",
                                capture_output=True, text=True, check=True).stdout.strip()
        with open(os.path.join(self.home, "users.yaml"), "w") as f:
            f.write(f'- email: {EMAIL}\n  name: Bench\n  password: "{hashed}"\n  groups: [staff]\n')

    def write_config(self, routes):
        d = self.home
        listener = f"certificates:\n  - cert: {self.lab.cert}\n    key: {self.lab.key}\n" if self.tls else \
            "insecure_server: true\n"
        with open(self.config + ".new", "w") as f:
            f.write(f"""address: 127.0.0.1:{self.port}
{listener}shared_secret: {self.secret}
access_log: {str(self.log).lower()}
max_connections_per_address: 100000
authenticate_service_url: https://authenticate.localhost:{self.port}
authenticate_internal_service_url: unix:{d}/authenticate-http.sock
authenticate_grpc_url: unix:{d}/authenticate.sock
authorize_service_url: unix:{d}/authorize.sock
databroker_service_url: unix:{d}/databroker.sock
databroker_storage_type: sqlite
databroker_storage_connection_string: {d}/databroker.sqlite
idp_provider: local
idp_local_users_file: {d}/users.yaml
routes:
{routes}""")
        os.rename(self.config + ".new", self.config)

    def start(self):
        log = open(os.path.join(self.home, "log"), "wb")
        self.daemons = {}
        for daemon in DAEMONS:
            env = {"HEALTH_CHECK_ADDR": f"unix:{self.home}/health-{daemon}.sock"}
            if daemon != "proxy":
                env["GRPC_ADDRESS"] = f"unix:{self.home}/{daemon}.sock"
            self.daemons[daemon] = self.add(run([os.path.join(BIN, "postern-" + daemon), "--config", self.config],
                                                env, log))
        self.parts = {"authorize": self.daemons["authorize"].pid}
        return self

    def enter(self, host="bench.localhost"):
        """Logs in at host; from then on requests go there with the session's cookie."""
        self.host = host
        self.headers = {"Cookie": wait_for("a login at Postern", lambda: login(self), 60, 0.2)}
        without = ask(self.view(headers={}))[0]
        if without not in (302, 401):
            raise BenchError(f"Postern answers {without} to a visitor without a session")
        return self

    def change(self, routes, in_force):
        """Puts other routes into force: seconds from the signal until in_force(status, fields) of an answer is true."""
        self.write_config(routes)
        start = time.monotonic()
        for daemon in DAEMONS:
            self.daemons[daemon].send_signal(signal.SIGHUP)
        while not in_force(*self.answer()):
            if time.monotonic() - start > 60:
                raise BenchError("the change is not in force after 60 s")
            time.sleep(0.002)
        return time.monotonic() - start

    def answer(self):
        with connect(self.scheme, self.port, self.host) as s:
            s.sendall(request_bytes(self.authority, "/", self.headers))
            status, _, fields = read_answer(s)
            return status, fields

    def public(self):
        return self.view(host="public.localhost", headers={})


def start_system(lab, tls, routes=None, log=False):
    postern = Postern(lab, tls, routes, log).start()
    try:
        return postern.enter()
    except BaseException:
        postern.stop()
        raise


def plain_browser(browser):
    """Behind `insecure_server` the links still say https, and a browser would not send Secure cookies: stand in
    for the TLS that would be in front. The cookies, by host, are the answer."""
    one, cookies = browser.one, {}

    def plain(url, *args, **kwargs):
        url = url.replace("https://", "http://", 1)
        headers = kwargs.setdefault("headers", {})
        for name in ("Origin", "Referer"):
            if name in headers:
                headers[name] = headers[name].replace("http://", "https://", 1)
        host = url.split("/")[2].split(":")[0]
        headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in cookies.get(host, {}).items())
        answer = one(url, *args, **kwargs)
        for text in answer.raw.headers.getlist("Set-Cookie"):
            name, value = text.split(";")[0].split("=", 1)
            cookies.setdefault(host, {})[name] = value
        browser.session.cookies.clear()
        return answer
    browser.one = plain
    return cookies


def login(postern):
    """The Cookie header after the login, made as a browser makes it."""
    browser = Browser(None)
    cookies = None if postern.tls else plain_browser(browser)
    page = browser.login(postern.url(), EMAIL, PASSWORD)
    assert page.status_code == 200 and page.text.startswith("xxxx"), (page.status_code, page.text[:500], browser.trail)
    jar = cookies[postern.host].items() if cookies else [
        (c.name, c.value) for c in browser.session.cookies if c.domain.startswith(postern.host.split(".")[0] + ".")]
    return "; ".join(f"{k}={v}" for k, v in jar if not k.endswith("_login"))
