/* SPDX-License-Identifier: MIT */
/* larder_realloc(): in place where the block allows it, else allocate, copy, free; always with the owner. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "error.h"
#include "planned.h"
#include "thread_state.h"

/* What a large block has beyond its size must not reach the kind bits of its unit word. */
#define LARGEST_SLACK ((size_t)1 << WORD_KIND_SHIFT)

static void *realloc_unowned(struct larder *larder, void *ptr, size_t size)
{
    if (larder == NULL || larder->backend.allocate == larder_backend_system()->allocate) {
        return realloc(ptr, size);
    }
    error_report(larder, LARDER_ERROR_FOREIGN_POINTER, "larder_realloc", ptr, 0, "unknown");
    errno = EINVAL;
    return NULL;
}

/* What the caller may have written to is all that larder_usable_size() told, not only what was asked for. */
static void *realloc_moving(struct larder *owner, void *ptr, size_t usable, size_t size)
{
    bool orphaned = atomic_load_explicit(&owner->orphaned, memory_order_relaxed);
    if (orphaned) /* one block more to wait for, before the one that moves has gone */
        cache_orphan_allocated(owner);
    void *moved = larder_alloc(owner, size);
    if (moved == NULL) {
        if (orphaned)
            cache_orphan_freed(owner);
        return NULL;
    }
    memcpy(moved, ptr, usable < size ? usable : size);
    entry_free(owner, ptr, "larder_realloc");
    return moved;
}

/* In place: what the block occupies suffices and is not far too much. */
static bool realloc_in_place(const struct lookup *found, bool is_record, size_t size)
{
    struct larder *owner = found->owner;
    if (!owner->plain || is_record || size > found->usable || size < found->usable / 2 ||
        found->usable - size >= LARGEST_SLACK)
        return false;
    struct thread_cache *cache = thread_cache_of(owner);
    count_add(cache, &cache->counters.freed_bytes, found->size);
    count_add(cache, &cache->counters.allocated_bytes, size);
    fit_resize(owner, &found->fit, size);
    if (owner->planned != NULL)
        planned_note_resized(owner, found->fit.base + owner->front, size);
    return true;
}

void *larder_realloc(larder_t *larder, void *ptr, size_t size)
{
    if (ptr == NULL)
        return larder_alloc(larder, size);
    struct lookup found;
    enum lookup_result result = lookup_address(ptr, &found);
    if (result == LOOKUP_UNKNOWN)
        return realloc_unowned(larder, ptr, size);
    if (result == LOOKUP_INVALID || !found.live) {
        larder_error_kind_t kind =
            result == LOOKUP_INVALID ? LARDER_ERROR_INVALID_POINTER : LARDER_ERROR_DOUBLE_FREE;
        error_report(found.owner, kind, "larder_realloc", ptr, found.size, found.state);
        errno = EINVAL;
        return NULL;
    }
    if (realloc_in_place(&found, result == LOOKUP_RECORD, size))
        return ptr;
    return realloc_moving(found.owner, ptr, found.usable, size);
}
