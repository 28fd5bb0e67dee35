/* SPDX-License-Identifier: MIT */
/*
 * What a thread keeps of one class: two magazines and an allotment.
 *
 * The loaded magazine lies open: its rounds are those from floor up to top, and the hit path may fill it up to the ceiling. The
 * other one is full, or empty, or whatever it was when the two changed places. `allotted` is how many blocks both may hold
 * together; it has been taken off the thread's room (thread_cache_take()), so that the thread's bound holds without
 * any account on the hit path: the ceiling alone says stop. Taking a block leaves its place in the allotment for the next; another class
 * in need of room takes unused places away (fit_magazines.c).
 *
 * All fields belong to the thread. Others read top, floor and other_count to count blocks: what they find is not more
 * consistent than that the thread goes on meanwhile.
 */
#ifndef LARDER_BIN_H
#define LARDER_BIN_H

#include "magazine.h"

enum { BIN_SHIFT = 6 };

struct bin {
    _Alignas(64) _Atomic(struct round *) top;
    _Atomic(struct round *) floor;
    struct round *ceiling;
    uint32_t bytes;      /* of a block of this class; fixed */
    uint32_t reciprocal; /* ceil(2^16 / bytes) for classes smaller than a unit, else 0; fixed */
    struct magazine *loaded, *other; /* never NULL: empty_magazine stands for none */
    uint32_t capacity;               /* of a magazine of this class; fixed */
    uint32_t allotted;
    _Atomic uint32_t other_count;
};

static inline struct round *bin_top(const struct bin *bin)
{
    return atomic_load_explicit(&((struct bin *)(uintptr_t)bin)->top, memory_order_relaxed);
}

static inline void bin_set_top(struct bin *bin, struct round *top)
{
    atomic_store_explicit(&bin->top, top, memory_order_relaxed);
}

static inline struct round *bin_floor(const struct bin *bin)
{
    return atomic_load_explicit(&((struct bin *)(uintptr_t)bin)->floor, memory_order_relaxed);
}

/* Rounds in the loaded magazine. */
static inline uint32_t bin_loaded_count(const struct bin *bin)
{
    return (uint32_t)(bin_top(bin) - bin_floor(bin));
}

static inline uint32_t bin_other_count(const struct bin *bin)
{
    return atomic_load_explicit(&((struct bin *)(uintptr_t)bin)->other_count, memory_order_relaxed);
}

static inline uint32_t bin_count(const struct bin *bin)
{
    return bin_loaded_count(bin) + bin_other_count(bin);
}

/* The same, as another thread may see it. */
static inline uint32_t bin_count_of_other_thread(const struct bin *bin)
{
    uint32_t loaded = bin_loaded_count(bin), other = bin_other_count(bin);
    return (loaded <= bin->capacity ? loaded : 0) + other;
}

/* After a change of magazines or allotment. */
static inline void bin_set_ceiling(struct bin *bin)
{
    uint32_t other = bin_other_count(bin), most = bin->allotted > other ? bin->allotted - other : 0;
    bin->ceiling = bin_floor(bin) + (most < bin->loaded->capacity ? most : bin->loaded->capacity);
}

/* Opens a magazine in the place of the loaded one. */
static inline void bin_load(struct bin *bin, struct magazine *magazine)
{
    bin->loaded = magazine;
    atomic_store_explicit(&bin->floor, magazine->rounds, memory_order_relaxed);
    bin_set_top(bin, magazine->rounds + magazine->count);
    bin_set_ceiling(bin);
}

/* Closes the loaded magazine; another must be loaded next. */
static inline struct magazine *bin_unload(struct bin *bin)
{
    struct magazine *magazine = bin->loaded;
    if (magazine->capacity != 0) /* empty_magazine is everybody's */
        magazine->count = bin_loaded_count(bin);
    return magazine;
}

static inline void bin_set_other(struct bin *bin, struct magazine *magazine)
{
    bin->other = magazine;
    atomic_store_explicit(&bin->other_count, magazine->count, memory_order_relaxed);
}

/* The magazines change places. */
static inline void bin_swap(struct bin *bin)
{
    struct magazine *other = bin->other;
    bin_set_other(bin, bin_unload(bin));
    bin_load(bin, other);
}

/* Without magazines, as at first. */
static inline void bin_clear(struct bin *bin)
{
    bin_set_other(bin, &empty_magazine);
    bin_load(bin, &empty_magazine);
}

#endif
