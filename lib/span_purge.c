/* SPDX-License-Identifier: MIT */
/*
 * How a span heap gives memory back: pages of free spans that have been idle, and whole regions. A purge for age waits for the
 * end of the loop that the heap is in (span_loop.h), unless that has come to rest.
 *
 * Spans with something old in them are detached under the lock (their first word becomes LARGE_CACHED, so neighbours do not
 * merge with them), their old pages are discarded without it, and then they are put back with those pages clean.
 */
#include "cache.h"
#include "span_bins.h"
#include "span_check.h"
#include "span_pages.h"

enum { PURGE_RANGES = 64 };

struct range {
    struct region *region;
    uint32_t page, pages;
    bool discarded;
};

struct purge {
    struct span *detached; /* linked through next */
    size_t count;
    uint64_t bytes, wanted;
    struct range ranges[PURGE_RANGES];
};

/*
 * Adds the old pages of a free span to the purge, the highest first; true if there are any. What lies low is
 * what the next requests get.
 */
static bool collect_ranges(const struct span_heap *heap, struct purge *purge,
                           const struct span *span, uint32_t now_ms, uint32_t idle_ms)
{
    uint32_t first = pages_first(heap->page_shift, span->start);
    uint32_t page = pages_end(heap->page_shift, span->start + span->length);
    size_t before = purge->count;
    while (page > first && purge->count < PURGE_RANGES && purge->bytes < purge->wanted) {
        uint32_t end = page;
        uint64_t missing = (purge->wanted - purge->bytes + os_page_size() - 1) / os_page_size();
        while (page > first && end - page < missing &&
               pages_is_due(span->region, page - 1, now_ms, idle_ms)) {
            page--;
        }
        if (page == end) {
            page--;
            continue;
        }
        purge->ranges[purge->count++] = (struct range){span->region, page, end - page, false};
        purge->bytes += (uint64_t)(end - page) * os_page_size();
    }
    return purge->count != before;
}

/* A free span below the top takes in the rest of the top's page, so that the page can be given back whole. */
static void round_top(struct span_heap *heap, struct span *span)
{
    struct region *region = span->region;
    uint32_t rest = -region->top & ((1u << heap->page_shift) - 1);
    if (rest == 0)
        return;
    word_store(&region->words[region->top - 1], 0);
    span->length += rest;
    region->top += rest;
    heap->total_units += rest;
    span_heap_tell_use(heap);
    if (span->length == rest + 1)
        set_head(span);
    set_tail(span);
    bin_update(heap, span);
}

static void round_tops(struct span_heap *heap)
{
    for (struct region *region = heap->regions; region != NULL; region = region->next) {
        struct span *last =
            region->top > region_first_unit() ? free_before(region, region->top) : NULL;
        if (last != NULL)
            round_top(heap, last);
    }
}

/* Takes the span's old pages into the purge, if it has any, and the span out of the heap. */
static void collect_span(struct span_heap *heap, struct purge *purge, struct span *span,
                         uint32_t now_ms, uint32_t idle_ms)
{
    if (!collect_ranges(heap, purge, span, now_ms, idle_ms))
        return;
    detach(heap, span);
    word_store(&span->region->words[span->start], WORD(WORD_LARGE_CACHED) | span->length);
    span->next = purge->detached;
    purge->detached = span;
}

static bool is_full(const struct purge *purge)
{
    return purge->count == PURGE_RANGES || purge->bytes >= purge->wanted;
}

/* Detaches spans with old pages, the longest first. Called with the lock held. */
static void collect_longest(struct span_heap *heap, struct purge *purge, uint32_t now_ms,
                            uint32_t idle_ms)
{
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = SPAN_BINS; bin-- > 0;) {
            struct span *next;
            for (struct span *span = sets[set]->head[bin]; span != NULL; span = next) {
                next = span->next;
                if (is_full(purge))
                    return;
                collect_span(heap, purge, span, now_ms, idle_ms);
            }
        }
    }
}

static bool lies_higher(const struct span *a, const struct span *b)
{
    return a->region == b->region ? a->start > b->start : a->region > b->region;
}

/* The same, whatever their age, the highest first. */
static void collect_highest(struct span_heap *heap, struct purge *purge)
{
    struct span *highest[PURGE_RANGES];
    uint32_t count = 0, page_units = 1u << heap->page_shift;
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = span_bin_of(page_units); bin < SPAN_BINS; bin++) {
            for (struct span *span = sets[set]->head[bin]; span != NULL; span = span->next) {
                uint32_t at = count < PURGE_RANGES ? count++ : count;
                for (; at > 0 && lies_higher(span, highest[at - 1]); at--) {
                    if (at < PURGE_RANGES)
                        highest[at] = highest[at - 1];
                }
                if (at < PURGE_RANGES)
                    highest[at] = span;
            }
        }
    }
    for (uint32_t i = 0; i < count && !is_full(purge); i++)
        collect_span(heap, purge, highest[i], 0, 0);
}

static void purge_discard(struct purge *purge, struct larder *instance)
{
    size_t page_size = os_page_size();
    for (size_t i = 0; i < purge->count; i++) {
        struct range *range = &purge->ranges[i];
        char *ptr = region_address(range->region, 0) + range->page * page_size;
        range->discarded = backend_discard(instance, ptr, range->pages * page_size) == 0;
    }
}

/* Puts the spans back with what has become clean. Called with the lock held. Returns the bytes given back. */
static uint64_t purge_restore(struct span_heap *heap, struct purge *purge)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < purge->count; i++) {
        struct range *range = &purge->ranges[i];
        if (!range->discarded)
            continue;
        pages_mark_clean(range->region, range->page, range->pages);
        pages += range->pages;
    }
    heap->clean_pages += pages;
    span_heap_tell_use(heap);
    while (purge->detached != NULL) {
        struct span *span = purge->detached;
        struct region *region = span->region;
        purge->detached = span->next;
        uint32_t start = span->start, length = span->length;
        node_put(span);
        word_store(&region->words[start], 0);
        span_heap_insert_coalesced(heap, region, start, length,
                                   pages_count_clean(region, heap->page_shift, start, length));
    }
    uint64_t bytes = pages * os_page_size();
    heap->given_back_bytes += bytes;
    return bytes;
}

/* Tells the loops what has been given back in their region. */
static void note_discards(struct span_heap *heap, const struct purge *purge)
{
    for (size_t i = 0; i < purge->count; i++) {
        const struct range *range = &purge->ranges[i];
        if (range->discarded && range->region == heap->loops->region)
            span_loop_note_discard(heap->loops, range->page << heap->page_shift);
    }
}

/*
 * One round: collects up to `wanted` bytes, discards them and puts the spans back. Called with the lock held, which is given up
 * meanwhile. No loop is replayed while spans are missing.
 */
static uint64_t purge_round(struct span_heap *heap, struct purge *purge)
{
    if (purge->count == 0)
        return 0;
    heap->detached++;
    heap_lock_leave(&heap->lock);
    purge_discard(purge, heap->instance);
    span_heap_enter_settled(heap);
    heap->detached--;
    if (heap->loops != NULL)
        note_discards(heap, purge);
    return purge_restore(heap, purge);
}

static struct purge purge_begin(uint64_t wanted)
{
    struct purge purge;
    purge.detached = NULL;
    purge.count = 0;
    purge.bytes = 0;
    purge.wanted = wanted;
    return purge;
}

size_t span_heap_purge(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                       uint64_t keep_bytes)
{
    if (!backend_can_discard(heap->instance))
        return 0;
    uint64_t total = 0, given_back;
    span_heap_enter(heap);
    if (idle_ms != 0 && span_heap_in_loop(heap) && !os_is_idle(heap->now_ms, now_ms, idle_ms)) {
        heap->purge_waits = true;
        heap_lock_leave(&heap->lock);
        return 0;
    }
    span_heap_settle(heap);
    round_tops(heap);
    do { /* where the system refuses, do not insist */
        uint64_t bytes = span_heap_free_bytes_locked(heap);
        struct purge purge = purge_begin(bytes > keep_bytes ? bytes - keep_bytes : 0);
        collect_longest(heap, &purge, now_ms, idle_ms);
        given_back = purge_round(heap, &purge);
        total += given_back;
    } while (given_back != 0);
    span_check(heap);
    span_heap_resume(heap);
    heap_lock_leave(&heap->lock);
    return (size_t)total;
}

uint64_t span_heap_purge_highest(struct span_heap *heap, uint64_t bytes)
{
    if (!backend_can_discard(heap->instance))
        return 0;
    uint64_t total = 0, given_back = bytes;
    span_heap_enter(heap);
    if (!span_heap_in_loop(heap)) { /* else it would be lost: not for this */
        span_heap_settle(heap);
        round_tops(heap);
        while (given_back != 0 && total < bytes) {
            struct purge purge = purge_begin(bytes - total);
            collect_highest(heap, &purge);
            given_back = purge_round(heap, &purge);
            total += given_back;
        }
        span_check(heap);
        span_heap_resume(heap);
    }
    heap_lock_leave(&heap->lock);
    return total;
}

/* True if nothing in the region has been in use for idle_ms; *whole is the free span that it consists of, if any. */
static bool region_is_idle(struct region *region, uint32_t now_ms, uint32_t idle_ms,
                           struct span **whole)
{
    uint32_t first = region_first_unit();
    *whole = NULL;
    if (region->top == first)
        return true;
    uint32_t word = word_load(&region->words[first]);
    if (word_kind(word) != WORD_FREE)
        return false;
    *whole = &region->spans[word & WORD_INDEX_MASK];
    if (first + (*whole)->length != region->top)
        return false;
    uint32_t last = (region->top - 1) >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = first >> (CHUNK_SHIFT - UNIT_SHIFT); chunk <= last; chunk++) {
        if (!os_is_idle(*pages_idle_since(region, chunk), now_ms, idle_ms))
            return false;
    }
    return true;
}

/* Unlinks an idle region, or returns NULL. Called with the lock held. */
static struct region *detach_region(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                                    bool reserved_too, uint64_t *bytes)
{
    struct span *whole = NULL;
    struct region *region = heap->regions;
    while (region != NULL && ((region->reserved && !reserved_too) ||
                              !region_is_idle(region, now_ms, idle_ms, &whole))) {
        region = region->next;
    }
    if (region == NULL)
        return NULL;
    if (heap->loops != NULL)
        span_loop_forget(heap->loops);
    *bytes = 0;
    if (whole != NULL) {
        *bytes = ((uint64_t)whole->length << UNIT_SHIFT) -
                 ((uint64_t)whole->clean << (heap->page_shift + UNIT_SHIFT));
        detach(heap, whole);
        heap->clean_pages -= whole->clean;
        heap->total_units -= whole->length;
    }
    span_heap_tell_use(heap);
    if (region->prev != NULL)
        region->prev->next = region->next;
    if (region->next != NULL)
        region->next->prev = region->prev;
    if (heap->regions == region)
        heap->regions = region->next;
    if (atomic_load_explicit(&heap->remote.region, memory_order_relaxed) == region)
        atomic_store_explicit(&heap->remote.region, heap->regions, memory_order_relaxed);
    heap->region_count--;
    heap->reserved_bytes -= (uint64_t)region->units << UNIT_SHIFT;
    heap->given_back_bytes += *bytes;
    return region;
}

size_t span_heap_release_empty(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                               bool reserved_too)
{
    uint64_t released = 0;
    for (;;) {
        uint64_t bytes = 0;
        span_heap_enter(heap);
        if (idle_ms != 0 && span_heap_in_loop(heap)) { /* nor is its region empty */
            heap_lock_leave(&heap->lock);
            return (size_t)released;
        }
        span_heap_settle(heap);
        struct region *region = detach_region(heap, now_ms, idle_ms, reserved_too, &bytes);
        span_heap_resume(heap);
        heap_lock_leave(&heap->lock);
        if (region == NULL)
            return (size_t)released;
        region_release(region);
        released += bytes;
    }
}
