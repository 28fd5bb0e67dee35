/* SPDX-License-Identifier: MIT */
/*
 * How a span heap hands out a span (theory: span_heap.c).
 *
 * What keeps steady state free of faults is the order of the search: the place where a loop expects the request; free spans that
 * have been touched all over; only then those with clean pages; at last what has never been handed out. That is no span but
 * lies above each region's top. When nothing fits, the top of the first region with room rises, from the free span just
 * below it if there is one, so growth needs only what that span lacks.
 *
 * The common way, a touched span without an alignment, is span_heap_take() from beginning to end; all else is called from there
 * with the lock held.
 */
#include "span_bins.h"
#include "span_check.h"
#include "span_pages.h"
#include "thread_state.h"

/* Takes the lock to take a span: notes where another thread, that takes too, is in the way. */
static inline void enter_to_take(struct span_heap *heap)
{
    if (heap_lock_enter_biased(&heap->lock, &thread_state.lock_user))
        return;
    const heap_lock_user_t *self = &thread_state.lock_user;
    unsigned met = heap_lock_enter_slow(&heap->lock, thread_self());
    if (heap->taker != self) {
        heap->taker = self;
        if (met != 0)
            thread_note_meeting(heap, met);
    }
}

/* First unit from `start` on at which address plus front is a multiple of the alignment. */
static uint32_t aligned_start(const struct span_heap *heap, const struct region *region,
                              uint32_t start, size_t alignment)
{
    uintptr_t address = (uintptr_t)region_address(region, start) + heap->front;
    uintptr_t aligned = (address + alignment - 1) & ~(uintptr_t)(alignment - 1);
    return start + (uint32_t)((aligned - address) >> UNIT_SHIFT);
}

void span_heap_insert_new(struct span_heap *heap, struct region *region, uint32_t start,
                          uint32_t end)
{
    struct span *span = node_get(region);
    span->start = start;
    span->length = end - start;
    span->clean = pages_count_clean(region, heap->page_shift, start, end - start);
    set_head(span);
    set_tail(span);
    bin_insert(heap, span);
}

/* The pages of a span about to be handed out count as touched; returns how many begin to cost. */
static uint32_t touch_pages(const struct span_heap *heap, struct region *region, uint32_t start,
                            uint32_t length, uint32_t word)
{
    if (word_kind(word) == WORD_LARGE_LIVE && length > 1) {
        word_store(&region->words[start + 1],
                   pages_touched_units(region, heap->page_shift, start, length));
    }
    return pages_mark_dirty(region, heap->page_shift, start, length);
}

/* The end of a take: `fresh` pages begin to cost. */
static inline struct taken_span finish_take(struct span_heap *heap, struct region *region,
                                            uint32_t start, uint32_t length, uint32_t fresh,
                                            uint32_t word, int64_t live_delta)
{
    word = word_kind(word) == WORD_LARGE_LIVE ? span_heap_large_word(heap, length) : word | length;
    word_store(&region->words[start], word);
    span_heap_note_take(heap, length, live_delta);
    return (struct taken_span){region, start, fresh};
}

/* The first units of a longer free span are no longer its. */
static inline void cut_front(struct span_heap *heap, struct span *span, uint32_t length)
{
    span->start += length;
    span->length -= length;
    set_head(span);
    bin_update(heap, span);
    heap->splits++;
}

/* Takes from a span that needs care: an alignment, or clean pages. */
static struct taken_span take_part(struct span_heap *heap, struct span *span, uint32_t length,
                                   size_t alignment, uint32_t word, int64_t live_delta)
{
    struct region *region = span->region;
    uint32_t first = span->start, end = first + span->length;
    uint32_t start = alignment != 0 ? aligned_start(heap, region, first, alignment) : first;
    uint32_t clean = span->clean, fresh = 0;
    if (start == first && start + length != end) {
        if (clean != 0)
            fresh = touch_pages(heap, region, start, length, word);
        span->clean = clean - fresh; /* a page that is partly taken is clean no more */
        cut_front(heap, span, length);
        heap->clean_pages -= fresh;
        return finish_take(heap, region, start, length, fresh, word, live_delta);
    }
    detach(heap, span);
    if (clean != 0)
        fresh = touch_pages(heap, region, start, length, word);
    node_put(span);
    if (start != first)
        span_heap_insert_new(heap, region, first, start);
    if (start + length != end)
        span_heap_insert_new(heap, region, start + length, end);
    heap->clean_pages -= fresh;
    heap->splits++;
    return finish_take(heap, region, start, length, fresh, word, live_delta);
}

/* Raises the top of a region that has room. */
static struct taken_span take_from_top(struct span_heap *heap, uint32_t length, size_t alignment,
                                       uint32_t word, int64_t live_delta)
{
    for (struct region *region = heap->regions; region != NULL; region = region->next) {
        uint32_t top = region->top;
        struct span *below = top > region_first_unit() ? free_before(region, top) : NULL;
        uint32_t first = below != NULL ? below->start : top;
        uint32_t start = alignment != 0 ? aligned_start(heap, region, first, alignment) : first;
        if (start > region_end_unit(region) || length > region_end_unit(region) - start)
            continue;
        uint32_t old_clean = 0;
        if (below != NULL) {
            old_clean = below->clean;
            detach(heap, below);
            node_put(below);
        }
        uint32_t end = start + length;
        if (end > top)
            region->top = end;
        heap->total_units += region->top - top;
        uint32_t fresh = touch_pages(heap, region, start, length, word);
        heap->clean_pages -= old_clean;
        if (end < top) { /* it fits below after all, where the search did not look */
            span_heap_insert_new(heap, region, end, top);
            heap->clean_pages += pages_count_clean(region, heap->page_shift, end, top - end);
        }
        if (start != first) {
            span_heap_insert_new(heap, region, first, start);
            heap->clean_pages += pages_count_clean(region, heap->page_shift, first, start - first);
        }
        return finish_take(heap, region, start, length, fresh, word, live_delta);
    }
    return (struct taken_span){NULL, 0, 0};
}

/* The rare ways: an alignment, or no fit without touching fresh pages. Called with the lock held. */
static __attribute__((noinline)) struct taken_span take_slow(struct span_heap *heap,
                                                             uint32_t length, size_t alignment,
                                                             uint32_t word, int64_t live_delta)
{
    uint32_t room = length;
    if (alignment != 0)
        room += (uint32_t)(alignment >> UNIT_SHIFT) - heap->step;
    struct span *span = bins_best(&heap->dirty, room);
    if (span == NULL)
        span = bins_best(&heap->mixed, room);
    struct taken_span taken = span != NULL
                                  ? take_part(heap, span, length, alignment, word, live_delta)
                                  : take_from_top(heap, length, alignment, word, live_delta);
    if (taken.region != NULL)
        span_heap_note_operation(heap, taken.region, taken.start, length);
    span_heap_tell_use(heap);
    span_check(heap);
    heap_lock_leave(&heap->lock);
    return taken;
}

/* While the heap is frozen: the take that the loop expects. */
static inline bool take_from_loop(struct span_heap *heap, uint32_t length, size_t alignment,
                                  uint32_t word, int64_t live_delta, struct taken_span *taken)
{
    uint32_t start;
    if (alignment == 0 && span_loop_take(heap->loops, length, &start)) {
        uint32_t fresh = heap->touched_pages;
        heap->touched_pages = 0;
        if (fresh != 0) /* somewhere in the loop: of this block nothing is known */
            word_store(&heap->loops->region->words[start + 1], length);
        *taken = finish_take(heap, heap->loops->region, start, length, fresh, word, live_delta);
        return true;
    }
    span_heap_settle(heap);
    return false;
}

bool span_heap_has_touched(struct span_heap *heap, uint32_t length)
{
    span_heap_lock_settled(heap);
    bool has = bins_best(&heap->dirty, length) != NULL;
    heap_lock_leave(&heap->lock);
    return has;
}

/* Puts what has been noted, by a thread that takes; false: nothing. */
static bool drain_to_take(struct span_heap *heap)
{
    heap->remote.by_owner = true;
    return span_heap_drain(heap);
}

bool span_heap_drain_before_take(struct span_heap *heap)
{
    if (__builtin_expect(!span_remote_is_due(&heap->remote), 1))
        return false;
    enter_to_take(heap);
    drain_to_take(heap);
    bool attend = span_heap_is_due(heap) && !span_heap_in_loop(heap);
    heap_lock_leave(&heap->lock);
    return attend;
}

struct taken_span span_heap_take(struct span_heap *heap, uint32_t length, size_t alignment,
                                 uint32_t word, int64_t live_delta)
{
    struct taken_span taken;
    struct span *span;
    enter_to_take(heap);
    do {
        if (heap->frozen && take_from_loop(heap, length, alignment, word, live_delta, &taken)) {
            heap_lock_leave(&heap->lock);
            return taken;
        }
        span = alignment == 0 ? bins_best(&heap->dirty, length) : NULL;
    } while (__builtin_expect(span == NULL, 0) && drain_to_take(heap));
    if (__builtin_expect(span == NULL, 0))
        return take_slow(heap, length, alignment, word, live_delta);
    struct region *region = span->region;
    uint32_t start = span->start;
    if (span->length != length) {
        cut_front(heap, span, length);
    } else {
        word_store(&region->words[start + length - 1], 0);
        bin_remove(heap, span);
        node_put(span);
    }
    taken = finish_take(heap, region, start, length, 0, word, live_delta);
    span_heap_note_operation(heap, region, start, length);
    heap_lock_leave(&heap->lock);
    return taken;
}
