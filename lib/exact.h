/* SPDX-License-Identifier: MIT */
/*
 * The `exact` policy: free blocks are kept whole under their exact size and reused last in first out, as
 * c10::CPUCachingAllocator does, but per thread first (a bounded table of sizes), then in a shared store of locked buckets.
 */
#ifndef LARDER_EXACT_H
#define LARDER_EXACT_H

#include "block.h"
#include "invariant.h"

struct thread_cache;

enum { EXACT_THREAD_SIZES = 32, EXACT_BUCKETS = 128 };

/* What a thread keeps: a stack of blocks for each of up to EXACT_THREAD_SIZES sizes. */
struct exact_table {
    struct exact_stack {
        size_t size;
        struct block_record *top;
    } stacks[EXACT_THREAD_SIZES];
#ifdef LARDER_CHECKS_FULL
    struct check_pace pace; /* of exact_check_table() */
#endif
    void *pool_link;
};

struct exact_bucket {
    spinlock_t lock;
    struct block_record
        *sizes; /* tops of the stacks, one a size, linked through next_size; guarded by lock */
#ifdef LARDER_CHECKS_FULL
    struct check_pace pace; /* of exact_check_bucket() */
#endif
};

struct exact_store {
    struct exact_bucket *buckets; /* EXACT_BUCKETS; NULL under other policies. Fixed */
    _Atomic uint64_t bytes;       /* cached in the buckets */
    _Atomic uint64_t blocks;
    _Atomic uint32_t next_evict_ms; /* when the next look for idle blocks is due */
};

/* Where blocks of a size are. */
static inline uint32_t exact_hash_size(size_t size)
{
    return (uint32_t)(((uint64_t)size * UINT64_C(0x9E3779B97F4A7C15)) >> 40);
}

static inline struct exact_stack *exact_stack_of(struct exact_table *table, size_t size)
{
    return &table->stacks[exact_hash_size(size) % EXACT_THREAD_SIZES];
}

static inline struct exact_bucket *exact_bucket_of(struct exact_store *store, size_t size)
{
    return &store->buckets[exact_hash_size(size) / EXACT_THREAD_SIZES % EXACT_BUCKETS];
}

/* 0 or -ENOMEM. */
int exact_init(struct exact_store *store);

/* A table for a thread, or NULL: then the thread uses the shared store alone. */
struct exact_table *exact_table_get(void);
void exact_table_put(struct exact_table *table);

/* Allocate and free under `exact`. NULL where there is no memory. The record is live. `*hit`: how it was served. */
enum exact_hit { EXACT_MISS, EXACT_SHARED_HIT, EXACT_THREAD_HIT };
struct block_record *exact_alloc(struct larder *instance, struct thread_cache *cache, size_t size,
                                 size_t alignment, enum exact_hit *hit);
/* `record` has just been marked cached. */
void exact_free(struct larder *instance, struct thread_cache *cache, struct block_record *record);

/* Moves the thread's blocks to the shared store. */
void exact_flush(struct larder *instance, struct thread_cache *cache);

/* Releases blocks of the shared store that have been idle for `idle_ms`, until at most `keep_bytes` are
 * left. Returns the bytes released. */
size_t exact_evict(struct larder *instance, uint32_t now_ms, uint32_t idle_ms, uint64_t keep_bytes);

/* The records of all instances' threads; then one instance's store. */
void exact_tables_fork_lock(void);
void exact_tables_fork_unlock(void);
void exact_tables_fork_child(void);
void exact_fork_lock(struct exact_store *store);
void exact_fork_unlock(struct exact_store *store);
void exact_fork_child(struct exact_store *store);

#endif
