"""sallyport-echo out of order: what its outages look like to a client, and what it counts of the load on it."""
import contextlib
import http.client
import os
import pathlib
import time

import httpx
import pytest

from echo_program import DEADLINE_S, Echo, Raw, get
from gateway import until


@pytest.fixture
def connect(echo):
    with contextlib.ExitStack() as open_ones:
        def connect():
            raw = Raw(echo.port)
            open_ones.callback(raw.close)
            return raw
        yield connect


def status(echo, path="/", **fields):
    return httpx.get(echo.url + path, headers=fields, timeout=DEADLINE_S).status_code


def is_refused(echo):
    try:
        Raw(echo.port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


# ---- refusing

def test_refusing_resets_what_is_open_and_comes_back(echo, connect):
    idle, busy = connect(), connect()
    idle.send(get("/bytes/1")).until(b"\r\n\r\na")
    busy.send(get("/?misbehave=hang"))
    until(lambda: echo.control("load")["in_flight"] == 1, "in flight")
    assert echo.control("outage?misbehave=refuse")["misbehaves"] == "refuse"
    assert idle.rest() == (b"", True) and busy.rest() == (b"", True)
    assert is_refused(echo) and is_refused(echo)
    assert echo.control("load")["in_flight"] == 0
    assert echo.control("outage?end=1")["misbehaves"] is None
    for _ in range(3):   # and again
        assert status(echo) == 200
        echo.control("outage?misbehave=refuse")
        assert is_refused(echo)
        echo.control("outage?end=1")


def test_refusing_takes_no_time(echo):
    def cpu_ticks():
        fields = pathlib.Path(f"/proc/{echo.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    echo.control("outage?misbehave=refuse")
    before = cpu_ticks()
    time.sleep(0.5)   # nothing happens: that takes waiting to see
    assert cpu_ticks() - before < os.sysconf("SC_CLK_TCK") / 10


def test_refusing_for_a_time_on_request(echo, connect):
    began = time.monotonic()
    assert connect().send(get("/?misbehave=refuse=2000")).rest() == (b"", True)
    assert is_refused(echo)
    until(lambda: not is_refused(echo), "let in again")
    assert time.monotonic() - began >= 2
    assert status(echo) == 200


def test_a_unix_socket_refuses_too(tmp_path):
    path = tmp_path / "echo.sock"
    transport = httpx.HTTPTransport(uds=str(path))
    with Echo("--listen", f"unix:{path}", "--outage", "misbehave=refuse") as program, httpx.Client(transport=transport) as client:
        with pytest.raises(httpx.TransportError):
            client.get("http://echo/")
        program.control("outage?end=1")
        assert client.get("http://echo/").status_code == 200


def test_the_control_door_serves_nothing_else(echo):
    connection = http.client.HTTPConnection("127.0.0.1", echo.control_port, timeout=DEADLINE_S)
    connection.request("GET", "/orders")
    assert connection.getresponse().status == 404
    connection.close()


# ---- the other kinds

@pytest.mark.parametrize("kind,data,was_reset", [
    ("reset", b"", True), ("no_answer", b"", False), ("truncate=100", b"Content-Length: 100\r\n", False),
    ("reset_body=100", b"Content-Length: 100\r\n", True), ("half_head", b"HTTP/1.1 200 OK\r\nContent-Le", False)])
def test_connections_that_break(echo, connect, kind, data, was_reset):
    echo.control(f"outage?misbehave={kind}")
    got, reset = connect().send(get("/orders")).rest()
    assert data in got and reset == was_reset and not got.endswith(b"\r\n\r\n")


def test_hanging_and_the_requests_in_flight(echo, connect):
    def misbehaved():
        return sum(slot[2] for slot in echo.control("load?slots=6000")["slots"])

    before = misbehaved()
    echo.control("outage?misbehave=hang")
    clients = [connect().send(get("/orders")) for _ in range(5)]
    until(lambda: echo.control("load")["in_flight"] == 5, "in flight")
    assert clients[0].silent()
    for client in clients:
        client.close()
    until(lambda: echo.control("load")["in_flight"] == 0, "let go")
    assert echo.control("load?reset=1")["most_in_flight"] == 5 and misbehaved() == before + 5
    assert echo.control("load")["most_in_flight"] == 0


def test_slow_first_byte(echo, connect):
    echo.control("outage?misbehave=slow_head=120")
    began = time.monotonic()
    connect().send(get("/bytes/3")).until(b"\r\n\r\nabc")
    assert time.monotonic() - began >= 0.12


def test_slow_body(echo, connect):
    echo.control("outage?misbehave=slow_body=15")

    def seconds_after_the_head():
        client = connect().send(get("/orders", "Connection: close"))
        client.until(b"\r\n\r\n")
        began = time.monotonic()
        client.rest()
        return time.monotonic() - began
    until(lambda: seconds_after_the_head() >= 0.1, "a slow body, and a head that was seen when it came")


def test_a_ratio_of_errors_is_repeatable(echo):
    def run(seed):
        echo.control(f"outage?misbehave=status=503&ratio=0.3&seed={seed}")
        with httpx.Client(base_url=echo.url) as client:
            return [client.get("/orders").status_code for _ in range(200)]

    first = run(5)
    assert 35 < first.count(503) < 90 and first.count(200) + first.count(503) == 200
    assert run(5) == first and run(6) != first


def test_one_path_only(echo):
    echo.control("outage?misbehave=status=500&path=/orders")
    assert [status(echo, path) for path in ("/orders/1", "/orders", "/users")] == [500, 500, 200]


def test_a_request_that_asks_for_something_gets_that(echo):
    echo.control("outage?misbehave=status=500")
    assert status(echo, "/?misbehave=status=418") == 418
    assert status(echo, **{"X-Echo": "misbehave=status=419"}) == 419


def test_a_field_instead_of_the_query(echo):
    fields = {"X-Echo": "misbehave=status=503&times=2&key=by-field"}
    assert [status(echo, **fields) for _ in range(3)] == [503, 503, 200]
    assert status(echo, **{"X-Echo": "misbehave=nonsense"}) == 400


def test_health_is_out_too(echo):
    assert status(echo, "/health") == 200
    echo.control("outage?misbehave=status=500")
    assert status(echo, "/health") == 500


# ---- schedules

def test_flapping(echo):
    echo.control("outage?misbehave=status=503&every_ms=300&down_ms=150&for_ms=1800")
    with httpx.Client(base_url=echo.url) as client:
        seen, deadline = [], time.monotonic() + DEADLINE_S
        while echo.control("outage")["more"]:
            seen.append(client.get("/").status_code)
            assert time.monotonic() < deadline
        changes = sum(a != b for a, b in zip(seen, seen[1:]))
        assert set(seen) == {200, 503} and changes >= 2
        assert echo.control("outage")["bursts_begun"] == 6
        assert client.get("/").status_code == 200


def test_what_it_says_of_its_bursts_is_what_happens(echo):
    text = "outage?misbehave=status=501,status=502,status=503&share=0.5&mean_ms=150&seed=11&for_ms=2500&bursts=1000"
    told = echo.control(text)["bursts"]
    assert told == echo.control(text)["bursts"] and told != echo.control(text.replace("=11", "=12"))["bursts"]
    assert len(told) > 4 and all(a["until_ms"] < b["from_ms"] for a, b in zip(told, told[1:]))
    out, served = set(), 0
    echo.control(text)
    with httpx.Client(base_url=echo.url) as client:
        while (before := echo.control("outage"))["more"]:
            code = client.get("/").status_code
            after = echo.control("outage")
            if (before["misbehaves"], before["bursts_begun"]) != (after["misbehaves"], after["bursts_begun"]):
                continue   # something changed meanwhile
            if after["misbehaves"] is None:
                served += 1
                assert code == 200
            else:
                number = after["bursts_begun"] - 1
                out.add(number)
                assert code == told[number]["value"] and after["since_ms"] >= told[number]["from_ms"]
    assert served and out


def test_refusing_on_a_schedule(echo):
    echo.control("outage?misbehave=refuse&every_ms=300&down_ms=150&for_ms=1500")
    seen = []
    while echo.control("outage")["more"]:
        seen.append(is_refused(echo))
    assert set(seen) == {True, False} and not is_refused(echo)


def test_out_from_the_start():
    with Echo("--outage", "misbehave=status=503&path=/orders") as program:
        assert (status(program, "/orders"), status(program)) == (503, 200)


@pytest.mark.parametrize("text", [
    "misbehave=", "misbehave=nonsense", "misbehave=hang,nonsense", "misbehave=hang&share=1.5", "misbehave=hang&share=x",
    "misbehave=hang&share=0.5&every_ms=10", "misbehave=hang&every_ms=10&down_ms=11", "misbehave=hang&share=0.1&mean_ms=0",
    "misbehave=hang&ratio=2", "misbehave=hang&path=/" + 300 * "x", "misbehave=" + 17 * "hang,"])
def test_texts_that_make_no_sense(echo, text):
    answer = httpx.get(f"http://127.0.0.1:{echo.control_port}/_control/outage?{text}")
    assert answer.status_code == 400 and answer.text
    assert status(echo) == 200


# ---- load

def test_requests_by_time(echo):
    with httpx.Client(base_url=echo.url) as client:
        before = echo.control("load?slots=1")["requests"]
        for _ in range(50):
            client.get("/orders")
        client.get("/health")
        client.get("/_control/stats")
    load = echo.control("load?slots=6000")
    assert load["requests"] == before + 50 and load["slot_ms"] == 100 and len(load["slots"]) == 6000
    assert sum(slot[0] for slot in load["slots"]) == load["requests"]
