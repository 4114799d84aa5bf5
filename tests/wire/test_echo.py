"""sallyport-echo by itself: what other tests and the demo rely on."""
import asyncio
import hashlib
import json
import os
import select
import socket
import subprocess
import time

import httpx
import pytest
import websockets

from echo_program import BUILD, DEADLINE_S, Echo, get, head_of

PERIOD = b"abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def http(echo):
    with httpx.Client(base_url=echo.url, timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture
def raw(echo):
    connection = echo.connect()
    yield connection
    connection.close()


# ---- what it tells

def test_describes_the_request(http):
    answer = http.post("/a/b?x=1&y=2", content="h\u00e9llo \"you\"\n", headers={"X-Odd": "v"}).json()
    assert answer["service"] == "orders"
    assert (answer["method"], answer["path"], answer["query"]) == ("POST", "/a/b", "x=1&y=2")
    assert (answer["target"], answer["protocol"]) == ("/a/b?x=1&y=2", "HTTP/1.1")
    assert ["X-Odd", "v"] in answer["headers"]
    assert answer["body"] == "h\u00e9llo \"you\"\n" and answer["body_bytes"] == 13
    assert answer["trailers"] == []


def test_bytes_that_are_no_text(http):
    body = bytes(range(256))
    answer = http.post("/?hash=1", content=body).json()
    assert answer["body_bytes"] == 256
    assert answer["body_sha1"] == hashlib.sha1(body).hexdigest()


def test_chunked_request_with_trailers(raw):
    raw.send(b"POST /x?hash=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
             b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 1\r\nX-More: two\r\n\r\n")
    answer = json.loads(head_of(raw.rest()[0])[1])
    assert answer["body"] == "hello world"
    assert answer["body_sha1"] == hashlib.sha1(b"hello world").hexdigest()
    assert answer["trailers"] == [["X-Sum", "1"], ["X-More", "two"]]


def test_large_body_is_hashed_and_its_start_shown(http):
    body = os.urandom(3_000_001)
    answer = http.put("/big?hash=1", content=body).json()
    assert answer["body_bytes"] == len(body)
    assert answer["body_sha1"] == hashlib.sha1(body).hexdigest()
    text = PERIOD * 4000
    assert http.put("/big", content=text).json()["body"].encode() == text[:65536]


def test_fields_asked_for(http):
    answer = http.get("/?set=X-One:1&set=X-Two:%20a%20b+c&set=Content-Length:3&set=bad%20name:1")
    assert (answer.headers["x-one"], answer.headers["x-two"]) == ("1", "a b c")
    assert answer.headers["x-served-by"] == "orders"
    assert answer.json()["method"] == "GET"


def test_headers(http):
    assert ["X-A", "b"] in http.get("/headers", headers={"X-A": "b"}).json()["headers"]


def test_help_names_every_misbehaviour(http):
    listed = http.get("/_control/help").json()
    assert "hang" in listed["misbehave"] and "/stream" in listed["paths"]
    assert http.get("/?misbehave=nonsense").status_code == 400


# ---- connections

def test_keep_alive_counts_requests(raw):
    for n in (1, 2, 3):
        raw.send(get("/"))
        head = raw.until(b"\r\n\r\n").decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        assert json.loads(raw.exactly(length))["request_on_connection"] == n


def test_pipelining(raw):
    raw.send(get("/status/201") + get("/bytes/5") + get("/stream?n=2&chunk=3") + get("/last", "Connection: close"))
    data, was_reset = raw.rest()
    assert not was_reset
    assert data.startswith(b"HTTP/1.1 201 Created\r\n") and data.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert b"\r\n\r\nabcdeHTTP/1.1" in data and b"3\r\nabc\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1" in data


def test_http10(raw):
    raw.send(get("/stream?n=2&chunk=3", version="1.0"))
    head, body = head_of(raw.rest()[0])
    assert "transfer-encoding" not in head.lower() and body == b"abcabc"


def test_http10_keep_alive(raw):
    raw.send(get("/bytes/1", "Connection: keep-alive", version="1.0"))
    assert b"Connection: keep-alive" in raw.until(b"\r\n\r\n")
    assert raw.exactly(1) == b"a"
    raw.send(get("/bytes/1", version="1.0"))
    assert raw.rest()[0].endswith(b"\r\n\r\na")


def test_head_has_the_length_and_no_body(raw):
    raw.send(b"HEAD /bytes/1000 HTTP/1.1\r\nHost: a\r\n\r\n" + get("/bytes/1", "Connection: close"))
    data = raw.rest()[0]
    head, rest = head_of(data)
    assert "Content-Length: 1000" in head and rest.startswith(b"HTTP/1.1 200 OK\r\n") and rest.endswith(b"\r\n\r\na")


def test_half_closed_client_is_answered(raw):
    raw.send(get("/bytes/3000000"))
    raw.socket.shutdown(socket.SHUT_WR)
    assert len(head_of(raw.rest()[0])[1]) == 3_000_000


@pytest.mark.parametrize("request_bytes", [
    b"GARBAGE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
])
def test_bad_requests(raw, request_bytes):
    raw.send(request_bytes)
    data, _ = raw.rest()
    assert data.startswith(b"HTTP/1.1 400 ") and b"Connection: close" in data


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 503, 599])
def test_status(http, status):
    assert http.get(f"/status/{status}").status_code == status
    assert http.get(f"/?misbehave=status={status}").status_code == status


# ---- bodies

def test_bytes_follow_the_alphabet(http):
    for n in (0, 1, 27, 65536, 1_000_003):
        body = http.get(f"/bytes/{n}").content
        assert body == (PERIOD * (n // 26 + 1))[:n]


def test_stream_with_pauses(http):
    with http.stream("GET", "/stream?n=3&chunk=7&delay_ms=20") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert b"".join(answer.iter_raw()) == b"abcdefg" * 3


def test_echo_answers_before_the_body_has_ended(raw):
    raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n")
    head = raw.until(b"\r\n\r\n")
    assert b"Content-Type: a/b" in head and b"Transfer-Encoding: chunked" in head
    for word in (b"one", b"three"):
        raw.send(b"%x\r\n%s\r\n" % (len(word), word))
        assert raw.exactly(len(word) + 5) == b"%x\r\n%s\r\n" % (len(word), word)
    raw.send(b"0\r\nX-T: 1\r\n\r\n")
    assert raw.until(b"\r\n\r\n") == b"0\r\nX-T: 1\r\n\r\n"


def test_echo_on_any_path_with_back_pressure(raw):
    """A client that does not read makes the service stop reading: it holds a bounded amount."""
    n = 64 * 1024 * 1024
    raw.send(b"POST /x?echo=1 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % n)
    block, sent = PERIOD * 2520, 0
    raw.socket.settimeout(0.5)
    try:
        while sent < n:
            sent += raw.socket.send(block[:n - sent])
    except socket.timeout:
        pass
    assert sent < n, "the service took everything"
    raw.socket.settimeout(DEADLINE_S)
    raw.socket.setblocking(False)
    received = 0
    deadline = time.monotonic() + DEADLINE_S
    left = n - sent
    while time.monotonic() < deadline:
        readable, writable, _ = select.select([raw.socket], [raw.socket] if left else [], [], 1)
        if writable:
            left -= raw.socket.send(block[:left])
        if readable:
            data = raw.socket.recv(1 << 20)
            received += len(data)
            if not data:
                break
    assert left == 0 and received > n


def test_trailers(raw):
    raw.send(get("/trailers", "Connection: close"))
    head, body = head_of(raw.rest()[0])
    assert "Trailer: X-Checksum" in head
    assert body.endswith(b"0\r\nX-Checksum: c0ffee\r\nX-Served-By: orders\r\n\r\n")


def test_early_hints(raw):
    raw.send(get("/early", "Connection: close"))
    data = raw.rest()[0]
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ") and b"\r\n\r\nHTTP/1.1 200 OK\r\n" in data


def test_expect_continue(raw):
    raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.send(b"hello")
    assert b'"body":"hello"' in raw.rest()[0]


# ---- WebSocket

def test_websocket(echo):
    async def talk():
        async with websockets.connect(f"ws://127.0.0.1:{echo.port}/ws", max_size=None, compression=None) as ws:
            for message in ("hello", "", b"\x00\xff" * 40, "x" * 70000, b"y" * 3_000_000):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["frag", "ment", "ed"])
            assert await ws.recv() == "fragmented"
            await asyncio.wait_for(await ws.ping(b"there?"), DEADLINE_S)
            await ws.close(1001, "bye")
            assert (ws.close_code, ws.close_reason) == (1001, "bye")

    asyncio.run(talk())


def test_websocket_handshake_of_the_rfc(raw):
    raw.send(get("/ws", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in raw.until(b"\r\n\r\n")
    raw.send(b"\x81\x05hello")     # not masked
    assert raw.rest()[0] == b"\x88\x02\x03\xea"


def test_websocket_without_upgrade(http):
    assert http.get("/ws").status_code == 426


# ---- health and counters

def test_health(http):
    assert http.get("/health").status_code == 200
    assert http.get("/_control/health?up=0").json() == {"up": False}
    assert http.get("/health").status_code == 503
    assert http.get("/_control/health?up=1").json() == {"up": True}
    assert http.get("/health").status_code == 200


def test_stats(http):
    before = http.get("/_control/stats").json()
    http.post("/", content=b"12345")
    after = http.get("/_control/stats").json()
    assert after["requests"] == before["requests"] + 2 and after["body_bytes"] == before["body_bytes"] + 5
    assert after["connections_open"] >= 1 and after["service"] == "orders"


# ---- misbehaviour

def test_silence(raw):
    raw.send(get("/?misbehave=hang"))
    assert raw.silent()


def test_deaf_reads_no_body(raw):
    raw.send(b"POST /?misbehave=deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    raw.socket.settimeout(0.3)
    with pytest.raises(socket.timeout):
        for _ in range(1000):
            raw.socket.sendall(b"x" * 100000)


def test_hanging_connection_is_noticed_to_be_gone(echo, http):
    raw = echo.connect()
    raw.send(get("/?misbehave=hang"))
    http.get("/")
    before = http.get("/_control/stats").json()["connections_open"]
    raw.close()
    deadline = time.monotonic() + DEADLINE_S
    while http.get("/_control/stats").json()["connections_open"] >= before:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("name,was_reset", [("no_answer", False), ("close_early", False), ("reset", True),
                                            ("reset_early", True)])
def test_ends_without_a_byte(raw, name, was_reset):
    raw.send(get(f"/?misbehave={name}"))
    assert raw.rest() == (b"", was_reset)


@pytest.mark.parametrize("name,announced,was_reset", [
    ("truncate=100", b"Content-Length: 100\r\n", False),
    ("reset_body=100", b"Content-Length: 100\r\n", True),
    ("truncate_chunked=100", b"Transfer-Encoding: chunked\r\n", False),
    ("reset_chunked=100", b"Transfer-Encoding: chunked\r\n", True),
])
def test_ends_within_the_body(raw, name, announced, was_reset):
    raw.send(get(f"/?misbehave={name}"))
    data, reset = raw.rest()
    head, body = head_of(data)
    assert announced in (head + "\r\n").encode() and reset == was_reset
    assert (PERIOD * 2)[:50] in body and not body.endswith(b"0\r\n\r\n")


def test_stalls_within_the_body(raw):
    raw.send(get("/?misbehave=stall_body=10"))
    raw.until(b"\r\n\r\nabcde")
    assert raw.silent()


def test_slow_head(raw):
    began = time.monotonic()
    raw.send(get("/bytes/3?misbehave=slow_head=150"))
    raw.until(b"\r\n\r\nabc")
    assert time.monotonic() - began >= 0.15


def test_slow_body(raw):
    """…in ten pieces: several may be read as one."""
    raw.send(get("/?misbehave=slow_body=20", "Connection: close")).until(b"\r\n\r\n")
    pieces = [piece for piece in (raw.bytes, *iter(lambda: raw.socket.recv(65536), b"")) if piece]
    assert json.loads(b"".join(pieces))["method"] == "GET"
    assert 2 <= len(pieces) <= 10


def test_trickle(raw):
    raw.send(get("/?misbehave=trickle=1"))
    raw.until(b"\r\n\r\nok\n")
    raw.send(get("/bytes/1"))
    raw.until(b"\r\n\r\na")


def test_informational_flood(raw):
    raw.send(get("/bytes/3?misbehave=flood_1xx=50", "Connection: close"))
    data = raw.rest()[0]
    assert data.count(b"HTTP/1.1 102 ") == 50 and data.endswith(b"\r\n\r\nabc")


def test_huge_and_many_fields(raw):
    raw.send(get("/?misbehave=huge_head=300000"))
    assert len(raw.until(b"\r\n\r\n")) > 300000
    raw.send(get("/?misbehave=many_fields=5000"))
    assert raw.until(b"\r\n\r\n").count(b"X-Field-") == 5000


def test_early_answer_and_the_body_behind_it(raw):
    raw.send(b"POST /?misbehave=early=403 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    assert raw.until(b"before the body\n").startswith(b"HTTP/1.1 403 ")
    raw.send(b"hello" + get("/bytes/1"))
    assert raw.until(b"\r\n\r\na").startswith(b"HTTP/1.1 200 OK\r\n")


def test_reject(raw):
    raw.send(b"POST /?misbehave=reject HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    data = raw.until(b"before the body\n")
    assert data.startswith(b"HTTP/1.1 413 ") and b"Connection: close" in data


def test_no_continue(raw):
    raw.send(b"POST /?misbehave=no_continue HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert raw.silent()
    raw.send(b"ok")
    raw.until(b'"body":"ok"')


def test_close_after(raw):
    raw.send(get("/bytes/3?misbehave=close_after"))
    data, was_reset = raw.rest()
    assert data.endswith(b"\r\n\r\nabc") and b"close" not in data and not was_reset


@pytest.mark.parametrize("name,part", [
    ("garbage", b"this is not HTTP"),
    ("two_lengths", b"Content-Length: 2\r\nContent-Length: 7\r\n"),
    ("length_and_chunked", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
    ("extra_bytes", b"Content-Length: 5\r\n\r\nhello, and more"),
    ("second_answer", b"helloHTTP/1.1 200 OK"),
    ("bad_chunk", b"\r\nxyz\r\n"),
    ("nul", b"a\0b"),
    ("unasked_101", b"HTTP/1.1 101 "),
])
def test_wrong_bytes(raw, name, part):
    raw.send(get(f"/?misbehave={name}"))
    raw.until(part)


def test_every_raw_row_answers_or_ends(echo, http):
    """Whatever a row does, the service lives on."""
    names = list(http.get("/_control/help").json()["misbehave"])
    names.remove("refuse")   # lets nobody in for a while: test_echo_outages.py
    for name in names:
        raw = echo.connect()
        raw.send(b"POST /x?misbehave=" + name.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
        select.select([raw.socket], [], [], 0.02)   # some never answer
        raw.close()
    assert http.get("/bytes/1").text == "a"


def test_only_the_first_times(http):
    path = "/?misbehave=status=503&times=2&key=first-two"
    assert [http.get(path).status_code for _ in range(4)] == [503, 503, 200, 200]
    count = http.get("/_control/count?of=first-two").json()
    assert (count["requests"], count["misbehaved"]) == (4, 2)


def test_only_on_a_reused_connection(raw):
    path = "/bytes/1?misbehave=reset&reused=1"
    raw.send(get(path))
    raw.until(b"\r\n\r\na")
    raw.send(get(path))
    assert raw.rest() == (b"", True)


def test_ratio_is_repeatable():
    def draw():
        with Echo("--seed", "42") as program, httpx.Client(base_url=program.url, timeout=DEADLINE_S) as http:
            return [http.get("/?misbehave=status=500&ratio=0.4").status_code for _ in range(40)]

    first = draw()
    assert first == draw() and {200, 500} == set(first)


def test_misbehaves_on_streams_and_upgrades_too(raw, echo):
    raw.send(b"POST /echo?misbehave=slow_head=10 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    raw.until(b"3\r\nabc\r\n0\r\n\r\n")
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    raw.send(get("/ws?misbehave=slow_head=10", *upgrade))
    raw.until(b"HTTP/1.1 101 ")
    other = echo.connect()
    other.send(get("/ws?misbehave=reset", *upgrade))
    assert other.rest() == (b"", True)
    other.close()


# ---- the program

def test_many_connections_at_once(echo):
    connections = [echo.connect() for _ in range(500)]
    for connection in connections:
        connection.send(get("/bytes/10"))
    for connection in connections:
        connection.until(b"\r\n\r\nabcdefghij")
        connection.close()


def test_listens_on_several_addresses_and_on_a_unix_socket(tmp_path):
    path = tmp_path / "echo.sock"
    program = Echo("--listen", f"unix:{path}")
    assert program.process.stdout.readline() == f"listening on unix:{path}\n"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=DEADLINE_S) as client:
        assert client.get("http://echo/").json()["service"] == "orders"
    assert program.stop() == 0


@pytest.mark.parametrize("args", [["--listen"], ["--listen", "nonsense"], ["--colour", "red"], ["--seed", "x"]])
def test_usage_errors(args):
    result = subprocess.run([os.path.join(BUILD, "sallyport-echo"), *args], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith("sallyport-echo: ")
