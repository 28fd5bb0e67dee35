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
 * Lock order: a depot's lock may be held when this one is taken; region->runs_lock and the map's locks are never held
 * together with it.
 *
 * Source: P. R. Wilson et al., "Dynamic Storage Allocation: A Survey and Critical Review", 1995 (best fit
 * with address order); M. Masmano et al., "TLSF", 2004 (bitmap over bins); jemalloc (dirty before clean).
 */
#include "span_heap.h"

#include <assert.h>
#include <string.h>

#include "cache.h"
#include "thread_state.h"

enum { WALK_LIMIT = 24, PURGE_RANGES = 64 };

static unsigned bin_of(uint32_t length)
{
    unsigned doubling = 31u - (unsigned)__builtin_clz(length | 16) - 4;
    return (doubling << 4) + (length >> doubling);
}

static inline void enter(struct span_heap *heap)
{
    /* A thread past its teardown is no owner of anything, so its address does no harm on the short way. */
    if (!heap_lock_enter_biased(&heap->lock, &thread_state)) {
        heap_lock_enter_slow(&heap->lock, thread_self());
    }
}

/* ---- bins ---- */

static bool comes_before(const struct span *a, const struct span *b)
{
    if (a->length != b->length) return a->length < b->length;
    return a->region == b->region ? a->start < b->start : a->region < b->region;
}

static inline void bins_insert(struct span_bins *bins, struct span *span, unsigned bin)
{
    struct span *next = bins->head[bin], *prev = NULL;
    for (int i = 0; i < WALK_LIMIT && next != NULL && comes_before(next, span); i++) {
        prev = next;
        next = next->next;
    }
    span->bin = (uint16_t)bin;
    span->prev = prev;
    span->next = next;
    if (next != NULL) next->prev = span;
    if (prev != NULL) {
        prev->next = span;
        return;
    }
    bins->head[bin] = span;
    if (next == NULL) {
        bins->occupied[bin / 64] |= UINT64_C(1) << (bin % 64);
        bins->words |= 1u << (bin / 64);
    }
}

static inline void bins_remove(struct span_bins *bins, struct span *span)
{
    struct span *next = span->next, *prev = span->prev;
    if (next != NULL) next->prev = prev;
    if (prev != NULL) {
        prev->next = next;
        return;
    }
    bins->head[span->bin] = next;
    if (next == NULL) {
        unsigned word = span->bin / 64u;
        bins->occupied[word] &= ~(UINT64_C(1) << (span->bin % 64));
        if (bins->occupied[word] == 0) bins->words &= ~(1u << word);
    }
}

/* The shortest span of at least `length` units, or NULL. */
static inline struct span *bins_best(const struct span_bins *bins, uint32_t length)
{
    if (bins->words == 0) return NULL;
    unsigned bin = bin_of(length);
    struct span *span = bins->head[bin];
    for (int i = 0; i < WALK_LIMIT && span != NULL; i++, span = span->next) {
        if (span->length >= length) return span;
    }
    bin++;
    unsigned word = bin / 64;
    assert(word < SPAN_BINS / 64); /* the longest span's bin is well below SPAN_BINS */
    uint64_t bits = bins->occupied[word] & (~UINT64_C(0) << (bin % 64));
    if (bits == 0) {
        uint32_t words = bins->words & (~UINT32_C(0) << word << 1);
        if (words == 0) return NULL;
        word = (unsigned)__builtin_ctz(words);
        bits = bins->occupied[word];
    }
    return bins->head[word * 64 + (unsigned)__builtin_ctzll(bits)];
}

static inline struct span_bins *bins_for(struct span_heap *heap, const struct span *span)
{
    return span->in_dirty_bins ? &heap->dirty : &heap->mixed;
}

static inline void bin_insert(struct span_heap *heap, struct span *span)
{
    span->in_dirty_bins = span->clean == 0;
    bins_insert(bins_for(heap, span), span, bin_of(span->length));
}

static inline void bin_remove(struct span_heap *heap, struct span *span)
{
    bins_remove(bins_for(heap, span), span);
}

/* After a change of length or clean: into the bin where it belongs now, which often is the same. */
static inline void bin_update(struct span_heap *heap, struct span *span)
{
    bool alone = span->next == NULL && span->prev == NULL;
    if (alone && span->bin == bin_of(span->length) && span->in_dirty_bins == (span->clean == 0)) return;
    bin_remove(heap, span);
    bin_insert(heap, span);
}

/* ---- nodes and words ---- */

static inline struct span *node_get(struct region *region)
{
    struct span *span = region->unused;
    if (span != NULL) {
        region->unused = span->next;
    } else {
        span = &region->spans[region->spans_used];
        span->index = region->spans_used++;
        span->region = region;
    }
    return span;
}

static inline void node_put(struct span *span)
{
    span->next = span->region->unused;
    span->region->unused = span;
}

static inline void set_head(struct span *span)
{
    word_store(&span->region->words[span->start], WORD(WORD_FREE) | span->index);
}

static inline void set_tail(struct span *span)
{
    if (span->length == 1) return;
    word_store(&span->region->words[span->start + span->length - 1],
               WORD(WORD_FREE_TAIL) | span->index);
}

/* Takes a whole span out of its bin and clears its words. */
static void detach(struct span_heap *heap, struct span *span)
{
    bin_remove(heap, span);
    word_store(&span->region->words[span->start], 0);
    word_store(&span->region->words[span->start + span->length - 1], 0);
}

/* ---- clean pages ---- */

/* The whole pages inside [start, end): first and one past the last. */
static uint32_t first_page(const struct span_heap *heap, uint32_t start)
{
    return (start + (1u << heap->page_shift) - 1) >> heap->page_shift;
}

static uint32_t end_page(const struct span_heap *heap, uint32_t end)
{
    return end >> heap->page_shift;
}

static uint64_t page_mask(uint32_t page, uint32_t end, uint32_t *count)
{
    uint32_t bit = page % 64;
    *count = end - page < 64 - bit ? end - page : 64 - bit;
    return (*count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << *count) - 1) << bit;
}

/* Marks the pages that [start, start + length) touches as dirty; returns how many were clean. */
static uint32_t mark_dirty(const struct span_heap *heap, struct region *region, uint32_t start,
                           uint32_t length)
{
    uint32_t page = start >> heap->page_shift;
    uint32_t end = ((start + length - 1) >> heap->page_shift) + 1;
    uint32_t clean = 0, count;
    for (; page < end; page += count) {
        uint64_t mask = page_mask(page, end, &count);
        uint64_t *word = &region->dirty[page / 64];
        clean += (uint32_t)__builtin_popcountll(~*word & mask);
        *word |= mask;
    }
    return clean;
}

static void mark_clean(struct region *region, uint32_t page, uint32_t pages)
{
    uint32_t count;
    for (uint32_t end = page + pages; page < end; page += count) {
        region->dirty[page / 64] &= ~page_mask(page, end, &count);
    }
}

/* Clean pages wholly inside [start, start + length). */
static uint32_t count_clean(const struct span_heap *heap, const struct region *region, uint32_t start,
                            uint32_t length)
{
    uint32_t page = first_page(heap, start), end = end_page(heap, start + length);
    uint32_t clean = 0, count;
    for (; page < end; page += count) {
        uint64_t mask = page_mask(page, end, &count);
        clean += (uint32_t)__builtin_popcountll(~region->dirty[page / 64] & mask);
    }
    return clean;
}

/* ---- figures that every change keeps ---- */

/* Bytes of touched pages in free spans. */
static uint64_t free_bytes(struct span_heap *heap)
{
    return ((heap->total_units - span_heap_used_units(heap)) << UNIT_SHIFT) -
           (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
}

/* After `pages` have begun to cost. */
static void note_fresh(struct span_heap *heap, uint32_t pages)
{
    heap->fresh_pages += pages;
    uint64_t held = (heap->total_units << UNIT_SHIFT) -
                    (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
    if (held > heap->peak_held_bytes) heap->peak_held_bytes = held;
}

static void note_idle(struct region *region, uint32_t start, uint32_t length, uint32_t now_ms)
{
    uint32_t last = (start + length - 1) >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = start >> (CHUNK_SHIFT - UNIT_SHIFT); chunk <= last; chunk++) {
        region->idle_since[chunk] = now_ms;
    }
}

/* ---- neighbours ---- */

static inline struct span *free_before(const struct region *region, uint32_t start)
{
    uint32_t word = word_load(&region->words[start - 1]); /* the edge is never free */
    bool is_free = word_kind(word) == WORD_FREE_TAIL || word_kind(word) == WORD_FREE;
    return is_free ? &region->spans[word & WORD_INDEX_MASK] : NULL;
}

static inline struct span *free_after(const struct region *region, uint32_t end)
{
    uint32_t word = word_load(&region->words[end]);
    return word_kind(word) == WORD_FREE ? &region->spans[word & WORD_INDEX_MASK] : NULL;
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
}

/* First unit from `start` on at which address plus front is a multiple of the alignment. */
static uint32_t aligned_start(const struct span_heap *heap, const struct region *region,
                              uint32_t start, size_t alignment)
{
    uintptr_t address = (uintptr_t)region_address(region, start) + heap->front;
    uintptr_t aligned = (address + alignment - 1) & ~(uintptr_t)(alignment - 1);
    return start + (uint32_t)((aligned - address) >> UNIT_SHIFT);
}

/* Makes [start, end) a free span without looking at its neighbours. */
static void insert_new(struct span_heap *heap, struct region *region, uint32_t start, uint32_t end)
{
    struct span *span = node_get(region);
    span->start = start;
    span->length = end - start;
    span->clean = count_clean(heap, region, start, end - start);
    set_head(span);
    set_tail(span);
    bin_insert(heap, span);
}

/* The end of a take: `fresh` pages begin to cost. */
static inline struct taken_span finish_take(struct span_heap *heap, struct region *region,
                                            uint32_t start, uint32_t length, uint32_t fresh,
                                            uint32_t word, int64_t live_delta)
{
    if (word_kind(word) == WORD_LARGE_LIVE) word = span_heap_large_word(heap, length);
    word_store(&region->words[start], word);
    span_heap_note_take(heap, length, live_delta);
    return (struct taken_span){region, start, fresh};
}

/* Takes from a span that needs care: an alignment, or clean pages. */
static struct taken_span take_part(struct span_heap *heap, struct span *span, uint32_t length,
                                   size_t alignment, uint32_t word, int64_t live_delta)
{
    struct region *region = span->region;
    uint32_t first = span->start, end = first + span->length;
    uint32_t start = alignment != 0 ? aligned_start(heap, region, first, alignment) : first;
    detach(heap, span);
    heap->clean_pages -= span->clean;
    uint32_t fresh = span->clean != 0 ? mark_dirty(heap, region, start, length) : 0;
    /* what remains, and what of it is clean, is counted anew */
    uint64_t clean = span->clean - fresh;
    node_put(span);
    if (start != first) insert_new(heap, region, first, start);
    if (start + length != end) insert_new(heap, region, start + length, end);
    heap->clean_pages += clean;
    heap->splits++;
    note_fresh(heap, fresh);
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
        if (start > region_end_unit(region) || length > region_end_unit(region) - start) continue;
        uint32_t old_clean = 0;
        if (below != NULL) {
            old_clean = below->clean;
            detach(heap, below);
            node_put(below);
        }
        /* an aligned start may lie above the old top, the span itself always ends above it: nothing shorter fits below */
        region->top = start + length;
        heap->total_units += region->top - top;
        uint32_t fresh = mark_dirty(heap, region, start, length);
        heap->clean_pages -= old_clean;
        if (start != first) {
            insert_new(heap, region, first, start);
            heap->clean_pages += count_clean(heap, region, first, start - first);
        }
        note_fresh(heap, fresh);
        return finish_take(heap, region, start, length, fresh, word, live_delta);
    }
    return (struct taken_span){NULL, 0, 0};
}

/* ---- loops ---- */

/* Puts an operation on record, which may complete a loop. */
static inline void note_operation(struct span_heap *heap, struct region *region, uint32_t start,
                                  uint32_t what)
{
    if (heap->loops == NULL) return;
    span_loop_note(heap->loops, region, start, what);
    heap->frozen = heap->loops->mode == LOOP_REPLAYING;
}

struct out {
    uint32_t start, length;
};

/* What the broken round has out at the moment, by address; the words of what it has not are cleared. */
static uint32_t collect_out(const struct span_heap *heap, const struct loop_op *ops, uint32_t count,
                            struct out *out)
{
    word_t *words = heap->loops->region->words;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t start = ops[i].start, length = ops[i].what;
        uint32_t word = word_load(&words[start]);
        if ((length & LOOP_PUT) != 0 || word_kind(word) != WORD_LARGE_LIVE ||
            (word & WORD_INDEX_MASK) != length) {
            continue;
        }
        uint32_t at = found;
        while (at > 0 && out[at - 1].start > start) at--;
        if (at > 0 && out[at - 1].start == start) continue; /* taken, put and taken again */
        memmove(&out[at + 1], &out[at], (found - at) * sizeof *out);
        out[at] = (struct out){start, length};
        found++;
    }
    return found;
}

/* Words that replayed blocks have left behind, and the time at which their places were last in use. */
static void clear_replayed(struct span_heap *heap)
{
    struct span_loops *loops = heap->loops;
    word_t *words = loops->region->words;
    for (uint32_t i = 0; i < loops->loops_count; i++) {
        const struct loop *loop = &loops->loops[i];
        if (!loop->used) continue;
        for (uint32_t j = loop->first; j < loop->first + loop->count; j++) {
            const struct loop_op *op = &loops->ops[j];
            if ((op->what & LOOP_PUT) != 0) continue;
            note_idle(loops->region, op->start, op->what, heap->now_ms);
            if (word_kind(word_load(&words[op->start])) == WORD_LARGE_CACHED) {
                word_store(&words[op->start], 0);
            }
        }
    }
}

/* The first of the sorted blocks that lies at or behind `start`. */
static uint32_t first_at(const struct out *out, uint32_t count, uint32_t start)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (out[middle].start < start) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Replaces a free span, which is in no bin any more, by what the blocks leave of it. */
static void cut_blocks(struct span_heap *heap, struct span *span, const struct out *out, uint32_t count)
{
    struct region *region = span->region;
    uint32_t start = span->start, end = start + span->length;
    word_t *last = &region->words[end - 1];
    if (word_kind(word_load(last)) == WORD_FREE_TAIL) word_store(last, 0);
    if (word_kind(word_load(&region->words[start])) == WORD_FREE) word_store(&region->words[start], 0);
    node_put(span);
    for (uint32_t i = first_at(out, count, start); i < count && out[i].start < end; i++) {
        if (out[i].start != start) insert_new(heap, region, start, out[i].start);
        start = out[i].start + out[i].length;
    }
    if (start != end) insert_new(heap, region, start, end);
}

/*
 * The heap becomes what it would be without loops. Words of blocks that are live are not written, not even for a
 * moment: their owners may be reading them.
 */
static __attribute__((noinline)) void settle(struct span_heap *heap)
{
    if (!heap->frozen) return;
    struct region *region = heap->loops->region;
    struct out out[LOOP_MAX_OUT];
    struct span *hit = NULL; /* spans with blocks inside, linked through next */
    clear_replayed(heap);
    const struct loop_op *ops;
    uint32_t done = span_loop_unfreeze(heap->loops, &ops);
    heap->frozen = false;
    uint32_t count = collect_out(heap, ops, done, out);
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
            struct span *next;
            for (struct span *span = sets[set]->head[bin]; span != NULL; span = next) {
                next = span->next;
                uint32_t i = first_at(out, count, span->start);
                bool inside = span->region == region && i < count &&
                              out[i].start < span->start + span->length;
                if (!inside) {
                    set_head(span);
                    set_tail(span);
                    continue;
                }
                bin_remove(heap, span);
                span->next = hit;
                hit = span;
            }
        }
    }
    while (hit != NULL) {
        struct span *span = hit;
        hit = span->next;
        cut_blocks(heap, span, out, count);
    }
}

/* For everything but takes and puts: the true heap, the lock held. */
static void enter_settled(struct span_heap *heap)
{
    enter(heap);
    settle(heap);
}

/* The same, about to change what is clean or where regions are: no loop is valid after that. */
static void enter_unlooped(struct span_heap *heap)
{
    enter_settled(heap);
    if (heap->loops != NULL) span_loop_forget(heap->loops);
}

/* The rare ways: an alignment, or no fit without touching fresh pages. Called with the lock held. */
static __attribute__((noinline)) struct taken_span take_slow(struct span_heap *heap, uint32_t length,
                                                             size_t alignment, uint32_t word,
                                                             int64_t live_delta)
{
    uint32_t room = length;
    if (alignment != 0) room += (uint32_t)(alignment >> UNIT_SHIFT) - heap->step;
    struct span *span = bins_best(&heap->dirty, room);
    if (span == NULL) span = bins_best(&heap->mixed, room);
    struct taken_span taken = span != NULL
                                  ? take_part(heap, span, length, alignment, word, live_delta)
                                  : take_from_top(heap, length, alignment, word, live_delta);
    if (taken.region != NULL) note_operation(heap, taken.region, taken.start, length);
    heap_lock_leave(&heap->lock);
    return taken;
}

/* While the heap is frozen: the take that the loop expects. */
static inline bool take_from_loop(struct span_heap *heap, uint32_t length, size_t alignment,
                                  uint32_t word, int64_t live_delta, struct taken_span *taken)
{
    uint32_t start;
    if (alignment == 0 && span_loop_take(heap->loops, length, &start)) {
        *taken = finish_take(heap, heap->loops->region, start, length, 0, word, live_delta);
        return true;
    }
    settle(heap);
    return false;
}

struct taken_span span_heap_take(struct span_heap *heap, uint32_t length, size_t alignment,
                                 uint32_t word, int64_t live_delta)
{
    struct taken_span taken;
    enter(heap);
    if (heap->frozen && take_from_loop(heap, length, alignment, word, live_delta, &taken)) {
        heap_lock_leave(&heap->lock);
        return taken;
    }
    struct span *span = alignment == 0 ? bins_best(&heap->dirty, length) : NULL;
    if (__builtin_expect(span == NULL, 0)) return take_slow(heap, length, alignment, word, live_delta);
    struct region *region = span->region;
    uint32_t start = span->start;
    if (span->length != length) {
        span->start = start + length;
        span->length -= length;
        set_head(span);
        bin_update(heap, span);
        heap->splits++;
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

/* Merges [start, start + length), the first word of which is 0, with its free neighbours. `clean` pages are inside. */
static void insert_coalesced(struct span_heap *heap, struct region *region, uint32_t start,
                             uint32_t length, uint32_t clean)
{
    struct span *before = free_before(region, start);
    struct span *after = free_after(region, start + length);
    if (after != NULL) {
        word_store(&region->words[after->start], 0);
        heap->coalesces++;
    }
    if (before != NULL) {
        if (before->length > 1) word_store(&region->words[start - 1], 0);
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

bool span_heap_put(struct span_heap *heap, struct region *region, uint32_t start,
                   uint32_t length, uint32_t expected, int64_t live_delta)
{
    enter(heap);
    word_t *word = &region->words[start];
    if (__builtin_expect(word_load(word) != expected, 0)) {
        heap_lock_leave(&heap->lock);
        return false;
    }
    if (heap->frozen) {
        if (region == heap->loops->region && span_loop_put(heap->loops, start, length)) {
            word_store(word, WORD(WORD_LARGE_CACHED) | length);
            if (heap->puts++ % SPAN_HEAP_CLOCK_EVERY == 0) heap->now_ms = os_now_ms();
            span_heap_note_put(heap, length, live_delta);
            heap_lock_leave(&heap->lock);
            return true;
        }
        settle(heap);
    }
    word_store(word, 0);
    if (heap->puts++ % SPAN_HEAP_CLOCK_EVERY == 0) {
        heap->now_ms = os_now_ms();
        if (free_bytes(heap) > heap->peak_free_bytes) heap->peak_free_bytes = free_bytes(heap);
    }
    note_idle(region, start, length, heap->now_ms);
    insert_coalesced(heap, region, start, length, 0);
    span_heap_note_put(heap, length, live_delta);
    note_operation(heap, region, start, length | LOOP_PUT);
    heap_lock_leave(&heap->lock);
    return true;
}

void span_heap_note_live(struct span_heap *heap, int64_t live_delta)
{
    enter(heap);
    span_heap_note_live_locked(heap, live_delta);
    heap_lock_leave(&heap->lock);
}

bool span_heap_claim(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                     uint32_t expected)
{
    enter_unlooped(heap);
    word_t *word = &region->words[start];
    bool ours = word_load(word) == expected;
    if (ours) word_store(word, WORD(WORD_LARGE_CACHED) | length);
    heap_lock_leave(&heap->lock);
    return ours;
}

void span_heap_put_clean(struct span_heap *heap, struct region *region, uint32_t start,
                         uint32_t length)
{
    uint32_t pages = length >> heap->page_shift;
    enter_unlooped(heap);
    word_store(&region->words[start], 0);
    mark_clean(region, start >> heap->page_shift, pages);
    heap->clean_pages += pages;
    insert_coalesced(heap, region, start, length, pages);
    heap->given_back_bytes += (uint64_t)length << UNIT_SHIFT;
    span_heap_note_put(heap, length, 0);
    heap_lock_leave(&heap->lock);
}

void span_heap_add_region(struct span_heap *heap, struct region *region)
{
    enter_settled(heap);
    region->prev = NULL;
    region->next = heap->regions;
    if (heap->regions != NULL) heap->regions->prev = region;
    heap->regions = region;
    heap->region_count++;
    heap->reserved_bytes += (uint64_t)region->units << UNIT_SHIFT;
    heap_lock_leave(&heap->lock);
}

/* ---- giving memory back ---- */

struct range {
    struct region *region;
    uint32_t page, pages;
    bool discarded;
};

struct purge {
    struct span *detached; /* linked through next */
    size_t count;
    uint64_t bytes;
    struct range ranges[PURGE_RANGES];
};

static bool is_due(const struct region *region, uint32_t page, uint32_t now_ms, uint32_t idle_ms)
{
    if ((region->dirty[page / 64] >> (page % 64) & 1) == 0) return false;
    uint32_t chunk = (uint32_t)(((size_t)page * os_page_size()) >> CHUNK_SHIFT);
    return os_is_idle(region->idle_since[chunk], now_ms, idle_ms);
}

/* Adds the old pages of a free span to the purge; true if there are any. */
static bool collect_ranges(const struct span_heap *heap, struct purge *purge, const struct span *span,
                           uint32_t now_ms, uint32_t idle_ms, uint64_t wanted)
{
    uint32_t page = first_page(heap, span->start);
    uint32_t end = end_page(heap, span->start + span->length);
    size_t before = purge->count;
    while (page < end && purge->count < PURGE_RANGES && purge->bytes < wanted) {
        uint32_t first = page;
        uint64_t missing = (wanted - purge->bytes + os_page_size() - 1) / os_page_size();
        while (page < end && page - first < missing && is_due(span->region, page, now_ms, idle_ms)) {
            page++;
        }
        if (page == first) {
            page++;
            continue;
        }
        purge->ranges[purge->count++] = (struct range){span->region, first, page - first, false};
        purge->bytes += (uint64_t)(page - first) * os_page_size();
    }
    return purge->count != before;
}

/* A free span below the top takes in the rest of the top's page, so that the page can be given back whole. */
static void round_top(struct span_heap *heap, struct span *span)
{
    struct region *region = span->region;
    uint32_t rest = -region->top & ((1u << heap->page_shift) - 1);
    if (rest == 0) return;
    word_store(&region->words[region->top - 1], 0);
    span->length += rest;
    region->top += rest;
    heap->total_units += rest;
    if (span->length == rest + 1) set_head(span);
    set_tail(span);
    bin_update(heap, span);
}

static void round_tops(struct span_heap *heap)
{
    for (struct region *region = heap->regions; region != NULL; region = region->next) {
        struct span *last = region->top > region_first_unit() ? free_before(region, region->top) : NULL;
        if (last != NULL) round_top(heap, last);
    }
}

/* Detaches spans with old pages, the longest first. Called with the lock held. */
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
                if (!collect_ranges(heap, purge, span, now_ms, idle_ms, wanted)) continue;
                if (heap->loops != NULL) span_loop_forget(heap->loops);
                detach(heap, span);
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
    uint64_t pages = 0;
    for (size_t i = 0; i < purge->count; i++) {
        struct range *range = &purge->ranges[i];
        if (!range->discarded) continue;
        mark_clean(range->region, range->page, range->pages);
        pages += range->pages;
    }
    heap->clean_pages += pages;
    while (purge->detached != NULL) {
        struct span *span = purge->detached;
        struct region *region = span->region;
        purge->detached = span->next;
        uint32_t start = span->start, length = span->length;
        node_put(span);
        word_store(&region->words[start], 0);
        insert_coalesced(heap, region, start, length, count_clean(heap, region, start, length));
    }
    uint64_t bytes = pages * os_page_size();
    heap->given_back_bytes += bytes;
    return bytes;
}

size_t span_heap_purge(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms, uint64_t keep_bytes)
{
    if (!backend_can_discard(heap->instance)) return 0;
    uint64_t total = 0;
    for (;;) {
        struct purge purge;
        purge.detached = NULL;
        purge.count = 0;
        purge.bytes = 0;
        enter_settled(heap);
        round_tops(heap);
        uint64_t bytes = free_bytes(heap);
        if (bytes > keep_bytes) purge_collect(heap, &purge, now_ms, idle_ms, bytes - keep_bytes);
        heap_lock_leave(&heap->lock);
        if (purge.count == 0) break;
        purge_discard(&purge, heap->instance);
        enter_unlooped(heap);
        uint64_t given_back = purge_restore(heap, &purge);
        heap_lock_leave(&heap->lock);
        total += given_back;
        if (given_back == 0) break; /* the system refuses: do not insist */
    }
    return (size_t)total;
}

/* True if nothing in the region has been in use for idle_ms; *whole is the free span that it consists of, if any. */
static bool region_is_idle(struct region *region, uint32_t now_ms, uint32_t idle_ms,
                           struct span **whole)
{
    uint32_t first = region_first_unit();
    *whole = NULL;
    if (region->top == first) return true;
    uint32_t word = word_load(&region->words[first]);
    if (word_kind(word) != WORD_FREE) return false;
    *whole = &region->spans[word & WORD_INDEX_MASK];
    if (first + (*whole)->length != region->top) return false;
    uint32_t last = (region->top - 1) >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = first >> (CHUNK_SHIFT - UNIT_SHIFT); chunk <= last; chunk++) {
        if (!os_is_idle(region->idle_since[chunk], now_ms, idle_ms)) return false;
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
    if (region == NULL) return NULL;
    if (heap->loops != NULL) span_loop_forget(heap->loops);
    *bytes = 0;
    if (whole != NULL) {
        *bytes = ((uint64_t)whole->length << UNIT_SHIFT) -
                 ((uint64_t)whole->clean << (heap->page_shift + UNIT_SHIFT));
        detach(heap, whole);
        heap->clean_pages -= whole->clean;
        heap->total_units -= whole->length;
    }
    if (region->prev != NULL) region->prev->next = region->next;
    if (region->next != NULL) region->next->prev = region->prev;
    if (heap->regions == region) heap->regions = region->next;
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
        enter_settled(heap);
        struct region *region = detach_region(heap, now_ms, idle_ms, reserved_too, &bytes);
        heap_lock_leave(&heap->lock);
        if (region == NULL) return (size_t)released;
        region_release(region);
        released += bytes;
    }
}

/* ---- figures ---- */

uint64_t span_heap_free_bytes(struct span_heap *heap)
{
    enter(heap);
    if (!heap->lock.by_bias) heap->lock.spin.acquisitions--;
    uint64_t bytes = free_bytes(heap);
    heap_lock_leave(&heap->lock);
    return bytes;
}

void span_heap_lock_settled(struct span_heap *heap)
{
    enter_settled(heap);
}

uint64_t span_heap_used_bytes(struct span_heap *heap)
{
    return span_heap_used_units(heap) << UNIT_SHIFT;
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
                if (touched > largest) largest = touched;
            }
        }
    }
    return largest;
}

void span_heap_add_figures(struct span_heap *heap, struct span_heap_figures *figures)
{
    enter_settled(heap);
    if (!heap->lock.by_bias) heap->lock.spin.acquisitions--; /* looking does not count */
    if (free_bytes(heap) > heap->peak_free_bytes) heap->peak_free_bytes = free_bytes(heap);
    uint64_t largest = (uint64_t)largest_free(heap) << UNIT_SHIFT;
    if (largest > figures->largest_free) figures->largest_free = largest;
    figures->used_bytes += span_heap_used_units(heap) << UNIT_SHIFT;
    figures->free_bytes += free_bytes(heap);
    figures->reserved_bytes += heap->reserved_bytes;
    figures->regions += heap->region_count;
    for (const struct region *region = heap->regions; region != NULL; region = region->next) {
        figures->metadata_bytes += region_metadata_bytes(region);
    }
    figures->peak_live_bytes += heap->peak_live_bytes;
    figures->peak_held_bytes += heap->peak_held_bytes;
    figures->peak_free_bytes += heap->peak_free_bytes;
    figures->splits += heap->splits;
    figures->coalesces += heap->coalesces;
    figures->given_back_bytes += heap->given_back_bytes;
    figures->lock_acquisitions += heap->lock.spin.acquisitions;
    figures->lock_contended += heap->lock.spin.contended;
    figures->lock_revocations += heap->lock.revocations;
    heap_lock_leave(&heap->lock);
}
