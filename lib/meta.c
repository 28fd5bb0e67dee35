/* SPDX-License-Identifier: MIT */
#include "meta.h"

#include <string.h>

enum { META_CHUNK = 64 * 1024, META_ALIGNMENT = 64 };

static struct {
    spinlock_t lock;
    char *next, *end; /* the rest of the current chunk; guarded by lock */
    _Atomic uint64_t bytes;
} meta = {.lock = SPINLOCK_OF(RANK_META)};

void *meta_alloc(size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + META_ALIGNMENT - 1) & ~(size_t)(META_ALIGNMENT - 1);
    if (size > META_CHUNK / 4) {
        void *own = os_map(size);
        if (own != NULL)
            atomic_fetch_add_explicit(&meta.bytes, size, memory_order_relaxed);
        return own;
    }
    for (;;) {
        char *ptr = NULL;
        spinlock_lock(&meta.lock);
        if ((size_t)(meta.end - meta.next) >= size) {
            ptr = meta.next;
            meta.next += size;
        }
        spinlock_unlock(&meta.lock);
        if (ptr != NULL) {
            atomic_fetch_add_explicit(&meta.bytes, size, memory_order_relaxed);
            return ptr;
        }
        char *chunk = os_map(META_CHUNK);
        if (chunk == NULL)
            return NULL;
        /* Two threads may get here at once: the rest of the smaller remainder is lost, not more. */
        spinlock_lock(&meta.lock);
        meta.next = chunk;
        meta.end = chunk + META_CHUNK;
        spinlock_unlock(&meta.lock);
    }
}

uint64_t meta_bytes(void)
{
    return atomic_load_explicit(&meta.bytes, memory_order_relaxed);
}

static void **link_of(const struct meta_pool *pool, void *record)
{
    return (void **)((char *)record + (pool->size & ~(sizeof(void *) - 1)) - sizeof(void *));
}

void *meta_pool_get(struct meta_pool *pool)
{
    spinlock_lock(&pool->lock);
    void *record = pool->free;
    if (record != NULL)
        pool->free = *link_of(pool, record);
    spinlock_unlock(&pool->lock);
    if (record != NULL)
        return record;
    size_t batch = pool->batch != 0 ? pool->batch : 1;
    char *records = meta_alloc(pool->size * batch);
    for (size_t i = 1; records != NULL && i < batch; i++)
        meta_pool_put(pool, records + i * pool->size);
    return records;
}

void meta_pool_put(struct meta_pool *pool, void *record)
{
    spinlock_lock(&pool->lock);
    *link_of(pool, record) = pool->free;
    pool->free = record;
    spinlock_unlock(&pool->lock);
}

void meta_fork_lock(void)
{
    spinlock_lock(&meta.lock);
}

void meta_fork_unlock(void)
{
    spinlock_unlock(&meta.lock);
}

void meta_fork_child(void)
{
    spinlock_reset(&meta.lock);
}
