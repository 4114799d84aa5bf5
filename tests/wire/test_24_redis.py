"""Revocation through a real Redis: from one gateway's admin API to another's list, with Redis gone, silent, back again,
behind TLS and a password. What each gateway holds shows in GET /api/v1/revocations.
"""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from gateway import DEADLINE, ask, free_port, until

PATH = "/api/v1/revocations"


class Redis:
    """redis-server with options of the test's own; killed and started again at the same port."""

    def __init__(self, directory, *options, tls=None):
        self.directory, self.options, self.port, self.process = directory, options, free_port(), None
        self.tls = tls
        directory.mkdir(exist_ok=True)

    def start(self):
        ports = ["--port", str(self.port)]
        if self.tls:
            ca, certificate = self.tls
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", str(certificate.cert), "--tls-key-file",
                     str(certificate.key), "--tls-ca-cert-file", str(ca), "--tls-auth-clients", "no"]
        with open(self.directory / "redis.log", "ab") as log:
            self.process = subprocess.Popen(["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                             "--dir", str(self.directory), *self.options], stdout=log, stderr=log)
        until(self.listens, "redis listens")
        return self

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, *words):
        """One command on a plain connection; the answer as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as peer:
            encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            peer.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
            return peer.recv(65536)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


@pytest.fixture
def make_redis(tmp_path):
    made = []

    def make_one(*options, name="redis", **more):
        made.append(Redis(tmp_path / name, *options, **more))
        return made[-1].start()
    yield make_one
    for redis in made:
        redis.kill()


@pytest.fixture
def redis(make_redis):
    return make_redis()


@pytest.fixture
def pair(make, redis):
    """Two gateways that share a Redis, connected."""
    gateways = [make({"redis": {"url": f"redis://127.0.0.1:{redis.port}/0"}}).start() for _ in range(2)]
    for gateway in gateways:
        wait_redis(gateway, "up")
    return gateways


def revocations(gateway):
    return json.loads(ask(gateway.admin_port, PATH).body)


def revoke(gateway, **entry):
    return ask(gateway.admin_port, PATH, "POST", json.dumps(entry), {"Content-Type": "application/json"})


def wait_redis(gateway, state):
    until(lambda: revocations(gateway)["redis"] == state, lambda: f"redis {state}: {revocations(gateway)}\n{gateway.log()}")


def wait_count(gateway, count):
    until(lambda: revocations(gateway)["count"] == count, lambda: f"{count} entries: {revocations(gateway)}\n{gateway.log()}")


def test_without_redis(make):
    gateway = make().start()
    assert revocations(gateway) == {"count": 0, "version": 1, "redis": "off"}
    now = int(time.time())
    answer = revoke(gateway, iss="https://a", jti="x", exp=now + 60)
    assert answer.status == 201
    assert json.loads(answer.body) == {"iss": "https://a", "jti": "x", "until": now + 3660, "redis": "off"}
    entry = json.loads(revoke(gateway, sub="ann").body)
    assert abs(entry["before"] - now) <= 5 and entry["until"] > now + 29 * 86400
    state = revocations(gateway)
    assert state["count"] == 2 and state["version"] == 3
    again = json.loads(revoke(gateway, sub="ann", before=5).body)
    if again["until"] == entry["until"]:   # else a second has passed, and it is kept for longer
        assert revocations(gateway) == state
    assert revocations(gateway)["count"] == 2


@pytest.mark.parametrize("body", [
    "", "x", "[]", "{}", '{"jti": ""}', '{"jti": 7}', '{"iss": "i"}', '{"jti": "a", "sub": "b"}', '{"jti": "a", "before": 1}',
    '{"sub": "a", "exp": 1}', '{"sub": "a", "before": 99999999999}', '{"jti": "a", "exp": 1}', '{"jti": "a", "exp": "1"}',
    '{"jti": "a", "exp": 99999999999}', '{"jti": "a", "x": 1}', '{"jti": "a", "jti": "a"}', '{"jti": "%s"}' % ("a" * 1025)])
def test_what_is_no_entry(make, body):
    gateway = make().start()
    answer = ask(gateway.admin_port, PATH, "POST", body)
    assert answer.status == 400 and json.loads(answer.body)["code"] == "bad_request"
    assert revocations(gateway)["count"] == 0


def test_other_methods(make):
    answer = ask(make().start().admin_port, PATH, "DELETE")
    assert answer.status == 405 and {"GET", "POST"} <= set(re.findall(r"\w+", answer.headers["Allow"]))


def test_others_hear_of_it_within_a_second(pair):
    (first, second), took = pair, []
    for i in range(20):
        began = time.monotonic()
        assert revoke(first, iss="https://a", jti=f"token-{i}").status == 201
        wait_count(second, i + 1)
        took.append(time.monotonic() - began)
    assert sorted(took)[15] < 1, took   # a machine that stands still now and then is not what is measured
    assert revoke(second, sub="ann").status == 201
    wait_count(first, 21)
    metrics = first.metrics()
    assert metrics['sallyport_redis_commands_total{result="ok"}'] >= 40
    assert metrics["sallyport_redis_command_duration_seconds_count"] >= 40


def test_a_gateway_that_starts_later_reads_the_list(make, redis, pair):
    member = '{"jti":"%05d"}'
    until_s = int(time.time()) + 1000
    for start in range(0, 2500, 500):   # of one score: more than a page
        words = [word for i in range(start, start + 500) for word in (until_s, member % i)]
        assert redis.ask("ZADD", "sallyport:deny", *words) == b":500\r\n"
    redis.ask("ZADD", "sallyport:deny", until_s + 5, '{"jti":"later"}', 5, '{"jti":"past"}', until_s, "nonsense")
    third = make({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}}).start()
    wait_count(third, 2501)
    assert redis.ask("ZSCORE", "sallyport:deny", '{"jti":"past"}') == b"$-1\r\n"   # forgotten there, too


def test_redis_killed_and_back(redis, pair):
    first, second = pair
    assert revoke(first, jti="before").status == 201
    wait_count(second, 1)
    redis.kill()
    wait_redis(first, "down")
    wait_redis(second, "down")
    assert revocations(second)["count"] == 1   # the last copy stays
    answer = revoke(first, jti="meanwhile")
    assert answer.status == 201 and json.loads(answer.body)["redis"] == "down"
    assert revocations(first)["count"] == 2
    redis.start()   # empty: it kept nothing
    wait_count(second, 2)
    wait_redis(first, "up")
    assert b"meanwhile" in redis.ask("ZRANGE", "sallyport:deny", 0, -1)
    assert revocations(second)["count"] == 2


def test_redis_stopped_for_a_while(redis, pair):
    first, second = pair
    redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert revoke(first, jti="x").status == 201
    assert time.monotonic() - began < 5   # nobody waits for Redis
    wait_redis(first, "down")             # given up by its silence
    assert ask(first.port, "/").status == 200
    redis.process.send_signal(signal.SIGCONT)
    wait_count(second, 1)


def test_a_wrong_password_is_told_calmly(make, make_redis):
    redis = make_redis("--requirepass", "right")
    gateway = make({"redis": {"url": f"redis://:wrong@127.0.0.1:{redis.port}"}}).start()
    gateway.wait_log("WRONGPASS", 2)   # one of each connection
    rejected = len(re.findall("WRONGPASS", gateway.log()))
    before = gateway.metrics()["process_cpu_seconds_total"]
    end = time.monotonic() + 3
    until(lambda: time.monotonic() > end, "three seconds of tries")
    assert len(re.findall("WRONGPASS", gateway.log())) == rejected == 2
    assert gateway.metrics()["process_cpu_seconds_total"] - before < 1
    assert revocations(gateway)["redis"] == "down" and "wrong@" not in gateway.log()
    gateway.reload({**gateway.config, "redis": {"url": f"redis://:right@127.0.0.1:{redis.port}"}})
    wait_redis(gateway, "up")


def test_tls_and_an_acl_user(make, make_redis, pki):
    redis = make_redis("--user", "gate", "on", ">secret", "~sallyport:*", "&sallyport:*", "+@all",
                       tls=(pki.ca.file, pki.ca.issue("IP:127.0.0.1")))
    settings = {"url": f"rediss://127.0.0.1:{redis.port}/1", "username": "gate", "password": {"env": "PASSWORD_OF_REDIS"},
                "ca": str(pki.ca.file)}
    gateways = [make({"redis": settings}).start(env={"PASSWORD_OF_REDIS": "secret"}) for _ in range(2)]
    for gateway in gateways:
        wait_redis(gateway, "up")
    assert revoke(gateways[0], jti="x").status == 201
    wait_count(gateways[1], 1)


def test_a_reload_that_changes_redis(make, make_redis, redis):
    other = make_redis(name="other")
    gateway = make({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}}).start()
    wait_redis(gateway, "up")
    assert revoke(gateway, jti="x").status == 201
    gateway.wait_log("connected to", 2)   # one that subscribes, too
    before = gateway.log().count("connected to")
    gateway.reload()
    assert revocations(gateway)["redis"] == "up" and gateway.log().count("connected to") == before
    redis.kill()
    wait_redis(gateway, "down")
    assert revoke(gateway, jti="waits").status == 201
    gateway.reload({**gateway.config, "redis": {"url": f"redis://127.0.0.1:{other.port}"}})
    wait_redis(gateway, "up")
    until(lambda: b"waits" in other.ask("ZRANGE", "sallyport:deny", 0, -1), "the other server is told")
    gateway.reload({key: value for key, value in gateway.config.items() if key != "redis"})
    assert revocations(gateway) == {"count": 2, "version": 3, "redis": "off"}


class OldRedis:
    """A server that knows no HELLO, as Redis 5: RESP2, one subscriber, one list."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.heard = self.listener.getsockname()[1], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        file = peer.makefile("rb")
        while line := file.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(file.readline()[1:])
                words.append(file.read(size + 2)[:-2])
            self.heard.append(words)
            peer.sendall(self.answer(words))

    def answer(self, words):
        until_s = b"%d" % (time.time() + 100)
        member = b'{"jti":"of old"}'
        if words[0] == b"HELLO":
            return b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
        if words[0] == b"SUBSCRIBE":
            return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(words[1]), words[1])
        if words[0] == b"ZRANGEBYSCORE":
            return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(member), member, len(until_s), until_s)
        if words[0] in (b"ZADD", b"PUBLISH"):
            return b":1\r\n"
        return b"+OK\r\n"


def test_an_old_server(make):
    old = OldRedis()
    gateway = make({"redis": {"url": f"redis://:pw@127.0.0.1:{old.port}", "key_prefix": "x:"}}).start()
    wait_count(gateway, 1)
    wait_redis(gateway, "up")
    assert [b"AUTH", b"pw"] in old.heard and [b"SUBSCRIBE", b"x:deny"] in old.heard
    assert revoke(gateway, jti="new").status == 201
    until(lambda: any(words[:2] == [b"PUBLISH", b"x:deny"] for words in old.heard), "told")
    assert any(words[:2] == [b"ZADD", b"x:deny"] for words in old.heard)
    old.listener.close()


@pytest.mark.parametrize("settings, what", [
    ({"mode": "sentinel"}, "needs nodes"), ({"mode": "cluster"}, "needs nodes"),
    ({"mode": "sentinel", "nodes": ["a:1"]}, "needs master"),
    ({"mode": "cluster", "nodes": ["10.0.0.1:1"], "url": "redis://a/1"}, "only database 0"),
    ({"mode": "cluster", "nodes": ["no-such.invalid:1", "nor.invalid:1"]}, "nor.invalid"),
    ({"url": "http://x"}, "redis://"), ({"nodes": ["a:1"]}, "only for"), ({"username": "u"}, "without a password"),
    ({"ca": "/x"}, "TLS"), ({"url": "rediss://127.0.0.1", "ca": "/no/such"}, "/no/such")])
def test_bad_settings(make, settings, what):
    gateway = make({"redis": settings})
    gateway.start(wait=False)
    assert gateway.wait() != 0 and what in gateway.log()


def test_a_password_in_the_url_is_not_shown(make, redis):
    gateway = make({"redis": {"url": f"redis://u:hidden@127.0.0.1:{redis.port}/3"}})
    dump = subprocess.run([str(gateway.binary), "dump", "-c", str(gateway.file)], capture_output=True, text=True,
                          timeout=DEADLINE, env=os.environ)
    assert f"redis://u:***@127.0.0.1:{redis.port}/3" in dump.stdout and "hidden" not in dump.stdout + dump.stderr
