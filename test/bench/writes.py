"""Acknowledged session writes a second: SQLite beside a plain INSERT loop, PostgreSQL beside pgbench, with as many clients."""

import os
import re
import subprocess
import tempfile

from postgres import Postgres
from trial import BIN

WRITERS = 64


def rate(*argv):
    out = subprocess.run([os.path.join(BIN, "bench-writes"), *map(str, argv), str(WRITERS)], stdout=subprocess.PIPE, check=True,
                         text=True, stderr=subprocess.DEVNULL).stdout
    return float(out.split()[-1])


def sqlite_round(seconds):
    """(ours, INSERT loop)"""
    with tempfile.TemporaryDirectory(prefix="postern-writes-") as folder:
        return rate("sqlite", folder + "/store", seconds), rate("insert", folder + "/plain", seconds)


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
