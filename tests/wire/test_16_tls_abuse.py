"""TLS listeners and clients that are slow, silent, confused or hostile: each costs little, and nobody else notices."""
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from gateway import until
from peers import Raw, answer
from secure import QUARANTINE_KIB, get
from wire import FAST_S, STRANGER

HANDSHAKE, ALERT = 22, 21


def client_hello(pki, extra=0, **more):
    """The handshake message of a ClientHello, without record headers, longer by an extension of `extra` bytes."""
    outgoing = ssl.MemoryBIO()
    tls = pki.client_context(**more).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    body = outgoing.read()[5 + 4:]
    if extra:
        at = 2 + 32
        at += 1 + body[at]
        at += 2 + int.from_bytes(body[at:at + 2], "big")
        at += 1 + body[at]
        extensions = body[at + 2:] + struct.pack(">HH", 0xfe00, extra - 4) + bytes(extra - 4)
        body = body[:at] + struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(data, size=16384, kind=HANDSHAKE):
    return b"".join(bytes([kind, 3, 1]) + len(data[i:i + size]).to_bytes(2, "big") + data[i:i + size]
                    for i in range(0, len(data), size))


def first_record(client):
    """(type, body) of what the gateway says first; None at the end."""
    try:
        while len(client.buffer) < 5 or len(client.buffer) < 5 + int.from_bytes(client.buffer[3:5], "big"):
            if not client.more():
                assert not client.buffer, client.buffer
                return None
    except ConnectionError:
        return None
    return client.buffer[0], client.buffer[5:5 + int.from_bytes(client.buffer[3:5], "big")]


def is_refused(client):
    """An alert or nothing, and then the end."""
    said = first_record(client)
    assert said is None or said[0] == ALERT, said
    client.buffer = b""
    return client.ended() or client.eof


# ---- plain HTTP ----

@pytest.mark.parametrize("text", [get("/secret"), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                                  b"GET / HTTP/1.0\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
                                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"],
                         ids=["get", "post", "1.0", "options", "h2"])
def test_plain_http_is_told_so(secure, text):
    client = secure.raw("tls")
    client.send(text)
    got = client.response()
    assert got.status == 400 and got.get("Content-Type") == "application/problem+json"
    assert got.get("Connection") == "close" and client.ended()
    assert got.json["status"] == 400 and got.json["code"] == "bad_request" and "HTTPS" in got.json["detail"], got
    assert not secure["main"].requests


def test_plain_http_byte_by_byte(secure):
    client = secure.raw("tls")
    try:
        client.send_slowly(get("/secret"))
    except ConnectionError:
        pass
    data = b""
    try:
        while client.more():
            data, client.buffer = data + client.buffer, b""
    except ConnectionError:
        pass   # what it still sent was thrown away
    assert data.startswith(b"HTTP/1.1 400 ") and not secure["main"].requests


# ---- slow handshakes ----

def lasted(began):
    return time.monotonic() - began > FAST_S - 0.05


def test_a_silent_client(secure):
    began, client = time.monotonic(), secure.raw("fast")
    assert client.ended() and lasted(began)


@pytest.mark.parametrize("share", [1, 4, 0.5, -1])
def test_a_client_that_says_a_part_of_its_hello(secure, share):
    hello = records(client_hello(secure.pki))
    began, client = time.monotonic(), secure.raw("fast")
    client.send(hello[:int(share * len(hello)) if isinstance(share, float) else share])
    assert is_refused(client) and lasted(began)


def test_a_hello_that_trickles(secure):
    """The deadline is for the whole handshake, not for each byte."""
    hello = records(client_hello(secure.pki))
    began, client, stop, over = time.monotonic(), secure.raw("fast"), threading.Event(), []

    def trickle():
        try:
            for byte in hello:   # some hundreds
                client.send(bytes([byte]))
                if stop.wait(0.1):
                    return
            over.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    assert is_refused(client) and lasted(began) and not over   # before the last byte
    stop.set()
    thread.join()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_that_stops_after_the_servers_flight(secure, version):
    began, client = time.monotonic(), secure.raw("fast")
    client.send(records(client_hello(secure.pki, version=version)))
    assert first_record(client)[0] == HANDSHAKE
    client.ended()
    assert client.eof and lasted(began)


def test_a_handshake_and_no_request(secure):
    began, client = time.monotonic(), secure.client("fast")
    assert client.ended() and lasted(began)   # with close_notify: ended() would raise Truncated


def test_a_thousand_half_open_handshakes(secure):
    """Half of them said nothing, half wait behind the server's flight. The others are served."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    secure["main"].program(reply=lambda r: answer(r.target.encode()))
    hello = records(client_hello(secure.pki))
    warm = secure.client()
    assert warm.ask(get("/warm")).body == b"/warm"
    before, count, crowd = secure.resident_kib(), 1500, []
    for i in range(count):
        crowd.append(secure.raw("tls"))
        if i % 2:
            crowd[-1].send(hello)
        if i % 300 == 299:
            began = time.monotonic()
            assert secure.client().ask(get("/other")).body == b"/other"
            assert warm.ask(get("/warm")).body == b"/warm"
            assert time.monotonic() - began < 10
    for client in crowd[1::2]:
        assert first_record(client)[0] == HANDSHAKE
    grown = secure.resident_kib() - before
    if not QUARANTINE_KIB:   # a sanitizer keeps books on all of OpenSSL's memory
        assert grown < count * 64, f"{grown / count:.1f} KiB for each"
    for client in crowd:
        client.close()
    connections = 'sallyport_connections{listener="tls",state="%s"}'
    until(lambda: sum(secure.metrics().get(connections % state, 0) for state in ("active", "idle")) < 20, "they are gone")


def test_half_open_handshakes_count_as_connections(secure):
    """limits.connections is 4."""
    silent = [secure.raw("few") for _ in range(4)]
    until(lambda: is_full(secure), "no more connections taken")
    for client in silent:
        client.close()
    until(lambda: not is_full(secure), "connections taken again")


def is_full(secure):
    try:
        client = secure.client("few")
    except OSError:
        return True
    served = client.ask(get()).status == 200
    client.close()
    return not served


# ---- nonsense ----

def test_a_hello_in_pieces(secure):
    """Records of any size, packets of any size (RFC 8446 5.1)."""
    hello = client_hello(secure.pki)
    for size in (1, 7, 100):
        client = secure.raw("tls")
        client.send(records(hello, size))
        assert first_record(client)[0] == HANDSHAKE
    client = secure.raw("tls").send_slowly(records(hello, 50))
    assert first_record(client)[0] == HANDSHAKE


def test_big_and_too_big_hellos(secure):
    """16 KiB is the bound (TLS_CLIENT_HELLO_BYTES)."""
    client = secure.raw("tls")
    client.send(records(client_hello(secure.pki, 12000), 4000))
    assert first_record(client)[0] == HANDSHAKE
    for extra in (17000, 60000):
        client = secure.raw("tls")
        try:
            client.send(records(client_hello(secure.pki, extra), 4000))
        except ConnectionError:
            pass
        assert is_refused(client)


def test_a_hello_that_only_says_it_is_big(secure):
    """Nothing is made ready for what was announced: no memory, no waiting for it past the deadline."""
    before = secure.resident_kib()
    crowd = [secure.raw("fast") for _ in range(100)]
    for client in crowd:
        client.send(records(b"\x01\xff\xff\xff" + b"\3\3" + bytes(100)))
    assert all(is_refused(client) for client in crowd)
    assert secure.resident_kib() - before < 8 * 1024 + QUARANTINE_KIB


NONSENSE = {
    "zeros": bytes(1000), "text": b"hello there\r\n" * 100, "ssl2": b"\x80\x2e\1\0\2" + bytes(50), "ones": b"\xff" * 1000,
    "alert": records(b"\2\50", kind=ALERT), "data": records(b"GET / HTTP/1.1\r\n\r\n", kind=23),
    "ccs": records(b"\1", kind=20) * 1000, "empty records": records(b"x", 1)[:0] + bytes([22, 3, 1, 0, 0]) * 1000,
    "long record": bytes([22, 3, 1, 0xff, 0xff]) + bytes(70000), "version": bytes([22, 9, 9, 0, 4, 1, 0, 0, 0]),
    "server hello": records(b"\2\0\0\4abcd"), "no body": records(b"\1\0\0\0"), "finished": records(b"\x14\0\0\x0c" + bytes(12)),
    "heartbeat": bytes([24, 3, 2, 0, 3, 1, 0x40, 0]),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense(secure, what):
    client = secure.raw("fast")
    try:
        client.send(NONSENSE[what])
    except ConnectionError:
        pass
    assert is_refused(client) and not secure["main"].requests
    assert secure.client("fast").ask(get()).status == 200


def test_nonsense_behind_the_hello(secure):
    hello = records(client_hello(secure.pki))
    for rest in (b"\xff" * 500, records(b"\1\0\0\0"), records(bytes(100), kind=23), hello):
        client = secure.raw("fast")
        client.send(hello + rest)
        while client.more():
            client.buffer = b""
        assert client.eof
    assert secure.client("fast").ask(get()).status == 200


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_record_that_was_tampered_with_ends_the_connection(secure, version):
    client = secure.client("tls", secure.pki.client_context(version=version))
    assert client.ask(get()).status == 200
    secure["main"].program()
    client.tls.write(get("/tampered"))
    data = bytearray(client.outgoing.read())
    data[-1] ^= 1
    client.socket.sendall(data)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.more()
    assert not secure["main"].requests


def test_thousands_of_empty_records(secure):
    """Each costs the gateway something and says nothing."""
    client = secure.client("tls", secure.pki.client_context(version="1.2"))
    assert client.ask(get()).status == 200
    before = secure.resident_kib()
    pieces = bytearray()
    for _ in range(3000):
        client.tls.write(b"x")   # of a head that has no end; openssl writes no empty record
        pieces += client.outgoing.read()
    try:
        client.socket.sendall(pieces)
    except ConnectionError:
        pass
    assert secure.client().ask(get()).status == 200
    assert secure.resident_kib() - before < 8 * 1024 + QUARANTINE_KIB


def test_key_updates_without_end(secure, tmp_path):
    """TLS 1.3 lets a peer ask for new keys as often as it likes (RFC 8446 4.6.3): others are served."""
    process = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{secure.ports['tls']}", "-tls1_3",
                                "-servername", "a.example", "-quiet"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        before = secure.resident_kib()
        try:
            for _ in range(300):
                process.stdin.write(b"K\n")
                process.stdin.flush()
        except BrokenPipeError:
            pass
        assert secure.client().ask(get()).status == 200
        assert secure.resident_kib() - before < 8 * 1024 + QUARANTINE_KIB
    finally:
        process.kill()
        process.stdin = None   # what is left in it is for nobody
        process.wait()


# ---- PROXY protocol ----

def proxy_v2(source="192.0.2.7"):
    return (b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack(">H", 12) + socket.inet_aton(source) +
            socket.inet_aton("127.0.0.1") + struct.pack(">HH", 4711, 443))


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n", proxy_v2()], ids=["v1", "v2"])
@pytest.mark.parametrize("step", [None, 1], ids=["one segment", "bytes"])
def test_a_proxy_header_before_the_hello(secure, header, step):
    client = secure.client("proxy", first=header, step=step)
    client.step = None
    assert client.ask(get()).status == 200
    assert secure["main"].only().get("X-Forwarded-For") == "192.0.2.7"
    assert secure["main"].only().get("X-Forwarded-Proto") == "https"


def test_a_hello_without_the_proxy_header(secure):
    with pytest.raises(OSError):
        secure.client("proxy")
    with pytest.raises(OSError):   # nobody else may say one
        secure.client("proxy", first=proxy_v2(), source=STRANGER)
    with pytest.raises(OSError):
        secure.client("tls", first=proxy_v2())
    assert not secure["main"].requests


def test_plain_http_behind_the_proxy_header(secure):
    client = secure.raw("proxy")
    client.send(proxy_v2() + get())
    assert client.response().status == 400 and client.ended()
