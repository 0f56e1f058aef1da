"""The shared secret is replaced while people work: daemons are restarted one by one, sessions stay, nobody gets in wrongly."""

import json
import signal
import time

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from foreign import channel, token
from sanitize import ANSWER_S
from stand import DAEMONS, Stand, Upstream, header, make_secret
from test_load import ADMIN, ROUTES, USER, Load
from trial import wait_for


@pytest.fixture()
def upstream():
    u = Upstream()
    yield u
    u.close()


def replace(stand, secret, previous, order):
    """New secrets for everybody, one restart after the other; people log in between any two of them."""
    stand.secret, stand.previous = secret, previous
    stand.write_config()
    for daemon in order:
        assert stand.kill(daemon, signal.SIGTERM) == 0
        stand.start_one(daemon)
        stand.wait_ready()
        wait_for(f"a login after {daemon} has the new secrets",
                 lambda: stand.browser().login(stand.url("app"), ADMIN).status_code == 200, 20)


def keys_of(stand):
    return stand.browser().fetch(stand.url("app", "/.well-known/pomerium/jwks.json")).json()["keys"]


def verifies(token, keys):
    kid = jwt.get_unverified_header(token)["kid"]
    key = next((k for k in keys if k["kid"] == kid), None)
    if key is None:
        return False
    jwt.decode(token, jwt.algorithms.ECAlgorithm.from_jwk(json.dumps(key)), algorithms=["ES256"], audience="app.localhost")
    return True


def told(stand, answer):
    """What the parts logged about an answer."""
    rid = answer.headers["x-request-id"]
    return answer.text, [line for d in ("proxy", "authorize") for line in stand.logs(d) if line.get("request-id") == rid]


def answer_to(stand, token):
    """What the databroker says to an outside client with this token."""
    ask = channel(stand, "databroker").unary_unary("/databroker.DataBrokerService/ServerInfo")
    try:
        ask(b"", metadata=[("authorization", "Bearer " + token)], timeout=ANSWER_S)
    except grpc.RpcError as e:
        return e.code()
    return grpc.StatusCode.OK


def test_the_secret_is_replaced_under_load(upstream):
    stand = Stand(ROUTES.replace("UP", str(upstream.port)).replace(
        "    allow_websockets: true\n", "    pass_identity_headers: true\n")).start()
    try:
        first, second = stand.secret, make_secret()
        before = stand.browser()
        assertion = header(before.login(stand.url("app"), USER).json()["head"], "X-Pomerium-Jwt-Assertion")[0]
        old_token = token(stand)
        with Load(stand) as load:
            replace(stand, first, second, DAEMONS)  # everybody accepts the new one
            replace(stand, second, first, reversed(DAEMONS))  # everybody makes new things with it
            assert verifies(assertion, keys_of(stand))
            between = stand.browser()
            assert between.login(stand.url("app"), USER).status_code == 200
            answer = before.fetch(stand.url("app"))
            assert answer.status_code == 200, told(stand, answer)  # with the handle of the first day
            assert answer_to(stand, old_token) == grpc.StatusCode.OK
        assert {s for _, s in load.seen["user"]} <= {200, 503, 0}, "the user was logged out"
        assert load.seen["user"][-1][1] == 200
        replace(stand, second, None, DAEMONS)  # the old one is worth nothing any more
        assert between.fetch(stand.url("app")).status_code == 200
        assert before.fetch(stand.url("app")).status_code == 401
        assert not verifies(assertion, keys_of(stand))
        assert answer_to(stand, old_token) == grpc.StatusCode.UNAUTHENTICATED
        assert before.login(stand.url("app"), USER).status_code == 200
        for name, allowed in (("denied", {403, 503, 0}), ("stranger", {401, 503, 0})):
            assert {s for _, s in load.seen[name]} <= allowed, name
    finally:
        stand.stop()


def test_a_program_with_another_secret_is_nobody(upstream):
    """One authorize that was forgotten in a rotation: 503, not an allow; it is let in when it has the secret."""
    stand = Stand(ROUTES.replace("UP", str(upstream.port))).start()
    try:
        person = stand.browser()
        assert person.login(stand.url("app"), USER).status_code == 200
        good, seen = stand.config, len(upstream.heads)
        stand.kill("authorize", signal.SIGTERM)
        stand.config = stand.config_with(make_secret(), None)
        stand.start_one("authorize")
        stand.config = good
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert person.fetch(stand.url("app")).status_code == 503
        assert len(upstream.heads) == seen
        stand.kill("authorize", signal.SIGTERM)
        stand.start_one("authorize")
        wait_for("an answer again", lambda: person.fetch(stand.url("app")).status_code == 200, 20)
    finally:
        stand.stop()


class Application:
    """Behind the proxy: verifies each assertion with the keys it has, and gets them again for a kid it does not know."""

    def __init__(self, stand):
        self.stand, self.keys, self.refused, self.kids = stand, [], [], []

    def take(self, token):
        if not verifies(token, self.keys):
            self.keys = keys_of(self.stand)
        if not verifies(token, self.keys):
            self.refused.append(token)
        kid = jwt.get_unverified_header(token)["kid"]
        if kid not in self.kids:
            self.kids.append(kid)


def pem():
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def test_signing_keys_are_rotated_and_no_token_is_refused(upstream):
    old, new = pem(), pem()

    def settings(*keys):
        return "signing_key: |\n" + "".join(f"  {line}\n" for key in keys for line in key.splitlines())
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    pass_identity_headers: true
    allow_any_authenticated_user: true
""", settings=settings(old)).start()
    try:
        app, people = Application(stand), [stand.browser() for _ in range(3)]
        kept = [header(b.login(stand.url("app"), USER).json()["head"], "X-Pomerium-Jwt-Assertion")[0] for b in people]

        def step(keys, done):
            """Requests go on while the configuration changes; then what was signed before still counts."""
            stand.settings = settings(*keys)
            stand.write_config()

            def look():
                for b in people:
                    app.take(header(b.fetch(stand.url("app")).json()["head"], "X-Pomerium-Jwt-Assertion")[0])
                return done()
            wait_for("the new keys", look, 20, 0.02)
            for _ in range(20):
                look()
            assert not app.refused
        for token in kept:
            app.take(token)
        step([old, new], lambda: len(keys_of(stand)) == 2)
        assert len(app.kids) == 1 and len({k["kid"] for k in keys_of(stand)}) == 2
        step([new, old], lambda: len(app.kids) == 2)
        assert all(verifies(token, keys_of(stand)) for token in kept)
        step([new], lambda: len(keys_of(stand)) == 1)
        assert keys_of(stand)[0]["kid"] == app.kids[1] and not any(verifies(token, keys_of(stand)) for token in kept)
    finally:
        stand.stop()
