/* SPDX-License-Identifier: MIT */
/* Runs for `fit`: made of spans for a class, kept as spares while they have no block in use, and taken apart. See fit.c. */
#include "fit.h"
#include "fit_tiers.h"
#include "thread_state.h"

/* The words of a run's units: see region.h. */
static void enter_run(struct region *region, const struct run *run)
{
    uint32_t first = (uint32_t)(run->states - region->runs);
    uint32_t word = WORD(WORD_RUN) | (uint32_t)run->size_class << WORD_CLASS_SHIFT | first;
    uint32_t step = run->block_size,
             start = 0; /* of the first block that starts in the unit, or after it */
    uint32_t end = (uint32_t)run->blocks * step; /* of the last block */
    word_t *words = &region->words[run->start];
    for (uint32_t unit = 0, index = 0; unit < run->length; unit++) {
        uint32_t offset = unit << UNIT_SHIFT;
        for (; start < offset; start += step)
            index++;
        /* none starts here, or none any more: the one before covers it */
        bool covered = start >= offset + UNIT || index >= run->blocks;
        word_store(&words[unit], offset < end ? word + index - covered : 0);
    }
}

bool fit_run_create(struct larder *instance, struct thread_cache *cache, unsigned c)
{
    struct depot *depot = &instance->depots[c];
    struct taken_span taken =
        fit_take_span(&instance->small_heap, cache, depot->run_units, 0, WORD(WORD_LARGE_CACHED));
    if (taken.region == NULL)
        return false;
    if (taken.fresh_pages != 0)
        fit_note_fresh(instance, cache);
    struct region *region = taken.region;
    struct run *run = region_run_get(region, depot->block_size);
    if (run == NULL) {
        fit_put_span(cache, region, taken.start, depot->run_units,
                     WORD(WORD_LARGE_CACHED) | depot->run_units);
        return false;
    }
    /* under the heap's lock, for larder_walk(), which may meet the span now */
    span_heap_lock_settled(region->heap);
    run->start = taken.start;
    run->length = depot->run_units;
    run->block_size = depot->block_size;
    run->size_class = (uint16_t)c;
    run->blocks = run->free_blocks = (uint16_t)depot->run_blocks;
    run->listed = false;
    run->free_bits = (UINT64_C(1) << run->blocks) - 1;
    uint32_t address = (uint32_t)(uintptr_t)region_address(region, run->start);
    for (uint32_t i = 0; i < run->blocks; i++, address += run->block_size) {
        struct block_state *state = &run->states[i];
        state->address = address;
        word_store(&state->word, word_load(&state->word) & STATE_GENERATION_MASK);
    }
    enter_run(region, run);
    heap_lock_leave(&region->heap->lock);
    depot_add_spare(depot, run);
    return true;
}

static void run_destroy(struct thread_cache *cache, struct run *run)
{
    struct region *region = run->region;
    uint32_t start = run->start, length = run->length;
    uint32_t nobodys = WORD(WORD_LARGE_CACHED) | length;
    span_heap_lock_settled(region->heap); /* as in fit_run_create() */
    word_store(&region->words[start], nobodys);
    for (uint32_t unit = start + 1; unit < start + length; unit++) {
        word_store(&region->words[unit], 0);
    }
    heap_lock_leave(&region->heap->lock);
    region_run_put(region, run);
    fit_put_span(cache, region, start, length, nobodys);
}

size_t fit_destroy_spares(struct larder *instance, unsigned c, uint32_t count)
{
    size_t bytes = 0;
    for (struct run *run = depot_detach_spares(&instance->depots[c], count); run != NULL;) {
        struct run *next = run->next;
        bytes += span_bytes(run->length);
        run_destroy(&instance->late, run);
        run = next;
    }
    return bytes;
}

uint64_t fit_spare_bytes(const struct larder *instance)
{
    uint64_t bytes = 0;
    for (unsigned c = 0; c < instance->class_count; c++) {
        const struct depot *depot = &instance->depots[c];
        bytes += (uint64_t)depot_spare_count(depot) * span_bytes(depot->run_units);
    }
    return bytes;
}

void fit_release_spares(struct larder *instance)
{
    for (unsigned c = 0; c < instance->class_count; c++) {
        if (depot_spare_count(&instance->depots[c]) != 0)
            fit_destroy_spares(instance, c, UINT32_MAX);
    }
}

void fit_give_rounds(struct larder *instance, unsigned c, const struct round *rounds,
                     uint32_t count)
{
    depot_give_blocks(&instance->depots[c], rounds, count);
    /* A cap does not know of spares, and of an orphan nobody will want them. */
    if (instance->capped || atomic_load_explicit(&instance->orphaned, memory_order_relaxed))
        fit_destroy_spares(instance, c, UINT32_MAX);
}
