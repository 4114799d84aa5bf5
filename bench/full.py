"""
Mode full: who calls is known by a token, told to the upstream in headers and limited; with log and metrics on, as in
every mode. Measured beside proxies that do the same, and beside the same proxies doing none of it.
"""

import collections
import os
import re
import signal
import statistics
import time

import checks
import identities
import series
import targets
from harness import LOAD_CORE, PROXY_CORE, BenchError, Client, Load, memory_bytes, process_tree
from report import number, table
from series import Series
from sidebyside import measure_saturated

GATEWAY = checks.GATEWAY
CACHE = re.compile(r'sallyport_auth_cache_total\{[^}]*result="(\w+)"[^}]*\} (\d+)')
RELOADS = re.compile(r'sallyport_config_reloads_total\{[^}]*result="(success)"[^}]*\} (\d+)')
RELOAD_S = 10


def all_series(session, options):
    files = identities.make(session)
    few = ["--connections", str(options.connections), "--tokens", str(files["TOKENS"])]
    fresh = ["--connections", str(options.connections), "--tokens", str(files["CROWD_TOKENS"]), "--in-order"]
    return [
        Series("plain", "The same requests, passed on unread", "plain", "load", few, "request",
               "Tokens and all, but nobody looks at them: mode plain's configurations.", names=("nginx", "haproxy", GATEWAY)),
        Series("full", "Callers known by RS256 tokens", "full", "load", few, "request",
               f"{identities.FEW} callers. The signature, issuer, audience and expiry are checked, the caller's id, scopes "
               "and tenant go upstream in headers that clients cannot forge, and each caller has a limit that is never "
               "reached. haproxy does so with jwt_verify and a stick table; nginx asks an Auth Service on the other core, "
               "which says yes at once (auth_request; its CPU time is not in the figure), and limits by token."),
        Series("cold", "Tokens never seen before", "full", "load", fresh, "request",
               f"Each request bears another of {identities.CROWD:,} tokens, and a reload just before the run has made the "
               "gateway forget all of them.", names=(GATEWAY,), before=forget),
        Series("forward", "Callers known by the word of an Auth Service", "forward", "load", few, "request",
               "The same done by a forward provider, whose answers are in the cache.", names=(GATEWAY,)),
    ]


def forget(_session, running):
    """A reload with other settings of the provider: what was verified under the old ones counts no more."""
    leeway = running.values["LEEWAY"]
    running.values["LEEWAY"] = leeway + 1 if leeway < 50 else 30
    checks.write_whole(running.config, targets.fill(targets.template(running.target), running.values))
    before = counts(running, RELOADS)
    os.kill(running.pid, signal.SIGHUP)
    end = time.monotonic() + RELOAD_S
    while counts(running, RELOADS) == before:
        if time.monotonic() > end:
            raise BenchError(f"no reload within {RELOAD_S} s: {running.program.words()}")
        time.sleep(0.005)


def counts(running, pattern):
    """{label: count} of a metric, over all providers."""
    client = Client(running.status)
    try:
        status, text = client.get("/metrics")
    finally:
        client.close()
    if status != 200:
        raise BenchError(f"/metrics answers {status}")
    found = collections.Counter()
    for label, count in pattern.findall(text.decode()):
        found[label] += int(count)
    return found


def measure_crowd(session, options, say):
    """A hundred thousand callers at once: how many are found in the cache, and what they cost."""
    files = identities.make(session)
    origin, port = targets.start_origin(session)
    running = targets.start(session, GATEWAY, [port], "full")
    crowd = ["--connections", str(options.connections), "--tokens", str(files["CROWD_TOKENS"])]
    before_bytes = memory_bytes(process_tree(running.pid))
    warm = Load(session, running.port, [*crowd, "--in-order", "--requests", str(identities.CROWD)])
    warm.event("result")
    warm.end()
    after_bytes = memory_bytes(process_tree(running.pid))
    before = counts(running, CACHE)
    runs = []
    for part in range(options.slices):
        runs.append(measure_saturated(session, running.port, running.pid, [
            *crowd, "--seconds", str(options.seconds)]))
        say(f"  {identities.CROWD:,} callers, slice {part + 1}/{options.slices}: "
            f"{runs[-1]['cpu_us_per_request']:.2f} us/request")
    after = counts(running, CACHE)
    hits, misses = (after[key] - before[key] for key in ("hit", "miss"))
    targets.stop(session, running)
    session.stop(origin)
    return {
        "cpu_us": statistics.median(r["cpu_us_per_request"] for r in runs),
        "hit_ratio": hits / max(1, hits + misses),
        "bytes_a_caller": (after_bytes - before_bytes) / identities.CROWD,
        "memory": memory_bytes(process_tree(running.pid)) if running.program.alive() else after_bytes,
        "errors": sum(r["errors"] for r in runs),
    }


def measure_verify(session, options):
    """Microseconds of CPU time for the bare signature, on the proxies' core."""
    files = identities.make(session)
    values = []
    for _ in range(options.slices):
        program = session.start("verify", ["taskset", "-c", str(PROXY_CORE), session.tool("verify"), files["PUBLIC_KEY"],
                                           files["TOKENS"], str(min(0.5, options.seconds))], {PROXY_CORE, LOAD_CORE})
        program.process.wait(timeout=60)
        values.append(float(program.words().split()[-1]))  # the file may hold an earlier run as well
        session.stop(program)
    return statistics.median(values)


def ratio(slices, key, other, other_name):
    """The gateway's CPU time a request in one series over somebody's in another, within each slice."""
    values = [rows[key][GATEWAY]["cpu_us_per_request"] / rows[other][other_name]["cpu_us_per_request"]
              for rows in slices if other_name in rows[other]]
    return statistics.median(values) if values else None


def full(session, names, options, say):
    every = all_series(session, options)
    slices = series.run(session, names, options, every, say)
    summaries = {s.key: series.summarise(slices, s, s.names(names)) for s in every}
    versions = {name: targets.TARGETS[name].version(session) for name in names}
    results = {"summary": summaries, "versions": versions, "slices": slices}
    lines = []
    if GATEWAY in names:
        crowd = results["crowd"] = measure_crowd(session, options, say)
        verify = results["verify_us"] = measure_verify(session, options)
        plain, cold = (series.row_of(summaries[key])["cpu_us"] for key in ("plain", "cold"))
        lines = series.figures_table([
            ("CPU a request, × plain nginx", "at most", 1.0, ratio(slices, "full", "plain", "nginx"), 2),
            ("CPU a request, × haproxy with jwt_verify", "at most", 0.35, ratio(slices, "full", "full", "haproxy"), 2),
            ("CPU a request, × nginx with auth_request", "at most", 0.25, ratio(slices, "full", "full", "nginx"), 2),
            ("new tokens: CPU a request, × (bare verify + plain request)", "at most", 1.1, cold / (verify + plain), 2),
            ("forward provider, warm cache, × tokens", "at most", 1.1, ratio(slices, "forward", "full", GATEWAY), 2),
            (f"hit ratio with {identities.CROWD:,} callers", "at least", 0.99, crowd["hit_ratio"], 4),
            ("errors", "at most", 0, crowd["errors"] + sum(
                r["errors"] for summary in summaries.values() for r in summary if r["name"] == GATEWAY), 0),
        ])
        lines += [f"OpenSSL alone verifies one of the tokens (RS256, 2048 bits) in {number(verify, 1)} µs.", ""]
    for s in every:
        if summaries[s.key]:
            lines += series.series_table(s, summaries[s.key], versions)
    if "crowd" in results:
        crowd = results["crowd"]
        header = (("", False), ("CPU µs a request", True), ("found in the cache", True), ("bytes a caller", True))
        lines += [f"## {identities.CROWD:,} callers at once", "",
                  "Each request bears any one of their tokens; all had been seen before the runs.", "",
                  *table(header, [(GATEWAY, number(crowd["cpu_us"], 2), f"{100 * crowd['hit_ratio']:.2f} %",
                                   number(crowd["bytes_a_caller"]))]), ""]
    lines += series.noise_lines(summaries)
    panels = [(title, "µs, core saturated; shorter is better", series.bars(summaries[key]), 1)
              for key, title in (("full", "CPU time a request, callers known by tokens"),
                                 ("plain", "CPU time of the same request, unread")) if summaries[key]]
    return results, lines, panels
