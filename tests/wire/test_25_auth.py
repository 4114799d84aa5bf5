"""Who may call a route: providers in turn, what they must say, and what both sides are told, over each protocol."""
import base64
import hashlib
import json
import queue
import threading
import time

import pytest

import grpc_peers
import tokens
from auth_wire import ISSUER, VERSIONS, AuthWire, Service, as_json, bearer, json_answer, jwt_provider, route
from certificates import DAY
from gateway import ask, free_port, logged, until
from h2_wire import PATIENCE
from peers import Raw, Upstream, answer, request
from secure import Client
from tokens import claims, jwks, token

KEY = tokens.Key("P-256", "one")
API_KEY, SECOND_KEY = "correct horse battery staple", "trombone"
LEEWAY_S = 6
NAMES = ["x-user-id", "x-user-roles", "x-user-scopes", "x-consumer", "x-tenant"]


def good(**members):
    return token(KEY, claims(ISSUER, **members))


def identity(seen):
    """What the upstream was told of the caller, by the short names above; those that are there."""
    return {name: seen[name] for name in NAMES if name in seen}


class Stage(AuthWire):
    def __init__(self, directory, pki):
        self.service = Service()   # introspection and forward
        self.other = Upstream()
        self.other.program(reply=lambda _: answer(b"other"))
        self.grpc = grpc_peers.Service(free_port())
        directory.mkdir()
        (directory / "jwks.json").write_text(jwks(KEY))
        (directory / "identity.pem").write_bytes(tokens.Key("P-256").pem())
        self.tls_port, plain = free_port(), free_port()
        self.log = directory / "access.log"
        server = pki.ca.issue("a.example")
        jwt = lambda **more: jwt_provider(directory / "jwks.json", **more)   # noqa: E731
        auth = {
            "corp": jwt(revocation=True),
            "hidden": jwt(forward_token=False),
            "lenient": jwt(leeway=f"{LEEWAY_S}s"),
            "other": jwt(issuer="https://other.example"),
            "keys": {"api_key": {"header": "X-API-Key", "query": "api_key"}},
            "certificates": {"mtls": {}},
            "opaque": {"introspection": {"uri": self.service.uri("/introspect"), "client_id": "gateway",
                                         "client_secret": {"env": "GATEWAY_SECRET"}, "timeout": "20s"}},
            "edge": {"forward": {"uri": self.service.uri("/authorize"), "timeout": "20s"}},
            "slow": {"forward": {"uri": self.service.uri("/authorize"), "timeout": "20s"}},
        }
        need = lambda **more: {"require": more}   # noqa: E731
        routes = [
            route("public"), route("corp", "corp"), route("lenient", "lenient"), route("hidden", "hidden"), route("keys", "keys"),
            route("certificates", "certificates"), route("opaque", "opaque"), route("edge", "edge"),
            route("optional", "corp", auth={"optional": True}),
            route("either", "corp", "keys"), route("order", "other", "opaque", "keys"), route("hide_both", "hidden", "keys"),
            route("all", "corp", auth=need(scopes=["read", "write"])),
            route("any", "corp", auth=need(scopes=["read", "write"], scopes_match="any")),
            route("roles", "corp", "keys", auth=need(roles=["gold", "silver"])),
            route("hurry", "slow", timeout="200ms"), route("pair", "corp", upstream="pair", auth={"optional": True}),
            route("limited", "keys", rate_limits=["by_key"]),
            route("swapped", "keys", headers={"request": {"set": {"X-API-Key": "the service's own"}}}),
            route("browser", "corp", cors={"origins": ["https://app.example.com"], "headers": ["Authorization"]}),
            route("said", "corp", upstream=None, respond={"status": 200, "body": "said"}),
            route("grpc", "corp", path="/demo.Echo", upstream="grpc", auth=need(scopes=["read"])),
            route("grpc-edge", "edge", path="/edge", upstream="grpc", rewrite={"prefix": "/"}),
        ]
        super().__init__(
            directory / "gateway", auth, [{k: v for k, v in each.items() if v is not None} for each in routes],
            listeners=[{"name": "plain", "address": f"127.0.0.1:{plain}"},
                       {"name": "tls", "address": f"127.0.0.1:{self.tls_port}",
                        "tls": {"certificates": [server.files], "client_ca": str(pki.clients.file),
                                "client_auth": "optional"}}],
            upstreams={"pair": {"targets": [{"address": f"127.0.0.1:{self.other.port}"}], "load_balancer": "consistent_hash",
                                "hash_on": "identity"},
                       "grpc": {"protocol": "h2", "targets": [{"address": f"127.0.0.1:{self.grpc.port}"}]}},
            env={"GATEWAY_SECRET": "secret"},
            rate_limits={"by_key": {"key": "header.X-API-Key", "default": {"rate": "1/h", "burst": 1}}},
            consumers={"acme": {"api_keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()}
                                             for key in (API_KEY, SECOND_KEY)], "roles": ["gold"]},
                       "orders": {"certificates": [{"san": "DNS=orders.example"}]}},
            identity_token={"key": str(directory / "identity.pem"), "header": "X-Identity"},
            telemetry={"access_log": {"output": str(self.log)}})
        self.port = plain
        self.gateway.config["upstreams"]["pair"]["targets"].append({"address": f"127.0.0.1:{self.upstream.port}"})
        self.gateway.write(self.gateway.config)

    def record(self, path):
        return logged(self.log, f'"{path}"')[-1]

    def revoke(self, **entry):
        got = ask(self.gateway.admin_port, "/api/v1/revocations", "POST", json.dumps(entry))
        assert got.status == 201, got

    def __exit__(self, *why):
        try:
            super().__exit__(*why)
        finally:
            self.service.close()
            self.other.close()
            self.grpc.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory, pki):
    with Stage(tmp_path_factory.mktemp("auth") / "stage", pki) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(stage):
    stage.upstream.requests.clear()
    stage.service.program(reply=lambda _: answer(b"", "401 Unauthorized"))
    yield
    stage.upstream.check()


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


# ---- tokens ----

def test_a_good_token(stage, version):
    sent = good(roles=["gold", "staff"], scope="read write", tenant="blue")
    seen = stage.let_through(stage.ask(version, "/corp", bearer(sent)))
    assert identity(seen) == {"x-user-id": ["ann"], "x-user-roles": ["gold,staff"], "x-user-scopes": ["read,write"],
                              "x-tenant": ["blue"]}
    assert seen["authorization"] == [f"Bearer {sent}"]


def test_identity_token(stage, version):
    signed, = stage.let_through(stage.ask(version, "/corp", bearer(good()), "X-Identity: forged"))["x-identity"]
    payload = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
    assert payload["sub"] == "ann" and payload["exp"] > time.time()
    assert "x-identity" not in stage.let_through(stage.ask(version, "/public", "X-Identity: forged"))


def test_a_token_that_goes_no_further(stage, version):
    assert "authorization" not in stage.let_through(stage.ask(version, "/hidden", bearer(good())))


def test_a_field_that_connection_names_is_added_all_the_same(stage):
    seen = stage.let_through(stage.ask("h1", "/corp", bearer(good()), "Connection: X-User-Id"))
    assert seen["x-user-id"] == ["ann"]


@pytest.mark.parametrize("fields,code", [
    ([], "no_credentials"), (["Authorization: Basic YTpi"], "no_credentials"),
    ([bearer("a.b.c")], "invalid_token")])
def test_refused(stage, version, fields, code):
    got = stage.ask(version, "/corp", *fields)
    stage.refused(got, code)
    assert got.get("X-Request-Id") and not stage.upstream.requests


def test_expired(stage, version):
    stage.refused(stage.ask(version, "/corp", bearer(good(lifetime=-60))), "expired_token")


def test_the_gateways_own_answers_are_guarded_too(stage, version):
    stage.refused(stage.ask(version, "/said"), "no_credentials")
    assert stage.ask(version, "/said", bearer(good())).body == b"said"


# ---- several providers ----

def test_either(stage, version):
    assert stage.let_through(stage.ask(version, "/either", bearer(good())))["x-user-id"] == ["ann"]
    seen = stage.let_through(stage.ask(version, "/either", f"X-API-Key: {API_KEY}"))
    assert identity(seen)["x-consumer"] == ["acme"] and identity(seen)["x-user-roles"] == ["gold"]
    # The first denial is told, and every scheme once.
    got = stage.ask(version, "/either", bearer("a.b.c"), "X-API-Key: wrong")
    assert json.loads(got.body)["code"] == "invalid_token"
    assert len(got.all("WWW-Authenticate")) >= 1 and 'error="invalid_token"' in got.all("WWW-Authenticate")[0]
    # Good credentials of one provider are not spoilt by bad ones of another.
    assert stage.ask(version, "/either", bearer("a.b.c"), f"X-API-Key: {API_KEY}").status == 200


def test_the_credentials_of_all_providers_are_concealed(stage, version):
    seen = stage.let_through(stage.ask(version, "/hide_both", bearer(good()), f"X-API-Key: {API_KEY}"))
    assert "authorization" not in seen and "x-api-key" not in seen and seen["x-user-id"] == ["ann"]


def test_a_later_provider_is_asked_after_one_that_waited(stage, version):
    stage.service.program(reply=lambda _: json_answer({"active": False}))
    got = stage.ask(version, "/order", bearer(good()))
    assert stage.refused(got, "invalid_token", challenge=False)["detail"] == "the token is of another issuer"   # the first
    assert stage.service.asked == 1
    assert stage.ask(version, "/order", bearer(good()), f"X-API-Key: {API_KEY}").status == 200
    stage.service.program(reply=lambda _: json_answer({"active": True, "sub": "eve", "scope": "read"}))
    seen = stage.let_through(stage.ask(version, "/order", bearer(good(jti="x"))))
    assert seen["x-user-id"] == ["eve"]


def test_who_cannot_say_might_have_allowed(stage, version):
    stage.service.program(reply=lambda _: answer(b"", "500 Internal Server Error"))
    stage.refused(stage.ask(version, "/order", bearer(good(jti="y"))), "auth_unavailable", 503)
    assert stage.ask(version, "/order", f"X-API-Key: {API_KEY}").status == 200


def test_optional(stage, version):
    assert identity(stage.let_through(stage.ask(version, "/optional", "X-User-Id: forged"))) == {}
    assert stage.let_through(stage.ask(version, "/optional", bearer(good())))["x-user-id"] == ["ann"]
    stage.refused(stage.ask(version, "/optional", bearer("a.b.c")), "invalid_token")


# ---- require ----

@pytest.mark.parametrize("path,members,missing", [
    ("/all", {"scope": "read write more"}, None),
    ("/all", {"scope": "read"}, "the scope write is missing"),
    ("/all", {}, "the scope read is missing"),
    ("/any", {"scope": "write"}, None),
    ("/any", {"scope": "writer"}, "one of the scopes read, write is needed")])
def test_scopes(stage, version, path, members, missing):
    got = stage.ask(version, path, bearer(good(**members)))
    if missing is None:
        assert got.status == 200
        return
    assert stage.refused(got, "insufficient_scope", 403)["detail"] == missing
    assert got.get("WWW-Authenticate") == 'Bearer error="insufficient_scope", scope="read write"'


def test_roles(stage, version):
    assert stage.ask(version, "/roles", bearer(good(roles=["silver"]))).status == 200
    assert stage.ask(version, "/roles", f"X-API-Key: {API_KEY}").status == 200
    got = stage.ask(version, "/roles", bearer(good(roles=["golden"])))
    assert stage.refused(got, "insufficient_role", 403)["detail"] == "one of the roles gold, silver is needed"
    assert got.get("WWW-Authenticate") is None


# ---- API keys, certificates ----

def test_api_keys(stage, version):
    seen = stage.let_through(stage.ask(version, "/keys", f"X-API-Key: {API_KEY}"))
    assert identity(seen)["x-consumer"] == ["acme"] and "x-api-key" not in seen
    got = stage.ask(version, "/keys?a=b&api_key=correct%20horse%20battery%20staple&c=d")
    stage.let_through(got)
    assert json.loads(got.body)["target"] == "/keys?a=b&c=d"
    assert json.loads(stage.ask(version, "/keys", "X-API-Key: wrong").body)["code"] == "invalid_key"
    stage.refused(stage.ask(version, "/keys"), "no_credentials", challenge=False)


def test_limits_go_by_keys_that_services_do_not_see(stage):
    for key, status in ((API_KEY, 200), (API_KEY, 429), (SECOND_KEY, 200), (SECOND_KEY, 429)):
        assert stage.ask("h1", "/limited", f"X-API-Key: {key}").status == status
    assert all("x-api-key" not in seen.names for seen in stage.upstream.requests)


def test_a_key_for_the_service(stage, version):
    assert stage.let_through(stage.ask(version, "/swapped", f"X-API-Key: {API_KEY}"))["x-api-key"] == ["the service's own"]


def test_a_caller_stays_with_an_endpoint(stage, version):
    def place(*fields):
        return stage.ask(version, "/pair", *fields).body == b"other"

    tokens_of = {name: good(sub=name) for name in map(str, range(16))}
    places = {name: place(bearer(made)) for name, made in tokens_of.items()}
    assert set(places.values()) == {True, False}
    assert {name: place(bearer(good(sub=name, jti="another"))) for name in places} == places
    assert len({place() for _ in range(8)}) == 1   # nobody: by address


def test_certificates(stage, pki):
    def over_tls(certificate):
        client = Client(stage.tls_port, pki.client_context(certificate=certificate))
        try:
            return client.ask(request("/certificates", "GET", host="a.example"))
        finally:
            client.close()

    mine = pki.clients.issue("orders.example", client=True, ends=DAY)
    seen = stage.let_through(over_tls(mine))
    assert identity(seen)["x-consumer"] == ["orders"]
    for certificate, code in ((pki.clients.issue("others.example", client=True), "unknown_certificate"), (None, "no_credentials")):
        got = over_tls(certificate)
        assert (got.status, json.loads(got.body)["code"]) == (401, code)
        assert got.all("WWW-Authenticate") == ['ClientCertificate realm="sallyport"']


# ---- Auth Services ----

def test_forward(stage, version):
    stage.service.program(reply=lambda _: answer(b"", "200 OK", "X-User-Id: eve", "X-User-Roles: staff"))
    seen = stage.let_through(stage.ask(version, "/edge", "Cookie: a=b", "X-User-Id: forged"))
    assert seen["x-user-id"] == ["eve"] and stage.service.requests[-1].get("Cookie") == "a=b"
    stage.service.program(reply=lambda _: answer(b"", "403 Forbidden"))
    stage.refused(stage.ask(version, "/edge"), "denied_by_auth_service", 403)
    stage.service.program(reply=lambda _: answer(b"", "401 Unauthorized", 'WWW-Authenticate: Digest realm="x"'))
    got = stage.ask(version, "/edge")
    assert json.loads(got.body)["code"] == "no_credentials" and got.get("WWW-Authenticate") == 'Digest realm="x"'


def test_the_routes_timeout_ends_the_wait(stage, version):
    stage.service.program(script=lambda peer: peer.more() and peer.ended())
    got, seconds = stage.timed(version, "/hurry")
    assert got.status == 504 and json.loads(got.body)["code"] == "deadline_exceeded" and seconds < 5
    stage.service.program()   # what hangs is let go


def test_a_client_that_does_not_wait(stage):
    stage.service.program(script=lambda peer: peer.more() and peer.ended())
    clients = lambda: sum(worker["client_connections"] for worker in stage.gateway.workers_info())   # noqa: E731
    before, client = clients(), Raw(stage.port)
    client.send(request("/edge"))
    until(lambda: json.loads(ask(stage.gateway.admin_port, "/api/v1/exchanges").body)["exchanges"], "the exchange")
    client.reset()
    until(lambda: clients() <= before, "the client's end")
    stage.service.program()   # the question outlives who asked
    until(stage.at_rest, "rest")


# ---- gRPC ----

@pytest.fixture
def grpc_client(stage):
    made = []

    def new(*, token=None, **more):
        made.append(grpc_peers.Client(stage.port, **more))
        return made[-1], [("authorization", f"Bearer {token}")] if token else []

    yield new
    for client in made:
        client.close()


def test_grpc(stage, grpc_client):
    client, metadata = grpc_client(token=good(scope="read"))
    assert client.unary("Unary", b"hello", metadata=metadata)[0] == b"hello"
    assert stage.grpc.calls[-1][1]["x-user-id"] == "ann"
    status, words = client.fails(lambda: client.unary("Unary"))
    assert (status, words) == ("UNAUTHENTICATED", "this needs credentials")
    client, metadata = grpc_client(token=good(scope="write"))
    assert client.fails(lambda: client.unary("Unary", metadata=metadata)) == ("PERMISSION_DENIED", "the scope read is missing")
    stage.service.program(reply=lambda _: answer(b"", "500 Internal Server Error"))
    assert client.fails(lambda: client.unary("/edge/demo.Echo/Unary"))[0] == "UNAVAILABLE"


@pytest.mark.parametrize("name", ["Chat", "Collect"])   # whose answer has begun; whose will only at the end
def test_a_grpc_stream_ends_with_its_token(stage, grpc_client, name):
    client, metadata = grpc_client(token=good(scope="read", jti=name))
    said, more = queue.Queue(), threading.Event()

    def messages():
        yield b"hello"
        more.wait(grpc_peers.WAIT)

    def talk():
        call = (client.chat if name == "Chat" else client.collect)(messages(), metadata=metadata)
        for reply in call if name == "Chat" else [call]:
            said.put(reply)

    ended = queue.Queue()
    thread = threading.Thread(target=lambda: ended.put(client.fails(talk)))
    thread.start()
    if name == "Chat":
        assert said.get(timeout=grpc_peers.WAIT) == b"you said hello"
    until(lambda: stage.grpc.count_of(name), "the call")
    stage.revoke(iss=ISSUER, jti=name)
    assert ended.get(timeout=grpc_peers.WAIT) == ("UNAUTHENTICATED", "the token has been revoked")
    more.set()
    thread.join()
    record = stage.record(f"/demo.Echo/{name}")
    assert (record["code"], record["status"], record["subject"]) == ("revoked_token", 200, "ann")


@pytest.fixture
def scripted(stage):
    """The upstream, to be programmed."""
    yield stage.upstream
    stage.upstream.program(reply=as_json)


def test_a_stream_that_begins_within_the_leeway(stage, scripted):
    """The leeway is for clocks that differ: it goes on until the token would not be taken any more."""
    def events(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.ended()

    made = claims(ISSUER, lifetime=-1)
    client = Raw(stage.port)
    scripted.program(script=events)
    client.send(request("/lenient/events", "GET", bearer(token(KEY, made))))
    assert client.head().status == 200
    assert client.ended()
    assert made["exp"] + LEEWAY_S - 0.1 <= time.time() <= made["exp"] + LEEWAY_S + PATIENCE
    assert stage.record("/lenient/events")["code"] == "expired_token"


# ---- browsers ----

def test_preflights_need_no_credentials(stage, version):
    origin = "Origin: https://app.example.com"
    got = stage.ask(version, "/browser", origin, "Access-Control-Request-Method: GET",
                    "Access-Control-Request-Headers: authorization", method="OPTIONS")
    assert got.status == 204 and got.get("Access-Control-Allow-Headers") == "Authorization"
    got = stage.ask(version, "/browser", origin)
    stage.refused(got, "no_credentials")
    assert got.get("Access-Control-Allow-Origin") == "https://app.example.com"


# ---- records ----

def test_the_access_log_knows_who(stage, version):
    stage.ask(version, f"/corp/{version}", bearer(good(sub="log")))
    record = stage.record(f"/corp/{version}")
    assert (record["subject"], record["code"], record["status"]) == ("log", "ok", 200)
    stage.ask(version, f"/keys/{version}", f"X-API-Key: {API_KEY}")
    assert stage.record(f"/keys/{version}")["consumer"] == "acme"
    stage.ask(version, f"/all/{version}", bearer(good(sub="few")))   # who was refused is known too
    record = stage.record(f"/all/{version}")
    assert (record["subject"], record["code"]) == ("few", "insufficient_scope")
    assert good()[:20] not in stage.log.read_text() and API_KEY not in stage.log.read_text()
