"""One request, several requests on a connection, and every way in which messages begin and end."""
import socket
import subprocess
import threading

import httpx
import pytest

from gateway import Gateway, until
from peers import Peer, answer, request


def test_a_request_and_its_response(wire):
    wire["main"].program(reply=lambda _: answer(b"hello", "200 Fine", "X-Up: 1", "Content-Type: text/x"))
    client = wire.raw()
    got = client.ask(request("/a/b?c=d", "GET", "X-Down: 2", "User-Agent: test"))
    assert (got.start, got.body) == (b"HTTP/1.1 200 Fine", b"hello")
    assert got.get("X-Up") == "1" and got.get("Content-Type") == "text/x" and got.get("Date")
    seen = wire["main"].only()
    assert seen.start == b"GET /a/b?c=d HTTP/1.1"
    assert seen.get("X-Down") == "2" and seen.get("User-Agent") == "test" and seen.get("Host") == "test"
    assert seen.get("Content-Length") is None and seen.get("Connection") is None


def test_keep_alive_on_both_sides(wire):
    client = wire.raw()
    for i in range(5):
        got = client.ask(request(f"/{i}"))
        assert got.status == 200 and got.get("Connection") is None
    assert [seen.target for seen in wire["main"].requests] == [f"/{i}" for i in range(5)]
    assert wire["main"].accepted == 1


def test_connection_close_is_obeyed(wire):
    client = wire.raw()
    got = client.ask(request("/", "GET", "Connection: close"))
    assert got.status == 200 and got.get("Connection") == "close"
    assert client.ended()
    assert wire["main"].only().get("Connection") is None
    assert wire.raw().ask(request("/")).status == 200
    assert wire["main"].accepted == 1   # the client's close is not the upstream's


def test_http_1_0_is_closed(wire):
    client = wire.raw()
    got = client.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert got.status == 200 and got.body == b"ok" and client.ended()
    seen = wire["main"].only()
    assert seen.start == b"GET / HTTP/1.1" and seen.get("Via") == "1.0 sallyport"
    assert seen.get("Host") == f"127.0.0.1:{wire['main'].port}"   # it named none


def test_http_1_0_keep_alive(wire):
    client = wire.raw()
    for _ in range(2):
        got = client.ask(b"GET / HTTP/1.0\r\nHost: old\r\nConnection: Keep-Alive\r\n\r\n")
        assert got.body == b"ok" and got.get("Connection").lower() == "keep-alive"
    assert not client.eof


def test_http_1_0_gets_no_chunks(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    client = wire.raw()
    got = client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert got.get("Transfer-Encoding") is None and got.body == b"abc"
    assert got.get("Connection") != "keep-alive" and client.ended()


def test_http_1_0_gets_no_interim_response(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer())
    client = wire.raw()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.response(interim=True).status == 200


def test_a_higher_minor_version_is_met_with_ours(wire):
    got = wire.raw().ask(request("/", version="1.7"))
    assert got.start.startswith(b"HTTP/1.1 200") and wire["main"].only().start == b"GET / HTTP/1.1"


def test_an_http_1_0_upstream(wire):
    def script(peer):
        wire["main"].read(peer)
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    wire["main"].program(script)
    client = wire.raw()
    got = client.ask(request())
    assert got.start.startswith(b"HTTP/1.1") and got.body == b"until the end" and got.get("Transfer-Encoding")
    assert client.ask(request()).body == b"until the end"   # the client's connection lives on
    assert wire["main"].accepted == 2


def test_head(wire):
    wire["main"].program(reply=lambda r: answer(b"12345")[:-5] if r.method == "HEAD" else answer(b"12345"))
    client = wire.raw()
    got = client.ask(request("/", "HEAD"), "HEAD")
    assert got.status == 200 and got.get("Content-Length") == "5"
    assert client.ask(request()).body == b"12345"
    assert wire["main"].accepted == 1


def test_head_of_a_chunked_response(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client = wire.raw()
    assert client.ask(request("/", "HEAD"), "HEAD").status == 200
    assert client.ask(request("/", "HEAD"), "HEAD").status == 200
    assert client.buffer == b"" and wire["main"].accepted == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_a_body(wire, status):
    head = "HTTP/1.1 {}\r\nETag: \"x\"\r\n\r\n".format(status)
    wire["main"].program(reply=lambda r: head.encode() if r.target == "/" else answer(b"after"))
    client = wire.raw()
    got = client.ask(request())
    assert got.status == int(status[:3]) and got.get("ETag") == '"x"'
    assert got.get("Transfer-Encoding") is None and (status[:3] == "304" or got.get("Content-Length") is None)
    assert client.ask(request("/after")).body == b"after"


def test_304_keeps_its_length(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n")
    client = wire.raw()
    for _ in range(2):
        assert client.ask(request()).get("Content-Length") == "1000"


def test_a_response_of_no_bytes(wire):
    wire["main"].program(reply=lambda _: answer(b""))
    client = wire.raw()
    for _ in range(2):
        assert client.ask(request()).get("Content-Length") == "0"


@pytest.mark.parametrize("count", [2, 20])
def test_pipelined_requests_are_answered_in_order(wire, count):
    wire["main"].program(reply=lambda r: answer(r.target.encode()))
    client = wire.raw()
    client.send(b"".join(request(f"/{i}") for i in range(count)))
    assert [client.response().body for _ in range(count)] == [b"/%d" % i for i in range(count)]


def test_200_pipelined_requests_and_a_slow_reader(wire):
    body = b"x" * 50_000
    wire["main"].program(reply=lambda r: answer(r.target.encode() + body))
    client = wire.raw(receive_buffer=4096)
    client.send(b"".join(request(f"/{i}") for i in range(200)))
    wire["main"].wait_requests(5)
    assert wire.raw().ask(request("/other")).status == 200   # others are served meanwhile
    assert len(wire["main"].requests) < 150   # answers nobody reads are not asked for
    for i in range(200):
        assert client.response().body == b"/%d" % i + body


def test_pipelining_with_bodies(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    client = wire.raw()
    client.send(request("/", "POST", body=b"one") + request("/", "GET") +
                request("/", "PUT", "Transfer-Encoding: chunked") + b"3\r\ntwo\r\n0\r\n\r\n" +
                request("/", "POST", body=b"") + request("/", "POST", body=b"three"))
    assert [client.response().body for _ in range(5)] == [b"one", b"", b"two", b"", b"three"]


def test_each_byte_in_a_packet_of_its_own(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    client = wire.raw()
    client.send_slowly(request("/slow?a=%20", "POST", "X-A: b", "Transfer-Encoding: chunked") +
                       b"5;x=y\r\nhello\r\n0\r\nX-T: u\r\n\r\n" + request("/next", "POST", body=b"world"))
    assert client.response().body == b"hello" and client.response().body == b"world"


def test_empty_lines_before_a_request(wire):
    client = wire.raw()
    assert client.ask(b"\r\n" + request()).status == 200
    assert client.ask(b"\r\n" + request()).status == 200


def test_an_absolute_target_wins_over_host(wire):
    got = wire.raw().ask(request("http://wins.example:81/p?q", host="loses.example"))
    assert got.status == 200
    seen = wire["main"].only()
    assert seen.target == "/p?q" and seen.get("Host") == "wins.example:81"
    assert seen.get("X-Forwarded-Host") == "wins.example:81"


def test_options_of_the_whole_server(wire):
    assert wire.raw().ask(request("*", "OPTIONS")).status in (200, 404)
    got = wire.raw().ask(request("/", "OPTIONS"))
    assert got.status == 200 and wire["main"].requests[-1].start == b"OPTIONS / HTTP/1.1"


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "QUERY", "X-OWN"])
def test_other_methods(wire, method):
    assert wire.raw().ask(request("/", method)).status == 200
    assert wire["main"].only().method == method


def test_a_client_may_half_close_after_its_request(wire):
    asked = []

    def script(peer):
        wire["main"].read(peer)
        until(lambda: asked, "the client's end")
        peer.send(answer(b"late"))

    wire["main"].program(script)
    client = wire.raw()
    client.send(request()).shut()
    asked.append(True)
    assert client.response().body == b"late" and client.ended()


def test_a_client_that_goes_takes_its_request_along(wire):
    gone = wire.ends("client_gone")

    def script(peer):
        wire["main"].read(peer)
        peer.ended()
        peer.noticed = True

    wire["main"].program(script)
    client = wire.raw()
    client.send(request())
    wire["main"].wait_requests()
    client.reset()
    until(lambda: getattr(wire["main"].peers[0], "noticed", False), "the upstream's connection closed")
    until(lambda: wire.ends("client_gone") == gone + 1, "client_gone counted")


def test_a_client_that_goes_in_the_middle_of_its_body(wire):
    wire["main"].program()
    client = wire.raw()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    wire["main"].wait_requests()
    client.close()
    peer = wire["main"].peers[0]
    until(lambda: peer.eof, "the upstream's connection closed")
    assert peer.received.endswith(b"abc")


def test_a_quick_client_that_opens_and_closes(wire):
    for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost:"):
        client = wire.raw()
        client.send(sent).shut()
        assert client.ended()
    assert wire["main"].requests == []


def test_hop_by_hop_fields_stop_here(wire):
    wire["main"].program(reply=lambda _: answer(
        b"ok", "200 OK", "Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic",
        "Upgrade: h2c", "Trailer: X-T", "X-End: 2"))
    client = wire.raw()
    got = client.ask(request("/", "GET", "Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: 300", "TE: trailers",
                             "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "X-End: 2"))
    assert got.get("X-End") == "2"
    assert not {"x-hop", "keep-alive", "proxy-authenticate", "upgrade", "connection"} & set(got.names)
    seen = wire["main"].only()
    assert seen.get("X-End") == "2"
    assert not {"x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "connection"} & set(seen.names)
    assert client.ask(request()).status == 200   # the upstream's close is not the client's
    assert wire["main"].accepted == 2


def test_repeated_fields_keep_their_order_and_spelling(wire):
    wire["main"].program(reply=lambda _: answer(b"", "200 OK", "Set-Cookie: a=1", "X-B: 1", "Set-Cookie: b=2"))
    got = wire.raw().ask(request("/", "GET", "x-lower: 1", "X-UPPER: 2", "Cookie: a", "x-lower: 3", "Cookie: b"))
    assert got.all("Set-Cookie") == ["a=1", "b=2"]
    seen = wire["main"].only()
    assert seen.all("x-lower") == ["1", "3"] and seen.all("cookie") == ["a", "b"]
    assert b"x-lower: 1\r\nX-UPPER: 2\r\n" in seen.raw_head


def test_values_are_kept_as_they_are(wire):
    value = "\t a, \"b\";c=\xe9\xff \x21 "
    wire["main"].program(reply=lambda _: answer(b"", "200 OK", "X-Value:" + value, "X-Empty:"))
    got = wire.raw().ask(request("/", "GET", "X-Value:" + value, "X-Empty:"))
    for message in (got, wire["main"].only()):
        assert message.get("X-Value") == value.strip(" \t") and message.get("X-Empty") == ""


def test_curl(wire):
    wire["main"].program(reply=lambda r: answer(r.body + b"!"))
    url = f"http://127.0.0.1:{wire.ports['plain']}"
    run = subprocess.run(["curl", "-sS", "-v", "--data-binary", "@-", f"{url}/one", "--next", "-sS", f"{url}/two"],
                         input=b"data", capture_output=True, timeout=60)
    assert run.stdout == b"data!!", run.stderr
    run = subprocess.run(["curl", "-sS", "-0", f"{url}/three"], capture_output=True, timeout=60)
    assert run.stdout == b"!", run.stderr


def test_httpx_many_at_once(wire):
    wire["main"].program(reply=lambda r: answer(r.target.encode()))
    with httpx.Client(base_url=f"http://127.0.0.1:{wire.ports['plain']}") as client:
        for i in range(50):
            assert client.get(f"/{i}").text == f"/{i}"
    assert wire["main"].accepted == 1


def test_what_follows_connection_close_is_not_a_request(wire):
    client = wire.raw()
    client.send(request("/last", "GET", "Connection: close") + request("/ignored"))
    assert client.response().status == 200 and client.ended()
    assert [seen.target for seen in wire["main"].requests] == ["/last"]


def test_pipelined_and_half_closed(wire):
    wire["main"].program(reply=lambda r: answer(r.target.encode()))
    client = wire.raw()
    client.send(b"".join(request(f"/{i}") for i in range(10))).shut()
    assert [client.response().body for _ in range(10)] == [b"/%d" % i for i in range(10)]
    assert client.ended()


def test_unix_sockets_on_both_sides(tmp_path):
    """A path instead of a port, to listen on and to go to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "up.sock"))
    listener.listen()
    gateway = Gateway(tmp_path, {
        "workers": 1, "listeners": [{"name": "local", "address": f"unix:{tmp_path}/in.sock"}],
        "upstreams": {"up": {"targets": [{"address": f"unix:{tmp_path}/up.sock"}]}},
        "routes": [{"name": "all", "upstream": "up"}]})
    with gateway:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "in.sock"))
        with Peer(sock) as client:
            sender = threading.Thread(target=client.send, args=(request("/x", "POST", body=b"a" * 1_000_000),))
            sender.start()
            with Peer(listener.accept()[0]) as up:
                seen = up.body(up.head())
                assert seen.target == "/x" and len(seen.body) == 1_000_000 and seen.get("Via")
                sender.join()
                sender = threading.Thread(target=up.send, args=(answer(b"b" * 1_000_000),))
                sender.start()
                assert client.body(client.head()).body == b"b" * 1_000_000
                sender.join()
    listener.close()
