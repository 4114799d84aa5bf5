"""Ejection: an endpoint that fails while others serve takes no requests for a while. Three endpoints that the test holds
in its hand, one gateway of two workers for HTTP/1.1 and one for HTTP/2 to upstreams, and an upstream for each test, since
what an endpoint has done is remembered.
"""
import collections
import itertools
import json
import re
import threading

import pytest

from gateway import NO_BREAKER, Gateway, ask, until
from h2_peers import H2Client, H2Upstream, Reset
from peers import Raw, Upstream, answer, request

LONG = {"ejection": "60s"}   # longer than any test
OTHER = {"max_ejected": 1, "ejection": "60s", "max_ejection": "60s"}
CHECK = {"path": "/health", "interval": "1s", "timeout": "1s", "healthy": 1, "unhealthy": 2}

UPSTREAMS = {
    "five": {"outlier": LONG},
    "views": {"outlier": LONG},
    "mixed": {"outlier": LONG},
    "rates": {"outlier": {**LONG, "success_rate": {"interval": "1s", "min_requests": 10, "min_endpoints": 3, "deviations": 1.2}}},
    "refuses": {"outlier": LONG},
    "hangs": {"outlier": {**LONG, "consecutive_failures": 2}, "timeouts": {"response": "1s"}, "retries": {"attempts": 0}},
    "aborts": {"outlier": {**LONG, "consecutive_failures": 1}},
    "all_bad": {"outlier": LONG},
    "to_the_last": {"outlier": OTHER, "panic_threshold": 0},
    "panics": {"outlier": {**LONG, "check_readmits": False}, "health_check": CHECK},
    "refrains": {"outlier": LONG, "health_check": CHECK},
    "readmits": {"outlier": LONG, "health_check": CHECK},
    "does_not_readmit": {"outlier": {**LONG, "check_readmits": False}, "health_check": CHECK},
    "grows": {"outlier": {"consecutive_failures": 1, "ejection": "900ms", "max_ejection": "2100ms"}},
    "off": {"outlier": {"max_ejected": 0}},
}


def enough(asked, limit):
    """So many, and no more than one that was on its way to the other worker while the last of them was counted."""
    return limit <= asked <= limit + 1


class Stage:
    """Endpoints a, b and c, whose mood the test sets: a status, or an Event that they wait for."""

    def __init__(self, directory, protocol):
        self.protocol = protocol
        self.is_h2 = protocol == "h2"
        self.nodes = {name: H2Upstream() if self.is_h2 else Upstream() for name in "abc"}
        self.begin()
        config = {
            "workers": 2,
            "upstreams": {name: {**NO_BREAKER, "protocol": protocol, "targets": [{"address": self.address(n)} for n in "abc"], **settings}
                          for name, settings in UPSTREAMS.items()},
            "routes": [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in UPSTREAMS]}
        self.gateway = Gateway(directory, config)

    def begin(self):
        self.mood = dict.fromkeys("abc", 200)
        self.healthy = dict.fromkeys("abc", True)
        for name, node in self.nodes.items():
            node.program(reply=lambda r, name=name: self.reply(r, name))

    def address(self, name):
        return f"127.0.0.1:{self.nodes[name].port}"

    def reply(self, message, name):
        status, body = 200, name.encode()
        if message.target == "/health":
            status = 200 if self.healthy[name] else 503
        elif isinstance(self.mood[name], threading.Event):
            self.mood[name].wait(30)
        elif callable(self.mood[name]):
            status = self.mood[name]()
        else:
            status = self.mood[name]
        return {"body": body, "status": status} if self.is_h2 else answer(body, f"{status} Whatever")

    def ask(self, upstream, count):
        """(status, who answered) of `count` requests, each on a connection of its own: so of either worker."""
        got = []
        for _ in range(count):
            with Raw(self.gateway.port) as client:
                message = client.ask(request(f"/{upstream}"))
                got.append((message.status, message.body.decode() if len(message.body) == 1 else None))
        return got

    def who(self, upstream, count):
        return collections.Counter(name for _, name in self.ask(upstream, count))

    def asked(self, upstream, name):
        return sum(seen.target == f"/{upstream}" for seen in self.nodes[name].requests)

    def metric(self, metric, upstream, name, more=""):
        return self.gateway.metrics()[f'{metric}{{upstream="{upstream}",endpoint="{self.address(name)}"{more}}}']

    def ejected(self, upstream):
        return {name for name in "abc" if self.metric("sallyport_upstream_endpoint_ejected", upstream, name) == 1}

    def up(self, upstream):
        return {name for name in "abc" if self.metric("sallyport_upstream_endpoint_up", upstream, name) == 1}

    def ejections(self, upstream, name):
        reasons = ("consecutive_failures", "connect_failures", "success_rate")
        counts = {reason: self.metric("sallyport_upstream_ejections_total", upstream, name, f',reason="{reason}"')
                  for reason in reasons}
        return {reason: count for reason, count in counts.items() if count}

    def shown(self, upstream, name):
        """As the admin API shows the endpoint."""
        upstreams = json.loads(ask(self.gateway.admin_port, "/api/v1/upstreams").body)["upstreams"]
        endpoints = next(u["endpoints"] for u in upstreams if u["name"] == upstream)
        return next(e for e in endpoints if e["address"] == self.address(name))

    def logged(self, upstream, name, words):
        return re.findall(rf"upstream: {upstream}: {re.escape(self.address(name))} {words}", self.gateway.log())

    def close(self):
        for node in self.nodes.values():
            node.close()


@pytest.fixture(scope="module", params=["http/1.1", "h2"])
def whole_stage(request, tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("ejection"), request.param)
    with stage.gateway:
        yield stage
    stage.close()


@pytest.fixture
def stage(whole_stage):
    whole_stage.begin()
    checked = [name for name, settings in UPSTREAMS.items() if "health_check" in settings]   # each for itself
    until(lambda: all(whole_stage.up(name) == set("abc") for name in checked), "everyone up")
    yield whole_stage
    for mood in whole_stage.mood.values():
        if isinstance(mood, threading.Event):
            mood.set()
    for node in whole_stage.nodes.values():
        node.check()


def test_five_failures_in_a_row(stage):
    stage.mood["a"] = 503
    got = stage.ask("five", 60)
    assert enough(stage.asked("five", "a"), 5) and stage.asked("five", "a") == sum(status == 503 for status, _ in got)
    assert stage.ejected("five") == {"a"} and stage.up("five") == set("abc")
    assert stage.ejections("five", "a") == {"consecutive_failures": 1}
    assert len(stage.logged("five", "a", r"is ejected for (\d+) ms: [56] failures in a row, the last one: status 503")) == 1
    shown = stage.shown("five", "a")
    assert shown["ejected"] and shown["ejected_by"] == "consecutive_failures" and 50_000 < shown["ejected_for_ms"] <= 60_000
    assert not stage.shown("five", "b")["ejected"]
    healthz = json.loads(ask(stage.gateway.status_port, "/healthz").body)
    assert next(u for u in healthz["upstreams"] if u["name"] == "five") == {"name": "five", "endpoints": 3, "up": 3, "ejected": 1}


def test_all_workers_share_one_view(stage):
    stage.mood["a"] = 500
    with Raw(stage.gateway.port) as client:   # one worker learns it
        while not stage.ejected("views"):
            client.ask(request("/views"))
    asked = stage.asked("views", "a")
    stage.ask("views", 40)   # the other one knows
    assert stage.asked("views", "a") == asked


def test_every_status_is_good_or_bad(stage):
    statuses = itertools.cycle([503, 503, 503, 503, 404])
    stage.mood["a"] = lambda: next(statuses)
    with Raw(stage.gateway.port) as client:   # one worker, which notes what it hears in this order
        for _ in range(60):
            client.ask(request("/mixed"))
    assert stage.asked("mixed", "a") >= 15
    assert stage.ejected("mixed") == set()   # a 4xx is an answer: it ends the row
    stage.mood["a"] = 429
    stage.ask("mixed", 30)
    assert stage.ejected("mixed") == set()
    stage.mood["a"] = 503   # and has not frozen the counter
    stage.ask("mixed", 30)
    assert stage.ejected("mixed") == {"a"}


def test_an_outlier_by_success_rate(stage):
    statuses = itertools.cycle([503, 200])
    stage.mood["a"] = lambda: next(statuses)
    until(lambda: stage.ask("rates", 30) and stage.ejected("rates"), "an ejection")
    assert stage.ejected("rates") == {"a"} and stage.ejections("rates", "a") == {"success_rate": 1}
    assert set(stage.who("rates", 20)) == set("bc")


def test_who_refuses_connections(stage):
    stage.nodes["a"].close()
    try:
        got = stage.ask("refuses", 30)
        assert {status for status, _ in got} == {200}   # a connect that fails is tried again elsewhere
        assert stage.ejected("refuses") == {"a"} and stage.ejections("refuses", "a") == {"connect_failures": 1}
        assert stage.logged("refuses", "a", "is ejected for .*: 3 failures in a row, the last one: upstream_connect_failed")
    finally:
        stage.nodes["a"].reopen()


def test_who_hangs(stage):
    stage.mood["a"] = threading.Event()
    got = stage.ask("hangs", 20)
    assert enough([status for status, _ in got].count(504), 2)
    assert stage.ejected("hangs") == {"a"}


def test_clients_that_go_away_say_nothing(stage):
    stage.mood["a"] = threading.Event()
    for _ in range(12):
        asked = sum(stage.asked("aborts", name) for name in "abc")
        with Raw(stage.gateway.port) as client:
            client.send(request("/aborts"))
            until(lambda n=asked: sum(stage.asked("aborts", name) for name in "abc") > n, "the request")
            client.reset()
    assert stage.asked("aborts", "a") >= 3
    until(lambda: stage.gateway.metrics()['sallyport_ends_total{cause="client_gone"}'] >= 3, "clients gone")
    assert stage.ejected("aborts") == set()


def test_no_more_than_the_cap(stage):
    stage.mood.update(a=500, b=500, c=500)
    assert {status for status, _ in stage.ask("all_bad", 60)} == {500}
    assert len(stage.ejected("all_bad")) == 1   # half of three
    left = (set("abc") - stage.ejected("all_bad")).pop()
    assert stage.shown("all_bad", left)["ejections_refused"] >= 1


def test_never_the_last_one(stage):
    stage.mood.update(a=500, b=500, c=500)
    assert {status for status, _ in stage.ask("to_the_last", 60)} == {500}
    assert len(stage.ejected("to_the_last")) == 2


def test_nobody_is_ejected_into_panic(stage):
    stage.healthy["b"] = False
    until(lambda: stage.up("refrains") == {"a", "c"}, "b down")
    stage.mood["a"] = 503
    stage.ask("refrains", 30)
    assert stage.ejected("refrains") == set()   # c alone would be fewer than half
    assert stage.shown("refrains", "a")["ejections_refused"] >= 1


def test_panic_uses_the_ejected_too(stage):
    stage.mood["a"] = 503
    stage.ask("panics", 30)
    assert stage.ejected("panics") == {"a"} and set(stage.who("panics", 12)) == set("bc")
    stage.healthy["b"] = False
    until(lambda: stage.up("panics") == {"a", "c"}, "b down")
    assert stage.ejected("panics") == {"a"} and set(stage.who("panics", 30)) == set("abc")


def test_a_good_check_readmits(stage):
    stage.mood["a"] = 503
    until(lambda: stage.ask("readmits", 3) and stage.ejections("readmits", "a"), "an ejection")
    stage.mood["a"] = 200
    until(lambda: stage.ejected("readmits") == set(), "a readmitted")
    assert set(stage.who("readmits", 12)) == set("abc")
    until(lambda: stage.logged("readmits", "a", r"is no longer ejected after \d+ ms: a check was good"), "the log")


def test_unless_it_is_not_to(stage):
    stage.mood["a"] = 503
    stage.ask("does_not_readmit", 30)
    checks = stage.shown("does_not_readmit", "a")["checks"]
    until(lambda: stage.shown("does_not_readmit", "a")["checks"] > checks + 2, "three checks")
    assert stage.ejected("does_not_readmit") == {"a"}


def test_the_time_grows(stage):
    stage.mood["a"] = 503
    steps = [(795, 900), (1605, 1800), (1875, 2100), (1875, 2100)]

    def has_grown():
        """Four in a row; on a slow machine a row may end, since the endpoint was well for long enough in between."""
        stage.ask("grows", 3)
        times = [int(ms) for ms in stage.logged("grows", "a", r"is ejected for (\d+) ms")]
        assert all(any(low <= ms <= high for low, high in steps) for ms in times), times
        rows = zip(*(times[n:] for n in range(len(steps))))
        return any(all(low <= ms <= high for ms, (low, high) in zip(row, steps)) for row in rows)
    until(has_grown, lambda: f"ejections that grow: {stage.logged('grows', 'a', 'is ejected for .*')}", deadline=100)
    assert stage.logged("grows", "a", r"is no longer ejected after \d+ ms: its time (is|was) over")
    stage.mood["a"] = 200
    until(lambda: stage.who("grows", 9)["a"], "a's return")


def test_max_ejected_of_0_is_off(stage):
    stage.mood["a"] = 503
    stage.ask("off", 60)
    assert stage.asked("off", "a") > 15 and stage.ejected("off") == set()


def test_a_reload_keeps_it(tmp_path):
    stage = Stage(tmp_path, "http/1.1")
    with stage.gateway as gateway:
        stage.mood["a"] = 503
        stage.ask("five", 30)
        asked = stage.asked("five", "a")
        assert enough(asked, 5)
        config = json.loads(json.dumps(gateway.config))
        config["upstreams"]["five"]["outlier"] = {"consecutive_failures": 1, "ejection": "1s"}
        config["upstreams"]["five"]["load_balancer"] = "least_request"
        for _ in range(3):
            gateway.reload_everywhere(config)
            stage.ask("five", 20)
        assert stage.ejected("five") == {"a"} and stage.asked("five", "a") == asked
        config["upstreams"]["five"]["outlier"] = {"max_ejected": 0}
        gateway.reload_everywhere(config)
        until(lambda: not stage.ejected("five"), "a's return")
        stage.mood["a"] = 200
        assert stage.who("five", 40)["a"]
        assert stage.logged("five", "a", r"is no longer ejected after \d+ ms: outliers are no longer ejected")
    stage.close()


def test_grpc_statuses_count(tmp_path):
    nodes = [H2Upstream(), H2Upstream()]
    status = ["14"]
    for node in nodes:
        node.program(stream=lambda stream, node=node: (stream.whole(), stream.answer(
            b"", 200, fields=[("content-type", "application/grpc")], length=False,
            trailers=[("grpc-status", status[0] if node is nodes[0] else "0")])))
    upstreams = {"u": {"protocol": "h2", "outlier": LONG, "targets": [{"address": f"127.0.0.1:{n.port}"} for n in nodes]}}
    routes = [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]
    with Gateway(tmp_path, {"workers": 2, "upstreams": upstreams, "routes": routes}) as gateway:
        def call():
            client = H2Client(gateway.port)
            client.ask("/shop.Orders/Get", "POST", ("content-type", "application/grpc"), ("te", "trailers"), body=b"\0\0\0\0\0")
            client.close()
        ejected = f'sallyport_upstream_endpoint_ejected{{upstream="u",endpoint="127.0.0.1:{nodes[0].port}"}}'
        status[0] = "12"   # unimplemented: what the caller asked for
        for _ in range(20):
            call()
        assert gateway.metrics()[ejected] == 0
        asked = len(nodes[0].requests)
        status[0] = "14"   # unavailable
        for _ in range(20):
            call()
        assert gateway.metrics()[ejected] == 1
        assert enough(len(nodes[0].requests) - asked, 5)
    for node in nodes:
        node.close()


# ---- one connection of many requests ----

class Shared:
    """Two endpoints over HTTP/2, the connections of the first in the test's hand, and requests that are sent at once."""
    AT_ONCE = 40

    def __init__(self, directory):
        self.nodes = [H2Upstream(), H2Upstream()]
        self.gateway = Gateway(directory, {
            "workers": 1,
            "upstreams": {"u": {"protocol": "h2", "outlier": LONG, "retries": {"attempts": 0}, "load_balancer": "round_robin",
                                "circuit_breaker": {"min_requests": 1000},
                                "targets": [{"address": f"127.0.0.1:{node.port}"} for node in self.nodes]}},
            "routes": [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]})

    def begin(self):
        """Requests, half of them for each endpoint, and their client."""
        client = H2Client(self.gateway.port)
        return client, [client.send_request("/") for _ in range(self.AT_ONCE)]

    def fates(self, crowd):
        """Statuses, and "reset" of answers that broke off."""
        def fate(stream):
            try:
                return stream.whole().status
            except Reset:
                return "reset"
        client, streams = crowd
        got = collections.Counter(map(fate, streams))
        client.close()
        return got

    def shown(self):
        upstreams = json.loads(ask(self.gateway.admin_port, "/api/v1/upstreams").body)["upstreams"]
        return upstreams[0]["endpoints"][0]

    def failed(self):
        return json.loads(ask(self.gateway.admin_port, "/api/v1/breakers/u").body)["breakers"][0]["window"]["failed"]


@pytest.fixture
def shared(tmp_path):
    made = Shared(tmp_path)
    with made.gateway:
        yield made
        made.gateway.wait_rest()
    for node in made.nodes:
        node.close()


@pytest.mark.parametrize("goodbye", [True, False], ids=["goaway", "closed"])
def test_a_connection_that_breaks_is_one_failure(shared, goodbye):
    """To the row of its endpoint; to the circuit breaker each request is one."""
    node, half = shared.nodes[0], shared.AT_ONCE // 2

    def begin(stream):   # and does not end
        if not goodbye:
            stream.whole()
            stream.respond(200)
            stream.send(b"half")
        stream.session.ended()
    node.program(stream=begin)
    crowd = shared.begin()
    until(lambda: len(node.requests) == half, "the requests at the endpoint")
    [session] = node.sessions
    if goodbye:
        session.send_goaway(last=0)
    else:
        for stream in crowd[1]:
            stream.more()
        session.close()
    assert shared.fates(crowd) == {200: half, 502 if goodbye else "reset": half}
    assert shared.failed() == half
    shown = shared.shown()
    assert not shown["ejected"] and shown["consecutive_failures"] == 1
    node.program()
    assert shared.fates(shared.begin()) == {200: shared.AT_ONCE}
    assert shared.shown()["consecutive_failures"] == 0


def test_a_connect_that_fails_is_one_failure(shared):
    """Three of them are enough, however many requests wait for each."""
    node, half = shared.nodes[0], shared.AT_ONCE // 2
    for count in (1, 2, 3):
        here, go = threading.Event(), threading.Event()

        def script(peer, here=here, go=go):   # takes the connection, and says nothing in HTTP/2
            here.set()
            go.wait(30)
            peer.close()
        node.program(script)
        crowd = shared.begin()
        assert here.wait(10)
        until(lambda: len(shared.nodes[1].requests) == count * half, "the other endpoint's requests")
        go.set()
        assert shared.fates(crowd) == {200: half, 502: half}
        assert shared.failed() == count * half
        shown = shared.shown()
        assert shown["ejected"] == (count == 3) and shown["consecutive_failures"] == count % 3
    assert shared.shown()["ejected_by"] == "connect_failures"
    node.program()
