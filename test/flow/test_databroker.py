"""The databroker by itself: every method for every role, its contract as a foreign client sees it, its store."""

import itertools
import os
import sqlite3
import subprocess
import threading
import time
import uuid

import grpc
import pytest
from broker import Broker, of_each_storage, status, stubs
from foreign import messages
from google.protobuf import duration_pb2, empty_pb2, field_mask_pb2, struct_pb2
from sanitize import ANSWER_S, PATIENCE
from trial import BIN, wait_for

SESSION = "type.googleapis.com/session.Session"
USER = "type.googleapis.com/user.User"
DIRECTORY = "pomerium.io/DirectoryUser"
TOKEN_USED = "postern.io/TokenUsed"
Code = grpc.StatusCode


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def broker(request):
    yield from of_each_storage(request)


def session(user="u1", **fields):
    s = stubs()["session"].Session(id=str(uuid.uuid4()), user_id=user, **fields)
    record = stubs()["databroker"].Record(type=SESSION, id=s.id)
    record.data.Pack(s)
    return record


# --- who may call what: beside test_roles.py -----------------------------------------------------


def test_a_method_that_does_not_exist_is_unimplemented(broker):
    channel = grpc.secure_channel(broker.address, broker.identity.credentials("cli"),
                                  [("grpc.ssl_target_name_override", "databroker.postern.internal")])
    assert status(lambda: channel.unary_unary("/databroker.DataBrokerService/Drop")(b"", timeout=ANSWER_S)) == Code.UNIMPLEMENTED
    assert status(lambda: channel.unary_unary("/databroker.DataBrokerService/Put/")(b"", timeout=ANSWER_S)) == Code.UNIMPLEMENTED


def test_a_certificate_of_another_ca_or_role_is_nobody(broker):
    from cryptography.hazmat.primitives.asymmetric import ec
    stub, _ = broker.client("cli", issuer_key=ec.generate_private_key(ec.SECP256R1()))
    assert status(lambda: stub.ServerInfo(empty_pb2.Empty(), timeout=3)) in (Code.UNAVAILABLE, Code.UNAUTHENTICATED)
    for uri in ("spiffe://postern/root", "spiffe://other/cli", "https://postern/cli", "spiffe://postern/cli/x"):
        stub, _ = broker.client("cli", uri=uri)
        assert status(lambda: stub.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)) == Code.UNAUTHENTICATED, uri


def test_an_old_or_changed_token_is_nobody(broker):
    stub, _ = broker.client(None)
    good = broker.identity.token("reader")
    old = broker.identity.token("reader", -120)
    for text in (old, good[:-1] + ("A" if good[-1] != "A" else "B"), good + "x", "", "postern_"):
        metadata = [("authorization", "Bearer " + text)]
        assert status(lambda: stub.ServerInfo(empty_pb2.Empty(), metadata=metadata, timeout=ANSWER_S)) == Code.UNAUTHENTICATED, text


def test_a_session_admin_ends_sessions_and_does_nothing_else(broker, pb, api):
    stub, metadata = broker.client("session-admin")
    mine = api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S).records[0]
    user = pb.Record(type=USER, id="u")
    user.deleted_at.GetCurrentTime()
    gone = pb.Record(type=SESSION, id=mine.id)
    gone.deleted_at.GetCurrentTime()
    assert status(lambda: stub.Put(pb.PutRequest(records=[user]), metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    assert status(lambda: stub.Put(pb.PutRequest(records=[mine]), metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    assert status(lambda: stub.Put(pb.PutRequest(records=[gone, mine]), metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    assert api.Get(pb.GetRequest(type=SESSION, id=mine.id), timeout=ANSWER_S).record.version == mine.version
    for seen in (USER, DIRECTORY):
        assert status(lambda: stub.Query(pb.QueryRequest(type=seen), metadata=metadata, timeout=ANSWER_S)) == Code.OK
    assert status(lambda: stub.Query(pb.QueryRequest(type="other"), metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    assert status(lambda: stub.Get(pb.GetRequest(type="other", id="x"), metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    for everything in ("", "other"):
        calls = stub.SyncLatest(pb.SyncLatestRequest(type=everything), metadata=metadata, timeout=ANSWER_S)
        assert status(lambda: list(calls)) == Code.PERMISSION_DENIED
    stub.Put(pb.PutRequest(records=[gone]), metadata=metadata, timeout=ANSWER_S)
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=mine.id), timeout=ANSWER_S)) == Code.NOT_FOUND
    line = [e for e in broker.events("databroker.write") if e["id"] == mine.id][-1]
    assert (line["action"], line["role"], line["type"]) == ("delete", "session-admin", SESSION)
    assert line["caller"].count("-") == 4


CONFIG = "type.googleapis.com/pomerium.config."
WRITES = {"directory-writer": (DIRECTORY, "pomerium.io/DirectoryGroup", "type.googleapis.com/pomerium.io/DirectoryUser"),
          "config-writer": [CONFIG + kind for kind in ("Config", "VersionedConfig", "Route", "Policy", "Settings", "KeyPair")]}


@pytest.mark.parametrize("role", WRITES)
def test_a_writer_writes_its_own_records_and_nothing_else(broker, pb, api, role):
    stub, metadata = broker.client(role)

    def call(method, request):
        return getattr(stub, method)(request, metadata=metadata, timeout=ANSWER_S)

    def record(kind, id="d1"):
        r = pb.Record(type=kind, id=id)
        r.data.Pack(struct_pb2.Struct())
        return r
    for kind in WRITES[role]:
        mine = record(kind)
        call("Put", pb.PutRequest(records=[mine]))
        assert call("Get", pb.GetRequest(type=kind, id="d1")).record.data == mine.data
        assert call("Query", pb.QueryRequest(type=kind)).total_count >= 1
        mine.deleted_at.GetCurrentTime()
        call("Put", pb.PutRequest(records=[mine]))
    others = [kind for other in WRITES if other != role for kind in WRITES[other]]
    for kind in [SESSION, USER, "acme.com/Fact", "pomerium.io/DirectoryUserX", CONFIG, CONFIG + "Routes", "pomerium.config.Route", *others]:
        assert status(lambda: call("Put", pb.PutRequest(records=[record(kind)]))) == Code.PERMISSION_DENIED, kind
        assert status(lambda: call("Get", pb.GetRequest(type=kind, id="d1"))) == Code.PERMISSION_DENIED, kind
        assert status(lambda: call("Query", pb.QueryRequest(type=kind))) == Code.PERMISSION_DENIED, kind
    mixed = [record(WRITES[role][0], "d2"), session()]
    assert status(lambda: call("Put", pb.PutRequest(records=mixed))) == Code.PERMISSION_DENIED
    assert status(lambda: api.Get(pb.GetRequest(type=WRITES[role][0], id="d2"), timeout=ANSWER_S)) == Code.NOT_FOUND
    lease = pb.AcquireLeaseRequest(name="x", duration=duration_pb2.Duration(seconds=1))
    assert status(lambda: call("AcquireLease", lease)) == Code.PERMISSION_DENIED


def test_a_record_writer_writes_external_data_and_nothing_else(broker, pb, api):
    stub, metadata = broker.client("record-writer")

    def external(type):
        record = pb.Record(type=type, id="g/ann")
        record.data.Pack(struct_pb2.Struct())
        return record
    second = duration_pb2.Duration(seconds=1)
    calls = {
        "Put": lambda type: pb.PutRequest(records=[external(type)]),
        "Get": lambda type: pb.GetRequest(type=type, id="g/ann"),
        "Query": lambda type: pb.QueryRequest(type=type, limit=1),
        "AcquireLease": lambda type: pb.AcquireLeaseRequest(name="external-data/" + type, duration=second),
    }
    taken = (SESSION, USER, DIRECTORY, "type.googleapis.com/pomerium.config.Route", "x.pomerium.io/y", "posture", "local/x", "a.b/c d",
             "postern.io/ProviderCopy", "postern.io/TokenRevoked", "postern.io/SessionAccess", "x.postern.io/y")
    for method, request in calls.items():
        for type, expected in [("acme.test/posture", Code.OK)] + [(t, Code.PERMISSION_DENIED) for t in taken]:
            got = status(lambda: getattr(stub, method)(request(type), metadata=metadata, timeout=ANSWER_S))
            assert got == expected, (method, type)
    assert status(lambda: stub.AcquireLease(pb.AcquireLeaseRequest(name="identity-manager", duration=second), metadata=metadata,
                                            timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    mixed = pb.PutRequest(records=[external("acme.test/posture"), session()])
    assert status(lambda: stub.Put(mixed, metadata=metadata, timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    writer, auth = broker.client("session-admin")
    assert status(lambda: writer.Put(pb.PutRequest(records=[external("acme.test/posture")]), metadata=auth,
                                     timeout=ANSWER_S)) == Code.PERMISSION_DENIED


# --- records ------------------------------------------------------------------------------------


def test_what_was_put_is_there_with_its_version(broker, pb, api):
    records = [session(), session()]
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    put = api.Put(pb.PutRequest(records=records), timeout=ANSWER_S)
    assert put.server_version == info.server_version
    assert [r.version for r in put.records] == [info.latest_record_version + 1, info.latest_record_version + 2]
    got = api.Get(pb.GetRequest(type=SESSION, id=records[0].id), timeout=ANSWER_S).record
    assert got == put.records[0] and got.data == records[0].data and not got.HasField("deleted_at")
    assert abs(got.modified_at.ToSeconds() - time.time()) < 60
    assert "u1" not in "".join(str(e) for e in broker.events("databroker.write"))


def bad(pb, **fields):
    r = session()
    for k, v in fields.items():
        setattr(r, k, v)
    return r


def test_bounds_hold(broker, pb, api):
    big = session()
    big.data.value = b"x" * (1 << 20)
    assert status(lambda: api.Put(pb.PutRequest(records=[big]), timeout=ANSWER_S)) == Code.OK
    big.data.value += b"x"
    assert status(lambda: api.Put(pb.PutRequest(records=[big]), timeout=ANSWER_S)) == Code.RESOURCE_EXHAUSTED
    many = pb.PutRequest(records=[session() for _ in range(1001)])
    assert status(lambda: api.Put(many, timeout=ANSWER_S)) == Code.RESOURCE_EXHAUSTED
    del many.records[-1]
    assert status(lambda: api.Put(many, timeout=ANSWER_S)) == Code.OK
    for record, code in ((bad(pb, id=""), Code.INVALID_ARGUMENT), (bad(pb, type=""), Code.INVALID_ARGUMENT),
                         (bad(pb, id="a\nb"), Code.INVALID_ARGUMENT), (bad(pb, id="a\0b"), Code.INVALID_ARGUMENT),
                         (bad(pb, id="i" * 512), Code.OK), (bad(pb, id="i" * 513), Code.RESOURCE_EXHAUSTED),
                         (pb.Record(type=SESSION, id="x"), Code.INVALID_ARGUMENT)):
        assert status(lambda: api.Put(pb.PutRequest(records=[record]), timeout=ANSWER_S)) == code, record.id
    assert status(lambda: api.Query(pb.QueryRequest(type=SESSION, limit=-1), timeout=ANSWER_S)) == Code.INVALID_ARGUMENT
    page = api.Query(pb.QueryRequest(type=SESSION, limit=100000), timeout=ANSWER_S)
    assert page.ByteSize() < 4 << 20 and len(page.records) <= 1000 < page.total_count


# --- following ----------------------------------------------------------------------------------


def test_a_snapshot_then_its_changes(broker, pb, api):
    records = [session() for _ in range(5)]
    api.Put(pb.PutRequest(records=records), timeout=ANSWER_S)
    state, versions = {}, None
    for m in api.SyncLatest(pb.SyncLatestRequest(type=SESSION), timeout=ANSWER_S):
        assert versions is None, "versions is the last message"
        if m.HasField("record"):
            state[m.record.id] = m.record
        elif m.HasField("versions"):
            versions = m.versions
    assert {r.id for r in records} <= set(state)
    assert versions.latest_record_version == api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S).latest_record_version
    follow = api.Sync(pb.SyncRequest(server_version=versions.server_version, type=SESSION,
                                     record_version=versions.latest_record_version), timeout=ANSWER_S)
    gone = pb.Record(type=SESSION, id=records[0].id)
    gone.deleted_at.GetCurrentTime()
    api.Put(pb.PutRequest(records=[pb.Record(type=USER, id="u", data=records[0].data)]), timeout=ANSWER_S)
    put = api.Put(pb.PutRequest(records=[gone]), timeout=ANSWER_S).records[0]
    got = next(m.record for m in follow if m.HasField("record"))
    assert got.version == put.version and got.HasField("deleted_at") and got.id == gone.id
    follow.cancel()


def test_who_asks_for_batches_gets_the_same_changes_in_few_messages(pb, api):
    kind, info = f"acme.test/{uuid.uuid4()}", api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    records = [pb.Record(type=kind, id=f"{i:04}", data=session().data) for i in range(450)]
    api.Put(pb.PutRequest(records=records), timeout=ANSWER_S)
    api.Put(pb.PutRequest(records=[deletion(r) for r in records]), timeout=ANSWER_S)
    request = {"server_version": info.server_version, "record_version": info.latest_record_version, "type": kind, "wait": False}
    one_by_one = [m.record for m in api.Sync(pb.SyncRequest(**request), timeout=ANSWER_S) if m.HasField("record")]
    messages = [m for m in api.Sync(pb.SyncRequest(**request, batches=True), timeout=ANSWER_S) if m.records]
    together = [r for m in messages for r in m.records]
    assert together == one_by_one and len(together) == 900
    assert max(len(m.records) for m in messages) <= 64 and len(messages) < 900 / 40  # a page's end may cut one short


# --- an acknowledged deletion is in every replica -------------------------------------------------


class Replica:
    """As authorize follows: by its certificate, under a name, from now on."""

    def __init__(self, broker, pb, name, role="authorize"):
        channel, metadata = broker.channel(role)
        self.confirms = stubs()["replica_rpc"].ReplicaStub(channel)
        self.name = name
        stub = stubs()["rpc"].DataBrokerServiceStub(channel)
        info = broker.client("cli")[0].ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
        self.stream = stub.Sync(pb.SyncRequest(server_version=info.server_version, record_version=info.latest_record_version,
                                               confirms=name), metadata=metadata, timeout=2 * ANSWER_S)
        if role == "authorize":
            wait_for("the databroker to know the replica", lambda: status(lambda: self.confirm(0)) == Code.OK)

    def next_deletion(self):
        return next(r.record for r in self.stream if r.record.HasField("deleted_at"))

    def confirm(self, version):
        self.confirms.Confirm(stubs()["replica"].ConfirmRequest(follower=self.name, record_version=version), timeout=ANSWER_S)


def deletion(record):
    gone = type(record)(type=record.type, id=record.id)
    gone.deleted_at.GetCurrentTime()
    return gone


def test_a_deletion_is_acknowledged_when_every_replica_has_it(broker, pb, api):
    record = session()
    api.Put(pb.PutRequest(records=[record]), timeout=ANSWER_S)
    replicas = [Replica(broker, pb, str(uuid.uuid4())) for _ in range(2)]
    before = len(broker.events("databroker.unconfirmed"))
    asked = time.monotonic()
    answer = api.Put.future(pb.PutRequest(records=[deletion(record)]), timeout=ANSWER_S)
    for replica in replicas:
        version = replica.next_deletion().version
        early = answer.done()
        assert not early or time.monotonic() - asked > 0.9  # but for a replica that hangs
        replica.confirm(version)
    answer.result()
    if time.monotonic() - asked < 0.9:
        assert len(broker.events("databroker.unconfirmed")) == before
    for replica in replicas:
        replica.stream.cancel()


def test_who_revokes_what_is_revoked_already_waits_for_the_replicas_too(broker, pb, api):
    """It may be the second try of somebody who got no answer: that none was left says that nobody gets in."""
    record = session()
    api.Put(pb.PutRequest(records=[record]), timeout=ANSWER_S)
    service, stub = messages("session_service")["session_service"]
    api_of_sessions = stub.SessionServiceStub(broker.channel("cli")[0])
    request = service.RevokeSessionsRequest(filter=service.SessionFilter(session_id=record.id))
    replica = Replica(broker, pb, str(uuid.uuid4()))
    before = len(broker.events("databroker.unconfirmed"))
    asked = time.monotonic()
    first = api.Put.future(pb.PutRequest(records=[deletion(record)]), timeout=ANSWER_S)
    version = replica.next_deletion().version
    second = api_of_sessions.Revoke.future(request, timeout=ANSWER_S)
    time.sleep(0.3)
    early = second.done()
    assert not early or time.monotonic() - asked > 0.9  # but for a replica that hangs
    replica.confirm(version)
    first.result()
    assert second.result().revoked == 0
    api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S)  # nothing that a replica confirms
    assert api_of_sessions.Revoke(request, timeout=ANSWER_S).revoked == 0
    if time.monotonic() - asked < 0.9:
        assert len(broker.events("databroker.unconfirmed")) == before
    late = session()
    api.Put(pb.PutRequest(records=[late]), timeout=ANSWER_S)
    api.Put(pb.PutRequest(records=[deletion(late)]), timeout=ANSWER_S)  # and this the replica never confirms
    answer = api_of_sessions.Revoke(request, timeout=ANSWER_S)
    assert answer.revoked == 0 and not answer.confirmed
    replica.stream.cancel()


def test_a_replica_that_hangs_or_is_none_holds_up_nobody_for_long(broker, pb, api):
    hangs, reader = Replica(broker, pb, "hangs"), Replica(broker, pb, "reader", "reader")
    first, second = session(), session()
    api.Put(pb.PutRequest(records=[first, second]), timeout=ANSWER_S)
    before = len(broker.events("databroker.unconfirmed"))
    api.Put(pb.PutRequest(records=[deletion(first)]), timeout=ANSWER_S)
    assert hangs.next_deletion().id == reader.next_deletion().id == first.id
    assert len(broker.events("databroker.unconfirmed")) == before + 1
    hangs.stream.cancel()
    wait_for("the replica to be forgotten", lambda: status(lambda: hangs.confirm(1)) == Code.NOT_FOUND)
    api.Put(pb.PutRequest(records=[deletion(second)]), timeout=ANSWER_S)
    assert len(broker.events("databroker.unconfirmed")) == before + 1  # a token cannot hold up others
    reader.stream.cancel()


def test_sync_of_another_time_is_aborted(broker, pb, api):
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    for server, record in ((info.server_version + 1, 0), (0, 0), (info.server_version, info.latest_record_version + 10000)):
        request = pb.SyncRequest(server_version=server, record_version=record)
        assert status(lambda: list(api.Sync(request, timeout=ANSWER_S))) == Code.ABORTED


def test_sync_is_gap_free_across_reconnects_while_four_write(broker, pb, api):
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    stop, written, lock = threading.Event(), [], threading.Lock()

    def write():
        stub, _ = broker.client("authenticate")
        while not stop.is_set():
            put = stub.Put(pb.PutRequest(records=[session(), session()]), timeout=ANSWER_S)
            with lock:
                written.extend(r.version for r in put.records)

    writers = [threading.Thread(target=write) for _ in range(4)]
    [t.start() for t in writers]
    seen, own, at = [], set(), info.latest_record_version  # own: the databroker writes when a token was used
    for _ in range(30):  # a follower that loses its connection again and again
        stub, _ = broker.client("authorize")
        follow = stub.Sync(pb.SyncRequest(server_version=info.server_version, record_version=at), timeout=ANSWER_S)
        for m in follow:
            if m.HasField("record"):
                seen.append(m.record.version)
                own |= {m.record.version} if m.record.type == TOKEN_USED else set()
                at = m.record.version
            if len(seen) % 37 == 36:
                break
        follow.cancel()
    stop.set()
    [t.join() for t in writers]
    rest = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=at, wait=False), timeout=ANSWER_S)
    for m in (m for m in rest if m.HasField("record")):
        seen.append(m.record.version)
        own |= {m.record.version} if m.record.type == TOKEN_USED else set()
    assert seen == list(range(info.latest_record_version + 1, info.latest_record_version + 1 + len(seen)))
    assert set(written) == set(seen) - own and len(written) == len(seen) - len(own) > 100


@pytest.mark.skipif("tsan" in os.environ.get("SAN", ""), reason="TSan looks at every byte of 90 MiB of TLS, for minutes")
def test_a_follower_that_does_not_read_holds_up_nobody(broker, pb, api):
    fat = []
    for _ in range(3):
        r = session()
        r.data.value = os.urandom(1 << 20)
        fat.append(r)
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    after = pb.SyncRequest(server_version=info.server_version, record_version=info.latest_record_version)
    # a connection each: what is not read fills the window of its whole connection
    lazy = [broker.client("authorize")[0].Sync(after, timeout=2 * ANSWER_S) for _ in range(3)]
    for _ in range(10):
        api.Put(pb.PutRequest(records=fat), timeout=ANSWER_S)
    assert api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S).records[0].version
    with open(f"/proc/{broker.process.pid}/status") as f:
        peak = int(next(x for x in f if x.startswith("VmHWM")).split()[1])
    if not os.environ.get("SAN"):
        assert peak < 200 * 1024
    got = [m.record.version for m in itertools.islice((m for m in lazy[0] if m.HasField("record")), 31)]
    assert got == list(range(info.latest_record_version + 1, info.latest_record_version + 32))
    [x.cancel() for x in lazy]


# --- leases, options ----------------------------------------------------------------------------


def test_tokens_leave_room_for_replicas(broker, pb, api):
    """Whoever shows a token may follow, but not so often that no authorize can."""
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    here = pb.SyncRequest(server_version=info.server_version, record_version=info.latest_record_version)
    reader, shown = broker.client("reader")
    streams = [reader.Sync(here, metadata=shown, timeout=10 * ANSWER_S) for _ in range(300)]
    try:
        wait_for("some to be refused", lambda: sum(not s.is_active() for s in streams) > 40, 30 * PATIENCE)
        here.wait = False
        assert status(lambda: list(broker.client("authorize")[0].Sync(here, timeout=ANSWER_S))) == Code.OK
        assert status(lambda: list(api.Sync(here, timeout=ANSWER_S))) == Code.RESOURCE_EXHAUSTED
    finally:
        [s.cancel() for s in streams]
    wait_for("room again", lambda: status(lambda: list(api.Sync(here, timeout=ANSWER_S))) == Code.OK, 30 * PATIENCE)


def test_of_many_who_want_a_lease_one_gets_it(broker, pb):
    for _ in range(5):
        name, got, lock = str(uuid.uuid4()), [], threading.Lock()
        clients = [broker.client("authenticate")[0] for _ in range(8)]

        def acquire(stub):
            request = pb.AcquireLeaseRequest(name=name, duration=duration_pb2.Duration(seconds=30))
            result = status(lambda: got.append(stub.AcquireLease(request, timeout=ANSWER_S).id))
            with lock:
                results.append(result)

        results = []
        threads = [threading.Thread(target=acquire, args=(c,)) for c in clients]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(got) == 1 and sorted(r.name for r in results) == ["ALREADY_EXISTS"] * 7 + ["OK"]


def test_a_lease_ends_by_itself_and_by_its_holder(broker, pb, api):
    short = duration_pb2.Duration(nanos=300_000_000)
    long = duration_pb2.Duration(seconds=60)
    first = api.AcquireLease(pb.AcquireLeaseRequest(name="l", duration=short), timeout=ANSWER_S).id
    api.RenewLease(pb.RenewLeaseRequest(name="l", id=first, duration=short), timeout=ANSWER_S)
    assert status(lambda: api.RenewLease(pb.RenewLeaseRequest(name="l", id="other", duration=long), timeout=ANSWER_S)) == Code.ALREADY_EXISTS
    time.sleep(0.4)
    assert status(lambda: api.RenewLease(pb.RenewLeaseRequest(name="l", id=first, duration=long), timeout=ANSWER_S)) == Code.ALREADY_EXISTS
    second = api.AcquireLease(pb.AcquireLeaseRequest(name="l", duration=long), timeout=ANSWER_S).id
    api.ReleaseLease(pb.ReleaseLeaseRequest(name="l", id=first), timeout=ANSWER_S)
    assert status(lambda: api.AcquireLease(pb.AcquireLeaseRequest(name="l", duration=long), timeout=ANSWER_S)) == Code.ALREADY_EXISTS
    for _ in range(2):
        api.ReleaseLease(pb.ReleaseLeaseRequest(name="l", id=second), timeout=ANSWER_S)
    assert api.AcquireLease(pb.AcquireLeaseRequest(name="l", duration=long), timeout=ANSWER_S).id not in (first, second)
    for wrong in (duration_pb2.Duration(), duration_pb2.Duration(seconds=-1), None):
        assert status(lambda: api.AcquireLease(pb.AcquireLeaseRequest(name="m", duration=wrong), timeout=ANSWER_S)) == Code.INVALID_ARGUMENT


def test_options_are_kept_and_told(broker, pb, api):
    options = pb.Options(capacity=0, indexable_fields=["user_id"], ttl=duration_pb2.Duration(seconds=900))
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    follow = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=info.latest_record_version,
                                     type="with-options"), timeout=ANSWER_S)
    assert api.SetOptions(pb.SetOptionsRequest(type="with-options", options=options), timeout=ANSWER_S).options == options
    assert api.GetOptions(pb.GetOptionsRequest(type="with-options"), timeout=ANSWER_S).options == options
    told = next(follow)
    assert told.options.type_url == "with-options" and told.options.options == options
    follow.cancel()
    snapshot = list(api.SyncLatest(pb.SyncLatestRequest(type="with-options"), timeout=ANSWER_S))
    assert [m.WhichOneof("response") for m in snapshot] == ["options", "versions"]
    assert api.GetOptions(pb.GetOptionsRequest(type="without"), timeout=ANSWER_S).options == pb.Options()
    own = pb.SetOptionsRequest(type="postern.io/DataKey", options=pb.Options(capacity=1))  # would delete keys of what is sealed
    assert status(lambda: api.SetOptions(own, timeout=ANSWER_S)) == Code.PERMISSION_DENIED


# --- what else Pomerium's services ask for --------------------------------------------------------


def test_services_are_reported_listed_and_watched(broker, pb):
    made = messages("registry")["registry"]
    kinds, (channel, metadata) = made[0], broker.channel("config-writer")
    registry = made[1].RegistryStub(channel)

    def report(*services):
        request = kinds.RegisterRequest(services=[kinds.Service(kind=k, endpoint=e) for k, e in services])
        return registry.Report(request, metadata=metadata, timeout=ANSWER_S)

    def listed(*of):
        answer = registry.List(kinds.ListRequest(kinds=of), metadata=metadata, timeout=ANSWER_S)
        return {(s.kind, s.endpoint) for s in answer.services}

    first, second = (kinds.PROXY, "https://proxy.test"), (kinds.PROMETHEUS_METRICS, "http://10.0.0.1:9090/metrics")
    watch = registry.Watch(kinds.ListRequest(kinds=[kinds.PROXY]), metadata=metadata, timeout=60)
    assert not next(watch).services
    assert 0 < report(first, second).call_back_after.seconds <= 60
    assert [(s.kind, s.endpoint) for s in next(watch).services] == [first]
    assert listed(kinds.PROXY) == {first} and listed() == {first, second} and listed(kinds.CONSOLE) == set()
    report(first)  # again: nothing new
    third = (kinds.PROXY, "https://other.test")
    report(third)
    assert {(s.kind, s.endpoint) for s in next(watch).services} == {first, third}
    watch.cancel()
    for bad_one, code in (((), Code.INVALID_ARGUMENT), (((kinds.UNDEFINED_DO_NOT_USE, "x"),), Code.INVALID_ARGUMENT),
                          (((kinds.PROXY, ""),), Code.INVALID_ARGUMENT), (((kinds.PROXY, "a\nb"),), Code.INVALID_ARGUMENT),
                          (((kinds.PROXY, "x"),) * 65, Code.RESOURCE_EXHAUSTED)):
        assert status(lambda: report(*bad_one)) == code, bad_one


def test_a_checkpoint_is_where_the_server_is(broker, pb, api):
    channel, metadata = broker.channel("cli")
    put = api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S)
    answer = stubs()["rpc"].CheckpointServiceStub(channel).GetCheckpoint(pb.GetCheckpointRequest(), metadata=metadata,
                                                                        timeout=ANSWER_S)
    assert answer.is_leader and answer.checkpoint.server_version == put.server_version
    assert answer.checkpoint.record_version == put.records[0].version


# --- the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_options_survive_a_restart(pb, storage, request):
    target = None
    if storage == "postgres":  # a database that no other test uses
        target = request.getfixturevalue("postgres").target.replace("dbname=postern", "dbname=postgres user=postgres")
    b = Broker(storage=storage, target=target).start()
    options = pb.Options(capacity=12, indexable_fields=["user_id", "$index"], ttl=duration_pb2.Duration(seconds=90))
    b.client("cli")[0].SetOptions(pb.SetOptionsRequest(type="kept", options=options), timeout=ANSWER_S)
    assert b.stop() == 0
    api = b.start().client("cli")[0]
    assert api.GetOptions(pb.GetOptionsRequest(type="kept"), timeout=ANSWER_S).options == options
    assert b.stop() == 0


def test_clear_ends_every_follower_and_begins_anew(pb):
    b = Broker().start()
    api, _ = b.client("cli")
    api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S)
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    follow = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=0), timeout=ANSWER_S)
    next(follow)
    cleared = b.client("databroker")[0].Clear(empty_pb2.Empty(), timeout=ANSWER_S)
    assert cleared.old_server_version == info.server_version != cleared.new_server_version
    assert status(lambda: list(follow)) == Code.ABORTED
    assert api.Query(pb.QueryRequest(type=SESSION), timeout=ANSWER_S).total_count == 0
    assert b.stop() == 0


def test_a_second_databroker_or_a_newer_schema_is_refused(pb):
    b = Broker().start()
    env = {**os.environ, "HEALTH_CHECK_ADDR": f"unix:{b.folder}/health2.sock", "GRPC_ADDRESS": f"unix:{b.folder}/db2.sock"}
    second = subprocess.run([os.path.join(BIN, "postern-databroker"), "--config", b.config], capture_output=True, text=True,
                            timeout=20, cwd=b.folder, env=env)
    assert second.returncode == 1 and "in use by another databroker" in second.stderr
    assert b.stop() == 0
    assert os.stat(b.file).st_mode & 0o077 == 0
    db = sqlite3.connect(b.file)
    db.execute("UPDATE store SET schema = 99")
    db.commit()
    db.close()
    with pytest.raises(RuntimeError, match="start the newer version"):
        Broker(folder=b.folder).start()
    with open(b.file, "wb") as f:
        f.write(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(RuntimeError, match="databroker.sqlite|store"):
        Broker(folder=b.folder).start()


def test_memory_works_and_forgets(pb):
    b = Broker(storage="memory").start()
    api, _ = b.client("cli")
    first = api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S).server_version
    assert api.Query(pb.QueryRequest(type=SESSION), timeout=ANSWER_S).total_count == 1
    assert b.stop() == 0
    assert not os.path.exists(b.file)
    b.start()
    api, _ = b.client("cli")
    assert api.Query(pb.QueryRequest(type=SESSION), timeout=ANSWER_S).total_count == 0
    assert api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S).server_version != first
    assert b.stop() == 0


def test_stopping_tells_followers_and_ends(pb):
    b = Broker().start()
    api, _ = b.client("cli")
    info = api.ServerInfo(empty_pb2.Empty(), timeout=ANSWER_S)
    follow = api.Sync(pb.SyncRequest(server_version=info.server_version, record_version=0), timeout=30)
    wait_for("the follower", lambda: follow.is_active())
    time.sleep(0.2)
    assert b.stop() == 0
    assert status(lambda: list(follow)) in (Code.UNAVAILABLE, Code.CANCELLED)
