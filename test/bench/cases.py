"""The cases: which systems, which load, which bars. Each is a function of a Bench that returns a Result."""

import contextlib
import functools
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass

from floods import FLOODS
from trial import BIN

from bench import haproxy, load, measure, nginx, postern, revoke, sessions, writes
from bench.lab import BODY, BULK, SINK, Lab
from bench.process import BenchError, System, on_one_cpu
from bench.report import Bar, Result
from bench.visit import ask, speaks_h2

GIB = 1 << 30
FOLLOWERS = 20


@dataclass
class Plan:
    """How much of everything: a whole run or a quick one."""
    rounds: int = 5
    seconds: int = 3
    connections: int = 64
    bulk_rounds: int = 3
    bulk_bytes: int = GIB
    idle: int = 10000
    routes: int = 10000
    changes: int = 3
    floods: int = len(FLOODS)
    people: int = 1000000
    checks: int = 60000
    turns: int = 300
    fleet_people: int = 100000
    revoked: int = 210
    followed: int = 2000
    starts: int = 4
    warm: bool = True


QUICK = Plan(rounds=2, seconds=1, bulk_rounds=2, bulk_bytes=GIB // 8, idle=1000, changes=1, floods=1, people=100000,
             checks=10000, turns=50, fleet_people=5000, revoked=10, followed=300, starts=1, warm=False)


class Bench:
    """A lab and the systems in it, each started when a case first asks for it."""

    MAKERS = {
        "nginx": nginx.start_system,
        "nginx-log": functools.partial(nginx.start_system, log=True),
        "nginx-auth-request": functools.partial(nginx.start_system, auth=True),
        "haproxy": haproxy.start_system,
        "haproxy-jwt": functools.partial(haproxy.start_system, verify=True),
        "postern": postern.start_system,
        "postern-log": functools.partial(postern.start_system, log=True),
    }

    def __init__(self, lab, plan):
        self.lab, self.plan = lab, plan
        self.running = {}

    def get(self, name, tls):
        if (name, tls) not in self.running:
            self.running[name, tls] = self.MAKERS[name](self.lab, tls)
            self.warm(self.running[name, tls])
        return self.running[name, tls]

    def warm(self, system):
        if self.plan.warm:
            load.wrk(system, self.plan.connections, 1, len(BODY))

    def close(self):
        for system in self.running.values():
            system.stop()
        self.running.clear()


def must_answer(system):
    """The answer is the upstream's, whole: before and after a case, so that no session ended in between."""
    status, body = ask(system)
    if status != 200 or body != BODY.encode():
        raise BenchError(f"{system.name}: {status} and {len(body)} bytes, not the upstream's answer")


def rounds_of(systems, one, rounds):
    """Rounds of one load over all systems: {name: [figures of a round, …]}."""
    for system in systems:
        must_answer(system)
    runs = measure.rounds(systems, one, rounds)
    for system in systems:
        must_answer(system)
    return runs


def compare(result, systems, one, rounds, base="nginx"):
    """Rounds of one load over all systems, as rows of result. The figures of each round are returned."""
    runs = rounds_of(systems, one, rounds)
    for system in systems:
        mid = measure.middle(runs[system.name])
        row = {"requests_per_s": round(mid["requests_per_s"]), "cpu_us": round(mid["cpu_us"], 2)}
        if base in runs and system.roots:
            row["cpu_ratio_to_nginx"] = round(measure.ratio(runs[system.name], runs[base]), 3)
        row.update({key: round(mid[key]) for key in ("p50_us", "p99_us") if key in mid})
        result.add(system.name, **row, rss_kib=system.peak_kib())
    return runs


def cpu_bars(result, runs, limits):
    for name, limit in limits.items():
        result.bars.append(Bar(f"CPU vs {name}", measure.ratio(runs["postern"], runs[name]), limit))


def wrk_of(bench):
    return lambda system: load.wrk(system, bench.plan.connections, bench.plan.seconds, len(BODY))


ALL = ("nginx", "nginx-auth-request", "haproxy", "haproxy-jwt", "postern")
RIVALS = {"nginx-auth-request": 0.6, "haproxy-jwt": 0.9}


def get_1k(case, tls, bench):
    kind = "TLS 1.3 keep-alive" if tls else "plaintext"
    result = Result(case, f"authorized GET 1 KiB, HTTP/1.1 {kind}, {bench.plan.connections} connections; "
                          "no access lines, but the audit lines of Postern")
    systems = [bench.get(name, tls) for name in ALL]
    runs = compare(result, systems, wrk_of(bench), bench.plan.rounds)
    cpu_bars(result, runs, {"nginx": 1.2, **RIVALS})
    share = statistics.median(run["authorize_us"] for run in runs["postern"])
    result.bars.append(Bar("CPU us of authorize for a request", share, 3))
    return result


def get_1k_log(case, tls, bench):
    kind = "TLS 1.3 keep-alive" if tls else "plaintext"
    result = Result(case, f"the same over {kind}, both write access lines, Postern its audit lines too")
    systems = [bench.get(f"{name}-log", tls).view(name=name) for name in ("nginx", "postern")]
    cpu_bars(result, compare(result, systems, wrk_of(bench), bench.plan.rounds), {"nginx": 1.2})
    return result


def get_1k_h2(case, bench):
    clients, streams = 16, 16
    result = Result(case, f"authorized GET 1 KiB, HTTP/2 over TLS, {clients} connections x {streams} streams")
    systems = [bench.get(name, True) for name in ALL]
    silent = [system for system in systems if not speaks_h2(system)]
    systems = [system for system in systems if system not in silent]

    def run(system, n):
        return load.h2load(system, clients, streams, n, len(BODY))
    enough = {}  # h2load counts requests, not seconds: as many as fit into the time
    for system in systems:
        got = run(system, 4000)
        enough[system.name] = max(4000, int(got["n"] / got["s"] * bench.plan.seconds))
    runs = compare(result, systems, lambda system: run(system, enough[system.name]), bench.plan.rounds)
    for system in silent:
        result.add(system.name, spoken=False, note="HTTP/2 is not spoken")
    if "postern" in runs:
        cpu_bars(result, runs, {"nginx": 1.0, **RIVALS})
    return result


def public(case, bench):
    result = Result(case, f"public route, no session, HTTP/1.1 plaintext, {bench.plan.connections} connections")
    systems = [bench.get("nginx", False), bench.get("postern", False).public()]
    cpu_bars(result, compare(result, systems, wrk_of(bench), bench.plan.rounds), {"nginx": 1.15})
    return result


def one_by_one(system):
    return load.wrk(system, 1, 1, len(BODY))


def started_anew(bench, names):
    """Rounds with all processes, the upstream's too, started anew several times, as the kernel puts them elsewhere then."""
    runs = {}
    for _ in range(bench.plan.starts):
        with contextlib.ExitStack() as stack:
            lab = stack.enter_context(contextlib.closing(Lab(1)))
            systems = [System("direct", port=lab.upstream_port),
                       *(stack.enter_context(Bench.MAKERS[name](lab, False)) for name in names)]
            for name, got in rounds_of(systems, one_by_one, bench.plan.rounds).items():
                runs.setdefault(name, []).extend(got)
    return runs


def on_one(bench, names):
    systems = [System("direct", port=bench.lab.upstream_port), *(bench.get(name, False) for name in names)]
    with on_one_cpu(systems, *bench.lab.processes):
        return rounds_of(systems, one_by_one, bench.plan.rounds)


def latency(case, where, runs_of, middle, bench):
    """middle: of the rounds; the mean where there are several placements, for a median jumps from one to the other."""
    result = Result(case, f"authorized GET 1 KiB, HTTP/1.1, one connection, {where}; what each adds to the upstream's own p50")
    runs = runs_of(bench, ("nginx", "nginx-auth-request", "haproxy-jwt", "postern"))
    mid = {name: {key: middle(run[key] for run in got) for key in got[0]} for name, got in runs.items()}
    added = {name: figures["p50_us"] - mid["direct"]["p50_us"] for name, figures in mid.items()}
    for name, got in runs.items():
        seen = sorted(round(run["p50_us"]) for run in got)
        ratio = {"cpu_ratio_to_nginx": round(measure.ratio(got, runs["nginx"]), 3)} if name != "direct" else {}
        result.add(name, requests_per_s=round(mid[name]["requests_per_s"]), cpu_us=round(mid[name]["cpu_us"], 2),
                   **ratio, p50_us=round(mid[name]["p50_us"]), p99_us=round(mid[name]["p99_us"]),
                   added_p50_us=round(added[name], 1), note=f"p50 of a round from {seen[0]} to {seen[-1]} us")
    if added["nginx"] <= 0:
        raise BenchError(f"nginx adds nothing to the upstream's own p50: {added['nginx']} us")
    result.bars.append(Bar("added p50 vs nginx's own addition", added["postern"] / added["nginx"], 1.6))
    return result


def handshake(case, bench):
    result = Result(case, "TLS 1.3 full handshakes, ECDSA P-256, one after the other; a request is a handshake here")
    systems = [bench.get(name, True) for name in ("nginx", "haproxy", "postern")]
    runs = compare(result, systems, lambda system: load.handshakes(system, bench.plan.seconds), bench.plan.rounds)
    for row in result.rows:
        row["handshakes_per_cpu_s"] = round(1e6 / row["cpu_us"])
    result.bars.append(Bar("handshakes/s of CPU vs nginx", measure.ratio(runs["nginx"], runs["postern"]), 0.95, True))
    return result


def bulk(case, up, tls, bench):
    size = bench.lab.bulk_bytes
    kind = "TLS 1.3" if tls else "plaintext"
    result = Result(case, f"{size >> 20} MiB {'up' if up else 'down'}, {kind}, one connection")
    systems = [bench.get(name, tls) for name in ("nginx", "postern")]

    def one(system):
        return load.transfer(system, SINK if up else BULK, size, bench.lab.bulk if up else None)
    runs = compare(result, systems, one, bench.plan.bulk_rounds)
    for row in result.rows:
        row["cpu_s_per_gib"] = round(statistics.median(r["cpu_us"] for r in runs[row["system"]]) / 1e6 * GIB / size, 3)
        del row["requests_per_s"]
    cpu_bars(result, runs, {"nginx": 1.1})
    return result


def held_kib(bench, name, tls, n):
    """(resident memory that n idle connections add, peak). nginx allots its slots at the start: they are connections'
    memory, so it is given as many as it needs, and its base is that of an nginx with next to none."""
    room, base = {}, 0
    if name == "nginx":
        room = {"slots": n // 2 + n // 16 + 128}
        with nginx.start_system(bench.lab, tls, slots=64) as small:
            base = small.rss_kib()
    with Bench.MAKERS[name](bench.lab, tls, **room) as system:  # memory has a history: a system of its own
        must_answer(system)
        base = base or system.rss_kib()
        with load.Holder(system, n, len(BODY)) as holder:
            held = system.rss_kib() - base
            holder.release()
        must_answer(system)
        return held, system.peak_kib()


def idle(case, tls, bench):
    n = bench.plan.idle
    result = Result(case, f"memory of {n} idle connections, {'TLS 1.3' if tls else 'plaintext'}, each after one answer")
    held = {}
    for name in ("nginx", "postern"):
        held[name], peak = held_kib(bench, name, tls, n)
        result.add(name, idle_bytes_per_connection=round(held[name] * 1024 / n), rss_kib=peak)
    result.bars.append(Bar("bytes per idle connection vs nginx", held["postern"] / held["nginx"], 1.0))
    return result


def many_routes(n, generation=0, policy=postern.POLICY):
    """The route asked for stands last; generation shows in its answers."""
    def routes(port, upstream):
        mark = f'    set_response_headers: {{x-generation: "g{generation}"}}\n'
        others = (postern.route(f"r{i}.localhost", port, upstream) for i in range(n - 1))
        return "".join(others) + postern.route("bench.localhost", port, upstream, mark, policy)
    return routes


SECOND_LOOK_S = 3  # until then each daemon has read a file as young as ours a second time


def route_cost(case, bench):
    few, many = 10, bench.plan.routes
    result = Result(case, f"the same request with {few} and with {many} routes, HTTP/1.1 plaintext")
    upstream = bench.lab.upstream_port
    with contextlib.ExitStack() as stack:
        systems = []
        for n in (few, many):
            system = stack.enter_context(postern.start_system(
                bench.lab, False, lambda port, n=n: many_routes(n)(port, upstream)))
            system.name = f"postern-{n}"
            systems.append(system)
            bench.warm(system)
        time.sleep(SECOND_LOOK_S)
        runs = compare(result, systems, lambda system: load.wrk(system, bench.plan.connections, 1, len(BODY)),
                       bench.plan.rounds * bench.plan.seconds)
    result.bars.append(Bar(f"CPU with {many} routes vs {few}", measure.ratio(
        runs[f"postern-{many}"], runs[f"postern-{few}"]), 1.05))
    return result


def time_change(system, before, after, generation):
    """The route is closed first, and opened by the change with a new mark in its answers: it is in force when both
    authorize (200) and the proxy (the mark) work with it."""
    system.change(many_routes(before, generation, postern.CLOSED)(system.port, system.lab.upstream_port),
                  lambda status, fields: status == 403)
    time.sleep(SECOND_LOOK_S)
    cpu_ns = system.cpu_ns()
    seconds = system.change(
        many_routes(after, generation)(system.port, system.lab.upstream_port),
        lambda status, fields: status == 200 and fields.get("x-generation") == f"g{generation}")
    return {"seconds": seconds, "cpu_us": (system.cpu_ns() - cpu_ns) / 1000}


def route_change(case, bench):
    few, many = 10, bench.plan.routes
    result = Result(case, "from the signal to the first answer by the new configuration of both proxy and authorize")
    with postern.start_system(bench.lab, False, lambda port: many_routes(few)(port, bench.lab.upstream_port)) as system:
        full = time_change(system, few, many, 1)
        one = measure.middle([time_change(system, many, many, 2 + i) for i in range(bench.plan.changes)])
        must_answer(system)
        for step, took in ((f"{few} to {many} routes", full), ("one route changed", one)):
            result.add("postern", step=step, seconds=round(took["seconds"], 3), cpu_us=round(took["cpu_us"]),
                       rss_kib=system.peak_kib(), note=step)
    result.bars.append(Bar(f"seconds to load {many} routes", full["seconds"], 2))
    result.bars.append(Bar(f"seconds to change one of {many} routes", one["seconds"], 0.1))
    return result


def floods(case, bench):
    """How long others wait during a flood. Attackers, victims and proxy share the processors here, and whoever attacks
    anything at all makes others wait for a processor; so the flood is also thrown at another Postern on this machine:
    what differs is what the proxy under attack makes its own clients wait."""
    result = Result(case, "p99 of other clients, 4 connections, 200 requests/s each, TLS 1.3: without a flood, with one at "
                          "another Postern of the machine, with one here")
    here = bench.get("postern", True)
    ratios = {}
    with postern.start_system(bench.lab, True) as elsewhere:
        for name in list(FLOODS)[:bench.plan.floods]:
            runs = {"calm": [], "elsewhere": [], "here": []}
            for i in range(bench.plan.bulk_rounds):
                for where in runs if i % 2 == 0 else reversed(runs):
                    target = {"calm": None, "elsewhere": elsewhere, "here": here}[where]
                    with load.Flood(target, name) if target else contextlib.nullcontext():
                        runs[where].append(load.paced(here, 4, 200, bench.plan.seconds))
            for where, run in runs.items():
                result.add("postern", step=f"{name}: {where}", note=f"{name}: {where}",
                           **{key: round(measure.middle(run)[key]) for key in ("p50_us", "p99_us")})
            ratios[name] = measure.ratio(runs["here"], runs["elsewhere"], "p99_us")
        must_answer(elsewhere)
    must_answer(here)
    worst = max(ratios, key=ratios.get)
    result.bars.append(Bar(f"p99 with the flood here vs elsewhere, the worst: {worst}", ratios[worst], 3))
    return result


def verdict(case, bench):
    """One evaluation alone: a program of ours that links authorize's code."""
    result = Result(case, "one evaluation of a policy: 3 addresses, 2 groups, 1 path rule; among 10 and 10,000 routes; "
                          "10,000 addresses")
    out = subprocess.run([os.path.join(BIN, "bench-verdict")], capture_output=True, text=True, check=True).stdout
    got = json.loads(out.splitlines()[-1])
    for name in ("typical", "among_many", "large", "every_route"):
        result.add("postern", step=name, cpu_us=got[f"{name}_ns"] / 1000, note=name)
    result.bars += [Bar("microseconds for the typical policy", got["typical_ns"] / 1000, 1),
                    Bar("among 10,000 routes vs 10", got["among_many_ns"] / got["typical_ns"], 1.2),
                    Bar("10,000 addresses vs 3", got["large_ns"] / got["typical_ns"], 1.2),
                    Bar("bytes allocated by an evaluation", got["allocated"], 0)]
    return result


def many_people(case, bench):
    """A person is a user, a directory user with 20 groups, and a session. The bar of the start is for a million."""
    few, many = 100, bench.plan.people
    result = Result(case, f"authorize with {many} people, 20 groups each, and a databroker on the same machine")
    pb = sessions.messages()
    with sessions.Replica(bench.lab, few) as small, sessions.Replica(bench.lab, many) as large:
        small.start()
        large.start()
        each = (large.memory() - small.memory()) / (many - few)
        with contextlib.ExitStack() as stack:
            asked = [stack.enter_context(sessions.Asking(system, pb, bench.plan.checks, among))
                     for system, among in ((small, few), (large, few), (large, many))]
            sessions.take_turns(asked, bench.plan.turns)
        for one in asked:
            result.add(one.replica.name, cpu_us=statistics.median(one.runs), seconds=round(one.replica.seconds, 3),
                       rss_kib=one.replica.peak_kib(), note=f"CPU of authorize for a check of one of {one.among} people")
        result.add("postern", bytes_per_session=round(each), seconds=round(large.seconds, 3))
        result.add("postern", requests_per_s=round(sessions.RECORDS * many / large.seconds), rss_kib=large.broker_peak_kib,
                   note=f"records a second of SyncLatest, {sessions.RECORDS * many} of them; peak memory of the databroker")
        result.bars += [Bar(f"the databroker's peak memory: {many} people told, over {few}",
                            large.broker_peak_kib / small.broker_peak_kib, 1.5),
                        Bar("bytes of memory a session", each, 600),
                        Bar(f"seconds until {many} people are served", large.seconds, 20 * many / 1e6)]
        result.bars += [Bar(f"CPU of a check of {one.among} among {many} people vs {few} among {few}", statistics.median(
            a / b for a, b in zip(one.runs, asked[0].runs)), 1.2) for one in asked[1:]]
    return result


def write_rates(case, bench):
    """A program of ours that links the databroker's stores; no transport, as with what it stands beside."""
    on_sqlite = case == "writes"
    result = Result(case, f"acknowledged writes of sessions, {writes.WRITERS} at once: "
                          + ("SQLite beside a loop of INSERTs" if on_sqlite else "PostgreSQL beside pgbench"))
    with contextlib.nullcontext() if on_sqlite else writes.Server() as server:
        one = writes.sqlite_round if on_sqlite else server.round
        theirs = ("INSERT loop", f"INSERT, {writes.WRITERS} a commit") if on_sqlite else ("pgbench",)
        for slow in (False, True) if on_sqlite else (False,):
            where = ", each fsync a millisecond longer" if slow else ""
            rounds = [one(bench.plan.seconds, **({"slow": True} if slow else {})) for _ in range(bench.plan.bulk_rounds)]
            for i, system in enumerate(("postern", *theirs)):
                result.add(system, requests_per_s=statistics.median(r[i] for r in rounds), note=where[2:])
            result.bars.append(Bar(f"writes a second, ours to theirs{where}", statistics.median(r[0] / r[1] for r in rounds),
                                   20 if on_sqlite else 0.7, at_least=True))
    return result


def reads_beside_writes(case, bench):
    """The latency is that of Get, and a request a write. With 64 writers both processors are busy, with their own program, too."""
    result = Result(case, f"Get of a session over gRPC, one after the other, alone and while {writes.WRITERS} writers write")
    with writes.Databroker(bench.lab) as broker:
        runs = {writers: [] for writers in (0, writes.WRITERS)}
        for _ in range(bench.plan.bulk_rounds):
            for writers, got in runs.items():
                got.append(broker.calls(bench.plan.seconds, writers))
        for writers, got in runs.items():
            result.add("postern", **{key: round(value, 1) for key, value in measure.middle(got).items()},
                       rss_kib=broker.peak_kib(), note=f"{writers} writers")
    result.bars.append(Bar("milliseconds of a Get beside the writers, p99", result.rows[-1]["p99_us"] / 1000, 10))
    return result


def fan_out(case, bench):
    """The latency is from the acknowledgement of a write until the last follower has it; the CPU is the databroker's."""
    result = Result(case, f"one session after the other, told to {FOLLOWERS} followers by Sync")
    with writes.Databroker(bench.lab) as broker:
        for followers in (1, FOLLOWERS):
            got = [broker.follow(bench.plan.followed, followers) for _ in range(bench.plan.bulk_rounds)]
            result.add("postern", **{key: round(value, 1) for key, value in measure.middle(got).items()},
                       rss_kib=broker.peak_kib(), note=f"{followers} followers; CPU of the databroker for a record and follower")
    result.bars.append(Bar(f"seconds until the last of {FOLLOWERS} has a write, p99", result.rows[-1]["p99_us"] / 1e6, 1))
    return result


def revocation(case, bench):
    """A row is what ended, of one kind of change; the bar of a change is that of its worst row."""
    people, count = bench.plan.fleet_people, bench.plan.revoked
    result = Result(case, f"{count} people of {people} revoked, {count} more taken out of their group: until each of "
                          f"{revoke.SIDES} proxies denies, until what was open at each is closed; {revoke.SIDES} authorizes")
    runs, rate, peak = revoke.measure(bench.lab, people, count)
    for change, after in runs.items():
        for what, seconds in after.items():
            us = sorted(round(s * 1e6) for s in seconds)
            result.add("postern", step=f"{change}: {what}", p50_us=us[len(us) // 2], p99_us=us[len(us) * 99 // 100],
                       rss_kib=peak, note=f"{change}: {what}")
        worst = max(row["p99_us"] for row in result.rows if row["step"].startswith(change)) / 1e6
        result.bars.append(Bar(f"seconds until who is {change} is out everywhere, p99", worst, 1))
    result.bars.append(Bar("requests/s of others meanwhile", rate, 0.95 * revoke.RATE, True))
    return result


CASES = {
    "verdict": functools.partial(verdict, "verdict"),
    "writes": functools.partial(write_rates, "writes"),
    "writes-pg": functools.partial(write_rates, "writes-pg"),
    "fan-out": functools.partial(fan_out, "fan-out"),
    "reads": functools.partial(reads_beside_writes, "reads"),
    "h1": functools.partial(get_1k, "h1", False),
    "h1-log": functools.partial(get_1k_log, "h1-log", False),
    "h1-tls": functools.partial(get_1k, "h1-tls", True),
    "h1-tls-log": functools.partial(get_1k_log, "h1-tls-log", True),
    "h2-tls": functools.partial(get_1k_h2, "h2-tls"),
    "public": functools.partial(public, "public"),
    "latency": functools.partial(latency, "latency", "wherever the kernel puts them", started_anew, measure.trimmed_mean),
    "latency-one-cpu": functools.partial(latency, "latency-one-cpu", "all on one processor", on_one, statistics.median),
    "handshake": functools.partial(handshake, "handshake"),
    "down": functools.partial(bulk, "down", False, False),
    "up": functools.partial(bulk, "up", True, False),
    "down-tls": functools.partial(bulk, "down-tls", False, True),
    "up-tls": functools.partial(bulk, "up-tls", True, True),
    "floods": functools.partial(floods, "floods"),
    "idle": functools.partial(idle, "idle", False),
    "idle-tls": functools.partial(idle, "idle-tls", True),
    "routes": functools.partial(route_cost, "routes"),
    "sessions": functools.partial(many_people, "sessions"),
    "revocation": functools.partial(revocation, "revocation"),
    "route-change": functools.partial(route_change, "route-change"),
}


def run(name, bench):
    """A case that fails says so in place of its figures; the others go on."""
    start = time.monotonic()
    try:
        result = CASES[name](bench)
    except Exception as e:
        result = Result(name, "", error=f"{type(e).__name__}: {e}")
    result.title += f" ({time.monotonic() - start:.0f} s)"
    return result
