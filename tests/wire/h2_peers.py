"""HTTP/2 from both ends. Session is python3-h2 over a socket, as a client (H2Client) or as an upstream (H2Upstream):
strict, so what the gateway says wrongly fails the test, and a message that is not complete raises. Frames is a
connection by hand, without any state, for what no library would say.
"""
import collections
import os
import select
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack

from gateway import DEADLINE
from peers import Incomplete, Message, Raw, Upstream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY,
 HTTP_1_1_REQUIRED) = range(14)
(TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, FRAME_SIZE, LIST_SIZE, _, CONNECT_PROTOCOL) = range(1, 9)
WINDOW_MAX = 2**31 - 1
OUT_BYTES = 256 * 1024   # of ours that wait for the socket, before a sender waits, too


class Reset(Incomplete):
    """The peer has reset the stream."""

    def __init__(self, code):
        super().__init__(f"reset with {code}")
        self.code = code


# ---- sessions of python3-h2 ----

def pair(field):
    """("name", "value") of "Name: value", or of such a pair."""
    if isinstance(field, tuple):
        return field
    name, _, value = field.partition(":")
    return name.lower(), value.strip()


class Stream(Message):
    """One request and its response; what has arrived of the other end's message."""

    def __init__(self, session, number):   # not the parent's: the body grows
        self.session, self.id = session, number
        self.pseudo, self.fields, self.trailers, self.interim = {}, [], [], []
        self.parts, self.got = [], 0
        self.begun = self.ended = False
        self.reset = None
        self.auto = True   # what arrives is acknowledged at once
        self.owed = 0      # what is not acknowledged yet

    @property
    def body(self):
        return b"".join(self.parts)

    @property
    def status(self):
        return int(self.pseudo[":status"])

    @property
    def method(self):
        return self.pseudo[":method"]

    @property
    def target(self):
        return self.pseudo[":path"]

    @property
    def start(self):
        return " ".join(self.pseudo.values()).encode()

    def __repr__(self):
        body = self.body
        return (f"<stream {self.id} {self.pseudo} {self.fields} {body[:300]!r} ({len(body)}) "
                f"{'ended' if self.ended else f'reset {self.reset}' if self.reset is not None else 'open'}>")

    # ---- waiting ----

    def until(self, condition, what):
        """The first true value of condition(); Reset or Incomplete when it cannot come any more."""
        def is_there():
            return condition() or self.reset is not None
        while True:
            self.session.until(is_there, lambda: f"{what() if callable(what) else what}: {self}")
            with self.session.changed:   # another thread may have used it up
                if value := condition():
                    return value
                if self.reset is not None:
                    raise Reset(self.reset)

    def head(self):
        self.until(lambda: self.begun, "a head")
        return self

    def whole(self):
        """The complete message."""
        self.until(lambda: self.ended, "the end of the message")
        return self

    def more(self, count=1):
        """Until so many bytes of the body are there, in all."""
        self.until(lambda: self.got >= count, lambda: f"{count} bytes, {self.got} are there")
        return self

    def until_reset(self):
        """The code of the reset that ends the stream."""
        self.session.until(lambda: self.reset is not None or self.ended, lambda: f"a reset: {self}")
        assert self.reset is not None, f"a whole message instead of a reset: {self}"
        return self.reset

    # ---- sending ----

    def open_window(self, count=None):
        """Acknowledges what has arrived (so much of it), and goes on doing so when no count is given."""
        with self.session.changed:
            self.auto = count is None
            count = self.owed if count is None else min(count, self.owed)
            self.owed -= count
            if count:
                self.session.h2.acknowledge_received_data(count, self.id)
        self.session.wake()

    def send(self, data, end=False):
        """As the windows allow; waits."""
        view, at, session = memoryview(data), 0, self.session
        while at < len(view) or (end and not len(view)):
            self.until(lambda: self.reset is None and len(session.out) < OUT_BYTES and
                       (not len(view) or session.h2.local_flow_control_window(self.id) > 0), "a window to send in")
            with session.changed:
                if self.reset is not None:
                    raise Reset(self.reset)
                room = min(session.h2.local_flow_control_window(self.id), session.h2.max_outbound_frame_size, OUT_BYTES)
                if len(view) and room <= 0:
                    continue   # another stream was quicker
                piece = bytes(view[at:at + room])
                at += len(piece)
                last = at == len(view)
                session.h2.send_data(self.id, piece, end_stream=end and last)
            session.wake()
            if last:
                return self
        return self

    def send_fields(self, fields, end=False):
        with self.session.changed:
            if self.reset is not None:
                raise Reset(self.reset)
            self.session.h2.send_headers(self.id, [(name.encode("latin-1"), value.encode("latin-1"))
                                                   for name, value in fields], end_stream=end)
        self.session.wake()
        return self

    def respond(self, status=200, *fields, end=False):
        return self.send_fields([(":status", str(status)), *map(pair, fields)], end)

    def finish(self, trailers=()):
        return self.send_fields([pair(field) for field in trailers], end=True) if trailers else self.send(b"", end=True)

    def answer(self, body=b"ok", status=200, *more, fields=(), trailers=(), length=True):
        """A whole response."""
        length = [f"content-length: {len(body)}"] if length else []
        self.respond(status, *length, *more, *fields, end=not body and not trailers)
        if body:
            self.send(body, end=not trailers)
        return self.finish(trailers) if trailers else self

    def cancel(self, code=CANCEL):
        with self.session.changed:
            try:
                self.session.h2.reset_stream(self.id, code)
            except h2.exceptions.StreamClosedError:
                pass   # it is over anyway
        self.session.wake()


class Session:
    """Bytes move in one thread (run), which never waits for those who use it."""

    def __init__(self, peer, client, settings=None, window=None, checks=True, on_stream=None):
        self.peer, self.is_client, self.on_stream = peer, client, on_stream
        self.changed = threading.Condition(threading.RLock())
        self.streams, self.frames = {}, collections.Counter()
        self.out, self.incoming = bytearray(), bytearray(peer.buffer)
        self.preface_due = 0 if client else len(PREFACE)
        self.goaways = []   # (last stream, code, data) as they came
        self.their_settings = {}
        self.auto, self.owed = True, 0
        self.over = self.closing = False
        self.failure = None
        self.wakeup = os.eventfd(0, os.EFD_NONBLOCK)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=client, header_encoding="latin-1", normalize_inbound_headers=False,
            validate_outbound_headers=checks, normalize_outbound_headers=checks))
        if settings or client:
            defaults = {h2.settings.SettingCodes.ENABLE_PUSH: 0} if client else {}
            self.h2.local_settings = h2.settings.Settings(client, {**defaults, **(settings or {})})
        self.h2.initiate_connection()
        if window:
            self.h2.increment_flow_control_window(window)
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.socket.setblocking(False)

    # ---- for users ----

    @property
    def goaway(self):
        """The code of the last one; None without."""
        return self.goaways[-1][1] if self.goaways else None

    def until(self, condition, what, deadline=DEADLINE):
        """The first true value of condition(); Incomplete when the connection ended before."""
        with self.changed:
            self.changed.wait_for(lambda: condition() or self.failure or self.over, deadline)
            if self.failure:
                raise self.failure
            value = condition()
            if value:
                return value
            what = f"{what() if callable(what) else what} (goaways: {self.goaways})"
            if self.over:
                raise Incomplete(f"the connection ended before {what}")
            raise AssertionError(f"not within {deadline:.0f} s: {what}")

    def ended(self):
        """Until the peer's end."""
        self.until(lambda: self.over, "the connection's end")
        return True

    def raw(self, data):
        """Bytes between two frames of ours, which h2 knows nothing of."""
        with self.changed:
            self.out += self.h2.data_to_send() + data
        self.wake()
        return self

    def send_goaway(self, last=WINDOW_MAX, code=NO_ERROR):
        return self.raw(frame(GOAWAY, payload=struct.pack("!II", last, code)))

    def ping(self):
        """Until the peer has answered: it has seen all that was sent before."""
        with self.changed:
            before = self.pongs
            self.h2.ping(b"sallypor")
        self.wake()
        self.until(lambda: self.pongs > before, "the answer to a PING")

    pongs = 0

    def settings(self, **values):
        with self.changed:
            self.h2.update_settings({getattr(h2.settings.SettingCodes, name.upper()): value
                                     for name, value in values.items()})
        self.wake()

    def wake(self):
        with self.changed:
            if not self.over:
                os.eventfd_write(self.wakeup, 1)

    def close(self):
        with self.changed:
            self.closing = True
        self.wake()

    # ---- the thread ----

    def run(self):
        try:
            if self.incoming:
                self.take()
            while not self.closing:
                self.turn()
        except (OSError, Incomplete):
            pass
        except Exception as failure:   # of the peer's, or of a test's
            self.failure = failure
            try:   # tell it why, as far as that goes
                self.peer.socket.send(bytes(self.out) + self.h2.data_to_send())
            except OSError:
                pass
        finally:
            with self.changed:
                self.over = True
                os.close(self.wakeup)
                self.wakeup = -1
                self.changed.notify_all()
            self.peer.socket.close()

    def turn(self):
        sock = self.peer.socket
        with self.changed:
            self.out += self.h2.data_to_send()
            waits = [sock] if self.out else []
        readable, writable, _ = select.select([sock, self.wakeup], waits, [])
        if self.wakeup in readable:
            os.eventfd_read(self.wakeup)
        if writable:
            self.flush(sock)
        if sock in readable:
            while True:
                try:
                    data = sock.recv(256 * 1024)
                except (BlockingIOError, ssl.SSLWantReadError):
                    break
                if not data:
                    self.take()
                    raise Incomplete
                self.incoming += data
                if not isinstance(sock, ssl.SSLSocket) or len(self.incoming) > 256 * 1024:
                    break
            self.take()

    def flush(self, sock):
        with self.changed:
            try:
                del self.out[:sock.send(self.out)]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            self.changed.notify_all()

    def take(self):
        """Whole frames of what has come. GOAWAY is handled here: h2 would end with it at once."""
        with self.changed:
            at, rest = 0, bytearray()
            if self.preface_due:
                if len(self.incoming) < self.preface_due:
                    return
                at = self.preface_due
                rest += self.incoming[:at]
                self.preface_due = 0
            while len(self.incoming) - at >= 9:
                size = int.from_bytes(self.incoming[at:at + 3], "big")
                if len(self.incoming) - at < 9 + size:
                    break
                kind = self.incoming[at + 3]
                self.frames[kind] += 1
                if kind == GOAWAY:
                    assert size >= 8 and not any(self.incoming[at + 5:at + 9]), "not a GOAWAY"
                    last, code = struct.unpack_from("!II", self.incoming, at + 9)
                    self.goaways.append((last, code, bytes(self.incoming[at + 17:at + 9 + size])))
                else:
                    rest += self.incoming[at:at + 9 + size]
                at += 9 + size
            del self.incoming[:at]
            for event in self.h2.receive_data(bytes(rest)) if rest else ():
                self.happened(event)
            self.changed.notify_all()

    def happened(self, event):
        kind = type(event)
        if kind is h2.events.RemoteSettingsChanged:
            self.their_settings.update({int(code): change.new_value for code, change in event.changed_settings.items()})
        elif kind is h2.events.PingAckReceived:
            self.pongs += 1
        elif kind is h2.events.RequestReceived:
            stream = self.streams[event.stream_id] = Stream(self, event.stream_id)
            self.begin(stream, event.headers)
            if event.stream_ended:
                stream.ended = True
            self.on_stream(stream)
        elif (number := getattr(event, "stream_id", None)) in self.streams:
            self.stream_happened(self.streams[number], event)

    def stream_happened(self, stream, event):
        kind = type(event)
        if kind is h2.events.InformationalResponseReceived:
            stream.interim.append(dict(event.headers))
        elif kind is h2.events.ResponseReceived:
            self.begin(stream, event.headers)
        elif kind is h2.events.DataReceived:
            stream.parts.append(event.data)
            stream.got += len(event.data)
            stream.owed += event.flow_controlled_length
            if stream.auto and self.auto:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream.id)
                stream.owed -= event.flow_controlled_length
        elif kind is h2.events.TrailersReceived:
            stream.trailers = list(event.headers)
        elif kind is h2.events.StreamEnded:
            stream.ended = True
        elif kind is h2.events.StreamReset:
            stream.reset = int(event.error_code)

    @staticmethod
    def begin(stream, headers):
        stream.pseudo = {name: value for name, value in headers if name.startswith(":")}
        stream.fields = [(name, value) for name, value in headers if not name.startswith(":")]
        stream.begun = True


class H2Client(Session):
    """A client; plain with prior knowledge, or over TLS with the context `tls`."""

    def __init__(self, port, tls=None, source=None, receive_buffer=None, window=16 << 20, **more):
        peer = Raw(port, source=source, receive_buffer=receive_buffer)
        self.scheme = "https" if tls else "http"
        if tls:
            peer.socket = tls.wrap_socket(peer.socket, server_hostname="localhost")
            assert peer.socket.selected_alpn_protocol() == "h2"
        super().__init__(peer, client=True, window=window, **more)
        threading.Thread(target=self.run, daemon=True).start()

    def begin_request(self, path="/", method="GET", *fields, authority="test", scheme=None, end=True, protocol=None):
        """A stream whose head is sent."""
        pseudo = [(":method", method), (":scheme", scheme or self.scheme), (":path", path), (":authority", authority),
                  (":protocol", protocol)]
        with self.changed:
            if self.over:
                raise Incomplete(f"the connection is over (goaways: {self.goaways})")
            number = self.h2.get_next_available_stream_id()
            stream = self.streams[number] = Stream(self, number)
            stream.send_fields([*(each for each in pseudo if each[1] is not None), *map(pair, fields)], end)
        return stream

    def send_request(self, path="/", method="GET", *fields, body=None, trailers=(), length=True, **more):
        """The same with its body."""
        if body is not None and length:
            fields = (*fields, f"content-length: {len(body)}")
        stream = self.begin_request(path, method, *fields, end=not body and not trailers, **more)
        if body:
            stream.send(body, end=not trailers)
        if trailers:
            stream.finish(trailers)
        return stream

    def ask(self, path="/", method="GET", *fields, **more):
        """The complete response."""
        return self.send_request(path, method, *fields, **more).whole()


class TlsUpstream(Upstream):
    """As peers.Upstream, over TLS with the context `tls`."""

    def __init__(self, tls=None):
        self.tls = tls
        super().__init__()

    def run(self, script, peer):
        if self.tls:
            try:
                peer.socket = self.tls.wrap_socket(peer.socket, server_side=True)
            except OSError:
                peer.over = True
                peer.close()
                return
        super().run(script, peer)


class H2Upstream(TlsUpstream):
    """Each request is handed to `serve_stream(stream)` in a thread of its own. Without one: it is read and answered by
    `reply(request)`: a body, or the arguments of Stream.answer as a dict. Plain when there is no `tls`.
    """

    def program(self, script=None, reply=None, stream=None, **session):
        self.serve_stream, self.session_options = stream or self.read_and_answer, session
        return super().program(script, reply or (lambda request: b"ok"))

    @property
    def sessions(self):
        with self.lock:
            return [peer.session for peer in self.peers if hasattr(peer, "session")]

    def serve(self, peer):
        session = peer.session = Session(peer, client=False, on_stream=lambda stream: self.on_stream(peer, stream),
                                         **self.session_options)
        session.run()
        peer.eof = True
        if session.failure:
            raise session.failure

    def on_stream(self, peer, stream):
        stream.number = peer.number
        with self.lock:
            if peer in self.peers:
                self.requests.append(stream)
        threading.Thread(target=self.run_stream, args=(self.serve_stream, stream), daemon=True).start()

    def run_stream(self, script, stream):
        try:
            script(stream)
        except (OSError, Incomplete, h2.exceptions.StreamClosedError):
            pass   # the gateway has gone; what was received tells the test
        except h2.exceptions.ProtocolError as failure:
            if stream.reset is None and not stream.session.over:
                self.failures.append(failure)
        except Exception as failure:
            self.failures.append(failure)
            stream.session.close()   # so that nobody waits for it

    def read_and_answer(self, stream):
        given = self.reply(stream.whole())
        stream.answer(**given) if isinstance(given, dict) else stream.answer(given)


# ---- by hand ----

def frame(kind, flags=0, stream=0, payload=b"", size=None):
    """Bytes of one frame; size: what its header says instead of the truth."""
    size = len(payload) if size is None else size
    return struct.pack("!I", size)[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def settings(*pairs):
    return frame(SETTINGS, payload=b"".join(struct.pack("!HI", *each) for each in pairs))


def window_update(stream, count):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", count))


def rst(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def hpack_integer(value, bits, first=0):
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = [first | top], value - top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def literal(name, value, first=0x00):
    """A field in full, without a table (first=0x40: kept in it)."""
    name, value = (each.encode("latin-1") if isinstance(each, str) else each for each in (name, value))
    return bytes([first]) + hpack_integer(len(name), 7) + name + hpack_integer(len(value), 7) + value


def block(fields):
    return b"".join(literal(*field) for field in fields)


def request_fields(path="/", method="GET", *fields, authority="test", scheme="http"):
    pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    return [each for each in pseudo if each[1] is not None] + [pair(field) for field in fields]


def headers(stream, fields=None, end=True, flags=0):
    """A HEADERS frame: of these fields, or of that block."""
    fields = request_fields() if fields is None else fields
    payload = fields if isinstance(fields, bytes) else block(fields)
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0) | flags, stream, payload)


def data(stream, payload=b"", end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


class Frame(collections.namedtuple("Frame", "type flags stream payload")):
    @property
    def code(self):
        """The error of an RST_STREAM or a GOAWAY."""
        return struct.unpack_from("!I", self.payload, 4 if self.type == GOAWAY else 0)[0]


class Frames:
    """A connection by hand. What is read is sorted: heads, bodies, ends and resets by stream, and the GOAWAY."""

    def __init__(self, peer, hello=PREFACE + settings(), settle=True):
        self.peer, self.decoder = peer, hpack.Decoder()
        self.heads = collections.defaultdict(list)   # by stream, one list of fields for each block
        self.bodies, self.block = collections.Counter(), b""
        self.ended, self.resets, self.answers = set(), {}, True
        self.goaway, self.last_stream, self.closed = None, None, False
        self.kinds, self.acked, self.settled, self.their_settings = collections.Counter(), 0, False, {}
        if hello:
            self.send(hello)
        if hello and settle:
            self.read(lambda: self.acked and self.settled)

    def send(self, *parts):
        """What is refused early may be closed before all of it was sent."""
        try:
            self.peer.send(b"".join(parts))
        except (ConnectionError, ssl.SSLError):
            pass
        return self

    def next(self):
        """One frame; None at the end."""
        try:
            if not self.peer.buffer and not self.peer.more():
                return None
            head = self.peer.exactly(9)
            stream = struct.unpack_from("!I", head, 5)[0]
            got = Frame(head[3], head[4], stream, self.peer.exactly(int.from_bytes(head[:3], "big")))
        except (ConnectionError, ssl.SSLError):
            return None
        self.peer.received.clear()
        self.kinds[got.type] += 1
        return got

    def read(self, enough):
        """Until enough() or the end."""
        while not enough():
            got = self.next()
            if got is None:
                self.closed = True
                break
            self.sort(got)
        return self

    def sort(self, got):
        if got.type == SETTINGS:
            if got.flags & ACK:
                self.acked += 1
            else:
                self.their_settings.update(struct.iter_unpack("!HI", got.payload))
                self.settled = True
                if self.answers:
                    self.send(frame(SETTINGS, ACK))
        elif got.type == PING and not got.flags & ACK and self.answers:
            self.send(frame(PING, ACK, 0, got.payload))
        elif got.type in (HEADERS, CONTINUATION):
            assert not got.flags & (PADDED | WITH_PRIORITY)
            self.block += got.payload
            if got.flags & END_HEADERS:
                self.heads[got.stream].append(self.decoder.decode(self.block))
                self.block = b""
        elif got.type == DATA:
            self.bodies[got.stream] += len(got.payload)
        elif got.type == RST_STREAM:
            self.resets[got.stream] = got.code
        elif got.type == GOAWAY:
            self.goaway, self.last_stream = got.code, struct.unpack("!I", got.payload[:4])[0] & WINDOW_MAX
        if got.type in (DATA, HEADERS) and got.flags & END_STREAM:
            self.ended.add(got.stream)

    def status(self, stream):
        """Of the final response; None as long as there is none."""
        for fields in self.heads.get(stream, ()):
            status = int(dict(fields).get(":status", 0))
            if status >= 200:
                return status
        return None

    def fate(self, stream=1):
        """How a stream ends: ("answer", status), ("reset", code), ("goaway", code) or ("closed", None)."""
        self.read(lambda: stream in self.resets or stream in self.ended or self.goaway not in (None, NO_ERROR))
        if stream in self.ended:
            return "answer", self.status(stream)
        if stream in self.resets:
            return "reset", self.resets[stream]
        return ("goaway", self.goaway) if self.goaway is not None else ("closed", None)

    def end(self):
        """Until the connection's end; the GOAWAY's code, None without."""
        self.read(lambda: False)
        return self.goaway

    def round_trip(self):
        """A PING and its answer: all that was sent before has been seen. False: the connection ended instead."""
        before = self.kinds[PING]
        self.send(frame(PING, payload=b"roundtri"))
        self.read(lambda: self.kinds[PING] > before)
        return not self.closed

    def close(self):
        self.peer.close()


def by_hand(port, tls=None, **more):
    """Frames as a client."""
    options = {name: more.pop(name) for name in ("source", "receive_buffer") if name in more}
    peer = Raw(port, **options)
    if tls:
        peer.socket = tls.wrap_socket(peer.socket, server_hostname="localhost")
    return Frames(peer, **more)
