#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The report of `larder pick --html`, looked at in a browser. Usage: test_report.py LARDER REPORT.

Skipped where gnuplot is missing; what takes a browser, where chromium is. No test looks at a time.
"""

import html.parser
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

LARDER, REPORT = sys.argv[1:3]
TRACE = "".join(
    f"7: malloc {hex(0x1000 * (i + 1))} {(i + 1) * 3000}\n" for i in range(40)
) + "".join(f"7: free {hex(0x1000 * (i + 1))}\n" for i in range(40))
CHARTS = ("Time against memory", "Live and held bytes", "Page faults by pause", "Scaling by threads", "Sizes asked for")


def chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser")


def browse(directory, *arguments):
    """What a browser that may not reach any network says of the page."""
    profile = tempfile.mkdtemp(dir=directory)
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--hide-scrollbars"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)


def pixels(path):
    """(width, height, rows) of a PNG of 8 bits a channel, without interlacing."""
    data = pathlib.Path(path).read_bytes()
    at, packed, width, height, channels = 8, b"", 0, 0, 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", data[at + 8 : at + 18])
            channels = {2: 3, 6: 4}[colour]
            assert depth == 8
        elif kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    raw, rows, before = zlib.decompress(packed), [], bytes(width * channels)
    for y in range(height):
        line = bytearray(raw[y * (width * channels + 1) + 1 : (y + 1) * (width * channels + 1)])
        filtering = raw[y * (width * channels + 1)]
        for x in range(len(line)):
            left = line[x - channels] if x >= channels else 0
            above = before[x]
            corner = before[x - channels] if x >= channels else 0
            if filtering == 1:
                line[x] = (line[x] + left) & 255
            elif filtering == 2:
                line[x] = (line[x] + above) & 255
            elif filtering == 3:
                line[x] = (line[x] + (left + above) // 2) & 255
            elif filtering == 4:
                guess = left + above - corner
                nearest = min((abs(guess - left), 0, left), (abs(guess - above), 1, above), (abs(guess - corner), 2, corner))
                line[x] = (line[x] + nearest[2]) & 255
        before = bytes(line)
        rows.append([tuple(before[x : x + 3]) for x in range(0, len(before), channels)])
    return width, height, rows


@unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is missing (Debian: gnuplot-nox)")
class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory(prefix="larder-report-")
        directory = pathlib.Path(cls.place.name)
        trace = directory / "small <&> trace.txt"
        trace.write_text(TRACE, encoding="ascii")
        cls.page = directory / "report.html"
        command = [LARDER, "pick", trace, "--passes", "3", "--repetitions", "3", "--gaps", "0,1"]
        command += ["--backends", "larder,system,c10-design,none", "--html", cls.page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        cls.text = cls.page.read_text(encoding="utf-8")

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def test_every_chart_is_there_with_something_drawn(self):
        for title in CHARTS:
            found = re.search(rf'<svg[^>]*aria-label="{title}[^"]*".*?</svg>', self.text, re.S)
            self.assertIsNotNone(found, title)
            self.assertGreater(len(re.findall("<(path|rect|use|circle|polygon)", found[0])), 5, title)
            self.assertIn("var(--s", found[0])
            self.assertIn("var(--ink)", found[0])

    def test_no_colour_of_gnuplots_is_left(self):
        svgs = "".join(re.findall(r"<svg.*?</svg>", self.text, re.S))
        self.assertNotRegex(svgs, r"#0[aA]0[bB]|#010203|#010204|rgb\( *1, *2,")

    def test_it_names_the_machine_every_version_and_the_recommended(self):
        for part in ("Machine and versions", "larder 0.", "recommended", "processor", "huge pages"):
            self.assertIn(part, self.text)
        self.assertIn("small &lt;&amp;&gt; trace", self.text)

    def test_it_refers_to_nothing_outside_itself(self):
        class Finder(html.parser.HTMLParser):
            found = []

            def handle_starttag(self, tag, attributes):
                for name, value in attributes:
                    if name in ("src", "href", "xlink:href", "data", "action") and not value.startswith("#"):
                        self.found.append((tag, name, value))
                if tag in ("script", "link", "iframe", "img"):
                    self.found.append((tag, "", ""))

        finder = Finder()
        finder.feed(self.text)
        self.assertEqual(finder.found, [])
        self.assertNotRegex(self.text, r"url\((?!#|'#)|@import")

    def test_a_browser_draws_every_chart_at_its_size(self):
        if not chromium():
            self.skipTest("chromium is missing (Debian: chromium)")
        # A copy that measures itself: the report has no script.
        measured = self.page.with_name("measured.html")
        script = """<script>onload=()=>{let r=[...document.querySelectorAll('figure svg')].map(s=>{let b=s.getBoundingClientRect();
            return {label:s.getAttribute('aria-label'),width:b.width,height:b.height,drawn:[...s.querySelectorAll('path,use,circle,rect')]
            .filter(e=>{let q=e.getBoundingClientRect();return q.width>0||q.height>0}).length}});
            let n=performance.getEntriesByType('resource').map(e=>e.name);
            document.body.textContent='MEASURED'+JSON.stringify({charts:r,requests:n})+'END'}</script></body>"""
        measured.write_text(self.text.replace("</body>", script), encoding="utf-8")
        done = browse(self.place.name, "--virtual-time-budget=3000", "--dump-dom", measured.as_uri())
        found = re.search("MEASURED(.*?)END</body>", done.stdout, re.S)
        self.assertIsNotNone(found, done.stderr[-2000:])
        result = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
        self.assertEqual(result["requests"], [])
        self.assertEqual(len(result["charts"]), len(CHARTS))
        for chart in result["charts"]:
            self.assertGreater(chart["width"], 300, chart)
            self.assertGreater(chart["height"], 100, chart)
            self.assertGreater(chart["drawn"], 10, chart)

    def test_it_is_light_and_dark_as_the_reader_wants_it(self):
        if not chromium():
            self.skipTest("chromium is missing (Debian: chromium)")
        papers = {}
        for scheme, value in (("light", 1), ("dark", 0)):
            picture = self.page.with_name(f"{scheme}.png")
            done = browse(
                self.place.name,
                f"--blink-settings=preferredColorScheme={value}",
                "--window-size=700,500",
                f"--screenshot={picture}",
                self.page.as_uri(),
            )
            self.assertTrue(picture.exists(), done.stderr[-2000:])
            width, height, rows = pixels(picture)
            corner = rows[height - 1][1]
            papers[scheme] = sum(corner) / 3
            self.assertGreater(len({pixel for row in rows for pixel in row}), 20, scheme)
            self.assertGreater(width, 300)
        self.assertGreater(papers["light"], 200)
        self.assertLess(papers["dark"], 60)


class Mistakes(unittest.TestCase):
    def report(self, text):
        command = [sys.executable, REPORT, "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def test_what_is_no_figure_is_told_with_its_line(self):
        for text in ("nonsense\n", '{"kind": "nonsense"}\n', "[]\n"):
            done = self.report(text)
            self.assertEqual((done.returncode, done.stdout), (1, ""), text)
            self.assertRegex(done.stderr, r"^report: -:1: .*\n$")
        self.assertEqual(self.report("").returncode, 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
