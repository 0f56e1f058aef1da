"""The shared secret is replaced while people work: daemons are restarted one by one, sessions stay, nobody gets in wrongly."""

import json
import signal
import time

import grpc
import jwt
import pytest
from sanitize import ANSWER_S
from stand import DAEMONS, Stand, Upstream, header, make_secret
from test_foreign import channel, token
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
