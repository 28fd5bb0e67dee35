/* SPDX-License-Identifier: MIT */
/* Sorting by a 64-bit key, in linear time, equal keys in the order they came; without malloc. */
#ifndef LARDER_TRACE_STABLE_SORT_H
#define LARDER_TRACE_STABLE_SORT_H

#include <stddef.h>
#include <stdint.h>

struct sort_entry {
    uint64_t key;
    uint32_t index; /* of what the key belongs to */
};

/* Returns 0, or -ENOMEM with the entries as they were. */
int stable_sort(struct sort_entry *entries, size_t count);

#endif
