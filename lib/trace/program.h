/* SPDX-License-Identifier: MIT */
/*
 * A trace made ready for a serial replay: everything that can be resolved ahead is.
 *
 * Blocks become slots: a slot is an index into the array of live pointers, and a freed block's
 * slot is taken again by the next allocation, so the array stays as small as the peak of live
 * blocks and the replay's own cache misses few. Blocks that the trace never frees are freed by
 * operations added at the end, in order of allocation, so that passes can repeat; they count and
 * are timed like any other.
 */
#ifndef LARDER_TRACE_PROGRAM_H
#define LARDER_TRACE_PROGRAM_H

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
    uint64_t size;
    uint32_t slot;
    uint8_t kind; /* enum program_op_kind */
    uint8_t alignment_log2;
};

struct program {
    struct program_op *ops;
    size_t op_count;
    size_t op_capacity;
    size_t slot_count;
    size_t added_frees; /* at the end, for blocks that the trace never frees */
};

/* Returns 0 or -ENOMEM. The trace is not needed afterwards. */
int program_build(const struct trace *trace, struct program *out);

void program_release(struct program *program);

#endif
