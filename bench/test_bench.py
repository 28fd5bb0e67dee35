#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""larder-bench, check_bounds, interleave and guard as their users meet them: results, messages, exit codes.

Usage: test_bench.py LARDER_BENCH CHECK_BOUNDS INTERLEAVE GUARD GUARD_WORKLOADS COST_MODEL [CONTENDED_LINE]. No test looks at a time; runs are short.
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
CHECK_BOUNDS, INTERLEAVE, GUARD, GUARD_WORKLOADS = sys.argv[2:6]
COST_MODEL, CONTENDED_LINE = (sys.argv[6:8] + [None])[:2]
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
        families = ("pair", "batch_lifo", "batch_fifo", "pair_threads", "crossing", "queue", "thread_churn", "replay", "replay_touched", "replay_streams")
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
        self.assertEqual(len(result["benchmarks"]), 4 * len(backends("replay")))
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


class Interleave(unittest.TestCase):
    """What google-benchmark's compare.py reads: context, and benchmarks of one run or aggregate each."""

    def interleave(self, *arguments):
        short = ["--bench", BENCH, "--out=-", "--benchmark_min_time=0.0001"]
        return run([INTERLEAVE, *short, *arguments])

    def test_the_merged_result_has_the_shape_that_one_process_would_have_given_it(self):
        done = self.interleave(
            "--backends=larder,none,larder@LARDER_MAP_SHARDS=1",
            "--repetitions=3",
            "--benchmark_filter=^(pair|batch_lifo)/.*/(1KiB|4KiB)$",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        merged = json.loads(done.stdout)
        for key in ("date", "executable", "num_cpus", "load_avg", "backend larder", "backend none", "seed"):
            self.assertIn(key, merged["context"])
        entries = merged["benchmarks"]
        self.assertEqual(len(entries), 3 * 2 * 2 * 3)
        numbers = {}
        for entry in entries:
            self.assertEqual(entry["run_type"], "iteration")
            self.assertEqual((entry["repetitions"], entry["time_unit"]), (3, "ns"))
            self.assertGreater(entry["real_time"], 0)
            self.assertGreater(entry["cpu_time"], 0)
            numbers.setdefault(entry["name"], []).append(entry["repetition_index"])
            self.assertEqual(entry["name"], entry["run_name"])
        self.assertTrue(all(indices == [0, 1, 2] for indices in numbers.values()), numbers)
        self.assertIn("pair/larder@LARDER_MAP_SHARDS=1/4KiB", numbers)
        families = {entry["name"]: entry["family_index"] for entry in entries}
        self.assertEqual(sorted(families.values()), list(range(len(numbers))))
        # The same case of all backends stands together.
        cases = [name.split("/")[0] + name.split("/")[2] for name in families]
        self.assertEqual(len([1 for a, b in zip(cases, cases[1:]) if a != b]), 3)

    def test_a_backend_without_the_case_is_passed_over(self):
        done = self.interleave("--backends=larder,none", "--repetitions=1", "--benchmark_filter=^trim/.*/1KiB")
        self.assertEqual(done.returncode, 0, done.stderr)
        (entry,) = json.loads(done.stdout)["benchmarks"]
        self.assertTrue(entry["name"].startswith("trim/larder/1KiB"))

    def test_mistakes_are_told(self):
        self.assertEqual(self.interleave("--nonsense").returncode, 2)
        self.assertEqual(self.interleave("--repetitions=0").returncode, 2)
        for wrong in ("--backends=nonsense", "--backends=larder@X", "--benchmark_filter=^nothing$"):
            done = self.interleave(*(["--backends=none"] if "backends" not in wrong else []), wrong)
            self.assertEqual((done.returncode, done.stdout), (1, ""), wrong)
            self.assertRegex(done.stderr, "^interleave: ")


class Guard(unittest.TestCase):
    """Against workloads that are made up, but for the last test."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.figures = pathlib.Path(directory.name, "guard.json")
        self.program = pathlib.Path(directory.name, "program")
        self.say(locks=7)

    def say(self, locks):
        counts = json.dumps({"calls": 10, "locks": locks, "exchanges": 0, "backend_calls": 0, "discards": 0})
        self.program.write_text(f"#!/bin/sh\n[ $# = 0 ] && echo one || echo '{counts}'\n", encoding="ascii")
        self.program.chmod(0o755)

    def guard(self, *arguments):
        # Without a valgrind in the path: a shell script has no instructions worth counting.
        command = [sys.executable, GUARD, "--program", self.program, "--figures", self.figures, *arguments]
        return run(list(map(str, command)), PATH="/nonexistent")

    def test_a_count_that_changed_fails_until_the_file_says_so(self):
        self.assertEqual(self.guard("--update").returncode, 0)
        self.assertEqual(self.guard().returncode, 0)
        self.say(locks=8)
        done = self.guard()
        self.assertEqual(done.returncode, 1)
        self.assertIn("guard: one: 8 locks, should be 7", done.stderr)
        self.assertIn("--update", done.stderr)
        self.assertEqual(self.guard("--update").returncode, 0)
        self.assertEqual(self.guard().returncode, 0)

    def test_without_figures_it_says_how_to_make_them(self):
        done = self.guard()
        self.assertEqual(done.returncode, 1)
        self.assertIn("--update", done.stderr)

    def test_the_workloads_count_the_same_each_time(self):
        listed = run([GUARD_WORKLOADS]).stdout.split()
        self.assertIn("pairs_4k", listed)
        kept = json.loads(pathlib.Path(GUARD).with_name("guard.json").read_text(encoding="ascii"))["counts"]
        self.assertEqual(set(listed), set(kept))
        for name in listed:
            first, second = (run([GUARD_WORKLOADS, name]) for _ in range(2))
            self.assertEqual((first.returncode, first.stdout), (0, second.stdout), name)
            self.assertEqual(set(json.loads(first.stdout)), set(kept[name]))
        self.assertEqual(run([GUARD_WORKLOADS, "nonsense"]).returncode, 2)


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
        self.assertEqual(groups, {"threads", "streams", "crossing", "count", "metadata", "safety"})
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


@unittest.skipUnless(CONTENDED_LINE, "no way here to bind a thread to a processor")
class CostModel(unittest.TestCase):
    def model(self, *arguments):
        short = ["--bench", BENCH, "--line", CONTENDED_LINE, "--runs", "1", "--min-time", "0.01", "--transfer-ns", "50"]
        return run([COST_MODEL, *short, *arguments])

    def test_a_design_with_a_lock_in_every_call_stops_growing_and_one_without_visits_does_not(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "rows")
            done = self.model("--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            rows = {row["case"]: row for row in json.loads(path.read_text())["rows"]}
        for case, row in rows.items():
            self.assertIn(case, done.stdout)
            self.assertGreater(row["call_ns"], 0)
        locked, free = rows["c10-design, any size"], rows["4 KiB, freed where allocated"]
        self.assertEqual(locked["visits"], 1)
        self.assertLess(locked["calls"]["256"][0], locked["calls"]["1"][0])
        self.assertEqual(free["visits"], 0)
        self.assertAlmostEqual(free["calls"]["256"][0] / free["calls"]["1"][0], 256)

    def test_the_costs_of_a_line_are_measured(self):
        costs = json.loads(run([CONTENDED_LINE]).stdout)
        self.assertGreater(costs["own_ns"], 0)
        self.assertEqual("transfer_ns" in costs, len(os.sched_getaffinity(0)) > 1)

    def test_wrong_usage_and_what_is_missing_are_told(self):
        self.assertEqual(self.model("--far", "4,2").returncode, 2)
        self.assertEqual(run([COST_MODEL, "--bench", BENCH, "--line", "/nowhere/line"]).returncode, 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
