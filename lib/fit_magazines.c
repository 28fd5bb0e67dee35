/* SPDX-License-Identifier: MIT */
/* Magazines, runs, and the exchange with the depot, for `fit`. See fit.c. */
#include "fit.h"
#include "fit_tiers.h"
#include "thread_state.h"

enum { DEPOT_BASE = 32 * 1024, DEPOT_SHARE = 64 };

struct run *fit_run_create(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct depot *depot = &instance->depots[c];
    struct taken_span taken =
        fit_take_span(&instance->small_heap, cache, depot->run_units, 0, WORD(WORD_LARGE_CACHED));
    if (taken.region == NULL)
        return NULL;
    if (taken.fresh_pages != 0)
        fit_note_fresh(&instance->small_heap, cache);
    struct region *region = taken.region;
    struct run *run = region_run_get(region);
    if (run == NULL) {
        fit_put_span(cache, region, taken.start, depot->run_units, WORD(WORD_LARGE_CACHED));
        return NULL;
    }
    /* under the heap's lock, for larder_walk(), which may meet the span now */
    span_heap_lock_settled(region->heap);
    run->start = taken.start;
    run->length = depot->run_units;
    run->block_size = depot->block_size;
    run->reciprocal = (uint32_t)(((UINT64_C(1) << 32) + depot->block_size - 1) / depot->block_size);
    run->size_class = (uint16_t)c;
    run->blocks = run->free_blocks = (uint16_t)depot->run_blocks;
    run->listed = false;
    run->free_bits = run->blocks == 64 ? ~UINT64_C(0) : (UINT64_C(1) << run->blocks) - 1;
    uint32_t word = WORD(WORD_CACHED) | c << WORD_CLASS_SHIFT;
    for (uint32_t i = 0; i < run->blocks; i++) {
        word_store(&run->states[i], (word_load(&run->states[i]) & WORD_GENERATION_MASK) | word);
    }
    uint32_t index = (uint32_t)(run - region->runs);
    for (uint32_t unit = run->start; unit < run->start + run->length; unit++) {
        word_store(&region->words[unit], WORD(WORD_RUN) | index);
    }
    heap_lock_leave(&region->heap->lock);
    return run;
}

static void run_destroy(struct thread_cache *cache, struct run *run)
{
    struct region *region = run->region;
    uint32_t start = run->start, length = run->length;
    uint32_t nobodys = WORD(WORD_LARGE_CACHED) | length;
    span_heap_lock_settled(region->heap); /* as in fit_run_create() */
    word_store(&region->words[start], nobodys);
    for (uint32_t unit = start + 1; unit < start + length; unit++) {
        word_store(&region->words[unit], 0);
    }
    heap_lock_leave(&region->heap->lock);
    region_run_put(region, run);
    fit_put_span(cache, region, start, length, nobodys);
}

void fit_give_rounds(struct larder *instance, struct thread_cache *cache, unsigned c,
                     const struct round *rounds, uint32_t count)
{
    struct run *empty = depot_give_blocks(&instance->depots[c], rounds, count);
    while (empty != NULL) {
        struct run *run = empty;
        empty = run->next;
        run_destroy(cache, run);
    }
}

static struct magazine *new_magazine(struct larder *instance, uint32_t capacity)
{
    struct magazine *magazine = magazine_get(capacity);
    if (magazine != NULL) {
        atomic_fetch_add_explicit(&instance->magazine_bytes, magazine_size(capacity),
                                  memory_order_relaxed);
    }
    return magazine;
}

static void drop_magazine(struct larder *instance, struct magazine *magazine)
{
    if (magazine->capacity == 0)
        return;
    atomic_fetch_sub_explicit(&instance->magazine_bytes, magazine_size(magazine->capacity),
                              memory_order_relaxed);
    magazine_put(magazine);
}

/* Empties a magazine of the thread into runs and heap. */
static void drain_magazine(struct larder *instance, struct thread_cache *cache, unsigned c,
                           struct magazine *magazine)
{
    if (magazine->count == 0)
        return;
    uint32_t count = magazine->count;
    fit_give_rounds(instance, cache, c, magazine->rounds, count);
    magazine->count = 0;
    count_add(cache, &cache->counters.blocks_moved, 0 - (uint64_t)count);
    thread_cache_give(cache, (size_t)count * cache->bins[c].bytes);
}

/* Room in the depots for `bytes` more. */
static bool depot_reserve(struct larder *instance, size_t bytes)
{
    uint64_t limit = DEPOT_BASE + span_heap_used_bytes(&instance->small_heap) / DEPOT_SHARE;
    uint64_t before =
        atomic_fetch_add_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    if (before + bytes <= limit)
        return true;
    atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    return false;
}

/*
 * A full magazine leaves the thread for the depot, or is emptied where the depot holds enough. Returns an empty one if that
 * comes of it. Under a cap the lease's bytes go with the magazine.
 */
static struct magazine *retire_magazine(struct larder *instance, struct thread_cache *cache,
                                        unsigned c, struct magazine *magazine)
{
    size_t bytes = (size_t)magazine->count * cache->bins[c].bytes;
    if (magazine->count == magazine->capacity && depot_reserve(instance, bytes)) {
        count_add(cache, &cache->counters.blocks_moved, 0 - (uint64_t)magazine->count);
        if (instance->capped) {
            cache->lease -= bytes;
        } else {
            thread_cache_give(cache, bytes);
        }
        return depot_give_full(&instance->depots[c], magazine);
    }
    drain_magazine(instance, cache, c, magazine);
    return magazine;
}

/* Takes `bytes` of room, giving up bins one after another until there is so much. */
static bool take_room(struct larder *instance, struct thread_cache *cache, size_t bytes)
{
    if (thread_cache_take(cache, bytes))
        return true;
    if (bytes > instance->config.thread_cached_bytes)
        return false;
    for (unsigned i = 0; i < instance->class_count; i++) {
        unsigned c = cache->sweep = (cache->sweep + 1) % instance->class_count;
        drain_magazine(instance, cache, c, cache->bins[c].previous);
        drain_magazine(instance, cache, c, cache->bins[c].loaded);
        if (thread_cache_take(cache, bytes))
            return true;
    }
    return false;
}

/* A full magazine from the depot into `loaded`. */
static bool load_from_depot(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    /* relaxed: a look without the lock; what it misses is no harm */
    if (atomic_load_explicit(&instance->depots[c].full, memory_order_relaxed) == NULL)
        return false;
    size_t bytes = (size_t)bin->capacity * bin->bytes;
    if (!thread_cache_take(cache, bytes))
        return false;
    struct magazine *empty = bin->previous->capacity != 0 ? bin->previous : NULL;
    struct magazine *full = depot_take_full(&instance->depots[c], empty);
    if (full == NULL) {
        thread_cache_give(cache, bytes);
        return false;
    }
    atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    if (instance->capped)
        cache_unreserve(instance, bytes); /* the lease has it now */
    count_add(cache, &cache->counters.blocks_moved, full->count);
    bin->previous = bin->loaded;
    bin->loaded = full;
    return true;
}

/* Fills `loaded` from runs, half of it; makes a run if none has free blocks. */
static bool load_from_runs(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    if (bin->loaded->capacity == 0) {
        struct magazine *magazine = new_magazine(instance, bin->capacity);
        if (magazine == NULL)
            return false;
        bin->loaded = magazine;
    }
    uint32_t wanted = bin->capacity / 2;
    while (wanted != 0 && !thread_cache_take(cache, (size_t)wanted * bin->bytes))
        wanted /= 2;
    if (wanted == 0)
        return false; /* no room in this thread: the caller takes a single block */
    struct magazine *magazine = bin->loaded;
    uint32_t taken = depot_take_blocks(&instance->depots[c], magazine->rounds, wanted);
    if (taken == 0) {
        struct run *run = fit_run_create(instance, cache, c);
        if (run != NULL) {
            taken = depot_add_run(&instance->depots[c], run, magazine->rounds, wanted);
        }
    }
    magazine->count = taken;
    count_add(cache, &cache->counters.blocks_moved, taken);
    thread_cache_give(cache, (size_t)(wanted - taken) * bin->bytes);
    return taken != 0;
}

bool fit_take_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                    struct round *round)
{
    struct bin *bin = &cache->bins[c];
    if (bin->loaded->count == 0) {
        if (bin->previous->count != 0) {
            struct magazine *loaded = bin->loaded;
            bin->loaded = bin->previous;
            bin->previous = loaded;
        } else if (!load_from_depot(instance, cache, c) && !load_from_runs(instance, cache, c)) {
            return false;
        }
    }
    *round = bin->loaded->rounds[--bin->loaded->count];
    count_add(cache, &cache->counters.blocks_moved, UINT64_MAX);
    thread_cache_give(cache, bin->bytes);
    return true;
}

bool fit_put_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                   struct round round)
{
    struct bin *bin = &cache->bins[c];
    if (cache->shared)
        return false;
    if (!take_room(instance, cache, bin->bytes))
        return false;
    if (bin->loaded->count == bin->loaded->capacity) {
        struct magazine *free_one = bin->previous;
        if (free_one->count != 0) {
            free_one = retire_magazine(instance, cache, c, free_one);
            bin->previous = &empty_magazine;
        }
        if (free_one == NULL || free_one->capacity == 0)
            free_one = new_magazine(instance, bin->capacity);
        if (free_one == NULL) {
            thread_cache_give(cache, bin->bytes);
            return false;
        }
        bin->previous = bin->loaded;
        bin->loaded = free_one;
    }
    bin->loaded->rounds[bin->loaded->count++] = round;
    count_add(cache, &cache->counters.blocks_moved, 1);
    return true;
}

void fit_flush(struct larder *instance, struct thread_cache *cache)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        struct bin *bin = &cache->bins[c];
        struct magazine *magazines[] = {bin->loaded, bin->previous};
        bin->loaded = bin->previous = &empty_magazine;
        for (int i = 0; i < 2; i++) {
            if (magazines[i]->capacity == 0)
                continue;
            drain_magazine(instance, cache, c, magazines[i]);
            drop_magazine(instance, magazines[i]);
        }
    }
}

static void drain_depot(struct larder *instance, unsigned c, uint32_t count)
{
    struct depot *depot = &instance->depots[c];
    struct magazine *magazine = depot_detach_full(depot, count);
    while (magazine != NULL) {
        struct magazine *next = magazine->next;
        size_t bytes = (size_t)magazine->count * depot->block_size;
        fit_give_rounds(instance, &instance->late, c, magazine->rounds, magazine->count);
        atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
        cache_unreserve(instance, bytes);
        drop_magazine(instance, magazine);
        magazine = next;
    }
}

void fit_drain_depots(struct larder *instance)
{
    for (unsigned c = 0; c < instance->class_count; c++)
        drain_depot(instance, c, UINT32_MAX);
}

void fit_reap_depots(struct larder *instance, uint32_t now_ms, uint32_t idle_ms)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        uint32_t unneeded = depot_reap_count(&instance->depots[c], now_ms, idle_ms);
        if (unneeded != 0)
            drain_depot(instance, c, unneeded);
    }
}
