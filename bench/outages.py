"""Services that fail by themselves (sallyport-echo), gateways before them, clients that come evenly: what chaos.py runs."""

import json
import os
import subprocess
from collections import namedtuple
import threading
import time
import urllib.request

import targets
from harness import BenchError, ask_h2, ask_http, wait_ready

EVERYWHERE = set(range(os.cpu_count() or 1))

# What clients and sallyport speak, it to its endpoints as well: `mode` chooses lines of the peers' templates, `wire` is what
# steady is told, `path` what it asks for, `error` how an endpoint says that it cannot, `failing` where it always says so.
Protocol = namedtuple("Protocol", "name mode wire listener upstream path error failing")
PROTOCOLS = {protocol.name: protocol for protocol in (
    Protocol("http/1.1", "plain", [], "http/1.1", "http/1.1", "/api/v1/orders/1842", "status=503", "/status/503"),
    Protocol("h2", "h2", ["--h2"], "h2", "h2", "/api/v1/orders/1842", "status=503", "/status/503"),
    Protocol("grpc", "grpc", ["--grpc"], "h2", "h2", "/orders.v1.Orders/Get", "grpc_status=14", "/status/14"),
)}


class Service:
    """One sallyport-echo, and its control door."""

    def __init__(self, session, name):
        self.name = name
        self.port, self.control_port = session.port(), session.port()
        argv = [session.build / "sallyport-echo", "--listen", f"127.0.0.1:{self.port}",
                "--control", f"127.0.0.1:{self.control_port}", "--name", name]
        self.program = session.start(name, argv, EVERYWHERE)
        wait_ready(self.program, lambda: ask_http(self.control_port, "/_control/load"))

    def control(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/_control/{path}", timeout=20) as answer:
            return json.load(answer)

    def outage(self, text):
        self.control(f"outage?{text}")

    def over(self):
        self.control("outage?end=1")

    def load_since(self, began):
        """Slots of 100 ms since that time of time.monotonic(): [requests, most in flight, misbehaved] each."""
        load = self.control("load?slots=0")
        slot_s = load["slot_ms"] / 1000
        wanted = int((time.monotonic() - began - load["age_ms"] / 1000) / slot_s) + 2
        return self.control(f"load?slots={wanted}")["slots"]


class Clients:
    """bench/steady in front of a port; begins with go()."""

    def __init__(self, session, protocol, port, rate, seconds, timeout_ms=1000, slot_ms=100, path=None, each=False):
        argv = [session.tool("steady"), "--to", f"127.0.0.1:{port}", "--rate", str(rate), "--seconds", str(seconds),
                "--timeout", str(timeout_ms), "--slot", str(slot_ms), "--path", path or protocol.path, *protocol.wire,
                *(["--each"] if each else [])]
        self.seconds = seconds
        self.program = session.start("steady", argv, EVERYWHERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process = self.program.process
        if not self.process.stdout.readline():
            raise BenchError(f"steady ended at once: {self.program.words()}")

    def go(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self

    def result(self):
        line = self.process.stdout.readline()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=20)
        if not line:
            raise BenchError(f"steady ended with status {self.process.returncode}: {self.program.words()}")
        result = json.loads(line)
        result["share_ok"] = result["ok"] / max(1, result["requests"])
        return result


def ms(value):
    return f"{max(1, round(value))}ms"


class Gateway:
    """sallyport with a configuration made here, one protocol on both sides."""

    def __init__(self, session, protocol, upstreams, routes):
        directory = session.folder("sallyport")
        self.port, self.admin, self.status = session.port(), session.port(), session.port()
        config = {
            "version": 1, "workers": 1,
            "listeners": [{"name": "http", "address": f"127.0.0.1:{self.port}", "protocols": [protocol.listener],
                           "timeouts": {"idle": "300s"}}],
            "admin": {"address": f"127.0.0.1:{self.admin}"}, "status": {"address": f"127.0.0.1:{self.status}"},
            "upstreams": {name: {"protocol": protocol.upstream, **upstream} for name, upstream in upstreams.items()},
            "routes": routes,
            "telemetry": {"access_log": {"output": "off"}}, "drain": {"delay": "0s", "timeout": "1s"},
        }
        path = directory / "sallyport.yaml"
        path.write_text(json.dumps(config, indent=1))   # JSON is YAML
        self.program = session.start("sallyport", [session.build / "sallyport", "run", "-c", path], EVERYWHERE,
                                     log=directory / "output")
        wait_ready(self.program, lambda: ask_http(self.status, "/readyz"))

    def metrics(self):
        """{name with labels: value}"""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def ask_admin(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/api/v1/{path}", timeout=20) as answer:
            return json.load(answer)

    def opinions(self):
        """{address of an endpoint: what the gateway thinks of it}, "" where it takes requests."""
        breakers = {breaker.get("endpoint"): breaker["state"] for breaker in self.ask_admin("breakers")["breakers"]}
        words = {}
        for upstream in self.ask_admin("upstreams")["upstreams"]:
            for endpoint in upstream["endpoints"]:
                breaker = breakers.get(endpoint["address"], "closed")
                words[endpoint["address"]] = ("down" if not endpoint["up"] else "ejected" if endpoint["ejected"] else
                                              "" if breaker == "closed" else breaker)
        return words


def ask(session, protocol, port):
    return ask_http(port) if protocol.mode == "plain" else ask_h2(session, port, ["--grpc"] if protocol.mode == "grpc" else [])


def peer(session, protocol, name, values):
    """nginx or haproxy by its template in bench/peers/chaos; the port it listens on."""
    target = targets.TARGETS[name]
    directory = session.folder(name)
    config = directory / target.config
    values = {"MODE": protocol.mode, "PORT": session.port(), "DIR": directory, "CONFIG": config, "USER": targets.own_user(),
              **values}
    config.write_text(targets.fill((targets.CONFIGS / "chaos" / target.config).read_text(), values))
    argv = [target.path(session), *(targets.fill(word, values) for word in target.argv)]
    program = session.start(name, argv, EVERYWHERE, log=directory / "output")
    wait_ready(program, lambda: ask(session, protocol, values["PORT"]))
    return values["PORT"]


class Watch:
    """Asks again and again until it is stopped: (seconds since `began`, what was answered)."""

    def __init__(self, ask, began, every_s=0.1):
        self.seen = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ask, began, every_s), daemon=True)
        self.thread.start()

    def _run(self, ask, began, every_s):
        while not self.ended.wait(every_s):
            try:
                self.seen.append((time.monotonic() - began, ask()))
            except OSError:
                pass   # busy: the next time

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.seen
