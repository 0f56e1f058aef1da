"""Whoever is refused can read why: people, gRPC clients, kubectl, git, agents. Nobody reads a group's name."""

import json
import os
import shutil
import subprocess

import grpc
import pytest
import requests
from stand import PASSWORD, Stand, header
from trial import wait_for

SECRET = "board-of-directors"
ROUTES = f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{{allow: {{or: [{{groups: {{has: {SECRET}}}}}, {{user: {{is: robot/in}}}}]}}}}]
  - from: https://127.0.0.1:PORT
    to: http://127.0.0.1:UP
    policy: [{{allow: {{or: [{{groups: {{has: {SECRET}}}}}]}}}}]
"""


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(ROUTES.replace("UP", str(upstream.port)),
              settings='error_message_first_paragraph: "New here? <b>Ask</b> the help desk."\nsupport_url: mailto:help@example.com\n').start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def tokens(stand):
    made = {}
    for user in ("robot/in", "robot/out"):
        made[user] = stand.cli("token", "create", "--service-account", user).stdout.strip()
        wait_for("authorize to know", lambda: ask(stand, made[user]).status_code != 401)
    return made


def ask(stand, token=None, method="GET", path="/", **headers):
    if token:
        headers["X-Pomerium-Authorization"] = token
    return requests.request(method, stand.url("app", path), headers=headers, verify=stand.ca, allow_redirects=False, timeout=30)


def test_a_person_reads_who_they_are_and_whom_to_ask(stand):
    b = stand.browser()
    page = b.login(stand.url("app"), "user@example.com", PASSWORD)
    assert page.status_code == 403 and "You are logged in as user@example.com." in page.text
    assert "New here? &lt;b&gt;Ask&lt;/b&gt; the help desk." in page.text
    assert "mailto:help@example.com?subject=Request%20" + page.headers["x-request-id"] in page.text
    assert SECRET not in page.text and "<script" not in page.text and "groups-unauthorized" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["x-pomerium-intercepted-response"] == "true"
    out = b.get(stand.url("app", "/.pomerium/sign_out"))
    assert out.status_code == 200 and "signed out" in out.text.lower()
    assert "password" in b.get(stand.url("app")).text


def test_a_real_grpc_client_reads_a_status(stand, tokens):
    with open(stand.ca, "rb") as f:
        credentials = grpc.ssl_channel_credentials(f.read())
    name = f"app.localhost:{stand.port}"
    with grpc.secure_channel(f"127.0.0.1:{stand.port}", credentials, [("grpc.ssl_target_name_override", "app.localhost"),
                                                                      ("grpc.default_authority", name)]) as channel:
        call = channel.unary_unary("/a.B/C")
        for metadata, code in (((), grpc.StatusCode.UNAUTHENTICATED),
                               ((("authorization", "Bearer Pomerium-" + tokens["robot/out"]),), grpc.StatusCode.PERMISSION_DENIED),
                               ((("authorization", "Pomerium x"),), grpc.StatusCode.UNAUTHENTICATED)):
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=metadata, timeout=20)
            assert refused.value.code() == code, refused.value
            assert SECRET not in refused.value.details()


def test_kubectl_reads_a_status_object(stand, tokens):
    for token, status, reason in ((None, 401, "Unauthorized"), (tokens["robot/out"], 403, "Forbidden")):
        answer = ask(stand, token, path="/api/v1/pods", **{"User-Agent": "kubectl/v1.30.0 (linux/amd64) kubernetes/7c48c2b",
                                                           "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"})
        said = answer.json()
        assert answer.status_code == said["code"] == status
        assert (said["kind"], said["apiVersion"], said["status"], said["reason"]) == ("Status", "v1", "Failure", reason)
        assert answer.headers["x-request-id"] in said["message"] and SECRET not in answer.text


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_a_real_kubectl_prints_what_happened(stand, tokens):
    for token, said in ((tokens["robot/out"], "Error from server (Forbidden)"), ("x", "You must be logged in to the server")):
        done = subprocess.run(["kubectl", f"--server=https://127.0.0.1:{stand.port}", f"--certificate-authority={stand.ca}",
                               f"--token=Pomerium-{token}", "get", "--raw", "/api/v1/namespaces"], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "HOME": stand.folder, "KUBECONFIG": "/dev/null", "no_proxy": "*"}, check=False)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert SECRET not in done.stderr


def test_an_agent_reads_a_json_rpc_error(stand, tokens):
    takes = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", "MCP-Protocol-Version": "2025-06-18"}
    for token, status in ((None, 401), (tokens["robot/out"], 403)):
        answer = ask(stand, token, "POST", **takes)
        said = answer.json()
        assert answer.status_code == status and said["jsonrpc"] == "2.0" and said["id"] is None
        assert said["error"]["code"] == -32001 and said["error"]["data"]["request_id"] == answer.headers["x-request-id"]
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_plain_text_for_who_asks_for_it(stand, tokens):
    answer = ask(stand, tokens["robot/out"], Accept="text/plain")
    assert answer.headers["Content-Type"].startswith("text/plain") and "do not let you in" in answer.text and "<" not in answer.text
    assert ask(stand, tokens["robot/out"]).json()["status"] == 403


def test_crawlers_are_told_to_keep_out(stand, tokens):
    for token in (None, tokens["robot/out"]):
        answer = ask(stand, token, path="/robots.txt")
        assert answer.status_code == 200 and "Disallow: /" in answer.text
        answer = ask(stand, token, path="/robots.txt", **{"User-Agent": "kubectl/v1.30.0 (linux/amd64) kubernetes/7c48c2b"})
        assert answer.status_code == answer.json()["code"] == (403 if token else 401)
    assert ask(stand, tokens["robot/in"], path="/robots.txt").json()["head"].startswith("GET /robots.txt")


def test_real_git_gets_in_with_a_token_for_a_password(stand, tokens, upstream):
    """git shows a password only when it is asked for one (RFC 7617)."""
    env = {**os.environ, "GIT_SSL_CAINFO": stand.ca, "GIT_TERMINAL_PROMPT": "0", "HOME": stand.folder, "GIT_CONFIG_NOSYSTEM": "1",
           "GIT_CURL_VERBOSE": "0", "no_proxy": "*"}
    before = len(upstream.heads)
    subprocess.run(["git", "ls-remote", f"https://any:Pomerium-{tokens['robot/in']}@app.localhost:{stand.port}/repo"], env=env,
                   capture_output=True, timeout=60, check=False)
    seen = upstream.heads[before:]
    assert seen and all(h.startswith(b"GET /repo/") and header(h, "Authorization") == [] for h in seen), seen
    before = len(upstream.heads)
    done = subprocess.run(["git", "ls-remote", f"https://any:Pomerium-x@app.localhost:{stand.port}/repo"], env=env,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and len(upstream.heads) == before


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.example", "mailto:nobody", "https://a b", "data:text/html,x"])
def test_a_link_that_leads_nowhere_is_refused(stand, url):
    path = stand.folder + "/bad.yaml"
    with open(stand.config) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(text.replace("support_url: mailto:help@example.com", "support_url: " + json.dumps(url)))
    done = stand.cli("validate", path, check=False)
    assert done.returncode == 1 and "support_url" in done.stderr
