/* SPDX-License-Identifier: MIT */
/*
 * The first half of building a program: which operations it has, in recorded order, and which lane
 * performs each. Private to program*.c.
 *
 * The result is a trace of its own, whose threads are the lanes. It begins with the setup, made by
 * a lane behind the last, then holds the part, then the tail (see program.h).
 */
#ifndef LARDER_TRACE_PROGRAM_PART_H
#define LARDER_TRACE_PROGRAM_PART_H

#include "program.h"

#define PART_NONE UINT32_MAX

/* Operation `op` of a lane; lane PART_NONE: no such. */
struct part_point {
    uint32_t lane;
    uint32_t op;
};

struct part_lane {
    uint32_t thread;
    uint32_t op_count;         /* with those of the tail */
    uint32_t tail_op;          /* its first of the tail, or op_count */
    uint32_t open;             /* recorded threads on it that have not ended */
    struct part_point after;   /* what came right before its first operation */
    struct part_point follows; /* the last one of the thread that had its id before */
};

struct part {
    struct trace trace;
    struct part_lane *lanes;
    size_t lane_count;       /* without the setup's */
    size_t setup_count;      /* operations before the part's */
    size_t tail;             /* the first operation of the tail */
    uint32_t last_lane;      /* of the last operation before the tail */
    uint64_t *not_before_ns; /* by operation, or NULL */
    /* Blocks of the setup, and the tail's operations that make them anew. */
    struct part_carry {
        uint32_t setup_op;
        uint32_t tail_op; /* both by index in trace.ops */
    } * carries;
    size_t carry_count, carry_capacity;
    size_t pace_capacity, lane_capacity;
};

/* Takes the part; `program` gets what can be counted on the way. Returns 0 or a negative errno. */
int part_take(const struct trace *trace, const struct program_options *options,
              struct program *program, struct part *out);

void part_release(struct part *part);

#endif
