#!/usr/bin/python3
"""script/bench: measures, then writes bench/results/MODE.md, .json and, for comparisons, .svg. See bench/README.md."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import breaking
import checks
import full
import limits
import report
import series
import sidebyside
import targets
from harness import LOAD_CORE, PROXY_CORE, BenchError, Session

ROOT = Path(__file__).resolve().parent.parent


INTRO = ("Every program in turn in one run, on core 0 with one worker; load, origin and log server on core 1. Medians "
         "of many short slices; ratios are taken between neighbours in time. How to read this: "
         "[bench/README.md](../README.md).")


class Comparison:
    """Peers side by side, over plain HTTP/1.1."""

    def __init__(self, title):
        self.title = title
        self.default = list(targets.TARGETS)

    def run(self, session, names, options, say):
        slices, memories = sidebyside.run(session, names, options, say)
        summary = sidebyside.summarise(slices, memories, names)
        versions = {name: targets.TARGETS[name].version(session) for name in names}
        text = report.markdown(self.title, INTRO, summary, versions, options, machine(options))
        results = {"summary": summary, "versions": versions, "slices": slices, "memories": memories}
        return results, text, report.svg(self.title, summary, options)


class SeriesComparison:
    """Peers side by side under several kinds of load, those that can be configured for `config`."""

    def __init__(self, title, function, config):
        self.title = title
        self.function = function
        self.default = [name for name, target in targets.TARGETS.items() if config in target.modes]

    def run(self, session, names, options, say):
        unfit = [name for name in names if name not in self.default]
        if unfit:
            raise BenchError(f"this mode measures {', '.join(self.default)}, not {', '.join(unfit)}")
        results, lines, panels = self.function(session, names, options, say)
        text = "\n".join([f"# {self.title}", "", INTRO, "", *machine(options), "", *lines])
        return results, text, series.plot(self.title, panels)


class Check:
    """A figure of the gateway's own. `others`: the measure makes sense for the peers too, with --only."""

    def __init__(self, title, function, others=False):
        self.title = title
        self.function = function
        self.others = others
        self.default = [checks.GATEWAY]

    def run(self, session, names, options, say):
        unfit = [name for name in names if options.over not in targets.TARGETS[name].modes]
        if unfit:
            raise BenchError(f"no configuration for {options.over}: {', '.join(unfit)}")
        if not self.others and names != [checks.GATEWAY]:
            raise BenchError(f"this mode measures {checks.GATEWAY} only")
        results, lines = self.function(session, names, options, say)
        return results, "\n".join([f"# {self.title}", "", *lines, "", *machine(options), ""]), None


MODES = {
    "plain": Comparison("HTTP/1.1 without TLS: sallyport and its peers"),
    "tls": SeriesComparison("HTTP/1.1 over TLS: sallyport and its peers", series.tls, "tls"),
    "h2": SeriesComparison("HTTP/2 and gRPC: sallyport and its peers", series.h2, "h2"),
    "full": SeriesComparison("Callers known, told and limited: sallyport and its peers", full.full, "full"),
    "limits": SeriesComparison("Rate limits: sallyport and its peers", limits.limits, "address"),
    "breaking": Check("What breaker, ejection and retries cost, and an answer at once", breaking.breaking),
    "routes": Check("10 routes and 10,000", checks.routes),
    "scale": Check("One worker and two", checks.scale),
    "reload": Check("Start and reload", checks.reload),
    "syscalls": Check("System calls a request", checks.syscalls, others=True),
    "heap": Check("Heap allocations a request", checks.heap, others=True),
}


def machine(options):
    """What it was measured on, in a sentence."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return [f"{time.strftime('%Y-%m-%d')}, {model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}; "
            f"{options.rounds} starts of each program, {options.slices} slices of {options.seconds:g} s after each."]


def options_read(argv):
    parser = argparse.ArgumentParser(prog="script/bench", description="Measures sallyport beside its peers.")
    parser.add_argument("--mode", default="plain", metavar="NAME,...", help="of " + ", ".join(MODES) + "; or all")
    parser.add_argument("--rounds", type=int, help="how often each program is started (3)")
    parser.add_argument("--slices", type=int, help="measured runs of each after each start (5)")
    parser.add_argument("--seconds", type=float, help="length of one (1)")
    parser.add_argument("--only", metavar="NAME,...", help="of " + ", ".join(targets.TARGETS))
    parser.add_argument("--connections", type=int, default=64, help="kept-alive connections of the load (64)")
    parser.add_argument("--rate", type=int, default=10000, help="requests a second of the open loop (10000)")
    parser.add_argument("--idle", type=int, help="idle connections (5000)")
    parser.add_argument("--over", default="plain", choices=targets.LOADS, help="for syscalls and heap (plain)")
    parser.add_argument("--quick", action="store_true", help="1 round of 1 slice, 1000 idle: to see that it works")
    parser.add_argument("--out", default=ROOT / "bench" / "results", type=Path, help="where results go (bench/results)")
    parser.add_argument("--build", default=ROOT / "build", type=Path, help="where the programs are (build)")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.slices = options.slices or (1 if options.quick else 5)
    options.seconds = options.seconds or 1.0
    options.idle = options.idle or (1000 if options.quick else 5000)
    modes = list(MODES) if options.mode == "all" else options.mode.split(",")
    for mode in modes:
        if mode not in MODES:
            parser.error(f"no mode '{mode}': there are {', '.join(MODES)}")
        if options.over != "plain" and not getattr(MODES[mode], "others", False):
            parser.error(f"mode '{mode}' knows no --over")
    for name in options.only.split(",") if options.only else []:
        if name not in targets.TARGETS:
            parser.error(f"no target '{name}': there are {', '.join(targets.TARGETS)}")
    return options, modes


def chosen(session, mode, options, say):
    """The targets to measure: those asked for, or the mode's own; what is not installed is left out, and said."""
    names = []
    for name in options.only.split(",") if options.only else mode.default:
        if targets.TARGETS[name].available(session):
            names.append(name)
        else:
            say(f"{name}: not installed, left out")
    if not names:
        raise BenchError("nothing to measure")
    return names


def say(words):
    print(words, file=sys.stderr, flush=True)


def run_mode(session, name, options):
    mode = MODES[name]
    say(f"== {name}: {mode.title}")
    names = chosen(session, mode, options, say)
    results, text, plot = mode.run(session, names, options, say)
    file = name if options.over == "plain" else f"{name}-{options.over}"
    options.out.mkdir(parents=True, exist_ok=True)
    results["options"] = {key: str(value) if isinstance(value, Path) else value
                          for key, value in vars(options).items() if key not in ("out", "build")}
    (options.out / f"{file}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (options.out / f"{file}.md").write_text(text)
    if plot:
        (options.out / f"{file}.svg").write_text(plot)
    print(text)


def main():
    options, modes = options_read(sys.argv[1:])
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        say("script/bench: needs cores 0 and 1 for itself")
        return 1
    options.build = options.build.resolve()
    options.out = options.out.resolve()
    try:
        with Session(options.build) as session:
            for name in modes:
                run_mode(session, name, options)
    except (BenchError, OSError, subprocess.SubprocessError) as e:
        say(f"script/bench: {e}")
        return 1
    except KeyboardInterrupt:
        say("script/bench: interrupted; everything started is stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
