"""What tests of tunnels share: routes, other ends, CONNECT by hand, the login of a program."""

import base64
import hashlib
import os
import re
import signal
import socket
import subprocess
import urllib.parse

from sanitize import PATIENCE
from stand import PASSWORD, TlsClient, read_all, receive
from trial import POSTERN, ROOT, Form, wait_for

STAFF = "    policy:\n      - allow: {or: [{groups: {has: staff}}]}\n"
ADMINS = "    policy:\n      - allow: {or: [{groups: {has: admins}}]}\n"
BACK = "http://127.0.0.1:41234/here?x=1"
DB, DB2, INNER = "db.localhost:5432", "db.localhost:6000", "inner:22"
PUBLIC = "    allow_public_unauthenticated_access: true\n"
BULK = os.urandom(1 << 20) * 64


def route(port, authority="db.localhost:5432", more=PUBLIC, to=None):
    return f"  - from: tcp+https://{authority}\n    to: {to or f'tcp://127.0.0.1:{port}'}\n{more}"


def echo(s):
    while True:
        data = s.recv(65536)
        if not data:
            break
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)


def echoed(c, rest, data):
    """The other end says data again, and ends when it is told the end."""
    while len(rest) < len(data):
        rest += receive(c)
    assert rest == data
    c.half_close()
    assert read_all(c) == b""
    c.close()


def connect_head(authority, headers=""):
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n".encode()


def read_head(c):
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(c)
    head, rest = data.split(b"\r\n\r\n", 1)
    return head.decode(), rest


def ask(stand, authority, headers="", name="db.localhost", behind=b""):
    """A CONNECT of HTTP/1.1: the connection, the answer's head and what came behind it."""
    c = TlsClient(stand, name)
    c.sendall(connect_head(authority, headers) + behind)
    head, rest = read_head(c)
    return c, head, rest


def tunnel(stand, authority="db.localhost:5432", headers="", name="db.localhost", behind=b""):
    c, head, rest = ask(stand, authority, headers, name, behind)
    assert head.startswith("HTTP/1.1 200 "), head
    assert "content-length" not in head.lower() and "transfer-encoding" not in head.lower()
    return c, rest


def refused(stand, authority, headers="", name="db.localhost", behind=b""):
    """The status and everything that came until the proxy closed."""
    c, head, rest = ask(stand, authority, headers, name, behind)
    rest += read_all(c)
    c.close()
    assert "connection: close" in head.lower()
    return int(head.split()[1]), rest.decode()


def access_lines(stand, **wanted):
    return [line for line in stand.logs("proxy") if line.get("event", line.get("message")) == "http-request" and
            all(line.get(k.replace("_", "-")) == v for k, v in wanted.items())]


def verifier():
    text = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    return text, base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def api(stand, host, what, **values):
    query = urllib.parse.urlencode({"pomerium_" + k: v for k, v in values.items() if v is not None})
    return stand.browser().fetch(f"https://{host}.localhost:{stand.port}/.pomerium/api/v1/{what}?{query}")


def address(stand, host, tunnel=None, binding=None, back=BACK):
    answer = api(stand, host, "login", redirect_uri=back, tunnel=tunnel, binding=binding)
    assert answer.status_code == 200, answer.text
    assert answer.text == answer.text.strip() and answer.headers["Content-Type"].startswith("text/plain")
    return answer.text


def question(browser, url, email="user@example.com"):
    """The page that asks whether the program may go in; logs in where that is needed."""
    page = browser.get(url)
    if "password" in Form(page.text).fields:
        page = browser.login_on(page, email, PASSWORD)
    assert page.status_code == 200 and "Let a program in?" in page.text, page.text
    return page


def say_yes(browser, page):
    """The parameters of the address that the browser is sent to."""
    form = Form(page.text)
    answer = browser.one(urllib.parse.urljoin(page.url, form.action), "POST", data=form.fields, headers={
        "Origin": "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(page.url))})
    assert answer.status_code == 303, answer.text
    back = answer.headers["Location"]
    assert back.startswith(BACK + "&"), back
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query))


def token(stand, host, tunnel=None, browser=None, email="user@example.com"):
    secret, binding = verifier()
    b = browser or stand.browser()
    code = say_yes(b, question(b, address(stand, host, tunnel, binding), email))["pomerium_code"]
    answer = api(stand, host, "token", code=code, verifier=secret, tunnel=tunnel)
    assert answer.status_code == 200, answer.text
    return answer.text


def with_token(text):
    return f"Authorization: Pomerium {text}\r\n"


def opens(stand, authority, host, headers):
    c, rest = tunnel(stand, authority, headers, host + ".localhost", behind=b"x")
    echoed(c, rest, b"x")


def proxy_of(stand, authority):
    return f"https://{authority.split(':')[0]}.localhost:{stand.port}".replace(".localhost.localhost", ".localhost")


class Client:
    """`postern tcp`; its browser is a program that writes the address into a file."""

    def __init__(self, stand, home, *args, env=None, dest=DB, proxy=True, stdio=False):
        self.opened = os.path.join(home, "opened")
        browser = os.path.join(home, "browser")
        with open(browser, "w") as f:
            f.write(f'#!/bin/sh\necho "$1" >>{self.opened}\n')
        os.chmod(browser, 0o755)
        command = [POSTERN, "tcp", dest, "--ca", stand.ca, "--browser-cmd", browser]
        command += ["--proxy-url", proxy_of(stand, dest)] if proxy else []
        command += ["--listen", "-"] if stdio else []
        clean = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "POSTERN_TUNNEL_TOKEN")}
        self.errors = open(os.path.join(home, f"stderr-{id(self)}"), "w+b")
        self.process = subprocess.Popen(command + list(args), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        env={**clean, "HOME": home, **(env or {})})
        if not stdio:
            line = self.process.stdout.readline().decode()
            assert line, self.said()
            self.port = int(re.match(r"127\.0\.0\.1:(\d+) leads to ", line).group(1))

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 30 * PATIENCE)

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def addresses(self):
        if not os.path.exists(self.opened):
            return []
        with open(self.opened) as f:
            return f.read().split()

    def log_in(self, stand, n=1, email="user@example.com", cert=None):
        """Does in a browser what the person does."""
        wait_for("the browser to be opened", lambda: len(self.addresses()) >= n)
        b = stand.browser()
        b.session.cert = cert
        page = question(b, self.addresses()[n - 1], email)
        form = Form(page.text)
        return b.follow(b.one(urllib.parse.urljoin(page.url, form.action), "POST", data=form.fields, headers={
            "Origin": "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(page.url))}))

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20 * PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()
        text = self.said()
        self.errors.close()
        assert "Sanitizer" not in text and "runtime error" not in text, text
        return text


def says(s, data):
    s.sendall(data)
    got = b""
    while len(got) < len(data):
        got += receive(s)
    assert got == data
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == b""
    s.close()
