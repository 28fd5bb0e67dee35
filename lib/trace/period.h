/* SPDX-License-Identifier: MIT */
/*
 * Inferences without marks: found as what repeats.
 *
 * The operations of the thread that makes the most are a sequence of symbols. An operation's symbol
 * is its kind and size; where that does not repeat (an input of varying size), its kind and, of a
 * free, how many allocations ago the block was allocated: the shape of the program, whatever the
 * sizes.
 *
 * Distances between equal runs of a few symbols vote for lengths of a period, as the peaks of an
 * autocorrelation would. Of the lengths with most votes, the one counts under which the longest
 * stretch of the trace repeats; nearly as long a stretch with a shorter length (an inference, not
 * two; but not a layer, which repeats only within one) is preferred. Inferences begin where the
 * fewest bytes are live.
 */
#ifndef LARDER_TRACE_PERIOD_H
#define LARDER_TRACE_PERIOD_H

#include "phases.h"
#include "trace.h"

/* Adds the repetitions found to empty phases. Returns 0, also where nothing repeats, or -ENOMEM. */
int period_find(const struct trace *trace, struct phases *out);

#endif
