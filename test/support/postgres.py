"""A PostgreSQL server of the test's own, in a new folder and on a free port of loopback, or of a node (namespaces.py); as root
it runs as the user postgres.

Postgres      start, stop, kill, promote; sql() as the superuser; target: the connection string of an ordinary role;
              on_small_disk() after create()
Postgres.standby()   a server that follows it by streaming replication
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile

from disk import SmallDisk
from sanitize import PATIENCE
from trial import free_port, wait_for

PROGRAMS = "/usr/lib/postgresql/15/bin"


class Postgres:
    def __init__(self, settings=None, port=None, node=None):
        self.folder = tempfile.mkdtemp(prefix="postern-pg-")
        self.disk = None
        self.owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        os.chown(self.folder, self.owner.pw_uid, self.owner.pw_gid)
        self.data = self.folder + "/data"
        self.port = port or free_port()
        self.settings = {"fsync": "on", "shared_buffers": "64MB", **(settings or {})}
        self.process = None
        self.node, self.host = node, node.address if node else "127.0.0.1"

    def run(self, *argv, **kwargs):
        return subprocess.run([f"{PROGRAMS}/{argv[0]}", *argv[1:]], check=True, user=self.owner.pw_uid, group=self.owner.pw_gid,
                              cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120 * PATIENCE,
                              **kwargs)

    def create(self, *options):
        """A cluster with the role postern, which owns the database postern and nothing else. options: initdb's."""
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", *options)
        if self.node:
            with open(self.data + "/pg_hba.conf", "a") as f:
                f.write("host all all samenet trust\n")
        self.start()
        self.sql("CREATE ROLE postern LOGIN")
        self.sql("CREATE DATABASE postern OWNER postern")
        return self

    def start(self):
        options = [x for k, v in self.settings.items() for x in ("-c", f"{k}={v}")]
        with open(self.folder + "/log", "ab") as log:
            argv = [f"{PROGRAMS}/postgres", "-D", self.data, "-k", self.folder, "-p", str(self.port), "-c",
                    f"listen_addresses={self.host}", *options]
            owner = {"user": self.owner.pw_uid, "group": self.owner.pw_gid}
            inside = self.node or self.disk
            if inside:  # only root enters it
                argv = inside.argv("setpriv", f"--reuid={self.owner.pw_uid}", f"--regid={self.owner.pw_gid}", "--clear-groups", *argv)
                owner = {}
            self.process = subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log, **owner)
        wait_for("PostgreSQL to answer", self.is_ready, 60)
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            with open(self.folder + "/log", errors="replace") as f:
                raise RuntimeError(f"PostgreSQL ended with {self.process.returncode}:\n{f.read()[-2000:]}")
        return subprocess.run([f"{PROGRAMS}/pg_isready", "-q", "-h", self.folder, "-p", str(self.port)], check=False).returncode == 0

    def sql(self, text, database="postgres", user="postgres"):
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port), "-U", user, "-d",
                        database, "-c", text).stdout.strip()

    def ask(self, text):
        return self.sql(text, "postern")

    @property
    def target(self):
        return f"host={self.host} port={self.port} user=postern dbname=postern sslmode=disable"

    def forget(self):
        """An empty database again."""
        self.ask("DROP SCHEMA IF EXISTS postern CASCADE")

    def stop(self, how=signal.SIGINT):
        """SIGINT: a fast shutdown. SIGQUIT: as a crash, tidily. SIGKILL: the postmaster dies, and its children follow."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60 * PATIENCE)
        pid = self.data + "/postmaster.pid"
        if how == signal.SIGKILL and os.path.exists(pid):
            os.unlink(pid)
        self.process = None

    def on_small_disk(self, what, mebibytes):
        """Its log, or all of the database postern, is on a disk of its own that is soon full; the disk."""
        self.stop()
        small = self.folder + "/small"
        self.disk = SmallDisk(small, mebibytes, self.owner)
        if what == "log":
            subprocess.run(self.disk.argv("sh", "-c", f"mv {self.data}/pg_wal {small}/pg_wal && ln -s {small}/pg_wal {self.data}/"),
                           check=True)
        self.start()
        if what == "data":
            self.sql(f"CREATE TABLESPACE small LOCATION '{small}'")
            self.sql("ALTER DATABASE postern SET TABLESPACE small")
        return self.disk

    def standby(self, port=None):
        """A server that follows this one; that commits wait for it is for settings to say."""
        other = Postgres(self.settings, port)
        other.run("pg_basebackup", "-h", self.folder, "-p", str(self.port), "-U", "postgres", "-D", other.data, "-R", "-X",
                  "stream", "-c", "fast")
        return other.start()

    def promote(self):
        self.run("pg_ctl", "promote", "-D", self.data, "-w")

    def close(self):
        self.stop(signal.SIGQUIT)
        if self.disk:
            self.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)
