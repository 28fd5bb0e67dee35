# SPDX-License-Identifier: MIT
"""Runs of larder-bench, one process for each backend and repetition, in random order.

A process each, since an allocator that replaces malloc needs one anyway, and since what one backend
did to the heap must not cost another. Random order within each round, so that a machine that slows
down for a while, or another process that comes by, hits no backend more than the others. The seed is
told, so that an order can be had again.

Shared by `interleave` and `check_bounds`.
"""

import json
import os
import random
import subprocess
import sys
import time

# In the order of tables. c10 is PyTorch's own allocator; c10-design stands in where it is not.
BACKENDS = (
    "larder",
    "larder-exact",
    "larder-mimalloc",
    "larder-passthrough",
    "system",
    "mimalloc",
    "jemalloc",
    "tcmalloc",
    "tbbmalloc",
    "scudo",
    "scudo-android",
    "ncnn-pool",
    "bfc-arena",
    "c10",
    "c10-design",
    "none",
)


class Problem(Exception):
    """A failed job: what was wrong, and what to do."""


class Missing(Exception):
    """A backend that this machine lacks: the line that says so."""


def built_bench():
    """Where larder-bench is after `tools/dev build`."""
    here = os.path.dirname(os.path.realpath(__file__))
    return os.path.join(os.path.dirname(here), "build", "bench", "larder-bench")


def start(bench, backend, arguments, settings=None):
    command = [bench, f"--backends={backend}", *arguments]
    environment = {**os.environ, **(settings or {})}
    try:
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        raise Problem(
            f"{bench}: {error.strerror}: build it (tools/dev build) or name it with --bench"
        ) from error


def require(bench, backend):
    """Raises Missing where the backend cannot be had."""
    done = start(bench, backend, ["--benchmark_list_tests", "--benchmark_filter=^pair/"])
    if done.returncode == 0:
        return
    line = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "it gave no reason"
    if done.returncode == 2:
        raise Problem(line)
    raise Missing(line.removeprefix("larder-bench: "))


def available(bench, backends):
    """Those that can be had; one line on stderr for each other."""
    found = []
    for backend in backends:
        try:
            require(bench, backend)
            found.append(backend)
        except Missing as missing:
            line = str(missing)
            if " left out: " not in line:
                line = line.replace(": ", " left out: ", 1)
            print(f"{os.path.basename(sys.argv[0])}: {line}", file=sys.stderr)
    return found


def run(bench, backend, arguments, settings=None):
    """The parsed result of one process."""
    done = start(bench, backend, [*arguments, "--benchmark_format=json"], settings)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise Problem(f"{backend}: larder-bench ended with {done.returncode}: {lines[-1]}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise Problem(f"{bench}: its output is not JSON ({error}): is it larder-bench?") from error


def rounds(jobs, repetitions, seed):
    """Yields (repetition, job): all jobs once in random order, then all again."""
    source = random.Random(seed)
    for repetition in range(repetitions):
        order = list(jobs)
        source.shuffle(order)
        for job in order:
            yield repetition, job


class Progress:
    """A line on a terminal, rewritten; nothing in a pipe."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.begin = time.monotonic()

    def show(self, what):
        left = (time.monotonic() - self.begin) / max(self.done, 1) * (self.total - self.done)
        rest = f", about {left:.0f} s left" if self.done > 2 else ""
        self.done += 1
        if sys.stderr.isatty():
            print(f"\r\033[K[{self.done}/{self.total}] {what}{rest}", end="", file=sys.stderr, flush=True)

    def clear(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def case_of(name):
    """FAMILY/BACKEND/CASE without the backend."""
    family, _, case = name.split("/", 2)
    return family, case


def merge(results):
    """One result of all, as one process would have written it: the first one's context with every
    backend's version; cases in the first one's order, in each the backends, in each its repetitions."""
    context = dict(results[0]["context"])
    entries = []
    for result in results:
        context.update((key, value) for key, value in result["context"].items() if key.startswith("backend "))
        entries += result["benchmarks"]
    places = {case: place for place, case in enumerate(dict.fromkeys(case_of(e["name"]) for e in entries))}
    entries.sort(key=lambda entry: (places[case_of(entry["name"])], entry["name"]))  # stable: repetitions stay
    names = [entry["name"] for entry in entries]
    families = {name: number for number, name in enumerate(dict.fromkeys(names))}
    seen = {}
    merged = []
    for entry in entries:
        index = seen.setdefault(entry["name"], 0)
        seen[entry["name"]] += 1
        change = {
            "repetitions": names.count(entry["name"]),
            "repetition_index": index,
            "family_index": families[entry["name"]],
            "per_family_instance_index": 0,
        }
        merged.append({**entry, **change})
    return {"context": context, "benchmarks": merged}
