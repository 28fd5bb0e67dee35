/* SPDX-License-Identifier: MIT */
/*
 * A trace by threads: what each of them did, and which of their operations have to wait for
 * another thread's. It is what a parallel replay runs and what the native format stores.
 *
 * A lane is one thread's operations in their order. Nothing orders two lanes but their blocks: an
 * operation on a block has to wait for the operation on it before, where another thread made that.
 * Such an edge is left out where the thread knows already that the other came so far: from an
 * edge of its own earlier on, or through a third thread it waited for (a vector clock for each
 * thread tells). An operation has at most one edge into it and at most one out of it, as a block's
 * operations form one chain.
 *
 * Slots: a live block has one, an index into an array of pointers. A freed block's slot goes to
 * the thread that freed it, and only that thread takes it again: so within the edges and each
 * thread's own order no two live blocks share a slot, however the lanes run. The slots are right
 * for a replay in recorded order as well.
 */
#ifndef LARDER_TRACE_LANES_H
#define LARDER_TRACE_LANES_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

#define LANE_NO_SLOT UINT32_MAX

enum lane_op_flags {
    LANE_WAITS = 1,  /* an edge leads to it: it must not begin before another lane's is over */
    LANE_SIGNALS = 2 /* an edge leads from it: another lane waits for it */
};

struct lane_op {
    uint64_t size; /* requested, of allocations and reallocations; else 0 */
    uint32_t slot; /* LANE_NO_SLOT for thread_done */
    uint8_t kind;  /* enum trace_op_kind */
    uint8_t alignment_log2;
    uint16_t flags; /* enum lane_op_flags */
};

/* Operation `op` of the lane it is listed in waits for operation `after` of lane `lane`. */
struct lane_edge {
    uint32_t op;
    uint32_t lane;
    uint32_t after;
};

struct lane {
    struct lane_op *ops;
    uint32_t *recorded; /* by operation: its index in the trace; ascends */
    size_t op_count;
    struct lane_edge *edges; /* ascending by op, one at most for each */
    size_t edge_count;
};

struct lanes {
    struct lane *lanes; /* by thread of the trace */
    size_t lane_count;
    uint32_t slot_count;
    size_t crossings; /* operations on a block that another thread touched last */
    /* What the lanes point into: one lane after the other. */
    struct lane_op *ops;
    uint32_t *recorded;
    size_t op_count; /* that of the trace */
    struct lane_edge *edges;
    size_t edge_count;
};

/* Returns 0 or -ENOMEM. The trace is not needed afterwards. */
int lanes_build(const struct trace *trace, struct lanes *out);

void lanes_release(struct lanes *lanes);

#endif
