"""HTTP/2 from clients (RFC 9113), with prior knowledge and over TLS: the life of a connection: its time, its windows, and how
either side leaves. The upstream speaks HTTP/1.1.
"""
import threading

import pytest

from gateway import until
from h2_peers import (INITIAL_WINDOW, NO_ERROR, PRIORITY, WINDOW_MAX, WINDOW_UPDATE, WITH_PRIORITY, H2Client, Reset, block,
                      frame, headers, request_fields)
from h2_wire import MIB, SANITIZED, Held, chunked_answer, is_problem
from peers import Upstream, answer
from test_02_bodies import kernel_buffers, pieces, pour, standing_still
from wire import STEADY_S


@pytest.fixture
def wire(h2_wire):
    return h2_wire


@pytest.fixture
def client(h2_client):
    return h2_client


# ---- time ----

def test_an_unfinished_body_is_408_and_costs_its_stream_alone(wire):
    client, count = wire.h2("fast"), wire.ends("request_timeout")
    stream = client.begin_request("/", "POST", "content-length: 10", end=False).send(b"abc")
    is_problem(stream.whole(), 408, "request_timeout")
    assert wire.ends("request_timeout") == count + 1
    until(lambda: wire["main"].peers[0].eof, "the upstream's connection cut")
    assert client.ask().status == 200


def test_an_idle_connection_gets_a_goaway(wire):
    for listener in ("fast", "tls_fast"):
        client = wire.h2(listener)
        assert client.ask().status == 200
        client.ended()
        assert client.goaways and client.goaway == NO_ERROR and client.goaways[-1][0] == 1


def test_a_silent_client_is_closed(wire):
    client = wire.h2("fast")
    assert client.ended() and client.goaway in (None, NO_ERROR)
    assert wire.frames("fast", hello=b"").end() is None   # without a byte


def test_a_long_answer_is_waited_for(wire):
    pace = threading.Event()

    def reply(_):
        pace.wait(1.2 * STEADY_S)
        return answer(b"late")

    wire["main"].program(reply=reply)
    assert wire.h2("steady").ask().body == b"late"


@pytest.mark.parametrize("window", ["stream", "connection"])
def test_a_window_that_never_opens_is_cut(wire, window):
    wire["main"].program(reply=lambda r: answer(b"x" * (MIB if r.target == "/large" else 1)))
    count = wire.ends("client_slow")
    client = wire.h2("fast", window=0, settings={INITIAL_WINDOW: 1000 if window == "stream" else WINDOW_MAX})
    client.auto = False
    stream = client.begin_request("/large")
    until(lambda: wire.ends("client_slow") == count + 1, "the cut")
    client.until(lambda: stream.reset is not None or client.over, "the stream's reset")
    assert not stream.ended
    until(lambda: wire["main"].peers[0].over, "the upstream's connection cut")
    if window == "stream":
        assert client.ask("/small").body == b"x"


def test_a_client_that_reads_slowly_is_not_cut(wire):
    size, pace = 300_000, threading.Event()
    wire["main"].program(reply=lambda _: answer(b"x" * size))
    client = wire.h2("steady", settings={INITIAL_WINDOW: 50_000})
    stream, opened = client.begin_request(), 0
    stream.auto = False
    while opened < size:
        opened += 50_000
        stream.more(opened)
        pace.wait(STEADY_S / 5)
        stream.open_window(50_000)
    assert stream.whole().got == size


# ---- flow control ----

@pytest.mark.parametrize("window", [1, 1000, 65535, WINDOW_MAX], ids=str)
def test_windows_of_the_client_are_respected(wire, window):
    """python3-h2 fails on a byte too many."""
    size = 200 if window == 1 else 300_000
    wire["main"].program(reply=lambda _: answer(b"w" * size))
    client = wire.h2(settings={INITIAL_WINDOW: window})
    assert client.ask().body == b"w" * size


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
def test_a_body_that_just_fits_the_window_ends(wire, length):
    """END_STREAM needs no window (RFC 9113 6.9)."""
    size = 150_000
    wire["main"].program(reply=lambda _: answer(b"w" * size) if length else chunked_answer(b"w" * size))
    client = wire.h2(settings={INITIAL_WINDOW: size})
    stream = client.begin_request()
    stream.auto = False
    assert stream.whole().got == size
    assert client.ask("/said").status == 203


def test_a_window_of_zero_and_settings_that_open_it(wire, client):
    wire["main"].program(reply=lambda _: answer(b"w" * 100_000))
    client.settings(initial_window_size=0)
    client.ping()
    stream = client.begin_request()
    stream.auto = False
    client.ping()
    assert stream.head().status == 200 and not stream.got
    client.settings(initial_window_size=70_000)
    stream.more(70_000)
    client.settings(initial_window_size=10)   # it is negative now
    client.ping()
    assert stream.got == 70_000
    client.settings(initial_window_size=1_000_000)
    assert stream.whole().got == 100_000


def test_a_client_that_opens_no_window_holds_the_upstream_back(wire):
    sent = pour(wire)
    before, client = wire.resident_kib(), wire.h2()
    stream = client.begin_request("/large")
    stream.auto = False
    assert 0 < standing_still(lambda: sent[0]) < 1.5 * kernel_buffers()
    assert wire.resident_kib() - before < (8 if not SANITIZED else 256) * 1024
    assert client.ask("/other").status == 200
    stream.open_window()
    assert stream.whole().got == 2 * kernel_buffers()


def test_an_upstream_that_does_not_read_holds_the_client_back(wire):
    """The stream's window stays closed; another stream's is open."""
    go = threading.Event()

    def script(peer):
        head = peer.head()
        if head.target == "/large":
            go.wait(30)
        peer.send(answer(b"%d" % len(peer.body(head).body)))

    wire["main"].program(script)
    client, sent, size = wire.h2(), [0], 2 * kernel_buffers()
    stream, before = client.begin_request("/large", "POST", f"content-length: {size}", end=False), wire.resident_kib()

    def push():
        for piece in pieces(size):
            stream.send(piece)
            sent[0] += len(piece)

    pusher = threading.Thread(target=push, daemon=True)
    pusher.start()
    assert 0 < standing_still(lambda: sent[0]) < 1.5 * kernel_buffers()
    assert wire.resident_kib() - before < (8 if not SANITIZED else 256) * 1024
    assert client.ask("/other", "POST", body=b"z" * 200_000).body == b"200000"
    go.set()
    assert stream.whole().body == b"%d" % size
    pusher.join()


def test_bodies_nobody_wants_are_still_paid_for(wire):
    """DATA of streams that are answered or reset counts against the connection's window, which must not run dry."""
    client = wire.h2()
    for i in range(40):
        stream = client.begin_request("/tiny" if i % 2 else "/said", "POST", end=False)
        try:
            stream.send(b"z" * 60_000, end=True)
        except Reset:
            pass
        assert stream.whole().status in (413, 203)
    wire["main"].program(reply=lambda r: answer(r.body))
    assert client.ask("/", "POST", body=b"z" * MIB).got == MIB


def test_windows_are_opened_in_good_pieces(wire):
    """Not an update for each frame."""
    wire["main"].program(reply=lambda r: answer(b"%d" % len(r.body)))
    client = wire.h2()
    assert client.ask("/", "POST", body=b"z" * (8 * MIB)).body == b"%d" % (8 * MIB)
    assert client.frames[WINDOW_UPDATE] < 2 * 8 * MIB // 16384


def test_padding_is_paid_for(wire):
    """A padded frame uses up window that no body byte gives back."""
    wire["main"].program(reply=lambda r: answer(b"%d" % len(r.body)))
    client = wire.h2()
    stream = client.begin_request("/", "POST", end=False)
    with client.changed:
        for _ in range(200):
            client.until(lambda: client.h2.local_flow_control_window(stream.id) > 300, "window")
            client.h2.send_data(stream.id, b"z", pad_length=255)
            client.wake()
    for _ in range(20):
        stream.send(b"y" * 60_000)
    assert stream.finish().whole().body == b"%d" % (200 + 20 * 60_000)


# ---- priorities, PING, GOAWAY ----

def test_priorities_are_ignored(wire):
    client = wire.frames()
    weight = b"\0\0\0\x09\x10"
    client.send(frame(PRIORITY, 0, 3, b"\0\0\0\1\xff"), frame(PRIORITY, 0, 1, b"\x80\0\0\3\0"),
                headers(1, weight + block(request_fields("/1")), flags=WITH_PRIORITY),
                headers(3, weight + block(request_fields("/3")), flags=WITH_PRIORITY),
                frame(0x10, 0, 0, b"\0\0\0\3u=1"), frame(0x10, 0, 0, b"\0\0\0\5nonsense?"))
    assert client.fate(1) == client.fate(3) == ("answer", 200)
    client.send(headers(5, request_fields("/5", "GET", "priority: u=0, i")))
    assert client.fate(5) == ("answer", 200)


def test_ping_is_answered_with_its_own_bytes(wire, client):
    for _ in range(10):
        client.ping()
    assert client.ask().status == 200


def test_a_client_may_say_goaway_and_be_answered(wire, client):
    held = Held()

    def reply(_):
        held.wait()
        return answer(b"late")

    wire["main"].program(reply=reply)
    stream = client.begin_request()
    held.until(1)
    client.send_goaway(0)
    held.go.set()
    assert stream.whole().body == b"late"
    client.ended()


def test_a_client_that_cancels_takes_its_request_along(wire, client):
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.ended()))
    count = wire.ends("client_gone")
    stream = client.begin_request()
    wire["main"].wait_requests()
    stream.cancel()
    until(lambda: wire["main"].peers[0].over, "the upstream's connection closed")
    until(lambda: wire.ends("client_gone") == count + 1, "client_gone counted")
    assert client.ask("/said").status == 203


def test_a_client_that_goes_takes_all_its_requests_along(wire, client):
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.ended()))
    for i in range(30):
        client.begin_request(f"/{i}")
    wire["main"].wait_requests(30)
    client.close()
    until(lambda: all(peer.over for peer in wire["main"].peers), "the upstream's connections closed")


# ---- the gateway's life: own gateways ----

@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


def test_drain_says_goaway_and_finishes(make, upstream):
    held = Held()

    def reply(_):
        held.wait()
        return answer(b"finished")

    upstream.program(reply=reply)
    gateway = make({"workers": 1}, origin=upstream).start()
    client = H2Client(gateway.port)
    first = client.begin_request("/1")
    upload = client.begin_request("/2", "POST", end=False).send(b"half ")
    held.until(1)
    gateway.process.terminate()
    client.until(lambda: client.goaways, "GOAWAY")
    assert client.goaway == NO_ERROR and client.goaways[-1][0] >= 3
    upload.send(b"whole", end=True)
    held.go.set()
    assert first.whole().body == upload.whole().body == b"finished"
    client.ended()
    assert gateway.wait() == 0, gateway.log()


def test_drain_closes_idle_connections_at_once(make):
    gateway = make({"workers": 1}).start()
    client = H2Client(gateway.port)
    assert client.ask().body == b"hello"
    gateway.process.terminate()
    client.ended()
    assert client.goaway == NO_ERROR and gateway.wait() == 0


def test_a_reload_leaves_connections_and_streams_alone(make, upstream):
    held = Held()

    def reply(seen):
        if seen.target == "/held":
            held.wait()
        return answer(seen.target.encode())

    upstream.program(reply=reply)
    gateway = make({"workers": 1}, origin=upstream).start()
    client = H2Client(gateway.port)
    stream = client.begin_request("/held")
    held.until(1)
    gateway.reload({**gateway.config, "routes": [{"name": "new", "match": {"path": {"prefix": "/"}},
                                                  "respond": {"status": 200, "body": "new"}}]})
    until(lambda: client.ask("/other").body == b"new", "the new routes")
    held.go.set()
    assert stream.whole().body == b"/held" and not client.goaways
    client.close()
    gateway.stop()


# ---- what is counted ----

def test_gauges_follow(wire):
    held = Held()

    def reply(_):
        held.wait()
        return answer()

    def connections(state):
        return wire.metrics()[f'sallyport_connections{{listener="plain",state="{state}"}}']

    until(lambda: connections("idle") == connections("active") == 0, "no connections")
    wire["main"].program(reply=reply)
    idle, active = wire.h2(), wire.h2()
    idle.ping()
    streams = [active.begin_request(f"/{i}") for i in range(5)]
    held.until(5)
    assert (connections("idle"), connections("active")) == (1, 1)
    held.go.set()
    assert all(stream.whole().status == 200 for stream in streams)
    until(lambda: (connections("idle"), connections("active")) == (2, 0), "idle connections")
