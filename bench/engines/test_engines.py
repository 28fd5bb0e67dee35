#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The engines' comparison: its statistics, its tables and its exit codes; and one quick run of the engines that are here.

usage: test_engines.py BUILD_DIR [unittest arguments]
"""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
COMPARE = HERE / "compare"
BUILD = pathlib.Path(sys.argv.pop(1))

sys.path.insert(0, str(HERE))
import ranks  # noqa: E402 (found only from here on)
import report  # noqa: E402


def compare(*arguments):
    return subprocess.run([COMPARE, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False)


def run(ms, checksum="a", faults=1, rss=100 << 10):
    return {"engine": "Engine 1", "checksum": checksum, "ms": ms, "faults_per_inference": faults,
            "peak_rss_kib": rss, "rss_kib": rss, "process_peak_rss_kib": rss}


def allocator(name, runs, is_larder=False):
    return {"name": name, "version": "1.2", "is_larder": is_larder, "runs": runs}


def figures(*allocators):
    where = {"processor": "p", "processors": 2, "system": "s", "kernel": "k", "huge_pages": "never"}
    return {"machine": where, "seed": 1, "cases": [{"case": "c", "title": "Case", "allocators": list(allocators)}]}


def times(first, count=7):
    return [run(first + i / 100) for i in range(count)]


class Ranks(unittest.TestCase):
    def test_p_is_that_of_all_orders_counted_one_by_one(self):
        for left, right in (([1, 2, 3], [4, 5, 6]), ([1, 3, 3], [2, 3, 5, 9]), ([7, 7], [7, 7])):
            values = left + right
            doubled = ranks.doubled_ranks(values)
            mean = len(left) * (len(values) + 1)
            observed = abs(sum(doubled[:len(left)]) - mean)
            all_sums = [abs(sum(chosen) - mean) for chosen in itertools.combinations(doubled, len(left))]
            expected = sum(distance >= observed for distance in all_sums) / len(all_sums)
            self.assertAlmostEqual(ranks.rank_test(left, right), expected)

    def test_five_runs_that_do_not_overlap_differ_and_three_do_not(self):
        self.assertTrue(ranks.differs([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]))
        self.assertFalse(ranks.differs([1, 2, 3], [4, 5, 6]))

    def test_an_interval_is_as_sure_as_it_says(self):
        self.assertEqual(ranks.median_interval([5, 1, 4, 2, 3]), (1, 5, 0.9375))
        low, high, coverage = ranks.median_interval(range(1, 10))
        self.assertEqual((low, high), (2, 8))
        self.assertAlmostEqual(coverage, 1 - 2 * 10 / 512)
        self.assertEqual(ranks.median_interval([3])[:2], (3, 3))


class Tables(unittest.TestCase):
    def test_all_that_cannot_be_told_from_the_fastest_are_bold(self):
        text = report.text(figures(allocator("a", times(1)), allocator("b", times(1.001)), allocator("c", times(2))))
        bold = re.findall(r"^\| (\w) 1\.2 \| \*\*", text, re.MULTILINE)
        self.assertEqual(bold, ["a", "b"])

    def test_larder_that_loses_is_said_to_lose(self):
        text = report.text(figures(allocator("larder", times(2), True), allocator("a", times(1)), allocator("b", times(3))))
        self.assertRegex(text, r"larder: \d+\.\d % slower than a \(p 0\.0\d+\), 1\.97 x its time")

    def test_larder_over_another_is_compared_with_that_one(self):
        text = report.text(figures(
            allocator("larder over b", times(2), True), allocator("a", times(1)), allocator("b", times(4))))
        self.assertRegex(text, r"larder over b: \d+\.\d % faster than b ")

    def test_an_allocator_that_failed_has_a_row_and_is_a_problem(self):
        data = figures(allocator("a", times(1)), allocator("b", [{"failed": "signal SIGSEGV: no message"}]))
        self.assertIn("| b 1.2 | failed |", report.text(data))
        self.assertEqual(report.problems(data), ["c under b: signal SIGSEGV: no message"])

    def test_a_reference_is_neither_bold_nor_what_larder_is_compared_with(self):
        text = report.text(figures({**allocator("r", times(1)), "is_reference": True}, allocator("a", times(2)),
                                   allocator("larder", times(2.001), True)))
        self.assertRegex(text, r"\| \*r 1\.2\* \| 1\.03 ")
        self.assertIn("larder: cannot be told from a ", text)

    def test_outputs_that_differ_are_a_problem(self):
        data = figures(allocator("a", [run(1, "x")]), allocator("b", [run(1, "y")]))
        self.assertEqual(len(report.problems(data)), 1)
        self.assertIn("outputs differ", report.problems(data)[0])
        self.assertEqual(report.problems(figures(allocator("a", [run(1)]), allocator("b", [run(2)]))), [])


class Commands(unittest.TestCase):
    def test_wrong_usage_is_said_in_one_line(self):
        for arguments in (["--cases", "nonsense"], ["--preload", "nopath"], ["--repetitions", "0"]):
            done = compare(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn("compare: error:", done.stderr.splitlines()[-1])

    def test_figures_are_printed_again_and_their_problems_too(self):
        with tempfile.TemporaryDirectory() as directory:
            good, bad = pathlib.Path(directory, "good.json"), pathlib.Path(directory, "bad.json")
            good.write_text(json.dumps(figures(allocator("a", times(1)))), "utf-8")
            bad.write_text(json.dumps(figures(allocator("a", [run(1, "x"), run(1, "y")]))), "utf-8")
            done = compare("--print", good, good)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(done.stdout.count("### Case"), 1)
            self.assertIn("14 runs each", done.stdout)
            self.assertEqual(compare("--print", bad).returncode, 1)

    def test_a_file_that_is_none_of_ours_is_refused(self):
        with tempfile.TemporaryDirectory() as directory:
            for content in ("", "{}", '{"machine": {"processor": 1}, "seed": 1, "cases": [{"title": 1}]}'):
                path = pathlib.Path(directory, "figures.json")
                path.write_text(content, "utf-8")
                done = compare("--print", path)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_no_engine_at_all_is_a_failed_job(self):
        with tempfile.TemporaryDirectory() as directory:
            done = compare("--build", BUILD, "--engines", directory, "--cases", "ort", "--quick")
        self.assertEqual(done.returncode, 1)
        self.assertIn("tools/dev engines", done.stderr)


class Engines(unittest.TestCase):
    def run_quickly(self, case, missing):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "figures.json")
            done = compare("--build", BUILD, "--quick", "--cases", case, "--json", path)
            if missing in done.stderr:
                self.skipTest(done.stderr.splitlines()[0])
            self.assertEqual(done.returncode, 0, done.stderr)
            rows = json.loads(path.read_text("utf-8"))["cases"][0]["allocators"]
            self.assertEqual([path.name for path in pathlib.Path(directory).iterdir()], ["figures.json"])
        for row in rows:
            self.assertEqual(row["runs"][0]["cycles"], 2)
            self.assertEqual(row["runs"][0]["checksum"], rows[0]["runs"][0]["checksum"])

    def test_onnx_runtime_computes_the_same_under_larder(self):
        self.run_quickly("ort_fixed", "ort left out")

    def test_pytorch_computes_the_same_under_larder(self):
        self.run_quickly("torch_fixed", "torch left out")


if __name__ == "__main__":
    unittest.main()
