/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Large blocks cannot be kept whole: an exact-size cache holds 4 to 28 times the live bytes of an inference. So
 * they are cut from regions, best fit first and lowest address among equals, and coalesce with both neighbours
 * as soon as they are free. Free spans lie in bins by length, 16 a doubling, each sorted by length and address, with
 * a bitmap over the bins: the first entry of the request's own bin that is long enough is the best fit,
 * else the head of the next occupied bin. Both walks are bounded (WALK_LIMIT), so that a heap of many equal holes makes
 * the fit approximate rather than the lock long.
 *
 * What keeps steady state free of faults is the order of the search. A page is dirty once it has been touched and clean
 * after it came from the system or was discarded; free spans without clean pages form one set
 * of bins, those with some another, and the second is searched only when the first has nothing. A clean page lies
 * wholly inside one free span (a page that is partly in use is dirty), so the clean count of a span is the sum over
 * its parts when spans merge, and only a split has to look at the bitmap, and only if there are clean pages.
 *
 * What has never been handed out is no span but lies above each region's top. When nothing fits, the top of the first region with
 * room rises, from the free span just below it if there is one, so growth needs only what that span lacks.
 *
 * Age is kept beside the spans, in chunks of 64 KiB: when a block is freed, its chunks note the time. A long idle stretch
 * thus ages although its neighbours are busy and merge with it all day. Purging detaches the spans with
 * something old in them (their first word becomes LARGE_CACHED, so neighbours do not merge with them), discards the old pages
 * without the lock, and puts the spans back. The clock is read at every SPAN_HEAP_CLOCK_EVERY-th put (3 ns each time is too much
 * for a put of 8), so after a pause a few blocks may look as old as the pause; that costs faults, nothing else.
 *
 * What repeats is not searched for again: see span_loop.c. While the heap is frozen in a loop, everything but the
 * expected take or put settles it first.
 *
 * What free spans cost is their bytes less their clean pages: three counters, and nothing to compute per span.
 *
 * Files: span_bins.h has bins and nodes, span_pages.c the pages, span_loop.c, span_plan.c and span_settle.c the loops,
 * span_purge.c gives memory back; budget.c says how much may wait.
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
#include "span_check.h"
#include "span_pages.h"
#include "thread_state.h"

/* ---- figures that every change keeps ---- */

uint64_t span_heap_free_bytes_locked(struct span_heap *heap)
{
    return ((heap->total_units - span_heap_used_units(heap)) << UNIT_SHIFT) -
           (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
}

uint64_t span_heap_held_bytes_locked(const struct span_heap *heap)
{
    return (heap->total_units << UNIT_SHIFT) -
           (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
}

/* ---- the lock ---- */

void span_heap_enter(struct span_heap *heap)
{
    /* A thread past its teardown is no owner of anything, so its address does no harm on the short way. */
    if (!heap_lock_enter_biased(&heap->lock, &thread_state.lock_user))
        heap_lock_enter_visiting(&heap->lock, thread_self());
    span_heap_drain(heap);
}

/* The same to put. */
static inline void enter_to_put(struct span_heap *heap)
{
    if (!heap_lock_enter_biased(&heap->lock, &thread_state.lock_user))
        heap_lock_enter_passing(&heap->lock, thread_self());
}

/* The same to take: notes where another thread, that takes too, is in the way. */
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

/* ---- take ---- */

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

/* Puts an operation on record, which may complete a loop. */
static inline void note_operation(struct span_heap *heap, struct region *region, uint32_t start,
                                  uint32_t what)
{
    atomic_store_explicit(&heap->operations,
                          atomic_load_explicit(&heap->operations, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (heap->loops == NULL)
        return;
    if (__builtin_expect(span_remote_is_stream(&heap->remote), 0)) {
        span_loop_pass(heap->loops);
        return;
    }
    span_loop_note(heap->loops, region, start, what);
    heap->frozen = heap->loops->mode == LOOP_REPLAYING;
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
        note_operation(heap, taken.region, taken.start, length);
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
    note_operation(heap, region, start, length);
    heap_lock_leave(&heap->lock);
    return taken;
}

/* ---- put ---- */

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
    note_operation(heap, region, start, length | LOOP_PUT);
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

void span_heap_look_around(struct span_heap *heap)
{
    heap->now_ms = os_now_ms();
    bool alone = atomic_load_explicit(&heap->instance->more_heaps_count, memory_order_relaxed) == 0;
    if (!alone && (heap->puts - 1) % SPAN_HEAP_TELL_EVERY == 0)
        span_heap_tell_live(heap);
}

uint64_t span_heap_part(struct span_heap *heap)
{
    span_heap_enter_unlooped(heap);
    uint64_t bytes = span_heap_free_bytes_locked(heap);
    heap_lock_leave(&heap->lock);
    return bytes;
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
