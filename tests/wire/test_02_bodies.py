"""Bodies both ways: framing, trailers, 100-continue, answers before the end, sizes, back-pressure."""
import hashlib
import os
import socket
import threading

import pytest

from gateway import BINARY, until
from peers import Incomplete, Peer, answer, request

CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"
MIB = 1 << 20


def pieces(total, size=256 * 1024):
    """`total` bytes that do not repeat at any power of two, in pieces."""
    block = os.urandom(size - 13)
    while total:
        piece = block[:total]
        total -= len(piece)
        yield piece


# ---- framing ----

def test_a_length_up_and_down(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    got = wire.raw().ask(request("/", "POST", body=b"abc"))
    seen = wire["main"].only()
    assert got.get("Content-Length") == "3" and got.body == b"abc"
    assert seen.get("Content-Length") == "3" and seen.get("Transfer-Encoding") is None


def test_a_body_of_no_bytes_is_announced(wire):
    assert wire.raw().ask(request("/", "POST", body=b"")).status == 200
    assert wire["main"].only().get("Content-Length") == "0"


def test_chunks_up_and_down(wire):
    def script(peer):
        seen = wire["main"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in seen.chunks:
            peer.send(b"%x;ext=1\r\n%s\r\n" % (len(chunk), chunk))
        peer.send(b"0\r\n\r\n")

    wire["main"].program(script)
    got = wire.raw().ask(request("/", "POST", CHUNKED) + b"3\r\nabc\r\n1a\r\n" + b"d" * 26 + b"\r\n0\r\n\r\n")
    assert got.body == b"abc" + b"d" * 26
    seen = wire["main"].only()
    assert seen.body == got.body and seen.get("Content-Length") is None
    assert b"ext" not in wire["main"].received and b"ext" not in bytes(wire.clients[-1].received)


def test_get_with_a_body(wire):
    assert wire.raw().ask(request("/", "GET", body=b"query")).status == 200
    assert wire["main"].only().body == b"query"


def test_trailers_both_ways(wire):
    wire["main"].program(reply=lambda r: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                         b"2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Two: b\r\nContent-Length: 5\r\nSet-Cookie: no\r\n\r\n")
    client = wire.raw()
    got = client.ask(request("/", "POST", CHUNKED, "TE: trailers") +
                     b"1\r\na\r\n0\r\nX-Check: 1\r\nHost: evil\r\nTransfer-Encoding: gzip\r\nX-Forwarded-For: 1.1.1.1\r\n"
                     b"Authorization: evil\r\nX_Under: evil\r\n\r\n")
    assert got.trailers == [("X-Sum", "7"), ("X-Two", "b")]
    seen = wire["main"].only()
    assert seen.trailers == [("X-Check", "1")] and b"evil" not in wire["main"].received
    assert client.ask(request()).status == 200


def test_a_body_until_the_end_becomes_chunks(wire):
    def script(peer):
        wire["main"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        peer.send(b"def")

    wire["main"].program(script)
    client = wire.raw()
    got = client.ask(request())
    assert got.body == b"abcdef" and got.get("Transfer-Encoding") == "chunked" and not client.eof


# ---- 100-continue ----

def test_continue_when_the_upstream_says_so(wire):
    def script(peer):
        while (head := peer.head()) is not None:
            assert head.get("Expect") == "100-continue" and not peer.buffer
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.send(answer(peer.body(head).body))

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "POST", EXPECT, "Content-Length: 4"))
    assert client.response(interim=True).start == b"HTTP/1.1 100 Continue"
    client.send(b"body")
    got = client.response(interim=True)
    assert got.body == b"body" and not client.buffer
    assert client.ask(request("/", "POST", EXPECT, "Content-Length: 4") + b"more").status == 200


def test_continue_when_the_upstream_never_says_so(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    client = wire.raw()
    client.send(request("/", "POST", EXPECT, CHUNKED))
    assert client.response(interim=True).status == 100   # the gateway does not wait for ever
    client.send(b"1\r\na\r\n0\r\n\r\n")
    assert client.response(interim=True).body == b"a"


def test_a_final_answer_instead_of_continue(wire):
    def script(peer):
        wire["main"].requests.append(peer.head())
        peer.send(answer(b"no", "403 Forbidden"))
        peer.ended()

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "POST", EXPECT, "Content-Length: 5"))
    got = client.response(interim=True)
    assert got.status == 403 and got.get("Connection") == "close" and client.ended()
    assert b"100 Continue" not in client.received


def test_a_client_that_does_not_wait_for_continue(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    client = wire.raw()
    client.send(request("/", "POST", EXPECT, body=b"at once"))
    assert client.response().body == b"at once"
    assert client.ask(request()).status == 200


def test_the_gateways_own_refusal_instead_of_continue(wire):
    client = wire.raw()
    client.send(request("/tiny", "POST", EXPECT, "Content-Length: 11"))
    assert client.response(interim=True).status == 413 and client.ended()
    assert not wire["main"].requests


def test_expect_from_http_1_0_is_not_met(wire):
    client = wire.raw()
    client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na")
    assert client.response(interim=True).status == 200
    assert wire["main"].only().get("Expect") is None


# ---- interim and early answers, both directions at once ----

def test_interim_responses_are_relayed(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-No\r\nX-No: 1\r\n\r\n"
                         b"HTTP/1.1 102 Processing\r\n\r\n" + answer(b"done"))
    client = wire.raw()
    client.send(request())
    hints = client.response(interim=True)
    assert hints.status == 103 and hints.get("Link") == "</a.css>" and hints.get("X-No") is None
    assert client.response(interim=True).status == 102
    assert client.response(interim=True).body == b"done"


def test_an_answer_before_the_body_has_ended_and_the_rest_is_taken(wire):
    def script(peer):
        head = peer.head()
        peer.send(answer(b"early"))
        peer.body(head)
        peer.got_all = True
        wire["main"].serve(peer)

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "POST", "Content-Length: 6") + b"abc")
    assert client.response().body == b"early"
    # The exchange is over: the upstream's connection is cut rather than fed, the client's kept only if it is in step.
    client.send(b"def" + request("/next"))
    got = client.response()
    assert got is None or got.status == 200
    assert not any(b"def" + b"GET" in bytes(peer.received) for peer in wire["main"].peers)


def test_an_early_refusal_of_a_large_body_is_seen(wire):
    def script(peer):
        peer.head()
        peer.exactly(1000)
        peer.send(answer(b"too much", "413 Content Too Large", "Connection: close"))
        peer.shut()
        peer.ended()

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "POST", f"Content-Length: {64 * MIB}"))
    try:
        for piece in pieces(4 * MIB):
            client.send(piece)
    except ConnectionError:
        pass
    got = client.response()
    assert got.status == 413 and got.body == b"too much"
    assert client.ended()


def test_both_bodies_at_once(wire):
    def script(peer):
        head = peer.head()
        assert head.get("Transfer-Encoding") == "chunked"
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(peer.line(), 16):
            data = peer.exactly(size + 2)
            peer.send(b"%x\r\n%s" % (size, data))
        peer.line()
        peer.send(b"0\r\n\r\n")

    wire["main"].program(script)
    client = wire.raw()
    client.send(request("/", "POST", CHUNKED))
    client.send(b"5\r\nfirst\r\n")
    got = client.head()
    assert got.status == 200
    for word in (b"first", b"again", b"third"):
        assert client.line() == b"5" and client.exactly(7) == word + b"\r\n"
        if word != b"third":
            client.send(b"5\r\n" + {b"first": b"again", b"again": b"third"}[word] + b"\r\n")
    client.send(b"0\r\n\r\n")
    assert client.line() == b"0" and client.line() == b""


# ---- sizes ----

def upload(client, total, chunked):
    digest = hashlib.sha256()
    client.send(request("/", "POST", CHUNKED if chunked else f"Content-Length: {total}"))
    for piece in pieces(total):
        digest.update(piece)
        client.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        client.send(b"0\r\n\r\n")
    return digest.hexdigest()


def take(peer, digest, total):
    """Reads `total` bytes without keeping them."""
    peer.received = bytearray()
    while total:
        if not peer.buffer and not peer.more():
            raise Incomplete(total)
        data, peer.buffer = peer.buffer[:total], peer.buffer[total:]
        digest.update(data)
        total -= len(data)
        peer.received = bytearray()


def take_body(peer, message):
    digest = hashlib.sha256()
    if message.get("Transfer-Encoding"):
        while size := int(peer.line(), 16):
            take(peer, digest, size)
            assert peer.exactly(2) == b"\r\n"
        assert peer.line() == b""
    else:
        take(peer, digest, int(message.get("Content-Length")))
    return digest.hexdigest()


def download_script(total, chunked, digests):
    def script(peer):
        while peer.head() is not None:
            digest = hashlib.sha256()
            peer.send(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" %
                      (b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % total))
            for piece in pieces(total):
                digest.update(piece)
                peer.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            digests.append(digest.hexdigest())
            if chunked:
                peer.send(b"0\r\n\r\n")
    return script


def up(wire, total, chunked):
    digests = []

    def script(peer):
        digests.append(take_body(peer, peer.head()))
        peer.send(answer(b"stored"))

    wire["main"].program(script)
    client = wire.raw()
    sent = upload(client, total, chunked)
    assert client.response().body == b"stored"
    assert digests == [sent]


def down(wire, total, chunked):
    digests = []
    wire["main"].program(download_script(total, chunked, digests))
    client = wire.raw()
    client.send(request())
    got = take_body(client, client.head())
    until(lambda: digests, "the upstream's digest")
    assert [got] == digests


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("way", [up, down])
def test_64_mib(wire, way, chunked):
    before = wire.resident_kib()
    way(wire, 64 * MIB, chunked)
    assert wire.resident_kib() - before < 16 * 1024   # sanitizers' quarantine included


def sanitized():
    return any(name in BINARY.read_bytes() for name in (b"__asan_init", b"__tsan_init"))


@pytest.mark.skipif(sanitized(), reason="sanitizers have memory and time of their own")
@pytest.mark.parametrize("way", [up, down])
def test_1_gib_in_64_mib_of_memory(wire, way):
    way(wire, 1024 * MIB, chunked=False)
    assert wire.resident_kib() < 64 * 1024


# ---- back-pressure ----

def kernel_buffers():
    """What two sockets on each side of a connection may hold, generously."""
    with open("/proc/sys/net/ipv4/tcp_wmem") as w, open("/proc/sys/net/ipv4/tcp_rmem") as r:
        return 2 * (int(w.read().split()[2]) + int(r.read().split()[2]))


def standing_still(value):
    """Until value() has grown, and then has not changed for a while."""
    last = []

    def settled():
        last.append(value())
        return last[-1] and len(last) > 40 and last[-40] == last[-1]
    until(settled, lambda: f"standstill at {last[-1]}")
    return last[-1]


def pour(wire):
    """The upstream answers /other as usual, and all else with twice what kernels hold. How much of that it has sent is the list's only
    member."""
    sent = [0]

    def script(peer):
        if wire["main"].read(peer).target == "/other":
            peer.send(answer())
            return
        total = 2 * kernel_buffers()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for piece in pieces(total):
            peer.send(piece)
            sent[0] += len(piece)

    wire["main"].program(script)
    return sent


def test_a_client_that_does_not_read_holds_the_upstream_back(wire):
    sent = pour(wire)
    before = wire.resident_kib()
    client = wire.raw(receive_buffer=16 * 1024)
    client.send(request("/large"))
    stopped = standing_still(lambda: sent[0])
    assert 0 < stopped < 1.5 * kernel_buffers()
    assert wire.resident_kib() - before < 8 * 1024
    assert wire.raw().ask(request("/other")).status == 200
    head = client.head()
    take(client, hashlib.sha256(), int(head.get("Content-Length")))


def test_an_upstream_that_does_not_read_holds_the_client_back(wire):
    go, digests = threading.Event(), []

    def script(peer):
        head = peer.head()
        if head.target == "/other":
            peer.send(answer())
            return
        go.wait(30)
        digests.append(take_body(peer, head))
        peer.send(answer(b"stored"))

    wire["main"].program(script)
    client, sent = wire.raw(), [0]
    total, digest = 2 * kernel_buffers(), hashlib.sha256()

    def push():
        client.send(request("/large", "POST", f"Content-Length: {total}"))
        for piece in pieces(total):
            digest.update(piece)
            client.send(piece)
            sent[0] += len(piece)

    pusher = threading.Thread(target=push, daemon=True)
    before = wire.resident_kib()
    pusher.start()
    stopped = standing_still(lambda: sent[0])
    assert 0 < stopped < 1.5 * kernel_buffers()
    assert wire.resident_kib() - before < 8 * 1024
    assert wire.raw().ask(request("/other")).status == 200
    go.set()
    assert client.response().body == b"stored"
    pusher.join()
    assert digests == [digest.hexdigest()]


def test_many_slow_readers_cost_a_buffer_each(wire):
    """What waits for 100 clients that read nothing is bounded, and another is served."""
    wire["main"].program(reply=lambda r: answer(b"x" * (2 if r.target == "/other" else 4 * MIB)))
    before = wire.resident_kib()
    clients = [wire.raw(receive_buffer=4096) for _ in range(100)]
    for client in clients:
        client.send(request("/large"))
    wire["main"].wait_requests(100)
    assert wire.raw().ask(request("/other")).status == 200
    assert wire.resident_kib() - before < 100 * 256
    for client in clients:
        client.reset()


def test_a_slow_and_a_quick_client_of_one_upstream(wire):
    wire["main"].program(reply=lambda r: answer(b"y" * (100 if r.target == "/quick" else 8 * MIB)))
    slow, quick = wire.raw(receive_buffer=4096), wire.raw()
    slow.send(request("/slow"))
    for _ in range(50):
        assert quick.ask(request("/quick")).body == b"y" * 100
    assert slow.response().body == b"y" * (8 * MIB)


def test_a_slow_reader_of_a_body_until_the_end(wire):
    """The upstream has long sent everything and gone."""
    body = b"".join(pieces(8 * MIB))
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)))
    client = wire.raw(receive_buffer=64 * 1024)
    client.send(request())
    until(lambda: wire["main"].peers and (wire["main"].peers[0].over or wire["main"].requests), "the request")
    assert client.response().body == body


@pytest.mark.parametrize("path", ["/said", "/moved", "/broken"])
def test_an_answer_of_the_gateways_own_to_a_large_body(wire, path):
    """Said at once, readable in spite of what was still on its way, then closed."""
    client = wire.raw()
    client.send(request(path, "POST", f"Content-Length: {900_000}"))
    client.send(b"x" * 900_000)
    got = client.response()
    assert got.status in (203, 307, 418) and got.get("Connection") == "close" and client.ended()


# ---- limits ----

@pytest.mark.parametrize("size", [10, 11])
def test_the_routes_limit_by_length(wire, size):
    client = wire.raw()
    got = client.ask(request("/tiny", "POST", body=b"z" * size))
    assert got.status == (200 if size == 10 else 413)
    if size == 11:
        assert got.json["code"] == "body_too_large" and not wire["main"].requests


def test_the_routes_limit_while_chunks_are_counted(wire):
    client = wire.raw()
    assert client.ask(request("/tiny", "POST", CHUNKED) + b"5\r\nabcde\r\n5\r\nabcde\r\n0\r\n\r\n").status == 200
    got = client.ask(request("/tiny", "POST", CHUNKED) + b"6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n")
    assert got.status == 413 and got.json["code"] == "body_too_large" and client.ended()
    until(lambda: all(peer.eof for peer in wire["main"].peers), "the upstream's connection cut")
    assert not wire["main"].peers[-1].received.endswith(b"0\r\n\r\n")


def test_the_listeners_limit(wire):
    got = wire.raw("small").ask(request("/", "POST", f"Content-Length: {64 * 1024 + 1}"))
    assert got.status == 413 and got.json["code"] == "body_too_large" and not wire["main"].requests


def test_a_refused_body_that_is_short_is_drained(wire):
    client = wire.raw()
    assert client.ask(request("/tiny", "POST", body=b"z" * 100)).status == 413
    assert client.ask(request()).status == 200   # the connection lives on, in step


def test_the_peers_are_strict():
    """The tests' own reader does not take half a message for a whole one."""
    for whole in (answer(b"abcde"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"):
        for cut in range(1, len(whole)):
            a, b = socket.socketpair()
            Peer(a).send(whole[:cut]).close()
            with Peer(b) as peer, pytest.raises(Incomplete):
                peer.body(peer.head())
