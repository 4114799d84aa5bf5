"""The comparison: every target measured in turn, in rounds, so that a machine that drifts drifts for all of them."""

import statistics

import targets
from harness import Load, measure_idle, measure_load, memory_bytes, process_tree

NOISE_SHARE = 0.03  # more of the program's core than this used by others: somebody else was at work there
BUSY_ENOUGH = 0.93  # less of it busy than this: the load may have been kept from its own core
TRIES = 3


def noise(result):
    return result["foreign_share"] + max(0.0, BUSY_ENOUGH - result["core_busy"])


def measure_saturated(session, port, root, args):
    """Measured again, a few times at most, when others used the core; judged by that alone, never by the figure."""
    results = []
    while len(results) < TRIES:
        results.append(measure_load(session, port, root, args))
        if noise(results[-1]) <= NOISE_SHARE:
            break
    best = min(results, key=noise)
    best["tries"] = len(results)
    return best


def measure_running(session, port, root, options, measure=measure_saturated):
    """Saturated, then at the fixed rate."""
    common = ["--seconds", str(options.seconds), "--connections", str(options.connections), *options.load_args]
    return {
        "closed": measure(session, port, root, ["--warmup", "0.7", *common]),
        "open": measure_load(session, port, root, ["--warmup", "0.3", "--rate", str(options.rate), *common]),
    }


def measure_memory(session, port, root, options):
    """In a fresh process: one that has been under load holds freed memory, and idle connections would seem free."""
    at_start = memory_bytes(process_tree(root))
    load = Load(session, port, ["--seconds", "0.2", "--connections", "8", *options.load_args])
    load.event("result")
    load.end()
    return {"start_memory": at_start, "idle": measure_idle(session, port, root, options.idle, options.load_args)}


def measure_target(session, name, origin, options, folder):
    """One target: started and measured under load, started again and measured idle."""
    program, port = origin
    if name == "direct":
        return measure_running(session, port, program.pid, options, measure_load)  # core 0 has nothing to do
    row = {}
    for measure in (measure_running, measure_memory):
        running = targets.start(session, name, [port], folder)
        try:
            row["ready_ms"] = running.ready_s * 1000
            row.update(measure(session, running.port, running.pid, options))
        finally:
            targets.stop(session, running)
    return row


def run(session, names, options, folder, say):
    """[{name: row}] for each round."""
    origin = targets.start_origin(session)
    rounds = []
    for number in range(options.rounds):
        rows = {}
        for name in names:
            row = measure_target(session, name, origin, options, folder)
            rows[name] = row
            closed, opened, idle = row["closed"], row["open"], row.get("idle")
            errors = closed["errors"] + opened["errors"] + (idle["errors"] if idle else 0)
            words = f"round {number + 1}/{options.rounds} {name:10} {closed['cpu_us_per_request']:6.2f} us/request " \
                    f"{closed['rps']:8.0f} requests/s  core {100 * closed['core_busy']:3.0f} % busy  " \
                    f"p99 at {options.rate}/s {opened['latency_us']['p99']:6.0f} us"
            if idle:
                words += f"  {idle['bytes_per_connection']:6.0f} B/idle"
            if errors:
                words += f"  {errors} ERRORS"
            if closed["reconnects"] + opened["reconnects"]:
                words += f"  {closed['reconnects'] + opened['reconnects']} connections closed by it"
            if idle and noise(closed) > NOISE_SHARE:
                words += f"  (noise: others used {100 * closed['foreign_share']:.0f} % of its core)"
            say(words)
        rounds.append(rows)
    session.stop(origin[0])
    return rounds


def median(rounds, name, pick):
    values = [pick(r[name]) for r in rounds if name in r]
    return statistics.median(values)


def ratio(rounds, name, to):
    """The median of the rounds' ratios of CPU time a request; `to` gives a round's measure from its rows."""
    values = []
    for r in rounds:
        base = to(r)
        if name in r and base:
            values.append(r[name]["closed"]["cpu_us_per_request"] / base)
    return statistics.median(values) if values else None


def cpu_of(name):
    return lambda rows: rows[name]["closed"]["cpu_us_per_request"] if name in rows else None


def cpu_of_best_peer(rows):
    values = [rows[p]["closed"]["cpu_us_per_request"] for p in targets.PEERS if p in rows]
    return min(values) if values else None


LATENCIES = ("p50", "p90", "p99", "p999", "max", "mean")


def summarise(rounds, names):
    """One flat row for each target: medians over the rounds, ratios and differences taken within each round."""
    summary = []
    for name in names:
        row = {"name": name}
        cpu = [r[name]["closed"]["cpu_us_per_request"] for r in rounds]
        row["cpu_us"] = statistics.median(cpu)
        row["cpu_us_low"], row["cpu_us_high"] = min(cpu), max(cpu)
        row["user_share"] = median(rounds, name, lambda r: r["closed"]["user_share"])
        row["rps"] = median(rounds, name, lambda r: r["closed"]["rps"])
        row["core_busy"] = median(rounds, name, lambda r: r["closed"]["core_busy"])
        row["cpu_share"] = median(rounds, name, lambda r: r["closed"]["cpu_share"])
        row["foreign_share"] = 0 if name == "direct" else max(r[name]["closed"]["foreign_share"] for r in rounds)
        row["stolen"] = max(r[name]["closed"]["core_stolen"] for r in rounds)
        row["to_relay"] = ratio(rounds, name, cpu_of("relay"))
        row["to_best_peer"] = ratio(rounds, name, cpu_of_best_peer)
        row["cpu_us_at_rate"] = median(rounds, name, lambda r: r["open"]["cpu_us_per_request"])
        row["errors"] = sum(r[name]["closed"]["errors"] + r[name]["open"]["errors"] for r in rounds)
        for key in LATENCIES:
            row[f"full_{key}"] = median(rounds, name, lambda r: r["closed"]["latency_us"][key])
            row[f"rate_{key}"] = median(rounds, name, lambda r: r["open"]["latency_us"][key])
            if all("direct" in r for r in rounds):
                row[f"added_{key}"] = statistics.median(
                    r[name]["open"]["latency_us"][key] - r["direct"]["open"]["latency_us"][key] for r in rounds)
        if name != "direct":
            row["errors"] += sum(r[name]["idle"]["errors"] + r[name]["idle"]["closed_by_server"] for r in rounds)
            row["idle_bytes"] = median(rounds, name, lambda r: r["idle"]["bytes_per_connection"])
            row["start_memory"] = median(rounds, name, lambda r: r["start_memory"])
            row["memory_with_idle"] = median(rounds, name, lambda r: r["idle"]["memory_after"])
        summary.append(row)
    return summary
