#!/usr/bin/python3
"""Requests without a pause, while the gateway is reloaded, its worker process killed and its binary replaced.

usage: tests/wire/soak.py [--requests 100000] [--reloads 200] [--kills 20] [--upgrades 5] [--seed N]

Every request must be answered, and with its own answer. The only ones that may be lost are those in flight in a worker
process at the moment it is killed: on a connection that was open before the kill. Prints figures; exits 1 when any
other request was lost.
"""
import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from gateway import BINARY, BUILD, DEADLINE, Gateway, free_port, refused, until

PROCESSES = 4
CONNECTIONS = 4       # of each process, each with one request in flight
IDLE_SECONDS = 0.5    # a connection left idle that long may be closed by a drain just as a request is sent (RFC 9112 9.6)


# ---- the clients ----

class Connection:
    """Sends a numbered request, checks that the answer is its own, opens another connection when one has ended."""

    def __init__(self, port, name, keep_alive):
        self.port, self.name, self.keep_alive = port, name, keep_alive
        self.number = 0
        self.socket = None
        self.opened = self.answered = 0.0
        self.buffer = b""

    def send(self):
        self.number += 1
        self.target = f"/{self.name}-{self.number}-"
        self.sent = time.monotonic()
        close = "" if self.keep_alive else "Connection: close\r\n"
        request = f"GET {self.target} HTTP/1.1\r\nHost: soak\r\n{close}\r\n".encode()
        self.fresh = self.socket is None
        if self.fresh:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
            self.opened = self.sent
            self.buffer = b""
        self.socket.sendall(request)

    def fill(self):
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("ended within an answer" if self.buffer else "ended without an answer")
        self.buffer += part

    def receive(self):
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        length = int(found.group(1)) if found else 0
        while len(rest) < length:
            self.fill()
            rest = self.buffer.partition(b"\r\n\r\n")[2]
        body, self.buffer = rest[:length], rest[length:]
        status = head.split()[1]
        if status != b"200" or self.target.encode() not in body:
            raise ValueError(f"{self.target}: {head[:300]!r} {body[:200]!r}")
        self.answered = time.monotonic()
        if re.search(rb"\r\nconnection: *close", head, re.I):
            self.drop()
        return self.answered - self.sent

    def drop(self):
        if self.socket:
            self.socket.close()
        self.socket = None


def client(port, name, counter, stop, results):
    """Until told to stop; puts (latencies, losses) into results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connections = [Connection(port, f"{name}.{i}", keep_alive=i % 4 != 3) for i in range(CONNECTIONS)]
    latencies, losses = [], []

    def attempt(connection, action):
        try:
            return action()
        except (OSError, ValueError) as error:
            losses.append({
                "what": f"{type(error).__name__}: {error}", "opened": connection.opened, "sent": connection.sent,
                "lost": time.monotonic(), "fresh": connection.fresh, "answer": isinstance(error, ValueError),
                "idle": not connection.fresh and connection.sent - connection.answered > IDLE_SECONDS})
            connection.drop()
            return None

    while not stop.is_set():
        sent = [c for c in connections if attempt(c, lambda c=c: c.send() or True)]
        for connection in sent:
            latency = attempt(connection, connection.receive)
            if latency is not None:
                latencies.append(latency)
        counter.value += len(connections)
    for connection in connections:
        connection.drop()
    results.put((latencies, losses))


# ---- what is done to the gateway ----

class Trouble:
    """Each kind of event, waited for until it has had its effect."""

    def __init__(self, gateway, extra_port):
        self.gateway, self.extra_port = gateway, extra_port
        self.reloads = 0
        self.kills = []       # (just before, just after)
        self.took = collections.defaultdict(list)

    def reload(self):
        self.reloads += 1
        config = dict(self.gateway.config)
        if self.reloads % 2:   # a listener comes and goes, an upstream changes and changes back
            config["listeners"] = config["listeners"] + [{"name": "extra", "address": f"127.0.0.1:{self.extra_port}"}]
            config["upstreams"] = {name: {**upstream, "load_balancer": "least_request"}
                                   for name, upstream in config["upstreams"].items()}
        self.gateway.reload(config)

    def kill(self):
        victim = self.gateway.workers()[-1]
        ready = self.gateway.log().count("is ready after")
        before = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.kills.append((before, time.monotonic()))
        self.gateway.wait_log("is ready after", ready + 1)

    def upgrade(self):
        binary = self.gateway.binary
        new = binary.with_suffix(".new")
        shutil.copy2(BINARY, new)
        new.rename(binary)
        taken = self.gateway.log().count("has taken over from")
        self.gateway.signal(signal.SIGUSR2)
        self.gateway.wait_log("has taken over from", taken + 1)

    def make(self, kind):
        began = time.monotonic()
        getattr(self, kind)()
        self.took[kind].append(time.monotonic() - began)


def in_flight_in_a_killed_process(loss, kills):
    """On a connection from before a kill, and noticed at once."""
    return not loss["answer"] and any(loss["opened"] <= after and before <= loss["lost"] <= after + 2.0
                                      for before, after in kills)


def start_echo():
    port = free_port()
    echo = subprocess.Popen([str(BUILD / "sallyport-echo"), "--listen", f"127.0.0.1:{port}"],
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: not refused(port), "the echo service")
    return echo, port


def soak(directory, requests, reloads, kills, upgrades, seed=1):
    """The figures, as a dict; figures["lost"] lists the requests that should not have been lost."""
    directory = pathlib.Path(directory)
    binary = directory / "bin" / "sallyport"
    binary.parent.mkdir()
    shutil.copy2(BINARY, binary)
    echo, echo_port = start_echo()
    gateway = Gateway(directory, {
        "upstreams": {"echo": {"targets": [{"address": f"127.0.0.1:{echo_port}"}]}},
        "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "echo"}],
        "telemetry": {"access_log": {"output": str(directory / "access.log")}}}, binary=binary)
    try:
        with gateway:
            figures = run(gateway, requests, reloads, kills, upgrades, random.Random(seed))
    finally:
        echo.kill()
        echo.wait()
    figures["log"] = gateway.log()
    return figures


def run(gateway, requests, reloads, kills, upgrades, rand):
    context = multiprocessing.get_context("fork")
    stop, results = context.Event(), context.Queue()
    counters = [context.Value("L", 0, lock=False) for _ in range(PROCESSES)]
    clients = [context.Process(target=client, args=(gateway.port, f"c{i}", counter, stop, results), daemon=True)
               for i, counter in enumerate(counters)]
    began = time.monotonic()
    for process in clients:
        process.start()
    trouble = Trouble(gateway, free_port())
    events = ["reload"] * reloads + ["kill"] * kills + ["upgrade"] * upgrades
    rand.shuffle(events)
    for i, kind in enumerate(events):
        mark = requests * (i + 1) / (len(events) + 1)
        until(lambda: sum(c.value for c in counters) >= mark, lambda: f"requests go on\n{gateway.log()}", 120)
        trouble.make(kind)
    until(lambda: sum(c.value for c in counters) >= requests, "the last requests", 600)
    stop.set()
    latencies, losses = [], []
    for _ in clients:
        some, lost = results.get(timeout=DEADLINE)
        latencies += some
        losses += lost
    for process in clients:
        process.join(DEADLINE)
    return figures_of(latencies, losses, trouble, time.monotonic() - began)


def figures_of(latencies, losses, trouble, seconds):
    latencies.sort()
    excused = [loss for loss in losses if in_flight_in_a_killed_process(loss, trouble.kills)]
    idle = [loss for loss in losses if loss not in excused and loss["idle"] and not loss["answer"]]
    lost = [loss for loss in losses if loss not in excused and loss not in idle]
    return {
        "requests": len(latencies) + len(losses),
        "answered": len(latencies),
        "lost": lost,
        "in_flight_when_killed": len(excused),
        "on_idle_connections": len(idle),
        "seconds": round(seconds, 1),
        "latency_ms": {name: round(1000 * latencies[min(len(latencies) - 1, int(len(latencies) * part))], 2)
                       for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))},
        "events": {kind: {"count": len(took), "median_ms": round(1000 * statistics.median(took), 1),
                          "max_ms": round(1000 * max(took), 1)} for kind, took in trouble.took.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100000)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", help="where to leave the gateway's log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sallyport-soak-") as directory:
        figures = soak(directory, options.requests, options.reloads, options.kills, options.upgrades, options.seed)
    log = figures.pop("log")
    if options.log:
        pathlib.Path(options.log).write_text(log)
    print(json.dumps(figures, indent=2))
    print(f"{figures['requests']} requests, {len(figures['lost'])} lost, "
          f"{figures['in_flight_when_killed']} in flight in killed worker processes")
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
