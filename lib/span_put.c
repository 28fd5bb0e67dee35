/* SPDX-License-Identifier: MIT */
/*
 * How a span heap takes a span back (theory: span_heap.c): it merges with its free neighbours at once. Whoever frees another
 * thread's block leaves a note (span_remote.h) instead of taking the lock from its owner.
 *
 * Age is kept beside the spans, in chunks of 64 KiB: when a block is freed, its chunks note the time. A long idle stretch
 * thus ages although its neighbours are busy and merge with it all day; span_purge.c goes by it. The clock is read at every
 * SPAN_HEAP_CLOCK_EVERY-th put (3 ns each time is too much for a put of 8), so after a pause a few blocks may look as old as
 * the pause; that costs faults, nothing else.
 */
#include "cache.h"
#include "span_bins.h"
#include "span_check.h"
#include "span_pages.h"
#include "thread_state.h"

/* Takes the lock to put a span. */
static inline void enter_to_put(struct span_heap *heap)
{
    if (!heap_lock_enter_biased(&heap->lock, &thread_state.lock_user))
        heap_lock_enter_passing(&heap->lock, thread_self());
}

void span_heap_look_around(struct span_heap *heap)
{
    heap->now_ms = os_now_ms();
    bool alone = atomic_load_explicit(&heap->instance->more_heaps_count, memory_order_relaxed) == 0;
    if (!alone && (heap->puts - 1) % SPAN_HEAP_TELL_EVERY == 0)
        span_heap_tell_live(heap);
}

void span_heap_insert_coalesced(struct span_heap *heap, struct region *region, uint32_t start,
                                uint32_t length, uint32_t clean)
{
    struct span *before = free_before(region, start);
    struct span *after = free_after(region, start + length);
    if (after != NULL) {
        word_store(&region->words[after->start], 0);
        heap->coalesces++;
    }
    if (before != NULL) {
        if (before->length > 1)
            word_store(&region->words[start - 1], 0);
        heap->coalesces++;
        before->length += length;
        before->clean += clean;
        if (after != NULL) {
            before->length += after->length;
            before->clean += after->clean;
            bin_remove(heap, after);
            node_put(after);
        }
        set_tail(before);
        bin_update(heap, before);
        return;
    }
    struct span *span = after;
    if (span == NULL) {
        span = node_get(region);
        span->length = 0;
        span->clean = 0;
    }
    span->start = start;
    span->length += length;
    span->clean += clean;
    set_head(span);
    set_tail(span);
    if (after != NULL) {
        bin_update(heap, span);
    } else {
        bin_insert(heap, span);
    }
}

void span_heap_put_locked(struct span_heap *heap, struct region *region, uint32_t start,
                          uint32_t length, int64_t live_delta)
{
    word_t *word = &region->words[start];
    if (heap->frozen) {
        if (region == heap->loops->region && span_loop_put(heap->loops, start, length)) {
            word_store(word, WORD(WORD_LARGE_CACHED) | length);
            if (heap->puts++ % SPAN_HEAP_CLOCK_EVERY == 0)
                span_heap_look_around(heap);
            span_heap_note_put(heap, length, live_delta);
            return;
        }
        span_heap_settle(heap);
    }
    word_store(word, 0);
    if (heap->puts++ % SPAN_HEAP_CLOCK_EVERY == 0) {
        span_heap_look_around(heap);
        if (span_heap_free_bytes_locked(heap) > heap->peak_free_bytes)
            heap->peak_free_bytes = span_heap_free_bytes_locked(heap);
    }
    pages_note_idle(region, start, length, heap->now_ms);
    span_heap_insert_coalesced(heap, region, start, length, 0);
    span_heap_note_put(heap, length, live_delta);
    span_heap_note_operation(heap, region, start, length | LOOP_PUT);
}

void span_heap_finish_put(struct span_heap *heap, heap_lock_user_t *self)
{
    if (heap->loops->expected == heap->loops->begin)
        span_loop_complete(heap->loops);
    if ((heap->puts - 1) % SPAN_HEAP_CLOCK_EVERY == 0)
        span_heap_look_around(heap);
    heap_lock_leave_biased(&heap->lock, self);
}

bool span_heap_put(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                   uint32_t expected, int64_t live_delta)
{
    enter_to_put(heap);
    bool ours = __builtin_expect(word_load(&region->words[start]) == expected, 1);
    if (ours)
        span_heap_put_locked(heap, region, start, length, live_delta);
    heap_lock_leave(&heap->lock);
    return ours;
}

/* There are too many notes, and this is a block that waits to be noted: all are put. */
static void put_with_notes(struct span_heap *heap, struct region *region, uint32_t start,
                           uint32_t length, size_t size)
{
    span_heap_enter(heap);
    if (!heap->remote.by_owner)
        heap_lock_forfeit(&heap->lock);
    heap->remote.by_owner = false;
    span_heap_put_locked(heap, region, start, length, -(int64_t)size);
    heap_lock_leave(&heap->lock);
}

enum span_put span_heap_put_plain(struct span_heap *heap, struct region *region, uint32_t start,
                                  uint32_t length, uint32_t expected, size_t size)
{
    /* relaxed: it does not change while a block of it is in use */
    if (!heap_lock_is_anothers(&heap->lock, &thread_state.lock_user) ||
        atomic_load_explicit(&heap->remote.region, memory_order_relaxed) != region) {
        return span_heap_put(heap, region, start, length, expected, -(int64_t)size) ? SPAN_PUT_DONE
                                                                                    : SPAN_PUT_LOST;
    }
    /* relaxed: the note publishes it */
    if (!atomic_compare_exchange_strong_explicit(&region->words[start], &expected,
                                                 WORD_WAITING | length, memory_order_relaxed,
                                                 memory_order_relaxed)) {
        return SPAN_PUT_LOST;
    }
    if (__builtin_expect(!span_remote_push(&heap->remote, start, size), 0))
        put_with_notes(heap, region, start, length, size);
    return SPAN_PUT_NOTED;
}

void span_heap_note_live(struct span_heap *heap, int64_t live_delta)
{
    enter_to_put(heap);
    span_heap_note_live_locked(heap, live_delta);
    heap_lock_leave(&heap->lock);
}

bool span_heap_claim(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                     uint32_t expected)
{
    span_heap_enter_unlooped(heap);
    word_t *word = &region->words[start];
    bool ours = word_load(word) == expected;
    if (ours)
        word_store(word, WORD(WORD_LARGE_CACHED) | length);
    heap_lock_leave(&heap->lock);
    return ours;
}

void span_heap_put_clean(struct span_heap *heap, struct region *region, uint32_t start,
                         uint32_t length)
{
    uint32_t pages = length >> heap->page_shift;
    span_heap_enter_unlooped(heap);
    word_store(&region->words[start], 0);
    pages_mark_clean(region, start >> heap->page_shift, pages);
    heap->clean_pages += pages;
    span_heap_insert_coalesced(heap, region, start, length, pages);
    heap->given_back_bytes += (uint64_t)length << UNIT_SHIFT;
    span_heap_note_put(heap, length, 0);
    span_heap_tell_use(heap);
    span_check(heap);
    heap_lock_leave(&heap->lock);
}
