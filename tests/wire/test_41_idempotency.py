"""Idempotency-Key: a request that is sent again gets the first answer; while that is under way, with another body or
without a key it gets none. Over HTTP/1.1 and HTTP/2.
"""
import json
import re
import threading
import time

import pytest

from gateway import NO_BREAKER, Gateway, until
from gateway import ask as ask_port
from h2_crowds import resident_kib
from h2_peers import H2Client
from h2_wire import ask
from peers import Incomplete, Raw, Upstream, request
from service import PROTOCOLS, Service, ServiceWire

OTHER_ADDRESS = "127.0.1.1"
_keys = iter(range(1, 1 << 30))


@pytest.fixture
def key():
    """A header field that no test has used before."""
    return f'Idempotency-Key: "key-{next(_keys)}"'


class Idempotency(ServiceWire):
    LISTENERS = {"plain": {}}

    def config(self):
        return {**super().config(), "workers": 2, "upstreams": {"service": {
            "protocol": self.protocol, "targets": [{"address": f"127.0.0.1:{self.service.upstream.port}"}],
            "timeouts": {"response": "30s"}, "retries": {"attempts": 0}, **NO_BREAKER}}}

    def routes(self):
        def route(name, **more):
            return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": "service", **more}
        return [route("pay", idempotency={"body_bytes": "4KiB", "response_bytes": "2KiB"}),
                route("again", idempotency={}, retries={"attempts": 1, "statuses": [503], "retry_on": ["connect_failure"]}),
                route("must", idempotency={"required": True}, headers={"request": {"remove": ["Idempotency-Key"]},
                                                                     "response": {"set": {"X-Edited": "yes"}}}),
                route("short", idempotency={"ttl": "1s"}),
                route("endless", idempotency={"ttl": "1s"}, timeout="0s"),
                route("free")]


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole_idempotency(request, tmp_path_factory):
    with Idempotency(tmp_path_factory.mktemp("idempotency"), request.param) as wire:
        yield wire


@pytest.fixture
def wire(whole_idempotency):
    whole_idempotency.begin()
    whole_idempotency.service.respond(lambda number: 201)
    yield whole_idempotency
    whole_idempotency.end()


@pytest.fixture
def release(wire):
    """The service waits for it before it answers."""
    event = threading.Event()
    wire.service.respond(lambda number: event.wait(30) and 201)
    yield event
    event.set()


def refused(got, status, code):
    assert got.status == status and got.get("Content-Type") == "application/problem+json"
    assert got.json["code"] == code and got.get("Idempotent-Replayed") is None


def texts(fields):
    """Of HTTP/1.1 or HTTP/2."""
    return [tuple(part if isinstance(part, str) else part.decode() for part in field) for field in fields]


def answer_of(again):
    """What is said to a request once the first one with its key is over."""
    def over():
        got = again()
        return None if b"idempotency_in_progress" in got.body else got
    return until(over, "the end of the first request")


# ---- the first answer again ----

@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("body", [b"amount=1", b"", b"x" * 4096])
def test_the_first_answer_is_replayed(wire, key, method, body):
    first = wire.raw().ask(request("/pay", method, key, body=body))
    assert first.status == 201 and first.body == b"done" and first.get("Idempotent-Replayed") is None
    for _ in range(3):   # whichever worker it comes to
        again = wire.raw().ask(request("/pay", method, key, body=body))
        assert again.status == 201 and again.body == b"done" and again.get("Idempotent-Replayed") == "true"
        assert again.get("X-Request-Id") != first.get("X-Request-Id")
    assert [seen.body for seen in wire.service.requests] == [body]


def test_a_chunked_body_is_the_same_request(wire, key):
    client = wire.raw()
    got = client.ask(request("/pay", "POST", key, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert got.status == 201
    got = client.ask(request("/pay", "POST", key, body=b"abcde"))
    assert got.status == 201 and got.get("Idempotent-Replayed") == "true"
    assert [seen.body for seen in wire.service.requests] == [b"abcde"]


def test_a_body_that_waits_for_100(wire, key):
    client = wire.raw()
    client.send(request("/pay", "POST", key, "Content-Length: 4", "Expect: 100-continue"))
    assert client.response(interim=True).status == 100
    client.send(b"body")
    assert client.response(interim=True).status == 201
    assert wire.service.requests[0].body == b"body"


@pytest.mark.parametrize("status", [200, 204, 400, 404, 500, 502])
def test_what_the_service_says_is_the_answer(wire, key, status):
    wire.service.respond(lambda number: status if number == 1 else 201)
    for _ in range(2):
        assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == status
    assert len(wire.service.requests) == 1


@pytest.mark.parametrize("status", [401, 408, 425, 429, 503])
def test_what_was_not_carried_out_may_be_tried_again(wire, key, status):
    wire.service.respond(lambda number: status if number == 1 else 201)
    assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == status
    got = wire.raw().ask(request("/pay", "POST", key, body=b"1"))
    assert got.status == 201 and got.get("Idempotent-Replayed") is None


@pytest.mark.parametrize("body", [b"done", b""], ids=["body", "no_body"])
def test_trailers_both_ways(wire, key, body):
    """The service gets the request's, and who asks again gets those of the first answer, by either version."""
    wire.service.respond(lambda number: 201, body, trailers=["X-Checksum: c0ffee", "X-Two: b"])
    expected = [("x-checksum", "c0ffee"), ("x-two", "b")]
    for replayed in (None, "true", "true"):
        got = ask(wire, "1.1", "/pay", "POST", key, body=b"1", trailers=["X-Sum: 7"])
        assert got.status == 201 and got.body == body and got.get("Idempotent-Replayed") == replayed
        assert [(name.lower(), value) for name, value in got.trailers] == expected
    client = H2Client(wire.ports["plain"])
    got = client.ask("/pay", "POST", key, body=b"1")   # trailers do not make it another request
    client.close()
    assert bytes(got.body) == body and got.get("idempotent-replayed") == "true"
    assert [(str(name), str(value)) for name, value in texts(got.trailers)] == expected
    got = ask(wire, "1.0", "/pay", "POST", key, body=b"1")   # which has none
    assert got.status == 201 and got.body == body and got.get("Transfer-Encoding") is None
    seen, = wire.service.requests
    assert [(name.lower(), value) for name, value in texts(seen.trailers)] == [("x-sum", "7")]


def test_trailers_of_a_request_are_sent_at_each_try(wire, key):
    wire.service.respond(lambda number: 503 if number == 1 else 201)
    assert ask(wire, "1.1", "/again", "POST", key, body=b"1", trailers=["X-Sum: 7"]).status == 201
    assert [[(name.lower(), value) for name, value in texts(seen.trailers)] for seen in wire.service.requests] == 2 * [[("x-sum", "7")]]


def test_an_answer_too_long_by_its_trailers(wire, key):
    wire.service.respond(lambda number: 201, b"y" * 1500, trailers=["X-Long: " + "t" * 600])
    assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == 201
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 409, "idempotency_not_replayable")


def test_an_answer_that_breaks_off_has_been_carried_out(wire, key):
    """Its status is known, its body is not: neither to be sent again nor to be done again."""
    wire.service.begin()
    client = wire.raw()
    client.send(request("/pay", "POST", key, body=b"1"))
    with pytest.raises((Incomplete, ConnectionResetError)):
        client.response()
    wire.service.respond(lambda number: 201)
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 409, "idempotency_not_replayable")
    assert not wire.service.requests


def test_a_failure_of_the_gateways_own_gives_the_key_back(wire, key):
    wire.service.respond(lambda number: None if number == 1 else 201)
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 502, "upstream_reset")
    assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == 201
    got = wire.raw().ask(request("/pay", "POST", key, body=b"1"))
    assert got.status == 201 and got.get("Idempotent-Replayed") == "true" and len(wire.service.requests) == 2


def test_the_routes_edits_are_in_the_replay(wire, key):
    """And a key that is not passed on counts all the same."""
    for replayed in (None, "true"):
        got = wire.raw().ask(request("/must", "POST", key, body=b"1"))
        assert got.status == 201 and got.get("X-Edited") == "yes" and got.get("Idempotent-Replayed") == replayed
    seen, = wire.service.requests
    assert seen.get("Idempotency-Key") is None


def test_an_answer_is_kept_for_its_time(wire, key):
    assert wire.raw().ask(request("/short", "POST", key, body=b"1")).status == 201
    until(lambda: wire.raw().ask(request("/short", "POST", key, body=b"1")).get("Idempotent-Replayed") is None,
          "the answer forgotten")
    assert len(wire.service.requests) == 2


# ---- who asks for what ----

def test_another_request_with_the_key(wire, key):
    assert wire.raw().ask(request("/pay", "POST", key, body=b"amount=1")).status == 201
    for path, method, body in (("/pay", "POST", b"amount=2"), ("/pay", "PATCH", b"amount=1"), ("/pay?a", "POST", b"amount=1"),
                               ("/pay/more", "POST", b"amount=1")):
        refused(wire.raw().ask(request(path, method, key, body=body)), 422, "idempotency_mismatch")
    assert len(wire.service.requests) == 1


def test_the_key_of_another_caller_or_route(wire, key):
    for path, source in (("/pay", None), ("/pay", OTHER_ADDRESS), ("/again", None)):
        got = wire.raw(source=source).ask(request(path, "POST", key, body=b"1"))
        assert got.status == 201 and got.get("Idempotent-Replayed") is None
    assert len(wire.service.requests) == 3


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_have_no_use_for_it(wire, key, method):
    for _ in range(2):
        assert wire.raw().ask(request("/must", method, key)).status == 201
    assert len(wire.service.requests) == 2


@pytest.mark.parametrize("path, fields", [
    ("/must", []), ("/pay", ["Idempotency-Key: "]), ("/pay", ["Idempotency-Key: " + "k" * 256]),
    ("/pay", ["Idempotency-Key: a", "Idempotency-Key: a"]), ("/pay", ["Idempotency-Key: ", "Idempotency-Key: a"])])
def test_without_a_good_key(wire, path, fields):
    refused(wire.raw().ask(request(path, "POST", *fields, body=b"1")), 400, "idempotency_key_required")
    assert not wire.service.requests


def test_without_a_key_where_none_is_required(wire, key):
    for path, fields in (("/pay", []), ("/free", [key])):
        for _ in range(2):
            assert wire.raw().ask(request(path, "POST", *fields, body=b"1")).status == 201
    assert len(wire.service.requests) == 4


def test_callers_whom_only_the_service_knows(wire, key):
    """One address, one key, one body; but another Authorization."""
    assert wire.raw().ask(request("/pay", "POST", key, "Authorization: Basic YTpi", body=b"1")).status == 201
    refused(wire.raw().ask(request("/pay", "POST", key, "Authorization: Basic Yjpi", body=b"1")), 422, "idempotency_mismatch")
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 422, "idempotency_mismatch")
    got = wire.raw().ask(request("/pay", "POST", key, "Authorization: Basic YTpi", body=b"1"))
    assert got.status == 201 and got.get("Idempotent-Replayed") == "true" and len(wire.service.requests) == 1


# ---- at the same time ----

def test_it_is_under_way_for_longer_than_answers_are_kept(wire, release, key):
    first = wire.raw().send(request("/endless", "POST", key, body=b"1"))
    until(lambda: wire.service.requests, "the first one at the service")
    began, again = time.monotonic(), wire.raw()
    while time.monotonic() < began + 1.5:   # ttl is over meanwhile
        refused(again.ask(request("/endless", "POST", key, body=b"1")), 409, "idempotency_in_progress")
    release.set()
    assert first.response().status == 201
    assert len(wire.service.requests) == 1


def test_while_the_first_is_under_way(wire, release, key):
    first = wire.raw()
    first.send(request("/pay", "POST", key, body=b"1"))
    until(lambda: wire.service.requests, "the first request")
    for _ in range(4):
        got = wire.raw().ask(request("/pay", "POST", key, body=b"1"))
        refused(got, 409, "idempotency_in_progress")
        assert got.get("Retry-After") == "1"
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"2")), 422, "idempotency_mismatch")
    release.set()
    assert first.response().status == 201
    assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).get("Idempotent-Replayed") == "true"
    assert len(wire.service.requests) == 1


@pytest.mark.parametrize("begun", [False, True], ids=["no_answer_yet", "in_the_answer"])
def test_a_client_that_goes_finds_its_answer(wire, release, key, begun):
    """The request is carried out to its end, and its answer kept for when the client comes back."""
    if begun:
        wire.service.begin(release)
    gone = wire.raw()
    gone.send(request("/pay", "POST", key, body=b"1"))
    until(lambda: wire.service.requests, "the first request")
    if begun:
        assert gone.head().status == 201
    gone.reset()
    until(lambda: wire.raw().ask(request("/pay", "POST", key, body=b"2")).status == 422, "it is still under way")
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 409, "idempotency_in_progress")
    release.set()
    got = answer_of(lambda: wire.raw().ask(request("/pay", "POST", key, body=b"1")))
    assert got.status == 201 and got.body == b"done" and got.get("Idempotent-Replayed") == "true"
    assert len(wire.service.requests) == 1


def test_a_second_try_for_a_client_that_has_gone(wire, release, key):
    """The request is sent again when nobody is there any more whose bytes it was made of."""
    wire.service.respond(lambda number: release.wait(30) and (503 if number == 1 else 201))
    body = b"x" * 3000
    gone = wire.raw()
    gone.send(request("/again?with=a+query", "POST", key, "X-Own: mine", body=body))
    until(lambda: wire.service.requests, "the first request")
    gone.reset()
    until(lambda: wire.raw().ask(request("/again?with=a+query", "POST", key, body=b"2")).status == 422, "it is still under way")
    for _ in range(50):   # what was freed is used for something else
        wire.raw().ask(request("/nothing", "POST", "X-Own: " + "y" * 4000, body=b"z" * 100))
    release.set()
    got = answer_of(lambda: wire.raw().ask(request("/again?with=a+query", "POST", key, body=body)))
    assert got.status == 201 and got.get("Idempotent-Replayed") == "true"
    mine = [(seen.target, seen.get("X-Own"), seen.body) for seen in wire.service.requests if seen.target.startswith("/again")]
    assert mine == 2 * [("/again?with=a+query", "mine", body)]


def test_a_client_of_http_2(wire, release, key):
    """Its body is gathered, its stream may be cancelled, and the answer is there for HTTP/1.1, too."""
    client = H2Client(wire.ports["plain"])
    try:
        stream = client.send_request("/pay", "POST", key, body=b"x" * 4096)
        until(lambda: wire.service.requests, "the request")
        stream.cancel()
        until(lambda: client.ask("/pay", "POST", key, body=b"y").status == 422, "it is still under way")
        release.set()
        got = answer_of(lambda: client.ask("/pay", "POST", key, body=b"x" * 4096))
        assert got.status == 201 and bytes(got.body) == b"done" and got.get("idempotent-replayed") == "true"
        assert wire.raw().ask(request("/pay", "POST", key, body=b"x" * 4096)).get("Idempotent-Replayed") == "true"
        assert client.ask("/pay", "POST", key, body=b"x" * 4097).status == 413
        assert len(wire.service.requests) == 1
    finally:
        client.close()


def test_a_stream_without_end_ends_with_its_client(wire, key):
    """It is too long to be kept, so nobody will come back for it."""
    over = threading.Event()
    if wire.protocol == "h2":
        pytest.skip("the same code")

    def script(peer):
        wire.service.upstream.read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                peer.send(b"z" * 1000)
                time.sleep(0.005)
        except OSError:
            over.set()
    wire.service.upstream.program(script)
    before = wire.ends("client_gone")
    gone = wire.raw()
    gone.send(request("/pay", "POST", key, body=b"1"))
    gone.exactly(20)
    gone.reset()
    assert over.wait(30)
    got = answer_of(lambda: wire.raw().ask(request("/pay", "POST", key, body=b"1")))
    refused(got, 409, "idempotency_not_replayable")
    until(lambda: wire.ends("client_gone") == before + 1, "its end told as its client's")


def test_an_ordinary_request_ends_with_its_client(wire, release):
    before = wire.ends("client_gone")
    gone = wire.raw()
    gone.send(request("/pay", "POST", body=b"1"))
    until(lambda: wire.service.requests, "the request")
    gone.reset()
    until(lambda: wire.ends("client_gone") == before + 1, "its end")
    release.set()


def test_one_of_many_is_carried_out(wire, key):
    got = []

    def ask():
        with Raw(wire.ports["plain"]) as client:
            got.append(client.ask(request("/pay", "POST", key, body=b"1")))
    crowd = [threading.Thread(target=ask) for _ in range(20)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len(wire.service.requests) == 1
    assert {one.status for one in got} <= {201, 409}
    assert sum(one.status == 201 and one.get("Idempotent-Replayed") is None for one in got) == 1


def test_what_is_counted(wire, key, release):
    def counts():
        name = re.compile(r'sallyport_idempotency_total\{result="(.*)"\}')
        return {found[1]: value for series, value in wire.metrics().items() if (found := name.fullmatch(series))}

    def kept():
        return json.loads(ask_port(wire.gateway.admin_port, "/api/v1/idempotency").body)
    before, kept_before = counts(), kept()
    assert set(before) == {"new", "replayed", "in_progress", "mismatch", "lost", "no_key", "unavailable", "overloaded"}
    assert kept_before["running"] == 0 and kept_before["limits"] == {"entries": 65536, "bytes": 64 << 20}
    first = wire.raw()
    first.send(request("/pay", "POST", key, body=b"1"))
    until(lambda: wire.service.requests, "the first request")
    assert kept()["running"] == 1 and kept()["entries"] == kept_before["entries"] + 1
    assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == 409
    assert wire.raw().ask(request("/pay", "POST", key, body=b"2")).status == 422
    release.set()
    assert first.response().status == 201
    for _ in range(2):
        assert wire.raw().ask(request("/pay", "POST", key, body=b"1")).status == 201
    assert wire.raw().ask(request("/must", "POST", body=b"1")).status == 400
    assert wire.raw().ask(request("/pay", "POST", "Idempotency-Key:", body=b"1")).status == 400
    assert wire.raw().ask(request("/pay", "POST", body=b"1")).status == 201
    now = counts()
    assert {result: now[result] - before[result] for result in now if now[result] != before[result]} == {
        "new": 1, "in_progress": 1, "mismatch": 1, "replayed": 2, "no_key": 2}
    assert kept()["running"] == 0 and kept()["bytes"] > kept_before["bytes"]


def test_a_stop_does_not_wait_for_who_has_gone(tmp_path, key):
    """drain.timeout holds for requests that go on for nobody, too."""
    release = threading.Event()
    service = Service("http/1.1")
    service.respond(lambda number: release.wait(60) and 201)
    with Gateway(tmp_path, {"upstreams": {"service": {"targets": [{"address": f"127.0.0.1:{service.upstream.port}"}]}},
                            "routes": [{"name": "pay", "upstream": "service", "timeout": "0s", "idempotency": {}}],
                            "drain": {"delay": "0s", "timeout": "500ms"}}) as gateway:
        with Raw(gateway.port) as gone:
            gone.send(request("/", "POST", key, body=b"1"))
            until(lambda: service.requests, "the request")
            gone.reset()
        began = time.monotonic()
        gateway.stop()
        assert time.monotonic() - began < 12
        release.set()
    service.upstream.close()


# ---- bounds ----

@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_is_too_long(wire, key, chunked):
    body = b"x" * 4097
    text = (request("/pay", "POST", key, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            if chunked else request("/pay", "POST", key, body=body))
    refused(wire.raw().ask(text), 413, "body_too_large")
    assert not wire.service.requests
    assert wire.raw().ask(request("/pay", "POST", body=body)).status == 201   # no key, no bound


def test_an_answer_that_is_too_long_is_not_kept(wire, key):
    wire.service.respond(lambda number: 200, body=b"y" * 4096)
    got = wire.raw().ask(request("/pay", "POST", key, body=b"1"))
    assert got.status == 200 and got.body == b"y" * 4096
    refused(wire.raw().ask(request("/pay", "POST", key, body=b"1")), 409, "idempotency_not_replayable")
    assert len(wire.service.requests) == 1


ANSWER_BYTES, ANSWERS = 128 << 10, 8
HELD_KIB = 16 << 10   # it was 49 MiB


def test_an_answer_that_comes_byte_by_byte_is_held_as_it_is(tmp_path):
    """What is kept of it takes about as much memory as it has bytes, however the service cuts it."""
    rest, service = threading.Event(), Upstream()

    def say(peer):
        head = peer.head()
        if head is not None:
            peer.body(head)
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (ANSWER_BYTES - 2000))
            rest.wait(60)
            peer.send(b"0\r\n\r\n")

    def read(client, key):
        client.send(request("/", "POST", f"Idempotency-Key: {key}", body=b"1"))
        while not client.received.endswith(b"\r\n0\r\n\r\n"):
            assert client.more()
    service.program(say)
    config = {"upstreams": {"service": {"targets": [{"address": f"127.0.0.1:{service.port}"}], "timeouts": {"response": "60s"}}},
              "routes": [{"name": "pay", "upstream": "service", "timeout": "0s", "idempotency": {"response_bytes": ANSWER_BYTES}}]}
    with Gateway(tmp_path, config) as gateway:
        before = resident_kib(gateway)
        clients = [Raw(gateway.port) for _ in range(ANSWERS)]
        threads = [threading.Thread(target=read, args=(client, key)) for key, client in enumerate(clients)]
        for thread in threads:
            thread.start()
        until(lambda: all(len(client.received) >= 6 * (ANSWER_BYTES - 2000) for client in clients), "all but the ends")
        assert resident_kib(gateway) - before < HELD_KIB
        rest.set()
        for thread, client in zip(threads, clients, strict=True):
            thread.join()
            client.close()
        with Raw(gateway.port) as again:
            got = again.ask(request("/", "POST", "Idempotency-Key: 0", body=b"1"))
        assert got.get("Idempotent-Replayed") == "true" and got.body == b"x" * (ANSWER_BYTES - 2000)
    service.check()
    service.close()
