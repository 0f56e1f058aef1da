"""postern policy diff: which verdicts change between two configurations, over the users that there are."""

import json
import os

import pytest
from stand import Stand, Upstream

ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: app
    policy: APP
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: admin
    policy: ADMIN
"""
ANYBODY = "[{allow: {or: [{authenticated_user: true}]}}]"
ADMINS = "[{allow: {or: [{claim/groups: admins}]}}]"
MORE = """
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:UPSTREAM
    id: public
    allow_public_unauthenticated_access: true
"""


@pytest.fixture(scope="module")
def stand():
    upstream = Upstream()
    s = Stand("")
    s.routes_of = lambda app, admin: ROUTES.replace("UPSTREAM", str(upstream.port)).replace("APP", app).replace("ADMIN", admin)
    s.public = MORE.replace("UPSTREAM", str(upstream.port))
    s.write_config(s.routes_of(ANYBODY, ADMINS))
    s.start()
    for who in ("user@example.com", "admin@example.com"):
        s.browser().login(s.url("app"), who, s.accounts()[who])
    yield s
    s.stop()
    upstream.close()


def other(stand, app=ANYBODY, admin=ADMINS, more=""):
    """The path of a configuration with these policies."""
    routes = stand.routes_of(app, admin) + more
    with open(stand.config) as f:
        text = f.read()
    path = os.path.join(stand.folder, "new.yaml")
    with open(path, "w") as f:
        f.write(text[:text.index("routes:")] + "routes:" + routes.replace("PORT", str(stand.port)))
    return path


def diff(stand, new, *args, code):
    done = stand.cli("policy", "diff", *args, stand.config, new, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def differences(stand, new, *args, code=1):
    told = json.loads(diff(stand, new, "--json", *args, code=code))
    return {(d["route"], c["from"], c["to"]): c for d in told["differences"] for c in d["changes"]}, told


def test_nothing_changes_where_nothing_that_decides_does(stand):
    assert "0 of 6 verdicts change: 3 visitors" in diff(stand, other(stand), code=0)
    same = "[{allow: {or: [{claim/groups: [admins, never] }]}}]".replace("[admins, never] ", "{has: admins}")
    assert differences(stand, other(stand, admin=same), code=0)[1]["changed"] == 0


def test_changes_are_told_with_whom_they_hit(stand):
    new = other(stand, app=ADMINS, admin=ANYBODY)
    found, told = differences(stand, new)
    assert set(found) == {("app", "allow", "deny"), ("admin", "deny", "allow")}
    assert found["app", "allow", "deny"]["count"] == 1
    assert found["app", "allow", "deny"]["examples"] == ["user@example.com"]
    assert told["people"] == 3 and told["verdicts"] == 6 and told["changed"] == 2 and told["routes_changed"] == 2
    text = diff(stand, new, code=1)
    assert "1  allow -> deny: user@example.com" in text and "2 of 6 verdicts change" in text
    assert f"was {stand.config}:{stand.config_line('id: app') - 2}" in text


def test_visitors_without_a_login_count_too(stand):
    found, _ = differences(stand, other(stand, app="[{allow: {or: [{accept: true}]}}]"))
    assert found["app", "login", "allow"]["examples"] == ["(not logged in)"]


def test_what_hangs_on_the_request_is_said_not_guessed(stand):
    rule = "[{allow: {and: [{authenticated_user: true}, {http_path: {starts_with: /PATH}}, {time_of_day: {timezone: UTC, after: '8:00'}}]}}]"
    found, _ = differences(stand, other(stand, app=rule))
    change = found["app", "allow", "deny"]
    assert change["to_open"] and not change["from_open"] and change["depends"] == "http_path, time_of_day"
    assert "deny (depends on http_path, time_of_day)" in diff(stand, other(stand, app=rule), code=1)
    before = other(stand, app=rule)
    os.rename(before, before + ".old")
    after = other(stand, app=rule.replace("/PATH", "/else"))
    done = stand.cli("policy", "diff", before + ".old", after, check=False)
    assert done.returncode == 1 and "on other conditions" in done.stdout
    after = other(stand, app=rule, admin=ANYBODY)
    assert "https://app" not in stand.cli("policy", "diff", before + ".old", after, check=False).stdout


def test_routes_that_come_and_go(stand):
    found, _ = differences(stand, other(stand, more=stand.public))
    assert found["public", "no route", "allow"]["count"] == 3
    done = stand.cli("policy", "diff", "--json", other(stand, more=stand.public), stand.config, check=False)
    assert json.loads(done.stdout)["differences"][0]["changes"][0]["to"] == "no route"


def test_a_broken_policy_is_a_verdict_of_its_own(stand):
    found, _ = differences(stand, other(stand, app="[{allow: {or: [{no_such_thing: 1}]}}]"))
    assert found["app", "allow", "unavailable"]["count"] == 2


def test_users_of_a_file_need_no_databroker(stand):
    users = os.path.join(stand.folder, "people.yaml")
    with open(users, "w") as f:
        f.write("".join(f"- email: u{i}@example.com\n  groups: [staff]\n" for i in range(2000)))
        f.write("- email: boss@example.com\n  name: Boss\n  password: x\n  groups: [admins]\n")
    found, told = differences(stand, other(stand, app=ADMINS), "--users", users)
    assert told["people"] == 2002 and found["app", "allow", "deny"]["count"] == 2000
    assert len(found["app", "allow", "deny"]["examples"]) == 3
    with open(users, "w") as f:
        f.write("- emial: u@example.com\n")
    done = stand.cli("policy", "diff", "--users", users, stand.config, stand.config, check=False)
    assert done.returncode == 2 and 'unknown key "emial"' in done.stderr


def test_what_cannot_be_used_is_code_2(stand):
    assert stand.cli("policy", "diff", stand.config, "/nonexistent.yaml", check=False).returncode == 2
    assert stand.cli("policy", "diff", stand.config, check=False).returncode == 2
    done = stand.cli("policy", "diff", "--databroker", f"unix:{stand.folder}/nobody.sock", stand.config, stand.config, check=False)
    assert done.returncode == 2 and "does not answer" in done.stderr
