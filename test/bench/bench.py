"""Postern beside nginx on the same machine, the same upstream, the same load, alternating.

Prints a table and writes build/bench.json: a list of {case, system, requests_per_s, cpu_us,
cpu_ratio_to_nginx, p50_us, p99_us, rss_kib}. CPU is user and system time of all processes between
client and upstream, from the scheduler's own account, divided by the requests answered.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from trial import BIN, ROOT, Browser, children_of, free_port, wait_for  # noqa: E402
import requests  # noqa: E402

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
BROWSER = [
    "-H", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "-H", "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "-H", "Accept-Encoding: gzip, deflate, br",
    "-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "-H", "Sec-Fetch-Mode: cors", "-H", "Sec-Fetch-Dest: empty", "-H", "Sec-Fetch-Site: same-origin",
]


class Processes:
    """A system under test: what it runs, what it used."""

    def __init__(self, name):
        self.name, self.roots = name, []

    def add(self, process):
        self.roots.append(process)

    def pids(self):
        for root in self.roots:
            yield root.pid
            yield from children_of(root.pid)

    def cpu_ns(self):
        total = 0
        for pid in self.pids():
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                        total += int(f.read().split()[0])
            except OSError:
                pass
        return total

    def peak_kib(self):
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/status") as f:
                    total += int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
            except (OSError, AttributeError):
                pass
        return total

    def stop(self):
        for root in reversed(self.roots):
            root.send_signal(signal.SIGTERM)
        for root in reversed(self.roots):
            try:
                root.wait(15)
            except subprocess.TimeoutExpired:
                root.kill()


def run(args, env=None, log=None):
    return subprocess.Popen(args, stdout=log or subprocess.DEVNULL, stderr=log or subprocess.DEVNULL, cwd=ROOT,
                            env={**os.environ, **(env or {})})


def nginx(folder, name, workers, body):
    conf = os.path.join(folder, name + ".conf")
    with open(conf, "w") as f:
        f.write(f"""daemon off; worker_processes {workers}; pid {folder}/{name}.pid; error_log /dev/null;
worker_rlimit_nofile 65536;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/{name}-b; proxy_temp_path {folder}/{name}-p; fastcgi_temp_path {folder}/{name}-f;
  uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
{body} }}
""")
    return run([NGINX, "-p", folder, "-c", conf])


def certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=bench",
                    "-addext", "subjectAltName=DNS:bench.localhost,DNS:authenticate.localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)
    return key, cert


def nginx_listen(port, tls, key, cert):
    if tls:
        return f"listen 127.0.0.1:{port} ssl reuseport; ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"
    return f"listen 127.0.0.1:{port} reuseport;"


def start_upstream(folder):
    port = free_port()
    body = "x" * 1024
    p = nginx(folder, "upstream", 1,
              f'server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "{body}"; }} }}')
    wait_for("the upstream", lambda: requests.get(f"http://127.0.0.1:{port}/").ok)
    return p, port


def start_nginx(folder, upstream, tls, key, cert, auth):
    system = Processes("nginx-auth-request" if auth else "nginx")
    port, location, extra = free_port(), "", ""
    if auth:
        authport = free_port()
        p = nginx(folder, f"auth{port}", 1, f"server {{ listen 127.0.0.1:{authport}; location / {{ return 200; }} }}")
        system.add(p)
        extra = f"""upstream auth {{ server 127.0.0.1:{authport}; keepalive 64; }}"""
        location = """auth_request /auth;"""
    auth_location = """location = /auth { internal; proxy_pass http://auth; proxy_pass_request_body off;
        proxy_set_header Content-Length ""; proxy_http_version 1.1; proxy_set_header Connection ""; }""" if auth else ""
    p = nginx(folder, f"nginx{port}", 2, f"""
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  {extra}
  server {{ {nginx_listen(port, tls, key, cert)}
    {auth_location}
    location / {{ {location} proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}""")
    system.add(p)
    scheme = "https" if tls else "http"
    wait_for("nginx", lambda: requests.get(f"{scheme}://127.0.0.1:{port}/", verify=False).ok)
    return system, f"{scheme}://127.0.0.1:{port}/", []


PASSWORD = "bench-password"


def start_postern(folder, upstream, tls, key, cert):
    """The four daemons, a real login, and then the session's cookie for the load generator."""
    system = Processes("postern")
    port = free_port()
    home = tempfile.mkdtemp(prefix="postern-", dir=folder)
    scheme = "https" if tls else "http"
    hashed = subprocess.run([os.path.join(BIN, "postern"), "hash-password"], input=PASSWORD + "\n",
                            capture_output=True, text=True, check=True).stdout.strip()
    with open(os.path.join(home, "users.yaml"), "w") as f:
        f.write(f'- email: bench@example.com\n  name: Bench\n  password: "{hashed}"\n  groups: [staff]\n')
    secret = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True).stdout.strip()
    listener = f"certificates:\n  - cert: {cert}\n    key: {key}\n" if tls else "insecure_server: true\n"
    config = os.path.join(home, "config.yaml")
    with open(config, "w") as f:
        f.write(f"""address: 127.0.0.1:{port}
{listener}shared_secret: {secret}
authenticate_service_url: https://authenticate.localhost:{port}
authenticate_internal_service_url: unix:{home}/authenticate-http.sock
authenticate_grpc_url: unix:{home}/authenticate.sock
authorize_service_url: unix:{home}/authorize.sock
databroker_service_url: unix:{home}/databroker.sock
databroker_storage_type: sqlite
databroker_storage_connection_string: {home}/databroker.sqlite
idp_provider: local
idp_local_users_file: {home}/users.yaml
routes:
  - from: https://bench.localhost:{port}
    to: http://127.0.0.1:{upstream}
    pass_identity_headers: true
    policy:
      - allow:
          or:
            - email: {{is: a@example.com}}
            - email: {{is: b@example.com}}
            - email: {{is: c@example.com}}
            - groups: {{has: admins}}
            - groups: {{has: staff}}
""")
    log = open(os.path.join(home, "log"), "wb")
    for daemon in ("databroker", "authorize", "authenticate", "proxy"):
        env = {"HEALTH_CHECK_ADDR": f"unix:{home}/health-{daemon}.sock"}
        if daemon != "proxy":
            env["GRPC_ADDRESS"] = f"unix:{home}/{daemon}.sock"
        system.add(run([os.path.join(BIN, "postern-" + daemon), "--config", config], env, log))
    cookie = wait_for("a login at Postern", lambda: login(scheme, port), 60, 0.5)
    return system, f"{scheme}://127.0.0.1:{port}/", ["-H", f"Host: bench.localhost:{port}", "-H", f"Cookie: {cookie}"]


def login(scheme, port):
    """The login as a browser makes it; behind `insecure_server` the links still say https."""
    browser = Browser(None)
    if scheme == "http":
        one = browser.one

        def plain(url, *args, **kwargs):
            url = url.replace("https://", "http://", 1)
            jar = kwargs.setdefault("headers", {})
            for name in ("Origin", "Referer"):  # the browser's side of the TLS that is not here
                if name in jar:
                    jar[name] = jar[name].replace("http://", "https://", 1)
            host = url.split("/")[2].split(":")[0]
            jar["Cookie"] = "; ".join(f"{k}={v}" for k, v in cookies.get(host, {}).items())
            answer = one(url, *args, **kwargs)
            for text in answer.raw.headers.getlist("Set-Cookie"):
                name, value = text.split(";")[0].split("=", 1)
                cookies.setdefault(host, {})[name] = value
            browser.session.cookies.clear()
            return answer
        cookies = {}
        browser.one = plain
    page = browser.login(f"{scheme}://bench.localhost:{port}/", "bench@example.com", PASSWORD)
    assert page.status_code == 200 and page.text.startswith("xxxx"), (page.status_code, page.text[:500], browser.trail)
    jar = cookies["bench.localhost"].items() if scheme == "http" else [
        (c.name, c.value) for c in browser.session.cookies if c.domain.startswith("bench")]
    return "; ".join(f"{k}={v}" for k, v in jar if not k.endswith("_login"))


def wrk(url, headers, connections, seconds):
    out = subprocess.run(["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", *BROWSER, *headers, url],
                         capture_output=True, text=True, check=True).stdout
    unit = {"us": 1, "ms": 1000, "s": 1e6, "m": 60e6}

    def latency(percent):
        value, u = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", out, re.M).groups()
        return float(value) * unit[u]
    requests_n = int(re.search(r"(\d+) requests in", out).group(1))
    duration, u = re.search(r"requests in ([\d.]+)(us|ms|s|m)", out).groups()
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if bad or "Socket errors" in out:
        raise RuntimeError(f"{url}: answers that are no success:\n{out}")
    return {"n": requests_n, "s": float(duration) * unit[u] / 1e6, "p50": latency("50"), "p99": latency("99")}


def measure(system, url, headers, connections, seconds):
    before = system.cpu_ns()
    load = wrk(url, headers, connections, seconds)
    cpu = (system.cpu_ns() - before) / 1000 / load["n"]
    return {"requests_per_s": load["n"] / load["s"], "cpu_us": cpu, "p50_us": load["p50"], "p99_us": load["p99"]}


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=int, default=4)
    ap.add_argument("--connections", type=int, default=64)
    ap.add_argument("--case", action="append", help="h1, h1-tls; default both")
    ap.add_argument("--keep", action="store_true", help="leave the folder of the run")
    args = ap.parse_args()
    folder = tempfile.mkdtemp(prefix="postern-bench-")
    key, cert = certificate(folder)
    upstream, upstream_port = start_upstream(folder)
    rows = []
    try:
        for case in args.case or ["h1", "h1-tls"]:
            tls = case.endswith("-tls")
            systems = []
            try:
                systems.append(start_nginx(folder, upstream_port, tls, key, cert, False))
                systems.append(start_nginx(folder, upstream_port, tls, key, cert, True))
                systems.append(start_postern(folder, upstream_port, tls, key, cert))
                rows += compare(case, systems, args)
            finally:
                for system, _, _ in systems:
                    system.stop()
    finally:
        upstream.terminate()
        upstream.wait(10)
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    with open(os.path.join(ROOT, "build", "bench.json"), "w") as f:
        json.dump(rows, f, indent=1)
        f.write("\n")


def compare(case, systems, args):
    runs = {system.name: [] for system, _, _ in systems}
    for system, url, headers in systems:  # warm
        measure(system, url, headers, args.connections, 1)
    for _ in range(args.rounds):
        for system, url, headers in systems:
            runs[system.name].append(measure(system, url, headers, args.connections, args.seconds))
    # The ratio is taken within each round, where the machine was in one mood.
    base = [r["cpu_us"] for r in runs["nginx"]]
    print(f"\n{case}, {args.connections} connections, {args.rounds} rounds of {args.seconds} s, medians")
    print(f"{'system':20} {'requests/s':>11} {'CPU us':>8} {'ratio':>6} {'p50 us':>8} {'p99 us':>8} {'peak KiB':>9}")
    rows = []
    for system, _, _ in systems:
        mine = runs[system.name]
        middle = {k: statistics.median(r[k] for r in mine) for k in mine[0]}
        ratio = statistics.median(r["cpu_us"] / b for r, b in zip(mine, base))
        row = {"case": case, "system": system.name, "requests_per_s": round(middle["requests_per_s"]),
               "cpu_us": round(middle["cpu_us"], 2), "cpu_ratio_to_nginx": round(ratio, 3),
               "p50_us": round(middle["p50_us"]), "p99_us": round(middle["p99_us"]), "rss_kib": system.peak_kib()}
        rows.append(row)
        print(f"{row['system']:20} {row['requests_per_s']:11} {row['cpu_us']:8.2f} {row['cpu_ratio_to_nginx']:6.3f} "
              f"{row['p50_us']:8} {row['p99_us']:8} {row['rss_kib']:9}")
    return rows


if __name__ == "__main__":
    main()
