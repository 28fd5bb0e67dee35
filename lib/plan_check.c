/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * A sweep over time. What lives at the moment is a set of intervals of addresses, disjoint so far; an item that begins
 * overlaps one of them only if it overlaps its neighbour below or above. Items are ranked by offset beforehand, so the
 * set is a set of small numbers: a bitmap with a bitmap over its words, and so on up to a single word, in which the next lower
 * and higher member are found in a few steps. n log n for the sorts, n log64 n for the sweep.
 */
#include "plan_check.h"

#include <stdbool.h>
#include <string.h>

#include "plan_sort.h"

enum { LEVELS = 6 }; /* 64^6 > 2^32 */

struct rank_set {
    uint64_t *
        levels[LEVELS]; /* [0] has a bit a rank, [k + 1] a bit for each word of [k] that is not 0 */
    uint32_t words[LEVELS];
};

static size_t round_up_16(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

static size_t set_words(uint32_t count)
{
    size_t words = 0, level = count;
    for (int k = 0; k < LEVELS; k++) {
        level = level / 64 + 1;
        words += level;
    }
    return words;
}

size_t plan_check_scratch_bytes(uint32_t count)
{
    size_t n = (size_t)count + 1;
    return round_up_16(n * sizeof(uint64_t)) + 4 * round_up_16(n * sizeof(uint32_t)) +
           round_up_16(set_words(count) * sizeof(uint64_t));
}

/* ---- the set ---- */

static void set_init(struct rank_set *set, uint64_t *memory, uint32_t count)
{
    uint32_t words = count;
    memset(memory, 0, set_words(count) * sizeof *memory);
    for (int k = 0; k < LEVELS; k++) {
        words = words / 64 + 1;
        set->levels[k] = memory;
        set->words[k] = words;
        memory += words;
    }
}

static void set_add(struct rank_set *set, uint32_t rank)
{
    for (int k = 0; k < LEVELS; k++) {
        set->levels[k][rank / 64] |= UINT64_C(1) << rank % 64;
        rank /= 64;
    }
}

static void set_remove(struct rank_set *set, uint32_t rank)
{
    for (int k = 0; k < LEVELS; k++) {
        set->levels[k][rank / 64] &= ~(UINT64_C(1) << rank % 64);
        if (set->levels[k][rank / 64] != 0)
            return;
        rank /= 64;
    }
}

/* The highest member below `rank`. */
static bool set_below(const struct rank_set *set, uint32_t rank, uint32_t *found)
{
    for (int k = 0; k < LEVELS; k++) {
        uint64_t bits = set->levels[k][rank / 64] & ((UINT64_C(1) << rank % 64) - 1);
        rank /= 64;
        if (bits == 0)
            continue;
        rank = rank * 64 + 63 - (uint32_t)__builtin_clzll(bits);
        while (k-- > 0)
            rank = rank * 64 + 63 - (uint32_t)__builtin_clzll(set->levels[k][rank]);
        *found = rank;
        return true;
    }
    return false;
}

/* The lowest member above `rank`. */
static bool set_above(const struct rank_set *set, uint32_t rank, uint32_t *found)
{
    for (int k = 0; k < LEVELS; k++) {
        uint64_t bits =
            rank % 64 == 63 ? 0 : set->levels[k][rank / 64] & UINT64_MAX << (rank % 64 + 1);
        rank /= 64;
        if (bits == 0)
            continue;
        rank = rank * 64 + (uint32_t)__builtin_ctzll(bits);
        while (k-- > 0)
            rank = rank * 64 + (uint32_t)__builtin_ctzll(set->levels[k][rank]);
        *found = rank;
        return true;
    }
    return false;
}

/* ---- the sweep ---- */

struct sweep {
    const struct plan_item *items;
    uint32_t *by_offset; /* items; the index is the rank */
    uint32_t *rank_of;
    struct rank_set live;
};

/* The item that overlaps `item` among its neighbours, if one does. */
static bool overlaps(const struct sweep *sweep, uint32_t item, uint32_t *other)
{
    const struct plan_item *items = sweep->items;
    uint32_t rank = sweep->rank_of[item], neighbour;
    if (set_below(&sweep->live, rank, &neighbour)) {
        *other = sweep->by_offset[neighbour];
        if (items[*other].offset + items[*other].size > items[item].offset)
            return true;
    }
    if (set_above(&sweep->live, rank, &neighbour)) {
        *other = sweep->by_offset[neighbour];
        if (items[item].offset + items[item].size > items[*other].offset)
            return true;
    }
    return false;
}

/* Faults that an item has by itself. */
static enum plan_fault fault_of(const struct plan_item *item, uint64_t capacity)
{
    if (item->begin >= item->end)
        return PLAN_NO_LIFETIME;
    if (item->alignment > 1 && item->offset % item->alignment != 0)
        return PLAN_MISALIGNED;
    uint64_t limit = capacity < PLAN_SIZE_MAX ? capacity : PLAN_SIZE_MAX;
    if (item->size > limit || item->offset > limit - item->size)
        return PLAN_TOO_HIGH;
    return PLAN_FINE;
}

struct plan_verdict plan_check(const struct plan_item *items, uint32_t count, uint64_t capacity,
                               void *scratch)
{
    size_t indices = round_up_16(((size_t)count + 1) * sizeof(uint32_t));
    char *next = scratch;
    uint64_t *keys = (uint64_t *)(void *)next;
    next += round_up_16(((size_t)count + 1) * sizeof(uint64_t));
    uint32_t *begins = (uint32_t *)(void *)next;
    uint32_t *ends = (uint32_t *)(void *)(next + indices);
    struct sweep sweep = {
        .items = items,
        .by_offset = (uint32_t *)(void *)(next + 2 * indices),
        .rank_of = (uint32_t *)(void *)(next + 3 * indices),
    };
    set_init(&sweep.live, (uint64_t *)(void *)(next + 4 * indices), count);
    for (uint32_t i = 0; i < count; i++) {
        enum plan_fault fault = fault_of(&items[i], capacity);
        if (fault != PLAN_FINE)
            return (struct plan_verdict){fault, i, i};
        keys[i] = items[i].offset;
    }
    plan_sort(sweep.by_offset, keys, count);
    for (uint32_t i = 0; i < count; i++)
        sweep.rank_of[sweep.by_offset[i]] = i;
    for (uint32_t i = 0; i < count; i++)
        keys[i] = items[i].begin;
    plan_sort(begins, keys, count);
    for (uint32_t i = 0; i < count; i++)
        keys[i] = items[i].end;
    plan_sort(ends, keys, count);
    uint32_t ended = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t item = begins[i], other;
        for (; items[ends[ended]].end <= items[item].begin; ended++)
            set_remove(&sweep.live, sweep.rank_of[ends[ended]]);
        if (items[item].size == 0)
            continue;
        if (overlaps(&sweep, item, &other))
            return (struct plan_verdict){PLAN_OVERLAP, item, other};
        set_add(&sweep.live, sweep.rank_of[item]);
    }
    return (struct plan_verdict){PLAN_FINE, 0, 0};
}

const char *plan_fault_text(enum plan_fault fault)
{
    switch (fault) {
    case PLAN_NO_LIFETIME:
        return "does not end after it begins";
    case PLAN_MISALIGNED:
        return "is not aligned";
    case PLAN_TOO_HIGH:
        return "ends above the capacity";
    case PLAN_OVERLAP:
        return "overlaps another";
    default:
        return "is fine";
    }
}
