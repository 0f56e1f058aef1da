"""Acknowledged session writes a second: SQLite beside a plain INSERT loop, PostgreSQL beside pgbench, with as many clients;
and what a reader of a databroker sees of its writers."""

import base64
import json
import os
import re
import subprocess
import tempfile

from postgres import Postgres
from trial import BIN

from bench.process import BenchError, System, run

WRITERS = 64
SLOW_SYNC = os.path.join(BIN, "bench-slow-sync.so")
CONFIG = """shared_secret: {secret}
databroker_storage_type: sqlite
databroker_storage_connection_string: {home}/store
"""


def rate(*argv, writers=WRITERS, slow=False):
    env = {**os.environ, "LD_PRELOAD": SLOW_SYNC} if slow else None
    out = subprocess.run([os.path.join(BIN, "bench-writes"), *map(str, argv), str(writers)], stdout=subprocess.PIPE, check=True,
                         text=True, stderr=subprocess.DEVNULL, env=env).stdout
    return float(out.split()[-1])


def sqlite_round(seconds, slow=False):
    """(ours, INSERT loop, INSERTs as many in a transaction as there are writers). slow: each fsync takes a millisecond more."""
    with tempfile.TemporaryDirectory(prefix="postern-writes-") as folder:
        return (rate("sqlite", folder + "/store", seconds, slow=slow), rate("insert", folder + "/plain", seconds, writers=1, slow=slow),
                rate("insert", folder + "/grouped", seconds, slow=slow))


class Server:
    """A server for all rounds, with a table for pgbench like ours."""

    def __enter__(self):
        self.server = Postgres({"max_connections": "100", "shared_buffers": "128MB"}).create()
        self.server.sql("CREATE TABLE sessions (type text, id text, data bytea, PRIMARY KEY (type, id))", "postern", "postern")
        self.script = self.server.folder + "/insert.sql"
        with open(self.script, "w") as f:
            f.write("INSERT INTO sessions VALUES ('type.googleapis.com/session.Session', gen_random_uuid()::text,"
                    " decode(repeat('5a', 600), 'hex'));\n")
        return self

    def __exit__(self, *_):
        self.server.close()

    def round(self, seconds):
        """(ours, pgbench)"""
        ours = rate("postgres", self.server.target, seconds)
        out = self.server.run("pgbench", "-n", "-M", "prepared", "-c", str(WRITERS), "-j", "2", "-T", str(seconds), "-f",
                              self.script, "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postern", "postern").stdout
        return ours, float(re.search(r"tps = ([0-9.]+)", out).group(1))


class Databroker(System):
    """One databroker on SQLite, asked over gRPC."""

    def __init__(self, lab):
        super().__init__("postern")
        self.home = tempfile.mkdtemp(prefix="broker-", dir=lab.folder)
        self.secret = base64.b64encode(os.urandom(32)).decode()
        with open(f"{self.home}/config.yaml", "w") as f:
            f.write(CONFIG.format(secret=self.secret, home=self.home))
        env = {"GRPC_ADDRESS": f"unix:{self.home}/grpc.sock", "HEALTH_CHECK_ADDR": f"unix:{self.home}/health.sock"}
        self.add(run([os.path.join(BIN, "postern-databroker"), "--config", f"{self.home}/config.yaml"], env,
                     open(f"{self.home}/log", "wb")))
        self.wait_until(lambda: os.path.exists(f"{self.home}/grpc.sock"))

    def program(self, name, *argv, patience):
        """What a client of ours prints."""
        done = subprocess.run([os.path.join(BIN, name), f"unix:{self.home}/grpc.sock", *map(str, argv)],
                              env={**os.environ, "SHARED_SECRET": self.secret}, capture_output=True, text=True, timeout=patience)
        if done.returncode != 0:
            raise BenchError(f"{name} ended with {done.returncode}: {done.stderr[-500:]}")
        return json.loads(done.stdout)

    def calls(self, seconds, writers):
        """What bench-calls tells, its names as a report's, and the databroker's CPU for a write."""
        before = self.cpu_ns()
        got = self.program("bench-calls", seconds * 1000, writers, patience=seconds + 60)
        written = got["writes_per_s"] * seconds
        return {"p50_us": got["get_p50_us"], "p99_us": got["get_p99_us"], "requests_per_s": got["writes_per_s"],
                "cpu_us": (self.cpu_ns() - before) / 1000 / written if written else 0}

    def follow(self, count, followers):
        """count sessions put at a steady rate, told to so many followers: what bench-follow tells, and the databroker's CPU for
        one record told to one of them, the write's share included."""
        before = self.cpu_ns()
        got = self.program("bench-follow", count, followers, patience=count / 100 + 60)
        return {"p50_us": got["lag_p50_us"], "p99_us": got["lag_p99_us"], "requests_per_s": got["writes_per_s"],
                "cpu_us": (self.cpu_ns() - before) / 1000 / count / max(followers, 1)}
