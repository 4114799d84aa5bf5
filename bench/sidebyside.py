"""
The comparison. Virtual machines change speed by a third within seconds, so programs measured half a minute apart cannot
be compared. In each round all of them are started; then they are measured in short slices, one after the other, again
and again, each alone while the others sleep. What is compared is always neighbours in time.
"""

import contextlib
import statistics

import targets
from harness import Load, measure_idle, measure_load, memory_bytes, process_tree

NOISE_SHARE = 0.03  # more of the program's core than this used by others: somebody else was at work there
BUSY_ENOUGH = 0.93  # less of it busy than this: the load may have been kept from its own core
TRIES = 3


def noise(result):
    return result["foreign_share"] + max(0.0, BUSY_ENOUGH - result["core_busy"])


def noise_words(result):
    return f"  (noise: others used {100 * result['foreign_share']:.0f} % of its core)" if noise(result) > NOISE_SHARE else ""


def measure_saturated(session, port, root, args, tool="load"):
    """Measured again, a few times at most, when others used the core; judged by that alone, never by the figure."""
    results = []
    while len(results) < TRIES:
        results.append(measure_load(session, port, root, args, tool))
        if noise(results[-1]) <= NOISE_SHARE:
            break
    best = min(results, key=noise)
    best["tries"] = len(results)
    return best


def measure_memory(session, port, root, options, load_args=()):
    """In a fresh process: one that has been under load holds freed memory, and idle connections would seem free."""
    at_start = memory_bytes(process_tree(root))
    load = Load(session, port, ["--seconds", "0.2", "--connections", "8", *load_args])
    load.event("result")
    load.end()
    return {"start_memory": at_start, "idle": measure_idle(session, port, root, options.idle, load_args)}


class Round:
    """All targets running at once: (port, pid at the root) of each. A context, so that they are stopped."""

    def __init__(self, session, names, origin, mode="plain"):
        self.session = session
        self.at = {}
        self.programs = {}
        self.running = []
        self.origin = origin
        self.names = names
        self.mode = mode

    def __enter__(self):
        program, port = self.origin
        for name in self.names:
            if name == "direct":
                self.at[name] = (port, program.pid)
                continue
            running = targets.start(self.session, name, [port], self.mode)
            self.running.append(running)
            self.programs[name] = running
            self.at[name] = (running.port, running.pid)
        return self

    def __exit__(self, *_):
        for running in self.running:
            targets.stop(self.session, running)


def run_modes(session, wanted, origins, options, measure, say, begin=None, end=None):
    """
    A list of slices, each what measure(rounds) gives. wanted: {mode: names}, origins: {mode: origin}, rounds: {mode: Round}.
    All programs in all modes are up during a round, and those not measured sleep; begin(rounds) is before its first slice,
    end(rounds) after the last one.
    """
    slices = []
    for number in range(options.rounds):
        with contextlib.ExitStack() as stack:
            rounds = {mode: stack.enter_context(Round(session, names, origins[mode], mode)) for mode, names in wanted.items()}
            if begin:
                begin(rounds)
            for part in range(options.slices):
                say(f"round {number + 1}/{options.rounds}, slice {part + 1}/{options.slices}")
                slices.append(measure(rounds))
            if end:
                end(rounds)
    return slices


def measure_slice(session, at, options):
    """{name: saturated and at the fixed rate}, one target after the other."""
    common = ["--seconds", str(options.seconds), "--connections", str(options.connections)]
    rows = {name: {} for name in at}
    for name, (port, root) in at.items():
        measure = measure_load if name == "direct" else measure_saturated  # direct leaves core 0 alone
        rows[name]["closed"] = measure(session, port, root, ["--warmup", "0.3", *common])
    for name, (port, root) in at.items():
        rows[name]["open"] = measure_load(session, port, root, [
            "--warmup", "0.2", "--rate", str(options.rate), *common])
    return rows


def describe(name, row, options):
    closed, opened = row["closed"], row["open"]
    words = f"  {name:10} {closed['cpu_us_per_request']:6.2f} us/request {closed['rps']:7.0f} requests/s  " \
            f"core {100 * closed['core_busy']:3.0f} % busy  " \
            f"p99 at {options.rate}/s {opened['latency_us']['p99']:6.0f} us"
    if closed["errors"] + opened["errors"]:
        words += f"  {closed['errors'] + opened['errors']} ERRORS"
    if closed["reconnects"] + opened["reconnects"]:
        words += f"  {closed['reconnects'] + opened['reconnects']} connections closed by it"
    return words if name == "direct" else words + noise_words(closed)


def run(session, names, options, say):
    """(slices, memories): lists of {name: row}."""
    origin = targets.start_origin(session)
    slices, memories = [], []
    for number in range(options.rounds):
        with Round(session, names, origin) as together:
            for part in range(options.slices):
                rows = measure_slice(session, together.at, options)
                slices.append(rows)
                say(f"round {number + 1}/{options.rounds}, slice {part + 1}/{options.slices}")
                for name in names:
                    say(describe(name, rows[name], options))
        memory = {}
        for name in names:
            if name == "direct":
                continue
            with Round(session, [name], origin) as alone:
                memory[name] = measure_memory(session, *alone.at[name], options)
        say(f"round {number + 1}/{options.rounds}, bytes an idle connection: " + ", ".join(
            f"{name} {row['idle']['bytes_per_connection']:.0f}" for name, row in memory.items()))
        memories.append(memory)
    session.stop(origin[0])
    return slices, memories


# --- summary ---------------------------------------------------------------------------------------------------------


def cpu_of(name):
    return lambda rows: rows[name]["closed"]["cpu_us_per_request"] if name in rows else None


def cpu_of_best_peer(rows):
    values = [rows[p]["closed"]["cpu_us_per_request"] for p in targets.PEERS if p in rows]
    return min(values) if values else None


def ratio(slices, name, to):
    """The median of the slices' ratios of CPU time a request; `to` gives a slice's measure from its rows."""
    values = [rows[name]["closed"]["cpu_us_per_request"] / to(rows) for rows in slices if to(rows)]
    return statistics.median(values) if values else None


LATENCIES = ("p50", "p90", "p99", "p999", "max", "mean")


def summarise(slices, memories, names):
    """One flat row for each target: medians over the slices, ratios and differences taken within each slice."""
    summary = []
    for name in names:

        def median(pick, rows=slices, name=name):
            return statistics.median(pick(r[name]) for r in rows)

        row = {"name": name}
        cpu = sorted(r[name]["closed"]["cpu_us_per_request"] for r in slices)
        row["cpu_us"] = statistics.median(cpu)
        row["cpu_us_low"], row["cpu_us_high"] = cpu[0], cpu[-1]
        row["user_share"] = median(lambda r: r["closed"]["user_share"])
        row["rps"] = median(lambda r: r["closed"]["rps"])
        row["core_busy"] = median(lambda r: r["closed"]["core_busy"])
        row["cpu_share"] = median(lambda r: r["closed"]["cpu_share"])
        row["foreign_share"] = 0 if name == "direct" else median(lambda r: r["closed"]["foreign_share"])
        row["stolen"] = median(lambda r: r["closed"]["core_stolen"])
        row["to_relay"] = ratio(slices, name, cpu_of("relay"))
        row["to_best_peer"] = ratio(slices, name, cpu_of_best_peer)
        row["cpu_us_at_rate"] = median(lambda r: r["open"]["cpu_us_per_request"])
        row["errors"] = sum(r[name]["closed"]["errors"] + r[name]["open"]["errors"] for r in slices)
        for key in LATENCIES:
            row[f"full_{key}"] = median(lambda r, k=key: r["closed"]["latency_us"][k])
            row[f"rate_{key}"] = median(lambda r, k=key: r["open"]["latency_us"][k])
            if "direct" in names:
                row[f"added_{key}"] = statistics.median(
                    r[name]["open"]["latency_us"][key] - r["direct"]["open"]["latency_us"][key] for r in slices)
        if name != "direct":
            row["errors"] += sum(r[name]["idle"]["errors"] + r[name]["idle"]["closed_by_server"] for r in memories)
            row["idle_bytes"] = median(lambda r: r["idle"]["bytes_per_connection"], memories)
            row["start_memory"] = median(lambda r: r["start_memory"], memories)
            row["memory_with_idle"] = median(lambda r: r["idle"]["memory_after"], memories)
        summary.append(row)
    return summary
