/* SPDX-License-Identifier: MIT */
/*
 * Free: the hit path, and what is to be done with pointers that are not what they should be.
 *
 * The hit path has to find the block's state from the address: the thread's hint, the region of small blocks that it last freed into,
 * answers for nearly every pointer with a subtraction and a comparison; the unit word then gives the state, and that says which block starts there, its
 * class, and whether it is live. From the address to the magazine are three dependent loads: in a loop that frees what it
 * has just allocated, this chain is what an operation costs. cache->id is compared as in larder.c.
 */
#include "backend.h"
#include "debug.h"
#include "entry.h"
#include "error.h"
#include "fit_tiers.h"
#include "planned.h"
#include "poison.h"
#include "thread_state.h"

static void free_unowned(struct larder *larder, void *ptr, const char *call)
{
    const larder_backend_t *backend = larder != NULL ? &larder->backend : larder_backend_system();
    if (larder != NULL && larder->config.checks == LARDER_CHECKS_STRICT) {
        size_t size;
        if (block_contains(larder, os_untagged(ptr), &size)) {
            error_report(larder, LARDER_ERROR_INVALID_POINTER, call, ptr, size, "interior");
            return;
        }
    }
    if ((backend->flags & LARDER_BACKEND_FREES_FOREIGN) == 0) {
        error_report(larder, LARDER_ERROR_FOREIGN_POINTER, call, ptr, 0, "unknown");
        return;
    }
    if (larder != NULL) {
        struct thread_cache *cache = thread_cache_of(larder);
        count_add(cache, &cache->counters.foreign_frees, 1);
    }
    backend->free(backend->context, ptr, 0);
}

static void free_record(struct larder *owner, struct thread_cache *cache,
                        struct block_record *record)
{
    const larder_config_t *config = &owner->config;
    bool caches = config->policy == LARDER_POLICY_EXACT &&
                  record->size >= config->min_cached_size &&
                  record->size <= config->max_cached_size &&
                  !atomic_load_explicit(&owner->orphaned, memory_order_relaxed);
    count_free(cache, record->size);
    cache_note_record(owner, 0 - (uint64_t)record->size);
    if (caches) {
        poison_cached(record->raw, record->raw_size);
        exact_free(owner, cache, record);
    } else {
        block_destroy(record);
    }
}

/* What leaves the quarantine is live for a moment, and somebody may be freeing it again. */
static bool releases_strictly(const struct larder *owner)
{
    return owner->config.checks == LARDER_CHECKS_STRICT || owner->quarantine.blocks != NULL;
}

bool entry_release(struct larder *owner, struct thread_cache *cache, const struct lookup *found,
                   bool is_record)
{
    bool strict = releases_strictly(owner);
    if (!is_record)
        return fit_free(owner, cache, &found->fit, strict);
    if (!block_mark_cached(found->record, strict))
        return false;
    free_record(owner, cache, found->record);
    return true;
}

/* Before a block is looked at and filled: whoever comes too late may find its memory another's, or gone. */
static bool claim(struct lookup *found, bool is_record)
{
    bool strict = releases_strictly(found->owner);
    return is_record ? block_mark_cached(found->record, strict) : fit_claim(&found->fit, strict);
}

static void free_claimed(const struct lookup *found, struct thread_cache *cache, bool is_record,
                         void *ptr, const char *call)
{
    struct larder *owner = found->owner;
    if (!owner->plain)
        debug_receive(owner, ptr, found->size, call);
    if (is_record)
        free_record(owner, cache, found->record);
    else
        fit_free_claimed(owner, cache, &found->fit);
}

static void free_found(struct lookup *found, bool is_record, void *ptr, const char *call)
{
    struct larder *owner = found->owner;
    struct thread_cache *cache = thread_cache_of(owner);
    count_add(cache, &cache->counters.slow_frees, 1);
    bool live = found->live;
    if (live && quarantine_wants(owner, found, is_record)) {
        live = quarantine_free(owner, cache, found, is_record, ptr, call);
    } else if (live && (is_record || !owner->plain)) {
        live = claim(found, is_record);
        if (live)
            free_claimed(found, cache, is_record, ptr, call);
    } else if (live) {
        live = entry_release(owner, cache, found, is_record);
    }
    if (unlikely(!live)) {
        count_add(cache, &cache->counters.slow_frees, UINT64_MAX);
        error_report(owner, LARDER_ERROR_DOUBLE_FREE, call, ptr, found->size, "cached");
        return;
    }
    if (unlikely(atomic_load_explicit(&owner->orphaned, memory_order_relaxed))) {
        cache_orphan_freed(owner);
    }
}

void entry_free(struct larder *larder, void *ptr, const char *call)
{
    if (ptr == NULL)
        return;
    struct lookup found;
    switch (lookup_address(ptr, &found)) {
    case LOOKUP_FIT:
        free_found(&found, false, ptr, call);
        break;
    case LOOKUP_RECORD:
        free_found(&found, true, ptr, call);
        break;
    case LOOKUP_INVALID:
        error_report(found.owner, LARDER_ERROR_INVALID_POINTER, call, ptr, 0, found.state);
        break;
    case LOOKUP_UNKNOWN:
        free_unowned(larder, ptr, call);
        break;
    }
}

__attribute__((noinline)) static void free_slow(struct larder *larder, void *ptr)
{
    entry_free(larder, ptr, "larder_free");
}

/* A block of an arena, found live; false where that needs care. */
static bool free_planned(const struct region *region, struct thread_cache *cache, word_t *word,
                         uint32_t value)
{
    struct larder *owner = region->instance;
    if (unlikely(!owner->plain ||
                 atomic_load_explicit(&cache->id, memory_order_relaxed) != owner->id))
        return false;
    uint32_t slack = word_load(word + 1);
    poison_cached(region_address(region, (uint32_t)(word - region->words)),
                  (size_t)(value & WORD_INDEX_MASK) << UNIT_SHIFT);
    planned_put_plain(word, value);
    count_own(&cache->counters.span_frees, 1);
    count_own(&cache->counters.span_freed_bytes,
              ((size_t)(value & WORD_INDEX_MASK) << UNIT_SHIFT) - slack);
    return true;
}

/* After a put: what is to be done now and then. No lock is held. */
static __attribute__((noinline)) void attend_put(struct span_heap *heap, bool look)
{
    if (look)
        cache_tick_if_due(heap->instance, os_now_ms());
    if (span_heap_is_due(heap))
        cache_attend(heap);
}

static __attribute__((noinline)) void finish_put(struct span_heap *heap)
{
    span_heap_finish_put(heap, &thread_state.lock_user);
    attend_put(heap, true);
}

static inline void count_span_free(struct thread_cache *cache, uint64_t size)
{
    count_own(&cache->counters.span_frees, 1);
    count_own(&cache->counters.span_freed_bytes, size);
}

/* The same block where no loop expects it. */
static __attribute__((noinline)) void free_large_slow(struct larder *larder, void *ptr,
                                                      struct region *region, uint32_t start)
{
    word_t *word = &region->words[start];
    uint32_t value = word_load(word), units = value & WORD_INDEX_MASK;
    struct thread_cache *cache = thread_state.direct[region->instance_slot];
    if (unlikely(word_kind(value) != WORD_LARGE_LIVE || cache->span_limit == 0 ||
                 atomic_load_explicit(&cache->id, memory_order_relaxed) != region->instance_id)) {
        if (word_kind(value) != WORD_LARGE_LIVE || region->arena == NULL ||
            !free_planned(region, cache, word, value))
            free_slow(larder, ptr);
        return;
    }
    size_t size = ((size_t)units << UNIT_SHIFT) - word_load(word + 1);
    struct span_heap *heap = region->heap;
    poison_cached(region_address(region, start), (size_t)units << UNIT_SHIFT);
    enum span_put put = span_heap_put_plain(heap, region, start, units, value, size);
    if (unlikely(put == SPAN_PUT_LOST)) {
        free_slow(larder, ptr);
        return;
    }
    count_span_free(cache, size);
    bool look = ++cache->puts % TICK_EVERY == 0;
    /* the end of a loop is the owner's business: not to look spares it a cache line, and its bias */
    if (put == SPAN_PUT_NOTED) {
        if (unlikely(look))
            cache_tick_if_due(heap->instance, os_now_ms());
        return;
    }
    if (unlikely(look || span_heap_is_due(heap)))
        attend_put(heap, look);
}

/*
 * A large block: back to its heap, if that is allowed without further ado, and if a loop expects it at once. Apart from larder_free(),
 * so that small ones pay for no registers.
 */
static __attribute__((noinline)) void free_large(struct larder *larder, void *ptr)
{
    struct region *region = thread_state.hint;
    size_t offset;
    if (unlikely(!region_contains(region, os_untagged(ptr), &offset) ||
                 (offset & (UNIT - 1)) != 0)) {
        free_slow(larder, ptr);
        return;
    }
    uint32_t start = (uint32_t)(offset >> UNIT_SHIFT);
    struct thread_cache *cache = thread_state.direct[region->instance_slot];
    struct span_heap *heap = region->heap;
    uint64_t size = 0;
    enum span_step step = SPAN_UNEXPECTED;
    if (likely(atomic_load_explicit(&cache->id, memory_order_relaxed) == region->instance_id))
        step = span_heap_put_expected(heap, &thread_state.lock_user, region, start, &size);
    if (unlikely(step == SPAN_UNEXPECTED)) {
        free_large_slow(larder, ptr, region, start);
        return;
    }
    count_span_free(cache, size);
    if (unlikely(step == SPAN_STEP_INSIDE))
        finish_put(heap);
    else if (unlikely(span_heap_is_due(heap)))
        attend_put(heap, false);
}

/* The loaded magazine takes no more: into the other one, or behind. The block was found live. */
static __attribute__((noinline)) void free_unloading(struct larder *owner,
                                                     struct thread_cache *cache, struct bin *bin,
                                                     struct round round)
{
    count_own(&cache->counters.freed_bytes, word_load(&round.state->word) & STATE_SIZE_MASK);
    word_store(&round.state->word, 0);
    poison_cached(round.ptr, bin->bytes);
    if (bin_other_count(bin) < bin->other->capacity && bin_count(bin) < bin->allotted &&
        bin_loaded_count(bin) == bin->loaded->capacity) {
        bin_swap(bin);
        struct round *top = bin_top(bin);
        *top = round;
        bin_set_top(bin, top + 1);
        return;
    }
    unsigned c = (unsigned)(bin - cache->bins);
    count_own(&cache->counters.frees, 1);
    count_own(&cache->counters.slow_frees, 1);
    if (!fit_put_round(owner, cache, c, round))
        fit_give_rounds(owner, c, &round, 1);
}

void larder_free(larder_t *larder, void *ptr)
{
    struct region *region = thread_state.small_hint;
    uintptr_t address = os_untagged(ptr);
    size_t offset;
    if (unlikely(!region_contains(region, address, &offset))) {
        free_large(larder, ptr);
        return;
    }
    uint32_t unit = word_load(&region->words[offset >> UNIT_SHIFT]);
    struct thread_cache *cache = thread_state.direct[region->instance_slot];
    if (likely(unit >= WORD(WORD_RUN) &&
               atomic_load_explicit(&cache->id, memory_order_relaxed) == region->instance_id)) {
        struct block_state *state = region_state(region, unit);
        struct bin *bin = bin_of_word(cache, unit);
        uint32_t beyond = (uint32_t)address - state->address;
        if (beyond != 0) { /* not the first of its unit */
            state += beyond * bin->reciprocal >> 16;
            if (unlikely(state->address != (uint32_t)address)) {
                free_slow(larder, ptr);
                return;
            }
        }
        uint32_t word = word_load(&state->word);
        if (likely(state_is_live(word) || !CHECKING)) {
            struct round *top = bin_top(bin);
            if (unlikely(top == bin->ceiling)) {
                free_unloading(region->instance, cache, bin,
                               (struct round){(void *)address, state});
                return;
            }
            if (CHECKING)
                word_store(&state->word, 0);
            poison_cached((void *)address, bin->bytes);
            *top = (struct round){(void *)address, state};
            bin_set_top(bin, top + 1);
            count_own(&cache->counters.freed_bytes, word & STATE_SIZE_MASK);
            return;
        }
    }
    free_slow(larder, ptr);
}
