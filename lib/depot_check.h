/* SPDX-License-Identifier: MIT */
/*
 * The invariants of a depot and of the runs in it, checked at its slow paths in builds with -Dchecks=full; nothing in others.
 *
 * Full magazines are full, of blocks of the class that are cached, each once; empty ones are empty. A run is listed if some of its blocks are
 * free, a spare if all are; its free blocks are counted, cached, and where its region's words say. The map knows the
 * region. Stacks and lists are as long as the depot says. Runs without a free block are in no list: those are looked at when a block comes back.
 */
#ifndef LARDER_DEPOT_CHECK_H
#define LARDER_DEPOT_CHECK_H

struct depot;
struct round;
struct run;

#ifdef LARDER_CHECKS_FULL
/* All end the process with a line if something does not hold. The depot's lock is held. */
void depot_check(struct depot *depot);
/* Of a round that is about to go back into its run. */
void depot_check_given(const struct depot *depot, const struct round *round, const struct run *run);
#else
static inline void depot_check(struct depot *depot)
{
    (void)depot;
}
static inline void depot_check_given(const struct depot *depot, const struct round *round,
                                     const struct run *run)
{
    (void)depot;
    (void)round;
    (void)run;
}
#endif

#endif
