"""HTTP/2 from clients who mean no good (RFC 9113 10, THREATS.md): each fault ends the stream or the connection with the
error the RFC names, nothing wrong is forwarded, memory stays bounded, and others are answered all the while.
"""
import socket
import struct
import threading

import pytest

from gateway import until
from h2_peers import (ACK, CANCEL, COMPRESSION_ERROR, CONNECT_PROTOCOL, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS,
                      END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE, FRAME_SIZE_ERROR, GOAWAY, HEADERS,
                      INITIAL_WINDOW, NO_ERROR, PADDED, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE,
                      REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, TABLE_SIZE, WINDOW_MAX, WINDOW_UPDATE,
                      WITH_PRIORITY, block, data, frame, headers, hpack_integer, literal, request_fields, rst, settings,
                      window_update)
from h2_wire import MIB, Held
from peers import Incomplete, answer, request
from test_02_bodies import kernel_buffers

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
OPEN = headers(1, request_fields("/open", "POST"), end=False)   # a stream whose body is awaited
POST = request_fields("/", "POST")


@pytest.fixture
def wire(h2_wire):
    return h2_wire


def nothing_smuggled(wire, allowed=()):
    assert b"smuggled" not in wire["main"].received and b"evil" not in wire["main"].received
    assert [seen.target for seen in wire["main"].requests if seen.target not in allowed] == []


# ---- heads that are malformed: the stream's fault, or 400 ----

def get(*fields, **pseudo):
    """Fields of a request, with other pseudo-fields (None: without)."""
    named = {"method": "GET", "scheme": "http", "path": "/bad", "authority": "a", **pseudo}
    return [(f":{name}", value) for name, value in named.items() if value is not None] + list(fields)


HEADS = {
    "no_method": get(method=None), "no_scheme": get(scheme=None), "no_path": get(path=None),
    "nothing": [], "no_authority": get(authority=None), "only_host": [("host", "a")],
    "empty_method": get(method=""), "empty_scheme": get(scheme=""), "empty_path": get(path=""),
    "empty_authority": get(authority=""), "empty_host": get(("host", ""), authority=None),
    "two_methods": get() + [(":method", "GET")], "two_paths": get() + [(":path", "/bad")],
    "two_schemes": get() + [(":scheme", "http")], "two_authorities": get() + [(":authority", "a")],
    "pseudo_last": [("x-a", "b")] + get(), "pseudo_between": get()[:2] + [("x-a", "b")] + get()[2:],
    "pseudo_unknown": get() + [(":evil", "x")], "pseudo_status": get() + [(":status", "200")],
    "pseudo_upper": [(":METHOD", "GET")] + get()[1:], "pseudo_bare": get() + [(":", "x")],
    "protocol_without_connect": get() + [(":protocol", "websocket")],
    "connect_with_path": get(method="CONNECT", authority="a:443"),
    # what would become a request line
    "path_space": get(path="/bad /evil"), "path_version": get(path="/bad HTTP/1.1"), "path_tab": get(path="/bad\tb"),
    "path_crlf": get(path="/bad\r\nx-evil: 1"), "path_request": get(path="/ HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED),
    "path_lf": get(path="/bad\nx"), "path_cr": get(path="/bad\rx"), "path_nul": get(path="/bad\0"),
    "path_relative": get(path="bad"), "path_absolute": get(path="http://evil/"), "path_fragment": get(path="/bad#x"),
    "path_star": get(path="*"), "path_del": get(path="/\x7f"), "path_high": get(path="/\xe9"),
    "path_query_space": get(path="/?a b"), "path_leading_space": get(path=" /bad"), "path_trailing_space": get(path="/bad "),
    "path_of_authority": get(path="@evil/"),
    "method_request": get(method="GET / HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED[:3]), "method_space": get(method="GET /evil"),
    "method_crlf": get(method="GET\r\nx-evil: 1"), "method_nul": get(method="GE\0T"), "method_token": get(method="G(T"),
    "method_leading_space": get(method=" GET"), "method_high": get(method="G\xe9T"),
    "authority_user": get(authority="user@evil"), "authority_password": get(authority="u:p@evil"),
    "authority_nul": get(authority="a\0"), "authority_space": get(authority="a b"), "authority_path": get(authority="a/b"),
    "authority_list": get(authority="a, b"), "authority_crlf": get(authority="a\r\nx-evil: 1"),
    "authority_port": get(authority="a:b"), "authority_port_range": get(authority="a:65536"),
    "authority_bracket": get(authority="[::1"), "authority_query": get(authority="a?b"),
    "authority_fragment": get(authority="a#b"), "authority_backslash": get(authority="a\\b"),
    "scheme_other": get(scheme="ftp"), "scheme_url": get(scheme="http://evil/"), "scheme_crlf": get(scheme="http\r\nx: y"),
    "scheme_space": get(scheme="http "), "scheme_colon": get(scheme="http:"),
    # names and values
    "name_upper": get(("X-Evil", "b")), "name_one_upper": get(("x-eviL", "b")), "name_space": get(("x evil", "b")),
    "name_colon": get(("x-evil:", "b")), "name_colon_inside": get(("x-evil: b\r\ny", "b")), "name_crlf": get(("x\r\ny-evil", "b")),
    "name_nul": get(("x\0evil", "b")), "name_high": get(("x-\xe9", "b")), "name_del": get(("x\x7f", "b")),
    "name_empty": get(("", "b")), "name_and_value_empty": get(("", "")), "name_trailing_space": get(("host ", "evil")),
    "value_crlf": get(("x-a", "b\r\nx-evil: 1")), "value_request": get(("x-a", "b\r\n\r\n" + SMUGGLED)),
    "value_lf": get(("x-a", "b\nx-evil: 1")), "value_cr": get(("x-a", "b\rc")), "value_nul": get(("x-a", "b\0c")),
    "value_control": get(("x-a", "\x01")), "value_del": get(("x-a", "\x7f")), "value_space_first": get(("x-a", " b")),
    "value_space_last": get(("x-a", "b ")), "value_tab_first": get(("x-a", "\tb")), "value_tab_last": get(("x-a", "b\t")),
    "cookie_crlf": get(("cookie", "a=1"), ("cookie", "b\r\nx-evil: 1")),
    # of a connection that is not there
    "connection": get(("connection", "close")), "connection_names": get(("connection", "x-forwarded-for")),
    "keep_alive": get(("keep-alive", "300")), "proxy_connection": get(("proxy-connection", "keep-alive")),
    "upgrade": get(("upgrade", "h2c")), "upgrade_websocket": get(("upgrade", "websocket")),
    "te_gzip": get(("te", "gzip")), "te_list": get(("te", "trailers, gzip")), "te_chunked": get(("te", "chunked")),
    "transfer_encoding": get(("transfer-encoding", "chunked")), "transfer_encoding_identity": get(("transfer-encoding", "identity")),
    # two hosts
    "host_differs": get(("host", "evil")), "host_twice": get(("host", "a"), ("host", "a")),
    "host_port_differs": get(("host", "a:81")), "host_user": get(("host", "u@a"), authority=None),
    # lengths
    "length_without_body": get(("content-length", "3")), "length_twice": get(("content-length", "0"), ("content-length", "0")),
    "length_word": get(("content-length", "abc")), "length_plus": get(("content-length", "+0")),
    "length_minus": get(("content-length", "-1")), "length_list": get(("content-length", "0, 0")),
    "length_empty": get(("content-length", "")), "length_hex": get(("content-length", "0x0")),
    "length_2_64": get(("content-length", "18446744073709551616")), "length_space": get(("content-length", "0 0")),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_malformed_head_is_the_streams_fault(wire, name):
    conn = wire.frames()
    conn.send(headers(1, HEADS[name]))
    assert conn.fate(1) in (("reset", PROTOCOL_ERROR), ("answer", 400))
    nothing_smuggled(wire)
    conn.send(headers(3, request_fields("/good")))
    assert conn.fate(3) == ("answer", 200)   # the connection is as good as before
    nothing_smuggled(wire, ["/good"])


def test_the_same_over_tls(wire):
    conn = wire.frames("tls")
    for number, (name, fields) in enumerate(HEADS.items()):
        conn.send(headers(2 * number + 1, [(name, "https" if value == "http" else value) for name, value in fields]))
        assert conn.fate(2 * number + 1) in (("reset", PROTOCOL_ERROR), ("answer", 400)), name
    nothing_smuggled(wire)


def test_plain_connect_is_not_offered(wire):
    conn = wire.frames()
    conn.send(headers(1, [(":method", "CONNECT"), (":authority", "evil:443")]))
    assert conn.fate(1) in (("answer", 501), ("answer", 400), ("reset", PROTOCOL_ERROR))
    conn.send(headers(3, [*get(method="CONNECT"), (":protocol", "evil")]))
    assert conn.fate(3) in (("answer", 501), ("answer", 400), ("reset", PROTOCOL_ERROR))
    nothing_smuggled(wire)


# ---- bodies that are not what the head says ----

def body_case(*frames, length=None, fields=()):
    length = [("content-length", str(length))] if length is not None else []
    return b"".join([headers(1, POST + length + list(fields), end=False), *frames])


def begun(upstream):
    """Connections on which something came: one may be open for a request that was taken back."""
    return [peer for peer in upstream.peers if peer.received]


def is_cut(upstream):
    until(lambda: all(peer.over for peer in begun(upstream)), "the upstream's connection cut")


SECOND = SMUGGLED.encode()
BODIES = {
    "shorter": body_case(data(1, b"ab", end=True), length=3),
    "shorter_and_trailers": body_case(data(1, b"ab"), headers(1, [("x-t", "a")]), length=3),
    "nothing": body_case(data(1, end=True), length=3),
    "longer": body_case(data(1, b"abc" + SECOND, end=True), length=3),
    "longer_later": body_case(data(1, b"abc"), data(1, SECOND, end=True), length=3),
    "longer_than_0": body_case(data(1, SECOND, end=True), length=0),
    "two_lengths": body_case(data(1, b"abc", end=True), length=3, fields=[("content-length", "4")]),
    "chunked": body_case(data(1, b"0\r\n\r\n" + SECOND, end=True), fields=[("transfer-encoding", "chunked")]),
    "chunked_and_length": body_case(data(1, b"0\r\n\r\n" + SECOND, end=True), length=5 + len(SECOND),
                                    fields=[("transfer-encoding", "chunked")]),
    "trailer_pseudo": body_case(data(1, b"a"), headers(1, [(":path", "/evil")])),
    "trailer_upper": body_case(data(1, b"a"), headers(1, [("X-Evil", "b")])),
    "trailer_crlf": body_case(data(1, b"a"), headers(1, [("x-t", "b\r\nx-evil: 1")])),
    "trailer_connection": body_case(data(1, b"a"), headers(1, [("connection", "close")])),
    "trailer_transfer_encoding": body_case(data(1, b"a"), headers(1, [("transfer-encoding", "chunked")])),
    "trailers_that_do_not_end": body_case(data(1, b"a"), headers(1, [("x-t", "b")], end=False)),
    "trailers_twice": body_case(headers(1, [("x-t", "b")], end=False), headers(1, [("x-t", "b")])),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_what_the_head_says(wire, name):
    conn = wire.frames()
    conn.send(BODIES[name])
    kind, code = conn.fate(1)
    assert (kind, code) in (("reset", PROTOCOL_ERROR), ("answer", 400)), (kind, code)
    # The upstream may have seen the beginning; it must never see an end, and its connection is cut.
    is_cut(wire["main"])
    for peer in begun(wire["main"]):
        head, _, body = bytes(peer.received).partition(b"\r\n\r\n")
        assert b"chunked" in head and not body.endswith(b"0\r\n\r\n") or len(body) < 3 and b"Length: 3" in head.title()
    assert b"evil" not in wire["main"].received and len(wire["main"].requests) <= 1
    assert b"smuggled" not in wire["main"].received or b"chunked" in wire["main"].received
    conn.send(headers(3, request_fields("/said")))
    assert conn.fate(3) == ("answer", 203)


def test_what_looks_like_requests_is_a_body(wire):
    """h2 → h1 can never make a second request: whatever the bytes are, they come within one message."""
    wire["main"].program(reply=lambda r: answer(str(len(r.body)).encode()))
    conn, bodies = wire.frames(), [SECOND, b"0\r\n\r\n" + SECOND, b"\r\n\r\n" + SECOND, b"GET ", b"\r\n", b"\0" * 100]
    for number, body in enumerate(bodies):
        for stream, length in ((4 * number + 1, []), (4 * number + 3, [("content-length", str(len(body)))])):
            conn.send(headers(stream, POST + length, end=False), data(stream, body, end=True))
            assert conn.fate(stream) == ("answer", 200)
    assert [seen.body for seen in wire["main"].requests] == [body for body in bodies for _ in range(2)]
    assert {seen.target for seen in wire["main"].requests} == {"/"}


# ---- faults of framing: the error that the RFC names ----

def integer_without_end():
    return b"\xff" + b"\xff" * 20


P, F, S, C = {PROTOCOL_ERROR}, {FRAME_SIZE_ERROR}, {STREAM_CLOSED, PROTOCOL_ERROR}, {COMPRESSION_ERROR}
FLOW = {FLOW_CONTROL_ERROR}
HALF = frame(HEADERS, END_STREAM, 1, block(request_fields("/half")))   # its block goes on
DONE = headers(1, request_fields("/said"))                             # a stream that the client has ended
CONNECTION_FAULTS = {
    "data_on_0": (P, data(0, b"x")), "headers_on_0": (P, headers(0)), "rst_on_0": (P, rst(0)),
    "priority_on_0": (P, frame(PRIORITY, 0, 0, bytes(5))), "continuation_on_0": (P, frame(CONTINUATION, 4, 0)),
    "settings_on_1": (P, frame(SETTINGS, 0, 1)), "ping_on_1": (P, frame(PING, 0, 1, bytes(8))),
    "goaway_on_1": (P, frame(GOAWAY, 0, 1, bytes(8))),
    "ping_short": (F, frame(PING, 0, 0, bytes(7))), "ping_long": (F, frame(PING, 0, 0, bytes(9))),
    "ping_empty": (F, frame(PING)), "settings_odd": (F, frame(SETTINGS, 0, 0, bytes(5))),
    "settings_ack_with_payload": (F, frame(SETTINGS, ACK, 0, bytes(6))), "rst_short": (F, OPEN + frame(RST_STREAM, 0, 1, bytes(3))),
    "rst_long": (F, OPEN + frame(RST_STREAM, 0, 1, bytes(5))), "goaway_short": (F, frame(GOAWAY, 0, 0, bytes(7))),
    "window_update_short": (F, frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    "window_update_long": (F, OPEN + frame(WINDOW_UPDATE, 0, 1, bytes(5))),
    "data_too_large": (F, OPEN + data(1, bytes(16385))), "headers_too_large": (F, headers(1, bytes(16385))),
    "unknown_too_large": (F, frame(0x77, 0, 0, bytes(16385))), "settings_too_large": (F, frame(SETTINGS, 0, 0, bytes(16386))),
    "largest_frame": (F, frame(DATA, 0, 1, b"", size=0xffffff)),
    "push_promise": (P, OPEN + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + block(request_fields()))),
    "push_promise_idle": (P, frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2")),
    "enable_push_2": (P, settings((ENABLE_PUSH, 2))), "window_2_31": (FLOW, settings((INITIAL_WINDOW, 1 << 31))),
    "frame_size_small": (P, settings((FRAME_SIZE, 16383))), "frame_size_large": (P, settings((FRAME_SIZE, 1 << 24))),
    "connect_protocol_2": (P, settings((CONNECT_PROTOCOL, 2))),
    "window_update_0": (P, window_update(0, 0)), "window_overflow": (FLOW, window_update(0, WINDOW_MAX)),
    "even_stream": (P, headers(2)), "stream_0_reserved": (P, frame(DATA, 0, 1 << 31)),
    "data_on_idle": (P, data(5, b"x")), "rst_on_idle": (P, rst(5)), "window_update_on_idle": (P, window_update(5, 1)),
    "continuation_alone": (P, frame(CONTINUATION, END_HEADERS, 1, block(request_fields()))),
    "continuation_behind_end": (P, headers(1) + frame(CONTINUATION, END_HEADERS, 1)),
    "continuation_of_another": (P, HALF + frame(CONTINUATION, END_HEADERS, 3)),
    "data_within_a_block": (P, HALF + data(1, b"x")), "ping_within_a_block": (P, HALF + frame(PING, 0, 0, bytes(8))),
    "settings_within_a_block": (P, HALF + settings()), "unknown_within_a_block": (P, HALF + frame(0x77, 0, 1)),
    "headers_within_a_block": (P, HALF + headers(3)), "rst_within_a_block": (P, HALF + rst(1)),
    "padding_of_data": (P, OPEN + frame(DATA, PADDED, 1, b"\x05abc")), "padding_of_data_just": (P, OPEN + frame(DATA, PADDED, 1, b"\x04abc")),
    "padding_of_headers": (P, frame(HEADERS, 5 | PADDED, 1, b"\xff" + block(request_fields()))),
    "padding_without_length": (F | P, OPEN + frame(DATA, PADDED, 1)),
    "priority_cut": (F | P, frame(HEADERS, 5 | WITH_PRIORITY, 1, bytes(4))),
    "hpack_index_0": (C, headers(1, b"\x80")), "hpack_index_behind": (C, headers(1, b"\xbe")),
    "hpack_index_huge": (C, headers(1, b"\xff" + b"\x80" * 3 + b"\x01")), "hpack_name_behind": (C, headers(1, b"\x7e\x01a")),
    "hpack_integer_without_end": (C, headers(1, integer_without_end())),
    "hpack_integer_cut": (C, headers(1, b"\xff\xff")), "hpack_literal_cut": (C, headers(1, b"\x00\x05ab")),
    "hpack_name_without_value": (C, headers(1, b"\x00\x01a")),
    "hpack_length_huge": (C, headers(1, b"\x00\x7f\xff\xff\xff\xff\x07")),
    "hpack_table_too_large": (C, headers(1, hpack_integer(4097, 5, 0x20) + block(request_fields()))),
    "hpack_table_late": (C, headers(1, block(request_fields()) + b"\x20")),
    "hpack_huffman_eos": (C, headers(1, b"\x00\x84\xff\xff\xff\xff\x01a")),
    "hpack_huffman_padding": (C, headers(1, b"\x00\x82\x1f\xff\x01a")), "hpack_huffman_zeros": (C, headers(1, b"\x00\x81\x00\x01a")),
}


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
def test_a_fault_ends_the_connection(wire, name):
    codes, bad = CONNECTION_FAULTS[name]
    conn = wire.frames()
    conn.send(bad, headers(101, request_fields("/evil")))
    assert conn.end() in codes
    assert conn.status(101) is None and b"evil" not in wire["main"].received


STREAM_FAULTS = {
    "window_update_0": (P, OPEN + window_update(1, 0)), "window_overflow": (FLOW, OPEN + window_update(1, WINDOW_MAX)),
    "window_overflow_by_settings": (FLOW, OPEN + window_update(1, WINDOW_MAX - 65535) + settings((INITIAL_WINDOW, 65536))),
    "window_overflow_in_steps": (FLOW, OPEN + window_update(1, 1 << 30) * 2), "priority_short": (F, OPEN + frame(PRIORITY, 0, 1, bytes(4))),
    "data_behind_end": ({STREAM_CLOSED}, headers(1, request_fields("/held")) + data(1, b"x")),
    "headers_behind_end": (S, headers(1, request_fields("/held")) + headers(1, [("x-t", "a")])),
    "trailers_behind_end": (S, body_case(data(1, b"a", end=True), headers(1, [("x-t", "b")]))),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_fault_ends_the_stream_or_more(wire, name):
    """RFC 9113 5.4.2: an endpoint may take a stream's fault for the connection's."""
    codes, bad = STREAM_FAULTS[name]
    held = Held()
    wire["main"].program(reply=lambda _: held.wait() or answer())
    conn = wire.frames()
    conn.send(bad)
    kind, code = conn.fate(1)
    held.go.set()
    assert kind in ("reset", "goaway") and code in codes
    assert wire.h2().ask("/said").status == 203


def test_a_priority_frame_that_depends_on_itself_changes_nothing(wire):
    """RFC 9113 5.3: priorities are no longer looked at; 7540 5.3.1 made it the stream's fault."""
    conn = wire.frames()
    conn.send(frame(PRIORITY, 0, 1, struct.pack("!IB", 1, 0)) + headers(1))
    assert conn.fate(1) in (("answer", 200), ("reset", PROTOCOL_ERROR), ("goaway", PROTOCOL_ERROR))


def test_frames_that_cross_a_reset_are_no_fault(wire):
    """What the client sent before it saw the end of the stream (RFC 9113 5.1, closed)."""
    late = [data(1, b"x"), window_update(1, 1), rst(1), frame(PRIORITY, 0, 1, bytes(5)), headers(1, [("x-t", "a")])]
    conns = [wire.frames() for _ in late]
    for conn in conns:
        conn.send(headers(1, request_fields("/tiny", "POST", "content-length: 11"), end=False))
    for conn, each in zip(conns, late):
        assert conn.fate(1) == ("answer", 413)
        conn.read(lambda conn=conn: 1 in conn.resets)
        conn.send(each, headers(3, request_fields("/said")))
        assert conn.fate(3) == ("answer", 203), each


def test_a_header_block_of_a_refused_stream_still_counts_for_the_table(wire):
    """HPACK's state is the connection's, whatever became of the stream (RFC 9113 4.3)."""
    conn = wire.frames()
    conn.send(headers(1, block(get(("X-UPPER", "bad"))) + literal("x-kept", "value", first=0x40)))
    assert conn.fate(1) in (("reset", PROTOCOL_ERROR), ("answer", 400))
    conn.send(headers(3, block(request_fields("/good")) + b"\xbe"))
    assert conn.fate(3) == ("answer", 200) and wire["main"].only().get("x-kept") == "value"


PREFACES = {
    "other_end": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings(), "no_settings": PREFACE + frame(PING, 0, 0, bytes(8)),
    "headers_first": PREFACE + headers(1), "settings_ack_first": PREFACE + frame(SETTINGS, ACK),
    "lower_case": b"pri * http/2.0\r\n\r\nsm\r\n\r\n" + settings(), "twice": PREFACE + PREFACE,
    "two_point_one": b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n" + settings(), "nonsense_within": PREFACE[:20] + b"????" + settings(),
    "body": b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings(), "http_1": request("/evil"), "none": settings() + headers(1),
    "garbage": b"\xff" * 1000,
}


@pytest.mark.parametrize("listener", ["tls", "plain", "h2_only"])
@pytest.mark.parametrize("name", PREFACES)
def test_a_wrong_preface(wire, name, listener):
    if (name, listener) == ("http_1", "plain"):
        pytest.skip("that one is right there")
    conn = wire.frames(listener, hello=b"")
    conn.send(PREFACES[name])
    if listener != "tls" and name not in ("no_settings", "headers_first", "settings_ack_first", "twice"):
        assert conn.peer.response().status in (400, 505)   # it is a strange request of HTTP/1
    else:
        assert conn.end() in (None, PROTOCOL_ERROR)
    assert not wire["main"].requests


# ---- floods: ENHANCE_YOUR_CALM, or what the RFC names; nobody else notices ----

def repeat(count, one):
    """one(i) for odd stream numbers."""
    return b"".join(one(2 * i + 1) for i in range(count))


GET_MAIN = block(request_fields("/flood"))
OPEN_MAIN = block(request_fields("/flood", "POST"))
FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)) * 20_000, "ping_ack": frame(PING, ACK, 0, bytes(8)) * 20_000,
    "settings": settings() * 20_000, "settings_full": settings(*[(TABLE_SIZE, 4096)] * 100) * 2000,
    "settings_changing": b"".join(settings((INITIAL_WINDOW, i), (TABLE_SIZE, i)) for i in range(5000)),
    "priority": repeat(20_000, lambda i: frame(PRIORITY, 0, i, bytes(5))),
    "priority_update": frame(0x10, 0, 0, b"\0\0\0\1u=1") * 20_000,
    "empty_data": OPEN + data(1) * 20_000, "padding_only_data": OPEN + frame(DATA, PADDED, 1, b"\0") * 20_000,
    "window_update": window_update(0, 1) * 200_000, "window_update_stream": OPEN + window_update(1, 1) * 200_000,
    "unknown": frame(0x77, 0, 0, b"abc") * 20_000, "unknown_on_streams": repeat(20_000, lambda i: frame(0xee, 0xff, i)),
    "altsvc": frame(0xa, 0, 0, b"\0\1ab") * 20_000, "origin": frame(0xc, 0, 0, b"\0\1a") * 20_000,
    "rapid_reset": repeat(20_000, lambda i: headers(i, GET_MAIN) + rst(i)),
    "rapid_reset_of_uploads": repeat(20_000, lambda i: headers(i, OPEN_MAIN, end=False) + data(i, b"x") + rst(i)),
    "reset_later": repeat(100, lambda i: headers(i, GET_MAIN)) + repeat(20_000, lambda i: rst(i) + headers(i + 200, GET_MAIN)),
    "continuations": HALF + frame(CONTINUATION, 0, 1, literal("x", "y" * 1000)) * 2000,
    "empty_continuations": HALF + frame(CONTINUATION, 0, 1) * 20_000,
    "empty_headers": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 20_000,
    "continuations_that_end": HALF + frame(CONTINUATION, 0, 1, literal("x", "y")) * 20 + frame(CONTINUATION, END_HEADERS, 1),
    "malformed_heads": repeat(20_000, lambda i: headers(i, GET_MAIN + literal("X-UPPER", "a"))),
    "refused_heads": repeat(20_000, lambda i: headers(i, block(request_fields("bad")))),
    "empty_names": repeat(20_000, lambda i: headers(i, GET_MAIN + literal("", "") * 30)),
    "wrong_lengths": repeat(20_000, lambda i: headers(i, GET_MAIN + literal("content-length", "9"))),
    # MadeYouReset (CVE-2025-8671): what makes us reset a stream counts as if the client had
    "made_by_window_0": repeat(20_000, lambda i: headers(i, GET_MAIN) + window_update(i, 0)),
    "made_by_overflow": repeat(20_000, lambda i: headers(i, GET_MAIN) + window_update(i, WINDOW_MAX)),
    "made_by_data_behind_end": repeat(20_000, lambda i: headers(i, GET_MAIN) + data(i, b"x")),
    "made_by_headers_behind_end": repeat(20_000, lambda i: headers(i, GET_MAIN) + headers(i, literal("x", "y"))),
    "made_by_short_priority": repeat(20_000, lambda i: headers(i, GET_MAIN) + frame(PRIORITY, 0, i, bytes(4))),
    "made_by_self_dependency": repeat(20_000, lambda i: headers(i, GET_MAIN) + frame(PRIORITY, 0, i, struct.pack("!IB", i, 0))
                                      + rst(i)),
}
ENDS_AS_THE_FAULT = {"made_by_window_0": P, "made_by_overflow": FLOW | P, "made_by_data_behind_end": S,
                     "made_by_headers_behind_end": S, "made_by_short_priority": F, "made_by_self_dependency": P,
                     "malformed_heads": P, "refused_heads": P, "empty_names": P, "wrong_lengths": P,   # too many streams at once
                     "continuations": P | {11, 2}, "empty_continuations": P | {2}, "empty_headers": P | {2},
                     "continuations_that_end": P | {2}, "origin": P, "altsvc": P}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_ended(wire, name):
    running, most, lock = [0], [0], threading.Lock()

    def script(peer):
        wire["main"].read(peer)
        with lock:
            running[0] += 1
            most[0] = max(running[0], most[0])
        peer.ended()
        with lock:
            running[0] -= 1

    wire["main"].program(script)
    with wire.unharmed():
        conn = wire.frames("plain")
        conn.send(FLOODS[name])
        code = conn.end()
        # Reset with what it had not read, the connection may lose its GOAWAY on the way.
        assert code in ENDS_AS_THE_FAULT.get(name, set()) | {ENHANCE_YOUR_CALM, None}
    assert conn.closed
    assert len(wire["main"].requests) <= 500 and most[0] <= 100


@pytest.mark.parametrize("name", ["ping", "settings", "rapid_reset", "empty_data"])
def test_a_flood_is_told_why(wire, name):
    """Just over the line, so that all of it is read: the GOAWAY arrives."""
    conn, flood = wire.frames(), {
        "ping": frame(PING, 0, 0, bytes(8)) * 80, "settings": settings() * 40, "empty_data": OPEN + data(1) * 250,
        "rapid_reset": repeat(300, lambda i: headers(i, GET_MAIN) + rst(i))}[name]
    conn.send(flood)
    assert conn.end() == ENHANCE_YOUR_CALM


def test_a_busy_client_is_no_flood(wire):
    """Cancels, pings and priorities as a browser makes them."""
    wire["main"].program(reply=lambda r: answer(b"x" * 1000))
    client = wire.h2()
    for i in range(100):
        client.begin_request(f"/{i}").cancel()
        assert client.ask(f"/{i}").status == 200
    for _ in range(20):
        client.ping()
    assert not client.goaways


@pytest.mark.parametrize("name", ["ping", "settings", "malformed_heads", "rapid_reset"])
def test_a_flood_that_is_not_read(wire, name):
    """The answers to it pile up somewhere: not without a bound, and not for ever."""
    with wire.unharmed():
        conn = wire.frames("fast", receive_buffer=2048, settle=False)
        conn.peer.socket.settimeout(1)
        try:
            conn.send(FLOODS[name])
        except TimeoutError:
            pass
        conn.peer.socket.settimeout(30)
        try:
            conn.end()
        except Incomplete:   # cut, since it was not read in time: within a frame, maybe
            conn.closed = True
    assert conn.closed


# ---- streams ----

def test_more_streams_than_offered_are_refused(wire):
    """Before the client has acknowledged our SETTINGS: REFUSED_STREAM, to be sent again; the others are served."""
    held = Held()
    wire["main"].program(reply=lambda _: held.wait() or answer())
    conn = wire.frames(settle=False)
    conn.answers = False
    conn.send(repeat(150, lambda i: headers(i, GET_MAIN)))
    conn.read(lambda: len(conn.resets) >= 50)
    assert not conn.closed and len(conn.resets) == 50 and set(conn.resets.values()) == {REFUSED_STREAM}
    held.until(100)
    held.go.set()
    conn.read(lambda: len(conn.ended) == 100)
    assert held.waiting == 100 == len(conn.ended)


def test_more_streams_than_were_agreed_on(wire):
    """Afterwards it is an offence; never more work than offered."""
    held = Held()
    wire["main"].program(reply=lambda _: held.wait() or answer())
    conn = wire.frames()
    conn.round_trip()
    conn.send(repeat(1000, lambda i: headers(i, GET_MAIN)))
    conn.read(lambda: len(conn.resets) >= 900 or conn.goaway is not None)
    assert conn.goaway in (None, PROTOCOL_ERROR, ENHANCE_YOUR_CALM)
    assert set(conn.resets.values()) <= {REFUSED_STREAM, PROTOCOL_ERROR} and held.waiting <= 100
    held.go.set()


@pytest.mark.parametrize("first, second", [(5, 3), (WINDOW_MAX, 1), (7, 7)])
def test_a_stream_number_that_is_over(wire, first, second):
    """Lower than one before, or once more: an error, or (it cannot be told from what crosses a reset) not looked at."""
    conn = wire.frames()
    conn.send(headers(first, request_fields("/first")))
    assert conn.fate(first) == ("answer", 200)
    conn.send(headers(second, request_fields("/evil")))
    if conn.round_trip():
        assert len(conn.heads[second]) == (1 if first == second else 0)
    else:
        assert conn.goaway in (PROTOCOL_ERROR, STREAM_CLOSED)
    nothing_smuggled(wire, ["/first"])


# ---- bombs ----

def bomb(field, count):
    """One field kept in the table, then named so many times, a byte each."""
    return block(request_fields("/bomb")) + literal(*field, first=0x40) + b"\xbe" * count


def in_frames(stream, payload):
    parts = [payload[i:i + 16384] for i in range(0, len(payload), 16384)]
    last = len(parts) - 1
    return b"".join(frame(HEADERS if i == 0 else CONTINUATION,
                          (END_STREAM if i == 0 else 0) | (END_HEADERS if i == last else 0), stream, part)
                    for i, part in enumerate(parts))


BOMBS = {
    "large_value": bomb(("x", "y" * 4000), 12_000), "large_name": bomb(("x" * 4000, ""), 12_000),
    "large_cookie": bomb(("cookie", "y" * 4000), 12_000), "empty_fields": bomb(("x", ""), 60_000),
    "crumbs": bomb(("cookie", ""), 60_000), "literals": block(request_fields("/bomb")) + literal("x", "y") * 25_000,
    "static_fields": block(request_fields("/bomb")) + b"\x90" * 60_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_the_connection(wire, name):
    with wire.unharmed():
        for _ in range(5):
            conn = wire.frames()
            conn.send(in_frames(1, BOMBS[name]))
            assert conn.end() in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR)
            conn.close()
    assert not wire["main"].requests


@pytest.mark.parametrize("field, count", [(("x", "y" * 4000), 100), (("x", ""), 15_000), (("cookie", ""), 15_000),
                                          (("cookie", "a=b"), 150), (("x", "y" * 500), 90)])
def test_a_small_bomb_is_431(wire, field, count):
    conn = wire.frames()
    with wire.unharmed():
        for i in range(50):
            conn.send(headers(2 * i + 1, bomb(field, count)))
            assert conn.fate(2 * i + 1) == ("answer", 431)
    assert not wire["main"].requests
    conn.send(headers(201, request_fields("/good")))
    assert conn.fate(201) == ("answer", 200)


def test_small_bombs_without_end(wire):
    """They come as fast as they are dealt with, so there is always more to read; others have their turn all the same, and
    what is refused is counted soon."""
    body = bomb(("x", ""), 15_000)

    def bombard(conn):
        for i in range(0, 8000, 100):
            conn.send(b"".join(headers(2 * j + 1, body) for j in range(i, i + 100)))

    conns = [wire.frames(settle=False) for _ in range(4)]   # which agree to no number of streams
    threads = [threading.Thread(target=bombard, args=[conn]) for conn in conns]
    with wire.unharmed():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for conn in conns:   # nobody opens the window of the answers
        assert conn.end() in (ENHANCE_YOUR_CALM, None) and len(conn.resets) < 1000
    assert not wire["main"].requests


def test_trailers_are_no_way_around_the_limits(wire):
    for bad in (bomb(("x", "y" * 4000), 100), bomb(("x", ""), 15_000), bomb(("x", "y" * 4000), 12_000)):
        bad = bad[len(block(request_fields("/bomb"))):]
        conn = wire.frames()
        conn.send(OPEN, data(1, b"abc"), headers(1, bad))
        assert conn.fate(1) in (("reset", PROTOCOL_ERROR), ("reset", ENHANCE_YOUR_CALM), ("answer", 431), ("answer", 400),
                                ("goaway", ENHANCE_YOUR_CALM))
        is_cut(wire["main"])
    assert not any(bytes(peer.received).endswith(b"0\r\n\r\n") for peer in wire["main"].peers)


def test_stalled_heads_of_many_streams(wire):
    """HTTP/2 Bomb: the largest lawful heads, on as many streams as may be, whose answers nobody takes."""
    wire["main"].program(reply=lambda _: answer(b"x" * 1000))
    with wire.unharmed():
        conns = [wire.frames("fast", hello=PREFACE + settings((INITIAL_WINDOW, 0)) + window_update(0, 1)) for _ in range(4)]
        for conn in conns:
            conn.send(repeat(100, lambda i: headers(i, block(request_fields("/bomb")) + literal("x", "y" * 1000) * 12)))
        for conn in conns:   # each stream expires by itself
            conn.read(lambda: len(conn.resets) == 100)
            assert conn.closed or set(conn.resets.values()) <= {CANCEL, NO_ERROR, ENHANCE_YOUR_CALM, 2}


def test_the_tables_size_goes_up_and_down(wire):
    conn = wire.frames()
    with wire.unharmed():
        for i in range(200):
            sizes = b"\x20" + hpack_integer(4096, 5, 0x20)   # emptied and opened again
            conn.send(headers(2 * i + 1, sizes + block(request_fields("/said")) + literal("x", "y" * 3000, first=0x40)))
            assert conn.fate(2 * i + 1) == ("answer", 203)


@pytest.mark.parametrize("size", [0, 1, 100, WINDOW_MAX])
def test_a_client_with_another_table(wire, size):
    wire["main"].program(reply=lambda _: answer(b"ok", "200 OK", "X-A: " + "a" * 500, "X-B: b"))
    conn = wire.frames(hello=PREFACE + settings((TABLE_SIZE, size)))
    conn.decoder.max_allowed_table_size = size
    for i in range(20):
        conn.send(headers(2 * i + 1))
        assert conn.fate(2 * i + 1) == ("answer", 200) and dict(conn.heads[2 * i + 1][0])["x-a"] == "a" * 500


# ---- slowness ----

SLOW = {
    "silence": b"", "part_of_the_preface": PREFACE[:10], "preface_alone": PREFACE, "settings_alone": PREFACE + settings(),
    "part_of_a_header": PREFACE + settings() + headers(1)[:5], "part_of_headers": PREFACE + settings() + headers(1)[:20],
    "half_a_block": PREFACE + settings() + HALF, "part_of_a_ping": PREFACE + settings() + frame(PING, 0, 0, bytes(8))[:12],
    "part_of_unknown": PREFACE + settings() + frame(0x77, 0, 0, b"abc", size=1000),
    "padding": PREFACE + settings() + frame(0x77, 0, 0, b"abc", size=16384),
}


@pytest.mark.parametrize("listener", ["fast", "tls_fast"])
def test_what_stays_unfinished_is_closed(wire, listener):
    conns = {name: wire.frames(listener, hello=start, settle=False) for name, start in SLOW.items()}
    for name, conn in conns.items():
        code = conn.end()
        assert code in (None, NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM) and not wire["main"].requests, name


@pytest.mark.parametrize("name", ["continuations", "pings", "bytes_of_a_block"])
def test_a_block_that_trickles_is_closed(wire, name):
    """The deadline is for the whole head; that something comes all the time does not help."""
    conn, stop = wire.frames("fast"), threading.Event()
    pieces = {"continuations": [HALF] + [frame(CONTINUATION, 0, 1, literal("x", "y"))] * 200,
              "pings": [OPEN] + [frame(PING, 0, 0, bytes(8))] * 200,
              "bytes_of_a_block": [HALF[:9], *(HALF[i:i + 1] for i in range(9, len(HALF)))] + [b"\0"] * 200}[name]

    def trickle():
        for piece in pieces:
            conn.send(piece)
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    if name == "pings":   # they do not keep the body's deadline away
        assert conn.fate(1) == ("answer", 408)
    else:
        conn.end()
        assert conn.closed
    stop.set()
    thread.join()


@pytest.mark.parametrize("what", ["heads", "uploads"])
def test_packets_that_end_within_frames_are_no_fault(wire, what):
    """However long it goes on, as each frame comes on in time."""
    wire["main"].program(reply=lambda r: answer(r.body))
    conn, pace = wire.frames("steady"), threading.Event()
    if what == "heads":
        stream = b"".join(headers(i, request_fields("/said")) for i in range(1, 60, 2))
    else:
        stream = OPEN + data(1, b"x" * 96) * 30 + data(1, end=True)
    size = len(stream) // 40
    for at in range(0, len(stream), size):
        conn.send(stream[at:at + size])
        pace.wait(0.15)
    for i in range(1, 60, 2) if what == "heads" else [1]:
        assert conn.fate(i) == ("answer", 203 if what == "heads" else 200)


def test_half_open_connections_hurt_nobody(wire):
    with wire.unharmed():
        conns = [wire.frames("trusted", hello=start, settle=False) for start in list(SLOW.values()) * 30]
        for conn in conns:
            conn.close()


def test_each_byte_in_a_packet_of_its_own(wire):
    wire["main"].program(reply=lambda r: answer(r.body))
    conn = wire.frames(hello=b"")
    conn.peer.send_slowly(PREFACE + settings() + headers(1, POST, end=False) + data(1, b"hello") + frame(0x77, 0, 0, b"abc") +
                          frame(DATA, PADDED | END_STREAM, 1, b"\x03 world\0\0\0"))
    assert conn.fate(1) == ("answer", 200) and wire["main"].only().body == b"hello world" and conn.bodies[1] == 11


def test_windows_that_never_open_hold_little(wire):
    """100 streams of a large answer each, with no window, then with one byte at a time (CVE-2019-9511)."""
    wire["main"].program(reply=lambda _: answer(b"x" * MIB))
    with wire.unharmed():
        conn = wire.frames("trusted", hello=PREFACE + settings((INITIAL_WINDOW, 0)))
        conn.send(repeat(100, lambda i: headers(i, GET_MAIN)))
        conn.read(lambda: len(conn.heads) == 100 or conn.closed)
        for _ in range(20):
            conn.send(repeat(100, lambda i: window_update(i, 1)))
        conn.read(lambda: sum(conn.bodies.values()) >= 2000)
        assert not conn.closed and max(conn.bodies.values()) == 20


def test_slow_readers_hold_little(wire):
    """Windows wide open, but the socket is not read: many answers wait in one connection."""
    wire["main"].program(reply=lambda _: answer(b"x" * (4 * MIB)))
    count = wire.ends("client_slow")
    with wire.unharmed():
        conns = [wire.frames("fast", receive_buffer=4096,
                             hello=PREFACE + settings((INITIAL_WINDOW, WINDOW_MAX)) + window_update(0, 1 << 30))
                 for _ in range(4)]
        for conn in conns:
            conn.send(repeat(25, lambda i: headers(i, GET_MAIN)))
        until(lambda: wire.ends("client_slow") >= count + 100, "the cut of every stream")
    until(lambda: all(peer.over for peer in wire["main"].peers), "the upstream's connections closed")


def test_many_uploads_that_stall(wire):
    """Each stream's window full, and the upstream reads nothing: the connection's window bounds it all."""
    held = Held()
    wire["main"].program(lambda peer: held.wait())
    with wire.unharmed():
        conns = [wire.frames() for _ in range(10)]
        for conn in conns:
            conn.send(repeat(60, lambda i: headers(i, OPEN_MAIN, end=False) + data(i, b"z" * 16384)))
        held.until(600)
        for conn in conns:
            assert conn.round_trip()
    held.go.set()


def test_more_data_than_the_window(wire):
    held = Held()
    wire["main"].program(lambda peer: held.wait())
    conn = wire.frames()
    conn.round_trip()
    window = conn.their_settings[INITIAL_WINDOW]
    conn.send(OPEN)
    held.until(1)
    conn.send(data(1, b"z" * 16384) * (kernel_buffers() // 16384))   # what the upstream's sockets take, and more
    assert conn.fate(1) in (("goaway", FLOW_CONTROL_ERROR), ("reset", FLOW_CONTROL_ERROR), ("closed", None))
    assert window <= MIB
    held.go.set()


def test_a_client_that_half_closes_is_answered(wire):
    conn = wire.frames()
    conn.send(headers(1))
    conn.peer.socket.shutdown(socket.SHUT_WR)
    assert conn.fate(1)[0] in ("answer", "goaway", "closed")
    conn.end()
