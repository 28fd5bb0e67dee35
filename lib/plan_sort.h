/* SPDX-License-Identifier: MIT */
/* Sorting for planner and validator, in place: qsort() may allocate. */
#ifndef LARDER_PLAN_SORT_H
#define LARDER_PLAN_SORT_H

#include <stdbool.h>
#include <stdint.h>

/* Which of two items comes first: the smaller key, then the earlier item. */
static inline bool plan_sort_before(const uint64_t *keys, uint32_t a, uint32_t b)
{
    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
}

/* Fills `order` with 0 to count - 1, by ascending key and then by number. */
void plan_sort(uint32_t *order, const uint64_t *keys, uint32_t count);

#endif
