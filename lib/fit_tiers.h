/* SPDX-License-Identifier: MIT */
/*
 * The tiers behind `fit`, for fit.c: fit_spans.c has spans with commit, cap and decay around the heap; fit_magazines.c has magazines,
 * runs and the exchange with the depot. The theory is in fit.c. No lock may be held when these are called.
 */
#ifndef LARDER_FIT_TIERS_H
#define LARDER_FIT_TIERS_H

#include "cache.h"

static inline size_t span_bytes(uint32_t units)
{
    return (size_t)units << UNIT_SHIFT;
}

/* A span from the heap, growing it if need be, usable; region is NULL where there is no memory. */
struct taken_span fit_take_span(struct span_heap *heap, struct thread_cache *cache, uint32_t units,
                                size_t alignment, uint32_t word);

/* A span just taken has fresh pages: counts that, and keeps the budget. */
void fit_note_fresh(struct larder *instance, struct thread_cache *cache);

/* Gives a span back, within the cap; false if its first word is not `expected` any more. */
bool fit_put_span(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t units,
                  uint32_t expected);

/* Commits what is not; false, and the span is back in the heap, if that cannot be. */
bool fit_make_usable(struct span_heap *heap, struct taken_span taken, uint32_t units);

/* A new run of the class becomes a spare of its depot; false where there is no memory. */
bool fit_run_create(struct larder *instance, struct thread_cache *cache, unsigned c);

/* Takes up to `count` spares of the class apart; their bytes. */
size_t fit_destroy_spares(struct larder *instance, unsigned c, uint32_t count);

/* Rounds to the runs that they came from. */
void fit_give_rounds(struct larder *instance, unsigned c, const struct round *rounds,
                     uint32_t count);

/* Something in the loaded magazine of the class, which may be empty; false if there is neither memory nor room. */
bool fit_refill(struct larder *instance, struct thread_cache *cache, unsigned c);

/* A CACHED block of the class: from magazines, depot or runs. */
bool fit_take_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                    struct round *round);

/* A CACHED block into the magazines; false if they have no room. */
bool fit_put_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                   struct round round);

#endif
