/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Three kinds of blocks, by size:
 *   - below DIRECT_MIN: of a class, cut from runs (spans of equal blocks); states in the run;
 *   - up to SIZE_CLASS_LIMIT: of a class, each a span of its own; state in the span's first unit word;
 *   - above: a span of as many units as needed; taken from and given to the heap at once.
 * The first two go through the thread's magazines and the depot, and live in a heap of their own (small_heap): a block that
 * waits in a magazine would otherwise stand in the middle of a hole that a large block needs. (Measured 2026-11 on
 * MNASNet: peak RSS over peak live 1.27 with one heap.) A thread fetches one block at a time when it misses the
 * depot, except from runs: what lies in a magazine cannot coalesce, so none is filled ahead with
 * spans.
 *
 * What is cached outside the heap stays small: a thread holds at most its lease (64 KiB), the depots together
 * DEPOT_BASE plus a 64th of what is in use. Beyond that, magazines are emptied into runs and heap.
 *
 * The cap (only if the instance has one): leases, full magazines and the heap's free pages are each reserved
 * against cached_total before they come to be. With a cap, spans are whole pages, so that a span can
 * always be discarded completely when nothing may be kept.
 *
 * States: LIVE -> CACHED by plain load and store of the thread that frees. Two threads that free the same block at
 * the same instant can both succeed; checks=strict uses a compare-and-swap instead. Spans are verified again
 * under the heap's lock, so a double free there is always caught while the block is cached.
 */
#include "fit.h"

#include <string.h>

#include "thread_state.h"

enum { DEPOT_BASE = 64 * 1024, DEPOT_SHARE = 64 };

/* ---- set-up ---- */

static uint32_t heap_step(const struct larder *instance)
{
    uint32_t step = 1;
    if (instance->config.alignment > UNIT) step = (uint32_t)(instance->config.alignment >> UNIT_SHIFT);
    uint32_t page = (uint32_t)(os_page_size() >> UNIT_SHIFT);
    if (instance->capped && step < page) step = page;
    return step;
}

static uint32_t round_units(const struct larder *instance, size_t bytes)
{
    uint32_t step = instance->heap.step;
    uint32_t units = (uint32_t)((bytes + UNIT - 1) >> UNIT_SHIFT);
    return (units + step - 1) & ~(step - 1);
}

/* Blocks a run: enough to make runs of about 8 KiB, at least 4, at most RUN_MAX_BLOCKS. */
static uint32_t blocks_per_run(size_t block_size)
{
    size_t blocks = 8192 / block_size;
    if (blocks < 4) blocks = 4;
    if (blocks > 8) blocks &= ~(size_t)7;
    return (uint32_t)(blocks < RUN_MAX_BLOCKS ? blocks : RUN_MAX_BLOCKS);
}

void fit_init(struct larder *instance)
{
    span_heap_init(&instance->heap, instance, heap_step(instance), (uint32_t)instance->front);
    span_heap_init(&instance->small_heap, instance, heap_step(instance), (uint32_t)instance->front);
    if (instance->plain && !instance->capped) instance->heap.loops = span_loops_get();
    for (unsigned c = 0; c < instance->class_count; c++) {
        struct depot *depot = &instance->depots[c];
        size_t size = size_class_size(c, instance->class_shift);
        if (size < SIZE_CLASS_MIN) size = SIZE_CLASS_MIN;
        if (size < DIRECT_MIN) {
            depot->run_blocks = blocks_per_run(size);
            depot->run_units = round_units(instance, size * depot->run_blocks);
            if (depot->run_units < 8) depot->run_units = 8;
        } else {
            size = (size_t)round_units(instance, size) << UNIT_SHIFT;
        }
        depot->block_size = (uint32_t)size;
    }
}

/* ---- spans ---- */

/* What the thread's live bytes have changed by since it last told the heap. */
static int64_t live_delta(struct thread_cache *cache)
{
    if (cache->shared) return 0;
    uint64_t live =
        atomic_load_explicit(&cache->counters.allocated_bytes, memory_order_relaxed) -
        atomic_load_explicit(&cache->counters.freed_bytes, memory_order_relaxed);
    int64_t delta = (int64_t)(live - cache->live_told);
    cache->live_told = live;
    return delta;
}

/* The same for a call on `heap`: live bytes are kept by the heap of large blocks alone, so that there is one peak. */
static int64_t tell_live(struct span_heap *heap, struct thread_cache *cache)
{
    struct span_heap *keeper = &heap->instance->heap;
    int64_t delta = live_delta(cache);
    if (heap == keeper || delta == 0) return delta;
    span_heap_note_live(keeper, delta);
    return 0;
}

static size_t span_bytes(uint32_t units)
{
    return (size_t)units << UNIT_SHIFT;
}

/* Back with a span that could not be made usable. */
static void undo_take(struct span_heap *heap, struct taken_span taken, uint32_t units)
{
    uint32_t word = word_load(&taken.region->words[taken.start]);
    if (!heap->instance->capped) {
        span_heap_put(heap, taken.region, taken.start, units, word, 0);
    } else if (span_heap_claim(heap, taken.region, taken.start, units, word)) {
        span_heap_put_clean(heap, taken.region, taken.start, units);
    }
}

/* Commits what is not; false, and the span is back in the heap, if that cannot be. */
static bool make_usable(struct span_heap *heap, struct taken_span taken, uint32_t units)
{
    if (region_is_committed(taken.region, taken.start + units) ||
        region_commit(taken.region, taken.start + units) == 0) {
        return true;
    }
    undo_take(heap, taken, units);
    return false;
}

/* A span from the heap, growing it if need be, usable; region is NULL where there is no memory. */
static struct taken_span take_span(struct span_heap *heap, struct thread_cache *cache,
                                   uint32_t units, size_t alignment, uint32_t word)
{
    struct larder *instance = heap->instance;
    if (alignment <= span_bytes(heap->step)) alignment = 0;
    int64_t delta = tell_live(heap, cache);
    struct taken_span taken = span_heap_take(heap, units, alignment, word, delta);
    while (__builtin_expect(taken.region == NULL, 0)) {
        struct region *region = region_create(heap, units + (uint32_t)(alignment >> UNIT_SHIFT));
        if (region == NULL) {
            cache->live_told -= (uint64_t)delta;
            return taken;
        }
        span_heap_add_region(heap, region);
        taken = span_heap_take(heap, units, alignment, word, delta);
    }
    if (instance->capped) {
        cache_unreserve(instance, span_bytes(units) - taken.fresh_pages * os_page_size());
    }
    if (!make_usable(heap, taken, units)) taken.region = NULL;
    return taken;
}

/* Makes room for `bytes` under the cap by giving back what has been free longest. */
static bool reserve_evicting(struct larder *instance, size_t bytes)
{
    if (cache_reserve(instance, bytes)) return true;
    if (bytes > instance->config.max_cached_bytes) return false;
    cache_evict(instance, bytes);
    return cache_reserve(instance, bytes);
}

/* Gives a span back under a cap: reserved, or discarded on the way. */
static bool put_span_capped(struct thread_cache *cache, struct region *region, uint32_t start,
                            uint32_t units, uint32_t expected)
{
    struct span_heap *heap = region->heap;
    struct larder *instance = heap->instance;
    size_t bytes = span_bytes(units);
    if (reserve_evicting(instance, bytes)) {
        if (span_heap_put(heap, region, start, units, expected, tell_live(heap, cache))) return true;
        cache_unreserve(instance, bytes);
        return false;
    }
    if (!span_heap_claim(heap, region, start, units, expected)) return false;
    atomic_fetch_add_explicit(&instance->refused_bytes, bytes, memory_order_relaxed);
    /* Where the backend cannot discard, the span still goes back: the cap then works by whole regions. */
    (void)backend_discard(instance, region_address(region, start), bytes);
    span_heap_put_clean(heap, region, start, units);
    if (!backend_can_discard(instance)) span_heap_release_empty(heap, os_now_ms(), 0, false);
    return true;
}

static bool put_span(struct thread_cache *cache, struct region *region, uint32_t start,
                     uint32_t units, uint32_t expected)
{
    struct span_heap *heap = region->heap;
    if (heap->instance->capped) return put_span_capped(cache, region, start, units, expected);
    bool put = span_heap_put(heap, region, start, units, expected, tell_live(heap, cache));
    if (!cache->shared && ++cache->puts % TICK_EVERY == 0) {
        cache_tick_if_due(heap->instance, os_now_ms());
    }
    return put;
}

/* ---- runs ---- */

/* A new run of the class with all blocks free, listed nowhere. NULL where there is no memory. */
static struct run *run_create(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct depot *depot = &instance->depots[c];
    struct taken_span taken =
        take_span(&instance->small_heap, cache, depot->run_units, 0, WORD(WORD_LARGE_CACHED));
    if (taken.region == NULL) return NULL;
    if (taken.fresh_pages != 0) count_add(cache, &cache->counters.miss_cold, 1);
    struct region *region = taken.region;
    struct run *run = region_run_get(region);
    if (run == NULL) {
        put_span(cache, region, taken.start, depot->run_units, WORD(WORD_LARGE_CACHED));
        return NULL;
    }
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
    return run;
}

static void run_destroy(struct thread_cache *cache, struct run *run)
{
    struct region *region = run->region;
    uint32_t start = run->start, length = run->length;
    uint32_t first = word_load(&region->words[start]);
    for (uint32_t unit = start + 1; unit < start + length; unit++) {
        word_store(&region->words[unit], 0);
    }
    region_run_put(region, run);
    put_span(cache, region, start, length, first);
}

/* ---- magazines ---- */

static bool is_direct(const struct larder *instance, unsigned c)
{
    return instance->depots[c].run_blocks == 0;
}

/* Rounds to where they came from: runs or heap. */
static void give_rounds(struct larder *instance, struct thread_cache *cache, unsigned c,
                        const struct round *rounds, uint32_t count)
{
    if (!is_direct(instance, c)) {
        struct run *empty = depot_give_blocks(&instance->depots[c], rounds, count);
        while (empty != NULL) {
            struct run *run = empty;
            empty = run->next;
            run_destroy(cache, run);
        }
        return;
    }
    uint32_t units = instance->depots[c].block_size >> UNIT_SHIFT;
    for (uint32_t i = 0; i < count; i++) {
        struct region *region = allocation_map_region((uintptr_t)rounds[i].ptr);
        uint32_t start = (uint32_t)(rounds[i].word - region->words);
        put_span(cache, region, start, units, word_load(rounds[i].word));
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
    if (magazine->capacity == 0) return;
    atomic_fetch_sub_explicit(&instance->magazine_bytes, magazine_size(magazine->capacity),
                              memory_order_relaxed);
    magazine_put(magazine);
}

/* Empties a magazine of the thread into runs and heap. */
static void drain_magazine(struct larder *instance, struct thread_cache *cache, unsigned c,
                           struct magazine *magazine)
{
    if (magazine->count == 0) return;
    uint32_t count = magazine->count;
    give_rounds(instance, cache, c, magazine->rounds, count);
    magazine->count = 0;
    count_add(cache, &cache->counters.blocks_moved, 0 - (uint64_t)count);
    thread_cache_give(cache, (size_t)count * cache->bins[c].bytes);
}

/* Room in the depots for `bytes` more. */
static bool depot_reserve(struct larder *instance, size_t bytes)
{
    uint64_t limit = DEPOT_BASE + span_heap_used_bytes(&instance->small_heap) / DEPOT_SHARE;
    uint64_t before = atomic_fetch_add_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    if (before + bytes <= limit) return true;
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
    if (thread_cache_take(cache, bytes)) return true;
    if (bytes > instance->config.thread_cached_bytes) return false;
    for (unsigned i = 0; i < instance->class_count; i++) {
        unsigned c = cache->sweep = (cache->sweep + 1) % instance->class_count;
        drain_magazine(instance, cache, c, cache->bins[c].previous);
        drain_magazine(instance, cache, c, cache->bins[c].loaded);
        if (thread_cache_take(cache, bytes)) return true;
    }
    return false;
}

/* A full magazine from the depot into `loaded`. */
static bool load_from_depot(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    /* relaxed: a look without the lock; what it misses is no harm */
    if (atomic_load_explicit(&instance->depots[c].full, memory_order_relaxed) == NULL) return false;
    size_t bytes = (size_t)bin->capacity * bin->bytes;
    if (!thread_cache_take(cache, bytes)) return false;
    struct magazine *empty = bin->previous->capacity != 0 ? bin->previous : NULL;
    struct magazine *full = depot_take_full(&instance->depots[c], empty);
    if (full == NULL) {
        thread_cache_give(cache, bytes);
        return false;
    }
    atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    if (instance->capped) cache_unreserve(instance, bytes); /* the lease has it now */
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
        if (magazine == NULL) return false;
        bin->loaded = magazine;
    }
    uint32_t wanted = bin->capacity / 2;
    while (wanted != 0 && !thread_cache_take(cache, (size_t)wanted * bin->bytes)) wanted /= 2;
    if (wanted == 0) return false; /* no room in this thread: the caller takes a single block */
    struct magazine *magazine = bin->loaded;
    uint32_t taken = depot_take_blocks(&instance->depots[c], magazine->rounds, wanted);
    if (taken == 0) {
        struct run *run = run_create(instance, cache, c);
        if (run != NULL) {
            taken = depot_add_run(&instance->depots[c], run, magazine->rounds, wanted);
        }
    }
    magazine->count = taken;
    count_add(cache, &cache->counters.blocks_moved, taken);
    thread_cache_give(cache, (size_t)(wanted - taken) * bin->bytes);
    return taken != 0;
}

/* A CACHED block of the class: from magazines, depot or runs. */
static bool take_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                       struct round *round)
{
    struct bin *bin = &cache->bins[c];
    if (bin->loaded->count == 0) {
        if (bin->previous->count != 0) {
            struct magazine *loaded = bin->loaded;
            bin->loaded = bin->previous;
            bin->previous = loaded;
        } else if (!load_from_depot(instance, cache, c) &&
                   (is_direct(instance, c) || !load_from_runs(instance, cache, c))) {
            return false;
        }
    }
    *round = bin->loaded->rounds[--bin->loaded->count];
    count_add(cache, &cache->counters.blocks_moved, UINT64_MAX);
    thread_cache_give(cache, bin->bytes);
    return true;
}

/* A CACHED block into the magazines; false if they have no room. */
static bool put_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                      struct round round)
{
    struct bin *bin = &cache->bins[c];
    if (cache->shared) return false;
    if (!take_room(instance, cache, bin->bytes)) return false;
    if (bin->loaded->count == bin->loaded->capacity) {
        struct magazine *free_one = bin->previous;
        if (free_one->count != 0) {
            free_one = retire_magazine(instance, cache, c, free_one);
            bin->previous = &empty_magazine;
        }
        if (free_one == NULL || free_one->capacity == 0) free_one = new_magazine(instance, bin->capacity);
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
            if (magazines[i]->capacity == 0) continue;
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
        give_rounds(instance, &instance->late, c, magazine->rounds, magazine->count);
        atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
        cache_unreserve(instance, bytes);
        drop_magazine(instance, magazine);
        magazine = next;
    }
}

void fit_drain_depots(struct larder *instance)
{
    for (unsigned c = 0; c < instance->class_count; c++) drain_depot(instance, c, UINT32_MAX);
}

void fit_reap_depots(struct larder *instance, uint32_t now_ms, uint32_t idle_ms)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        uint32_t unneeded = depot_reap_count(&instance->depots[c], now_ms, idle_ms);
        if (unneeded != 0) drain_depot(instance, c, unneeded);
    }
}

/* ---- blocks ---- */

/* Makes a class block live. `total` is what was asked for, with front and back. */
static void mark_live(struct larder *instance, word_t *word, unsigned c, size_t size)
{
    uint32_t slack = (uint32_t)(instance->depots[c].block_size - size);
    uint32_t generation = (word_load(word) + WORD_GENERATION_ONE) & WORD_GENERATION_MASK;
    word_store(word, WORD(WORD_LIVE) | generation | c << WORD_CLASS_SHIFT | slack);
}

static void *alloc_class(struct larder *instance, struct thread_cache *cache, unsigned c, size_t size)
{
    struct round round;
    if (!cache->shared && take_round(instance, cache, c, &round)) {
        mark_live(instance, round.word, c, size);
        return round.ptr;
    }
    struct depot *depot = &instance->depots[c];
    if (!is_direct(instance, c)) {
        /* No magazine for this thread: a single block straight from a run. */
        if (depot_take_blocks(depot, &round, 1) == 0) {
            struct run *run = run_create(instance, cache, c);
            if (run == NULL) return NULL;
            depot_add_run(depot, run, &round, 1);
        }
        mark_live(instance, round.word, c, size);
        return round.ptr;
    }
    uint32_t word = WORD(WORD_LIVE) | c << WORD_CLASS_SHIFT | (uint32_t)(depot->block_size - size);
    struct taken_span taken =
        take_span(&instance->small_heap, cache, depot->block_size >> UNIT_SHIFT, 0, word);
    if (taken.region == NULL) return NULL;
    if (taken.fresh_pages != 0) count_add(cache, &cache->counters.miss_cold, 1);
    return region_address(taken.region, taken.start);
}

static void set_slack(struct taken_span taken, uint32_t units, size_t size)
{
    word_store(&taken.region->words[taken.start + 1], (uint32_t)(span_bytes(units) - size));
}

void *fit_finish_span(struct larder *instance, struct thread_cache *cache, struct taken_span taken,
                      size_t size)
{
    uint32_t units = (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT);
    count_alloc(cache, size); /* before, so that the heap sees the peak */
    if (taken.region != NULL) {
        cache->live_told += size;
        if (!make_usable(&instance->heap, taken, units)) {
            taken.region = NULL;
            cache->live_told -= size; /* the put in it has told nothing */
            span_heap_note_live(&instance->heap, -(int64_t)size);
        }
    } else {
        taken = take_span(&instance->heap, cache, units, 0, WORD(WORD_LARGE_LIVE));
    }
    if (taken.region == NULL) {
        count_add(cache, &cache->counters.allocations, UINT64_MAX);
        count_add(cache, &cache->counters.allocated_bytes, 0 - (uint64_t)size);
        return NULL;
    }
    if (taken.fresh_pages != 0) count_add(cache, &cache->counters.miss_cold, 1);
    count_add(cache, &cache->counters.slow_allocations, 1);
    set_slack(taken, units, size);
    return region_address(taken.region, taken.start);
}

bool fit_free_span(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t word)
{
    uint32_t units = word & WORD_INDEX_MASK;
    size_t size = span_bytes(units) - word_load(&region->words[start + 1]);
    count_free(cache, size);
    if (__builtin_expect(put_span(cache, region, start, units, word), 1)) {
        count_add(cache, &cache->counters.slow_frees, 1);
        return true;
    }
    count_add(cache, &cache->counters.frees, UINT64_MAX);
    count_add(cache, &cache->counters.freed_bytes, 0 - (uint64_t)size);
    return false;
}

static void *alloc_large(struct larder *instance, struct thread_cache *cache, size_t total,
                         size_t size, size_t alignment)
{
    uint32_t units = round_units(instance, total);
    if (units < 2) units = 2;
    struct taken_span taken =
        take_span(&instance->heap, cache, units, alignment, WORD(WORD_LARGE_LIVE));
    if (taken.region == NULL) return NULL;
    if (taken.fresh_pages != 0) count_add(cache, &cache->counters.miss_cold, 1);
    set_slack(taken, units, size);
    return region_address(taken.region, taken.start);
}

/* The class that serves `total` bytes at `alignment`, or -1. */
static int class_for(const struct larder *instance, size_t total, size_t alignment)
{
    if (total > instance->class_limit) return -1;
    if (total < SIZE_CLASS_MIN) total = SIZE_CLASS_MIN;
    unsigned c = size_class_of(total, instance->class_shift);
    if (alignment <= instance->config.alignment) return (int)c;
    if (alignment > UNIT) return -1;
    while (c < instance->class_count && instance->depots[c].block_size % alignment != 0) c++;
    return c < instance->class_count ? (int)c : -1;
}

void *fit_alloc(struct larder *instance, struct thread_cache *cache, size_t size, size_t alignment,
                bool *too_large)
{
    size_t front = instance->front;
    size_t total = size + front + instance->back;
    *too_large = alignment > MAP_GRANULE || (total + alignment) >> UNIT_SHIFT >= region_max_units();
    if (*too_large) return NULL;
    /* an over-aligned address behind a front needs a span that starts askew: no class can have it */
    bool askew = front != 0 && alignment > instance->config.alignment;
    int c = askew ? -1 : class_for(instance, total, alignment);
    char *block = c >= 0 ? alloc_class(instance, cache, (unsigned)c, size)
                         : alloc_large(instance, cache, total, size, alignment);
    return block != NULL ? block + front : NULL;
}

bool fit_find(struct region *region, uintptr_t address, struct fit_block *block, const char **state)
{
    size_t offset;
    struct larder *instance = region->instance;
    *state = "interior";
    if (!region_contains(region, address - instance->front, &offset)) return false;
    block->region = region;
    block->base = (char *)(address - instance->front);
    word_t *word = &region->words[offset >> UNIT_SHIFT];
    uint32_t value = word_load(word);
    if (word_kind(value) == WORD_RUN) {
        struct run *run = &region->runs[value & WORD_INDEX_MASK];
        size_t inside = offset - span_bytes(run->start);
        uint32_t index = (uint32_t)((uint64_t)inside * run->reciprocal >> 32);
        if ((size_t)index * run->block_size != inside || index >= run->blocks) return false;
        word = &run->states[index];
        value = word_load(word);
    } else if ((offset & (UNIT - 1)) != 0) {
        return false;
    }
    block->word = word;
    block->value = value;
    switch (word_kind(value)) {
    case WORD_LIVE:
    case WORD_CACHED: {
        unsigned c = (value & WORD_CLASS_MASK) >> WORD_CLASS_SHIFT;
        block->bytes = instance->depots[c].block_size;
        block->size = block->bytes - (value & WORD_SLACK_MASK);
        *state = word_kind(value) == WORD_LIVE ? "live" : "cached";
        return true;
    }
    case WORD_LARGE_LIVE:
        block->bytes = span_bytes(value & WORD_INDEX_MASK);
        block->size = block->bytes - word_load(word + 1);
        *state = "live";
        return true;
    case WORD_FREE:
    case WORD_LARGE_CACHED:
        block->bytes = block->size = 0;
        *state = "cached";
        return true;
    default:
        return false;
    }
}

/* LIVE to CACHED. */
static bool mark_cached(const struct fit_block *block, bool strict)
{
    uint32_t cached = (block->value & (WORD_GENERATION_MASK | WORD_CLASS_MASK)) | WORD(WORD_CACHED);
    if (strict) {
        uint32_t value = block->value;
        return atomic_compare_exchange_strong_explicit(block->word, &value, cached,
                                                       memory_order_relaxed, memory_order_relaxed);
    }
    word_store(block->word, cached);
    return true;
}

bool fit_free(struct larder *instance, struct thread_cache *cache, const struct fit_block *block,
              bool strict)
{
    struct region *region = block->region;
    if (word_kind(block->value) == WORD_LARGE_LIVE) {
        uint32_t start = (uint32_t)(block->word - region->words);
        if (!fit_free_span(cache, region, start, block->value)) return false;
        count_add(cache, &cache->counters.slow_frees, UINT64_MAX); /* the caller counts it */
        return true;
    }
    if (!mark_cached(block, strict)) return false;
    count_free(cache, block->size);
    unsigned c = (block->value & WORD_CLASS_MASK) >> WORD_CLASS_SHIFT;
    struct round round = {block->base, block->word};
    if (!put_round(instance, cache, c, round)) give_rounds(instance, cache, c, &round, 1);
    return true;
}

void fit_resize(struct larder *instance, const struct fit_block *block, size_t size)
{
    (void)instance;
    if (word_kind(block->value) == WORD_LARGE_LIVE) {
        word_store(block->word + 1, (uint32_t)(block->bytes - size));
    } else {
        word_store(block->word,
                   (block->value & ~WORD_SLACK_MASK) | (uint32_t)(block->bytes - size));
    }
}

size_t fit_good_size(const struct larder *instance, size_t size)
{
    size_t total = size + instance->front + instance->back;
    if ((total >> UNIT_SHIFT) >= region_max_units()) return 0;
    int c = class_for(instance, total, instance->config.alignment);
    size_t bytes = c >= 0 ? instance->depots[c].block_size : span_bytes(round_units(instance, total));
    return bytes - instance->front - instance->back;
}

int fit_walk_region(struct region *region, larder_walk_fn *fn, void *context)
{
    size_t front = region->instance->front;
    struct fit_block block;
    const char *state;
    for (uint32_t unit = region_first_unit(); unit < region->top;) {
        uint32_t value = word_load(&region->words[unit]);
        uintptr_t address = (uintptr_t)region_address(region, unit) + front;
        if (word_kind(value) == WORD_RUN) {
            const struct run *run = &region->runs[value & WORD_INDEX_MASK];
            for (uint32_t i = 0; i < run->blocks; i++, address += run->block_size) {
                if (word_kind(word_load(&run->states[i])) != WORD_LIVE) continue;
                if (!fit_find(region, address, &block, &state)) continue;
                int stop = fn(context, (void *)address, block.size);
                if (stop != 0) return stop;
            }
            unit += run->length;
            continue;
        }
        bool found = fit_find(region, address, &block, &state);
        if (found && fit_is_live(&block)) {
            int stop = fn(context, (void *)address, block.size);
            if (stop != 0) return stop;
        }
        if (word_kind(value) == WORD_FREE) {
            unit += region->spans[value & WORD_INDEX_MASK].length;
        } else if (word_kind(value) == WORD_LARGE_CACHED) {
            unit += (value & WORD_INDEX_MASK) != 0 ? value & WORD_INDEX_MASK : 1;
        } else {
            unit += found && block.bytes >= UNIT ? (uint32_t)(block.bytes >> UNIT_SHIFT) : 1;
        }
    }
    return 0;
}
