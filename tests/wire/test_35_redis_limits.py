"""Rate limits in a real Redis: one limit for several gateways, and what becomes of it when Redis is in trouble."""
import json
import re
import threading

import pytest

from gateway import Gateway, ask, until
from peers import Raw, request
from test_24_redis import Redis

SLOW = "1/d"   # what comes back during a test is nothing


def limit(burst, rate=SLOW, **more):
    return {"key": "client_ip", "default": {"rate": rate, "burst": burst}, **more}


class Fleet:
    """Gateways with the same limits, each with a route of that name, on one Redis."""

    def __init__(self, directory, redis, count, limits, redis_settings=None, **more):
        self.redis, self.limits = redis, limits
        settings = {"url": f"redis://127.0.0.1:{redis.port}/0", "deadline": "50ms", **(redis_settings or {})}
        routes = [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "rate_limits": [name], "respond": {}}
                  for name in limits]
        routes += more.pop("routes", [])
        config = {"redis": settings, "rate_limits": {**limits, "warm": limit(1000000, "1000000/s")},
                  "routes": [*routes, {"name": "warm", "match": {"path": {"prefix": "/warm"}}, "rate_limits": ["warm"],
                                       "respond": {}}], **more}
        self.gateways = []
        for i in range(count):
            (directory / f"gateway-{i}").mkdir()
            self.gateways.append(Gateway(directory / f"gateway-{i}", config))

    def start(self):
        for gateway in self.gateways:
            gateway.start()
        self.wait_decided()
        return self

    def wait_decided(self):
        """Until every worker has Redis decide: so many requests in a row on new connections that none is left out."""
        for gateway in self.gateways:
            until(lambda gateway=gateway: self.all_decided(gateway), "Redis decides")

    def all_decided(self, gateway):
        before = decisions(gateway, "warm")["degraded"]
        for _ in range(24):
            assert self.ask(gateway, "/warm").status == 200
        return decisions(gateway, "warm")["degraded"] == before

    @staticmethod
    def ask(gateway, path, *fields):
        client = Raw(gateway.port)
        try:
            return client.ask(request(path, "GET", *fields))
        finally:
            client.close()

    def flood(self, path, requests, threads=4, *fields):
        """{status: count} of so many requests to each gateway, at once."""
        got, lock = {}, threading.Lock()

        def run(gateway, count):
            client = Raw(gateway.port)
            for _ in range(count):
                status = client.ask(request(path, "GET", *fields)).status
                with lock:
                    got[status] = got.get(status, 0) + 1
            client.close()
        running = [threading.Thread(target=run, args=(gateway, requests // threads))
                   for gateway in self.gateways for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return got

    def close(self):
        for gateway in self.gateways:
            gateway.__exit__(None, None, None)


def decisions(gateway, name):
    found = {}
    for series, value in gateway.metrics().items():
        match = re.fullmatch(r'sallyport_rate_limit_decisions_total\{limit="(.*)",decision="(.*)"\}', series)
        if match and match[1] == name:
            found[match[2]] = int(value)
    return found


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
    before = calls(redis)
    assert made.flood("/few", 2000, 4) == {429: 2000}
    assert calls(redis) - before < 20   # heartbeats


def calls(redis):
    stats = redis.ask("INFO", "commandstats").decode()
    return sum(int(n) for n in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", stats))


def test_what_clients_are_told(fleet):
    made = fleet(2, {"two": limit(2, "1/m")})
    first, second = made.gateways
    assert made.ask(first, "/two").get("RateLimit") == '"two";r=1;t=60'
    assert made.ask(second, "/two").get("RateLimit") in ('"two";r=0;t=120', '"two";r=0;t=119')
    for gateway in (first, second, first):   # asked of Redis, then remembered
        refused = made.ask(gateway, "/two")
        assert refused.status == 429 and json.loads(refused.body)["code"] == "rate_limited"
        assert 58 <= int(refused.get("Retry-After")) <= 60


def test_the_admin_api_shows_and_resets_a_bucket(fleet, redis):
    made = fleet(2, {"q": {"key": "client_ip", "default": {"rate": SLOW, "burst": 5, "quotas": ["3/month"]}}})
    first, second = made.gateways
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
