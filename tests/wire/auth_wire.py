"""A gateway with authentication, and both of its neighbours in the test's hand: the upstream, which keeps what it has
received byte by byte, and Auth Services, which answer what the test says (`Service`). Requests go over HTTP/1.1 as raw
bytes and over HTTP/2 without any checks of the client's own.

    with AuthWire(directory, auth={"corp": {"jwt": {…}}}, routes=[route("corp", "corp")]) as wire:
        answer = wire.ask("h1", "/corp", bearer(token))
        wire.refused(answer, "invalid_token")
        wire.upstream.only().get("X-User-Id")
"""
import contextlib
import json
import time

from gateway import NO_BREAKER, Gateway, ask
from h2_peers import H2Client, Reset
from peers import Incomplete, Raw, Upstream, answer, request

ISSUER = "https://auth.example.com"
IDENTITY = {"X-User-Id": "identity.subject", "X-User-Roles": "identity.roles", "X-User-Scopes": "identity.scopes",
            "X-Consumer": "identity.consumer", "X-Tenant": "jwt.tenant"}
VERSIONS = ["h1", "h2"]
# What a 401 says in WWW-Authenticate (RFC 6750 3.1): nothing of an error when there were no credentials.
ERRORS = {"no_credentials": None, "invalid_token": "invalid_token", "expired_token": "invalid_token",
          "revoked_token": "invalid_token"}


def bearer(token, scheme="Bearer"):
    return f"Authorization: {scheme} {token}"


def route(name, *providers, path=None, upstream="main", **more):
    """A route at /name that takes any of the providers; a public one without."""
    more = {"auth": {"any_of": list(providers), **more.pop("auth", {})}, **more} if providers else more
    return {"name": name, "match": {"path": {"prefix": path or f"/{name}"}}, "upstream": upstream, **more}


def jwt_provider(file=None, uri=None, algorithms=("RS256", "ES256", "EdDSA"), **more):
    jwks = {"file": str(file)} if file else {"uri": uri}
    return {"jwt": {"issuer": ISSUER, "audiences": ["orders-api"], "jwks": {**jwks, **more.pop("jwks", {})},
                    "algorithms": list(algorithms), **more}}


def as_json(message):
    """What an upstream has received, as the body of its answer."""
    return answer(json.dumps({"target": message.target, "fields": message.fields, "trailers": message.trailers}).encode())


def json_answer(value, *fields, status="200 OK"):
    return answer(json.dumps(value).encode(), status, "Content-Type: application/json", *fields)


class Service(Upstream):
    """An Auth Service by hand: `reply(request)` gives the answer's bytes. `with service.gone():` nobody listens."""

    def uri(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def publish(self, *sets):
        """Key sets (text), one for each question, the last one for ever."""
        sets = list(sets)
        return self.program(reply=lambda request: answer(
            (sets.pop(0) if len(sets) > 1 else sets[0]).encode(), "200 OK", "Content-Type: application/jwk-set+json"))

    @contextlib.contextmanager
    def gone(self):
        reply = self.reply
        self.close()
        try:
            yield
        finally:
            self.program(reply=reply)
            self.reopen()

    @property
    def asked(self):
        return len(self.requests)


class AuthWire:
    LISTENERS = {"plain": {}}

    def __init__(self, directory, auth, routes, listeners=None, workers=1, env=None, upstreams=None, **config):
        directory.mkdir(parents=True, exist_ok=True)
        self.upstream = Upstream()
        self.upstream.program(reply=as_json)
        self.env, self.kept, self.clients = env, {}, []
        self.gateway = Gateway(directory, {
            "workers": workers, "auth": auth, "identity_headers": IDENTITY, "routes": routes,
            "upstreams": {"main": {"targets": [{"address": f"127.0.0.1:{self.upstream.port}"}],
                                   "timeouts": {"response": "20s"}, **NO_BREAKER}, **(upstreams or {})},
            "drain": {"delay": "0s", "timeout": "5s"}, **config,
            **({"listeners": listeners} if listeners else {})})
        self.port = self.gateway.port

    def start(self, **more):
        self.gateway.start(env=self.env, **more)
        return self

    # ---- questions ----

    def client(self, version, port=None):
        """A connection that is kept between questions."""
        key = version, port or self.port
        old = self.kept.get(key)
        if old is None or (old.over if version == "h2" else old.eof):
            if old is not None:
                old.close()
            self.kept[key] = H2Client(key[1], checks=False) if version == "h2" else Raw(key[1])
        return self.kept[key]

    def drop(self, version, port=None):
        old = self.kept.pop((version, port or self.port), None)
        if old is not None:
            old.close()

    def ask(self, version, path, *fields, method="GET", body=None, port=None, trailers=()):
        """The answer; None when the stream was reset or the connection ended instead."""
        if version == "h2":
            try:
                return self.client("h2", port).ask(path, method, *fields, body=body, trailers=trailers,
                                                   length=not trailers)
            except Reset:
                return None
            except Incomplete:
                self.drop("h2", port)
                return None
        client = self.client("h1", port)
        if trailers:
            text = request(path, method, "Transfer-Encoding: chunked", "TE: trailers", *fields)
            text += b"%x\r\n%s\r\n0\r\n" % (len(body), body) + "".join(f"{line}\r\n" for line in trailers).encode("latin-1")
            text += b"\r\n"
        else:
            text = request(path, method, *fields, body=body)
        try:
            got = client.ask(text, method)
        except (Incomplete, ConnectionError):
            got = None
        if got is None or (got.get("Connection") or "").lower() == "close":
            self.drop("h1", port)
        return got

    def timed(self, *question, **more):
        """The answer, and how many seconds it took."""
        began = time.monotonic()
        got = self.ask(*question, **more)
        return got, time.monotonic() - began

    # ---- answers ----

    def refused(self, got, code, status=401, challenge=True):
        """An answer of the gateway's own with this code, and nothing beyond it."""
        assert got is not None, "no answer"
        assert got.status == status, (got.status, got.body)
        assert got.get("Content-Type") == "application/problem+json"
        problem = json.loads(got.body)
        assert (problem["code"], problem["status"]) == (code, status), problem
        if status == 401 and challenge:
            schemes = got.all("WWW-Authenticate")
            assert schemes, "a 401 without WWW-Authenticate"
            error = ERRORS[code]
            assert all(each.startswith("Bearer") for each in schemes), schemes
            if error:
                assert any(f'error="{error}"' in each for each in schemes), schemes
            else:
                assert not any("error=" in each for each in schemes), schemes
        if status == 503:
            assert got.get("Retry-After")
        return problem

    def let_through(self, got):
        """What the upstream has received, as it says in its answer: a dict of its fields in lower case."""
        assert got is not None, "no answer"
        assert got.status == 200, (got.status, got.body)
        seen = {}
        for name, value in json.loads(got.body)["fields"]:
            seen.setdefault(name.lower(), []).append(value)
        return seen

    # ---- state ----

    def metrics(self):
        return self.gateway.metrics()

    def at_rest(self):
        return self.gateway.at_rest()

    def end(self):
        for client in [*self.kept.values(), *self.clients]:
            client.close()
        self.kept.clear()
        self.clients.clear()
        self.gateway.wait_rest()
        self.upstream.check()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.end()
                self.gateway.stop()
        finally:
            self.gateway.kill()
            self.upstream.close()
