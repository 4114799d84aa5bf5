"""What is spoken inside TLS: bodies of every size and speed, ends that are ends, and what upstreams and logs are told."""
import asyncio
import hashlib
import signal
import ssl
import subprocess
import threading
import time

import pytest
import websockets

from gateway import BINARY, Origin, logged, until
from peers import answer, request
from secure import QUARANTINE_KIB, Client, SecureUpstream, Truncated, get, tls_gateway
from wire import FAST_S

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="]
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


# ---- what upstreams are told ----

def test_forwarding_headers(secure):
    client = secure.client()
    assert client.ask(get("/", "a.example", "X-Forwarded-Proto: http", "X-Forwarded-Port: 1")).status == 200
    seen = secure["main"].only()
    assert seen.get("X-Forwarded-Proto") == "https" and seen.get("X-Forwarded-Port") == str(secure.ports["tls"])
    assert seen.get("X-Forwarded-Host") == "a.example" and seen.get("X-Forwarded-For") == "127.0.0.1"
    assert secure.raw("plain").ask(get()).status == 200
    assert secure["main"].requests[1].get("X-Forwarded-Proto") == "http"


def test_a_trusted_proxy_may_say_http(secure):
    client = secure.client("trusted")
    assert client.ask(get("/", "a.example", "X-Forwarded-Proto: http", "Forwarded: for=192.0.2.1;proto=http")).status == 200
    seen = secure["main"].only()
    assert seen.get("X-Forwarded-Proto") == "http"
    assert seen.get("Forwarded") == "for=192.0.2.1;proto=http, for=127.0.0.1;proto=https"


# ---- redirect_to ----

@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e", "/%41%20b?", "/x?%0d%0a", "//evil.example/"])
def test_redirect_to(secure, path):
    client = secure.raw("redirect")
    got = client.ask(get(path))
    assert got.status == 308
    want = path.replace("%41", "A")
    assert got.get("Location") == f"https://a.example:{secure.ports['tls']}{want}"
    assert not secure["main"].requests and client.ask(get("/again")).status == 308


def test_redirect_keeps_the_host_and_takes_no_other_port(secure):
    for host, want in (("A.Example:80", "a.example"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1:1", "127.0.0.1")):
        got = secure.raw("redirect").ask(get("/p", host))
        assert got.get("Location").lower() == f"https://{want}:{secure.ports['tls']}/p"
    got = secure.raw("redirect").ask(b"GET / HTTP/1.0\r\n\r\n")
    assert got.status == 400   # there is no host to send it to
    got = secure.raw("redirect").ask(request("/p", "POST", host="a.example", body=b"abc"))
    assert got.status == 308
    got = secure.raw("redirect").ask(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert got.status == 308


def test_the_usual_port_is_left_out(make, pki):
    gateway = make({"listeners": [
        {"name": "plain", "address": "127.0.0.1:80", "redirect_to": "tls"},
        {"name": "tls", "address": "127.0.0.1:443", "tls": {"certificates": [pki.ca.issue("a.example").files]}}]})
    done = subprocess.run([str(BINARY), "explain", "-c", str(gateway.file), "GET http://a.example/x?y"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert '"https://a.example/x?y"' in done.stdout


# ---- bodies ----

def pattern(size):
    return hashlib.shake_256(b"pattern").digest(size)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_bodies_both_ways(secure, version):
    secure["main"].program(reply=lambda r: answer(r.body))
    client = secure.client(context=secure.pki.client_context(version=version))
    for size in (0, 1, 16383, 16384, 16385, 100_000, 5_000_000):
        body = pattern(size)
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(body)
        assert hashlib.sha256(client.response().body).digest() == hashlib.sha256(body).digest()


def test_records_cut_in_pieces_of_one_byte(secure):
    secure["main"].program(reply=lambda r: answer(r.body))
    client = secure.client(step=1)
    body = pattern(3000)
    assert client.ask(request("/", "POST", host="a.example", body=body)).body == body


def test_records_of_one_byte(secure):
    secure["main"].program(reply=lambda r: answer(r.body))
    client = secure.client()
    client.send_slowly(request("/", "POST", "Transfer-Encoding: chunked", host="a.example") + b"3\r\nabc\r\n0\r\n\r\n")
    assert client.response().body == b"abc"


def test_many_requests_in_one_record_and_one_in_many(secure):
    secure["main"].program(reply=lambda r: answer(r.target.encode()))
    client = secure.client()
    client.send(b"".join(get(f"/{i}") for i in range(50)))
    assert [client.response().body for _ in range(50)] == [f"/{i}".encode() for i in range(50)]


def test_a_client_that_reads_slowly(secure):
    """A big answer waits at the upstream, not here."""
    size, sent = 192 << 20, []

    def script(peer):
        secure["main"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = pattern(1 << 20)
        for _ in range(size >> 20):
            peer.send(block)
            sent.append(1)

    secure["main"].program(script)
    client = secure.client(receive_buffer=64 * 1024)
    assert secure.client().tls.version()   # what TLS needs once
    before = secure.resident_kib()
    client.send(get())
    until(lambda: still(sent), "the answer has come to a stop")
    assert len(sent) < 64 and secure.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB
    head = client.head()
    assert head.get("Content-Length") == str(size)
    total, block = 0, pattern(1 << 20)
    while total < 32 << 20:
        part = client.exactly(1 << 20)
        assert part == block
        total += len(part)
    assert secure.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB
    client.close()


def still(sent):
    """Nothing was added for a while."""
    count, began = len(sent), time.monotonic()
    until(lambda: len(sent) != count or time.monotonic() - began > 0.3, "either")
    return len(sent) == count and count > 0


def test_an_upstream_that_reads_slowly(secure):
    go, taken = threading.Event(), []

    def script(peer):
        peer.head()
        assert go.wait(60)
        digest = hashlib.sha256(peer.exactly(64 << 20)).hexdigest()
        taken.append(digest)
        peer.send(answer(digest.encode()))

    secure["main"].program(script)
    client, sent = secure.client(), []
    assert client.tls.version()
    before = secure.resident_kib()
    block = pattern(1 << 20)

    def send():
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            client.send(block)
            sent.append(1)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    until(lambda: still(sent), "the body has come to a stop")
    assert len(sent) < 48 and secure.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB
    go.set()
    thread.join(60)
    assert client.response().body.decode() == hashlib.sha256(block * 64).hexdigest()
    assert secure.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB


# ---- ends ----

def test_half_close(secure):
    """After the client's close_notify the answer still comes, then ours (RFC 8446 6.1)."""
    go = threading.Event()

    def script(peer):
        secure["main"].read(peer)
        assert go.wait(30)
        peer.send(answer(b"late"))

    secure["main"].program(script)
    client = secure.client()
    client.send(get())
    secure["main"].wait_requests()
    client.shut()
    go.set()
    assert client.response().body == b"late"
    assert client.ended()   # with close_notify


@pytest.mark.parametrize("end", ["shut", "cut"])
def test_an_end_without_a_request(secure, end):
    client = secure.client()
    assert client.ask(get()).status == 200
    getattr(client, end)()
    try:
        assert client.ended()
    except (Truncated, ssl.SSLError):
        assert end == "cut"   # nobody says goodbye to one who did not; an alert, maybe


@pytest.mark.parametrize("end", ["shut", "cut", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_cut_is_no_complete_request(secure, end, framing):
    client = secure.client()
    if framing == "length":
        client.send(b"POST /cut HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabcde")
    else:
        client.send(b"POST /cut HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
    until(lambda: b"abcde" in secure["main"].received, "the body's begin at the upstream")
    getattr(client, end)()
    until(lambda: secure["main"].peers[0].over, "the upstream's connection cut")
    received = secure["main"].received
    assert b"\r\n0\r\n\r\n" not in received and secure["main"].requests[0].body == b""


def test_the_tests_tell_an_end_from_a_cut(pki):
    upstream = SecureUpstream(pki.server_context(pki.ca.issue("a.example")))
    for end in ("shut", "cut"):
        upstream.program(lambda peer: (peer.head(), getattr(peer, end)(), peer.ended()))   # noqa: B023
        client = Client(upstream.port, pki.client_context())
        client.send(get())
        if end == "shut":
            assert client.ended()
        else:
            with pytest.raises(Truncated):
                client.ended()
        client.close()
    upstream.close()


def test_a_close_delimited_answer_ends_with_close_notify(secure):
    def script(peer):
        secure["main"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is")

    secure["main"].program(script)
    client = secure.client()
    client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
    got = client.response()
    assert got.body == b"all there is" and client.eof   # else Truncated


def test_an_answer_that_is_cut_never_looks_complete(secure):
    """HTTP/1.0 has no other sign than the end of the connection: no close_notify then."""
    def script(peer):
        secure["main"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        until(lambda: got_some.is_set(), "the client has the begin")

    got_some = threading.Event()
    secure["main"].program(script)
    client = secure.client()
    client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
    while b"abcde" not in client.received:
        assert client.more()
    got_some.set()
    with pytest.raises((Truncated, ConnectionError)):
        while client.more():
            pass


# ---- WebSocket ----

def test_websocket(secure):
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), None
    upstream = secure["main"]
    upstream.close()

    async def echo(websocket, *_):
        async for message in websocket:
            await websocket.send(message)

    async def serve():
        nonlocal stop
        stop = loop.create_future()
        async with websockets.serve(echo, "127.0.0.1", upstream.port, max_size=None):
            ready.set()
            await stop

    async def talk():
        async with websockets.connect(f"wss://a.example:{secure.ports['tls']}/ws", host="127.0.0.1", max_size=None,
                                      server_hostname="a.example", port=secure.ports["tls"],
                                      ssl=secure.pki.client_context()) as websocket:
            for message in ("hello", b"\0\xff" * 100_000, "", "ünïcode"):
                await websocket.send(message)
                assert await websocket.recv() == message
            await (await websocket.ping())

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        asyncio.run(asyncio.wait_for(talk(), 60))
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join(30)
        upstream.reopen()


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a_tunnel_half_closed_from_one_side(secure, who):
    def script(peer):
        secure["main"].read(peer)
        peer.send(SWITCH)
        if who == "upstream":
            peer.send(b"last words")
            peer.shut()
            assert peer.exactly(5) == b"reply" and not peer.more()
        else:
            assert peer.exactly(10) == b"last words" and not peer.more()
            peer.send(b"reply")

    secure["main"].program(script)
    client = secure.client()
    client.send(get("/", "a.example", *UPGRADE))
    assert client.response().status == 101
    if who == "client":
        client.send(b"last words").shut()
        assert client.exactly(5) == b"reply" and client.ended()
    else:
        assert client.exactly(10) == b"last words" and not client.more()
        client.send(b"reply").shut()
    until(secure.at_rest, "the tunnel's end")
    secure["main"].check()


# ---- time ----

def test_idle_connections_are_closed_with_close_notify(secure):
    began, client = time.monotonic(), secure.client("fast")
    assert client.ask(get()).status == 200
    assert client.ended() and time.monotonic() - began > FAST_S - 0.05


def test_an_unfinished_head_is_408(secure):
    client = secure.client("fast")
    client.send(b"GET / HTTP/1.1\r\nHost: a.ex")
    got = client.response()
    assert got.status == 408 and client.ended()


def test_drain(make, pki):
    """Idle connections end with close_notify, the request that runs is answered and says close."""
    origin = Origin()
    try:
        gateway = tls_gateway(make, pki, origin=origin).start()
        idle, busy = Client(gateway.tls_port, pki.client_context()), Client(gateway.tls_port, pki.client_context())
        assert idle.ask(get("/idle")).body == b"/idle"
        busy.send(get("/hold"))
        origin.wait_held()
        gateway.signal(signal.SIGTERM)
        assert idle.ended()
        origin.release.set()
        got = busy.response()
        assert got.body == b"/hold" and got.get("Connection") == "close" and busy.ended()
        assert gateway.wait() == 0
    finally:
        origin.close()


# ---- records ----

def record(secure, got):
    return logged(secure.log, got.get("X-Request-Id"))[0]


def test_the_access_log(secure):
    line = record(secure, secure.client().ask(get("/logged")))
    assert line["protocol"] == "HTTP/1.1" and line["listener"] == "tls" and line["path"] == "/logged"
    line = record(secure, secure.client(context=secure.pki.client_context(check=False), server_name="b.example")
                  .ask(get("/", "a.example")))
    assert line["status"] == 421 and line["code"] == "misdirected_request"
    plain = secure.raw("tls")
    plain.send(get("/secret"))
    line = record(secure, plain.response())
    assert line["status"] == 400 and line["code"] == "bad_request"


def test_expiry_is_a_metric(secure):
    metrics = secure.metrics()
    for certificate, name in ((secure.one, "a.example"), (secure.pair, "b.example"), (secure.wild, "*.wild.example")):
        found = metrics[f'sallyport_tls_certificate_expiry_timestamp_seconds{{name="{name}"}}']
        assert abs(found - certificate.x509.not_valid_after.timestamp()) < 86400


def test_handshakes_are_counted(secure):
    names = [f"sallyport_tls_{what}_total" for what in ("handshakes", "resumed", "failures")]
    before = secure.metrics()
    client = secure.client()
    assert client.ask(get()).status == 200
    resumed = secure.client(session=client.tls.session, context=client.tls.context)
    assert resumed.resumed
    with pytest.raises(OSError):
        secure.client(context=secure.pki.client_context(alpn=["imap"]))
    secure.raw("tls").send(get()).response()

    def counted():
        after = secure.metrics()
        return [after[name] - before[name] for name in names]
    until(lambda: counted() == [2, 1, 2], counted)   # a client's side is done before the gateway's
