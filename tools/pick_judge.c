/* SPDX-License-Identifier: MIT */
/*
 * Which allocator to use.
 *
 * The score is time x sqrt(footprint), each as a ratio to the best of the trace: twice the time
 * weighs as much as four times the memory, since an engine's weights usually outweigh its tensors.
 * --prefer time scores time alone, --prefer memory footprint x sqrt(time). Where nothing is touched,
 * resident memory says nothing of an allocator, and time alone counts.
 *
 * A difference counts only if it is more than 2 % and a rank test tells it from chance: Mann-Whitney over the
 * repetitions, with Holm's correction over all comparisons made with the best score of the case. Among those
 * that are not told apart, fewer page faults decide, which are in the time already where memory is touched
 * but hurt a real engine more, then the score. With so few repetitions that no test could ever find
 * a difference, a score within 5 % counts as equal instead, and the report says so.
 *
 * Which allocator is faster than which is tested in the same way, over all pairs of the case. The 2 %
 * matter there, too: where a page lands or how often a pass was repeated moves a run of the whole command by so much,
 * for all its repetitions alike, and no test within the run can see that.
 *
 * Over several traces scores are averaged geometrically, repetition by repetition, and tested again.
 */
#include <math.h>
#include <string.h>

#include "pick.h"

static double ns_of(const struct pick_sample *sample)
{
    return sample->ns_per_op;
}

static double faults_of(const struct pick_sample *sample)
{
    return sample->faults_per_pass;
}

static size_t read_samples(const struct pick_row *row, double (*field)(const struct pick_sample *),
                           double *out)
{
    for (size_t i = 0; i < row->sample_count; i++) {
        out[i] = field(&row->samples[i]);
    }
    return row->sample_count;
}

static double median_of(const struct pick_row *row, double (*field)(const struct pick_sample *))
{
    double values[PICK_REPETITIONS_MAX];
    return rank_median(values, read_samples(row, field, values));
}

static uint64_t median_count(const struct pick_row *row, size_t offset)
{
    double values[PICK_REPETITIONS_MAX];
    for (size_t i = 0; i < row->sample_count; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&row->samples[i] + offset, sizeof value);
        if (value == UINT64_MAX) {
            return UINT64_MAX;
        }
        values[i] = (double)value;
    }
    return (uint64_t)rank_median(values, row->sample_count);
}

static void compute_median(struct pick_row *row)
{
    double values[PICK_REPETITIONS_MAX];
    row->median = row->samples[0];
    row->median.ns_per_op = median_of(row, ns_of);
    row->median.faults_per_pass = median_of(row, faults_of);
    row->median.peak_rss_bytes = median_count(row, offsetof(struct pick_sample, peak_rss_bytes));
    row->median.held_bytes = median_count(row, offsetof(struct pick_sample, held_bytes));
    row->median.peak_held_bytes = median_count(row, offsetof(struct pick_sample, peak_held_bytes));
    row->median.passes = median_count(row, offsetof(struct pick_sample, passes));
    for (size_t i = 0; i < row->sample_count; i++) {
        row->median.ns_per_op_min = fmin(row->median.ns_per_op_min, row->samples[i].ns_per_op_min);
        row->median.ns_per_op_max = fmax(row->median.ns_per_op_max, row->samples[i].ns_per_op_max);
    }
    row->ns_interval = rank_median_interval(values, read_samples(row, ns_of, values));
}

static bool footprint_counts(const struct pick *pick)
{
    return strcmp(pick->options->replay.touch, "none") != 0;
}

static double footprint_of_sample(const struct pick_sample *sample)
{
    uint64_t bytes = sample->peak_rss_bytes;
    return (double)(bytes > PICK_FOOTPRINT_FLOOR ? bytes : PICK_FOOTPRINT_FLOOR);
}

static double footprint_of(const struct pick_row *row)
{
    return footprint_of_sample(&row->median);
}

static bool is_candidate(const struct pick *pick, const struct pick_row *rows, size_t backend)
{
    return pick->backends[backend].candidate && rows[backend].sample_count > 0;
}

/* The candidate with the least value, or PICK_NOBODY; the first of equals. */
static size_t least(const struct pick *pick, const struct pick_row *rows,
                    double (*value)(const struct pick_row *))
{
    size_t found = PICK_NOBODY;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (is_candidate(pick, rows, b) &&
            (found == PICK_NOBODY || value(&rows[b]) < value(&rows[found]))) {
            found = b;
        }
    }
    return found;
}

static double median_ns(const struct pick_row *row)
{
    return row->median.ns_per_op;
}

static double median_faults(const struct pick_row *row)
{
    return row->median.faults_per_pass;
}

static double score_of(const struct pick_row *row)
{
    return row->score;
}

static double time_ratio_of(const struct pick_row *row)
{
    return row->time_ratio;
}

static double footprint_ratio_of(const struct pick_row *row)
{
    return row->footprint_ratio;
}

static double score(enum pick_preference preference, double time_ratio, double footprint_ratio)
{
    switch (preference) {
    case PICK_TIME:
        return time_ratio;
    case PICK_MEMORY:
        return footprint_ratio * sqrt(time_ratio);
    default:
        return time_ratio * sqrt(footprint_ratio);
    }
}

/* Scores of single repetitions, by backend. */
struct score_samples {
    double values[PICK_BACKENDS_MAX][PICK_REPETITIONS_MAX];
};

/* Whether a test of so many values each could find anything at all, one of `tests`. */
static bool is_testable(size_t a_count, size_t b_count, size_t tests)
{
    double ways = 1;
    for (size_t i = 1; i <= b_count; i++) {
        ways = ways * (double)(a_count + i) / (double)i;
    }
    return tests > 0 && 2 / ways * (double)tests <= PICK_LEVEL;
}

/*
 * Marks the rows whose score is not told from that of `best`; returns whether the test could have
 * told any.
 */
static bool mark_close(const struct pick *pick, struct pick_row *rows, size_t best,
                       const struct score_samples *samples)
{
    double p_values[PICK_BACKENDS_MAX];
    size_t tested[PICK_BACKENDS_MAX], tests = 0;
    bool testable = false;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (b != best && is_candidate(pick, rows, b) && !rows[b].hopeless) {
            p_values[tests] = rank_test(samples->values[best], rows[best].sample_count,
                                        samples->values[b], rows[b].sample_count);
            tested[tests++] = b;
        }
        rows[b].close = b == best;
    }
    rank_holm(p_values, tests);
    for (size_t i = 0; i < tests; i++) {
        struct pick_row *row = &rows[tested[i]];
        bool can = is_testable(rows[best].sample_count, row->sample_count, tests);
        double limit = can ? PICK_EQUAL : PICK_CLOSE;
        row->close = row->score <= rows[best].score * limit || (can && p_values[i] > PICK_LEVEL);
        testable = testable || can;
    }
    return testable;
}

/* Among those close to the best score the one with the fewest faults, then with the best score. */
static size_t choose(const struct pick *pick, struct pick_row *rows,
                     const struct score_samples *samples, bool *tested)
{
    size_t best = least(pick, rows, score_of);
    size_t choice = best;
    if (best == PICK_NOBODY) {
        return best;
    }
    *tested = mark_close(pick, rows, best, samples);
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (is_candidate(pick, rows, b) && rows[b].close &&
            median_faults(&rows[b]) < median_faults(&rows[choice]) - 0.5) {
            choice = b;
        }
    }
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (is_candidate(pick, rows, b) && rows[b].close &&
            median_faults(&rows[b]) < median_faults(&rows[choice]) + 0.5 &&
            rows[b].score < rows[choice].score) {
            choice = b;
        }
    }
    return choice;
}

/* Whether a pair is in the family of tests: with one run there is nothing to test, and no test is spent on it. */
static bool is_pair(const struct pick_row *a, const struct pick_row *b)
{
    return a->sample_count > 1 && b->sample_count > 1;
}

/* Which of all pairs differ in time. */
static void compare_times(const struct pick *pick, struct pick_row *rows)
{
    double p_values[PICK_BACKENDS_MAX * PICK_BACKENDS_MAX / 2];
    double a[PICK_REPETITIONS_MAX], b[PICK_REPETITIONS_MAX];
    size_t tests = 0;
    for (size_t i = 0; i < pick->backend_count; i++) {
        rows[i].beats = 0;
        for (size_t j = 0; j < i; j++) {
            if (is_pair(&rows[i], &rows[j])) {
                p_values[tests++] = rank_test(a, read_samples(&rows[i], ns_of, a), b,
                                              read_samples(&rows[j], ns_of, b));
            }
        }
    }
    rank_holm(p_values, tests);
    tests = 0;
    for (size_t i = 0; i < pick->backend_count; i++) {
        for (size_t j = 0; j < i; j++) {
            bool first = median_ns(&rows[i]) < median_ns(&rows[j]);
            const struct pick_row *fast = &rows[first ? i : j], *slow = &rows[first ? j : i];
            if (is_pair(fast, slow) && p_values[tests++] <= PICK_LEVEL &&
                median_ns(slow) > PICK_EQUAL * median_ns(fast)) {
                rows[first ? i : j].beats |= UINT32_C(1) << (first ? j : i);
            }
        }
    }
}

/* Footprints are compared only where every candidate's is known. */
static bool footprints_known(const struct pick *pick, const struct pick_case *one)
{
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (is_candidate(pick, one->rows, b) && one->rows[b].median.peak_rss_bytes == UINT64_MAX) {
            return false;
        }
    }
    return footprint_counts(pick);
}

static void rank_times(const struct pick *pick, struct pick_row *rows)
{
    for (size_t b = 0; b < pick->backend_count; b++) {
        rows[b].time_rank = is_candidate(pick, rows, b) ? 1 : 0;
        for (size_t other = 0; other < pick->backend_count && rows[b].time_rank > 0; other++) {
            rows[b].time_rank += is_candidate(pick, rows, other) &&
                                 time_ratio_of(&rows[other]) < time_ratio_of(&rows[b]);
        }
    }
}

/* Sets scores by each preference in turn, the asked one last, and chooses by it. */
static void choose_by_all(const struct pick *pick, struct pick_row *rows,
                          void (*read)(const struct pick *, enum pick_preference, const void *,
                                       struct score_samples *),
                          const void *from, struct pick_verdict *verdict)
{
    static struct score_samples samples; /* 25 kB; the tool has one thread */
    enum pick_preference asked = pick->options->preference;
    for (unsigned i = 0; i < PICK_PREFERENCES; i++) {
        enum pick_preference preference =
            (enum pick_preference)((asked + 1 + i) % PICK_PREFERENCES);
        for (size_t b = 0; b < pick->backend_count; b++) {
            rows[b].score = score(preference, rows[b].time_ratio, rows[b].footprint_ratio);
        }
        read(pick, preference, from, &samples);
        verdict->by[preference] = choose(pick, rows, &samples, &verdict->tested);
    }
    verdict->choice = verdict->by[asked];
}

/* Ratios of one repetition to the bests' medians. */
static void sample_ratios(const struct pick_case *one, size_t backend, size_t sample, double *time,
                          double *footprint)
{
    const struct pick_verdict *verdict = &one->verdict;
    const struct pick_sample *s = &one->rows[backend].samples[sample];
    *time = s->ns_per_op / median_ns(&one->rows[verdict->fastest]);
    *footprint = verdict->smallest == PICK_NOBODY
                     ? 1
                     : footprint_of_sample(s) / footprint_of(&one->rows[verdict->smallest]);
}

static void read_case_scores(const struct pick *pick, enum pick_preference preference,
                             const void *from, struct score_samples *out)
{
    const struct pick_case *one = from;
    double time, footprint;
    for (size_t b = 0; b < pick->backend_count; b++) {
        for (size_t i = 0; i < one->rows[b].sample_count; i++) {
            sample_ratios(one, b, i, &time, &footprint);
            out->values[b][i] = score(preference, time, footprint);
        }
    }
}

void pick_judge_case(const struct pick *pick, struct pick_case *one)
{
    struct pick_verdict *verdict = &one->verdict;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (one->rows[b].sample_count > 0) {
            compute_median(&one->rows[b]);
        }
    }
    *verdict = (struct pick_verdict){.choice = PICK_NOBODY};
    verdict->fastest = least(pick, one->rows, median_ns);
    verdict->smallest =
        footprints_known(pick, one) ? least(pick, one->rows, footprint_of) : PICK_NOBODY;
    verdict->calmest = least(pick, one->rows, median_faults);
    if (verdict->fastest == PICK_NOBODY) {
        return;
    }
    for (size_t b = 0; b < pick->backend_count; b++) {
        struct pick_row *row = &one->rows[b];
        row->time_ratio = median_ns(row) / median_ns(&one->rows[verdict->fastest]);
        row->footprint_ratio =
            verdict->smallest == PICK_NOBODY
                ? 1
                : footprint_of(row) / footprint_of(&one->rows[verdict->smallest]);
    }
    rank_times(pick, one->rows);
    compare_times(pick, one->rows);
    choose_by_all(pick, one->rows, read_case_scores, one, verdict);
}

/* Geometric means over the main cases; a backend that failed on one has no row. */
static void average(struct pick *pick, size_t backend)
{
    struct pick_row *mean = &pick->overall_rows[backend];
    double time = 0, footprint = 0;
    size_t samples = PICK_REPETITIONS_MAX;
    *mean = (struct pick_row){0};
    for (size_t c = 0; c < pick->main_count; c++) {
        const struct pick_row *row = &pick->cases[c].rows[backend];
        if (row->sample_count == 0 || pick->cases[c].verdict.choice == PICK_NOBODY) {
            return;
        }
        time += log(row->time_ratio);
        footprint += log(row->footprint_ratio);
        mean->median.faults_per_pass += row->median.faults_per_pass;
        mean->hopeless = mean->hopeless || row->hopeless;
        samples = row->sample_count < samples ? row->sample_count : samples;
    }
    mean->sample_count = samples;
    mean->time_ratio = exp(time / (double)pick->main_count);
    mean->footprint_ratio = exp(footprint / (double)pick->main_count);
}

/* A sample of the mean is that of one repetition of each case. */
static void read_overall_scores(const struct pick *pick, enum pick_preference preference,
                                const void *from, struct score_samples *out)
{
    double time, footprint;
    (void)from;
    for (size_t b = 0; b < pick->backend_count; b++) {
        for (size_t i = 0; i < pick->overall_rows[b].sample_count; i++) {
            double sum = 0;
            for (size_t c = 0; c < pick->main_count; c++) {
                sample_ratios(&pick->cases[c], b, i, &time, &footprint);
                sum += log(score(preference, time, footprint));
            }
            out->values[b][i] = exp(sum / (double)pick->main_count);
        }
    }
}

void pick_judge_all(struct pick *pick)
{
    bool known = true;
    for (size_t b = 0; b < pick->backend_count; b++) {
        average(pick, b);
    }
    for (size_t c = 0; c < pick->main_count; c++) {
        known = known && pick->cases[c].verdict.smallest != PICK_NOBODY;
    }
    struct pick_verdict *overall = &pick->overall;
    *overall = (struct pick_verdict){.choice = PICK_NOBODY};
    overall->fastest = least(pick, pick->overall_rows, time_ratio_of);
    overall->smallest = known ? least(pick, pick->overall_rows, footprint_ratio_of) : PICK_NOBODY;
    overall->calmest = least(pick, pick->overall_rows, median_faults);
    rank_times(pick, pick->overall_rows);
    choose_by_all(pick, pick->overall_rows, read_overall_scores, NULL, overall);
}
