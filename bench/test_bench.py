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
OURS = [
    "larder",
    "larder-exact",
    "larder-passthrough",
    "system",
    "c10-design",
    "ncnn-pool",
    "bfc-arena",
    "none",
]
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
        families = ("pair", "batch_lifo", "batch_fifo", "pair_threads", "crossing", "replay", "replay_touched")
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


class Peers(unittest.TestCase):
    def test_a_peer_that_replaces_malloc_is_measured_under_its_name(self):
        for name in ("jemalloc", "tcmalloc", "tbbmalloc", "scudo", "scudo-android"):
            with self.subTest(name):
                done = bench(
                    f"--backends={name}", "--benchmark_filter=^(pair|crossing)/.*/4KiB", "--benchmark_format=json"
                )
                if done.returncode == 1 and "install" in done.stderr:
                    self.skipTest(done.stderr)
                result = json.loads(done.stdout)
                found = [entry["name"].split("/")[1] for entry in result["benchmarks"]]
                self.assertEqual(found, [name, name])
                self.assertNotIn("glibc", result["context"][f"backend {name}"])

    def test_a_peer_stands_alone(self):
        done = bench("--backends=scudo,larder")
        self.assertEqual(done.returncode, 2)
        self.assertIn("alone", done.stderr)

    def test_an_unknown_backend_is_wrong_usage(self):
        for arguments in (["--backends=nonsense"], ["--backends"]):
            self.assertEqual(bench(*arguments).returncode, 2)


class Counters(unittest.TestCase):
    """Counts are exact up to what a run does once, at its start."""

    def counters(self, name):
        result = bench_json("--backends=larder", f"--benchmark_filter=^{name}$", "--benchmark_min_time=0.01")
        return result["benchmarks"][0]

    def test_the_hit_path_takes_no_lock_and_exchanges_nothing(self):
        pair = self.counters("pair/larder/4KiB")
        for counter in ("locks_per_call", "exchanges_per_call", "backend_calls_per_call", "faults_per_call"):
            self.assertLess(pair[counter], 0.01, counter)
        self.assertGreater(pair["held_bytes"], 4096)

    def test_small_blocks_that_cross_threads_move_by_the_magazine(self):
        crossing = self.counters("crossing/larder/64B/real_time/threads:2")
        self.assertGreater(crossing["exchanges_per_call"], 0)
        self.assertLess(crossing["exchanges_per_call"], 0.5)
        self.assertGreater(crossing["locks_per_call"], 0)


class CheckBounds(unittest.TestCase):
    def check(self, *arguments):
        short = ["--bench", BENCH, "--runs", "1", "--min-time", "0.0001", "--peers", "system,jemalloc"]
        return run([CHECK_BOUNDS, *short, *arguments])

    def test_every_group_of_bounds_has_its_rows(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "rows")
            done = self.check("--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            rows = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        groups = {row["group"] for row in rows}
        # Without mimalloc among the peers, what is held against it has no rows.
        self.assertEqual(groups, {"threads", "crossing", "count", "metadata", "safety"})
        for row in rows:
            if row["bound"] is not None:
                sense, limit = row["bound"].split()
                holds = row["ratio"] <= float(limit) if sense == "<=" else row["ratio"] >= float(limit)
                self.assertEqual(row["holds"], holds, row)
            self.assertIn(row["case"], done.stdout)

    def test_a_row_names_the_best_peer_and_what_larder_is_to_it(self):
        if "mimalloc" not in backends("pair"):
            self.skipTest("no mimalloc here")
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "rows")
            done = self.check("--groups=pair", "--peers=mimalloc", "--only=pair 4KiB", "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            (row,) = map(json.loads, path.read_text(encoding="ascii").splitlines())
        self.assertEqual((row["against"], row["best_peer"]), ("mimalloc", "mimalloc"))
        self.assertAlmostEqual(row["ratio"], row["larder"] / row["other"])
        self.assertAlmostEqual(row["ratio_to_best"], row["ratio"])

    def test_a_peer_that_is_missing_is_left_out_with_one_line(self):
        if "mimalloc" not in backends("pair"):
            self.skipTest("no mimalloc here, as everywhere in this test")
        done = run(
            [CHECK_BOUNDS, "--bench", BENCH, "--runs=1", "--min-time=0.0001", "--groups=pair", "--peers=mimalloc"],
            LARDER_MIMALLOC="/nowhere/libmimalloc.so",
        )
        lines = [line for line in done.stderr.splitlines() if "mimalloc left out: " in line]
        self.assertEqual(len(lines), 1, done.stderr)

    def test_a_missing_binary_fails_and_is_named(self):
        done = run([CHECK_BOUNDS, "--bench", "/nowhere/larder-bench"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/larder-bench", done.stderr)

    def test_wrong_groups_are_wrong_usage(self):
        self.assertEqual(self.check("--groups=nonsense").returncode, 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
