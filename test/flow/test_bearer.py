"""Tokens of others: what an issuer vouches for gets in, and nothing that only looks like it."""

import base64
import concurrent.futures
import http.server
import json
import threading
import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from stand import Stand, header
from test_idle import Store
from trial import wait_for

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    pass_identity_headers: true
    bearer_token_format: jwt
    identity_providers: [ci, plain]
    policy: [{allow: {or: [{user: {is: "ci/repo:octo/app"}}, {claim/ref: main}, {email: {is: user@example.com}}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: jwt
    policy: [{allow: {or: [{user: {is: "ci/repo:octo/app"}}]}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: jwt
    identity_providers: [staff]
    policy: [{allow: {or: [{email: {is: admin@example.com}}, {groups: {has: admins}}]}}]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UP
    prefix: /fresh
    bearer_token_format: jwt
    policy: [{allow: {and: [{idp: https://staff.example}, {auth_age: 1h}]}}]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UP
    allow_public_unauthenticated_access: true
"""

SETTINGS = """jwt_claims_headers: {X-Email: email, X-Groups: groups, X-Sub: sub}
identity_providers:
  ci: {issuer: CI, jwks_url: "CI/keys", audiences: [https://app.example, second]}
  plain: {issuer: https://plain.example, jwks_file: FIXED, audiences: [plain], supported_algs: [ES256]}
  staff: {issuer: https://staff.example, jwks_file: FIXED, audiences: [staff], supported_algs: [ES256], email_claim: mail, groups_claim: roles}
  edwards: {issuer: https://edwards.example, jwks_file: EDWARDS, audiences: [edwards], supported_algs: [EdDSA]}
  down: {issuer: https://down.example, jwks_url: "CI/down", audiences: [down]}
"""


class Issuer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        issuer = self.server.issuer
        issuer.asked.append(self.path)
        body = json.dumps({"keys": [public(kid, key) for kid, key in issuer.keys.items()]}).encode()
        self.send_response(200 if self.path == "/keys" or issuer.down_is_up else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def public(kid, key):
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "use": "sig", **({"kid": kid} if kid else {})}


class World:
    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
        self.server.issuer, self.server.daemon_threads = self, True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.asked, self.down_is_up = [], False
        self.keys = {"one": rsa.generate_private_key(65537, 2048)}
        self.fixed = ec.generate_private_key(ec.SECP256R1())
        self.edwards = ed25519.Ed25519PrivateKey.generate()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def claims(self, **more):
        now = int(time.time())
        claims = {"iss": self.url, "sub": "repo:octo/app", "aud": "https://app.example", "iat": now, "exp": now + 600, "jti": str(time.monotonic_ns()),
                  **more}
        return {k: v for k, v in claims.items() if v is not None}

    def token(self, key=None, alg="RS256", headers=None, **more):
        return jwt.encode(self.claims(**more), key or self.keys["one"], alg, {"kid": "one", **(headers or {})})

    def fixed_token(self, name, **more):
        return jwt.encode(self.claims(iss=f"https://{name}.example", aud=name, **more), self.fixed, "ES256")


@pytest.fixture(scope="module")
def world():
    w = World()
    yield w
    w.server.shutdown()
    w.server.server_close()


@pytest.fixture(scope="module")
def stand(world, upstream):
    s = Stand(ROUTES.replace("UP", str(upstream.port)))
    fixed = s.folder + "/fixed.json"
    with open(fixed, "w") as f:
        json.dump({"keys": [public(None, world.fixed)]}, f)
    edwards = s.folder + "/edwards.json"
    with open(edwards, "w") as f:
        json.dump({"keys": [json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(world.edwards.public_key()))]}, f)
    s.settings = SETTINGS.replace("CI", world.url).replace("FIXED", fixed).replace("EDWARDS", edwards)
    s.write_config()
    s.start()
    yield s
    s.stop()


def get(stand, token, host="app", **headers):
    return requests.get(stand.url(host), headers={"Authorization": "Bearer " + token, **headers}, verify=stand.ca, allow_redirects=False, timeout=30)


def session_of(stand, token):
    """The session that the last request with it had."""
    id = get(stand, token).headers["x-request-id"]
    return wait_for("the audit line", lambda: [x for x in stand.logs("authorize") if x.get("request-id") == id])[-1]["session-id"]


def test_a_policy_sees_who_vouches_and_when_the_person_logged_in(stand, world):
    now = int(time.time())
    for token, status in ((world.fixed_token("staff", auth_time=now - 60), 200), (world.fixed_token("staff", auth_time=now - 7200), 401),
                          (world.fixed_token("staff"), 401), (world.token(auth_time=now - 60), 403)):
        answer = requests.get(stand.url("public", "/fresh"), headers={"Authorization": "Bearer " + token}, verify=stand.ca,
                              allow_redirects=False, timeout=30)
        assert answer.status_code == status and ("auth-age-exceeded" in answer.text) == (status == 401), answer.text


def test_eddsa_counts_where_the_issuer_signs_with_it(stand, world):
    claims = world.claims(iss="https://edwards.example", aud="edwards", sub="repo:octo/app")
    assert get(stand, jwt.encode(claims, world.edwards, "EdDSA"), "other").status_code == 403  # a user of another name
    assert get(stand, jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), "EdDSA"), "other").status_code == 401
    assert get(stand, jwt.encode(claims, world.edwards, "EdDSA"), "app").status_code == 401  # the route takes none of this issuer
    assert get(stand, jwt.encode(claims, world.fixed, "ES256"), "other").status_code == 401
    assert get(stand, jwt.encode({**claims, "iss": "https://plain.example", "aud": "plain"}, world.edwards, "EdDSA")).status_code == 401


def test_what_an_issuer_vouches_for_gets_in(stand, world, upstream):
    token = world.token()
    before = len(upstream.heads)
    assert get(stand, token).status_code == 200
    head = upstream.heads[before]
    assert token.encode() not in head and header(head, "Authorization") == []
    said = jwt.decode(header(head, "X-Pomerium-Jwt-Assertion")[0], options={"verify_signature": False})
    assert said["sub"] == said["user"] == "ci/repo:octo/app" and said["email"] == "" and header(head, "X-Sub") == ["ci/repo:octo/app"]
    assert get(stand, world.token(sub="repo:octo/else")).status_code == 403
    assert get(stand, world.token(sub="repo:octo/else", ref="main", aud=["x", "second"])).status_code == 200
    # All places count; the application's own Authorization goes on beside one of ours.
    answer = requests.get(stand.url("app"), headers={"X-Pomerium-Authorization": token, "Authorization": "Basic dTpw"}, verify=stand.ca, timeout=30)
    assert answer.status_code == 200 and header(upstream.heads[-1], "Authorization") == ["Basic dTpw"]


def test_a_policy_of_people_lets_no_program_in_that_says_it_is_one(stand, world, upstream):
    """Whoever runs a CI system may put any address into its tokens."""
    claims = {"sub": "x", "email": "user@example.com", "email_verified": True, "groups": ["admins"]}
    assert get(stand, world.token(**claims)).status_code == 403
    assert get(stand, world.token(**claims, ref="main")).status_code == 200
    assert header(upstream.heads[-1], "X-Email") == [""] and header(upstream.heads[-1], "X-Groups") == [""]
    assert get(stand, world.fixed_token("staff", sub="a", mail="Admin@Example.com"), "admin").status_code == 200
    assert get(stand, world.fixed_token("staff", sub="b", mail="admin@example.com", email_verified=False), "admin").status_code == 403
    assert get(stand, world.fixed_token("staff", sub="c", email="admin@example.com", groups=["admins"]), "admin").status_code == 403
    assert get(stand, world.fixed_token("staff", sub="d", roles=["x", "admins"]), "admin").status_code == 200


def test_a_route_takes_the_issuers_it_names(stand, world, upstream):
    assert get(stand, world.fixed_token("plain", ref="main")).status_code == 200
    assert get(stand, world.fixed_token("staff", ref="main", mail="user@example.com")).status_code == 401
    assert get(stand, world.token(), "admin").status_code == 401
    token = world.token()
    assert get(stand, token, "public").status_code == 200  # there it is the application's
    assert header(upstream.heads[-1], "Authorization") == ["Bearer " + token]


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


def hostile(w):
    """Tokens that are not worth anything, by what is wrong with them."""
    good, now = w.token(), int(time.time())
    head, body, signature = good.split(".")
    pem = w.keys["one"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    hs = b64({"alg": "HS256", "kid": "one"}) + "." + body
    stranger = rsa.generate_private_key(65537, 2048)
    jwk = {**public("one", stranger)}
    yield from {
        "alg none": b64({"alg": "none"}) + "." + body + ".",
        "alg none with the signature": b64({"alg": "none", "kid": "one"}) + "." + body + "." + signature,
        "alg in other letters": b64({"alg": "NONE"}) + "." + body + "." + signature,
        "no alg": b64({"kid": "one"}) + "." + body + "." + signature,
        "HS256 with the public key": hs + "." + b64(mac.sign(hs.encode(), pem)),
        "HS256 with the key of the set": hs + "." + b64(mac.sign(hs.encode(), json.dumps(public("one", w.keys["one"])).encode())),
        "another key": w.token(stranger),
        "another key, no kid": jwt.encode(w.claims(), stranger, "RS256"),
        "its own key": w.token(stranger, headers={"jwk": jwk}),
        "its own address of keys": w.token(stranger, headers={"jku": w.url + "/evil", "x5u": w.url + "/evil"}),
        "a kid that is a path": w.token(stranger, headers={"kid": "../../dev/null"}),
        "a kid that is no text": b64({"alg": "RS256", "kid": ["one"]}) + "." + body + "." + signature,
        "an endless kid": w.token(stranger, headers={"kid": "k" * 5000}),
        "an algorithm that is not allowed": w.token(alg="PS256"),
        "a stronger one that is not, either": w.token(alg="RS512"),
        "RS256 said, PS256 done": b64({"alg": "RS256", "kid": "one"}) + "." + w.token(alg="PS256").split(".", 1)[1],
        "ES256 with an RSA kid": w.token(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        "crit": w.token(headers={"crit": ["exp"], "exp": now + 60}),
        "b64 false": b64({"alg": "RS256", "kid": "one", "b64": False, "crit": ["b64"]}) + "." + body + "." + signature,
        "typ of a logout": w.token(headers={"typ": "logout+jwt"}),
        "typ of an access token": w.token(headers={"typ": "at+jwt"}),
        "another audience": w.token(aud="https://other.example"),
        "an audience that begins alike": w.token(aud="https://app.example.evil"),
        "no audience": w.token(aud=None),
        "an empty audience": w.token(aud=""),
        "audiences that are no texts": w.token(aud=[1, None, {"a": "https://app.example"}]),
        "another issuer": w.token(iss="https://evil.example"),
        "an issuer with a slash more": w.token(iss=w.url + "/"),
        "no issuer": w.token(iss=None),
        "an issuer that is no text": w.token(iss=[w.url]),
        "the name of another issuer here": w.token(iss="https://plain.example", aud="plain"),
        "over": w.token(exp=now - 61, iat=now - 600),
        "without an end": w.token(exp=None),
        "an end that is a text": w.token(exp=str(now + 600)),
        "an end in a year": w.token(exp=now + 366 * 86400),
        "an end beyond numbers": w.token(exp=10 ** 18),
        "not yet": w.token(nbf=now + 120),
        "issued in the future": w.token(iat=now + 120),
        "nobody": w.token(sub=None),
        "an empty name": w.token(sub=""),
        "a name with a line end": w.token(sub="a\r\nX-Email: user@example.com"),
        "a name with NUL": w.token(sub="repo:octo/app\0"),
        "an endless name": w.token(sub="a" * 256),
        "a token in a token": jwt.encode({"a": 1}, w.keys["one"], "RS256", {"kid": "one", "cty": "JWT"}).split(".")[0] + "." + b64(good.encode()) + "." + signature,
        "a changed body": head + "." + b64(w.claims(ref="main")) + "." + signature,
        "a changed head": b64({"alg": "RS256", "kid": "one", "x": 1}) + "." + body + "." + signature,
        "a cut signature": good[:-4],
        "bits behind the signature": good[:-1] + chr(ord(good[-1]) + 1) if good[-1] in "AQgw" else good + "A",
        "padding": good + "=",
        "a fourth part": good + ".x",
        "five parts": "a.b.c.d.e",
        "two parts": head + "." + body,
        "no text": "..",
        "dots": "." * 100,
        "no JSON": "!!!.???.***",
        "members twice": head + "." + b64(b'{"iss":"' + w.url.encode() + b'","iss":"' + w.url.encode() + b'"}') + "." + signature,
        "a deep head": b64(b'{"alg":' + b"[" * 5000 + b"]" * 5000 + b"}") + "." + body + "." + signature,
        "other alphabets": good.replace("-", "+").replace("_", "/") if "-" in good or "_" in good else "+/.+/.+/",
        "a key set": b64({"keys": []}) + "." + b64({"keys": []}) + "." + b64(b"x"),
        "opaque": "abcdef",
    }.items()


def test_nothing_that_only_looks_like_a_token_gets_in(stand, world, upstream):
    before = len(upstream.heads)
    assert get(stand, world.token()).status_code == 200
    for what, token in hostile(world):
        answer = get(stand, token, Accept="text/html")
        assert answer.status_code == 401, (what, answer.status_code, answer.text)
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"], what
    assert get(stand, "x" * 20000).status_code in (401, 431)
    assert get(stand, "").status_code == 401
    assert len(upstream.heads) == before + 1
    assert "/evil" not in world.asked


def test_forged_kids_do_not_make_us_hammer(stand, world):
    assert get(stand, world.token()).status_code == 200
    before = world.asked.count("/keys")
    stranger = rsa.generate_private_key(65537, 2048)
    for i in range(30):
        assert get(stand, world.token(stranger, headers={"kid": f"k{i}"})).status_code == 401
    assert world.asked.count("/keys") - before <= 3


def test_many_requests_with_one_new_token_make_one_session(stand, world):
    token = world.token(sub="repo:octo/app", run="many")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert {a.status_code for a in pool.map(lambda _: get(stand, token), range(48))} == {200}
    session = session_of(stand, token)
    assert len([x for x in stand.logs("authenticate") if x["event"] == "token.session" and x["session"] == session]) == 1


def test_a_revoked_token_stays_out(stand, world):
    token = world.token()
    assert get(stand, token).status_code == 200
    session = session_of(stand, token)
    assert session.startswith("token/") and session in stand.cli("sessions", "list").stdout
    stand.cli("sessions", "revoke", session)
    assert get(stand, token).status_code == 401
    # Nor does another route, where nobody remembers it, make a new session of it.
    answer = get(stand, token, "other")
    assert answer.status_code == 401 and answer.json()["code"] == "token-revoked"
    assert get(stand, world.token(), "other").status_code == 200


def test_the_session_of_a_token_is_never_idle_or_too_old(stand, world):
    """Nobody could log in for it, and its token ends by itself."""
    token = world.token(run="idle")
    assert get(stand, token).status_code == 200
    Store(stand).age(7200)
    settings, stand.settings = stand.settings, stand.settings + "session_idle_timeout: 5m\nsession_max_age: 1h\n"
    stand.write_config()
    try:
        stand.kill("authorize")
        stand.start_one("authorize")
        stand.wait_ready()
        assert get(stand, token).status_code == 200
    finally:
        stand.settings = settings
        stand.write_config()
        stand.kill("authorize")
        stand.start_one("authorize")
        stand.wait_ready()


def test_a_cookie_beside_it_is_a_contradiction(stand, world):
    b = stand.browser()
    assert b.login(stand.url("app"), "user@example.com").status_code == 200
    answer = b.fetch(stand.url("app"), headers={"Authorization": "Bearer " + world.token()})
    assert answer.status_code == 400 and answer.json()["code"] == "credentials-differ"
    assert b.fetch(stand.url("app")).status_code == 200


def test_a_token_ends_by_itself(stand, world):
    token = world.token(exp=int(time.time()) + 3)
    assert get(stand, token).status_code == 200
    wait_for("its end", lambda: get(stand, token).status_code == 401, 20)


def test_an_issuer_that_does_not_answer_lets_nobody_in(stand, world):
    token = world.token(iss="https://down.example", aud="down")
    answer = get(stand, token, "other")
    assert answer.status_code == 503 and answer.json()["code"] == "token-not-verified" and answer.headers["Retry-After"]
    world.down_is_up = True
    wait_for("the issuer's keys", lambda: get(stand, token, "other").status_code == 403, 30)


def test_who_makes_tokens_up_is_not_listened_to_for_a_while(stand, world):
    good, fresh = world.token(), world.token()
    with requests.Session() as session:  # one connection: one worker
        session.verify, session.trust_env = stand.ca, False

        def ask(token):
            return session.get(stand.url("app"), headers={"Authorization": "Bearer " + token}, timeout=30)

        assert ask(good).status_code == 200
        codes = []
        while 429 not in codes and len(codes) < 1500:  # a hundred in ten seconds, whenever the machine can
            codes += [ask(good[:-8] + f"{len(codes) + i:04}AAAA").status_code for i in range(110)]
        assert 429 in codes and 200 not in codes and codes[0] == 401
        answer = ask(fresh)
        assert answer.status_code in (429, 200)  # 200: the machine was slow
        if answer.status_code == 429:
            assert answer.json()["code"] == "too-many-bad-tokens" and answer.headers["Retry-After"] == "10"
        wait_for("a new chance", lambda: ask(fresh).status_code == 200, 30)


def test_a_new_key_counts_at_once_and_an_old_one_no_more(stand, world):
    time.sleep(21)  # what forged kids used up comes back
    old = world.keys["one"]
    world.keys = {"two": rsa.generate_private_key(65537, 2048)}
    try:
        assert get(stand, world.token(world.keys["two"], headers={"kid": "two"})).status_code == 200
        assert get(stand, world.token(old)).status_code == 401
    finally:
        world.keys = {"one": old, **world.keys}


BAD = {
    "ci: {issuer: https://a.example, jwks_url: https://a.example/k}": '"audiences" is missing',
    "ci: {issuer: https://a.example, audiences: [a]}": 'one of "jwks_url" and "jwks"',
    "ci: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k, jwks: '{}'}": 'one of "jwks_url" and "jwks"',
    "ci: {issuer: https://a.example, audiences: [a], jwks_url: http://a.example/k}": "keys come by https",
    "ci: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k, supported_algs: [HS256]}": "none of EdDSA and RS, PS, ES",
    "ci: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k, supported_algs: [none]}": "none of EdDSA and RS, PS, ES",
    "local: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k}": "are taken",
    "a/b: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k}": "a name has up to",
    "k: {issuer: 'kubernetes:///', audiences: [a], jwks_url: https://a.example/k}": "brings its keys",
    "k: {issuer: 'kubernetes:///', audiences: [a]}": "cannot read /var/run/secrets/kubernetes.io/serviceaccount/",
    "k: {issuer: 'kubernetes:///', audiences: [a], api_url: 'http://127.0.0.1:1'}": "asked by https",
    "k: {issuer: 'kubernetes://a', audiences: [a], jwks_url: https://a.example/k}": "issuer",
    "k: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k, api_url: https://a.example}": "belong to kubernetes:///",
    "a: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k}, b: {issuer: https://a.example, audiences: [a], jwks_url: https://a.example/k}":
        "have the same issuer",
}


@pytest.mark.parametrize("issuers", BAD)
def test_mistakes_about_issuers_are_named(stand, issuers):
    path = stand.folder + "/bad.yaml"
    with open(stand.config) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(text[:text.index("identity_providers:\n  ci")] + "identity_providers: {" + issuers + "}\nroutes: []\n")
    done = stand.cli("validate", path, check=False)
    assert done.returncode == 1 and BAD[issuers] in done.stderr, done.stderr
