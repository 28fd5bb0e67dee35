/* SPDX-License-Identifier: MIT */
#include "cache_check.h"

#ifdef LARDER_CHECKS_FULL

#include "heaps.h"
#include "thread_state.h"

/* ---- threads ---- */

static void must(bool holds, const char *what, uint64_t number)
{
    invariant_holds(holds, "thread cache", what, number);
}

static void check_rounds(const struct depot *depot, const struct bin *bin,
                         const struct round *round, uint32_t count)
{
    for (; count > 0; count--, round++) {
        const struct run *run = run_of_state(round->state, depot->record_size);
        must(run->block_size == bin->bytes, "a block of another class in a bin", run->block_size);
        must(round->state->address == (uint32_t)(uintptr_t)round->ptr,
             "a block with another's state", (uintptr_t)round->ptr);
        must(!state_is_live(word_load(&round->state->word)), "a live block in a magazine",
             (uintptr_t)round->ptr);
    }
}

static uint32_t check_bin(const struct larder *instance, const struct bin *bin, unsigned c)
{
    uint32_t loaded = bin_loaded_count(bin), other = bin_other_count(bin);
    must(bin_floor(bin) == bin->loaded->rounds && loaded <= bin->loaded->capacity,
         "a bin's loaded magazine", loaded);
    must(bin->other->count == other && other <= bin->other->capacity, "a bin's other magazine",
         other);
    must(loaded + other <= bin->allotted, "a bin beyond its allotment", loaded + other);
    must(bin_top(bin) <= bin->ceiling && bin->ceiling <= bin_floor(bin) + bin->loaded->capacity,
         "a bin's ceiling", c);
    const struct depot *depot = &instance->depots[c];
    must(bin->bytes == depot->block_size, "a bin of another class", bin->bytes);
    check_rounds(depot, bin, bin_floor(bin), loaded);
    check_rounds(depot, bin, bin->other->rounds, other);
    return loaded + other;
}

void cache_check_bin(const struct larder *instance, struct thread_cache *cache, unsigned c)
{
    if (cache->shared)
        return;
    check_bin(instance, &cache->bins[c], c);
    if (!check_is_due(&cache->pace))
        return;
    uint64_t allotted_bytes = 0, blocks = 0;
    for (unsigned each = 0; each < instance->class_count; each++) {
        const struct bin *bin = &cache->bins[each];
        blocks += check_bin(instance, bin, each);
        must((cache->allotted_bins >> each & 1) == (bin->allotted != 0), "a bin's bit", each);
        allotted_bytes += (uint64_t)bin->allotted * bin->bytes;
    }
    must(allotted_bytes + thread_cache_room(cache) == cache->lease,
         "a thread's room and allotments", allotted_bytes);
    check_walked(&cache->pace, blocks);
}

/* ---- instances ---- */

static _Atomic bool in_forked_child;

void cache_check_forked(void)
{
    /* relaxed: a child of fork has one thread */
    atomic_store_explicit(&in_forked_child, true, memory_order_relaxed);
}

void cache_check_account(uint64_t before, uint64_t bytes)
{
    invariant_holds(bytes <= before, "cache", "more taken off an account than was on it", bytes);
}

static void must_be_none(uint64_t left, const char *what)
{
    invariant_holds(left == 0, "cache", what, left);
}

static void check_depot(struct depot *depot)
{
    must_be_none(depot->full_count, "full magazines left at the end");
    must_be_none(depot->empty != NULL, "empty magazines left at the end");
    must_be_none(depot->runs != NULL, "runs left at the end");
    must_be_none(depot_spare_count(depot), "spare runs left at the end");
}

void cache_check_end(struct larder *instance)
{
    if (atomic_load_explicit(&in_forked_child, memory_order_relaxed))
        return;
    for (unsigned c = 0; c < instance->class_count; c++)
        check_depot(&instance->depots[c]);
    for (uint32_t i = 0; i < heaps_count(instance); i++)
        must_be_none(span_heap_used_units(heaps_at(instance, i)), "units in use at the end");
    must_be_none(instance->thread_caches != NULL, "threads left at the end");
    must_be_none(instance->records != NULL, "blocks with a record left at the end");
    must_be_none(instance->block_records, "blocks with a record counted at the end");
    must_be_none(instance->exact.bytes, "bytes in the store at the end");
    must_be_none(instance->exact.blocks, "blocks in the store at the end");
    must_be_none(instance->depot_bytes, "bytes in depots at the end");
    must_be_none(instance->magazine_bytes, "bytes of magazines at the end");
    must_be_none(instance->cached_total, "bytes on the cap's account at the end");
}

#else

typedef int cache_check_is_empty; /* ISO C wants a declaration */

#endif
