/* SPDX-License-Identifier: MIT */
/*
 * What must hold of a span heap whenever its lock is free and nobody is in the middle of a call,
 * derived from the declarations of region.h and span_heap.h alone: the walk counts everything anew and
 * uses none of the heap's own functions, so that a mistake in one of them is not repeated here.
 */
#ifndef LARDER_TESTS_HEAP_INVARIANTS_H
#define LARDER_TESTS_HEAP_INVARIANTS_H

#include <stdbool.h>

#include "cache.h"

struct heap_census {
    uint64_t regions, free_spans, free_units, used_units, clean_pages;
    uint64_t live_blocks, cached_blocks; /* large and class blocks, those in runs included */
};

/*
 * Walks every region and every bin. Where something does not hold, says so on stderr and returns
 * false. Takes the heap's lock, and ends the replay of a loop; other threads must have left their
 * calls.
 */
bool heap_is_sound(struct span_heap *heap, struct heap_census *census);

/* Both heaps of an instance; *census is their sum. */
bool instance_is_sound(struct larder *instance, struct heap_census *census);

#endif
