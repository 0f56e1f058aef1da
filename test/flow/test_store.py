"""The databroker's file: of an older schema, without a secret in it, its keys rotated, backed up and restored."""

import base64
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import uuid

import pytest
from broker import Broker, status, stubs
from google.protobuf import timestamp_pb2
from sanitize import ANSWER_S
from test_databroker import SESSION, Code, session
from trial import BIN, wait_for


def to_schema_1(file, records):
    """What a databroker of before left behind: rows that are not sealed and have no end."""
    db = sqlite3.connect(file)
    db.execute("DROP INDEX records_by_end")
    db.execute("ALTER TABLE records DROP COLUMN ends_us")
    db.execute("DELETE FROM records WHERE type = 'postern.io/DataKey'")
    for r in records:
        db.execute("UPDATE records SET data = ? WHERE id = ?", (r.data.value, r.id))
    db.execute("UPDATE store SET schema = 1")
    db.commit()
    db.close()


def test_an_older_file_is_brought_to_this_schema(pb):
    b = Broker().start()
    api, _ = b.client("cli")
    soon = int(time.time()) + 3600
    ends, stays = session(expires_at=timestamp_pb2.Timestamp(seconds=soon)), session()
    put = api.Put(pb.PutRequest(records=[ends, stays]), timeout=ANSWER_S)
    assert b.stop() == 0
    to_schema_1(b.file, [ends, stays])
    b.start()
    api, _ = b.client("cli")
    assert api.Get(pb.GetRequest(type=SESSION, id=ends.id), timeout=ANSWER_S).record == put.records[0]
    after = pb.SyncRequest(server_version=put.server_version, record_version=put.records[0].version)
    assert status(lambda: list(api.Sync(after, timeout=ANSWER_S))) == Code.ABORTED  # its log begins anew
    assert b.events("store.migrated")
    assert b.stop() == 0
    db = sqlite3.connect(b.file)
    found = dict(db.execute("SELECT id, ends_us FROM records WHERE type = ?", (SESSION,)))
    assert found == {ends.id: soon * 1000000, stays.id: 0}
    db.close()


def files_of(b):
    return b"".join(open(b.file + end, "rb").read() for end in ("", "-wal") if os.path.exists(b.file + end))


def cli(b, *args, **more):
    return subprocess.run([os.path.join(BIN, "postern"), *args, "--config", b.config], capture_output=True, text=True, timeout=60,
                          cwd=b.folder, env={**os.environ, "INSECURE_SERVER": "true"}, **more)


def test_files_hold_no_secret_and_keys_are_rotated_under_load(pb):
    b = Broker().start()
    api, _ = b.client("authenticate")
    token = "refresh-" + str(uuid.uuid4())
    oauth = stubs()["session"].OAuthToken(access_token=token, refresh_token=token)
    put = []
    stop = threading.Event()

    def write():
        while not stop.is_set():
            put.append(api.Put(pb.PutRequest(records=[session(oauth_token=oauth)]), timeout=ANSWER_S).records[0])

    threads = [threading.Thread(target=write) for _ in range(3)]
    [t.start() for t in threads]
    try:
        wait_for("some records", lambda: len(put) > 50)
        before = len(put)
        done = cli(b, "databroker", "rotate-keys", "--databroker", b.address)
        assert done.returncode == 0, done.stderr
        key = done.stdout.split("key ")[1].split(";")[0]
        wait_for("the records of before to be sealed anew", lambda: b.events("store.resealed"))
    finally:
        stop.set()
        [t.join() for t in threads]
    assert len(put) > before
    assert put[0].id.encode() in files_of(b) and token.encode() not in files_of(b)
    db = sqlite3.connect(b.file)
    used = {bytes(x[2:6]).hex() for (x,) in db.execute("SELECT data FROM records WHERE type = ?", (SESSION,))}
    db.close()
    assert used == {key}
    got = {r.id: r for r in api.Query(pb.QueryRequest(type=SESSION), timeout=ANSWER_S).records}
    assert all(got[r.id] == r for r in put if r.id in got) and len(got) == min(len(put), 1000)
    own = "postern.io/DataKey"
    assert all(m.record.type != own for m in b.client("cli")[0].SyncLatest(pb.SyncLatestRequest(), timeout=ANSWER_S))
    cli_api = b.client("cli")[0]
    assert status(lambda: cli_api.Query(pb.QueryRequest(type=own), timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    planted = pb.Record(type=own, id=key)
    planted.deleted_at.GetCurrentTime()
    assert status(lambda: cli_api.Put(pb.PutRequest(records=[planted]), timeout=ANSWER_S)) == Code.PERMISSION_DENIED
    assert b.stop() == 0
    b.start()
    api, _ = b.client("authenticate")
    assert api.Get(pb.GetRequest(type=SESSION, id=put[0].id), timeout=ANSWER_S).record == put[0]
    assert b.stop() == 0


def test_more_keys_than_there_may_be_are_refused_for_what_they_are():
    b = Broker().start()
    for _ in range(40):
        done = cli(b, "databroker", "rotate-keys", "--databroker", b.address)
        if done.returncode != 0:
            break
    assert "there are 32 data keys" in done.stderr
    assert b.is_ready() and b.stop() == 0


def test_a_moved_row_is_no_record_and_is_logged(pb):
    b = Broker().start()
    api, _ = b.client("cli")
    mine, other = session(user="admin"), session(user="somebody")
    api.Put(pb.PutRequest(records=[mine, other]), timeout=ANSWER_S)
    db = sqlite3.connect(b.file, timeout=10)
    db.execute("UPDATE records SET data = (SELECT data FROM records WHERE id = ?) WHERE id = ?", (mine.id, other.id))
    db.commit()
    db.close()
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=other.id), timeout=ANSWER_S)) == Code.NOT_FOUND
    seen = {m.record.id: m.record for m in api.SyncLatest(pb.SyncLatestRequest(type=SESSION), timeout=ANSWER_S)}
    assert seen[other.id].HasField("deleted_at") and not seen[mine.id].HasField("deleted_at")
    assert b.events("store.record-corrupt")[0]["id"] == other.id
    assert b.stop() == 0


def test_another_secret_is_a_sentence_and_an_encryption_key_takes_over(pb):
    def configure(*lines):
        with open(b.config) as f:
            kept = [x for x in f.read().splitlines() if "encryption" not in x and not x.startswith("shared_secret")]
        with open(b.config, "w") as f:
            f.write("\n".join([*kept, *lines]) + "\n")

    b = Broker().start()
    api, _ = b.client("cli")
    record = session()
    api.Put(pb.PutRequest(records=[record]), timeout=ANSWER_S)
    assert b.stop() == 0
    shared = base64.b64encode(b.secret).decode()
    key, later = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    configure(f"shared_secret: {key}")
    with pytest.raises(RuntimeError, match="does not open with the configured secret"):
        b.start()
    for lines in ([f"databroker_encryption_key: {key}"], [f"databroker_encryption_key: {key}"],
                  [f"databroker_encryption_key: {later}", f"databroker_encryption_key_previous: {key}"],
                  [f"databroker_encryption_key: {later}"]):
        configure(f"shared_secret: {shared}", *lines)
        b.start()
        api, _ = b.client("cli")
        assert api.Get(pb.GetRequest(type=SESSION, id=record.id), timeout=ANSWER_S).record.data == record.data
        assert b.stop() == 0
    configure(f"shared_secret: {shared}")
    with pytest.raises(RuntimeError, match="does not open with the configured secret"):
        b.start()


def test_a_backup_under_load_is_restored(pb):
    b = Broker().start()
    api, _ = b.client("authenticate")
    account = stubs()["user"].ServiceAccount(id="robot", user_id="robot/1")
    robot = pb.Record(type="type.googleapis.com/user.ServiceAccount", id="robot")
    robot.data.Pack(account)
    put = [api.Put(pb.PutRequest(records=[session(), robot]), timeout=ANSWER_S).records[0]]
    stop = threading.Event()

    def write():
        while not stop.is_set():
            put.append(api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S).records[0])

    threads = [threading.Thread(target=write) for _ in range(3)]
    [t.start() for t in threads]
    file = b.folder + "/backup"
    try:
        wait_for("some records", lambda: len(put) > 50)
        for _ in range(3):
            before = list(put)
            done = cli(b, "databroker", "backup", file)
            assert done.returncode == 0, done.stderr
    finally:
        stop.set()
        [t.join() for t in threads]
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert sorted(x for x in os.listdir(b.folder) if x.startswith("backup")) == ["backup"]
    assert len(put) > len(before)
    refused = cli(b, "databroker", "restore", file)
    assert refused.returncode == 1 and "stop it first" in refused.stderr
    late = session()
    version = api.Put(pb.PutRequest(records=[late]), timeout=ANSWER_S)
    assert b.stop() == 0
    with open(b.file, "r+b") as f:  # the disk of the store is gone bad
        f.seek(4096)
        f.write(b"\xff" * 40960)
    with pytest.raises(RuntimeError, match="restore it from a backup|store"):
        b.start()
    done = cli(b, "databroker", "restore", "--keep-sessions", file)
    assert done.returncode == 0, done.stderr
    b.start()
    api, _ = b.client("authenticate")
    for r in before:
        assert api.Get(pb.GetRequest(type=SESSION, id=r.id), timeout=ANSWER_S).record == r
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=late.id), timeout=ANSWER_S)) == Code.NOT_FOUND
    after = api.Put(pb.PutRequest(records=[late]), timeout=ANSWER_S)
    assert after.server_version != version.server_version
    assert after.records[0].version > version.records[0].version  # none is given twice
    follow = pb.SyncRequest(server_version=version.server_version, record_version=version.records[0].version)
    assert status(lambda: list(b.client("cli")[0].Sync(follow, timeout=ANSWER_S))) == Code.ABORTED
    assert b.stop() == 0
    # without the option nobody's session comes back: some were revoked since
    assert cli(b, "databroker", "restore", file).returncode == 0
    assert os.path.exists(b.file + ".before-restore") and os.stat(b.file).st_mode & 0o777 == 0o600
    b.start()
    api, _ = b.client("cli")
    assert api.Query(pb.QueryRequest(type=SESSION), timeout=ANSWER_S).total_count == 0
    assert api.Get(pb.GetRequest(type=robot.type, id="robot"), timeout=ANSWER_S).record.data == robot.data
    assert b.stop() == 0


def test_what_a_restore_put_aside_is_what_was_there(pb):
    """Also after an earlier one, which had put aside the log of a databroker that was killed."""
    b = Broker().start()
    file = b.folder + "/backup"
    assert cli(b, "databroker", "backup", file).returncode == 0
    for how in (signal.SIGKILL, signal.SIGTERM):
        late = session()
        b.client("cli")[0].Put(pb.PutRequest(records=[late]), timeout=ANSWER_S)
        b.stop(how)
        assert cli(b, "databroker", "restore", file).returncode == 0
        os.makedirs(b.folder + "/aside", exist_ok=True)
        for end in ("", "-wal"):
            if os.path.exists(b.file + ".before-restore" + end):
                shutil.copy(b.file + ".before-restore" + end, b.folder + "/aside/db" + end)
        db = sqlite3.connect(b.folder + "/aside/db")
        assert db.execute("SELECT count(*) FROM records WHERE id = ?", (late.id,)).fetchone() == (1,), how
        db.close()
        shutil.rmtree(b.folder + "/aside")
        b.start()
    assert b.stop() == 0


def test_what_is_no_backup_is_not_restored(pb):
    b = Broker().start()
    api, _ = b.client("cli")
    record = session()
    api.Put(pb.PutRequest(records=[record] + [session() for _ in range(200)]), timeout=ANSWER_S)
    file = b.folder + "/backup"
    assert cli(b, "databroker", "backup", file).returncode == 0
    assert b.stop() == 0
    with open(file, "rb") as f:
        whole = f.read()
    other = sqlite3.connect(b.folder + "/other")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with open(b.folder + "/other", "rb") as f:
        foreign = f.read()
    for bad in (b"", b"nothing of the kind" * 500, foreign, whole[:len(whole) // 2], whole[:8192] + b"\xff" * 8192 + whole[16384:]):
        with open(file, "wb") as f:
            f.write(bad)
        done = cli(b, "databroker", "restore", file)
        assert done.returncode == 1 and "nothing was restored" in done.stderr, done.stderr
        assert not os.path.exists(b.file + ".before-restore")
    assert cli(b, "databroker", "restore", b.folder + "/none").returncode == 1
    b.start()
    api, _ = b.client("cli")
    assert api.Get(pb.GetRequest(type=SESSION, id=record.id), timeout=ANSWER_S).record.data == record.data
    assert b.stop() == 0
