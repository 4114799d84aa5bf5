"""Who calls, where the files and keys behind that change while requests come: consumers from a file, certificates by
their properties, large key sets, providers that both know the caller, sallyport-auth's keys on schedule.
"""
import hashlib
import http.client
import json
import pathlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

import tokens
from auth_service import AuthService, default_clients
from auth_wire import ISSUER, VERSIONS, AuthWire, Service, bearer, json_answer, jwt_provider, route
from gateway import free_port, until
from h2_wire import PATIENCE
from peers import Raw, request
from secure import Client
from test_30_jwks import Load
from tokens import claims, jwks, token

KEYS = {"keys": {"api_key": {"header": "X-API-Key"}}}
ALGORITHMS = {"RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], "P-256": ["ES256"], "P-384": ["ES384"],
              "P-521": ["ES512"], "Ed25519": ["EdDSA"]}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


def key_of(name):
    return f"X-API-Key: key of {name}"


def as_json_lines(names):
    return "".join(json.dumps({"name": name, "api_keys": [hash_of(name)], "roles": ["gold"]}) + "\n" for name in names)


def as_yaml(names):
    return "".join(f"{name}: {{ api_keys: [{{ sha256: {hash_of(name)} }}], roles: [gold] }}\n" for name in names)


def hash_of(name):
    return hashlib.sha256(f"key of {name}".encode()).hexdigest()


class Asker(Load):
    """Requests with the key of one consumer, over and over; what was not answered as this consumer's is kept."""

    def run(self, _):
        name, connection = self.tokens[0], http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.over.is_set():
            connection.request("GET", "/keys", headers={"X-API-Key": f"key of {name}"})
            got = connection.getresponse()
            body = got.read()
            next(self.count)
            if got.status != 200 or ["X-Consumer", name] not in json.loads(body)["fields"]:
                self.bad.append((got.status, body))
        connection.close()


@pytest.mark.parametrize("form", [as_json_lines, as_yaml])
def test_consumers_from_a_file_that_changes(tmp_path, form):
    """Who comes is known soon, who goes is not any more, and who stays never notices; a mistake changes nothing."""
    file = tmp_path / "consumers"

    def write(text):
        new = file.with_suffix(".new")
        new.write_text(text)
        new.rename(file)

    def status(name):
        return wire.ask("h1", "/keys", key_of(name)).status

    write(form(["ann", "old"]))
    with AuthWire(tmp_path / "gateway", KEYS, [route("keys", "keys")], consumers_file=str(file), workers=2) as wire:
        load = Asker(wire.port, ["ann"], connections=2)
        assert (status("old"), status("new")) == (200, 401)
        write(form(["ann", "new"]))
        until(lambda: (status("old"), status("new")) == (401, 200), "the change")
        write(form(["new"]) + "{ nonsense")
        wire.gateway.wait_log("changed files are not taken")
        assert status("new") == 200
        count, _ = load.stop()
        assert load.bad == [] and count > 100
    assert "key of" not in wire.gateway.log()


def test_certificates_by_their_properties(tmp_path, pki):
    issue = lambda name, **more: pki.clients.issue(name, client=True, **more)   # noqa: E731
    by_subject, by_print = issue("s.example", organisation="Example"), issue("f.example")
    nobody = issue("n.example", common_name="nobody, really")
    loaded = {each: x509.load_pem_x509_certificate(pathlib.Path(each.cert).read_bytes()) for each in (by_subject, by_print)}
    port = free_port()
    with AuthWire(
            tmp_path / "gateway", {"known": {"mtls": {}}, "any": {"mtls": {"require_consumer": False}}},
            [route("known", "known"), route("any", "any")],
            listeners=[{"name": "tls", "address": f"127.0.0.1:{port}",
                        "tls": {"certificates": [pki.ca.issue("a.example").files], "client_ca": str(pki.clients.file),
                                "client_auth": "optional"}}],
            consumers={"subject": {"certificates": [{"subject": loaded[by_subject].subject.rfc4514_string()}]},
                       "print": {"certificates": [{"fingerprint": loaded[by_print].fingerprint(hashes.SHA256()).hex(":")}]}},
    ) as wire:
        def asked(certificate, path):
            client = Client(port, pki.client_context(certificate=certificate))
            try:
                return client.ask(request(path, "GET", host="a.example"))
            finally:
                client.close()

        def told(certificate, path):
            seen = wire.let_through(asked(certificate, path))
            return seen["x-user-id"], seen.get("x-consumer")

        for path in ("/known", "/any"):
            assert told(by_subject, path) == (["subject"], ["subject"])
            assert told(by_print, path) == (["print"], ["print"])
        assert json.loads(asked(nobody, "/known").body)["code"] == "unknown_certificate"
        assert told(nobody, "/any") == (["CN=nobody\\, really"], None)


# ---- tokens ----

@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    directory = tmp_path_factory.mktemp("callers")
    keys = {kind: tokens.Key(kind, kind) for kind in ALGORITHMS}
    others = [tokens.Key("P-256", f"key-{n}") for n in range(94)]
    verifies = keys["P-256"].jwk(kid="verifies", key_ops=["verify"], use="sig", alg="ES256")
    (directory / "jwks.json").write_text(jwks(*keys.values(), verifies, *others))   # 100, as many as a set may hold
    corp = lambda **more: jwt_provider(   # noqa: E731
        directory / "jwks.json", algorithms=[each for kind in ALGORITHMS.values() for each in kind], **more)
    auth = {"plain": corp(), "deep": corp(roles_claim="realm_access.roles", scopes_claim="may.do", consumer_claim="client.id")}
    routes = [route("deep", "deep"), route("plain_first", "plain", "deep"), route("deep_first", "deep", "plain")]
    with AuthWire(directory / "gateway", auth, routes) as made:
        made.keys, made.others = keys, others
        yield made


@pytest.mark.parametrize("kind,algorithm", [(kind, each) for kind, algorithms in ALGORITHMS.items() for each in algorithms])
def test_each_algorithm_and_claims_by_dotted_paths(wire, version, kind, algorithm):
    made = token(wire.keys[kind], claims(ISSUER, aud=["stock-api", "orders-api"], realm_access={"roles": "gold eu"},
                                         may={"do": ["read", "write"]}, client={"id": "shop"}), algorithm)
    seen = wire.let_through(wire.ask(version, "/deep", bearer(made)))
    assert [seen[name] for name in ("x-user-roles", "x-user-scopes", "x-consumer")] == [["gold,eu"], ["read,write"], ["shop"]]


def test_a_set_of_a_hundred_keys(wire, version):
    for key in wire.others:
        assert wire.ask(version, "/deep", bearer(token(key, claims(ISSUER)))).status == 200
    stranger = tokens.Key("P-256", "key-94")
    wire.refused(wire.ask(version, "/deep", bearer(token(stranger, claims(ISSUER)))), "invalid_token")
    assert wire.ask(version, "/deep", bearer(token(wire.keys["P-256"], claims(ISSUER), kid="verifies"))).status == 200


def test_the_first_that_knows_the_caller_decides(wire, version):
    made = bearer(token(wire.keys["RSA"], claims(ISSUER, roles=["plain"], realm_access={"roles": ["deep"]})))
    for name in ("plain", "deep"):
        assert wire.let_through(wire.ask(version, f"/{name}_first", made))["x-user-roles"] == [name]


def test_the_keys_of_sallyport_auth_rotate(tmp_path):
    """On schedule, four times, as the gateway is asked: every token is good as long as it says."""
    client = {**default_clients()["shop"], "access": "5s"}
    with AuthService(tmp_path / "service", {"keys": {"algorithms": ["ES256"], "rotate": "2s", "overlap": "7s"},
                                            "tokens": {"access": "5s"}, "clients": {"shop": client}}) as service:
        jwt = jwt_provider(uri=service.url("/jwks.json"), issuer=service.issuer, leeway="0s",
                           jwks={"refresh": "500ms", "cooldown": "200ms"})
        with AuthWire(tmp_path / "gateway", {"corp": jwt}, [route("corp", "corp")]) as wire:
            kids = set()
            while len(kids) < 5:
                made = service.token()
                kids.add(made.split(".")[0])
                until_s = time.time() + 1
                while time.time() < until_s:
                    assert wire.ask("h1", "/corp", bearer(made)).status == 200


def test_a_stream_of_an_opaque_token_ends_at_its_exp(tmp_path):
    """And not when what the Auth Service said of it is no longer kept; one without exp goes on."""
    service = Service()
    service.program(reply=lambda message: json_answer(
        {"active": True, "sub": "ann", **({} if b"token=endless" in message.body else {"exp": exp})}))

    def events(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.ended()

    opaque = {"introspection": {"uri": service.uri(), "client_id": "gateway", "client_secret": {"env": "SECRET"},
                                "timeout": "5s", "cache": {"ttl": "500ms"}}}
    with AuthWire(tmp_path / "gateway", {"opaque": opaque}, [route("opaque", "opaque")], env={"SECRET": "s"}) as wire:
        wire.upstream.program(script=events)
        exp, streams = int(time.time()) + 5, [Raw(wire.port), Raw(wire.port)]
        for stream, name in zip(streams, ("mortal", "endless")):
            stream.send(request("/opaque", "GET", bearer(name)))
            assert stream.head().status == 200
        assert streams[0].ended()
        assert exp - 0.1 <= time.time() <= exp + PATIENCE
        time.sleep(1)
        streams[1].socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            streams[1].socket.recv(1)
        streams[0].close()
        streams[1].reset()
    service.close()
