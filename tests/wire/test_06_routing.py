"""Which route, which upstream, which endpoint, and what a route makes of a request."""
import collections
import threading
import time

import pytest

from gateway import Gateway, until
from peers import Raw, Upstream, answer, request

TRUSTED, STRANGER = "127.0.0.9", "127.0.1.1"


# ---- what a route makes of a request ----

def test_rewrite_prefix(wire):
    for path, seen in (("/cut/a/b?c=d", "/kept/here/a/b?c=d"), ("/cut", "/kept/here"), ("/cut/", "/kept/here/"),
                       ("/cut?", "/kept/here?")):
        assert wire.raw().ask(request(path)).status == 200
        assert wire["main"].requests[-1].target == seen


def test_rewrite_template_and_host(wire):
    assert wire.raw().ask(request("/users/7/files/a%20b?x")).status == 200
    seen = wire["main"].only()
    assert seen.target == "/v2/a%20b/of/7?x" and seen.get("Host") == "files.internal"
    assert seen.get("X-Forwarded-Host") == "test"


def test_rewrite_host_to_the_upstreams(wire):
    assert wire.raw().ask(request("/ownhost")).status == 200
    assert wire["main"].only().get("Host") == f"127.0.0.1:{wire['main'].port}"


def test_whole_segments(wire):
    assert wire.raw().ask(request("/cutter")).status == 200
    assert wire["main"].only().target == "/cutter"


def test_edited_headers(wire):
    wire["main"].program(reply=lambda _: answer(b"", "200 OK", "Server: up", "X-Secret: s", "x-set: old", "X-Add: in"))
    got = wire.raw().ask(request("/edited", "GET", "x-set: old", "X-Set: older", "X-Add: first", "x-remove: 1",
                                 "Cookie: a", "Cookie: b"))
    seen = wire["main"].only()
    assert seen.all("X-Set") == ["new"] and seen.all("X-Add") == ["first", "more"]
    assert not {"x-remove", "cookie"} & set(seen.names)
    assert got.all("X-Set") == ["out"] and got.all("X-Add") == ["in", "out"]
    assert not {"server", "x-secret"} & set(got.names)


def test_redirect(wire):
    got = wire.raw().ask(request("/moved/a?b=c"))
    assert got.status == 307 and got.get("Location") == "https://new.example/moved/a?b=c"
    assert got.get("Content-Length") == "0" and not wire["main"].requests


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_respond(wire, method):
    client = wire.raw()
    for _ in range(2):
        got = client.ask(request("/said", method, body=b"ignored" if method == "POST" else None), method)
        assert got.status == 203 and got.get("X-Own") == "yes" and got.get("Content-Type") == "text/x"
        assert got.get("Content-Length") == "5" and got.body == (b"" if method == "HEAD" else b"said\n")
        assert got.get("X-Request-Id") and got.get("Date")


def test_a_wide_route_takes_the_methods_that_a_narrow_one_does_not(wire):
    for method in ("GET", "PUT"):
        assert wire.raw().ask(request("/write", method)).status == 200


def test_fault_status(wire):
    client = wire.raw()
    got = client.ask(request("/broken"))
    assert got.status == 418 and got.json["code"] == "fault_injected" and not wire["main"].requests
    assert client.ask(request()).status == 200


def test_fault_delay(wire):
    began = time.monotonic()
    assert wire.raw().ask(request("/late", "POST", body=b"kept")).status == 200
    assert time.monotonic() - began >= 0.08
    assert wire["main"].only().body == b"kept"


def test_a_client_leaves_during_the_delay(wire):
    client = wire.raw()
    client.send(request("/much_later"))
    until(lambda: wire.info()["workers"][0]["exchanges"] == 1, "the request")
    client.reset()
    until(wire.at_rest, "its end")
    assert not wire["main"].requests


def test_route_timeout(wire):
    count = wire.ends("deadline_exceeded")
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.ended()))
    client = wire.raw()
    got = client.ask(request("/hurry"))
    assert got.status == 504 and got.json["code"] == "deadline_exceeded"
    until(lambda: wire["main"].peers[0].eof, "the upstream's connection cut")
    assert wire.ends("deadline_exceeded") == count + 1
    wire["main"].program()
    assert client.ask(request("/x")).status == 200


def test_route_timeout_within_the_body_is_a_cut(wire):
    wire["main"].program(lambda peer: (wire["main"].read(peer),
                                       peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), peer.ended()))
    client = wire.raw()
    client.send(request("/hurry"))
    assert client.head().status == 200
    with pytest.raises(ConnectionError):
        while client.more():
            pass
    assert client.buffer == b"ab"


@pytest.mark.parametrize("listener, source, chain, status", [
    ("plain", TRUSTED, None, 200), ("plain", STRANGER, None, 403),
    ("plain", STRANGER, "127.0.0.9", 403), ("plain", STRANGER, "10.1.0.1", 403),   # strangers are not believed
    ("trusted", STRANGER, "10.1.0.1", 403),
    ("trusted", TRUSTED, "10.1.0.1", 200), ("trusted", TRUSTED, "10.1.6.6", 403), ("trusted", TRUSTED, "8.8.8.8", 403),
    ("trusted", TRUSTED, "10.1.0.1, 8.8.8.8", 403),          # the rightmost that no proxy of ours added
    ("trusted", TRUSTED, "8.8.8.8, 10.1.0.1", 200),
    ("trusted", TRUSTED, "10.1.0.1, 127.0.0.5", 200),        # through two of ours
    ("trusted", TRUSTED, "8.8.8.8,127.0.0.5", 403),
    ("trusted", TRUSTED, "nonsense", 200), ("trusted", TRUSTED, "10.1.6.6, nonsense", 200),   # then the proxy itself
    ("trusted", TRUSTED, "2001:db8::1", 403)])
def test_addresses(wire, listener, source, chain, status):
    client = wire.raw(listener, source=source)
    got = client.ask(request("/inside", "GET", *([f"X-Forwarded-For: {chain}"] if chain else [])))
    assert got.status == status
    if status == 403:
        assert got.json["code"] == "ip_denied" and not wire["main"].requests
        client.send(request("/cut"))
        assert client.response().status == 200


def test_chains_in_several_lines(wire):
    ask = lambda *chain: wire.raw("trusted", source=TRUSTED).ask(   # noqa: E731
        request("/inside", "GET", *[f"X-Forwarded-For: {one}" for one in chain])).status
    assert ask("10.1.0.1", "127.0.0.5") == 200
    assert ask("10.1.0.1", "8.8.8.8") == 403
    assert ask("8.8.8.8", "10.1.0.1") == 200


# ---- routes among themselves ----

@pytest.fixture(scope="module")
def table(tmp_path_factory):
    def say(name, **match):
        return {"name": name, "match": match, "respond": {"status": 200, "body": name}}

    gateway = Gateway(tmp_path_factory.mktemp("table"), {"workers": 1, "routes": [
        say("any_host", path={"prefix": "/"}, hosts=["*.example.com"]),
        say("exact_host", path={"prefix": "/"}, hosts=["api.example.com"]),
        say("longer_wildcard", path={"prefix": "/"}, hosts=["*.eu.example.com"]),
        say("prefix", path={"prefix": "/a"}), say("longer", path={"prefix": "/a/b"}),
        say("exact", path={"exact": "/a/b"}), say("template", path={"template": "/t/{x}/z"}),
        say("regex", path={"regex": "/r/[0-9]+"}),
        say("post", path={"prefix": "/m"}, methods=["POST"]), say("put", path={"prefix": "/m"}, methods=["PUT"]),
        say("header", path={"prefix": "/h"}, headers={"X-V": "2"}),
        say("header_regex", path={"prefix": "/h"}, headers={"X-V": {"regex": "3.*"}}),
        say("headers", path={"prefix": "/h"}, headers={"X-V": "2", "X-W": {"present": True}}),
        say("no_header", path={"prefix": "/h"}),
        say("query", path={"prefix": "/q"}, query={"v": "2"}), say("no_query", path={"prefix": "/q"})]})
    with gateway:
        yield gateway


@pytest.mark.parametrize("host, path, fields, wanted", [
    ("x.example.com", "/", [], "any_host"), ("api.example.com", "/", [], "exact_host"),
    ("API.Example.COM:8080", "/", [], "exact_host"), ("a.b.example.com", "/", [], "any_host"),
    ("x.eu.example.com", "/a", [], "longer_wildcard"), ("example.com", "/nowhere", [], None),
    ("o", "/a", [], "prefix"), ("o", "/a/", [], "prefix"), ("o", "/ab", [], None), ("o", "/a/b", [], "exact"),
    ("o", "/a/b/", [], "longer"), ("o", "/a/bc", [], "prefix"), ("o", "/A", [], None),
    ("o", "/t/1/z", [], "template"), ("o", "/t/1/2/z", [], None), ("o", "/t//z", [], None),
    ("o", "/r/12", [], "regex"), ("o", "/r/12/", [], None), ("o", "/r/x", [], None),
    ("o", "/h", [], "no_header"), ("o", "/h", ["X-V: 2"], "header"), ("o", "/h", ["x-v: 30"], "header_regex"),
    ("o", "/h", ["X-V: 2", "X-W:"], "headers"), ("o", "/q?v=2", [], "query"), ("o", "/q?v=3", [], "no_query"),
    ("o", "/q?a&v=2&v=3", [], "query"), ("o", "/%61/./b", [], "exact"), ("o", "/x/../a/b?c", [], "exact")])
def test_the_most_specific_route(table, host, path, fields, wanted):
    with Raw(table.port) as client:
        got = client.ask(request(path, "GET", *fields, host=host))
    if wanted:
        assert got.status == 200 and got.body.decode() == wanted
    else:
        assert got.status == 404 and got.json["code"] == "no_route"


def test_405_names_the_methods(table):
    with Raw(table.port) as client:
        assert client.ask(request("/m", "POST", body=b"")).body == b"post"
        got = client.ask(request("/m"))
        assert got.status == 405 and got.json["code"] == "method_not_allowed"
        assert set(got.get("Allow").replace(" ", "").split(",")) == {"POST", "PUT"}


# ---- balancing ----

class Fleet:
    """One gateway, three endpoints a, b and c that say who they are, an upstream for each way of choosing."""

    def __init__(self, directory):
        self.nodes = {name: Upstream() for name in "abc"}
        self.healthy = dict.fromkeys("abc", True)
        self.reset()
        target = lambda name, weight=1: {"address": self.address(name), "weight": weight}   # noqa: E731
        equal = [target(name) for name in "abc"]
        check = {"path": "/health", "interval": "1s", "timeout": "1s", "healthy": 1, "unhealthy": 2}
        upstreams = {
            "rr": {"targets": [target("a", 3), target("b", 1), target("c", 0)]},
            "least": {"targets": equal, "load_balancer": "least_request"},
            "random": {"targets": [target("a", 8), target("b", 2)], "load_balancer": "random"},
            "ewma": {"targets": equal, "load_balancer": "ewma"},
            "by_path": {"targets": equal, "load_balancer": "consistent_hash", "hash_on": "path"},
            "by_header": {"targets": equal, "load_balancer": "consistent_hash", "hash_on": "header.X-User"},
            "by_cookie": {"targets": equal, "load_balancer": "consistent_hash", "hash_on": "cookie.session"},
            "by_ip": {"targets": equal, "load_balancer": "consistent_hash", "hash_on": "client_ip"},
            "checked": {"targets": equal, "health_check": check, "panic_threshold": 0.5},
            "calm": {"targets": equal, "health_check": check, "panic_threshold": 0},
            "only_a": {"targets": [target("a")]}, "only_b": {"targets": [target("b")]},
        }
        routes = [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in upstreams]
        routes.append({"name": "split", "match": {"path": {"prefix": "/split"}},
                       "split": [{"upstream": "only_a", "weight": 9}, {"upstream": "only_b", "weight": 1}]})
        self.gateway = Gateway(directory, {"workers": 1, "upstreams": upstreams, "routes": routes})

    def address(self, name):
        return f"127.0.0.1:{self.nodes[name].port}"

    def reset(self):
        self.healthy.update(dict.fromkeys("abc", True))
        for name, node in self.nodes.items():
            node.program(reply=lambda r, name=name: self.reply(r, name))

    def reply(self, message, name):
        if message.target == "/health":
            return answer(b"", "200 OK" if self.healthy[name] else "503 Sick")
        return answer(name.encode())

    def spread(self, path, count, *fields, source=None):
        """Who served `count` requests."""
        with Raw(self.gateway.port, source=source) as client:
            return collections.Counter(client.ask(request(path, "GET", *fields)).body.decode() for _ in range(count))

    def up(self, upstream):
        metrics = self.gateway.metrics()
        return {name for name in "abc" if metrics[
            f'sallyport_upstream_endpoint_up{{upstream="{upstream}",endpoint="{self.address(name)}"}}'] == 1}


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    with fleet.gateway:
        yield fleet
    for node in fleet.nodes.values():
        node.close()


@pytest.fixture
def fleet(whole_fleet):
    whole_fleet.reset()
    until(lambda: whole_fleet.up("checked") == whole_fleet.up("calm") == set("abc"), "everyone healthy")
    return whole_fleet


def test_round_robin_by_weight_and_smoothly(fleet):
    assert fleet.spread("/rr", 40) == {"a": 30, "b": 10}
    with Raw(fleet.gateway.port) as client:
        order = "".join(client.ask(request("/rr")).body.decode() for _ in range(40))
    assert "bb" not in order and "aaaa" not in order.strip("a")   # aaba aaba …


def test_random_by_weight(fleet):
    spread = fleet.spread("/random", 400)
    assert 250 < spread["a"] < 390 and spread["a"] + spread["b"] == 400


def test_least_request_avoids_the_busy(fleet):
    release = threading.Event()
    fleet.nodes["a"].program(reply=lambda _: (release.wait(30), answer(b"a"))[1])
    asked = lambda name: sum(seen.target == "/least" for seen in fleet.nodes[name].requests)   # noqa: E731
    clients = []
    try:
        for i in range(60):
            held = asked("a")
            clients.append(Raw(fleet.gateway.port).send(request("/least")))
            until(lambda: sum(map(asked, "abc")) == i + 1, "the request")
            if asked("a") == held:
                assert clients[-1].response().status == 200
        assert asked("a") <= 2   # of two drawn, the one with less to do
    finally:
        release.set()
        for client in clients:
            client.close()


def test_ewma_prefers_the_fast(fleet):
    pace = threading.Event()
    fleet.nodes["b"].program(reply=lambda r: (pace.wait(0.3), answer(b"b"))[1])
    spread = collections.Counter()

    def is_spread():   # who answers late because the machine stands still is not fast either, for some seconds
        spread.update(fleet.spread("/ewma", 120))
        return spread["a"] > 10 and spread["c"] > 10
    until(is_spread, lambda: f"requests for both of the fast: {spread}")
    assert spread["b"] < sum(spread.values()) / 6, spread


@pytest.mark.parametrize("path, fields", [("/by_path/{}", []), ("/by_header", ["X-User: u{}"]),
                                          ("/by_cookie", ["Cookie: x=1; session=s{}; y=2"])])
def test_consistent_hash(fleet, path, fields):
    first = {i: next(iter(fleet.spread(path.format(i), 1, *[f.format(i) for f in fields]))) for i in range(30)}
    assert set(first.values()) == set("abc")
    for i in range(30):
        assert set(fleet.spread(path.format(i), 3, *[f.format(i) for f in fields])) == {first[i]}


def test_consistent_hash_of_the_client(fleet):
    owners = {last: set(fleet.spread("/by_ip", 3, source=f"127.0.0.{last}")) for last in range(2, 32)}
    assert all(len(owner) == 1 for owner in owners.values())
    assert set().union(*owners.values()) == set("abc")


def test_health_checks_eject_and_readmit(fleet):
    fleet.healthy["b"] = False
    until(lambda: fleet.up("checked") == {"a", "c"}, "b ejected")
    assert fleet.spread("/checked", 20) == {"a": 10, "c": 10}
    fleet.healthy["b"] = True
    until(lambda: fleet.up("checked") == set("abc"), "b readmitted")
    assert set(fleet.spread("/checked", 20)) == set("abc")


def test_health_checks_notice_who_hangs_and_who_is_gone(fleet):
    fleet.nodes["a"].program(lambda peer: peer.ended())
    fleet.nodes["c"].close()
    try:
        until(lambda: fleet.up("calm") == {"b"}, "a and c ejected")
        assert fleet.spread("/calm", 10) == {"b": 10}
    finally:
        fleet.nodes["c"].reopen()


def test_panic_uses_everyone(fleet):
    fleet.healthy.update(a=False, b=False)
    until(lambda: fleet.up("checked") == fleet.up("calm") == {"c"}, "a and b ejected")
    assert set(fleet.spread("/checked", 30)) == set("abc")   # 1 of 3 is less than half
    assert fleet.spread("/calm", 10) == {"c": 10}


def test_no_endpoint(fleet):
    fleet.healthy.update(a=False, b=False, c=False)
    until(lambda: fleet.up("calm") == set(), "everyone ejected")
    with Raw(fleet.gateway.port) as client:
        got = client.ask(request("/calm"))
        assert got.status == 503 and got.json["code"] == "no_endpoint" and int(got.get("Retry-After")) >= 1


def test_split(fleet):
    spread = fleet.spread("/split", 400)
    assert 330 < spread["a"] < 395 and spread["a"] + spread["b"] == 400
