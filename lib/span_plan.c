/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Best fit decides without knowing what comes next, and pays with holes: up to half of the live bytes where lengths
 * vary. A closed loop (span_loop.h) is known from beginning to end, so its places can be chosen anew by the planner
 * (plan_layout.h), which mostly ends at the loop's peak of live bytes exactly. They are used when the loop comes again.
 *
 * What is in use at the loop's beginning stays where it is: the gaps between the free spans of the common state are, for the
 * planner, blocks in fixed places that live for ever. So are, for their lives, the blocks of the beginning that the loop
 * shares with another one: while the two run alike they must have the same places, or the heap could not change from
 * one to the other.
 *
 * Everything happens in scratch memory of the loops, under the heap's lock, once for each new loop: some milliseconds for thousands of
 * blocks. No allocation, no system call. Where there is no room, or the result does not end lower than what was
 * recorded, the record stays as it is.
 *
 * Planning pays when the loop comes again. Where it does not, as with two threads that mix their operations differently every time,
 * it would go on for ever: so it makes a debt, which loops pay off as they are replayed, and which is bounded. (Measured
 * 2026-11, a recorded pipeline of two threads in parallel: 430 to 590 ns an operation without a bound, a third of it in the planner.)
 */
#include "plan_layout.h"
#include "span_bins.h"

enum {
    MOST_FREE_SPANS = 128,
    ROUNDS = 64,           /* of placing all blocks, if they are few */
    MOST_EFFORT = 2000000, /* comparisons, about 1 ns each */
    MOST_DEBT = 24 * MOST_EFFORT,
    EASY = 8 /* part of the effort that plans cost which end at their lower bound */
};

static uint32_t count_takes(const struct loop_op *ops, uint32_t count)
{
    uint32_t takes = 0;
    for (uint32_t i = 0; i < count; i++)
        takes += (ops[i].what & LOOP_PUT) == 0;
    return takes;
}

/* The free spans of the loops' region by address; 0: none, or too many. */
static uint32_t collect_free(const struct span_heap *heap, struct plan_item *spans)
{
    uint32_t count = 0;
    const struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
            for (const struct span *span = sets[set]->head[bin]; span != NULL; span = span->next) {
                if (span->region != heap->loops->region)
                    continue;
                if (count == MOST_FREE_SPANS)
                    return 0;
                uint32_t at = count++;
                for (; at > 0 && spans[at - 1].offset > span->start; at--)
                    spans[at] = spans[at - 1];
                spans[at] = (struct plan_item){.offset = span->start, .size = span->length};
            }
        }
    }
    return count;
}

/* What lies before, between and behind the `count` free spans; makes one more of them, in place. */
static void invert_free(struct plan_item *spans, uint32_t count)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i <= count; i++) {
        uint64_t start = i < count ? spans[i].offset : PLAN_SIZE_MAX / 2;
        uint64_t next_end = i < count ? start + spans[i].size : 0;
        spans[i] = (struct plan_item){0, UINT32_MAX, start - end, end, 1};
        end = next_end;
    }
}

/* One item for each take, with the put that ends it. */
static void collect_blocks(struct plan_item *blocks, const struct loop_op *ops, uint32_t count)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) == 0) {
            blocks[found++] = (struct plan_item){i, UINT32_MAX, ops[i].what, ops[i].start, 1};
            continue;
        }
        uint32_t j = found; /* the latest block at this place is the one that is out */
        while (blocks[j - 1].offset != ops[i].start)
            j--;
        blocks[j - 1].end = i;
    }
}

static void write_places(const struct plan_item *blocks, uint32_t count, struct loop_op *ops)
{
    for (uint32_t i = 0; i < count; i++)
        ops[blocks[i].begin].start = ops[blocks[i].end].start = (uint32_t)blocks[i].offset;
}

bool span_heap_plan(struct span_heap *heap, struct loop_op *ops, uint32_t count,
                    const struct loop_op *others, uint32_t shared, uint32_t below)
{
    uint32_t takes = count_takes(ops, count), pinned = count_takes(ops, shared);
    uint32_t most = takes + MOST_FREE_SPANS + 1;
    char *scratch = span_loops_scratch(heap->loops);
    if (most * sizeof(struct plan_item) + plan_scratch_bytes(most) > PLAN_SCRATCH)
        return false;
    struct plan_item *fixed = (struct plan_item *)(void *)scratch;
    uint32_t free_spans = collect_free(heap, fixed);
    if (free_spans == 0)
        return false;
    uint64_t lowest = fixed[0].offset;
    uint64_t limit = fixed[free_spans - 1].offset + fixed[free_spans - 1].size;
    invert_free(fixed, free_spans);
    struct plan_item *blocks = &fixed[free_spans + 1];
    collect_blocks(blocks, ops, count);
    for (uint32_t i = 0; i < pinned; i++)
        blocks[i].offset = others[blocks[i].begin].start;
    scratch += (takes + free_spans + 1) * sizeof(struct plan_item);
    uint64_t bound = lowest + plan_lower_bound(blocks, takes, scratch);
    uint64_t effort = (uint64_t)takes * takes / 2 * ROUNDS;
    if (effort > MOST_EFFORT)
        effort = MOST_EFFORT;
    if (below <= bound || heap->loops->plan_debt + effort > MOST_DEBT)
        return false;
    uint64_t end = plan_greedy(blocks + pinned, takes - pinned, fixed, free_spans + 1 + pinned,
                               effort, scratch);
    heap->loops->plan_debt += end > bound ? effort : effort / EASY;
    uint64_t pinned_end = plan_peak(blocks, pinned);
    if (end < pinned_end)
        end = pinned_end;
    if (end > limit || end >= below)
        return false;
    write_places(blocks, takes, ops);
    return true;
}
