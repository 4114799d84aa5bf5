"""Rate limits by who calls: API keys and consumers, tokens and their claims, tiers by role, over each protocol."""
import hashlib
import json

import pytest

import tokens
from auth_wire import ISSUER, VERSIONS, AuthWire, Service, bearer, json_answer, jwt_provider, route
from gateway import ask, until
from tokens import claims, jwks, token

KEY = tokens.Key("P-256", "one")
SLOW = "1/d"
TIERS = {"gold": {"rate": SLOW, "burst": 5}, "silver": {"rate": SLOW, "burst": 3}}
DEFAULT = {"rate": SLOW, "burst": 1}
LIMITS = {
    "by-role": {"key": "identity", "tier_by": "identity.roles", "tiers": TIERS, "default": DEFAULT},
    "by-plan": {"key": ["jwt.tenant", "route"], "tier_by": "jwt.account.plan", "tiers": TIERS, "default": DEFAULT},
    "by-consumer": {"key": "identity", "tier_by": "identity.consumer", "tiers": {"acme": {"rate": SLOW, "burst": 4}},
                    "default": DEFAULT},
}
API_KEYS = {"acme": ["acme-one", "acme-two"], "umbrella": ["umbrella-one"]}
ROLES = {"acme": ["gold"], "umbrella": ["reader"]}


def by(subject, **members):
    return bearer(token(KEY, claims(ISSUER, sub=subject, **members)))


@pytest.fixture
def wire(tmp_path):
    (tmp_path / "jwks.json").write_text(jwks(KEY))
    auth = {"corp": jwt_provider(tmp_path / "jwks.json"), "keys": {"api_key": {"header": "X-API-Key"}}}
    limited = lambda name, *providers, limit="by-role", **more: route(name, *providers, rate_limits=[limit], **more)   # noqa: E731
    consumers = {name: {"api_keys": [{"sha256": hashlib.sha256(key.encode()).hexdigest()} for key in keys],
                        "roles": ROLES[name]} for name, keys in API_KEYS.items()}
    routes = [limited("any", "corp", "keys"), limited("open", "corp", auth={"optional": True}),
              limited("plan", "corp", limit="by-plan"), limited("plan2", "corp", limit="by-plan"),
              limited("named", "keys", limit="by-consumer")]
    with AuthWire(tmp_path / "gateway", auth, routes, consumers=consumers, rate_limits=LIMITS, workers=2) as made:
        yield made


def admitted(wire, path, *fields, version="h1", most=8):
    """How many of so many requests."""
    got = [wire.ask(version, path, *fields) for _ in range(most)]
    assert {answer.status for answer in got} <= {200, 429}
    for answer in got:
        if answer.status == 429:
            wire.refused(answer, "rate_limited", 429)
    return sum(answer.status == 200 for answer in got)


@pytest.mark.parametrize("version", VERSIONS)
def test_roles_of_a_token_choose_the_tier(wire, version):
    for subject, roles, count in (("ann", ["reader", "gold"], 5), ("bob", "silver gold", 5), ("cid", ["silver"], 3),
                                  ("dan", ["Gold", "golden"], 1), ("eve", [], 1)):
        assert admitted(wire, "/any", by(subject, roles=roles), version=version) == count, subject


def test_every_token_of_a_subject_is_one_caller(wire):
    assert admitted(wire, "/any", by("ann", roles=["silver"], jti="1"), most=2) == 2
    assert admitted(wire, "/any", by("ann", roles=["silver"], jti="2")) == 1
    assert admitted(wire, "/any", by("bob", roles=["silver"])) == 3


def test_a_tier_is_no_new_bucket(wire):
    assert admitted(wire, "/any", by("ann", roles=["silver"])) == 3
    assert admitted(wire, "/any", by("ann", roles=["gold"])) == 2   # three days of five are missing
    assert admitted(wire, "/any", by("ann")) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_consumers(wire, version):
    assert admitted(wire, "/any", "X-API-Key: acme-one", version=version, most=3) == 3
    assert admitted(wire, "/any", "X-API-Key: acme-two", version=version) == 2   # the same consumer
    assert admitted(wire, "/any", "X-API-Key: umbrella-one", version=version) == 1
    assert admitted(wire, "/named", "X-API-Key: acme-two", version=version) == 4
    assert admitted(wire, "/named", "X-API-Key: umbrella-one", version=version) == 1


def test_a_consumer_is_not_the_subject_of_that_name(wire):
    assert admitted(wire, "/any", "X-API-Key: acme-one") == 5
    assert admitted(wire, "/any", by("acme", roles=["gold"])) == 5


def test_the_anonymous_are_counted_by_address(wire):
    assert admitted(wire, "/open") == 1
    assert admitted(wire, "/open", by("ann", roles=["gold"])) == 5
    assert admitted(wire, "/open") == 0


def test_claims(wire):
    plan = lambda tenant, name: by("ann", tenant=tenant, account={"plan": name})   # noqa: E731
    assert admitted(wire, "/plan", plan("acme", "gold"), most=3) == 3
    assert admitted(wire, "/plan", plan("acme", "gold")) == 2
    assert admitted(wire, "/plan2", plan("acme", ["trial", "silver"])) == 3   # each route has its own
    assert admitted(wire, "/plan", plan("umbrella", "bronze")) == 1
    assert admitted(wire, "/plan", by("ann", account={"plan": "gold"})) == 5   # no tenant: by address
    assert admitted(wire, "/plan", by("bob")) == 0


def test_bad_credentials_cost_nothing(wire):
    for _ in range(5):
        got = wire.ask("h1", "/any", "X-API-Key: nobody")
        assert got.status == 401 and not got.all("RateLimit")
    assert wire.ask("h1", "/any").status == 401
    metrics = wire.metrics()
    assert metrics['sallyport_rate_limit_decisions_total{limit="by-role",decision="allow"}'] == 0
    assert admitted(wire, "/any", "X-API-Key: acme-one") == 5


def test_a_limit_before_authentication_spares_the_auth_service(tmp_path):
    """Each credential is another one, so no cache helps; what is refused by address was never asked about."""
    auth_service = Service()
    auth_service.program(reply=lambda request: json_answer({"active": False}))
    auth = {"opaque": {"introspection": {"uri": auth_service.uri("/introspect"), "client_id": "gateway",
                                         "client_secret": {"env": "GATEWAY_SECRET"}, "timeout": "5s"}}}
    limits = {"early": {"key": "client_ip", "before_auth": True, "default": {"rate": SLOW, "burst": 6}},
              "late": {"key": "identity", "default": {"rate": SLOW, "burst": 2}}}
    routes = [route("guarded", "opaque", rate_limits=["late", "early"])]
    with AuthWire(tmp_path, auth, routes, env={"GATEWAY_SECRET": "hush"}, rate_limits=limits) as wire:
        for n in range(4):
            got = wire.ask("h1", "/guarded", bearer(f"bad-{n}"))
            wire.refused(got, "invalid_token")
            assert got.all("RateLimit")[0].startswith(f'"early";r={5 - n};')
        auth_service.program(reply=lambda request: json_answer({"active": True, "sub": "ann"}))
        got = wire.ask("h1", "/guarded", bearer("good"))
        assert got.status == 200
        assert [part.split(";")[:2] for part in got.all("RateLimit")[0].split(", ")] == [['"early"', "r=1"], ['"late"', "r=1"]]
        assert wire.ask("h1", "/guarded", bearer("good")).status == 200
        asked = auth_service.asked
        for n in range(5):
            wire.refused(wire.ask("h1", "/guarded", bearer(f"worse-{n}")), "rate_limited", 429)
        assert auth_service.asked == asked


def test_the_admin_api_finds_them(wire):
    admitted(wire, "/any", "X-API-Key: acme-one", most=2)
    admitted(wire, "/any", by("ann", roles=["gold"]), most=3)

    def gold(query):
        shown = json.loads(ask(wire.gateway.admin_port, f"/api/v1/limits/by-role?{query}").body)
        return shown["known"], shown["tiers"][0]["remaining"]
    assert gold("key=consumer:acme") == (True, 3)
    assert gold(f"key=subject:ann&issuer={ISSUER}") == (True, 2)
    assert gold("key=subject:ann") == (False, 5)
    assert ask(wire.gateway.admin_port, "/api/v1/limits/by-role?key=consumer%3Aacme", "DELETE").status == 200
    assert admitted(wire, "/any", "X-API-Key: acme-two") == 5


def test_a_reload_keeps_who_has_had_what(wire):
    assert admitted(wire, "/any", "X-API-Key: acme-one", most=2) == 2
    config = dict(wire.gateway.config)
    config["consumers"] = {**config["consumers"], "third": {"roles": ["silver"]}}
    wire.gateway.reload_everywhere(config)
    until(lambda: wire.gateway.ready() == 200, "ready")
    assert admitted(wire, "/any", "X-API-Key: acme-one") == 3
