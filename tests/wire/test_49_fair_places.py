"""limits.requests of an upstream is one bound of the process, and the lines of the workers that wait for it are one line:
who came first is served first, whichever worker it came to, and nobody is left out because another worker's places all come
back to that worker's own line. Over HTTP/1.1 and HTTP/2.
"""
import random
import threading
import time

import pytest

from crowds import Hammer, Spread
from gateway import Client, until
from h2_peers import H2Upstream
from peers import Upstream, answer

DEADLINE, CROWD_S = 30, 1.5


class Counting:
    """A service that knows how many requests it has at a time, and lets them wait: for a while, or for a word."""

    def __init__(self):
        self.counting, self.inside, self.most, self.order = threading.Lock(), 0, 0, []
        super().__init__()
        self.time, self.word = 0, threading.Semaphore(0)
        self.program(reply=self.serve_one)

    def serve_one(self, request):
        with self.counting:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(request.target)
        if request.target.startswith("/held"):
            self.word.acquire(timeout=DEADLINE)
        else:
            time.sleep(self.time)
        with self.counting:
            self.inside -= 1
        return self.body()


class CountingH1(Counting, Upstream):
    protocol, body = "http/1.1", staticmethod(answer)


class CountingH2(Counting, H2Upstream):
    protocol, body = "h2", staticmethod(lambda: b"ok")


@pytest.fixture(params=[CountingH1, CountingH2], ids=["h1", "h2"])
def service(request):
    made = request.param()
    yield made
    made.word.release(1000)
    made.close()


def config(service, workers, requests, connect="10s", **limits):
    return {"workers": workers, "upstreams": {"main": {
        "targets": [{"address": f"127.0.0.1:{service.port}"}], "protocol": service.protocol,
        "limits": {"requests": requests, "pending": 100, **limits}, "timeouts": {"connect": connect, "response": "30s"}}},
        "routes": [{"name": "all", "upstream": "main"}]}


def under_way(gateway):
    return gateway.metrics()['sallyport_connections{listener="http",state="active"}']


def waiting(gateway):
    """What the metrics and the admin API say of it, which is one."""
    [shown] = {gateway.metrics()['sallyport_upstream_requests_waiting{upstream="main"}'],
               gateway.shown("upstreams")["upstreams"][0]["requests_waiting"]}
    return shown


def crowd_beside(gateway, spread, size, seconds):
    """All places are taken by clients of worker 0, which has a line of its own; what became of worker 1's client."""
    times, statuses = [], []
    crowd = threading.Thread(target=lambda: crowds.append(Hammer(spread.by_worker[0][:size], seconds)))
    crowds, other = [], spread.by_worker[1][0]
    crowd.start()
    until(lambda: under_way(gateway) >= size, "the crowd is there")
    while crowd.is_alive():
        began = time.monotonic()
        statuses.append(other.ask("/other").status)
        times.append(time.monotonic() - began)
    crowd.join()
    return statuses, times, crowds[0]


@pytest.mark.parametrize("requests", [1, 2])
def test_a_worker_that_waits_has_its_turn(make, service, requests):
    """Its only client gets as many answers as any of the crowd."""
    service.time = 0.01
    gateway = make(config(service, 2, requests)).start()
    spread = Spread(gateway, 8)
    statuses, times, crowd = crowd_beside(gateway, spread, 8, CROWD_S)
    assert set(statuses) == {200} and not crowd.bad
    assert len(statuses) >= min(crowd.good) / 2, (len(statuses), crowd.good)
    assert sorted(times)[len(times) * 9 // 10] < 1, times
    assert service.most == requests
    spread.close()
    gateway.stop()


def test_connections_may_be_as_few(make, service):
    """A place is of no use without a connection: a worker stands in line for both."""
    service.time = 0.005
    gateway = make(config(service, 2, 2, connections=2)).start()
    spread = Spread(gateway, 6)
    statuses, _, crowd = crowd_beside(gateway, spread, 6, CROWD_S)
    assert set(statuses) == {200} and not crowd.bad and len(statuses) >= 3
    assert sum(crowd.good) + len(statuses) >= CROWD_S / service.time / 8   # and it costs no time to speak of
    spread.close()
    gateway.stop()


def test_the_lines_are_one_line(make, service):
    """Who came first is served first, by turns at three workers."""
    gateway = make(config(service, 3, 1)).start()
    spread, sent = Spread(gateway, 4), []
    for number in range(12):
        client = spread.by_worker[number % 3][number // 3]
        client.send(f"/held/{number}")
        sent.append(client)
        until(lambda count=number + 1: under_way(gateway) == count, "it has come")
    assert waiting(gateway) == 11
    for number, client in enumerate(sent):
        until(lambda count=number + 1: len(service.order) == count, "the next one at the service")
        service.word.release()
        assert client.receive().status == 200
    assert service.order == [f"/held/{number}" for number in range(12)]
    assert waiting(gateway) == 0
    assert service.most == 1
    spread.close()
    gateway.stop()


def test_who_waits_in_vain_leaves_the_line(make, service):
    """timeouts.connect holds for those in line, whoever's places they wait for; who is behind them moves up."""
    gateway = make(config(service, 2, 1, connect="3s")).start()
    spread = Spread(gateway, 2)
    (holder, own), (other, late) = (spread.by_worker[worker][:2] for worker in (0, 1))
    holder.send("/held/first")
    until(lambda: service.inside == 1, "it has the place")
    for client in own, other:
        client.send("/held/in-vain")
    began = time.monotonic()
    assert [client.receive().status for client in (own, other)] == [503, 503]
    assert time.monotonic() - began < 9
    late.send("/held/late")
    until(lambda: under_way(gateway) == 2, "it waits")
    service.word.release(2)
    assert holder.receive().status == 200 and late.receive().status == 200
    assert service.order == ["/held/first", "/held/late"]
    spread.close()
    gateway.stop()


def test_a_reload_raises_the_limit_for_those_in_line(make, service):
    """And a lower one holds as soon as what is under way has ended; large ones are cut into parts and back."""
    gateway = make(config(service, 2, 1)).start()
    spread = Spread(gateway, 2)
    clients = [client for worker in (0, 1) for client in spread.by_worker[worker][:2]]
    for client in clients:
        client.send("/held")
    until(lambda: under_way(gateway) == 4 and service.inside == 1, "three wait")
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 3)})
    until(lambda: service.inside == 3, "they move up")
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 1000)})
    until(lambda: service.inside == 4, "all of them")
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 1)})
    service.word.release(4)
    assert [client.receive().status for client in clients] == [200] * 4
    service.most = 0
    for client in clients:
        client.send("/")
    assert [client.receive().status for client in clients] == [200] * 4
    assert service.most == 1
    spread.close()
    gateway.stop()


def test_no_place_is_lost(make, service):
    """Clients that go away in line, just when it is their turn or later: afterwards all places are there."""
    service.time = 0.002
    gateway = make(config(service, 2, 3)).start()
    end = time.monotonic() + 1.5

    def come_and_go(seed):
        some = random.Random(seed)
        while time.monotonic() < end:
            client = Client(gateway.port)
            client.send("/")
            client.socket.settimeout(some.uniform(0.001, 0.03))
            try:
                client.receive()
            except OSError:
                pass
            client.close()
    threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.wait_rest()
    assert waiting(gateway) == 0
    until(lambda: service.inside == 0, "the service has ended")
    held = [Client(gateway.port) for _ in range(4)]
    for client in held:
        client.send("/held")
    until(lambda: service.inside == 3 and under_way(gateway) == 4, "three places, and one waits")
    service.word.release(4)
    assert [client.receive().status for client in held] == [200] * 4
    for client in held:
        client.close()
    gateway.stop()
