"""Verdicts for another proxy: behind Debian's nginx with the configuration of docs/migrate-forward-auth.md, and
question by question as other proxies ask."""

import json
import re
import socket
import ssl
import subprocess
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from behind import Behind, manual, replaced
from stand import Stand, Upstream, header, raw_request
from trial import wait_for

USER, ADMIN = "user@example.com", "admin@example.com"


class Nginx(Behind):
    def front(self):
        d, conf = self.folder, f"{self.folder}/nginx.conf"
        with open(conf, "w") as f:
            f.write(f"daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.log info;\n"
                    "events {}\nhttp {\naccess_log off;\n"
                    + "".join(f"{k}_temp_path {d}/nginx-{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                    + self.servers() + "}\n")
        return subprocess.Popen(["/usr/sbin/nginx", "-p", d, "-c", conf], stderr=subprocess.DEVNULL)

    def servers(self):
        """The manual's, once for each application; the login host is one more application of Postern's."""
        upstream, server = manual("migrate-forward-auth.md", "nginx").split("\n\n", 1)
        server = replaced(server, {"listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl", "/etc/ssl/app.crt": self.ca,
                                     "/etc/ssl/app.key": self.key, "http://127.0.0.1:3000": f"http://127.0.0.1:{self.app}"})
        login = (f"server {{ listen 127.0.0.1:{self.port} ssl; server_name authenticate.localhost; ssl_certificate {self.ca};\n"
                 f"ssl_certificate_key {self.key}; location / {{ proxy_pass http://postern; proxy_set_header Host $http_host;\n"
                 "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; } }\n")
        return (upstream.replace("127.0.0.1:8080", f"127.0.0.1:{self.inner}") + "\n" + login +
                "".join(server.replace("app.example.com", f"{n}.localhost") for n in ("app", "admin", "public")))


@pytest.fixture(scope="module")
def stand():
    app = Upstream()
    only_admins = "policy: [{allow: {or: [{email: {is: admin@example.com}}]}}]"
    s = Nginx(f"""
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{app.port}", prefix: /admin, {only_admins}}}
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{app.port}", prefix: /open, allow_public_unauthenticated_access: true}}
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{app.port}
    allow_any_authenticated_user: true
    pass_identity_headers: true
  - {{from: "https://admin.localhost:PORT", to: "http://127.0.0.1:{app.port}", {only_admins}}}
  - {{from: "https://public.localhost:PORT", to: "http://127.0.0.1:{app.port}", allow_public_unauthenticated_access: true}}
  - {{from: "https://ci.localhost:PORT", to: "http://127.0.0.1:{app.port}", bearer_token_format: jwt, policy: [{{allow: {{or: [{{user: ci/repo}}]}}}}]}}
""")
    s.ci = ec.generate_private_key(ec.SECP256R1())
    with open(f"{s.folder}/ci.json", "w") as f:
        json.dump({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(s.ci.public_key()))]}, f)
    s.settings = ("trusted_proxies: [127.0.0.1]\nforward_auth_from: [127.0.0.1]\nidentity_providers: {ci: {issuer: https://ci.example, "
                  f"audiences: [us], jwks_file: {s.folder}/ci.json, supported_algs: [ES256]}}}}\n")
    s.write_config()
    s.app = app.port
    s.upstream = app
    s.start()
    yield s
    s.stop()
    app.close()


def through_nginx(stand, data, name="app.localhost"):
    context = ssl.create_default_context(cafile=stand.ca)
    got = raw_request(stand.port, data.replace(b"PORT", str(stand.port).encode()), context, name)
    return int(got.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def person(stand):
    b = stand.browser()
    page = b.login(stand.url("app"), USER)
    assert page.status_code == 200 and page.url == stand.url("app")
    return b


def test_a_person_logs_in_and_the_application_hears_who_it_is(stand):
    b = stand.browser()
    b.session.cookies.set("theirs", "1", domain="app.localhost")
    page = b.login(stand.url("app", "/a/b?c=d%20e"), USER)
    assert page.status_code == 200 and page.url == stand.url("app", "/a/b?c=d%20e")
    head = page.json()["head"]
    assert head.startswith("GET /a/b?c=d%20e ")
    assert len(header(head, "X-Pomerium-Jwt-Assertion")) == 1 and header(head, "Cookie") == ["theirs=1"]
    assert b.get(stand.url("app", "/.pomerium/")).status_code == 200


def test_who_may_not_is_refused_and_a_script_is_not_redirected(stand, person):
    assert person.get(stand.url("app", "/admin/x")).status_code == 403
    assert person.get(stand.url("admin")).status_code == 403
    assert stand.browser().fetch(stand.url("app")).status_code == 401
    assert stand.browser().fetch(stand.url("app"), "POST").status_code == 401
    assert stand.browser().get(stand.url("public")).status_code == 200


def test_who_is_revoked_is_out_with_the_next_request(stand):
    b = stand.browser()
    assert b.login(stand.url("admin"), ADMIN).status_code == 200
    stand.cli("users", "revoke", ADMIN)
    assert b.fetch(stand.url("admin")).status_code == 401


@pytest.mark.parametrize("path", [
    "/admin", "/%61dmin", "/%61%64min/x", "//admin", "/x//admin", "/x/../admin", "/./admin", "/open/../admin", "/open/..;/admin",
    "/open/..%2fadmin", "/open%2f..%2fadmin", "/%2fadmin", "/admin%2f", "/open/%2e%2e/admin", "/open/%252e%252e/admin", "/%2e/admin",
    "/open/..%5cadmin", "/open/..\\admin", "/open;/../admin", "/open/.%2e;x=/admin", "/open/../admin%00", "/;/admin"])
def test_no_spelling_of_a_path_gets_past_its_rule(stand, person, path):
    before = len(stand.upstream.heads)
    cookie = person.cookie("app").encode()
    status = through_nginx(stand, b"GET " + path.encode() + b" HTTP/1.1\r\nHost: app.localhost:PORT\r\nCookie: " + cookie +
                           b"\r\nConnection: close\r\n\r\n")
    assert status in (400, 403, 404, 500) and len(stand.upstream.heads) == before


@pytest.mark.parametrize("lines", [
    "X-Original-URL: https://public.localhost:PORT/", "X-Original-Method: GET", "X-Forwarded-Uri: /open", "X-Forwarded-Method: GET",
    "X-Forwarded-Host: public.localhost:PORT", "X-Forwarded-For: 127.0.0.1", "X_Original_URL: https://public.localhost:PORT/",
    "X-Rewrite-URL: /open", "X-Original-URI: /open", "Content-Type: application/grpc", "Content-Type: application/grpc\r\nX-Original-URI: /",
    "Content-Type: application/grpc-web-text\r\nX-Rewrite-URL: /", "Content-Type: application/connect+json\r\nConnect-Protocol-Version: 1",
    "Content-Type: application/grpc\r\nContent-Type: application/grpc", "User-Agent: kubernetes/1", "Host: public.localhost:PORT",
    "Content-Type: application/grpc\r\nOrigin: a\r\nOrigin: b", "Connection: X-Original-URL, close", "Expect: 200-ok"])
def test_no_field_of_a_stranger_gets_past_a_rule(stand, lines):
    before = len(stand.upstream.heads)
    for path in ("/admin", "/robots.txt", "/"):
        status = through_nginx(stand, f"GET {path} HTTP/1.1\r\nHost: app.localhost:PORT\r\n{lines}\r\nConnection: close\r\n\r\n".encode())
        assert status >= 400
    assert len(stand.upstream.heads) == before


def test_a_name_in_the_request_line_is_the_one_that_counts(stand):
    """nginx serves admin.localhost here, while the Host field says public.localhost."""
    before = len(stand.upstream.heads)
    for line, host in ((b"admin", b"public"), (b"admin", b"admin")):
        status = through_nginx(stand, b"GET https://" + line + b".localhost/ HTTP/1.1\r\nHost: " + host +
                               b".localhost:PORT\r\nConnection: close\r\n\r\n", "admin.localhost")
        assert status >= 400
    assert len(stand.upstream.heads) == before


def test_what_a_client_says_of_itself_is_replaced(stand, person):
    told = person.get(stand.url("app"), headers={"X-Pomerium-Jwt-Assertion": "forged"}).json()["head"]
    assert "forged" not in told and len(header(told, "X-Pomerium-Jwt-Assertion")) == 1


def test_a_browser_cannot_ask_through_the_other_proxy(stand, person):
    for path in ("/.pomerium/auth/nginx?host=app.localhost", "/.pomerium/auth/traefik", "/postern-auth"):
        assert person.fetch(stand.url("app", path)).status_code == 404


def test_the_way_back_from_a_login_leads_to_the_same_host_alone(stand):
    b = stand.browser()
    where = stand.url("app", "/.pomerium/sign_in?pomerium_redirect_uri=")
    for back in ("https://evil.example/", f"https://app.localhost:{stand.port}.evil.example/", "//evil.example", "/a", "",
                 f"https://app.localhost:{stand.port}@evil.example/", f"http://app.localhost:{stand.port}/", stand.url("admin")):
        assert b.fetch(where + back).status_code == 400, back
    assert b.fetch(where + stand.url("app"), "POST").status_code == 405
    assert b.fetch(where + stand.url("app")).headers["Location"].startswith(stand.url("authenticate", "/.pomerium/sign_in?"))


# --- question by question -------------------------------------------------------------------------------------------

NGINX = "/.pomerium/auth/nginx?host=app.localhost"


def ask(stand, path, lines, host="postern", source="127.0.0.1", client="X-Forwarded-For: 203.0.113.9\r\n"):
    with socket.create_connection(("127.0.0.1", stand.inner), timeout=20, source_address=(source, 0)) as s:
        text = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{client}Connection: close\r\n" + "".join(line + "\r\n" for line in lines)
        s.sendall(text.replace("PORT", str(stand.port)).encode() + b"\r\n")
        got = b""
        while more := s.recv(65536):
            got += more
    return int(got.split(b" ", 2)[1]), got


def original(url="https://app.localhost:PORT/", method="GET"):
    return [f"X-Original-URL: {url}", f"X-Original-Method: {method}"]


def forwarded(uri="/", method="GET", host="app.localhost:PORT", proto="https"):
    return [f"X-Forwarded-Method: {method}", f"X-Forwarded-Proto: {proto}", f"X-Forwarded-Host: {host}", f"X-Forwarded-Uri: {uri}"]


NAVIGATION = ["Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]


def test_each_dialect_gets_its_answer(stand, person):
    cookie = ["Cookie: theirs=1; " + person.cookie("app") + "; more=2"]
    signin = f"https://app.localhost:{stand.port}/.pomerium/sign_in?pomerium_redirect_uri=https%3A%2F%2Fapp.localhost%3A{stand.port}%2F"
    for path, lines in ((NGINX, original()), ("/.pomerium/auth/traefik", forwarded()), ("/.pomerium/auth/caddy", forwarded())):
        status, got = ask(stand, path, lines + cookie)
        assert status == 200 and header(got, "Cookie") == ["theirs=1; more=2"], got
        assert len(header(got, "X-Pomerium-Jwt-Assertion")) == 1 and header(got, "Content-Length") == ["0"]
        status, got = ask(stand, path, lines + NAVIGATION)
        assert status == (401 if path == NGINX else 302) and header(got, "Location") == [signin]
        status, got = ask(stand, path, lines)
        assert status == 401 and not header(got, "Location")
    assert ask(stand, "/.pomerium/auth/traefik", forwarded("/admin/") + cookie)[0] == 403
    assert ask(stand, NGINX, original("https://app.localhost:PORT/admin/") + cookie)[0] == 403
    assert ask(stand, "/.pomerium/auth/traefik", forwarded(host="nobody.localhost"))[0] == 404
    denied = wait_for("the audit lines", lambda: [line for line in stand.logs("authorize") if line.get("path") == "/admin/"])
    assert all(line["event"] == "authorize check" and line["ip"] == "203.0.113.9" for line in denied)
    wait_for("the access line", lambda: [line for line in stand.logs("proxy") if line.get("path") == "/admin/" and
                                         line["decision"] == "deny" and line["authority"] == f"app.localhost:{stand.port}"])


def test_a_program_shows_a_token_and_the_application_does_not_see_it(stand):
    made = stand.cli("token", "create", "--service-account", "robot/backup", "--ttl", "2h").stdout.strip()
    wait_for("authorize to know the account",
             lambda: ask(stand, NGINX, original() + [f"X-Pomerium-Authorization: {made}"])[0] == 200)
    status, got = ask(stand, NGINX, original() + [f"Authorization: Bearer Pomerium-{made}"] + NAVIGATION)
    assert status == 200 and not header(got, "Authorization") and header(got, "X-Pomerium-Jwt-Assertion")
    status, got = ask(stand, NGINX, original() + [f"X-Pomerium-Authorization: {made}", "Authorization: Basic YTpi"])
    assert status == 200 and header(got, "Authorization") == ["Basic YTpi"]
    for bad in ("Bearer Pomerium-postern_nonsense", f"Bearer Pomerium-{made}x"):
        status, got = ask(stand, NGINX, original() + [f"Authorization: {bad}"] + NAVIGATION)
        assert status == 401 and not header(got, "Location")
    assert made not in str(stand.logs("proxy")) + str(stand.logs("authorize"))


def test_tokens_of_others_count_where_the_route_takes_them(stand):
    now = int(time.time())
    claims = {"iss": "https://ci.example", "aud": "us", "sub": "repo", "iat": now, "exp": now + 600}
    at = original("https://ci.localhost:PORT/")
    nginx = NGINX.replace("app.localhost", "ci.localhost")
    token = jwt.encode(claims, stand.ci, "ES256")
    status, got = ask(stand, nginx, at + [f"Authorization: Bearer {token}"] + NAVIGATION)
    assert status == 200 and not header(got, "Authorization")
    for wrong, expected in (({"aud": "else"}, 401), ({"exp": 1}, 401), ({"sub": "else"}, 403)):
        status, got = ask(stand, nginx, at + [f"Authorization: Bearer {jwt.encode({**claims, **wrong}, stand.ci, 'ES256')}"] + NAVIGATION)
        assert status == expected and not header(got, "Location"), wrong
    status, got = ask(stand, "/.pomerium/auth/traefik", forwarded(host="ci.localhost:PORT") + [f"Authorization: Bearer {token}"])
    assert status == 200
    assert ask(stand, NGINX, original() + [f"Authorization: Bearer {token}"])[0] == 401  # there it is the application's


@pytest.mark.parametrize("path, lines, cause", [
    (NGINX, [], "field-missing"), (NGINX, original()[:1], "field-missing"), (NGINX, original()[1:], "field-missing"),
    (NGINX, original() + original()[:1], "field-twice"), (NGINX, original() + original("x", "POST")[1:], "field-twice"),
    (NGINX, forwarded(), "mixed-fields"), (NGINX, original() + ["X-Forwarded-Uri: /"], "mixed-fields"),
    (NGINX, original() + ["X-Rewrite-URL: /"], "mixed-fields"), (NGINX, original("app.localhost:PORT/"), "bad-address"),
    (NGINX, original("ftp://app.localhost:PORT/"), "bad-address"), (NGINX, original("https://app.localhost:PORT"), "bad-address"),
    (NGINX, original("https://a@app.localhost:PORT/"), "bad-host"), (NGINX, original("https:///"), "bad-host"),
    (NGINX, original("https://admin.localhost:PORT/"), "host-mismatch"), ("/.pomerium/auth/nginx", original(), "host-mismatch"),
    (NGINX + "&host=x", original(), "host-mismatch"), ("/.pomerium/auth/nginx?host=", original(), "host-mismatch"),
    (NGINX, original("https://app.localhost:PORT//a"), "path-double-slash"), (NGINX, original("https://app.localhost:PORT/a/../b"), "dot-segment"),
    (NGINX, original("https://app.localhost:PORT/a%2fb"), "escaped-slash"), (NGINX, original("https://app.localhost:PORT/a#b"), "bad-target"),
    (NGINX, original("https://app.localhost:PORT/" + "a" * 17000), "target"), (NGINX, original(method="BREW"), "unknown-method"),
    (NGINX, original(method="CONNECT"), "refused-method"), (NGINX, original(method="TRACE"), "refused-method"),
    ("/.pomerium/auth/traefik", original(), "mixed-fields"), ("/.pomerium/auth/traefik", forwarded()[:3], "field-missing"),
    ("/.pomerium/auth/traefik", forwarded()[1:], "field-missing"), ("/.pomerium/auth/traefik", forwarded(uri="*"), "bad-target-form"),
    ("/.pomerium/auth/traefik", forwarded(uri="https://app.localhost/"), "bad-target-form"), ("/.pomerium/auth/traefik", forwarded(proto="ws"), "bad-address"),
    ("/.pomerium/auth/traefik", forwarded(host="app.localhost:PORT, public.localhost"), "bad-host"),
    ("/.pomerium/auth/caddy", forwarded() + ["X-Forwarded-Host: public.localhost:PORT"], "field-twice"),
    ("/.pomerium/auth/caddy", forwarded(host="public.localhost:PORT") + ["X-Original-URL: /"], "mixed-fields"),
])
@pytest.mark.parametrize("form", [[], ["Content-Type: application/grpc"], ["Content-Type: application/grpc-web+proto"], NAVIGATION])
def test_an_unclear_question_is_no_yes(stand, path, lines, cause, form):
    status, got = ask(stand, path, lines + form)
    assert status >= 400, got
    assert form == NAVIGATION or re.search(cause.encode(), got), got


@pytest.mark.parametrize("how", [
    dict(source="127.0.0.9"), dict(host="app.localhost:PORT"), dict(host="authenticate.localhost:PORT"), dict(client=""),
    dict(path="/.pomerium/auth/apache?host=public.localhost"), dict(path="/.pomerium/auth/"), dict(path="/.pomerium/auth/nginx/x?host=public.localhost"),
    dict(path="/.pomerium/auth/../auth/apache"), dict(client="X-Forwarded-For: nobody\r\n"), dict(client="X-Forwarded-For: 1.2.3.4\r\nUnder_score: 1\r\n"),
    dict(path="/.pomerium/auth/../../open"), dict(path="/.pomerium/auth/%2f")])
@pytest.mark.parametrize("form", [[], ["Content-Type: application/grpc"]])
def test_who_may_not_ask_gets_no_yes_even_about_what_is_open(stand, how, form):
    lines = original("https://public.localhost:PORT/") + form
    how = {"path": "/.pomerium/auth/nginx?host=public.localhost", **how}
    assert ask(stand, how.pop("path"), lines, **how)[0] >= 400
    assert ask(stand, "/.pomerium/auth/nginx?host=public.localhost", lines)[0] == 200


def test_without_a_verdict_nobody_gets_in(stand, person):
    stand.kill("authorize")
    try:
        assert ask(stand, NGINX, original() + ["Content-Type: application/grpc"])[0] == 503
        assert person.fetch(stand.url("app")).status_code == 500
        assert person.fetch(stand.url("public")).status_code == 500
    finally:
        stand.start_one("authorize")
        stand.wait_ready()
    wait_for("verdicts again", lambda: person.fetch(stand.url("app")).status_code == 200)


def test_it_is_off_until_it_is_set_and_only_for_those_whose_word_counts(upstream):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", "trusted_proxies: [127.0.0.1]\n", tls=False).start()
    try:
        s.inner = s.port
        assert ask(s, NGINX, original())[0] == 404
        assert [line for line in s.logs("proxy") if line.get("event") == "forward-auth.refused" and line["peer"] == "127.0.0.1"]
        with open(s.config) as f:
            text = f.read()
        with open(s.config, "w") as f:
            f.write(text + "forward_auth_from: [10.0.0.0/8]\n")
        refused = s.cli("validate", s.config, check=False)
        assert refused.returncode != 0 and "forward_auth_from" in refused.stdout + refused.stderr
    finally:
        s.stop()
