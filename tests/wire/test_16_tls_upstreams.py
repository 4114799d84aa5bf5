"""TLS towards upstreams: whom the gateway believes, what it shows of itself, sessions that are resumed, connections that
wait in a pool, and answers that are cut off.
"""
import ssl
import threading
import time

import pytest

from gateway import free_port, until
from h2_peers import H2Upstream
from peers import Incomplete, Raw, Upstream, answer, request

NAME = "upstream.example"


class TlsUpstream(Upstream):
    """HTTP/1.1 over TLS."""

    def __init__(self, context):
        self.tls = context
        super().__init__()

    def run(self, script, peer):
        try:
            peer.socket = self.tls.wrap_socket(peer.socket, server_side=True)
        except OSError as failure:
            peer.why, peer.over = failure, True
            peer.close()
            return
        super().run(script, peer)


UPSTREAMS = {"http/1.1": TlsUpstream, "h2": H2Upstream}
ALPN = {"http/1.1": ["http/1.1"], "h2": ["h2"]}
both = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])


class Setup:
    """A gateway before one upstream."""

    def __init__(self, make, pki, protocol="http/1.1", certificate=None, alpn=None, client_ca=None, version=None,
                 target="127.0.0.1", upstream=None, **tls):
        context = pki.server_context(certificate or pki.ca.issue(NAME), ALPN[protocol] if alpn is None else alpn,
                                     client_ca, version)
        self.upstream = UPSTREAMS[protocol](context)
        self.port = free_port()
        self.target = f"{target}:{self.upstream.port}"
        self.protocol = protocol
        self.settings = {"timeouts": {"connect": "2s"}, "retries": {"attempts": 0}, **(upstream or {})}
        self.tls = {"ca": pki.ca.file, "server_name": NAME, **tls}
        self.gateway = make(self.config())
        self.gateway.start()
        self.clients = []

    def config(self, **tls):
        return {
            "workers": 1,
            "listeners": [{"name": "plain", "address": f"127.0.0.1:{self.port}"}],
            "upstreams": {"main": {"protocol": self.protocol, "tls": {**self.tls, **tls},
                                   "targets": [{"address": self.target}], **self.settings}},
            "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "main"}],
        }

    def reload(self, **tls):
        self.gateway.reload_everywhere(self.gateway.complete(self.config(**tls), None))

    def raw(self):
        self.clients.append(Raw(self.port))
        return self.clients[-1]

    def ask(self, *what, **more):
        with Raw(self.port) as client:
            return client.ask(request(*what, **more))

    def idle(self):
        return self.gateway.metrics().get('sallyport_upstream_connections{upstream="main",state="idle"}', 0)

    def close(self):
        for client in self.clients:
            client.close()
        self.gateway.stop()
        self.upstream.check()
        self.upstream.close()


@pytest.fixture
def setup(make, pki):
    made = []

    def new(*args, **more):
        made.append(Setup(make, pki, *args, **more))
        return made[-1]

    yield new
    for each in made:
        each.close()


# ---- who is believed ----

@both
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_certificate_of_the_right_name(setup, protocol, version):
    it = setup(protocol, version=version)
    got = it.ask("/a", "POST", body=b"body")
    assert got.status == 200
    seen = it.upstream.only()
    assert seen.body == b"body"
    if protocol == "h2":
        assert seen.pseudo[":scheme"] == "https"


@both
def test_the_targets_own_name(setup, pki, protocol):
    """Without server_name the target's host is what counts."""
    it = setup(protocol, certificate=pki.ca.issue("localhost"), target="localhost", server_name=None)
    assert it.ask("/").status == 200


@both
def test_the_targets_address(setup, pki, protocol):
    it = setup(protocol, certificate=pki.ca.issue("IP:127.0.0.1"), server_name=None)
    assert it.ask("/").status == 200


def bad_certificates(pki):
    return {
        "other name": pki.ca.issue("other.example"),
        "part of a name": pki.ca.issue("example"),
        "expired": pki.expired(NAME),
        "not yet valid": pki.not_yet(NAME),
        "an authority nobody knows": pki.other.issue(NAME),
    }


@both
@pytest.mark.parametrize("kind", ["other name", "part of a name", "expired", "not yet valid",
                                  "an authority nobody knows"])
def test_a_certificate_that_is_not_believed(setup, pki, protocol, kind):
    it = setup(protocol, certificate=bad_certificates(pki)[kind])
    began = time.monotonic()
    for _ in range(3):
        got = it.ask("/secret", "POST", body=b"secret")
        assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    assert not it.upstream.requests and not it.upstream.received
    it.gateway.wait_log(f"main: {it.target}: .*certificate|main: {it.target}: .*mismatch")
    assert it.gateway.log().count(f"main: {it.target}:") <= 2 + (time.monotonic() - began) // 1   # once a second


@both
def test_a_wrong_address_in_the_certificate(setup, pki, protocol):
    it = setup(protocol, certificate=pki.ca.issue("IP:127.0.0.9"), server_name=None)
    assert it.ask("/").status == 502 and not it.upstream.requests


@both
def test_verification_can_be_turned_off(setup, pki, protocol):
    it = setup(protocol, certificate=pki.other.issue("whoever.example"), verify=False)
    assert it.ask("/").status == 200


def test_an_upstream_that_does_not_agree_on_h2(setup):
    it = setup("h2", alpn=["http/1.1"])
    got = it.ask("/")
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed" and not it.upstream.requests
    it.gateway.wait_log(f"main: {it.target}: ")


def test_an_upstream_without_alpn_is_one_of_http1(setup):
    it = setup("http/1.1", alpn=[])
    assert it.ask("/").status == 200


@both
def test_a_target_that_speaks_no_tls(setup, protocol):
    it = setup(protocol)
    plain = Upstream()
    plain.program(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    it.target = f"127.0.0.1:{plain.port}"
    it.reload()
    got = it.ask("/")
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    plain.close()


@both
def test_a_handshake_that_takes_too_long(setup, protocol):
    it = setup(protocol, upstream={"timeouts": {"connect": "300ms"}})
    silent = Upstream()
    silent.program(lambda peer: peer.ended())
    it.target = f"127.0.0.1:{silent.port}"
    it.reload()
    began = time.monotonic()
    got = it.ask("/")
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    assert time.monotonic() - began > 0.25
    silent.close()


# ---- who the gateway is ----

@both
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_certificate(setup, pki, protocol, version):
    own = pki.clients.issue("gateway.example", client=True)
    it = setup(protocol, client_ca=pki.clients, version=version, **own.files)
    assert it.ask("/").status == 200
    certificate = it.upstream.peers[0].socket.getpeercert() if protocol == "http/1.1" else None
    if certificate:
        assert ("DNS", "gateway.example") in certificate["subjectAltName"]


@both
def test_no_client_certificate_where_one_is_needed(setup, pki, protocol):
    it = setup(protocol, client_ca=pki.clients)
    got = it.ask("/", "POST", body=b"x")
    assert got.status == 502 and not it.upstream.requests


# ---- pools and sessions ----

def test_connections_are_kept_and_tickets_do_no_harm(setup):
    """TLS 1.3 servers send tickets behind the handshake: no reason to close what is idle."""
    it = setup("http/1.1", version="1.3")
    for i in range(5):
        assert it.ask(f"/{i}").status == 200
        until(lambda: it.idle() == 1, "the connection kept")
    assert it.upstream.accepted == 1


def test_a_word_unasked_closes_an_idle_connection(setup):
    it = setup("http/1.1")
    assert it.ask("/").status == 200
    until(lambda: it.idle() == 1, "the connection kept")
    it.upstream.peers[0].send(answer(b"forged"))
    until(lambda: it.idle() == 0, "the connection closed")
    assert it.ask("/").body == b"ok"


@both
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_are_resumed(setup, protocol, version):
    it = setup(protocol, version=version, upstream={"timeouts": {"idle": "100ms"}})
    resumed = []

    def script(peer):
        resumed.append(peer.socket.session_reused)
        it.upstream.serve(peer)

    it.upstream.program(script)
    for _ in range(3):
        assert it.ask("/").status == 200
        until(lambda: it.idle() == 0, "the idle connection closed")
    assert resumed == [False, True, True]


@both
def test_a_reload_keeps_what_it_does_not_change(setup, protocol):
    it = setup(protocol)
    assert it.ask("/").status == 200
    it.reload()
    assert it.ask("/").status == 200
    assert it.upstream.accepted == 1


@both
def test_a_reload_that_trusts_others(setup, pki, protocol):
    """Neither an open connection nor a session outlives the trust it was made under."""
    it = setup(protocol)
    assert it.ask("/").status == 200
    it.reload(ca=pki.other.file)
    got = it.ask("/")
    assert got.status == 502 and got.json["code"] == "upstream_connect_failed"
    it.reload()
    assert it.ask("/").status == 200


def test_a_reload_with_another_protocol(setup):
    it = setup("h2", alpn=["h2", "http/1.1"])
    assert it.ask("/").status == 200
    it.protocol = "http/1.1"
    it.upstream.program(lambda peer: Upstream.serve(it.upstream, peer))
    it.upstream.reply = lambda seen: answer()
    it.reload()
    assert it.ask("/").status == 200
    assert it.upstream.only().start == b"GET / HTTP/1.1"


# ---- cut off ----

def test_an_end_without_close_notify_is_no_end(setup):
    """A response that ends with the connection: anybody on the path could have cut it."""
    it = setup("http/1.1")

    def script(peer):
        it.upstream.read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
        peer.close()   # TCP alone

    it.upstream.program(script)
    with pytest.raises((Incomplete, ConnectionError)), Raw(it.port) as client:
        client.ask(request("/"))


def test_an_end_with_close_notify_is_one(setup):
    it = setup("http/1.1")

    def script(peer):
        it.upstream.read(peer)
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")
        try:
            peer.socket.unwrap()
        except OSError:
            pass   # the gateway closes at once

    it.upstream.program(script)
    assert it.ask("/").body == b"whole"


@both
def test_much_both_ways(setup, protocol):
    it = setup(protocol)
    body = bytes(range(256)) * 32 * 1024   # 8 MiB
    if protocol == "h2":
        it.upstream.program(reply=lambda seen: seen.body)
    else:
        it.upstream.program(reply=lambda seen: answer(seen.body))
    client = it.raw()
    sender = threading.Thread(target=lambda: client.send(request("/", "POST", body=body)))
    sender.start()
    got = client.response()
    sender.join()
    assert got.status == 200 and got.body == body
