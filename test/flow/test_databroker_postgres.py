"""Databrokers on PostgreSQL: several at once, a server that stops, dies, or is replaced by its standby, a commit without answer."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid

import grpc
import pytest
from broker import Broker, status, stubs
from google.protobuf import duration_pb2, empty_pb2
from postgres import Postgres
from sanitize import ANSWER_S, PATIENCE
from stand import Stand
from trial import BIN, ROOT, children_of, free_port, wait_for

TYPE = "type.googleapis.com/session.Session"
Code = grpc.StatusCode
REFUSALS = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
TRUTH_S = 5  # readiness may lag behind the truth for so long


@pytest.fixture(scope="module")
def server():
    p = Postgres().create()
    yield p
    p.close()


@pytest.fixture
def database(server):
    server.forget()
    return server


@pytest.fixture
def brokers():
    running = []
    yield running
    for b in running:
        if b.process is not None and b.process.poll() is None:
            b.stop()


def start(brokers, target):
    b = Broker(storage="postgres", target=target, secret=brokers[0].secret if brokers else None)
    brokers.append(b.start())
    return b


def session(pb):
    s = stubs()["session"].Session(id=str(uuid.uuid4()), user_id="u")
    record = pb.Record(type=TYPE, id=s.id)
    record.data.Pack(s)
    return record


def put(api, record, timeout=ANSWER_S):
    return api.Put(stubs()["databroker"].PutRequest(records=[record]), timeout=timeout).records[0]


def may_put(api, record, refusals=REFUSALS):
    """The written record, or None where the databroker refused it."""
    try:
        return put(api, record)
    except grpc.RpcError as e:
        assert e.code() in refusals, e
        return None


def log_of(api, pb):
    """Every change that there is, in order."""
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    stream = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=0, wait=False), timeout=60 * PATIENCE)
    return [m.record for m in stream if m.WhichOneof("response") == "record"]


class Writers:
    """Four threads that put sessions, and what was acknowledged to them."""

    def __init__(self, apis, pb, make=session, refusals=REFUSALS):
        self.apis, self.pb, self.acknowledged, self.refused, self.stopping = apis, pb, [], 0, False
        self.make, self.refusals = make, refusals
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(4)]
        for t in self.threads:
            t.start()

    def run(self, number):
        while not self.stopping:
            written = may_put(self.apis[number % len(self.apis)], self.make(self.pb), self.refusals)
            if written is None:
                self.refused += 1
                time.sleep(0.01)
            else:
                self.acknowledged.append(written)

    def stop(self):
        self.stopping = True
        for t in self.threads:
            t.join()

    def check(self, api):
        """What was acknowledged is in the log, once, with its version."""
        log = log_of(api, self.pb)
        numbers = [r.version for r in log]
        assert numbers == sorted(set(numbers))
        ids = [r.id for r in log]
        assert len(ids) == len(set(ids))
        versions = {r.id: r.version for r in log}
        assert len(self.acknowledged) > 20
        for r in self.acknowledged:
            assert versions.get(r.id) == r.version


@pytest.mark.parametrize("plain", [False, True], ids=["notified", "looking"])
def test_what_one_databroker_writes_the_followers_of_another_get(database, brokers, pb, plain):
    relay = Relay(database.port)
    relay.plain = plain
    target = database.target.replace(f"port={database.port}", f"port={relay.port}")
    here, there = start(brokers, target), start(brokers, target)
    assert bool(here.events("store.no-notifications")) == plain
    writer, reader = here.client("cli")[0], there.client("cli")[0]
    info = reader.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    stream = reader.Sync(pb.SyncRequest(server_version=info.server_version, record_version=0, type=TYPE), timeout=60 * PATIENCE)
    got = []
    follower = threading.Thread(daemon=True, target=lambda: [got.append(m) for m in iter_until_closed(stream)])
    follower.start()
    records = [put(writer, session(pb)) for _ in range(50)]
    records[0].deleted_at.GetCurrentTime()
    put(writer, records[0])
    writer.SetOptions(pb.SetOptionsRequest(type=TYPE, options=pb.Options(capacity=1000)), timeout=ANSWER_S)
    wait_for("the other's followers", lambda: len([m for m in got if m.WhichOneof("response") == "record"]) == 51, 20)
    wait_for("the other's options", lambda: any(m.WhichOneof("response") == "options" for m in got), 20)
    stream.cancel()
    follower.join()
    versions = [m.record.version for m in got if m.WhichOneof("response") == "record"]
    assert versions == sorted(versions) and len(set(versions)) == 51
    relay.stop()


def iter_until_closed(stream):
    try:
        yield from stream
    except grpc.RpcError as e:
        assert e.code() == Code.CANCELLED, e


def test_what_a_token_opened_ends_at_every_databroker_when_one_revokes_it(database, brokers, pb):
    here, there = start(brokers, database.target), start(brokers, database.target)
    api, shown = there.client("reader")
    info = api.ServerInfo(empty_pb2.Empty(), metadata=shown, timeout=ANSWER_S)
    stream = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=0, type=TYPE), metadata=shown,
                      timeout=60 * PATIENCE)
    token = shown[0][1].removeprefix("Bearer postern_")
    id = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[11:47].decode()
    revoked = pb.Record(type="postern.io/TokenRevoked", id=id)
    revoked.data.Pack(empty_pb2.Empty())
    put(here.client("cli")[0], revoked)
    assert status(lambda: list(stream)) == Code.UNAUTHENTICATED
    assert status(lambda: api.ServerInfo(empty_pb2.Empty(), metadata=shown, timeout=ANSWER_S)) == Code.UNAUTHENTICATED


def test_one_of_two_databrokers_is_killed_and_nobody_else_notices(database, brokers, pb):
    first, second = start(brokers, database.target), start(brokers, database.target)
    api = second.client("cli")[0]
    lease = first.client("cli")[0].AcquireLease(
        pb.AcquireLeaseRequest(name="job", duration=duration_pb2.Duration(seconds=600)), timeout=ANSWER_S).id
    writers = Writers([first.client("cli")[0], api], pb)
    wait_for("some writes", lambda: len(writers.acknowledged) > 50, 30)
    first.process.kill()
    first.process.wait()
    before = len(writers.acknowledged)
    wait_for("more writes", lambda: len(writers.acknowledged) > before + 50, 30)
    writers.stop()
    writers.check(api)
    with pytest.raises(grpc.RpcError) as refused:
        api.AcquireLease(pb.AcquireLeaseRequest(name="job", duration=duration_pb2.Duration(seconds=1)), timeout=ANSWER_S)
    assert refused.value.code() == Code.ALREADY_EXISTS
    api.RenewLease(pb.RenewLeaseRequest(name="job", id=lease, duration=duration_pb2.Duration(seconds=1)), timeout=ANSWER_S)


def test_a_server_that_stops_is_said_and_waited_for(database, brokers, pb):
    b = start(brokers, database.target)
    api = b.client("cli")[0]
    kept = put(api, session(pb))
    database.stop()
    wait_for("the reason", lambda: "store-unreachable" in (b.why() or ""), 20)
    with pytest.raises(grpc.RpcError) as refused:
        put(api, session(pb))
    assert refused.value.code() == Code.UNAVAILABLE
    database.start()
    wait_for("readiness", lambda: b.why() is None, 30)
    assert api.Get(pb.GetRequest(type=TYPE, id=kept.id), timeout=ANSWER_S).record.version == kept.version
    assert put(api, session(pb)).version == kept.version + 1
    assert b.events("store.unreachable") and b.events("store.reached")


def test_a_server_that_stands_still_is_said_and_waited_for(database, brokers, pb):
    """Its kernel goes on acknowledging what nobody reads: only our own deadlines end that."""
    b = start(brokers, database.target)
    api = b.client("cli")[0]
    writers = Writers([api], pb)
    wait_for("some writes", lambda: len(writers.acknowledged) > 50, 30)
    parts = [database.process.pid, *children_of(database.process.pid)]
    try:
        for pid in parts:
            os.kill(pid, signal.SIGSTOP)
        wait_for("the reason", lambda: "store-unreachable" in (b.why() or ""), 30)
        with pytest.raises(grpc.RpcError) as refused:
            put(api, session(pb))
        assert refused.value.code() == Code.UNAVAILABLE
    finally:
        for pid in parts:
            with contextlib.suppress(ProcessLookupError):  # a worker of autovacuum may have ended meanwhile
                os.kill(pid, signal.SIGCONT)
    wait_for("readiness", lambda: b.why() is None, 30)
    before = len(writers.acknowledged)
    wait_for("more writes", lambda: len(writers.acknowledged) > before + 50, 30)
    writers.stop()
    assert writers.refused > 0
    writers.check(api)


@pytest.fixture
def small(request):
    """A server that has its data, or its log, on a disk of 40 MB."""
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root")
    p = Postgres().create("--wal-segsize=1")
    try:
        yield p, p.on_small_disk(request.param, 40)
    finally:
        p.close()


def large(pb):
    record = session(pb)
    record.data.Pack(stubs()["session"].Session(id=record.id, user_id=os.urandom(1000).hex()))
    return record


def full(brokers, small, reason, pb):
    """A databroker and its writers, who go on, at a server whose disk was filled."""
    server, disk = small
    b = start(brokers, server.target)
    writers = Writers([b.client("cli")[0]], pb, large, (*REFUSALS, Code.RESOURCE_EXHAUSTED))
    wait_for("some writes", lambda: len(writers.acknowledged) > 50, 30)
    disk.fill()
    wait_for("a refusal", lambda: writers.refused, 60)
    wait_for("the reason", lambda: reason in (b.why() or ""), TRUTH_S)
    return b, writers


def works_again(b, writers, pb):
    """The writers have been stopped: they would fill the disk anew, within a second where nothing else goes on."""
    wait_for("readiness", lambda: b.why() is None, TRUTH_S)
    api = b.client("cli")[0]
    writers.acknowledged += [put(api, large(pb)) for _ in range(50)]
    writers.check(api)


@pytest.mark.parametrize("small", ["data"], indirect=True)
def test_a_server_whose_disk_is_full_refuses_writes_and_answers_reads(small, brokers, pb):
    """What it can change in place it still does: readiness must not go by that."""
    b, writers = full(brokers, small, "store-full", pb)
    api, kept = b.client("cli")[0], writers.acknowledged[0]
    with pytest.raises(grpc.RpcError) as refused:
        for _ in range(100):  # one may fit in what another left
            put(api, large(pb))
    assert refused.value.code() == Code.RESOURCE_EXHAUSTED and "full" in refused.value.details()
    assert api.Get(pb.GetRequest(type=TYPE, id=kept.id), timeout=ANSWER_S).record.version == kept.version
    writers.stop()
    small[1].make_room()
    works_again(b, writers, pb)


@pytest.mark.parametrize("small", ["log"], indirect=True)
def test_a_server_that_ends_for_want_of_room_for_its_log_is_waited_for(small, brokers, pb):
    """It panics, and then cannot start: that is the server's way. Who runs it makes room and starts it."""
    b, writers = full(brokers, small, "store-unreachable", pb)
    server, disk = small
    wait_for("its end", lambda: server.process.poll() is not None, 60)
    writers.stop()
    disk.make_room()
    server.start()
    works_again(b, writers, pb)


def test_a_standby_that_takes_over_has_everything_acknowledged(brokers, pb):
    primary = Postgres().create()
    standby = None
    try:
        standby = primary.standby()
        primary.stop()
        primary.settings["synchronous_standby_names"] = "*"
        primary.start()
        wait_for("the standby", lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == "sync", 30)
        b = start(brokers, f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port} user=postern dbname=postern sslmode=disable")
        api = b.client("cli")[0]
        before = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S).server_version
        writers = Writers([api], pb)
        wait_for("some writes", lambda: len(writers.acknowledged) > 50, 30)
        primary.stop(how=9)
        standby.promote()
        count = len(writers.acknowledged)
        wait_for("writes to the new primary", lambda: len(writers.acknowledged) > count + 50, 60)
        writers.stop()
        writers.check(api)
        assert api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S).server_version != before
        assert b.events("store.history-changed")
    finally:
        for b in brokers:
            b.stop()
        primary.close()
        if standby is not None:
            standby.close()


def restoring_sql():
    """What docs/postgresql.md has people say after a pg_restore."""
    with open(f"{ROOT}/docs/postgresql.md") as f:
        return next(x for x in re.findall(r"```sql\n(.*?)```", f.read(), re.S) if "DELETE FROM postern.records" in x)


def test_a_dump_under_load_is_restored(database, brokers, pb):
    b = start(brokers, database.target)
    api = b.client("cli")[0]
    account = pb.Record(type="type.googleapis.com/user.ServiceAccount", id="robot")
    account.data.Pack(stubs()["user"].ServiceAccount(id="robot", user_id="robot/1"))
    first, account = put(api, session(pb)), put(api, account)
    api.SetOptions(pb.SetOptionsRequest(type="x", options=pb.Options(capacity=7)), timeout=ANSWER_S)
    writers = Writers([api], pb)
    wait_for("some writes", lambda: len(writers.acknowledged) > 20, 30)
    before, dump = list(writers.acknowledged), database.folder + "/dump"
    where = ("-h", database.folder, "-p", str(database.port), "-U", "postgres")
    database.run("pg_dump", *where, "--format=custom", "--schema=postern", f"--file={dump}", "postern")
    wait_for("more writes", lambda: len(writers.acknowledged) > len(before) + 20, 30)
    writers.stop()
    late = put(api, session(pb))
    version = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S).server_version
    refused = subprocess.run([f"{BIN}/postern", "databroker", "backup", f"{b.folder}/x", "--config", b.config], capture_output=True,
                             text=True, timeout=60, env={**os.environ, "INSECURE_SERVER": "true"}, check=False)
    assert refused.returncode == 1 and "pg_dump" in refused.stderr
    for keep_sessions in (True, False):
        b.stop()
        database.run("pg_restore", *where, "--clean", "--if-exists", "--single-transaction", "--dbname=postern", dump)
        sql = restoring_sql().strip().splitlines()
        database.ask("BEGIN; " + " ".join(sql[keep_sessions:]) + " COMMIT")
        api = b.start().client("cli")[0]
        for r in [first, *before]:
            request = pb.GetRequest(type=TYPE, id=r.id)
            if keep_sessions:
                assert api.Get(request, timeout=ANSWER_S).record == r
            else:
                with pytest.raises(grpc.RpcError) as gone:
                    api.Get(request, timeout=ANSWER_S)
                assert gone.value.code() == Code.NOT_FOUND
        assert api.Get(pb.GetRequest(type=account.type, id="robot"), timeout=ANSWER_S).record == account
        assert api.GetOptions(pb.GetOptionsRequest(type="x"), timeout=ANSWER_S).options.capacity == 7
        assert api.Query(pb.QueryRequest(type=TYPE, query=late.id), timeout=ANSWER_S).total_count == 0
        old = pb.SyncRequest(server_version=version, record_version=late.version, wait=False)
        with pytest.raises(grpc.RpcError) as aborted:
            list(api.Sync(old, timeout=ANSWER_S))
        assert aborted.value.code() == Code.ABORTED
        assert put(api, session(pb)).version > late.version  # none is given twice


# --- an acknowledged deletion is in every replica of every databroker -----------------------------


class Replica:
    """As authorize follows, by its certificate and under a name; it confirms when it is told to."""

    def __init__(self, broker, pb):
        channel, _ = broker.channel("authorize")
        self.api, self.name = stubs()["replica_rpc"].ReplicaStub(channel), str(uuid.uuid4())
        info = broker.client("cli")[0].ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
        self.stream = stubs()["rpc"].DataBrokerServiceStub(channel).Sync(
            pb.SyncRequest(server_version=info.server_version, record_version=info.latest_record_version, confirms=self.name))
        wait_for("the databroker to know the replica", self.confirm, 10)
        self.gone = []
        self.ended = None
        threading.Thread(target=self.follow, daemon=True).start()

    def confirm(self, version=0):
        try:
            self.api.Confirm(stubs()["replica"].ConfirmRequest(follower=self.name, record_version=version), timeout=ANSWER_S)
        except grpc.RpcError as e:
            assert e.code() == Code.NOT_FOUND, e
            return False
        return True

    def follow(self):
        try:
            for m in self.stream:
                if m.record.HasField("deleted_at"):
                    self.gone.append(m.record.version)
        except grpc.RpcError as e:
            self.ended = e.code()

    def next_deletion(self, seen):
        return wait_for("the deletion", lambda: len(self.gone) > seen and self.gone[seen])


def delete(api, pb):
    """A session that was and is to be no more: the call that waits for its end."""
    record = put(api, session(pb))
    record.deleted_at.GetCurrentTime()
    return api.Put.future(pb.PutRequest(records=[record]), timeout=ANSWER_S)


def test_a_deletion_is_acknowledged_when_the_replicas_of_every_databroker_have_it(database, brokers, pb):
    here, there = start(brokers, database.target), start(brokers, database.target)
    near, far = Replica(here, pb), Replica(there, pb)
    for i in range(5):
        answer = delete(here.client("cli")[0], pb)
        near.confirm(near.next_deletion(i))
        version = far.next_deletion(i)
        time.sleep(0.1)  # what a wrong answer takes
        assert not answer.done() or here.events("databroker.unconfirmed"), i
        far.confirm(version)
        answer.result()
    told = here.events("databroker.unconfirmed")
    assert len(told) < 5, told  # a busy machine may lose one
    # No replica, nobody to wait for; and a new one counts from its beginning.
    far.stream.cancel()
    wait_for("the replica to be forgotten", lambda: not far.confirm())
    answer = delete(here.client("cli")[0], pb)
    near.confirm(near.next_deletion(5))
    answer.result()
    late = Replica(there, pb)
    answer = delete(here.client("cli")[0], pb)
    near.confirm(near.next_deletion(6))
    time.sleep(0.1)
    assert not answer.done() or len(here.events("databroker.unconfirmed")) > len(told)
    late.confirm(late.next_deletion(0))
    answer.result()
    near.stream.cancel()
    late.stream.cancel()


def test_a_databroker_that_died_is_named_and_waited_for_no_longer_than_it_lives(database, brokers, pb):
    here, there = start(brokers, database.target), start(brokers, database.target)
    Replica(there, pb)
    there.process.kill()
    there.process.wait()
    delete(here.client("cli")[0], pb).result()  # it did not say so, and nobody can wait for it
    told = here.events("databroker.unconfirmed")[-1]
    assert told["databroker"] == there.events("store.opens")[0]["databroker"]
    database.ask("UPDATE postern.writers SET seen_us = seen_us - 10000000")  # ten seconds later
    before = len(here.events("databroker.unconfirmed"))
    delete(here.client("cli")[0], pb).result()
    assert len(here.events("databroker.unconfirmed")) == before


def test_a_databroker_that_others_may_write_behind_lets_its_replicas_go(database, brokers, pb):
    """What it cannot read it cannot tell them: they must not take themselves for fresh."""
    relay = Relay(database.port)
    away = start(brokers, database.target.replace(f"port={database.port}", f"port={relay.port}"))
    here = start(brokers, database.target)
    replica, other = Replica(away, pb), Replica(here, pb)
    wait_for("them to know of each other", lambda: database.ask("SELECT count(*) FROM postern.writers") == "2")
    time.sleep(2.5)  # and to have read it
    relay.silent = True
    wait_for("its replica to be let go", lambda: replica.ended == Code.UNAVAILABLE, 30)
    assert other.ended is None
    relay.silent = False
    relay.cut_all()
    wait_for("it to be back", away.is_ready, 30)
    back = Replica(away, pb)
    other.stream.cancel()
    back.stream.cancel()
    relay.stop()


def state_at(stand, authorize, id):
    """What one authorize takes the session for."""
    told = stand.cli("explain", "--route", "app", "--session", id, "--json", "--authorize", f"unix:{stand.folder}/{authorize}.sock")
    return json.loads(told.stdout)["who"]["session_state"]


def test_whoever_hears_that_a_session_is_revoked_meets_no_authorize_that_lets_it_in(database, upstream):
    """Two databrokers, an authorize at each; the session's end is written by way of one, while the other one does not move."""
    stand = Stand(f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    name: app
    allow_any_authenticated_user: true
""", authorizes=2)
    store = {"DATABROKER_STORAGE_TYPE": "postgres", "DATABROKER_STORAGE_CONNECTION_STRING": database.target}
    stand.env = {"databroker": store, "databroker-2": store,
                 "authorize-2": {"DATABROKER_SERVICE_URL": f"unix:{stand.folder}/databroker-2.sock"}}
    other = stand.start_one("databroker-2")
    stand.start()
    try:
        confirmed = 0
        while confirmed < 3:
            browser = stand.browser()
            assert browser.login(stand.url("app"), "user@example.com").status_code == 200
            id = stand.cli("sessions", "list", "--user", "user@example.com").stdout.splitlines()[1].split()[0]
            for authorize in stand.authorizes:
                wait_for("it to know the session", lambda: state_at(stand, authorize, id) == "live")
            other.send_signal(signal.SIGSTOP)
            revoking = subprocess.Popen([f"{BIN}/postern", "sessions", "revoke", id], env={**os.environ, "POSTERN_CONFIG": stand.config},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                revoking.wait(0.3)
            except subprocess.TimeoutExpired:
                pass
            other.send_signal(signal.SIGCONT)
            said = revoking.communicate(timeout=ANSWER_S)
            assert revoking.returncode == 0 and said[0] == f"revoked {id}\n"
            if "warning" not in said[1]:  # else the machine was too slow for it
                assert [state_at(stand, a, id) for a in stand.authorizes] == ["gone", "gone"]
                assert {browser.fetch(stand.url("app")).status_code for _ in range(10)} == {401}
                confirmed += 1
        # Where it is gone and somebody follows it, nobody can say that it was confirmed.
        browser.login(stand.url("app"), "user@example.com")
        other.kill()
        other.wait()
        said = stand.cli("sessions", "revoke", "--user", "user@example.com")
        assert said.stdout == "revoked 1 session of user@example.com\n" and "has not confirmed it" in said.stderr
        told = stand.logs("databroker")
        assert any(e["event"] == "databroker.unconfirmed" and len(e["databroker"]) == 36 for e in told)
    finally:
        stand.stop()


class Relay:
    """Stands between a databroker and the server, and cuts a writer's connection when it commits, once.

    cut: "before" the server got it, "half" of it got there, "after" the server has answered."""

    BEGIN_WRITE, COMMIT = b"\x00s1\x00", b"\x00s2\x00"  # the names of the prepared statements

    def __init__(self, port):
        self.port, self.cut, self.cuts, self.to = free_port(), None, 0, port
        self.silent, self.pairs = False, []  # silent: nothing comes through, and nobody is told
        self.plain = False  # the server knows no LISTEN and no NOTIFY, as distributed databases do not
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:  # it is not there: nor are we
                client.close()
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            state = {"writes": False, "cut": None}
            self.pairs.append((client, server))
            threading.Thread(target=self.up, args=(client, server, state), daemon=True).start()
            threading.Thread(target=self.down, args=(client, server, state), daemon=True).start()

    def up(self, client, server, state):
        try:
            while data := client.recv(1 << 20):
                if self.silent:
                    continue
                if self.plain:
                    data = re.sub(b"(LISTE|NOTIF)[NY](?= postern)", rb"\1X", data)
                state["writes"] = state["writes"] or self.BEGIN_WRITE in data and b"BEGIN" not in data
                if self.cut is not None and state["writes"] and self.COMMIT in data and b"BEGIN" not in data:
                    state["cut"], self.cut, self.cuts = self.cut, None, self.cuts + 1
                    if state["cut"] == "half":
                        server.sendall(data[:data.index(self.COMMIT)])
                    if state["cut"] != "after":
                        break
                server.sendall(data)
        except OSError:
            pass
        if state["cut"] != "after":
            self.close(client, server)

    def down(self, client, server, state):
        try:
            while data := server.recv(1 << 20):
                if state["cut"] == "after":
                    break
                client.sendall(data)
        except OSError:
            pass
        self.close(client, server)

    def cut_all(self):
        for pair in self.pairs:
            self.close(*pair)

    @staticmethod
    def close(*sockets):
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # close alone leaves the thread in accept, and the port taken
        self.listener.close()


@pytest.mark.parametrize("cut", ["before", "half", "after"])
def test_a_commit_without_an_answer_is_acknowledged_once(database, brokers, pb, cut):
    relay = Relay(database.port)
    b = start(brokers, database.target.replace(f"port={database.port}", f"port={relay.port}"))
    api = b.client("cli")[0]
    for i in range(5):
        relay.cut = cut
        record = session(pb)
        assert put(api, record, 30 * PATIENCE).id == record.id
        if relay.cut is not None:  # a probe may have been cut in its place
            relay.cut = None
        assert [r.id for r in log_of(api, pb)].count(record.id) == 1, i
        time.sleep(0.1)
    assert relay.cuts >= 5
    told = b.events("store.commit-unanswered")
    assert len(told) == relay.cuts and all(e["known"] for e in told)
    assert {e["committed"] for e in told} == {cut == "after"}
    relay.stop()
