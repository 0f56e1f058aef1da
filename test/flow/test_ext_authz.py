"""envoy.service.auth.v3.Authorization/Check, asked by a client that is made of the published messages."""

import json
import os
import random
import signal
import subprocess
import threading
import time

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from foreign import channel, token
from sanitize import ANSWER_S
from stand import Stand
from trial import ROOT, free_port, freeze, wait_for

USER = "user@example.com"
NAVIGATION = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture(scope="module")
def stand(upstream):
    only_admins = "policy: [{allow: {or: [{email: {is: admin@example.com}}]}}]"
    inside = 'policy: [{allow: {and: [{accept: true}]}, deny: {or: [{source_ip: "203.0.113.0/24"}]}}]'
    s = Stand(f"""
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{upstream.port}", prefix: /admin, {only_admins}}}
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{upstream.port}", prefix: /inside, {inside}}}
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    id: app
    allow_any_authenticated_user: true
    pass_identity_headers: true
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_public_unauthenticated_access: true
  - {{from: "https://pre.localhost:PORT", to: "http://127.0.0.1:{upstream.port}", policy: [{{allow: {{or: [{{cors_preflight: true}}]}}}}]}}
  - from: https://ci.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    bearer_token_format: jwt
    policy: [{{allow: {{or: [{{user: {{is: "ci/repo"}}}}, {{email: {{is: {USER}}}}}]}}}}]
""", authorizes=2)
    s.ci = ec.generate_private_key(ec.SECP256R1())
    with open(f"{s.folder}/ci.json", "w") as f:
        json.dump({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(s.ci.public_key()))]}, f)
    s.settings = ("jwt_claims_headers: [email]\nidentity_providers: {ci: {issuer: https://ci.example, audiences: [us], "
                  f"jwks_file: {s.folder}/ci.json, supported_algs: [ES256]}}}}\n")
    s.write_config()
    s.foreign = free_port()  # where the second one serves others than our proxy
    s.env["authorize-2"] = {"GRPC_ADDRESS": f"127.0.0.1:{s.foreign}"}
    s.start()
    yield s
    s.stop()


class Client:
    def __init__(self, tool, stand, shown, at=None):
        ca = f"{stand.folder}/ca.pem"
        with open(ca, "w") as f:
            f.write(stand.cli("ca").stdout)
        self.stand = stand
        self.process = subprocess.Popen([tool, at or f"unix://{stand.folder}/authorize.sock", ca, shown], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def raw(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ask(self, path="/", host="app.localhost:PORT", method="GET", headers=None, ip="198.51.100.7", **more):
        """As Envoy fills it in."""
        host = host.replace("PORT", str(self.stand.port))
        headers = {":authority": host, ":path": path, ":method": method, ":scheme": "https", **(headers or {})}
        return self.raw({"attributes": {
            "source": {"address": {"socketAddress": {"address": ip, "portValue": 4711}}, "principal": "x"},
            "destination": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 443}}},
            "request": {"time": "2026-01-01T00:00:00Z", "http": {
                "id": "42", "method": method, "path": path, "host": host, "scheme": "https", "protocol": "HTTP/1.1",
                "size": "-1", "headers": headers, **more}},
            "contextExtensions": {"any": "thing"}, "metadataContext": {"filterMetadata": {"a": {"b": [1, {"c": None}]}}}}})

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def tool():
    done = subprocess.run([os.path.join(ROOT, "test/support/ext_authz.sh")], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("the client cannot be built here: " + done.stderr[-300:])
    return done.stdout.strip()


@pytest.fixture(scope="module")
def envoy(tool, stand):
    c = Client(tool, stand, token(stand, "checker"), f"127.0.0.1:{stand.foreign}")
    yield c
    c.close()


@pytest.fixture(scope="module")
def person(stand):
    b = stand.browser()
    assert b.login(stand.url("app"), USER).status_code == 200
    return b


def is_denied(answer, status=None):
    assert answer["status"]["code"] != 0 and "ok_response" not in answer, answer
    code = answer["denied_response"]["status"]["code"]
    assert status is None or code == status, answer
    return answer["denied_response"]


def fields(options):
    return {o["header"]["key"].lower(): o["header"]["value"] for o in options}


def test_an_allowed_request_gets_its_identity_and_loses_our_credentials(stand, envoy, person):
    cookie = "a=1; " + person.cookie("app") + "; b=2"
    got = envoy.ask("/x?y=z", headers={"cookie": cookie, "x-pomerium-jwt-assertion": "forged", "x-pomerium-more": "forged",
                                       "x-request-id": "the-id", "x-other": "stays"})
    assert got["status"]["code"] == 0 and "denied_response" not in got
    ok = got["ok_response"]
    sent = fields(ok["headers"])
    assert sent["cookie"] == "a=1; b=2" and sent["x-pomerium-claim-email"] == USER
    assert sent["x-pomerium-jwt-assertion"].count(".") == 2
    assert all(o["append_action"] == 2 and o["append"] is False for o in ok["headers"])
    removed = [name.lower() for name in ok["headers_to_remove"]]
    assert removed == ["x-pomerium-more"]
    told = got["dynamic_metadata"]
    assert told["email"] == USER and told["request_id"] == "the-id" and told["user"] and told["session"] and "user-ok" in told["reasons"]
    line = wait_for("the audit line", lambda: [x for x in stand.logs("authorize-2") if x.get("request-id") == "the-id"])[0]
    assert line["decision"] == "allow" and line["ip"] == "198.51.100.7" and line["path"] == "/x" and line["route-id"] == told["route"]
    ok = envoy.ask(headers={"cookie": person.cookie("app"), "authorization": "Basic eDp5"})["ok_response"]
    assert ok["headers_to_remove"] == ["cookie"] and "cookie" not in fields(ok["headers"])


def test_an_anonymous_request_to_an_open_route_is_cleaned_too(envoy):
    got = envoy.ask(host="public.localhost:PORT", headers={"x-pomerium-jwt-assertion": "forged", "cookie": "a=1"})
    assert got["status"]["code"] == 0 and not got["ok_response"]["headers"]
    assert got["ok_response"]["headers_to_remove"] == ["x-pomerium-jwt-assertion"]


def test_the_answer_to_a_stranger_fits_who_asks(stand, envoy):
    denied = is_denied(envoy.ask("/a?b=c", headers=NAVIGATION), 302)
    where = fields(denied["headers"])["location"]
    assert where == (f"https://app.localhost:{stand.port}/.pomerium/sign_in?pomerium_redirect_uri="
                     f"https%3A%2F%2Fapp.localhost%3A{stand.port}%2Fa%3Fb%3Dc")
    page = stand.browser().get(where)
    assert page.status_code == 200 and "password" in page.text
    denied = is_denied(envoy.ask("/a", headers={"accept": "application/json", "x-request-id": "json-1"}), 401)
    assert json.loads(denied["body"]) == {"status": 401, "error": "Unauthorized", "code": "login-needed", "request_id": "json-1"}
    assert fields(denied["headers"])["www-authenticate"].startswith("Bearer")
    for headers, method in (({**NAVIGATION, "upgrade": "websocket", "connection": "Upgrade"}, "GET"), (NAVIGATION, "POST"), ({}, "DELETE")):
        is_denied(envoy.ask("/a", headers=headers, method=method), 401)


def test_who_may_not_gets_a_page_or_an_object(envoy, person):
    cookie = {"cookie": person.cookie("app")}
    denied = is_denied(envoy.ask("/admin", headers={**cookie, **NAVIGATION}), 403)
    assert "<html" in denied["body"] and "content-security-policy" in fields(denied["headers"])
    denied = is_denied(envoy.ask("/admin", headers=cookie), 403)
    assert json.loads(denied["body"])["code"] == "email-unauthorized"
    denied = is_denied(envoy.ask("/admin", headers={**cookie, "user-agent": "kubectl/v1.30 kubernetes/7c48"}), 403)
    said = json.loads(denied["body"])
    assert (said["kind"], said["reason"], said["code"]) == ("Status", "Forbidden", 403) and "email-unauthorized" in said["message"]
    agent = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    said = json.loads(is_denied(envoy.ask("/admin", method="POST", headers={**cookie, **agent}), 403)["body"])
    assert said["error"]["data"]["code"] == "email-unauthorized" and said["id"] is None
    for more in ({"content-type": "application/grpc"}, {"accept": "text/plain"}):
        denied = is_denied(envoy.ask("/admin", headers={**cookie, **more}), 403)
        assert denied["body"].startswith("The rules of this address do not let you in. Code: email-unauthorized, request id: ")


def test_the_client_s_address_is_the_one_that_envoy_tells(envoy):
    assert envoy.ask("/inside", ip="203.0.114.1")["status"]["code"] == 0
    is_denied(envoy.ask("/inside", ip="203.0.113.1"), 403)


def test_a_preflight_is_one(envoy):
    headers = {"origin": "https://a.example", "access-control-request-method": "PUT"}
    assert envoy.ask(host="pre.localhost:PORT", method="OPTIONS", headers=headers)["status"]["code"] == 0
    is_denied(envoy.ask(host="pre.localhost:PORT", method="GET", headers=headers))


def test_a_session_ends_with_the_next_question(stand, envoy):
    b = stand.browser()
    b.login(stand.url("app"), "admin@example.com")
    cookie = {"cookie": b.cookie("app")}
    assert envoy.ask("/admin", headers=cookie)["status"]["code"] == 0
    stand.cli("users", "revoke", "admin@example.com")
    is_denied(envoy.ask("/admin", headers=cookie), 401)


def ci_token(stand, key=None, **more):
    now = int(time.time())
    return jwt.encode({"iss": "https://ci.example", "aud": "us", "sub": "repo", "iat": now, "exp": now + 600, "jti": str(time.monotonic_ns()), **more},
                      key or stand.ci, "ES256")


def ask_ci(client, token, **headers):
    return client.ask(host="ci.localhost:PORT", headers={"authorization": "Bearer " + token, **headers})


def test_tokens_of_others_count_where_the_route_takes_them(stand, envoy, person):
    token = ci_token(stand)
    for _ in range(2):  # found out, and remembered
        got = ask_ci(envoy, token)
        assert got["status"]["code"] == 0 and got["dynamic_metadata"]["user"] == "ci/repo", got
        assert "authorization" in [name.lower() for name in got["ok_response"]["headers_to_remove"]]
    for wrong in ({"aud": "else"}, {"iss": "https://else.example"}, {"exp": 1}, {"sub": ""}, {"key": ec.generate_private_key(ec.SECP256R1())}):
        for _ in range(2):
            denied = is_denied(ask_ci(envoy, ci_token(stand, **wrong), **NAVIGATION), 401)  # and is sent nowhere to log in
            assert "location" not in fields(denied["headers"]), wrong
    assert json.loads(is_denied(ask_ci(envoy, ci_token(stand, exp=1)), 401)["body"])["code"] == "token-expired"
    is_denied(ask_ci(envoy, ci_token(stand, sub="another")), 403)
    is_denied(envoy.ask(headers={"authorization": "Bearer " + token}))  # elsewhere it is the application's
    session = got["dynamic_metadata"]["session"]
    stand.cli("sessions", "revoke", session)
    wait_for("the end of its session", lambda: ask_ci(envoy, token)["status"]["code"] != 0)


def test_while_a_token_is_looked_at_others_are_answered(stand, envoy, tool):
    other = Client(tool, stand, token(stand, "checker"), f"127.0.0.1:{stand.foreign}")
    got, shown = [], ci_token(stand)
    asking = threading.Thread(target=lambda: got.append(ask_ci(other, shown)))
    freeze(stand.processes["authenticate"])
    try:
        asking.start()
        for _ in range(20):
            assert envoy.ask(host="public.localhost:PORT")["status"]["code"] == 0
        assert not got
    finally:
        stand.processes["authenticate"].send_signal(signal.SIGCONT)
    asking.join(60)
    assert got and got[0]["status"]["code"] == 0, got
    other.close()


def test_without_authenticate_a_new_token_is_not_decided(stand, envoy):
    known = ci_token(stand)
    assert ask_ci(envoy, known)["status"]["code"] == 0
    stand.kill("authenticate")
    try:
        assert json.loads(is_denied(ask_ci(envoy, ci_token(stand)), 503)["body"])["code"] == "token-not-verified"
        assert ask_ci(envoy, known)["status"]["code"] == 0
    finally:
        stand.start_one("authenticate")
        stand.wait_ready()
    wait_for("authenticate", lambda: ask_ci(envoy, ci_token(stand))["status"]["code"] == 0)


def test_a_program_s_token_counts_and_a_bad_one_is_refused(stand, envoy, person):
    made = stand.cli("token", "create", "--service-account", "robot/envoy", "--ttl", "2h").stdout.strip()
    shown = {"authorization": f"Bearer Pomerium-{made}", "x-request-id": "by-token"}
    got = wait_for("authorize to know the account", lambda: (lambda a: a if a["status"]["code"] == 0 else None)(envoy.ask(headers=shown)))
    assert "authorization" in got["ok_response"]["headers_to_remove"]
    got = envoy.ask(headers={"x-pomerium-authorization": made, "authorization": "Basic YTpi"})
    assert got["ok_response"]["headers_to_remove"] == ["x-pomerium-authorization"]
    is_denied(envoy.ask(headers={"authorization": f"Bearer Pomerium-{made}x", **NAVIGATION}), 401)
    is_denied(envoy.ask(headers={"authorization": f"Pomerium {made}", "cookie": person.cookie("app")}), 400)
    is_denied(envoy.ask(headers={"authorization": "Bearer Pomerium-" + token(stand, "checker")}), 401)


@pytest.mark.parametrize("path, status", [
    ("//admin", 400), ("/x/../admin", 400), ("/open/..;/admin", 400), ("/%2fadmin", 400), ("/%61dmin", 403), ("/a%252f", 400), ("/;/admin", 400),
    ("/admin;x", 403), ("", 400), ("admin", 400), ("*", 400), ("https://public.localhost/", 400), ("/a#b", 400), ("/a b", 400), ("/\u00e9", 400),
    ("/.pomerium/callback", 403), ("/.pomerium", 403), ("/.well-known/pomerium/jwks.json", 403), ("/" + "a" * 20000, 414)])
def test_a_path_with_two_readings_is_refused(envoy, person, path, status):
    is_denied(envoy.ask(path, headers={"cookie": person.cookie("app")}), status)


@pytest.mark.parametrize("how, status", [
    (dict(host="nobody.localhost"), 404), (dict(host=""), 400), (dict(host="app.localhost, public.localhost"), 400), (dict(host="a@public.localhost"), 400),
    (dict(method="get"), 501), (dict(method=""), 501), (dict(method="CONNECT"), 501), (dict(method="TRACE"), 501),
    (dict(headers={":path": "/other"}), 400), (dict(headers={":authority": "public.localhost"}), 400), (dict(headers={"host": "public.localhost"}), 400),
    (dict(headers={":method": "POST"}), 400), (dict(query="a=b"), 400), (dict(fragment="a"), 400), (dict(headers={"a b": "c"}), 400), (dict(headers={"x_pomerium_jwt_assertion": "forged"}), 400),
    (dict(headers={"a": "b\r\nc: d"}), 400), (dict(headers={"a": "b\u0000c"}), 400), (dict(headers={f"x-{i}": "y" for i in range(400)}), 431),
    (dict(headers={"x": "y" * 200000}), 431), (dict(headers={"Sec-Fetch-Mode": "a", "sec-fetch-mode": "b"}), 400),
    (dict(headers={"authorization": "Pomerium x", "Authorization": "Pomerium y"}), 400),
    (dict(headerMap={"headers": [{"key": "a", "value": "b"}]}), 400),
    (dict(headers={}, headerMap={"headers": [{"key": "a", "value": "b", "rawValue": "Yw=="}]}), 400)])
def test_what_contradicts_itself_or_is_too_much_is_refused(envoy, how, status):
    is_denied(envoy.ask(**{"host": "public.localhost:PORT", **how}), status)


def test_raw_headers_are_read_as_well(envoy, stand, person):
    raw = [{"key": k, "rawValue": __import__("base64").b64encode(v.encode()).decode()} for k, v in
           {":path": "/", "cookie": person.cookie("app")}.items()]
    host = f"app.localhost:{stand.port}"
    got = envoy.raw({"attributes": {"request": {"http": {"method": "GET", "path": "/", "host": host, "headerMap": {"headers": raw}}}}})
    assert got["status"]["code"] == 0 and got["dynamic_metadata"]["email"] == USER


def test_a_message_without_a_request_is_no_question(envoy):
    for request in ({}, {"attributes": {}}, {"attributes": {"request": {}}}, {"attributes": {"source": {}}}):
        assert envoy.raw(request) == {"error": 3}
    is_denied(envoy.raw({"attributes": {"request": {"http": {}}}}))


@pytest.mark.parametrize("shown", ["", "postern_nonsense", "session-admin", "reader"])
def test_only_a_checker_may_ask(tool, stand, shown):
    c = Client(tool, stand, token(stand, shown) if shown in ("session-admin", "reader") else shown)
    try:
        assert c.ask(host="public.localhost:PORT") == {"error": 7 if shown in ("session-admin", "reader") else 16}
    finally:
        c.close()


def test_a_checker_may_do_nothing_else(stand, stubs):
    auth = [("authorization", "Bearer " + token(stand, "checker"))]
    pb, rpc = stubs["databroker"]
    check_pb, check_rpc = stubs["authorize"]
    for call, request in ((rpc.DataBrokerServiceStub(channel(stand, "databroker")).Query, pb.QueryRequest(type="session.Session")),
                          (check_rpc.AuthorizeStub(channel(stand, "authorize")).Check, check_pb.CheckRequest(id=1))):
        with pytest.raises(grpc.RpcError) as refused:
            call(request, metadata=auth, timeout=ANSWER_S)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_hostile_bytes_are_no_yes(stand):
    auth = [("authorization", "Bearer " + token(stand, "checker"))]
    check = channel(stand, "authorize").unary_unary("/envoy.service.auth.v3.Authorization/Check",
                                                    request_serializer=lambda b: b, response_deserializer=lambda b: b)
    rng = random.Random(7)

    def field(number, body):
        length, n = b"", len(body)
        while n >= 128:
            length, n = length + bytes([n & 127 | 128]), n >> 7
        return bytes([number << 3 | 2]) + length + bytes([n]) + body
    http = field(2, b"GET") + field(4, b"/") + field(5, b"public.localhost") + field(3, field(1, b"a") + field(2, b"\xff\xfe"))
    whole = field(1, field(4, field(2, http)))
    deep = b""
    for _ in range(5000):
        deep = field(1, deep)[:60000]
    for message in [whole[:n] for n in range(1, len(whole))] + [deep, b"\xff" * 100, field(1, field(4, field(2, field(3, b"")))) * 500] + \
            [bytes(b if rng.random() > 0.1 else rng.randrange(256) for b in whole) for _ in range(200)]:
        try:
            got = check(message, metadata=auth, timeout=ANSWER_S)
        except grpc.RpcError as e:
            assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
            continue
        assert b"\x1a" not in got[:1] and got.startswith(b"\x0a\x02\x08\x07"), got  # PERMISSION_DENIED


def test_without_the_store_nobody_with_a_session_gets_in(upstream, tool):
    s = Stand(f"""
  - {{from: "https://app.localhost:PORT", to: "http://127.0.0.1:{upstream.port}", allow_any_authenticated_user: true}}
""", settings="databroker_max_staleness: 1s\n").start()
    c = Client(tool, s, token(s, "checker"))
    try:
        b = s.browser()
        b.login(s.url("app"), USER)
        cookie = {"cookie": b.cookie("app")}
        assert c.ask(headers=cookie)["status"]["code"] == 0
        s.kill("databroker")
        wait_for("no verdict", lambda: is_denied(c.ask(headers=cookie), 503))
    finally:
        c.close()
        s.start_one("databroker")
        s.wait_ready()
        s.stop()
