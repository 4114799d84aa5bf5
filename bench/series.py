"""
The comparisons over TLS and HTTP/2. A series is one kind of load on one configuration; in each slice every series is
measured of every program, one after the other, so that what is compared are neighbours in time, as in sidebyside.py.
"""

import statistics

import checks
import targets
from report import drawing, number, table
from sidebyside import NOISE_SHARE, Round, measure_memory, measure_saturated, noise_words, run_modes

GATEWAY = checks.GATEWAY


class Series:
    """
    `mode` chooses the configurations, `tool` and `args` the load, `unit` is what is counted. `names`: only these
    programs are in it. `before(session, running)` runs before each of its measurements.
    """

    def __init__(self, key, title, mode, tool, args, unit, words, names=None, before=None):
        self.key = key
        self.title = title
        self.mode = mode
        self.tool = tool
        self.args = args
        self.unit = unit
        self.words = words
        self.only = names
        self.before = before

    def names(self, names):
        return [name for name in names if self.mode in targets.TARGETS[name].modes and name in (self.only or names)]


OFFER = "TLS 1.3 with X25519, AES-128-GCM and one ECDSA certificate (P-256) for all"
HANDSHAKE = ("Each connection is opened, makes one small request and is closed by the client with close_notify, 64 of "
             "them at a time; all of that is in the figure.")


def tls_series(options):
    connections = ["--connections", str(options.connections)]
    return [
        Series("keepalive", "HTTP/1.1 over TLS: CPU time a request, core saturated", "tls", "load",
               ["--tls", *connections], "request",
               f"{OFFER}. {options.connections} kept-alive connections, each with its next request as soon as the "
               "last is answered; upstream HTTP/1.1 without TLS, kept alive."),
        Series("full", "Full handshakes", "tls", "load", ["--handshakes", "full", *connections], "handshake",
               f"{OFFER}. {HANDSHAKE}"),
        Series("resumed", "Resumed handshakes", "tls", "load", ["--handshakes", "resumed", *connections], "handshake",
               "The same with the ticket that the connection before it was given (psk_dhe_ke: X25519 again, no "
               "signature)."),
    ]


H2_CONNECTIONS, H2_STREAMS = 16, 10


def h2_series(_options):
    streams = ["--connections", str(H2_CONNECTIONS), "--streams", str(H2_STREAMS)]
    at_once = f"{H2_CONNECTIONS} connections with {H2_STREAMS} requests under way on each"
    return [
        Series("h2", "HTTP/2 over TLS: CPU time a request, core saturated", "h2", "load_h2", ["--tls", *streams],
               "request", f"{OFFER}. {at_once}; upstream HTTP/1.1 without TLS, kept alive."),
        Series("grpc", "gRPC unary calls: CPU time a call, core saturated", "grpc", "load_h2", ["--grpc", *streams],
               "call", f"HTTP/2 without TLS (prior knowledge) on both sides; {at_once}; a message of 64 bytes up, one "
               "of 128 bytes and trailers down. A call counts only with grpc-status 0. h2o is not in it: it speaks "
               "HTTP/1.1 to upstreams."),
    ]


# --- measuring -------------------------------------------------------------------------------------------------------


def describe(name, series, result):
    words = f"  {series.key:10} {name:10} {result['cpu_us_per_request']:7.2f} us/{series.unit} " \
            f"{result['rps']:7.0f} {series.unit}s/s  core 0 {100 * result['core_busy']:3.0f} %, " \
            f"core 1 {100 * result['load_core_busy']:3.0f} % busy"
    if result["errors"]:
        words += f"  {result['errors']} ERRORS"
    if result["reconnects"]:
        words += f"  {result['reconnects']} connections closed by it"
    return words + noise_words(result)


def measure_slice(session, rounds, all_series, options, say):
    """{series: {name: result}}, one program after the other."""
    rows = {}
    for series in all_series:
        rows[series.key] = {}
        for name in series.names(rounds[series.mode].at):
            port, root = rounds[series.mode].at[name]
            if series.before:
                series.before(session, rounds[series.mode].programs[name])
            result = measure_saturated(session, port, root, [
                "--warmup", "0.3", "--seconds", str(options.seconds), *series.args], series.tool)
            rows[series.key][name] = result
            say(describe(name, series, result))
    return rows


def run(session, names, options, all_series, say):
    modes = {}
    for series in all_series:
        wanted = modes.setdefault(series.mode, [])
        wanted += [name for name in series.names(names) if name not in wanted]
    origins = {mode: targets.start_origin(session, mode=mode) for mode in modes}
    slices = run_modes(session, modes, origins, options,
                       lambda rounds: measure_slice(session, rounds, all_series, options, say), say)
    for program, _ in origins.values():
        session.stop(program)
    return slices


def run_idle(session, names, options, say):
    """[{name: memory}]: connections over TLS that fell silent, in a fresh process each."""
    memories = []
    origin = targets.start_origin(session)
    for number_ in range(options.rounds):
        memory = {}
        for name in names:
            with Round(session, [name], origin, "tls") as alone:
                memory[name] = measure_memory(session, *alone.at[name], options, ["--tls"])
        say(f"round {number_ + 1}/{options.rounds}, bytes an idle TLS connection: " + ", ".join(
            f"{name} {row['idle']['bytes_per_connection']:.0f}" for name, row in memory.items()))
        memories.append(memory)
    session.stop(origin[0])
    return memories


# --- summary ---------------------------------------------------------------------------------------------------------


def cpu(row):
    return row["cpu_us_per_request"]


def summarise(slices, series, names):
    """One flat row for each program; ratios are taken within each slice."""
    summary = []
    peers = [name for name in names if name != GATEWAY]
    for name in names:
        mine = [rows[series.key][name] for rows in slices]
        values = sorted(cpu(r) for r in mine)

        def median(key, mine=mine):
            return statistics.median(r[key] for r in mine)

        row = {"name": name, "cpu_us": statistics.median(values), "cpu_us_low": values[0], "cpu_us_high": values[-1],
               "per_cpu_second": statistics.median(1e6 / v for v in values)}
        for key in ("rps", "core_busy", "load_core_busy", "load_share", "foreign_share"):
            row[key] = median(key)
        row["stolen"] = median("core_stolen")
        row["p50"], row["p99"] = (statistics.median(r["latency_us"][key] for r in mine) for key in ("p50", "p99"))
        row["errors"] = sum(r["errors"] for r in mine)
        row["to_best_peer"] = statistics.median(
            cpu(rows[series.key][name]) / min(cpu(rows[series.key][peer]) for peer in peers)
            for rows in slices) if peers else None
        for peer in peers:
            row[f"to_{peer}"] = statistics.median(
                cpu(rows[series.key][name]) / cpu(rows[series.key][peer]) for rows in slices)
        summary.append(row)
    return summary


def series_table(series, summary, versions):
    unit = series.unit
    header = (("", False), ("version", False), (f"CPU µs a {unit}", True), ("lowest–highest", True),
              ("× best peer", True), (f"{unit}s a CPU second", True), (f"{unit}s/s", True), ("p50 ms", True),
              ("p99 ms", True), ("core 0 busy", True), ("core 1 busy", True), ("the load's part", True),
              ("errors", True))
    rows = [(r["name"], versions.get(r["name"], ""), number(r["cpu_us"], 2),
             f"{r['cpu_us_low']:.2f}–{r['cpu_us_high']:.2f}", number(r["to_best_peer"], 2),
             number(r["per_cpu_second"]), number(r["rps"]), number(r["p50"] / 1000, 2), number(r["p99"] / 1000, 2),
             f"{100 * r['core_busy']:.0f} %", f"{100 * r['load_core_busy']:.0f} %", f"{100 * r['load_share']:.0f} %",
             str(r["errors"])) for r in summary]
    return [f"## {series.title}", "", series.words, "", *table(header, rows), ""]


def row_of(summary):
    return next((r for r in summary if r["name"] == GATEWAY), None)


def figures_table(rows):
    """rows: (words, "at most" or "at least", limit, measured or None where it was not, digits)."""
    lines = ["## Figures to reach", "", "| figure | to reach | measured | |", "|---|---:|---:|---|"]
    for words, side, limit, measured, digits in rows:
        if measured is not None:
            lines.append(f"| {words} | {side} {number(limit, digits)} | {number(measured, digits)} | "
                         f"{checks.verdict(measured, limit, less=side == 'at most')} |")
    return lines + [""]


def noise_lines(summaries):
    noisy = sorted({r["name"] for summary in summaries.values() for r in summary
                    if max(r["foreign_share"], r["stolen"]) > NOISE_SHARE})
    words = f"Noise: others used or were given the core of {', '.join(noisy)}; to be measured again on a quiet machine."
    return [words, ""] if noisy else []


def bars(summary, key="cpu_us", digits=1, down=False):
    return [(r["name"], r[key], None, number(r[key], digits))
            for r in sorted(summary, key=lambda r: r[key], reverse=down)]


NOTE = "one core for each program, load and origin on the other; medians of interleaved slices"


# --- the two modes ---------------------------------------------------------------------------------------------------


def idle_summary(memories, names):
    rows = []
    for name in names:
        mine = [memory[name] for memory in memories]
        rows.append({
            "name": name,
            "idle_bytes": statistics.median(r["idle"]["bytes_per_connection"] for r in mine),
            "start_memory": statistics.median(r["start_memory"] for r in mine),
            "memory_with_idle": statistics.median(r["idle"]["memory_after"] for r in mine),
            "errors": sum(r["idle"]["errors"] + r["idle"]["closed_by_server"] for r in mine),
        })
    return rows


def idle_table(rows, options):
    mib = 1024 * 1024
    header = (("", False), ("bytes an idle connection", True), ("at start, MiB", True), ("with all of them, MiB", True),
              ("errors", True))
    return [f"## Memory of {options.idle:,} idle TLS connections", "",
            "Each made one request. Process memory; the kernel's sockets are not in it.", "",
            *table(header, [(r["name"], number(r["idle_bytes"]), number(r["start_memory"] / mib, 1),
                             number(r["memory_with_idle"] / mib, 1), str(r["errors"])) for r in rows]), ""]


def tls(session, names, options, say):
    """(results, lines, title-less plot): requests and handshakes over TLS, two workers, idle connections."""
    all_series = tls_series(options)
    slices = run(session, names, options, all_series, say)
    memories = run_idle(session, names, options, say)
    summaries = {series.key: summarise(slices, series, names) for series in all_series}
    idle = idle_summary(memories, names)
    results = {"summary": summaries, "idle": idle, "slices": slices, "memories": memories}
    scale_lines = []
    mine = {key: row_of(summary) for key, summary in summaries.items()}
    rows = []
    if mine["keepalive"]:
        one, two, gains = checks.measure_scale(session, options, say, "handshake", "tls", ["--handshakes", "full"])
        gain = statistics.median(gains)
        results["scale"] = {"one": one, "two": two, "gains": gains, "gain": gain}
        scale_lines = ["## Full handshakes of one worker and two", "",
                       "A load and an origin on each core in both cases; handshakes are counted for each second of the "
                       "gateway's CPU time, as in mode scale.", "",
                       *checks.scale_table(one, two, "handshake"), ""]
        best = mine["full"]["to_best_peer"]
        memory = row_of(idle)
        rows = [
            ("CPU a request, × best peer", "at most", 0.95, mine["keepalive"]["to_best_peer"], 2),
            ("full handshakes a CPU second, × best peer", "at least", 1.0, 1 / best if best else None, 2),
            ("resumed handshakes, × its full ones", "at least", 2.0, statistics.median(
                cpu(r["full"][GATEWAY]) / cpu(r["resumed"][GATEWAY]) for r in slices), 2),
            ("full handshakes of 2 workers, × of 1", "at least", 1.8, gain, 2),
            ("memory of an idle TLS connection, bytes", "at most", 12 * 1024, memory["idle_bytes"], 0),
            ("errors", "at most", 0, memory["errors"] + sum(r["errors"] for r in mine.values()), 0),
        ]
    versions = results["versions"] = {name: targets.TARGETS[name].version(session) for name in names}
    lines = figures_table(rows) if rows else []
    for series in all_series:
        lines += series_table(series, summaries[series.key], versions)
    lines += scale_lines + idle_table(idle, options) + noise_lines(summaries)
    panels = [
        ("CPU time a request, HTTP/1.1", "µs, core saturated; shorter is better", bars(summaries["keepalive"]), 1),
        ("Full handshakes", "for a second of CPU time; longer is better",
         bars(summaries["full"], "per_cpu_second", 0, True), 0),
        ("Resumed handshakes", "for a second of CPU time; longer is better",
         bars(summaries["resumed"], "per_cpu_second", 0, True), 0),
        ("Memory of an idle connection", "bytes of process memory; shorter is better",
         bars(idle, "idle_bytes", 0), 0),
    ]
    return results, lines, panels


def h2(session, names, options, say):
    """As tls(): requests over HTTP/2 and TLS, and gRPC calls."""
    all_series = h2_series(options)
    slices = run(session, names, options, all_series, say)
    summaries = {series.key: summarise(slices, series, series.names(names)) for series in all_series}
    versions = {name: targets.TARGETS[name].version(session) for name in names}
    mine = {key: row_of(summary) for key, summary in summaries.items()}
    lines = []
    if mine["h2"]:
        lines = figures_table([
            ("HTTP/2 over TLS: CPU a request, × best peer", "at most", 0.95, mine["h2"]["to_best_peer"], 2),
            ("gRPC unary: CPU a call, × nginx", "at most", 0.80, mine["grpc"].get("to_nginx"), 2),
            ("errors", "at most", 0, sum(r["errors"] for r in mine.values()), 0),
        ])
    for series in all_series:
        lines += series_table(series, summaries[series.key], versions)
    lines += noise_lines(summaries)
    panels = [(title, "µs, core saturated; shorter is better", bars(summaries[key]), 1)
              for key, title in (("h2", "CPU time a request, HTTP/2 over TLS"), ("grpc", "CPU time a gRPC call"))
              if summaries[key]]
    return {"summary": summaries, "versions": versions, "slices": slices}, lines, panels


def plot(title, panels):
    return drawing(title, NOTE, panels)
