/* SPDX-License-Identifier: MIT */
/*
 * How a span heap that is frozen in a loop (span_loop.h) becomes the true one again: the words that replayed blocks have left behind are
 * cleared, and what is out at the moment is cut out of the free spans, which are still those of the loop's beginning.
 *
 * Words of blocks that are live are not written, not even for a moment: their owners may be reading them without a lock.
 */
#include <string.h>

#include "span_bins.h"
#include "span_check.h"
#include "span_pages.h"

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
        bool is_out = (word_kind(word) == WORD_LARGE_LIVE && (word & WORD_INDEX_MASK) == length) ||
                      word == (WORD_WAITING | length);
        if ((length & LOOP_PUT) != 0 || !is_out)
            continue;
        uint32_t at = found;
        while (at > 0 && out[at - 1].start > start)
            at--;
        if (at > 0 && out[at - 1].start == start)
            continue; /* taken, put and taken again */
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
        if (!loop->used)
            continue;
        for (uint32_t j = loop->first; j < loop->first + loop->count; j++) {
            const struct loop_op *op = &loops->ops[j];
            if ((op->what & LOOP_PUT) != 0)
                continue;
            pages_note_idle(loops->region, op->start, op->what, heap->now_ms);
            uint32_t word = word_load(&words[op->start]);
            if (word_kind(word) == WORD_LARGE_CACHED &&
                word >> WORD_GENERATION_SHIFT != WORD_WAITING >> WORD_GENERATION_SHIFT) {
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
static void cut_blocks(struct span_heap *heap, struct span *span, const struct out *out,
                       uint32_t count)
{
    struct region *region = span->region;
    uint32_t start = span->start, end = start + span->length;
    word_t *last = &region->words[end - 1];
    if (word_kind(word_load(last)) == WORD_FREE_TAIL)
        word_store(last, 0);
    if (word_kind(word_load(&region->words[start])) == WORD_FREE)
        word_store(&region->words[start], 0);
    node_put(span);
    for (uint32_t i = first_at(out, count, start); i < count && out[i].start < end; i++) {
        if (out[i].start != start)
            span_heap_insert_new(heap, region, start, out[i].start);
        start = out[i].start + out[i].length;
    }
    if (start != end)
        span_heap_insert_new(heap, region, start, end);
}

void span_heap_settle(struct span_heap *heap)
{
    if (!heap->frozen)
        return;
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
    span_check(heap);
}

/* ---- loops made ready ---- */

/* Counts the clean pages of a span anew. Its words may be those of blocks by now and are left alone. */
static void recount_clean(struct span_heap *heap, struct span *span)
{
    uint32_t clean = pages_count_clean(span->region, heap->page_shift, span->start, span->length);
    if (clean == span->clean)
        return;
    bin_remove(heap, span);
    span->clean = clean;
    bin_insert(heap, span);
}

void span_heap_touch_loop(struct span_heap *heap, const struct loop_op *ops, uint32_t count)
{
    struct region *region = heap->loops->region;
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) == 0)
            fresh += pages_mark_dirty(region, heap->page_shift, ops[i].start, ops[i].what);
    }
    if (fresh == 0)
        return;
    for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
        struct span *next;
        for (struct span *span = heap->mixed.head[bin]; span != NULL; span = next) {
            next = span->next;
            if (span->region == region)
                recount_clean(heap, span);
        }
    }
    heap->clean_pages -= fresh;
    heap->touched_pages += fresh;
    span_heap_tell_use(heap);
}

bool span_heap_in_loop(const struct span_heap *heap)
{
    return heap->frozen && heap->loops->expected != heap->loops->begin;
}

void span_heap_resume(struct span_heap *heap)
{
    if (heap->loops == NULL)
        return;
    span_loop_resume(heap->loops);
    heap->frozen = heap->loops->mode == LOOP_REPLAYING;
}

bool span_heap_attend(struct span_heap *heap)
{
    bool purge_waits = false;
    span_heap_enter(heap);
    if (!span_heap_in_loop(heap)) {
        atomic_store_explicit(&heap->due, false, memory_order_relaxed);
        span_heap_settle(heap);
        if (heap->loops != NULL && heap->loops->count == 0 && heap->detached == 0)
            span_loop_make_ready(heap->loops);
        heap->touched_pages = 0; /* the budget is about to be reckoned */
        span_heap_resume(heap);
        purge_waits = heap->purge_waits;
        heap->purge_waits = false;
    }
    heap_lock_leave(&heap->lock);
    return purge_waits;
}
