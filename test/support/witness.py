"""Upstreams that bear witness: what reached them, read so strictly that no server could read it otherwise.

Witness     HTTP/1: `requests` in order of arrival, `doubts` is what two servers could read differently
H2Witness   HTTP/2 by hyper-h2, which refuses malformed heads: the same two lists

Each answer names the target that it is for, so that an answer which went to somebody else is seen. The proxy adds one
X-Forwarded-For to each request: a request without it was never one for the proxy, it was smuggled."""

import re
import socket

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from stand import Upstream

START = re.compile(rb"[A-Z][A-Z-]* (/[!-~]*|\*) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)")
CHUNK = re.compile(rb"([0-9a-f]{1,8})\r\n")


class Doubt(Exception):
    pass


class Request:
    def __init__(self, target, fields, body=b""):
        self.target, self.fields, self.body = target, fields, body

    def all(self, name):
        """Values by a name as CGI sees it: letter case and '_' are nothing."""
        return [v for n, v in self.fields if n.lower().replace(b"_", b"-") == name]


def check(request):
    """What must hold for whatever reached an upstream."""
    if len(request.all(b"x-forwarded-for")) != 1 or request.all(b"x-forwarded-for") != [b"127.0.0.1"]:
        raise Doubt(f"it was not one for the proxy: {request.target} {request.fields}")


class Reader:
    """Messages of HTTP/1 from a socket; Doubt for what is not beyond doubt."""

    def __init__(self, s):
        self.s, self.data = s, b""

    def more(self):
        got = self.s.recv(65536)
        if not got:
            raise EOFError
        self.data += got

    def until(self, end):
        while end not in self.data:
            self.more()
        part, self.data = self.data.split(end, 1)
        return part

    def exactly(self, n):
        while len(self.data) < n:
            self.more()
        part, self.data = self.data[:n], self.data[n:]
        return part

    def head(self):
        lines = self.until(b"\r\n\r\n").split(b"\r\n")
        start = START.fullmatch(lines[0])
        if not start:
            raise Doubt(f"start line {lines[0]!r}")
        request = Request(start.group(1), self.fields(lines[1:]))
        if len(request.all(b"host")) != 1:
            raise Doubt(f"hosts {request.fields}")
        return request

    @staticmethod
    def fields(lines):
        found = [FIELD.fullmatch(line) for line in lines]
        if None in found:
            raise Doubt(f"field {lines[found.index(None)]!r}")
        return [m.groups() for m in found]

    def body(self, request):
        lengths, codings = request.all(b"content-length"), request.all(b"transfer-encoding")
        if len(lengths) + len(codings) > 1 or codings not in ([], [b"chunked"]):
            raise Doubt(f"two framings {request.fields}")
        if codings:
            return self.chunks()
        if lengths and not re.fullmatch(rb"0|[1-9][0-9]{0,15}", lengths[0]):
            raise Doubt(f"length {lengths}")
        return self.exactly(int(lengths[0])) if lengths else b""

    def chunks(self):
        body = b""
        while True:
            size = CHUNK.fullmatch(self.until(b"\r\n") + b"\r\n")
            if not size:
                raise Doubt("chunk size")
            if int(size.group(1), 16) == 0:
                break
            body += self.exactly(int(size.group(1), 16))
            if self.exactly(2) != b"\r\n":
                raise Doubt("chunk end")
        trailers = []
        line = self.until(b"\r\n")
        while line:
            trailers.append(line)
            line = self.until(b"\r\n")
        bad = {n.lower() for n, _ in self.fields(trailers)} & {b"host", b"content-length", b"transfer-encoding", b"trailer"}
        if bad:
            raise Doubt(f"trailers {bad}")
        return body


class Witness(Upstream):
    def __init__(self):
        self.requests, self.doubts, self.cut = [], [], 0
        super().__init__(raw=self.talk)

    def talk(self, s):
        reader = Reader(s)
        try:
            while True:
                request = reader.head()
                check(request)
                request.body = reader.body(request)
                self.requests.append(request)
                s.sendall(b"HTTP/1.1 200 OK\r\nX-Target: %b\r\nContent-Length: 2\r\n\r\nok" % request.target)
        except Doubt as e:
            self.doubts.append(str(e))
            s.close()
        except (EOFError, OSError):
            self.cut += reader.data != b""


class H2Witness(Upstream):
    def __init__(self):
        self.requests, self.doubts = [], []
        super().__init__(raw=self.talk)

    def talk(self, s):
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        streams = {}
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(connection.data_to_send())
        data = s.recv(65536)
        try:
            while data:
                for event in connection.receive_data(data):
                    self.take(connection, event, streams)
                s.sendall(connection.data_to_send())
                data = s.recv(65536)
        except (h2.exceptions.ProtocolError, Doubt) as e:
            self.doubts.append(f"{type(e).__name__}: {e}")

    def take(self, connection, event, streams):
        if isinstance(event, h2.events.RequestReceived):
            fields = dict(event.headers)
            streams[event.stream_id] = Request(fields[b":path"], [f for f in event.headers if f[0][:1] != b":"])
            check(streams[event.stream_id])
        elif isinstance(event, h2.events.DataReceived):
            streams[event.stream_id].body += event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            request = streams.pop(event.stream_id)
            self.requests.append(request)
            try:
                self.tell_target(connection, event, request)
            except h2.exceptions.StreamClosedError:
                pass  # nobody waits for it any more

    @staticmethod
    def tell_target(connection, event, request):
        connection.send_headers(event.stream_id, [(":status", "200"), ("x-target", request.target.decode("latin-1")),
                                                  ("content-length", "2")])
        connection.send_data(event.stream_id, b"ok", end_stream=True)
