"""The same with two Auth Services: sallyport-auth, and the npm oidc-provider of other people. A client gets a token there,
and calls a service behind the gateway; the service is told who calls.
"""
import json

import pytest

import auth_service
import oidc_provider
from auth_wire import AuthWire, bearer, route
from gateway import ask, until

ALGORITHMS = ["ES256", "RS256", "EdDSA"]
SECRET = oidc_provider.SECRET
assert SECRET == auth_service.SECRET


class Ours(auth_service.AuthService):
    MAY_BE_KEPT = True
    jwks_path, introspection_path = "/jwks.json", "/introspect"
    CLIENTS = {"ES256": "shop", "RS256": "shop_rsa", "EdDSA": "shop_eddsa", None: "shop_opaque"}

    def __init__(self, directory):
        shop = {"secret_hash": auth_service.cheap_hash_of(SECRET), "grants": ["client_credentials"], "roles": ["gold", "eu"],
                "scopes": ["orders:read", "orders:write"], "audiences": ["orders-api"], "claims": {"tenant": "acme"}}
        super().__init__(directory, {"clients": {
            "shop": shop, "shop_rsa": {**shop, "algorithm": "RS256"}, "shop_eddsa": {**shop, "algorithm": "EdDSA"},
            "shop_opaque": {**shop, "token_format": "opaque"}, "gateway": {"secret_hash": auth_service.cheap_hash_of(SECRET)}}})

    def token(self, algorithm=None, scope="orders:read orders:write"):
        return super().token(self.CLIENTS[algorithm], scope=scope)

    def subject(self, algorithm):
        return self.CLIENTS[algorithm]

    def revoke(self, token, algorithm=None):
        return super().revoke(token, self.CLIENTS[algorithm])


class Theirs(oidc_provider.OidcProvider):
    MAY_BE_KEPT = False   # no-store, with every answer
    def __init__(self, directory):
        super().__init__()

    def subject(self, algorithm):
        return "shop"


def introspection(service, **cache):
    return {"introspection": {"uri": service.url(service.introspection_path), "client_id": "gateway",
                              "client_secret": {"env": "GATEWAY_SECRET"}, "timeout": "5s", "cache": cache}}


@pytest.fixture(scope="module", params=[Ours, Theirs], ids=["sallyport-auth", "oidc-provider"])
def wire(request, tmp_path_factory):
    if request.param is Theirs and (reason := oidc_provider.why_not()):
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("services")
    with request.param(directory / "service") as service:
        auth = {
            "corp": {"jwt": {"issuer": service.issuer, "audiences": ["orders-api"], "algorithms": ALGORITHMS,
                             "jwks": {"uri": service.url(service.jwks_path)}}},
            "elsewhere": {"jwt": {"issuer": service.issuer, "audiences": ["stock-api"], "algorithms": ALGORITHMS,
                                  "jwks": {"uri": service.url(service.jwks_path)}}},
            "opaque": introspection(service, ttl="300ms", negative_ttl="300ms"),
            "kept": introspection(service, ttl="60s", ignore_cache_control=True),
            "as_told": introspection(service, ttl="60s")}
        routes = [route("corp", "corp"), route("elsewhere", "elsewhere"), route("opaque", "opaque"),
                  route("kept", "kept"), route("as_told", "as_told"),
                  route("either", "corp", "opaque"),
                  route("write", "corp", auth={"require": {"scopes": ["orders:write"], "roles": ["gold"]}})]
        with AuthWire(directory / "gateway", auth, routes, env={"GATEWAY_SECRET": SECRET}) as made:
            made.service = service
            yield made


def metadata(service):
    return json.loads(ask(service.port, "/.well-known/openid-configuration").body)


def test_metadata_names_the_same_places(wire):
    """What the gateway is configured with is what the service publishes."""
    published = metadata(wire.service)
    assert published["issuer"] == wire.service.issuer
    assert published["jwks_uri"] == wire.service.url(wire.service.jwks_path)
    assert published["introspection_endpoint"] == wire.service.url(wire.service.introspection_path)


@pytest.mark.parametrize("version", ["h1", "h2"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_and_a_call(wire, version, algorithm):
    made = wire.service.token(algorithm)
    seen = wire.let_through(wire.ask(version, "/corp", bearer(made), "X-User-Id: root"))
    assert {name: seen[name] for name in ("x-user-id", "x-user-scopes", "authorization")} == {
        "x-user-id": [wire.service.subject(algorithm)], "x-user-scopes": ["orders:read,orders:write"],
        "authorization": [f"Bearer {made}"]}
    assert (seen["x-user-roles"], seen["x-tenant"]) == (["gold,eu"], ["acme"])
    wire.refused(wire.ask(version, "/corp", bearer(made[:-8] + "AAAAAAAA")), "invalid_token")
    wire.refused(wire.ask(version, "/elsewhere", bearer(made)), "invalid_token")   # another audience
    wire.refused(wire.ask(version, "/corp"), "no_credentials")


def test_scopes(wire):
    wire.let_through(wire.ask("h1", "/write", bearer(wire.service.token("ES256"))))
    got = wire.ask("h1", "/write", bearer(wire.service.token("ES256", scope="orders:read")))
    wire.refused(got, "insufficient_scope", 403)


def test_introspection(wire):
    made = wire.service.token()
    seen = wire.let_through(wire.ask("h1", "/opaque", bearer(made)))
    assert seen["x-user-id"] == [wire.service.subject(None)] and seen["x-user-scopes"] == ["orders:read,orders:write"]
    wire.refused(wire.ask("h1", "/opaque", bearer("x" * 43)), "invalid_token")
    wire.refused(wire.ask("h1", "/corp", bearer(made)), "invalid_token")


def test_either_kind(wire):
    """A route that takes both: each provider is asked in turn."""
    for made in (wire.service.token("ES256"), wire.service.token()):
        wire.let_through(wire.ask("h1", "/either", bearer(made)))


def test_revocation_shows_in_introspection(wire):
    """RFC 7009: once the gateway's answer has run out, it hears of it."""
    made, other = wire.service.token(), wire.service.token()
    wire.let_through(wire.ask("h1", "/opaque", bearer(made)))
    assert wire.service.revoke(made).status == 200
    got = until(lambda: (got := wire.ask("h1", "/opaque", bearer(made))).status != 200 and got, "the revocation", 10)
    wire.refused(got, "invalid_token")
    wire.let_through(wire.ask("h1", "/opaque", bearer(other)))


def test_what_introspection_says_is_kept(wire):
    """As far as the service allows it, or regardless of that."""
    made = wire.service.token()
    for path, is_kept in (("kept", True), ("as_told", wire.service.MAY_BE_KEPT)):
        for _ in range(3):
            wire.let_through(wire.ask("h1", f"/{path}", bearer(made)))
        hits = wire.metrics().get('sallyport_auth_cache_total{provider="%s",result="hit"}' % path, 0)
        assert hits == (2 if is_kept else 0), path
