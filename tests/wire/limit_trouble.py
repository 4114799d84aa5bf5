"""Limits under a load that knows no mercy, while something is done to Redis: build/bench/load asks every gateway at a fixed
rate, whatever they do, and a latency counts from the moment the request was due.

SALLYPORT_LIMIT_RATE      requests a second, all gateways together; small by default, so that sanitizer builds on a busy
                          machine pass
SALLYPORT_LIMIT_DEADLINE  redis.deadline; wide by default for the same reason
With 5ms, the gateway's own default, it is a measurement: every trouble is tried, and requests may be late by what is asked for
(ADDED_MS). Else a machine that is busy with other tests decides how late they are, so only what hangs is found.
"""
import collections
import json
import os
import selectors
import socket
import subprocess
import threading
import time

from gateway import BUILD, DEADLINE, until
from h2_wire import SANITIZED
from limit_wire import Fleet, decisions, limit
from test_35_redis_limits import alive

RATE = int(os.environ.get("SALLYPORT_LIMIT_RATE", 400 if SANITIZED else 600))
REDIS_DEADLINE = os.environ.get("SALLYPORT_LIMIT_DEADLINE", "100ms")
IS_MEASURED = REDIS_DEADLINE == "5ms"
ADDED_MS = 20 if IS_MEASURED else 5000
RECOVERY_S = 1 if IS_MEASURED else 10
LEAST_SHARE = 0.9 if IS_MEASURED else 0.75   # of what may be admitted; what comes back while a busy machine stands still is lost
PER_SECOND, BURST = RATE * 3 // 4, RATE // 2   # of the limit: of four requests one has to be refused
LIMITS = {"hot": limit(BURST, f"{PER_SECOND}/s", key="global")}
LATE_SHARE = 0.01 if IS_MEASURED else 1   # of quiet requests may meet a Redis that a busy machine delays
QUIET_S, TROUBLE_S, AFTER_S = (5, 5, 5) if IS_MEASURED else (1, 1.2, 0.7)
STEADY_S = 0.3   # without a decision that Redis did not make: it decides


def start(directory, redis, count=2, limits=LIMITS, routes=(), **settings):
    """Gateways that share a Redis and have heard of each other."""
    fleet = Fleet(directory, redis, count, limits, workers=2, routes=list(routes),
                  redis_settings={"deadline": REDIS_DEADLINE, **settings})
    try:
        fleet.start()
        until(lambda: [alive(gateway) for gateway in fleet.gateways] == [count] * count, "all have heard of all")
    except BaseException:
        fleet.close()
        raise
    return fleet


class Result:
    """What was answered in a phase, by all gateways."""

    def __init__(self, parts, degraded):
        def total(name):
            return sum(part[name] for part in parts)
        self.seconds = max(part["seconds"] for part in parts)
        self.requests, self.refused, self.errors = total("requests"), total("too_many"), total("server_errors")
        self.admitted = self.requests - total("bad_status")
        self.lost = total("broken") + total("unanswered") + total("connect_failed") + total("bad_status") - self.refused - self.errors
        self.p50, self.p99, self.worst = (max(part["latency_us"][name] for part in parts) / 1e3 for name in ("p50", "p99", "max"))
        self.degraded = degraded


class Trial:
    """A load on all gateways of a fleet, in phases; what is left at the end of the with-block is the account."""

    def __init__(self, fleet, path="/hot", name="hot"):
        self.fleet, self.name, self.phases, self.degraded = fleet, name, [], []
        self.loads = [subprocess.Popen(
            [str(BUILD / "bench/load"), "--to", f"127.0.0.1:{gateway.port}", "--connections", "64", "--path", path,
             "--rate", str(RATE // len(fleet.gateways)), "--phases"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for gateway in fleet.gateways]

    def __enter__(self):
        for load in self.loads:
            assert json.loads(load.stdout.readline())["event"] == "ready"
        return self

    def without_redis(self):
        """How many decisions."""
        return sum(decisions(gateway, self.name)["degraded"] for gateway in self.fleet.gateways)

    def begin(self, phase):
        self.degraded.append(self.without_redis())
        self.phases.append(phase)
        for load in self.loads:
            load.stdin.write(phase + "\n")
            load.stdin.flush()

    def run_quiet(self):
        """Until everything was as it should be for a while: the account begins with that while."""
        def is_quiet():
            self.run("quiet", QUIET_S)
            return self.without_redis() == self.degraded[-1]
        until(is_quiet, "a quiet while")

    def run(self, phase, seconds):
        self.begin(phase)
        self.sleep(seconds)

    @staticmethod
    def sleep(seconds):
        """The load's time, not the test's: nothing is waited for but it."""
        time.sleep(seconds)

    def wait_redis_decides(self, since):
        """Until it decides about everything; how long after `since` it did."""
        seen, changed = self.without_redis(), time.monotonic()

        def is_steady():
            nonlocal seen, changed
            now = self.without_redis()
            if now != seen:
                seen, changed = now, time.monotonic()
            return time.monotonic() - changed > STEADY_S
        until(is_steady, "Redis decides")
        return max(changed - since, 0)

    def wait_without_redis(self):
        before = self.without_redis()
        until(lambda: self.without_redis() > before, "decisions without Redis")

    def __exit__(self, kind, value, trace):
        if kind:
            for load in self.loads:
                load.kill()
                load.communicate()
            return
        self.degraded.append(self.without_redis())
        for load in self.loads:
            load.stdin.close()
        lines = [[json.loads(line) for line in load.stdout] for load in self.loads]
        assert [load.wait(DEADLINE) for load in self.loads] == [0] * len(self.loads)
        self.results = [Result([of_one[i] for of_one in lines], self.degraded[i + 1] - self.degraded[i])
                        for i in range(len(self.phases))]
        quiet = max((i for i, phase in enumerate(self.phases) if phase == "quiet"), default=0)
        self.phases, self.results = self.phases[quiet:], self.results[quiet:]

    # ---- the account ----

    @property
    def seconds(self):
        return sum(result.seconds for result in self.results)

    @property
    def admitted(self):
        return sum(result.admitted for result in self.results)

    def table(self, title, spread_s):
        print(f"\n{title}: {RATE} requests/s, limit {PER_SECOND}/s, burst {BURST}, redis.deadline {REDIS_DEADLINE}")
        print(f"{'phase':<22}{'s':>6}{'requests':>10}{'admitted':>10}{'429':>8}{'5xx':>6}{'lost':>6}{'alone':>8}"
              f"{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
        for phase, r in zip(self.phases, self.results):
            print(f"{phase:<22}{r.seconds:>6.1f}{r.requests:>10}{r.admitted:>10}{r.refused:>8}{r.errors:>6}{r.lost:>6}"
                  f"{r.degraded:>8}{r.p50:>9.2f}{r.p99:>9.2f}{r.worst:>9.1f}")
        print(f"admitted {self.admitted}, by the limit {self.allowed()}, bound {self.bound(spread_s)}")

    def allowed(self):
        return BURST + round(PER_SECOND * self.seconds)

    def bound(self, spread_s):
        """One burst more, and the rate while some workers have found Redis and others have not."""
        return self.allowed() + BURST + round(PER_SECOND * spread_s)

    def check(self, spread_s):
        """Nothing but 200 and 429; nobody waits for long; not more than the bound, and not less than the limit, but for what was
        charged twice. spread_s: how long it took all workers to find Redis again, at the most."""
        quiet, trouble, after = self.results
        assert trouble.degraded > 0
        for r in (quiet, after):
            assert r.degraded <= r.requests * LATE_SHARE
        for phase, r in zip(self.phases, self.results):
            assert r.errors == 0 and r.lost == 0, phase
            assert r.p99 < quiet.p99 + ADDED_MS, phase
        assert self.admitted <= self.bound(spread_s)
        assert spread_s < RECOVERY_S
        asked = sum(r.requests for r in self.results)
        assert self.admitted >= LEAST_SHARE * min(asked * PER_SECOND / RATE, PER_SECOND * self.seconds)


class Relay:
    """Between the gateways and Redis: it can be slow, and it can be cut: then what is sent is not heard, and who connects
    is not answered (the kernel drops a SYN when the queue of a listener is full)."""

    def __init__(self, port):
        self.target, self.delay_s, self.is_cut, self.ended = port, 0, False, False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.selector, self.peers, self.held, self.fillers = selectors.DefaultSelector(), {}, collections.deque(), []
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while not self.ended:
            events = [] if self.is_cut else self.selector.select(0.001)
            if self.is_cut:
                time.sleep(0.001)
            for key, _ in events:
                if key.fileobj is self.listener:
                    self.accept()
                else:
                    self.take(key.fileobj)
            while self.held and not self.is_cut and self.held[0][0] <= time.monotonic():
                _, to, data = self.held.popleft()
                self.give(to, data)

    def accept(self):
        try:
            near, _ = self.listener.accept()
        except BlockingIOError:
            return
        far = socket.create_connection(("127.0.0.1", self.target))
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peers[one] = other
            self.selector.register(one, selectors.EVENT_READ)

    def take(self, one):
        if one not in self.peers:
            return
        try:
            data = one.recv(1 << 20)
        except OSError:
            data = b""
        self.held.append((time.monotonic() + self.delay_s, self.peers[one], data))
        if not data:
            self.selector.unregister(one)

    def give(self, to, data):
        try:
            if data:
                to.sendall(data)
            else:
                to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        self.is_cut = True
        self.listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    def heal(self):
        for filler in self.fillers:
            filler.close()
        self.listener.listen(128)
        self.is_cut = False

    def close(self):
        self.ended = True
        self.thread.join()
        for one in [*self.peers, *self.fillers, self.listener]:
            one.close()
