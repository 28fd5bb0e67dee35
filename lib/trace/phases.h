/* SPDX-License-Identifier: MIT */
/*
 * Where the inferences of a trace begin and end.
 *
 * Marks tell, where the program set them: an inference reaches from a mark "inference" (or
 * "inference 3") to the next one, to a mark "end", or to the end of the trace. Without any of that
 * name, the first word of the first mark takes its place ("round 0", "symbols 10"). Without marks,
 * an inference is what repeats (period.h).
 */
#ifndef LARDER_TRACE_PHASES_H
#define LARDER_TRACE_PHASES_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

enum phases_source {
    PHASES_NONE, /* none found */
    PHASES_MARKS,
    PHASES_PERIOD
};

/* Operations from `begin` up to, and without, `end` of the trace. */
struct phase {
    uint32_t begin, end;
};

struct phases {
    struct phase *phases; /* ascending, not empty, none overlaps another */
    size_t count, capacity;
    enum phases_source source;
};

/* Finds the phases. Returns 0 (also where there are none) or -ENOMEM. */
int phases_find(const struct trace *trace, struct phases *out);

/* Adds a phase unless it is empty. Returns 0 or -ENOMEM. */
int phases_add(struct phases *phases, size_t begin, size_t end);

void phases_release(struct phases *phases);

#endif
