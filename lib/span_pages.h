/* SPDX-License-Identifier: MIT */
/*
 * What a span heap knows of the pages of its regions: which have been touched (dirty), and when something in a chunk was last freed.
 * Called with the heap's lock held. `shift` is that of units in a page.
 */
#ifndef LARDER_SPAN_PAGES_H
#define LARDER_SPAN_PAGES_H

#include "region.h"

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
        region->idle_since[chunk] = now_ms;
    }
}

#endif
