/* SPDX-License-Identifier: MIT */
/*
 * Size classes: multiples of A up to 8 A, then eight a doubling, so that rounding up wastes at
 * most 12.5 % from 8 A on. A is the alignment, and at least SIZE_CLASS_MIN. Class numbers are dense; both directions are a few shifts, and the
 * hit path has a table of them by SIZE_CLASS_STEP.
 * Source: the scheme of jemalloc and of J. Bonwick's vmem quantum caches, here with eight steps a doubling.
 */
#ifndef LARDER_SIZE_CLASS_H
#define LARDER_SIZE_CLASS_H

#include <stddef.h>

enum {
    SIZE_CLASS_LIMIT = 8 * 1024, /* largest class, see bench/NOTES.md for how it was chosen */
    SIZE_CLASS_MIN = 64,         /* smallest block: bounds a run's per-block state */
    SIZE_CLASS_STEP_SHIFT = 6,   /* every class is a multiple of SIZE_CLASS_MIN */
    SIZE_CLASS_STEPS = (SIZE_CLASS_LIMIT >> SIZE_CLASS_STEP_SHIFT) + 1,
    SIZE_CLASS_MAX_COUNT = 40 /* with A = SIZE_CLASS_MIN */
};

/* The class for `size` when A = 1 << shift. */
static inline unsigned size_class_of(size_t size, unsigned shift)
{
    size_t steps = (size - (size != 0)) >> shift; /* whole multiples of A below size */
    unsigned doubling = (unsigned)(8 * sizeof(long long) - 1) -
                        (unsigned)__builtin_clzll((unsigned long long)steps | 8) - 3;
    return (doubling << 3) + (unsigned)(steps >> doubling);
}

/* The size of a class, the largest request that it serves. */
static inline size_t size_class_size(unsigned size_class, unsigned shift)
{
    if (size_class < 8)
        return (size_t)(size_class + 1) << shift;
    return (size_t)((size_class & 7) + 9) << ((size_class >> 3) - 1 + shift);
}

#endif
