/* SPDX-License-Identifier: MIT */
/*
 * A hash map from an address (any 64-bit key but 0) to two 32-bit numbers, for the parser.
 *
 * Open addressing with linear probing and deletion by backward shift, at most half full, so that
 * the millions of short lifetimes of a long trace leave no tombstones behind.
 */
#ifndef LARDER_TRACE_ADDRESS_MAP_H
#define LARDER_TRACE_ADDRESS_MAP_H

#include <stddef.h>
#include <stdint.h>

struct address_entry {
    uint64_t address; /* 0: empty */
    uint32_t first;
    uint32_t last;
};

struct address_map {
    struct address_entry *entries; /* NULL: empty map */
    size_t capacity;               /* a power of two */
    size_t count;
    unsigned shift; /* of the hash, to get an index */
};

/* The entry of `address`, or NULL. Valid until the next insert or remove. */
struct address_entry *address_map_find(const struct address_map *map, uint64_t address);

/* A new entry for an address that is not in the map; NULL: out of memory. */
struct address_entry *address_map_insert(struct address_map *map, uint64_t address);

/* Removes an entry that address_map_find() returned. */
void address_map_remove(struct address_map *map, struct address_entry *entry);

void address_map_clear(struct address_map *map);

#endif
