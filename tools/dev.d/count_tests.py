#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints "PASSED FAILED SKIPPED" for a run of `meson test`, read from its testlog.json.

A suite of Check or of Python's unittest counts by its own tests, anything else as one. A suite that fails without a failed
test of its own (it crashed, or ran out of time) adds one failure.
"""
import json
import re
import sys

CHECK_LINE = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.MULTILINE)
UNITTEST_LINE = re.compile(r"^Ran (\d+) tests? in .*\n+(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)


def suites(run):
    """Yields (tests, failed, skipped) for each suite that says so in its output."""
    for tests, failures, errors in CHECK_LINE.findall(run.get("stdout") or ""):
        yield int(tests), int(failures) + int(errors), 0
    for tests, details in UNITTEST_LINE.findall(run.get("stderr") or ""):
        number = dict(re.findall(r"(\w+)=(\d+)", details))
        failed = int(number.get("failures", 0)) + int(number.get("errors", 0))
        yield int(tests), failed, int(number.get("skipped", 0))


def count(run):
    if run["result"] == "SKIP":
        return 0, 0, 1
    good = run["result"] in ("OK", "EXPECTEDFAIL")
    said = list(suites(run))
    if good and not said:
        said = [(1, 0, 0)]
    tests, failed, skipped = (sum(column) for column in zip((0, 0, 0), *said))
    passed = tests - failed - skipped
    return passed, failed if good else max(failed, 1), skipped


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        counts = [count(json.loads(line)) for line in log]
    print(*(sum(column) for column in zip((0, 0, 0), *counts)))


main()
