"""Load generators: one thread each, bounded, and none of them takes an error for an answer."""

import json
import os
import re
import select
import ssl
import subprocess
import sys
import tempfile
import time

from bench.process import BenchError
from bench.visit import client_context, connect

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin",
}
US = {"us": 1, "ms": 1000, "s": 1e6, "m": 60e6}
HANDSHAKES_MAX = 10000  # in one load, because they stay open
BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def header_options(system, **more):
    for name, value in {**BROWSER, **system.headers, **more}.items():
        yield from ("-H", f"{name}: {value}")


def call(args, what, timeout):
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{what}: {args[0]} did not end within {timeout} s") from None
    if done.returncode != 0:
        raise BenchError(f"{what}: {args[0]} ended with {done.returncode}:\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def wrk(system, connections, seconds, answer_bytes):
    """HTTP/1.1, keep-alive. wrk counts 4xx and 5xx but not 3xx, so the bytes are counted too."""
    out = call(["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency",
                *header_options(system, Host=system.authority), f"{system.scheme}://127.0.0.1:{system.port}/"],
               system.name, seconds + 30)
    found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m), ([\d.]+)(B|KB|MB|GB) read", out)
    n, duration = int(found.group(1)), float(found.group(2)) * US[found.group(3)] / 1e6
    read = float(found.group(4)) * BYTES[found.group(5)]
    if "Non-2xx or 3xx" in out or "Socket errors" in out or n == 0 or read / n < answer_bytes:
        raise BenchError(f"{system.name}: answers that are no success:\n{out}")

    def latency(percent):
        value, unit = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", out, re.M).groups()
        return float(value) * US[unit]
    return {"n": n, "s": duration, "p50_us": latency("50"), "p99_us": latency("99")}


def h2load(system, clients, streams, requests, answer_bytes):
    """HTTP/2 over TLS; h2load would fall back to HTTP/1.1, so the protocol spoken is checked."""
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        out = call(["h2load", "-t", "1", "-c", str(clients), "-m", str(streams), "-n", str(requests), "--npn-list=h2",
                    "--log-file=" + log.name, f"--connect-to=127.0.0.1:{system.port}", *header_options(system),
                    system.url()], system.name, 120)
        took = sorted(int(line.split()[2]) for line in log.read().decode().splitlines())
    good = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", out)
    data = re.search(r"traffic: .*?\((\d+)\) total.*\((\d+)\) data", out)
    seconds, unit = re.search(r"finished in ([\d.]+)(us|ms|s|m),", out).groups()
    if (not good or int(good.group(1)) != requests or "Application protocol: h2" not in out
            or len(took) != requests or int(data.group(2)) < requests * answer_bytes):
        raise BenchError(f"{system.name}: not every request had its answer over HTTP/2:\n{out}")
    return {"n": requests, "s": float(seconds) * US[unit] / 1e6, "p50_us": took[len(took) // 2],
            "p99_us": took[len(took) * 99 // 100]}


def paced(system, connections, rate, seconds):
    """HTTP/1.1, rate requests a second on each connection, whatever becomes of the others: how long answers take where
    the load generator leaves the processors to those that are measured."""
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        out = call(["h2load", "-t", "1", "-c", str(connections), "--h1", "-D", str(seconds), "--rps", str(rate),
                    "--log-file=" + log.name, f"--connect-to=127.0.0.1:{system.port}", *header_options(system),
                    system.url()], system.name, seconds + 60)
        lines = [line.split() for line in log.read().decode().splitlines()]
    took = sorted(int(us) for _, status, us in lines if status == "200")
    if len(took) != len(lines) or len(took) < connections * rate * seconds * 0.9:
        raise BenchError(f"{system.name}: {len(took)} good answers of {len(lines)}:\n{out}")
    return {"n": len(took), "s": seconds, "p50_us": took[len(took) // 2], "p99_us": took[len(took) * 99 // 100]}


def handshakes(system, seconds):
    """Full TLS 1.3 handshakes one after the other. The peer's session ticket, which comes when it has finished too, is
    waited for. The connections stay open: what closing them costs is another matter; "close" does it."""
    context = client_context()
    start, held = time.monotonic(), []
    while time.monotonic() - start < seconds and len(held) < HANDSHAKES_MAX:
        s = connect(system.scheme, system.port, system.host, context)
        held.append(s)
        if s.version() != "TLSv1.3" or s.session_reused or not has_ticket(s):
            raise BenchError(f"{system.name}: {s.version()}, resumed: {s.session_reused}, or no ticket came")
    return {"n": len(held), "s": time.monotonic() - start, "close": lambda: [s.close() for s in held]}


def has_ticket(s):
    """Reads it: it comes with no bytes for the application."""
    waiting = select.poll()  # select() ends at descriptor 1023
    waiting.register(s, select.POLLIN)
    s.setblocking(False)
    while not s.session.has_ticket:
        if not waiting.poll(10000):
            return False
        try:
            s.recv(1)
            return False  # bytes or an end that nobody asked for
        except ssl.SSLWantReadError:
            pass
    return True


def transfer(system, path, size, upload=None):
    """One body of size bytes down from path, or up from the file upload to path."""
    with tempfile.NamedTemporaryFile(prefix="curl-") as said:
        out = call(["curl", "-sS", "--fail", "--http1.1", "--insecure", "--noproxy", "*", "-o",
                    said.name if upload else "/dev/null", *(["-T", upload, "-H", "Expect:"] if upload else []),
                    "-w", "%{http_code} %{size_download} %{size_upload} %{time_total} %{num_redirects}",
                    *header_options(system), "--connect-to", f"::127.0.0.1:{system.port}", system.url(path)],
                   system.name, 120)
        told = said.read().decode()
    status, down, up, seconds, _ = out.split()
    if status != "200" or int(up if upload else down) != size or (upload and told != str(size)):
        raise BenchError(f"{system.name}: {status}, {down} bytes down, {up} bytes up, the upstream says {told!r}")
    return {"n": 1, "s": float(seconds)}


class Flood:
    """One of floods.py thrown at a system, by a process of its own."""

    def __init__(self, system, name):
        self.system = system
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.flood"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": here})
        self.process.stdin.write(json.dumps({"port": system.port, "authority": system.authority, "flood": name}) + "\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "attacking\n":
            self.process.kill()
            self.process.wait(10)
            raise BenchError(f"{system.name}: the flood of {name} did not begin")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        told, _ = self.process.communicate(timeout=60)
        self.got = json.loads(told)


class Holder:
    """Idle connections held by a process of its own, each after one good answer."""

    def __init__(self, system, n, answer_bytes):
        self.system, self.n = system, n
        what = {"scheme": system.scheme, "port": system.port, "authority": system.authority, "n": n,
                "headers": {**BROWSER, **system.headers}, "bytes": answer_bytes}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})
        try:
            self.say(json.dumps(what))
            self.expect(f"held {n}")
        except BaseException:
            self.__exit__()
            raise

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, line):
        told = self.process.stdout.readline().strip()
        if told != line:
            told += "\n" + self.process.stdout.read()[-1000:]
            self.process.wait(10)
            raise BenchError(f"{self.system.name}: the holder says {told!r}, not {line!r}")

    def release(self):
        """Are all still there? Then lets them go."""
        self.say("")
        self.expect(f"open {self.n}")
        self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
