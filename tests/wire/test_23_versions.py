"""Every version of the client with every version of the upstream, and WebSockets through HTTP/2 (RFC 8441)."""
import asyncio
import base64
import hashlib
import os
import ssl
import struct
import threading

import pytest
import websockets
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from gateway import until
from h2_peers import CONNECT_PROTOCOL, Reset, H2Upstream
from h2_wire import MIB, SANITIZED, ask, authority_of, chunked_answer
from peers import answer, request
from test_02_bodies import pieces
from test_10_upgrades import UPGRADE, echo_server, parrot   # noqa: F401  (a fixture)
from wire import STEADY_S

CLIENTS = ["1.0", "1.1", "tls 1.1", "h2", "tls h2"]
UPSTREAMS = ["main", "one_tls", "two", "two_tls"]


@pytest.fixture
def wire(h2_wire):
    return h2_wire


def program(wire, upstream, body=None, status="200 OK", fields=(), trailers=()):
    """Every request is answered with this body, or with its own."""
    up, body_of = wire[upstream], lambda seen: seen.body if body is None else body
    if isinstance(up, H2Upstream):
        up.program(reply=lambda seen: {"body": body_of(seen), "status": int(status[:3]), "fields": fields,
                                       "trailers": trailers, "length": not trailers})
    elif trailers:
        up.program(reply=lambda seen: chunked_answer(body_of(seen), status, *fields, trailers=trailers))
    else:
        up.program(reply=lambda seen: answer(body_of(seen), status, *fields))


def path_of(upstream):
    return "/" if upstream == "main" else f"/{upstream}/"


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("version", CLIENTS)
def test_bodies_with_a_length(wire, version, upstream):
    body = b"".join(pieces(300_000))
    program(wire, upstream, status="201 Created", fields=["X-Up: 1", "Set-Cookie: a=1", "Set-Cookie: b=2"])
    got = ask(wire, version, path_of(upstream) + "a%2Db?c=d", "POST", "X-Down: 2", body=body)
    assert got.status == 201 and got.body == body and got.get("Content-Length") == "300000"
    assert got.get("X-Up") == "1" and got.all("Set-Cookie") == ["a=1", "b=2"]
    seen = wire[upstream].only()
    assert seen.method == "POST" and seen.target == path_of(upstream) + "a-b?c=d" and seen.body == body
    assert seen.get("X-Down") == "2" and seen.get("Content-Length") == "300000" and authority_of(seen) == "test"
    assert seen.get("X-Forwarded-Proto") == ("https" if version.startswith("tls") else "http")
    assert seen.get("Via").split()[0] in {"1.0": ["1.0"], "2": ["2", "2.0"]}.get("2" if "h2" in version else version, ["1.1"])
    assert not {"connection", "keep-alive", "transfer-encoding", "upgrade"} & set(seen.names + got.names) - (
        {"connection"} if version == "1.0" else set())


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("version", CLIENTS[1:])
def test_bodies_without_a_length_and_trailers(wire, version, upstream):
    body = b"".join(pieces(300_000))
    program(wire, upstream, trailers=["X-Sum: 7", "X-More: of it"])
    got = ask(wire, version, path_of(upstream), "POST", body=body, trailers=["X-Check: 1", "X-Also: 2"])
    assert got.status == 200 and got.body == body and got.get("Content-Length") is None
    assert [(name.lower(), value) for name, value in got.trailers] == [("x-sum", "7"), ("x-more", "of it")]
    seen = wire[upstream].only()
    assert seen.body == body and seen.get("Content-Length") is None
    assert [(name.lower(), value) for name, value in seen.trailers] == [("x-check", "1"), ("x-also", "2")]


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("version", CLIENTS)
def test_without_bodies(wire, version, upstream):
    program(wire, upstream, b"")
    assert ask(wire, version, path_of(upstream)).body == b""
    assert wire[upstream].only().body == b"" and wire[upstream].only().get("Content-Length") is None
    if isinstance(wire[upstream], H2Upstream):
        wire[upstream].program(stream=lambda s: s.whole().respond(204 if s.method == "GET" else 200, "x-a: b", end=True))
    else:
        wire[upstream].program(reply=lambda r: b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n" if r.method == "GET" else
                               b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 7\r\n\r\n")
    for method, status in (("GET", 204), ("HEAD", 200)):
        got = ask(wire, version, path_of(upstream), method)
        assert (got.status, got.body, got.get("X-A")) == (status, b"", "b")


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_interim_responses(wire, version, upstream):
    if isinstance(wire[upstream], H2Upstream):
        wire[upstream].program(stream=lambda s: s.whole().respond(103, "link: </a.css>").answer(b"done"))
    else:
        wire[upstream].program(reply=lambda _: b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + answer(b"done"))
    if version == "h2":
        got = wire.h2().ask(path_of(upstream))
        assert got.interim[0][":status"] == "103" and got.interim[0]["link"] == "</a.css>"
    else:
        client = wire.raw()
        client.send(request(path_of(upstream)))
        assert client.response(interim=True).get("Link") == "</a.css>"
        got = client.response()
    assert got.status == 200 and got.body == b"done"


@pytest.mark.parametrize("upstream", ["two", "two_tls"])
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_both_directions_at_once_all_in_http_2(wire, listener, upstream):
    def echo(stream):
        stream.head().respond(200)
        at = 0
        while True:
            stream.until(lambda: stream.got > at or stream.ended, "more")
            body = stream.body
            if len(body) > at:
                stream.send(body[at:])
                at = len(body)
            elif stream.ended:
                stream.finish(["x-count: %d" % at])
                return

    wire[upstream].program(stream=echo)
    client = wire.h2(listener)
    streams = [client.begin_request(f"/{upstream}/{i}", "POST", end=False) for i in range(10)]
    for turn in range(5):
        for i, stream in enumerate(streams):
            stream.send(b"%d" % i * 1000)
            stream.more(1000 * (turn + 1))
    for i, stream in enumerate(streams):
        got = stream.finish(["x-end: yes"]).whole()
        assert got.body == b"%d" % i * 5000 and got.trailers == [("x-count", "5000")]


@pytest.mark.parametrize("upstream", ["two", "two_tls"])
def test_many_clients_share_few_connections(wire, upstream):
    wire[upstream].program(reply=lambda r: r.target.encode())
    clients = [wire.h2() for _ in range(4)] + [wire.h2("tls") for _ in range(4)]
    streams = [client.begin_request(f"/{upstream}/{i}") for client in clients for i in range(25)]
    for number, stream in enumerate(streams):
        assert stream.whole().body == f"/{upstream}/{number % 25}".encode()
    assert len(wire[upstream].requests) == 200
    assert wire[upstream].accepted <= 4


@pytest.mark.parametrize("version", ["1.1", "h2", "tls h2"])
def test_large_bodies_through_http_2_upstreams(wire, version):
    size = 16 * MIB
    body, before = b"".join(pieces(size)), wire.resident_kib()
    wire["two"].program(reply=lambda r: r.body)
    assert ask(wire, version, "/two", "POST", body=body).body == body
    assert wire.resident_kib() - before < (16 if not SANITIZED else 256) * 1024


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_an_upgrade_to_h2c_goes_nowhere(wire, version, upstream):
    program(wire, upstream, b"plain")
    if version == "1.1":
        got = ask(wire, version, path_of(upstream), "GET", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                  "HTTP2-Settings: AAMAAABkAAQAAP__")
    else:
        got = ask(wire, version, path_of(upstream), "GET", "HTTP2-Settings: AAMAAABkAAQAAP__")
    assert got.status == 200 and got.body == b"plain"
    assert not {"upgrade", "http2-settings", "connection"} & set(wire[upstream].only().names)


# ---- WebSocket over HTTP/1.1, to everywhere ----

def test_websocket_over_tls(wire, echo_server):   # noqa: F811
    context = wire.pki.client_context(alpn=["http/1.1"])

    async def run():
        async with websockets.connect(echo_server.replace("ws://127.0.0.1", "wss://localhost").replace(
                str(wire.ports["plain"]), str(wire.ports["tls"])), ssl=context, max_size=None) as socket:
            large = os.urandom(2 * MIB)
            for message in ("hello", large):
                await socket.send(message)
                assert await socket.recv() == message

    assert isinstance(context, ssl.SSLContext)
    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_upgrade_of_http_1_to_an_http_2_upstream_is_no_upgrade(wire):
    program(wire, "two", b"no socket here", "426 Upgrade Required")
    got = wire.raw().ask(request("/two", "GET", *UPGRADE))
    assert got.status == 426 and not {"upgrade", "connection"} & set(wire["two"].only().names)


# ---- RFC 8441: from HTTP/2 to WebSocket servers of HTTP/1.1 ----

def connect(client, path="/ws", *fields, **more):
    return client.begin_request(path, "CONNECT", "sec-websocket-version: 13", *fields, end=False, protocol="websocket", **more)


def say(stream, message, opcode=None, **more):
    """One frame of a client: masked."""
    opcode = opcode or (Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
    payload = message.encode() if isinstance(message, str) else message
    stream.send(WebSocketFrame(opcode, payload).serialize(mask=True), **more)


def hear(stream, at):
    """(opcode, payload, where the next begins) of a server's frame that is at this byte."""
    stream.more(at + 2)
    first, size = stream.body[at], stream.body[at + 1]
    head = 2
    if size > 125:
        head = 4 if size == 126 else 10
        stream.more(at + head)
        size = struct.unpack("!H" if head == 4 else "!Q", stream.body[at + 2:at + head])[0]
    stream.more(at + head + size)
    return first & 15, stream.body[at + head:at + head + size], at + head + size


@pytest.fixture
def client(h2_client):
    return h2_client


def test_a_real_websocket_server(wire, client, echo_server):   # noqa: F811
    stream, at = connect(client, "/ws?a=b", "origin: http://test"), 0
    assert stream.head().status == 200 and client.their_settings[CONNECT_PROTOCOL] == 1
    assert not {"sec-websocket-accept", "upgrade", "connection", "content-length"} & set(stream.names)
    large = os.urandom(3 * MIB)
    for message in ("hello", b"\0\xff" * 1000, "ünïcode", large):
        say(stream, message)
        opcode, payload, at = hear(stream, at)
        assert payload == (message.encode() if isinstance(message, str) else message)
    say(stream, b"", Opcode.PING)
    opcode, _, at = hear(stream, at)
    assert opcode == Opcode.PONG
    assert client.ask("/said").status == 203   # other streams live beside it
    say(stream, "bye")
    opcode, payload, at = hear(stream, at)
    assert opcode == Opcode.CLOSE and payload[:2] == struct.pack("!H", 1001)
    say(stream, payload, Opcode.CLOSE)
    stream.whole()   # the server closes, and so does the stream
    stream.send(b"", end=True) if stream.reset is None else None
    until(wire.at_rest, "the tunnel's end")


def test_many_websockets_on_one_connection(wire, client, echo_server):   # noqa: F811
    streams = [connect(client) for _ in range(20)]
    assert all(stream.head().status == 200 for stream in streams)
    at = [0] * 20
    for turn in range(5):
        for i, stream in enumerate(streams):
            say(stream, f"{i} {turn}")
        for i, stream in enumerate(streams):
            _, payload, at[i] = hear(stream, at[i])
            assert payload == f"{i} {turn}".encode()
    for stream in streams:
        stream.cancel()
    until(wire.at_rest, "the tunnels' end")


SHAKE = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-More: 1\r\n%s\r\n"


def accept_of(seen):
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((seen.get("Sec-WebSocket-Key") + guid).encode()).digest()).decode()


def server(wire, script, accept=accept_of):
    """A WebSocket server by hand; in the tunnel, script(peer)."""
    def whole(peer):
        seen = wire["main"].read(peer)
        value = accept(seen)
        peer.send((SHAKE % (f"Sec-WebSocket-Accept: {value}\r\n" if value else "")).encode())
        script(peer)

    wire["main"].program(whole)


def test_the_handshake_is_made_anew(wire, client):
    server(wire, parrot)
    stream = connect(client, "/chat?x=y", "sec-websocket-protocol: chat", authority="chat.example", scheme=client.scheme)
    assert stream.head().status == 200 and stream.get("x-more") == "1"
    seen = wire["main"].only()
    assert seen.start == b"GET /chat?x=y HTTP/1.1" and seen.get("Host") == "chat.example"
    assert seen.get("Upgrade") == "websocket" and seen.get("Connection").lower() == "upgrade"
    assert len(seen.get("Sec-WebSocket-Key")) == 24 and seen.get("Sec-WebSocket-Version") == "13"
    assert seen.get("Sec-WebSocket-Protocol") == "chat" and seen.get("X-Forwarded-For") == "127.0.0.1"
    assert not {"transfer-encoding", "content-length", ":protocol"} & set(seen.names)
    anything = b"anything \0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    stream.send(anything)
    assert stream.more(len(anything)).body == anything
    stream.cancel()
    until(lambda: wire["main"].peers[0].over, "the upstream's connection closed")


def test_keys_are_new_each_time(wire):
    server(wire, parrot)
    client = wire.h2()
    for _ in range(10):
        stream = connect(client, "/", "sec-websocket-key: dGhlIHNhbXBsZQ==")   # the client's, if any, is not used
        assert stream.head().status == 200
        stream.cancel()
    assert len({seen.get("Sec-WebSocket-Key") for seen in wire["main"].requests}) == 10


@pytest.mark.parametrize("accept", ["", "nonsense", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="])
def test_a_wrong_accept_is_502(wire, client, accept):
    server(wire, parrot, lambda _: accept)
    stream = connect(client)
    stream.head()
    assert stream.status == 502 and b"upstream_bad_response" in stream.whole().body
    until(lambda: wire["main"].peers[0].over, "the upstream's connection cut")


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "426 Upgrade Required"])
def test_a_refusal_passes(wire, client, status):
    wire["main"].program(reply=lambda _: answer(b"not you", status, "X-Why: because"))
    got = connect(client).whole()
    assert got.status == int(status[:3]) and got.body == b"not you" and got.get("x-why") == "because"
    assert client.ask("/said").status == 203


def test_an_upstream_that_just_answers_is_no_tunnel(wire, client):
    """200 to a GET is not what 200 to a CONNECT says: the client must not take the page for a socket."""
    wire["main"].program(reply=lambda _: answer(b"<html>"))
    stream = connect(client)
    try:
        stream.head()
    except Reset:
        return
    assert stream.status not in range(200, 300), stream


def test_101_to_something_else(wire, client):
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), peer.ended()))
    assert connect(client).head().status == 502


@pytest.mark.parametrize("path", ["/two", "/two_tls"])
def test_an_http_2_upstream_has_no_websockets_here(wire, client, path):
    """Whatever the answer is, it is a refusal."""
    stream = connect(client, path)
    try:
        assert stream.head().status >= 400
    except Reset:
        pass
    assert client.ask("/said").status == 203


def test_half_closed_by_the_client(wire, client):
    def script(peer):
        assert peer.exactly(10) == b"last words" and not peer.more()
        peer.send(b"reply")
        peer.shut()

    server(wire, script)
    stream = connect(client)
    assert stream.head().status == 200
    stream.send(b"last words", end=True)
    assert stream.whole().body == b"reply"
    until(wire.at_rest, "the tunnel's end")
    wire["main"].check()


def test_half_closed_by_the_upstream(wire, client):
    def script(peer):
        peer.send(b"last words")
        peer.shut()
        assert peer.exactly(5) == b"reply" and not peer.more()

    server(wire, script)
    stream = connect(client)
    assert stream.whole().body == b"last words" and stream.reset is None
    stream.send(b"reply", end=True)
    until(wire.at_rest, "the tunnel's end")
    wire["main"].check()


def test_reset_by_the_upstream(wire, client):
    go = threading.Event()
    server(wire, lambda peer: (go.wait(30), peer.reset()))
    stream = connect(client)
    assert stream.head().status == 200
    go.set()
    assert stream.until_reset() in (2, 10)   # INTERNAL_ERROR, CONNECT_ERROR
    assert client.ask("/said").status == 203


def test_bytes_together_with_the_101_and_before_it(wire, client):
    wire["main"].program(lambda peer: ((seen := wire["main"].read(peer)), peer.send(
        (SHAKE % f"Sec-WebSocket-Accept: {accept_of(seen)}\r\n").encode() + b"already here"), parrot(peer)))
    stream = connect(client)
    stream.send(b"impatient")
    assert stream.more(21).body == b"already hereimpatient"
    stream.cancel()


def test_a_silent_tunnel_ends(wire):
    """After the listener's idle time, without a byte."""
    server(wire, parrot)
    client, pace = wire.h2("steady"), threading.Event()
    stream = connect(client)
    assert stream.head().status == 200
    for i in range(5):
        pace.wait(STEADY_S / 4)
        stream.send(b"x")
        stream.more(i + 1)
    client.until(lambda: stream.ended or stream.reset is not None or client.over, "the silent tunnel's end")
    until(wire.at_rest, "rest")


def test_both_directions_of_a_tunnel_full(wire):
    size, got_up = 8 * MIB, []

    def flood(peer):
        sender = threading.Thread(target=peer.socket.sendall, args=(b"u" * size,))
        sender.start()
        total = len(peer.buffer)
        while total < size and (data := peer.socket.recv(1 << 16)):
            total += len(data)
        sender.join()
        got_up.append(total)
        peer.shut()

    server(wire, flood)
    stream = connect(wire.h2())
    assert stream.head().status == 200
    stream.send(b"d" * size, end=True)
    assert stream.whole().got == size
    until(lambda: got_up == [size], "all at the upstream")


def test_no_answer_of_the_gateways_own_is_a_tunnel(wire):
    """Any 2xx would look like one (RFC 8441 5)."""
    client = wire.h2()
    got = connect(client, "/said").whole()
    assert (got.status, got.json["code"]) == (501, "not_implemented")
    assert client.ask("/said").status == 203


@pytest.mark.parametrize("fields, pseudo", [
    (["content-length: 5"], {}), (["sec-websocket-version: 12"], {}), (["upgrade: websocket"], {}), (["connection: upgrade"], {}),
    ([], {"protocol": "evil"}), ([], {"protocol": "h2c"}), ([], {"protocol": "web socket"}), ([], {"protocol": ""})])
def test_extended_connects_that_are_none(wire, fields, pseudo):
    wire["main"].program(reply=lambda _: answer(b"refused", "400 Bad Request"))
    client = wire.h2(checks=False)
    stream = client.begin_request("/", "CONNECT", *fields, end=False, **{"protocol": "websocket", **pseudo})
    try:
        assert stream.head().status in (400, 426, 501)
    except Reset as reset:
        assert reset.code == 1
    for seen in wire["main"].requests:
        assert seen.get("Upgrade") == "websocket" and seen.get("Content-Length") is None
    assert client.ask("/said").status == 203
