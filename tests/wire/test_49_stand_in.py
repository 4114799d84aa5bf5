"""Another upstream stands in for one whose circuit breaker has opened, also after the request had tries at the first: it is
asked as if the route had named it. And what no endpoint was asked for is no attempt at an upstream.
"""
import json
import threading

import pytest

from gateway import free_port, logged, until
from peers import Raw, Upstream, answer, request

ALWAYS = {"retries": {"attempts": 1, "backoff": "1ms", "budget": 1}}
SENSITIVE = {"min_requests": 1, "failure_ratio": 0.01, "open": "1h", "max_open": "1h"}


class House:
    """`first` has nobody behind it, and opens at the first failure; its fallback has one of two endpoints, and `full` one
    place."""

    def __init__(self, make, directory):
        self.upstream, self.log = Upstream(), directory / "access.log"
        alive, dead = ({"address": f"127.0.0.1:{port}"} for port in (self.upstream.port, free_port()))
        sure = {"circuit_breaker": {"enabled": False}, "outlier": {"max_ejected": 0}}

        def open_to(name):
            return {"targets": [dead], **ALWAYS, "circuit_breaker": {**SENSITIVE, "fallback": {"upstream": name}}}
        self.gateway = make({
            "workers": 1, "telemetry": {"access_log": {"output": str(self.log)}},
            "upstreams": {"first": open_to("half"), "half": {"targets": [dead, alive], **ALWAYS, **sure},
                          "other": open_to("full"), "full": {"targets": [alive], **sure, "limits": {"requests": 1, "pending": 0}}},
            "routes": [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name}
                       for name in ("first", "other", "full")]}).start()

    def ask(self, path):
        with Raw(self.gateway.port) as client:
            return client.ask(request(path))


@pytest.fixture
def house(make, tmp_path):
    made = House(make, tmp_path)
    yield made
    made.gateway.wait_rest()
    made.gateway.stop()
    made.upstream.check()
    made.upstream.close()


def test_it_has_tries_of_its_own(house):
    """The one at `first` opens its breaker; then the first at `half` finds nobody, and the second somebody."""
    assert house.ask("/first").status == 200
    record = logged(house.log)[0]
    assert (record["upstream"], record["attempts"]) == ("half", 3)
    assert record["endpoint"] == f"127.0.0.1:{house.upstream.port}"


def test_what_is_refused_is_no_attempt(house):
    """…nor has it an endpoint, least of all one of the upstream before."""
    let_go = threading.Event()
    house.upstream.program(reply=lambda _: let_go.wait(30) and answer())
    with Raw(house.gateway.port) as first:
        first.send(request("/full"))
        until(lambda: house.upstream.requests, "the only place taken")
        for path in ("/full", "/other"):
            refused = house.ask(path)
            assert (refused.status, json.loads(refused.body)["code"]) == (503, "overloaded")
        assert [record["endpoint"] for record in logged(house.log, count=2)] == [None, None]
        let_go.set()
        assert first.response().status == 200
    house.gateway.wait_rest()
    seen = {name: value for name, value in house.gateway.metrics().items() if 'upstream="full"' in name}
    assert seen['sallyport_upstream_requests_total{upstream="full",code="200"}'] == 1
    assert 'sallyport_upstream_requests_total{upstream="full",code="none"}' not in seen
    assert seen['sallyport_upstream_request_duration_seconds_count{upstream="full"}'] == 1
