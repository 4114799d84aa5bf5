"""Idempotency-Key over several gateways that share a Redis, and what becomes of it when Redis is in trouble."""
import itertools
import signal
import threading

import pytest

from gateway import NO_BREAKER, Gateway, until
from gateway import ask as ask_port
from h2_crowds import IDS, KIB, OPEN, SHUT, Crowd, resident_kib, settled
from peers import Raw, request
from service import Service
from test_24_redis import Redis

_keys = itertools.count(1)


@pytest.fixture
def key():
    return f"Idempotency-Key: {next(_keys)}"


@pytest.fixture
def service():
    made = Service("http/1.1")
    made.respond(lambda number: 201)
    yield made
    made.upstream.close()
    made.upstream.check()


@pytest.fixture
def redis(tmp_path):
    made = Redis(tmp_path / "redis").start()
    yield made
    made.kill()


@pytest.fixture
def pair(tmp_path, redis, service):
    """Two gateways with one Redis."""
    made = []
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        made.append(Gateway(directory, {
            "redis": {"url": f"redis://127.0.0.1:{redis.port}/0", "deadline": "3s"},
            "upstreams": {"service": {"targets": [{"address": f"127.0.0.1:{service.upstream.port}"}], "retries": {"attempts": 0},
                                      **NO_BREAKER}},
            "routes": [{"name": name, "upstream": "service", "match": {"path": {"prefix": f"/{name}"}}, "idempotency": settings}
                       for name, settings in (("pay", {"response_bytes": "1KiB"}), ("long", {"response_bytes": "1MiB"}), ("deny", {"on_redis_down": "deny"}),
                                              ("local", {"store": "local"}), ("brief", {"ttl": "1s"}))],
        }).start())
    for gateway in made:   # each worker's connection
        until(lambda g=gateway: all(ask(g, "/deny", f"Idempotency-Key: warm-{next(_keys)}").status == 201 for _ in range(20)),
              "connected to Redis")
    service.respond(lambda number: 201)
    yield made
    for gateway in made:
        gateway.stop()
        gateway.kill()


def ask(gateway, path, *fields, body=b"1"):
    with Raw(gateway.port) as client:
        return client.ask(request(path, "POST", *fields, body=body))


def replayed(got):
    return got.status == 201 and got.body == b"done" and got.get("Idempotent-Replayed") == "true"


def test_one_gateways_answer_is_the_others(pair, service, key):
    first, second = pair
    assert ask(first, "/pay", key).get("Idempotent-Replayed") is None
    until(lambda: replayed(ask(second, "/pay", key)), "the answer in Redis")
    assert replayed(ask(first, "/pay", key))
    got = ask(second, "/pay", key, body=b"2")
    assert got.status == 422 and got.json["code"] == "idempotency_mismatch"
    assert len(service.requests) == 1


def test_nothing_of_the_request_is_in_the_key(pair, redis):
    assert ask(pair[0], "/pay", "Idempotency-Key: secret-order-17").status == 201
    keys = redis.ask("KEYS", "*")
    assert b"sallyport:idempotency:" in keys and b"secret" not in keys


def test_under_way_elsewhere(pair, service, key):
    release = threading.Event()
    service.respond(lambda number: release.wait(30) and 201)
    first, second = pair
    with Raw(first.port) as client:
        client.send(request("/pay", "POST", key, body=b"1"))
        until(lambda: service.requests, "the first request")
        got = ask(second, "/pay", key)
        assert got.status == 409 and got.json["code"] == "idempotency_in_progress"
        release.set()
        assert client.response().status == 201
    until(lambda: replayed(ask(second, "/pay", key)), "the answer in Redis")
    assert len(service.requests) == 1


def test_one_of_many_is_carried_out(pair, service, key):
    got = []
    crowd = [threading.Thread(target=lambda gateway=gateway: got.append(ask(gateway, "/pay", key))) for gateway in pair * 10]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len(service.requests) == 1 and {one.status for one in got} <= {201, 409}


def test_a_failure_gives_the_key_back(pair, service, key):
    service.respond(lambda number: None if number == 1 else 201)
    first, second = pair
    assert ask(first, "/pay", key).status == 502
    got = until(lambda: (lambda got: got if got.status == 201 else None)(ask(second, "/pay", key)), "the key free")
    assert got.get("Idempotent-Replayed") is None and len(service.requests) == 2


def test_an_answer_too_long_to_keep(pair, service, key):
    service.respond(lambda number: 200, body=b"y" * 2048)
    first, second = pair
    assert ask(first, "/pay", key).status == 200
    until(lambda: ask(second, "/pay", key).json["code"] == "idempotency_not_replayable", "what became of it in Redis")
    assert len(service.requests) == 1


def test_an_answer_is_kept_for_its_time(pair, service, key):
    first, second = pair
    assert ask(first, "/brief", key).status == 201
    until(lambda: ask(second, "/brief", key).get("Idempotent-Replayed") is None and len(service.requests) == 2, "it is forgotten")


@pytest.mark.parametrize("value", ["", "x", "r", "d" + "x" * 31, "d" + "x" * 32, "d" + "x" * 60, "?" * 100])
def test_what_redis_has_is_no_answer(pair, service, redis, key, value):
    """Nor is it believed: nothing is carried out, nothing breaks."""
    first, second = pair
    redis.ask("FLUSHALL")
    assert ask(first, "/pay", key).status == 201
    name = until(lambda: next((word for word in redis.ask("KEYS", "*").split() if b"idempotency" in word), None), "the key").decode()
    redis.ask("SET", name, value)
    assert ask(second, "/pay", key).status in (409, 422) and len(service.requests) == 1


def test_trailers_by_way_of_redis(pair, service, key):
    service.respond(lambda number: 201, trailers=["X-Checksum: c0ffee"])
    first, second = pair
    assert ask(first, "/pay", key).trailers == [("X-Checksum", "c0ffee")]
    got = until(lambda: (lambda got: got if replayed(got) else None)(ask(second, "/pay", key)), "the answer in Redis")
    assert got.trailers == [("X-Checksum", "c0ffee")] and len(service.requests) == 1


def test_what_an_older_gateway_has_kept(pair, service, redis, key):
    """Its answers have no count of trailers; those that it cannot read have a status that it takes for none."""
    first, second = pair
    redis.ask("FLUSHALL")
    service.respond(lambda number: 201, trailers=["X-Checksum: c0ffee"])
    assert ask(first, "/pay", key).status == 201
    name = until(lambda: next((word for word in redis.ask("KEYS", "*").split() if b"idempotency" in word), None), "the key").decode()

    def value():
        text = redis.ask("GET", name)
        return text[text.index(b"\r\n") + 2:-2]
    kept = until(lambda: (lambda text: text if text[:1] == b"d" else None)(value()), "the answer in Redis")
    assert kept[33:37] == b"\0\1\0\xc9"
    older = kept[:33] + b"\0\0\0\xc9" b"\0\0\0\1" b"\0\0\0\5\0\0\0\1" b"X-Olda" b"done"
    redis.ask("SET", name, older)
    got = ask(second, "/pay", key)
    assert replayed(got) and got.get("X-Old") == "a" and not got.trailers


def test_a_list_under_the_key(pair, service, redis, key):
    """An error of Redis's own is trouble like any other."""
    first, second = pair
    redis.ask("FLUSHALL")
    assert ask(first, "/deny", key).status == 201
    name = until(lambda: next((word for word in redis.ask("KEYS", "*").split() if b"idempotency" in word), None), "the key").decode()
    redis.ask("DEL", name)
    redis.ask("RPUSH", name, "x")
    assert ask(second, "/deny", key).status == 503


def test_what_is_kept_here_only(pair, service, key):
    first, second = pair
    assert ask(first, "/local", key).status == 201
    assert replayed(ask(first, "/local", key))
    assert ask(second, "/local", key).get("Idempotent-Replayed") is None


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_redis(pair, service, redis, key, how):
    """local: this gateway's own answers count; deny: nothing is carried out."""
    if how == "killed":
        redis.kill()
    else:
        redis.process.send_signal(signal.SIGSTOP)
    first, _ = pair
    got = ask(first, "/pay", key)
    assert got.status == 201 and got.get("Idempotent-Replayed") is None
    assert replayed(ask(first, "/pay", key))
    got = ask(first, "/deny", key)
    assert got.status == 503 and got.json["code"] == "idempotency_unavailable" and got.get("Retry-After")
    assert len(service.requests) == 1
    if how == "frozen":
        redis.process.send_signal(signal.SIGCONT)
        until(lambda: ask(first, "/deny", f"Idempotency-Key: again-{next(_keys)}").status == 201, "Redis again")
        assert replayed(ask(first, "/pay", key))   # what was carried out without Redis is not carried out again


def test_a_client_that_goes_while_redis_is_asked(pair, service, redis, key):
    """What Redis says later is for nobody: the key is free again."""
    redis.process.send_signal(signal.SIGSTOP)
    with Raw(pair[0].port) as gone:
        gone.send(request("/deny", "POST", key, body=b"1"))
        until(lambda: b'"gather"' in exchanges(pair[0]), "it waits for Redis")
        gone.reset()
    until(lambda: b'"gather"' not in exchanges(pair[0]), "it is gone")
    redis.process.send_signal(signal.SIGCONT)
    until(lambda: ask(pair[1], "/deny", key).status == 201, "the key free")
    assert len(service.requests) == 1


def test_who_takes_nothing_has_few_answers_of_its_own(pair, service):
    """Those that are in Redis alone are read for each stream: one connection may hold so much of them, and no more."""
    first, second = pair
    keys = [f"long-{next(_keys)}" for _ in IDS]
    body = b"z" * 200 * KIB
    service.respond(lambda number: 201, body=body)
    for key in keys:
        assert ask(first, "/long", f"Idempotency-Key: {key}", body=b"").status == 201
    until(lambda: ask(second, "/long", f"Idempotency-Key: {keys[-1]}", body=b"").get("Idempotent-Replayed"), "the last in Redis")
    before = resident_kib(second)
    crowd = Crowd(second.port, SHUT)
    for i, key in zip(IDS, keys):
        crowd.ask(lambda _: "/long", [i], "POST", [("idempotency-key", key)])
    crowd.read(lambda: all(crowd.status(i) for i in IDS))
    until(second.at_rest, "every exchange over")
    kib = settled(lambda: resident_kib(second)) - before
    print(f"\nheld of answers from Redis: {kib} KiB")
    assert kib < 4 * 1024   # of 20,000
    good = [i for i in IDS if crowd.status(i) == 201]
    assert len(good) == 3   # the room is full with them
    assert {crowd.status(i) for i in set(IDS) - set(good)} == {503}
    crowd.send(OPEN)
    crowd.take_all(lambda _: body, good, 201)
    left = [i for i in IDS if i not in good]
    crowd.read(lambda: crowd.ended >= set(left))
    assert all(b'"overloaded"' in b"".join(crowd.parts[i]) for i in left)
    again = keys[left[0] // 2]
    crowd.ask(lambda _: "/long", [2 * len(IDS) + 1], "POST", [("idempotency-key", again)])
    crowd.read(lambda: 2 * len(IDS) + 1 in crowd.ended)
    assert crowd.status(2 * len(IDS) + 1) == 201
    crowd.close()
    assert len(service.requests) == len(keys)


def exchanges(gateway):
    return ask_port(gateway.admin_port, "/api/v1/exchanges").body
