/* SPDX-License-Identifier: MIT */
/*
 * Offline planning: places for blocks of which sizes and lifetimes are known ahead, such that no two that live at
 * the same time overlap, and the highest address in use is low.
 *
 * Nothing here allocates, locks or makes a system call: the caller gives the memory, so a planner may run inside an allocator.
 * Sizes and offsets are in units of the caller's choice, which should be the alignment that all blocks share: then no
 * place is lost to rounding, and plan_lower_bound() is what no plan can beat.
 */
#ifndef LARDER_PLAN_LAYOUT_H
#define LARDER_PLAN_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

/* A block: in use from time `begin` on, no more at `end` (begin < end). */
struct plan_item {
    uint32_t begin, end;
    uint64_t size;      /* units; 0 is allowed and lies anywhere */
    uint64_t offset;    /* units: the result, or the place of a fixed block */
    uint32_t alignment; /* units: offset is a multiple of it; 0 and 1: any */
};

/* The sum of all sizes, and anything the functions below compute, must stay below. */
#define PLAN_SIZE_MAX (UINT64_C(1) << 60)

/*
 * How many comparisons of two blocks plan_greedy() may make, about 1 ns each, before it stops looking for better plans. The
 * first takes count x count / 2 at most.
 */
#define PLAN_EFFORT_DEFAULT UINT64_C(20000000)

/* Bytes of scratch memory, at a multiple of 16, that the functions below want for `count` items, fixed ones included. */
size_t plan_scratch_bytes(uint32_t count);

/* The most that lives at one time, in units: no plan is lower. */
uint64_t plan_lower_bound(const struct plan_item *items, uint32_t count, void *scratch);

/* The end of the highest block. */
uint64_t plan_peak(const struct plan_item *items, uint32_t count);

/*
 * Sets the offset of each item, and returns the peak over them. `fixed` blocks (NULL with 0: none) stay where they are and are in nobody's
 * way outside of their lifetime; one from 0 to UINT32_MAX stands for addresses that are never free. Deterministic. Orders
 * are tried until one meets the lower bound or `effort` is used up: 0 tries one.
 */
uint64_t plan_greedy(struct plan_item *items, uint32_t count, const struct plan_item *fixed,
                     uint32_t fixed_count, uint64_t effort, void *scratch);

#endif
