"""nginx: the plain proxy, and the one that asks another nginx about every request."""

import os
import shutil

from trial import free_port

from bench.process import System, run
from bench.visit import ask

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

# What Postern's access line tells, so that both write the same amount.
LOG_FORMAT = """log_format like escape=json '{"time":"$time_iso8601","service":"nginx","event":"http-request",'
    '"request-id":"$request_id","response-code":$status,"method":"$request_method","authority":"$host",'
    '"path":"$uri","user-agent":"$http_user_agent","user":"$remote_user","ip":"$remote_addr",'
    '"size":$body_bytes_sent,"received":$request_length,"duration":$request_time,'
    '"upstream":"$upstream_response_time"}';"""


def start(folder, name, workers, body, slots=12288):
    """One nginx in the foreground; body: what belongs in http { }. slots: connections that a worker has room for."""
    conf = os.path.join(folder, name + ".conf")
    with open(conf, "w") as f:
        f.write(f"""daemon off; worker_processes {workers}; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
worker_rlimit_nofile 65536;
events {{ worker_connections {slots}; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/{name}-b; proxy_temp_path {folder}/{name}-p; fastcgi_temp_path {folder}/{name}-f;
  uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
{body} }}
""")
    return run([NGINX, "-p", folder, "-c", conf])


def listener(lab, port, tls):
    if not tls:
        return f"listen 127.0.0.1:{port} reuseport;"
    return (f"listen 127.0.0.1:{port} ssl http2 reuseport; ssl_certificate {lab.cert}; ssl_certificate_key {lab.key};"
            f" ssl_protocols TLSv1.2 TLSv1.3;")


def start_system(lab, tls, auth=False, log=False, **more):
    """auth: every request is asked about at an nginx that says 200. log: an access line for each, buffered. More goes
    to start()."""
    port = free_port()
    system = System("nginx-auth-request" if auth else "nginx", "https" if tls else "http", port)
    question = location = upstream = ""
    if auth:
        auth_port = free_port()
        system.add(start(lab.folder, f"auth{port}", 1,
                         f"server {{ listen 127.0.0.1:{auth_port}; location / {{ return 200; }} }}"))
        upstream = f"upstream auth {{ server 127.0.0.1:{auth_port}; keepalive 64; }}"
        question = "auth_request /auth;"
        location = """location = /auth { internal; proxy_pass http://auth; proxy_pass_request_body off;
      proxy_set_header Content-Length ""; proxy_http_version 1.1; proxy_set_header Connection ""; }"""
    lines = f"{LOG_FORMAT} access_log {lab.folder}/access{port}.log like buffer=64k flush=1s;" if log else ""
    common = """proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_max_temp_file_size 0;"""
    system.add(start(lab.folder, f"nginx{port}", 2, f"""
  upstream app {{ server 127.0.0.1:{lab.upstream_port}; keepalive 64; }}
  upstream sink {{ server 127.0.0.1:{lab.sink_port}; keepalive 64; }}
  {upstream} {lines}
  server {{ {listener(lab, port, tls)}
    {location}
    location / {{ {question} proxy_pass http://app; {common} }}
    location /sink {{ {question} proxy_pass http://sink; {common}
      proxy_request_buffering off; client_max_body_size 0; }} }}""", **more))
    return system.wait_until(lambda: ask(system)[0] == 200)
