/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Placing intervals of time so that the highest address is lowest is NP-hard ("dynamic storage allocation"), but inference
 * is kind: a few large tensors make the peak, and the rest fits beside them. So blocks are placed one after another, each
 * into a gap that is free for its whole lifetime, the largest first: what comes late is small and fits into what is left.
 *
 * The blocks placed so far are kept sorted by offset. One pass over them finds the gaps for the next: those that do not
 * live at the same time are no obstacle, and between the others, the space below the first included, lie the gaps. The
 * smallest gap that is large enough is taken (least is wasted), or the lowest one; which is better depends on the
 * instance, so both are tried, under several orders: by size, by size x lifetime, by lifetime, by beginning.
 *
 * Where none of these meets the lower bound, the order is improved: a block that made the peak came too late, so it moves
 * forward by half of its way and all are placed anew. Each round costs one placement. The best plan of all is kept.
 *
 * Cost: n placed blocks make at most n x n / 2 comparisons an order; `effort` counts them, not time, so
 * that the same blocks always get the same plan.
 *
 * Source: Y. Pisarchyk, J. Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (greedy by size, best
 * gap); the search by moving blocks forward in the order is an iterated greedy (R. Ruiz, T. Stützle, 2007).
 */
#include "plan_layout.h"

#include <stdbool.h>
#include <string.h>

#include "plan_sort.h"

/* A block in its place; sorted by offset. */
struct placed {
    uint64_t offset, top;
    uint32_t begin, end;
};

enum order { BY_SIZE, BY_AREA, BY_LIFETIME, BY_BEGIN, ORDERS };
enum gap_rule { SMALLEST_GAP, LOWEST_GAP, GAP_RULES };

struct planner {
    struct plan_item *items;
    uint32_t count;
    const struct plan_item *fixed;
    uint32_t fixed_count;
    uint64_t bound, best_peak;
    uint64_t comparisons;
    /* in scratch */
    struct placed *placed;
    uint64_t *keys, *best; /* by item; keys serves for sorting, best has offsets */
    uint32_t *order, *best_order;
};

/* ---- scratch ---- */

static size_t round_up_16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

size_t plan_scratch_bytes(uint32_t count)
{
    size_t n = (size_t)count + 1;
    return round_up_16(n * sizeof(struct placed)) + 2 * round_up_16(n * sizeof(uint64_t)) +
           2 * round_up_16(n * sizeof(uint32_t));
}

static void set_scratch(struct planner *planner, void *scratch)
{
    size_t n = (size_t)planner->count + planner->fixed_count + 1;
    char *next = scratch;
    planner->placed = (struct placed *)(void *)next;
    next += round_up_16(n * sizeof(struct placed));
    planner->keys = (uint64_t *)(void *)next;
    next += round_up_16(n * sizeof(uint64_t));
    planner->best = (uint64_t *)(void *)next;
    next += round_up_16(n * sizeof(uint64_t));
    planner->order = (uint32_t *)(void *)next;
    next += round_up_16(n * sizeof(uint32_t));
    planner->best_order = (uint32_t *)(void *)next;
}

/* ---- bounds ---- */

uint64_t plan_peak(const struct plan_item *items, uint32_t count)
{
    uint64_t peak = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].size != 0 && items[i].offset + items[i].size > peak)
            peak = items[i].offset + items[i].size;
    }
    return peak;
}

/* Walks over beginnings and ends in order of time; an end comes before a beginning at the same time. */
uint64_t plan_lower_bound(const struct plan_item *items, uint32_t count, void *scratch)
{
    struct planner planner = {.count = count};
    set_scratch(&planner, scratch);
    uint32_t *begins = planner.order, *ends = planner.best_order;
    for (uint32_t i = 0; i < count; i++)
        planner.keys[i] = items[i].begin;
    plan_sort(begins, planner.keys, count);
    for (uint32_t i = 0; i < count; i++)
        planner.keys[i] = items[i].end;
    plan_sort(ends, planner.keys, count);
    uint64_t live = 0, most = 0;
    uint32_t ended = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_item *item = &items[begins[i]];
        while (items[ends[ended]].end <= item->begin)
            live -= items[ends[ended++]].size;
        live += item->size;
        if (live > most)
            most = live;
    }
    return most;
}

/* ---- one placement ---- */

static uint64_t align_up(uint64_t offset, uint32_t alignment)
{
    if (alignment <= 1)
        return offset;
    uint64_t rest = offset % alignment;
    return rest == 0 ? offset : offset + alignment - rest;
}

/* The place for an item among those placed: in the gap that the rule prefers, else above all that are in its way. */
static uint64_t find_place(const struct placed *placed, uint32_t count,
                           const struct plan_item *item, enum gap_rule rule, uint64_t *comparisons)
{
    uint64_t cursor = 0, best = UINT64_MAX, best_gap = UINT64_MAX;
    uint32_t i = 0;
    for (; i < count; i++) {
        const struct placed *other = &placed[i];
        if (other->begin >= item->end || other->end <= item->begin)
            continue;
        if (other->offset > cursor) {
            uint64_t start = align_up(cursor, item->alignment), gap = other->offset - cursor;
            if (gap < best_gap && start < other->offset && item->size <= other->offset - start) {
                best = start;
                best_gap = gap;
                if (rule == LOWEST_GAP || gap == item->size)
                    break;
            }
        }
        if (other->top > cursor)
            cursor = other->top;
    }
    *comparisons += i;
    return best != UINT64_MAX ? best : align_up(cursor, item->alignment);
}

/* Enters a block; what lies above it moves up by one. */
static void insert_placed(struct placed *placed, uint32_t count, struct placed block)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (placed[middle].offset <= block.offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(&placed[low + 1], &placed[low], (count - low) * sizeof *placed);
    placed[low] = block;
}

static struct placed placed_item(const struct plan_item *item)
{
    return (struct placed){item->offset, item->offset + item->size, item->begin, item->end};
}

/* Places all items in the planner's order; returns the peak. */
static uint64_t place_all(struct planner *planner, enum gap_rule rule)
{
    uint32_t placed = 0;
    for (uint32_t i = 0; i < planner->fixed_count; i++) {
        if (planner->fixed[i].size != 0)
            insert_placed(planner->placed, placed++, placed_item(&planner->fixed[i]));
    }
    uint64_t peak = 0;
    for (uint32_t i = 0; i < planner->count; i++) {
        struct plan_item *item = &planner->items[planner->order[i]];
        if (item->size == 0) {
            item->offset = 0;
            continue;
        }
        item->offset = find_place(planner->placed, placed, item, rule, &planner->comparisons);
        if (item->offset + item->size > peak)
            peak = item->offset + item->size;
        insert_placed(planner->placed, placed++, placed_item(item));
    }
    return peak;
}

/* ---- orders ---- */

/* What comes first has the smallest key. */
static uint64_t key_of(const struct plan_item *item, enum order order)
{
    uint64_t lifetime = item->end - item->begin;
    switch (order) {
    case BY_SIZE:
        return UINT64_MAX - item->size;
    case BY_AREA:
        return item->size > UINT64_MAX / lifetime ? 0 : UINT64_MAX - item->size * lifetime;
    case BY_LIFETIME:
        return UINT64_MAX - lifetime;
    default:
        return item->begin;
    }
}

static void keep_if_best(struct planner *planner, uint64_t peak)
{
    if (peak >= planner->best_peak)
        return;
    planner->best_peak = peak;
    for (uint32_t i = 0; i < planner->count; i++)
        planner->best[i] = planner->items[i].offset;
    memcpy(planner->best_order, planner->order, planner->count * sizeof *planner->order);
}

static bool is_enough(const struct planner *planner, uint64_t effort)
{
    return planner->best_peak <= planner->bound || planner->comparisons >= effort;
}

static void try_orders(struct planner *planner, uint64_t effort)
{
    for (int order = 0; order < ORDERS; order++) {
        for (uint32_t i = 0; i < planner->count; i++)
            planner->keys[i] = key_of(&planner->items[i], (enum order)order);
        plan_sort(planner->order, planner->keys, planner->count);
        for (int rule = 0; rule < GAP_RULES; rule++) {
            keep_if_best(planner, place_all(planner, (enum gap_rule)rule));
            if (is_enough(planner, effort))
                return;
        }
    }
}

/* Where in the order the item stands that has made the peak. */
static uint32_t position_of_peak(const struct planner *planner, uint64_t peak)
{
    uint32_t at = 0;
    while (at < planner->count) {
        const struct plan_item *item = &planner->items[planner->order[at]];
        if (item->size != 0 && item->offset + item->size == peak)
            break;
        at++;
    }
    return at;
}

/* Moves blocks that make the peak forward in the best order so far. */
static void improve_order(struct planner *planner, uint64_t effort)
{
    enum { PATIENCE = 64 }; /* rounds without a better plan before starting over from the best */
    uint32_t since_best = 0, rounds = 0;
    uint64_t peak = planner->best_peak;
    memcpy(planner->order, planner->best_order, planner->count * sizeof *planner->order);
    for (uint32_t i = 0; i < planner->count; i++)
        planner->items[i].offset = planner->best[i];
    while (!is_enough(planner, effort)) {
        uint32_t from = position_of_peak(planner, peak);
        if (from == 0 || from >= planner->count)
            return;
        uint32_t to = rounds++ % 4 == 3 ? 0 : from / 2;
        uint32_t moved = planner->order[from];
        memmove(&planner->order[to + 1], &planner->order[to], (from - to) * sizeof *planner->order);
        planner->order[to] = moved;
        peak = place_all(planner, (enum gap_rule)(since_best % GAP_RULES));
        since_best = peak < planner->best_peak ? 0 : since_best + 1;
        keep_if_best(planner, peak);
        if (since_best > PATIENCE)
            return;
    }
}

uint64_t plan_greedy(struct plan_item *items, uint32_t count, const struct plan_item *fixed,
                     uint32_t fixed_count, uint64_t effort, void *scratch)
{
    struct planner planner = {
        .items = items,
        .count = count,
        .fixed = fixed,
        .fixed_count = fixed_count,
        .best_peak = UINT64_MAX,
        .bound = plan_lower_bound(items, count, scratch),
    };
    if (count == 0)
        return 0;
    set_scratch(&planner, scratch);
    try_orders(&planner, effort);
    if (!is_enough(&planner, effort))
        improve_order(&planner, effort);
    for (uint32_t i = 0; i < count; i++)
        items[i].offset = planner.best[i];
    return planner.best_peak;
}
