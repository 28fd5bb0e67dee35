/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * A plan is a set of stacks: let every block fall as low as the blocks below it allow, and the plan gets no higher. So
 * it is enough to look at plans in which each block lies at 0 or right on top of another that it shares time with, and to build
 * them from the bottom up: blocks are placed in order of offset, each at the lowest place that those placed before
 * leave free above them (`low`). That is a depth-first search, with a choice at each node which block comes next.
 * What keeps it small:
 *
 *   - Order. Of two blocks that could be exchanged without a change, only one order is looked at: a block follows
 *     in the search if its (offset, rank) is greater than the one's before.
 *   - Sections. Between two moments at which something ends after something began, the same blocks live. A section's
 *     floor is where its next block may lie at the lowest; floor plus the sizes still to be placed there must fit below the
 *     capacity. The floor is never below the present offset, as all that follow lie above, and never below the
 *     lowest `low` of the section's blocks.
 *   - Gaps. A block does not go to where another would still fit entirely below: that plan is met with the other block
 *     placed first.
 *   - Hats. Where nothing that is still to be placed shares time with a block, that block's place cannot have been a mistake:
 *     its alternatives are not tried.
 *   - Parts. Where no block that is still to be placed crosses from one section to the next, both sides are searched
 *     apart from each other, the fuller one first; what fails on one side need not be tried again for each plan of the other.
 *
 * Which block is tried first (`rank`) decides much, and no order is best for all instances; plan_best() lets several take turns with
 * growing limits on nodes.
 *
 * Numbers are 32 bits wide here, in units of the greatest common divisor of all sizes and alignments, so that the check
 * of the sections becomes vector instructions.
 *
 * Source: M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS
 * 2023, where all of these prunings are.
 */
#include "plan_search_state.h"

/* ---- placing a block, and taking it back ---- */

static void set_value(struct search *search, int32_t *where, int32_t value)
{
    search->trail[search->trail_count++] = (struct change){(uint32_t)(where - search->low), *where};
    *where = value;
}

static void trail_undo(struct search *search, size_t mark)
{
    while (search->trail_count > mark) {
        const struct change *change = &search->trail[--search->trail_count];
        search->low[change->where] = change->was;
    }
}

static int32_t align_up(int32_t offset, int32_t alignment)
{
    int32_t rest = alignment <= 1 ? 0 : offset % alignment;
    return rest == 0 ? offset : offset + alignment - rest;
}

/* What lies above `block`, once it is placed, must lie above its top. Returns false if nothing does. */
static bool raise_others(struct search *search, const uint32_t *list, uint32_t count,
                         const struct search_block *block, int32_t top, uint32_t *from,
                         uint32_t *to)
{
    bool hat = false;
    for (uint32_t i = 0; i < count; i++) {
        const struct search_block *other = &search->blocks[list[i]];
        if (other->first >= block->end || other->end <= block->first)
            continue;
        hat = true;
        int32_t *low = &search->low[list[i]];
        if (*low >= top)
            continue;
        set_value(search, low, align_up(top, other->alignment));
        if (other->first < *from)
            *from = other->first;
        if (other->end > *to)
            *to = other->end;
    }
    return hat;
}

/* The lowest place that a block of the section which is still to be placed may have; `floor` at least if that is it. */
static int32_t lowest_in(const struct search *search, uint32_t section, int32_t floor)
{
    const uint64_t *members = &search->members[(size_t)section * search->member_words];
    int32_t lowest = INT32_MAX;
    for (uint32_t w = 0; w < search->member_words; w++) {
        for (uint64_t bits = members[w] & search->open[w]; bits != 0; bits &= bits - 1) {
            int32_t low = search->low[w * 64 + (uint32_t)__builtin_ctzll(bits)];
            if (low <= floor)
                return floor;
            if (low < lowest)
                lowest = low;
        }
    }
    return lowest == INT32_MAX ? floor : lowest;
}

static void raise_floors(struct search *search, uint32_t from, uint32_t to)
{
    for (uint32_t s = from; s < to; s++) {
        int32_t floor = lowest_in(search, s, search->floor[s]);
        if (floor > search->floor[s])
            set_value(search, &search->floor[s], floor);
    }
}

/* True if each section can still take what it has to, from its floor or the present offset on. */
static bool sections_fit(const struct search *search, uint32_t from, uint32_t to, int32_t offset)
{
    const int32_t *floor = search->floor, *rest = search->rest;
    int32_t highest = 0;
    for (uint32_t s = from; s < to; s++) {
        int32_t base = floor[s] > offset ? floor[s] : offset;
        int32_t top = base + rest[s];
        highest = top > highest ? top : highest;
    }
    return highest <= search->capacity;
}

static void open_block(struct search *search, uint32_t b)
{
    search->open[b / 64] |= UINT64_C(1) << b % 64;
}

static void close_block(struct search *search, uint32_t b)
{
    search->open[b / 64] &= ~(UINT64_C(1) << b % 64);
}

/* ---- the search ---- */

static enum plan_search_result search_part(struct search *search, struct part part,
                                           int32_t last_offset, uint32_t last_rank);

/* Fuller parts first: if one fails, it should fail soon. */
static int32_t fullness(const struct search *search, uint32_t from, uint32_t to)
{
    int32_t highest = 0;
    for (uint32_t s = from; s < to; s++) {
        int32_t top = search->floor[s] + search->rest[s];
        highest = top > highest ? top : highest;
    }
    return highest;
}

/* Searches the part's sections [from, to) as a part of their own, if any block is left in them. */
static enum plan_search_result search_between(struct search *search, const struct part *part,
                                              uint32_t from, uint32_t to)
{
    uint32_t *list = &search->lists[search->lists_used], count = 0;
    for (uint32_t i = 0; i < part->count; i++) {
        const struct search_block *block = &search->blocks[part->list[i]];
        if (block->first >= from && block->end <= to)
            list[count++] = part->list[i];
    }
    if (count == 0)
        return PLAN_FOUND;
    search->lists_used += 2 * count;
    struct part piece = {list, count, from, to};
    uint32_t *ranks = list + count;
    for (uint32_t i = 0, at = 0; i < part->count; i++) {
        const struct search_block *block = &search->blocks[part->list[i]];
        if (block->first >= from && block->end <= to)
            ranks[at++] = search->rank[part->list[i]];
    }
    search_rank(search, &piece);
    enum plan_search_result result = search_part(search, piece, -1, 0);
    for (uint32_t i = 0, at = 0; i < part->count; i++) {
        const struct search_block *block = &search->blocks[part->list[i]];
        if (block->first >= from && block->end <= to)
            search->rank[part->list[i]] = ranks[at++];
    }
    search->lists_used -= 2 * count;
    return result;
}

/* Searches the pieces that the cuts leave of a part. `cuts` has the first sections of all but the first piece. */
static enum plan_search_result search_pieces(struct search *search, const struct part *part,
                                             const uint32_t *cuts, uint32_t cut_count)
{
    uint32_t fullest = 0;
    int32_t most = -1;
    for (uint32_t i = 0; i <= cut_count; i++) {
        uint32_t from = i == 0 ? part->from : cuts[i - 1];
        uint32_t to = i == cut_count ? part->to : cuts[i];
        int32_t full = fullness(search, from, to);
        if (full > most) {
            most = full;
            fullest = i;
        }
    }
    for (uint32_t k = 0; k <= cut_count; k++) {
        uint32_t i = k == 0 ? fullest : k <= fullest ? k - 1 : k;
        uint32_t from = i == 0 ? part->from : cuts[i - 1];
        uint32_t to = i == cut_count ? part->to : cuts[i];
        enum plan_search_result result = search_between(search, part, from, to);
        if (result != PLAN_FOUND)
            return result;
    }
    return PLAN_FOUND;
}

/* Goes on after `b` has been placed: with the rest of the part, or with the pieces into which it has fallen. */
static enum plan_search_result search_rest(struct search *search, const struct part *part,
                                           uint32_t b)
{
    const struct search_block *block = &search->blocks[b];
    uint32_t *cuts = &search->cut_lists[search->cut_lists_used], cut_count = 0;
    for (uint32_t s = block->first; s + 1 < block->end; s++) {
        if (--search->crossing[s] == 0)
            cuts[cut_count++] = s + 1;
    }
    enum plan_search_result result;
    if (cut_count == 0) {
        result = search_part(search, *part, search->offset[b], search->rank[b]);
    } else {
        search->cut_lists_used += cut_count;
        result = search_pieces(search, part, cuts, cut_count);
        search->cut_lists_used -= cut_count;
    }
    for (uint32_t s = block->first; s + 1 < block->end; s++)
        search->crossing[s]++;
    return result;
}

/* Places the block at `at` of the part's list and searches on. *hat: whether anything may lie above it. */
static enum plan_search_result try_block(struct search *search, const struct part *part,
                                         uint32_t at, bool *hat)
{
    uint32_t b = part->list[at], last = part->count - 1;
    const struct search_block *block = &search->blocks[b];
    size_t mark = search->trail_count;
    uint32_t raised_from = UINT32_MAX, raised_to = 0;
    int32_t offset = search->low[b], top = offset + block->size;
    part->list[at] = part->list[last];
    part->list[last] = b;
    close_block(search, b);
    search->offset[b] = offset;
    *hat = raise_others(search, part->list, last, block, top, &raised_from, &raised_to);
    for (uint32_t s = block->first; s < block->end; s++) {
        set_value(search, &search->floor[s], top);
        search->rest[s] -= block->size;
    }
    raise_floors(search, raised_from, raised_to);
    enum plan_search_result result = PLAN_IMPOSSIBLE;
    if (sections_fit(search, part->from, part->to, offset)) {
        struct part rest = {part->list, last, part->from, part->to};
        result = search_rest(search, &rest, b);
    }
    for (uint32_t s = block->first; s < block->end; s++)
        search->rest[s] += block->size;
    trail_undo(search, mark);
    open_block(search, b);
    part->list[last] = part->list[at];
    part->list[at] = b;
    return result;
}

/* True if a comes before b: lower, or the same and of lower rank. */
static bool comes_before(const struct search *search, uint32_t a, uint32_t b)
{
    int32_t low_a = search->low[a], low_b = search->low[b];
    return low_a != low_b ? low_a < low_b : search->rank[a] < search->rank[b];
}

/* The blocks of the part that may come next, in the order in which to try them. */
static uint32_t list_choices(struct search *search, const struct part *part, int32_t last_offset,
                             uint32_t last_rank, uint32_t *choices)
{
    int32_t lowest_top = INT32_MAX;
    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t b = part->list[i];
        int32_t top = search->low[b] + search->blocks[b].size;
        lowest_top = top < lowest_top ? top : lowest_top;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t b = part->list[i];
        int32_t low = search->low[b];
        if (low >= lowest_top || low < last_offset ||
            (low == last_offset && search->rank[b] < last_rank))
            continue;
        uint32_t at = count++;
        for (; at > 0 && comes_before(search, b, choices[at - 1]); at--)
            choices[at] = choices[at - 1];
        choices[at] = b;
    }
    return count;
}

/* Room on the stacks for what one node of the part may put there. */
static bool has_room(const struct search *search, const struct part *part)
{
    size_t trail = (size_t)part->count + 2 * (size_t)(part->to - part->from);
    return search->trail_most - search->trail_count > trail &&
           search->lists_most - search->lists_used > 4 * (size_t)part->count;
}

static bool may_go_on(struct search *search, const struct part *part)
{
    if (search->nodes_left == 0)
        return false;
    search->nodes_left--;
    const struct plan_search_limits *limits = search->limits;
    if (++search->nodes % 256 == 0 && limits->stop != NULL && limits->stop(limits->context))
        search->stopped = true;
    return !search->stopped && has_room(search, part);
}

static enum plan_search_result search_part(struct search *search, struct part part,
                                           int32_t last_offset, uint32_t last_rank)
{
    if (part.count == 0)
        return PLAN_FOUND;
    if (!may_go_on(search, &part))
        return PLAN_GAVE_UP;
    uint32_t *choices = &search->lists[search->lists_used];
    uint32_t count = list_choices(search, &part, last_offset, last_rank, choices);
    search->lists_used += count;
    enum plan_search_result result = PLAN_IMPOSSIBLE;
    for (uint32_t i = 0; i < count && result == PLAN_IMPOSSIBLE; i++) {
        uint32_t at = 0;
        while (part.list[at] != choices[i])
            at++;
        bool hat;
        result = try_block(search, &part, at, &hat);
        if (!hat)
            break;
    }
    search->lists_used -= count;
    return result;
}

enum plan_search_result search_run(struct search *search, uint64_t nodes)
{
    search->nodes_left = nodes;
    search->lists_used = search->trail_count = search->cut_lists_used = 0;
    uint32_t *all = search->lists;
    search->lists_used = search->count;
    for (uint32_t b = 0; b < search->count; b++)
        all[b] = b;
    struct part whole = {all, search->count, 0, search->sections};
    if (!sections_fit(search, 0, search->sections, 0))
        return PLAN_IMPOSSIBLE;
    uint32_t *cuts = search->cut_lists, cut_count = 0;
    for (uint32_t s = 0; s + 1 < search->sections; s++) {
        if (search->crossing[s] == 0)
            cuts[cut_count++] = s + 1;
    }
    search->cut_lists_used = cut_count;
    return search_pieces(search, &whole, cuts, cut_count);
}
