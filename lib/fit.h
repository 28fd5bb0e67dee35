/* SPDX-License-Identifier: MIT */
/*
 * The `fit` policy behind the hit path: magazines, depot, runs and spans.
 */
#ifndef LARDER_FIT_H
#define LARDER_FIT_H

#include "cache.h"

/* A block that has been found by its address. */
struct fit_block {
    struct region *region;
    word_t *word;        /* its state */
    uint32_t value;      /* as read */
    char *base;          /* its first byte, padding included */
    size_t bytes;        /* that it occupies, padding included */
    size_t size;         /* asked for */
    unsigned size_class; /* unless is_large */
    bool
        is_large; /* a span of its own: `word` is that of its first unit; otherwise of its block_state */
};

static inline bool fit_is_live(const struct fit_block *block)
{
    return block->is_large ? word_kind(block->value) == WORD_LARGE_LIVE
                           : state_is_live(block->value);
}

static inline struct block_state *fit_state_of(const struct fit_block *block)
{
    return (struct block_state *)((char *)block->word - offsetof(struct block_state, word));
}

/* Sets up classes, depots and the heap of an instance. */
void fit_init(struct larder *instance);

/*
 * A live block of `size` bytes, to be found by larder_alloc() beyond its hit path. NULL where there is no memory; *too_large if
 * no region can hold it. No lock may be held.
 */
void *fit_alloc(struct larder *instance, struct thread_cache *cache, size_t size, size_t alignment,
                bool *too_large);

/* A span for a large block of `size` bytes, from the heap that the thread is to use; region NULL: none fits. Counts nothing. */
struct taken_span fit_take_plain(struct thread_cache *cache, uint32_t units, size_t size);

/*
 * Goes on where the hit path for large blocks (larder.c) got a span with fresh pages, or none: a live block, counted. NULL: no
 * memory. *written is how many of its bytes, from the first on, may be other than zero.
 */
void *fit_finish_span(struct larder *instance, struct thread_cache *cache, struct taken_span taken,
                      size_t size, size_t *written);

/* Frees one, the first word of which was `word`; counted. False if it is not live any more. */
bool fit_free_span(struct thread_cache *cache, struct region *region, uint32_t start,
                   uint32_t word);

/*
 * Looks at the block that has `ptr` (its caller's address) in a region: false, and the reason in *state, if no block
 * starts there. The block may be live or cached: see its word.
 */
bool fit_find(struct region *region, uintptr_t address, struct fit_block *block,
              const char **state);

/* Frees a block found live; false if it is not live any more. `strict` also against threads freeing it now. */
bool fit_free(struct larder *instance, struct thread_cache *cache, const struct fit_block *block,
              bool strict);

/*
 * The same in two steps, for a block that is looked at, or filled, in between: claim takes it out of everybody's hands, so that a second
 * free finds it cached, and notes in *block what its word says now; whoever has claimed it frees it.
 */
bool fit_claim(struct fit_block *block, bool strict);
void fit_free_claimed(struct larder *instance, struct thread_cache *cache,
                      const struct fit_block *block);

/* Changes the size asked for of a live block, within what it occupies. */
void fit_resize(struct larder *instance, const struct fit_block *block, size_t size);

/* The thread's magazines to the depot and heap. */
void fit_flush(struct larder *instance, struct thread_cache *cache);

/*
 * Full magazines of the depots to runs, and runs without a block in use to the heap: all, or what nobody has needed since the last reap. Of
 * the latter returns how many bytes have not been in use for idle_ms.
 */
void fit_drain_depots(struct larder *instance);
size_t fit_reap_depots(struct larder *instance, uint32_t now_ms, uint32_t idle_ms);

/* Runs without a block in use: their bytes, and all of them to the heap. */
uint64_t fit_spare_bytes(const struct larder *instance);
void fit_release_spares(struct larder *instance);

/* The usable size that a request gets; 0 if it would get a block of its own from the backend. */
size_t fit_good_size(const struct larder *instance, size_t size);

/* Calls fn for each live block of a region. The heap's lock is held. */
int fit_walk_region(struct region *region, larder_walk_fn *fn, void *context);

#endif
