"""Rate limits in a real Redis: one limit for several gateways, and what becomes of it when Redis is in trouble."""
import json
import re
import signal
import socket
import threading
import time

import pytest

from gateway import DEADLINE, ROOT, ask, free_port, until
from limit_wire import SLOW, Fleet, alive, decisions, limit
from peers import Raw, Upstream, answer, request
from test_24_redis import Redis


@pytest.fixture
def redis(tmp_path):
    made = Redis(tmp_path / "redis", "--enable-debug-command", "yes").start()
    yield made
    made.kill()


@pytest.fixture
def fleet(tmp_path, redis):
    made = []

    def make(count, limits, redis=redis, **more):
        made.append(Fleet(tmp_path, redis, count, limits, **more))
        return made[-1].start()
    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gateways_share_one_exact_limit(fleet, count):
    """Ten times the limit is asked for; exactly the limit is admitted."""
    made = fleet(count, {"few": limit(100)}, workers=2)
    got = made.flood("/few", 1000 // count)
    assert got == {200: 100, 429: sum(got.values()) - 100}
    assert sum(decisions(gateway, "few")["degraded"] for gateway in made.gateways) == 0


def test_a_flood_costs_redis_nothing(fleet, redis):
    made = fleet(1, {"few": limit(10)}, workers=1)
    assert made.flood("/few", 20, 1) == {200: 10, 429: 10}
    before, began = calls(redis), time.monotonic()
    assert made.flood("/few", 2000, 4) == {429: 2000}
    assert calls(redis) - before < 20 + time.monotonic() - began   # heartbeats: one a second


def test_costs_that_the_upstream_tells(fleet, redis):
    upstream = Upstream()
    upstream.program(reply=lambda _: answer(b"", "200 OK", "X-Cost: 40"))
    made = fleet(2, {"cost": limit(100, cost="header.X-Cost")}, upstreams={
        "main": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]}}, routes=[
        {"name": "up", "match": {"path": {"prefix": "/up"}}, "rate_limits": ["cost"], "upstream": "main"}])
    first, second = made.gateways
    assert [made.ask(gateway, "/up").status for gateway in (first, second, first)] == [200] * 3
    until(lambda: made.ask(second, "/up").status == 429, "what is owed")
    upstream.close()


def test_a_cluster_asks_tag_by_tag(tmp_path, fleet, make_cluster):
    """Limits by different parts are in different slots: who refuses makes those before give back."""
    redis = make_cluster()
    made = fleet(2, {"mine": limit(10), "all": limit(3, key="global")}, redis=redis, redis_settings={
        "mode": "cluster", "nodes": [f"127.0.0.1:{redis.port}"]}, routes=[
        {"name": "both", "match": {"path": {"prefix": "/both"}}, "rate_limits": ["mine", "all"], "respond": {}}])
    assert made.flood("/both", 20) == {200: 3, 429: 37}
    left = json.loads(ask(made.gateways[0].admin_port, "/api/v1/limits/mine?key=127.0.0.1").body)["tiers"][0]["remaining"]
    assert left == 7
    tags = {key.decode() for key in re.findall(rb"sallyport:{([0-9a-f]{32})}", redis.ask("KEYS", "*"))}
    assert len(tags) == 2


@pytest.fixture
def make_cluster(tmp_path):
    made = []

    def make_one():
        """One node that has all slots."""
        redis = Redis(tmp_path / "cluster", "--cluster-enabled", "yes", "--cluster-port", str(free_port())).start()
        made.append(redis)
        assert redis.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"+OK\r\n"
        until(lambda: b"cluster_state:ok" in redis.ask("CLUSTER", "INFO"), "the cluster")
        return redis
    yield make_one
    for redis in made:
        redis.kill()


# ---- Redis in trouble ----

class Flood:
    """Requests to every gateway on connections that are kept, until it is told to stop: (when, status, seconds)."""

    def __init__(self, fleet, path, threads=2, pause=0.002):
        self.got, self.stopping, self.pause = [], threading.Event(), pause
        self.threads = [threading.Thread(target=self.run, args=(gateway, path))
                        for gateway in fleet.gateways for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, gateway, path):
        client = Raw(gateway.port)
        while not self.stopping.wait(self.pause):
            began = time.monotonic()
            status = client.ask(request(path)).status
            self.got.append((began, status, time.monotonic() - began))
        client.close()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.got

    def since(self, when):
        return [status for began, status, _ in list(self.got) if began > when]


def freeze(redis):
    redis.process.send_signal(signal.SIGSTOP)
    return lambda: redis.process.send_signal(signal.SIGCONT)


def kill(redis):
    redis.kill()
    return redis.start


def fill(redis):
    assert redis.ask("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
    return lambda: redis.ask("CONFIG", "SET", "maxmemory", "0")


def make_replica(redis):
    assert redis.ask("REPLICAOF", "127.0.0.1", free_port()).startswith(b"+OK")
    assert redis.ask("CONFIG", "SET", "replica-serve-stale-data", "yes") == b"+OK\r\n"
    return lambda: redis.ask("REPLICAOF", "NO", "ONE")


def say(redis, *lines):
    """Commands on one connection."""
    with socket.create_connection(("127.0.0.1", redis.port), timeout=DEADLINE) as peer:
        for line in lines:
            peer.sendall(line.encode() + b"\r\n")
            got = peer.recv(64)
            assert got.startswith((b"+OK", b":")), got


def lock_out(redis):
    """Another password, and everybody has to say it."""
    say(redis, "CONFIG SET requirepass changed", "CLIENT KILL TYPE normal SKIPME yes")
    return lambda: say(redis, "AUTH changed", 'CONFIG SET requirepass ""')


def slow_down(redis):
    """Every answer takes longer than the deadline."""
    stop = threading.Event()

    def sleep():
        while not stop.is_set():
            try:
                redis.ask("DEBUG", "SLEEP", "0.2")
            except OSError:
                pass
    thread = threading.Thread(target=sleep)
    thread.start()

    def undo():
        stop.set()
        thread.join()
    return undo


TROUBLES = [freeze, kill, fill, make_replica, lock_out, slow_down]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
def test_trouble_is_no_error(fleet, redis, trouble):
    """No answer is a 5xx, nobody waits for long, what is admitted is the limit's burst and one more, and a second after the
    end Redis decides again. A Redis that forgets its buckets is a third burst: what the first had given out is then in no
    gateway's share, but for what one of them has not heard of yet."""
    burst = 150
    made = fleet(2, {"few": limit(burst)}, workers=1, redis_settings={"deadline": "20ms"})
    until(lambda: [alive(gateway) for gateway in made.gateways] == [2, 2], "both have heard of both")
    flood = Flood(made, "/few")
    until(lambda: sum(status == 200 for _, status, _ in list(flood.got)) >= 40, "a beginning")
    undo = trouble(redis)
    began = time.monotonic()
    until(lambda: all(decisions(gateway, "warm")["degraded"] or made.ask(gateway, "/warm").status != 200
                      for gateway in made.gateways), "decisions without Redis")
    until(lambda: len(flood.since(began)) > 400, "requests meanwhile")
    meanwhile = list(flood.got)
    undo()
    ended = time.monotonic()
    made.wait_decided()
    recovered = time.monotonic() - ended
    got = flood.stop()
    statuses = {status for _, status, _ in got}
    admitted = sum(status == 200 for _, status, _ in got)
    slowest = sorted(seconds for when, _, seconds in meanwhile if when > began)
    print(f"{trouble.__name__}: {admitted} of {len(got)} admitted, slowest {slowest[-1] * 1000:.0f} ms, "
          f"p99 {slowest[len(slowest) * 99 // 100] * 1000:.1f} ms, recovered in {recovered:.2f} s")
    assert statuses == {200, 429}
    unheard = burst // 10 if trouble is kill else 0
    assert admitted <= 2 * burst + unheard
    for gateway in made.gateways:   # in the end all is used up
        until(lambda gateway=gateway: made.ask(gateway, "/few").status == 429, "a refusal")


def test_what_else_may_be_done(fleet, redis):
    made = fleet(1, {"open": limit(1, on_redis_down="allow"), "shut": limit(1, on_redis_down="deny"),
                     "dark": limit(1, on_redis_down="deny", shadow=True)}, workers=1)
    gateway = made.gateways[0]
    redis.kill()
    until(lambda: made.ask(gateway, "/shut").status == 503, "Redis is gone")
    refused = made.ask(gateway, "/shut")
    assert json.loads(refused.body)["code"] == "limiter_unavailable" and refused.get("RateLimit") is None
    assert [made.ask(gateway, path).status for path in ("/open", "/open", "/dark", "/dark")] == [200] * 4
    assert decisions(gateway, "open")["degraded"] == 2
    redis.start()
    made.wait_decided()
    assert [made.ask(gateway, "/open").status for _ in range(2)] == [200, 429]


def test_a_redis_that_is_not_there_at_the_start(tmp_path, redis):
    redis.kill()
    made = Fleet(tmp_path, redis, 1, {"few": limit(3)}, workers=1)
    try:
        gateway = made.gateways[0].start()
        assert [made.ask(gateway, "/few").status for _ in range(4)] == [200, 200, 200, 429]
        assert decisions(gateway, "few") == {"allow": 0, "degraded": 4, "deny": 0, "shadow_deny": 0}
        redis.start()
        made.wait_decided()
        assert [made.ask(gateway, "/few").status for _ in range(4)] == [200, 200, 200, 429]   # Redis has heard of none
    finally:
        made.close()


def test_a_user_with_no_more_rights_than_that(tmp_path, fleet, redis):
    """Those that docs/RATE-LIMITS.md names, beside what revocation takes."""
    text = (ROOT / "docs/RATE-LIMITS.md").read_text()
    rights = re.search(r"for limits, `([^`]+)`", text)[1].split()
    redis.ask("ACL", "SETUSER", "gateway", "on", ">secret", "~sallyport:*", "&sallyport:*", "-@all", *rights,
              "+hello", "+auth", "+ping", "+select", "+subscribe", "+publish", "+zrangebyscore")
    (tmp_path / "password").write_text("secret")
    made = fleet(1, {"few": limit(3)}, redis_settings={"username": "gateway",
                                                       "password": {"file": str(tmp_path / "password")}})
    assert made.flood("/few", 20) == {200: 3, 429: 17}
    path = "/api/v1/limits/few?key=127.0.0.1"
    assert json.loads(ask(made.gateways[0].admin_port, path, "DELETE").body)["tiers"][0]["remaining"] == 3
    until(lambda: redis.ask("ZCARD", "sallyport:gateways") == b":1\r\n", "a heartbeat")
    assert "Redis says" not in made.gateways[0].log()


def test_a_start_waits_for_redis(fleet):
    made = fleet(1, {"few": limit(3, on_redis_down="deny")}, workers=1)
    gateway = made.gateways[0]
    for _ in range(3):
        gateway.stop()
        gateway.start()
        until(lambda: ask(gateway.status_port, "/readyz").status == 200, "ready")
        assert made.ask(gateway, "/few").status in (200, 429)


def calls(redis):
    stats = redis.ask("INFO", "commandstats").decode()
    return sum(int(n) for n in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", stats))


def test_what_clients_are_told(fleet):
    made = fleet(2, {"two": limit(2, "1/m")})
    first, second = made.gateways
    assert made.ask(first, "/two").get("RateLimit") == '"two";r=1;t=60'
    assert re.fullmatch(r'"two";r=0;t=1(20|1\d)', made.ask(second, "/two").get("RateLimit"))
    for gateway in (first, second, first):   # asked of Redis, then remembered
        refused = made.ask(gateway, "/two")
        assert refused.status == 429 and json.loads(refused.body)["code"] == "rate_limited"
        assert 50 <= int(refused.get("Retry-After")) <= 60


def test_the_admin_api_shows_and_resets_a_bucket(fleet, redis):
    made = fleet(2, {"q": {"key": "client_ip", "default": {"rate": SLOW, "burst": 5, "quotas": ["3/month"]}},
                     "quota": {"key": "client_ip", "default": {"in_flight": 5, "quotas": ["3/month"]}}})
    first, second = made.gateways
    for known in (False, True):
        assert json.loads(ask(first.admin_port, "/api/v1/limits/quota?key=127.0.0.1").body)["known"] is known
        assert made.ask(first, "/quota").status == 200
    path = "/api/v1/limits/q?key=127.0.0.1"
    assert json.loads(ask(second.admin_port, path).body)["known"] is False
    for _ in range(3):
        assert made.ask(first, "/q").status == 200
    assert made.ask(first, "/q").status == 429
    shown = json.loads(ask(second.admin_port, path).body)
    assert shown["store"] == "redis" and shown["known"] is True
    assert shown["tiers"][0]["remaining"] == 2 and shown["tiers"][0]["quotas"][0]["remaining"] == 0
    shown = json.loads(ask(first.admin_port, path, "DELETE").body)
    assert shown["tiers"][0]["remaining"] == 5 and shown["tiers"][0]["quotas"][0]["remaining"] == 3
    assert made.ask(first, "/q").status == 200
    redis.kill()
    answer = until(lambda: (lambda a: a.status == 503 and a)(ask(first.admin_port, path)), "no answer")
    assert json.loads(answer.body)["code"] == "limiter_unavailable"


def test_keys_say_nothing_of_callers(fleet, redis):
    """And nothing of configurations: a reload keeps the buckets."""
    made = fleet(1, {"h": {"key": "header.X-Tenant", "default": {"rate": SLOW, "burst": 2}}})
    gateway = made.gateways[0]
    hostile = "x}{a:very*secret[tenant]"
    assert made.ask(gateway, "/h", f"X-Tenant: {hostile}").status == 200
    keys = redis.ask("KEYS", "*").decode()
    assert "secret" not in keys and re.search(r"sallyport:\{[0-9a-f]{32}\}h\r\n", keys)
    gateway.config["rate_limits"]["h"]["default"]["burst"] = 3
    gateway.reload_everywhere(gateway.config)
    made.wait_decided()
    assert [made.ask(gateway, "/h", f"X-Tenant: {hostile}").status for _ in range(3)] == [200, 200, 429]
