"""What is soaked: four daemons with a second authorize, PostgreSQL with a synchronous standby, a real OpenID provider."""

import signal
import time

from activated import Activated
from idp import Provider, provider_modules
from postgres import Postgres
from stand import Upstream, receive
from trial import wait_for

TOKEN_LIFE_S = 20
PIECE_S = 0.1


def talk(s):
    """Each answer is the target that was asked for; /stream says a byte on and on."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            data += receive(s)
        head, data = data.split(b"\r\n\r\n", 1)
        target = head.split(b" ", 2)[1]
        if target == b"/stream":
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                s.sendall(b"1\r\n.\r\n")
                time.sleep(PIECE_S)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))


class World:
    HOSTS = ("app", "staff")  # app: whoever is logged in; staff: whom the rule names

    def __init__(self, people):
        self.emails = [f"p{i}@example.com" for i in range(people)]
        self.upstream = Upstream(raw=talk)
        self.primary, self.standby = Postgres().create(), None
        ports = [self.primary.port]
        self.follow()
        ports.append(self.standby.port)
        self.stand = Activated("", names=("staff.localhost",), authorizes=2)
        self.provider = Provider(provider_modules(), f"https://authenticate.localhost:{self.stand.port}")
        self.provider.settings["accounts"] = {
            email.split("@")[0]: {"email": email, "email_verified": True, "name": email} for email in self.emails}
        self.provider.settings["ttl"] = {"AccessToken": TOKEN_LIFE_S, "IdToken": TOKEN_LIFE_S}
        self.stand.settings = self.provider.our_settings() + "idp_request_params: {prompt: consent}\n" + "access_log: false\n"
        self.store = ("host=127.0.0.1,127.0.0.1 port={},{} user=postern dbname=postern sslmode=disable".format(*ports))
        self.stand.env["databroker"] = {"DATABROKER_STORAGE_TYPE": "postgres",
                                        "DATABROKER_STORAGE_CONNECTION_STRING": self.store}
        self.write_rule(self.emails)

    def start(self):
        self.provider.start()
        self.stand.start()
        return self

    def stop(self):
        try:
            self.stand.stop()
        finally:
            self.provider.stop()
            self.upstream.close()
            for server in (self.primary, self.standby):
                if server is not None:
                    server.close()

    def write_rule(self, members):
        """From now on staff is for members alone: returns when everybody goes by it."""
        followers = ("proxy", *self.stand.authorizes) if self.stand.processes else ()
        before = {daemon: wait_for(daemon, lambda d=daemon: self.generation(d), 60) for daemon in followers}
        allowed = ", ".join(f"{{email: {{is: {email}}}}}" for email in members)
        route = "  - from: https://{}.localhost:PORT\n    to: http://127.0.0.1:{}\n    timeout: 0s\n    {}\n"
        self.stand.write_config(
            route.format("app", self.upstream.port, "allow_any_authenticated_user: true") +
            route.format("staff", self.upstream.port, f"policy: [{{allow: {{or: [{allowed}]}}}}]"))
        for daemon in before:
            self.stand.processes[daemon].send_signal(signal.SIGHUP)
        for daemon, was in before.items():
            wait_for("the rule to be in force", lambda d=daemon, was=was: self.generation(d) != was, 60)

    def generation(self, daemon):
        """Which process, and which configuration of it; an exception while it is not there."""
        return self.stand.processes[daemon].pid, self.stand.status(daemon)["config"]["generation"]

    def follow(self, port=None):
        """A standby of the primary, without which no commit is acknowledged from then on."""
        self.standby = self.primary.standby(port)
        self.standby.sql("ALTER SYSTEM RESET synchronous_standby_names")  # for the day it is the primary
        self.standby.sql("SELECT pg_reload_conf()")
        self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.sql("SELECT pg_reload_conf()")
        wait_for("the standby", lambda: self.primary.sql("SELECT sync_state FROM pg_stat_replication") == "sync", 30)

    def fail_over(self):
        """The primary dies, its standby takes over; later another takes the dead one's place."""
        dead = self.primary
        dead.stop(how=signal.SIGKILL)
        self.standby.promote()
        self.primary, self.standby = self.standby, None
        dead.close()
        self.follow(dead.port)
