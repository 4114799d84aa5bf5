"""HTTP/2 upstreams that misbehave (beside test_15_h2_upstreams.py): whatever they say and wherever they break off, no client
takes half an answer for a whole one, memory stays bounded, and other streams and upstreams are served.
"""
import socket
import struct
import threading

import pytest

from gateway import until
from h2_peers import (CANCEL, CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, INITIAL_WINDOW,
                      INTERNAL_ERROR, MAX_STREAMS, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE,
                      REFUSED_STREAM, SETTINGS, TABLE_SIZE, WINDOW_MAX, Frames, Reset, block, data, frame,
                      headers, hpack_integer, literal, rst, settings, window_update)
from h2_wire import MIB, SANITIZED, Held
from peers import Incomplete, request
from test_02_bodies import kernel_buffers, pieces, standing_still

OK = [(":status", "200")]


@pytest.fixture
def wire(h2_wire):
    return h2_wire


def by_hand(wire, upstream, reply, hello=settings()):
    """Each request on each connection is answered by the frames reply(stream); then everything is read until the end."""
    def script(peer):
        assert peer.exactly(len(PREFACE)) == PREFACE
        conn, done = Frames(peer, hello=b"", settle=False), set()
        conn.send(hello)
        while (got := conn.next()) is not None:
            conn.sort(got)
            if got.stream in conn.heads and got.stream not in done:
                done.add(got.stream)
                conn.send(reply(got.stream))

    wire[upstream].program(script)


def outcome(wire, version, path="/two", method="GET", body=None):
    """What a client sees: a status and a whole body, or None when the answer was visibly broken off."""
    if version == "h2":
        try:
            got = wire.h2().ask(path, method, body=body)
        except Reset as reset:
            assert reset.code != NO_ERROR
            return None
        return got.status, got.body
    try:
        got = wire.raw().ask(request(path, method, body=body))
    except (Incomplete, ConnectionError):
        return None
    return got and (got.status, got.body)


BROKEN = {
    "head_alone": lambda s: headers(s, OK, end=False) + rst(s, INTERNAL_ERROR),
    "head_no_error": lambda s: headers(s, OK, end=False) + rst(s, NO_ERROR),
    "body": lambda s: headers(s, OK, end=False) + data(s, b"abc") + rst(s, CANCEL),
    "body_of_a_length": lambda s: headers(s, OK + [("content-length", "5")], end=False) + data(s, b"abc") + rst(s, NO_ERROR),
    "shorter": lambda s: headers(s, OK + [("content-length", "5")], end=False) + data(s, b"abc", end=True),
    "longer": lambda s: headers(s, OK + [("content-length", "2")], end=False) + data(s, b"abc", end=True),
    "longer_later": lambda s: headers(s, OK + [("content-length", "3")], end=False) + data(s, b"abc") + data(s, b"d", end=True),
    "goaway": lambda s: headers(s, OK, end=False) + data(s, b"abc") + frame(GOAWAY, 0, 0, struct.pack("!II", s - 2 if s > 1 else 0, 2)),
    "trailer_control": lambda s: headers(s, OK, end=False) + data(s, b"abc") + headers(s, [("x-t", "a\r\nb")]),
    "trailer_upper": lambda s: headers(s, OK, end=False) + data(s, b"abc") + headers(s, [("X-T", "a")]),
    "trailer_status": lambda s: headers(s, OK, end=False) + data(s, b"abc") + headers(s, OK),
    "head_again": lambda s: headers(s, OK, end=False) + data(s, b"abc") + headers(s, OK, end=False) + data(s, b"d", end=True),
    "data_on_0": lambda s: headers(s, OK, end=False) + data(s, b"abc") + data(0, b"d"),
    "data_on_idle": lambda s: headers(s, OK, end=False) + data(s, b"abc") + data(s + 100, b"d"),
    "padding": lambda s: headers(s, OK, end=False) + data(s, b"abc") + frame(DATA, PADDED, s, b"\x09abc"),
    "frame_size": lambda s: headers(s, OK, end=False) + data(s, b"abc") + frame(DATA, 0, s, bytes(16385)),
    "hpack": lambda s: headers(s, OK, end=False) + data(s, b"abc") + headers(s, b"\xbe"),
    "window_0": lambda s: headers(s, OK, end=False) + data(s, b"abc") + window_update(0, 0),
    "window_overflow": lambda s: headers(s, OK, end=False) + data(s, b"abc") + window_update(0, WINDOW_MAX),
    "ping_size": lambda s: headers(s, OK, end=False) + data(s, b"abc") + frame(PING, 0, 0, bytes(7)),
    "settings_size": lambda s: headers(s, OK, end=False) + data(s, b"abc") + frame(SETTINGS, 0, 0, bytes(5)),
    "push": lambda s: headers(s, OK, end=False) + data(s, b"abc") +
    frame(PUSH_PROMISE, END_HEADERS, s, b"\0\0\0\2" + block([(":method", "GET"), (":scheme", "http"), (":path", "/evil"),
                                                            (":authority", "test")])) + headers(2, OK),
    "trailer_bomb": lambda s: headers(s, OK, end=False) + data(s, b"abc") +
    headers(s, literal("x", "y" * 4000, first=0x40) + b"\xbe" * 12_000),
}


@pytest.mark.parametrize("version", ["1.1", "h2"])
@pytest.mark.parametrize("name", BROKEN)
def test_half_an_answer_never_looks_whole(wire, name, version):
    by_hand(wire, "two", BROKEN[name])
    got = outcome(wire, version, method="POST", body=b"x")
    # A length that is met ends an answer of HTTP/1; what comes behind it cannot take that back.
    assert got is None or got[0] == 502 or (name, version, got) == ("longer_later", "1.1", (200, b"abc")), got
    wire["two"].program()
    assert outcome(wire, version) == (200, b"ok")


HEADS = {
    "none": [], "no_status": [("x", "y")], "status_empty": [(":status", "")], "status_20": [(":status", "20")],
    "status_099": [(":status", "099")], "status_sign": [(":status", "+20")], "status_words": [(":status", "200 OK")],
    "status_700": [(":status", "700")], "status_crlf": [(":status", "200\r\nx: y")], "status_twice": OK + [(":status", "404")],
    "switching": [(":status", "101")], "path": OK + [(":path", "/")], "unknown": OK + [(":evil", "x")],
    "name_empty": OK + [("", "x")], "name_crlf": OK + [("x\r\nset-cookie: evil", "x")], "name_nul": OK + [("x\0", "x")],
    "value_cr": OK + [("x", "a\rb")], "value_lf": OK + [("x", "a\nset-cookie: evil")], "value_space": OK + [("x", " a")],
    "location_crlf": [(":status", "302"), ("location", "/\r\nset-cookie: evil")],
    "keep_alive": OK + [("keep-alive", "5")], "upgrade": OK + [("upgrade", "h2c")], "chunked": OK + [("transfer-encoding", "chunked")],
    "length_word": OK + [("content-length", "x")], "length_minus": OK + [("content-length", "-1")],
    "length_2_64": OK + [("content-length", "18446744073709551616")], "length_list": OK + [("content-length", "0, 0")],
    "length_twice": OK + [("content-length", "0")] * 2,
}


@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_malformed_heads_are_502(wire, version):
    wrong = []
    for name, fields in HEADS.items():
        by_hand(wire, "two", lambda s, fields=fields: headers(s, fields))
        got = outcome(wire, version, method="POST", body=b"x")
        if not got or got[0] != 502 or b"evil" in got[1]:
            wrong.append((name, got))
    assert not wrong


FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)) * 20_000, "settings": settings() * 20_000,
    "settings_changing": b"".join(settings((INITIAL_WINDOW, i), (TABLE_SIZE, i)) for i in range(5000)),
    "priority": frame(PRIORITY, 0, 1, bytes(5)) * 50_000, "unknown": frame(0x77, 0, 0, b"abc") * 20_000,
    "window_updates": window_update(0, 1) * 100_000, "empty_data": data(1) * 20_000,
    "padding": frame(DATA, PADDED, 1, b"\0") * 20_000, "empty_continuations": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 20_000,
    "continuations": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, literal("x", "y" * 1000)) * 2000,
    "interim": headers(1, [(":status", "103")], end=False) * 20_000, "altsvc": frame(0xa, 0, 0, b"\0\1ab") * 20_000,
    "trailers": headers(1, [("x", "y")], end=False) * 20_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(wire, name):
    head = b"" if name in ("interim", "continuations", "empty_continuations") else headers(1, OK, end=False)
    by_hand(wire, "two", lambda s: head + FLOODS[name])
    with wire.unharmed():
        got = outcome(wire, "h2", method="POST", body=b"x")
        assert got is None or got[0] == 502
        if name not in ("interim", "trailers"):   # these end the stream, and what still comes for it is dropped
            until(lambda: all(peer.over for peer in wire["two"].peers), "the connection's end")
    wire["two"].program()
    assert outcome(wire, "h2") == (200, b"ok")


@pytest.mark.parametrize("bomb", [literal("x", "y" * 4000, first=0x40) + b"\xbe" * 12_000,
                                  literal("x", "", first=0x40) + b"\xbe" * 15_000, literal("x", "y" * 4000, first=0x40) + b"\xbe" * 100],
                         ids=["large", "many", "small"])
def test_a_bomb_is_502(wire, bomb):
    by_hand(wire, "two", lambda s: headers(s, block(OK) + bomb))
    with wire.unharmed():
        for _ in range(10):
            assert outcome(wire, "h2", method="POST", body=b"x")[0] == 502
    wire["two"].program()
    assert outcome(wire, "1.1") == (200, b"ok")


def test_answers_to_what_was_not_asked(wire):
    """Frames for streams that are not there: an error of the connection, never of another client's answer."""
    for strange in (headers(2, OK), headers(101, OK), data(101, b"evil"), rst(101), window_update(101, 1),
                    frame(CONTINUATION, END_HEADERS, 1), headers(0, OK)):
        by_hand(wire, "two", lambda s, strange=strange: strange)
        got = outcome(wire, "h2", method="POST", body=b"x")
        assert got is None or got[0] == 502 and b"evil" not in got[1]


def test_an_end_within_a_frame(wire):
    for cut in (3, 9, 12, 20, 25):
        whole = headers(1, OK + [("content-length", "3")], end=False) + data(1, b"abc", end=True)

        def script(peer, part=whole[:-cut]):
            peer.exactly(len(PREFACE))
            conn = Frames(peer, hello=b"", settle=False)
            conn.send(settings())
            conn.read(lambda: conn.heads)
            conn.send(part)

        wire["two"].program(script)
        got = outcome(wire, "h2", method="POST", body=b"x")
        assert got is None or got[0] == 502


# ---- sent again ----

@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_what_was_refused_is_sent_again(wire, method, version):
    """REFUSED_STREAM says that nothing was done: POST too (RFC 9113 8.7)."""
    refused = []

    def stream(s):
        s.whole()
        if len(refused) < 2:
            refused.append(s.id)
            s.cancel(REFUSED_STREAM)
        else:
            s.answer(s.body or b"third")

    wire["two_again"].program(stream=stream)
    body = b"pay" if method == "POST" else None
    assert outcome(wire, version, "/two_again", method, body) == (200, body or b"third")
    assert len(wire["two_again"].requests) == 3


def test_refused_for_ever(wire):
    wire["two_again"].program(stream=lambda s: s.cancel(REFUSED_STREAM))
    got = outcome(wire, "h2", "/two_again", "POST", b"pay")
    assert got[0] in (502, 503) and 1 <= len(wire["two_again"].requests) <= 6


@pytest.mark.parametrize("body", [b"pay", None])
def test_a_post_that_was_reset_otherwise_is_not_repeated(wire, body):
    wire["two_again"].program(stream=lambda s: (s.whole(), s.cancel(INTERNAL_ERROR)))
    assert outcome(wire, "h2", "/two_again", "POST", body)[0] == 502
    assert len(wire["two_again"].requests) == 1


def test_a_goaway_that_took_nothing(wire):
    """What a GOAWAY names as not looked at goes to a new connection, POST too."""
    def stream(s):
        if s.number == 1:
            s.session.send_goaway(0)
        else:
            s.answer(s.whole().body)

    wire["two_again"].program(stream=stream)
    assert outcome(wire, "h2", "/two_again", "POST", b"pay") == (200, b"pay")
    assert wire["two_again"].accepted == 2


def test_goaway_in_two_steps_loses_nothing(wire):
    """A server that shuts down gently, under load."""
    def stream(s):
        if s.id == 21 and s.number == 1:
            s.session.send_goaway(WINDOW_MAX)
            s.session.ping()
            s.session.send_goaway(max(s.session.streams))
        s.answer(s.whole().body)

    wire["two"].program(stream=stream)
    client = wire.h2()
    streams = [client.send_request(f"/two/{i}", "POST", body=b"%d" % i) for i in range(60)]
    for i, each in enumerate(streams):
        assert each.whole().status == 200 and each.body == b"%d" % i


# ---- settings ----

def test_one_stream_at_a_time(wire):
    """MAX_CONCURRENT_STREAMS 1 and one connection: they queue."""
    running, most, lock = [0], [0], threading.Lock()

    def stream(s):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        s.whole()
        with lock:
            running[0] -= 1
        s.answer(s.target.encode())

    wire["two_one"].program(stream=stream, settings={MAX_STREAMS: 1})
    client = wire.h2()
    streams = [client.begin_request(f"/two_one/{i}") for i in range(30)]
    for i, each in enumerate(streams):
        assert each.whole().body == b"/two_one/%d" % i
    assert most[0] == 1 and wire["two_one"].accepted == 1


def test_no_streams_at_all(wire):
    wire["two_fast"].program(settings={MAX_STREAMS: 0})
    got = outcome(wire, "h2", "/two_fast", "POST", b"x")
    assert got[0] in (502, 503) and not wire["two_fast"].requests


def test_fewer_streams_than_are_open(wire):
    """Lowered while streams run: they go on, new ones wait."""
    held = Held()
    wire["two_one"].program(stream=lambda s: (s.whole(), held.wait(), s.answer()))
    client = wire.h2()
    streams = [client.begin_request("/two_one") for _ in range(10)]
    held.until(10)
    session = wire["two_one"].sessions[0]
    session.settings(max_concurrent_streams=1)
    session.ping()
    late = client.begin_request("/two_one/late")
    client.ping()
    assert held.waiting == 10
    held.go.set()
    assert all(each.whole().status == 200 for each in [*streams, late])


@pytest.mark.parametrize("window", [1, 100, WINDOW_MAX])
def test_any_window_is_respected(wire, window):
    """python3-h2 fails on a byte too many."""
    body = b"".join(pieces(100 if window == 1 else 200_000))
    wire["two"].program(reply=lambda seen: seen.body, settings={INITIAL_WINDOW: window})
    assert outcome(wire, "h2", "/two", "POST", body) == (200, body)


def test_a_window_that_opens_late(wire):
    def stream(s):
        s.head()
        s.session.ping()
        assert not s.got
        s.session.settings(initial_window_size=100_000)
        s.answer(s.whole().body)

    wire["two"].program(stream=stream, settings={INITIAL_WINDOW: 0})
    body = b"".join(pieces(300_000))
    for version in ("1.1", "h2"):
        wire["two"].program(stream=stream, settings={INITIAL_WINDOW: 0})
        assert outcome(wire, version, "/two", "POST", body) == (200, body)


def test_a_window_that_never_opens_holds_the_client_back(wire):
    held = Held()
    wire["two"].program(stream=lambda s: (s.head(), held.wait(), s.answer()), settings={INITIAL_WINDOW: 0})
    before, client, sent = wire.resident_kib(), wire.raw(), [0]
    size = 2 * kernel_buffers()

    def push():
        try:
            client.send(request("/two", "POST", f"Content-Length: {size}"))
            for piece in pieces(size):
                client.send(piece)
                sent[0] += len(piece)
        except OSError:
            pass

    pusher = threading.Thread(target=push, daemon=True)
    pusher.start()
    held.until(1)
    stopped = standing_still(lambda: sent[0])
    assert stopped < 1.5 * kernel_buffers()
    assert wire.resident_kib() - before < (8 if not SANITIZED else 256) * 1024
    assert outcome(wire, "h2", "/said") == (203, b"said\n")
    client.socket.shutdown(socket.SHUT_RDWR)   # wakes who sends, too
    pusher.join()
    held.go.set()


@pytest.mark.parametrize("size", [0, 100, WINDOW_MAX])
def test_other_tables(wire, size):
    """What the upstream allows for HPACK binds our encoder; python3-h2 fails on a reference that it does not have."""
    wire["two"].program(reply=lambda seen: (seen.get("x-long") or "").encode(), settings={TABLE_SIZE: size})
    client = wire.h2()
    for i in range(20):
        assert client.ask("/two", "GET", f"x-long: {'v' * (50 * i)}").body == b"v" * (50 * i)


def test_the_upstreams_table_goes_up_and_down(wire):
    sizes = b"\x20" + hpack_integer(4096, 5, 0x20)
    by_hand(wire, "two", lambda s: headers(s, sizes + block(OK) + literal("x-kept", "y" * 3000, first=0x40)))
    client = wire.h2()
    for _ in range(50):
        assert client.ask("/two").get("x-kept") == "y" * 3000


# ---- much, and slowness ----

def test_more_data_than_the_window(wire):
    """The client reads nothing, and the upstream does not care about windows."""
    by_hand(wire, "two", lambda s: headers(s, OK, end=False) + data(s, bytes(16384)) * 2000)
    client = wire.h2(window=0)
    with wire.unharmed():
        stream = client.begin_request("/two", "POST")
        stream.auto = False
        assert stream.until_reset() != NO_ERROR
    assert stream.got <= 65535


def test_many_slow_clients_of_one_connection(wire):
    """Each may have a stream's window waiting, and none holds the others up."""
    wire["two"].program(reply=lambda seen: b"x" * (4 if seen.target.endswith("quick") else 2 * MIB))
    with wire.unharmed():
        client = wire.h2()
        streams = [client.begin_request("/two/slow") for _ in range(80)]
        for stream in streams:
            stream.auto = False
        for stream in streams:
            stream.more(1)
        for _ in range(20):
            assert wire.h2().ask("/two/quick").body == b"xxxx"
        for stream in streams:
            stream.cancel()
    until(wire.at_rest, "rest")


@pytest.mark.parametrize("say", [lambda s: b"", lambda s: headers(s, OK, end=False)[:12],
                                 lambda s: frame(HEADERS, 0, s, block(OK)), lambda s: headers(s, [(":status", "103")], end=False)],
                         ids=["nothing", "half_a_frame", "half_a_block", "interim"])
def test_an_upstream_that_falls_silent_is_504(wire, say):
    by_hand(wire, "two_fast", say)
    got = outcome(wire, "h2", "/two_fast", "POST", b"x")
    assert got[0] == 504
    wire["two_fast"].program()
    assert outcome(wire, "h2", "/two_fast") == (200, b"ok")


def test_silence_within_a_body(wire):
    by_hand(wire, "two_fast", lambda s: headers(s, OK, end=False) + data(s, b"abc"))
    for version in ("1.1", "h2"):
        assert outcome(wire, version, "/two_fast", "POST", b"x") is None


def test_one_bad_stream_among_many(wire):
    """A stream's fault ends that stream."""
    held = Held()

    def stream(s):
        s.whole()
        if "bad" in s.target:
            s.respond(200, ("x-a", "b\rc"), end=True)
        else:
            held.wait()
            s.answer()

    wire["two"].program(stream=stream, checks=False)
    client = wire.h2()
    good = [client.begin_request("/two/good") for _ in range(10)]
    held.until(10)
    for _ in range(5):
        assert client.ask("/two/bad", "POST", body=b"x").status == 502
    held.go.set()
    assert all(each.whole().status == 200 for each in good)
    assert wire["two"].accepted == 1
