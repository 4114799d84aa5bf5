"""The status and admin listeners of a running gateway."""
import http.client
import json
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from gateway import BUILD, DEADLINE, Client, Gateway, ask, until

TOKEN = "a-long-admin-token"


class Echo:
    """build/sallyport-echo on a free port."""

    def __init__(self, name="orders"):
        self.process = subprocess.Popen([str(BUILD / "sallyport-echo"), "--listen", "127.0.0.1:0", "--name", name],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def ask(self, path):
        return json.loads(ask(self.port, path).body)

    def close(self):
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def echo():
    program = Echo()
    yield program
    program.close()


def configuration(echo):
    return {
        "upstreams": {"orders": {"targets": [{"address": f"127.0.0.1:{echo.port}", "weight": 3}],
                                 "health_check": {"path": "/health", "interval": "1s", "timeout": "1s",
                                                  "healthy": 1, "unhealthy": 1}}},
        "routes": [
            {"name": "rest", "match": {"path": {"prefix": "/"}}, "upstream": "orders"},
            {"name": "item", "match": {"hosts": ["*.example.com"], "path": {"template": "/items/{id}"},
                                       "methods": ["GET"]},
             "upstream": "orders", "rewrite": {"path": "/i/{id}"}},
            {"name": "moved", "match": {"path": {"exact": "/old"}}, "redirect": {"to": "/new", "status": 301}},
        ],
    }


@pytest.fixture(scope="module")
def gateway(echo, tmp_path_factory):
    with Gateway(tmp_path_factory.mktemp("admin"), configuration(echo)) as running:
        yield running


def api(gateway, path, method="GET", status=200, **more):
    answer = ask(gateway.admin_port, f"/api/v1/{path}", method=method, **more)
    assert answer.status == status, answer
    return json.loads(answer.body)


def explain(gateway, request, headers=None, status=200):
    body = json.dumps({"request": request, "headers": headers or {}})
    return api(gateway, "explain", "POST", status, body=body)


def problem(answer, status, code):
    """An answer of RFC 9457, with everything that ours have."""
    assert answer.status == status, answer
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["content-type"] == "application/problem+json"
    body = json.loads(answer.body)
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(body)
    assert (body["status"], body["code"], body["instance"]) == (status, code, headers["x-request-id"])
    return body


class Raw:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def rest(self):
        data = b""
        while True:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                return data
            if not piece:
                return data
            data += piece

    def ended(self):
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def close(self):
        self.socket.close()


# ---- status ----

def test_alive_and_ready(gateway):
    assert json.loads(ask(gateway.status_port, "/livez").body) == {"status": "alive"}
    assert json.loads(ask(gateway.status_port, "/readyz").body) == {"status": "ready"}


def test_not_ready_while_draining(make):
    gateway = make({"drain": {"delay": "20s", "timeout": "5s"}}).start()
    assert api(gateway, "drain", "POST", 202) == {"draining": True}
    until(lambda: ask(gateway.status_port, "/readyz").status == 503, "not ready")
    answer = ask(gateway.status_port, "/readyz")
    assert json.loads(answer.body) == {"status": "not_ready", "reason": "draining"}
    assert ask(gateway.status_port, "/livez").status == 200
    assert ask(gateway.status_port, "/healthz").status == 503
    assert gateway.ask().status == 200   # the delay: still accepting
    assert api(gateway, "info")["state"] == "draining"


def test_health_follows_the_endpoints(gateway, echo):
    def health():
        return json.loads(ask(gateway.status_port, "/healthz").body)

    until(lambda: health()["status"] == "ok", health)
    assert health()["upstreams"] == [{"name": "orders", "endpoints": 1, "up": 1, "ejected": 0}]
    assert health()["listeners"] == {"configured": 1, "accepting": 1}
    try:
        echo.ask("/_control/health?up=0")
        until(lambda: health()["status"] == "degraded", health)
        assert health()["upstreams"][0]["up"] == 0
        endpoint = api(gateway, "upstreams")["upstreams"][0]["endpoints"][0]
        assert not endpoint["up"] and endpoint["check_failures"] >= 1 and endpoint["last_check"]
        assert gateway.metrics()[f'sallyport_upstream_endpoint_up{{upstream="orders",endpoint="127.0.0.1:{echo.port}"}}'] == 0
    finally:
        echo.ask("/_control/health?up=1")
    until(lambda: health()["status"] == "ok", health)


def test_metrics(gateway):
    before = gateway.metrics()
    for _ in range(20):   # over all workers
        gateway.ask("/x")
    name = 'sallyport_http_requests_total{listener="http",route="rest",method="GET",code="200"}'
    until(lambda: gateway.metrics().get(name, 0) == before.get(name, 0) + 20, gateway.metrics)
    after = gateway.metrics()
    assert after['sallyport_build_info{version="0.1.0"}'] == 1
    assert after["sallyport_config_last_reload_success"] == 1
    assert after["process_resident_memory_bytes"] > 0


LINE = re.compile(r'^[a-z_:][a-z0-9_:]*(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+.0-9a-zA-Z]+$')


@pytest.mark.parametrize("accept,kind", [
    (None, "text/plain; version=0.0.4; charset=utf-8"),
    ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
    ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ("application/openmetrics-text;q=0.1,text/plain", "text/plain; version=0.0.4; charset=utf-8"),
])
def test_metrics_formats(gateway, accept, kind):
    gateway.ask("/x")
    answer = ask(gateway.status_port, "/metrics", headers={"Accept": accept} if accept else {})
    assert answer.headers["Content-Type"] == kind
    lines = answer.body.decode().splitlines()
    assert ("# EOF" == lines[-1]) == ("openmetrics" in kind)
    for line in lines:
        assert line.startswith("# ") or LINE.match(line), line


@pytest.mark.parametrize("path", ["/api/v1/info", "/api/v1/config", "/api/v1/reload", "/", "/metrics/", "/livez/x"])
def test_status_listener_serves_nothing_else(gateway, path):
    problem(ask(gateway.status_port, path), 404, "no_route")
    problem(ask(gateway.status_port, path, method="POST"), 404, "no_route")


def test_neither_is_reached_through_a_route(gateway, echo):
    assert json.loads(gateway.ask("/api/v1/info").body)["service"] == "orders"
    assert json.loads(gateway.ask("/metrics").body)["service"] == "orders"
    assert ask(gateway.admin_port, "/metrics").status == 404


# ---- admin: reading ----

def test_config_has_the_names_of_the_file(gateway):
    config = api(gateway, "config")
    assert config["admin"] == {"address": f"127.0.0.1:{gateway.admin_port}", "token": None}
    assert config["upstreams"]["orders"]["timeouts"]["response"] == "15s"   # a default, filled in
    assert [route["name"] for route in config["routes"]] == ["rest", "item", "moved"]


def test_routes_in_matching_order(gateway):
    routes = api(gateway, "routes")["routes"]
    assert [route["name"] for route in routes] == ["item", "moved", "rest"]
    item = routes[0]
    assert item["match"]["path"] == {"template": "/items/{id}"} and item["match"]["methods"] == ["GET"]
    assert item["rewrite"]["path"] == "/i/{id}" and item["timeout"] == "30s" and item["upstream"] == "orders"
    assert routes[1]["redirect"] == {"to": "/new", "status": 301}


def test_upstreams(gateway, echo):
    upstream, = api(gateway, "upstreams")["upstreams"]
    assert upstream["name"] == "orders" and upstream["load_balancer"] == "round_robin"
    endpoint, = upstream["endpoints"]
    assert endpoint["address"] == endpoint["resolved"] == f"127.0.0.1:{echo.port}"
    assert endpoint["weight"] == 3 and endpoint["checks"] >= 1


def test_live_exchanges(gateway):
    clients = [Client(gateway.port) for _ in range(6)]
    for client in clients:
        client.send("/slow?misbehave=hang")

    def live():
        answer = gateway.shown("exchanges")
        return answer if answer["live"] == 6 else None

    answer = until(live, lambda: api(gateway, "exchanges"))
    assert answer["complete"] and len(answer["exchanges"]) == 6
    assert {x["path"] for x in answer["exchanges"]} == {"/slow"}
    assert {x["upstream"] for x in answer["exchanges"]} == {"orders"}
    endpoint = gateway.shown("upstreams")["upstreams"][0]["endpoints"][0]
    assert endpoint["active_requests"] == 6
    info = gateway.shown("info")
    assert sum(worker["exchanges"] for worker in info["workers"]) == 6
    assert sum(worker["lent_connections"] for worker in info["workers"]) == 6
    for client in clients:   # a reset: after a FIN alone, an answer might still be wanted
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    until(lambda: api(gateway, "exchanges")["live"] == 0, lambda: api(gateway, "exchanges"))
    until(lambda: sum(worker["lent_connections"] for worker in gateway.workers_info()) == 0, "none lent")


def test_limits_have_reasons(gateway):
    limits = api(gateway, "limits")
    assert len(limits["limits"]) > 20
    for limit in limits["limits"]:
        assert limit["name"] and limit["value"] > 0 and limit["unit"] and limit["reason"]
    assert limits["listeners"][0]["limits"]["header_bytes"] == "32KiB"
    assert limits["upstreams"][0]["name"] == "orders" and limits["upstreams"][0]["timeouts"]["connect"] == "1s"


def test_info(gateway):
    info = gateway.shown("info")
    assert info["version"] == "0.1.0" and info["state"] == "ready" and info["file"] == str(gateway.file)
    assert info["pid"] == gateway.worker()
    assert [worker["worker"] for worker in info["workers"]] == [0, 1]
    assert all(worker["answers"] and not worker["draining"] for worker in info["workers"])
    assert api(gateway, "info")["uptime_ms"] >= info["uptime_ms"]


# ---- admin: doing ----

def test_reload(make):
    gateway = make().start()
    first = api(gateway, "info")
    assert api(gateway, "reload", "POST") == {"reloaded": True, "generation": first["generation"] + 1}
    gateway.write({**gateway.config, "wokers": 2, "drain": {"delay": "soon"}})
    answer = problem(ask(gateway.admin_port, "/api/v1/reload", method="POST"), 422, "invalid_configuration")
    assert answer["reloaded"] is False
    mistakes = {mistake["path"]: mistake for mistake in answer["errors"]}
    assert {"wokers", "drain.delay"} <= set(mistakes)
    assert "workers" in mistakes["wokers"]["hint"] and mistakes["wokers"]["line"] > 0
    info = api(gateway, "info")
    assert info["generation"] == first["generation"] + 1
    assert info["reloads"] == {"ok": 1, "failed": 1, "last_ok": False}
    assert json.loads(ask(gateway.status_port, "/healthz").body)["status"] == "degraded"
    gateway.stop()


def test_drain_ends_the_program(make):
    gateway = make().start()
    assert api(gateway, "drain", "POST", 202) == {"draining": True}
    assert gateway.wait() == 0


@pytest.mark.parametrize("request_line,want", [
    ("GET https://a.example.com/items/7?x=1", {"route": "item", "target": "/i/7?x=1", "upstream": "orders"}),
    ("POST https://a.example.com/items/7", {"route": "rest", "target": "/items/7"}),
    ("GET http://h/old", {"route": "moved", "redirect": {"status": 301, "location": "/new"}}),
    ("http://h/", {"route": "rest"}),
])
def test_explain(gateway, request_line, want):
    answer = explain(gateway, request_line)
    assert {name: answer.get(name) for name in want} == want
    assert answer["live"]["state"] == "ready"


def test_explain_says_what_requests_get(gateway):
    for path in ("/items/7", "/old", "/a%2fb", "/x/../y", "/%zz", "/a;b", "/..", "/%00"):
        told = explain(gateway, f"GET http://localhost{path}")
        connection = Raw(gateway.port)
        connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = connection.rest().partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if "error" in told:
            assert status == told["error"]["status"] and json.loads(body)["code"] == told["error"]["code"], path
        elif told["action"] == "redirect":
            assert status == told["redirect"]["status"]
        else:
            assert json.loads(body)["target"] == told["target"], path


def test_explain_shows_live_endpoints(gateway):
    upstream, = explain(gateway, "GET http://h/")["live"]["upstreams"]
    assert upstream["name"] == "orders" and upstream["endpoints"][0]["up"] is True


@pytest.mark.parametrize("body", [
    b"", b"{}", b"[]", b"null", b'{"request": 1}', b'{"request": "GET http://h/", "headers": []}',
    b'{"request": "GET http://h/", "headers": {"a": 1}}', b'{"request": "GET http://h/"} x', b'{"request": "GET"}',
    b'{"request": "GET http://h/", "headers": {"a": "b\\r\\nc: d"}}', b'{"request": "GET http://h/ x\\u0000"}',
    b'{"request": "GET ftp://h/"}', b"\xff\xfe", b'{"request": "GET http://h/", "request": "GET http://h/"}',
    b'{"request": "GET http://h/", "headers": {"a": ["b", 1]}}', b'{"request": "GET http://h/", "x": "\xff"}',
    b'{"request": "GET http://h/", "headers": {"a": "b", "a": "c"}}', b'{"request": "GET http://h/", "headers": 1}',
    b'{"request": "GET http://h/", "headers": {"a": [' + b'"b",' * 256 + b'"b"]}}',
])
def test_explain_refuses_what_is_no_question(gateway, body):
    problem(ask(gateway.admin_port, "/api/v1/explain", method="POST", body=body), 400, "bad_request")


# ---- who may ----

def test_host_must_be_this_machine(gateway):
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:9901"):
        assert ask(gateway.admin_port, "/api/v1/info", headers={"Host": host}).status == 200, host
    for host in ("example.com", "localhost.example.com", "10.0.0.1", "0.0.0.0"):
        problem(ask(gateway.admin_port, "/api/v1/info", headers={"Host": host}), 403, "host_denied")
        problem(ask(gateway.admin_port, "/api/v1/reload", method="POST", headers={"Host": host}), 403, "host_denied")
    raw = Raw(gateway.admin_port).send(b"GET /api/v1/info HTTP/1.0\r\n\r\n")
    assert raw.rest().startswith(b"HTTP/1.1 403 ")


def test_no_other_site_may_ask(gateway):
    own = f"127.0.0.1:{gateway.admin_port}"
    assert ask(gateway.admin_port, "/api/v1/info", headers={"Origin": f"http://{own}"}).status == 200
    for origin in ("http://evil.example", "null", f"https://{own}", "http://localhost:3000"):
        for method, path in (("GET", "info"), ("POST", "reload"), ("POST", "drain")):
            problem(ask(gateway.admin_port, f"/api/v1/{path}", method=method, headers={"Origin": origin}),
                    403, "origin_denied")
    problem(ask(gateway.admin_port, "/api/v1/reload", method="POST", headers={"Sec-Fetch-Site": "cross-site"}),
            403, "origin_denied")
    assert api(gateway, "info")["state"] == "ready"


def test_unknown_paths_tell_strangers_nothing(gateway):
    for path in ("/api/v1/info", "/api/v1/nothing"):
        problem(ask(gateway.admin_port, path, headers={"Host": "evil.example"}), 403, "host_denied")


@pytest.fixture
def guarded(make, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    gateway = make()
    gateway.write({**gateway.config, "admin": {"address": f"127.0.0.1:{gateway.admin_port}",
                                               "token": {"file": str(secret)}}})
    gateway.start()
    yield gateway
    gateway.stop()


def test_token(guarded):
    def asks(value, **headers):
        if value is not None:
            headers["Authorization"] = value
        return ask(guarded.admin_port, "/api/v1/config", headers=headers)

    answer = asks(None)
    problem(answer, 401, "no_credentials")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    problem(asks("Basic YTpi"), 401, "no_credentials")
    for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * 5000):
        answer = asks(f"Bearer {wrong}")
        problem(answer, 401, "invalid_token")
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    answer = asks(f"Bearer {TOKEN}", Host="gw.example.com")
    assert answer.status == 200 and asks(f"bearer {TOKEN}").status == 200
    assert json.loads(answer.body)["admin"]["token"] == "***" and TOKEN.encode() not in answer.body
    assert ask(guarded.admin_port, "/api/v1/reload", method="POST").status == 401
    assert ask(guarded.status_port, "/readyz").status == 200   # status needs none


def test_token_of_the_newest_file(guarded, tmp_path):
    (tmp_path / "token").write_text("another")
    old = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(guarded.admin_port, "/api/v1/reload", method="POST", headers=old).status == 200
    assert ask(guarded.admin_port, "/api/v1/info", headers=old).status == 401
    assert ask(guarded.admin_port, "/api/v1/info", headers={"Authorization": "Bearer another"}).status == 200


# ---- HTTP ----

def test_methods(gateway):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"):
        answer = ask(gateway.admin_port, "/api/v1/info", method=method)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"
    answer = ask(gateway.admin_port, "/api/v1/reload")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"
    assert api(gateway, "info")["reloads"]["ok"] == 0
    head = ask(gateway.admin_port, "/api/v1/config", method="HEAD")
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) > 500


def test_answers_are_not_kept_nor_guessed(gateway):
    headers = ask(gateway.admin_port, "/api/v1/info").headers
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"


def test_keep_alive_and_pipelining(gateway):
    raw = Raw(gateway.admin_port)
    request = b"GET /api/v1/%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    raw.send(request % (b"info", b"") + request % (b"exchanges", b"") + request % (b"none", b"") +
             request % (b"routes", b"Connection: close\r\n"))
    data = raw.rest()
    assert re.findall(rb"HTTP/1\.1 (\d+) ", data) == [b"200", b"200", b"404", b"200"]


def test_half_closed_client_is_answered(gateway):
    raw = Raw(gateway.admin_port).send(b"GET /api/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.rest().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("request_bytes,status", ids=lambda value: str(value)[:40], argvalues=[
    (b"GARBAGE\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\nHost: a\n\n", 400),
    (b"GET /%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /livez HTTP/2.7\r\nHost: a\r\n\r\n", 505),
    (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000, 431),
    (b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
])
def test_bad_requests_close(gateway, request_bytes, status):
    for port in (gateway.status_port, gateway.admin_port):
        data = Raw(port).send(request_bytes).rest()
        assert data.startswith(f"HTTP/1.1 {status} ".encode()), data
        assert b"Connection: close\r\n" in data and b"application/problem+json" in data


def test_bodies_are_bounded(gateway):
    problem(ask(gateway.admin_port, "/api/v1/explain", method="POST", body=b" " * 65537), 413, "body_too_large")
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    raw = Raw(gateway.admin_port)
    raw.send(b"POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17)
    assert raw.rest().startswith(b"HTTP/1.1 413 ")
    body = json.dumps({"request": "GET http://h/", "padding": "x" * 65000})
    assert api(gateway, "explain", "POST", body=body)["route"] == "rest"
    raw = Raw(gateway.admin_port)
    raw.send(b"POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert raw.rest().startswith(b"HTTP/1.1 400 ")


def test_refused_body_does_not_reset_the_answer(gateway):
    """The answer to a request that is not read to its end arrives, however much follows."""
    raw = Raw(gateway.admin_port)
    raw.send(b"POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
    sender = threading.Thread(target=lambda: raw.send(b"x" * 3000000))
    sender.start()
    assert raw.rest().startswith(b"HTTP/1.1 413 ")
    sender.join(DEADLINE)


def test_expect_continue(gateway):
    body = b'{"request": "GET http://h/old"}'
    raw = Raw(gateway.admin_port)
    raw.send(b"POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n"
             b"Content-Length: %d\r\n\r\n" % len(body))
    assert raw.socket.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.send(body)
    assert b'"route":"moved"' in raw.rest()


def test_slow_requests_end(gateway):
    """Silence, half a head and half a body: each gets ten seconds."""
    began = time.monotonic()
    silent, head, body = (Raw(gateway.admin_port) for _ in range(3))
    head.send(b"GET /api/v1/info HTTP/1.1\r\nHost: loc")
    body.send(b"POST /api/v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nxx")
    assert silent.rest() == b""
    assert head.rest().startswith(b"HTTP/1.1 408 ") and body.rest().startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began >= 9


def test_idle_connections_make_room(gateway):
    clients = [Client(gateway.status_port) for _ in range(64)]
    for client in clients:
        client.send("/livez")
        assert client.receive().status == 200
    assert ask(gateway.status_port, "/livez").status == 200   # the 65th
    assert clients[0].ended()
    assert clients[-1].ask("/livez").status == 200
    for client in clients:
        client.close()


def test_slow_requests_cannot_shut_others_out_for_ever(gateway):
    """64 clients in the middle of a request: newcomers are closed, until those have had their time or gone."""
    clients = []

    def refused():
        # One more each time: the first ones may have been taken for idle, before their bytes had come.
        try:
            clients.append(Raw(gateway.status_port).send(b"GET /li"))
            return ask(gateway.status_port, "/livez").status != 200
        except (OSError, http.client.HTTPException):
            return True

    until(refused, "the limit")
    for client in clients:
        client.close()
    until(lambda: gateway.ready() == 200, "room again")


def test_long_answers_reach_slow_readers(make):
    routes = [{"name": f"route-{i}", "match": {"path": {"exact": f"/{i}"}}, "respond": {"status": 200, "body": "x"}}
              for i in range(5000)]
    gateway = make({"routes": routes}).start()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", gateway.admin_port))
    raw.settimeout(DEADLINE)
    raw.sendall(b"GET /api/v1/routes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert ask(gateway.status_port, "/livez").status == 200   # meanwhile
    data = b""
    while piece := raw.recv(65536):
        data += piece
    raw.close()
    head, _, body = data.partition(b"\r\n\r\n")
    assert len(json.loads(body)["routes"]) == 5000
    gateway.stop()


def test_many_scrapes_at_once(gateway):
    """Answers that wait for the workers do not mix, and clients that go away meanwhile do no harm."""
    for _ in range(20):
        leaving = [Raw(gateway.status_port).send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(10)]
        staying = [Raw(gateway.status_port).send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                   for _ in range(10)]
        for client in leaving:
            client.close()
        for client in staying:
            assert b"sallyport_build_info" in client.rest()


def test_on_a_unix_socket(make, tmp_path):
    gateway = make()
    path = tmp_path / "admin.sock"
    gateway.write({**gateway.config, "admin": {"address": f"unix:{path}"}})
    gateway.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        client.sendall(b"GET /api/v1/info HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    gateway.stop()


# ---- docs/ADMIN.md ----

def test_every_endpoint_is_documented(gateway):
    root = pathlib.Path(__file__).resolve().parents[2]
    text = (root / "docs" / "ADMIN.md").read_text()
    source = (root / "src" / "admin" / "admin.c").read_text()
    paths = re.findall(r'METHOD_(\w+), SERVE_PATH\("([^"]+)"\)', source)
    assert len(paths) == 26
    for method, path in paths:
        assert f"`{method} {path}" in text
