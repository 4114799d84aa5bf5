#!/usr/bin/python3
"""script/chaos: how often a request is served while its services fail. Writes bench/results/chaos*.md, .json and .svg.

Three endpoints are each out for a share of the time, in bursts that a seed decides: refusing, hanging, answering errors,
slow. Clients that come evenly and never try again ask one of them directly, and the three through sallyport and through
its peers; each has three endpoints of its own, with the same seeds, and all run at the same time. Then the isolation
figures (isolation.py), of sallyport alone. How to read the result: bench/README.md.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import chaos_report
import isolation
import targets
from harness import BenchError, Session
from outages import PROTOCOLS, Clients, Gateway, Service, Watch, ms, peer

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("nginx", "haproxy")
FEATURES = ("retries", "outlier", "breaker", "hedge")
SETTLE_S = 1.5       # after the outages, until nothing is under way


def shortened(options, real_ms):
    """A time that belongs to bursts; 100 ms are the least that sallyport takes."""
    return ms(max(100, real_ms / options.scale))


def response_ms(options):
    """What a gateway gives an endpoint to begin its answer."""
    return options.patience_ms / 4


def hedge_ms(options):
    """When it asks another one as well."""
    return options.patience_ms * 6 / 100


def route_ms(options):
    """A gateway answers what it cannot serve before its client gives up."""
    return options.patience_ms - 50


def features(options):
    """What can be switched on in an upstream."""
    return {
        "retries": {"retries": {"attempts": 2, "statuses": ["500-599"], "backoff": "2ms", "budget": 0.5,
                                "retry_on": ["connect_failure", "refused_stream", "reset_before_headers", "response_timeout"]}},
        "outlier": {"outlier": {"consecutive_failures": 3, "ejection": shortened(options, 10000),
                                "max_ejection": shortened(options, 60000), "max_ejected": 0.7}, "panic_threshold": 0.3},
        "breaker": {"circuit_breaker": {"scope": "endpoint", "window": shortened(options, 10000), "min_requests": 10,
                                        "open": shortened(options, 5000), "max_open": shortened(options, 60000),
                                        "ramp": shortened(options, 2000)}},
        "hedge": {"hedge": {"after": ms(hedge_ms(options))}},
    }


def outage_text(options, endpoint):
    return (f"misbehave={','.join(options.kinds)}&share={options.share}&mean_ms={max(1, round(options.burst_ms / options.scale))}"
            f"&seed={options.seed * 100 + endpoint}")


class Case:
    """One way to the services: straight, through sallyport with some of its features, or through a peer."""

    def __init__(self, session, name, options):
        self.name = name
        self.services = [Service(session, f"{name}-{i + 1}") for i in range(1 if name == "direct" else 3)]
        ports = [service.port for service in self.services]
        self.gateway = self.watch = None
        if name == "direct":
            self.port = ports[0]
        elif name.startswith("sallyport"):
            self.gateway = Gateway(session, options.protocol,
                                   {"orders": self.upstream(ports, name.partition(":")[2], options)},
                                   [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "orders",
                                     "timeout": ms(route_ms(options))}])
            self.port = self.gateway.port
        else:
            self.port = peer(session, options.protocol, name, {
                **dict(zip(("ONE", "TWO", "THREE"), ports)), "RESPONSE_MS": round(response_ms(options)),
                "ROUTE_MS": route_ms(options), "CHECK_MS": max(20, round(2000 / options.scale))})
        self.clients = Clients(session, options.protocol, self.port, options.rate, options.seconds, options.patience_ms,
                               slot_ms=20)

    @staticmethod
    def upstream(ports, chosen, options):
        known = features(options)
        upstream = {"targets": [{"address": f"127.0.0.1:{port}"} for port in ports], "outlier": {"max_ejected": 0},
                    "circuit_breaker": {"enabled": False}, "retries": {"attempts": 0},
                    "timeouts": {"connect": ms(response_ms(options)), "response": ms(response_ms(options))}}
        for name in chosen.split("+") if chosen else options.features:
            if name in known:
                upstream.update(known[name])
            elif name != "none":
                raise BenchError(f"{name}: no feature of {', '.join(known)}")
        return upstream

    def begin(self, options):
        for i, service in enumerate(self.services):
            service.outage(outage_text(options, i))
        self.began = time.monotonic()
        self.clients.go()
        if self.gateway:
            self.watch = Watch(self.gateway.opinions, self.began)

    def result(self):
        result = self.clients.result()
        until_ms = result["seconds"] * 1000
        result["states"] = chaos_report.states(self.watch.stop(), [s.port for s in self.services]) if self.watch else []
        bursts, loads = [], []
        for service in self.services:
            told = service.control("outage?bursts=100000")["bursts"] if until_ms > 600000 else service.control(
                "outage?bursts=10000")["bursts"]
            bursts.append([b for b in told if b["from_ms"] < until_ms])
            loads.append(service.load_since(self.began))
            service.over()
        result.update(name=self.name, bursts=bursts, loads=loads)
        return result


def availability(session, names, options, say):
    cases = [Case(session, name, options) for name in names]
    say(f"availability: {', '.join(names)}; {options.seconds:g} s at {options.rate} requests/s each")
    for case in cases:
        case.begin(options)
    results = [case.result() for case in cases]
    for result in results:
        say(f"  {result['name']}: {100 * result['share_ok']:.4f} %")
    return results


def available(name, session):
    return name == "direct" or name.startswith("sallyport") or targets.TARGETS[name].available(session)


def machine():
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "?")
    return f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"


def options_read(argv):
    parser = argparse.ArgumentParser(prog="script/chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true",
                        help="25 s and short slices: shows that it works, its figures are worth little")
    parser.add_argument("--seconds", type=float, help="how long the clients come (540)")
    parser.add_argument("--rate", type=int, default=2000, help="requests a second, of each case (2000)")
    parser.add_argument("--seed", type=int, default=1, help="of the bursts (1)")
    parser.add_argument("--scale", type=float, default=20, help="how many seconds one stands for (20)")
    parser.add_argument("--share", type=float, default=0.005, help="of the time that each endpoint is out (0.005)")
    parser.add_argument("--burst-ms", type=float, default=2000, help="mean length of a burst before scaling (2000)")
    parser.add_argument("--patience-ms", type=int, default=1000, help="of a client; a gateway gives an endpoint a quarter, 6 %% before a hedge (1000)")
    parser.add_argument("--kinds", help="of outage (refuse,hang, errors as the protocol has them, slow_head of 1.5 × --patience-ms)")
    parser.add_argument("--protocol", default="http/1.1", choices=PROTOCOLS, help="of clients and endpoints (%(default)s)")
    parser.add_argument("--peers", default=",".join(PEERS), help="a list, or none (%(default)s)")
    parser.add_argument("--features", default="+".join(FEATURES), help="of sallyport (%(default)s), or none")
    parser.add_argument("--steps", action="store_true", help="sallyport with one feature more each time, too")
    parser.add_argument("--only", default="availability,isolation", help="parts (%(default)s)")
    parser.add_argument("--out", default=ROOT / "bench" / "results", type=Path, help="where results go (bench/results)")
    parser.add_argument("--build", default=ROOT / "build", type=Path, help="where the programs are (build)")
    options = parser.parse_args(argv)
    options.features = options.features.split("+")
    options.protocol = PROTOCOLS[options.protocol]
    options.kinds = options.kinds.split(",") if options.kinds else ["refuse", "hang", options.protocol.error,
                                                                     f"slow_head={options.patience_ms * 3 // 2}"]
    options.seconds = options.seconds or (25 if options.quick else 540)
    options.parts = options.only.split(",")
    return options


def case_names(session, options, say):
    names = ["direct", "sallyport"]
    if options.steps:
        steps = [options.features[:n] for n in range(1, len(options.features))]
        names += ["sallyport:none", *("sallyport:" + "+".join(step) for step in steps)]
    for name in options.peers.split(",") if options.peers != "none" else []:
        if name not in PEERS:
            raise BenchError(f"--peers: {name} is none of {', '.join(PEERS)}")
        if available(name, session):
            names.append(name)
        else:
            say(f"{name} is not installed")
    return names


def write(options, results, part):
    """Into files of its own. Returns the text."""
    stem = chaos_report.PARTS[part][0] + ("" if options.protocol.mode == "plain" else f"-{options.protocol.name}")
    text = chaos_report.markdown(results, part, stem)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{stem}.md").write_text(text)
    if part == "availability":
        (options.out / f"{stem}.svg").write_text(chaos_report.drawing(results))
    (options.out / f"{stem}.json").write_text(json.dumps(chaos_report.without_slots(results), indent=1) + "\n")
    return text


def main(argv):
    options = options_read(argv)
    say = lambda words: print(words, file=sys.stderr, flush=True)
    try:
        with Session(options.build.resolve(), pinned=False) as session:
            names = case_names(session, options, say)
            told = {**vars(options), "protocol": options.protocol.name, "out": str(options.out), "build": str(options.build)}
            results = {"options": told, "machine": machine(), "versions": {n: targets.TARGETS[n].version(session) for n in names
                                                          if n in targets.TARGETS}}
            if "availability" in options.parts:
                results["availability"] = availability(session, names, options, say)
            if options.parts == ["availability", "isolation"]:
                time.sleep(SETTLE_S)
            if "isolation" in options.parts:
                results["isolation"] = isolation.measure(session, options, say)
    except BenchError as e:
        print(f"script/chaos: {e}", file=sys.stderr)
        return 1
    for part in options.parts:
        print(write(options, {key: value for key, value in results.items() if key == part or key not in options.parts}, part))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
