"""Postern as its users meet it: started as processes, spoken to from outside.

Trial     the four daemons and the demo app, started by `postern up` in a folder of their own
Browser   a person: keeps cookies, follows redirects one by one, fills in the login form
"""

import html.parser
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

import requests
import urllib3
from sanitize import PATIENCE, assert_clean

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, os.environ.get("BIN", "build/bin"))
POSTERN = os.path.join(BIN, "postern")

urllib3.disable_warnings()
_getaddrinfo = socket.getaddrinfo


def _loopback_names(host, *args, **kwargs):
    """RFC 6761: every name below localhost is this machine, whatever the resolver thinks."""
    if isinstance(host, str) and host.endswith(".localhost"):
        host = "127.0.0.1"
    return _getaddrinfo(host, *args, **kwargs)


socket.getaddrinfo = _loopback_names


def free_port():
    """One that nobody listens at: below those that the kernel gives to connections (tests run side by side), above
    those that browsers refuse."""
    for _ in range(100):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(11000, 32768)))
            except OSError:
                continue
            return s.getsockname()[1]
    raise OSError("no free port in a hundred tries")


def wait_for(what, check, seconds=20.0, every=0.05):
    """Calls check until it is true; its last value. An exception counts as not yet."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except (OSError, requests.RequestException, AssertionError) as e:
            last = e
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds} s, last: {last!r}")


def why_unready(path):
    """What /readyz says on the unix socket of a daemon's health; None when ready."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(2)
        s.connect(path)
        s.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = s.makefile("rb").read().decode()
    return None if answer.startswith("HTTP/1.1 200") else answer or "nothing"


def says_ready(path):
    return why_unready(path) is None


def freeze(process):
    """SIGSTOP, and only back when it has taken effect: a thread in the queue for a processor runs on until then."""
    process.send_signal(signal.SIGSTOP)

    def states():
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with open(f"/proc/{process.pid}/task/{task}/stat") as f:
                yield f.read().rsplit(")", 1)[1].split()[0]
    wait_for("every thread to stop", lambda: all(state == "T" for state in states()))


def children_of(pid):
    """Process ids below pid, deepest last."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    found.append(int(child))
                    found.extend(children_of(int(child)))
    except OSError:
        pass
    return found


def program_of(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


class Trial:
    """`postern up` in a folder. Routes and accounts are those of the trial."""

    def __init__(self, folder=None, port=None):
        self.folder = folder or tempfile.mkdtemp(prefix="postern-")
        self.port = port or free_port()
        self.process = None
        self.output = os.path.join(self.folder + ".out")

    def start(self, ready=True):
        self.log = open(self.output, "ab")
        self.printed_before = os.path.getsize(self.output)
        self.process = subprocess.Popen(
            [POSTERN, "up", "--dir", self.folder, "--port", str(self.port)],
            stdout=self.log, stderr=subprocess.STDOUT, cwd=ROOT)
        if ready:
            wait_for("the trial to be ready", self.is_ready, 60)
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"postern up ended with {self.process.returncode}:\n{self.printed()}")
        return "Postern is ready" in self.printed()

    def printed(self):
        with open(self.output, errors="replace") as f:
            f.seek(self.printed_before)
            return f.read()

    def stop(self, how=signal.SIGINT):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30 * PATIENCE)
        self.log.close()
        folder = os.path.join(self.folder, "log")
        assert_clean([self.output, *(os.path.join(folder, file) for file in sorted(os.listdir(folder)))])
        assert "did not end in time" not in self.printed(), self.printed()
        return self.process.returncode

    def pid_of(self, program):
        for pid in children_of(self.process.pid):
            if program_of(pid) == program:
                return pid
        return None

    def kill(self, program, how=signal.SIGKILL):
        pid = self.pid_of(program)
        os.kill(pid, how)
        return pid

    def accounts(self):
        """e-mail → password, as printed."""
        return dict(re.findall(r"^\s*(\S+@example\.com)\s+(\S+)", self.printed(), re.M))

    def url(self, name, path="/"):
        return f"https://{name}.localhost:{self.port}{path}"

    def browser(self):
        return Browser(self)

    def cli(self, *args, check=True, env=None):
        done = subprocess.run([POSTERN, *args], cwd=ROOT, capture_output=True, text=True, timeout=60 * PATIENCE,
                              env={**os.environ, "POSTERN_CONFIG": os.path.join(self.folder, "config.yaml"),
                                   **(env or {})})
        if check and done.returncode != 0:
            raise AssertionError(f"postern {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def logs(self, name):
        """The JSON lines of one daemon."""
        lines = []
        folder = os.path.join(self.folder, "log")
        for file in sorted(os.listdir(folder)):
            if file.startswith(name):
                with open(os.path.join(folder, file), errors="replace") as f:
                    for line in f:
                        if line.startswith("{"):
                            lines.append(json.loads(line))
        return lines

    @property
    def ca(self):
        return os.path.join(self.folder, "ca.pem")


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes and what its fields hold."""

    def __init__(self, text):
        super().__init__()
        self.action, self.method, self.fields, self.kinds = None, "get", {}, {}
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = attrs.get("action", "")
            self.method = attrs.get("method", "get").lower()
            self.open = True
        elif tag == "input" and self.open and "name" in attrs:
            self.fields[attrs["name"]] = attrs.get("value", "")
            self.kinds[attrs["name"]] = attrs.get("type", "text")
        elif tag == "button" and self.open and "name" in attrs:
            self.fields[attrs["name"]] = attrs.get("value", "")

    def handle_endtag(self, tag):
        if tag == "form":
            self.open = False


NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) flow test",
}


class Browser:
    def __init__(self, trial):
        self.trial = trial
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = trial.ca if trial else False
        self.trail = []  # (status, url) of each hop since the last get

    def one(self, url, method="GET", **kwargs):
        headers = {**NAVIGATION, **kwargs.pop("headers", {})}
        answer = self.session.request(method, url, headers=headers, allow_redirects=False, timeout=30 * PATIENCE, **kwargs)
        self.trail.append((answer.status_code, url))
        return answer

    def follow(self, answer, most=20):
        for _ in range(most):
            if answer.status_code not in (301, 302, 303, 307, 308):
                return answer
            answer = self.one(urllib.parse.urljoin(answer.url, answer.headers["Location"]))
        raise AssertionError(f"more than {most} redirects: {self.trail}")

    def get(self, url, **kwargs):
        """As a person opens a page: navigation headers, redirects followed."""
        self.trail = []
        return self.follow(self.one(url, **kwargs))

    def follow_to(self, url, there):
        """As get, but stops before there, an address's beginning; the whole address."""
        while not url.startswith(there):
            url = urllib.parse.urljoin(url, self.one(url).headers["Location"])
        return url

    def fetch(self, url, method="GET", **kwargs):
        """As a script in a page: one request, no redirect."""
        headers = {"Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty",
                   **kwargs.pop("headers", {})}
        return self.session.request(method, url, headers=headers, allow_redirects=False, timeout=30 * PATIENCE, **kwargs)

    def submit(self, page, **values):
        form = Form(page.text)
        assert form.action is not None, f"no form in {page.status_code} {page.url}:\n{page.text[:2000]}"
        data = {**form.fields, **values}
        url = urllib.parse.urljoin(page.url, form.action)
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(page.url))
        if form.method == "post":
            return self.follow(self.one(url, "POST", data=data, headers={
                "Origin": origin, "Sec-Fetch-Site": "same-origin", "Referer": page.url}))
        return self.follow(self.one(url + "?" + urllib.parse.urlencode(data)))

    def login_on(self, page, email, password):
        """Fills in the login form that page shows."""
        form = Form(page.text)
        values = {}
        for name, kind in form.kinds.items():
            if kind == "password":
                values[name] = password
            elif kind in ("email", "text"):
                values[name] = email
        assert len(values) == 2, f"no login form in {page.status_code} {page.url}:\n{page.text[:2000]}"
        return self.submit(page, **values)

    def login(self, url, email, password=None):
        """Opens url, logs in, returns the page at the end."""
        password = password or self.trial.accounts()[email]
        return self.login_on(self.get(url), email, password)

    def cookie(self, host):
        """Cookie header that goes to host."""
        jar = self.session.cookies
        return "; ".join(f"{c.name}={c.value}" for c in jar if c.domain.lstrip(".").startswith(host))


def tls(trial):
    context = ssl.create_default_context(cafile=trial.ca)
    return context
