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
 * when they get their first free block, so that few runs are in use and the others become empty.
 */
#include "depot.h"

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
    spinlock_unlock(&depot->lock);
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
    spinlock_unlock(&depot->lock);
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
    spinlock_unlock(&depot->lock);
    return detached;
}

uint32_t depot_reap_count(struct depot *depot, uint32_t now_ms, uint32_t idle_ms)
{
    spinlock_lock(&depot->lock);
    bool idle = os_is_idle(depot->used_ms, now_ms, idle_ms);
    uint32_t unneeded = idle ? depot->full_count : depot->full_min;
    depot->full_min = depot->full_count;
    spinlock_unlock(&depot->lock);
    return unneeded;
}

static void unlist(struct depot *depot, struct run *run)
{
    if (run->prev != NULL)
        run->prev->next = run->next;
    if (run->next != NULL)
        run->next->prev = run->prev;
    if (depot->runs == run)
        depot->runs = run->next;
    run->listed = false;
}

static void list(struct depot *depot, struct run *run)
{
    run->prev = NULL;
    run->next = depot->runs;
    if (depot->runs != NULL)
        depot->runs->prev = run;
    depot->runs = run;
    run->listed = true;
}

/* From the front of the list; the lock is held. */
static uint32_t take_listed(struct depot *depot, struct round *rounds, uint32_t wanted)
{
    uint32_t taken = 0;
    while (taken < wanted && depot->runs != NULL) {
        struct run *run = depot->runs;
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

uint32_t depot_take_blocks(struct depot *depot, struct round *rounds, uint32_t wanted)
{
    spinlock_lock(&depot->lock);
    uint32_t taken = take_listed(depot, rounds, wanted);
    spinlock_unlock(&depot->lock);
    return taken;
}

uint32_t depot_add_run(struct depot *depot, struct run *run, struct round *rounds, uint32_t wanted)
{
    spinlock_lock(&depot->lock);
    list(depot, run);
    uint32_t taken = take_listed(depot, rounds, wanted);
    spinlock_unlock(&depot->lock);
    return taken;
}

struct run *run_of_word(const struct region *region, const word_t *word, uint32_t *index)
{
    size_t offset = (size_t)((const char *)(const void *)word - (const char *)region->runs);
    struct run *run = &region->runs[offset / sizeof(struct run)];
    *index = (uint32_t)(word - run->states);
    return run;
}

struct run *depot_give_blocks(struct depot *depot, const struct round *rounds, uint32_t count)
{
    struct run *empty = NULL;
    spinlock_lock(&depot->lock);
    for (uint32_t i = 0; i < count; i++) {
        struct region *region = allocation_map_region((uintptr_t)rounds[i].ptr);
        uint32_t index;
        struct run *run = run_of_word(region, rounds[i].word, &index);
        run->free_bits |= UINT64_C(1) << index;
        run->free_blocks++;
        if (!run->listed)
            list(depot, run);
        if (run->free_blocks == run->blocks) {
            unlist(depot, run);
            run->next = empty;
            empty = run;
        }
    }
    spinlock_unlock(&depot->lock);
    return empty;
}
