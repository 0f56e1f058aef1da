"""A stand whose proxy gets its sockets as systemd passes them: visitors wait in them while no proxy is there."""

import os
import socket
import subprocess

from stand import Stand
from trial import BIN, ROOT


class Activated(Stand):
    def __init__(self, *args, sockets=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.sockets = []
        for _ in range(sockets):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sockets > 1:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind(("127.0.0.1", self.port))
            s.listen(4096)
            self.sockets.append(s)

    def start_one(self, daemon):
        if daemon != "proxy":
            return super().start_one(daemon)
        n = len(self.sockets)
        spare = [os.dup(s.fileno()) for s in self.sockets]

        def place():
            for i, fd in enumerate(spare):
                os.dup2(fd, 100 + i)
            for i in range(n):
                os.dup2(100 + i, 3 + i)

        env = {**os.environ, "HEALTH_CHECK_ADDR": f"unix:{self.folder}/health-proxy.sock", "LISTEN_FDS": str(n),
               "LISTEN_FDNAMES": ":".join(["http"] * n)}
        script = f'export LISTEN_PID=$$; exec {os.path.join(BIN, "postern-proxy")} --config {self.config}'
        with open(self.log_file(daemon), "ab") as log:
            self.processes[daemon] = subprocess.Popen(["sh", "-c", script], env=env, stdout=log, stderr=log,
                                                      cwd=ROOT, preexec_fn=place, pass_fds=range(3, 3 + n))
        for fd in spare:
            os.close(fd)
        return self.processes[daemon]

    def stop(self):
        super().stop()
        for s in self.sockets:
            s.close()
