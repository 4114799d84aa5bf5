"""TLS to upstreams: nothing is said to one who is not who it should be."""
import hashlib
import json
import re
import subprocess
import threading
import time

import pytest

from certificates import DAY
from gateway import BINARY, ask, free_port, until
from peers import Incomplete, Raw, Upstream, answer, request
from secure import QUARANTINE_KIB, SecureUpstream, Truncated
from wire import Wire

PATIENT = {"timeouts": {"connect": "20s", "response": "20s"}}


class Outward(Wire):
    """A plain listener, and upstreams of every kind behind TLS."""

    LISTENERS = {"plain": {"limits": {"body_bytes": "1GiB"}}}

    def __init__(self, directory, pki):
        self.pki = pki
        ca, named = pki.ca.file, {"ca": pki.ca.file, "server_name": "s.example"}
        mine = pki.clients.issue("gateway.example", client=True)
        stranger = pki.other.issue("gateway.example", client=True)
        good = pki.ca.issue("s.example")

        def own(certificate):
            return {"cert": str(certificate.cert), "key": str(certificate.key)}

        # name: (tls settings, the upstream's certificate, more of its context)
        self.kinds = {
            "good": (named, good, {}),
            "rsa": ({**named, "ca": pki.rsa_ca.file}, pki.rsa_ca.issue("s.example", kind="rsa"), {}),
            "chain": (named, pki.intermediate.issue("s.example"), {}),
            "wildcard": ({**named, "server_name": "x.w.example"}, pki.ca.issue("*.w.example"), {}),
            "old": (named, good, {"version": "1.2"}),
            "alpn": (named, good, {"alpn": ["http/1.1"]}),
            "address": ({"ca": ca}, pki.ca.issue("IP:127.0.0.1"), {}),
            "unverified": ({"verify": False}, pki.expired("whoever.example"), {}),
            "unverified_named": ({"verify": False, "server_name": "n.example"}, pki.other.issue("x.example"), {}),
            "mutual": ({**named, **own(mine)}, good, {"client_ca": pki.clients}),
            "mutual_stranger": ({**named, **own(stranger)}, good, {"client_ca": pki.clients}),
            "mutual_none": (named, good, {"client_ca": pki.clients}),
            "other_ca": (named, pki.other.issue("s.example"), {}),
            "system": ({"server_name": "s.example"}, good, {}),
            "wrong_name": ({**named, "server_name": "t.example"}, good, {}),
            "wrong_wildcard": ({**named, "server_name": "y.x.w.example"}, pki.ca.issue("*.w.example"), {}),
            "wrong_address": ({"ca": ca}, pki.ca.issue("IP:127.0.0.2"), {}),
            "address_as_name": ({"ca": ca}, pki.ca.issue("127.0.0.1"), {}),
            "common_name": ({"ca": ca, "server_name": "cn.example"}, pki.ca.issue("z.example", common_name="cn.example"), {}),
            "common_name_alone": ({"ca": ca, "server_name": "cn.example"}, pki.ca.issue(common_name="cn.example"), {}),
            "expired": (named, pki.expired("s.example"), {}),
            "not_yet": (named, pki.not_yet("s.example"), {}),
            "client_usage": (named, pki.ca.issue("s.example", client=True), {}),
            "other_protocol": (named, good, {"alpn": ["spdy/3"]}),
        }
        self.UPSTREAMS = {name: {"tls": kind[0], **PATIENT} for name, kind in self.kinds.items()}
        self.UPSTREAMS["plain_http"] = {"tls": named, "timeouts": {"connect": "1s"}}   # each waits for the other to speak
        super().__init__(directory)

    def new_upstream(self, target):
        if target == "plain_http":
            return Upstream()
        _, certificate, more = self.kinds[target]
        return SecureUpstream(self.pki.server_context(certificate, **more))

    def routes(self):
        return [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name} for name in self.UPSTREAMS]


@pytest.fixture(scope="module")
def whole_outward(tmp_path_factory, pki):
    with Outward(tmp_path_factory.mktemp("outward"), pki) as wire:
        yield wire


@pytest.fixture
def outward(whole_outward):
    whole_outward.begin()
    yield whole_outward
    whole_outward.end()


# ---- who is believed ----

@pytest.mark.parametrize("name, asked", [
    ("good", "s.example"), ("rsa", "s.example"), ("chain", "s.example"), ("wildcard", "x.w.example"), ("old", "s.example"),
    ("alpn", "s.example"), ("address", None), ("unverified", None), ("unverified_named", "n.example"),
    ("mutual", "s.example")])
def test_verified(outward, name, asked):
    upstream = outward[name]
    upstream.program(reply=lambda r: answer(r.target.encode(), "200 OK"))
    assert outward.raw().ask(request(f"/{name}/x")).body == f"/{name}/x".encode()
    assert set(upstream.names) == {asked} and not upstream.refusals
    peer = upstream.peers[-1]
    assert peer.version == ("TLSv1.2" if name == "old" else "TLSv1.3")
    assert peer.alpn == ("http/1.1" if name == "alpn" else None)
    assert upstream.only().get("Host") == "test"   # the name of TLS is no Host


@pytest.mark.parametrize("name", ["other_ca", "system", "wrong_name", "wrong_wildcard", "wrong_address", "address_as_name",
                                  "common_name", "common_name_alone", "expired", "not_yet", "client_usage"])
def test_not_verified(outward, name):
    """502, and the upstream has not seen a byte of the request."""
    got = outward.raw().ask(request(f"/{name}", "POST", "Authorization: Bearer secret", body=b"secret"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed", got
    upstream = outward[name]
    until(lambda: upstream.refusals, "the handshake ended at the upstream")
    assert not upstream.received and not upstream.requests
    assert all("ALERT" in str(why).upper() or isinstance(why, Truncated) for why in upstream.refusals)


def test_an_upstream_that_picks_a_protocol_that_was_not_offered_is_plain_http_1_1(outward):
    """ALPN: spdy/3 was not offered, so none is agreed on; python's server then goes on without."""
    assert outward.raw().ask(request("/other_protocol")).status == 200


@pytest.mark.parametrize("name", ["mutual_none", "mutual_stranger"])
def test_an_upstream_that_refuses_the_gateway(outward, name):
    """With TLS 1.3 it says so after the handshake is complete for us: the request may be on its way, but is answered."""
    got = outward.raw().ask(request(f"/{name}"))
    assert got.status == 502 and got.json["code"] in ("upstream_connect_failed", "upstream_reset")
    assert not outward[name].requests and not outward[name].received


def test_an_upstream_that_speaks_plain_http(outward):
    got = outward.raw().ask(request("/plain_http", "POST", "Authorization: Bearer secret", body=b"secret"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    assert not outward["plain_http"].requests and b"secret" not in outward["plain_http"].received


def test_an_upstream_that_never_ends_its_handshake(make, pki):
    """timeouts.connect is for TCP and TLS together."""
    silent = Upstream().program(lambda peer: peer.ended())
    gateway = make({"upstreams": {"u": {"targets": [{"address": f"127.0.0.1:{silent.port}"}], "timeouts": {"connect": "300ms"},
                                        "tls": {"ca": pki.ca.file, "server_name": "s.example"}, "retries": {"attempts": 0}}},
                    "routes": [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]}).start()
    began = time.monotonic()
    got = Raw(gateway.port).ask(request("/"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    assert 0.25 < time.monotonic() - began < 5
    gateway.stop()
    silent.close()


def test_nonsense_instead_of_a_handshake(make, pki):
    for nonsense in (b"\xff" * 1000, b"\x16\x03\x03\xff\xff" + bytes(70000), b"\x15\x03\x03\0\2\2\x28",
                     b"\x16\x03\x03\0\0" * 500):
        broken = Upstream().program(lambda peer, nonsense=nonsense: (peer.send(nonsense), peer.ended()))
        gateway = make({"upstreams": {"u": {"targets": [{"address": f"127.0.0.1:{broken.port}"}],
                                            "tls": {"ca": pki.ca.file, "server_name": "s.example"}, **PATIENT}},
                        "routes": [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]}).start()
        got = Raw(gateway.port).ask(request("/"))
        assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
        gateway.stop()
        broken.close()


# ---- connections and sessions ----

@pytest.mark.parametrize("name", ["good", "old"])
def test_a_connection_is_kept(outward, name):
    """TLS 1.3 tickets that come behind the handshake are no bytes nobody asked for."""
    client = outward.raw()
    for i in range(20):
        assert client.ask(request(f"/{name}/{i}")).status == 200
        until(lambda: outward.pooled(name) == 1, "the connection in the pool")
    assert outward[name].accepted == 1 and len(outward[name].requests) == 20


@pytest.mark.parametrize("name", ["good", "old"])
def test_sessions_are_resumed(outward, name):
    def script(peer):
        outward[name].read(peer)
        peer.send(answer(b"bye", "200 OK", "Connection: close"))
        peer.shut()

    outward[name].program(script)
    for _ in range(4):
        assert outward.raw().ask(request(f"/{name}")).status == 200
    resumed = [peer.resumed for peer in outward[name].peers]
    assert len(resumed) == 4 and all(resumed[1:]), resumed


def test_an_idle_connection_that_the_upstream_ends(outward):
    client = outward.raw()
    assert client.ask(request("/good")).status == 200
    until(lambda: outward.pooled("good") == 1, "the connection in the pool")
    peer = outward["good"].peers[0]
    peer.shut()
    peer.close()
    until(lambda: outward.pooled("good") == 0, "an empty pool")
    assert client.ask(request("/good", "POST", body=b"not to be repeated")).status == 200
    assert outward["good"].accepted == 2


def test_new_keys_on_an_idle_connection(make, pki):
    """A KeyUpdate (RFC 8446 4.6.3) that comes while nobody waits for anything is no reason to close."""
    good, port = pki.ca.issue("s.example"), free_port()
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(good.cert), "-key",
                               str(good.key), "-tls1_3", "-naccept", "1"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    gateway = outward_to(make, port, {"ca": pki.ca.file, "server_name": "s.example"})
    try:
        assert b"ACCEPT" in server.stdout.readline() + server.stdout.readline()
        gateway.start()
        client = Raw(gateway.port)
        for path in ("/one", "/two", "/three"):
            client.send(request(path))
            line = b""
            while f"GET {path} ".encode() not in line:
                line = server.stdout.readline()
                assert line, "the upstream's connection has ended"
            while line != b"\r\n":
                line = server.stdout.readline()
            server.stdin.write(answer(path.encode()))
            server.stdin.flush()
            assert client.response().body == path.encode()
            server.stdin.write(b"K\n")
            server.stdin.flush()
        gateway.stop()
    finally:
        server.kill()
        server.communicate()


def outward_to(make, port, tls):
    return make({"workers": 1, "upstreams": {"u": {"targets": [{"address": f"127.0.0.1:{port}"}], "tls": tls,
                                                   "retries": {"attempts": 0}}},
                 "routes": [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]})


def with_tls(gateway, tls):
    config = json.loads(json.dumps(gateway.config))
    config["upstreams"]["u"]["tls"] = tls
    return config


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("before, after", [("good", "ca"), ("good", "name"), ("unverified", "good ca of another")])
def test_nothing_made_under_another_policy_is_used(make, pki, version, before, after):
    """Neither an idle connection nor a session that was made before the file asked for more."""
    good = {"ca": pki.ca.file, "server_name": "s.example"}
    settings = {"good": good, "unverified": {"verify": False, "server_name": "s.example"},
                "ca": {**good, "ca": pki.other.file}, "name": {**good, "server_name": "t.example"},
                "good ca of another": {**good, "ca": pki.other.file}}
    upstream = SecureUpstream(pki.server_context(pki.ca.issue("s.example"), version=version))
    gateway = outward_to(make, upstream.port, settings[before]).start()
    client = Raw(gateway.port)
    assert client.ask(request("/")).status == 200
    gateway.reload_everywhere(with_tls(gateway, settings[after]))
    got = client.ask(request("/"))
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed", got
    assert len(upstream.requests) == 1
    gateway.stop()
    upstream.close()


def test_a_reload_that_changes_nothing_keeps_connections(make, pki):
    upstream = SecureUpstream(pki.server_context(pki.ca.issue("s.example")))
    gateway = outward_to(make, upstream.port, {"ca": pki.ca.file, "server_name": "s.example"}).start()
    client = Raw(gateway.port)
    assert client.ask(request("/")).status == 200
    gateway.reload_everywhere({**gateway.config, "drain": {"delay": "1s", "timeout": "20s"}})
    assert client.ask(request("/")).status == 200
    assert upstream.accepted == 1
    gateway.stop()
    upstream.close()


# ---- bodies ----

@pytest.mark.parametrize("name", ["good", "old"])
def test_bodies_both_ways(outward, name):
    outward[name].program(reply=lambda r: answer(r.body))
    client = outward.raw()
    for size in (0, 1, 16384, 16385, 3_000_000):
        body = hashlib.shake_256(b"x").digest(size)
        got = client.ask(request(f"/{name}", "POST", body=body))
        assert got.status == 200 and hashlib.sha256(got.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("name", ["good", "old"])
def test_a_close_delimited_body_ends_with_close_notify_alone(outward, name):
    def whole(peer):
        outward[name].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is")
        (peer.shut if goodbye else peer.cut)()
        peer.ended()

    goodbye = True
    outward[name].program(whole)
    client = outward.raw()
    assert client.ask(request(f"/{name}")).body == b"all there is"
    goodbye = False
    client = outward.raw()
    client.send(request(f"/{name}"))
    with pytest.raises((Incomplete, ConnectionError)):
        client.response()
    cause = outward.ends("upstream_truncated") + outward.ends("upstream_reset")
    assert cause >= 1


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
@pytest.mark.parametrize("end", ["shut", "cut"])
def test_an_answer_that_is_cut_never_looks_complete(outward, head, end):
    def script(peer):
        outward["good"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\n" + head)
        getattr(peer, end)()
        peer.ended()

    outward["good"].program(script)
    client = outward.raw()
    client.send(request("/good"))
    with pytest.raises((Incomplete, ConnectionError)):
        client.response()


def test_an_answer_in_records_of_one_byte(outward):
    def script(peer):
        outward["good"].read(peer)
        peer.send_slowly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
        peer.ended()

    outward["good"].program(script)
    assert outward.raw().ask(request("/good")).body == b"abc"


def test_a_record_that_was_tampered_with(outward):
    def script(peer):
        outward["good"].read(peer)
        peer.tls.write(answer(b"forged"))
        data = bytearray(peer.outgoing.read())
        data[-1] ^= 1
        peer.socket.sendall(data)
        peer.ended()

    outward["good"].program(script)
    got = outward.raw().ask(request("/good", "POST", body=b""))
    assert got.status == 502 and got.json["code"] == "upstream_reset"


def test_a_slow_reader_slows_down_the_upstream(outward):
    size, sent = 128, []

    def script(peer):
        outward["good"].read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size << 20))
        for _ in range(size):
            peer.send(bytes(1 << 20))
            sent.append(1)

    outward["good"].program(script)
    before, client = outward.resident_kib(), outward.raw(receive_buffer=64 * 1024)
    client.send(request("/good"))
    began = [0, 0]

    def stopped():
        if len(sent) != began[0]:
            began[:] = len(sent), time.monotonic()
        return sent and time.monotonic() - began[1] > 0.3

    until(stopped, "the answer has come to a stop")
    assert len(sent) < size // 2 and outward.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB


def test_the_upstream_reads_slowly(outward):
    go, done = threading.Event(), []

    def script(peer):
        peer.head()
        assert go.wait(60)
        done.append(hashlib.sha256(peer.exactly(48 << 20)).digest())
        peer.send(answer(b"taken"))

    outward["good"].program(script)
    before, client, sent = outward.resident_kib(), outward.raw(), []
    block = hashlib.shake_256(b"y").digest(1 << 20)

    def send():
        client.send(b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (48 << 20))
        for _ in range(48):
            client.send(block)
            sent.append(1)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    began = [0, 0]

    def stopped():
        if len(sent) != began[0]:
            began[:] = len(sent), time.monotonic()
        return sent and time.monotonic() - began[1] > 0.3

    until(stopped, "the body has come to a stop")
    assert len(sent) < 40 and outward.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB
    go.set()
    thread.join(60)
    assert client.response().body == b"taken" and done == [hashlib.sha256(block * 48).digest()]


# ---- health checks ----

def test_health_checks(make, pki):
    """With the same eyes as requests."""
    good, wrong = (SecureUpstream(pki.server_context(pki.ca.issue(name))) for name in ("s.example", "t.example"))
    gateway = make({"upstreams": {
        "u": {"targets": [{"address": f"127.0.0.1:{u.port}"} for u in (good, wrong)], "panic_threshold": 0,
              "tls": {"ca": pki.ca.file, "server_name": "s.example"},
              "health_check": {"path": "/healthy", "interval": "1s", "timeout": "1s", "healthy": 1, "unhealthy": 2}}},
        "routes": [{"name": "u", "match": {"path": {"prefix": "/"}}, "upstream": "u"}]}).start()

    def up(upstream):
        return gateway.metrics().get(f'sallyport_upstream_endpoint_up{{upstream="u",endpoint="127.0.0.1:{upstream.port}"}}')

    until(lambda: up(wrong) == 0 and up(good) == 1, lambda: f"what the checks found: {gateway.log()}")
    until(lambda: any(r.target == "/healthy" for r in good.requests), "a check")
    client = Raw(gateway.port)
    for _ in range(6):
        assert client.ask(request("/x")).status == 200
    assert not wrong.requests and set(good.names) == {"s.example"}
    shown = json.loads(ask(gateway.admin_port, "/api/v1/upstreams").body)
    assert "verif" in json.dumps(shown).lower() or "certificate" in json.dumps(shown).lower(), shown
    gateway.stop()
    good.close()
    wrong.close()


# ---- the configuration ----

@pytest.mark.parametrize("tls, why", [
    ({"ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem"), ({"cert": "MINE"}, "key"), ({"cert": "MINE", "key": "OTHER"}, "OTHER")])
def test_bad_files(make, pki, tls, why):
    names = {"MINE": str(pki.clients.issue("m", client=True).cert), "OTHER": str(pki.other.issue("o").key)}
    gateway = outward_to(make, 9, {key: names.get(value, value) for key, value in tls.items()})
    done = subprocess.run([str(BINARY), "check", "-c", str(gateway.file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and names.get(why, why) in done.stderr
    assert re.search(r"^\S+:\d+:\d+: upstreams\.u\.tls", done.stderr, re.M), done.stderr
