/* SPDX-License-Identifier: MIT */
/*
 * Allocation: the hit path, argument checks, and the choice of tier. free.c has the other half, and realloc.c, blocks.c and
 * instance.c the other public calls.
 *
 * The hit path. An allocation reads the thread's cache for the instance out of thread-local storage, looks the
 * class up, and takes the top round of the loaded magazine; the round brings its block's state along, so there is nothing to
 * find. No lock is taken, and the only memory written is the
 * thread's own and the block's state.
 *
 * cache->id is compared with the instance's (or region's) id. It differs when the cache belongs to another instance,
 * when a flush is wanted, and always under policies and checks that have no hit path: one comparison sends all of
 * these to the slow path.
 */
#include <errno.h>
#include <string.h>

#include "backend.h"
#include "debug.h"
#include "error.h"
#include "entry.h"
#include "fit_tiers.h"
#include "planned.h"
#include "poison.h"
#include "thread_state.h"

static void *record_address(const struct block_record *record)
{
    return (void *)atomic_load_explicit(&((struct block_record *)(uintptr_t)record)->address,
                                        memory_order_relaxed);
}

static struct block_record *alloc_record(struct larder *larder, struct thread_cache *cache,
                                         size_t size, size_t alignment)
{
    const larder_config_t *config = &larder->config;
    if (config->policy == LARDER_POLICY_EXACT && size >= config->min_cached_size &&
        size <= config->max_cached_size) {
        enum exact_hit hit;
        struct block_record *record = exact_alloc(larder, cache, size, alignment, &hit);
        if (record == NULL)
            return NULL;
        if (hit == EXACT_MISS)
            count_add(cache, &cache->counters.miss_cold, 1);
        if (hit == EXACT_THREAD_HIT)
            count_add(cache, &cache->counters.slow_allocations, UINT64_MAX);
        cache_note_record(larder, size);
        return record;
    }
    struct block_record *record = block_create(larder, size, alignment);
    if (record != NULL) {
        count_add(cache, &cache->counters.miss_size, 1);
        cache_note_record(larder, size);
    }
    return record;
}

static void *alloc_tier(struct larder *larder, struct thread_cache *cache, size_t size,
                        size_t alignment)
{
    if (policy_cuts_regions(larder->config.policy) && size <= larder->config.max_cached_size) {
        bool too_large;
        void *ptr = NULL;
        if (cache->stream != NULL)
            ptr = planned_request(cache, size, alignment);
        if (ptr != NULL)
            return ptr;
        ptr = fit_alloc(larder, cache, size, alignment, &too_large);
        if (ptr != NULL && cache->stream != NULL)
            planned_note_taken(cache, ptr, size, alignment);
        if (ptr != NULL || !too_large)
            return ptr;
    }
    struct block_record *record = alloc_record(larder, cache, size, alignment);
    return record != NULL ? record_address(record) : NULL;
}

__attribute__((noinline)) static void *alloc_slow(struct larder *larder, size_t size,
                                                  size_t alignment)
{
    struct thread_cache *cache = thread_cache_of(larder);
    if (unlikely(size > LARGEST_REQUEST || alignment > LARGEST_REQUEST / 4 ||
                 size > LARGEST_REQUEST - alignment)) {
        count_add(cache, &cache->counters.failures, 1);
        errno = EOVERFLOW;
        return NULL;
    }
    if (alignment < larder->config.alignment)
        alignment = larder->config.alignment;
    count_alloc(cache, size);
    count_add(cache, &cache->counters.slow_allocations, 1);
    void *ptr = alloc_tier(larder, cache, size, alignment);
    if (unlikely(ptr == NULL)) {
        cache_trim(larder, 0);
        cache_trim_all();
        cache = thread_cache_of(larder);
        ptr = alloc_tier(larder, cache, size, alignment);
    }
    if (unlikely(ptr == NULL && policy_cuts_regions(larder->config.policy))) {
        /* the backend may have no region left, and yet room for this block */
        struct block_record *record = alloc_record(larder, cache, size, alignment);
        if (record != NULL)
            ptr = record_address(record);
    }
    if (unlikely(ptr == NULL)) {
        count_add(cache, &cache->counters.allocations, UINT64_MAX);
        count_add(cache, &cache->counters.allocated_bytes, 0 - (uint64_t)size);
        count_add(cache, &cache->counters.slow_allocations, UINT64_MAX);
        count_add(cache, &cache->counters.failures, 1);
        errno = ENOMEM;
        return NULL;
    }
    if (unlikely(!larder->plain))
        debug_prepare(larder, ptr, size);
    return ptr;
}

/* True if large blocks of this size go straight to the span heap: the thread and instance allow it. */
static inline bool takes_spans(const struct larder *larder, struct thread_cache *cache, size_t size)
{
    return likely(size > cache->class_limit && size <= cache->span_limit &&
                  atomic_load_explicit(&cache->id, memory_order_relaxed) == larder->id);
}

/* A span becomes a live block. */
static inline void *use_span(struct thread_cache *cache, struct region *region, uint32_t start,
                             uint32_t units, size_t size)
{
    count_own(&cache->counters.span_allocations, 1);
    count_own(&cache->counters.span_allocated_bytes, size);
    word_store(&region->words[start + 1], (uint32_t)(((size_t)units << UNIT_SHIFT) - size));
    void *block = region_address(region, start);
    poison_live(block, (size_t)units << UNIT_SHIFT);
    return block;
}

/* Goes on with a span found, or with none, that needs more. */
static void *take_large_rest(struct larder *larder, struct thread_cache *cache,
                             struct taken_span taken, size_t size, size_t *written)
{
    if (likely(taken.region != NULL && taken.fresh_pages == 0)) {
        uint32_t units = (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT);
        if (likely(region_is_committed(taken.region, taken.start + units)))
            return use_span(cache, taken.region, taken.start, units, size);
    }
    void *ptr = fit_finish_span(larder, cache, taken, size, written);
    if (likely(ptr != NULL))
        return ptr;
    *written = size;
    return alloc_slow(larder, size, 1);
}

/*
 * Large blocks where no loop knows the place. *written, which must be `size`, becomes how many bytes from the first on may be other
 * than zero, where that is known.
 */
static __attribute__((noinline)) void *take_large(struct larder *larder, struct thread_cache *cache,
                                                  size_t size, size_t *written)
{
    if (takes_spans(larder, cache, size)) {
        uint32_t units = (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT);
        return take_large_rest(larder, cache, fit_take_plain(cache, units, size), size, written);
    }
    if (cache->stream != NULL && size > cache->class_limit && larder->plain &&
        atomic_load_explicit(&cache->id, memory_order_relaxed) == larder->id) {
        void *ptr = planned_alloc(cache, size);
        if (likely(ptr != NULL))
            return ptr;
    }
    return alloc_slow(larder, size, 1);
}

static __attribute__((noinline)) void *alloc_large_slow(struct larder *larder,
                                                        struct thread_cache *cache, size_t size)
{
    size_t written;
    return take_large(larder, cache, size, &written);
}

/* A loop's place that has not been committed. */
static __attribute__((noinline)) void *alloc_uncommitted(struct larder *larder,
                                                         struct thread_cache *cache, size_t size,
                                                         struct region *region, uint32_t start)
{
    size_t written;
    return take_large_rest(larder, cache, (struct taken_span){region, start, 0}, size, &written);
}

/* The top round of a bin's loaded magazine becomes a live block. */
static inline void *take_top(struct thread_cache *cache, struct bin *bin, struct round *top,
                             size_t size)
{
    struct round *round = top - 1;
    void *ptr = round->ptr;
    bin_set_top(bin, round);
    word_store(&round->state->word, STATE_LIVE | (uint32_t)size);
    count_own(&cache->counters.allocations, 1);
    count_own(&cache->counters.allocated_bytes, size);
    poison_live(ptr, bin->bytes);
    return ptr;
}

/* The loaded magazine is empty: takes from the other one, or from behind. */
static __attribute__((noinline)) void *
alloc_refilled(struct larder *larder, struct thread_cache *cache, struct bin *bin, size_t size)
{
    if (bin_other_count(bin) != 0) {
        bin_swap(bin);
    } else if (fit_refill(larder, cache, (unsigned)(bin - cache->bins))) {
        count_own(&cache->counters.slow_allocations, 1);
        count_own(&cache->counters.blocks_moved, UINT64_MAX);
    } else {
        return alloc_slow(larder, size, 1);
    }
    return take_top(cache, bin, bin_top(bin), size);
}

/* Large blocks. Apart from larder_alloc(), and what is not expected apart from this, so that neither pays for registers. */
static __attribute__((noinline)) void *alloc_large(struct larder *larder,
                                                   struct thread_cache *cache, size_t size)
{
    if (unlikely(!takes_spans(larder, cache, size)))
        return alloc_large_slow(larder, cache, size);
    uint32_t units = (uint32_t)((size + UNIT - 1) >> UNIT_SHIFT), start = 0;
    struct region *region =
        span_heap_take_expected(cache->heap, &thread_state.lock_user, units, size, &start);
    if (unlikely(region == NULL))
        return alloc_large_slow(larder, cache, size);
    if (unlikely(!region_is_committed(region, start + units)))
        return alloc_uncommitted(larder, cache, size, region, start);
    return use_span(cache, region, start, units, size);
}

/* Inlined where it is called: a call of larder_alloc() from here would go through the procedure linkage table. */
static inline __attribute__((always_inline)) void *alloc_hit(struct larder *larder, size_t size)
{
    struct thread_cache *cache = thread_state.direct[larder->slot];
    /* relaxed: whoever asks for a flush may be seen late */
    if (likely(size <= cache->class_limit &&
               atomic_load_explicit(&cache->id, memory_order_relaxed) == larder->id)) {
        unsigned step = (unsigned)(size + SIZE_CLASS_MIN - 1) >> SIZE_CLASS_STEP_SHIFT;
        struct bin *bin = bin_at(cache, larder->bin_offsets[step]);
        struct round *top = bin_top(bin);
        if (unlikely(top == bin_floor(bin)))
            return alloc_refilled(larder, cache, bin, size);
        return take_top(cache, bin, top, size);
    }
    return alloc_large(larder, cache, size);
}

void *larder_alloc(larder_t *larder, size_t size)
{
    return alloc_hit(larder, size);
}

void *larder_alloc_aligned(larder_t *larder, size_t alignment, size_t size)
{
    /* 0 - 1 is more than any alignment */
    if (likely(alignment - 1 < larder->config.alignment && (alignment & (alignment - 1)) == 0))
        return alloc_hit(larder, size);
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    return alloc_slow(larder, size, alignment);
}

void *larder_calloc(larder_t *larder, size_t count, size_t size)
{
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) {
        errno = EOVERFLOW;
        return NULL;
    }
    /* What the system has just given reads as zero, and costs nothing until it is written to. */
    size_t written = bytes;
    struct thread_cache *cache = thread_state.direct[larder->slot];
    void *ptr = bytes > larder->class_limit ? take_large(larder, cache, bytes, &written)
                                            : alloc_hit(larder, bytes);
    if (ptr != NULL)
        memset(ptr, 0, written);
    return ptr;
}
