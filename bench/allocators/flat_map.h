/* SPDX-License-Identifier: MIT */
/*
 * A flat hash map from a word (not 0) to a word, for c10-design: open addressing, linear probing,
 * at most half full, Fibonacci hashing, entries side by side, as in the map the original uses
 * (ska::flat_hash_map). Entries are never removed one by one: the original keeps a block's entry
 * while it is cached, and an empty list under its size.
 */
#ifndef LARDER_BENCH_FLAT_MAP_H
#define LARDER_BENCH_FLAT_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct flat_entry {
    uintptr_t key; /* 0: empty */
    uintptr_t value;
};

struct flat_map {
    struct flat_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
    unsigned shift;
};

static inline struct flat_entry *flat_map_probe(const struct flat_map *map, uintptr_t key)
{
    size_t index = (size_t)(((uint64_t)key * UINT64_C(0x9E3779B97F4A7C15)) >> map->shift);
    while (map->entries[index].key != 0 && map->entries[index].key != key) {
        index = (index + 1) & (map->capacity - 1);
    }
    return &map->entries[index];
}

/* The entry of `key`, or NULL. */
static inline struct flat_entry *flat_map_find(const struct flat_map *map, uintptr_t key)
{
    if (map->capacity == 0) {
        return NULL;
    }
    struct flat_entry *entry = flat_map_probe(map, key);
    return entry->key != 0 ? entry : NULL;
}

static inline bool flat_map_grow(struct flat_map *map)
{
    struct flat_map larger = {.capacity = map->capacity > 0 ? map->capacity * 2 : 64, .shift = 64};
    larger.entries = calloc(larger.capacity, sizeof *larger.entries);
    if (larger.entries == NULL) {
        return false;
    }
    for (size_t n = larger.capacity; n > 1; n /= 2) {
        larger.shift--;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].key != 0) {
            *flat_map_probe(&larger, map->entries[i].key) = map->entries[i];
            larger.count++;
        }
    }
    free(map->entries);
    *map = larger;
    return true;
}

/* The entry of `key`, made with value 0 if there is none; NULL: out of memory. */
static inline struct flat_entry *flat_map_at(struct flat_map *map, uintptr_t key)
{
    if (map->count * 2 >= map->capacity && !flat_map_grow(map)) {
        return NULL;
    }
    struct flat_entry *entry = flat_map_probe(map, key);
    if (entry->key == 0) {
        entry->key = key;
        map->count++;
    }
    return entry;
}

static inline void flat_map_clear(struct flat_map *map)
{
    free(map->entries);
    *map = (struct flat_map){0};
}

#endif
