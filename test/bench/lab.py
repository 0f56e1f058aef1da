"""What all systems share: a folder, one certificate, and the upstreams behind them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

from trial import free_port, wait_for

from bench import nginx
from bench.process import run
from bench.visit import visit

BODY = "x" * 1024
BULK = "/bulk"  # a file of Lab.bulk_bytes
SINK = "/sink"  # takes whatever it is sent and tells how much that was


class Lab:
    def __init__(self, bulk_bytes):
        self.folder = tempfile.mkdtemp(prefix="postern-bench-")
        os.chmod(self.folder, 0o711)  # nginx gives up root, and must still reach the file it sends
        self.bulk_bytes = bulk_bytes
        self.processes = []
        self.key, self.cert = os.path.join(self.folder, "key.pem"), os.path.join(self.folder, "cert.pem")
        self.make_certificate()
        self.bulk = os.path.join(self.folder, "bulk")
        with open(self.bulk, "wb") as f:
            f.truncate(bulk_bytes)
        try:
            self.upstream_port = self.start_upstream()
            self.sink_port = self.start_sink()
        except BaseException:
            self.close()
            raise

    def make_certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", self.key, "-out", self.cert, "-days", "2", "-subj", "/CN=bench",
                        "-addext", "subjectAltName=DNS:*.localhost,DNS:bench.localhost,DNS:public.localhost,"
                                   "DNS:authenticate.localhost,IP:127.0.0.1"],
                       check=True, capture_output=True)
        pair = os.path.join(self.folder, "pair.pem")  # HAProxy wants both in one file
        shutil.copy(self.key, pair)
        with open(pair, "a") as to, open(self.cert) as f:
            to.write(f.read())

    def start_upstream(self):
        port = free_port()
        self.processes.append(nginx.start(self.folder, "upstream", 1, f"""
  server {{ listen 127.0.0.1:{port};
    location / {{ default_type text/plain; return 200 "{BODY}"; }}
    location = {BULK} {{ default_type application/octet-stream; alias {self.bulk}; sendfile on; }} }}"""))
        wait_for("the upstream", lambda: visit("http", port, f"127.0.0.1:{port}") == (200, BODY.encode()))
        return port

    def start_sink(self):
        p = run([sys.executable, "-m", "bench.sink"], {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
                stdin=subprocess.PIPE, log=open(os.path.join(self.folder, "sink.log"), "wb"))
        self.processes.append(p)

        def port():
            with open(os.path.join(self.folder, "sink.log")) as f:
                found = re.search(r"listening on (\d+)", f.read())
            return found and int(found.group(1))
        return wait_for("the sink", port)

    def close(self, keep=False):
        for p in self.processes:
            p.terminate()
        for p in self.processes:
            p.wait(10)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
