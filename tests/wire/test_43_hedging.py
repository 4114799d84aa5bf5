"""Hedged requests: a second try beside a slow one, and the first answer wins."""
import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import httpx
import pytest
from h2.settings import SettingCodes

from echo_program import DEADLINE_S
from gateway import NO_BREAKER, Gateway, ask, logged, until
from h2_peers import H2Upstream
from service import Service

PROTOCOLS = ["http/1.1", "h2"]
AFTER_MS = 200
LONG_MS = 1500   # where whoever is well must not be hedged, though the machine stands still for a while
SLACK_MS = 5000   # that a busy machine may take; what hangs does so for longer
RESERVE = 10   # docs/RETRIES.md, "The budget"
FIFTH = {"attempts": 1, "budget": 0.2, "statuses": [503], "backoff": "1ms"}


class Held(Service):
    """Answers 200 when it is let go."""

    def __init__(self, protocol="http/1.1"):
        super().__init__(protocol)
        self.port, self.go = self.upstream.port, threading.Event()
        self.respond(lambda number: self.go.wait(30) and 200)

    def close(self):
        self.go.set()
        self.upstream.close()


@pytest.fixture
def make_held():
    with contextlib.ExitStack() as made:
        yield lambda *protocol: made.enter_context(contextlib.closing(Held(*protocol)))


def configuration(echoes, protocol="http/1.1", after_ms=AFTER_MS, **upstream):
    """echoes: whatever has a port."""
    return {
        "upstreams": {"orders": {
            "targets": [{"address": f"127.0.0.1:{echo.port}"} for echo in echoes], "protocol": protocol,
            "hedge": {"after": f"{after_ms}ms"}, "retries": {"attempts": 0, "budget": 1.0},
            "outlier": {"max_ejected": 0}, **upstream}},
        "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "orders"}]}


def hedges(gateway):
    names = ("won", "lost", "failed")
    metrics = gateway.metrics()
    return tuple(metrics.get(f'sallyport_upstream_hedges_total{{upstream="orders",result="{name}"}}', 0) for name in names)


def hedged(gateway, *expected):
    """Counted by the worker, maybe after its client has the answer."""
    until(lambda: hedges(gateway) == expected, lambda: f"hedges {expected}, not {hedges(gateway)}")
    return True


class Timed(httpx.Client):
    def __init__(self, gateway):
        super().__init__(base_url=f"http://127.0.0.1:{gateway.port}", timeout=DEADLINE_S)

    def timed(self, method="GET", target="/", **more):
        began = time.monotonic()
        answer = self.request(method, target, **more)
        return answer, (time.monotonic() - began) * 1000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_first_answer_wins(tmp_path, make_echo, protocol):
    """One endpoint of two hangs: every safe request is answered after `after`, by the other."""
    hanging, good = make_echo("--outage", "misbehave=hang", "--name", "hanging"), make_echo("--name", "good")
    with Gateway(tmp_path, configuration([hanging, good], protocol, LONG_MS)) as gateway, Timed(gateway) as client:
        answers = [client.timed(target=f"/{i}") for i in range(6)]
        assert [answer.headers["x-served-by"] for answer, _ in answers] == ["good"] * 6
        slow = [ms for _, ms in answers if ms >= LONG_MS - 5]
        assert len(slow) == 3 and max(slow) < LONG_MS + SLACK_MS, answers
        assert hedged(gateway, 3, 0, 0)
        until(lambda: hanging.control("load")["in_flight"] == 0, "the loser is cancelled")   # what was outrun is cancelled
        assert [answer.json()["path"] for answer, _ in answers] == [f"/{i}" for i in range(6)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_answer_may_still_be_first(tmp_path, make_echo, make_held, protocol):
    """The hedge is slower than what it was made beside: it is cancelled, and the client sees nothing of it."""
    slow, hanging = make_held(protocol), make_echo("--outage", "misbehave=hang")
    with Gateway(tmp_path, configuration([slow, hanging], protocol)) as gateway, Timed(gateway) as client, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.timed)
        until(lambda: hanging.control("load")["in_flight"] == 1, "the hedge is under way")
        slow.go.set()
        answer, ms = asked.result()
        assert answer.content == b"done" and ms >= AFTER_MS - 5
        assert hedged(gateway, 0, 1, 0)
        until(lambda: hanging.control("load")["in_flight"] == 0, "the loser is cancelled")
        assert hanging.control("load")["requests"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bodies_of_the_winner_arrive_whole(tmp_path, make_echo, protocol):
    """What wins streams its body to the end, whichever it is: beside hedges that are cancelled on the same connection."""
    echo = make_echo()
    with Gateway(tmp_path, configuration([echo], protocol)) as gateway, Timed(gateway) as client:
        def ask(i):
            return client.timed(target=f"/bytes/200000?misbehave=slow_head={LONG_MS}&times={i % 3}&key={i}")[0]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(60)))
        assert {(answer.status_code, len(answer.content)) for answer in answers} == {(200, 200000)}
        won, lost, failed = hedges(gateway)   # the first one is slow, or both are
        assert won >= 15 and lost >= 15 and not failed, (won, lost, failed)


@pytest.mark.parametrize("request_", [("POST", {"content": b"x"}), ("POST", {}), ("PUT", {"content": b"x"}), ("DELETE", {}),
                                      ("GET", {"content": b"x"})], ids=lambda one: f"{one[0]}-{'body' if one[1] else 'empty'}")
def test_what_is_not_safe_is_asked_once(tmp_path, make_echo, request_):
    """Unsafe methods and requests with a body."""
    slow = make_echo("--outage", "misbehave=slow_head=250")
    method, more = request_
    with Gateway(tmp_path, configuration([slow])) as gateway, Timed(gateway) as client:
        assert client.timed(method, **more)[0].status_code == 200
        assert hedges(gateway) == (0, 0, 0) and slow.control("load")["requests"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_of_two_that_fails_leaves_it_to_the_other(tmp_path, make_echo, make_held, protocol):
    """The first one fails while the hedge is under way, or the hedge does: the client gets the other's answer."""
    dying, slow = make_echo("--name", "dying"), make_held(protocol)
    with Gateway(tmp_path, configuration([dying, slow], protocol)) as gateway, Timed(gateway) as client, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        for served in range(1, 5):   # by turns the first one, and the hedge
            slow.go.clear()
            dying.control("outage?misbehave=hang")
            asked = pool.submit(client.timed)
            until(lambda: dying.control("load")["in_flight"] == 1, "it hangs")
            until(lambda: len(slow.requests) == served, "the other is asked, too")
            dying.control("outage?misbehave=refuse")   # resets what hangs
            if served % 2 == 0:
                until(lambda: hedges(gateway)[2] == served / 2, "the hedge has failed")
            slow.go.set()
            answer, _ = asked.result()
            assert (answer.status_code, answer.content) == (200, b"done")
            dying.control("outage?end=1")
        assert hedged(gateway, 2, 0, 2)


def test_a_retried_status_does_not_win(tmp_path, make_echo, make_held):
    """An answer of retries.statuses is no answer while the other try may have a better one."""
    failing, slow = make_echo("--outage", "misbehave=status=503"), make_held()
    retries = {"attempts": 0, "budget": 1.0, "statuses": [503]}
    with Gateway(tmp_path, configuration([slow, failing], retries=retries)) as gateway, Timed(gateway) as client, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.timed)
        assert hedged(gateway, 0, 0, 1)
        slow.go.set()
        answer, _ = asked.result()
        assert (answer.status_code, answer.content) == (200, b"done")
        assert hedged(gateway, 0, 0, 1)


def test_both_fail(tmp_path, make_echo):
    """Two that hang: 504 when timeouts.response is over for the second one, and both are held against their endpoints."""
    hanging = [make_echo("--outage", "misbehave=hang") for _ in range(2)]
    with Gateway(tmp_path, configuration(hanging, timeouts={"response": "400ms"})) as gateway, Timed(gateway) as client:
        answer, ms = client.timed()
        assert answer.status_code == 504 and answer.json()["code"] == "upstream_timeout"
        assert 400 + AFTER_MS - 5 <= ms < 400 + AFTER_MS + SLACK_MS
        until(lambda: gateway.metrics()['sallyport_upstream_requests_total{upstream="orders",code="none"}'] == 2, "both counted")


def test_hedges_are_paid_for_as_retries_are(tmp_path, make_echo):
    """budget 0: none. A budget of 0.2: a service that is slow for everybody gets a fifth more, and what may be borrowed."""
    slow = [make_echo("--outage", f"misbehave=slow_head={2 * AFTER_MS}") for _ in range(2)]
    for budget in (0, 0.2):
        began = time.monotonic()
        with Gateway(tmp_path, configuration(slow, retries={"attempts": 1, "budget": budget})) as gateway, \
                Timed(gateway) as client, concurrent.futures.ThreadPoolExecutor(12) as pool:
            before = sum(echo.control("load")["requests"] for echo in slow)
            assert {answer.status_code for answer, _ in pool.map(lambda i: client.timed(), range(120))} == {200}
            gateway.wait_rest()
            more = sum(echo.control("load")["requests"] for echo in slow) - before - 120
            most = budget and budget * 120 + 1 + RESERVE + time.monotonic() - began
            # One that is cancelled at once is maybe not heard of.
            assert more <= sum(hedges(gateway)) <= most, (budget, more)
            assert bool(more) == bool(most)


def test_an_endpoint_that_is_outrun_is_ejected(tmp_path, make_echo):
    """Nobody waits for what hangs to time out: five in a row that were slower than their hedges are five failures."""
    hanging, good = make_echo("--outage", "misbehave=hang", "--name", "hanging"), make_echo()
    outlier = {"consecutive_failures": 5, "ejection": "30s", "max_ejected": 0.5}
    with Gateway(tmp_path, configuration([hanging, good], after_ms=LONG_MS, outlier=outlier)) as gateway, Timed(gateway) as client:
        for _ in range(10):
            assert client.timed()[0].status_code == 200
        assert hedged(gateway, 5, 0, 0)
        assert {client.timed()[0].status_code for _ in range(10)} == {200} and hanging.control("load")["requests"] == 5
        assert "slower than a hedge" in gateway.log()


def test_a_hedge_does_not_wait_in_line(tmp_path, make_echo):
    """limits.requests holds for hedges, too: without room there is none, and nobody else waits for it."""
    hanging, good = make_echo("--outage", "misbehave=slow_head=400"), make_echo("--outage", "misbehave=slow_head=400")
    with Gateway(tmp_path, configuration([hanging, good], limits={"requests": 1, "pending": 10})) as gateway, \
            Timed(gateway) as client:
        answer, ms = client.timed()
        assert answer.status_code == 200 and 390 <= ms < 400 + SLACK_MS
        assert hedges(gateway) == (0, 0, 0)
        assert hanging.control("load")["requests"] + good.control("load")["requests"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_has_waited_in_line_is_hedged_later(tmp_path, make_echo, protocol):
    """`after` begins when the endpoint is chosen, however long the line was."""
    echo, line_ms = make_echo(), 3000
    config = configuration([echo], protocol, limits={"requests": 2, "pending": 10}, timeouts={"connect": "20s"})
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client, concurrent.futures.ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        others = [pool.submit(client.timed, "POST", f"/?misbehave=slow_head={line_ms}") for _ in range(2)]
        until(lambda: echo.control("load")["in_flight"] == 2, "no place is left")
        asked = pool.submit(client.timed, target="/?misbehave=hang&times=1&key=a")
        until(lambda: gateway.metrics()['sallyport_upstream_requests_waiting{upstream="orders"}'] == 1, "it waits in line")
        assert [other.result()[0].status_code for other in others] == [200] * 2
        assert asked.result()[0].status_code == 200 and (time.monotonic() - began) * 1000 >= line_ms + AFTER_MS - 5
        assert hedged(gateway, 1, 0, 0)


# ---- what is not made is not paid for ----

def retried(gateway):
    return gateway.metrics().get('sallyport_upstream_retries_total{upstream="orders",reason="status"}', 0)


def spend_reserve(gateway, client):
    """How many of so many failing requests are tried again: as many as may be borrowed, when nothing was spent before."""
    for _ in range(RESERVE):
        assert client.timed(target="/?misbehave=status=503")[0].status_code == 503
    return retried(gateway)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_hedge_without_room_costs_nothing(tmp_path, make_echo, protocol):
    """limits.requests is used up: on any worker the whole reserve is there for those that fail."""
    echo = make_echo()
    config = configuration([echo], protocol, retries=FIFTH, limits={"requests": 1, "pending": 10}, **NO_BREAKER) | {"workers": 2}
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client:
        for _ in range(RESERVE):
            assert ask(gateway.port, f"/?misbehave=slow_head={2 * AFTER_MS}").status == 200
        assert hedges(gateway) == (0, 0, 0) and echo.control("load")["requests"] == RESERVE
        assert spend_reserve(gateway, client) == RESERVE


def test_a_hedge_that_a_breaker_stops_costs_nothing(tmp_path, make_echo):
    """It opens while the first try is under way."""
    echo, after_ms = make_echo(), 3000
    with Gateway(tmp_path, configuration([echo], after_ms=after_ms, retries=FIFTH)) as gateway, Timed(gateway) as client, \
            concurrent.futures.ThreadPoolExecutor(RESERVE) as pool:
        def force(how):
            assert ask(gateway.admin_port, "/api/v1/breakers/orders", "PUT", json.dumps({"force": how})).status == 200
        answers = [pool.submit(ask, gateway.port, f"/?misbehave=slow_head={after_ms + 500}") for _ in range(RESERVE)]
        until(lambda: echo.control("load")["in_flight"] == RESERVE, "all are under way")
        force("open")
        assert [answer.result().status for answer in answers] == [200] * RESERVE
        force("closed")
        assert hedges(gateway) == (0, 0, 0) and echo.control("load")["requests"] == RESERVE
        assert spend_reserve(gateway, client) == RESERVE


class Late(H2Upstream):
    """Says nothing for a while when it is connected to, and takes one stream on each connection."""

    def meet(self, sock):
        time.sleep(3 * AFTER_MS / 1000)
        return super().meet(sock)


def test_a_hedge_that_finds_no_room_on_its_connection_costs_nothing(tmp_path):
    """It waits for the connection that the first try waits for, whose settings then say that there is room for one."""
    service = Late()
    service.program(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    config = configuration([service], "h2", retries=FIFTH, limits={"connections": 1}, timeouts={"connect": "20s"}) | {
        "telemetry": {"access_log": {"output": str(tmp_path / "access.log")}}}
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client:
        assert client.timed()[0].status_code == 200
        assert hedges(gateway) == (0, 0, 0) and len(service.requests) == 1
        assert logged(tmp_path / "access.log")[0]["attempts"] == 1
        assert seen_by_breaker(gateway, requests=1, failed=0)
    service.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("status", [200, 503])
def test_what_is_given_back_is_spent_once(tmp_path, protocol, status):
    """A service that is slow, or slow to fail: some hedges find room and others do not, on two workers. All tries together
    are a fifth more, and what may be borrowed.
    """
    service, count, began = Service(protocol), 120, time.monotonic()
    service.respond(lambda number: time.sleep(2 * AFTER_MS / 1000) or status)
    limits = {"requests": 14, "pending": 100}   # those of 12 clients, and two hedges
    config = configuration([service.upstream], protocol, retries=FIFTH, limits=limits, **NO_BREAKER) | {"workers": 2}
    with Gateway(tmp_path, config) as gateway, concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = pool.map(lambda _: ask(gateway.port), range(count))
        assert {answer.status for answer in answers} == {status}
        gateway.wait_rest()
        more, told = len(service.requests) - count, sum(hedges(gateway)) + retried(gateway)
        assert 0 < more <= told <= 0.2 * count + 1 + RESERVE + time.monotonic() - began   # one cancelled at once is maybe not heard of
    service.upstream.close()


def test_the_access_log_tells(tmp_path, make_echo):
    """attempts counts both; the endpoint is the one whose answer the client got."""
    hanging, good = make_echo("--outage", "misbehave=hang"), make_echo()
    config = configuration([hanging, good]) | {"telemetry": {"access_log": {"output": str(tmp_path / "access.log")}}}
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client:
        client.timed(target="/told")
        record = logged(tmp_path / "access.log")[0]
        assert record["attempts"] == 2 and record["endpoint"] == f"127.0.0.1:{good.port}", json.dumps(record)
        assert record["upstream_ms"] >= AFTER_MS / 2   # it begins when the first one is sent, which may be a little later


def test_what_follows_a_hedge_waits_in_line_again(tmp_path, make_echo):
    """Both tries time out while others take their places: the next one stands in line as any request does."""
    echo = make_echo()
    config = configuration(
        [echo], limits={"requests": 2, "pending": 10}, timeouts={"connect": "20s", "response": "4s"},
        retries={"attempts": 3, "budget": 1.0, "retry_on": ["response_timeout"]})
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client, concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = pool.submit(client.timed, target="/?misbehave=hang&times=2")
        until(lambda: echo.control("load")["in_flight"] == 2, "both hang")
        others = [pool.submit(client.timed, "POST", "/?misbehave=slow_head=700") for _ in range(2)]
        assert [asked.result()[0].status_code, *(other.result()[0].status_code for other in others)] == [200] * 3
        assert hedged(gateway, 1, 0, 0)


def window(gateway):
    return json.loads(ask(gateway.admin_port, "/api/v1/breakers/orders").body)["breakers"][0]["window"]


def seen_by_breaker(gateway, requests, failed):
    """A worker tells of a request after its client has the answer."""
    until(lambda: window(gateway) == {"requests": requests, "failed": failed, "slow": 0}, lambda: f"not {window(gateway)}")
    return True


def test_a_hedge_that_cannot_connect_has_failed(tmp_path, make_echo):
    """A socket that is not there refuses at once, as others do after a moment: held against its endpoint."""
    slow = make_echo("--outage", f"misbehave=slow_head={LONG_MS}")
    config = configuration([slow])
    config["upstreams"]["orders"]["targets"].append({"address": f"unix:{tmp_path}/nobody.sock"})
    with Gateway(tmp_path, config) as gateway, Timed(gateway) as client:
        assert client.timed()[0].status_code == 200
        assert hedged(gateway, 0, 0, 1) and seen_by_breaker(gateway, requests=2, failed=1)


def test_a_kept_connection_that_was_closed_is_held_against_nobody(tmp_path):
    """The hedge is its second try."""
    def serve(peer, first):
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if first and peer.recv(65536):
            hedged.wait(DEADLINE_S)
            peer.shutdown(socket.SHUT_RDWR)

    hedged = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        config = configuration([], after_ms=LONG_MS)
        config["upstreams"]["orders"]["targets"] = [{"address": f"127.0.0.1:{server.getsockname()[1]}"}]
        with Gateway(tmp_path, config) as gateway, Timed(gateway) as client:
            asked = pool.submit(client.timed)
            with server.accept()[0] as kept:
                pool.submit(serve, kept, first=True)
                assert asked.result()[0].status_code == 200
                asked = pool.submit(client.timed)
                with server.accept()[0] as second:   # the hedge's
                    hedged.set()
                    until(lambda: hedges(gateway) == (1, 0, 0), "the hedge goes on alone")
                    serve(second, first=False)
                    assert asked.result()[0].status_code == 200
            assert window(gateway)["failed"] == 0
