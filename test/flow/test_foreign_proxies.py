"""Caddy, Envoy, and nginx as ingress-nginx sets it up, in front of the applications, with the configuration of our
manual: they ask, and forward themselves."""

import json
import os
import re
import ssl
import subprocess
import textwrap
import time

import jwt
import pytest
import requests
from behind import Behind, manual, replaced
from cryptography.hazmat.primitives.asymmetric import ec
from foreign import token
from stand import Upstream, header, raw_request
from trial import ROOT, free_port, wait_for

USER, ADMIN = "user@example.com", "admin@example.com"
APPS = ("app", "admin", "public", "ci")


class Caddy(Behind):
    tool = "caddy.sh"
    deep = "/a/b?c=d%20e"
    unknown = 401  # what a script gets that is nobody

    def front(self):
        block = replaced(manual("migrate-forward-auth.md", having="forward_auth postern"), {
            "app.example.com": ", ".join(f"https://{app}.localhost:{self.port}" for app in APPS), "postern:8080": f"127.0.0.1:{self.inner}",
            "app:3000": f"127.0.0.1:{self.app}"})
        tls = f" {{\n    tls {self.ca} {self.key}\n"
        with open(f"{self.folder}/Caddyfile", "w") as f:
            f.write("{\n    admin off\n    auto_https off\n    persist_config off\n}\n" + block.replace(" {\n", tls, 1)
                    + f"https://authenticate.localhost:{self.port}{tls}    reverse_proxy 127.0.0.1:{self.inner}\n}}\n")
        return self.run([self.program, "run", "--config", f"{self.folder}/Caddyfile"])

    def run(self, command):
        with open(f"{self.folder}/front.log", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env={
                **os.environ, "HOME": self.folder, "XDG_DATA_HOME": self.folder, "XDG_CONFIG_HOME": self.folder})


class Ingress(Caddy):
    """What the controller makes of the annotations. It escapes the address to come back to by a module that Debian lacks."""
    deep = "/a/b"
    unknown = 302  # auth-signin takes all 401 for a page

    def front(self):
        said = dict(re.findall(r'nginx.ingress.kubernetes.io/([a-z-]+): "?([^"\n]+)', manual("migrate-forward-auth.md", "yaml", "auth-url")))
        url = replaced(said["auth-url"], {"postern-proxy.postern.svc.cluster.local:8080": f"127.0.0.1:{self.inner}"})
        signin = replaced(said["auth-signin"], {"$host/": f"$host:{self.port}/"})
        kept = [(name, f"$kept{i}") for i, name in enumerate(said["auth-response-headers"].split(","))]
        d, forwarded = self.folder, "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"
        with open(f"{d}/front.conf", "w") as f:
            f.write(f"daemon off; master_process off; pid {d}/nginx.pid; error_log {d}/nginx.log info;\nevents {{}}\nhttp {{\naccess_log off;\n"
                    + "".join(f"{k}_temp_path {d}/nginx-{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                    + f"""server {{
    listen 127.0.0.1:{self.port} ssl;
    ssl_certificate {self.ca};
    ssl_certificate_key {self.key};
    server_name {" ".join(app + ".localhost" for app in APPS)};
    location = /_external-auth {{
        internal;
        proxy_pass_request_body off;
        proxy_http_version 1.1;
        proxy_set_header Content-Length "";
        proxy_set_header Host 127.0.0.1;
        proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Sent-From nginx-ingress-controller;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Auth-Request-Redirect $request_uri;
        set $target {url};
        proxy_pass $target;
    }}
    location / {{
        auth_request /_external-auth;
        {" ".join(f"auth_request_set {var} $upstream_http_{name.lower().replace('-', '_')}; proxy_set_header {name} {var};" for name, var in kept)}
        error_page 401 = {signin}?{said["auth-signin-redirect-param"]}=$scheme://$http_host$request_uri;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
        {forwarded}
        proxy_pass http://127.0.0.1:{self.app};
    }}
    location /.pomerium/ {{ proxy_pass http://127.0.0.1:{self.inner}; proxy_set_header Host $http_host; {forwarded} }}
}}
server {{
    listen 127.0.0.1:{self.port} ssl;
    ssl_certificate {self.ca};
    ssl_certificate_key {self.key};
    server_name authenticate.localhost;
    location / {{ proxy_pass http://127.0.0.1:{self.inner}; proxy_set_header Host $http_host; {forwarded} }}
}}
}}
""")
        return self.run([self.program, "-p", d, "-c", f"{d}/front.conf"])


class Envoy(Caddy):
    tool = "envoy.sh"

    def __init__(self, *args, **more):
        super().__init__(*args, authorizes=2, **more)
        self.foreign = free_port()
        self.env["authorize-2"] = {"GRPC_ADDRESS": f"127.0.0.1:{self.foreign}"}

    def front(self):
        with open(f"{self.folder}/ca.pem", "w") as f:
            f.write(self.cli("ca").stdout)
        block = replaced(manual("ext-authz.md", "yaml", "http_filters"), {
            "Bearer postern_...": "Bearer " + token(self, "checker"), "/etc/envoy/postern-ca.pem": f"{self.folder}/ca.pem",
            "address: authorize.internal, port_value: 5443": f"address: 127.0.0.1, port_value: {self.foreign}"})
        filters, clusters = block.split("clusters:\n")
        off = ('typed_per_filter_config: {envoy.filters.http.ext_authz: {"@type": type.googleapis.com/envoy.extensions.filters.http.'
               'ext_authz.v3.ExtAuthzPerRoute, disabled: true}}')
        text = f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {self.port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{{certificate_chain: {{filename: {self.ca}}}, private_key: {{filename: {self.key}}}}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          use_remote_address: true
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - {{name: login, domains: ["authenticate.localhost:{self.port}"], routes: [{{match: {{prefix: /}}, route: {{cluster: postern}}, {off}}}]}}
            - name: apps
              domains: ["*"]
              routes:
              - {{match: {{prefix: /.pomerium/}}, route: {{cluster: postern}}, {off}}}
              - {{match: {{prefix: /.well-known/pomerium/}}, route: {{cluster: postern}}, {off}}}
              - {{match: {{prefix: /}}, route: {{cluster: app}}}}
{textwrap.indent(filters, "          ")}
            - {{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
  clusters:
{textwrap.indent(clusters, "  ")}
""" + "".join(f"    - {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: "
              f"{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}\n" for name, port in (("postern", self.inner), ("app", self.app)))
        with open(f"{self.folder}/front.yaml", "w") as f:
            f.write(text)
        return self.run([self.program, "-c", f"{self.folder}/front.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warn"])


def answer(head, body):
    """Says what it got, or takes up another protocol."""
    if header(head, "Upgrade"):
        return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    return Upstream.tell(head, body)


@pytest.fixture(scope="module", params=[Caddy, Ingress, Envoy], ids=lambda front: front.__name__.lower())
def stand(request):
    front = request.param
    program = "/usr/sbin/nginx"
    if front is not Ingress:
        done = subprocess.run([os.path.join(ROOT, "test/support", front.tool)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"{front.__name__} cannot be had here: " + done.stderr[-300:])
        program = done.stdout.strip()
    app = Upstream(answer)
    only_admins = "policy: [{allow: {or: [{email: {is: admin@example.com}}]}}]"
    s = front(f"""
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{app.port}", prefix: /admin, {only_admins}}}
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{app.port}
    allow_any_authenticated_user: true
    pass_identity_headers: true
  - {{from: "https://admin.localhost:PORT", to: "http://127.0.0.1:{app.port}", {only_admins}}}
  - {{from: "https://public.localhost:PORT", to: "http://127.0.0.1:{app.port}", allow_public_unauthenticated_access: true}}
  - from: https://ci.localhost:PORT
    to: http://127.0.0.1:{app.port}
    bearer_token_format: jwt
    policy: [{{allow: {{or: [{{user: ci/repo}}]}}}}]
""", names=("ci.localhost",))
    s.program, s.app, s.upstream = program, app.port, app
    s.ci = ec.generate_private_key(ec.SECP256R1())
    with open(f"{s.folder}/ci.json", "w") as f:
        json.dump({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(s.ci.public_key()))]}, f)
    s.settings = ("trusted_proxies: [127.0.0.1]\nforward_auth_from: [127.0.0.1]\nidentity_providers: {ci: {issuer: https://ci.example, "
                  f"audiences: [us], jwks_file: {s.folder}/ci.json, supported_algs: [ES256]}}}}\n")
    s.write_config()
    s.start()
    yield s
    s.stop()
    app.close()


@pytest.fixture(scope="module")
def person(stand):
    b = stand.browser()
    page = b.login(stand.url("app"), USER)
    assert page.status_code == 200 and page.url == stand.url("app"), (page.url, page.text[:500])
    return b


def raw(stand, data, name="app.localhost"):
    """Status of the answer; "PORT" is replaced."""
    context = ssl.create_default_context(cafile=stand.ca)
    context.set_alpn_protocols(["http/1.1"])
    got = raw_request(stand.port, data.replace(b"PORT", str(stand.port).encode()), context, name, seconds=3)
    return int(got.split(b" ", 2)[1]) if got else 0


def test_a_person_logs_in_and_the_application_hears_who_it_is(stand):
    b = stand.browser()
    b.session.cookies.set("theirs", "1", domain="app.localhost")
    page = b.login(stand.url("app", stand.deep), USER)
    assert page.status_code == 200 and page.url == stand.url("app", stand.deep)
    head = page.json()["head"]
    assert head.startswith(f"GET {stand.deep} ")
    said, = header(head, "X-Pomerium-Jwt-Assertion")
    assert jwt.decode(said, options={"verify_signature": False})["email"] == USER and header(head, "Cookie") == ["theirs=1"]
    assert b.get(stand.url("app", "/.pomerium/")).status_code == 200


def test_who_may_not_is_refused_and_a_script_is_not_redirected(stand, person):
    before = len(stand.upstream.heads)
    assert person.get(stand.url("app", "/admin/x")).status_code == 403
    assert person.get(stand.url("admin")).status_code == 403
    assert stand.browser().fetch(stand.url("app")).status_code == stand.unknown
    assert stand.browser().fetch(stand.url("app"), "POST").status_code == stand.unknown
    assert len(stand.upstream.heads) == before
    assert stand.browser().get(stand.url("public")).status_code == 200


def test_nobody_says_who_they_are_but_us(stand, person):
    forged = {"X-Pomerium-Jwt-Assertion": "forged"}
    head = person.fetch(stand.url("app"), headers=forged).json()["head"]
    assert "forged" not in head and len(header(head, "X-Pomerium-Jwt-Assertion")) == 1 and person.cookie("app") not in head
    assert "forged" not in stand.browser().fetch(stand.url("public"), headers=forged).json()["head"]


def test_the_question_is_not_the_client_s_to_write(stand, person):
    """It is about what will be forwarded, whatever the client says of it."""
    before = len(stand.upstream.heads)
    for field in (b"X-Forwarded-Uri: /", b"X-Forwarded-Host: public.localhost:PORT", b"X-Forwarded-Method: OPTIONS", b"X-Original-URL: /",
                  b"X-Original-Method: OPTIONS", b"X-Rewrite-URL: /", b"X-Envoy-Original-Path: /"):
        status = raw(stand, b"GET /admin/x HTTP/1.1\r\nHost: app.localhost:PORT\r\nCookie: " + person.cookie("app").encode() + b"\r\n" +
                     field + b"\r\nConnection: close\r\n\r\n")
        assert status in (400, 403, 404, 500), field  # 500: nginx's word for a question without an answer
    assert len(stand.upstream.heads) == before


@pytest.mark.parametrize("path", ["/admin", "/%61dmin", "//admin", "/x//admin", "/x/../admin", "/./admin", "/x/..;/admin", "/x/..%2fadmin",
                                  "/%2fadmin", "/x/%2e%2e/admin", "/x/..%5cadmin", "/x/..\\admin", "/;/admin", "/x/../admin%00"])
def test_no_spelling_of_a_path_gets_past_its_rule(stand, person, path):
    before = len(stand.upstream.heads)
    status = raw(stand, b"GET " + path.encode() + b" HTTP/1.1\r\nHost: app.localhost:PORT\r\nCookie: " + person.cookie("app").encode() +
                 b"\r\nConnection: close\r\n\r\n")
    assert status in (0, 301, 307, 308, 400, 403, 404, 500) and len(stand.upstream.heads) == before


def test_a_websocket_opens_for_who_may(stand, person):
    upgrade = (b"GET /ws HTTP/1.1\r\nHost: app.localhost:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
    assert raw(stand, upgrade + b"\r\n") == stand.unknown
    assert raw(stand, upgrade + b"Cookie: " + person.cookie("app").encode() + b"\r\n\r\n") == 101


def test_a_program_s_token_counts_where_the_route_takes_it(stand):
    now = int(time.time())

    def ask(host="ci", **more):
        shown = jwt.encode({"iss": "https://ci.example", "aud": "us", "sub": "repo", "iat": now, "exp": now + 600, **more}, stand.ci, "ES256")
        return requests.get(stand.url(host), headers={"Authorization": f"Bearer {shown}"}, verify=stand.ca, allow_redirects=False, timeout=30)
    good = ask()
    assert good.status_code == 200 and not header(good.json()["head"], "Authorization"), good.text
    assert ask(aud="else").status_code == stand.unknown and ask(sub="else").status_code == 403 and ask("app").status_code == stand.unknown


def test_who_is_revoked_is_out_with_the_next_request(stand):
    b = stand.browser()
    assert b.login(stand.url("admin"), ADMIN).status_code == 200
    stand.cli("users", "revoke", ADMIN)
    wait_for("the end of the session", lambda: b.fetch(stand.url("admin")).status_code == stand.unknown)


def test_without_a_verdict_nobody_gets_in(stand, person):
    for daemon in stand.authorizes:
        stand.kill(daemon)
    before = len(stand.upstream.heads)
    assert person.fetch(stand.url("app")).status_code in (403, 500, 502, 503)
    assert stand.browser().fetch(stand.url("public")).status_code in (403, 500, 502, 503)
    assert len(stand.upstream.heads) == before
