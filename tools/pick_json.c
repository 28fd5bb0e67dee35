/* SPDX-License-Identifier: MIT */
/* The figures of `larder pick` as lines of JSON. */
#include <string.h>

#include "json.h"
#include "pick.h"

static void put_time(struct json_line *line, const struct pick_row *row)
{
    double samples[PICK_REPETITIONS_MAX];
    for (size_t i = 0; i < row->sample_count; i++) {
        samples[i] = row->samples[i].ns_per_op;
    }
    json_number(line, "ns_per_op", row->median.ns_per_op, 2);
    json_number(line, "ns_per_op_min", row->median.ns_per_op_min, 2);
    json_number(line, "ns_per_op_max", row->median.ns_per_op_max, 2);
    json_number(line, "ns_low", row->ns_interval.low, 2);
    json_number(line, "ns_high", row->ns_interval.high, 2);
    json_number(line, "ns_coverage", row->ns_interval.coverage, 4);
    json_numbers(line, "ns_samples", samples, row->sample_count, 2);
}

/* Whom it is faster than, says the test. */
static void put_beaten(struct json_line *line, const struct pick *pick, const struct pick_row *row)
{
    const char *names[PICK_BACKENDS_MAX];
    size_t count = 0;
    for (size_t b = 0; b < pick->backend_count; b++) {
        if (row->beats >> b & 1) {
            names[count++] = pick->backends[b].name;
        }
    }
    json_strings(line, "faster_than", names, count);
}

static void print_row(const struct pick *pick, const struct pick_case *one, size_t backend,
                      FILE *out)
{
    const struct pick_row *row = &one->rows[backend];
    bool main_case = one < pick->cases + pick->main_count;
    struct json_line line;
    json_begin(&line, out);
    json_string(&line, "trace", one->path);
    json_string(&line, "backend", pick->backends[backend].name);
    json_string(&line, "version", pick->backends[backend].version);
    json_string(&line, "policy", row->policy);
    json_count(&line, "threads", row->median.threads);
    json_string(&line, "touch", pick->options->replay.touch);
    json_count(&line, "gap_ms", one->gap_ms);
    json_count(&line, "min_size", pick->options->replay.min_size);
    json_count(&line, "seed", pick->options->seed);
    json_count(&line, "repetitions", row->sample_count);
    json_boolean(&line, "hopeless", row->hopeless);
    json_count(&line, "passes", row->median.passes);
    json_count(&line, "ops_per_pass", row->median.ops_per_pass);
    put_time(&line, row);
    json_number(&line, "faults_per_pass", row->median.faults_per_pass, 1);
    json_count(&line, "peak_rss_bytes", row->median.peak_rss_bytes);
    json_count(&line, "peak_live_bytes", one->facts.peak_live_bytes);
    json_count(&line, "held_bytes", row->median.held_bytes);
    json_count(&line, "peak_held_bytes", row->median.peak_held_bytes);
    if (one->verdict.choice != PICK_NOBODY) {
        json_number(&line, "score", row->score, 4);
        json_number(&line, "time_ratio", row->time_ratio, 4);
        json_number(&line, "footprint_ratio", row->footprint_ratio, 4);
        json_count(&line, "time_rank", row->time_rank);
        put_beaten(&line, pick, row);
        json_boolean(&line, "as_good_as_the_best", pick->backends[backend].candidate && row->close);
    }
    json_boolean(&line, "candidate", pick->backends[backend].candidate);
    json_boolean(&line, "main", main_case);
    json_boolean(&line, "recommended", backend == one->verdict.choice);
    json_boolean(&line, "recommended_overall", backend == pick->overall.choice);
    json_end(&line);
}

void pick_print_json(const struct pick *pick, FILE *out)
{
    for (size_t c = 0; c < pick->case_count; c++) {
        for (size_t b = 0; b < pick->backend_count; b++) {
            if (pick->cases[c].rows[b].sample_count > 0) {
                print_row(pick, &pick->cases[c], b, out);
            }
        }
    }
}
