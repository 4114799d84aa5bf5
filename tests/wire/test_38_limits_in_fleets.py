"""Limits under load while Sentinels and a Cluster of six fail over, and while a slot moves: real servers. Figures:
test_38_limits_in_trouble.py says how.
"""
import json
import os
import signal
import time

import pytest

from gateway import ask, until
from limit_trouble import AFTER_S, LIMITS, RATE, Trial, start
from limit_wire import decisions, limit
from redis_servers import Cluster, Watched
from test_35_redis_limits import freeze, kill

# ---- a master, a replica, three Sentinels ----

ROUTES = [{"name": "pair", "match": {"path": {"prefix": "/pair"}}, "rate_limits": ["hot", "count"], "respond": {}}]
COUNT = 500000   # the burst of a limit that refuses nobody: what is gone of it is what Redis has been charged
MORE_LIMITS = {**LIMITS, "count": limit(COUNT, "1/m", key="global"), "few": limit(100, key="global")}


@pytest.fixture
def start_fleet(tmp_path):
    fleets = []

    def start_one(*arguments, **more):
        fleets.append(start(tmp_path, *arguments, **more))
        return fleets[-1]
    yield start_one
    for fleet in fleets:
        fleet.close()


def charged(fleet):
    """As soon as Redis says so in time."""
    shown = until(lambda: json.loads(ask(fleet.gateways[0].admin_port, "/api/v1/limits/count").body).get("tiers"), "the bucket")
    return COUNT - shown[0]["remaining"]


def fail_over(fleet, title, trouble, knows):
    """Trouble, until knows(); then Redis decides again. The trial."""
    with Trial(fleet, "/pair") as trial:
        trial.run_quiet()
        trial.begin("no master")
        trouble()
        until(knows, "another master")
        known = time.monotonic()
        recovered = trial.wait_redis_decides(known)
        trial.run("failed over", AFTER_S)
    by_redis = sum(decisions(gateway, "count")["allow"] for gateway in fleet.gateways)
    trial.table(f"{title}, Redis decides again {recovered:.2f} s after it has another master", recovered)
    print(f"admitted by Redis {by_redis}, known to the new master {charged(fleet)}")
    trial.check(recovered)
    few = fleet.flood("/few", 400)
    # What a busy machine delays past the deadline is decided here.
    late = sum(decisions(gateway, "few")["degraded"] for gateway in fleet.gateways)
    assert few[200] + few[429] == 800 and 100 <= few[200] <= 100 + min(late, 100), (few, late)


@pytest.fixture
def watched(tmp_path):
    fleet = Watched(tmp_path)
    try:
        yield fleet.start()
    finally:
        fleet.end()


@pytest.mark.parametrize("trouble", [kill, freeze], ids=lambda trouble: trouble.__name__)
def test_sentinels_fail_over(watched, start_fleet, trouble):
    fleet = start_fleet(watched.master, limits=MORE_LIMITS, routes=ROUTES, mode="sentinel", nodes=watched.nodes(),
                        master=watched.name)
    fail_over(fleet, f"master, {trouble.__name__}", lambda: trouble(watched.master),
              lambda: all(watched.master_port(one) == watched.replica.port for one in watched.sentinels))


# ---- a Cluster of six ----

@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.end()


@pytest.fixture
def whole_cluster(cluster):
    for server in cluster.servers:
        server.process.send_signal(signal.SIGCONT)
        if server.process.poll() is not None:
            server.start()
    until(cluster.is_ready, "whole again")
    for server in cluster.servers:
        if server.ask("INFO", "replication")["role"] == "master":
            server.ask("FLUSHALL")
    return cluster


def slot_of(cluster, pattern):
    """Of the only key there is of that pattern."""
    keys = {key for server in cluster.servers for key in server.ask("KEYS", pattern)}
    assert len(keys) < 2, keys
    return keys and cluster.servers[0].ask("CLUSTER", "KEYSLOT", keys.pop())


@pytest.mark.parametrize("trouble", [kill, freeze], ids=lambda trouble: trouble.__name__)
def test_a_cluster_fails_over(whole_cluster, start_fleet, trouble):
    cluster = whole_cluster
    fleet = start_fleet(cluster.servers[0], limits=MORE_LIMITS, routes=ROUTES, mode="cluster", nodes=cluster.nodes()[:3])
    assert fleet.ask(fleet.gateways[0], "/pair").status == 200
    slot = slot_of(cluster, "*}count")
    victim = cluster.owner(slot)
    other = next(server for server in cluster.servers if server is not victim)
    fail_over(fleet, f"master of a Cluster, {trouble.__name__}", lambda: trouble(victim),
              lambda: cluster.owner(slot, asked=other) not in (None, victim))


def move_slot(cluster, slot, pause_s, nobody_asks):
    """To another master, key by key, as redis-cli --cluster reshard does, but slowly. Errors that it made the old one answer."""
    source = cluster.owner(slot)
    target = next(server for server in cluster.servers
                  if server is not source and server.ask("INFO", "replication")["role"] == "master")
    names = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
    before = {name: source.errors(name) for name in ("ASK", "MOVED", "TRYAGAIN")}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    for left, key in reversed(list(enumerate(keys))):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", key)
        Trial.sleep(pause_s)
        error = "TRYAGAIN" if left else "ASK"   # some of the keys have moved, or all
        until(lambda: source.errors(error) > before[error] or nobody_asks(),   # noqa: B023
              lambda: f"{error} for who asks about {keys}")   # noqa: B023
    for server in (target, source):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    until(lambda: all(cluster.owner(slot, asked=server) is target for server in cluster.servers), "all know the new owner")
    return {name: source.errors(name) - before[name] for name in before}


def test_a_slot_moves(whole_cluster, start_fleet):
    """That is no trouble: exactly the limit is admitted, all of it by Redis."""
    cluster, burst = whole_cluster, 6 * RATE
    limits = {"exact": limit(burst, "1/m", key="global"), "also": limit(COUNT, "1/m", key="global")}
    fleet = start_fleet(cluster.servers[0], limits=limits, mode="cluster", nodes=cluster.nodes()[:3],
                        deadline=os.environ.get("SALLYPORT_LIMIT_DEADLINE", "10s"), routes=[
        {"name": "both", "match": {"path": {"prefix": "/both"}}, "rate_limits": ["exact", "also"], "respond": {}}])

    def is_used_up():
        """Which is not asked about again."""
        return any(decisions(gateway, "exact")["deny"] for gateway in fleet.gateways)
    with Trial(fleet, "/both", "exact") as trial:
        trial.begin("moving")
        slot = until(lambda: slot_of(cluster, "*}exact"), "a key")
        errors, asked = [], []
        for _ in range(3):
            errors.append(move_slot(cluster, slot, 0.2, is_used_up))
            asked.append(not is_used_up())
        until(is_used_up, "refusals")
        trial.run("used up", 0.5)
    print(f"\na slot moves three times: {errors}; admitted {trial.admitted} of {burst}, "
          f"p99 {trial.results[0].p99:.2f} ms, at most {trial.results[0].worst:.1f} ms")
    assert asked[0]
    assert all(error["ASK"] and error["TRYAGAIN"] for error, was_asked in zip(errors, asked) if was_asked)
    assert trial.admitted == burst
    assert all(r.errors == r.lost == r.degraded == 0 for r in trial.results)
    assert trial.without_redis() == 0
