/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Large blocks cannot be kept whole: an exact-size cache holds 4 to 28 times the live bytes of an inference. So
 * they are cut from regions, best fit first and lowest address among equals, and coalesce with both neighbours
 * as soon as they are free. Free spans lie in bins by length, 16 a doubling, each sorted by length and address, with
 * a bitmap over the bins: the first entry of the request's own bin that is long enough is the best fit,
 * else the head of the next occupied bin. Both walks are bounded (SPAN_WALK_LIMIT), so that a heap of many equal holes makes
 * the fit approximate rather than the lock long.
 *
 * A page is dirty once it has been touched and clean after it came from the system or was discarded. Free spans without
 * clean pages form one set of bins, those with some another. A clean page lies wholly inside one free span (a page that
 * is partly in use is dirty), so the clean count of a span is the sum over its parts when spans merge, and only a split
 * has to look at the bitmap, and only if there are clean pages. What free spans cost is their bytes less their clean
 * pages: three counters, and nothing to compute per span.
 *
 * What repeats is not searched for again: see span_loop.c. While the heap is frozen in a loop, everything but the
 * expected take or put settles it first.
 *
 * This file has what is neither a take nor a put: the regions, the ways into the lock, and what callers are told.
 *
 * Files: span_bins.h has bins and nodes, span_take.c and span_put.c the way of a block, span_pages.c the pages, span_remote.c
 * what other threads freed, span_loop.c, span_plan.c and span_settle.c the loops, span_purge.c gives memory back,
 * span_figures.c says what is held; budget.c says how much may wait.
 *
 * Lock order: a depot's lock may be held when this one is taken; region->runs_lock and the map's locks are never held
 * together with it.
 *
 * Source: P. R. Wilson et al., "Dynamic Storage Allocation: A Survey and Critical Review", 1995 (best fit
 * with address order); M. Masmano et al., "TLSF", 2004 (bitmap over bins); jemalloc (dirty before clean).
 */
#include "span_heap.h"

#include <string.h>

#include "cache.h"
#include "span_bins.h"
#include "thread_state.h"

void span_heap_init(struct span_heap *heap, struct larder *instance, uint32_t step, uint32_t front)
{
    memset(heap, 0, sizeof *heap);
    heap->instance = instance;
    heap->step = step;
    heap->page_shift = (uint32_t)__builtin_ctzll(os_page_size() >> UNIT_SHIFT);
    heap->front = front;
    heap->now_ms = os_now_ms();
    bool small = heap == &instance->small_heap;
    spinlock_set_rank(&heap->lock.spin, small ? RANK_SMALL_HEAP : RANK_HEAP);
}

/* ---- the lock ---- */

void span_heap_enter(struct span_heap *heap)
{
    /* A thread past its teardown is no owner of anything, so its address does no harm on the short way. */
    if (!heap_lock_enter_biased(&heap->lock, &thread_state.lock_user))
        heap_lock_enter_visiting(&heap->lock, thread_self());
    span_heap_drain(heap);
}

void span_heap_enter_settled(struct span_heap *heap)
{
    span_heap_enter(heap);
    span_heap_settle(heap);
}

void span_heap_enter_unlooped(struct span_heap *heap)
{
    span_heap_enter_settled(heap);
    if (heap->loops != NULL)
        span_loop_forget(heap->loops);
}

void span_heap_lock_settled(struct span_heap *heap)
{
    span_heap_enter_settled(heap);
}

void span_heap_lock_for_fork(struct span_heap *heap)
{
    heap_lock_enter_slow(&heap->lock, thread_self()); /* by bias it may be inside one only */
    span_heap_drain(heap);
    span_heap_settle(heap);
}

uint64_t span_heap_part(struct span_heap *heap)
{
    span_heap_enter_unlooped(heap);
    uint64_t bytes = span_heap_free_bytes_locked(heap);
    heap_lock_leave(&heap->lock);
    return bytes;
}

/* ---- regions ---- */

/* Room above the top of a region for so many units. */
static bool has_room(const struct span_heap *heap, uint32_t length)
{
    const struct region *region = heap->regions;
    while (region != NULL && region_end_unit(region) - region->top < length)
        region = region->next;
    return region != NULL;
}

bool span_heap_add_region(struct span_heap *heap, struct region *region, uint32_t length)
{
    span_heap_enter_settled(heap);
    if (has_room(heap, length)) {
        heap_lock_leave(&heap->lock);
        return false;
    }
    region->prev = NULL;
    region->next = heap->regions;
    if (heap->regions != NULL)
        heap->regions->prev = region;
    /* relaxed: whoever frees a block of it knows it by the block */
    if (atomic_load_explicit(&heap->remote.region, memory_order_relaxed) == NULL)
        atomic_store_explicit(&heap->remote.region, region, memory_order_relaxed);
    heap->regions = region;
    heap->region_count++;
    heap->reserved_bytes += (uint64_t)region->units << UNIT_SHIFT;
    heap_lock_leave(&heap->lock);
    return true;
}

/* ---- live bytes ---- */

void span_heap_tell_live(struct span_heap *heap)
{
    struct larder *instance = heap->instance;
    int64_t now = heap->live_bytes - (int64_t)span_remote_bytes(&heap->remote);
    if (now != heap->live_bytes)
        span_remote_want(&heap->remote);
    uint64_t rise = (uint64_t)(now - heap->told_live_bytes);
    heap->told_live_bytes = now;
    /* relaxed: counters */
    uint64_t live =
        atomic_fetch_add_explicit(&instance->live_told, rise, memory_order_relaxed) + rise;
    if ((int64_t)live > 0)
        cache_raise_peak(&instance->peak_live_bytes, live);
}
