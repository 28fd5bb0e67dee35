/* SPDX-License-Identifier: MIT */
/*
 * Blocks with a record of their own: one backend allocation each, entered in the allocation map under
 * the caller's address. All blocks under `exact` and `passthrough`, and under `fit` those too large for a region or
 * above max_cached_size.
 */
#ifndef LARDER_BLOCK_H
#define LARDER_BLOCK_H

#include "region.h"

struct block_record {
    _Atomic uintptr_t address; /* the caller's; 0 in an unused record */
    word_t word;               /* LIVE or CACHED with a generation; NONE in an unused record */
    uint32_t idle_since;       /* while cached in the shared store */
    void *raw;                 /* the backend's */
    size_t raw_size;
    size_t size; /* asked for; the key under `exact` */
    struct larder *instance;
    struct block_record *below;       /* next older block of this size in a stack */
    struct block_record *next_size;   /* in the shared store: top of the next stack in the bucket */
    struct block_record *next, *prev; /* all of the instance's; guarded by instance->lock */
    void *pool_link;                  /* used by the pool, so that the fields above stay readable */
};

/* A live block; NULL where there is no memory. No lock may be held. */
struct block_record *block_create(struct larder *instance, size_t size, size_t alignment);

/* Ends a block and gives its memory to the backend. No lock may be held. */
void block_destroy(struct block_record *record);

/* Ends a block whose memory somebody else releases. */
void block_forget(struct block_record *record);

/* LIVE to CACHED; false if it is not live, also against another thread doing the same if `strict`. */
bool block_mark_cached(struct block_record *record, bool strict);
void block_mark_live(struct block_record *record);

/* True if the address lies inside one of the instance's blocks (its size in *size). Slow: looks at all. */
bool block_contains(struct larder *instance, uintptr_t address, size_t *size);

/* Calls fn for each live block of the instance, with instance->lock held; returns what fn returned last. */
int block_walk(struct larder *instance, int (*fn)(void *context, void *ptr, size_t size),
               void *context);

void block_fork_lock(void);
void block_fork_unlock(void);
void block_fork_child(void);

#endif
