"""What runs out: descriptors, patience, the disk. Others are served meanwhile, and all is well afterwards."""
import fcntl
import os
import re
import resource
import socket
import threading

import pytest

from gateway import ask, free_port, until
from peers import Incomplete, Raw, Upstream, answer, request
from watched import route, upstreams

DESCRIPTORS = 200


@pytest.fixture
def upstream():
    up = Upstream()
    yield up
    up.check()
    up.close()


@pytest.fixture
def many_descriptors():
    """Thousands of clients live in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def config(port, upstream, timeouts=None, **more):
    return {"workers": 1,
            "listeners": [{"name": "http", "address": f"127.0.0.1:{port}", "timeouts": timeouts or {}}],
            "upstreams": upstreams(up=upstream.port), "routes": [route("all", "up")], **more}


def test_descriptors_run_out(gateway, upstream, many_descriptors):
    release = threading.Event()
    upstream.program(reply=lambda message: answer() if message.target != "/held" or release.wait(30) else None)
    port = free_port()
    running = gateway(config(port, upstream), argv_prefix=("prlimit", f"--nofile={DESCRIPTORS}"))
    early = Raw(port).send(request("/held"))   # so that it is not idle, as those are that go within a second
    upstream.wait_requests(1)
    crowd = []
    for _ in range(DESCRIPTORS + 100):   # more than it can take
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        crowd.append(client)
    until(lambda: any(is_closed(client) for client in crowd), "somebody is turned away")
    release.set()
    assert early.response().status == 200   # who is there is served
    for client in crowd:
        client.close()
    until(lambda: quietly_ask(port) == 200, "room again")
    until(lambda: not running.metrics()['sallyport_overload_pressure{resource="descriptors"}'], "no pressure, if it has risen")
    for _ in range(20):
        assert Raw(port).ask(request("/")).status == 200
    early.close()


def is_closed(client):
    try:
        client.setblocking(False)
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def quietly_ask(port):
    try:
        return ask(port, timeout=5).status
    except OSError:
        return None


def test_thousands_of_slow_clients(gateway, upstream, many_descriptors):
    """Half a head each, or nothing at all: the others do not notice, and each gets its 408 or its end."""
    port = free_port()
    running = gateway(config(port, upstream, {"header": "3s", "idle": "3s", "body": "3s", "write": "3s"}))
    count = min(3000, many_descriptors // 2 - 200)
    crowd = []
    for i in range(count):
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        client.send((b"", b"G", b"GET / HTTP/1.1\r\nHost: te", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nx")[i % 4])
        crowd.append(client)
    for _ in range(50):
        assert ask(port).status == 200
    for i, client in enumerate(crowd):
        client.settimeout(30)
        said = b""
        try:
            while data := client.recv(4096):
                said += data
        except ConnectionError:
            pass
        assert said[:12] == (b"" if i % 4 == 0 else b"HTTP/1.1 408"), (i, said)
        client.close()
    assert ask(port).status == 200


def test_slow_readers_hold_no_more_than_their_buffers(gateway, upstream, many_descriptors):
    body = b"x" * 8000000
    upstream.program(reply=lambda message: answer(body) if message.target == "/long" else answer())
    port = free_port()
    running = gateway(config(port, upstream, {"header": "3s", "idle": "3s", "body": "3s", "write": "1s"}))
    crowd = [Raw(port, receive_buffer=4096).send(request("/long")) for _ in range(60)]
    assert ask(port).status == 200
    with open(f"/proc/{running.first}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 300 * 1024, resident   # generous, for sanitizers' sake: all in all 480 MB are on offer
    running.wait_rest()   # the write timeout has cut them
    for client in crowd:
        with pytest.raises((Incomplete, OSError)):
            client.response()
        client.close()


def test_the_log_has_no_room(gateway, upstream):
    """A full disk: requests go on, dropped lines are counted."""
    port = free_port()
    running = gateway(config(port, upstream, telemetry={"access_log": {"output": "/dev/full"}}))
    for _ in range(200):
        assert ask(port).status == 200
    until(lambda: any(value > 0 for name, value in running.metrics().items() if "dropped" in name),
          lambda: f"dropped lines counted: {running.metrics()}")
    assert ask(port).status == 200


def test_stdout_is_closed(gateway, upstream):
    """The reader of the log has gone."""
    port = free_port()
    running = gateway(config(port, upstream, telemetry={"access_log": {"output": "stdout"}}),
                      argv_prefix=("/bin/sh", "-c", 'exec "$@" >&-', "sh"))
    for _ in range(200):
        assert ask(port).status == 200


def test_nobody_reads_stderr(gateway, upstream):
    """It says nothing then, and goes on: requests, reloads. What was lost is counted, and told when somebody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    port = free_port()
    running = gateway(config(port, upstream), argv_prefix=("/bin/sh", "-c", f'exec "$@" 2>/dev/fd/{writer}', "sh"), pass_fds=(writer,))
    os.close(writer)
    reload = lambda: ask(running.admin_port, "/api/v1/reload", "POST").status == 200 and ask(port).status == 200   # noqa: E731
    assert all(reload() for _ in range(100))   # a line each, of some hundred bytes
    assert running.metrics()["sallyport_log_dropped_total"] > 10
    os.read(reader, 65536)
    assert reload()
    text = os.read(reader, 65536).decode()
    assert re.search(r"warn log: \d+ lines dropped: stderr had no room\n.* in force", text), text
    os.close(reader)   # and nobody ever will
    assert reload()


def test_reload_under_load_keeps_pools(gateway, upstream):
    """Sixty reloads while eight clients ask: no request fails, and the upstream sees no flood of connections."""
    port = free_port()
    running = gateway(config(port, upstream))
    stop, failures, asked = threading.Event(), [], [0] * 8

    def load(i):
        try:
            with Raw(port) as client:
                while not stop.is_set():
                    response = client.ask(request("/", "GET" if asked[i] % 2 else "POST", body=b"some" if asked[i] % 2 == 0 else None))
                    assert response.status == 200, response
                    asked[i] += 1
        except Exception as failure:   # shown below
            failures.append(failure)

    threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for i in range(30):
        changed = dict(running.config)
        changed["routes"] = [route("all", "up"), route(f"more{i}", "up")]
        running.reload(changed)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures, failures
    assert sum(asked) > 30, asked
    assert upstream.accepted <= 16, f"{upstream.accepted} connections for {sum(asked)} requests"
