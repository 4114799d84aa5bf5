"""Slow and silent clients: each wait has an end, and nobody else notices. Listener "fast" does not wait for long."""
import threading
import time

import pytest

from gateway import until
from h2_wire import SANITIZED
from peers import answer, request
from wire import FAST_S, STEADY_S

POST = "POST / HTTP/1.1\r\nHost: a\r\n"


def lasted(began):
    """Not sooner than configured; how much later is the machine's affair. began: before anything that the gateway may have
    counted from, since it sees that while the test is kept from looking at its clock."""
    return time.monotonic() - began > FAST_S - 0.05


@pytest.mark.parametrize("start", ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n", "\r\n"])
def test_an_unfinished_head_is_408(wire, start):
    count = wire.ends("request_timeout")
    began = time.monotonic()
    client = wire.raw("fast")
    got = client.ask(start)
    assert got.status == 408 and got.json["code"] == "request_timeout" and got.get("Connection") == "close"
    assert lasted(began) and client.ended()
    assert wire.ends("request_timeout") == count + 1 and not wire["main"].requests


def test_a_head_that_trickles_is_408_too(wire):
    """The deadline is for the whole head, not for each byte."""
    began, client, stop = time.monotonic(), wire.raw("fast"), threading.Event()

    def trickle():
        try:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
            while not stop.wait(0.05):
                client.send(b"X-A: b\r\n")
        except OSError:
            pass

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    assert client.response().status == 408 and lasted(began)
    stop.set()
    thread.join()


def test_a_proxy_header_that_trickles_is_closed(wire):
    began, client, stop, over = time.monotonic(), wire.raw("slow_proxy", source="127.0.0.9"), threading.Event(), []

    def trickle():
        try:
            for byte in b"PROXY UNKNOWN " + b"a" * 80:
                client.send(bytes([byte]))
                stop.wait(0.2)
            over.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    assert client.ended() and lasted(began) and not client.received
    assert not over   # before the last byte
    stop.set()
    thread.join()


def test_a_silent_client_is_closed_without_a_word(wire):
    began = time.monotonic()
    client = wire.raw("fast")
    assert client.ended() and lasted(began) and not client.received


@pytest.mark.parametrize("text", [POST + "Content-Length: 10\r\n\r\nabc", POST + "Content-Length: 10\r\n\r\n",
                                  POST + "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
                                  POST + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: a\r\n"])
def test_an_unfinished_body_is_408(wire, text):
    count = wire.ends("request_timeout")
    began, client = time.monotonic(), wire.raw("fast")
    got = client.ask(text)
    assert got.status == 408 and got.json["code"] == "request_timeout" and lasted(began) and client.ended()
    assert wire.ends("request_timeout") == count + 1
    until(lambda: wire["main"].peers[0].eof, "the upstream's connection cut")


def test_a_body_that_trickles_is_waited_for(wire):
    pace = threading.Event()
    wire["main"].program(reply=lambda r: answer(r.body))
    client = wire.raw("steady")
    client.send((POST + "Content-Length: 10\r\n\r\n").encode())
    for i in range(10):
        pace.wait(STEADY_S / 9)   # in all, more than silence may last
        client.send(b"%d" % i)
    assert client.response().body == b"0123456789"


def test_an_idle_connection_is_closed(wire):
    began, client = time.monotonic(), wire.raw("fast")
    assert client.ask(request()).status == 200
    assert client.ended() and lasted(began)


def test_an_active_connection_is_not(wire):
    client, pace = wire.raw("steady"), threading.Event()
    for _ in range(5):
        pace.wait(STEADY_S / 4)
        assert client.ask(request()).status == 200


def test_a_long_answer_is_waited_for(wire):
    """The client has asked and waits: none of its deadlines runs."""
    pace = threading.Event()

    def reply(_):
        pace.wait(1.2 * STEADY_S)
        return answer(b"late")

    wire["main"].program(reply=reply)
    assert wire.raw("steady").ask(request()).body == b"late"


def test_a_client_that_does_not_read_is_cut(wire):
    count = wire.ends("client_slow")
    wire["main"].program(reply=lambda _: answer(b"x" * (64 << 20)))
    began, client = time.monotonic(), wire.raw("fast", receive_buffer=4096)
    client.send(request())
    until(lambda: wire.ends("client_slow") == count + 1, "the cut")
    assert lasted(began)
    with pytest.raises(ConnectionError):
        while client.more():
            client.buffer = b""
    until(lambda: wire["main"].peers[0].over, "the upstream's connection cut")


def test_a_client_that_reads_slowly_is_not(wire):
    size, pace = 24 << 20, threading.Event()
    wire["main"].program(reply=lambda _: answer(b"x" * size))
    client = wire.raw("steady")
    client.send(request())
    head, got = client.head(), len(client.buffer)
    client.buffer = b""
    while got < size:
        assert client.more()
        got += len(client.buffer)
        client.buffer = b""
        client.received.clear()
        if got % (3 << 20) < (256 << 10):
            pace.wait(STEADY_S / 6)
    assert got == size and head.status == 200


def test_a_client_that_pauses_is_not_the_upstreams_fault(wire):
    """timeouts.response is the upstream's: while the client is waited for, it does not run."""
    pace, size = threading.Event(), 32 << 20
    large = answer(b"x" * size)   # made beforehand: on a busy machine that takes its share of the time
    wire["steady"].program(reply=lambda r: answer(r.body) if r.body else large)
    client = wire.raw()
    client.send(request("/steady"))
    head = client.head()
    pace.wait(1.2 * STEADY_S)
    assert head.status == 200 and client.body(head).body == b"x" * size
    client = wire.raw()
    client.send((POST.replace("/", "/steady", 1) + "Content-Length: 4\r\n\r\nab").encode())
    pace.wait(1.2 * STEADY_S)
    assert client.send(b"cd").response().body == b"abcd"


def test_500_slow_clients_hurt_nobody(wire):
    """Half of them in the head, half in the body, all of them longer than any request of the others."""
    before = wire.resident_kib()
    slow = [wire.raw("trusted") for _ in range(500)]
    for i, client in enumerate(slow):
        client.send(b"GET / HTTP/1.1\r\nHost: a" if i % 2 else
                    POST.encode() + b"Content-Length: 100\r\n\r\nabc")
    wire["main"].wait_requests(250)
    quick = wire.raw()
    for i in range(100):
        assert quick.ask(request(f"/{i}")).status == 200
    assert wire.resident_kib() - before < 500 * (48 if not SANITIZED else 512)   # their red zones, shadows and quarantine
    for i, client in enumerate(slow):   # and each of them is served when it goes on
        client.send(b"\r\n\r\n" if i % 2 else b"x" * 97)
    assert all(client.response().status == 200 for client in slow)


def test_500_slow_clients_end_by_the_deadline(wire):
    count = wire.ends("request_timeout")
    slow = [wire.raw("fast") for _ in range(500)]
    for client in slow:
        try:
            client.send(b"GET / HTTP/1.1\r\nHost: a")
        except ConnectionError:
            pass
    got = [client.response() for client in slow]
    assert all(each is None or each.status == 408 for each in got)
    assert sum(each is not None for each in got) > 400
    assert wire.ends("request_timeout") >= count + 400
    assert wire.raw().ask(request()).status == 200


def test_the_limit_of_connections(wire):
    clients = [wire.raw("few") for _ in range(4)]
    for client in clients:
        assert client.ask(request()).status == 200
    extra = wire.raw("few")
    assert extra.ended() and not extra.received
    assert wire.raw().ask(request()).status == 200   # another listener's are not counted
    clients[0].close()

    def room():
        client = wire.raw("few")
        try:
            return client.ask(request())
        except ConnectionError:
            return None
    assert until(room, "room again").status == 200
