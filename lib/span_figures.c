/* SPDX-License-Identifier: MIT */
/* What a span heap holds, told to statistics and budget. */
#include "cache.h"
#include "span_bins.h"
#include "span_heap.h"
#include "span_pages.h"
#include "thread_state.h"

uint64_t span_heap_free_bytes(struct span_heap *heap)
{
    span_heap_enter(heap);
    if (!heap->lock.by_bias)
        spinlock_uncount(&heap->lock.spin);
    uint64_t bytes = span_heap_free_bytes_locked(heap);
    heap_lock_leave(&heap->lock);
    return bytes;
}

uint64_t span_heap_used_bytes(struct span_heap *heap)
{
    return span_heap_used_units(heap) << UNIT_SHIFT;
}

/* Bytes that planned loops need, with all there is in other regions; 0: there are none. */
static uint64_t loops_bytes(const struct span_heap *heap)
{
    const struct span_loops *loops = heap->loops;
    if (loops == NULL || loops->highest == 0)
        return 0;
    uint64_t above = loops->region->top - loops->highest;
    return (heap->total_units - above) << UNIT_SHIFT;
}

void span_heap_tell_use(struct span_heap *heap)
{
    /* relaxed: figures, each by itself */
    atomic_store_explicit(&heap->told_held_bytes, span_heap_held_bytes_locked(heap),
                          memory_order_relaxed);
    atomic_store_explicit(&heap->told_needed_bytes, loops_bytes(heap), memory_order_relaxed);
}

/* In spans in use, less what has been noted as freed. */
static uint64_t told_used_bytes(struct span_heap *heap)
{
    uint64_t used = span_heap_used_bytes(heap), waiting = span_remote_bytes(&heap->remote);
    return waiting < used ? used - waiting : 0; /* they are read one after the other */
}

uint64_t span_heap_told_held_bytes(struct span_heap *heap)
{
    return atomic_load_explicit(&heap->told_held_bytes, memory_order_relaxed);
}

uint64_t span_heap_told_free_bytes(struct span_heap *heap)
{
    uint64_t held = span_heap_told_held_bytes(heap);
    uint64_t used = told_used_bytes(heap);
    return used < held ? held - used : 0;
}

void span_heap_add_use(struct span_heap *heap, struct span_heap_use *use)
{
    uint64_t used = told_used_bytes(heap);
    uint64_t needed = atomic_load_explicit(&heap->told_needed_bytes, memory_order_relaxed);
    use->used += used;
    use->held += atomic_load_explicit(&heap->told_held_bytes, memory_order_relaxed);
    use->needed += needed != 0 ? needed : used;
    use->operations += atomic_load_explicit(&heap->operations, memory_order_relaxed);
    /* relaxed: only a hint, and the store of true orders nothing */
    if (atomic_load_explicit(&heap->new_loops, memory_order_relaxed))
        use->new_loops |= atomic_exchange_explicit(&heap->new_loops, false, memory_order_relaxed);
}

/* In units, of what has been touched. */
static uint32_t largest_free(struct span_heap *heap)
{
    uint32_t largest = 0;
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = SPAN_BINS; bin-- > 0;) {
            for (const struct span *span = sets[set]->head[bin]; span != NULL; span = span->next) {
                uint32_t touched = span->length - (span->clean << heap->page_shift);
                if (touched > largest)
                    largest = touched;
            }
        }
    }
    return largest;
}

void span_heap_add_figures(struct span_heap *heap, struct span_heap_figures *figures)
{
    span_heap_enter_settled(heap);
    if (!heap->lock.by_bias)
        spinlock_uncount(&heap->lock.spin); /* looking does not count */
    if (span_heap_free_bytes_locked(heap) > heap->peak_free_bytes)
        heap->peak_free_bytes = span_heap_free_bytes_locked(heap);
    uint64_t largest = (uint64_t)largest_free(heap) << UNIT_SHIFT;
    if (largest > figures->largest_free)
        figures->largest_free = largest;
    figures->used_bytes += span_heap_used_units(heap) << UNIT_SHIFT;
    figures->free_bytes += span_heap_free_bytes_locked(heap);
    figures->reserved_bytes += heap->reserved_bytes;
    figures->regions += heap->region_count;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        figures->metadata_bytes += region_metadata_bytes(region);
    }
    figures->peak_free_bytes += heap->peak_free_bytes;
    figures->splits += heap->splits;
    figures->coalesces += heap->coalesces;
    figures->given_back_bytes += heap->given_back_bytes;
    figures->lock_acquisitions += spinlock_acquisitions(&heap->lock.spin);
    figures->lock_contended += spinlock_contended(&heap->lock.spin);
    figures->lock_revocations += heap->lock.revocations;
    span_heap_resume(heap);
    heap_lock_leave(&heap->lock);
}
