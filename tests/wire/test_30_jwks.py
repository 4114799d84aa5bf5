"""Key sets, from where they are fetched to the requests that need them: waited for at a start, rotated under load, kept
while the Auth Service is down, slow, stopped or talks nonsense, read from a file, asked for unknown kids.
"""
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from auth_wire import ISSUER, AuthWire, Service, bearer, jwt_provider, route
from gateway import Answer, ask, free_port, until
from secure import SecureUpstream
from tokens import Key, claims, jwks, token

PROVIDER = 'sallyport_jwks_refresh_total{provider="corp",result="%s"}'
JUNK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"keys\":["
NONE = Answer(None, {}, b"")
OOPS = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def keys():
    return [Key("P-256", "first"), Key("Ed25519", "second"), Key("RSA", "third")]


@pytest.fixture
def service():
    service = Service()
    yield service
    if service.listener:
        service.close()


def good(key, **members):
    return token(key, claims(ISSUER, **members))


def wire_of(directory, service=None, workers=1, file=None, drain=None, **settings):
    """A gateway with the provider `corp`, which routes /corp asks, and a public route. settings: of jwks."""
    settings = {"refresh": "1h", "cooldown": "1h", "timeout": "10s", **settings}
    provider = jwt_provider(file=file, jwks=settings) if file else jwt_provider(uri=service.uri("/jwks.json"), jwks=settings)
    return AuthWire(directory, auth={"corp": provider}, routes=[route("corp", "corp"), route("open")], workers=workers)


def status(wire, key, path="/corp", **members):
    got = wire.ask("h1", path, bearer(good(key, **members)))
    return got.status if got else None


def readiness(wire):
    try:
        got = ask(wire.gateway.status_port, "/readyz", timeout=5)
    except OSError:
        return None
    return got.status, json.loads(got.body)


AWAITED = 503, {"status": "not_ready", "reason": "starting", "awaits_keys_of": "corp"}


# ---- a start ----

def test_not_ready_before_the_keys_are_there(tmp_path, service, keys):
    service.close()
    wire = wire_of(tmp_path, service)
    try:
        wire.start(wait=False)
        until(lambda: readiness(wire) == AWAITED, "a start that waits")
        assert wire.ask("h1", "/open").status == 200   # who needs no keys is served
        service.reopen()
        service.publish(jwks(keys[0]))
        wire.gateway.wait_ready()
        assert status(wire, keys[0]) == 200
        assert wire.metrics()[PROVIDER % "success"] == 1
        assert wire.metrics()[PROVIDER % "failure"] >= 1
        wire.end()
        wire.gateway.stop()
    finally:
        wire.gateway.kill()
        wire.upstream.close()


def test_a_request_that_comes_before_the_keys_waits_for_them(tmp_path, service, keys):
    release = threading.Event()
    service.program(reply=lambda request: release.wait(20) and service_answer(jwks(keys[0])))
    wire = wire_of(tmp_path, service, timeout="20s")
    try:
        wire.start(wait=False)
        until(lambda: service.asked == 1, "the first question")
        until(lambda: readiness(wire) == AWAITED, "a start that waits")
        found = []
        asking = threading.Thread(target=lambda: found.append(status(wire, keys[0])))
        asking.start()
        until(lambda: len(exchanges(wire)) == 1, "the request")
        release.set()
        asking.join(30)
        assert found == [200]
        assert service.asked == 1
        wire.end()
        wire.gateway.stop()
    finally:
        release.set()
        wire.gateway.kill()
        wire.upstream.close()


def service_answer(text):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text.encode())


def exchanges(wire):
    return wire.gateway.shown("exchanges")["exchanges"]


def test_ready_without_them_after_ten_seconds(tmp_path, service, keys):
    service.program(reply=lambda request: OOPS)
    wire = wire_of(tmp_path, service)
    try:
        began = time.monotonic()
        wire.start()
        assert 9.5 < time.monotonic() - began < 25
        wire.refused(wire.ask("h1", "/corp", bearer(good(keys[0]))), "auth_unavailable", 503)
        assert wire.ask("h1", "/open").status == 200
        assert "last good ones stay" not in wire.gateway.log()
        service.publish(jwks(keys[0]))   # it goes on trying by itself
        until(lambda: status(wire, keys[0]) == 200, "keys at last")
        wire.end()
        wire.gateway.stop()
    finally:
        wire.gateway.kill()
        wire.upstream.close()


def test_a_process_that_takes_over_accepts_when_it_has_keys(tmp_path, service, keys):
    """The one before has them and serves on: no token is refused while the Auth Service keeps the new one waiting."""
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service) as wire:
        release = threading.Event()
        service.program(reply=lambda request: release.wait(20) and service_answer(jwks(keys[0])))
        before = wire.gateway.worker()
        wire.gateway.signal(signal.SIGUSR2)
        until(lambda: service.asked == 1, "the new process's question")
        for _ in range(20):
            wire.drop("h1")   # a connection each: whoever accepts
            assert status(wire, keys[0]) == 200
            assert wire.gateway.ready() == 200
        release.set()
        until(lambda: before not in wire.gateway.workers(), "the old process gone")
        wire.drop("h1")
        assert status(wire, keys[0]) == 200


def test_after_a_crash_public_routes_are_served_at_once(tmp_path, service, keys):
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service) as wire:
        assert status(wire, keys[0]) == 200
        service.program(reply=lambda request: OOPS)
        os.kill(wire.gateway.worker(), signal.SIGKILL)
        wire.drop("h1")
        until(lambda: (wire.ask("h1", "/open") or NONE).status == 200, "the next process")
        until(lambda: readiness(wire) == AWAITED, "a start that waits")
        service.publish(jwks(keys[0]))
        wire.gateway.wait_ready()
        assert status(wire, keys[0]) == 200


# ---- rotation ----

class KeptClient:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, text):
        self.connection.request("GET", "/corp", headers={"Authorization": f"Bearer {text}"})
        got = self.connection.getresponse()
        return Answer(got.status, {}, got.read())

    def close(self):
        self.connection.close()


class Load:
    """Requests with each of the tokens in turn, on a few connections; what was not answered with 200 is kept."""

    def __init__(self, port, tokens, connections=4):
        self.port, self.tokens = port, tokens
        self.bad, self.count, self.over = [], itertools.count(), threading.Event()
        self.rounds = [0] * connections   # of the tokens that each has begun
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(connections)]
        self.began = time.monotonic()
        for thread in self.threads:
            thread.start()

    def run(self, number):
        client = KeptClient(self.port)
        while not self.over.is_set():
            self.rounds[number] += 1
            for text in list(self.tokens):
                got = client.ask(text)
                next(self.count)
                if got.status != 200:
                    self.bad.append(got)
        client.close()

    def wait_round(self):
        """Until nobody asks with what is not among the tokens any more."""
        before = list(self.rounds)
        until(lambda: all(now > old for now, old in zip(self.rounds, before)), lambda: f"another round: {self.rounds}, {self.bad}")

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
        return next(self.count), time.monotonic() - self.began


def test_rotation_under_load_refuses_no_valid_token(tmp_path, service, keys):
    """Keys come, overlap and go; a token is used the moment its key is published. The cooldown is shorter than what
    lies between two rotations, as it has to be."""
    published = [jwks(keys[0])]
    service.program(reply=lambda request: service_answer(published[-1]))
    with wire_of(tmp_path, service, workers=2, cooldown="200ms", refresh="700ms", timeout="10s") as wire:
        tokens = [good(keys[0], jti=str(n)) for n in range(20)]
        load = Load(wire.port, tokens)
        made = []
        for turn in range(6):
            new, old = Key("P-256", f"turn-{turn}"), made[-1] if made else keys[0]
            made.append(new)
            published.append(jwks(old, new))
            tokens.extend(good(new, jti=f"{turn}-{n}") for n in range(20))   # used at once
            time.sleep(0.5)
            del tokens[:20]                                                # the old one's are no longer used
            load.wait_round()
            time.sleep(0.3)
            published.append(jwks(new))
            time.sleep(0.3)
        count, seconds = load.stop()
        assert load.bad == []
        assert count > 300, f"{count} requests in {seconds:.1f} s: no load"
        # What has gone is refused, also where it was cached.
        until(lambda: status(wire, keys[0]) == 401, "the first key gone")
        assert wire.metrics().get(PROVIDER % "failure", 0) == 0


def test_rotation_without_kids(tmp_path, service):
    """A token that names no key and that none verifies may be of a new one: it is fetched for, and its first token waits."""
    old, new, newer = (Key("P-256") for _ in range(3))
    service.publish(jwks(old))
    with wire_of(tmp_path, service, workers=2, cooldown="500ms") as wire:
        assert status(wire, old) == 200
        service.publish(jwks(new))
        assert status(wire, new) == 200
        assert status(wire, old) == 401
        time.sleep(0.6)   # the cooldown
        text = good(newer)
        assert wire.ask("h1", "/corp", bearer(text)).status == 401   # asked for too early, and then published
        service.publish(jwks(newer))
        until(lambda: wire.ask("h1", "/corp", bearer(text)).status == 200, "no longer refused than for a cooldown")


def test_a_token_of_a_key_that_is_withdrawn_is_refused_though_cached(tmp_path, service, keys):
    service.publish(jwks(keys[0], keys[1]))
    with wire_of(tmp_path, service, refresh="200ms", cooldown="200ms") as wire:
        text = good(keys[1])
        assert wire.ask("h1", "/corp", bearer(text)).status == 200
        assert wire.ask("h1", "/corp", bearer(text)).status == 200
        service.publish(jwks(keys[0]))
        until(lambda: wire.ask("h1", "/corp", bearer(text)).status == 401, "refused")
        wire.refused(wire.ask("h1", "/corp", bearer(text)), "invalid_token")


# ---- unknown kids ----

@pytest.mark.parametrize("named", [True, False])
def test_a_flood_of_unknown_keys_is_one_fetch_a_cooldown(tmp_path, service, keys, named):
    """Of kids that nobody has, and of tokens that name none."""
    service.publish(jwks(keys[0]))
    stranger = Key("P-256", "stranger")
    with wire_of(tmp_path, service, workers=2, cooldown="1s") as wire:
        known = good(keys[0])
        began, before = time.monotonic(), service.asked
        numbers, refused, served, end = itertools.count(), [], [], began + 3.5

        def flood():
            client = KeptClient(wire.port)
            while time.monotonic() < end:
                n = next(numbers)
                bad = token(stranger, claims(ISSUER, jti=str(n)), kid=f"random-{n}" if named else None)
                refused.append(client.ask(bad).status)
                served.append(client.ask(known).status)
            client.close()
        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        spent = time.monotonic() - began
        assert len(refused) > 50
        assert set(refused) == {401} and set(served) == {200}, (set(refused), set(served))
        assert 2 <= service.asked - before <= spent + 1, (service.asked - before, spent)


def test_an_unknown_kid_when_nobody_answers(tmp_path, service, keys):
    """Known keys go on; of an unknown one nobody knows, within the deadline and then at once."""
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service) as wire:
        assert status(wire, keys[0]) == 200
        service.program(reply=lambda request: OOPS)
        got, seconds = wire.timed("h1", "/corp", bearer(good(keys[1])))
        wire.refused(got, "auth_unavailable", 503)
        assert seconds < 5
        wire.refused(wire.ask("h1", "/corp", bearer(good(keys[1]))), "auth_unavailable", 503)
        assert status(wire, keys[0], jti="another") == 200
        service.publish(jwks(keys[0], keys[1]))   # what failed is tried again soon, without being asked
        until(lambda: status(wire, keys[1]) == 200, "the new key")


# ---- an Auth Service in trouble ----

STOPPABLE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = open(sys.argv[2], "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Process:
    """A publisher that can be stopped and killed."""

    def __init__(self, directory, text):
        self.file, self.port = directory / "published.json", free_port()
        self.file.write_text(text)
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", STOPPABLE, str(self.port), str(self.file)])
        until(lambda: self.answers(), "the publisher")

    def answers(self):
        try:
            return ask(self.port, timeout=5).status == 200
        except OSError:
            return False

    def uri(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def kill(self):
        self.process.kill()
        self.process.wait()


def complaints(wire):
    return wire.gateway.log().count("no keys from")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_known_keys_go_on_without_the_auth_service(tmp_path, keys, how):
    publisher = Process(tmp_path, jwks(keys[0]))
    try:
        with wire_of(tmp_path / "gateway", publisher, refresh="200ms", timeout="300ms", cooldown="300ms") as wire:
            until(lambda: status(wire, keys[0]) == 200, "the keys")
            failed = PROVIDER % "failure"
            before, told = wire.metrics().get(failed, 0), complaints(wire)   # of a machine that stood still
            if how == "killed":
                publisher.kill()
            else:
                publisher.process.send_signal(signal.SIGSTOP)
            until(lambda: wire.metrics().get(failed, 0) >= before + 3, "fetches that fail")
            took = []
            for n in range(50):   # none of them cached
                got, seconds = wire.timed("h1", "/corp", bearer(good(keys[0], jti=f"{how}-{n}")))
                assert got.status == 200
                took.append(seconds)
            assert sorted(took)[45] < 0.3, f"requests waited for the Auth Service: {took}"   # some may for the machine
            got, seconds = wire.timed("h1", "/corp", bearer(good(keys[1])))
            wire.refused(got, "auth_unavailable", 503)
            assert seconds < 10
            assert wire.gateway.ready() == 200
            assert 1 <= complaints(wire) <= told + 1   # of each outage one
            if how == "killed":
                publisher.start()
            else:
                publisher.process.send_signal(signal.SIGCONT)
            publisher.file.write_text(jwks(keys[0], keys[1]))
            until(lambda: status(wire, keys[1]) == 200, "the new key")
    finally:
        publisher.kill()


def test_a_slow_auth_service(tmp_path, service, keys):
    """An answer that comes within the timeout counts, bit by bit or not; later ones do not."""
    text = service_answer(jwks(keys[0], keys[1]))
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service, timeout="10s") as wire:
        def slowly(peer, pause):
            while service.read(peer) is not None:
                for at in range(0, len(text), 50):
                    peer.send(text[at:at + 50])
                    time.sleep(pause)
        service.program(script=lambda peer: slowly(peer, 0.02))
        got, seconds = wire.timed("h1", "/corp", bearer(good(keys[1])))
        assert got.status == 200
        assert seconds > 0.1


@pytest.mark.parametrize("reply", [OOPS, JUNK, service_answer("{\"keys\":[]}"), service_answer("[]"), b"SSH-2.0-x\r\n",
                                   service_answer(" " * (256 * 1024 + 1)),
                                   b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
                         ids=["500", "cut", "empty", "list", "other", "large", "redirect"])
def test_what_is_no_key_set_changes_nothing(tmp_path, service, keys, reply):
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service, refresh="100ms", timeout="300ms") as wire:
        service.program(reply=lambda request: reply)
        until(lambda: wire.metrics().get(PROVIDER % "failure", 0) >= 2, "fetches that fail")
        assert status(wire, keys[0]) == 200
        service.publish(jwks(keys[1]))
        until(lambda: status(wire, keys[1]) == 200, "the new keys")

        def is_unknown():   # 503: a machine that stands still has made the last fetch fail
            got = status(wire, keys[0])
            assert got in (401, 503)
            return got == 401
        until(is_unknown, "the old key unknown")


def test_a_private_key_that_was_published_is_not_used(tmp_path, service, keys):
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service, refresh="100ms") as wire:
        service.publish(jwks(keys[1], {**keys[0].jwk(), "d": "AAAA"}))
        until(lambda: wire.metrics().get(PROVIDER % "failure", 0) >= 1, "a fetch that fails")
        assert status(wire, keys[0]) == 200
        wire.gateway.wait_log("private")


def test_the_last_good_keys_run_out(tmp_path, service, keys):
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service, refresh="200ms", keep_last_good="2s") as wire:
        text = good(keys[0])
        assert wire.ask("h1", "/corp", bearer(text)).status == 200
        service.program(reply=lambda request: OOPS)
        until(lambda: wire.ask("h1", "/corp", bearer(text)).status == 503, "too old")   # though it was cached
        service.publish(jwks(keys[0]))
        until(lambda: wire.ask("h1", "/corp", bearer(text)).status == 200, "new ones")


# ---- https ----

@pytest.mark.parametrize("trusted", [True, False])
def test_keys_over_https(tmp_path, keys, pki, trusted):
    """The control thread's own TLS: a service with another's certificate is not believed."""
    service = SecureUpstream(pki.server_context(pki.ca.issue("localhost")))
    service.program(reply=lambda request: service_answer(jwks(keys[0])))
    corp = jwt_provider(uri=f"https://localhost:{service.port}/jwks.json",
                        jwks={"timeout": "1s", "ca": str((pki.ca if trusted else pki.other).file)})
    wire = AuthWire(tmp_path, auth={"corp": corp}, routes=[route("corp", "corp"), route("open")])
    try:
        wire.start(wait=trusted)
        if trusted:
            assert status(wire, keys[0]) == 200
        else:
            wire.gateway.wait_log("corp: no keys from https://localhost")
            until(lambda: readiness(wire) == AWAITED, "a start that waits")
            wire.refused(wire.ask("h1", "/corp", bearer(good(keys[0]))), "auth_unavailable", 503)
            assert not service.requests
        wire.end()
        wire.gateway.stop()
    finally:
        wire.gateway.kill()
        wire.upstream.close()
        service.close()


# ---- files and reloads ----

def test_a_file_is_read_again_when_it_changes(tmp_path, keys):
    file = tmp_path / "keys.json"

    def replace(text):
        new = file.with_suffix(".new")
        new.write_text(text)
        new.rename(file)
    replace(jwks(keys[0]))
    with wire_of(tmp_path / "gateway", file=file) as wire:
        assert status(wire, keys[0]) == 200
        replace(jwks(keys[1], keys[0]))
        until(lambda: status(wire, keys[1]) == 200, "the new key")
        replace("{")
        wire.gateway.wait_log("no keys from .*keys.json")
        assert status(wire, keys[0]) == status(wire, keys[1]) == 200
        file.unlink()
        wire.gateway.wait_log("no keys from .*keys.json", 2)
        assert status(wire, keys[0], jti="x") == 200
        replace(jwks(keys[2]))
        until(lambda: status(wire, keys[2]) == 200, "yet another key")
        assert status(wire, keys[0]) == 401


def test_a_reload_neither_fetches_again_nor_drops_keys(tmp_path, service, keys):
    service.publish(jwks(keys[0]))
    with wire_of(tmp_path, service, workers=2) as wire:
        assert service.asked == 1
        tokens = [good(keys[0], jti=str(n)) for n in range(20)]
        load = Load(wire.port, tokens)
        config = dict(wire.gateway.config)
        for turn in range(8):
            config["routes"] = [*wire.gateway.config["routes"], route(f"more-{turn}", "corp")]
            wire.gateway.reload(config)
            assert wire.gateway.ready() == 200
        count, _ = load.stop()
        assert load.bad == [] and count > 100
        assert service.asked == 1


def test_a_provider_that_a_reload_brings_is_fetched_and_another_forgotten(tmp_path, service, keys):
    service.publish(jwks(keys[0]))
    other = Service()
    try:
        other.publish(jwks(keys[1]))
        with wire_of(tmp_path, service, refresh="100ms") as wire:
            until(lambda: service.asked >= 3, "refreshes")
            config = dict(wire.gateway.config)
            config["auth"] = {"corp": jwt_provider(uri=other.uri("/jwks.json"), jwks={"refresh": "1h"})}
            wire.gateway.reload(config)
            until(lambda: status(wire, keys[1]) == 200, "the new provider's key")
            assert status(wire, keys[0]) in (401, 503)
            at = service.asked
            time.sleep(0.5)
            assert service.asked <= at + 1   # one may have been under way
            assert other.asked >= 1
    finally:
        other.close()
