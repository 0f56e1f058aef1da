"""HAProxy: the plain proxy, and the one that verifies a token (HS256) and one claim of it on every request."""

import os
import shutil
import time

import jwt
from trial import free_port

from bench.process import BenchError, System, run
from bench.visit import ask

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
SECRET = "a secret of the bench that is long enough for HS256"

VERIFY = f"""  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny unless {{ var(txn.alg) -m str HS256 }}
  http-request deny unless {{ var(txn.bearer),jwt_verify(txn.alg,"{SECRET}") -m int 1 }}
  http-request deny unless {{ var(txn.bearer),jwt_payload_query('$.group') -m str staff }}"""


def token(group="staff", secret=SECRET):
    now = int(time.time())
    return jwt.encode({"iss": "https://id.example.com", "sub": "f3b1c2d4", "email": "bench@example.com",
                       "group": group, "iat": now, "exp": now + 3600}, secret, algorithm="HS256")


def start_system(lab, tls, verify=False):
    port = free_port()
    system = System("haproxy-jwt" if verify else "haproxy", "https" if tls else "http", port,
                    headers={"Authorization": "Bearer " + token()} if verify else {})
    conf = os.path.join(lab.folder, f"haproxy{port}.cfg")
    bind = f" ssl crt {lab.folder}/pair.pem alpn h2,http/1.1" if tls else ""
    with open(conf, "w") as f:
        f.write(f"""global
  nbthread 2
  maxconn 4096
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  http-reuse always
  option http-ignore-probes
frontend in
  bind 127.0.0.1:{port}{bind}
{VERIFY if verify else ""}
  http-request set-header X-Forwarded-For %[src]
  default_backend app
backend app
  server app 127.0.0.1:{lab.upstream_port}
""")
    system.add(run([HAPROXY, "-db", "-f", conf], log=open(conf + ".log", "wb")))
    system.wait_until(lambda: ask(system)[0] == 200)
    if verify:  # it is a guard at all: neither a forged token nor another group may enter
        for bad in (token("guests"), token(secret="another secret that is long enough for HS256")):
            status = ask(system.view(headers={"Authorization": "Bearer " + bad}))[0]
            if status != 403:
                system.stop()
                raise BenchError(f"haproxy-jwt answers {status} to a bad token")
    return system
