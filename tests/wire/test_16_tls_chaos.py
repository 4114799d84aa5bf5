"""Many TLS connections of which none behaves like the others: whatever the network, the sizes and the ends are, bytes
arrive as they were sent, and nobody's end is anybody else's.
"""
import hashlib
import random
import ssl
import threading

import pytest

from gateway import until
from peers import answer
from secure import QUARANTINE_KIB, Client

SECONDS = 3
SIZES = [0, 1, 5, 100, 1000, 4091, 16383, 16384, 16385, 32768, 65537, 200_000, 700_000]


def text(seed, size):
    return hashlib.shake_256(str(seed).encode()).digest(size)


class Guest(threading.Thread):
    """Echoes until it is over, each time in another way. Its own failures are kept."""

    def __init__(self, secure, seed, over):
        super().__init__(daemon=True)
        self.secure, self.random, self.over = secure, random.Random(seed), over
        self.failure, self.echoes, self.session, self.contexts = None, 0, {}, {}

    def run(self):
        try:
            while not self.over.is_set():
                self.one_connection()
        except Exception as failure:   # shown by the test
            self.failure = failure

    def context(self, version):
        if version not in self.contexts:
            self.contexts[version] = self.secure.pki.client_context(version=version)
        return self.contexts[version]

    def one_connection(self):
        version = self.random.choice(["1.2", "1.3", "1.3"])
        session = self.session.get(version) if self.random.random() < 0.5 else None
        buffer = self.random.choice([None, None, 4096])
        client = Client(self.secure.ports["tls"], self.context(version), session=session, receive_buffer=buffer,
                        step=self.random.choice([None, None, 1, 100, 1500, 16000]))
        try:
            for _ in range(self.random.randrange(1, 6)):
                self.one_request(client)
            self.session[version] = client.tls.session
            getattr(client, self.random.choice(["shut", "cut", "reset", "close", "spoil", "half"]), lambda: self.misbehave(client))()
        finally:
            client.close()

    def one_request(self, client):
        sizes = SIZES[:8] if client.step in (1, 100) else SIZES
        body = text(self.random.random(), self.random.choice(sizes))
        if self.random.random() < 0.5:
            head, parts = b"Content-Length: %d" % len(body), [body]
        else:
            size = self.random.choice([1 + len(body) // 3, 1 + len(body), 16384])
            parts = [b"%x\r\n%s\r\n" % (len(body[i:i + size]), body[i:i + size]) for i in range(0, len(body), size)]
            head, parts = b"Transfer-Encoding: chunked", [*parts, b"0\r\n\r\n"]
        client.send(b"POST /echo HTTP/1.1\r\nHost: a.example\r\n%s\r\n\r\n" % head)
        for part in parts:
            if part:
                client.send(part)
        got = client.response()
        assert got.status == 200 and got.body == body, (got.status, len(got.body), len(body))
        self.echoes += 1

    def misbehave(self, client):
        """A record that is not genuine, or a request that never ends."""
        if self.random.random() < 0.5:
            client.tls.write(b"GET / HTTP/1.1\r\n")
            data = bytearray(client.outgoing.read())
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            try:
                client.socket.sendall(data)
                client.socket.settimeout(0.2)
                client.more()
            except (OSError, ssl.SSLError):
                pass
        else:
            client.send(b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\n" + bytes(50))


@pytest.mark.parametrize("seed", [1, 2])
def test_chaos(secure, seed):
    secure["main"].program(reply=lambda r: answer(r.body))
    before = secure.resident_kib()
    over = threading.Event()
    guests = [Guest(secure, (seed, i).__repr__(), over) for i in range(12)]
    for guest in guests:
        guest.start()
    over.wait(SECONDS)
    until(lambda: sum(guest.echoes for guest in guests) > 50 or any(guest.failure for guest in guests), "many echoes")
    over.set()
    for guest in guests:
        guest.join(60)
        assert not guest.is_alive()
    assert not [guest.failure for guest in guests if guest.failure]
    until(secure.at_rest, "rest")
    assert secure.resident_kib() - before < 16 * 1024 + QUARANTINE_KIB
