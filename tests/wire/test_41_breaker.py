"""The circuit breaker on the wire: opens, fails fast, probes, ramps, closes; what never opens it; one state for all workers
and across reloads; a hand on it; what stands in for an answer meanwhile. Over HTTP/1.1, HTTP/2 and gRPC.
"""
import contextlib
import json
import threading
import time

import pytest

from gateway import ask, free_port, until
from grpc_peers import Client as GrpcClient
from grpc_peers import Service as GrpcService
from h2_peers import INTERNAL_ERROR, H2Client, H2Upstream
from peers import Incomplete, Raw, Upstream, answer, request
from wire import Wire

PROTOCOLS = ["http/1.1", "h2"]
PROBES = 2
CLOSED, OPEN, HALF_OPEN, RAMPING = range(4)
LATE_MS = 1000   # nobody is as slow by chance
QUICK = {"window": "2s", "min_requests": 6, "failure_ratio": 0.5, "open": "400ms", "max_open": "400ms", "ramp": "300ms",
         "half_open_requests": PROBES}
LONG = {**QUICK, "window": "30s", "open": "1h", "max_open": "1h"}
LATE = {**LONG, "window": "4s", "slow_call": f"{LATE_MS}ms"}
PATIENT, IMPATIENT = {"connect": "20s", "response": "30s"}, {"connect": "20s", "response": "500ms"}
IN_TIME = 10   # long before a call is given up; unit tests know it to the microsecond


class Service:
    """An upstream of either protocol. `mode`: a status, "hang", "reset", "endless" (a head, and no end), "broken" (a head, and
    half of a body), a delay in seconds before a 200, or ("held", status), which is said once it is let go."""

    def __init__(self, protocol):
        self.protocol, self.mode = protocol, 200
        self.upstream = H2Upstream() if protocol == "h2" else Upstream()
        self.changed = threading.Condition()
        self.seen = self.flying = self.most = 0
        self.let_go = threading.Event()
        self.start()

    @property
    def port(self):
        return self.upstream.port

    def start(self):
        if self.protocol == "h2":
            self.upstream.program(stream=lambda one: self.meet(lambda: one.whole(), lambda mode: self.say_h2(one, mode)))
        else:
            self.upstream.program(self.script)

    def count_together(self):
        """How many hang: a moment later, when those that were given up before this one came are known to be."""
        time.sleep(0.05)
        with self.changed:
            self.most = max(self.most, self.flying)

    def script(self, peer):
        while True:
            head = peer.head()
            if head is None:
                return
            peer.body(head)
            if not self.meet(lambda: None, lambda mode: self.say_h1(peer, mode)):
                return

    def meet(self, hear, say):
        with self.changed:
            self.seen += 1
            self.flying += 1
            mode = self.mode
        try:
            hear()
            return say(mode)
        finally:
            with self.changed:
                self.flying -= 1

    def say_h1(self, peer, mode):
        if mode == "reset":
            peer.reset()
            return False
        if mode == "hang":
            self.count_together()
            peer.more()   # until the gateway gives up
            return False
        if mode == "broken":
            peer.send(answer(b"done")[:-2])
            return False
        if mode == "endless":
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            self.let_go.wait(30)
            return False
        peer.send(answer(b"done", f"{self.status(mode)} Said"))
        return True

    def status(self, mode):
        """When its time has come."""
        if isinstance(mode, int):
            return mode
        if isinstance(mode, float):
            time.sleep(mode)
            return 200
        self.let_go.wait(30)
        return mode[1]

    def say_h2(self, one, mode):
        if mode == "reset":
            one.cancel(INTERNAL_ERROR)
        elif mode == "hang":
            self.count_together()
            one.session.until(lambda: one.reset is not None, "a reset")
        elif mode == "broken":
            one.respond(200, ("content-length", "4")).send(b"do")
            one.cancel(INTERNAL_ERROR)
        elif mode == "endless":
            one.respond(200).send(b"abc")
            self.let_go.wait(30)
            one.cancel()
        else:
            one.answer(b"done", self.status(mode))

    def become(self, mode):
        self.let_go.clear()
        with self.changed:
            self.mode, self.seen, self.most = mode, 0, 0
        return self

    def close(self):
        self.let_go.set()
        self.upstream.close()


class Breakers(Wire):
    LISTENERS = {"plain": {}}
    UPSTREAMS = {}

    def __init__(self, directory, protocol):
        self.protocol = protocol
        self.service, self.other = Service(protocol), Service(protocol)
        super().__init__(directory)

    def upstream(self, breaker, *services, **more):
        targets = [{"address": f"127.0.0.1:{one.port}"} for one in services or [self.service]]
        return {"protocol": self.protocol, "targets": targets,
                "retries": {"attempts": 0}, "timeouts": PATIENT, "circuit_breaker": breaker,
                "outlier": {"max_ejected": 0}, **more}

    def config(self):
        again = {"attempts": 5, "statuses": [500], "budget": 1.0, "backoff": "1ms"}
        said = {"status": 203, "body": "[]", "headers": {"Content-Type": "application/json", "X-Instead": "yes"}}
        standby = {**LONG, "fallback": {"upstream": "standby"}}
        return {**super().config(), "workers": 2, "upstreams": {
            "quick": self.upstream(QUICK), "long": self.upstream(LONG), "again": self.upstream(LONG, retries=again),
            "quick_hangs": self.upstream(QUICK, timeouts=IMPATIENT),
            "slow": self.upstream({**LONG, "slow_call": "50ms", "slow_ratio": 0.5}),
            "late": self.upstream(LATE),
            "late_counts": self.upstream({**LATE, "window": "1m", "min_requests": 1000}),
            "late_ends": self.upstream({**LATE, "window": "1m", "min_requests": 1000}, timeouts={"response": "6s"}),
            "in_time": self.upstream({**LONG, "slow_call": "20s"}),
            "late_each": self.upstream({**LATE, "scope": "endpoint"}, self.service, self.other),
            "said": self.upstream({**LONG, "fallback": said}), "stood_in": self.upstream(standby),
            "standby": self.upstream(LONG, self.other),
            "each": self.upstream({**LONG, "scope": "endpoint"}, self.service, self.other),
            "each_quick": self.upstream({**QUICK, "scope": "endpoint"}, self.service, self.other),
        }, "rate_limits": {"few": {"key": "global", "default": {"rate": "1/h", "burst": 1}}}}

    def routes(self):
        names = ["quick_hangs", "quick", "long", "again", "slow", "late_counts", "late_ends", "late_each", "late", "in_time", "said", "stood_in",
                 "standby", "each", "each_quick"]
        return [{"name": "limited", "match": {"path": {"prefix": "/limited"}}, "upstream": "long", "rate_limits": ["few"], "timeout": "1s"},
                {"name": "small", "match": {"path": {"prefix": "/small"}}, "upstream": "long", "request_body_bytes": 10},
                *({"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in names)]

    # ---- what the admin API says and does ----

    def breakers(self, name):
        return json.loads(ask(self.gateway.admin_port, f"/api/v1/breakers/{name}").body)["breakers"]

    def state(self, name):
        return self.breakers(name)[0]["state"]

    def force(self, name, how):
        body = json.dumps({"force": how}) if how else None
        got = ask(self.gateway.admin_port, f"/api/v1/breakers/{name}", "PUT" if how else "DELETE", body)
        assert got.status == 200, got
        return json.loads(got.body)["breakers"]

    def gauge(self, name, endpoint=""):
        return self.metrics()[f'sallyport_breaker_state{{upstream="{name}",endpoint="{endpoint}"}}']

    def entered(self, name, state):
        return self.metrics()[f'sallyport_breaker_transitions_total{{upstream="{name}",to="{state}"}}']

    # ---- clients ----

    def get(self, name):
        return Raw(self.gateway.port).ask(request(f"/{name}"))

    def many(self, name, count):
        """The statuses of so many, each on its own connection, so that both workers have some."""
        return [self.get(name).status for _ in range(count)]

    def told(self, name, count):
        """Waits until the breaker has heard of so many: a worker tells it of a request after the client has the answer."""
        until(lambda: self.breakers(name)[0]["window"]["requests"] >= count, f"{count} requests in the window of {name}")

    def open(self, name):
        until(lambda: self.get(name).status == 503 or None, "an open breaker")

    def begin(self):
        for service in (self.service, self.other):
            service.become(200)
        for name in json.loads(ask(self.gateway.admin_port, "/api/v1/config").body)["upstreams"]:
            self.force(name, "closed")
            self.force(name, None)

    def end(self):
        until(lambda: all(one["answers"] and not one["exchanges"] and not one["lent_connections"]
                          for one in self.info()["workers"]), "no exchange and no lent connection")
        for service in (self.service, self.other):
            service.upstream.check()


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole(request, tmp_path_factory):
    with Breakers(tmp_path_factory.mktemp("breakers"), request.param) as wire:
        yield wire
        wire.service.close()
        wire.other.close()


@pytest.fixture
def wire(whole):
    whole.begin()
    yield whole
    whole.end()


# ---- open, and back ----

@pytest.mark.parametrize("failure", [500, 503, "reset"])
def test_opens_at_its_requests_and_fails_fast(wire, failure):
    wire.service.become(failure)
    assert wire.many("long", 6) == [502 if failure == "reset" else failure] * 6
    wire.told("long", 6)
    before = wire.service.seen
    got = wire.get("long")
    assert (got.status, got.json["code"]) == (503, "breaker_open")
    assert int(got.get("Retry-After")) in range(2800, 3601)
    assert wire.many("long", 30) == [503] * 30   # whichever worker is asked
    assert wire.service.seen == before
    assert wire.gauge("long") == OPEN
    [breaker] = wire.breakers("long")
    assert (breaker["state"], breaker["forced"], breaker["reason"]) == ("open", "automatic", "failure ratio")
    assert breaker["window"] == {"requests": 6, "failed": 6, "slow": 0}
    assert wire.ends("breaker_open") > 0
    wire.gateway.wait_log(r"upstream long: open \(failure ratio\) for \d+ ms, 6 of 6 requests failed, 0 were slow")


def test_comes_back_by_probes_and_a_ramp(wire):
    began = {state: wire.entered("quick", state) for state in ("closed", "open", "half-open", "ramping")}
    wire.service.become(500)
    wire.open("quick")
    wire.service.become(200)
    recovered = time.monotonic()
    while wire.get("quick").status != 200 or wire.gauge("quick") != CLOSED:
        assert time.monotonic() - recovered < 20
    entered = {state: wire.entered("quick", state) - count for state, count in began.items()}
    assert entered["ramping"] == entered["closed"] == 1
    assert entered["open"] == entered["half-open"] >= 1   # more, when the last of the failures was a probe
    assert wire.many("quick", 10) == [200] * 10


def test_a_failed_probe_opens_again(wire):
    wire.service.become(500)
    wire.open("quick")
    opened = wire.entered("quick", "open")
    wire.service.become(500)
    until(lambda: wire.get("quick").status == 500 or None, "a probe")
    until(lambda: wire.entered("quick", "open") > opened, "open again")
    wire.gateway.wait_log(r"(?m)upstream quick: open \(probe failed\) for \d+ ms$")
    assert wire.service.seen <= PROBES


def test_probes_in_flight_at_a_hanging_service(wire):
    """Many clients at a service that hangs: after it has opened it sees no more than its probes at a time."""
    wire.service.become("hang")
    stop = time.monotonic() + 60
    opened, codes = threading.Event(), set()

    def client():
        while time.monotonic() < stop and not done.is_set():
            got = wire.get("quick_hangs")
            codes.add(got.json["code"])
            if got.json["code"] == "breaker_open":
                opened.set()
                time.sleep(0.01)
    done = threading.Event()
    clients = [threading.Thread(target=client) for _ in range(16)]
    for one in clients:
        one.start()
    assert opened.wait(30)
    began = wire.entered("quick_hangs", "open")
    until(lambda: wire.entered("quick_hangs", "open") >= began + 2, "what was under way when it opened is over")
    wire.service.become("hang")
    began = wire.entered("quick_hangs", "open")
    until(lambda: wire.entered("quick_hangs", "open") >= began + 3, "three more rounds of probes")
    most = wire.service.most
    done.set()
    for one in clients:
        one.join()
    assert 1 <= most <= PROBES
    assert codes == {"upstream_timeout", "breaker_open"}


def test_nobody_listens(wire):
    wire.service.upstream.close()
    try:
        assert wire.many("long", 6) == [502] * 6
        wire.told("long", 6)
        assert wire.get("long").json["code"] == "breaker_open"
    finally:
        wire.service.upstream.reopen()
        wire.service.start()


def test_slow_answers_open_it(wire):
    wire.service.become(0.12)
    assert wire.many("slow", 6) == [200] * 6
    wire.told("slow", 6)
    assert wire.get("slow").status == 503
    assert wire.breakers("slow")[0]["reason"] == "slow ratio"


# ---- a service that hangs, known before it is given up ----

def hang_on(wire, name, count):
    """So many clients that wait, and since when. Closed by hand: what they wait for does not come."""
    wire.service.become("hang")
    began, clients = time.monotonic(), [Raw(wire.gateway.port) for _ in range(count)]
    for client in clients:
        client.send(request(f"/{name}"))
    return began, clients


def close_all(clients):
    for client in clients:
        client.reset()


def test_calls_that_hang_open_it_before_they_end(wire):
    assert wire.many("late", 30) == [200] * 30
    began, clients = hang_on(wire, "late", 8)   # and nobody comes after them
    until(lambda: wire.gauge("late") == OPEN, "an open breaker")
    assert LATE_MS / 1000 + 0.35 < time.monotonic() - began < IN_TIME   # slow_call, and a slice of the window in which nothing was good
    [breaker] = wire.breakers("late")
    slow = breaker["window"]["slow"]
    assert (breaker["reason"], breaker["window"]["failed"]) == ("nothing good", 0)
    assert 6 <= slow <= 8   # those that came a slice later than the first are not needed
    assert wire.get("late").json["code"] == "breaker_open"
    until(lambda: wire.service.flying == 8, "what was under way stays")
    close_all(clients)
    until(lambda: wire.service.flying == 0, "nothing under way")
    assert wire.breakers("late")[0]["window"]["slow"] == slow


def test_a_window_of_nothing_but_hanging_calls(wire):
    began, clients = hang_on(wire, "late", 6)
    until(lambda: wire.gauge("late") == OPEN, "an open breaker")
    assert time.monotonic() - began < IN_TIME
    [breaker] = wire.breakers("late")
    assert (breaker["reason"], breaker["window"]) == ("slow ratio", {"requests": 6, "failed": 0, "slow": 6})
    close_all(clients)


def test_probes_that_hang_open_it_again(wire):
    wire.force("late", "open")
    wire.force("late", None)
    assert wire.state("late") == "half-open"
    began, clients = hang_on(wire, "late", PROBES)
    until(lambda: wire.gauge("late") == OPEN, "an open breaker")
    assert time.monotonic() - began < IN_TIME
    assert wire.breakers("late")[0]["reason"] == "probes slow"
    close_all(clients)


def test_one_endpoint_hangs(wire):
    bad = f"127.0.0.1:{wire.service.port}"
    assert wire.many("late_each", 10) == [200] * 10
    wire.other.become(200)
    began, clients = hang_on(wire, "late_each", 30)   # one in two goes there, or more to the other that is quick
    until(lambda: wire.gauge("late_each", bad) == OPEN, "an open breaker")
    assert time.monotonic() - began < IN_TIME
    until(lambda: wire.service.flying + wire.other.seen == 30, "all of them at one of the two")
    flying = wire.service.flying
    assert wire.many("late_each", 10) == [200] * 10
    assert wire.service.flying == flying
    close_all(clients)


@pytest.mark.parametrize("name, mode, end, window", [
    ("late_counts", ("held", 200), 200, {"requests": 1, "failed": 0, "slow": 1}),
    ("late_counts", ("held", 404), 404, {"requests": 1, "failed": 0, "slow": 1}),
    ("late_counts", ("held", 500), 500, {"requests": 1, "failed": 1, "slow": 0}),
    ("late_counts", "hang", None, {"requests": 1, "failed": 0, "slow": 1}),
    ("late_ends", "hang", 504, {"requests": 1, "failed": 1, "slow": 0}),
    ("in_time", 200, 200, {"requests": 1, "failed": 0, "slow": 0})])
def test_a_late_call_counts_once(wire, name, mode, end, window):
    """end: what the client gets; None: it goes away."""
    wire.service.become(mode)
    with Raw(wire.gateway.port) as client:
        client.send(request(f"/{name}"))
        if name != "in_time":
            late = {"requests": 1, "failed": 0, "slow": 1}
            until(lambda: wire.breakers(name)[0]["window"] == late, "a slow call that has not ended")
            until(lambda: wire.service.flying == 1, "the call under way")
        wire.service.let_go.set()
        if end is None:
            client.reset()
            until(lambda: wire.service.flying == 0, "the call given up")
        else:
            assert client.response().status == end
    until(lambda: wire.breakers(name)[0]["window"] == window,   # a worker tells of it after the client has the answer
          lambda: f"{window}, not {wire.breakers(name)[0]['window']}")


def test_a_slow_upload_is_not_late(wire):
    with Raw(wire.gateway.port) as client:
        client.send(request("/late_counts", "POST", "Content-Length: 4"))
        client.send(b"ab")
        time.sleep(2 * LATE_MS / 1000)
        client.send(b"cd")
        assert client.response("POST").status == 200
    wire.told("late_counts", 1)
    assert wire.breakers("late_counts")[0]["window"] == {"requests": 1, "failed": 0, "slow": 0}


def test_a_slow_body_is_not_late(wire):
    wire.service.become("endless")
    with Raw(wire.gateway.port) as client:
        client.send(request("/late_counts"))
        assert client.head().status == 200
        time.sleep(2 * LATE_MS / 1000)
        assert wire.breakers("late_counts")[0]["window"]["slow"] == 0
        wire.service.let_go.set()
        client.reset()
    until(lambda: wire.service.flying == 0, "the answer over")


def test_a_shorter_slow_call_is_for_those_under_way_too(wire):
    config = json.loads(json.dumps(wire.gateway.config))
    config["upstreams"]["late_counts"]["circuit_breaker"]["slow_call"] = "30s"
    wire.gateway.write(config)
    wire.gateway.reload()
    _, clients = hang_on(wire, "late_counts", 3)
    until(lambda: wire.service.flying == 3, "the requests upstream")
    time.sleep(2 * LATE_MS / 1000)
    assert wire.breakers("late_counts")[0]["window"]["slow"] == 0
    wire.gateway.write(wire.gateway.config)
    wire.gateway.reload()
    until(lambda: wire.breakers("late_counts")[0]["window"]["slow"] == 3, "slow calls")
    close_all(clients)


def test_an_answer_without_end_is_a_good_probe(wire):
    wire.service.become(500)
    wire.open("quick")
    wire.service.become("endless")
    clients = []
    try:
        def is_good():
            clients.append(Raw(wire.gateway.port))
            clients[-1].send(request("/quick"))
            if clients[-1].head().status == 200:
                return wire.gauge("quick") in (RAMPING, CLOSED)
            clients.pop().close()
            return False
        until(is_good, "probes that are good before they end")
    finally:
        wire.service.let_go.set()
        for client in clients:
            client.close()


def test_an_answer_that_breaks_off_is_a_failed_probe(wire):
    wire.service.become(500)
    wire.open("quick")
    wire.service.become("broken")

    def opens_again(opened):
        with Raw(wire.gateway.port) as client, contextlib.suppress(ConnectionError, Incomplete):
            client.ask(request("/quick"))   # to its end: who goes before that says nothing against it
        return wire.entered("quick", "open") >= opened + 3

    def never_ramps():
        opened, ramped = wire.entered("quick", "open"), wire.entered("quick", "ramping")
        until(lambda: opens_again(opened), "three rounds of probes")
        return wire.entered("quick", "ramping") == ramped
    until(never_ramps, "rounds of probes none of which lasted on a busy machine")


# ---- what never opens it ----

def test_clients_do_not_open_it(wire):
    wire.service.become(404)
    assert set(wire.many("long", 20)) == {404}
    wire.service.become("hang")
    for _ in range(20):
        with Raw(wire.gateway.port) as client:
            seen = wire.service.seen
            client.send(request("/long"))
            until(lambda: wire.service.seen > seen, "the request upstream")   # noqa: B023
            client.reset()
    until(lambda: wire.service.flying == 0, "all of them given up")
    assert set(wire.many("limited", 20)) <= {504, 429}
    got = [Raw(wire.gateway.port).ask(request("/small", "POST", body=b"x" * 20), "POST").status for _ in range(20)]
    assert set(got) == {413}
    assert wire.state("long") == "closed"
    wire.service.become(200)
    assert wire.many("long", 5) == [200] * 5
    assert wire.breakers("long")[0]["window"]["failed"] <= 1   # the one that the limit let through


# ---- retries ----

def test_a_stream_that_the_route_cuts_says_nothing(make, make_echo):
    """It goes on: the route is for shorter ones. One that stands still is another matter."""
    echo = make_echo()
    gateway = make({"upstreams": {"u": {"targets": [{"address": f"127.0.0.1:{echo.port}"}], "circuit_breaker": LONG}},
                    "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "u", "timeout": "1s"}]}).start()

    def cut(path):
        clients = [Raw(gateway.port).send(request(path)) for _ in range(6)]
        for client in clients:
            assert client.head().status == 200
            with contextlib.suppress(ConnectionError):
                while client.more():
                    pass
            client.close()
        gateway.wait_rest()
        return json.loads(ask(gateway.admin_port, "/api/v1/breakers/u").body)["breakers"][0]["window"]
    assert cut("/stream?n=100&chunk=10&delay_ms=20") == {"requests": 6, "failed": 0, "slow": 0}
    assert cut("/?misbehave=stall_chunked=10") == {"requests": 12, "failed": 6, "slow": 0}


def test_retries_ask_too(wire):
    wire.service.become(500)
    got = wire.get("again")   # 1 + 5 tries: the breaker opens at the sixth
    assert (got.status, wire.service.seen) == (500, 6)
    wire.told("again", 6)
    got = wire.get("again")
    assert (got.json["code"], wire.service.seen) == ("breaker_open", 6)
    wire.force("again", "closed")
    wire.force("again", None)
    wire.service.become(500)
    wire.get("again")
    wire.told("again", 6)
    assert wire.many("again", 2) == [503, 503]
    assert wire.service.seen == 6


# ---- by hand ----

def test_forced_open_and_closed(wire):
    [breaker] = wire.force("long", "open")
    assert (breaker["state"], breaker["forced"], breaker["reason"]) == ("open", "open", "forced")
    assert wire.many("long", 10) == [503] * 10 and wire.service.seen == 0
    assert int(wire.get("long").get("Retry-After")) >= 1
    wire.gateway.reload()
    assert wire.get("long").status == 503
    [breaker] = wire.force("long", None)
    assert (breaker["state"], breaker["forced"]) == ("half-open", "automatic")
    until(lambda: wire.get("long").status == 200 and wire.state("long") == "closed", "closed by itself")
    wire.force("long", "closed")
    wire.service.become(500)
    assert wire.many("long", 20) == [500] * 20
    assert wire.state("long") == "closed"


def test_an_open_one_forced_open_has_not_opened_again(wire):
    def openings():
        return wire.entered("long", "open"), wire.breakers("long")[0]["openings"]
    wire.service.become(500)
    until(lambda: wire.get("long").status == 503 and wire.state("long") == "open", "open by itself")
    before = openings()
    [breaker] = wire.force("long", "open")
    assert (breaker["state"], breaker["reason"]) == ("open", "forced")
    assert openings() == before
    wire.force("long", "closed")
    wire.force("long", "open")
    assert openings() == tuple(count + 1 for count in before)


@pytest.mark.parametrize("method, path, body, status", [
    ("PUT", "nobody", '{"force": "open"}', 404), ("GET", "nobody", None, 404), ("DELETE", "nobody", None, 404),
    ("PUT", "long", '{"force": "ajar"}', 400), ("PUT", "long", '{"force": 1}', 400), ("PUT", "long", "open", 400),
    ("PUT", "long", None, 400), ("PUT", "long?endpoint=127.0.0.1:1", '{"force": "open"}', 404), ("PUT", "long?x=1", "{}", 400),
    ("PUT", "long?endpoint=%zz", "{}", 400), ("POST", "long", '{"force": "open"}', 405)])
def test_mistakes_of_hands(wire, method, path, body, status):
    assert ask(wire.gateway.admin_port, f"/api/v1/breakers/{path}", method, body).status == status
    assert wire.state("long") == "closed"


def test_a_reload_keeps_it(wire):
    wire.service.become(500)
    wire.open("long")
    config = json.loads(json.dumps(wire.gateway.config))
    config["upstreams"]["long"]["circuit_breaker"]["window"] = "3s"
    wire.gateway.write(config)
    wire.gateway.reload()
    seen = wire.service.seen
    assert wire.many("long", 10) == [503] * 10 and wire.service.seen == seen
    wire.gateway.write(wire.gateway.config)
    wire.gateway.reload()
    assert wire.state("long") == "open"


# ---- what stands in ----

def test_a_response_stands_in(wire):
    wire.service.become(500)
    until(lambda: wire.get("said").status != 500 or None, "an open breaker")
    got = wire.get("said")
    assert (got.status, got.body, got.get("Content-Type"), got.get("X-Instead")) == (203, b"[]", "application/json", "yes")


def test_what_stands_in_is_no_tunnel(wire):
    """To a WebSocket over HTTP/2 any 2xx would be one (RFC 8441 5)."""
    wire.force("said", "open")
    client = H2Client(wire.gateway.port)
    try:
        got = client.begin_request("/said", "CONNECT", "sec-websocket-version: 13", protocol="websocket", end=False).whole()
        assert (got.status, got.json["code"]) == \
            ((501, "not_implemented") if wire.protocol == "h2" else (503, "breaker_open"))   # HTTP/2 has no Upgrade
        assert client.ask("/said").status == 203
    finally:
        client.close()


def test_another_upstream_stands_in(wire):
    wire.service.become(500)
    until(lambda: wire.get("stood_in").status != 500 or None, "an open breaker")
    wire.other.become(200)
    got = Raw(wire.gateway.port).ask(request("/stood_in", "POST", body=b"b" * 5000), "POST")
    assert (got.status, got.body, wire.other.seen) == (200, b"done", 1)
    wire.force("standby", "open")   # its own breaker is asked
    assert wire.get("stood_in").json["code"] == "breaker_open"
    assert wire.other.seen == 1


# ---- one for each endpoint ----

def test_an_open_endpoint_is_not_chosen(wire):
    wire.service.become(500)
    until(lambda: any(one["state"] == "open" for one in wire.breakers("each")) or wire.get("each") is None, "one open")
    wire.service.become(500)
    assert wire.many("each", 20) == [200] * 20
    assert wire.service.seen == 0
    bad, good = f"127.0.0.1:{wire.service.port}", f"127.0.0.1:{wire.other.port}"
    assert (wire.gauge("each", bad), wire.gauge("each", good)) == (OPEN, CLOSED)
    wire.force(f"each?endpoint={good}", "open")
    got = wire.get("each")
    assert (got.status, got.json["code"]) == (503, "breaker_open")
    assert int(got.get("Retry-After")) in range(2800, 3601)   # when the one that was not forced may be asked
    wire.force(f"each?endpoint={good}", None)
    assert wire.get("each").status == 200


def test_an_endpoint_comes_back(wire):
    wire.service.become(500)
    bad = f"127.0.0.1:{wire.service.port}"
    until(lambda: wire.gauge("each_quick", bad) == OPEN or wire.get("each_quick") is None, "open")
    wire.service.become(200)
    until(lambda: wire.get("each_quick").status == 200 and wire.gauge("each_quick", bad) == CLOSED, "closed again")
    until(lambda: wire.get("each_quick").status == 200 and wire.service.seen >= 5, "its share")


# ---- gRPC ----

@pytest.fixture
def grpc_wire(make):
    service = GrpcService(free_port(), threads=8)
    gateway = make({"workers": 2, "upstreams": {"u": {
        "protocol": "h2", "targets": [{"address": f"127.0.0.1:{service.port}"}], "timeouts": PATIENT,
        "circuit_breaker": {**LONG, "slow_call": f"{LATE_MS}ms"}}},
        "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]}).start()
    client = GrpcClient(gateway.port)
    yield client, service, gateway
    client.close()
    service.close()


def test_grpc_statuses(grpc_wire):
    client, service, gateway = grpc_wire
    for harmless in (b"5 not found", b"3 bad", b"7 denied", b"8 too much", b"12 no such method", b"1 cancelled"):
        for _ in range(3):
            client.fails(lambda: client.unary("Fail", harmless))   # noqa: B023
    for _ in range(6):   # the client's own deadline
        assert client.fails(lambda: client.unary("Hang", timeout=0.05))[0] == "DEADLINE_EXCEEDED"
    assert client.unary("Unary", b"hello")[0] == b"hello"
    for _ in range(40):
        if client.fails(lambda: client.unary("Fail", b"14 away"))[1] != "away":
            break
    code, words = client.fails(lambda: client.unary("Unary", b"hello"))
    assert (code, "not asked" in words) == ("UNAVAILABLE", True)
    assert gateway.metrics()['sallyport_breaker_state{upstream="u",endpoint=""}'] == OPEN
    seen = len(service.calls)
    for _ in range(5):
        client.fails(lambda: client.unary("Unary", b"hello"))
    assert len(service.calls) == seen


def test_a_grpc_status_in_trailers_is_the_word_of_a_probe(grpc_wire):
    client, _, gateway = grpc_wire
    path = "/api/v1/breakers/u"
    for method, body in (("PUT", json.dumps({"force": "open"})), ("DELETE", None)):   # it probes first
        assert ask(gateway.admin_port, path, method, body).status == 200
    assert client.fails(lambda: client.unary("Late", b"14 away")) == ("UNAVAILABLE", "away")

    def breaker():
        return json.loads(ask(gateway.admin_port, path).body)["breakers"][0]
    until(lambda: breaker()["state"] != "half-open", "what the probe has said")
    assert (breaker()["state"], breaker()["reason"]) == ("open", "probe failed")


def test_grpc_calls_that_hang(grpc_wire):
    client, _, gateway = grpc_wire
    state = 'sallyport_breaker_state{upstream="u",endpoint=""}'
    began, calls = time.monotonic(), [client.begin("Hang") for _ in range(6)]
    until(lambda: gateway.metrics()[state] == OPEN, "an open breaker")
    assert time.monotonic() - began < IN_TIME
    code, words = client.fails(lambda: client.unary("Unary", b"hello"))
    assert (code, "not asked" in words) == ("UNAVAILABLE", True)
    [breaker] = json.loads(ask(gateway.admin_port, "/api/v1/breakers/u").body)["breakers"]
    assert (breaker["window"]["failed"], breaker["window"]["slow"]) == (0, 6)
    for call in calls:
        call.cancel()
