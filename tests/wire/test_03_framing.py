"""What is malformed or ambiguous (RFC 9112, 9110) is refused: an answer with a reason, the connection closed, nothing
forwarded. Each row is a class of attack or laxity that some server has been caught with.
"""
import pytest

from gateway import until
from peers import request

GET = "GET / HTTP/1.1\r\nHost: a\r\n"
POST = "POST / HTTP/1.1\r\nHost: a\r\n"
TE = "Transfer-Encoding: "
# What a server that is fooled would take for a second request.
SECOND = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def head(*fields, start="GET / HTTP/1.1", host="Host: a"):
    return "\r\n".join([start, *([host] if host else []), *fields]) + "\r\n\r\n"


def post(*fields):
    return head(*fields, start="POST / HTTP/1.1")


CODES = {400: "bad_request", 414: "uri_too_long", 431: "headers_too_large", 501: "not_implemented",
         505: "version_not_supported"}

HEADS = {
    # both, and neither one clean
    "cl_te": (400, post("Content-Length: 6", TE + "chunked") + "0\r\n\r\nG"),
    "te_cl": (400, post(TE + "chunked", "Content-Length: 4") + "5c\r\n"),
    "te_twice": (400, post(TE + "chunked", TE + "chunked") + "0\r\n\r\n"),
    "te_twice_other": (400, post(TE + "chunked", TE + "identity") + "0\r\n\r\n"),
    "te_list_chunked_twice": (400, post(TE + "chunked, chunked") + "0\r\n\r\n"),
    "te_not_final": (400, post(TE + "chunked, gzip") + "0\r\n\r\n"),
    "te_unknown": ({400, 501}, post(TE + "gzip")),
    "te_unknown_then_chunked": (501, post(TE + "gzip, chunked") + "0\r\n\r\n"),
    "te_identity": (400, post(TE + "identity", "Content-Length: 3") + "abc"),
    "te_xchunked": ({400, 501}, post(TE + "xchunked") + "0\r\n\r\n"),
    "te_quoted": (400, post(TE + '"chunked"') + "0\r\n\r\n"),
    "te_vertical_tab": (400, post(TE + "\vchunked") + "0\r\n\r\n"),
    "te_parameter": ({400, 501}, post(TE + "chunked;q=1") + "0\r\n\r\n"),
    "te_comma_first": (400, post(TE + ", chunked") + "0\r\n\r\n"),
    "te_empty": (400, post(TE)),
    "te_space_before_colon": (400, post("Transfer-Encoding : chunked") + "0\r\n\r\n"),
    "te_tab_before_colon": (400, post("Transfer-Encoding\t: chunked") + "0\r\n\r\n"),
    "te_folded": (400, post("Transfer-Encoding:\r\n chunked") + "0\r\n\r\n"),
    "te_folded_value": (400, post("X: a\r\n\tTransfer-Encoding: chunked") + "0\r\n\r\n"),
    "te_behind_bare_cr": (400, post("X: a\rTransfer-Encoding: chunked") + "0\r\n\r\n"),
    "te_behind_bare_lf": (400, post("X: a\nTransfer-Encoding: chunked") + "0\r\n\r\n"),
    "te_null": (400, post(TE + "chunked\0") + "0\r\n\r\n"),
    "te_0xff": ({400, 501}, post(TE + "chunked\xff") + "0\r\n\r\n"),
    "te_in_1_0": (400, "POST / HTTP/1.0\r\nHost: a\r\n" + TE + "chunked\r\n\r\n0\r\n\r\n"),
    # lengths
    "cl_differ": (400, post("Content-Length: 3", "Content-Length: 4") + "abcd"),
    "cl_equal_twice": (400, post("Content-Length: 3", "Content-Length: 3") + "abc"),
    "cl_list": (400, post("Content-Length: 3, 4") + "abcd"),
    "cl_list_equal": (400, post("Content-Length: 3, 3") + "abc"),
    "cl_plus": (400, post("Content-Length: +3") + "abc"),
    "cl_minus": (400, post("Content-Length: -1")),
    "cl_hex": (400, post("Content-Length: 0x3") + "abc"),
    "cl_fraction": (400, post("Content-Length: 3.0") + "abc"),
    "cl_exponent": (400, post("Content-Length: 3e0") + "abc"),
    "cl_underscore": (400, post("Content-Length: 1_0") + "0123456789"),
    "cl_empty": (400, post("Content-Length:")),
    "cl_blank_inside": (400, post("Content-Length: 1 0") + "0123456789"),
    "cl_2_64": (400, post("Content-Length: 18446744073709551616")),
    "cl_2_63": (400, post("Content-Length: 9223372036854775808")),
    "cl_wraps_to_3": (400, post("Content-Length: 18446744073709551619") + "abc"),
    "cl_quoted": (400, post('Content-Length: "3"') + "abc"),
    "cl_arabic": (400, post("Content-Length: \xd9\xa3") + "abc"),
    "cl_space_before_colon": (400, post("Content-Length : 3") + "abc"),
    "cl_of_the_get_smuggled": (400, head("Content-Length: 44", "Content-Length: 0") + SECOND),
    # fields
    "space_before_colon": (400, head("X-A : b")),
    "space_before_name": (400, head(" X-A: b", "X-B: c")),
    "fold_at_first_field": (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "obs_fold": (400, head("X-A: b\r\n c")),
    "no_colon": (400, head("X-A")),
    "empty_name": (400, head(": b")),
    "name_with_space": (400, head("X A: b")),
    "name_with_slash": (400, head("X/A: b")),
    "name_with_paren": (400, head("X(A: b")),
    "name_with_high_byte": (400, head("X\xe9: b")),
    "name_with_null": (400, head("X\0A: b")),
    "value_with_null": (400, head("X-A: b\0c")),
    "value_with_bare_cr": (400, head("X-A: b\rc")),
    "value_with_escape": (400, head("X-A: \x1b[0m")),
    "value_with_del": (400, head("X-A: \x7f")),
    "bare_lf_line": (400, "GET / HTTP/1.1\nHost: a\n\n"),
    "bare_lf_in_fields": (400, GET + "X-A: b\nX-B: c\r\n\r\n"),
    "bare_lf_end": (400, GET + "\n"),
    "cr_cr_lf": (400, GET + "X-A: b\r\r\n\r\n"),
    # Host
    "no_host": (400, head(host=None)),
    "two_hosts": (400, head("Host: b")),
    "two_equal_hosts": (400, head("Host: a")),
    "host_empty": (400, head(host="Host:")),
    "host_user": (400, head(host="Host: u@a")),
    "host_path": (400, head(host="Host: a/b")),
    "host_list": (400, head(host="Host: a, b")),
    "host_space": (400, head(host="Host: a b")),
    "host_port": (400, head(host="Host: a:b")),
    "host_port_range": (400, head(host="Host: a:65536")),
    "host_bracket": (400, head(host="Host: [::1")),
    "host_not_v6": (400, head(host="Host: [a]")),
    "absolute_user": (400, head(start="GET http://u:p@a/ HTTP/1.1")),
    "absolute_empty": (400, head(start="GET http:/// HTTP/1.1")),
    "absolute_without_host": (400, head(start="GET http://a/ HTTP/1.1", host=None)),
    # the request line
    "no_version": (400, "GET /\r\n\r\n"),
    "version_0_9": ({400, 505}, head(start="GET / HTTP/0.9")),
    "version_2": (505, head(start="GET / HTTP/2.0")),
    "version_3": (505, head(start="GET / HTTP/3.1")),
    "version_long": (400, head(start="GET / HTTP/1.10")),
    "version_short": (400, head(start="GET / HTTP/1")),
    "version_lower": (400, head(start="GET / http/1.1")),
    "version_other": (400, head(start="GET / ICY/1.1")),
    "version_spaces": (400, head(start="GET /  HTTP/1.1")),
    "version_trailing_space": (400, head(start="GET / HTTP/1.1 ")),
    "method_spaces": (400, head(start="GET  / HTTP/1.1")),
    "method_tab": (400, head(start="GET\t/ HTTP/1.1")),
    "method_leading_space": (400, head(start=" GET / HTTP/1.1")),
    "method_bytes": (400, head(start="G(T / HTTP/1.1")),
    "method_empty": (400, head(start="/ HTTP/1.1")),
    "method_long": (501, head(start="A" * 100 + " / HTTP/1.1")),
    "target_without_slash": (400, head(start="GET a HTTP/1.1")),
    "target_fragment": (400, head(start="GET /a#b HTTP/1.1")),
    "target_query_fragment": (400, head(start="GET /a?b#c HTTP/1.1")),
    "target_control": (400, head(start="GET /a\x01 HTTP/1.1")),
    "target_high_byte": (400, head(start="GET /\xe9 HTTP/1.1")),
    "target_quote": (400, head(start='GET /" HTTP/1.1')),
    "target_other_scheme": (400, head(start="GET ftp://a/ HTTP/1.1")),
    "target_star_of_get": (400, head(start="GET * HTTP/1.1")),
    "target_escape": (400, head(start="GET /%zz HTTP/1.1")),
    "target_escape_cut": (400, head(start="GET /%4 HTTP/1.1")),
    "target_null": (400, head(start="GET /%00 HTTP/1.1")),
    "connect": (501, head(start="CONNECT a:443 HTTP/1.1")),
    "connect_malformed": (400, head(start="CONNECT / HTTP/1.1")),
    "h2_preface": (505, "PRI * HTTP/2.0\r\nHost: h\r\n\r\n"),  # no preface of HTTP/2
    "tls_hello": (400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "three_empty_lines": (400, "\r\n\r\n\r\n" + head()),
    "connection_options": (400, head("Connection: " + ", ".join("x%d" % i for i in range(50)))),
}

CHUNKS = {
    "0x": "0x3\r\nabc\r\n0\r\n\r\n",
    "plus": "+3\r\nabc\r\n0\r\n\r\n",
    "minus": "-3\r\nabc\r\n0\r\n\r\n",
    "underscore": "1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "blank_first": " 3\r\nabc\r\n0\r\n\r\n",
    "blank_behind": "3 \r\nabc\r\n0\r\n\r\n",
    "empty_size": "\r\nabc\r\n0\r\n\r\n",
    "extension_only": ";a=b\r\nabc\r\n0\r\n\r\n",
    "not_hex": "3g\r\nabc\r\n0\r\n\r\n",
    "2_64": "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "2_63": "8000000000000003\r\nabc\r\n0\r\n\r\n",
    "zeros": "0" * 100 + "3\r\nabc\r\n0\r\n\r\n",
    "lf_behind_size": "3\nabc\r\n0\r\n\r\n",
    "cr_behind_size": "3\rabc\r\n0\r\n\r\n",
    "lf_behind_data": "3\r\nabc\n0\r\n\r\n",
    "nothing_behind_data": "3\r\nabc0\r\n\r\n",
    "longer_data": "3\r\nabcd\r\n0\r\n\r\n",
    "lf_in_extension": "3;a\nabc\r\n0\r\n\r\n",          # TERM.EXT
    "lf_in_extension_two": "3;\nxx\r\nabc\r\n0\r\n\r\n",     # EXT.TERM
    "cr_in_extension": "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "spill": "3\r\nabcXX0\r\n\r\n",                         # TERM.SPILL
    "null_in_extension": "3;a=\0\r\nabc\r\n0\r\n\r\n",
    "quote_open": '3;a="b\r\nabc\r\n0\r\n\r\n',
    "long_extension": "3;a=" + "b" * 20000 + "\r\nabc\r\n0\r\n\r\n",
    "lf_last": "3\r\nabc\r\n0\r\n\n",
    "lf_behind_last": "3\r\nabc\r\n0\n\r\n",
    "trailer_space": "3\r\nabc\r\n0\r\nX-T : a\r\n\r\n",
    "trailer_fold": "3\r\nabc\r\n0\r\nX-T: a\r\n b\r\n\r\n",
    "trailer_no_colon": "3\r\nabc\r\n0\r\n" + SECOND,
    "trailer_lf": "3\r\nabc\r\n0\r\nX-T: a\nX-U: b\r\n\r\n",
    "trailer_null": "3\r\nabc\r\n0\r\nX-T: \0\r\n\r\n",
    "trailers_many": "3\r\nabc\r\n0\r\n" + "X-T: a\r\n" * 2000 + "\r\n",
    "trailer_long": "3\r\nabc\r\n0\r\nX-T: " + "a" * 100_000 + "\r\n\r\n",
    "small_chunks_of_zeros": "0000000000000001\r\na\r\n" * 20_000 + "0\r\n\r\n",
    "small_chunks_of_extensions": "".join("1;%s\r\na\r\n" % ("x" * 30) for _ in range(2000)) + "0\r\n\r\n",
}


def refused(wire, got, client, wanted):
    assert got.status in (wanted if isinstance(wanted, set) else {wanted}), got
    assert got.get("Content-Type") == "application/problem+json" and got.get("Connection") == "close"
    problem = got.json
    assert problem["status"] == got.status and problem["code"] == CODES[got.status]
    assert problem["title"] and problem["detail"] and problem["instance"] == got.get("X-Request-Id")
    assert client.ended(), f"more came: {client.buffer}"
    assert b"smuggled" not in wire["main"].received


def send(client, data, how):
    """What is refused early may be answered before all of it was sent."""
    try:
        (client.send_slowly if how == "slowly" else client.send)(data.encode("latin-1"))
    except ConnectionError:
        pass


@pytest.mark.parametrize("how", ["at_once", "slowly", "behind_another"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_refused(wire, name, how):
    wanted, text = HEADS[name]
    client = wire.raw()
    if how == "behind_another":
        send(client, head(start="GET /good HTTP/1.1") + text, how)
        assert client.response().status == 200
    else:
        send(client, text + (SECOND if how == "at_once" and "\r\n\r\n" in text else ""), how)
    refused(wire, client.response(), client, wanted)
    assert [seen.target for seen in wire["main"].requests] == (["/good"] if how == "behind_another" else [])


@pytest.mark.parametrize("name, how", [(name, how) for name, text in CHUNKS.items() for how in ("at_once", "slowly")
                                       if how == "at_once" or len(text) < 2000])
def test_a_chunked_body_is_refused(wire, name, how):
    text = post(TE + "chunked") + CHUNKS[name]
    client = wire.raw()
    send(client, text, how)
    refused(wire, client.response(), client, 400)
    # The upstream may have seen the beginning; it must never see an end, and its connection is cut.
    until(lambda: all(peer.eof for peer in wire["main"].peers), "the upstream's connection cut")
    assert not any(bytes(peer.received).endswith(b"0\r\n\r\n") for peer in wire["main"].peers)
    assert len(wire["main"].requests) <= 1 and wire.pooled("main") == 0


@pytest.mark.parametrize("text", [
    "3\r\nabc\r\n0\r\n\r\n", "03\r\nabc\r\n00\r\n\r\n", "3;a\r\nabc\r\n0;b=c\r\n\r\n", '3;a="b;c";d=e\r\nabc\r\n0\r\n\r\n',
    "3 ;a\r\nabc\r\n0\r\n\r\n", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nX-T:\r\n\r\n"])
def test_a_lawful_chunked_body_is_forwarded_plainly(wire, text):
    client = wire.raw()
    assert client.ask(post(TE + "Chunked") + text).status == 200
    seen = wire["main"].only()
    assert seen.body == b"abc" and seen.get("Transfer-Encoding") == "chunked"
    assert b";" not in wire["main"].received.split(b"\r\n\r\n", 1)[1]
    assert client.ask(head()).status == 200


@pytest.mark.parametrize("text", [
    head("X-A:b"), head("X-A: \t b \t "), head("X-A:"), head("X-A: \xe9\xff"), head("!#$%&'*+-.^`|~1: b"),
    head(start="GET http://a/ HTTP/1.1", host="Host: b"), head(start="GET http://a HTTP/1.1"),
    head(host="Host: [::1]:80"), head(host="hOST: a.b.c:"), head(start="GET /?a?b/c HTTP/1.1"),
    head(start="OPTIONS * HTTP/1.1"), "\r\n" + head()])
def test_lawful_oddities_are_served(wire, text):
    client = wire.raw()
    assert client.ask(text).status in (200, 404)
    assert client.ask(head()).status == 200


# ---- sizes ----

@pytest.mark.parametrize("how", ["at_once", "slowly"])
@pytest.mark.parametrize("status, text", [
    (414, head(start=f"GET /{'a' * 300} HTTP/1.1")), (414, head(start=f"GET /?{'a' * 300} HTTP/1.1")),
    (414, "GET /" + "a" * 4000), (431, head("X-A: " + "b" * 3000)), (431, head("X" * 3000 + ": b")),
    (431, head(*["X-A: b"] * 13)), (431, GET + "X-A: " + "b" * 4000)],
    ids=["path", "query", "endless_line", "value", "name", "count", "endless_field"])
def test_too_large_heads(wire, status, text, how):
    client = wire.raw("small")
    send(client, text, how)
    refused(wire, client.response(), client, status)
    assert not wire["main"].requests


def test_what_just_fits(wire):
    client = wire.raw("small")
    assert client.ask(head(start=f"GET /{'a' * 255} HTTP/1.1")).status == 200
    assert client.ask(head(*["X-A: b"] * 11)).status == 200
    rest = 2048 - len(head("X-A: "))
    assert client.ask(head("X-A: " + "b" * rest)).status == 200
    assert client.ask(head("X-A: " + "b" * (rest + 1))).status == 431


def test_an_endless_head_costs_no_memory(wire):
    before = wire.resident_kib()
    for _ in range(20):
        client = wire.raw()
        send(client, GET + "X-A: " + "b" * 1_000_000, "at_once")
        assert client.response().status == 431
    assert wire.resident_kib() - before < 4096


# ---- upgrades that are none ----

@pytest.mark.parametrize("fields", [
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ["Connection: Upgrade", "Upgrade: h2c"], ["Connection: Upgrade", "Upgrade: H2C"], ["Upgrade: h2c"],
    ["Connection: Upgrade", "Upgrade: websocket, h2c"], ["Connection: Upgrade", "Upgrade: h2"],
    ["Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"], ["Upgrade: websocket"]])
def test_no_such_upgrade_is_forwarded(wire, fields):
    client = wire.raw()
    assert client.ask(head(*fields)).status == 200
    assert not {"upgrade", "http2-settings", "connection"} & set(wire["main"].only().names)
    assert client.ask(head()).status == 200


@pytest.mark.parametrize("nominated", ["Host", "Content-Length", "Transfer-Encoding", "X-Forwarded-For", "X-Request-Id",
                                       "Via", "traceparent", "X-Forwarded-Host", "X-Forwarded-Proto", "Cookie"])
def test_connection_takes_nothing_of_the_gateways_away(wire, nominated):
    text = head(f"Connection: close, {nominated}", "Cookie: a", *([] if nominated == "Transfer-Encoding" else
                                                                   ["Content-Length: 2"]),
                *([TE + "chunked"] if nominated == "Transfer-Encoding" else []), start="POST / HTTP/1.1")
    body = "2\r\nok\r\n0\r\n\r\n" if nominated == "Transfer-Encoding" else "ok"
    assert wire.raw().ask(text + body).status == 200
    seen = wire["main"].only()
    assert seen.body == b"ok" and seen.get("Host") == "a"
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Via", "traceparent"):
        assert seen.get(name), f"{name} is gone"
    assert (seen.get("Cookie") is None) == (nominated == "Cookie")


def test_every_refusal_is_counted(wire):
    before = wire.ends("bad_request")
    client = wire.raw()
    client.ask("nonsense\r\n\r\n")
    assert wire.ends("bad_request") == before + 1
    assert client.ended() and wire.raw().ask(request()).status == 200
