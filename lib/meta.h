/* SPDX-License-Identifier: MIT */
/*
 * Memory for larder's own records: straight from the operating system, never from malloc, never inside
 * a block.
 *
 * Records come from pools and are type-stable: a record that is put back may be handed out again, but
 * always as the same type, and its pages are never unmapped. A thread that still holds a stale reference can
 * therefore read it safely and find out that it is stale. Large arrays that no one can refer to any more are
 * unmapped by their owners (os_unmap).
 */
#ifndef LARDER_META_H
#define LARDER_META_H

#include "spinlock.h"

/* Zeroed memory that is never given back, at a multiple of 64; NULL where there is none. Not while a lock is held. */
void *meta_alloc(size_t size);

/* Bytes handed out by meta_alloc() so far. */
uint64_t meta_bytes(void);

/* Equal records; one pool a type. `size` at least a pointer. */
struct meta_pool {
    spinlock_t lock;
    size_t size;
    size_t batch; /* so many are fetched at once; 0: one */
    void *
        free; /* guarded by lock; linked through the last word, so that the first fields stay readable */
};
#define META_POOL(type)                                                                            \
    {                                                                                              \
        .lock = SPINLOCK_OF(RANK_POOL), .size = sizeof(type)                                       \
    }

/* A record; recycled ones keep their old contents, new ones are zero. NULL where there is no memory. */
void *meta_pool_get(struct meta_pool *pool);
void meta_pool_put(struct meta_pool *pool, void *record);

/* Locks of this module, for fork. */
void meta_fork_lock(void);
void meta_fork_unlock(void);
void meta_fork_child(void);

#endif
