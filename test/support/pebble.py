"""Pebble: a real ACME server, made for tests, with a name server that finds every name on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import requests
from stand import make_certificate
from trial import ROOT, free_port, wait_for

_folder = []


def programs():
    """Where Pebble is, built when it is first asked for."""
    if not _folder:
        _folder.append(subprocess.run([os.path.join(ROOT, "test/support/pebble.sh")], stdout=subprocess.PIPE, text=True,
                                      check=True).stdout.strip())
    return _folder[0]


class Pebble:
    """tls_port, http_port: where it comes to look at challenges. keys: external accounts, key id → MAC key;
    given, it takes nobody else. nonce_reject: percent of requests that it refuses for no reason."""

    def __init__(self, tls_port, http_port=1, lifetime_s=3600, keys=None, nonce_reject=0, reuse=0):
        self.folder = tempfile.mkdtemp(prefix="postern-pebble-")
        self.port, self.management, self.names = free_port(), free_port(), free_port()
        key, self.certificate = make_certificate(self.folder, "127.0.0.1")
        self.config = {"pebble": {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": self.certificate, "privateKey": key, "httpPort": http_port, "tlsPort": tls_port,
            "externalAccountBindingRequired": keys is not None, "externalAccountMACKeys": keys or {},
            "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "test", "validityPeriod": lifetime_s}}}}
        self.env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
                    "PEBBLE_AUTHZREUSE": str(reuse)}
        self.processes = []
        self.log = os.path.join(self.folder, "log")

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        path = os.path.join(self.folder, "config.json")
        with open(path, "w") as f:
            json.dump(self.config, f)
        self.run("pebble-challtestsrv", "-dnsserver", f"127.0.0.1:{self.names}", "-management", "127.0.0.1:0",
                 "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
        self.run("pebble", "-config", path, "-dnsserver", f"127.0.0.1:{self.names}")
        wait_for("Pebble to listen", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)
        return self

    def run(self, program, *args):
        with open(self.log, "ab") as log:
            self.processes.append(subprocess.Popen([os.path.join(programs(), program), *args], env=self.env, stdout=log,
                                                   stderr=log, cwd=self.folder))

    def stop(self):
        for p in self.processes:
            p.send_signal(signal.SIGTERM)
        for p in self.processes:
            p.wait(30)
        self.processes = []

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    @property
    def directory(self):
        return f"https://127.0.0.1:{self.port}/dir"

    def root(self, path):
        """Its root, made anew at each start, into a file."""
        pem = requests.get(f"https://127.0.0.1:{self.management}/roots/0", verify=self.certificate, timeout=10).text
        with open(path, "w") as f:
            f.write(pem)
        return path
