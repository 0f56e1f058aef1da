"""A databroker and an authorize with many people in them: what each costs, and what a check costs among them."""

import hashlib
import importlib
import os
import queue
import random
import subprocess
import sys
import tempfile
import time

import grpc
from broker import Identity
from trial import BIN, ROOT, wait_for

from bench.process import BenchError, System, run

SECRET = b"\x07" * 32
BATCH = 250
TURN = 8  # messages
RECORDS = 3  # a person's
MASK = (1 << 64) - 1
TOLD_S = 60  # AUTHZ_ACCESS_EVERY_MS
GATHERED_S = 6  # AUTHZ_ACCESS_GATHER_MS and a little
REST_S = 60
CONFIG = """insecure_server: true
shared_secret: {secret}
authenticate_service_url: https://authenticate.localhost
authorize_service_url: unix:{home}/authorize.sock
databroker_service_url: unix:{home}/databroker.sock
databroker_storage_type: sqlite
databroker_storage_connection_string: {home}/databroker.sqlite
routes:
  - from: https://bench.localhost
    id: bench
    to: http://127.0.0.1:1
    policy:
      - allow:
          or:
            - groups: {{has: admins}}
            - groups: {{has: staff}}
            - authenticated_user: true
"""


def mix(seed):
    seed = (seed + 0x9E3779B97F4A7C15) & MASK
    z = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return seed, z ^ z >> 31


def person_id(number):
    """As people.c makes it: 2 i is the user, 2 i + 1 the session of person i."""
    seed, a = mix(number << 20)
    _, b = mix(seed)
    return f"{a >> 32:08x}-{a >> 16 & 0xffff:04x}-4{a & 0xfff:03x}-8{b >> 52:03x}-{b & 0xffffffffffff:012x}"


def messages():
    out = tempfile.mkdtemp()
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/proto", f"--python_out={out}",
                    f"{ROOT}/proto/authorize.proto"], check=True)
    sys.path.insert(0, out)
    return importlib.import_module("authorize_pb2")


class Replica(System):
    """n people in a store, a databroker on it, an authorize that follows it. seconds: its start until it serves."""

    def __init__(self, lab, n):
        super().__init__(f"postern-{n}")
        self.n, self.home = n, tempfile.mkdtemp(prefix=f"people-{n}-", dir=lab.folder)
        self.identity = Identity(SECRET)
        secret = subprocess.run(["base64"], input=SECRET, capture_output=True, check=True).stdout.decode().strip()
        subprocess.run([os.path.join(BIN, "bench-people"), f"{self.home}/databroker.sqlite", str(n)], check=True,
                       env={**os.environ, "SHARED_SECRET": secret}, capture_output=True)
        with open(f"{self.home}/config.yaml", "w") as f:
            f.write(CONFIG.format(home=self.home, secret=secret))

    def start(self):
        broker = self.daemon("databroker")
        wait_for("the databroker", lambda: os.path.exists(f"{self.home}/databroker.sock"), 60, 0.02)
        began = time.monotonic()
        self.parts = {"authorize": self.daemon("authorize").pid}
        wait_for("authorize", self.serves, 300, 0.02)
        self.seconds = time.monotonic() - began
        with open(f"/proc/{broker.pid}/status") as f:
            self.broker_peak_kib = next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
        return self

    def daemon(self, name):
        log = open(f"{self.home}/{name}.log", "wb")
        env = {"GRPC_ADDRESS": f"unix:{self.home}/{name}.sock", "HEALTH_CHECK_ADDR": f"unix:{self.home}/{name}-health.sock"}
        return self.add(run([os.path.join(BIN, f"postern-{name}"), "--config", f"{self.home}/config.yaml"], env, log))

    def serves(self):
        list(self.pids())
        with open(f"{self.home}/authorize.log", "rb") as f:
            return b'"replica.fresh"' in f.read()

    def memory(self):
        """Bytes of authorize's own memory."""
        with open(f"/proc/{self.parts['authorize']}/smaps_rollup") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Pss:")) * 1024

    def rest(self):
        """Until the daemons have nothing to do: what earlier checks have left to be told is told."""
        used, calm = self.cpu_ns(), 0
        for _ in range(REST_S * 4):
            time.sleep(0.25)
            before, used = used, self.cpu_ns()
            calm = calm + 1 if used - before < 5e6 else 0
            if calm == 4:
                return
        raise BenchError(f"{self.name}: still busy {REST_S} s after the last check")


class Asking:
    """Checks of sessions of so many people, spread over all of a replica, on a stream of their own: the same ones
    again when all were asked. One message is on its way at a time, as a busy worker of the proxy sends them."""

    def __init__(self, replica, pb, count, among):
        self.replica, self.pb, self.among, self.runs, self.at = replica, pb, among, [], 0
        people = random.Random(among)
        route = int.from_bytes(hashlib.sha256(b"id\0bench\0").digest()[:8], "big")
        self.messages = [pb.CheckBatch(checks=[
            pb.CheckRequest(id=i, route=route, request_id=b"bench", session=person_id(
                2 * people.randrange(among) * (replica.n // among) + 1),
                            method=b"GET", host=b"bench.localhost", path=b"/", client_ip=b"\x7f\0\0\1")
            for i in range(BATCH)]).SerializeToString() for _ in range(count // BATCH)]
        self.channel = grpc.insecure_channel(f"unix:{replica.home}/authorize.sock")
        self.questions = queue.SimpleQueue()
        self.answers = self.channel.stream_stream("/postern.Authorize/CheckStream")(
            iter(self.questions.get, None), metadata=replica.identity.proof("proxy", "authorize"), timeout=600)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.questions.put(None)
        self.channel.close()

    def ask(self):
        """The next message; all of it must be allowed."""
        self.questions.put(self.messages[self.at])
        self.at = (self.at + 1) % len(self.messages)
        got = 0
        while got < BATCH:
            for item in self.pb.ReplyBatch.FromString(next(self.answers)).items:
                if item.HasField("reply"):
                    got += 1
                    if item.reply.decision != self.pb.ALLOW:
                        raise BenchError(f"{self.replica.name}: a check was refused")

    def ask_all(self):
        for _ in self.messages:
            self.ask()

    def measure(self):
        begun = self.replica.part_ns()["authorize"]
        for _ in range(TURN):
            self.ask()
        self.runs.append((self.replica.part_ns()["authorize"] - begun) / 1000 / TURN / BATCH)


def take_turns(askings, turns):
    """Each takes a short turn, every other time backwards: their runs become CPU us of authorize for one check in each
    turn. That somebody was seen is noted and told once a minute, and is no part of a check: before a minute is over
    everybody is asked beside the measurement, and what follows of that is waited for."""
    until = 0
    for i in range(turns):
        if time.monotonic() > until:
            until = time.monotonic() + TOLD_S * 2 / 3
            for asking in askings:
                asking.ask_all()
            time.sleep(GATHERED_S)
            for replica in {asking.replica for asking in askings}:
                replica.rest()
        for asking in askings if i % 2 == 0 else reversed(askings):
            asking.measure()
