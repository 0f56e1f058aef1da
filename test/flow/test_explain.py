"""postern explain: why a request was or is decided as it is, asked of the authorizes that decided."""

import json
import os
import re

import pytest
from stand import Stand, Upstream
from trial import wait_for

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: app
    allow_any_authenticated_user: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: admin
    name: the office
    policy:
      - allow:
          and:
            - claim/groups: GROUP
            - http_path: {starts_with: /office}
      - deny:
          or:
            - source_ip: 10.0.0.0/8
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: public
    policy: [{allow: {or: [{day_of_week: mon-fri}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: headers
    policy: [{allow: {and: [{header/X-Client: {starts_with: build}}, {header/X-Api-Key: letme1n}]}}]
"""


@pytest.fixture(scope="module")
def stand():
    upstream = Upstream()
    s = Stand("", authorizes=2)
    s.routes_of = lambda group: ROUTES.replace("UPSTREAM", str(upstream.port)).replace("GROUP", group)
    s.write_config(s.routes_of("admins"))
    s.start()
    yield s
    s.stop()
    upstream.close()


def denied(stand):
    """(request id of the error page, browser) of a user who may not enter the office."""
    browser = stand.browser()
    browser.login(stand.url("app"), "user@example.com", stand.accounts()["user@example.com"])
    page = browser.get(stand.url("admin", "/office?secret-query=1"))
    assert page.status_code == 403
    found = re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", page.text)
    assert page.headers["X-Request-Id"] == found[0]
    return found[0], browser


def document(stand, *args):
    return json.loads(stand.cli("explain", "--json", *args).stdout)


def test_the_id_on_the_error_page_explains_the_denial(stand):
    request_id, browser = denied(stand)
    text = stand.cli("explain", request_id).stdout
    lines = text.splitlines()
    assert lines[0].startswith("Then: DENIED (403): claim-unauthorized"), text
    assert "Now:  DENIED (403): claim-unauthorized" in text
    assert "The rules of the route are the same. The facts about the visitor are the same." in text
    assert "user@example.com" in text and "the office" in text and "GET admin.localhost/office from 127.0.0.1" in text
    assert re.search(r"no +claim/groups: admins\n +it is \[staff\] +\[claim-unauthorized\] +line \d+:\d+", text), text
    assert re.search(r"yes +http_path", text)
    assert re.search(r"What would change it: one of these\n +- claim/groups: admins\n", text), text
    assert "replica  fresh" in text and "session: written" in text
    secrets = [c.value for c in browser.session.cookies] + ["secret-query", stand.secret]
    assert not any(secret in text for secret in secrets)

    told = document(stand, request_id)
    assert told["past"]["verdict"] == told["verdict"] == told["trace"]["verdict"] == "deny"
    assert told["past"]["reasons"] == told["reasons"] == ["claim-unauthorized"]
    assert told["past"]["request_id"] == request_id and told["route"]["id"] == "admin"
    line = next(c["line"] for c in told["trace"]["allow"]["rules"][0]["criteria"] if c["name"] == "claim/groups")
    assert line == stand.config_line("claim/groups")
    assert not any(secret in json.dumps(told) for secret in secrets)


def test_what_is_not_remembered_is_said(stand):
    done = stand.cli("explain", "00000000-0000-0000-0000-000000000000", check=False)
    assert done.returncode == 1 and "no request of that id is remembered" in done.stderr and not done.stdout


def test_the_headers_of_a_past_request_are_compared_but_for_secrets(stand):
    page = stand.browser().get(stand.url("other"), headers={"X-Client": "test-7", "X-Api-Key": "wr0ng", "X-Other": "un4sked"})
    assert page.status_code == 403
    request_id = page.headers["X-Request-Id"]
    text = stand.cli("explain", request_id).stdout
    assert re.search(r'no +header/X-Client: .*\n +it is test-7 ', text), text
    assert re.search(r'no +header/X-Api-Key: .*\n.*not remembered: it may hold a secret', text), text
    told = json.dumps(document(stand, request_id))
    assert "test-7" in told and "wr0ng" not in told + text and "un4sked" not in told


def test_questions_are_answered_by_the_running_rules(stand):
    denied(stand)
    ask = ("--route", "admin", "--path", "/office/desk", "--ip", "192.0.2.1")
    assert document(stand, *ask, "--user", "user@example.com")["verdict"] == "deny"
    told = document(stand, *ask, "--user", "USER@example.com")
    assert told["who"]["email"] == "user@example.com" and told["who"]["session_state"] == "live"
    told = document(stand, *ask)
    assert told["verdict"] == "login" and told["reasons"] == ["user-unauthenticated"]
    assert "What would change it: logging in" in stand.cli("explain", *ask).stdout
    admin = stand.browser()
    admin.login(stand.url("app"), "admin@example.com", stand.accounts()["admin@example.com"])
    assert document(stand, *ask, "--user", "admin@example.com")["verdict"] == "allow"
    told = document(stand, "--route", "the office", "--path", "/office", "--ip", "10.1.2.3", "--user", "admin@example.com")
    assert told["verdict"] == "deny" and told["reasons"] == ["source-ip-ok"]
    text = stand.cli("explain", "--route", f"https://admin.localhost:{stand.port}/", "--path", "/office", "--ip", "10.1.2.3",
                     "--user", "admin@example.com").stdout
    assert text.startswith("DENIED (403): source-ip-ok") and "no longer: source_ip: 10.0.0.0/8" in text
    assert document(stand, "--route", "public", "--time", "2026-05-01T12:00:00Z")["verdict"] == "allow"
    assert document(stand, "--route", "public", "--time", "2026-05-02T12:00:00Z")["verdict"] == "deny"


def test_the_route_of_a_url_is_found(stand):
    told = document(stand, stand.url("admin", "/office/%64esk?query"), "--ip", "10.0.0.1")
    assert told["route"]["id"] == "admin" and told["request"]["path"] == "/office/desk" and told["verdict"] == "login"
    for url, words in ((stand.url("nowhere"), "no route fits"), (stand.url("app", "/a%2fb"), "before any policy"),
                       ("https://user@app.localhost/", "")):
        done = stand.cli("explain", url, check=False)
        assert done.returncode == 1 and words in done.stderr and not done.stdout


def test_headers_of_the_question_count(stand):
    key = ("--header", "X-Api-Key: letme1n")
    assert document(stand, "--route", "headers", "--header", "x-client: build-7", "--header", "X-Other: 1", *key)["verdict"] == "allow"
    for args in ((), ("--header", "X-Client: test")):
        told = document(stand, "--route", "headers", *args)
        assert told["verdict"] == "deny" and told["trace"]["allow"]["rules"][0]["criteria"][0]["name"] == "header/X-Client"


def test_a_user_without_a_session_is_judged_as_after_a_login(stand):
    browser = stand.browser()
    browser.login(stand.url("app"), "admin@example.com", stand.accounts()["admin@example.com"])
    stand.cli("users", "revoke", "admin@example.com")

    def over():
        told = document(stand, "--route", "app", "--user", "admin@example.com")
        return told if told["who"]["session_state"] == "none" else None
    told = wait_for("the sessions to be over", over)
    assert told["supposed_login"] and told["verdict"] == "allow"
    assert "no live session" in stand.cli("explain", "--route", "app", "--user", "admin@example.com").stdout


def test_what_cannot_be_answered_says_why(stand):
    for args, words in ((("--route", "nowhere"), "no route has the id"),
                        (("--route", "app", "--user", "nobody@example.com"), "nobody with the user id or e-mail"),
                        (("--route", "app", "--authorize", f"unix:{stand.folder}/nobody.sock"), "does not answer")):
        done = stand.cli("explain", *args, check=False)
        assert done.returncode == 1 and words in done.stderr, done.stderr
    for args in ((), ("id", "--route", "app"), ("--route", "app", "--time", "noon"), ("--route", "app", "--ip", "here"),
                 ("--route", "app", "--method", "G ET"), ("--route", "app", "--path", "office"), ("--route", "app", "--host", "a b"),
                 ("--route", "app", "--host", "app.localhost:99"), ("--route", "app", "--header", "X-A"), ("--route", "app", "--header", ": v"),
                 ("--route", "app", *("--header", "X-A: b") * 65)):
        assert stand.cli("explain", *args, check=False).returncode == 2
    assert "GET app.localhost/" in stand.cli("explain", "--route", "app", "--host", "App.LocalHost").stdout


def test_facts_of_a_file_need_no_server(stand):
    path = os.path.join(stand.folder, "facts.yaml")
    with open(path, "w") as f:
        f.write("user: u-1\nclaims: {groups: [staff, admins]}\npath: /office\nip: 192.0.2.1\n")
    text = stand.cli("explain", "--route", "admin", "--facts", path).stdout
    assert text.startswith("ALLOWED") and "claim/groups: admins" in text
    with open(path, "w") as f:
        f.write("user: u-1\nclaim: {groups: [admins]}\n")
    done = stand.cli("explain", "--route", "admin", "--facts", path, check=False)
    assert done.returncode == 1 and 'unknown key "claim"' in done.stderr


def test_it_is_told_whether_the_rules_have_changed_since(stand):
    request_id, _ = denied(stand)
    before = document(stand, request_id)["checksum"]
    stand.write_config(stand.routes_of("staff"))

    def changed():
        told = document(stand, request_id)
        return told if told["checksum"] != before else None
    told = wait_for("the new rules", changed)
    assert told["past"]["rules_changed"] and not told["past"]["facts_changed"]
    assert told["past"]["verdict"] == "deny" and told["verdict"] == "allow"
    stand.cli("users", "revoke", "user@example.com")
    told = wait_for("the end of the session", lambda: (t := document(stand, request_id))["past"]["facts_changed"] and t)
    assert told["verdict"] == "login" and told["who"]["session_state"] == "gone"


def test_only_the_command_line_may_ask(stand):
    calls = [line for a in stand.authorizes for line in stand.logs(a) if line["event"] == "explain"]
    assert calls and {line["caller"] for line in calls} == {"cli"}
