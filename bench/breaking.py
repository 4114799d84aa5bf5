"""
Mode breaking: what breaker, ejection and retry budget cost a request while all is well, and what an answer costs that the
breaker gives at once, over HTTP/1.1 and HTTP/2; beside it, what such answers cost nginx and haproxy.
"""

import http.client
import json
import statistics
from collections import namedtuple

import checks
import series
import targets
from harness import BenchError
from report import number, table
from sidebyside import measure_saturated, noise_words, run_modes

GATEWAY = checks.GATEWAY

PEERS = targets.PEERS
STREAMS = ["--connections", str(series.H2_CONNECTIONS), "--streams", str(series.H2_STREAMS)]

# A row: of whom, by which configuration of bench/peers/ (mode), under which load (tool, args; None: HTTP/1.1, --connections), in
# words. refuses: every answer is a 503 that no service was asked for.
Case = namedtuple("Case", "key name mode tool args refuses words")
H1 = ("load", None)
H2, H2_TLS = ("load_h2", STREAMS), ("load_h2", ["--tls", *STREAMS])
CASES = [
    Case("unguarded", GATEWAY, "unguarded", *H1, False, "no breaker, no ejection, no retries"),
    Case("plain", GATEWAY, "plain", *H1, False, "breaker, ejection and retries as they are by default"),
    Case("open", GATEWAY, "open", *H1, True, "the breaker held open"),
    Case("h2c", GATEWAY, "h2c", *H2, False, "HTTP/2 clients: by default"),
    Case("h2c-open", GATEWAY, "h2copen", *H2, True, "HTTP/2 clients: the breaker held open"),
    Case("h2", GATEWAY, "h2", *H2_TLS, False, "HTTP/2 clients over TLS: by default"),
    Case("h2-open", GATEWAY, "h2open", *H2_TLS, True, "HTTP/2 clients over TLS: the breaker held open"),
    *(case for peer, how in (("nginx", "`return 503`"), ("haproxy", "`http-request return status 503`")) for case in (
        Case(peer, peer, "plain", *H1, False, "HTTP/1.1, proxied"), Case(f"{peer}-open", peer, "open", *H1, True, how))),
]

def force_open(running):
    client = http.client.HTTPConnection("127.0.0.1", running.values["ADMIN"], timeout=5)
    client.request("PUT", "/api/v1/breakers/origin", json.dumps({"force": "open"}), {"Content-Type": "application/json"})
    status = client.getresponse().status
    client.close()
    if status != 200:
        raise BenchError(f"the breaker cannot be held open: {status}")


def measure_slice(session, rounds, cases, options, say):
    rows = {}
    for case in cases:
        port, root = rounds[case.mode].at[case.name]
        row = rows[case.key] = measure_saturated(session, port, root, [
            "--warmup", "0.3", "--seconds", str(options.seconds),
            *(case.args or ["--connections", str(options.connections)])], case.tool)
        expected = row["requests"] if case.refuses else 0
        if row["server_errors"] != expected:
            raise BenchError(f"{case.key}: {row['server_errors']} of {row['requests']} answers were 5xx")
        say(f"  {case.key:12} {row['cpu_us_per_request']:6.2f} us/request {row['rps']:7.0f} requests/s" + noise_words(row))
    return rows


def run(session, cases, options, say):
    origin = targets.start_origin(session)
    wanted = {}
    for case in cases:
        wanted.setdefault(case.mode, []).append(case.name)

    def begin(rounds):
        for case in cases:
            if case.refuses and case.name == GATEWAY:
                force_open(rounds[case.mode].programs[GATEWAY])
    slices = run_modes(session, wanted, dict.fromkeys(wanted, origin), options,
                       lambda rounds: measure_slice(session, rounds, cases, options, say), say, begin=begin)
    session.stop(origin[0])
    return slices


def table_of(cases, slices, versions):
    header = (("", False), ("", False), ("CPU µs a request", True), ("lowest–highest", True), ("requests/s", True),
              ("core 0 busy", True))
    rows = []
    for case in cases:
        every = sorted(row[case.key]["cpu_us_per_request"] for row in slices)
        rows.append((f"{case.name} {versions[case.name]}", case.words, number(statistics.median(every), 2),
                     f"{every[0]:.2f}–{every[-1]:.2f}", number(statistics.median(row[case.key]["rps"] for row in slices)),
                     f"{100 * statistics.median(row[case.key]['core_busy'] for row in slices):.0f} %"))
    return table(header, rows)


def breaking(session, _names, options, say):
    cases = [case for case in CASES if targets.TARGETS[case.name].available(session)]
    slices = run(session, cases, options, say)
    versions = {case.name: targets.TARGETS[case.name].version(session) for case in cases}

    def ratio(case, other):
        if case not in slices[0]:
            return None
        return statistics.median(rows[case]["cpu_us_per_request"] / rows[other]["cpu_us_per_request"] for rows in slices)
    lines = series.figures_table([
        ("CPU a request, × without them", "at most", 1.03, ratio("plain", "unguarded"), 3),
        ("requests a CPU second answered at once, × proxied", "at least", 3, ratio("plain", "open"), 2),
        ("the same for HTTP/2 clients", "at least", 3, ratio("h2c", "h2c-open"), 2),
        ("the same for HTTP/2 clients over TLS", "at least", 3, ratio("h2", "h2-open"), 2),
    ])
    floors = [(peer, ratio(peer, f"{peer}-open")) for peer in PEERS]
    lines += ["What an HTTP/1.1 answer at once is to a proxied one in other programs, which only say it and think nothing: "
              + ", ".join(f"{peer} {value:.2f} ×" for peer, value in floors if value) + ".", ""] if any(
                  value for _, value in floors) else []
    lines += [f"HTTP/1.1: {options.connections} kept-alive connections, each with its next request as soon as the last is answered. "
              f"HTTP/2: {series.H2_CONNECTIONS} connections with {series.H2_STREAMS} requests under way on each. The upstream "
              "speaks HTTP/1.1. Ratios are taken within each slice.", "", *table_of(cases, slices, versions), ""]
    return {"slices": slices}, lines
