/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * The lowest peak lies between what lives at once and what the greedy plan needs. Each search for a plan within some capacity moves
 * one of the two: a plan found is a new upper limit, a search that ends without one a new bound. How long a search takes is anyone's
 * guess, from microseconds to years, and depends on capacity and order; so every combination of a few capacities (the bound itself,
 * which mostly can be met, steps from there up to the peak so far, and steps down from that) and all orders gets a turn with few
 * nodes, then one with twice as many, and so on, until the limits of the whole are reached. The steps down grow as long as plans are
 * found: neighbouring capacities may differ a thousandfold in time, and who lowers the peak by one unit after another
 * meets all of them. (Measured 2026-11, MiniMalloc's instance J: 1050624 after a minute of that, 1048576 after a second of
 * this.)
 *
 * Source of the orders and of the turns: MiniMalloc, see plan_search.c.
 */
#include <string.h>

#include "plan_search_state.h"
#include "plan_sort.h"

/* Sizes and offsets of the search stay below, so that sums of two do not overflow. */
#define SEARCH_SIZE_MAX (INT32_MAX / 2)

/* Entries of the search's stacks; those of large instances hardly grow to n x n. */
#define STACK_MOST ((size_t)4 << 20)

/* ---- scratch ---- */

static size_t round_up_16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

struct arena {
    char *next; /* NULL: only counting */
    size_t bytes;
};

static void *arena_get(struct arena *arena, size_t count, size_t size)
{
    void *got = arena->next;
    size_t bytes = round_up_16(count * size);
    arena->bytes += bytes;
    if (arena->next != NULL)
        arena->next += bytes;
    return got;
}

/* The tables for `n` blocks; there are at most as many sections. A path through the search places each block once. */
static void lay_out(struct search *search, struct arena *arena, size_t n)
{
    size_t words = (n + 63) / 64;
    search->blocks = arena_get(arena, n, sizeof *search->blocks);
    search->low = arena_get(arena, 2 * n, sizeof *search->low);
    search->offset = arena_get(arena, n, sizeof *search->offset);
    search->total = arena_get(arena, n, sizeof *search->total);
    search->rank = arena_get(arena, n, sizeof *search->rank);
    search->item = arena_get(arena, n, sizeof *search->item);
    search->open = arena_get(arena, words, sizeof *search->open);
    search->rest = arena_get(arena, n, sizeof *search->rest);
    search->crossing = arena_get(arena, n, sizeof *search->crossing);
    search->members = arena_get(arena, n * words, sizeof *search->members);
    search->cut_lists = arena_get(arena, n, sizeof *search->cut_lists);
    search->lists_most = 2 * n * n + 4 * n < STACK_MOST ? 2 * n * n + 4 * n : STACK_MOST;
    search->trail_most = 3 * n * n < STACK_MOST ? 3 * n * n : STACK_MOST;
    search->lists = arena_get(arena, search->lists_most, sizeof *search->lists);
    search->trail = arena_get(arena, search->trail_most, sizeof *search->trail);
    search->member_words = (uint32_t)words;
}

struct work {
    uint64_t *keys;
    uint32_t *order, *ends;
    void *greedy;
};

static void lay_out_work(struct work *work, struct arena *arena, uint32_t count)
{
    size_t n = (size_t)count + 1;
    work->keys = arena_get(arena, n, sizeof *work->keys);
    work->order = arena_get(arena, n, sizeof *work->order);
    work->ends = arena_get(arena, n, sizeof *work->ends);
    work->greedy = arena_get(arena, 1, plan_scratch_bytes(count));
}

size_t plan_search_scratch_bytes(uint32_t count)
{
    struct search search;
    struct work work;
    struct arena arena = {NULL, 0};
    lay_out_work(&work, &arena, count);
    if (count <= PLAN_SEARCH_MOST)
        lay_out(&search, &arena, (size_t)count + 1);
    return arena.bytes;
}

/* ---- from items to blocks ---- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The unit of the search: divides all sizes and alignments. 0: the blocks are too large for it, or there are none. */
static uint64_t find_unit(const struct plan_item *items, uint32_t count, uint64_t capacity)
{
    uint64_t unit = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].size == 0)
            continue;
        unit = common_divisor(unit, items[i].size);
        if (items[i].alignment > 1)
            unit = common_divisor(unit, items[i].alignment);
    }
    if (unit == 0 || capacity / unit >= SEARCH_SIZE_MAX)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].alignment / unit >= SEARCH_SIZE_MAX)
            return 0;
    }
    return unit;
}

static void add_block(struct search *search, const struct plan_item *items, uint32_t i,
                      uint64_t unit)
{
    uint32_t b = search->count++;
    search->item[b] = i;
    search->blocks[b] = (struct search_block){
        .size = (int32_t)(items[i].size / unit),
        .alignment = items[i].alignment > 1 ? (int32_t)(items[i].alignment / unit) : 1,
        .width = items[i].end - items[i].begin,
    };
    search->blocks[b].area = (uint64_t)search->blocks[b].width * (items[i].size / unit);
}

/* Numbers the sections and tells each block which are its own. An end comes before a beginning at the same time. */
static void find_sections(struct search *search, struct work *work, const struct plan_item *items)
{
    uint32_t *begins = work->order, *ends = work->ends, ended = 0, section = 0;
    for (uint32_t b = 0; b < search->count; b++)
        work->keys[b] = items[search->item[b]].begin;
    plan_sort(begins, work->keys, search->count);
    for (uint32_t b = 0; b < search->count; b++)
        work->keys[b] = items[search->item[b]].end;
    plan_sort(ends, work->keys, search->count);
    for (uint32_t i = 0; i < search->count; i++) {
        uint32_t before = ended;
        while (items[search->item[ends[ended]]].end <= items[search->item[begins[i]]].begin)
            search->blocks[ends[ended++]].end = section + 1;
        if (ended != before)
            section++;
        search->blocks[begins[i]].first = section;
    }
    while (ended < search->count)
        search->blocks[ends[ended++]].end = section + 1;
    search->sections = section + 1;
}

static void fill_sections(struct search *search)
{
    search->floor = search->low + search->count;
    memset(search->low, 0, (search->count + search->sections) * sizeof *search->low);
    memset(search->rest, 0, search->sections * sizeof *search->rest);
    memset(search->crossing, 0, search->sections * sizeof *search->crossing);
    memset(search->rank, 0, search->count * sizeof *search->rank);
    memset(search->open, 0, search->member_words * sizeof *search->open);
    memset(search->members, 0,
           (size_t)search->sections * search->member_words * sizeof *search->members);
    for (uint32_t b = 0; b < search->count; b++) {
        const struct search_block *block = &search->blocks[b];
        search->open[b / 64] |= UINT64_C(1) << b % 64;
        for (uint32_t s = block->first; s < block->end; s++) {
            search->members[(size_t)s * search->member_words + b / 64] |= UINT64_C(1) << b % 64;
            search->rest[s] += block->size;
            search->crossing[s] += s + 1 < block->end;
        }
    }
}

/* False if there is nothing to search, or the search cannot hold it. */
static bool prepare(struct search *search, struct work *work, const struct plan_item *items,
                    uint32_t count, uint64_t capacity, uint64_t *unit)
{
    *unit = count <= PLAN_SEARCH_MOST ? find_unit(items, count, capacity) : 0;
    if (*unit == 0)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].size != 0)
            add_block(search, items, i, *unit);
    }
    find_sections(search, work, items);
    fill_sections(search);
    return true;
}

/* ---- directing ---- */

static void take_plan(const struct search *search, struct plan_item *items, uint64_t unit)
{
    for (uint32_t b = 0; b < search->count; b++)
        items[search->item[b]].offset = (uint64_t)search->offset[b] * unit;
}

/* One turn: a capacity, an order, so many nodes. */
static enum plan_search_result take_turn(struct search *search, uint64_t capacity, int ranking,
                                         uint64_t nodes)
{
    uint64_t left = search->limits->nodes - search->nodes;
    search->capacity = (int32_t)capacity;
    search->ranking = (enum ranking)ranking;
    return search_run(search, nodes < left ? nodes : left);
}

static bool is_over(const struct search *search)
{
    return search->stopped || search->nodes >= search->limits->nodes;
}

enum plan_search_result plan_search(struct plan_item *items, uint32_t count, uint64_t capacity,
                                    const struct plan_search_limits *limits, void *scratch)
{
    struct search search = {.limits = limits};
    struct work work;
    struct arena arena = {scratch, 0};
    uint64_t unit;
    lay_out_work(&work, &arena, count);
    lay_out(&search, &arena, (size_t)count + 1);
    if (!prepare(&search, &work, items, count, capacity, &unit))
        return plan_peak(items, count) == 0 ? PLAN_FOUND : PLAN_GAVE_UP;
    for (uint64_t nodes = 2 * (uint64_t)count; !is_over(&search); nodes *= 2) {
        for (int ranking = 0; ranking < RANKINGS && !is_over(&search); ranking++) {
            enum plan_search_result result = take_turn(&search, capacity / unit, ranking, nodes);
            if (result == PLAN_FOUND)
                take_plan(&search, items, unit);
            if (result != PLAN_GAVE_UP)
                return result;
        }
    }
    return PLAN_GAVE_UP;
}

static void tell(const struct search *search, const struct plan_outcome *outcome)
{
    const struct plan_search_limits *limits = search->limits;
    if (limits->tell != NULL)
        limits->tell(limits->context, outcome->peak, outcome->bound);
}

/* Moves peak or bound of the outcome by what a turn has found. */
static void note_turn(struct search *search, struct plan_item *items, uint32_t count, uint64_t unit,
                      uint64_t capacity, enum plan_search_result result,
                      struct plan_outcome *outcome)
{
    if (result == PLAN_FOUND) {
        take_plan(search, items, unit);
        outcome->peak = plan_peak(items, count);
    } else if (result == PLAN_IMPOSSIBLE && (capacity + 1) * unit > outcome->bound) {
        outcome->bound = (capacity + 1) * unit;
    } else {
        return;
    }
    tell(search, outcome);
}

static bool is_enough(const struct plan_outcome *outcome, uint64_t enough)
{
    return outcome->peak <= outcome->bound || outcome->peak <= enough;
}

/* What is searched: blocks, and what has come of it so far. */
struct quest {
    struct search *search;
    struct plan_item *items;
    uint32_t count;
    uint64_t unit, enough;
    struct plan_outcome outcome;
};

static bool is_done(const struct quest *quest)
{
    return is_enough(&quest->outcome, quest->enough) || is_over(quest->search);
}

/* The lowest capacity worth a try, in units. */
static uint64_t lowest_wanted(const struct quest *quest)
{
    uint64_t bound = quest->outcome.bound, enough = quest->enough;
    return (bound > enough ? bound : enough) / quest->unit;
}

/* Turns with all orders at a capacity, until one has an answer. */
static enum plan_search_result try_capacity(struct quest *quest, uint64_t capacity, uint64_t nodes)
{
    enum plan_search_result result = PLAN_GAVE_UP;
    for (int ranking = 0; ranking < RANKINGS && result == PLAN_GAVE_UP; ranking++) {
        if (is_over(quest->search))
            return PLAN_GAVE_UP;
        result = take_turn(quest->search, capacity, ranking, nodes);
    }
    note_turn(quest->search, quest->items, quest->count, quest->unit, capacity, result,
              &quest->outcome);
    return result;
}

/* Lowers the peak by steps that grow as long as plans are found and shrink where they are not. */
static void descend(struct quest *quest, uint64_t nodes)
{
    uint64_t step = 1;
    for (bool growing = true; step != 0 && !is_done(quest);) {
        uint64_t peak = quest->outcome.peak / quest->unit, lowest = lowest_wanted(quest);
        uint64_t capacity = peak - lowest > step ? peak - step : lowest;
        bool found = try_capacity(quest, capacity, nodes) == PLAN_FOUND;
        growing = growing && found;
        step = growing ? 2 * step : step / 2;
    }
}

static void search_for_best(struct quest *quest)
{
    enum { PARTS = 4 };
    for (uint64_t nodes = 2 * (uint64_t)quest->count; !is_done(quest); nodes *= 2) {
        for (uint64_t part = 0; part < PARTS - 1 && !is_done(quest); part++) {
            uint64_t lowest = lowest_wanted(quest);
            uint64_t span = quest->outcome.peak / quest->unit - 1 - lowest;
            try_capacity(quest, lowest + span * part / PARTS, part == 0 ? 4 * nodes : nodes);
        }
        descend(quest, nodes);
    }
}

struct plan_outcome plan_best(struct plan_item *items, uint32_t count, uint64_t effort,
                              uint64_t enough, const struct plan_search_limits *limits,
                              void *scratch)
{
    struct search search = {.limits = limits};
    struct quest quest = {.search = &search, .items = items, .count = count, .enough = enough};
    struct plan_outcome *outcome = &quest.outcome;
    struct work work;
    struct arena arena = {scratch, 0};
    lay_out_work(&work, &arena, count);
    outcome->bound = plan_lower_bound(items, count, work.greedy);
    outcome->peak = plan_greedy(items, count, NULL, 0, effort, work.greedy);
    tell(&search, outcome);
    if (is_enough(outcome, enough) || count > PLAN_SEARCH_MOST)
        return *outcome;
    lay_out(&search, &arena, (size_t)count + 1);
    if (prepare(&search, &work, items, count, outcome->peak, &quest.unit))
        search_for_best(&quest);
    return *outcome;
}
