"""How many requests of one caller may be under way at once: counted over workers and protocols, given back however they end."""
import json
import re
import signal
import threading
import time

import pytest

from gateway import ask, until
from h2_peers import H2Client
from limit_wire import Limited, route
from peers import Incomplete, Raw, answer, request
from test_10_upgrades import SWITCH, UPGRADE, parrot
from test_35_redis_limits import redis   # noqa: F401

ROOM = "try again in 1 s"


def at_once(count, **more):
    return {"key": "client_ip", "default": {"in_flight": count}, **more}


class Flights(Limited):
    """Its upstream holds every request until `release`."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.clients = []
        self.hold()

    def hold(self, reply=answer):
        self.release = release = threading.Event()

        def wait(_):
            assert release.wait(30)
            return reply()
        self.upstream.program(reply=wait)

    def begin(self, path, *fields, arrives=True, **more):
        """A request that is under way."""
        seen = len(self.upstream.requests)
        client = Raw(self.gateway.port, **more)
        self.clients.append(client)
        client.send(request(path, "GET", *fields))
        if arrives:
            self.upstream.wait_requests(seen + 1)
        return client

    def count(self, name, *keys):
        return json.loads(self.bucket(name, *keys).body)["in_flight"]

    def until_count(self, count, name="few", key="127.0.0.1"):
        until(lambda: self.count(name, key) == count, lambda: f"{count} under way, there are {self.count(name, key)}")

    def __exit__(self, *error):
        self.release.set()
        for client in self.clients:
            client.close()
        super().__exit__(*error)


@pytest.fixture
def flights(tmp_path):
    made = []

    def make_one(limits, routes, **more):
        made.append(Flights(tmp_path, limits, routes, **more))
        return made[-1].__enter__()
    yield make_one
    for each in made:
        each.__exit__(None, None, None)


def test_what_clients_are_told(flights):
    made = flights({"few": at_once(2)}, [route("a", "few"), route("b", "few")])
    first, second = made.begin("/a"), made.begin("/b")
    got = made.ask("/a")
    assert got.status == 429 and got.all("Retry-After") == ["1"]
    assert not got.all("RateLimit") and not got.all("RateLimit-Policy")   # these are about buckets
    problem = json.loads(got.body)
    assert problem["code"] == "rate_limited" and problem["detail"] == f"the limit few allows 2 at once; {ROOM}"
    grpc = made.ask("/a", "Content-Type: application/grpc", method="POST", body=b"")
    assert grpc.get("grpc-status") == "8" and grpc.get("grpc-message") == problem["detail"]
    assert made.count("few", "127.0.0.1") == 2
    made.release.set()
    assert [first.response().status, second.response().status] == [200, 200]
    assert made.count("few", "127.0.0.1") == 0   # at once: who has the answer has the place back
    assert made.ask("/a").status == 200
    assert made.decisions("few") == {"allow": 3, "deny": 2, "shadow_deny": 0, "degraded": 0}
    assert len(made.upstream.requests) == 3


def test_workers_share_one_exact_count(flights):
    made = flights({"few": at_once(7)}, [route("a", "few")], workers=4)
    waiting = [made.begin("/a", arrives=False) for _ in range(40)]
    until(lambda: made.decisions("few")["allow"] + made.decisions("few")["deny"] == 40, "40 verdicts")
    assert made.decisions("few") == {"allow": 7, "deny": 33, "shadow_deny": 0, "degraded": 0}
    made.upstream.wait_requests(7)
    assert made.count("few", "127.0.0.1") == 7
    made.release.set()
    assert sorted(client.response().status for client in waiting) == [200] * 7 + [429] * 33
    assert len(made.upstream.requests) == 7
    assert made.count("few", "127.0.0.1") == 0


def test_one_after_another_on_new_connections_is_never_too_many(flights):
    made = flights({"few": at_once(1)}, [route("a", "few"), route("own", "few", respond={"body": "x"})], workers=4)
    made.release.set()
    assert made.statuses("/a", 200) == [200] * 200
    assert made.statuses("/own", 200) == [200] * 200


def test_who_goes_away_gives_the_place_back(flights):
    made = flights({"few": at_once(2)}, [route("a", "few")])
    clients = made.begin("/a"), made.begin("/a")
    clients[0].reset()
    made.until_count(1)
    assert made.ask("/a", "Connection: close", "X: y" * 10000).status == 431   # refused before
    made.until_count(1)
    clients[1].reset()
    made.until_count(0)


def test_however_it_ends(flights):
    made = flights({"few": at_once(1)}, [
        route("cut", "few"), route("late", "few", timeout="200ms"), route("retried", "few", retries={"attempts": 3, "backoff": "1ms"}),
        {"name": "moved", "match": {"path": {"prefix": "/moved"}}, "rate_limits": ["few"], "redirect": {"to": "/"}},
        route("faulty", "few", fault={"status": 503}),
        route("large", "few", request_body_bytes="1KiB")])
    made.upstream.program(lambda peer: (made.upstream.read(peer), peer.close()))
    assert made.ask("/cut").status == 502 and made.count("few", "127.0.0.1") == 0
    assert made.ask("/retried").status == 502 and made.count("few", "127.0.0.1") == 0
    made.hold()
    assert made.ask("/late").status == 504 and made.count("few", "127.0.0.1") == 0
    assert made.ask("/moved").status // 100 == 3 and made.count("few", "127.0.0.1") == 0
    assert made.ask("/faulty").status == 503 and made.count("few", "127.0.0.1") == 0
    client = Raw(made.gateway.port)
    client.send(b"POST /large HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 2048)
    assert client.response().status == 413
    client.close()
    made.until_count(0)
    made.upstream.program(lambda peer: (made.upstream.read(peer), peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")))
    with pytest.raises((Incomplete, ConnectionError)):
        made.begin("/cut").response()
    made.until_count(0)


def test_a_slow_reader_is_under_way(flights):
    made = flights({"few": at_once(1)}, [route("a", "few")])
    made.hold(lambda: answer(b"x" * (32 << 20)))
    made.release.set()
    client = made.begin("/a", receive_buffer=65536)
    assert client.head().status == 200
    assert made.ask("/a").status == 429
    client.close()
    made.until_count(0)


def test_a_websocket_holds_its_place(flights):
    made = flights({"few": at_once(1)}, [route("ws", "few"), route("a", "few")], workers=2)

    def switch(peer):
        made.upstream.read(peer)
        peer.send(SWITCH)
        parrot(peer)
    made.upstream.program(switch)
    client = made.begin("/ws", *UPGRADE)
    assert client.response().status == 101
    client.send(b"hello")
    assert client.exactly(5) == b"hello"
    assert made.ask("/a").status == 429 and made.count("few", "127.0.0.1") == 1
    client.shut()   # one direction; what it has not sent back yet goes on
    assert client.ended()
    made.until_count(0)
    made.hold()
    made.release.set()
    assert made.ask("/a").status == 200


def test_http2(flights):
    made = flights({"few": at_once(3)}, [route("a", "few")])
    client = H2Client(made.gateway.port)
    streams = [client.send_request("/a") for _ in range(3)]
    made.upstream.wait_requests(3)
    got = client.ask("/a")
    assert got.status == 429 and got.get("retry-after") == "1"
    streams[0].cancel()
    made.until_count(2)
    streams.append(client.send_request("/a"))
    made.upstream.wait_requests(4)
    assert made.ask("/a").status == 429   # of the same caller over HTTP/1.1
    made.release.set()
    assert [stream.whole().status for stream in streams[1:]] == [200] * 3
    assert made.count("few", "127.0.0.1") == 0
    made.hold()
    client.send_request("/a")
    made.upstream.wait_requests(1)
    client.close()   # the connection with its streams
    made.until_count(0)


def test_beside_a_bucket_a_refused_request_costs_nothing(flights):
    both = {"key": "client_ip", "default": {"rate": "1/d", "burst": 3, "in_flight": 1}}
    made = flights({"both": both, "wide": {"key": "client_ip", "default": {"rate": "1/d", "burst": 100}}},
                   [route("a", "wide", "both")])
    client = made.begin("/a")
    got = made.ask("/a")
    assert got.status == 429 and re.fullmatch(r'"wide";r=99;t=86(400|39\d), "both";r=2;t=86(400|39\d)', got.get("RateLimit"))
    made.release.set()
    client.response()
    assert made.statuses("/a", 3) == [200, 200, 429]
    got = made.ask("/a")   # the bucket refuses, and nobody is under way
    assert "used up" in json.loads(got.body)["detail"] and int(got.get("Retry-After")) > 80000
    assert made.count("both", "127.0.0.1") == 0
    assert made.decisions("both") == {"allow": 3, "deny": 3, "shadow_deny": 0, "degraded": 0}
    assert made.decisions("wide") == {"allow": 6, "deny": 0, "shadow_deny": 0, "degraded": 0}


def test_tiers_and_keys(flights):
    tiered = {"key": "header.X-Tenant", "tier_by": "header.X-Plan",
              "tiers": {"gold": {"in_flight": 3}, "free": {"rate": "1000/s"}}, "default": {"in_flight": 1}}
    made = flights({"tiered": tiered}, [route("a", "tiered")])
    acme, gold = "X-Tenant: acme", "X-Plan: gold"
    made.begin("/a", acme)
    assert made.ask("/a", acme).status == 429
    made.begin("/a", "X-Tenant: umbrella")   # somebody else
    for _ in range(2):   # another tier of the same caller: the same count
        made.begin("/a", acme, gold)
    assert made.ask("/a", acme, gold).status == 429
    for _ in range(4):   # a tier without a bound: not counted
        made.begin("/a", acme, "X-Plan: free")
    assert made.count("tiered", "acme") == 3 and made.count("tiered", "umbrella") == 1
    shown = json.loads(made.bucket("tiered", "acme").body)
    assert [shown["tiers"][i] for i in (0, 2)] == [{"tier": "gold", "quotas": [], "in_flight": 3},
                                                   {"tier": "default", "quotas": [], "in_flight": 1}]
    assert shown["tiers"][1]["rate"] == "1000/s" and "in_flight" not in shown["tiers"][1]
    assert json.loads(made.bucket("tiered", "acme", method="DELETE").body)["in_flight"] == 3   # they are under way still


def test_shadow_mode(flights):
    made = flights({"few": at_once(2, shadow=True)}, [route("a", "few")])
    for _ in range(5):
        made.begin("/a")
    assert made.decisions("few") == {"allow": 2, "deny": 0, "shadow_deny": 3, "degraded": 0}
    assert made.count("few", "127.0.0.1") == 2
    made.gateway.wait_log("few, in shadow mode, would have refused a request of route a")


def test_a_reload_keeps_the_count(flights):
    made = flights({"few": at_once(2)}, [route("a", "few")], workers=2)
    old = made.begin("/a"), made.begin("/a")
    made.reload(rate_limits={"few": at_once(3)})
    made.begin("/a")
    assert made.ask("/a").status == 429
    made.reload(rate_limits={"few": at_once(1)})
    assert made.ask("/a").status == 429 and made.count("few", "127.0.0.1") == 3
    old[0].reset()   # of the configuration that has gone
    made.until_count(2)
    made.reload(rate_limits={"other": at_once(1)}, routes=[route("a", "other")])
    made.begin("/a")
    made.reload()
    made.until_count(2)
    made.release.set()
    assert old[1].response().status == 200
    made.until_count(0)


def test_an_exchange_that_outlives_the_drain(flights):
    made = flights({"few": at_once(1)}, [route("a", "few")], drain={"delay": "0s", "timeout": "30s"})
    client = made.begin("/a")
    made.gateway.signal(15)
    until(lambda: made.gateway.ready() == 503, "draining")
    made.release.set()
    assert client.response().status == 200
    assert made.gateway.wait() == 0


def test_explain_names_the_bounds(flights):
    made = flights({"few": at_once(2, tier_by="header.X-Plan", tiers={"free": {"rate": "1/s"}})}, [route("a", "few")])
    explained = ask(made.gateway.admin_port, "/api/v1/explain", "POST", json.dumps({"request": "GET http://test/a"}))
    assert json.loads(explained.body)["rate_limits"] == [
        {"name": "few", "key": ["client_ip"], "in_flight": {"free": None, "default": 2}, "before_auth": False, "shadow": False}]


def test_a_crowd_that_comes_and_goes(flights):
    """Half of the clients hang up in the middle; in the end nobody is under way, and there was never one too many."""
    made = flights({"few": at_once(5)}, [route("a", "few")], workers=2)
    under_way, most, lock = 0, 0, threading.Lock()

    def reply(_):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.002)
        with lock:
            under_way -= 1
        return answer()
    made.upstream.program(reply=reply)

    def come_and_go(number):
        for turn in range(30):
            client = Raw(made.gateway.port)
            client.send(request("/a"))
            if (number + turn) % 4:
                assert client.response().status in (200, 429)
            client.close()
    crowd = [threading.Thread(target=come_and_go, args=(i,)) for i in range(16)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    made.until_count(0)
    assert sum(made.decisions("few").values()) <= 480 and most >= 3
    assert made.statuses("/a", 5) == [200] * 5


def test_places_of_requests_that_wait_for_redis(flights, redis):   # noqa: F811
    """A request holds its place while Redis is asked about its bucket, and no longer than it is there."""
    both = {"key": "client_ip", "default": {"rate": "1/d", "burst": 2, "in_flight": 1}}
    made = flights({"both": both}, [route("a", "both", respond={"body": "x"})],
                   redis={"url": f"redis://127.0.0.1:{redis.port}/0", "deadline": "10s"})

    def asks_redis():
        assert made.ask("/a").status in (200, 429)
        return redis.ask("KEYS", "*both*")
    until(asks_redis, "Redis decides")
    assert made.bucket("both", "127.0.0.1", method="DELETE").status == 200
    redis.process.send_signal(signal.SIGSTOP)
    waiting = made.begin("/a", arrives=False)
    until(lambda: made.gateway.shown("exchanges")["live"] == 1, "a request that waits")
    got = made.ask("/a")
    assert got.status == 429 and "at once" in json.loads(got.body)["detail"]
    waiting.reset()
    until(lambda: made.gateway.shown("exchanges")["live"] == 0, "nobody waits")
    second = made.begin("/a", arrives=False)   # the place is free
    redis.process.send_signal(signal.SIGCONT)
    assert second.response().status == 200
    assert made.statuses("/a", 3)[-1] == 429   # the bucket's word: refused ones hold no place
    assert made.count("both", "127.0.0.1") == 0
