"""Faults found by reading the data path, each with the conversation that shows it."""
import json
import signal
import socket
import threading
import time

import pytest

from gateway import ask, free_port, until
from peers import Raw, Upstream, answer, request
from watched import Watched, route, upstreams


@pytest.fixture
def upstream():
    up = Upstream()
    yield up
    up.check()
    up.close()


class Silent:
    """Listens, but its queue is full: a connection to it stays on its way until `admit`."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self.listener.getsockname()[1]
        self.fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    def admit(self):
        """Accepts until one speaks: the gateway's. Returns what it says first."""
        for filler in self.fillers:
            filler.close()
        self.listener.settimeout(10)
        while True:
            peer, _ = self.listener.accept()
            peer.settimeout(10)
            first = peer.recv(65536)
            if first:
                return peer, first

    def close(self):
        self.listener.close()
        for filler in self.fillers:
            filler.close()


def test_body_waits_for_the_head_while_another_try_connects(gateway, upstream):
    """The client goes on sending its body while the second try is still connecting."""
    silent = Silent()
    running = gateway({
        "workers": 1,
        "listeners": [{"name": "http", "address": f"127.0.0.1:{(port := free_port())}"}],
        "upstreams": {"two": {
            "targets": [{"address": f"127.0.0.1:{upstream.port}"}, {"address": f"127.0.0.1:{silent.port}"}],
            "timeouts": {"connect": "10s"}, "retries": {"attempts": 1, "backoff": "1ms"}}},
        "routes": [route("all", "two")]})

    def break_off(peer):
        peer.head()
        peer.exactly(5)
        peer.reset()

    upstream.program(script=break_off)
    # Round robin begins with the first target; PUT may be repeated.
    client = Raw(port).send(request("/x", "PUT", "Content-Length: 15") + b"first")
    def is_connecting():
        live = json.loads(ask(running.admin_port, "/api/v1/exchanges").body)
        live = live if isinstance(live, list) else next(v for v in live.values() if isinstance(v, list))
        return live and live[0]["attempts"] == 2 and live[0]["step"] in ("send", "pick")
    until(is_connecting, "the second try")
    client.send(b"-second")
    client.send(b"-th")
    peer, first = silent.admit()
    while b"first-second-th" not in first:
        more = peer.recv(65536)
        assert more, first
        first += more
    assert first.startswith(b"PUT /x HTTP/1.1\r\n"), first
    assert first.count(b"first") == 1 and first.endswith(b"\r\n\r\nfirst-second-th"), first
    peer.sendall(answer(b"stored"))
    assert client.response().body == b"stored"
    client.close()
    peer.close()
    silent.close()


def test_reload_drops_a_target_with_idle_connections(gateway, upstream):
    """Closing the last idle connection of a retired pool frees the pool."""
    other = Upstream()
    both = {"workers": 1, "upstreams": {"up": {"targets": [{"address": f"127.0.0.1:{upstream.port}"},
                                                           {"address": f"127.0.0.1:{other.port}"}]}},
            "routes": [route("all", "up")]}
    running = gateway(both)
    for _ in range(4):
        assert running.ask("/").status == 200
    one = dict(both, upstreams=upstreams(up=upstream.port))
    running.reload(dict(running.config, **one))
    until(lambda: all(peer.eof or getattr(peer, "over", False) for peer in other.peers), "the idle ones closed")
    for _ in range(4):
        assert running.ask("/").status == 200
    running.reload(dict(running.config, **both))
    for _ in range(4):
        assert running.ask("/").status == 200
    other.close()


def test_upstream_with_a_hash_ring_goes_while_a_request_is_tried_again(gateway, upstream):
    """The exchange's next pick must not look into the ring of a snapshot that is gone."""
    other = Upstream()
    hold = threading.Event()

    def hold_and_break(peer):
        peer.head()
        hold.wait(20)
        peer.reset()

    upstream.program(script=hold_and_break)
    ring = {"up": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}], "load_balancer": "consistent_hash",
                   "hash_on": "path", "retries": {"attempts": 1, "backoff": "1ms"}}}
    running = gateway({"workers": 1, "upstreams": ring, "routes": [route("all", "up")]})
    client = Raw(running.port).send(request("/x"))
    until(lambda: upstream.accepted, "the request upstream")
    running.reload(dict(running.config, upstreams=dict(ring, **upstreams(more=other.port))))
    running.reload(dict(running.config, upstreams=upstreams(more=other.port), routes=[route("all", "more")]))
    until(lambda: running.ask("/").status == 200, "the newest configuration")
    upstream.script = upstream.serve
    hold.set()
    assert client.response().status == 200
    client.close()
    other.close()


def test_listener_comes_back_while_its_connections_live(gateway, upstream):
    """Removed and added again, at the same address, it accepts again, and old connections go on."""
    ports = [free_port(), free_port()]
    hold = threading.Event()
    upstream.program(reply=lambda message: (hold.wait(20) if message.target == "/hold" else None, answer())[1])
    listeners = [{"name": f"l{i}", "address": f"127.0.0.1:{port}"} for i, port in enumerate(ports)]
    config = {"workers": 1, "listeners": listeners, "upstreams": upstreams(up=upstream.port), "routes": [route("all", "up")]}
    running = gateway(config)
    old = Raw(ports[1])
    assert old.ask(request("/")).status == 200
    running.reload(dict(running.config, listeners=listeners[:1]))
    old.send(request("/hold"))
    upstream.wait_requests(2)
    for _ in range(3):
        running.reload(dict(running.config, listeners=listeners))
        assert Raw(ports[1]).ask(request("/")).status == 200
        running.reload(dict(running.config, listeners=listeners[:1]))
    running.reload(dict(running.config, listeners=listeners))
    hold.set()
    assert old.response().status == 200
    assert old.ask(request("/")).status == 200
    assert Raw(ports[1]).ask(request("/")).status == 200
    old.close()


@pytest.mark.parametrize("says_continue", [True, False])
def test_deadline_after_a_wait_for_continue(gateway, upstream, says_continue):
    """The wait for 100-continue must leave the other deadlines in force."""
    def hang(peer):
        peer.head()
        if says_continue:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while peer.more():
            pass

    upstream.program(script=hang)
    running = gateway({"workers": 1, "upstreams": upstreams(up=(upstream.port, {"timeouts": {"response": "1500ms"}})),
                       "routes": [route("all", "up", timeout="0s")]})
    client = Raw(running.port).send(request("/", "POST", "Expect: 100-continue", "Content-Length: 4"))
    interim = client.head()
    assert interim.status == 100
    client.send(b"body")
    assert client.response().status == 504
    client.close()


def test_listed_status_passes_when_the_budget_is_used_up(gateway, upstream):
    """A retry refused by the budget must leave the upstream's own answer standing."""
    upstream.program(reply=lambda message: answer(b"busy", "503 Busy"))
    retries = {"attempts": 3, "statuses": [503], "backoff": "60s", "budget": 0.01}
    running = gateway({"workers": 1, "upstreams": upstreams(up=(upstream.port, {"retries": retries})),
                       "routes": [route("all", "up", timeout="0s")]})
    held = [Raw(running.port).send(request("/")) for _ in range(3)]   # three may always be retries
    upstream.wait_requests(3)
    until(lambda: len([1 for name, value in running.metrics().items()
                       if name.startswith("sallyport_upstream_retries_total") and value >= 3]), "three retries")
    client = Raw(running.port)
    response = client.ask(request("/"))
    assert (response.status, response.body) == (503, b"busy")
    for other in held + [client]:
        other.reset()


def test_a_budget_of_nothing_means_no_retries(gateway, upstream):
    """The three that may always be are for small budgets, not for none."""
    upstream.program(reply=lambda message: answer(b"busy", "503 Busy"))
    retries = {"attempts": 3, "statuses": [503], "backoff": "1ms", "budget": 0.0}
    running = gateway({"workers": 1, "upstreams": upstreams(up=(upstream.port, {"retries": retries})),
                       "routes": [route("all", "up")]})
    client = Raw(running.port)
    response = client.ask(request("/"))
    assert (response.status, response.body) == (503, b"busy")
    assert len(upstream.requests) == 1
    client.reset()


def test_long_body_is_repeated_in_pieces(gateway, upstream):
    """retries.body_bytes may exceed what an output buffer takes at once."""
    body = bytes(range(256)) * 4 * 4096   # 4 MiB

    def first_breaks(peer):
        if peer.number == 1:
            peer.head()
            peer.exactly(len(body))
            peer.reset()
            return
        message = peer.head()
        message.body = b""   # reads slowly enough for its socket to fill
        while len(message.body) < len(body):
            message.body += peer.exactly(min(100000, len(body) - len(message.body)))
        peer.send(answer(b"same" if message.body == body else b"other"))

    upstream.program(script=first_breaks)
    retries = {"attempts": 1, "backoff": "1ms", "body_bytes": "8MiB"}
    running = gateway({"workers": 1, "upstreams": upstreams(up=(upstream.port, {"retries": retries})),
                       "routes": [route("all", "up")]})
    client = Raw(running.port).send(request("/", "PUT", body=body))
    response = client.response()
    assert (response.status, response.body) == (200, b"same")
    client.close()


def test_reset_under_the_request_completes_no_response(gateway, upstream):
    """A close-delimited response whose connection breaks while the body is sent is not complete."""
    ready = threading.Event()

    def answer_and_reset(peer):
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
        ready.wait(20)
        peer.reset()   # with unread bytes of the request

    upstream.program(script=answer_and_reset)
    running = gateway({"workers": 1, "upstreams": upstreams(up=upstream.port), "routes": [route("all", "up")]})
    client = Raw(running.port).send(request("/", "POST", "Content-Length: 5000000"))
    assert client.head().status == 200
    sender = threading.Thread(target=lambda: quiet(client.socket.sendall, b"x" * 4000000), daemon=True)
    sender.start()
    assert client.line() == b"4" and client.exactly(6) == b"half\r\n"
    ready.set()
    assert client.ended(), client.buffer
    client.close()
    sender.join()


def quiet(run, *args):
    try:
        run(*args)
    except OSError:
        pass


def test_waiting_in_line_has_one_deadline(gateway, upstream):
    """A call that is looked at and cannot be placed keeps its place and its deadline."""
    hold = threading.Event()
    upstream.program(reply=lambda message: (hold.wait(20), answer())[1])
    running = gateway({"workers": 2, "upstreams": upstreams(up=(upstream.port, {
        "timeouts": {"connect": "1s"}, "limits": {"connections": 10, "requests": 1, "pending": 10}})),
        "routes": [route("all", "up", timeout="0s")]})
    first = Raw(running.port).send(request("/"))
    upstream.wait_requests(1)
    waiting = [Raw(running.port).send(request("/")) for _ in range(6)]
    began = time.monotonic()
    for client in waiting:
        assert client.response().status == 503
        client.close()
    assert time.monotonic() - began < 10
    hold.set()
    assert first.response().status == 200
    first.close()


def test_drain_lets_a_slow_reader_finish(tmp_path):
    """The exchange is over but its answer is still in the gateway's buffer: that is no idle connection."""
    body = "x" * 1000000
    running = Watched(tmp_path, {"workers": 1, "routes": [
        {"name": "all", "match": {"path": {"prefix": "/"}}, "respond": {"status": 200, "body": body}}]}).start()
    try:
        with Raw(running.port, receive_buffer=2048) as client:
            client.send(request("/") * 9)   # the kernel takes some; of one the rest stays with the gateway
            began = time.monotonic()        # longer than an idle connection gets while draining
            until(lambda: time.monotonic() > began + 1.2, "some age")
            running.signal(signal.SIGTERM)
            until(lambda: running.ready() != 200, "draining")
            while (response := client.response()) is not None:   # raises when one is cut
                assert response.status == 200 and response.body == body.encode()
        assert running.wait() == 0
    finally:
        running.kill()
