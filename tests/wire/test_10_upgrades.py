"""Protocol upgrades: a tunnel after 101, and only then. WebSocket with python3-websockets on both ends, and by hand."""
import asyncio
import os
import threading

import pytest
import websockets

from gateway import until
from peers import Incomplete, answer, request
from wire import STEADY_S

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-More: 1\r\n\r\n"


@pytest.fixture
def echo_server(wire):
    """A WebSocket server of python3-websockets in place of the upstream "main"."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), None
    upstream = wire["main"]
    upstream.close()

    async def echo(socket, *_):
        async for message in socket:
            if message == "bye":
                await socket.close(1001, "as you say")
            else:
                await socket.send(message)

    async def serve():
        nonlocal stop
        stop = loop.create_future()
        async with websockets.serve(echo, "127.0.0.1", upstream.port, max_size=None):
            ready.set()
            await stop

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield f"ws://127.0.0.1:{wire.ports['plain']}/ws?a=b"
    loop.call_soon_threadsafe(stop.set_result, None)
    thread.join(30)
    upstream.reopen()


def talk(url, conversation):
    async def run():
        async with websockets.connect(url, max_size=None) as socket:
            return await conversation(socket)
    return asyncio.run(asyncio.wait_for(run(), 60))


def test_websocket_echo(wire, echo_server):
    async def conversation(socket):
        for message in ("hello", b"\0\xff" * 1000, "", "ünïcode"):
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())

    talk(echo_server, conversation)
    until(wire.at_rest, "the tunnel's end")


def test_websocket_large_and_many(wire, echo_server):
    async def conversation(socket):
        large = os.urandom(4 << 20)
        await socket.send(large)
        assert await socket.recv() == large
        for i in range(500):
            await socket.send(str(i))
        for i in range(500):
            assert await socket.recv() == str(i)

    talk(echo_server, conversation)


def test_websocket_closed_by_the_server(wire, echo_server):
    async def conversation(socket):
        await socket.send("bye")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1001

    talk(echo_server, conversation)
    until(wire.at_rest, "the tunnel's end")


def test_20_websockets_at_once(wire, echo_server):
    async def run():
        sockets = await asyncio.gather(*[websockets.connect(echo_server) for _ in range(20)])
        for turn in range(5):
            await asyncio.gather(*[socket.send(f"{i} {turn}") for i, socket in enumerate(sockets)])
            assert await asyncio.gather(*[socket.recv() for socket in sockets]) == [f"{i} {turn}" for i in range(20)]
        assert wire.info()["workers"][0]["exchanges"] == 20
        await asyncio.gather(*[socket.close() for socket in sockets])

    asyncio.run(asyncio.wait_for(run(), 60))


# ---- by hand ----

def tunnel(wire, script, first=b"", head=SWITCH, path="/"):
    def whole(peer):
        wire["main"].read(peer)
        peer.send(head + first)
        script(peer)

    wire["main"].program(whole)
    client = wire.raw()
    client.send(request(path, "GET", *UPGRADE))
    return client, client.response()


def parrot(peer):
    while peer.buffer or peer.more():
        data, peer.buffer = peer.buffer, b""
        peer.send(data)


def test_the_handshake_is_relayed(wire):
    client, got = tunnel(wire, parrot)
    assert got.status == 101 and got.get("Upgrade") == "websocket" and got.get("X-More") == "1"
    assert got.get("Connection").lower() == "upgrade" and got.get("Content-Length") is None
    seen = wire["main"].only()
    assert seen.get("Upgrade") == "websocket" and seen.get("Connection").lower() == "upgrade"
    assert seen.get("Sec-WebSocket-Key") == "dGhlIHNhbXBsZQ==" and seen.get("X-Forwarded-For")
    anything = b"anything \0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    client.send(anything)
    assert client.exactly(len(anything)) == anything


def test_bytes_together_with_the_101(wire):
    client, got = tunnel(wire, parrot, first=b"already here")
    assert got.status == 101 and client.exactly(12) == b"already here"


def test_bytes_before_the_101(wire):
    """A client that does not wait: they are the tunnel's, and reach the upstream behind the request."""
    def script(peer):
        wire["main"].read(peer)
        peer.send(SWITCH)
        parrot(peer)

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "GET", *UPGRADE) + b"impatient")
    assert client.response().status == 101 and client.exactly(9) == b"impatient"


def test_bytes_that_did_not_become_a_tunnel_are_requests(wire):
    wire["main"].program(reply=lambda r: answer(r.target.encode()))
    client = wire.raw()
    client.send(request("/one", "GET", *UPGRADE) + request("/next"))
    assert client.response().body == b"/one" and client.response().body == b"/next"


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_half_closed_from_one_side(wire, who):
    go = threading.Event()

    def script(peer):
        if who == "upstream":
            peer.send(b"last words")
            peer.shut()
            assert peer.exactly(5) == b"reply" and not peer.more()
        else:
            assert peer.exactly(10) == b"last words" and not peer.more()
            go.set()
            peer.send(b"reply")

    client, got = tunnel(wire, script)
    assert got.status == 101
    if who == "client":
        client.send(b"last words").shut()
        assert go.wait(30) and client.exactly(5) == b"reply" and client.ended()
    else:
        assert client.exactly(10) == b"last words" and not client.more()
        client.send(b"reply").shut()
    until(wire.at_rest, "the tunnel's end")
    wire["main"].check()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_closed_by_the_client(wire, end):
    client, _ = tunnel(wire, parrot)
    client.send(b"x")
    assert client.exactly(1) == b"x"
    getattr(client, end)()
    until(lambda: wire["main"].peers[0].over, "the upstream's connection closed")
    until(wire.at_rest, "the tunnel's end")
    assert wire.pooled("main") == 0   # a connection that was a tunnel is never one again


def test_reset_by_the_upstream(wire):
    go = threading.Event()
    client, got = tunnel(wire, lambda peer: (go.wait(30), peer.reset()))
    assert got.status == 101
    go.set()
    with pytest.raises((ConnectionError, Incomplete)):
        client.exactly(1)


def test_a_tunnel_outlives_the_routes_timeout_and_ends_by_silence(wire):
    """The route's two seconds are for the answer; then the listener's idle time counts."""
    def script(peer):
        wire["main"].read(peer)
        peer.send(SWITCH)
        parrot(peer)

    wire["main"].program(script)
    client, pace = wire.raw("steady"), threading.Event()
    client.send(request("/hurry", "GET", *UPGRADE))
    assert client.response().status == 101
    for _ in range(5):
        pace.wait(STEADY_S / 4)
        client.send(b"x")
        assert client.exactly(1) == b"x"
    assert client.ended()
    until(wire.at_rest, "the silent tunnel's end")


def test_both_directions_full(wire):
    """Each side sends before it reads: the gateway must not wait for one to serve the other."""
    size = 32 << 20

    def flood(peer):
        sender = threading.Thread(target=peer.socket.sendall, args=(b"u" * size,))
        sender.start()
        total = len(peer.buffer)
        while total < size and (data := peer.socket.recv(1 << 16)):
            total += len(data)
        sender.join()
        return total

    got_up = []
    client, got = tunnel(wire, lambda peer: (got_up.append(flood(peer)), peer.shut()))
    assert got.status == 101
    assert flood(client) == size
    client.shut()
    until(lambda: got_up == [size], "all at the upstream")
    until(wire.at_rest, "the tunnel's end")


@pytest.mark.parametrize("status", ["426 Upgrade Required", "403 Forbidden", "200 OK"])
def test_an_upgrade_that_the_upstream_refuses(wire, status):
    wire["main"].program(reply=lambda r: answer(b"no", status) if r.get("Upgrade") else answer(b"plain"))
    client = wire.raw()
    got = client.ask(request("/", "GET", *UPGRADE))
    assert got.status == int(status[:3]) and got.body == b"no"
    assert client.ask(request()).body == b"plain"


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_an_upgrade_to_something_else_is_502(wire, head):
    client, got = tunnel(wire, parrot, head=head)
    assert got.status == 502 and got.json["code"] == "upstream_bad_response"
    until(lambda: wire["main"].peers[0].over, "the upstream's connection cut")


def test_a_hanging_handshake_is_504(wire):
    wire["fast"].program(lambda peer: (wire["fast"].read(peer), peer.ended()))
    got = wire.raw().ask(request("/fast", "GET", *UPGRADE))
    assert got.status == 504 and got.json["code"] == "upstream_timeout"


def test_an_upgrade_with_a_body_is_no_upgrade(wire):
    got = wire.raw().ask(request("/", "POST", *UPGRADE, body=b"abc"))
    seen = wire["main"].only()
    assert got.status == 200 and seen.get("Upgrade") is None and seen.body == b"abc"


def test_an_upgrade_from_http_1_0_is_none(wire):
    got = wire.raw().ask(request("/", "GET", *UPGRADE, version="1.0"))
    assert got.status == 200 and wire["main"].only().get("Upgrade") is None
