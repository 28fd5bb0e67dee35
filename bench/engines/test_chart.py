#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The drawing and the table of the engines' figures. Usage: test_chart.py [unittest arguments]. Without gnuplot, only what needs none."""
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

CHART = pathlib.Path(__file__).resolve().parent / "chart"
SUMMARY = CHART.with_name("summary")
# A run's time, as compare keeps it: the median of its cycles, or all of them.
MS = float
BEGIN, END = "<!-- engines: begin -->\n", "<!-- engines: end -->\n"


def allocator(name, ms, faults, is_larder=False, **more):
    run = {"engine": "Engine 1", "checksum": "a", "ms": MS(ms), "faults_per_inference": faults, "peak_rss_kib": 100 << 10,
           "rss_kib": 1, "process_peak_rss_kib": 200 << 10, **more}
    return {"name": name, "version": "1.2", "is_larder": is_larder, "runs": [run] * 3}


FIGURES = {
    "machine": {"processor": "p", "processors": 2, "system": "s", "kernel": "k", "huge_pages": "never"},
    "seed": 1,
    "cases": [
        {"case": "one", "title": "Case <one> & \"more\"", "allocators": [
            allocator("larder", 5.5, 0, True), allocator("system", 7.25, 4524), allocator("broken", 1, 1, failed="why")]},
        {"case": "two", "title": "Case two", "allocators": [allocator("other", 138.6, 3496)]},
    ],
}


class ChartTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="larder-chart-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.figures = self.folder / "figures.json"
        self.figures.write_text(json.dumps(FIGURES))
        self.svg = self.folder / "chart.svg"

    def chart(self, *arguments):
        return subprocess.run([CHART, self.figures, "--output", self.svg, *arguments], capture_output=True, text=True,
                              timeout=60, check=False)

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is missing (Debian: gnuplot-nox)")
    def test_a_drawing_has_all_names_and_figures_and_no_ground(self):
        done = self.chart()
        self.assertEqual((done.stderr, done.returncode), ("", 0))
        root = xml.etree.ElementTree.parse(self.svg).getroot()
        words = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
        words = re.sub(r"\s+", " ", words)
        for expected in ("Case <one> & \"more\"", "Case two", "larder 1.2", "system 1.2", "other 1.2", "5.5", "7.2", "4,524",
                         "139", "3,496", "100"):
            self.assertIn(expected, words)
        self.assertNotIn("broken", words)
        ground = next(element for element in root.iter() if element.tag.endswith("}rect"))
        self.assertEqual(ground.get("fill"), "none")

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is missing (Debian: gnuplot-nox)")
    def test_the_same_figures_give_the_same_file(self):
        self.chart("--cases", "two")
        first = self.svg.read_bytes()
        self.chart("--cases", "two")
        self.assertEqual(self.svg.read_bytes(), first)
        self.assertNotIn(b"larder 1.2", first)

    def test_what_is_no_figures_is_said_and_no_file_is_left(self):
        for text in ("", "{}", "[1]", json.dumps({**FIGURES, "cases": [{"case": "one"}]})):
            self.figures.write_text(text)
            done = self.chart()
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"^chart: .*figures\.json: .*\n$")
            self.assertEqual([path.name for path in self.folder.iterdir()], ["figures.json"])

    def test_an_unknown_case_is_said_with_those_that_there_are(self):
        done = self.chart("--cases", "three")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no case three; it has one, two", done.stderr)


class SummaryTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="larder-summary-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.figures = self.folder / "figures.json"
        self.figures.write_text(json.dumps(FIGURES))

    def summary(self, *arguments):
        return subprocess.run([SUMMARY, self.figures, *arguments], capture_output=True, text=True, timeout=60, check=False)

    def test_each_allocator_has_a_row_and_each_case_a_column(self):
        done = self.summary()
        self.assertEqual((done.stderr, done.returncode), ("", 0))
        self.assertEqual(done.stdout.splitlines()[:6], [
            "| allocator | Case <one> & \"more\" | Case two |",
            "|---|---|---|",
            "| larder 1.2 | **5.50 / 0.0 / 100** |  |",
            "| system 1.2 | **7.25 / 4,524 / 100** |  |",  # three runs cannot tell them apart
            "| broken 1.2 | failed |  |",
            "| other 1.2 |  | **138.6 / 3,496 / 100** |",
        ])
        self.assertIn("medians of 3 runs each", done.stdout)

    def test_what_is_measured_anew_takes_the_place_of_its_former_runs_among_those_kept(self):
        compare, kept = CHART.with_name("compare"), self.folder / "kept.json"
        figures = json.loads(self.figures.read_text())

        def keep(**change):
            one = {**figures, **change}
            self.figures.write_text(json.dumps(one))
            subprocess.run([compare, "--print", self.figures, "--keep", kept], capture_output=True, timeout=60, check=False)
            return json.loads(kept.read_text())

        self.assertEqual(keep(), figures)
        first, second = figures["cases"]
        renamed = {**first, "title": "anew"}
        self.assertEqual(keep(cases=[renamed])["cases"], [renamed, second])

    def test_an_update_replaces_what_is_between_the_marks_and_nothing_else(self):
        document = self.folder / "README.md"
        document.write_text(f"before\n{BEGIN}old\n{END}after\n")
        for _ in range(2):
            self.assertEqual(self.summary("--cases", "two", "--update", document).returncode, 0)
        table = self.summary("--cases", "two").stdout
        self.assertEqual(document.read_text(), f"before\n{BEGIN}{table}{END}after\n")

    def test_a_file_without_marks_stays_as_it_is(self):
        document = self.folder / "README.md"
        for text in ("nothing", BEGIN, END + BEGIN, BEGIN + BEGIN + END):
            document.write_text(text)
            done = self.summary("--update", document)
            self.assertEqual(done.returncode, 1)
            self.assertIn("README.md: needs the lines", done.stderr)
            self.assertEqual(document.read_text(), text)
        self.assertEqual(len(list(self.folder.iterdir())), 2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
