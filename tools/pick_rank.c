/* SPDX-License-Identifier: MIT */
/* Order statistics and rank tests: see pick_rank.h. */
#include "pick_rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_VALUES_MAX 40
/* Ranks are doubled, so that ties, which share a mean rank, stay whole numbers. */
#define EXACT_SUM_MAX (EXACT_VALUES_MAX * (EXACT_VALUES_MAX + 1))

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rank_median(double *values, size_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* The chance of at most `heads` heads in `tosses` tosses of a fair coin. */
static double tosses_at_most(size_t heads, size_t tosses)
{
    double sum = 0;
    for (size_t i = 0; i <= heads; i++) {
        sum += exp(lgamma((double)tosses + 1) - lgamma((double)i + 1) -
                   lgamma((double)(tosses - i) + 1) - (double)tosses * log(2));
    }
    return sum;
}

struct rank_interval rank_median_interval(double *values, size_t count)
{
    struct rank_interval interval = {0, 0, 0};
    if (count == 0) {
        return interval;
    }
    qsort(values, count, sizeof *values, compare_doubles);
    size_t k = 1;
    while (2 * (k + 1) <= count && 1 - 2 * tosses_at_most(k, count) >= 0.95) {
        k++;
    }
    interval.low = values[k - 1];
    interval.high = values[count - k];
    interval.coverage = count == 1 ? 0 : 1 - 2 * tosses_at_most(k - 1, count);
    return interval;
}

struct ranked {
    double value;
    unsigned doubled_rank;
    int of_first;
};

static int compare_ranked(const void *a, const void *b)
{
    return compare_doubles(&((const struct ranked *)a)->value, &((const struct ranked *)b)->value);
}

/* Sorts and ranks them; returns the sum of t^3 - t over groups of t equal values. */
static double assign_ranks(struct ranked *all, size_t count)
{
    double ties = 0;
    qsort(all, count, sizeof *all, compare_ranked);
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && all[end].value <= all[begin].value; end++) {
        }
        for (size_t i = begin; i < end; i++) {
            all[i].doubled_rank = (unsigned)(begin + 1 + end);
        }
        double equal = (double)(end - begin);
        ties += equal * equal * equal - equal;
    }
    return ties;
}

/*
 * ways[n][s]: how many sets of n of the ranks have the sum s. All ways fit a double exactly: there
 * are fewer than 2^38.
 */
static double exact_p(const struct ranked *all, size_t count, size_t first_count, unsigned sum)
{
    size_t width = EXACT_SUM_MAX + 1;
    double *ways = calloc((first_count + 1) * width, sizeof *ways);
    if (ways == NULL) {
        return 1;
    }
    ways[0] = 1;
    for (size_t i = 0; i < count; i++) {
        unsigned rank = all[i].doubled_rank;
        for (size_t n = first_count < i + 1 ? first_count : i + 1; n > 0; n--) {
            double *with = ways + n * width;
            const double *without = ways + (n - 1) * width;
            for (size_t s = width; s-- > rank;) {
                with[s] += without[s - rank];
            }
        }
    }
    double mean = (double)first_count * (double)(count + 1); /* of the doubled sum */
    double far = fabs((double)sum - mean), as_far = 0, total = 0;
    for (size_t s = 0; s < width; s++) {
        double here = ways[first_count * width + s];
        total += here;
        as_far += fabs((double)s - mean) >= far - 0.5 ? here : 0;
    }
    free(ways);
    return as_far / total;
}

static double normal_p(size_t count, size_t first_count, unsigned sum, double ties)
{
    double n = (double)count, a = (double)first_count, b = n - a;
    double mean = a * (n + 1) / 2;
    double variance = a * b / 12 * (n + 1 - ties / (n * (n - 1)));
    double far = fabs((double)sum / 2 - mean) - 0.5;
    return variance <= 0 || far <= 0 ? 1 : erfc(far / sqrt(2 * variance));
}

double rank_test(const double *a, size_t a_count, const double *b, size_t b_count)
{
    struct ranked all[RANK_VALUES_MAX];
    size_t count = a_count + b_count;
    unsigned sum = 0;
    if (a_count == 0 || b_count == 0 || count > RANK_VALUES_MAX) {
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        all[i] = (struct ranked){i < a_count ? a[i] : b[i - a_count], 0, i < a_count};
    }
    double ties = assign_ranks(all, count);
    for (size_t i = 0; i < count; i++) {
        sum += all[i].of_first ? all[i].doubled_rank : 0;
    }
    return count <= EXACT_VALUES_MAX ? exact_p(all, count, a_count, sum)
                                     : normal_p(count, a_count, sum, ties);
}

/* For compare_by_p() while qsort() runs: it takes no context. */
static const double *holm_values;

static int compare_by_p(const void *a, const void *b)
{
    return compare_doubles(&holm_values[*(const size_t *)a], &holm_values[*(const size_t *)b]);
}

void rank_holm(double *p_values, size_t count)
{
    size_t order[RANK_TESTS_MAX];
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
    }
    holm_values = p_values;
    qsort(order, count, sizeof order[0], compare_by_p);
    for (size_t i = 0; i < count; i++) {
        double corrected = p_values[order[i]] * (double)(count - i);
        largest = fmin(1, fmax(largest, corrected));
        p_values[order[i]] = largest;
    }
}
