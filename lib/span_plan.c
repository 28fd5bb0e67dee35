/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Best fit decides without knowing what comes next, and pays with holes: up to half of the live bytes where lengths
 * vary. A closed loop (span_loop.h) is known from beginning to end, so its places can be chosen anew as a static planner
 * would: the longest blocks first, each at the lowest place that is free during its whole life. That mostly
 * ends at the loop's peak of live bytes exactly. The places are used when the loop comes again.
 *
 * What is in use at the loop's beginning stays where it is: the gaps between the free spans of the common state are obstacles
 * that live for ever. So are, for their lives, the blocks of the beginning that the loop shares with another one: while the two run
 * alike they must have the same places, or the heap could not change from one to the other.
 *
 * Everything happens in scratch memory of the loops, under the heap's lock, once for each new loop: about n * n / 2 comparisons
 * for n blocks. No allocation, no system call. Where there is no room, or the result does not end lower than what was
 * recorded, the record stays as it is.
 *
 * Source: greedy by size, Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.
 */
#include "span_bins.h"

enum { MOST_FREE_SPANS = 128 };

#define NOWHERE UINT32_MAX

/* A block of the loop, or an obstacle. In use from operation `begin` until before operation `end`. */
struct item {
    uint32_t start, length, begin, end;
};

struct plan {
    struct item *items; /* blocks; the obstacles follow */
    uint32_t blocks, obstacles, pinned;
    uint32_t *placed; /* indices of items, by start */
    uint32_t placed_count;
    uint32_t lowest; /* the first free unit */
};

/* ---- what there is ---- */

static uint32_t count_takes(const struct loop_op *ops, uint32_t count)
{
    uint32_t takes = 0;
    for (uint32_t i = 0; i < count; i++)
        takes += (ops[i].what & LOOP_PUT) == 0;
    return takes;
}

/* One item for each take, with the put that ends it. */
static void collect_blocks(struct plan *plan, const struct loop_op *ops, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) == 0) {
            plan->items[plan->blocks++] = (struct item){ops[i].start, ops[i].what, i, UINT32_MAX};
            continue;
        }
        uint32_t j = plan->blocks; /* the latest block at this place is the one that is out */
        while (plan->items[j - 1].start != ops[i].start)
            j--;
        plan->items[j - 1].end = i;
    }
}

/* The free spans of the loops' region by address, as starts and lengths of items behind the blocks; false: too many. */
static bool collect_free(struct plan *plan, struct span_heap *heap)
{
    struct item *spans = &plan->items[plan->blocks];
    uint32_t count = 0;
    struct span_bins *sets[] = {&heap->dirty, &heap->mixed};
    for (int set = 0; set < 2; set++) {
        for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
            for (const struct span *span = sets[set]->head[bin]; span != NULL; span = span->next) {
                if (span->region != heap->loops->region)
                    continue;
                if (count == MOST_FREE_SPANS)
                    return false;
                uint32_t at = count++;
                for (; at > 0 && spans[at - 1].start > span->start; at--)
                    spans[at] = spans[at - 1];
                spans[at] = (struct item){span->start, span->length, 0, 0};
            }
        }
    }
    plan->obstacles = count;
    return count != 0;
}

/* What lies between and behind the free spans becomes the obstacles, in place. */
static void invert_free(struct plan *plan)
{
    struct item *spans = &plan->items[plan->blocks];
    plan->lowest = spans[0].start;
    for (uint32_t i = 0; i < plan->obstacles; i++) {
        uint32_t start = spans[i].start + spans[i].length;
        uint32_t end = i + 1 < plan->obstacles ? spans[i + 1].start : UINT32_MAX;
        spans[i] = (struct item){start, end - start, 0, UINT32_MAX};
    }
}

/* ---- order ---- */

enum order { BY_SIZE, BY_AREA, BY_LIFE, ORDERS };

static uint64_t weight(const struct item *item, enum order order)
{
    uint32_t life = item->end - item->begin;
    if (order == BY_SIZE)
        return item->length;
    return order == BY_AREA ? (uint64_t)item->length * life : life;
}

static bool goes_before(const struct item *a, const struct item *b, enum order order)
{
    uint64_t wa = weight(a, order), wb = weight(b, order);
    return wa != wb ? wa > wb : a->begin < b->begin;
}

/* Heapsort: the last in the order is at the root. */
static void sift_down(struct item *items, uint32_t at, uint32_t count, enum order order)
{
    struct item moving = items[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && goes_before(&items[child], &items[child + 1], order))
            child++;
        if (!goes_before(&moving, &items[child], order))
            break;
        items[at] = items[child];
    }
    items[at] = moving;
}

static void sort_items(struct item *items, uint32_t count, enum order order)
{
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(items, i, count, order);
    for (uint32_t last = count; last-- > 1;) {
        struct item item = items[0];
        items[0] = items[last];
        items[last] = item;
        sift_down(items, 0, last, order);
    }
}

/* ---- places ---- */

static void note_placed(struct plan *plan, uint32_t index)
{
    uint32_t at = plan->placed_count++;
    uint32_t start = plan->items[index].start;
    for (; at > 0 && plan->items[plan->placed[at - 1]].start > start; at--)
        plan->placed[at] = plan->placed[at - 1];
    plan->placed[at] = index;
}

/* The lowest place that is free while the item lives, or NOWHERE: the last obstacle has no end. */
static uint32_t lowest_place(const struct plan *plan, const struct item *item)
{
    uint32_t start = plan->lowest;
    for (uint32_t i = 0; i < plan->placed_count; i++) {
        const struct item *other = &plan->items[plan->placed[i]];
        if (other->begin >= item->end || item->begin >= other->end)
            continue;
        if (other->start >= start && other->start - start >= item->length)
            break;
        if (other->length == UINT32_MAX - other->start)
            return NOWHERE;
        if (other->start + other->length > start)
            start = other->start + other->length;
    }
    return start;
}

/* Where the highest block ends; NOWHERE if there was no place for one. */
static uint32_t place_all(struct plan *plan, enum order order)
{
    uint32_t end = 0;
    plan->placed_count = 0;
    for (uint32_t i = 0; i < plan->obstacles; i++)
        note_placed(plan, plan->blocks + i);
    sort_items(&plan->items[plan->pinned], plan->blocks - plan->pinned, order);
    for (uint32_t i = 0; i < plan->blocks; i++) {
        struct item *item = &plan->items[i];
        if (i >= plan->pinned)
            item->start = lowest_place(plan, item);
        if (item->start == NOWHERE)
            return NOWHERE;
        if (item->start + item->length > end)
            end = item->start + item->length;
        note_placed(plan, i);
    }
    return end;
}

static void write_places(const struct plan *plan, struct loop_op *ops)
{
    for (uint32_t i = plan->pinned; i < plan->blocks; i++) {
        const struct item *item = &plan->items[i];
        ops[item->begin].start = ops[item->end].start = item->start;
    }
}

static uint32_t peak_units(const struct loop_op *ops, uint32_t count)
{
    uint32_t now = 0, peak = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((ops[i].what & LOOP_PUT) != 0) {
            now -= ops[i].what & ~LOOP_PUT;
        } else if ((now += ops[i].what) > peak) {
            peak = now;
        }
    }
    return peak;
}

uint32_t span_heap_plan(struct span_heap *heap, struct loop_op *ops, uint32_t count,
                        uint32_t shared, uint32_t recorded_end, void *scratch, size_t scratch_size)
{
    uint32_t takes = count_takes(ops, count);
    struct plan plan = {.items = scratch};
    size_t items = (size_t)takes + MOST_FREE_SPANS;
    if (items * (sizeof *plan.items + sizeof *plan.placed) > scratch_size)
        return recorded_end;
    plan.placed = (uint32_t *)(plan.items + items);
    collect_blocks(&plan, ops, count);
    plan.pinned = count_takes(ops, shared);
    if (!collect_free(&plan, heap))
        return recorded_end;
    invert_free(&plan);
    uint32_t bound = plan.lowest + peak_units(ops, count), best = recorded_end;
    for (enum order order = BY_SIZE; order < ORDERS && best > bound; order++) {
        uint32_t end = place_all(&plan, order);
        if (end < best) {
            best = end;
            write_places(&plan, ops);
        }
    }
    return best;
}
