/* SPDX-License-Identifier: MIT */
/*
 * What can be said of a few repetitions without assuming how they are distributed.
 *
 * Times on a shared machine are skewed, with outliers on one side: means and t-tests mislead. What is
 * used instead knows only which of two values is larger.
 */
#ifndef LARDER_TOOLS_PICK_RANK_H
#define LARDER_TOOLS_PICK_RANK_H

#include <stddef.h>

/* Two samples together may have so many values. */
#define RANK_VALUES_MAX 256

/* The median; sorts the values. 0 for none. */
double rank_median(double *values, size_t count);

/*
 * An interval that holds the median of what the values were drawn from, by order statistics: with
 * `low` the k-th least and `high` the k-th most, that is so with a probability of 1 minus twice the
 * chance of fewer than k heads in `count` tosses. k is as large as leaves 95 %; where even the
 * least and the most do not reach that (fewer than 6 values), they are what is given. Sorts the values.
 */
struct rank_interval {
    double low, high;
    double coverage; /* 0 to 1 */
};
struct rank_interval rank_median_interval(double *values, size_t count);

/*
 * The two-sided p-value of the Mann-Whitney (Wilcoxon rank-sum) test: how likely samples at least as
 * different would be if both came from the same source. Exact, ties included, by counting all ways to
 * deal the ranks out, up to 40 values in all; beyond, by the normal approximation with ties corrected. 1
 * where one has no values. Source: H. B. Mann, D. R. Whitney, "On a test of whether one of two random
 * variables is stochastically larger than the other", 1947.
 */
double rank_test(const double *a, size_t a_count, const double *b, size_t b_count);

/*
 * Holm's correction for many tests at once: replaces the p-values by ones that may each be held
 * against the level of a single test. Source: S. Holm, "A simple sequentially rejective multiple test
 * procedure", 1979. At most RANK_TESTS_MAX.
 */
#define RANK_TESTS_MAX 512
void rank_holm(double *p_values, size_t count);

#endif
