"""Second tries that cannot make anything worse: what is repeatable by its Idempotency-Key, a service that fails all the
time and sees a fifth more and no more, tries that the request's time would not let end. Over HTTP/1.1 and HTTP/2.
"""
import contextlib
import threading
import time

import pytest

from echo_program import Raw as RawConnection
from echo_program import get
from gateway import NO_BREAKER, Gateway, ask, until
from peers import Raw, request
from service import PROTOCOLS, ServiceWire

KEY = 'Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"'
TRUSTED, STRANGER = "127.0.0.9", "127.0.1.1"
TIMEOUT = "X-Request-Timeout-Ms"


class Retries(ServiceWire):
    LISTENERS = {"plain": {}, "trusted": {"trusted_proxies": [TRUSTED + "/32"], "underscores": "allow"}}

    def config(self):
        def upstream(*services, **retries):
            return {**NO_BREAKER, "protocol": self.protocol, "targets": [{"address": f"127.0.0.1:{one.port}"} for one in services],
                    "retries": {"backoff": "1ms", **retries}}
        whole = self.service.upstream
        return {**super().config(), "workers": 2, "upstreams": {
            "again": upstream(whole, attempts=2, budget=1.0, statuses=[503], body_bytes="4KiB"),
            "budget": upstream(whole, attempts=3, statuses=[503]),
            "patient": upstream(whole, attempts=1, budget=1.0, backoff="30s"),
        }}

    def routes(self):
        def route(name, **more):
            return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name, **more}
        return [route("again"), route("budget"), route("patient", timeout="5s"),
                {**route("endless", timeout="0s"), "upstream": "again"}]


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole_retries(request, tmp_path_factory):
    with Retries(tmp_path_factory.mktemp("retries"), request.param) as wire:
        yield wire


@pytest.fixture
def wire(whole_retries):
    whole_retries.begin()
    yield whole_retries
    whole_retries.end()


# ---- Idempotency-Key ----

@pytest.mark.parametrize("method, key, times", [
    ("POST", [KEY], 3), ("PATCH", [KEY], 3), ("POST", [], 1), ("PATCH", [], 1),
    ("POST", ["Idempotency-Key: "], 1), ("POST", [KEY, KEY], 1), ("POST", ["Idempotency-Key: ", KEY], 1),
    ("POST", ["Idempotency-Key: " + "k" * 256], 1), ("POST", ["Idempotency-Key: " + "k" * 255], 3), ("BREW", [KEY], 1)])
@pytest.mark.parametrize("failure", [503, None], ids=["status", "reset"])
def test_a_key_makes_a_post_repeatable(wire, method, key, times, failure):
    wire.service.respond(lambda number: 200 if number == 3 else failure)
    got = wire.raw().ask(request("/again", method, *key, body=b"pay"))
    assert [seen.body for seen in wire.service.requests] == [b"pay"] * times
    assert got.status == (200 if times == 3 else failure or 502)
    if key:
        assert all(seen.all("Idempotency-Key") == [one.partition(": ")[2] for one in key] for seen in wire.service.requests)


@pytest.mark.parametrize("size, times", [(4096, 2), (4097, 1)])
def test_a_body_with_a_key_is_kept_up_to_body_bytes(wire, size, times):
    wire.service.respond(lambda number: 503 if number == 1 else 200)
    got = wire.raw().ask(request("/again", "POST", KEY, body=b"x" * size))
    assert got.status == (200 if times == 2 else 503)
    assert [len(seen.body) for seen in wire.service.requests] == [size] * times


# ---- the budget ----

@pytest.mark.parametrize("failure", [503, None], ids=["status", "reset"])
def test_a_failing_service_sees_a_fifth_more(wire, failure):
    """Two workers, three further tries allowed for each request, and every one fails."""
    threads, each = 8, 50
    wire.service.respond(lambda number: failure)

    def ask_many():
        with Raw(wire.ports["plain"]) as client:
            for _ in range(each):
                assert client.ask(request("/budget")).status == (failure or 502)

    began = time.monotonic()
    crowd = [threading.Thread(target=ask_many) for _ in range(threads)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    seconds = time.monotonic() - began
    load = len(wire.service.requests) / (threads * each)
    borrowed, let_off = 10, seconds   # docs/RETRIES.md, "The budget"
    assert 1.1 <= load <= 1.2 + (borrowed + let_off) / (threads * each), load


# ---- the request's time ----

def test_no_back_off_past_the_time_of_the_request(wire):
    """The back-off would end after the route's timeout: the failure is told at once."""
    wire.service.respond(lambda number: None)
    began = time.monotonic()
    got = ask(wire.ports["plain"], "/patient")
    assert got.status == 502 and b"upstream_reset" in got.body
    assert time.monotonic() - began < 4 and len(wire.service.requests) == 1


def told(seen):
    value = seen.get(TIMEOUT)
    return value if value is None else int(value)


def test_services_are_told_what_is_left(wire):
    """Each attempt a little less, all of it within the route's timeout."""
    def status(number):
        time.sleep(0.02)
        return 503
    wire.service.respond(status)
    assert wire.raw().ask(request("/again")).status == 503
    first, second, third = (told(seen) for seen in wire.service.requests)
    assert 30000 >= first >= second + 20 >= third + 40 > 0


@pytest.mark.parametrize("listener, source, given, path, most", [
    ("plain", None, None, "/patient", 5000), ("plain", None, None, "/endless", None),
    ("plain", None, "10", "/patient", 5000), ("plain", None, "10", "/endless", None),
    ("trusted", STRANGER, "10", "/patient", 5000),
    ("trusted", TRUSTED, "4000", "/patient", 4000), ("trusted", TRUSTED, "4000", "/endless", 4000),
    ("trusted", TRUSTED, "60000", "/patient", 5000), ("trusted", TRUSTED, "soon", "/patient", 5000),
    ("trusted", TRUSTED, "-1", "/patient", 5000), ("trusted", TRUSTED, "99999999999999999999", "/patient", 5000)])
def test_whose_word_on_the_time_counts(wire, listener, source, given, path, most):
    wire.service.respond(lambda number: 200)
    fields = [f"{TIMEOUT}: {given}", f"{TIMEOUT.replace('-', '_')}: 1", f"Connection: {TIMEOUT}"] if given else []
    got = wire.raw(listener, source=source).ask(request(path, "GET", *fields))
    assert got.status == 200
    seen, = wire.service.requests
    assert told(seen) is None if most is None else most - 3000 < told(seen) <= most
    assert "x_request_timeout_ms" not in seen.names


@pytest.mark.parametrize("given, reached", [("300", 1), ("0", 0)])
def test_a_trusted_peer_ends_it_sooner(wire, given, reached):
    release = threading.Event()

    def status(number):
        release.wait(30)
        return 200
    wire.service.respond(status)
    began = time.monotonic()
    got = wire.raw("trusted", source=TRUSTED).ask(request("/endless", "GET", f"{TIMEOUT}: {given}"))
    release.set()
    assert got.status == 504 and got.json["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 10
    until(lambda: len(wire.service.requests) == reached, f"{reached} requests at the service")


def test_a_tunnel_is_told_no_time(wire):
    if wire.protocol == "h2":
        pytest.skip("there is no Upgrade")

    def script(peer):
        wire.service.upstream.read(peer)
        peer.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
    wire.service.upstream.program(script)
    client = wire.raw()
    client.send(request("/patient", "GET", "Connection: Upgrade", "Upgrade: test"))
    assert client.head().status == 101
    assert told(wire.service.requests[0]) is None


# ---- many at once ----

def test_more_streams_end_at_once_than_are_kept(tmp_path, make_echo):
    """Three hundred answers of an HTTP/2 service come together, and each ends its stream in the middle of its head."""
    upstream = {**NO_BREAKER, "targets": [{"address": f"127.0.0.1:{make_echo().port}"}], "protocol": "h2",
                "limits": {"requests": 2000}, "outlier": {"max_ejected": 0},
                "retries": {"attempts": 1, "budget": 1.0, "statuses": [503], "backoff": "200ms"}}
    config = {"workers": 1, "upstreams": {"all": upstream},
              "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "all"}]}
    with Gateway(tmp_path, config) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(RawConnection(gateway.port))) for _ in range(300)]
        for client in clients:
            client.send(get("/status/503?misbehave=slow_head=5000&times=300&key=all"))
        assert {client.until(b"\r\n") for client in clients} == {b"HTTP/1.1 503 Service Unavailable\r\n"}
        assert gateway.metrics()['sallyport_upstream_retries_total{upstream="all",reason="status"}'] == 300
