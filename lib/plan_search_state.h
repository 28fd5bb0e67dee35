/* SPDX-License-Identifier: MIT */
/* What the exact search works on; shared by plan_search.c, which searches, and plan_best.c, which prepares and directs it. */
#ifndef LARDER_PLAN_SEARCH_STATE_H
#define LARDER_PLAN_SEARCH_STATE_H

#include "plan_search.h"

/* A block that has a size, by the sections in which it lives. */
struct search_block {
    uint32_t first, end; /* sections, half open */
    int32_t size, alignment;
    uint32_t width; /* time from beginning to end */
    uint64_t area;
};

struct change {
    uint32_t where; /* index from search->low on */
    int32_t was;
};

/* Sections [from, to) and the blocks in them that are still to be placed. */
struct part {
    uint32_t *list;
    uint32_t count, from, to;
};

/* By which properties blocks are ranked, the largest first: how long they live, how much lives with them, size x time. */
enum ranking { WIDTH_AREA_TOTAL, TOTAL_AREA_WIDTH, TOTAL_WIDTH_AREA, RANKINGS };

struct search {
    const struct plan_search_limits *limits;
    uint64_t nodes, nodes_left;
    bool stopped;
    enum ranking ranking;
    int32_t capacity;
    uint32_t count, sections, member_words;
    /* by block */
    struct search_block *blocks;
    int32_t *low;    /* the lowest place above those placed; floor follows in the same array */
    int32_t *offset; /* where it was placed last: the plan, once the search has found one */
    int32_t *total;  /* the most in one of its sections, when its part was ranked */
    uint32_t *rank;  /* which of two at one place goes first; within its part */
    uint32_t *item;  /* its index among the caller's */
    uint64_t *open;  /* a bit a block: still to be placed */
    /* by section */
    int32_t *floor;     /* where the next block in it may lie at the lowest */
    int32_t *rest;      /* sum of sizes still to be placed */
    uint32_t *crossing; /* blocks still to be placed that live in it and the next */
    uint64_t *members;  /* bits of the blocks in it, member_words each */
    /* stacks */
    struct change *trail;
    uint32_t *lists, *cut_lists;
    size_t trail_count, lists_used, cut_lists_used;
    size_t trail_most, lists_most; /* the search gives up where they do not suffice */
};

/* Sorts the part's list by rank, and gives each block its rank. */
void search_rank(struct search *search, const struct part *part);

/* Looks for a plan within search->capacity, at most `nodes` partial plans long. All blocks are open, floors and lows 0. */
enum plan_search_result search_run(struct search *search, uint64_t nodes);

#endif
