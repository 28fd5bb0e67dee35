/* SPDX-License-Identifier: MIT */
/* Questions about blocks, and blocks that somebody else releases. */
#include <errno.h>

#include "entry.h"
#include "error.h"
#include "heaps.h"
#include "planned.h"
#include "thread_state.h"

size_t larder_usable_size(const void *ptr)
{
    struct lookup found;
    if (ptr == NULL)
        return 0;
    enum lookup_result result = lookup_address(ptr, &found);
    if (result != LOOKUP_FIT && result != LOOKUP_RECORD)
        return 0;
    if (!found.live)
        return 0;
    return found.owner->plain ? found.usable : found.size;
}

size_t larder_good_size(const larder_t *larder, size_t size)
{
    if (size > LARGEST_REQUEST)
        return SIZE_MAX;
    if (larder->plain && size <= larder->config.max_cached_size) {
        size_t good = fit_good_size(larder, size);
        if (good != 0)
            return good;
    }
    return size;
}

larder_t *larder_owner(const void *ptr)
{
    struct lookup found;
    if (ptr == NULL)
        return NULL;
    enum lookup_result result = lookup_address(ptr, &found);
    if ((result != LOOKUP_FIT && result != LOOKUP_RECORD) || !found.live)
        return NULL;
    return atomic_load_explicit(&found.owner->orphaned, memory_order_relaxed) ? NULL : found.owner;
}

int larder_record_free(void *ptr)
{
    struct lookup found;
    if (ptr == NULL)
        return 0;
    switch (lookup_address(ptr, &found)) {
    case LOOKUP_UNKNOWN:
        return 0;
    case LOOKUP_FIT:
    case LOOKUP_INVALID:
        error_report(found.owner, LARDER_ERROR_REFUSED, "larder_record_free", ptr, found.size,
                     found.state);
        return -EPERM;
    case LOOKUP_RECORD:
        break;
    }
    bool strict = found.owner->config.checks == LARDER_CHECKS_STRICT;
    if (!block_mark_cached(found.record, strict)) {
        error_report(found.owner, LARDER_ERROR_DOUBLE_FREE, "larder_record_free", ptr, found.size,
                     found.state);
        return -EINVAL;
    }
    struct thread_cache *cache = thread_cache_of(found.owner);
    count_free(cache, found.size);
    count_add(cache, &cache->counters.slow_frees, 1);
    cache_note_record(found.owner, 0 - (uint64_t)found.size);
    block_forget(found.record);
    if (atomic_load_explicit(&found.owner->orphaned, memory_order_relaxed)) {
        cache_orphan_freed(found.owner);
    }
    return 0;
}

int larder_walk(larder_t *larder, larder_walk_fn *fn, void *context)
{
    int stop = block_walk(larder, fn, context);
    if (stop == 0)
        stop = planned_walk(larder, fn, context);
    for (uint32_t i = 0; i < heaps_count(larder); i++) {
        struct span_heap *heap = heaps_at(larder, i);
        span_heap_lock_settled(heap);
        for (struct region *region = heap->regions; region != NULL && stop == 0;
             region = region->next) {
            stop = fit_walk_region(region, fn, context);
        }
        heap_lock_leave(&heap->lock);
    }
    return stop;
}
