"""limits.connections of an upstream is one bound of the process: never exceeded, however the clients are spread over the
workers, and of use to all of them. The service counts what is open by the kernel's word at each accept.
"""
import random
import socket
import threading
import time

import pytest
from h2.settings import SettingCodes

from crowds import Hammer, Spread, spread_more
from gateway import until
from h2_peers import H2Upstream
from peers import Upstream, answer

ESTABLISHED = 1   # tcp_info.tcpi_state
TURN, SLACK = 0.05, 5.0   # who is not let in waits for timeouts.connect
PATIENT = {"connect": "20s"}   # for a turn; on a busy machine a request waits for more than one second, the default


def is_open(sock):
    """The kernel reads the state before it waits for whoever is sending or receiving on the socket, and a FIN that comes meanwhile is
    looked at when that one is done: what is told first can be old."""
    try:
        for _ in range(2):
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == ESTABLISHED
    except OSError:
        return False


class Counting:
    """An upstream that knows how many connections to it are open, and how many were at most."""

    def __init__(self):
        self.counting, self.sockets, self.most = threading.Lock(), [], 0
        self.release = threading.Event()
        super().__init__()
        until(lambda: self.open() == 0, "program()'s own connection closed")
        self.most = 0

    def open(self):
        with self.counting:
            self.sockets = [each for each in self.sockets if is_open(each)]
            return len(self.sockets)

    def meet(self, sock):
        with self.counting:
            self.sockets = [each for each in self.sockets if is_open(each)] + [sock]
            self.most = max(self.most, len(self.sockets))
        return super().meet(sock)

    def hold(self, together=False):
        """Requests for /hold are answered once `release` is set. A connection takes one request at a time,
        if not `together`."""
        def reply(request):
            if request.target == "/hold":
                self.release.wait(30)
            return self.body()
        self.program(reply=reply, **({} if together else self.one_at_a_time))
        return self

    def target(self, **more):
        return {"main": {"targets": [{"address": f"127.0.0.1:{self.port}"}], "protocol": self.protocol, **more}}


class CountingH1(Counting, Upstream):
    protocol, one_at_a_time = "http/1.1", {}
    body = staticmethod(answer)


class CountingH2(Counting, H2Upstream):
    protocol, one_at_a_time = "h2", {"settings": {SettingCodes.MAX_CONCURRENT_STREAMS: 1}}
    body = staticmethod(lambda: b"ok")


@pytest.fixture(params=[CountingH1, CountingH2], ids=["h1", "h2"])
def service(request):
    made = request.param()
    yield made
    made.release.set()
    made.close()


def config(service, workers, connections, timeouts=PATIENT):
    return {"workers": workers, "upstreams": service.target(limits={"connections": connections}, timeouts=timeouts),
            "routes": [{"name": "all", "upstream": "main"}]}


@pytest.mark.parametrize("workers", [2, 4])
def test_one_is_one_for_all_workers(make, service, workers):
    gateway = make(config(service, workers, 1)).start()
    spread = Spread(gateway, 2)
    hammer = Hammer([client for clients in spread.by_worker.values() for client in clients[:2]], 1, least=1)
    assert not hammer.bad and min(hammer.good) > 0
    assert service.most == 1
    spread.close()
    gateway.stop()


def test_nobody_starves(make, service):
    """Fewer connections than workers: each has its turn, and keeps it for a while, so that not every request costs a
    connection."""
    gateway = make(config(service, 4, 2)).start()
    spread, began = Spread(gateway, 3), time.monotonic()
    hammer = Hammer([client for clients in spread.by_worker.values() for client in clients[:3]], 2, least=3)
    elapsed = time.monotonic() - began
    assert not hammer.bad and min(hammer.good) >= 3, hammer.good
    assert hammer.slowest < 10   # half of what they would wait
    assert service.most == 2
    assert 4 <= service.accepted <= 2 * (2 * elapsed / TURN + 2)
    spread.close()
    gateway.stop()


def test_a_worker_may_use_them_all(make, service):
    service.hold()
    gateway = make(config(service, 4, 4)).start()
    spread = Spread(gateway)
    others, clients = [clients for worker, clients in spread.by_worker.items() if worker], spread.by_worker[0]
    for number in range(4):   # first the others have some, which they keep
        assert others[number % 3][0].ask("/").status == 200
    clients += [spread_more(gateway, spread, 0) for _ in range(4 - len(clients))]
    for client in clients[:4]:
        client.send("/hold")
    until(lambda: sum(request.target == "/hold" for request in service.requests) == 4, "all four at the service")
    service.release.set()
    for client in clients[:4]:
        assert client.receive().status == 200
    assert service.most == 4
    spread.close()
    gateway.stop()


def test_what_is_idle_elsewhere_is_given_up(make, service):
    gateway = make(config(service, 2, 1)).start()
    spread, times = Spread(gateway), []
    one, other = (spread.by_worker[worker][0] for worker in (0, 1))
    assert one.ask("/").status == 200
    for client in [other, one] * 10:
        time.sleep(0.03)   # the other worker sleeps, and its connection has been idle for longer than between two requests
        began = time.monotonic()
        assert client.ask("/").status == 200
        times.append(time.monotonic() - began)
    assert sorted(times)[len(times) // 2] < 0.1 and max(times) < SLACK, times
    assert service.most == 1 and service.accepted == 21
    spread.close()
    gateway.stop()


def test_what_is_idle_stays_while_there_is_room(make, service):
    """Nobody wants it: each worker keeps its own."""
    gateway = make(config(service, 2, 2)).start()
    spread = Spread(gateway, 2)
    for _ in range(20):
        for clients in spread.by_worker.values():
            assert clients[0].ask("/").status == 200
    assert service.accepted == service.open() == 2
    spread.close()
    gateway.stop()


def all_busy(make, service, connections, count):
    """The service holds all the connections; so many clients of both workers have asked, and wait for it or in line."""
    service.hold()
    gateway = make(config(service, 2, connections)).start()
    spread = Spread(gateway, 2)
    clients = [client for worker in (0, 1) for client in spread.by_worker[worker][:2]][:count]
    for client in clients:
        client.send("/hold")
    service.wait_requests(connections)
    return gateway, spread, clients


def test_a_reload_changes_it(make, service):
    gateway, spread, clients = all_busy(make, service, 1, 4)
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 3)})
    service.wait_requests(3)   # those in line go on
    assert service.most == 3
    service.release.set()
    assert [client.receive().status for client in clients] == [200] * 4
    until(lambda: service.open() == 3, "kept")
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 1)})
    until(lambda: service.open() == 1, "no more than one is left")
    service.most = 0
    for client in clients * 3:
        assert client.ask("/").status == 200
    assert service.most <= 1
    spread.close()
    gateway.stop()


def test_a_lower_limit_holds_for_those_that_are_busy(make, service):
    gateway, spread, clients = all_busy(make, service, 3, 3)
    gateway.reload_everywhere({**gateway.config, **config(service, 2, 1)})
    assert service.open() == 3
    service.release.set()
    assert [client.receive().status for client in clients] == [200] * 3
    until(lambda: service.open() <= 1, "the others closed as they came back")
    spread.close()
    gateway.stop()


def test_streams_that_overlap_make_way(make):
    """A connection that is never without a stream is given up all the same."""
    service, some = CountingH2(), random.Random(7)
    service.program(reply=lambda _: time.sleep(some.uniform(0.02, 0.06)) or b"ok")
    gateway = make(config(service, 2, 1)).start()
    spread = Spread(gateway, 8)
    over = threading.Event()
    crowd = threading.Thread(target=lambda: Hammer(spread.by_worker[0][:8], 0, over=over))
    crowd.start()
    service.wait_requests(20)
    began = time.monotonic()
    assert spread.by_worker[1][0].ask("/").status == 200
    assert time.monotonic() - began < SLACK and crowd.is_alive()
    over.set()
    crowd.join()
    assert service.most == 1
    spread.close()
    gateway.stop()
    service.close()


def test_a_stream_that_lasts_does_not_lock_its_own_worker_out(make):
    """A connection that others wait for takes no more streams; but not for long when it will not end."""
    service = CountingH2().hold(together=True)
    gateway = make(config(service, 2, 1, timeouts={"connect": "4s"})).start()
    spread, lost = Spread(gateway, 2), []
    busy, own = spread.by_worker[0][:2]
    busy.send("/hold")
    service.wait_requests(1)
    waiting = threading.Thread(target=lambda: lost.append(spread.by_worker[1][0].ask("/").status))
    waiting.start()
    answered = 0
    while waiting.is_alive():
        assert own.ask("/").status == 200
        answered += 1
    waiting.join()
    assert lost == [503] and answered >= 3
    assert service.most == 1
    service.release.set()
    assert busy.receive().status == 200
    assert spread.by_worker[1][0].ask("/").status == 200   # now it has its turn
    spread.close()
    gateway.stop()
    service.close()
