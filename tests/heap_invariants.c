/* SPDX-License-Identifier: MIT */
/*
 * The walk (see heap_invariants.h). It reads a region from its first unit to its top: what starts there
 * tells its own length, so the spans tile the region exactly or the walk finds a word that starts nothing.
 * Then the bins and the tables of nodes are held against what the walk has met, and the counters against both.
 */
#include "heap_invariants.h"

#include <stdarg.h>
#include <stdio.h>

#include "heaps.h"
#include "span_pages.h"

static bool wrong(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("span heap: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return false;
}

#define must(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return wrong(#condition " does not hold: " __VA_ARGS__);                               \
    } while (0)

struct walk {
    const struct span_heap *heap;
    const struct region *region;
    struct heap_census *census;
    uint32_t unit; /* where the walk is */
    bool after_free;
};

static uint32_t units_in_page(void)
{
    return (uint32_t)(os_page_size() >> UNIT_SHIFT);
}

/* As the header words it, not as the heap computes it: 16 bins a doubling. */
static unsigned expected_bin(uint32_t length)
{
    unsigned doubling = 0;

    while (length >= 32u << doubling)
        doubling++;
    return doubling * 16 + (length >> doubling);
}

static bool nothing_between(const struct walk *walk, uint32_t first, uint32_t end)
{
    for (uint32_t unit = first; unit < end; unit++) {
        uint32_t word = word_load(&walk->region->words[unit]);

        must(word_kind(word) == WORD_NONE, "unit %u inside the span at %u has word %08x", unit,
             walk->unit, word);
    }
    return true;
}

static bool free_span_is_sound(struct walk *walk, uint32_t word, uint32_t *length)
{
    const struct region *region = walk->region;
    uint32_t index = word & WORD_INDEX_MASK, clean = 0;
    const struct span *span = &region->spans[index];

    must(!walk->after_free, "two free spans meet at unit %u", walk->unit);
    must(region->spans_most - 1 - index < region->spans_used, "node %u of %u", index,
         region->spans_used);
    must(span->index == index && span->region == region, "node %u is another's", index);
    must(span->start == walk->unit && span->length > 0, "node %u: %u + %u at unit %u", index,
         span->start, span->length, walk->unit);
    must(span->start % walk->heap->step == 0 && span->length % walk->heap->step == 0,
         "%u + %u with a step of %u", span->start, span->length, walk->heap->step);
    must(span->start + span->length <= region->top, "%u + %u beyond the top, %u", span->start,
         span->length, region->top);
    if (span->length > 1) {
        uint32_t last = span->start + span->length - 1, tail = word_load(&region->words[last]);

        must(tail == (WORD(WORD_FREE_TAIL) | index), "node %u: %u + %u ends with %08x", index,
             span->start, span->length, tail);
        if (!nothing_between(walk, span->start + 1, last))
            return false;
    }
    for (uint32_t page = 0; page * units_in_page() < span->start + span->length; page++)
        if (page * units_in_page() >= span->start &&
            (page + 1) * units_in_page() <= span->start + span->length)
            clean += !pages_is_dirty(region, page);
    must(span->clean == clean, "node %u says %u clean pages, the bitmap %u", index, span->clean,
         clean);
    must(span->in_dirty_bins == (clean == 0), "node %u with %u clean pages", index, clean);
    must(span->bin == expected_bin(span->length), "node %u of %u units in bin %u", index,
         span->length, span->bin);
    walk->census->free_spans++;
    walk->census->free_units += span->length;
    walk->census->clean_pages += clean;
    *length = span->length;
    return true;
}

/* The words of a run's units name the state of the block that starts in the unit, or of the one that covers it. */
static bool run_words_are_sound(const struct walk *walk, const struct run *run)
{
    const struct region *region = walk->region;
    for (uint32_t i = 0; i < run->length; i++) {
        uint32_t word = word_load(&region->words[run->start + i]);
        size_t first = (size_t)i * UNIT;
        if (first >= (size_t)run->blocks * run->block_size) {
            must(word == 0, "unit %u behind the blocks: %08x", run->start + i, word);
            continue;
        }
        must(word_kind(word) == WORD_RUN && word_class(word) == run->size_class, "unit %u: %08x",
             run->start + i, word);
        const struct block_state *state = region_state(region, word);
        must(state >= run->states && state < run->states + run->blocks, "unit %u: %08x",
             run->start + i, word);
        size_t at = (size_t)(state - run->states) * run->block_size;
        must(at < first + UNIT && at + run->block_size > first, "unit %u: block at %zu",
             run->start + i, at);
        bool is_last = state == run->states + run->blocks - 1;
        must(at >= first ? at - first < run->block_size
                         : is_last || at + run->block_size >= first + UNIT,
             "unit %u: another block starts in it than that at %zu", run->start + i, at);
    }
    return true;
}

static bool run_is_sound(struct walk *walk, uint32_t word, uint32_t *length)
{
    const struct region *region = walk->region;
    const struct run *run = run_of_first(region_state(region, word));
    const struct depot *depot = &region->instance->depots[run->size_class];
    uint32_t index = (uint32_t)(word & WORD_STATE_MASK);

    must((index + 1) * sizeof(struct block_state) <=
             atomic_load(&((struct region *)(uintptr_t)region)->run_bytes_used),
         "run %u", index);
    must(run->start == walk->unit && run->region == region, "run %u of unit %u at %u", index,
         run->start, walk->unit);
    must(run_of_state(&run->states[run->blocks - 1], depot->record_size) == run, "run %u", index);
    must(run->blocks == depot->run_blocks && run->block_size == depot->block_size &&
             run->length == depot->run_units,
         "run %u: %u blocks of %u", index, run->blocks, run->block_size);
    if (!run_words_are_sound(walk, run))
        return false;
    must(run->free_blocks == (unsigned)__builtin_popcountll(run->free_bits),
         "run %u: %u free, %llx", index, run->free_blocks, (unsigned long long)run->free_bits);
    must(run->listed == (run->free_blocks != 0 && run->free_blocks < run->blocks),
         "run %u with %u free", index, run->free_blocks);
    for (uint32_t i = 0; i < run->blocks; i++) {
        const struct block_state *state = &run->states[i];
        bool live = state_is_live(word_load(&state->word));
        uintptr_t address = (uintptr_t)region_address(region, run->start) + i * run->block_size;

        must(state->address == (uint32_t)address, "run %u, block %u: %08x", index, i,
             state->address);
        must(!live || (run->free_bits >> i & 1) == 0, "run %u, block %u is live and free", index,
             i);
        walk->census->live_blocks += live;
        walk->census->cached_blocks += !live && (run->free_bits >> i & 1) == 0;
    }
    *length = run->length;
    return true;
}

static bool block_is_sound(struct walk *walk, uint32_t word, uint32_t *length)
{
    uint32_t quiet = walk->unit + 1; /* nothing starts from here to the end */
    *length = word & WORD_INDEX_MASK;
    must(*length >= 2, "a large block of %u units", *length);
    uint32_t slack = word_load(&walk->region->words[quiet++]);
    must((size_t)slack <= (size_t)*length << UNIT_SHIFT, "%u of %u units", slack, *length);
    walk->census->live_blocks++;
    return nothing_between(walk, quiet, walk->unit + *length);
}

/* Whatever starts at walk->unit. */
static bool span_is_sound(struct walk *walk, uint32_t *length)
{
    const struct region *region = walk->region;
    uint32_t word = word_load(&region->words[walk->unit]);
    bool sound = false;

    switch (word_kind(word)) {
    case WORD_FREE:
        return free_span_is_sound(walk, word, length);
    case WORD_RUN:
        sound = run_is_sound(walk, word, length);
        break;
    case WORD_LARGE_LIVE:
        sound = block_is_sound(walk, word, length);
        break;
    case WORD_NONE:
    case WORD_LIVE:
    case WORD_CACHED:
    case WORD_FREE_TAIL:
    case WORD_LARGE_CACHED:
        return wrong("unit %u, where a span should start, has word %08x", walk->unit, word);
    }
    if (!sound)
        return false;
    must(*length % walk->heap->step == 0, "%u units at %u", *length, walk->unit);
    uint32_t last = (walk->unit + *length - 1) / units_in_page();
    for (uint32_t page = walk->unit / units_in_page(); page <= last; page++)
        must(pages_is_dirty(region, page), "page %u is in use, at unit %u, and clean", page,
             walk->unit);
    walk->census->used_units += *length;
    return true;
}

static bool nodes_are_accounted_for(const struct region *region, uint64_t free_spans)
{
    uint64_t unused = 0;

    for (const struct span *span = region->unused; span; span = span->next) {
        must(span->region == region, "an unused node of another region");
        must(++unused <= region->spans_used, "the unused nodes form a ring");
    }
    must(unused + free_spans == region->spans_used, "%llu unused, %llu in use, %u ever used",
         (unsigned long long)unused, (unsigned long long)free_spans, region->spans_used);
    return true;
}

static bool region_is_sound(const struct span_heap *heap, const struct region *region,
                            struct heap_census *census)
{
    struct walk walk = {heap, region, census, region_first_unit(), false};
    uint64_t free_before = census->free_spans;

    must(region->heap == heap, "a region of another heap");
    must(region->top >= walk.unit && region->top <= region_end_unit(region), "%u", region->top);
    must(word_load(&region->words[walk.unit - 1]) == 0, "the lower edge is in use");
    while (walk.unit < region->top) {
        uint64_t seen = census->free_spans;
        uint32_t length = 0;

        if (!span_is_sound(&walk, &length))
            return false;
        walk.after_free = census->free_spans != seen;
        walk.unit += length;
    }
    must(walk.unit == region->top, "the last span ends at %u, the top is %u", walk.unit,
         region->top);
    for (uint32_t unit = region->top; unit < region->top + 8; unit++)
        must(word_load(&region->words[unit]) == 0, "unit %u above the top, %u", unit, region->top);
    uint32_t page = (region->top + units_in_page() - 1) / units_in_page();
    for (uint32_t end = page + 8; page < end && page < region->units / units_in_page(); page++)
        must(!pages_is_dirty(region, page), "page %u above the top, %u", page, region->top);
    return nodes_are_accounted_for(region, census->free_spans - free_before);
}

static bool bins_are_sound(const struct span_bins *bins, bool dirty, uint64_t *spans)
{
    for (unsigned bin = 0; bin < SPAN_BINS; bin++) {
        const struct span *previous = NULL;
        bool occupied = (bins->occupied[bin / 64] >> (bin % 64) & 1) != 0;

        must(occupied == (bins->head[bin] != NULL), "bin %u", bin);
        must(!occupied || (bins->words >> (bin / 64) & 1) != 0, "bin %u", bin);
        for (const struct span *span = bins->head[bin]; span; span = span->next) {
            must(span->prev == previous, "bin %u: the links differ", bin);
            must(span->bin == bin && span->in_dirty_bins == dirty, "bin %u has a span of %u", bin,
                 span->bin);
            must(word_load(&span->region->words[span->start]) == (WORD(WORD_FREE) | span->index),
                 "bin %u has a span that is not free", bin);
            previous = span;
            ++*spans;
        }
    }
    for (unsigned word = 0; word < SPAN_BINS / 64 + 1; word++)
        must((bins->occupied[word] != 0) == ((bins->words >> word & 1) != 0), "word %u", word);
    return true;
}

static bool locked_heap_is_sound(struct span_heap *heap, struct heap_census *census)
{
    uint64_t in_bins = 0, total_units = 0, reserved = 0;
    const struct region *previous = NULL;

    for (const struct region *region = heap->regions; region; region = region->next) {
        must(region->prev == previous, "the list of regions");
        if (!region_is_sound(heap, region, census))
            return false;
        total_units += region->top - region_first_unit();
        reserved += (uint64_t)region->units << UNIT_SHIFT;
        census->regions++;
        previous = region;
    }
    if (!bins_are_sound(&heap->dirty, true, &in_bins) ||
        !bins_are_sound(&heap->mixed, false, &in_bins))
        return false;
    must(in_bins == census->free_spans, "%llu spans in bins, %llu in regions",
         (unsigned long long)in_bins, (unsigned long long)census->free_spans);
    must(heap->region_count == census->regions, "%u", heap->region_count);
    must(heap->reserved_bytes == reserved, "%llu", (unsigned long long)heap->reserved_bytes);
    must(heap->total_units == total_units, "%llu, counted %llu",
         (unsigned long long)heap->total_units, (unsigned long long)total_units);
    must(atomic_load(&heap->used_units) == census->used_units, "%llu, counted %llu",
         (unsigned long long)atomic_load(&heap->used_units),
         (unsigned long long)census->used_units);
    must(heap->clean_pages == census->clean_pages, "%llu, counted %llu",
         (unsigned long long)heap->clean_pages, (unsigned long long)census->clean_pages);
    return true;
}

bool heap_is_sound(struct span_heap *heap, struct heap_census *census)
{
    *census = (struct heap_census){0};
    span_heap_lock_settled(heap);
    bool sound = locked_heap_is_sound(heap, census);
    heap_lock_leave(&heap->lock);
    return sound;
}

bool instance_is_sound(struct larder *instance, struct heap_census *census)
{
    *census = (struct heap_census){0};
    for (uint32_t i = 0; i < heaps_count(instance); i++) {
        struct heap_census one;
        if (!heap_is_sound(heaps_at(instance, i), &one))
            return false;
        census->regions += one.regions;
        census->free_spans += one.free_spans;
        census->free_units += one.free_units;
        census->used_units += one.used_units;
        census->clean_pages += one.clean_pages;
        census->live_blocks += one.live_blocks;
        census->cached_blocks += one.cached_blocks;
    }
    return true;
}
