"""HTTP/2 towards upstreams: many requests on one connection, refused ones sent again, bodies both ways in bounded memory,
answers that are broken off or malformed, connections that end.
"""
import socket
import threading

import pytest

from gateway import until
from h2_peers import (ACK, CANCEL, ENHANCE_YOUR_CALM, HEADERS, INTERNAL_ERROR, MAX_STREAMS, NO_ERROR, PING, PREFACE, PROTOCOL_ERROR,
                      REFUSED_STREAM, SETTINGS, WINDOW_UPDATE, H2Upstream, block, data, frame, headers, settings)
from h2_wire import SANITIZED
from peers import Incomplete, answer, request
from wire import Wire

MIB = 1024 * 1024
BIG = 64 * MIB
BOUND_KIB = (8 if not SANITIZED else 256) * 1024   # nghttp2 frees for each frame, and a sanitizer keeps that for a while


class H2Wire(Wire):
    LISTENERS = {"plain": {"limits": {"body_bytes": "2GiB"}}}
    UPSTREAMS = {name: {"protocol": "h2", **settings} for name, settings in {
        "main": {"timeouts": {"response": "20s"}, "retries": {"attempts": 0}},
        "again": {"retries": {"attempts": 2, "backoff": "1ms", "budget": 1.0, "body_bytes": "4KiB"}},
        "one": {"limits": {"connections": 1}, "retries": {"attempts": 0}, "timeouts": {"connect": "5s"}},
        "queue": {"limits": {"connections": 1}, "retries": {"attempts": 0}, "timeouts": {"connect": "1s"}},
        "quick": {"timeouts": {"connect": "1s", "idle": "1s"}, "retries": {"attempts": 0}},
    }.items()}

    def new_upstream(self, target):
        return H2Upstream()

    def routes(self):
        return [{"name": name, "match": {"path": {"prefix": path}}, "upstream": name, "timeout": "0s"}
                for name, path in (("main", "/"), *((name, f"/{name}") for name in self.UPSTREAMS if name != "main"))]

    def retries(self, upstream, reason):
        return self.metrics().get(f'sallyport_upstream_retries_total{{upstream="{upstream}",reason="{reason}"}}', 0)

    def begin_many(self, count, path="/"):
        """Requests that wait for their answers, each on a client connection of its own."""
        return [self.raw().send(request(f"{path}/{i}")) for i in range(count)]


@pytest.fixture(scope="module")
def whole_h2_wire(tmp_path_factory):
    wire = H2Wire(tmp_path_factory.mktemp("h2"))
    yield wire
    try:
        wire.gateway.stop()
    finally:
        wire.gateway.kill()
        for upstream in wire.upstreams.values():
            upstream.close()


@pytest.fixture
def wire(whole_h2_wire):
    whole_h2_wire.begin()
    yield whole_h2_wire
    whole_h2_wire.end()


class Held:
    """Streams that wait until the test answers them."""

    def __init__(self, upstream, **session):
        self.streams, self.lock = [], threading.Lock()
        upstream.program(stream=self.take, **session)

    def take(self, stream):
        with self.lock:
            self.streams.append(stream)

    def wait(self, count):
        until(lambda: len(self.streams) >= count, lambda: f"{count} streams, there are {len(self.streams)}")
        return self.streams[:count]


def reset_of(stream):
    """The code of the reset that the gateway sends, whether its request is complete or not."""
    stream.session.until(lambda: stream.reset is not None, lambda: f"a reset: {stream}")
    return stream.reset


# ---- what a request and a response become ----

def test_a_request_in_other_words(wire):
    got = wire.raw().ask(request("/a?b=c", "POST", "X-Mixed-Case: Value", "Connection: keep-alive, X-Gone", "X-Gone: 1",
                                 "TE: trailers", "Cookie: a=b", host="front.example:8080", body=b"body"))
    assert got.status == 200 and got.body == b"ok"
    seen = wire["main"].only()
    assert seen.pseudo == {":method": "POST", ":scheme": "http", ":authority": "front.example:8080", ":path": "/a?b=c"}
    assert seen.get("x-mixed-case") == "Value" and seen.get("content-length") == "4" and seen.body == b"body"
    assert seen.get("via") == "1.1 sallyport" and seen.get("x-forwarded-for") == "127.0.0.1"
    assert not {"host", "connection", "x-gone", "transfer-encoding", "keep-alive", "upgrade"} & set(seen.names)


def test_an_upgrade_is_an_ordinary_request(wire):
    got = wire.raw().ask(request("/", "GET", "Connection: Upgrade", "Upgrade: websocket"))
    assert got.status == 200
    assert "upgrade" not in wire["main"].only().names


def test_chunked_bodies_and_trailers_both_ways(wire):
    wire["main"].program(reply=lambda seen: {"body": seen.body * 2, "trailers": ["X-Sum: 42", "Authorization: of whom"],
                                             "length": False})
    got = wire.raw().ask("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n"
                         "Connection: TE\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Check: sum\r\n\r\n")
    seen = wire["main"].only()
    assert seen.body == b"abcde" and dict(seen.trailers) == {"x-check": "sum"}
    assert seen.get("te") == "trailers" and seen.get("content-length") is None
    assert got.body == b"abcdeabcde" and [(name.lower(), value) for name, value in got.trailers] == [("x-sum", "42")]


@pytest.mark.parametrize("method,status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
@pytest.mark.parametrize("end_at_once", [True, False])
def test_answers_without_a_body(wire, method, status, end_at_once):
    def reply(stream):
        length = ["content-length: 5"] if status != 204 else []
        stream.whole().respond(status, *length, end=end_at_once)
        if not end_at_once:
            stream.finish()

    wire["main"].program(stream=reply)
    client = wire.raw()
    got = client.ask(request("/", method), method)
    assert got.status == status and got.get("Content-Length") == ("5" if status != 204 else None)
    assert client.ask(request("/", method), method).status == status   # nothing is left of the first


def test_an_empty_answer_and_an_empty_body(wire):
    wire["main"].program(reply=lambda seen: {"body": b"", "length": False})
    got = wire.raw().ask(request("/", "POST", body=b""))
    assert got.status == 200 and got.body == b""
    assert wire["main"].only().get("content-length") == "0"


def test_interim_answers_go_through(wire):
    def reply(stream):
        stream.head().send_fields([(":status", "100")])
        stream.send_fields([(":status", "103"), ("link", "</style.css>")])
        stream.whole().answer(b"done")

    wire["main"].program(stream=reply)
    client = wire.raw()
    client.send(request("/", "PUT", "Expect: 100-continue", "Content-Length: 2"))
    assert client.response(interim=True).status == 100
    client.send(b"hi")
    assert client.response(interim=True).status == 103
    assert client.response().body == b"done"
    assert wire["main"].only().body == b"hi"


# ---- the pool ----

def test_many_requests_share_a_connection(wire):
    held = Held(wire["main"])
    clients = wire.begin_many(50)
    streams = held.wait(50)
    assert wire["main"].accepted == 1 and len({stream.id for stream in streams}) == 50
    for stream in reversed(streams):
        stream.answer(stream.target.encode())
    for i, client in enumerate(clients):
        assert client.response().body == f"//{i}".encode()
    assert wire.pooled("main") == 1


def test_no_more_streams_than_the_peer_takes(wire):
    held = Held(wire["main"], settings={MAX_STREAMS: 3})
    clients = wire.begin_many(8)
    streams = held.wait(8)
    assert wire["main"].accepted == 3
    assert all(len(session.streams) <= 3 for session in wire["main"].sessions)
    for stream in streams:
        stream.answer()
    assert [client.response().status for client in clients] == [200] * 8


def test_who_finds_no_room_waits_in_line(wire):
    held = Held(wire["one"], settings={MAX_STREAMS: 2})
    clients = wire.begin_many(5, "/one")
    for answered in range(5):
        held.wait(min(2 + answered, 5))[answered].answer()
    assert [client.response().status for client in clients] == [200] * 5
    assert wire["one"].accepted == 1


def test_who_waits_too_long_is_told(wire):
    held = Held(wire["queue"], settings={MAX_STREAMS: 1})
    first = wire.raw().send(request("/queue"))
    held.wait(1)
    late = wire.raw().ask(request("/queue"))
    assert late.status == 503 and late.json["code"] == "overloaded"
    held.streams[0].answer()
    assert first.response().status == 200


def test_more_room_is_used_when_it_is_given(wire):
    held = Held(wire["one"], settings={MAX_STREAMS: 1})
    clients = wire.begin_many(3, "/one")
    held.wait(1)[0].session.settings(max_concurrent_streams=3)
    for stream in held.wait(3):
        stream.answer()
    assert [client.response().status for client in clients] == [200] * 3


def test_an_idle_session_says_goodbye(wire):
    assert wire.raw().ask(request("/quick")).status == 200
    session, = wire["quick"].sessions
    assert session.ended() and session.goaway == NO_ERROR
    assert wire.pooled("quick") == 0


def test_a_post_after_a_silent_close(wire):
    """The upstream closes each connection after its answer: a POST does not run into it."""
    def reply(stream):
        stream.whole().answer()
        stream.session.ping()
        stream.session.close()

    wire["main"].program(stream=reply)
    for i in range(10):
        assert wire.raw().ask(request(f"/{i}", "POST", body=b"x")).status == 200
        until(lambda: wire.pooled("main") == 0, "the closed connection dropped")


# ---- refused ----

@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_stream_is_sent_again(wire, method):
    def reply(stream):
        if len(wire["again"].requests) < 3:
            stream.cancel(REFUSED_STREAM)
        else:
            stream.whole().answer(stream.body or b"none")

    wire["again"].program(stream=reply)
    before = wire.retries("again", "refused_stream")
    body = b"again and again" if method == "POST" else None
    got = wire.raw().ask(request("/again", method, body=body))
    assert got.status == 200 and got.body == (body or b"none")
    assert wire["again"].accepted == 1 and len(wire["again"].requests) == 3
    assert wire.retries("again", "refused_stream") == before + 2


def test_a_refused_stream_without_another_try(wire):
    wire["main"].program(stream=lambda stream: stream.cancel(REFUSED_STREAM))
    before = wire.ends("upstream_refused_stream")
    got = wire.raw().ask(request("/", "POST", body=b"x"))
    assert got.status == 502 and got.json["code"] == "upstream_refused_stream"
    assert len(wire["main"].requests) == 1 and wire.ends("upstream_refused_stream") == before + 1


def test_a_long_body_is_not_kept_for_another_try(wire):
    wire["again"].program(stream=lambda stream: stream.more(5000).cancel(REFUSED_STREAM))
    got = wire.raw().ask(request("/again", "POST", body=b"x" * 8000))
    assert got.status == 502 and len(wire["again"].requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_goaway_refuses_later_streams(wire, method):
    """What the upstream has not looked at is sent on another connection, what it has is awaited."""
    held = Held(wire["again"])
    kept = wire.raw().send(request("/again/kept", method, body=b"a" if method == "POST" else None))
    first, = held.wait(1)
    other = wire.raw().send(request("/again/other", method, body=b"b" if method == "POST" else None))
    held.wait(2)
    first.session.send_goaway(last=first.id)
    again = held.wait(3)[2]
    assert again.session is not first.session and again.target == "/again/other"
    again.whole().answer(b"other")
    assert other.response().body == b"other"
    first.whole().answer(b"kept")
    assert kept.response().body == b"kept"
    assert first.session.ended()


def test_goaway_lets_streams_end_and_takes_no_new_ones(wire):
    held = Held(wire["main"])
    before = wire.raw().send(request("/before"))
    first, = held.wait(1)
    first.session.send_goaway()
    first.session.ping()
    after = wire.raw().send(request("/after"))
    second = held.wait(2)[1]
    assert second.session is not first.session
    second.answer()
    first.answer()
    assert before.response().status == after.response().status == 200
    assert first.session.ended()


# ---- broken off ----

@pytest.mark.parametrize("code", [CANCEL, INTERNAL_ERROR, NO_ERROR])
def test_a_reset_before_the_head(wire, code):
    wire["again"].program(stream=lambda stream: stream.whole().cancel(code))
    got = wire.raw().ask(request("/again", "POST", body=b"x"))
    assert got.status == 502 and got.json["code"] == "upstream_reset"
    assert len(wire["again"].requests) == 1   # it may have been carried out
    got = wire.raw().ask(request("/again"))
    assert got.status == 502 and len(wire["again"].requests) == 1 + 3   # a GET may be repeated
    assert wire["again"].accepted == 1   # the connection is as good as before


@pytest.mark.parametrize("end", ["reset", "close"])
def test_an_answer_that_is_broken_off_never_looks_complete(wire, end):
    def reply(stream):
        stream.whole().respond(200).send(b"half")
        stream.session.ping()
        stream.cancel() if end == "reset" else stream.session.close()

    wire["main"].program(stream=reply)
    before = wire.ends("upstream_truncated")
    client = wire.raw().send(request("/"))
    with pytest.raises((Incomplete, ConnectionError)):
        client.response()
    until(lambda: wire.ends("upstream_truncated") == before + 1, "upstream_truncated counted")


def test_an_answer_before_the_request_is_over(wire):
    """RST_STREAM NO_ERROR behind a complete answer: the rest of the request is not needed."""
    def reply(stream):
        stream.more(10).answer(b"enough", 413)
        stream.cancel(NO_ERROR)

    wire["main"].program(stream=reply)
    client = wire.raw().send(request("/", "POST", f"Content-Length: {BIG}"))
    client.send(b"x" * 1000)
    got = client.response()
    assert got.status == 413 and got.body == b"enough"


def test_a_client_that_leaves_cancels_its_stream_only(wire):
    held = Held(wire["main"])
    leaving, staying = wire.begin_many(2)
    streams = {stream.target: stream for stream in held.wait(2)}
    leaving.reset()
    assert reset_of(streams["//0"]) == CANCEL
    streams["//1"].answer()
    assert staying.response().status == 200
    assert wire.raw().send(request("/")) and held.wait(3)[2].session is streams["//1"].session
    held.streams[2].answer()


def test_a_connection_that_dies_takes_its_streams_along(wire):
    held = Held(wire["again"])
    clients = wire.begin_many(5, "/again")
    held.wait(5)[0].session.close()
    for stream in held.wait(10)[5:]:
        stream.answer()
    assert [client.response().status for client in clients] == [200] * 5   # GETs, sent again


# ---- malformed ----

GOOD = [(b":status", b"200")]


def by_hand(wire, upstream, *frames):
    """The first request of each connection is answered by these frames; what else the gateway sends is dropped."""
    def script(peer):
        peer.exactly(len(PREFACE))
        peer.send(settings())
        kind = None
        while kind != HEADERS:
            head = peer.exactly(9)
            kind = head[3]
            peer.exactly(int.from_bytes(head[:3], "big"))
        peer.send(b"".join(frames))
        peer.ended()

    wire[upstream].program(script)


@pytest.mark.parametrize("name,frames", {
    "no status": [headers(1, [(b"x", b"y")])],
    "two statuses": [headers(1, GOOD + GOOD)],
    "status behind a field": [headers(1, [(b"x", b"y")] + GOOD)],
    "a request's pseudo-field": [headers(1, GOOD + [(b":path", b"/")])],
    "a status of letters": [headers(1, [(b":status", b"2xx")])],
    "a long status": [headers(1, [(b":status", b"2000")])],
    "101": [headers(1, [(b":status", b"101")])],
    "upper case": [headers(1, GOOD + [(b"X-Upper", b"y")])],
    "a space in a name": [headers(1, GOOD + [(b"x y", b"z")])],
    "a colon in a name": [headers(1, GOOD + [(b"x:y", b"z")])],
    "CRLF in a value": [headers(1, GOOD + [(b"x", b"y\r\nSet-Cookie: a=b")])],
    "NUL in a value": [headers(1, GOOD + [(b"x", b"y\0z")])],
    "connection": [headers(1, GOOD + [(b"connection", b"close")])],
    "transfer-encoding": [headers(1, GOOD + [(b"transfer-encoding", b"chunked")])],
    "two lengths": [headers(1, GOOD + [(b"content-length", b"2"), (b"content-length", b"3")], end=False), data(1, b"hi", True)],
    "a length that is none": [headers(1, GOOD + [(b"content-length", b"+2")], end=False), data(1, b"hi", True)],
    "a length without a body": [headers(1, GOOD + [(b"content-length", b"2")])],
    "an interim head that ends": [headers(1, [(b":status", b"103")])],
    "too many interim heads": [headers(1, [(b":status", b"103")], end=False) * 40],
    "DATA before a head": [data(1, b"hi", True)],
    "too many fields": [headers(1, GOOD + [(b"x%d" % i, b"y") for i in range(250)])],
}.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_malformed_head_is_not_forwarded(wire, name, frames):
    by_hand(wire, "main", *frames)
    got = wire.raw().ask(request("/"))
    assert got.status == 502 and got.json["code"] == "upstream_bad_response", name
    assert "set-cookie" not in got.names


@pytest.mark.parametrize("frames", [
    [headers(1, GOOD + [(b"content-length", b"9")], end=False), data(1, b"short", True)],
    [headers(1, GOOD + [(b"content-length", b"2")], end=False), data(1, b"more than that", True)],
    [headers(1, GOOD, end=False), data(1, b"hi"), headers(1, [(b":status", b"200")])],
    [headers(1, GOOD, end=False), data(1, b"hi"), headers(1, [(b"x", b"a\rb")])],
    [headers(1, GOOD, end=False), data(1, b"hi"), headers(1, [(b"x", b"no end")], end=False)],
], ids=["short", "long", "pseudo-trailer", "control in a trailer", "trailers without an end"])
def test_a_malformed_body_never_looks_complete(wire, frames):
    by_hand(wire, "main", *frames)
    before = wire.ends("upstream_bad_response")
    client = wire.raw().send(request("/"))
    try:
        got = client.response()
    except (Incomplete, ConnectionError):
        pass
    else:
        assert got.status == 502   # nothing had been sent yet
    until(lambda: wire.ends("upstream_bad_response") == before + 1, "upstream_bad_response counted")


def test_a_malformed_stream_is_reset_and_the_others_go_on(wire):
    held = Held(wire["main"], checks=False)
    bad, good = wire.begin_many(2)
    streams = {stream.target: stream for stream in held.wait(2)}
    streams["//0"].send_fields([(":status", "200"), ("connection", "close")])
    assert bad.response().status == 502
    assert reset_of(streams["//0"]) == PROTOCOL_ERROR
    streams["//1"].answer()
    assert good.response().status == 200


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\0" * 64, b""])
def test_a_peer_that_does_not_speak_http2(wire, said):
    def script(peer):
        peer.send(said)
        peer.shut()
        peer.ended()

    wire["main"].program(script)
    got = wire.raw().ask(request("/", "POST", body=b"x"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"


def test_a_peer_that_says_nothing(wire):
    wire["quick"].program(lambda peer: peer.ended())
    got = wire.raw().ask(request("/quick"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"


@pytest.mark.parametrize("name,flood", [
    ("PING", frame(PING, payload=b"12345678") * 2000),
    ("SETTINGS", settings() * 2000),
    ("tiny WINDOW_UPDATEs", frame(WINDOW_UPDATE, payload=b"\0\0\0\1") * 40000),
    ("empty DATA", headers(1, GOOD, end=False) + data(1) * 2000),
    ("unknown frames", frame(0xbe) * 2000),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_flood_ends_the_connection(wire, name, flood):
    by_hand(wire, "main", flood)
    client = wire.raw().send(request("/"))
    try:
        got = client.response()
    except (Incomplete, ConnectionError):
        pass
    else:
        assert got.status == 502
    until(lambda: wire["main"].peers[0].over, "the connection closed")
    wire["main"].program()
    assert wire.raw().ask(request("/")).status == 200


def test_push_is_refused(wire):
    promise = frame(5, 0x4, 1, b"\0\0\0\2" + block([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/pushed"),
                                                   (b":authority", b"test")]))
    by_hand(wire, "main", frame(SETTINGS, ACK), promise, headers(1, GOOD))
    assert wire.raw().ask(request("/")).status == 502


# ---- much to carry ----

def pattern(count):
    return bytes(range(251)) * (count // 251 + 1)


def test_a_big_upload_in_bounded_memory(wire):
    held = Held(wire["main"])
    client = wire.raw()
    body = pattern(BIG)[:BIG]
    before = wire.resident_kib()
    sender = threading.Thread(target=lambda: client.send(request("/", "POST", body=body)))
    sender.start()
    stream, = held.wait(1)
    stream.more(BIG // 2)
    grown = wire.resident_kib() - before
    stream.whole().answer()
    sender.join()
    assert client.response().status == 200 and stream.body == body
    assert grown < BOUND_KIB


def test_an_upload_waits_for_the_upstream(wire):
    """The windows are full: no more is taken from the client than they and the buffers hold."""
    held = Held(wire["main"])
    client = wire.raw()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    body = pattern(8 * MIB)[:8 * MIB]
    before = wire.resident_kib()

    def send():
        client.send(request("/", "POST", body=body))

    sender = threading.Thread(target=send)
    sender.start()
    stream, = held.wait(1)
    stream.auto = False
    stream.more(60000)
    stream.session.ping()
    assert wire.resident_kib() - before < BOUND_KIB // 2 and stream.got < len(body)
    stream.open_window()
    stream.whole().answer()
    sender.join()
    assert client.response().status == 200 and stream.body == body


def test_a_big_download_in_bounded_memory(wire):
    body = pattern(BIG)[:BIG]
    wire["main"].program(reply=lambda seen: body)
    before = wire.resident_kib()
    got = wire.raw().ask(request("/"))
    assert got.body == body
    assert wire.resident_kib() - before < BOUND_KIB


def test_a_slow_client_holds_up_nobody_else(wire):
    body = pattern(2 * MIB)[:2 * MIB]
    wire["main"].program(reply=lambda seen: body if seen.target.startswith("/big") else b"small")
    before = wire.resident_kib()
    slow = [wire.raw(receive_buffer=16 * 1024).send(request(f"/big{i}")) for i in range(8)]
    until(lambda: len(wire["main"].requests) == 8, "all begun")
    for _ in range(50):
        assert wire.raw().ask(request("/")).body == b"small"
    assert wire["main"].accepted == 1
    assert wire.resident_kib() - before < 2 * BOUND_KIB
    for client in slow:
        assert client.response().body == body
