"""shadow_policy: a policy to come is asked beside the one that counts; only what it would change is told."""

import json

import pytest
from stand import Stand, Upstream
from trial import wait_for

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: app
    allow_any_authenticated_user: true
    shadow_policy: SHADOW
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: admin
    policy: [{allow: {or: [{claim/groups: admins}]}}]
    shadow_policy: [{allow: {or: [{claim/groups: staff}]}}]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: public
    allow_public_unauthenticated_access: true
    shadow_policy: [{allow: {or: [{no_such_thing: 1}]}}]
"""


@pytest.fixture(scope="module")
def stand():
    upstream = Upstream()
    s = Stand("")
    s.routes_of = lambda shadow: ROUTES.replace("UPSTREAM", str(upstream.port)).replace("SHADOW", shadow)
    s.write_config(s.routes_of("[{allow: {or: [{claim/groups: admins}]}}]"))
    s.start()
    yield s
    s.stop()
    upstream.close()


def audit(stand, request_id):
    lines = wait_for("the audit line", lambda: [line for line in stand.logs("authorize") if line.get("request-id") == request_id])
    return lines[0]


def test_the_policy_that_counts_decides_and_the_other_is_told(stand):
    browser = stand.browser()
    browser.login(stand.url("app"), "user@example.com", stand.accounts()["user@example.com"])
    page = browser.get(stand.url("app"))
    assert page.status_code == 200
    line = audit(stand, page.headers["X-Request-Id"])
    assert line["decision"] == "allow" and line["shadow-decision"] == "deny"
    assert line["shadow-reasons"] == ["claim-unauthorized"]
    page = browser.get(stand.url("admin"))
    assert page.status_code == 403
    line = audit(stand, page.headers["X-Request-Id"])
    assert line["decision"] == "deny" and line["shadow-decision"] == "allow"

    told = json.loads(stand.cli("explain", "--json", page.headers["X-Request-Id"]).stdout)
    assert told["verdict"] == "deny" and told["shadow"]["verdict"] == "allow"
    assert "The shadow policy would say: ALLOWED" in stand.cli("explain", page.headers["X-Request-Id"]).stdout

    admin = stand.browser()
    admin.login(stand.url("app"), "admin@example.com", stand.accounts()["admin@example.com"])
    page = admin.get(stand.url("app"))
    assert page.status_code == 200 and "shadow-decision" not in audit(stand, page.headers["X-Request-Id"])


def test_a_mistake_in_it_closes_nothing_and_is_told(stand):
    assert stand.browser().get(stand.url("public")).status_code == 200
    line, = (line for line in stand.logs("authorize") if line["event"] == "policy.shadow-invalid")
    assert line["route-id"] == "public" and f"config.yaml:{stand.config_line('no_such_thing')}" in line["why"]
    done = stand.cli("validate", check=False)
    assert done.returncode == 1 and f"config.yaml:{stand.config_line('no_such_thing')}" in done.stderr
    assert "503" not in done.stderr


def test_the_differences_are_summed_up(stand):
    stand.write_config(stand.routes_of("[{allow: {or: [{claim/groups: staff}]}}]"))

    def summed():
        return {line["route-id"]: line for line in stand.logs("authorize") if line["event"] == "policy.shadow"}
    lines = wait_for("the summary", lambda: len(summed()) == 2 and summed())
    assert lines["app"]["would-refuse"] >= 1 and lines["app"]["would-allow"] == 0
    assert lines["admin"]["would-allow"] >= 1 and lines["admin"]["would-refuse"] == 0
    assert lines["app"]["asked"] > lines["app"]["would-refuse"]
    browser = stand.browser()
    page = browser.get(stand.url("app"))
    assert page.status_code == 200 or "sign" in page.text.lower()
    browser.login(stand.url("app"), "user@example.com", stand.accounts()["user@example.com"])
    page = browser.get(stand.url("app"))
    assert page.status_code == 200 and "shadow-decision" not in audit(stand, page.headers["X-Request-Id"])


NAMED = """policies:
  staff:
    policy: [{allow: {or: [{claim/groups: staff}]}}]
    shadow_policy: [{allow: {or: [{claim/groups: admins}]}}]
  no-curl:
    enforced: true
    shadow_policy: [{deny: {or: [{header/X-Tool: curl}]}}]
  broken:
    policy: [{allow: {or: [{accept: true}]}}]
    shadow_policy: [{allow: {or: [{no_such_thing: 1}]}}]
"""
NAMED_ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: app
    policies: staff
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: other
    policies: [broken]
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: public
    allow_public_unauthenticated_access: true
"""


@pytest.fixture(scope="module")
def named():
    upstream = Upstream()
    s = Stand(NAMED_ROUTES.replace("UPSTREAM", str(upstream.port)), NAMED).start()
    yield s
    s.stop()
    upstream.close()


def test_a_named_policy_has_one_for_every_route_that_it_applies_to(named):
    browser = named.browser()
    browser.login(named.url("app"), "user@example.com", named.accounts()["user@example.com"])
    page = browser.get(named.url("app"))
    assert page.status_code == 200
    line = audit(named, page.headers["X-Request-Id"])
    assert line["decision"] == "allow" and line["shadow-decision"] == "deny" and line["shadow-reasons"] == ["claim-unauthorized"]
    told = json.loads(named.cli("explain", "--json", page.headers["X-Request-Id"]).stdout)
    assert told["shadow"]["verdict"] == "deny" and {r.get("from") for r in told["shadow"]["allow"]["rules"]} == {"staff"}


def test_an_enforced_policy_to_come_holds_nowhere_and_is_asked_everywhere(named):
    page = named.browser().get(named.url("public"), headers={"X-Tool": "curl"})
    assert page.status_code == 200
    line = audit(named, page.headers["X-Request-Id"])
    assert line["decision"] == "allow" and line["shadow-decision"] == "deny"
    page = named.browser().get(named.url("public"), headers={"X-Tool": "wget"})
    assert page.status_code == 200 and "shadow-decision" not in audit(named, page.headers["X-Request-Id"])


def test_a_mistake_in_what_is_to_come_closes_nothing(named):
    page = named.browser().get(named.url("other"))
    assert page.status_code == 200 and "shadow-decision" not in audit(named, page.headers["X-Request-Id"])
    lines = [line for line in named.logs("authorize") if line["event"] == "policy.shadow-invalid"]
    assert {line.get("policy", line.get("route-id")) for line in lines} == {"broken", "other"}
    done = named.cli("validate", check=False)
    assert done.returncode == 1 and f"config.yaml:{named.config_line('no_such_thing')}" in done.stderr
    assert not [line for line in named.logs("authorize") if line["event"] == "policy.invalid"]


def test_an_enforced_policy_to_come_may_not_let_anybody_in(named):
    kept = named.settings
    named.settings = NAMED.replace("[{deny: {or: [{header/X-Tool: curl}]}}]", "[{allow: {or: [{accept: true}]}}]")
    try:
        path = named.config_with(named.secret, None, "bad.yaml")
    finally:
        named.settings = kept
    done = named.cli("validate", path, check=False)
    assert done.returncode == 1 and "deny rules alone" in done.stderr
