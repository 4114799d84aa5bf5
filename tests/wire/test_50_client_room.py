"""What one HTTP/2 connection can make the gateway hold: answers that its client does not take, and bodies that their
upstream does not take, on as many streams as it may have. There is a bound for the connection, and yet every stream
goes on.

The figures of docs/OVERLOAD.md: pytest -s -k held tests/wire/test_50_client_room.py prints what each kind of crowd makes
the gateway hold (with a build without sanitizers).
"""
import random
import threading

import pytest

from gateway import until
from h2_crowds import IDS, KIB, OPEN, SHUT, STREAMS, UNREAD, WIDE, Crowd, resident_kib, settled
from h2_peers import INITIAL_WINDOW, H2Upstream, data, headers, request_fields, settings, window_update
from h2_wire import Held, chunked_answer, others_served
from peers import Upstream, answer

CONNECTIONS = 3
SIZE = 160 * KIB     # of a body
ROOM = 512 * KIB     # CLIENT_ROOM_BYTES
FIRST = 32 * KIB     # H2_FIRST_WINDOW
BODIES = [random.Random(number).randbytes(SIZE) for number in range(STREAMS)]


def body_of(target):
    return BODIES[int(target.rsplit("/", 1)[1])]


# ---- the client ----

class Reader(Crowd):
    """Asks for another body on each stream."""

    def begin(self, name, streams=IDS):
        return self.ask(lambda i: f"/{name}/{i // 2}", streams)

    def take(self, streams=IDS):
        self.take_all(lambda i: BODIES[i // 2], streams)

    def upload(self, path, method):
        """All bodies, as far as the windows let them go: at[i] is how far."""
        self.at = dict.fromkeys(IDS, 0)
        for i in IDS:
            self.windows[i] = self.windows.get(i, 0) + self.their_settings[INITIAL_WINDOW]
            self.send(headers(i, request_fields(f"/{path}/{i // 2}", method), end=False))
        self.push(0.3)

    def push(self, patience):
        """More of them, until nothing has been heard for so long, or all is out."""
        while any(at < SIZE for at in self.at.values()):
            sent = 0
            for i, at in self.at.items():
                n = min(SIZE - at, self.windows[i], self.windows[0], 8 * KIB)
                if n > 0:
                    self.send(data(i, BODIES[i // 2][at:at + n], end=at + n == SIZE))
                    self.at[i] += n
                    self.windows[i] -= n
                    self.windows[0] -= n
                    sent += n
            if not self.listen(0 if sent else patience) and not sent:
                return


# ---- upstreams ----

class Sender:
    """Answers over HTTP/2, and counts how far it has got."""

    def __init__(self, upstream):
        self.lock, self.bytes, self.begun = threading.Lock(), 0, 0
        upstream.program(stream=self.serve)

    def serve(self, stream):
        body, piece = body_of(stream.whole().target), 4 * KIB
        stream.respond(200, f"content-length: {len(body)}")
        with self.lock:
            self.begun += 1
        for at in range(0, len(body), piece):
            stream.send(body[at:at + piece], end=at + piece == len(body))
            with self.lock:
                self.bytes += piece


class House:
    """A gateway, an upstream of each kind, and clients."""

    def __init__(self, make):
        self.upstreams = {"one": Upstream(), "two": H2Upstream()}
        self.gateway = make({
            "workers": 1, "overload": {"enabled": False}, "drain": {"delay": "0s", "timeout": "1s"},
            "upstreams": {name: {"targets": [{"address": f"127.0.0.1:{upstream.port}"}],
                                 **({"protocol": "h2"} if name == "two" else {})}
                          for name, upstream in self.upstreams.items()},
            "routes": [*({"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in self.upstreams),
                       {"name": "said", "match": {"path": {"prefix": "/said"}}, "respond": {"status": 203, "body": "said"}}],
        }).start()
        self.clients = []

    def crowd(self, hello, **more):
        self.clients.append(Reader(self.gateway.port, hello, **more))
        return self.clients[-1]

    def program(self, kind):
        """What answers: the name of its route, and its Sender."""
        if kind == "h2":
            return "two", Sender(self.upstreams["two"])
        reply = answer if kind == "length" else chunked_answer
        self.upstreams["one"].program(reply=lambda seen: reply(body_of(seen.target)))
        return "one", None

    def is_reached(self, name, count):
        until(lambda: len(self.upstreams[name].requests) >= count, f"{count} requests at {name}")

    def close(self):
        for client in self.clients:
            client.close()
        self.gateway.wait_rest()
        for upstream in self.upstreams.values():
            upstream.check()
            upstream.close()
        self.gateway.stop()


@pytest.fixture
def house(make):
    made = House(make)
    yield made
    made.close()


# ---- answers ----

# KiB of memory a connection. About 12 KiB a stream are the exchange's, the upstream connection's and nghttp2's.
MOST_KIB = {"length": 2200, "chunked": 2700, "h2": 6500}


@pytest.mark.parametrize("unread", UNREAD)
@pytest.mark.parametrize("kind", MOST_KIB)
def test_answers_that_nobody_takes_are_held_within_bounds(house, kind, unread):
    """…and then they are taken: every byte of every stream is there."""
    name, sender = house.program(kind)
    with others_served(house.gateway.port):
        before = resident_kib(house.gateway)
        hello, more = UNREAD[unread]
        crowds = [house.crowd(hello, **more) for _ in range(CONNECTIONS)]
        for crowd in crowds:
            crowd.begin(name)
        house.is_reached(name, CONNECTIONS * STREAMS)
        if sender and unread == "windows":
            until(lambda: sender.begun == CONNECTIONS * STREAMS, "every answer begun")
            assert settled(lambda: sender.bytes) <= CONNECTIONS * STREAMS * FIRST
        kib = (settled(lambda: resident_kib(house.gateway)) - before) / CONNECTIONS
        print(f"\nheld of answers, {kind}, {unread} shut: {kib:.0f} KiB a connection")
        assert kib < MOST_KIB[kind]
        for crowd in crowds:
            if unread == "windows":
                crowd.send(OPEN)
            crowd.take()


def test_windows_that_were_wide_are_bounded_together(house):
    """Each stream was taken for a while, so that its upstream may send more at a time."""
    name, sender = house.program("h2")
    crowd = house.crowd(settings((INITIAL_WINDOW, 64 * KIB)) + window_update(0, 1 << 30))
    crowd.begin(name)
    crowd.read(lambda: crowd.taken() == STREAMS * 64 * KIB)
    held = settled(lambda: sender.bytes) - crowd.taken()
    assert FIRST * STREAMS / 2 <= held <= FIRST * STREAMS + ROOM
    crowd.send(OPEN)
    crowd.take()


@pytest.mark.parametrize("kind", MOST_KIB)
def test_who_takes_nothing_keeps_nobody_of_its_connection_waiting(house, kind):
    """Most streams have shut windows and use up the room; those with open ones get all they want."""
    name, _ = house.program(kind)
    shut, opened = IDS[:80], IDS[80:]
    crowd = house.crowd(SHUT)
    crowd.begin(name, shut)
    crowd.read(lambda: all(crowd.status(i) for i in shut))
    crowd.begin(name, opened)
    crowd.send(*(window_update(i, 1 << 20) for i in opened))
    crowd.take(opened)
    assert not crowd.ended & set(shut)
    crowd.send(*(window_update(i, 1) for i in shut))   # a byte each, then all
    crowd.read(lambda: all(crowd.bodies[i] == 1 for i in shut))
    crowd.send(*(window_update(i, 1 << 20) for i in shut))
    crowd.take()


# ---- the other way: request bodies that the upstream does not take ----

@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_uploads_that_nobody_takes_are_held_within_bounds(house, method):
    """By the connection's window, and what each stream's upstream is given on top of what it has not taken. Over
    HTTP/2, where the kernel's buffers take nothing that the upstream's windows do not allow."""
    held, upstream = Held(), house.upstreams["two"]

    def serve(stream):
        stream.auto = False
        held.wait()
        stream.open_window()
        body = stream.whole().body
        stream.answer(b"%d" % (body == body_of(stream.target)))

    upstream.program(stream=serve)
    with others_served(house.gateway.port):
        before = resident_kib(house.gateway)
        crowd = house.crowd(WIDE)
        crowd.upload("two", method)
        held.until(STREAMS)
        crowd.push(0.3)
        sent = sum(crowd.at.values()) // KIB
        assert sent <= 1024 + STREAMS * 16
        kib = settled(lambda: resident_kib(house.gateway)) - before
        print(f"\nheld of uploads, {method}: {kib} KiB a connection, of {sent} KiB sent")
        assert kib < 6500
        held.go.set()
        crowd.push(10)
        crowd.read(lambda: crowd.ended >= set(IDS) or crowd.resets)
        assert not crowd.resets
        assert [i for i in IDS if b"".join(crowd.parts[i]) != b"1"] == []
