"""Fleets of real Redis servers: a master that Sentinels watch over and a Cluster of six nodes, under load, with masters
killed and slots moved. Every command is accounted for by tests/peers/fleet_load.c; the gateways' own use of a fleet is the
list of revoked tokens.
"""
import json
import signal
import subprocess
import threading
import time

import pytest

from auth_service import AuthService
from gateway import BUILD, DEADLINE, free_port, until
from redis_servers import Cluster, Watched
from test_24_redis import Redis, revoke, wait_count, wait_redis

DEADLINE_MS = 100   # a server on a busy machine may be that slow
LATE_S = 3      # what a busy machine may add to a deadline; a lost command would never be answered
KEYS = 200


class Load:
    """fleet_load: INCR, one a millisecond, until it is ended."""

    def __init__(self, fleet, mode, master=""):
        nodes = ",".join(fleet.nodes())
        self.process = subprocess.Popen([str(BUILD / "tests/peers/fleet_load"), mode, nodes, master, str(KEYS), "1",
                                         str(DEADLINE_MS), "news"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def events(self, name):
        return [line for line in list(self.lines) if line.get("event") == name]

    def wait(self, name, count=1):
        return until(lambda: len(self.events(name)) >= count and self.events(name)[count - 1],
                     lambda: f"{count} × {name}: {self.lines}")

    def end(self):
        """The account. Nothing is lost: what was asked was answered, once, by its deadline."""
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0
        self.reader.join()
        account = self.lines[-1]
        assert account["asked"] > 0 and account["open"] == 0 and account["twice"] == 0
        assert account["ok"] + account["down"] + account["deadline"] + account["full"] == account["asked"]
        assert account["late_s"] < LATE_S
        return account

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


@pytest.fixture
def load():
    loads = []

    def start(*arguments, **more):
        loads.append(Load(*arguments, **more))
        return loads[-1]
    yield start
    for one in loads:
        one.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.end()


@pytest.fixture
def watched(tmp_path):
    fleet = Watched(tmp_path)
    try:
        yield fleet.start()
    finally:
        fleet.end()


def slot_of(server, key):
    return server.ask("CLUSTER", "KEYSLOT", key)


def incremented(server):
    return server.ask("INFO", "commandstats").get("cmdstat_incr", {"calls": 0})["calls"]


def test_sentinels_fail_over(watched, load, make):
    redis = {"mode": "sentinel", "nodes": watched.nodes(), "master": watched.name}
    gateways = [make({"redis": redis}).start() for _ in range(2)]
    for gateway in gateways:
        wait_redis(gateway, "up")
    assert revoke(gateways[0], jti="before").status == 201
    wait_count(gateways[1], 1)

    running = load(watched, "sentinel", master=watched.name)
    running.wait("up")
    running.wait("subscribed")
    watched.master.kill()
    running.wait("down")
    until(lambda: all(watched.master_port(one) == watched.replica.port for one in watched.sentinels), "another master")
    known = time.monotonic()
    up = running.wait("up", 2)
    assert up["at"] - known < 5   # of the Sentinels' knowing: a second, and what the machine adds
    running.wait("subscribed", 2)
    watched.replica.ask("PUBLISH", "news", "hello")
    assert running.wait("message")["what"] == "hello"
    before = incremented(watched.replica)
    until(lambda: incremented(watched.replica) > before + 100, "load goes there")
    account = running.end()
    assert account["errors"] == 0 and account["down"] > 0

    for gateway in gateways:
        wait_redis(gateway, "up")
    assert revoke(gateways[1], jti="after").status == 201
    wait_count(gateways[0], 2)

    # The old master comes back. It says that it is one, until the Sentinels tell it; nobody falls for it.
    watched.master.start()
    print(f"\na killed master: {account['gap_s']:.2f} s without a good answer, used {up['at'] - known:.2f} s after the last "
          f"Sentinel knew; answers at most {account['late_s'] * 1e3:.1f} ms past the deadline")
    fresh = load(watched, "sentinel", master=watched.name)
    fresh.wait("up")
    before = incremented(watched.replica)
    until(lambda: incremented(watched.replica) > before + 100, "load goes to the new one")
    assert fresh.end()["errors"] == 0
    assert incremented(watched.master) == 0


def test_sentinels_hand_over(watched, load):
    """A failover that was asked for: the old master lives on, as a replica."""
    running = load(watched, "sentinel", master=watched.name)
    running.wait("up")
    until(lambda: watched.sentinels[0].ask("SENTINEL", "FAILOVER", watched.name), "begun")
    until(lambda: all(watched.master_port(one) == watched.replica.port for one in watched.sentinels), "done")
    before = incremented(watched.replica)
    until(lambda: incremented(watched.replica) > before + 100, "load goes there")
    account = running.end()
    print(f"\na handed-over master: {account['gap_s']:.2f} s without a good answer, {account['errors']} errors")
    assert account["ok"] > 0 and account["errors"] < 2 * DEADLINE_MS   # READONLY, to what was under way: one a millisecond


def test_the_auth_service_tells_the_master(watched, tmp_path):
    redis = {"mode": "sentinel", "nodes": watched.nodes(), "master": watched.name, "key_prefix": "fleet:"}
    service = AuthService(tmp_path / "service", {"redis": redis})
    try:
        service.start()
        service.revoke(service.token())
        until(lambda: watched.master.ask("ZCARD", "fleet:deny") == 1, lambda: f"the revoked token\n{service.log()}")
    finally:
        service.kill()


def move_slot(cluster, key):
    """The slot of the key, from its owner to another master, while the key is counted up. How often each error was seen."""
    slot = slot_of(cluster.servers[0], key)
    source = cluster.owner(slot)
    target = next(server for server in cluster.servers
                  if server is not source and server.ask("INFO", "replication")["role"] == "master")
    until(lambda: source.ask("CLUSTER", "COUNTKEYSINSLOT", slot) >= 1, "there are keys")
    names = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
    asked, moved = source.errors("ASK"), source.errors("MOVED")
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    until(lambda: source.errors("ASK") > asked, "ASK")
    for server in (target, source):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
    counted = int(target.ask("GET", key))
    until(lambda: int(target.ask("GET", key)) > counted + 1, "load goes there")
    return source, source.errors("ASK") - asked, source.errors("MOVED") - moved


def test_slots_move_under_load(cluster, load):
    running = load(cluster, "cluster")
    running.wait("up")
    moves = [move_slot(cluster, f"load:{i}") for i in range(3)]
    assert all(asked for _, asked, _ in moves)
    assert any(moved for _, _, moved in moves)   # when the map was not read again by chance just then
    account = running.end()
    print(f"\nthree slots moved: {account['down'] + account['deadline']} of {account['asked']} commands failed")
    assert account["errors"] == 0 and account["ok"] > 0
    # What was acknowledged was carried out, and nothing twice.
    for i, (ok, unknown) in enumerate(account["keys"]):
        owner = cluster.owner(slot_of(cluster.servers[0], f"load:{i}"), asked=moves[0][0])
        assert ok <= int(owner.ask("GET", f"load:{i}") or 0) <= ok + unknown


def test_a_cluster_fails_over(cluster, load, make):
    redis = {"mode": "cluster", "nodes": cluster.nodes()[:3]}
    gateways = [make({"redis": redis}).start() for _ in range(2)]
    for gateway in gateways:
        wait_redis(gateway, "up")
    assert revoke(gateways[0], jti="before").status == 201
    wait_count(gateways[1], 1)

    running = load(cluster, "cluster")
    running.wait("up")
    running.wait("subscribed")
    slot = slot_of(cluster.servers[0], "sallyport:deny")   # the gateways' own is hit, too
    victim = cluster.owner(slot)
    other = next(server for server in cluster.servers if server is not victim)
    victim.kill()
    running.wait("down")
    until(lambda: cluster.owner(slot, asked=other) not in (None, victim), "a replica has taken over")
    known = time.monotonic()
    up = running.wait("up", 2)
    assert up["at"] - known < 8
    until(lambda: other.ask("PUBLISH", "news", "hello") is not None and running.events("message"), "published to all nodes")
    account = running.end()
    print(f"\na Cluster's killed master: all slots served {up['at'] - known:.2f} s after its peers knew")
    assert account["errors"] == 0 and account["down"] > 0 and account["ok"] > account["down"]

    for gateway in gateways:
        wait_redis(gateway, "up")
    assert revoke(gateways[1], jti="after").status == 201
    wait_count(gateways[0], 2)


def test_a_cluster_with_a_frozen_master(cluster, load):
    """Nobody refuses, nobody closes: deadlines alone tell."""
    for server in cluster.servers:   # the test before has killed one
        if server.process.poll() is not None:
            server.start()
    until(cluster.is_ready, "whole again")
    running = load(cluster, "cluster")
    running.wait("up")
    slot = slot_of(cluster.servers[0], "load:1")
    victim = cluster.owner(slot)
    other = next(server for server in cluster.servers if server is not victim)
    victim.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: cluster.owner(slot, asked=other) not in (None, victim), "a replica has taken over")
        running.wait("up", 2)
        account = running.end()
    finally:
        victim.process.send_signal(signal.SIGCONT)
    assert account["errors"] == 0 and account["deadline"] > 0 and account["ok"] > account["deadline"]


def test_a_cluster_behind_tls_and_a_password(make, tmp_path, pki):
    """Of one node, which does not know its own address; certificates are of the url's host."""
    node = Redis(tmp_path / "node", "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes",
                 "--user", "gate", "on", ">secret", "~sallyport:*", "&sallyport:*", "+@all",
                 tls=(pki.ca.file, pki.ca.issue("cache.internal")))
    try:
        node.start()
        done = subprocess.run(["redis-cli", "--tls", "--cacert", str(pki.ca.file), "-h", "127.0.0.1", "--sni", "cache.internal",
                               "-p", str(node.port), "cluster", "addslotsrange", "0", "16383"],
                              capture_output=True, text=True, timeout=DEADLINE)
        assert done.stdout.strip() == "OK", done
        redis = {"mode": "cluster", "url": "rediss://gate:secret@cache.internal", "ca": str(pki.ca.file),
                 "nodes": [f"127.0.0.1:{node.port}", "no-such.invalid:7000"]}
        gateways = [make({"redis": redis}).start() for _ in range(2)]
        for gateway in gateways:
            wait_redis(gateway, "up")
        assert revoke(gateways[0], jti="x").status == 201
        wait_count(gateways[1], 1)
        other = make({"redis": {**redis, "url": "rediss://gate:secret@other.internal"}}).start()
        until(lambda: "hostname mismatch" in other.log(), other.log)
        wait_redis(other, "down")
    finally:
        node.kill()
