/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Best fit leaves holes, and where a request fits in none of them the heap grows, though there is enough free memory
 * elsewhere. So whenever fresh pages are about to be used, and what is held exceeds the working set by more than SHARE of it, as many
 * touched free pages are given back as the excess has, the highest first: low places are used again soonest. What is held then
 * stays near what is live, whatever the shape of the holes.
 *
 * That costs faults, for the pages given back are wanted again. It pays because it does not last: what repeats is
 * planned (span_plan.c) and fits in little more than its peak. Where nothing repeats it would go on for ever, so it is bought on
 * credit. Growth of the working set gives credit for CREDIT times as much, giving back uses it up. It also lapses when HOPE
 * operations have gone by without growth or a new loop: longer sequences are on no record. And it lapses with the first decay: it is for
 * the beginning, and a decay lowers the working set, which would turn what is left of the credit into faults (ONNX Runtime, 1,500 inferences: 59 faults each, now 3). Without credit free memory
 * stays until it has been idle for decay_ms. Steady state is free of faults in either case. A thread that goes to a heap of its own
 * (heaps.c) brings credit for what it leaves behind.
 *
 * The working set is the most that has been in use, and after a decay what was left: what has not been idle.
 * What planned loops need is always kept.
 */
#include "budget.h"

#include "fit.h"
#include "heaps.h"

enum {
    SHARE = 16,
    LEAST_SLACK = 64 * 1024,
    CREDIT = 16,
    CREDIT_LARGE = 2, /* for what exceeds LARGE: a fault is not dearer there, but there are many */
    LARGE = 32 * 1024 * 1024,
    HOPE = 2 * LOOP_ARENA
};

static uint64_t credit_for(uint64_t bytes)
{
    return bytes < LARGE ? bytes * CREDIT
                         : (uint64_t)LARGE * CREDIT + (bytes - LARGE) * CREDIT_LARGE;
}

static struct span_heap_use use_of(struct larder *instance)
{
    struct span_heap_use use = {0};
    for (uint32_t i = 0; i < heaps_count(instance); i++)
        span_heap_add_use(heaps_at(instance, i), &use);
    uint64_t spare = fit_spare_bytes(instance);
    use.used -= spare < use.used ? spare : use.used;
    return use;
}

/* What is to be given back now, off the credit. Called with the lock held. */
static uint64_t spend(struct budget *budget, const struct span_heap_use *use)
{
    if (use->used > budget->peak) {
        budget->credit += credit_for(use->used) - credit_for(budget->peak);
        budget->peak = use->used;
        budget->operations = use->operations;
    }
    if (use->new_loops)
        budget->operations = use->operations;
    /* below 0: another thread has looked since */
    if ((int32_t)(use->operations - budget->operations) > HOPE)
        budget->credit = 0;
    uint64_t slack = budget->peak / SHARE;
    if (slack < LEAST_SLACK)
        slack = LEAST_SLACK;
    uint64_t least = budget->peak + slack / 2; /* not for every page anew */
    if (least < use->needed)
        least = use->needed;
    uint64_t bytes = use->held > least + slack / 2 ? use->held - least : 0;
    if (bytes > budget->credit)
        bytes = budget->credit;
    budget->credit -= bytes;
    return bytes;
}

/* The heap with most free memory of those that have some and are not among the asked ones; NULL: none. */
static struct span_heap *find_fullest(struct larder *instance, uint64_t *asked)
{
    struct span_heap *fullest = NULL;
    uint64_t most = 0, bit = 0;
    for (uint32_t i = 0; i < heaps_count(instance); i++) {
        if ((*asked >> i & 1) != 0)
            continue;
        uint64_t bytes = span_heap_told_free_bytes(heaps_at(instance, i));
        if (bytes > most) {
            most = bytes;
            fullest = heaps_at(instance, i);
            bit = UINT64_C(1) << i;
        }
    }
    *asked |= bit;
    return fullest;
}

/* From the heap with most free memory first. Returns the bytes given back. */
static uint64_t give_back(struct larder *instance, uint64_t bytes)
{
    fit_release_spares(instance);
    uint64_t given_back = 0, asked = 0; /* a bit a heap */
    while (given_back < bytes) {
        struct span_heap *fullest = find_fullest(instance, &asked);
        if (fullest == NULL)
            return given_back;
        given_back += span_heap_purge_highest(fullest, bytes - given_back);
    }
    return given_back;
}

void budget_keep(struct larder *instance)
{
    struct budget *budget = &instance->budget;
    struct span_heap_use use = use_of(instance);
    if (instance->balanced) {
        spinlock_lock(&budget->lock);
        uint64_t bytes = spend(budget, &use);
        spinlock_unlock(&budget->lock);
        if (bytes != 0) {
            uint64_t given_back = give_back(instance, bytes);
            bool new_loops = use.new_loops;
            use = use_of(instance);
            spinlock_lock(&budget->lock);
            if (given_back < bytes)
                budget->credit += bytes - given_back;
            if (use.new_loops && !new_loops) /* whoever looks first sees them */
                budget->operations = use.operations;
            spinlock_unlock(&budget->lock);
        }
    }
    cache_raise_peak(&instance->peak_held_bytes, use.held);
}

void budget_note_move(struct larder *instance, uint64_t bytes)
{
    spinlock_lock(&instance->budget.lock);
    instance->budget.credit += bytes;
    spinlock_unlock(&instance->budget.lock);
}

uint32_t budget_wait_ms(struct larder *instance, uint32_t now_ms)
{
    struct span_heap_use use = use_of(instance);
    spinlock_lock(&instance->budget.lock);
    uint32_t wait =
        patience_wait_ms(&instance->budget.patience, instance->config.decay_ms, now_ms, use.held);
    if (use.new_loops) /* whoever looks first sees them */
        instance->budget.operations = use.operations;
    spinlock_unlock(&instance->budget.lock);
    return wait;
}

void budget_note_decay(struct larder *instance, uint32_t now_ms, uint64_t bytes)
{
    struct span_heap_use use = use_of(instance);
    spinlock_lock(&instance->budget.lock);
    patience_note(&instance->budget.patience, now_ms, bytes, use.held);
    if (use.held < instance->budget.peak)
        instance->budget.peak = use.held;
    instance->budget.credit = 0; /* what was hoped for has come by now, or will not */
    if (use.new_loops)
        instance->budget.operations = use.operations;
    spinlock_unlock(&instance->budget.lock);
}
