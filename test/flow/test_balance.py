"""Several upstreams: shares, failures, health checks, ejections, bounds, and names that change their addresses."""

import collections
import concurrent.futures
import contextlib
import os
import socket
import ssl
import tempfile
import threading
import time

import pytest
from nameserver import NameServer, Zone
from sanitize import PATIENCE
from stand import Stand, Upstream, make_certificate
from trial import wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


def route(to, more="", name="public"):
    if not isinstance(to, str):
        to = "[" + ", ".join(f"'http://127.0.0.1:{u.port}'" for u in to) + "]"
    return f"""
  - from: https://{name}.localhost:PORT
    to: {to}
    allow_public_unauthenticated_access: true
{more}"""


class Running:
    def __init__(self, routes, closes=(), **kwargs):
        self.stand, self.closes = Stand(routes, **kwargs), closes

    def __enter__(self):
        return self.stand.start()

    def __exit__(self, *error):
        self.stand.stop()
        for c in self.closes:
            c.close()


class Told(Upstream):
    """Answers 200, on /health what .healthy says; counts the requests but those for /health."""

    def __init__(self, answer=OK, **kwargs):
        self.said, self.healthy, self.checks = answer, True, 0
        super().__init__(self.tell_status, **kwargs)

    def tell_status(self, head, body):
        if head.split(b" ")[1] == b"/health":
            self.heads.pop()
            self.checks += 1
            return OK if self.healthy else b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
        return self.said() if callable(self.said) else self.said

    def close(self):
        if self.listener.fileno() >= 0:
            super().close()

    @property
    def n(self):
        return len(self.heads)


def ask(stand, n, method="GET", name="public", browser=None, **kwargs):
    """How often each status came."""
    b = browser or stand.browser()
    return collections.Counter(b.fetch(stand.url(name), method, **kwargs).status_code for _ in range(n))


def ask_at_once(stand, n, name="public"):
    """Statuses and codes of n requests, each on a connection of its own, all at once."""
    def one(_):
        answer = stand.browser().fetch(stand.url(name))
        return answer.status_code, answer.json().get("code") if answer.status_code >= 400 else None
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return collections.Counter(pool.map(one, range(n)))


class Gate:
    """Holds what passes through it until it is opened."""

    def __init__(self):
        self.event = threading.Event()

    def __call__(self):
        self.event.wait(60 * PATIENCE)
        return OK

    def ask(self, stand, n, held):
        """As ask_at_once; opens when all but `held` have their answer."""
        def one(_):
            answer = stand.browser().fetch(stand.url("public"))
            return answer.status_code, answer.json().get("code") if answer.status_code >= 400 else None
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            asked = [pool.submit(one, i) for i in range(n)]
            for k, done in enumerate(concurrent.futures.as_completed(asked, 30 * PATIENCE)):
                done.result()
                if k + 1 >= n - held:
                    self.event.set()
            return collections.Counter(f.result() for f in asked)


def events(stand, event):
    return [line for line in stand.logs("proxy") if line.get("event") == event]


# ---- shares ----------------------------------------------------------------------------------------------------------

def test_upstreams_get_their_share_by_weight():
    a, b = Told(), Told()
    with Running(route(f"['http://127.0.0.1:{a.port},3', 'http://127.0.0.1:{b.port},1']"), [a, b]) as stand:
        assert ask(stand, 80) == {200: 80}
        assert 58 <= a.n <= 62 and a.n + b.n == 80, (a.n, b.n)


@pytest.mark.parametrize("policy", ["least_request", "random"])
def test_all_upstreams_are_used(policy):
    ups = [Told() for _ in range(3)]
    with Running(route(ups, f"    load_balancing_policy: {policy}\n"), ups) as stand:
        assert ask(stand, 90) == {200: 90}
        assert min(u.n for u in ups) >= 12, [u.n for u in ups]


def test_least_request_spares_the_busy_one():
    slow, fast = Told(lambda: time.sleep(1) or OK), Told()
    with Running(route([slow, fast], "    load_balancing_policy: least_request\n"), [slow, fast]) as stand:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: ask(stand, 10), range(16)))
        # By turns each would get 80. Both draws meet the slow one once in four, and it is idle at first.
        assert slow.n < 70 and slow.n + fast.n == 160, (slow.n, fast.n)


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_a_client_stays_where_it_is_and_moves_when_that_ends(policy):
    ups = [Told() for _ in range(4)]
    with Running(route(ups, f"    load_balancing_policy: {policy}\n"), ups) as stand:
        ask(stand, 20)
        home = max(ups, key=lambda u: u.n)
        assert home.n == 20, [u.n for u in ups]
        home.close()
        assert ask(stand, 20) == {200: 20}
        assert sorted(u.n for u in ups if u is not home) == [0, 0, 20]


def test_sessions_are_kept_apart_by_a_hash():
    ups = [Told() for _ in range(3)]
    more = "    load_balancing_policy: maglev\n"
    routes = route(ups, more, "app").replace("allow_public_unauthenticated_access", "allow_any_authenticated_user")
    with Running(routes, ups) as stand:
        homes = []
        for _ in range(6):
            b = stand.browser()
            assert b.login(stand.url("app"), "user@example.com").status_code == 200
            before = [u.n for u in ups]
            assert ask(stand, 5, name="app", browser=b) == {200: 5}
            grown = [u.n - n for u, n in zip(ups, before)]
            assert sorted(grown) == [0, 0, 5], grown
            homes.append(grown.index(5))
        assert len(set(homes)) > 1, homes  # all six at one of three: once in 243 times, by session ids that are random


# ---- failures --------------------------------------------------------------------------------------------------------

def test_a_killed_upstream_is_no_error_for_anybody():
    ups = [Told() for _ in range(2)]
    with Running(route(ups), ups) as stand:
        assert ask(stand, 10) == {200: 10}
        ups[0].close()
        assert ask(stand, 30) == {200: 30}
        # Nothing was sent when a connection did not come about: also a body may go to the next.
        assert ask(stand, 30, "POST", data=b"x" * 1000) == {200: 30}
        ups[1].close()
        assert ask(stand, 3) == {502: 3}


def test_only_what_may_be_sent_twice_is_asked_again():
    dies = Upstream(raw=lambda s: s.recv(65536))
    lives = Told()
    with Running(route([dies, lives]), [dies, lives]) as stand:
        assert ask(stand, 20) == {200: 20}
        posts = ask(stand, 20, "POST", data=b"once")
        assert posts[502] >= 8 and posts[200] + posts[502] == 20, posts
        assert lives.n == 20 + posts[200]


def test_nothing_is_asked_again_when_an_answer_began():
    cuts = Upstream(raw=lambda s: (s.recv(65536), s.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")))
    lives = Told()
    with Running(route([cuts, lives]), [cuts, lives]) as stand:
        got = ask(stand, 20)
        assert got[502] >= 8 and lives.n == got[200], got


def test_retries_are_bounded():
    dies, lives = Upstream(raw=lambda s: s.recv(65536)), Told()
    more = "    circuit_breaker_thresholds: {max_retries: 0}\n"
    with Running(route([dies, lives], more), [dies, lives]) as stand:
        got = ask(stand, 20)
        assert got[503] >= 8 and got[200] >= 8, got
        wait_for("a line that says so", lambda: "upstream-max-retries" in {
            line.get("response-code-details") for line in events(stand, "http-request")})


# ---- health checks ---------------------------------------------------------------------------------------------------

CHECK = "{timeout: 1s, interval: 100ms, unhealthy_threshold: 2, healthy_threshold: 2, "


def test_an_unhealthy_upstream_is_left_alone_until_it_is_well():
    ups = [Told() for _ in range(3)]
    more = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}]\n"
    with Running(route(ups, more), ups) as stand:
        wait_for("three healthy ones", lambda: len(events(stand, "endpoint.healthy")) == 3)
        ups[0].healthy = False
        wait_for("it to be noticed", lambda: events(stand, "endpoint.unhealthy"))
        assert "status 503" in events(stand, "endpoint.unhealthy")[0]["why"]
        time.sleep(0.3 * PATIENCE)
        before = ups[0].n
        assert ask(stand, 30) == {200: 30}
        assert ups[0].n == before
        ups[0].healthy = True
        wait_for("it to be well again", lambda: len(events(stand, "endpoint.healthy")) == 4)
        time.sleep(0.3 * PATIENCE)
        ask(stand, 30)
        assert ups[0].n > before


def test_health_survives_a_reload():
    ups = [Told() for _ in range(2)]
    more = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}]\n"
    with Running(route(ups, more), ups) as stand:
        wait_for("two healthy ones", lambda: len(events(stand, "endpoint.healthy")) == 2)
        ups[0].healthy = False
        wait_for("it to be noticed", lambda: events(stand, "endpoint.unhealthy"))
        time.sleep(0.3 * PATIENCE)
        before, connections = ups[0].n, ups[1].connections - ups[1].checks
        ask(stand, 5)
        for k, change in enumerate((route(ups, more) + route(ups, more, "other"),  # another route: the same cluster
                                    route(ups, more + "    load_balancing_policy: random\n"))):  # another cluster
            stand.write_config(change)
            wait_for("the reload", lambda: len(events(stand, "config.applied")) > k)
            assert ask(stand, 20) == {200: 20}
        assert ups[0].n == before
        assert ups[1].connections - ups[1].checks <= connections + 6  # kept connections were not thrown away
        assert len(events(stand, "endpoint.unhealthy")) <= 2  # the second: of the other route


def test_all_down_is_panic_or_503():
    ups = [Told() for _ in range(2)]
    for u in ups:
        u.healthy = False
    check = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}]\n"
    routes = route(ups, check) + route(ups, check + "    healthy_panic_threshold: 0\n", "other")
    with Running(routes, ups) as stand:
        wait_for("checks", lambda: min(u.checks for u in ups) >= 4)
        assert ask(stand, 20) == {200: 20}  # panic: better a sick one than none
        assert min(u.n for u in ups) >= 5
        refused = stand.browser().fetch(stand.url("other"))
        assert refused.status_code == 503 and refused.json()["code"] == "no-healthy-upstream"
        assert sum(u.n for u in ups) == 20


def test_tcp_checks_say_and_hear():
    def pong(s):
        while data := s.recv(100):
            s.sendall(b"+" + data[:2] + b"xx" + b"PONG\r\n" if data.startswith(b"PING") else OK)
    good, bad = Upstream(raw=pong), Upstream(raw=lambda s: (s.recv(100), s.sendall(b"-ERR")))
    more = (f"    health_checks: [{CHECK} tcp_health_check: {{send: {{text: '50494e47'}}, "
            "receive: [{text: '2b'}, {text: '504f4e47'}]}}]\n")
    with Running(route([good, bad], more), [good, bad]) as stand:
        wait_for("the good one", lambda: events(stand, "endpoint.healthy"))
        time.sleep(0.5 * PATIENCE)
        assert ask(stand, 20) == {200: 20}
        assert [e["endpoint"] for e in events(stand, "endpoint.healthy")] == [f"127.0.0.1:{good.port}"]


def test_tcp_checks_see_a_closed_port():
    good, gone = Told(), Told()
    gone.close()
    more = f"    health_checks: [{CHECK} tcp_health_check: {{}}}}]\n"
    with Running(route([good, gone], more), [good]) as stand:
        wait_for("the good one", lambda: events(stand, "endpoint.healthy"))
        assert len(events(stand, "endpoint.healthy")) == 1


class GrpcHealth:
    """A real gRPC server with the standard health service."""

    def __init__(self):
        import grpc
        self.serving = {"": True}
        handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, lambda b: b, lambda b: b)})
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[handler])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def check(self, request, context):
        import grpc
        name = request[2:].decode()
        if name not in self.serving:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        return b"\x08\x01" if self.serving[name] else b"\x08\x02"

    def close(self):
        self.server.stop(0)


def test_grpc_checks_ask_a_real_server():
    g = GrpcHealth()
    g.serving["shop.Cart"] = False
    more = f"    health_checks: [{CHECK} grpc_health_check: {{%s}}}}]\n"
    routes = route([g], more % "") + route([g], more % "service_name: shop.Cart", "other")
    with Running(routes, [g]) as stand:
        wait_for("the server", lambda: len(events(stand, "endpoint.healthy")) == 1)
        wait_for("the service", lambda: events(stand, "endpoint.unhealthy"))
        g.serving["shop.Cart"] = True
        wait_for("the service to serve", lambda: len(events(stand, "endpoint.healthy")) == 2)
        g.serving[""] = False
        wait_for("the server to say no", lambda: len(events(stand, "endpoint.unhealthy")) == 2)
        del g.serving["shop.Cart"]
        wait_for("the service to go", lambda: len(events(stand, "endpoint.unhealthy")) == 3)
        said = [e["why"] for e in events(stand, "endpoint.unhealthy")]
        assert said[:2] == ["it says that it does not serve"] * 2 and "grpc-status 5" in said[2], said


# ---- ejections -------------------------------------------------------------------------------------------------------

def test_an_upstream_that_answers_5xx_is_ejected_for_a_growing_time():
    good, bad = Told(), Told(BROKEN)
    base = 3 * PATIENCE
    more = (f"    outlier_detection: {{consecutive_5xx: 3, interval: 100ms, base_ejection_time: {base}s, "
            "max_ejection_percent: 50}\n")
    with Running(route([good, bad], more), [good, bad]) as stand:
        assert ask(stand, 30)[500] >= 3
        wait_for("the ejection", lambda: events(stand, "endpoint.ejected"))
        time.sleep(0.2)
        before = bad.n
        assert ask(stand, 20) == {200: 20}
        assert bad.n == before
        wait_for("its way back", lambda: events(stand, "endpoint.back"))

        def second():
            ask(stand, 10)
            return len(events(stand, "endpoint.ejected")) == 2
        wait_for("the second ejection", second)
        times = [e["for-ms"] for e in events(stand, "endpoint.ejected")]
        assert times[0] == 1000 * base and times[1] in (1000 * base, 2000 * base), times


def test_a_dead_upstream_is_ejected_by_its_connections():
    good, dead = Told(), Told()
    dead.close()
    more = "    outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 50}\n"
    with Running(route([good, dead], more), [good]) as stand:
        assert ask(stand, 20) == {200: 20}
        wait_for("the ejection", lambda: events(stand, "endpoint.ejected"))
        assert events(stand, "endpoint.ejected")[0]["endpoint"] == f"127.0.0.1:{dead.port}"


# ---- bounds ----------------------------------------------------------------------------------------------------------

def test_open_requests_are_bounded():
    gate = Gate()
    slow = Told(gate)
    with Running(route([slow], "    circuit_breaker_thresholds: {max_requests: 3}\n"), [slow]) as stand:
        got = gate.ask(stand, 8, 3)
        assert got == {(200, None): 3, (503, "upstream-max-requests"): 5}, got
        assert ask(stand, 1) == {200: 1}


def test_connections_are_bounded_and_requests_wait_for_one():
    busy = Told(lambda: time.sleep(0.1) or OK)
    with Running(route([busy], "    circuit_breaker_thresholds: {max_connections: 1}\n"), [busy]) as stand:
        assert ask_at_once(stand, 12) == {(200, None): 12}
        assert busy.connections <= 2  # one for each worker at most, used again and again


def test_a_kept_connection_gives_its_place_to_another_endpoint():
    ups = [Told() for _ in range(3)]
    more = "    circuit_breaker_thresholds: {max_connections: 1}\n    load_balancing_policy: random\n"
    with Running(route(ups, more), ups) as stand:
        assert ask(stand, 30) == {200: 30}
        assert min(u.n for u in ups) > 0


def test_waiting_requests_are_bounded():
    slow = Told(lambda: time.sleep(1) or OK)
    more = "    circuit_breaker_thresholds: {max_connections: 1, max_pending_requests: 1}\n"
    with Running(route([slow], more), [slow]) as stand:
        got = ask_at_once(stand, 10)
        assert set(got) == {(200, None), (503, "upstream-max-pending-requests")}, got
        assert 1 <= got[(200, None)] <= 6


def test_global_bounds_hold_for_routes_that_set_none():
    gate = Gate()
    slow = Told(gate)
    with Running(route([slow]), [slow], settings="circuit_breaker_thresholds: {max_requests: 1}\n") as stand:
        assert gate.ask(stand, 4, 1) == {(200, None): 1, (503, "upstream-max-requests"): 3}


# ---- names -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def names():
    server = NameServer()
    yield server
    server.close()


def dns(names, more=""):
    return (f"dns_resolvers: ['127.0.0.1:{names.port}']\ndns_query_timeout: 500ms\ndns_query_tries: 1\n"
            f"dns_failure_refresh_rate: 300ms\n{more}")


def on_both(other="127.0.0.3"):
    """Two upstreams of one port, at 127.0.0.2 and another address."""
    for _ in range(20):
        one = Told(host="127.0.0.2")
        try:
            return one, Told(host=other, port=one.port)
        except OSError:
            one.close()
    raise AssertionError("no port is free at both")


def test_all_addresses_of_a_name_are_used_and_followed(names):
    one, two = on_both()
    names.names["app.test"] = Zone(["127.0.0.2", "127.0.0.3"], ttl=1)
    with Running(route(f"http://app.test:{one.port}"), [one, two], settings=dns(names)) as stand:
        assert ask(stand, 20) == {200: 20}
        assert min(one.n, two.n) >= 8, (one.n, two.n)
        names.names["app.test"] = Zone(["127.0.0.3"], ttl=1)
        asked = len(names.asked)
        wait_for("the time to live to end", lambda: len(names.asked) > asked)
        time.sleep(0.3 * PATIENCE)
        before = one.n
        assert ask(stand, 20) == {200: 20}
        assert one.n == before
        assert header_host(two) == f"app.test:{one.port}"


def header_host(upstream):
    return next(line for line in upstream.heads[-1].decode().split("\r\n") if line.lower().startswith("host:"))[5:].strip()


@pytest.mark.parametrize("failure", ["silent", "servfail", None])
def test_the_last_good_answer_stays_when_the_resolver_fails(names, failure):
    one = Told(host="127.0.0.2")
    names.names["app.test"] = Zone(["127.0.0.2"], ttl=1)
    with Running(route(f"http://app.test:{one.port}"), [one], settings=dns(names)) as stand:
        assert ask(stand, 2) == {200: 2}
        if failure:
            names.names["app.test"] = failure
        else:
            del names.names["app.test"]
        wait_for("the failure", lambda: events(stand, "name.not-found"))
        assert events(stand, "name.not-found")[0]["kept"] == 1
        assert ask(stand, 5) == {200: 5}
        names.names["app.test"] = Zone(["127.0.0.2"], ttl=60)
        wait_for("the answer", lambda: events(stand, "name.found"))


def test_a_name_that_appears_later_is_found(names):
    one = Told(host="127.0.0.2")
    with Running(route(f"http://app.test:{one.port}"), [one], settings=dns(names)) as stand:
        assert ask(stand, 1) == {502: 1}
        names.names["app.test"] = Zone(["127.0.0.2"])
        wait_for("the name", lambda: ask(stand, 1) == {200: 1})


def test_a_dead_address_is_passed_over(names):
    one = Told(host="127.0.0.2")
    names.names["app.test"] = Zone(["127.0.0.2", "127.0.0.9"])  # nobody listens at .9
    with Running(route(f"http://app.test:{one.port}"), [one], settings=dns(names)) as stand:
        assert ask(stand, 20) == {200: 20}
        assert ask(stand, 10, "POST", data=b"x") == {200: 10}


@pytest.mark.parametrize("family, answered", [("V4_PREFERRED", "46"), ("AUTO", "46"), ("V4_ONLY", "4"), ("V6_ONLY", "6"), ("ALL", "46")])
def test_families_are_as_configured(names, family, answered):
    four, six = on_both("::1")
    names.names.update({"both.test": Zone(["127.0.0.2"], ["::1"], 60), "four.test": Zone(["127.0.0.2"], ttl=60), "six.test": Zone([], ["::1"], 60)})
    routes = "".join(route(f"http://{n}.test:{four.port}", name=n) for n in ("both", "four", "six"))
    with Running(routes, [four, six], settings=dns(names, f"dns_lookup_family: {family}\n"), names=(
            "both.localhost", "four.localhost", "six.localhost")) as stand:
        assert ask(stand, 4, name="both") == {200: 4}
        used = [u.n for u in (four, six)]
        assert used == {"V4_PREFERRED": [4, 0], "AUTO": [0, 4], "V4_ONLY": [4, 0], "V6_ONLY": [0, 4]}.get(family, used)
        assert family != "ALL" or min(used) >= 1
        for name, digit in (("four", "4"), ("six", "6")):
            assert ask(stand, 1, name=name) == {200 if digit in answered else 502: 1}, name


def test_tcp_is_used_when_asked_for(names):
    one = Told(host="127.0.0.2")
    names.names["app.test"] = Zone(["127.0.0.2"])
    with Running(route(f"http://app.test:{one.port}"), [one], settings=dns(names, "dns_use_tcp: true\n")) as stand:
        assert ask(stand, 2) == {200: 2}
        assert {t for _, _, t in names.asked} == {"tcp"}


def test_a_slow_resolver_holds_nobody_up(names):
    one = Told()
    names.names["slow.test"] = "silent"
    settings = dns(names).replace("500ms", "3s")
    routes = route([one]) + route("http://slow.test:1", name="other")
    with Running(routes, [one], settings=settings) as stand:
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(stand.browser().fetch(stand.url("other")).status_code))
        waiting.start()
        assert ask(stand, 100) == {200: 100}
        assert answers == []
        waiting.join()
        assert answers == [502]


def test_resolvers_change_with_a_reload(names):
    one = Told(host="127.0.0.2")
    names.names["app.test"] = Zone(["127.0.0.2"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = dns(names).replace(str(names.port), str(nobody.getsockname()[1]))
        with Running(route(f"http://app.test:{one.port}"), [one], settings=settings) as stand:
            assert ask(stand, 1) == {502: 1}
            stand.settings = dns(names)
            stand.write_config()
            wait_for("the new resolver", lambda: ask(stand, 1) == {200: 1})


# ---- over HTTP/2, TLS and unix sockets ---------------------------------------------------------------------------------

class H2Upstream:
    """A server of HTTP/2 from the first byte; counts requests and connections. say(): called for each request."""

    def __init__(self, say=lambda: None, host="127.0.0.1"):
        self.say, self.n, self.connections, self.most = say, 0, 0, 0
        self.listener = socket.create_server((host, 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        import h2.config
        import h2.connection
        import h2.events
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        lock, open_now = threading.Lock(), set()

        def answer(stream):
            if self.say() == "die":
                s.shutdown(socket.SHUT_RDWR)
                return
            with lock:
                c.send_headers(stream, [(":status", "200")])
                c.send_data(stream, b"ok", end_stream=True)
                open_now.discard(stream)
                s.sendall(c.data_to_send())
        with s, contextlib.suppress(OSError):
            c.initiate_connection()
            s.sendall(c.data_to_send())
            while data := s.recv(65536):
                with lock:
                    events = c.receive_data(data)
                    s.sendall(c.data_to_send())
                for event in events:
                    if isinstance(event, h2.events.StreamEnded):
                        self.n += 1
                        open_now.add(event.stream_id)
                        self.most = max(self.most, len(open_now))
                        threading.Thread(target=answer, args=(event.stream_id,), daemon=True).start()

    def close(self):
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()


def test_bounds_count_streams_not_connections():
    gate = Gate()
    slow = H2Upstream(gate)
    more = "    circuit_breaker_thresholds: {max_requests: 3}\n"
    with Running(route(f"h2c://127.0.0.1:{slow.port}", more), [slow]) as stand:
        assert gate.ask(stand, 8, 3) == {(200, None): 3, (503, "upstream-max-requests"): 5}


def test_requests_that_wait_share_the_connection_when_it_comes():
    slow = H2Upstream(lambda: time.sleep(0.3))
    more = "    circuit_breaker_thresholds: {max_connections: 1}\n"
    with Running(route(f"h2c://127.0.0.1:{slow.port}", more), [slow]) as stand:
        assert ask_at_once(stand, 20) == {(200, None): 20}
        assert slow.connections <= 2 and slow.most >= 4, (slow.connections, slow.most)


def test_streams_are_spread_over_endpoints():
    ups = [H2Upstream(), H2Upstream()]
    with Running(route("[" + ", ".join(f"h2c://127.0.0.1:{u.port}" for u in ups) + "]"), ups) as stand:
        assert ask(stand, 40) == {200: 40}
        assert abs(ups[0].n - 20) <= 2, [u.n for u in ups]


def test_a_stream_that_dies_is_asked_at_another_endpoint():
    dies, lives = H2Upstream(lambda: "die"), H2Upstream()
    with Running(route(f"['h2c://127.0.0.1:{dies.port}', 'h2c://127.0.0.1:{lives.port}']"), [dies, lives]) as stand:
        assert ask(stand, 20) == {200: 20}
        assert lives.n == 20 and dies.n >= 8
        posts = ask(stand, 20, "POST", data=b"once")
        assert posts[502] >= 8 and lives.n == 20 + posts[200], posts


class TlsTold(Told):
    def __init__(self):
        self.key, self.cert = make_certificate(tempfile.mkdtemp(prefix="postern-up-"), "backend.localhost")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.cert, self.key)
        super().__init__()

    def serve(self, s):
        try:
            super().serve(self.context.wrap_socket(s, server_side=True))
        except OSError:
            s.close()


def test_checks_over_tls_trust_what_the_route_trusts():
    u = TlsTold()
    check = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}]\n    tls_upstream_server_name: backend.localhost\n"
    url = f"https://127.0.0.1:{u.port}"
    with Running(route(url, check + f"    tls_custom_ca_file: {u.cert}\n") + route(url, check, "other"), [u]) as stand:
        wait_for("the trusted one", lambda: events(stand, "endpoint.healthy"))
        wait_for("the other", lambda: events(stand, "endpoint.unhealthy"))
        assert "certificate" in events(stand, "endpoint.unhealthy")[0]["why"], events(stand, "endpoint.unhealthy")
        assert ask(stand, 2) == {200: 2}


def test_checks_reach_ipv6():
    u = Told(host="::1")
    more = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}, {CHECK} tcp_health_check: {{}}}}]\n"
    with Running(route(f"'http://[::1]:{u.port}'", more), [u]) as stand:
        wait_for("the address", lambda: events(stand, "endpoint.healthy"))
        assert ask(stand, 2) == {200: 2}


def test_checks_reach_unix_sockets():
    path = os.path.join(tempfile.mkdtemp(prefix="postern-up-"), "s")
    u = Told()
    u.listener.shutdown(socket.SHUT_RDWR)
    u.acceptor.join(5)
    u.listener = socket.socket(socket.AF_UNIX)
    u.listener.bind(path)
    u.listener.listen(16)
    u.acceptor = threading.Thread(target=u.accept, daemon=True)
    u.acceptor.start()
    more = f"    health_checks: [{CHECK} http_health_check: {{path: /health}}}}]\n"
    with Running(route(f"unix:{path}", more), [u]) as stand:
        wait_for("the socket", lambda: events(stand, "endpoint.healthy"))
        assert u.checks >= 1 and ask(stand, 2) == {200: 2}
