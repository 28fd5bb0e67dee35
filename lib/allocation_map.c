/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Keys are odd for granules of regions (granule_key()) and even for blocks, the
 * address itself; 0 marks an empty slot. The key's hash chooses a shard by its top bits and a slot in the
 * shard's open-addressing table by the next ones; probing is linear.
 *
 * Writers hold the shard's spinlock. They change a slot in three steps: key = 0, value, key, each with release
 * order. A reader loads key, value, key with acquire order: if both keys are the one it looks for, the value
 * belonged to that key. So a hit is valid without a lock however the slots move. (Only if the key is removed and entered again in between,
 * and another stood in its slot meanwhile, may the value be the other's: the caller's misuse, against which lookup.c looks at the
 * record's own address. tests/model/map.pml checks all of this.)
 *
 * A miss is less simple: removal closes gaps by moving later entries towards their home slot (no tombstones, so tables
 * stay short under churn), and a reader may pass the new place before and the old one after
 * the move. `sequence` is odd while a writer moves entries and has changed afterwards: a reader that missed
 * reads it again and repeats if it changed; after a few repetitions it takes the lock, so that a preempted writer
 * cannot hold it up for ever. Reading a slot with acquire orders the second reading of `sequence` behind it.
 *
 * Growth fills a new table and publishes it with release; the old one is never written again and never
 * freed (all old tables together are smaller than the current one), so readers still inside it see a
 * consistent older state, and the changed sequence tells them if they missed.
 *
 * Granules come in two sizes. A region that is reserved covers a GiB, most of it never used: entered in granules of
 * MAP_GRANULE it filled 40 KiB of tables before its first block. So what a region covers of whole wide granules is
 * entered as those, and only the rest as small ones; reserved regions begin at a wide one, so for them there is no rest. A lookup asks
 * for the wide granule first, and skips a size of which there is none in the process. What lies between a region's
 * blocks, and what has never been committed, is found as before: no wild pointer into a region is taken for another allocator's.
 *
 * Lock order: a shard's lock is taken last, with no other held inside it.
 */
#include "allocation_map.h"

#include <errno.h>
#include <stdlib.h>

#include "granules.h"
#include "map_check.h"
#include "map_table.h"
#include "meta.h"

enum { DEFAULT_SHARDS = 64, MAX_SHARDS = 1024, FIRST_SLOTS = 8, LOCKLESS_TRIES = 4 };

static struct {
    spinlock_t lock;                /* for preparation only */
    _Atomic(struct shard *) shards; /* NULL: not prepared */
    unsigned shard_shift;           /* see shard_number(); set before shards */
    unsigned count;
    unsigned wanted;            /* set by allocation_map_set_shards(), 0: default */
    _Atomic size_t granules[2]; /* entered, or being so: small, wide */
} map = {.lock = SPINLOCK_OF(RANK_MAP)};

/* One empty slot: a table that every lookup misses. */
static struct {
    size_t mask;
    struct slot slot;
} empty_table;

static struct shard *shard_of(uint64_t hash)
{
    /* acquire: pairs with the release in allocation_map_prepare() */
    struct shard *shards = atomic_load_explicit(&map.shards, memory_order_acquire);
    return &shards[shard_number(hash, map.shard_shift)];
}

int allocation_map_set_shards(unsigned shards)
{
    if (shards == 0 || shards > MAX_SHARDS || (shards & (shards - 1)) != 0)
        return -EINVAL;
    int result = -EBUSY;
    spinlock_lock(&map.lock);
    if (atomic_load_explicit(&map.shards, memory_order_relaxed) == NULL) {
        map.wanted = shards;
        result = 0;
    }
    spinlock_unlock(&map.lock);
    return result;
}

static unsigned shards_from_environment(void)
{
    const char *text = getenv("LARDER_MAP_SHARDS");
    if (text == NULL)
        return DEFAULT_SHARDS;
    char *end;
    unsigned long shards = strtoul(text, &end, 10);
    /* larder_config_from_environment() is the place that reports a bad value */
    bool good = *text != '\0' && *end == '\0' && shards >= 1 && shards <= MAX_SHARDS &&
                (shards & (shards - 1)) == 0;
    return good ? (unsigned)shards : DEFAULT_SHARDS;
}

int allocation_map_prepare(void)
{
    if (atomic_load_explicit(&map.shards, memory_order_acquire) != NULL)
        return 0;
    unsigned count = map.wanted != 0 ? map.wanted : shards_from_environment();
    struct shard *shards = meta_alloc(count * sizeof(struct shard));
    if (shards == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        spinlock_set_rank(&shards[i].lock, RANK_SHARD);
        atomic_store_explicit(&shards[i].table, (struct table *)(void *)&empty_table,
                              memory_order_relaxed);
    }
    spinlock_lock(&map.lock);
    if (atomic_load_explicit(&map.shards, memory_order_relaxed) == NULL) {
        map.count = count;
        map.shard_shift = 10u - (unsigned)__builtin_ctz(count);
        atomic_store_explicit(&map.shards, shards, memory_order_release);
    }
    spinlock_unlock(&map.lock);
    return 0;
}

/* The value under `key` in `table`, or NULL. */
static void *table_find(struct table *table, uint64_t hash, uintptr_t key)
{
    size_t mask = table->mask;
    size_t i = home_slot(hash, mask);
    for (size_t probes = 0; probes <= mask; probes++, i = (i + 1) & mask) {
        struct slot *slot = &table->slots[i];
        uintptr_t found = atomic_load_explicit(&slot->key, memory_order_acquire);
        if (found == key) {
            void *value = atomic_load_explicit(&slot->value, memory_order_acquire);
            /* relaxed: ordered behind the acquire load of value, which a writer stores between two
             * changes of the key */
            if (atomic_load_explicit(&slot->key, memory_order_relaxed) == key)
                return value;
        }
        if (found == 0)
            return NULL;
    }
    return NULL;
}

static void *map_find(uintptr_t key)
{
    uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(hash);
    for (int i = 0; i < LOCKLESS_TRIES; i++) {
        /* acquire: pairs with the release stores of sequence */
        uint32_t before = atomic_load_explicit(&shard->sequence, memory_order_acquire);
        struct table *table = atomic_load_explicit(&shard->table, memory_order_acquire);
        void *value = table_find(table, hash, key);
        if (value != NULL)
            return value;
        uint32_t after = atomic_load_explicit(&shard->sequence, memory_order_relaxed);
        if (before == after && (before & 1) == 0)
            return NULL;
    }
    spinlock_lock(&shard->lock);
    void *value = table_find(atomic_load_explicit(&shard->table, memory_order_relaxed), hash, key);
    spinlock_unlock(&shard->lock);
    return value;
}

static void slot_set(struct slot *slot, uintptr_t key, void *value)
{
    /* release, three times: pair with the acquire loads in table_find() */
    atomic_store_explicit(&slot->key, 0, memory_order_release);
    atomic_store_explicit(&slot->value, value, memory_order_release);
    atomic_store_explicit(&slot->key, key, memory_order_release);
}

/* Puts key into the first free slot of its probe run; there must be one. */
static void table_put(struct table *table, uintptr_t key, void *value)
{
    size_t i = home_slot(hash_key(key), table->mask);
    while (atomic_load_explicit(&table->slots[i].key, memory_order_relaxed) != 0) {
        i = (i + 1) & table->mask;
    }
    slot_set(&table->slots[i], key, value);
}

/* A table twice the size with the same entries, published. Called with the lock held. */
static void shard_adopt(struct shard *shard, struct table *larger, size_t bytes)
{
    struct table *old = atomic_load_explicit(&shard->table, memory_order_relaxed);
    for (size_t i = 0; i <= old->mask; i++) {
        uintptr_t key = atomic_load_explicit(&old->slots[i].key, memory_order_relaxed);
        if (key == 0)
            continue;
        table_put(larger, key, atomic_load_explicit(&old->slots[i].value, memory_order_relaxed));
    }
    shard->table_bytes += bytes;
    atomic_store_explicit(&shard->table, larger, memory_order_release);
}

static int map_insert(uintptr_t key, void *value)
{
    uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(hash);
    for (;;) {
        spinlock_lock(&shard->lock);
        struct table *table = atomic_load_explicit(&shard->table, memory_order_relaxed);
        size_t slots = table->mask + 1;
        if ((shard->entries + 1) * 2 <= slots) {
            /* No reader misses an entry through an insertion, except the new one: no need to touch
             * the sequence. */
            table_put(table, key, value);
            shard->entries++;
            map_check(shard, map.shard_shift, key, value);
            spinlock_unlock(&shard->lock);
            return 0;
        }
        spinlock_unlock(&shard->lock);
        /* Memory for growth is fetched without the lock; another thread may be quicker, then the table is
         * kept for nothing, which is rare. */
        size_t wanted = slots < FIRST_SLOTS ? FIRST_SLOTS : slots * 2;
        size_t bytes = sizeof(struct table) + wanted * sizeof(struct slot);
        struct table *larger = meta_alloc(bytes);
        if (larger == NULL)
            return -ENOMEM;
        larger->mask = wanted - 1;
        spinlock_lock(&shard->lock);
        table = atomic_load_explicit(&shard->table, memory_order_relaxed);
        if (table->mask < larger->mask)
            shard_adopt(shard, larger, bytes);
        spinlock_unlock(&shard->lock);
    }
}

/* True if slot i lies on the way from `home` to the gap, cyclically: the entry may move into the gap. */
static bool may_fill(size_t home, size_t gap, size_t i, size_t mask)
{
    return ((i - home) & mask) >= ((i - gap) & mask);
}

/* False: it was not there. */
static bool map_remove(uintptr_t key)
{
    uint64_t hash = hash_key(key);
    struct shard *shard = shard_of(hash);
    spinlock_lock(&shard->lock);
    struct table *table = atomic_load_explicit(&shard->table, memory_order_relaxed);
    size_t mask = table->mask;
    size_t gap = home_slot(hash, mask);
    uintptr_t found;
    while ((found = atomic_load_explicit(&table->slots[gap].key, memory_order_relaxed)) != key) {
        if (found == 0) {
            spinlock_unlock(&shard->lock);
            return false;
        }
        gap = (gap + 1) & mask;
    }
    uint32_t sequence = atomic_load_explicit(&shard->sequence, memory_order_relaxed);
    atomic_store_explicit(&shard->sequence, sequence + 1, memory_order_release);
    for (size_t i = (gap + 1) & mask;; i = (i + 1) & mask) {
        uintptr_t moved = atomic_load_explicit(&table->slots[i].key, memory_order_relaxed);
        if (moved == 0)
            break;
        if (may_fill(home_slot(hash_key(moved), mask), gap, i, mask)) {
            slot_set(&table->slots[gap], moved,
                     atomic_load_explicit(&table->slots[i].value, memory_order_relaxed));
            gap = i;
        }
    }
    /* release: orders the sequence's first step before it for a reader that sees the gap */
    atomic_store_explicit(&table->slots[gap].key, 0, memory_order_release);
    shard->entries--;
    atomic_store_explicit(&shard->sequence, sequence + 2, memory_order_release);
    map_check(shard, map.shard_shift, key, NULL);
    spinlock_unlock(&shard->lock);
    return true;
}

/* ---- granules ---- */

static uintptr_t granule_key(uintptr_t address, bool wide)
{
    return wide ? (address >> MAP_WIDE_SHIFT) << 2 | 3 : (address >> MAP_GRANULE_SHIFT) << 2 | 1;
}

/* A granule of a region. Counted before it is entered, and until it has gone. */
static int granule_insert(struct region *region, uintptr_t address, bool wide)
{
    /* relaxed, here and below: whoever has a block of the region, or looks for it later, comes after its insertion */
    atomic_fetch_add_explicit(&map.granules[wide], 1, memory_order_relaxed);
    int error = map_insert(granule_key(address, wide), region);
    if (error != 0)
        atomic_fetch_sub_explicit(&map.granules[wide], 1, memory_order_relaxed);
    return error;
}

static void granule_remove(uintptr_t address, bool wide)
{
    /* false where the region could not be entered */
    if (map_remove(granule_key(address, wide)))
        atomic_fetch_sub_explicit(&map.granules[wide], 1, memory_order_relaxed);
}

static struct region *granule_find(uintptr_t address, bool wide)
{
    if (atomic_load_explicit(&map.granules[wide], memory_order_relaxed) == 0)
        return NULL;
    return map_find(granule_key(address, wide));
}

/* The granule at `address` of a range that ends at `end`. */
static inline bool is_wide(uintptr_t address, uintptr_t end)
{
    return (address & (MAP_WIDE - 1)) == 0 && end - address >= MAP_WIDE;
}

struct region *allocation_map_region(uintptr_t address)
{
    struct region *region = granule_find(address, true);
    return region != NULL ? region : granule_find(address, false);
}

struct block_record *allocation_map_block(uintptr_t address)
{
    return (address & 1) != 0 || address == 0 ? NULL : map_find(address);
}

/* Those of a region up to `end`, where one begins. */
static void remove_granules(uintptr_t base, uintptr_t end, uintptr_t region_end)
{
    while (base != end) {
        bool wide = is_wide(base, region_end);
        granule_remove(base, wide);
        base += wide ? MAP_WIDE : MAP_GRANULE;
    }
}

int allocation_map_insert_region(struct region *region, uintptr_t base, size_t size)
{
    if (!granules_mark(base, size, GRANULE_REGION))
        return -ENOMEM;
    uintptr_t end = base + size;
    for (uintptr_t address = base; address != end;) {
        bool wide = is_wide(address, end);
        int error = granule_insert(region, address, wide);
        if (error != 0) {
            remove_granules(base, address, end);
            granules_unmark_region(base, size);
            return error;
        }
        address += wide ? MAP_WIDE : MAP_GRANULE;
    }
    return 0;
}

void allocation_map_remove_region(uintptr_t base, size_t size)
{
    if (size != 0)
        granules_unmark_region(base, size);
    remove_granules(base, base + size, base + size);
}

int allocation_map_insert_block(struct block_record *record, uintptr_t address)
{
    return granules_mark(address, 1, GRANULE_BLOCKS) ? map_insert(address, record) : -ENOMEM;
}

void allocation_map_remove_block(uintptr_t address)
{
    (void)map_remove(address);
}

void allocation_map_count(struct allocation_map_counts *counts)
{
    *counts = (struct allocation_map_counts){0};
    struct shard *shards = atomic_load_explicit(&map.shards, memory_order_acquire);
    for (unsigned i = 0; shards != NULL && i < map.count; i++) {
        spinlock_lock(&shards[i].lock);
        counts->entries += shards[i].entries;
        counts->table_bytes += shards[i].table_bytes;
        counts->acquisitions += spinlock_acquisitions(&shards[i].lock);
        counts->contended += spinlock_contended(&shards[i].lock);
        spinlock_unlock(&shards[i].lock);
    }
    counts->table_bytes += map.count * sizeof(struct shard);
}

void allocation_map_fork_lock(void)
{
    spinlock_lock(&map.lock);
    struct shard *shards = atomic_load_explicit(&map.shards, memory_order_relaxed);
    for (unsigned i = 0; shards != NULL && i < map.count; i++)
        spinlock_lock(&shards[i].lock);
}

void allocation_map_fork_unlock(void)
{
    struct shard *shards = atomic_load_explicit(&map.shards, memory_order_relaxed);
    for (unsigned i = 0; shards != NULL && i < map.count; i++)
        spinlock_unlock(&shards[i].lock);
    spinlock_unlock(&map.lock);
}

void allocation_map_fork_child(void)
{
    struct shard *shards = atomic_load_explicit(&map.shards, memory_order_relaxed);
    for (unsigned i = 0; shards != NULL && i < map.count; i++)
        spinlock_reset(&shards[i].lock);
    spinlock_reset(&map.lock);
}
