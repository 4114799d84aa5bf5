"""Every call that can fail fails once, and from then on: for each n, the n-th call of a kind, over a conversation of
several requests. What is affected fails cleanly or succeeds, what follows succeeds, nothing stays behind, and the
worker process lives.
"""
import errno
import threading

import pytest

from faults import FOR_EVER, LIBRARY, Faults, sanitizer
from gateway import free_port, until
from peers import Incomplete, Raw, Upstream, answer, request
from watched import Watched, route, upstreams

MOST = 400   # calls of one kind in a conversation: far fewer, so a sweep that goes on is a bug

FAULTS = [
    ("send", errno.ECONNRESET), ("send", errno.EPIPE), ("send", errno.ENOBUFS), ("send", errno.EINTR), ("send", 0),
    ("recv", errno.ECONNRESET), ("recv", errno.ENOMEM), ("recv", errno.EINTR),
    ("connect", errno.ECONNREFUSED), ("connect", errno.EADDRNOTAVAIL), ("connect", errno.EAGAIN),
    ("accept", errno.EMFILE), ("accept", errno.ECONNABORTED), ("accept", errno.EINTR), ("accept", errno.ENOMEM),
    ("socket", errno.EMFILE), ("socket", errno.ENOBUFS),
    ("epoll_ctl", errno.ENOMEM), ("epoll_ctl", errno.ENOSPC),
    ("memory", errno.ENOMEM),
]


def patience(error):
    """What false short counts leave waiting waits for its deadline; nobody else is to be in a hurry."""
    return "1s" if error == 0 else "10s"


def timeouts(error):
    return {**dict.fromkeys(("header", "body", "write"), patience(error)), "idle": "10s"}


def serve(upstream):
    def script(peer):
        while (message := upstream.read(peer)) is not None:
            if message.target == "/upgrade":
                peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                while peer.more():
                    peer.send(peer.buffer)
                    peer.buffer = b""
                return
            if message.target == "/chunked":
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
            elif message.target == "/big":
                peer.send(answer(b"x" * 200000))
            else:
                peer.send(answer(message.body or b"hello world"))
    return script


def conversation(port):
    """Yields (what, response, what its body must be) one after the other; raises when the gateway breaks off."""
    with Raw(port) as client:
        yield client.ask(request("/one")), b"hello world"
        yield client.ask(request("/two", "POST", body=b"some body")), b"some body"
        yield client.ask(request("/three", "PUT", "Transfer-Encoding: chunked") + b"3\r\nput\r\n0\r\n\r\n", "PUT"), b"put"
        yield client.ask(request("/chunked")), b"hello world"
        client.send(request("/a") + request("/b"))
        yield client.response(), b"hello world"
        yield client.response(), b"hello world"
        yield client.ask(request("/four", "PUT", body=b"y" * 60000)), b"y" * 60000
        yield client.ask(request("/big")), b"x" * 200000
    with Raw(port) as client:
        response = client.ask(request("/upgrade", "GET", "Connection: Upgrade", "Upgrade: echo"))
        yield response, b""
        if response.status == 101:
            client.send(b"through the tunnel")
            assert client.exactly(18) == b"through the tunnel"
            client.shut()
            assert client.ended()


def converse(port, strictly):
    """Runs the conversation; the gateway may break it off unless strictly, but never with a false answer."""
    try:
        for response, wanted in conversation(port):
            if response is None:
                assert not strictly
                return
            assert not strictly or response.status in (200, 101), response
            if response.status == 200:
                assert response.body == wanted, response
            else:
                assert response.status in (101, 408, 502, 503, 504), response
    except (OSError, Incomplete):
        if strictly:
            raise


class Sweep:
    def __init__(self, running, faults, port):
        self.running, self.faults, self.port = running, faults, port

    def step(self, kind, skip, times, error):
        self.running.wait_rest()
        self.faults.arm(self.running.first, kind, skip, times, error)
        failures = []
        talk = threading.Thread(target=lambda: self.guard(failures))
        talk.start()
        if times == FOR_EVER:   # until something has come of it, or nothing will
            until(lambda: self.faults.get("failed") > 2 or not talk.is_alive(), "failing calls")
            talk.join(0.05)
            self.faults.disarm()
        talk.join(30)
        assert not talk.is_alive(), "the conversation hangs"
        failed = self.faults.disarm()
        where = f"{kind} {skip} x{times} errno {error}"
        assert not failures, f"{where}: {failures}"
        assert self.running.workers() == [self.running.first], f"{where}\n{self.running.log()}"
        self.converse(True)
        return failed

    def converse(self, strictly):
        converse(self.port, strictly)

    def guard(self, failures):
        try:
            self.converse(False)
        except Exception as failure:   # shown by step()
            failures.append(failure)


def config(port, upstream_port, error=errno.ENOMEM):
    return {
        "workers": 1,
        "listeners": [{"name": "http", "address": f"127.0.0.1:{port}", "timeouts": timeouts(error)}],
        "upstreams": upstreams(up=(upstream_port, {"timeouts": {"connect": patience(error), "response": patience(error), "idle": "30ms"}})),
        "routes": [route("all", "up")]}


@pytest.fixture
def sweep(gateway, tmp_path, error):
    if not LIBRARY.exists():
        pytest.skip("this build has no tests")
    upstream = Upstream()
    upstream.program(script=serve(upstream))
    faults = Faults(tmp_path)
    port = free_port()
    running = gateway(config(port, upstream.port, error), env=faults.environment())
    yield Sweep(running, faults, port)
    faults.disarm()
    upstream.check()
    upstream.close()


@pytest.mark.parametrize("kind, error", FAULTS, ids=lambda value: errno.errorcode.get(value, str(value)))
@pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "for_ever"])
def test_sweep(sweep, kind, error, times):
    if kind == "memory" and sanitizer():
        pytest.skip("the sanitizer's allocator is its own")
    skip = 0
    while skip < MOST:
        if not sweep.step(kind, skip, times, error):
            assert skip > 0, f"no {kind} was counted"
            return
        # A false short count leaves the gateway waiting for room that is there already, until the write timeout.
        skip += 1 if times == 1 and error else skip // 2 + 1
    raise AssertionError(f"{MOST} calls of {kind}")


def test_memory_of_a_cold_worker(tmp_path):
    """The first conversation of a worker's life, when every pool is empty: the n-th allocation fails."""
    if sanitizer() or not LIBRARY.exists():
        pytest.skip("the sanitizer's allocator is its own")
    upstream = Upstream()
    upstream.program(script=serve(upstream))
    for skip in range(MOST):
        directory = tmp_path / str(skip)
        directory.mkdir()
        faults = Faults(directory)
        port = free_port()
        running = Watched(directory, config(port, upstream.port)).start(env=faults.environment())
        try:
            sweep = Sweep(running, faults, port)
            if not sweep.step("memory", skip, 1, errno.ENOMEM):
                break
            running.stop()
        finally:
            running.kill()
    upstream.close()
    assert 5 < skip < MOST
