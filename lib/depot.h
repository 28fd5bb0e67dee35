/* SPDX-License-Identifier: MIT */
/*
 * The depot of one size class: the global stacks of full and empty magazines behind the threads, and, for
 * classes whose blocks lie in runs, the runs that have free blocks. One lock a class.
 */
#ifndef LARDER_DEPOT_H
#define LARDER_DEPOT_H

#include "invariant.h"
#include "magazine.h"

struct depot {
    _Alignas(64) spinlock_t lock;
    _Atomic(struct magazine *)
        full;               /* stack; guarded by lock, as all below; may be looked at without */
    struct magazine *empty; /* stack */
    uint32_t full_count;
    uint32_t full_min;            /* fewest since the last reap: nobody needed these */
    uint32_t used_ms;             /* when a magazine or block was last given */
    struct run *runs;             /* with free blocks and others */
    struct run *spares;           /* with free blocks only */
    _Atomic uint32_t spare_count; /* read without the lock too */
    uint32_t spare_min;           /* fewest since the last reap */
    uint64_t exchanges;
#ifdef LARDER_CHECKS_FULL
    struct check_pace pace; /* of depot_check() */
#endif
    /* fixed */
    uint32_t block_size;
    uint32_t run_blocks; /* blocks a run, 0 where blocks are spans of their own */
    uint32_t run_units;
    uint32_t record_size; /* of a run */
};

/* Takes a full magazine and leaves an empty one (`empty` may be NULL). NULL where there is no full one; then
 * nothing has changed. */
struct magazine *depot_take_full(struct depot *depot, struct magazine *empty);

/* Leaves a full magazine. Returns an empty one if there is any. */
struct magazine *depot_give_full(struct depot *depot, struct magazine *full);

/* Detaches up to `count` full magazines, linked through next. */
struct magazine *depot_detach_full(struct depot *depot, uint32_t count);

/* Detaches all empty magazines, linked through next. */
struct magazine *depot_detach_empty(struct depot *depot);

/* Working-set reaping: how many full magazines nobody has needed since the last call; all of them if none has been
 * given for `idle_ms`. */
uint32_t depot_reap_count(struct depot *depot, uint32_t now_ms, uint32_t idle_ms);

/*
 * Fills up to `wanted` rounds from runs with free blocks; returns how many. The blocks' words are CACHED already. `taker` stands for
 * the thread: its own runs come first, and a few that are others' are left alone; nothing is done with it but to compare it. NULL: all are alike, and there
 * is one if there is any.
 */
uint32_t depot_take_blocks(struct depot *depot, const void *taker, struct round *rounds,
                           uint32_t wanted);

/* Adds a new run, all blocks of which are free. */
void depot_add_spare(struct depot *depot, struct run *run);

/* Takes blocks back into their runs. Those that have only free blocks now become spares. */
void depot_give_blocks(struct depot *depot, const struct round *rounds, uint32_t count);

/* Detaches up to `count` spare runs, linked through next. */
struct run *depot_detach_spares(struct depot *depot, uint32_t count);

/* As depot_reap_count(), of spare runs. *is_idle: the class has not been in use for that long. */
uint32_t depot_reap_spares(struct depot *depot, uint32_t now_ms, uint32_t idle_ms, bool *is_idle);

static inline uint32_t depot_spare_count(const struct depot *depot)
{
    return atomic_load_explicit(&((struct depot *)(uintptr_t)depot)->spare_count,
                                memory_order_relaxed);
}

/* Address of a run's block. */
static inline char *run_block(const struct run *run, uint32_t index)
{
    return region_address(run->region, run->start) + (size_t)index * run->block_size;
}

#endif
