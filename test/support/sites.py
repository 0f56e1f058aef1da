"""Databrokers with an authorize, a proxy and clients each, all in network namespaces of their own, and a schedule of faults
between them. What is seen becomes a history for the judge in history/."""

import base64
import collections
import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from broker import Broker
from foreign import messages
from namespaces import Network
from postgres import Postgres
from recorder import HOST
from sanitize import PATIENCE, assert_clean
from trial import BIN, ROOT, says_ready, wait_for

STALENESS_S = 2
LATE_S = 3  # who slept so much longer than it asked for was on a machine that stood still: a fault of all
JUDGE = os.path.join(ROOT, "test/support/history.sh")
RECORDER = os.path.join(ROOT, "test/support/recorder.py")
PROXY_PORT = 8080


def settle_s(fault_s):
    """After a fault: the next repetition of TCP comes as late as the fault was long; then connections are made anew."""
    return fault_s + 6 * PATIENCE


class Gate:
    """An authorize that follows a databroker over TCP, and a proxy before it."""

    def __init__(self, node, broker):
        self.node, self.processes = node, {}
        self.folder = tempfile.mkdtemp(prefix="postern-gate-")
        self.config = os.path.join(self.folder, "config.yaml")
        with open(self.config, "w", encoding="ascii") as f:
            f.write(f"""address: 127.0.0.1:{PROXY_PORT}
insecure_server: true
shared_secret: {base64.b64encode(broker.secret).decode()}
authenticate_service_url: https://authenticate.history.test
authorize_service_url: https://127.0.0.1:5443
databroker_service_url: https://{broker.address}
databroker_max_staleness: {STALENESS_S}s
access_log: false
routes:
  - from: https://{HOST}
    response: {{status: 200, body: in}}
    allow_any_authenticated_user: true
""")

    def start(self):
        for daemon in ("authorize", "proxy"):
            env = {**os.environ, "HEALTH_CHECK_ADDR": f"unix:{self.folder}/{daemon}.sock"}
            if daemon == "authorize":
                env["GRPC_ADDRESS"] = "127.0.0.1:5443"
            with open(self.log_file(daemon), "ab") as log:
                self.processes[daemon] = subprocess.Popen(
                    self.node.argv(f"{BIN}/postern-{daemon}", "--config", self.config), stdout=log, stderr=log, cwd=self.folder,
                    env=env)

    def log_file(self, daemon):
        return os.path.join(self.folder, daemon + ".log")

    def is_ready(self):
        for daemon, process in self.processes.items():
            if process.poll() is not None:
                with open(self.log_file(daemon), errors="replace") as f:
                    raise RuntimeError(f"{daemon} ended with {process.returncode}:\n{f.read()[-3000:]}")
        return all(says_ready(f"{self.folder}/{daemon}.sock") for daemon in self.processes)

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {daemon: process.wait(30 * PATIENCE) for daemon, process in self.processes.items()}
        assert_clean(self.log_file(daemon) for daemon in self.processes)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert set(codes.values()) == {0}, codes


class Heart:
    """Notices when the machine stood still."""

    def __init__(self):
        self.stalls, self.stopping = [], threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()

    def beat(self):
        before = time.monotonic_ns()
        while not self.stopping.wait(0.02):
            now = time.monotonic_ns()
            if now - before > LATE_S * 1e9:
                self.stalls.append((before, now))
            before = now

    def stop(self):
        self.stopping.set()
        self.thread.join()


class Sites:
    """n databrokers on one PostgreSQL, or one on SQLite. Databroker i is the node bi, its authorize and proxy are on ai, its
    clients on ci; the database is on db."""

    def __init__(self, n, postgres, seed):
        self.random, self.seed, self.n = random.Random(seed), seed, n
        self.network, self.postgres, self.brokers, self.gates, self.recorders = Network(), None, [], [], []
        self.folder = tempfile.mkdtemp(prefix="postern-history-")
        self.faults, self.apart = [], []
        self.telling, self.revoked = threading.Lock(), collections.Counter()  # client → how many of its sessions
        try:
            self.build(postgres)
        except BaseException:
            self.close()
            raise

    def build(self, postgres):
        storage = {}
        if postgres:
            self.postgres = Postgres(node=self.network.node("db"))
            self.postgres.create()
            storage = {"storage": "postgres", "target": self.postgres.target}
        for i in range(self.n):
            secret = self.brokers[0].secret if i else None
            self.brokers.append(Broker(node=self.network.node(f"b{i}"), secret=secret, **storage))
            self.brokers[i].start()
            self.gates.append(Gate(self.network.node(f"a{i}"), self.brokers[i]))
            self.gates[i].start()
            self.network.node(f"c{i}")
        for gate in self.gates:
            wait_for("authorize and proxy to be ready", gate.is_ready, 30)

    # --- clients ---

    def record(self, life_s):
        """Starts them all. What a client says of its sessions goes to all others. life_s: how long a revoked one is tried."""
        made = messages("databroker", "session", "session_service").values()
        common = {"seed": self.seed, "stubs": [os.path.dirname(pb.__file__) for pb, _ in made], "begin": time.monotonic_ns(),
                  "secret": base64.b64encode(self.brokers[0].secret).decode(), "life": life_s, "port": PROXY_PORT,
                  "patience": PATIENCE}
        for i in range(self.n):
            self.start(f"a{i}", "visitor", {**common, "through": f"b{i}"})
        for i, broker in enumerate(self.brokers):
            self.start(f"c{i}", "client", {**common, "through": f"b{i}", "address": broker.address})
        everybody = [p for _, p in self.recorders]
        for p in everybody:
            threading.Thread(target=self.tell, args=(p, [q for q in everybody if q != p]), daemon=True).start()

    def start(self, name, what, settings):
        path = os.path.join(self.folder, name)
        with open(path + ".json", "w", encoding="ascii") as f:
            json.dump({**settings, "name": name, "file": path + ".jsonl"}, f)
        with open(path + ".log", "wb") as log:
            p = subprocess.Popen(self.network.nodes[name].argv(sys.executable, RECORDER, what, path + ".json"), text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.recorders.append((name, p))
        return p

    def tell(self, speaker, others):
        for line in speaker.stdout:
            if len(line.split()) == 1:
                self.revoked[speaker] += 1
            for p in others:
                with self.telling, contextlib.suppress(OSError):  # it has ended: why is asked in the end
                    if not p.stdin.closed:
                        p.stdin.write(line)
                        p.stdin.flush()

    def stop_recorders(self):
        codes = {}
        for name, p in reversed(self.recorders):  # the clients, then who hears of their sessions
            with self.telling, contextlib.suppress(OSError):
                p.stdin.close()
            codes[name] = p.wait(60 * PATIENCE)
        for name, code in codes.items():
            assert code == 0, f"recorder {name} ended with {code}:\n{self.last_words(name)}"

    def last_words(self, name):
        with open(os.path.join(self.folder, name + ".log"), errors="replace") as f:
            return f.read()[-3000:]

    # --- faults ---

    def pairs(self):
        """(nodes, proxies that are apart from the database meanwhile)"""
        for i in range(self.n):
            yield (f"a{i}", f"b{i}"), [f"a{i}"]
            yield (f"c{i}", f"b{i}"), []
            if self.postgres:
                yield (f"b{i}", "db"), [f"a{i}"]

    def singles(self):
        for i in range(self.n):
            yield (f"a{i}",), [f"a{i}"]
            yield (f"b{i}",), [f"a{i}"]
            yield (f"c{i}",), []
        if self.postgres:
            yield ("db",), self.proxies()

    def any_fault(self):
        kind = self.random.choice(Network.PAIR + Network.SINGLE)
        nodes, apart = self.random.choice(list(self.pairs() if kind in Network.PAIR else self.singles()))
        return kind, nodes, apart

    def fault(self, kind, *nodes):
        """As any_fault, of this kind and between these."""
        return kind, nodes, dict([*self.pairs(), *self.singles()])[nodes]

    def step(self, faults, seconds):
        """All of these for a while, and a moment without."""
        begin = time.monotonic_ns()
        for kind, nodes, _ in faults:
            self.network.cut(kind, *nodes)
        time.sleep(seconds)
        for kind, nodes, _ in faults:
            self.network.heal(kind, *nodes)
        end = time.monotonic_ns() + int(settle_s(seconds) * 1e9)
        for kind, nodes, apart in faults:
            self.faults.append((kind, *nodes))
            if apart:
                self.apart.append({"kind": "apart", "proxies": apart, "call": begin, "return": end})
        time.sleep(self.random.uniform(0.2, 1))

    def trouble(self, seconds):
        """Steps at random, of one or two faults that have no node in common; now and then time for all to find together."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            faults = [self.any_fault(), self.any_fault()]
            if set(faults[0][1]) & set(faults[1][1]):
                faults.pop()
            self.step(faults, self.random.uniform(0.5, 7))
            if self.random.random() < 0.25:
                time.sleep(settle_s(7))

    # --- what came of it ---

    def observe(self, life_s, trouble):
        """Records while trouble() lasts, and before and after until every client has got something done; the history."""
        heart = Heart()
        self.record(life_s)
        self.await_revocations(3)
        trouble()
        self.await_revocations(1)
        self.stop_recorders()
        heart.stop()
        self.stood_still = bool(heart.stalls)
        return [*self.promises(), *self.apart, *self.unconfirmed(), *self.stalls(heart), *self.recorded()]

    def await_revocations(self, n):
        clients = [p for name, p in self.recorders if name.startswith("c")]
        enough = {p: self.revoked[p] + n for p in clients}

        def done():
            for name, p in self.recorders:
                if p.poll() is not None:
                    raise RuntimeError(f"recorder {name} ended with {p.returncode}:\n{self.last_words(name)}")
            return all(self.revoked[p] >= enough[p] for p in clients)
        wait_for(f"{n} revocations of each client", done, 120)

    def promises(self):
        yield {"kind": "promise", "bounds": {"same": 0, "other": 0, "apart": int(STALENESS_S * 1e9)}}
        for i in range(self.n):
            yield {"kind": "proxy", "key": f"a{i}", "through": f"b{i}"}

    def unconfirmed(self):
        """What a databroker acknowledged though somebody's follower was silent, as it says."""
        for broker in self.brokers:
            for event in broker.events("databroker.unconfirmed"):
                wall = datetime.datetime.fromisoformat(event["time"]).timestamp()
                when = int((wall - time.time() + time.monotonic()) * 1e9)
                yield {"kind": "apart", "proxies": self.proxies(), "call": when - 10_000_000, "return": when + 10_000_000}

    def stalls(self, heart):
        """After the machine stood still connections may have to be made anew."""
        for begin, end in heart.stalls:
            yield {"kind": "apart", "proxies": self.proxies(), "call": begin, "return": end + int(settle_s(0) * 1e9)}

    def proxies(self):
        return [f"a{i}" for i in range(self.n)]

    def recorded(self):
        for name, _ in self.recorders:
            with open(os.path.join(self.folder, name + ".jsonl"), encoding="ascii") as f:
                yield from map(json.loads, f)

    def close(self):
        problems = []
        for stop in [*(p.kill for _, p in self.recorders), *(gate.stop for gate in self.gates), *(b.stop for b in self.brokers),
                     *([self.postgres.close] if self.postgres else []), self.network.close]:
            try:
                stop()
            except Exception as e:  # the others have to end, too
                problems.append(e)
        for folder in (self.folder, *(b.folder for b in self.brokers)):
            shutil.rmtree(folder, ignore_errors=True)
        assert not problems, problems


def build_judge():
    """The program, or None and why there is none."""
    done = subprocess.run([JUDGE], capture_output=True, text=True, check=False)
    return (done.stdout.strip(), None) if done.returncode == 0 else (None, done.stderr.strip()[-500:])


def judge(program, history):
    """(exit code, claim → its row of the report)"""
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in history)
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
    return done.returncode, {row["claim"]: row for row in json.loads(done.stdout)} if done.stdout else done.stderr
