/* SPDX-License-Identifier: MIT */
/*
 * The allocation map: from an address to the record that knows it, one for the process.
 *
 * It holds references to two kinds of records, both of which never move: regions (fit), entered once for
 * each granule of address space that they cover, and block records (exact, passthrough and oversized
 * blocks), entered under the address that the caller has. So under `fit` the map changes only when a
 * region comes or goes, and a block's own state lives in its region's unit words (region.h).
 */
#ifndef LARDER_ALLOCATION_MAP_H
#define LARDER_ALLOCATION_MAP_H

#include "spinlock.h"

struct region;
struct block_record;

/* Address space is entered in granules: regions start at and span multiples of it. What they cover of whole wide granules
 * is entered as such: large regions should start at one. */
enum { MAP_GRANULE_SHIFT = 22, MAP_WIDE_SHIFT = sizeof(void *) == 8 ? 28 : 24 };
#define MAP_GRANULE ((size_t)1 << MAP_GRANULE_SHIFT)
#define MAP_WIDE ((size_t)1 << MAP_WIDE_SHIFT)

/* Sets the number of shards before first use; -EBUSY afterwards, -EINVAL if not a power of two in 1..1024. */
int allocation_map_set_shards(unsigned shards);

/* Prepares the map if that has not been done. 0 or -ENOMEM. */
int allocation_map_prepare(void);

/* Lookups take no lock; NULL where the address is unknown. The map must have been prepared. Of an address that comes and goes
 * meanwhile, the record of another may be returned: the caller compares. */
struct region *allocation_map_region(uintptr_t address);
struct block_record *allocation_map_block(uintptr_t address);

/* Enter and remove. Not while a lock is held. Inserting can fail with -ENOMEM, removing cannot. */
int allocation_map_insert_region(struct region *region, uintptr_t base, size_t size);
void allocation_map_remove_region(uintptr_t base, size_t size);
int allocation_map_insert_block(struct block_record *record, uintptr_t address);
void allocation_map_remove_block(uintptr_t address);

struct allocation_map_counts {
    uint64_t entries, table_bytes, acquisitions, contended;
};
void allocation_map_count(struct allocation_map_counts *counts);

void allocation_map_fork_lock(void);
void allocation_map_fork_unlock(void);
void allocation_map_fork_child(void);

#endif
