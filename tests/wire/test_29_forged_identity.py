"""What upstreams are told of who calls comes from the gateway alone: every guarded name in every spelling, on every kind
of route, by every way a client has of saying it. The judge is the same for all: what the upstream has received, read as
leniently as any server reads (case, and any punctuation for a dash), holds exactly what the gateway says.
"""
import itertools
import json

import pytest
from jwcrypto import jwk, jws

from auth_wire import ISSUER, VERSIONS, AuthWire, Service, bearer, jwt_provider, route
from gateway import ask, free_port, until
from h2_peers import H2Client, H2Upstream
from peers import Raw, answer, request
from tokens import Key, claims, jwks, token

FORGED = "root-forged"
GUARDED = ["X-User-Id", "X-User-Roles", "X-User-Scopes", "X-Consumer", "X-Tenant",   # identity_headers
           "X-Identity",                                                              # identity_token
           "X-Edge-Level", "X-Edge-User"]                                             # what the forward provider copies
SAID = {"x-user-id": "ann", "x-user-roles": "gold,eu", "x-user-scopes": "orders:read", "x-tenant": "acme"}
EDGE = {"x-user-id": "edgar", "x-user-roles": "edge", "x-edge-level": "7", "x-edge-user": "edgar"}
PUNCTUATION = "_.!#$%&'*+^`|~"   # what a name may have besides letters, digits and dashes (RFC 9110 5.6.2)
KINDS = ["public", "optional", "protected", "bad", "none", "edge", "edge_optional"]
LISTENERS = ["plain", "allow"]


def spellings(name):
    """Of one length: a server that folds case and punctuation takes each for the name."""
    dash = name.index("-")
    mixed = "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(name))
    made = [name, name.lower(), name.upper(), name.swapcase(), mixed]
    for mark in PUNCTUATION:
        made += [name.replace("-", mark), name[:dash] + mark + name[dash + 1:], name.upper().replace("-", mark)]
    last = name.rindex("-")
    return list(dict.fromkeys([*made, name[:last] + "_" + name[last + 1:], name.lower().replace("-", "_")]))


def fold(name):
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower())


FOLDED = {fold(name) for name in GUARDED}


@pytest.fixture(scope="module")
def key():
    return Key("P-256", "k")


@pytest.fixture(scope="module")
def wire(tmp_path_factory, key):
    directory = tmp_path_factory.mktemp("forged")
    (directory / "jwks.json").write_text(jwks(key))
    signer = Key("P-256", "signer")
    (directory / "identity.pem").write_bytes(signer.pem())
    edge = Service()
    edge.program(reply=authorize)
    two = H2Upstream()
    ports = {name: free_port() for name in LISTENERS}
    auth = {"corp": jwt_provider(directory / "jwks.json"),
            "edge": {"forward": {"uri": edge.uri("/authorize"), "timeout": "20s",
                                 "response_headers": ["X-Edge-Level", "X-Edge-User", "X-User-Id", "X-User-Roles"]}}}
    routes = [route("public"), route("optional", "corp", auth={"optional": True}), route("protected", "corp"),
              route("edge", "edge"), route("edge_optional", "edge", auth={"optional": True}),
              route("grpc", "corp", upstream="two"), route("grpc_public", upstream="two")]
    listeners = [{"name": name, "address": f"127.0.0.1:{port}", **({"underscores": "allow"} if name == "allow" else {})}
                 for name, port in ports.items()]
    with AuthWire(directory / "gateway", auth, routes, listeners=listeners,
                  identity_token={"key": str(directory / "identity.pem"), "header": "X-Identity"},
                  upstreams={"two": {"protocol": "h2", "targets": [{"address": f"127.0.0.1:{two.port}"}]}}) as made:
        made.ports, made.port, made.edge, made.two, made.signer = ports, ports["plain"], edge, two, signer
        yield made
        made.two.close()
        made.edge.close()


@pytest.fixture(autouse=True)
def whole(wire):
    for upstream in (wire.upstream, wire.edge, wire.two):
        upstream.requests.clear()
    yield
    for upstream in (wire.upstream, wire.edge, wire.two):
        upstream.check()


def authorize(message):
    """The forward provider: who says the word is Edgar; it copies nothing of what it was asked."""
    who = message.get("Authorization")
    if who == "Bearer edgar":
        return answer(b"", "200 OK", "X-User-Id: edgar", "X-User-Roles: edge", "X-Edge-Level: 7", "X-Edge-User: edgar",
                      "X-Not-Copied: x")
    return answer(b"", "401 Unauthorized")


@pytest.fixture(scope="module")
def good(key):
    return token(key, claims(ISSUER, roles=["gold", "eu"], scope="orders:read", tenant="acme", lifetime=3600))


def ways(good):
    """Kind of route → its path, the credentials, what the gateway says there. None: it refuses."""
    return {
        "public": ("/public", [], {}),
        "optional": ("/optional", [], {}),
        "protected": ("/protected", [bearer(good)], SAID),
        "bad": ("/optional", [bearer(good[:-6] + "AAAAAA")], None),
        "none": ("/protected", [], None),
        "edge": ("/edge", [bearer("edgar")], EDGE),
        "edge_optional": ("/edge_optional", [bearer("nobody")], None),
    }


def guarded_fields(fields):
    """What a lenient server would take for the gateway's word."""
    return {name.lower(): value for name, value in fields if fold(name) in FOLDED}


def judge(wire, got, said, what):
    """The upstream's view of one request that was sent with forged fields."""
    if said is None:
        assert got is None or got.status in (400, 401), (what, got)
        assert not wire.upstream.requests, (what, wire.upstream.requests)
        return
    assert got is not None and got.status == 200, (what, got)
    seen = json.loads(got.body)
    fields = [pair for pair in seen["fields"] if fold(pair[0]) in FOLDED]
    identity = [value for name, value in fields if name.lower() == "x-identity"]
    rest = [(name.lower(), value) for name, value in fields if name.lower() != "x-identity"]
    assert dict(rest) == said and len(rest) == len(said), (what, fields)
    assert len(identity) == (1 if said else 0), (what, identity)
    assert FORGED not in str(identity), what
    assert not [pair for pair in seen["trailers"] if fold(pair[0]) in FOLDED], (what, seen["trailers"])
    wire.upstream.requests.clear()


# ---- every name, spelling, kind of route, version and listener ----

@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_spellings(wire, good, version, listener, kind, name):
    path, credentials, said = ways(good)[kind]
    port, lower = wire.ports[listener], version == "h2"
    every = list(dict.fromkeys(spelling.lower() if lower else spelling for spelling in spellings(name)))
    assert len(every) >= 15
    for spelling in every:
        got = wire.ask(version, path, f"{spelling}: {FORGED}", *credentials, port=port)
        judge(wire, got, said, spelling)
    got = wire.ask(version, path, *(f"{spelling}: {FORGED}" for spelling in every), *credentials, port=port)
    judge(wire, got, said, "all at once")


def test_what_is_near_goes_on(wire, good):
    """Names that only look alike are the client's: the judge would see them."""
    near = ["X-User", "X-User-Ids", "X-User--Id", "X-UserId", "XX-User-Id", "X-User-Id2", "X%2DUser%2DId", "X-Us3r-Id",
            "User-Id", "X-User-I", "X-User-Id-", "-X-User-Id", "X-Edge", "X-Not-Copied"]
    for version in VERSIONS:
        seen = wire.let_through(wire.ask(version, "/public", *(f"{name}: {FORGED}" for name in near)))
        assert [name for name in near if seen.get(name.lower()) != [FORGED]] == []


# ---- duplicates, empty values, folded lines, and what is no field ----

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_duplicates(wire, good, version, kind):
    path, credentials, said = ways(good)[kind]
    for name in GUARDED:
        for fields in ([f"{name}: {FORGED}", f"{name}: {FORGED}"], [f"{name}: "], [f"{name}: ", f"{name}: {FORGED}"],
                       [f"{name}: {FORGED}", f"{name.replace('-', '_')}: {FORGED}"], [f"{name}: a, {FORGED}"],
 [f"{name}:{FORGED}"]):
            judge(wire, wire.ask(version, path, *fields, *credentials), said, fields)
            judge(wire, wire.ask(version, path, *credentials, *fields), said, fields)   # behind the credentials


NO_FIELDS = [   # %s: a guarded name. Refused, or harmless: never a field that names somebody
    "X-A: b\r\n %s: root-forged", "X-A: b\r\n\t%s: root-forged", "X-A: b\n%s: root-forged", "X-A: b\r%s: root-forged",
    "%s : root-forged", "%s\t: root-forged", " %s: root-forged", "%s\0: root-forged", "\0%s: root-forged", "%s\r\n: root-forged",
    "X-A: b\0\r\n%s : root-forged", "%s;: root-forged", "%s(): root-forged", '"%s": root-forged', "[%s]: root-forged",
    "%s\x80: root-forged", "\xad%s: root-forged", "%s\xa0: root-forged", "X-A: b\x0b%s: root-forged", "%s\r: root-forged",
    ": root-forged\r\n%s: root-forged\r\n", "X-A\r\n%s: root-forged", "%s", "%s root-forged", "X-A: b\x85%s: root-forged",
    "X-A: b\\r\\n%s: root-forged", "X-A: b%%0d%%0a%s: root-forged", "X-A: b%%E5%%98%%8A%%E5%%98%%8D%s: root-forged",
]


@pytest.mark.parametrize("shape", NO_FIELDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_field(wire, good, kind, shape):
    path, credentials, said = ways(good)[kind]
    for name in GUARDED[:3]:
        got = wire.ask("h1", path, shape % name, *credentials)
        if got is not None and got.status == 200:
            judge(wire, got, said, (shape, name))
        else:
            assert got is None or got.status in (400, 401), got
            assert not wire.upstream.requests
        wire.drop("h1")


H2_FIELDS = [   # pairs that no HTTP/1.1 client could send
    lambda name: (name, FORGED), lambda name: (name.lower() + " ", FORGED), lambda name: (" " + name.lower(), FORGED),
    lambda name: (name.lower() + "\0", FORGED), lambda name: (name.lower() + ":", FORGED), lambda name: (":" + name.lower(), FORGED),
    lambda name: (f"x-a: b\r\n{name.lower()}", FORGED), lambda name: ("x-a", f"b\r\n{name}: {FORGED}"),
    lambda name: ("x-a", f"b\n{name}: {FORGED}"), lambda name: ("x-a", f"b\r{name}: {FORGED}"), lambda name: ("x-a", f"b\0{name}: {FORGED}"),
    lambda name: (name.lower(), f"{FORGED}\r\n{name}: {FORGED}"), lambda name: ("", f"{name}: {FORGED}"),
    lambda name: ("\r\n" + name.lower(), FORGED), lambda name: (name.lower() + "\r\n", FORGED), lambda name: (name.lower(), f" {FORGED} "),
    lambda name: ("cookie", f"a=b\r\n{name}: {FORGED}"), lambda name: (name.lower() + "\xad", FORGED),
]


@pytest.mark.parametrize("shape", range(len(H2_FIELDS)))
@pytest.mark.parametrize("kind", KINDS)
def test_what_only_http_2_can_say(wire, good, kind, shape):
    path, credentials, said = ways(good)[kind]
    for name in GUARDED[:3]:
        got = wire.ask("h2", path, H2_FIELDS[shape](name), *credentials)
        if got is not None and got.status == 200:
            judge(wire, got, said, (shape, name))
        else:
            assert got is None or got.status in (400, 401), got
            assert not wire.upstream.requests
        wire.drop("h2")


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("pseudo", [":method", ":path", ":authority", ":scheme"])
def test_in_a_pseudo_header(wire, name, pseudo):
    values = {":method": "GET", ":path": "/public", ":authority": "test", ":scheme": "http"}
    values[pseudo] = f"{values[pseudo]} HTTP/1.1\r\n{name}: {FORGED}\r\nx:"
    client = wire.client("h2")
    try:
        stream = client.begin_request(values[":path"], values[":method"], authority=values[":authority"], scheme=values[":scheme"])
        status = stream.whole().status
    except Exception:
        status = 400
    assert status == 400 and not wire.upstream.requests
    wire.drop("h2")


# ---- named in Connection, and as what is not for upstreams ----

@pytest.mark.parametrize("kind", ["public", "protected", "edge"])
@pytest.mark.parametrize("name", GUARDED)
def test_named_in_connection(wire, good, kind, name):
    """Neither is a forged one smuggled past, nor is the gateway's own taken away."""
    path, credentials, said = ways(good)[kind]
    for spelling in (name, name.lower(), name.replace("-", "_")):
        for value in (spelling, f"keep-alive, {spelling}", f"{spelling}, close", f"{spelling},{spelling}", f", {spelling} ,",
                      f"X-Forwarded-For, {spelling}, X-Request-Id"):
            for fields in ([f"Connection: {value}"], [f"Connection: {value}", f"{spelling}: {FORGED}"],
                           [f"{spelling}: {FORGED}", "Connection: keep-alive", f"Connection: {value}"]):
                judge(wire, wire.ask("h1", path, *fields, *credentials), said, fields)
    for fields in ([f"Proxy-Connection: {name}"], [f"Keep-Alive: {name}"], [f"TE: {name}"], [f"Trailer: {name}"],
                   [f"Upgrade: {name}", "Connection: Upgrade"], [f"Via: 1.1 {name}", f"{name}: {FORGED}"],
                   [f"Vary: {name}", f"{name}: {FORGED}"], [f"Forwarded: for=x;{name}={FORGED}"]):
        got = wire.ask("h1", path, *fields, *credentials)
        judge(wire, got, said, fields)
    wire.drop("h1")


@pytest.mark.parametrize("kind", ["public", "protected", "edge"])
@pytest.mark.parametrize("name", GUARDED)
def test_connection_over_http_2(wire, good, kind, name):
    """It has no place there: the stream is refused."""
    path, credentials, _ = ways(good)[kind]
    for fields in ([f"connection: {name}"], [f"connection: {name}", f"{name.lower()}: {FORGED}"], [f"te: {name}"]):
        got = wire.ask("h2", path, *fields, *credentials)
        assert got is None or got.status == 400, got
        wire.drop("h2")
    assert not wire.upstream.requests


# ---- trailers ----

@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_trailers(wire, good, version, listener, kind, name):
    path, credentials, said = ways(good)[kind]
    for spelling in (name.lower(), *([name, name.upper()] if version == "h1" else []), *(
            name.lower().replace("-", mark) for mark in PUNCTUATION)):
        trailers = [f"{spelling}: {FORGED}", "x-checksum: 5"]
        got = wire.ask(version, path, f"Trailer: {spelling}", *credentials, method="POST", body=b"body", trailers=trailers,
                       port=wire.ports[listener])
        judge(wire, got, said, spelling)
        if said is None:
            wire.drop(version, wire.ports[listener])


# ---- addresses, cookies and paths say nothing ----

@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["public", "protected"])
def test_elsewhere(wire, good, version, kind):
    path, credentials, said = ways(good)[kind]
    for name in GUARDED:
        for target, fields in ((f"{path}?{name}={FORGED}", []), (f"{path};{name}={FORGED}", []), (path, [f"Cookie: {name}={FORGED}"]),
                               (f"{path}/%0d%0a{name}:%20{FORGED}", []), (f"{path}?%0d%0a{name}:%20{FORGED}", []),
                               (path, [f"X-A: {name}: {FORGED}"])):
            got = wire.ask(version, target, *fields, *credentials)
            if got is not None and got.status == 200:
                judge(wire, got, said, target)
            else:
                assert got is None or got.status in (400, 404), got
                assert not wire.upstream.requests


# ---- upgrades ----

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="]


@pytest.mark.parametrize("kind", ["public", "optional", "protected", "bad", "none", "edge"])
@pytest.mark.parametrize("version", VERSIONS)
def test_websocket(wire, good, version, kind):
    path, credentials, said = ways(good)[kind]
    for name, mark in itertools.product(GUARDED, "-_."):
        spelling = name.lower().replace("-", mark)
        if version == "h1":
            got = wire.ask("h1", path, *UPGRADE, f"{spelling}: {FORGED}", f"Connection: {name}", *credentials)
            judge(wire, got, said, spelling)
            continue
        client = wire.client("h2")
        stream = client.begin_request(path, "CONNECT", "sec-websocket-version: 13", f"{spelling}: {FORGED}", *credentials, end=False,
                                      protocol="websocket")
        if said is None:
            assert stream.head().status == 401
        else:
            until(lambda: wire.upstream.requests, "the request upstream")
            seen = wire.upstream.requests[-1]
            assert seen.get("Upgrade") == "websocket"
            assert {name: value for name, value in guarded_fields(seen.fields).items() if name != "x-identity"} == said
            assert FORGED not in str(seen.fields)
        stream.cancel()
        assert said is not None or not wire.upstream.requests
        wire.upstream.requests.clear()


# ---- gRPC, and upstreams that speak HTTP/2 ----

@pytest.mark.parametrize("way", ["grpc", "grpc_public", "bad"])
def test_grpc(wire, good, way):
    said = {"grpc": SAID, "grpc_public": {}, "bad": None}[way]
    path = "/grpc_public/echo.Echo/Say" if way == "grpc_public" else "/grpc/echo.Echo/Say"
    credentials = {"grpc": [bearer(good)], "grpc_public": [], "bad": [bearer(good[:-6] + "AAAAAA")]}[way]
    wire.two.program(reply=lambda request: {"body": b"\0\0\0\0\0", "fields": ["content-type: application/grpc"],
                                            "trailers": ["grpc-status: 0"], "length": False})
    message = b"\0\0\0\0\2hi"
    for name in GUARDED:
        for spelling in dict.fromkeys(each.lower() for each in spellings(name)):
            got = wire.ask("h2", path, "content-type: application/grpc", "te: trailers", f"{spelling}: {FORGED}", *credentials,
                           method="POST", body=message, trailers=[f"{spelling}: {FORGED}"], port=wire.ports["allow"])
            if said is None:
                assert got.get("grpc-status") == "16" and not wire.two.requests   # UNAUTHENTICATED
                continue
            assert dict(got.trailers)["grpc-status"] == "0"
            seen = wire.two.only()
            assert {key: value for key, value in guarded_fields(seen.fields).items() if key != "x-identity"} == said, spelling
            assert not guarded_fields(seen.trailers), spelling
            assert FORGED not in str(seen.fields), spelling
            wire.two.requests.clear()


# ---- many words on one connection do not mix ----

@pytest.mark.parametrize("version", VERSIONS)
def test_one_connection_many_callers(wire, key, good, version):
    """Pipelined, or at the same time: each request is told its own caller."""
    others = [token(key, claims(ISSUER, sub=f"user{i}", tenant=f"t{i}")) for i in range(20)]
    if version == "h1":
        client = Raw(wire.port)
        client.send(b"".join(request("/protected", "GET", bearer(each), f"X-User-Id: {FORGED}") +
                             request("/public", "GET", f"X-User-Id: {FORGED}") for each in others))
        answers = [client.response() for _ in range(2 * len(others))]
        client.close()
    else:
        client = H2Client(wire.port, checks=False)
        streams = [client.begin_request(path, "GET", *fields, f"x-user-id: {FORGED}") for each in others
                   for path, fields in (("/protected", [bearer(each)]), ("/public", []))]
        answers = [stream.whole() for stream in streams]
        client.close()
    for i, got in enumerate(answers):
        seen = guarded_fields(json.loads(got.body)["fields"])
        seen.pop("x-identity", None)
        assert seen == ({"x-user-id": f"user{i // 2}", "x-tenant": f"t{i // 2}"} if i % 2 == 0 else {})


# ---- values ----

VALUES = {   # of the claim → what arrives
    "ann": "ann", "a b": "a b", " a": "%20a", "a ": "a%20", " ": "%20", "a\tb": "a%09b", "a\r\nX-User-Roles: root": "a%0D%0AX-User-Roles: root",
    "a\nb": "a%0Ab", "a\0b": "a%00b", "\x7f": "%7F", "\x1f": "%1F", "ä": "%C3%A4", "\U0001f600": "%F0%9F%98%80", "100%": "100%25",
    "%0d%0a": "%250d%250a", "\u2028": "%E2%80%A8", "a,b": "a,b", "a;b=c": "a;b=c", '"': '"', "\\": "\\", "\x85": "%C2%85", "\ufeff": "%EF%BB%BF",
    "": None, "<script>": "<script>", "a" * 4000: "a" * 4000, "\uffff": "%EF%BF%BF", "e\u0301": "e%CC%81",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("value", VALUES)
def test_values_are_safe(wire, key, version, value):
    made = token(key, claims(ISSUER, sub=value, tenant=value))
    seen = wire.let_through(wire.ask(version, "/protected", bearer(made)))
    expected = [VALUES[value]] if VALUES[value] is not None else None
    assert seen.get("x-user-id") == expected and seen.get("x-tenant") == expected
    assert "x-user-roles" not in seen


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("claim,expected", [
    (["gold", "eu"], "gold,eu"), ("gold eu", "gold,eu"), (["gold,root"], "gold%2Croot"), ("gold,root", "gold%2Croot"),
    (["a\r\nX-User-Id: root"], "a%0D%0AX-User-Id: root"), (["ä", "b c"], "%C3%A4,b c"), ([" "], "%20"), ([], None), ("", None),
    (["a\0", "b"], "a%00,b"), (["%2C"], "%252C"), ([7], None), ({"a": "root"}, None), (7, None), (None, None), ([["root"]], None),
])
def test_lists_are_safe(wire, key, version, claim, expected):
    made = token(key, claims(ISSUER, roles=claim, scope=claim))
    seen = wire.let_through(wire.ask(version, "/protected", bearer(made)))
    expected = [expected] if expected is not None else None
    assert seen.get("x-user-roles") == expected and seen.get("x-user-scopes") == expected


@pytest.mark.parametrize("claim,expected", [
    (7, "7"), (1.5, "1.5"), (True, "true"), (["a", "b,c"], "a,b%2Cc"), ({"a": 1}, None), (None, None), ([], None), ([{"a": 1}], None)])
def test_claims_as_text(wire, key, claim, expected):
    made = token(key, {**claims(ISSUER), "tenant": claim})
    seen = wire.let_through(wire.ask("h1", "/protected", bearer(made)))
    assert seen.get("x-tenant") == ([expected] if expected is not None else None)


def test_an_identity_that_says_too_much(wire, key):
    """What would not fit into a head is refused, not cut."""
    made = token(key, claims(ISSUER, sub="\x01" * 2000, roles=["\x01" * 1000] * 2))   # each byte becomes three, and is \u0001 before
    wire.refused(wire.ask("h1", "/protected", bearer(made)), "invalid_token")
    assert not wire.upstream.requests


# ---- X-Identity ----

@pytest.mark.parametrize("version", VERSIONS)
def test_the_identity_token_can_be_verified(wire, good, version):
    seen = wire.let_through(wire.ask(version, "/protected", bearer(good), f"X-Identity: {FORGED}"))
    check = jws.JWS()
    check.allowed_algs = ["ES256"]
    check.deserialize(seen["x-identity"][0], jwk.JWK(**wire.signer.jwk()))
    told = json.loads(check.payload)
    assert told["sub"] == "ann" and told["iss"] == "sallyport" and told["exp"] > told["iat"]
    assert "x-identity" not in wire.let_through(wire.ask(version, "/public", f"X-Identity: {FORGED}"))


def test_the_identity_token_opens_no_door(wire, good):
    """What the gateway signs for services is no token that it takes."""
    seen = wire.let_through(wire.ask("h1", "/protected", bearer(good)))
    wire.refused(wire.ask("h1", "/protected", bearer(seen["x-identity"][0])), "invalid_token")


# ---- a reload ----

def test_a_name_that_becomes_guarded(wire, good):
    """From the reload on, on connections that were there before, too."""
    kept = Raw(wire.port)
    ask_kept = lambda: json.loads(kept.ask(request("/public", "GET", f"X-Later: {FORGED}")).body)["fields"]   # noqa: E731
    assert FORGED in str(ask_kept())
    config = dict(wire.gateway.config)
    wire.gateway.reload_everywhere({**config, "identity_headers": {**config["identity_headers"], "X-Later": "identity.subject"}})
    try:
        assert FORGED not in str(ask_kept())
        seen = wire.let_through(wire.ask("h1", "/protected", bearer(good)))
        assert seen["x-later"] == ["ann"]   # nor is the cached identity the old one
    finally:
        wire.gateway.reload_everywhere(config)
        kept.close()
    assert ask(wire.port, "/public", headers={"X-Later": "mine"}).status == 200
