/* SPDX-License-Identifier: MIT */
/*
 * The span heap: best fit, split, coalesce, lowest address first, over the regions of one instance.
 */
#ifndef LARDER_SPAN_HEAP_H
#define LARDER_SPAN_HEAP_H

#include "heap_lock.h"
#include "poison.h"
#include "region.h"
#include "span_loop.h"
#include "span_remote.h"

enum {
    SPAN_BINS = (LARGEST_REGION_SHIFT - UNIT_SHIFT - 3) * 16, /* see span_bin_of() */
    SPAN_HEAP_CLOCK_EVERY = 8,
    SPAN_HEAP_TELL_EVERY = 1024
};

struct span_bins {
    uint32_t words;                        /* a bit for each word of `occupied` that is not 0 */
    uint64_t occupied[SPAN_BINS / 64 + 1]; /* the last is always 0: behind the longest span's bin */
    struct span *head[SPAN_BINS];
};

struct span_heap {
    /* fixed */
    uint32_t step;       /* units; spans start at and span multiples of it */
    uint32_t page_shift; /* of units in a page */
    uint32_t front;      /* bytes, a multiple of step: where in a span the aligned address lies */
    struct larder *instance;
    uint32_t users;           /* threads that take from it; guarded by instance->lock */
    struct span_loops *loops; /* NULL: none; what it points to is guarded by lock */

    _Alignas(64) heap_lock_t lock;
    _Atomic bool due; /* see span_heap_attend(); written under lock */
    const heap_lock_user_t
        *taker;             /* whoever took last, unless by the lock's bias; guarded by lock */
    bool frozen;            /* in a loop, see span_loop.h; guarded by lock, as all below */
    struct region *regions; /* guarded by lock, as all below */
    uint32_t region_count;
    uint32_t generation; /* of large blocks' words */
    uint32_t now_ms;     /* as last read, every SPAN_HEAP_CLOCK_EVERY puts */
    uint32_t puts;
    uint64_t reserved_bytes;
    uint64_t total_units;        /* that may hold blocks */
    _Atomic uint64_t used_units; /* in spans that are not free; may be read without the lock */
    uint64_t clean_pages;        /* in free spans: they cost nothing */
    /* as callers last told; negative where they told more of other heaps' blocks here than the other way */
    int64_t live_bytes, told_live_bytes;
    uint64_t peak_free_bytes;
    uint64_t splits, coalesces, given_back_bytes;
    /* what the budget reads without the lock, see span_heap_add_use() */
    _Atomic uint64_t told_held_bytes, told_needed_bytes; /* of the latter 0: what is in use */
    _Atomic uint32_t operations; /* takes and puts that no loop answered, modulo 2^32 */
    _Atomic bool new_loops;      /* since the budget last looked */
    bool purge_waits;            /* for the end of a loop */
    uint32_t detached;           /* purges under way: free spans are missing */
    uint32_t touched_pages;      /* by loops made ready; the next take tells of them */
    struct span_bins dirty;      /* free spans in which every page has been touched */
    struct span_bins mixed;      /* those with clean pages, searched second */
    struct span_remote remote;   /* blocks freed by others while the heap is biased */
};

/* A span that has been taken out of the heap; two registers wide. */
struct taken_span {
    struct region *region; /* NULL: none fits */
    uint32_t start;        /* unit */
    uint32_t fresh_pages;  /* pages in it that cost nothing before */
};

/* The word of a large block about to be handed out. */
static inline uint32_t span_heap_large_word(struct span_heap *heap, uint32_t length)
{
    uint32_t generation = heap->generation++ << WORD_GENERATION_SHIFT & WORD_GENERATION_MASK;
    return WORD(WORD_LARGE_LIVE) | generation | length;
}

static inline uint64_t span_heap_used_units(struct span_heap *heap)
{
    return atomic_load_explicit(&heap->used_units, memory_order_relaxed);
}

/*
 * Tells the instance this heap's live bytes, which are part of the sum of which it keeps the peak. Heaps tell at each rise above what they last told, but
 * a fall only where they tell again, so that the peak is one of the sum and yet steady state writes nothing shared: exact with one heap, else too
 * high by what has fallen in another heap within its last SPAN_HEAP_TELL_EVERY puts.
 */
void span_heap_tell_live(struct span_heap *heap);

/* What is done at every SPAN_HEAP_CLOCK_EVERY-th put. */
void span_heap_look_around(struct span_heap *heap);

static inline void span_heap_note_live_locked(struct span_heap *heap, int64_t live_delta)
{
    heap->live_bytes += live_delta;
    if (__builtin_expect(heap->live_bytes > heap->told_live_bytes, 0))
        span_heap_tell_live(heap);
}

static inline void span_heap_note_take(struct span_heap *heap, uint32_t units, int64_t live_delta)
{
    atomic_store_explicit(&heap->used_units, span_heap_used_units(heap) + units,
                          memory_order_relaxed);
    span_heap_note_live_locked(heap, live_delta);
}

/* No peak: a put that tells of a rise, by small blocks, is seen at the next take. */
static inline void span_heap_note_put(struct span_heap *heap, uint32_t units, int64_t live_delta)
{
    atomic_store_explicit(&heap->used_units, span_heap_used_units(heap) - units,
                          memory_order_relaxed);
    heap->live_bytes += live_delta;
}

/* `front` in bytes. */
void span_heap_init(struct span_heap *heap, struct larder *instance, uint32_t step, uint32_t front);

/*
 * Takes a free span of `length` units (a multiple of step) such that its address plus front is a multiple of
 * alignment (bytes, 0 or a power of two above step). Sets its first word to `word`; if that is of kind
 * LARGE_LIVE, length and generation are added, and where there are fresh pages, the second word is how many units from the start
 * on may have been written to; those behind read as zero if the memory came so. `live_delta` is what the calling thread's live bytes have changed by
 * since it last told. The caller must see to it that the span is committed before use.
 */
struct taken_span span_heap_take(struct span_heap *heap, uint32_t length, size_t alignment,
                                 uint32_t word, int64_t live_delta);

/* Whether a take of `length` units would find a free span all of which has been touched. */
bool span_heap_has_touched(struct span_heap *heap, uint32_t length);

/*
 * Takes a free span back, if its first word still equals `expected` (false otherwise, and nothing has changed:
 * somebody else freed it). All other words inside must be of kind NONE.
 */
bool span_heap_put(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                   uint32_t expected, int64_t live_delta);

/*
 * The same for a block found live by a thread that has just freed one of this heap: leaves only a note (span_remote.h) where another
 * thread has the lock's bias. `size` as asked for.
 */
enum span_put { SPAN_PUT_LOST, SPAN_PUT_DONE, SPAN_PUT_NOTED };
enum span_put span_heap_put_plain(struct span_heap *heap, struct region *region, uint32_t start,
                                  uint32_t length, uint32_t expected, size_t size);

/*
 * Puts what has been noted, if it is time to look: for a thread about to take. No lock may be held. True: a loop ended with that, and
 * cache_attend() is to be called.
 */
bool span_heap_drain_before_take(struct span_heap *heap);

/*
 * The same in two steps, for a span whose pages are to be discarded in between: claim makes its first word LARGE_CACHED,
 * put_clean takes it back with the whole pages inside clean. Spans must be of whole pages.
 */
bool span_heap_claim(struct span_heap *heap, struct region *region, uint32_t start, uint32_t length,
                     uint32_t expected);
void span_heap_put_clean(struct span_heap *heap, struct region *region, uint32_t start,
                         uint32_t length);

/*
 * Adds a region, all of which is free, for a take of `length` units that found no room. False, and nothing has changed: there is room by now, from
 * another thread. (With two regions where one would do, no sequence of blocks stays in one, and loops are of one.)
 */
bool span_heap_add_region(struct span_heap *heap, struct region *region, uint32_t length);

/*
 * Gives back to the kernel (or backend, by whole regions) what has been free for at least `idle_ms`, until at
 * most `keep_bytes` of touched free memory are left. Returns the bytes given back. No lock may be held.
 */
size_t span_heap_purge(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                       uint64_t keep_bytes);

/* What the budget (budget.c) wants to know, of several heaps together. */
struct span_heap_use {
    uint64_t used, held; /* bytes in spans in use; with touched pages of free ones */
    uint64_t needed;     /* bytes that planned loops will hold */
    uint32_t operations; /* that were searched for, modulo 2^32 */
    bool new_loops;      /* there are loops that there were not the last time */
};

/*
 * Adds this heap's, as last told. Without the lock: each thread that comes to touch fresh pages looks at all heaps, and would take the bias of each from
 * its owner.
 */
void span_heap_add_use(struct span_heap *heap, struct span_heap_use *use);

/*
 * Gives back about `bytes` of touched free memory, the highest first, whatever its age; nothing in the middle of a loop. Returns the
 * bytes given back. No lock may be held.
 */
uint64_t span_heap_purge_highest(struct span_heap *heap, uint64_t bytes);

/*
 * Does what had to wait for the end of a loop: to be called after a put if span_heap_is_due(), and followed by budget_keep(). True:
 * a purge for age waited too. No lock may be held.
 */
bool span_heap_attend(struct span_heap *heap);

static inline void span_heap_want_attention(struct span_heap *heap)
{
    atomic_store_explicit(&heap->due, true, memory_order_relaxed);
}

static inline bool span_heap_is_due(const struct span_heap *heap)
{
    return atomic_load_explicit(&((struct span_heap *)(uintptr_t)heap)->due, memory_order_relaxed);
}

/*
 * Detaches and releases every region in which nothing has been in use for `idle_ms`; reserved ones, of which the
 * pages can be given back by themselves, only if `reserved_too`. Returns the bytes given back. No lock may be held.
 */
size_t span_heap_release_empty(struct span_heap *heap, uint32_t now_ms, uint32_t idle_ms,
                               bool reserved_too);

/* Takes the lock, with words and nodes as they are described in region.h; heap_lock_leave() ends it. */
void span_heap_lock_settled(struct span_heap *heap);

/* The same for a thread that goes on to take other heaps' locks. */
void span_heap_lock_for_fork(struct span_heap *heap);

/*
 * One of several threads has left the heap: the loops seen so far, which may be of both, are forgotten. Returns the bytes of touched pages in free
 * spans. No lock may be held.
 */
uint64_t span_heap_part(struct span_heap *heap);

/* Tells the heap what a thread's live bytes have changed by, without taking or putting anything. */
void span_heap_note_live(struct span_heap *heap, int64_t live_delta);

/* Of touched pages in free spans; the second as last told, without the lock; the third with spans in use, likewise. */
uint64_t span_heap_free_bytes(struct span_heap *heap);
uint64_t span_heap_told_free_bytes(struct span_heap *heap);
uint64_t span_heap_told_held_bytes(struct span_heap *heap);

uint64_t span_heap_used_bytes(struct span_heap *heap);

struct span_heap_figures {
    uint64_t used_bytes, free_bytes; /* held: in spans in use, and in touched pages of free ones */
    uint64_t reserved_bytes, regions, largest_free, metadata_bytes;
    uint64_t peak_free_bytes;
    uint64_t splits, coalesces, given_back_bytes;
    uint64_t lock_acquisitions, lock_contended, lock_revocations;
};

/* Adds this heap's figures to *figures. */
void span_heap_add_figures(struct span_heap *heap, struct span_heap_figures *figures);

/*
 * The shortest way, for the owner of the lock while the heap is in a loop: a large block where the loop says. NULL: nothing has
 * changed, and span_heap_take() is to be called; else the block's region, and its unit in *start. No call is made in here, so that whoever
 * has it inlined saves no registers for it. A rise of live bytes to a new height is told elsewhere.
 */
static inline struct region *span_heap_take_expected(struct span_heap *heap, heap_lock_user_t *self,
                                                     uint32_t length, uint64_t size,
                                                     uint32_t *start)
{
    struct region *region = NULL;
    if (__builtin_expect(!heap_lock_enter_short(&heap->lock, self), 0))
        return NULL;
    if (__builtin_expect(heap->frozen, 1)) {
        struct span_loops *loops = heap->loops;
        const struct loop_op *op = loops->expected;
        int64_t live = heap->live_bytes + (int64_t)size;
        if (__builtin_expect(op->what == length && live <= heap->told_live_bytes, 1)) {
            region = loops->region;
            *start = op->start;
            loops->expected = op + 1; /* not the end: the last operation of a loop is a put */
            word_store(&region->words[*start], span_heap_large_word(heap, length));
            atomic_store_explicit(&heap->used_units, span_heap_used_units(heap) + length,
                                  memory_order_relaxed);
            heap->live_bytes = live;
        }
    }
    heap_lock_leave_biased(&heap->lock, self);
    return region;
}

/* The same for a put. */
enum span_step {
    SPAN_UNEXPECTED, /* nothing has changed: see to it otherwise */
    SPAN_STEP,
    SPAN_STEP_INSIDE /* done, but the lock is still held: span_heap_finish_put() is to be called */
};

void span_heap_finish_put(struct span_heap *heap, heap_lock_user_t *self);

static inline enum span_step span_heap_put_expected(struct span_heap *heap, heap_lock_user_t *self,
                                                    struct region *region, uint32_t start,
                                                    uint64_t *size)
{
    if (__builtin_expect(!heap_lock_enter_short(&heap->lock, self), 0))
        return SPAN_UNEXPECTED;
    if (__builtin_expect(heap->frozen, 1)) {
        struct span_loops *loops = heap->loops;
        const struct loop_op *op = loops->expected;
        word_t *word = &region->words[start];
        uint32_t length = op->what ^ LOOP_PUT; /* of a take it would be more than any word has */
        uint32_t live = word_load(word) & ~WORD_GENERATION_MASK;
        if (__builtin_expect(op->start == start && live - WORD(WORD_LARGE_LIVE) == length &&
                                 loops->region == region,
                             1)) {
            *size = ((uint64_t)length << UNIT_SHIFT) - word_load(word + 1);
            poison_cached(region_address(region, start), (size_t)length << UNIT_SHIFT);
            word_store(word, WORD(WORD_LARGE_CACHED) | length);
            span_heap_note_put(heap, length, -(int64_t)*size);
            bool care = heap->puts++ % SPAN_HEAP_CLOCK_EVERY == 0;
            loops->expected = ++op;
            if (op == loops->end) {
                loops->expected = loops->begin;
                care |= (loops->plan_debt | loops->wait | heap->purge_waits) != 0;
            }
            if (__builtin_expect(care, 0))
                return SPAN_STEP_INSIDE;
            heap_lock_leave_biased(&heap->lock, self);
            return SPAN_STEP;
        }
    }
    heap_lock_leave_biased(&heap->lock, self);
    return SPAN_UNEXPECTED;
}

#endif
