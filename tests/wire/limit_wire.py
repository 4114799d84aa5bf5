"""Gateways with rate limits: one with its upstream in the test's hand, and several that share a Redis."""
import itertools
import json
import re
import threading

from gateway import Gateway, ask, until
from peers import Raw, Upstream, request

SLOW = "1/d"   # what comes back during a test is nothing


def limit(burst, rate=SLOW, **more):
    return {"key": "client_ip", "default": {"rate": rate, "burst": burst}, **more}


def route(name, *limits, **more):
    action = {} if {"upstream", "respond"} & set(more) else {"upstream": "main"}
    return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "rate_limits": list(limits), **action, **more}


def decisions(gateway, name):
    """{decision: count} of a limit."""
    found = {}
    for series, value in gateway.metrics().items():
        match = re.fullmatch(r'sallyport_rate_limit_decisions_total\{limit="(.*)",decision="(.*)"\}', series)
        if match and match[1] == name:
            found[match[2]] = int(value)
    return found


def alive(gateway):
    """How many gateways it has heard of in Redis."""
    return json.loads(ask(gateway.admin_port, "/api/v1/limits").body)["rate_limits"]["gateways"]


class Limited:
    """A gateway with limits, and its upstream in the test's hand."""

    def __init__(self, directory, limits, routes, **more):
        self.upstream = Upstream()
        self.limits, self.routes, self.more = limits, routes, more
        self.gateway = Gateway(directory, self.config())

    def config(self, **changed):
        return {"rate_limits": self.limits, "routes": self.routes,
                "upstreams": {"main": {"targets": [{"address": f"127.0.0.1:{self.upstream.port}"}]}}, **self.more, **changed}

    def reload(self, **changed):
        self.gateway.reload_everywhere(self.gateway.complete(self.config(**changed), None))

    def ask(self, path, *fields, source=None, method="GET", **more):
        client = Raw(self.gateway.port, source=source)
        try:
            return client.ask(request(path, method, *fields, **more), method)
        finally:
            client.close()

    def statuses(self, path, count, *fields, **more):
        return [self.ask(path, *fields, **more).status for _ in range(count)]

    def decisions(self, name):
        return decisions(self.gateway, name)

    def bucket(self, name, *keys, method="GET", **more):
        query = "&".join(f"{k}={v}" for k, v in [*(("key", key) for key in keys), *more.items()])
        return ask(self.gateway.admin_port, f"/api/v1/limits/{name}" + (f"?{query}" if query else ""), method)

    def __enter__(self):
        self.gateway.start()
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.gateway.__exit__(kind, value, trace)
        finally:
            self.upstream.close()


class Fleet:
    """Gateways with the same limits, each with a route of that name, on one Redis, or none."""

    def __init__(self, directory, redis, count, limits, redis_settings=None, environments=(), **more):
        self.redis, self.limits, self.environments = redis, limits, environments
        settings = {}
        if redis:
            # What takes longer is decided without Redis, and then it is not exact.
            settings["redis"] = {"url": f"redis://127.0.0.1:{redis.port}/0", "deadline": "5s", **(redis_settings or {})}
        routes = [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "rate_limits": [name], "respond": {}}
                  for name in limits]
        routes += more.pop("routes", [])
        config = {**settings, "rate_limits": {**limits, "warm": limit(1000000, "1000000/s")},
                  "routes": [*routes, {"name": "warm", "match": {"path": {"prefix": "/warm"}}, "rate_limits": ["warm"],
                                       "respond": {}}], **more}
        self.gateways = []
        for i in range(count):
            (directory / f"gateway-{i}").mkdir()
            self.gateways.append(Gateway(directory / f"gateway-{i}", config))

    def start(self):
        for gateway, environment in itertools.zip_longest(self.gateways, self.environments):
            gateway.start(environment)
        self.wait_decided()
        return self

    def wait_decided(self):
        """Until every worker has Redis decide: so many requests in a row on new connections that none is left out."""
        for gateway in self.gateways:
            until(lambda gateway=gateway: self.all_decided(gateway), "Redis decides")

    def all_decided(self, gateway):
        before = decisions(gateway, "warm")["degraded"]
        for _ in range(24):
            assert self.ask(gateway, "/warm").status == 200
        return decisions(gateway, "warm")["degraded"] == before

    @staticmethod
    def ask(gateway, path, *fields):
        client = Raw(gateway.port)
        try:
            return client.ask(request(path, "GET", *fields))
        finally:
            client.close()

    def flood(self, path, requests, threads=4, *fields):
        """{status: count} of so many requests to each gateway, at once."""
        got, lock = {}, threading.Lock()

        def run(gateway, count):
            client = Raw(gateway.port)
            for _ in range(count):
                status = client.ask(request(path, "GET", *fields)).status
                with lock:
                    got[status] = got.get(status, 0) + 1
            client.close()
        running = [threading.Thread(target=run, args=(gateway, requests // threads))
                   for gateway in self.gateways for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return got

    def close(self):
        for gateway in self.gateways:
            gateway.__exit__(None, None, None)
