/* SPDX-License-Identifier: MIT */
/*
 * The parts of a span heap that its files share: bins and nodes of free spans, and what else more than one of them needs. Private to
 * span_*.c; the theory is in span_heap.c. Everything here is called with the heap's lock held.
 */
#ifndef LARDER_SPAN_BINS_H
#define LARDER_SPAN_BINS_H

#include <assert.h>

#include "span_heap.h"

enum { SPAN_WALK_LIMIT = 24 };

/* 16 bins a doubling; lengths below 32 have one each. */
static inline unsigned span_bin_of(uint32_t length)
{
    unsigned doubling = 31u - (unsigned)__builtin_clz(length | 16) - 4;
    return (doubling << 4) + (length >> doubling);
}

/* ---- bins ---- */

static inline bool comes_before(const struct span *a, const struct span *b)
{
    if (a->length != b->length)
        return a->length < b->length;
    return a->region == b->region ? a->start < b->start : a->region < b->region;
}

static inline void bins_insert(struct span_bins *bins, struct span *span, unsigned bin)
{
    struct span *next = bins->head[bin], *prev = NULL;
    for (int i = 0; i < SPAN_WALK_LIMIT && next != NULL && comes_before(next, span); i++) {
        prev = next;
        next = next->next;
    }
    span->bin = (uint16_t)bin;
    span->prev = prev;
    span->next = next;
    if (next != NULL)
        next->prev = span;
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
    if (next != NULL)
        next->prev = prev;
    if (prev != NULL) {
        prev->next = next;
        return;
    }
    bins->head[span->bin] = next;
    if (next == NULL) {
        unsigned word = span->bin / 64u;
        bins->occupied[word] &= ~(UINT64_C(1) << (span->bin % 64));
        if (bins->occupied[word] == 0)
            bins->words &= ~(1u << word);
    }
}

/* The shortest span of at least `length` units, or NULL. */
static inline struct span *bins_best(const struct span_bins *bins, uint32_t length)
{
    if (bins->words == 0)
        return NULL;
    unsigned bin = span_bin_of(length);
    assert(bin < SPAN_BINS); /* no span is as long as the largest region */
    struct span *span = bins->head[bin];
    for (int i = 0; i < SPAN_WALK_LIMIT && span != NULL; i++, span = span->next) {
        if (span->length >= length)
            return span;
    }
    bin++;
    unsigned word = bin / 64;
    uint64_t bits = bins->occupied[word] & (~UINT64_C(0) << (bin % 64));
    if (bits == 0) {
        uint32_t words = bins->words & (~UINT32_C(0) << word << 1);
        if (words == 0)
            return NULL;
        word = (unsigned)__builtin_ctz(words);
        bits = bins->occupied[word];
    }
    return bins->head[word * 64 + (unsigned)__builtin_ctzll(bits)];
}

static inline struct span_bins *span_bins_for(struct span_heap *heap, const struct span *span)
{
    return span->in_dirty_bins ? &heap->dirty : &heap->mixed;
}

static inline void bin_insert(struct span_heap *heap, struct span *span)
{
    span->in_dirty_bins = span->clean == 0;
    bins_insert(span_bins_for(heap, span), span, span_bin_of(span->length));
}

static inline void bin_remove(struct span_heap *heap, struct span *span)
{
    bins_remove(span_bins_for(heap, span), span);
}

/* After a change of length or clean: into the bin where it belongs now, which often is the same. */
static inline void bin_update(struct span_heap *heap, struct span *span)
{
    bool alone = span->next == NULL && span->prev == NULL;
    if (alone && span->bin == span_bin_of(span->length) &&
        span->in_dirty_bins == (span->clean == 0))
        return;
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
        uint32_t index = region->spans_most - ++region->spans_used;
        span = &region->spans[index];
        span->index = index;
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
    if (span->length == 1)
        return;
    word_store(&span->region->words[span->start + span->length - 1],
               WORD(WORD_FREE_TAIL) | span->index);
}

/* Takes a whole span out of its bin and clears its words. */
static inline void detach(struct span_heap *heap, struct span *span)
{
    bin_remove(heap, span);
    word_store(&span->region->words[span->start], 0);
    word_store(&span->region->words[span->start + span->length - 1], 0);
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

/* ---- figures that every change keeps ---- */

/* Bytes of touched pages in free spans. */
static inline uint64_t span_heap_free_bytes_locked(struct span_heap *heap)
{
    return ((heap->total_units - span_heap_used_units(heap)) << UNIT_SHIFT) -
           (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
}

/* Bytes that cost memory: spans in use, and touched pages of free ones. */
static inline uint64_t span_heap_held_bytes_locked(const struct span_heap *heap)
{
    return (heap->total_units << UNIT_SHIFT) -
           (heap->clean_pages << (heap->page_shift + UNIT_SHIFT));
}

/* ---- operations on record ---- */

/* Puts an operation on record, which may complete a loop. */
static inline void span_heap_note_operation(struct span_heap *heap, struct region *region,
                                            uint32_t start, uint32_t what)
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

/* ---- shared functions ---- */

/* Takes the lock as one who looks after the heap, and puts what has been noted (span_remote.h). */
void span_heap_enter(struct span_heap *heap);

/* Puts what has been noted; false: nothing. */
bool span_heap_drain(struct span_heap *heap);

/* Puts a span, the word of which has been checked. */
void span_heap_put_locked(struct span_heap *heap, struct region *region, uint32_t start,
                          uint32_t length, int64_t live_delta);

/* Takes it and settles a frozen heap: for everything but takes and puts. */
void span_heap_enter_settled(struct span_heap *heap);

/* The same, about to take or put a span that is on no record: no loop is valid after that. */
void span_heap_enter_unlooped(struct span_heap *heap);

/* span_settle.c: a frozen heap becomes what it would be without loops. */
void span_heap_settle(struct span_heap *heap);

/* Makes [start, end) a free span without looking at its neighbours. */
void span_heap_insert_new(struct span_heap *heap, struct region *region, uint32_t start,
                          uint32_t end);

/* Merges [start, start + length), the first word of which is 0, with its free neighbours. `clean` pages are inside. */
void span_heap_insert_coalesced(struct span_heap *heap, struct region *region, uint32_t start,
                                uint32_t length, uint32_t clean);

/* Takes up replaying if nothing has happened since the common state. */
void span_heap_resume(struct span_heap *heap);

/* In the middle of a loop: if the heap settles now, the rest of it will be searched for. */
bool span_heap_in_loop(const struct span_heap *heap);

/*
 * span_plan.c: chooses new places for a closed sequence of operations. The takes among the first `shared` of them get the places of
 * `others`. False, and nothing has changed, where there is no room or the highest block would not end below the unit `below`. The
 * heap must be in the common state.
 */
bool span_heap_plan(struct span_heap *heap, struct loop_op *ops, uint32_t count,
                    const struct loop_op *others, uint32_t shared, uint32_t below);

/* Counts the pages of a loop's places as touched: from now on its takes do not look. */
void span_heap_touch_loop(struct span_heap *heap, const struct loop_op *ops, uint32_t count);

/* Tells the budget what is held and needed now: wherever total_units, clean_pages or the highest place of the loops have changed. */
void span_heap_tell_use(struct span_heap *heap);

#endif
