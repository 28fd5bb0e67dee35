/* SPDX-License-Identifier: MIT */
/* A heap sort (J. W. J. Williams, 1964): no memory of its own, never worse than n log n. */
#include "plan_sort.h"

/* Lets the entry at `at` sink; the root is the one that comes last. */
static void sink(uint32_t *order, const uint64_t *keys, uint32_t at, uint32_t count)
{
    uint32_t moved = order[at];
    for (;;) {
        uint64_t child = 2 * (uint64_t)at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && plan_sort_before(keys, order[child], order[child + 1]))
            child++;
        if (!plan_sort_before(keys, moved, order[child]))
            break;
        order[at] = order[child];
        at = (uint32_t)child;
    }
    order[at] = moved;
}

void plan_sort(uint32_t *order, const uint64_t *keys, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = count / 2; i-- > 0;)
        sink(order, keys, i, count);
    for (uint32_t end = count; end-- > 1;) {
        uint32_t last = order[0];
        order[0] = order[end];
        order[end] = last;
        sink(order, keys, 0, end);
    }
}
