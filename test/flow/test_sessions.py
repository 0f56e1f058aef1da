"""SessionService as those who integrate meet it: Python, Go and grpcurl, and the commands of docs/sessions.md."""

import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import grpc
import pytest
from broker import Broker, status
from broker import stubs as broker_stubs
from foreign import token
from google.protobuf import struct_pb2, timestamp_pb2
from sanitize import ANSWER_S, SAN
from stand import Stand
from trial import BIN, ROOT, wait_for

USER = "user@example.com"
ADMIN = "admin@example.com"
SESSION = "type.googleapis.com/session.Session"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def ss():
    out = tempfile.mkdtemp()
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/proto", "-I/usr/include", f"--python_out={out}",
                    f"--grpc_python_out={out}", f"{ROOT}/proto/session_service.proto"], check=True)
    sys.path.insert(0, out)
    return importlib.import_module("session_service_pb2"), importlib.import_module("session_service_pb2_grpc")


# --- by itself: every filter, pages, roles -------------------------------------------------------


@pytest.fixture(scope="module")
def broker():
    b = Broker().start()
    yield b
    assert b.stop() == 0, b.log()[-2000:]


def client(broker, ss, role="cli"):
    channel, metadata = broker.channel(role)
    stub = ss[1].SessionServiceStub(channel)

    def call(method, request):
        return getattr(stub, method)(request, metadata=metadata, timeout=ANSWER_S)
    return call


def put(broker, *sessions, users=()):
    pb = broker_stubs()["databroker"]
    records = []
    for kind, messages in ((SESSION, sessions), ("type.googleapis.com/user.User", users)):
        for m in messages:
            r = pb.Record(type=kind, id=m.id)
            r.data.Pack(m)
            records.append(r)
    broker.client("cli")[0].Put(pb.PutRequest(records=records), timeout=ANSWER_S)


def at(seconds):
    return timestamp_pb2.Timestamp(seconds=int(seconds))


def session(user, issued=None, sid=None, **fields):
    s = broker_stubs()["session"].Session(id=str(uuid.uuid4()), user_id=user, issued_at=at(issued or time.time()),
                                          expires_at=at(time.time() + 3600), **fields)
    if sid:
        s.claims["sid"].CopyFrom(struct_pb2.ListValue(values=[struct_pb2.Value(string_value=sid)]))
    return s


@pytest.fixture()
def world(broker, ss):
    """Six sessions of three people, and none of others."""
    pb = ss[0]
    client(broker, ss)("Revoke", pb.RevokeSessionsRequest(filter=pb.SessionFilter(issued_before=at(time.time() + 9999))))
    now = time.time()
    user = broker_stubs()["user"].User
    s = {"a1": session("idp/a", now - 7200, "sid-a1", idp_id="one", login_address="10.1.2.3"),
         "a2": session("idp/a", now - 60, "sid-a2", idp_id="one", login_address="10.9.9.9"),
         "b1": session("idp/b", now - 7200, idp_id="two", login_address="2001:db8::7"),
         "b2": session("idp/b", now - 60, idp_id="two"),
         "c1": session("idp/c", now - 60, idp_id="one", login_address="192.0.2.1"),
         "over": session("idp/c", now - 7200)}
    s["over"].expires_at.seconds = int(now) - 5
    put(broker, *s.values(), users=[user(id="idp/a", email="A@example.com", name="Ann"), user(id="idp/b", email="b@example.com")])
    return {k: v.id for k, v in s.items()}


FILTERS = [
    (dict(), "a1 a2 b1 b2 c1"), (dict(user="a@EXAMPLE.com"), "a1 a2"), (dict(user="idp/c"), "c1"), (dict(user="nobody"), ""),
    (dict(idp_id="two"), "b1 b2"), (dict(provider_session_id="sid-a2"), "a2"), (dict(address="10.0.0.0/8"), "a1 a2"),
    (dict(address="10.1.2.3"), "a1"), (dict(address="2001:db8::/32"), "b1"), (dict(issued_before=-3600), "a1 b1"),
    (dict(issued_after=-3600), "a2 b2 c1"), (dict(user="a@example.com", issued_after=-3600), "a2"),
    (dict(user="a@example.com", idp_id="two"), ""),
]


def filter_of(pb, fields):
    return pb.SessionFilter(**{k: at(time.time() + v) if k.startswith("issued") else v for k, v in fields.items()})


@pytest.mark.parametrize("fields,expected", FILTERS)
def test_list_and_revoke_mean_the_same_sessions(broker, ss, world, fields, expected):
    pb, call = ss[0], client(broker, ss, "session-admin")
    names = {v: k for k, v in world.items()}
    found = call("List", pb.ListSessionsRequest(filter=filter_of(pb, fields))).sessions
    assert sorted(names[s.id] for s in found) == expected.split()
    assert [s.id for s in found] == sorted(s.id for s in found)
    if not fields:
        assert status(lambda: call("Revoke", pb.RevokeSessionsRequest())) == Code.INVALID_ARGUMENT
        return
    assert call("Revoke", pb.RevokeSessionsRequest(filter=filter_of(pb, fields))).revoked == len(found)
    left = call("List", pb.ListSessionsRequest()).sessions
    assert sorted(names[s.id] for s in left) == sorted(set("a1 a2 b1 b2 c1".split()) - set(expected.split()))


def test_a_session_is_told_with_whose_it_is(broker, ss, world):
    pb, call = ss[0], client(broker, ss, "reader")
    s = call("Get", pb.GetSessionRequest(session_id=world["a1"])).session
    assert (s.user_id, s.email, s.name, s.idp_id, s.provider_session_id, s.address) == (
        "idp/a", "A@example.com", "Ann", "one", "sid-a1", "10.1.2.3")
    assert s.record_version > 0 and s.expires_at.seconds > time.time()
    for gone in (world["over"], "none"):
        assert status(lambda: call("Get", pb.GetSessionRequest(session_id=gone))) == Code.NOT_FOUND
    assert status(lambda: call("Get", pb.GetSessionRequest())) == Code.INVALID_ARGUMENT


def test_pages_show_each_session_once(broker, ss, world):
    pb, call = ss[0], client(broker, ss)
    put(broker, *[session("idp/many", idp_id="many") for _ in range(730)])
    request, seen = pb.ListSessionsRequest(filter=pb.SessionFilter(idp_id="many"), page_size=100), []
    while True:
        page = call("List", request)
        assert len(page.sessions) <= 100
        seen += [s.id for s in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(seen) == len(set(seen)) == 730 and seen == sorted(seen)
    assert call("Revoke", pb.RevokeSessionsRequest(filter=pb.SessionFilter(idp_id="many"))).revoked == 730
    assert not call("List", pb.ListSessionsRequest(filter=pb.SessionFilter(idp_id="many"))).sessions
    for bad in (dict(page_size=-1), dict(page_size=501), dict(page_token="\n"), dict(filter=pb.SessionFilter(address="x")),
                dict(filter=pb.SessionFilter(user="u" * 600))):
        assert status(lambda: call("List", pb.ListSessionsRequest(**bad))) in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED), bad


def test_watch_tells_what_is_there_and_what_comes(broker, ss, world):
    pb, call = ss[0], client(broker, ss, "reader")
    stream = call("Watch", pb.WatchSessionsRequest(filter=pb.SessionFilter(user="a@example.com")))
    first = [next(stream) for _ in range(3)]
    assert {e.session.id for e in first[:2]} == {world["a1"], world["a2"]} and first[2].ready
    new, other = session("idp/a"), session("idp/b")
    put(broker, other, new)
    assert next(stream).session.id == new.id
    client(broker, ss)("Revoke", pb.RevokeSessionsRequest(filter=pb.SessionFilter(session_id=new.id)))
    assert next(stream).ended == new.id
    stream.cancel()
    everything = call("Watch", pb.WatchSessionsRequest())
    there = set()
    for e in everything:
        if e.ready:
            break
        there.add(e.session.id or e.ended)
    assert there >= {world[k] for k in ("a1", "a2", "b1", "b2", "c1")} and world["over"] not in there
    everything.cancel()
    assert status(lambda: next(call("Watch", pb.WatchSessionsRequest(filter=pb.SessionFilter(address="x"))))) == Code.INVALID_ARGUMENT


def test_within_a_second_there_is_a_before_and_an_after(broker, ss, world):
    """A login is noted to the second, whoever revokes says now to the nanosecond."""
    pb, call = ss[0], client(broker, ss)
    moment = int(time.time()) - 600
    put(broker, session("idp/d", moment))
    late, early = [dict(seconds=moment, nanos=n) for n in (1, 0)]
    for fields, n in ((dict(issued_before=early), 0), (dict(issued_after=late), 0), (dict(issued_after=early), 0), (dict(issued_before=late), 1)):
        fields = pb.SessionFilter(user="idp/d", **fields)
        assert call("Revoke", pb.RevokeSessionsRequest(filter=fields)).revoked == n, fields


def test_all_who_have_an_address_are_meant(broker, ss, world):
    pb, call, user = ss[0], client(broker, ss), broker_stubs()["user"].User
    people = [user(id=f"idp/{i:04}", email="all@example.com") for i in range(120)]
    put(broker, *[session(u.id) for u in people], session("idp/x"), users=people)
    everybody = pb.SessionFilter(user="all@example.com")
    stream = call("Watch", pb.WatchSessionsRequest(filter=everybody))
    assert {next(stream).session.user_id for _ in people} == {u.id for u in people} and next(stream).ready
    stream.cancel()
    assert call("Revoke", pb.RevokeSessionsRequest(filter=everybody)).revoked == len(people)


def test_who_looks_at_all_sessions_holds_up_nobody_and_takes_no_room(broker, ss, world):
    """More lookers than threads that read, among so many sessions that one look takes far longer than one read."""
    pb, api = ss[0], broker.client("cli")[0]
    for _ in range(20):
        put(broker, *[session("idp/many", login_address="10.0.0.1", audience=["a" * 100] * 5) for _ in range(1000)])
    before = peak_kib(broker)
    channel, metadata = broker.channel("reader")
    db = broker_stubs()["databroker"]
    lists, queries = ss[1].SessionServiceStub(channel).List, broker_stubs()["rpc"].DataBrokerServiceStub(channel).Query
    nobody = pb.ListSessionsRequest(filter=pb.SessionFilter(idp_id="nobody"))
    last = db.QueryRequest(type=SESSION, offset=19999, limit=1)
    for method, request, times in ((lists, nobody, 16), (queries, last, 64)):
        looks = [method.future(request, metadata=metadata, timeout=10 * ANSWER_S) for _ in range(times)]
        assert status(lambda: api.Get(db.GetRequest(type=SESSION, id="none"), timeout=ANSWER_S)) == Code.NOT_FOUND
        done = sum(look.done() for look in looks)
        [look.result() for look in looks]
        assert done <= times / 2, "a read waited for looks that were asked for before it"
    client(broker, ss)("Revoke", pb.RevokeSessionsRequest(filter=pb.SessionFilter(user="idp/many")))
    assert SAN or peak_kib(broker) - before < 30000, "what was looked at was kept"


def peak_kib(broker):
    with open(f"/proc/{broker.process.pid}/status") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read())[1])


# --- with real logins ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stand(upstream):
    s = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""").start()
    yield s
    s.stop()


def logged_in(stand, user=USER):
    b = stand.browser()
    b.login(stand.url("app"), user)
    assert b.fetch(stand.url("app")).status_code == 200
    return b


def environment(stand, **more):
    return {**os.environ, "PATH": f"{os.path.abspath(BIN)}:{os.environ['PATH']}", "POSTERN_CONFIG": stand.config,
            "SOCKET": f"{stand.folder}/databroker.sock", "no_proxy": "*", **more}


def test_the_documented_commands_work(stand):
    tool = subprocess.run([os.path.join(ROOT, "test/support/grpcurl.sh")], capture_output=True, text=True)
    if tool.returncode != 0:
        pytest.skip("grpcurl cannot be built here: " + tool.stderr[-300:])
    with open(os.path.join(ROOT, "docs/sessions.md")) as f:
        blocks = re.findall(r"```sh\n(.*?)```", f.read(), re.S)
    assert len(blocks) == 2
    work = tempfile.mkdtemp()
    for name in ("proto", "docs"):
        os.symlink(os.path.join(ROOT, name), os.path.join(work, name))
    admin, person = logged_in(stand, ADMIN), logged_in(stand)
    env = environment(stand)
    env["PATH"] = os.path.dirname(tool.stdout.strip()) + ":/usr/bin:" + env["PATH"]
    grpcurl = subprocess.run(["sh", "-eu", "-c", blocks[0]], capture_output=True, text=True, timeout=120, cwd=work, env=env)
    assert grpcurl.returncode == 0, grpcurl.stderr
    assert '"email": "user@example.com"' in grpcurl.stdout and '"address"' in grpcurl.stdout
    assert '"userKnown": true' in grpcurl.stdout and ADMIN not in grpcurl.stdout
    assert person.fetch(stand.url("app")).status_code == 401 and admin.fetch(stand.url("app")).status_code == 200
    again = logged_in(stand)
    both = blocks[0].replace("ask ", ": ") + blocks[1]
    python = subprocess.run(["sh", "-eu", "-c", both], capture_output=True, text=True, timeout=120, cwd=work, env=env)
    assert python.returncode == 0, python.stderr
    assert USER in python.stdout and ADMIN in python.stdout and "revoked 1" in python.stdout
    assert again.fetch(stand.url("app")).status_code == 401 and admin.fetch(stand.url("app")).status_code == 200


def test_a_client_in_go_lists_watches_and_revokes(stand):
    built = subprocess.run([os.path.join(ROOT, "test/support/sessions.sh")], capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip("the Go client cannot be built here: " + built.stderr[-300:])
    env = environment(stand, TOKEN=token(stand))
    run = lambda *args: subprocess.run([built.stdout.strip(), *args], capture_output=True, text=True, timeout=60, env=env)  # noqa: E731
    watch = subprocess.Popen([built.stdout.strip(), "watch"], stdout=subprocess.PIPE, text=True, env=env)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(watch.stdout.readline, "")))
    reader.start()
    try:
        wait_for("the watch to stand", lambda: any("ready" in x for x in lines))
        person = logged_in(stand)
        listed = run("list", USER)
        assert listed.returncode == 0, listed.stderr
        ids = [x.split()[0] for x in listed.stdout.splitlines()]
        assert len(ids) == 1 and USER in listed.stdout
        wait_for("the login to be told", lambda: any(ids[0] in x and "session:" in x for x in lines))
        assert run("revoke", USER).stdout == "revoked 1\n"
        assert person.fetch(stand.url("app")).status_code == 401
        wait_for("the end to be told", lambda: any(f'ended:"{ids[0]}"' in x for x in lines))
        denied = subprocess.run([built.stdout.strip(), "revoke", USER], capture_output=True, text=True, timeout=60,
                                env={**env, "TOKEN": token(stand, "reader")})
        assert denied.returncode == 1 and "PermissionDenied" in denied.stderr
    finally:
        watch.kill()
        watch.wait()
        reader.join()


def test_the_command_line_narrows_and_revokes(stand):
    person = logged_in(stand)
    listed = stand.cli("sessions", "list", "--user", USER.upper()).stdout
    assert listed.count(USER) == 1 and "127.0.0.1" in listed
    assert USER not in stand.cli("sessions", "list", "--address", "192.0.2.0/24").stdout
    assert "revoked 0 sessions" in stand.cli("sessions", "revoke", "--user", USER, "--older-than", "1h").stdout
    assert stand.cli("sessions", "revoke", check=False).returncode == 2
    assert stand.cli("sessions", "revoke", "--older-than", "x", check=False).returncode == 2
    assert stand.cli("sessions", "revoke", "--address", "127.0.0.0/8").stdout.startswith("revoked ")
    assert person.fetch(stand.url("app")).status_code == 401


def test_a_token_is_revoked_and_its_use_is_known(stand, ss):
    pb, rpc = ss
    api = rpc.SessionServiceStub(grpc.insecure_channel(f"unix:{stand.folder}/databroker.sock", [("grpc.enable_http_proxy", 0)]))

    def made(role):
        done = stand.cli("token", "create", "--role", role, "--ttl", "1h")
        return done.stdout.strip(), done.stderr.split("token ")[1].split(",")[0]

    def listed():
        lines = {x.split()[0]: x for x in stand.cli("token", "list").stdout.splitlines()}
        return bad_id in lines and good_id in lines and lines

    def bearer(text):
        return [("authorization", "Bearer " + text)]

    (bad, bad_id), (good, good_id) = made("reader"), made("session-admin")
    assert bad not in stand.cli("token", "list").stdout and bad_id not in stand.cli("token", "list").stdout  # never used
    for text in (bad, good):
        api.List(pb.ListSessionsRequest(), metadata=bearer(text), timeout=ANSWER_S)
    stream = api.Watch(pb.WatchSessionsRequest(), metadata=bearer(bad), timeout=ANSWER_S)
    other = api.Watch(pb.WatchSessionsRequest(), metadata=bearer(good), timeout=ANSWER_S)
    next(stream)
    next(other)
    wait_for("the uses to be written", listed)
    assert bad_id in stand.cli("token", "revoke", bad_id).stdout
    assert status(lambda: api.List(pb.ListSessionsRequest(), metadata=bearer(bad), timeout=ANSWER_S)) == Code.UNAUTHENTICATED
    assert status(lambda: list(stream)) == Code.UNAUTHENTICATED  # what was open ends, too
    api.List(pb.ListSessionsRequest(), metadata=bearer(good), timeout=ANSWER_S)
    other.cancel()

    lines = listed()
    assert "reader" in lines[bad_id] and lines[bad_id].endswith("revoked") and time.strftime("%Y-%m-%d", time.gmtime()) in lines[bad_id]
    assert "session-admin" in lines[good_id] and "revoked" not in lines[good_id]
    stand.kill("databroker", signal.SIGTERM)
    stand.start_one("databroker")
    wait_for("the databroker", lambda: status(lambda: api.List(pb.ListSessionsRequest(), metadata=bearer(good), timeout=2)) == Code.OK)
    assert status(lambda: api.List(pb.ListSessionsRequest(), metadata=bearer(bad), timeout=ANSWER_S)) == Code.UNAUTHENTICATED
    for id in ("no-such-token", str(uuid.uuid4())):
        assert stand.cli("token", "revoke", id, check=False).returncode == 1
    unused, unused_id = made("reader")
    assert stand.cli("token", "revoke", unused_id, check=False).returncode == 1
    stand.cli("token", "revoke", "--unseen", unused_id)
    assert status(lambda: api.List(pb.ListSessionsRequest(), metadata=bearer(unused), timeout=ANSWER_S)) == Code.UNAUTHENTICATED
