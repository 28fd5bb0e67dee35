/* SPDX-License-Identifier: MIT */
#include "map_check.h"

#ifdef LARDER_CHECKS_FULL

#include "map_table.h"

static void must(bool holds, const char *what, uint64_t number)
{
    invariant_holds(holds, "allocation map", what, number);
}

static uintptr_t key_at(struct table *table, size_t i)
{
    return atomic_load_explicit(&table->slots[i].key, memory_order_relaxed);
}

static const void *value_at(struct table *table, size_t i)
{
    return atomic_load_explicit(&table->slots[i].value, memory_order_relaxed);
}

/* The slot in which a search for the key ends: its own, or an empty one. */
static size_t search(struct table *table, uintptr_t key)
{
    size_t i = home_slot(hash_key(key), table->mask);
    for (size_t probes = 0; probes <= table->mask; probes++, i = (i + 1) & table->mask) {
        if (key_at(table, i) == key || key_at(table, i) == 0)
            return i;
    }
    invariant_broken("allocation map", "a table without an empty slot", table->mask);
}

/* `hash` is that of any key in the shard: its number is the top bits of them all. */
static void check_table(const struct shard *shard, unsigned shift, uint64_t hash,
                        struct table *table)
{
    size_t entries = 0;
    for (size_t i = 0; i <= table->mask; i++) {
        uintptr_t key = key_at(table, i);
        if (key == 0)
            continue;
        entries++;
        must(value_at(table, i) != NULL, "a key without a value", key);
        /* of two equal keys a search ends at the first, of one behind a gap at the gap */
        must(search(table, key) == i, "a key that is not where a search for it ends", key);
        must(shard_number(hash_key(key), shift) == shard_number(hash, shift),
             "a key in another shard", key);
    }
    must(entries == shard->entries, "entries in all", entries);
}

void map_check(struct shard *shard, unsigned shift, uintptr_t key, const void *value)
{
    struct table *table = atomic_load_explicit(&shard->table, memory_order_relaxed);
    size_t found = search(table, key);
    must((atomic_load_explicit(&shard->sequence, memory_order_relaxed) & 1) == 0,
         "a sequence that is odd while nobody moves anything", key);
    if (value != NULL)
        must(key_at(table, found) == key && value_at(table, found) == value,
             "a key that is not found", key);
    else
        must(key_at(table, found) == 0, "a key that is found again", key);
    must(shard->entries * 2 <= table->mask + 1, "a table more than half full", shard->entries);
    if (check_is_due(&shard->pace)) {
        check_table(shard, shift, hash_key(key), table);
        check_walked(&shard->pace, table->mask + 1);
    }
}

#else

typedef int map_check_is_empty; /* ISO C wants a declaration */

#endif
