#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints how much of each core module the tests reach, and which lines they do not, from gcovr's JSON report.

Usage: core_coverage.py REPORT. Fails, after printing, where a module is below 95 % of its lines or 85 % of its branches.
"""
import json
import pathlib
import sys

LINES, BRANCHES = 95, 85  # per cent, at least

# Module: its files in lib/.
CORE = {
    'map': ['allocation_map.c', 'lookup.c'],
    'magazine': ['magazine.c', 'fit_magazines.c', 'fit_runs.c', 'bin.h'],
    'depot': ['depot.c', 'depot.h'],
    'span heap': ['span_bins.h', 'span_figures.c', 'span_heap.c', 'span_heap.h', 'span_loop.c', 'span_loop.h', 'span_pages.c', 'span_pages.h',
                  'span_plan.c', 'span_purge.c', 'span_put.c', 'span_remote.c', 'span_remote.h', 'span_settle.c', 'span_take.c'],
    'cache': ['cache.c', 'cache.h', 'give_back.c'],
}


def ranges(numbers):
    """[1, 2, 3, 7] as "1-3, 7"."""
    result = []
    for number in sorted(numbers):
        if result and number == result[-1][1] + 1:
            result[-1][1] = number
        else:
            result.append([number, number])
    return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in result)


def percent(part, whole):
    return 100 * part / whole if whole else 100.0


def judge(module, names, files):
    """Prints the module's line and its files' missing lines; true if it is within the bounds."""
    lines = [line for name in names for line in files[name] if not line.get('gcovr/noncode')]
    branches = [branch for line in lines for branch in line['branches']]
    line_share = percent(sum(line['count'] > 0 for line in lines), len(lines))
    branch_share = percent(sum(branch['count'] > 0 for branch in branches), len(branches))
    good = line_share >= LINES and branch_share >= BRANCHES
    missing = []
    for name in names:
        unreached = ranges(line['line_number'] for line in files[name]
                           if not line.get('gcovr/noncode') and line['count'] == 0)
        if unreached:
            missing.append(f'{name} {unreached}')
    print(f'{module:<10} {line_share:5.1f} % of {len(lines):4} lines, {branch_share:5.1f} % of {len(branches):4} branches'
          + ('' if good else f'  TOO LITTLE (at least {LINES} and {BRANCHES})')
          + (f'; not reached: {"; ".join(missing)}' if missing else ''))
    return good


def main():
    report = json.loads(pathlib.Path(sys.argv[1]).read_text())
    files = {pathlib.PurePath(file['file']).name: file['lines'] for file in report['files']
             if pathlib.PurePath(file['file']).parent.name == 'lib'}
    absent = [name for names in CORE.values() for name in names if name not in files]
    if absent:
        sys.exit(f'core_coverage.py: {sys.argv[1]}: says nothing of {", ".join(absent)}: '
                 'where a file has another name now, change CORE')
    return 0 if all([judge(module, names, files) for module, names in CORE.items()]) else 1


if __name__ == '__main__':
    sys.exit(main())
