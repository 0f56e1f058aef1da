"""Kubernetes service accounts: the API server says who signs, and with which keys. Its part is played here, over TLS."""

import http.server
import json
import os
import ssl
import threading
import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from stand import Stand, make_certificate
from trial import wait_for

ACCOUNT = "system:serviceaccount:backup:nightly"
CLUSTER = "https://kubernetes.default.svc.cluster.local"

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: jwt
    policy: [{allow: {or: [{user: {is: "pods/ACCOUNT"}}, {claim/kubernetes.io.namespace: monitoring}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    bearer_token_format: jwt
    identity_providers: [ci]
    policy: [{allow: {or: [{accept: true}]}}]
""".replace("ACCOUNT", ACCOUNT)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        api = self.server.api
        api.asked.append((self.path, self.headers["Authorization"]))
        status, body = api.answer(self.path, self.headers["Authorization"])
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ApiServer:
    def __init__(self, folder):
        key, self.ca = make_certificate(folder, "kubernetes.localhost")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.api, self.server.daemon_threads = self, True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://kubernetes.localhost:{self.server.server_port}"
        self.token, self.issuer, self.asked, self.down = "pod-token-canary", CLUSTER, [], False
        self.key = rsa.generate_private_key(65537, 2048)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, authorization):
        if self.down:
            return 503, {}
        if authorization != "Bearer " + self.token:
            return 401, {"kind": "Status"}
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.issuer, "jwks_uri": "https://10.255.255.1:6443/openid/v1/jwks"}
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return 200, {"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}

    def service_account(self, sub=ACCOUNT, key=None, **more):
        now = int(time.time())
        namespace = sub.split(":")[2] if sub.count(":") == 3 else ""
        claims = {"iss": CLUSTER, "sub": sub, "aud": ["postern"], "iat": now, "nbf": now, "exp": now + 600,
                  "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": sub.split(":")[-1]}}, **more}
        return jwt.encode(claims, key or self.key, "RS256", {"kid": "k1"})

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture()
def world(upstream, tmp_path):
    api = ApiServer(str(tmp_path))
    token = tmp_path / "token"
    token.write_text(api.token + "\n")
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), settings=f"""identity_providers:
  pods: {{issuer: "kubernetes:///", audiences: [postern], api_url: "{api.url}", api_token_file: {token}, ca_file: {api.ca}}}
  ci: {{issuer: https://ci.example, audiences: [postern], jwks_url: "https://127.0.0.1:1/keys"}}
""")
    yield stand, api, token
    stand.stop()
    api.close()


def get(stand, token, host="app"):
    answer = requests.get(stand.url(host), headers={"Authorization": "Bearer " + token}, verify=stand.ca, timeout=30)
    return answer.status_code if answer.status_code == 200 else (answer.status_code, answer.json()["code"])


def test_a_service_account_is_who_its_cluster_says(world):
    stand, api, _ = world
    stand.start()
    got = []
    many = [threading.Thread(target=lambda: got.append(get(stand, api.service_account(jti=str(n))))) for n in range(8)]
    for t in many:
        t.start()
    for t in many:
        t.join(60)
    assert got == [200] * 8
    assert [path for path, _ in api.asked] == ["/.well-known/openid-configuration", "/openid/v1/jwks"]  # once for all of them
    assert get(stand, api.service_account("system:serviceaccount:monitoring:prometheus")) == 200
    assert get(stand, api.service_account("system:serviceaccount:backup:other"))[0] == 403
    for wrong in ({"iss": "kubernetes:///"}, {"iss": CLUSTER + "/"}, {"aud": ["https://kubernetes.default.svc"]}, {"iss": ""},
                  {"exp": int(time.time()) - 100}, {"key": rsa.generate_private_key(65537, 2048)}):
        assert get(stand, api.service_account(**wrong))[0] == 401, wrong
    assert get(stand, api.service_account(), "other") == (401, "token-invalid")  # not of those that this route takes
    assert len(api.asked) == 2
    for daemon in ("proxy", "authenticate", "authorize", "databroker"):
        with open(stand.log_file(daemon), errors="replace") as f:
            assert "pod-token-canary" not in f.read(), daemon


def test_a_cluster_that_is_not_known_yet_lets_nobody_in(world):
    stand, api, _ = world
    api.down = True
    stand.start()
    assert get(stand, api.service_account()) == (503, "token-not-verified")
    assert get(stand, api.service_account(iss="https://evil.example")) == (503, "token-not-verified")
    api.down, api.issuer = False, ["no", "text"]
    wait_for("an answer without an issuer", lambda: get(stand, api.service_account(jti="1"))[0] == 503 and any(
        "names no issuer" in x.get("why", "") for x in stand.logs("authenticate")))
    api.issuer = CLUSTER
    wait_for("the cluster", lambda: get(stand, api.service_account(jti="2")) == 200)


def test_a_token_of_the_pod_that_is_renewed_is_the_one_that_is_shown(world):
    """And a server that does not prove itself is told none."""
    stand, api, token = world
    api.token = "renewed"
    stand.start()
    assert get(stand, api.service_account()) == (503, "token-not-verified")
    fresh = token.with_suffix(".new")
    fresh.write_text("renewed\n")
    os.rename(fresh, token)
    wait_for("the renewed token", lambda: get(stand, api.service_account(jti="1")) == 200)
    stand.settings = stand.settings.replace(f"ca_file: {api.ca}", f"ca_file: {stand.ca}")
    stand.write_config()
    asked = len(api.asked)
    wait_for("the new configuration", lambda: get(stand, api.service_account(jti=str(time.monotonic()))) == (503, "token-not-verified"))
    assert len(api.asked) == asked
