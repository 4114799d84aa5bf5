"""gRPC through the gateway, with python3-grpcio on both ends: HTTP/2 with and without TLS on each side."""
import itertools
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import grpc_peers
from gateway import Gateway, ask, free_port, logged, until
from grpc_peers import NOT_SERVING, SERVING, WAIT, Client, Service
from peers import Raw, request

import grpc   # noqa: I100  (grpc_peers sets its environment)

HOSTS = {"h2c": "plain.example", "tls": "secure.example"}


class Stage:
    """A gateway between clients and one service that has a port for each kind of HTTP/2."""

    def __init__(self, directory, pki):
        server = pki.ca.issue("s.example")
        self.ports = {"h2c": free_port(), "tls": free_port()}
        credentials = grpc.ssl_server_credentials([(server.key.read_bytes(), server.cert.read_bytes())])
        self.services = {"h2c": Service(free_port()), "tls": Service(free_port(), credentials)}
        self.dead = free_port()
        self.root = pki.ca.own.pem
        certificate = pki.ca.issue("a.example", *HOSTS.values())
        upstream = lambda name, **more: {   # noqa: E731
            "protocol": "h2", "targets": [{"address": f"127.0.0.1:{self.services[name].port}"}], **more}
        route = lambda name, path, upstream="h2c", **more: {   # noqa: E731
            "name": name, "match": {"path": path}, "upstream": upstream, **more}
        self.log = directory / "access.log"
        self.gateway = Gateway(directory, {
            "workers": 1,
            "listeners": [
                {"name": "h2c", "address": f"127.0.0.1:{self.ports['h2c']}", "limits": {"body_bytes": "64MiB"}},
                {"name": "tls", "address": f"127.0.0.1:{self.ports['tls']}", "limits": {"body_bytes": "64MiB"},
                 "tls": {"certificates": [certificate.files]}}],
            "upstreams": {"h2c": upstream("h2c"), "tls": upstream("tls", tls={"ca": pki.ca.file, "server_name": "s.example"}),
                          "dead": {"protocol": "h2", "targets": [{"address": f"127.0.0.1:{self.dead}"}]}},
            "routes": [
                *({"name": f"echo-{name}", "match": {"hosts": [host], "path": {"prefix": "/demo.Echo"}}, "upstream": name,
                   "timeout": "60s"} for name, host in HOSTS.items()),
                route("echo", {"prefix": "/demo.Echo"}, timeout="60s"),
                route("other", {"exact": "/demo.Other/Unary"}),
                route("hurry", {"prefix": "/hurry"}, timeout="2s", rewrite={"prefix": "/"}),
                route("tiny", {"prefix": "/tiny"}, request_body_bytes=1000, rewrite={"prefix": "/"}),
                route("dead", {"prefix": "/dead"}, "dead"),
                {"name": "denied", "match": {"path": {"prefix": "/denied"}}, "upstream": "h2c", "ip": {"deny": ["127.0.0.0/8"]}},
            ],
            "telemetry": {"access_log": {"output": str(self.log)}}, "drain": {"delay": "0s", "timeout": "20s"}})
        self.gateway.start()
        self.clients = []

    def client(self, kind="h2c", authority="a.example", **more):
        self.clients.append(Client(self.ports[kind], authority, self.root if kind == "tls" else None, **more))
        return self.clients[-1]

    def record(self, want):
        """The line of the access log with it."""
        return logged(self.log, want)[0]

    def end(self):
        for client in self.clients:
            client.close()
        self.clients.clear()
        for service in self.services.values():
            service.release.set()
        self.gateway.wait_rest()
        for service in self.services.values():
            service.release.clear()
            service.calls.clear()
            while service.cancelled.acquire(blocking=False):
                pass

    def close(self):
        try:
            self.gateway.stop()
        finally:
            self.gateway.kill()
            for service in self.services.values():
                service.close()


@pytest.fixture(scope="module")
def whole_stage(tmp_path_factory, pki):
    stage = Stage(tmp_path_factory.mktemp("grpc"), pki)
    yield stage
    stage.close()


@pytest.fixture
def stage(whole_stage):
    yield whole_stage
    whole_stage.end()


@pytest.fixture(params=list(itertools.product(("h2c", "tls"), ("h2c", "tls"))), ids=lambda p: f"{p[0]} to {p[1]}")
def client(request, stage):
    """Through each kind of HTTP/2 on either side."""
    front, back = request.param
    made = stage.client(front, HOSTS[back])
    made.far = stage.services[back]
    return made


class Talk:
    """What a client says in a stream, one by one."""

    def __init__(self):
        self.queue = queue.Queue()

    def say(self, message):
        self.queue.put(message)

    def end(self):
        self.queue.put(None)

    def __iter__(self):
        return self

    def __next__(self):
        message = self.queue.get()
        if message is None:
            raise StopIteration
        return message


# ---- the four kinds of calls ----

def test_unary(client):
    response, call = client.unary("Unary", b"hello", metadata=(("x-sent", "this"), ("x-bytes-bin", b"\1\2\0\xfe")))
    assert response == b"hello" and call.code() is grpc.StatusCode.OK
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert initial["x-initial"] == "one" and initial["x-seen"] == "this" and "x-request-id" in initial
    assert trailing["x-trailing"] == "two" and trailing["x-bytes-bin"] == b"\1\2\0\xfe"
    assert "x-trailing" not in initial and "x-initial" not in trailing
    (_, seen), = client.far.calls
    assert seen["x-sent"] == "this" and seen["x-bytes-bin"] == b"\1\2\0\xfe" and "python" in seen["user-agent"]
    assert seen["x-forwarded-for"] == "127.0.0.1"


def test_an_empty_message(client):
    assert client.unary("Unary", b"")[0] == b""


def test_client_streaming(client):
    assert client.collect(iter([b"x" * n for n in range(100)])) == b"100 4950"
    assert client.collect(iter([])) == b"0 0"


def test_server_streaming(client):
    got = list(client.count(b"200 50"))
    assert len(got) == 200 and got[199].startswith(b"199 ")
    assert list(client.count(b"0 1")) == []


def test_bidirectional_streaming(client):
    """Each message is answered before the next is said."""
    talk = Talk()
    call = client.chat(talk)
    for i in range(50):
        talk.say(b"%d" % i)
        assert next(call) == b"you said %d" % i
    talk.end()
    assert list(call) == [] and call.code() is grpc.StatusCode.OK


def test_the_service_ends_a_stream_first(client):
    talk = Talk()
    call = client.chat(talk)
    talk.say(b"a")
    assert next(call) == b"you said a"
    talk.say(b"bye")
    assert list(call) == [] and call.code() is grpc.StatusCode.OK
    talk.end()


def test_an_answer_before_all_is_said(client):
    """The client goes on talking; the service has heard enough."""
    talk = Talk()
    talk.say(b"first")
    call = client.channel.stream_unary(client.path("Hasty")).future(talk, timeout=WAIT)
    assert call.result(timeout=WAIT) == b"enough: first"
    talk.end()


# ---- statuses ----

@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 8, 9, 13, 14, 16])
def test_statuses_of_the_service(stage, number):
    client = stage.client()
    words = "not, because: 100 % ünïcode\n\"quoted\""
    with pytest.raises(grpc.RpcError) as caught:
        client.unary("Fail", f"{number} {words}".encode())
    assert caught.value.code().value[0] == number and caught.value.details() == words
    assert dict(caught.value.trailing_metadata())["x-why"] == "because"
    assert stage.services["h2c"].count_of("Fail") == 1   # nothing was tried again


def test_a_stream_that_fails_in_the_middle(client):
    talk = Talk()
    call = client.chat(talk)
    talk.say(b"a")
    assert next(call) == b"you said a"
    talk.say(b"break")
    assert client.fails(lambda: call) == ("DATA_LOSS", "as you say")
    talk.end()


def test_an_unknown_method(client):
    assert client.fails(lambda: client.unary("Nothing"))[0] == "UNIMPLEMENTED"


# ---- what the gateway says itself ----

@pytest.mark.parametrize("kind", ["h2c", "tls"])
@pytest.mark.parametrize("path, status, code", [
    ("/nobody.Knows/It", "UNIMPLEMENTED", "no_route"), ("/dead/Unary", "UNAVAILABLE", "upstream_connect_failed"),
    ("/denied/Unary", "PERMISSION_DENIED", "ip_denied")])
def test_errors_of_the_gateway(stage, kind, path, status, code):
    client = stage.client(kind)
    with pytest.raises(grpc.RpcError) as caught:
        client.unary(path, b"x")
    assert caught.value.code().name == status and caught.value.details()
    metadata = {**dict(caught.value.initial_metadata() or ()), **dict(caught.value.trailing_metadata() or ())}
    want = metadata["x-request-id"]
    line = stage.record(want)
    assert line["code"] == code and line["protocol"].startswith("HTTP/2")


def test_the_routes_timeout(stage):
    """The service knows of it, and may be the first to say so."""
    client = stage.client()
    assert client.fails(lambda: client.unary("/hurry/demo.Echo/Hang"))[0] == "DEADLINE_EXCEEDED"
    assert stage.services["h2c"].cancelled.acquire(timeout=WAIT)


def test_a_body_that_is_too_large(stage):
    client = stage.client()
    assert client.unary("/tiny/demo.Echo/Unary", b"x" * 900)[0] == b"x" * 900
    assert client.fails(lambda: client.unary("/tiny/demo.Echo/Unary", b"x" * 2000))[0] == "RESOURCE_EXHAUSTED"
    assert client.fails(lambda: client.collect(iter([b"x" * 300] * 10), "/tiny/demo.Echo/Collect"))[0] == "RESOURCE_EXHAUSTED"
    assert client.unary("Unary", b"still")[0] == b"still"


def test_routing_by_service_and_method(stage):
    client, mark = stage.client(), ("x-asked-by", "routing")
    assert client.unary("/demo.Other/Unary", b"x", metadata=[mark])[0] == b"other x"
    for path in ("/demo.Other/Else", "/demo.EchoTwo/Unary"):   # a prefix is whole segments
        assert client.fails(lambda: client.unary(path, metadata=[mark]))[0] == "UNIMPLEMENTED"   # noqa: B023
    # Calls that were given up in the test before may still come to the service's threads.
    assert not [call for call, metadata in stage.services["h2c"].calls if mark in metadata.items()]


# ---- deadlines ----

def test_the_deadline_goes_on(client):
    left = float(client.unary("Remaining", timeout=20)[0])
    assert 10 < left <= 20.1   # grpcio rounds up
    metadata = client.far.calls[0][1]
    assert "grpc-timeout" not in metadata   # grpcio keeps it to itself: time_remaining


def test_the_routes_timeout_is_a_deadline(stage):
    left = float(stage.client().unary("/hurry/demo.Echo/Remaining", timeout=20)[0])
    assert 0 < left <= 2.1   # grpcio rounds up


def test_the_shorter_deadline_counts(client):
    began = time.monotonic()
    assert client.fails(lambda: client.unary("Hang", timeout=1.5))[0] == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < 10
    assert client.far.cancelled.acquire(timeout=WAIT)   # the service is told to stop


@pytest.mark.parametrize("timeout", ["2000m", "2000000u"])
def test_the_gateway_keeps_the_deadline_itself(stage, timeout):
    """A client over HTTP/1.1 that keeps none."""
    began, raw = time.monotonic(), Raw(stage.ports["h2c"])
    got = raw.ask(request("/demo.Echo/Hang", "POST", "Content-Type: application/grpc", "TE: trailers", f"grpc-timeout: {timeout}",
                          body=b"\0\0\0\0\0"))
    assert got.status == 200 and got.get("grpc-status") == "4" and got.body == b""
    assert 1.9 < time.monotonic() - began < 10
    assert stage.services["h2c"].cancelled.acquire(timeout=WAIT)
    raw.close()


def test_a_deadline_in_the_middle_of_a_stream(stage):
    client = stage.client()
    got, call = [], client.count(b"10 10 1", timeout=3)
    with pytest.raises(grpc.RpcError) as caught:
        for one in call:
            got.append(one)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED and len(got) == 5
    call = client.count(b"10 10 1", "/hurry/demo.Echo/Count")   # the gateway's: in the trailers
    got = []
    with pytest.raises(grpc.RpcError) as caught:
        for one in call:
            got.append(one)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED and len(got) == 5, caught.value


def test_cancellation(client):
    call = client.begin("Hang")
    until(lambda: client.far.count_of("Hang"), "the call at the service")
    call.cancel()
    assert client.far.cancelled.acquire(timeout=WAIT)
    stream = client.count(b"10 10 1")
    assert next(stream).startswith(b"0 ")
    stream.cancel()
    assert client.far.cancelled.acquire(timeout=WAIT)
    assert client.unary("Unary", b"next")[0] == b"next"


def test_a_client_that_goes_away(stage):
    client = stage.client("tls")
    hanging = client.begin("Hang")
    until(lambda: stage.services["h2c"].count_of("Hang"), "the call at the service")
    client.close()
    assert stage.services["h2c"].cancelled.acquire(timeout=WAIT)
    until(hanging.done, "the call's end at the client")


# ---- much of it ----

def test_big_messages(client):
    message = os.urandom(1 << 20) * 12
    assert client.unary("Unary", message)[0] == message


def test_a_big_stream(client):
    total = sum(len(one) for one in client.count(b"300 100000"))
    assert total == 300 * 100000
    assert client.collect(b"y" * 100000 for _ in range(200)) == b"200 20000000"


def test_compression(client):
    message = b"again " * 10000
    assert client.unary("Unary", message, compression=grpc.Compression.Gzip)[0] == message


@pytest.mark.parametrize("kind", ["h2c", "tls"])
def test_a_hundred_streams_at_once(stage, kind):
    client = stage.client(kind, HOSTS[kind])
    talks = [Talk() for _ in range(100)]
    calls = [client.chat(talk) for talk in talks]
    for turn in range(3):
        for i, talk in enumerate(talks):
            talk.say(b"%d.%d" % (turn, i))
        for i, call in enumerate(calls):
            assert next(call) == b"you said %d.%d" % (turn, i)
    state, = stage.gateway.workers_info()
    assert state["exchanges"] == 100
    for talk in talks:
        talk.end()
    assert all(list(call) == [] for call in calls)
    metrics = stage.gateway.metrics()
    connections = sum(metrics.get(f'sallyport_upstream_connections{{upstream="{kind}",state="{state}"}}', 0)
                      for state in ("active", "idle"))
    assert 0 < connections <= 10   # shared by the streams


def test_more_calls_than_streams(stage):
    client = stage.client()
    calls = [client.begin("Unary", b"%d" % i) for i in range(400)]
    assert [call.result(timeout=WAIT) for call in calls] == [b"%d" % i for i in range(400)]


# ---- services that die, gateways that end ----

@pytest.fixture
def mortal():
    """A service in a process of its own; start() as often as wanted."""
    class Mortal:
        port, process = free_port(), None

        def start(self):
            self.process = subprocess.Popen([sys.executable, grpc_peers.__file__, str(self.port)], stdout=subprocess.PIPE)
            assert self.process.stdout.readline() == b"ready\n"

        def kill(self):
            if self.process:
                self.process.kill()
                self.process.wait()
                self.process.stdout.close()
                self.process = None

    service = Mortal()
    service.start()
    yield service
    service.kill()


def to(make, port, **upstream):
    return make({"workers": 1, "upstreams": {"u": {"protocol": "h2", "targets": [{"address": f"127.0.0.1:{port}"}], **upstream}},
                 "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "u", "timeout": "0s"}],
                 "telemetry": {"access_log": {"output": "off"}}})


def test_a_service_that_is_killed(make, mortal):
    gateway = to(make, mortal.port).start()
    client, talk = Client(gateway.port), Talk()
    stream, hanging = client.chat(talk), client.begin("Hang")
    talk.say(b"a")
    assert next(stream) == b"you said a"
    mortal.kill()
    assert client.fails(lambda: stream)[0] == "UNAVAILABLE"
    with pytest.raises(grpc.RpcError) as caught:
        hanging.result(timeout=WAIT)
    assert caught.value.code().name == "UNAVAILABLE"
    talk.end()
    assert client.fails(lambda: client.unary("Unary", b"b"))[0] == "UNAVAILABLE"
    mortal.start()
    until(lambda: works(client), "calls that work again")
    client.close()
    gateway.stop()


def works(client):
    try:
        return client.unary("Unary", b"c")[0] == b"c"
    except grpc.RpcError:
        return False


def test_a_service_that_stops_in_order(make):
    """Its GOAWAY: the stream that lives ends well, calls after it go to the one that follows."""
    first = Service(free_port())
    gateway = to(make, first.port).start()
    client = Client(gateway.port)
    stream = client.count(b"10 10 1")
    got = [next(stream) for _ in range(5)]
    stopping = first.server.stop(WAIT)
    first.release.set()
    got += list(stream)
    assert len(got) == 10
    assert stopping.wait(WAIT)
    second = Service(first.port)
    until(lambda: works(client), "calls that work again")
    client.close()
    gateway.stop()
    second.close()


@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "tls"])
def test_drain_with_live_streams(make, pki, tls):
    """GOAWAY: the streams that live end well, none begins on that connection, then the program ends."""
    service = Service(free_port())
    gateway = to(make, service.port)
    root = None
    if tls:
        gateway.config["listeners"][0]["tls"] = {"certificates": [pki.ca.issue("a.example").files]}
        gateway.write(gateway.config)
        root = pki.ca.own.pem
    gateway.start()
    client, idle, talk = Client(gateway.port, root=root), Client(gateway.port, root=root), Talk()
    assert idle.unary("Unary", b"x")[0] == b"x"
    stream = client.chat(talk)
    talk.say(b"a")
    assert next(stream) == b"you said a"
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.ready() != 200, "the drain has begun")
    for i in range(10):
        talk.say(b"%d" % i)
        assert next(stream) == b"you said %d" % i
    assert client.fails(lambda: client.unary("Unary", b"late", timeout=5))[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert gateway.process.poll() is None
    talk.end()
    assert list(stream) == [] and stream.code() is grpc.StatusCode.OK
    assert gateway.wait() == 0, gateway.log()
    client.close()
    idle.close()
    service.close()


def test_streams_live_through_reloads(make):
    service = Service(free_port())
    gateway = to(make, service.port).start()
    client, talk = Client(gateway.port), Talk()
    stream = client.chat(talk)
    for i in range(3):
        talk.say(b"%d" % i)
        assert next(stream) == b"you said %d" % i
        gateway.reload_everywhere({**gateway.config, "drain": {"delay": "0s", "timeout": f"{20 + i}s"}})
    talk.end()
    assert list(stream) == []
    client.close()
    gateway.stop()
    service.close()


# ---- health checks ----

def test_health_checks(make):
    services = [Service(free_port()) for _ in range(2)]
    one, two = services
    for service in services:
        service.health["demo.Echo"] = SERVING
    gateway = make({"upstreams": {"u": {
        "protocol": "h2", "targets": [{"address": f"127.0.0.1:{service.port}"} for service in services], "panic_threshold": 0,
        "health_check": {"grpc": "demo.Echo", "interval": "1s", "timeout": "1s", "healthy": 1, "unhealthy": 2}}},
        "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]}).start()

    def up(service):
        name = f'sallyport_upstream_endpoint_up{{upstream="u",endpoint="127.0.0.1:{service.port}"}}'
        return gateway.metrics().get(name)

    until(lambda: all(service.count_of("Check") for service in services), "checks of both")
    until(lambda: up(one) == up(two) == 1, lambda: f"both up\n{gateway.log()}")
    client = Client(gateway.port)

    one.health["demo.Echo"] = NOT_SERVING
    until(lambda: up(one) == 0, "the one that says NOT_SERVING is out")
    before = one.count_of("Unary")
    for i in range(10):
        assert client.unary("Unary", b"x")[0] == b"x"
    assert one.count_of("Unary") == before and two.count_of("Unary") >= 10
    assert "NOT_SERVING" in ask(gateway.admin_port, "/api/v1/upstreams").body.decode()

    del one.health["demo.Echo"]   # NOT_FOUND
    checks = one.count_of("Check")
    until(lambda: one.count_of("Check") > checks + 2, "more checks")
    assert up(one) == 0
    one.health["demo.Echo"] = SERVING
    until(lambda: up(one) == 1, "in again")
    until(lambda: client.unary("Unary", b"x") and one.count_of("Unary") > before, "calls to it")

    two.close()
    until(lambda: up(two) == 0, "the one that has gone is out")
    client.close()
    gateway.stop()
    one.close()


def test_checks_of_the_server_as_a_whole_over_tls(make, pki):
    server = pki.ca.issue("s.example")
    service = Service(free_port(), grpc.ssl_server_credentials([(server.key.read_bytes(), server.cert.read_bytes())]))
    gateway = to(make, service.port, tls={"ca": pki.ca.file, "server_name": "s.example"},
                 health_check={"grpc": "", "interval": "1s", "timeout": "1s", "healthy": 1, "unhealthy": 2}).start()
    name = f'sallyport_upstream_endpoint_up{{upstream="u",endpoint="127.0.0.1:{service.port}"}}'
    until(lambda: service.count_of("Check") > 1 and gateway.metrics().get(name) == 1, "a good check")
    service.health[""] = NOT_SERVING
    until(lambda: gateway.metrics().get(name) == 0, "a bad check")
    gateway.stop()
    service.close()


# ---- records ----

def test_records(stage):
    client = stage.client("tls")
    _, call = client.unary("Unary", b"x" * 100)
    want = dict(call.initial_metadata())["x-request-id"]
    line = stage.record(want)
    assert re.fullmatch(r"HTTP/2(\.0)?", line["protocol"]) and line["method"] == "POST" and line["path"] == "/demo.Echo/Unary"
    assert line["status"] == 200 and line["code"] == "ok" and line["bytes_in"] == line["bytes_out"] == 105
