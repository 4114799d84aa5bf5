"""One gateway that many tests share: listeners and routes of many kinds, upstreams the tests hold in their hands."""
from gateway import NO_BREAKER, Gateway, free_port, until
from peers import Raw, Upstream

TRUSTED = "127.0.0.0/24"     # clients bind to 127.0.1.1 to be strangers
STRANGER = "127.0.1.1"
SMALL = {"header_bytes": "2KiB", "headers": 12, "uri_bytes": 256, "body_bytes": "64KiB"}
# Seconds that "fast" waits for who is silent, and "steady" for who pauses for less: what is to be cut, and what is not, on a
# machine that may stand still for some of it.
FAST_S, STEADY_S = 1, 5
FAST, STEADY = (dict.fromkeys(("header", "body", "idle", "write"), f"{seconds}s") for seconds in (FAST_S, STEADY_S))


def prefix(path):
    return {"path": {"prefix": path}}


class Wire:
    """The gateway, its ports by listener name, its upstreams by name."""

    LISTENERS = {
        "plain": {"limits": {"body_bytes": "2GiB"}},
        "trusted": {"trusted_proxies": [TRUSTED]},
        "proxy": {"trusted_proxies": [TRUSTED], "proxy_protocol": True},
        "small": {"limits": SMALL},
        "fast": {"timeouts": FAST, "limits": {"body_bytes": "64MiB"}},
        "steady": {"timeouts": STEADY, "limits": {"body_bytes": "64MiB"}},
        "slow_proxy": {"timeouts": FAST, "trusted_proxies": [TRUSTED], "proxy_protocol": True},
        "few": {"limits": {"connections": 4}},
        "underscores_allow": {"underscores": "allow"},
        "underscores_reject": {"underscores": "reject"},
        "merge": {"merge_slashes": True},
    }
    UPSTREAMS = {
        # Watched, and never open.
        "main": {"timeouts": {"response": "20s"}, "circuit_breaker": {"slow_call": "10s", "min_requests": 1000000}},
        "fast": {"timeouts": {"connect": "1s", "response": "1s", "idle": "1s"}, "retries": {"attempts": 0}},
        "steady": {"timeouts": {"response": f"{STEADY_S}s"}, "retries": {"attempts": 0}},
        "again": {"retries": {"attempts": 2, "statuses": [503], "backoff": "1ms", "budget": 1.0, "body_bytes": "4KiB"}},
        "narrow": {"limits": {"connections": 1, "requests": 3, "pending": 1}, "timeouts": {"connect": "5s"}},
        "pair": {"targets": ["pair_a", "pair_b"], "retries": {"attempts": 1, "backoff": "1ms"},
                 "outlier": {"max_ejected": 0}},   # what one test does to them is not the next one's business
        "budget": {"retries": {"attempts": 1, "backoff": "50ms"}},
        "queue": {"limits": {"connections": 1}, "timeouts": {"connect": "1s"}},
        "twofold": {"limits": {"requests": 2}},
    }

    def __init__(self, directory):
        self.log = directory / "access.log"
        self.clients = []
        self.ports = {name: free_port() for name in self.LISTENERS}
        self.upstreams = {target: self.new_upstream(target) for name, settings in self.UPSTREAMS.items()
                          for target in settings.get("targets", [name])}
        self.gateway = Gateway(directory, self.config())
        self.gateway.port = self.ports["plain"]
        self.gateway.start()
        self.worker = self.gateway.worker()

    def new_upstream(self, target):
        return Upstream()

    def config(self):
        return {
            "workers": 1,
            "listeners": [{"name": name, "address": f"127.0.0.1:{port}", **self.LISTENERS[name]}
                          for name, port in self.ports.items()],
            "upstreams": {name: {**NO_BREAKER, **settings, "targets": [{"address": f"127.0.0.1:{self.upstreams[target].port}"}
                                                         for target in settings.get("targets", [name])]}
                          for name, settings in self.UPSTREAMS.items()},
            "routes": self.routes(),
            "telemetry": {"access_log": {"output": str(self.log)}},
            "drain": {"delay": "0s", "timeout": "5s"},
        }

    def routes(self):
        route = lambda name, upstream="main", path=None, **more: {   # noqa: E731
            "name": name, "match": {"path": {"prefix": path or f"/{name}"}}, "upstream": upstream, **more}
        return [
            route("root", path="/", timeout="0s"),
            route("fast", "fast"), route("steady", "steady"), route("again", "again"), route("narrow", "narrow"), route("pair", "pair"),
            route("budget", "budget"), route("queue", "queue"), route("twofold", "twofold"),
            route("no_retries", "again", retries={"attempts": 0}),
            route("hurry", timeout="2s"),
            route("tiny", request_body_bytes=10),
            route("cut", rewrite={"prefix": "/kept/here"}),
            {"name": "template", "match": {"path": {"template": "/users/{id}/files/{name}"}}, "upstream": "main",
             "rewrite": {"path": "/v2/{name}/of/{id}", "host": "files.internal"}},
            route("ownhost", rewrite={"host": "upstream"}),
            route("edited", headers={
                "request": {"set": {"X-Set": "new"}, "add": {"X-Add": "more"}, "remove": ["X-Remove", "Cookie"]},
                "response": {"set": {"X-Set": "out"}, "add": {"X-Add": "out"}, "remove": ["Server", "X-Secret"]}}),
            route("inside", ip={"allow": ["127.0.0.0/24", "10.1.0.0/16"], "deny": ["10.1.6.6"]}),
            {"name": "moved", "match": prefix("/moved"),
             "redirect": {"to": "https://new.example{path}?{query}", "status": 307}},
            {"name": "said", "match": prefix("/said"),
             "respond": {"status": 203, "body": "said\n", "headers": {"X-Own": "yes", "Content-Type": "text/x"}}},
            route("late", fault={"delay": "80ms"}), route("much_later", fault={"delay": "60s"}),
            route("broken", fault={"status": 418}),
            {"name": "write_only", "match": {"path": {"exact": "/write"}, "methods": ["PUT", "POST"]},
             "upstream": "main"},
            route("unlogged", access_log=False),
        ]

    def raw(self, listener="plain", **more):
        """A client connection, closed when the test ends."""
        self.clients.append(Raw(self.ports[listener], **more))
        return self.clients[-1]

    def __getitem__(self, name):
        return self.upstreams[name]

    def metrics(self):
        return self.gateway.metrics()

    def ends(self, cause):
        """How many exchanges have ended so."""
        return self.metrics().get(f'sallyport_ends_total{{cause="{cause}"}}', 0)

    def info(self):
        return self.gateway.shown("info")

    def resident_kib(self):
        with open(f"/proc/{self.worker}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def at_rest(self):
        return self.gateway.at_rest()

    def pooled(self, upstream):
        """Connections without a request."""
        return self.metrics().get(f'sallyport_upstream_connections{{upstream="{upstream}",state="idle"}}', 0)

    def begin(self):
        for upstream in self.upstreams.values():
            upstream.program()
        until(lambda: not any(self.pooled(name) for name in self.UPSTREAMS), "pools without connections")

    def end(self):
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.gateway.wait_rest()
        assert self.gateway.workers() == [self.worker], self.gateway.log()
        for upstream in self.upstreams.values():
            upstream.check()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.gateway.stop()
        finally:
            self.gateway.kill()
            for upstream in self.upstreams.values():
                upstream.close()
