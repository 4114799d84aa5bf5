"""Revocation: what the Auth Service takes back is refused at every gateway within a second, by way of a real Redis, also
when Redis goes and comes back; without Redis by the admin API. Streams end with their token.
"""
import base64
import hashlib
import json
import time

import pytest

from auth_service import SECRET, AuthService, claims_of
from auth_wire import ISSUER, AuthWire, bearer, jwt_provider, route
from gateway import ask, until
from h2_peers import H2Client, H2Upstream
from h2_wire import PATIENCE
from peers import Incomplete, Raw, answer, request
from test_24_redis import Redis, revocations, revoke, wait_redis
from tokens import Key, claims, jwks, token

SECOND = PATIENCE   # a second; more on a machine that is busy
RESYNC_S = 10 * PATIENCE


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    made = Redis(tmp_path_factory.mktemp("redis")).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, redis):
    """The Auth Service and two gateways of two workers, all with the same Redis. What one test revokes stays so."""
    tmp_path = tmp_path_factory.mktemp("fleet")
    shared = {"redis": {"url": f"redis://127.0.0.1:{redis.port}/0"}}
    with AuthService(tmp_path / "auth", shared) as service:
        auth = {"corp": jwt_provider(uri=service.url("/jwks.json"), issuer=service.issuer, revocation=True),
                "deaf": jwt_provider(uri=service.url("/jwks.json"), issuer=service.issuer),
                "opaque": {"introspection": {
                    "uri": service.url("/introspect"), "client_id": "gateway", "client_secret": {"env": "GATEWAY_SECRET"},
                    "timeout": "5s", "revocation": True, "cache": {"ttl": "60s", "negative_ttl": "60s", "stale": "0s"}}}}
        routes = [route(name, name) for name in auth]
        with AuthWire(tmp_path / "one", auth, routes, workers=2, env={"GATEWAY_SECRET": SECRET}, **shared) as one, \
                AuthWire(tmp_path / "two", auth, routes, workers=2, env={"GATEWAY_SECRET": SECRET}, **shared) as two:
            for each in (one, two):
                wait_redis(each.gateway, "up")
            one.service, one.other = service, two
            yield one, two


def statuses(wire, made, path="/corp", count=6):
    """Of some connections: each may come to another worker."""
    found = []
    for i in range(count):
        version = ("h1", "h2")[i % 2]
        found.append(wire.ask(version, path, bearer(made)))
        wire.drop(version)
    return {got.status for got in found}


def everywhere(fleet, made, status, path="/corp"):
    return all(statuses(each, made, path) == {status} for each in fleet)


def refused_everywhere(fleet, made, path="/corp", deadline=SECOND):
    """Seconds until it is refused at both."""
    began = time.monotonic()
    until(lambda: everywhere(fleet, made, 401, path), "refused everywhere", deadline)
    for each in fleet:
        each.refused(each.ask("h1", path, bearer(made)), "revoked_token")
        each.refused(each.ask("h2", path, bearer(made)), "revoked_token")
    return time.monotonic() - began


def warm(fleet, *made, path="/corp"):
    for each in made:
        until(lambda: everywhere(fleet, each, 200, path), "let through everywhere", 10)   # noqa: B023


# ---- by way of Redis ----

def test_one_token(fleet):
    """RFC 7009 at the Auth Service; the client's other tokens are as good as before."""
    service = fleet[0].service
    made, other = service.token(), service.token()
    warm(fleet, made, other)
    assert service.revoke(made).status == 200
    took = refused_everywhere(fleet, made)
    print("revoked_after_ms", round(1000 * took))
    assert everywhere(fleet, other, 200)
    assert everywhere(fleet, made, 200, "/deaf")   # a provider without `revocation` does not ask
    never_seen = service.token()
    assert service.revoke(never_seen).status == 200
    refused_everywhere(fleet, never_seen)


def test_a_subject(fleet):
    """Every token issued up to a time, told to one gateway; those issued later are good."""
    service = fleet[0].service
    made, other = service.token("eddsa"), service.token()
    warm(fleet, made, other)
    now = int(time.time())
    assert revoke(fleet[0].gateway, iss=service.issuer, sub="eddsa", before=claims_of(made)["iat"]).status == 201
    refused_everywhere(fleet, made)
    assert everywhere(fleet, other, 200)
    later = until(lambda: (made := service.token("eddsa")) and claims_of(made)["iat"] > now and made, "the next second", 10)
    assert everywhere(fleet, later, 200)


def test_the_issuer_counts(fleet):
    """Another issuer's jti or subject is another one."""
    service = fleet[0].service
    made = service.token()
    warm(fleet, made)
    facts, before = claims_of(made), revocations(fleet[0].gateway)["count"]
    revoke(fleet[0].gateway, iss="https://another.example", jti=facts["jti"], exp=facts["exp"])
    revoke(fleet[0].gateway, iss="https://another.example", sub="shop")
    revoke(fleet[1].gateway, iss=service.issuer, jti=facts["jti"] + "x", exp=facts["exp"])
    revoke(fleet[1].gateway, iss=service.issuer, sub="shopp")
    until(lambda: all(revocations(each.gateway)["count"] == before + 4 for each in fleet), "all four everywhere", 10)
    assert everywhere(fleet, made, 200)
    revoke(fleet[1].gateway, jti=facts["jti"], exp=facts["exp"])   # of any issuer
    refused_everywhere(fleet, made)


def test_opaque_tokens(fleet):
    """An answer of introspection in the cache is not good for longer than the deny list says."""
    service = fleet[0].service
    made, other = service.token("opaque"), service.token("opaque")
    warm(fleet, made, other, path="/opaque")
    facts = service.introspect(made)
    assert revoke(fleet[0].gateway, iss=service.issuer, jti=facts["jti"], exp=facts["exp"]).status == 201
    refused_everywhere(fleet, made, "/opaque")
    assert everywhere(fleet, other, 200, "/opaque")


def test_a_gateway_that_comes_later(fleet, tmp_path):
    """It has the whole list before it is asked anything."""
    service = fleet[0].service
    made = service.token()
    assert service.revoke(made).status == 200
    refused_everywhere(fleet, made)
    config = fleet[0].gateway.config
    with AuthWire(tmp_path / "three", config["auth"], config["routes"], env={"GATEWAY_SECRET": SECRET},
                  redis=config["redis"]) as three:
        wait_redis(three.gateway, "up")
        until(lambda: statuses(three, made) == {401}, "the list", SECOND)


def test_redis_goes_and_comes_back(fleet, redis):
    """While it is away the last copy stays in force, and what is revoked here is refused here; then all is told."""
    service = fleet[0].service
    before, during, here, good = (service.token() for _ in range(4))
    warm(fleet, before, during, here, good)
    assert service.revoke(before).status == 200
    refused_everywhere(fleet, before)
    redis.kill()
    for each in fleet:
        wait_redis(each.gateway, "down")
    assert everywhere(fleet, before, 401) and everywhere(fleet, good, 200)
    assert service.revoke(during).status == 200
    facts = claims_of(here)
    assert revoke(fleet[0].gateway, iss=service.issuer, jti=facts["jti"], exp=facts["exp"]).status == 201
    until(lambda: statuses(fleet[0], here) == {401}, "refused where it was revoked", SECOND)
    assert everywhere(fleet, good, 200)
    redis.start()   # and it has forgotten everything
    until(lambda: everywhere(fleet, during, 401) and everywhere(fleet, here, 401), "what was revoked meanwhile", RESYNC_S)
    assert everywhere(fleet, before, 401) and everywhere(fleet, good, 200)


# ---- without Redis ----

@pytest.fixture(scope="module")
def key():
    return Key("P-256", "k")


@pytest.fixture
def alone(tmp_path, key):
    (tmp_path / "jwks.json").write_text(jwks(key))
    two = H2Upstream()
    auth = {"corp": jwt_provider(tmp_path / "jwks.json", revocation=True, leeway="0s")}
    routes = [route("corp", "corp", timeout="0s"), route("outlives", "corp", timeout="0s", outlive_token=True),
              route("public", timeout="0s"), route("grpc", "corp", upstream="two", timeout="0s", path="/demo.Echo"),
              route("grpc_outlives", "corp", upstream="two", timeout="0s", path="/demo.Other", outlive_token=True)]
    with AuthWire(tmp_path / "gateway", auth, routes, workers=2,
                  upstreams={"two": {"protocol": "h2", "targets": [{"address": f"127.0.0.1:{two.port}"}]}}) as wire:
        wire.two = two
        yield wire
    two.close()


def test_by_the_admin_api(alone, key):
    now = int(time.time())
    made, other, without = (token(key, claims(ISSUER, jti="a", iat=now - 60)), token(key, claims(ISSUER, jti="b", sub="bob")),
                            token(key, claims(ISSUER, sub="carl", iat=None)))
    warm([alone], made, other, without)
    assert revoke(alone.gateway, iss=ISSUER, jti="a", exp=now + 600).status == 201
    refused_everywhere([alone], made)
    assert everywhere([alone], other, 200)
    assert revoke(alone.gateway, iss=ISSUER, sub="carl", before=now - 3600).status == 201
    refused_everywhere([alone], without)   # it does not say when it was issued: before any time
    assert revoke(alone.gateway, iss=ISSUER, sub="bob", before=now - 3600).status == 201
    until(lambda: revocations(alone.gateway)["count"] == 3, "three entries", 10)
    assert everywhere([alone], other, 200)   # it was issued later
    alone.gateway.reload_everywhere()
    assert everywhere([alone], made, 401) and everywhere([alone], other, 200)   # a reload forgets nothing


# ---- streams ----

def events(peer):
    """An upstream of both kinds of streams: WebSocket bytes back, or events without end."""
    message = peer.head()
    if message.get("Upgrade"):
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept_of(message))
        while peer.buffer or peer.more():
            peer.send(peer.buffer)
            peer.buffer = b""
    else:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:1\n\r\n")
        while peer.more():
            pass


def accept_of(message):
    seed = message.get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(seed.encode()).digest())


class WebSocket:
    """Over HTTP/1.1."""

    def __init__(self, wire, path, *fields):
        self.client = Raw(wire.port)
        self.client.send(request(path, "GET", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==", *fields))
        assert self.client.response().status == 101

    def says(self):
        """Whether a byte comes back."""
        try:
            self.client.send(b"x")
            return bool(self.client.buffer or self.client.more()) and not setattr(self.client, "buffer", b"")
        except (ConnectionError, Incomplete):
            return False

    def over(self):
        self.client.socket.settimeout(0.001)
        try:
            while self.client.more():
                self.client.buffer = b""
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        finally:
            self.client.socket.settimeout(30)
        return True

    def close(self):
        self.client.reset()   # a quiet end could be half of one: the gateway would wait for the upstream


class Events(WebSocket):
    def __init__(self, wire, path, *fields):
        self.client = Raw(wire.port)
        self.client.send(request(path, "GET", "Accept: text/event-stream", *fields))
        assert self.client.head().status == 200

    def says(self):
        return not self.over()


class Stream:
    """Of HTTP/2: events, a WebSocket by extended CONNECT, or gRPC."""

    def __init__(self, wire, path, *fields, method="GET", **more):
        self.client = H2Client(wire.port)
        self.stream = self.client.begin_request(path, method, *fields, end=method == "GET", **more)
        assert self.stream.head().status == 200, self.stream

    def says(self):
        return not self.over()

    def over(self):
        return self.stream.ended or self.stream.reset is not None or self.client.over

    def close(self):
        self.client.close()


def open_streams(wire, made, outlives=False):
    """One of each kind."""
    path, call = ("/outlives", "/demo.Other/Chat") if outlives else ("/corp", "/demo.Echo/Chat")
    fields = [bearer(made)]
    return {"websocket": WebSocket(wire, path, *fields), "events": Events(wire, path, *fields),
            "events h2": Stream(wire, path, "accept: text/event-stream", *fields),
            "websocket h2": Stream(wire, path, "sec-websocket-version: 13", *fields, method="CONNECT", protocol="websocket"),
            "grpc": Stream(wire, call, "content-type: application/grpc", "te: trailers", *fields, method="POST")}


@pytest.fixture
def streams(alone):
    alone.upstream.program(script=events)

    def chat(stream):
        stream.respond(200, "content-type: application/grpc")
        stream.send(b"\0\0\0\0\2hi")
        stream.session.until(lambda: stream.ended or stream.reset is not None or stream.session.over, "its end")
    alone.two.program(stream=chat)
    made = []

    def new(*more, **options):
        made.append(open_streams(alone, *more, **options))
        return made[-1]
    yield new
    for each in made:
        for stream in each.values():
            stream.close()


def end_of(opened, deadline):
    """When each has ended."""
    ends = {}

    def all_over():
        for name, stream in opened.items():
            if name not in ends and stream.over():
                ends[name] = time.time()
        return len(ends) == len(opened)
    until(all_over, lambda: f"the end of {sorted(opened.keys() - ends.keys())}", deadline)
    return ends


def test_streams_end_with_their_token(alone, key, streams):
    """Within a second of exp, and not before; where the route says so they go on."""
    good = claims(ISSUER, lifetime=6)
    made = token(key, good)
    ending, outliving, lasting = streams(made), streams(made, outlives=True), streams(token(key, claims(ISSUER)))
    assert all(stream.says() for stream in ending.values())
    ends = end_of(ending, 6 + SECOND + 1)
    for name, end in ends.items():
        assert good["exp"] - 0.05 <= end <= good["exp"] + SECOND + 0.2, (name, end - good["exp"])
    print("ended_after_exp_ms", round(1000 * (max(ends.values()) - good["exp"])))
    for kept in (outliving, lasting):
        assert {name: stream.says() for name, stream in kept.items()} == dict.fromkeys(kept, True)


def test_streams_end_when_their_token_is_revoked(alone, key, streams):
    made, other = token(key, claims(ISSUER, jti="gone")), token(key, claims(ISSUER, jti="stays"))
    ending, outliving, lasting = streams(made), streams(made, outlives=True), streams(other)
    assert all(stream.says() for stream in ending.values())
    now = time.time()
    assert revoke(alone.gateway, iss=ISSUER, jti="gone", exp=int(now) + 600).status == 201
    ends = end_of(ending, SECOND + 1)
    assert max(ends.values()) - now <= SECOND + 0.2, {name: end - now for name, end in ends.items()}
    print("ended_after_revocation_ms", round(1000 * (max(ends.values()) - now)))
    for kept in (outliving, lasting):
        assert {name: stream.says() for name, stream in kept.items()} == dict.fromkeys(kept, True)
    assert revoke(alone.gateway, iss=ISSUER, sub="ann", before=int(now) + 5).status == 201   # and all that are left
    end_of(lasting, SECOND + 1)
    assert {name: stream.says() for name, stream in outliving.items()} == dict.fromkeys(outliving, True)


def test_a_response_that_is_no_stream_is_not_cut(alone, key):
    """What was let through is answered."""
    made = token(key, claims(ISSUER, jti="slow"))
    fields = {"Authorization": f"Bearer {made}"}

    def reply(message):
        assert revoke(alone.gateway, iss=ISSUER, jti="slow", exp=int(time.time()) + 600).status == 201
        until(lambda: ask(alone.port, "/corp", headers=fields).status == 401, "refused", 10)
        return answer(json.dumps({"fields": message.fields, "trailers": []}).encode())
    alone.upstream.program(reply=reply)
    alone.let_through(alone.ask("h1", "/corp", bearer(made)))
