/* SPDX-License-Identifier: MIT */
/* Shards and their tables, for allocation_map.c and its checks. The theory is in allocation_map.c. */
#ifndef LARDER_MAP_TABLE_H
#define LARDER_MAP_TABLE_H

#include "invariant.h"
#include "spinlock.h"

struct slot {
    _Atomic uintptr_t key;
    _Atomic(void *) value;
};

struct table {
    size_t mask; /* slots - 1 */
    struct slot slots[];
};

struct shard {
    _Alignas(64) spinlock_t lock;
    _Atomic uint32_t sequence;
    _Atomic(struct table *) table;
    size_t entries;     /* guarded by lock */
    size_t table_bytes; /* guarded by lock; old tables included */
#ifdef LARDER_CHECKS_FULL
    struct check_pace pace; /* of map_check() */
#endif
};

static inline uint64_t hash_key(uintptr_t key)
{
    return (uint64_t)key * UINT64_C(0x9E3779B97F4A7C15);
}

static inline size_t home_slot(uint64_t hash, size_t mask)
{
    /* the bits below the 10 that may choose the shard */
    return (size_t)(hash >> 22) & mask;
}

/* From the hash's top 10 bits, of which as many count as there are shards. */
static inline size_t shard_number(uint64_t hash, unsigned shift)
{
    return (size_t)((hash >> 54) >> shift);
}

#endif
