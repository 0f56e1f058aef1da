"""Three proxies, three authorizes, a databroker with many people: how long after an acknowledged change somebody is still
let in, and how long what they had open stays open. Everything is seen from outside, by a client of its own at each proxy."""

import asyncio
import base64
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import time

import grpc
from broker import Identity, stubs
from foreign import messages
from google.protobuf import struct_pb2
from trial import BIN, free_port, wait_for

from bench import longlived
from bench.process import BenchError, System, run
from bench.sessions import SECRET, person_id

HOST, SIDES, RATE = "bench.localhost", 3, 1000
CONNECTIONS = 64  # of the traffic, at each proxy
AHEAD = 10        # people with open connections at once
SURE = 6          # answers in a row that deny: each authorize was asked
DIRECTORY = "pomerium.io/DirectoryUser"
KINDS = ("websocket", "grpc", "download")

CONFIG = """certificates:
  - cert: {cert}
    key: {key}
shared_secret: {secret}
access_log: false
max_connections_per_address: 100000
authenticate_service_url: https://authenticate.localhost
authenticate_internal_service_url: unix:{home}/authenticate-http.sock
authenticate_grpc_url: unix:{home}/authenticate.sock
authorize_service_url:{authorizes}
databroker_service_url: unix:{home}/databroker.sock
databroker_storage_type: sqlite
databroker_storage_connection_string: {home}/databroker.sqlite
routes:
  - from: https://{host}
    prefix: /traffic
    to: http://127.0.0.1:{upstream}
    policy: [{{allow: {{or: [{{groups: {{has: nobody}}}}, {{authenticated_user: true}}]}}}}]
  - from: https://{host}
    prefix: /bench.Live/
    to: h2c://127.0.0.1:{calls}
    policy: [{{allow: {{or: [{{groups: {{has: staff}}}}]}}}}]
  - from: https://{host}
    to: http://127.0.0.1:{live}
    allow_websockets: true
    policy: [{{allow: {{or: [{{groups: {{has: staff}}}}]}}}}]
"""

# Every request with the cookie of another person, at a steady pace: each connection waits a little before the next.
TRAFFIC = """local cookies, i = {}, 0
for line in io.lines("%s") do cookies[#cookies + 1] = line end
function request()
  i = i %% #cookies + 1
  return "GET /traffic HTTP/1.1\\r\\nHost: %s\\r\\nAccept: */*\\r\\nCookie: " .. cookies[i] .. "\\r\\n\\r\\n"
end
function delay() return math.random(0, 2 * %d) end
"""


class Fleet(System):
    def __init__(self, lab, people):
        super().__init__("postern", "https", 0, HOST)
        self.lab, self.people = lab, people
        self.home = tempfile.mkdtemp(prefix="fleet-", dir=lab.folder)
        self.identity = Identity(SECRET)
        self.ports = [free_port() for _ in range(SIDES)]
        self.live, self.calls = self.start_live()
        secret = base64.b64encode(SECRET).decode()
        subprocess.run([os.path.join(BIN, "bench-people"), f"{self.home}/databroker.sqlite", str(people)], check=True,
                       env={**os.environ, "SHARED_SECRET": secret}, capture_output=True)
        with open(f"{self.home}/config.yaml", "w") as f:
            f.write(CONFIG.format(cert=lab.cert, key=lab.key, secret=secret, home=self.home, host=HOST, live=self.live,
                                  calls=self.calls, upstream=lab.upstream_port, authorizes="".join(
                                      f"\n  - unix:{self.home}/authorize-{i}.sock" for i in range(SIDES))))

    def start_live(self):
        self.upstream = run([sys.executable, "-m", "bench.longlived"], {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
                            stdin=subprocess.PIPE, log=open(f"{self.home}/live.log", "wb"))

        def ports():
            with open(f"{self.home}/live.log") as f:
                words = f.read().split()
            return len(words) == 4 and [int(word) for word in words[2:]]
        return wait_for("the upstreams", ports)

    def start(self):
        self.daemon("databroker", "databroker")
        wait_for("the databroker", lambda: os.path.exists(f"{self.home}/databroker.sock"), 60, 0.02)
        for i in range(SIDES):
            self.daemon("authorize", f"authorize-{i}")
            self.daemon("proxy", f"proxy-{i}", {"ADDRESS": f"127.0.0.1:{self.ports[i]}"})
        return self

    def daemon(self, program, name, more=None):
        env = {"GRPC_ADDRESS": f"unix:{self.home}/{name}.sock", "HEALTH_CHECK_ADDR": f"unix:{self.home}/{name}-health.sock"}
        self.add(run([os.path.join(BIN, f"postern-{program}"), "--config", f"{self.home}/config.yaml"],
                     {**env, **(more or {})}, open(f"{self.home}/{name}.log", "wb")))

    def cookie(self, i):
        """As a login of person i would leave it in the browser."""
        return "__Host-_pomerium=" + self.identity.handle(person_id(2 * i + 1), HOST)

    def stop(self):
        super().stop()
        self.upstream.stdin.close()
        self.upstream.wait(10)


class Traffic:
    """Requests of other people at all proxies; its end tells whether each was answered, and how many there were."""

    def __init__(self, fleet, people):
        cookies, script = f"{fleet.home}/cookies", f"{fleet.home}/traffic.lua"
        with open(cookies, "w") as f:
            f.write("".join(fleet.cookie(i) + "\n" for i in people))
        with open(script, "w") as f:
            f.write(TRAFFIC % (cookies, HOST, SIDES * CONNECTIONS * 1000 // RATE - 5))
        self.running = [subprocess.Popen(
            ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", "900s", "-s", script, f"https://127.0.0.1:{port}/traffic"],
            stdout=subprocess.PIPE, text=True) for port in fleet.ports]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.running:
            p.kill()
            p.wait(10)

    def rate(self):
        """Ends it: requests a second."""
        rate = 0
        for p in self.running:
            p.send_signal(signal.SIGINT)
        for p in self.running:
            out = p.communicate(timeout=30)[0]
            if "Non-2xx" in out or "Socket errors" in out or "Requests/sec" not in out:
                raise BenchError(f"traffic that was not answered well:\n{out}")
            rate += float(out.split("Requests/sec:")[1].split()[0])
        return rate


class Side:
    """One proxy, and its clients: connections of HTTP/1.1, and one of gRPC that all people's streams share."""

    def __init__(self, fleet, port):
        self.fleet, self.port = fleet, port
        self.context = ssl.create_default_context(cafile=fleet.lab.cert)
        with open(fleet.lab.cert, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, [
            ("grpc.ssl_target_name_override", HOST), ("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0)])
        self.follow = self.channel.unary_stream(longlived.STREAM)

    async def ask(self, cookie, path, more=""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context, server_hostname=HOST)
        self.send(writer, cookie, path, more)
        return reader, writer, await self.status(reader)

    @staticmethod
    def send(writer, cookie, path, more=""):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\nCookie: {cookie}\r\n{more}\r\n".encode())

    @staticmethod
    async def status(reader):
        """Of an answer; its body is read unless it has no end."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if length < 1 << 20:
            await reader.readexactly(length)
        return int(head.split(b" ")[1])

    async def held(self, cookie, path, status, more=""):
        """A connection that is open when this returns; the answer ends when the connection does: it tells when."""
        reader, writer, got = await self.ask(cookie, path, more)
        if got != status:
            raise BenchError(f"{path} was answered with {got}, not {status}")

        async def end():
            try:
                while await reader.read(65536):
                    pass
            except (OSError, ssl.SSLError):
                pass
            writer.close()
            return time.monotonic()
        return asyncio.ensure_future(end())

    async def stream(self, cookie):
        call = self.follow(b"", metadata=(("cookie", cookie),), timeout=600)
        if await call.read() != b"news":
            raise BenchError("the gRPC stream did not begin")

        async def end():
            try:
                while await call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return time.monotonic()
        return asyncio.ensure_future(end())

    async def open(self, cookie):
        """What somebody has open: {kind: its end, to be waited for}."""
        upgrade = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n")
        ends = await asyncio.gather(self.held(cookie, "/websocket", 101, upgrade), self.stream(cookie),
                                    self.held(cookie, "/download", 200))
        return dict(zip(KINDS, ends))

    async def watch(self, cookie, denial, begun):
        """Asks again and again, until denied for good: when that began. An allowed answer in between starts it anew."""
        reader, writer, got = await self.ask(cookie, "/asked")
        since, denials = None, 0
        while denials < SURE:
            if got == 200:
                since, denials = None, 0
            elif got == denial:
                since, denials = since or time.monotonic(), denials + 1
            else:
                raise BenchError(f"neither let in nor denied: {got}")
            begun.set()
            await asyncio.sleep(0.004)
            self.send(writer, cookie, "/asked")
            got = await self.status(reader)
        writer.close()
        return since


class Changes:
    """What ends somebody's access, and how it is undone."""

    def __init__(self, fleet):
        self.fleet = fleet
        channel = grpc.aio.insecure_channel(f"unix:{fleet.home}/databroker.sock", [("grpc.enable_http_proxy", 0)])
        self.pb, self.broker = stubs()["databroker"], stubs()["rpc"].DataBrokerServiceStub(channel)
        made = messages("session_service")["session_service"]
        self.session_pb, self.sessions = made[0], made[1].SessionServiceStub(channel)
        self.directory = [("authorization", "Bearer " + fleet.identity.token("directory-writer"))]
        self.admin = [("authorization", "Bearer " + fleet.identity.token("session-admin"))]

    async def put_groups(self, people, groups):
        request = self.pb.PutRequest()
        for i in people:
            user = struct_pb2.Struct()
            user.update({"id": person_id(2 * i), "email": f"{i}@example.com", "group_ids": groups})
            record = request.records.add(type=DIRECTORY, id=person_id(2 * i))
            record.data.Pack(user)
        await self.broker.Put(request, metadata=self.directory, timeout=30)

    async def leave(self, i):
        await self.put_groups([i], ["team-0001"])

    async def revoke(self, i):
        reply = await self.sessions.Revoke(self.session_pb.RevokeSessionsRequest(
            filter=self.session_pb.SessionFilter(session_id=person_id(2 * i + 1))), metadata=self.admin, timeout=30)
        if reply.revoked != 1:
            raise BenchError(f"{reply.revoked} sessions were revoked, not one")


class Run:
    """One kind of change for many people: after[what] are the seconds from its acknowledgement."""

    def __init__(self, fleet, sides, change, denial):
        self.fleet, self.sides, self.change, self.denial = fleet, sides, change, denial
        self.after = {what: [] for what in ("denial", *KINDS)}

    async def one(self, i, opened):
        cookie = self.fleet.cookie(i)
        begun = [asyncio.Event() for _ in self.sides]
        watches = [asyncio.ensure_future(side.watch(cookie, self.denial, event)) for side, event in zip(self.sides, begun)]
        await asyncio.gather(*(event.wait() for event in begun))
        if any(end.done() for ends in opened for end in ends.values()):
            raise BenchError("what was open has ended before the change")
        await self.change(i)
        acknowledged = time.monotonic()
        for what, times in (("denial", watches), *((kind, [ends[kind] for ends in opened]) for kind in KINDS)):
            self.after[what] += [max(0, t - acknowledged) for t in await asyncio.wait_for(asyncio.gather(*times), 30)]

    async def all(self, people):
        for k in range(0, len(people), AHEAD):
            some = people[k:k + AHEAD]
            opened = [await asyncio.gather(*(side.open(self.fleet.cookie(i)) for side in self.sides)) for i in some]
            for i, ends in zip(some, opened):
                await self.one(i, ends)


async def measured(fleet, count):
    """{change: Run.after}, and the requests a second of other people meanwhile."""
    order = random.Random(1)
    chosen = order.sample(range(fleet.people), 2 * count + min(2000, fleet.people // 4))
    sides = [Side(fleet, port) for port in fleet.ports]
    changes = Changes(fleet)
    runs = {"revoked": Run(fleet, sides, changes.revoke, 401), "out of the group": Run(fleet, sides, changes.leave, 403)}
    for k in range(0, 2 * count, 100):
        await changes.put_groups(chosen[k:min(k + 100, 2 * count)], ["staff"])
    for side in sides:
        await in_force(side, fleet.cookie(chosen[2 * count - 1]))
    with Traffic(fleet, chosen[2 * count:]) as traffic:
        for run_of, people in zip(runs.values(), (chosen[:count], chosen[count:2 * count])):
            await run_of.all(people)
        rate = traffic.rate()
    for side in sides:
        await side.channel.close()
    return {name: run_of.after for name, run_of in runs.items()}, rate


async def in_force(side, cookie):
    """Until every authorize lets this person in."""
    good, deadline = 0, time.monotonic() + 120
    while good < SURE:
        try:
            _, writer, status = await side.ask(cookie, "/asked")
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        good = good + 1 if status == 200 else 0
        if time.monotonic() > deadline:
            raise BenchError(f"a proxy does not serve: {status}")
        await asyncio.sleep(0.01)


def measure(lab, people, count):
    with Fleet(lab, people).start() as fleet:
        return (*asyncio.run(measured(fleet, count)), fleet.peak_kib())
