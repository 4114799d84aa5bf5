"""What is written down: the access log, field by field and in every format, and counters that add up."""
import calendar
import json
import os
import re
import threading
import time

import pytest

from gateway import Gateway, logged, until, whole_lines
from peers import Raw, Upstream, answer, request

FIELDS = ["ts", "request_id", "client", "listener", "host", "method", "path", "protocol", "route", "upstream", "endpoint",
          "status", "code", "bytes_in", "bytes_out", "duration_ms", "upstream_ms", "attempts", "trace_id"]


def record(wire, got):
    """The log's line of that answer."""
    return logged(wire.log, got if isinstance(got, str) else got.get("X-Request-Id"))[0]


def test_every_field(wire):
    wire["main"].program(reply=lambda r: answer(b"twelve bytes"))
    before = time.time()
    got = wire.raw().ask(request("/log/it?secret=1", "POST", "Authorization: Bearer topsecret", "Cookie: topsecret",
                                 "X-API-Key: topsecret", host="Log.Example:80", body=b"seven77"))
    line = record(wire, got)
    assert set(FIELDS) <= set(line)
    assert line["client"] == "127.0.0.1" and line["listener"] == "plain" and line["host"].lower() == "log.example"
    assert line["method"] == "POST" and line["path"] == "/log/it" and line["protocol"] == "HTTP/1.1"
    assert line["route"] == "root" and line["upstream"] == "main"
    assert line["endpoint"] == f"127.0.0.1:{wire['main'].port}"
    assert line["status"] == 200 and line["code"] == "ok" and line["attempts"] == 1
    assert line["bytes_in"] == 7 and line["bytes_out"] == 12
    assert 0 <= line["upstream_ms"] <= line["duration_ms"] < 30_000
    assert line["trace_id"] == wire["main"].only().get("traceparent").split("-")[1]
    stamp = time.strptime(re.sub(r"\.\d+Z$|Z$", "", line["ts"]), "%Y-%m-%dT%H:%M:%S")
    assert abs(calendar.timegm(stamp) - before) < 60
    assert "secret" not in wire.log.read_text()


@pytest.mark.parametrize("text, status, code, route", [
    (request("/broken"), 418, "fault_injected", "broken"), (request("/said"), 203, "ok", "said"),
    (request("/tiny", "POST", body=b"x" * 11), 413, "body_too_large", "tiny"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request", None), (b"\x16\x03\x01 nonsense\r\n\r\n", 400, "bad_request", None)])
def test_the_gateways_own_answers(wire, text, status, code, route):
    line = record(wire, wire.raw().ask(text))
    assert (line["status"], line["code"]) == (status, code)
    assert line.get("route") in ((route,) if route else (None, ""))
    assert line.get("attempts") in (0, None)


def test_failures_and_retries(wire):
    wire["again"].program(lambda peer: (wire["again"].read(peer), peer.close()))
    line = record(wire, wire.raw().ask(request("/again")))
    assert (line["status"], line["code"], line["attempts"]) == (502, "upstream_reset", 3)


def test_a_client_that_went(wire):
    wire["main"].program(lambda peer: (wire["main"].read(peer), peer.ended()))
    client = wire.raw()
    client.send(request("/gone"))
    seen = wire["main"].wait_requests()
    client.reset()
    line = record(wire, seen.get("X-Request-Id"))
    assert line["code"] == "client_gone" and line["status"] == 499


def test_hostile_text_stays_one_line_of_json(wire):
    wire.raw().ask(request("/a%22'", "GET", "User-Agent: \"\\\x80\xff{}", host="h"))
    got = wire.raw().ask(request("/fine;%22"))
    assert record(wire, got)["path"] == "/fine;%22"
    logged(wire.log)


def test_a_route_that_is_not_logged(wire):
    quiet = wire.raw().ask(request("/unlogged"))
    loud = wire.raw().ask(request("/loud"))
    record(wire, loud)
    assert quiet.get("X-Request-Id") not in wire.log.read_text()


def test_the_believed_client_is_logged(wire):
    got = wire.raw("trusted", source="127.0.0.9").ask(request("/", "GET", "X-Forwarded-For: 203.0.113.9"))
    assert record(wire, got)["client"] == "203.0.113.9"


# ---- other outputs ----

def one_gateway(tmp_path, access_log, upstream):
    return Gateway(tmp_path, {"workers": 1, "telemetry": {"access_log": access_log}}, origin=upstream)


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


def test_combined(tmp_path, upstream):
    log = tmp_path / "combined.log"
    with one_gateway(tmp_path, {"format": "combined", "output": str(log)}, upstream) as gateway, Raw(gateway.port) as client:
        client.ask(request("/a?b", "GET", "User-Agent: an \"agent\"", "Referer: http://r/"))
        client.ask(request("/b", "HEAD"), "HEAD")
        lines = until(lambda: len(found := whole_lines(log)) == 2 and found, "two lines")
    shape = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "%s" 200 (\d+|-) "%s" "%s"'
    assert re.fullmatch(shape % (r"GET /a\S* HTTP/1\.1", "http://r/", r'an .*agent.*'), lines[0]), lines[0]
    assert re.fullmatch(shape % (r"HEAD /b HTTP/1\.1", "-", "-"), lines[1]), lines[1]


def test_a_template_and_stdout(tmp_path, upstream):
    with one_gateway(tmp_path, {"format": "<<$method $path $query $status $code $user_agent>>", "output": "stdout"},
                     upstream) as gateway, Raw(gateway.port) as client:
        client.ask(request("/t?q=1", "GET", "User-Agent: me"))
        gateway.wait_log(r"<<GET /t q=1 200 ok me>>")


def test_sample_0_writes_nothing(tmp_path, upstream):
    log = tmp_path / "none.log"
    with one_gateway(tmp_path, {"output": str(log), "sample": 0}, upstream) as gateway, Raw(gateway.port) as client:
        for _ in range(50):
            assert client.ask(request()).status == 200
    assert not log.exists() or log.read_text() == ""


def test_the_log_is_whole_after_the_end(tmp_path, upstream):
    log = tmp_path / "whole.log"
    with one_gateway(tmp_path, {"output": str(log)}, upstream) as gateway, Raw(gateway.port) as client:
        ids = [client.ask(request(f"/{i}")).get("X-Request-Id") for i in range(300)]
    assert [json.loads(line)["request_id"] for line in log.read_text().splitlines()] == ids   # all: no line is a piece


def dropped(gateway):
    return sum(value for name, value in gateway.metrics().items() if "access_log" in name and "drop" in name)


def test_a_full_disk_costs_lines_but_no_requests(tmp_path, upstream):
    with one_gateway(tmp_path, {"output": "/dev/full"}, upstream) as gateway, Raw(gateway.port) as client:
        for _ in range(200):
            assert client.ask(request()).status == 200
        until(lambda: dropped(gateway) >= 200, lambda: f"200 lines counted as dropped, not {dropped(gateway)}")
        assert client.ask(request()).status == 200


def test_a_closed_stdout_costs_lines_but_no_requests(tmp_path, upstream):
    gateway = one_gateway(tmp_path, {"output": "stdout"}, upstream)
    gateway.start(argv_prefix=("/bin/sh", "-c", 'exec "$0" "$@" >&-'))
    try:
        with Raw(gateway.port) as client:
            for _ in range(50):
                assert client.ask(request()).status == 200
            assert len(gateway.workers()) == 1
        gateway.stop()
    finally:
        gateway.kill()


def test_a_reader_of_stdout_that_stops_reading(tmp_path, upstream):
    """A full pipe must not stop the gateway."""
    gateway = one_gateway(tmp_path, {"output": "stdout"}, upstream)
    out, into = os.pipe()
    gateway.start(argv_prefix=("/bin/bash", "-c", f'exec "$0" "$@" >&{into}'), pass_fds=(into,))
    os.close(into)
    try:
        with Raw(gateway.port) as client:
            for _ in range(2000):   # some 600 bytes each: far more than a pipe holds
                assert client.ask(request("/" + "p" * 300)).status == 200
        os.close(out)
        with Raw(gateway.port) as client:
            assert client.ask(request()).status == 200   # and nobody there at all
        gateway.stop()
    finally:
        gateway.kill()


# ---- counters ----

def total(metrics, name, **labels):
    return sum(value for key, value in metrics.items()
               if re.match(name + r"[{ ]|" + name + "$", key) and all(f'{k}="{v}"' in key for k, v in labels.items()))


def test_counters_add_up(tmp_path, upstream):
    upstream.program(reply=lambda r: answer(b"x" * 100, "404 No" if r.target.startswith("/up/none") else "200 OK"))
    gateway = Gateway(tmp_path, {
        "workers": 2, "upstreams": {"up": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]}},
        "routes": [{"name": "up", "match": {"path": {"prefix": "/up"}}, "upstream": "up"},
                   {"name": "own", "match": {"path": {"prefix": "/own"}}, "respond": {"status": 200, "body": "own"}}]})
    with gateway:
        def one(_):
            with Raw(gateway.port) as client:
                for i in range(20):
                    assert client.ask(request("/up/yes", "POST", body=b"12345")).status == 200
                    assert client.ask(request("/up/none")).status == 404
                    assert client.ask(request("/own")).status == 200
                    assert client.ask(request("/else")).status == 404
                client.ask(b"bad\r\n\r\n")

        threads = [threading.Thread(target=one, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        m = until(lambda: (now := gateway.metrics()) and total(now, "sallyport_ends_total") >= 405 and now, "all counted")
        assert total(m, "sallyport_http_requests_total") == total(m, "sallyport_ends_total") == 405
        assert total(m, "sallyport_http_requests_total", route="up", code="200", method="POST") == 100
        assert total(m, "sallyport_http_requests_total", route="up", code="404", method="GET") == 100
        assert total(m, "sallyport_http_requests_total", route="own") == 100
        assert total(m, "sallyport_http_requests_total", code="400") == 5
        assert total(m, "sallyport_ends_total", cause="ok") == 300
        assert total(m, "sallyport_ends_total", cause="no_route") == 100
        assert total(m, "sallyport_ends_total", cause="bad_request") == 5
        assert total(m, "sallyport_upstream_requests_total", upstream="up") == 200 == len(upstream.requests)
        assert total(m, "sallyport_http_request_bytes_total", route="up") == 500
        assert total(m, "sallyport_http_response_bytes_total", route="up") == 20_000
        assert total(m, "sallyport_http_response_bytes_total", route="own") == 300
        assert total(m, "sallyport_http_request_duration_seconds_count", route="up") == 200
        assert total(m, "sallyport_upstream_request_duration_seconds_count", upstream="up") == 200
        assert total(m, "sallyport_http_request_duration_seconds_bucket", route="up", le="+Inf") == 200
        until(lambda: total(gateway.metrics(), "sallyport_connections") == 0, "no connections")


def test_gauges_follow(wire):
    release = threading.Event()

    def reply(_):
        release.wait(30)
        return answer()

    def connections(state):
        return wire.metrics()[f'sallyport_connections{{listener="plain",state="{state}"}}']

    until(lambda: connections("idle") == connections("active") == 0, "no connections")
    wire["main"].program(reply=reply)
    idle, active = wire.raw(), wire.raw()
    active.send(request())
    wire["main"].wait_requests()
    assert (connections("idle"), connections("active")) == (1, 1)
    assert wire.metrics()['sallyport_upstream_connections{upstream="main",state="active"}'] == 1
    release.set()
    assert active.response().status == 200
    assert (connections("idle"), connections("active")) == (2, 0)
    assert wire.metrics()['sallyport_upstream_connections{upstream="main",state="active"}'] == 0 < wire.pooled("main")
    idle.close()
    until(lambda: connections("idle") == 1, "one connection")
