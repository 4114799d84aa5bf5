"""The comparison's results as a Markdown table and an SVG plot."""

import html
import statistics

import sidebyside


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def table(header, rows):
    """header: (title, right aligned?) pairs; the gateway's row is set in bold."""
    lines = ["| " + " | ".join(title for title, _ in header) + " |",
             "|" + "|".join("---:" if right else "---" for _, right in header) + "|"]
    for row in rows:
        cells = [f"**{cell}**" if row[0] == "sallyport" and cell else cell for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cpu_table(summary, versions):
    header = (("", False), ("version", False), ("CPU µs a request", True), ("lowest–highest", True),
              ("× relay", True), ("× better of nginx, haproxy", True), ("requests/s", True), ("p50 ms", True), ("p99 ms", True),
              ("p99.9 ms", True), ("core 0 busy", True), ("errors", True))
    rows = []
    for r in summary:
        direct = r["name"] == "direct"
        rows.append((
            r["name"], versions.get(r["name"], ""), "" if direct else number(r["cpu_us"], 2),
            "" if direct else f"{r['cpu_us_low']:.2f}–{r['cpu_us_high']:.2f}",
            "" if direct else number(r["to_relay"], 2), "" if direct else number(r["to_best_peer"], 2),
            number(r["rps"]), number(r["full_p50"] / 1000, 2), number(r["full_p99"] / 1000, 2),
            number(r["full_p999"] / 1000, 2), "" if direct else f"{100 * r['core_busy']:.0f} %", str(r["errors"])))
    return table(header, rows)


def latency_table(summary):
    header = (("", False), ("p50 µs", True), ("p99 µs", True), ("p99.9 µs", True), ("added p50", True),
              ("added p99", True), ("added p99.9", True), ("CPU µs a request", True))
    rows = []
    for r in summary:
        direct = r["name"] == "direct"
        added = [None if direct else r.get(f"added_{key}") for key in ("p50", "p99", "p999")]
        rows.append((r["name"], number(r["rate_p50"]), number(r["rate_p99"]), number(r["rate_p999"]),
                     *(number(a) for a in added), "" if direct else number(r["cpu_us_at_rate"], 2)))
    return table(header, rows)


def memory_table(summary):
    mib = 1024 * 1024
    header = (("", False), ("bytes an idle connection", True), ("at start, MiB", True), ("with all of them, MiB", True))
    rows = [(r["name"], number(r["idle_bytes"]), number(r["start_memory"] / mib, 1),
             number(r["memory_with_idle"] / mib, 1)) for r in summary if r["name"] != "direct"]
    return table(header, rows)


def figures(summary):
    """What was to be reached, where the gateway was measured."""
    row = next((r for r in summary if r["name"] == "sallyport"), None)
    if row is None:
        return []
    wanted = (
        ("CPU a request, × better of nginx and haproxy", row["to_best_peer"], 0.90, 2),
        ("CPU a request, × byte relay", row["to_relay"], 1.20, 2),
        ("added latency at the fixed rate, p99 µs", row.get("added_p99"), 1000, 0),
        ("memory of an idle connection, bytes", row["idle_bytes"], 600, 0),
        ("errors", row["errors"], 0, 0),
    )
    lines = ["## Figures to reach", "", "| figure | at most | measured | |", "|---|---:|---:|---|"]
    for what, measured, limit, digits in wanted:
        if measured is not None:
            word = "reached" if measured <= limit else "**not reached**"
            lines.append(f"| {what} | {number(limit, digits)} | {number(measured, digits)} | {word} |")
    return lines + [""]


def markdown(title, intro, summary, versions, options, machine):
    lines = [f"# {title}", "", intro, "", *machine, ""]
    lines += figures(summary)
    lines += ["## CPU time a request, core saturated", "",
              f"{options.connections} kept-alive connections, each with its next request as soon as the last is "
              "answered. Latencies here are those of a full queue.", "", *cpu_table(summary, versions), ""]
    lines += [f"## Latency at {options.rate:,} requests a second", "",
              "Counted from when each request was due. “Added” is the difference to direct in the same slice.", "",
              *latency_table(summary), ""]
    lines += [f"## Memory of {options.idle:,} idle connections", "",
              "Process memory; the kernel's sockets are not in it. The last two columns are the whole resident size.", "",
              *memory_table(summary), ""]
    noisy = [r["name"] for r in summary if max(r["foreign_share"], r["stolen"]) > sidebyside.NOISE_SHARE]
    if noisy:
        lines += [f"Noise: others used or were given the core of {', '.join(noisy)}; to be measured again on a quiet "
                  "machine.", ""]
    return "\n".join(lines)


# --- the plot --------------------------------------------------------------------------------------------------------

FONT = "font-family=\"system-ui, 'DejaVu Sans', sans-serif\""
BAR, GAP, LEFT, PLOT, RIGHT = 18, 8, 84, 250, 96
COLOURS = {"sallyport": "#1f6feb", "relay": "#8c959f", "direct": "#8c959f"}
OTHER = "#b6c2cf"
CUT_ABOVE = 3  # times the middle bar


def text(x, y, words, size=12, anchor="start", weight="normal", colour="#1f2328"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{colour}" stroke="#ffffff" stroke-width="3" paint-order="stroke">{html.escape(words)}</text>')


def nice_step(top):
    """A round distance for grid lines: three to six of them."""
    size = 1.0
    while size * 10 <= top:
        size *= 10
    while size > top:
        size /= 10
    for factor in (0.2, 0.5, 1, 2):
        if top / (size * factor) <= 6:
            return size * factor
    return size * 2


def panel(x, y, title, unit, rows, digits, mark=None):
    """
    Horizontal bars: rows of (name, value, value of a fainter longer bar or None, words at the end). A bar far longer
    than the others is cut, with a gap near its end to show it, so that it does not flatten them.
    """
    lengths = [max(v, more or 0) for _, v, more, _ in rows]
    top = min(max(lengths), CUT_ABOVE * statistics.median(lengths))
    top = max(top, mark[0] if mark else 0, 1e-9) * 1.02
    height = len(rows) * (BAR + GAP)
    out = [text(x, y, title, 14, weight="bold"), text(x, y + 17, unit, 11, colour="#59636e")]
    y += 30
    left = x + LEFT
    step = nice_step(top)
    line = 0.0
    while line <= top:
        at = left + PLOT * line / top
        out.append(f'<line x1="{at:.1f}" y1="{y}" x2="{at:.1f}" y2="{y + height}" stroke="#d1d9e0"/>')
        out.append(text(at, y + height + 15, f"{line:,.{digits}f}" if step < 1 else f"{line:,.0f}", 10, "middle",
                        colour="#59636e"))
        line += step
    for i, (name, value, more, words) in enumerate(rows):
        top_y = y + i * (BAR + GAP) + GAP / 2
        colour = COLOURS.get(name, OTHER)
        bold = "bold" if name == "sallyport" else "normal"
        out.append(text(left - 8, top_y + BAR - 5, name, 12, "end", bold))
        if more is not None:
            out.append(f'<rect x="{left}" y="{top_y + 4:.1f}" width="{PLOT * min(max(more, 0), top) / top:.1f}" '
                       f'height="{BAR - 8}" fill="{colour}" opacity="0.45"/>')
        out.append(f'<rect x="{left}" y="{top_y:.1f}" width="{PLOT * min(max(value, 0), top) / top:.1f}" '
                   f'height="{BAR}" fill="{colour}"/>')
        if lengths[i] > top:
            out.append(f'<path d="M{left + PLOT - 14} {top_y + BAR + 2:.1f} l6 -{BAR + 4}" stroke="#ffffff" '
                       'stroke-width="4"/>')
        end = left + PLOT * min(max(value, more or 0, 0), top) / top
        out.append(text(end + 5, top_y + BAR - 5, words, 11, weight=bold))
    if mark:
        at = left + PLOT * mark[0] / top
        out.append(f'<line x1="{at:.1f}" y1="{y - 4}" x2="{at:.1f}" y2="{y + height}" stroke="#cf222e" '
                   'stroke-dasharray="4 3"/>')
        out.append(text(at, y - 7, mark[1], 10, "middle", colour="#cf222e"))
    return out, y + height + 30


def drawing(title, note, panels):
    """Panels beside each other: each the arguments of panel() after its place."""
    width = LEFT + PLOT + RIGHT + 20
    parts = []
    bottom = 0.0
    for number, arguments in enumerate(panels):
        drawn, end = panel(16 + number * width, 70, *arguments)
        parts += drawn
        bottom = max(bottom, end)
    whole = len(panels) * width + 16
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {bottom + 8:.0f}" width="{whole:.0f}" '
        f'height="{bottom + 8:.0f}" {FONT}>',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{whole:.0f}" height="{bottom + 8:.0f}" fill="#ffffff"/>',
        text(16, 26, title, 17, weight="bold"), text(16, 44, note, 11, colour="#59636e"),
        *parts, "</svg>", ""])


def svg(title, summary, options):
    proxies = [r for r in summary if r["name"] != "direct"]
    by_cpu = sorted(proxies, key=lambda r: r["cpu_us"])
    relay = next((r for r in proxies if r["name"] == "relay"), None)
    note = "one core for each program, load and origin on the other; medians of interleaved slices; shorter is better"
    return drawing(
        title, note,
        [("CPU time a request", "µs, core saturated", [
            (r["name"], r["cpu_us"], None, f"{r['cpu_us']:.1f}" + (f"  {r['to_relay']:.2f}×" if r["to_relay"] else ""))
            for r in by_cpu], 1, (relay["cpu_us"] * 1.2, "1.2 × relay") if relay else None),
         (f"Latency at {options.rate:,} requests/s", "µs: p50 dark, p99 light", [
             (r["name"], r["rate_p50"], r["rate_p99"], f"{r['rate_p50']:,.0f} / {r['rate_p99']:,.0f}")
             for r in summary], 0),
         ("Memory of an idle connection", "bytes of process memory", [
             (r["name"], r["idle_bytes"], None, f"{r['idle_bytes']:,.0f}")
             for r in sorted(proxies, key=lambda r: r["idle_bytes"])], 0)])
