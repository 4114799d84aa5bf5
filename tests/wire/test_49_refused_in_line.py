"""Who waits, while a circuit breaker opens or probes: those in line hear at once that it is open, whether it is one breaker or
one for each endpoint; and a client that stalls its upload does not keep the place of a probe.
"""
import contextlib
import json
import threading
import time

import pytest

from echo_program import Echo
from gateway import Gateway, ask, until
from peers import Raw, Upstream, request

PLACES = 3
PATIENCE_S = 25      # of who waits in line for a place
BREAKER = {"window": "2s", "min_requests": PLACES, "slow_call": "200ms", "open": "1h", "max_open": "1h", "half_open_requests": 1}


def config(port, stream):
    targets = {"targets": [{"address": f"127.0.0.1:{port}"}], "retries": {"attempts": 0}}
    narrow = {"limits": {"connections": PLACES, "requests": PLACES, "pending": 10},
              "timeouts": {"connect": f"{PATIENCE_S}s", "response": "60s"}}
    instead = {"status": 203, "body": "instead"}
    upstreams = {scope: {**targets, **narrow, "circuit_breaker": {**BREAKER, "scope": scope, "fallback": instead}}
                 for scope in ("upstream", "endpoint")}
    upstreams["uploads"] = {**targets, "circuit_breaker": {**BREAKER, "slow_call": "0s"}, "timeouts": {"response": "60s"}}
    upstreams["streams"] = {**upstreams["uploads"], "targets": [{"address": f"127.0.0.1:{stream.port}"}]}
    upstreams["busy"] = {**targets, "limits": {"requests": 1, "pending": 0}}
    upstreams["stood_in"] = {**targets, "circuit_breaker": {**BREAKER, "fallback": {"upstream": "busy"}}}
    return {"workers": 2, "upstreams": upstreams,
            "routes": [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in upstreams]}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    with Echo() as echo, contextlib.closing(Upstream()) as stream:
        with Gateway(tmp_path_factory.mktemp("line"), config(echo.port, stream)) as gateway:
            yield gateway, echo, stream


def breaker(gateway, name):
    return json.loads(ask(gateway.admin_port, f"/api/v1/breakers/{name}").body)["breakers"][0]


def force(gateway, name, how):
    got = ask(gateway.admin_port, f"/api/v1/breakers/{name}", "PUT" if how else "DELETE", json.dumps({"force": how}) if how else None)
    assert got.status == 200, got


@contextlib.contextmanager
def clients(gateway, path):
    """client(method, field...): a request on a connection of its own, which is reset in the end."""
    with contextlib.ExitStack() as stack:
        def client(*more):
            one = Raw(gateway.port)
            stack.callback(one.reset)
            return one.send(request(path, *more))
        yield client


@pytest.mark.parametrize("scope", ["upstream", "endpoint"])
def test_those_in_line_hear_that_it_is_open(parts, scope):
    gateway, echo, _ = parts
    with contextlib.ExitStack() as stack:
        def client(path):
            return stack.enter_context(Raw(gateway.port)).send(request(f"/{scope}{path}"))

        hanging = [client("?misbehave=hang") for _ in range(PLACES)]
        until(lambda: echo.control("load")["in_flight"] == PLACES, "all places in use")
        began = time.monotonic()
        waiting = [client("/") for _ in range(4)]
        assert [one.response().status for one in waiting] == [203] * 4
        late = client("/").response()   # while the places are still in use
        assert (late.status, late.body) == (203, b"instead")
        assert time.monotonic() - began < PATIENCE_S - 5
        assert breaker(gateway, scope)["state"] == "open" and echo.control("load")["in_flight"] == PLACES
        for one in hanging:
            one.reset()
    gateway.wait_rest()


def test_what_the_other_upstream_lacks_is_not_there_for_an_hour(parts):
    """When to come back is said by what refuses in the end, not by the breaker before it."""
    gateway, echo, _ = parts
    assert [ask(gateway.port, "/stood_in?misbehave=status=500").status for _ in range(PLACES)] == [500] * PLACES
    until(lambda: breaker(gateway, "stood_in")["state"] == "open", "an open breaker")
    assert ask(gateway.port, "/stood_in").status == 200
    gateway.wait_rest()   # its place has come back, to whichever worker is asked next
    with Raw(gateway.port) as client:
        client.send(request("/busy?misbehave=hang"))
        until(lambda: echo.control("load")["in_flight"] == 1, "no place left")
        refused = ask(gateway.port, "/stood_in")
        assert (refused.status, json.loads(refused.body)["code"], refused.headers["Retry-After"]) == (503, "overloaded", "1")
        client.reset()
    gateway.wait_rest()


def test_a_probe_does_not_wait_for_a_stalled_upload(parts):
    gateway, echo, _ = parts
    force(gateway, "uploads", "open")
    force(gateway, "uploads", None)   # it probes first
    with Raw(gateway.port) as stalled:
        stalled.send(request("/uploads", "POST", "Content-Length: 100000"))
        until(lambda: breaker(gateway, "uploads")["probes"] == 1, "a probe")
        began = time.monotonic()
        until(lambda: ask(gateway.port, "/uploads").status == 200, "another probe")
        assert time.monotonic() - began < 10   # one that is not heard of is forgotten after a minute
        until(lambda: breaker(gateway, "uploads")["state"] == "ramping", "its probe was good")
        assert breaker(gateway, "uploads")["probes"] == 0
        stalled.send(b"b" * 100000)
        assert stalled.response("POST").status == 200
    gateway.wait_rest()


def test_its_answer_counts_all_the_same(parts):
    gateway, echo, _ = parts
    force(gateway, "uploads", "open")
    force(gateway, "uploads", None)
    with clients(gateway, "/uploads") as client:
        stalled = client("POST", "Content-Length: 100000")
        until(lambda: breaker(gateway, "uploads")["probes"] == 1, "a probe")
        until(lambda: client("GET", "X-Echo: misbehave=hang") and echo.control("load")["in_flight"] == 2, "another one, that hangs")
        assert breaker(gateway, "uploads")["state"] == "half-open"
        stalled.send(b"b" * 100000)
        assert stalled.response("POST").status == 200
        until(lambda: breaker(gateway, "uploads")["state"] == "ramping", "its answer was good")
    gateway.wait_rest()


def test_a_stream_that_was_passed_over_is_a_good_probe_when_it_begins(parts):
    """However long it lasts then."""
    gateway, _, stream = parts
    begin, taken, over = threading.Event(), threading.Event(), threading.Event()

    def script(peer):
        if peer.head().method == "GET":
            taken.set()
        else:
            assert begin.wait(30)
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        over.wait(30)

    stream.program(script)
    force(gateway, "streams", "open")
    force(gateway, "streams", None)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(clients(gateway, "/streams"))
        stack.callback(over.set)
        first = client("POST", "Transfer-Encoding: chunked")
        until(lambda: breaker(gateway, "streams")["probes"] == 1, "a probe")
        until(lambda: client("GET") and taken.is_set(), "another one, that hangs")
        begin.set()
        assert first.head().status == 200
        until(lambda: breaker(gateway, "streams")["state"] == "ramping", "its head was good", 10)
    gateway.wait_rest()
