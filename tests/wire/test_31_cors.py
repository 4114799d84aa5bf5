"""CORS as the Fetch standard has it: preflights are answered by the gateway, before anything else judges the request; every
other answer, the gateway's own too, says whether a script may read it."""
import pytest

from gateway import Gateway
from h2_peers import H2Client
from peers import Raw, Upstream, answer, request

APP, OTHER = "https://app.example.com", "https://evil.example"
CORS = {"origins": [APP, "https://*.apps.example"], "methods": ["GET", "PUT"], "headers": ["Authorization", "X-One"],
        "expose": ["X-Total", "ETag"], "credentials": True, "max_age": "1m"}
NAMES = ["Allow-Origin", "Allow-Credentials", "Allow-Methods", "Allow-Headers", "Expose-Headers", "Max-Age"]


@pytest.fixture(scope="module")
def cors(tmp_path_factory):
    upstream = Upstream()
    route = lambda name, match=(), **more: {   # noqa: E731
        "name": name, "match": {"path": {"prefix": f"/{name}"}, **dict(match)}, "upstream": "main", "cors": CORS, **more}
    with Gateway(tmp_path_factory.mktemp("cors"), {
            "workers": 1, "upstreams": {"main": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]},
                                        "gone": {"targets": [{"address": "127.0.0.1:1"}]}},
            "routes": [
                route("plain"), route("public", cors={"origins": ["*"]}), route("theirs", cors=None),
                route("read", {"methods": ["GET"]}), {**route("write", {"methods": ["PUT"], "path": {"prefix": "/read"}})},
                route("faulty", fault={"status": 503}), route("nobody", ip={"deny": ["127.0.0.0/8"]}),
                route("tiny", request_body_bytes=1), route("gone", upstream="gone"),
                route("edited", headers={"request": {"remove": ["Origin"]}}),
                {"name": "said", "match": {"path": {"prefix": "/said"}}, "cors": CORS, "respond": {"body": "said"}},
            ]}) as gateway:
        gateway.upstream = upstream
        yield gateway
    upstream.close()


@pytest.fixture(autouse=True)
def plain_upstream(cors):
    cors.upstream.requests.clear()
    cors.upstream.program(reply=lambda _: answer(b"hello"))


@pytest.fixture(params=["h1", "h2"])
def version(request):
    return request.param


@pytest.fixture
def ask(version, cors):
    """ask(path, method, *fields, body=None) over either version."""
    client = H2Client(cors.port) if version == "h2" else Raw(cors.port)

    def over_h1(path, method, *fields, body=None):
        return client.ask(request(path, method, *fields, body=body), method)

    yield client.ask if version == "h2" else over_h1
    client.close()


def said(got):
    """What the answer says of CORS, without the names' common beginning."""
    return {name: got.get(f"Access-Control-{name}") for name in NAMES if got.all(f"Access-Control-{name}")}


READABLE = {"Allow-Origin": APP, "Allow-Credentials": "true", "Expose-Headers": "X-Total, ETag"}
ALLOWED = {"Allow-Origin": APP, "Allow-Credentials": "true", "Allow-Methods": "GET, PUT",
           "Allow-Headers": "Authorization, X-One", "Max-Age": "60"}


def preflight(origin=APP, method="PUT", headers="authorization,x-one"):
    return [f"Origin: {origin}", f"Access-Control-Request-Method: {method}",
            *([f"Access-Control-Request-Headers: {headers}"] if headers else [])]


def test_preflight(ask, cors):
    got = ask("/plain", "OPTIONS", *preflight())
    assert (got.status, got.body, said(got)) == (204, b"", ALLOWED)
    assert got.get("Vary") == "Origin" and got.get("Content-Length") is None and got.get("X-Request-Id")
    assert not cors.upstream.requests


@pytest.mark.parametrize("fields", [
    preflight(OTHER), preflight("null"), preflight("https://apps.example"), preflight(method="DELETE"),
    preflight(headers="authorization,x-two")])
def test_refused_preflight(ask, cors, fields):
    got = ask("/plain", "OPTIONS", *fields)
    assert (got.status, said(got), got.get("Vary")) == (204, {}, "Origin")
    assert not cors.upstream.requests


def test_preflight_of_an_origin_below_a_domain(ask):
    origin = "https://a.b.apps.example"
    assert said(ask("/plain", "OPTIONS", *preflight(origin))) == {**ALLOWED, "Allow-Origin": origin}


def test_preflight_for_all(ask):
    assert said(ask("/public", "OPTIONS", *preflight(OTHER, "GET", None))) == {
        "Allow-Origin": "*", "Allow-Methods": "GET, HEAD, POST", "Max-Age": "600"}


def test_other_options_go_upstream(ask, cors):
    assert ask("/plain", "OPTIONS", f"Origin: {APP}").status == 200
    assert ask("/plain", "OPTIONS", "Access-Control-Request-Method: PUT").status == 200
    assert ask("/theirs", "OPTIONS", *preflight()).status == 200
    assert [seen.method for seen in cors.upstream.requests] == 3 * ["OPTIONS"]


def test_preflight_goes_where_its_request_goes(ask, cors):
    for method in ("GET", "PUT"):
        assert said(ask("/read", "OPTIONS", *preflight(method=method))) == ALLOWED
    got = ask("/read", "OPTIONS", *preflight(method="DELETE"))
    assert got.status == 405 and got.get("Allow") == "GET, PUT"
    assert not cors.upstream.requests


@pytest.mark.parametrize("path,status", [("/faulty", 204), ("/gone", 204), ("/said", 204), ("/nobody", 403)])
def test_preflight_comes_before_the_rest(ask, path, status):
    assert ask(path, "OPTIONS", *preflight()).status == status


def test_readable(ask, cors):
    got = ask("/plain", "GET", f"Origin: {APP}")
    assert (got.status, said(got), got.get("Vary")) == (200, READABLE, "Origin")
    assert cors.upstream.only().get("Origin") == APP


@pytest.mark.parametrize("fields", [[f"Origin: {OTHER}"], [], ["Origin: null"]])
def test_not_readable(ask, fields):
    got = ask("/plain", "GET", *fields)
    assert (got.status, said(got), got.get("Vary")) == (200, {}, "Origin")


def test_readable_by_all(ask):
    for fields in ([f"Origin: {OTHER}"], []):
        got = ask("/public", "GET", *fields)
        assert said(got) == {"Allow-Origin": "*"} and got.get("Vary") is None


def test_what_the_upstream_says_is_replaced(ask, cors):
    cors.upstream.program(reply=lambda _: answer(
        b"", "200 OK", "access-control-allow-origin: *", "Access-Control-Allow-Origin: https://evil.example",
        "Access-Control-Allow-Private-Network: true", "Access-Control-Expose-Headers: X-Secret", "Vary: Accept"))
    got = ask("/plain", "GET", f"Origin: {APP}")
    assert said(got) == READABLE and got.all("Vary") == ["Accept", "Origin"]
    assert not got.all("Access-Control-Allow-Private-Network")


@pytest.mark.parametrize("path,method,body,status", [
    ("/faulty", "GET", None, 503), ("/nobody", "GET", None, 403), ("/tiny", "PUT", b"too large", 413),
    ("/gone", "GET", None, 502), ("/said", "GET", None, 200)])
def test_own_answers_are_readable(ask, path, method, body, status):
    got = ask(path, method, f"Origin: {APP}", body=body)
    assert (got.status, said(got), got.get("Vary")) == (status, READABLE, "Origin")
    got = ask(path, method, f"Origin: {OTHER}", body=body)
    assert (got.status, said(got), got.get("Vary")) == (status, {}, "Origin")


def test_edits_of_the_request_do_not_matter(ask, cors):
    assert said(ask("/edited", "GET", f"Origin: {APP}")) == READABLE
    assert cors.upstream.only().get("Origin") is None


def test_an_origin_that_connection_names(cors):
    client = Raw(cors.port)
    got = client.ask(request("/plain", "GET", f"Origin: {APP}", "Connection: Origin"), "GET")
    assert said(got) == READABLE and cors.upstream.only().get("Origin") is None
    client.close()
