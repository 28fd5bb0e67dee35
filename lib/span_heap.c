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
 * Age is kept beside the spans, in chunks of 64 KiB: when a block is freed, its chunks note the time. A long idle stretch
 * thus ages although its neighbours are busy and merge with it all day. Purging detaches the spans with
 * something old in them (their first word becomes LARGE_CACHED, so neighbours do not merge with them), discards the old pages
 * without the lock, and puts the spans back.
 *
 * Memory that costs something is: the spans in use, plus the whole dirty pages of free spans. The latter are
 * counted on every insertion and removal, from lengths and clean counts.
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

enum { WALK_LIMIT = 24, PURGE_RANGES = 64 };

static unsigned bin_of(uint32_t length)
{
    if (length < 16) return length;
    unsigned doubling = 31u - (unsigned)__builtin_clz(length) - 4;
    return (doubling << 4) + (length >> doubling);
}

static uint32_t units_per_page(void)
{
    return (uint32_t)(os_page_size() >> UNIT_SHIFT);
}

/* Bytes of whole dirty pages inside a free span. */
static uint64_t dirty_bytes(const struct span *span)
{
    uint32_t per_page = units_per_page();
    uint32_t first = (span->start + per_page - 1) / per_page;
    uint32_t last = (span->start + span->length) / per_page;
    uint32_t whole = last > first ? last - first : 0;
    return (uint64_t)(whole - span->clean) * os_page_size();
}

static void bins_insert(struct span_bins *bins, struct span *span)
{
    unsigned bin = bin_of(span->length);
    struct span **at = &bins->head[bin];
    struct span *prev = NULL;
    for (int i = 0; i < WALK_LIMIT && *at != NULL; i++) {
        struct span *other = *at;
        if (other->length > span->length) break;
        if (other->length == span->length) {
            if (other->region == span->region ? other->start > span->start
                                              : other->region > span->region) {
                break;
            }
        }
        prev = other;
        at = &other->next;
    }
    span->bin = (uint16_t)bin;
    span->prev = prev;
    span->next = *at;
    if (*at != NULL) (*at)->prev = span;
    *at = span;
    bins->occupied[bin / 64] |= UINT64_C(1) << (bin % 64);
}

static void bins_remove(struct span_bins *bins, struct span *span)
{
    if (span->next != NULL) span->next->prev = span->prev;
    if (span->prev != NULL) {
        span->prev->next = span->next;
        return;
    }
    bins->head[span->bin] = span->next;
    if (span->next == NULL) {
        bins->occupied[span->bin / 64] &= ~(UINT64_C(1) << (span->bin % 64));
    }
}

/* The shortest span of at least `length` units, or NULL. */
static struct span *bins_best(const struct span_bins *bins, uint32_t length)
{
    unsigned bin = bin_of(length);
    struct span *span = bins->head[bin];
    for (int i = 0; i < WALK_LIMIT && span != NULL; i++, span = span->next) {
        if (span->length >= length) return span;
    }
    bin++;
    unsigned word = bin / 64;
    if (word >= SPAN_BINS / 64) return NULL;
    uint64_t bits = bins->occupied[word] & (~UINT64_C(0) << (bin % 64));
    while (bits == 0) {
        if (++word == SPAN_BINS / 64) return NULL;
        bits = bins->occupied[word];
    }
    return bins->head[word * 64 + (unsigned)__builtin_ctzll(bits)];
}

static void heap_insert(struct span_heap *heap, struct span *span)
{
    struct region *region = span->region;
    uint32_t index = (uint32_t)(span - region->spans);
    word_store(&region->words[span->start], WORD(WORD_FREE) | index);
    if (span->length > 1) {
        word_store(&region->words[span->start + span->length - 1], WORD(WORD_FREE_TAIL) | index);
    }
    span->in_dirty_bins = span->clean == 0;
    bins_insert(span->in_dirty_bins ? &heap->dirty : &heap->mixed, span);
    heap->free_dirty_bytes += dirty_bytes(span);
}

/* Takes a span out of its bin and clears its words. */
static void heap_remove(struct span_heap *heap, struct span *span)
{
    bins_remove(span->in_dirty_bins ? &heap->dirty : &heap->mixed, span);
    heap->free_dirty_bytes -= dirty_bytes(span);
    word_store(&span->region->words[span->start], 0);
    word_store(&span->region->words[span->start + span->length - 1], 0);
}

static struct span *node_get(struct region *region)
{
    struct span *span = region->unused;
    if (span != NULL) {
        region->unused = span->next;
    } else {
        span = &region->spans[region->spans_used++];
    }
    span->region = region;
    return span;
}

static void node_put(struct span *span)
{
    span->next = span->region->unused;
    span->region->unused = span;
}

/* Marks the pages that [start, start + length) touches as dirty; returns how many were clean. */
static uint32_t mark_dirty(struct region *region, uint32_t start, uint32_t length)
{
    uint32_t per_page = units_per_page();
    uint32_t page = start / per_page, last = (start + length - 1) / per_page;
    uint32_t clean = 0;
    while (page <= last) {
        uint32_t bit = page % 64;
        uint32_t count = last - page + 1 < 64 - bit ? last - page + 1 : 64 - bit;
        uint64_t mask = (count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1) << bit;
        uint64_t *word = &region->dirty[page / 64];
        clean += (uint32_t)__builtin_popcountll(~*word & mask);
        *word |= mask;
        page += count;
    }
    return clean;
}

/* Clean pages wholly inside [start, start + length). */
static uint32_t count_clean(const struct region *region, uint32_t start, uint32_t length)
{
    uint32_t per_page = units_per_page();
    uint32_t page = (start + per_page - 1) / per_page, end = (start + length) / per_page;
    uint32_t clean = 0;
    while (page < end) {
        uint32_t bit = page % 64;
        uint32_t count = end - page < 64 - bit ? end - page : 64 - bit;
        uint64_t mask = (count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1) << bit;
        clean += (uint32_t)__builtin_popcountll(~region->dirty[page / 64] & mask);
        page += count;
    }
    return clean;
}

void span_heap_init(struct span_heap *heap, uint32_t step, uint32_t front)
{
    memset(heap, 0, sizeof *heap);
    heap->step = step;
    heap->front = front;
}

static uint64_t used_units(struct span_heap *heap)
{
    return atomic_load_explicit(&heap->used_units, memory_order_relaxed);
}

/* Called with the lock held, after every change. */
static void note_change(struct span_heap *heap, int64_t units, int64_t live_delta)
{
    uint64_t used = used_units(heap) + (uint64_t)units;
    atomic_store_explicit(&heap->used_units, used, memory_order_relaxed);
    uint64_t held = (used << UNIT_SHIFT) + heap->free_dirty_bytes;
    if (held > heap->peak_held_bytes) heap->peak_held_bytes = held;
    heap->live_bytes += (uint64_t)live_delta;
    if ((int64_t)heap->live_bytes > (int64_t)heap->peak_live_bytes) {
        heap->peak_live_bytes = heap->live_bytes;
    }
}

/* First unit inside the span from which address plus front is a multiple of the alignment. */
static uint32_t aligned_start(const struct span_heap *heap, const struct span *span, size_t alignment)
{
    if (alignment == 0) return span->start;
    uintptr_t address = (uintptr_t)region_address(span->region, span->start) + heap->front;
    uintptr_t aligned = (address + alignment - 1) & ~(uintptr_t)(alignment - 1);
    return span->start + (uint32_t)((aligned - address) >> UNIT_SHIFT);
}

static struct span *find(struct span_heap *heap, uint32_t length)
{
    struct span *span = bins_best(&heap->dirty, length);
    return span != NULL ? span : bins_best(&heap->mixed, length);
}

bool span_heap_take(struct span_heap *heap, uint32_t length, size_t alignment, uint32_t word,
                    int64_t live_delta, struct taken_span *taken)
{
    bool large = word_kind(word) == WORD_LARGE_LIVE;
    uint32_t room = length;
    if (alignment != 0) room += (uint32_t)(alignment >> UNIT_SHIFT) - heap->step;
    spinlock_lock(&heap->lock);
    struct span *span = find(heap, room);
    if (span == NULL) {
        spinlock_unlock(&heap->lock);
        return false;
    }
    heap_remove(heap, span);
    struct region *region = span->region;
    uint32_t start = aligned_start(heap, span, alignment);
    uint32_t before = start - span->start;
    uint32_t after = span->length - before - length;
    if (large && after > 0 && after < DIRECT_MIN / UNIT) {
        length += after;
        after = 0;
    }
    uint32_t fresh = span->clean != 0 ? mark_dirty(region, start, length) : 0;
    uint32_t clean = span->clean - fresh;
    struct span *front = before != 0 ? span : NULL;
    if (front != NULL) {
        front->length = before;
        front->clean = clean != 0 ? count_clean(region, front->start, before) : 0;
        clean -= front->clean;
        heap_insert(heap, front);
    }
    if (after != 0) {
        struct span *rest = front == NULL ? span : node_get(region);
        rest->start = start + length;
        rest->length = after;
        rest->clean = clean;
        heap_insert(heap, rest);
        heap->splits++;
    } else if (front == NULL) {
        node_put(span);
    }
    if (large) {
        word |= length | (heap->generation++ << WORD_GENERATION_SHIFT & WORD_GENERATION_MASK);
    }
    word_store(&region->words[start], word);
    if (start + length > region->high_water) region->high_water = start + length;
    heap->fresh_pages += fresh;
    note_change(heap, length, live_delta);
    spinlock_unlock(&heap->lock);
    *taken = (struct taken_span){region, start, length, fresh};
    return true;
}

/* Merges [start, start + length) with its free neighbours and inserts the result. `clean` pages are inside. */
static void insert_coalesced(struct span_heap *heap, struct region *region, uint32_t start,
                             uint32_t length, uint32_t clean)
{
    struct span *node = NULL;
    uint32_t before = word_load(&region->words[start - 1]); /* the edge is never free */
    if (word_kind(before) == WORD_FREE_TAIL || word_kind(before) == WORD_FREE) {
        node = &region->spans[before & WORD_INDEX_MASK];
        heap_remove(heap, node);
        start = node->start;
        length += node->length;
        clean += node->clean;
        heap->coalesces++;
    }
    uint32_t after = word_load(&region->words[start + length]);
    if (word_kind(after) == WORD_FREE) {
        struct span *next = &region->spans[after & WORD_INDEX_MASK];
        heap_remove(heap, next);
        length += next->length;
        clean += next->clean;
        heap->coalesces++;
        if (node != NULL) {
            node_put(next);
        } else {
            node = next;
        }
    }
    if (node == NULL) node = node_get(region);
    node->start = start;
    node->length = length;
    node->clean = clean;
    heap_insert(heap, node);
}

static void note_idle(struct region *region, uint32_t start, uint32_t length, uint32_t now_ms)
{
    uint32_t last = (start + length - 1) >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = start >> (CHUNK_SHIFT - UNIT_SHIFT); chunk <= last; chunk++) {
        region->idle_since[chunk] = now_ms;
    }
}

bool span_heap_put(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                   uint32_t expected, uint32_t now_ms, int64_t live_delta)
{
    spinlock_lock(&heap->lock);
    word_t *word = &region->words[start];
    if (word_load(word) != expected) {
        spinlock_unlock(&heap->lock);
        return false;
    }
    word_store(word, 0);
    note_idle(region, start, length, now_ms);
    insert_coalesced(heap, region, start, length, 0);
    if (heap->free_dirty_bytes > heap->peak_dirty_bytes) {
        heap->peak_dirty_bytes = heap->free_dirty_bytes;
    }
    note_change(heap, -(int64_t)length, live_delta);
    spinlock_unlock(&heap->lock);
    return true;
}

bool span_heap_claim(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                     uint32_t expected)
{
    spinlock_lock(&heap->lock);
    word_t *word = &region->words[start];
    bool ours = word_load(word) == expected;
    if (ours) word_store(word, WORD(WORD_LARGE_CACHED) | length);
    spinlock_unlock(&heap->lock);
    return ours;
}

static void clear_dirty(struct region *region, uint32_t page, uint32_t pages)
{
    for (uint32_t last = page + pages; page < last; page++) {
        region->dirty[page / 64] &= ~(UINT64_C(1) << (page % 64));
    }
}

void span_heap_put_clean(struct span_heap *heap, struct region *region, uint32_t start,
                         uint32_t length)
{
    uint32_t per_page = units_per_page();
    spinlock_lock(&heap->lock);
    word_store(&region->words[start], 0);
    clear_dirty(region, start / per_page, length / per_page);
    insert_coalesced(heap, region, start, length, length / per_page);
    heap->given_back_bytes += (uint64_t)length << UNIT_SHIFT;
    note_change(heap, -(int64_t)length, 0);
    spinlock_unlock(&heap->lock);
}

void span_heap_add_region(struct span_heap *heap, struct region *region)
{
    uint32_t first = region_first_unit(), end = region_end_unit(region);
    spinlock_lock(&heap->lock);
    region->prev = NULL;
    region->next = heap->regions;
    if (heap->regions != NULL) heap->regions->prev = region;
    heap->regions = region;
    heap->region_count++;
    heap->reserved_bytes += (uint64_t)region->units << UNIT_SHIFT;
    struct span *span = node_get(region);
    span->start = first;
    span->length = end - first;
    span->clean = count_clean(region, first, end - first);
    heap_insert(heap, span);
    spinlock_unlock(&heap->lock);
}

/* ---- giving memory back ---- */

struct range {
    struct region *region;
    uint32_t page, pages;
    bool discarded;
};

struct purge {
    struct span *detached; /* linked through next */
    struct range ranges[PURGE_RANGES];
    size_t count;
    uint64_t bytes;
};

static bool page_is_idle(const struct region *region, uint32_t page, uint32_t now_ms, uint32_t idle_ms)
{
    uint32_t chunk = (uint32_t)(((size_t)page * os_page_size()) >> CHUNK_SHIFT);
    return os_is_idle(region->idle_since[chunk], now_ms, idle_ms);
}

static bool page_is_dirty(const struct region *region, uint32_t page)
{
    return (region->dirty[page / 64] >> (page % 64) & 1) != 0;
}

/* Adds the old pages of a free span to the purge; true if there are any. */
static bool collect_ranges(struct purge *purge, const struct span *span, uint32_t now_ms,
                           uint32_t idle_ms, uint64_t wanted)
{
    uint32_t per_page = units_per_page();
    uint32_t page = (span->start + per_page - 1) / per_page;
    uint32_t end = (span->start + span->length) / per_page;
    size_t before = purge->count;
    while (page < end && purge->count < PURGE_RANGES && purge->bytes < wanted) {
        if (!page_is_dirty(span->region, page) || !page_is_idle(span->region, page, now_ms, idle_ms)) {
            page++;
            continue;
        }
        uint32_t first = page;
        while (page < end && page_is_dirty(span->region, page) &&
               page_is_idle(span->region, page, now_ms, idle_ms)) {
            page++;
        }
        purge->ranges[purge->count++] = (struct range){span->region, first, page - first, false};
        purge->bytes += (uint64_t)(page - first) * os_page_size();
    }
    return purge->count != before;
}

/* Detaches spans with old pages. Called with the lock held. */
static void purge_collect(struct span_heap *heap, struct purge *purge, uint32_t now_ms,
                          uint32_t idle_ms, uint64_t wanted)
{
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = SPAN_BINS; bin-- > 0;) {
            struct span *next;
            for (struct span *span = sets[set]->head[bin]; span != NULL; span = next) {
                next = span->next;
                if (purge->count == PURGE_RANGES || purge->bytes >= wanted) return;
                if (dirty_bytes(span) == 0) continue;
                if (!collect_ranges(purge, span, now_ms, idle_ms, wanted)) continue;
                heap_remove(heap, span);
                word_store(&span->region->words[span->start],
                           WORD(WORD_LARGE_CACHED) | span->length);
                span->next = purge->detached;
                purge->detached = span;
            }
        }
    }
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
    uint64_t given_back = 0;
    for (size_t i = 0; i < purge->count; i++) {
        struct range *range = &purge->ranges[i];
        if (!range->discarded) continue;
        clear_dirty(range->region, range->page, range->pages);
        given_back += (uint64_t)range->pages * os_page_size();
    }
    while (purge->detached != NULL) {
        struct span *span = purge->detached;
        struct region *region = span->region;
        purge->detached = span->next;
        uint32_t start = span->start, length = span->length;
        node_put(span);
        word_store(&region->words[start], 0);
        insert_coalesced(heap, region, start, length, count_clean(region, start, length));
    }
    heap->given_back_bytes += given_back;
    return given_back;
}

size_t span_heap_purge(struct span_heap *heap, struct larder *instance, uint32_t now_ms,
                       uint32_t idle_ms, uint64_t keep_bytes)
{
    if (!backend_can_discard(instance)) return 0;
    uint64_t total = 0;
    for (;;) {
        struct purge purge = {.detached = NULL, .count = 0, .bytes = 0};
        spinlock_lock(&heap->lock);
        uint64_t dirty = heap->free_dirty_bytes;
        if (dirty > keep_bytes) purge_collect(heap, &purge, now_ms, idle_ms, dirty - keep_bytes);
        spinlock_unlock(&heap->lock);
        if (purge.count == 0) break;
        purge_discard(&purge, instance);
        spinlock_lock(&heap->lock);
        uint64_t given_back = purge_restore(heap, &purge);
        spinlock_unlock(&heap->lock);
        total += given_back;
        if (given_back == 0) break; /* the system refuses: do not insist */
    }
    return (size_t)total;
}

static bool region_is_empty(struct region *region, uint32_t now_ms, uint32_t idle_ms,
                            struct span **whole)
{
    uint32_t first = region_first_unit();
    uint32_t word = word_load(&region->words[first]);
    if (word_kind(word) != WORD_FREE) return false;
    *whole = &region->spans[word & WORD_INDEX_MASK];
    if ((*whole)->length != region_end_unit(region) - first) return false;
    uint32_t chunks = region->high_water >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = 0; chunk <= chunks; chunk++) {
        uint32_t since = region->idle_since[chunk];
        if (since != 0 && !os_is_idle(since, now_ms, idle_ms)) return false;
    }
    return true;
}

size_t span_heap_release_empty(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                               bool reserved_too)
{
    size_t released = 0;
    for (;;) {
        struct span *whole = NULL;
        spinlock_lock(&heap->lock);
        struct region *region = heap->regions;
        while (region != NULL &&
               ((region->reserved && !reserved_too) ||
                !region_is_empty(region, now_ms, idle_ms, &whole))) {
            region = region->next;
        }
        if (region != NULL) {
            uint64_t dirty = dirty_bytes(whole);
            heap_remove(heap, whole);
            if (region->prev != NULL) region->prev->next = region->next;
            if (region->next != NULL) region->next->prev = region->prev;
            if (heap->regions == region) heap->regions = region->next;
            heap->region_count--;
            heap->reserved_bytes -= (uint64_t)region->units << UNIT_SHIFT;
            heap->given_back_bytes += dirty;
            released += dirty;
        }
        spinlock_unlock(&heap->lock);
        if (region == NULL) return released;
        region_release(region);
    }
}

/* ---- figures ---- */

uint64_t span_heap_used_bytes(struct span_heap *heap)
{
    return used_units(heap) << UNIT_SHIFT;
}

uint64_t span_heap_largest_free(struct span_heap *heap)
{
    uint32_t largest = 0;
    spinlock_lock(&heap->lock);
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = SPAN_BINS; bin-- > 0;) {
            const struct span *span = sets[set]->head[bin];
            if (span == NULL) continue;
            for (; span != NULL; span = span->next) {
                if (span->length > largest) largest = span->length;
            }
            break;
        }
    }
    spinlock_unlock(&heap->lock);
    return (uint64_t)largest << UNIT_SHIFT;
}

uint64_t span_heap_metadata_bytes(struct span_heap *heap)
{
    uint64_t bytes = 0;
    spinlock_lock(&heap->lock);
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        bytes += region_metadata_bytes(region);
    }
    spinlock_unlock(&heap->lock);
    return bytes;
}
