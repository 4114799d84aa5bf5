"""Clients that are spread over the workers of a gateway in a known way, and crowds of them."""
import collections
import threading
import time

from gateway import DEADLINE, Client, until


def client_counts(gateway):
    return [worker["client_connections"] for worker in gateway.workers_info()]


class Spread:
    """Clients by the worker that the kernel gave them to: at least `each` of every one."""

    def __init__(self, gateway, each=1):
        self.by_worker, self.clients, before = collections.defaultdict(list), [], client_counts(gateway)
        while len(self.by_worker) < len(before) or min(map(len, self.by_worker.values())) < each:
            assert len(self.clients) < 500, f"some worker is given no clients: {before}"
            client = Client(gateway.port)
            self.clients.append(client)
            until(lambda old=sum(before): sum(client_counts(gateway)) == old + 1, "the connection accepted")
            after = client_counts(gateway)
            self.by_worker[[old < new for old, new in zip(before, after)].index(True)].append(client)
            before = after

    def close(self):
        for client in self.clients:
            client.close()


class Hammer:
    """Clients that ask again as soon as they are answered, for some time, and until each has been answered so often; or until
    `over` is set. Counts the answers of each."""

    def __init__(self, clients, seconds, least=0, over=None):
        self.clients, self.end, self.least, self.over = clients, time.monotonic() + seconds, least, over
        self.good, self.bad, self.slowest = [0] * len(clients), [], 0.0
        threads = [threading.Thread(target=self.run, args=(i,)) for i in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def goes_on(self):
        now = time.monotonic()
        if self.over:
            return not self.over.is_set() and now < self.end + DEADLINE
        return now < self.end or (min(self.good) < self.least and now < self.end + DEADLINE)

    def run(self, i):
        while self.goes_on():
            began = time.monotonic()
            got = self.clients[i].ask("/")
            self.slowest = max(self.slowest, time.monotonic() - began)
            if got and got.status == 200:
                self.good[i] += 1
            else:
                self.bad.append(got)


def spread_more(gateway, spread, worker):
    """One client more of that worker."""
    more = Spread(gateway)
    spread.clients += more.clients
    return more.by_worker[worker][0]
