"""Rate limits of a real gateway: exactness over workers, what clients are told, reloads, shadow mode, costs."""
import json
import re
import threading

import pytest

from gateway import ask, until
from h2_peers import H2Client
from limit_wire import SLOW, Limited, limit, route
from peers import Raw, answer, request


@pytest.fixture
def limited(tmp_path):
    made = []

    def make_one(limits, routes, **more):
        made.append(Limited(tmp_path, limits, routes, **more))
        return made[-1].__enter__()
    yield make_one
    for each in made:
        each.__exit__(None, None, None)


def test_workers_and_connections_share_one_exact_limit(limited):
    made = limited({"few": limit(200)}, [route("a", "few")], workers=4)
    got, lock = [], threading.Lock()

    def flood():
        client = Raw(made.gateway.port)
        for _ in range(50):
            status = client.ask(request("/a")).status
            with lock:
                got.append(status)
        client.close()
    threads = [threading.Thread(target=flood) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [200] * 200 + [429] * 600
    assert len(made.upstream.requests) == 200
    assert made.decisions("few") == {"allow": 200, "deny": 600, "shadow_deny": 0, "degraded": 0}


def test_tokens_come_back_at_the_rate(limited):
    made = limited({"fast": limit(2, "20/s")}, [route("a", "fast")])
    assert made.statuses("/a", 2) == [200, 200]
    until(lambda: made.ask("/a").status == 429, "a refusal")
    until(lambda: made.ask("/a").status == 200, "a token")


def test_what_clients_are_told(limited):
    made = limited({"ten": limit(10)}, [route("a", "ten"), route("said", "ten", respond={"status": 203, "body": "said"})])
    got = made.ask("/a")
    assert got.status == 200
    assert got.get("RateLimit-Policy") == '"ten";q=10;w=864000'
    assert got.get("RateLimit") == '"ten";r=9;t=86400'
    assert not got.all("Retry-After") and not got.all("X-RateLimit-Limit")
    got = made.ask("/said")
    assert got.status == 203 and re.fullmatch(r'"ten";r=8;t=17(2800|279\d)', got.get("RateLimit"))
    made.statuses("/a", 8)
    got = made.ask("/a")
    assert got.status == 429 and got.get("Content-Type") == "application/problem+json"
    assert re.fullmatch(r'"ten";r=0;t=86(4000|399\d)', got.get("RateLimit")) and got.get("RateLimit-Policy")
    assert got.all("Retry-After") == [got.get("Retry-After")] and 86300 < int(got.get("Retry-After")) <= 86400
    problem = json.loads(got.body)
    assert problem["code"] == "rate_limited" and problem["status"] == 429 and problem["title"] == "Too Many Requests"
    assert re.fullmatch(r"the limit ten is used up; try again in 863\d\d\.\d\d\d s", problem["detail"])
    assert len(made.upstream.requests) == 9


def test_an_upstreams_own_word_is_replaced(limited):
    made = limited({"ten": limit(10)}, [route("a", "ten"), route("free")])
    made.upstream.program(reply=lambda _: answer(b"", "200 OK", "ratelimit: mine", "RateLimit-Policy: mine"))
    got = made.ask("/a")
    assert got.all("RateLimit") == ['"ten";r=9;t=86400'] and len(got.all("RateLimit-Policy")) == 1
    assert made.ask("/free").get("RateLimit") == "mine"


def test_legacy_headers(limited):
    made = limited({"ten": limit(10), "two": limit(2)}, [route("a", "ten", "two")],
                   telemetry={"headers": {"rate_limit_legacy": True}, "access_log": {"output": "off"}})
    got = made.ask("/a")
    assert (got.get("X-RateLimit-Limit"), got.get("X-RateLimit-Remaining"), got.get("X-RateLimit-Reset")) == ("2", "1", "86400")
    assert got.get("RateLimit") == '"ten";r=9;t=86400, "two";r=1;t=86400'
    assert got.get("RateLimit-Policy") == '"ten";q=10;w=864000, "two";q=2;w=172800'


def test_a_refused_request_is_charged_to_no_limit(limited):
    made = limited({"wide": limit(100), "narrow": limit(2)}, [route("both", "wide", "narrow"), route("wide", "wide")])
    assert made.statuses("/both", 10) == [200] * 2 + [429] * 8
    assert made.ask("/wide").get("RateLimit").startswith('"wide";r=97;')
    assert made.decisions("wide")["allow"] == 11 and made.decisions("narrow")["deny"] == 8


def test_keys(limited):
    made = limited({"address": limit(1), "tenant": limit(1, key="header.X-Tenant"), "route": limit(1, key=["client_ip", "route"]),
                    "all": limit(2, key="global"), "routes": limit(1, key="route")},
                   [route("address", "address"), route("tenant", "tenant"), route("one", "route"), route("two", "route"),
                    route("all", "all"), route("three", "routes"), route("four", "routes")])
    other = "127.0.0.2"
    assert made.statuses("/address", 2) == [200, 429] and made.statuses("/address", 2, source=other) == [200, 429]
    for tenant in ("X-Tenant: acme", "x-tenant: umbrella"):
        assert made.statuses("/tenant", 2, tenant) == [200, 429]
    # Without the header, by address; an address that somebody says is theirs is no address.
    assert made.statuses("/tenant", 2) == [200, 429] and made.statuses("/tenant", 2, source=other) == [200, 429]
    assert made.statuses("/tenant", 2, "X-Tenant: 127.0.0.3") == [200, 429]
    for path in ("/one", "/two"):
        assert made.statuses(path, 2) == [200, 429] and made.statuses(path, 2, source=other) == [200, 429]
    assert made.statuses("/all", 1) + made.statuses("/all", 2, source=other) == [200, 200, 429]
    for path in ("/three", "/four"):
        assert made.statuses(path, 1) + made.statuses(path, 1, source=other) == [200, 429]


def test_ipv6_clients_are_grouped(limited):
    made = limited({"narrow": limit(1)}, [route("a", "narrow")])
    made.reload(listeners=[{"name": "http", "address": f"127.0.0.1:{made.gateway.port}", "trusted_proxies": ["127.0.0.0/8"]}])
    asked = [("2001:db8:0:1::1", 200), ("2001:db8:0:1:ffff::2", 429), ("2001:db8:0:2::1", 200), ("192.0.2.1", 200),
             ("192.0.2.2", 200), ("192.0.2.1", 429), ("::ffff:192.0.2.2", 429)]
    for address, status in asked:
        assert made.statuses("/a", 1, f"X-Forwarded-For: {address}") == [status], address


@pytest.mark.parametrize("given, status", [("gold", 200), ("silver", 429), ("Gold", 429), ("gold, silver", 429), ("", 429)])
def test_tiers_by_header(limited, given, status):
    tiers = {"gold": {"rate": SLOW, "burst": 3}, "silver": {"rate": SLOW, "burst": 2}}
    made = limited({"tiered": limit(1, tier_by="header.X-Plan", tiers=tiers)}, [route("a", "tiered")])
    first = made.ask("/a", f"X-Plan: {given}")
    assert first.get("RateLimit-Policy").startswith(f'"tiered";q={ {"gold": 3, "silver": 2}.get(given, 1)};')
    assert made.statuses("/a", 1, f"X-Plan: {given}") == [200 if given in ("gold", "silver") else 429]
    assert made.statuses("/a", 1, f"X-Plan: {given}") == [status]


def test_quotas(limited):
    made = limited({"both": {"key": "client_ip", "default": {"rate": "1000/s", "burst": 1000, "quotas": ["3/d", "5/month"]}}},
                   [route("a", "both")])
    got = made.ask("/a")
    assert got.get("RateLimit-Policy") == '"both";q=1000;w=1, "both:d";q=3;w=86400, "both:month";q=5;w=2592000'
    left = re.fullmatch(r'"both";r=(?:999;t=1|1000;t=0), "both:d";r=2;t=(\d+), "both:month";r=4;t=(\d+)', got.get("RateLimit"))
    assert 0 < int(left[1]) <= 86400 and 0 < int(left[2]) <= 31 * 86400
    assert made.statuses("/a", 2) == [200, 200]
    got = made.ask("/a")
    assert got.status == 429 and int(left[1]) - 60 < int(got.get("Retry-After")) <= int(left[1])
    assert got.json["code"] == "quota_exceeded" and got.json["detail"].startswith("the quota both:d is used up; try again in ")
    until(lambda: '"both";r=1000;' in made.ask("/a").get("RateLimit"), "a refused request takes nothing of the burst")
    assert '"both:month";r=2;' in made.ask("/a").get("RateLimit")
    assert made.decisions("both")["allow"] == 3
    shown = json.loads(made.bucket("both", "127.0.0.1").body)["tiers"][0]["quotas"]
    assert [(each["quota"], each["remaining"]) for each in shown] == [("3/d", 0), ("5/month", 2)]
    made.reload(rate_limits={"both": {"key": "client_ip", "default": {"rate": "1000/s", "quotas": ["4/d"]}}})
    assert made.statuses("/a", 2) == [200, 429]
    assert made.bucket("both", "127.0.0.1", method="DELETE").status == 200
    assert made.ask("/a").status == 200


def test_shadow_mode_refuses_nobody_and_tells_nobody(limited):
    made = limited({"shadow": limit(1, shadow=True), "real": limit(4)}, [route("a", "shadow"), route("b", "shadow", "real")])
    got = made.ask("/a")
    assert got.status == 200 and not got.all("RateLimit") and not got.all("RateLimit-Policy")
    assert made.statuses("/a", 3) == [200] * 3
    made.gateway.wait_log("limit: shadow, in shadow mode, would have refused a request of route a")
    assert made.statuses("/b", 5) == [200] * 4 + [429]
    assert made.ask("/b").get("RateLimit-Policy") == '"real";q=4;w=345600'
    assert made.decisions("shadow") == {"allow": 1, "deny": 0, "shadow_deny": 9, "degraded": 0}


def test_costs(limited):
    made = limited({"five": limit(10, cost=5)}, [route("a", "five")])
    assert made.statuses("/a", 3) == [200, 200, 429]
    assert made.ask("/a").get("RateLimit").startswith('"five";r=0;')


def test_the_response_says_what_it_costs(limited):
    made = limited({"dear": limit(10, cost="header.X-Cost")}, [route("a", "dear")])
    said = []
    made.upstream.program(reply=lambda _: answer(b"", "200 OK", *([f"X-Cost: {said.pop(0)}"] if said else [])))
    left = lambda got: got.get("RateLimit").split(";")[1]   # noqa: E731
    said[:] = ["4"]
    assert left(made.ask("/a")) == "r=6"
    said[:] = ["0"]
    assert left(made.ask("/a")) == "r=6"
    assert left(made.ask("/a")) == "r=5"   # one, when the response does not say
    for source, word in enumerate(("-1", "1e3", "many", ""), 2):
        said[:] = [word]
        assert left(made.ask("/a", source=f"127.0.0.{source}")) == "r=9"
    for source, word in enumerate(("1000", "4294967296", "99999999999999999999"), 12):
        said[:] = [word]
        got = made.ask("/a", source=f"127.0.0.{source}")
        assert got.status == 200 and left(got) == "r=0"
        refused = made.ask("/a", source=f"127.0.0.{source}")   # what is owed is one burst at the most
        assert refused.status == 429 and 10 * 86400 < int(refused.get("Retry-After")) <= 11 * 86400


def test_reloads_keep_the_buckets(limited):
    made = limited({"ten": limit(10)}, [route("a", "ten")])
    made.statuses("/a", 5)
    made.reload()
    assert re.fullmatch(r'"ten";r=4;t=518(400|39\d)', made.ask("/a").get("RateLimit"))
    made.reload(rate_limits={"ten": limit(20, "2/d")})   # the same time, twice as many
    assert made.ask("/a").get("RateLimit").startswith('"ten";r=7;')
    made.reload(rate_limits={"ten": limit(3, "30/m")})   # emptier than empty is empty
    got = made.ask("/a")
    assert got.status == 429 and got.get("Retry-After") in ("1", "2")
    until(lambda: made.ask("/a").status == 200, "a token")
    made.reload(rate_limits={"ten": limit(10), "other": limit(1)}, routes=[route("a", "ten", "other")])
    assert made.statuses("/a", 2) == [200, 429]


def test_grpc(limited):
    made = limited({"one": limit(1)}, [route("pkg.Service", "one")])
    made.upstream.program(reply=lambda _: answer(b"", "200 OK", "Content-Type: application/grpc"))
    client = H2Client(made.gateway.port)
    fields = ["content-type: application/grpc", "te: trailers"]
    client.ask("/pkg.Service/M", "POST", *fields, body=b"")
    got = client.ask("/pkg.Service/M", "POST", *fields, body=b"")
    client.close()
    assert got.status == 200 and got.get("grpc-status") == "8"   # RESOURCE_EXHAUSTED
    assert got.get("grpc-message").startswith("the limit one is used up; try again in")
    assert got.get("RateLimit").startswith('"one";r=0;') and got.get("Retry-After")


def test_the_admin_api_shows_and_resets_a_bucket(limited):
    made = limited({"two": limit(2, key=["identity", "route"]), "all": limit(5, key="global"),
                    "quota": {"key": "global", "default": {"in_flight": 5, "quotas": ["3/month"]}}},
                   [route("a", "two", "all"), route("b", "quota")])
    for known in (False, True):
        assert json.loads(made.bucket("quota").body)["known"] is known
        assert made.ask("/b").status == 200
    assert made.statuses("/a", 3) == [200, 200, 429]
    shown = made.bucket("two", "client_ip:127.0.0.1", "a")
    assert shown.status == 200
    shown = json.loads(shown.body)
    assert 172700000 < shown["tiers"][0].pop("full_in_ms") <= 172800000
    assert shown == {"name": "two", "store": "local", "known": True,
                     "tiers": [{"tier": "default", "rate": "1/d", "burst": 2, "remaining": 0, "quotas": []}]}
    assert made.bucket("two", "client_ip:127.0.0.1", "a", method="DELETE").status == 200
    assert made.statuses("/a", 2) == [200, 200]
    assert json.loads(made.bucket("all").body)["tiers"][0]["remaining"] == 1
    assert json.loads(made.bucket("two", "client_ip:10.9.9.9", "a").body)["known"] is False
    for status, name, keys in ((404, "none", []), (400, "two", ["client_ip:127.0.0.1"]), (400, "two", ["127.0.0.1", "a"]),
                               (400, "two", ["client_ip:nowhere", "a"]), (400, "all", ["x"]), (400, "two", [])):
        got = made.bucket(name, *keys)
        assert got.status == status and json.loads(got.body)["detail"], (name, keys, got)
        assert made.bucket(name, *keys, method="DELETE").status == status
    assert json.loads(ask(made.gateway.admin_port, "/api/v1/limits").body)["rate_limits"]["keys"]["forgotten"] == 0


def test_explain_shows_the_keys(limited):
    made = limited({"two": limit(2, key=["header.X-Tenant", "route"])}, [route("a", "two")])
    got = ask(made.gateway.admin_port, "/api/v1/explain", "POST", json.dumps({"request": "GET http://test/a"}))
    assert json.loads(got.body)["rate_limits"] == [{"name": "two", "key": ["header.X-Tenant", "route"], "before_auth": False,
                                                    "shadow": False}]
