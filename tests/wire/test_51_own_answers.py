"""Answers of the gateway's own that are long, and clients that do not take them: a response of the configuration, a copy of
an answer, the answer to a repeated Idempotency-Key. They are sent from where they lie, and nobody has one of his own.

pytest -s -k held tests/wire/test_51_own_answers.py prints what crowds make the gateway hold (with a build without
sanitizers).
"""
import json
import random

import pytest

from gateway import ask, free_port, until
from h2_crowds import IDS, KIB, OPEN, SHUT, STREAMS, UNREAD, Crowd, resident_kib, settled
from h2_peers import window_update
from h2_wire import chunked_answer, others_served
from peers import Raw, Upstream, answer, request
from secure import Client

CONNECTIONS = 3
KEY = "Idempotency-Key: again"
KINDS = {"configured": 1024 * KIB, "copied": 250 * KIB, "paid": 1000 * KIB}
BODIES = {kind: random.Random(kind).randbytes(size // 2).hex().encode() for kind, size in KINDS.items()}
OTHER = b"another body" * 8 * KIB


class House:
    def __init__(self, make, pki):
        self.service = Upstream()
        self.ports = {name: free_port() for name in ("plain", "hasty", "tls")}
        self.listeners = {"plain": {}, "hasty": {"timeouts": {"write": "300ms"}}}
        if pki:
            self.listeners["tls"] = {"tls": {"certificates": [pki.ca.issue("a.example").files]}}
        self.gateway = make(self.config()).start()
        self.gateway.port = self.ports["plain"]
        self.clients = []

    def config(self, body=BODIES["configured"]):
        target = {"targets": [{"address": f"127.0.0.1:{self.service.port}"}]}
        return {
            "workers": 1, "overload": {"enabled": False}, "drain": {"delay": "0s", "timeout": "1s"},
            "listeners": [{"name": name, "address": f"127.0.0.1:{self.ports[name]}", **more}
                          for name, more in self.listeners.items()],
            "upstreams": {"copied": {**target, "circuit_breaker": {"fallback": {"stale": "1h"}}}, "paid": target},
            "routes": [
                {"name": "configured", "match": {"path": {"prefix": "/configured"}},
                 "respond": {"status": 200, "body": body.decode()}},
                {"name": "copied", "match": {"path": {"prefix": "/copied"}}, "upstream": "copied"},
                {"name": "paid", "match": {"path": {"prefix": "/paid"}}, "upstream": "paid",
                 "idempotency": {"response_bytes": "1MiB"}},
                {"name": "said", "match": {"path": {"prefix": "/said"}}, "respond": {"status": 203, "body": "said"}}]}

    def text(self, kind, *fields):
        method, more = ("POST", (KEY,)) if kind == "paid" else ("GET", ())
        return request(f"/{kind}", method, *more, *fields, body=b"" if kind == "paid" else None)

    def prepare(self, kind, reply=answer, client=None):
        """From now on the gateway answers by itself whoever asks as this client does."""
        if kind == "configured":
            return
        self.service.program(reply=lambda _: reply(BODIES[kind]))
        assert (client or self.raw()).ask(self.text(kind)).body == BODIES[kind]
        self.service.requests.clear()
        if kind == "copied":
            got = ask(self.gateway.admin_port, "/api/v1/breakers/copied", "PUT", json.dumps({"force": "open"}))
            assert got.status == 200

    def raw(self, **more):
        self.clients.append(Raw(self.gateway.port, **more))
        return self.clients[-1]

    def crowd(self, kind, hello, port=None, **more):
        crowd = Crowd(port or self.gateway.port, hello, **more)
        self.clients.append(crowd)
        method, fields = ("POST", [("idempotency-key", "again")]) if kind == "paid" else ("GET", [])
        return crowd.ask(lambda _: f"/{kind}", method=method, fields=fields)

    def are_answered(self, crowds):
        """The heads are there, of all streams that were listened to: the rest waits."""
        until(lambda: self.gateway.at_rest(), "every exchange over")
        for crowd in crowds:
            crowd.read(lambda crowd=crowd: all(crowd.status(i) for i in IDS))

    def close(self):
        for client in self.clients:
            client.close()
        self.gateway.wait_rest()
        assert not self.service.requests   # all of it was the gateway's own
        self.service.check()
        self.service.close()
        self.gateway.stop()


@pytest.fixture
def house(make):
    made = House(make, None)
    yield made
    made.close()


@pytest.fixture
def secure_house(make, pki):
    made = House(make, pki)
    yield made
    made.close()


# ---- HTTP/2 ----

# KiB of memory a connection: what nghttp2 and the front have of 100 streams.
MOST_KIB = 700


@pytest.mark.parametrize("unread", UNREAD)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_held_for_those_who_take_nothing(house, kind, unread):
    """…and who takes it then has every byte of every stream."""
    house.prepare(kind)
    with others_served(house.gateway.port):
        before = resident_kib(house.gateway)
        hello, more = UNREAD[unread]
        crowds = [house.crowd(kind, hello, **more) for _ in range(CONNECTIONS)]
        if unread == "windows":
            house.are_answered(crowds)
        kib = (settled(lambda: resident_kib(house.gateway)) - before) / CONNECTIONS
        print(f"\nheld of own answers, {kind}, {unread} shut: {kib:.0f} KiB a connection")
        assert kib < MOST_KIB
        if unread == "windows":
            crowds[0].send(OPEN)
        crowds[0].take_all(lambda _: BODIES[kind])


def test_windows_that_open_by_a_little(house):
    """The last byte of a window, and the one after it."""
    crowd = house.crowd("configured", SHUT)
    house.are_answered([crowd])
    size, steps = KINDS["configured"], [1, 16383, 16384, 16385, 100_000]
    for step in steps:
        before = crowd.taken()
        crowd.send(*(window_update(i, step) for i in IDS))
        crowd.read(lambda before=before, step=step: crowd.taken() == before + step * STREAMS)
    crowd.send(*(window_update(i, size - sum(steps)) for i in IDS))   # to the byte: the end needs no more
    crowd.take_all(lambda _: BODIES["configured"])


@pytest.mark.parametrize("kind", ["configured", "copied"])
def test_what_is_gone_meanwhile_is_sent_to_its_end(house, kind):
    """The configuration has another body, the copies are dropped: those who were answered have what they were answered."""
    house.prepare(kind)
    crowd = house.crowd(kind, SHUT)
    half = house.raw(receive_buffer=4096).send(house.text(kind))   # of HTTP/1.1
    house.are_answered([crowd])
    half.head()
    house.gateway.reload_everywhere(house.gateway.complete(house.config(body=OTHER), None))
    if kind == "copied":
        assert ask(house.gateway.admin_port, "/api/v1/stale", "DELETE").status == 200
    else:
        assert house.raw().ask(house.text(kind)).body == OTHER
    crowd.send(OPEN)
    crowd.take_all(lambda _: BODIES[kind])
    assert half.exactly(len(BODIES[kind])) == BODIES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_too_slow_is_given_up(house, kind):
    house.prepare(kind)
    crowd = house.crowd(kind, SHUT, port=house.ports["hasty"])
    crowd.read(lambda: set(crowd.resets) >= set(IDS))
    assert not crowd.ended and not crowd.taken()


def test_no_bodies_where_there_are_none(house):
    """HEAD, and 304 of the route's own: the length alone."""
    house.prepare("copied")
    for kind in ("configured", "copied"):
        with Raw(house.gateway.port) as client:
            for _ in range(2):
                got = client.ask(request(f"/{kind}", "HEAD"), "HEAD")
                assert (got.status, got.get("Content-Length")) == (200, str(len(BODIES[kind])))


# ---- HTTP/1.1 ----

def test_a_body_that_no_buffer_takes(house):
    """Not the kernel's either: 6 MiB."""
    body = BODIES["configured"] * 6
    house.gateway.reload_everywhere(house.gateway.complete(house.config(body=body), None))
    before = resident_kib(house.gateway)
    clients = [house.raw(receive_buffer=4096).send(house.text("configured")) for _ in range(10)]
    for client in clients:
        client.head()
    until(house.gateway.at_rest, "every exchange over")
    kib = (settled(lambda: resident_kib(house.gateway)) - before) / len(clients)
    print(f"\nheld of an own answer, HTTP/1.1: {kib:.0f} KiB a connection")
    assert kib < 60
    for client in clients:
        assert client.exactly(len(body)) == body
    crowd = house.crowd("configured", SHUT)
    crowd.send(window_update(1, len(body)))
    crowd.take_all(lambda _: body, [1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_one_after_the_other_on_one_connection(secure_house, pki, kind, tls):
    """Asked for at once, taken late."""
    house = secure_house
    client = house.raw(receive_buffer=4096)
    if tls:
        client = Client(house.ports["tls"], pki.client_context(), receive_buffer=4096)
        house.clients.append(client)
    house.prepare(kind, client=client)
    client.send(house.text(kind) + request("/said", "GET") + house.text(kind) + request("/said", "GET", "Connection: close"))
    until(house.gateway.at_rest, "what is answered so far")
    for body in (BODIES[kind], b"said") * 2:
        assert client.response().body == body
    assert client.ended()


def test_trailers_behind_it(house):
    """In chunks, as the service had said it."""
    house.prepare("paid", lambda body: chunked_answer(body, trailers=["X-Sum: 7"]))
    client = house.raw(receive_buffer=4096).send(house.text("paid") + request("/said"))
    got = client.response()
    assert got.body == BODIES["paid"] and b"X-Sum: 7" in bytes(client.received)
    assert client.response().body == b"said"
    with_trailers = house.crowd("paid", SHUT)
    house.are_answered([with_trailers])
    with_trailers.send(OPEN)
    with_trailers.take_all(lambda _: BODIES["paid"])
    assert all(dict(with_trailers.heads[i][-1]).get("x-sum") == "7" for i in IDS)
