#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""larder-bench and check_bounds as their users meet them: results, messages, exit codes.

Usage: test_bench.py LARDER_BENCH CHECK_BOUNDS. No test looks at a time; runs are short.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

BENCH = sys.argv[1]
CHECK_BOUNDS = sys.argv[2]
OURS = ["larder", "larder-exact", "larder-passthrough", "system", "c10-design", "none"]
SIZES = "64B 1KiB 4KiB 16KiB 64KiB 256KiB 1MiB 1.5MiB 4MiB 16MiB 64MiB".split()
TRACE = """7: malloc 0x1000 100000
7: memalign 0x40000 64 50000
7: realloc 0x80000 0x1000 120000
7: malloc 0x2000 64
7: free 0x40000
7: free 0x2000
"""


def run(command, **variables):
    """Runs it with these variables set in the environment (None: unset)."""
    environment = {**os.environ, **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def bench(*arguments, **variables):
    return run([BENCH, *arguments], BENCHMARK_MIN_TIME="0.0001", **variables)


def bench_json(*arguments, **variables):
    done = bench("--benchmark_format=json", *arguments, **variables)
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def names(*arguments, **variables):
    return bench("--benchmark_list_tests", *arguments, **variables).stdout.split()


def backends(family):
    return {name.split("/")[1] for name in names() if name.startswith(family + "/")}


class Catalogue(unittest.TestCase):
    def test_each_family_has_each_backend(self):
        families = ("pair", "batch_lifo", "batch_fifo", "pair_threads", "replay", "replay_touched")
        for family in families:
            self.assertLessEqual(set(OURS), backends(family), family)
            self.assertEqual(backends(family), backends("pair"), family)

    def test_pairs_and_batches_have_each_size(self):
        found = names()
        for family in ("pair", "batch_lifo", "batch_fifo"):
            for size in SIZES:
                self.assertIn(f"{family}/larder/{size}", found)

    def test_pairs_on_threads_have_each_count(self):
        found = names()
        for size in ("4KiB", "100kB", "1.5MiB"):
            for count in (1, 2, 4, 16):
                name = f"pair_threads/larder/{size}/real_time/threads:{count}"
                self.assertIn(name, found)

    def test_each_shipped_trace_is_replayed(self):
        traces = pathlib.Path(CHECK_BOUNDS).parent / "traces"
        found = names()
        shipped = [path.stem for path in traces.glob("*.txt")]
        self.assertTrue(shipped)
        for trace in shipped:
            self.assertIn(f"replay/larder/{trace}/manual_time", found)

    def test_no_name_occurs_twice(self):
        found = names()
        self.assertEqual(len(found), len(set(found)))

    def test_a_backend_that_is_missing_is_left_out_with_one_line(self):
        done = bench("--benchmark_list_tests", LARDER_MIMALLOC="/nowhere/libmimalloc.so")
        self.assertEqual(done.returncode, 0)
        self.assertNotIn("pair/mimalloc/4KiB", done.stdout.split())
        lines = [line for line in done.stderr.splitlines() if " mimalloc left out: " in line]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn("LARDER_MIMALLOC", lines[0])


class Results(unittest.TestCase):
    def test_every_backend_runs_pairs_and_batches(self):
        result = bench_json("--benchmark_filter=^(pair|batch_lifo|batch_fifo)/.*/(64B|1.5MiB)$")
        self.assertEqual(len(result["benchmarks"]), len(backends("pair")) * 3 * 2)
        for measured in result["benchmarks"]:
            self.assertGreater(measured["items_per_second"], 0, measured)
            self.assertGreater(measured["time_per_pair"], 0, measured)

    def test_every_backend_runs_on_several_threads(self):
        result = bench_json("--benchmark_filter=^pair_threads/.*/100kB/real_time/threads:4$")
        self.assertEqual(len(result["benchmarks"]), len(backends("pair_threads")))
        for measured in result["benchmarks"]:
            self.assertEqual(measured["threads"], 4)
            self.assertGreater(measured["items_per_second"], 0, measured)

    def test_every_backend_replays_a_trace(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "small.txt").write_text(TRACE, encoding="ascii")
            result = bench_json("--traces", directory, "--benchmark_filter=^replay")
        self.assertEqual(len(result["benchmarks"]), 2 * len(backends("replay")))
        for measured in result["benchmarks"]:
            self.assertIn("/small/", measured["name"])
            self.assertGreater(measured["ns_per_op"], 0, measured)
            self.assertIn("faults_per_pass", measured)

    def test_the_context_names_versions_kernel_and_huge_pages(self):
        result = bench_json("--benchmark_filter=^pair/none/64B$", LARDER_MAP_SHARDS="8")
        context = result["context"]
        self.assertRegex(context["backend larder"], r"^\d+\.\d+\.\d+, policy fit$")
        for name in backends("pair"):
            self.assertTrue(context[f"backend {name}"])
        self.assertIn(os.uname().release, context["kernel"])
        self.assertRegex(context["huge_pages"], "^(always|madvise|never|unknown)$")
        self.assertIn("LARDER_MAP_SHARDS=8", context["environment"])

    def test_interleaved_repetitions_work(self):
        result = bench_json(
            "--benchmark_filter=^pair/(larder|none)/4KiB$",
            "--benchmark_enable_random_interleaving=true",
            "--benchmark_repetitions=3",
        )
        single = [run for run in result["benchmarks"] if run["run_type"] == "iteration"]
        self.assertEqual(len(single), 6)


class Mistakes(unittest.TestCase):
    def test_an_unknown_option_is_wrong_usage(self):
        self.assertEqual(bench("--no-such-option").returncode, 2)

    def test_a_filter_that_matches_nothing_is_wrong_usage(self):
        self.assertEqual(bench("--benchmark_filter=^nothing$").returncode, 2)

    def test_a_directory_without_traces_fails_and_is_named(self):
        with tempfile.TemporaryDirectory() as directory:
            for done in (
                bench("--traces", directory),
                bench(f"--traces={directory}"),
                bench(LARDER_BENCH_TRACES=directory),
            ):
                self.assertEqual(done.returncode, 1)
                self.assertIn(directory, done.stderr)

    def test_a_broken_trace_fails_its_replay_alone(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "broken.txt").write_text("7: malloc oops\n", encoding="ascii")
            done = bench(
                f"--traces={directory}",
                "--benchmark_format=json",
                "--benchmark_filter=^(replay|pair)/none/(broken/|64B$)",
            )
        self.assertEqual(done.returncode, 1)
        pair, replay = json.loads(done.stdout)["benchmarks"]
        self.assertGreater(pair["items_per_second"], 0)
        self.assertIn("broken.txt:1", replay["error_message"])


class CheckBounds(unittest.TestCase):
    def check(self, *arguments):
        short = ["--bench", BENCH, "--repetitions", "2", "--min-time", "0.0001"]
        return run([CHECK_BOUNDS, *short, *arguments])

    def test_it_prints_every_case_and_ratio(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stderr)
        for backend in ("larder", "none", "c10-design"):
            for threads in (1, 2):
                self.assertRegex(done.stdout, rf"(?m)^{backend} +{threads} +\d")
        for ratio in ("larder's growth over none's", "larder over c10-design, two threads"):
            self.assertRegex(done.stdout, rf"(?m)^{re.escape(ratio)} +\d+\.\d\d +\d+\.\d\d$")

    def test_a_bound_that_does_not_hold_fails_and_is_named(self):
        done = self.check("--scaling", "1000000", "--over-c10", "1000000")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("below 1000000"), 2, done.stderr)

    def test_a_bound_that_holds_passes(self):
        self.assertEqual(self.check("--scaling", "0.000001").returncode, 0)

    def test_a_missing_binary_fails_and_is_named(self):
        done = run([CHECK_BOUNDS, "--bench", "/nowhere/larder-bench"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/larder-bench", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
