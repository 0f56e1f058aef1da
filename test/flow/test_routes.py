"""What a route makes of paths, hosts, headers and refusals; the oracle is what the upstream received."""

import base64
import json
import ssl
import struct

import pytest
from h2client import H2Client
from stand import Stand, Upstream, header, raw_request, receive
from trial import wait_for

USER = "user@example.com"


def answer(head, body):
    """Tells the head back; /cors and /headers answer what the tests rewrite."""
    path = head.split(b" ")[1]
    if path.startswith(b"/headers"):
        return (b"HTTP/1.1 302 Found\r\nLocation: http://inner.example.com/x\r\nContent-Length: 0\r\n"
                b"Set-Cookie: x_pomerium=planted\r\nSet-Cookie: a=b\r\nSet-Cookie: =__Host-_pomerium=planted\r\n"
                b"Set-Cookie: == __Host-_pomerium = planted\r\nSet-Cookie: =c=d\r\nSet-Cookie: =\r\n\r\n")
    if path.startswith(b"/cors"):
        return (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n"
                b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Methods: BREW\r\n\r\nok")
    return Upstream.tell(head, body)


@pytest.fixture(scope="module")
def upstream():
    u = Upstream(answer=answer)
    yield u
    u.close()


@pytest.fixture(scope="module")
def api():
    """The part of an API server that switches protocols, then says what it hears in capitals."""
    def talk(s):
        got = b""
        while b"\r\n\r\n" not in got:
            got += receive(s)
        head, rest = got.split(b"\r\n\r\n", 1)
        u.heads.append(head)
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + header(head, "Upgrade")[0].encode() +
                  b"\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")
        while len(rest) < 5:
            rest += receive(s)
        s.sendall(rest.upper())
    u = Upstream(raw=talk)
    yield u
    u.close()


def route(path, upstream_port, more, public=True):
    who = "allow_public_unauthenticated_access: true" if public else "allow_any_authenticated_user: true"
    return f"""
  - from: https://{'public' if public else 'app'}.localhost:PORT
    {path}
    to: http://127.0.0.1:{upstream_port}
    {who}
{more}"""


@pytest.fixture(scope="module")
def stand(upstream, api, tmp_path_factory):
    token = tmp_path_factory.mktemp("k8s") / "token"
    token.write_text("sa-token-1\n")
    p = upstream.port
    routes = "".join([
        route("prefix: /plain-rewrite", p, "    prefix_rewrite: /base/\n"),
        route("prefix: /re/", p, "    regex_rewrite_pattern: ^/re/([^/]+)/(.*)$\n"
                                 "    regex_rewrite_substitution: /\\2/of/\\1\n"),
        route("prefix: /slow/", p, "    regex_rewrite_pattern: (a+)+[!?]\n    regex_rewrite_substitution: x\n"),
        route("prefix: /host-fixed/", p, "    host_rewrite: Fixed.Example.com:81\n"),
        route("prefix: /host-header/", p, "    host_rewrite_header: X-Host\n"),
        route("prefix: /host-path/", p, "    host_path_regex_rewrite_pattern: ^/host-path/([^/]*)/.*$\n"
                                        "    host_path_regex_rewrite_substitution: \\1\n"),
        route("prefix: /keep/", p, "    path_with_escaped_slashes_action: keep_unchanged\n"),
        route("prefix: /forward/", p, "    path_with_escaped_slashes_action: unescape_and_forward\n"),
        route("prefix: /redirect-slash/", p, "    path_with_escaped_slashes_action: unescape_and_redirect\n"),
        route("prefix: /strict/", p, ""),
        route("prefix: /own-words/", p, "    set_request_headers: {X-Forwarded-Proto: gopher, Cookie: own=1, x-request-id: mine}\n"
                                        "    remove_request_headers: [X-Forwarded-Host, X-Envoy-External-Address]\n"),
        route("prefix: /no-cookies/", p, "    remove_request_headers: [cookie]\n"),
        route("prefix: /names-allow/", p, "    headers_with_underscores_action: allow\n    allow_websockets: true\n"
              "    cors_allow_preflight: true\n    set_request_headers: {X-Tenant: ours}\n    remove_request_headers: [X-Gone]\n"),
        route("prefix: /names-drop/", p, "    headers_with_underscores_action: drop_header\n"),
        route("prefix: /headers", p, "    rewrite_response_headers:\n"
              "      - {header: Location, prefix: 'http://inner.example.com/', value: 'https://outer.example.com/'}\n"
              "      - {header: Set-Cookie, prefix: x, value: __Host-}\n"),
        route("prefix: /cors/pass", p, "    cors: {allow_origins: ['https://spa.example.com'], answer_preflight: false}\n"),
        route("prefix: /cors", p, "    cors: {allow_origins: ['https://spa.example.com', 'https://*.wild.example.com'],"
                                  " allow_credentials: true, allow_headers: [X-Mine], expose_headers: [X-Request-Id]}\n"),
        route("regex: ^/item/[0-9]+$", p, "    regex_priority_order: 1\n    set_request_headers: {X-Which: number}\n"),
        route("regex: ^/item/1.*$", p, "    regex_priority_order: 2\n    set_request_headers: {X-Which: one}\n"),
        """
  - from: https://public.localhost:PORT
    path: /moved
    redirect: {path_redirect: '/there?fixed=1', response_code: 308}
    allow_public_unauthenticated_access: true
  - from: https://public.localhost:PORT
    prefix: /old/
    redirect: {prefix_rewrite: /new/, host_redirect: 'Other.Example.com:444', response_code: 307}
    allow_public_unauthenticated_access: true
""",
        route("prefix: /private-cors", p, "    cors: {allow_origins: ['https://spa.example.com'], allow_credentials: true}\n",
              public=False),
        route("prefix: /cached/", p, "    set_response_headers: {Cache-Control: 'public, max-age=99', Date: x, X-Shown: '1',"
                                    " x-request-id: theirs}\n", public=False),
        route("prefix: /templates", p, """    set_request_headers:
      Authorization: Bearer ${pomerium.jwt}
      X-Mixed: 'pre-${pomerium.request.headers["X-Given"]}-$$'
      X-Cookie: '${pomerium.request.headers["Cookie"]}'
      X-Access: ${pomerium.access_token}
      X-Cert: ${pomerium.client_cert_fingerprint}
""", public=False),
        route("prefix: /api/v1/namespaces/", api.port, f"""    kubernetes_service_account_token_file: {token}
    allow_spdy: true
    allow_websockets: true
""", public=False),
        route("prefix: /api", p, f"    kubernetes_service_account_token_file: {token}\n", public=False),
        route("prefix: /", p, "", public=False),
    ])
    s = Stand(routes, users={USER: ["staff", "dev team", "system:masters"]}).start()
    s.token = token
    yield s
    s.stop()


@pytest.fixture(scope="module")
def person(stand):
    b = stand.browser()
    assert b.login(stand.url("app"), USER).status_code == 200
    return b


def ask(stand, path, host="public", fields="", method="GET", body=b""):
    """One raw request; the status and the whole answer."""
    context = ssl.create_default_context(cafile=stand.ca)
    head = (f"{method} {path} HTTP/1.1\r\nHost: {host}.localhost:{stand.port}\r\n{fields}Connection: close\r\n\r\n")
    got = raw_request(stand.port, head.encode() + body, context, f"{host}.localhost")
    return int(got[9:12]), got


def target(upstream):
    return upstream.heads[-1].split(b" ")[1].decode()


# ---- paths and hosts ----------------------------------------------------------------------------

def test_paths_are_rewritten_and_never_climb(stand, upstream):
    for path, want in (("/plain-rewrite/x?q=1", "/base/x?q=1"), ("/plain-rewrite", "/base/"), ("/plain-rewritex", "/base/x"),
                       ("/re/a/b/c?d", "/b/c/of/a?d"), ("/re/only", "/re/only"), ("/item/12", "/item/12")):
        assert ask(stand, path)[0] == 200, path
        assert target(upstream) == want
    seen = len(upstream.heads)
    for path in ("/plain-rewrite../secret", "/plain-rewrite..", "/plain-rewrite..;/x", "/plain-rewrite.",
                 "/slow/" + "a" * 60):
        assert ask(stand, path)[0] == 400, path
    assert len(upstream.heads) == seen


def test_regex_routes_by_priority(stand, upstream):
    for path, which in (("/item/12", "one"), ("/item/22", "number")):
        assert ask(stand, path)[0] == 200
        assert header(upstream.heads[-1], "X-Which") == [which]


def test_hosts_are_rewritten(stand, upstream):
    own = f"127.0.0.1:{upstream.port}"
    for path, fields, want in (("/strict/", "", own), ("/host-fixed/x", "", "fixed.example.com:81"),
                               ("/host-header/x", "X-Host: Given.Example.com\r\n", "given.example.com"),
                               ("/host-header/x", "", own), ("/host-path/in.the.path/x", "", "in.the.path"),
                               ("/host-path/", "", own)):
        assert ask(stand, path, fields=fields)[0] == 200, path
        assert header(upstream.heads[-1], "Host") == [want], path
        assert header(upstream.heads[-1], "X-Forwarded-Host") == [f"public.localhost:{stand.port}"]
    seen = len(upstream.heads)
    for path, fields in (("/host-header/x", "X-Host: a b\r\n"), ("/host-header/x", "X-Host: a\r\nX-Host: b\r\n"),
                         ("/host-header/x", "X-Host: u@evil\r\n"), ("/host-path/%20/x", ""), ("/host-path//x%3a0/y", "")):
        assert ask(stand, path, fields=fields)[0] == 400, (path, fields)
    assert len(upstream.heads) == seen


def test_escaped_slashes_by_route_have_one_reading(stand, upstream):
    for path, want in (("/keep/a%2Fb", "/keep/a%2Fb"), ("/keep/a%5cb", "/keep/a%5Cb"), ("/forward/a%2fb", "/forward/a/b")):
        assert ask(stand, path)[0] == 200, path
        assert target(upstream) == want
    status, got = ask(stand, "/redirect-slash/a%2Fb?q=1")
    assert status == 308 and b"/redirect-slash/a/b?q=1" in got
    seen = len(upstream.heads)
    for path in ("/strict/a%2Fb",           # the route's own word
                 "/keep%2Fa", "/keep/..%2Fstrict", "/keep/%2e%2e%2Fstrict/x", "/forward/..%2f..%2fkeep/x",
                 "/%2Fkeep/a", "/strict%2Fa", "/unknown/a%2Fb",
                 "/.pomerium%2Fuser", "/keep/..%5c..%5cstrict"):
        assert ask(stand, path)[0] in (400, 404), path
    assert len(upstream.heads) == seen
    assert ask(stand, "/api%2Fv1", host="app")[0] == 400
    assert ask(stand, "/a%2Fb", host="authenticate")[0] == 400


def test_underscores_by_route(stand, upstream):
    field = "X_Under_Score: 1\r\n"
    assert ask(stand, "/strict/", fields=field)[0] == 400
    assert ask(stand, "/names-allow/", fields=field)[0] == 200
    assert header(upstream.heads[-1], "X_Under_Score") == ["1"]
    assert ask(stand, "/names-drop/", fields=field)[0] == 200
    assert not header(upstream.heads[-1], "X_Under_Score")
    # What we speak for stays ours in every spelling, also where underscores are allowed.
    assert ask(stand, "/names-allow/", fields="X_Forwarded_For: 6.6.6.6\r\nX_Pomerium_Claim_Email: a\r\n")[0] == 200
    assert b"6.6.6.6" not in upstream.heads[-1] and b"X_Pomerium" not in upstream.heads[-1]
    assert ask(stand, "/ping", fields=field)[0] == 400


def test_a_route_has_the_last_word_about_the_headers_it_names(stand, upstream):
    fields = "Cookie: a=1\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-Host: theirs\r\n"
    assert ask(stand, "/own-words/", fields=fields)[0] == 200
    for name, want in (("X-Forwarded-Proto", ["gopher"]), ("Cookie", ["own=1"]), ("X-Request-Id", ["mine"]),
                       ("X-Forwarded-Host", []), ("X-Envoy-External-Address", []), ("X-Forwarded-For", ["127.0.0.1"])):
        assert header(upstream.heads[-1], name) == want, name
    assert ask(stand, "/no-cookies/", fields=fields)[0] == 200
    assert header(upstream.heads[-1], "Cookie") == []


def test_answers_of_the_proxy_say_nothing_twice(stand, upstream):
    status, got = ask(stand, "/cached/", fields="Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n", host="app")
    assert status == 302
    head = got.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert header(head, "Cache-Control") == ["no-store"] and header(head, "X-Shown") == ["1"], head
    assert len(header(head, "Date")) == 1 and header(head, "X-Request-Id") == ["theirs"], head
    status, got = ask(stand, "/nowhere", fields="Accept: text/html\r\n")
    assert status == 404 and got.lower().count(b"x-frame-options: ") == 1 and got.lower().count(b"x-request-id: ") == 1


def test_a_redirect_to_the_one_spelling_leads_to_no_other_host(upstream):
    s = Stand(f"""
  - from: http://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
""", settings="merge_slashes: false\npath_with_escaped_slashes_action: unescape_and_redirect\n", tls=False).start()
    for path, want in (("/%2Fevil.example/", f"//public.localhost:{s.port}//evil.example/"), ("/a%2Fb?q", "/a/b?q"),
                       ("/%5Cevil.example", f"//public.localhost:{s.port}//evil.example")):
        data = f"GET {path} HTTP/1.1\r\nHost: public.localhost:{s.port}\r\nConnection: close\r\n\r\n"
        got = raw_request(s.port, data.encode(), None, "")
        assert got.startswith(b"HTTP/1.1 308 ") and header(got, "Location") == [want]
    s.stop()


OURS = ["X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email", "X-Pomerium-Anything", "X-Forwarded-For", "X-Forwarded-Proto",
        "X-Forwarded-Host", "X-Forwarded-User", "X-Real-Ip", "Forwarded", "X-Request-Id", "X-Original-Url", "X-Rewrite-Url",
        "X-Envoy-External-Address", "Remote-User", "X-Remote-User", "True-Client-Ip", "Client-Ip", "Proxy", "X-Tenant", "X-Gone"]


def spellings(name):
    """As CGI, WSGI, PHP and their kin read the one name."""
    odd = {name.replace("-", c) for c in "_.~!|^`"} | {name.replace("-", "_", 1)} if "-" in name else set()
    return odd | {s.upper() for s in odd} | {s.lower() for s in odd} | {name, name.upper(), name.lower(), name.swapcase()}


@pytest.mark.parametrize("kind", ["request", "preflight", "websocket", "stream"])
def test_no_spelling_of_our_headers_passes_where_underscores_do(stand, upstream, kind):
    seen = len(upstream.heads)
    for name in OURS:
        given = sorted({s.lower() for s in spellings(name)} if kind == "stream" else spellings(name))
        if kind == "stream":
            c = H2Client(stand.port)
            assert c.get("/names-allow/", headers=[(s, "evil-value") for s in given]).status == 200
            c.close()
            continue
        fields = "".join(f"{s}: evil-value\r\n" for s in given if name != "X-Pomerium-Jwt-Assertion" or s != s.lower())
        more = {"request": f"Connection: {given[0]}, {given[-1]}\r\n", "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\n",
                "preflight": "Origin: https://x.example\r\nAccess-Control-Request-Method: PUT\r\n"}[kind]
        for field in fields.split("\r\n")[:-1] if "Assertion" in name else [fields.removesuffix("\r\n")]:
            assert ask(stand, "/names-allow/", fields=field + "\r\n" + more, method="OPTIONS" if kind == "preflight" else "GET")[0] == 200
    assert len(upstream.heads) > seen
    for head in upstream.heads[seen:]:
        assert b"evil-value" not in head, head
        assert header(head, "X-Tenant") == ["ours"] and header(head, "X-Forwarded-For") == ["127.0.0.1"]


def test_redirects(stand):
    status, got = ask(stand, "/moved?q=1")
    assert status == 308 and f"Location: https://public.localhost:{stand.port}/there?fixed=1\r\n".encode() in got
    status, got = ask(stand, "/old/a?q=1")
    assert status == 307 and b"Location: https://other.example.com:444/new/a?q=1\r\n" in got


def test_headers_of_answers_are_rewritten_but_plant_no_session(stand):
    status, got = ask(stand, "/headers")
    assert status == 302 and b"Location: https://outer.example.com/x\r\n" in got
    assert b"planted" not in got and b"Set-Cookie: a=b" in got


# ---- templates ----------------------------------------------------------------------------------

def test_templates_hold_what_is_true_for_this_visitor(stand, upstream, person):
    person.fetch(stand.url("app", "/templates"), headers={"X-Given": "given", "Authorization": "Basic eA==",
                                                          "X-Mixed": "mine", "X-Access": "mine", "X-Cert": "mine"})
    head = upstream.heads[-1]
    scheme, token = header(head, "Authorization")[0].split(" ")
    assert scheme == "Bearer"
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["email"] == USER and claims["aud"] == "app.localhost"
    assert header(head, "X-Mixed") == ["pre-given-$"]
    assert not header(head, "X-Pomerium-Jwt-Assertion")
    # No such token here: neither an empty header nor the client's own.
    for name in ("X-Access", "X-Cert", "X-Cookie"):
        assert not header(head, name), name
    assert b"_pomerium" not in head and b"mine" not in head
    person.fetch(stand.url("app", "/templates"))
    assert not header(upstream.heads[-1], "X-Mixed")


# ---- CORS ---------------------------------------------------------------------------------------

def fields_of(got):
    found = {}
    for line in got.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found.setdefault(name.decode().lower(), []).append(value.strip().decode())
    return found


PREFLIGHT = "Origin: {}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-mine\r\n"


def test_preflights_are_answered_without_login_and_upstream(stand, upstream):
    seen = len(upstream.heads)
    for origin in ("https://spa.example.com", "https://a.wild.example.com"):
        status, got = ask(stand, "/cors", method="OPTIONS", fields=PREFLIGHT.format(origin))
        f = fields_of(got)
        assert status == 204 and f["access-control-allow-origin"] == [origin]
        assert f["access-control-allow-credentials"] == ["true"] and f["access-control-allow-headers"] == ["X-Mine"]
        assert "PUT" in f["access-control-allow-methods"][0] and f["access-control-max-age"] == ["7200"]
        assert f["vary"] == ["Origin"]
    for origin in ("https://evil.example.com", "null", "https://wild.example.com"):
        status, got = ask(stand, "/cors", method="OPTIONS", fields=PREFLIGHT.format(origin))
        assert status == 403 and not [n for n in fields_of(got) if n.startswith("access-control")], got
    status, _ = ask(stand, "/private-cors", host="app", method="OPTIONS", fields=PREFLIGHT.format("https://spa.example.com"))
    assert status == 204 and len(upstream.heads) == seen


def test_answers_carry_what_the_block_says_and_nothing_else(stand):
    _, got = ask(stand, "/cors", fields="Origin: https://spa.example.com\r\n")
    f = fields_of(got)
    assert f["access-control-allow-origin"] == ["https://spa.example.com"] and "access-control-allow-methods" not in f
    assert f["access-control-expose-headers"] == ["X-Request-Id"]
    for origin in ("Origin: https://evil.example.com\r\n", ""):
        _, got = ask(stand, "/cors", fields=origin)
        assert not [n for n in fields_of(got) if n.startswith("access-control")], got
    # A preflight that is left to the application is answered by it.
    status, got = ask(stand, "/cors/pass", method="OPTIONS", fields=PREFLIGHT.format("https://spa.example.com"))
    assert status == 200 and fields_of(got)["access-control-allow-methods"] == ["BREW"]


def test_a_page_of_an_allowed_origin_can_read_why_it_was_refused(stand):
    status, got = ask(stand, "/private-cors", host="app", fields="Origin: https://spa.example.com\r\nSec-Fetch-Mode: cors\r\n")
    assert status == 401 and fields_of(got)["access-control-allow-origin"] == ["https://spa.example.com"]
    assert json.loads(got.split(b"\r\n\r\n", 1)[1])["code"] == "login-needed"
    status, got = ask(stand, "/private-cors", host="app", fields="Origin: https://evil.example.com\r\nSec-Fetch-Mode: cors\r\n")
    assert status == 401 and "access-control-allow-origin" not in fields_of(got)


# ---- refusals in the words of the client ----------------------------------------------------------

def test_rpc_clients_read_their_own_kind_of_error(stand):
    def post(kind, more=""):
        return ask(stand, "/svc/Method", host="app", method="POST", fields=f"Content-Type: {kind}\r\nContent-Length: 0\r\n{more}")
    status, got = post("application/grpc")
    assert status == 200 and fields_of(got)["grpc-status"] == ["16"]
    status, got = post("application/grpc-web+proto")
    body = got.split(b"\r\n\r\n", 1)[1]
    flag, size = struct.unpack(">BI", body[:5])
    assert status == 200 and flag == 0x80 and body[5:5 + size].startswith(b"grpc-status:16\r\n")
    status, got = post("application/grpc-web-text")
    assert base64.b64decode(got.split(b"\r\n\r\n", 1)[1])[0] == 0x80
    status, got = post("application/json", "Connect-Protocol-Version: 1\r\n")
    assert status == 401 and json.loads(got.split(b"\r\n\r\n", 1)[1])["code"] == "unauthenticated"
    status, got = post("application/connect+proto")
    body = got.split(b"\r\n\r\n", 1)[1]
    assert status == 200 and body[0] == 2 and json.loads(body[5:])["error"]["code"] == "unauthenticated"
    status, got = ask(stand, "/api", host="app", fields="User-Agent: kubectl/v1.30 (linux/amd64) kubernetes/abc\r\n")
    error = json.loads(got.split(b"\r\n\r\n", 1)[1])
    assert status == 401 and error["kind"] == "Status" and error["reason"] == "Unauthorized"


def test_robots_are_kept_out_of_what_needs_a_login(stand, upstream, person):
    status, got = ask(stand, "/robots.txt", host="app")
    assert status == 200 and got.endswith(b"User-agent: *\nDisallow: /\n")
    assert person.fetch(stand.url("app", "/robots.txt")).json()["head"].startswith("GET /robots.txt")


def test_keys_are_not_sent_twice(stand, person):
    first = person.fetch(stand.url("app", "/.well-known/pomerium/jwks.json"))
    assert first.status_code == 200 and first.headers["Cache-Control"] == "max-age=60"
    again = person.fetch(stand.url("app", "/.well-known/pomerium/jwks.json"), headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.content


# ---- Kubernetes -----------------------------------------------------------------------------------

IMPERSONATE = ("Impersonate-User", "impersonate_user", "IMPERSONATE.USER", "Impersonate-Group", "Impersonate-Uid",
               "Impersonate-Extra-scopes", "impersonate-extra.x")


def test_kubernetes_gets_the_visitor_and_nobody_else(stand, upstream, person):
    person.fetch(stand.url("app", "/api/v1/pods"), headers={"Authorization": "Bearer mine"})
    head = upstream.heads[-1]
    assert header(head, "Authorization") == ["Bearer sa-token-1"]
    assert header(head, "Impersonate-User") == [USER]
    # One line a group; Kubernetes' own names are nobody's to give.
    assert header(head, "Impersonate-Group") == ["staff", "dev team"]
    for name in IMPERSONATE:
        if "_" in name or "." in name.replace("Extra-scopes", ""):
            continue
        person.fetch(stand.url("app", "/api/v1/pods"), headers={name: "system:admin"})
        assert b"system:admin" not in upstream.heads[-1], name


def test_kubernetes_without_a_person_is_refused(stand, upstream):
    seen = len(upstream.heads)
    assert ask(stand, "/api/v1/pods", host="app")[0] == 401
    assert ask(stand, "/api/v1/pods", host="app", method="OPTIONS", fields=PREFLIGHT.format("https://x.y"))[0] in (401, 403)
    assert len(upstream.heads) == seen


@pytest.mark.parametrize("method, upgrade", [("POST", "SPDY/3.1"), ("GET", "websocket")])
def test_exec_and_port_forward_pass(stand, api, person, method, upgrade):
    context = ssl.create_default_context(cafile=stand.ca)
    head = (f"{method} /api/v1/namespaces/x/pods/y/exec?command=sh HTTP/1.1\r\nHost: app.localhost:{stand.port}\r\n"
            f"Cookie: {person.cookie('app')}\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\nhello")
    got = raw_request(stand.port, head.encode(), context, "app.localhost", 5)
    assert got.startswith(b"HTTP/1.1 101") and got.endswith(b"HELLO"), got
    assert header(api.heads[-1], "X-Stream-Protocol-Version") == ["v4.channel.k8s.io", "v3.channel.k8s.io"]
    assert header(api.heads[-1], "Impersonate-User") == [USER]
    assert header(api.heads[-1], "Authorization")[0].startswith("Bearer sa-token")


def test_the_service_accounts_token_is_read_again_when_it_changes(stand, upstream, person):
    def token():
        person.fetch(stand.url("app", "/api"))
        return header(upstream.heads[-1], "Authorization")
    new = stand.token.with_suffix(".new")
    new.write_text("sa-token-2")
    new.rename(stand.token)
    wait_for("the new token", lambda: token() == ["Bearer sa-token-2"], 20)
    stand.token.write_text("broken token\n")  # refused: the last good one stays
    wait_for("the refusal", lambda: any(line.get("event") == "config.rejected" for line in stand.logs("proxy")), 20)
    assert token() == ["Bearer sa-token-2"]
    assert not any("sa-token" in json.dumps(line) for line in stand.logs("proxy"))
