"""Keys that rotate under the load of a whole site: no valid token is refused.

The requests are bench/load's. SALLYPORT_ROTATION_RATE: requests a second (1000, and fewer of a sanitizer's build, which on a busy
machine can answer no more; 5000 on a machine that is free).
"""
import contextlib
import json
import os
import subprocess

import pytest
from auth_wire import ISSUER, AuthWire, Service, jwt_provider, route
from gateway import BUILD, DEADLINE, ask, free_port, until
from h2_wire import SANITIZED
from test_30_jwks import service_answer
from tokens import Key, claims, jwks, token

RATE = int(os.environ.get("SALLYPORT_ROTATION_RATE", "1000" if not SANITIZED else "300"))
TURNS, SECONDS = 6, 1.5   # a key is used for two turns: its own and the next one's
TOKENS = 500              # of each key, each of them cold at first
FETCHED = 'sallyport_jwks_refresh_total{provider="corp",result="%s"}'


@pytest.fixture
def origin():
    port = free_port()
    process = subprocess.Popen([BUILD / "bench/origin", f"127.0.0.1:{port}"])
    until(lambda: answers(port), "the origin")
    yield port
    process.kill()
    process.wait()


def answers(port):
    try:
        return ask(port).status == 200
    except OSError:
        return False


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


def tokens_of(directory, key):
    file = directory / f"{key.kid}.tokens"
    file.write_text("".join(token(key, claims(ISSUER, jti=f"{n:06}")) + "\n" for n in range(TOKENS)))
    return file


def load(wire, file):
    """Half of the rate with these tokens, for two turns."""
    return subprocess.Popen(
        [BUILD / "bench/load", "--to", f"127.0.0.1:{wire.port}", "--path", "/corp", "--connections", "32", "--tokens", file,
         "--in-order", "--rate", str(RATE // 2), "--seconds", str(2 * SECONDS)], stdout=subprocess.PIPE, text=True)


def result(process):
    printed, _ = process.communicate(timeout=DEADLINE)
    return json.loads(printed.splitlines()[-1])


def test_no_valid_token_is_refused(tmp_path, service, origin):
    """Each key is used the moment it is published, next to the one before it, which is withdrawn once nobody uses it any
    more. What the load counts as errors: any status but 200, broken connections, requests without an answer."""
    keys = [Key("P-256", f"turn-{turn}") for turn in range(TURNS + 1)]
    files = [tokens_of(tmp_path, key) for key in keys]
    published = [jwks(keys[0])]
    service.program(reply=lambda request: service_answer(published[-1]))
    jwt = jwt_provider(uri=service.uri("/jwks.json"), jwks={"refresh": "700ms", "cooldown": "200ms", "timeout": "20s"})
    with AuthWire(tmp_path / "gateway", {"corp": jwt}, [route("corp", "corp", upstream="origin")], workers=2,
                  upstreams={"origin": {"targets": [{"address": f"127.0.0.1:{origin}"}]}}) as wire:
        results, running = [], load(wire, files[0])
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(SECONDS)
            for old, new, file in zip(keys, keys[1:], files[1:]):
                published.append(jwks(old, new))   # and not the one before: its load is over
                former, running = running, load(wire, file)
                results.append(result(former))
            results.append(result(running))
        finally:
            running.kill()
        fetches = {how: wire.metrics().get(FETCHED % how, 0) for how in ("success", "failure")}
        print(f"{sum(each['requests'] for each in results)} requests, {fetches}, the slowest answer "
              f"{max(each['latency_us']['max'] for each in results) / 1e3:.0f} ms")
        assert [each["errors"] for each in results] == [0] * len(keys), results
        assert sum(each["requests"] for each in results) >= 0.9 * RATE * SECONDS * len(keys)
        assert fetches["failure"] == 0 and fetches["success"] > TURNS
