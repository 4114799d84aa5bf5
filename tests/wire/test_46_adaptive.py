"""adaptive_concurrency: the limit of requests follows what a service with few servers takes, over both workers, and what
does not fit waits in the gateway instead of in the service. tests/unit/test_adaptive.c shows how well, in simulated time.
"""
import threading
import time

import pytest

from gateway import Client, until
from peers import Upstream, answer

SERVERS, SERVICE, MOST = 4, 0.02, 120
LIMIT = 'sallyport_upstream_requests_limit{upstream="main"}'


class Service:
    """So many requests at a time, each for so long; the rest waits."""

    def __init__(self):
        self.upstream = Upstream()
        self.servers, self.lock = threading.Semaphore(SERVERS), threading.Lock()
        self.inside = self.most = 0
        self.ended, self.stood_still = 0, 0   # when one was answered, and how long none was, though more were there
        self.upstream.program(reply=self.serve)

    def serve(self, _):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        with self.servers:
            time.sleep(SERVICE)   # what the service does
        with self.lock:
            now = time.monotonic()
            if self.inside > SERVERS:
                self.stood_still = max(self.stood_still, now - self.ended)
            self.ended = now
            self.inside -= 1
        return answer()


class Load:
    """Clients that ask again as soon as they are answered."""

    def __init__(self, port, count):
        self.statuses, self.over, self.slowest = [], threading.Event(), 0
        self.threads = [threading.Thread(target=self.run, args=(port,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, port):
        client = Client(port)
        while not self.over.is_set():
            began = time.monotonic()
            self.statuses.append(client.ask("/").status)
            self.slowest = max(self.slowest, time.monotonic() - began)
        client.close()

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        return self.statuses


@pytest.fixture
def service():
    made = Service()
    yield made
    made.upstream.close()


def config(service, adaptive):
    return {"upstreams": {"main": {"targets": [{"address": f"127.0.0.1:{service.upstream.port}"}],
                                   "limits": {"requests": MOST, "pending": 200}, "timeouts": {"connect": "20s"},
                                   "adaptive_concurrency": adaptive}},
            "routes": [{"name": "all", "upstream": "main", "timeout": "60s"}]}


def test_the_limit_follows_the_service(make, service):
    def after_a_quiet_while():
        """A gateway that has seen the service without a queue; None: the machine stood still meanwhile, which looks like one."""
        gateway = make(config(service, True)).start()
        assert gateway.metrics()[LIMIT] == MOST
        quiet = Load(gateway.port, 2)
        until(lambda: len(quiet.statuses) > 150, "it has been seen without a queue")
        assert set(quiet.end()) == {200}
        limit = gateway.metrics()[LIMIT]
        if limit > 60:   # nobody was held up
            return gateway
        assert quiet.slowest > 5 * SERVICE, (limit, quiet.slowest)
        return gateway.stop()

    def with_a_crowd():
        """The same with a limit that fits; None: the machine stood still while the limit fell, which looks like a service that
        is slow by itself."""
        gateway = until(after_a_quiet_while, "a quiet while", deadline=60)
        service.stood_still, crowd, began = 0, Load(gateway.port, 60), time.monotonic()
        until(lambda: gateway.metrics()[LIMIT] <= 5 * SERVERS or time.monotonic() > began + 15, "a lower limit, or none")
        service.most = 0
        shown = gateway.shown("upstreams")["upstreams"][0]
        assert shown["limits"]["requests"] == MOST
        before = len(crowd.statuses)
        until(lambda: len(crowd.statuses) > before + 100, "it serves on")
        most, limit = service.most, shown["requests_limit"]
        assert set(crowd.end()) == {200}   # who waits in line was served in the end
        if 3 <= limit <= 6 * SERVERS and most <= 10 * SERVERS:
            return gateway
        assert service.stood_still > 5 * SERVICE, (limit, most, service.stood_still)
        return gateway.stop()
    gateway = until(with_a_crowd, "a machine that does not stand still", deadline=100)
    gateway.reload(gateway.complete(config(service, False), None))
    assert gateway.metrics()[LIMIT] == MOST
    gateway.stop()
