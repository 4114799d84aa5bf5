"""sallyport-auth: each endpoint good and bad, rotation of keys and refresh tokens, what outlives a restart."""
import json
import signal
import stat
import subprocess
import threading

import pytest
from jwcrypto import jwk, jwt

from auth_service import BINARY, PASSWORD, SECRET, AuthService, claims_of, default_clients, hash_of
from gateway import BUILD, ask, logged, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    rules = [{"path": "/admin", "roles": ["admin"]},
             {"path": "/orders", "methods": ["POST"], "scopes": ["orders:write"]}]
    with AuthService(tmp_path_factory.mktemp("auth"), {"rules": rules}) as service:
        yield service


@pytest.fixture
def make(tmp_path):
    made = []

    def new(config=None):
        made.append(AuthService(tmp_path / str(len(made)), config))
        return made[-1].start()
    yield new
    for service in made:
        service.kill()


def error_of(answer):
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    return json.loads(answer.body)["error"]


# ---- /token ----

def test_a_client_gets_a_token_that_says_who_it_is(shared):
    answer = shared.post("/token", "shop", grant_type="client_credentials")
    assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
    body = json.loads(answer.body)
    assert body["token_type"] == "Bearer" and body["expires_in"] == 600 and body["scope"] == "orders:read orders:write"
    claims = claims_of(body["access_token"])
    assert {name: claims[name] for name in ("iss", "sub", "client_id", "scope", "roles", "aud", "tenant")} == {
        "iss": shared.issuer, "sub": "shop", "client_id": "shop", "scope": "orders:read orders:write",
        "roles": ["gold", "eu"], "aud": ["orders-api", "stock-api"], "tenant": "acme"}
    assert claims["exp"] - claims["iat"] == 600


@pytest.mark.parametrize("client,algorithm", [("shop", "ES256"), ("rsa", "RS256"), ("eddsa", "EdDSA")])
def test_tokens_verify_with_the_published_keys(shared, client, algorithm):
    keys = jwk.JWKSet.from_json(ask(shared.port, "/jwks.json").body)
    token = jwt.JWT(jwt=shared.token(client), key=keys, algs=["ES256", "RS256", "EdDSA"],
                    check_claims={"iss": shared.issuer, "exp": None, "jti": None})
    header = json.loads(token.header)
    assert header["alg"] == algorithm and header["typ"] == "at+jwt" and header["kid"]


def test_tokens_verify_with_the_gateway(shared, tmp_path):
    known = subprocess.run([BUILD / "sallyport", "help"], capture_output=True, text=True, check=True).stdout
    if " verify " not in known:
        pytest.skip("sallyport has no verify command")
    (tmp_path / "jwks.json").write_bytes(ask(shared.port, "/jwks.json").body)
    for client in ("shop", "rsa", "eddsa"):
        done = subprocess.run([BUILD / "sallyport", "verify", "--jwks", tmp_path / "jwks.json", "--issuer", shared.issuer,
                               "--audience", "orders-api"], input=shared.token(client), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_secret_may_stand_in_the_body(shared):
    answer = shared.post("/token", grant_type="client_credentials", client_id="shop", client_secret=SECRET)
    assert answer.status == 200


@pytest.mark.parametrize("form,status,error", [
    ({"client": "shop", "secret": "wrong-wrong-wrong"}, 401, "invalid_client"),
    ({"client": "nobody"}, 401, "invalid_client"),
    ({}, 401, "invalid_client"),
    ({"client_id": "shop"}, 401, "invalid_client"),
    ({"client": "shop", "client_id": "shop", "client_secret": SECRET}, 400, "invalid_request"),
    ({"client": "shop", "client_id": "rsa"}, 401, "invalid_client"),
    ({"client": "shop", "grant_type": ""}, 400, "invalid_request"),
    ({"client": "shop", "grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
    ({"client": "shop", "grant_type": "password", "username": "ada", "password": PASSWORD}, 400, "unauthorized_client"),
    ({"client": "gateway", "grant_type": "refresh_token", "refresh_token": "x"}, 400, "unauthorized_client"),
    ({"client": "shop", "grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
    ({"client": "shop", "grant_type": "refresh_token"}, 400, "invalid_grant"),
    ({"client": "shop", "scope": "orders:read admin"}, 400, "invalid_scope"),
    ({"client": "shop", "audience": "other-api"}, 400, "invalid_target"),
    ({"client": "app", "grant_type": "password", "username": "ada", "password": "wrong"}, 400, "invalid_grant"),
    ({"client": "app", "grant_type": "password", "username": "eve", "password": "wrong"}, 400, "invalid_grant"),
    ({"client": "app", "grant_type": "password", "username": "ada"}, 400, "invalid_request"),
])
def test_errors_of_rfc_6749(make_limitless, form, status, error):
    answer = make_limitless.post("/token", **{"grant_type": "client_credentials", **form})
    assert (answer.status, error_of(answer)) == (status, error)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.fixture(scope="module")
def make_limitless(tmp_path_factory):
    limit = {"failures": 10000, "from_address": 10000, "for_name": 10000}
    with AuthService(tmp_path_factory.mktemp("limitless"), {"login_limit": limit}) as service:
        yield service


@pytest.mark.parametrize("body,content_type", [
    ("grant_type=client_credentials&grant_type=client_credentials", "application/x-www-form-urlencoded"),
    ("grant_type=client%5", "application/x-www-form-urlencoded"),
    ("grant_type=client%00", "application/x-www-form-urlencoded"),
    ('{"grant_type": "client_credentials"}', "application/json"),
])
def test_a_body_that_is_no_form_is_refused(shared, body, content_type):
    answer = ask(shared.port, "/token", "POST", body, {"Content-Type": content_type})
    assert (answer.status, error_of(answer)) == (400, "invalid_request")


def test_scope_and_audience_can_be_narrowed(shared):
    body = shared.grant(scope="orders:read", audience="stock-api")
    claims = claims_of(body["access_token"])
    assert body["scope"] == claims["scope"] == "orders:read" and claims["aud"] == "stock-api"


def test_password(shared):
    body = shared.grant("app", "password", username="ada", password=PASSWORD)
    claims = claims_of(body["access_token"])
    assert claims["sub"] == "ada" and claims["client_id"] == "app" and claims["roles"] == ["admin"]
    assert claims["scope"] == "orders:read"   # what both may
    assert claims["tenant"] == "lovelace" and claims["channel"] == "web"


def test_password_only_when_configured(tmp_path):
    service = AuthService(tmp_path, {"password_grant": False})
    done = subprocess.run([BINARY, "check", "-c", service.file], capture_output=True, text=True)
    assert done.returncode == 1 and "password_grant" in done.stderr


# ---- refresh ----

def test_refresh_tokens_rotate(shared):
    first = shared.grant()["refresh_token"]
    answer = json.loads(shared.refresh(first, scope="orders:read").body)
    assert answer["refresh_token"] != first and answer["scope"] == "orders:read"
    again = json.loads(shared.refresh(answer["refresh_token"]).body)
    assert again["scope"] == "orders:read orders:write"   # what was granted at first


def test_reuse_ends_the_family(shared):
    first = shared.grant()
    second = json.loads(shared.refresh(first["refresh_token"]).body)
    assert error_of(shared.refresh(first["refresh_token"])) == "invalid_grant"
    assert error_of(shared.refresh(second["refresh_token"])) == "invalid_grant"
    for token in (first["access_token"], second["access_token"]):   # and what was given in its name
        assert shared.introspect(token) == {"active": False}


def test_a_refresh_token_is_of_one_client(shared):
    token = shared.grant()["refresh_token"]
    assert error_of(shared.refresh(token, "opaque")) == "invalid_grant"
    assert shared.refresh(token).status == 200


def test_a_refresh_cannot_ask_for_more(shared):
    token = shared.grant(scope="orders:read")["refresh_token"]
    assert error_of(shared.refresh(token, scope="orders:write")) == "invalid_scope"
    assert shared.refresh(token).status == 200


# ---- /introspect ----

@pytest.mark.parametrize("client", ["shop", "rsa", "eddsa", "opaque"])
def test_introspection(shared, client):
    facts = shared.introspect(shared.token(client))
    assert facts["active"] is True and facts["client_id"] == facts["sub"] == client and facts["iss"] == shared.issuer
    assert facts["token_type"] == "Bearer" and facts["exp"] > facts["iat"]


def test_a_refresh_is_for_no_audience_that_was_taken_away(make):
    service = make()
    kept, lost = (service.grant(audience=name)["refresh_token"] for name in ("orders-api", "stock-api"))
    clients = service.config["clients"]
    service.write({**service.config, "clients": {**clients, "shop": {**clients["shop"], "audiences": ["orders-api"]}}})
    service.signal(signal.SIGHUP)
    until(lambda: "is in force" in service.log(), "the reload")
    assert error_of(service.refresh(lost)) == "invalid_target"
    assert service.refresh(kept).status == 200


def test_introspection_of_refresh_tokens_is_the_owners(shared):
    token = shared.grant()["refresh_token"]
    assert shared.introspect(token, "shop")["active"] is True
    assert shared.introspect(token, "gateway") == {"active": False}


def test_introspection_of_anything_else(shared):
    token = shared.token()
    head, body, signature = token.split(".")
    for bad in ("x", "a.b.c", head + "." + body + ".", token[:-4] + "AAAA", "x" * 40000,
                head + "." + shared.token("rsa").split(".")[1] + "." + signature):
        assert shared.introspect(bad) == {"active": False}


def test_introspection_of_an_expired_token(shared):
    token = shared.token("short")
    assert shared.introspect(token)["active"] is True
    until(lambda: shared.introspect(token) == {"active": False}, "the end of the token")


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
def test_who_asks_must_say_who_it_is(shared, path):
    answer = shared.post(path, token="x")
    assert (answer.status, error_of(answer)) == (401, "invalid_client")
    answer = shared.post(path, "gateway")
    assert (answer.status, error_of(answer)) == (400, "invalid_request")


# ---- /revoke ----

@pytest.mark.parametrize("client", ["shop", "opaque"])
def test_revoking_an_access_token(shared, client):
    token = shared.token(client)
    assert shared.authorize(token).status == 200
    assert shared.revoke(token, "gateway").status == 200   # not its own: nothing happens
    assert shared.introspect(token)["active"] is True
    assert shared.revoke(token, client).status == 200
    assert shared.introspect(token) == {"active": False}
    assert shared.authorize(token).status == 401
    assert shared.revoke(token, client).status == 200   # again is no error


@pytest.mark.parametrize("client", ["shop", "opaque"])
def test_revoking_a_refresh_token_ends_its_family(shared, client):
    body = shared.grant(client)
    assert shared.revoke(body["refresh_token"], client).status == 200
    assert error_of(shared.refresh(body["refresh_token"], client)) == "invalid_grant"
    assert shared.introspect(body["access_token"]) == {"active": False}


def test_revoking_what_is_no_token(shared):
    assert shared.revoke("x").status == 200


# ---- /authorize ----

def test_authorize_tells_who_it_is(shared):
    answer = shared.authorize(shared.token(), "/orders/7")
    assert answer.status == 200
    assert answer.headers["X-User-Id"] == "shop" and answer.headers["X-User-Roles"] == "gold,eu"
    assert answer.headers["X-User-Scopes"] == "orders:read,orders:write"


def test_authorize_refuses(shared):
    answer = shared.authorize()
    assert answer.status == 401 and answer.headers["WWW-Authenticate"] == 'Bearer realm="sallyport"'
    answer = shared.authorize("x.y.z")
    assert answer.status == 401 and 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    refresh = shared.grant()["refresh_token"]
    assert shared.authorize(refresh).status == 401


@pytest.mark.parametrize("uri", ["/admin", "/admin/x?y=/", "/x/../admin", "/%61dmin"])
def test_rules_by_role(shared, uri):
    answer = shared.authorize(shared.token(), uri)
    assert answer.status == 403 and json.loads(answer.body)["code"] == "insufficient_role"
    user = shared.token("app", grant_type="password", username="ada", password=PASSWORD)
    assert shared.authorize(user, uri).status == 200


def test_rules_by_scope_and_method(shared):
    user = shared.token("app", grant_type="password", username="ada", password=PASSWORD)
    assert shared.authorize(user, "/orders/1").status == 200
    answer = shared.authorize(user, "/orders/1", "POST")
    assert answer.status == 403 and 'scope="orders:write"' in answer.headers["WWW-Authenticate"]
    assert shared.authorize(user, "/orderss", "POST").status == 200   # another segment
    assert shared.authorize(user, "/x%2f..%2fadmin").status == 403    # no one knows what that means


def test_a_rule_for_get_is_for_head(make):
    """Else any token could find out by HEAD what a rule keeps from GET."""
    service = make({"rules": [{"path": "/admin", "methods": ["GET"], "roles": ["admin"]}]})
    token = service.token()
    for method, status in (("GET", 403), ("HEAD", 403), ("POST", 200)):
        assert service.authorize(token, "/admin", method).status == status, method


# ---- how long answers may be kept ----

def max_age(answer):
    return int(answer.headers["Cache-Control"].removeprefix("max-age="))


def test_answers_may_be_kept_until_the_end_of_the_token(shared, make_limitless):
    for client, longest in (("shop", 300), ("opaque", 300), ("short", 4)):
        token = shared.token(client)
        for answer in (shared.post("/introspect", "gateway", token=token), make_limitless.authorize(make_limitless.token(client))):
            assert answer.status == 200 and longest - 3 <= max_age(answer) <= longest
    assert max_age(shared.post("/introspect", "gateway", token="x")) == 300


def test_what_rules_decide_is_for_one_request(shared):
    for token in (shared.token(), "x"):
        assert shared.authorize(token, "/orders/7").headers["Cache-Control"] == "no-store"


def test_a_refusal_of_authorize_may_be_kept_for_a_moment(make_limitless):
    answer = make_limitless.authorize("x")
    assert answer.status == 401 and max_age(answer) == 5
    answer = make_limitless.authorize(make_limitless.token(), "/x%2f..%2fadmin")   # for its path, not for its token
    assert answer.status == 403 and answer.headers["Cache-Control"] == "no-store"


# ---- what is published ----

@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
def test_metadata(shared, name):
    metadata = json.loads(ask(shared.port, f"/.well-known/{name}").body)
    assert metadata["issuer"] == shared.issuer
    for key, path in (("token_endpoint", "/token"), ("jwks_uri", "/jwks.json"), ("introspection_endpoint", "/introspect"),
                      ("revocation_endpoint", "/revoke")):
        assert metadata[key] == shared.issuer + path
    assert metadata["grant_types_supported"] == ["client_credentials", "refresh_token", "password"]


def test_jwks(shared):
    answer = ask(shared.port, "/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    keys = json.loads(answer.body)["keys"]
    assert [key["alg"] for key in keys] == ["ES256", "ES256", "RS256", "RS256", "EdDSA", "EdDSA"]   # now and next
    assert len({key["kid"] for key in keys}) == 6 and all(key["use"] == "sig" for key in keys)
    assert not any({"d", "p", "q", "k"} & key.keys() for key in keys)


def test_probes_methods_and_paths(shared):
    assert ask(shared.port, "/livez").status == ask(shared.port, "/readyz").status == 200
    answer = ask(shared.port, "/token")
    assert answer.status == 405 and answer.headers["Allow"] == "POST"
    assert ask(shared.port, "/nothing").status == 404


def test_metrics(shared):
    shared.token()
    metrics = shared.metrics()
    assert metrics["sallyport_auth_service_tokens_client_credentials_total"] >= 1
    assert metrics['sallyport_auth_service_requests_total{endpoint="/token",code="200"}'] >= 1
    assert metrics["process_open_fds"] > 0
    duration = "sallyport_auth_service_request_duration_seconds"
    assert metrics[duration + '_bucket{endpoint="/token",le="+Inf"}'] == metrics[duration + '_count{endpoint="/token"}'] >= 1
    assert 0 < metrics[duration + '_sum{endpoint="/token"}'] < 60
    assert metrics[duration + '_bucket{endpoint="/token",le="0.005"}'] <= metrics[duration + '_bucket{endpoint="/token",le="0.01"}']


def test_the_access_log_knows_who(make, tmp_path):
    """And never what they said to prove it."""
    log = tmp_path / "access.log"
    service = make({"trusted_proxies": ["127.0.0.0/8"], "login_limit": {"failures": 1, "per": "1h"},
                    "access_log": {"output": str(log)}})
    came = {"X-Forwarded-For": "203.0.113.9"}
    made = service.grant("shop")
    service.post("/token", "app", headers=came, grant_type="password", username="ada", password=PASSWORD)
    ask(service.port, "/authorize", headers={"Authorization": f"Bearer {made['access_token']}"})
    again = service.post("/token", "shop", grant_type="refresh_token", refresh_token=made["refresh_token"])
    for secret in ("no", "no, either"):
        service.post("/token", "rsa", secret, headers=came, grant_type="client_credentials")
    ask(service.port, f"/introspect?token={made['access_token']}", "POST")
    records = logged(log, count=8)
    found = [(each["path"], each["client"], each["consumer"], each["subject"], each["status"], each["code"])
             for each in records if each["path"] != "/readyz"]
    here, there = "127.0.0.1", "203.0.113.9"
    assert found == [("/token", here, "shop", None, 200, "ok"), ("/token", there, "app", "ada", 200, "ok"),
                     ("/authorize", here, "shop", "shop", 200, "ok"), ("/token", here, "shop", None, 200, "ok"),
                     ("/token", there, None, None, 401, "invalid_token"), ("/token", there, None, None, 429, "rate_limited"),
                     ("/introspect", here, None, None, 400, "bad_request")]
    text = log.read_text() + service.log()
    for said in (SECRET, PASSWORD, *made["access_token"].split("."), made["refresh_token"],
                 json.loads(again.body)["refresh_token"], "no, either"):
        assert said not in text


# ---- failed logins ----

def test_failed_logins_are_limited(make):
    service = make({"login_limit": {"failures": 3, "per": "1h"}})
    for _ in range(3):
        assert service.post("/token", "shop", "wrong-wrong-wrong", grant_type="client_credentials").status == 401
    answer = service.post("/token", "shop", grant_type="client_credentials")   # the right one is no way to find out
    assert answer.status == 429 and 0 < int(answer.headers["Retry-After"]) <= 1200
    assert service.post("/token", "rsa", grant_type="client_credentials").status == 200
    for _ in range(3):
        service.post("/token", "app", grant_type="password", username="ada", password="wrong")
    answer = service.post("/token", "app", grant_type="password", username="ada", password=PASSWORD)
    assert answer.status == 429
    assert service.metrics()["sallyport_auth_service_logins_limited_total"] == 2


def test_an_address_has_a_limit_too(make):
    service = make({"login_limit": {"from_address": 3, "per": "1h"}})
    for name in ("a", "b", "c"):
        assert service.post("/token", name, grant_type="client_credentials").status == 401
    assert service.post("/token", "shop", grant_type="client_credentials").status == 429


@pytest.mark.parametrize("secret", ["secret_hash", "secret"])
def test_strangers_do_not_lock_a_client_out(make, tmp_path, secret):
    """Who knows a client's name, a gateway's for one, could keep it from asking about anybody's token."""
    (tmp_path / "secret").write_text(SECRET)
    gateway = {secret: {"file": str(tmp_path / "secret")} if secret == "secret" else hash_of(SECRET)}
    service = make({"login_limit": {"failures": 2, "from_address": 3, "for_name": 4, "per": "1h"},
                    "trusted_proxies": ["127.0.0.0/8"], "clients": {"gateway": gateway, "other": gateway}})

    def login(client, address, secret=SECRET):
        return service.post("/introspect", client, secret, {"X-Forwarded-For": address}, token="x").status

    assert login("gateway", "192.0.2.1") == 200
    for client, addresses in (("gateway", (30, 31)), ("other", (40, 41))):
        for address in addresses:
            for _ in range(2):
                assert login(client, f"192.0.2.{address}", "wrong-wrong-wrong") == 401
    assert login("gateway", "192.0.2.1") == 200
    assert login("other", "192.0.2.1") == (200 if secret == "secret" else 429)   # its hash has not been seen to be right
    assert login("gateway", "192.0.2.1", "wrong-wrong-wrong") == 429
    assert login("gateway", "192.0.2.30") == 429   # its own failures are enough: the right secret is no way to find out


def test_good_logins_are_free_and_fast(make):
    service = make({"login_limit": {"failures": 2, "per": "1h"}})
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(
        service.post("/token", "shop", grant_type="client_credentials").status)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20
    service.token()
    assert service.metrics()["sallyport_auth_service_logins_cached_total"] > 0


# ---- time, restarts, reloads ----

def kids(service, algorithm="ES256"):
    return [key["kid"] for key in service.jwks() if key["alg"] == algorithm]


def test_rotation_by_signal(make):
    service = make()
    before, token = kids(service), service.token()
    service.signal(signal.SIGUSR2)
    until(lambda: len(kids(service)) == 3, "a third key")
    after = kids(service)
    assert after[0] == before[1] and before[0] in after   # the one that was announced signs; the old one is still there
    assert json.loads(jwt.JWT(jwt=service.token(), key=jwk.JWKSet.from_json(ask(service.port, "/jwks.json").body),
                              algs=["ES256"]).header)["kid"] == before[1]
    assert service.introspect(token)["active"] is True


def test_a_rotated_log_is_opened_again(make, tmp_path):
    """USR1, as the gateway; nothing else is rotated by it."""
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    service = make({"access_log": {"output": str(log)}})
    before = kids(service)
    until(lambda: "/jwks.json" in log.read_text(), "a line")
    log.rename(old)
    service.signal(signal.SIGUSR1)
    until(log.exists, "the new log")
    assert kids(service) == before
    until(lambda: "/jwks.json" in log.read_text(), "a line in the new one")


def test_rotation_on_schedule(make):
    service = make({"keys": {"algorithms": ["ES256", "EdDSA", "RS256"], "rotate": "2s", "overlap": "1s"},
                    "tokens": {"access": "1s"}, "clients": {"shop": {**default_clients()["shop"], "access": "1s"}}})
    first = kids(service)
    announced = set(first)
    seen = until(lambda: (lambda now: now if first[0] not in now else announced.update(now) and None)(kids(service)),
                 "the end of the first key")
    assert seen[0] in announced   # nothing signs that was not published before
    assert service.token()


def test_what_outlives_a_restart(make):
    service = make()
    published = {key["kid"] for key in service.jwks()}
    body, gone, opaque = service.grant(), service.token(), service.token("opaque")
    service.revoke(gone)
    service.restart()
    assert {key["kid"] for key in service.jwks()} == published
    assert service.introspect(gone) == {"active": False}
    assert service.introspect(body["access_token"])["active"] is True
    assert service.introspect(opaque)["active"] is True
    second = service.refresh(body["refresh_token"])
    assert second.status == 200
    service.restart()
    assert error_of(service.refresh(body["refresh_token"])) == "invalid_grant"   # used before the restart
    assert error_of(service.refresh(json.loads(second.body)["refresh_token"])) == "invalid_grant"


def test_a_crash_loses_little(make):
    service = make()
    gone, state = service.token(), service.state / "state.jsonl"
    service.revoke(gone)
    # Once it is in the file, which is written a moment after the first change, that may be the grant alone.
    until(lambda: state.exists() and '"denied"' in state.read_text(), "the revocation in the state file")
    service.kill()
    service.start()
    assert service.introspect(gone) == {"active": False}


def test_the_state_is_for_nobody_else(make):
    service = make()
    body = service.grant()
    service.stop()
    files = [path for path in service.state.rglob("*") if path.is_file()]
    assert len(files) == 8
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert body["refresh_token"] not in path.read_text()
    assert stat.S_IMODE(service.state.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["state.jsonl", "keys/ES256-1.pem"])
def test_a_broken_state_is_not_overwritten(make, name):
    service = make()
    service.stop()
    (service.state / name).write_text("garbage\n")
    done = subprocess.run([BINARY, "run", "-c", service.file], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and name.split("/")[-1] in done.stderr
    assert (service.state / name).read_text() == "garbage\n"


def test_two_services_do_not_share_a_state(make):
    service = make()
    done = subprocess.run([BINARY, "run", "-c", service.file], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "another sallyport-auth uses it" in done.stderr


def test_reload(make):
    service = make()
    service.token()
    clients = default_clients()
    del clients["shop"]
    service.write({**service.config, "clients": clients})
    service.signal(signal.SIGHUP)
    until(lambda: "is in force" in service.log(), "the reload")
    assert service.post("/token", "shop", grant_type="client_credentials").status == 401
    service.write("version: 2\n")
    service.signal(signal.SIGHUP)
    until(lambda: "is not taken" in service.log(), "the refusal")
    assert service.token("rsa")


def test_revocations_reach_redis(make, tmp_path):
    from gateway import free_port
    port = free_port()
    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
                              stdout=subprocess.DEVNULL)
    try:
        import redis
        store = redis.Redis(port=port)
        until(lambda: is_up(store), "redis-server")
        service = make({"redis": {"url": f"redis://127.0.0.1:{port}/0"}})
        token = service.token()
        service.revoke(token)
        member, = until(lambda: store.zrange("sallyport:deny", 0, -1), "the entry")
        assert json.loads(member) == {"iss": service.issuer, "jti": claims_of(token)["jti"]}
        store.flushall()
        service.restart()   # what Redis has lost is told again
        assert until(lambda: store.zrange("sallyport:deny", 0, -1), "the entry") == [member]
    finally:
        server.terminate()
        server.wait()


def is_up(store):
    try:
        return store.ping()
    except OSError:
        return False
    except Exception as error:   # redis.ConnectionError is none of the above
        if "onnect" in str(error):
            return False
        raise


# ---- the command line ----

def test_hash():
    hashes = {subprocess.run([BINARY, "hash"], input=text, capture_output=True, text=True, check=True).stdout
              for text in ("secret\n", "secret")}
    assert len(hashes) == 2 and all(text.startswith("scrypt:32768:8:1:") for text in hashes)
    assert subprocess.run([BINARY, "hash"], input="\n", capture_output=True, text=True).returncode == 1


@pytest.mark.parametrize("change,words", [
    ({"issuer": "https://x.example/"}, "issuer"),
    ({"keys": {"overlap": "1m"}}, "overlap"),
    ({"clients": {"x": {}}}, "secret_hash"),
    ({"clients": {"x": {"secret_hash": "scrypt:32768:8:1:x:y"}}}, "sallyport-auth hash"),
    ({"clients": {"x": {"secret_hash": "scrypt:1048576:32:16:AAAAAAAAAAA:" + "A" * 43}}}, "cost"),
    ({"keys": {"algorithms": ["RS256"]}}, "tokens.algorithm"),
    ({"rotat": 1}, "unknown key"),
])
def test_mistakes_are_said(tmp_path, change, words):
    service = AuthService(tmp_path, change)
    done = subprocess.run([BINARY, "check", "-c", service.file], capture_output=True, text=True)
    assert done.returncode == 1 and words in done.stderr, done.stderr
