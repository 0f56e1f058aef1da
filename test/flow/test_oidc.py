"""Login at a real OpenID provider that we did not write (dex)."""

import os
import subprocess
import tempfile

import bcrypt_hash
import pytest
import requests
from stand import Stand, Upstream, header, make_certificate
from trial import ROOT, Form, free_port, wait_for

MAIL, PASSWORD = "dana@example.com", "dana-password"


@pytest.fixture(scope="module")
def dex_program():
    return subprocess.run([os.path.join(ROOT, "test/support/dex.sh")], capture_output=True, text=True, check=True,
                          timeout=900).stdout.strip()


class Dex:
    def __init__(self, program, redirect):
        self.program, self.folder, self.port = program, tempfile.mkdtemp(prefix="postern-dex-"), free_port()
        self.issuer = f"https://dex.localhost:{self.port}/dex"
        self.key, self.ca = make_certificate(self.folder, "dex.localhost")
        self.config = os.path.join(self.folder, "dex.yaml")
        with open(self.config, "w") as f:
            f.write(f"""issuer: {self.issuer}
storage: {{type: memory}}
web: {{https: "127.0.0.1:{self.port}", tlsCert: {self.ca}, tlsKey: {self.key}}}
oauth2: {{skipApprovalScreen: true}}
enablePasswordDB: true
staticClients:
  - id: postern
    secret: client-secret-canary
    name: Postern
    redirectURIs: ["{redirect}"]
staticPasswords:
  - email: {MAIL}
    hash: "{bcrypt_hash.of(PASSWORD)}"
    username: dana
    userID: 08a8684b-db88-4b73-90a9-3cd1661f5466
""")
        self.process = None

    def start(self):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen([self.program, "serve", self.config], stdout=self.log, stderr=self.log)
        wait_for("dex", lambda: requests.get(self.issuer + "/.well-known/openid-configuration", verify=self.ca, timeout=2).ok, 20)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def upstream():
    u = Upstream()
    yield u
    u.close()


@pytest.fixture()
def world(dex_program, upstream):
    routes = f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    policy:
      - allow:
          or: [{{email: {{is: {MAIL}}}}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy:
      - allow:
          or: [{{groups: {{has: admins}}}}]
"""
    stand = Stand(routes, settings="idp_provider: oidc\n")
    dex = Dex(dex_program, f"https://authenticate.localhost:{stand.port}/oauth2/callback")
    stand.settings = (f"idp_provider: oidc\nidp_provider_url: {dex.issuer}\nidp_client_id: postern\n"
                      f"idp_client_secret: client-secret-canary\nidp_ca_file: {dex.ca}\n"
                      "idp_scopes: [openid, email, profile, groups, offline_access]\n")
    stand.write_config()
    yield stand, dex
    stand.stop()
    dex.stop()


def both_trust(browser, stand, dex):
    bundle = os.path.join(stand.folder, "both.pem")
    with open(bundle, "w") as out:
        for ca in (stand.ca, dex.ca):
            with open(ca) as f:
                out.write(f.read())
    browser.session.verify = bundle
    return browser


def login(stand, dex, url):
    b = both_trust(stand.browser(), stand, dex)
    page = b.get(url)
    assert f"dex.localhost:{dex.port}" in page.url, (page.status_code, page.url, page.text[:1000])
    assert "code_challenge_method=S256" in " ".join(u for _, u in b.trail)
    form = Form(page.text)
    values = {n: (PASSWORD if k == "password" else MAIL) for n, k in form.kinds.items() if k in ("password", "text", "email")}
    return b, b.submit(page, **values)


def test_login_at_dex_with_a_deep_link_and_sign_out(world, upstream):
    stand, dex = world
    dex.start()
    stand.start()
    deep = stand.url("app", "/deep?x=1&y=a%26b")
    b, page = login(stand, dex, deep)
    assert page.status_code == 200 and page.url == deep, (page.status_code, page.url, page.text[:1000])
    assert header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion")
    assert upstream.heads[-1].startswith(b"GET /deep?x=1&y=a%26b HTTP/1.1")
    assert b.fetch(stand.url("app", "/.pomerium/user")).json()["email"] == MAIL
    assert b.fetch(stand.url("admin")).status_code in (401, 403)
    assert b.get(stand.url("admin")).status_code == 403
    out = b.get(stand.url("app", "/.pomerium/sign_out"))
    if "<form" in out.text:
        out = b.submit(out)
    assert out.status_code == 200
    assert b.fetch(stand.url("app")).status_code == 401
    for daemon in ("proxy", "authenticate", "authorize", "databroker"):
        with open(stand.log_file(daemon), errors="replace") as f:
            text = f.read()
        assert "client-secret-canary" not in text and PASSWORD not in text and "eyJ" not in text, daemon


def test_everything_starts_with_the_provider_down(world):
    stand, dex = world
    stand.start()
    page = both_trust(stand.browser(), stand, dex).get(stand.url("app"))
    assert page.status_code == 503 and f"dex.localhost:{dex.port}" in page.text
    dex.start()

    def works():
        _, page = login(stand, dex, stand.url("app"))
        return page.status_code == 200
    wait_for("a login after the provider came", works, 30, 0.5)


def test_a_provider_that_restarts_with_new_keys(world):
    stand, dex = world
    dex.start()
    stand.start()
    assert login(stand, dex, stand.url("app"))[1].status_code == 200
    dex.stop()
    dex.start()  # storage in memory: new signing keys
    wait_for("a login with the new keys", lambda: login(stand, dex, stand.url("app"))[1].status_code == 200, 90, 1)
