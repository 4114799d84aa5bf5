"""What script/chaos found, as Markdown and as a drawing of the time line."""

import html

from report import FONT, number, table, text

GOAL = 0.9999
FAILURES = ("error_status", "other_status", "refused", "broken", "timed_out")   # in the order of steady's slots, after ok


# --- the numbers -----------------------------------------------------------------------------------------------------


def out_shares(bursts, until_ms):
    """How much of the time 0, 1, 2, … of the endpoints were out."""
    edges = sorted([(b["from_ms"], 1) for endpoint in bursts for b in endpoint] +
                   [(min(b["until_ms"] or until_ms, until_ms), -1) for endpoint in bursts for b in endpoint])
    shares, out, last = [0.0] * (len(bursts) + 1), 0, 0
    for at, change in [*edges, (until_ms, 0)]:
        shares[out] += (at - last) / until_ms
        out, last = out + change, at
    return shares


def states(seen, ports):
    """[(seconds, [a word for each endpoint, empty: takes requests])], where a word changed."""
    changes, last = [], None
    for at, opinions in seen:
        words = [opinions[f"127.0.0.1:{port}"] for port in ports]
        if words != last:
            changes.append((round(at, 3), words))
            last = words
    return changes


# --- Markdown --------------------------------------------------------------------------------------------------------


def without_slots(results):
    """The figures without what happened when, which is a hundred times as much: that is in the drawing."""
    cases = [{k: v for k, v in case.items() if k not in ("slots", "loads", "bursts", "states")}
             for case in results.get("availability", [])]
    return {**results, "availability": cases} if cases else results


def percent(share, digits=4):
    return f"{100 * share:.{digits}f} %"


def availability_table(results, versions):
    header = (("", False), ("version", False), ("requests", True), ("failed", True), ("availability", True),
              ("error answers", True), ("refused", True), ("broken", True), ("timed out", True), ("p50 ms", True),
              ("p99 ms", True), ("p99.9 ms", True), ("longest ms", True), ("upstream requests a request", True))
    rows = []
    for r in results:
        latency = r["latency_us"]
        upstream = sum(slot[0] for load in r["loads"] for slot in load) / r["requests"]
        rows.append((r["name"], versions.get(r["name"], ""), number(r["requests"]), number(r["requests"] - r["ok"]),
                     percent(r["share_ok"]), number(r["error_status"] + r["other_status"]), number(r["refused"]),
                     number(r["broken"]), number(r["timed_out"]),
                     *(number(latency[key] / 1000, 1) for key in ("p50", "p99", "p999", "max")), number(upstream, 3)))
    return table(header, rows)


PROTOCOLS = {
    "http/1.1": ("HTTP/1.1", ""),
    "h2": ("HTTP/2", "Clients and endpoints speak HTTP/2 without TLS, by prior knowledge; nginx speaks HTTP/1.1 to its endpoints, "
                     "as it knows nothing else."),
    "grpc": ("gRPC", "Unary calls over HTTP/2 without TLS, each with an `idempotency-key` of its own, which says that it may be sent "
                     "again; one is served that gets its message back and `grpc-status` 0. Errors are UNAVAILABLE in an answer's "
                     "head, with HTTP status 200."),
}


def availability_lines(results, stem):
    options, cases = results["options"], results["availability"]
    by_name = {r["name"]: r for r in cases}
    ours = by_name["sallyport"]
    shares = out_shares(ours["bursts"], ours["seconds"] * 1000)
    kinds = {}
    for endpoint in ours["bursts"]:
        for burst in endpoint:
            kinds[burst["misbehave"]] = kinds.get(burst["misbehave"], 0) + 1
    late = sum(r["sent_late"] for r in cases) / sum(r["requests"] for r in cases)
    return [
        f"{options['seconds']:g} s at {options['rate']:,} requests/s in each case, which stand for "
        f"{options['seconds'] * options['scale'] / 3600:.1f} hours: bursts, ejections, open times and ramps are "
        f"{options['scale']:g} times shorter than they are meant to be. Each endpoint is out {percent(options['share'], 2)} "
        f"of the time, in bursts of {options['burst_ms']:g} ms in the mean before scaling, seed {options['seed']}: "
        + ", ".join(f"{n} × {kind}" for kind, n in sorted(kinds.items())) + ".", "",
        *availability_table(cases, results["versions"]), "",
        "One endpoint was out for " + percent(shares[1], 3) + " of the time"
        + "".join(f", {n} at once for {percent(share, 4)}" for n, share in enumerate(shares) if n > 1) + ".",
        f"Requests that this machine sent more than 20 ms late: {percent(late, 3)}.", "",
        "| figure | wanted | measured | |", "|---|---:|---:|---|",
        f"| straight to one endpoint | about {percent(1 - options['share'], 2)} | {percent(by_name['direct']['share_ok'])} | |",
        f"| through sallyport | at least {percent(GOAL, 2)} | {percent(ours['share_ok'])} | "
        f"{'reached' if ours['share_ok'] >= GOAL else '**not reached**'} |", "",
        f"![time line]({stem}.svg)", ""]


def isolation_lines(rows):
    lines = ["| figure | wanted | measured | |", "|---|---|---|---|"]
    for row in rows:
        verdict = "" if row["reached"] is None else "reached" if row["reached"] else "**not reached**"
        lines.append(f"| {row['figure']} | {row['wanted']} | {row['measured']} | {verdict} |")
    return [*lines, ""]


# A part's file, its title, and its lines: each can be measured again without the other.
PARTS = {"availability": ("chaos", "Availability while services fail", availability_lines),
         "isolation": ("isolation", "What a failing service does to others, and to itself",
                       lambda results, _: isolation_lines(results["isolation"]))}


def markdown(results, part, stem):
    protocol, words = PROTOCOLS[results["options"]["protocol"]]
    _, title, lines_of = PARTS[part]
    return "\n".join([
        f"# {title}, over {protocol}", "",
        "Measured by `script/chaos`; how to read it: [bench/README.md](../README.md). " + results["machine"] + ".", "",
        *([words, ""] if words else []), *lines_of(results, stem)])


# --- the drawing -----------------------------------------------------------------------------------------------------

LEFT, WIDTH, ROW, GAP = 150, 900, 26, 8
KIND_COLOURS = {"refuse": "#8250df", "hang": "#cf222e", "status": "#bf8700", "grpc_status": "#bf8700", "slow_head": "#0969da"}
STATE_COLOURS = {"down": "#57606a", "ejected": "#fa4549", "open": "#cf222e", "half-open": "#bf8700", "ramping": "#2da44e"}
OTHER = "#8c959f"


class Axis:
    """Seconds from `begin` to `end`, across the drawing."""

    def __init__(self, begin, end):
        self.begin, self.end = begin, end

    def x(self, at):
        return LEFT + WIDTH * (min(max(at, self.begin), self.end) - self.begin) / (self.end - self.begin)

    def box(self, begin, end, y, height, colour):
        if end <= self.begin or begin >= self.end:
            return ""
        width = max(self.x(end) - self.x(begin), 0.8)
        return f'<rect x="{self.x(begin):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'

    def columns(self, values, slot_s):
        """[(x, width, values of that column)]: as many slots in each as fit into a pixel."""
        first, last = int(self.begin / slot_s), min(int(self.end / slot_s) + 1, len(values))
        step = max(1, round((last - first) / WIDTH))
        for at in range(first, last, step):
            yield self.x(at * slot_s), max(WIDTH * step * slot_s / (self.end - self.begin), 0.8), values[at:at + step]


def bars(axis, y, slots, slot_s, share, colour):
    """share(slots of a column) → 0 to 1, the height."""
    out = [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{ROW}" fill="#f6f8fa"/>']
    for x, width, some in axis.columns(slots, slot_s):
        height = ROW * min(1.0, share(some))
        if height > 0:
            height, width = max(height, 1.0), min(width, LEFT + WIDTH - x)
            out.append(f'<rect x="{x:.1f}" y="{y + ROW - height:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')
    return out


def failed_share(slots):
    asked = sum(sum(slot[:-1]) for slot in slots)
    return 1 - sum(slot[0] for slot in slots) / asked if asked else 0


def state_boxes(axis, y, changes, endpoint, end):
    out = [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{ROW}" fill="#f6f8fa"/>']
    for (at, words), (until, _) in zip(changes, [*changes[1:], (end, None)]):
        if words[endpoint]:
            out.append(axis.box(at, until, y, ROW, STATE_COLOURS.get(words[endpoint], OTHER)))
    return out


def panel(y, title, axis, cases, end):
    """Rows, top to bottom: outages, what failed, what sallyport thought, what its endpoints were asked."""
    ours = next(r for r in cases if r["name"] == "sallyport")
    out = [text(LEFT, y, title, 14, weight="bold")]
    y += 12

    def row(name, drawn):
        nonlocal y
        out.append(text(LEFT - 8, y + ROW - 8, name, 11, "end"))
        out.extend(drawn)
        y += ROW + GAP

    for i, endpoint in enumerate(ours["bursts"]):
        row(f"endpoint {i + 1} is out",
            [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{ROW}" fill="#f6f8fa"/>'] +
            [axis.box(b["from_ms"] / 1000, (b["until_ms"] or end * 1000) / 1000, y, ROW, KIND_COLOURS.get(b["misbehave"], OTHER))
             for b in endpoint])
    for case in cases:
        row(f"failed: {case['name']}", bars(axis, y, case["slots"], case["slot_ms"] / 1000, failed_share, "#1f2328"))
    for i in range(len(ours["bursts"])):
        row(f"sallyport on {i + 1}", state_boxes(axis, y, ours["states"], i, end))
    most = max(1, max(slot[0] for load in ours["loads"] for slot in load))
    for i, load in enumerate(ours["loads"]):
        row(f"asked of {i + 1}", bars(axis, y, load, 0.1, lambda some: sum(s[0] for s in some) / len(some) / most, "#6e7781"))
    for n in range(7):
        at = axis.begin + (axis.end - axis.begin) * n / 6
        out.append(text(axis.x(at), y + 6, f"{at:.1f} s", 10, "middle", colour="#59636e"))
    return out, y + 34


def legend(y):
    out, x = [], LEFT
    for colours in (KIND_COLOURS, STATE_COLOURS):
        for name, colour in colours.items():
            out.append(f'<rect x="{x}" y="{y - 9}" width="11" height="11" fill="{colour}"/>')
            out.append(text(x + 15, y, name, 11))
            x += 30 + 7 * len(name)
        x += 30
    return out


def busiest(cases, end, length):
    """The window of that length with most outages in it."""
    bursts = [(b["from_ms"] / 1000, (b["until_ms"] or end * 1000) / 1000)
              for endpoint in next(r for r in cases if r["name"] == "sallyport")["bursts"] for b in endpoint]
    begins = [max(0.0, min(begin - length / 8, end - length)) for begin, _ in bursts] or [0.0]
    return max(begins, key=lambda at: sum(max(0.0, min(e, at + length) - max(b, at)) for b, e in bursts))


def drawing(results):
    cases, options = results["availability"], results["options"]
    end = options["seconds"]
    length = min(end, 3.0)
    at = busiest(cases, end, length)
    parts, y = panel(84, "The whole run", Axis(0, end), cases, end)
    drawn, y = panel(y + 10, f"{length:g} s of it", Axis(at, at + length), cases, end)
    whole = LEFT + WIDTH + 30
    title = "Services that fail, and what clients saw of it"
    note = (f"black: the share of requests that failed; grey below: requests to each endpoint; {options['rate']:,} requests/s, "
            f"one second stands for {options['scale']:g}")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {y:.0f}" width="{whole}" height="{y:.0f}" {FONT}>',
        f"<title>{html.escape(title)}</title>", f'<rect width="{whole}" height="{y:.0f}" fill="#ffffff"/>',
        text(16, 24, title, 17, weight="bold"), text(16, 42, note, 11, colour="#59636e"), *legend(62), *parts, *drawn,
        "</svg>", ""])
