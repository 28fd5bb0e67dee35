/* SPDX-License-Identifier: MIT */
#include "quarantine.h"

#include <errno.h>

#include "debug.h"
#include "entry.h"
#include "error.h"
#include "planned.h"
#include "poison.h"
#include "thread_state.h"

/* A block that waits; it cannot move or end meanwhile, so its state word stays where it is. */
struct quarantined {
    void *ptr; /* the caller's */
    size_t bytes;
    word_t *word;
    uint32_t live;            /* what the word said before */
    bool is_record, is_state; /* which kind of word; neither: a large block's unit word */
};

int quarantine_init(struct larder *instance)
{
    struct quarantine *quarantine = &instance->quarantine;
    if (instance->config.quarantine_bytes == 0)
        return 0;
    spinlock_set_rank(&quarantine->lock, RANK_QUARANTINE);
    quarantine->blocks = os_map(QUARANTINE_BLOCKS * sizeof(struct quarantined));
    return quarantine->blocks != NULL ? 0 : -ENOMEM;
}

static size_t bytes_of(const struct lookup *found, bool is_record)
{
    return is_record ? found->record->raw_size : found->fit.bytes;
}

bool quarantine_wants(struct larder *instance, const struct lookup *found, bool is_record)
{
    if (instance->quarantine.blocks == NULL ||
        bytes_of(found, is_record) > instance->config.quarantine_bytes)
        return false;
    /* an orphan's memory goes back at once */
    return !atomic_load_explicit(&instance->orphaned, memory_order_relaxed) &&
           (is_record || found->fit.region->arena == NULL);
}

static struct quarantined describe(const struct lookup *found, bool is_record, void *ptr)
{
    struct quarantined block = {.ptr = ptr,
                                .bytes = bytes_of(found, is_record),
                                .word = is_record ? &found->record->word : found->fit.word,
                                .is_record = is_record,
                                .is_state = !is_record && !found->fit.is_large};
    block.live = word_load(block.word);
    return block;
}

/* LIVE to CACHED, also against other threads. A span keeps its length, as whoever walks over a region wants it. */
static bool mark_waiting(const struct quarantined *block)
{
    uint32_t live = block->live, waiting;
    if (block->is_state && state_is_live(live))
        waiting = live & STATE_GENERATION_MASK;
    else if (block->is_state)
        return false;
    else if (word_kind(live) == WORD_LIVE)
        waiting = (live & WORD_GENERATION_MASK) | WORD(WORD_CACHED);
    else if (word_kind(live) == WORD_LARGE_LIVE)
        waiting = (live & (WORD_GENERATION_MASK | WORD_INDEX_MASK)) | WORD(WORD_LARGE_CACHED);
    else
        return false;
    return atomic_compare_exchange_strong_explicit(block->word, &live, waiting,
                                                   memory_order_relaxed, memory_order_relaxed);
}

/* What the caller sees is that it has been freed. */
static void count_waiting(struct larder *instance, struct thread_cache *cache, size_t size,
                          bool is_record)
{
    count_free(cache, size);
    if (is_record)
        atomic_fetch_sub_explicit(&instance->record_live_bytes, size, memory_order_relaxed);
}

static void uncount_waiting(struct larder *instance, struct thread_cache *cache, size_t size,
                            bool is_record)
{
    count_add(cache, &cache->counters.frees, UINT64_MAX);
    count_add(cache, &cache->counters.freed_bytes, 0 - (uint64_t)size);
    if (is_record)
        atomic_fetch_add_explicit(&instance->record_live_bytes, size, memory_order_relaxed);
}

/* The end of the wait: an ordinary free. */
static void release(struct larder *instance, const struct quarantined *block)
{
    struct lookup found;
    word_store(block->word, block->live);
    (void)lookup_address(block->ptr, &found);
    if (block->is_record)
        poison_live(found.record->raw, found.record->raw_size);
    else
        poison_live(found.fit.base, found.fit.bytes);
    if (!debug_is_wiped(instance, block->ptr, found.size)) {
        error_report(instance, LARDER_ERROR_USE_AFTER_FREE, "larder_free", block->ptr, found.size,
                     "quarantined");
    }
    struct thread_cache *cache = thread_cache_of(instance);
    uncount_waiting(instance, cache, found.size, block->is_record);
    if (!entry_release(instance, cache, &found, block->is_record)) {
        error_report(instance, LARDER_ERROR_DOUBLE_FREE, "larder_free", block->ptr, found.size,
                     "quarantined");
    }
}

/* The same for one that was in the queue, and in the account of the cap. */
static void release_reserved(struct larder *instance, const struct quarantined *block)
{
    cache_unreserve(instance, block->bytes);
    release(instance, block);
}

/* The oldest leaves the queue; false if it is empty. Lock held. */
static bool pop(struct quarantine *quarantine, struct quarantined *block)
{
    if (quarantine->count == 0)
        return false;
    *block = quarantine->blocks[quarantine->first];
    quarantine->first = (quarantine->first + 1) % QUARANTINE_BLOCKS;
    quarantine->count--;
    atomic_fetch_sub_explicit(&quarantine->bytes, block->bytes, memory_order_relaxed);
    return true;
}

/* False if there is no room for it yet. Lock held. */
static bool push(struct larder *instance, const struct quarantined *block)
{
    struct quarantine *quarantine = &instance->quarantine;
    uint64_t bytes = atomic_load_explicit(&quarantine->bytes, memory_order_relaxed) + block->bytes;
    if (quarantine->count == QUARANTINE_BLOCKS || bytes > instance->config.quarantine_bytes ||
        !cache_reserve(instance, block->bytes))
        return false;
    quarantine->blocks[(quarantine->first + quarantine->count++) % QUARANTINE_BLOCKS] = *block;
    atomic_store_explicit(&quarantine->bytes, bytes, memory_order_relaxed);
    return true;
}

/* Into the queue, for which the oldest make room. False: no room for it, and nothing left that could make any. */
static bool wait_in_line(struct larder *instance, const struct quarantined *block)
{
    struct quarantine *quarantine = &instance->quarantine;
    for (;;) {
        struct quarantined oldest;
        spinlock_lock(&quarantine->lock);
        bool pushed = push(instance, block);
        bool popped = !pushed && pop(quarantine, &oldest);
        spinlock_unlock(&quarantine->lock);
        if (!popped)
            return pushed;
        release_reserved(instance, &oldest);
    }
}

bool quarantine_free(struct larder *instance, struct thread_cache *cache,
                     const struct lookup *found, bool is_record, void *ptr, const char *call)
{
    struct quarantined block = describe(found, is_record, ptr);
    if (!mark_waiting(&block))
        return false;
    debug_receive(instance, ptr, found->size, call);
    if (is_record)
        poison_cached(found->record->raw, found->record->raw_size);
    else
        poison_cached(found->fit.base, found->fit.bytes);
    if (instance->planned != NULL && !is_record)
        planned_note_freed(instance, found->fit.base);
    count_waiting(instance, cache, found->size, is_record);
    if (!wait_in_line(instance, &block)) /* the cap leaves no room */
        release(instance, &block);
    return true;
}

void quarantine_empty(struct larder *instance)
{
    struct quarantine *quarantine = &instance->quarantine;
    struct quarantined oldest;
    bool popped = quarantine->blocks != NULL;
    while (popped) {
        spinlock_lock(&quarantine->lock);
        popped = pop(quarantine, &oldest);
        spinlock_unlock(&quarantine->lock);
        if (popped)
            release_reserved(instance, &oldest);
    }
}

void quarantine_end(struct larder *instance)
{
    quarantine_empty(instance);
    if (instance->quarantine.blocks != NULL)
        os_unmap(instance->quarantine.blocks, QUARANTINE_BLOCKS * sizeof(struct quarantined));
    instance->quarantine.blocks = NULL;
}

uint64_t quarantine_bytes(struct larder *instance)
{
    return atomic_load_explicit(&instance->quarantine.bytes, memory_order_relaxed);
}

uint64_t quarantine_blocks(struct larder *instance)
{
    if (instance->quarantine.blocks == NULL)
        return 0;
    spinlock_lock(&instance->quarantine.lock);
    uint64_t count = instance->quarantine.count;
    spinlock_unlock(&instance->quarantine.lock);
    return count;
}

uint64_t quarantine_metadata_bytes(const struct larder *instance)
{
    return instance->quarantine.blocks != NULL ? QUARANTINE_BLOCKS * sizeof(struct quarantined) : 0;
}
