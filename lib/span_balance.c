/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * How much touched free memory may wait in the heap: the adaptive budget.
 *
 * Best fit leaves holes, and where a request fits in none of them the heap grows, though there is enough free memory
 * elsewhere. So whenever fresh pages are about to be used, and what is held exceeds the working set by more than SHARE of it, as many
 * touched free pages are given back as the excess has, the highest first: low places are used again soonest. What is held then
 * stays near what is live, whatever the shape of the holes.
 *
 * That costs faults, for the pages given back are wanted again. It pays because it does not last: what repeats is
 * planned (span_plan.c) and fits in little more than its peak. Where nothing repeats it would go on for ever, so it is bought on
 * credit: growth of the working set gives credit for CREDIT times as much, giving back uses it up, and without credit
 * free memory stays until it has been idle for decay_ms. Steady state is free of faults in either case.
 *
 * The working set is the most that has been in use, and after a decay what was left: what has not been idle.
 * What planned loops need is always kept.
 */
#include "cache.h"
#include "span_bins.h"

enum {
    SHARE = 16,
    LEAST_SLACK = 256 * 1024,
    CREDIT = 16,
    CREDIT_LARGE = 2, /* for what exceeds LARGE: there, each fault less counts */
    LARGE = 32 * 1024 * 1024
};

static uint64_t credit_for(uint64_t bytes)
{
    return bytes < LARGE ? bytes * CREDIT
                         : (uint64_t)LARGE * CREDIT + (bytes - LARGE) * CREDIT_LARGE;
}

static void note_peak(struct span_heap *heap)
{
    uint64_t used = span_heap_used_units(heap) << UNIT_SHIFT;
    if (used <= heap->balance_peak)
        return;
    heap->balance_credit += credit_for(used) - credit_for(heap->balance_peak);
    heap->balance_peak = used;
}

/* Bytes that planned loops need, with all there is in other regions. */
static uint64_t loops_bytes(const struct span_heap *heap)
{
    const struct span_loops *loops = heap->loops;
    if (loops == NULL || loops->highest == 0)
        return 0;
    uint64_t above = loops->region->top - loops->highest;
    return (heap->total_units - above) << UNIT_SHIFT;
}

/* Bytes held above the budget. */
static uint64_t excess(const struct span_heap *heap)
{
    uint64_t slack = heap->balance_peak / SHARE;
    uint64_t budget = heap->balance_peak + (slack > LEAST_SLACK ? slack : LEAST_SLACK);
    uint64_t loops = loops_bytes(heap), held = span_heap_held_bytes_locked(heap);
    if (budget < loops)
        budget = loops;
    return held > budget ? held - budget : 0;
}

bool span_heap_in_loop(const struct span_heap *heap)
{
    return heap->frozen && heap->loops->expected != heap->loops->begin;
}

/* What was wanted, now that no loop is under way. */
static void attend(struct span_heap *heap)
{
    atomic_store_explicit(&heap->balance_due, false, memory_order_relaxed);
    if (heap->loops != NULL && heap->loops->count == 0 && heap->detached == 0)
        span_loop_make_ready(heap->loops);
}

size_t span_heap_balance(struct span_heap *heap)
{
    uint64_t given_back = 0;
    span_heap_enter(heap);
    note_peak(heap);
    bool purge_waits = false;
    if (!span_heap_in_loop(heap)) { /* else it would be lost: not for this */
        span_heap_settle(heap);
        if (span_heap_balance_is_due(heap))
            attend(heap);
        uint64_t bytes = heap->instance->balanced ? excess(heap) : 0;
        if (bytes > heap->balance_credit)
            bytes = heap->balance_credit;
        given_back = span_heap_purge_highest(heap, bytes);
        heap->balance_credit -=
            given_back < heap->balance_credit ? given_back : heap->balance_credit;
        purge_waits = heap->purge_waits;
        heap->purge_waits = false;
    }
    uint64_t held = span_heap_held_bytes_locked(heap);
    if (held > heap->peak_held_bytes)
        heap->peak_held_bytes = held;
    heap_lock_leave(&heap->lock);
    if (purge_waits)
        given_back += span_heap_purge(heap, os_now_ms(), heap->instance->config.decay_ms, 0);
    return (size_t)given_back;
}

void span_heap_note_decay(struct span_heap *heap)
{
    uint64_t held = span_heap_held_bytes_locked(heap);
    if (held < heap->balance_peak)
        heap->balance_peak = held;
}
