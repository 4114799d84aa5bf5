"""
Mode limits: what a rate limit costs that is never reached, in the process and in Redis, beside the same requests without
one and beside the limits of other proxies.
"""

import collections
import random
import re
import statistics

import checks
import full
import series
import targets
from harness import BenchError, Load, measure_load
from report import number, table
from sidebyside import measure_saturated, noise_words, run_modes

GATEWAY = checks.GATEWAY
CALLERS = 10_000
DEGRADED = re.compile(r'sallyport_rate_limit_decisions_total\{[^}]*decision="(degraded)"[^}]*\} (\d+)')

# A configuration of bench/peers/, in words. All are measured in one slice, under the same load.
CASES = {
    "plain": "no limit",
    "address": "by client's address, in the process",
    "header": f"by a header, {CALLERS:,} callers, in the process",
    "exact": "by client's address, in Redis",
    "leased": "by client's address, in Redis, leased",
}


def callers(session):
    """Bearer tokens that nobody checks, a line each."""
    path = session.dir / "callers"
    if not path.exists():
        numbers = random.Random(1)
        path.write_text("".join(f"caller-{numbers.getrandbits(128):032x}\n" for _ in range(CALLERS)))
    return ["--tokens", str(path)]


def greet_all(session, running):
    """Each caller once: what a new one costs, a page of the table at worst, is not what is measured."""
    load = Load(session, running.port, ["--connections", "8", *callers(session), "--in-order", "--requests", str(CALLERS)])
    load.event("result")
    load.end()


# --- measuring -------------------------------------------------------------------------------------------------------


def redis_of(running):
    return next((helper for helper in running.helpers if helper.name == "redis"), None)


def measure_slice(session, rounds, options, say):
    """{case: {name: saturated and at the fixed rate}}, one after the other."""
    load = ["--seconds", str(options.seconds), "--connections", str(options.connections), *callers(session)]
    rows = {case: {name: {} for name in together.at} for case, together in rounds.items()}
    for case, together in rounds.items():
        for name, (port, root) in together.at.items():
            rows[case][name]["closed"] = measure_saturated(session, port, root, ["--warmup", "0.3", *load])
    for case, together in rounds.items():
        for name, (port, root) in together.at.items():
            redis = redis_of(together.programs[name])
            rows[case][name]["open"] = measure_load(
                session, port, root, ["--warmup", "0.2", "--rate", str(options.rate), *load], helper=redis and redis.pid)
            say(describe(case, name, rows[case][name], options))
    return rows


def describe(case, name, row, options):
    closed, opened = row["closed"], row["open"]
    words = f"  {case:8} {name:10} {closed['cpu_us_per_request']:6.2f} us/request {closed['rps']:7.0f} requests/s  " \
            f"at {options.rate}/s {opened['cpu_us_per_request']:6.2f} us/request, p99 {opened['latency_us']['p99']:6.0f} us"
    if closed["errors"] + opened["errors"]:
        words += f"  {closed['errors'] + opened['errors']} ERRORS"
    return words + noise_words(closed)


def run(session, names, options, say):
    """Slices, and how many decisions were made without Redis."""
    origin = targets.start_origin(session)
    degraded = []

    def greet(rounds):
        for running in rounds["header"].programs.values():
            greet_all(session, running)

    def count(rounds):
        for case in targets.IN_REDIS if GATEWAY in names else ():
            degraded.append(full.counts(rounds[case].programs[GATEWAY], DEGRADED)["degraded"])

    slices = run_modes(
        session, {case: [name for name in names if case in targets.TARGETS[name].modes] for case in CASES},
        dict.fromkeys(CASES, origin), options, lambda rounds: measure_slice(session, rounds, options, say), say,
        begin=greet, end=count)
    session.stop(origin[0])
    return slices, sum(degraded)


# --- the connection to Redis -----------------------------------------------------------------------------------------


def count_turns(text, port):
    """
    [(reads, writes)] on each connection to that port between two waits of its thread's loop, from `strace -f -yy`; turns
    without any are left out.
    """
    to_redis = re.compile(rf"\d+<TCP:\[[^]]*->127\.0\.0\.1:{port}\]>")
    turns, now = [], collections.defaultdict(dict)
    for line in text.splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)  # a call that is resumed has been counted
        if not match:
            continue
        task, call, rest = match.groups()
        if call.startswith(("epoll_wait", "epoll_pwait")):
            turns += now.pop(task, {}).values()
        elif connection := to_redis.match(rest):
            reads, writes = now[task].get(connection[0], (0, 0))
            now[task][connection[0]] = reads + (call in checks.RECV_CALLS), writes + (call in checks.SEND_CALLS)
    return turns


def measure_turns(session, options, say):
    """{case: figures} of the gateway in a run of its own, as strace slows it down."""
    origin, port = targets.start_origin(session)
    found = {}
    for case in targets.IN_REDIS:
        running = targets.start(session, GATEWAY, [port], case)
        try:
            requests = 2000 if options.quick else 20000
            trace = running.dir / "strace"
            checks.strace_run(session, running, "plain", requests, ["-yy", "-e", "trace=network,read,write,readv,writev,"
                                                                   "epoll_wait,epoll_pwait"], trace)
            turns = count_turns(trace.read_text(errors="replace"), running.values["REDIS"])
        finally:
            targets.stop(session, running)
        if not turns:
            raise BenchError(f"{case}: nothing was said to Redis")
        reads, writes = zip(*turns)
        found[case] = {"turns": len(turns), "reads_most": max(reads), "writes_most": max(writes),
                       "reads": sum(reads) / requests, "writes": sum(writes) / requests}
        say(f"  {case}: {found[case]['writes']:.3f} writes and {found[case]['reads']:.3f} reads a request to Redis, at most "
            f"{found[case]['writes_most']} and {found[case]['reads_most']} a turn")
    session.stop(origin)
    return found


# --- summary ---------------------------------------------------------------------------------------------------------


def summarise(slices, case, name):
    """Medians; differences to the same program without a limit, and to the gateway's local limit, within each slice."""
    def median(pick):
        return statistics.median(pick(rows) for rows in slices)

    def cpu(rows, how, of=case):
        return rows[of][name][how]["cpu_us_per_request"]
    every = sorted(cpu(rows, "closed") for rows in slices)
    row = {"name": name, "case": case, "cpu_us": statistics.median(every), "cpu_us_low": every[0], "cpu_us_high": every[-1]}
    row["more_us"] = median(lambda rows: cpu(rows, "closed") - cpu(rows, "closed", "plain"))
    row["to_plain"] = median(lambda rows: cpu(rows, "closed") / cpu(rows, "closed", "plain"))
    row["to_address"] = median(lambda rows: cpu(rows, "closed") / cpu(rows, "closed", "address"))
    row["cpu_us_at_rate"] = median(lambda rows: cpu(rows, "open"))
    row["more_us_at_rate"] = median(lambda rows: cpu(rows, "open") - cpu(rows, "open", "plain"))
    for key in ("rps", "core_busy", "load_core_busy", "foreign_share", "core_stolen"):
        row[key] = median(lambda rows, k=key: rows[case][name]["closed"][k])
    row["stolen"] = row.pop("core_stolen")
    for key in ("p50", "p99", "p999"):
        row[key] = median(lambda rows, k=key: rows[case][name]["open"]["latency_us"][k])
        row[f"more_{key}"] = median(lambda rows, k=key: rows[case][name]["open"]["latency_us"][k] -
                                    rows["plain"][name]["open"]["latency_us"][k])
    row["redis_us"] = median(lambda rows: rows[case][name]["open"]["helper_us_per_request"])
    row["errors"] = sum(rows[case][name][how]["errors"] for rows in slices for how in ("closed", "open"))
    return row


def cpu_table(summary):
    header = (("", False), ("limit", False), ("CPU µs a request", True), ("lowest–highest", True), ("more than without", True),
              ("× without", True), ("requests/s", True), ("core 0 busy", True), ("core 1 busy", True), ("errors", True))
    return table(header, [(
        r["name"], CASES[r["case"]], number(r["cpu_us"], 2), f"{r['cpu_us_low']:.2f}–{r['cpu_us_high']:.2f}",
        "" if r["case"] == "plain" else f"{r['more_us']:+.2f}", "" if r["case"] == "plain" else number(r["to_plain"], 2),
        number(r["rps"]), f"{100 * r['core_busy']:.0f} %", f"{100 * r['load_core_busy']:.0f} %", str(r["errors"]))
        for r in summary])


def rate_table(summary):
    header = (("", False), ("limit", False), ("p50 µs", True), ("p99 µs", True), ("p99.9 µs", True), ("added p50", True),
              ("added p99", True), ("CPU µs a request", True), ("more than without", True), ("Redis's CPU µs", True))
    rows = []
    for r in summary:
        plain = r["case"] == "plain"
        rows.append((r["name"], CASES[r["case"]], number(r["p50"]), number(r["p99"]), number(r["p999"]),
                     "" if plain else f"{r['more_p50']:+,.0f}", "" if plain else f"{r['more_p99']:+,.0f}",
                     number(r["cpu_us_at_rate"], 2), "" if plain else f"{r['more_us_at_rate']:+.2f}",
                     number(r["redis_us"], 2) if r["case"] in targets.IN_REDIS else ""))
    return table(header, rows)


def turns_table(turns):
    header = (("", False), ("writes a request", True), ("reads a request", True), ("most writes a turn", True),
              ("most reads a turn", True))
    return table(header, [(CASES[case], number(t["writes"], 3), number(t["reads"], 3), str(t["writes_most"]),
                           str(t["reads_most"])) for case, t in turns.items()])


def figures(mine, turns, degraded):
    """mine: the gateway's rows by case."""
    exact, leased = mine["exact"], mine["leased"]
    return series.figures_table([
        ("local, by address: CPU µs a request more than without", "at most", 0.3, mine["address"]["more_us"], 2),
        ("local, by header: CPU µs a request more than without", "at most", 0.3, mine["header"]["more_us"], 2),
        ("local, by address: CPU a request, × without", "at most", 1.05, mine["address"]["to_plain"], 2),
        ("exact, at the fixed rate: added p99, µs", "at most", 2000, exact["more_p99"], 0),
        ("exact, at the fixed rate: CPU µs a request more than without", "at most", 6, exact["more_us_at_rate"], 2),
        ("exact: writes to Redis a turn of the loop", "at most", 1, turns["exact"]["writes_most"], 0),
        ("exact: reads from Redis a turn of the loop", "at most", 1, turns["exact"]["reads_most"], 0),
        ("leased: CPU a request, × local", "at most", 1.10, leased["to_address"], 2),
        ("decisions without Redis", "at most", 0, degraded, 0),
        ("errors", "at most", 0, sum(row["errors"] for row in mine.values()), 0),
    ])


def limits(session, names, options, say):
    slices, degraded = run(session, names, options, say)
    summary = [summarise(slices, case, name) for case in CASES for name in names if name in slices[0][case]]
    versions = {name: targets.TARGETS[name].version(session) for name in names}
    results = {"summary": summary, "versions": versions, "slices": slices}
    lines, turns = [], {}
    if GATEWAY in names:
        turns = results["turns"] = measure_turns(session, options, say)
        results["degraded"] = degraded
        lines = figures({row["case"]: row for row in summary if row["name"] == GATEWAY}, turns, degraded)
    lines += [
        f"Each request bears one of {CALLERS:,} tokens that nobody checks; no limit is ever reached. Redis runs on core 1, "
        "beside the load and the origin. " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".", "",
        "## CPU time a request, core saturated", "",
        f"{options.connections} kept-alive connections, each with its next request as soon as the last is answered. With a "
        "decision in Redis for each request core 1 has the most to do: then the gateway waits for it, and its CPU time a "
        "request is a little too high.", "", *cpu_table(summary), "",
        f"## At {options.rate:,} requests a second", "",
        "Counted from when each request was due. “Added” is the difference to the same program without a limit in the same "
        "slice.", "", *rate_table(summary), ""]
    if turns:
        lines += ["## The connection to Redis", "",
                  "System calls on it as `strace` sees them; a turn is what lies between two waits of the loop. Heartbeats, on a "
                  "connection of their own, are in it.", "", *turns_table(turns), ""]
    lines += series.noise_lines({"all": summary})
    words = "µs, core saturated; shorter is better"
    panels = [("CPU time a request, limited by address", words, series.bars([r for r in summary if r["case"] == "address"]), 1)]
    if GATEWAY in names:
        panels.append(("The gateway's own, by kind of limit", words, [
            (r["case"], r["cpu_us"], None, number(r["cpu_us"], 1)) for r in summary if r["name"] == GATEWAY], 1))
    return results, lines, panels
