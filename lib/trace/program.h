/* SPDX-License-Identifier: MIT */
/*
 * A trace made ready for a replay: everything that can be resolved ahead is.
 *
 * Operations are listed by *lane*: what one thread of the replay performs, in recorded order. A
 * serial program has one lane. A parallel one has a lane for each recorded thread, two where a
 * thread's id was used again after it ended, and shared ones where there would be more than
 * lanes_max.
 *
 * Blocks are slots, indices into an array of pointers (lanes.h). A slot is used again by the lane
 * that freed its block, so the array stays about as small as the peak of live blocks and the
 * replay's own cache misses few; slots of different lanes do not share a cache line.
 *
 * A lane's operations are cut into *steps*. A step begins where the lane has to wait for another
 * lane's step or for a time, and ends where another lane waits for it; within a step there is
 * nothing but operations. All waits lead forward in recorded order, in which the operations once
 * ran: so they cannot end in a circle. Program_build() asserts it of each.
 *
 * What a pass leaves it must find again. So operations are added at its end (its *tail*): blocks
 * that the trace never frees are freed, in order of allocation. They wait for all lanes, count and
 * are timed like any other. Where a part of a trace is replayed, the blocks live at its beginning
 * are allocated by the *setup*, once; those that the part frees or resizes are made anew in the
 * tail, and their slots swapped (*carries*) before the next pass.
 */
#ifndef LARDER_TRACE_PROGRAM_H
#define LARDER_TRACE_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace.h"

enum program_op_kind {
    PROGRAM_ALLOCATE, /* calloc too: zeroing is the caller's writing, and --touch stands for that */
    PROGRAM_ALLOCATE_ALIGNED,
    PROGRAM_REALLOCATE,
    PROGRAM_FREE
};

struct program_op {
    uint64_t size; /* of a free: the block's */
    uint32_t slot;
    uint8_t kind; /* enum program_op_kind */
    uint8_t alignment_log2;
};

/* Until `steps` steps of that lane are over in this pass. */
struct program_wait {
    uint32_t lane;
    uint32_t steps;
};

struct program_step {
    uint64_t not_before_ns; /* since the pass began; 0: at once */
    size_t waits_end;       /* its waits: from the end of those of the step before to here */
    uint32_t end;           /* its operations, of the lane, likewise; it may have none */
    bool awaited;           /* a wait is for its end */
};

struct program_lane {
    const struct program_op *ops;
    size_t op_count;
    const struct program_step *steps;
    size_t step_count;
    size_t first_wait;
    uint32_t thread; /* of the trace; the first one where several share the lane */
    bool ends;       /* its thread ends after its last step: it is a new one in each pass */
    /* Such a thread is not started before this is over. */
    bool starts_later;
    struct program_wait start;
};

struct program_carry {
    uint32_t from, to; /* slots */
};

struct program {
    struct program_op *ops; /* one lane after the other */
    size_t op_count;
    struct program_lane *lanes; /* by first operation in recorded order */
    size_t lane_count;
    struct program_step *steps;
    size_t step_count;
    struct program_wait *waits;
    size_t wait_count;
    size_t slot_count;
    uint32_t *recorded;       /* in recorded order: the lane whose next operation comes */
    struct program_op *setup; /* allocations */
    size_t setup_count;
    struct program_carry *carries;
    size_t carry_count;
    size_t added_frees;       /* in the tail */
    size_t added_allocates;   /* likewise */
    size_t crossings;         /* operations on a block that another lane touched last */
    size_t thread_count;      /* recorded threads, counted anew where an id was used again */
    uint64_t span_ns;         /* the latest not_before_ns */
    uint64_t peak_live_bytes; /* in recorded order */
    uint64_t peak_live_blocks;
    uint64_t largest_bytes;
    size_t op_capacity, recorded_capacity, step_capacity, wait_capacity; /* for release */
};

enum program_pace {
    PROGRAM_AT_ONCE,
    PROGRAM_BY_TIMES, /* no operation before its time in the trace, where its thread idled before */
    PROGRAM_BY_MARKS  /* what comes after the n-th mark of the part: not before n x mark_ms */
};

/* A thread that idled for less goes on at once: sleeping is not more exact than that. */
#define PROGRAM_PACE_NS 50000u

struct program_options {
    bool parallel;
    size_t lanes_max; /* 0: no limit */
    size_t first_op;  /* the part of the trace: operations [first_op, end_op) */
    size_t end_op;    /* 0: to the end */
    enum program_pace pace;
    unsigned mark_ms;
};

/* The whole trace, serial. Returns 0 or -ENOMEM. The trace is not needed afterwards. */
int program_build(const struct trace *trace, struct program *out);

/* The same with options. -EINVAL: the part holds no operation. */
int program_build_with(const struct trace *trace, const struct program_options *options,
                       struct program *out);

void program_release(struct program *program);

#endif
