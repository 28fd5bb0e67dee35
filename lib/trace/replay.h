/* SPDX-License-Identifier: MIT */
/*
 * The replay engine: runs a program of allocations again and again through one allocator, and
 * measures.
 *
 * The replay is serial: one thread performs all operations in recorded order, whichever thread
 * made them. Only the passes are timed, each as a whole, and inside of a pass there is nothing but
 * the operations: a switch, a slot, the call, and the writes of `touch`. That much is the
 * harness's own cost, which the allocator "none" shows; it is part of every figure.
 *
 * A second thread sleeps meanwhile (companion.h): an allocator's atomic operations cost what they
 * cost in a process with threads, as every engine's is.
 */
#ifndef LARDER_TRACE_REPLAY_H
#define LARDER_TRACE_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "allocator.h"
#include "program.h"

/* What is written to a block right after it was allocated or reallocated. */
enum replay_touch {
    REPLAY_TOUCH_NONE,
    REPLAY_TOUCH_PAGE, /* one byte in every page: the page faults that using it would cost */
    REPLAY_TOUCH_FULL  /* every byte */
};

#define REPLAY_PASSES_MIN 12u
#define REPLAY_PASSES_MAX 20000u /* that replay_run() chooses */
#define REPLAY_BUDGET_NS 1000000000u

struct replay_settings {
    enum replay_touch touch;
    unsigned gap_ms; /* asleep before every pass but the first; not timed */
    unsigned
        passes; /* 0: as many as take REPLAY_BUDGET_NS with their gaps, within the bounds above */
};

struct replay_result {
    size_t passes;
    size_t ops_per_pass;
    /* over the last two thirds of the passes, by when caches are warm */
    double ns_per_op; /* median */
    double ns_per_op_min;
    double ns_per_op_max;
    double faults_per_pass; /* median; minor faults */
    /* over all passes: highest resident size minus that before the first; UINT64_MAX: unknown */
    uint64_t peak_rss_bytes;
};

/*
 * Runs the program. Returns 0, or a negative errno and a line in `why`: -ENOMEM where the
 * allocator (named in the line) or the replayer got no memory, -EAGAIN where no thread is left for
 * the companion.
 */
int replay_run(const struct program *program, const struct allocator *allocator,
               const struct replay_settings *settings, struct replay_result *out, char *why,
               size_t why_size);

#endif
