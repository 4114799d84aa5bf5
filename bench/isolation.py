"""What the failures of one service do to others, and to itself: the figures of script/chaos beside availability.

Each takes a gateway of its own. A figure is a row: what it is, what is wanted, what was measured, whether it is reached
(None: nothing is wanted).
"""

import itertools
import random
import statistics
import time

from outages import Clients, Gateway, Service, Watch, ms

ROUNDS, SLICE_S = 24, 2.0       # of each kind, in turn
RESAMPLES = 300                 # of the rounds, to tell how far a ratio is chance
CAPACITY, SERVICE_MS = 25, 50   # requests at a time, each so long: 500 a second
RATE_B = 500
OPEN_MS, RAMP_MS, WINDOW_MS, PROBES = 2000, 2000, 2000, 3
RATE_BREAKER, HEALTHY_S, DEAD_S = 300, 2, 8
RATE_RETRIES, RETRIES_S = 300, 8
BUDGET, BORROWED = 0.2, 10      # of retries: for each request, and in advance (RETRY_RESERVE of src/upstream/retry_budget.h)


def routes(*names):
    return [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name, "timeout": "2s"} for name in names]


def upstream(service, **settings):
    return {"targets": [{"address": f"127.0.0.1:{service.port}"}], "retries": {"attempts": 0},
            "circuit_breaker": {"enabled": False}, **settings}


def row(figure, wanted, measured, reached=None):
    return {"figure": figure, "wanted": wanted, "measured": measured, "reached": reached}


# --- A hangs, B does not notice --------------------------------------------------------------------------------------


# A slice: how A answers, and how often it is asked, as a share of three times its capacity.
SLICES = {"quiet": (f"misbehave=slow_head={SERVICE_MS}", 1 / 6), "as many": (None, 1), "hanging": ("misbehave=hang", 1)}


def p99_of(slices):
    """Of all their requests together: a slice has too few for a p99 of its own."""
    all_us = sorted(itertools.chain.from_iterable(slices))
    return all_us[min(len(all_us) - 1, len(all_us) * 99 // 100)]


def ratio_of(during, before):
    """(p99 of the ones, × that of the others; the bounds within which nine of ten such ratios lie when rounds are drawn anew)"""
    chance = random.Random(1)
    rounds = range(len(before))
    drawn = sorted(p99_of(during[i] for i in picked) / p99_of(before[i] for i in picked)
                   for picked in ([chance.choice(rounds) for _ in rounds] for _ in range(RESAMPLES)))
    return p99_of(during) / p99_of(before), drawn[RESAMPLES // 20], drawn[-RESAMPLES // 20]


def neighbours(session, options, say):
    """A is asked three times as much as it can do while it hangs, half of what it can do when all is quiet, and, to tell the
    cost of so many clients on one machine from that of hanging, as much as while it hangs when it answers at once. Slices
    are short and take turns, so that what the machine does besides is in all of them."""
    a, b = Service(session, "a"), Service(session, "b")
    gateway = Gateway(session, options.protocol, {"a": upstream(a, limits={"requests": CAPACITY, "pending": CAPACITY},
                                                                timeouts={"response": "1s"}),
                                                  "b": upstream(b)}, routes("a", "b"))
    rate_a = 3 * CAPACITY * 1000 // SERVICE_MS
    each_us = {kind: [] for kind in SLICES}
    ok = {kind: [] for kind in SLICES}
    most = 0
    for number in range(2 if options.quick else ROUNDS):
        kinds = list(SLICES)
        for kind in kinds[number % 3:] + kinds[:number % 3]:
            outage, share = SLICES[kind]
            if outage:
                a.outage(outage)
            of_a = Clients(session, options.protocol, gateway.port, int(rate_a * share), SLICE_S + 0.3, path="/a/1")
            of_b = Clients(session, options.protocol, gateway.port, RATE_B, SLICE_S, path="/b/1", each=True)
            a.control("load?reset=1")
            of_a.go()
            time.sleep(0.3)
            of_b.go()
            result = of_b.result()
            of_a.result()
            each_us[kind].append(result["each_us"])
            ok[kind].append(result["share_ok"])
            if kind == "hanging":
                most = max(most, a.control("load")["most_in_flight"])
            a.over()
            time.sleep(0.2)
    p99 = {kind: p99_of(slices) / 1000 for kind, slices in each_us.items()}
    say(f"  neighbours: p99 of B {p99['quiet']:.2f} ms quiet, {p99['as many']:.2f} ms beside as many clients of A that are "
        f"answered at once, {p99['hanging']:.2f} ms while A hangs")
    rows = []
    for kind, words in (("quiet", "that with half its capacity asked of A"),
                        ("as many", "that with as many clients of A, answered at once")):
        ratio, low, high = ratio_of(each_us["hanging"], each_us[kind])
        rows.append(row(f"p99 of B while A hangs at 3 × its capacity, to {words}", "within 5 %",
                        f"{p99[kind]:.2f} ms, then {p99['hanging']:.2f} ms: {ratio:.2f} × ({low:.2f} to {high:.2f})",
                        ratio <= 1.05))
    share = statistics.mean(ok["hanging"]) / max(1e-9, statistics.mean(ok["quiet"]))
    return rows + [
        row("success of B meanwhile", "within 5 % of quiet", f"{100 * share:.3f} % of quiet", share >= 0.95),
        # A sees a request end a little after the gateway, which has sent the next one meanwhile.
        row("requests that hang in A at a time", f"about its limit, {CAPACITY}", f"{most}", most <= CAPACITY + 2),
    ]


# --- an open breaker -------------------------------------------------------------------------------------------------


def state_and_load(gateway, service):
    return gateway.ask_admin("breakers")["breakers"][0]["state"], service.control("load?slots=1")["in_flight"]


def breaker(session, options, say):
    """One upstream hangs, then answers again: when is it let be, how much is it asked meanwhile, when is it back."""
    service = Service(session, "dead")
    response_s = 0.25
    gateway = Gateway(session, options.protocol, {"dead": upstream(service, timeouts={"response": ms(response_s * 1000)}, circuit_breaker={
        "window": ms(WINDOW_MS), "min_requests": 20, "open": ms(OPEN_MS), "max_open": ms(OPEN_MS),
        "half_open_requests": PROBES, "ramp": ms(RAMP_MS)})}, routes("dead"))
    clients = Clients(session, options.protocol, gateway.port, RATE_BREAKER,
                      HEALTHY_S + DEAD_S + (OPEN_MS * 1.2 + RAMP_MS) / 1000 + 3, slot_ms=20, path="/dead/1")
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


def asked_of_failing(session, options, path):
    """(requests of clients, what arrived at three endpoints whose every answer is an error)"""
    services = [Service(session, f"failing-{i}") for i in range(3)]
    gateway = Gateway(session, options.protocol, {"failing": {
        "targets": [{"address": f"127.0.0.1:{service.port}"} for service in services],
        "outlier": {"max_ejected": 0}, "circuit_breaker": {"enabled": False},
        "retries": {"attempts": 3, "statuses": ["500-599"], "backoff": "25ms", "budget": BUDGET}}},
        [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "failing"}])
    result = Clients(session, options.protocol, gateway.port, RATE_RETRIES, 2 if options.quick else RETRIES_S,
                     path=path).go().result()
    return result["requests"], sum(service.control("load")["requests"] for service in services)


def retries(session, options, say):
    """Each request may be tried again, within the budget, and what has not been earned yet may be borrowed (docs/RETRIES.md)."""
    rows = []
    path = options.protocol.failing
    for words, path in (("at once", path), ("after 100 ms", f"{path}?misbehave=slow_head=100")):
        requests, asked = asked_of_failing(session, options, path)
        extra = asked - (1 + BUDGET) * requests
        say(f"  retries: {asked / requests:.4f} × the load of errors that come {words}, {extra:.0f} beyond {1 + BUDGET} ×")
        rows.append(row(f"load on an upstream whose every answer is an error that comes {words}",
                        f"at most {1 + BUDGET} ×, and the {BORROWED} that may be borrowed",
                        f"{asked:,} for {requests:,} requests: {asked / requests:.4f} ×, "
                        + (f"{extra:.0f} beyond {1 + BUDGET} ×" if extra > 0 else f"none beyond {1 + BUDGET} ×"),
                        extra <= BORROWED))
    return rows


PARTS = (neighbours, breaker, retries)


def measure(session, options, say):
    say("isolation")
    rows = []
    for part in PARTS:
        rows += part(session, options, say)
    return rows
