/* SPDX-License-Identifier: MIT */
/*
 * The invariants of a span heap, checked at its slow paths in builds with -Dchecks=full; nothing in others.
 *
 * Spans tile each region from its first unit to its top, and no two free ones meet; a free span's words, node and bin agree; the heap's
 * counters are the sums of what is there. What is in a run is its depot's, under another lock, and is left out here:
 * tests/heap_invariants.c looks at that, too, when nobody is in a call.
 */
#ifndef LARDER_SPAN_CHECK_H
#define LARDER_SPAN_CHECK_H

struct span_heap;

#ifdef LARDER_CHECKS_FULL
/* Ends the process with a line if something does not hold. The heap's lock is held. While a loop is replayed, or a purge is under way, there
 * is nothing to check: the words follow later. */
void span_check(const struct span_heap *heap);
#else
static inline void span_check(const struct span_heap *heap)
{
    (void)heap;
}
#endif

#endif
