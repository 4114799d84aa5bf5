"""A storm round the circuit breakers: services that are out by turns, hedges, retries, lines, clients who go away, calls by gRPC
with short deadlines, uploads that stall, breakers forced open and closed, and reloads that take endpoints and upstreams away
and bring them back. Nothing is asserted about single answers. When it is over every place must have come back: nothing is
under way, every breaker closes again, every upstream takes as many requests as `limits` say, and tries again.

The seed is printed; SALLYPORT_STORM_SEED and SALLYPORT_STORM_SECONDS repeat or prolong it.
"""
import asyncio
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import threading
import time

import pytest

from echo_program import Echo, Raw
from gateway import ask, until
from grpc_peers import Client as GrpcClient
from storm_clients import StormClient, reset
from watched import Watched, route

SECONDS = float(os.environ.get("SALLYPORT_STORM_SECONDS", "8"))
SEED = int(os.environ.get("SALLYPORT_STORM_SEED", "20260202"))
CLIENTS, CALLERS, ENDPOINTS = 40, 3, 3
PLACES, FEW, LINE = 16, 2, 8
BREAKER = {"window": "1s", "min_requests": 5, "slow_call": "60ms", "open": "100ms", "max_open": "300ms", "ramp": "100ms",
           "half_open_requests": 2}
FAST, CALM = {"connect": "300ms", "response": "400ms", "idle": "1s"}, {"connect": "10s", "response": "10s"}
OUTAGES = ["hang", "refuse", "reset", "truncate", "status=503", "status=500", "slow_head=80", "slow_head=300", "slow_body=20",
           "no_answer", "half_head", "refuse_stream", "grpc_status=14", "stall_body", "close_after=0"]
UPSTREAMS = {   # name: settings that differ
    "one": {},
    "each": {"scope": "endpoint"},
    "narrow": {"limits": {"connections": FEW, "requests": PLACES, "pending": LINE}},
    "two": {"protocol": "h2"},
    "two_each": {"protocol": "h2", "scope": "endpoint"},
}


def upstream(ports, scope="upstream", fallback=None, **more):
    breaker = {**BREAKER, "scope": scope, **({"fallback": fallback} if fallback else {})}
    return {"targets": [{"address": f"127.0.0.1:{port}"} for port in ports], "timeouts": CALM, "circuit_breaker": breaker,
            "limits": {"connections": PLACES, "requests": PLACES, "pending": LINE},
            "outlier": {"consecutive_failures": 3, "ejection": "200ms", "max_ejection": "400ms"},
            "retries": {"attempts": 2, "statuses": [503], "backoff": "5ms", "budget": 1.0,
                        "retry_on": ["connect_failure", "refused_stream", "reset_before_headers", "response_timeout"]},
            "hedge": {"after": "30ms"}, **more}


def config(ports, generation, timeout="2s"):
    """Generation 0 is what it begins and ends with, without haste. Later ones take endpoints away and bring them back, name some upstreams anew,
    and turn to the other scope, another window, limits that adapt, active checks."""
    upstreams = {name: upstream(ports, **more) for name, more in UPSTREAMS.items()}
    upstreams["standby"] = upstream(ports)
    upstreams["one"]["circuit_breaker"]["fallback"] = {"upstream": "standby"}
    upstreams["each"]["circuit_breaker"]["fallback"] = {"status": 203, "body": "instead"}
    upstreams["two_each"]["circuit_breaker"]["fallback"] = {"stale": "1h"}
    rand = random.Random(generation)
    if not generation:
        for one in upstreams.values():
            one["circuit_breaker"]["slow_call"], one["hedge"] = "5s", {"after": "5s"}
    else:
        for one in upstreams.values():
            one["timeouts"] = FAST
            one["targets"] = rand.sample(one["targets"], rand.randint(1, ENDPOINTS))
            one["circuit_breaker"]["scope"] = rand.choice(["upstream", "endpoint"])
            one["circuit_breaker"]["window"] = rand.choice(["1s", "2s"])
            one["circuit_breaker"]["enabled"] = rand.random() < 0.9
            one["adaptive_concurrency"] = rand.random() < 0.3
            if rand.random() < 0.3:
                one["health_check"] = {"path": "/health", "interval": "100ms", "timeout": "50ms", "healthy": 1, "unhealthy": 2}
            one["outlier"]["success_rate"] = {"interval": "1s", "min_requests": 5, "min_endpoints": 2, "deviations": 0.9}
            one["load_balancer"] = rand.choice(["round_robin", "least_request", "ewma", "consistent_hash"])
            one["limits"] = {**one["limits"], "requests": rand.choice([4, PLACES])}
    gone = {rand.choice(["narrow", "two", "each"])} if generation % 3 == 1 else set()
    names = [name for name in upstreams if name not in gone]
    return {"workers": 2, "upstreams": {name: upstreams[name] for name in names},
            "listeners": None, "routes": [route(name, timeout=timeout) for name in names if name != "standby"]}


# ---- clients ----

class Client(StormClient):
    def __init__(self, port, rand, tally):
        self.port, self.rand, self.tally = port, rand, tally

    async def connection(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for _ in range(self.rand.randint(1, 10)):
                if not await self.one(reader, writer):
                    return
        finally:
            if self.rand.random() < 0.5:
                reset(writer)
            writer.close()

    async def one(self, reader, writer):
        rand = self.rand
        name, what = rand.choice(list(UPSTREAMS)), rand.random()
        if what < 0.7:
            writer.write(f"GET /{name}/{rand.randrange(5)} HTTP/1.1\r\nHost: storm\r\n\r\n".encode())
        else:
            body = b"b" * rand.choice([1, 1000, 50000])
            writer.write(f"POST /{name} HTTP/1.1\r\nHost: storm\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body if what < 0.95 else body[:-1])   # else it stalls
        if rand.random() < 0.25:
            await asyncio.sleep(rand.random() * 0.1)
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        self.tally[head.split(b" ", 2)[1].decode()] = self.tally.get(head.split(b" ", 2)[1].decode(), 0) + 1
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if b"content-length" in fields:
            await reader.readexactly(int(fields[b"content-length"]))
            return b"close" not in fields.get(b"connection", b"")
        await reader.read(100)   # of a body in chunks, and gone
        return False


def call(port, rand, end, tally):
    """gRPC: deadlines that are over soon, and calls given up."""
    with contextlib.closing(GrpcClient(port)) as client:
        while time.monotonic() < end:
            future = client.begin(f"/{rand.choice(['two', 'two_each'])}/Unary", b"hello", timeout=rand.choice([0.01, 0.05, 0.5]))
            if rand.random() < 0.3:
                time.sleep(rand.random() * 0.05)
                future.cancel()
                continue
            code = future.exception().code().name if future.exception() else "OK"
            tally[code] = tally.get(code, 0) + 1


# ---- what is done to everybody ----

def trouble(running, echoes, rand, end):
    generation = 0
    while time.monotonic() < end:
        time.sleep(0.05 + rand.random() * 0.1)
        what = rand.random()
        if what < 0.4:
            rand.choice(echoes).control(f"outage?misbehave={rand.choice(OUTAGES)}&ratio={rand.choice([0.2, 1])}"
                                        f"&for_ms={rand.choice([50, 200, 600])}")
        elif what < 0.8:
            path = f"/api/v1/breakers/{rand.choice([*UPSTREAMS, 'standby'])}"
            how = rand.choice(["open", "closed", None, None, None])   # 404 where there is none now
            ask(running.admin_port, path, "PUT" if how else "DELETE", json.dumps({"force": how}) if how else None)
        else:
            generation += 1
            running.reload(completed(running, echoes, generation))


def completed(running, echoes, generation, **more):
    changed = config([echo.port for echo in echoes], generation, **more)
    return {**running.config, **changed, "listeners": running.config["listeners"]}


# ---- afterwards ----

def breakers(running):
    return json.loads(ask(running.admin_port, "/api/v1/breakers").body)["breakers"]


def let_all_recover(running, echoes):
    for echo in echoes:
        echo.control("outage?end=1")
    for name in [*UPSTREAMS, "standby"]:
        ask(running.admin_port, f"/api/v1/breakers/{name}", "DELETE")
    running.wait_rest()
    assert not any(one["probes"] for one in breakers(running)), breakers(running)

    def all_closed():
        for name in UPSTREAMS:
            ask(running.port, f"/{name}")
        return all(one["state"] == "closed" for one in breakers(running) if one["upstream"] != "standby")
    until(all_closed, lambda: f"closed breakers: {breakers(running)}")


def at_once(running, name, count, query):
    """What was no 200 among so many."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [one for one in pool.map(lambda i: ask(running.port, f"/{name}/{i}{query}"), range(count)) if one.status != 200]


def check_places(running, echoes):
    """As many as `limits` say, and the line: were one place lost, one of them would be refused."""
    for name in UPSTREAMS:
        running.wait_rest()
        count = LINE + (FEW if name == "narrow" else PLACES)
        assert not at_once(running, name, count, "?misbehave=slow_head=20"), name


def retries(running, name):
    return sum(value for metric, value in running.metrics().items()
               if metric.startswith(f'sallyport_upstream_retries_total{{upstream="{name}"'))


def check_retries(running, echoes):
    """Three in flight always may: were three places in the budget lost, none would."""
    echoes[0].control("outage?misbehave=status=503")
    for name in UPSTREAMS:
        before = retries(running, name)
        assert [ask(running.port, f"/{name}/{i}").status for i in range(12)] == [200] * 12, name
        assert retries(running, name) > before, name


def check_gauges(running):
    metrics = running.metrics()
    assert all(value >= 0 for value in metrics.values()), {name: value for name, value in metrics.items() if value < 0}
    busy = {name: value for name, value in metrics.items() if 'state="active"' in name and "upstream" in name and value}
    assert not busy
    active = [one["active_requests"] for upstream in running.shown("upstreams")["upstreams"]
              for one in upstream["endpoints"]]
    assert not any(active), active


def storm(running, echoes, seconds):
    """What clients got: statuses of HTTP and of gRPC, and how many were cut off, and hung."""
    end, tally, failures = time.monotonic() + seconds, {"cut": 0, "hung": 0}, []

    def guarded(action, *args):
        try:
            action(*args)
        except Exception as failure:   # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(trouble, running, echoes, random.Random(SEED), end))]
    threads += [threading.Thread(target=guarded, args=(call, running.port, random.Random(f"{SEED} {i}"), end, tally))
                for i in range(CALLERS)]
    for thread in threads:
        thread.start()

    async def everybody():
        await asyncio.gather(*(Client(running.port, random.Random(f"{SEED}-{i}"), tally).run(end) for i in range(CLIENTS)))
    asyncio.run(everybody())
    for thread in threads:
        thread.join()
    print(f"SALLYPORT_STORM_SEED={SEED}", tally)
    assert not failures and not tally["hung"], failures
    return tally


@pytest.fixture
def echoes():
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Echo("--seed", str(SEED + i))) for i in range(ENDPOINTS)]


def begun(echoes):
    first = config([echo.port for echo in echoes], 0)
    del first["listeners"]
    return first


def test_breakers_in_a_storm(gateway, echoes):
    running = gateway({**begun(echoes), "drain": {"delay": "0s", "timeout": "5s"}})
    tally = storm(running, echoes, SECONDS)
    assert tally.get("200", 0) > 50 and tally.get("503", 0) > 10 and tally.get("OK", 0) > 5, tally
    running.reload_everywhere(completed(running, echoes, 0, timeout="20s"))   # half of it may be spent in line
    let_all_recover(running, echoes)
    check_retries(running, echoes)
    let_all_recover(running, echoes)
    check_places(running, echoes)
    running.wait_rest()
    check_gauges(running)


@pytest.mark.parametrize("drain", ["0s", "1s"])
def test_leaving_while_all_hang(tmp_path, echoes, drain):
    """TERM while places, lines, probes and second tries are held: with time to finish and without. A leak would be seen by the
    address sanitizer."""
    with Watched(tmp_path, {**begun(echoes), "drain": {"delay": "0s", "timeout": drain}}) as running:
        for echo in echoes:
            echo.control("outage?misbehave=hang")
        clients = [Raw(running.port) for _ in range(CLIENTS)]
        for i, client in enumerate(clients):
            client.send(f"GET /{list(UPSTREAMS)[i % len(UPSTREAMS)]} HTTP/1.1\r\nHost: storm\r\n\r\n".encode())
        until(lambda: sum(echo.control("load")["in_flight"] for echo in echoes) >= PLACES, "a crowd")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.log()
        assert "ended with status" not in running.log() and "killed" not in running.log(), running.log()
        for client in clients:
            client.close()
