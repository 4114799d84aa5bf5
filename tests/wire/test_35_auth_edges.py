"""Ways around a guard: methods, preflights, paths in disguise, bodies before the answer, kinds of routes; and what of a token may be found in logs, metrics and the admin API: nothing.
"""
import json
import urllib.parse

import pytest

from auth_wire import ISSUER, VERSIONS, AuthWire, Service, bearer, jwt_provider, route
from gateway import ask, until
from h2_peers import H2Upstream
from peers import Raw, Upstream, answer, request
from tokens import Key, claims, jwks, token

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE", "get", "FOO"]


@pytest.fixture(scope="module")
def key():
    return Key("P-256", "k")


@pytest.fixture(scope="module")
def wire(tmp_path_factory, key):
    directory = tmp_path_factory.mktemp("edges")
    (directory / "jwks.json").write_text(jwks(key))
    other, two, edge = Upstream(), H2Upstream(), Service()
    target = lambda upstream, **more: {"targets": [{"address": f"127.0.0.1:{upstream.port}"}], **more}   # noqa: E731
    auth = {"corp": jwt_provider(directory / "jwks.json"),
            "edge": {"forward": {"uri": edge.uri("/"), "timeout": "5s", "response_headers": ["X-User-Id"]}},
            "away": {"forward": {"uri": "http://127.0.0.1:1/", "timeout": "200ms"}}}
    guarded = {"auth": "corp"}
    prefix = lambda path: {"path": {"prefix": path}}   # noqa: E731
    routes = [
        route("public", path="/"), route("corp", "corp"), route("edge", "edge"),
        route("crossed", "corp", cors={"origins": ["https://app.example"], "methods": ["GET", "PUT"]}),
        {"name": "moved", "match": prefix("/moved"), "redirect": {"to": "https://new.example/", "status": 307}, **guarded},
        {"name": "said", "match": prefix("/said"), "respond": {"status": 200, "body": "secret"}, **guarded},
        {"name": "split", "match": prefix("/split"), "split": [{"upstream": "main", "weight": 1}, {"upstream": "other", "weight": 1}],
         **guarded},
        {"name": "cut", "match": prefix("/cut"), "upstream": "main", "rewrite": {"prefix": "/elsewhere"}, **guarded},
        route("grpc", "corp", upstream="two", auth={"require": {"scopes": ["orders:write"]}}), route("grpc_away", "away", upstream="two"),
    ]
    with AuthWire(directory / "gateway", auth, routes, upstreams={"other": target(other), "two": target(two, protocol="h2")},
                  telemetry={"access_log": {"output": str(directory / "access.log")}}) as made:
        made.other, made.two, made.edge, made.log = other, two, edge, directory / "access.log"
        yield made
    for upstream in (other, two, edge):
        upstream.close()


@pytest.fixture(autouse=True)
def whole(wire):
    reached = (wire.upstream, wire.other, wire.two, wire.edge)
    for upstream in reached:
        upstream.requests.clear()
    yield
    for upstream in reached:
        upstream.check()


def nothing_reached(wire):
    return not (wire.upstream.requests or wire.other.requests or wire.two.requests)


@pytest.fixture(scope="module")
def good(key):
    return token(key, claims(ISSUER, scope="orders:write", lifetime=3600))


@pytest.fixture(scope="module")
def bad(good):
    return good[:-8] + "AAAAAAAA"


# ---- methods and kinds of routes ----

@pytest.mark.parametrize("path", ["/corp", "/moved", "/said", "/split", "/cut", "/crossed"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_method_on_every_kind_of_route(wire, bad, version, method, path):
    for fields in ([], [bearer(bad)], ["Authorization: Basic eDp5"], ["X-HTTP-Method-Override: OPTIONS"], ["X-User-Id: root"]):
        got = wire.ask(version, path, *fields, method=method)
        assert got.status == 401 and b"secret" not in got.body and got.get("Location") is None, (fields, got)
        assert got.get("WWW-Authenticate").startswith("Bearer")
    assert nothing_reached(wire)


def test_what_a_good_token_opens(wire, good):
    assert wire.ask("h1", "/moved", bearer(good)).status == 307
    assert wire.ask("h1", "/said", bearer(good)).body == b"secret"
    assert {wire.ask("h1", "/split", bearer(good)).status for _ in range(4)} == {200}
    assert wire.ask("h1", "/cut/x", bearer(good)).json["target"] == "/elsewhere/x"


# ---- preflights ----

PREFLIGHT = ["Origin: https://app.example", "Access-Control-Request-Method: PUT"]
NO_PREFLIGHTS = [["Origin: https://app.example"], ["Access-Control-Request-Method: PUT"], []]


@pytest.mark.parametrize("version", VERSIONS)
def test_preflights_reach_nobody(wire, version):
    """With `cors` they are answered by the gateway, whoever asks for whatever; without they are requests as all others."""
    for fields in (PREFLIGHT, ["Origin: https://evil.example", PREFLIGHT[1]], [PREFLIGHT[0], "Access-Control-Request-Method: DELETE"],
                   [*PREFLIGHT, "Access-Control-Request-Headers: x-user-id, authorization"], [*PREFLIGHT, "X-User-Id: root"],
                   ["Origin: null", PREFLIGHT[1]]):
        assert wire.ask(version, "/crossed", *fields, method="OPTIONS").status in (200, 204)
        assert wire.ask(version, "/corp", *fields, method="OPTIONS").status == 401
    for fields in NO_PREFLIGHTS:
        assert wire.ask(version, "/crossed", *fields, method="OPTIONS").status == 401
    for method in ("GET", "POST", "HEAD", "PUT"):
        assert wire.ask(version, "/crossed", *PREFLIGHT, method=method).status == 401
    assert nothing_reached(wire)


# ---- paths in disguise: / is public, /corp is not ----

DISGUISES = [
    "/corp", "/corp/", "/corp?x", "/corp/x", "//corp", "/./corp", "/x/../corp", "/x/y/../../corp", "/%63orp", "/c%6Frp", "/%2e/corp",
    "/x/%2e%2e/corp", "/x/.%2e/corp", "/x/..%2fcorp", "/x%2f..%2fcorp", "/%2fcorp", "/x/..%5ccorp", "/x\\..\\corp", "\\corp", "/corp%00",
    "/%00/../corp", "/corp%2f", "/corp%2f..%2fx", "/corp/../corp", "/corp/%2e%2e/corp", "/corp;x=y", "/;/corp", "/x;/../corp", "/x/..;/corp",
    "/corp.", "/corp%20", "/ corp", "/corp%09", "/%252e%252e/corp", "/%2563orp", "/CORP", "/Corp", "/%43orp", "/corp//", "/corp/./",
    "/corp/.", "/corp/..", "/corp/../", "/x/../../corp", "/../corp", "/corp%c0%af", "/%c0%ae%c0%ae/corp", "/corp%23", "/corp#x", "/%3fcorp",
    "/corp%3f", "http://test/corp", "http://test//corp", "http://other/corp", "http://test/x/../corp", "corp", "*", "",
]


@pytest.mark.parametrize("target", DISGUISES)
@pytest.mark.parametrize("version", VERSIONS)
def test_paths_in_disguise(wire, version, target):
    """Whatever comes through without credentials is not what is guarded, nor another spelling of it."""
    got = wire.ask(version, target)
    wire.drop(version)
    for each in wire.upstream.requests:
        assert got.status == 200
        path = each.target.split("?")[0]
        assert not (path == "/corp" or path.startswith("/corp/")), each.target
        strict = urllib.parse.unquote(path)
        assert not (strict == "/corp" or strict.startswith("/corp/")), each.target
        assert "/../" not in strict and "/./" not in strict and not strict.endswith("/..") and "\\" not in strict, each.target


# ---- bodies ----

def test_no_100_before_the_answer(wire, good, bad):
    """Nobody is asked for a body that is going to be refused."""
    for fields in ([], [bearer(bad)]):
        client = Raw(wire.port)
        client.send(request("/corp", "POST", "Expect: 100-continue", "Content-Length: 5", *fields))
        got = client.response(interim=True)
        assert got.status == 401
        client.close()
    client = Raw(wire.port)
    client.send(request("/corp", "POST", "Expect: 100-continue", "Content-Length: 5", bearer(good)))
    assert client.response(interim=True).status == 100
    client.send(b"hello")
    assert client.response().status == 200
    client.close()


@pytest.mark.parametrize("body", [b"GET /public HTTP/1.1\r\nHost: test\r\nX-User-Id: root\r\n\r\n", b"x" * 300_000])
def test_a_refused_body_is_no_request(wire, bad, body):
    """What follows a refused head is its body, or nothing."""
    client = Raw(wire.port)
    try:
        client.send(request("/corp", "POST", bearer(bad), body=body) + request("/public", "GET"))
    except ConnectionError:
        pass
    answers = []
    try:
        while (got := client.response()) is not None:
            answers.append(got.status)
            if len(answers) == 2:
                break
    except ConnectionError:
        pass
    client.close()
    assert answers in ([401], [401, 200])
    assert [each.target for each in wire.upstream.requests] in ([], ["/public"])
    assert all("x-user-id" not in each.names for each in wire.upstream.requests)


# ---- gRPC ----

@pytest.mark.parametrize("path,fields,status", [
    ("/grpc", lambda good, key: [], "16"), ("/grpc", lambda good, key: [bearer("x.y.z")], "16"),
    ("/grpc", lambda good, key: [bearer(token(key, claims(ISSUER, lifetime=-600)))], "16"),
    ("/grpc", lambda good, key: [bearer(token(key, claims(ISSUER)))], "7"), ("/grpc_away", lambda good, key: [bearer(good)], "14")])
def test_grpc(wire, good, key, path, fields, status):
    got = wire.ask("h2", f"{path}/demo.Echo/Unary", "content-type: application/grpc", "te: trailers", *fields(good, key), method="POST",
                   body=b"\0\0\0\0\0")
    assert got.status == 200 and got.get("grpc-status") == status and got.get("content-type").startswith("application/grpc")
    assert nothing_reached(wire)


# ---- what is written down ----

def test_nothing_of_a_token_is_written_down(wire, key):
    """Neither of good ones nor of bad ones, wherever they were said: in logs, metrics, the admin API."""
    secrets = {"good": token(key, claims(ISSUER, sub="known-subject")), "bad": token(Key("P-256", "k"), claims(ISSUER)),
               "opaque": "opaque-word-that-nobody-may-read", "basic": "YmFzaWMtd29yZDp0aGF0LW5vYm9keS1tYXktcmVhZA==",
               "cookie": "cookie-word-that-nobody-may-read", "query": "query-word-that-nobody-may-read"}
    for version in VERSIONS:
        for path in ("/corp", "/edge", "/public", "/grpc", "/nowhere"):
            for name in ("good", "bad", "opaque"):
                wire.ask(version, f"{path}?access_token={secrets['query']}", bearer(secrets[name]), f"Cookie: s={secrets['cookie']}")
            wire.ask(version, path, f"Authorization: Basic {secrets['basic']}")
            wire.ask(version, path, f"Authorization: {secrets['opaque']}")
    until(lambda: wire.log.read_text().count('"path":"/nowhere"') >= 10, "the log", 10)
    written = wire.log.read_text() + wire.gateway.log() + ask(wire.gateway.status_port, "/metrics").body.decode()
    for path in ("config", "routes", "upstreams", "exchanges", "info", "revocations"):
        written += ask(wire.gateway.admin_port, f"/api/v1/{path}").body.decode()
    explained = ask(wire.gateway.admin_port, "/api/v1/explain", "POST", json.dumps(
        {"request": "GET http://test/corp", "headers": [f"Authorization: Bearer {secrets['good']}"]}),
        {"Content-Type": "application/json"})
    assert '"subject":"known-subject"' in written   # the log was read
    for name, secret in secrets.items():
        for part in secret.split(".") if name in ("good", "bad") else [secret]:
            if name in ("good", "bad") and part == secrets["good"].split(".")[0]:
                continue   # the header says nothing
            assert part not in written, (name, part)
            assert part not in explained.body.decode()


# ---- two providers that differ by their names ----

def test_a_provider_is_told_by_its_own_name(tmp_path, key):
    """What one of them has found is not the other's, though all of their settings are the same."""
    (tmp_path / "jwks.json").write_text(jwks(key))
    auth = {name: jwt_provider(tmp_path / "jwks.json") for name in ("inner", "partner")}
    with AuthWire(tmp_path / "gateway", auth, [route(name, name) for name in auth],
                  identity_headers={"X-Provider": "identity.provider"}) as wire:
        made = bearer(token(key, claims(ISSUER)))
        for name in ("inner", "partner", "inner"):
            assert wire.let_through(wire.ask("h1", f"/{name}", made))["x-provider"] == [name]
