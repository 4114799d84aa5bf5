"""What gRPC requests are told by the gateway, and what goes on of their deadlines. Over HTTP/1.1: the answers are the
exchange's, the same for every version of HTTP.
"""
import re
import subprocess
import threading

import pytest

from gateway import BINARY, DEADLINE, ROOT, until, whole_lines
from peers import Incomplete, Raw, answer, request
from wire import STRANGER

GRPC = "Content-Type: application/grpc+proto"
UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = (
    2, 4, 7, 8, 12, 13, 14)


def call(path, *fields, body=b"\0\0\0\0\0"):
    return request(path, "POST", GRPC, "TE: trailers", "Connection: TE", *fields, body=body)


def trailers_only(got, status):
    assert got.status == 200 and got.body == b"" and got.get("Content-Length") == "0", got
    assert got.get("Content-Type") == "application/grpc" and got.get("grpc-status") == str(status), got
    assert re.fullmatch("[ -~]+", got.get("grpc-message")) and got.get("X-Request-Id")
    return got


def record(wire, got):
    """The access log's line of this answer."""
    line = f'"request_id":"{got.get("X-Request-Id")}"'
    return until(lambda: whole_lines(wire.log, line), line)[0]


@pytest.mark.parametrize("listener, path, fields, status, code", [
    ("plain", "/broken/pkg.Service/Method", [], UNKNOWN, "fault_injected"),   # 418
    ("plain", "/inside/pkg.Service/Method", [], PERMISSION_DENIED, "ip_denied"),
    ("plain", "/tiny/pkg.Service/Method", [], RESOURCE_EXHAUSTED, "body_too_large"),
    ("plain", "/pkg.Service/Method", ["grpc-timeout: 1s"], INTERNAL, "bad_request"),
    ("plain", "/pkg.Service/Method", ["grpc-timeout: 123456789S"], INTERNAL, "bad_request"),
    ("plain", "/pkg.Service/Method", ["grpc-timeout: 0S"], DEADLINE_EXCEEDED, "deadline_exceeded")])
def test_what_the_gateway_refuses(wire, listener, path, fields, status, code):
    client = wire.raw(listener, source=STRANGER if code == "ip_denied" else None)
    got = trailers_only(client.ask(call(path, *fields, body=b"\0\0\0\0\x09" + b"x" * 9)), status)
    line = record(wire, got)
    assert '"status":200' in line and f'"code":"{code}"' in line and not wire["main"].requests


def test_no_route_and_no_method(make):
    gateway = make({"workers": 1, "routes": [
        {"name": "one", "match": {"path": {"exact": "/pkg.Service/Method"}, "methods": ["GET"]},
         "respond": {"status": 200}}]})
    with gateway, Raw(gateway.port) as client:
        trailers_only(client.ask(call("/pkg.Service/Other")), UNIMPLEMENTED)
        assert trailers_only(client.ask(call("/pkg.Service/Method")), UNIMPLEMENTED).get("Allow") is None


def test_what_upstreams_do_wrong(wire):
    client = wire.raw()
    wire["fast"].program(script=lambda peer: peer.reset())
    got = trailers_only(client.ask(call("/fast/pkg.Service/Method")), UNAVAILABLE)
    assert "without an answer" in got.get("grpc-message") and not got.all("Retry-After")
    wire["fast"].program(script=lambda peer: peer.send(b"nonsense\r\n\r\n"))
    trailers_only(client.ask(call("/fast/pkg.Service/Method")), UNAVAILABLE)
    wire["fast"].program(script=lambda peer: peer.ended())   # says nothing
    trailers_only(client.ask(call("/fast/pkg.Service/Method")), DEADLINE_EXCEEDED)


def test_an_answer_that_has_begun_is_cut(wire):
    """HTTP/1.1 clients of gRPC are not promised trailers."""
    go = threading.Event()
    wire["main"].program(script=lambda peer: (wire["main"].read(peer), peer.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
        go.wait(DEADLINE)))
    client = wire.raw()
    client.send(call("/pkg.Service/Method"))
    assert client.head().status == 200 and client.exactly(7) == b"2\r\nab\r\n"
    go.set()
    with pytest.raises((ConnectionError, Incomplete)):
        client.line()


@pytest.mark.parametrize("content_type", ["application/grpc-web", "application/json", "application/grpcs"])
def test_others_get_a_problem(wire, content_type):
    client = wire.raw()
    got = client.ask(request("/broken", "POST", f"Content-Type: {content_type}", body=b""))
    assert got.status == 418 and got.json["code"] == "fault_injected" and not got.all("grpc-status")


# ---- deadlines ----

def remaining_us(text):
    unit = {"u": 1, "m": 1000, "S": 1000000}[text[-1]]
    assert 1 <= len(text[:-1]) <= 8
    return int(text[:-1]) * unit


@pytest.mark.parametrize("path, given, at_most_us", [
    ("/pkg.Service/Method", "20S", 20_000_000), ("/pkg.Service/Method", "15000m", 15_000_000),
    ("/hurry/pkg.Service/Method", "20S", 2_000_000),   # the route's is sooner
    ("/hurry/pkg.Service/Method", None, 2_000_000),    # and told though the client has none
    ("/hurry/pkg.Service/Method", "1500000u", 1_500_000)])
def test_what_remains_goes_upstream(wire, path, given, at_most_us):
    fields = [f"grpc-timeout: {given}"] if given else []
    wire.raw().ask(call(path, *fields))
    told = remaining_us(wire["main"].only().get("grpc-timeout"))
    assert 0 < told <= at_most_us


def test_without_a_deadline_none_is_told(wire):
    wire.raw().ask(call("/pkg.Service/Method"))
    assert wire["main"].only().get("grpc-timeout") is None


def test_others_may_use_the_name(wire):
    wire.raw().ask(request("/hurry", "POST", "grpc-timeout: soon", body=b""))
    assert wire["main"].only().get("grpc-timeout") == "soon"


def test_the_clients_deadline_ends_the_call(wire):
    wire["main"].program(script=lambda peer: peer.ended())
    trailers_only(wire.raw().ask(call("/pkg.Service/Method", "grpc-timeout: 100m")), DEADLINE_EXCEEDED)
    until(lambda: wire["main"].peers and wire["main"].peers[0].over, "the upstream's connection closed")


def test_a_second_try_has_less(wire):
    """One of two endpoints is away: the other is told what the back-off of 0.5 to 1.5 ms has left."""
    wire["pair_a"].close()
    family = 'sallyport_upstream_retries_total{upstream="pair",reason="connect_failure"}'
    try:
        before = wire.metrics().get(family)
        while wire.metrics().get(family) == before:
            assert wire.raw().ask(call("/pair/pkg.Service/Method", "grpc-timeout: 10S")).status == 200
    finally:
        wire["pair_a"].reopen()
    told = [remaining_us(message.get("grpc-timeout")) for message in wire["pair_b"].requests]
    assert told[-1] <= 10_000_000 - 500 and max(told) <= 10_000_000


def test_the_documented_example_is_valid(tmp_path):
    text = (ROOT / "docs/GRPC.md").read_text()
    example = tmp_path / "grpc.yaml"
    example.write_text(re.search(r"^```yaml\n(.*?)^```$", text, re.M | re.S).group(1))
    subprocess.run([BINARY, "check", "-c", example], check=True)
