"""postern validate: what is no mistake but hardly meant, with its place and what to do; --strict for CI."""

import os

import pytest
from stand import Stand

HEAD = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:1
    allow_any_authenticated_user: true
"""


@pytest.fixture
def stand():
    s = Stand(HEAD, tls=False)  # the certificates of stands end soon, which is something to see to
    yield s
    s.stop()


def validate(stand, routes, *args, settings=None, code=0):
    """What `postern validate` says of these routes."""
    if settings is not None:
        stand.settings = settings
    stand.write_config(HEAD + routes)
    done = stand.cli("validate", *args, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def route(policy, more="", host="admin"):
    return f"  - from: https://{host}.localhost:PORT\n    to: http://127.0.0.1:1\n{more}    policy: {policy}\n"


def test_a_sound_configuration_has_nothing_to_see_to(stand):
    assert ": fine, 2 routes\n" in validate(stand, route("[{allow: {or: [{claim/groups: admins}]}}]"), "--strict")
    assert f"{stand.config}: fine, 2 routes" in stand.cli("validate", "--config", stand.config, env={"POSTERN_CONFIG": "/none"}).stdout


@pytest.mark.parametrize("policy, words", [
    ("[{allow: {or: [{accept: true}]}}, {allow: {and: [{email: a@b.example}]}}]", "lets everybody in: the other 1 allow rule"),
    ("[{allow: {or: [{accept: true}, {email: a@b.example}]}}]", "what stands beside it changes nothing"),
    ("[{allow: {and: [{email: a@b.example}, {email: c@b.example}]}}]", 'can never hold, because of "email": it lets in nobody'),
    ("[{allow: {and: [{http_method: GET}, {http_method: {in: [POST, PUT]}}]}}]", 'can never hold, because of "http_method"'),
    ("[{allow: {or: [{email: {in: []}}]}}]", 'can never hold, because of "email"'),
    ("[{allow: {and: [{date: {after: 2026-06-01, before: 2026-05-01}}]}}]", 'can never hold, because of "date"'),
    ("[{allow: {not: [{accept: true}]}}]", 'can never hold, because of "accept"'),
    ("[{allow: {or: [{email: a@b.example}]}}, {deny: {or: [{accept: true}]}}]", "always holds: nobody may enter"),
    ("[{allow: {or: [{email: a@b.example}]}}, {deny: {and: [{user: x}, {user: y}]}}]", "it keeps out nobody"),
    ("[{deny: {or: [{email: a@b.example}]}}]", "no rule allows anybody"),
    ("[{allow: {or: [{email: a@b.example}, {device: {type: any}}]}}]", 'nobody has a device that "device" would take'),
])
def test_rules_that_have_no_effect(stand, policy, words):
    said = validate(stand, route(policy))
    assert words in said, said
    assert f"config.yaml:{stand.config_line('policy:') if 'no rule' not in words else stand.config_line('https://admin')}:" in said
    assert "1 thing to see to" in said
    validate(stand, route(policy), "--strict", code=1)


@pytest.mark.parametrize("policy", [
    "[{allow: {and: [{email: {in: [a@b.example, c@b.example]}}, {email: {not: c@b.example}}]}}]",
    "[{allow: {or: [{email: a@b.example}, {email: c@b.example}]}}]",
    "[{allow: {nor: [{email: a@b.example}, {email: c@b.example}]}}]",
    "[{allow: {and: [{claim/x: a}, {claim/x: b}]}}]",
    "[{allow: {or: [{accept: true}]}}, {deny: {or: [{source_ip: 10.0.0.0/8}]}}]",
    "[{allow: {or: [{reject: true}]}}]",
])
def test_rules_that_have_one(stand, policy):
    assert "to see to" not in validate(stand, route(policy), "--strict")


def test_routes_that_nobody_reaches(stand):
    said = validate(stand, "".join((
        route("[{allow: {or: [{accept: true}]}}]", "    prefix: /app\n"),
        route("[{allow: {or: [{accept: true}]}}]", "    prefix: /apple\n"),
        route("[{allow: {or: [{accept: true}]}}]", "    path: /app/x\n"),
        route("[{allow: {or: [{accept: true}]}}]", "    prefix: /\n"))))
    assert said.count("no request gets here") == 2 and "2 things to see to" in said, said
    assert f"config.yaml:{stand.config_line('prefix: /apple') - 2}:5: no request gets here: the prefix at line " \
           f"{stand.config_line('https://admin')} takes all of https://admin.localhost:{stand.port}/apple; put this" in said


def test_routes_whose_paths_are_the_proxys_own(stand):
    said = validate(stand, "".join(route("[{allow: {or: [{accept: true}]}}]", f"    {path}\n") for path in (
        "path: /ping", "prefix: /.pomerium/x", "prefix: /pin", "path: /pings")))
    assert "the proxy answers /ping itself" in said and "the proxy answers /.pomerium/x itself" in said, said
    assert said.count("no request gets here: on every host") == 2, said


def test_routes_of_many_hosts_that_nobody_reaches(stand):
    said = validate(stand, "".join(route("[{allow: {or: [{accept: true}]}}]", f"    prefix: {prefix}\n", host) for host, prefix in (
        ("*.a.b", "/app/"), ("*.b", "/app"), ("*.a.b", "/app/x"), ("*.c.b", "/app/x"), ("*", "/"), ("x*.c", "/late"))))
    assert said.count("no request gets here") == 3 and "3 things to see to" in said, said


def test_groups_that_nobody_is_in(stand):
    rules = route("[{allow: {or: [{claim/groups: admins}, {claim/groups: amdins}, {groups: ghosts}]}}]")
    said = validate(stand, rules)
    assert 'nobody is in the group "amdins"' in said and 'nobody is in the group "ghosts"' in said and '"admins"' not in said
    users = os.path.join(stand.folder, "others.yaml")
    with open(users, "w") as f:
        f.write("- {user: a, groups: [ghosts]}\n- {user: b, claims: {groups: [amdins]}}\n")
    said = validate(stand, rules, "--users", users)
    assert 'group "admins"' in said and "amdins" not in said and "ghosts" not in said
    assert "does not answer" in validate(stand, rules, "--directory", code=1)
    assert validate(stand, rules, "--users", users, "--directory", code=2)


def test_the_directory_of_a_running_databroker_is_asked():
    stand = Stand(HEAD)
    rules = route("[{allow: {or: [{claim/groups: admins}, {claim/groups: staff}]}}]")
    stand.write_config(HEAD + rules)
    stand.start()
    stand.browser().login(stand.url("app"), "user@example.com", stand.accounts()["user@example.com"])
    said = validate(stand, rules, "--directory")
    stand.stop()
    assert 'nobody is in the group "admins"' in said and "staff" not in said  # only who has logged in is there


def test_central_policies_are_looked_at_too(stand):
    said = validate(stand, route("[{allow: {or: [{email: a@b.example}]}}]"),
                    settings="policies:\n  stop:\n    enforced: true\n    policy: [{deny: {and: [{user: x}, {user: y}]}}]\n")
    assert f"config.yaml:{stand.config_line('deny:')}:" in said and "it keeps out nobody" in said
