/* SPDX-License-Identifier: MIT */
/* Spans for `fit`: what stands between a request and the span heap. See fit.c. */
#include "backend.h"
#include "fit.h"
#include "fit_tiers.h"
#include "heaps.h"
#include "thread_state.h"

/* What the thread's live bytes have changed by since it last told the heap. */
static int64_t live_delta(struct thread_cache *cache)
{
    if (cache->shared)
        return 0;
    uint64_t live = atomic_load_explicit(&cache->counters.allocated_bytes, memory_order_relaxed) -
                    atomic_load_explicit(&cache->counters.freed_bytes, memory_order_relaxed);
    int64_t delta = (int64_t)(live - cache->live_told);
    cache->live_told = live;
    return delta;
}

/* The same for a call on `heap`: live bytes are kept by heaps of large blocks alone, so that there is one peak. */
static int64_t tell_live(struct span_heap *heap, struct thread_cache *cache)
{
    int64_t delta = live_delta(cache);
    if (heap != &heap->instance->small_heap || delta == 0)
        return delta;
    span_heap_note_live(cache->heap, delta);
    return 0;
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

bool fit_make_usable(struct span_heap *heap, struct taken_span taken, uint32_t units)
{
    if (region_is_committed(taken.region, taken.start + units) ||
        region_commit(taken.region, taken.start + units) == 0) {
        return true;
    }
    undo_take(heap, taken, units);
    return false;
}

struct taken_span fit_take_plain(struct thread_cache *cache, uint32_t units, size_t size)
{
    if (thread_is_crowded(cache->heap))
        heaps_move(cache);
    if (__builtin_expect(span_heap_drain_before_take(cache->heap), 0))
        cache_attend(cache->heap);
    return span_heap_take(cache->heap, units, 0, WORD(WORD_LARGE_LIVE), (int64_t)size);
}

struct taken_span fit_take_span(struct span_heap *heap, struct thread_cache *cache, uint32_t units,
                                size_t alignment, uint32_t word)
{
    struct larder *instance = heap->instance;
    if (alignment <= span_bytes(heap->step))
        alignment = 0;
    int64_t delta = tell_live(heap, cache);
    struct taken_span taken = span_heap_take(heap, units, alignment, word, delta);
    while (__builtin_expect(taken.region == NULL, 0)) {
        uint32_t room = units + (uint32_t)(alignment >> UNIT_SHIFT);
        struct region *region = region_create(heap, room);
        if (region == NULL) {
            cache->live_told -= (uint64_t)delta;
            return taken;
        }
        if (!span_heap_add_region(heap, region, room))
            region_release(region);
        taken = span_heap_take(heap, units, alignment, word, delta);
    }
    if (instance->capped) {
        cache_unreserve(instance, span_bytes(units) - taken.fresh_pages * os_page_size());
    }
    if (!fit_make_usable(heap, taken, units))
        taken.region = NULL;
    return taken;
}

void fit_note_fresh(struct larder *instance, struct thread_cache *cache)
{
    count_add(cache, &cache->counters.miss_cold, 1);
    budget_keep(instance);
}

/* Makes room for `bytes` under the cap by giving back what has been free longest. */
static bool reserve_evicting(struct larder *instance, size_t bytes)
{
    if (cache_reserve(instance, bytes))
        return true;
    if (bytes > instance->config.max_cached_bytes)
        return false;
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
        if (span_heap_put(heap, region, start, units, expected, tell_live(heap, cache)))
            return true;
        cache_unreserve(instance, bytes);
        return false;
    }
    if (!span_heap_claim(heap, region, start, units, expected))
        return false;
    atomic_fetch_add_explicit(&instance->refused_bytes, bytes, memory_order_relaxed);
    /* Where the backend cannot discard, the span still goes back: the cap then works by whole regions. */
    (void)backend_discard(instance, region_address(region, start), bytes);
    span_heap_put_clean(heap, region, start, units);
    if (!backend_can_discard(instance))
        cache_unreserve(instance, span_heap_release_empty(heap, os_now_ms(), 0, false));
    return true;
}

bool fit_put_span(struct thread_cache *cache, struct region *region, uint32_t start, uint32_t units,
                  uint32_t expected)
{
    struct span_heap *heap = region->heap;
    if (heap->instance->capped)
        return put_span_capped(cache, region, start, units, expected);
    bool put = span_heap_put(heap, region, start, units, expected, tell_live(heap, cache));
    if (__builtin_expect(span_heap_is_due(heap), 0))
        cache_attend(heap);
    if (!cache->shared && ++cache->puts % TICK_EVERY == 0) {
        cache_tick_if_due(heap->instance, os_now_ms());
    }
    return put;
}
