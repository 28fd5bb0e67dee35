/* SPDX-License-Identifier: MIT */
/*
 * Which of several blocks at the same place the search tries first: see plan_search.c. A part is ranked when it comes to be, since
 * what lives with a block has changed by then. (Measured 2026-11: MiniMalloc's instance E takes minutes with ranks given
 * once for all.)
 */
#include "plan_search_state.h"

static int compare(uint64_t a, uint64_t b)
{
    return a > b ? -1 : a < b;
}

/* Below 0: a comes before b. */
static int compare_blocks(const struct search *search, uint32_t a, uint32_t b)
{
    const struct search_block *block_a = &search->blocks[a], *block_b = &search->blocks[b];
    int total = compare((uint64_t)search->total[a], (uint64_t)search->total[b]);
    int width = compare(block_a->width, block_b->width);
    int area = compare(block_a->area, block_b->area);
    int by[3];
    switch (search->ranking) {
    case WIDTH_AREA_TOTAL:
        by[0] = width, by[1] = area, by[2] = total;
        break;
    case TOTAL_AREA_WIDTH:
        by[0] = total, by[1] = area, by[2] = width;
        break;
    default:
        by[0] = total, by[1] = width, by[2] = area;
        break;
    }
    for (int i = 0; i < 3; i++) {
        if (by[i] != 0)
            return by[i];
    }
    return a < b ? -1 : 1;
}

/* Lets the entry at `at` sink; the root is the one that comes last. */
static void sink(const struct search *search, uint32_t *list, uint32_t at, uint32_t count)
{
    uint32_t moved = list[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && compare_blocks(search, list[child], list[child + 1]) < 0)
            child++;
        if (compare_blocks(search, moved, list[child]) >= 0)
            break;
        list[at] = list[child];
        at = child;
    }
    list[at] = moved;
}

void search_rank(struct search *search, const struct part *part)
{
    uint32_t *list = part->list;
    for (uint32_t i = 0; i < part->count; i++) {
        const struct search_block *block = &search->blocks[list[i]];
        int32_t total = 0;
        for (uint32_t s = block->first; s < block->end; s++)
            total = search->rest[s] > total ? search->rest[s] : total;
        search->total[list[i]] = total;
    }
    for (uint32_t i = part->count / 2; i-- > 0;)
        sink(search, list, i, part->count);
    for (uint32_t end = part->count; end-- > 1;) {
        uint32_t last = list[0];
        list[0] = list[end];
        list[end] = last;
        sink(search, list, 0, end);
    }
    for (uint32_t i = 0; i < part->count; i++)
        search->rank[list[i]] = i;
}
