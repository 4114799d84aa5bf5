"""Overload of the gateway itself: descriptors, memory and the workers' time are short, and requests of low priority are
answered with 503 first. Descriptors are taken away from the running process; memory and time are short by low bounds.
"""
import json
import pathlib
import resource
import threading
import time

import pytest

from gateway import DEADLINE, Client, ask, until
from h2_peers import H2Client
from peers import Raw, Upstream, answer, request

PRIORITIES = ("low", "normal", "high", "critical")


def route(priority):
    return {"name": priority, "match": {"path": {"prefix": f"/{priority}"}}, "upstream": "main", "priority": priority}


def config(upstream, overload, **more):
    return {"workers": 1, "overload": overload, "routes": [route(each) for each in PRIORITIES],
            "upstreams": {"main": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]}}, **more}


@pytest.fixture
def upstream():
    made = Upstream()
    yield made
    made.close()


def pressure(gateway, name):
    return gateway.metrics()[f'sallyport_overload_pressure{{resource="{name}"}}']


def resident(gateway):
    fields = pathlib.Path(f"/proc/{gateway.worker()}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_bounds(used, wanted, limit=1 << 30):
    """Bounds between which what is used makes this pressure, and some growth (AddressSanitizer's) little more."""
    share = used / limit
    width = 1.8 * share
    soft = share - width * wanted / 3
    return {"memory_limit": limit, "memory": {"soft": soft, "hard": soft + width}}


def statuses(send, priority, count=40):
    return [send(f"/{priority}").status for _ in range(count)]


def test_low_priorities_are_turned_away_first(make, upstream):
    gateway = make(config(upstream, {"enabled": True})).start()
    assert all(ask(gateway.port, f"/{each}").status == 200 for each in PRIORITIES)
    assert pressure(gateway, "memory") == 0
    gateway.reload(gateway.complete(config(upstream, memory_bounds(resident(gateway), 1.3)), None))
    gateway.wait_log("overload: memory: .* normal priority are turned away")
    until(lambda: 1.1 < pressure(gateway, "memory") < 1.9, lambda: f"some pressure: {pressure(gateway, 'memory')}")
    until(lambda: ask(gateway.port, "/low").status == 503, "a worker that knows of it")

    refused = ask(gateway.port, "/low")
    assert refused.status == 503 and json.loads(refused.body)["code"] == "overloaded"
    assert refused.headers["Retry-After"] == "1"
    h1 = Client(gateway.port)
    h2 = H2Client(gateway.port)
    for send in (h1.ask, lambda path: h2.ask(path)):
        assert set(statuses(send, "low")) == {503}
        some = statuses(send, "normal")
        assert 5 <= some.count(503) <= 35 and some.count(200) + some.count(503) == 40
        assert set(statuses(send, "high") + statuses(send, "critical")) == {200}
    h1.close()
    h2.close()
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert ask(gateway.status_port, path).status == 200
    shown = json.loads(ask(gateway.admin_port, "/api/v1/info").body)["overload"]["memory"]
    assert abs(shown - pressure(gateway, "memory")) < 0.3   # AddressSanitizer keeps what is freed: it has grown meanwhile
    counts = gateway.metrics()
    assert counts['sallyport_overload_shed_total{priority="low"}'] >= 80
    assert counts['sallyport_overload_shed_total{priority="normal"}'] >= 10
    assert counts['sallyport_overload_shed_total{priority="critical"}'] == 0

    gateway.reload(gateway.complete(config(upstream, {"enabled": False}), None))
    until(lambda: pressure(gateway, "memory") == 0, "no pressure")
    gateway.wait_log("overload: memory: .* nobody is turned away")
    until(lambda: ask(gateway.port, "/low").status == 200, "a worker that knows of it")
    gateway.stop()


def test_with_no_memory_left_only_what_is_critical_is_served(make, upstream):
    gateway = make(config(upstream, {"memory_limit": "1MiB"})).start()
    until(lambda: ask(gateway.port, "/high").status == 503, "a worker that knows of it")
    assert [ask(gateway.port, f"/{each}").status for each in PRIORITIES] == [503, 503, 503, 200]
    assert pressure(gateway, "memory") == 3
    gateway.stop()


def test_bodies_that_must_be_whole_are_taken_no_further(make, upstream):
    """…when requests of their priority are turned away for want of memory: a crowd that was let in with heads alone would go
    on to grow."""
    def settings(overload):
        made = config(upstream, overload)
        return {**made, "routes": [{**each, "idempotency": {}} for each in made["routes"]]}
    gateway = make(settings({})).start()
    clients = {each: Raw(gateway.port) for each in PRIORITIES}
    for each, client in clients.items():
        client.send(request(f"/{each}", "POST", "Idempotency-Key: 1", body=b"0123456789")[:-5])
    until(lambda: [each["step"] for each in gateway.shown("exchanges")["exchanges"]] == ["gather"] * len(clients), "all gathered")
    gateway.reload(gateway.complete(settings({"memory_limit": "1MiB"}), None))
    until(lambda: ask(gateway.port, "/high").status == 503, "a worker that knows of it")
    for each, client in clients.items():
        client.send(b"56789" if each == "critical" else b"5")
        got = client.response()
        assert got.status == (200 if each == "critical" else 503), each
        assert each == "critical" or got.json["code"] == "overloaded"
        client.close()
    posted = [(seen.target, seen.body) for seen in upstream.requests if seen.method == "POST"]
    assert posted == [("/critical", b"0123456789")]
    gateway.stop()


def limit_descriptors(gateway, count):
    pid = gateway.worker()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def open_descriptors(gateway):
    return len(list(pathlib.Path(f"/proc/{gateway.worker()}/fd").iterdir()))


def test_clients_leave_descriptors_for_upstreams(make, upstream):
    release = threading.Event()
    upstream.program(reply=lambda request: answer() if request.target != "/critical/held" or release.wait(30) else None)
    gateway = make(config(upstream, {"descriptors": {"soft": 0.7, "hard": 0.8}})).start()
    most = 2 * open_descriptors(gateway) + 60
    limit_descriptors(gateway, most)
    first = Client(gateway.port)
    first.send("/critical/held")   # so that it is not idle, as those are that go within a second
    upstream.wait_requests(1)
    gate = min(int(0.8 * most), most - 16)
    until(lambda: gateway.metrics()["process_max_fds"] == most, "the new limit")
    crowd = []

    def refused():
        crowd.append(Client(gateway.port))
        return gateway.metrics()["sallyport_refused_connections_total"] > 0
    until(refused, "some were closed at once")
    assert len(crowd) < most
    assert open_descriptors(gateway) <= gate + 8   # the upstream's, and those of who asks for metrics
    release.set()
    assert first.receive().status == 200
    assert first.ended()   # it is not kept
    assert gateway.metrics()["sallyport_accept_pauses_total"] == 0
    until(lambda: pressure(gateway, "descriptors") > 2, "pressure")
    # Connections that nothing was heard of wait for timeouts.header; those that idle go soon.
    for client in crowd:
        client.close()
    until(lambda: pressure(gateway, "descriptors") == 0, "no pressure")
    until(lambda: ask(gateway.port, "/low").status == 200, "service for everybody")
    gateway.stop()


def test_idle_connections_go_when_descriptors_are_short(make, upstream):
    gateway = make(config(upstream, {"descriptors": {"soft": 0.3, "hard": 0.9}})).start()
    idle = [Client(gateway.port) for _ in range(30)]
    h2 = H2Client(gateway.port)
    assert {client.ask("/critical").status for client in idle} == {200}
    assert h2.ask("/critical").status == 200
    limit_descriptors(gateway, int(open_descriptors(gateway) * 1.7))   # between soft and hard
    until(lambda: pressure(gateway, "descriptors") > 0, "pressure")
    for client in idle:
        assert client.ended()   # after a second, not timeouts.idle
        client.close()
    assert h2.ended()
    h2.close()
    gateway.stop()


def test_idle_connections_to_upstreams_go_when_descriptors_are_short(make, upstream):
    together = threading.Barrier(20)

    def reply(_):
        together.wait(DEADLINE)   # each has a connection of its own
        return answer()

    upstream.program(reply=reply)
    gateway = make(config(upstream, {"descriptors": {"soft": 0.3, "hard": 0.9}})).start()

    def idle():
        return gateway.metrics().get('sallyport_upstream_connections{upstream="main",state="idle"}', 0)
    clients = [Client(gateway.port) for _ in range(20)]
    for client in clients:
        client.send("/critical")
    assert {client.receive().status for client in clients} == {200}
    until(lambda: idle() == 20, "connections without a request")
    limit_descriptors(gateway, int(open_descriptors(gateway) * 1.7))   # between soft and hard
    until(lambda: pressure(gateway, "descriptors") > 0, "pressure")
    until(lambda: not idle(), lambda: f"no idle connection: {idle()}", deadline=10)   # not timeouts.idle
    for client in clients:
        client.close()
    gateway.stop()


def test_without_any_descriptor_the_gateway_waits_and_recovers(make, upstream):
    gateway = make(config(upstream, {"enabled": False})).start()
    kept = Client(gateway.port)
    assert kept.ask("/low").status == 200
    pid = gateway.worker()
    limit_descriptors(gateway, open_descriptors(gateway))
    waiting = [Client(gateway.port) for _ in range(20)]   # the kernel has accepted them
    gateway.wait_log("no descriptors left, accepting pauses")
    before, began = processor_seconds(pid), time.monotonic()
    until(lambda: time.monotonic() > began + 1, "a second")
    assert processor_seconds(pid) - before < 0.5   # nobody spins
    assert kept.ask("/low").status == 200
    limit_descriptors(gateway, 1000)
    for client in waiting:
        assert client.ask("/low").status == 200
        client.close()
    kept.close()
    gateway.stop()


def test_a_loop_that_is_late(make, upstream):
    gateway = make(config(upstream, {"loop_lag": {"soft": "0s", "hard": "1ms"}})).start()
    client = Client(gateway.port)

    def turned_away():
        return 503 in statuses(client.ask, "low", 50)
    until(turned_away, "requests of low priority are turned away")
    assert set(statuses(client.ask, "critical", 20)) == {200}
    assert pressure(gateway, "loop") > 0
    gateway.wait_log("overload: worker 0: its loop is .* late")
    gateway.reload(gateway.complete(config(upstream, {"loop_lag": {"soft": "5s", "hard": "10s"}}), None))
    until(lambda: pressure(gateway, "loop") == 0, "no pressure")
    until(lambda: set(statuses(client.ask, "low", 50)) == {200}, "service for everybody")
    client.close()
    gateway.stop()
