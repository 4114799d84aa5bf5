"""The same sweep (test_faulty.py) before an upstream that speaks HTTP/2, with requests side by side: a call that fails in
the middle of a shared connection harms those on it at most, and each of them cleanly. No false short counts here: what
waits for room that is there already would be a connection that the next requests share.
"""
import errno

import pytest

from faults import FOR_EVER, LIBRARY, Faults, sanitizer
from gateway import free_port
from h2_peers import H2Upstream
from peers import Incomplete, Raw, request
from test_faulty import Sweep, patience, timeouts
from watched import route, upstreams

MOST = 4000
FAULTS = [("send", errno.ECONNRESET), ("send", errno.ENOBUFS), ("recv", errno.ECONNRESET),
          ("recv", errno.ENOMEM), ("connect", errno.ECONNREFUSED), ("socket", errno.EMFILE), ("epoll_ctl", errno.ENOMEM),
          ("memory", errno.ENOMEM)]


def reply(seen):
    if seen.target == "/big":
        return b"x" * 200000
    if seen.target == "/trailers":
        return {"body": b"hello world", "trailers": ["X-Sum: 1"], "length": False}
    return seen.body or b"hello world"


def conversation(port):
    with Raw(port) as client, Raw(port) as other:
        other.send(request("/big"))
        yield client.ask(request("/one")), b"hello world"
        yield client.ask(request("/two", "POST", body=b"some body")), b"some body"
        yield client.ask(request("/three", "PUT", "Transfer-Encoding: chunked") + b"3\r\nput\r\n0\r\nX-Sum: 2\r\n\r\n"), b"put"
        yield client.ask(request("/trailers", "GET", "TE: trailers", "Connection: TE")), b"hello world"
        yield client.ask(request("/four", "PUT", body=b"y" * 60000)), b"y" * 60000
        yield other.response(), b"x" * 200000


def converse(port, strictly):
    """Runs the conversation; the gateway may break it off unless strictly, but never with a false answer."""
    try:
        for response, wanted in conversation(port):
            if response is None:
                assert not strictly
                return
            assert response.status == 200 or (not strictly and response.status in (408, 502, 503, 504)), response
            if response.status == 200:
                assert response.body == wanted, response
    except (OSError, Incomplete):
        if strictly:
            raise


class H2Sweep(Sweep):
    def converse(self, strictly):
        converse(self.port, strictly)


@pytest.fixture
def sweep(gateway, tmp_path, error):
    if not LIBRARY.exists():
        pytest.skip("this build has no tests")
    upstream = H2Upstream()
    upstream.program(reply=reply)
    faults = Faults(tmp_path)
    port = free_port()
    settings = {"protocol": "h2", "timeouts": {"connect": patience(error), "response": patience(error), "idle": "30ms"}}
    running = gateway({
        "workers": 1,
        "listeners": [{"name": "http", "address": f"127.0.0.1:{port}", "timeouts": timeouts(error)}],
        "upstreams": upstreams(up=(upstream.port, settings)),
        "routes": [route("all", "up")]}, env=faults.environment())
    yield H2Sweep(running, faults, port)
    faults.disarm()
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
        skip += 1 + skip // 8 if times == 1 else skip // 2 + 1
    raise AssertionError(f"{MOST} calls of {kind}")
