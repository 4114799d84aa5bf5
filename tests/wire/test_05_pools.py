"""Connections kept for the next request, requests sent again or not, and the limits of an upstream."""
import threading
import time

import pytest

from gateway import until
from peers import answer, request


def retries(wire, upstream, reason):
    return wire.metrics().get(f'sallyport_upstream_retries_total{{upstream="{upstream}",reason="{reason}"}}', 0)


# ---- kept connections ----

@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_connection_closed_between_requests_is_no_failure(wire, method):
    """The upstream closes after each response without a word: nobody notices, and no request comes twice."""
    def script(peer):
        wire["main"].read(peer)
        peer.send(answer())

    wire["main"].program(script)
    client = wire.raw()
    for i in range(20):
        body = None if method == "GET" else b"body"
        assert client.ask(request(f"/{i}", method, body=body)).status == 200
        until(lambda: wire.pooled("main") == 0, "the closed connection dropped")
    assert [seen.target for seen in wire["main"].requests] == [f"/{i}" for i in range(20)]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_dies_with_the_request_is_replaced(wire, end):
    """The close crosses the request: the one safe retry, even without attempts (GET)."""
    def script(peer):
        wire["steady"].read(peer)
        peer.send(answer())
        if peer.number == 1:
            wire["steady"].read(peer)
            getattr(peer, end)()
        else:
            wire["steady"].serve(peer)

    wire["steady"].program(script)
    before = retries(wire, "steady", "reset")
    client = wire.raw()
    assert client.ask(request("/steady/1")).status == 200
    assert client.ask(request("/steady/2")).status == 200
    assert [seen.target for seen in wire["steady"].requests] == ["/steady/1", "/steady/2", "/steady/2"]
    assert retries(wire, "steady", "reset") == before + 1 and wire["steady"].accepted == 2


@pytest.mark.parametrize("body", [b"pay", b"", None])
def test_a_post_is_never_sent_twice(wire, body):
    def script(peer):
        wire["main"].read(peer)
        peer.send(answer())
        if peer.number == 1:
            wire["main"].read(peer)

    wire["main"].program(script)
    client = wire.raw()
    assert client.ask(request("/1", "POST", body=b"")).status == 200
    got = client.ask(request("/2", "POST", body=body))
    assert got.status == 502 and got.json["code"] == "upstream_reset"
    assert [seen.target for seen in wire["main"].requests] == ["/1", "/2"]


def test_an_idle_connection_is_kept_so_long_and_no_longer(wire):
    client = wire.raw()
    began = time.monotonic()
    assert client.ask(request("/fast")).status == 200
    assert wire.pooled("fast") == 1 or time.monotonic() - began > 0.95   # it was looked at too late
    until(lambda: wire["fast"].peers[0].eof, "the idle connection closed")
    assert time.monotonic() - began > 0.95
    assert wire.pooled("fast") == 0


def test_an_answer_that_closes_is_not_kept(wire):
    wire["main"].program(reply=lambda _: answer(b"ok", "200 OK", "Connection: close"))
    client = wire.raw()
    for i in range(1, 4):
        assert client.ask(request()).status == 200 and wire.pooled("main") == 0
        until(lambda: wire["main"].accepted == i and wire["main"].peers[-1].eof, "the connection closed")


def test_connections_are_shared_by_clients(wire):
    for _ in range(10):
        assert wire.raw().ask(request()).status == 200
    assert wire["main"].accepted == 1 and wire.pooled("main") == 1


def test_as_many_connections_as_requests_at_once(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    wire["main"].program(reply=reply)
    clients = [wire.raw() for _ in range(8)]
    for client in clients:
        client.send(request())
    wire["main"].wait_requests(8)
    release.set()
    assert all(client.response().status == 200 for client in clients)
    until(lambda: wire.pooled("main") == 8, "all in the pool")
    for client in clients:
        assert client.ask(request()).status == 200
    assert wire["main"].accepted == 8


# ---- sent again ----

def test_a_failed_connect_goes_to_another_endpoint(wire):
    """POST too: nothing of it had left."""
    wire["pair_a"].close()
    try:
        for method in ("GET", "POST"):
            for _ in range(4):
                assert wire.raw().ask(request("/pair", method)).status == 200
    finally:
        wire["pair_a"].reopen()
    assert len(wire["pair_b"].requests) == 8
    assert retries(wire, "pair", "connect_failure") >= 1


def test_a_reset_goes_to_another_endpoint(wire):
    wire["pair_a"].program(lambda peer: (wire["pair_a"].read(peer), peer.reset()))
    for _ in range(4):
        assert wire.raw().ask(request("/pair", "PUT", body=b"same")).status == 200
    assert wire["pair_a"].requests and len(wire["pair_b"].requests) == 4
    assert all(seen.body == b"same" for seen in wire["pair_a"].requests + wire["pair_b"].requests)


@pytest.mark.parametrize("body", [b"pay", b"", None])
def test_a_post_that_was_sent_is_not_repeated(wire, body):
    for name in ("pair_a", "pair_b"):
        wire[name].program(lambda peer, up=wire[name]: (up.read(peer), peer.close()))
    got = wire.raw().ask(request("/pair", "POST", body=body))
    assert got.status == 502 and got.json["code"] == "upstream_reset"
    assert len(wire["pair_a"].requests) + len(wire["pair_b"].requests) == 1


@pytest.mark.parametrize("body", [b"body", b""])
@pytest.mark.parametrize("method, times", [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)])
def test_a_status_worth_another_try(wire, method, times, body):
    wire["again"].program(reply=lambda _: answer(b"busy", "503 Busy"))
    got = wire.raw().ask(request("/again", method, body=body))
    assert got.status == 503 and got.body == b"busy"   # the last answer is the client's
    assert [seen.body for seen in wire["again"].requests] == [body] * times


def test_a_second_try_succeeds(wire):
    before = retries(wire, "again", "status")
    wire["again"].program(reply=lambda _: answer(b"", "503 Busy") if len(wire["again"].requests) < 3 else answer(b"third"))
    got = wire.raw().ask(request("/again"))
    assert got.status == 200 and got.body == b"third"
    assert len({seen.get("X-Request-Id") for seen in wire["again"].requests}) == 1
    assert retries(wire, "again", "status") == before + 2


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size, times", [(4096, 2), (4097, 1)])
def test_a_body_is_sent_again_when_it_is_short(wire, size, times, chunked):
    body = bytes(i % 251 for i in range(size))
    wire["again"].program(reply=lambda _: answer(b"", "503 Busy") if len(wire["again"].requests) < 2 else answer())
    client = wire.raw()
    if chunked:
        got = client.ask(request("/again", "PUT", "Transfer-Encoding: chunked") +
                         b"%x\r\n%s\r\n0\r\n\r\n" % (size, body))
    else:
        got = client.ask(request("/again", "PUT", body=body))
    assert got.status == (200 if times == 2 else 503)
    assert [seen.body for seen in wire["again"].requests] == [body] * times
    assert client.ask(request("/again")).status == 200


def test_a_try_that_ends_in_the_middle_of_the_body(wire):
    """The rest of the body comes while the second try is under way: it gets all of it, once, in order."""
    def script(peer):
        if peer.number == 1:
            peer.head()
            peer.exactly(5)
            peer.reset()
        else:
            wire["again"].serve(peer)

    wire["again"].program(script)
    client = wire.raw()
    client.send(request("/again", "PUT", "Content-Length: 10") + b"01234")
    until(lambda: wire["again"].accepted == 2, "the second try")
    client.send(b"56789")
    assert client.response().status == 200
    assert wire["again"].requests[-1].body == b"0123456789"


def test_a_status_in_the_middle_of_the_body(wire):
    """Refused before the body has ended: the second upstream gets what came so far, and then the rest."""
    def script(peer):
        if peer.number == 1:
            peer.head()
            peer.exactly(5)
            peer.send(answer(b"", "503 Busy"))
            peer.ended()
        else:
            wire["again"].serve(peer)

    wire["again"].program(script)
    client = wire.raw()
    client.send(request("/again", "PUT", "Transfer-Encoding: chunked") + b"5\r\n01234\r\n")
    until(lambda: wire["again"].accepted == 2, "the second try")
    client.send(b"5\r\n56789\r\n0\r\nX-T: end\r\n\r\n")
    assert client.response().status == 200
    seen = wire["again"].requests[-1]
    assert seen.body == b"0123456789" and seen.trailers == [("X-T", "end")]
    assert client.ask(request("/again")).status == 200


def test_a_retry_of_a_request_that_expects_continue(wire):
    def script(peer):
        head = peer.head()
        if peer.number == 1:
            peer.reset()
            return
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(answer(peer.body(head).body))

    wire["again"].program(script)
    client = wire.raw()
    client.send(request("/again", "PUT", "Expect: 100-continue", "Content-Length: 4"))
    assert client.response(interim=True).status == 100
    client.send(b"body")
    got = client.response(interim=True)
    assert got.status == 200 and got.body == b"body" and wire["again"].accepted == 2


def test_no_attempts_no_retry(wire):
    wire["again"].program(reply=lambda _: answer(b"", "503 Busy"))
    assert wire.raw().ask(request("/no_retries")).status == 503
    assert len(wire["again"].requests) == 1
    wire["again"].program(lambda peer: (wire["again"].read(peer), peer.reset()))
    got = wire.raw().ask(request("/no_retries"))
    assert got.status == 502 and len(wire["again"].requests) == 1


def test_a_retry_counts_in_the_time_of_the_route(wire):
    wire["pair_a"].close()
    wire["pair_b"].close()
    try:
        got = wire.raw().ask(request("/pair"))
    finally:
        wire["pair_a"].reopen()
        wire["pair_b"].reopen()
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"


def test_the_retry_budget(wire):
    """Of many failing requests at once only a few are sent again (budget 0.2; three always may)."""
    held = threading.Event()

    def script(peer):
        if wire["budget"].read(peer):
            held.wait(30)
            peer.reset()

    wire["budget"].program(script)
    clients = [wire.raw() for _ in range(30)]
    for client in clients:
        client.send(request("/budget"))
    wire["budget"].wait_requests(30)
    held.set()
    assert all(client.response().status == 502 for client in clients)
    again = len(wire["budget"].requests) - 30
    assert 1 <= again <= 20, again   # without a budget: 30
    assert retries(wire, "budget", "reset") >= again


# ---- limits ----

def test_the_limit_of_connections_makes_requests_wait_their_turn(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    wire["narrow"].program(reply=reply)
    first, second, third = wire.raw(), wire.raw(), wire.raw()
    first.send(request("/narrow/1"))
    wire["narrow"].wait_requests(1)
    second.send(request("/narrow/2"))   # waits
    until(lambda: wire.info()["workers"][0]["exchanges"] == 2, "the second request")
    got = third.ask(request("/narrow/3"))   # one too many
    assert got.status == 503 and got.json["code"] == "overloaded" and int(got.get("Retry-After")) >= 1
    release.set()
    assert first.response().status == 200 and second.response().status == 200
    assert third.ask(request("/narrow/4")).status == 200
    assert [seen.target for seen in wire["narrow"].requests] == ["/narrow/1", "/narrow/2", "/narrow/4"]
    assert wire["narrow"].accepted == 1


def test_who_waits_may_leave(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    wire["narrow"].program(reply=reply)
    first, second = wire.raw(), wire.raw()
    first.send(request("/narrow/1"))
    wire["narrow"].wait_requests(1)
    second.send(request("/narrow/2"))
    until(lambda: wire.info()["workers"][0]["exchanges"] == 2, "the second request")
    second.reset()
    until(lambda: wire.info()["workers"][0]["exchanges"] == 1, "its end")
    release.set()
    assert first.response().status == 200 and wire.raw().ask(request("/narrow/3")).status == 200
    assert [seen.target for seen in wire["narrow"].requests] == ["/narrow/1", "/narrow/3"]


def test_waiting_for_a_connection_has_an_end(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    wire["queue"].program(reply=reply)
    first, second = wire.raw(), wire.raw()
    first.send(request("/queue"))
    wire["queue"].wait_requests(1)
    got = second.ask(request("/queue"))
    assert got.status == 503 and got.json["code"] == "overloaded" and got.get("Retry-After")
    release.set()
    assert first.response().status == 200


def test_the_limit_of_requests(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    wire["twofold"].program(reply=reply)
    clients = [wire.raw(), wire.raw(), wire.raw()]
    for i, client in enumerate(clients[:2]):
        client.send(request("/twofold"))
        wire["twofold"].wait_requests(i + 1)
    got = clients[2].ask(request("/twofold"))
    assert got.status == 503 and got.json["code"] == "overloaded" and got.get("Retry-After")
    release.set()
    assert all(client.response().status == 200 for client in clients[:2])
    assert clients[2].ask(request("/twofold")).status == 200
