/* SPDX-License-Identifier: MIT */
/*
 * The replay engine: runs a program of allocations again and again through one allocator, and
 * measures.
 *
 * Only the passes are timed, each as a whole, and inside of a pass there is nothing but the
 * operations: a switch, a slot, the call, and what `touch` reads and writes. No system call, no
 * lookup, no parsing, no allocation but the allocator's. That much is the harness's own cost, which
 * the allocator "none" shows; it is part of every figure.
 *
 * A program of one lane runs on the calling thread, while a second thread sleeps (companion.h): an
 * allocator's atomic operations cost what they cost in a process with threads, as every engine's
 * is. Programs of more lanes, and more than one stream, have a thread for each lane of each stream
 * (replay_crew.h); what threads wait for each other is measured and not part of the time of
 * operations. Short passes follow one another there without a break, several to a measurement, and a thread may be a pass
 * ahead of another (replay_lane.h).
 */
#ifndef LARDER_TRACE_REPLAY_H
#define LARDER_TRACE_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allocator.h"
#include "program.h"

/* What is written to a block right after it was allocated or reallocated. */
enum replay_touch {
    REPLAY_TOUCH_NONE,
    REPLAY_TOUCH_FIRST, /* its first byte */
    REPLAY_TOUCH_PAGE,  /* one byte in every page: the page faults that using it would cost */
    REPLAY_TOUCH_FULL   /* every byte */
};

#define REPLAY_PASSES_MIN 12u
#define REPLAY_PASSES_PACED_MIN 3u
#define REPLAY_PASSES_MAX 20000u /* that replay_run() chooses */
#define REPLAY_BUDGET_NS 1000000000u
#define REPLAY_STREAMS_MAX 250u
#define REPLAY_THREADS_MAX 1024u /* lanes of all streams */
#define REPLAY_LANES_SHOWN 64u

struct replay_settings {
    enum replay_touch touch;
    bool
        read_before_free; /* what was written is read before a block is freed, as by its consumer */
    unsigned gap_ms;      /* asleep before every pass but the first; not timed */
    unsigned
        passes; /* 0: as many as take REPLAY_BUDGET_NS with their gaps, within the bounds above */
    unsigned streams; /* copies of the program that run at once; 0: one */
    /* Called before each pass; not timed. May be NULL. */
    void (*progress)(void *context, size_t pass, size_t of);
    void *progress_context;
};

struct replay_result {
    size_t passes;
    size_t ops_per_pass; /* of all streams */
    size_t threads;      /* that performed operations */
    /*
     * Over the last two thirds of the passes, by when caches are warm. Medians, unless they say
     * otherwise.
     */
    double ns_per_op; /* in the thread that performs it, without waiting */
    double ns_per_op_min;
    double ns_per_op_max;
    double faults_per_pass; /* minor faults */
    double pass_ns;         /* from the beginning of a pass to the end of its last thread */
    double cpu_ns_per_op;   /* of the whole process */
    double cpus_busy;       /* CPU time of the process over time on the wall; not a median */
    double waiting_ns;      /* in a pass, sum over threads */
    double waits;           /* in a pass: how often a thread had to wait */
    /* By lane: the part of the passes that its thread spent in operations; the mean. */
    double busy[REPLAY_LANES_SHOWN];
    size_t busy_count;
    /*
     * Over all passes: highest resident size minus that before the first, by when all code is
     * mapped (measure_map_modules()); UINT64_MAX: unknown.
     */
    uint64_t peak_rss_bytes;
    /*
     * The highest sum of sizes that were live at once. With one thread it follows from the program.
     * Else it was counted as it happened, by an atomic counter, in passes made for that before the
     * timed ones; another run of the threads may have another.
     */
    uint64_t peak_live_bytes;
    bool peak_live_was_counted;
};

/*
 * Runs the program. Returns 0, or a negative errno and a line in `why`: -ENOMEM where the
 * allocator (named in the line) or the replayer got no memory, -EAGAIN where no thread is left.
 */
int replay_run(const struct program *program, const struct allocator *allocator,
               const struct replay_settings *settings, struct replay_result *out, char *why,
               size_t why_size);

struct replay_verified {
    size_t passes;
    size_t ops_per_pass;
    size_t threads;
    uint64_t blocks; /* whose contents were looked at before they were freed */
};

#define REPLAY_VERIFY_PASSES 3u

/*
 * Runs the program to test the allocator, not to time it: each block is filled with contents of its
 * own, which have to be there when it is resized or freed. Of the settings, touching and progress do
 * not count; 0 passes are REPLAY_VERIFY_PASSES. Returns as replay_run() does, or -EBADMSG where
 * contents or an alignment were wrong; `why` says which.
 */
int replay_verify(const struct program *program, const struct allocator *allocator,
                  const struct replay_settings *settings, struct replay_verified *out, char *why,
                  size_t why_size);

/* How many threads a replay could have now, up to `wanted`. */
size_t replay_count_threads(size_t wanted);

#endif
