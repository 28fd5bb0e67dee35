# SPDX-License-Identifier: MIT
"""The bounds that larder is held to, as rows of what larder-bench measured: for check_bounds.

A row compares figures of the same run, so that it means the same on another machine; the median of the runs is what
is held against the bound.
"""

import statistics

PEERS = ("system", "mimalloc", "jemalloc", "tcmalloc", "tbbmalloc", "scudo", "scudo-android")
OTHERS = ("c10", "c10-design", "none")
# What is measured beside "larder" itself: its safety, switched on.
SETTINGS = {
    "checks=strict": {"LARDER_CHECKS": "strict"},
    "redzone=64": {"LARDER_REDZONE": "64"},
    "fill=165": {"LARDER_FILL": "165"},
}
# Other builds of the library, by what they leave out; see --uncounted and --unchecked.
UNCOUNTED = "no statistics"
UNCHECKED = "no double-free detection"
BUILDS = {"statistics": UNCOUNTED, "double-free detection": UNCHECKED}
SIZES = ("1KiB", "4KiB", "16KiB", "64KiB", "256KiB", "1MiB", "1.5MiB", "4MiB", "16MiB", "64MiB")
LARGE = SIZES[5:]  # from 1 MiB on
SHARED_SIZES = ("4KiB", "100kB", "1.5MiB")  # of pair_threads
MAGAZINE_SIZES = ("4KiB",)  # of these, what magazines serve
CROSSING_SIZES = ("64B", "1KiB", "4KiB", "64KiB", "256KiB", "1MiB", "4MiB")
MAGAZINE_ROUNDS = {"64B": 32, "1KiB": 16, "4KiB": 8}  # lib/magazine.c
# Of the shipped traces, those that two threads repeat at once: engines, fixed and varying, large blocks and small ones.
STREAMED_TRACES = ("mobilenet_v2", "encoder_varying", "shufflenet_v2_varying", "decoder_kv_cache", "ort_mobilenet_v2", "ort_speech_stream")
# Group of rows: the benchmarks that it needs, as parts of a filter; those of one thread, and those of several.
ANY_SIZE = "(" + "|".join(SIZES) + ")"
STREAMED = "(" + "|".join(STREAMED_TRACES) + ")"
SERIAL = {
    "pair": [f"pair/.*/{ANY_SIZE}"],
    "batch": [f"batch_[lf]ifo/.*/{ANY_SIZE}"],
    "replay": ["replay/.*"],
    "count": ["pair/.*/(1KiB|4KiB)"],
    "metadata": ["replay/.*", "pair_threads/.*/4KiB/.*threads:(1|16)"],
    "streams": [f"replay_streams/.*/{STREAMED}/.*"],
    "safety": ["pair/.*/(1KiB|4KiB|64KiB|1MiB)", "replay/.*"],
}
THREADED = {
    "threads": ["pair_threads/.*/threads:(1|2|16)"],
    "crossing": ["crossing/.*"],
    "count": ["pair_threads/.*/4KiB/.*threads:2", "crossing/.*"],
}
GROUPS = ("pair", "batch", "replay", "threads", "streams", "crossing", "count", "metadata", "safety")
THREADED_TIME = 2.5  # times --min-time: threads take longer to come to rest


class Figures:
    """Figures of all runs: get("pair", "larder", "4KiB", "time_per_pair") gives one for each run."""

    def __init__(self):
        self.values = {}
        self.context = {}

    def add(self, backend, result, entries):
        self.context.update(result["context"])
        for entry in entries:
            family, _, rest = entry["name"].split("/", 2)
            case = rest.replace("/real_time", "").replace("/manual_time", "")
            for key, value in entry.items():
                if isinstance(value, (int, float)):
                    self.values.setdefault((family, backend, case, key), []).append(value)

    def get(self, family, backend, case, key):
        return self.values.get((family, backend, case, key), [])

    def cases(self, family, backend="larder"):
        found = {case: None for f, b, case, _ in self.values if (f, b) == (family, backend)}
        return list(found)


# --- rows -------------------------------------------------------------------------------------------


class Row:
    """One bound on one case. `ratios`: larder's figure over the other's (or a count), run by run."""

    def __init__(self, group, case, larder, against, other, ratios, bound, best=None, unit="ns"):
        self.group, self.case, self.unit = group, case, unit
        self.larder, self.against, self.other = larder, against, other
        self.ratios, self.bound, self.best = ratios, bound, best

    @property
    def ratio(self):
        return statistics.median(self.ratios)

    def holds(self):
        if self.bound is None:
            return None
        sense, limit = self.bound
        return self.ratio <= limit if sense == "<=" else self.ratio >= limit

    def verdict(self):
        if self.bound is None:
            return ""
        sense, limit = self.bound
        least, most = min(self.ratios), max(self.ratios)
        open_question = " (runs differ)" if least < limit < most else ""
        if self.holds():
            return "holds" + open_question
        if limit == 0:
            return f"MISSED: {self.ratio:.3g}" + open_question
        far = self.ratio / limit if sense == "<=" else limit / self.ratio
        return f"MISSED {far:.2f}x" + open_question

    def as_dict(self):
        return {
            "group": self.group,
            "case": self.case,
            "unit": self.unit,
            "larder": self.larder,
            "against": self.against,
            "other": self.other,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "bound": self.bound and f"{self.bound[0]} {self.bound[1]:g}",
            "holds": self.holds(),
            "best_peer": self.best and self.best[0],
            "best": self.best and self.best[1],
            "ratio_to_best": self.best and self.best[2],
        }


def ratios(ours, theirs):
    """Run by run; runs that only one of them has are left out."""
    return [a / b for a, b in zip(ours, theirs) if b]


def best_peer(figures, family, case, key, pick, scale):
    """(name, its median, larder's median ratio to it), or None."""
    ours = figures.get(family, "larder", case, key)
    found = {}
    for peer in PEERS:
        values = figures.get(family, peer, case, key)
        if values and ours:
            found[peer] = statistics.median(values)
    if not found:
        return None
    name = pick(found, key=found.get)
    together = ratios(ours, figures.get(family, name, case, key))
    return name, found[name] * scale, statistics.median(together)


def compare(figures, group, family, case, key, against, bound, pick=min, scale=1.0, unit="ns"):
    """The row of one figure against one backend's; nothing where one of them is missing."""
    ours, theirs = (figures.get(family, backend, case, key) for backend in ("larder", against))
    together = ratios(ours, theirs)
    if not together:
        return []
    best = best_peer(figures, family, case, key, pick, scale)
    larder, other = statistics.median(ours) * scale, statistics.median(theirs) * scale
    return [Row(group, case, larder, against, other, together, bound, best, unit)]


def count(figures, group, family, case, key, bound, unit):
    """The row of a count: the ratio is the count itself."""
    values = figures.get(family, "larder", case, key)
    if not values:
        return []
    # What a run of a million calls does once, at its start, is not what a call does.
    values = [value if value >= 5e-4 else 0.0 for value in values]
    return [Row(group, case, statistics.median(values), "-", None, values, bound, unit=unit)]


def rows_of_pairs(figures, family):
    rows = []
    for size in SIZES:
        bound = ("<=", 0.1 if size in LARGE else 1.0)
        rows += compare(figures, family, family, size, "time_per_pair", "mimalloc", bound, scale=1e9)
    return rows


def rows_of_replays(figures):
    rows = []
    for trace in figures.cases("replay"):
        rows += compare(figures, "replay", "replay", trace, "ns_per_op", "mimalloc", ("<=", 0.5))
    return rows


def growth(figures, backend, size, many, few):
    """Throughput of `many` threads over that of `few`, run by run."""
    key = "items_per_second"
    return ratios(
        figures.get("pair_threads", backend, f"{size}/threads:{many}", key),
        figures.get("pair_threads", backend, f"{size}/threads:{few}", key),
    )


def growth_row(figures, size, many, few, against, bound):
    ours = growth(figures, "larder", size, many, few)
    theirs = growth(figures, against, size, many, few) if against != "-" else [1.0] * len(ours)
    together = ratios(ours, theirs)
    if not together:
        return []
    found = {peer: growth(figures, peer, size, many, few) for peer in PEERS}
    found = {peer: statistics.median(values) for peer, values in found.items() if values}
    best = None
    if found:
        name = max(found, key=found.get)
        best = (name, found[name], statistics.median(ours) / found[name])
    case = f"{size}, {many} threads over {few}"
    larder, other = statistics.median(ours), statistics.median(theirs)
    return [Row("threads", case, larder, against, other, together, bound, best, "x")]


def rows_of_threads(figures, c10):
    rows = []
    for size in SHARED_SIZES:
        if size in MAGAZINE_SIZES:
            rows += growth_row(figures, size, 2, 1, "none", (">=", 0.95))
        rows += growth_row(figures, size, 16, 2, "-", (">=", 0.9))
    for size in SHARED_SIZES:
        case, key = f"{size}/threads:2", "items_per_second"
        if size not in MAGAZINE_SIZES:
            rows += count(figures, "threads", "pair_threads", case, "locks_per_call", ("<=", 1), "locks a call")
            best = best_peer(figures, "pair_threads", case, key, max, 1e-6)
            if best is not None:
                rows += compare(
                    figures, "threads", "pair_threads", case, key, best[0], (">=", 1), max, 1e-6, "M/s"
                )
        if c10 is not None:
            rows += compare(figures, "threads", "pair_threads", case, key, c10, (">=", 15), max, 1e-6, "M/s")
    return rows


def rows_of_streams(figures):
    """Two copies of a trace at once, over one: larder's growth over that of a replay without an allocator; and throughput
    against the best peer's, which is no bound."""
    rows = []
    key = "operations_per_second"

    def throughput(backend, trace, streams):
        return figures.get("replay_streams", backend, f"{trace}/streams:{streams}", key)

    def grown(backend, trace):
        return ratios(throughput(backend, trace, 2), throughput(backend, trace, 1))

    for trace in STREAMED_TRACES:
        ours, theirs = grown("larder", trace), grown("none", trace)
        together = ratios(ours, theirs)
        if not together:
            continue
        best = best_peer(figures, "replay_streams", f"{trace}/streams:2", key, max, 1e-6)
        found = {peer: statistics.median(grown(peer, trace)) for peer in PEERS if grown(peer, trace)}
        steepest = max(found, key=found.get) if found else None
        larder, other = statistics.median(ours), statistics.median(theirs)
        named = steepest and (steepest, found[steepest], larder / found[steepest])
        rows.append(Row("streams", f"{trace}, 2 over 1", larder, "none", other, together, (">=", 0.95), named, "x"))
        if best is not None:
            case = f"{trace}/streams:2"
            rows += compare(figures, "streams", "replay_streams", case, key, best[0], None, max, 1e-6, "M/s")
    return rows


def rows_of_crossings(figures):
    rows = []
    for size in CROSSING_SIZES:
        case = f"{size}/threads:2"
        rows += compare(
            figures, "crossing", "crossing", case, "time_per_pair", "mimalloc", ("<=", 0.7), scale=1e9
        )
    for size in CROSSING_SIZES:
        case = f"{size}/threads:2"
        held = figures.get("crossing", "larder", case, "held_bytes")
        ring = figures.get("crossing", "larder", case, "ring_bytes")
        if held:
            over = [h / (2 * r + (1 << 20)) for h, r in zip(held, ring)]
            larder, room = statistics.median(held) / 1024, (2 * ring[0] + (1 << 20)) / 1024
            case += ", held at most"
            rows.append(Row("crossing", case, larder, "2 rings + 1 MiB", room, over, ("<=", 1), unit="KiB"))
    return rows


def rows_of_counts(figures):
    rows = []
    unit = "locks a call"
    for size in ("1KiB", "4KiB"):
        rows += count(figures, "count", "pair", size, "locks_per_call", ("<=", 0), unit)
    rows += count(figures, "count", "pair_threads", "4KiB/threads:2", "locks_per_call", ("<=", 0), unit)
    for size, rounds in MAGAZINE_ROUNDS.items():
        bound = ("<=", 2 / rounds)
        rows += count(figures, "count", "crossing", f"{size}/threads:2", "locks_per_call", bound, unit)
    return rows


METADATA_INSTANCE, METADATA_THREAD, METADATA_SHARE = 64 * 1024, 32 * 1024, 0.02


def metadata_row(case, measured, room):
    together = [value / room for value in measured]
    return Row("metadata", case, statistics.median(measured) / 1024, "allowed", room / 1024, together, ("<=", 1), unit="KiB")


def rows_of_metadata(figures):
    """What larder keeps for itself: for a trace, and for an instance and its threads where little is live."""
    rows = []
    for trace in figures.cases("replay"):
        metadata = figures.get("replay", "larder", trace, "metadata_bytes")
        live = figures.get("replay", "larder", trace, "peak_live_bytes")
        if metadata and live:
            room = max(METADATA_INSTANCE + METADATA_THREAD, METADATA_SHARE * live[0])
            rows.append(metadata_row(trace, metadata, room))
    one, many = (figures.get("pair_threads", "larder", f"4KiB/threads:{count}", "metadata_bytes") for count in (1, 16))
    if one and many:
        rows.append(metadata_row("an instance and a thread", one, METADATA_INSTANCE + METADATA_THREAD))
        each = [(b - a) / 15 for a, b in zip(one, many)]
        rows.append(metadata_row("each further thread", each, METADATA_THREAD))
    return rows


def rows_of_safety(figures):
    """What is switched on beyond the default; and what is always on, against builds without it."""
    rows = []
    pairs = [(setting, f"larder {setting}", "larder", f"larder {setting}") for setting in SETTINGS]
    pairs += [(title, "larder", f"larder {build}", f"larder {build}") for title, build in BUILDS.items()]
    for title, with_it, without, measured in pairs:
        for family, key, scale in (("pair", "time_per_pair", 1e9), ("replay", "ns_per_op", 1.0)):
            for case in figures.cases(family, measured):
                on, off = figures.get(family, with_it, case, key), figures.get(family, without, case, key)
                together = ratios(on, off)
                if together:
                    larder, other = statistics.median(on) * scale, statistics.median(off) * scale
                    rows.append(Row("safety", f"{family} {case}, {title}", larder, "without", other, together, None))
    return rows


def all_rows(figures, groups, c10):
    rows = {
        "pair": rows_of_pairs(figures, "pair"),
        "batch": rows_of_pairs(figures, "batch_lifo") + rows_of_pairs(figures, "batch_fifo"),
        "replay": rows_of_replays(figures),
        "threads": rows_of_threads(figures, c10),
        "streams": rows_of_streams(figures),
        "crossing": rows_of_crossings(figures),
        "count": rows_of_counts(figures),
        "metadata": rows_of_metadata(figures),
        "safety": rows_of_safety(figures),
    }
    return [row for group in groups for row in rows[group]]
