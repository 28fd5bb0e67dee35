/* SPDX-License-Identifier: MIT */
/*
 * An instance whose large blocks may come from several heaps (lib/heaps.h).
 *
 * Threads are moved by telling them that they have met others, so that no test depends on whether they really do.
 */
#ifndef LARDER_TESTS_HEAPS_SUPPORT_H
#define LARDER_TESTS_HEAPS_SUPPORT_H

#include "support.h"

#include "heaps.h"

#define LARGE (1 * MIB)

/* Of the test that runs: a fixture makes and destroys it. */
extern struct larder *larder;

void set_up(void);
void tear_down(void);

struct span_heap *own_heap(void);

/* NULL where the block is of no heap. */
struct span_heap *heap_of(const void *block);

/* The calling thread has met others as often as it takes, unless that is too often for it. */
void meet_others(void);

/* Takes a block after such meetings. */
void *alloc_crowded(size_t size);

/* A thread that takes large blocks, all from the first heap. */
void take_in_turn(void *context, unsigned index);

/* All that was cached goes back, and it was sound. */
void assert_all_is_free(void);

/* Threads that meet, so that all have a cache before the first goes on, and what they hand to each other. */
struct party {
    struct meeting meeting;
    void *blocks[64];
    _Atomic unsigned done;
};

#endif
