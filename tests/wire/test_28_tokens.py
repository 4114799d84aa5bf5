"""Hostile tokens over HTTP/1.1 and HTTP/2: each is refused with 401, and nothing reaches the upstream. What is good is
let through by the same gateway, so that the refusals mean something. The tables are in hostile_tokens.py.
"""
import json
import re

import pytest
from jwcrypto import jwk, jws

import tokens
from auth_wire import ISSUER, VERSIONS, AuthWire, bearer, jwt_provider, route
from gateway import until
from hostile_tokens import (GOOD, HOSTILE, IGNORED, PUBLIC, SECRET, USED, changed, good, headed, hmac_with, key)
from tokens import b64, claims, jwks, token, with_trailing_bits


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokens")
    sets = {"all": jwks(*map(key, USED), key("pss").jwk(alg="PS256"), *(make() for make in IGNORED.values())),
            "one": jwks(key("rsa")), "nameless": jwks(*(key(f"nameless{i}") for i in range(6))),
            "alone": json.dumps(key("p256").jwk())}
    files = {name: directory / f"{name}.json" for name in sets}
    for name, text in sets.items():
        files[name].write_text(text)
    (directory / "secret").write_bytes(SECRET)
    auth = {
        "corp": jwt_provider(files["all"], algorithms=PUBLIC, audiences=["orders-api", "stock-api"]),
        "narrow": jwt_provider(files["all"], algorithms=["ES256"]),
        "one": jwt_provider(files["one"], algorithms=PUBLIC),
        "nameless": jwt_provider(files["nameless"], algorithms=PUBLIC),
        "alone": jwt_provider(files["alone"], algorithms=PUBLIC),
        "secret": {"jwt": {"issuer": ISSUER, "audiences": [], "secret": {"file": str(directory / "secret")},
                           "algorithms": ["HS256", "HS384"]}},
        "strict": jwt_provider(files["all"], leeway="0s", required_claims=["exp", "sub", "realm.id"]),
        "lasting": jwt_provider(files["all"], required_claims=[], audiences=[]),
        "hidden": jwt_provider(files["all"], forward_token=False),
    }
    routes = [route("public"), *(route(name, name) for name in auth), route("optional", "corp", auth={"optional": True}),
              route("either", "narrow", "secret"),
              route("scoped", "corp", auth={"require": {"scopes": ["orders:write"], "roles": ["gold", "silver"]}})]
    with AuthWire(directory / "gateway", auth, routes) as made:
        yield made


@pytest.fixture(autouse=True)
def whole(wire):
    wire.upstream.requests.clear()
    yield
    wire.upstream.check()


# ---- the tables ----

@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("version", VERSIONS)
def test_good(wire, version, name):
    made = GOOD[name]()
    for path in ("/corp", "/optional"):
        seen = wire.let_through(wire.ask(version, path, bearer(made)))
        assert seen["authorization"] == [f"Bearer {made}"] and len(seen["x-user-id"]) == 1


@pytest.mark.parametrize("name", [name for name in GOOD if " by " in name])
def test_another_implementation_says_the_same(name):
    made = GOOD[name]()
    check = jws.JWS()
    check.allowed_algs = PUBLIC
    check.deserialize(made, jwk.JWK(**key(name.split()[-1]).jwk()))
    assert check.is_valid and json.loads(check.payload)["sub"] == "ann"


def test_the_table_is_long():
    made = {name: make() for name, make in HOSTILE.items()}
    assert len({each[0] if isinstance(each, tuple) else each for each in made.values()}) == len(made) > 500


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("version", VERSIONS)
def test_hostile(wire, version, name):
    made = HOSTILE[name]()
    made, code = made if isinstance(made, tuple) else (made, "invalid_token")
    for path in ("/corp", "/optional"):
        got = wire.ask(version, path, bearer(made))
        problem = wire.refused(got, code)
        if len(made) > 40:   # nothing of it comes back
            assert not re.search(rf"{re.escape(made[:40])}|{re.escape(made[-40:])}", f"{problem}{got.fields}")
    assert not wire.upstream.requests


def test_hostile_where_there_is_nothing_else(wire):
    """Nothing was let through, and what is good still is."""
    wire.let_through(wire.ask("h1", "/corp", bearer(good())))
    assert len(wire.upstream.requests) == 1


# ---- which provider takes what ----

@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path,make,code", [
    ("narrow", lambda: good("p256"), None),
    ("narrow", lambda: good("rsa"), "invalid_token"),           # an algorithm that is not in the list
    ("narrow", lambda: good("ed"), "invalid_token"),
    ("one", lambda: headed("rsa", kid=None), None),
    ("one", lambda: headed("rsa", "PS512", kid=None), None),
    ("one", lambda: headed("other", kid=None), "invalid_token"),
    ("one", lambda: good("other"), "invalid_token"),
    ("one", lambda: headed("rsa", kid="other"), "invalid_token"),   # the right key under a wrong name
    ("one", lambda: headed("p256", kid=None), "invalid_token"),     # no key of that kind
    ("alone", lambda: good("p256"), None),                          # a JWK where a set could be
    ("alone", lambda: good("other256"), "invalid_token"),
    ("nameless", lambda: headed("nameless0"), None),
    ("nameless", lambda: headed("nameless3"), None),
    ("nameless", lambda: headed("nameless5"), "invalid_token"),     # at most four are tried
    ("nameless", lambda: headed("nameless1", kid="any"), None),     # they may be anyone's
    ("nameless", lambda: headed("attacker256", kid=None), "invalid_token"),
    ("secret", lambda: good("secret"), None),
    ("secret", lambda: good("secret", "HS384"), None),
    ("secret", lambda: good("secret", "HS512"), "invalid_token"),
    ("secret", lambda: headed("secret", kid="any"), None),
    ("secret", lambda: good("rsa"), "invalid_token"),
    ("secret", lambda: token(key("secret"), claims(ISSUER), "none", "HS256"), "invalid_token"),
    ("secret", lambda: headed("secret", "HS256", "HS384"), "invalid_token"),
    ("secret", lambda: hmac_with(SECRET[:-1], "secret", "HS256"), "invalid_token"),
    ("secret", lambda: hmac_with(SECRET + b"\n", "secret", "HS256"), "invalid_token"),
    ("secret", lambda: hmac_with(b"", "secret", "HS256"), "invalid_token"),
    ("secret", lambda: changed(good("secret"), 2, lambda text: b64(b"")), "invalid_token"),
    ("secret", lambda: changed(good("secret"), 2, lambda text: text[:-4]), "invalid_token"),
    ("secret", lambda: changed(good("secret"), 2, with_trailing_bits), "invalid_token"),
    ("strict", lambda: good("ed", realm={"id": 5}), None),
    ("strict", lambda: good("ed", **{"realm.id": 5}), None),
    ("strict", lambda: good("ed"), "invalid_token"),
    ("strict", lambda: good("ed", realm=5), "invalid_token"),
    ("strict", lambda: good("ed", realm={}), "invalid_token"),
    ("strict", lambda: good("ed", realm={"id": None}), "invalid_token"),
    ("strict", lambda: good("ed", realm=[{"id": 5}]), "invalid_token"),
    ("strict", lambda: good("ed", sub=None, realm={"id": 5}), "invalid_token"),
    ("strict", lambda: good("ed", realm={"id": 5}, lifetime=-2), "expired_token"),
    ("strict", lambda: good("ed", realm={"id": 5}, nbf=claims(ISSUER)["iat"] + 20), "invalid_token"),
    ("lasting", lambda: good("ed", exp=None, aud=None), None),
    ("lasting", lambda: good("ed", exp=None, aud=["whatever"]), None),
    ("lasting", lambda: good("ed", lifetime=-600), "expired_token"),
    ("lasting", lambda: good("ed", iss="https://another.example"), "invalid_token"),
    ("either", lambda: good("p256"), None),
    ("either", lambda: good("secret"), None),
    ("either", lambda: good("rsa"), "invalid_token"),
    ("either", lambda: hmac_with(key("p256").public(), "p256", "HS256"), "invalid_token"),
])
def test_providers(wire, version, path, make, code):
    got = wire.ask(version, f"/{path}", bearer(make()))
    if code:
        wire.refused(got, code)
        assert not wire.upstream.requests
    else:
        wire.let_through(got)


# ---- where the token is, and how it is said ----

NOT_TAKEN = {   # no credentials: nothing here is a bearer token
    "nothing": lambda made: [],
    "Basic": lambda made: [bearer(made, "Basic")],
    "Basic with the token inside": lambda made: [bearer(tokens.base64.b64encode(f"x:{made}".encode()).decode(), "Basic")],
    "JWT": lambda made: [bearer(made, "JWT")],
    "Token": lambda made: [bearer(made, "Token")],
    "DPoP": lambda made: [bearer(made, "DPoP")],
    "Digest": lambda made: [bearer(made, "Digest")],
    "Negotiate": lambda made: [bearer(made, "Negotiate")],
    "no scheme": lambda made: [f"Authorization: {made}"],
    "Bearers": lambda made: [bearer(made, "Bearers")],
    "Bear": lambda made: [bearer(made, "Bear")],
    "Basic Bearer": lambda made: [bearer(made, "Basic Bearer")],
    "cookie": lambda made: [f"Cookie: access_token={made}; Authorization={made}; Bearer={made}"],
    "cookie with scheme": lambda made: [f"Cookie: Authorization=Bearer {made}"],
    "Proxy-Authorization": lambda made: [f"Proxy-Authorization: Bearer {made}"],
    "X-Authorization": lambda made: [f"X-Authorization: Bearer {made}"],
    "X-Forwarded-Authorization": lambda made: [f"X-Forwarded-Authorization: Bearer {made}"],
    "X-Access-Token": lambda made: [f"X-Access-Token: {made}"],
    "Authorisation": lambda made: [f"Authorisation: Bearer {made}"],
    "Authorization2": lambda made: [f"Authorization2: Bearer {made}"],
    "Authorization_": lambda made: [f"Authorization_: Bearer {made}"],
    "Sec-WebSocket-Protocol": lambda made: [f"Sec-WebSocket-Protocol: bearer, {made}"],
    "Forwarded": lambda made: [f"Forwarded: for=x;token={made}"],
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NOT_TAKEN)
def test_not_taken(wire, version, name):
    made = good()
    wire.refused(wire.ask(version, "/corp", *NOT_TAKEN[name](made)), "no_credentials")
    assert not wire.upstream.requests
    seen = wire.let_through(wire.ask(version, "/optional", *NOT_TAKEN[name](made)))
    assert not [each for each in seen if each.startswith("x-user")]


@pytest.mark.parametrize("version", VERSIONS)
def test_not_taken_from_the_address_or_the_body(wire, version):
    made = good()
    for query in ("access_token={}", "token={}", "Authorization=Bearer%20{}", "bearer={}", "jwt={}", "id_token={}"):
        wire.refused(wire.ask(version, "/corp?" + query.format(made)), "no_credentials")
    wire.refused(wire.ask(version, "/corp", "Content-Type: application/x-www-form-urlencoded", method="POST",
                          body=f"access_token={made}".encode()), "no_credentials")
    wire.refused(wire.ask(version, "/corp", "TE: trailers", method="POST", body=b"body",
                          trailers=[f"Authorization: Bearer {made}"]), "no_credentials")
    assert not wire.upstream.requests


SAID_BADLY = {   # there is something, and it is no good
    "empty": lambda made, bad: ["Authorization:"],
    "Bearer:": lambda made, bad: [bearer(made, "Bearer:")],
    "Bearer=": lambda made, bad: [f"Authorization: Bearer={made}"],
    "all in quotes": lambda made, bad: [f'Authorization: "Bearer {made}"'],
    "a comma first": lambda made, bad: [f"Authorization: , Bearer {made}"],
    "two fields": lambda made, bad: [bearer(made), bearer(made)],
    "two fields, the second bad": lambda made, bad: [bearer(made), bearer(bad)],
    "two fields, the first bad": lambda made, bad: [bearer(bad), bearer(made)],
    "two fields, the second empty": lambda made, bad: [bearer(made), "Authorization:"],
    "two fields, the second Basic": lambda made, bad: [bearer(made), "Authorization: Basic eDp5"],
    "two fields, the first Basic": lambda made, bad: ["Authorization: Basic eDp5", bearer(made)],
    "two fields, in another case": lambda made, bad: [bearer(made), f"aUTHORIZATION: Bearer {made}"],
    "joined by a comma": lambda made, bad: [f"{bearer(made)}, Bearer {made}"],
    "joined by a comma, the second bad": lambda made, bad: [f"{bearer(made)}, Bearer {bad}"],
    "joined by a comma, without a space": lambda made, bad: [f"{bearer(made)},Bearer {bad}"],
    "a comma behind": lambda made, bad: [f"{bearer(made)},"],
    "a semicolon behind": lambda made, bad: [f"{bearer(made)};"],
    "a word behind": lambda made, bad: [f"{bearer(made)} admin"],
    "a parameter behind": lambda made, bad: [f"{bearer(made)}, realm=x"],
    "two tokens": lambda made, bad: [f"{bearer(made)} {made}"],
    "scheme twice": lambda made, bad: [f"Authorization: Bearer Bearer {made}"],
    "nothing behind the scheme": lambda made, bad: ["Authorization: Bearer"],
    "a tab": lambda made, bad: [f"Authorization: Bearer\t{made}"],
    "a space and a tab": lambda made, bad: [f"Authorization: Bearer \t{made}"],
    "Latin-1": lambda made, bad: [f"{bearer(made)}\xe9"],
    "a no-break space": lambda made, bad: [f"Authorization: Bearer\xa0{made}"],
    "in quotes": lambda made, bad: [f'Authorization: Bearer "{made}"'],
    "in angle brackets": lambda made, bad: [f"Authorization: Bearer <{made}>"],
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SAID_BADLY)
def test_said_badly(wire, version, name):
    """Refused, with whatever of these words fits."""
    got = wire.ask(version, "/corp", *SAID_BADLY[name](good(), good("attacker")))
    assert got is not None and got.status in (400, 401), got
    assert json.loads(got.body)["code"] in ("bad_request", "no_credentials", "invalid_token")
    assert got.status == 400 or got.get("WWW-Authenticate").startswith("Bearer")
    assert not wire.upstream.requests


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in SAID_BADLY if "two" in name or "joined" in name])
def test_said_twice_names_nobody(wire, version, name):
    """Refused also where nobody needs to be named: bad credentials are a mistake somebody should see."""
    got = wire.ask(version, "/optional", *SAID_BADLY[name](good(), good("attacker")))
    assert got.status in (400, 401)
    assert not wire.upstream.requests


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer ", "Bearer  "])
def test_schemes_in_any_case(wire, version, scheme):
    wire.let_through(wire.ask(version, "/corp", bearer(good(), scheme)))


@pytest.mark.parametrize("field", [
    "Authorization: Bearer {}\0", "Authorization: Bearer {}\x01", "Authorization: Bearer {}\x7f", "Authorization : Bearer {}",
    "Authorization: Bearer\r\n {}", "Authorization: Bearer {}\rx", "Authorization: Bearer {}\nX-User-Id: root"])
def test_no_field_at_all(wire, field):
    """What is no field of HTTP does not come as far as the providers."""
    assert wire.ask("h1", "/corp", field.format(good())).status == 400
    name, _, value = field.format(good()).partition(":")
    got = wire.ask("h2", "/corp", (name.lower(), value[1:]))
    assert got is None or got.status in (400, 401)
    assert not wire.upstream.requests


@pytest.mark.parametrize("version", VERSIONS)
def test_too_long_for_a_head(wire, version):
    got = wire.ask(version, "/corp", bearer("A" * 40000))
    assert got is None or got.status == 431
    wire.drop(version)
    assert not wire.upstream.requests


# ---- what goes on, and what does not ----

@pytest.mark.parametrize("version", VERSIONS)
def test_identity_and_the_token_go_on(wire, version):
    made = good("p256", sub="ann", roles=["gold", "eu"], scope="orders:read orders:write", tenant="acme")
    seen = wire.let_through(wire.ask(version, "/corp", bearer(made)))
    assert seen["authorization"] == [f"Bearer {made}"]
    assert (seen["x-user-id"], seen["x-user-roles"], seen["x-user-scopes"], seen["x-tenant"]) == (
        ["ann"], ["gold,eu"], ["orders:read,orders:write"], ["acme"])
    assert "authorization" not in wire.let_through(wire.ask(version, "/hidden", bearer(made)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("more,code", [
    ({"roles": "gold", "scope": "orders:read orders:write"}, None),
    ({"roles": ["silver", "x"], "scope": ["orders:write"]}, None),
    ({"roles": "gold", "scope": "orders:read"}, "insufficient_scope"),
    ({"roles": "gold"}, "insufficient_scope"),
    ({"roles": "gold", "scope": "orders:writes"}, "insufficient_scope"),
    ({"roles": "gold", "scope": "orders:write,orders:read"}, "insufficient_scope"),
    ({"roles": "gold", "scope": ["orders:write orders:read"]}, "insufficient_scope"),
    ({"roles": "gold", "scope": {"orders:write": True}}, "insufficient_scope"),
    ({"roles": "gold", "scope": "ORDERS:WRITE"}, "insufficient_scope"),
    ({"roles": "golden", "scope": "orders:write"}, "insufficient_role"),
    ({"roles": "", "scope": "orders:write"}, "insufficient_role"),
    ({"roles": ["gold,silver"], "scope": "orders:write"}, "insufficient_role"),
    ({"roles": "Gold", "scope": "orders:write"}, "insufficient_role"),
    ({"roles": 7, "scope": "orders:write"}, "insufficient_role"),
    ({"scope": "orders:write"}, "insufficient_role"),
])
def test_scopes_and_roles(wire, version, more, code):
    got = wire.ask(version, "/scoped", bearer(good("ed", **more)))
    if code:
        wire.refused(got, code, 403)
        assert not wire.upstream.requests
    else:
        wire.let_through(got)
    if code == "insufficient_scope":
        assert 'error="insufficient_scope"' in got.get("WWW-Authenticate")
        assert 'scope="orders:write"' in got.get("WWW-Authenticate")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cached_token_is_still_its_own(wire, version):
    """What differs from a cached one by a little is judged anew; and a provider does not see another one's."""
    made = good("p256")
    for _ in range(3):
        wire.let_through(wire.ask(version, "/corp", bearer(made)))
    wire.refused(wire.ask(version, "/corp", bearer(made[:-1])), "invalid_token")
    wire.refused(wire.ask(version, "/corp", bearer(made + "=")), "invalid_token")
    wire.refused(wire.ask(version, "/corp", bearer(changed(made, 2, with_trailing_bits))), "invalid_token")
    wire.refused(wire.ask(version, "/secret", bearer(made)), "invalid_token")
    wire.refused(wire.ask(version, "/strict", bearer(made)), "invalid_token")
    wire.refused(wire.ask(version, "/one", bearer(made)), "invalid_token")
    wire.let_through(wire.ask(version, "/corp", bearer(made)))


def test_a_cached_token_runs_out(wire):
    made = good("ed", lifetime=-25)   # good for five seconds by the leeway
    wire.let_through(wire.ask("h1", "/corp", bearer(made)))
    tokens_end = until(lambda: (got := wire.ask("h1", "/corp", bearer(made))).status == 401 and got, "its end")
    wire.refused(tokens_end, "expired_token")
