/* SPDX-License-Identifier: MIT */
#include "depot_check.h"

#ifdef LARDER_CHECKS_FULL

#include "depot.h"

enum { LOOKED_AT = 2 }; /* of each list, at every call */

static void must(bool holds, const char *what, uint64_t number)
{
    invariant_holds(holds, "depot", what, number);
}

/* ---- runs ---- */

/* A state is that of the block which its address says, and nobody's. */
static void check_cached(const struct run *run, uint32_t index)
{
    const struct block_state *state = &run->states[index];
    uintptr_t address = (uintptr_t)run_block(run, index);
    must(index < run->blocks, "a block beyond its run's last one", index);
    must(state->address == (uint32_t)address, "a block's state is another's", address);
    must(!state_is_live(word_load(&state->word)), "a live block among the free ones", address);
}

/* The words of a run's units do not change while it is one. */
static void check_run(const struct depot *depot, const struct run *run)
{
    const struct region *region = run->region;
    must(run->block_size == depot->block_size && run->blocks == depot->run_blocks &&
             run->length == depot->run_units,
         "a run of another class", run->block_size);
    must(run_of_state(&run->states[run->blocks - 1], depot->record_size) == run,
         "a run's record that lies askew", run->start);
    must(run->start >= region_first_unit() && run->length <= region_end_unit(region) - run->start,
         "a run beyond its region", run->start);
    must(allocation_map_region((uintptr_t)run_block(run, 0)) == region,
         "a run that the map does not know", (uintptr_t)run_block(run, 0));
    must(run->free_blocks == (unsigned)__builtin_popcountll(run->free_bits) &&
             run->free_bits >> (run->blocks - 1) <= 1,
         "a run's free blocks", run->free_bits);
    uint32_t used_units = (uint32_t)(((size_t)run->blocks * run->block_size + UNIT - 1) / UNIT);
    for (uint32_t i = 0; i < used_units; i++) {
        uint32_t word = word_load(&region->words[run->start + i]);
        must(word_kind(word) == WORD_RUN && word_class(word) == run->size_class &&
                 run_of_state(region_state(region, word), depot->record_size) == run,
             "a unit of a run that says otherwise", run->start + i);
    }
    for (uint64_t bits = run->free_bits; bits != 0; bits &= bits - 1)
        check_cached(run, (uint32_t)__builtin_ctzll(bits));
}

/* Up to `most` of a list, which has `length` unless that is UINT32_MAX. */
static uint32_t check_runs(const struct depot *depot, const struct run *first, bool spare,
                           uint32_t length, uint32_t most)
{
    uint32_t seen = 0;
    const struct run *previous = NULL;
    for (const struct run *run = first; run != NULL && seen < most; run = run->next, seen++) {
        must(run->prev == previous, "a list of runs", seen);
        must(run->listed == !spare, "a run in another list than it says", run->start);
        must(spare ? run->free_blocks == run->blocks
                   : run->free_blocks != 0 && run->free_blocks < run->blocks,
             spare ? "a spare with blocks in use" : "a listed run without both kinds of blocks",
             run->free_blocks);
        check_run(depot, run);
        previous = run;
    }
    must(length == UINT32_MAX || (seen < most ? seen == length : seen <= length),
         "spare runs in all", seen);
    return seen;
}

void depot_check_given(const struct depot *depot, const struct round *round, const struct run *run)
{
    uint32_t index = (uint32_t)(round->state - run->states);
    check_run(depot, run);
    check_cached(run, index);
    must((run->free_bits >> index & 1) == 0, "a block that comes back twice",
         (uintptr_t)round->ptr);
    must(run_block(run, index) == round->ptr, "a block with another's state",
         (uintptr_t)round->ptr);
}

/* ---- magazines ---- */

/* One of its blocks that is among its run's free ones, too, would be handed out twice. */
static void check_round(const struct depot *depot, const struct round *round)
{
    const struct run *run = run_of_state(round->state, depot->record_size);
    uint32_t index = (uint32_t)(round->state - run->states);
    check_cached(run, index);
    must(run->block_size == depot->block_size, "a block of another class in a magazine",
         run->block_size);
    must(run_block(run, index) == round->ptr, "a block with another's state",
         (uintptr_t)round->ptr);
    must((run->free_bits >> index & 1) == 0, "a block in a magazine and free in its run",
         (uintptr_t)round->ptr);
}

static uint32_t check_full(const struct depot *depot, struct magazine *first, uint32_t most)
{
    uint32_t seen = 0, steps = 0;
    for (const struct magazine *full = first; full != NULL && seen < most;
         full = full->next, seen++) {
        must(full->count == full->capacity && full->count != 0, "a full magazine that is not",
             full->count);
        for (uint32_t i = 0; i < full->count; i++)
            check_round(depot, &full->rounds[i]);
        steps += full->count;
    }
    must(seen < most ? seen == depot->full_count : seen <= depot->full_count,
         "full magazines in all", seen);
    must(depot->full_min <= depot->full_count, "fewest full magazines", depot->full_min);
    return steps;
}

static uint32_t check_empty(const struct magazine *empty, uint32_t most)
{
    uint32_t seen = 0;
    for (; empty != NULL && seen < most; empty = empty->next, seen++)
        must(empty->count == 0 && empty->capacity != 0, "an empty magazine that is not",
             empty->count);
    return seen;
}

void depot_check(struct depot *depot)
{
    bool all = check_is_due(&depot->pace);
    uint32_t most = all ? UINT32_MAX : LOOKED_AT, spares = depot_spare_count(depot);
    uint64_t steps =
        check_full(depot, atomic_load_explicit(&depot->full, memory_order_relaxed), most);
    steps += check_empty(depot->empty, most);
    steps += check_runs(depot, depot->runs, false, UINT32_MAX, most);
    steps += check_runs(depot, depot->spares, true, spares, most);
    must(depot->spare_min <= spares, "fewest spare runs", depot->spare_min);
    if (all)
        check_walked(&depot->pace, steps);
}

#else

typedef int depot_check_is_empty; /* ISO C wants a declaration */

#endif
