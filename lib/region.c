/* SPDX-License-Identifier: MIT */
#include "region.h"

#include <errno.h>
#include <string.h>

#include "cache.h"
#include "meta.h"
#include "poison.h"

enum { COMMIT_STEP = 1 << 20 };

/* What a reserved region covers at first, where the address space allows. */
#define RESERVE_SIZE (sizeof(void *) == 8 ? (size_t)1 << 30 : (size_t)64 << 20)

/* The least and most that is taken at once from a backend that cannot reserve. */
#define REGION_MIN MAP_GRANULE
#define REGION_MAX ((size_t)64 << 20)

/*
 * Records come in fours, so that those of an instance's first regions lie where the first thread's cache ends, whatever else is fetched
 * between them: every free reads a region's record and writes to its thread's cache, and a load waits for stores just before it that
 * have the same lower 12 bits of address. (Measured 2026-11, the trace of a decoder with a record 4096 bytes behind the counters: 4.05 ns
 * an operation for 3.88.)
 */
static struct meta_pool region_pool = {
    .lock = SPINLOCK_OF(RANK_POOL), .size = sizeof(struct region), .batch = 4};

uint32_t region_max_units(void)
{
    return (uint32_t)(((size_t)1 << (LARGEST_REGION_SHIFT - UNIT_SHIFT)) - 2 * region_first_unit());
}

uint32_t region_first_unit(void)
{
    /* a page: a multiple of every alignment, and of the step under a cap */
    uint32_t page = (uint32_t)(os_page_size() >> UNIT_SHIFT);
    return page < 8 ? 8 : page;
}

uint32_t region_end_unit(const struct region *region)
{
    return region->units - region_first_unit();
}

static size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) & ~(multiple - 1);
}

/* Bytes of table that begin a page's upper part, in the lower part of which another table ends. */
enum { NODES_HEAD = 1024, NOTES_HEAD = RUN_RECORD_TINY };

/*
 * Lays out and maps the tables of a region of `size` bytes. A table costs the pages of it that have been used, and a small region little
 * more than a page for each, so tables that grow downwards share the page of their beginning with others that grow upwards: nodes
 * with words, notes with records of runs. (Five tables upwards cost 20 KiB more, where half a MiB was live.)
 */
static bool tables_map(struct region *region, size_t size, bool with_runs)
{
    size_t page = os_page_size();
    size_t units = size >> UNIT_SHIFT;
    /* free spans are never adjacent, so there are at most half as many as units, and one more */
    size_t nodes = units / 2 + 1;
    size_t notes = (size >> CHUNK_SHIFT) + 1;
    /* twice what runs of blocks of a unit or more can need: all smaller ones would fill half a region with it */
    size_t runs_size =
        with_runs ? round_up(units / RUN_MIN_UNITS * 2 * RUN_RECORD, RUN_RECORD_TINY) : 0;
    size_t most = ((size_t)WORD_STATE_MASK + 1) * sizeof(struct block_state);
    if (runs_size > most)
        runs_size = most;
    size_t words_at = round_up(nodes * sizeof(struct span), page) + NODES_HEAD;
    size_t notes_end =
        round_up(words_at + units * sizeof(word_t) + notes * sizeof(struct chunk_note), page);
    if (with_runs)
        notes_end += NOTES_HEAD;
    char *tables = os_map(notes_end + runs_size);
    if (tables == NULL)
        return false;
    region->tables = tables;
    region->table_size = notes_end + runs_size;
    region->words = (word_t *)(void *)(tables + words_at);
    region->spans = (struct span *)(void *)(tables + words_at) - nodes;
    region->spans_most = (uint32_t)nodes;
    region->notes = (struct chunk_note *)(void *)(tables + notes_end) - 1;
    region->runs = with_runs ? (struct block_state *)(void *)(tables + notes_end) : NULL;
    region->run_bytes = runs_size;
    return true;
}

/* Memory and tables for exactly `size` bytes, into the region; false where either is missing. */
static bool region_try(struct region *region, struct span_heap *heap, size_t size)
{
    struct larder *instance = heap->instance;
    if (!tables_map(region, size, heap == &instance->small_heap))
        return false;
    region->reserved = instance->backend_reserves;
    char *base = region->reserved ? os_reserve(size, size < MAP_WIDE ? MAP_GRANULE : MAP_WIDE)
                                  : backend_allocate(instance, size, MAP_GRANULE);
    if (base != NULL && ((uintptr_t)base & (MAP_GRANULE - 1)) == 0) {
        region->units = (uint32_t)(size >> UNIT_SHIFT);
        if (region->reserved && instance->config.huge_pages != 0)
            os_advise_huge(base, size);
        region->committed = region->reserved ? 0 : size;
        /* relaxed: published by size, below or in region_create() */
        atomic_store_explicit(&region->base, (uintptr_t)base, memory_order_relaxed);
        return true;
    }
    if (base != NULL) { /* a backend that ignores the alignment */
        backend_free(instance, base, size);
    }
    os_unmap(region->tables, region->table_size);
    return false;
}

struct region *region_create(struct span_heap *heap, uint32_t units)
{
    struct larder *instance = heap->instance;
    if (units > region_max_units())
        return NULL;
    size_t least = round_up(((size_t)units + 2 * region_first_unit()) << UNIT_SHIFT, MAP_GRANULE);
    size_t wanted = RESERVE_SIZE;
    if (!instance->backend_reserves) {
        size_t quarter = round_up((size_t)(span_heap_used_bytes(heap) / 4), MAP_GRANULE);
        wanted = quarter < REGION_MIN ? REGION_MIN : quarter > REGION_MAX ? REGION_MAX : quarter;
    }
    if (wanted < least)
        wanted = least;
    struct region *region = meta_pool_get(&region_pool);
    if (region == NULL)
        return NULL;
    bool got = region_try(region, heap, wanted);
    while (!got && wanted > least) {
        wanted = round_up(wanted / 2, MAP_GRANULE);
        if (wanted < least)
            wanted = least;
        got = region_try(region, heap, wanted);
    }
    if (!got) {
        meta_pool_put(&region_pool, region);
        return NULL;
    }
    region->instance = instance;
    region->heap = heap;
    region->arena = NULL;
    region->instance_id = instance->id;
    region->instance_slot = instance->slot;
    region->unused = NULL;
    region->spans_used = 0;
    region->top = region_first_unit();
    region->unused_runs[0] = region->unused_runs[1] = NULL;
    atomic_store_explicit(&region->run_bytes_used, 0, memory_order_relaxed);
    region->next = region->prev = NULL;
    spinlock_reset(&region->runs_lock);
    spinlock_set_rank(&region->runs_lock, RANK_RUNS);
    uintptr_t base = atomic_load_explicit(&region->base, memory_order_relaxed);
    /* release: pairs with the acquire in region_contains() */
    atomic_store_explicit(&region->size, wanted, memory_order_release);
    if (allocation_map_insert_region(region, base, wanted) != 0) {
        region_release(region);
        return NULL;
    }
    return region;
}

void region_release(struct region *region)
{
    uintptr_t base = atomic_load_explicit(&region->base, memory_order_relaxed);
    size_t size = atomic_load_explicit(&region->size, memory_order_relaxed);
    atomic_store_explicit(&region->base, UINTPTR_MAX, memory_order_release);
    atomic_store_explicit(&region->size, 0, memory_order_release);
    allocation_map_remove_region(base, size);
    poison_live((void *)base, (size_t)region->top << UNIT_SHIFT); /* what lies above was nobody's */
    if (region->reserved) {
        os_unmap((void *)base, size);
    } else {
        backend_free(region->instance, (void *)base, size);
    }
    os_unmap(region->tables, region->table_size);
    meta_pool_put(&region_pool, region);
}

int region_commit(struct region *region, uint32_t end_unit)
{
    size_t committed = atomic_load_explicit(&region->committed, memory_order_acquire);
    if (region_is_committed(region, end_unit))
        return 0;
    size_t size = atomic_load_explicit(&region->size, memory_order_relaxed);
    size_t page =
        os_page_size(); /* what follows a block may be read: one page more than for blocks */
    size_t end = round_up(((size_t)end_unit << UNIT_SHIFT) + page, COMMIT_STEP);
    if (end > size)
        end = size;
    uintptr_t base = atomic_load_explicit(&region->base, memory_order_relaxed);
    int error = os_commit((char *)base + committed, end - committed);
    if (error != 0)
        return error;
    /* Threads may commit overlapping ranges at once, each from a lower end that was committed. */
    end -= page;
    while (committed < end &&
           !atomic_compare_exchange_weak_explicit(&region->committed, &committed, end,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    return 0;
}

/* A record that has never been used. The lock is held. */
static struct run *new_run(struct region *region, size_t record_size)
{
    size_t used = atomic_load_explicit(&region->run_bytes_used, memory_order_relaxed);
    size_t start = round_up(used, record_size);
    if (start + record_size > region->run_bytes)
        return NULL;
    char *table = (char *)region->runs;
    for (; used < start; used += RUN_RECORD) { /* skipped over: for others */
        struct run *skipped = (struct run *)(void *)(table + used);
        skipped->next = region->unused_runs[0];
        region->unused_runs[0] = skipped;
    }
    atomic_store_explicit(&region->run_bytes_used, (uint32_t)(start + record_size),
                          memory_order_relaxed);
    return (struct run *)(void *)(table + start);
}

struct run *region_run_get(struct region *region, size_t block_size)
{
    size_t record_size = run_record_size(block_size);
    struct run **unused = &region->unused_runs[record_size != RUN_RECORD];
    spinlock_lock(&region->runs_lock);
    struct run *run = *unused;
    if (run != NULL) {
        *unused = run->next;
    } else {
        run = new_run(region, record_size);
    }
    spinlock_unlock(&region->runs_lock);
    if (run != NULL)
        run->region = region;
    return run;
}

void region_run_put(struct region *region, struct run *run)
{
    struct run **unused = &region->unused_runs[run_record_size(run->block_size) != RUN_RECORD];
    spinlock_lock(&region->runs_lock);
    run->next = *unused;
    *unused = run;
    spinlock_unlock(&region->runs_lock);
}

size_t region_metadata_bytes(const struct region *region)
{
    return (size_t)region->top * sizeof(word_t) + region->spans_used * sizeof(struct span) +
           atomic_load_explicit(&region->run_bytes_used, memory_order_relaxed) +
           ((size_t)region->top >> (CHUNK_SHIFT - UNIT_SHIFT)) * sizeof(struct chunk_note);
}

void region_fork_lock(void)
{
    spinlock_lock(&region_pool.lock);
}

void region_fork_unlock(void)
{
    spinlock_unlock(&region_pool.lock);
}

void region_fork_child(void)
{
    spinlock_reset(&region_pool.lock);
}
