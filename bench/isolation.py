"""What the failures of one service do to others, and to itself: the figures of script/chaos beside availability.

Each takes a gateway of its own. A figure is a row: what it is, what is wanted, what was measured, whether it is reached
(None: nothing is wanted).
"""

import statistics
import time

from outages import Clients, Gateway, Service, Watch, ms

ROUNDS, SLICE_S = 6, 4.0        # of quiet and hanging, in turn
CAPACITY, SERVICE_MS = 25, 50   # requests at a time, each so long: 500 a second
RATE_B = 300
OPEN_MS, RAMP_MS, WINDOW_MS, PROBES = 2000, 2000, 2000, 3
RATE_BREAKER, HEALTHY_S, DEAD_S = 300, 2, 8
RATE_RETRIES, RETRIES_S = 300, 8


def routes(*names):
    return [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name, "timeout": "2s"} for name in names]


def upstream(service, **settings):
    return {"targets": [{"address": f"127.0.0.1:{service.port}"}], "retries": {"attempts": 0},
            "circuit_breaker": {"enabled": False}, **settings}


def row(figure, wanted, measured, reached=None):
    return {"figure": figure, "wanted": wanted, "measured": measured, "reached": reached}


# --- A hangs, B does not notice --------------------------------------------------------------------------------------


def neighbours(session, say):
    """A is asked three times as much as it can do, and hangs every other slice; B is asked what it always is."""
    a, b = Service(session, "a"), Service(session, "b")
    gateway = Gateway(session, {"a": upstream(a, limits={"requests": CAPACITY, "pending": CAPACITY},
                                              timeouts={"response": "1s"}),
                                "b": upstream(b)}, routes("a", "b"))
    rate_a = 3 * CAPACITY * 1000 // SERVICE_MS
    quiet, hanging = [], []
    for number in range(2 * ROUNDS):
        seen = hanging if number % 2 else quiet
        a.outage("misbehave=hang" if number % 2 else f"misbehave=slow_head={SERVICE_MS}")
        rate = rate_a if number % 2 else rate_a // 6   # quiet: half of what it can do
        of_a = Clients(session, gateway.port, rate, SLICE_S, path="/a/1")
        of_b = Clients(session, gateway.port, RATE_B, SLICE_S - 0.5, path="/b/1")
        a.control("load?reset=1")
        of_a.go()
        time.sleep(0.3)
        of_b.go()
        result = of_b.result()
        of_a.result()
        seen.append((result["latency_us"]["p99"], result["share_ok"], a.control("load")["most_in_flight"]))
        a.over()
        time.sleep(0.2)
    before, during = (statistics.median(p99 for p99, _, _ in seen) for seen in (quiet, hanging))
    ok = min(share for _, share, _ in hanging) / max(1e-9, statistics.median(share for _, share, _ in quiet))
    most = max(most for _, _, most in hanging)
    say(f"  neighbours: p99 of B {before:.0f} µs quiet, {during:.0f} µs while A hangs")
    return [
        row("p99 of B while A hangs at 3 × its capacity", "within 5 % of quiet",
            f"{before / 1000:.2f} ms, then {during / 1000:.2f} ms ({during / before:.2f} ×)", during <= 1.05 * before),
        row("success of B meanwhile", "within 5 % of quiet", f"{100 * ok:.3f} % of quiet", ok >= 0.95),
        # A sees a request end a little after the gateway, which has sent the next one meanwhile.
        row("requests that hang in A at a time", f"about its limit, {CAPACITY}", f"{most}", most <= CAPACITY + 2),
    ]


# --- an open breaker -------------------------------------------------------------------------------------------------


def state_and_load(gateway, service):
    return gateway.ask_admin("breakers")["breakers"][0]["state"], service.control("load?slots=1")["in_flight"]


def breaker(session, say):
    """One upstream hangs, then answers again: when is it let be, how much is it asked meanwhile, when is it back."""
    service = Service(session, "dead")
    response_s = 0.25
    gateway = Gateway(session, {"dead": upstream(service, timeouts={"response": ms(response_s * 1000)}, circuit_breaker={
        "window": ms(WINDOW_MS), "min_requests": 20, "open": ms(OPEN_MS), "max_open": ms(OPEN_MS),
        "half_open_requests": PROBES, "ramp": ms(RAMP_MS)})}, routes("dead"))
    clients = Clients(session, gateway.port, RATE_BREAKER, HEALTHY_S + DEAD_S + (OPEN_MS * 1.2 + RAMP_MS) / 1000 + 3,
                      slot_ms=20, path="/dead/1")
    began = time.monotonic()
    clients.go()
    watch = Watch(lambda: state_and_load(gateway, service), began, 0.02)
    time.sleep(HEALTHY_S)
    service.outage("misbehave=hang")
    dead_at = time.monotonic() - began
    time.sleep(DEAD_S)
    service.over()
    alive_at = time.monotonic() - began
    result = clients.result()
    seen = watch.stop()
    opened = next((at for at, (state, _) in seen if state == "open"), float("inf"))
    # Requests that were under way when it opened are there until their time is up.
    most = max((n for at, (_, n) in seen if opened + response_s + 0.1 < at < alive_at), default=0)
    slot_s = result["slot_ms"] / 1000
    bad = [i * slot_s for i, slot in enumerate(result["slots"]) if sum(slot[:-1]) > slot[0]]
    to_open, recovered = opened - dead_at, max(bad, default=alive_at) + slot_s - alive_at
    granularity = WINDOW_MS / 10 / 1000
    limits = response_s + granularity + 1, (OPEN_MS * 1.2 + RAMP_MS) / 1000 + 1
    say(f"  breaker: open after {to_open:.2f} s, {most} in flight while open, back after {recovered:.2f} s")
    return [
        row("time to open", f"at most the response timeout + window granularity + 1 s: {limits[0]:.2f} s", f"{to_open:.2f} s",
            to_open <= limits[0]),
        row("requests in flight to it while open or half-open", f"at most the probes, {PROBES}", f"{most}", most <= PROBES),
        row("time to full recovery", f"at most open (with jitter) + ramp + 1 s: {limits[1]:.1f} s", f"{recovered:.2f} s",
            recovered <= limits[1]),
    ]


# --- retries of what cannot succeed ----------------------------------------------------------------------------------


def retries(session, say):
    """Every answer is an error; each request may be tried again, within the budget."""
    services = [Service(session, f"failing-{i}") for i in range(3)]
    gateway = Gateway(session, {"failing": {
        "targets": [{"address": f"127.0.0.1:{service.port}"} for service in services],
        "outlier": {"max_ejected": 0}, "circuit_breaker": {"enabled": False},
        "retries": {"attempts": 3, "statuses": ["500-599"], "backoff": "25ms"}}},
        [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "failing"}])

    def asked():
        return sum(service.control("load")["requests"] for service in services)

    rows = []
    for words, path in (("at once", "/status/503"), ("after 100 ms", "/status/503?misbehave=slow_head=100")):
        before = asked()
        result = Clients(session, gateway.port, RATE_RETRIES, RETRIES_S, path=path).go().result()
        share = (asked() - before) / result["requests"]
        say(f"  retries: {share:.3f} × the load of errors that come {words}")
        rows.append(row(f"load on an upstream whose every answer is an error that comes {words}", "at most 1.2 ×",
                        f"{share:.3f} ×", share <= 1.2))
    return rows


PARTS = (neighbours, breaker, retries)


def measure(session, say):
    say("isolation")
    rows = []
    for part in PARTS:
        rows += part(session, say)
    return rows
