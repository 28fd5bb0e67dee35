/* SPDX-License-Identifier: MIT */
#include "span_check.h"

#ifdef LARDER_CHECKS_FULL

#include "invariant.h"
#include "span_bins.h"
#include "span_heap.h"

struct sums {
    uint64_t free_spans, used_units, clean_pages;
};

static void must(bool holds, const char *what, uint64_t where)
{
    invariant_holds(holds, "span heap", what, where);
}

static uint32_t check_free(const struct span_heap *heap, const struct region *region, uint32_t unit,
                           uint32_t word, struct sums *sums)
{
    uint32_t index = word & WORD_INDEX_MASK;
    must(region->spans_most - 1 - index < region->spans_used, "a free span without a node", unit);
    const struct span *span = &region->spans[index];
    must(span->start == unit && span->length != 0 && span->region == region,
         "a free span's node is another's", unit);
    must(span->length <= region->top - unit, "a free span reaches beyond the top", unit);
    must(span->length % heap->step == 0, "a free span that is no multiple of the step", unit);
    must(span->length == 1 ||
             word_load(&region->words[unit + span->length - 1]) == (WORD(WORD_FREE_TAIL) | index),
         "a free span's end", unit);
    must(span->in_dirty_bins == (span->clean == 0), "a free span in the wrong bins", unit);
    sums->free_spans++;
    sums->clean_pages += span->clean;
    return span->length;
}

/* The length of what starts at the unit, and whether it is free. */
static uint32_t check_span(const struct span_heap *heap, const struct region *region, uint32_t unit,
                           struct sums *sums, bool *is_free)
{
    uint32_t word = word_load(&region->words[unit]), length = word & WORD_INDEX_MASK;
    *is_free = false;
    switch (word_kind(word)) {
    case WORD_FREE:
        *is_free = true;
        return check_free(heap, region, unit, word, sums);
    case WORD_RUN: {
        const struct run *run = run_of_first(region_state(region, word));
        must(run->start == unit && run->region == region, "a run's record is another's", unit);
        length = run->length;
        break;
    }
    case WORD_LARGE_LIVE:
    case WORD_LARGE_CACHED:
        break;
    default:
        invariant_broken("span heap", "nothing starts where a span should", unit);
    }
    must(length != 0 && length <= region->top - unit, "a block reaches beyond the top", unit);
    sums->used_units += length;
    return length;
}

static uint64_t count_binned(const struct span_bins *bins)
{
    uint64_t count = 0;
    for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
        for (const struct span *span = bins->head[bin]; span != NULL; span = span->next) {
            must(span->bin == bin, "a span in another's bin", bin);
            count++;
        }
    }
    return count;
}

void span_check(const struct span_heap *heap)
{
    if (heap->frozen || heap->detached != 0)
        return;
    struct sums sums = {0};
    uint64_t total = 0;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        uint32_t unit = region_first_unit();
        total += region->top - unit;
        must(allocation_map_region((uintptr_t)region_address(region, unit)) == region,
             "a region that the map does not know", (uintptr_t)region_address(region, unit));
        for (bool after_free = false, is_free; unit < region->top; after_free = is_free) {
            unit += check_span(heap, region, unit, &sums, &is_free);
            must(!(after_free && is_free), "two free spans meet", unit);
        }
    }
    must(heap->total_units == total, "units in all", total);
    must(span_heap_used_units((struct span_heap *)(uintptr_t)heap) == sums.used_units,
         "units in use", sums.used_units);
    must(heap->clean_pages == sums.clean_pages, "clean pages", sums.clean_pages);
    must(atomic_load_explicit(&((struct span_heap *)(uintptr_t)heap)->told_held_bytes,
                              memory_order_relaxed) == span_heap_held_bytes_locked(heap),
         "bytes held, as told", span_heap_held_bytes_locked(heap));
    must(count_binned(&heap->dirty) + count_binned(&heap->mixed) == sums.free_spans,
         "free spans in bins", sums.free_spans);
}

#else

typedef int span_check_is_empty; /* ISO C wants a declaration */

#endif
