"""A client of HTTP/2 that does as it is told, well-formed or not: hyper-h2 keeps the connection's
state, raw frames can be written past it."""

import socket
import ssl
import time

import h2.config
import h2.connection
import h2.events
import hpack
from hyperframe.frame import ContinuationFrame, HeadersFrame
from trial import PATIENCE


class Answer:
    def __init__(self):
        self.headers, self.body, self.trailers, self.interim = {}, b"", {}, []
        self.ended, self.reset = False, None

    @property
    def status(self):
        return int(self.headers.get(":status", 0))


class H2Client:
    def __init__(self, port, name="public.localhost", seconds=20, tls=True):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(seconds * PATIENCE)
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.authority = f"{name}:{port}"
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False, validate_inbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.encoder = hpack.Encoder()
        self.answers, self.goaway, self.closed, self.manual = {}, None, False, False
        self.settings = {}
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def pseudo(self, method="GET", path="/", **more):
        return [(":method", method), (":scheme", self.scheme), (":authority", more.pop("authority", self.authority)),
                (":path", path)] + [(":" + k, v) for k, v in more.items()]

    def request(self, method="GET", path="/", headers=(), body=b"", end=True, trailers=None, **more):
        """Sends a request and returns its stream id."""
        sid = self.h2.get_next_available_stream_id()
        self.answers[sid] = Answer()
        whole = end and not body and not trailers
        self.h2.send_headers(sid, self.pseudo(method, path, **more) + list(headers), end_stream=whole)
        self.flush()
        if body or trailers:
            self.send(sid, body, end and not trailers)
        if trailers:
            self.h2.send_headers(sid, trailers, end_stream=True)
            self.flush()
        return sid

    def connect(self, authority, headers=(), end=False):
        """Asks for a tunnel (RFC 9113 8.5) and returns its stream id."""
        sid = self.h2.get_next_available_stream_id()
        self.answers[sid] = Answer()
        self.h2.send_headers(sid, [(":method", "CONNECT"), (":authority", authority)] + list(headers), end_stream=end)
        self.flush()
        return sid

    def send(self, sid, body, end=False):
        while body:
            n = min(self.h2.local_flow_control_window(sid), self.h2.max_outbound_frame_size, len(body))
            if n == 0:
                self.read_once()
                continue
            self.h2.send_data(sid, body[:n])
            body = body[n:]
            self.flush()
        if end:
            self.h2.end_stream(sid)
            self.flush()

    def read_once(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self.take(event)
        try:
            self.flush()
        except (ConnectionError, ssl.SSLError):
            self.closed = True

    def take(self, event):
        answer = self.answers.setdefault(getattr(event, "stream_id", 0), Answer())
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if not self.manual:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset, answer.ended = event.error_code, True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
            # hyper-h2 takes that for the end; streams under way go on (RFC 9113 §6.8).
            self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings.update({k: v.new_value for k, v in event.changed_settings.items()})

    def until(self, check, seconds=20):
        end = time.monotonic() + seconds * PATIENCE
        while not check() and not self.closed:
            assert time.monotonic() < end, "nothing came in time"
            self.read_once()

    def answer(self, sid):
        answer = self.answers[sid]
        self.until(lambda: answer.ended)
        return answer

    def get(self, path="/", **kwargs):
        return self.answer(self.request(path=path, **kwargs))

    def raw_head(self, sid, headers, end=True, pieces=None):
        """The frames of a head as bytes, past hyper-h2: any fields, any stream, any cut."""
        block = self.encoder.encode(headers, huffman=False)
        cut = pieces or [len(block)]
        first = HeadersFrame(sid, block[:cut[0]], flags=["END_STREAM"] if end else [])
        frames, at = [first], cut[0]
        for n in cut[1:]:
            frames.append(ContinuationFrame(sid, block[at:at + n]))
            at += n
        frames[-1].flags.add("END_HEADERS")
        return b"".join(f.serialize() for f in frames)

    def raw_answer(self, sid):
        """The frames until the stream is answered, reset, or the connection ends: hyper-h2 does not know it."""
        data = b""
        while not has_answer(data, sid):
            more = self.socket.recv(65536)
            if not more:
                break
            data += more
        return data

    def close(self):
        self.socket.close()


def has_answer(data, sid):
    """Whether a RST_STREAM, a GOAWAY or the end of the stream is in these frames."""
    at = 0
    while len(data) - at >= 9:
        size, kind, flags = int.from_bytes(data[at:at + 3], "big"), data[at + 3], data[at + 4]
        stream = int.from_bytes(data[at + 5:at + 9], "big")
        if kind == 7 or (stream == sid and (kind == 3 or (kind in (0, 1) and flags & 1))):
            return True
        at += 9 + size
    return False
