"""postern import directory: all of it counts, or nothing of it and what was there stays."""

import json
import os

import pytest
from broker import PATIENCE, stubs
from stand import Stand, header
from test_external_data import api, becomes, version
from trial import wait_for

TYPE = "postern.io/Directory"
USER, ADMIN = "user@example.com", "admin@example.com"
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    id: app
    allow_any_authenticated_user: true
    pass_identity_headers: true
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    id: admin
    policy: [{allow: {or: [{groups: {has: board}}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {or: [{groups: {has: staff}}]}}]
"""
LDIF = """version: 1

dn: uid=ann,ou=people,dc=x,dc=test
objectClass: inetOrgPerson
uid: ann
cn:: w4RubmU=
mail: ADMIN@example.com
memberOf: CN=Board, ou=groups,dc=x,dc=test

# folded, as ldapsearch does it
dn: uid=user,ou=people,dc=x,dc=test
objectClass: inetOrgPerson
uid: user
mail: user@exa
 mple.com

dn: cn=board,ou=groups,dc=x,dc=test
objectClass: groupOfNames
cn: board
member: cn=chairs,ou=groups,dc=x,dc=test
member: uid=gone,ou=people,dc=x,dc=test

dn: cn=chairs,ou=groups,dc=x,dc=test
objectClass: groupOfNames
cn: chairs
member: UID=User,ou=people,dc=x,
  dc=test
member: cn=board,ou=groups,dc=x,dc=test

dn: cn=unix,ou=groups,dc=x,dc=test
objectClass: posixGroup
cn: unix
memberUid: ann

dn: ou=groups,dc=x,dc=test
objectClass: organizationalUnit
ou: groups
"""


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(ROUTES.replace("UP", str(upstream.port)))
    s.settings += "jwt_claims_headers: {X-Groups: groups}\n"
    s.write_config()
    s.start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def browser(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER, stand.accounts()[USER])
    return b


@pytest.fixture(autouse=True)
def no_directory(stand):
    load(stand, "--end")


def write(stand, name, content):
    with open(os.path.join(stand.folder, name), "w", newline="") as f:
        f.write(content if isinstance(content, str) else json.dumps(content))


def load(stand, *args, check=True, env=None, seconds=60):
    names = [os.path.join(stand.folder, a) if a.endswith((".json", ".csv", ".ldif")) else a for a in args]
    return stand.cli("import", "directory", *names, check=check, env=env, seconds=seconds)


def put(stand, name, content, *args, **kwargs):
    write(stand, name, content)
    return load(stand, name, *args, **kwargs)


def explain(stand, user=USER):
    return json.loads(stand.cli("explain", "--json", "--route", "admin", "--user", user).stdout)["who"]


def people(n, group="staff"):
    return [{"email": USER, "groups": [group]}] + [{"email": f"u{i}@x.test", "groups": [group]} for i in range(n - 1)]


def test_groups_come_from_the_directory_alone_while_there_is_one(stand, browser, upstream):
    assert browser.get(stand.url("other")).status_code == 200  # of the login: staff
    assert explain(stand)["groups_from"] == "record"
    done = put(stand, "d.json", {"users": [{"id": "7", "email": "USER@example.com", "name": "Jo", "groups": ["b"]}],
                                 "groups": [{"id": "b", "name": "board", "email": None}]}, "--group-by", "name")
    assert done.stdout == "directory: 1 added, 0 changed, 0 removed, 0 unchanged; 1 memberships of 1 groups\n"
    becomes(stand, browser, "admin", 200)
    assert browser.get(stand.url("other")).status_code == 403
    wait_for("the application to hear of it", lambda: browser.get(stand.url("app")).status_code == 200
             and header(upstream.heads[-1], "X-Groups") == ["board"])
    # Who is not in it any more is in no group, whatever the login brought.
    put(stand, "d.json", [{"email": ADMIN, "groups": ["board"]}])
    becomes(stand, browser, "admin", 403)
    assert browser.get(stand.url("other")).status_code == 403
    wait_for("no groups", lambda: browser.get(stand.url("app")).status_code == 200
             and header(upstream.heads[-1], "X-Groups") in ([], [""]))
    who = explain(stand)
    assert (who["groups_from"], who["groups_listed"], "groups" in who) == ("import", False, False)
    told = stand.cli("explain", "--route", "admin", "--user", USER).stdout
    assert "groups: none, the imported directory does not name this user, complete as of" in told
    load(stand, "--end")
    becomes(stand, browser, "other", 200)
    assert explain(stand)["groups_from"] == "record"


def test_ldif_with_nested_groups_and_both_ways_of_membership(stand, browser):
    done = put(stand, "d.ldif", LDIF)
    assert done.stdout == ("directory: 2 added, 0 changed, 0 removed, 0 unchanged; 5 memberships of 3 groups\n"
                           "left out: 0 people without email, 1 entries that are neither people nor groups, "
                           "1 memberships of who is not in the files\n")
    becomes(stand, browser, "admin", 200)  # a chair is of the board
    assert explain(stand)["groups"] == 2 and explain(stand)["groups_whole"] is True
    again = put(stand, "d.ldif", LDIF.replace("\n", "\r\n"), "--dry-run")
    assert again.stdout.startswith("dry run: directory: 0 added, 0 changed, 0 removed, 2 unchanged")
    put(stand, "d.ldif", LDIF, "--group-by", "dn")
    becomes(stand, browser, "admin", 403)


def test_a_group_has_an_id_a_name_and_an_address(stand, browser, upstream):
    def of(group):
        return {"users": [{"email": USER, "groups": ["g1", "plain"]}], "groups": [group, {"id": "plain"}]}
    many = ("--group-by", "id,name,email")
    for group in ({"id": "g1", "name": "board", "email": "b@x.test"}, {"id": "g1", "name": "Board", "email": "board"},
                  {"id": "g1", "name": "board", "email": "board"}):
        put(stand, "d.json", of(group), *many)
        becomes(stand, browser, "admin", 200)
        wait_for("the application to hear of all", lambda g=group: browser.get(stand.url("app")).status_code == 200
                 and header(upstream.heads[-1], "X-Groups") == [",".join(sorted({*g.values(), "plain"}))])
        load(stand, "--end")
        becomes(stand, browser, "admin", 403)
    done = put(stand, "d.json", of({"id": "g1", "name": "plain"}), *many, check=False)
    assert done.returncode == 1 and "another group is called plain, too" in done.stderr
    done = put(stand, "d.json", of({"id": "g1", "name": "board"}), "--group-by", "name,email", check=False)
    assert done.returncode == 1 and "a group has no name, which policies shall call it by" in done.stderr
    for wrong in ("", "id,", "id name", "ids"):
        assert load(stand, "d.json", "--group-by", wrong, check=False).returncode == 2


def test_csv_and_a_user_id(stand, browser):
    put(stand, "d.csv", f"who,email,groups\nlocal/{USER},,staff; board\n", "--key", "user_id", "--id", "who")
    becomes(stand, browser, "admin", 200)
    assert browser.get(stand.url("other")).status_code == 200


@pytest.mark.parametrize("name, text, says", [
    ("x.json", '[{"email": "a@x.test"}, {"name": "b"}]', "x.json: row 2: there is no email"),
    ("x.json", '{"users": [{"email": "a@x.test", "groups": ["b"]}], "groups": []}', "row 1: the group b is not among the groups"),
    ("x.json", '{"users": [], "groups": [{"id": "a"}, {"id": "a"}]}', "row 2: the group a is there twice"),
    ("x.json", '[{"email": "a@x.test"}, {"email": "A@X.test"}]', "email a@x.test stands in row 1, too"),
    ("x.json", '[{"email": "a@x.test", "groups": "b"}]', "groups is no list of texts"),
    ("x.json", '{"people": []}', 'neither a JSON list of users nor an object'),
    ("x.json", '[\n{', "x.json:2"),
    ("x.json", '[]', "there is nobody in it, and 6 people are in force: --force"),
    ("x.csv", 'email,groups\na@x.test,b\n,c\n', "x.csv:3: there is no email"),
    ("x.csv", 'email\n"a\n', "a quoted value does not end"),
    ("x.ldif", "dn: cn=a,dc=x\ncn: a\nmail:< file:///etc/shadow\n", "x.ldif:3: a value that stands somewhere else"),
    ("x.ldif", "dn: cn=a,dc=x\nmail:\n < file:///etc/shadow\n", "x.ldif:2: a value that stands somewhere else"),
    ("x.ldif", "dn: cn=a,dc=x\nmail:\n \n <file:///etc/shadow\n", "x.ldif:2: a value that stands somewhere else"),
    ("x.ldif", "dn: cn=a,dc=x\nmail:\n : YUBiLmM=\n", "x.ldif:2: a line that is folded between two colons"),
    ("x.ldif", "dn: cn=a,dc=x\nchangetype: delete\n", "x.ldif:2: a change and no entry"),
    ("x.ldif", "dn: cn=a,dc=x\nmember;range=0-1499: cn=b,dc=x\n", "x.ldif:2: only a part of the values"),
    ("x.ldif", "cn: a\n", "x.ldif:1: an entry that does not begin with its dn"),
    ("x.ldif", "include: file:///etc/shadow\n", "x.ldif:1: an entry that does not begin"),
    ("x.ldif", "dn: cn=a,dc=x\nobjectClass: group\nmember: what is it\n", "x.ldif:3: no distinguished name"),
    ("x.ldif", "dn: cn=a,ou=1,dc=x\nobjectClass: group\n\ndn: cn=a,ou=2,dc=x\nobjectClass: group\n",
     "x.ldif:4: another group is called a, too"),
])
def test_a_file_with_a_mistake_changes_nothing_and_explain_tells_of_it(stand, browser, name, text, says):
    put(stand, "good.json", people(6, "board"))
    becomes(stand, browser, "admin", 200)
    refused = put(stand, name, text, check=False)
    assert refused.returncode == 1 and says in refused.stderr, refused.stderr
    assert browser.get(stand.url("admin")).status_code == 200
    wait_for("explain to tell", lambda: not explain(stand)["groups_whole"])
    assert says.split(":")[-1].strip()[:40] in explain(stand)["groups_error"] and explain(stand)["groups_as_of"]
    assert "; incomplete since then: " in stand.cli("explain", "--route", "admin", "--user", USER).stdout


def test_what_looks_like_a_part_is_refused_unless_forced(stand, browser):
    put(stand, "d.json", people(40, "board"))
    becomes(stand, browser, "admin", 200)
    few = put(stand, "d.json", people(31, "board"), check=False)
    assert few.returncode == 1 and "9 people and 9 of 40 memberships would be gone" in few.stderr
    without = put(stand, "d.json", [{"email": p["email"]} for p in people(40)], check=False)
    assert without.returncode == 1 and "0 people and 40 of 40 memberships would be gone" in without.stderr
    assert browser.get(stand.url("admin")).status_code == 200 and explain(stand)["groups"] == 1
    assert "8 removed" in put(stand, "d.json", people(32, "board")).stdout  # a fifth
    assert "31 removed" in put(stand, "d.json", people(1, "other"), "--force").stdout
    becomes(stand, browser, "admin", 403)
    put(stand, "d.json", [], "--force")
    assert explain(stand)["groups_listed"] is False


def test_files_together_are_the_directory_and_nothing_is_written_twice(stand, browser):
    write(stand, "a.json", people(3))
    write(stand, "b.csv", "email,groups\nz@x.test,staff\n")
    assert "4 added" in load(stand, "a.json", "b.csv").stdout
    before = version(stand)
    assert "0 added, 0 changed, 0 removed, 4 unchanged" in load(stand, "b.csv", "a.json").stdout
    assert version(stand) == before + 1  # when it was last brought
    write(stand, "c.csv", "email\nz@x.test\n")
    both = load(stand, "a.json", "b.csv", "c.csv", check=False)
    assert both.returncode == 1 and "z@x.test stands in" in both.stderr


def test_100000_people_come_into_force_at_once(stand, browser):
    n = 100000 if os.environ.get("POSTERN_PROOF") == "full" else 3000
    put(stand, "d.json", people(n, "board"), seconds=300)
    becomes(stand, browser, "admin", 200)
    write(stand, "d.json", people(n, "other"))
    before = version(stand)
    done = load(stand, "d.json", seconds=300)
    assert f"{n} changed" in done.stdout
    becomes(stand, browser, "admin", 403)
    stub, metadata = api(stand)
    pb = stubs()["databroker"]
    answer = stub.Query(pb.QueryRequest(type=TYPE, limit=1), metadata=metadata, timeout=60 * PATIENCE)
    assert answer.total_count == n + 2 and version(stand) > before + n
    load(stand, "--end", seconds=300)


def test_5000_groups_of_one_person(stand, browser):
    groups = [f"{i:036d}" for i in range(4999)] + ["board"]
    put(stand, "d.json", [{"email": USER, "groups": groups}])
    becomes(stand, browser, "admin", 200)
    assert explain(stand)["groups"] == 5000
    over = put(stand, "d.json", [{"email": USER, "groups": groups + ["one more"]}], check=False)
    assert over.returncode == 1 and "row 1: group_ids is too long a list" in over.stderr


def test_a_token_of_a_directory_writer_is_enough_and_of_others_is_not(stand):
    put(stand, "d.json", people(2))
    for role, code in (("directory-writer", 0), ("record-writer", 1), ("reader", 1)):
        token = stand.cli("token", "create", "--role", role).stdout.strip()
        done = load(stand, "d.json", "--databroker", f"unix:{stand.folder}/databroker.sock", check=False, env={"POSTERN_TOKEN": token})
        assert done.returncode == code, (role, done.stderr)
        assert token not in done.stdout + done.stderr
