"""Leased limits in a real Redis: gateways take tokens ahead, and together never more than there are."""
import json
import re
import threading
import time

import pytest

from gateway import ask, until
from limit_wire import Fleet, alive, decisions, limit
from peers import Raw, Upstream, answer, request
from test_24_redis import Redis
from test_35_redis_limits import Flood, calls

# What is idle goes back after half a second to a second.
IDLE = 1


@pytest.fixture
def redis(tmp_path):
    made = Redis(tmp_path / "redis").start()
    yield made
    made.kill()


@pytest.fixture
def fleet(tmp_path, redis):
    made = []

    def make(count, limits, **more):
        made.append(Fleet(tmp_path, redis, count, limits, **more))
        made[-1].start()
        until(lambda: all(alive(gateway) == count for gateway in made[-1].gateways), "all have heard of all")
        return made[-1]
    yield make
    for each in made:
        each.close()


SLOW = "6/h"   # what comes back during a test is nothing


def leased(burst, rate=SLOW, **more):
    return limit(burst, rate, sync="leased", **more)


def shown(gateway, name, method="GET"):
    """(what is in Redis, what the gateway holds)"""
    answer = json.loads(ask(gateway.admin_port, f"/api/v1/limits/{name}?key=127.0.0.1", method).body)
    return answer["tiers"][0]["remaining"], answer["tiers"][0]["leased"]


def pump(gateway, path, threads=4, stop=lambda got: False, seconds=0.5):
    """{status: count} of as many requests as there can be."""
    got, lock, end = {}, threading.Lock(), time.monotonic() + seconds

    def run():
        client = Raw(gateway.port)
        while time.monotonic() < end and not stop(got):
            status = client.ask(request(path)).status
            with lock:
                got[status] = got.get(status, 0) + 1
        client.close()
    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return got


@pytest.mark.parametrize("count", [1, 2])
def test_together_they_admit_exactly_what_there_is(fleet, redis, count):
    """However it is shared out, in the end every token has been spent, once."""
    burst = 3000
    made = fleet(count, {"few": leased(burst)}, workers=2)
    admitted = 0
    before = calls(redis)
    while got := made.flood("/few", 600 // count).get(200, 0):
        admitted += got
        assert admitted <= burst
    asked = calls(redis) - before
    until(lambda: all(shown(gateway, "few")[1] == 0 for gateway in made.gateways), "nothing is held any more")
    while got := made.flood("/few", 600 // count).get(200, 0):
        admitted += got
    assert admitted == burst
    print(f"{asked} commands for {burst} admitted requests of {count} gateways")
    assert asked < burst / 4
    assert sum(decisions(gateway, "few")["degraded"] for gateway in made.gateways) == 0


def test_the_rate_is_kept_over_time(fleet):
    """A flood for a while: at most the burst and what came back, and at least that without what others may hold."""
    rate, burst, seconds = 200, 300, 4   # what comes back while the machine stands still for a second is not too much
    made = fleet(2, {"rate": leased(burst, f"{rate}/s")}, workers=2)
    flood = Flood(made, "/rate", 2, 0.0005)
    until(lambda: flood.got and flood.got[-1][0] > flood.got[0][0] + seconds and flood.got[-1][1] == 429, "a while")
    got = flood.stop()
    first = min(began for began, _, _ in got)
    took = max(began + lasted for began, _, lasted in got) - first
    empty = max(began for began, status, _ in got if status == 429) - first   # everything has been spent then
    admitted = sum(status == 200 for _, status, _ in got)
    print(f"{admitted} of {len(got)} admitted in {took:.3f} s")
    assert {status for _, status, _ in got} <= {200, 429}
    assert admitted <= burst + rate * took
    # A purse holds a quarter of the burst at most: half of one of two shares.
    assert admitted >= burst + rate * (empty - 0.2) - 2 * burst / 4


def test_a_request_now_and_then_takes_its_token_only(fleet):
    made = fleet(2, {"cold": leased(1000)}, workers=2)
    for taken in range(1, 5):
        gateway = made.gateways[taken % 2]
        told = made.ask(gateway, "/cold")
        assert told.status == 200 and told.get("RateLimit").startswith(f'"cold";r={1000 - taken};')
        assert shown(gateway, "cold") == (1000 - taken, 0)
        time.sleep(0.15)   # a batch is what is used in a tenth of a second


def warm(made, gateway, path, name):
    """Until the gateway holds tokens. How many requests were admitted for that."""
    got = pump(gateway, path, stop=lambda _: shown(gateway, name)[1] >= 20)
    assert set(got) == {200}
    return got[200]


def test_what_is_idle_goes_back(fleet):
    made = fleet(2, {"idle": leased(1000)}, workers=2)
    first, second = made.gateways
    used = warm(made, first, "/idle", "idle")

    def shared_out():   # what goes back while the two are asked is nowhere
        left, held = shown(first, "idle")
        return left + held == 1000 - used and shown(second, "idle") == (left, 0) and (left, held)
    _, held = until(shared_out, "all of it, here or in Redis")
    assert held <= 1000 / 2 / 2
    until(lambda: shown(first, "idle") == (1000 - used, 0), "all of it is in Redis")
    assert first.metrics()["sallyport_rate_limit_lost_tokens_total"] == 0


def test_a_drain_and_a_reload_give_back(fleet):
    made = fleet(2, {"gone": leased(1000)}, workers=2)
    first, second = made.gateways
    used = warm(made, first, "/gone", "gone") + warm(made, second, "/gone", "gone")
    first.config["rate_limits"]["gone"]["sync"] = "exact"
    first.reload_everywhere(first.config)
    second.stop()
    # Without waiting until anything has been idle for long enough. What the workers give back and what is asked here come to
    # Redis on connections of their own.
    left = lambda: json.loads(ask(first.admin_port, "/api/v1/limits/gone?key=127.0.0.1").body)["tiers"][0]["remaining"]   # noqa: E731
    until(lambda: left() == 1000 - used, lambda: f"{1000 - used} in Redis, there are {left()}")


def test_a_reset_voids_what_is_held(fleet):
    made = fleet(1, {"reset": leased(1000)}, workers=2)
    warm(made, made.gateways[0], "/reset", "reset")
    assert shown(made.gateways[0], "reset", "DELETE") == (1000, 0)


def test_what_is_held_is_spent_without_redis(fleet, redis):
    """It is paid already; after it comes this gateway's share."""
    made = fleet(1, {"paid": leased(1000, on_redis_down="deny")}, workers=1)
    gateway = made.gateways[0]

    def killed_with_some():
        """How many the gateway holds, when Redis was gone before any of them could have gone back."""
        began = time.monotonic()
        warm(made, gateway, "/paid", "paid")
        _, held = shown(gateway, "paid")
        asked = time.monotonic()
        redis.kill()
        if time.monotonic() - asked < IDLE / 2 and asked - began < IDLE:
            return held
        redis.start()
        made.wait_decided()
        return None
    held = until(killed_with_some, "Redis gone in time")
    got = pump(gateway, "/paid", 1, stop=lambda got: 503 in got, seconds=5)
    assert got == {200: held, 503: 1}


def test_exact_and_leased_limits_of_one_request(fleet, redis):
    """All or nothing: what the exact one refuses goes back to the purse."""
    made = fleet(2, {"much": leased(1000), "few": limit(60, "6/h")}, workers=2, routes=[
        {"name": "both", "match": {"path": {"prefix": "/both"}}, "rate_limits": ["much", "few"], "respond": {}}])
    assert made.flood("/both", 400) == {200: 60, 429: 740}
    until(lambda: all(shown(gateway, "much") == (940, 0) for gateway in made.gateways), "all others are back")


def test_quotas_are_leased_as_well(fleet):
    quota = {"key": "client_ip", "sync": "leased", "default": {"rate": "1000000/s", "burst": 1000000,
                                                                       "quotas": ["1200/month"]}}
    made = fleet(2, {"quota": quota}, workers=2)
    admitted = 0

    def spent():   # what others hold comes back
        nonlocal admitted
        while got := made.flood("/quota", 400).get(200, 0):
            admitted += got
            assert admitted <= 1200
        return admitted == 1200
    until(spent, lambda: f"all of it: {admitted}")
    told = made.ask(made.gateways[0], "/quota")
    assert told.status == 429 and json.loads(told.body)["code"] == "quota_exceeded"


def test_costs_that_the_upstream_tells(fleet):
    upstream = Upstream()
    upstream.program(reply=lambda _: answer(b"", "200 OK", "X-Cost: 3"))
    made = fleet(2, {"cost": leased(900, cost="header.X-Cost")}, upstreams={
        "main": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]}}, routes=[
        {"name": "up", "match": {"path": {"prefix": "/up"}}, "rate_limits": ["cost"], "upstream": "main"}])
    assert made.flood("/up", 100) == {200: 200}
    until(lambda: all(shown(gateway, "cost") == (300, 0) for gateway in made.gateways), "all is settled and given back")
    upstream.close()
