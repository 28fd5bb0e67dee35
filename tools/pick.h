/* SPDX-License-Identifier: MIT */
/*
 * `larder pick`: what its parts share.
 *
 * pick_options.c reads the options, pick.c the traces; pick_trial.c tries the allocators and
 * pick_run.c runs the replays (pick_replay.c one of them) for as long as pick_pace.c plans, pick_judge.c decides (with the statistics of pick_rank.c),
 * pick_report.c prints tables and sentences, pick_json.c the figures; pick_html.c collects what a
 * report draws, pick_series.c measures it.
 */
#ifndef LARDER_TOOLS_PICK_H
#define LARDER_TOOLS_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pick_rank.h"
#include "replay_options.h"
#include "trace.h"

#define PICK_BACKENDS_MAX 32
#define PICK_REPETITIONS_MAX 99
#define PICK_GAPS_MAX 8

/* Scores this close are equal to anybody, whatever a test says. */
#define PICK_EQUAL 1.02
/* The same where there are too few repetitions for a test. */
#define PICK_CLOSE 1.05
/* How often a test may be wrong by chance. */
#define PICK_LEVEL 0.05
/* Footprints below are all the same to a program that has one inference engine in it. */
#define PICK_FOOTPRINT_FLOOR (UINT64_C(1) << 20)
/* An allocator this many times slower than the fastest is measured once. */
#define PICK_HOPELESS 20
/* Seconds, by default: what `tools/dev pick` may take beside building is less than five minutes. */
#define PICK_TIME_LIMIT_S 240
#define PICK_CUTS_MAX 64

enum pick_preference { PICK_BALANCED, PICK_TIME, PICK_MEMORY, PICK_PREFERENCES };

struct pick_options {
    const char *const *traces;
    size_t trace_count;
    const char *backends; /* comma separated; NULL: all */
    struct replay_options replay;
    unsigned gaps[PICK_GAPS_MAX]; /* ms between passes; the first one's figures decide */
    size_t gap_count;
    enum pick_preference preference;
    const char *json;      /* path, "-" or NULL */
    const char *html;      /* path or NULL */
    unsigned repetitions;  /* 0: as the time allows */
    unsigned time_limit_s; /* from the start of the program to its end; 0: none */
    uint64_t seed;
    bool full; /* every gap on every trace, every replay as long as it likes */
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
    uint64_t threads;
};

/* One allocator on one case. */
struct pick_row {
    struct pick_sample samples[PICK_REPETITIONS_MAX];
    size_t sample_count; /* 0: every run failed */
    bool failed;         /* some run did */
    bool hopeless; /* PICK_HOPELESS times slower in its first run, which stayed its only one */
    char policy[16];
    double cost_ns, pass_ns; /* of the run that the plan was made by: all of it, and one pass */
    struct pick_sample median;
    struct rank_interval ns_interval; /* of the median of ns_per_op */
    /* 1 for the best, 2 for twice as bad; by pick_judge_case() */
    double time_ratio, footprint_ratio;
    double score;
    unsigned time_rank; /* among those that could be recommended, from 1; 0: not one of them */
    uint32_t beats;     /* bit by bit the backends that it is faster than, says the test */
    bool close;         /* its score is not told from the best */
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
    size_t fastest;
    size_t smallest; /* PICK_NOBODY where footprints are unknown or nothing was touched */
    size_t calmest;  /* fewest faults */
    size_t by[PICK_PREFERENCES]; /* what would be chosen */
    bool tested;                 /* there were repetitions enough for a rank test */
};

/* A trace as it is replayed: with one of the gaps. */
struct pick_case {
    const char *path;
    unsigned gap_ms;
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
    /* First each trace with the first gap, in their order; then those with others. */
    struct pick_case *cases;
    size_t main_count;
    size_t case_count;
    uint64_t started_ns;
    /* What the time limit left no room for, a clause each. */
    char cuts[PICK_CUTS_MAX][512];
    size_t cut_count;
    struct pick_verdict overall;
    struct pick_row overall_rows[PICK_BACKENDS_MAX]; /* ratios and scores: geometric means */
};

/*
 * Plans and runs all replays, in rounds: each has all allocators on all cases once, in random order.
 * Returns 0, -EINTR after an interrupt, or -1 where some replay failed, which has been told.
 */
int pick_run(struct pick *pick);

/* What is left of the time limit; INFINITY where there is none. May be below zero. */
double pick_time_left_ns(const struct pick *pick);

/* Notes what was left out, or shortened, for want of time. */
__attribute__((format(printf, 2, 3))) void pick_note_cut(struct pick *pick, const char *format,
                                                         ...);

/* Prints what was noted; nothing where everything was done. */
void pick_print_cuts(const struct pick *pick, FILE *out);

/* Computes medians, tests, scores and the verdict of a case whose samples are complete. */
void pick_judge_case(const struct pick *pick, struct pick_case *one);

/* The same over all main cases, after each was judged. */
void pick_judge_all(struct pick *pick);

/* The table of one main case and the sentences below it. */
void pick_print_case(const struct pick *pick, const struct pick_case *one);

/* What gaps between passes change, for the traces that were replayed with some. */
void pick_print_gaps(const struct pick *pick);

/* The sentences over all traces. */
void pick_print_overall(const struct pick *pick);

/* Lines of JSON: one for each case and backend with a figure. */
void pick_print_json(const struct pick *pick, FILE *out);

#endif
