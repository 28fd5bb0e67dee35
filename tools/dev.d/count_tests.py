#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints "PASSED FAILED SKIPPED" for a run of `meson test`, read from its testlog.json.

A Check suite counts by its own tests, anything else as one. A suite that fails without a failed
test of its own (it crashed, or ran out of time) adds one failure.
"""
import json
import re
import sys

CHECK_LINE = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.MULTILINE)


def count(run):
    if run["result"] == "SKIP":
        return 0, 0, 1
    lines = CHECK_LINE.findall(run.get("stdout") or "")
    checks = sum(int(total) for total, _, _ in lines)
    failed = sum(int(failures) + int(errors) for _, failures, errors in lines)
    passed = checks - failed
    if run["result"] in ("OK", "EXPECTEDFAIL"):
        return (passed, failed, 0) if lines else (1, 0, 0)
    return passed, max(failed, 1), 0


def main():
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        counts = [count(json.loads(line)) for line in log]
    print(*(sum(column) for column in zip((0, 0, 0), *counts)))


main()
