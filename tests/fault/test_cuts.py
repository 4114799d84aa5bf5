"""Every place where a conversation can break: each byte of a response split, reset or ended there; each step of a
request where the client goes. What is broken off never looks complete, and what follows is served."""
import socket

import pytest

from gateway import free_port, until
from peers import Incomplete, Raw, Upstream, answer, request
from watched import Watched, route, upstreams

RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Field: v\r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
}
BODY = b"hello world"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    upstream = Upstream()
    port = free_port()
    running = Watched(tmp_path_factory.mktemp("cuts"), {
        "workers": 1,
        "listeners": [{"name": "http", "address": f"127.0.0.1:{port}",
                       "timeouts": {"header": "5s", "body": "5s", "idle": "5s", "write": "5s"}}],
        "upstreams": upstreams(up=(upstream.port, {"timeouts": {"connect": "5s", "response": "5s"},
                                                   "retries": {"attempts": 0}})),
        "routes": [route("all", "up")]}).start()
    yield running, upstream, port
    try:
        running.check()
        running.stop()
    finally:
        running.kill()
        upstream.close()


def ask(port):
    """The status and body of a complete answer; None when it was broken off."""
    with Raw(port) as client:
        try:
            response = client.ask(request("/"))
        except (Incomplete, ConnectionError):
            return None
        return (response.status, response.body) if response else None


@pytest.mark.parametrize("kind", RESPONSES)
def test_response_split_at_every_byte(place, kind):
    running, upstream, port = place
    whole = RESPONSES[kind]

    def split(peer):
        while peer.head():
            peer.send(whole[:upstream.at])
            upstream.sent.append(1)
            peer.send(whole[upstream.at:])
            if kind == "close":
                return

    upstream.sent = []
    upstream.program(script=split)
    for upstream.at in range(1, len(whole)):
        assert ask(port) == (200, BODY), upstream.at
    upstream.program(script=lambda peer: [peer.head(), peer.send_slowly(whole)])
    assert ask(port) == (200, BODY)
    running.check()


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("kind", RESPONSES)
def test_response_ends_at_every_byte(place, kind, end):
    running, upstream, port = place
    whole = RESPONSES[kind]
    head = whole.rindex(b"\r\n\r\n", 0, whole.index(b"hello")) + 4

    def cut(peer):
        peer.head()
        peer.send(whole[:upstream.at])
        if end == "reset":
            peer.reset()

    for at in range(len(whole)):
        upstream.program(script=cut)
        upstream.at = at
        got = ask(port)
        if kind == "close" and end == "close" and at >= head:
            assert got == (200, BODY[:at - head]), at   # nobody can know better (RFC 9112 8)
        elif at < head:
            assert got and got[0] == 502, (at, got)
        else:
            # A reset may overtake what was sent before it, so that not even the head arrived.
            assert got is None or got[0] == 502, (at, got)
    upstream.program()
    assert ask(port) == (200, b"ok")
    running.check()


REQUESTS = {
    "get": request("/"),
    "post": request("/", "POST", body=b"some body"),
    "chunked": request("/", "POST", "Transfer-Encoding: chunked") + b"4\r\nsome\r\n5\r\n body\r\n0\r\n\r\n",
    "continue": request("/", "POST", "Expect: 100-continue", body=b"some body"),
    "pipelined": request("/a") + request("/b") + request("/c"),
    "upgrade": request("/", "GET", "Connection: Upgrade", "Upgrade: echo") + b"through",
}


@pytest.mark.parametrize("end", ["reset", "shut", "close"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_client_goes_at_every_byte(place, kind, end):
    running, upstream, port = place
    whole = REQUESTS[kind]

    def serve(peer):
        while (message := upstream.read(peer)) is not None:
            if kind == "upgrade" and message.get("Upgrade"):
                peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                while peer.more():
                    peer.send(peer.buffer)
                    peer.buffer = b""
                return
            peer.send(answer(message.body))

    upstream.program(script=serve)
    # A body that is awaited with 100-continue costs its second at each place behind the head.
    step = 4 if kind == "continue" else 1
    for at in range(0, len(whole) + 1, step):
        client = Raw(port).send(whole[:at])
        if end == "reset":
            client.reset()
        elif end == "close":
            client.close()
        else:
            client.shut()
            client.ended()
            client.close()
    upstream.program()
    assert ask(port) == (200, b"ok")
    running.check()


@pytest.mark.parametrize("read", [0, 1, 40, 200, 5000, 100000, 900000])
def test_client_resets_while_it_reads(place, read):
    running, upstream, port = place
    upstream.program(reply=lambda message: answer(b"x" * 1000000))
    client = Raw(port, receive_buffer=8192).send(request("/"))
    client.exactly(read)
    client.reset()
    upstream.program()
    assert ask(port) == (200, b"ok")
    running.check()


@pytest.mark.parametrize("sent", [0, 1, 1000, 100000, 3000000])
def test_client_resets_while_it_sends(place, sent):
    """The upstream reads nothing, or all."""
    running, upstream, port = place
    for reads in (True, False):
        def script(peer):
            peer.head()
            while reads and peer.more():
                peer.buffer = b""
            if not reads:
                until(lambda: upstream.let_go, "the client's end")

        upstream.let_go = False
        upstream.program(script=script)
        client = Raw(port).send(request("/", "POST", "Content-Length: 9000000"))
        client.socket.settimeout(0.05)
        try:
            client.send(b"x" * sent)
        except socket.timeout:
            pass
        client.reset()
        running.wait_rest()
        upstream.let_go = True
    upstream.program()
    assert ask(port) == (200, b"ok")
    running.check()
