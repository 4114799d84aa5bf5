"""sallyport-echo over HTTP/2 without TLS, and gRPC: the same paths, the same misbehaviour, stream by stream."""
import os

import grpc
import httpx
import pytest

from echo_program import DEADLINE_S
from gateway import until
from h2_peers import INITIAL_WINDOW, H2Client

H2_STREAM_WINDOW = 256 * 1024   # what sallyport-echo opens at first


@pytest.fixture
def http(echo):
    with httpx.Client(http1=False, http2=True, base_url=echo.url, timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture
def call(echo):
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        yield channel.unary_unary("/test.Echo/Call")


@pytest.fixture
def session(echo):
    """It opens no window by itself."""
    client = H2Client(echo.port, settings={INITIAL_WINDOW: 0})
    client.auto = False
    yield client
    client.close()


def code_of(call, **options):
    try:
        call(b"message", timeout=DEADLINE_S, **options)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_describes_the_request(http):
    answer = http.post("/a/b?x=1", content="hello", headers={"X-Odd": "v"})
    told = answer.json()
    assert answer.http_version == "HTTP/2" and told["protocol"] == "HTTP/2"
    assert (told["method"], told["path"], told["query"], told["body"]) == ("POST", "/a/b", "x=1", "hello")
    assert ["x-odd", "v"] in told["headers"]
    assert http.get("/").json()["request_on_connection"] == 2


def test_bodies_both_ways(http):
    body = os.urandom(2_000_003)
    assert http.post("/echo", content=body).content == body
    assert len(http.get("/bytes/1000003").content) == 1_000_003
    assert http.get("/stream?n=3&chunk=7&delay_ms=10").content == b"abcdefg" * 3


@pytest.mark.parametrize("status", [204, 404, 503])
def test_status(http, status):
    assert http.get(f"/status/{status}").status_code == status
    assert http.get(f"/?misbehave=status={status}").status_code == status


@pytest.mark.parametrize("name", ["reset", "refuse_stream", "no_answer", "truncate", "reset_body", "garbage", "huge_head"])
def test_streams_that_break(echo, http, name):
    with pytest.raises(httpx.TransportError):
        http.get(f"/?misbehave={name}")
    assert httpx.get(echo.url + "/bytes/1").text == "a"


def test_one_stream_hangs_and_the_others_do_not(echo):
    with httpx.Client(http1=False, http2=True, base_url=echo.url, timeout=DEADLINE_S) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.get("/?misbehave=hang", timeout=2)
        assert http.get("/bytes/1").text == "a"
        assert echo.control("load")["in_flight"] == 1
    until(lambda: echo.control("load")["in_flight"] == 0, "let go")


def test_a_client_that_opens_its_window_late(echo, session):
    """Its body is taken no faster than the answer leaves, and goes on as soon as that does."""
    body = os.urandom(1_000_000)
    stream = session.begin_request("/echo", "POST", end=False)
    stream.send(body[:H2_STREAM_WINDOW])
    session.ping()
    assert stream.got == 0
    with session.changed:
        session.h2.increment_flow_control_window(2 * len(body), stream.id)
    session.wake()
    assert stream.send(body[H2_STREAM_WINDOW:], end=True).whole().body == body


def test_every_row_answers_or_ends(echo, http):
    names = list(http.get("/_control/help").json()["misbehave"])
    names.remove("refuse")
    for name in names:
        try:
            http.post(f"/x?misbehave={name}", content=b"ok", timeout=0.05)
        except httpx.TransportError:
            pass
    assert httpx.get(echo.url + "/bytes/1").text == "a"


def test_an_outage(echo, http):
    echo.control("outage?misbehave=status=503&path=/orders")
    assert [http.get(path).status_code for path in ("/orders", "/users")] == [503, 200]
    echo.control("outage?misbehave=refuse")
    with pytest.raises(httpx.TransportError):
        http.get("/users")
    echo.control("outage?end=1")
    assert http.get("/users").status_code == 200


# ---- gRPC

def test_messages_come_back(call):
    for message in (b"", b"hello", os.urandom(300_000)):
        assert call(message, timeout=DEADLINE_S) == message


def test_a_stream_of_messages(echo):
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        messages = [b"one", b"", b"three" * 1000]
        assert list(channel.stream_stream("/test.Echo/Talk")(iter(messages), timeout=DEADLINE_S)) == messages


@pytest.mark.parametrize("wish,code", [
    ("grpc_status=5", grpc.StatusCode.NOT_FOUND), ("grpc_status", grpc.StatusCode.UNAVAILABLE),
    ("status=503", grpc.StatusCode.UNAVAILABLE)])
def test_calls_that_fail(call, wish, code):
    assert code_of(call, metadata=[("x-echo", f"misbehave={wish}")]) == code
    assert code_of(call) == grpc.StatusCode.OK


def test_a_call_that_asks_for_its_status(echo):
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        assert code_of(channel.unary_unary("/status/5")) == grpc.StatusCode.NOT_FOUND
        assert code_of(channel.unary_unary("/status/x")) == grpc.StatusCode.UNKNOWN


def test_calls_in_an_outage(echo, call):
    echo.control("outage?misbehave=grpc_status=14")
    assert code_of(call) == grpc.StatusCode.UNAVAILABLE
    echo.control("outage?end=1")
    assert code_of(call) == grpc.StatusCode.OK


def test_health(echo):
    with grpc.insecure_channel(f"127.0.0.1:{echo.port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=DEADLINE_S) == b"\x08\x01"
        echo.control("health?up=0")
        assert check(b"", timeout=DEADLINE_S) == b"\x08\x02"
        echo.control("health?up=1")
