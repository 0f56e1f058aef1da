"""A provider that lies, lags and forgets: what it may not do to us. (What it should do is in test_oidc.py.)"""

import base64
import http.server
import json
import threading
import time
import urllib.parse

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from stand import Stand, header
from trial import wait_for

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    pass_identity_headers: true
    policy: [{allow: {or: [{email: {is: dana@example.com}}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: idp_identity_token
    policy: [{allow: {or: [{email: {is: dana@example.com}}]}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: idp_access_token
    idp_access_token_allowed_audiences: [https://api.example]
    policy: [{allow: {or: [{email: {is: dana@example.com}}]}}]
"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, body=b"", **fields):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        p, url = self.server.provider, urllib.parse.urlsplit(self.path)
        p.asked.append(url.path)
        if url.path == "/.well-known/openid-configuration":
            p.open.wait(60)
            self.say(200 if p.known else 503, p.metadata())
        elif url.path == "/keys":
            self.say(200, {"keys": [p.public_key()]})
        elif url.path == "/userinfo":
            shown = self.headers["Authorization"] or ""
            self.say(*((200, p.userinfo) if shown == "Bearer a" else p.introspect(shown[7:], False)))
        elif url.path == "/authorize":
            q = dict(urllib.parse.parse_qsl(url.query))
            p.nonces[q["state"][-20:]] = q["nonce"]
            back = {"code": q["state"][-20:], "state": q["state"], **p.callback}
            self.say(302, Location=q["redirect_uri"] + "?" + urllib.parse.urlencode(back))
        else:
            self.say(404)

    def do_POST(self):
        p = self.server.provider
        p.asked.append(self.path)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        if self.path == "/introspect":
            proven = base64.b64encode(b"postern:s").decode() in (self.headers["Authorization"] or "")
            self.say(*(p.introspect(form["token"], True) if proven else (401, {})))
            return
        if form["grant_type"] == "refresh_token":
            self.say(*p.refresh(form["refresh_token"]))
            return
        self.say(200, {"access_token": "a", "token_type": "Bearer", "id_token": p.token(p.nonces[form["code"]]), **p.more})


class Provider:
    """Everybody is Dana. What it says is in its members, for tests to change."""

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.provider, self.server.daemon_threads = self, True
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.key = rsa.generate_private_key(65537, 2048)
        self.asked, self.nonces = [], {}
        self.known, self.open = True, threading.Event()
        self.open.set()
        self.tells_issuer, self.callback, self.claims, self.userinfo = False, {}, {}, {"sub": "dana", "name": "Dana"}
        self.introspects, self.inspected, self.opaque = True, [], {}  # token → what is said of it, or a function that says it
        self.more = {}  # of the answer for a code
        self.refresh = lambda token: (400, {"error": "unsupported_grant_type"})  # → status and body
        self.sign = lambda claims: jwt.encode(claims, self.key, "RS256", {"kid": "one"})
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def metadata(self):
        at = self.issuer
        return {"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token",
                "jwks_uri": at + "/keys", "userinfo_endpoint": at + "/userinfo",
                **({"introspection_endpoint": at + "/introspect"} if self.introspects else {}),
                "authorization_response_iss_parameter_supported": self.tells_issuer}

    def public_key(self):
        return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key())), "kid": "one", "alg": "RS256", "use": "sig"}

    def token(self, nonce):
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "dana", "aud": "postern", "nonce": nonce, "iat": now, "exp": now + 300,
                  "email": "dana@example.com", "email_verified": True}
        changes = {k: v(now) if callable(v) else v for k, v in self.claims.items()}
        return self.sign({**claims, **changes})

    def introspect(self, token, endpoint):
        self.inspected.append(token)
        said = self.opaque.get(token, {"active": False} if endpoint else None)
        said = said() if callable(said) else said
        return said if isinstance(said, tuple) else (200 if said else 401, said or {})

    def count(self, path):
        return self.asked.count(path)

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture()
def world(upstream):
    provider = Provider()
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), settings=(
        f"idp_provider: oidc\nidp_provider_url: {provider.issuer}\nidp_client_id: postern\nidp_client_secret: s\n"))
    yield stand, provider
    provider.open.set()
    stand.stop()
    provider.close()


def refused(stand, provider, code, status=502):
    """A login ends in a page with this code, and without a session."""
    b = stand.browser()
    page = b.get(stand.url("app"))
    assert page.status_code == status and code in page.text, (page.status_code, page.url, page.text[-800:])
    assert b.fetch(stand.url("app")).status_code == 401


def test_a_login_works_and_userinfo_adds_to_it(world, upstream):
    stand, provider = world
    stand.start()
    b = stand.browser()
    page = b.get(stand.url("app", "/x?y=1"))
    assert page.status_code == 200 and page.url == stand.url("app", "/x?y=1")
    assertion = header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion")[0]
    assert jwt.decode(assertion, options={"verify_signature": False})["name"] == "Dana"


def test_an_answer_of_another_provider_is_not_exchanged(world):
    """RFC 9207: the code of a mixed-up answer goes to nobody."""
    stand, provider = world
    provider.tells_issuer = True
    stand.start()
    for answer in ({"iss": "https://evil.example"}, {"iss": provider.issuer + "/"}, {}):
        provider.callback = answer
        refused(stand, provider, "issuer-mismatch")
    assert provider.count("/token") == 0
    provider.callback = {"iss": provider.issuer}
    assert stand.browser().get(stand.url("app")).status_code == 200


def test_nor_while_the_provider_is_not_known_yet(world):
    """Authenticate was restarted in the middle of a login, and nobody kept what it knew of the provider."""
    stand, provider = world
    provider.callback = {"iss": "https://evil.example"}
    stand.env = {"databroker": {"DATABROKER_STORAGE_TYPE": "memory"}}
    stand.start()
    b = stand.browser()
    leave = b.follow_to(stand.url("app"), provider.issuer + "/authorize")
    back = b.one(leave).headers["Location"]
    stand.kill("authenticate")
    stand.kill("databroker")
    asked = provider.count("/.well-known/openid-configuration")
    provider.open.clear()
    stand.start_one("databroker")
    stand.start_one("authenticate")
    stand.wait_ready()
    wait_for("the provider to be asked", lambda: provider.count("/.well-known/openid-configuration") > asked)
    pages = []
    waiting = threading.Thread(target=lambda: pages.append(b.get(back)))
    waiting.start()
    time.sleep(0.5)  # it waits for what we hold; if it comes later, this run shows the case above
    provider.open.set()
    waiting.join(60)
    assert pages and pages[0].status_code == 502 and "issuer-mismatch" in pages[0].text, (pages[0].url, pages[0].text[-800:])
    assert provider.count("/token") == 0


def none_signed(claims):
    return jwt.encode(claims, None, "none", {"kid": "one"})


def secret_signed(provider):
    """The confusion of old libraries: the public key as a shared secret."""
    def sign(claims):
        part = [base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b"=") for x in ({"alg": "HS256", "kid": "one"}, claims)]
        import hashlib
        import hmac
        public = json.dumps(provider.public_key()).encode()
        mac = hmac.new(public, b".".join(part), hashlib.sha256).digest()
        return b".".join([*part, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    return sign


def test_an_id_token_that_is_not_for_this_login_is_none(world):
    stand, provider = world
    stand.start()
    for claims, code in (
            ({"nonce": "another"}, "token-invalid"), ({"aud": "somebody"}, "token-invalid"),
            ({"aud": ["postern", "other"]}, "token-invalid"), ({"azp": "other"}, "token-invalid"),
            ({"iss": "https://evil.example"}, "token-invalid"), ({"sub": ""}, "token-invalid"),
            ({"exp": lambda now: now - 75}, "clock"), ({"iat": lambda now: now + 120}, "clock"),
            ({"nbf": lambda now: now + 120}, "clock")):
        provider.claims = claims
        refused(stand, provider, code)
    good, provider.claims = provider.sign, {}
    for sign in (none_signed, secret_signed(provider), lambda c: good(c)[:-8] + "AAAAAAAA",
                 lambda c: jwt.encode(c, rsa.generate_private_key(65537, 2048), "RS256", {"kid": "one"})):
        provider.sign = sign
        refused(stand, provider, "token-invalid")
    provider.sign, provider.claims = good, {"exp": lambda now: now - 20, "nbf": lambda now: now + 40}
    assert stand.browser().get(stand.url("app")).status_code == 200  # a clock may be a minute off


def test_userinfo_of_somebody_else_ends_the_login(world):
    stand, provider = world
    stand.start()
    provider.userinfo = {"sub": "mallory", "groups": ["admins"]}
    refused(stand, provider, "userinfo-invalid")


def test_forged_key_ids_do_not_make_us_hammer_the_provider(world):
    stand, provider = world
    stand.start()
    assert stand.browser().get(stand.url("app")).status_code == 200
    before = provider.count("/keys")
    for n in range(12):
        provider.sign = lambda c, n=n: jwt.encode(c, provider.key, "RS256", {"kid": f"unknown-{n}"})
        refused(stand, provider, "key-unknown")
    assert 1 <= provider.count("/keys") - before <= 8  # three at once, then three in twenty seconds


def test_many_who_wait_for_the_provider_are_one_question(world):
    stand, provider = world
    provider.open.clear()
    stand.start()
    pages = []
    people = [threading.Thread(target=lambda: pages.append(stand.browser().get(stand.url("app")).status_code)) for _ in range(12)]
    for t in people:
        t.start()
    wait_for("the provider to be asked", lambda: provider.count("/.well-known/openid-configuration") == 1)
    time.sleep(0.5)
    provider.open.set()
    for t in people:
        t.join(60)
    assert pages == [200] * 12 and provider.count("/.well-known/openid-configuration") == 1 == provider.count("/keys")


def test_what_was_known_of_the_provider_outlives_a_restart(world):
    stand, provider = world
    stand.start()
    assert stand.browser().get(stand.url("app")).status_code == 200
    provider.known = False  # discovery is down, the rest works
    stand.kill("authenticate")
    stand.start_one("authenticate")
    stand.wait_ready()
    wait_for("a login by the kept copy", lambda: stand.browser().get(stand.url("app")).status_code == 200)


def bearer(stand, token, host="other"):
    return stand.browser().fetch(stand.url(host), headers={"Authorization": "Bearer " + token})


def test_an_id_token_of_the_provider_gets_in_where_the_route_says_so(world, upstream):
    stand, provider = world
    stand.start()
    answer = bearer(stand, provider.token("any"))
    assert answer.status_code == 200 and "Bearer" not in answer.text
    assert bearer(stand, provider.token("any"), "app").status_code == 401  # there it is the application's
    assert b"\r\nAuthorization: Bearer" not in upstream.heads[-1]
    for wrong in ({"aud": "another"}, {"aud": ["postern", "another"]}, {"azp": "another"}, {"exp": lambda now: now - 100},
                  {"iss": "https://evil.example"}, {"sub": ""}):
        provider.claims = wrong
        assert bearer(stand, provider.token("any")).status_code == 401, wrong
    provider.claims = {"email": "eve@example.com", "sub": "eve"}
    assert bearer(stand, provider.token("any")).status_code == 403
    provider.claims, provider.sign = {}, lambda claims: jwt.encode(claims, "a secret that is long enough for it", "HS256", {"kid": "one"})
    assert bearer(stand, provider.token("any")).status_code == 401


def test_a_token_with_less_in_it_takes_nothing_from_the_person(world):
    """What the login told stays: a session in the browser must not lose its e-mail address or groups."""
    stand, provider = world
    stand.start()
    b = stand.browser()
    assert b.get(stand.url("app")).status_code == 200
    provider.claims = {"email": "mallory@example.com"}
    assert bearer(stand, provider.token("any")).status_code == 200
    assert b.fetch(stand.url("app")).status_code == 200


def test_an_access_token_must_be_for_us(world):
    stand, provider = world
    stand.start()
    provider.claims = {"aud": "https://api.example", "scope": "openid"}
    provider.sign = lambda claims: jwt.encode(claims, provider.key, "RS256", {"kid": "one", "typ": "at+jwt"})
    assert bearer(stand, provider.token("any"), "admin").status_code == 200
    assert bearer(stand, provider.token("any")).status_code == 401  # no ID token
    provider.claims = {"aud": "https://else.example"}
    assert bearer(stand, provider.token("any"), "admin").status_code == 401
    provider.claims = {}
    provider.sign = lambda claims: jwt.encode(claims, provider.key, "RS256", {"kid": "one"})
    assert bearer(stand, provider.token("any"), "admin").status_code == 401  # an ID token is no access token
    assert provider.inspected == []  # the provider is not asked to overrule a signature
    assert bearer(stand, "opaque", "admin").status_code == 401


def active(**more):
    now = int(time.time())
    said = {"active": True, "token_type": "Bearer", "sub": "dana", "aud": "https://api.example", "iat": now, "exp": now + 300,
            "email": "dana@example.com", **more}
    return {k: v for k, v in said.items() if v is not None}


def admin(stand, token):
    answer = bearer(stand, token, "admin")
    return answer.status_code if answer.status_code == 200 else (answer.status_code, answer.json()["code"])


def test_an_opaque_token_is_worth_what_introspection_says(world, upstream):
    stand, provider = world
    stand.start()
    now = int(time.time())
    good = {"plain": active(), "many": active(aud=["x", "https://api.example"]), "terse": active(exp=None, iat=None, iss=None),
            "client": active(aud=None, client_id="https://api.example"), "issuer": active(iss=provider.issuer)}
    bad = {"inactive": {"active": False}, "no_word": {**active(), "active": "true"}, "one": {**active(), "active": 1}, "empty": (200, {}),
           "refresh": active(token_type="Refresh"), "untyped": active(aud=None, client_id="https://api.example", token_type=None),
           "bound": active(cnf={"jkt": "x"}), "dpop": active(token_type="DPoP"), "for_else": active(aud="https://else.example"),
           "for_all": active(aud="*"), "for_none": active(aud=None), "for_azp": active(aud=None, azp="https://api.example"),
           "nobody": active(sub=None), "other": active(iss="https://evil.example"), "long": active(exp=now + 31 * 86400),
           "when": active(exp="soon"), "early": active(nbf=now + 300)}
    garbage = {"status": (500, {}), "unauthorized": (401, {}), "text": (200, b"<html>"), "list": (200, b"[]"), "huge": (200, active(x="x" * 20000)),
               "moved": (302, {})}
    provider.opaque = {**good, **bad, "over": active(exp=now - 100), **garbage}

    def judged(token):
        """Once the provider was asked: it is not about more than twenty new ones in a second."""
        got = []
        wait_for("the provider to be asked", lambda: got.append(admin(stand, token)) or token in provider.inspected)
        return got[-1]
    for token in good:
        assert judged(token) == 200, token
        assert token.encode() not in upstream.heads[-1]
    for token in bad:
        assert judged(token) == (401, "token-expired" if token == "early" else "token-invalid"), token
    assert judged("over") == (401, "token-expired")
    for token in garbage:
        assert judged(token) == (503, "token-not-verified"), token
    asked = len(provider.inspected)
    for token in ("a b", "x" * 4097, "caf\u00e9".encode(), "=", "a=b"):
        shown = token.encode() if isinstance(token, str) else token
        answer = stand.browser().fetch(stand.url("admin"), headers={"Authorization": b"Bearer " + shown})
        assert answer.status_code in (400, 401), token
    assert len(provider.inspected) == asked  # what is no token goes to nobody
    assert bearer(stand, "plain").status_code == 401  # where the route wants another kind
    provider.opaque["eve"] = active(sub="eve", email="eve@example.com")
    assert judged("eve")[0] == 403


def test_who_shows_the_same_token_at_once_is_one_question(world):
    stand, provider = world
    stand.start()
    gate = threading.Event()
    provider.opaque["slow"] = lambda: gate.wait(30) and active()
    got = []
    people = [threading.Thread(target=lambda: got.append(admin(stand, "slow"))) for _ in range(20)]
    for t in people:
        t.start()
    wait_for("the question", lambda: provider.inspected == ["slow"])
    assert admin(stand, "nothing") == (401, "token-invalid")  # and nobody waits behind it
    gate.set()
    for t in people:
        t.join(60)
    assert got == [200] * 20 and provider.inspected.count("slow") == 1
    for _ in range(5):
        assert admin(stand, "slow") == 200
    assert provider.inspected.count("slow") == 1


def test_a_provider_that_does_not_answer_lets_nobody_in(world):
    stand, provider = world
    stand.start()
    provider.opaque["known"] = active()
    assert admin(stand, "known") == 200
    gate = threading.Event()
    provider.opaque["hangs"] = lambda: gate.wait(60) and active()
    assert admin(stand, "hangs") == (503, "token-not-verified")
    gate.set()
    assert admin(stand, "known") == 200


def test_made_up_tokens_flood_no_provider_and_drive_out_nobody(world):
    stand, provider = world
    stand.start()
    provider.opaque["known"] = active()
    assert admin(stand, "known") == 200
    session, statuses, began = stand.browser(), [], time.monotonic()
    for n in range(90):  # fewer than an address may show before the proxy itself has enough of it
        statuses.append(session.fetch(stand.url("admin"), headers={"Authorization": f"Bearer made-up-{n}"}).status_code)
    seconds = time.monotonic() - began
    assert set(statuses) <= {401, 503} and len(provider.inspected) <= 1 + 20 * (seconds + 2)
    stand.kill("proxy")  # the next has to ask authenticate
    stand.start_one("proxy")
    stand.wait_ready()
    assert admin(stand, "known") == 200 and provider.inspected.count("known") == 1


def test_userinfo_verifies_only_where_any_audience_will_do(world):
    """It does not say whom a token was given to."""
    stand, provider = world
    provider.introspects = False
    provider.opaque["token"] = {"sub": "dana", "email": "dana@example.com", "aud": "https://api.example", "exp": "x"}
    stand.start()
    assert admin(stand, "token") == (401, "token-invalid")
    stand.routes = stand.routes.replace("[https://api.example]", '["*"]')
    stand.write_config()
    wait_for("the new configuration", lambda: admin(stand, "token") == 200)
    assert admin(stand, "other") == (401, "token-invalid")
    provider.opaque["down"] = (500, {})
    assert admin(stand, "down") == (503, "token-not-verified")
    done = stand.cli("validate", stand.config, check=False)
    assert "every application at the provider must be yours" in done.stdout + done.stderr


def test_without_the_provider_such_a_token_is_not_decided(world):
    stand, provider = world
    provider.open.set()
    provider.known = False
    stand.start()
    answer = bearer(stand, provider.token("any"))
    assert answer.status_code == 503 and answer.json()["code"] == "token-not-verified"
    provider.known = True
    wait_for("the provider", lambda: bearer(stand, provider.token("any")).status_code == 200)
