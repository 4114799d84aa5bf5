"""Both ends of a conversation, byte by byte: a raw client, and an upstream that does what a test tells it and keeps
what it received. Neither is lenient: a message that is not complete raises Incomplete.
"""
import errno
import json
import socket
import struct
import threading

from gateway import DEADLINE, free_port, until


class Incomplete(Exception):
    """The peer ended in the middle of a message."""


def fields_of(lines):
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon, f"not a field: {line!r}"
        fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
    return fields


class Message:
    """A request or a response as it arrived."""

    def __init__(self, start, fields, raw_head):
        self.start, self.fields, self.raw_head = start, fields, raw_head
        self.body, self.trailers, self.chunks = b"", [], None

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else default

    @property
    def names(self):
        return [key.lower() for key, _ in self.fields]

    @property
    def status(self):
        return int(self.start.split(b" ", 2)[1])

    @property
    def method(self):
        return self.start.split(b" ")[0].decode()

    @property
    def target(self):
        return self.start.split(b" ")[1].decode("latin-1")

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.raw_head!r} {self.body[:300]!r}>"


class Peer:
    """One TCP connection, read strictly."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(DEADLINE)
        self.buffer = b""
        self.received = bytearray()   # everything, as it came
        self.eof = False
        self.over = False   # an upstream's: its script has ended

    def send(self, data):
        self.socket.sendall(data)
        return self

    def send_slowly(self, data):
        """Each byte in a packet of its own."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(data)):
            self.socket.sendall(data[i:i + 1])
        return self

    def more(self):
        """Some more bytes in the buffer; False at the end."""
        if self.eof:
            return False
        data = self.socket.recv(256 * 1024)
        self.eof = not data
        self.buffer += data
        self.received += data
        return bool(data)

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise Incomplete(f"ended after {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        assert b"\r" not in line and b"\n" not in line and b"\0" not in line, line
        return line

    def exactly(self, count):
        parts, have = [], 0
        while have + len(self.buffer) < count:
            parts.append(self.buffer)   # a long one grows as a list
            have += len(self.buffer)
            self.buffer = b""
            if not self.more():
                raise Incomplete(f"ended after {have} of {count} bytes")
        parts.append(self.buffer[:count - have])
        self.buffer = self.buffer[count - have:]
        return b"".join(parts)

    def head(self):
        """The next head; None at a clean end."""
        if not self.buffer and not self.more():
            return None
        lines = [self.line()]
        while lines[-1]:
            lines.append(self.line())
        return Message(lines[0], fields_of(lines[1:-1]), b"\r\n".join(lines) + b"\r\n")

    def chunked(self, message):
        parts = []
        while True:
            size = int(self.line(), 16)
            if not size:
                break
            parts.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        lines = []
        while not lines or lines[-1]:
            lines.append(self.line())
        message.trailers = fields_of(lines[:-1])
        message.chunks = parts
        message.body = b"".join(parts)

    def body(self, message, until_end=False):
        coding, length = message.get("Transfer-Encoding"), message.get("Content-Length")
        assert not (coding and length), message
        if coding:
            assert coding == "chunked", message
            self.chunked(message)
        elif length is not None:
            message.body = self.exactly(int(length))
        elif until_end:
            while self.more():
                pass
            message.body, self.buffer = self.buffer, b""
        return message

    def ended(self):
        """Until the peer's end; true when it sent nothing more before."""
        try:
            while self.more():
                pass
        except ConnectionError:
            self.eof = True
        return not self.buffer

    def shut(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Raw(Peer):
    """A client."""

    def __init__(self, port, source=None, receive_buffer=None):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", port))
        super().__init__(sock)

    def response(self, method="GET", interim=False):
        """The next response, complete, without interim ones unless asked for; None at a clean end."""
        while True:
            message = self.head()
            if message is None:
                return None
            if message.status >= 200 or message.status == 101 or interim:
                break
        if method == "HEAD" or message.status < 200 or message.status in (204, 304):
            return message
        return self.body(message, until_end=True)

    def ask(self, text, method="GET"):
        self.send(text if isinstance(text, bytes) else text.encode("latin-1"))
        return self.response(method)


def request(path="/", method="GET", *fields, host="test", body=None, version="1.1"):
    """Bytes of a well-formed request."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def answer(body=b"ok", status="200 OK", *fields):
    """Bytes of a well-formed response with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Upstream:
    """Listens on a port; each connection is handed to `script(peer)` in a thread. Without a script: keep-alive, each
    request is kept in `requests` and answered by `reply(request)`, bytes.
    """

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", free_port()), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.peers, self.failures = [], []
        self.accepted = 0
        self.script, self.requests = self.serve, []
        self.clients = set()   # ports of those accepted
        self.begin_accepting()
        self.program()

    def program(self, script=None, reply=None):
        """What it does from now on; forgets what it has received, and closes what is open."""
        if self.listener:   # what waits to be accepted belongs to what was before
            with socket.create_connection(("127.0.0.1", self.port)) as last:
                until(lambda: last.getsockname()[1] in self.clients, lambda: f"the last connection accepted {self.failures}")
            self.clients.clear()
        with self.lock:
            old, self.peers = self.peers, []
            self.failures, self.requests = [], []
            self.accepted = 0
            self.script = script or self.serve
            self.reply = reply or (lambda request: answer())
        for peer in old:
            try:
                peer.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        return self

    def begin_accepting(self):
        self.accepting = threading.Thread(target=self.accept, args=(self.listener,), daemon=True)
        self.accepting.start()

    def accept(self, listener):
        while True:
            try:
                sock, (_, client) = listener.accept()
            except OSError as failure:
                if failure.errno != errno.EINVAL:   # close() has shut it down
                    self.failures.append(failure)
                return
            peer = self.meet(sock)
            with self.lock:
                self.peers.append(peer)
                self.clients.add(client)
                self.accepted += 1
                peer.number = self.accepted
                script = self.script
            threading.Thread(target=self.run, args=(script, peer), daemon=True).start()

    def meet(self, sock):
        return Peer(sock)

    def run(self, script, peer):
        try:
            if peer.more():   # else it was program()'s
                script(peer)
        except (OSError, Incomplete):
            pass   # the gateway has closed; what was received tells the test
        except Exception as failure:   # shown by check()
            self.failures.append(failure)
        finally:
            peer.over = True
            peer.close()

    def read(self, peer):
        """A whole request, kept; None at the end."""
        message = peer.head()
        if message is None:
            return None
        with self.lock:
            if peer in self.peers:
                self.requests.append(message)
        return peer.body(message)

    def serve(self, peer):
        while (message := self.read(peer)) is not None:
            peer.send(self.reply(message))

    @property
    def received(self):
        """All bytes of all connections."""
        with self.lock:
            return b"".join(bytes(peer.received) for peer in self.peers)

    def only(self):
        """The one request there was."""
        assert len(self.requests) == 1, self.requests
        return self.requests[0]

    def wait_requests(self, count=1):
        until(lambda: len(self.requests) >= count, lambda: f"{count} requests, there are {self.requests}")
        return self.requests[-1]

    def check(self):
        assert not self.failures, self.failures

    def close(self):
        """Nobody listens any more."""
        self.program()
        self.listener.shutdown(socket.SHUT_RDWR)   # wakes the thread in accept
        self.accepting.join()                      # or it could accept from whoever has the descriptor next
        self.listener.close()
        self.listener = None

    def reopen(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.begin_accepting()
