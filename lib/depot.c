/* SPDX-License-Identifier: MIT */
/*
 * Theory
 *
 * Threads exchange whole magazines with the depot, so its lock is taken once for as many blocks as a
 * magazine holds. A full magazine is taken from the top of its stack: the blocks last used are the warmest.
 * `full_min` is the working-set measure of Bonwick & Adams (2001): the least number of full magazines since
 * the last reap have not been needed by anybody, and are what a reap frees; two reaps without any traffic free
 * everything. tests/model/depot.pml checks that no block is lost or doubled on the way.
 *
 * A run is linked here while it has free blocks. Runs are taken from the front and inserted at the front
 * when they get their first free block, so that few runs are in use and the others become empty. An empty run is a spare: it is
 * used before a new one is made, and is taken apart when its memory is wanted for other classes, before fresh pages are
 * touched for them (fit_magazines.c), or when a reap finds that nobody has needed it.
 *
 * The states of a run's blocks share a cache line, so two threads that have blocks of one run slow each other down with every
 * allocation and free. So a run is its taker's, the thread that took from it when it was a spare: others take from it only where there is no
 * memory, or where more than TAKER_WALK runs wait for their takers. (Measured 2026-11: two streams of a decoder 6.0 ns an
 * operation with runs for whoever comes, 4.0 so, and 4.0 with a line for each state.)
 */
#include "depot.h"

#include "depot_check.h"

enum { TAKER_WALK = 8 };

static void leave(struct depot *depot)
{
    depot_check(depot);
    spinlock_unlock(&depot->lock);
}

static struct magazine *top_full(struct depot *depot)
{
    return atomic_load_explicit(&depot->full, memory_order_relaxed);
}

static void set_full(struct depot *depot, struct magazine *magazine)
{
    atomic_store_explicit(&depot->full, magazine, memory_order_relaxed);
}

struct magazine *depot_take_full(struct depot *depot, struct magazine *empty)
{
    spinlock_lock(&depot->lock);
    struct magazine *full = top_full(depot);
    if (full != NULL) {
        set_full(depot, full->next);
        depot->full_count--;
        if (depot->full_count < depot->full_min)
            depot->full_min = depot->full_count;
        depot->exchanges++;
        if (empty != NULL) {
            empty->next = depot->empty;
            depot->empty = empty;
        }
    }
    leave(depot);
    return full;
}

struct magazine *depot_give_full(struct depot *depot, struct magazine *full)
{
    uint32_t now = os_now_ms();
    spinlock_lock(&depot->lock);
    depot->used_ms = now;
    full->next = top_full(depot);
    set_full(depot, full);
    depot->full_count++;
    depot->exchanges++;
    struct magazine *empty = depot->empty;
    if (empty != NULL)
        depot->empty = empty->next;
    leave(depot);
    return empty;
}

struct magazine *depot_detach_full(struct depot *depot, uint32_t count)
{
    struct magazine *detached = NULL;
    spinlock_lock(&depot->lock);
    struct magazine *magazine;
    while (count-- > 0 && (magazine = top_full(depot)) != NULL) {
        set_full(depot, magazine->next);
        depot->full_count--;
        magazine->next = detached;
        detached = magazine;
    }
    if (depot->full_count < depot->full_min)
        depot->full_min = depot->full_count;
    leave(depot);
    return detached;
}

struct magazine *depot_detach_empty(struct depot *depot)
{
    spinlock_lock(&depot->lock);
    struct magazine *detached = depot->empty;
    depot->empty = NULL;
    leave(depot);
    return detached;
}

uint32_t depot_reap_count(struct depot *depot, uint32_t now_ms, uint32_t idle_ms)
{
    spinlock_lock(&depot->lock);
    bool idle = os_is_idle(depot->used_ms, now_ms, idle_ms);
    uint32_t unneeded = idle ? depot->full_count : depot->full_min;
    depot->full_min = depot->full_count;
    leave(depot);
    return unneeded;
}

static void unlink_run(struct run **list, struct run *run)
{
    if (run->prev != NULL)
        run->prev->next = run->next;
    if (run->next != NULL)
        run->next->prev = run->prev;
    if (*list == run)
        *list = run->next;
}

static void link_run(struct run **list, struct run *run)
{
    run->prev = NULL;
    run->next = *list;
    if (*list != NULL)
        (*list)->prev = run;
    *list = run;
}

static void unlist(struct depot *depot, struct run *run)
{
    unlink_run(&depot->runs, run);
    run->listed = false;
}

static void list(struct depot *depot, struct run *run)
{
    link_run(&depot->runs, run);
    run->listed = true;
}

static void count_spares(struct depot *depot, uint32_t count)
{
    atomic_store_explicit(&depot->spare_count, count, memory_order_relaxed);
    if (count < depot->spare_min)
        depot->spare_min = count;
}

/* The first spare becomes the taker's run. */
static struct run *list_spare(struct depot *depot, const void *taker)
{
    struct run *run = depot->spares;
    unlink_run(&depot->spares, run);
    count_spares(depot, depot_spare_count(depot) - 1);
    run->taker = taker;
    list(depot, run);
    return run;
}

/* The taker's own run with free blocks. *others: there are more than a few, and none among the first is. */
static struct run *own_run(struct depot *depot, const void *taker, bool *others)
{
    struct run *run = depot->runs;
    for (int i = 0; i < TAKER_WALK && run != NULL; i++, run = run->next) {
        if (run->taker == taker)
            return run;
    }
    *others = run != NULL;
    return NULL;
}

/* A run with free blocks for the taker, NULL: none but a few of others; or, for NULL, any. */
static struct run *choose_run(struct depot *depot, const void *taker)
{
    bool others = true;
    struct run *run = taker != NULL ? own_run(depot, taker, &others) : depot->runs;
    if (run == NULL && depot->spares != NULL)
        return list_spare(depot, taker);
    return run == NULL && others ? depot->runs : run;
}

/* The lock is held. */
static uint32_t take_listed(struct depot *depot, const void *taker, struct round *rounds,
                            uint32_t wanted)
{
    uint32_t taken = 0;
    struct run *run;
    while (taken < wanted && (run = choose_run(depot, taker)) != NULL) {
        if (taken != 0 && taker != NULL && run->taker != taker)
            break; /* enough */
        while (taken < wanted && run->free_bits != 0) {
            uint32_t index = (uint32_t)__builtin_ctzll(run->free_bits);
            run->free_bits &= run->free_bits - 1;
            run->free_blocks--;
            rounds[taken++] = (struct round){run_block(run, index), &run->states[index]};
        }
        if (run->free_bits == 0)
            unlist(depot, run);
    }
    return taken;
}

uint32_t depot_take_blocks(struct depot *depot, const void *taker, struct round *rounds,
                           uint32_t wanted)
{
    spinlock_lock(&depot->lock);
    uint32_t taken = take_listed(depot, taker, rounds, wanted);
    leave(depot);
    return taken;
}

static void add_spare(struct depot *depot, struct run *run)
{
    link_run(&depot->spares, run);
    count_spares(depot, depot_spare_count(depot) + 1);
}

void depot_add_spare(struct depot *depot, struct run *run)
{
    spinlock_lock(&depot->lock);
    add_spare(depot, run);
    leave(depot);
}

void depot_give_blocks(struct depot *depot, const struct round *rounds, uint32_t count)
{
    uint32_t now = os_now_ms();
    spinlock_lock(&depot->lock);
    depot->used_ms = now;
    for (uint32_t i = 0; i < count; i++) {
        struct run *run = run_of_state(rounds[i].state, depot->record_size);
        depot_check_given(depot, &rounds[i], run);
        run->free_bits |= UINT64_C(1) << (rounds[i].state - run->states);
        run->free_blocks++;
        if (!run->listed)
            list(depot, run);
        if (run->free_blocks == run->blocks) {
            unlist(depot, run);
            add_spare(depot, run);
        }
    }
    leave(depot);
}

struct run *depot_detach_spares(struct depot *depot, uint32_t count)
{
    struct run *detached = NULL;
    spinlock_lock(&depot->lock);
    uint32_t left = depot_spare_count(depot);
    for (; count > 0 && left > 0; count--, left--) {
        struct run *run = depot->spares;
        unlink_run(&depot->spares, run);
        run->next = detached;
        detached = run;
    }
    count_spares(depot, left);
    leave(depot);
    return detached;
}

uint32_t depot_reap_spares(struct depot *depot, uint32_t now_ms, uint32_t idle_ms, bool *is_idle)
{
    spinlock_lock(&depot->lock);
    bool idle = *is_idle = os_is_idle(depot->used_ms, now_ms, idle_ms);
    uint32_t count = depot_spare_count(depot), unneeded = idle ? count : depot->spare_min;
    depot->spare_min = count;
    leave(depot);
    return unneeded;
}
