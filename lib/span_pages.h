/* SPDX-License-Identifier: MIT */
/*
 * What a span heap knows of the pages of its regions: which have been touched (dirty), and when something in a chunk was last freed.
 * Called with the heap's lock held. `shift` is that of units in a page.
 */
#ifndef LARDER_SPAN_PAGES_H
#define LARDER_SPAN_PAGES_H

#include "region.h"

/* When something in the chunk was last freed. */
static inline uint32_t *pages_idle_since(const struct region *region, uint32_t chunk)
{
    return &region->notes[-(ptrdiff_t)chunk].idle_since;
}

/*
 * The word with the page's bit, page % 32: set if the page has been touched since it came or was discarded. So many pages are at
 * least two chunks, of which the first has the word.
 */
static inline uint32_t *pages_dirty_word(const struct region *region, uint32_t page)
{
    return &region->notes[-(ptrdiff_t)(page / 32 * 2)].dirty;
}

static inline bool pages_is_dirty(const struct region *region, uint32_t page)
{
    return (*pages_dirty_word(region, page) >> (page % 32) & 1) != 0;
}

/* The whole pages inside [start, end) units: the first, and one past the last. */
static inline uint32_t pages_first(uint32_t shift, uint32_t start)
{
    return (start + (1u << shift) - 1) >> shift;
}

static inline uint32_t pages_end(uint32_t shift, uint32_t end)
{
    return end >> shift;
}

/* Marks the pages that [start, start + length) units touch as dirty; returns how many were clean. */
uint32_t pages_mark_dirty(struct region *region, uint32_t shift, uint32_t start, uint32_t length);

/* Of [start, start + length) units, those up to the end of the last dirty page. */
uint32_t pages_touched_units(const struct region *region, uint32_t shift, uint32_t start,
                             uint32_t length);

/* Marks pages as clean: they have been discarded. */
void pages_mark_clean(struct region *region, uint32_t page, uint32_t pages);

/* Clean pages wholly inside [start, start + length) units. */
uint32_t pages_count_clean(const struct region *region, uint32_t shift, uint32_t start,
                           uint32_t length);

/* True if the page is dirty and its chunk has been idle for so long. */
bool pages_is_due(const struct region *region, uint32_t page, uint32_t now_ms, uint32_t idle_ms);

/* Something at [start, start + length) units has just been freed. */
static inline void pages_note_idle(struct region *region, uint32_t start, uint32_t length,
                                   uint32_t now_ms)
{
    uint32_t last = (start + length - 1) >> (CHUNK_SHIFT - UNIT_SHIFT);
    for (uint32_t chunk = start >> (CHUNK_SHIFT - UNIT_SHIFT); chunk <= last; chunk++) {
        *pages_idle_since(region, chunk) = now_ms;
    }
}

#endif
