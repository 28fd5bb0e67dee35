# SPDX-License-Identifier: MIT
"""The charts of the report, as SVG elements: gnuplot draws them; its colours are replaced by CSS variables, so that one
drawing serves light and dark, whichever the reader's system asks for. Allocators keep their colour through all charts.
"""

import html
import math
import os
import re
import subprocess
import tempfile

# One a series, by number: light, dark. Chosen to stay apart for the colour-blind; the ends of lines carry no
# meaning by colour alone, since every chart names its series.
PALETTE = (
    ("#0b6bcb", "#5aa9f5"),
    ("#d1470c", "#ff8a5c"),
    ("#1a7f4b", "#4cc38a"),
    ("#8a3ffc", "#bb9aff"),
    ("#b8860b", "#e3b341"),
    ("#c2255c", "#ff7aa8"),
    ("#0c8599", "#3bc9db"),
    ("#5f3dc4", "#9775fa"),
    ("#5c940d", "#a9e34b"),
    ("#862e9c", "#da77f2"),
    ("#495057", "#adb5bd"),
    ("#a61e4d", "#f783ac"),
    ("#087f5b", "#63e6be"),
    ("#364fc7", "#91a7ff"),
    ("#7c4a03", "#ffc078"),
    ("#212529", "#f1f3f5"),
)
INK = "#010203"  # stands for the text's colour in gnuplot's output
GRID = "#010204"
POINT_TYPES = (7, 5, 9, 11, 13, 15, 6, 4, 8, 10, 12, 14)
REFERENCES = {"none"}  # the harness: not an allocator


class Problem(Exception):
    """A failed job: what was wrong, and what to do."""


# --- drawing ----------------------------------------------------------------------------------------


class Colours:
    """A number for each allocator, the same in all charts."""

    def __init__(self, names):
        self.numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def mark(self, name):
        """What gnuplot is told; becomes var(--sN)."""
        return f"#0a0b{self.numbers.get(name, 0) % len(PALETTE):02x}"

    def variable(self, name):
        return f"var(--s{self.numbers.get(name, 0) % len(PALETTE)})"

    def points(self, name):
        return POINT_TYPES[self.numbers.get(name, 0) % len(POINT_TYPES)]


def css_colours():
    light = "".join(f"--s{number}:{pair[0]};" for number, pair in enumerate(PALETTE))
    dark = "".join(f"--s{number}:{pair[1]};" for number, pair in enumerate(PALETTE))
    return light, dark


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def block(name, rows):
    """Data for gnuplot, under a name."""
    return f"${name} << EOD\n" + "\n".join(" ".join(map(str, row)) for row in rows) + "\nEOD\n"


PREAMBLE = f"""
set encoding utf8
set terminal svg size {{width}},{{height}} dynamic font "system-ui,sans-serif,13" background "#ffffff" linewidth 1.6
set border 3 linecolor rgb "{INK}"
set tics nomirror textcolor rgb "{INK}"
set key textcolor rgb "{INK}"
set xlabel textcolor rgb "{INK}"
set ylabel textcolor rgb "{INK}"
set grid linecolor rgb "{GRID}" linetype 1 linewidth 0.4
set key outside right top samplen 1.5 spacing 1.1
"""


def draw(title, script, width=900, height=430):
    """An SVG element of what gnuplot makes of the script."""
    text = PREAMBLE.format(width=width, height=height) + script
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".gp", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            done = subprocess.run(["gnuplot", file.name], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Problem(f"gnuplot: {error.strerror}: install gnuplot-nox (Debian)") from error
    if done.returncode != 0 or "<svg" not in done.stdout:
        reason = next((line for line in done.stderr.splitlines() if line.strip()), "it drew nothing")
        raise Problem(f"gnuplot failed on '{title}': {reason.strip()}")
    return tidy(done.stdout, title)


class Counter:
    charts = 0


def tidy(svg, title):
    """The element alone, its colours as variables, its ids its own, and a name for who cannot see it."""
    Counter.charts += 1
    number = Counter.charts
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.S)
    svg = re.sub(r"<title>.*?</title>|<desc>.*?</desc>", "", svg, flags=re.S)
    svg = re.sub(r'<rect x="0" y="0"[^>]*fill="#ffffff"[^>]*/>', "", svg)
    svg = re.sub(r"#0a0b([0-9a-f]{2})", lambda found: f"var(--s{int(found[1], 16)})", svg, flags=re.I)
    svg = re.sub(r"rgb\( *10, *11, *(\d+)\)", r"var(--s\1)", svg)
    for mark, parts, name in ((INK, "1, *2, *3", "ink"), (GRID, "1, *2, *4", "grid")):
        svg = re.sub(mark, f"var(--{name})", svg, flags=re.I)
        svg = re.sub(rf"rgb\( *{parts}\)", f"var(--{name})", svg)
    # A presentation attribute takes no var(): a style does.
    svg = re.sub(r'(stroke|fill|color)="(var\(--\w+\))"', r"""style="\1:\2\"""", svg)
    svg = re.sub(r"""style='([^']*)' style="([^"]*)\"""", r"""style="\1;\2\"""", svg)
    svg = re.sub(r"(['\"])(gp[A-Za-z0-9_]+)\1", rf"\1c{number}\2\1", svg)
    svg = re.sub(r"#(gp[A-Za-z0-9_]+)", rf"#c{number}\1", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title, quote=True)}"', 1)
    svg = re.sub(r"\s+xmlns(:xlink)?=\"[^\"]*\"", "", svg, count=2)
    return merge_styles(svg)


def merge_styles(svg):
    """An element may carry one style attribute only."""

    def one(found):
        tag = found[0]
        styles = re.findall(r"""\sstyle=(?:"([^"]*)"|'([^']*)')""", tag)
        if len(styles) < 2:
            return tag
        joined = ";".join((a or b).strip("; ") for a, b in styles)
        bare = re.sub(r"""\sstyle=(?:"[^"]*"|'[^']*')""", "", tag)
        end = "/>" if bare.endswith("/>") else ">"
        return f'{bare[: -len(end)]} style="{joined}"{end}'

    return re.sub(r"<[a-zA-Z][^<>]*>", one, svg)


# --- charts -----------------------------------------------------------------------------------------


def name_of(trace):
    return os.path.basename(trace).split(".txt")[0]


def versioned(row):
    version = row["version"]
    return row["backend"] if version in ("", "-") else f"{row['backend']} {version}"


def shown(rows):
    return [row for row in rows if row["backend"] not in REFERENCES]


def label_places(points):
    """Labels beside points, moved apart where they would lie on each other (in units of the axes' span)."""
    placed = []
    for x, y, text in sorted(points, key=lambda point: (point[1], point[0])):
        at = y
        for other_x, other_at, other_text in placed:
            near = abs(other_x - x) < 0.012 * (len(text) + len(other_text)) / 2 + 0.02
            if near and abs(at - other_at) < 0.05:
                at = other_at + 0.05
        placed.append((x, at, text))
    return placed


def spanned(values, at_least):
    """(low, high) of a logarithmic axis that shows all values with air around them."""
    low, high = min(values), max(values)
    high = max(high, low * at_least)
    air = (high / low) ** 0.08
    return low / air, high * air


def chart_of_choice(trace, rows, colours):
    """Time against memory: left and low is good."""
    rows = [row for row in shown(rows) if row["peak_rss_bytes"]]
    if not rows:
        return None
    xs = [row["ns_per_op"] for row in rows]
    ys = [row["peak_rss_bytes"] / row["peak_live_bytes"] for row in rows]
    (x_low, x_high), (y_low, y_high) = spanned(xs, 3), spanned(ys, 2)
    x_span, y_span = math.log(x_high / x_low), math.log(y_high / y_low)
    places = label_places(
        [
            (math.log(x / x_low) / x_span, math.log(y / y_low) / y_span, row["backend"])
            for x, y, row in zip(xs, ys, rows)
        ]
    )
    script = "unset key\nset logscale xy\n"
    script += 'set xlabel "ns an operation (median; the line is the interval that holds it)"\n'
    script += 'set ylabel "peak resident / peak live"\nset ytics (0.2,0.3,0.5,0.7,1,1.2,1.5,2,2.5,3,4,5,7,10,15,20,30,50,100)\n'
    script += f"set xrange [{x_low}:{x_high}]\nset yrange [{y_low}:{y_high}]\n"
    for fx, fy, text in places:
        x, y = x_low * math.exp(fx * x_span), y_low * math.exp(fy * y_span)
        side = "right offset character -0.6,0.65" if fx > 0.85 else "left offset character 0.6,0.65"
        script += f"set label {quoted(text)} at {x},{y} {side} textcolor rgb {quoted(colours.mark(text))} noenhanced\n"
    parts = []
    for number, (x, y, row) in enumerate(zip(xs, ys, rows)):
        name = f"p{number}"
        low, high = (row["ns_low"], row["ns_high"]) if row["repetitions"] > 1 else (x, x)
        script += block(name, [(x, y, low, high)])
        colour = quoted(colours.mark(row["backend"]))
        size = 1.5 if row.get("recommended") else 0.9
        parts.append(f"${name} using 1:2:3:4 with xerrorbars linecolor rgb {colour} pointtype 0 linewidth 1")
        parts.append(
            f"${name} using 1:2 with points pointtype {colours.points(row['backend'])} pointsize {size} linecolor rgb {colour}"
        )
    script += "plot " + ", \\\n  ".join(parts) + "\n"
    return draw(f"Time against memory: {name_of(trace)}", script)


def chart_of_held(trace, held, colours):
    """Live bytes, and what each allocator holds, over the operations of a pass."""
    live = trace["live"]
    script = 'set xlabel "share of the pass"\nset ylabel "MiB"\nset format x "%.0f %%"\nset yrange [0:*]\nset xrange [0:100]\n'
    script += "set key noenhanced\n"

    def points(values):
        return [((i + 1) * 100 / len(values), value / 2**20) for i, value in enumerate(values)]

    script += block("live", points(live))
    parts = [f'$live using 1:2 with filledcurves x1 fillstyle solid 0.25 noborder linecolor rgb "{INK}" title "live"']
    for number, curve in enumerate(held):
        script += block(f"h{number}", points(curve["points"]))
        parts.append(
            f"$h{number} using 1:2 with lines linewidth 1.1 linecolor rgb {quoted(colours.mark(curve['backend']))} "
            f"title {quoted(curve['backend'])}"
        )
    script += "plot " + ", \\\n  ".join(parts) + "\n"
    return draw(f"Live and held bytes over a pass: {name_of(trace['trace'])}", script)


def bars(title, groups, series, value, colours, ylabel, logarithmic):
    """Grouped bars: a group for each x, a bar for each series."""
    rows = []
    for group in groups:
        rows.append([quoted(str(group)), *(value(group, name) for name in series)])
    script = "set style data histogram\nset style histogram clustered gap 1.2\nset style fill solid 0.9 noborder\n"
    script += f"set ylabel {quoted(ylabel)}\nset key noenhanced\nset xtics noenhanced\n"
    if logarithmic:
        script += "set logscale y\nset yrange [0.5:*]\n"
    script += block("d", rows)
    parts = [
        f"$d using {number + 2}:xtic(1) linecolor rgb {quoted(colours.mark(name))} title {quoted(name)}"
        for number, name in enumerate(series)
    ]
    return draw(title, script + "plot " + ", \\\n  ".join(parts) + "\n")


def chart_of_gaps(trace, rows, colours):
    """Page faults by the pause between passes. None is drawn at the foot of the logarithmic axis."""
    gaps = sorted({row["gap_ms"] for row in rows})
    found = {(row["gap_ms"], row["backend"]): row for row in shown(rows)}
    # Only who was measured with every pause.
    series = [row["backend"] for row in shown(rows) if row["gap_ms"] == gaps[0]]
    series = [name for name in series if all((gap, name) in found for gap in gaps)]
    if len(gaps) < 2 or not series:
        return None
    highest = max(found[gap, name]["faults_per_pass"] for gap in gaps for name in series)
    return bars(
        f"Page faults by pause between passes: {name_of(trace)}",
        [f"{gap} ms" for gap in gaps],
        series,
        lambda label, name: max(found[int(label.split()[0]), name]["faults_per_pass"], 0.6 if highest > 50 else 0),
        colours,
        "minor page faults a pass",
        highest > 50,
    )


def chart_of_scaling(trace, rows, colours):
    """Throughput by the number of threads."""
    rows = shown(rows)
    if not rows:
        return None
    counts = sorted({row["streams"] for row in rows})
    found = {(row["streams"], row["backend"]): row for row in rows}
    series = [row["backend"] for row in rows if row["streams"] == counts[0]]
    series = [name for name in series if all((count, name) in found for count in counts)]
    if len(counts) < 2 or not series:
        return None
    script = 'set xlabel "threads"\nset ylabel "million operations a second, all together"\nset key noenhanced\n'
    script += f"set xrange [{counts[0] * 0.9}:{counts[-1] * 1.05}]\nset yrange [0:*]\nset xtics ({', '.join(map(str, counts))})\n"
    parts = []
    for number, name in enumerate(series):
        values = [(count, found[count, name]["operations_per_s"] / 1e6) for count in counts]
        script += block(f"s{number}", values)
        colour = quoted(colours.mark(name))
        parts.append(
            f"$s{number} using 1:2 with linespoints linewidth 1.2 pointsize 0.8 pointtype {colours.points(name)} "
            f"linecolor rgb {colour} title {quoted(name)}"
        )
    return draw(f"Scaling by threads: {name_of(trace)}", script + "plot " + ", \\\n  ".join(parts) + "\n")


def size_label(power):
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if power >= shift:
            return f"{1 << (power - shift)} {unit}"
    return f"{1 << power} B"


def chart_of_sizes(trace, colours):
    sizes = trace["sizes"]
    used = [power for power, count in enumerate(sizes) if count > 0]
    if not used:
        return None
    first, last = used[0], used[-1]
    rows = [(quoted(size_label(power)), sizes[power]) for power in range(first, last + 1)]
    script = "unset key\nset style data histogram\nset style fill solid 0.9 noborder\nset boxwidth 0.85\n"
    script += 'set ylabel "allocations a pass"\nset xlabel "size, from"\nset xtics rotate by -40\nset yrange [0:*]\n'
    script += block("d", rows)
    script += f'plot $d using 2:xtic(1) linecolor rgb "{colours.mark("larder")}" notitle\n'
    return draw(f"Sizes asked for: {name_of(trace['trace'])}", script, height=330)
