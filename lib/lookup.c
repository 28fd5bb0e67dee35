/* SPDX-License-Identifier: MIT */
#include "lookup.h"

#include "thread_state.h"

/*
 * Each hint is for one kind. The record of a region that has gone may have become one of the other kind: left in the wrong hint,
 * it would send every free there the slow way.
 */
static struct region *keep_hint(struct region *region)
{
    if (region->heap == &region->instance->small_heap) {
        thread_state.small_hint = region;
        if (thread_state.hint == region)
            thread_state.hint = &no_region;
    } else {
        thread_state.hint = region;
        if (thread_state.small_hint == region)
            thread_state.small_hint = &no_region;
    }
    return region;
}

static struct region *region_of(uintptr_t address)
{
    size_t offset;
    if (region_contains(thread_state.hint, address, &offset))
        return keep_hint(thread_state.hint);
    if (region_contains(thread_state.small_hint, address, &offset))
        return keep_hint(thread_state.small_hint);
    struct region *region = allocation_map_region(address);
    if (region == NULL || !region_contains(region, address, &offset))
        return NULL;
    return keep_hint(region);
}

enum lookup_result lookup_address(const void *ptr, struct lookup *found)
{
    uintptr_t address = os_untagged(ptr);
    *found = (struct lookup){.state = "unknown"};
    if (allocation_map_prepare() != 0)
        return LOOKUP_UNKNOWN;
    struct region *region = region_of(address);
    if (region != NULL) {
        found->owner = region->instance;
        if (!fit_find(region, address, &found->fit, &found->state))
            return LOOKUP_INVALID;
        found->live = fit_is_live(&found->fit);
        found->size = found->fit.size;
        if (found->fit.bytes != 0) {
            found->usable = found->fit.bytes - found->owner->front - found->owner->back;
        }
        return LOOKUP_FIT;
    }
    struct block_record *record = allocation_map_block(address);
    /* A lookup of an address that comes and goes meanwhile may give another block's record (tests/model/map.pml);
     * records never move, so this one can say that it is not the one. */
    if (record == NULL || atomic_load_explicit(&record->address, memory_order_relaxed) != address)
        return LOOKUP_UNKNOWN;
    found->record = record;
    found->owner = record->instance;
    found->live = word_kind(word_load(&record->word)) == WORD_LIVE;
    found->state = found->live ? "live" : "cached";
    found->size = record->size;
    found->usable = record->raw_size - (address - os_untagged(record->raw)) - found->owner->back;
    return LOOKUP_RECORD;
}
