/* SPDX-License-Identifier: MIT */
/* The parser's address map: see address_map.h. */
#include "address_map.h"

#include <assert.h>

#include "pages.h"

/* Fibonacci hashing: the golden ratio spreads addresses that differ in few low bits. */
static size_t home_of(const struct address_map *map, uint64_t address)
{
    return (size_t)((address * UINT64_C(0x9E3779B97F4A7C15)) >> map->shift);
}

/* Index of the entry of `address`, or of the empty entry where it belongs. */
static size_t probe(const struct address_map *map, uint64_t address)
{
    size_t index = home_of(map, address);
    while (map->entries[index].address != 0 && map->entries[index].address != address) {
        index = (index + 1) & (map->capacity - 1);
    }
    return index;
}

struct address_entry *address_map_find(const struct address_map *map, uint64_t address)
{
    if (map->count == 0) {
        return NULL;
    }
    struct address_entry *entry = &map->entries[probe(map, address)];
    return entry->address != 0 ? entry : NULL;
}

static int grow(struct address_map *map)
{
    struct address_map larger = {.capacity = map->capacity > 0 ? map->capacity * 2 : 4096};
    larger.entries = pages_allocate(larger.capacity * sizeof *larger.entries);
    if (larger.entries == NULL) {
        return -1;
    }
    larger.shift = 64;
    for (size_t n = larger.capacity; n > 1; n /= 2) {
        larger.shift--;
    }
    larger.count = map->count;
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].address != 0) {
            larger.entries[probe(&larger, map->entries[i].address)] = map->entries[i];
        }
    }
    address_map_clear(map);
    *map = larger;
    return 0;
}

struct address_entry *address_map_insert(struct address_map *map, uint64_t address)
{
    assert(address != 0);
    if (map->count * 2 >= map->capacity && grow(map) != 0) {
        return NULL;
    }
    struct address_entry *entry = &map->entries[probe(map, address)];
    assert(entry->address == 0);
    entry->address = address;
    map->count++;
    return entry;
}

void address_map_remove(struct address_map *map, struct address_entry *entry)
{
    size_t mask = map->capacity - 1;
    size_t hole = (size_t)(entry - map->entries);
    for (size_t i = (hole + 1) & mask; map->entries[i].address != 0; i = (i + 1) & mask) {
        /* An entry may move into the hole unless its home lies behind the hole. */
        size_t home = home_of(map, map->entries[i].address);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->entries[hole] = map->entries[i];
            hole = i;
        }
    }
    map->entries[hole].address = 0;
    map->count--;
}

void address_map_clear(struct address_map *map)
{
    pages_free(map->entries, map->capacity * sizeof *map->entries);
    *map = (struct address_map){0};
}
