# SPDX-License-Identifier: MIT
"""The figures of compare as Markdown: a table a case, and a sentence on larder, whether it wins or loses.

The fastest, and all that a rank test cannot tell from it, are bold. So is nothing else: faults and memory
are there to be weighed against it. What is no allocator but there to compare with is in italics, and never
the fastest.
"""

import pathlib
import platform

import ranks


def machine():
    """What a reader must know to compare: processor, kernel, huge pages, operating system."""
    processor = platform.machine()
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            processor = line.partition(": ")[2]
            break
    system = [line.partition("=")[2].strip('"') for line in read("/etc/os-release").splitlines()
              if line.startswith("PRETTY_NAME=")]
    return {
        "processor": processor,
        "processors": len([line for line in read("/proc/cpuinfo").splitlines() if line.startswith("processor")]),
        "system": system[0] if system else platform.system(),
        "kernel": platform.release(),
        "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled").partition("[")[2].partition("]")[0],
    }


def read(path):
    try:
        return pathlib.Path(path).read_text("utf-8")
    except OSError:
        return ""


class Row:
    """An allocator in one case: the runs' medians."""

    def __init__(self, allocator):
        self.name, self.version, self.is_larder = (allocator[key] for key in ("name", "version", "is_larder"))
        self.is_reference = allocator.get("is_reference", False)
        self.failures = [run["failed"] for run in allocator["runs"] if "failed" in run]
        runs = [run for run in allocator["runs"] if "failed" not in run]
        self.checksums = {run["checksum"] for run in runs}
        self.engines = {run["engine"] for run in runs}
        self.times = [run["ms"] for run in runs]
        self.usable = len(runs) > len(self.failures)
        if self.usable:
            self.ms = ranks.median(self.times)
            self.low, self.high, self.coverage = ranks.median_interval(self.times)
            self.faults = ranks.median([run["faults_per_inference"] for run in runs])
            self.rss = ranks.median([run["peak_rss_kib"] for run in runs]) / 1024
            self.process_rss = ranks.median([run["process_peak_rss_kib"] for run in runs]) / 1024


def rows_of(case):
    return [Row(allocator) for allocator in case["allocators"]]


def check(figures):
    """Raises KeyError or TypeError where figures are not such."""
    _ = figures["machine"]["processor"], figures["seed"]
    for case in figures["cases"]:
        _ = case["title"], rows_of(case)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def milliseconds(value):
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def as_fast(row, fastest):
    return not ranks.differs(row.times, fastest.times)


def table(rows):
    usable = [row for row in rows if row.usable]
    fastest = min((row for row in usable if not row.is_reference), key=lambda row: row.ms, default=None)
    lines = ["| allocator | ms | to the fastest | faults | peak RSS, MiB | of the process |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = f"{row.name} {row.version}".strip()
        if row.is_reference:
            name = f"*{name}*"
        if row.usable and row.failures:
            name += f" ({len(row.failures)} of {len(row.failures) + len(row.times)} failed)"
        if not row.usable or fastest is None:
            lines.append(f"| {name} | failed | | | | |")
            continue
        cells = [f"{milliseconds(row.ms)} ({milliseconds(row.low)}-{milliseconds(row.high)})", f"{row.ms / fastest.ms:.2f}"]
        if not row.is_reference and as_fast(row, fastest):
            cells = [f"**{cell}**" for cell in cells]
        cells += [number(row.faults), f"{row.rss:.1f}", f"{row.process_rss:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def compared(row, other):
    """"3 % slower than mimalloc (p 0.01)", or that they cannot be told apart."""
    p = ranks.rank_test(row.times, other.times)
    percent = abs(row.ms / other.ms - 1) * 100
    if p >= ranks.SIGNIFICANT:
        return f"cannot be told from {other.name} in time (p {p:.2g})"
    return f"{percent:.1f} % {'slower' if row.ms > other.ms else 'faster'} than {other.name} (p {p:.2g})"


def verdicts(rows):
    """A sentence for each row of larder."""
    usable = {row.name: row for row in rows if row.usable}
    others = [row for row in usable.values() if not row.is_larder and not row.is_reference]
    for row in usable.values():
        if not row.is_larder or not others:
            continue
        below = usable.get(row.name.partition(" over ")[2])
        other = below or min(others, key=lambda candidate: candidate.ms)
        yield (f"{row.name}: {compared(row, other)}, {row.ms / other.ms:.2f} x its time; "
               f"{number(row.faults)} faults an inference to {number(other.faults)}; "
               f"{row.rss / other.rss:.2f} x its memory.")


def text(figures):
    where = figures["machine"]
    lines = [f"{where['processors']} x {where['processor']}, {where['system']}, Linux {where['kernel']}, "
             f"transparent huge pages: {where['huge_pages'] or 'unknown'}. Seed {figures['seed']}."]
    for case in figures["cases"]:
        rows = rows_of(case)
        engines = sorted(set().union(*(row.engines for row in rows)))
        count = max((len(allocator["runs"]) for allocator in case["allocators"]), default=0)
        lines += ["", f"### {case['title']}", "", f"{', '.join(engines)}; {count} runs each", "", *table(rows), ""]
        lines += [f"- {sentence}" for sentence in verdicts(rows)]
    return "\n".join(lines) + "\n"


def problems(figures):
    """What failed: runs, and outputs that differ."""
    found = []
    for case in figures["cases"]:
        rows = rows_of(case)
        for row in rows:
            found += [f"{case['case']} under {row.name}: {why}" for why in sorted(set(row.failures))]
        if len(set().union(*(row.checksums for row in rows))) > 1:
            listed = "; ".join(f"{row.name}: {', '.join(sorted(row.checksums))}" for row in rows)
            found.append(f"{case['case']}: outputs differ: {listed}")
    return found
