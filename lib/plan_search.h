/* SPDX-License-Identifier: MIT */
/*
 * An exact search for plans below a given peak, and the search for the lowest peak built upon it. As plan_layout.h, it
 * neither allocates nor locks; it ends when it has an answer, or when it has used up what it was allowed.
 */
#ifndef LARDER_PLAN_SEARCH_H
#define LARDER_PLAN_SEARCH_H

#include "plan_layout.h"

#include <stdbool.h>

/* More blocks are not searched, only planned greedily. */
enum { PLAN_SEARCH_MOST = 8192 };

struct plan_search_limits {
    uint64_t nodes; /* partial plans to look at, in all; about 0.3 to 3 us each */
    /* Asked now and then (NULL: never): true ends the search. */
    bool (*stop)(void *context);
    /* Told of a better peak than the one before, and of a higher bound (NULL: not told). */
    void (*tell)(void *context, uint64_t peak, uint64_t bound);
    void *context;
};

enum plan_search_result {
    PLAN_FOUND,
    PLAN_IMPOSSIBLE, /* there is no such plan */
    PLAN_GAVE_UP     /* the limits came first */
};

/* Bytes of scratch memory, at a multiple of 16, for the functions below. */
size_t plan_search_scratch_bytes(uint32_t count);

/* Sets the items' offsets to a plan that peaks at `capacity` or below, if it finds one; else leaves them alone. */
enum plan_search_result plan_search(struct plan_item *items, uint32_t count, uint64_t capacity,
                                    const struct plan_search_limits *limits, void *scratch);

struct plan_outcome {
    uint64_t peak;
    uint64_t bound; /* no plan is lower: what lives at once, or more if the search has proved it */
};

/*
 * The lowest plan that the limits allow: greedy, then searched for. It is optimal if peak and bound are equal.
 * `enough` (0: nothing is) ends the search at the first plan that peaks there or below.
 */
struct plan_outcome plan_best(struct plan_item *items, uint32_t count, uint64_t effort,
                              uint64_t enough, const struct plan_search_limits *limits,
                              void *scratch);

#endif
