"""A databroker and an authorize with many people in them: what each costs, and what a check costs among them."""

import hashlib
import importlib
import os
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
RECORDS = 3  # a person's
MASK = (1 << 64) - 1
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

    def checks(self, pb, count, among):
        """CPU us of authorize for one check of a session, of so many people spread over all n. The same ones each
        time: that somebody was seen is noted and told once a minute, and is no part of a check."""
        people = random.Random(among)
        route = int.from_bytes(hashlib.sha256(b"id\0bench\0").digest()[:8], "big")
        batches = [pb.CheckBatch(checks=[
            pb.CheckRequest(id=i, route=route, request_id=b"bench", session=person_id(
                2 * people.randrange(among) * (self.n // among) + 1),
                            method=b"GET", host=b"bench.localhost", path=b"/", client_ip=b"\x7f\0\0\1")
            for i in range(BATCH)]).SerializeToString() for _ in range(count // BATCH)]
        with grpc.insecure_channel(f"unix:{self.home}/authorize.sock") as channel:
            stream = channel.stream_stream("/postern.Authorize/CheckStream")
            begun = self.part_ns()["authorize"]
            allowed = ask(stream, batches, self.identity.proof("proxy", "authorize"), pb)
            used = self.part_ns()["authorize"] - begun
        if allowed != len(batches) * BATCH:
            raise BenchError(f"{self.name}: {allowed} of {len(batches) * BATCH} checks were allowed")
        return used / 1000 / allowed


def ask(stream, batches, metadata, pb):
    """One message on its way at a time, as a busy worker of the proxy sends them. Returns how many were allowed."""
    got, allowed, sent = 0, 0, 0

    def requests():
        nonlocal sent
        for batch in batches:
            while got < sent:
                time.sleep(0)
            sent += BATCH
            yield batch
    for reply in stream(requests(), metadata=metadata, timeout=120):
        for item in pb.ReplyBatch.FromString(reply).items:
            if item.HasField("reply"):
                got += 1
                allowed += item.reply.decision == pb.ALLOW
        if got == len(batches) * BATCH:
            break
    return allowed
