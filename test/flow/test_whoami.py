"""/.pomerium/whoami and `postern whoami`: how a client's address was found, for whoever is logged in."""

import json
import socket
import ssl

import pytest
from stand import Stand, Upstream, header, receive


@pytest.fixture(scope="module")
def stand():
    upstream = Upstream()
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy: [{{allow: {{or: [{{email: {{is: nobody@example.com}}}}]}}}}]
""", settings="trusted_proxies: [127.0.0.2, 10.0.0.0/8]\n").start()
    s.upstream = upstream
    yield s
    s.stop()
    upstream.close()


def ask(stand, lines="", source="127.0.0.1", host="app", method="GET", path="/.pomerium/whoami"):
    """(status line and fields, body) over a connection from source."""
    with socket.create_connection(("127.0.0.1", stand.port), timeout=20, source_address=(source, 0)) as s:
        with ssl.create_default_context(cafile=stand.ca).wrap_socket(s, server_hostname=f"{host}.localhost") as t:
            t.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}.localhost:{stand.port}\r\nConnection: close\r\n{lines}\r\n".encode())
            got = b""
            while b"\r\n\r\n" not in got:
                got += receive(t)
            head, body = got.split(b"\r\n\r\n", 1)
            while len(body) < int(header(head, "Content-Length")[0]):
                body += receive(t)
    return head, body


def cookie_of(stand, host="app"):
    browser = stand.browser()
    browser.login(stand.url("app"), "user@example.com", stand.accounts()["user@example.com"])
    if host != "app":
        browser.get(stand.url(host))
    return "; ".join(f"{c.name}={c.value}" for c in browser.session.cookies
                     if c.name == "__Host-_pomerium" and c.domain.startswith(host + "."))


def test_the_steps_are_told_to_whoever_is_logged_in(stand):
    cookie = f"Cookie: {cookie_of(stand)}\r\n"
    head, body = ask(stand, cookie + "X-Forwarded-For: 6.6.6.6\r\n")
    told = json.loads(body)
    assert head.startswith(b"HTTP/1.1 200") and header(head, "Cache-Control") == ["no-store"]
    assert told["email"] == "user@example.com" and told["address"] == "127.0.0.1"
    assert [s["source"] for s in told["steps"]] == ["connection"] and "not read" in told["remark"]
    assert b"6.6.6.6" not in body
    told = json.loads(ask(stand, cookie + "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.4\r\nX-Forwarded-Proto: http\r\n", "127.0.0.2")[1])
    assert told["address"] == "203.0.113.7" and told["scheme"] == "http"
    assert [(s["address"], s["trusted"]) for s in told["steps"]] == [
        ("127.0.0.2", True), ("10.0.0.4", True), ("203.0.113.7", False)]
    head, body = ask(stand, cookie + "Accept: text/html\r\n")
    assert header(head, "Content-Type")[0].startswith("text/html") and b"this is the client" in body
    assert "default-src 'none'" in header(head, "Content-Security-Policy")[0]
    assert ask(stand, cookie, method="POST")[0].startswith(b"HTTP/1.1 405")
    assert not stand.upstream.heads or all(b"whoami" not in h for h in stand.upstream.heads)


def test_also_where_the_rules_let_nobody_in(stand):
    cookie = cookie_of(stand, "admin")
    assert ask(stand, f"Cookie: {cookie}\r\n", host="admin", path="/")[0].startswith(b"HTTP/1.1 403")
    assert ask(stand, f"Cookie: {cookie}\r\n", host="admin")[0].startswith(b"HTTP/1.1 200")


def test_strangers_hear_nothing(stand):
    chain = "X-Forwarded-For: 203.0.113.7, 10.0.0.4\r\n"
    for source in ("127.0.0.1", "127.0.0.2"):
        head, body = ask(stand, chain, source)
        assert head.startswith(b"HTTP/1.1 401") and json.loads(body)["code"] == "login-needed"
        whole = head + body
        head, body = ask(stand, chain + "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", source)
        assert head.startswith(b"HTTP/1.1 302")
        for word in (b"203.0.113.7", b"10.0.0", b"127.0.0.", b"trusted"):
            assert word not in whole and word not in head + body, word
    # A cookie of another host is a stranger's.
    assert ask(stand, f"Cookie: {cookie_of(stand)}\r\n", host="admin")[0].startswith(b"HTTP/1.1 401")


def test_an_unreadable_chain_is_told_to_the_log(stand):
    assert ask(stand, "X-Forwarded-For: 203.0.113.7, <here>\r\n", "127.0.0.2")[0].startswith(b"HTTP/1.1 400")
    lines = [line for line in stand.logs("proxy") if line["event"] == "client-address.unclear"]
    assert lines and lines[-1]["no-address"] == "<here>" and lines[-1]["peer"] == "127.0.0.2"


def test_the_command_line_prints_the_same(stand, tmp_path):
    url = f"https://127.0.0.1:{stand.port}/"
    done = stand.cli("whoami", url, "--ca", stand.ca, check=False)
    assert done.returncode == 1 and "status" in done.stderr and "route" in done.stderr
    url = stand.url("app", "/some/page?x#y")
    done = stand.cli("whoami", url, "--ca", stand.ca, check=False)
    assert done.returncode == 1 and "logged in" in done.stderr and not done.stdout
    (tmp_path / "cookie").write_text(cookie_of(stand) + "\n")
    for more, env in ((("--cookie-file", str(tmp_path / "cookie")), {}), ((), {"POSTERN_COOKIE": cookie_of(stand)})):
        done = stand.cli("whoami", url, "--ca", stand.ca, *more, env=env)
        assert "user@example.com" in done.stdout and "1. Connection: 127.0.0.1, no trusted proxy: this is the client" in done.stdout
    done = stand.cli("whoami", url, check=False)
    assert done.returncode == 1 and "not trusted" in done.stderr
    done = stand.cli("whoami", url.replace("https:", "http:"), check=False, env={"POSTERN_COOKIE": cookie_of(stand)})
    assert done.returncode == 2 and "not https" in done.stderr
    for wrong in ("app.localhost", "http://127.0.0.1:1/", "https://"):
        done = stand.cli("whoami", wrong, check=False)
        assert done.returncode == 1 and done.stderr.startswith("postern: "), wrong
    assert stand.cli("whoami", check=False).returncode == 2
