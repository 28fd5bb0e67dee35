/* SPDX-License-Identifier: MIT */
/*
 * Magazines, runs, and the exchange with the depot, for `fit`. See fit.c.
 *
 * What is cached here costs memory twice where other classes, or large blocks, want it: so magazines, depots and spare runs give
 * up what they have before a run is made of fresh pages. But a class whose turn comes again in the next inference then makes its runs
 * anew, and so on for ever. So fresh pages are had as long as the heap is not much larger than the runs in use have
 * needed at once (GROW_SHARE); beyond that the others give up what they have if it is worth it (RECLAIM_SHARE: a class whose
 * live blocks grow for good does not empty all others for every run), and each time they do the heap may be a little larger from then on
 * (GROW_STEP_SHARE, GROW_MOST_SHARE): a load that comes round settles where nobody takes from anybody.
 * (Measured 2026-11 on a stream of speech, 0.5 MB live: 80 runs made and taken apart an inference, now none; 5.1 ns an operation, now 4.2.)
 */
#include <assert.h>

#include "cache_check.h"
#include "fit.h"
#include "fit_tiers.h"
#include "thread_state.h"

enum {
    DEPOT_BASE = 32 * 1024, /* bytes in all depots, and a share of what is in use */
    DEPOT_SHARE = 64,
    RECLAIM_BASE = 32 * 1024, /* worth reclaiming, and a share of what is in use */
    RECLAIM_SHARE = 16,
    GROW_SHARE = 8, /* of what runs in use have needed: the heap may be larger by that */
    GROW_STEP_SHARE = 16,
    GROW_MOST_SHARE = 2,
    OWN_SHARE = 32,    /* of what is in use: less than this a thread may keep at a reclaim */
    ALLOT_BYTES = 4096 /* by which an allotment grows where room is free */
};

/* ---- magazines ---- */

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

/* Blocks of a bin go to their runs; the places stay allotted. */
static void drain_bin(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    uint32_t count = bin_count(bin);
    if (count == 0)
        return;
    count_add(cache, &cache->counters.blocks_moved, 0 - (uint64_t)count);
    if (bin_other_count(bin) != 0) {
        fit_give_rounds(instance, c, bin->other->rounds, bin->other->count);
        bin->other->count = 0;
        bin_set_other(bin, bin->other);
    }
    if (bin_loaded_count(bin) != 0) {
        fit_give_rounds(instance, c, bin_floor(bin), bin_loaded_count(bin));
        bin_set_top(bin, bin_floor(bin));
    }
    bin_set_ceiling(bin);
}

/* ---- allotments ---- */

static void set_allotted(struct thread_cache *cache, unsigned c, uint32_t allotted)
{
    cache->bins[c].allotted = allotted;
    uint64_t bit = UINT64_C(1) << c;
    cache->allotted_bins = allotted != 0 ? cache->allotted_bins | bit : cache->allotted_bins & ~bit;
    bin_set_ceiling(&cache->bins[c]);
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
 * The other magazine, which is full, leaves the thread for the depot, or is emptied where the depot holds enough. What stands in
 * its place is an empty one or none. Under a cap the lease's bytes go with the magazine.
 */
static void retire_other(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    struct magazine *magazine = bin->other;
    uint32_t count = magazine->count;
    size_t bytes = (size_t)count * bin->bytes;
    count_add(cache, &cache->counters.blocks_moved, 0 - (uint64_t)count);
    if (count == magazine->capacity && depot_reserve(instance, bytes)) {
        if (instance->capped) {
            cache->lease -= bytes;
            set_allotted(cache, c, bin->allotted - count);
        }
        magazine = depot_give_full(&instance->depots[c], magazine);
    } else {
        fit_give_rounds(instance, c, magazine->rounds, count);
        magazine->count = 0;
    }
    bin_set_other(bin, magazine != NULL ? magazine : &empty_magazine);
    bin_set_ceiling(bin);
}

/* Places of a bin that no block is in become room. */
static void shrink_allotment(struct thread_cache *cache, unsigned c)
{
    const struct bin *bin = &cache->bins[c];
    uint32_t count = bin_count(bin), unused = bin->allotted - count;
    if (unused == 0)
        return;
    set_allotted(cache, c, count);
    thread_cache_give(cache, (size_t)unused * bin->bytes);
}

/* The class after the one last swept that has places, from those in `bins`, which is not 0. */
static unsigned next_swept(struct thread_cache *cache, uint64_t bins)
{
    uint64_t later = bins & ~UINT64_C(1) << cache->sweep;
    return cache->sweep = (unsigned)__builtin_ctzll(later != 0 ? later : bins);
}

/* Room for `bytes` at the cost of places that are not in use, in other bins than that of class c. */
static bool take_unused_room(struct thread_cache *cache, unsigned c, size_t bytes)
{
    if (thread_cache_take(cache, bytes))
        return true;
    for (uint64_t bins = cache->allotted_bins & ~(UINT64_C(1) << c); bins != 0;) {
        unsigned swept = next_swept(cache, bins);
        bins &= ~(UINT64_C(1) << swept);
        shrink_allotment(cache, swept);
        if (thread_cache_room(cache) >= bytes)
            break;
    }
    return thread_cache_take(cache, bytes);
}

/* The same at the cost of blocks, one bin after another, its own among them. */
static bool take_room(struct larder *instance, struct thread_cache *cache, size_t bytes)
{
    if (bytes > instance->config.thread_cached_bytes)
        return false;
    for (uint64_t bins = cache->allotted_bins; bins != 0;) {
        unsigned swept = next_swept(cache, bins);
        bins &= ~(UINT64_C(1) << swept);
        drain_bin(instance, cache, swept);
        shrink_allotment(cache, swept);
        if (thread_cache_room(cache) >= bytes)
            break;
    }
    return thread_cache_take(cache, bytes);
}

/* Allots places for `wanted` blocks in all, or as many as there is unused room for; false if none was there. */
static bool allot(struct thread_cache *cache, unsigned c, uint32_t wanted)
{
    const struct bin *bin = &cache->bins[c];
    uint32_t more = wanted > bin->allotted ? wanted - bin->allotted : 0;
    if (more != 0 && !take_unused_room(cache, c, (size_t)more * bin->bytes)) {
        do
            more /= 2;
        while (more != 0 && !thread_cache_take(cache, (size_t)more * bin->bytes));
    }
    set_allotted(cache, c, bin->allotted + more);
    return bin->allotted != 0;
}

/* A place for one block more than there are, at any cost to others; more if that costs nothing. */
static bool allot_one_more(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    const struct bin *bin = &cache->bins[c];
    if (bin->allotted > bin_count(bin))
        return true;
    uint32_t step = ALLOT_BYTES / bin->bytes, most = 2 * bin->capacity - bin->allotted;
    if (step > most)
        step = most;
    if (step > 1 && thread_cache_take(cache, (size_t)step * bin->bytes)) {
        set_allotted(cache, c, bin->allotted + step);
    } else if (bin->other->capacity != 0 && bin_other_count(bin) == bin->other->capacity) {
        retire_other(instance, cache, c);
    } else if (take_unused_room(cache, c, bin->bytes) || take_room(instance, cache, bin->bytes)) {
        /* its own may have been taken: then there are no blocks either */
        set_allotted(cache, c, bin->allotted + 1);
    }
    return bin->allotted > bin_count(bin);
}

/* ---- the exchange with the depot ---- */

/* A full magazine from the depot is loaded. The bin is empty. */
static bool load_from_depot(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    /* relaxed: a look without the lock; what it misses is no harm */
    if (atomic_load_explicit(&instance->depots[c].full, memory_order_relaxed) == NULL)
        return false;
    if (!allot(cache, c, bin->capacity) || bin->allotted < bin->capacity)
        return false;
    struct magazine *full =
        depot_take_full(&instance->depots[c], bin->other->capacity != 0 ? bin->other : NULL);
    if (full == NULL)
        return false;
    size_t bytes = (size_t)full->count * bin->bytes;
    atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
    if (instance->capped)
        cache_unreserve(instance, bytes); /* the lease has it now */
    count_add(cache, &cache->counters.blocks_moved, full->count);
    bin_set_other(bin, bin_unload(bin));
    bin_load(bin, full);
    return true;
}

/* ---- runs again: what the thread takes from them ---- */

/* Bytes of the blocks in the thread's own magazines. */
static uint64_t own_cached_bytes(const struct thread_cache *cache)
{
    uint64_t bytes = 0;
    for (uint64_t bins = cache->allotted_bins; bins != 0; bins &= bins - 1) {
        const struct bin *bin = &cache->bins[__builtin_ctzll(bins)];
        bytes += (uint64_t)bin_count(bin) * bin->bytes;
    }
    return bytes;
}

/* Bytes in runs with blocks in use, or in magazines, given those of spares. */
static uint64_t needed_bytes(struct larder *instance, uint64_t spare)
{
    uint64_t used = span_heap_used_bytes(&instance->small_heap);
    return used > spare ? used - spare : 0; /* the two are not of one moment */
}

/* What the heap of runs may be larger than `peak`. */
static uint64_t growth_allowed(struct larder *instance, uint64_t peak)
{
    uint64_t least = peak / GROW_SHARE, most = peak / GROW_MOST_SHARE;
    uint64_t earned = atomic_load_explicit(&instance->runs_growth, memory_order_relaxed);
    return earned < least ? least : earned < most ? earned : most;
}

/* Whether a run of fresh pages leaves the heap near to what has been needed. */
static bool may_grow(struct larder *instance, uint64_t spare, uint32_t units)
{
    cache_raise_peak(&instance->runs_peak, needed_bytes(instance, spare));
    uint64_t peak = atomic_load_explicit(&instance->runs_peak, memory_order_relaxed);
    return span_heap_told_held_bytes(&instance->small_heap) + span_bytes(units) <=
           peak + growth_allowed(instance, peak);
}

/* After a reclaim. relaxed: if two threads are here at once it is one step */
static void allow_more_growth(struct larder *instance)
{
    uint64_t peak = atomic_load_explicit(&instance->runs_peak, memory_order_relaxed);
    atomic_store_explicit(&instance->runs_growth,
                          growth_allowed(instance, peak) + peak / GROW_STEP_SHARE,
                          memory_order_relaxed);
}

/* What has been needed is forgotten with the memory: when that has gone back to the system, it is not needed any more. */
static void forget_growth(struct larder *instance)
{
    uint64_t held = span_heap_told_held_bytes(&instance->small_heap);
    if (held >= atomic_load_explicit(&instance->runs_peak, memory_order_relaxed))
        return;
    atomic_store_explicit(&instance->runs_peak, held, memory_order_relaxed);
    atomic_store_explicit(&instance->runs_growth, 0, memory_order_relaxed);
}

static void empty_own_magazines(struct larder *instance, struct thread_cache *cache)
{
    for (uint64_t bins = cache->allotted_bins; bins != 0; bins &= bins - 1) {
        unsigned each = (unsigned)__builtin_ctzll(bins);
        drain_bin(instance, cache, each);
        shrink_allotment(cache, each);
    }
}

/*
 * Gives up what is cached in the depots and spare runs, and in this thread, if a run for class c would otherwise be of fresh pages, of which there are enough, and
 * if that is so much that they may be saved. The thread's magazines only if they hold much, too, or nothing else helps: what is in them
 * it is most likely to want again. True: there may be blocks of the class now.
 */
static bool reclaim(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct span_heap *heap = &instance->small_heap;
    uint32_t units = instance->depots[c].run_units;
    if (instance->capped || span_heap_has_touched(heap, units))
        return false;
    uint64_t spare = fit_spare_bytes(instance);
    if (may_grow(instance, spare, units))
        return false;
    uint64_t shared = spare + atomic_load_explicit(&instance->depot_bytes, memory_order_relaxed);
    uint64_t least = span_heap_used_bytes(heap) / RECLAIM_SHARE;
    uint64_t own = own_cached_bytes(cache);
    if (shared + own < (least > RECLAIM_BASE ? least : RECLAIM_BASE))
        return false;
    allow_more_growth(instance);
    if (shared != 0)
        fit_drain_depots(instance);
    if (own < span_heap_used_bytes(heap) / OWN_SHARE && span_heap_has_touched(heap, units))
        return true;
    empty_own_magazines(instance, cache);
    fit_release_spares(instance);
    return true;
}

/* Up to `wanted` blocks from runs into the loaded magazine, which is empty. The taker: see depot_take_blocks(). */
static bool fill_from_runs(struct larder *instance, struct thread_cache *cache, unsigned c,
                           uint32_t wanted, const void *taker)
{
    struct bin *bin = &cache->bins[c];
    uint32_t taken = depot_take_blocks(&instance->depots[c], taker, bin_floor(bin), wanted);
    bin_set_top(bin, bin_floor(bin) + taken);
    count_add(cache, &cache->counters.blocks_moved, taken);
    return taken != 0;
}

/* Places for as many as are taken from runs at once: half a magazine where it is not small. 0: the caller takes a single block. */
static uint32_t allot_for_runs(struct thread_cache *cache, unsigned c)
{
    const struct bin *bin = &cache->bins[c];
    uint32_t wanted = bin->capacity > 4 ? bin->capacity / 2 : bin->capacity;
    if (!allot(cache, c, wanted))
        return 0;
    return wanted < bin->allotted ? wanted : bin->allotted;
}

/* From a new run; from another thread's where there is no memory for one. */
static bool load_from_new_run(struct larder *instance, struct thread_cache *cache, unsigned c,
                              uint32_t wanted)
{
    const struct bin *bin = &cache->bins[c];
    const void *taker = cache;
    bool filled = false;
    if (reclaim(instance, cache, c)) {
        wanted = allot_for_runs(cache, c); /* its own may have been taken */
        if (wanted == 0)
            return false;
        filled = fill_from_runs(instance, cache, c, wanted, taker);
    }
    while (!filled && taker != NULL) { /* again where another thread was faster */
        if (!fit_run_create(instance, cache, c))
            taker = NULL;
        /* a backend of the user's may have come back here for memory meanwhile */
        if (bin_loaded_count(bin) != 0)
            return true;
        filled = fill_from_runs(instance, cache, c, wanted, taker);
    }
    return filled;
}

/* Fills the loaded magazine from runs, as far as there is room. */
static bool load_from_runs(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    if (bin->loaded->capacity == 0) {
        struct magazine *magazine = new_magazine(instance, bin->capacity);
        if (magazine == NULL)
            return false;
        bin_load(bin, magazine);
    }
    uint32_t wanted = allot_for_runs(cache, c);
    if (wanted == 0)
        return false;
    return fill_from_runs(instance, cache, c, wanted, cache) ||
           load_from_new_run(instance, cache, c, wanted);
}

bool fit_refill(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    if (bin_loaded_count(bin) != 0)
        return true;
    if (bin_other_count(bin) != 0) {
        bin_swap(bin);
        return true;
    }
    return load_from_depot(instance, cache, c) || load_from_runs(instance, cache, c);
}

bool fit_take_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                    struct round *round)
{
    struct bin *bin = &cache->bins[c];
    if (!fit_refill(instance, cache, c))
        return false;
    struct round *top = bin_top(bin) - 1;
    *round = *top;
    bin_set_top(bin, top);
    count_add(cache, &cache->counters.blocks_moved, UINT64_MAX);
    cache_check_bin(instance, cache, c);
    return true;
}

/* A magazine with a free place is loaded; false if there is none. */
static bool load_unfilled(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct bin *bin = &cache->bins[c];
    if (bin_loaded_count(bin) < bin->loaded->capacity)
        return true;
    if (bin_other_count(bin) == bin->other->capacity && bin->other->capacity != 0)
        retire_other(instance, cache, c);
    if (bin->other->capacity == 0) {
        struct magazine *magazine = new_magazine(instance, bin->capacity);
        if (magazine == NULL)
            return false;
        bin_set_other(bin, magazine);
    }
    bin_swap(bin);
    return true;
}

bool fit_put_round(struct larder *instance, struct thread_cache *cache, unsigned c,
                   struct round round)
{
    if (cache->shared || !load_unfilled(instance, cache, c) ||
        !allot_one_more(instance, cache, c)) {
        return false;
    }
    struct bin *bin = &cache->bins[c];
    struct round *top = bin_top(bin);
    *top = round;
    bin_set_top(bin, top + 1);
    count_add(cache, &cache->counters.blocks_moved, 1);
    cache_check_bin(instance, cache, c);
    return true;
}

void fit_flush(struct larder *instance, struct thread_cache *cache)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        struct bin *bin = &cache->bins[c];
        drain_bin(instance, cache, c);
        drop_magazine(instance, bin_unload(bin));
        drop_magazine(instance, bin->other);
        bin_clear(bin);
        shrink_allotment(cache, c);
    }
    /* the account of room and allotments is right: the thread's bound holds */
    assert(cache->shared || cache->allotted_bins == 0);
    assert(cache->shared || thread_cache_room(cache) == cache->lease);
}

static void drain_depot(struct larder *instance, unsigned c, uint32_t count)
{
    struct depot *depot = &instance->depots[c];
    struct magazine *magazine = depot_detach_full(depot, count);
    while (magazine != NULL) {
        struct magazine *next = magazine->next;
        size_t bytes = (size_t)magazine->count * depot->block_size;
        fit_give_rounds(instance, c, magazine->rounds, magazine->count);
        atomic_fetch_sub_explicit(&instance->depot_bytes, bytes, memory_order_relaxed);
        cache_unreserve(instance, bytes);
        drop_magazine(instance, magazine);
        magazine = next;
    }
}

/* Those that stand ready for exchanges: where there is nothing to exchange they are wanted no more. */
static void drop_empty(struct larder *instance, unsigned c)
{
    struct magazine *magazine = depot_detach_empty(&instance->depots[c]);
    while (magazine != NULL) {
        struct magazine *next = magazine->next;
        drop_magazine(instance, magazine);
        magazine = next;
    }
}

void fit_drain_depots(struct larder *instance)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        /* relaxed: a look without the lock; what comes meanwhile may stay */
        if (atomic_load_explicit(&instance->depots[c].full, memory_order_relaxed) != NULL)
            drain_depot(instance, c, UINT32_MAX);
        drop_empty(instance, c);
    }
    fit_release_spares(instance);
}

size_t fit_reap_depots(struct larder *instance, uint32_t now_ms, uint32_t idle_ms)
{
    size_t idle_bytes = 0;
    forget_growth(instance);
    for (unsigned c = 0; c < instance->class_count; c++) {
        bool idle;
        uint32_t spares = depot_reap_spares(&instance->depots[c], now_ms, idle_ms, &idle);
        uint32_t unneeded = depot_reap_count(&instance->depots[c], now_ms, idle_ms);
        if (unneeded != 0)
            drain_depot(instance, c, unneeded);
        if (idle)
            spares = UINT32_MAX;
        size_t bytes = spares != 0 ? fit_destroy_spares(instance, c, spares) : 0;
        idle_bytes += idle ? bytes : 0;
    }
    return idle_bytes;
}
