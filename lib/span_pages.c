/* SPDX-License-Identifier: MIT */
#include "span_pages.h"

/* The bits of the word of `page` for pages up to end, and how many they are. */
static uint32_t page_mask(uint32_t page, uint32_t end, uint32_t *count)
{
    uint32_t bit = page % 32;
    *count = end - page < 32 - bit ? end - page : 32 - bit;
    return (*count == 32 ? UINT32_MAX : (UINT32_C(1) << *count) - 1) << bit;
}

uint32_t pages_mark_dirty(struct region *region, uint32_t shift, uint32_t start, uint32_t length)
{
    uint32_t page = start >> shift;
    uint32_t end = ((start + length - 1) >> shift) + 1;
    uint32_t clean = 0, count;
    for (; page < end; page += count) {
        uint32_t mask = page_mask(page, end, &count);
        uint32_t *word = pages_dirty_word(region, page);
        clean += (uint32_t)__builtin_popcount(~*word & mask);
        *word |= mask;
    }
    return clean;
}

uint32_t pages_touched_units(const struct region *region, uint32_t shift, uint32_t start,
                             uint32_t length)
{
    uint32_t first = start >> shift;
    uint32_t end = ((start + length - 1) >> shift) + 1;
    while (end > first) {
        /* the bits of the word that holds page end - 1, from the first page on up to that one */
        uint32_t low = (end - 1) & ~31u, count;
        uint32_t from = low < first ? first : low;
        uint32_t dirty = *pages_dirty_word(region, low) & page_mask(from, end, &count);
        if (dirty != 0) {
            uint32_t untouched = (low + 32 - (uint32_t)__builtin_clz(dirty)) << shift;
            uint32_t units = untouched - start;
            return units < length ? units : length;
        }
        end = from;
    }
    return 0;
}

void pages_mark_clean(struct region *region, uint32_t page, uint32_t pages)
{
    uint32_t count;
    for (uint32_t end = page + pages; page < end; page += count) {
        *pages_dirty_word(region, page) &= ~page_mask(page, end, &count);
    }
}

uint32_t pages_count_clean(const struct region *region, uint32_t shift, uint32_t start,
                           uint32_t length)
{
    uint32_t page = pages_first(shift, start), end = pages_end(shift, start + length);
    uint32_t clean = 0, count;
    for (; page < end; page += count) {
        uint32_t mask = page_mask(page, end, &count);
        clean += (uint32_t)__builtin_popcount(~*pages_dirty_word(region, page) & mask);
    }
    return clean;
}

bool pages_is_due(const struct region *region, uint32_t page, uint32_t now_ms, uint32_t idle_ms)
{
    if (!pages_is_dirty(region, page))
        return false;
    uint32_t chunk = (uint32_t)(((size_t)page * os_page_size()) >> CHUNK_SHIFT);
    return os_is_idle(*pages_idle_since(region, chunk), now_ms, idle_ms);
}
