"""examples/orders: the service on its own and the one behind the gateway answer the same requests alike, and the numbers of
docs/BOILERPLATE.md are those that count.py prints.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from jwcrypto import jwk, jws

from auth_service import AuthService, default_clients
from gateway import Gateway, ask, free_port, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/orders"
INVENTORY_IS_FLAKY = 3   # each third question: another try is always good


def test_the_numbers_of_the_document():
    table = subprocess.run([sys.executable, EXAMPLE / "count.py"], capture_output=True, text=True, check=True).stdout
    assert table in (ROOT / "docs/BOILERPLATE.md").read_text()
    gone = int(table.split()[-2])
    assert 90 <= gone <= 100


class Program:
    def __init__(self, name, *arguments):
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, EXAMPLE / name, "--port", str(self.port), *arguments])

        def listens():
            assert self.process.poll() is None, f"{name} ended"
            try:
                return ask(self.port, timeout=5)
            except OSError:
                return None
        until(listens, name)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Example:
    """All of it: two ways to the same business, with one Auth Service and one inventory."""

    def __init__(self, folder):
        self.programs = []
        self.gateway = Gateway(folder)
        self.gateway.file = EXAMPLE / "gateway.yaml"
        clients = default_clients()
        clients["reader"] = {**clients["shop"], "scopes": ["orders:read"]}
        clients["writer"] = {**clients["shop"], "scopes": ["orders:read", "orders:write"]}
        clients["greedy"] = clients["reader"]
        clients["elsewhere"] = {**clients["shop"], "audiences": ["stock-api"]}
        self.auth = AuthService(folder / "auth", {"clients": clients})

    def start(self):
        self.auth.start()
        self.inventory = self.program("inventory.py", "--flaky", str(INVENTORY_IS_FLAKY))
        self.alone = self.program("orders_alone.py", "--issuer", self.auth.issuer, "--inventory",
                                  f"http://127.0.0.1:{self.inventory.port}")
        behind = self.program("orders_behind.py", "--gateway", f"http://127.0.0.1:{self.gateway.port}")
        self.gateway.start(env={"SALLYPORT_HTTP_PORT": str(self.gateway.port), "SALLYPORT_ADMIN_PORT": str(self.gateway.admin_port),
                                "SALLYPORT_STATUS_PORT": str(self.gateway.status_port), "SALLYPORT_AUTH_PORT": str(self.auth.port),
                                "ORDERS_PORT": str(behind.port), "INVENTORY_PORT": str(self.inventory.port)})
        self.ports = {"alone": self.alone.port, "behind": self.gateway.port}
        return self

    def program(self, *arguments):
        self.programs.append(Program(*arguments))
        return self.programs[-1]

    def stop(self):
        for end in (*(program.stop for program in self.programs), self.gateway.kill, self.auth.kill):
            end()

    def forge(self, claims=(), header=(), key=None):
        """A token that the Auth Service has not given, though by default its key signs it."""
        pem = next((self.auth.state / "keys").glob("ES256-*.pem"))
        own = jwk.JWK.from_pem(pem.read_bytes())
        token = jws.JWS(json.dumps({"iss": self.auth.issuer, "aud": "orders-api", "sub": "shop", "scope": "orders:read",
                                    "exp": int(time.time()) + 600, **dict(claims)}))
        protected = {"alg": "ES256", "kid": own.thumbprint(), **dict(header)}
        token.allowed_algs = ["ES256", "HS256"]
        token.add_signature(key or own, None, json.dumps(protected))
        return token.serialize(compact=True)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    whole = Example(tmp_path_factory.mktemp("orders"))
    try:
        yield whole.start()
    finally:
        whole.stop()


def both(example, path, method="GET", body=None, **headers):
    """The answer, which must be the same either way: status, code, what it is, and the header fields that tell clients what
    to do. The words of a refusal are each version's own."""
    answers = {}
    for name, port in example.ports.items():
        answer = ask(port, path, method, body, {key.replace("_", "-"): value for key, value in headers.items()})
        told = json.loads(answer.body)
        if answer.status >= 400:
            told = told["code"]
        fields = sorted({"WWW-Authenticate", "Retry-After", "Allow", "Content-Type"} & set(answer.headers))
        answers[name] = (answer.status, told, fields)
    assert answers["alone"] == answers["behind"]
    return answers["alone"][:2]


def bearer(token):
    return f"Bearer {token}"


def test_whose_orders(example):
    shop, writer = bearer(example.auth.token("shop")), bearer(example.auth.token("writer"))
    assert both(example, "/orders", Authorization=shop) == (200, [])
    order = {"id": 1, "owner": "shop", "sku": "apple", "count": 2}
    assert both(example, "/orders", "POST", json.dumps({"sku": "apple", "count": 2}), Authorization=shop) == (201, order)
    assert both(example, "/orders/1", Authorization=shop) == (200, order)
    assert both(example, "/orders/1", Authorization=writer) == (404, "no_such_order")
    assert both(example, "/orders", Authorization=writer) == (200, [])
    assert both(example, "/orders", Authorization=writer, X_User_Id="shop") == (200, [])
    assert both(example, "/orders", Authorization=writer, X_USER_id="shop", X_User_Scopes="orders:write") == (200, [])
    assert both(example, "/orders", "POST", json.dumps({"sku": "pear", "count": 4}), Authorization=shop) == (409, "out_of_stock")
    assert both(example, "/orders", "POST", "no JSON", Authorization=shop) == (400, "bad_order")
    assert both(example, "/orders", "DELETE", Authorization=shop) == (405, "method_not_allowed")
    assert both(example, "/elsewhere", Authorization=shop) == (404, "no_route")


def test_who_is_refused(example):
    reader = bearer(example.auth.token("reader"))
    assert both(example, "/orders", Authorization=reader)[0] == 200
    assert both(example, "/orders", "POST", "{}", Authorization=reader) == (403, "insufficient_scope")
    assert both(example, "/orders") == (401, "no_credentials")
    assert both(example, "/orders", X_User_Id="shop") == (401, "no_credentials")
    assert both(example, "/orders", Authorization="Basic c2hvcDp4") == (401, "no_credentials")
    assert both(example, "/orders", Authorization=bearer("no.token")) == (401, "invalid_token")
    assert both(example, "/orders", Authorization=bearer(example.auth.token("elsewhere"))) == (401, "invalid_token")


def test_what_tokens_are_refused(example):
    assert both(example, "/orders", Authorization=bearer(example.forge()))[0] == 200
    stranger = jwk.JWK.generate(kty="EC", crv="P-256")
    public = jwk.JWK(kty="oct", k=stranger.export_public(as_dict=True)["x"])
    genuine = example.forge()
    for token, code in {
        example.forge({"exp": 1}): "expired_token",
        example.forge({"iss": "https://evil.example"}): "invalid_token",
        example.forge({"aud": ["stock-api"]}): "invalid_token",
        example.forge({"exp": "never"}): "invalid_token",
        example.forge(key=stranger): "invalid_token",
        example.forge(header={"kid": "who"}): "invalid_token",
        example.forge(header={"alg": "HS256"}, key=public): "invalid_token",
        genuine[:-4] + "AAAA": "invalid_token",
        genuine.rpartition(".")[0] + ".": "invalid_token",
        "eyJhbGciOiJub25lIn0." + genuine.split(".")[1] + ".": "invalid_token",
        "a" * 17000: "invalid_token",
    }.items():
        assert both(example, "/orders", Authorization=bearer(token)) == (401, code), token


def test_who_asks_too_much(example):
    greedy, shop = bearer(example.auth.token("greedy")), bearer(example.auth.token("shop"))
    for port in example.ports.values():
        begin = time.monotonic()
        answers = [ask(port, "/orders", headers={"Authorization": greedy}) for _ in range(60)]
        passed = sum(answer.status == 200 for answer in answers)
        assert 20 <= passed <= 20 + 10 * (time.monotonic() - begin) + 1
        refused = [answer for answer in answers if answer.status != 200]
        for answer in refused:
            assert answer.status == 429 and json.loads(answer.body)["code"] == "rate_limited"
            assert int(answer.headers["Retry-After"]) >= 1
        assert ask(port, "/orders", headers={"Authorization": shop}).status == 200   # a bucket for each


def test_inventory_has_a_bad_day(example):
    """Each third question fails, and nobody notices."""
    writer = bearer(example.auth.token("writer"))
    for _ in range(9):
        time.sleep(0.1)   # the limit is ten a second
        assert both(example, "/orders", "POST", json.dumps({"sku": "apple", "count": 1}), Authorization=writer)[0] == 201


def test_inventory_is_gone(example):
    writer = bearer(example.auth.token("writer"))
    example.inventory.stop()
    assert both(example, "/orders", "POST", json.dumps({"sku": "apple", "count": 1}), Authorization=writer) == (503, "no_inventory")
    assert both(example, "/orders", Authorization=writer)[0] == 200
