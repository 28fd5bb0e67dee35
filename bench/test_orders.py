#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/orders, pairs_table and put as their users meet them. Usage: test_orders.py ORDERS PAIRS_TABLE PUT."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ORDERS, PAIRS_TABLE, PUT = sys.argv[1:4]


def row(backend, ns, faster_than=(), trace="some/where/t.txt", gap=0):
    return {"trace": trace, "backend": backend, "gap_ms": gap, "ns_per_op": ns, "faster_than": list(faster_than)}


class Orders(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.directory = pathlib.Path(held.name)

    def write(self, name, *rows):
        path = self.directory / name
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return path

    def orders(self, *arguments):
        return subprocess.run(
            [sys.executable, ORDERS, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
        )

    def test_a_pair_that_two_runs_order_differently_is_printed_and_fails_the_job(self):
        one = self.write("1", row("a", 10, ["b"]), row("b", 12), row("c", 11))
        two = self.write("2", row("b", 10, ["a"]), row("a", 13), row("c", 11))
        three = self.write("3", row("a", 10), row("b", 10))
        result = self.orders(one, two, three)
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        self.assertEqual(
            result.stdout,
            "REVERSED t.txt: a, b: 10.0 < 12.0, 13.0 > 10.0, 10.0 ~ 10.0\n"
            "3 runs, 3 pairs: 1 ordered by some run, 0 of them by every run; 1 reversed\n",
        )

    def test_a_silent_run_and_another_trace_or_pause_contradict_nobody(self):
        one = self.write("1", row("a", 10, ["b"]), row("b", 12), row("a", 9, gap=33), row("b", 8, ["a"], gap=33))
        two = self.write("2", row("a", 10), row("b", 9), row("a", 9, ["b"], "u"), row("b", 10, (), "u"))
        three = self.write("3", row("a", 9), row("b", 8, ["a"], "u"))
        result = self.orders(one, two)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("2 runs, 1 pairs: 1 ordered by some run, 0 of them by every run; 0 reversed", result.stdout)
        self.assertEqual(self.orders(one, two, three).returncode, 0)

    def test_all_prints_what_every_run_found(self):
        one = self.write("1", row("a", 10, ["b"]), row("b", 12))
        result = self.orders(one, one, "--all")
        self.assertEqual(result.returncode, 0)
        self.assertIn("t.txt: a, b: 10.0 < 12.0, 10.0 < 12.0\n", result.stdout)
        self.assertIn("1 of them by every run; 0 reversed", result.stdout)

    def test_what_is_no_run_is_refused_with_file_and_line(self):
        good = self.write("1", row("a", 10))
        bad = self.directory / "bad"
        bad.write_text(json.dumps(row("a", 10)) + "\n{}\n")
        for arguments, code, message in (
            ((good, bad), 1, f"orders: {bad}:2: no row of `larder pick --json`"),
            ((good, self.write("empty")), 1, "empty: run `larder pick --json` again"),
            ((good, self.directory / "no"), 1, "No such file"),
            ((good,), 2, "two files at least"),
        ):
            result = self.orders(*arguments)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(message, result.stderr)
            self.assertEqual(result.stdout, "")


class PairsTable(unittest.TestCase):
    def table(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(text)
            file.flush()
            return subprocess.run([sys.executable, PAIRS_TABLE, file.name], capture_output=True, text=True, timeout=60, check=False)

    def test_a_cell_is_the_median_in_nanoseconds_and_references_are_in_italics(self):
        entries = [
            {"name": f"pair_threads/{backend}/{size}/real_time/threads:{threads}", "items_per_second": 1e9 / ns}
            for backend, size, threads, times in (
                ("larder", "1.5MiB", 2, (50, 40, 90)), ("larder", "4KiB", 1, (5.04,)), ("none", "4KiB", 1, (1.5, 1.7)))
            for ns in times
        ]
        done = self.table(json.dumps({"context": {"backend larder": "0.1.0, policy fit", "backend none": "-"}, "benchmarks": entries}))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(
            done.stdout,
            "| allocator | 4 KiB, 1 thread | 1.5 MiB, 2 threads |\n|---|---|---|\n"
            "| larder 0.1.0 | 5.0 | 50 |\n| *none* | 1.6 |  |\n",
        )

    def test_what_is_no_result_is_refused(self):
        for text in ("", "{}", '{"benchmarks": []}'):
            done = self.table(text)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertEqual(done.stderr.count("\n"), 1)


class Put(unittest.TestCase):
    def put(self, path, name, text):
        return subprocess.run([sys.executable, PUT, str(path), name], input=text, capture_output=True, text=True, timeout=60, check=False)

    def test_what_comes_in_replaces_what_is_between_the_lines_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "d.md")
            path.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n")
            self.assertEqual(self.put(path, "x", "new").returncode, 0)
            whole = "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"
            self.assertEqual(path.read_text(), whole)
            for name, text in (("y", "new"), ("x", " \n")):
                done = self.put(path, name, text)
                self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
                self.assertEqual(path.read_text(), whole)
            self.assertEqual(list(pathlib.Path(directory).iterdir()), [path])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
