/* SPDX-License-Identifier: MIT */
/*
 * `larder pick`: what its parts share. pick.c reads the options and runs the replays, pick_judge.c
 * computes medians and decides, pick_report.c prints.
 */
#ifndef LARDER_TOOLS_PICK_H
#define LARDER_TOOLS_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "replay_options.h"
#include "trace.h"

#define PICK_BACKENDS_MAX 32
#define PICK_REPETITIONS_MAX 99

/* A score this close to the best counts as equal; then fewer faults decide. */
#define PICK_CLOSE 1.05
/* Footprints below are all the same to a program that has one inference engine in it. */
#define PICK_FOOTPRINT_FLOOR (UINT64_C(1) << 20)

struct pick_options {
    const char *const *traces;
    size_t trace_count;
    const char *backends; /* comma separated; NULL: all */
    struct replay_options replay;
    const char *json; /* path, "-" or NULL */
    unsigned repetitions;
};

/* What one replay said. */
struct pick_sample {
    double ns_per_op, ns_per_op_min, ns_per_op_max;
    double faults_per_pass;
    uint64_t peak_rss_bytes; /* UINT64_MAX: unknown, as in the next two */
    uint64_t held_bytes;
    uint64_t peak_held_bytes;
    uint64_t passes;
    uint64_t ops_per_pass;
};

/* One allocator on one trace. */
struct pick_row {
    struct pick_sample samples[PICK_REPETITIONS_MAX];
    size_t sample_count; /* 0: every run failed */
    bool failed;         /* some run did */
    char policy[16];
    struct pick_sample median;
    /* 1 for the best, 2 for twice as bad; by pick_judge_trace() */
    double time_ratio, footprint_ratio;
    double score;
};

struct pick_backend {
    char name[256];
    char version[64];
    bool candidate; /* can be recommended: not "none" and other references */
};

/* Positions in the table of backends; PICK_NOBODY where there is none. */
#define PICK_NOBODY SIZE_MAX
struct pick_verdict {
    size_t choice;
    size_t runner_up; /* as good within PICK_CLOSE, or PICK_NOBODY */
    size_t fastest;
    size_t smallest; /* PICK_NOBODY where footprints are unknown or nothing was touched */
    size_t calmest;  /* fewest faults */
};

struct pick_trace {
    const char *path;
    struct trace_facts facts;
    size_t ops;
    size_t threads;
    struct pick_row rows[PICK_BACKENDS_MAX];
    struct pick_verdict verdict;
};

struct pick {
    const struct pick_options *options;
    struct pick_backend backends[PICK_BACKENDS_MAX];
    size_t backend_count;
    struct pick_trace *traces;
    struct pick_verdict overall;
    struct pick_row overall_rows[PICK_BACKENDS_MAX]; /* ratios and score: geometric means */
};

/* Computes medians, ratios, scores and the verdict of a trace whose samples are complete. */
void pick_judge_trace(const struct pick *pick, struct pick_trace *trace);

/* The same over all traces, after each was judged. */
void pick_judge_all(struct pick *pick);

/* The table of one trace and the sentence below it. */
void pick_print_trace(const struct pick *pick, const struct pick_trace *trace);

/* The sentence over all traces. */
void pick_print_overall(const struct pick *pick);

/* One line of JSON for each trace and backend with a figure. */
void pick_print_json(const struct pick *pick, FILE *out);

#endif
