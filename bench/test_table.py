#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/table as its users meet it. Usage: test_table.py TABLE."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TABLE = sys.argv[1]
BEGIN = "<!-- figures: begin -->\n"
END = "<!-- figures: end -->\n"


def figure(trace, backend, **others):
    values = {
        "trace": f"some/where/{trace}.txt",
        "backend": backend,
        "version": "1.2",
        "candidate": True,
        "recommended": False,
        "ns_per_op": 123.4,
        "faults_per_pass": 7.0,
        "peak_rss_bytes": 3000,
        "peak_live_bytes": 2000,
    }
    return json.dumps({**values, **others}) + "\n"


def table(*arguments, figures=""):
    return subprocess.run(
        [sys.executable, TABLE, *map(str, arguments)],
        input=figures,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Table(unittest.TestCase):
    def test_a_row_an_allocator_a_column_a_trace_bold_what_is_recommended(self):
        done = table(
            "-",
            figures=figure("one", "a", recommended=True)
            + figure("one", "none", candidate=False, version="-", ns_per_op=1.23)
            + figure("two", "a", peak_rss_bytes=None),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(
            done.stdout,
            "| allocator | one | two |\n"
            "|---|---|---|\n"
            "| a 1.2 | **123 / 7 / 1.50x** | 123 / 7 / ? |\n"
            "| *none* | 1.2 / 7 / 1.50x | failed |\n",
        )

    def test_replays_with_pauses_are_not_in_it(self):
        done = table("-", figures=figure("one", "a") + figure("one", "a", main=False, ns_per_op=999))
        self.assertEqual(done.stdout.splitlines()[2:], ["| a 1.2 | 123 / 7 / 1.50x |"])

    def test_update_replaces_what_is_between_the_marks_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "text.md")
            path.write_text("before\n" + BEGIN + "old\n" + END + "after\n", "utf-8")
            for _ in range(2):
                done = table("-", "--update", path, figures=figure("one", "a"))
                self.assertEqual((done.returncode, done.stdout), (0, ""))
                text = path.read_text("utf-8")
                self.assertTrue(text.startswith("before\n" + BEGIN + "| allocator | one |\n"))
                self.assertTrue(text.endswith("| a 1.2 | 123 / 7 / 1.50x |\n" + END + "after\n"))
            self.assertEqual([file.name for file in pathlib.Path(directory).iterdir()], ["text.md"])

    def test_without_marks_the_file_stays_and_is_named(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "text.md")
            path.write_text("before\n" + BEGIN, "utf-8")
            done = table("-", "--update", path, figures=figure("one", "a"))
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(path), done.stderr)
            self.assertEqual(path.read_text("utf-8"), "before\n" + BEGIN)

    def test_what_is_wrong_is_told_with_its_line(self):
        for wrong in ("no JSON\n", "[]\n", "3\n", '{"trace": "t"}\n'):
            done = table("-", figures=figure("one", "a") + wrong)
            self.assertEqual(done.returncode, 1, wrong)
            self.assertIn("table: -:2: ", done.stderr)
        for done in (table("-"), table("/nowhere/figures")):
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, "^table: (-|/nowhere/figures): ")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
