"""What upstreams are told about the client, and by whom: strangers' words are replaced, trusted peers' are taken on."""
import re
import socket
import struct

import pytest

from gateway import Gateway
from peers import Raw, Upstream, request

TRUSTED, STRANGER = "127.0.0.9", "127.0.1.1"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

SPOOFED = {
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "64443", "X-Request-Id": "spoofed-id", "traceparent": PARENT, "tracestate": "evil=1",
    "Via": "1.1 evil", "Forwarded": "for=6.6.6.6", "X-Original-URL": "/admin", "X-Rewrite-URL": "/admin",
    "X-Original-URI": "/admin", "X-Original-Method": "PUT", "X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE",
    "X-Method-Override": "DELETE", "X-Forwarded-Uri": "/admin", "X-Forwarded-Method": "DELETE",
    "X-Forwarded-Prefix": "/evil", "X-Forwarded-Server": "evil", "X-Real-IP": "6.6.6.6",
    "X-Request-Timeout-Ms": "60000",
}
REPLACED = {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Request-Id",
            "traceparent", "Via"}
SPOOFED_LINES = [f"{name}: {value}" for name, value in SPOOFED.items()]


def test_what_every_request_says(wire):
    got = wire.raw().ask(request("/", host="Shop.Example:99"))
    seen = wire["main"].only()
    assert seen.get("X-Forwarded-For") == "127.0.0.1" and seen.get("X-Forwarded-Proto") == "http"
    assert seen.get("X-Forwarded-Host") == "Shop.Example:99"
    assert seen.get("X-Forwarded-Port") == str(wire.ports["plain"])
    assert seen.get("Via") == "1.1 sallyport" and seen.get("Forwarded") is None
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", seen.get("traceparent"))
    assert re.fullmatch(r"[0-9a-f-]{32,36}", seen.get("X-Request-Id"))
    assert got.get("X-Request-Id") == seen.get("X-Request-Id")


def test_ids_are_new_for_each_request(wire):
    client = wire.raw()
    got = [client.ask(request()).get("X-Request-Id") for _ in range(20)]
    assert len(set(got)) == 20
    assert len({seen.get("traceparent") for seen in wire["main"].requests}) == 20


@pytest.mark.parametrize("listener, source", [("plain", None), ("plain", STRANGER), ("trusted", STRANGER)])
@pytest.mark.parametrize("spelling", [str, str.lower, str.upper])
def test_a_stranger_is_not_believed(wire, listener, source, spelling):
    lines = [f"{spelling(name)}: {value}" for name, value in SPOOFED.items()]
    got = wire.raw(listener, source=source).ask(request("/", "GET", *lines, *lines))
    seen = wire["main"].only()
    for name, value in SPOOFED.items():
        if name in REPLACED:
            assert len(seen.all(name)) == 1 and value not in seen.get(name), name
        else:
            assert seen.all(name) == [], name
    assert seen.get("X-Forwarded-For") == (source or "127.0.0.1")
    assert got.get("X-Request-Id") == seen.get("X-Request-Id") != "spoofed-id"
    assert seen.method == "GET" and seen.target == "/"


def test_a_trusted_peer_is_believed(wire):
    got = wire.raw("trusted", source=TRUSTED).ask(request("/", "GET", *SPOOFED_LINES))
    seen = wire["main"].only()
    assert seen.get("X-Forwarded-For") == f"6.6.6.6, {TRUSTED}"
    assert seen.get("X-Forwarded-Proto") == "https" and seen.get("X-Forwarded-Host") == "evil.example"
    assert seen.get("X-Forwarded-Port") == "64443"
    assert seen.get("X-Request-Id") == got.get("X-Request-Id") == "spoofed-id"
    assert seen.get("traceparent") == PARENT and seen.get("tracestate") == "evil=1"
    assert seen.get("Via") == "1.1 evil, 1.1 sallyport"
    assert seen.get("Forwarded") == f"for=6.6.6.6, for={TRUSTED};proto=http"
    assert int(seen.get("X-Request-Timeout-Ms")) <= 60000   # and what is left of it goes on
    for name in set(SPOOFED) - REPLACED - {"tracestate", "Forwarded", "X-Request-Timeout-Ms"}:
        assert seen.get(name) == SPOOFED[name], name


def test_a_trusted_peer_that_says_nothing(wire):
    wire.raw("trusted", source=TRUSTED).ask(request())
    seen = wire["main"].only()
    assert seen.get("X-Forwarded-For") == TRUSTED and seen.get("X-Forwarded-Proto") == "http"
    assert seen.get("Forwarded") is None


@pytest.mark.parametrize("value", ["", "a" * 129, "a b", 'a"b', "a\\b", "\xe9"])
def test_an_id_that_is_none_is_replaced(wire, value):
    got = wire.raw("trusted", source=TRUSTED).ask(request("/", "GET", f"X-Request-Id: {value}"))
    assert re.fullmatch(r"[0-9a-f-]{32,36}", got.get("X-Request-Id"))
    assert wire["main"].only().get("X-Request-Id") == got.get("X-Request-Id")


@pytest.mark.parametrize("value", [PARENT.upper(), PARENT + "0", "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
                                   "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", "ff" + PARENT[2:], "x"])
def test_a_trace_that_is_none_is_replaced(wire, value):
    wire.raw("trusted", source=TRUSTED).ask(request("/", "GET", f"traceparent: {value}", "tracestate: a=b"))
    seen = wire["main"].only()
    assert seen.get("traceparent") != value and re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", seen.get("traceparent"))
    assert seen.get("tracestate") is None


def test_the_gateways_own_answers_bear_the_id(wire):
    for path in ("/said", "/moved", "/broken"):
        got = wire.raw("trusted", source=TRUSTED).ask(request(path, "GET", "X-Request-Id: mine"))
        assert got.get("X-Request-Id") == "mine"


def test_the_upstreams_word_on_the_id_is_replaced(wire):
    wire["main"].program(reply=lambda _: b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n")
    got = wire.raw().ask(request())
    assert got.get("X-Request-Id") == wire["main"].only().get("X-Request-Id") != "theirs"


def test_another_name_for_the_id_and_server_timing(tmp_path):
    upstream = Upstream()
    gateway = Gateway(tmp_path, {"workers": 1, "telemetry": {
        "access_log": {"output": "off"}, "headers": {"request_id": "X-Correlation", "server_timing": True}}}, origin=upstream)
    with gateway, Raw(gateway.port) as client:
        got = client.ask(request("/", "GET", "X-Correlation: spoofed", "X-Correlation: again"))
        seen = upstream.only()
        assert seen.get("X-Correlation") == got.get("X-Correlation") and "spoofed" not in seen.get("X-Correlation")
        assert got.get("X-Request-Id") is None
        assert re.search(r"dur=\d+\.\d+", got.get("Server-Timing"))
    upstream.close()


# ---- underscores ----

@pytest.mark.parametrize("name", ["X_User", "X_Forwarded_For", "X-Forwarded_For", "_X", "Content_Length",
                                  "Transfer_Encoding"])
def test_underscores(wire, name):
    line = f"{name}: 6"
    assert wire.raw("plain").ask(request("/", "GET", line, "X-After: 1")).status == 200
    seen = wire["main"].only()
    assert not any("_" in each for each in seen.names) and seen.get("X-After") == "1"
    assert wire.raw("underscores_allow").ask(request("/", "GET", line)).status == 200
    ours = name not in ("X_User", "_X")   # reads like a name of the gateway's own: no listener lets that through
    assert wire["main"].requests[1].get(name) == (None if ours else "6")
    client = wire.raw("underscores_reject")
    got = client.ask(request("/", "GET", line))
    assert got.status == 400 and got.json["code"] == "bad_request" and client.ended()
    assert len(wire["main"].requests) == 2


# ---- the PROXY header ----

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command=1, family=0x11, addresses=None, rest=b""):
    if addresses is None:
        addresses = socket.inet_aton("203.0.113.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 1234, 80)
    return V2 + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses + rest)) + addresses + rest


V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 1, 2)


@pytest.mark.parametrize("how", ["send", "send_slowly"])
@pytest.mark.parametrize("head, client", [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n", "203.0.113.7"),
    (b"PROXY TCP6 2001:db8::7 ::1 1234 80\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", TRUSTED), (b"PROXY UNKNOWN anything at all\r\n", TRUSTED),
    (v2(), "203.0.113.7"), (v2(family=0x21, addresses=V6), "2001:db8::7"),
    (v2(command=0), TRUSTED), (v2(rest=b"\x04\0\x01x"), "203.0.113.7"), (v2(command=0, family=0, addresses=b""), TRUSTED)])
def test_the_proxy_header_names_the_client(wire, head, client, how):
    connection = wire.raw("proxy", source=TRUSTED)
    getattr(connection, how)(head + request("/1") + request("/2"))
    assert connection.response().status == 200 and connection.response().status == 200
    assert [seen.get("X-Forwarded-For") for seen in wire["main"].requests] == [client, client]


@pytest.mark.parametrize("head", [
    b"", b"PROXY TCP4 203.0.113.7 10.0.0.1 1234\r\n", b"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80 5\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n", b"PROXY TCP5 1.1.1.1 1.1.1.1 1 2\r\n", b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
    b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2\n", b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2" + b" " * 100 + b"\r\n", b"proxy UNKNOWN\r\n",
    V2[:-1] + b"X", v2(command=2), v2(addresses=b"1234"), V2 + b"\x11\x11\0\x0c" + b"a" * 12])
def test_without_a_good_proxy_header_there_is_no_service(wire, head):
    connection = wire.raw("proxy", source=TRUSTED)
    try:
        connection.send(head + request())
    except ConnectionError:
        pass
    assert connection.ended() and not connection.received   # not even an answer
    assert not wire["main"].requests


def test_a_stranger_speaks_no_proxy_header(wire):
    connection = wire.raw("proxy", source=STRANGER)
    got = connection.ask(b"PROXY TCP4 203.0.113.7 10.0.0.1 1234 80\r\n" + request())
    assert got.status == 400 and connection.ended() and not wire["main"].requests
    assert wire.raw("proxy", source=STRANGER).ask(request()).status == 200
    assert wire["main"].only().get("X-Forwarded-For") == STRANGER
