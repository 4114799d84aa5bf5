"""A copy of an earlier answer while the circuit breaker is open: what is kept, for how long, for whom, and what clients see
of it. Services and clients speak HTTP/1.1 and HTTP/2.
"""
import collections
import contextlib
import hashlib
import json
import threading
import time
from email.utils import formatdate

import pytest

from gateway import ask as ask_admin
from gateway import logged, until
from h2_peers import H2Client, H2Upstream
from h2_wire import SANITIZED
from peers import Raw, Upstream, answer, request
from wire import Wire

PROTOCOLS = ["http/1.1", "h2"]
OTHER_ADDRESS = "127.0.1.1"
PROXY = "127.0.2.1"   # trusted
KEY = "correct horse battery staple"
KIB, MIB = 1 << 10, 1 << 20
COPY_BYTES = 256 * KIB
_paths = iter(range(1, 1 << 30))


class Stale(Wire):
    LISTENERS = {"plain": {"trusted_proxies": [PROXY]}}
    UPSTREAMS = {}

    def __init__(self, directory, protocol):
        self.protocol = protocol
        self.service = H2Upstream() if protocol == "h2" else Upstream()
        super().__init__(directory)

    def upstream(self, **fallback):
        return {"protocol": self.protocol, "targets": [{"address": f"127.0.0.1:{self.service.port}"}],
                "retries": {"attempts": 0}, "outlier": {"max_ejected": 0},
                "circuit_breaker": {"min_requests": 6, "open": "1h", "max_open": "1h", "fallback": fallback}}

    def config(self):
        return {**super().config(), "workers": 2, "upstreams": {
            "long": self.upstream(stale="1h"), "brief": self.upstream(stale="3s"), "failing": self.upstream(stale="1h"),
            "said": self.upstream(stale="1h", status=203, body="[]"),
            "stood_in": self.upstream(stale="1h", upstream="standby"), "standby": self.upstream()},
            "auth": {"keys": {"api_key": {"header": "X-API-Key"}}},
            "consumers": {"acme": {"api_keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}}}

    def routes(self):
        def route(name, upstream="long", **more):
            return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": upstream, **more}
        edits = {"response": {"remove": ["X-Secret"], "set": {"X-Set": "by the gateway"}}}
        return [*(route(name, name) for name in ("long", "brief", "failing", "said", "stood_in")),
                route("known", auth={"any_of": ["keys"], "optional": True}),
                {"name": "tenant", "match": {"path": {"prefix": "/tenant"}, "headers": {"X-Tenant": "a"}}, "upstream": "long"},
                route("rest", match={"path": {"prefix": "/tenant"}}),
                {"name": "writes", "match": {"path": {"prefix": "/split"}, "methods": ["POST"]}, "upstream": "standby"},
                {"name": "reads", "match": {"path": {"prefix": "/split"}}, "upstream": "long"},
                route("edited", headers=edits, cors={"origins": ["https://shop.example"]})]

    def say(self, body=b"first", status=200, *fields, chunked=False):
        """The service's answer from now on."""
        if self.protocol == "h2":
            self.service.program(stream=lambda one: one.whole() and one.answer(body, status, *fields, length=not chunked))
        elif chunked:
            head = "\r\n".join([f"HTTP/1.1 {status} Said", "Transfer-Encoding: chunked", *fields, "", ""]).encode()
            piece = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            self.service.program(reply=lambda _: head + piece + b"0\r\n\r\n")
        else:
            self.service.program(reply=lambda message: answer(body, f"{status} Said", *fields))

    def ask(self, path, *fields, method="GET", version="1.1", source=None, body=None):
        """The answer, on a connection of its own: both workers get some."""
        if version == "h2":
            client = H2Client(self.gateway.port, source=source)
            try:
                got = client.ask(path, method, *fields, body=body)
                assert got.body is not None   # all of it is here
                return got
            finally:
                client.close()
        with Raw(self.gateway.port, source=source) as client:
            return client.ask(request(path, method, *fields, body=body), method)

    def force(self, name, how):
        got = ask_admin(self.gateway.admin_port, f"/api/v1/breakers/{name}", "PUT", json.dumps({"force": how}))
        assert got.status == 200, got

    @contextlib.contextmanager
    def forced_open(self, *names):
        for name in names:
            self.force(name, "open")
        try:
            yield
        finally:
            for name in names:
                self.force(name, "closed")

    @contextlib.contextmanager
    def open(self, *names):
        """…and nobody asks the service meanwhile."""
        with self.forced_open(*(names or ("long",))):
            self.say(b"not asked", 200)
            yield
            assert not self.service.requests

    def stale_answers(self, upstream="long"):
        return self.metrics()[f'sallyport_stale_answers_total{{upstream="{upstream}"}}']

    def end(self):
        super().end()
        self.service.check()


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole(request, tmp_path_factory):
    with Stale(tmp_path_factory.mktemp("stale"), request.param) as wire:
        yield wire
        wire.service.close()


@pytest.fixture
def wire(whole):
    whole.say()
    yield whole
    whole.end()


@pytest.fixture
def path():
    """One that no test has asked for before."""
    return f"/long/{next(_paths)}?a=b"


def is_copy(got, body=b"first"):
    assert (got.status, got.body) == (200, body), got
    assert got.get("Cache-Status") == "sallyport; hit; detail=breaker_open"
    assert int(got.get("Age")) in range(0, 60)
    return True


def is_refused(got):
    assert (got.status, got.json["code"]) == (503, "breaker_open"), got
    assert got.get("Age") is None and got.get("Cache-Status") is None
    return True


# ---- what clients see ----

@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_given_while_open(wire, path, version):
    date = formatdate(time.time() - 5, usegmt=True)
    wire.say(b"first", 200, "Content-Type: text/x", "ETag: \"1\"", f"Date: {date}", "X-Own: a", "X-Own: b")
    first = wire.ask(path, version=version)
    assert first.get("Age") is None and first.get("Cache-Status") is None
    before = wire.stale_answers()
    with wire.open():
        copies = [wire.ask(path, version=version) for _ in range(12)]   # whichever worker is asked
    for got in copies:
        assert is_copy(got)
        assert (got.get("Content-Type"), got.get("ETag"), got.get("Date"), got.all("X-Own")) == ("text/x", '"1"', date, ["a", "b"])
        assert got.get("Content-Length") == "5" and int(got.get("Age")) >= 4   # by its Date
    ids = {got.get("X-Request-Id") for got in (first, *copies)}
    assert len(ids) == 13 and None not in ids
    assert wire.stale_answers() == before + 12
    lines = logged(wire.log, '"path":"%s"' % path.split("?")[0], 13)   # each worker writes its own, when it comes to it
    told = collections.Counter((line["status"], line["code"], line["attempts"], line["upstream"]) for line in lines)
    assert told == {(200, "ok", 1, "long"): 1, (200, "breaker_open", 0, "long"): 12}
    assert wire.ask(path, version=version).body == b"not asked"   # closed: the service is


@pytest.mark.parametrize("version", ["1.1", "h2"])
def test_head(wire, path, version):
    wire.ask(path, version=version)
    other = path + "&head"
    wire.ask(other, method="HEAD", version=version)   # an answer without a body: none for GET
    with wire.open():
        got = wire.ask(path, method="HEAD", version=version)
        assert (got.status, got.body, got.get("Content-Length")) == (200, b"", "5")
        assert got.get("Cache-Status").startswith("sallyport; hit")
        assert is_refused(wire.ask(other, version=version))


@pytest.mark.parametrize("body", [b"", b"x", b"abc" * 20000, b"y" * (COPY_BYTES - 2 * KIB)], ids=len)
def test_bodies(wire, path, body):
    for chunked in (False, True):
        wire.say(body, 200, chunked=chunked)
        assert wire.ask(f"{path}&{chunked}").body == body
        with wire.open():
            for version in ("1.1", "h2"):
                assert is_copy(wire.ask(f"{path}&{chunked}", version=version), body)


def test_what_is_too_long(wire, path):
    for chunked in (False, True):
        wire.say(b"z" * (COPY_BYTES + 1), 200, chunked=chunked)
        assert len(wire.ask(path).body) == COPY_BYTES + 1
        with wire.open():
            assert is_refused(wire.ask(path))


def test_what_breaks_off(wire, path):
    seen = threading.Event()   # half of it, by the client

    def stream(one):
        one.whole()
        one.respond(200, "content-length: 10").send(b"half")
        seen.wait(30)
        one.cancel()

    def script(peer):
        wire.service.read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        seen.wait(30)
    wire.service.program(**({"stream": stream} if wire.protocol == "h2" else {"script": script}))
    with Raw(wire.gateway.port) as client:
        client.send(request(path))
        while not client.buffer.endswith(b"half"):
            assert client.more()
        seen.set()
        with contextlib.suppress(ConnectionResetError):
            assert not client.more()
    with wire.open():
        assert is_refused(wire.ask(path))


def test_fields_of_one_hop_and_of_the_gateway(wire):
    path = f"/edited/{next(_paths)}"
    hop = ["Connection: X-Hop", "X-Hop: secret"] if wire.protocol == "http/1.1" else []
    wire.say(b"first", 200, "X-Secret: s", "X-Set: theirs", "Age: 7", "Cache-Status: inner; hit", "X-Request-Id: theirs",
             "Access-Control-Allow-Origin: *", *hop)
    first = wire.ask(path, "Origin: https://shop.example")
    with wire.open():
        got = wire.ask(path, "Origin: https://shop.example")
        stranger = wire.ask(path, "Origin: https://evil.example")
    assert (got.status, got.body) == (200, b"first")
    for one in (first, got):
        assert (one.get("X-Secret"), one.get("X-Set"), one.get("X-Hop")) == (None, "by the gateway", None)
        assert one.get("Access-Control-Allow-Origin") == "https://shop.example"
        assert one.get("X-Request-Id") != "theirs"
    assert stranger.get("Access-Control-Allow-Origin") is None
    assert int(got.get("Age")) in range(7, 60)   # with what it had spent in another cache
    assert got.all("Cache-Status") == ["inner; hit", "sallyport; hit; detail=breaker_open"]


def test_a_service_that_really_fails(wire):
    path = f"/failing/{next(_paths)}"
    wire.ask(path)
    wire.say(b"no", 500)
    until(lambda: wire.ask(path).status == 200, "an open breaker and the copy")
    assert wire.service.requests
    asked = len(wire.service.requests)
    for version in ("1.1", "h2") * 5:
        assert is_copy(wire.ask(path, version=version))
    assert len(wire.service.requests) == asked
    assert is_refused(wire.ask(path + "/other"))


# ---- what is kept ----

NO_COPY = [["Cache-Control: no-store"], ["Cache-Control: private, max-age=60"], ["Cache-Control: public, no-cache"],
           ["Cache-Control: must-revalidate"], ["Set-Cookie: a=b", "Cache-Control: public"], ["Vary: *"],
           ["Cache-Control: s-maxage=0, max-age=60"], ["Cache-Control: max-age=60, x=\"no-store"]]


@pytest.mark.parametrize("fields", NO_COPY, ids=lambda fields: fields[0])
def test_no_copy_of(wire, path, fields):
    wire.say(b"first", 200, *fields)
    wire.ask(path)
    with wire.open():
        assert is_refused(wire.ask(path))


@pytest.mark.parametrize("status", [203, 204, 301, 404, 500])
def test_no_copy_of_a_status(wire, path, status):
    wire.say(b"" if status == 204 else b"first", status, "Cache-Control: public, max-age=60")
    wire.ask(path)
    with wire.open():
        assert is_refused(wire.ask(path))


def test_requests_without_copies(wire, path):
    for number, (method, fields, body) in enumerate([
            ("POST", [], b"x"), ("OPTIONS", [], None), ("GET", ["Range: bytes=0-1"], None), ("GET", [], b"a body"),
            ("GET", ["Cache-Control: no-store"], None)]):
        wire.ask(f"{path}&{number}", *fields, method=method, body=body)
        with wire.open():
            assert is_refused(wire.ask(f"{path}&{number}"))
    wire.say()
    wire.ask(path)
    with wire.open():
        assert is_copy(wire.ask(path, "If-None-Match: \"1\"", "Cache-Control: max-age=0"))
        for fields in (["Range: bytes=0-1"], ["Cache-Control: no-cache"], ["Pragma: no-cache"], ["If-Match: \"1\""]):
            assert is_refused(wire.ask(path, *fields))
        assert is_refused(wire.ask(path, body=b"a body"))
        assert is_refused(wire.ask(path, method="DELETE"))


def test_what_is_asked_for(wire, path):
    wire.ask(path)
    with wire.open():
        assert is_copy(wire.ask(path))
        for other in (path + "c", path.split("?")[0], path.replace("?", "/?"), path + "&"):
            assert is_refused(wire.ask(other))
        with Raw(wire.gateway.port) as client:
            assert is_refused(client.ask(request(path, host="test:8080")))


def test_routes_have_their_own(wire):
    path = f"/tenant/{next(_paths)}"
    wire.ask(path, "X-Tenant: a")
    with wire.open():
        assert is_copy(wire.ask(path, "X-Tenant: a"))
        assert is_refused(wire.ask(path))


def test_vary(wire, path):
    for language in ("de", "en"):
        wire.say(language.encode(), 200, "Vary: Accept-Language, X-Other")
        wire.ask(path, f"Accept-Language: {language}")
    with wire.open():
        for version in ("1.1", "h2"):
            for language in ("de", "en"):
                assert is_copy(wire.ask(path, f"Accept-Language: {language}", version=version), language.encode())
            assert is_refused(wire.ask(path, version=version))
            assert is_refused(wire.ask(path, "Accept-Language: de", "X-Other: 1", version=version))


def test_vary_by_what_the_gateway_says(wire, path):
    wire.say(b"first", 200, "Vary: X-Forwarded-For")
    wire.ask(path)
    with wire.open():
        assert is_copy(wire.ask(path))
        assert is_refused(wire.ask(path, source=OTHER_ADDRESS))


WHO = [["Authorization: Basic YTpi"], ["Cookie: session=1"]]


@pytest.mark.parametrize("who", WHO, ids=lambda who: who[0])
def test_an_answer_to_one_caller_is_not_anothers(wire, path, who):
    wire.say(b"yours", 200, "Cache-Control: max-age=60")
    wire.ask(path, *who)
    wire.say(b"all's", 200, "Cache-Control: public")
    wire.ask(path + "&public", *who)
    wire.say(b"anybody's")
    wire.ask(path + "&anybody")
    with wire.open():
        for version in ("1.1", "h2"):
            assert is_refused(wire.ask(path, *who, version=version))
            assert is_refused(wire.ask(path, version=version))
            assert is_copy(wire.ask(path + "&public", *who, version=version), b"all's")
            assert is_copy(wire.ask(path + "&public", version=version), b"all's")
            assert is_copy(wire.ask(path + "&anybody", version=version), b"anybody's")
            assert is_refused(wire.ask(path + "&anybody", *who, version=version))


def test_a_caller_that_the_gateway_knows(wire):
    path, who = f"/known/{next(_paths)}", f"X-API-Key: {KEY}"
    wire.say(b"yours")
    assert wire.ask(path, who).body == b"yours"
    wire.say(b"all's", 200, "Cache-Control: s-maxage=60")
    wire.ask(path + "/public", who)
    with wire.open():
        assert is_refused(wire.ask(path, who))
        assert is_refused(wire.ask(path))
        assert is_copy(wire.ask(path + "/public", who), b"all's")
        assert wire.ask(path + "/public", "X-API-Key: wrong").status == 401   # policies come first


CERTIFICATE = [["X-Forwarded-Client-Cert: Hash=00"], ["Client-Cert: :AA==:"]]


@pytest.mark.parametrize("who", CERTIFICATE, ids=lambda who: who[0])
def test_a_caller_whose_certificate_a_proxy_has_seen(wire, path, who):
    wire.say(b"yours")
    wire.ask(path, *who, source=PROXY)
    with wire.open():
        assert is_refused(wire.ask(path))
        assert is_refused(wire.ask(path, *who, source=PROXY))


STEERED = ["X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Port: 81", "X-Forwarded-Prefix: /evil",
           "X-Original-URL: /evil", "X-Rewrite-URL: /evil", "X-HTTP-Method-Override: DELETE", "X-Forwarded-Uri: /evil",
           "Forwarded: for=192.0.2.1;host=evil.example", "Forwarded: for=192.0.2.1;proto=https, for=192.0.2.7"]


@pytest.mark.parametrize("field", STEERED)
def test_what_a_client_says_through_a_trusted_proxy_is_in_nobodys_copy(wire, path, field):
    """Many proxies pass on what they do not set themselves, and services go by it."""
    wire.say(b"poisoned")
    wire.ask(path, field, source=PROXY)
    with wire.open():
        assert is_refused(wire.ask(path))
        assert is_refused(wire.ask(path, source=PROXY))
        assert is_copy(wire.ask(path, field, source=PROXY), b"poisoned")


def test_who_asks_through_a_trusted_proxy_is_all_the_same(wire, path):
    wire.ask(path, "X-Forwarded-For: 192.0.2.1", "Forwarded: For=192.0.2.1;by=10.0.0.1;host=a", "X-Request-Id: 1",
             source=PROXY)
    with wire.open():
        for who in ("192.0.2.1", "192.0.2.2"):
            assert is_copy(wire.ask(path, f"X-Forwarded-For: {who}", f"Forwarded: for={who};host=a", source=PROXY))


# ---- how long ----

def test_its_time_is_over(wire):
    path = f"/brief/{next(_paths)}"
    wire.ask(path)
    with wire.open("brief"):
        assert is_copy(wire.ask(path))
        until(lambda: wire.ask(path).status == 503, "the end of its time")
        assert is_refused(wire.ask(path))


def test_the_service_bounds_it(wire, path):
    for number, said in enumerate(["s-maxage=1", "must-revalidate, max-age=1", "stale-if-error=1"]):
        wire.say(b"first", 200, f"Cache-Control: {said}")
        wire.ask(f"{path}&{number}")
    with wire.open():
        time.sleep(1.1)
        for number in range(3):
            assert is_refused(wire.ask(f"{path}&{number}"))


def test_the_service_bounds_it_by_a_date(wire, path):
    for number, seconds in enumerate((3600, -1, 2)):
        wire.say(b"first", 200, "Cache-Control: must-revalidate", f"Expires: {formatdate(time.time() + seconds, usegmt=True)}")
        wire.ask(f"{path}&{number}")
    with wire.open():
        assert is_copy(wire.ask(f"{path}&0"))
        assert is_refused(wire.ask(f"{path}&1"))
        until(lambda: wire.ask(f"{path}&2").status == 503, "the end of its time")


def test_changes_take_it_away(wire, path):
    changes = [("POST", 201, b"x"), ("DELETE", 204, None), ("PUT", 302, b"x"), ("GET", 404, None), ("GET", 410, None)]
    for method, status, body in changes:
        wire.say()
        wire.ask(path)
        wire.say(b"" if status == 204 else b"done", status)
        wire.ask(path, method=method, body=body)
        with wire.open():
            assert is_refused(wire.ask(path))
    for method, status in (("POST", 409), ("DELETE", 500), ("GET", 401)):
        wire.say()
        wire.ask(path)
        wire.say(b"no", status)
        wire.ask(path, method=method)
        with wire.open():
            assert is_copy(wire.ask(path))


def test_a_change_by_another_route(wire):
    path = f"/tenant/{next(_paths)}"
    wire.ask(path, "X-Tenant: a")
    wire.ask(path, method="POST", body=b"x")
    with wire.open():
        assert is_refused(wire.ask(path, "X-Tenant: a"))


def test_a_change_of_the_same_by_another_spelling(wire, path):
    wire.ask(path)
    with Raw(wire.gateway.port) as client:
        assert client.ask(request(path.replace("/long", "/%6cong"), "POST", host="TEST:80", body=b"x")).status == 200
    with wire.open():
        assert is_refused(wire.ask(path))


def test_a_change_by_another_upstream(wire):
    path = f"/split/{next(_paths)}"
    wire.ask(path)
    with wire.open():
        assert is_copy(wire.ask(path))
    assert wire.ask(path, method="POST", body=b"x").status == 200
    with wire.open():
        assert is_refused(wire.ask(path))


def test_a_change_while_an_answer_is_on_its_way(wire, path):
    """The answer may tell of what was before."""
    go = threading.Event()

    def stream(one):
        one.whole()
        if one.method == "POST":
            one.answer(b"done")
            return
        one.respond(200, ("content-length", "5")).send(b"fir")
        go.wait(30)
        one.send(b"st", end=True)

    def script(peer):
        while (message := wire.service.read(peer)) is not None:
            if message.method == "POST":
                peer.send(answer(b"done"))
            else:
                peer.send(answer(b"first")[:-2])
                go.wait(30)
                peer.send(b"st")
    wire.service.program(**({"stream": stream} if wire.protocol == "h2" else {"script": script}))
    with Raw(wire.gateway.port) as reader:
        reader.send(request(path))
        assert reader.head().status == 200
        assert wire.ask(path, method="POST", body=b"x").body == b"done"
        go.set()
        assert reader.exactly(5) == b"first"
    with wire.open():
        assert is_refused(wire.ask(path))


def test_a_change_at_the_upstream_beside_it(wire):
    path = f"/stood_in/{next(_paths)}"
    wire.ask(path)
    with wire.forced_open("stood_in"):
        wire.say(b"changed")
        assert is_copy(wire.ask(path))
        assert wire.ask(path, method="PUT", body=b"x").body == b"changed"
        assert wire.ask(path).body == b"changed"   # not what was before


def test_the_last_one(wire, path):
    for body in (b"one", b"two", b"three"):
        wire.say(body)
        wire.ask(path)
    with wire.open():
        assert is_copy(wire.ask(path), b"three")


def test_a_reload_keeps_them(wire, path):
    wire.ask(path)
    wire.gateway.reload_everywhere()
    with wire.open():
        assert is_copy(wire.ask(path))


# ---- by hand ----

def admin(wire, method="GET", name=""):
    return ask_admin(wire.gateway.admin_port, "/api/v1/stale" + name, method)


def kept(wire):
    got = json.loads(admin(wire).body)
    assert got["limits"] == {"resources": 16384, "bytes": 64 * MIB}
    by_name = {each.pop("upstream"): each for each in got["upstreams"]}
    assert set(by_name) == {"long", "brief", "failing", "said", "stood_in"}
    assert got["copies"] == sum(each["copies"] for each in by_name.values()) >= got["resources"]
    assert got["bytes"] >= sum(each["bytes"] for each in by_name.values())
    return by_name


def test_shown_and_dropped_by_hand(wire, path):
    other = f"/said/{next(_paths)}"
    before = kept(wire)
    for one in (path, path + "&2", other):
        wire.ask(one)
    now = kept(wire)
    assert now["long"]["copies"] == before["long"]["copies"] + 2 and now["long"]["bytes"] > before["long"]["bytes"]
    assert now["said"]["copies"] == before["said"]["copies"] + 1
    assert admin(wire, "DELETE", "/nobody").status == 404 and kept(wire) == now
    got = admin(wire, "DELETE", "/long")
    assert (got.status, json.loads(got.body)) == (200, {"dropped": now["long"]["copies"]})
    assert kept(wire) == {**now, "long": {"copies": 0, "bytes": 0}}
    with wire.open("long", "said"):
        assert is_refused(wire.ask(path))
        assert is_copy(wire.ask(other))
    assert json.loads(admin(wire, "DELETE").body)["dropped"] >= 1
    assert not any(each["copies"] or each["bytes"] for each in kept(wire).values())
    with wire.open("said"):
        assert wire.ask(other).status == 203
    wire.say()
    wire.ask(path)   # and anew
    with wire.open():
        assert is_copy(wire.ask(path))


def test_a_reload_shortens_their_time(make):
    service = Upstream()

    def config(stale):
        return {"workers": 1, "routes": [{"name": "all", "upstream": "service"}], "upstreams": {"service": {
            "targets": [{"address": f"127.0.0.1:{service.port}"}],
            "circuit_breaker": {"fallback": {"stale": stale}}}}}
    gateway = make(config("1h")).start()
    assert gateway.ask("/").status == 200
    assert ask_admin(gateway.admin_port, "/api/v1/breakers/service", "PUT", '{"force": "open"}').status == 200
    assert gateway.ask("/").status == 200
    gateway.reload_everywhere({**gateway.config, **config("1s")})
    until(lambda: gateway.ask("/").status == 503, "the end of its second")
    gateway.reload_everywhere({**gateway.config, **config("1h")})
    assert gateway.ask("/").status == 200   # it is still there
    service.close()


# ---- where there is none ----

def test_an_answer_beside_it(wire):
    path = f"/said/{next(_paths)}"
    wire.ask(path)
    with wire.open("said"):
        assert is_copy(wire.ask(path))
        got = wire.ask(path + "/other")
        assert (got.status, got.body, got.get("Age")) == (203, b"[]", None)


def test_an_upstream_beside_it(wire):
    path = f"/stood_in/{next(_paths)}"
    wire.ask(path)
    with wire.forced_open("stood_in"):
        wire.say(b"the other's")
        assert is_copy(wire.ask(path))
        assert wire.ask(path + "/other").body == b"the other's"
        assert wire.ask(path + "/other").get("Age") is None   # of the other's there are no copies


# ---- how many ----

@pytest.mark.skipif(SANITIZED, reason="measures memory")
def test_a_flood_is_bounded_and_drives_out_only_its_own(wire, path):
    wire.ask(path)
    wire.ask(path, source=OTHER_ADDRESS)   # two callers have a use for it
    alone = path + "&alone"
    wire.ask(alone)
    size = 250 * KIB
    wire.say(b"z" * size)
    before = wire.resident_kib()
    with Raw(wire.gateway.port) as client:
        for number in range(2 * 64 * MIB // size):
            assert len(client.ask(request(f"{path}&flood={number}")).body) == size
    assert wire.resident_kib() - before < 90 * 1024
    with wire.open():
        assert is_copy(wire.ask(path))
        assert is_refused(wire.ask(alone))
        assert is_refused(wire.ask(f"{path}&flood=1"))


# ---- beside sallyport-echo ----

@pytest.mark.parametrize("outage", ["refuse", "status=503"])
def test_beside_echo(make, make_echo, outage):
    echo = make_echo()
    breaker = {"min_requests": 5, "open": "1h", "max_open": "1h", "fallback": {"stale": "1m"}}
    gateway = make({"workers": 2, "upstreams": {"echo": {
        "targets": [{"address": f"127.0.0.1:{echo.port}"}], "circuit_breaker": breaker, "outlier": {"max_ejected": 0},
        "retries": {"attempts": 0}}},
        "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "echo"}]}).start()
    first = gateway.ask("/orders/1")
    assert first.status == 200
    echo.control(f"outage?misbehave={outage}")
    got = until(lambda: next((got for got in [gateway.ask("/orders/1")] if got.status == 200), None), "the copy")
    assert (got.body, got.headers["Cache-Status"]) == (first.body, "sallyport; hit; detail=breaker_open")
    assert gateway.ask("/orders/2").status == 503
    gateway.wait_rest()
