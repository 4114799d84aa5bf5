"""HTTP/2 clients that have as many streams as they may, and take nothing of what comes until they are told to."""
import collections
import select
import threading

from gateway import until
from h2_peers import DATA, INITIAL_WINDOW, PREFACE, WINDOW_MAX, WINDOW_UPDATE, Frames, headers, request_fields, settings, window_update
from h2_wire import SANITIZED
from peers import Raw

KIB, STREAMS = 1024, 100
IDS = range(1, 2 * STREAMS, 2)
SHUT = settings((INITIAL_WINDOW, 0)) + window_update(0, 1 << 30)
OPEN = settings((INITIAL_WINDOW, WINDOW_MAX))
WIDE = OPEN + window_update(0, 1 << 30)
# How it comes that nothing is taken: what a client begins with, and options of its socket.
UNREAD = {"windows": (SHUT, {}), "socket": (WIDE, {"receive_buffer": 4096})}


def pause(seconds=0.03):
    threading.Event().wait(seconds)


def settled(value):
    """What value() is when it no longer changes."""
    last = [None, 0]

    def stands():
        now = value()
        last[:] = [now, last[1] + 1 if now == last[0] else 0]
        pause()
        return last[1] >= 10
    until(stands, lambda: f"a value that stays: {last[0]}")
    return last[0]


def resident_kib(gateway):
    """Of the worker; 0 with a sanitizer, whose own memory goes on changing."""
    if SANITIZED:
        return 0
    with open(f"/proc/{gateway.worker()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


class Crowd(Frames):
    """One connection, all its streams; keeps what comes, and knows what it may send."""

    def __init__(self, port, hello, **more):
        self.parts = collections.defaultdict(list)   # of bodies, by stream
        self.windows = {0: 65535}
        super().__init__(Raw(port, **more), hello=PREFACE + hello)

    def sort(self, got):
        super().sort(got)
        if got.type == DATA:
            self.parts[got.stream].append(got.payload)
        elif got.type == WINDOW_UPDATE:
            self.windows[got.stream] = self.windows.get(got.stream, 0) + int.from_bytes(got.payload, "big")

    def ask(self, path, streams=IDS, method="GET", fields=(), **more):
        """path(i): of the stream i."""
        return self.send(*(headers(i, request_fields(path(i), method, *fields), **more) for i in streams))

    def taken(self):
        return sum(self.bodies.values())

    def take_all(self, body, streams=IDS, status=200):
        """body(i): of the stream i."""
        self.read(lambda: self.ended | set(self.resets) >= set(streams))
        assert not self.resets and not self.closed
        for i in streams:
            assert self.status(i) == status and b"".join(self.parts[i]) == body(i), f"stream {i}"

    def listen(self, seconds):
        """What is there, or comes within that time. False: nothing has."""
        heard = False
        while self.peer.buffer or select.select([self.peer.socket], [], [], 0 if heard else seconds)[0]:
            if (got := self.next()) is None:
                break
            self.sort(got)
            heard = True
        return heard
