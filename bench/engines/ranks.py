# SPDX-License-Identifier: MIT
"""What may be said of a few repeated measurements: medians, their intervals, and who differs from whom.

Nothing here assumes a distribution: times on a shared machine have none that is known. Figures of one run
are not independent of each other, so the caller gives one figure a run.
"""

import math
import statistics

SIGNIFICANT = 0.05


def median_interval(values, confidence=0.95):
    """(low, high, coverage): order statistics between which the median lies, at least as surely as asked.

    Of fewer than six values not even all of them are enough for 95 %: then it is the extremes, and coverage
    says how sure that is.
    """
    ordered = sorted(values)
    count = len(ordered)

    def coverage(outside):
        tail = sum(math.comb(count, k) for k in range(outside + 1)) / 2 ** count
        return 1 - 2 * tail

    outside = 0
    while outside + 1 < count - outside - 1 and coverage(outside + 1) >= confidence:
        outside += 1
    return ordered[outside], ordered[count - 1 - outside], max(coverage(outside), 0.0)


def doubled_ranks(values):
    """Twice the rank of each value, equal ones sharing the mean of theirs: whole numbers."""
    ordered = sorted(values)
    first, last = {}, {}
    for place, value in enumerate(ordered, 1):
        first.setdefault(value, place)
        last[value] = place
    return [first[value] + last[value] for value in values]


def rank_test(left, right):
    """Two-sided p of the Mann-Whitney test, exact, with ties: by counting all ways to draw len(left) ranks.

    The chance, were both of one distribution, of a rank sum at least as far from its mean as this one.
    """
    ranks = doubled_ranks([*left, *right])
    observed = sum(ranks[:len(left)])
    ways = [{0: 1}] + [{} for _ in left]  # by how many are drawn: sum of their ranks -> number of ways
    for rank in ranks:
        for drawn in range(len(left), 0, -1):
            for total, number in ways[drawn - 1].items():
                ways[drawn][total + rank] = ways[drawn].get(total + rank, 0) + number
    sums = ways[len(left)]
    mean = len(left) * (len(ranks) + 1)
    distance = abs(observed - mean)
    far = sum(number for total, number in sums.items() if abs(total - mean) >= distance)
    return far / sum(sums.values())


def differs(left, right):
    return rank_test(left, right) < SIGNIFICANT


def median(values):
    return statistics.median(values)
