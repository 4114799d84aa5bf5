"""HTTP/2 from clients (RFC 9113), with prior knowledge and over TLS: requests and what they are answered. The upstream speaks
HTTP/1.1.
"""
import json

import pytest

import test_09_paths
from gateway import until
from h2_peers import (CONNECT_PROTOCOL, INITIAL_WINDOW, MAX_STREAMS, NO_ERROR, PREFACE, PROTOCOL_ERROR, Reset, headers,
                      request_fields, settings)
from h2_wire import MIB, SANITIZED, Held, chunked_answer, is_problem
from peers import answer, request
from test_02_bodies import pieces
from test_11_records import record


@pytest.fixture
def wire(h2_wire):
    return h2_wire


@pytest.fixture
def client(h2_client):
    return h2_client


# ---- one request, and several ----

def test_a_request_and_its_response(wire, client):
    wire["main"].program(reply=lambda _: answer(b"hello", "200 Fine", "X-Up: 1", "Content-Type: text/x",
                                                "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5"))
    got = client.ask("/a/b?c=d", "GET", "X-Down: 2", "User-Agent: test", authority="shop.example:99")
    assert got.pseudo == {":status": "200"} and got.body == b"hello"
    assert got.get("x-up") == "1" and got.get("content-type") == "text/x" and got.get("content-length") == "5"
    assert got.get("date") and not {"connection", "x-hop", "keep-alive", "transfer-encoding"} & set(got.names)
    assert got.names == [name for name, _ in got.fields]   # lower case
    seen = wire["main"].only()
    assert seen.start == b"GET /a/b?c=d HTTP/1.1" and seen.get("Host") == "shop.example:99"
    assert seen.get("X-Down") == "2" and seen.get("User-Agent") == "test"
    assert not {"content-length", "transfer-encoding", "connection"} & set(seen.names)
    assert not any(name.startswith(":") for name in seen.names)


def test_what_the_gateway_says_first(wire, client):
    client.ask()
    assert client.their_settings[MAX_STREAMS] == 100 and client.their_settings[CONNECT_PROTOCOL] == 1
    assert INITIAL_WINDOW in client.their_settings


def test_upstream_connections_are_kept(wire, client):
    for i in range(20):
        assert client.ask(f"/{i}").status == 200
    assert [seen.target for seen in wire["main"].requests] == [f"/{i}" for i in range(20)]
    assert wire["main"].accepted == 1


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "QUERY", "X-OWN", "OPTIONS"])
def test_other_methods(wire, client, method):
    assert client.ask("/", method).status == 200
    assert wire["main"].only().method == method


def test_options_of_the_whole_server(wire):
    assert wire.h2().ask("*", "OPTIONS").status in (200, 404)


def test_100_streams_at_once(wire, client):
    held = Held()

    def reply(seen):
        held.wait()
        return answer(seen.target.encode() + seen.body)

    wire["main"].program(reply=reply)
    streams = [client.send_request(f"/{i}", *(["POST"] if i % 2 else []), body=b"b" * i if i % 2 else None)
               for i in range(100)]
    held.until(100)
    assert wire.info()["workers"][0]["exchanges"] == 100
    held.go.set()
    for i in reversed(range(100)):
        assert streams[i].whole().body == b"/%d" % i + (b"b" * i if i % 2 else b"")


def test_streams_are_answered_as_they_come(wire, client):
    """A slow one does not hold the others, whoever makes it slow."""
    held = Held()

    def reply(seen):
        if seen.target == "/held":
            held.wait()
        return answer(seen.body or b"y" * (4 * MIB if seen.target == "/large" else 10))

    wire["main"].program(reply=reply)
    waits = client.begin_request("/held")
    large = client.begin_request("/large")
    large.auto = False   # nobody reads it
    uploads = client.begin_request("/upload", "POST", end=False).send(b"half ")
    held.until(1)
    large.more(1000)
    for i in range(20):
        assert client.ask(f"/{i}").body == b"y" * 10
    assert not waits.begun and not large.ended and not uploads.begun
    assert uploads.send(b"whole", end=True).whole().body == b"half whole"
    large.open_window()
    assert large.whole().body == b"y" * (4 * MIB)
    held.go.set()
    assert waits.whole().status == 200


def test_interleaved_uploads(wire, client):
    wire["main"].program(reply=lambda r: answer(r.body))
    streams = [client.begin_request(f"/{i}", "POST", end=False) for i in range(10)]
    for turn in range(20):
        for i, stream in enumerate(streams):
            stream.send(b"%d-%d " % (i, turn) * 100)
    for i, stream in enumerate(streams):
        got = stream.send(b"", end=True).whole()
        assert got.body == b"".join(b"%d-%d " % (i, turn) * 100 for turn in range(20))


def test_many_connections(wire):
    clients = [wire.h2("tls" if i % 2 else "plain") for i in range(20)]
    streams = [client.begin_request(f"/{i}") for i in range(10) for client in clients]
    assert all(stream.whole().status == 200 for stream in streams)


def test_http_1_1_is_still_spoken(wire):
    for client in (wire.raw(), wire.raw_tls(), wire.raw("h1_only")):
        assert client.ask(request("/one")).status == 200


def test_a_listener_of_one_protocol(wire):
    assert wire.h2("h2_only").ask().status == 200
    client = wire.raw("h2_only")
    client.send(request("/evil"))
    assert client.response().status == 505 and client.ended() and b"evil" not in wire["main"].received
    client = wire.raw("h1_only")
    client.send(PREFACE + settings())
    assert client.response().status == 505 and client.ended()


# ---- bodies ----

@pytest.mark.parametrize("length", [True, False], ids=["length", "no_length"])
@pytest.mark.parametrize("size", [0, 1, 16384, 10 * MIB])
def test_bodies_both_ways(wire, client, size, length):
    wire["main"].program(reply=lambda r: answer(r.body) if length else chunked_answer(r.body))
    body = b"".join(pieces(size))
    got = client.ask("/", "POST", body=body, length=length)
    assert got.body == body and got.get("content-length") == (str(size) if length else None)
    seen = wire["main"].only()
    assert seen.body == body and seen.get("Content-Length") == (str(size) if length else None)


def test_a_request_that_ends_with_its_head_has_no_body(wire, client):
    assert client.ask("/", "POST").status == 200
    assert client.ask("/", "POST", "content-length: 0").status == 200
    first, second = wire["main"].requests
    assert first.body == second.body == b"" and second.get("Content-Length") == "0" and not first.get("Transfer-Encoding")


def test_get_with_a_body(wire, client):
    assert client.ask("/", "GET", body=b"query").status == 200
    assert wire["main"].only().body == b"query"


@pytest.mark.parametrize("way", ["up", "down"])
def test_64_mib_in_bounded_memory(wire, way):
    size, sums = 64 * MIB, []

    def script(peer):
        head = peer.head()
        if way == "up":
            left = size
            while left:
                left -= len(peer.exactly(min(left, MIB)))
                peer.received.clear()
            peer.send(answer(b"stored"))
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for piece in pieces(size):
                peer.send(piece)
        sums.append(head.target)

    wire["main"].program(script)
    client = wire.h2(settings={INITIAL_WINDOW: MIB}, window=16 * MIB)
    before = wire.resident_kib()
    if way == "up":
        stream = client.begin_request("/", "POST", f"content-length: {size}", end=False)
        for piece in pieces(size):
            stream.send(piece)
        assert stream.finish().whole().body == b"stored"
    else:
        assert client.begin_request("/").whole().got == size
    assert wire.resident_kib() - before < (16 if not SANITIZED else 256) * 1024
    until(lambda: sums, "the upstream's end")


def test_trailers_both_ways(wire, client):
    wire["main"].program(reply=lambda r: chunked_answer(b"ok", trailers=["X-Sum: 7", "X-Two: b", "Content-Length: 5",
                                                                         "Set-Cookie: no"]))
    stream = client.begin_request("/", "POST", "TE: trailers", end=False).send(b"a")
    got = stream.finish(["X-Check: 1", "Host: evil", "X-Forwarded-For: 1.1.1.1", "Authorization: evil",
                         "X_Under: evil"]).whole()
    assert got.body == b"ok" and got.trailers == [("x-sum", "7"), ("x-two", "b")]
    seen = wire["main"].only()
    assert [(name.lower(), value) for name, value in seen.trailers] == [("x-check", "1")] and seen.body == b"a"
    assert b"evil" not in wire["main"].received


def test_trailers_without_a_body(wire, client):
    wire["main"].program(reply=lambda r: chunked_answer(b"", trailers=["X-Sum: 0"]))
    got = client.begin_request("/", "POST", end=False).finish(["x-check: 1"]).whole()
    assert got.trailers == [("x-sum", "0")] and got.body == b""
    assert [value for _, value in wire["main"].only().trailers] == ["1"]


def test_head_and_answers_without_a_body(wire, client):
    heads = {"/length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
             "/same": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n",
             "/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "/empty": answer(b"")}
    wire["main"].program(reply=lambda r: heads[r.target])
    for path, method, status, length in [("/length", "HEAD", 200, "5"), ("/none", "GET", 204, None),
                                         ("/same", "GET", 304, "1000"), ("/chunks", "HEAD", 200, None),
                                         ("/empty", "GET", 200, "0"), ("/none", "DELETE", 204, None)]:
        got = client.ask(path, method)
        assert (got.status, got.body, got.get("content-length")) == (status, b"", length), path
    assert wire["main"].accepted == 1


# ---- interim and early answers, both directions at once ----

def test_interim_responses_are_relayed(wire, client):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-No\r\nX-No: 1\r\n\r\n"
                         b"HTTP/1.1 102 Processing\r\n\r\n" + answer(b"done"))
    got = client.ask()
    assert [each[":status"] for each in got.interim] == ["103", "102"] and got.body == b"done"
    assert got.interim[0]["link"] == "</a.css>" and "x-no" not in got.interim[0]


@pytest.mark.parametrize("says", [True, False])
def test_100_continue(wire, client, says):
    """When the upstream says so, and when it never does."""
    def script(peer):
        head = peer.head()
        assert head.get("Expect") == "100-continue"
        if says:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(answer(peer.body(head).body))

    wire["main"].program(script)
    stream = client.begin_request("/", "POST", "Expect: 100-continue", "content-length: 4", end=False)
    stream.until(lambda: stream.interim, "100")
    assert stream.interim[0][":status"] == "100"
    assert stream.send(b"body", end=True).whole().body == b"body"


def test_an_early_answer_ends_the_upload(wire, client):
    """The whole answer comes, then the rest of the request is asked not to be sent (RFC 9113 8.1); the connection stays."""
    def script(peer):
        head = peer.head()
        if head.target == "/next":
            peer.send(answer(b"next"))
            return
        peer.exactly(1000)
        peer.send(answer(b"too much", "413 Content Too Large", "Connection: close"))
        peer.shut()
        peer.ended()

    wire["main"].program(script)
    stream = client.begin_request("/", "POST", f"content-length: {64 * MIB}", end=False)
    with pytest.raises(Reset) as cut:
        for piece in pieces(64 * MIB):
            stream.send(piece)
    assert cut.value.code == NO_ERROR and stream.ended and stream.status == 413 and stream.body == b"too much"
    assert client.ask("/next").body == b"next"


def test_both_bodies_at_once(wire, client):
    def script(peer):
        assert peer.head().get("Transfer-Encoding") == "chunked"
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(peer.line(), 16):
            peer.send(b"%x\r\n%s" % (size, peer.exactly(size + 2)))
        peer.line()
        peer.send(b"0\r\n\r\n")

    wire["main"].program(script)
    stream, got = client.begin_request("/", "POST", end=False), 0
    for word in (b"first", b"again", b"third"):
        stream.send(word)
        got += len(word)
        assert stream.more(got).body.endswith(word)
    assert stream.finish().whole().body == b"firstagainthird"


def test_an_answer_to_half_a_request_ends_the_stream(wire, client):
    """Also when the client sends no more: else the stream would stay for ever."""
    wire["main"].program(lambda peer: (peer.head(), peer.send(answer(b"early")), peer.ended()))
    streams = {client.begin_request(path, "POST", "content-length: 11", end=False): status
               for path, status in (("/tiny", 413), ("/said", 203), ("/write", 200), ("/broken", 418))}
    for stream, status in streams.items():
        assert stream.whole().status == status
        stream.until(lambda stream=stream: stream.reset is not None, "the reset")
        assert stream.reset == NO_ERROR


@pytest.mark.parametrize("path, status", [("/tiny", 413), ("/said", 203), ("/broken", 418)])
def test_who_was_answered_may_finish(wire, client, path, status):
    """curl takes RST_STREAM NO_ERROR for a failure while its body is under way."""
    stream = client.begin_request(path, "POST", "content-length: 11", end=False)
    assert stream.whole().status == status
    stream.send(b"hello world", end=True)
    assert client.ask("/said").status == 203   # so what is said about the first has come
    assert stream.reset is None


def test_a_truncated_response_never_ends_well(wire, client):
    cut = {"/length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
           "/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}
    wire["main"].program(lambda peer: peer.send(cut[wire["main"].read(peer).target]))
    count = wire.ends("upstream_truncated")
    for path in cut:
        stream = client.begin_request(path)
        assert stream.until_reset() != NO_ERROR and not stream.ended and stream.status == 200
    assert wire.ends("upstream_truncated") == count + 2
    assert not client.over


# ---- the head's translation ----

def test_cookie_crumbs_become_one_field(wire, client):
    assert client.ask("/", "GET", ("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2; c=3"), ("cookie", "d=4")).status == 200
    assert wire["main"].only().all("Cookie") == ["a=1; b=2; c=3; d=4"]


@pytest.mark.parametrize("authority, fields, host", [
    ("a.example", [], "a.example"), ("a.example:8443", [], "a.example:8443"), ("[::1]:80", [], "[::1]:80"),
    ("a.example", [("host", "a.example")], "a.example"), (None, [("host", "b.example")], "b.example"),
    ("Mixed.Example", [], "Mixed.Example")])
def test_authority_becomes_host(wire, authority, fields, host):
    client = wire.frames()
    client.send(headers(1, request_fields("/", "GET", *fields, authority=authority)))
    assert client.fate() == ("answer", 200)
    seen = wire["main"].only()
    assert seen.get("Host") == host and seen.get("X-Forwarded-Host") == host


def test_repeated_fields_and_odd_values(wire, client):
    wire["main"].program(reply=lambda _: answer(b"", "200 OK", "Set-Cookie: a=1", "X-B: 1", "Set-Cookie: b=2", "X-Empty:"))
    value = "a, \"b\";c=\xe9\xff \x21"
    got = client.ask("/", "GET", ("x-lower", "1"), ("x-odd", value), ("x-lower", "3"), ("x-empty", ""))
    assert got.all("set-cookie") == ["a=1", "b=2"] and got.get("x-empty") == ""
    seen = wire["main"].only()
    assert seen.all("x-lower") == ["1", "3"] and seen.get("x-odd") == value and seen.get("x-empty") == ""


@pytest.mark.parametrize("listener, scheme", [("plain", "http"), ("tls", "https")])
def test_what_upstreams_are_told(wire, listener, scheme):
    got = wire.h2(listener).ask("/", "GET", "X-Forwarded-For: 6.6.6.6", "Via: 1.1 evil", "X-Request-Id: spoofed",
                                "X-Forwarded-Proto: gopher", "traceparent: evil", "X-Real-IP: 6.6.6.6", authority="h.example")
    seen = wire["main"].only()
    assert seen.get("X-Forwarded-For") == "127.0.0.1" and seen.get("X-Forwarded-Proto") == scheme
    assert seen.get("X-Forwarded-Host") == "h.example" and seen.get("X-Forwarded-Port") == str(wire.ports[listener])
    assert seen.get("Via") in ("2 sallyport", "2.0 sallyport")
    assert seen.get("X-Request-Id") == got.get("x-request-id") != "spoofed" and seen.get("X-Real-IP") is None


@pytest.mark.parametrize("listener, seen", [("plain", None), ("underscores_allow", "6"), ("underscores_reject", 400)])
def test_underscores(wire, listener, seen):
    got = wire.h2(listener).ask("/", "GET", "x_user: 6", "x-after: 1")
    if seen == 400:
        assert got.status == 400 and not wire["main"].requests
    else:
        assert wire["main"].only().get("x_user") == seen and wire["main"].only().get("x-after") == "1"


def cases(test):
    """The rows of a parametrised test of HTTP/1."""
    return next(mark.args[1] for mark in test.pytestmark if mark.name == "parametrize")


def test_paths_are_normalised_as_in_http_1(wire):
    client, wrong = wire.h2(), []
    for target, seen in cases(test_09_paths.test_the_upstream_gets_the_canonical_form):
        if target.startswith("/"):
            wire["main"].requests.clear()
            got = client.ask(target)
            if got.status != 200 or [each.target for each in wire["main"].requests] != [seen]:
                wrong.append((target, got.status, wire["main"].requests))
    for target in cases(test_09_paths.test_what_could_be_read_in_two_ways_is_refused):
        wire["main"].requests.clear()
        stream = client.begin_request(target)
        try:
            status = stream.whole().status
        except Reset as reset:
            status = 400 if reset.code == PROTOCOL_ERROR else reset
        if status != 400 or wire["main"].requests:
            wrong.append((target, status, wire["main"].requests))
    assert not wrong


@pytest.mark.parametrize("path, said", [("/cut/x?y", "/kept/here/x?y"), ("/users/7/files/f", "/v2/f/of/7")])
def test_rewrites(wire, client, path, said):
    assert client.ask(path).status == 200
    assert wire["main"].only().target == said


def test_headers_are_edited(wire, client):
    got = client.ask("/edited", "GET", "X-Set: old", "X-Remove: 1", ("cookie", "a=1"), ("cookie", "b=2"))
    assert got.get("x-set") == "out" and got.get("x-add") == "out"
    seen = wire["main"].only()
    assert seen.get("X-Set") == "new" and seen.get("X-Add") == "more"
    assert seen.get("X-Remove") is None and seen.get("Cookie") is None


# ---- answers of the gateway's own ----

def test_answers_of_the_gateways_own(wire, client):
    got = client.ask("/said")
    assert (got.status, got.body, got.get("x-own")) == (203, b"said\n", "yes")
    got = client.ask("/moved/x?y=z")
    assert got.status == 307 and got.get("location") == "https://new.example/moved/x?y=z"
    is_problem(client.ask("/broken"), 418, "fault_injected")
    got = client.ask("/write")
    is_problem(got, 405, "method_not_allowed") if got.status == 405 else None
    assert client.ask("/said", "HEAD").body == b""
    assert client.ask("/late").status == 200


def test_failures_of_the_upstream(wire, client):
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.send(b"nonsense\r\n\r\n")))
    is_problem(client.ask(), 502, "upstream_bad_response")
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.ended()))
    is_problem(client.ask("/hurry", "POST", body=b"x"), 504, "deadline_exceeded")
    wire["fast"].program(lambda peer: (wire["fast"].read(peer), peer.ended()))
    is_problem(client.ask("/fast", "POST", body=b"x"), 504, "upstream_timeout")
    wire["fast"].close()
    is_problem(client.ask("/fast"), 502, "upstream_connect_failed")
    wire["fast"].reopen()
    wire["main"].program()
    assert client.ask().status == 200


@pytest.mark.parametrize("listener", ["small", "tls_small"])
def test_limits(wire, listener):
    client = wire.h2(listener)
    is_problem(client.ask("/" + "a" * 300), 414, "uri_too_long")
    is_problem(client.ask("/?" + "a" * 300), 414, "uri_too_long")
    is_problem(client.ask("/", "GET", ("x-a", "b" * 3000)), 431, "headers_too_large")
    is_problem(client.ask("/", "GET", *[("x-a", "b")] * 20), 431, "headers_too_large")
    is_problem(client.ask("/", "GET", *[("cookie", "b")] * 20), 431, "headers_too_large")
    assert client.ask("/" + "a" * 255).status == 200
    assert client.ask("/", "GET", *[("x-a", "b")] * 10).status == 200
    assert [len(seen.target) for seen in wire["main"].requests] == [256, 1]


@pytest.mark.parametrize("length", [True, False], ids=["length", "counted"])
def test_bodies_too_large(wire, length):
    client, size = wire.h2("small"), 64 * 1024
    wire["main"].program(reply=lambda r: answer(str(len(r.body)).encode()))
    assert client.ask("/", "POST", body=b"z" * size, length=length).body == b"%d" % size
    before, heard = len(wire["main"].requests), {peer: len(peer.received) for peer in wire["main"].peers}
    stream = client.begin_request("/", "POST", *([f"content-length: {size + 1}"] if length else []), end=False)
    try:
        stream.send(b"z" * (size + 1), end=True)
    except Reset as reset:
        assert reset.code == NO_ERROR
    is_problem(stream.whole(), 413, "body_too_large")
    if length:
        assert len(wire["main"].requests) == before
    for peer in wire["main"].peers:
        assert not peer.received[heard.get(peer, 0):].endswith(b"0\r\n\r\n")
    assert client.ask().status == 200


# ---- what is written down ----

def test_the_list_of_exchanges(wire, client):
    held = Held()

    def reply(_):
        held.wait()
        return answer()

    wire["main"].program(reply=reply)
    streams = [client.begin_request(f"/listed/{i}", authority="l.example") for i in range(3)]
    held.until(3)
    text = json.dumps(wire.gateway.shown("exchanges"))
    assert all(f"/listed/{i}" in text for i in range(3)) and "l.example" in text
    held.go.set()
    assert all(stream.whole().status == 200 for stream in streams)


def test_the_access_log(wire, client):
    wire["main"].program(reply=lambda r: answer(b"twelve bytes"))
    got = client.ask("/log/it?secret=1", "POST", body=b"seven77", authority="log.example:80")
    line = record(wire, got)
    assert line["protocol"] in ("HTTP/2", "HTTP/2.0") and line["method"] == "POST" and line["path"] == "/log/it"
    assert line["host"] == "log.example" and line["client"] == "127.0.0.1"
    assert (line["status"], line["code"], line["bytes_in"], line["bytes_out"]) == (200, "ok", 7, 12)
