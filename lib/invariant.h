/* SPDX-License-Identifier: MIT */
/*
 * What the checks of builds with -Dchecks=full share: span_check.c, depot_check.c, map_check.c, exact_check.c and cache_check.c walk
 * over what their names say and hold it against DESIGN's invariants; what does not hold ends the process with a line.
 *
 * They are made with the lock of what they look at held, at the end of slow paths. What has just been changed is looked at
 * each time. A walk over everything is as long as there is much of it, so it is made only when as many calls have gone
 * by as the last walk had steps: then checking takes a constant time a call, and damage is found a bounded number of calls later.
 */
#ifndef LARDER_INVARIANT_H
#define LARDER_INVARIANT_H

#ifdef LARDER_CHECKS_FULL

#include <stdbool.h>
#include <stdint.h>

/* Guarded by the lock of what is walked over. */
struct check_pace {
    uint64_t calls, steps; /* since the last walk; that it had */
};

_Noreturn void invariant_broken(const char *where, const char *what, uint64_t number);

static inline void invariant_holds(bool holds, const char *where, const char *what, uint64_t number)
{
    if (__builtin_expect(!holds, 0))
        invariant_broken(where, what, number);
}

/* True if a walk is due; whoever makes it says by check_walked() how long it was. */
static inline bool check_is_due(struct check_pace *pace)
{
    return ++pace->calls > pace->steps;
}

static inline void check_walked(struct check_pace *pace, uint64_t steps)
{
    pace->calls = 0;
    pace->steps = steps;
}

#endif

#endif
