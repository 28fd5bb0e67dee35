/* SPDX-License-Identifier: MIT */
/*
 * Which allocator to use.
 *
 * The score is time x sqrt(footprint), each as a ratio to the best of the trace: twice the time
 * weighs as much as four times the memory, since an engine's weights usually outweigh its tensors.
 * Faults are in the time already where memory is touched, so they only decide between allocators
 * whose scores are within 5 %, about what runs on a busy machine differ by. Over several traces
 * scores are averaged geometrically.
 *
 * Where nothing is touched, resident memory says nothing of an allocator, and time alone decides.
 */
#include <math.h>
#include <string.h>

#include "measure.h"
#include "pick.h"

static double median_of(const struct pick_row *row, double (*field)(const struct pick_sample *))
{
    /* Nanoseconds and faults have two decimals at most: whole thousandths lose nothing. */
    uint64_t values[PICK_REPETITIONS_MAX];
    for (size_t i = 0; i < row->sample_count; i++) {
        values[i] = (uint64_t)llround(field(&row->samples[i]) * 1000);
    }
    return measure_median(values, row->sample_count) / 1000;
}

static double ns_of(const struct pick_sample *sample)
{
    return sample->ns_per_op;
}

static double faults_of(const struct pick_sample *sample)
{
    return sample->faults_per_pass;
}

static uint64_t median_count(const struct pick_row *row, size_t offset)
{
    uint64_t values[PICK_REPETITIONS_MAX];
    for (size_t i = 0; i < row->sample_count; i++) {
        memcpy(&values[i], (const char *)&row->samples[i] + offset, sizeof values[i]);
        if (values[i] == UINT64_MAX) {
            return UINT64_MAX;
        }
    }
    return (uint64_t)measure_median(values, row->sample_count);
}

static void compute_median(struct pick_row *row)
{
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
}

static bool footprint_counts(const struct pick *pick)
{
    return strcmp(pick->options->replay.touch, "none") != 0;
}

static double footprint_of(const struct pick_row *row)
{
    uint64_t bytes = row->median.peak_rss_bytes;
    return (double)(bytes > PICK_FOOTPRINT_FLOOR ? bytes : PICK_FOOTPRINT_FLOOR);
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

/*
 * Among those close to the best score the one with the fewest faults; the runner-up is the next
 * best of them.
 */
static void choose(const struct pick *pick, const struct pick_row *rows,
                   struct pick_verdict *verdict)
{
    size_t best = least(pick, rows, score_of);
    verdict->choice = best;
    verdict->runner_up = PICK_NOBODY;
    for (size_t b = 0; b < pick->backend_count && best != PICK_NOBODY; b++) {
        if (is_candidate(pick, rows, b) && rows[b].score <= rows[best].score * PICK_CLOSE &&
            median_faults(&rows[b]) < median_faults(&rows[verdict->choice])) {
            verdict->choice = b;
        }
    }
    for (size_t b = 0; b < pick->backend_count && best != PICK_NOBODY; b++) {
        if (is_candidate(pick, rows, b) && b != verdict->choice &&
            rows[b].score <= rows[verdict->choice].score * PICK_CLOSE &&
            (verdict->runner_up == PICK_NOBODY || rows[b].score < rows[verdict->runner_up].score)) {
            verdict->runner_up = b;
        }
    }
}

/* Footprints are compared only where every candidate's is known. */
static bool footprints_known(const struct pick *pick, const struct pick_trace *trace)
{
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (is_candidate(pick, trace->rows, b) &&
            trace->rows[b].median.peak_rss_bytes == UINT64_MAX) {
            return false;
        }
    }
    return footprint_counts(pick);
}

void pick_judge_trace(const struct pick *pick, struct pick_trace *trace)
{
    struct pick_verdict *verdict = &trace->verdict;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (trace->rows[b].sample_count > 0) {
            compute_median(&trace->rows[b]);
        }
    }
    verdict->fastest = least(pick, trace->rows, median_ns);
    verdict->smallest =
        footprints_known(pick, trace) ? least(pick, trace->rows, footprint_of) : PICK_NOBODY;
    verdict->calmest = least(pick, trace->rows, median_faults);
    for (size_t b = 0; b < pick->backend_count && verdict->fastest != PICK_NOBODY; b++) {
        struct pick_row *row = &trace->rows[b];
        row->time_ratio = median_ns(row) / median_ns(&trace->rows[verdict->fastest]);
        row->footprint_ratio =
            verdict->smallest == PICK_NOBODY
                ? 1
                : footprint_of(row) / footprint_of(&trace->rows[verdict->smallest]);
        row->score = row->time_ratio * sqrt(row->footprint_ratio);
    }
    choose(pick, trace->rows, verdict);
}

/* Geometric means over the traces; a backend that failed on one has no row. */
static void average(struct pick *pick, size_t backend)
{
    struct pick_row *mean = &pick->overall_rows[backend];
    double time = 0, footprint = 0;
    *mean = (struct pick_row){0};
    for (size_t t = 0; t < pick->options->trace_count; t++) {
        const struct pick_row *row = &pick->traces[t].rows[backend];
        if (row->sample_count == 0 || pick->traces[t].verdict.choice == PICK_NOBODY) {
            return;
        }
        time += log(row->time_ratio);
        footprint += log(row->footprint_ratio);
        mean->median.faults_per_pass += row->median.faults_per_pass;
    }
    double count = (double)pick->options->trace_count;
    mean->sample_count = 1;
    mean->time_ratio = exp(time / count);
    mean->footprint_ratio = exp(footprint / count);
    mean->score = mean->time_ratio * sqrt(mean->footprint_ratio);
}

void pick_judge_all(struct pick *pick)
{
    bool known = true;
    for (size_t b = 0; b < pick->backend_count; b++) {
        average(pick, b);
    }
    for (size_t t = 0; t < pick->options->trace_count; t++) {
        known = known && pick->traces[t].verdict.smallest != PICK_NOBODY;
    }
    pick->overall.fastest = least(pick, pick->overall_rows, time_ratio_of);
    pick->overall.smallest =
        known ? least(pick, pick->overall_rows, footprint_ratio_of) : PICK_NOBODY;
    pick->overall.calmest = least(pick, pick->overall_rows, median_faults);
    choose(pick, pick->overall_rows, &pick->overall);
}
