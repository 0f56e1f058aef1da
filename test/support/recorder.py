"""Clients that write down what they asked and what they were told, for the judge in history/. A program of its own, because a
process lives in one network namespace.

recorder.py client SETTINGS    puts, gets and deletes records, takes leases, makes sessions and revokes them
recorder.py visitor SETTINGS   goes through a proxy with those sessions

A client says "ID WHEN COOKIE" in a line for a session that it will revoke then, and "ID" when that is acknowledged. Visitors, and
the other clients, read the lines of all clients: some of those revoke at the same time.

SETTINGS is a file of JSON, see sites.py. Both end when their standard input does. Times are CLOCK_MONOTONIC,
which all processes of a machine share.
"""

import base64
import http.client
import json
import os
import queue
import random
import struct
import sys
import threading
import time
import uuid

COOKIE = "__Host-_pomerium"
HOST = "app.history.test"
REGISTER = "type.googleapis.com/google.protobuf.StringValue"
SESSION = "type.googleapis.com/session.Session"
EPOCH_S = 4  # then other records and leases: what has to be judged at once stays small
KEYS, LEASES = 4, 2
REGISTER_THREADS, LEASE_THREADS, SESSION_THREADS = 3, 2, 2
HOT_S = 0.1  # a session is visited most around the time when it is revoked
RIVALS = 0.3  # of the others' sessions, how many a client revokes, too


class Recorder:
    def __init__(self, settings):
        self.settings = settings
        self.name, self.through = settings["name"], settings["through"]
        self.file = open(settings["file"], "w", encoding="ascii")
        self.lock = threading.Lock()
        self.stopping, self.failed = threading.Event(), False

    def write(self, **record):
        with self.lock:
            self.file.write(json.dumps(record) + "\n")

    def say(self, *words):
        with self.lock:
            sys.stdout.write(" ".join(map(str, words)) + "\n")
            sys.stdout.flush()

    def thread(self, run):
        def guarded():
            try:
                while not self.stopping.is_set():
                    run()
            except BaseException:
                self.failed = True
                self.stopping.set()
                raise
        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def serve(self, threads, on_line):
        try:
            for line in sys.stdin:
                on_line(line)
        finally:
            self.stopping.set()
        for thread in threads:
            thread.join()
        self.file.close()
        return 1 if self.failed else 0


# --- the databroker's clients ----------------------------------------------------------------------

class Client(Recorder):
    def __init__(self, settings):
        super().__init__(settings)
        sys.path[:0] = settings["stubs"]
        import databroker_pb2
        import databroker_pb2_grpc
        import grpc
        import session_pb2
        import session_service_pb2
        import session_service_pb2_grpc
        from broker import Identity
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        self.pb, self.session_pb, self.service_pb, self.grpc = databroker_pb2, session_pb2, session_service_pb2, grpc
        self.stubs = databroker_pb2_grpc.DataBrokerServiceStub, session_service_pb2_grpc.SessionServiceStub
        self.identity = Identity(base64.b64decode(settings["secret"]))
        self.credentials = self.identity.credentials("cli")
        self.seal = AESGCM(self.identity.derive("postern session handle 1", 32))
        self.begin = settings["begin"]
        self.rivalled, self.random = queue.SimpleQueue(), random.Random(f"{settings['seed']} {self.name}")

    def run(self):
        makers = [(Registers, REGISTER_THREADS), (Leases, LEASE_THREADS), (Sessions, SESSION_THREADS), (Rivals, 1)]
        threads = [self.thread(maker(self, f"{self.name}-{maker.__name__}-{i}").step) for maker, n in makers for i in range(n)]
        return self.serve(threads, self.on_line)

    def on_line(self, line):
        session, *more = line.split()
        if more and self.random.random() < RIVALS:
            self.rivalled.put((session, float(more[0])))

    def epoch(self):
        return int((time.monotonic_ns() - self.begin) / 1e9 / EPOCH_S)


class Caller:
    """One thread with a connection of its own."""

    def __init__(self, owner, name):
        self.owner, self.name, self.pb = owner, name, owner.pb
        self.random = random.Random(f"{owner.settings['seed']} {name}")
        channel = owner.grpc.secure_channel(owner.settings["address"], owner.credentials, [
            ("grpc.ssl_target_name_override", "databroker.postern.internal"), ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000), ("grpc.max_reconnect_backoff_ms", 500)])
        self.api, self.sessions = (stub(channel) for stub in owner.stubs)

    def call(self, method, request, refused=None):
        """(answer or None, what to write down): unknown is whatever may have happened or not."""
        code = self.owner.grpc.StatusCode
        timeout = self.random.choice((0.3, 1, 3)) * self.owner.settings["patience"]
        answer, begin = None, time.monotonic_ns()
        try:
            # wait_for_ready: who is refused at once does not stay in gRPC for long enough to finish a handshake.
            answer, outcome = method(request, timeout=timeout, wait_for_ready=True), "ok"
        except self.owner.grpc.RpcError as e:
            if refused is not None and e.code() == refused[0]:
                outcome = refused[1]
            elif e.code() in (code.UNAVAILABLE, code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED, code.ABORTED):
                outcome = "unknown"
            else:
                raise
        return answer, {"client": self.name, "through": self.owner.through, "call": begin, "return": time.monotonic_ns(),
                        "outcome": outcome}

    def pause(self, most_s):
        self.owner.stopping.wait(self.random.random() * most_s)


class Registers(Caller):
    """Records that all threads of all clients write and read. Who got no answer leaves the record alone until the next ones:
    what may have happened at any time must not pile up."""

    def __init__(self, owner, name):
        super().__init__(owner, name)
        self.now, self.left, self.count = -1, [], 0

    def step(self):
        epoch = self.owner.epoch()
        if epoch != self.now:
            self.now, self.left = epoch, list(range(KEYS))
        if not self.left:
            self.pause(0.1)
            return
        number = self.random.choice(self.left)
        key = f"{epoch}-{number}"
        what = self.random.choices((self.get, self.put, self.delete), (50, 42, 8))[0]
        if what(key)["outcome"] == "unknown":
            self.left.remove(number)
            self.pause(0.5)
        self.pause(0.03)

    def get(self, key):
        absent = (self.owner.grpc.StatusCode.NOT_FOUND, "absent")
        answer, told = self.call(self.api.Get, self.pb.GetRequest(type=REGISTER, id=key), absent)
        if answer is not None:
            told.update(value=self.value(answer.record), version=answer.record.version)
        self.owner.write(kind="get", key=key, **told)
        return told

    @staticmethod
    def value(record):
        from google.protobuf import wrappers_pb2
        value = wrappers_pb2.StringValue()
        if not record.data.Unpack(value):
            raise ValueError(f"not what was put: {record}")
        return value.value

    def put(self, key):
        from google.protobuf import wrappers_pb2
        self.count += 1
        value = f"{self.name}-{self.count}"
        record = self.pb.Record(type=REGISTER, id=key)
        record.data.Pack(wrappers_pb2.StringValue(value=value))
        return self.change("put", record, value=value)

    def delete(self, key):
        record = self.pb.Record(type=REGISTER, id=key)
        record.deleted_at.GetCurrentTime()
        return self.change("delete", record)

    def change(self, kind, record, **more):
        answer, told = self.call(self.api.Put, self.pb.PutRequest(records=[record]))
        if answer is not None:
            told["version"] = answer.records[0].version
        self.owner.write(kind=kind, key=record.id, **more, **told)
        return told


class Leases(Caller):
    """Takes a name that many want, keeps it for a while, gives it back or lets it end."""

    def __init__(self, owner, name):
        super().__init__(owner, name)
        self.now, self.left, self.held = -1, [], None

    def step(self):
        epoch = self.owner.epoch()
        if epoch != self.now:
            self.now, self.left, self.held = epoch, list(range(LEASES)), None
        if not self.left:
            self.pause(0.1)
            return
        outcome = self.keep(*self.held) if self.held else self.acquire(self.random.choice(self.left))
        if outcome == "unknown":
            self.left, self.held = [], None
            self.pause(0.5)
        self.pause(0.15)

    def ask(self, kind, number, method, request_type, lease=None, timed=True):
        from google.protobuf import duration_pb2
        refused = (self.owner.grpc.StatusCode.ALREADY_EXISTS, "refused") if timed else None
        length = self.random.randrange(200, 1500) * 1_000_000 if timed else 0
        more = {"duration": duration_pb2.Duration(nanos=length % 1_000_000_000, seconds=length // 1_000_000_000)} if timed else {}
        key = f"{self.now}-{number}"
        answer, told = self.call(method, request_type(name=key, **more, **({"id": lease} if lease else {})), refused)
        lease = lease or (answer.id if answer is not None else "")
        self.owner.write(kind=kind, key=key, lease=lease, length=length, **told)
        return lease, told["outcome"]

    def acquire(self, number):
        lease, outcome = self.ask("acquire", number, self.api.AcquireLease, self.pb.AcquireLeaseRequest)
        if outcome == "ok":
            self.held = number, lease
        return outcome

    def keep(self, number, lease):
        chance = self.random.random()
        if chance < 0.55:
            outcome = self.ask("renew", number, self.api.RenewLease, self.pb.RenewLeaseRequest, lease)[1]
            if outcome == "refused":
                self.held = None
            return outcome
        self.held = None
        if chance < 0.8:  # else it ends by itself
            return self.ask("release", number, self.api.ReleaseLease, self.pb.ReleaseLeaseRequest, lease, timed=False)[1]
        return "ok"


class Revokers(Caller):
    def revoke(self, session, when):
        """At that time, and until it is acknowledged."""
        self.owner.stopping.wait(max(0.0, when - time.monotonic()))
        while not self.owner.stopping.is_set() and not self.ask(session):
            self.pause(0.5)

    def ask(self, session):
        if self.random.random() < 0.5:
            record = self.pb.Record(type=SESSION, id=session)
            record.deleted_at.GetCurrentTime()
            _, told = self.call(self.api.Put, self.pb.PutRequest(records=[record]))
        else:
            pb = self.owner.service_pb
            _, told = self.call(self.sessions.Revoke, pb.RevokeSessionsRequest(filter=pb.SessionFilter(session_id=session)))
        self.owner.write(kind="revoke", key=session, **told)
        return told["outcome"] == "ok"


class Rivals(Revokers):
    """Revokes what others have made, when they do."""

    def step(self):
        try:
            self.revoke(*self.owner.rivalled.get(timeout=0.1))
        except queue.Empty:
            pass


class Sessions(Revokers):
    """Makes a session, tells everybody, and revokes it a moment later."""

    def step(self):
        session = self.owner.session_pb.Session(id=str(uuid.uuid4()), user_id="somebody")
        session.issued_at.GetCurrentTime()
        session.expires_at.FromSeconds(int(time.time()) + 3600)
        record = self.pb.Record(type=SESSION, id=session.id)
        record.data.Pack(session)
        answer, told = self.call(self.api.Put, self.pb.PutRequest(records=[record]))
        if told["outcome"] != "ok":
            self.pause(0.5)
            return
        when = time.monotonic() + 0.2 + self.random.random() * 0.8
        self.owner.say(session.id, when, self.cookie(session.id, answer.records[0].version))
        self.revoke(session.id, when)
        self.owner.say(session.id)

    def cookie(self, session, version):
        """What the browser holds (common/crypto/handle.h, seal.h)."""
        plain = struct.pack(">QQB", version, int(time.time()), len(session)) + session.encode()
        head, nonce = bytes([1, self.owner.identity.id]), os.urandom(12)
        wire = head + nonce + self.owner.seal.encrypt(nonce, plain, head + HOST.encode())
        return base64.urlsafe_b64encode(wire).decode().rstrip("=")


# --- the proxies' visitors -------------------------------------------------------------------------

class Visitor(Recorder):
    OUTCOME = {200: "allow", 401: "deny", 503: "unknown", 504: "unknown"}

    def __init__(self, settings):
        super().__init__(settings)
        self.known = {}  # session → (cookie, when it is revoked, how long it is tried)

    def run(self):
        visits = [Visits(self, lambda when, now: True), Visits(self, lambda when, now: when - HOT_S < now < when + HOT_S)]
        return self.serve([self.thread(v.step) for v in visits], self.on_line)

    def on_line(self, line):
        session, *more = line.split()
        now = time.monotonic()
        known = {k: v for k, v in self.known.items() if v[2] > now}
        if more:
            known[session] = more[1], float(more[0]), now + 60
        elif session in known:
            known[session] = *known[session][:2], now + self.settings["life"]
        self.known = known


class Visits:
    """One thread goes round all sessions, one those that are being revoked."""

    def __init__(self, owner, wanted):
        self.owner, self.wanted, self.connection = owner, wanted, None

    def step(self):
        self.owner.stopping.wait(0.01)
        for session, (cookie, when, until) in self.owner.known.items():
            now = time.monotonic()
            if now < until and self.wanted(when, now) and not self.owner.stopping.is_set():
                begin = time.monotonic_ns()
                outcome = self.visit(cookie)
                self.owner.write(kind="visit", key=session, client=self.owner.name, through=self.owner.through, call=begin,
                                 outcome=outcome, **{"return": time.monotonic_ns()})
                self.owner.stopping.wait(0.005)

    def visit(self, cookie):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.owner.settings["port"], timeout=20)
            self.connection.request("GET", "/", headers={"Host": HOST, "Cookie": f"{COOKIE}={cookie}", "Accept": "text/plain"})
            answer = self.connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            return "unknown"
        return Visitor.OUTCOME[answer.status]


def main():
    with open(sys.argv[2], encoding="ascii") as f:
        settings = json.load(f)
    return {"client": Client, "visitor": Visitor}[sys.argv[1]](settings).run()


if __name__ == "__main__":
    sys.exit(main())
