"""The databroker's disk, process and clock fail: nothing acknowledged is lost, readiness tells it, service comes back by itself.

`make proof` (POSTERN_PROOF=full) runs the long form: a thousand kills, thousands of power losses.
"""

import errno

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import grpc
import pytest
from broker import Broker, status, stubs
from disk import PRELOAD, Disk, Recording, crash_folder
from google.protobuf import duration_pb2
from sanitize import ANSWER_S, PATIENCE, SAN
from test_databroker import SESSION, Code, session
from trial import freeze, wait_for

FULL = os.environ.get("POSTERN_PROOF") == "full"
TRUTH_S = 5 * PATIENCE  # readiness may lag behind the truth for so long
LONG_S = 300 if FULL else 20  # in an hour a busy machine may stand still for minutes
unsanitized = pytest.mark.skipif(SAN != "", reason="a sanitizer wants to be preloaded first")


class Book:
    """What was tried and what was acknowledged of each session, and whether a store agrees."""

    def __init__(self):
        self.known, self.trying, self.acknowledged = {}, {}, 0  # id: (version, deleted); id: deleted

    def note(self, what, id, *more):
        if what == "try":
            self.trying[id] = more[0]
        elif what == "ack":
            self.known[id] = tuple(more)
            del self.trying[id]
            self.acknowledged += 1

    def check(self, stored):
        """stored: {id: version}. What was under way may have happened or not."""
        for id, (version, deleted) in list(self.known.items()):
            if id not in stored:
                assert deleted or self.trying.get(id) is True, f"{id}: version {version} is lost"
            else:
                assert not deleted, f"{id}: its deletion {version} is lost"
                assert stored[id] == version or stored[id] > version and id in self.trying, f"{id}: {version} became {stored[id]}"


class Load:
    """Threads that put, overwrite and delete sessions of their own until the databroker fails or they are stopped."""

    def __init__(self, broker, book, threads=6, note=None, role="cli", padding=""):
        self.broker, self.book, self.padding = broker, book, padding
        self.notes, self.lock, self.stopping = note or (lambda *what: None), threading.Lock(), False
        self.errors = []
        self.api = broker.client(role)[0]
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def note(self, *what):
        with self.lock:
            self.notes(*what)
            self.book.note(*what)

    def run(self):
        own, dice, request = [], random.Random(), stubs()["databroker"].PutRequest
        while not self.stopping:
            record = own.pop(dice.randrange(len(own))) if own and dice.random() < 0.4 else session(self.padding or "u")
            delete = bool(record.version) and dice.random() < 0.5
            if delete:
                record.deleted_at.GetCurrentTime()
            self.note("try", record.id, delete)
            try:
                put = self.api.Put(request(records=[record]), timeout=ANSWER_S).records[0]
            except grpc.RpcError as e:
                self.errors.append(e)
                if e.code() not in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED):
                    raise
                if self.broker.process.poll() is not None or self.broker.process is None:
                    return
                time.sleep(0.02)
                continue
            self.note("ack", record.id, put.version, delete)
            if not delete:
                record.version = put.version
                own.append(record)

    def stop(self):
        self.stopping = True
        for t in self.threads:
            t.join(ANSWER_S)


def stored_in(file):
    """{id: version} of the sessions, from a file that must be whole."""
    db = sqlite3.connect(file)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = dict(db.execute("SELECT id, version FROM records WHERE type = ?", (SESSION,)))
    db.close()
    return found


def stored_by(broker, pb):
    stream = broker.client("cli")[0].SyncLatest(pb.SyncLatestRequest(type=SESSION), timeout=ANSWER_S)
    found = {}
    for m in stream:
        if m.WhichOneof("response") == "record":
            found.pop(m.record.id, None) if m.record.HasField("deleted_at") else found.update({m.record.id: m.record.version})
    return found


def test_killed_in_the_middle_nothing_acknowledged_is_lost(pb):
    b, book, dice = Broker().start(), Book(), random.Random()
    hour = duration_pb2.Duration(seconds=3600)
    b.client("cli")[0].AcquireLease(pb.AcquireLeaseRequest(name="kept", duration=hour), timeout=ANSWER_S)
    version = 0
    kills = 1000 if FULL else 6
    try:
        for number in range(kills):
            before = book.acknowledged
            load = Load(b, book)
            wait_for("some writes", lambda: book.acknowledged > before + 20, LONG_S, 0.01)
            time.sleep(dice.random() * 0.05)
            b.process.kill()
            b.process.wait()
            load.stop()
            stored = stored_in(b.file)
            book.check(stored)
            assert len(set(stored.values())) == len(stored)
            b.start(seconds=LONG_S)
            newest = max(v for v, _ in book.known.values())
            assert newest > version
            version = newest
            if number % 50 == 0 or number == kills - 1:
                book.check(stored_by(b, pb))
        again = pb.AcquireLeaseRequest(name="kept", duration=hour)
        assert status(lambda: b.client("cli")[0].AcquireLease(again, timeout=ANSWER_S)) == Code.ALREADY_EXISTS
        print(f"{kills} kills, {book.acknowledged} acknowledged writes, none lost")
    finally:
        b.stop(signal.SIGKILL)


# --- power losses ---------------------------------------------------------------------------------


def check_crashes(disk, secret, pb, count, seeds, opened_every):
    """Power losses at random moments of what the disk noted. Each leaves a whole store with what was acknowledged."""
    recording, checked = Recording(disk.log), 0
    for seed in range(seeds):
        book = Book()
        for number, files in enumerate(recording.crashes(count, seed, lambda note: book.note(*note))):
            folder = crash_folder(files)
            if not book.acknowledged and not files.get("databroker.sqlite"):
                shutil.rmtree(folder)
                continue
            try:
                if number % opened_every == opened_every - 1:
                    b = Broker(folder=folder, secret=secret).start()
                    book.check(stored_by(b, pb))
                    b.stop()
                if book.acknowledged:
                    book.check(stored_in(folder + "/databroker.sqlite"))
            except AssertionError as e:
                raise AssertionError(f"seed {seed}, power loss {number}, {folder}: {e}") from e
            checked += 1
            shutil.rmtree(folder)
    return checked


@pytest.fixture
def on_disk(tmp_path):
    """A databroker whose file is on a disk that does as it is told."""
    made = []

    def make(record=False):
        folder = str(tmp_path / "disk")
        os.mkdir(folder)
        disk = Disk(folder, record)
        b = Broker(file=folder + "/databroker.sqlite")
        b.env = disk.env
        made.append(b.start())
        return b, disk
    yield make
    for b in made:
        if b.process is not None and b.process.poll() is None:
            b.stop(signal.SIGKILL)


@unsanitized
def test_a_power_loss_at_any_moment_loses_nothing_acknowledged(pb, on_disk):
    b, disk = on_disk(record=True)
    disk.slow("syncs", 3)  # an acknowledgement that did not wait for its sync is noted before it
    book = Book()
    load = Load(b, book, note=disk.note, padding="x" * 6000)
    wait_for("writes enough", lambda: book.acknowledged > (3000 if FULL else 250), 60 * PATIENCE)
    load.stop()
    assert not load.errors
    assert b.stop() == 0
    checked = check_crashes(disk, b.secret, pb, *((400, 8, 50) if FULL else (30, 2, 30)))
    print(f"{checked} power losses, {book.acknowledged} acknowledged writes, none lost")
    assert checked > 30


@unsanitized
def test_a_power_loss_after_syncs_that_failed_loses_nothing_acknowledged(pb, on_disk):
    """A sync that failed once may succeed next time without what it lost. A reader keeps checkpoints from being whole."""
    b, disk = on_disk(record=True)
    book, dice, failed = Book(), random.Random(1), 0
    load = Load(b, book, note=disk.note, padding="x" * 20000)
    for number in range(40 if FULL else 2):
        reader = sqlite3.connect(b.file, isolation_level=None)  # while somebody has it open, nothing is settled
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        goal = book.acknowledged + 120
        wait_for("writes beside a reader", lambda: book.acknowledged > goal, 60 * PATIENCE, 0.01)
        reader.execute("ROLLBACK")
        reader.close()
        disk.fail("syncs", errno.EIO, dice.choice((1, 2)), ("-wal", ".sqlite")[number % 2])
        goal = book.acknowledged + 120
        wait_for("writes after a sync that failed", lambda: disk.met("syncs") and book.acknowledged > goal, 60 * PATIENCE, 0.01)
        failed += disk.met("syncs")
        disk.heal()
    load.stop()
    assert b.stop() == 0
    checked = check_crashes(disk, b.secret, pb, *((400, 8, 50) if FULL else (30, 2, 30)))
    print(f"{failed} syncs failed, {checked} power losses, {book.acknowledged} acknowledged writes, none lost")


# --- a disk that fails ----------------------------------------------------------------------------


def puts(api, pb, record=None):
    return status(lambda: api.Put(pb.PutRequest(records=[record or session()]), timeout=ANSWER_S))


def not_ready(b):
    return wait_for("readiness to tell it", b.why, TRUTH_S)


def works_again(b, api, pb):
    wait_for("readiness", b.is_ready, TRUTH_S)
    assert puts(api, pb) == Code.OK


@unsanitized
@pytest.mark.parametrize("what, error, only", (
    ("syncs", errno.EIO, "-wal"), ("syncs", errno.EIO, ".sqlite"), ("writes", errno.ENOSPC, "-wal"), ("writes", errno.ENOSPC, ".sqlite"),
    ("writes", errno.EIO, "-wal"), ("writes", errno.EIO, ".sqlite"), ("writes", errno.EROFS, "-wal"), ("writes", errno.EROFS, ".sqlite"),
)[:None if FULL else 2])
def test_a_disk_that_cannot_be_written_is_said_and_heals_by_itself(pb, on_disk, what, error, only):
    b, disk = on_disk()
    api, _ = b.client("cli")
    kept, pid = session(), b.process.pid
    put = api.Put(pb.PutRequest(records=[kept]), timeout=ANSWER_S)
    version = pb.SyncRequest(server_version=put.server_version, record_version=put.records[0].version)
    follow = api.Sync(version, timeout=ANSWER_S)
    book = Book()
    disk.fail(what, error, only=only)
    load = Load(b, book, padding="x" * 20000)  # the file itself is written by checkpoints only
    reason = wait_for("readiness to tell it", b.why, TRUTH_S if only == "-wal" else ANSWER_S)
    assert ("store-full" if error == errno.ENOSPC else "store-failed") in reason
    if error != errno.ENOSPC:
        assert puts(api, pb) == Code.UNAVAILABLE
    elif only == "-wal":
        assert puts(api, pb) == Code.RESOURCE_EXHAUSTED
    else:
        assert puts(api, pb) == Code.OK  # the log still has room
    wait_for("a read", lambda: status(lambda: api.Get(pb.GetRequest(type=SESSION, id=kept.id), timeout=ANSWER_S)) == Code.OK)
    disk.heal()
    works_again(b, api, pb)
    load.stop()
    book.check(stored_by(b, pb))
    assert next(follow).record.version == version.record_version + 1
    follow.cancel()
    assert b.process.pid == pid and b.stop() == 0
    book.check(stored_in(b.file))


@unsanitized
def test_a_disk_that_cannot_be_read_is_said_and_heals_by_itself(pb, on_disk):
    b, disk = on_disk()
    api, _ = b.client("cli")
    kept = session()
    assert puts(api, pb, kept) == Code.OK
    disk.fail("reads", errno.EIO)
    assert "store-failed" in not_ready(b)
    disk.heal()
    works_again(b, api, pb)
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=kept.id), timeout=ANSWER_S)) == Code.OK
    assert b.stop() == 0


@unsanitized
def test_no_start_on_a_disk_that_fails_but_a_sentence(pb, on_disk):
    b, disk = on_disk()
    assert puts(b.client("cli")[0], pb) == Code.OK
    b.stop(signal.SIGKILL)
    disk.fail("reads", errno.EIO)
    with pytest.raises(RuntimeError, match="databroker.sqlite|store"):
        b.start()
    disk.heal()
    disk.fail("writes", errno.ENOSPC)  # it starts, is not ready and says why
    with pytest.raises(AssertionError):
        b.start(seconds=3)
    assert "store-full" in b.why()
    disk.heal()
    works_again(b, b.client("cli")[0], pb)
    assert b.stop() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A databroker on a disk of 16 MB, which only it sees."""
    folder = str(tmp_path / "disk")
    os.mkdir(folder)
    b = Broker(file=folder + "/databroker.sqlite")
    mount = f"mount -t tmpfs -o size=16m,mode=0700 none {folder} && exec \"$@\""
    b.wrap = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", mount, "sh"]
    if subprocess.run([*b.wrap, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace to be had here")
    b.start()
    yield b, f"/proc/{b.process.pid}/root{folder}/ballast"
    if b.process.poll() is None:
        b.stop(signal.SIGKILL)


def test_a_full_disk_refuses_writes_and_goes_on_when_there_is_room(pb, small_disk):
    b, ballast = small_disk
    api, _ = b.client("cli")
    kept, pid, book = session(), b.process.pid, Book()
    put = api.Put(pb.PutRequest(records=[kept]), timeout=ANSWER_S)
    follow = api.Sync(pb.SyncRequest(server_version=put.server_version, record_version=put.records[0].version), timeout=60 * PATIENCE)
    for _ in range(5 if FULL else 1):
        before = book.acknowledged
        free = os.statvfs(os.path.dirname(ballast))
        with open(ballast, "wb") as f:
            f.write(bytes(free.f_bavail * free.f_frsize - 1000000))
        load = Load(b, book, padding="x" * 20000)
        wait_for("the disk to be full", lambda: load.errors, 60 * PATIENCE)
        assert "store-full" in not_ready(b)
        load.stop()
        assert {e.code() for e in load.errors} == {Code.RESOURCE_EXHAUSTED} and "full" in load.errors[0].details()
        assert book.acknowledged > before
        assert api.Get(pb.GetRequest(type=SESSION, id=kept.id), timeout=ANSWER_S).record.id == kept.id
        os.unlink(ballast)
        works_again(b, api, pb)
        book.check(stored_by(b, pb))
    assert next(follow).record.version == put.records[0].version + 1  # all the time it was followed
    follow.cancel()
    assert b.process.pid == pid and b.stop() == 0


@pytest.mark.parametrize("end", ("", "-wal", "-shm")[:None if FULL else 1])
def test_nothing_is_acknowledged_to_a_file_that_was_moved_away(pb, end, tmp_path):
    b = Broker().start()
    api, _ = b.client("cli")
    kept = session()
    assert puts(api, pb, kept) == Code.OK
    os.rename(b.file + end, tmp_path / "away")
    assert puts(api, pb) == Code.UNAVAILABLE
    not_ready(b)
    assert "restore a backup" in b.events("store.file-gone")[0]["hint"]
    assert status(lambda: api.Get(pb.GetRequest(type=SESSION, id=kept.id), timeout=ANSWER_S)) == Code.OK
    os.rename(tmp_path / "away", b.file + end)
    works_again(b, api, pb)
    assert b.stop() == 0


def test_a_databroker_that_stands_still_goes_on_where_it_was(pb):
    b, book = Broker().start(), Book()
    hour = duration_pb2.Duration(seconds=3600)
    lease = b.client("cli")[0].AcquireLease(pb.AcquireLeaseRequest(name="mine", duration=hour), timeout=ANSWER_S)
    load = Load(b, book)
    for _ in range(10 if FULL else 1):
        before = book.acknowledged
        wait_for("some writes", lambda: book.acknowledged > before + 20)
        freeze(b.process)
        with pytest.raises((OSError, AssertionError)):
            wait_for("no answer from what stands still", b.is_ready, 0.5)
        b.process.send_signal(signal.SIGCONT)
        wait_for("readiness", b.is_ready, TRUTH_S)
    load.stop()
    renew = pb.RenewLeaseRequest(name="mine", id=lease.id, duration=hour)
    assert status(lambda: b.client("cli")[0].RenewLease(renew, timeout=ANSWER_S)) == Code.OK
    assert b.stop() == 0
    book.check(stored_in(b.file))


# --- clocks ---------------------------------------------------------------------------------------

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


@unsanitized
@pytest.mark.skipif(not os.path.exists(FAKETIME), reason="libfaketime is not there")
def test_a_clock_that_jumps_by_a_day_ends_no_lease_and_loses_no_write(pb, tmp_path):
    """What a jump does to expiry waits for the sweep of a minute: sweep_test.c. Only the wall clock is another one."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    b, book = Broker(), Book()
    b.env = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
             "FAKETIME_FORCE_MONOTONIC_FIX": "0"}  # else a wait by the monotonic clock ends at once or a day late after a jump
    b.start()
    api, _ = b.client("cli")
    short = duration_pb2.Duration(seconds=60)
    mine = api.AcquireLease(pb.AcquireLeaseRequest(name="mine", duration=short), timeout=ANSWER_S)
    load = Load(b, book)
    at = None
    for shift in ("+1d", "-1d", "+0"):
        before = book.acknowledged
        wait_for("some writes", lambda: book.acknowledged > before + 20)
        clock.write_text(shift + "\n")
        put = api.Put(pb.PutRequest(records=[session()]), timeout=ANSWER_S).records[0]
        assert at is None or put.modified_at.seconds - at < -40000  # it did jump: forth, two days back
        at = put.modified_at.seconds if shift == "+1d" else None
        assert status(lambda: api.AcquireLease(pb.AcquireLeaseRequest(name="mine", duration=short), timeout=ANSWER_S)) == Code.ALREADY_EXISTS
        api.RenewLease(pb.RenewLeaseRequest(name="mine", id=mine.id, duration=short), timeout=ANSWER_S)
        wait_for("readiness", b.is_ready, TRUTH_S)
    load.stop()
    assert not load.errors
    book.check(stored_by(b, pb))
    assert b.stop() == 0
    assert b.events("databroker.clock-jumped")
