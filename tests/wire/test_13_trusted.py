"""What a trusted proxy says in other spellings, that no route leads to the admin API, and Server-Timing."""

import re
import socket

import pytest

from gateway import Gateway, free_port


def ask(port, fields, path="/"):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *fields, "Connection: close", "", ""]
        s.sendall("\r\n".join(lines).encode())
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    return data.decode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    port, admin = free_port(), free_port()
    config = {
        "version": 1,
        "workers": 1,
        "listeners": [{"name": "http", "address": f"127.0.0.1:{port}", "trusted_proxies": ["127.0.0.1/32"]}],
        "admin": {"address": f"127.0.0.1:{admin}"},
        "telemetry": {"access_log": {"output": "off"}, "headers": {"server_timing": True}},
        "upstreams": {"admin": {"targets": [{"address": f"127.0.0.1:{admin}"}]}},
        "routes": [
            {"name": "admin", "match": {"path": {"prefix": "/api"}}, "upstream": "admin"},
            {"name": "denied", "match": {"path": {"exact": "/"}}, "ip": {"deny": ["9.9.9.9/32", "2001:db8::9/128"]},
             "redirect": {"to": "{scheme}://there{path}", "status": 307}},
        ],
    }
    with Gateway(tmp_path_factory.mktemp("trusted"), config) as running:
        yield running, port


@pytest.mark.parametrize("field", [
    "X-Forwarded-For: 9.9.9.9",
    "X-Forwarded-For: 9.9.9.9:4711",
    "X-Forwarded-For: 9.9.9.9,",
    "X-Forwarded-For: 1.2.3.4, 9.9.9.9, 127.0.0.1",
    "X-Forwarded-For: [2001:db8::9]:4711",
    "Forwarded: for=9.9.9.9;proto=https",
    'Forwarded: For="9.9.9.9:4711"',
    'Forwarded: for=1.2.3.4, proto=http;for="[2001:db8::9]:4711"',
])
def test_the_client_is_known_by_every_spelling(gateway, field):
    answer = ask(gateway[1], [field])
    assert answer.startswith("HTTP/1.1 403 ") and '"code":"ip_denied"' in answer


@pytest.mark.parametrize("fields, scheme", [
    ([], "http"),
    (["X-Forwarded-Proto: https"], "https"),
    (["Forwarded: for=1.2.3.4;proto=https"], "https"),
    (["X-Forwarded-Proto: gopher"], "http"),
])
def test_a_redirect_keeps_the_scheme_of_the_client(gateway, fields, scheme):
    answer = ask(gateway[1], fields)
    assert answer.startswith("HTTP/1.1 307 ") and f"\r\nLocation: {scheme}://there/\r\n" in answer


@pytest.mark.parametrize("path", ["/api/v1/info", "/api/v1/config"])
def test_no_route_leads_to_the_admin_api(gateway, path):
    answer = ask(gateway[1], [], path)
    assert answer.startswith("HTTP/1.1 403 ") and '"code":"route_denied"' in answer
    assert re.search(r"\r\nServer-Timing: gateway;dur=\d+\.\d{3}, upstream;dur=\d+\.\d{3}\r\n", answer)
