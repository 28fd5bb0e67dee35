/* SPDX-License-Identifier: MIT */
#include "magazine.h"

#include "meta.h"

struct magazine empty_magazine;

/* One pool a capacity: 4, 8, 16, 32 rounds. */
enum { POOLS = 4 };
#define MAGAZINE_BYTES(rounds) (sizeof(struct magazine) + (rounds) * sizeof(struct round))
#define POOL(rounds)                                                                               \
    {                                                                                              \
        .lock = SPINLOCK_OF(RANK_POOL), .size = MAGAZINE_BYTES(rounds)                             \
    }
static struct meta_pool pools[POOLS] = {
    POOL(4),
    POOL(8),
    POOL(16),
    POOL(32),
};

static struct meta_pool *pool_of(uint32_t capacity)
{
    return &pools[__builtin_ctz(capacity) - 2];
}

uint32_t magazine_capacity(size_t block_size)
{
    /* at most 32 KiB of blocks: a thread has bytes for two full ones of most classes, for nearly two of the largest */
    if (block_size <= 512)
        return 32;
    if (block_size <= 1792)
        return 16;
    if (block_size <= 4096)
        return 8;
    return 4; /* up to SIZE_CLASS_LIMIT */
}

struct magazine *magazine_get(uint32_t capacity)
{
    struct magazine *magazine = meta_pool_get(pool_of(capacity));
    if (magazine != NULL) {
        magazine->count = 0;
        magazine->capacity = capacity;
        magazine->next = NULL;
    }
    return magazine;
}

void magazine_put(struct magazine *magazine)
{
    meta_pool_put(pool_of(magazine->capacity), magazine);
}

size_t magazine_size(uint32_t capacity)
{
    return MAGAZINE_BYTES(capacity);
}

void magazine_fork_lock(void)
{
    for (int i = 0; i < POOLS; i++)
        spinlock_lock(&pools[i].lock);
}

void magazine_fork_unlock(void)
{
    for (int i = 0; i < POOLS; i++)
        spinlock_unlock(&pools[i].lock);
}

void magazine_fork_child(void)
{
    for (int i = 0; i < POOLS; i++)
        spinlock_reset(&pools[i].lock);
}
