"""The gateway's own figures: routes, scale, reload, syscalls, heap. Each returns (results, lines of Markdown)."""

import mmap
import os
import re
import signal
import statistics
import struct
import time

import targets
from harness import LOAD_CORE, PROXY_CORE, BenchError, Client, CpuSample, Load, process_tree
from sidebyside import measure_saturated

GATEWAY = "sallyport"


def template():
    return targets.template(targets.TARGETS[GATEWAY])


def many_routes(count, generation=None):
    """The routes section for `count` prefixes, and one that answers with its generation."""
    lines = [
        f"  - {{ name: r{i:05}, upstream: origin, "
        f"match: {{ hosts: [api.example.com], path: {{ prefix: /r{i:05} }} }} }}\n"
        for i in range(count)
    ]
    if generation is not None:
        lines.append('  - { name: generation, match: { path: { exact: /generation } }, '
                     f'respond: {{ status: 200, body: "{generation}" }} }}\n')
    return "".join(lines)


def config_with(count, generation=None):
    return template().replace("@ROUTES@", many_routes(count, generation))


def verdict(measured, limit, less=True):
    return "reached" if (measured <= limit if less else measured >= limit) else "**not reached**"


# --- routes ----------------------------------------------------------------------------------------------------------


def routes(session, names, options, say):
    """10 routes against 10,000: the CPU time of a request whose path is another route's each time."""
    del names
    origin, port = targets.start_origin(session)
    cases = (("10 routes", 10, 10), ("10,000 routes, 10 in use", 10000, 10), ("10,000 routes", 10000, 10000))
    cpu = {name: [] for name, _, _ in cases}
    for number in range(options.rounds):
        started = [targets.start(session, GATEWAY, [port], config_text=config_with(count)) for _, count, _ in cases]
        for part in range(options.slices):
            for (name, _, spread), running in zip(cases, started):
                result = measure_saturated(session, running.port, running.pid, [
                    "--seconds", str(options.seconds), "--warmup", "0.3", "--connections", str(options.connections),
                    "--path", "/r@/orders/1842?expand=items", "--spread", str(spread)])
                if result["errors"]:
                    raise BenchError(f"{result['errors']} errors with {name}")
                cpu[name].append(result["cpu_us_per_request"])
                say(f"round {number + 1}/{options.rounds}, slice {part + 1}/{options.slices} {name:25} "
                    f"{result['cpu_us_per_request']:6.2f} us/request {result['rps']:8.0f} requests/s  "
                    f"core {100 * result['core_busy']:3.0f} % busy")
        for running in started:
            targets.stop(session, running)
    session.stop(origin)
    base = cpu["10 routes"]
    rows = []
    for name, _, _ in cases:
        more = statistics.median(mine / ten - 1 for mine, ten in zip(cpu[name], base))
        rows.append({"case": name, "cpu_us": statistics.median(cpu[name]), "more": more, "all": cpu[name]})
    cost = rows[-1]["more"]
    lines = [
        "Each request's path belongs to another route, chosen at random, so the table is walked and not only cached.",
        "",
        "| routes | CPU µs a request | more than 10 routes |",
        "|---|---:|---:|",
        *(f"| {r['case']} | {r['cpu_us']:.2f} | {100 * r['more']:+.1f} % |" for r in rows),
        "",
        f"Figure to reach: 10,000 routes cost at most 3 % more than 10. Measured {100 * cost:+.1f} %: "
        f"{verdict(cost, 0.03)}.",
    ]
    return {"cases": rows}, lines


# --- scale -----------------------------------------------------------------------------------------------------------


def measure_pair(session, running, options, connections, load_args):
    """Two loads at once, one on each core, against one gateway."""
    args = ["--gate", "--seconds", str(options.seconds), "--warmup", "0.3", "--connections", str(connections),
            *load_args]
    loads = [Load(session, running.port, args, cores=(core,)) for core in (PROXY_CORE, LOAD_CORE)]
    for load in loads:
        load.event("ready")
    before = CpuSample(running.pid)
    for load in loads:
        load.go()
    results = [load.event("result") for load in loads]
    used = CpuSample(running.pid).since(before)
    for load in loads:
        load.end()
    requests = sum(r["requests"] for r in results)
    used["requests"] = requests
    used["errors"] = sum(r["errors"] for r in results)
    used["rps"] = sum(r["rps"] for r in results)
    used["cpu_us_per_request"] = used["cpu_ns"] / 1000.0 / max(1, requests)
    used["per_cpu_second"] = 1e9 * requests / max(1, used["cpu_ns"])
    return used


SCALE_CASES = (("1 worker on core 0", 1, (PROXY_CORE,)), ("2 workers on cores 0 and 1", 2, (PROXY_CORE, LOAD_CORE)))


def measure_scale(session, options, say, unit="request", mode="plain", load_args=()):
    """1 worker on 1 core and 2 workers on 2 cores, in turn: (one, two, gains), a row and a gain for each slice."""
    origins = [targets.start_origin(session, core) for core in (PROXY_CORE, LOAD_CORE)]
    ports = [port for _, port in origins]
    rows = {name: [] for name, _, _ in SCALE_CASES}
    for number in range(options.rounds):
        started = [targets.start(session, GATEWAY, ports, mode, cores, workers) for _, workers, cores in SCALE_CASES]
        for part in range(options.slices):
            for (name, workers, _), running in zip(SCALE_CASES, started):
                result = measure_pair(session, running, options, options.connections * workers // 2, load_args)
                if result["errors"]:
                    raise BenchError(f"{result['errors']} errors with {name}")
                rows[name].append(result)
                split = "/".join(f"{ns / result['cpu_ns']:.0%}" for ns in result["cpu_ns_by_task"][:workers])
                say(f"round {number + 1}/{options.rounds}, slice {part + 1}/{options.slices} {name:28} "
                    f"{result['cpu_us_per_request']:6.2f} us/{unit} {result['rps']:8.0f} {unit}s/s  "
                    f"CPU by thread {split}")
        for running in started:
            targets.stop(session, running)
    for program, _ in origins:
        session.stop(program)
    one, two = rows.values()
    return one, two, [2 * b["per_cpu_second"] / a["per_cpu_second"] for a, b in zip(one, two)]


def scale_table(one, two, unit="request"):
    lines = [
        f"| gateway | CPU µs a {unit} | {unit}s for a CPU second | capacity on its cores |",
        "|---|---:|---:|---:|",
    ]
    for (name, workers, _), results in zip(SCALE_CASES, (one, two)):
        cpu = statistics.median(r["cpu_us_per_request"] for r in results)
        each = statistics.median(r["per_cpu_second"] for r in results)
        lines.append(f"| {name} | {cpu:.2f} | {each:,.0f} | {each * workers:,.0f}/s |")
    return lines


def scale(session, names, options, say):
    """Requests for a second of the gateway's CPU: 1 worker on 1 core, 2 workers on 2 cores."""
    del names
    one, two, gains = measure_scale(session, options, say)
    gain = statistics.median(gains)
    lines = [
        "Load and origin need the same two cores, so plain requests a second would measure them too. What is measured "
        "is the gateway's own CPU time: a load and an origin run on each core in both cases, connections per worker "
        "are the same, and requests are divided by the CPU seconds the gateway's processes used. Two workers that "
        "share nothing serve twice the requests of one, as they may use twice the CPU; what they lose to shared cache "
        "lines and locks shows as more CPU time for each request.",
        "",
        *scale_table(one, two),
        "",
        f"Figure to reach: 2 workers serve at least 1.8 × the requests of one. Measured {gain:.2f} ×: "
        f"{verdict(gain, 1.8, less=False)}.",
    ]
    return {"one": one, "two": two, "gains": gains, "gain": gain}, lines


# --- reload ----------------------------------------------------------------------------------------------------------


def write_whole(path, text):
    """As an editor or a configuration tool does: a new file moved over the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class Asker:
    """Asks which generation of the configuration is served, over one connection as long as that lives."""

    def __init__(self, port):
        self.port = port
        self.client = Client(port)
        self.lost = 0

    def generation(self):
        try:
            _, body = self.client.get("/generation")
            return body.strip()
        except OSError:
            self.lost += 1
            self.client.close()
            self.client = Client(self.port)
            return b""


def wait_generation(asker, wanted, limit_s=10.0):
    """Asks through the data path until the answer is the new generation's; seconds until then."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit_s:
        if asker.generation() == wanted.encode():
            return time.monotonic() - begin
        time.sleep(0.001)
    raise BenchError(f"the configuration of generation {wanted} is not served after {limit_s:.0f} s")


def reload(session, names, options, say):
    """Start to ready; reload of 10,000 routes by HUP under a light load; the longest pause it causes."""
    del names
    both = (PROXY_CORE, LOAD_CORE)
    origin, port = targets.start_origin(session)
    starts = {}
    for count in (10, 10000):
        starts[count] = []
        for _ in range(max(3, options.rounds)):
            running = targets.start(session, GATEWAY, [port], cores=both, config_text=config_with(count, 0),
                                    pause_s=0.0005)
            starts[count].append(running.ready_s * 1000)
            targets.stop(session, running)
        say(f"start to ready with {count} routes: {statistics.median(starts[count]):.1f} ms")

    running = targets.start(session, GATEWAY, [port], cores=both, config_text=config_with(10000, 0))
    reloads = 3 if options.quick else 10
    gap_s = 0.7
    args = ["--gate", "--rate", "1000", "--connections", "16", "--warmup", "0.5", "--path", "/r@/orders/1842",
            "--spread", "10000", "--seconds", str(reloads * gap_s + 1)]
    texts = [targets.fill(config_with(10000, n), running.values) for n in range(1, reloads + 1)]
    outcome = {}
    took = []
    try:
        asker = Asker(running.port)
        for case in ("without reloads", "with reloads"):
            load = Load(session, running.port, args)
            load.event("ready")
            load.go()
            if case == "with reloads":
                load_ends = time.monotonic() + reloads * gap_s
                time.sleep(0.3)
                for number, text in enumerate(texts, start=1):
                    if time.monotonic() > load_ends:
                        break  # reloads slower than the distance between them: the rest would meet no load
                    write_whole(running.config, text)
                    next_at = time.monotonic() + gap_s
                    os.kill(running.pid, signal.SIGHUP)
                    took.append(1000 * wait_generation(asker, str(number)))
                    time.sleep(max(0.0, next_at - time.monotonic()))
            outcome[case] = load.event("result")
            load.end()
            say(f"{case}: {outcome[case]['errors']} errors, p50 {outcome[case]['latency_us']['p50']:.0f} us, p99.9 "
                f"{outcome[case]['latency_us']['p999']:.0f} us, longest {outcome[case]['latency_us']['max']:.0f} us")
        asker.client.close()
    finally:
        targets.stop(session, running)
        session.stop(origin)
    say(f"reload of 10,000 routes: median {statistics.median(took):.0f} ms, longest {max(took):.0f} ms")
    pause_ms = outcome["with reloads"]["latency_us"]["max"] / 1000
    closed = asker.lost + outcome["with reloads"]["reconnects"]
    start_ms = statistics.median(starts[10])
    reload_ms = statistics.median(took)
    lines = [
        f"The configuration file is replaced and HUP sent {len(took)} times; a reload has ended when a request through "
        "the data path is answered by the new configuration. Meanwhile 1,000 requests a second are due at even "
        "distances, each on another of the 10,000 routes; a request's latency is counted from when it was due, so the "
        "longest one is the longest pause. The same load without reloads shows what the machine itself does. The "
        "gateway may use both cores, as in ordinary service; the load and the origin have core 1.",
        "",
        "| what | measured | figure to reach | |",
        "|---|---:|---:|---|",
        f"| start to ready, 10 routes | {start_ms:.1f} ms | 100 ms | {verdict(start_ms, 100)} |",
        f"| start to ready, 10,000 routes | {statistics.median(starts[10000]):.1f} ms | | |",
        f"| reload of 10,000 routes, median | {reload_ms:.0f} ms | 300 ms | {verdict(reload_ms, 300)} |",
        f"| reload of 10,000 routes, longest | {max(took):.0f} ms | 300 ms | {verdict(max(took), 300)} |",
        f"| longest pause with reloads | {pause_ms:.2f} ms | 5 ms | {verdict(pause_ms, 5)} |",
        f"| longest pause without | {outcome['without reloads']['latency_us']['max'] / 1000:.2f} ms | | |",
        f"| requests lost or not answered with 2xx | {outcome['with reloads']['errors']} | 0 | "
        f"{verdict(outcome['with reloads']['errors'], 0)} |",
        f"| idle connections closed | {closed} | 0 | {verdict(closed, 0)} |",
    ]
    return {"start_ms": starts, "reload_ms": took, "load": outcome, "closed": closed}, lines


# --- syscalls --------------------------------------------------------------------------------------------------------

RECV_CALLS = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "splice")
SEND_CALLS = ("write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile")


def traced(pids):
    """True when every task of the processes has a tracer."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as f:
                if "TracerPid:\t0\n" in f.read():
                    return False
    return True


def gated_load(session, running, over, connections, warmup, requests):
    """A load whose connections are open and warm, and that waits for its go."""
    tool, more = targets.LOADS[over]
    load = Load(session, running.port, ["--gate", "--connections", str(connections), "--warmup", str(warmup),
                                        "--requests", str(requests), *more], tool=tool)
    load.event("ready")
    return load


def strace_run(session, running, over, requests, arguments, output):
    """Traces the running program while it serves `requests` requests on 16 warm connections."""
    load = gated_load(session, running, over, 16, 0.3, requests)
    pids = list(process_tree(running.pid))
    argv = ["strace", "-f", *arguments, "-o", output]
    for pid in pids:
        argv += ["-p", str(pid)]
    tracer = session.start("strace", argv, {LOAD_CORE})
    end = time.monotonic() + 10
    while not traced(pids):
        if not tracer.alive() or time.monotonic() > end:
            raise BenchError(f"strace cannot attach: {tracer.words()}")
        time.sleep(0.01)
    load.go()
    result = load.event("result")
    os.kill(tracer.pid, signal.SIGINT)
    tracer.process.wait(timeout=20)
    session.programs.remove(tracer)
    load.end()
    if result["errors"]:
        raise BenchError(f"{result['errors']} errors while traced")
    return result


def read_counts(path):
    """{system call: count} of strace -c."""
    counts = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and re.fullmatch(r"[\d.]+", words[0]) and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts


def read_sockets(path):
    """{(system call, kind of descriptor): count} of strace -y."""
    counts = {}
    for line in path.read_text(errors="replace").splitlines():
        match = re.match(r"\d+ +(\w+)\(\d+<([^>\[]*)", line)
        if match:
            name, what = match.groups()
            kind = "socket" if what.startswith(("socket:", "TCP", "UNIX")) else what.split("/")[-1].rstrip(":") or "?"
            counts[(name, kind)] = counts.get((name, kind), 0) + 1
    return counts


def syscalls(session, names, options, say):
    """System calls a request on warm connections, as strace counts them."""
    requests = 2000 if options.quick else 20000
    origin, port = targets.start_origin(session, mode=options.over)
    results = {}
    lines = [
        f"`strace -f -c` around {requests:,} requests on 16 kept-alive connections that were open and warm before "
        f"({targets.MODES[options.over]}), and a second run with `strace -f -y` that tells sockets from other descriptors.",
    ]
    for name in names:
        running = targets.start(session, name, [port], options.over)
        try:
            path = running.dir / "strace"
            strace_run(session, running, options.over, requests, ["-c"], path)
            counts = read_counts(path)
            strace_run(session, running, options.over, requests // 4, ["-y"], path)
            by_kind = read_sockets(path)
        finally:
            targets.stop(session, running)
        received = sum(n for (call, kind), n in by_kind.items() if kind == "socket" and call in RECV_CALLS)
        sent = sum(n for (call, kind), n in by_kind.items() if kind == "socket" and call in SEND_CALLS)
        data = (received + sent) * 4 / requests
        results[name] = {"requests": requests, "counts": counts, "data": data,
                         "by_kind": {f"{call} {kind}": n for (call, kind), n in by_kind.items()}}
        say(f"{name}: {data:.3f} data system calls a request on sockets, {sum(counts.values()) / requests:.3f} of all "
            "kinds")
        lines += [
            "",
            f"### {name}",
            "",
            f"Data system calls on sockets a request: **{data:.3f}** ({received * 4 / requests:.3f} in, "
            f"{sent * 4 / requests:.3f} out)" + (f"; figure to reach: exactly 4: {verdict(abs(data - 4), 0.01)}."
                                                 if name == GATEWAY and options.over == "plain" else "."),
            "",
            "| system call | calls | a request |",
            "|---|---:|---:|",
            *(f"| {call} | {n:,} | {n / requests:.4f} |" for call, n in sorted(counts.items(), key=lambda x: -x[1])),
        ]
    session.stop(origin)
    return results, lines


# --- heap ------------------------------------------------------------------------------------------------------------

HEAP_DOORS = ("malloc", "calloc", "realloc", "aligned", "free")


def heap(session, names, options, say):
    """Heap calls a request on warm connections, as an LD_PRELOADed counter sees them."""
    requests = 20000 if options.quick else 200000
    origin, port = targets.start_origin(session, mode=options.over)
    results = {}
    lines = [
        f"`allocs.so` is preloaded into the program and counts every malloc, calloc, realloc, aligned allocation and "
        f"free of all its processes in shared memory, read before and after {requests:,} requests on 64 connections "
        f"that were open and warm before ({targets.MODES[options.over]}).",
        "",
        "| program | requests | " + " | ".join(HEAP_DOORS) + " | allocations a request |",
        "|---|---:|" + "---:|" * (len(HEAP_DOORS) + 1),
    ]
    for name in names:
        path = session.dir / f"allocs.{name}"
        path.write_bytes(bytes(8 * len(HEAP_DOORS)))
        running = targets.start(session, name, [port], options.over, env={
            "LD_PRELOAD": str(session.tool("allocs.so")), "ALLOCS_FILE": str(path)})
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 8 * len(HEAP_DOORS), access=mmap.ACCESS_READ) as counters:
            try:
                if not any(counters[:]):
                    raise BenchError(f"{name} makes no heap call at all before it is ready: it is not being counted")
                load = gated_load(session, running, options.over, 64, 0.7, requests)
                before = struct.unpack(f"={len(HEAP_DOORS)}Q", counters[:])
                load.go()
                result = load.event("result")
                after = struct.unpack(f"={len(HEAP_DOORS)}Q", counters[:])
                load.end()
            finally:
                targets.stop(session, running)
        if result["errors"]:
            raise BenchError(f"{result['errors']} errors with {name}")
        made = [b - a for a, b in zip(before, after)]
        each = sum(made[:4]) / requests
        results[name] = {"requests": requests, **dict(zip(HEAP_DOORS, made)), "per_request": each}
        say(f"{name}: {sum(made[:4])} allocations and {made[4]} frees for {requests} requests")
        lines.append(f"| {name} | {requests:,} | " + " | ".join(f"{n:,}" for n in made) + f" | {each:.5f} |")
    session.stop(origin)
    if GATEWAY in results:
        each = results[GATEWAY]["per_request"]
        lines += ["", f"Figure to reach: no allocation from the heap on the steady path. Measured {each:.5f} a "
                      f"request: {verdict(each, 0.0001)}."]
    return results, lines
