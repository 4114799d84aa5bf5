"""
Mode breaking: what breaker, ejection and retry budget cost a request while all is well, and what an answer costs that the
breaker gives at once.
"""

import http.client
import json
import statistics

import checks
import series
import targets
from harness import BenchError
from report import number, table
from sidebyside import measure_saturated, noise_words, run_modes

GATEWAY = checks.GATEWAY

# A configuration of bench/peers/, in words. All are measured in one slice, under the same load.
CASES = {
    "unguarded": "no breaker, no ejection, no retries",
    "plain": "breaker, ejection and retries as they are by default",
    "open": "the breaker held open",
}


def force_open(running):
    client = http.client.HTTPConnection("127.0.0.1", running.values["ADMIN"], timeout=5)
    client.request("PUT", "/api/v1/breakers/origin", json.dumps({"force": "open"}), {"Content-Type": "application/json"})
    status = client.getresponse().status
    client.close()
    if status != 200:
        raise BenchError(f"the breaker cannot be held open: {status}")


def measure_slice(session, rounds, options, say):
    rows = {}
    for case, together in rounds.items():
        port, root = together.at[GATEWAY]
        row = rows[case] = measure_saturated(session, port, root, [
            "--warmup", "0.3", "--seconds", str(options.seconds), "--connections", str(options.connections)])
        expected = row["requests"] if case == "open" else 0
        if row["server_errors"] != expected:
            raise BenchError(f"{case}: {row['server_errors']} of {row['requests']} answers were 5xx")
        say(f"  {case:10} {row['cpu_us_per_request']:6.2f} us/request {row['rps']:7.0f} requests/s" + noise_words(row))
    return rows


def run(session, options, say):
    origin = targets.start_origin(session)
    slices = run_modes(session, dict.fromkeys(CASES, [GATEWAY]), dict.fromkeys(CASES, origin), options,
                       lambda rounds: measure_slice(session, rounds, options, say), say,
                       begin=lambda rounds: force_open(rounds["open"].programs[GATEWAY]))
    session.stop(origin[0])
    return slices


def breaking(session, _names, options, say):
    slices = run(session, options, say)

    def cpu(rows, case):
        return rows[case]["cpu_us_per_request"]

    def ratio(case, other):
        return statistics.median(cpu(rows, case) / cpu(rows, other) for rows in slices)
    lines = series.figures_table([
        ("CPU a request, × without them", "at most", 1.03, ratio("plain", "unguarded"), 3),
        ("requests a CPU second answered at once, × proxied", "at least", 3, ratio("plain", "open"), 2),
    ])
    header = (("", False), ("CPU µs a request", True), ("lowest–highest", True), ("requests/s", True))
    rows = []
    for case, words in CASES.items():
        every = sorted(cpu(row, case) for row in slices)
        rows.append((words, number(statistics.median(every), 2), f"{every[0]:.2f}–{every[-1]:.2f}",
                     number(statistics.median(row[case]["rps"] for row in slices))))
    lines += [f"{options.connections} kept-alive connections, each with its next request as soon as the last is answered; ratios "
              "are taken within each slice.", "", *table(header, rows), ""]
    return {"slices": slices}, lines
