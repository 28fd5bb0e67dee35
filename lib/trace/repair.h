/* SPDX-License-Identifier: MIT */
/* Moving operations of a trace to before others: the last step of a repair (see builder.h). */
#ifndef LARDER_TRACE_REPAIR_H
#define LARDER_TRACE_REPAIR_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

/* Operation `from` belongs just before operation `to`, which is an earlier one. */
struct repair_move {
    uint32_t from;
    uint32_t to;
};

/*
 * Applies the moves, which ascend by `from`; several to the same place keep their order. No
 * operation is both moved and a place to move to. Returns 0, or -ENOMEM with the trace as it was.
 */
int repair_apply(struct trace *trace, const struct repair_move *moves, size_t move_count);

#endif
