"""A system under test: what it runs, and what it used of the machine."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import time

from trial import ROOT, children_of, wait_for


class BenchError(Exception):
    """A figure that would not mean what its row says: the row fails, and says why."""


class System:
    """Processes that stand together between client and upstream, and how to ask them."""

    def __init__(self, name, scheme="http", port=0, host="127.0.0.1", headers=None):
        self.name, self.scheme, self.port, self.host = name, scheme, port, host
        self.headers = headers or {}
        self.roots = []
        self.parts = {}  # {name: pid}, of roots

    def add(self, process):
        self.roots.append(process)
        return process

    def view(self, **changes):
        """The same processes asked in another way: another host, other headers."""
        other = System(changes.pop("name", self.name), self.scheme, self.port, self.host, self.headers)
        other.__dict__.update(changes)
        other.roots, other.parts = self.roots, self.parts
        return other

    @property
    def authority(self):
        return f"{self.host}:{self.port}"

    @property
    def tls(self):
        return self.scheme == "https"

    def url(self, path="/"):
        return f"{self.scheme}://{self.authority}{path}"

    def pids(self):
        for root in self.roots:
            if root.poll() is not None:
                raise BenchError(f"{self.name}: {root.args[0]} ended with {root.returncode}")
            yield root.pid
            yield from children_of(root.pid)

    def cpu_ns(self):
        """User and system time of all threads, those that ended too, from the scheduler's own account."""
        return sum(time.clock_gettime_ns(process_clock(pid)) for pid in self.pids())

    def part_ns(self):
        """The same for what is measured apart: {name: ns}; Postern has such a part."""
        return {name: time.clock_gettime_ns(process_clock(pid)) for name, pid in self.parts.items()}

    def status_kib(self, field):
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/status") as f:
                total += int(re.search(rf"{field}:\s+(\d+)", f.read()).group(1))
        return total

    def peak_kib(self):
        return self.status_kib("VmHWM")

    def rss_kib(self):
        return self.status_kib("VmRSS")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until(self, check):
        """Its start, seen from outside; what does not come up is stopped."""
        try:
            wait_for(self.name, check)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        for root in reversed(self.roots):
            if root.poll() is None:
                root.send_signal(signal.SIGTERM)
        for root in reversed(self.roots):
            try:
                root.wait(15)
            except subprocess.TimeoutExpired:
                root.kill()
                root.wait(5)


def process_clock(pid):
    """The CPU clock of another process, as clock_getcpuclockid(3) names it."""
    return ~pid << 3 | 2


@contextlib.contextmanager
def on_one_cpu(systems, *others):
    """Until its end all threads of these systems and processes, and what the caller starts, share one processor."""
    roots = {os.getpid(), *(pid for system in systems for pid in system.pids()),
             *(pid for p in others for pid in (p.pid, *children_of(p.pid)))}
    before = os.sched_getaffinity(0)

    def allow(cpus):
        for pid in roots:
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(ProcessLookupError):  # a thread that ended just now
                    os.sched_setaffinity(int(task), cpus)
    allow({min(before)})
    try:
        yield
    finally:
        allow(before)


def run(args, env=None, log=None, **kwargs):
    return subprocess.Popen(args, stdout=log or subprocess.DEVNULL, stderr=log or subprocess.DEVNULL, cwd=ROOT,
                            env={**os.environ, **(env or {})}, **kwargs)


def allow_descriptors(wanted):
    """Lets this process and its children hold so many files; how many it may have is the answer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
