"""The gateways under faults, and the pieces of their configurations."""
from gateway import Gateway


class Watched(Gateway):
    """A gateway that must end every test at rest, with the worker process it began with."""

    def start(self, **more):
        super().start(**more)
        self.first = self.worker()
        return self

    def check(self):
        """At rest, and no worker process has died."""
        self.wait_rest()
        assert self.workers() == [self.first], self.log()


def upstreams(**ports):
    """The `upstreams` section for name=port or name=(port, settings). Services fail on purpose, one time after the other: a
    breaker would answer in their place."""
    section = {}
    for name, value in ports.items():
        port, settings = value if isinstance(value, tuple) else (value, {})
        section[name] = {"targets": [{"address": f"127.0.0.1:{port}"}], "circuit_breaker": {"enabled": False}, **settings}
    return section


def route(name, upstream=None, **more):
    return {"name": name, "match": {"path": {"prefix": f"/{name}" if name != "all" else "/"}},
            "upstream": upstream or name, **more}
