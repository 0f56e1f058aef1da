"""External data: a file becomes records, all of it or nothing of it, and policies read them at once."""

import base64
import csv
import json
import os
import subprocess
import threading
import time

import pytest
from broker import PATIENCE, Identity, stubs
from foreign import channel
from google.protobuf import empty_pb2
from stand import Stand, Upstream
from trial import wait_for

TYPE = "acme.test/posture"
USER, ADMIN = "user@example.com", "admin@example.com"
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    id: app
    policy: [{allow: {and: [{record: {type: acme.test/posture, field: score, ">=": 5}}]}}]
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    policy:
      - allow: {and: [{authenticated_user: true}]}
      - deny: {or: [{record: {type: acme.test/posture, field: teams, has: blocked}}]}
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    policy: [{allow: {or: [{record: {type: acme.test/by-user, field: ok, is: true}}]}}]
"""


@pytest.fixture(scope="module")
def stand():
    upstream = Upstream()
    s = Stand(ROUTES.replace("UP", str(upstream.port))).start()
    yield s
    s.stop()
    upstream.close()


@pytest.fixture(scope="module")
def browser(stand):
    b = stand.browser()
    b.login(stand.url("app"), USER, stand.accounts()[USER])  # what asks for a record asks for a login
    return b


@pytest.fixture(autouse=True)
def nothing_imported(stand):
    write(stand, "none.json", [])
    for type in (TYPE, "acme.test/by-user"):
        load(stand, "none.json", "--allow-empty", type=type)


def write(stand, name, rows):
    with open(os.path.join(stand.folder, name), "w", newline="") as f:
        if isinstance(rows, (str, bytes)):
            f.write(rows)
        elif name.endswith(".csv"):
            csv.writer(f).writerows(rows)
        else:
            json.dump(rows, f)


def load(stand, name, *args, type=TYPE, key="email", check=True, env=None):
    return stand.cli("import", "records", os.path.join(stand.folder, name), "--type", type, "--key", key, *args,
                     check=check, env=env)


def api(stand):
    return stubs()["rpc"].DataBrokerServiceStub(channel(stand, "databroker")), Identity(base64.b64decode(stand.secret)).proof("cli", "databroker")


def version(stand):
    stub, metadata = api(stand)
    return stub.ServerInfo(empty_pb2.Empty(), metadata=metadata, timeout=20 * PATIENCE).latest_record_version


def rows_in_store(stand, type=TYPE):
    stub, metadata = api(stand)
    pb = stubs()["databroker"]
    return stub.Query(pb.QueryRequest(type=type, limit=1), metadata=metadata, timeout=20 * PATIENCE).total_count - 1


def becomes(stand, browser, host, status):
    wait_for(f"{host} to answer {status}", lambda: browser.get(stand.url(host)).status_code == status)


def test_a_row_opens_a_route_and_its_end_closes_it(stand, browser):
    assert browser.get(stand.url("app")).status_code == 403
    write(stand, "p.json", [{"email": "USER@example.com", "score": 7, "teams": ["x"]}, {"email": ADMIN, "score": 1}])
    assert load(stand, "p.json").stdout == f"{TYPE}: 2 added, 0 changed, 0 removed, 0 unchanged\n"
    becomes(stand, browser, "app", 200)
    assert browser.get(stand.url("other")).status_code == 200
    write(stand, "p.json", [{"email": USER, "score": 4, "teams": ["x", "blocked"]}, {"email": ADMIN, "score": 1}])
    assert load(stand, "p.json").stdout == f"{TYPE}: 0 added, 1 changed, 0 removed, 1 unchanged\n"
    becomes(stand, browser, "app", 403)
    assert browser.get(stand.url("other")).status_code == 403
    write(stand, "p.json", [{"email": ADMIN, "score": 1}])
    assert load(stand, "p.json").stdout == f"{TYPE}: 0 added, 0 changed, 1 removed, 1 unchanged\n"
    becomes(stand, browser, "other", 200)
    assert browser.get(stand.url("app")).status_code == 403
    assert rows_in_store(stand) == 1


def test_csv_says_what_is_a_number_and_a_row_may_belong_to_a_user_id(stand, browser):
    write(stand, "p.csv", [["who", "ok:bool", "note"], ["local/" + USER, "true", 'a "quoted", note'], ["local/" + ADMIN, "", ""]])
    done = load(stand, "p.csv", "--id", "who", type="acme.test/by-user", key="user_id")
    assert "2 added" in done.stdout
    becomes(stand, browser, "admin", 200)
    told = json.loads(stand.cli("explain", "--json", "--route", f"https://admin.localhost:{stand.port}", "--user", USER).stdout)
    assert told["verdict"] == "allow"


def test_what_did_not_change_is_not_written(stand):
    write(stand, "p.json", [{"email": f"u{i}@x.test", "score": i, "b": [True, None]} for i in range(30)])
    load(stand, "p.json")
    before = version(stand)
    write(stand, "p.json", [{"b": [True, None], "score": i, "email": f"u{i}@x.test"} for i in reversed(range(30))])
    assert "0 added, 0 changed, 0 removed, 30 unchanged" in load(stand, "p.json").stdout
    assert version(stand) == before
    write(stand, "p.json", [{"email": "new@x.test"}])
    assert load(stand, "p.json", "--dry-run").stdout == f"dry run: {TYPE}: 1 added, 0 changed, 30 removed, 0 unchanged\n"
    assert version(stand) == before


@pytest.mark.parametrize("name, text, says", [
    ("x.json", '[{"email": "a@x.test"}, {"email": 5}]', "x.json: row 2: email, the key, is no text"),
    ("x.json", '[{"email": "a@x.test"}, {"email": "A@X.test"}]', "x.json: row 2: email a@x.test stands in row 1, too"),
    ("x.json", '[{"email": "a@x.test"}, 7]', "x.json: row 2: no JSON object"),
    ("x.json", '[{"email": "a@x.test"},\n', "x.json:2"),
    ("x.json", '{"email": "a@x.test"}', "no JSON array of objects"),
    ("x.json", '[{"email": "a@x.test", "a": {"b": 1}}]', "row 1: a is neither a text"),
    ("x.json", '[]', "has no rows, and 1 are in force: --allow-empty"),
    ("x.json", '', "x.json"),
    ("x.csv", 'email,score:number\na@x.test,5\nb@x.test,five\n', "x.csv:3: score is no number"),
    ("x.csv", 'email\na@x.test\nb@x.test,1\n', "x.csv:3: more values than the first line names"),
    ("x.csv", 'email,a\na@x.test\n', "x.csv:2: 1 values, and the first line names 2"),
    ("x.csv", 'email\n"a@x.test\n', "x.csv:2: a quoted value does not end"),
    ("x.csv", 'email\na"b@x.test\n', "x.csv:2: a quote stands where none may"),
    ("x.csv", 'mail\na@x.test\n', "x.csv:2: email, the key, is no text"),
    ("x.csv", 'email,a\na@x.test,b\0c\n', "x.csv:2: a is no text of up to"),
])
def test_a_file_with_a_mistake_changes_nothing(stand, name, text, says):
    write(stand, "good.json", [{"email": USER, "score": 7}])
    load(stand, "good.json")
    before = version(stand)
    write(stand, name, text)
    done = load(stand, name, check=False)
    assert done.returncode == 1 and says in done.stderr and not done.stdout, done.stderr
    assert version(stand) == before


@pytest.mark.parametrize("args", [("--type", "posture"), ("--type", "pomerium.io/DirectoryUser"), ("--key", "phone"),
                                  ("--format", "xml"), ("--type", "type.googleapis.com/session.Session")])
def test_wrong_use_is_said(stand, args):
    write(stand, "p.json", [])
    done = load(stand, "p.json", *args, check=False)
    assert done.returncode == 2 and args[0] in done.stderr


def test_a_large_set_comes_into_force_at_once_and_a_cut_off_one_never(stand, browser):
    """Watches the store while an import of many Puts runs, and ends one in the middle."""
    old = [{"email": USER, "score": 9, "set": "old"}] + [{"email": f"u{i}@x.test", "set": "old"} for i in range(2500)]
    write(stand, "old.json", old)
    load(stand, "old.json")
    becomes(stand, browser, "app", 200)
    write(stand, "new.json", [dict(row, set="new", score=8) for row in old])
    seen = []
    stop = threading.Event()

    def look():
        while not stop.is_set():
            seen.append(browser.get(stand.url("app")).status_code)
            time.sleep(0.005)
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        before = version(stand)
        process = subprocess.Popen(
            ["build/bin/postern", "import", "records", stand.folder + "/new.json", "--type", TYPE, "--key", "email"],
            env={**os.environ, "POSTERN_CONFIG": stand.config})
        wait_for("the first rows to be written", lambda: version(stand) > before + 500, every=0.002)
        process.kill()
        assert process.wait() != 0
    finally:
        stop.set()
        watcher.join()
    assert set(seen) == {200}
    assert load(stand, "old.json", "--dry-run").stdout == f"dry run: {TYPE}: 0 added, 0 changed, 0 removed, 2501 unchanged\n"
    done = load(stand, "new.json", check=False)
    assert done.returncode == 1 and "another import of acme.test/posture is under way" in done.stderr
    wait_for("the lease to be over", lambda: load(stand, "new.json", check=False).returncode == 0, 90)
    assert rows_in_store(stand) == 2501


def test_a_token_of_its_own_role_may_import_and_a_reader_may_not(stand):
    write(stand, "p.json", [{"email": USER, "score": 1}])
    target = ("--databroker", f"unix:{stand.folder}/databroker.sock")
    for role, code in (("record-writer", 0), ("reader", 1), ("session-admin", 1)):
        token = stand.cli("token", "create", "--role", role).stdout.strip()
        done = load(stand, "p.json", *target, check=False, env={"POSTERN_TOKEN": token})
        assert done.returncode == code, (role, done.stderr)
        assert token not in done.stdout + done.stderr
